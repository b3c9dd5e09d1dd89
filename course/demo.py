"""`make demo`: first pictures, then every finished lesson from top to bottom on the embedded model, then one page,
outputs/index.html, that shows what came out. The page needs no network and is there as soon as the first pictures are.
"""

import argparse
import base64
import html
import re
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import torch
from PIL import Image

from course import notebooks, pictures
from course.errors import CourseError
from course.models import find_model, load_pipeline

PROMPTS = {  # what people try first, each with a seed
    "a photo of an astronaut riding a horse on mars": 1,
    "a hamburger": 1,
    "a squirrel reading a book": 1,
    "a bunny sitting on top of a stack of pancakes": 1,
    "a city skyline at night": 1,
}
STEPS, GUIDANCE_SCALE = 25, 5.0
FORMATS = {"image/png": "png", "image/jpeg": "jpg", "image/gif": "gif", "video/mp4": "mp4"}


@dataclass
class Shown:
    """A picture or clip of the page: its file and what stands below it."""

    path: Path
    caption: str


@dataclass
class Section:
    """A part of the page: a title, a line about it, what it shows, and the error if it failed."""

    title: str
    line: str = ""
    shown: list[Shown] = field(default_factory=list)
    error: str = ""


def draw_prompts(outputs: Path, prompts: dict[str, int], steps: int) -> Section:
    """One picture of the embedded model for each prompt and seed, as PNG files under `outputs`/prompts, and all of them
    side by side in `outputs`/prompts.png."""
    model = find_model("pocket")
    pipe = load_pipeline(model)
    folder = outputs / "prompts"
    folder.mkdir(parents=True, exist_ok=True)
    side = model.image_size // model.scale_factor
    section, started = Section("First pictures"), time.perf_counter()
    for prompt, seed in prompts.items():
        begun = time.perf_counter()
        # Drawn on the CPU in float32, so that one seed gives one picture on every machine.
        noise = torch.randn(
            (1, pipe.unet.config.in_channels, side, side), generator=torch.Generator("cpu").manual_seed(seed)
        )
        picture = pipe(
            model.check_prompt(prompt),
            num_inference_steps=steps,
            guidance_scale=GUIDANCE_SCALE,
            latents=noise.to(model.device, model.dtype),
        ).images[0]
        path = folder / f"{slug(prompt)}.png"
        picture.save(path)
        section.shown.append(Shown(path, prompt))
        print(f"  {time.perf_counter() - begun:5.1f} s  {prompt}", flush=True)
    seconds = (time.perf_counter() - started) / len(prompts)
    section.line = (
        f"{steps} steps, guidance {GUIDANCE_SCALE:g}; {seconds:.1f} seconds a picture on {model.device.type.upper()}."
    )
    sheet = pictures.grid([Image.open(shown.path) for shown in section.shown], titles=list(prompts))
    sheet.save(outputs / "prompts.png")
    return section


def run_lesson(path: Path, outputs: Path) -> Section:
    """Execute a lesson on the embedded model, store it under `outputs`/lessons, and collect its pictures, each with
    the heading it stands under. A lesson that fails gives a section with its error."""
    notebook = notebooks.read(path)
    section = Section(lesson_title(notebook))
    begun = time.perf_counter()
    try:
        done = notebooks.execute(notebook, environment={"COURSE_MODEL": "pocket"}, progress=f"  {path.stem}")
    except notebooks.LessonError as error:
        section.error = str(error)
        return section
    folder = outputs / "lessons"
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(done, folder / path.name)
    section.shown = extract(done, folder / path.stem)
    section.line = f"{path.name}: every cell ran and every check passed, in {time.perf_counter() - begun:.0f} seconds."
    return section


def extract(notebook: nbformat.NotebookNode, folder: Path) -> list[Shown]:
    """Write the pictures and clips in the outputs of an executed notebook to `folder`, numbered in order."""
    folder.mkdir(parents=True, exist_ok=True)
    heading, shown = "", list[Shown]()
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            found = re.findall(r"^#+ (.+)$", cell.source, flags=re.MULTILINE)
            heading = found[-1] if found else heading
        for output in cell.get("outputs", []):
            kind = next((kind for kind in FORMATS if kind in output.get("data", {})), None)
            if kind:
                path = folder / f"{len(shown) + 1:02d}.{FORMATS[kind]}"
                path.write_bytes(base64.b64decode(output.data[kind]))
                shown.append(Shown(path, heading))
    return shown


def lesson_title(notebook: nbformat.NotebookNode) -> str:
    """The first heading of a lesson."""
    return next(cell.source.splitlines()[0].lstrip("# ") for cell in notebook.cells if cell.cell_type == "markdown")


def slug(text: str) -> str:
    """`text` as a file name: lower case, words joined by hyphens."""
    return "-".join(re.findall(r"[a-z0-9]+", text.lower()))


STYLE = """
:root { color-scheme: light dark; --ink: #222; --soft: #667; --paper: #fbfaf8; --card: #fff; --line: #e4e1da; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #eee; --soft: #9aa; --paper: #16171a; --card: #202226; --line: #33363c; }
}
body { font: 17px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 0; }
main { max-width: 1180px; margin: 0 auto; padding: 3rem 1.5rem; }
h1 { font-size: 2.1rem; margin: 0 0 .3rem; } h2 { margin: 3rem 0 .2rem; } p { color: var(--soft); margin: 0 0 1rem; }
.few { display: grid; grid-template-columns: repeat(auto-fill, minmax(200px, 1fr)); gap: 1rem; }
.wide { display: flex; flex-wrap: wrap; align-items: flex-start; gap: 1rem; }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: 10px; overflow: hidden; }
figure img, figure video { display: block; max-width: 100%; margin: 0 auto; } .few img { width: 100%; }
figcaption { padding: .5rem .8rem .7rem; font-size: .92rem; }
pre { background: #7a1f1f; color: #fff; padding: 1rem; border-radius: 10px; overflow-x: auto; }
"""


def page(sections: list[Section], root: Path) -> str:
    """The page as HTML: everything on it lies under `root`, beside the page."""
    parts = []
    for section in sections:
        figures = []
        for shown in section.shown:
            source, caption = html.escape(shown.path.relative_to(root).as_posix()), html.escape(shown.caption)
            if shown.path.suffix == ".mp4":
                tag = f'<video src="{source}" controls loop muted playsinline></video>'
            else:
                tag = f'<img src="{source}" alt="{caption}" loading="lazy">'
            figures.append(f"<figure>{tag}<figcaption>{caption}</figcaption></figure>")
        kind = "few" if section is sections[0] else "wide"
        error = f"<pre>{html.escape(section.error)}</pre>" if section.error else ""
        parts.append(
            f"<section><h2>{html.escape(section.title)}</h2><p>{html.escape(section.line)}</p>{error}"
            f'<div class="{kind}">{"".join(figures)}</div></section>'
        )
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><title>Latent Diffusion Applications</title>'
        f"<style>{STYLE}</style></head><body><main><h1>Latent Diffusion Applications</h1>"
        "<p>What the lessons drew on this machine with the embedded model.</p>"
        f"{''.join(parts)}</main></body></html>\n"
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m course.demo", description=__doc__)
    parser.add_argument("--outputs", type=Path, default=notebooks.ROOT / "outputs", help="where the page goes")
    outputs: Path = parser.parse_args(arguments).outputs
    index = outputs / "index.html"
    try:
        print("First pictures with the embedded model:", flush=True)
        sections = [draw_prompts(outputs, PROMPTS, STEPS)]
        index.write_text(page(sections, outputs), encoding="utf-8")
        for path in notebooks.lessons():
            print(f"{path.name}:", flush=True)
            sections.append(run_lesson(path, outputs))
            index.write_text(page(sections, outputs), encoding="utf-8")
    except CourseError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    for section in sections:
        if section.error:
            print(f"\n{section.title} failed: {section.error}", file=sys.stderr)
    print(f"\nOpen {index} in a browser.")
    return 1 if any(section.error for section in sections) else 0


if __name__ == "__main__":
    sys.exit(main())

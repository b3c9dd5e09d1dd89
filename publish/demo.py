"""`make demo`: first images, then every finished lesson from top to bottom on the embedded model, then an object in
3D, and one page, outputs/index.html, that shows what came out. The page needs no network and is there as soon as the
first images are.
"""

import argparse
import base64
import html
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import nbformat
import torch
from PIL import Image

from course import notebooks
from course.errors import CourseError
from course.images import image_grid
from course.models import find_model, load_pipeline

PROMPTS = (  # what people try first, then a little of everything the model knows
    "a photo of an astronaut riding a horse on mars",
    "a hamburger",
    "a squirrel reading a book",
    "a bunny sitting on top of a stack of pancakes",
    "a city skyline at night",
    "a red mushroom on grass",
    "a birthday cake on a wooden table",
    "a desert at sunset",
    "a cartoon drawing of a penguin on snow",
    "a red car on grass",
    "a canyon",
    "a house on top of a pumpkin",
)
SEED = 2  # one for all, not the best of many for each
STEPS, GUIDANCE_SCALE = 25, 5.0
COLUMNS = 6
TO_SEE = "**What to see.**"  # how a lesson begins the text below its images
OBJECT = "a hamburger"
OBJECTS = Path("objects")  # under outputs/, a folder for each object
# Pages that lessons leave under outputs/, and what a link to them says.
PAGES = {"task_2_Joint_Diffusion": (Path("task_2/turn.html"), "Turn the closed panorama")}
FORMATS = {"image/png": "png", "image/jpeg": "jpg", "image/gif": "gif", "video/mp4": "mp4"}


@dataclass
class Shown:
    """An image or clip of the page: its file, what stands below it, and a longer remark if there is one."""

    path: Path
    caption: str
    remark: str = ""


@dataclass
class Section:
    """A part of the page: a title, a line about it, what it shows, and the error if it failed. `links` are files for
    those who want to see more, each with what the link says."""

    title: str
    line: str = ""
    shown: list[Shown] = field(default_factory=list)
    links: list[tuple[Path, str]] = field(default_factory=list)
    error: str = ""


def draw_prompts(outputs: Path, prompts: Sequence[str], steps: int) -> Section:
    """One image of the embedded model for each prompt, as PNG files under `outputs`/prompts, and all of them on one
    sheet, `outputs`/prompts.png."""
    model = find_model("pocket")
    pipe = load_pipeline(model)
    folder = outputs / "prompts"
    folder.mkdir(exist_ok=True)
    side = model.image_size // model.scale_factor
    section, started = Section("First pictures"), time.perf_counter()
    for prompt in prompts:
        begun = time.perf_counter()
        # Drawn on the CPU in float32, so that one seed gives one image on every machine.
        noise = torch.randn(
            (1, pipe.unet.config.in_channels, side, side),
            generator=torch.Generator("cpu").manual_seed(SEED),
        )
        image = pipe(
            model.check_prompt(prompt),
            num_inference_steps=steps,
            guidance_scale=GUIDANCE_SCALE,
            latents=noise.to(model.device, model.dtype),
        ).images[0]
        path = folder / f"{slug(prompt)}.png"
        image.save(path)
        section.shown.append(Shown(path, prompt))
        print(f"  {time.perf_counter() - begun:5.1f} s  {prompt}", flush=True)
    seconds = (time.perf_counter() - started) / len(prompts)
    section.line = (
        f"{seconds:.1f} seconds a picture on this machine's {model.device.type.upper()}: {steps} steps, guidance scale "
        f"{GUIDANCE_SCALE:g}, and seed {SEED} for all of them."
    )
    drawn = [Image.open(shown.path) for shown in section.shown]
    sheet = image_grid(drawn, columns=min(COLUMNS, len(drawn)), titles=prompts, side=160)
    sheet.save(outputs / "prompts.png", optimize=True)
    return section


def run_lesson(path: Path, outputs: Path) -> Section:
    """Execute a lesson on the embedded model, store it under `outputs`/lessons, and collect its images, each with
    the heading it stands under. A lesson that fails gives a section with its error."""
    notebook = notebooks.read(path)
    section = Section(lesson_title(notebook))
    begun = time.perf_counter()
    try:
        done = notebooks.execute(
            notebook, environment={"COURSE_MODEL": "pocket"}, progress=f"  {path.stem}"
        )
    except notebooks.LessonError as error:
        section.error = str(error)
        return section
    folder = outputs / "lessons"
    folder.mkdir(exist_ok=True)
    nbformat.write(done, folder / path.name)
    section.links = lesson_links(folder / path.name, outputs)
    section.shown = extract(done, folder / path.stem)
    section.line = (
        f"Every cell ran and every check passed, in {time.perf_counter() - begun:.0f} seconds."
    )
    return section


def lesson_links(executed: Path, outputs: Path) -> list[tuple[Path, str]]:
    """The executed lesson, and the page that it left under `outputs`, if there is one."""
    own, words = PAGES.get(executed.stem, (Path(), ""))
    return [(executed, executed.name)] + (
        [(outputs / own, words)] if words and (outputs / own).exists() else []
    )


def make_object(outputs: Path, text: str, settings: Sequence[str] = ()) -> Section:
    """Have task 3 make an object on the embedded model, anew, in `outputs`/objects. Its program is started as a person
    starts it, for course imports nothing of task 3; `settings` are more of its options. If it fails, the section has
    its error."""
    section = Section("3 DreamFusion: 3D objects from text")
    shutil.rmtree(
        outputs / OBJECTS, ignore_errors=True
    )  # the program would not write over an earlier run
    folder = outputs / object_folder(text)
    command = ["python", "task_3_DreamFusion/main.py", "--text", text]
    begun = time.perf_counter()
    status, said = run_aloud(
        [sys.executable, *command[1:], "--model", "pocket", "--workspace", str(folder), *settings]
    )
    if status:
        section.error = reason(said) or f"It ended with status {status}."
        return section
    section.line = f"{shlex.join(command)} took {time.perf_counter() - begun:.0f} seconds."
    remark = "Once around: its colour, its depth (near is bright) and its normals."
    section.shown.append(Shown(folder / "video.mp4", text, remark))
    if (folder / "mesh.html").exists():  # a field may be too thin for a mesh
        section.links.append((folder / "mesh.html", "Turn the mesh"))
    return section


def object_folder(text: str) -> Path:
    """Where an object lies under outputs/: its text as task 3's program names folders."""
    return OBJECTS / slug(text).replace("-", "_")


def run_aloud(command: Sequence[str]) -> tuple[int, str]:
    """Run a command from the repository; returns its exit status and what it wrote to stderr, which is shown at once,
    too: progress bars keep moving."""
    said = ""
    with subprocess.Popen(command, cwd=notebooks.ROOT, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        # Letter by letter: a progress bar ends no line, and a letter may have several bytes.
        stream = io.TextIOWrapper(process.stderr, encoding="utf-8", errors="replace", newline="")
        while letter := stream.read(1):
            said += letter
            print(letter, end="", file=sys.stderr, flush=True)
    return process.returncode, said


def reason(said: str) -> str:
    """Why a program failed, in what it wrote to stderr: from its error on, or the last line without one."""
    found = re.search(r"^(error: |Traceback )(?s:.*)", said, flags=re.MULTILINE)
    return found[0].strip() if found else said.strip().split("\n")[-1]


def extract(notebook: nbformat.NotebookNode, folder: Path) -> list[Shown]:
    """Write the images and clips in the outputs of an executed notebook to `folder`, numbered in order. Each has the
    heading it stands under, and what the next text says there is to see in it."""
    folder.mkdir(exist_ok=True)
    heading, shown, silent = "", list[Shown](), list[Shown]()
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            found = re.findall(r"^#+ (.+)$", cell.source, flags=re.MULTILINE)
            heading = found[-1] if found else heading
            if cell.source.startswith(TO_SEE):
                for image in silent:
                    image.remark = plain(cell.source.removeprefix(TO_SEE).split("\n\n")[0])
            silent = []
        for output in cell.get("outputs", []):
            kind = next((kind for kind in FORMATS if kind in output.get("data", {})), None)
            if kind:
                path = folder / f"{len(shown) + 1:02d}.{FORMATS[kind]}"
                path.write_bytes(base64.b64decode(output.data[kind]))
                shown.append(Shown(path, heading))
                silent.append(shown[-1])
    return shown


def plain(markdown: str) -> str:
    """A paragraph of Markdown as plain text: without emphasis, code marks and the dollars around formulas."""
    return " ".join(re.sub(r"[*`$]|\\(?=\w)", "", markdown).split())


def lesson_title(notebook: nbformat.NotebookNode) -> str:
    """The first heading of a lesson."""
    return next(
        cell.source.splitlines()[0].lstrip("# ")
        for cell in notebook.cells
        if cell.cell_type == "markdown"
    )


def slug(text: str) -> str:
    """`text` as a file name: lower case, words joined by hyphens."""
    return "-".join(re.findall(r"[a-z0-9]+", text.lower()))


STYLE = """
:root { color-scheme: light dark; --ink: #23252b; --soft: #5d6470; --paper: #f7f5f1; --card: #fff; --line: #e3dfd6;
  --glow: #ffe3c9; --accent: #b4501e; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #eceae6; --soft: #a2a8b3; --paper: #141518; --card: #1e2025; --line: #31343b; --glow: #3a2417;
    --accent: #f0a06b; }
}
* { box-sizing: border-box; }
body { font: 17px/1.6 system-ui, -apple-system, "Segoe UI", sans-serif; color: var(--ink); margin: 0;
  background: radial-gradient(1100px 420px at 50% -120px, var(--glow), transparent) no-repeat var(--paper); }
main { max-width: 1240px; margin: 0 auto; padding: 4rem 1.5rem 5rem; }
header { text-align: center; } h1 { font-size: 2.7rem; line-height: 1.15; letter-spacing: -.02em; margin: 0 0 .6rem; }
header p { font-size: 1.15rem; max-width: 44rem; margin: 0 auto; }
h2 { font-size: 1.6rem; letter-spacing: -.01em; margin: 4rem 0 .2rem; }
p { color: var(--soft); margin: 0 0 1.4rem; } a { color: var(--accent); }
code { background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: .1em .4em; }
.few { display: grid; grid-template-columns: repeat(auto-fill, minmax(175px, 1fr)); gap: 1rem; }
.few img { width: 100%; }
.wide { display: flex; flex-wrap: wrap; gap: 1.2rem; justify-content: center; }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: 12px; overflow: hidden;
  box-shadow: 0 1px 3px #0001, 0 8px 24px #0000000d; }
figure img, figure video { display: block; width: 100%; } .wide a { background: #fff; }
figure a { display: block; } figure a:hover img { filter: brightness(1.06); }
figcaption { padding: .6rem .9rem .8rem; font-size: .92rem; line-height: 1.4; }
figcaption span { display: block; color: var(--soft); margin-top: .25rem; line-height: 1.5; }
pre { background: #7a1f1f; color: #fff; padding: 1rem; border-radius: 10px; overflow-x: auto; }
footer { margin-top: 4rem; text-align: center; }
"""


def page(sections: list[Section], root: Path) -> str:
    """The page as HTML: everything on it lies under `root`, beside the page."""
    parts = []
    for section in sections:
        lesson = section is not sections[0]
        figures = "".join(figure(shown, root, justified=lesson) for shown in section.shown)
        error = f"<pre>{html.escape(section.error)}</pre>" if section.error else ""
        line = html.escape(section.line)
        links = [
            f'<a href="{address(path, root)}">{html.escape(words)}</a>'
            for path, words in section.links
        ]
        line += " " + " · ".join(links)
        parts.append(
            f"<section><h2>{html.escape(section.title)}</h2><p>{line}</p>{error}"
            f'<div class="{"wide" if lesson else "few"}">{figures}</div></section>'
        )
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><title>Latent Diffusion Applications</title>'
        f"<style>{STYLE}</style></head><body><main><header><h1>Latent Diffusion Applications</h1>"
        "<p>All of this was drawn on this machine, just now, by the small text-to-image model that comes with the "
        "course. No network, no account.</p></header>"
        f"{''.join(parts)}<footer><p>Your turn: <code>make lab</code> opens the lessons.</p></footer>"
        "</main></body></html>\n"
    )


def figure(shown: Shown, root: Path, justified: bool) -> str:
    """One image or clip with its caption. `justified`: as wide as its shape asks for, so that neighbours in a line
    get one height, and no small image is blown up."""
    source, caption = address(shown.path, root), html.escape(shown.caption)
    style = ""
    if shown.path.suffix == ".mp4":
        tag = f'<video src="{source}" autoplay controls loop muted playsinline></video>'
    else:
        tag = f'<a href="{source}"><img src="{source}" alt="{caption}" loading="lazy"></a>'
        with Image.open(shown.path) as image:
            width, height = image.size
        if justified:
            ratio = width / height
            style = f' style="flex: {ratio:.2f} 1 {250 * ratio:.0f}px; max-width: max(300px, {1.3 * width:.0f}px)"'
    remark = f"<span>{html.escape(shown.remark)}</span>" if shown.remark else ""
    return f"<figure{style}>{tag}<figcaption>{caption}{remark}</figcaption></figure>"


def address(path: Path, root: Path) -> str:
    """A file under `root` as a link on the page beside it."""
    return html.escape(quote(path.relative_to(root).as_posix()))


def sections(outputs: Path, objects: bool) -> Iterator[Section]:
    """All parts of the page, each when it is made. `objects`: the object in 3D too."""
    print("First pictures with the embedded model:", flush=True)
    yield draw_prompts(outputs, PROMPTS, STEPS)
    for path in notebooks.lessons():
        print(f"{path.name}:", flush=True)
        yield run_lesson(path, outputs)
    if objects:
        print("An object in 3D:", flush=True)
        yield make_object(outputs, OBJECT)


def folder(text: str) -> Path:
    """Return the path of a folder that is there or can be created, as an option of argparse."""
    if not text.strip() or (os.path.lexists(text) and not os.path.isdir(text)):
        raise argparse.ArgumentTypeError(f"must name a folder, got {text!r}")
    return Path(text)


def reason_of(error: CourseError | OSError) -> str:
    """Return what ended a program, in one line if it is a file or the disk."""
    if isinstance(error, CourseError):
        return str(error)
    reason = error.strerror or str(error).splitlines()[0]
    return f"{error.filename} cannot be used: {reason}." if error.filename else f"{reason}."


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m publish.demo", description=__doc__)
    parser.add_argument(
        "--outputs", type=folder, default=notebooks.ROOT / "outputs", help="where the page goes"
    )
    parser.add_argument(
        "--no-objects",
        dest="objects",
        action="store_false",
        help="leave out the object in 3D, which takes minutes",
    )
    args = parser.parse_args(arguments)
    outputs: Path = args.outputs
    index, made = outputs / "index.html", list[Section]()
    try:
        outputs.mkdir(parents=True, exist_ok=True)
        for section in sections(outputs, args.objects):
            made.append(section)
            index.write_text(page(made, outputs), encoding="utf-8")
    except (CourseError, OSError) as error:
        print(f"demo: {reason_of(error)}", file=sys.stderr)
        if isinstance(error, OSError):
            print(
                f"Is the disk full, or may {outputs} not be written? --outputs names another folder.",
                file=sys.stderr,
            )
        return 1
    for section in made:
        if section.error:
            print(f"\n{section.title} failed: {section.error}", file=sys.stderr)
    print(f"\nOpen {index} in a browser.")
    return 1 if any(section.error for section in made) else 0


if __name__ == "__main__":
    sys.exit(main())

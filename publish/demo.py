"""`make demo`: generate images, run every lesson and generate a 3D object on the embedded model.

The page outputs/index.html shows the results. It needs no network, and exists as soon as the first
images do.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from PIL import Image

from course import notebooks
from course.errors import CourseError
from course.images import image_grid
from course.models import find_model, load_pipeline
from publish.lessons import run_lesson
from publish.objects import generate_object
from publish.page import Media, Section, render_page
from task_3_DreamFusion.jobs import folder_name

# What people try first, then some of everything the model knows. The seeds are chosen: of the
# images of four to eight seeds these show their prompt best.
PROMPTS = {
    "a photo of an astronaut riding a horse on mars": 3,
    "a hamburger": 4,
    "a squirrel reading a book": 1,
    "a bunny sitting on top of a stack of pancakes": 7,
    "a city skyline at night": 2,
    "a red mushroom on grass": 4,
    "a birthday cake on a wooden table": 3,
    "a desert at sunset": 2,
    "a cartoon drawing of a penguin on snow": 1,
    "a red car on grass": 3,
    "a canyon": 2,
    "a house on top of a pumpkin": 3,
}
STEPS, GUIDANCE_SCALE = 25, 5.0
COLUMNS = 6
OBJECT = "a hamburger"


def generate_images(outputs: Path, prompts: Mapping[str, int], steps: int) -> Section:
    """Generate one image for each prompt, with its seed, on the embedded model.

    Writes `outputs`/prompts/*.png and all images on one sheet, `outputs`/prompts.png.
    """
    model = find_model("pocket")
    pipe = load_pipeline(model)
    folder = outputs / "prompts"
    folder.mkdir(exist_ok=True)
    size = model.image_size // model.scale_factor
    section = Section("First images")
    start = time.perf_counter()
    for prompt, seed in prompts.items():
        image_start = time.perf_counter()
        # On the CPU in float32, so that one seed gives one image on every machine.
        generator = torch.Generator("cpu").manual_seed(seed)
        noise = torch.randn((1, pipe.unet.config.in_channels, size, size), generator=generator)
        image = pipe(
            model.check_prompt(prompt),
            num_inference_steps=steps,
            guidance_scale=GUIDANCE_SCALE,
            latents=noise.to(model.device, model.dtype),
        ).images[0]
        path = folder / f"{folder_name(prompt)}.png"
        image.save(path)
        section.media.append(Media(path, prompt))
        print(f"  {time.perf_counter() - image_start:5.1f} s  {prompt}", flush=True)
    seconds = (time.perf_counter() - start) / len(prompts)
    section.summary = (
        f"{seconds:.1f} seconds an image on this machine's {model.device.type.upper()}: "
        f"{steps} steps, guidance scale {GUIDANCE_SCALE:g}, and a seed chosen for each prompt."
    )
    images = [Image.open(item.path) for item in section.media]
    sheet = image_grid(images, columns=min(COLUMNS, len(images)), titles=list(prompts), side=160)
    sheet.save(outputs / "prompts.png", optimize=True)
    return section


def demo_sections(outputs: Path, with_object: bool) -> Iterator[Section]:
    """Yield all parts of the page, each as soon as it is finished."""
    print("First images with the embedded model:", flush=True)
    yield generate_images(outputs, PROMPTS, STEPS)
    for path in notebooks.lesson_paths():
        print(f"{path.name}:", flush=True)
        yield run_lesson(path, outputs)
    if with_object:
        print("A 3D object:", flush=True)
        yield generate_object(outputs, OBJECT)


def folder(text: str) -> Path:
    """Return the path of a folder that exists or can be created, as an option of argparse."""
    if not text.strip() or (os.path.lexists(text) and not os.path.isdir(text)):
        raise argparse.ArgumentTypeError(f"must name a folder, got {text!r}")
    return Path(text)


def message(error: CourseError | OSError) -> str:
    """Return the message of an error; one line with the path for an error of the file system."""
    if isinstance(error, CourseError):
        return str(error)
    reason = error.strerror or str(error).splitlines()[0]
    return f"{error.filename} cannot be used: {reason}." if error.filename else f"{reason}."


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m publish.demo", description=__doc__)
    parser.add_argument(
        "--outputs", type=folder, default=notebooks.ROOT / "outputs", help="folder of the page"
    )
    parser.add_argument(
        "--no-objects", action="store_true", help="skip the 3D object, which takes minutes"
    )
    args = parser.parse_args(arguments)
    outputs: Path = args.outputs
    index = outputs / "index.html"
    sections: list[Section] = []
    try:
        outputs.mkdir(parents=True, exist_ok=True)
        for section in demo_sections(outputs, with_object=not args.no_objects):
            sections.append(section)
            index.write_text(render_page(sections, outputs), encoding="utf-8")
    except (CourseError, OSError) as error:
        print(f"demo: {message(error)}", file=sys.stderr)
        if isinstance(error, OSError):
            print(
                f"Check that the disk has space and that {outputs} is writable, "
                "or choose another folder with --outputs.",
                file=sys.stderr,
            )
        return 1
    failed = [section for section in sections if section.error]
    for section in failed:
        print(f"\n{section.title} failed: {section.error}", file=sys.stderr)
    print(f"\nOpen {index} in a browser.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

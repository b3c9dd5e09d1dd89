"""`make regenerate`: make everything again that the repository shows of the embedded model's work.

Run it after the weights have changed. It has six stages, in this order; `--from STAGE` continues
after an interruption.

    demo      images, every lesson and a 3D object in outputs/ (`make demo`)
    lessons   store the executed lessons in the repository
    sds       generate the image of task 3's README by its own program
    objects   generate the objects of README by task 3's program; finished ones are skipped and
              interrupted ones resumed. The stage demo removes those of earlier weights
    assets    update README's images and clips
    diagrams  write the diagrams of the lessons, which show the model's sizes

Run `python -m pocket.evaluate` and `python -m pocket.card` first. The sample photographs in
assets/samples do not depend on the weights: `python -m pocket.samples` generates them.
"""

import argparse
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import imageio.v3 as iio
from nbformat import NotebookNode
from PIL import Image

from course import notebooks
from course.errors import CourseError
from course.images import image_grid
from course.images.video import write_video
from publish import demo
from publish.diagrams.catalog import write_diagrams
from publish.lessons import extract_media
from publish.objects import OBJECTS, object_folder, task_3_command
from task_3_DreamFusion.nerf.export import VIDEO

# README loads quickly, and every version stays in the history. Clips are larger than images.
MAX_BYTES = {".png": 500_000, ".gif": 2_000_000}
# The objects of README: the clip, the prompt, and further options of task 3.
README_OBJECTS: dict[str, tuple[str, list[str]]] = {
    "hamburger.gif": (demo.OBJECT, []),
    "squirrel.gif": ("a squirrel reading a book", []),
    # The bunny loses its small ears where the front view is ahead of the others.
    "bunny.gif": ("a bunny sitting on top of a stack of pancakes", ["--front_lead", "0"]),
}
# Each asset of README with its source: a file below outputs/, or a lesson and the heading above
# the image.
ASSETS: dict[str, Path | tuple[str, str]] = {
    "demo_image_sd.png": Path("prompts.png"),
    "sd_demo.gif": ("task_1_2_Stable_Diffusion_detailed", "A clip of it"),
    "control.png": ("task_1_3_ControlNet", "One ControlNet for each"),
    "panoramas.png": ("task_2_Joint_Diffusion", "Side by side"),
    "sds_2d.png": Path("task_3/sds_2d.png"),
    **{name: object_folder(text) / VIDEO for name, (text, _) in README_OBJECTS.items()},
}


class RegenerateError(CourseError):
    """A stage failed; the message says why and which stage to run."""


def run_demo(outputs: Path, root: Path) -> None:
    if demo.main(["--outputs", str(outputs)]):
        raise RegenerateError("the demo failed; its message is above. Nothing was stored.")


def store_lessons(outputs: Path, root: Path) -> None:
    """Replace the lessons in `root` by those that the demo executed.

    Raises RegenerateError if one was not executed, was changed since, or names a local path.
    """
    for path in notebooks.lesson_paths():
        stored = outputs / "lessons" / path.name
        if not stored.exists():
            raise RegenerateError(f"{path.name} was not executed: start with --from demo.")
        executed = notebooks.read(stored)
        if cell_sources(executed) != cell_sources(notebooks.read(path)):
            raise RegenerateError(f"{path.name} was changed after the demo: use --from demo.")
        if paths := notebooks.machine_paths(executed):
            raise RegenerateError(f"{path.name}: an output names {', '.join(paths)}; not stored.")
        shutil.copyfile(stored, path)
        print(f"  {path.name}")


def cell_sources(notebook: NotebookNode) -> list[str]:
    return [cell.source for cell in notebook.cells]


def generate_sds_image(outputs: Path, root: Path) -> None:
    """Run task 3's example of score distillation in 2D."""
    command = [sys.executable, "-m", "task_3_DreamFusion.sds_2d", "--model", "pocket"]
    target = outputs / "task_3" / "sds_2d.png"
    if subprocess.run([*command, "--out", str(target)], cwd=root).returncode:
        raise RegenerateError("the 2D example of task 3 failed; its message is above.")


def generate_objects(outputs: Path, root: Path) -> None:
    """Generate the objects of README. Raises RegenerateError if one fails or is interrupted."""
    folder = outputs / OBJECTS
    folder.mkdir(parents=True, exist_ok=True)
    # A list of one prompt: a finished object of a list is skipped, an interrupted one resumed.
    prompts = folder / "text.txt"
    for text, options in README_OBJECTS.values():
        prompts.write_text(f"{text}\n", encoding="utf-8")
        command = task_3_command("--prompts", str(prompts), "--workspace", str(folder), *options)
        if subprocess.run(command, cwd=root).returncode:
            raise RegenerateError(f"{text!r} is not finished: continue with --from objects.")


def update_assets(outputs: Path, root: Path) -> None:
    """Write README's images and clips to `root`/assets.

    Raises RegenerateError if one is missing or too large.
    """
    (root / "assets").mkdir(exist_ok=True)
    for name, place in ASSETS.items():
        source = outputs / place if isinstance(place, Path) else lesson_image(outputs, *place)
        if not source.exists():
            raise RegenerateError(f"{source} is missing: start with --from demo.")
        target = root / "assets" / name
        if source.suffix == ".mp4":
            write_gif(source, target, is_object=isinstance(place, Path))
        else:
            Image.open(source).save(target, optimize=True)
        size = target.stat().st_size
        limit = MAX_BYTES[target.suffix]
        if size > limit:
            raise RegenerateError(f"{name} must have at most {limit:,} bytes, got {size:,}.")
        print(f"  assets/{name}: {size:,} bytes")
    if README_OBJECTS.keys() <= ASSETS.keys():
        write_object_sheet(root / "assets")


def update_diagrams(outputs: Path, root: Path) -> None:
    """Write the diagrams to `root`/assets/diagrams."""
    write_diagrams(root / "assets" / "diagrams")


def write_object_sheet(assets: Path) -> None:
    """Write objects.png, the objects of README from four sides each, from their clips."""
    images = []
    for name in README_OBJECTS:
        frames = iio.imread(assets / name)  # (F, H, W, 3)
        images += [Image.fromarray(frames[i * len(frames) // 4]) for i in range(4)]
    sheet = image_grid(images, columns=4, side=140)
    sheet.save(assets / "objects.png", optimize=True)


def write_gif(source: Path, target: Path, is_object: bool) -> None:
    """Write a clip as a GIF that takes as long.

    Of an object's clip, whose frames show color, depth and normals side by side, it is the color
    part, in every second frame.
    """
    try:
        frames = iio.imread(source)  # (F, H, W, 3)
        rate = iio.immeta(source)["fps"]
    except (OSError, RuntimeError) as error:  # ffmpeg's own message fills a page
        raise RegenerateError(
            f"{source} is not a video: delete its folder and use --from objects."
        ) from error
    if is_object:
        frames, rate = frames[::2, :, : frames.shape[1]], rate / 2
    write_video(target, map(Image.fromarray, frames), fps=rate, hold=0)


def lesson_image(outputs: Path, lesson: str, heading: str) -> Path:
    """Return the file of the image below `heading` in an executed lesson.

    Raises RegenerateError if there is none.
    """
    executed = outputs / "lessons" / f"{lesson}.ipynb"
    if not executed.exists():
        raise RegenerateError(f"{lesson} was not executed: start with --from demo.")
    for item in extract_media(notebooks.read(executed), outputs / "lessons" / lesson):
        if item.caption == heading:
            return item.path
    raise RegenerateError(f'{lesson} has no image under "{heading}", which README shows.')


STAGES: dict[str, Callable[[Path, Path], None]] = {
    "demo": run_demo,
    "lessons": store_lessons,
    "sds": generate_sds_image,
    "objects": generate_objects,
    "assets": update_assets,
    "diagrams": update_diagrams,
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m publish.regenerate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--from", dest="first", choices=list(STAGES), default="demo", help="first stage to run"
    )
    names = list(STAGES)
    first = names.index(parser.parse_args(arguments).first)
    for name in names[first:]:
        print(f"{name}:", flush=True)
        try:
            STAGES[name](notebooks.ROOT / "outputs", notebooks.ROOT)
        except (CourseError, OSError) as error:
            print(f"regenerate: {demo.message(error)}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

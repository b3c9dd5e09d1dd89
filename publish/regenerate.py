"""`make regenerate`: what the repository shows of the embedded model's work, made again after its weights have changed.

Five stages, in this order; `--from STAGE` goes on after an interruption.

    demo      first images, every lesson and an object, under outputs/ (as `make demo`)
    lessons   the executed lessons become those that are stored
    sds       the image of task 3's README, by its own program
    objects   the objects of README, by task 3's program; one that is finished is not made again, and one that was
              interrupted goes on. The stage demo removes those of earlier weights
    assets    the images and clips of README

What `pocket` makes of itself comes before: `python -m pocket.evaluate` and `python -m pocket.card`; the sample
photographs, assets/samples, need no weights: `python -m pocket.samples`.
"""

import argparse
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import imageio.v3 as iio
from PIL import Image

from course import notebooks
from course.errors import CourseError
from course.images import video
from publish import demo

# README loads quickly, and every version stays in the history. Clips move, and are larger.
ASSET_BYTES = {".png": 500_000, ".gif": 2_000_000}
# The objects of README: the clip, the text that makes it, and what other settings it needs.
OBJECTS: dict[str, tuple[str, list[str]]] = {
    "hamburger.gif": (demo.OBJECT, []),
    "squirrel.gif": ("a squirrel reading a book", []),
    # Small as it is up there, it loses its ears where the front goes ahead.
    "bunny.gif": ("a bunny sitting on top of a stack of pancakes", ["--lead", "0"]),
}
# Image of README: where the demo leaves it. A lesson's image is named by the heading it stands under.
ASSETS: dict[str, Path | tuple[str, str]] = {
    "demo_image_sd.png": Path("prompts.png"),
    "guidance.png": ("task_1_1_Stable_Diffusion_intro", "3. The guidance scale"),
    "steps.png": ("task_1_1_Stable_Diffusion_intro", "4. The number of steps"),
    "sd_demo.gif": ("task_1_2_Stable_Diffusion_detailed", "A clip of it"),
    "words.png": ("task_1_2_Stable_Diffusion_detailed", "10. A look inside: the words"),
    "control.png": ("task_1_3_ControlNet", "One ControlNet for each"),
    "panoramas.png": ("task_2_Joint_Diffusion", "Side by side"),
    "sync_demo.gif": ("task_2_Joint_Diffusion", "A clip of it"),
    "tradeoff.png": ("task_2_Joint_Diffusion", "5. Speed against coherence"),
    "sds_2d.png": Path("task_3/sds_2d.png"),
    **{name: demo.object_folder(text) / "video.mp4" for name, (text, _) in OBJECTS.items()},
}


class RegenerateError(CourseError):
    """Something could not be made again; the message says what is in the way."""


def run_demo(outputs: Path, root: Path) -> None:
    if demo.main(["--outputs", str(outputs)]):
        raise RegenerateError("the demo failed; its message is above. Nothing was stored.")


def store_lessons(outputs: Path, root: Path) -> None:
    """Put the lessons that the demo executed in the place of those in `root`. Raises RegenerateError if one was not
    executed, was changed since, or names a path of this machine."""
    for path in notebooks.lessons():
        executed = outputs / "lessons" / path.name
        if not executed.exists():
            raise RegenerateError(f"{path.name} was not executed: begin with the stage demo.")
        done = notebooks.read(executed)
        if [cell.source for cell in done.cells] != [
            cell.source for cell in notebooks.read(path).cells
        ]:
            raise RegenerateError(
                f"{path.name} was changed after the demo ran it: begin with the stage demo."
            )
        if found := notebooks.machine_paths(done):
            raise RegenerateError(f"{path.name}: an output names {', '.join(found)}; not stored.")
        shutil.copyfile(executed, path)
        print(f"  {path.name}")


def draw_sds(outputs: Path, root: Path) -> None:
    """Has task 3 draw its example of score distillation. A program of its own: course imports nothing of task 3."""
    target = outputs / "task_3" / "sds_2d.png"
    command = [
        sys.executable,
        "-m",
        "task_3_DreamFusion.sds_2d",
        "--model",
        "pocket",
        "--out",
        str(target),
    ]
    if subprocess.run(command, cwd=root).returncode:
        raise RegenerateError("the example of task 3 failed; its message is above.")


def make_objects(outputs: Path, root: Path) -> None:
    """Has task 3 make the objects of README. Raises RegenerateError if one fails or is interrupted."""
    folder = outputs / demo.OBJECTS
    folder.mkdir(parents=True, exist_ok=True)
    only = (
        folder / "text.txt"
    )  # a list of one: what is in a list is not made twice, and goes on where it was
    command = [
        sys.executable,
        "-m",
        "task_3_DreamFusion.main",
        "--prompts",
        str(only),
        "--model",
        "pocket",
    ]
    for text, settings in OBJECTS.values():
        only.write_text(f"{text}\n", encoding="utf-8")
        if subprocess.run([*command, "--workspace", str(folder), *settings], cwd=root).returncode:
            raise RegenerateError(
                f"{text!r} was not made to its end: go on with the stage objects."
            )


def refresh_assets(outputs: Path, root: Path) -> None:
    """Write README's images and clips to `root`/assets. Raises RegenerateError if one is missing or too large."""
    (root / "assets").mkdir(exist_ok=True)
    for name, place in ASSETS.items():
        source = outputs / place if isinstance(place, Path) else lesson_image(outputs, *place)
        if not source.exists():
            raise RegenerateError(f"{source} is missing: begin with the stage demo.")
        target = root / "assets" / name
        if source.suffix == ".mp4":
            shorten(source, target)
        elif target.suffix == ".gif":
            shutil.copyfile(source, target)  # to open and save it would leave one frame
        else:
            Image.open(source).save(target, optimize=True)
        size, most = target.stat().st_size, ASSET_BYTES[target.suffix]
        if size > most:
            raise RegenerateError(f"{target.name} has {size:,} bytes, more than {most:,}.")
        print(f"  assets/{name}: {size:,} bytes")


def shorten(source: Path, target: Path) -> None:
    """The colours of an object's clip, whose frames show three squares side by side, as a GIF; every second frame, in
    the same time: a GIF is several times as large as a video."""
    try:
        frames, rate = iio.imread(source)[::2], iio.immeta(source)["fps"]  # (F, H, 3 H, 3)
    except (OSError, RuntimeError) as error:  # ffmpeg's own words fill a page
        raise RegenerateError(
            f"{source} is no video: delete its folder and begin with the stage objects."
        ) from error
    colours = [Image.fromarray(frame[:, : frame.shape[0]]) for frame in frames]
    video.write_video(target, colours, fps=rate / 2, hold=0)


def lesson_image(outputs: Path, lesson: str, heading: str) -> Path:
    """The file of the image that stands under `heading` in an executed lesson. Raises RegenerateError."""
    executed = outputs / "lessons" / f"{lesson}.ipynb"
    if not executed.exists():
        raise RegenerateError(f"{lesson} was not executed: begin with the stage demo.")
    for shown in demo.extract(notebooks.read(executed), outputs / "lessons" / lesson):
        if shown.caption == heading:
            return shown.path
    raise RegenerateError(f'{lesson} has no picture under "{heading}", which README shows.')


STAGES: dict[str, Callable[[Path, Path], None]] = {
    "demo": run_demo,
    "lessons": store_lessons,
    "sds": draw_sds,
    "objects": make_objects,
    "assets": refresh_assets,
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m publish.regenerate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--from", dest="first", choices=list(STAGES), default="demo", help="the stage to begin with"
    )
    names = list(STAGES)
    first = names.index(parser.parse_args(arguments).first)
    for name in names[first:]:
        print(f"{name}:", flush=True)
        try:
            STAGES[name](notebooks.ROOT / "outputs", notebooks.ROOT)
        except (CourseError, OSError) as error:
            print(f"regenerate: {demo.reason_of(error)}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

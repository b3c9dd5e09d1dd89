"""The checklist of "What to see": which of these texts were compared with which images, and when.

    python -m tests.lessons.what_to_see                 list the texts to compare, with their images
    python -m tests.lessons.what_to_see LESSON:CELL ... record that these were compared today

Compare every word of a text with its images before you record it. A row of what_to_see.json holds
the text's checksum, and of each image the mean colors of 16 x 16 parts: other rounding on another
machine changes nothing, another image asks for a person.
"""

import argparse
import base64
import datetime
import hashlib
import io
import itertools
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import nbformat
import numpy as np
from PIL import Image, ImageSequence

from course import notebooks
from course.errors import CourseError
from course.files import write_text
from publish.lessons import NOTE_MARK, SUFFIXES

CHECKLIST = Path(__file__).with_name("what_to_see.json")
SHEETS = notebooks.ROOT / "outputs" / "what_to_see"  # where the command writes images
# From the mark to the next empty line; a table may follow the mark as a paragraph of its own.
PARAGRAPH = re.compile(rf"^{re.escape(NOTE_MARK)}\s*\S(?:.|\n(?!\n))*", re.MULTILINE)
PARTS = 16  # of an image, along each side
FRAMES = 4  # of a clip that are compared
TOLERANCE = 4  # levels of 255 by which the mean color of a part may differ


@dataclass(frozen=True)
class Block:
    """A text of a lesson, and the images (clips: some frames) of the code right above it."""

    lesson: str
    cell: str
    text: str
    images: list[Image.Image]

    @property
    def name(self) -> str:
        return f"{self.lesson}:{self.cell}"


@dataclass(frozen=True)
class Row:
    """A text that was compared with its images on a day. images: a fingerprint of each."""

    lesson: str
    cell: str
    text: str
    images: list[str]
    compared: str

    @property
    def name(self) -> str:
        return f"{self.lesson}:{self.cell}"


# --- Texts and images of a lesson


def blocks(notebook: nbformat.NotebookNode, lesson: str) -> list[Block]:
    """Return all "What to see" of a notebook, in order."""
    result: list[Block] = []
    images: list[Image.Image] = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            if texts := PARAGRAPH.findall(cell.source):
                result.append(Block(lesson, cell.id, "\n\n".join(texts), images))
            images = []
        for output in cell.get("outputs", []):
            images = images + output_images(output)
    return result


def output_images(output: Mapping[str, Any]) -> list[Image.Image]:
    """Return the images of an output, and some frames of its clips; also those in its HTML."""
    data = output.get("data", {})
    media = [(kind, data[kind]) for kind in SUFFIXES if kind in data][:1]
    media += re.findall(r"data:(image/\w+|video/mp4);base64,([\w+/=]+)", data.get("text/html", ""))
    return [frame for kind, content in media for frame in _frames(kind, base64.b64decode(content))]


def _frames(kind: str, content: bytes) -> list[Image.Image]:
    """Return an image in a list, or `FRAMES` frames of a clip."""
    if kind == "video/mp4":
        frames = [Image.fromarray(frame) for frame in iio.imread(content, extension=".mp4")]
    else:
        opened = Image.open(io.BytesIO(content))
        frames = [frame.convert("RGB") for frame in ImageSequence.Iterator(opened)]
    places = np.linspace(0, len(frames) - 1, min(FRAMES, len(frames))).round().astype(int)
    return [frames[place] for place in places]


def fingerprint(image: Image.Image) -> str:
    """Return the mean colors of the parts of an image as text."""
    small = image.convert("RGB").resize((PARTS, PARTS), Image.Resampling.BOX)
    return base64.b64encode(small.tobytes()).decode()


def difference(a: str, b: str) -> int:
    """Return the largest difference of mean colors between two fingerprints, 0 to 255."""
    levels = [np.frombuffer(base64.b64decode(each), np.uint8).astype(int) for each in (a, b)]
    return int(np.abs(levels[0] - levels[1]).max())


def checksum(text: str) -> str:
    """Return a checksum of the words of a text, wherever its lines end."""
    return hashlib.sha256(" ".join(text.split()).encode()).hexdigest()[:16]


# --- The checklist


def read_rows(path: Path) -> dict[str, Row]:
    """Return the rows of a checklist by name; none if there is no such file."""
    rows = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    return {row.name: row for row in (Row(**values) for values in rows)}


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    write_text(path, json.dumps([asdict(row) for row in rows], indent=1) + "\n")


def reason(block: Block, row: Row | None) -> str:
    """Return why a person has to compare a text with its images, or "" if nothing has changed."""
    if row is None:
        return "was never compared"
    if row.text != checksum(block.text):
        return f"has another text than on {row.compared}"
    if len(row.images) != len(block.images):
        return f"has {len(block.images)} images, and had {len(row.images)} on {row.compared}"
    pairs = itertools.zip_longest(row.images, map(fingerprint, block.images))
    largest = max((difference(a, b) for a, b in pairs), default=0)
    changed = f"has other images than on {row.compared} (by {largest} levels)"
    return changed if largest > TOLERANCE else ""


def all_blocks() -> list[Block]:
    """Return the "What to see" of all lessons, in the order of the course."""
    paths = notebooks.lesson_paths()
    return [block for path in paths for block in blocks(notebooks.read(path), path.stem)]


def open_questions(current: Sequence[Block], rows: Mapping[str, Row]) -> dict[str, str]:
    """Return what asks for a person: a reason for each name."""
    reasons = {block.name: reason(block, rows.get(block.name)) for block in current}
    names = {block.name for block in current}
    gone = {name: "is in no lesson any more" for name in rows if name not in names}
    return {name: text for name, text in reasons.items() if text} | gone


def confirm(names: Sequence[str], current: Sequence[Block], path: Path, today: str) -> None:
    """Record that these texts were compared today. Rows without a text go. Raises CourseError."""
    rows = read_rows(path)
    by_name = {block.name: block for block in current}
    if unknown := [name for name in names if name not in by_name]:
        raise CourseError(f"No lesson has {', '.join(unknown)}: a name is LESSON:CELL.")
    for block in (by_name[name] for name in names):
        prints = [fingerprint(image) for image in block.images]
        rows[block.name] = Row(block.lesson, block.cell, checksum(block.text), prints, today)
    write_rows(path, [rows[name] for name in by_name if name in rows])


def show(names: Sequence[str], current: Sequence[Block], folder: Path) -> None:
    """Print these texts and write their images to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for block in (block for block in current if block.name in names):
        for number, image in enumerate(block.images):
            image.save(folder / f"{block.lesson}_{block.cell}_{number}.png")
        print(f"\n{block.name}\n{block.text}")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.lessons.what_to_see",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="LESSON:CELL", help="texts compared today")
    names = parser.parse_args(arguments).names
    current = all_blocks()
    try:
        if names:
            confirm(names, current, CHECKLIST, datetime.date.today().isoformat())
    except CourseError as error:
        print(error, file=sys.stderr)
        return 1
    questions = open_questions(current, read_rows(CHECKLIST))
    if not names:
        show(list(questions), current, SHEETS)
    for name, text in questions.items():
        print(f"{name} {text}")
    print(f"{len(current) - len(questions)} of {len(current)} texts agree with their images.")
    return 1 if questions else 0


if __name__ == "__main__":
    sys.exit(main())

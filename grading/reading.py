"""Reads the files of a submission; runs in a process of its own (see `submissions.read`).

Notebooks are read as data: of any version of the format, and as far as they go if they are damaged.
"""

import fnmatch
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import nbformat

from grading import answers, media
from grading.answers import Answers, Cell, Lesson, Notebook
from grading.media import Media
from grading.release import STAMP
from grading.unpack import MIB, NOTEBOOKS, File, plain, unpack

MAX_NOTEBOOK = 100 * MIB
MAX_MODULE = MIB
MAX_CELLS = 5000
COPY = re.compile(r"(-\d+| \(\d+\)|-Copy\d+)$")  # what platforms and browsers add to a name


@dataclass
class Result:
    """What `submissions.Submission` holds, in types that JSON has."""

    answers: dict[str, str] = field(default_factory=dict)
    written: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    media: dict[str, list[Media]] = field(default_factory=dict)
    versions: list[str] = field(default_factory=list)


class NotebookError(Exception):
    """A file cannot be read as a notebook; the message says why."""


@dataclass
class Reading:
    """Reads a submission into `result`. media_folder: for images and clips, None for no media."""

    media_folder: Path | None = None
    result: Result = field(default_factory=Result)
    copies: dict[Path, Path] = field(default_factory=dict)  # files that are in the media folder

    def read(self, paths: tuple[Path, ...], folder: Path) -> None:
        """Read files and folders; zips are unpacked to `folder`, which is empty."""
        unpacking = unpack(paths, folder)
        self.result.problems += unpacking.problems
        notebooks = self._notebooks(unpacking.files)
        for lesson in answers.lessons():
            if candidates := [notebook for notebook, its in notebooks if its is lesson]:
                self._read_lesson(lesson, candidates)
        self._read_modules(unpacking.files)
        self._copy_files(unpacking.files)
        if not notebooks and not self.result.answers:
            self.result.problems.append("There is no notebook of the course.")

    def _notebooks(self, files: list[File]) -> list[tuple[Notebook, Lesson]]:
        result = []
        for file in files:
            if file.suffix not in NOTEBOOKS:
                continue
            try:
                notebook = load(file, self.result.problems)
            except NotebookError as error:
                self._complain(f"{file.name} is no notebook: {error}.")
                continue
            lesson = answers.lesson_of(notebook)
            if lesson is None:
                self._complain(f"{file.name} belongs to no lesson of the course.")
            else:
                result.append((notebook, lesson))
        return result

    def _read_lesson(self, lesson: Lesson, candidates: list[Notebook]) -> None:
        """Take the answers of the notebook of a lesson that has the most."""
        read = [(notebook, answers.from_notebook(notebook, lesson)) for notebook in candidates]
        notebook, best = max(read, key=lambda pair: len(pair[1].answers))
        if len(candidates) > 1:
            names = ", ".join(candidate.name for candidate in candidates)
            self._complain(f"{names} are all of {lesson.stem}: {notebook.name} is graded.")
        if not notebook.version:
            self._complain(f"{notebook.name} does not name the version of its student copy.")
        elif notebook.version not in self.result.versions:
            self.result.versions.append(notebook.version)
        self._add(best)
        if self.media_folder:
            for exercise, number in best.cells.items():
                outputs = _outputs_below(notebook, number, lesson)
                for suffix, data in media.in_outputs(outputs):
                    self._add_media(exercise, f"an output of {notebook.name}", suffix, data)

    def _read_modules(self, files: list[File]) -> None:
        """Take the answers of the modules of task 3."""
        for name, places in answers.module_functions().items():
            read_modules: list[tuple[str, Answers]] = []
            for file in files:
                if file.suffix != ".py" or not _is_called(file.name, name):
                    continue
                if file.path.stat().st_size > MAX_MODULE:
                    self._complain(f"{file.name} has more than {MAX_MODULE // MIB} MiB.")
                    continue
                text = file.path.read_bytes().decode("utf-8-sig", errors="replace")
                read_modules.append((file.name, answers.from_module(file.name, text, places)))
            if read_modules:
                chosen, best = max(read_modules, key=lambda pair: len(pair[1].answers))
                if len(read_modules) > 1:
                    count = len(read_modules)
                    self._complain(f"There are {count} modules {name}: {chosen} is graded.")
                self._add(best)

    def _copy_files(self, files: list[File]) -> None:
        """Keep the images and clips that exercises ask for."""
        for exercise, patterns in media.FILES.items() if self.media_folder else ():
            for file in files:
                name = PurePosixPath(file.name).name
                if any(_is_called(name, p) or fnmatch.fnmatch(name, p) for p in patterns):
                    size = file.path.stat().st_size
                    if size > media.MAX_BYTES:
                        self._complain(f"{file.name} has {size // MIB} MiB; it is not looked at.")
                    elif file.path in self.copies:  # two exercises look at it
                        items = self.result.media.setdefault(exercise, [])
                        items.append(Media(plain(file.name), self.copies[file.path]))
                    else:
                        data = file.path.read_bytes()
                        copy = self._add_media(exercise, file.name, file.suffix, data)
                        self.copies |= {file.path: copy} if copy else {}

    def _add_media(self, exercise: str, name: str, suffix: str, data: bytes) -> Path | None:
        """Write an image or a clip to the media folder; None if the exercise has enough."""
        items = self.result.media.setdefault(exercise, [])
        if not self.media_folder or len(items) >= media.MAX_ITEMS:
            return None
        count = sum(map(len, self.result.media.values()))
        path = self.media_folder / f"{count:04d}{suffix}"
        path.write_bytes(data)
        items.append(Media(plain(name), path))
        return path

    def _add(self, read: Answers) -> None:
        self.result.answers.update(read.answers)
        self.result.written.update(read.written)
        self.result.problems += read.problems

    def _complain(self, problem: str) -> None:
        self.result.problems.append(plain(problem))


def _is_called(path: str, name: str) -> bool:
    """Return whether a file has a name, perhaps with what a platform put before or behind it."""
    wanted, actual = PurePosixPath(name), PurePosixPath(path)
    stem = COPY.sub("", actual.stem)
    is_same = stem == wanted.stem or stem.endswith(("_" + wanted.stem, "-" + wanted.stem))
    return is_same and actual.suffix.lower() == wanted.suffix


def _outputs_below(notebook: Notebook, number: int, lesson: Lesson) -> list[Any]:
    """Return the outputs of an answer cell and of the cells below it, up to the next section."""
    outputs = []
    for cell in notebook.cells[number:]:
        if lesson.begins_section(cell):
            break
        outputs += cell.outputs
    return outputs


# --- A notebook as data


def load(file: File, problems: list[str]) -> Notebook:
    """Return a notebook; what it lacks is added to `problems`. Raises NotebookError."""
    size = file.path.stat().st_size
    if size > MAX_NOTEBOOK:
        raise NotebookError(f"it has {size // MIB} MiB, more than {MAX_NOTEBOOK // MIB}")
    data = file.path.read_bytes()
    if not data.strip():
        raise NotebookError("it is empty")
    text = _decode(data)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError, MemoryError) as error:
        cells = _salvage(text)
        if not cells:
            raise NotebookError(_why(error)) from error
        problems.append(plain(f"{file.name} is damaged; its first {len(cells)} cells are read."))
        content = {"cells": cells, "nbformat": 4}
    if not isinstance(content, dict):
        raise NotebookError("it is JSON of another kind")
    content = _in_format_4(content)
    entries = content.get("cells")
    if not isinstance(entries, list):
        raise NotebookError("it has no cells")
    if len(entries) > MAX_CELLS:
        problems.append(plain(f"{file.name} has more than {MAX_CELLS:,} cells: the rest is left."))
    cells = [_cell(entry) for entry in entries[:MAX_CELLS] if isinstance(entry, dict)]
    return Notebook(file.name, cells, _version(content))


def _decode(data: bytes) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", errors="replace")
    return data.decode("utf-8-sig", errors="replace")


def _why(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"it is not valid JSON (line {error.lineno})"
    if isinstance(error, RecursionError):
        return "its JSON is nested too deeply"
    return "its JSON has values that are too large"


def _salvage(text: str) -> list[Any]:
    """Return the cells of a notebook that is cut off, up to the first that is not complete."""
    start = re.search(r'"cells"\s*:\s*\[', text)
    decoder, cells = json.JSONDecoder(), []
    position = start.end() if start else len(text)
    while match := re.compile(r"[\s,]*(?=\{)").match(text, position):
        try:
            cell, position = decoder.raw_decode(text, match.end())
        except (ValueError, RecursionError, MemoryError):
            break
        cells.append(cell)
    return cells


def _in_format_4(content: dict[str, Any]) -> dict[str, Any]:
    """Return a notebook in format 4; Jupyter wrote another one until 2014."""
    if isinstance(content.get("cells"), list):
        return content
    try:
        return dict(nbformat.convert(nbformat.from_dict(content), 4))
    except Exception as error:  # what nbformat raises depends on where its reading stops
        raise NotebookError("its format is not known") from error


def _cell(entry: dict[str, Any]) -> Cell:
    id, outputs = entry.get("id"), entry.get("outputs")
    metadata = entry.get("metadata")
    if not isinstance(id, str) and isinstance(metadata, dict):
        id = metadata.get("id")  # where Colab keeps it
    return Cell(
        id=id if isinstance(id, str) else "",
        kind=str(entry.get("cell_type")),
        source="".join(_texts(entry.get("source")))[: answers.MAX_ANSWER + 1],
        outputs=outputs if isinstance(outputs, list) else [],
    )


def _texts(source: Any) -> Iterator[str]:
    parts: Iterable[Any] = source if isinstance(source, list) else [source]
    return (part for part in parts if isinstance(part, str))


def _version(content: dict[str, Any]) -> str:
    """Return the version in a notebook's stamp, "" without one."""
    value: Any = content
    for key in ("metadata", STAMP, "version"):
        value = value.get(key) if isinstance(value, dict) else None
    return plain(value)[:40] if isinstance(value, str) else ""

"""Where the answers are: cells and functions of the student copy, and what a student wrote there.

An answer is a whole code cell. It is recognized by the id of the cell, or else by its "TODO" or by
what it defines, so that old and damaged notebooks can be graded, too.
"""

import ast
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from course.notebooks import ROOT, lesson_paths, read
from grading.fences import FENCE, exercise_in, solutions
from grading.release import StudentCopy, fenced_modules
from grading.unpack import plain

MAX_ANSWER = 100_000  # characters
MAX_WRITTEN = 20_000
WRITTEN_TAG = "answer"  # of the Markdown cells for written answers
PLACEHOLDER = re.compile(r"\*Your answer[^*\n]*\*")
HEADING = re.compile(
    r"^(#|\*\*TODO)", re.MULTILINE
)  # of a Markdown cell that begins something else
MAGIC = re.compile(r"^(?P<indent>\s*)(?:%(?:time|timeit|prun)\s+(?P<code>[^-\s].*)|[%!?].*)$")


@dataclass(frozen=True)
class Place:
    """Where an answer belongs: the id of the cell, or the name of the function.

    stub: its source in the student copy. names: what that defines.
    """

    id: str
    exercise: str
    stub: str
    names: frozenset[str]


@dataclass(frozen=True)
class Lesson:
    """A lesson as students get it.

    written: the exercise by the id of the cell. sources: of all its cells, without space at the
    ends. names: all that its code cells define or import.
    """

    stem: str
    places: tuple[Place, ...]
    written: Mapping[str, str]
    sources: frozenset[str]
    names: frozenset[str]

    def begins_section(self, cell: "Cell") -> bool:
        """Return whether a cell is the lesson's own text at the beginning of something else."""
        is_own = cell.kind == "markdown" and cell.source.strip() in self.sources
        return is_own and HEADING.search(cell.source) is not None


@dataclass
class Cell:
    """A cell of a student's notebook, of which nothing is certain."""

    id: str
    kind: str
    source: str
    outputs: list[Any] = field(default_factory=list)


@dataclass
class Notebook:
    """A student's notebook: the name of its file, its cells, the version of its student copy."""

    name: str
    cells: list[Cell]
    version: str = ""


@dataclass
class Answers:
    """What a notebook or a module answers, by exercise; `problems` in plain lines.

    cells: the numbers of the answer cells, also of those that are empty.
    """

    answers: dict[str, str] = field(default_factory=dict)
    written: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    cells: dict[str, int] = field(default_factory=dict)


# --- The student copy


@cache
def lessons() -> tuple[Lesson, ...]:
    """Return all lessons, as in the student copy."""
    return tuple(_lesson(path) for path in lesson_paths())


def _lesson(path: Path) -> Lesson:
    full = read(path)
    copy, _ = StudentCopy().preprocess(full, {})
    stubs = {cell.id: cell.source for cell in copy.cells}
    places, written = [], {}
    exercise = None
    for cell in full.cells:
        exercise = exercise_in(cell.source) or exercise
        if exercise and cell.cell_type == "code" and FENCE.search(cell.source):
            stub = stubs[cell.id]
            places.append(Place(cell.id, exercise, stub, defined(stub)))
        elif exercise and WRITTEN_TAG in cell.metadata.get("tags", []):
            written[cell.id] = exercise
    sources = frozenset(cell.source.strip() for cell in copy.cells)
    code = [cell.source for cell in full.cells if cell.cell_type == "code"]
    names = frozenset().union(*(defined(source, imports=True) for source in code))
    return Lesson(path.stem, tuple(places), written, sources, names)


def lesson_of(notebook: Notebook) -> Lesson | None:
    """Return the lesson that a notebook was made from, None if it shares no cell with any."""

    def shared(lesson: Lesson) -> tuple[int, bool]:
        same = sum(cell.source.strip() in lesson.sources for cell in notebook.cells if cell.source)
        return same, lesson.stem.casefold() in notebook.name.casefold()

    def answered(lesson: Lesson) -> int:
        texts = [cell.source for cell in notebook.cells if cell.kind == "code"]
        return sum(any(_names_exercise(text, p) for text in texts) for p in lesson.places)

    best = max(lessons(), key=shared)
    if not any(shared(best)):
        best = max(lessons(), key=answered)
    return best if any(shared(best)) or answered(best) else None


@cache
def module_functions() -> Mapping[str, tuple[Place, ...]]:
    """Return the functions with an exercise of the fenced modules, by the module's file name."""
    result = {}
    for path in fenced_modules():
        source = path.read_text("utf-8")
        places = []
        for node in ast.parse(source).body:
            text = _function_source(source, node) if isinstance(node, ast.FunctionDef) else ""
            if isinstance(node, ast.FunctionDef) and FENCE.search(text):
                before = "".join(source.splitlines(True)[: node.lineno])
                exercise = solutions(text, exercise_in(before))[0].exercise
                stub = FENCE.sub("", text)
                places.append(Place(node.name, exercise, stub, frozenset({node.name})))
        result[path.relative_to(ROOT).name] = tuple(places)
    return result


# --- A student's notebook


def from_notebook(notebook: Notebook, lesson: Lesson) -> Answers:
    """Return the answers in a student's notebook."""
    result = Answers()
    ids = [cell.id for cell in notebook.cells if cell.id]
    for id in sorted({id for id in ids if ids.count(id) > 1}):
        problem = f"{notebook.name}: {ids.count(id)} cells have the id {id!r}; look at it by eye."
        result.problems.append(plain(problem))
    missing = []
    for place in lesson.places:
        number = _find(place, notebook, lesson)
        if number is None:
            missing.append(place.exercise)
            continue
        result.cells[place.exercise] = number
        _take(notebook.cells[number].source, place, notebook.name, result)
    missing += _take_written(notebook, lesson, result)
    if missing:
        problem = f"{notebook.name}: there is no cell for {', '.join(missing)}."
        result.problems.append(plain(problem))
    _note_helpers(notebook, lesson, result)
    return result


def _find(place: Place, notebook: Notebook, lesson: Lesson) -> int | None:
    """Return the number of the cell that answers an exercise, None without one.

    A cell with the id that also names the exercise comes first, then others that name it; one with
    the id alone is the last resort. Of several the last that is not empty counts, as it would in
    the notebook.
    """
    places = {other.id: other for other in lesson.places}
    with_id, named, id_alone = [], [], []
    for i, cell in enumerate(notebook.cells):
        if cell.kind != "code":
            continue
        if not _names_exercise(cell.source, place):
            id_alone += [i] if cell.id == place.id else []
        elif cell.id == place.id:
            with_id.append(i)
        elif cell.source.strip() not in lesson.sources or not cell.id:
            other = places.get(cell.id)
            if other is None or not _names_exercise(cell.source, other):
                named.append(i)
    for numbers in (with_id, named):
        full = [i for i in numbers if not is_empty(notebook.cells[i].source, place.stub)]
        if full:
            return full[-1]
    return next(iter([*with_id, *named, *reversed(id_alone)]), None)


def _take(source: str, place: Place, name: str, result: Answers) -> None:
    """Add an answer, unless it is empty or too long."""
    source = clean(source)
    if len(source) > MAX_ANSWER:
        problem = (
            f"{name}: the answer of {place.exercise} has more than {MAX_ANSWER:,} characters; it "
            "is not graded."
        )
        result.problems.append(plain(problem))
    elif not is_empty(source, place.stub):
        runnable = without_checks(without_magics(source))
        if runnable != source:
            problem = f"{name}: {place.exercise} has commands (%, !) or checks; they are left out."
            result.problems.append(plain(problem))
        if parse(runnable) is None:
            problem = f"{name}: the answer of {place.exercise} is no valid Python."
            result.problems.append(plain(problem))
        result.answers[place.exercise] = runnable


def _note_helpers(notebook: Notebook, lesson: Lesson, result: Answers) -> None:
    """Report answers that use names from cells of the student's own: these are not graded."""
    answer_cells = set(result.cells.values())
    own: set[str] = set()
    for i, cell in enumerate(notebook.cells):
        is_own = cell.source.strip() not in lesson.sources
        if cell.kind == "code" and i not in answer_cells and is_own:
            own |= defined(cell.source, imports=True) - lesson.names
    for exercise, answer in result.answers.items():
        if used := sorted(own & _loaded(answer) - defined(answer, imports=True)):
            problem = (
                f"{notebook.name}: the answer of {exercise} uses {', '.join(used)} of another "
                "cell; only the cell of the exercise is graded."
            )
            result.problems.append(plain(problem))


def _take_written(notebook: Notebook, lesson: Lesson, result: Answers) -> list[str]:
    """Add the written answers, each with the Markdown cells that a student added below.

    Return the exercises that have no cell.
    """
    missing = []
    for id, exercise in lesson.written.items():
        start = next((i for i, cell in enumerate(notebook.cells) if cell.id == id), None)
        if start is None:
            missing.append(exercise)
            continue
        texts = [notebook.cells[start].source]
        for cell in notebook.cells[start + 1 :]:
            if cell.kind != "markdown" or cell.source.strip() in lesson.sources:
                break
            texts.append(cell.source)
        text = PLACEHOLDER.sub("", clean("\n\n".join(texts))).strip()
        if len(text) > MAX_WRITTEN:
            text = f"{text[:MAX_WRITTEN]} …"
            result.problems.append(plain(f"{notebook.name}: the answer of {exercise} is cut."))
        if text:
            result.written[exercise] = text
    return missing


# --- A student's module


def from_module(name: str, source: str, places: Sequence[Place]) -> Answers:
    """Return the functions of a student's module that answer an exercise."""
    result = Answers()
    source = clean(source)
    tree = parse(source)
    if tree is None:
        result.problems.append(plain(f"{name} is no valid Python; its functions are cut out."))
    for place in places:
        text = ""
        for node in tree.body if tree else ():
            if isinstance(node, ast.FunctionDef) and node.name == place.id:
                text = _function_source(source, node)  # the last one counts, as in Python
        text = text or ("" if tree else _cut_function(source, place.id))
        if text:
            _take(text, place, name, result)
        else:
            result.problems.append(plain(f"{name}: there is no function {place.id}."))
    return result


def _function_source(source: str, node: ast.FunctionDef) -> str:
    """Return the lines of a function, with its decorators."""
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    return "".join(source.splitlines(True)[first - 1 : node.end_lineno])


def _cut_function(source: str, name: str) -> str:
    """Return the lines of a function of a source that cannot be parsed, "" without it."""
    lines = source.splitlines(True)
    starts = [i for i, line in enumerate(lines) if re.match(rf"def {re.escape(name)}\b", line)]
    if not starts:
        return ""
    first = starts[-1]
    last = first + 1
    while last < len(lines) and re.match(r"[\s)\]]|$", lines[last]):
        last += 1
    while first > 0 and lines[first - 1].startswith("@"):
        first -= 1
    return "".join(lines[first:last]).rstrip() + "\n"


# --- Sources


def clean(source: str) -> str:
    """Return a source with plain line ends, without lone surrogates and NUL characters."""
    source = source.encode("utf-8", "replace").decode()
    return source.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "\ufffd")


def without_magics(source: str) -> str:
    """Return a source that is valid Python without its notebook commands; others stay as is."""
    if parse(source) is not None:
        return source
    lines = []
    for line in source.split("\n"):
        match = MAGIC.match(line)
        if match:
            line = match["indent"] + (match["code"] or "pass")
        lines.append(line)
    changed = "\n".join(lines)
    return source if parse(changed) is None else changed


def without_checks(source: str) -> str:
    """Return a source without the calls of the lesson's checks that students move into a cell."""
    tree = parse(source)
    lines = source.split("\n")
    for node in tree.body if tree else ():
        is_check = lines[node.lineno - 1][node.col_offset :].startswith("checks.")
        if isinstance(node, ast.Expr) and is_check:
            last = node.end_lineno or node.lineno
            lines[node.lineno - 1 : last] = [""] * (last - node.lineno + 1)
    changed = "\n".join(lines)
    return source if parse(changed) is None else changed


def is_empty(source: str, stub: str) -> bool:
    """Return whether a source does no more than the stub."""
    tree = parse(source)
    return is_same(source, stub) or (tree is not None and not tree.body)


def is_same(source: str, other: str) -> bool:
    """Return whether two sources do the same: space, comments, texts and `...` do not count."""
    if source.strip() == other.strip():
        return True
    trees = parse(source), parse(other)
    if trees[0] is None or trees[1] is None:
        return False
    return _essence(trees[0]) == _essence(trees[1])


class _WithoutBlanks(ast.NodeTransformer):
    """Removes statements that do nothing: `...`, `pass`, and texts such as docstrings."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        return None if isinstance(node.value, ast.Constant) else node

    def visit_Pass(self, node: ast.Pass) -> ast.AST | None:
        return None


def _essence(tree: ast.Module) -> str:
    try:
        return ast.dump(_WithoutBlanks().visit(tree))
    except RecursionError:
        return ""


def parse(source: str) -> ast.Module | None:
    """Return the syntax tree of a source, None if it is no valid Python or nested too deeply."""
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


@lru_cache(maxsize=2000)
def defined(source: str, imports: bool = False) -> frozenset[str]:
    """Return the names that a source defines, assigns, or with `imports` imports at its top."""
    tree = parse(source)
    if tree is None:
        matches = re.findall(r"^(?:def|class)\s+(\w+)|^(\w+)\s*=[^=]", source, re.MULTILINE)
        return frozenset(name for match in matches for name in match if name)
    return frozenset(name for node in tree.body for name in _targets(node, imports))


def _targets(node: ast.stmt, imports: bool) -> Iterable[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
        return [node.name]
    if isinstance(node, ast.Assign):
        parts = [part for target in node.targets for part in ast.walk(target)]
        names = [part for part in parts if isinstance(part, ast.Name)]
        return [name.id for name in names if isinstance(name.ctx, ast.Store)]
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return [node.target.id]
    if imports and isinstance(node, ast.Import | ast.ImportFrom):
        return [(alias.asname or alias.name).split(".")[0] for alias in node.names]
    return []


def _loaded(source: str) -> set[str]:
    tree = parse(source)
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} if tree else set()


def _names_exercise(source: str, place: Place) -> bool:
    """Return whether a source has the TODO of an exercise, or defines what its cell defines."""
    if _exercise_in(source) == place.exercise:
        return True
    functions = {name for name in place.names if re.search(rf"\b(def|class) {name}\b", place.stub)}
    return bool((functions or place.names) & defined(source))


@lru_cache(maxsize=2000)
def _exercise_in(source: str) -> str | None:
    return exercise_in(source)

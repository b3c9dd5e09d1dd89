"""Measure the house rules on the source text: sizes, imports, duplicates, names and layout.

Each function returns the places that break a rule, as "path:line: what"; an empty list means that
the rule holds. `python -m tests.repository` prints all of them as one table, and test_measure.py
holds the bars.
"""

import argparse
import ast
import functools
import io
import json
import re
import subprocess
import sys
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MAX_FUNCTION_LINES = 60
MAX_FILE_LINES = 450
MAX_LINE_LENGTH = 100
DUPLICATE_LINES = 6
BANNED_NAMES = frozenset("found made asked said told drawn began apart".split())
BANNED_WORDS = (
    "pictures?(?! of)",  # image; "a picture of" is a prompt
    "wish(es)?",  # prompt, request
    "foresees?|foreseen",  # predict
    "mend(s|ed)?|cures?",  # repair, hint
    "dear(er)?",  # expensive
    "are no numbers",  # are not finite
    "in earnest|whispers?|for want of|forth and back",
)
PACKAGES = (
    "benchmarks",
    "course",
    "grading",
    "papers",
    "pocket",
    "publish",
    "task_3_DreamFusion",
    "tests",
)
# Who may import whom, besides itself; design.md draws these arrows. None: every package.
ARROWS: dict[str, set[str] | None] = {
    "tests": None,
    "benchmarks": None,
    "publish": {"course", "task_3_DreamFusion"},
    "grading": {"course", "task_3_DreamFusion"},
    "papers": {"course", "task_3_DreamFusion"},
    "task_3_DreamFusion": {"course"},
    "pocket": {"course"},
    "course": set(),
    "lessons": {"course"},  # the notebooks
}
SOURCES = (".py", ".cpp", ".cu", ".h", ".html", ".css", ".js", ".toml")


@dataclass(frozen=True)
class Source:
    """A Python file, or the code cells of a notebook joined into one text."""

    name: str  # path from the repository's root
    text: str

    @functools.cached_property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    @functools.cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def folder(self) -> str:
        return self.name.split("/")[0] if "/" in self.name else "lessons"

    def place(self, node: ast.AST, what: str) -> str:
        return f"{self.name}:{getattr(node, 'lineno', 1)}: {what}"


@functools.cache
def tracked_files() -> list[str]:
    """Return the files that git tracks or would track, as paths from the root."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return sorted(name for name in set(names.splitlines()) if (ROOT / name).is_file())


@functools.cache
def python_sources() -> list[Source]:
    """Return all Python files of the repository."""
    return [
        Source(name, (ROOT / name).read_text(encoding="utf-8"))
        for name in tracked_files()
        if name.endswith(".py")
    ]


@functools.cache
def notebook_sources() -> list[Source]:
    """Return the code of each notebook, cell after cell, without shell and magic lines."""
    sources = []
    for name in tracked_files():
        if name.endswith(".ipynb"):
            cells = json.loads((ROOT / name).read_text(encoding="utf-8"))["cells"]
            code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
            text = re.sub(r"^([!%].*)", r"# \1", "\n\n".join(code), flags=re.MULTILINE)
            sources.append(Source(name, text))
    return sources


def all_sources() -> list[Source]:
    return python_sources() + notebook_sources()


def is_test(name: str) -> bool:
    return name.startswith("tests/")


# --- Sizes


def long_functions() -> list[str]:
    """Functions over 60 lines, decorators and docstring included, tests excepted."""
    places = []
    for source in all_sources():
        for node in ast.walk(source.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > MAX_FUNCTION_LINES and not is_test(source.name):
                    places.append(source.place(node, f"{node.name} has {lines} lines"))
    return places


def long_files() -> list[str]:
    """Python files over 450 lines, outside tests and the recipes of the toy world's objects."""
    return [
        f"{source.name}:1: {len(source.lines)} lines"
        for source in python_sources()
        if len(source.lines) > MAX_FILE_LINES
        and not is_test(source.name)
        and not source.name.startswith("pocket/world/objects")
    ]


def lines_outside_tests() -> int:
    """Lines of Python outside tests, notebooks excepted."""
    return sum(len(source.lines) for source in python_sources() if not is_test(source.name))


def tokens_outside_tests() -> int:
    """Tokens of Python outside tests, without comments: the layout hardly changes them."""
    ignored = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    return sum(
        token.type not in ignored
        for source in python_sources()
        if not is_test(source.name)
        for token in tokenize.generate_tokens(io.StringIO(source.text).readline)
    )


def long_lines() -> list[str]:
    """Lines of Python over 100 characters."""
    return [
        f"{source.name}:{number}: {len(line)} characters"
        for source in all_sources()
        for number, line in enumerate(source.lines, 1)
        if len(line) > MAX_LINE_LENGTH
    ]


def unformatted_blocks() -> list[str]:
    """Statements with the comment that keeps the formatter away."""
    comment = re.compile(r"#\s*fmt:\s*(skip|off)")
    return [
        f"{source.name}:{number}: {line.strip()}"
        for source in all_sources()
        for number, line in enumerate(source.lines, 1)
        if comment.search(line) and source.name != "tests/repository/measure.py"
    ]


# --- Imports


def module_name(name: str) -> str:
    """Return the dotted name of a Python file; a package's __init__.py has the package's name."""
    return name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imported_modules(source: Source, modules: set[str]) -> Iterator[tuple[ast.stmt, str]]:
    """Yield each import statement of a file with the module of this repository that it names.

    `from package import name` means the module `package.name` if there is one, else `package`.
    """
    own = module_name(source.name).split(".")
    package = own if source.name.endswith("__init__.py") else own[:-1]
    for node in ast.walk(source.tree):
        targets = []
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            prefix = ".".join([*base, *filter(None, [node.module])])
            targets = [f"{prefix}.{alias.name}" for alias in node.names]
        for target in targets:
            known = target if target in modules else target.rpartition(".")[0]
            if known in modules:
                yield node, known


def module_names() -> set[str]:
    """Return all modules and packages of the repository, folders without __init__.py included."""
    modules = {module_name(source.name) for source in python_sources()}
    parents = {
        ".".join(name.split(".")[:n]) for name in modules for n in range(1, name.count(".") + 1)
    }
    return modules | parents | set(PACKAGES)


def upward_imports() -> list[str]:
    """Imports against the arrows in CONTRIBUTING.md."""
    places = []
    modules = module_names()
    for source in all_sources():
        allowed = ARROWS.get(source.folder)
        for node, target in imported_modules(source, modules):
            package = target.split(".")[0]
            if package != source.folder and allowed is not None and package not in allowed:
                places.append(source.place(node, f"imports {target}"))
    return places


def import_circles() -> list[str]:
    """Groups of modules that import each other, imports within functions included."""
    modules = module_names()
    graph: dict[str, set[str]] = defaultdict(set)
    for source in python_sources():
        name = module_name(source.name)
        graph[name] |= {target for _, target in imported_modules(source, modules)} - {name}
    reachable: dict[str, set[str]] = {}
    for start in graph:
        seen: set[str] = set()
        stack = list(graph[start])
        while stack:
            if (name := stack.pop()) not in seen:
                seen.add(name)
                stack += graph.get(name, ())
        reachable[start] = seen
    circles = {
        frozenset(other for other in reachable[name] if name in reachable.get(other, ()))
        for name in graph
        if name in reachable[name]
    }
    return sorted(" <-> ".join(sorted(circle)) for circle in circles)


# --- Duplicates


def code_lines(name: str) -> list[tuple[int, str]]:
    """Return the lines of a file that count for duplicates, with their numbers.

    Blank lines, comments, lone punctuation and imports do not count, and white space is folded.
    """
    text = (ROOT / name).read_text(encoding="utf-8")
    imports: set[int] = set()
    if name.endswith(".py"):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import | ast.ImportFrom):
                imports |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    folded = [(n, " ".join(line.split())) for n, line in enumerate(text.splitlines(), 1)]
    return [
        (number, line)
        for number, line in folded
        if number not in imports
        and re.search(r"\w", line)
        and not line.startswith(("#", "//", "/*", "* ", "<!--"))
    ]


def duplicate_pairs() -> list[str]:
    """Pairs of files in different top-level folders that share 6 identical lines in a row."""
    content = {name: code_lines(name) for name in tracked_files() if name.endswith(SOURCES)}
    runs: dict[tuple[str, ...], list[tuple[str, int]]] = defaultdict(list)
    for name, lines in content.items():
        for start in range(len(lines) - DUPLICATE_LINES + 1):
            run = tuple(line for _, line in lines[start : start + DUPLICATE_LINES])
            runs[run].append((name, lines[start][0]))
    pairs: dict[tuple[str, str], str] = {}
    for places in runs.values():
        for i, (first, line) in enumerate(places):
            for second, other in places[i + 1 :]:
                if first.split("/")[0] != second.split("/")[0]:
                    pairs.setdefault((first, second), f"{first}:{line}: again in {second}:{other}")
    return sorted(pairs.values())


# --- Names and layout


def identifiers(tree: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """Yield every name in a syntax tree: variables, arguments, attributes, functions, aliases."""
    for node in ast.walk(tree):
        for attribute in ("id", "arg", "attr", "name", "asname", "rest"):
            name = getattr(node, attribute, None)
            if isinstance(name, str):
                yield node, name
        if isinstance(node, ast.Global | ast.Nonlocal):
            yield from ((node, name) for name in node.names)


def banned_names() -> list[str]:
    """Past participles as identifiers; style.md says why."""
    return [
        source.place(node, name)
        for source in all_sources()
        for node, name in identifiers(source.tree)
        if name in BANNED_NAMES
    ]


def banned_words() -> list[str]:
    """Home-made words for the field's terms in code, comments and messages; style.md lists them."""
    words = re.compile(rf"\b({'|'.join(BANNED_WORDS)})\b", flags=re.IGNORECASE)
    return [
        f"{source.name}:{number}: {match[0]}"
        for source in python_sources()
        if source.name != "tests/repository/measure.py"
        for number, line in enumerate(source.lines, 1)
        for match in words.finditer(line)
    ]


def misspellings() -> list[str]:
    """Words that codespell does not know, or that are British; pyproject.toml has its settings."""
    names = [name for name in tracked_files() if name.endswith((*SOURCES, ".md", ".yml", ".cff"))]
    command = [sys.executable, "-m", "codespell_lib", *names]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.splitlines()


def wide_assignments() -> list[str]:
    """Tuple assignments with more than two targets, tests excepted."""
    places = []
    for source in all_sources():
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Assign) and not is_test(source.name):
                targets = [t for t in node.targets if isinstance(t, ast.Tuple | ast.List)]
                if any(count_targets(target) > 2 for target in targets):
                    places.append(source.place(node, ast.unparse(targets[0])))
    return places


def count_targets(target: ast.expr) -> int:
    if isinstance(target, ast.Tuple | ast.List):
        return sum(map(count_targets, target.elts))
    return 1


def wide_assignments_per_thousand_lines() -> float:
    lines = sum(len(source.lines) for source in all_sources() if not is_test(source.name))
    return 1000 * len(wide_assignments()) / lines


def nested_conditionals() -> list[str]:
    """Conditional expressions within another one, and calls of a conditional expression."""
    places = []
    for source in all_sources():
        for node in ast.walk(source.tree):
            if isinstance(node, ast.IfExp):
                parts = (node.body, node.orelse, node.test)
                if any(isinstance(part, ast.IfExp) for part in parts):
                    places.append(source.place(node, "a conditional within a conditional"))
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.IfExp):
                places.append(source.place(node, "a call of a conditional"))
    return places


# --- Figures in README

# Numbers that are no measurement: names, versions, sizes of models, and what the reader needs.
CONSTANTS = (
    r"Stable Diffusion [12]\.[15]",
    r"Python 3\.11",
    r"\d+ × \d+",  # size of an image
    r"[\d.]+ GB( download| of disk space| of memory)",
    r"\b(in|lesson|for|and) [123](\.[123])?\b",  # a lesson
    r"\b[23]D\b|360-degree|\bMP4|\bF1\b|\bH200\b",
    r"assignment 5\b",
)


def unfilled_figures() -> list[str]:
    """Numbers in README that no row fills, outside code, links and the constants above."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for hidden in (
        r"```.*?```",
        r"<!--(?:figure|lessons).*?<!---->",
        r"<[^>]*>",
        r"`[^`]*`",
        r"\[[^]]*\]\([^)]*\)",
    ):
        text = re.sub(hidden, lambda match: "\n" * match[0].count("\n"), text, flags=re.DOTALL)
    text = re.sub("|".join(CONSTANTS), "", text, flags=re.IGNORECASE)
    return [
        f"README.md:{number}: {figure}"
        for number, line in enumerate(text.splitlines(), 1)
        for figure in re.findall(r"\d[\d.,]*", line)
    ]


# --- Task 3's settings


def differing_settings() -> list[str]:
    """Settings of task 3 whose field has no option of the same name, or is not in OPTIONS.md."""
    from task_3_DreamFusion.command_line import build_parser
    from task_3_DreamFusion.nerf.settings import (
        GuidanceOptions,
        OutputOptions,
        RunOptions,
        Settings,
    )

    tables = (ROOT / "task_3_DreamFusion" / "OPTIONS.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"--([a-z_]\w*)", tables))
    kinds = (Settings, GuidanceOptions, RunOptions, OutputOptions)
    names = [field.name for part in kinds for field in fields(part)]
    options = {flag for group in option_names(build_parser()) for flag in group}
    return [name for name in names if name not in options or name not in documented]


def option_names(parser: argparse.ArgumentParser) -> list[set[str]]:
    """Return the names of each option of a parser, without hyphens before them."""
    return [{flag.lstrip("-") for flag in action.option_strings} for action in parser._actions]

"""The bars of the house, and that the measures see what they are for."""

import ast

import pytest

from tests.repository import measure
from tests.repository.__main__ import FIGURES, Figure
from tests.repository.measure import Source


@pytest.mark.parametrize("name", FIGURES)
def test_the_bar_holds(name):
    figure = FIGURES[name]()
    assert figure.holds, f"{figure.value} {figure.what}, bar {figure.bar}: {figure.places[:20]}"


@pytest.fixture
def sources(monkeypatch):
    """Replace the repository by one file."""

    def replace(text: str, name: str = "course/example.py") -> None:
        source = Source(name, text)
        monkeypatch.setattr(measure, "python_sources", lambda: [source])
        monkeypatch.setattr(measure, "notebook_sources", list)

    return replace


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (measure.long_functions, "def f():\n" + "    x = 1\n" * 60),
        (measure.long_files, "x = 1\n" * 451),
        (measure.long_lines, "#" * 101),
        (measure.unformatted_blocks, "x = 1  # fmt" + ": skip"),
        (measure.wide_assignments, "a, (b, c) = x"),
        (measure.nested_conditionals, "a if b else c if d else e"),
        (measure.nested_conditionals, "(f if x else g)()"),
        (measure.banned_words, "x = 1  # a wi" + "sh"),
        (measure.upward_imports, "def f():\n    import pocket"),
        *[
            (measure.banned_names, text)
            for text in (
                "found = 1",
                "def found(): ...",
                "def f(found): ...",
                "f(found=1)",
                "x.found",
                "import x as found",
                "for found in x: ...",
                "class found: ...",
                "lambda found: 0",
                "def f():\n    global found",
            )
        ],
    ],
)
def test_a_rule_sees_what_breaks_it(function, text, sources):
    ast.parse(text)
    sources(text)
    assert len(function()) == 1
    sources("a, b = 1, 2\nx = a if b else 3\nfrom course import errors\n")
    assert function() == []


def test_circles_of_imports(monkeypatch):
    first = Source("course/a.py", "from course import b")
    second = Source("course/b.py", "if TYPE_CHECKING:\n    from course.a import x")
    monkeypatch.setattr(measure, "python_sources", lambda: [first, second])
    assert measure.import_circles() == ["course.a <-> course.b"]


def test_duplicates_across_folders(tmp_path, monkeypatch):
    lines = [f"value_{i} = compute({i})" for i in range(6)]
    files = {"course/a.py": lines, "pocket/b.py": ["x = 1", *lines], "pocket/c.py": lines[:5]}
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("\n\n".join(content))
    monkeypatch.setattr(measure, "ROOT", tmp_path)
    monkeypatch.setattr(measure, "tracked_files", lambda: sorted(files))
    assert measure.duplicate_pairs() == ["course/a.py:1: again in pocket/b.py:3"]


@pytest.mark.parametrize(
    ("value", "bar", "holds"),
    [(0, "0", True), (1, "0", False), (20, "< 20", False), (5, "<= 5", True)],
)
def test_bars(value, bar, holds):
    assert Figure("what", value, bar).holds is holds

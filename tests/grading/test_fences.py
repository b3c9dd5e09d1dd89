"""Stub and solution are the source, for every lesson and for any text."""

import ast
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from course import notebooks
from course.checks import exercises
from grading import fences, release

CELL = """\
def f(x):
    # TODO 1.2 (d)
    ### BEGIN SOLUTION
    y = x + 1
    return y
    ### END SOLUTION

g = ...  # TODO 1.2 (e)
### BEGIN SOLUTION
g = f(1)
### END SOLUTION
"""


def with_solutions(stubs, solutions):
    """Return the inverse of `without_solutions`."""
    for solution in solutions:
        assert solution.stub in stubs
        stubs = stubs.replace(solution.stub, solution.source, 1)
    return stubs


def test_a_stub_names_its_exercise():
    assert fences.without_solutions(CELL) == textwrap.dedent(
        """\
        def f(x):
            # TODO 1.2 (d)
            ...  # TODO 1.2 (d): write your lines here

        g = ...  # TODO 1.2 (e)
        ...  # TODO 1.2 (e): write your lines here
        """
    )


def test_solutions_are_in_order_with_their_exercise():
    first, second = fences.solutions(CELL)
    assert (first.exercise, first.code) == ("1.2 (d)", "    y = x + 1\n    return y\n")
    assert (second.exercise, second.indent, second.code) == ("1.2 (e)", "", "g = f(1)\n")


names = st.sampled_from(list(exercises()))
indents = st.sampled_from(["", "    ", "        "])
lines = st.lists(st.from_regex(r"[a-z]{1,8} = [a-z]{1,8}", fullmatch=True), max_size=4)


@given(st.lists(st.tuples(names, indents, lines, lines), min_size=1, max_size=4))
def test_stub_and_solution_are_the_source_of_any_text(parts):
    source = ""
    for id, indent, before, solution in parts:
        code = "".join(f"{indent}{line}\n" for line in solution)
        source += "".join(f"{line}\n" for line in before) + f"# TODO {id}\n"
        source += f"{indent}### BEGIN SOLUTION\n{code}{indent}### END SOLUTION\n"
    stubs = fences.without_solutions(source)
    assert "SOLUTION" not in stubs
    assert [s.exercise for s in fences.solutions(source)] == [part[0] for part in parts]
    assert with_solutions(stubs, fences.solutions(source)) == source


def sources():
    """Yield path, exercise and source of every code cell and module with a solution."""
    for path in notebooks.lesson_paths():
        for cell, exercise in fences.cells_with_exercise(notebooks.read(path)):
            if cell.cell_type == "code" and "### BEGIN SOLUTION" in cell.source:
                yield path.name, exercise, cell.source
    for path in release.fenced_modules():
        yield path.name, None, path.read_text()


@pytest.mark.parametrize(("name", "exercise", "source"), sources())
def test_stub_and_solution_are_the_source_of_the_course(name, exercise, source):
    stubs = fences.without_solutions(source, exercise)
    ast.parse(stubs)
    assert with_solutions(stubs, fences.solutions(source, exercise)) == source


def test_every_exercise_with_a_check_has_a_solution():
    solved = {solution.exercise for solution in release.lesson_solutions()}
    checked = {exercise.id for exercise in exercises().values() if exercise.check}
    assert checked - solved == set()


@pytest.mark.parametrize(
    ("text", "id"),
    [
        ("**TODO 1.2 (d)** x", "1.2 (d)"),
        ("TODO 1.2 (d), then TODO 1.2 (e).", "1.2 (e)"),
        ("# TODO 9 (a)", None),
        ("no exercise", None),
        ("TODO", None),
    ],
)
def test_the_last_todo_names_the_exercise(text, id):
    assert fences.exercise_in(text) == id


def test_a_solution_of_no_exercise_is_an_error():
    source = "### BEGIN SOLUTION\nx = 1\n### END SOLUTION\n"
    with pytest.raises(fences.FenceError, match="no TODO"):
        fences.without_solutions(source)

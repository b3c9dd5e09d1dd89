"""The rubric agrees with the checks and with the lessons, and refuses what is not allowed."""

import importlib
import inspect
import pkgutil
import re
from collections import defaultdict

import pytest

from course import checks, notebooks
from course.checks import rubric
from course.checks.rubric import RubricError

LESSON_POINTS = {
    "0": 10,
    "1.1": 8,
    "1.2": 22,
    "video": 2,
    "1.3": 18,
    "1.4": 5,
    "2": 20,
    "3": 15,
}
LABEL = re.compile(r"(?P<stars>[★☆]{3}) (?P<tier>[\w-]+), (?P<minutes>\d+) min")
# A loop as a whole has no exercise of its own.
NO_EXERCISE = {"1.3"}


def all_checks() -> dict[str, set[str]]:
    """Return the ids of each function with a check in course.checks."""
    functions: dict[str, set[str]] = defaultdict(set)
    for module in pkgutil.iter_modules(checks.__path__, "course.checks."):
        for name, value in inspect.getmembers(importlib.import_module(module.name)):
            if inspect.isfunction(value) and hasattr(value, "exercise"):
                functions[name].add(value.exercise)
    return functions


def markdown_lines() -> list[str]:
    """Return all lines of text of the lessons."""
    cells = [cell for path in notebooks.lesson_paths() for cell in notebooks.read(path).cells]
    return [line for cell in cells for line in cell.source.splitlines()]


def mentions(line: str, id: str) -> bool:
    return bool(re.search(rf"(?<![\w.]){re.escape(id)}(?!\w)", line))


def test_every_check_has_an_exercise_and_every_exercise_its_check():
    functions = all_checks()
    for exercise in checks.exercises().values():
        if exercise.check:
            assert exercise.id in functions[exercise.check], exercise
    ids = set().union(*functions.values())
    assert ids - NO_EXERCISE <= set(checks.exercises())


def test_every_exercise_is_in_its_lesson_with_its_tier_and_time():
    exercises, headings = checks.exercises(), []
    for line in markdown_lines():
        if label := LABEL.search(line):
            ids = [id for id in exercises if mentions(line, id)]
            assert ids, line
            headings.append(max(ids, key=len))
            assert label.group() == exercises[headings[-1]].label, line
    assert sorted(headings) == sorted(exercises)


def test_points_of_each_lesson():
    points: dict[str, float] = defaultdict(float)
    for exercise in checks.exercises().values():
        points[exercise.lesson] += exercise.points
    assert points == LESSON_POINTS
    assert sum(LESSON_POINTS.values()) == 100


def test_exercises_stand_in_the_order_of_the_lessons():
    order = list(LESSON_POINTS)
    places = [order.index(exercise.lesson) for exercise in checks.exercises().values()]
    assert places == sorted(places)


@pytest.mark.parametrize("path", notebooks.lesson_paths(), ids=lambda path: path.stem)
def test_letters_of_exercises_follow_the_alphabet(path):
    text = path.read_text(encoding="utf-8")
    letters = re.findall(r"\*\*TODO (?:video|[\d.]+) \(([a-z])\)", text)
    assert letters and letters == [chr(ord("a") + i) for i in range(len(letters))]


def test_lessons_of_ids():
    ids = ["0 (a)", "1.1 (c)", "1.2 challenge 1", "1.4 (a)", "2.2 (4)", "2 written 1", "3"]
    lessons = [rubric.Exercise(id, "A title", "core", 5, 1, "name").lesson for id in ids]
    assert lessons == ["0", "1.1", "1.2", "1.4", "2", "2", "3"]


RIGHT = 'title = "A"\ntier = "core"\nminutes = 5\npoints = 1\ncheck = "name"\n'


@pytest.mark.parametrize(
    ("old", "new", "advice"),
    [
        ('"core"', '"hard"', "tier must be one of warm-up, core, challenge, written, got 'hard'"),
        ("minutes = 5", "minutes = 0", "at least one minute"),
        ("minutes = 5", 'minutes = "5"', "minutes must not be '5'"),
        ("points = 1", "points = -1", "points from 0"),
        ("points = 1", "points = true", "points must not be True"),
        ('title = "A"', 'title = ""', "needs a title"),
        ('"name"', '""', "all others have one"),
        ('tier = "core"', 'tier = "written"', "a written answer has no check"),
        ("points = 1\n", "", "missing 1 required positional argument: 'points'"),
        ("points = 1\n", "points = 1\nstars = 2\n", "unexpected keyword argument 'stars'"),
        ("points = 1\n", "points = = 1\n", "Invalid value"),
    ],
)
def test_entries_that_are_not_allowed(tmp_path, old, new, advice):
    path = tmp_path / "exercises.toml"
    path.write_text(f'["9 (a)"]\n{RIGHT}')
    assert rubric.read(path)["9 (a)"].label == "★★☆ core, 5 min"
    path.write_text(f'["9 (a)"]\n{RIGHT.replace(old, new)}')
    with pytest.raises(RubricError, match=advice):
        rubric.read(path)


def test_half_points_and_unknown_exercises():
    assert rubric.points_of("video (b)") == checks.exercises()["video (b)"].points > 0
    assert rubric.points_of("9 (z)") == 0

"""The course as the grader knows it: official cells and answers, recipes, and the student copy."""

import ast
import compileall
import importlib
import json
import os
import pkgutil
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from py_compile import PycInvalidationMode
from types import ModuleType

from course.checks.rubric import RUBRIC
from course.errors import CourseError
from course.files import replace_folder
from course.notebooks import ROOT, code_cells, lesson_paths, read
from grading import recipes
from grading.answers import module_functions
from grading.fences import cells_with_exercise, solutions
from grading.recipe import Recipe, Recipes
from grading.release import fenced_modules, write_student
from grading.scores import digest

# What the process in the sandbox needs of the grader, beside the recipes that it is sent.
SENT = (*("__init__.py", "lockdown.py", "pipe.py", "recipe.py", "small_model.py", "worker.py"),)
# What decides scores, beside that.
DECIDING = (
    *("answers.py", "compare.py", "engine.py", "policy.py", "tolerances.json"),
    *("outputs.py", "output_checks.py", "output_images.py"),
)
UNCHECKED = PycInvalidationMode.UNCHECKED_HASH  # of compiled files: they do not change
FONTS = ".matplotlib"  # the folder of matplotlib's list of fonts, which takes seconds to write


class RecipeError(CourseError):
    """A recipe does not fit the course; the message names it."""


@dataclass(frozen=True)
class Task:
    """What a process in the sandbox needs to run one answer; none holds the official one.

    module: of the recipe. cells: official sources, executed before the answer. modules: official
    sources by the names of the modules, for those that have exercises.
    """

    exercise: str
    module: str
    cells: tuple[str, ...]
    modules: Mapping[str, str]
    answer: str


@cache
def cells(lesson: str) -> Mapping[str, str]:
    """Return the code cells of a lesson by id; lesson: the notebook's path in the repository."""
    return {cell.id: cell.source for cell in code_cells(read(ROOT / lesson))}


@cache
def answers() -> Mapping[str, str]:
    """Return the official answers by exercise: whole cells, or functions of task 3."""
    result = {}
    for path in lesson_paths():
        for cell, exercise in cells_with_exercise(read(path)):
            if cell.cell_type == "code":
                for solution in solutions(cell.source, exercise):
                    result[solution.exercise] = cell.source
    for module, places in functions().values():
        for name, exercise in places.items():
            result[exercise] = function_source(fenced()[module], name)
    return result


@cache
def fenced() -> Mapping[str, str]:
    """Return the official sources of the modules with exercises, by their dotted names."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path.read_text("utf-8")
        for path in fenced_modules()
    }


@cache
def functions() -> Mapping[str, tuple[str, Mapping[str, str]]]:
    """Return by file name the dotted name of each module, and the exercise of each function."""
    by_file = module_functions()
    return {
        f"{name.rsplit('.', 1)[1]}.py": (
            name,
            {place.id: place.exercise for place in by_file[f"{name.rsplit('.', 1)[1]}.py"]},
        )
        for name in fenced()
    }


def function_place(exercise: str) -> tuple[str, str] | None:
    """Return module and function that an exercise asks for, None if it asks for a cell."""
    for module, places in functions().values():
        for function, other in places.items():
            if other == exercise:
                return module, function
    return None


def function_source(source: str, name: str) -> str:
    """Return the lines of a function of a module, with its decorators."""
    first, last = _lines(source, name)
    return "".join(source.splitlines(True)[first:last])


def _lines(source: str, name: str) -> tuple[int, int]:
    """Return the first line of a function, and the one after it, counted from 0."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            first = min([node.lineno, *(part.lineno for part in node.decorator_list)])
            return first - 1, node.end_lineno or node.lineno
    raise RecipeError(f"There is no function {name}.")


def with_function(source: str, name: str, function: str) -> str:
    """Return a module's source with another function in the place of its own."""
    lines = source.splitlines(True)
    first, last = _lines(source, name)
    return "".join([*lines[:first], function.rstrip() + "\n", *lines[last:]])


@cache
def all_recipes() -> Mapping[str, tuple[str, Recipes]]:
    """Return by exercise the module of its recipe, and the recipes of that lesson."""
    result = {}
    for info in pkgutil.iter_modules(recipes.__path__):
        name = f"{recipes.__name__}.{info.name}"
        for lesson in recipes_in(importlib.import_module(name)):
            result.update(dict.fromkeys(lesson.by_exercise, (name, lesson)))
    return result


def recipes_in(module: ModuleType) -> list[Recipes]:
    """Return the recipes that a module defines."""
    return [value for value in vars(module).values() if isinstance(value, Recipes)]


def recipe_of(exercise: str) -> Recipe | None:
    """Return the recipe of an exercise, None if it has none."""
    entry = all_recipes().get(exercise)
    return entry[1].by_exercise[exercise] if entry else None


@cache
def recipe_sources() -> Mapping[str, str]:
    """Return the sources of all recipes, by the dotted names of their modules."""
    sources = {recipes.__name__: ""}
    for info in pkgutil.iter_modules(recipes.__path__):
        path = Path(recipes.__path__[0]) / f"{info.name}.py"
        sources[f"{recipes.__name__}.{info.name}"] = path.read_text("utf-8")
    return sources


def task(exercise: str, answer: str) -> Task:
    """Return what runs an answer. Raises RecipeError if the official one would go along."""
    module, lesson = all_recipes()[exercise]
    recipe = lesson.by_exercise[exercise]
    try:
        sources = [cells(lesson.lesson)[id] for id in recipe.cells]
    except KeyError as error:
        raise RecipeError(f"{exercise}: {lesson.lesson} has no cell {error}.") from error
    modules = dict(fenced()) if _needs_modules(lesson.lesson) else {}
    if place := function_place(exercise):
        name, function = place
        modules[name] = with_function(fenced()[name], function, answer)
        answer = f"from {name} import {function}"
    elif answers()[exercise] in sources:
        raise RecipeError(f"{exercise}: the cells of its recipe hold the solution.")
    return Task(exercise, module, tuple(sources), modules, answer)


def _needs_modules(lesson: str) -> bool:
    """Return whether a lesson lies in the folder of a module with exercises."""
    return any(lesson.startswith(name.split(".", 1)[0]) for name in fenced())


def write_base(folder: Path) -> None:
    """Write what a sandbox may read, whole or not at all: the student copy and the worker."""
    with replace_folder(folder) as new:
        write_student(new)
        (new / "grading").mkdir()
        for name in SENT:
            shutil.copyfile(ROOT / "grading" / name, new / "grading" / name)
        compileall.compile_dir(new, quiet=2, invalidation_mode=UNCHECKED)
        environment = os.environ | {"MPLCONFIGDIR": str(new / FONTS)}
        command = [sys.executable, "-c", "import matplotlib.font_manager"]
        subprocess.run(command, env=environment, check=True, capture_output=True)


@cache
def grader_digest() -> str:
    """Return a digest of all that decides scores, beside the submission and the seed."""
    names = (*SENT, *DECIDING)
    return digest(
        {
            "recipes": json.dumps(dict(recipe_sources())),
            "answers": json.dumps(dict(answers())),
            "rubric": RUBRIC.read_text("utf-8"),
            **{name: (ROOT / "grading" / name).read_text("utf-8") for name in names},
        }
    )

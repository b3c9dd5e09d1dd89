"""Errors and odd results of a student's function become advice; comparisons."""

import importlib
import inspect
import pkgutil
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
import torch
from PIL import Image

from course import checks, notebooks
from course.checks import CheckFailed, common
from course.checks.common import call
from course.checks.rubric import exercises
from course.models import ModelError
from tests.course.checks.helpers import (
    raises,
)


def mixed_shapes(x):
    return x + torch.ones(2)


def mixed_types(x):
    return x.double() @ x


def mixed_index_types(x):
    x.clone()[:] = x.double()
    y = x.clone()
    y[[0, 1]] = x.double()[[0, 1]]
    return y


def without_gradient(x):
    return torch.autograd.grad(x.sum(), x)


def of_nothing(x):
    return x.sort(inplace=None).values if x is None else {}.get("x").shape


def unfinished(x):
    return x + ...


def misspelled(x):
    return x + noize  # noqa: F821


def wrong_call(x):
    return mixed_shapes(x, 5.0)


def on_arrays(x):
    return np.ones(3) + np.ones(2)


@torch.no_grad()
def decorated(x):
    return x.view(7)


def steps_that_fail(x):
    yield x
    yield x + torch.ones(2)


@pytest.mark.parametrize(
    ("function", "messages"),
    [
        (
            mixed_shapes,
            r"RuntimeError: The size of tensor a \(3\).*torch\.ones\(2\)\nTwo shapes do not fit",
        ),
        (
            mixed_types,
            r"RuntimeError: .*same dtype.*x\.double\(\) @ x\nTwo dtypes.*\.to\(other\.",
        ),
        (mixed_index_types, r"dtypes match.*y\[\[0, 1\]\] = x.double.*Two dtypes do not fit"),
        (
            without_gradient,
            r"RuntimeError: .*does not require grad.*autograd.*torch\.enable_grad\(\)",
        ),
        (of_nothing, r"AttributeError: 'NoneType' object.*get.*is None: .*`return`"),
        (
            unfinished,
            r"TypeError: unsupported operand.*x \+ \.\.\.\n`\.\.\.` is still in the place of a",
        ),
        (misspelled, r"NameError: name 'noize'.*x \+ noize.*spelled"),
        (
            wrong_call,
            r"TypeError: mixed_shapes\(\) takes 1.*mixed_shapes\(x, 5\.0\)\nA call does not fit",
        ),
        (
            on_arrays,
            r"ValueError: operands could not be broadcast.*np\.ones\(3\).*Two shapes do not fit",
        ),
        (decorated, r"of `decorated`: return x\.view\(7\)\nTwo shapes"),
        (steps_that_fail, r"of `steps_that_fail`: yield x \+ torch\.ones\(2\)\nTwo shapes"),
        (lambda: 1, r"raised TypeError: .*takes 0 positional arguments.*\nA call does not fit"),
        (
            raises(ValueError("no partner\nfor 3.png")),
            r"raised ValueError: no partner\nin line \d+ of `function`",
        ),
        (raises(KeyError()), r"raised KeyError\nin line"),
        (raises(RecursionError("too deep")), "raised RecursionError: too deep"),
    ],
)
def test_an_error_in_a_students_function_becomes_advice(function, messages):
    """The type, the message, the student's own line, and a hint."""
    with pytest.raises(CheckFailed, match=f"(?s)^Your code raised {messages}|{messages}") as caught:
        call(function, torch.ones(3, 3) if function is mixed_types else torch.ones(3))
    assert "course" not in str(caught.value) and "torch/" not in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 3
    assert str(caught.value).startswith("Your code raised ")


@pytest.mark.parametrize(
    ("value", "messages"),
    [
        (None, "^Your function returns None: is a `return` missing"),
        (..., "^What your function returns is still empty"),
        (torch.tensor([1.0, float("nan")]), "is not finite: .*square root of a negative"),
        ((torch.zeros(2), torch.tensor(float("inf"))), "is not finite"),
        ([{}, np.array([1.0, -np.inf])], "is not finite"),
        (float("nan"), "is not finite"),
        (np.float32("inf"), "is not finite"),
    ],
)
def test_a_result_that_cannot_be_right_is_named_first(value, messages):
    with pytest.raises(CheckFailed, match=messages):
        call(lambda: value)


@pytest.mark.parametrize(
    "value", [0, "", [], torch.zeros(2).bool(), np.zeros(2, int), torch.zeros(2, device="meta")]
)
def test_other_results_are_handed_on(value):
    assert call(lambda *a, **o: value, 1, option=2) is value


def test_names_of_functions_that_return_nothing():
    def guide(*_):
        pass

    with pytest.raises(CheckFailed, match="^`guide` returns None"):
        call(guide)
    with pytest.raises(CheckFailed, match="^The function is still empty: write"):
        call(...)
    with pytest.raises(CheckFailed, match="not a value of type type"):
        call(int)


def test_errors_that_a_check_expects_and_advice_that_is_advice_already():
    assert str(call(raises(ValueError("x")), allow=ValueError)) == "x"
    with pytest.raises(ModelError, match="^no such model$"):
        call(raises(ModelError("no such model")))
    with pytest.raises(KeyboardInterrupt):
        call(raises(KeyboardInterrupt()))
    with pytest.raises(CheckFailed, match="raised KeyError") as caught:
        call(raises(KeyError("y")), allow=ValueError)
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_cell_shows_advice_without_traceback():
    """In a notebook the line is counted within the cell, and library frames do not appear."""
    wrong = "import torch\n\n\ndef guide(uncond, cond, w):\n    return uncond + w * cond[0, :2]"
    sources = ["from course.checks import task_1_2 as checks", wrong, "checks.guidance(guide)"]
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    with pytest.raises(notebooks.LessonError) as caught:
        notebooks.execute(nbformat.v4.new_notebook(cells=cells))
    text = str(caught.value)
    assert text.startswith("CheckFailed: Your code raised RuntimeError: The size of tensor")
    assert "\nin line 5 of `guide`: return uncond + w * cond[0, :2]\nTwo shapes do not fit" in text
    assert "Traceback" not in text and "site-packages" not in text


@pytest.mark.parametrize("scale", [1e4, 1.0, 1e-3])
def test_tensors_are_close_relative_to_their_size(scale):
    right = scale * torch.ones(4)
    assert common.close(right * (1 + 9e-5), right) and not common.close(right * (1 + 1.1e-4), right)
    assert common.close(right * 1.009, right, 1e-2) and not common.close(right * 1.011, right, 1e-2)
    assert not common.close(right[:3], right) and not common.close(right.tolist(), right)


def test_tensors_beside_nothing():
    assert common.close(torch.full((4,), 4e-11), torch.zeros(4))
    assert not common.close(torch.full((4,), 1e-9), torch.zeros(4))
    assert common.close(torch.ones(3).double(), torch.ones(3).half())


def test_lists_of_tensors_are_close_if_each_is():
    parts = [torch.ones(3), torch.zeros(2)]
    assert common.close(parts, [torch.ones(3) * 1.009, torch.zeros(2)], 1e-2)
    assert not common.close(parts, parts[:1]) and not common.close(parts, [parts[0], torch.ones(2)])


def test_images_are_the_same_up_to_a_rounding_here_and_there():
    image = Image.new("RGB", (10, 10), (100, 100, 100))
    almost = image.copy()
    for x in range(4):
        almost.putpixel((x, 0), (101, 101, 101))
    assert common.same(almost, image)
    almost.putpixel((4, 0), (101, 101, 101))
    assert not common.same(almost, image)  # 5 % of the pixels, by one: 0.05 on average
    assert not common.same(image, image.resize((9, 10)))
    assert not common.same(Image.new("L", (4, 4), 255), Image.new("L", (4, 4), 0))


def test_half_precision_is_given_more_room():
    assert [
        common.tolerance_of(SimpleNamespace(dtype=d)) for d in (torch.float32, torch.float16)
    ] == [1e-3, 3e-2]


def test_a_check_tells_its_listeners_and_the_student(monkeypatch, capsys):
    results: list[common.Result] = []
    monkeypatch.setattr(common, "listeners", [common.print_result, results.append])

    @common.check("1.2 (d)")
    def is_one(value: int) -> str:
        common.expect(value == 1, "It has to be 1.")
        return "it is 1"

    assert is_one(1) is None
    with pytest.raises(CheckFailed, match="has to be 1"):
        is_one(2)
    assert results == [
        common.Result("1.2 (d)", True, "it is 1", exercises()["1.2 (d)"].points),
        common.Result("1.2 (d)", False, "It has to be 1.", 0),
    ]
    assert capsys.readouterr().out == "\N{CHECK MARK} it is 1\n"


LESSONS = [
    importlib.import_module(f"course.checks.{module.name}")
    for module in pkgutil.iter_modules(checks.__path__)
    if module.name.startswith(("task_", "make_video"))
]


@pytest.mark.parametrize("module", LESSONS, ids=lambda module: module.__name__)
def test_every_public_function_of_a_lesson_is_a_check(module):
    """Without the decorator a check would report nothing."""
    functions = {
        name: value
        for name, value in inspect.getmembers(module, inspect.isfunction)
        if not name.startswith("_")
    }
    assert any(hasattr(function, "exercise") for function in functions.values())
    own = {name: f for name, f in functions.items() if f.__module__ == module.__name__}
    assert [name for name, function in own.items() if not hasattr(function, "exercise")] == []

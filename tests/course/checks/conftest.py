"""The lessons of the checks' tests, each with the tiny model."""

import re

import pytest
from diffusers import (
    DDIMScheduler,
    StableDiffusionPipeline,
)

from course import checks, notebooks
from course.checks import common
from course.images import load_image
from course.models import Model, find_model, load_pipeline
from course.models.controlnet import load_controlnet
from tests.course.checks.helpers import (
    CONTROL_LESSON,
)


@pytest.fixture(autouse=True)
def complete_results(monkeypatch):
    """Every check reports every outcome, right or wrong, in words and with its exercise."""

    def expect_complete(result: checks.Result) -> None:
        assert re.fullmatch(r"(\d|video)\S*( training)?( \(\w\)| challenge \d)?", result.exercise)
        assert isinstance(result.message, str) and len(result.message.split()) > 3

    monkeypatch.setattr(common, "listeners", [*checks.listeners, expect_complete])


@pytest.fixture(scope="module")
def model(tiny_folder) -> Model:
    return find_model(tiny_folder)


@pytest.fixture(scope="module")
def pipe(model):
    scheduler = DDIMScheduler.from_pretrained(model.folder, subfolder="scheduler")
    pipe = StableDiffusionPipeline.from_pretrained(model.folder, scheduler=scheduler)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(model.device)


@pytest.fixture(scope="module")
def lesson():
    return notebooks.definitions(
        notebooks.read(notebooks.ROOT / "task_1_2_Stable_Diffusion_detailed.ipynb"), {"STEPS": 3}
    )


@pytest.fixture(scope="module")
def sd(lesson, model):
    return lesson.StableDiffusion(model)


@pytest.fixture(scope="module")
def control_lesson(steered_folder):
    """The lesson's functions on the tiny model, whose random ControlNets are not zero."""
    lesson = notebooks.definitions(notebooks.read(CONTROL_LESSON), {"STEPS": 3, "SEED": 2})
    lesson.model = find_model(steered_folder)
    lesson.pipe = load_pipeline(lesson.model)
    return lesson


@pytest.fixture(scope="module")
def photograph():
    return load_image(notebooks.ROOT / "assets" / "samples" / "house.png", 64)


@pytest.fixture(scope="module")
def by_edges(control_lesson, photograph):
    network = load_controlnet("canny", control_lesson.model)
    return control_lesson.Control(
        network, control_lesson.to_condition(control_lesson.canny_edges(photograph))
    )


@pytest.fixture(scope="module")
def joint():
    return notebooks.definitions(notebooks.read(notebooks.ROOT / "task_2_Joint_Diffusion.ipynb"))


@pytest.fixture(scope="module")
def joint_sd(joint, model):
    return joint.JointDiffusion(model)

"""Which model: names, downloads, checks of its files, prompts, pipelines, ControlNets and estimators."""

from course.models.files import ModelError
from course.models.model import (
    WEIGHTS,
    Model,
    RequestError,
    embedded,
    find_model,
    hide_loading_bars,
    load_pipeline,
)
from course.models.prompts import PromptWarning

__all__ = [
    "WEIGHTS",
    "Model",
    "ModelError",
    "PromptWarning",
    "RequestError",
    "embedded",
    "find_model",
    "hide_loading_bars",
    "load_pipeline",
]

"""Models by name: downloads, validation, prompts, pipelines, ControlNets and estimators."""

from course.errors import RequestError
from course.models.controlnet import load_controlnet
from course.models.files import ModelError, hide_loading_bars
from course.models.model import Model, find_model
from course.models.pipelines import load_distilled, load_pipeline
from course.models.prompts import PromptWarning
from course.models.weights import WEIGHTS, embedded_folder

__all__ = [
    "WEIGHTS",
    "Model",
    "ModelError",
    "PromptWarning",
    "RequestError",
    "embedded_folder",
    "find_model",
    "hide_loading_bars",
    "load_controlnet",
    "load_distilled",
    "load_pipeline",
]

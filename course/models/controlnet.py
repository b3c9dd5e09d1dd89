"""ControlNets by the kind of condition: one network that fits the model, or one clear error.

    controlnet = load_controlnet("canny", model)
    pipe = load_pipeline(model, controlnet)
    pipe(prompt, image=to_control(canny(image)))

Kinds are "canny", "depth", "normals" and "scribble"; `course.images.conditions` computes the
conditions. A model in a folder has its ControlNets beside it: ../controlnet/canny and so on.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from course.arguments import check_number
from course.errors import RequestError
from course.models.files import ModelError, existing_path, loading, suggest
from course.models.hub import CONTROLNETS, fetch
from course.models.model import Model, find_model
from course.models.validation import UNET_KEYS, check_network
from course.models.weights import embedded_folder

KINDS = ("canny", "depth", "normals", "scribble")
STRIP_FILE = "strip.jpg"


class Control(NamedTuple):
    """A ControlNet with its condition, how much it counts, and for which part of sampling.

    scale: the conditioning scale, which multiplies the residuals. start, end: the control window,
    as shares of the steps.
    """

    network: Any
    condition: torch.Tensor  # (1, 3, H, W) in [0, 1]
    scale: float = 1.0
    start: float = 0.0
    end: float = 1.0


def check_control(control: Control) -> Control:
    """Return the control with plain numbers; start and end are from 0 to 1. Raises RequestError."""
    return control._replace(
        scale=check_number("scale", control.scale),
        start=check_number("start", control.start, 0, 1),
        end=check_number("end", control.end, 0, 1),
    )


def load_controlnet(kind: str | Path, model: Model) -> Any:
    """Return the ControlNetModel for a kind of condition, on the device and in the type of `model`.

    `kind` is one of KINDS, or the folder of a ControlNet in diffusers' layout, such as one that you
    trained yourself. Raises ModelError if there is none for this model, or if it cannot be
    downloaded, is damaged, or does not fit.
    """
    from diffusers import ControlNetModel

    folder, label = find_controlnet(kind, model), f'ControlNet "{kind}"'
    config = check_network(folder, ControlNetModel, UNET_KEYS, label)
    denoiser = model.config("unet/config.json")
    for name in UNET_KEYS:  # what it must share with the denoiser that it steers
        if config[name] != denoiser[name]:
            raise ModelError(
                f"{label} does not fit {model.name}: its {name} is {config[name]}, that of the "
                f"denoiser is {denoiser[name]}."
            )
    with loading(label):
        controlnet = ControlNetModel.from_pretrained(
            folder, dtype=model.dtype, use_safetensors=True
        )
    return controlnet.to(model.device).eval()


def find_controlnet(kind: str | Path, model: Model) -> Path:
    """Return the folder of a ControlNet, downloaded if need be. Raises ModelError."""
    if str(kind) not in KINDS:
        path = existing_path(str(kind))
        if path is None:
            raise ModelError(
                f"There is no kind of control {suggest(str(kind), KINDS)}. "
                f"Choose one of {', '.join(KINDS)}, or the folder of a ControlNet."
            )
        return path
    if model.is_embedded:
        return embedded_folder(f"controlnet/{kind}")
    available = available_kinds(model)
    if kind not in available:
        raise ModelError(
            f'No ControlNet for "{kind}" is known for {model.name}, only {", ".join(available)}. '
            "Give the folder of a ControlNet instead, if you have it."
        )
    if model.name not in CONTROLNETS:
        return _own_folder(model, str(kind))
    repo = CONTROLNETS[model.name][str(kind)]
    return fetch(repo, repo, ["config.json", "diffusion_pytorch_model.safetensors"])


def available_kinds(model: Model) -> list[str]:
    """Return those of KINDS for which `model` has a ControlNet. Raises ModelError if none."""
    if model.name in CONTROLNETS:
        kinds = [kind for kind in KINDS if kind in CONTROLNETS[model.name]]
    else:
        kinds = [kind for kind in KINDS if (_own_folder(model, kind) / "config.json").exists()]
    if not kinds and model.is_embedded:
        embedded_folder(f"controlnet/{KINDS[0]}")  # raises an error that says what is missing
    if not kinds:
        raise ModelError(
            f"No ControlNet is known for {model.name}. Models with ControlNets are pocket, "
            f"{', '.join(CONTROLNETS)}, and any in a folder that has them beside it, in "
            "../controlnet/canny and so on."
        )
    return kinds


def _own_folder(model: Model, kind: str) -> Path:
    """Return where a model in a folder would have its ControlNet of a kind."""
    return model.folder.parent / "controlnet" / kind


def find_training_strip(kind: str, model: Model) -> Path:
    """Return the image file with samples from the training of a ControlNet. Raises ModelError.

    It is the model's own where it has one, as the embedded model does, else the embedded model's.
    """
    own = _own_folder(model, kind) / STRIP_FILE
    return own if own.exists() else find_controlnet(kind, find_model("pocket")) / STRIP_FILE


def check_request(
    model: Model, controls: Sequence[Control], steps: Any
) -> tuple[list[Control], tuple[int, int], int]:
    """Return the controls with plain numbers, the size (h, w) of the latents, and the steps.

    Raises RequestError, before any work begins.
    """
    count = model.check_steps(steps)
    size = latent_size_for(model, [control.condition for control in controls])
    return [check_control(control) for control in controls], size, count


def latent_size_for(model: Model, conditions: Sequence[torch.Tensor]) -> tuple[int, int]:
    """Return rows and columns of the latents of an image that follows the conditions.

    Each is a tensor (1, 3, H, W) in [0, 1], of the image's size; without any, it is the model's own
    size. Raises RequestError for anything else, for sizes that differ, and for a size that the
    model cannot generate.
    """
    sizes = list(dict.fromkeys(map(_check_condition, conditions)))
    if len(sizes) > 1:
        shown = " and ".join(f"{width} x {height}" for height, width in sizes)
        raise RequestError(
            f"The conditions have different sizes, {shown} pixels: bring them to one."
        )
    return model.latent_size(*sizes[0]) if sizes else model.latent_size()


def _check_condition(condition: Any) -> tuple[int, int]:
    """Return height and width of a condition. Raises RequestError."""
    shape = tuple(getattr(condition, "shape", ()))
    if not isinstance(condition, torch.Tensor) or len(shape) != 4 or shape[:2] != (1, 3):
        raise RequestError(
            f"A condition must be a tensor (1, 3, H, W), got {shape or type(condition).__name__}: "
            "course.images.conditions.to_control returns one."
        )
    low, high = condition.min(), condition.max()
    if not (low >= 0 and high <= 1):  # NaN compares as False
        raise RequestError(
            f"A condition must have numbers from 0 to 1, got {low:.3g} to {high:.3g}."
        )
    return shape[2], shape[3]

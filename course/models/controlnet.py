"""Choosing a ControlNet: one kind of condition, one network that fits the model, one clear error otherwise.

    controlnet = load_controlnet("canny", model)
    pipe = load_control_pipeline(model, controlnet)
    pipe(prompt, image=to_control(canny(image)))

Kinds are "canny", "depth", "normals" and "scribble"; `course.images.conditions` makes their
input. A model in a folder of your own has its ControlNets beside it, as the embedded one does: ../controlnet/canny
and so on.
"""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch

from course.errors import shorten
from course.models.files import UNET_RANGES, ModelError, check_network, existing_path, loading
from course.models.hub import CONTROLNETS, fetch
from course.models.model import Model, RequestError, embedded, find_model, hide_loading_bars

KINDS = ("canny", "depth", "normals", "scribble")
WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"
STRIP_FILE = "strip.jpg"
# What a ControlNet must share with the denoiser that it steers.
SHARED = ("in_channels", "block_out_channels", "layers_per_block", "cross_attention_dim")


def load_controlnet(kind: str | Path, model: Model) -> Any:
    """The ControlNetModel for conditions of a kind that fits `model`, on the model's device and in its type.

    `kind` is one of KINDS, or the folder of a ControlNet in diffusers' layout, such as one you trained yourself.
    Raises ModelError if there is none for this model, it cannot be fetched, is damaged, or does not fit.
    """
    from diffusers import ControlNetModel

    folder, label = find_controlnet(kind, model), f'ControlNet "{kind}"'
    config = check_network(folder, ControlNetModel, UNET_RANGES, label)
    denoiser = model.config("unet/config.json")
    for name in SHARED:
        if config[name] != denoiser[name]:
            raise ModelError(
                f"{label} was not made for {model.name}: its {name} is {config[name]}, the denoiser's {denoiser[name]}."
            )
    hide_loading_bars()
    with loading(label):
        controlnet = ControlNetModel.from_pretrained(
            folder, dtype=model.dtype, use_safetensors=True
        )
    return controlnet.to(model.device).eval()


def find_controlnet(kind: str | Path, model: Model) -> Path:
    """The folder of the ControlNet, fetched or checked as its model is. Raises ModelError."""
    if str(kind) not in KINDS:
        path = existing_path(str(kind))
        if path is not None and (path / "config.json").is_file():
            return path
        if path is not None:
            raise ModelError(
                f"{path} is no ControlNet in diffusers' layout: config.json is missing."
            )
        close = get_close_matches(str(kind), KINDS, n=1)
        suggestion = f" (did you mean {close[0]}?)" if close else ""
        raise ModelError(
            f'There is no kind of control "{shorten(str(kind), 200)}"{suggestion}. '
            f"Choose one of {', '.join(KINDS)}, or the folder of a ControlNet."
        )
    if model.is_embedded:
        return embedded(f"controlnet/{kind}")
    if kind not in (there := kinds(model)):
        raise ModelError(
            f'No ControlNet for "{kind}" is known for {model.name}: it has {", ".join(there)}. '
            "Give the folder of one instead, if you have it."
        )
    known = CONTROLNETS.get(model.name, {})
    if not known:
        return beside(model, str(kind))
    repo = known[str(kind)]
    folder = fetch(repo, repo, ["config.json", WEIGHTS_FILE])
    for file in ("config.json", WEIGHTS_FILE):
        if not (folder / file).exists():
            raise ModelError(f"{repo} has no {file}: it cannot be loaded safely.")
    return folder


def kinds(model: Model) -> list[str]:
    """The kinds of KINDS that there is a ControlNet for, in that order. Raises ModelError if there is none at all."""
    known = CONTROLNETS.get(model.name, {})
    found = [
        kind
        for kind in KINDS
        if kind in known or (not known and (beside(model, kind) / "config.json").exists())
    ]
    if not found and model.is_embedded:
        embedded(f"controlnet/{KINDS[0]}")  # which says what is missing
    if not found:
        raise ModelError(
            f"No ControlNet is known for {model.name}. Models with some are pocket, {', '.join(CONTROLNETS)}, and any "
            "in a folder that has its ControlNets beside it, in ../controlnet/canny and so on."
        )
    return found


def beside(model: Model, kind: str) -> Path:
    """Where a model that lies in a folder has its ControlNet of a kind, if it has one."""
    return model.folder.parent / "controlnet" / kind


def find_strip(kind: str, model: Model) -> Path:
    """The image that shows how control set in while a ControlNet was trained: the model's own where it has one, as
    the embedded one does, else the embedded model's. Raises ModelError."""
    own = beside(model, kind) / STRIP_FILE
    return own if own.exists() else find_controlnet(kind, find_model("pocket")) / STRIP_FILE


def control_size(model: Model, conditions: Sequence[torch.Tensor]) -> tuple[int, int]:
    """Rows and columns of the latents of an image that goes by `conditions`, each a tensor (1, 3, H, W) in [0, 1] of
    the image's size; without any, of the model's own size. Raises RequestError if one is no such tensor, if their
    sizes differ, or if the model cannot draw that size."""
    for condition in conditions:
        if (
            not isinstance(condition, torch.Tensor)
            or condition.dim() != 4
            or condition.shape[:2] != (1, 3)
        ):
            found = (
                tuple(condition.shape) if hasattr(condition, "shape") else type(condition).__name__
            )
            raise RequestError(
                f"A condition is a tensor (1, 3, H, W), not {found}: course.images.conditions.to_control makes it."
            )
        if not (0 <= condition.min() and condition.max() <= 1):  # not of NaN either
            low, high = condition.min(), condition.max()
            raise RequestError(
                f"A condition has numbers from 0 to 1, and this one from {low:.3g} to {high:.3g}."
            )
    sizes = [tuple(condition.shape[2:]) for condition in conditions]
    for size in sizes[1:]:
        if size != sizes[0]:
            raise RequestError(
                f"The conditions have different sizes, {sizes[0][1]} x {sizes[0][0]} and {size[1]} x {size[0]} pixels: "
                "bring them to one."
            )
    return model.latent_size(*sizes[0]) if sizes else model.latent_size()


def load_control_pipeline(model: Model, controlnet: Any) -> Any:
    """The model as a StableDiffusionControlNetPipeline with DDIM sampling, on its device, without a progress bar.

    controlnet: one, or a list of several that steer together.
    """
    from diffusers import DDIMScheduler, StableDiffusionControlNetPipeline

    hide_loading_bars()
    with loading(model.name):
        scheduler = DDIMScheduler.from_pretrained(model.folder, subfolder="scheduler")
        pipe = StableDiffusionControlNetPipeline.from_pretrained(
            model.folder, controlnet=controlnet, scheduler=scheduler, dtype=model.dtype
        )
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(model.device)

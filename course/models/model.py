"""A model by its name: its folder on this disk, and the numbers of its own configuration.

    model = find_model()             # the embedded pocket model, or what COURSE_MODEL names
    model = find_model("sd-1.5")     # Stable Diffusion 1.5, from the Hugging Face Hub
    pipe = StableDiffusionPipeline.from_pretrained(model.folder, dtype=model.dtype)

Sizes and kinds are properties of `Model`: no lesson has them as literals.
"""

import logging
import os
import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from course.arguments import check_integer
from course.errors import RequestError, shorten
from course.models import weights
from course.models.files import ModelError, existing_path, read_json, short_path, suggest
from course.models.hub import HUB_IDS, MODEL_NAMES, fetch
from course.models.prompts import (
    PromptWarning,
    cut_prompt,
    invalid_characters,
    normalize_prompt,
    unknown_words,
)
from course.models.validation import PARTS, check_pipeline, check_pipeline_class

# Only safetensors, which are safe to read; repositories hold the same weights in other formats too.
HUB_FILES = [
    f"{part}/*.{suffix}"
    for part in (*PARTS, "safety_checker", "feature_extractor")
    for suffix in ("json", "txt", "safetensors")
]
MAX_SHOWN = 300  # characters of a prompt in a message

# `course.setup` removes a torchvision that does not fit; transformers would warn in every lesson.
logging.getLogger("transformers.utils.import_utils").addFilter(
    lambda record: "requires torchvision" not in record.getMessage()
)


@dataclass(frozen=True)
class Model:
    """A text-to-image model in diffusers' layout on this machine."""

    name: str
    folder: Path

    def config(self, file: str) -> dict[str, Any]:
        """Return a configuration file of the model, for example `config("unet/config.json")`."""
        return read_json(self.folder / file, self.name)

    @cached_property
    def scale_factor(self) -> int:
        """Image pixels per latent pixel, along each side."""
        levels = len(self.config("vae/config.json")["block_out_channels"])
        return int(2 ** (levels - 1))

    @cached_property
    def image_size(self) -> int:
        """The side of the square images the model was trained on, in pixels."""
        return int(self.config("unet/config.json")["sample_size"]) * self.scale_factor

    @cached_property
    def latent_channels(self) -> int:
        """The channels of the latents."""
        return int(self.config("unet/config.json")["in_channels"])

    @cached_property
    def text_length(self) -> int:
        """How many tokens the text encoder reads, the start and end tokens included."""
        return int(self.config("text_encoder/config.json")["max_position_embeddings"])

    @cached_property
    def prediction_type(self) -> str:
        """What the denoiser predicts: "epsilon" (the noise) or "v_prediction"."""
        config = self.config("scheduler/scheduler_config.json")
        return str(config.get("prediction_type", "epsilon"))

    @cached_property
    def vocabulary(self) -> frozenset[str] | None:
        """Every word the model has seen, or None for a model that publishes no such list."""
        file = self.folder.parent / "vocabulary.json"
        if not file.exists():
            return None
        words = read_json(file, self.name).get("words")
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            place = short_path(file)
            raise ModelError(f"{place} of {self.name} is damaged: it has no list of words.")
        return frozenset(words)

    @property
    def is_embedded(self) -> bool:
        """Whether this is the model that comes with the course."""
        return self.folder == weights.WEIGHTS / "stable-diffusion"

    @property
    def device(self) -> torch.device:
        """The fastest device of this machine: CUDA, then Apple's MPS, then the CPU."""
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")

    @property
    def dtype(self) -> torch.dtype:
        """float16 for a large model on CUDA, else float32.

        A small model gains nothing from half precision, and in float32 it makes the same image on
        every machine.
        """
        files = (self.folder / "unet").glob("*.safetensors")
        large = sum(file.stat().st_size for file in files) > 2**28
        return torch.float16 if large and self.device.type == "cuda" else torch.float32

    @cached_property
    def tokenizer(self) -> Any:
        """The model's CLIPTokenizer."""
        from transformers import CLIPTokenizer

        return CLIPTokenizer.from_pretrained(self.folder / "tokenizer")

    def check_prompt(self, prompt: str, reserved_tokens: int = 0) -> str:
        """Return the prompt as the model will read it: normalized and, if it is too long, cut.

        `reserved_tokens` stay free for words that are added to it. Warns (PromptWarning) of parts
        that the model has never seen, of bytes that are not UTF-8, and of what is cut; diffusers
        would cut it too, in mid-word. Raises RequestError if the prompt is not text.
        """
        if not isinstance(prompt, str):
            raise RequestError(f"A prompt must be text, got {shorten(repr(prompt), 60)}.")
        if invalid := invalid_characters(prompt):
            shown = shorten(ascii("".join(invalid)), 60)
            _warn(f"The prompt holds bytes that are not UTF-8 ({shown}); they are left out.")
        text = normalize_prompt(prompt, self.tokenizer.all_special_tokens)
        kept = cut_prompt(text, self.tokenizer, self.text_length - reserved_tokens)
        if kept != text:
            removed = shorten(text[len(kept) :].strip(), MAX_SHOWN)
            limit = self.text_length - 2 - reserved_tokens
            _warn(
                f"The prompt is too long: {self.name} reads {limit} tokens. "
                f'Cut from its end: "{removed}"'
            )
        if unknown := self._unknown_parts(kept):
            parts = shorten(", ".join(unknown), MAX_SHOWN)
            file = short_path(self.folder.parent / "vocabulary.json")
            _warn(
                f"{self.name} has never seen: {parts}. It will guess. "
                f"Its {len(self.vocabulary or ())} words are in {file}"
            )
        return kept

    def _unknown_parts(self, prompt: str) -> list[str]:
        """Return the parts of a prompt that the model has never seen, if its words are known.

        Tokens that were added to its tokenizer, by textual inversion for example, count as seen.
        """
        if self.vocabulary is None:
            return []
        for token in self.tokenizer.get_added_vocab():
            prompt = prompt.replace(token, " ")
        parts = unknown_words(prompt, self.vocabulary)
        return [part if part.isprintable() else ascii(part) for part in parts]

    def pair_prompts(
        self, prompts: str | Sequence[str], negative_prompts: str | Sequence[str] = ""
    ) -> list[list[str]]:
        """Return prompts and negative prompts as two lists of one length, by `check_prompt`.

        A string is taken as a list of one; a single negative prompt is used for all prompts. Raises
        RequestError if there is no prompt, if one is not text, or if the numbers differ.
        """
        positive = [self.check_prompt(prompt) for prompt in _as_list(prompts)]
        negative = [self.check_prompt(prompt) for prompt in _as_list(negative_prompts)]
        if not positive:
            raise RequestError(
                'There is no prompt. For an image of nothing in particular the prompt is "".'
            )
        if len(negative) == 1:
            negative *= len(positive)
        if len(negative) != len(positive):
            raise RequestError(
                f"There are {len(positive)} prompts and {len(negative)} negative prompts: give as "
                "many, or one for all."
            )
        return [positive, negative]

    def check_steps(self, steps: Any) -> int:
        """Return `steps` as an int if the model can be sampled in so many. Raises RequestError."""
        config = self.config("scheduler/scheduler_config.json")
        maximum = config.get("num_train_timesteps", 1000)
        if config.get("timestep_spacing", "leading") == "leading":
            # With every timestep visited, the offset would point behind the last one.
            maximum -= config.get("steps_offset", 0)
        return check_integer(f"The number of sampling steps for {self.name}", steps, 1, maximum)

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
            side = check_integer(name, side, minimum=factor)
            if side % factor:
                nearest = round(side / factor) * factor
                raise RequestError(
                    f"{name} must be a multiple of {factor} for {self.name} (a latent pixel covers "
                    f"{factor} x {factor} pixels), got {side}. The nearest is {nearest}."
                )
            sides.append(side // factor)
        return sides[0], sides[1]


def _as_list(prompts: str | Sequence[str]) -> list[str]:
    if isinstance(prompts, Iterable) and not isinstance(prompts, str | bytes):
        return list(prompts)
    return [prompts]


def _warn(message: str) -> None:
    warnings.warn(message, PromptWarning, stacklevel=3)


def find_model(name: str | Path | None = None) -> Model:
    """Return the model called `name`, checked and complete on this disk.

    `name` is "pocket", "sd-1.5", "sd-2.1-base", "sd-2.1", any Hugging Face Hub id ("owner/name") or
    a folder in diffusers' layout. Without one the environment variable COURSE_MODEL decides, and
    without that it is "pocket". Hub models are downloaded once and kept in the Hub's cache. Raises
    ModelError; never takes another model instead.
    """
    name = str(name or os.environ.get("COURSE_MODEL") or "pocket")
    path = existing_path(name)
    if name == "pocket" or path == weights.WEIGHTS / "stable-diffusion":
        return Model(name, weights.embedded_folder("stable-diffusion"))
    if name in HUB_IDS or (path is None and re.fullmatch(r"[\w.-]+/[\w.-]+", name)):
        return Model(name, _download(HUB_IDS.get(name, name), name))
    if path is not None and path.is_dir():
        check_pipeline(path, name)
        return Model(name, path)
    if path is not None:
        raise ModelError(f"{name} is not a folder; a model is a folder in diffusers' layout.")
    raise ModelError(
        f"There is no model {suggest(name, MODEL_NAMES)}. Choose one of "
        f'{", ".join(MODEL_NAMES)}, a Hugging Face id such as "owner/name", or an existing folder.'
    )


def _download(repo: str, name: str) -> Path:
    """Return the folder of the Stable Diffusion `repo` in the Hub's cache, checked."""
    # First its class: an error should not come after gigabytes of a model that cannot be used.
    check_pipeline_class(fetch(repo, name, ["model_index.json"]), name)
    folder = fetch(repo, name, ["model_index.json", *HUB_FILES])
    try:
        check_pipeline(folder, name)
    except ModelError as error:
        cache = folder.parent.parent  # of the repository, which holds `snapshots`
        raise ModelError(f"{error} To download it again, delete {cache} first.") from error
    return folder

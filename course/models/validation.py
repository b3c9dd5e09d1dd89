"""Validation of model folders, which anybody may have written, before anything is loaded.

JSON files are read whole, weights only as far as the header with names and shapes. Covered are
damage, formats that can run code when they are opened (.bin), values that no model has, and
configurations that do not fit the weights. Not covered: what the numbers in the weights do.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from course.arguments import check_integer, check_number
from course.errors import shorten
from course.models.files import RELOAD, ModelError, file_label, loading, read_json, short_path

Shape = tuple[int, ...]

# The parts that lessons use, and the classes they may have. Any scheduler will do: DDIM reads the
# configuration of each.
PARTS = {
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL",),
    "text_encoder": ("CLIPTextModel",),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
    "scheduler": (),
}
# Smallest and largest value of whole numbers in a configuration, single or in a list with one for
# each block: models in use are within, networks too large for any machine are not.
RANGES = {
    "in_channels": (1, 64),
    "out_channels": (1, 64),
    "latent_channels": (1, 64),
    "block_out_channels": (1, 16_384),
    "layers_per_block": (1, 8),
    "transformer_layers_per_block": (1, 16),
    "reverse_transformer_layers_per_block": (1, 16),
    "cross_attention_dim": (1, 16_384),
    "conditioning_embedding_out_channels": (1, 16_384),  # of a ControlNet
    "max_position_embeddings": (3, 4096),
    "num_hidden_layers": (1, 64),
    "hidden_size": (1, 16_384),
    "vocab_size": (3, 10_000_000),
    "num_train_timesteps": (2, 10_000),
    "steps_offset": (0, 10_000),
}
NULLABLE = {"reverse_transformer_layers_per_block"}
MAX_BLOCKS = 8
MAX_LATENTS = 1024  # along a side
# What the course itself reads of a UNet: a default of the class would not be enough.
UNET_KEYS = ("in_channels", "block_out_channels", "layers_per_block", "cross_attention_dim")
SCHEDULER_CHOICES = {
    "prediction_type": ("epsilon", "v_prediction"),
    "beta_schedule": ("linear", "scaled_linear", "squaredcos_cap_v2"),
    "timestep_spacing": ("leading", "linspace", "trailing"),
}
WEIGHT_SUFFIXES = {".safetensors", ".bin", ".ckpt", ".pt", ".pth", ".msgpack", ".h5", ".onnx"}
TEXT_PREFIX = "text_model."  # before the names of a text encoder that transformers 4 saved
# Tensors of old checkpoints, which diffusers renames as it loads them.
OLD_NAMES = {
    ".to_q.": ".query.",
    ".to_k.": ".key.",
    ".to_v.": ".value.",
    ".to_out.0.": ".proj_attn.",
}
ALPHABET = "a b c d e f g h i j k l m n o p q r s t u v w x y z"


def check_pipeline_class(folder: Path, name: str) -> dict[str, Any]:
    """Return model_index.json. Raises ModelError unless it names a StableDiffusionPipeline.

    Only Stable Diffusion 1 and 2 have the one text encoder and the UNet that the lessons use.
    """
    if not (folder / "model_index.json").exists():
        raise ModelError(f"{name} has no model_index.json: it is not a model in diffusers' layout.")
    index = read_json(folder / "model_index.json", name)
    kind = index.get("_class_name")
    if kind != "StableDiffusionPipeline":
        raise ModelError(
            f"{name} is a {shorten(str(kind), 60)}; the lessons need a StableDiffusionPipeline, "
            "such as pocket or sd-1.5."
        )
    return index


def check_pipeline(folder: Path, name: str) -> None:
    """Check a Stable Diffusion model in diffusers' layout, called `name` in messages.

    Every part must exist, every configuration must have possible values, and the weights must have
    the shapes that it describes. Raises ModelError.
    """
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel

    for part, entry in (dict.fromkeys(PARTS) | check_pipeline_class(folder, name)).items():
        if part in PARTS or (isinstance(entry, list) and entry[:1] != [None]):
            _check_entry(folder, part, entry, name)
    unet = check_network(folder / "unet", UNet2DConditionModel, UNET_KEYS, name)
    vae = check_network(folder / "vae", AutoencoderKL, ["block_out_channels"], name)
    text_keys = ["max_position_embeddings"]
    text = check_network(folder / "text_encoder", CLIPTextModel, text_keys, name)
    label = f"unet/config.json of {name}: sample_size"
    check_integer(label, unet.sample_size, 1, MAX_LATENTS, ModelError)
    for key, owner, expected in (
        ("in_channels", "the autoencoder's latent_channels", vae.latent_channels),
        ("out_channels", "the autoencoder's latent_channels", vae.latent_channels),
        ("cross_attention_dim", "the text encoder's hidden_size", text.hidden_size),
    ):
        if unet[key] != expected:
            raise ModelError(
                f"The parts of {name} do not fit: the UNet's {key} is {unet[key]}, but {owner} is "
                f"{expected}."
            )
    _check_scheduler(folder / "scheduler", name)
    _check_tokenizer(folder / "tokenizer", name, text.vocab_size, text.max_position_embeddings)


def _check_entry(folder: Path, part: str, entry: Any, name: str) -> None:
    """Check a part's folder, and the [library, class] that model_index.json names for it."""
    import diffusers

    if not part.isidentifier() or not (folder / part).is_dir():
        place = f"its folder {shorten(part, 60)}"
        raise ModelError(f"{name} is incomplete: {place} is missing. {RELOAD}")
    if not (isinstance(entry, list) and [type(word) for word in entry] == [str, str]):
        label, shown = file_label(folder / "model_index.json", name), shorten(repr(entry), 60)
        raise ModelError(f"{label} has no [library, class] for {part}, but {shown}.")
    kind = shorten(entry[1], 60)
    if PARTS.get(part) and kind not in PARTS[part]:
        raise ModelError(f"{part} of {name} is a {kind}; the lessons need a {PARTS[part][0]}.")
    if part == "scheduler" and not hasattr(diffusers, kind):
        raise ModelError(f"{part} of {name} is a {kind}, which diffusers does not have. {RELOAD}")
    if part not in PARTS and (folder / part / "config.json").exists():  # such as a safety checker
        stem = "diffusion_pytorch_model" if entry[0] == "diffusers" else "model"
        _tensor_shapes(folder / part, stem, name)


def check_network(folder: Path, network_class: Any, keys: Sequence[str], name: str) -> Any:
    """Check a network of diffusers or transformers and return its configuration, with defaults.

    Its file must have the `keys`. Raises ModelError.
    """
    config = read_json(folder / "config.json", name)
    expected = network_class.__name__
    given = config.get("_class_name", expected)
    if given != expected:
        place = short_path(folder)
        raise ModelError(f"{place} must hold a {expected}, got a {shorten(str(given), 60)}.")
    _check_ranges(config, keys, file_label(folder / "config.json", name))
    label = f"{folder.name} of {name}"
    with loading(label), torch.device("meta"):
        if hasattr(network_class, "from_config"):
            stem = "diffusion_pytorch_model"
            network = network_class.from_config(config)
        else:
            stem = "model"
            network = network_class(network_class.config_class.from_dict(config))
    _check_shapes(network, _tensor_shapes(folder, stem, name), label)
    return network.config


def _check_scheduler(folder: Path, name: str) -> None:
    from diffusers import DDIMScheduler

    path = folder / "scheduler_config.json"
    config, label = read_json(path, name), file_label(path, name)
    _check_ranges(config, [], label)
    for key, allowed in SCHEDULER_CHOICES.items():
        value = config.get(key, allowed[0])
        if value not in allowed:
            shown = shorten(repr(value), 60)
            raise ModelError(f"{label}: {key} must be {' or '.join(allowed)}, got {shown}.")
    for key in ("beta_start", "beta_end"):
        check_number(f"{label}: {key}", config.get(key, 0.5), 0, 1, ModelError)
    with loading(label):
        alphas = DDIMScheduler.from_config(config).alphas_cumprod
    steps = config.get("num_train_timesteps", 1000)
    if len(alphas) != steps:
        count = f"{steps:,} numbers, got {len(alphas):,}"
        raise ModelError(f"{label}: trained_betas must have {count}.")
    if not ((alphas >= 0) & (alphas <= 1)).all() or (alphas.diff() > 0).any():
        raise ModelError(f"{label}: its betas must give a noise schedule that falls from 1 to 0.")


def _check_tokenizer(folder: Path, name: str, vocabulary_size: int, text_length: int) -> None:
    """Check a CLIP tokenizer.

    The text encoder has embeddings of `vocabulary_size` tokens and reads `text_length` of them.
    """
    from transformers import CLIPTokenizer

    files = {path.name for path in folder.iterdir() if path.is_file()}
    if "tokenizer.json" not in files and not {"vocab.json", "merges.txt"} <= files:
        raise ModelError(
            f"{name} is incomplete: {short_path(folder)} has neither tokenizer.json nor vocab.json "
            f"with merges.txt, so every word would become the same token. {RELOAD}"
        )
    with loading(f"{folder.name} of {name}"):
        tokenizer = CLIPTokenizer.from_pretrained(folder)
        ids = tokenizer(ALPHABET).input_ids
        largest = max(tokenizer.get_vocab().values())
        ends = [tokenizer.bos_token_id, tokenizer.eos_token_id]
    letters = set(ids[1:-1]) - {*ends, tokenizer.unk_token_id}
    if [ids[0], ids[-1]] != ends or len(letters) < len(ALPHABET.split()):
        problem = "it does not distinguish the letters a to z"
        raise ModelError(f"{folder.name} of {name} is damaged: {problem}. {RELOAD}")
    if largest >= vocabulary_size:
        raise ModelError(
            f"The parts of {name} do not fit: the tokenizer has tokens up to {largest:,}, and the "
            f"text encoder has embeddings of those below {vocabulary_size:,}."
        )
    if tokenizer.model_max_length != text_length:
        raise ModelError(
            f"The parts of {name} do not fit: model_max_length of the tokenizer is "
            f"{tokenizer.model_max_length}, and the text encoder reads {text_length} tokens."
        )


def _check_ranges(config: dict[str, Any], keys: Sequence[str], label: str) -> None:
    for key in keys:
        if key not in config:
            raise ModelError(f"{label} is incomplete: it has no {key}.")
    with loading(label):  # a list may be nested too deeply
        for key, limits in RANGES.items():
            value = config.get(key)
            if key in config and not (value is None and key in NULLABLE):
                _check_range(f"{label}: {key}", value, limits)


def _check_range(name: str, value: Any, limits: tuple[int, int]) -> None:
    if isinstance(value, list) and len(value) <= MAX_BLOCKS:
        for each in value:
            _check_range(name, each, limits)
    else:
        check_integer(name, value, *limits, ModelError)


# --- Weights


def _tensor_shapes(folder: Path, stem: str, name: str) -> dict[str, Shape]:
    """Return the shapes of a network's stored tensors by name.

    They are read from the headers of `stem`.safetensors, or of the files that
    `stem`.safetensors.index.json lists.
    """
    single = folder / f"{stem}.safetensors"
    index = folder / f"{stem}.safetensors.index.json"
    if single.exists() and index.exists():
        both = f"{single.name} and {index.name}"
        raise ModelError(f"{folder.name} of {name} has both {both}: remove one of them.")
    if index.exists():
        return _shard_shapes(index, name)
    if not single.exists():
        others = sorted(path.name for path in folder.iterdir() if path.suffix in WEIGHT_SUFFIXES)
        only = f", only {', '.join(others[:3])}" if others else ""
        raise ModelError(
            f"{folder.name} of {name} has no {single.name}{only}. The course only reads complete "
            "models in safetensors: other formats, such as .bin, can run code when they are "
            "opened. Save it again with save_pretrained, without a variant."
        )
    return _header_shapes(single, name)


def _shard_shapes(index: Path, name: str) -> dict[str, Shape]:
    label = file_label(index, name)
    files = read_json(index, name).get("weight_map")
    if not isinstance(files, dict) or not all(isinstance(file, str) for file in files.values()):
        raise ModelError(
            f"{label} is damaged: it has no weight_map from tensors to files. {RELOAD}"
        )
    shapes: dict[str, Shape] = {}
    for file in sorted(set(files.values())):
        if not re.fullmatch(r"[\w-][\w.-]*\.safetensors", file):
            rule = "it may only name safetensors files beside itself"
            raise ModelError(f"{label} names {shorten(repr(file), 80)}; {rule}.")
        shapes |= _header_shapes(index.parent / file, name)
    return shapes


def _header_shapes(path: Path, name: str) -> dict[str, Shape]:
    if not path.is_file():
        raise ModelError(f"{name} is incomplete: {short_path(path)} is missing. {RELOAD}")
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            return {tensor: tuple(file.get_slice(tensor).get_shape()) for tensor in names}
    except Exception as error:
        problem = f"{file_label(path, name)} is damaged or cut short ({error})"
        raise ModelError(f"{problem}. {RELOAD}") from error


def _check_shapes(network: torch.nn.Module, shapes: dict[str, Shape], label: str) -> None:
    """Compare the shapes of stored tensors with those of a network on the meta device."""
    problem = f"The weights in {label} do not fit config.json"
    given = {tensor.removeprefix(TEXT_PREFIX): shape for tensor, shape in shapes.items()}
    for tensor, weight in network.state_dict().items():
        expected, key = tuple(weight.shape), tensor.removeprefix(TEXT_PREFIX)
        for new, old in OLD_NAMES.items():
            if key not in given:
                key = key.replace(new, old)
        if key not in given:
            raise ModelError(f"{problem}: {tensor} is missing. {RELOAD}")
        if given[key] != expected:
            difference = f"must be {_shape_text(expected)}, got {_shape_text(given[key])}"
            raise ModelError(f"{problem}: {tensor} {difference}.")


def _shape_text(shape: Shape) -> str:
    return " x ".join(map(str, shape)) or "one number"

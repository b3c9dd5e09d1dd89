"""Checks of model files before anything is loaded: the embedded weights, and folders that anybody
may have written.

JSON files are read whole, weights only as far as the header with names and shapes. Covered are
damage, formats that can run code when they are opened (.bin), values that no model has, and
configurations that do not fit the weights, all as one ModelError. Not covered: what the numbers
in the weights do.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from course.arguments import check_integer, check_number
from course.errors import CourseError, shorten

Shape = tuple[int, ...]
Ranges = dict[str, tuple[int, int]]

ROOT = Path(__file__).resolve().parents[2]
# The parts that lessons open up, and the classes they may have. A configuration of one scheduler
# fits all of them.
PARTS = {
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL",),
    "text_encoder": ("CLIPTextModel",),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
    "scheduler": (),
}
# Smallest and largest value of whole numbers in a configuration, alone or in a list with one for
# each block: above every model in use, below what no machine can build.
UNET_RANGES = {
    "in_channels": (1, 64),
    "out_channels": (1, 64),
    "block_out_channels": (1, 16_384),
    "layers_per_block": (1, 8),
    "transformer_layers_per_block": (1, 16),
    "reverse_transformer_layers_per_block": (1, 16),
    "cross_attention_dim": (1, 16_384),
    "conditioning_embedding_out_channels": (1, 16_384),  # of a ControlNet
}
VAE_RANGES = {
    "latent_channels": (1, 64),
    "block_out_channels": (1, 16_384),
    "layers_per_block": (1, 8),
}
TEXT_RANGES = {
    "max_position_embeddings": (3, 4096),
    "num_hidden_layers": (1, 64),
    "hidden_size": (1, 16_384),
    "vocab_size": (3, 10_000_000),
}
SCHEDULER_RANGES = {"num_train_timesteps": (2, 10_000), "steps_offset": (0, 10_000)}
SCHEDULER_CHOICES = {
    "prediction_type": ("epsilon", "v_prediction"),
    "beta_schedule": ("linear", "scaled_linear", "squaredcos_cap_v2"),
    "timestep_spacing": ("leading", "linspace", "trailing"),
}
MOST_BLOCKS = 8
MOST_LATENTS = 1024  # along a side
# What the course itself reads, so that the default of a class cannot stand in.
REQUIRED = {
    "in_channels",
    "block_out_channels",
    "layers_per_block",
    "cross_attention_dim",
    "max_position_embeddings",
}
OPTIONAL = {"reverse_transformer_layers_per_block"}  # null stands for none
OTHER_WEIGHTS = {".safetensors", ".bin", ".ckpt", ".pt", ".pth", ".msgpack", ".h5", ".onnx"}
TEXT_PREFIX = "text_model."  # before the names of a text encoder that transformers 4 saved
# Tensors of old checkpoints, which diffusers renames as it loads them.
OLD_NAMES = {
    ".to_q.": ".query.",
    ".to_k.": ".key.",
    ".to_v.": ".value.",
    ".to_out.0.": ".proj_attn.",
}
SYSTEM_FILES = {"Thumbs.db", "desktop.ini"}  # and hidden files: no library reads them
ALPHABET = "a b c d e f g h i j k l m n o p q r s t u v w x y z"
AGAIN = "Download or save the model again."


class ModelError(CourseError):
    """A model cannot be used; the message names it and says what to do."""


def short_path(path: Path, root: Path = ROOT) -> str:
    """Return a path as the reader knows it: relative to the repository where it lies inside."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def existing_path(name: str) -> Path | None:
    """Return the file or folder called `name`, or None if there is none."""
    try:
        path = Path(name).expanduser().resolve()
        return path if path.exists() else None
    except (OSError, ValueError, RuntimeError):
        return None  # no path can be called so: too long, a null character, no such user


def file_label(path: Path, name: str) -> str:
    """Return what messages call a file of the model `name`: "unet/config.json of sd-1.5"."""
    return f"{path.parent.name}/{path.name} of {name}"


def read_json(path: Path, name: str) -> dict[str, Any]:
    """Return the JSON object in a file of the model `name`. Raises ModelError."""
    label = file_label(path, name)
    if not path.exists():
        raise ModelError(f"{name} is incomplete: {short_path(path)} is missing.")
    if not path.is_file():
        raise ModelError(f"{label} is damaged: it is not a file.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ModelError(f"{label} is damaged: it is nested too deeply.") from error
    except ValueError as error:
        raise ModelError(f"{label} is damaged: it is not JSON ({error}).") from error
    except OSError as error:
        raise ModelError(f"{label} cannot be read: {error.strerror}.") from error
    if not isinstance(content, dict):
        kind = "null" if content is None else f"a {type(content).__name__}"
        raise ModelError(f"{label} is damaged: it holds {kind} where an object {{...}} belongs.")
    return content


@contextmanager
def loading(what: str) -> Iterator[None]:
    """Turn whatever a library raises while it loads `what` into one ModelError."""
    try:
        yield
    except CourseError:
        raise
    except Exception as error:  # damaged files make the libraries raise nearly every kind
        reason = shorten(" ".join(str(error).split()) or type(error).__name__, 300)
        raise ModelError(f"{what} cannot be loaded: {reason}") from error


def load_network(kind: Any, folder: Path, what: str) -> Any:
    """Load a network of transformers in float32, from safetensors alone and with every weight.
    Raises ModelError."""
    with loading(what):
        network, report = kind.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, output_loading_info=True
        )
    if missing := sorted(report["missing_keys"]):
        place = short_path(folder)
        raise ModelError(f"{what} is incomplete: {missing[0]} is missing in {place}. {AGAIN}")
    return network


# --- The embedded weights


def verify(root: Path, part: str) -> None:
    """Check every file of `part`, a folder below `root`, against `root`/manifest.json (size and
    SHA-256).

    Raises ModelError naming the first file that is missing, differs or is not in the manifest,
    and the remedy.
    """

    def show(path: Path) -> str:
        return short_path(path, root.parent.parent)

    remedy = f"Get it back with: git checkout -- {show(root)} (or download the course again)."
    manifest = root / "manifest.json"
    if not manifest.exists():
        problem = f"{show(manifest)} is missing, so the embedded weights cannot be checked"
        raise ModelError(f"{problem}. {remedy}")
    listed = _manifest_entries(manifest, remedy)
    if not any(file.startswith(f"{part}/") for file in listed):
        problem = f"{show(manifest)} lists no file of {part}: the weights are incomplete"
        raise ModelError(f"{problem}. {remedy}")
    for path in sorted((root / part).rglob("*")):
        inside = path.relative_to(root)
        hidden = path.name in SYSTEM_FILES or any(name.startswith(".") for name in inside.parts)
        if inside.as_posix() not in listed and not hidden and not path.is_dir():
            raise ModelError(
                f"{show(path)} is not one of the embedded weights' files and might change their "
                "images. Move it to another folder; to change the model, copy the whole folder and "
                "name the copy instead of pocket."
            )
    # The part's own files, and those beside all parts, such as the vocabulary.
    for file, (size, sha256) in listed.items():
        path = root / file
        if "/" in file and not file.startswith(f"{part}/"):
            continue
        if not path.is_file():
            raise ModelError(f"{show(path)} is missing. {remedy}")
        if path.stat().st_size != size:
            sizes = f"{path.stat().st_size:,} bytes where the manifest says {size:,}"
            raise ModelError(f"{show(path)} is damaged: {sizes}. {remedy}")
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if digest != sha256:
            problem = f"{show(path)} is damaged: its SHA-256 is not the manifest's"
            raise ModelError(f"{problem}. {remedy}")


def _manifest_entries(manifest: Path, remedy: str) -> dict[str, tuple[int, str]]:
    """Return size and SHA-256 by file."""
    try:
        files = read_json(manifest, "pocket")["files"]
        return {file: (int(entry["size"]), str(entry["sha256"])) for file, entry in files.items()}
    except ModelError as error:
        raise ModelError(f"{error} {remedy}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        problem = f"{file_label(manifest, 'pocket')} is damaged: it lists no size and sha256"
        raise ModelError(f"{problem} for each file. {remedy}") from error


# --- Any other model


def check_kind(folder: Path, name: str) -> dict[str, Any]:
    """Return model_index.json. Raises ModelError for other models than Stable Diffusion 1 and 2
    and their kin: they alone have the one text encoder and the UNet that the lessons open up."""
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
    """Check a Stable Diffusion model in diffusers' layout: every part is there, every
    configuration has values that a model can have, and the weights have the shapes that it says.
    Raises ModelError."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    index = check_kind(folder, name)
    for part in PARTS:
        if not (folder / part).is_dir():
            place = short_path(folder / part)
            raise ModelError(f"{name} is incomplete: {place} is missing. {AGAIN}")
    for part, entry in (dict.fromkeys(PARTS) | index).items():
        if part in PARTS or (isinstance(entry, list) and entry[:1] != [None]):
            _check_entry(folder, part, entry, name)
    unet = check_network(folder / "unet", UNet2DConditionModel, UNET_RANGES, name)
    vae = check_network(folder / "vae", AutoencoderKL, VAE_RANGES, name)
    text = _check_text_encoder(folder / "text_encoder", name)
    label = f"unet/config.json of {name}: sample_size"
    check_integer(label, unet["sample_size"], 1, MOST_LATENTS, ModelError)
    channels = [unet["in_channels"], unet["out_channels"], vae["latent_channels"]]
    if len(set(channels)) > 1:
        raise ModelError(
            f"The parts of {name} do not fit: the UNet reads {channels[0]} channels and writes "
            f"{channels[1]}, and the autoencoder's latents have {channels[2]}."
        )
    if unet["cross_attention_dim"] != text["hidden_size"]:
        raise ModelError(
            f"The parts of {name} do not fit: the UNet reads text vectors of "
            f"{unet['cross_attention_dim']} numbers, and the text encoder writes "
            f"{text['hidden_size']}."
        )
    check_scheduler(folder / "scheduler", name)
    check_tokenizer(folder / "tokenizer", name, text["vocab_size"], text["max_position_embeddings"])


def _check_entry(folder: Path, part: str, entry: Any, name: str) -> None:
    """Check the [library, class] that model_index.json names for a part."""
    import diffusers

    if not (isinstance(entry, list) and [type(word) for word in entry] == [str, str]):
        label, shown = file_label(folder / "model_index.json", name), shorten(repr(entry), 60)
        raise ModelError(f"{label} has no [library, class] for {part}, but {shown}.")
    kind = shorten(entry[1], 60)
    if PARTS.get(part) and kind not in PARTS[part]:
        raise ModelError(f"{part} of {name} is a {kind}; the lessons need a {PARTS[part][0]}.")
    if part == "scheduler" and not hasattr(diffusers, kind):
        raise ModelError(f"{part} of {name} is a {kind}, which diffusers does not have. {AGAIN}")
    if not part.isidentifier() or not (folder / part).is_dir():
        problem = f"model_index.json names {shorten(part, 60)}, which is missing"
        raise ModelError(f"{name} is incomplete: {problem}. {AGAIN}")
    if part not in PARTS and (folder / part / "config.json").exists():  # such as a safety checker
        stem = "diffusion_pytorch_model" if entry[0] == "diffusers" else "model"
        tensor_shapes(folder / part, stem, name)


def check_network(folder: Path, kind: Any, ranges: Ranges, name: str) -> dict[str, Any]:
    """Check a network of diffusers, whose class is `kind`; return its configuration, defaults
    included. Raises ModelError."""
    config = read_json(folder / "config.json", name)
    own = config.get("_class_name", kind.__name__)
    if own != kind.__name__:
        kinds = f"a {shorten(str(own), 60)}; a {kind.__name__} is needed here"
        raise ModelError(f"{short_path(folder)} holds {kinds}.")
    _check_ranges(config, ranges, file_label(folder / "config.json", name))
    what = f"{folder.name} of {name}"
    with loading(what), torch.device("meta"):
        network = kind.from_config(config)
    _compare(network, tensor_shapes(folder, "diffusion_pytorch_model", name), what)
    return dict(network.config)


def _check_text_encoder(folder: Path, name: str) -> dict[str, Any]:
    from transformers import CLIPTextConfig, CLIPTextModel

    config = read_json(folder / "config.json", name)
    _check_ranges(config, TEXT_RANGES, file_label(folder / "config.json", name))
    with loading(f"{folder.name} of {name}"), torch.device("meta"):
        network = CLIPTextModel(CLIPTextConfig.from_dict(config))
    _compare(network, tensor_shapes(folder, "model", name), f"{folder.name} of {name}")
    return network.config.to_dict()


def check_scheduler(folder: Path, name: str) -> None:
    """Check a scheduler's configuration. Raises ModelError."""
    from diffusers import DDIMScheduler

    path = folder / "scheduler_config.json"
    config, label = read_json(path, name), file_label(path, name)
    _check_ranges(config, SCHEDULER_RANGES, label)
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
        raise ModelError(f"{label}: its betas give no noise schedule, which falls from 1 to 0.")


def check_tokenizer(folder: Path, name: str, vocabulary_size: int, text_length: int) -> None:
    """Check a CLIP tokenizer for a text encoder that knows `vocabulary_size` tokens and reads
    `text_length`. Raises ModelError."""
    from transformers import CLIPTokenizer

    files = {path.name for path in folder.iterdir() if path.is_file()}
    if "tokenizer.json" not in files and not {"vocab.json", "merges.txt"} <= files:
        raise ModelError(
            f"{name} is incomplete: {short_path(folder)} has neither tokenizer.json nor vocab.json "
            f"with merges.txt, so every word would become the same token. {AGAIN}"
        )
    with loading(f"{folder.name} of {name}"):
        tokenizer = CLIPTokenizer.from_pretrained(folder)
        ids = tokenizer(ALPHABET).input_ids
        largest = max(tokenizer.get_vocab().values())
        ends = [tokenizer.bos_token_id, tokenizer.eos_token_id]
    letters = set(ids[1:-1]) - {*ends, tokenizer.unk_token_id}
    if [ids[0], ids[-1]] != ends or len(letters) < len(ALPHABET.split()):
        problem = "it cannot tell the letters a to z apart"
        raise ModelError(f"{folder.name} of {name} is damaged: {problem}. {AGAIN}")
    if largest >= vocabulary_size:
        raise ModelError(
            f"The parts of {name} do not fit: the tokenizer has tokens up to {largest:,}, and the "
            f"text encoder knows those below {vocabulary_size:,}."
        )
    if tokenizer.model_max_length != text_length:
        raise ModelError(
            f"The parts of {name} do not fit: model_max_length of the tokenizer is "
            f"{tokenizer.model_max_length}, and the text encoder reads {text_length} tokens."
        )


def _check_ranges(config: dict[str, Any], ranges: Ranges, label: str) -> None:
    for key, (minimum, maximum) in ranges.items():
        if key in REQUIRED and key not in config:
            raise ModelError(f"{label} is incomplete: it has no {key}.")
        value = config.get(key)
        if key not in config or (value is None and key in OPTIONAL):
            continue  # the class has a default
        values = value if isinstance(value, list) else [value]
        if len(values) > MOST_BLOCKS:
            count = f"{MOST_BLOCKS} values at most, got {len(values):,}"
            raise ModelError(f"{label}: {key} must have {count}.")
        with loading(label):
            for value in _flatten(values):
                check_integer(f"{label}: {key}", value, minimum, maximum, ModelError)


def _flatten(values: list[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list):
            yield from _flatten(value)
        else:
            yield value


# --- Weights


def tensor_shapes(folder: Path, stem: str, name: str) -> dict[str, Shape]:
    """Return the shapes of a network's tensors by name, from the headers of `stem`.safetensors
    or of the files that `stem`.safetensors.index.json lists. Raises ModelError."""
    single = folder / f"{stem}.safetensors"
    index = folder / f"{stem}.safetensors.index.json"
    if single.exists() and index.exists():
        both = f"{single.name} and {index.name}"
        raise ModelError(f"{folder.name} of {name} has both {both}: remove the one not meant.")
    if index.exists():
        return _shard_shapes(index, name)
    if not single.exists():
        others = sorted(path.name for path in folder.iterdir() if path.suffix in OTHER_WEIGHTS)
        only = f", only {', '.join(others[:3])}" if others else ""
        raise ModelError(
            f"{folder.name} of {name} has no {single.name}{only}. The course reads whole models in "
            "safetensors alone: other formats, such as .bin, can run code when they are opened. "
            "Save it again with save_pretrained, without a variant."
        )
    return _header_shapes(single, name)


def _shard_shapes(index: Path, name: str) -> dict[str, Shape]:
    label = file_label(index, name)
    files = read_json(index, name).get("weight_map")
    if not isinstance(files, dict) or not all(isinstance(file, str) for file in files.values()):
        raise ModelError(f"{label} is damaged: it has no weight_map from tensors to files. {AGAIN}")
    shapes = {}
    for file in sorted(set(files.values())):
        if not re.fullmatch(r"[\w-][\w.-]*\.safetensors", file):
            rule = "it may only name safetensors files beside itself"
            raise ModelError(f"{label} names {shorten(repr(file), 80)}; {rule}.")
        shapes[file] = _header_shapes(index.parent / file, name)
    for tensor, file in files.items():
        if tensor not in shapes[file]:
            problem = f"{label} does not fit its weights: {file} has no {shorten(tensor, 80)}"
            raise ModelError(f"{problem}. {AGAIN}")
    return {tensor: shapes[file][tensor] for tensor, file in files.items()}


def _header_shapes(path: Path, name: str) -> dict[str, Shape]:
    if not path.is_file():
        raise ModelError(f"{name} is incomplete: {short_path(path)} is missing. {AGAIN}")
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            return {tensor: tuple(file.get_slice(tensor).get_shape()) for tensor in names}
    except Exception as error:
        problem = f"{file_label(path, name)} is damaged or cut short ({error})"
        raise ModelError(f"{problem}. {AGAIN}") from error


def _compare(network: torch.nn.Module, shapes: dict[str, Shape], what: str) -> None:
    """Compare a network on the meta device with the shapes of its weights. Raises ModelError if
    one is missing or differs."""
    problem = f"The weights in {what} do not fit config.json"
    given = {tensor.removeprefix(TEXT_PREFIX): shape for tensor, shape in shapes.items()}
    for tensor, weight in network.state_dict().items():
        expected, key = tuple(weight.shape), tensor.removeprefix(TEXT_PREFIX)
        for new, old in OLD_NAMES.items():
            if key not in given:
                key = key.replace(new, old)
        if key not in given:
            raise ModelError(f"{problem}: {tensor} is missing. {AGAIN}")
        if given[key] != expected:
            shapes_differ = f"{_times(given[key])} and should be {_times(expected)}"
            raise ModelError(f"{problem}: {tensor} is {shapes_differ}.")


def _times(shape: Shape) -> str:
    return " x ".join(map(str, shape)) or "one number"

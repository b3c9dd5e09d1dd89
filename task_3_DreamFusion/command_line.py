"""The command line of `python main.py`, generated from the fields in nerf/settings.py.

A mistake ends in one line, and an option that was not given stays apart from its default: a resumed
run has defaults of its own. Libraries that generate parsers have neither, and argparse needs few
lines for both.
"""

import argparse
import contextlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields
from pathlib import Path
from typing import Any, NoReturn

from task_3_DreamFusion.nerf.options import SettingError, TrainingError, build, check_unicode
from task_3_DreamFusion.nerf.settings import (
    GROUPS,
    GuidanceOptions,
    OutputOptions,
    RunOptions,
    Settings,
)

# Options of stable-dreamfusion, which many tutorials name, and what takes their place here.
STABLE_DREAMFUSION = {
    "--w --h": "the training images are square: use --size",
    "--W --H": "the frames of the clip are square: use --video_size",
    "-O2": "use --backbone vanilla",
    "--fp16 --vram_O": "use -O",
    "--cuda_ray --taichi_ray": "compiled kernels run without an option; python -m "
    "task_3_DreamFusion.kernels lists them",
    "--dmtet --tet_grid_size --init_with --lock_geo --dmtet_reso_scale": "there is no second stage "
    "that refines a mesh: --save_mesh writes the surface of the field",
    "--mcubes_resolution --decimate_target": "--save_mesh writes a mesh of at most 20,000 faces; "
    "nerf/export.py has its resolution",
    "--sd_version --hf_key --IF": "use --model",
    "--guidance": "use --model for the model, and --guidance_scale for how strongly it guides",
    "--image --image_config --zero123_config --zero123_ckpt --known_view_scale": "an object is "
    "generated from text alone: use --text",
    "--dir_text --angle_overhead --angle_front": "the view is always added to the prompt; "
    "nerf/views.py has the angles",
    "--suppress_face --perpneg --negative_w": "use --perp_neg",
    "--eval_interval --test_interval --save_guidance": "use --preview_every",
    "--albedo --albedo_iters --latent_iter_ratio": "use --albedo_iter_ratio",
    "--num_steps --upsample_steps --max_spp": "use --max_steps",
    "--warm_iters --min_lr": "the learning rate is constant: use --lr",
    "--bg_radius": "use --background",
    "--max_ray_batch": "use --rays and --batch_size",
    "--progressive_view": "use --widen",
    "--progressive_level": "use --fade_in",
    "--radius_range --theta_range --phi_range --fovy_range": "use --widen; nerf/provider.py has "
    "the ranges of the cameras",
    "--jitter_pose --uniform_sphere_rate": "use --widen",
}
ANSWERS = {name: text for names, text in STABLE_DREAMFUSION.items() for name in names.split()}


@dataclass(frozen=True)
class Request:
    """A command line whose values are allowed.

    given: the options that it names. Settings that it does not name come from a checkpoint, or from
    the defaults of the model and the device.
    """

    run: RunOptions
    output: OutputOptions
    given: Mapping[str, Any]


def parse(arguments: Sequence[str] | None = None, description: str | None = None) -> Request:
    """Return what a command line asks for. Exits with 2 for an option that does not exist.

    Raises SettingError for a value that is not allowed, and TrainingError for options that exclude
    each other.
    """
    given = vars(build_parser(description).parse_args(arguments))
    build(Settings, {"text": "any"}, given)  # checked now, before anything is loaded
    build(GuidanceOptions, given)
    exclusive = ("prompts", ("text", "resume", "ckpt", "test", "gui")), ("gui", ("test",))
    for first, others in exclusive:
        for other in others:
            if first in given and other in given:
                raise TrainingError(f"--{first} cannot be combined with --{other}")
    return Request(build(RunOptions, given), build(OutputOptions, given), given)


def build_parser(description: str | None = None) -> argparse.ArgumentParser:
    """Return the parser: an option for each setting, in groups. It returns what was given alone."""
    parser = Parser(
        prog="python main.py",
        usage="python main.py --text TEXT [options]",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    groups = {title: parser.add_argument_group(title) for title in GROUPS}
    title = GROUPS[0]
    for kind in (Settings, GuidanceOptions, RunOptions, OutputOptions):
        for item in fields(kind):
            title = item.metadata["group"] or title
            flags = (*item.metadata["flags"], f"--{item.name}")
            groups[title].add_argument(*flags, **_arguments(item))
    return parser


class Parser(argparse.ArgumentParser):
    """A parser whose errors are a single line, and which answers options of stable-dreamfusion."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        for argument in sys.argv[1:] if args is None else args:
            name = argument.split("=")[0]
            if name in ANSWERS:
                self.error(f"{name} is an option of stable-dreamfusion; here {ANSWERS[name]}")
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} (python main.py --help lists the options)\n")


def _arguments(item: Field[Any]) -> dict[str, Any]:
    """Return the arguments of `add_argument` for the option of a setting."""
    help = item.metadata["help"] + _default_text(item)
    if item.type is bool and item.default:
        return {"action": argparse.BooleanOptionalAction, "help": help}
    if item.type is bool:
        return {"action": "store_true", "help": help}
    arguments = {"help": help, "metavar": item.metadata["metavar"]}
    if item.metadata["choices"]:
        arguments["choices"] = item.metadata["choices"]
    if isinstance(item.default, tuple):
        return arguments | {"nargs": len(item.default), "type": float}
    types: dict[Any, Any] = {Path | None: resolved_path, str | None: existing_name}
    return arguments | {"type": types.get(item.type, item.type)}


def _default_text(item: Field[Any]) -> str:
    """Return the defaults of a setting for its help: "" if there is none."""
    if item.default is None or item.default is False or item.default is MISSING:
        return ""
    values = [_shown(item.default)]
    for name, where in (
        ("cpu", "on a CPU"),
        ("photos", "for photographs"),
        ("multiview", "with several views"),
    ):
        value = item.metadata[name]
        if value is not None and value != item.default:
            values.append(f"{where} {_shown(value)}")
    return f" (default: {', '.join(values)})"


def _shown(value: Any) -> str:
    if value is True:
        return "yes"
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value) or "none"


# --- Types of options


def existing_name(text: str) -> str:
    """Return the value of an option that names something. Raises ArgumentTypeError if empty."""
    try:
        check_unicode("the name", text, SettingError)
    except SettingError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if not text.strip():
        raise argparse.ArgumentTypeError("must be a name, got an empty text")
    return text


def resolved_path(text: str) -> Path:
    """Return the value of an option that names a file or a folder, without links.

    Raises ArgumentTypeError for a name that cannot be used, or that is too long for what goes into
    the folder.
    """
    try:
        path = Path(existing_name(text)).resolve()
        # These errors are reported where the path is used.
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            (path / "checkpoints" / "000000" / "partial").lstat()
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        reason = getattr(error, "strerror", None) or "its links form a circle"
        raise argparse.ArgumentTypeError(f"{text:.60} cannot be used: {reason}") from error
    return path

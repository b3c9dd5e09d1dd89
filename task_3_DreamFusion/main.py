"""Text to 3D: `python main.py --text "a hamburger"`.

A field of densities and colours is led by a text-to-image model until it looks like the text from all sides
(DreamFusion). At the end there is a clip, a mesh and a page that turns it, in the workspace. It works on a GPU, and in
some minutes on a CPU; it needs no network with the model that comes with the course. README.md in this folder explains
how it works, and what to try when it fails.
"""

import argparse
import contextlib
import dataclasses
import gc
import hashlib
import os
import re
import shutil
import string
import sys
import tempfile
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

if (
    not __package__
):  # Started as a script, from whatever folder. Its own would hide other packages: `kernels`, say.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
if __name__ == "__main__":
    gc.disable()  # until all is imported, of which nothing is garbage: to search it takes long
os.environ.setdefault(
    "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
)  # for --deterministic, read when CUDA starts

import torch

from course.arguments import check_number
from course.errors import CourseError
from course.models import Model, find_model
from task_3_DreamFusion import prompts
from task_3_DreamFusion.nerf import checkpoint, files, gui, memory, results
from task_3_DreamFusion.nerf.guidance import (
    StableDiffusion,
    check_exercise,
    check_text,
)
from task_3_DreamFusion.nerf.settings import (
    BACKBONES,
    BACKGROUNDS,
    CELLS,
    OPTIMIZERS,
    SPACES,
    WEIGHTINGS,
    GuidanceOptions,
    SettingError,
    Settings,
    TrainingError,
    check_unicode,
    check_whole_number,
)
from task_3_DreamFusion.nerf.utils import Trainer, description

OUTPUTS = Path(__file__).resolve().parent.parent / "outputs" / "task_3"
# What a CPU does in a few minutes: fewer and smaller images, and no light, which needs the field six more times.
CPU = {
    "iters": 240, "batch": 1, "size": 64, "rays": 2048, "keep": 32, "levels": 8, "steps": 96, "cells": 32, "albedo": 1.0
}  # fmt: skip
# What DreamFusion does, for models of photographs: gradients in latents, strong guidance, a world around the object.
PHOTOGRAPHS = {
    "space": "latents", "scene": "", "background": "network", "guidance_scale": 100.0, "t_end": 0.5, "band": 1.0,
    "iters": 5000, "size": 64, "levels": 12, "lr": 1e-3, "optimizer": "adan", "albedo": 0.4, "widen": 0.2,
    "entropy": 10.0, "sparsity": 10.0, "perp_neg": 0.0, "lead": 0.0,
}  # fmt: skip
ROOM = (
    300 * 2**20
)  # bytes that a workspace needs: three checkpoints, while one is written, and the results
LOCK_SECONDS = 120  # that a process of --prompts waits for a folder: as long as a network disk keeps a dead one's lock
# Whole numbers that belong to no setting: the smallest, the largest, and why nothing larger makes sense.
WHOLE_NUMBERS: dict[str, tuple[int, int, str]] = {
    "frames": (1, 10_000, "At 30 frames a second so many last for more than five minutes."),
    "video_size": (1, 5460, "Three images stand side by side, and H.264 ends at 16,384 pixels."),
    "save_every": (1, 10**9, "No run has so many steps."),
    "preview_every": (0, 10**9, "No run has so many steps."),
    "gui_port": (1, 65535, "There is no port with a larger number."),
}
# GuidanceOptions of stable-dreamfusion, which many tutorials name, and what takes their place here.
OF_STABLE_DREAMFUSION: dict[str, str] = {
    **dict.fromkeys(("--w", "--h"), "the training images are square: use --size"),
    **dict.fromkeys(("--W", "--H"), "the frames of the clip are square: use --video_size"),
    "-O2": "use --backbone vanilla",
    **dict.fromkeys(("--fp16", "--vram_O"), "use -O"),
    **dict.fromkeys(
        ("--cuda_ray", "--taichi_ray"),
        "compiled kernels run without an option; python -m task_3_DreamFusion.kernels lists them",
    ),
    **dict.fromkeys(
        ("--dmtet", "--tet_grid_size", "--init_with", "--lock_geo", "--dmtet_reso_scale"),
        "there is no second stage that refines a mesh: --save_mesh writes the surface of the field",
    ),
    **dict.fromkeys(
        ("--mcubes_resolution", "--decimate_target"),
        "--save_mesh writes a mesh of at most 20,000 faces; nerf/results.py has its resolution",
    ),
    **dict.fromkeys(("--sd_version", "--hf_key", "--IF"), "use --model"),
    "--guidance": "use --model for the model, and --guidance_scale for how strongly it guides",
    **dict.fromkeys(
        ("--image", "--image_config", "--zero123_config", "--zero123_ckpt", "--known_view_scale"),
        "an object comes from text alone: use --text",
    ),
    **dict.fromkeys(
        ("--dir_text", "--angle_overhead", "--angle_front"),
        "the view is always added to the prompt; nerf/views.py has the angles",
    ),
    **dict.fromkeys(("--suppress_face", "--perpneg", "--negative_w"), "use --perp_neg"),
    **dict.fromkeys(
        ("--eval_interval", "--test_interval", "--save_guidance"), "use --preview_every"
    ),
    **dict.fromkeys(
        ("--albedo", "--albedo_iters", "--latent_iter_ratio"), "use --albedo_iter_ratio"
    ),
    **dict.fromkeys(("--num_steps", "--upsample_steps", "--max_spp"), "use --max_steps"),
    **dict.fromkeys(("--warm_iters", "--min_lr"), "the learning rate stays as it is: use --lr"),
    "--bg_radius": "use --background",
    "--max_ray_batch": "use --rays and --batch_size",
    "--progressive_view": "use --widen",
    "--progressive_level": "use --fade_in",
    **dict.fromkeys(
        (
            "--radius_range",
            "--theta_range",
            "--phi_range",
            "--fovy_range",
            "--jitter_pose",
            "--uniform_sphere_rate",
        ),
        "use --widen; nerf/provider.py has the ranges of the cameras",
    ),
}


# --- The command line


class Parser(argparse.ArgumentParser):
    """The parser, and the option of each setting: `options["steps"]` is "--max_steps". An error is a single line."""

    options: dict[str, str]

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        for argument in sys.argv[1:] if args is None else args:
            name = argument.split("=")[0]
            if name in OF_STABLE_DREAMFUSION:
                self.error(
                    f"{name} is an option of stable-dreamfusion; here {OF_STABLE_DREAMFUSION[name]}"
                )
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} (python main.py --help lists the options)\n")


def existing_name(text: str) -> str:
    """Return the value of an option that names something. Raises ArgumentTypeError for an empty one."""
    try:
        check_unicode("the name", text, TrainingError)
    except TrainingError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if not text.strip():
        raise argparse.ArgumentTypeError("must be a name, got an empty text")
    return text


def resolved_path(text: str) -> Path:
    """Return the value of an option that names a file or a folder, without links. Raises ArgumentTypeError."""
    try:
        path = Path(existing_name(text)).resolve()
        with contextlib.suppress(
            FileNotFoundError, NotADirectoryError, PermissionError
        ):  # told where it is used
            (
                path / "checkpoints" / "000000" / "partial"
            ).lstat()  # is there room in the name for what goes in there?
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        reason = getattr(error, "strerror", None) or "its links form a circle"
        raise argparse.ArgumentTypeError(f"{text:.60} cannot be used: {reason}") from error
    return path


def parser() -> Parser:
    made = Parser(
        prog="python main.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.options = {}
    defaults = {
        f.name: f.default
        for f in (*dataclasses.fields(Settings), *dataclasses.fields(GuidanceOptions))
    }

    def setting(group: Any, flag: str, name: str, text: str, **more: Any) -> None:
        """An option of Settings or GuidanceOptions. It is None unless given: a resumed run has its own."""
        made.options[name] = flag
        if "action" not in more:
            more.setdefault("type", type(defaults[name]))
        group.add_argument(
            flag, dest=name, default=None, help=f"{text} (default: {shown(name)})", **more
        )

    def shown(name: str) -> str:
        value = defaults[name]
        said = [written(value)]
        for who, preset in (("on a CPU", CPU), ("for photographs", PHOTOGRAPHS)):
            if name in preset and preset[name] != value:
                said.append(f"{who} {written(preset[name])}")
        return ", ".join(said)

    def written(value: Any) -> str:
        return (
            " ".join(map(str, value))
            if isinstance(value, tuple)
            else f"{value}"
            if value != ""
            else "nothing"
        )

    what = made.add_argument_group("what to make")
    what.add_argument(
        "--text", help="what it shall be, such as 'a hamburger'; a run that goes on knows it"
    )
    setting(what, "--negative", "negative", "what it shall not be")
    what.add_argument("--prompts", type=resolved_path, metavar="FILE",
                      help="make many instead: one text a line, each in a folder of its own, by as many processes as "
                      "are started with the same file; finished ones are skipped")  # fmt: skip
    what.add_argument("--model", type=existing_name,
                      help="pocket, sd-2.1-base, a Hub id or a folder (default: COURSE_MODEL, or pocket)")  # fmt: skip
    setting(what, "--scene", "scene", "words that are put after the text, to say where it is")
    setting(what, "--seed", "seed", "of everything that is drawn")

    run = made.add_argument_group("the run")
    run.add_argument("--workspace", type=resolved_path, metavar="FOLDER",
                     help="for what comes out (default: outputs/task_3/TEXT); with --prompts the folder of all of "
                     "them (default: outputs/task_3)")  # fmt: skip
    setting(run, "--iters", "iters", "steps")
    setting(run, "--space", "space", "where the guidance says what is wrong", choices=SPACES)
    setting(run, "--reuse", "reuse", "in pixels: how often the field learns in a step")
    setting(run, "--rays", "rays", "in pixels: from how many rays it learns each time")
    setting(run, "--keep", "keep", "in pixels: targets that are kept to learn from")
    setting(run, "--lr", "lr", "learning rate of the perceptrons; the grid's is ten times that")
    setting(run, "--optim", "optimizer", "optimizer", choices=OPTIMIZERS)
    setting(
        run,
        "--ema",
        "ema",
        "how much of the averaged field, which is shown, stays each time that it learns",
    )
    setting(run, "--batch_size", "batch", "views a step")
    setting(run, "--size", "size", "pixels of a training picture's side")
    run.add_argument(
        "-O", "--half", action="store_true", default=None, help="half precision, on a GPU"
    )
    run.add_argument("--compile", action="store_true",
                     help="compile the denoiser, on a GPU: a minute before the first step, for shorter ones; worth it "
                     "for a large model and many steps")  # fmt: skip
    run.add_argument(
        "--deterministic",
        action="store_true",
        help="the same result bit for bit in every run on one machine; the CPU works on one thread then, and is slower",
    )
    run.add_argument("--save_every", type=int, default=200, metavar="STEPS",
                     help="steps between checkpoints: what a crash can cost (default: 200)")  # fmt: skip
    run.add_argument("--preview_every", type=int, default=200, metavar="STEPS",
                     help="steps between preview pictures; 0: none (default: 200)")  # fmt: skip
    run.add_argument("--resume", action="store_true",
                     help="go on from the workspace's last checkpoint, with its settings unless others are "
                     "given")  # fmt: skip
    run.add_argument("--ckpt", type=resolved_path, metavar="FOLDER",
                     help="go on from this checkpoint, such as WORKSPACE/checkpoints/000400")  # fmt: skip
    run.add_argument(
        "--test",
        action="store_true",
        help="do not train: make clip and mesh of the last checkpoint",
    )
    run.add_argument("--gui", action="store_true", help="show the training in the browser")
    run.add_argument(
        "--gui_port", type=int, default=8080, metavar="PORT", help="of that page (default: 8080)"
    )

    field = made.add_argument_group("the field")
    setting(
        field,
        "--backbone",
        "backbone",
        "a hash grid or the plain network of NeRF",
        choices=BACKBONES,
    )
    setting(
        field,
        "--levels",
        "levels",
        "of the encoding, from coarse to fine; those of a grid grow by 1.46",
    )
    setting(field, "--bound", "bound", "half the side of the box")
    setting(field, "--max_steps", "steps", "samples along the box's diagonal")
    setting(
        field, "--grid_size", "cells", "cells along a side of the occupancy grid", choices=CELLS
    )
    setting(field, "--background", "background", "behind the field: a plain wall, a network, or random colours",
            choices=BACKGROUNDS)  # fmt: skip

    guide = made.add_argument_group("the guidance")
    setting(
        guide,
        "--guidance_scale",
        "guidance_scale",
        "of classifier-free guidance: how hard the text pulls",
    )
    setting(
        guide,
        "--weighting",
        "weighting",
        "in latents: w(t), the weight of a noise level",
        choices=tuple(WEIGHTINGS),
    )
    setting(guide, "--perp_neg", "perp_neg",
            "how strongly other views are pushed away, ever less as it goes on (Perp-Neg); 0: not at all")  # fmt: skip

    anneal = made.add_argument_group("what changes during a run; shares are of the run, in [0, 1]")
    setting(anneal, "--t_range", "t_range", "lowest and highest noise level, as shares of all", type=float, nargs=2,
            metavar=("LOW", "HIGH"))  # fmt: skip
    setting(anneal, "--t_end", "t_end", "where the highest noise level has gone by the end")
    setting(
        anneal, "--band", "band", "how far below the highest a noise level may lie; 1: any below it"
    )
    setting(
        anneal,
        "--lead",
        "lead",
        "share of the run by which views of the front are ahead of the others on this way",
    )
    setting(
        anneal,
        "--fade_in",
        "fade_in",
        "share after which all levels of the encoding count; 0: from the start",
    )
    setting(
        anneal,
        "--widen",
        "widen",
        "share after which views come from everywhere; 0: from the start",
    )
    setting(anneal, "--albedo_iter_ratio", "albedo", "share without light, at the beginning")
    setting(anneal, "--shaded_ratio", "shaded", "of the later steps, the share that is lit")
    setting(
        anneal, "--textureless_ratio", "textureless", "of the lit steps, the share without colour"
    )

    terms = made.add_argument_group("the regularisers, each with its weight; 0 leaves it out")
    setting(terms, "--lambda_entropy", "entropy", "rays see all or nothing")
    setting(terms, "--lambda_opacity", "sparsity", "and rather nothing")
    setting(
        terms, "--lambda_orient", "orientation", "nothing seen looks away, where there is light"
    )
    setting(terms, "--lambda_tv", "variation", "neighbours in the grid are alike")
    setting(
        terms,
        "--lambda_smooth",
        "smoothness",
        "normals are like those nearby, where there is light",
    )

    out = made.add_argument_group("what comes out")
    out.add_argument(
        "--frames", type=int, default=90, help="of the clip, once around (default: 90)"
    )
    out.add_argument(
        "--video_size",
        type=int,
        default=256,
        metavar="PIXELS",
        help="of a frame's side (default: 256)",
    )
    out.add_argument("--elevation", type=float, default=15.0, metavar="DEGREES",
                     help="of the clip's camera (default: 15)")  # fmt: skip
    out.add_argument("--save_mesh", action=argparse.BooleanOptionalAction, default=True,
                     help="a textured mesh as GLB and OBJ, and a page that turns it (default: yes)")  # fmt: skip
    return made


def check(args: argparse.Namespace) -> None:
    """Raise TrainingError for options that cannot be, or not together, before anything is loaded or written."""
    for name, limits in WHOLE_NUMBERS.items():
        check_whole_number(f"--{name}", getattr(args, name), limits, TrainingError)
    check_number("--elevation", args.elevation, -90, 90, TrainingError)
    for first, others in (
        ("prompts", ("text", "resume", "ckpt", "test", "gui")),
        ("gui", ("test",)),
    ):
        for other in others if getattr(args, first) else ():
            if getattr(args, other) not in (None, False):
                raise TrainingError(f"--{first} does not go with --{other}")
    if args.text is not None:
        check_unicode("--text", args.text, TrainingError)
        check_text(args.text)
    settings_of(args, {}, args.text or "any")
    options_of(args, {})


def preset_of(model: Model) -> dict[str, Any]:
    """What a model and its device have instead of the defaults. A model that publishes its words knows the scenes of
    the course; another one has learnt from photographs."""
    return (PHOTOGRAPHS if model.vocabulary is None else {}) | (
        CPU if model.device.type == "cpu" else {}
    )


def settings_of(
    args: argparse.Namespace,
    preset: dict[str, Any],
    text: str,
    before: dict[str, Any] | None = None,
) -> Settings:
    """The run's settings: those given, then those it had `before`, then those of a preset, then the defaults. Raises
    TrainingError that names the option."""
    names = {field.name for field in dataclasses.fields(Settings)}
    kept = {name: value for name, value in {**preset, **(before or {})}.items() if name in names}
    given = {name: value for name in names if (value := getattr(args, name, None)) is not None}
    try:
        return Settings(**{**kept, **given, "text": text})
    except SettingError as error:
        raise name_option(error) from error


def name_option(error: CourseError) -> TrainingError:
    """Return an error about a setting, whose message starts with its name, as one about its option."""
    name, message = str(error).split(" ", 1)
    return TrainingError(f"{parser().options.get(name, f'--{name}')} {message}")


def options_of(
    args: argparse.Namespace, preset: dict[str, Any], before: dict[str, Any] | None = None
) -> GuidanceOptions:
    """As `settings_of`, of the guidance."""
    names = {field.name for field in dataclasses.fields(GuidanceOptions)}
    kept = {name: value for name, value in {**preset, **(before or {})}.items() if name in names}
    given = {name: value for name in names if (value := getattr(args, name, None)) is not None}
    try:
        return GuidanceOptions(**{**kept, **given})
    except SettingError as error:
        raise name_option(error) from error


def slug(text: str) -> str:
    """Return a text as the name of a folder: letters, digits and _.

    Where something other than spaces and ASCII punctuation had to be left out, such as an emoji or the end of a long
    text, a few digits of a checksum tell such texts apart.
    """
    composed = unicodedata.normalize("NFC", text.lower())
    name = re.sub(r"[^\w]+", "_", composed).strip("_")
    is_whole = set(re.sub(r"[\w\s]", "", composed)) <= set(string.punctuation)
    if name and is_whole and len(name) <= 60:
        return name
    return f"{name[:51] or 'untitled'}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"


# --- One run


@dataclasses.dataclass(frozen=True)
class Job:
    """A run: its text and folder, the checkpoint it begins at, and what that says of its settings."""

    text: str
    workspace: Path
    begin_at: Path | None = None
    before: dict[str, Any] = dataclasses.field(default_factory=dict)


def find_job(args: argparse.Namespace) -> Job:
    """What the command line asks for. Raises TrainingError if that is not clear, if there is no checkpoint to begin at,
    or if the run would write over another one."""
    goes_on = args.resume or args.test
    begin_at: Path | None = args.ckpt
    workspace: Path | None = args.workspace
    if workspace is None and args.text is not None:
        workspace = OUTPUTS / slug(args.text)
    if goes_on and not begin_at and workspace:
        begin_at = checkpoint.latest(workspace / "checkpoints")
        if begin_at is None:
            raise TrainingError(
                f"there is no checkpoint in {workspace / 'checkpoints'}: train first"
            )
    if begin_at:
        before = told(begin_at)
        text = before["settings"]["text"] if args.text is None else args.text
        if goes_on and not args.ckpt and text != before["settings"]["text"]:
            raise TrainingError(
                f"{begin_at} was made for {before['settings']['text']!r}, not for {text!r}: leave --text out, or name "
                "another --workspace"
            )
        job = Job(text, workspace or OUTPUTS / slug(text), begin_at, before)
    elif args.text is not None and workspace:
        job = Job(args.text, workspace)
    else:
        raise TrainingError("say what to make, such as --text 'a hamburger'")
    if not args.test:
        keep_other_runs(job)
    return job


def keep_other_runs(job: Job) -> None:
    """Raise TrainingError if a job would write over a run that it does not go on with."""
    last = checkpoint.latest(job.workspace / "checkpoints")
    if last is not None and (job.begin_at is None or last.resolve() != job.begin_at.resolve()):
        raise TrainingError(
            f"{job.workspace} holds a run that came to step {int(last.name)}: go on with --resume, or name another "
            "--workspace"
        )


def told(begin_at: Path) -> dict[str, Any]:
    """What a checkpoint tells of its run. Raises CheckpointError if it is none of this program."""
    _, state = checkpoint.load(begin_at)
    return description(begin_at, state)


def prepare(workspace: Path) -> None:
    """Makes the folder and tries it. Raises TrainingError if nothing can be written there, or too little."""
    with writing(workspace):
        workspace.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=workspace) as probe:
            probe.write(b"0")
        free = shutil.disk_usage(workspace).free
    if free < ROOM:
        raise TrainingError(
            f"--workspace {workspace} is full: {free / 2**20:.0f} MiB are left, and a run needs {ROOM / 2**20:.0f}"
        )


@contextlib.contextmanager
def writing(workspace: Path) -> Iterator[None]:
    """Tells of errors of the disk in one line."""
    try:
        yield
    except OSError as error:
        raise TrainingError(
            f"--workspace {workspace} cannot be written: {error.strerror or error}"
        ) from error


def load_guidance(
    args: argparse.Namespace, model: Model, before: dict[str, Any]
) -> tuple[StableDiffusion, bool]:
    """The model that guides, and whether in half precision. Raises CheckFailed where the exercise is not done."""
    half = bool(before.get("half")) if args.half is None else args.half
    if half and model.device.type != "cuda":
        print("-O changes nothing without a GPU", flush=True)
    with memory.reported("loading the model", "name a smaller --model, or end other programs"):
        guidance = StableDiffusion(
            model, options_of(args, preset_of(model), before.get("guidance")), args.compile
        )
        check_exercise(guidance)
    return guidance, half


def make(
    args: argparse.Namespace,
    job: Job,
    guidance: StableDiffusion,
    half: bool,
    after_step: Callable[[Trainer, dict[str, float]], None] | None = None,
) -> bool:
    """Trains, unless --test, and writes what comes out; returns whether the run came to its end. The caller holds the
    workspace's lock."""
    files.remove_leftovers(job.workspace)
    settings = settings_of(args, preset_of(guidance.model), job.text, job.before.get("settings"))
    trainer = Trainer(settings, guidance, job.workspace, half=half)
    if job.begin_at:
        trainer.resume(job.begin_at)
        print(f"goes on from step {trainer.step}", flush=True)
    with writing(job.workspace):
        each = (lambda terms: after_step(trainer, terms)) if after_step else None
        finished = args.test or trainer.train(args.save_every, args.preview_every, each)
        results.remove_stale_mesh(job.workspace)
        with memory.reported("making the clip", "lower --video_size or --frames"):
            made = [results.save_video(trainer, args.frames, args.video_size, args.elevation)]
        if args.save_mesh:
            from task_3_DreamFusion.nerf.mesh import MeshError  # slow to import

            try:
                with memory.reported("making the mesh", "take --no-save_mesh"):
                    made += results.save_mesh(trainer)
            except MeshError as error:
                print(f"no mesh: {error}", file=sys.stderr)
    print("\n".join(str(path) for path in made), flush=True)
    if not finished:
        print(f"stopped at step {trainer.step} of {settings.iters}: --resume goes on", flush=True)
    return finished


def run(args: argparse.Namespace) -> int:
    """One text; returns the exit status."""
    job = find_job(args)
    prepare(job.workspace)
    with files.lock(job.workspace), contextlib.ExitStack() as stack:
        if not args.test:
            keep_other_runs(job)  # another process may have trained here since
        model = find_model(args.model or job.before.get("model"))
        settings = settings_of(args, preset_of(model), job.text, job.before.get("settings"))
        memory.check(settings, args.frames, args.video_size, model.device)
        view = stack.enter_context(gui.LiveView(args.gui_port, job.text)) if args.gui else None
        guidance, half = load_guidance(args, model, job.before)
        guidance.view_prompts(settings.prompt, settings.negative)
        guidance.unload_text_encoder()
        finished = make(args, job, guidance, half, view.after_step if view else None)
        with writing(job.workspace):
            print(results.save_index(job.workspace if args.workspace else OUTPUTS))
    return 0 if finished else 130  # as a program that Ctrl-C has stopped


# --- Many runs


def run_many(args: argparse.Namespace) -> int:
    """The prompts of a file, beside other processes that do the same; returns the exit status."""
    base: Path = args.workspace or OUTPUTS
    jobs = prompts.read(args.prompts, lambda text: base / slug(text))
    prepare(base)
    if (
        torch.cuda.is_available()
    ):  # as `accelerate launch` and torchrun number the processes of a machine
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
    model = find_model(args.model)
    all_settings = [settings_of(args, preset_of(model), text) for text in jobs]
    memory.check(all_settings[0], args.frames, args.video_size, model.device)
    guidance, half = load_guidance(args, model, {})
    for settings in all_settings:
        guidance.view_prompts(settings.prompt, settings.negative)
    guidance.unload_text_encoder()

    def work(text: str, folder: Path, claim: prompts.Claim) -> bool:
        with files.lock(folder, seconds=LOCK_SECONDS):
            begin_at = checkpoint.latest(folder / "checkpoints")
            before = told(begin_at) if begin_at else {}
            if before and before["settings"]["text"] != text:
                raise TrainingError(
                    f"{folder} holds a run for {before['settings']['text']!r}: name another --workspace"
                )
            print(f"{text}: {folder}", flush=True)
            return make(
                args, Job(text, folder, begin_at, before), guidance, half, lambda *_: claim.check()
            )

    with writing(base):
        outcome = prompts.share(jobs, work)
        index = results.save_index(base)
    print(
        f"{len(outcome.made)} made, {len(outcome.skipped)} were finished, {len(outcome.failed)} failed: {index}"
    )
    for text, reason in outcome.failed.items():
        print(f"error: {text}: {reason}", file=sys.stderr)
    return 130 if outcome.interrupted else 1 if outcome.failed else 0


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    args = parser().parse_args(arguments)
    try:
        check(args)
        if args.deterministic:
            torch.use_deterministic_algorithms(True)
            torch.set_num_threads(1)  # PyTorch's sums on a CPU depend on their number
        with memory.reported(
            "working", "lower --batch_size, --size or --max_steps, or take -O on a GPU"
        ):
            return run_many(args) if args.prompts else run(args)
    except CourseError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "stopped: --resume goes on from the last checkpoint, if there is one", file=sys.stderr
        )
        return 130


if __name__ == "__main__":
    gc.freeze()  # what is loaded stays: later searches leave it out, the one at the end too
    gc.enable()
    sys.exit(main())

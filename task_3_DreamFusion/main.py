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
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

if not __package__:  # Started as a script, from whatever folder. Its own would hide other packages: `kernels`, say.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
if __name__ == "__main__":
    gc.disable()  # until all is imported, of which nothing is garbage: to search it takes long
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # for --deterministic, read when CUDA starts

import torch

from course.errors import CourseError
from course.models import Model, find_model
from task_3_DreamFusion import prompts
from task_3_DreamFusion.nerf import checkpoint, gui, results
from task_3_DreamFusion.nerf.sd import WEIGHTINGS, Options, StableDiffusion, check_exercise, check_text
from task_3_DreamFusion.nerf.utils import (
    BACKBONES,
    BACKGROUNDS,
    CELLS,
    OPTIMIZERS,
    SPACES,
    SettingError,
    Settings,
    Trainer,
    TrainingError,
)

OUTPUTS = Path(__file__).resolve().parent.parent / "outputs" / "task_3"
# What a CPU does in a few minutes: fewer and smaller pictures, and no light, which needs the field six more times.
CPU = {
    "iters": 240, "batch": 1, "size": 64, "rays": 2048, "keep": 32, "levels": 8, "steps": 96, "cells": 32, "albedo": 1.0
}  # fmt: skip
# What DreamFusion does, for models of photographs: gradients in latents, strong guidance, a world around the object.
PHOTOGRAPHS = {
    "space": "latents", "scene": "", "background": "network", "guidance_scale": 100.0, "t_end": 0.5, "band": 1.0,
    "iters": 5000, "size": 64, "levels": 12, "lr": 1e-3, "optimizer": "adan", "albedo": 0.4, "widen": 0.2,
    "entropy": 10.0, "sparsity": 10.0, "perp_neg": 0.0, "lead": 0.0,
}  # fmt: skip
ROOM = 300 * 2**20  # bytes that a workspace needs: three checkpoints, while one is written, and the results


# --- The command line


class Parser(argparse.ArgumentParser):
    """The parser, and the option of each setting: `options["steps"]` is "--max_steps"."""

    options: dict[str, str]


def parser() -> Parser:
    made = Parser(prog="python main.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.options = {}
    defaults = {f.name: f.default for f in (*dataclasses.fields(Settings), *dataclasses.fields(Options))}

    def setting(group: Any, flag: str, name: str, text: str, **more: Any) -> None:
        """An option of Settings or Options. It is None unless given: a resumed run has its own."""
        made.options[name] = flag
        if "action" not in more:
            more.setdefault("type", type(defaults[name]))
        group.add_argument(flag, dest=name, default=None, help=f"{text} (default: {shown(name)})", **more)

    def shown(name: str) -> str:
        value = defaults[name]
        said = [written(value)]
        for who, preset in (("on a CPU", CPU), ("for photographs", PHOTOGRAPHS)):
            if name in preset and preset[name] != value:
                said.append(f"{who} {written(preset[name])}")
        return ", ".join(said)

    def written(value: Any) -> str:
        return " ".join(map(str, value)) if isinstance(value, tuple) else f"{value}" if value != "" else "nothing"

    what = made.add_argument_group("what to make")
    what.add_argument("--text", help="what it shall be, such as 'a hamburger'; a run that goes on knows it")
    setting(what, "--negative", "negative", "what it shall not be")
    what.add_argument("--prompts", type=Path, metavar="FILE",
                      help="make many instead: one text a line, each in a folder of its own, by as many processes as "
                      "are started with the same file; finished ones are skipped")  # fmt: skip
    what.add_argument("--model", help="pocket, sd-2.1-base, a Hub id or a folder (default: COURSE_MODEL, or pocket)")
    setting(what, "--scene", "scene", "words that are put after the text, to say where it is")
    setting(what, "--seed", "seed", "of everything that is drawn")

    run = made.add_argument_group("the run")
    run.add_argument("--workspace", type=Path, metavar="FOLDER",
                     help="for what comes out (default: outputs/task_3/TEXT); with --prompts the folder of all of "
                     "them (default: outputs/task_3)")  # fmt: skip
    setting(run, "--iters", "iters", "steps")
    setting(run, "--space", "space", "where the guidance says what is wrong", choices=SPACES)
    setting(run, "--reuse", "reuse", "in pixels: how often the field learns in a step")
    setting(run, "--rays", "rays", "in pixels: from how many rays it learns each time")
    setting(run, "--keep", "keep", "in pixels: targets that are kept to learn from")
    setting(run, "--lr", "lr", "learning rate of the perceptrons; the grid's is ten times that")
    setting(run, "--optim", "optimizer", "optimizer", choices=OPTIMIZERS)
    setting(run, "--ema", "ema", "how much of the averaged field, which is shown, stays each time that it learns")
    setting(run, "--batch_size", "batch", "views a step")
    setting(run, "--size", "size", "pixels of a training picture's side")
    run.add_argument("-O", "--half", action="store_true", default=None, help="half precision, on a GPU")
    run.add_argument("--compile", action="store_true",
                     help="compile the denoiser, on a GPU: a minute before the first step, for shorter ones; worth it "
                     "for a large model and many steps")  # fmt: skip
    run.add_argument("--deterministic", action="store_true", help="the same result bit for bit in every run")
    run.add_argument("--save_every", type=int, default=200, metavar="STEPS",
                     help="steps between checkpoints: what a crash can cost (default: 200)")  # fmt: skip
    run.add_argument("--preview_every", type=int, default=200, metavar="STEPS",
                     help="steps between preview pictures; 0: none (default: 200)")  # fmt: skip
    run.add_argument("--resume", action="store_true",
                     help="go on from the workspace's last checkpoint, with its settings unless others are "
                     "given")  # fmt: skip
    run.add_argument("--ckpt", type=Path, metavar="FOLDER",
                     help="go on from this checkpoint, such as WORKSPACE/checkpoints/000400")  # fmt: skip
    run.add_argument("--test", action="store_true", help="do not train: make clip and mesh of the last checkpoint")
    run.add_argument("--gui", action="store_true", help="show the training in the browser")
    run.add_argument("--gui_port", type=int, default=8080, metavar="PORT", help="of that page (default: 8080)")

    field = made.add_argument_group("the field")
    setting(field, "--backbone", "backbone", "a hash grid or the plain network of NeRF", choices=BACKBONES)
    setting(field, "--levels", "levels", "of the encoding, from coarse to fine; those of a grid grow by 1.46")
    setting(field, "--bound", "bound", "half the side of the box")
    setting(field, "--max_steps", "steps", "samples along the box's diagonal")
    setting(field, "--grid_size", "cells", "cells along a side of the occupancy grid", choices=CELLS)
    setting(field, "--background", "background", "behind the field: a plain wall, a network, or random colours",
            choices=BACKGROUNDS)  # fmt: skip

    guide = made.add_argument_group("the guidance")
    setting(guide, "--guidance_scale", "guidance_scale", "of classifier-free guidance: how hard the text pulls")
    setting(
        guide, "--weighting", "weighting", "in latents: w(t), the weight of a noise level", choices=tuple(WEIGHTINGS)
    )
    setting(guide, "--perp_neg", "perp_neg",
            "how strongly other views are pushed away, ever less as it goes on (Perp-Neg); 0: not at all")  # fmt: skip

    anneal = made.add_argument_group("what changes during a run; shares are of the run, in [0, 1]")
    setting(anneal, "--t_range", "t_range", "lowest and highest noise level, as shares of all", type=float, nargs=2,
            metavar=("LOW", "HIGH"))  # fmt: skip
    setting(anneal, "--t_end", "t_end", "where the highest noise level has gone by the end")
    setting(anneal, "--band", "band", "how far below the highest a noise level may lie; 1: any below it")
    setting(
        anneal, "--lead", "lead", "share of the run by which views of the front are ahead of the others on this way"
    )
    setting(anneal, "--fade_in", "fade_in", "share after which all levels of the encoding count; 0: from the start")
    setting(anneal, "--widen", "widen", "share after which views come from everywhere; 0: from the start")
    setting(anneal, "--albedo_iter_ratio", "albedo", "share without light, at the beginning")
    setting(anneal, "--shaded_ratio", "shaded", "of the later steps, the share that is lit")
    setting(anneal, "--textureless_ratio", "textureless", "of the lit steps, the share without colour")

    terms = made.add_argument_group("the regularisers, each with its weight; 0 leaves it out")
    setting(terms, "--lambda_entropy", "entropy", "rays see all or nothing")
    setting(terms, "--lambda_opacity", "sparsity", "and rather nothing")
    setting(terms, "--lambda_orient", "orientation", "nothing seen looks away, where there is light")
    setting(terms, "--lambda_tv", "variation", "neighbours in the grid are alike")
    setting(terms, "--lambda_smooth", "smoothness", "normals are like those nearby, where there is light")

    out = made.add_argument_group("what comes out")
    out.add_argument("--frames", type=int, default=90, help="of the clip, once around (default: 90)")
    out.add_argument("--video_size", type=int, default=256, metavar="PIXELS", help="of a frame's side (default: 256)")
    out.add_argument("--elevation", type=float, default=15.0, metavar="DEGREES",
                     help="of the clip's camera (default: 15)")  # fmt: skip
    out.add_argument("--save_mesh", action=argparse.BooleanOptionalAction, default=True,
                     help="a textured mesh as GLB and OBJ, and a page that turns it (default: yes)")  # fmt: skip
    return made


def check(args: argparse.Namespace) -> None:
    """Raises TrainingError for options that cannot be, or not together, before anything is loaded or written."""
    for name, least in (("frames", 1), ("video_size", 1), ("save_every", 1), ("preview_every", 0)):
        if getattr(args, name) < least:
            raise TrainingError(f"--{name} is at least {least}, not {getattr(args, name)}")
    if not -90 <= args.elevation <= 90:
        raise TrainingError(f"--elevation is in [-90, 90] degrees, not {args.elevation:g}")
    if not 1 <= args.gui_port <= 65535:
        raise TrainingError(f"--gui_port is from 1 to 65535, not {args.gui_port}")
    for first, others in (("prompts", ("text", "resume", "ckpt", "test", "gui")), ("gui", ("test",))):
        for other in others if getattr(args, first) else ():
            if getattr(args, other) not in (None, False):
                raise TrainingError(f"--{first} does not go with --{other}")
    if args.text is not None:
        check_text(args.text)
    settings_of(args, {}, args.text or "any")
    options_of(args, {})


def preset_of(model: Model) -> dict[str, Any]:
    """What a model and its device have instead of the defaults. A model that publishes its words knows the scenes of
    the course; another one has learnt from photographs."""
    return (PHOTOGRAPHS if model.vocabulary is None else {}) | (CPU if model.device.type == "cpu" else {})


def settings_of(
    args: argparse.Namespace, preset: dict[str, Any], text: str, before: dict[str, Any] | None = None
) -> Settings:
    """The run's settings: those given, then those it had `before`, then those of a preset, then the defaults. Raises
    TrainingError that names the option."""
    names = {field.name for field in dataclasses.fields(Settings)}
    kept = {name: value for name, value in {**preset, **(before or {})}.items() if name in names}
    given = {name: value for name in names if (value := getattr(args, name, None)) is not None}
    try:
        return Settings(**{**kept, **given, "text": text})
    except SettingError as error:
        raise TrainingError(f"{parser().options[error.setting]} {error.said}") from error


def options_of(args: argparse.Namespace, preset: dict[str, Any], before: dict[str, Any] | None = None) -> Options:
    """As `settings_of`, of the guidance. Raises GuidanceError."""
    names = {field.name for field in dataclasses.fields(Options)}
    kept = {name: value for name, value in {**preset, **(before or {})}.items() if name in names}
    given = {name: value for name in names if (value := getattr(args, name, None)) is not None}
    both = {**kept, **given}
    if "t_range" in both:
        both["t_range"] = tuple(both["t_range"])
    return Options(**both)


def slug(text: str) -> str:
    """A text as the name of a folder: letters, digits and _; where it had to be cut, told apart by a few digits."""
    name = re.sub(r"[^\w]+", "_", text.lower()).strip("_") or "untitled"
    return name if len(name) <= 60 else f"{name[:51]}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"


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
    begin_at: Path | None = args.ckpt and args.ckpt.resolve()
    workspace: Path | None = args.workspace
    if workspace is None and args.text is not None:
        workspace = OUTPUTS / slug(args.text)
    if goes_on and not begin_at and workspace:
        begin_at = checkpoint.latest(workspace.resolve() / "checkpoints")
        if begin_at is None:
            raise TrainingError(f"there is no checkpoint in {workspace / 'checkpoints'}: train first")
    if begin_at:
        before = told(begin_at)
        text = before["settings"]["text"] if args.text is None else args.text
        if goes_on and not args.ckpt and text != before["settings"]["text"]:
            raise TrainingError(
                f"{begin_at} was made for {before['settings']['text']!r}, not for {text!r}: leave --text out, or name "
                "another --workspace"
            )
        job = Job(text, (workspace or OUTPUTS / slug(text)).resolve(), begin_at, before)
    elif args.text is not None and workspace:
        job = Job(args.text, workspace.resolve())
    else:
        raise TrainingError("say what to make, such as --text 'a hamburger'")
    last = checkpoint.latest(job.workspace / "checkpoints")
    if last is not None and not args.test and last.resolve() != begin_at:
        raise TrainingError(
            f"{job.workspace} holds a run that came to step {int(last.name)}: go on with --resume, or name another "
            "--workspace"
        )
    return job


def told(begin_at: Path) -> dict[str, Any]:
    """What a checkpoint tells of its run. Raises CheckpointError if it is none of this program."""
    _, state = checkpoint.load(begin_at)
    if not isinstance(state.get("settings"), dict) or "text" not in state["settings"]:
        raise checkpoint.CheckpointError(f"{begin_at} holds something else than a run of Task 3")
    return {name: state.get(name) for name in ("settings", "guidance", "model", "half")}


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
        raise TrainingError(f"--workspace {workspace} cannot be written: {error.strerror or error}") from error


def load_guidance(args: argparse.Namespace, before: dict[str, Any]) -> tuple[StableDiffusion, bool]:
    """The model that guides, and whether in half precision. Raises CheckFailed where the exercise is not done."""
    model = find_model(args.model or before.get("model"))
    half = bool(before.get("half")) if args.half is None else args.half
    if half and model.device.type != "cuda":
        print("-O changes nothing without a GPU", flush=True)
    guidance = StableDiffusion(model, options_of(args, preset_of(model), before.get("guidance")), args.compile)
    check_exercise(guidance)
    return guidance, half


def make(
    args: argparse.Namespace,
    job: Job,
    guidance: StableDiffusion,
    half: bool,
    after_step: Callable[[Trainer, dict[str, float]], None] | None = None,
) -> bool:
    """Trains, unless --test, and writes what comes out; returns whether the run came to its end."""
    settings = settings_of(args, preset_of(guidance.model), job.text, job.before.get("settings"))
    trainer = Trainer(settings, guidance, job.workspace, half=half)
    if job.begin_at:
        trainer.resume(job.begin_at)
        print(f"goes on from step {trainer.step}", flush=True)
    with writing(job.workspace):
        each = (lambda terms: after_step(trainer, terms)) if after_step else None
        finished = args.test or trainer.train(args.save_every, args.preview_every, each)
        made = [results.save_video(trainer, args.frames, args.video_size, args.elevation)]
        if args.save_mesh:
            from task_3_DreamFusion.nerf.mesh import MeshError  # slow to import

            try:
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
    with contextlib.ExitStack() as stack:
        view = stack.enter_context(gui.LiveView(args.gui_port, job.text)) if args.gui else None
        guidance, half = load_guidance(args, job.before)
        settings = settings_of(args, preset_of(guidance.model), job.text, job.before.get("settings"))
        guidance.view_prompts(settings.prompt, settings.negative)
        guidance.forget_text_encoder()
        finished = make(args, job, guidance, half, view.after_step if view else None)
    with writing(job.workspace):
        print(results.save_index(job.workspace if args.workspace else OUTPUTS))
    return 0 if finished else 130  # as a program that Ctrl-C has stopped


# --- Many runs


def run_many(args: argparse.Namespace) -> int:
    """The prompts of a file, beside other processes that do the same; returns the exit status."""
    base = (args.workspace or OUTPUTS).resolve()
    jobs = prompts.read(args.prompts, lambda text: base / slug(text))
    prepare(base)
    if torch.cuda.is_available():  # as `accelerate launch` and torchrun number the processes of a machine
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
    guidance, half = load_guidance(args, {})
    for text in jobs:
        settings = settings_of(args, preset_of(guidance.model), text)
        guidance.view_prompts(settings.prompt, settings.negative)
    guidance.forget_text_encoder()

    def work(text: str, folder: Path, claim: prompts.Claim) -> bool:
        begin_at = checkpoint.latest(folder / "checkpoints")
        before = told(begin_at) if begin_at else {}
        if before and before["settings"]["text"] != text:
            raise TrainingError(f"{folder} holds a run for {before['settings']['text']!r}: name another --workspace")
        print(f"{text}: {folder}", flush=True)
        return make(args, Job(text, folder, begin_at, before), guidance, half, lambda *_: claim.check())

    with writing(base):
        outcome = prompts.share(jobs, work)
        index = results.save_index(base)
    print(f"{len(outcome.made)} made, {len(outcome.skipped)} were finished, {len(outcome.failed)} failed: {index}")
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
        return run_many(args) if args.prompts else run(args)
    except CourseError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except torch.OutOfMemoryError as error:
        print(f"error: the GPU's memory is full: take a smaller --batch_size, --size or --max_steps, or -O ({error})",
              file=sys.stderr)  # fmt: skip
        return 1
    except KeyboardInterrupt:
        print("stopped: --resume goes on from the last checkpoint, if there is one", file=sys.stderr)
        return 130


if __name__ == "__main__":
    gc.freeze()  # what is loaded stays: later searches leave it out, the one at the end too
    gc.enable()
    sys.exit(main())

"""Text to 3D: `python main.py --text "a hamburger"`.

A field of densities and colours is led by a text-to-image model until it looks like the text from all sides
(DreamFusion). At the end there is a clip, a mesh and a page that turns it, in the workspace. It works on a GPU, and in
some minutes on a CPU; it needs no network with the model that comes with the course.
"""

import argparse
import dataclasses
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # from whatever folder it is started

import torch

from course.errors import CourseError
from course.models import find_model
from task_3_DreamFusion.nerf import checkpoint, results
from task_3_DreamFusion.nerf.mesh import MeshError
from task_3_DreamFusion.nerf.sd import WEIGHTINGS, Options, StableDiffusion
from task_3_DreamFusion.nerf.utils import BACKBONES, OPTIMIZERS, Settings, Trainer, TrainingError

# What a CPU does in a few minutes: fewer and smaller pictures, and no light, which needs the field six more times.
CPU = {"iters": 400, "batch": 1, "size": 48, "steps": 96, "cells": 32, "albedo": 1.0}


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python main.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    defaults = {field.name: field.default for field in dataclasses.fields(Settings)}

    def setting(group: argparse._ArgumentGroup, flag: str, name: str, kind: type, text: str, **more: object) -> None:
        shown = f"{defaults[name]}, on a CPU {CPU[name]}" if name in CPU else f"{defaults[name]}"
        group.add_argument(flag, dest=name, type=kind, help=f"{text} (default: {shown})", **more)  # type: ignore[arg-type]

    what = made.add_argument_group("what to make")
    what.add_argument("--text", required=True, help="what it shall be, such as 'a hamburger'")
    setting(what, "--negative", "negative", str, "what it shall not be")
    what.add_argument("--model", help="pocket, sd-2.1-base, a Hub id or a folder (default: COURSE_MODEL, or pocket)")
    setting(what, "--seed", "seed", int, "of everything that is drawn")

    run = made.add_argument_group("the run")
    run.add_argument("--workspace", type=Path, help="folder for what comes out (default: outputs/task_3/<text>)")
    setting(run, "--iters", "iters", int, "steps")
    setting(run, "--lr", "lr", float, "learning rate of the perceptrons; the grid's is ten times that")
    setting(run, "--optim", "optimizer", str, "optimizer", choices=OPTIMIZERS)
    setting(run, "--batch_size", "batch", int, "views a step")
    setting(run, "--size", "size", int, "pixels of a training picture's side")
    run.add_argument("-O", "--half", action="store_true", help="half precision and a compiled denoiser, on a GPU")
    run.add_argument("--deterministic", action="store_true", help="the same result bit for bit in every run")
    run.add_argument("--save_every", type=int, default=200, metavar="STEPS", help="steps between checkpoints (200)")
    run.add_argument("--preview_every", type=int, default=200, metavar="STEPS", help="steps between previews; 0: none")
    run.add_argument("--resume", action="store_true", help="go on from the workspace's last checkpoint")
    run.add_argument("--ckpt", type=Path, metavar="FOLDER", help="go on from this checkpoint")
    run.add_argument("--test", action="store_true", help="do not train: make clip and mesh of the last checkpoint")

    field = made.add_argument_group("the field")
    setting(field, "--backbone", "backbone", str, "a hash grid or the plain network", choices=BACKBONES)
    setting(field, "--bound", "bound", float, "half the side of the box")
    setting(field, "--max_steps", "steps", int, "samples along the box's diagonal")

    guide = made.add_argument_group("the guidance")
    options = Options()
    guide.add_argument("--guidance_scale", type=float, default=options.guidance_scale, help="(%(default)s)")
    guide.add_argument("--weighting", choices=tuple(WEIGHTINGS), default=options.weighting, help="w(t) (%(default)s)")
    guide.add_argument("--t_range", type=float, nargs=2, default=options.t_range, metavar=("LOW", "HIGH"),
                       help="noise levels, as shares of all (%(default)s)")  # fmt: skip
    guide.add_argument("--t_end", type=float, default=options.t_end, help="the highest at the end (%(default)s)")
    guide.add_argument("--perp_neg", type=float, default=options.perp_neg, metavar="WEIGHT",
                       help="how strongly other views are pushed away; 0: not at all (%(default)s)")  # fmt: skip

    terms = made.add_argument_group("the regularisers, each with its weight; 0 leaves it out")
    setting(terms, "--lambda_entropy", "entropy", float, "rays see all or nothing")
    setting(terms, "--lambda_opacity", "sparsity", float, "and rather nothing")
    setting(terms, "--lambda_orient", "orientation", float, "nothing seen looks away, where there is light")
    setting(terms, "--lambda_tv", "variation", float, "neighbours in the grid are alike")
    setting(terms, "--lambda_smooth", "smoothness", float, "normals are like those nearby, where there is light")

    out = made.add_argument_group("what comes out")
    out.add_argument("--frames", type=int, default=90, help="of the clip, once around (%(default)s)")
    out.add_argument("--video_size", type=int, default=256, metavar="PIXELS", help="of a frame's side (%(default)s)")
    out.add_argument("--elevation", type=float, default=15.0, help="of the clip's camera, in degrees (%(default)s)")
    out.add_argument("--save_mesh", action=argparse.BooleanOptionalAction, default=True, help="(yes)")
    return made


def settings_of(args: argparse.Namespace, on_cpu: bool) -> Settings:
    """The run's settings: those given, then those of a CPU if it is one, then the defaults."""
    names = [field.name for field in dataclasses.fields(Settings)]
    given = {name: value for name in names if (value := getattr(args, name, None)) is not None}
    return Settings(**{**(CPU if on_cpu else {}), **given})


def workspace_of(text: str) -> Path:
    """outputs/task_3/<text> in the repository, with the text as a file name."""
    slug = re.sub(r"[^\w]+", "_", text.lower()).strip("_")[:60] or "untitled"
    return Path(__file__).resolve().parent.parent / "outputs" / "task_3" / slug


def run(args: argparse.Namespace) -> Path:
    """Trains, unless --test, and writes what comes out; returns the workspace."""
    if args.frames < 1 or args.video_size < 1 or args.save_every < 1 or args.preview_every < 0:
        raise TrainingError("--frames, --video_size and --save_every are at least 1, --preview_every is 0 or more")
    if not -90 <= args.elevation <= 90:
        raise TrainingError(f"--elevation is in [-90, 90] degrees, not {args.elevation:g}")
    workspace = (args.workspace or workspace_of(args.text)).resolve()
    options = Options(args.guidance_scale, args.weighting, tuple(args.t_range), args.t_end, perp_neg=args.perp_neg)
    model = find_model(args.model)
    settings = settings_of(args, on_cpu=model.device.type != "cuda")
    begin_at = find_checkpoint(args, workspace)
    try:
        workspace.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(f"--workspace {workspace} cannot be made: {error.strerror}") from error
    if args.deterministic:
        torch.use_deterministic_algorithms(True)
    trainer = Trainer(settings, StableDiffusion(model, options, compile=args.half), workspace, half=args.half)
    trainer.guidance.forget_text_encoder()
    if begin_at:
        trainer.resume(begin_at)
        print(f"goes on from step {trainer.step}", flush=True)
    if not args.test:
        trainer.train(args.save_every, args.preview_every)
    made = [results.save_video(trainer, args.frames, args.video_size, args.elevation)]
    if args.save_mesh:
        try:
            made += results.save_mesh(trainer)
        except MeshError as error:
            print(f"no mesh: {error}", file=sys.stderr)
    made.append(results.save_index(workspace.parent if args.workspace is None else workspace))
    print("\n".join(str(path) for path in made))
    return workspace


def find_checkpoint(args: argparse.Namespace, workspace: Path) -> Path | None:
    """The checkpoint to begin at, or None for a fresh run. Raises TrainingError if it is not there, or if a fresh run
    would write over an old one."""
    if args.ckpt:
        return args.ckpt
    last = checkpoint.latest(workspace / "checkpoints")
    if args.resume or args.test:
        if last is None:
            raise TrainingError(f"there is no checkpoint in {workspace / 'checkpoints'}: train first")
        return last
    if last is not None:
        raise TrainingError(
            f"{workspace} holds a run that came to step {int(last.name)}: go on with --resume, or name another "
            "--workspace"
        )
    return None


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    try:
        run(parser().parse_args(arguments))
    except CourseError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What every training stage shares: the command line, the accelerator, the folders, and one training loop.

A stage builds its networks and a loss function, then calls `train`. The loop runs on one process or
several, saves, resumes, averages the weights and logs; the stage files hold only what is theirs.
"""

import argparse
import contextlib
import json
import math
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from tqdm import tqdm

from pocket import arguments

SHIPPED = {  # where the weights of each stage, and the tokenizer, lie in the folder that ships
    "tokenizer": "stable-diffusion/tokenizer",
    "judge": "judge",
    "towers": "clip",
    "perceptual": "perceptual",
    "autoencoder": "stable-diffusion/vae",
    "denoiser": "stable-diffusion/unet",
}
CONDITIONS = ("canny", "depth", "normals", "scribble")  # what a ControlNet can be told of an image
ESTIMATED = ("depth", "normals")  # what an estimator reads from an image, because no formula does
# The parts that follow the text-to-image model: they ship where they are there. stage-kind: their folder.
FOLLOWING = {f"controlnet-{kind}": f"controlnet/{kind}" for kind in CONDITIONS} | {
    f"estimators-{kind}": f"estimators/{kind}" for kind in ESTIMATED
}
SAVE_MINUTES = 3.0
# Reading a loss waits for the GPU, so it is done once in so many steps; a CPU waits anyway.
SYNC_STEPS = {"cuda": 10, "cpu": 1}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that all stages take."""
    parser.add_argument(
        "--smoke", action="store_true", help="toy sizes: every stage in two minutes on a CPU"
    )
    parser.add_argument(
        "--steps",
        type=arguments.integer(1),
        help="stop after so many steps (default: the stage's own)",
    )
    parser.add_argument(
        "--minutes",
        type=arguments.number(0.001),
        help="stop after so many minutes, compiling included",
    )
    parser.add_argument(
        "--batch", type=arguments.integer(1, 65_536), help="samples a step and process"
    )
    parser.add_argument(
        "--seed", type=arguments.integer(0, 2**32 - 1), default=0, help="random seed (default: 0)"
    )
    parser.add_argument(
        "--work", type=arguments.folder, help="data, checkpoints and logs (default: outputs/pocket)"
    )
    parser.add_argument(
        "--weights", type=arguments.folder, help="the folder that ships (default: pocket/weights)"
    )
    parser.add_argument(
        "--scenes", type=arguments.integer(1), help="data, conditions: pictures to render"
    )
    parser.add_argument(
        "--extra", type=arguments.integer(0), help="latents: fresh scenes to encode beside the pool"
    )
    parser.add_argument(
        "--condition", choices=CONDITIONS, help="controlnet, estimators: this kind (default: each)"
    )
    parser.add_argument(
        "--init",
        action="store_true",
        help="begin a run at the stage's weights, fresh optimizer; an unfinished run goes on",
    )


@dataclass
class Run:
    """One stage of training in one process: where it runs, where it reads and writes, and its limits.

    `steps`, `minutes`, `batch`, `scenes` and `extra` are None where the command line leaves them to the stage.
    `generator` draws on `device`, differently on each process, and is seeded again when a run resumes.
    """

    stage: str
    accelerator: Accelerator
    work: Path
    weights: Path
    smoke: bool = False
    seed: int = 0
    steps: int | None = None
    minutes: float | None = None
    batch: int | None = None
    scenes: int | None = None
    extra: int | None = None
    init: bool = False
    generator: torch.Generator = field(init=False)

    def __post_init__(self) -> None:
        self.generator = torch.Generator(self.device)
        self.seed_all(0)

    @property
    def device(self) -> torch.device:
        return self.accelerator.device

    @property
    def rank(self) -> int:
        return self.accelerator.process_index

    @property
    def processes(self) -> int:
        return self.accelerator.num_processes

    @property
    def is_main(self) -> bool:
        return self.accelerator.is_main_process

    @property
    def kind(self) -> str:
        """Which of a stage's kinds this is: "canny" of the stage "controlnet-canny"; empty where there is but one."""
        return self.stage.partition("-")[2]

    @property
    def folder(self) -> Path:
        """WORK/<stage>: state.pt while it runs, weights/ and, at the end, curve.json."""
        return self.work / self.stage

    def seed_all(self, step: int) -> None:
        """Seeds `generator` and torch's own generators from the seed, this process's rank and the step."""
        value = (self.seed * 1_000_003 + self.rank * 7_919 + step * 104_729) % 2**63
        self.generator.manual_seed(value)
        torch.manual_seed(value)

    def autocast(self) -> contextlib.AbstractContextManager:
        """bfloat16 where it pays (CUDA), float32 elsewhere."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")

    def weights_of(self, stage: str) -> Path:
        """The folder that holds the weights of a stage, or the "tokenizer": this work folder's, or else the shipped.

        Raises FileNotFoundError if neither is there.
        """
        own = self.work / stage if stage == "tokenizer" else self.work / stage / "weights"
        shipped = self.weights / (SHIPPED | FOLLOWING)[stage]
        for folder in (own, shipped):
            if folder.is_dir():
                return folder
        maker = "data" if stage == "tokenizer" else stage.replace("-", " --condition ")
        raise FileNotFoundError(
            f"no weights of {stage!r} in {own} or {shipped}: run `python -m pocket.train {maker}` first"
        )

    def say(self, text: str) -> None:
        """Prints a line, once for all processes, without breaking a progress bar."""
        if self.is_main:
            tqdm.write(f"{self.stage}: {text}")


def folders(args: argparse.Namespace) -> tuple[Path, Path]:
    """The work folder and the one that ships.

    A toy run keeps to itself: its weights must neither ship nor pass for those of a stage that is done.
    """
    work = args.work or Path("outputs/pocket-smoke" if args.smoke else "outputs/pocket")
    return work, args.weights or (work / "shipped" if args.smoke else Path("pocket/weights"))


def start(stage: str, args: argparse.Namespace) -> Run:
    """Sets up the accelerator for one stage and returns its Run."""
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
    kwargs = DistributedDataParallelKwargs(gradient_as_bucket_view=True, broadcast_buffers=False)
    work, weights = folders(args)
    run = Run(
        stage=stage,
        work=work,
        weights=weights,
        # Precision is `Run.autocast`'s: the accelerator's own would wrap the forward that is compiled.
        accelerator=Accelerator(
            cpu=not torch.cuda.is_available(), mixed_precision="no", kwargs_handlers=[kwargs]
        ),
        **{name: getattr(args, name) for name in ("smoke", "seed", "steps", "minutes")},
        **{name: getattr(args, name) for name in ("batch", "scenes", "extra", "init")},
    )
    run.folder.mkdir(parents=True, exist_ok=True)
    return run


def schedule(step: int, fraction: float, warmup: int) -> float:
    """The learning rate as a share of its peak: linear over `warmup` steps, then a cosine of `fraction` down to 0."""
    return (
        min(1.0, (step + 1) / max(warmup, 1)) * 0.5 * (1 + math.cos(math.pi * min(fraction, 1.0)))
    )


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that train, in order."""
    return [p for p in model.parameters() if p.requires_grad]


def adamw(
    model: nn.Module,
    lr: float,
    weight_decay: float = 0.01,
    betas: tuple[float, float] = (0.9, 0.99),
) -> torch.optim.AdamW:
    """AdamW over the parameters that train, fused on CUDA; `lr` is the peak that `train` schedules."""
    parameters = trainable(model)
    fused = parameters[0].device.type == "cuda"
    return torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay, betas=betas, fused=fused)


def average(model: nn.Module, decay: float) -> EMAModel:
    """An exponential moving average of the parameters that train; its decay warms up as (1 + n) / (10 + n)."""
    return EMAModel(trainable(model), decay=decay, foreach=True)


@contextlib.contextmanager
def averaged(model: nn.Module, ema: EMAModel) -> Iterator[None]:
    """Hold the averaged parameters in the model within the block, and its own again afterwards."""
    parameters = trainable(model)
    ema.store(parameters)
    ema.copy_to(parameters)
    try:
        yield
    finally:
        ema.restore(parameters)


def save_plain(model: Any, folder: Path) -> None:
    """Saves a diffusers model that trains channels last: from a fresh copy, whose weights lie in memory as usual."""
    plain = type(model).from_config(model.config)
    plain.load_state_dict(model.state_dict())
    plain.save_pretrained(folder)


def replace_folder(folder: Path, write: Callable[[Path], object]) -> None:
    """Calls `write` on a new folder beside `folder`, then puts it in its place: a reader never sees half of it.

    If `write` fails (a full disk), what it wrote goes and what was there stays.
    """
    new, old = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")
    shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    new.mkdir(parents=True)
    try:
        write(new)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Calls `write` on a temporary path, then moves it to `path` in one step; a failure leaves `path` as it was."""
    new = path.with_name(path.name + ".new")
    try:
        write(new)
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)


def done(run: Run) -> bool:
    """Whether the stage has already run to its end in this work folder and is not asked to train on."""
    return (
        (run.folder / "curve.json").exists()
        and not (run.folder / "state.pt").exists()
        and not run.init
    )


def device_name(run: Run) -> str:
    return torch.cuda.get_device_name() if run.device.type == "cuda" else "cpu"


def record_time(run: Run, began: float, images: int) -> None:
    """Adds to run.folder/time.json what a stage without a loss took since `began` of time.perf_counter.

    images: those made since then. If none were, nothing is noted: passing over finished work is no training.
    """
    note = run.folder / "time.json"
    if not run.is_main or (not images and note.exists()):
        return
    before = (
        json.loads(note.read_text())
        if note.exists()
        else {"seconds": 0.0, "processes": 1, "pictures": 0}
    )
    spent = {
        "stage": run.stage,
        "seconds": time.perf_counter()
        - began
        + before["seconds"] * before["processes"] / run.processes,
        "processes": run.processes,
        "continued": run.init,
        "device": device_name(run),
        "pictures": images + before["pictures"],
    }
    replace_file(note, lambda path: path.write_text(json.dumps(spent)))


@dataclass
class Progress:
    """How far a run has come; saved with the state. Seconds of start-up (compiling) are counted apart.

    `continued`: the run began from the stage's weights (--init).
    """

    step: int = 0
    seconds: float = 0.0
    startup: float = 0.0
    rows: list[dict[str, float]] = field(default_factory=list)
    continued: bool = False

    def fraction(self, steps: int, minutes: float) -> float:
        """The share of the run that is done: of the steps, or of the minutes less the start-up, the larger."""
        return max(self.step / steps, self.seconds / max(60 * minutes - self.startup, 1e-3))


class Interrupt:
    """Ctrl-C or SIGTERM sets `asked` instead of stopping at once, so that the run can save; a second one stops."""

    def __init__(self) -> None:
        self.asked = False
        self.previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Interrupt":
        for number in (signal.SIGINT, signal.SIGTERM):
            self.previous[number] = signal.signal(number, self.handle)
        return self

    def handle(self, *_) -> None:
        self.asked = True
        self.__exit__()

    def __exit__(self, *_) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)


def agree(run: Run, values: Iterable[float]) -> list[float]:
    """The largest of each value over all processes, so that all of them decide alike."""
    tensor = torch.tensor(list(values), dtype=torch.float64, device=run.device)
    if run.processes > 1:
        torch.distributed.all_reduce(tensor, op=torch.distributed.ReduceOp.MAX)
    return tensor.tolist()


def train(
    run: Run,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_fn: Callable[[nn.Module, int, float], dict[str, Tensor]],
    save: Callable[[Path], object],
    *,
    steps: int,
    minutes: float,
    warmup: int = 200,
    ema_decays: Sequence[float] = (0.999,),
    validate: Callable[[], float] | None = None,
    clip: float = 1.0,
    began: float | None = None,
) -> None:
    """Trains `model` until `steps` or `minutes`, whichever comes first, and leaves its averaged weights in it.

    model: the plain module, on run.device. It is compiled in place on CUDA and wrapped for several processes
        here, so `loss_fn` must use the module it is given, through its forward.
    optimizer: over the plain module's parameters; each group's own `lr` is the peak of its schedule, and each
        group's gradient is clipped to the norm `clip` by itself.
    loss_fn(model, step, fraction): named scalar losses of one batch drawn by the stage; "loss" is minimised.
        `fraction` in [0, 1] is the share of the run that is done. Called under `run.autocast()`.
    save(folder): writes the weights that ship; called with the averaged ones in `model`, on the main process.
    steps, minutes: the stage's defaults, which --steps and --minutes override. Minutes include compiling.
    ema_decays, validate: of several averages of the weights the one with the lowest value of `validate()`, called with
        these weights in `model`, is kept at the end; the first is saved on the way. How long an average should be
        depends on the length of the run (Karras et al. 2024, section 3).
    began: of time.perf_counter, if the stage did something before that counts as its time.

    State goes to run.folder/state.pt every few minutes and on Ctrl-C, and the same command goes on from there.
    Raises FloatingPointError if a loss is not finite; the last saved state stays.
    """
    steps, minutes = run.steps or steps, run.minutes or minutes
    began = began or time.perf_counter()
    state_path, progress = run.folder / "state.pt", Progress(continued=run.init)
    averages = {decay: average(model, decay) for decay in ema_decays}
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])
    if state_path.exists():
        state = torch.load(state_path, map_location=run.device, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        for decay, ema in averages.items():
            ema.load_state_dict(state["ema"][decay])
        progress = Progress(**state["progress"])
        del state
        run.say(f"goes on from step {progress.step}")
    run.seed_all(progress.step)
    net, parameters = model, trainable(model)
    if run.device.type == "cuda":
        model.compile(dynamic=False)
    if run.processes > 1:
        net = run.accelerator.prepare_model(model)
    model.train()

    def save_state() -> None:
        if not run.is_main:
            return
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        state["ema"] = {decay: ema.state_dict() for decay, ema in averages.items()}
        replace_file(
            state_path, lambda path: torch.save(state | {"progress": vars(progress)}, path)
        )
        with averaged(model, averages[ema_decays[0]]):
            replace_folder(run.folder / "weights", save)

    writer = None
    if run.is_main:
        from torch.utils.tensorboard import (
            SummaryWriter,
        )  # slow to import, and only one process writes

        writer = SummaryWriter(run.work / "logs" / run.stage)
    bar = tqdm(
        total=steps, initial=progress.step, desc=run.stage, disable=not run.is_main, smoothing=0.05
    )
    every, sums, count = SYNC_STEPS.get(run.device.type, 1), None, 0
    before, startup_before, resumed_at = progress.seconds, progress.startup, progress.step
    clock = saved = None
    fraction = progress.fraction(steps, minutes)
    # However it ends, the log's last lines are written.
    with writer or contextlib.nullcontext(), Interrupt() as interrupt:
        while fraction < 1:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * schedule(progress.step, fraction, warmup)
            with run.autocast():
                losses = loss_fn(net, progress.step, fraction)
            run.accelerator.backward(losses["loss"])
            for group in optimizer.param_groups:
                nn.utils.clip_grad_norm_(group["params"], clip, foreach=True)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            for ema in averages.values():
                ema.step(parameters)
            progress.step += 1
            values = torch.stack([value.detach().float() for value in losses.values()])
            sums, count = values if sums is None else sums + values, count + 1

            first = progress.step == resumed_at + 1
            if not first and progress.step % every and progress.step < steps:
                fraction = max(fraction, progress.step / steps)
                continue
            means = (sums / count).tolist()  # waits for the device
            sums, count, now = None, 0, time.perf_counter()
            clock, saved = clock or now, saved or now
            seconds, startup = before + now - clock, startup_before + clock - began
            stop, broken, progress.seconds, progress.startup, save_now = agree(
                run,
                [
                    interrupt.asked,
                    not all(map(math.isfinite, means)),
                    seconds,
                    startup,
                    now - saved,
                ],
            )
            if broken:
                raise FloatingPointError(
                    f"{run.stage}: loss not finite at step {progress.step}: lower the rate"
                )
            named = dict(zip(losses, means, strict=True))
            progress.rows.append(
                {"step": progress.step, "seconds": round(progress.seconds, 2), **named}
            )
            bar.update(progress.step - bar.n)
            bar.set_postfix({name: f"{value:.4f}" for name, value in named.items()}, refresh=False)
            if writer:
                for name, value in named.items():
                    writer.add_scalar(name, value, progress.step)
            fraction = progress.fraction(steps, minutes)
            if stop or save_now > 60 * SAVE_MINUTES:
                save_state()
                saved = time.perf_counter()
            if stop:
                bar.close()
                raise SystemExit(
                    f"{run.stage}: saved at step {progress.step}; the same command goes on from there"
                )
    bar.close()
    model.eval()
    losses_by_decay: dict[float, float] = {}
    if validate:
        for decay, ema in averages.items():
            ema.copy_to(parameters)
            losses_by_decay[decay] = validate()
    averages[min(losses_by_decay, key=losses_by_decay.__getitem__, default=ema_decays[0])].copy_to(
        parameters
    )
    if run.is_main:
        replace_folder(run.folder / "weights", save)
        curve = {
            "stage": run.stage,
            "steps": progress.step,
            "seconds": progress.seconds + progress.startup,
            "processes": run.processes,
            "continued": progress.continued,
            "ema": losses_by_decay,
            "device": device_name(run),
            "parameters": sum(p.numel() for p in model.parameters()),
            "rows": progress.rows,
        }
        replace_file(run.folder / "curve.json", lambda path: path.write_text(json.dumps(curve)))
        state_path.unlink(missing_ok=True)
    run.accelerator.wait_for_everyone()


def finish() -> None:
    """Takes the processes of a run apart in order, at a program's end: those that only exit may break the others."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()

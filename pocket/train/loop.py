"""The training loop of all stages: one or several processes, checkpoints, averaged weights, logs.

A stage builds its networks and a loss function, then calls `train`.
"""

import contextlib
import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from tqdm import tqdm

from course.files import replace_file, replace_folder, write_text
from course.interrupt import Interrupt

from .run import Run

SAVE_MINUTES = 3.0
SMOKE_STEPS = 4
# Reading a loss waits for the GPU, so it is read every so many steps.
SYNC_STEPS = {"cuda": 10, "cpu": 1}

LossFunction = Callable[[nn.Module, int, float], dict[str, Tensor]]
SaveFunction = Callable[[Path], object]


@dataclass(frozen=True)
class Settings:
    """Settings of a training run."""

    steps: int  # the run ends after so many steps ...
    minutes: float  # ... or after so many minutes, compilation included; whichever comes first
    # Steps over which the learning rate rises to its peak, at most a tenth of the run.
    warmup: int = 200
    # Decays of the averages of the weights, of which the first is saved during the run. How long an
    # average should be depends on the length of the run (Karras et al. 2024, section 3).
    ema_decays: Sequence[float] = (0.999,)
    clip: float = 1.0  # norm to which the gradient of each parameter group is clipped
    compile_options: Mapping[str, bool] = field(default_factory=dict)  # of torch.compile, on CUDA


def lr_factor(step: int, fraction: float, warmup: int) -> float:
    """Return the learning rate as a fraction of its peak: linear warm-up, then cosine decay to 0.

    warmup: in steps. fraction: of the run that is done, in [0, 1].
    """
    decay = 0.5 * (1 + math.cos(math.pi * min(fraction, 1.0)))
    return min(1.0, (step + 1) / max(warmup, 1)) * decay


def trainable_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that require a gradient, in order."""
    return [p for p in model.parameters() if p.requires_grad]


def adamw(
    model: nn.Module,
    lr: float,
    weight_decay: float = 0.01,
    betas: tuple[float, float] = (0.9, 0.99),
) -> torch.optim.AdamW:
    """Return AdamW over the trainable parameters; `lr` is the peak of the schedule of `train`."""
    parameters = trainable_parameters(model)
    fused = parameters[0].device.type == "cuda"
    return torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay, betas=betas, fused=fused)


def build_ema(model: nn.Module, decay: float) -> EMAModel:
    """Return an average of the trainable parameters; its decay warms up as (1 + n) / (10 + n)."""
    return EMAModel(trainable_parameters(model), decay=decay, foreach=True)


@contextlib.contextmanager
def ema_weights(model: nn.Module, ema: EMAModel) -> Iterator[None]:
    """Put the averaged weights into the model for the block, and its own back afterwards."""
    parameters = trainable_parameters(model)
    ema.store(parameters)
    ema.copy_to(parameters)
    try:
        yield
    finally:
        ema.restore(parameters)


def save_contiguous(model: Any, folder: Path) -> None:
    """Save a diffusers model that trains in channels-last memory format from a contiguous copy."""
    copy = type(model).from_config(model.config)
    copy.load_state_dict(model.state_dict())
    copy.save_pretrained(folder)


# --- State, clock and log


@dataclass
class Progress:
    """How far a run is; part of its checkpoint. `startup` are seconds of start-up (compilation).

    `continued`: the run started from the stage's weights (--init).
    """

    step: int = 0
    seconds: float = 0.0
    startup: float = 0.0
    rows: list[dict[str, float]] = field(default_factory=list)
    continued: bool = False

    def fraction(self, steps: int, minutes: float) -> float:
        """Return the fraction of the run that is done: of the steps or of the time, the larger."""
        return max(self.step / steps, self.seconds / max(60 * minutes - self.startup, 1e-3))


class TrainState:
    """What a checkpoint holds: model, optimizer, averages of the weights by decay, progress."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        ema_decays: Sequence[float],
        progress: Progress,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.emas = {decay: build_ema(model, decay) for decay in ema_decays}
        self.progress = progress
        self.parameters = trainable_parameters(model)
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])

    def restore(self, path: Path, device: torch.device) -> None:
        """Load a checkpoint."""
        state = torch.load(path, map_location=device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        for decay, ema in self.emas.items():
            ema.load_state_dict(state["ema"][decay])
        self.progress = Progress(**state["progress"])

    def save(self, path: Path) -> None:
        """Write a checkpoint."""
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": {decay: ema.state_dict() for decay, ema in self.emas.items()},
            "progress": vars(self.progress),
        }
        with replace_file(path) as new:
            torch.save(state, new)

    def set_lr(self, factor: float) -> None:
        """Set the learning rates to this fraction of their peaks."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor

    def step(self, clip: float) -> None:
        """Clip the gradient of each parameter group, update the weights and their averages."""
        for group in self.optimizer.param_groups:
            nn.utils.clip_grad_norm_(group["params"], clip, foreach=True)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        for ema in self.emas.values():
            ema.step(self.parameters)
        self.progress.step += 1

    def select_ema(self, validate: Callable[[], float] | None) -> dict[float, float]:
        """Put the averaged weights with the lowest validation loss into the model, or the first.

        Returns the loss of each decay; empty without `validate`.
        """
        losses: dict[float, float] = {}
        for decay, ema in self.emas.items():
            if validate:
                ema.copy_to(self.parameters)
                losses[decay] = validate()
        best = min(losses, key=losses.__getitem__, default=next(iter(self.emas)))
        self.emas[best].copy_to(self.parameters)
        return losses


class Status(NamedTuple):
    """What the processes decide on after a synchronized step: the largest value of each."""

    stop: float
    is_broken: float
    seconds: float
    startup: float
    unsaved_seconds: float


class Clock:
    """The time of a run, interruptions excluded; start-up ends with the first synchronized step."""

    def __init__(self, progress: Progress, start_time: float) -> None:
        self.previous_seconds = progress.seconds
        self.previous_startup = progress.startup
        self.start_time = start_time
        self.first_step_time: float | None = None
        self.save_time = start_time

    def read(self) -> tuple[float, float, float]:
        """Return the seconds of training, of start-up, and since the last checkpoint."""
        now = time.perf_counter()
        if self.first_step_time is None:
            self.first_step_time = now
            self.save_time = now
        seconds = self.previous_seconds + now - self.first_step_time
        startup = self.previous_startup + self.first_step_time - self.start_time
        return seconds, startup, now - self.save_time

    def mark_save(self) -> None:
        """Count the time since the last checkpoint from now on."""
        self.save_time = time.perf_counter()


class Log:
    """Mean losses between synchronized steps: on a progress bar, in TensorBoard and in `rows`."""

    def __init__(self, run: Run, progress: Progress, steps: int) -> None:
        self.rows = progress.rows
        self.steps = steps
        self.first_step = progress.step + 1
        self.interval = SYNC_STEPS.get(run.device.type, 1)
        self.sums: Tensor | None = None
        self.count = 0
        self.bar = tqdm(
            total=steps,
            initial=progress.step,
            desc=str(run.stage),
            disable=not run.is_main,
            smoothing=0.05,
        )
        self.writer = None
        if run.is_main:
            from torch.utils.tensorboard import SummaryWriter  # slow to import

            self.writer = SummaryWriter(run.work / "logs" / str(run.stage))

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()
        if self.writer:
            self.writer.close()

    def add(self, losses: dict[str, Tensor]) -> None:
        """Add the losses of a step, without waiting for the device."""
        self.names = list(losses)
        values = torch.stack([value.detach().float() for value in losses.values()])
        self.sums = values if self.sums is None else self.sums + values
        self.count += 1

    def is_due(self, step: int) -> bool:
        """Return whether to synchronize after this step."""
        return step in (self.first_step, self.steps) or step % self.interval == 0

    def means(self) -> dict[str, float]:
        """Wait for the device; return the mean losses since the last call."""
        assert self.sums is not None
        means = (self.sums / self.count).tolist()
        self.sums = None
        self.count = 0
        return dict(zip(self.names, means, strict=True))

    def write(self, progress: Progress, means: dict[str, float]) -> None:
        """Add a row."""
        seconds = round(progress.seconds, 2)
        self.rows.append({"step": progress.step, "seconds": seconds, **means})
        self.bar.update(progress.step - self.bar.n)
        postfix = {name: f"{value:.4f}" for name, value in means.items()}
        self.bar.set_postfix(postfix, refresh=False)
        if self.writer:
            for name, value in means.items():
                self.writer.add_scalar(name, value, progress.step)


# --- The loop


def train(
    run: Run,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_fn: LossFunction,
    save: SaveFunction,
    settings: Settings,
    validate: Callable[[], float] | None = None,
    start_time: float | None = None,
) -> None:
    """Train `model` and leave its averaged weights in it.

    The checkpoint run.folder/state.pt is written every few minutes and on Ctrl-C; the same command
    resumes from it.

    Args:
        model: the plain module, on run.device. It is compiled in place on CUDA and wrapped for
            several processes here, so `loss_fn` must call the module that it gets.
        optimizer: over the plain module's parameters; the `lr` of each group is the peak of its
            schedule.
        loss_fn: (model, step, fraction) to named scalar losses of one batch; "loss" is minimized.
            `fraction` in [0, 1] of the run is done. Called under `run.autocast()`.
        save: writes the weights that ship to a folder; called in the main process, with averaged
            weights in `model`.
        settings: --steps and --minutes override its limits.
        validate: the loss of the weights in `model`; the average with the lowest one is kept.
        start_time: of time.perf_counter, if work before this call counts as the stage's time.
    Raises:
        FloatingPointError: a loss is not finite; the last checkpoint stays.
    """
    steps = run.steps or (SMOKE_STEPS if run.smoke else settings.steps)
    minutes = run.minutes or settings.minutes
    warmup = min(settings.warmup, steps // 10)
    settings = dataclasses.replace(settings, steps=steps, minutes=minutes, warmup=warmup)
    clock_start = start_time or time.perf_counter()
    state = TrainState(model, optimizer, settings.ema_decays, Progress(continued=run.init))
    checkpoint = run.folder / "state.pt"
    if checkpoint.exists():
        state.restore(checkpoint, run.device)
        run.log(f"resuming from step {state.progress.step}")
    run.seed_all(state.progress.step)
    if run.device.type == "cuda":
        model.compile(dynamic=False, options=dict(settings.compile_options))
    model.train()
    network = run.accelerator.prepare_model(model) if run.processes > 1 else model
    _loop(run, state, network, loss_fn, save, settings, Clock(state.progress, clock_start))
    model.eval()
    ema_losses = state.select_ema(validate)
    if run.is_main:
        with replace_folder(run.folder / "weights") as new:
            save(new)
        write_text(run.folder / "curve.json", json.dumps(_curve(run, state, ema_losses)))
        checkpoint.unlink(missing_ok=True)
    run.accelerator.wait_for_everyone()


def _loop(
    run: Run,
    state: TrainState,
    network: nn.Module,
    loss_fn: LossFunction,
    save: SaveFunction,
    settings: Settings,
    clock: Clock,
) -> None:
    progress = state.progress
    limits = (settings.steps, settings.minutes)
    fraction = progress.fraction(*limits)
    interrupt = Interrupt("stopping after this step ..." if run.is_main else "")
    with Log(run, progress, settings.steps) as log, interrupt:
        while fraction < 1:
            state.set_lr(lr_factor(progress.step, fraction, settings.warmup))
            with run.autocast():
                losses = loss_fn(network, progress.step, fraction)
            run.accelerator.backward(losses["loss"])
            state.step(settings.clip)
            log.add(losses)
            if not log.is_due(progress.step):
                fraction = max(fraction, progress.step / settings.steps)
                continue
            means = log.means()
            is_broken = not all(map(math.isfinite, means.values()))
            values = [interrupt.requested, is_broken, *clock.read()]
            each = torch.tensor([values], dtype=torch.float64, device=run.device)
            status = Status(*run.accelerator.gather(each).amax(dim=0).tolist())
            if status.is_broken:
                raise FloatingPointError(
                    f"the loss is not finite at step {progress.step}: lower the learning rate"
                )
            progress.seconds = status.seconds
            progress.startup = status.startup
            log.write(progress, means)
            fraction = progress.fraction(*limits)
            if status.stop or status.unsaved_seconds > 60 * SAVE_MINUTES:
                _save(run, state, save)
                clock.mark_save()
            if status.stop:
                raise SystemExit(
                    f"{run.stage}: saved at step {progress.step}; the same command resumes from it"
                )


def _save(run: Run, state: TrainState, save: SaveFunction) -> None:
    """Write the checkpoint, and the weights of the first average."""
    if not run.is_main:
        return
    state.save(run.folder / "state.pt")
    first = next(iter(state.emas.values()))
    with ema_weights(state.model, first), replace_folder(run.folder / "weights") as new:
        save(new)


def _curve(run: Run, state: TrainState, ema_losses: dict[float, float]) -> dict[str, Any]:
    """Return what curve.json records of a finished run."""
    progress = state.progress
    return {
        "stage": str(run.stage),
        "steps": progress.step,
        "seconds": progress.seconds + progress.startup,
        "processes": run.processes,
        "continued": progress.continued,
        "ema": ema_losses,
        "device": run.device_name,
        "parameters": sum(p.numel() for p in state.model.parameters()),
        "rows": progress.rows,
    }

"""Training: a field becomes what a text says, step by step, under the guidance of a text-to-image model.

    trainer = Trainer(settings, guidance, workspace)
    trainer.train()

A step draws cameras, renders them, and asks the guidance what is wrong. In the space of latents it takes the answer as
a gradient, as DreamFusion does, and moves the field once. In that of pixels it takes what the images should rather be
as targets, and lets the field learn from rays of the last of them a few times over: a denoiser costs far more than a
ray, and few steps do much (Instruct-NeRF2NeRF, Haque et al. 2023, arXiv:2303.12789, renews its images in this way).
Checkpoints, previews and logs go to the workspace.
"""

import json
import os
import signal
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from course.arguments import check_number
from course.errors import CourseError
from course.images import image_grid, to_pil
from task_3_DreamFusion.nerf import checkpoint, files, memory
from task_3_DreamFusion.nerf.guidance import StableDiffusion
from task_3_DreamFusion.nerf.network import Background, Field, FrequencyField
from task_3_DreamFusion.nerf.network_grid import GridField
from task_3_DreamFusion.nerf.provider import Cameras, ViewRange, orbit
from task_3_DreamFusion.nerf.regularizers import regularise
from task_3_DreamFusion.nerf.renderer import Renderer, RenderOutput, Shading
from task_3_DreamFusion.nerf.settings import (
    SETTINGS,
    GuidanceOptions,
    SettingError,
    Settings,
    TrainingError,
    check_unicode,
    known_fields,
)
from task_3_DreamFusion.nerf.targets import Target, TargetRays, check_shape
from task_3_DreamFusion.optimizer import Adan

OPTIMIZER_STATE = {
    "adam": {"step", "exp_avg", "exp_avg_sq"},
    "adan": {"step", "mean", "change", "square", "before"},
}
RENDER_REMEDY = "lower --batch_size or --max_steps, or start again with a smaller --size"
RECENT = 50  # steps over which a field that is empty or full, or gradients that are no numbers, are put up with
GAIN = 1000.0  # of the squared difference to a target, so that the weights of the regularisers suit both spaces
EMPTY, FULL = (
    0.01,
    0.97,
)  # mean opacity of images; the corners of one may see past a box that is full


def build_field(settings: Settings) -> Field:
    """The field of a run, drawn from torch's generator."""
    if settings.backbone == "grid":
        return GridField(settings.bound, settings.levels)
    return FrequencyField(settings.bound, settings.levels)


def build_optimizer(settings: Settings, renderer: Renderer) -> torch.optim.Optimizer:
    """Adan or Adam over field and background; the table of a grid learns ten times as fast."""
    tables = [p for name, p in renderer.named_parameters() if "encoder" in name]
    others = [p for name, p in renderer.named_parameters() if "encoder" not in name]
    groups = [{"params": others, "lr": settings.lr}]
    if tables:
        groups.append({"params": tables, "lr": 10 * settings.lr})
    if settings.optimizer == "adan":
        return Adan(groups, eps=1e-8, weight_decay=2e-5)
    # In one kernel: a step on a GPU waits for launches, and one on a CPU for the table, which it reads once then.
    return torch.optim.Adam(groups, betas=(0.9, 0.99), eps=1e-15, fused=True)


def description(path: Path, state: dict[str, Any]) -> dict[str, Any]:
    """Return what a checkpoint says of its run: "settings", "guidance", "model" and "half".

    path: of the checkpoint, for the message. Raises CheckpointError if a run of this program cannot have these.
    """
    try:
        kinds = {"settings": Settings, "guidance": GuidanceOptions}
        described: dict[str, Any] = {
            name: known_fields(kind, state[name]) for name, kind in kinds.items()
        }
        for name, kind in kinds.items():
            kind(**described[name])
        check_unicode("model", state["model"], SettingError)
        if "\0" in state["model"] or not isinstance(state["half"], bool):
            raise ValueError(f"model {state['model']!r}, half {state['half']!r}")
    except (CourseError, KeyError, TypeError, ValueError) as error:
        raise checkpoint.foreign(path, error) from error
    return described | {"model": state["model"], "half": state["half"]}


class Trainer:
    """A run: its field, optimizer, averages and place on the disk.

    settings: of the run. guidance: the model that leads it. workspace: the folder for what comes out.
    views: where cameras may stand. half: float16 in the field's perceptrons, on a GPU.
    """

    def __init__(
        self,
        settings: Settings,
        guidance: StableDiffusion,
        workspace: Path,
        views: ViewRange | None = None,
        half: bool = False,
    ) -> None:
        self.settings, self.guidance, self.workspace = settings, guidance, workspace
        self.views, self.half = views or ViewRange(), half and guidance.device.type == "cuda"
        torch.manual_seed(settings.seed)
        self.generator = torch.Generator().manual_seed(settings.seed)
        background = Background() if settings.background == "network" else None
        self.renderer = Renderer(build_field(settings), background, settings.steps, settings.cells)
        self.renderer.to(guidance.device)
        self.optimizer = build_optimizer(settings, self.renderer)
        # From a scale that hardly ever overflows, so that no step is lost in search of it; it grows by itself.
        scale = 2.0**10 if settings.space == "pixels" else 2.0**4
        self.scaler = torch.amp.GradScaler(
            guidance.device.type, init_scale=scale, enabled=self.half
        )
        self.average = [p.detach().clone() for p in self.renderer.parameters()]
        self.prompts = guidance.view_prompts(settings.prompt, settings.negative)
        self.targets: deque[Target] = deque(maxlen=settings.keep)
        self.step = 0
        self.opacities: deque[float] = deque(maxlen=RECENT)
        self.skipped = 0  # steps in a row whose gradient was no number
        self.interrupt = Interrupt()

    @property
    def progress(self) -> float:
        return self.step / self.settings.iters

    # --- One step

    def shading(self, cameras: Cameras) -> Shading:
        """How this step's images are lit: not at all at first, then often, now and then without colour."""
        s = self.settings
        chance = torch.rand(2, generator=self.generator).tolist()
        # Lights stand near the camera: their centre is its direction, as in DreamFusion, appendix A.2.
        eyes = cameras.poses()[:, :3, 3]
        around = eyes + 0.8 * cameras.radius[:, None] * torch.randn(
            len(cameras), 3, generator=self.generator
        )
        if self.progress < s.albedo or chance[0] >= s.shaded:
            return Shading()
        look = "textureless" if chance[1] < s.textureless else "lambertian"
        return Shading(look, around, ambient=0.1)

    def train_step(self) -> dict[str, float]:
        """One step; returns the terms of its loss, and "error", the noise_rmse of GuidanceOutput."""
        s = self.settings
        self.renderer.field.fade_in(1.0 if not s.fade_in else 0.4 + 0.6 * self.progress / s.fade_in)
        if self.step % 16 == 0:
            self.renderer.update_occupancy(self.generator, 1.0 if self.step < 64 else 0.25)
        share = 1.0 if not s.widen else min(1.0, 0.5 + 0.5 * self.progress / s.widen)
        cameras = self.cameras = self.views.narrow(share).sample(s.batch, self.generator, self.step)
        shading = self.shading(cameras)
        behind = (
            torch.rand(s.batch, 3, generator=self.generator) if s.background == "random" else None
        )
        with self._precision(), torch.set_grad_enabled(s.space == "latents"):
            rendered = self.renderer(cameras, s.size, s.size, self.generator, shading, behind)
        asked = (
            rendered.image,
            self.prompts,
            cameras.azimuth,
            cameras.elevation,
            self.generator,
            self.progress,
        )
        if s.space == "latents":
            self.seen = self.guidance.train_step(*asked)
            terms = self._learn(self.seen.loss, rendered)
        else:
            images, self.seen = self.guidance.target_images(*asked)
            for i, image in enumerate(images):
                lights = None if shading.lights is None else shading.lights[i : i + 1]
                self.targets.append(
                    Target(
                        cameras[i : i + 1],
                        image,
                        replace(shading, lights=lights),
                        None if behind is None else behind[i],
                    )
                )
            terms = self._learn_targets()
        terms = {"opacity": rendered.opacity.mean(), "error": self.seen.noise_rmse} | terms
        values = torch.stack(
            [term.detach().float() for term in terms.values()]
        ).tolist()  # one wait for all of them
        told = dict(zip(terms, values, strict=True))
        self.opacities.append(told["opacity"])
        self.step += 1
        self._watch()
        return told

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.guidance.device.type, torch.float16, enabled=self.half)

    def _learn(self, loss: Tensor, rendered: RenderOutput) -> dict[str, Tensor]:
        """Moves the field against the gradient of the loss and of the regularisers; returns the latter, scalars."""
        terms = regularise(rendered, self.renderer, self.settings, self.generator, self.progress)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss + sum(terms.values())).backward()
        self._apply()
        return terms

    @memory.reported("learning from the targets", "lower --rays, --reuse or --max_steps")
    def _learn_targets(self) -> dict[str, Tensor]:
        """Lets the field learn `reuse` times from random rays of the targets; returns the terms of the last time.

        Rays that are lit in different ways are not mixed: each time has those of the targets that share a look. All
        rays are marched at once, since what is occupied stays as it is meanwhile.
        """
        s, device = self.settings, self.guidance.device
        looks: dict[str, TargetRays] = {}
        times: list[tuple[TargetRays, Tensor]] = []
        for _ in range(s.reuse):
            drawn = self.targets[
                int(torch.randint(len(self.targets), (), generator=self.generator))
            ].shading
            if drawn.mode not in looks:
                group = [target for target in self.targets if target.shading.mode == drawn.mode]
                looks[drawn.mode] = TargetRays.of(group, s.size, device)
            look = looks[drawn.mode]
            chosen = torch.randint(len(look.pixels), (s.rays,), generator=self.generator)
            times.append((look, chosen.to(device, non_blocking=True)))
        origins, directions = (
            torch.cat([getattr(look, name)[chosen] for look, chosen in times])
            for name in ("origins", "directions")
        )
        parts = self.renderer.march(origins, directions, self.generator).split(s.rays)
        terms: dict[str, Tensor] = {}
        for samples, rays, (look, chosen) in zip(
            parts, directions.split(s.rays), times, strict=True
        ):
            with self._precision():
                rendered = self.renderer.render(
                    samples, rays, chosen // s.size**2, look.shading, look.behind
                )
            difference = (rendered.image - look.pixels[chosen]).square().mean()
            terms = {"difference": difference.sqrt()} | self._learn(GAIN * difference, rendered)
        return terms

    def _apply(self) -> None:
        """Moves the parameters, unless the gradient is not finite: then the step is left out and the scale lowered."""
        self.scaler.unscale_(self.optimizer)
        gradients = [p.grad for p in self.renderer.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if not torch.isfinite(norm):
            self.skipped += 1
            if self.skipped >= RECENT:
                raise TrainingError(
                    f"{RECENT} gradients in a row were no numbers: train with a smaller --lr"
                )
            done = "the step is left out"
            if self.half:
                self.scaler.update(self.scaler.get_scale() / 2)
                done += f", and the gradient's scale lowered to {self.scaler.get_scale():g}"
            tqdm.write(f"step {self.step}: the gradient is not finite: {done}")
            return
        self.skipped = 0
        self.optimizer.step()  # not the scaler's, which would look once more whether the gradient is finite
        self.scaler.update()
        with torch.no_grad():
            torch._foreach_lerp_(
                self.average, list(self.renderer.parameters()), 1 - self.settings.ema
            )

    def _watch(self) -> None:
        """Raises TrainingError for a field with nothing to be seen, or nothing but fog."""
        if len(self.opacities) < RECENT:
            return
        mean = sum(self.opacities) / len(self.opacities)
        if mean < EMPTY:
            raise TrainingError(
                "the field has become empty: lower --lambda_opacity, raise --guidance_scale, or take another --seed"
            )
        if mean > FULL:
            raise TrainingError(
                "the field has filled its box: raise --lambda_opacity, or lower --lr or --guidance_scale"
            )

    # --- The averaged field

    def averaged(self) -> "Averaged":
        """`with trainer.averaged():` the field holds its averaged parameters."""
        return Averaged(self)

    def images(self, cameras: Cameras, size: int, look: str = "albedo") -> list[Tensor]:
        """Finished images (5, size, size) of the averaged field."""
        with self.averaged():
            return list(self.renderer.render_eval(cameras, size, size, Shading(look)))

    # --- On the disk

    @property
    def checkpoints(self) -> Path:
        return self.workspace / "checkpoints"

    def described(self) -> dict[str, Any]:
        """What has to be asked for to have this run again, in JSON's terms."""
        model = self.guidance.model
        # A folder by its whole path: the run may go on from another working directory.
        is_folder = Path(model.name).expanduser().resolve() == model.folder
        return {
            "settings": asdict(self.settings),
            "guidance": asdict(self.guidance.options),
            "model": str(model.folder) if is_folder else model.name,
            "half": self.half,
        }

    def save(self) -> Path:
        """Writes a checkpoint with all that the next step depends on."""
        state = {
            **self.described(),
            "renderer": self.renderer.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "generator": self.generator.get_state(),
            "opacities": list(self.opacities),
            "targets": [target.state() for target in self.targets],
        }
        return checkpoint.save(self.checkpoints, self.step, state)

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint, with the settings of this run: its learning rate, and its precision. A new seed
        starts new random numbers.

        Raises CheckpointError if the checkpoint is not whole, of another network or of another program.
        """
        step, state = checkpoint.load(path, self.guidance.device)
        before = description(path, state)
        earlier, own = Settings(**before["settings"]), self.settings
        for name in (
            "backbone",
            "levels",
            "bound",
            "cells",
            "background",
            "optimizer",
            "space",
            "size",
        ):
            if getattr(earlier, name) != getattr(own, name):
                raise checkpoint.CheckpointError(
                    f"{path} was made with {name} {getattr(earlier, name)!r}, this run has {getattr(own, name)!r}"
                )
        try:
            self._restore(state)
            if earlier.seed == own.seed:
                self.generator.set_state(state["generator"].cpu())
            if before["half"] and self.half:
                for name, value in state["scaler"].items():
                    check_number(name, value)
                self.scaler.load_state_dict(state["scaler"])
        except (
            ArithmeticError,
            AttributeError,
            LookupError,
            RuntimeError,
            TypeError,
            ValueError,
        ) as error:
            if memory.is_out_of_memory(error):
                raise
            raise checkpoint.foreign(path, error) from error
        self.step = step

    def _restore(self, state: dict[str, Any]) -> None:
        """Take over what a checkpoint says of the field and its training. Raises the errors of wrong data."""
        parameters = list(self.renderer.parameters())
        self.renderer.load_state_dict(state["renderer"])
        self.average = [
            check_shape("average", value, p.shape).to(p)
            for value, p in zip(state["average"], parameters, strict=True)
        ]
        groups = self.optimizer.state_dict()["param_groups"]  # this run's, with its learning rate
        self.optimizer.load_state_dict(
            {"state": state["optimizer"]["state"], "param_groups": groups}
        )
        for parameter, values in self.optimizer.state.items():
            if set(values) != OPTIMIZER_STATE[self.settings.optimizer]:
                raise ValueError(f"the optimizer has {', '.join(map(str, values))}")
            for name, value in values.items():
                if name == "step":
                    check_number(name, value, 0)
                else:
                    check_shape(name, value, parameter.shape)
        self.opacities = deque(map(float, state["opacities"]), maxlen=RECENT)
        targets = [
            Target.of(target, self.settings, self.guidance.device) for target in state["targets"]
        ]
        self.targets = deque(targets, maxlen=self.settings.keep)

    def preview(self) -> Path:
        """A sheet of the averaged field from four sides, and of what the guidance saw and wants in the last step."""
        sides = self.images(orbit(4), 128)
        rows = [to_pil(2 * image[:3] - 1) for image in sides]
        angles = self.cameras.azimuth, self.cameras.elevation
        wanted = self.guidance.preview(self.seen, self.prompts, *angles, self.progress)
        rows += [
            to_pil(2 * images[0] - 1)
            for images in [self.guidance.decode_latents(self.seen.latents), *wanted]
        ]
        titles = [
            "front",
            "right",
            "back",
            "left",
            "picture",
            "x_t",
            "x_0 in one step",
            "x_0 in ten",
        ]
        path = self.workspace / "previews" / f"{self.step:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(path) as new:
            image_grid(rows, columns=4, titles=titles, side=128).save(new)
        return path

    # --- The whole run

    def train(
        self,
        save_every: int = 200,
        preview_every: int = 200,
        after_step: Callable[[dict[str, float]], None] | None = None,
    ) -> bool:
        """Steps until `iters`; returns False if Ctrl-C, SIGTERM, SIGHUP, or whoever sets `interrupt.asked`, ended it
        before. Saves at the end in either case. after_step: called with what train_step returned; an error in it ends
        the run at once. Raises OutOfMemory.
        """
        from torch.utils.tensorboard import SummaryWriter  # slow to import

        s = self.settings
        self.workspace.mkdir(parents=True, exist_ok=True)
        described = self.described()
        described |= described.pop("settings")
        files.write_text(self.workspace / SETTINGS, json.dumps(described, indent=1) + "\n")
        saved: Path | None = None
        bar = tqdm(total=s.iters, initial=self.step, desc=s.text[:40], unit="step", smoothing=0.05)
        with (
            SummaryWriter(self.workspace / "logs", purge_step=self.step) as writer,
            self.interrupt,
            bar,
        ):
            while self.step < s.iters and not self.interrupt.asked:
                with memory.reported("training", RENDER_REMEDY):
                    terms = self.train_step()
                bar.update()
                if self.step % 10 == 0:
                    bar.set_postfix(
                        {name: f"{value:.3g}" for name, value in terms.items()}, refresh=False
                    )
                    for name, value in terms.items():
                        writer.add_scalar(name, value, self.step)
                # Before the checkpoint: a run that is killed in between goes on before this step, and makes it again.
                if preview_every and self.step % preview_every == 0:
                    with memory.reported("making a preview", "take --preview_every 0"):
                        self.preview()
                if self.step % save_every == 0 or self.step == s.iters:
                    saved = self.save()
                if after_step:
                    after_step(terms)
        if self.step < s.iters and (saved is None or int(saved.name) != self.step):
            self.save()
        return self.step >= s.iters


class Averaged:
    """Within the block a trainer's field holds its averaged parameters, afterwards its own again."""

    def __init__(self, trainer: Trainer) -> None:
        self.parameters, self.average = list(trainer.renderer.parameters()), trainer.average

    @torch.no_grad()
    def __enter__(self) -> None:
        self.own = [p.clone() for p in self.parameters]
        torch._foreach_copy_(self.parameters, self.average)

    @torch.no_grad()
    def __exit__(self, *_: object) -> None:
        torch._foreach_copy_(self.parameters, self.own)


class Interrupt:
    """A first Ctrl-C, SIGTERM or SIGHUP sets `asked`, so that the step is finished and the run saved. A second Ctrl-C
    or SIGTERM stops at once.

    A signal that the process ignores stays ignored, as nohup asks for with SIGHUP.
    """

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> "Interrupt":
        self.terminals = [stream for stream in (1, 2) if os.isatty(stream)]
        numbers = [
            getattr(signal, name)
            for name in ("SIGINT", "SIGTERM", "SIGHUP")
            if hasattr(signal, name)
        ]
        handlers = {number: signal.getsignal(number) for number in numbers}
        self.before = {
            n: handler for n, handler in handlers.items() if handler not in (signal.SIG_IGN, None)
        }
        for number in self.before:
            signal.signal(number, self._handle)
        return self

    def _handle(self, number: int, *_: object) -> None:
        self.asked = True
        self._restore()
        if number == getattr(signal, "SIGHUP", None):
            signal.signal(number, signal.SIG_IGN)  # a shell that ends sends another one
        for stream in self.terminals:
            if not os.isatty(
                stream
            ):  # the terminal has gone: a line written to it would be an error
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        tqdm.write("stopping after this step ...")

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _restore(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

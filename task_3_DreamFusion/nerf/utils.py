"""Training: a field comes to look like a text prompt, guided by a text-to-image model.

    trainer = Trainer(settings, guidance, workspace)
    trainer.train()

A step samples cameras, renders them, and asks the guidance for a correction. With `--space latents`
that is a gradient, as in DreamFusion, and the optimizer takes one step. With `--space pixels` it is
a target image for each camera, and the field learns from random rays of the latest targets a few
times over: the denoiser is far more expensive than a ray, and few training steps do much
(Instruct-NeRF2NeRF, Haque et al. 2023, arXiv:2303.12789, renews its images in this way).
Checkpoints, previews and logs go to the workspace.
"""

import contextlib
import json
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from course.arguments import check_number
from course.files import replace_file, write_text
from course.images import image_grid, to_pil
from course.interrupt import Interrupt
from task_3_DreamFusion.nerf import checkpoint, memory
from task_3_DreamFusion.nerf.checkpoint import SavedRun
from task_3_DreamFusion.nerf.guidance import StableDiffusion
from task_3_DreamFusion.nerf.network import Background, Field, FrequencyField
from task_3_DreamFusion.nerf.network_grid import GridField
from task_3_DreamFusion.nerf.options import FailedRun, TrainingError
from task_3_DreamFusion.nerf.provider import MULTIVIEW, Cameras, ViewRange, orbit
from task_3_DreamFusion.nerf.regularizers import regularize
from task_3_DreamFusion.nerf.renderer import Renderer, RenderOutput, Shading
from task_3_DreamFusion.nerf.settings import SETTINGS, Settings
from task_3_DreamFusion.nerf.targets import Target, TargetRays, check_shape, wall_colors
from task_3_DreamFusion.optimizer import Adan

OPTIMIZER_STATE = {
    "adam": {"step", "exp_avg", "exp_avg_sq"},
    "adan": {"step", "mean", "change", "square", "before"},
}
RENDER_REMEDY = "lower --batch_size or --max_steps, or start again with a smaller --size"
PATIENCE = 50  # bad steps in a row (empty or full field, non-finite gradients) that end a run
PIXEL_WEIGHT = 1000.0  # of the loss in pixels: the regularizers' weights then suit both spaces
# Limits of the mean opacity of the rendered images; their corners may miss a box that is full.
MIN_OPACITY = 0.01
MAX_OPACITY = 0.97
PREVIEW_TITLES = ("front", "right", "back", "left", "image", "x_t", "x_0 in one step", "x_0 in ten")


def build_field(settings: Settings) -> Field:
    """Return the field of a run, initialized from torch's global generator."""
    if settings.backbone == "grid":
        return GridField(settings.bound, settings.levels)
    return FrequencyField(settings.bound, settings.levels)


def build_optimizer(settings: Settings, renderer: Renderer) -> torch.optim.Optimizer:
    """Return Adan or Adam over field and background, with 10 times the rate for a hash grid."""
    tables = [p for name, p in renderer.named_parameters() if "encoder" in name]
    others = [p for name, p in renderer.named_parameters() if "encoder" not in name]
    groups = [{"params": others, "lr": settings.lr}]
    if tables:
        groups.append({"params": tables, "lr": 10 * settings.lr})
    if settings.optim == "adan":
        return Adan(groups, eps=1e-8, weight_decay=2e-5)
    # Fused: fewer launches on a GPU, and on a CPU the table is read only once.
    return torch.optim.Adam(groups, betas=(0.9, 0.99), eps=1e-15, fused=True)


class Trainer:
    """A run: its field, optimizer and averaged field, and its files.

    Args:
        settings: of the run.
        guidance: the model that guides it; its text encoder is not needed afterwards.
        workspace: the folder for the results.
    """

    def __init__(self, settings: Settings, guidance: StableDiffusion, workspace: Path) -> None:
        self.guidance = guidance
        self.workspace = workspace
        self.views = MULTIVIEW if guidance.is_multiview else ViewRange()
        self.half = settings.half and guidance.device.type == "cuda"
        self.prompts = guidance.view_prompts(settings.prompt, settings.negative)
        self.interrupt = Interrupt()
        self._initialize(settings)

    def _initialize(self, settings: Settings) -> None:
        """Set up everything that depends on the seed."""
        self.settings = settings
        torch.manual_seed(settings.seed)
        self.generator = torch.Generator().manual_seed(settings.seed)
        background = Background() if settings.background == "network" else None
        field = build_field(settings)
        self.renderer = Renderer(field, background, settings.max_steps, settings.grid_size)
        self.renderer.to(self.guidance.device)
        self.optimizer = build_optimizer(settings, self.renderer)
        # A scale that hardly ever overflows, so that no step is lost; it grows by itself.
        scale = 2.0**10 if settings.space == "pixels" else 2.0**4
        device = self.guidance.device.type
        self.scaler = torch.amp.GradScaler(device, init_scale=scale, enabled=self.half)
        self.average = [p.detach().clone() for p in self.renderer.parameters()]
        self.targets: deque[Target] = deque(maxlen=settings.keep)
        self.step = 0
        self.opacities: deque[float] = deque(maxlen=PATIENCE)
        self.skipped = 0  # steps in a row whose gradient was not finite

    def restart(self, seed: int) -> None:
        """Start from step 0 with another seed; the checkpoints so far are removed."""
        checkpoint.remove_all(self.checkpoints)
        self._initialize(replace(self.settings, seed=seed))

    @property
    def progress(self) -> float:
        return self.step / self.settings.iters

    # --- One step

    def train_step(self) -> dict[str, float]:
        """Run one step.

        Returns "opacity", the mean of the rendered images, "noise_rmse" of the guidance, and the
        terms of the loss.
        """
        s = self.settings
        self._follow_schedules()
        widened = min(1.0, 0.5 + 0.5 * self.progress / s.widen) if s.widen else 1.0
        views = self.views.narrow(widened)
        self.cameras = views.sample(s.batch_size, self.generator, self.step)
        shading = self.shading(self.cameras)
        colors = None
        if s.background == "random":
            colors = torch.rand(s.batch_size, 3, generator=self.generator)
        with self._autocast(), torch.set_grad_enabled(s.space == "latents"):
            rendered = self.renderer(self.cameras, s.size, s.size, self.generator, shading, colors)
        angles = self.cameras.azimuth, self.cameras.elevation
        view = (rendered.image, self.prompts, *angles, self.generator, self.progress)
        if s.space == "latents":
            self.guided = self.guidance.train_step(*view)
            terms = self._learn(self.guided.loss, rendered)
        else:
            images, self.guided = self.guidance.target_images(*view)
            if s.background == "plain":
                colors = wall_colors(images, rendered.opacity, self.renderer.plain_color)
            self._add_targets(images, shading, colors)
            terms = self._learn_targets()
        terms = {"opacity": rendered.opacity.mean(), "noise_rmse": self.guided.noise_rmse} | terms
        tensors = [term.detach().float() for term in terms.values()]
        values = torch.stack(tensors).tolist()  # waits for the GPU once
        figures = dict(zip(terms, values, strict=True))
        self.opacities.append(figures["opacity"])
        self.step += 1
        self._check_opacity()
        return figures

    def _follow_schedules(self) -> None:
        """Fade in the levels of the encoding, and renew the occupancy grid every 16 steps."""
        share = self.settings.fade_in
        self.renderer.field.fade_in(0.4 + 0.6 * self.progress / share if share else 1.0)
        if self.step % 16 == 0:
            self.renderer.update_occupancy(self.generator, 1.0 if self.step < 64 else 0.25)

    def shading(self, cameras: Cameras) -> Shading:
        """Return the lighting of a step: none at first, then often one, sometimes without color."""
        s = self.settings
        chances = torch.rand(2, generator=self.generator).tolist()
        # Lights are near the camera; DreamFusion, appendix A.2, centers them on its direction.
        positions = cameras.poses()[:, :3, 3]
        noise = torch.randn(len(cameras), 3, generator=self.generator)
        lights = positions + 0.8 * cameras.radius[:, None] * noise
        if self.progress < s.albedo_iter_ratio or chances[0] >= s.shaded_ratio:
            return Shading()
        mode = "textureless" if chances[1] < s.textureless_ratio else "lambertian"
        return Shading(mode, lights, ambient=0.1)

    def _add_targets(self, images: Tensor, shading: Shading, colors: Tensor | None) -> None:
        """Add images (B, 3, H, W) for the cameras of this step to the targets."""
        for i, image in enumerate(images):
            lights = None if shading.lights is None else shading.lights[i : i + 1]
            color = None if colors is None else colors[i]
            one, normals = replace(shading, lights=lights), self.guided.target_normals
            own = None if normals is None else normals[i]
            self.targets.append(Target(self.cameras[i : i + 1], image, one, color, own))

    @memory.reported("learning from the targets", "lower --rays, --reuse or --max_steps")
    def _learn_targets(self) -> dict[str, Tensor]:
        """Learn `reuse` times from random rays of the targets; return the terms of the last time.

        Rays that are lit in different ways are not mixed: each time has those of the targets of one
        mode. All rays are marched at once, because the occupancy grid does not change meanwhile.
        """
        s = self.settings
        batches = self._sample_target_rays()
        origins = torch.cat([rays.origins[chosen] for rays, chosen in batches])
        directions = torch.cat([rays.directions[chosen] for rays, chosen in batches])
        parts = self.renderer.march(origins, directions, self.generator).split(s.rays)
        terms: dict[str, Tensor] = {}
        each_directions = directions.split(s.rays)
        for samples, rays_d, (rays, chosen) in zip(parts, each_directions, batches, strict=True):
            owners = chosen // s.size**2  # the target of each ray
            with self._autocast():
                rendered = self.renderer.render(
                    samples, rays_d, owners, rays.shading, rays.background_colors
                )
            loss = (rendered.image - rays.colors[chosen]).square().mean()
            normals = None if rays.normals is None else rays.normals[chosen]
            terms = self._learn(PIXEL_WEIGHT * loss, rendered, normals)
            terms = {"target_rmse": loss.sqrt()} | terms
        return terms

    def _sample_target_rays(self) -> list[tuple[TargetRays, Tensor]]:
        """Return `reuse` batches: the rays of one mode, and the indices (rays,) of some."""
        s, device = self.settings, self.guidance.device
        modes: dict[str, TargetRays] = {}
        batches = []
        for _ in range(s.reuse):
            index = int(torch.randint(len(self.targets), (), generator=self.generator))
            mode = self.targets[index].shading.mode
            if mode not in modes:
                targets = [target for target in self.targets if target.shading.mode == mode]
                modes[mode] = TargetRays.from_targets(targets, s.size, device)
            count = len(modes[mode].colors)
            chosen = torch.randint(count, (s.rays,), generator=self.generator)
            batches.append((modes[mode], chosen.to(device, non_blocking=True)))
        return batches

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.guidance.device.type, torch.float16, enabled=self.half)

    def _learn(
        self, loss: Tensor, rendered: RenderOutput, normals: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Take an optimizer step on the loss and the regularizing terms; return these terms."""
        terms = regularize(rendered, self.renderer, self.settings, self.progress, normals)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss + sum(terms.values())).backward()
        self._apply_gradient()
        return terms

    def _apply_gradient(self) -> None:
        """Update the parameters; if the gradient is not finite, skip that and lower the scale."""
        self.scaler.unscale_(self.optimizer)
        gradients = [p.grad for p in self.renderer.parameters() if p.grad is not None]
        if not torch.isfinite(torch.nn.utils.get_total_norm(gradients)):
            self._skip_step()
            return
        self.skipped = 0
        self.optimizer.step()  # not the scaler's, which would check the gradient once more
        self.scaler.update()
        with torch.no_grad():
            parameters: list[Tensor] = list(self.renderer.parameters())
            torch._foreach_lerp_(self.average, parameters, 1 - self.settings.ema)

    def _skip_step(self) -> None:
        self.skipped += 1
        if self.skipped >= PATIENCE:
            raise TrainingError(f"{PATIENCE} non-finite gradients in a row: lower --lr")
        message = "non-finite gradient, the step is skipped"
        if self.half:
            self.scaler.update(self.scaler.get_scale() / 2)
            message += f", and the gradient scale lowered to {self.scaler.get_scale():g}"
        tqdm.write(f"step {self.step}: {message}")

    def _check_opacity(self) -> None:
        """Raise FailedRun for a field in which nothing is visible, or nothing but fog."""
        if len(self.opacities) < PATIENCE:
            return
        mean = sum(self.opacities) / len(self.opacities)
        if mean < MIN_OPACITY:
            raise FailedRun("the field has become empty")
        if mean > MAX_OPACITY:
            raise FailedRun("the field has filled its box")

    # --- The averaged field

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Give the field its averaged parameters within the block."""
        parameters = [p.detach() for p in self.renderer.parameters()]
        own = [p.clone() for p in parameters]
        torch._foreach_copy_(parameters, self.average)
        try:
            yield
        finally:
            torch._foreach_copy_(parameters, own)

    def images(self, cameras: Cameras, size: int, mode: str = "albedo") -> list[Tensor]:
        """Return images (5, size, size) of the averaged field."""
        with self.averaged():
            return list(self.renderer.render_eval(cameras, size, size, Shading(mode)))

    def preview(self) -> Path:
        """Write a sheet of images; return its path.

        They are the averaged field from four sides, then what the guidance saw in the last step,
        and what it wants instead.
        """
        images = [image[:3] for image in self.images(orbit(4), 128)]
        angles = self.cameras.azimuth, self.cameras.elevation
        wanted = self.guidance.preview(self.guided, self.prompts, *angles, self.progress)
        seen = self.guidance.decode_latents(self.guided.latents)
        images += [batch[0] for batch in (seen, *wanted)]
        path = self.workspace / "previews" / f"{self.step:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        with replace_file(path) as new:
            sheet = [to_pil(2 * image - 1) for image in images]
            image_grid(sheet, columns=4, titles=PREVIEW_TITLES, side=128).save(new)
        return path

    # --- Checkpoints

    @property
    def checkpoints(self) -> Path:
        return self.workspace / "checkpoints"

    def describe(self) -> dict[str, Any]:
        """Return what starts the same run again, as JSON can hold it."""
        model = self.guidance.model
        # A folder by its whole path: the run may be resumed from another working directory.
        is_folder = Path(model.name).expanduser().resolve() == model.folder
        return {
            "settings": asdict(self.settings),
            "guidance": asdict(self.guidance.options),
            "model": str(model.folder) if is_folder else model.name,
        }

    def save(self) -> Path:
        """Write a checkpoint of everything that the next step depends on; return its path."""
        state = {
            **self.describe(),
            "renderer": self.renderer.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "generator": self.generator.get_state(),
            "opacities": list(self.opacities),
            "targets": [target.state() for target in self.targets],
        }
        return checkpoint.save(self.checkpoints, self.step, state)

    def resume(self, saved: SavedRun) -> None:
        """Continue from a checkpoint, with the settings of this run.

        With another seed the random numbers start anew. Raises CheckpointError if the checkpoint is
        of another network or of another program.
        """
        saved.check_compatible(self.settings)
        try:
            self._restore(saved.state)
            if saved.settings.seed == self.settings.seed:
                self.generator.set_state(saved.state["generator"])
            if saved.state["scaler"] and self.half:
                for name, value in saved.state["scaler"].items():
                    check_number(name, value)
                self.scaler.load_state_dict(saved.state["scaler"])
        except Exception as error:  # foreign data raises errors of all kinds
            if memory.is_out_of_memory(error):
                raise
            raise checkpoint.foreign(saved.path, error) from error
        self.step = saved.step

    def _restore(self, state: dict[str, Any]) -> None:
        """Load the field and its training. Raises errors of all kinds for foreign data."""
        parameters = list(self.renderer.parameters())
        self.renderer.load_state_dict(state["renderer"])
        self.average = [
            check_shape("average", value, p.shape).to(p)
            for value, p in zip(state["average"], parameters, strict=True)
        ]
        groups = self.optimizer.state_dict()["param_groups"]  # with the learning rate of this run
        optimizer = {"state": state["optimizer"]["state"], "param_groups": groups}
        self.optimizer.load_state_dict(optimizer)
        for parameter, values in self.optimizer.state.items():
            if set(values) != OPTIMIZER_STATE[self.settings.optim]:
                raise ValueError(f"the optimizer has {', '.join(map(str, values))}")
            for name, value in values.items():
                if name == "step":
                    check_number(name, value, 0)
                else:
                    check_shape(name, value, parameter.shape)
        self.opacities = deque(map(float, state["opacities"]), maxlen=PATIENCE)
        targets = [
            Target.from_state(target, self.settings, self.guidance.device)
            for target in state["targets"]
        ]
        self.targets = deque(targets, maxlen=self.settings.keep)

    # --- The whole run

    def train(
        self,
        save_every: int = 200,
        preview_every: int = 200,
        after_step: Callable[["Trainer", dict[str, float]], None] | None = None,
    ) -> bool:
        """Train up to step `iters`, and save; return False if it was interrupted.

        Ctrl-C, SIGTERM, SIGHUP and `interrupt.requested` end the run after the current step.

        Args:
            after_step: called with this trainer and what `train_step` returned, before the step is
                saved; an error in it ends the run at once.

        Raises OutOfMemory.
        """
        from torch.utils.tensorboard import SummaryWriter  # slow to import

        s = self.settings
        self.workspace.mkdir(parents=True, exist_ok=True)
        described = self.describe()
        described |= described.pop("settings")
        write_text(self.workspace / SETTINGS, json.dumps(described, indent=1) + "\n")
        saved: int | None = None  # the step of the last checkpoint
        with (
            SummaryWriter(self.workspace / "logs", purge_step=self.step) as writer,
            self.interrupt,
            tqdm(
                total=s.iters, initial=self.step, desc=s.text[:40], unit="step", smoothing=0.05
            ) as bar,
        ):
            while self.step < s.iters and not self.interrupt.requested:
                with memory.reported("training", RENDER_REMEDY):
                    terms = self.train_step()
                bar.update()
                if self.step % 10 == 0:
                    shown = {name: f"{value:.3g}" for name, value in terms.items()}
                    bar.set_postfix(shown, refresh=False)
                    for name, value in terms.items():
                        writer.add_scalar(name, value, self.step)
                # Before the checkpoint: a run killed in between repeats this step and what follows.
                if preview_every and self.step % preview_every == 0:
                    with memory.reported("writing a preview", "use --preview_every 0"):
                        self.preview()
                if after_step:
                    after_step(self, terms)
                if self.step % save_every == 0 or self.step == s.iters:
                    self.save()
                    saved = self.step
        if self.step < s.iters and saved != self.step:
            self.save()
        return self.step >= s.iters

"""Joint diffusion, lesson 2: what surrounds the mathematics that the lesson writes.

Loading, batches of windows, requests, the loop over timesteps, and decoding are here. The lesson
adds the methods that place windows, fuse them and synchronize them.
"""

import copy
import itertools
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import MethodType
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from course.arguments import check_number
from course.diffusion.batches import in_batches, over_processes
from course.diffusion.guidance import guide
from course.diffusion.noise import check_finite, make_generator
from course.diffusion.predictions import add_noise, predict_noise
from course.diffusion.schedule import END, alpha_bar_at, timesteps
from course.errors import CourseWarning
from course.images.panorama import check_masks, check_sync
from course.metrics.perceptual import load_distance
from course.models import Model, RequestError, load_pipeline
from course.speed.cuda_graphs import CudaGraphModule
from course.speed.frozen_vae import LatentDecoder, optimize_frozen_vae

PAPER_STEPS = 50  # steps of the paper of SyncDiffusion, over which `decay` is counted

View = tuple[Tensor, Tensor]  # rows (k, 1) and columns (k,) of a window
# From windows (N, C, k, k) and the number of the step to windows, perhaps moved, and their noise.
Update = Callable[[Tensor, int, int], tuple[Tensor, Tensor]]


class Sync(NamedTuple):
    """How windows are synchronized."""

    weight: float  # lambda at the first step; through the decoder alone, the RMS of a move of x_0
    decay: float = 0.95  # the share of the weight that is left after one step of 50
    until: float = 1.0  # the share of the steps, from the first, that are synchronized,
    every: int = 1  # and of these every k-th
    scale: float = 1.0  # the size of the compared images
    # The gradient goes through decoder and "denoiser", or through the "decoder" alone.
    through: str = "denoiser"

    def is_active(self, i: int, count: int) -> bool:
        """Return whether step `i` of `count` is synchronized. The first always is."""
        return i < max(1, round(self.until * count)) and i % self.every == 0

    def weight_at(self, i: int, count: int) -> float:
        """Return the weight at step `i` of `count`; it falls as far as in the paper's 50 steps."""
        weight: float = self.weight * self.decay ** (PAPER_STEPS * i / count)
        return weight


class Defaults(NamedTuple):
    """What `JointSampler.sample` takes for arguments that are not given."""

    prompts: str
    num_sampling_steps: int
    guidance_scale: float
    seed: int
    wide: int  # how many times as wide as high a panorama is


class Step(NamedTuple):
    """A step at timestep `t`: the predicted panorama and the next latents, both (1, C, h, w)."""

    t: int
    x_0: Tensor
    x_prev: Tensor


def window_weights(count: int, window: int, smooth: bool = True) -> Tensor:
    """Return weights (count, 1, k, k) of windows: 1, or `smooth`, lower at the border, never 0."""
    ramp = torch.ones(window)
    if smooth:
        ramp = 1 - ((torch.arange(window) + 0.5) / window * 2 - 1).abs()  # (k,)
    return (ramp[:, None] * ramp).expand(count, 1, window, window)


class JointSampler:
    """The networks of a model, applied to the windows of a panorama.

    Lesson 2 adds `defaults`, and the methods that are declared here without a body.
    """

    defaults: Defaults

    window_views: Callable[..., list[View]]
    joint_step: Callable[..., tuple[Tensor, Tensor]]
    descend: Callable[..., Tensor]
    synchronize: Callable[..., Tensor]
    synchronize_x0: Callable[..., Tensor]
    decode_closed: Callable[..., Tensor]
    recommended: Callable[[], Sync]

    def __init__(
        self,
        model: Model,
        window_batch: int | None = None,
        gradient_batch: int | None = None,
        compile: bool = False,
    ) -> None:
        """Load the networks of `model`, frozen.

        window_batch: windows in one call of the denoiser; by default 1 on a CPU, else 16.
        gradient_batch: the same where a gradient is computed. compile: also by torch.compile.
        """
        pipe = load_pipeline(model)
        self.model, self.scheduler = model, pipe.scheduler
        self.tokenizer, self.text_encoder = pipe.tokenizer, pipe.text_encoder
        self.unet, self.vae = pipe.unet, pipe.vae
        for network in (self.unet, self.vae, self.text_encoder):
            network.requires_grad_(False).eval()
        optimize_frozen_vae(self.vae)
        self.decoder: Any = LatentDecoder(self.vae)
        self.window = model.image_size // model.scale_factor  # its side in latent pixels
        self.window_batch = window_batch or (1 if model.device.type == "cpu" else 16)
        few = 4 if model.dtype == torch.float16 else self.window_batch
        self.gradient_batch = gradient_batch or few  # a gradient keeps the outputs of all layers
        self.distance_name, self.distance = load_distance(model)
        self.x0_histories: deque[list[Tensor]] = deque(maxlen=2)
        self.skipped: list[Tensor] = []  # for each synchronized step, whether it was skipped
        if model.device.type == "cuda":
            self.unet = CudaGraphModule(self.unet, compile=compile)
            self.decoder = CudaGraphModule(self.decoder, gradients=True)
            module = cast(torch.nn.Module, self.distance)
            self.distance = CudaGraphModule(module, gradients=True)

    def replaced(self, **methods: Callable[..., Any]) -> Any:
        """Return a copy in which methods are other functions, whose first argument is the copy."""
        other = copy.copy(self)
        for name, method in methods.items():
            setattr(other, name, MethodType(method, other))
        return other

    # --- Text, noise, latents

    @torch.no_grad()
    def embed_window_prompts(
        self, prompts: str | Sequence[str], negative_prompts: str | Sequence[str], count: int
    ) -> Tensor:
        """Return vectors (2, count, L, D) of negative prompts, then of prompts.

        A prompt counts for all windows; a list has one for each of the `count` windows.
        """
        prompts, negative_prompts = self.model.pair_prompts(prompts, negative_prompts)
        if len(prompts) not in (1, count):
            raise RequestError(
                f"There are {len(prompts)} prompts for {count} windows: give one for all, or as "
                "many."
            )
        length = self.model.text_length
        options = dict(padding="max_length", max_length=length, truncation=True)
        tokens = self.tokenizer([*negative_prompts, *prompts], return_tensors="pt", **options)
        vectors: Tensor = self.text_encoder(tokens.input_ids.to(self.model.device))[0]
        return vectors.unflatten(0, (2, -1)).expand(-1, count, -1, -1)

    def draw_noise(self, height: int, width: int, seed: Any) -> Tensor:
        """Return noise (1, C, height, width), drawn on the CPU in float32."""
        shape = (1, self.unet.config.in_channels, height, width)
        return torch.randn(shape, generator=make_generator(seed)).to(self.model.device)

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Return images (B, 3, H, W), about in [-1, 1], of latents (B, C, h, w)."""
        scaled = (latents / self.vae.config.scaling_factor).to(self.vae.dtype)
        images: Tensor = self.vae.decode(scaled).sample.float()
        check_finite(images, "The decoded images")
        return images

    def decode_small(self, latents: Tensor, scale: float) -> Tensor:
        """Return images of latents (B, C, h, w), `scale` times as large as usual, to save time."""
        if scale != 1:
            latents = F.interpolate(latents, scale_factor=scale, mode="area")
        scaled = (latents / self.vae.config.scaling_factor).to(self.vae.dtype)
        return self.decoder(scaled).float()

    # --- Windows

    def plan_windows(
        self,
        height: int | None = None,
        width: int | None = None,
        stride: int | None = None,
        closed: bool = False,
        smooth: bool = True,
    ) -> tuple[tuple[int, int], list[View], Tensor]:
        """Return the size (h, w) of the latents, the views of the windows, and their weights.

        By default as high as the model's images, `defaults.wide` times as wide, and with a
        stride of a quarter of a window.
        """
        width = self.defaults.wide * self.model.image_size if width is None else width
        stride = self.window // 4 if stride is None else stride
        size, device = self.model.latent_size(height, width), self.model.device
        views = self.window_views(*size, self.window, stride, closed)
        weights = window_weights(len(views), self.window, smooth).to(device)
        return size, [(rows.to(device), columns.to(device)) for rows, columns in views], weights

    def predict_noise(
        self, windows: Tensor, t: int, embeddings: Tensor, guidance_scale: float
    ) -> Tensor:
        """Return the guided noise in windows (N, C, k, k) at timestep `t`.

        embeddings: (2, N, L, D). The output of a network that predicts v is converted.
        """

        def predict(part: Tensor) -> Tensor:
            both = torch.cat([windows[part], windows[part]]).to(self.unet.dtype)  # (2b, C, k, k)
            texts = embeddings[:, part].flatten(0, 1)
            output = self.unet(both, t, encoder_hidden_states=texts).sample.float()
            uncond, cond = output.chunk(2)
            return guide(uncond, cond, guidance_scale)

        indices = torch.arange(len(windows), device=windows.device)
        output = in_batches(predict, indices, self.window_batch)
        alpha_bar = alpha_bar_at(self.scheduler, t)
        return predict_noise(windows, output, alpha_bar, self.model.prediction_type)

    def descend_windows(
        self,
        windows: Tensor,
        to_images: Callable[[Tensor, Tensor], Tensor],
        anchor: Tensor,
        weight: float,
        index: int | None = None,
    ) -> Tensor:
        """Return windows (N, C, k, k) after the lesson's `descend`, all but the anchor's.

        `index` is the anchor's; by default it is the window in the middle. `to_images(inputs,
        part)` returns the images of the windows with the indices `part`. If a gradient is not
        finite, all windows stay as they were: fusing would spread it.
        """
        if len(windows) == 1:
            return windows  # the anchor alone
        anchor_index = len(windows) // 2 if index is None else index

        def move(part: Tensor) -> Tensor:
            images_of_part = lambda inputs: to_images(inputs, part)
            return self.descend(windows[part], images_of_part, anchor, weight)

        others = torch.arange(len(windows) - 1, device=windows.device)
        others += others >= anchor_index
        move_part = partial(in_batches, move, max_size=self.gradient_batch)
        moved = windows.index_copy(0, others, over_processes(move_part, others))
        finite = moved.isfinite().all()
        self.skipped.append(~finite)  # read at the end of sampling: here a GPU would wait
        return torch.where(finite, moved, windows)

    # --- The loop

    def make_update(
        self, embeddings: Tensor, guidance_scale: float, count: int, sync: Sync | None = None
    ) -> Update:
        """Return the function that gives the windows of a step and the noise in them.

        Synchronized steps move the windows: by the lesson's `synchronize`, formula (4), or by
        its shortcut `synchronize_x0`. Without `sync` none is moved.
        """
        guidance_scale = check_number("guidance_scale", guidance_scale)

        def update(windows: Tensor, t: int, i: int) -> tuple[Tensor, Tensor]:
            def predict(inputs: Tensor, part: Any = slice(None)) -> Tensor:
                return self.predict_noise(inputs, t, embeddings[:, part], guidance_scale)

            def predict_all(windows: Tensor) -> Tensor:
                indices = torch.arange(len(windows), device=windows.device)
                return over_processes(lambda part: predict(windows[part], part), indices)

            if sync is None or not sync.is_active(i, count):
                return windows, predict_all(windows)
            alpha_bar, weight = alpha_bar_at(self.scheduler, t), sync.weight_at(i, count)
            if sync.through == "decoder":
                noise = predict_all(windows)
                windows = self.synchronize_x0(windows, noise, alpha_bar, weight, sync.scale)
                return windows, noise
            windows = self.synchronize(windows, predict, alpha_bar, weight, sync.scale)
            return windows, predict_all(windows)

        return update

    @torch.no_grad()
    def denoise(
        self,
        latents: Tensor,
        views: list[View],
        weights: Tensor,
        count: int,
        update: Update,
        turn: int = 0,
    ) -> Iterator[Step]:
        """Yield a `Step` for each of `count` timesteps, from noise (1, C, h, w) to a panorama.

        Each is the lesson's `joint_step`. turn: on a ring, windows begin at another one of so many
        columns at each step; 0 for none. Raises CourseError if latents are not finite.
        """
        visited, states = [*timesteps(self.scheduler.config, count), END], []
        for i, (t, t_prev) in enumerate(itertools.pairwise(visited)):
            levels = [alpha_bar_at(self.scheduler, s) for s in (t, t_prev)]
            shift = int(turn * (0.618 * i % 1))  # multiples of the golden ratio are spread evenly
            step_update = lambda windows, t=t, i=i: update(windows, t, i)
            turned = latents.roll(-shift, dims=-1)
            x_0, latents = self.joint_step(turned, views, weights, step_update, *levels)
            latents = latents.roll(shift, dims=-1)
            states.append(latents)
            yield Step(t, x_0.roll(shift, dims=-1), latents)
        # At the end, as each look at a number makes a GPU wait.
        for i, (state, t) in enumerate(zip(states, visited, strict=False)):
            check_finite(state, f"The latents after step {i + 1} of {count} (t = {t})")

    def sample_latents(
        self,
        prompts: str | Sequence[str] | None = None,
        negative_prompts: str | Sequence[str] = "",
        height: int | None = None,
        width: int | None = None,
        stride: int | None = None,
        num_sampling_steps: int | None = None,
        guidance_scale: float | None = None,
        seed: int | None = None,
        use_syncdiffusion: bool = False,
        sync: Sync | None = None,
        closed: bool = False,
        smooth: bool = True,
    ) -> Tensor:
        """Return the latents (1, C, h, w) of a panorama.

        The x_0 of each step are in `x0_histories[-1]`, those of the panorama before in `[-2]`.

        height, width: in pixels. stride: between windows, in latent pixels. closed: the right edge
        meets the left one. What is None has the value in `defaults`, or in `plan_windows`. Raises
        RequestError for an invalid request.
        """
        setting = lambda name, value: getattr(self.defaults, name) if value is None else value
        prompts, seed = setting("prompts", prompts), setting("seed", seed)
        guidance_scale = setting("guidance_scale", guidance_scale)
        count = self.model.check_steps(setting("num_sampling_steps", num_sampling_steps))
        size, views, weights = self.plan_windows(height, width, stride, closed, smooth)
        if use_syncdiffusion:
            sync = check_sync(sync or self.recommended(), self.window)
        else:
            sync = None
        embeddings = self.embed_window_prompts(prompts, negative_prompts, len(views))
        update = self.make_update(embeddings, guidance_scale, count, sync)
        latents = self.draw_noise(*size, seed)
        # On a ring the stride, so that no column is the border of a window at every step.
        turn = int(views[1][1][0] - views[0][1][0]) if closed and len(views) > 1 else 0
        self.x0_histories.append([])
        self.skipped = []
        for step in tqdm(
            self.denoise(latents, views, weights, count, update, turn), total=count, leave=False
        ):
            self.x0_histories[-1].append(step.x_0)
            latents = step.x_prev
        if skipped := int(sum(map(int, self.skipped))):
            text = f"In {skipped} of {count} steps a gradient was not finite: they were not "
            warnings.warn(f"{text}synchronized.", CourseWarning, stacklevel=2)
        return latents

    @torch.no_grad()
    def sample(
        self, prompts: str | Sequence[str] | None = None, closed: bool = False, **settings: Any
    ) -> Tensor:
        """Return a panorama (3, H, W) in [-1, 1]; arguments as of `sample_latents`."""
        latents = self.sample_latents(prompts, closed=closed, **settings)
        decode = self.decode_closed if closed else self.decode_latents
        return decode(latents)[0].clamp(-1, 1).cpu()

    # --- Regions

    @torch.no_grad()
    def sample_regions(
        self,
        background: str,
        regions: Sequence[tuple[str, Any]],
        seed: int | None = None,
        num_sampling_steps: int | None = None,
        **plan: Any,
    ) -> Tensor:
        """Return an image (3, H, W) of a prompt and regions [(prompt, mask), ...].

        mask: (h, w), from 0 to 1, of latent pixels. Each window is denoised once for every region
        that it touches, and weighted by the region's mask: MultiDiffusion, section 4.2. plan:
        arguments of `plan_windows`. Raises RequestError for an invalid request.
        """
        setting = lambda name, value: getattr(self.defaults, name) if value is None else value
        seed = setting("seed", seed)
        count = self.model.check_steps(setting("num_sampling_steps", num_sampling_steps))
        size, views, weights = self.plan_windows(**plan)
        masks = check_masks(regions, *size).to(self.model.device)[:, None]  # (R, 1, h, w)
        rest = (1 - masks.sum(dim=0, keepdim=True)).clamp_min(0)
        masks = torch.cat([rest, masks])  # the background's first
        pairs = [
            (r, view) for r, mask in enumerate(masks) for view in views if mask[:, *view].any()
        ]
        masks = torch.stack([masks[r][:, *view] for r, view in pairs])  # (N, 1, k, k)
        prompts = [background, *(prompt for prompt, _ in regions)]
        embeddings = self.embed_window_prompts([prompts[r] for r, _ in pairs], "", len(pairs))
        is_background = torch.tensor([r == 0 for r, _ in pairs], device=masks.device)
        free = masks.masked_fill(is_background[:, None, None, None], 1.0)  # without solid colors
        prepare = self.make_bootstrap(free, seed)
        predict = self.make_update(embeddings, self.defaults.guidance_scale, count)

        def update(windows: Tensor, t: int, i: int) -> tuple[Tensor, Tensor]:
            alpha_bar = alpha_bar_at(self.scheduler, t)
            return predict(prepare(windows, i / count, alpha_bar), t, i)

        views, latents = [view for _, view in pairs], self.draw_noise(*size, seed)
        for step in tqdm(
            self.denoise(latents, views, masks * weights[:1], count, update),
            total=count,
            leave=False,
        ):
            latents = step.x_prev
        return self.decode_latents(latents)[0].clamp(-1, 1).cpu()

    def make_bootstrap(
        self, masks: Tensor, seed: Any, share: float = 0.2
    ) -> Callable[[Tensor, float, Tensor], Tensor]:
        """Return a function that hides what lies beyond the masks of windows, as in MultiDiffusion.

        masks: (N, 1, k, k). In the first `share` of the steps the function replaces it by a solid
        color, another one for each window and step, at the noise level of the step.
        """
        generator = make_generator(seed)

        def prepare(windows: Tensor, progress: float, alpha_bar: Tensor) -> Tensor:
            if progress >= share:
                return windows
            colors = self._solid_color_latents(len(windows), generator)
            noise = torch.randn(windows.shape, generator=generator).to(windows.device)
            return masks * windows + (1 - masks) * add_noise(colors, noise, alpha_bar)

        return prepare

    def _solid_color_latents(self, count: int, generator: torch.Generator) -> Tensor:
        """Return latents (count, C, 1, 1) of images of one random color each."""
        colors = torch.rand((count, 3, 1, 1), generator=generator) * 2 - 1
        side = self.model.image_size // 4
        images = colors.expand(-1, -1, side, side).to(self.model.device, self.vae.dtype)
        latents = self.vae.encode(images).latent_dist.mean.float() * self.vae.config.scaling_factor
        return latents.mean(dim=(2, 3), keepdim=True)

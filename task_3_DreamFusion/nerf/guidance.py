"""Score distillation: a text-to-image model guides the 3D scene through images of it.

    guidance = StableDiffusion(find_model())
    prompts = guidance.view_prompts("a hamburger")
    output = guidance.train_step(images, prompts, azimuth, elevation, generator)
    output.loss.backward()

The exercise, the four functions at its heart, is in sd.py.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor
from torch.nn import functional as F

from course import diffusion
from course.checks import task_3 as checks
from course.errors import CourseError
from course.models import Model, load_pipeline
from course.models.estimators import Estimator, own_estimator
from course.models.multiview import VIEWS as NUM_VIEWS
from course.models.multiview import camera_features, join_views
from course.speed.cuda_graphs import CudaGraphModule
from course.speed.frozen_vae import LatentDecoder, LatentEncoder, optimize_frozen_vae
from task_3_DreamFusion.nerf import sd
from task_3_DreamFusion.nerf.options import check_unicode
from task_3_DreamFusion.nerf.settings import GuidanceOptions
from task_3_DreamFusion.nerf.views import VIEWS, ViewPrompts, negative_views

PERP_NEG_END = 0.9  # fraction of a run after which no view is pushed away: the rest is for detail

# omega(t) as a function of alpha_bar: 1 - alpha_bar (DreamFusion), constant, and one that is small
# at both ends (Fantasia3D).
WEIGHTINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigma2": lambda alpha_bar: 1 - alpha_bar,
    "uniform": torch.ones_like,
    "middle": lambda alpha_bar: alpha_bar.sqrt() * (1 - alpha_bar),
}


def omega_to_x0(alpha_bar: Tensor) -> Tensor:
    """Return the omega(t) with which a gradient step of length 1 leads to the predicted x_0.

    sqrt(1 - alpha_bar) / sqrt(alpha_bar): formula (5) of the lesson.
    """
    return (1 / alpha_bar - 1).sqrt()


class GuidanceError(CourseError, ValueError):
    """An invalid argument of the guidance; the message gives its value and what is allowed."""


def check_text(text: str) -> None:
    """Raise GuidanceError for a prompt that is empty or not valid UTF-8."""
    check_unicode("text", text, GuidanceError)
    if not text.strip():
        raise GuidanceError("text must not be empty: describe an object, such as 'a hamburger'.")


@dataclass(frozen=True)
class GuidanceOutput:
    """One step of guidance.

    loss: a scalar whose gradient in the latents is `gradient` / B; its value has no meaning.
    gradient: (B, 4, h, w). noise_rmse: a scalar, root mean square of predicted
    minus added noise; it falls as the images become what the model expects. timesteps: (B,).
    latents, noisy_latents, noise_pred: (B, 4, h, w). target_normals: (B, 3, H, W) of the surfaces
    in target images, in camera space, 0 where there is none; None without an estimator.
    """

    loss: Tensor
    gradient: Tensor
    noise_rmse: Tensor
    timesteps: Tensor
    latents: Tensor = field(repr=False)
    noisy_latents: Tensor = field(repr=False)
    noise_pred: Tensor = field(repr=False)
    target_normals: Tensor | None = field(default=None, repr=False)


def check_exercise(guidance: "StableDiffusion") -> None:
    """Report each part of TODO 3 in sd.py as right, or raise CheckFailed with what is wrong."""
    checks.prompt_embedding(sd.embed_text, guidance.model, guidance.text_encoder)
    checks.timesteps(sd.sample_timesteps)
    checks.noise_prediction(sd.predict_noise)
    checks.sds_step(sd.sds_step)


def fastest_dtype(model: Model) -> torch.dtype:
    """Return the dtype in which a model guides fastest: the model's own, or bfloat16 on some CPUs.

    CPUs that multiply bfloat16 matrices take half the time, and the rounding is far below the noise
    of the guidance.
    """
    # Older versions of PyTorch do not tell.
    capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    is_fast = capabilities.get("amx_bf16") or capabilities.get("avx512_bf16")
    return torch.bfloat16 if model.device.type == "cpu" and is_fast else model.dtype


def load_multiview(model: Model, dtype: torch.dtype) -> UNet2DConditionModel:
    """Return the denoiser of several views that lies beside a model. Raises GuidanceError."""
    folder = model.folder.parent / "multiview"
    if not folder.is_dir():
        raise GuidanceError(f"no multi-view denoiser in {folder}: use --prior image.")
    unet = UNet2DConditionModel.from_pretrained(folder, torch_dtype=dtype)
    join_views(unet)
    return unet.to(model.device).eval()


class StableDiffusion:
    """A text-to-image model as guidance for images of any size.

    model: from `course.models`. The denoiser runs without gradient, the VAE's encoder with one. The
    text encoder can be freed by `unload_text_encoder`. dtype: of all weights, by default the
    model's.
    """

    def __init__(
        self,
        model: Model,
        options: GuidanceOptions | None = None,
        compile: bool = False,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.model, self.options = model, options or GuidanceOptions()
        self.device, self.dtype = model.device, dtype or model.dtype
        pipe = load_pipeline(model, dtype=self.dtype)
        self.text_encoder = pipe.text_encoder
        self.is_multiview = self.options.prior == "multiview"
        unet = load_multiview(model, self.dtype) if self.is_multiview else pipe.unet
        vae = optimize_frozen_vae(pipe.vae.requires_grad_(False))
        self.encoder = CudaGraphModule(LatentEncoder(vae), gradients=True)
        self.decoder = CudaGraphModule(LatentDecoder(vae))
        self.unet = CudaGraphModule(unet.requires_grad_(False), compile=compile)
        self.scaling_factor: float = pipe.vae.config.scaling_factor
        self.alphas_cumprod = pipe.scheduler.alphas_cumprod.to(self.device, torch.float32)

    @cached_property
    def estimator(self) -> Estimator | None:
        """The estimator of normals that comes with the model, for target images."""
        return own_estimator("normals", self.model)

    # --- Prompts

    def embed_text(self, text: str) -> Tensor:
        """Return the embedding (L, D) of a prompt.

        Raises GuidanceError after `unload_text_encoder`.
        """
        if self.text_encoder is None:
            raise GuidanceError(f"text encoder is unloaded; cannot embed prompt {text!r}")
        return sd.embed_text(text, self.model.tokenizer, self.text_encoder, self.model.text_length)

    def view_prompts(self, text: str, negative: str = "") -> ViewPrompts:
        """Embed "<text>, <view> view" for each of VIEWS. Raises GuidanceError for an empty text.

        A model of several views knows the cameras, and gets the text alone.
        """
        if self.is_multiview:
            return self.plain_prompts(text, negative)
        return self._embed_views(text, negative, [f", {view} view" for view in VIEWS])

    def plain_prompts(self, text: str, negative: str = "") -> ViewPrompts:
        """Embed `text` alone for every view, for a single image; errors as in `view_prompts`."""
        return self._embed_views(text, negative, [""] * len(VIEWS))

    def _embed_views(self, text: str, negative: str, suffixes: list[str]) -> ViewPrompts:
        check_text(text)
        num_tokens = [len(self.model.tokenizer(suffix).input_ids) for suffix in suffixes]
        # Without the start and end tokens, which the prompt has too.
        text = self.model.check_prompt(text.strip(), max(num_tokens) - 2)
        negative = self.model.check_prompt(negative)
        prompts = [text + suffix for suffix in suffixes] + [negative]
        embeddings = torch.stack([self.embed_text(prompt) for prompt in prompts]).to(self.dtype)
        return ViewPrompts(text, embeddings[:-1], embeddings[-1:])

    def unload_text_encoder(self) -> None:
        """Free the text encoder's memory; `ViewPrompts` stay valid."""
        self.text_encoder = None
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    # --- Images and latents

    def encode_imgs(self, images: Tensor) -> Tensor:
        """Return latents (B, 4, h, w) in float32, with gradient, of images (B, 3, H, W) in [0, 1].

        Images are resized to the model's size. The latents are the mean of the encoder's
        distribution, since its noise would only add to the gradient's. Raises GuidanceError for
        another shape.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise GuidanceError(f"images must be (B, 3, H, W), got {tuple(images.shape)}.")
        size = self.model.image_size
        if images.shape[2:] != (size, size):
            images = F.interpolate(images, (size, size), mode="bilinear", align_corners=False)
        return self.encoder((2 * images - 1).to(self.dtype)).float() * self.scaling_factor

    @torch.no_grad()
    def decode_latents(self, latents: Tensor) -> Tensor:
        """Return images (B, 3, H, W) in [0, 1] of latents (B, 4, h, w)."""
        images = self.decoder((latents / self.scaling_factor).to(self.dtype))
        return (images.float() / 2 + 0.5).clamp(0, 1)

    # --- Timesteps

    def view_progress(self, progress: float, azimuth: Tensor) -> Tensor:
        """Return how far the timesteps of views (B,) have fallen, (B,), of 1 at the end of the run.

        progress: fraction of the run that is done. Views of the front are ahead and pass 1 early.
        azimuth: (B,) degrees.
        """
        angle = ((azimuth + 180) % 360 - 180).abs()
        return progress + self.options.front_lead * (1 - angle / 90).clamp(min=0)

    def sample_timesteps(self, progress: Tensor, generator: torch.Generator) -> Tensor:
        """Sample a timestep for each view, (B,), stratified: each from another part of its range.

        progress: (B,), from `view_progress`; 1 or more is at the end.
        """
        count = NUM_VIEWS if self.is_multiview else 1  # the views of an object share a timestep
        progress = progress[::count]
        low, high = self.options.t_range
        end = min(self.options.t_max_end, high)
        highest = (high + (end - high) * progress.cpu().clamp(0, 1)).clamp(min=low)
        lowest = (highest - self.options.t_window).clamp(min=low)
        timesteps = sd.sample_timesteps(lowest, highest, len(self.alphas_cumprod), generator)
        return timesteps.repeat_interleave(count).to(self.device, non_blocking=True)

    def alpha_bar(self, timesteps: Tensor) -> Tensor:
        """Return alphas_cumprod at timesteps (B,), as (B, 1, 1, 1)."""
        return self.alphas_cumprod[timesteps][:, None, None, None]

    # --- The denoiser

    @torch.no_grad()
    def predict_noise(
        self,
        noisy_latents: Tensor,
        timesteps: Tensor,
        prompts: ViewPrompts,
        azimuth: Tensor,
        elevation: Tensor,
        progress: float = 0.0,
    ) -> Tensor:
        """Return the predicted noise (B, 4, h, w), with classifier-free guidance and Perp-Neg.

        timesteps: (B,). azimuth, elevation: (B,) degrees, of the cameras. progress: fraction of the
        run that is done, on which the weight of Perp-Neg depends.
        """
        scale = self.options.guidance_scale
        perp_neg = self.options.perp_neg * max(1 - progress / PERP_NEG_END, 0.0)
        negative = prompts.negative.expand(len(noisy_latents), -1, -1)
        embeddings = [negative, prompts.at(azimuth, elevation)]
        combine: Callable[[list[Tensor]], Tensor] | None = None
        if perp_neg:
            views, weights = negative_views(azimuth)
            embeddings += [prompts.views[view] for view in views.T]
            weights = perp_neg * weights.T.to(noisy_latents)

            def push_away(noise_preds: list[Tensor]) -> Tensor:
                uncond, cond, *negatives = noise_preds
                return diffusion.perp_neg(uncond, cond, torch.stack(negatives), weights, scale)

            combine = push_away
        return sd.predict_noise(
            self._unet_with_cameras(azimuth, elevation) if self.is_multiview else self.unet,
            noisy_latents,
            timesteps,
            torch.stack(embeddings),
            self.alpha_bar(timesteps),
            self.model.prediction_type,
            scale,
            combine,
        )

    def _unet_with_cameras(self, azimuth: Tensor, elevation: Tensor) -> Callable[..., Any]:
        """Return the denoiser with the cameras of B views, of which a call repeats the batch."""
        cameras = camera_features(azimuth, elevation).to(self.dtype)

        def call(latents: Tensor, timesteps: Tensor, encoder_hidden_states: Tensor) -> Any:
            labels = cameras.repeat(len(latents) // len(cameras), 1)
            return self.unet(latents, timesteps, encoder_hidden_states, class_labels=labels)

        return call

    # --- The step

    def train_step(
        self,
        images: Tensor,
        prompts: ViewPrompts,
        azimuth: Tensor,
        elevation: Tensor,
        generator: torch.Generator,
        progress: float = 0.0,
        as_latents: bool = False,
        weighting: Callable[[Tensor], Tensor] | None = None,
    ) -> GuidanceOutput:
        """Run score distillation on rendered images.

        images: (B, 3, H, W) in [0, 1], or latents (B, 4, h, w) with `as_latents`. azimuth,
        elevation: (B,) degrees, of the cameras. generator: on the CPU. progress: fraction of the
        run that is done. weighting: omega(t) in place of the options', as in WEIGHTINGS.
        """
        latents = images if as_latents else self.encode_imgs(images)
        timesteps = self.sample_timesteps(self.view_progress(progress, azimuth), generator)
        azimuth = azimuth.to(timesteps.device, non_blocking=True)
        elevation = elevation.to(timesteps.device, non_blocking=True)

        def predict(x_t: Tensor, t: Tensor) -> Tensor:
            return self.predict_noise(x_t, t, prompts, azimuth, elevation, progress)

        alpha_bar = self.alpha_bar(timesteps)
        omega = (weighting or WEIGHTINGS[self.options.weighting])(alpha_bar)
        step = sd.sds_step(latents, timesteps, alpha_bar, omega, predict, generator)
        # Not .item(), which waits for the GPU.
        noise_rmse = (step.noise_pred - step.noise).square().mean().sqrt()
        return GuidanceOutput(
            step.loss,
            step.gradient,
            noise_rmse,
            timesteps,
            latents.detach(),
            step.noisy_latents,
            step.noise_pred,
        )

    def target_images(
        self,
        images: Tensor,
        prompts: ViewPrompts,
        azimuth: Tensor,
        elevation: Tensor,
        generator: torch.Generator,
        progress: float = 0.0,
    ) -> tuple[Tensor, GuidanceOutput]:
        """Run score distillation in pixels; return target images (B, 3, H, W) and the step.

        With `omega_to_x0` a gradient step on the loss of sd.py takes the latents to the predicted
        x_0. Decoded, they are a target for the field, and the encoder's Jacobian is not needed (as
        in HiFA, Zhu et al. 2023, arXiv:2305.18766). Arguments as in `train_step`.
        """
        with torch.no_grad():
            latents = self.encode_imgs(images)
        latents.requires_grad_()
        with torch.enable_grad():
            output = self.train_step(
                latents, prompts, azimuth, elevation, generator, progress, True, omega_to_x0
            )
            [gradient] = torch.autograd.grad(output.loss, latents)
        # The loss averages over the B images; each takes a step of its own.
        targets = self.decode_latents(output.latents - len(latents) * gradient)
        normals = None
        if self.estimator:
            normals = self.estimator(targets).permute(0, 3, 1, 2)
            normals = F.interpolate(normals, images.shape[2:], mode="area")
        output = replace(output, loss=output.loss.detach(), target_normals=normals)
        return F.interpolate(targets, images.shape[2:], mode="area"), output

    @torch.no_grad()
    def preview(
        self,
        output: GuidanceOutput,
        prompts: ViewPrompts,
        azimuth: Tensor,
        elevation: Tensor,
        progress: float = 0.0,
        steps: int = 10,
    ) -> list[Tensor]:
        """Decode the noisy latents, the predicted x_0, and x_0 after `steps` DDIM steps.

        Each (B, 3, H, W) in [0, 1].
        """
        x_t, noise_pred = output.noisy_latents, output.noise_pred
        first_x_0 = diffusion.predict_x0(x_t, noise_pred, self.alpha_bar(output.timesteps))
        x_0, cameras = first_x_0, (azimuth.to(x_t.device), elevation.to(x_t.device))
        for i in range(1, steps):
            timesteps = (output.timesteps * (steps - i) / steps).round().long()
            alpha_bar = self.alpha_bar(timesteps)
            x_t = diffusion.add_noise(x_0, noise_pred, alpha_bar)
            noise_pred = self.predict_noise(x_t, timesteps, prompts, *cameras, progress)
            x_0 = diffusion.predict_x0(x_t, noise_pred, alpha_bar)
        return [self.decode_latents(x) for x in (output.noisy_latents, first_x_0, x_0)]

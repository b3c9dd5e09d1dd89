"""Guidance: what a text-to-image model has to say about an image of the 3D scene (the exercise of task 3).

DreamFusion (Poole et al. 2022, arXiv:2209.14988) renders the scene, adds noise to the image, asks the denoiser for
the noise, and takes the difference as the gradient of the image: score distillation sampling, SDS.

    guidance = StableDiffusion(find_model())
    prompts = guidance.view_prompts("a hamburger")
    result = guidance.train_step(rgb, prompts, azimuth, elevation, generator)
    result.loss.backward()

TODO 3: fill in a function to compute the SDS loss, and generate 3D objects from text. It has three parts, (a) to (c),
each between BEGIN SOLUTION and END SOLUTION. ../README.md derives the formulas. Delete what stands there, write your
own, and let `python -m task_3_DreamFusion.sds_2d` tell you whether it is right.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from course import checks
from course.errors import CourseError
from course.models import Model, load_pipeline
from course.speed.cuda_graphs import fast
from course.speed.frozen_vae import LatentDecoder, LatentEncoder, lighten
from task_3_DreamFusion.nerf.settings import GuidanceOptions, check_unicode

VIEWS = ("front", "side", "back", "overhead")
FRONT, BACK, OVERHEAD = 45.0, 135.0, 60.0  # degrees: where a view word begins and ends
FACED = 0.9  # share of a run after which no view is pushed away: the rest is for detail


class GuidanceError(CourseError, ValueError):
    """The guidance cannot work with what it was given; the message says why."""


# w(t) as a function of alpha_bar: DreamFusion's sigma_t squared; none; and one that is small at either end (Fantasia3D)
WEIGHTINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigma2": lambda alpha_bar: 1 - alpha_bar,
    "uniform": torch.ones_like,
    "middle": lambda alpha_bar: alpha_bar.sqrt() * (1 - alpha_bar),
}


def check_text(text: str) -> None:
    """Raise GuidanceError for a text that is empty, or that holds bytes which are not UTF-8."""
    check_unicode("text", text, GuidanceError)
    if not text.strip():
        raise GuidanceError("the text is empty: say what to make, such as 'a hamburger'")


def view_weights(azimuth: Tensor, elevation: Tensor, blend: float = 15.0) -> Tensor:
    """How much each of VIEWS says about a camera: (B, 4), each row sums to 1.

    azimuth, elevation: (B,) degrees. Within `blend` degrees of the border of two words their weights cross linearly,
    so that no camera stands at a jump; at the border itself they are equal.
    """

    def above(angle: Tensor, border: float) -> Tensor:
        """0 below the border, 1 above it."""
        if blend == 0:
            return (angle >= border).to(angle)
        return ((angle - border) / (2 * blend) + 0.5).clamp(0, 1)

    turn = ((azimuth + 180) % 360 - 180).abs()
    overhead = above(elevation, OVERHEAD)
    side, back = above(turn, FRONT), above(turn, BACK)
    around = torch.stack([1 - side, side - back, back], -1) * (1 - overhead)[:, None]
    return torch.cat([around, overhead[:, None]], -1)


def rival_views(azimuth: Tensor, blend: float = 15.0) -> tuple[Tensor, Tensor]:
    """The two of front, side and back that a camera shows least, as places in VIEWS, and how wrong each is: (B, 2).

    azimuth: (B,) degrees. 1 is quite wrong, 0 a view that shows as much as any. Overhead is never among them: no object
    has its face there.
    """
    shown, rivals = view_weights(azimuth, torch.zeros_like(azimuth), blend)[:, :3].sort(
        dim=1, stable=True
    )
    return rivals[:, :2], (1 - 2 * shown[:, :2]).clamp(min=0)


@dataclass(frozen=True)
class ViewPrompts:
    """Text embeddings of a prompt seen from each side.

    views: (4, L, D), in the order of VIEWS. negative: (1, L, D), for classifier-free guidance. text: what was asked.
    """

    text: str
    views: Tensor
    negative: Tensor

    def at(self, azimuth: Tensor, elevation: Tensor, blend: float) -> Tensor:
        """The embeddings for cameras at (B,) degrees, mixed near the borders of view words: (B, L, D)."""
        weights = view_weights(azimuth, elevation, blend).to(self.views)
        return torch.einsum("bv,vld->bld", weights, self.views)


@dataclass(frozen=True)
class Step:
    """One step of guidance.

    loss: a scalar whose gradient is that of the loss function; its value means nothing. gradient: (B, 4, h, w), with
    respect to the latents. error: how far the predicted noise is from the noise, root mean square: it falls as the
    image becomes what the model expects. t: (B,) noise levels. latents, noisy, noise_pred: (B, 4, h, w).
    """

    loss: Tensor
    gradient: Tensor
    error: Tensor
    t: Tensor
    latents: Tensor = field(repr=False)
    noisy: Tensor = field(repr=False)
    noise_pred: Tensor = field(repr=False)


def guide(uncond: Tensor, cond: Tensor, guidance_scale: float) -> Tensor:
    """Classifier-free guidance (Ho and Salimans 2022, arXiv:2207.12598)."""
    return uncond + guidance_scale * (cond - uncond)


def perp_neg(
    uncond: Tensor, cond: Tensor, others: Tensor, weights: Tensor, guidance_scale: float
) -> Tensor:
    """Guidance away from what other prompts want, as far as it is not what this one wants too (Perp-Neg, Armandpour
    et al. 2023, arXiv:2304.04968, equation 6).

    uncond, cond: (B, C, h, w) predicted noise. others: (K, B, C, h, w). weights: (K, B), 0 or more.
    """
    wanted = cond - uncond
    flat = wanted.flatten(1)  # (B, N)
    away = torch.zeros_like(wanted)
    for other, weight in zip(others - uncond, weights, strict=True):
        along = (other.flatten(1) * flat).sum(1) / flat.square().sum(1).clamp(min=1e-12)  # (B,)
        away += weight[:, None, None, None] * (other - along[:, None, None, None] * wanted)
    return uncond + guidance_scale * (wanted - away)


def predicted_noise(
    output: Tensor, noisy: Tensor, alpha_bar: Tensor, prediction_type: str
) -> Tensor:
    """The noise that a denoiser's output stands for. alpha_bar broadcasts against (B, C, h, w).

    v-prediction: Salimans and Ho 2022, arXiv:2202.00512, appendix D.
    """
    if prediction_type == "epsilon":
        return output
    if prediction_type == "v_prediction":
        return alpha_bar.sqrt() * output + (1 - alpha_bar).sqrt() * noisy
    raise GuidanceError(
        f"the model predicts {prediction_type!r}; the guidance knows epsilon and v_prediction"
    )


def predicted_x_0(noise_pred: Tensor, noisy: Tensor, alpha_bar: Tensor) -> Tensor:
    """The latents without noise, if this is the noise (DDIM, Song et al. 2020, arXiv:2010.02502, equation 9)."""
    return (noisy - (1 - alpha_bar).sqrt() * noise_pred) / alpha_bar.sqrt()


def sds_gradient(noise_pred: Tensor, noise: Tensor, weight: Tensor) -> Tensor:
    """Score distillation sampling: the gradient with respect to the latents, without the Jacobian of the denoiser
    (DreamFusion, equation 3).

    noise_pred: (B, C, h, w), what the denoiser takes for noise, guided by the text. noise: (B, C, h, w), what was
    added. weight: w(t), (B, 1, 1, 1). Returns (B, C, h, w).
    """
    gradient: Any = ...
    # TODO 3 (b): what the denoiser takes for noise, less what was added, weighted. The formula stands in ../README.md.
    ### BEGIN SOLUTION
    gradient = weight * (noise_pred - noise)
    ### END SOLUTION
    return gradient


def loss_of(latents: Tensor, gradient: Tensor) -> Tensor:
    """A scalar whose gradient with respect to `latents` is `gradient`, averaged over the batch: each image of the
    batch counts for 1 / B. Both (B, C, h, w).

    Autograd starts from a scalar, and we only have a gradient. But the derivative of `a * x` by `x` is `a`.
    """
    loss: Any = ...
    # TODO 3 (c): the scalar. `gradient` is a constant in it: .detach() it, for nothing may flow into the denoiser.
    ### BEGIN SOLUTION
    loss = (latents * gradient.detach()).sum() / len(latents)
    ### END SOLUTION
    return loss


def check_exercise(guidance: "StableDiffusion") -> None:
    """Says of each part of TODO 3 that it is right, or raises CheckFailed with what is wrong."""
    checks.prompt_embedding(guidance.embed_text, guidance.model, guidance.text_encoder)
    checks.sds_gradient(sds_gradient)
    checks.sds_loss(loss_of)


class StableDiffusion:
    """A text-to-image model as guidance for images of any size.

    model: any of `course.models`. options: how it guides. The denoiser runs without gradient; the encoder with one.
    The text encoder leaves the memory after `forget_text_encoder`.
    """

    def __init__(
        self, model: Model, options: GuidanceOptions | None = None, compile: bool = False
    ) -> None:
        pipe = load_pipeline(model)
        self.model, self.options = model, options or GuidanceOptions()
        self.device, self.dtype = model.device, model.dtype
        vae, self.text_encoder = lighten(pipe.vae.requires_grad_(False)), pipe.text_encoder
        self.encoder, self.decoder = (
            fast(LatentEncoder(vae), gradients=True),
            fast(LatentDecoder(vae)),
        )
        self.unet = fast(pipe.unet.requires_grad_(False), compile=compile)
        self.scale: float = pipe.vae.config.scaling_factor
        self.alphas_cumprod = pipe.scheduler.alphas_cumprod.to(self.device, torch.float32)
        self._embedded: dict[str, Tensor] = {}

    # --- Texts

    @torch.no_grad()
    def embed_text(self, text: str) -> Tensor:
        """What the text encoder makes of a text: (L, D), L tokens with a vector of D numbers each."""
        tokenizer, length = self.model.tokenizer, self.model.text_length
        embedding: Any = ...
        # TODO 3 (a): call the tokenizer with padding="max_length", max_length=length, truncation=True and
        # return_tensors="pt"; hand its .input_ids to self.text_encoder, on self.device, and take [0] of the result,
        # the vectors (1, L, D). Leave out their first dimension.
        ### BEGIN SOLUTION
        tokens = tokenizer(
            text, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        )
        embedding = self.text_encoder(tokens.input_ids.to(self.device))[0][0]
        ### END SOLUTION
        return embedding

    def get_text_embeds(self, prompts: Sequence[str]) -> Tensor:
        """Embeddings (N, L, D) of texts. Each is worked out once. Raises GuidanceError where a new text comes after
        the text encoder has gone."""
        for prompt in dict.fromkeys(prompts):
            if prompt in self._embedded:
                continue
            if self.text_encoder is None:
                raise GuidanceError(f"the text encoder has left the memory, and {prompt!r} is new")
            self._embedded[prompt] = self.embed_text(prompt).to(self.dtype)
        return torch.stack([self._embedded[prompt] for prompt in prompts])

    def view_prompts(self, text: str, negative: str = "") -> ViewPrompts:
        """The embeddings of "<text>, <word> view" for each of VIEWS. Raises GuidanceError for an empty text."""
        check_text(text)
        endings = [f", {view} view" for view in VIEWS]
        room = (
            max(len(self.model.tokenizer(ending).input_ids) for ending in endings) - 2
        )  # all begin and end
        text = self.model.check_prompt(text.strip(), room)
        views = self.get_text_embeds([text + ending for ending in endings])
        return ViewPrompts(text, views, self.get_text_embeds([self.model.check_prompt(negative)]))

    def plain_prompts(self, text: str, negative: str = "") -> ViewPrompts:
        """The embeddings of `text` alone, the same from every side: for one image, without a scene behind it.
        Raises GuidanceError for an empty text."""
        check_text(text)
        text = self.model.check_prompt(text.strip())
        view = self.get_text_embeds([text])
        return ViewPrompts(
            text,
            view.expand(len(VIEWS), -1, -1),
            self.get_text_embeds([self.model.check_prompt(negative)]),
        )

    def forget_text_encoder(self) -> None:
        """Frees the text encoder's memory; embeddings made so far stay."""
        self.text_encoder = None
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    # --- Images and latents

    def encode_imgs(self, rgb: Tensor) -> Tensor:
        """Latents (B, 4, h, w) in float32, with gradient, of images (B, 3, H, W) in [0, 1], brought to the model's
        size. The mean of the encoder's distribution: its noise would only add to the gradient's.

        Raises GuidanceError for another shape.
        """
        if rgb.ndim != 4 or rgb.shape[1] != 3:
            raise GuidanceError(f"pictures are (B, 3, H, W), not {tuple(rgb.shape)}")
        side = self.model.image_size
        if rgb.shape[2:] != (side, side):
            rgb = F.interpolate(rgb, (side, side), mode="bilinear", align_corners=False)
        images = (2 * rgb - 1).to(self.dtype)
        return self.encoder(images).float() * self.scale

    @torch.no_grad()
    def decode_latents(self, latents: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] of latents (B, 4, h, w)."""
        images = self.decoder((latents / self.scale).to(self.dtype))
        return (images.float() / 2 + 0.5).clamp(0, 1)

    # --- Noise

    def pace(self, progress: float, azimuth: Tensor) -> Tensor:
        """How far views at (B,) degrees are on their way down the noise levels, (B,), in a run that has come to
        `progress` of 1. Those that are ahead pass 1 before its end."""
        turn = ((azimuth + 180) % 360 - 180).abs()
        return progress + self.options.lead * (1 - turn / 90).clamp(min=0)

    def levels(self, progress: Tensor, generator: torch.Generator) -> Tensor:
        """A noise level for each view, (B,), each from another equal part of its range: those of one step differ.

        progress: (B,), how far each view is; 1 or more is at the end.
        """
        count, (low, high) = len(progress), self.options.t_range
        end = min(self.options.t_end, high)
        highs = (high + (end - high) * progress.cpu().clamp(0, 1)).clamp(min=low)
        lows = (highs - self.options.band).clamp(min=low)
        last = len(self.alphas_cumprod) - 1
        part = (torch.arange(count) + torch.rand(count, generator=generator)) / count
        part = part[
            torch.randperm(count, generator=generator)
        ]  # else a view would keep its share of the range
        return (
            (last * (lows + (highs - lows) * part))
            .round()
            .long()
            .to(self.device, non_blocking=True)
        )

    def alpha_bar(self, t: Tensor) -> Tensor:
        """alphas_cumprod at levels (B,), as (B, 1, 1, 1)."""
        return self.alphas_cumprod[t][:, None, None, None]

    @torch.no_grad()
    def predict_noise(
        self,
        noisy: Tensor,
        t: Tensor,
        prompts: ViewPrompts,
        azimuth: Tensor,
        elevation: Tensor,
        progress: float = 0.0,
    ) -> Tensor:
        """The noise (B, 4, h, w), guided, that the model sees in `noisy` at levels t (B,), from cameras at (B,)
        degrees. progress: how much of the run is done, of 1."""
        options = self.options
        push = options.perp_neg * max(1 - progress / FACED, 0.0)
        negative = prompts.negative.expand(len(noisy), -1, -1)
        states = [negative, prompts.at(azimuth, elevation, options.blend)]
        if push:
            rivals, weights = rival_views(azimuth, options.blend)
            states += [prompts.views[view] for view in rivals.T]
        count = len(states)
        output = self.unet(
            noisy.to(self.dtype).repeat(count, 1, 1, 1),
            t.repeat(count),
            encoder_hidden_states=torch.cat(states),
        ).sample.float()
        alpha_bar = self.alpha_bar(t)
        uncond, cond, *others = (
            predicted_noise(part, noisy, alpha_bar, self.model.prediction_type)
            for part in output.chunk(count)
        )
        if not others:
            return guide(uncond, cond, options.guidance_scale)
        return perp_neg(
            uncond, cond, torch.stack(others), push * weights.T.to(noisy), options.guidance_scale
        )

    # --- The step

    def train_step(
        self,
        rgb: Tensor,
        prompts: ViewPrompts,
        azimuth: Tensor,
        elevation: Tensor,
        generator: torch.Generator,
        progress: float = 0.0,
        as_latents: bool = False,
    ) -> Step:
        """Score distillation on images of the scene.

        rgb: (B, 3, H, W) in [0, 1], or latents (B, 4, h, w) if `as_latents`. azimuth, elevation: (B,) degrees, of
        the cameras. generator: on the CPU. progress: how much of the run is done, of 1.
        """
        latents = rgb if as_latents else self.encode_imgs(rgb)
        weighting = WEIGHTINGS[self.options.weighting]
        return self._ask(latents, weighting, prompts, azimuth, elevation, generator, progress)

    def _ask(
        self,
        latents: Tensor,
        weighting: Callable[[Tensor], Tensor],
        prompts: ViewPrompts,
        azimuth: Tensor,
        elevation: Tensor,
        generator: torch.Generator,
        progress: float,
    ) -> Step:
        """Adds noise to latents (B, 4, h, w) and asks the denoiser for it."""
        t = self.levels(self.pace(progress, azimuth), generator)
        noise = torch.randn(latents.shape, generator=generator).to(
            latents.device, non_blocking=True
        )
        alpha_bar = self.alpha_bar(t)
        noisy = alpha_bar.sqrt() * latents.detach() + (1 - alpha_bar).sqrt() * noise
        azimuth, elevation = (
            angle.to(t.device, non_blocking=True) for angle in (azimuth, elevation)
        )
        noise_pred = self.predict_noise(noisy, t, prompts, azimuth, elevation, progress)
        gradient = sds_gradient(noise_pred, noise, weighting(alpha_bar))
        error = (
            (noise_pred - noise).square().mean().sqrt()
        )  # not .item(): nobody waits for the GPU yet
        return Step(
            loss_of(latents, gradient), gradient, error, t, latents.detach(), noisy, noise_pred
        )

    @torch.no_grad()
    def targets(
        self,
        rgb: Tensor,
        prompts: ViewPrompts,
        azimuth: Tensor,
        elevation: Tensor,
        generator: torch.Generator,
        progress: float = 0.0,
    ) -> tuple[Tensor, Step]:
        """Score distillation in pixels: what the images should rather be, (B, 3, H, W) as `rgb`, and the step.

        One step of (1 / alpha_bar - 1)^0.5 against the unweighted SDS gradient takes the latents to the foreseen x_0
        (formula (4) of ../README.md). Decoded, it is a target: the field then learns from it as from a photograph, and
        the encoder's Jacobian is not needed (as in HiFA, Zhu et al. 2023, arXiv:2305.18766). Arguments as `train_step`
        has them.
        """
        step = self._ask(
            self.encode_imgs(rgb), torch.ones_like, prompts, azimuth, elevation, generator, progress
        )
        wanted = step.latents - (1 / self.alpha_bar(step.t) - 1).sqrt() * step.gradient
        return F.interpolate(self.decode_latents(wanted), rgb.shape[2:], mode="area"), step

    @torch.no_grad()
    def preview(
        self,
        step: Step,
        prompts: ViewPrompts,
        azimuth: Tensor,
        elevation: Tensor,
        progress: float = 0.0,
        steps: int = 10,
    ) -> list[Tensor]:
        """What the model saw and wants: the noisy latents, x_0 in one step and x_0 in `steps` DDIM steps, decoded;
        each (B, 3, H, W) in [0, 1]."""
        images = [step.noisy, predicted_x_0(step.noise_pred, step.noisy, self.alpha_bar(step.t))]
        x, noise_pred = step.noisy, step.noise_pred
        levels = [(step.t * (steps - i) / steps).round().long() for i in range(1, steps)]
        for t, below in zip([step.t, *levels], [*levels, None], strict=True):
            if t is not step.t:
                angles = azimuth.to(t.device), elevation.to(t.device)
                noise_pred = self.predict_noise(x, t, prompts, *angles, progress)
            x_0 = predicted_x_0(noise_pred, x, self.alpha_bar(t))
            if below is not None:
                alpha_bar = self.alpha_bar(below)
                x = alpha_bar.sqrt() * x_0 + (1 - alpha_bar).sqrt() * noise_pred
        return [self.decode_latents(latents) for latents in (*images, x_0)]

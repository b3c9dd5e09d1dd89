"""The speed of denoisers: `python -m benchmarks.speed [GROUP ...]`, rows in results/speed.json.

sd21      a guided call of one image in float16, random weights of Stable Diffusion 2.1's size
sd15      the same, 1.5's size
sdxl      the same, XL's size
batch     calls of 4 and of 16 latents, 2.1's size
sampling  50 steps and decoding, 512x512, 2.1's size, by diffusers' pipeline
pocket    a guided call of the embedded model

Four ways take turns, and medians are compared: diffusers as it is; diffusers with its advice for
speed ("recipe": channels last, fused projections, torch.compile with CUDA graphs); the course's
denoiser in a CUDA graph; and the same, compiled. Without a GPU the groups run on a small network,
as a rehearsal, and store nothing.
"""

import copy
import statistics
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel

from benchmarks.common import RESULTS, SD21_UNET, TOY_UNET, measure, sd21_vae
from course.figures import Row, make_rows, timed
from course.models import find_model, load_pipeline
from course.speed.cuda_graphs import CudaGraphModule
from course.speed.fast_unet import optimize_frozen_unet
from course.speed.frozen_vae import LatentDecoder, optimize_frozen_vae

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
DTYPE = torch.float16 if CUDA else torch.float32
ROUNDS, CALLS = (30, 5) if CUDA else (1, 1)
STEPS = 50 if CUDA else 2
SD15_UNET: dict[str, Any] = {
    "sample_size": 64,
    "block_out_channels": (320, 640, 1280, 1280),
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
}
SDXL_UNET: dict[str, Any] = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
Way = Callable[..., Any]


def build(config: dict[str, Any], small: dict[str, Any] | None = None) -> UNet2DConditionModel:
    """Return a denoiser with random weights; without a GPU a small one."""
    torch.manual_seed(0)
    with DEVICE:
        unet = UNet2DConditionModel(**config | ({} if CUDA else small or TOY_UNET))
    return unet.to(DTYPE).eval().requires_grad_(False)


def inputs(unet: UNet2DConditionModel, batch: int) -> dict[str, Any]:
    """Return the arguments of a call."""
    config, generator = unet.config, torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(DEVICE, unet.dtype)

    result: dict[str, Any] = {
        "sample": random(batch, config.in_channels, config.sample_size, config.sample_size),
        "timestep": torch.tensor(500, device=DEVICE),
        "encoder_hidden_states": random(batch, 77, config.cross_attention_dim),
    }
    if config.addition_embed_type:
        size = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        added = {"text_embeds": random(batch, size), "time_ids": random(batch, 6)}
        result["added_cond_kwargs"] = added
    return result


def follow_recipe(unet: UNet2DConditionModel) -> Way:
    """Return a denoiser as diffusers' guide to fast inference prepares it."""
    unet.to(memory_format=torch.channels_last)
    unet.fuse_qkv_projections()
    if not CUDA:
        return unet
    return torch.compile(unet, mode="reduce-overhead", fullgraph=True)


def ways(unet: UNet2DConditionModel) -> dict[str, Way]:
    """Return the four denoisers, each with its own weights."""
    course, compiled = (optimize_frozen_unet(copy.deepcopy(unet)) for _ in range(2))
    return {
        "eager": unet,
        "recipe": follow_recipe(copy.deepcopy(unet)),
        "course": CudaGraphModule(course),
        "compiled": CudaGraphModule(compiled, compile=CUDA),
    }


def repeat_call(call: Callable[[], Any], count: int) -> None:
    for _ in range(count):
        call()


def take_turns(
    calls: Mapping[str, Callable[[], Any]], rounds: int, repeat: int
) -> dict[str, float]:
    """Return the median milliseconds of each call, `repeat` of them in a row."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            seconds, _ = timed(partial(repeat_call, call, repeat))
            times[name].append(1000 * seconds / repeat)
    return {name: statistics.median(each) for name, each in times.items()}


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the norm of a - b over that of b."""
    return float((a - b).float().norm() / b.float().norm())


@torch.no_grad()
def compare_calls(
    unet: UNet2DConditionModel, group: str, about: str, batch: int = 2, bars: bool = True
) -> list[Row]:
    """Return the rows of a call of one denoiser."""
    arguments = inputs(unet, batch)
    calls = {name: partial(way, **arguments) for name, way in ways(unet).items()}
    first, results = {}, {}
    for name, call in calls.items():
        first[name], result = timed(call)
        results[name] = result.sample.clone()
    times = take_turns(calls, ROUNDS, CALLS)
    small = batch == 2
    figures: list[tuple[Any, ...]] = [
        (name, f"a call, {name}", round(value, 3), "ms", "<=") for name, value in times.items()
    ]
    limits = {"course": 0.85 if small else 0.9, "compiled": 0.75 if small else 0.9}
    for name, limit in limits.items():
        ratio, error = times[name] / times["recipe"], difference(results[name], results["eager"])
        ready = 10.0 if name == "course" else None
        figures += [
            (f"{name}_ratio", f"{name} over recipe", ratio, "", "<=", limit if bars else None),
            (f"{name}_first", f"the first call, {name}", first[name], "s", "<=", ready),
            (f"{name}_error", f"{name}: difference to eager over norm", error, "", "<=", 0.01),
        ]
    return make_rows(f"speed.{group}", about, *figures)


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the peak signal-to-noise ratio of images in [-1, 1], in dB."""
    return float(-10 * ((a - b).float() / 2).square().mean().clamp_min(1e-12).log10())


@torch.no_grad()
def sampling_rows() -> list[Row]:
    """Return the rows of 50 steps and decoding."""
    pipe = load_pipeline(find_model("pocket")).to(DEVICE, DTYPE)
    unet = build(SD21_UNET)
    with DEVICE:
        vae = sd21_vae(toy=not CUDA).to(DTYPE).requires_grad_(False)
    embeddings = inputs(unet, 2)["encoder_hidden_states"]
    noise = inputs(unet, 1)["sample"]

    def sampler(way: Way, decode: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[], Any]:
        parts = {**pipe.components, "unet": unet, "vae": vae}
        own = StableDiffusionPipeline(**parts, requires_safety_checker=False)
        own.set_progress_bar_config(disable=True)
        own.unet = way

        def run() -> torch.Tensor:
            latents = own(
                prompt_embeds=embeddings[:1],
                negative_prompt_embeds=embeddings[1:],
                num_inference_steps=STEPS,
                latents=noise,
                output_type="latent",
            ).images
            return decode(latents / vae.config.scaling_factor)

        return run

    plain = copy.deepcopy(vae)
    for_recipe = copy.deepcopy(vae).to(memory_format=torch.channels_last)
    for_course = CudaGraphModule(LatentDecoder(optimize_frozen_vae(copy.deepcopy(vae))))
    compiled = torch.compile(for_recipe.decode, mode="reduce-overhead") if CUDA else plain.decode
    decoders: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "eager": lambda x: plain.decode(x).sample,
        "recipe": lambda x: compiled(x).sample,
        "course": for_course,
        "compiled": for_course,
    }
    calls = {name: sampler(way, decoders[name]) for name, way in ways(unet).items()}
    images = {name: call().clone() for name, call in calls.items()}
    times = take_turns(calls, max(1, ROUNDS // 6), 1)
    figures: list[tuple[Any, ...]] = [
        (name, f"an image, {name}", round(value, 1), "ms", "<=") for name, value in times.items()
    ]
    for name in ("course", "compiled"):
        ratio = times[name] / times["recipe"]
        figures += [
            (f"{name}_ratio", f"{name} over recipe", ratio, "", "<=", 0.75),
            (
                f"{name}_psnr",
                f"{name} beside eager",
                psnr(images[name], images["eager"]),
                "dB",
                ">=",
                38,
            ),
        ]
    return make_rows("speed.sampling", f"512x512, {STEPS} steps of DDIM and decoding", *figures)


def pocket_rows() -> list[Row]:
    unet = load_pipeline(find_model("pocket")).unet.to(DEVICE, DTYPE).requires_grad_(False)
    return compare_calls(unet, "pocket", "pocket's denoiser", bars=False)


def size_rows(group: str, name: str, config: dict[str, Any], batch: int = 2) -> list[Row]:
    small = {"block_out_channels": (32, 32, 64), "sample_size": 16} if group == "sdxl" else None
    about = f"SD-{name}-size UNet, batch {batch}"
    return compare_calls(build(config, small), group, about, batch, bars=batch in (2, 16))


def batch_rows() -> list[Row]:
    sizes = (4, 16)
    return [row for n in sizes for row in size_rows(f"batch_{n}", "2.1", SD21_UNET, n)]


GROUPS: dict[str, Callable[[], list[Row]]] = {
    "sd21": partial(size_rows, "sd21", "2.1", SD21_UNET),
    "sd15": partial(size_rows, "sd15", "1.5", SD15_UNET),
    "sdxl": partial(size_rows, "sdxl", "XL", SDXL_UNET),
    "batch": batch_rows,
    "sampling": sampling_rows,
    "pocket": pocket_rows,
}


def main(arguments: list[str] | None = None) -> list[Row]:
    """Measure groups (default: all), print and store their rows, and return them."""
    results = RESULTS / "speed.json" if CUDA else None
    return measure("benchmarks.speed", __doc__, GROUPS, results, arguments)


if __name__ == "__main__":
    main()

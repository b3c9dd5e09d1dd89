"""Score distillation on a single image: `python -m task_3_DreamFusion.sds_2d --text "a red car on grass"`.

The smallest thing that SDS can lead: there is no scene, the latents of one image are the parameters themselves. It
first checks the exercise, then takes seconds to a minute on a CPU, and leaves a sheet of images: above, how the
image forms; below, what the denoiser saw in the last step, and what it wanted instead.
"""

import argparse
import math
import sys
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from course.diffusion import check_finite
from course.errors import CourseError
from course.images import image_grid, to_pil
from course.models import find_model
from task_3_DreamFusion.main import OUTPUTS, slug
from task_3_DreamFusion.nerf.sd import (
    WEIGHTINGS,
    StableDiffusion,
    Step,
    ViewPrompts,
    check_exercise,
    check_text,
)
from task_3_DreamFusion.nerf.settings import GuidanceOptions

SHOWN = 4  # images of how it forms


class SdsError(CourseError):
    """The image cannot be made; the message names the option."""


def optimise(
    guidance: StableDiffusion, prompts: ViewPrompts, iters: int, lr: float, seed: int
) -> tuple[list[tuple[int, Tensor]], Step]:
    """Latents led by SDS from faint noise on.

    Returns (steps done, latents (1, C, h, w)) at SHOWN moments, the last of them the end, and the last step.
    """
    generator = torch.Generator().manual_seed(seed)
    shape = (1, guidance.unet.config.in_channels, *guidance.model.latent_size())
    latents = (0.1 * torch.randn(shape, generator=generator)).to(guidance.device).requires_grad_()
    # Plain descent, equation 4 of README.md. Adam would divide by the gradient's size, which is mostly chance, and the
    # small part that every step agrees on, such as the colour, would drown.
    optimizer = torch.optim.SGD([latents], lr=lr)
    moments = {
        max(1, round(iters * (i / SHOWN) ** 2)) for i in range(1, SHOWN + 1)
    }  # most happens at the beginning
    camera = torch.zeros(1), torch.zeros(1)  # the prompt is the same from everywhere
    kept = []
    for done in tqdm(range(1, iters + 1), desc=prompts.text[:40], unit="step"):
        optimizer.zero_grad()
        step = guidance.train_step(
            latents, prompts, *camera, generator, done / iters, as_latents=True
        )
        step.loss.backward()
        optimizer.step()
        check_finite(latents, f"The latents after step {done} of {iters}")
        if done in moments:
            kept.append((done, latents.detach().clone()))
    return kept, step


def sheet(
    guidance: StableDiffusion, prompts: ViewPrompts, kept: list[tuple[int, Tensor]], last: Step
) -> list[Tensor]:
    """The images (3, H, W) in [-1, 1] of the sheet: the moments, then the last step's noisy latents and x_0 in one
    and in ten steps."""
    camera = torch.zeros(1), torch.zeros(1)
    batches = [guidance.decode_latents(latents) for _, latents in kept]
    batches += guidance.preview(last, prompts, *camera)
    images = [2 * batch[0] - 1 for batch in batches]
    check_finite(torch.stack(images), "The decoded images")
    return images


def options(guidance_scale: float, weighting: str) -> GuidanceOptions:
    """As DreamFusion draws its noise levels: from all below the highest, which sinks."""
    return GuidanceOptions(guidance_scale, weighting, t_end=0.5, band=1.0, lead=0.0, perp_neg=0.0)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m task_3_DreamFusion.sds_2d", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    made.add_argument(
        "--text",
        default="a red car on grass",
        help="what it shall be (default: a red car on grass)",
    )
    made.add_argument("--negative", default="", help="what it shall not be (default: nothing)")
    made.add_argument(
        "--model",
        help="pocket, sd-2.1-base, a Hub id or a folder (default: COURSE_MODEL, or pocket)",
    )
    made.add_argument(
        "--seed", type=int, default=0, help="of everything that is drawn (default: 0)"
    )
    made.add_argument("--iters", type=int, default=60, help="steps (default: 60)")
    made.add_argument("--lr", type=float, default=2.0, help="learning rate (default: 2)")
    made.add_argument("--guidance_scale", type=float, default=7.5,
                      help="of classifier-free guidance: how hard the text pulls (default: 7.5)")  # fmt: skip
    made.add_argument("--weighting", choices=tuple(WEIGHTINGS), default=GuidanceOptions().weighting,
                      help=f"w(t), the weight of a noise level (default: {GuidanceOptions().weighting})")  # fmt: skip
    made.add_argument("--out", type=Path, metavar="FILE",
                      help="the sheet, a PNG (default: outputs/task_3/sds_2d/TEXT.png)")  # fmt: skip
    return made


def run(args: argparse.Namespace) -> Path:
    """Makes the sheet; returns its path."""
    check_text(args.text)
    if args.iters < 1:
        raise SdsError(f"--iters is at least 1, not {args.iters}")
    if not 0 < args.lr < math.inf:
        raise SdsError(f"--lr is a number above 0, not {args.lr}")
    if not 0 <= args.seed < 2**63:
        raise SdsError(f"--seed is a whole number from 0 to 2^63 - 1, not {args.seed}")
    path = args.out or OUTPUTS / "sds_2d" / f"{slug(args.text)}.png"
    if path.suffix.lower() != ".png":
        raise SdsError(f"--out ends in .png, and {path.name!r} does not")
    guidance = StableDiffusion(find_model(args.model), options(args.guidance_scale, args.weighting))
    check_exercise(guidance)
    prompts = guidance.plain_prompts(args.text, args.negative)
    kept, last = optimise(guidance, prompts, args.iters, args.lr, args.seed)
    titles = [
        *(f"after {done} steps" for done, _ in kept),
        "x_t",
        "x_0 in one step",
        "x_0 in ten steps",
    ]
    images = [to_pil(image) for image in sheet(guidance, prompts, kept, last)]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        image_grid(images, columns=max(len(kept), 3), titles=titles, side=256).save(path)
    except OSError as error:
        raise SdsError(f"--out {path} cannot be written: {error.strerror or error}") from error
    return path


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    try:
        print(run(parser().parse_args(arguments)))
    except CourseError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

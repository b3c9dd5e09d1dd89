"""Score distillation of a single image: `python -m task_3_DreamFusion.sds_2d --text "a red car"`.

The simplest use of SDS: there is no scene, the latents of one image are the parameters. The program
checks the exercise, optimizes for seconds to a minute on a CPU, and saves a grid of images: in the
first row the image as it develops, in the second row the last step's noisy latents and predictions.
"""

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from course.arguments import check_integer, check_number
from course.diffusion import check_finite, make_generator
from course.errors import CourseError
from course.images import image_grid, to_pil
from course.models import find_model
from task_3_DreamFusion.jobs import OUTPUTS, folder_name
from task_3_DreamFusion.nerf.guidance import (
    WEIGHTINGS,
    GuidanceOutput,
    StableDiffusion,
    check_exercise,
    check_text,
)
from task_3_DreamFusion.nerf.settings import GuidanceOptions
from task_3_DreamFusion.nerf.views import ViewPrompts

NUM_SNAPSHOTS = 4  # images of the first row, at most
CAMERA = torch.zeros(1), torch.zeros(1)  # azimuth and elevation: the prompt is the same for all


class SdsError(CourseError):
    """An option is invalid, or the image cannot be saved; the message names the option."""


def optimize(
    guidance: StableDiffusion, prompts: ViewPrompts, iters: int, lr: float, seed: int
) -> tuple[list[tuple[int, Tensor]], GuidanceOutput]:
    """Optimize latents by SDS, starting from faint noise.

    Returns NUM_SNAPSHOTS pairs (steps done, latents (1, C, h, w)), the last of the end, and the
    last step.
    """
    generator = make_generator(seed)
    shape = (1, guidance.unet.config.in_channels, *guidance.model.latent_size())
    latents = (0.1 * torch.randn(shape, generator=generator)).to(guidance.device).requires_grad_()
    # Gradient descent, formula (4) of the lesson. Adam would divide by the size of the gradient,
    # which is mostly noise; the small part that all steps share, such as the color, would be lost.
    optimizer = torch.optim.SGD([latents], lr=lr)
    # Most changes happen at the beginning.
    moments = {max(1, round(iters * (i / NUM_SNAPSHOTS) ** 2)) for i in range(1, NUM_SNAPSHOTS + 1)}
    snapshots = []
    for done in tqdm(range(1, iters + 1), desc=prompts.text[:40], unit="step"):
        optimizer.zero_grad()
        step = guidance.train_step(
            latents, prompts, *CAMERA, generator, done / iters, as_latents=True
        )
        step.loss.backward()
        optimizer.step()
        check_finite(latents, f"The latents after step {done} of {iters}")
        if done in moments:
            snapshots.append((done, latents.detach().clone()))
    return snapshots, step


def decode(
    guidance: StableDiffusion,
    prompts: ViewPrompts,
    snapshots: list[tuple[int, Tensor]],
    last: GuidanceOutput,
) -> list[Tensor]:
    """Return images (3, H, W) in [-1, 1]: of the snapshots, then the preview of the last step."""
    batches = [guidance.decode_latents(latents) for _, latents in snapshots]
    batches += guidance.preview(last, prompts, *CAMERA)
    images = [2 * batch[0] - 1 for batch in batches]
    check_finite(torch.stack(images), "The decoded images")
    return images


def options(guidance_scale: float, weighting: str) -> GuidanceOptions:
    """Return options with DreamFusion's timesteps: any below the highest, which falls."""
    return GuidanceOptions(
        guidance_scale=guidance_scale,
        weighting=weighting,
        perp_neg=0.0,
        t_max_end=0.5,
        t_window=1.0,
        front_lead=0.0,
    )


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m task_3_DreamFusion.sds_2d",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add, default = parser.add_argument, "(default: %(default)s)"
    add("--text", default="a red car on grass", help=f"text prompt {default}")
    add("--negative", default="", help="negative prompt (default: none)")
    add(
        "--model",
        help="pocket, sd-2.1-base, a Hub id or a folder (default: COURSE_MODEL or pocket)",
    )
    add("--seed", type=int, default=0, help=f"random seed {default}")
    add("--iters", type=int, default=60, help=f"number of steps {default}")
    add("--lr", type=float, default=2.0, help=f"learning rate {default}")
    scale, weighting = GuidanceOptions().guidance_scale, GuidanceOptions().weighting
    add("--guidance_scale", type=float, default=scale, help=f"classifier-free guidance {default}")
    add(
        "--weighting",
        choices=tuple(WEIGHTINGS),
        default=weighting,
        help=f"weight omega(t) {default}",
    )
    add("--out", type=Path, metavar="FILE", help="PNG (default: outputs/task_3/sds_2d/TEXT.png)")
    return parser


def run(args: argparse.Namespace) -> Path:
    """Optimize an image and save the grid; return its path."""
    check_text(args.text)
    check_integer("--iters", args.iters, 1, error=SdsError)
    check_integer("--seed", args.seed, 0, 2**63 - 1, error=SdsError)
    if check_number("--lr", args.lr, 0, error=SdsError) == 0:
        raise SdsError("--lr must be above 0, got 0.")
    path = args.out or OUTPUTS / "sds_2d" / f"{folder_name(args.text)}.png"
    if path.suffix.lower() != ".png":
        raise SdsError(f"--out must end in .png, got {path.name!r}.")
    guidance = StableDiffusion(find_model(args.model), options(args.guidance_scale, args.weighting))
    check_exercise(guidance)
    prompts = guidance.plain_prompts(args.text, args.negative)
    snapshots, last = optimize(guidance, prompts, args.iters, args.lr, args.seed)
    titles = [f"after {done} steps" for done, _ in snapshots]
    titles += ["x_t", "x_0 in one step", "x_0 in ten steps"]
    images = [to_pil(image) for image in decode(guidance, prompts, snapshots, last)]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        image_grid(images, columns=max(len(snapshots), 3), titles=titles, side=256).save(path)
    except OSError as error:
        raise SdsError(f"--out {path} cannot be written: {error.strerror or error}") from error
    return path


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    try:
        print(run(parser().parse_args(arguments)))
    except CourseError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

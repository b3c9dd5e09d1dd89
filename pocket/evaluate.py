"""How good is the embedded model? `python -m pocket.evaluate` writes evaluation.json.

The judge that reads the generated images took no part in their generation, and its readings of real
renders of the same captions stand beside. The full run needs a GPU. `--images 100` fits a CPU; then
the figures that depend on the number of images are printed and not stored.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from course.figures import Row, add_groups, report
from pocket import arguments as options
from pocket import cost, distances, prompts_read, quality
from pocket.quality import IMAGES, Evaluation
from pocket.test_set import GUIDANCE

GROUPS: dict[str, Callable[[Evaluation], list[Row]]] = {
    "sizes": lambda e: cost.size_rows(e.weights),
    "autoencoder": quality.autoencoder_rows,
    "judge": quality.judge_rows,
    "images": quality.image_rows,
    "compositions": quality.composition_rows,
    "pairs": prompts_read.pair_rows,
    "first": prompts_read.first_prompt_rows,
    "classes": prompts_read.class_rows,
    "distances": distances.distance_rows,
    "perceptual": quality.perceptual_rows,
    "speed": lambda e: cost.speed_rows(e.weights),
    "renderer": lambda e: cost.renderer_rows(e.device),
    "training": lambda e: cost.training_rows(e.weights),
    "scaling": lambda e: cost.scaling_rows(e.weights, e.work),
}
NEED_ALL_IMAGES = (
    *("autoencoder", "judge", "images", "compositions"),
    *("pairs", "first", "classes", "distances"),
)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pocket.evaluate", description=__doc__)
    add_groups(parser, GROUPS)
    add = partial(options.add_option, parser)
    text = "number of test images; rows of fewer are not stored"
    add("--images", options.integer(2, 1_000_000), IMAGES, text)
    text = "guidance scale; rows of another are not stored"
    add("--guidance", options.number(0, 1000), GUIDANCE, text)
    add("--weights", options.folder, Path("pocket/weights"), "folder of the weights")
    text = (
        "folder of the weights whose judge and CLIP look at images (default: that of --weights); "
        "rows of other weights are not stored"
    )
    parser.add_argument("--features", type=options.folder, help=text)
    text = "folder of the latents, for the group scaling"
    add("--work", options.folder, Path("outputs/pocket"), text)
    return parser


def main(arguments: list[str] | None = None) -> list[Row]:
    """Measure groups of figures (default: all), print and store their rows, and return them."""
    command_line = parser()
    args = command_line.parse_args(arguments)
    if not (args.weights / "manifest.json").is_file():
        command_line.error(
            f"no weights in {args.weights}: run `python -m pocket.train all`, or name their folder "
            "by --weights"
        )
    try:
        results = options.results_file(str(args.weights / "evaluation.json"))
    except argparse.ArgumentTypeError as error:
        command_line.error(f"--weights: {error}")
    torch.set_float32_matmul_precision("high")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    features = args.features or args.weights
    own_features = features == args.weights
    full = args.images >= IMAGES and args.guidance == GUIDANCE and own_features
    samples = args.weights / "samples" if full else None
    e = Evaluation(args.weights, device, args.images, args.guidance, samples, args.work, features)
    rows: list[Row] = []
    for name in args.groups:
        stored = full or name not in NEED_ALL_IMAGES
        command = f"python -m pocket.evaluate {name}"
        try:
            rows += report(command, partial(GROUPS[name], e), results if stored else None)
        except (OSError, ValueError) as error:  # a missing file, a full disk, too few test scenes
            command_line.error(f"{name}: {error}")
    return rows


if __name__ == "__main__":
    main()

"""The group `distances` of `pocket.evaluate`: how far are generated images from renders?

As in the literature, sets of images are compared by vectors of each: the Fréchet and the kernel
distance of the judge's features and of CLIP's. The reference are renders of the same captions with
other seeds, so the same number of further renders is the floor, and renders through the autoencoder
show what it costs.
"""

from collections.abc import Callable

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from course.figures import Row
from course.metrics import ClipEncoder, JudgeFeatures, fid, kid
from pocket.quality import Evaluation, reconstruct
from pocket.test_set import GUIDANCE, generate, load_first_edition, render_scenes
from pocket.train.judge import has_front
from pocket.world import vocabulary as v

GUIDANCES = (3.0, 5.0, GUIDANCE)
REFERENCE_SEED = 1  # of what the labels leave open in the renders of the reference
BATCH = 250


def part_masks(labels: np.ndarray) -> dict[str, np.ndarray]:
    """Return which scenes belong to which part, bool (N,) each; a view is of things with a front.

    labels: (N,) of vocabulary.LABELS.
    """
    is_landscape = labels["landscape"] >= 0
    words = np.array(list(map(v.view_word, labels["azimuth"], labels["elevation"])))
    views = {view: has_front(labels) & (words == view) for view in v.VIEWS}
    everything = np.ones(len(labels), bool)
    return {"all": everything, "landscapes": is_landscape, "objects": ~is_landscape, **views}


@torch.no_grad()
def embed(network: Callable[[Tensor], Tensor], images: Tensor, device: torch.device) -> Tensor:
    """Return the vectors (N, D) of images uint8 (N, H, W, 3), on the CPU.

    network: from images (B, 3, H, W) in [-1, 1] on the device to vectors (B, D).
    """
    parts = (part.to(device).permute(0, 3, 1, 2).float() for part in images.split(BATCH))
    return torch.cat([network(part / 127.5 - 1).cpu() for part in parts])


def image_sets(e: Evaluation) -> tuple[np.ndarray, dict[str, Tensor]]:
    """Return the labels of the captions, and images uint8 (N, 256, 256, 3) by the name of the set.

    The captions are those of the world's first edition, which all weights know.
    """
    test = load_first_edition(e.images, "all")
    others = load_first_edition(e.images, "all", seed=REFERENCE_SEED)
    renders = render_scenes(test, e.device)
    vae = AutoencoderKL.from_pretrained(e.weights / "stable-diffusion" / "vae").to(e.device).eval()
    sets = {
        "reference": render_scenes(others, e.device),
        "floor": renders,
        "autoencoder": torch.cat([reconstruct(vae, part) for part in renders.split(50)]),
    }
    for guidance in GUIDANCES:
        sets[f"guidance_{guidance:g}".replace(".", "_")] = generate(
            e.pipe, test.prompts, test.seeds, guidance=guidance, batch=e.batch
        )
    return test.labels, sets


def distance_rows(e: Evaluation) -> list[Row]:
    """Distances of each set to the reference, by part; `e.features` says whose networks look."""
    labels, sets = image_sets(e)
    judge = JudgeFeatures(e.device, e.features / "judge")
    clip = ClipEncoder(device=e.device, folder=e.features / "clip")
    networks = {
        "judge": judge.pool,
        "CLIP": clip.encode_images,
    }
    rows = []
    for network, encode in networks.items():
        vectors = {name: embed(encode, images, e.device) for name, images in sets.items()}
        reference = vectors.pop("reference")
        for name, own in vectors.items():
            for part, mask in part_masks(labels).items():
                if mask.sum() < 2:
                    continue
                pair = own[mask], reference[mask]
                key = f"pocket.distances.{network.lower()}.{name}.{part}"
                about = f"{name.replace('_', ' ')}, {part}: by {network}"
                rows.append(Row(f"{key}.fid", f"{about}, Fréchet distance", fid(*pair), "", "<="))
                rows.append(Row(f"{key}.kid", f"{about}, kernel distance", kid(*pair), "", "<="))
    return rows

"""Frames as numbered image files, which lesson 1.2 writes and make_video.ipynb reads."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from course.images.grid import image_grid


def save_frames(
    folder: str | Path, images: Iterable[torch.Tensor], timesteps: Sequence[int]
) -> list[Path]:
    """Write each of `images`, a batch (B, 3, H, W) in [-1, 1], as one frame; return the files.

    A batch goes side by side. Names hold step and timestep, as in `007_t0719.png`, so that they
    sort in the order of the steps. Frames of an earlier run in the folder are removed.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("[0-9]*_t[0-9]*.png"):
        old.unlink()
    paths = []
    for i, (batch, t) in enumerate(zip(images, timesteps, strict=True)):
        paths.append(folder / f"{i:03d}_t{t:04d}.png")
        image_grid(list(batch)).save(paths[-1])
    return paths

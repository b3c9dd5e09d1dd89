"""The multi-view denoiser: the denoiser, trained further on four views of an object at once.

It makes the views agree, and knows from which camera each is seen, so that it guides text to 3D
better than single images do (MVDream, Shi et al. 2023, arXiv:2308.16512).
"""

from functools import partial
from pathlib import Path

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from course.models.multiview import VIEWS, add_cameras, camera_features, join_views

from . import loop
from .denoiser import COMPILE_OPTIONS, DiffusionLoss, LatentDataset, load_frozen
from .muon import Muon
from .run import Run

OBJECTS = 256  # of a batch, with VIEWS images each


class ViewDataset(LatentDataset):
    """The latents of this process's shards: moments (N, V, 8, 32, 32) of V views of N objects."""

    stage = "views"

    def __init__(
        self, folder: Path, device: torch.device, rank: int = 0, world_size: int = 1
    ) -> None:
        super().__init__(folder, device, rank, world_size)
        angles = np.concatenate([np.load(shard / "cameras.npy") for shard in self.shards])
        azimuth, elevation = torch.from_numpy(angles).unbind(-1)  # (N, V) each
        self.cameras = camera_features(azimuth, elevation).to(self.moments.device)

    def sample(self, batch: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Return VIEWS views of `batch` random objects, with equal angles between them.

        Moments float16 (B, 8, 32, 32) with B = batch * VIEWS, a caption of each object, int64
        (B, L), and the features of the cameras, float32 (B, CAMERA_FEATURES).
        """
        i, j = self.sample_indices(batch, generator)
        step = self.moments.shape[1] // VIEWS
        first = torch.randint(step, (batch, 1), generator=generator, device=generator.device)
        views = first + step * torch.arange(VIEWS, device=first.device)
        rows, views = i[:, None], views.to(i.device)
        tokens = self.tokens[i, j].repeat_interleave(VIEWS, dim=0)
        parts = self.moments[rows, views], self.cameras[rows, views]
        moments, cameras = (part.flatten(0, 1).to(self.device) for part in parts)
        return moments, tokens.to(self.device).long(), cameras


class MultiViewLoss(DiffusionLoss):
    """The denoiser's loss on views: those of an object share the timestep and the caption."""

    def timesteps(self, batch: int, device: torch.device) -> Tensor:
        """Return the timesteps of a batch, int64 (B,)."""
        return super().timesteps(batch // VIEWS, device).repeat_interleave(VIEWS)

    def drop_captions(self, batch: int, device: torch.device) -> Tensor:
        """Return which images of a batch are trained without their caption, bool (B, 1)."""
        return super().drop_captions(batch // VIEWS, device).repeat_interleave(VIEWS, dim=0)

    def predict(
        self, noisy: Tensor, t: Tensor, states: Tensor, cameras: Tensor | None = None
    ) -> Tensor:
        """Return the noise in `noisy`; cameras: their features (B, CAMERA_FEATURES)."""
        return self.unet(noisy, t, states, class_labels=cameras, return_dict=False)[0]


def main(run: Run) -> None:
    """Train the denoiser further on WORK/views; write WORK/multiview/weights."""
    data = ViewDataset(run.work / "views", run.device, run.rank, run.processes)
    text, scaling_factor, empty = load_frozen(run)
    torch.manual_seed(run.seed)
    if run.init:
        unet = run.load(UNet2DConditionModel)
    else:
        unet = add_cameras(run.load(UNet2DConditionModel, "denoiser"))
    join_views(unet)
    model = MultiViewLoss(unet, text, scaling_factor, empty).to(run.device)
    unet.to(memory_format=torch.channels_last)
    objects = run.batch or (2 if run.smoke else OBJECTS)
    run.log(f"{len(data):,} objects in each process")

    def loss_fn(network: nn.Module, step: int, fraction: float) -> dict[str, Tensor]:
        return network(*data.sample(objects, run.generator))

    settings = loop.Settings(100_000, minutes=16.0, warmup=300, compile_options=COMPILE_OPTIONS)
    save = partial(loop.save_contiguous, unet)
    loop.train(run, model, Muon(unet, lr=1e-3), loss_fn, save, settings)

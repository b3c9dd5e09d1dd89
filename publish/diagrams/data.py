"""Numbers and images that the diagrams show: the embedded model's sizes, schedule and samples."""

import io
import json
from typing import Any

import numpy as np
from PIL import Image

from course.figures import ROOT

MODEL = ROOT / "pocket" / "weights" / "stable-diffusion"


def read_config(*parts: str) -> dict[str, Any]:
    """Return a configuration of the embedded model, such as ("unet", "config.json")."""
    config: dict[str, Any] = json.loads(MODEL.joinpath(*parts).read_text(encoding="utf-8"))
    return config


def alpha_bars() -> np.ndarray:
    """Return the embedded model's alpha_bar at each timestep, (1000,)."""
    config = read_config("scheduler", "scheduler_config.json")
    if config["beta_schedule"] != "scaled_linear":
        raise ValueError(f"beta_schedule must be scaled_linear, got {config['beta_schedule']}.")
    ends = config["beta_start"] ** 0.5, config["beta_end"] ** 0.5
    betas = np.linspace(*ends, config["num_train_timesteps"]) ** 2
    return np.cumprod(1 - betas)


def latent_size() -> tuple[int, int]:
    """Return the channels and the side of the embedded model's latents."""
    config = read_config("unet", "config.json")
    return config["in_channels"], config["sample_size"]


def sample_image(name: str, side: int) -> np.ndarray:
    """Return an image of assets/samples as (side, side, 3) in [-1, 1]."""
    with Image.open(ROOT / "assets" / "samples" / name) as image:
        small = image.convert("RGB").resize((side, side), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float64) / 127.5 - 1


def to_png(image: np.ndarray) -> bytes:
    """Return an image (H, W, 3) in [-1, 1] as a PNG."""
    values = ((image.clip(-1, 1) + 1) * 127.5).round().astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()

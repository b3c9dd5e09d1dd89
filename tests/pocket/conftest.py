"""What several tests of pocket need."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pocket.train import autoencoder, denoiser, judge, towers
from pocket.train.tokenizer import train_tokenizer


@pytest.fixture(scope="session")
def write_untrained() -> Callable[[Path], None]:
    """Fill a work folder with untrained weights of all parts but the ControlNets."""
    return _write_untrained


def _write_untrained(work: Path) -> None:
    torch.manual_seed(0)
    tokenizer = train_tokenizer(["a red cat on the grass", "a hamburger"] * 5)
    tokenizer.save_pretrained(work / "tokenizer")
    clip = towers.build(tokenizer, smoke=True)
    parts = {
        "autoencoder": autoencoder.build(autoencoder.SMOKE),
        "denoiser": denoiser.build(denoiser.SMOKE, clip.config.text_config.hidden_size),
        "towers": clip,
        "judge": judge.build(smoke=True),
    }
    for stage, model in parts.items():
        model.save_pretrained(work / stage / "weights")
    tokenizer.save_pretrained(work / "towers" / "weights")

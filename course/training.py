"""What the lesson on training does not write itself: its data, and runs that can be continued.

data = load_training_set()
run = TrainingRun(folder, {"unet": unet, "optimizer": optimizer, "ema": ema}, generator)
run.train(one_step, 1000)  # one_step() returns the loss; Ctrl-C stops after a step and saves
"""

import contextlib
import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from course.errors import CourseError
from course.files import remove_partial, replace_file
from course.interrupt import Interrupt
from course.models.files import ROOT, read_json, short_path
from course.models.weights import WEIGHTS

TOYS = ROOT / "assets" / "training" / "toys.safetensors"
VAE_FILE = "stable-diffusion/vae/diffusion_pytorch_model.safetensors"
SAVE_SECONDS = 20.0


class TrainingError(CourseError):
    """Training cannot start or go on; the message says why and what to do."""


Pair = tuple[str, str]  # a toy and its color


def toy_caption(toy: str, color: str) -> str:
    """Return the caption of a toy, such as "an orange duck"."""
    return f"{'an' if color[0] in 'aeiou' else 'a'} {color} {toy}"


@dataclass(frozen=True)
class TrainingSet:
    """Images of toys, encoded: scaled latents float32 (N, 4, h, w), and toy and color of each."""

    latents: Tensor
    pairs: list[Pair]  # N
    all_pairs: list[Pair]  # every toy in every color

    @property
    def unseen(self) -> list[Pair]:
        """The pairs that no image shows."""
        return [pair for pair in self.all_pairs if pair not in set(self.pairs)]


def autoencoder_hash() -> str:
    """Return the SHA-256 of the embedded autoencoder's weights, from their manifest."""
    return str(read_json(WEIGHTS / "manifest.json", "pocket")["files"][VAE_FILE]["sha256"])


def load_training_set(path: Path = TOYS) -> TrainingSet:
    """Load the toys that `python -m pocket.training_set` wrote.

    Raises TrainingError if the file is missing or damaged, or if the embedded autoencoder is not
    the one that encoded it.
    """
    from safetensors import SafetensorError, safe_open

    command = "Make it again with: python -m pocket.training_set"
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        toys, colors = json.loads(metadata["toys"]), json.loads(metadata["colors"])
        latents = tensors["low"] + tensors["step"] * tensors["latents"].float()
        kinds = zip(tensors["toy"].tolist(), tensors["color"].tolist(), strict=True)
        pairs = [(toys[toy], colors[color]) for toy, color in kinds]
    except (OSError, SafetensorError, LookupError, TypeError, ValueError) as error:
        reason = f"{short_path(path)} cannot be read as a training set ({error})."
        raise TrainingError(f"{reason} {command}") from error
    if metadata.get("autoencoder") != autoencoder_hash():
        raise TrainingError(f"{short_path(path)} is of another autoencoder. {command}")
    return TrainingSet(latents, pairs, [(toy, color) for toy in toys for color in colors])


class TrainingRun:
    """A training that goes on where it stopped: after Ctrl-C, a crash, or a larger goal.

    Args:
        folder: where the checkpoint lies.
        parts: what has a state, by name: network, optimizer, running average.
        generator: where all random numbers of the training come from.
        restart: forget the stored checkpoint.
    Raises:
        TrainingError: the checkpoint is damaged or of another network.
    """

    def __init__(
        self,
        folder: str | Path,
        parts: Mapping[str, Any],
        generator: torch.Generator,
        restart: bool = False,
    ) -> None:
        self.path = Path(folder) / "checkpoint.pt"
        self.parts = parts
        self.generator = generator
        self.losses: list[float] = []
        self.previews: dict[int, Tensor] = {}
        self.seconds = 0.0  # of training, without previews
        self.path.parent.mkdir(parents=True, exist_ok=True)
        remove_partial(self.path.parent, self.path.name)
        if restart:
            self.path.unlink(missing_ok=True)
        if self.path.exists():
            self._load()

    @property
    def step(self) -> int:
        """How many steps the training has taken."""
        return len(self.losses)

    def train(
        self,
        one_step: Callable[[], float],
        total: int,
        preview: Callable[[], Tensor] | None = None,
        preview_steps: Collection[int] = (),
    ) -> None:
        """Call `one_step`, which returns the loss, until the run has `total` steps, and save.

        At each of `preview_steps`, step 0 included, the result of `preview` goes to `previews`.
        Ctrl-C (the stop button in Jupyter) ends the training after the current step, saved.
        """
        start = self.step
        saved = time.monotonic()
        bar = tqdm(initial=start, total=total, desc="training", unit="step", disable=start >= total)
        with Interrupt() as interrupt, bar:
            while not interrupt.requested:
                if preview and self.step in preview_steps and self.step not in self.previews:
                    self.previews[self.step] = preview()
                if self.step >= total:
                    break
                start_time = time.perf_counter()
                self.losses.append(one_step())
                self.seconds += time.perf_counter() - start_time
                bar.update()
                bar.set_postfix(loss=f"{sum(self.losses[-50:]) / len(self.losses[-50:]):.3f}")
                if time.monotonic() - saved > SAVE_SECONDS:
                    self.save()
                    saved = time.monotonic()
        if self.step > start:
            self.save()
        if interrupt.requested:
            print(f"Stopped at step {self.step:,} of {total:,}, and saved: run this cell again.")
        else:
            print(f"{self.step:,} steps in total, {self.step - start:,} of them in this run.")

    def save(self) -> None:
        """Write the checkpoint, completely or not at all."""
        state = {
            "parts": {name: part.state_dict() for name, part in self.parts.items()},
            "generator": self.generator.get_state(),
            "losses": self.losses,
            "seconds": self.seconds,
            "previews": self.previews,
        }
        with replace_file(self.path) as new:
            torch.save(state, new)

    def _load(self) -> None:
        advice = "Begin again with restart=True, or choose another folder."
        try:
            state = torch.load(self.path, weights_only=True)
            for name, part in self.parts.items():
                part.load_state_dict(state["parts"][name])
            self.generator.set_state(state["generator"])
            self.losses = list(state["losses"])
            self.previews = dict(state["previews"])
            self.seconds = float(state["seconds"])
        except Exception as error:  # torch raises errors of many types for a damaged file
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            where = short_path(self.path)
            raise TrainingError(
                f"{where} does not fit this training ({reason}). {advice}"
            ) from error


@contextlib.contextmanager
def averaged_weights(ema: Any, network: torch.nn.Module) -> Iterator[None]:
    """Within this block `network` has the running averages of diffusers' EMAModel as weights."""
    ema.store(network.parameters())
    ema.copy_to(network.parameters())
    try:
        yield
    finally:
        ema.restore(network.parameters())


def plot_losses(losses: Sequence[float]) -> None:
    """Plot the loss of each batch, and its moving average."""
    import matplotlib.pyplot as plt

    values = np.array(losses)
    window = max(1, len(values) // 30)
    smooth = np.convolve(values, np.ones(window) / window, "valid")
    _, axes = plt.subplots(figsize=(8, 2.6), layout="tight")
    axes.semilogy(values, color="0.75", label="each batch")
    label = f"moving average over {window} steps"
    axes.semilogy(np.arange(len(smooth)) + window / 2, smooth, label=label)
    axes.set(xlabel="step", ylabel="loss")
    axes.yaxis.set_minor_formatter("{x:.1g}")
    axes.yaxis.set_major_formatter("{x:.1g}")
    axes.legend(frameon=False)
    plt.show()


def plot_by_timestep(timesteps: Sequence[int], losses: Mapping[str, Sequence[float]]) -> None:
    """Plot losses by timestep, one curve for each name."""
    import matplotlib.pyplot as plt

    _, axes = plt.subplots(figsize=(8, 2.6), layout="tight")
    for name, values in losses.items():
        axes.plot(timesteps, values, ".-", label=name)
    axes.set(xlabel="timestep t", ylabel="loss", ylim=(0, None))
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    plt.show()

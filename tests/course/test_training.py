"""Training runs: stopped and continued they end where an uninterrupted one does."""

import os
import signal

import pytest
import torch
from diffusers.training_utils import EMAModel
from safetensors.torch import load_file, save_file

from course import training
from course.training import TrainingError, TrainingRun, load_training_set


class Toy:
    """A small network with all that a lesson's training has."""

    def __init__(self, width: int = 3) -> None:
        torch.manual_seed(0)
        self.network = torch.nn.Linear(width, 1)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=0.1)
        self.ema = EMAModel(self.network.parameters(), decay=0.9, use_ema_warmup=True)
        self.generator = torch.Generator().manual_seed(1)
        self.stop_at = None
        self.calls = 0

    def run(self, folder, **options) -> TrainingRun:
        parts = {"unet": self.network, "optimizer": self.optimizer, "ema": self.ema}
        return TrainingRun(folder, parts, self.generator, **options)

    def one_step(self) -> float:
        self.calls += 1
        if self.calls == self.stop_at:
            os.kill(os.getpid(), signal.SIGINT)
        batch = torch.randn(8, self.network.in_features, generator=self.generator)
        loss = (self.network(batch).squeeze(1) - batch.sum(1)).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.ema.step(self.network.parameters())
        return loss.item()

    def preview(self) -> torch.Tensor:
        return self.network.weight.detach().clone()


def test_a_stopped_run_goes_on_as_if_it_had_not_been_stopped(tmp_path, capsys):
    whole = Toy()
    whole_run = whole.run(tmp_path / "whole")
    whole_run.train(whole.one_step, 12, whole.preview, (0, 6, 12))

    stopped = Toy()
    stopped.stop_at = 5
    stopped.run(tmp_path / "parts").train(stopped.one_step, 12, stopped.preview, (0, 6, 12))
    assert "Stopped at step 5 of 12" in capsys.readouterr().out
    other = Toy()  # as in a new kernel
    run = other.run(tmp_path / "parts")
    assert run.step == 5
    run.train(other.one_step, 12, other.preview, (0, 6, 12))
    assert "12 steps in total, 7 of them in this run" in capsys.readouterr().out

    assert run.losses == whole_run.losses
    assert torch.equal(other.network.weight, whole.network.weight)
    assert torch.equal(other.ema.shadow_params[0], whole.ema.shadow_params[0])
    assert list(run.previews) == list(whole_run.previews) == [0, 6, 12]
    for step, preview in whole_run.previews.items():
        assert torch.equal(run.previews[step], preview)
    assert run.seconds > 0


def test_a_finished_run_is_loaded_and_a_larger_goal_continues_it(tmp_path, capsys):
    toy = Toy()
    toy.run(tmp_path).train(toy.one_step, 4)
    again = Toy()
    run = again.run(tmp_path)
    run.train(again.one_step, 4)
    assert again.calls == 0
    assert torch.equal(again.network.weight, toy.network.weight)
    run.train(again.one_step, 6)
    assert again.calls == 2
    assert "6 steps in total, 2 of them in this run" in capsys.readouterr().out


def test_restart_forgets_the_checkpoint(tmp_path):
    toy = Toy()
    toy.run(tmp_path).train(toy.one_step, 4)
    run = Toy().run(tmp_path, restart=True)
    assert run.step == 0
    assert not run.path.exists()


def test_a_long_run_saves_on_the_way(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "SAVE_SECONDS", -1)
    toy = Toy()

    def step() -> float:
        if toy.calls == 3:
            raise ZeroDivisionError  # as a crash in the middle of a step
        return toy.one_step()

    with pytest.raises(ZeroDivisionError):
        toy.run(tmp_path).train(step, 10)
    assert Toy().run(tmp_path).step == 3


def damage(path):
    path.write_bytes(path.read_bytes()[:100])


def forget_losses(path):
    state = torch.load(path)
    del state["losses"]
    torch.save(state, path)


class Unknown:
    """A class that weights_only refuses to load."""


@pytest.mark.parametrize(
    "change",
    [
        damage,
        forget_losses,
        lambda path: path.write_bytes(b""),
        lambda path: torch.save(["a list"], path),
        lambda path: torch.save(Unknown(), path),
    ],
)
def test_a_damaged_checkpoint_is_an_error_with_advice(change, tmp_path):
    toy = Toy()
    run = toy.run(tmp_path)
    run.train(toy.one_step, 2)
    change(run.path)
    with pytest.raises(TrainingError, match=r"does not fit.*restart=True"):
        Toy().run(tmp_path)


def test_a_checkpoint_of_another_network_is_an_error(tmp_path):
    toy = Toy()
    toy.run(tmp_path).train(toy.one_step, 2)
    with pytest.raises(TrainingError, match="does not fit this training"):
        Toy(width=4).run(tmp_path)


def test_averaged_weights_come_and_go(tmp_path):
    toy = Toy()
    toy.run(tmp_path).train(toy.one_step, 5)
    own = toy.network.weight.detach().clone()
    with training.averaged_weights(toy.ema, toy.network):
        assert torch.equal(toy.network.weight, toy.ema.shadow_params[0])
    assert torch.equal(toy.network.weight, own) and not torch.equal(own, toy.ema.shadow_params[0])


def test_the_training_set_of_the_course():
    data = load_training_set()
    assert data.latents.shape == (len(data.pairs), 4, 16, 16)
    assert data.latents.dtype == torch.float32
    assert 300 <= len(data.pairs) <= 3000
    assert training.TOYS.stat().st_size <= 3 * 10**6
    assert set(data.pairs) | set(data.unseen) == set(data.all_pairs)
    # Every toy lacks one color, and is shown as often in each of the others.
    assert [toy for toy, _ in data.unseen] == list(dict(data.all_pairs))
    counts = [data.pairs.count(pair) for pair in set(data.pairs)]
    assert min(counts) == max(counts)


def test_captions():
    assert training.toy_caption("duck", "orange") == "an orange duck"
    assert training.toy_caption("elephant", "red") == "a red elephant"


@pytest.mark.parametrize("change", ["missing", "damaged", "no toys", "other autoencoder"])
def test_another_training_set_is_refused(change, tmp_path):
    path = tmp_path / "toys.safetensors"
    metadata = {"toys": '["duck"]', "colors": '["red"]', "autoencoder": training.autoencoder_hash()}
    if change == "no toys":
        del metadata["toys"]
    if change == "other autoencoder":
        metadata["autoencoder"] = "0" * 64
    if change != "missing":
        save_file(load_file(training.TOYS), path, metadata)
    if change == "damaged":
        damage(path)
    with pytest.raises(TrainingError, match=r"python -m pocket\.training_set"):
        load_training_set(path)

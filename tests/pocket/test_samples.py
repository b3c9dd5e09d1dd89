"""The sample photographs: rendered the same again, small, in words that the model knows."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from course.models import find_model
from course.models.prompts import unknown_words
from pocket import samples

FOLDER = Path(samples.__file__).resolve().parent.parent / samples.FOLDER


def test_what_is_stored_is_what_is_described():
    files = {path.name for path in FOLDER.iterdir()}
    assert files == {f"{name}.png" for name in samples.SAMPLES} | {"captions.json"}
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 2**20
    captions = json.loads((FOLDER / "captions.json").read_text())
    assert captions == {f"{name}.png": sample.caption for name, sample in samples.SAMPLES.items()}


def test_the_captions_are_in_words_that_the_model_knows():
    vocabulary = find_model("pocket").vocabulary
    assert [
        word
        for sample in samples.SAMPLES.values()
        for word in unknown_words(sample.caption, vocabulary)
    ] == []


def test_scenes_are_unlike_each_other():
    small = [
        np.asarray(Image.open(p).convert("RGB").resize((16, 16)), np.float32)
        for p in FOLDER.glob("*.png")
    ]
    assert len(small) >= 5
    assert min(np.abs(a - b).mean() for i, a in enumerate(small) for b in small[:i]) > 25


@pytest.mark.parametrize("name", ["house", "mountains"])
def test_the_command_draws_them_again(name, monkeypatch, tmp_path):
    """Small here: a pixel then is the mean of those of the stored image."""
    monkeypatch.setattr(samples, "SIDE", 64)
    monkeypatch.setattr(samples, "SAMPLES", {name: samples.SAMPLES[name]})
    samples.main(["--folder", str(tmp_path)])
    again, stored = Image.open(tmp_path / f"{name}.png"), Image.open(FOLDER / f"{name}.png")
    assert min(again.size) == 64 and again.width / again.height == pytest.approx(
        stored.width / stored.height, rel=0.01
    )
    shrunk = stored.resize(again.size, Image.Resampling.BOX)
    assert np.abs(np.asarray(again, np.float32) - np.asarray(shrunk, np.float32)).mean() < 3
    assert list(json.loads((tmp_path / "captions.json").read_text())) == [f"{name}.png"]


def test_a_label_that_the_world_lacks_is_refused():
    with pytest.raises(ValueError, match="not in"):
        samples.sample_scene(samples.Sample("a giraffe", {"object": "giraffe"}, seed=1))


@pytest.mark.parametrize("folder", ["", __file__, f"{__file__}/x", "/proc/nowhere"])
def test_a_folder_that_cannot_be_is_refused(folder, capsys):
    with pytest.raises(SystemExit, match="2"):
        samples.main(["--folder", folder])
    assert "--folder" in capsys.readouterr().err

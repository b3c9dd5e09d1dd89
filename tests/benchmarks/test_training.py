"""The benchmark of the denoiser's training runs at toy size and resumes from its files."""

import json

import numpy as np
import pytest
from transformers import CLIPTextConfig

from benchmarks import training
from benchmarks.training import VARIANTS, Variant
from course.models import WEIGHTS
from pocket.train import denoiser

TOY = {
    name: denoiser.SMOKE[name]
    for name in ("block_out_channels", "attention_head_dim", "layers_per_block")
}


@pytest.fixture
def work(tmp_path):
    folder = tmp_path / "latents" / "extra-00000000"
    folder.mkdir(parents=True)
    length = CLIPTextConfig.from_pretrained(WEIGHTS / "clip").max_position_embeddings
    rng = np.random.default_rng(0)
    np.save(folder / "moments.npy", rng.normal(size=(12, 8, 32, 32)).astype(np.float16))
    np.save(folder / "tokens.npy", rng.integers(0, 500, (12, 4, length)).astype(np.int16))
    return tmp_path


def test_variants_train_and_are_measured(work, monkeypatch, capsys):
    small = {"config": TOY, "batch": 4}
    monkeypatch.setitem(VARIANTS, "adamw", Variant("plain", **small))
    monkeypatch.setitem(VARIANTS, "muon-repa", Variant("aligned", muon=True, repa=0.5, **small))
    stored = []
    monkeypatch.setattr(training, "store", lambda path, rows: stored.extend(rows))
    options = ["--samples", "8", "--images", "2", "--work", str(work), "--out", str(work / "out")]
    rows = training.main(["adamw", "muon-repa", *options])
    assert len(rows) == 10
    assert all(np.isfinite(row.value) for row in rows)
    assert not stored  # a reduced run
    result = json.loads((work / "out" / "muon-repa.json").read_text())
    assert -1 <= result["curve"][0]["align"] <= 1
    assert (work / "out" / "adamw.png").exists()

    monkeypatch.setattr(training, "Bench", None)  # nothing is trained again
    again = training.main(["adamw", "muon-repa", *options])
    assert [row.value for row in again] == [row.value for row in rows]
    assert "plain: Frechet distance, guidance 3" in capsys.readouterr().out


def test_an_unknown_variant_is_refused(capsys):
    with pytest.raises(SystemExit):
        training.main(["adamx"])
    assert "must be one of adamw-5e-4, adamw," in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--samples", "0"], "argument --samples: must be a whole number of at least 1, got '0'"),
        (["--samples", "-8"], "argument --samples: must be"),
        (
            ["--images", "1"],
            "argument --images: must be a whole number from 2 to 1,000,000, got '1'",
        ),
        (["--images", "nan"], "argument --images: must be"),
        (["--work", ""], "argument --work: must name a folder"),
        (["--out", __file__], "argument --out: must name a folder"),
        (["--work", "nowhere"], "no latents in nowhere: run `python -m pocket.train latents`"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training, "Bench", lambda *_: pytest.fail("began"))
    with pytest.raises(SystemExit, match="2"):
        training.main(["adamw", *options])
    assert message in capsys.readouterr().err

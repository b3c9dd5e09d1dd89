"""The folder that ships: loads by the plain call, in small files, each in the manifest."""

import argparse
import hashlib
import json

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageClassification, CLIPModel, CLIPTokenizer

from pocket.train import export
from pocket.train.run import Run, Stage, add_arguments


@pytest.fixture(scope="module")
def run(tmp_path_factory, write_untrained) -> Run:
    """A work folder with untrained weights of every stage."""
    work = tmp_path_factory.mktemp("export")
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    options = ["--smoke", "--work", str(work / "work"), "--weights", str(work / "weights")]
    run = Run.from_args(Stage("export"), parser.parse_args(options))
    write_untrained(run.work)
    heads = run.work / "perceptual" / "weights"
    heads.mkdir(parents=True)
    save_file({"layer_0": torch.ones(4)}, heads / "heads.safetensors")
    (heads / "config.json").write_text("{}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "SHARD_SIZE", "100KB")
        export.main(run)
    return run


def test_the_plain_call_loads_and_draws_in_one_type(run):
    pipe = StableDiffusionPipeline.from_pretrained(run.weights / "stable-diffusion")
    pipe.set_progress_bar_config(disable=True)
    assert {pipe.unet.dtype, pipe.vae.dtype, pipe.text_encoder.dtype} == {torch.float32}
    assert pipe.safety_checker is None and pipe.scheduler.config.timestep_spacing == "trailing"
    images = pipe("a red cat", num_inference_steps=2, output_type="pt").images
    assert images.shape == (1, 3, 256, 256) and images.isfinite().all()


def test_weights_are_half_on_disk_and_in_shards(run):
    shards = sorted((run.weights / "stable-diffusion" / "unet").glob("*.safetensors"))
    assert len(shards) > 2
    for path in run.weights.rglob("*.safetensors"):
        if path.parent.name != "perceptual":
            kinds = {value.dtype for value in load_file(path).values() if value.is_floating_point()}
            assert kinds <= {torch.float16}, path


def test_the_weights_are_those_of_the_stages(run):
    shipped = CLIPModel.from_pretrained(run.weights / "clip")
    trained = CLIPModel.from_pretrained(run.work / "towers" / "weights", dtype=torch.float32)
    for name, value in trained.state_dict().items():
        torch.testing.assert_close(shipped.state_dict()[name], value, atol=1e-3, rtol=1e-3)
    assert (
        CLIPTokenizer.from_pretrained(run.weights / "clip")("a red cat").input_ids
        == CLIPTokenizer.from_pretrained(run.weights / "stable-diffusion" / "tokenizer")(
            "a red cat"
        ).input_ids
    )
    judged = AutoModelForImageClassification.from_pretrained(run.weights / "judge")
    assert {p.dtype for p in judged.parameters()} == {torch.float32}


def test_the_manifest_lists_every_file_that_loads(run):
    files = json.loads((run.weights / "manifest.json").read_text())["files"]
    there = {p.relative_to(run.weights).as_posix() for p in run.weights.rglob("*") if p.is_file()}
    assert set(files) == there - {"manifest.json", "training.json"}
    for name, entry in files.items():
        content = (run.weights / name).read_bytes()
        assert entry == {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def test_the_vocabulary_is_published(run):
    published = json.loads((run.weights / "vocabulary.json").read_text())
    assert {"hamburger", "astronaut", "mars", "turquoise"} <= set(published["words"])
    assert len(published["objects"]) >= 24 and len(published["landscapes"]) >= 10


def test_exporting_again_takes_what_ships_where_a_stage_did_not_run(run, tmp_path):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    options = ["--smoke", "--work", str(tmp_path), "--weights", str(run.weights)]
    before = {
        name: entry
        for name, entry in export.manifest(run.weights)["files"].items()
        if "model" not in name
    }
    export.main(Run.from_args(Stage("export"), parser.parse_args(options)))
    after = export.manifest(run.weights)["files"]
    assert before and {name: after[name] for name in before} == before


def test_no_file_names_a_path_of_the_machine_that_trained(run):
    for path in run.weights.rglob("*.json"):
        assert str(run.work) not in path.read_text() and "/tmp" not in path.read_text(), path


def test_too_large_a_file_or_folder_is_refused(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(bytes(100))
    monkeypatch.setattr(export, "FILE_BUDGET", 99)
    with pytest.raises(ValueError, match="a file may have"):
        export.check_sizes(tmp_path)
    monkeypatch.setattr(export, "FILE_BUDGET", 100)
    monkeypatch.setattr(export, "CORE_BUDGET", 99)
    with pytest.raises(ValueError, match="in all"):
        export.check_sizes(tmp_path)

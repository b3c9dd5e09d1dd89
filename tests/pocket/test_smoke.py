"""Every stage at toy size, from nothing to an image, by the commands that a user types."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline, StableDiffusionPipeline

from pocket.train.__main__ import expand


def pocket(*arguments: str) -> subprocess.CompletedProcess:
    done = subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("smoke")
    options = ["--work", str(folder / "work"), "--weights", str(folder / "weights")]
    pocket("pocket.train", "all", "--smoke", *options)
    return folder


@pytest.mark.slow
def test_all_stages_leave_a_pipeline_that_draws(folder):
    pipe = StableDiffusionPipeline.from_pretrained(folder / "weights" / "stable-diffusion")
    pipe.set_progress_bar_config(disable=True)
    image = np.asarray(pipe("a hamburger", num_inference_steps=2).images[0])
    assert image.shape == (256, 256, 3) and image.std() > 0


@pytest.mark.slow
def test_two_controlnets_steer_that_pipeline_together(folder):
    parts = [
        ControlNetModel.from_pretrained(folder / "weights" / "controlnet" / kind)
        for kind in ("canny", "depth")
    ]
    pipe = StableDiffusionControlNetPipeline.from_pretrained(
        folder / "weights" / "stable-diffusion", controlnet=parts, requires_safety_checker=False
    )
    pipe.set_progress_bar_config(disable=True)
    given = [torch.rand(1, 3, 256, 256) for _ in parts]
    image = np.asarray(pipe("a hamburger", image=given, num_inference_steps=1).images[0])
    assert image.shape == (256, 256, 3) and image.std() > 0


@pytest.mark.slow
def test_every_trained_stage_leaves_its_curve(folder):
    for stage in set(map(str, expand("all"))) - {
        "data",
        "latents",
        "conditions",
        "views",
        "export",
    }:
        curve = json.loads((folder / "work" / stage / "curve.json").read_text())
        assert curve["stage"] == stage and len(curve["rows"]) == curve["steps"] > 0
        assert any((folder / "work" / "logs" / stage).iterdir())


@pytest.mark.slow
def test_no_held_out_composition_is_in_what_the_denoiser_sees(folder):
    shards = list((folder / "work" / "data" / "train").glob("*/labels.npy"))
    assert shards and not any(np.load(path)["heldout"].any() for path in shards)
    held = list((folder / "work" / "data" / "heldout").glob("*/labels.npy"))
    assert held and all(np.load(path)["heldout"].all() for path in held)
    counts = [len(np.load(path)) for path in (folder / "work" / "latents").glob("*/moments.npy")]
    assert (
        sum(counts) == sum(len(np.load(path)) for path in shards) + 16
    )  # the pool and 16 fresh scenes


@pytest.mark.slow
def test_done_stages_are_passed_over_and_init_trains_on(folder):
    options = ["--smoke", "--work", str(folder / "work"), "--weights", str(folder / "weights")]
    assert "finished in" in pocket("pocket.train", "denoiser", *options).stdout
    pocket("pocket.train", "denoiser", "--init", "--steps", "2", *options)
    curve = json.loads((folder / "work" / "denoiser" / "curve.json").read_text())
    assert curve["steps"] == 2


@pytest.mark.weekly
def test_latents_of_another_pool_are_made_anew(folder):
    options = ["--smoke", "--work", str(folder / "work"), "--weights", str(folder / "weights")]
    for stage in ("data", "latents"):
        pocket("pocket.train", stage, "--scenes", "65", *options)
    counts = [len(np.load(path)) for path in (folder / "work" / "latents").glob("*/moments.npy")]
    assert sum(counts) == 65 + 16


@pytest.mark.slow
def test_the_evaluation_runs_and_a_reduced_one_stores_no_row(folder):
    weights = folder / "weights"
    done = pocket(
        "pocket.evaluate",
        "sizes",
        "autoencoder",
        "judge",
        "--images",
        "2",
        "--weights",
        str(weights),
    )
    assert "autoencoder: PSNR" in done.stdout and "judge on renders: " in done.stdout
    rows = json.loads((weights / "evaluation.json").read_text())["rows"]
    figures = [
        "weights in all",
        "weights without ControlNets and estimators",
        "largest file",
        "parameters of the denoiser",
    ]
    assert [row["figure"] for row in rows] == figures

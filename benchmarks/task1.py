"""The figures of Task 1: `python -m benchmarks.task1 [GROUP ...]`, rows in results/task1.json.

loop     the sampling loop of lesson 1.2, as it stands in the notebook, beside diffusers' pipeline
fewer    section 14 of lesson 1.2, ways to save calls: what the judge reads in images of many
         captions, and the seconds of an image on two CPU cores; needs a GPU and an idle machine
times    each lesson from top to bottom, as a first user runs it, and its memory; needs an
         otherwise idle machine
"""

import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor

from benchmarks.common import RESULTS, measure
from course import notebooks
from course.figures import Row, machine, make_rows, run_command, run_on_two_cores, timed
from course.metrics import Judge, JudgeFeatures, fid
from course.models import Model, find_model, load_pipeline
from course.speed.fewer_calls import deep_cache, guidance_interval
from pocket.distances import embed
from pocket.test_set import (
    correct_masks,
    generate,
    load_test_set,
    render_scenes,
    scored_masks,
)

LESSON = notebooks.ROOT / "task_1_2_Stable_Diffusion_detailed.ipynb"
STEPS, GUIDANCE = 25, 5.0
PROMPTS = ["a red car on grass", "a bunny"]
NEGATIVES = ["", "a tree"]
SEEDS = [1, 2]
CAPTIONS, BATCH = 2000, 100
WAYS: dict[str, tuple[int, int]] = {  # lowest guided timestep, and `every` of `deep_cache`
    "all": (0, 1),
    "guided_from_400": (400, 1),
    "every_2": (0, 2),
    "every_3": (0, 3),
    "every_4": (0, 4),
    "both": (400, 2),
}
MINUTES = {  # bars by lesson
    "task_0_Introduction": 3.0,
    "task_1_1_Stable_Diffusion_intro": 3.0,
    "task_1_2_Stable_Diffusion_detailed": 4.0,
    "task_1_4_Training": 4.0,
    "task_1_3_ControlNet": 4.0,
    "make_video": 0.3,
    "task_2_Joint_Diffusion": 8.0,
    "task_3_DreamFusion": 6.0,
}
# Runs a command, then prints the largest memory of a process that it started.
WITH_MEMORY = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""


# --- The loop


def loop_rows() -> list[Row]:
    """Both etas, on the embedded model and on one with random weights that predicts v."""
    pocket = find_model("pocket")
    rows = compare(pocket, "epsilon", "pocket, epsilon")
    with tempfile.TemporaryDirectory() as folder:
        model = random_v_model(pocket, Path(folder))
        rows += compare(model, "v_prediction", "random weights, v-prediction")
    return rows


def random_v_model(model: Model, folder: Path) -> Model:
    """Save a copy of `model` in `folder` whose denoiser has random weights and predicts v."""
    pipe = load_pipeline(model)
    torch.manual_seed(0)
    pipe.unet = UNet2DConditionModel.from_config(pipe.unet.config)
    config = pipe.scheduler.config
    pipe.scheduler = DDIMScheduler.from_config(config, prediction_type="v_prediction")
    pipe.save_pretrained(folder)
    return find_model(folder)


@torch.no_grad()
def compare(model: Model, key: str, name: str, steps: int = STEPS) -> list[Row]:
    """Return the largest differences of latents and of predicted images, in float32."""
    lesson = notebooks.definitions(notebooks.read(LESSON))
    sd, pipe = lesson.StableDiffusion(model), load_pipeline(model)
    if model.dtype != torch.float32:
        raise RuntimeError(f"{model.name} runs in {model.dtype}; the bars are those of float32")
    rows = []
    for eta in (0.0, 1.0):
        expected = pipe(
            PROMPTS,
            negative_prompt=NEGATIVES,
            num_inference_steps=steps,
            guidance_scale=GUIDANCE,
            eta=eta,
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in SEEDS],
            output_type="latent",
        ).images
        sd.sample(PROMPTS, NEGATIVES, steps, GUIDANCE, seed=SEEDS, eta=eta)
        error = (sd.steps[-1].x_prev - expected).abs().max().item()
        x_0_error = max(closed_form_error(lesson, sd, step) for step in sd.steps)
        about = f"({name}, eta {eta:g}, {steps} steps)"
        rows += make_rows(
            f"task1.loop.{key}.eta_{eta:g}",
            "lesson 1.2",
            ("latents", f"latents beside StableDiffusionPipeline {about}", error, "", "<=", 1e-4),
            ("x_0", f"x_0 at every step beside the closed form {about}", x_0_error, "", "<=", 1e-5),
        )
    return rows


def closed_form_error(lesson: ModuleType, sd: Any, step: Any) -> float:
    """Return the error of the lesson's x_0 against DDIM's equation 9, or that for v, in float64."""
    alpha_bar = sd.scheduler.alphas_cumprod[step.t].double().item()
    x_t, output = step.x_t.double(), lesson.guide(step.uncond, step.cond, GUIDANCE).double()
    if sd.model.prediction_type == "epsilon":
        x_0 = (x_t - (1 - alpha_bar) ** 0.5 * output) / alpha_bar**0.5
    else:
        x_0 = alpha_bar**0.5 * x_t - (1 - alpha_bar) ** 0.5 * output
    return (step.x_0.double() - x_0).abs().max().item()


# --- Fewer calls


def fewer_rows(count: int = CAPTIONS) -> list[Row]:
    """For each way: attributes read right, distance to renders, and the time of an image."""
    if not torch.cuda.is_available() and count > 100:
        print("fewer needs a GPU: left out")
        return []
    model = find_model("pocket")
    pipe = load_pipeline(model)
    test = load_test_set(model.folder.parent, count, "all")
    device = torch.device(model.device)
    judge, network = Judge(device), JudgeFeatures(device).pool
    scored = scored_masks(test.labels, test.mentions)
    reference = embed(network, render_scenes(test, device), device)
    rows = []
    for name, way in WAYS.items():
        images = generate_by(pipe, test.prompts, test.seeds, way)
        correct = correct_masks(test.labels, judge.classify(images))
        distance = fid(embed(network, images, device), reference)
        about = (
            f"{count} captions, {STEPS} steps, guided from {way[0]}, inner blocks every {way[1]}"
        )
        figures: list[tuple[Any, ...]] = [("fid", "Fréchet distance to renders", distance, "")]
        for attribute, right in correct.items():
            if (counts := scored[attribute]).any():
                percent = 100 * float(right[counts].mean())
                figures.append((attribute, f"{attribute} read right", percent, "%"))
        rows += make_rows(key := f"task1.fewer.{name}", about, *figures)
        seconds = run_on_two_cores(time_image, name)
        figure = f"{about}: an image on two CPU cores"
        rows.append(Row(f"{key}.seconds", figure, seconds, "s", "<=", machine=machine(gpu=False)))
    return rows


def generate_by(
    pipe: Any, prompts: Sequence[str], seeds: Sequence[int], way: tuple[int, int]
) -> Tensor:
    """Return images uint8 (N, H, W, 3), generated in one of the ways."""
    low, every = way
    parts = []
    for i in range(0, len(prompts), BATCH):
        part = slice(i, i + BATCH)
        with guidance_interval(pipe.unet, low), deep_cache(pipe.unet, every):
            parts.append(generate(pipe, prompts[part], seeds[part], STEPS, GUIDANCE, BATCH))
    return torch.cat(parts)


def time_image(name: str) -> float:
    """Return the median seconds of an image of one way."""
    pipe = load_pipeline(find_model("pocket"))
    work = partial(generate_by, pipe, ["a hamburger"], [0], WAYS[name])
    return statistics.median([timed(work)[0] for _ in range(4)][1:])


# --- The time


def time_rows() -> list[Row]:
    """Minutes and memory of each lesson with its default parameters on two cores, with start-up."""
    rows = []
    for path in notebooks.lesson_paths():
        seconds, gigabytes = run_lesson(path)
        figure = f"two CPU cores, default parameters: {path.stem}"
        bar, key = MINUTES.get(path.stem), path.stem.lower()
        rows += [
            Row(f"task1.times.{key}", figure, round(seconds / 60, 2), "min", "<=", bar),
            Row(f"task1.memory.{key}", f"memory, {figure}", round(gigabytes, 2), "GB", "<="),
        ]
    for row in rows:
        row.machine = machine(gpu=False)
    return rows


def run_lesson(path: Path) -> tuple[float, float]:
    """Return the seconds and GB that a lesson takes with the embedded model on two CPU cores.

    Raises RuntimeError if a cell fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copy(path, folder)  # its outputs are stored in it
        command = [sys.executable, "-c", WITH_MEMORY, sys.executable, "-m", "course.notebooks"]
        environment = {"COURSE_MODEL": "pocket"}
        seconds, output = run_command([*command, copy], two_cores=True, environment=environment)
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    return seconds, int(output.split()[-1]) * unit / 1e9


GROUPS: dict[str, Callable[[], list[Row]]] = {
    "loop": loop_rows,
    "fewer": fewer_rows,
    "times": time_rows,
}


def main(arguments: list[str] | None = None) -> list[Row]:
    """Measure groups (default: all), print and store their rows, and return them."""
    return measure("benchmarks.task1", __doc__, GROUPS, RESULTS / "task1.json", arguments)


if __name__ == "__main__":
    main()

"""The figures of Task 3: `python -m benchmarks.task3 [GROUP ...]`, rows in results/task3.json.

cpu      `main.py` with the settings for a CPU, on two cores: time to clip and mesh, and what the
         judge reads from eight sides; needs an otherwise idle machine
gpu      the same on a GPU; kernels are built before
objects  24 texts, six of them compositions that the model has never seen: does the judge read the
         object and the view right from eight sides?
unseen   texts sampled from the whole grammar, by `main.py --prompts`: which fail, and what is right
         in the others (task3_unseen.py)
frames   images of 512 x 512 a second from a trained field; needs a GPU
step     an SDS step with networks of the size of Stable Diffusion 2.1: time and memory; needs a GPU
soak     ten thousand steps in half precision: no NaN, and no growth of memory; needs a GPU
scaling  eight texts on two GPUs against one; needs two GPUs

`benchmarks.kernels` measures the kernels. `--reduced` is a rehearsal with few and short runs: its
rows are printed and not stored. Without a GPU the groups that need one are reduced. To try settings
on objects, `--only "a horse" "a duck"` takes some of the texts, and `--options "--widen 0.6"` sets
options of main.py, also on unseen; such rows are not stored either. Settings are chosen on unseen
texts of seeds from 1000 on, and reported on those of --seed 1.
"""

import multiprocessing
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.common import RESULTS, command_line, sd21_model
from benchmarks.task3_unseen import unseen_rows
from course import notebooks
from course.figures import Row, machine, make_rows, median_seconds, report, run_command, timed
from course.images import image_grid, to_pil
from course.metrics import Judge
from course.models import Model, find_model
from pocket.world.vocabulary import WITH_FRONT, view_word
from task_3_DreamFusion.command_line import parse as parse_options
from task_3_DreamFusion.nerf import checkpoint
from task_3_DreamFusion.nerf.guidance import StableDiffusion
from task_3_DreamFusion.nerf.options import TrainingError
from task_3_DreamFusion.nerf.provider import orbit
from task_3_DreamFusion.nerf.utils import Trainer
from task_3_DreamFusion.runs import Job, RunConfig, resolve

PROGRAM = notebooks.ROOT / "task_3_DreamFusion" / "main.py"
IMAGES = notebooks.ROOT / "outputs" / "benchmarks" / "task3"
EXERCISE = {  # the texts of the exercise, and the judge's names
    "a hamburger": "hamburger",
    "a squirrel reading a book": "squirrel",
    "a bunny sitting on top of a stack of pancakes": "bunny",
}
HELD_OUT = {  # compositions that training never shows
    "a red bunny": ("bunny", "color", "red"),
    "a yellow car": ("car", "color", "yellow"),
    "a purple robot": ("robot", "color", "purple"),
    "a pink chair": ("chair", "color", "pink"),
    "a blue mushroom": ("mushroom", "color", "blue"),
    "a robot reading a book": ("robot", "reading", "book"),
}
OTHERS = (
    "an astronaut, a horse, a snowman, a duck, a cat, a red car, a rocket, a house, a tree, "
    "a cactus, a blue teapot, a bear, a penguin, an elephant, a turtle"
).split(", ")
TEXTS = (
    EXERCISE
    | {text: text.split()[-1] for text in OTHERS}
    | {text: thing for text, (thing, _, _) in HELD_OUT.items()}
)
SIDES = 8  # views around
FIRST = 22.5  # azimuth of the first, so that none is at the border of two view words
AT_ONCE = 6  # objects that a GPU trains at the same time: one alone mostly waits for launches
# Settings of a rehearsal, and the same for the command.
SHORT: dict[str, Any] = {"iters": 2, "size": 16, "rays": 64, "max_steps": 24}
SHORT_COMMAND = (
    "--iters 2 --size 16 --rays 64 --max_steps 24 --frames 2 --video_size 32 --no-save_mesh "
    "--no-check".split()
)
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


# --- What the judge sees


def render_sides(trainer: Trainer) -> list[Tensor]:
    """Render images (3, 256, 256) in [0, 1] of the averaged field, once around."""
    return [image[:3] for image in trainer.images(orbit(SIDES, start=FIRST), 256)]


def judge_sides(
    judge: Judge, images: Sequence[Tensor], thing: str
) -> tuple[list[bool], list[bool]]:
    """Return in which images the judge reads the object right, and in which the view."""
    readings = judge([to_pil(2 * image - 1) for image in images])
    words = [view_word(azimuth, 15.0) for azimuth in orbit(SIDES, start=FIRST).azimuth.tolist()]
    objects = [reading["object"] == thing for reading in readings]
    return objects, [reading["view"] == word for reading, word in zip(readings, words, strict=True)]


def make_trainer(
    text: str,
    guidance: StableDiffusion,
    workspace: Path,
    options: Sequence[str] = (),
    **changes: Any,
) -> Trainer:
    """Return a trainer with the settings of main.py for a model and these options."""
    settings = configure(guidance.model, text, options).settings
    changes = {"half": DEVICE.type == "cuda"} | changes
    return Trainer(replace(settings, **changes), guidance, workspace)


def configure(model: Model, text: str = "any", options: Sequence[str] = ()) -> RunConfig:
    """Return the configuration that main.py has for a model and these options."""
    return resolve(parse_options(options), Job(text, Path()), model)


# --- The command


def time_command(text: str, workspace: Path, on_gpu: bool, reduced: bool) -> float:
    """Run main.py and return its seconds. Raises RuntimeError if it fails."""
    command = [sys.executable, str(PROGRAM), "--text", text, "--model", "pocket"]
    command += ["--workspace", str(workspace)]
    command += ["-O"] if on_gpu else []
    command += SHORT_COMMAND if reduced else []
    return run_command(command, two_cores=not on_gpu)[0]


def load_trainer(workspace: Path, guidance: StableDiffusion) -> Trainer:
    """Return the trainer of the run in a workspace."""
    path = checkpoint.latest(workspace / "checkpoints")
    assert path is not None
    saved = checkpoint.read_run(path)
    trainer = Trainer(saved.settings, guidance, workspace)
    trainer.resume(saved)
    return trainer


def command_rows(on_gpu: bool, reduced: bool) -> list[Row]:
    """The texts of the exercise by main.py, on a GPU only the first."""
    where, bar = ("one GPU", 60.0) if on_gpu else ("two CPU cores", 360.0)
    judge, guidance = Judge(DEVICE), StableDiffusion(find_model("pocket"))
    rows = []
    for text, thing in list(EXERCISE.items())[: 1 if on_gpu or reduced else None]:
        with tempfile.TemporaryDirectory() as folder:
            if on_gpu:
                # builds the kernels
                time_command(text, Path(folder) / "first", on_gpu, reduced=True)
            seconds = time_command(text, Path(folder) / "run", on_gpu, reduced)
            images = render_sides(load_trainer(Path(folder) / "run", guidance))
            objects, _ = judge_sides(judge, images, thing)
        name = f"{where}, {text}"
        key = f"task3.{'gpu' if on_gpu else 'cpu'}.{thing}"
        views = f"{name}: views of 8 in which the judge reads it"
        rows += [
            Row(f"{key}_seconds", f"{name}: command to clip and mesh", seconds, "s", "<=", bar),
            Row(f"{key}_views", views, sum(objects), "", ">=", 6.0),
        ]
    for row in rows:
        row.machine = machine(gpu=on_gpu)
    return rows


# --- Many objects


@cache
def model_and_judge(options: tuple[str, ...]) -> tuple[StableDiffusion, Judge]:
    model = find_model("pocket")
    return StableDiffusion(model, configure(model, options=options).guidance), Judge(DEVICE)


def take_gpu(free: Any) -> None:
    """Give a process its GPU from a queue of their numbers."""
    if DEVICE.type == "cuda":
        torch.cuda.set_device(free.get())


def train_object(
    text: str, reduced: bool, options: tuple[str, ...] = ()
) -> tuple[list[bool], list[bool], list, bool]:
    """Train an object; return the results of `judge_sides`, images, and whether the run aborted.

    An aborted run has nothing right, and blank images.
    """
    guidance, judge = model_and_judge(options)
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(text, guidance, Path(folder), options, **(SHORT if reduced else {}))
        try:
            while trainer.step < trainer.settings.iters:
                trainer.train_step()
        except TrainingError as error:
            print(f"{text}: {error}", flush=True)
            return [False] * SIDES, [False] * SIDES, [to_pil(torch.ones(3, 256, 256))] * SIDES, True
        images = render_sides(trainer)
    objects, views = judge_sides(judge, images, TEXTS[text])
    return objects, views, [to_pil(2 * image - 1) for image in images], False


def object_rows(
    reduced: bool, only: Sequence[str] = (), options: tuple[str, ...] = ()
) -> list[Row]:
    """All GPUs share the texts, AT_ONCE processes on each.

    only: these texts. options: of main.py.
    """
    texts = list(only or TEXTS)[: 2 if reduced else None]
    objects: list[bool] = []
    views: list[bool] = []
    sheet: list[Any] = []
    aborted = 0
    spawn = multiprocessing.get_context("spawn")
    gpus = torch.cuda.device_count()
    free, processes = spawn.Queue(), max(1, AT_ONCE * gpus)
    for k in range(processes):
        free.put(k % max(1, gpus))
    with ProcessPoolExecutor(processes, spawn, take_gpu, (free,)) as pool:
        results = pool.map(partial(train_object, reduced=reduced, options=options), texts)
        progress = tqdm(results, desc="texts", total=len(texts))
        for text, (right, sides, images, gave_up) in zip(texts, progress, strict=True):
            tqdm.write(f"{text}: object {sum(right)} of {SIDES}, view {sum(sides)}")
            aborted += gave_up
            objects += right
            views += sides if TEXTS[text] in WITH_FRONT else []
            sheet += images
    IMAGES.mkdir(parents=True, exist_ok=True)
    name = "objects_reduced.png" if reduced else "objects.png"
    image_grid(sheet, columns=SIDES, side=128).save(IMAGES / name)
    percent = lambda hits: round(100 * sum(hits) / len(hits), 2)
    share = percent(objects)
    figures: list[tuple[Any, ...]] = [("object", "object read right", share, "%", ">=", 90.0)]
    if views:
        figure = "side read right, of things with a front"
        figures.append(("view", figure, percent(views), "%", ">=", 90.0))
    figures.append(("aborted", "runs that gave up", aborted, "", "<="))
    return make_rows("task3.objects", f"{len(texts)} texts from {SIDES} sides", *figures)


def unseen_text_rows(
    reduced: bool, seed: int = 1, count: int = 0, options: tuple[str, ...] = ()
) -> list[Row]:
    """Generate `count` unseen texts (0: 100, without a GPU 12), AT_ONCE processes on a GPU."""
    on_gpu = DEVICE.type == "cuda"
    count = 2 if reduced else count or (100 if on_gpu else 12)
    options = (*(["-O"] if on_gpu else []), *(SHORT_COMMAND if reduced else []), *options)
    folder = IMAGES / f"unseen_{seed}{'_reduced' if reduced else ''}"
    if folder.exists():  # of another state of the program
        shutil.rmtree(folder)
    return unseen_rows(find_model("pocket"), seed, count, AT_ONCE if on_gpu else 1, folder, options)


# --- Speed and endurance


def frame_rows(reduced: bool) -> list[Row]:
    side, count = (32, 2) if reduced else (512, 60)
    changes = SHORT if reduced else {}
    half = torch.autocast(DEVICE.type, torch.float16, enabled=DEVICE.type == "cuda")
    with tempfile.TemporaryDirectory() as folder:
        guidance = StableDiffusion(find_model("pocket"))
        trainer = make_trainer("a hamburger", guidance, Path(folder), **changes)
        while trainer.step < trainer.settings.iters:
            trainer.train_step()
        cameras = orbit(count)
        trainer.images(cameras[:2], side)  # warm-up
        seconds = []
        with trainer.averaged(), half:
            for i in range(count):
                frames = trainer.renderer.render_eval(cameras[i : i + 1], side, side)
                seconds.append(timed(partial(list, frames))[0])
    figure = f"images of {side} x {side} a second from a trained field"
    return [Row("task3.frames.rate", figure, 1 / statistics.median(seconds), "/s", ">=", 60.0)]


def step_rows(reduced: bool) -> list[Row]:
    warm, count = (1, 2) if reduced else (10, 30)
    with tempfile.TemporaryDirectory() as folder:
        model: Model = sd21_model(Path(folder) / "model", toy=reduced)
        guidance = StableDiffusion(model, configure(model).guidance)
        settings: dict[str, Any] = {"batch_size": 1, "size": 64, "iters": 10**6}
        trainer = make_trainer("a hamburger", guidance, Path(folder) / "run", **settings)
        guidance.unload_text_encoder()
        if DEVICE.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        seconds = median_seconds(trainer.train_step, rounds=count, warmup=warm)
    figures: list[tuple[Any, ...]] = [("time", "time", 1000 * seconds, "ms", "<=", 35.0)]
    if DEVICE.type == "cuda":
        gibibytes = torch.cuda.max_memory_allocated() / 2**30
        figures.append(("memory", "peak memory", gibibytes, "GiB", "<=", 8.0))
    about = "networks of the size of Stable Diffusion 2.1, one step of SDS with an image of 64 x 64"
    return make_rows("task3.step", about, *figures)


def soak_rows(reduced: bool) -> list[Row]:
    steps, settled = (6, 2) if reduced else (10_000, 1_000)
    memory = torch.cuda.memory_allocated if DEVICE.type == "cuda" else lambda: 0
    with tempfile.TemporaryDirectory() as folder:
        changes = {**(SHORT if reduced else {}), "iters": steps, "batch_size": 1, "reuse": 1}
        guidance = StableDiffusion(find_model("pocket"))
        trainer = make_trainer("a hamburger", guidance, Path(folder), **changes)
        before = 0
        for _ in tqdm(range(steps), desc="soak"):
            trainer.train_step()
            if trainer.step == settled:
                before = memory()
        growth = (memory() - before) / 2**20
        wrong = sum(int((~torch.isfinite(p)).sum()) for p in trainer.renderer.parameters())
    memory_figure = f"memory that grew after step {settled:,}"
    return make_rows(
        "task3.soak",
        f"{steps:,} steps in half precision",
        ("nonfinite", "parameters that are NaN or infinite", wrong, "", "<=", 0.0),
        ("memory_growth", memory_figure, growth, "MiB", "<=", 16.0),
    )


def scaling_rows(reduced: bool) -> list[Row]:
    if torch.cuda.device_count() < 2:
        print("scaling needs two GPUs: left out")
        return []
    seconds, count = [], 2 if reduced else 8
    with tempfile.TemporaryDirectory() as folder:  # builds the kernels, which does not count
        time_command("a hamburger", Path(folder), on_gpu=True, reduced=True)
    for processes in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            texts = Path(folder) / "texts.txt"
            texts.write_text("\n".join(list(TEXTS)[:count]) + "\n")
            launch = ["-m", "accelerate.commands.launch", "--num_processes", str(processes)]
            launch += ["--multi_gpu"] if processes > 1 else []
            program = [str(PROGRAM), "--prompts", str(texts), "--model", "pocket", "-O"]
            command = [sys.executable, *launch, *program, "--workspace", str(Path(folder) / "runs")]
            command += SHORT_COMMAND if reduced else ["--iters", "300", "--no-save_mesh"]
            seconds.append(run_command(command)[0])
    about = f"{count} texts, {2 if reduced else 300} steps each"
    one, two = seconds
    key = "task3.scaling"
    return [
        Row(f"{key}.one_gpu", f"one GPU, {about}: the whole command", one, "s", "<="),
        Row(f"{key}.two_gpus", f"two GPUs, {about}: the whole command", two, "s", "<="),
        Row(f"{key}.speedup", f"two GPUs against one, {about}", one / two, "x", ">=", 1.9),
    ]


GROUPS: dict[str, Callable[[bool], list[Row]]] = {
    "cpu": partial(command_rows, False),
    "gpu": partial(command_rows, True),
    "objects": object_rows,
    "unseen": unseen_text_rows,
    "frames": frame_rows,
    "step": step_rows,
    "soak": soak_rows,
    "scaling": scaling_rows,
}
ON_GPU = ("gpu", "frames", "step", "soak")


def main(arguments: list[str] | None = None) -> list[Row]:
    """Measure groups (default: all), print their rows, store full ones, and return all."""
    parser = command_line("benchmarks.task3", __doc__, GROUPS)
    add = parser.add_argument
    add("--reduced", action="store_true", help="rehearse, and store nothing")
    add("--only", nargs="+", default=[], metavar="TEXT", choices=TEXTS, help="texts (objects)")
    add("--options", type=str.split, default=[], help="options of main.py (objects, unseen)")
    add("--seed", type=int, default=1, help="seed of the texts (unseen)")
    add("--count", type=int, default=0, help="number of texts (unseen)")
    args = parser.parse_args(arguments)
    options = tuple(args.options)
    changed = bool(args.only or args.options or args.count or args.seed != 1)
    if changed and args.groups not in (["objects"], ["unseen"]):
        parser.error("--only, --options, --seed and --count are for objects or unseen alone")
    parse_options(options)
    rows: list[Row] = []
    for name in args.groups:
        reduced = args.reduced or (name in ON_GPU and DEVICE.type != "cuda")
        results = None if reduced or changed else RESULTS / "task3.json"
        work = partial(GROUPS[name], reduced)
        if name == "objects":
            work = partial(object_rows, reduced, args.only, options)
        if name == "unseen":
            work = partial(unseen_text_rows, reduced, args.seed, args.count, options)
        rows += report(f"python -m benchmarks.task3 {name}", work, results)
    return rows


if __name__ == "__main__":
    main()

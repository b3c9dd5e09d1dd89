"""The figures of Task 3: `python -m benchmarks.task3 [GROUP ...]` prints them and stores them in results/task3.json.

cpu      `main.py` with the settings of a CPU, on two cores: time to clip and mesh, and what the judge sees from eight
         sides; wants a machine with nothing else to do
gpu      the same on a GPU; kernels are built before
objects  24 texts, six of them compositions that the model has never seen: does the judge read object and view right
         from eight sides?
frames   images of 512 x 512 a second from a trained field; wants a GPU
step     a step of SDS with networks of the size of Stable Diffusion 2.1: time and memory; wants a GPU
soak     ten thousand steps in half precision: no NaN, and no memory that grows; wants a GPU
scaling  eight texts on two GPUs against one; wants two GPUs

The kernels have a benchmark of their own, benchmarks.kernels. `--reduced` is a rehearsal with few and short runs: its
rows are printed and not stored. Without a GPU the groups that want one run in this form. To try something on objects,
`--only "a horse" "a duck"` takes some of the texts, and `--given "--widen 0.6 --perp_neg 1"` options of main.py; such
rows are not stored either.
"""

import multiprocessing
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
from course import notebooks
from course.figures import Row, machine, median_seconds, report, run_command, timed
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
NAMED = {  # the texts of the exercise, and what the judge calls them
    "a hamburger": "hamburger", "a squirrel reading a book": "squirrel",
    "a bunny sitting on top of a stack of pancakes": "bunny",
}  # fmt: skip
HELD_OUT = {  # a composition that training never shows
    "a red bunny": ("bunny", "color", "red"), "a yellow car": ("car", "color", "yellow"),
    "a purple robot": ("robot", "color", "purple"), "a pink chair": ("chair", "color", "pink"),
    "a blue mushroom": ("mushroom", "color", "blue"), "a robot reading a book": ("robot", "reading", "book"),
}  # fmt: skip
OTHERS = (
    "astronaut", "horse", "snowman", "duck", "cat", "red car", "rocket", "house", "tree", "cactus", "blue teapot",
    "bear", "penguin", "elephant", "turtle",
)  # fmt: skip
TEXTS = (
    NAMED
    | {f"{'an' if name[0] in 'aeiou' else 'a'} {name}": name.split()[-1] for name in OTHERS}
    | {text: thing for text, (thing, _, _) in HELD_OUT.items()}
)
SIDES, FIRST = 8, 22.5  # views around, none at the border of two view words
AT_ONCE = 6  # objects that a GPU trains at one time: one alone waits for launches most of the time
SHORT: dict[str, Any] = {
    "iters": 2,
    "size": 16,
    "rays": 64,
    "max_steps": 24,
}  # of a rehearsal, and the same for the command
SHORT_COMMAND = (
    "--iters 2 --size 16 --rays 64 --max_steps 24 --frames 2 --video_size 32 --no-save_mesh".split()
)
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


# --- What the judge sees


def seen_from_all_sides(trainer: Trainer) -> list[Tensor]:
    """Images (3, 256, 256) in [0, 1] of the averaged field, once around."""
    return [image[:3] for image in trainer.images(orbit(SIDES, start=FIRST), 256)]


def read(judge: Judge, images: Sequence[Tensor], thing: str) -> tuple[list[bool], list[bool]]:
    """In which images the judge reads the object, and in which the side that it is seen from, right."""
    readings = judge([to_pil(2 * image - 1) for image in images])
    words = [view_word(azimuth, 15.0) for azimuth in orbit(SIDES, start=FIRST).azimuth.tolist()]
    objects = [reading["object"] == thing for reading in readings]
    return objects, [reading["view"] == word for reading, word in zip(readings, words, strict=True)]


def trained(
    text: str, guidance: StableDiffusion, workspace: Path, given: Sequence[str] = (), **changes: Any
) -> Trainer:
    """A run with the settings that main.py has for this model and device and these options, ready to train."""
    settings = configure(guidance.model, text, given).settings
    changes = {"half": DEVICE.type == "cuda"} | changes
    return Trainer(replace(settings, **changes), guidance, workspace)


def configure(model: Model, text: str = "any", given: Sequence[str] = ()) -> RunConfig:
    """Return the configuration that main.py has for a model and these options."""
    return resolve(parse_options(given), Job(text, Path()), model)


# --- The command


def commanded(text: str, workspace: Path, on_gpu: bool, reduced: bool) -> float:
    """Runs main.py; returns the seconds from its start to its end. Raises RuntimeError if it fails."""
    command = [
        sys.executable,
        str(PROGRAM),
        "--text",
        text,
        "--model",
        "pocket",
        "--workspace",
        str(workspace),
    ]
    command += ["-O"] if on_gpu else []
    command += SHORT_COMMAND if reduced else []
    return run_command(command, two_cores=not on_gpu)[0]


def resumed(workspace: Path, guidance: StableDiffusion) -> Trainer:
    """The run that a workspace holds."""
    path = checkpoint.latest(workspace / "checkpoints")
    assert path is not None
    saved = checkpoint.read_run(path)
    trainer = Trainer(saved.settings, guidance, workspace)
    trainer.resume(saved)
    return trainer


def command_rows(on_gpu: bool, reduced: bool) -> list[Row]:
    """The texts of the exercise by the command, on a GPU only the first."""
    where, bar = ("one GPU", 60.0) if on_gpu else ("two CPU cores", 360.0)
    judge, guidance = Judge(DEVICE), StableDiffusion(find_model("pocket"))
    rows = []
    for text, thing in list(NAMED.items())[: 1 if on_gpu or reduced else None]:
        with tempfile.TemporaryDirectory() as folder:
            if on_gpu:
                commanded(text, Path(folder) / "first", on_gpu, reduced=True)  # builds the kernels
            seconds = commanded(text, Path(folder) / "run", on_gpu, reduced)
            objects, _ = read(
                judge, seen_from_all_sides(resumed(Path(folder) / "run", guidance)), thing
            )
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
def model_and_judge(given: tuple[str, ...]) -> tuple[StableDiffusion, Judge]:
    model = find_model("pocket")
    return StableDiffusion(model, configure(model, given=given).guidance), Judge(DEVICE)


def take_gpu(free: Any) -> None:
    """Gives a process its GPU; free: a queue of their numbers."""
    if DEVICE.type == "cuda":
        torch.cuda.set_device(free.get())


def made_object(
    text: str, reduced: bool, given: tuple[str, ...] = ()
) -> tuple[list[bool], list[bool], list, bool]:
    """What the judge reads right of an object from all sides, as `read` has it, the images, and whether the run gave
    up. Such a run has nothing right, and blank images."""
    guidance, judge = model_and_judge(given)
    with tempfile.TemporaryDirectory() as folder:
        trainer = trained(text, guidance, Path(folder), given, **(SHORT if reduced else {}))
        try:
            while trainer.step < trainer.settings.iters:
                trainer.train_step()
        except TrainingError as error:
            print(f"{text}: {error}", flush=True)
            return [False] * SIDES, [False] * SIDES, [to_pil(torch.ones(3, 256, 256))] * SIDES, True
        images = seen_from_all_sides(trainer)
    return (
        *read(judge, images, TEXTS[text]),
        [to_pil(2 * image - 1) for image in images],
        False,
    )


def object_rows(reduced: bool, only: Sequence[str] = (), given: tuple[str, ...] = ()) -> list[Row]:
    """All GPUs share the texts, by AT_ONCE processes on each. only: these texts. given: options of main.py."""
    texts = list(only or TEXTS)[: 2 if reduced else None]
    objects: list[bool] = []
    views: list[bool] = []
    sheet: list[Any] = []
    lost = 0
    spawn = multiprocessing.get_context("spawn")
    gpus = torch.cuda.device_count()
    free, processes = spawn.Queue(), max(1, AT_ONCE * gpus)
    for k in range(processes):
        free.put(k % max(1, gpus))
    with ProcessPoolExecutor(processes, spawn, take_gpu, (free,)) as pool:
        found = pool.map(partial(made_object, reduced=reduced, given=given), texts)
        for text, (right, sides, images, gave_up) in zip(
            texts, tqdm(found, desc="texts", total=len(texts)), strict=True
        ):
            tqdm.write(f"{text}: object {sum(right)} of {SIDES}, view {sum(sides)}")
            lost += gave_up
            objects += right
            views += sides if TEXTS[text] in WITH_FRONT else []
            sheet += images
    IMAGES.mkdir(parents=True, exist_ok=True)
    image_grid(sheet, columns=SIDES, side=128).save(
        IMAGES / ("objects_reduced.png" if reduced else "objects.png")
    )
    about = f"{len(texts)} texts from {SIDES} sides"

    def share(hits: list[bool]) -> float:
        return round(100 * sum(hits) / len(hits), 2)

    rows = [
        Row("task3.objects.object", f"{about}: object read right", share(objects), "%", ">=", 90.0)
    ]
    if views:
        rows.append(
            Row(
                "task3.objects.view",
                f"{about}: side read right, of things with a front",
                share(views),
                "%",
                ">=",
                90.0,
            )
        )
    return [*rows, Row("task3.objects.aborted", f"{about}: runs that gave up", lost, "", "<=")]


# --- Speed and endurance


def frame_rows(reduced: bool) -> list[Row]:
    side, count = (32, 2) if reduced else (512, 60)
    with tempfile.TemporaryDirectory() as folder:
        trainer = trained(
            "a hamburger",
            StableDiffusion(find_model("pocket")),
            Path(folder),
            **(SHORT if reduced else {}),
        )
        while trainer.step < trainer.settings.iters:
            trainer.train_step()
        cameras = orbit(count)
        trainer.images(cameras[:2], side)  # warm
        with (
            trainer.averaged(),
            torch.autocast(DEVICE.type, torch.float16, enabled=DEVICE.type == "cuda"),
        ):
            each = []
            for i in range(count):
                each.append(
                    timed(
                        partial(list, trainer.renderer.render_eval(cameras[i : i + 1], side, side))
                    )[0]
                )
    return [
        Row(
            "task3.frames.rate",
            f"pictures of {side} x {side} a second from a trained field",
            1 / statistics.median(each),
            "/s",
            ">=",
            60.0,
        )
    ]


def step_rows(reduced: bool) -> list[Row]:
    warm, count = (1, 2) if reduced else (10, 30)
    with tempfile.TemporaryDirectory() as folder:
        model: Model = sd21_model(Path(folder) / "model", toy=reduced)
        guidance = StableDiffusion(model, configure(model).guidance)
        trainer = trained(
            "a hamburger", guidance, Path(folder) / "run", batch_size=1, size=64, iters=10**6
        )
        guidance.unload_text_encoder()
        if DEVICE.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        seconds = median_seconds(trainer.train_step, rounds=count, warmup=warm)
    about = (
        "networks of the size of Stable Diffusion 2.1, one step of SDS with a picture of 64 x 64"
    )
    rows = [Row("task3.step.time", f"{about}: time", 1000 * seconds, "ms", "<=", 35.0)]
    if DEVICE.type == "cuda":
        rows.append(
            Row(
                "task3.step.memory",
                f"{about}: peak memory",
                torch.cuda.max_memory_allocated() / 2**30,
                "GiB",
                "<=",
                8.0,
            )
        )
    return rows


def soak_rows(reduced: bool) -> list[Row]:
    steps, settled = (6, 2) if reduced else (10_000, 1_000)
    memory = torch.cuda.memory_allocated if DEVICE.type == "cuda" else lambda: 0
    with tempfile.TemporaryDirectory() as folder:
        changes = {**(SHORT if reduced else {}), "iters": steps, "batch_size": 1, "reuse": 1}
        trainer = trained(
            "a hamburger", StableDiffusion(find_model("pocket")), Path(folder), **changes
        )
        held = 0
        for _ in tqdm(range(steps), desc="soak"):
            trainer.train_step()
            if trainer.step == settled:
                held = memory()
        grown = (memory() - held) / 2**20
        wrong = sum(int((~torch.isfinite(p)).sum()) for p in trainer.renderer.parameters())
    about = f"{steps:,} steps in half precision"
    return [
        Row(
            "task3.soak.nonfinite",
            f"{about}: parameters that are NaN or infinite",
            wrong,
            "",
            "<=",
            0.0,
        ),
        Row(
            "task3.soak.memory_growth",
            f"{about}: memory that grew after step {settled:,}",
            grown,
            "MiB",
            "<=",
            16.0,
        ),
    ]


def scaling_rows(reduced: bool) -> list[Row]:
    if torch.cuda.device_count() < 2:
        print("scaling needs two GPUs: left out")
        return []
    seconds, count = [], 2 if reduced else 8
    with (
        tempfile.TemporaryDirectory() as folder
    ):  # builds the kernels, which is not to be counted for one GPU alone
        commanded("a hamburger", Path(folder), on_gpu=True, reduced=True)
    for processes in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            texts = Path(folder) / "texts.txt"
            texts.write_text("\n".join(list(TEXTS)[:count]) + "\n")
            launch = ["-m", "accelerate.commands.launch", "--num_processes", str(processes)]
            launch += ["--multi_gpu"] if processes > 1 else []
            command = [
                sys.executable,
                *launch,
                str(PROGRAM),
                "--prompts",
                str(texts),
                "--model",
                "pocket",
            ]
            command += ["--workspace", str(Path(folder) / "runs"), "-O"]
            command += SHORT_COMMAND if reduced else ["--iters", "300", "--no-save_mesh"]
            seconds.append(run_command(command)[0])
    about = f"{count} texts, {2 if reduced else 300} steps each"
    return [
        Row("task3.scaling.one_gpu", f"one GPU, {about}: the whole command", seconds[0], "s", "<="),
        Row(
            "task3.scaling.two_gpus", f"two GPUs, {about}: the whole command", seconds[1], "s", "<="
        ),
        Row(
            "task3.scaling.speedup",
            f"two GPUs against one, {about}",
            seconds[0] / seconds[1],
            "x",
            ">=",
            1.9,
        ),
    ]


GROUPS: dict[str, Callable[[bool], list[Row]]] = {
    "cpu": partial(command_rows, False), "gpu": partial(command_rows, True), "objects": object_rows,
    "frames": frame_rows, "step": step_rows, "soak": soak_rows, "scaling": scaling_rows,
}  # fmt: skip
ON_GPU = ("gpu", "frames", "step", "soak")


def main(arguments: list[str] | None = None) -> list[Row]:
    """Measures the groups asked for (default: all), prints their tables, stores full ones, and returns all rows."""
    parser = command_line("benchmarks.task3", __doc__, GROUPS)
    parser.add_argument(
        "--reduced", action="store_true", help="a rehearsal, of which nothing is stored"
    )
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="TEXT", choices=TEXTS, help="objects: these texts"
    )
    parser.add_argument(
        "--given", type=str.split, default=[], metavar="OPTIONS", help="objects: options of main.py"
    )
    args = parser.parse_args(arguments)
    given, tried = tuple(args.given), bool(args.only or args.given)
    if tried and args.groups != ["objects"]:
        parser.error(
            "--only and --given are for objects alone: python -m benchmarks.task3 objects ..."
        )
    parse_options(given)
    everything: list[Row] = []
    for name in args.groups:
        reduced = args.reduced or (name in ON_GPU and DEVICE.type != "cuda")
        results = None if reduced or tried else RESULTS / "task3.json"
        work = (
            partial(object_rows, reduced, args.only, given)
            if name == "objects"
            else partial(GROUPS[name], reduced)
        )
        everything += report(f"python -m benchmarks.task3 {name}", work, results)
    return everything


if __name__ == "__main__":
    main()

"""A wide panorama by the windows of several GPUs; `benchmarks.task2 processes` starts it."""

import argparse
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from benchmarks.common import sd21_model
from benchmarks.task2_lesson import joint
from course.figures import Row, make_rows, run_command, timed
from course.models import find_model


def processes_rows(reduced: bool) -> list[Row]:
    """The seconds of one panorama by one process and by two, start-up left out."""
    if torch.cuda.device_count() < 2 and not reduced:
        print("processes needs two GPUs: left out")
        return []
    width, steps = (768, 2) if reduced else (16384, 50)
    with tempfile.TemporaryDirectory() as folder:
        sd21_model(Path(folder) / "model", toy=reduced)
        one, two = (run_processes(count, Path(folder), width, steps) for count in (1, 2))
    difference = float((one["latents"] - two["latents"]).norm() / one["latents"].norm())
    about = f"random SD-2.1-size networks, Multi, 512x{width}, stride 16, {steps} steps"
    return make_rows(
        "task2.processes",
        about,
        ("one", "one GPU", one["seconds"], "s", "<="),
        ("two", "two GPUs", two["seconds"], "s", "<="),
        ("speedup", "two GPUs against one", one["seconds"] / two["seconds"], "x", ">=", 1.7),
        ("difference", "difference of the latents over norm", difference, "", "<=", 0.01),
    )


def run_processes(count: int, folder: Path, width: int, steps: int) -> dict[str, Any]:
    """Return the seconds and the latents of a panorama that `count` processes have sampled."""
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}"]
    sizes = ["--width", str(width), "--steps", str(steps)]
    output = folder / f"{count}.pt"
    program = ["-m", "benchmarks.task2_processes", str(folder / "model"), str(output), *sizes]
    run_command([sys.executable, *launch, *program])
    result: dict[str, Any] = torch.load(output)
    return result


def main() -> None:
    """Sample a panorama twice, and save its latents and the seconds of the second time."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.task2_processes")
    parser.add_argument("model", type=Path, help="folder of a model")
    parser.add_argument("output", type=Path, help="file of the result")
    parser.add_argument("--width", type=int, default=16384, help="in pixels")
    parser.add_argument("--steps", type=int, default=50, help="sampling steps")
    args = parser.parse_args()
    state = PartialState()  # joins the processes and chooses this one's GPU
    sd = joint(find_model(args.model))
    request = dict(height=512, width=args.width, stride=16, smooth=False)
    sample = partial(sd.sample_latents, "a beach", **request)
    sample(num_sampling_steps=1)  # captures CUDA graphs
    state.wait_for_everyone()
    seconds, latents = timed(partial(sample, num_sampling_steps=args.steps))
    if state.is_main_process:
        torch.save({"seconds": seconds, "latents": latents.cpu()}, args.output)
    state.destroy_process_group()


if __name__ == "__main__":
    main()

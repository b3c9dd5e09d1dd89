"""`python -m pocket.train STAGE`: train one stage, or with `all` every stage in order."""

import argparse
import gc
import importlib

import torch

from .run import KINDS, Run, Stage, add_arguments

STAGES = (
    "data judge towers perceptual autoencoder latents denoiser conditions controlnet estimators "
    "views multiview distilled export"
).split()


def expand(name: str, condition: str | None = None) -> list[Stage]:
    """Return the stages of a name: all of "all", one a kind of "controlnet" and "estimators".

    condition: this kind only. Raises ValueError if the stage has no such kind.
    """
    if name == "all":
        return [stage for each in STAGES for stage in expand(each)]
    kinds = KINDS.get(name)
    if kinds is None:
        return [Stage(name)]
    if condition and condition not in kinds:
        raise ValueError(f"--condition of {name} must be one of {', '.join(kinds)}")
    return [Stage(name, kind) for kind in kinds if condition in (None, kind)]


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error says that the memory of the GPU or of the computer ran out."""
    is_memory_error = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return is_memory_error or "allocate memory" in str(error)


def train_stage(stage: Stage, args: argparse.Namespace) -> None:
    """Train a stage unless it is finished."""
    run = Run.from_args(stage, args)
    if run.is_finished:
        run.log(
            f"finished in {run.folder}; --init trains its weights further, or remove the folder to "
            "start from scratch"
        )
        return
    importlib.import_module(f"pocket.train.{stage.name}").main(run)
    run.accelerator.wait_for_everyone()


def main(arguments: list[str] | None = None) -> None:
    """Run the stages that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m pocket.train", description=__doc__)
    parser.add_argument("stage", choices=(*STAGES, "all"))
    add_arguments(parser)
    args = parser.parse_args(arguments)
    try:
        stages = expand(args.stage, args.condition)
    except ValueError as error:
        parser.error(str(error))
    for stage in stages:
        try:
            train_stage(stage, args)
        except (OSError, FloatingPointError) as error:
            raise SystemExit(f"{stage}: {error}") from error
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise SystemExit(
                f"{stage}: {error}\nThe memory is too small for this batch: try --batch with half "
                "of it"
            ) from error
        # Compiled modules form reference cycles that keep the stage's images in memory.
        torch.compiler.reset()
        gc.collect()
        torch.cuda.empty_cache()
    if torch.distributed.is_initialized():  # without it, exiting processes may break the others
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()

"""`python -m pocket.train STAGE`: trains one stage, or with `all` every stage in order."""

import argparse
import gc
import importlib

import torch

from . import common

STAGES = (
    "data", "judge", "towers", "perceptual", "autoencoder", "latents", "denoiser", "conditions", "controlnet",
    "estimators", "export",
)  # fmt: skip
KINDS = {"controlnet": common.CONDITIONS, "estimators": common.ESTIMATED}


def names(stage: str, condition: str | None = None) -> list[str]:
    """The runs of a stage or of "all": a stage with several kinds has one each, as "controlnet-canny", or the one
    that `condition` names. Raises ValueError if the stage does not know it."""
    if stage == "all":
        return [name for each in STAGES for name in names(each)]
    if stage not in KINDS:
        return [stage]
    if condition and condition not in KINDS[stage]:
        raise ValueError(f"{stage} has no {condition!r}: choose from {', '.join(KINDS[stage])}")
    return [f"{stage}-{kind}" for kind in KINDS[stage] if condition in (None, kind)]


def out_of_memory(error: Exception) -> bool:
    """Return whether an error says that memory ran out, of the GPU or of the computer."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "allocate memory" in str(
        error
    )


def main(arguments: list[str] | None = None) -> None:
    """Read the command line and run the stages; `all` passes over those that are done."""
    parser = argparse.ArgumentParser(prog="python -m pocket.train", description=__doc__)
    parser.add_argument("stage", choices=(*STAGES, "all"))
    common.add_arguments(parser)
    args = parser.parse_args(arguments)
    try:
        runs = names(args.stage, args.condition)
    except ValueError as error:
        parser.error(str(error))
    for name in runs:
        try:
            run = common.start(name, args)
            if common.done(run):
                run.say(
                    f"done in {run.folder}; --init trains on from its weights, or remove the folder to start anew"
                )
                continue
            importlib.import_module(f"pocket.train.{name.partition('-')[0]}").main(run)
        except (
            OSError,
            FloatingPointError,
        ) as error:  # a missing file, a full disk, a loss that is not finite
            raise SystemExit(f"{name}: {error}") from error
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            raise SystemExit(
                f"{name}: {error}\nThere is too little memory for this batch: try --batch with half of it"
            ) from error
        # Compiled modules refer to themselves in circles, and hold the stage's images until these are collected.
        torch.compiler.reset()
        gc.collect()
        torch.cuda.empty_cache()
    common.finish()


if __name__ == "__main__":
    main()

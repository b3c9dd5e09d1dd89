"""`python -m pocket.train STAGE`: trains one stage, or with `all` every stage in order."""

import argparse
import gc
import importlib

import torch

from . import common

STAGES = ("data", "judge", "towers", "perceptual", "autoencoder", "latents", "denoiser", "export")


def main(arguments: list[str] | None = None) -> None:
    """Reads the command line and runs the stages; `all` passes over those that are done."""
    parser = argparse.ArgumentParser(prog="python -m pocket.train", description=__doc__)
    parser.add_argument("stage", choices=(*STAGES, "all"))
    common.add_arguments(parser)
    args = parser.parse_args(arguments)
    for stage in STAGES if args.stage == "all" else (args.stage,):
        run = common.start(stage, args)
        if common.done(run):
            run.say(f"done in {run.folder}; --init trains on from its weights, or remove the folder to start anew")
            continue
        try:
            importlib.import_module(f"pocket.train.{stage}").main(run)
        except torch.OutOfMemoryError as error:
            raise SystemExit(
                f"{stage}: {error}\nThe GPU is too small for this batch: try --batch with half of it"
            ) from error
        # Compiled modules refer to themselves in circles, and hold the stage's pictures until these are collected.
        torch.compiler.reset()
        gc.collect()
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()

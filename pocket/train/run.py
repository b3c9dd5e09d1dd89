"""One stage of training in one process: its command line, device, folders and limits."""

import argparse
import contextlib
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from tqdm import tqdm

from course.files import remove_partial, write_text
from course.models.controlnet import KINDS as CONDITIONS
from pocket import arguments

ESTIMATED = ("depth", "normals")  # conditions that an estimator predicts, because no formula does
KINDS = {"controlnet": CONDITIONS, "estimators": ESTIMATED}  # stages with one network a condition
SHIPPED_FOLDERS = {  # of the weights of each stage, and of the tokenizer, below pocket/weights
    "tokenizer": "stable-diffusion/tokenizer",
    "judge": "judge",
    "towers": "clip",
    "perceptual": "perceptual",
    "autoencoder": "stable-diffusion/vae",
    "denoiser": "stable-diffusion/unet",
    "controlnet": "controlnet",
    "estimators": "estimators",
    "multiview": "multiview",
    "distilled": "distilled",
}


@dataclass(frozen=True)
class Stage:
    """A stage of training; `kind` is the condition where the stage trains one network for each."""

    name: str
    kind: str = ""

    def __str__(self) -> str:
        """Return the name of its folder below WORK, such as "controlnet-canny"."""
        return f"{self.name}-{self.kind}" if self.kind else self.name

    @property
    def shipped_folder(self) -> Path:
        """The folder of its weights below pocket/weights."""
        return Path(SHIPPED_FOLDERS[self.name], self.kind)

    @property
    def command(self) -> str:
        """The command that trains it; the tokenizer is part of the data stage."""
        name = "data" if self.name == "tokenizer" else self.name
        condition = f" --condition {self.kind}" if self.kind else ""
        return f"python -m pocket.train {name}{condition}"


FURTHER = ("multiview", "distilled")  # stages that train the denoiser further
CORE_STAGES = tuple(Stage(name) for name in SHIPPED_FOLDERS if name not in (*KINDS, *FURTHER))
# Stages whose networks are trained for one text-to-image model; weights ship without them too.
DEPENDENT_STAGES = (
    *(Stage(name, kind) for name, kinds in KINDS.items() for kind in kinds),
    *map(Stage, FURTHER),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that all stages take."""
    toy_help = "use toy sizes: all stages take two minutes on a CPU"
    init_help = "start from the stage's weights with a fresh optimizer; an unfinished run continues"
    kind_help = "train only the network of this condition (controlnet, estimators; default: all)"
    types = {
        "steps": (arguments.integer(1), "number of steps"),
        "minutes": (arguments.number(0.001), "time limit in minutes, compilation included"),
        "batch": (arguments.integer(1, 65_536), "batch size of each process"),
        "scenes": (arguments.integer(1), "number of scenes to render (data, conditions, views)"),
        "extra": (arguments.integer(0), "number of scenes besides the pool (latents)"),
        "seed": (arguments.integer(0, 2**32 - 1), "random seed (default: 0)"),
        "work": (arguments.folder, "data, checkpoints and logs (default: outputs/pocket)"),
        "weights": (arguments.folder, "exported weights (default: pocket/weights)"),
    }
    for name, (type_, help_) in types.items():
        if "(default" not in help_:
            help_ += " (default: set by the stage)"
        default = 0 if name == "seed" else None
        parser.add_argument(f"--{name}", type=type_, default=default, help=help_)
    parser.add_argument("--condition", choices=CONDITIONS, help=kind_help)
    parser.add_argument("--init", action="store_true", help=init_help)
    parser.add_argument("--smoke", action="store_true", help=toy_help)


@dataclass
class Run:
    """One stage of training in one process: where it runs, reads and writes, and its limits.

    Limits and sizes are None where the command line leaves them to the stage. `generator` lives on
    `device`, differs between processes, and is seeded again when a run resumes.
    """

    stage: Stage
    accelerator: Accelerator
    work: Path
    weights: Path
    smoke: bool = False
    seed: int = 0
    steps: int | None = None
    minutes: float | None = None
    batch: int | None = None
    scenes: int | None = None
    extra: int | None = None
    init: bool = False
    generator: torch.Generator = field(init=False)

    def __post_init__(self) -> None:
        self.generator = torch.Generator(self.device)
        self.seed_all(0)

    @classmethod
    def from_args(cls, stage: Stage, args: argparse.Namespace) -> "Run":
        """Set up the accelerator, and the folder of the stage, which may have to be created."""
        if torch.cuda.is_available():
            torch.set_float32_matmul_precision("high")
            torch.backends.cudnn.benchmark = True
        ddp = DistributedDataParallelKwargs(gradient_as_bucket_view=True, broadcast_buffers=False)
        # Precision is set by `Run.autocast`: the accelerator would wrap the compiled forward.
        accelerator = Accelerator(
            cpu=not torch.cuda.is_available(), mixed_precision="no", kwargs_handlers=[ddp]
        )
        work, weights = folders(args)
        names = ("smoke", "seed", "steps", "minutes", "batch", "scenes", "extra", "init")
        options = {name: getattr(args, name) for name in names}
        run = cls(stage, accelerator, work, weights, **options)
        run.folder.mkdir(parents=True, exist_ok=True)
        if run.is_main:
            for folder in (run.work, run.folder, *filter(Path.is_dir, run.folder.iterdir())):
                remove_partial(folder)
        accelerator.wait_for_everyone()
        return run

    @property
    def device(self) -> torch.device:
        return self.accelerator.device

    @property
    def device_name(self) -> str:
        return torch.cuda.get_device_name() if self.device.type == "cuda" else "cpu"

    @property
    def rank(self) -> int:
        return self.accelerator.process_index

    @property
    def processes(self) -> int:
        return self.accelerator.num_processes

    @property
    def is_main(self) -> bool:
        return self.accelerator.is_main_process

    @property
    def folder(self) -> Path:
        """WORK/STAGE: state.pt during the run, weights/ and, at the end, curve.json."""
        return self.work / str(self.stage)

    @property
    def is_finished(self) -> bool:
        """Whether the stage has been trained here to its end and is not to continue from it."""
        is_complete = (self.folder / "curve.json").exists()
        return is_complete and not (self.folder / "state.pt").exists() and not self.init

    def seed_all(self, step: int) -> None:
        """Seed `generator` and torch's own generators from the seed, the rank and the step."""
        value = (self.seed * 1_000_003 + self.rank * 7_919 + step * 104_729) % 2**63
        self.generator.manual_seed(value)
        torch.manual_seed(value)

    def autocast(self) -> contextlib.AbstractContextManager:
        """Return bfloat16 autocast on CUDA; float32 elsewhere."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")

    def weights_of(self, stage: Stage | str) -> Path:
        """Return the folder with the weights of a stage, or of the "tokenizer".

        It is the one of this work folder, or else the shipped one. Raises FileNotFoundError if
        there is neither.
        """
        stage = Stage(stage) if isinstance(stage, str) else stage
        own = self.work / str(stage)
        if stage.name != "tokenizer":
            own = own / "weights"
        shipped = self.weights / stage.shipped_folder
        for folder in (own, shipped):
            if folder.is_dir():
                return folder
        raise FileNotFoundError(
            f"no weights of {str(stage)!r} in {own} or {shipped}: run `{stage.command}` first"
        )

    def load(self, network_class: Any, stage: Stage | str | None = None) -> Any:
        """Load the weights of a stage, by default of this one, in float32."""
        return network_class.from_pretrained(self.weights_of(stage or self.stage)).float()

    def log(self, text: str) -> None:
        """Print a line in the main process, without breaking a progress bar."""
        if self.is_main:
            tqdm.write(f"{self.stage}: {text}")

    def count_images(
        self, counts: Iterable[int], start_time: float, minutes: float | None = None
    ) -> None:
        """Render to the end of `counts`, or for so many minutes; record the time, also on Ctrl-C.

        counts: yields the number of images of each shard that is finished.
        """
        images = 0
        try:
            for count in counts:
                images += count
                if minutes and time.perf_counter() - start_time > 60 * minutes:
                    break
            self.accelerator.wait_for_everyone()
        finally:
            self.record_time(start_time, images * self.processes)

    def record_time(self, start_time: float, images: int) -> None:
        """Add the time since `start_time`, of time.perf_counter, to `folder`/time.json.

        images: those rendered since then; without any, nothing is recorded: checking that the work
        is complete is no training.
        """
        path = self.folder / "time.json"
        if not self.is_main or (not images and path.exists()):
            return
        before = json.loads(path.read_text()) if path.exists() else {}
        earlier = before.get("seconds", 0.0) * before.get("processes", 1) / self.processes
        record = {
            "stage": str(self.stage),
            "seconds": time.perf_counter() - start_time + earlier,
            "processes": self.processes,
            "continued": self.init,
            "device": self.device_name,
            "images": images + before.get("images", 0),
        }
        write_text(path, json.dumps(record))


def folders(args: argparse.Namespace) -> tuple[Path, Path]:
    """Return the work folder and the folder of the exported weights.

    A smoke run has its own: its weights must neither ship nor count as those of a finished stage.
    """
    work = args.work or Path("outputs/pocket-smoke" if args.smoke else "outputs/pocket")
    return work, args.weights or (work / "shipped" if args.smoke else Path("pocket/weights"))

"""Runs of task 3: decide what a command line asks for, train, and write the results."""

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from course.files import lock, remove_partial
from course.models import Model, find_model
from course.models.multiview import VIEWS
from task_3_DreamFusion import jobs
from task_3_DreamFusion.command_line import Request
from task_3_DreamFusion.jobs import LOCK, OUTPUTS, folder_name
from task_3_DreamFusion.nerf import checkpoint, export, gui, index_page, memory
from task_3_DreamFusion.nerf.appraisal import Appraiser
from task_3_DreamFusion.nerf.checkpoint import SavedRun
from task_3_DreamFusion.nerf.guidance import StableDiffusion, check_exercise, fastest_dtype
from task_3_DreamFusion.nerf.options import FailedRun, SettingError, TrainingError, build
from task_3_DreamFusion.nerf.settings import (
    GuidanceOptions,
    OutputOptions,
    RunOptions,
    Settings,
    preset,
)
from task_3_DreamFusion.nerf.utils import Trainer

REMEDY = "lower --batch_size, --size or --max_steps, or use -O on a GPU"
ADVICE = "Try a simpler text, --iters 800, or another --seed; --no-check writes a clip anyway"
MIN_FREE = 300 * 2**20  # bytes: three checkpoints, while one is written, and the results


@dataclass(frozen=True)
class Job:
    """What to generate and where; saved: the run that it continues."""

    text: str
    workspace: Path
    saved: SavedRun | None = None


@dataclass(frozen=True)
class RunConfig:
    """The configuration of a run, resolved once."""

    job: Job
    settings: Settings
    guidance: GuidanceOptions
    run: RunOptions
    output: OutputOptions
    model: Model


AfterStep = Callable[[Trainer, dict[str, float]], None]


@memory.reported("working", REMEDY)
def run_one(request: Request) -> int:
    """Generate one object; return the exit status: 0, or 130 if interrupted."""
    job = find_job(request)
    prepare(job.workspace)
    with lock(job.workspace / LOCK), contextlib.ExitStack() as stack:
        if not request.run.test:
            check_unused(job)  # another process may have trained here since
        model = find_model(request.run.model or (job.saved.model if job.saved else None))
        config = resolve(request, job, model)
        after_step: list[AfterStep] = []
        if request.run.gui:
            view = stack.enter_context(gui.LiveView(request.run.gui_port, job.text))
            after_step.append(view.after_step)
        guidance = load_guidance(config)
        after_step += load_checks(config)
        trainer = Trainer(config.settings, guidance, job.workspace)
        guidance.unload_text_encoder()
        is_finished = generate(config, trainer, after_step)
        with report_disk_errors(job.workspace):
            print(index_page.save_index(job.workspace if request.run.workspace else OUTPUTS))
    return 0 if is_finished else 130


@memory.reported("working", REMEDY)
def run_many(request: Request) -> int:
    """Generate the objects of a file of prompts, beside other processes; return the exit status.

    It is 0, 1 if a prompt has failed, or 130 if interrupted.
    """
    assert request.run.prompts
    base = request.run.workspace or OUTPUTS
    folders = jobs.read_jobs(request.run.prompts, base)
    prepare(base)
    if torch.cuda.is_available():  # LOCAL_RANK: set by `accelerate launch` and torchrun
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
    model = find_model(request.run.model)
    text, folder = next(iter(folders.items()))
    first = resolve(request, Job(text, folder), model)
    guidance = load_guidance(first)  # keeps its text encoder: the prompts are still to come
    checks = load_checks(first)

    def work(text: str, folder: Path) -> bool:
        path = checkpoint.latest(folder / "checkpoints")
        saved = checkpoint.read_run(path) if path else None
        if saved and saved.settings.text != text:
            raise TrainingError(
                f"{folder} holds a run for {saved.settings.text!r}: choose another --workspace"
            )
        print(f"{text}: {folder}", flush=True)
        config = resolve(request, Job(text, folder, saved), model)
        return generate(config, Trainer(config.settings, guidance, folder), checks)

    with report_disk_errors(base):
        outcome = jobs.share(folders, work)
        index = index_page.save_index(base)
    print(
        f"{len(outcome.generated)} generated, {len(outcome.skipped)} already finished, "
        f"{len(outcome.failed)} failed: {index}"
    )
    for text, reason in outcome.failed.items():
        print(f"error: {text}: {reason}", file=sys.stderr)
    if outcome.interrupted:
        return 130
    return 1 if outcome.failed else 0


def make_deterministic() -> None:
    """Make results equal bit for bit on one machine."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)  # sums on a CPU depend on it


# --- What to do


def find_job(request: Request) -> Job:
    """Return what a command line asks for.

    Raises TrainingError if that is not clear, if there is no checkpoint to continue from, or if the
    run would overwrite another one.
    """
    text, workspace = request.given.get("text"), request.run.workspace
    path = request.run.ckpt
    if workspace is None and text is not None:
        workspace = OUTPUTS / folder_name(text)
    resumes = (request.run.resume or request.run.test) and not path
    if resumes and workspace:
        path = checkpoint.latest(workspace / "checkpoints")
        if path is None:
            raise TrainingError(f"there is no checkpoint in {workspace}: train first")
    saved = checkpoint.read_run(path) if path else None
    if saved and resumes and text not in (None, saved.settings.text):
        raise TrainingError(
            f"{path} is of a run for {saved.settings.text!r}, not for {text!r}: leave out --text, "
            "or choose another --workspace"
        )
    if saved and text is None:
        text = saved.settings.text
    if text is None:
        raise TrainingError("--text is missing: say what to generate, such as --text 'a hamburger'")
    job = Job(text, workspace or OUTPUTS / folder_name(text), saved)
    if not request.run.test:
        check_unused(job)
    return job


def check_unused(job: Job) -> None:
    """Raise TrainingError if a job would overwrite a run that it does not continue."""
    last = checkpoint.latest(job.workspace / "checkpoints")
    if last and (job.saved is None or last.resolve() != job.saved.path.resolve()):
        raise TrainingError(
            f"{job.workspace} holds a run at step {checkpoint.step_of(last)}: continue it with "
            "--resume, or choose another --workspace"
        )


def resolve(request: Request, job: Job, model: Model) -> RunConfig:
    """Return the configuration of a run, and check that the memory is enough for it.

    Options that were given come first, then the settings of the run that is continued, then the
    defaults for the model and its device. A model without a vocabulary has learned photographs.
    Raises SettingError, and OutOfMemory.
    """
    earlier, earlier_guidance = {}, {}
    if job.saved:
        earlier = asdict(job.saved.settings)
        earlier_guidance = asdict(job.saved.guidance)
    prior = request.given.get("prior", earlier_guidance.get("prior"))
    defaults = preset(
        on_cpu=model.device.type == "cpu",
        of_photos=model.vocabulary is None,
        multiview=prior == "multiview",
    )
    settings = build(Settings, defaults, earlier, request.given, {"text": job.text})
    guidance = build(GuidanceOptions, defaults, earlier_guidance, request.given)
    if guidance.prior == "multiview" and settings.batch_size % VIEWS:
        raise SettingError(
            f"batch_size must be a multiple of {VIEWS} with --prior multiview, which sees so many "
            f"views of an object at once, got {settings.batch_size}."
        )
    memory.check(settings, request.output.frames, request.output.video_size, model.device)
    return RunConfig(job, settings, guidance, request.run, request.output, model)


# --- How to do it


def load_guidance(config: RunConfig) -> StableDiffusion:
    """Return the model that guides. Raises CheckFailed if the exercise is not done."""
    model = config.model
    if config.settings.half and model.device.type != "cuda":
        print("-O changes nothing without a GPU", flush=True)
    with memory.reported("loading the model", "choose a smaller --model, or end other programs"):
        dtype = fastest_dtype(model)
        guidance = StableDiffusion(model, config.guidance, config.run.compile, dtype)
        check_exercise(guidance)
    return guidance


def load_checks(config: RunConfig) -> list[AfterStep]:
    """Return what checks a run after its steps: nothing if the model has no CLIP beside it.

    The limits are those of models with a vocabulary; for photographs there are none.
    """
    model = config.model
    folder = model.folder.parent / "clip"
    is_checked = config.run.check and not config.run.test
    if is_checked and model.vocabulary is not None and folder.is_dir():
        return [Appraiser(folder, model.device).after_step]
    return []


def generate(config: RunConfig, trainer: Trainer, after_step: Sequence[AfterStep] = ()) -> bool:
    """Train, unless --test was given, and write the results; return whether the run is finished.

    The caller holds the lock of the workspace. Raises FailedRun.
    """
    job, options = config.job, config.run
    remove_leftovers(job.workspace)
    if job.saved:
        trainer.resume(job.saved)
        print(f"continuing from step {trainer.step}", flush=True)
    with report_disk_errors(job.workspace):
        is_finished = options.test or train(trainer, options, after_step)
        export.remove_stale_mesh(job.workspace)
        paths = write_results(config.output, trainer)
    print("\n".join(map(str, paths)), flush=True)
    if not is_finished:
        steps = f"{trainer.step} of {trainer.settings.iters}"
        print(f"stopped at step {steps}: --resume continues", flush=True)
    return is_finished


def train(trainer: Trainer, options: RunOptions, after_step: Sequence[AfterStep]) -> bool:
    """Train; start a run that fails again with the next seed. Return False if interrupted.

    Raises FailedRun if it has failed with all seeds. Its checkpoints are removed, since continuing
    it would not help; its last preview stays.
    """

    def after_each(trainer: Trainer, figures: dict[str, float]) -> None:
        for function in after_step:
            function(trainer, figures)

    first = trainer.settings.seed
    while True:
        try:
            return trainer.train(options.save_every, options.preview_every, after_each)
        except FailedRun as failure:
            seed = trainer.settings.seed
            if seed - first < options.restarts:
                trainer.restart(seed + 1)
                print(f"{failure}; starting again with --seed {seed + 1}", flush=True)
                continue
            preview = trainer.preview()
            checkpoint.remove_all(trainer.checkpoints)
            tried = f"seed {seed}" if seed == first else f"seeds {first} to {seed}"
            raise FailedRun(f"{failure} ({tried}): {preview} shows it. {ADVICE}") from failure


def write_results(output: OutputOptions, trainer: Trainer) -> list[Path]:
    """Write the clip, and the mesh if there is a surface; return the paths."""
    with memory.reported("writing the clip", "lower --video_size or --frames"):
        paths = [export.save_video(trainer, output.frames, output.video_size, output.elevation)]
    if output.save_mesh:
        from task_3_DreamFusion.nerf.mesh import MeshError  # slow to import

        try:
            with memory.reported("writing the mesh", "use --no-save_mesh"):
                paths += export.save_mesh(trainer)
        except MeshError as error:
            print(f"no mesh: {error}", file=sys.stderr)
    return paths


# --- The workspace


def prepare(workspace: Path) -> None:
    """Create a folder and test it. Raises TrainingError if too little can be written there."""
    with report_disk_errors(workspace):
        workspace.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=workspace) as probe:
            probe.write(b"0")
        free = shutil.disk_usage(workspace).free
    if free < MIN_FREE:
        raise TrainingError(
            f"--workspace {workspace} is full: {free / 2**20:.0f} MiB are free, and a run needs "
            f"{MIN_FREE / 2**20:.0f}"
        )


@contextlib.contextmanager
def report_disk_errors(workspace: Path) -> Iterator[None]:
    """Raise TrainingError, which is a single line, for an error of the disk in the block."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise TrainingError(f"--workspace {workspace} cannot be written: {reason}") from error


def remove_leftovers(workspace: Path) -> None:
    """Remove what a killed run was writing in a workspace."""
    checkpoint.prune(workspace / "checkpoints")
    for folder in ("", "previews"):
        remove_partial(workspace / folder)

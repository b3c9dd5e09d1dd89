"""Settings of task 3: each field has its default, its limits and its meaning in one place.

The options of `python main.py`, the checks of values and the tables of OPTIONS.md are
generated from these fields, so a setting has the same name in all of them. Neither this module nor
options.py imports PyTorch: the command line answers at once.
"""

from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from task_3_DreamFusion.nerf.options import SettingError, check_fields, option

SETTINGS = "settings.json"  # the file in a workspace

# Groups of options, in the order of `--help` and OPTIONS.md.
PROMPT = "what to generate"
RUN = "the run"
TRAINING = "the training"
FIELD = "the field"
GUIDANCE = "the guidance"
SCHEDULES = "schedules"
REGULARIZERS = "regularizers"
OUTPUT = "the output"
GROUPS = (PROMPT, RUN, TRAINING, FIELD, GUIDANCE, SCHEDULES, REGULARIZERS, OUTPUT)

SHARE = (0, 1)
WEIGHT = (0, 1_000_000)

# Why a larger whole number makes no sense, for the message.
REASONS = {
    "seed": "The generator takes no larger one.",
    "iters": "At a tenth of a second each, so many steps take eleven days.",
    "batch_size": "The denoiser sees all views of a step at once.",
    "size": "The model sees images at its own size: 64 pixels for pocket, 512 for sd-1.5.",
    "reuse": "The targets stay as they are within a step.",
    "rays": "So many are all pixels of almost four images of 512 x 512.",
    "keep": "A run of the default length makes 1,600 targets.",
    "levels": "Each is 1.46 times as fine as the last, which would be finer than any image.",
    "max_steps": "So many are more than 20 in each cell of the finest grid.",
    "save_every": "No run has so many steps.",
    "preview_every": "No run has so many steps.",
    "gui_port": "There is no port with a larger number.",
    "frames": "At 30 frames a second so many last for more than five minutes.",
    "video_size": "Three images stand side by side, and H.264 ends at 16,384 pixels.",
}


@dataclass(frozen=True)
class Settings:
    """What is trained, and how; a checkpoint holds these.

    On a CPU fewer and smaller images make an object in a few minutes. For models of photographs the
    defaults are DreamFusion's: gradients in latents, strong guidance, a world around the object.

    Raises SettingError for a value that is not allowed. Scalars of NumPy and PyTorch are numbers.
    """

    text: str = option(
        MISSING, "text prompt, such as 'a hamburger'; a resumed run knows its own", group=PROMPT
    )
    negative: str = option("", "negative prompt: what to avoid")
    scene: str = option(
        "on a plain background", "words after the text prompt that set the scene", photos=""
    )
    seed: int = option(0, "random seed", (0, 2**63 - 1))

    half: bool = option(False, "use half precision; needs a GPU", flags=("-O",), group=RUN)

    iters: int = option(
        400,
        "number of training steps",
        (1, 10_000_000),
        cpu=240,
        photos=5000,
        multiview=80,
        group=TRAINING,
    )
    batch_size: int = option(4, "number of views per step", (1, 1024), cpu=1, multiview=4)
    size: int = option(
        96, "height and width of a training image in pixels", (1, 2048), cpu=64, photos=64
    )
    space: str = option(
        "pixels",
        "where the guidance acts: target images in pixels, or gradients in latents",
        choices=("pixels", "latents"),
        photos="latents",
    )
    reuse: int = option(
        8,
        "optimizer steps on the targets per training step, with --space pixels",
        (1, 10_000),
        multiview=16,
    )
    rays: int = option(
        4096, "number of rays per optimizer step, with --space pixels", (1, 1_000_000), cpu=2048
    )
    keep: int = option(
        64, "number of latest targets to learn from, with --space pixels", (1, 100_000), cpu=32
    )
    lr: float = option(
        3e-3, "learning rate of the networks, a tenth of the hash grid's", (1e-8, 10), photos=1e-3
    )
    optim: str = option("adam", "optimizer", choices=("adan", "adam"), photos="adan")
    ema: float = option(0.95, "decay of the averaged field, which is the one that is shown", SHARE)

    backbone: str = option(
        "grid", "hash grid, or the plain network of NeRF", choices=("grid", "vanilla"), group=FIELD
    )
    levels: int = option(
        9,
        "number of levels of the encoding; each level of a grid is 1.46 times as fine as the last",
        (1, 16),
        cpu=8,
        photos=12,
    )
    bound: float = option(1.0, "half the side length of the box", (0.01, 100))
    max_steps: int = option(192, "number of samples along the diagonal of the box", (1, 10_000))
    grid_size: int = option(
        64,
        "number of cells along each side of the occupancy grid",
        choices=(8, 16, 32, 64, 128, 256),
        cpu=32,
    )
    background: str = option(
        "plain",
        "what is behind the field: a plain wall, a learned network, or random colors",
        choices=("plain", "network", "random"),
        photos="network",
    )

    fade_in: float = option(
        0.3, "share of the run after which all levels of the encoding count", SHARE, group=SCHEDULES
    )
    widen: float = option(
        0.4,
        "share of the run after which cameras stand everywhere",
        SHARE,
        photos=0.2,
        multiview=0.0,
    )
    albedo_iter_ratio: float = option(
        1.0, "share of the run without light, at its beginning", SHARE, cpu=1.0, photos=0.4
    )
    shaded_ratio: float = option(0.6, "share of the later steps that are lit", SHARE)
    textureless_ratio: float = option(0.2, "share of the lit steps that are without color", SHARE)

    lambda_entropy: float = option(
        50.0,
        "weight of the opacity entropy loss, which pushes the opacity of rays to 0 or 1",
        WEIGHT,
        photos=10.0,
        group=REGULARIZERS,
    )
    lambda_opacity: float = option(
        20.0, "weight of the sparsity loss, which penalizes opacity", WEIGHT, photos=10.0
    )
    lambda_orient: float = option(
        10.0,
        "weight of the orientation loss on lit steps, which penalizes normals that face away",
        WEIGHT,
    )
    lambda_tv: float = option(0.0, "weight of the total variation of the hash grid", WEIGHT)
    lambda_normals: float = option(
        20.0,
        "weight of the difference to the normals that an estimator reads off the targets, with "
        "--space pixels and a model that has an estimator",
        WEIGHT,
        photos=0.0,
    )

    def __post_init__(self) -> None:
        check_fields(self, REASONS)
        if not self.text.strip():
            raise SettingError("text is empty: say what to generate, such as 'a hamburger'")

    @property
    def prompt(self) -> str:
        """The text prompt with the words of the scene, and without those of the view."""
        return f"{self.text.strip()} {self.scene}".strip()


@dataclass(frozen=True)
class GuidanceOptions:
    """How the model guides the field. Raises SettingError for a value that is not allowed."""

    prior: str = option(
        "image",
        "what guides: a model of single images, or one that sees four views of an object at once, "
        "which has to lie beside it",
        choices=("image", "multiview"),
        group=GUIDANCE,
    )
    # DreamFusion takes 100 for a model of photographs; a small model of few objects needs far less.
    guidance_scale: float = option(
        7.5, "scale of classifier-free guidance", (-1000, 1000), photos=100.0
    )
    weighting: str = option(
        "sigma2",
        "weight omega(t) of the gradient at a timestep, with --space latents",
        choices=("sigma2", "uniform", "middle"),
    )
    perp_neg: float = option(
        0.5,
        "strength at the start of Perp-Neg, which pushes hidden views away; 0 turns it off",
        (0, 1000),
        photos=0.0,
        multiview=0.0,
    )

    t_range: tuple[float, float] = option(
        (0.02, 0.98),
        "lowest and highest timestep, as shares of all",
        SHARE,
        metavar=("LOW", "HIGH"),
        group=SCHEDULES,
    )
    # Coarse shapes first, details last: the highest timestep falls linearly. With a narrow window
    # the run goes down the timesteps as sampling does; with 1 all below the highest are sampled.
    t_max_end: float = option(0.45, "highest timestep at the end of the run", SHARE, photos=0.5)
    t_window: float = option(
        0.15, "how far below the highest timestep others are sampled", SHARE, photos=1.0
    )
    # The face shows where the front is while the sides can still turn either way. Without a lead
    # they, silhouettes at first, would decide it by chance.
    front_lead: float = option(
        0.25,
        "share of the run by which timesteps of the front fall earlier; none from 90 degrees on",
        SHARE,
        photos=0.0,
        multiview=0.0,
    )

    def __post_init__(self) -> None:
        check_fields(self, REASONS)
        low, high = self.t_range
        if low > min(high, self.t_max_end):
            raise SettingError(
                f"t_range must begin with its lower end, which t_max_end must not be below, got "
                f"t_range {low:g} {high:g} and t_max_end {self.t_max_end:g}."
            )


@dataclass(frozen=True)
class RunOptions:
    """Where a run starts, and what it saves and shows. Raises SettingError."""

    prompts: Path | None = option(  # noqa: RUF009
        None,
        "file of text prompts, one per line: generate each in a folder of its own; processes that "
        "are started with the same file share the work, and finished prompts are skipped",
        metavar="FILE",
        group=PROMPT,
    )
    model: str | None = option(
        None, "pocket, sd-2.1-base, a Hub id or a folder (default: COURSE_MODEL, or pocket)"
    )

    workspace: Path | None = option(  # noqa: RUF009
        None,
        "folder for the results (default: outputs/task_3/TEXT); with --prompts the folder of all "
        "runs (default: outputs/task_3)",
        metavar="FOLDER",
        group=RUN,
    )
    resume: bool = option(
        False,
        "continue from the last checkpoint of the workspace; settings that are not given stay",
    )
    ckpt: Path | None = option(  # noqa: RUF009
        None,
        "continue from this checkpoint, such as WORKSPACE/checkpoints/000400.pt",
        metavar="FILE",
    )
    test: bool = option(False, "do not train: write the clip and the mesh of the last checkpoint")
    check: bool = option(
        True,
        "check at a quarter, half and end of the run whether it becomes an object that looks like "
        "the text; needs a CLIP model beside the text-to-image model, as pocket has it",
    )
    restarts: int = option(
        2, "how many times a run that fails starts again, each time with the next seed", (0, 1000)
    )
    save_every: int = option(
        200, "number of steps between checkpoints", (1, 10**9), metavar="STEPS"
    )
    preview_every: int = option(
        200, "number of steps between preview images; 0 for none", (0, 10**9), metavar="STEPS"
    )
    gui: bool = option(False, "show the training in the browser")
    gui_port: int = option(8080, "port of the live view", (1, 65535), metavar="PORT")
    compile: bool = option(
        False,
        "compile the denoiser; needs a GPU: a minute before the first step for shorter steps, "
        "which is worth it for a large model and many steps",
    )
    deterministic: bool = option(
        False,
        "make results equal bit for bit on one machine; the CPU works on one thread, and is slower",
    )

    def __post_init__(self) -> None:
        check_fields(self, REASONS)


@dataclass(frozen=True)
class OutputOptions:
    """What a run writes at its end. Raises SettingError."""

    frames: int = option(
        90, "number of frames of the clip, one full turn", (1, 10_000), group=OUTPUT
    )
    video_size: int = option(
        256, "height and width of an image of the clip in pixels", (1, 5460), metavar="PIXELS"
    )
    elevation: float = option(
        15.0, "elevation of the clip's camera in degrees", (-90, 90), metavar="DEGREES"
    )
    save_mesh: bool = option(True, "write a textured mesh as GLB and OBJ, and a page that shows it")

    def __post_init__(self) -> None:
        check_fields(self, REASONS)


def preset(on_cpu: bool, of_photos: bool, multiview: bool = False) -> dict[str, Any]:
    """Return the defaults that differ on a CPU, with a model of photographs, and of views."""
    values: dict[str, Any] = {}
    for name, applies in (("photos", of_photos), ("cpu", on_cpu), ("multiview", multiview)):
        for item in (*fields(Settings), *fields(GuidanceOptions)):
            if applies and item.metadata[name] is not None:
                values[item.name] = item.metadata[name]
    return values

"""Settings of task 3: each field has its default, its limits and its meaning in one place.

The options of `python main.py`, the checks of values and the option tables of README.md are
generated from these fields, so a setting has the same name in all of them. Neither this module nor
options.py imports PyTorch: the command line answers at once.
"""

from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from task_3_DreamFusion.nerf.options import SettingError, check_fields, option

SETTINGS = "settings.json"  # the file in a workspace

# Groups of options, in the order of `--help` and README.md.
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
MAX_STEPS = 10**9


@dataclass(frozen=True)
class Settings:
    """What is trained, and how; a checkpoint holds these.

    On a CPU fewer and smaller images make an object in a few minutes. For models of photographs the
    defaults are DreamFusion's: gradients in latents, strong guidance, a world around the object.

    Raises SettingError for a value that is not allowed. Scalars of NumPy and PyTorch are numbers.
    """

    text: str = option(
        MISSING, PROMPT, "text prompt, such as 'a hamburger'; a resumed run knows its own"
    )
    negative: str = option("", PROMPT, "negative prompt: what to avoid")
    scene: str = option(
        "on a plain background", PROMPT, "words after the text prompt that set the scene", photos=""
    )
    seed: int = option(
        0, PROMPT, "random seed", (0, 2**63 - 1), reason="The generator takes no larger one."
    )

    half: bool = option(False, RUN, "use half precision; needs a GPU", flags=("-O",))

    iters: int = option(
        400,
        TRAINING,
        "number of training steps",
        (1, 10_000_000),
        reason="At a tenth of a second each, so many steps take eleven days.",
        cpu=240,
        photos=5000,
    )
    batch_size: int = option(
        4,
        TRAINING,
        "number of views per step",
        (1, 1024),
        reason="The denoiser sees all views of a step at once.",
        cpu=1,
    )
    size: int = option(
        96,
        TRAINING,
        "height and width of a training image in pixels",
        (1, 2048),
        reason="The model sees images at its own size, which is 64 pixels for pocket and 512 for "
        "sd-1.5.",
        cpu=64,
        photos=64,
    )
    space: str = option(
        "pixels",
        TRAINING,
        "where the guidance acts: target images in pixels, or gradients in latents",
        choices=("pixels", "latents"),
        photos="latents",
    )
    reuse: int = option(
        8,
        TRAINING,
        "optimizer steps on the targets per training step, with --space pixels",
        (1, 10_000),
        reason="The targets stay as they are within a step.",
    )
    rays: int = option(
        4096,
        TRAINING,
        "number of rays per optimizer step, with --space pixels",
        (1, 1_000_000),
        reason="So many are all pixels of almost four images of 512 x 512.",
        cpu=2048,
    )
    keep: int = option(
        64,
        TRAINING,
        "number of latest targets to learn from, with --space pixels",
        (1, 100_000),
        reason="A run of the default length makes 1,600 targets.",
        cpu=32,
    )
    lr: float = option(
        3e-3,
        TRAINING,
        "learning rate of the networks; the hash grid has ten times as much",
        (1e-8, 10),
        photos=1e-3,
    )
    optim: str = option("adam", TRAINING, "optimizer", choices=("adan", "adam"), photos="adan")
    ema: float = option(
        0.95, TRAINING, "decay of the averaged field, which is the one that is shown", SHARE
    )

    backbone: str = option(
        "grid", FIELD, "hash grid, or the plain network of NeRF", choices=("grid", "vanilla")
    )
    levels: int = option(
        9,
        FIELD,
        "number of levels of the encoding; each level of a grid is 1.46 times as fine as the last",
        (1, 16),
        reason="Each has 1.46 times the cells of the one before: the last would be finer than any "
        "image.",
        cpu=8,
        photos=12,
    )
    bound: float = option(1.0, FIELD, "half the side length of the box", (0.01, 100))
    max_steps: int = option(
        192,
        FIELD,
        "number of samples along the diagonal of the box",
        (1, 10_000),
        reason="So many are more than 20 in each cell of the finest grid.",
        cpu=96,
    )
    grid_size: int = option(
        64,
        FIELD,
        "number of cells along each side of the occupancy grid",
        choices=(8, 16, 32, 64, 128, 256),
        cpu=32,
    )
    background: str = option(
        "plain",
        FIELD,
        "what is behind the field: a plain wall, a learned network, or random colors",
        choices=("plain", "network", "random"),
        photos="network",
    )

    fade_in: float = option(
        0.3, SCHEDULES, "share of the run after which all levels of the encoding count", SHARE
    )
    widen: float = option(
        0.4, SCHEDULES, "share of the run after which cameras stand everywhere", SHARE, photos=0.2
    )
    albedo_iter_ratio: float = option(
        1.0,
        SCHEDULES,
        "share of the run without light, at its beginning",
        SHARE,
        cpu=1.0,
        photos=0.4,
    )
    shaded_ratio: float = option(0.6, SCHEDULES, "share of the later steps that are lit", SHARE)
    textureless_ratio: float = option(
        0.2, SCHEDULES, "share of the lit steps that are without color", SHARE
    )

    lambda_entropy: float = option(
        50.0,
        REGULARIZERS,
        "weight of the opacity entropy loss, which pushes the opacity of rays to 0 or 1",
        WEIGHT,
        photos=10.0,
    )
    lambda_opacity: float = option(
        20.0,
        REGULARIZERS,
        "weight of the sparsity loss, which penalizes opacity",
        WEIGHT,
        photos=10.0,
    )
    lambda_orient: float = option(
        10.0,
        REGULARIZERS,
        "weight of the orientation loss on lit steps, which penalizes visible normals that face "
        "away",
        WEIGHT,
    )
    lambda_tv: float = option(
        0.0, REGULARIZERS, "weight of the total variation of the hash grid", WEIGHT
    )
    lambda_smooth: float = option(
        0.0,
        REGULARIZERS,
        "weight of the smoothness loss on lit steps, which penalizes differences of near normals",
        WEIGHT,
    )

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.text.strip():
            raise SettingError("text is empty: say what to generate, such as 'a hamburger'")

    @property
    def prompt(self) -> str:
        """The text prompt with the words of the scene, and without those of the view."""
        return f"{self.text.strip()} {self.scene}".strip()


@dataclass(frozen=True)
class GuidanceOptions:
    """How the model guides the field. Raises SettingError for a value that is not allowed."""

    # DreamFusion takes 100 for a model of photographs; a small model of few objects needs far less.
    guidance_scale: float = option(
        7.5, GUIDANCE, "scale of classifier-free guidance", (-1000, 1000), photos=100.0
    )
    weighting: str = option(
        "sigma2",
        GUIDANCE,
        "weight w(t) of the gradient at a timestep, with --space latents",
        choices=("sigma2", "uniform", "middle"),
    )
    perp_neg: float = option(
        0.5,
        GUIDANCE,
        "strength at the start of Perp-Neg, which pushes hidden views away; 0 turns it off",
        (0, 1000),
        photos=0.0,
    )

    t_range: tuple[float, float] = option(
        (0.02, 0.98),
        SCHEDULES,
        "lowest and highest timestep, as shares of all",
        SHARE,
        metavar=("LOW", "HIGH"),
    )
    # Coarse shapes first, details last: the highest timestep falls linearly. With a narrow window
    # the run goes down the timesteps as sampling does; with 1 all below the highest are sampled.
    t_max_end: float = option(
        0.45, SCHEDULES, "highest timestep at the end of the run", SHARE, photos=0.5
    )
    t_window: float = option(
        0.15, SCHEDULES, "how far below the highest timestep others are sampled", SHARE, photos=1.0
    )
    # The face shows where the front is while the sides can still turn either way. Without a lead
    # they, silhouettes at first, would decide it by chance.
    front_lead: float = option(
        0.25,
        SCHEDULES,
        "share of the run by which timesteps of the front fall earlier; none from 90 degrees on",
        SHARE,
        photos=0.0,
    )

    def __post_init__(self) -> None:
        check_fields(self)
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
        PROMPT,
        "file of text prompts, one per line: generate each in a folder of its own; processes that "
        "are started with the same file share the work, and finished prompts are skipped",
        metavar="FILE",
    )
    model: str | None = option(
        None,
        PROMPT,
        "pocket, sd-2.1-base, a Hub id or a folder (default: COURSE_MODEL, or pocket)",
    )

    workspace: Path | None = option(  # noqa: RUF009
        None,
        RUN,
        "folder for the results (default: outputs/task_3/TEXT); with --prompts the folder of all "
        "runs (default: outputs/task_3)",
        metavar="FOLDER",
    )
    resume: bool = option(
        False,
        RUN,
        "continue from the last checkpoint of the workspace, with its settings unless others are "
        "given",
    )
    ckpt: Path | None = option(  # noqa: RUF009
        None,
        RUN,
        "continue from this checkpoint, such as WORKSPACE/checkpoints/000400.pt",
        metavar="FILE",
    )
    test: bool = option(
        False, RUN, "do not train: write the clip and the mesh of the last checkpoint"
    )
    save_every: int = option(
        200,
        RUN,
        "number of steps between checkpoints, which a crash can cost",
        (1, MAX_STEPS),
        reason="No run has so many steps.",
        metavar="STEPS",
    )
    preview_every: int = option(
        200,
        RUN,
        "number of steps between preview images; 0 for none",
        (0, MAX_STEPS),
        reason="No run has so many steps.",
        metavar="STEPS",
    )
    gui: bool = option(False, RUN, "show the training in the browser")
    gui_port: int = option(
        8080,
        RUN,
        "port of the live view",
        (1, 65535),
        reason="There is no port with a larger number.",
        metavar="PORT",
    )
    compile: bool = option(
        False,
        RUN,
        "compile the denoiser; needs a GPU: a minute before the first step for shorter steps, "
        "which is worth it for a large model and many steps",
    )
    deterministic: bool = option(
        False,
        RUN,
        "make results equal bit for bit on one machine; the CPU works on one thread, and is slower",
    )

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class OutputOptions:
    """What a run writes at its end. Raises SettingError."""

    frames: int = option(
        90,
        OUTPUT,
        "number of frames of the clip, one full turn",
        (1, 10_000),
        reason="At 30 frames a second so many last for more than five minutes.",
    )
    video_size: int = option(
        256,
        OUTPUT,
        "height and width of an image of the clip in pixels",
        (1, 5460),
        reason="Three images stand side by side, and H.264 ends at 16,384 pixels.",
        metavar="PIXELS",
    )
    elevation: float = option(
        15.0, OUTPUT, "elevation of the clip's camera in degrees", (-90, 90), metavar="DEGREES"
    )
    save_mesh: bool = option(
        True, OUTPUT, "write a textured mesh as GLB and OBJ, and a page that shows it"
    )

    def __post_init__(self) -> None:
        check_fields(self)


def preset(on_cpu: bool, of_photos: bool) -> dict[str, Any]:
    """Return the defaults that differ on a CPU, and with a model of photographs."""
    values: dict[str, Any] = {}
    for name, applies in (("photos", of_photos), ("cpu", on_cpu)):
        for item in (*fields(Settings), *fields(GuidanceOptions)):
            if applies and item.metadata[name] is not None:
                values[item.name] = item.metadata[name]
    return values

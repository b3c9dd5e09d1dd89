"""Memory: an estimate before a run starts, and one clear error if it is not enough later.

    check(settings, frames=90, video_size=256, device=device)
    with reported("writing the clip", "lower --video_size"):
        ...

The estimate is a lower bound: it refuses what no machine of this size can do.
"""

import contextlib
import errno
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from course.errors import CourseError
from task_3_DreamFusion.nerf.renderer import SAMPLES_PER_ROUND
from task_3_DreamFusion.nerf.settings import Settings

GIB = 2**30
# Bytes, measured with the hash grid on a CPU. A lit step takes several times as much.
SAMPLE = 380  # a sample of the field without its gradient
TRAINED_SAMPLE = 780  # and with it
MARCHED_SAMPLE = 20  # a sample before the field is evaluated there
TARGET_PIXEL = 48  # a color and its ray, in a target and among the rays of all targets
FRAME_PIXEL = 36  # three images side by side, four times: the image, an array, what ffmpeg gets
OCCUPIED = 0.08  # the share of --max_steps that a ray takes in the cloud that a run starts with
LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)  # of a container
MESSAGES = ("out of memory", "allocate memory", "not enough memory", "bad_alloc", "alloc_failed")


class OutOfMemory(CourseError):
    """There is not enough memory; the message names the options to lower."""


@dataclass(frozen=True)
class Need:
    """The memory of a part of a run. purpose: what for. options: what it depends on."""

    purpose: str
    size: float  # bytes
    options: dict[str, int]


def estimate(settings: Settings, frames: int, video_size: int) -> list[Need]:
    """Return what the parts of a run need at least, one after the other."""
    s = settings
    in_pixels = s.space == "pixels"
    samples_per_ray = max(OCCUPIED * s.max_steps, 1)
    image_samples = s.batch_size * s.size**2 * samples_per_ray
    target_samples = s.rays * samples_per_ray
    needs = [
        Need(
            "the images of a step",
            image_samples * (SAMPLE if in_pixels else TRAINED_SAMPLE),
            {"--batch_size": s.batch_size, "--size": s.size, "--max_steps": s.max_steps},
        ),
        Need(
            "a frame of the clip",
            SAMPLES_PER_ROUND * video_size**2 * SAMPLE,
            {"--video_size": video_size},
        ),
        Need(
            "the frames of the clip",
            frames * video_size**2 * FRAME_PIXEL,
            {"--frames": frames, "--video_size": video_size},
        ),
    ]
    if in_pixels:
        needs += [
            Need(
                "the rays of a step",
                target_samples * (TRAINED_SAMPLE + MARCHED_SAMPLE * s.reuse),
                {"--rays": s.rays, "--reuse": s.reuse, "--max_steps": s.max_steps},
            ),
            Need(
                "the targets",
                s.keep * s.size**2 * TARGET_PIXEL,
                {"--keep": s.keep, "--size": s.size},
            ),
        ]
    return needs


def check(settings: Settings, frames: int, video_size: int, device: torch.device) -> None:
    """Raise OutOfMemory for a run that needs more memory than the device has."""
    available = total(device)
    for need in estimate(settings, frames, video_size):
        if need.size > available:
            options = [f"{name} ({value:,})" for name, value in need.options.items()]
            raise OutOfMemory(
                f"{need.purpose} would take about {need.size / GIB:,.0f} GiB of memory, and this "
                f"machine has {available / GIB:,.0f} GiB: lower {either(options)}."
            )


def either(options: list[str]) -> str:
    """Return alternatives as text: "a", "a or b", "a, b or c"."""
    return " or ".join(filter(None, [", ".join(options[:-1]), options[-1]]))


def total(device: torch.device) -> int:
    """Return the bytes of memory of a device; on a CPU those that this container may use."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    texts = [path.read_text().strip() for path in LIMITS if path.is_file()]
    limits = [int(text) for text in texts if text.isdecimal()]
    return min([psutil.virtual_memory().total, *limits])


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an allocator raised this error: Python's, NumPy's or PyTorch's."""
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    text = str(error).lower() if isinstance(error, RuntimeError) else ""
    return any(message in text for message in MESSAGES)


@contextlib.contextmanager
def reported(activity: str, remedy: str) -> Iterator[None]:
    """Raise OutOfMemory, which says what to do, for an error of an allocator in the block."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(f"out of memory while {activity}: {remedy}.") from error

"""Around the panoramas of lesson 2: checks of requests, decoding in tiles, a pan, a web page."""

import base64
import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from course import pages
from course.arguments import check_integer, check_number
from course.errors import CourseError
from course.images.io import ImageLike, to_pil
from course.models import RequestError


class PanoramaError(CourseError, ValueError):
    """A panorama cannot be shown; the message says why."""


# --- Checks of requests


def check_windows(height: int, width: int, window: int, stride: Any) -> int:
    """Return `stride` as an int if windows can cover latents of height x width.

    All are in latent pixels. Raises RequestError.
    """
    for name, side in (("height", height), ("width", width)):
        if side < window:
            raise RequestError(
                f"{name} must be at least {window} latent pixels, one window, got {side}. Generate "
                "a smaller image without windows, as in lesson 1.2."
            )
    # A larger stride leaves gaps.
    return check_integer(f"The stride between windows of {window}", stride, 1, window, RequestError)


def check_sync(sync: Any, window: int) -> Any:
    """Return the settings of synchronization (lesson 2, `Sync`) as plain numbers.

    window: the side of a window in latent pixels. Raises RequestError for invalid settings.
    """
    numbers = {
        name: check_number(f"sync.{name}", getattr(sync, name), maximum=high, error=RequestError)
        for name, high in (("weight", math.inf), ("decay", 1), ("until", 1), ("scale", 1))
    }
    every = check_integer("sync.every", sync.every, minimum=1, error=RequestError)
    sync = sync._replace(**numbers, every=every)
    for name, is_valid, allowed in (
        ("weight", sync.weight > 0, "above 0 (use_syncdiffusion=False turns it off)"),
        ("decay", sync.decay > 0, "above 0 and at most 1"),
        ("until", sync.until > 0, "a share of the steps, above 0 and at most 1"),
        (
            "scale",
            sync.scale > 0 and window * sync.scale % 1 == 0,
            f"such that a whole number of a window's {window} latent pixels is left, as by 0.5",
        ),
        ("through", sync.through in ("denoiser", "decoder"), "'denoiser' or 'decoder'"),
    ):
        if not is_valid:
            raise RequestError(f"sync.{name} must be {allowed}, got {getattr(sync, name)!r}.")
    return sync


def check_masks(regions: Sequence[tuple[str, Any]], height: int, width: int) -> torch.Tensor:
    """Return the masks (R, height, width) of regions, each a prompt and a mask from 0 to 1.

    A mask is a tensor, an array or rows of numbers. Raises RequestError.
    """
    if not len(regions):
        raise RequestError(
            "regions must hold at least one pair of a prompt and a mask, got none. `sample` needs "
            "no regions."
        )
    masks = []
    for prompt, values in regions:
        name = f'The mask of "{prompt}"'
        if isinstance(values, torch.Tensor):
            values = values.detach().float().cpu()
        try:
            mask = torch.as_tensor(np.array(values, np.float32))
        except (TypeError, ValueError):
            raise RequestError(f"{name} must be an array of numbers from 0 to 1.") from None
        if tuple(mask.shape) != (height, width):
            raise RequestError(
                f"{name} must have the shape of the latents, {(height, width)}, got "
                f"{tuple(mask.shape)}."
            )
        if not (mask.min() >= 0 and 0 < mask.max() <= 1):
            raise RequestError(f"{name} must be from 0 to 1, and above 0 somewhere.")
        masks.append(mask)
    return torch.stack(masks)


# --- Decoding


@contextlib.contextmanager
def closed_convolutions(
    network: torch.nn.Module,
    convolution: Callable[[torch.nn.Conv2d, torch.Tensor], torch.Tensor],
) -> Iterator[None]:
    """Within this block all convolutions of `network` are computed by `convolution(layer, x)`."""
    layers = [layer for layer in network.modules() if isinstance(layer, torch.nn.Conv2d)]
    for layer in layers:
        # A function stored on an object hides the one of its class.
        layer.forward = functools.partial(convolution, layer)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def decode_closed_tiles(
    decode: Callable[[torch.Tensor], torch.Tensor],
    latents: torch.Tensor,  # (B, C, h, w)
    tile: int,
) -> torch.Tensor:
    """Return the images (B, 3, H, W) of closed latents that `decode` decodes in tiles.

    Convolutions that wrap around would join the two edges of each tile. So the latents are padded
    with those of the opposite edge, by half a `tile` of latent columns, and the two images of the
    part that is decoded twice are blended.
    """
    padding = min(tile, latents.shape[-1]) // 2
    extended = F.pad(latents, (padding, padding, 0, 0), mode="circular")
    images = decode(extended)
    border = padding * (images.shape[-1] // extended.shape[-1])  # pixels
    weight = torch.linspace(0, 1, 2 * border, device=images.device)
    blended = torch.lerp(images[..., -2 * border :], images[..., : 2 * border], weight)
    middle = images[..., 2 * border : -2 * border]
    return torch.cat([blended, middle], dim=-1).roll(-border, dims=-1)


# --- Showing a panorama


def pan(image: ImageLike, width: int, frames: int, closed: bool = False) -> list[Image.Image]:
    """Return `frames` views of `width` pixels and full height, from left to right at one speed.

    The views of a `closed` panorama make a full turn, so that the clip can loop; those of an open
    one go from edge to edge. Raises PanoramaError if the view is wider than the panorama or there
    is no frame.
    """
    whole = to_pil(image)
    width = check_integer("The width of a view", width, 1, whole.width, PanoramaError)
    frames = check_integer("The number of frames", frames, minimum=1, error=PanoramaError)
    pixels = np.asarray(whole)
    lefts = np.linspace(
        0, whole.width if closed else whole.width - width, frames, endpoint=not closed
    )
    columns = [(round(left) + np.arange(width)) % whole.width for left in lefts.tolist()]
    return [Image.fromarray(pixels[:, column]) for column in columns]


def crop_seam(image: torch.Tensor) -> torch.Tensor:
    """Return the square, half as high as an image (3, H, W), where its ends meet."""
    side = image.shape[-2] // 2
    return image.roll(side // 2, dims=-1)[:, side // 2 : side // 2 + side, :side]


PAGE = pages.TEMPLATES / "panorama.html"


def write_page(path: str | Path, image: ImageLike, title: str) -> Path:
    """Write an HTML file that shows a closed panorama, turning, and return its path.

    Mouse, finger and arrow keys turn it. The image is in the file, so it needs no other file and no
    network. Raises PanoramaError for another suffix or a path that cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".html":
        raise PanoramaError(f"The name of a page must end in .html, got {path.name!r}.")
    whole, file = to_pil(image), BytesIO()
    whole.save(file, "PNG", optimize=True)  # not JPEG: its blocks would show where the ends meet
    source = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = pages.render(PAGE, title=title, image=source, max_height=3 * whole.height)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise PanoramaError(f"{path} cannot be written: {error.strerror or error}.") from error
    return path

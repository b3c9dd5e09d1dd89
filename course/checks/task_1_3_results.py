"""Checks of lesson 1.3: the F1 of edges, images of the student's own, and the challenges.

The challenges are measured on images. With a model other than pocket the figures are printed and
there is no bar: the judge knows pocket's world only.
"""

import itertools
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from course.checks.common import CheckFailed, Function, call, check, expect, same
from course.images import ImageError, conditions, load_image
from course.metrics import Judge, control
from course.metrics.control import spearman
from course.models import Model, ModelError
from course.models.controlnet import available_kinds
from course.models.estimators import estimate_depth

SAMPLES = Path(__file__).resolve().parents[2] / "assets" / "samples"
MIN_OWN_EDGES = 0.8  # share of edge pixels that are edges of the image at low thresholds
MIN_OWN_DEPTH = 0.95  # rank correlation with the estimated depth
MIN_CORRELATION = 0.8  # of challenge 2
MIN_MASK = 0.02  # share of the image


@check("1.3 (f)")
def edge_f1(function: Function) -> str:
    """F1 of two edge maps, on cases computed by hand."""
    line, near, far = (_lines([column]) for column in (10, 12, 13))
    two, empty = _lines([10, 25]), _lines([])
    _expect_f1(function, "equal maps", line, line, 1.0)
    _expect_f1(
        function,
        "lines 2 pixels from each other",
        near,
        line,
        1.0,
        {0.0: "A pixel at most `within` pixels away counts as correct: dilate the other map."},
    )
    _expect_f1(function, "lines 3 pixels from each other", far, line, 0.0)
    dot, diagonal = np.zeros((32, 32, 3)), np.zeros((32, 32, 3))
    dot[10, 10] = diagonal[12, 12] = 1
    _expect_f1(
        function,
        "two pixels at a distance of 2.8",
        dot,
        diagonal,
        0.0,
        {1.0: "The neighborhood is a disc, row**2 + column**2 <= within**2, and not a square."},
    )
    advice = {0.0: "Use `within`, in the size of the disc too."}
    _expect_f1(function, "lines 3 pixels from each other, and within=3", far, line, 1.0, advice, 3)
    mistakes = {
        1.0: "That is the recall alone, or the larger one: combine both by formula (2).",
        0.5: "That is the precision alone, or the smaller one: combine both by formula (2).",
        0.75: "That is the mean of precision and recall; formula (2) is another one.",
        1 / 3: "The factor 2 of formula (2) is missing.",
    }
    _expect_f1(function, "one line too many", two, line, 2 / 3, mistakes)
    mistakes = {
        1.0: "That is the precision alone, or the larger one: combine both by formula (2).",
        0.5: "That is the recall alone, or the smaller one: combine both by formula (2).",
    }
    _expect_f1(function, "one line missing", line, two, 2 / 3, mistakes)
    for what, maps in (
        ("no edges in the first map", (empty, line)),
        ("no edges in the second map", (line, empty)),
        ("no edges at all", (empty, empty)),
    ):
        _expect_f1(function, what, *maps, 0.0)
    return "1 for equal maps, 0 for maps that have nothing in common, and formula (2) between"


def _lines(columns: list[int]) -> np.ndarray:
    """Return an edge map (32, 32, 3) with vertical lines."""
    page = np.zeros((32, 32, 3))
    page[:, columns] = 1
    return page


def _expect_f1(
    function: Function,
    what: str,
    edges: np.ndarray,
    expected: np.ndarray,
    right: float,
    mistakes: dict[float, str] | None = None,
    within: int = 2,
) -> None:
    """Raise CheckFailed unless the F1 of two maps is `right`; mistakes: advice by wrong value."""
    try:
        result = call(function, edges.copy(), expected.copy(), within)
    except CheckFailed as error:
        raise CheckFailed(f"For {what}: {error}") from error
    expect(
        np.ndim(result) == 0 and isinstance(result, int | float | np.number),
        f"`edge_f1` returns a {type(result).__name__}; it has to be one number.",
    )
    if abs(float(result) - right) > 1e-4:
        advice = {round(value, 3): text for value, text in (mistakes or {}).items()}
        raise CheckFailed(
            f"For {what} F1 is {right:.3g}, and `edge_f1` returns {float(result):.3g}. "
            + advice.get(round(float(result), 3), "Compare with formula (2), step by step.")
        )


@check("1.3 (i)")
def own_image(
    image: Any,
    own_conditions: Mapping[str, np.ndarray],
    images: Mapping[str, Image.Image],
    folder: str | Path,
    model: Model,
) -> str:
    """An image that is no sample, with its edges, its depth, and the images made of them."""
    expect.value(image, "`my_image`")
    expect.is_a(image, Image.Image, "`my_image`", "load_image returns an image.")
    for side in image.size:
        expect(
            side % model.scale_factor == 0,
            f"Your image has {image.width} x {image.height} pixels; sides are multiples of "
            f"{model.scale_factor}: load_image(path, model.image_size).",
        )
    _expect_own(image)
    for name, values in (("my_conditions", own_conditions), ("my_images", images)):
        expect.value(values, f"`{name}`")
        expect.is_a(values, dict, f"`{name}`", 'it is a dictionary of "canny" and "depth".')
        missing = [kind for kind in ("canny", "depth") if kind not in values]
        expect(
            not missing,
            f"`{name}` is still empty: write the lines of the TODO above."
            if not values
            else f"`{name}` has no {' and no '.join(map(repr, missing))}, only "
            f"{', '.join(map(repr, values))}.",
        )
    for kind in ("canny", "depth"):
        _expect_condition(own_conditions[kind], image, kind)
    _expect_edges_of(own_conditions["canny"], image)
    _expect_depth_of(own_conditions["depth"], image, model)
    for kind in ("canny", "depth"):
        _expect_result(images[kind], image, kind, Path(folder) / f"mine_{kind}.png")
    expect(
        not same(images["canny"], images["depth"]),
        "The images from edges and from depth are the same.",
    )
    edges = control.edge_f1(
        conditions.canny(images["canny"])[..., 0], own_conditions["canny"][..., 0]
    )
    depth = spearman(
        estimate_depth(images["depth"], model),
        own_conditions["depth"][..., 0],
        np.ones(image.size[::-1]),
    )
    return (
        f"your own image, from its edges (F1 {edges:.2f}) and from its depth (rank correlation "
        f"{depth:.2f}), saved in {folder}"
    )


@check("1.3 (j)")
def own_kind(kind: Any, condition: Any, image: Any, folder: str | Path, model: Model) -> str:
    """An image by another kind of ControlNet, from a condition that is no sample's."""
    expect.value(kind, "`my_kind`")
    kinds = available_kinds(model)
    others = [each for each in kinds if each not in ("canny", "depth")] or kinds
    expect(
        isinstance(kind, str) and kind in others,
        f"`my_kind` is {kind!r}; another kind than edges and depth is one of {', '.join(others)}.",
    )
    expect.value(condition, "`my_condition`")
    expect.value(image, "`my_result`")
    expect.is_a(image, Image.Image, "`my_result`", "generate returns an image.")
    _expect_condition(condition, image, kind)
    if kind == "scribble":
        expect(
            condition.mean() < 0.5,
            "Most of your scribble is white: a ControlNet knows white lines on black. Take 1 minus "
            "it.",
        )
    for path in _sample_paths():
        expect(
            not _resembles(condition, _sample_condition(kind, path, image.size)),
            f"That is the {kind} of the sample {path.name}.",
        )
    _expect_result(image, None, kind, Path(folder) / "mine_other.png")
    return f"an image by the ControlNet for {kind}, from your own data, saved in {folder}"


@check("1.3 challenge 1")
def keep_edges(
    images: Any, plain: Sequence[Image.Image], edges: np.ndarray, thing: str, model: Model
) -> str:
    """The mean F1 of the edges of images in which the judge sees `thing`, against plain control."""
    empty = isinstance(images, list) and not images
    expect(not empty, "`mine` is still empty: write the lines of the TODO above.")
    expect.value(images, "`mine`")
    _expect_images(images, len(plain), "`mine`", plain[0].size)
    expect(
        not any(same(a, b) for a, b in zip(images, plain, strict=True)),
        "One of your images is the plain one.",
    )
    expect(not any(same(a, b) for a, b in itertools.pairwise(images)), "Your images are the same.")
    for image in images:
        expect(not _looks_like_lines(image, edges), "One of your images is the edge map itself.")
    score, bar = (
        float(
            np.mean(
                [control.edge_f1(conditions.canny(image)[..., 0], edges[..., 0]) for image in each]
            )
        )
        for each in (images, plain)
    )
    objects = [attributes["object"] for attributes in _judge()(images)]
    figures = f"edges F1 {score:.3f} (plain control {bar:.3f}), the judge sees {_join(objects)}"
    if model.is_embedded:
        expect(
            all(each == thing for each in objects),
            f"{figures}: it has to see a {thing} in every image. Less scale, or a shorter window?",
        )
        expect(
            score > bar,
            f"{figures}: the edges are kept no better than by plain control. More scale, or a "
            "second condition?",
        )
    return figures


@check("1.3 challenge 2")
def from_depth(depth: Any, mask: Any, thing: Any, image: Any, model: Model) -> str:
    """The rank correlation of the requested depth and that of an image, inside a mask."""
    for name, value in (("depth", depth), ("mask", mask), ("thing", thing), ("sculpture", image)):
        expect.value(value, f"`{name}`")
    expect.is_a(thing, str, "`thing`", 'it is the name of an object, such as "ball".')
    _expect_images([image], 1, "`sculpture`", None)
    shape = image.size[::-1]
    for name, value in (("depth", depth), ("mask", mask)):
        expect.is_a(value, np.ndarray, f"`{name}`", f"it is an array {shape}.")
        expect(value.shape == shape, f"`{name}` has the shape {value.shape}, the image {shape}.")
        expect(
            value.dtype == bool or np.issubdtype(value.dtype, np.number),
            f"`{name}` is {value.dtype}, not numbers.",
        )
    expect(np.isfinite(depth).all(), "`depth` is not finite: is there the root of a negative one?")
    expect(
        depth.min() >= 0 and depth.max() <= 1,
        f"`depth` goes from {depth.min():.3g} to {depth.max():.3g}; a condition is in [0, 1].",
    )
    inside = mask > 0
    expect(
        MIN_MASK <= inside.mean() <= 0.9,
        f"The mask covers {inside.mean():.0%} of the image; it covers the object alone, from 2 to "
        "90 %.",
    )
    expect(np.ptp(depth[inside]) > 0.05, "Inside the mask `depth` is flat: give the object a form.")
    score = spearman(estimate_depth(image, model), depth, inside)
    judged = _judge()([image])[0]["object"]
    figures = f"rank correlation {score:.3f} inside the mask, the judge sees a {judged}"
    if model.is_embedded:
        expect(judged == thing, f"{figures} and not a {thing}: do form and prompt fit the object?")
        expect(
            score >= MIN_CORRELATION,
            f"{figures}; the bar is {MIN_CORRELATION}. "
            + ("Is near white (1) in your depth?" if score < 0 else "Compare the two depth maps."),
        )
    return figures


def _expect_own(image: Image.Image) -> None:
    """Raise CheckFailed for an image that is one of the samples, up to small changes."""
    for path in _sample_paths():
        for sample in (load_image(path, image.size), _mirrored(load_image(path, image.size))):
            expect(
                _difference(image, sample) > 6, f"That is the sample {path.name}: take your own."
            )


def _mirrored(image: Image.Image) -> Image.Image:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def _difference(a: Image.Image, b: Image.Image) -> float:
    """Return the mean difference of two images of one size, reduced to 32 x 32, from 0 to 255."""
    small = [np.asarray(each.convert("RGB").resize((32, 32)), np.float32) for each in (a, b)]
    return float(np.abs(small[0] - small[1]).mean())


def _expect_condition(values: Any, image: Image.Image, kind: str) -> None:
    """Raise CheckFailed unless `values` is an array (H, W, 3) in [0, 1] of the image's size."""
    what, shape = f"The condition for {kind}", (*image.size[::-1], 3)
    expect.is_a(values, np.ndarray, what, f"it is an array {shape}.")
    expect(values.shape == shape, f"{what} has the shape {values.shape}, and not {shape}.")
    expect(np.issubdtype(values.dtype, np.number), f"{what} has the type {values.dtype}.")
    expect(np.isfinite(values).all(), f"{what} has values that are not finite.")
    low, high = values.min(), values.max()
    expect(
        low >= 0 and high <= 1,
        f"{what} goes from {low:.3g} to {high:.3g}; a condition is in [0, 1].",
    )
    expect(high > low, f"{what} is the same everywhere: it says nothing.")


def _expect_edges_of(edges: np.ndarray, image: Image.Image) -> None:
    expect(np.isin(edges, (0, 1)).all(), "The condition is not all 0 and 1: edges are 0 or 1.")
    lines = edges[..., 0] > 0
    expect(lines.mean() < 0.5, "Most of the edge map is white: edges are white on black.")
    every_edge = conditions.canny(image, 5, 10)[..., 0] > 0
    share = (lines & every_edge).sum() / lines.sum()
    expect(share >= MIN_OWN_EDGES, f"Only {share:.0%} of the edge pixels are edges of `my_image`.")


def _expect_depth_of(depth: np.ndarray, image: Image.Image, model: Model) -> None:
    estimated = estimate_depth(image, model)
    correlation = spearman(depth[..., 0], estimated, np.ones(estimated.shape))
    expect(correlation > -MIN_OWN_DEPTH, "The depth is inside out: near is white (1).")
    expect(
        correlation >= MIN_OWN_DEPTH,
        f"The depth is not that of `my_image` (rank correlation {correlation:.2f}): compute it "
        "from it, with depth_image.",
    )


def _expect_result(image: Any, source: Image.Image | None, kind: str, path: Path) -> None:
    """Raise CheckFailed unless `image` was generated and saved as `path`."""
    what = f"The image from {kind}"
    expect.is_a(image, Image.Image, what, "generate returns an image.")
    if source is not None:
        expect(
            image.size == source.size,
            f"{what} has {image.width} x {image.height} pixels, and your image {source.width} x "
            f"{source.height}: the condition gives the size.",
        )
        expect(not same(image.convert("RGB"), source.convert("RGB")), f"{what} is your own image.")
    expect(path.is_file(), f"There is no file {path.name} in OUTPUTS: save the image there.")
    try:
        saved = load_image(path, min_side=1)
    except ImageError as error:
        raise CheckFailed(f"{path.name} cannot be read: {error}") from error
    expect(same(saved, image.convert("RGB")), f"{path.name} holds another image: save this one.")


def _expect_images(images: Any, count: int, what: str, size: tuple[int, int] | None) -> None:
    """Raise CheckFailed unless `images` is a list of `count` images of that size."""
    expect.is_a(images, list | tuple, what, "it is a list of images.")
    expect(len(images) == count, f"{what} has {len(images)} images; there are {count} seeds.")
    for image in images:
        expect.is_a(image, Image.Image, f"An entry of {what}", "generate returns an image.")
        expect(
            size is None or image.size == size,
            f"An image of {what} has {image.width} x {image.height} pixels, and not "
            f"{' x '.join(map(str, size or ()))}.",
        )


def _looks_like_lines(image: Image.Image, edges: np.ndarray) -> bool:
    """Return whether an image is the edge map itself, or its negative."""
    gray = np.asarray(image.convert("L"), np.float32) / 255
    return any(np.abs(gray - page).mean() < 0.05 for page in (edges[..., 0], 1 - edges[..., 0]))


def _resembles(values: np.ndarray, sample: np.ndarray | None) -> bool:
    """Return whether a condition is that of a sample, up to small changes."""
    return sample is not None and float(np.abs(values - sample).mean()) < 0.005


def _sample_paths() -> list[Path]:
    return sorted(SAMPLES.glob("*.png"))


@cache
def _sample_condition(kind: str, path: Path, size: tuple[int, int]) -> np.ndarray | None:
    """Return the scribble or normals of a sample; None for kinds that (i) is about."""
    image = load_image(path, size)
    if kind == "scribble":
        return conditions.scribble(image)
    if kind == "normals":
        from course.models import find_model
        from course.models.estimators import estimate_normals

        try:
            return conditions.normals_to_image(estimate_normals(image, find_model("pocket")))
        except ModelError:
            return None
    return None


@cache
def _judge() -> Judge:
    return Judge()


def _join(names: Sequence[Any]) -> str:
    return " and ".join(f"a {name}" for name in names)

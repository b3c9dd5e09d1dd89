"""The checks of lesson 1.3 on images: own data and challenges, right and wrong."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from course.checks import task_1_3 as checks
from course.checks import task_1_3_results as results
from course.images import conditions, load_image
from course.models import find_model
from course.models.estimators import estimate_depth
from tests.course.checks.helpers import assert_advice

SAMPLES = results.SAMPLES
SIZE = (64, 64)


@pytest.fixture(scope="module")
def pocket():
    return find_model("pocket")


def drawing(color: str = "red", size: tuple[int, int] = SIZE) -> Image.Image:
    """An image that is no sample."""
    page = Image.new("RGB", size, "lightblue")
    pen = ImageDraw.Draw(page)
    pen.rectangle((14, 20, 40, 50), fill=color)
    pen.ellipse((30, 8, 60, 34), fill="black")
    return page


def own(model, folder, **changes):
    """Return right arguments of `own_image`, with changes; the images are saved in `folder`."""
    image = changes.get("image", drawing())
    values = {
        "image": image,
        "conditions": {
            "canny": conditions.canny(image, 20, 40),
            "depth": conditions.depth_to_image(estimate_depth(image, model)),
        },
        "images": {"canny": drawing("green"), "depth": drawing("white")},
    }
    for kind, saved in values["images"].items():
        saved.save(folder / f"mine_{kind}.png")
    values |= changes
    return values["image"], values["conditions"], values["images"], folder, model


def test_an_own_image_passes(pocket, tmp_path, capsys):
    checks.own_image(*own(pocket, tmp_path))
    assert "F1" in capsys.readouterr().out
    image, own_conditions, images, *others = own(pocket, tmp_path)
    own_conditions["depth"] = own_conditions["depth"].astype(np.float64) ** 0.8
    checks.own_image(image, own_conditions, images | {"normals": drawing()}, *others)
    wide = drawing(size=(96, 64))
    generated = {
        kind: drawing(color, (96, 64)) for kind, color in (("canny", "blue"), ("depth", "gray"))
    }
    for kind, result in generated.items():
        result.save(tmp_path / f"mine_{kind}.png")
    image, own_conditions, *_ = own(pocket, tmp_path, image=wide)
    for kind, result in generated.items():
        result.save(tmp_path / f"mine_{kind}.png")
    checks.own_image(image, own_conditions, generated, tmp_path, pocket)


@pytest.mark.parametrize("name", ["house.png", "squirrel.png"])
def test_a_sample_is_no_own_image(pocket, tmp_path, name):
    sample = load_image(SAMPLES / name, 64)
    for image in (
        sample,
        sample.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        Image.blend(sample, Image.new("RGB", SIZE), 0.02),
    ):
        assert_advice(
            f"That is the sample {name}", checks.own_image, *own(pocket, tmp_path, image=image)
        )


def test_own_images_that_are_wrong(pocket, tmp_path):
    right = own(pocket, tmp_path)
    edges, depth = right[1]["canny"], right[1]["depth"]
    first, second = right[2]["canny"], right[2]["depth"]
    cases = [
        ({"conditions": {}}, "still empty"),
        ({"conditions": [edges, depth]}, "a dictionary"),
        ({"conditions": {"canny": edges}}, "no 'depth', only 'canny'"),
        ({"conditions": right[1] | {"canny": edges[..., 0]}}, r"shape \(64, 64\), and not"),
        ({"conditions": right[1] | {"canny": first}}, "is a Image|is an array"),
        ({"conditions": right[1] | {"canny": edges * 2 - 1}}, "goes from -1 to 1"),
        ({"conditions": right[1] | {"canny": edges * 255}}, "goes from 0 to 255"),
        ({"conditions": right[1] | {"canny": edges * 0}}, "the same everywhere"),
        ({"conditions": right[1] | {"canny": 1 - edges}}, "white on black"),
        ({"conditions": right[1] | {"canny": depth}}, "edges are 0 or 1"),
        ({"conditions": right[1] | {"canny": edges.transpose(1, 0, 2)}}, "edges of `my_image`"),
        ({"conditions": right[1] | {"depth": 1 - depth}}, "inside out"),
        ({"conditions": right[1] | {"depth": depth[::-1]}}, "not that of `my_image`|inside out"),
        ({"conditions": right[1] | {"depth": edges}}, "not that of `my_image`"),
        ({"conditions": right[1] | {"depth": depth * np.nan}}, "not finite"),
        ({"images": {"canny": first}}, "no 'depth'"),
        ({"images": {"canny": first, "depth": first}}, "mine_depth.png holds another|are the same"),
        ({"images": {"canny": np.array(first), "depth": second}}, "generate returns an image"),
        ({"images": {"canny": right[0], "depth": second}}, "is your own image"),
        ({"images": {"canny": drawing(size=(32, 32)), "depth": second}}, "has 32 x 32 pixels"),
        ({"images": {"canny": second, "depth": first}}, "mine_canny.png holds another image"),
    ]
    for image, advice in [
        (..., "still empty"),
        (np.zeros((64, 64, 3)), "load_image returns an image"),
        (drawing(size=(60, 64)), "multiples of 8"),
    ]:
        assert_advice(advice, checks.own_image, image, *right[1:])
    for changes, advice in cases:
        assert_advice(advice, checks.own_image, *own(pocket, tmp_path, **changes))
    image, own_conditions, images, *_ = own(pocket, tmp_path)
    (tmp_path / "mine_depth.png").unlink()
    given = (image, own_conditions, images, tmp_path, pocket)
    assert_advice("no file mine_depth.png", checks.own_image, *given)
    (tmp_path / "mine_depth.png").write_text("no image")
    assert_advice("cannot be read", checks.own_image, *given)
    first.save(tmp_path / "mine_depth.png")
    images = {"canny": first, "depth": first}
    assert_advice("are the same", checks.own_image, image, own_conditions, images, *given[3:])


def scribble() -> np.ndarray:
    page = Image.new("RGB", SIZE)
    ImageDraw.Draw(page).ellipse((10, 10, 50, 40), outline="white", width=3)
    return np.array(page) / 255


def test_another_kind_and_its_mistakes(pocket, tmp_path):
    image = drawing()
    image.save(tmp_path / "mine_other.png")
    others = (image, tmp_path, pocket)
    checks.own_kind("scribble", scribble(), *others)
    checks.own_kind("scribble", conditions.scribble(drawing("blue")), *others)
    normals = np.full((64, 64, 3), 0.5)
    normals[10:30, 10:30, 2] = 1
    checks.own_kind("normals", normals, *others)
    sample = load_image(SAMPLES / "car.png", 64)
    for kind, condition, advice in [
        (..., scribble(), "still empty"),
        ("canny", scribble(), "'canny'; another kind .* normals, scribble"),
        ("depth", scribble(), "another kind than edges and depth"),
        ("pose", scribble(), "'pose'"),
        (2, scribble(), "`my_kind` is 2"),
        ("scribble", ..., "still empty"),
        ("scribble", None, "is None"),
        ("scribble", scribble()[..., 0], "shape"),
        ("scribble", scribble() * 255, "goes from 0 to 255"),
        ("scribble", scribble() * 0, "same everywhere"),
        ("scribble", 1 - scribble(), "white lines on black"),
        ("scribble", conditions.scribble(sample), "scribble of the sample car.png"),
    ]:
        assert_advice(advice, checks.own_kind, kind, condition, *others)
    assert_advice("returns an image", checks.own_kind, "scribble", scribble(), "x", *others[1:])
    (tmp_path / "mine_other.png").unlink()
    assert_advice("no file mine_other.png", checks.own_kind, "scribble", scribble(), *others)


def test_keeping_edges_and_what_is_refused(pocket, monkeypatch, capsys):
    """The judge is asked about images of the sample house; their edges are the request."""
    house = load_image(SAMPLES / "house.png", 256)
    edges = conditions.canny(house)
    shifted = [Image.fromarray(np.roll(np.array(house), by, axis=1)) for by in (9, 12)]
    close = [Image.fromarray(np.roll(np.array(house), by, axis=1)) for by in (1, 2)]
    checks.keep_edges(close, shifted, edges, "house", pocket)
    checks.keep_edges(tuple(close), shifted, edges, "house", pocket)
    assert "the judge sees a house and a house" in capsys.readouterr().out
    lines = [Image.fromarray((edges * 255).astype(np.uint8)) for _ in range(2)]
    for mine, thing, advice in [
        ([], "house", "still empty"),
        (None, "house", "is None"),
        (close[0], "house", "it is a list of images"),
        (close[:1], "house", "has 1 images; there are 2 seeds"),
        ([*close[:1], 3], "house", "generate returns an image"),
        ([image.resize((64, 64)) for image in close], "house", "has 64 x 64 pixels"),
        (shifted, "house", "is the plain one"),
        ([close[0], close[0]], "house", "are the same"),
        ([lines[0], close[0]], "house", "edge map itself"),
        (close, "pumpkin", "it has to see a pumpkin in every image"),
    ]:
        given = (checks.keep_edges, mine, shifted, edges, thing, pocket)
        assert_advice(advice, *given)
    assert_advice("no better than", checks.keep_edges, shifted, close, edges, "house", pocket)


def test_an_image_from_depth_and_what_is_refused(pocket, capsys):
    image = load_image(SAMPLES / "teapot.png", 256)
    depth = conditions.depth_to_image(estimate_depth(image, pocket))[..., 0].astype(float)
    mask = np.zeros((256, 256), bool)
    mask[90:180, 70:190] = True
    checks.from_depth(depth, mask, "teapot", image, pocket)
    checks.from_depth(depth**2, mask.astype(np.uint8), "teapot", image, pocket)
    assert "rank correlation 1.000" in capsys.readouterr().out
    for values, advice in [
        ((..., mask, "teapot", image), "`depth` is still empty"),
        ((depth, None, "teapot", image), "`mask` is None"),
        ((depth, mask, ..., image), "`thing` is still empty"),
        ((depth, mask, 3, image), "the name of an object"),
        ((depth, mask, "teapot", np.array(image)), "generate returns an image"),
        ((depth.tolist(), mask, "teapot", image), "it is an array"),
        ((depth[:64], mask, "teapot", image), r"shape \(64, 256\)"),
        ((depth, mask[..., None], "teapot", image), "`mask` has the shape"),
        ((depth * np.nan, mask, "teapot", image), "not finite"),
        ((depth * 2, mask, "teapot", image), "in \\[0, 1\\]"),
        ((depth, mask * False, "teapot", image), "covers 0%"),
        ((depth, mask | True, "teapot", image), "covers 100%"),
        ((depth * 0 + 0.5, mask, "teapot", image), "flat"),
        ((1 - depth, mask, "teapot", image), "near white"),
        ((depth[:, ::-1], mask, "teapot", image), "the bar is 0.8"),
        ((depth, mask, "pumpkin", image), "and not a pumpkin"),
    ]:
        assert_advice(advice, checks.from_depth, *values, pocket)


def test_without_the_embedded_model_there_is_no_bar(steered_folder, capsys):
    model = find_model(steered_folder)
    images = [drawing("blue"), drawing("pink")]
    plain = [drawing("red"), drawing("white")]
    checks.keep_edges(images, plain, conditions.canny(plain[0]), "pumpkin", model)
    depth, mask = np.random.default_rng(0).random((2, 64, 64))
    checks.from_depth(depth, mask > 0.5, "pumpkin", images[0], model)
    assert capsys.readouterr().out.count("✓") == 2

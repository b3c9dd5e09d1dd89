"""The checks of lesson 2 of panoramas: one's own, two compared, their distance, and a fast one."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from course import metrics
from course.checks import task_2 as checks
from course.images import to_pil
from tests.course.checks.helpers import JOINT, assert_advice, rewrite

# --- 2.1 (d): a panorama of one's own


def panorama(sd, seed=0, factor=4):
    side = sd.model.image_size
    coarse = torch.rand((1, 3, 4, 4 * factor), generator=torch.Generator().manual_seed(seed))
    return F.interpolate(2 * coarse - 1, (side, factor * side), mode="bilinear")[0]


def test_own_panorama_and_its_mistakes(joint_sd, tmp_path):
    image, other = panorama(joint_sd), panorama(joint_sd, 1)
    path, others, narrow, text = (tmp_path / name for name in ("a.png", "b.png", "c.png", "d.png"))
    to_pil(image).save(path)
    to_pil(other).save(others)
    to_pil(image[..., :64]).save(narrow)
    text.write_text("no image")
    check = lambda *request: checks.own_panorama(joint_sd, *request, "a forest")
    check("a cat", image, path)
    to_pil(image).save(tmp_path / "a.jpg", quality=95)
    check("a cat in a forest", image, str(tmp_path / "a.jpg"))
    for request, advice in [
        ((..., ..., path), "MY_PROMPT is still empty"),
        ((None, image, path), "MY_PROMPT is None"),
        ((["a cat"], image, path), "is a list; a prompt is text"),
        (("  ", image, path), "MY_PROMPT is empty"),
        (("a  forest", image, path), "is the prompt of the lesson"),
        (("a cat", ..., path), "my_panorama is still empty"),
        (("a cat", to_pil(image), path), "what `sd.sample` returns"),
        (("a cat", panorama(joint_sd, factor=3), path), r"has to be \(3, 64, 256\), in the propor"),
        (("a cat", image[None], path), r"has to be \(3, 64, 256\)"),
        (("a cat", image / 0, path), "NaN or infinite"),
        (("a cat", 0 * image, path), "one color everywhere"),
        (("a cat", image, tmp_path / "none.png"), "no file .*none.png: save"),
        (("a cat", image, text), "is not an image"),
        (("a cat", image, narrow), "has 64 x 64 pixels: save the whole"),
        (("a cat", image, others), "shows another image"),
    ]:
        assert_advice(advice, check, *request)


# --- 2.2 (f), (g): comparison and intra-distance


def test_right_comparisons_pass(joint):
    checks.comparison(joint.compare)

    def in_another_order(sd, prompt, seed, **settings):
        sync = dict(use_syncdiffusion=True, sync=sd.paper())
        synced = sd.sample(prompt, **sync, seed=seed, **settings)
        return [sd.sample(prompts=prompt, seed=seed, **settings), synced]

    checks.comparison(in_another_order)


COMPARE = [
    (("return multi, synced", "pass"), "returns None"),
    (("return multi, synced", "return synced"), "return the pair"),
    (("return multi, synced", "return synced, multi"), "are exchanged"),
    (("return multi, synced", "return multi, synced, synced"), "has 3 parts"),
    (
        (
            "multi = sd.sample(prompt, seed=seed, **settings)",
            "multi = sd.sample(prompt, **settings)",
        ),
        "The seeds differ",
    ),
    (("(prompt, seed=seed, use", "(prompt, seed=seed + 1, use"), "The seeds differ"),
    (("(prompt, seed=seed, use", "(prompt, seed, use"), "by name"),
    (("sync=sd.paper(), **settings", "sync=sd.paper()"), "other settings to both"),
    (
        (
            "multi = sd.sample(prompt, seed=seed, **settings)",
            "multi = sd.sample(prompt, seed=seed)",
        ),
        "other settings to both",
    ),
    (("sync=sd.paper()", "sync=sd.recommended()"), "setting of the paper"),
    (("sync=sd.paper(), ", ""), "setting of the paper"),
    (("use_syncdiffusion=True", "use_syncdiffusion=False"), "Exactly one"),
    (("synced = sd.sample(prompt,", "synced = sd.sample("), "the prompt of the argument"),
    (("multi = sd.sample(prompt, seed=seed, **settings)", "multi = 0"), "called 1 times"),
]


@pytest.mark.parametrize(("changes", "advice"), COMPARE)
def test_wrong_comparisons(changes, advice):
    assert_advice(advice, checks.comparison, rewrite(JOINT, "compare", *changes).compare)


def test_right_distances_pass(joint):
    checks.intra_distance(joint.intra_distance)
    checks.intra_distance(
        lambda image, distance, size: torch.tensor(
            metrics.intra_distance(image[..., :20], distance, size)
        )
    )

    def in_batches(image, distance, size):
        squares = torch.stack(image.split(size, dim=-1)[: image.shape[-1] // size])
        left, right = torch.triu_indices(len(squares), len(squares), 1)
        return float(distance(squares[left], squares[right]).mean())

    checks.intra_distance(in_batches)


DISTANCES = [
    (("return sum(values) / len(values)", "pass"), "returns None"),
    (("return sum(values) / len(values)", "return sum(values)"), "That is the sum"),
    (("/ len(values)", "/ len(squares)"), "not of squares"),
    (("return sum(values) / len(values)", "return values"), "the mean as a float"),
    (("itertools.combinations(squares, 2)", "itertools.pairwise(squares)"), "Only neighbors"),
    (
        ("itertools.combinations(squares, 2)", "[(squares[0], s) for s in squares[1:]]"),
        "first one alone",
    ),
    (("itertools.combinations(squares, 2)", "itertools.product(squares, squares)"), "with itself"),
    (("sum(values) /", "2 * sum(values) /"), "counted twice"),
    (("image[None, :, :, i", "image[:, :, i"), r"has the shape|gets the shape"),
    (("(i + 1) * size]", "i * size + 2]"), "gets the shape"),
    (("image.shape[-1] // size)", "image.shape[-1] // size + 1)"), "gets the shape"),
    (("i * size : (i + 1) * size", "2 + i * size : 2 + (i + 1) * size"), "not the mean distance"),
    (("image.shape[-1] // size)", "2)"), "not the mean distance"),
    (("image.shape[-1] // size)", "1)"), "raised ZeroDivisionError"),
]


@pytest.mark.parametrize(("changes", "advice"), DISTANCES)
def test_wrong_distances(changes, advice):
    wrong = rewrite(JOINT, "intra_distance", *changes).intra_distance
    assert_advice(advice, checks.intra_distance, wrong)


# --- Challenge 1: an acceleration


def measured(sd, seconds, level):
    """A measurement of an image whose squares differ by `level`."""
    return metrics.Measurement(panorama(sd, factor=3), seconds, level)


@pytest.fixture
def contest(joint_sd):
    """The check's arguments after the function: the paper takes very long, and gains 1."""
    points = {"MultiDiffusion": measured(joint_sd, 1.0, 3.0), "paper": measured(joint_sd, 9e9, 2.0)}
    networks = SimpleNamespace(distance=lambda a, b: torch.tensor(2.1))
    return joint_sd, points, {"num_sampling_steps": 1}, networks


def test_acceleration(contest):
    image = panorama(contest[0], seed=1, factor=3)
    fast = lambda sd, **settings: image
    checks.acceleration(fast, *contest)
    sd, points, settings, networks = contest
    slow = points | {"paper": points["paper"]._replace(seconds=1e-9)}
    small_gain = points | {"paper": points["paper"]._replace(distance=2.99)}
    checks.acceleration(fast, sd, small_gain, settings, networks)
    checks.acceleration(lambda sd, num_sampling_steps: image.clone(), *contest)
    steep = SimpleNamespace(distance=lambda a, b: torch.tensor(2.7))
    for function, arguments, advice in [
        (lambda sd, **settings: ..., contest, "still empty"),
        (lambda sd, **settings: None, contest, "returns None"),
        (lambda sd: image, contest, "raised TypeError"),
        (lambda sd, **settings: sd.nothing, contest, "raised AttributeError"),
        (lambda sd, **settings: image[..., :128], contest, "The panorama has the shape"),
        (lambda sd, **settings: points["MultiDiffusion"].image, contest, "MultiDiffusion's panora"),
        (lambda sd, **settings: 0.1 * image, contest, "a gray wall is coherent too"),
        (lambda sd, **settings: 9 * image - 4, contest, "contrast"),
        (fast, (sd, slow, settings, networks), "At most 50% of the paper's time"),
        (fast, (sd, points, settings, steep), "At least 40% of the gain"),
        (lambda sd, **settings: image / 0, contest, "not finite"),
    ]:
        assert_advice(advice, checks.acceleration, function, *arguments)

"""Prompts become labels: unknown words are named, and open attributes are sampled."""

import numpy as np
import pytest

from pocket.world import vocabulary as v
from pocket.world.prompts import parse, prompt_labels
from pocket.world.scene import build_scene


@pytest.mark.parametrize(
    "prompt,message",
    [
        ("a zebra", "cannot read 'a zebra'.*not in the language"),
        ("a red", "cannot read 'a red'.*not in the language"),
        ("a cat on mars on the moon", "ground twice: mars and moon"),
        ("at night", "lacks an object or a landscape"),
        ("a cat riding", "lacks an object or a landscape"),
        ("a cat at night in the rain of frogs", "not in the language"),
        ("a red beach", "names the color 'red'"),
        ("a cat under a clear sky", "names the weather 'clear'"),
        ("", "lacks an object or a landscape"),
    ],
)
def test_what_is_not_in_the_language_is_named(prompt: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(prompt)


@pytest.mark.parametrize(
    "prompt", ["A  Red CAT.", "the red cat", "red cat", "a red cat!", "a picture of a red cat"]
)
def test_case_articles_and_marks_do_not_matter(prompt: str) -> None:
    assert parse(prompt) == {"object": "cat", "color": "red"}


PROMPTS = (
    "a green astronaut riding a yellow striped duck",
    "two red mushrooms on grass, overhead view",
    "a foggy forest at dawn",
    "a pencil sketch of a tiny house",
    "a dog standing on a big pumpkin at night, back view",
)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_labels_of_a_prompt_show_it(prompt: str) -> None:
    named = parse(prompt)
    for seed in range(10):
        labels = prompt_labels(prompt, np.random.default_rng(seed))
        view = named.get("view")
        assert (
            view is None
            or v.view_word(float(labels["azimuth"]), float(labels["elevation"])) == view
        )
        for field, name in named.items():
            assert field == "view" or v.CLASSES[field][labels[field]] == name
        if "object" in named:
            assert labels["color"] < 0 or "color" in named
            assert (labels["object2"] >= 0) == ("object2" in named)
            assert labels["ground"] >= 0 and labels["landscape"] < 0
        assert np.isfinite(build_scene(labels, np.random.default_rng(seed))).all()


def test_what_a_prompt_leaves_open_varies() -> None:
    samples = [prompt_labels("a bear", np.random.default_rng(seed)) for seed in range(60)]
    for field in ("ground", "pose", "style", "azimuth", "elevation"):
        assert len({float(labels[field]) for labels in samples}) > 1
    assert {v.STYLES[labels["style"]] for labels in samples} == {"photo", "3d render"}

"""The groups of the evaluation that choose their own prompts, and the distances of sets."""

import argparse
from pathlib import Path

import numpy as np
import pytest
import torch

from pocket import distances, prompts_read
from pocket.quality import Evaluation
from pocket.test_set import load_first_edition, render_scenes
from pocket.world import vocabulary as v
from pocket.world.labels import triples
from pocket.world.prompts import parse

PROMPTS = ["an orange cat riding a blue car", "two red mushrooms on grass", "mountains at dawn"]


def perfect_reading(prompts: list[str]) -> dict[str, np.ndarray]:
    """What a judge reads that is never wrong; "none" where a prompt names nothing."""
    named = [parse(prompt) for prompt in prompts]
    return {field: np.array([fields.get(field, "none") for fields in named]) for field in v.CLASSES}


def test_pairs_are_in_the_language_and_of_every_relation():
    prompts = prompts_read.sample_pairs(300, seed=2)
    named = [parse(prompt) for prompt in prompts]
    assert {fields["relation"] for fields in named} == set(v.RELATIONS[1:])
    for fields in named:
        triple = fields["object"], fields["relation"], fields["object2"]
        assert triple in triples()[fields["relation"]]
        assert fields["color"] != fields["color2"]
    assert prompts == prompts_read.sample_pairs(300, seed=2) != prompts_read.sample_pairs(300, 3)


def test_what_a_prompt_names_has_to_be_read_and_nothing_else():
    attributes = perfect_reading(PROMPTS)
    right = prompts_read.correct_prompts(PROMPTS, attributes)
    assert all(values.all() for values in right.values())
    attributes["style"] = np.array(["cartoon"] * 3)  # no prompt names a style
    assert all(v.all() for v in prompts_read.correct_prompts(PROMPTS, attributes).values())


@pytest.mark.parametrize(
    ("field", "row"),
    [("object", 0), ("color2", 0), ("relation", 0), ("count", 1), ("ground", 1), ("time", 2)],
)
def test_a_wrong_reading_counts_at_its_prompt(field, row):
    attributes = perfect_reading(PROMPTS)
    attributes[field][row] = "other"
    right = prompts_read.correct_prompts(PROMPTS, attributes)
    assert right[field].tolist() == [i != row for i in range(3)]


def test_rows_of_pairs_count_images_without_an_object(monkeypatch):
    e = Evaluation(Path("none"), torch.device("cpu"), images=40)
    prompts = prompts_read.sample_pairs(10, seed=1)
    attributes = perfect_reading(prompts)
    attributes["object"][:3] = "none"
    attributes["color2"][0] = "none"
    monkeypatch.setattr(Evaluation, "generate", lambda *_: torch.zeros(10, 8, 8, 3).byte())
    monkeypatch.setattr(Evaluation, "judge", argparse.Namespace(classify=lambda images: attributes))
    values = {row.id: row.value for row in prompts_read.pair_rows(e)}
    assert values == {
        "pocket.pairs.objects": 70,
        "pocket.pairs.colors": 90,
        "pocket.pairs.relation": 100,
        "pocket.pairs.empty": 3,
    }


def test_parts_are_landscapes_and_objects_and_views_of_things_with_a_front():
    labels = load_first_edition(200, "all").labels
    masks = distances.part_masks(labels)
    assert (masks["landscapes"] ^ masks["objects"]).all() and masks["all"].all()
    views = sum(masks[view].astype(int) for view in v.VIEWS)
    assert views.max() == 1 and not views[masks["landscapes"]].any()


def test_the_distance_of_renders_is_smaller_than_that_of_other_images(monkeypatch):
    def noise(pipe, prompts, *_, **__):
        generator = torch.Generator().manual_seed(0)
        shape = len(prompts), 256, 256, 3
        return torch.randint(256, shape, generator=generator, dtype=torch.uint8)

    monkeypatch.setattr(distances, "generate", noise)
    monkeypatch.setattr(Evaluation, "pipe", None)
    e = Evaluation(Path("pocket/weights"), torch.device("cpu"), images=6)
    values = {row.id: row.value for row in distances.distance_rows(e)}
    for network in ("judge", "clip"):
        floor = values[f"pocket.distances.{network}.floor.all.kid"]
        assert values[f"pocket.distances.{network}.guidance_7_5.all.kid"] > floor


def test_vectors_do_not_depend_on_the_batch(monkeypatch):
    images = render_scenes(load_first_edition(5, "all"), torch.device("cpu"), samples=1)
    mean = lambda pixels: pixels.mean((2, 3))
    whole = distances.embed(mean, images, torch.device("cpu"))
    monkeypatch.setattr(distances, "BATCH", 2)
    assert torch.equal(distances.embed(mean, images, torch.device("cpu")), whole)
    assert torch.allclose(whole, images.float().mean((1, 2)) / 127.5 - 1)

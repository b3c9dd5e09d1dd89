"""Groups of `pocket.evaluate` that choose their own prompts: what does the judge read in them?

Pairs of any two things in two colors, the prompts that people type first, and every object and
landscape by itself, so that the worst one shows.
"""

import re
from collections.abc import Sequence

import numpy as np

from course.figures import Row
from pocket.quality import PROMPTS, Evaluation
from pocket.test_set import CaptionedScenes, correct_masks
from pocket.world import vocabulary as v
from pocket.world.labels import triples
from pocket.world.phrases import OBJECT_PHRASES, RELATION_PHRASES
from pocket.world.prompts import parse

PAIRS = 0.25  # of the number of images
FIRST_PROMPTS = (*PROMPTS, "a dog", "a castle", "two red mushrooms on grass")
SEEDS = 16  # of each of the first prompts
EACH = 0.02  # of the number of images: images of each object and landscape


def noun(name: str, color: str) -> str:
    """Return an object with a color, as in "an orange cat"."""
    return re.sub(r"\ba (?=[aeiou])", "an ", OBJECT_PHRASES[name][0].replace("*", color))


def sample_pairs(count: int, seed: int) -> list[str]:
    """Return prompts "color thing relation color thing".

    The relation is any but "none", then the pair any that the world can show, held-out ones
    included; the two colors differ.
    """
    rng = np.random.default_rng(seed)
    prompts = []
    for _ in range(count):
        relation = str(rng.choice(v.RELATIONS[1:]))
        options = triples()[relation]
        first, _, second = options[int(rng.integers(len(options)))]
        colors = [str(color) for color in rng.choice(v.COLORS, 2, replace=False)]
        words = noun(first, colors[0]), RELATION_PHRASES[relation][0], noun(second, colors[1])
        prompts.append(" ".join(words))
    return prompts


def correct_prompts(
    prompts: Sequence[str], attributes: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Return whether what each prompt names is read, bool (N,) by field; True if it names none.

    attributes: of an image of each prompt, as `Judge.classify` returns them. Views are not read.
    """
    named = [parse(prompt) for prompt in prompts]
    fields = sorted({field for fields in named for field in fields if field in attributes})
    return {
        field: np.array(
            [
                fields.get(field, read) == read
                for fields, read in zip(named, attributes[field], strict=True)
            ]
        )
        for field in fields
    }


def _percent(hits: np.ndarray) -> float:
    return round(100 * float(hits.mean()), 2)


def pair_rows(e: Evaluation, seed: int = 1) -> list[Row]:
    """Any two things in any two colors and any relation."""
    prompts = sample_pairs(e.share(PAIRS), seed)
    images = e.generate(prompts, range(len(prompts)))
    e.save("pairs", images[:24], prompts[:24], columns=8)
    attributes = e.judge.classify(images)
    right = correct_prompts(prompts, attributes)
    key, about = "pocket.pairs", "any pair in two colors"
    empty = int((attributes["object"] == "none").sum())
    both = {name: right[name] & right[f"{name}2"] for name in ("object", "color")}
    return [
        Row(f"{key}.objects", f"{about}: both objects", _percent(both["object"]), "%", bar=92),
        Row(f"{key}.colors", f"{about}: both colors", _percent(both["color"]), "%", bar=88),
        Row(f"{key}.relation", f"{about}: relation", _percent(right["relation"]), "%", bar=92),
        Row(f"{key}.empty", f"{about}: images without any object", empty, "", "<=", 0),
    ]


def first_prompt_rows(e: Evaluation) -> list[Row]:
    """The prompts that people type first: is everything right that each one names?"""
    prompts = [prompt for prompt in FIRST_PROMPTS for _ in range(SEEDS)]
    images = e.generate(prompts, list(range(SEEDS)) * len(FIRST_PROMPTS))
    right = correct_prompts(prompts, e.judge.classify(images))
    everything = np.logical_and.reduce(list(right.values()))
    rows = [
        Row(
            f"pocket.first_prompts.{k}",
            f"all right in {prompt!r}",
            _percent(everything[k * SEEDS : (k + 1) * SEEDS]),
            "%",
        )
        for k, prompt in enumerate(FIRST_PROMPTS)
    ]
    about = f"all right in {len(FIRST_PROMPTS)} first prompts, {SEEDS} seeds each"
    return [Row("pocket.first_prompts.all", about, _percent(everything), "%", bar=93), *rows]


def sample_each(e: Evaluation, field: str, count: int) -> list[CaptionedScenes]:
    """Return test scenes whose captions name each class of a field `count` times."""
    missing = dict.fromkeys(range(len(v.CLASSES[field])), count)
    parts = []
    first = e.images  # after those of the other groups
    while any(missing.values()):
        test = e.load(e.images, "all", first)
        chosen = []
        for i, label in enumerate(test.labels[field].tolist()):
            if field in test.mentions[i] and missing.get(label, 0):
                missing[label] -= 1
                chosen.append(i)
        parts.append(test.pick(chosen))
        first += e.images
    return parts


def class_rows(e: Evaluation) -> list[Row]:
    """How often is each object and each landscape read right? The worst of each has a bar."""
    rows = []
    for field in ("object", "landscape"):
        hits: dict[str, list[bool]] = {name: [] for name in v.CLASSES[field]}
        for test in sample_each(e, field, e.share(EACH)):
            images = e.generate(test.prompts, test.seeds)
            right = correct_masks(test.labels, e.judge.classify(images))[field]
            for label, is_right in zip(test.labels[field], right, strict=True):
                hits[v.CLASSES[field][label]].append(bool(is_right))
        shares = {name: _percent(np.array(values)) for name, values in hits.items()}
        worst = sorted(shares, key=shares.__getitem__)
        about = f"the worst {field} is read right ({worst[0]})"
        rows.append(Row(f"pocket.classes.{field}.worst", about, shares[worst[0]], "%", bar=95))
        for name in worst[:5]:
            key = f"pocket.classes.{field}.{name.replace(' ', '_')}"
            rows.append(Row(key, f"{name}: read right", shares[name], "%"))
    return rows

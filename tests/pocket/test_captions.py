"""The caption grammar: right about the scene, varied, and able to say the prompts people try first."""

import itertools
import re

import numpy as np
import pytest

from pocket.world import captions, vocabulary
from pocket.world.captions import caption, words

TABLES = {"color": vocabulary.COLORS, "ground": vocabulary.GROUNDS, "relation": vocabulary.RELATIONS}
TABLES |= {"object": vocabulary.OBJECTS, "object2": vocabulary.OBJECTS, "pattern": vocabulary.PATTERNS}
TABLES |= {"color2": vocabulary.COLORS, "lighting": vocabulary.LIGHTINGS, "style": vocabulary.STYLES}
TABLES |= {"landscape": vocabulary.LANDSCAPES, "time": vocabulary.TIMES, "weather": vocabulary.WEATHERS}


def labels_of(azimuth: float = 0.0, elevation: float = 20.0, **names: str) -> np.void:
    """A record from class names; what is not named is -1, or plain, with no relation."""
    record = np.zeros((), vocabulary.LABELS)
    for field in TABLES:
        record[field] = -1
    if "object" in names:
        names = {"pattern": "plain", "relation": "none", "lighting": "day", "style": "photo"} | names
    for field, name in names.items():
        record[field] = TABLES[field].index(name)
    record["azimuth"], record["elevation"] = azimuth, elevation
    return record[()]


def draws(labels: np.void, count: int, seed: int = 0) -> list[tuple[str, frozenset[str]]]:
    rng = np.random.default_rng(seed)
    return [caption(labels, rng) for _ in range(count)]


def random_labels(rng: np.random.Generator) -> np.void:
    """Any record the data format allows, sensible or not."""
    view = {"azimuth": rng.uniform(-180, 180), "elevation": rng.uniform(0, 90)}
    if rng.random() < 0.25:
        return labels_of(**{f: str(rng.choice(TABLES[f])) for f in ("landscape", "time", "weather", "style")})
    names = {f: str(rng.choice(TABLES[f])) for f in ("object", "pattern", "relation", "ground", "lighting", "style")}
    if rng.random() < 0.7:
        names["color"] = str(rng.choice(vocabulary.COLORS))
    if names["relation"] != "none":
        names |= {"object2": str(rng.choice(vocabulary.OBJECTS)), "color2": str(rng.choice(vocabulary.COLORS))}
    return labels_of(**names, **view)


ASTRONAUT = {"object": "astronaut", "relation": "riding", "object2": "horse", "ground": "mars"}
BUNNY = {"object": "bunny", "relation": "on", "object2": "pancakes", "ground": "grass"}
PROMPTS = {
    "a photo of an astronaut riding a horse on mars": ASTRONAUT,
    "a hamburger": {"object": "hamburger", "ground": "white"},
    "a squirrel reading a book": {"object": "squirrel", "relation": "reading", "object2": "book", "ground": "plain"},
    "a bunny sitting on top of a stack of pancakes": BUNNY,
}
VIEWS = {"front": (30.0, 10.0), "side": (-90.0, 10.0), "back": (170.0, 10.0), "overhead": (0.0, 70.0)}


@pytest.mark.parametrize("prompt,view", list(itertools.product(PROMPTS, [None, *VIEWS])))
def test_first_prompts_are_in_the_language(prompt: str, view: str | None) -> None:
    azimuth, elevation = VIEWS[view or "front"]
    said = {text for text, _ in draws(labels_of(azimuth, elevation, **PROMPTS[prompt]), 6000)}
    assert (f"{prompt}, {view} view" if view else prompt) in said


def test_landscape_prompts_are_in_the_language() -> None:
    night = labels_of(landscape="city skyline", time="night", weather="clear", style="photo")
    assert "a city skyline at night" in {text for text, _ in draws(night, 500)}
    dawn = labels_of(landscape="forest", time="dawn", weather="foggy", style="photo")
    assert "a foggy forest at dawn" in {text for text, _ in draws(dawn, 500)}


def test_published_words_are_exactly_the_words_said() -> None:
    rng = np.random.default_rng(1)
    said = {
        word for _ in range(12000) for word in re.findall(r"[a-z0-9]+", caption(random_labels(rng), rng)[0].lower())
    }
    assert sorted(said) == words()


def test_every_class_has_its_phrases() -> None:
    assert set(captions.OBJECT_PHRASES) == set(vocabulary.OBJECTS)
    assert set(captions.GROUND_PHRASES) == set(vocabulary.GROUNDS)
    assert set(captions.LANDSCAPE_PHRASES) == set(vocabulary.LANDSCAPES)
    assert set(captions.PATTERN_ADJECTIVES) == set(captions.PATTERN_SUFFIXES) == set(vocabulary.PATTERNS) - {"plain"}
    assert set(captions.TIME_PHRASES) == set(vocabulary.TIMES) | set(vocabulary.LIGHTINGS)


def test_no_two_objects_share_a_phrase() -> None:
    for table in (captions.OBJECT_PHRASES, captions.GROUND_PHRASES, captions.LANDSCAPE_PHRASES, captions.COLOR_WORDS):
        phrases = [phrase for options in table.values() for phrase in options]
        assert len(phrases) == len(set(phrases))


def test_mentions_are_what_the_text_names() -> None:
    cat = labels_of(
        90.0, object="cat", color="red", pattern="striped", relation="on", object2="pancakes", color2="blue",
        ground="grass", lighting="sunset",
    )  # fmt: skip
    for text, mentions in draws(cat, 400):
        low = text.lower()
        assert {"object", "relation", "object2"} <= mentions
        assert ("red" in low.split()) == ("color" in mentions)
        assert ("blue" in low.split()) == ("color2" in mentions)
        assert ("stripe" in low) == ("pattern" in mentions)
        assert bool(re.search("grass|lawn", low)) == ("ground" in mentions)
        assert ("sun" in low) == ("lighting" in mentions)
        assert ("side" in low) == ("view" in mentions)
        assert ("photo" in low) == ("style" in mentions)
        assert mentions <= set(vocabulary.LABELS.names) | {"view"}


def test_how_often_parts_are_left_out() -> None:
    cat = labels_of(object="cat", color="red", ground="mars", lighting="night", style="cartoon")
    count = 4000
    rate = {field: sum(field in m for _, m in draws(cat, count)) / count for field in (*TABLES, "view")}
    for field, chance in {"color": 0.97, "lighting": 0.97, "style": 0.97, "ground": 0.75, "view": 0.4}.items():
        assert rate[field] == pytest.approx(chance, abs=0.03), field
    day = labels_of(object="cat", ground="mars")
    assert sum("lighting" in m for _, m in draws(day, count)) / count < 0.2
    assert not any({"color", "pattern", "relation"} & m for _, m in draws(day, 500))


def test_view_words_follow_the_convention() -> None:
    for (azimuth, elevation), word in {(-40, 5): "front", (90, 5): "side", (-140, 5): "back", (3, 65): "above"}.items():
        named = [text for text, m in draws(labels_of(azimuth, elevation, object="horse"), 300) if "view" in m]
        assert len(named) > 60
        wanted = {"back": "back|behind", "above": "above|overhead"}.get(word, word)
        assert all(re.search(wanted, text.lower()) for text in named)
    # A mushroom looks the same all around: no mention to be judged by.
    assert not any("view" in m for _, m in draws(labels_of(100, 5, object="mushroom"), 300))
    assert any("view" in m for _, m in draws(labels_of(100, 70, object="mushroom"), 300))


def test_articles_and_spacing() -> None:
    rng = np.random.default_rng(2)
    for _ in range(5000):
        text, _ = caption(random_labels(rng), rng)
        assert not re.search(r"\b[Aa] [aeiou]|\b[Aa]n [^aeiou]|  |\*| ,|^ | $", text), text


def test_animals_sit_and_things_do_not() -> None:
    cake = [text for text, _ in draws(labels_of(object="cake", relation="on", object2="chair"), 300)]
    assert not any(re.search("sitting|standing", text) for text in cake)
    cat = [text for text, _ in draws(labels_of(object="cat", relation="on", object2="chair"), 300)]
    assert any("sitting on" in text for text in cat)


def test_captions_repeat_with_their_seed_and_vary_without() -> None:
    cat = labels_of(object="cat", color="red", ground="grass", lighting="sunset")
    assert draws(cat, 50, seed=5) == draws(cat, 50, seed=5)
    assert len(set(draws(cat, 200, seed=5))) > 50


def test_an_empty_scene_is_refused() -> None:
    with pytest.raises(ValueError, match="object or a landscape"):
        caption(labels_of(), np.random.default_rng(0))

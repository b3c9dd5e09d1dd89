"""The stored test captions of the world's first edition, and who is tests them."""

import json
from pathlib import Path

import numpy as np
import pytest

from pocket.test_set import FIRST, load_first_edition, load_test_set, sample_test_set
from pocket.world import vocabulary as v
from pocket.world.labels import is_heldout
from pocket.world.phrases import words
from pocket.world.prompts import parse

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.parametrize("split", ["all", "heldout"])
def test_the_stored_scenes_still_build(split):
    tests = load_first_edition(2000, split)
    assert len(tests) == len(set(tests.scenes.labels["seed"].tolist())) == 2000
    assert np.isfinite(tests.scenes.params).all()
    assert tests.scenes.labels["heldout"].tolist() == [
        is_heldout(record) for record in tests.scenes.labels
    ]
    if split == "heldout":
        assert tests.scenes.labels["heldout"].all()


def test_the_stored_captions_are_in_the_words_of_the_shipped_model_that_they_were_made_for():
    tests = load_first_edition(2000, "all")
    assert tests.prompts[:2] == ["a duck next to a chair", "snowy hills at sundown"]
    assert tests.mentions[:2] == [
        frozenset({"object", "object2", "relation"}),
        frozenset({"landscape", "time"}),
    ]
    spoken = {
        word
        for prompt in tests.prompts
        for word in prompt.lower().replace(",", " ").replace(".", " ").split()
    }
    assert 165 <= len(spoken) <= 171
    assert spoken <= set(words())  # and still in the language
    assert FIRST.stat().st_size < 200_000


@pytest.mark.parametrize("split", ["all", "heldout"])
def test_old_captions_keep_their_meaning(split):
    """Today's grammar reads each of them as the labels that it was spoken to name."""
    tests = load_first_edition(2000, split)
    for record, prompt, mentions in zip(
        tests.scenes.labels, tests.prompts, tests.mentions, strict=True
    ):
        view = v.view_word(float(record["azimuth"]), float(record["elevation"]))
        wanted = {f: view if f == "view" else v.CLASSES[f][record[f]] for f in mentions}
        parsed = parse(prompt)
        parsed.pop("pose", None)  # was spoken of either pose
        if "view" not in mentions:
            parsed.pop("view", None)
        assert parsed == wanted, prompt


def test_another_seed_gives_other_images_of_the_same_captions():
    one, again, other = (
        load_first_edition(20, "all"),
        load_first_edition(20, "all"),
        load_first_edition(20, "all", seed=1),
    )
    assert np.array_equal(one.scenes.params, again.scenes.params)
    assert (one.scenes.params != other.scenes.params).any(axis=1).all()
    assert one.prompts == other.prompts and np.array_equal(one.scenes.labels, other.scenes.labels)
    later = load_first_edition(5, "all", first=15)
    assert later.prompts == one.prompts[15:]
    assert np.array_equal(later.scenes.params, one.scenes.params[15:])


@pytest.mark.parametrize(
    "request_",
    [(2001, "all", 0), (0, "all", 0), (10, "all", 1995), (1, "train", 0), (1, "all", -1)],
)
def test_requests_beyond_the_set_are_refused(request_):
    with pytest.raises(ValueError, match="has 2000 scenes|split must be one of all, heldout"):
        load_first_edition(*request_)


def test_weights_are_asked_in_words_that_they_know(tmp_path):
    (tmp_path / "vocabulary.json").write_text(json.dumps({"words": words()}))
    fresh, wanted = load_test_set(tmp_path, 4, "all"), sample_test_set(4, "all")
    assert fresh.prompts == wanted.prompts and fresh.scenes.labels["seed"].min() >= 2**40
    (tmp_path / "vocabulary.json").write_text(json.dumps({"words": words()[1:]}))
    assert (
        load_test_set(tmp_path, 4, "heldout", 3).prompts
        == load_first_edition(4, "heldout", 3).prompts
    )
    shipped = set(
        json.loads((ROOT / "pocket" / "weights" / "vocabulary.json").read_text())["words"]
    )
    tests = load_test_set(ROOT / "pocket" / "weights", 50, "all")
    spoken = {
        word
        for prompt in tests.prompts
        for word in prompt.lower().replace(",", " ").replace(".", " ").split()
    }
    assert spoken <= shipped

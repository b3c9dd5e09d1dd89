"""The tokenizer: words of the grammar, any other text, the same ids after saving."""

from pathlib import Path

import numpy as np
import pytest
from transformers import CLIPTokenizer

from pocket.train.tokenizer import LENGTH, encode, load, train_tokenizer
from pocket.world import phrases as c
from pocket.world.phrases import words

LONGEST = (
    "A 3d model of a giant turquoise rubber duck with a checkered pattern standing on top of a "
    "pile of giant turquoise pancakes with a checkered pattern on the surface of the moon "
    "during the night, seen from the front."
)


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    return train_tokenizer([f"{word}, {word}." for word in words()])


def test_grammar_words_are_one_token(tokenizer: CLIPTokenizer) -> None:
    split = {
        word: tokenizer.tokenize(word) for word in words() if len(tokenizer.tokenize(word)) > 1
    }
    assert split == {"3d": ["3</w>", "d</w>"]}  # CLIP splits digits off
    assert len(tokenizer) <= 2048


def test_any_text_comes_back(tokenizer: CLIPTokenizer) -> None:
    text = "a quokka's naïve 火星 selfie, 100% zażółć 🐿️!"
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id and ids[-1] == tokenizer.eos_token_id
    assert tokenizer.eos_token_id not in ids[1:-1]
    assert tokenizer.decode(ids, skip_special_tokens=True).replace(" ", "") == text.replace(" ", "")


def test_case_and_spaces_do_not_matter(tokenizer: CLIPTokenizer) -> None:
    assert tokenizer("A  Red CAT")["input_ids"] == tokenizer("a red cat")["input_ids"]


def test_survives_saving(tokenizer: CLIPTokenizer, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    loaded = CLIPTokenizer.from_pretrained(tmp_path)
    for text in (LONGEST, "A hamburger, side view", "zażółć 🐿️", ""):
        assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert loaded.model_max_length == LENGTH and loaded.pad_token == "<|endoftext|>"


def test_a_model_with_another_tokenizer_is_refused(
    tokenizer: CLIPTokenizer, tmp_path: Path
) -> None:
    tokenizer.save_pretrained(tmp_path / "own")
    train_tokenizer(["another world", "another world"]).save_pretrained(tmp_path / "other")
    assert load(tmp_path / "own", tmp_path / "own").get_vocab() == tokenizer.get_vocab()
    with pytest.raises(ValueError, match="another tokenizer"):
        load(tmp_path / "own", tmp_path / "other")


def test_bulk_encoding_is_the_pipelines(tokenizer: CLIPTokenizer) -> None:
    texts = ["a cat", LONGEST, "mug " * 60, ""]
    wanted = tokenizer(
        texts, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="np"
    )
    ids = encode(tokenizer, texts)
    assert ids.dtype == np.int16 and ids.shape == (4, LENGTH)
    assert np.array_equal(ids, wanted["input_ids"])
    assert (ids[1] == tokenizer.eos_token_id).sum() >= 1 and ids[1][-1] == tokenizer.eos_token_id
    assert encode(tokenizer, []).shape == (0, LENGTH)


def test_texts_are_cut_to_the_length_of_their_tokenizer() -> None:
    """The shipped weights read fewer tokens than those that are trained now."""
    shipped = load(Path("pocket/weights/clip"))
    ids = encode(shipped, ["a cat", LONGEST])
    assert ids.shape == (2, shipped.model_max_length)
    wanted = shipped(
        ["a cat", LONGEST], padding="max_length", truncation=True, return_tensors="np"
    )["input_ids"]
    assert np.array_equal(ids, wanted)


def test_the_longest_caption_fits(tokenizer: CLIPTokenizer) -> None:
    """LONGEST has the longest phrase of the grammar at every place."""

    def longest(*tables: c.Table) -> int:
        phrases = [phrase for table in tables for options in table.values() for phrase in options]
        return max(len(tokenizer.tokenize(phrase.replace("*", ""))) for phrase in phrases)

    noun, suffix = longest(c.OBJECT_PHRASES), longest(c.PATTERN_SUFFIXES)
    adjectives = longest(c.SIZE_ADJECTIVES) + longest(c.COLOR_WORDS)
    upon = longest(c.POSE_VERBS, c.FINITE) + max(
        len(phrase.split()) for phrase in c.ON_PREPOSITIONS
    )
    relation = max(upon, longest(c.RELATION_PHRASES, c.REVERSED_PHRASES))
    around = longest(c.GROUND_PHRASES) + longest(c.TIME_PHRASES)
    view = 1 + longest(c.VIEW_SUFFIXES)  # and a comma
    things = 2 * (noun + adjectives + suffix)
    most = (
        2 + longest(c.STYLE_PREFIXES) + things + relation + around + view + 1
    )  # start, end and a full stop
    assert len(tokenizer(LONGEST)["input_ids"]) <= most <= LENGTH

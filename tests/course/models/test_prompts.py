"""Prompts as a model reads them: one form for what looks the same, and a warning of what it does
not know."""

import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from course.models import Model, PromptWarning, RequestError, find_model
from course.models.prompts import cut_prompt, normalize_prompt, unknown_words

SPECIAL = ("<|startoftext|>", "<|endoftext|>")


@pytest.fixture(scope="module")
def model(tiny_folder) -> Model:
    return find_model(tiny_folder)


def check_silently(model: Model, prompt: str) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return model.check_prompt(prompt)


def check(model: Model, prompt: str) -> tuple[str, list[str]]:
    """Return the prompt as the model reads it, and the warnings."""
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        kept = model.check_prompt(prompt)
    assert {(warning.category, warning.filename) for warning in record} <= {
        (PromptWarning, __file__)
    }
    return kept, [str(warning.message) for warning in record]


@pytest.mark.parametrize(
    "prompt",
    [
        "a red\u00a0duck",
        "a\u2003red\u3000duck",
        "  a red\r\n\tduck ",
        "a red\u200b duck",
        "\ufeffa red duck",
        "a r\u00aded duck",
        "a\u200e red\u202c \u2066duck\u2069",
        "a red\u200d \u200dduck\u2060",
        "a\u2028red\u0085duck",
    ],
    ids=ascii,
)
def test_spaces_and_what_is_invisible(model, prompt):
    assert check_silently(model, prompt) == "a red duck"


@pytest.mark.parametrize(
    ("prompt", "normalized"),
    [
        ("a “red” duck", 'a "red" duck'),
        ("a „red‟ duck", 'a "red" duck'),
        ("the ‘red’ duck", "the 'red' duck"),
        ("the duck’s hat", "the duck's hat"),
        ("the duckʼs ‚hat‛", "the duck's 'hat'"),
        ("a cafe\u0301", "a caf\u00e9"),
        ("a u\u0308ber\u030angstrom", "a \u00fcbe\u0072\u030angstrom"),
        ("\u1100\u1161", "\uac00"),
        ("\ud83d\ude42 duck", "\U0001f642 duck"),  # a pair of surrogates, as some JSON holds it
        ("❤\ufe0f\u200d🔥", "❤\ufe0f\u200d🔥"),  # one emoji: its joiner stays
        ("", ""),
    ],
    ids=ascii,
)
def test_one_form_for_what_looks_the_same(prompt, normalized):
    assert normalize_prompt(prompt, SPECIAL) == normalized


def test_accents_are_read_alike_in_both_forms(model):
    composed, decomposed = check(model, "a caf\u00e9"), check(model, "a cafe\u0301")
    assert composed == decomposed and "never seen: caf\u00e9. " in composed[1][0]


@pytest.mark.parametrize(
    "prompt",
    [
        "a duck <|endoftext|> on the moon",
        "<|endoftext|><|endoftext|>",
        "a<|startoftext|>duck",
        "a <|ENDOFTEXT|> duck",
        "a <|end\u200boftext|> duck",
        "a <<|endoftext|>|endoftext|> duck",
        "<|startoftext|><|endoftext|>",
    ],
)
def test_special_tokens_are_plain_text(model, prompt):
    kept, _ = check(model, prompt)
    tokenizer = model.tokenizer
    inner = tokenizer(kept).input_ids[1:-1]
    assert inner and not set(inner) & set(tokenizer.all_special_ids)
    plain = normalize_prompt(prompt).lower()
    assert tokenizer.decode(inner).replace(" ", "") == plain.replace(" ", "")


def test_special_tokens_of_one_character_are_left_alone():
    """Stable Diffusion 2 pads with "!", which is also a word of its vocabulary."""
    assert normalize_prompt("wow!!", (*SPECIAL, "!")) == "wow!!"


@pytest.mark.parametrize(
    "prompt", ["a \ud800duck", "a duck\udfff", "\udcff\udcfea duck", "a \udce9 duck", "\ud800" * 99]
)
def test_bytes_that_are_no_text_are_left_out_with_a_warning(model, prompt):
    kept, [warning] = check(model, prompt)
    assert kept == ("a duck" if "duck" in prompt else "")
    assert (
        "bytes that are not UTF-8 ('\\ud" in warning and "UTF-8" in warning and len(warning) < 200
    )


@pytest.mark.parametrize(
    ("prompt", "unknown"),
    [
        ("a duck 🙂", "🙂"),
        ("a duck🙂🙂 and 🚀", "🙂🙂, and, 🚀"),
        ("a red & a duck", "&"),
        ("a duck @ night #moon", "@, #"),
        ("a (duck:1.5)", "1, 5"),
        ("duck_on_grass", "_"),
        ("a duck — red…", "—, …"),
        ("a 鸭 on grass", "鸭"),
        ("a duck \x1b[31m", r"'\x1b[', 31m"),
        ("a duck \x00", r"'\x00'"),
        ("a x\u0302 duck", "x\u0302"),
        ("a Zebra, a ZEBRA", "zebra"),
    ],
    ids=ascii,
)
def test_every_part_that_the_model_does_not_know_is_named(model, prompt, unknown):
    kept, [warning] = check(model, prompt)
    assert kept == prompt
    assert f"has never seen: {unknown}. It will guess. Its 30 words are in " in warning


@pytest.mark.parametrize(
    "prompt",
    [
        "A red car, on Mars!",
        "a duck; a car: a tree?",
        "(a red duck)",
        '"a red-red duck"',
        "a red 'duck'.",
    ],
)
def test_the_punctuation_of_sentences_is_known(model, prompt):
    assert check_silently(model, prompt) == prompt


@pytest.mark.parametrize(
    "prompt",
    [None, 7, b"a duck", ["a duck"], 3.5, object(), b"x" * 10_000],
    ids=type,
)
def test_what_is_no_text_is_refused(model, prompt):
    with pytest.raises(RequestError, match=r"^A prompt must be text, got .{1,60}\.$"):
        model.check_prompt(prompt)


def test_pairs_of_what_is_no_text_are_refused(model):
    for prompts in (None, b"a duck", [b"a duck"], 7, ["a duck", None], b"x" * 10_000):
        with pytest.raises(RequestError, match=r"^A prompt must be text, got .{1,60}\.$"):
            model.pair_prompts(prompts)


@pytest.mark.parametrize(
    "prompt",
    ["x" * 100_000, "duck " * 20_000, "🙂" * 100_000, "a, " * 50_000, "<|endoftext|>" * 10_000],
    ids=["letters", "words", "emoji", "commas", "special tokens"],
)
def test_a_very_long_prompt_is_shortened_in_its_warning(model, prompt):
    kept, messages = check(model, prompt)
    assert len(model.tokenizer(kept).input_ids) <= model.text_length
    assert kept
    assert all(len(message) < 700 for message in messages)
    assert messages[0].startswith("The prompt is too long") and messages[0].endswith('..."')


def test_many_spaces_are_one(model):
    assert check_silently(model, "a" + " " * 100_000 + "duck") == "a duck"


def test_a_long_prompt_is_read_no_further_than_needed(model):
    """A tokenizer's time grows with the square of a word's length."""
    lengths = []

    def tokenizer(text, verbose):
        lengths.append(len(text))
        return model.tokenizer(text, verbose=verbose)

    assert cut_prompt("x" * 100_000, tokenizer, 77) == "x" * 75
    assert max(lengths) < 1000
    assert cut_prompt("duck " * 20_000, tokenizer, 77) == "duck " * 17 + "duck"


@pytest.mark.parametrize(
    ("prompt", "kept"),
    [
        ("x" * 75, "x" * 75),  # 77 tokens with start and end
        ("x" * 76, "x" * 75),
        ("x" * 75 + " duck", "x" * 75),
        ("x" * 76 + " duck", "x" * 75),
        ("x" * 71 + " duck", "x" * 71 + " duck"),
        ("x" * 72 + " duck", "x" * 72),
    ],
)
def test_a_prompt_is_cut_only_where_it_must_be(model, prompt, kept):
    """A word that just fits stays whole; each letter is a token here."""
    assert cut_prompt(prompt, model.tokenizer, 77) == kept


@given(
    st.text(
        alphabet=st.one_of(st.characters(), st.sampled_from("\ud800\udfff\u200b\u200d “’<|>")),
        max_size=40,
    )
)
def test_normalizing_twice_changes_nothing(prompt):
    once = normalize_prompt(prompt, SPECIAL)
    assert normalize_prompt(once, SPECIAL) == once
    assert once.encode("utf-8").decode("utf-8") == once == once.strip()


def test_unknown_words_keep_their_order():
    assert unknown_words("b a 🙂 b c", frozenset("a")) == ["b", "🙂", "c"]

"""Prompts as a model reads them: normalized, cut to what the text encoder reads, and which parts
it does not know."""

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable
from typing import Any

from course.errors import CourseWarning

SURROGATE = re.compile("[\ud800-\udfff]")
# Straight quotes for the curly ones, as in CLIP's own preprocessing (ftfy).
QUOTES = str.maketrans("\u02bc\u2018\u2019\u201a\u201b“”„‟", "'" * 5 + '"' * 4)
# A zero-width joiner means something between two symbols alone: it makes one emoji of them.
STRAY_JOINER = re.compile("(?<![^\\w\\s])\u200d|\u200d(?![^\\w\\s])")
JOINER = "\u200d"
# A word with its accents, or a run of symbols. The punctuation of sentences is neither.
PART = re.compile(r"(?:[^\W_]|[\u0300-\u036f])+(?:['’][^\W_]+)*|(?:[^\w\s.,;:!?'\"’()-]|_)+")


class PromptWarning(CourseWarning):
    """The model will not read a prompt as it stands."""


def normalize_prompt(prompt: str, special_tokens: Iterable[str] = ()) -> str:
    """Return a prompt in the one form that looks the same: composed characters (NFC), straight
    quotes, single spaces, and nothing invisible.

    A tokenizer would take `special_tokens`, such as "<|endoftext|>", for the end of the prompt:
    a space after their first character makes them plain text. Lone surrogates, which are no
    characters, are removed.
    """
    text = SURROGATE.sub("", _join_surrogates(prompt))
    text = "".join(c for c in text if c == JOINER or unicodedata.category(c) != "Cf")
    text = unicodedata.normalize("NFC", STRAY_JOINER.sub("", text)).translate(QUOTES)
    text = " ".join(text.split())
    for token in special_tokens:
        if len(token) > 1:
            text = re.sub(re.escape(token), f"{token[0]} {token[1:]}", text, flags=re.IGNORECASE)
    return text


def invalid_characters(prompt: str) -> list[str]:
    """Return the lone surrogates of a prompt, each once: what is left of bytes that are not
    UTF-8."""
    return list(dict.fromkeys(SURROGATE.findall(_join_surrogates(prompt))))


def _join_surrogates(text: str) -> str:
    """Make one character of each pair of surrogates; a lone one stays."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def cut_prompt(prompt: str, tokenizer: Any, text_length: int) -> str:
    """Return the longest beginning of `prompt`, in whole words, that fits into `text_length`
    tokens with start and end. A single word that is too long by itself is cut inside."""

    def tokens(end: int) -> int:
        # `verbose` would warn of the length.
        return len(tokenizer(prompt[:end], verbose=False).input_ids)

    # Tokenizers are slow on very long words, so only the beginning is read: until twice too many
    # tokens.
    limit = 4 * text_length
    while limit < len(prompt) and tokens(limit) <= 2 * text_length:
        limit *= 2
    if limit >= len(prompt) and tokens(len(prompt)) <= text_length:
        return prompt
    ends: list[int] | range = [word.end() for word in re.finditer(r"\S+", prompt[:limit])]
    if tokens(ends[0]) > text_length:
        ends = range(ends[0])
    return prompt[: ends[bisect_right(ends, text_length, key=tokens) - 1]]


def unknown_words(prompt: str, vocabulary: frozenset[str]) -> list[str]:
    """Return the parts of `prompt` that are not in `vocabulary` (lower case), each once, in
    order: words, and symbols such as emoji. The punctuation of sentences counts as known."""
    parts = dict.fromkeys(PART.findall(prompt.lower()))
    return [part for part in parts if part not in vocabulary]

"""Reads a prompt of the caption grammar back into labels: the inverse of `captions.py`.

So images of a prompt can be compared with renders of it, and the judge's readings with the prompt.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np

from pocket.world import phrases as p
from pocket.world import vocabulary as v
from pocket.world.labels import labels_from

# Phrases without adjectives, by the label that they name. Some name one thing of an object and
# another of a landscape ("in the snow", "at night"): there the kind of the scene decides.
FIXED: dict[str, tuple[p.Table, ...]] = {
    "relation": (p.RELATION_PHRASES, {name: p.FINITE.get(name, ()) for name in p.RELATION_PHRASES}),
    "reversed": (p.REVERSED_PHRASES,),
    "pose": (p.POSE_VERBS, {name: p.FINITE[name] for name in v.POSES}),
    "ground": (p.GROUND_PHRASES,),
    "lighting": (p.TIME_PHRASES,),
    "time": (p.TIME_PHRASES,),
    "weather": (p.WEATHER_SUFFIXES,),
    "style": (p.STYLE_PREFIXES, p.STYLE_SUFFIXES),
    "view": (p.VIEW_SUFFIXES, {view: (phrase,) for view, phrase in p.VIEW_PREFIXES.items()}),
    "pattern": (p.PATTERN_SUFFIXES,),
}
NEUTRAL = (*p.NEUTRAL_PREFIXES, *p.LANDSCAPE_PREFIXES)
ADJECTIVES: dict[str, p.Table] = {
    "color": p.COLOR_WORDS,
    "pattern": p.PATTERN_ADJECTIVES,
    "size": p.SIZE_ADJECTIVES,
    "weather": p.WEATHER_ADJECTIVES,
}
ONLY_LANDSCAPES = ("landscape", "time", "weather")
OF_LANDSCAPES = (*ONLY_LANDSCAPES, "style")
OF_THINGS = ("object", "color", "pattern", "size")  # the second object's end in "2"
LONGEST = 10  # words of a phrase, adjectives included
Words = tuple[str, ...]
Names = tuple[tuple[str, str], ...]  # pairs of a field and a class


@dataclass(frozen=True)
class Noun:
    """A noun phrase: the words before its adjectives, those after, and what it names."""

    before: Words
    after: Words
    names: Names


def parse(prompt: str) -> dict[str, str]:
    """Return what a prompt names: classes by the fields of `vocabulary.LABELS`, and "view".

    Raises ValueError if the prompt says something that is not in the language of `captions.py`.

    Example:
        >>> parse("two red mushrooms on grass")
        {'count': 'two', 'object': 'mushroom', 'color': 'red', 'ground': 'grass'}
    """
    phrases = _split(prompt)
    fields = {field for meanings in phrases for names in meanings for field, _ in names}
    is_landscape = "landscape" in fields
    named: dict[str, str] = {}
    which = ""
    reverse = False
    for meanings in phrases:
        for field, name in _meaning(meanings, is_landscape):
            if field in ("relation", "reversed"):
                which = "2"
                reverse = field == "reversed"
                field = "relation"
            elif field in OF_THINGS:
                field += which
            if field in named:
                raise ValueError(f"{prompt!r} names its {field} twice: {named[field]} and {name}")
            named[field] = name
    if reverse:
        named = {_other(field): name for field, name in named.items()}
    complete = "object" in named and ("relation" in named) == ("object2" in named)
    if not complete and "landscape" not in named:
        raise ValueError(f"{prompt!r} lacks an object or a landscape to show")
    for field, name in named.items():
        if not _fits(field, is_landscape) or name not in v.CLASSES.get(field, v.VIEWS):
            raise ValueError(
                f"{prompt!r} names the {field} {name!r}, which such a scene does not have"
            )
    return named


def _split(prompt: str) -> list[list[Names]]:
    """Return the meanings of each phrase of a prompt, from left to right the longest that fits."""
    words = _words(prompt)
    position = 0
    phrases: list[list[Names]] = []
    while position < len(words):
        matches = list(_matches(words, position))
        length = max((length for length, _ in matches), default=0)
        if not length:
            rest = " ".join(words[position:])
            raise ValueError(
                f"cannot read {rest!r} in {prompt!r}: "
                "it is not in the language of the world's captions"
            )
        phrases.append([names for n, names in matches if n == length])
        position += length
    return phrases


def _fits(field: str, is_landscape: bool) -> bool:
    """Return whether a kind of scene has a label."""
    return field in OF_LANDSCAPES if is_landscape else field not in ONLY_LANDSCAPES


def _meaning(meanings: list[Names], is_landscape: bool) -> Names:
    """Return the first of several meanings that fits the kind of scene."""
    for names in meanings:
        if all(_fits(field, is_landscape) for field, _ in names):
            return names
    return meanings[0]


def prompt_labels(prompt: str, rng: np.random.Generator) -> np.ndarray:
    """Return the labels of a scene that shows a prompt, 0-d of `vocabulary.LABELS`.

    What the prompt leaves open is random. Raises ValueError as `parse` does.

    Example:
        >>> params = build_scene(prompt_labels("a squirrel riding a cactus", rng), rng)
    """
    return labels_from(parse(prompt), rng)


def _words(text: str) -> Words:
    """Return the words of a text in lower case, with "a" for every article."""
    return tuple(
        "a" if word in ("an", "the") else word for word in re.findall(r"[a-z0-9]+", text.lower())
    )


def _other(field: str) -> str:
    """Return the field of the second object for one of the first, and the reverse."""
    if field.removesuffix("2") not in OF_THINGS:
        return field
    return field.removesuffix("2") if field.endswith("2") else field + "2"


@cache
def _fixed() -> dict[Words, tuple[Names, ...]]:
    """Return what each phrase that is no noun names, several meanings in the order of FIXED."""
    meanings: dict[Words, tuple[Names, ...]] = {_words(phrase): ((),) for phrase in NEUTRAL}
    for field, tables in FIXED.items():
        for table in tables:
            for name, phrases in table.items():
                for phrase in phrases:
                    words = _words(phrase)
                    meanings[words] = (*meanings.get(words, ()), ((field, name),))
    for preposition in p.ON_PREPOSITIONS:
        meanings[_words(preposition)] = ((("relation", "on"),),)
    return meanings


@cache
def _adjectives() -> dict[Words, tuple[str, str]]:
    return {
        _words(phrase): (field, name)
        for field, table in ADJECTIVES.items()
        for name, phrases in table.items()
        for phrase in phrases
    }


@cache
def _nouns_by_word() -> dict[str, list[Noun]]:
    """Return all noun phrases by the first word after their adjectives, so that few are tried.

    An article may be left out.
    """

    def forms(phrase: str, heads: Iterable[tuple[str, Names]], names: Names) -> Iterator[Noun]:
        before, after = (_words(part) for part in phrase.split("*"))
        for head, more in heads:
            yield Noun((*_words(head), *before), after, (*more, *names))

    articles: list[tuple[str, Names]] = [("", ()), ("a", ())]
    ones: list[tuple[str, Names]] = [(word, (("count", "one"),)) for word in p.ONE_WORDS]
    numbers: list[tuple[str, Names]] = [
        (word, (("count", count),)) for count, options in p.COUNT_WORDS.items() for word in options
    ]
    nouns: list[Noun] = []
    for field, table in (("object", p.OBJECT_PHRASES), ("landscape", p.LANDSCAPE_PHRASES)):
        for name, phrases in table.items():
            for phrase in phrases:
                heads = [*articles, *ones] if field == "object" else articles
                bare = re.sub("^(a|the) ", "", phrase)
                nouns += forms(bare, heads if bare != phrase else articles[:1], ((field, name),))
    for name, phrases in p.PLURAL_PHRASES.items():
        for phrase in phrases:
            nouns += forms(phrase, numbers, (("object", name),))
    by_word: dict[str, list[Noun]] = {}
    for noun in nouns:
        by_word.setdefault(noun.after[0], []).append(noun)
    return by_word


def _matches(words: Words, position: int) -> Iterator[tuple[int, Names]]:
    """Yield all phrases that start at a position: number of words, and what they name."""
    for length in range(1, min(LONGEST, len(words) - position) + 1):
        for names in _fixed().get(words[position : position + length], ()):
            yield length, names
    for end in range(position, min(position + LONGEST, len(words))):
        for noun in _nouns_by_word().get(words[end], ()):
            start = position + len(noun.before)
            stop = end + len(noun.after)
            if words[position:start] != noun.before or words[end:stop] != noun.after:
                continue
            adjectives = _read_adjectives(words[start:end])
            if adjectives is not None:
                yield stop - position, (*noun.names, *adjectives)


def _read_adjectives(words: Words) -> Names | None:
    """Return what a row of adjectives names; None if it is not one."""
    names: Names = ()
    while words:
        length = next((n for n in range(len(words), 0, -1) if words[:n] in _adjectives()), 0)
        if not length:
            return None
        names = (*names, _adjectives()[words[:length]])
        words = words[length:]
    return names

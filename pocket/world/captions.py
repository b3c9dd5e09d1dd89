"""Captions of scenes: a small grammar with synonyms and omissions, from the tables of `phrases.py`.

`caption` turns a record of labels into a sentence and returns which labels the sentence names, so
that an image is only ever judged by what its caption asked for. `prompts.py` reads such sentences.
"""

import re

import numpy as np

from pocket.world import phrases as p
from pocket.world import vocabulary as v

# How often a part is said. What is nearly always said, its absence has a meaning: a cat with no
# color is a natural cat, an image with no time of day an image by day, and "a cat" is one cat.
SAY_MARKED = 0.97  # colors, patterns, sizes, sunset and night, sketch and cartoon
SAY_ONE = 0.04
SAY_GROUND = 0.75
SAY_DAY = 0.12
SAY_WEATHER = {"clear": 0.15, "cloudy": 0.95}  # the others SAY_MARKED
SAY_STYLE = {"photo": 0.3, "3d render": 0.4, "pencil sketch": SAY_MARKED, "cartoon": SAY_MARKED}
SAY_VIEW = 0.4
SAY_IDLE_VIEW = 0.1  # of an object with no front: text-to-3D appends view words to any prompt
SAY_POSE = 0.25  # without a relation
SAY_POSE_ON = 0.65
SAY_FINITE = 0.25  # a finite verb ("sits"), where neither style nor view stand before
REVERSE = 0.12  # the second object first, where there is a phrase for it


def caption(
    labels: np.void | np.ndarray, rng: np.random.Generator, view: bool = True
) -> tuple[str, frozenset[str]]:
    """Describe a scene in words.

    Args:
        labels: one record of `vocabulary.LABELS`.
        rng: the source of synonyms and omissions; the same state gives the same caption.
        view: whether the caption may say from which side an object is seen.

    Returns:
        The caption, and the labels that it names: fields of LABELS, plus "view" if it says from
        which side the object is seen and this shows (it has a front, or is seen from overhead).

    Raises:
        ValueError: the record holds neither an object nor a landscape.

    Example:
        >>> scene = sample_scene(3)
        >>> caption(scene.labels, np.random.default_rng(0))
        ('a red striped cat on the grass at sunset, side view', frozenset({'object', 'color', ...}))
    """
    if labels["landscape"] < 0 and labels["object"] < 0:
        raise ValueError("a scene to caption needs an object or a landscape: both labels are -1")
    writer = _Writer(labels, rng)
    prefix, suffixes = writer.style_and_view(view)
    if labels["landscape"] >= 0:
        body = writer.landscape()
    else:
        body = writer.objects(allow_finite=not prefix)
    text = re.sub(r" +", " ", f"{prefix} {body}").strip()
    text = re.sub(r"\ba (?=[aeiou])", "an ", text)
    text = ", ".join([text, *suffixes])
    if writer.chance(0.15):
        text = text[0].upper() + text[1:]
    if writer.chance(0.1):
        text += "."
    return text, frozenset(writer.named)


class _Writer:
    """Writes the parts of one caption; `named` collects the labels that they name."""

    def __init__(self, labels: np.void | np.ndarray, rng: np.random.Generator) -> None:
        self.labels = labels
        self.rng = rng
        self.named: set[str] = set()

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def pick(self, options: tuple[str, ...], usual: float = 0.5) -> str:
        """Return the first option with probability `usual`, else any of the others."""
        if len(options) == 1 or self.chance(usual):
            return options[0]
        return options[1 + int(self.rng.random() * (len(options) - 1))]

    def style_and_view(self, say_view: bool) -> tuple[str, list[str]]:
        """Return what stands before the body of the caption, and what stands after it."""
        labels = self.labels
        is_landscape = labels["landscape"] >= 0
        view = None if is_landscape or not say_view else self.view()
        prefix = ""
        suffixes = []
        if labels["style"] >= 0 and self.chance(SAY_STYLE[v.STYLES[labels["style"]]]):
            self.named.add("style")
            style = v.STYLES[labels["style"]]
            if self.chance(0.75):
                prefix = self.pick(p.STYLE_PREFIXES[style])
            else:
                suffixes.append(self.pick(p.STYLE_SUFFIXES[style]))
        elif self.chance(0.1):
            prefix = self.pick(p.LANDSCAPE_PREFIXES if is_landscape else p.NEUTRAL_PREFIXES)
        if view and not prefix and self.chance(0.15):
            prefix = p.VIEW_PREFIXES[view]
        elif view:
            suffixes.insert(0, self.pick(p.VIEW_SUFFIXES[view], usual=0.7))
        return prefix, suffixes

    def view(self) -> str | None:
        """Return the view word to say, if any."""
        labels = self.labels
        view = v.view_word(float(labels["azimuth"]), float(labels["elevation"]))
        shows = view == "overhead" or v.OBJECTS[labels["object"]] in v.WITH_FRONT
        if not self.chance(SAY_VIEW if shows else SAY_IDLE_VIEW):
            return None
        if shows:
            self.named.add("view")
        return view

    def landscape(self) -> str:
        """Return the landscape with its weather and its time of day."""
        self.named.add("landscape")
        name = v.LANDSCAPES[self.labels["landscape"]]
        weather = v.WEATHERS[self.labels["weather"]]
        time = v.TIMES[self.labels["time"]]
        adjective = ""
        parts = []
        if name not in v.NO_WEATHER and self.chance(SAY_WEATHER.get(weather, SAY_MARKED)):
            self.named.add("weather")
            if self.chance(0.6 if weather != "clear" else 0.3):
                adjective = self.pick(p.WEATHER_ADJECTIVES[weather])
            else:
                parts.append(self.pick(p.WEATHER_SUFFIXES[weather]))
        if name not in p.WITHOUT_TIME and self.chance(SAY_DAY if time == "day" else SAY_MARKED):
            self.named.add("time")
            parts.append(self.pick(p.TIME_PHRASES[time]))
        if self.chance(0.5):
            parts.reverse()
        noun = self.pick(p.LANDSCAPE_PHRASES[name]).replace("*", adjective)
        return " ".join([noun, *parts])

    def objects(self, allow_finite: bool) -> str:
        """Return the object, its relation to another, ground and lighting.

        allow_finite: whether the caption may be a sentence with a finite verb.
        """
        labels = self.labels
        finite = allow_finite and bool(labels["count"] <= 0) and self.chance(SAY_FINITE)
        is_animate = v.OBJECTS[labels["object"]] in v.ANIMATE
        has_pose = bool(labels["pose"] >= 0) and is_animate
        parts = [self.noun_phrase("")]
        if labels["relation"] > 0:
            self.named.update(("relation", "object2"))
            relation = v.RELATIONS[labels["relation"]]
            other = self.noun_phrase("2")
            if relation in p.REVERSED_PHRASES and self.chance(REVERSE):
                parts = [other, self.pick(p.REVERSED_PHRASES[relation]), *parts]
            elif relation == "on" and is_animate:
                if has_pose and self.chance(SAY_POSE_ON):
                    parts.append(self.pose(finite))
                parts += [self.pick(p.ON_PREPOSITIONS), other]
            else:
                verbs = p.FINITE if finite and relation in p.FINITE else p.RELATION_PHRASES
                parts += [self.pick(verbs[relation]), other]
        surroundings = self.surroundings()
        if has_pose and labels["relation"] == 0 and self.chance(SAY_POSE):
            parts.append(self.pose(finite))
        return " ".join(parts + surroundings)

    def surroundings(self) -> list[str]:
        """Return ground and lighting, as far as the caption names them."""
        parts = []
        if self.labels["ground"] >= 0 and self.chance(SAY_GROUND):
            self.named.add("ground")
            parts.append(self.pick(p.GROUND_PHRASES[v.GROUNDS[self.labels["ground"]]]))
        if self.labels["lighting"] >= 0:
            lighting = v.LIGHTINGS[self.labels["lighting"]]
            if self.chance(SAY_DAY if lighting == "day" else SAY_MARKED):
                self.named.add("lighting")
                parts.append(self.pick(p.TIME_PHRASES[lighting]))
        if self.chance(0.15):
            parts.reverse()
        return parts

    def noun_phrase(self, which: str) -> str:
        """Return the object ("") or the second one ("2") with count, size, color and pattern."""
        labels = self.labels
        self.named.add(f"object{which}")
        size = self.adjective(f"size{which}", v.SIZES, p.SIZE_ADJECTIVES)
        color = self.adjective(f"color{which}", v.COLORS, p.COLOR_WORDS, usual=0.8)
        suffix = ""
        if labels[f"pattern{which}"] > 0 and self.chance(SAY_MARKED):
            self.named.add(f"pattern{which}")
            pattern = v.PATTERNS[labels[f"pattern{which}"]]
            if self.chance(0.2):
                suffix = self.pick(p.PATTERN_SUFFIXES[pattern])
            else:
                word = self.pick(p.PATTERN_ADJECTIVES[pattern])
                color = f"{word} {color}" if self.chance(0.3) else f"{color} {word}"
        noun = self.noun(which).replace("*", f"{size} {color}")
        return f"{noun} {suffix}"

    def noun(self, which: str) -> str:
        """Return the noun with its article or number."""
        labels = self.labels
        name = v.OBJECTS[labels[f"object{which}"]]
        count = 0 if which else max(int(labels["count"]), 0)
        if count > 0:  # always named: no noun leaves it open
            self.named.add("count")
            plurals = p.PLURAL_PHRASES[name]
            number = self.pick(p.COUNT_WORDS[v.COUNTS[count]], usual=0.8)
            return f"{number} {plurals[int(self.rng.random() * len(plurals))]}"
        noun = self.pick(p.OBJECT_PHRASES[name])
        is_one = labels["count"] == 0 and not which and noun.startswith("a ")
        if is_one and self.chance(SAY_ONE):
            self.named.add("count")
            return self.pick(p.ONE_WORDS) + noun.removeprefix("a")
        return noun

    def adjective(
        self, field: str, names: tuple[str, ...], table: p.Table, usual: float = 0.5
    ) -> str:
        """Return the word for a color or size; "" if there is none, and rarely otherwise."""
        if self.labels[field] < 0 or not self.chance(SAY_MARKED):
            return ""
        self.named.add(field)
        return self.pick(table[names[self.labels[field]]], usual)

    def pose(self, finite: bool) -> str:
        """Return the verb of the pose."""
        self.named.add("pose")
        verbs = p.FINITE if finite else p.POSE_VERBS
        return self.pick(verbs[v.POSES[self.labels["pose"]]])

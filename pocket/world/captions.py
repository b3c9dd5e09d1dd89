"""What is said of a scene: a small grammar with synonyms and left-out parts.

`caption` turns a record of labels into a sentence and says which labels the sentence names, so
that a picture is only ever judged by what its caption asked for. Every word that the grammar can
say stands in the tables below; `words` lists them for the model card.
"""

import re
from collections.abc import Mapping

import numpy as np

from . import vocabulary as v

# In a noun phrase "*" marks the place of the adjectives. The first phrase of a tuple is the usual one.
OBJECT_PHRASES = {
    "hamburger": ("a * hamburger", "a * burger", "a * cheeseburger"),
    "squirrel": ("a * squirrel",),
    "book": ("a * book",),
    "bunny": ("a * bunny", "a * rabbit"),
    "pancakes": ("a stack of * pancakes", "* pancakes", "a pile of * pancakes"),
    "astronaut": ("a * astronaut", "a * spaceman"),
    "horse": ("a * horse", "a * pony"),
    "snowman": ("a * snowman",),
    "duck": ("a * duck", "a * rubber duck"),
    "cat": ("a * cat", "a * kitten"),
    "robot": ("a * robot",),
    "car": ("a * car", "a * automobile"),
    "rocket": ("a * rocket", "a * space rocket", "a * spaceship"),
    "house": ("a * house", "a * cottage"),
    "tree": ("a * tree",),
    "mushroom": ("a * mushroom", "a * toadstool"),
    "cactus": ("a * cactus",),
    "teapot": ("a * teapot",),
    "bear": ("a * bear", "a * teddy bear"),
    "penguin": ("a * penguin",),
    "elephant": ("a * elephant",),
    "turtle": ("a * turtle", "a * tortoise"),
    "cake": ("a * cake", "a * birthday cake"),
    "chair": ("a * chair",),
    "sailboat": ("a * sailboat", "a * sailing boat", "a * boat"),
    "airplane": ("a * airplane", "a * plane"),
    "pumpkin": ("a * pumpkin",),
    "mug": ("a * mug", "a * cup"),
    "dog": ("a * dog", "a * puppy"),
    "bird": ("a * bird",),
    "fish": ("a * fish",),
    "butterfly": ("a * butterfly",),
    "dinosaur": ("a * dinosaur",),
    "cow": ("a * cow",),
    "pig": ("a * pig",),
    "owl": ("a * owl",),
    "frog": ("a * frog",),
    "flower": ("a * flower",),
    "apple": ("a * apple",),
    "banana": ("a * banana",),
    "donut": ("a * donut", "a * doughnut"),
    "ice cream": ("a * ice cream", "a * ice cream cone"),
    "cupcake": ("a * cupcake",),
    "pizza": ("a * pizza",),
    "castle": ("a * castle",),
    "lighthouse": ("a * lighthouse",),
    "truck": ("a * truck", "a * lorry"),
    "bicycle": ("a * bicycle", "a * bike"),
    "train": ("a * train", "a * steam locomotive"),
    "sofa": ("a * sofa", "a * couch"),
    "bed": ("a * bed",),
    "lamp": ("a * lamp",),
    "umbrella": ("a * umbrella",),
    "guitar": ("a * guitar",),
    "sword": ("a * sword",),
    "hat": ("a * hat", "a * cowboy hat"),
    "ball": ("a * ball", "a * soccer ball"),
}
COLOR_WORDS = {name: (name,) for name in v.COLORS} | {
    "turquoise": ("turquoise", "teal"),
    "purple": ("purple", "violet"),
    "gray": ("gray", "grey"),
}
PATTERN_ADJECTIVES = {
    "striped": ("striped",),
    "checkered": ("checkered",),
    "spotted": ("spotted", "dotted"),
    "wooden": ("wooden", "wood"),
    "metallic": ("metallic", "metal", "shiny metal"),
}
PATTERN_SUFFIXES = {
    "striped": ("with stripes",),
    "checkered": ("with a checkered pattern",),
    "spotted": ("with spots", "with polka dots"),
    "wooden": ("made of wood",),
    "metallic": ("made of metal",),
}
RELATION_PHRASES = {
    "on": ("on top of", "on"),
    "reading": ("reading",),
    "riding": ("riding", "riding on"),
    "next to": ("next to", "beside"),
}
ANIMATE_ON = ("sitting on top of", "sitting on", "on top of", "on", "standing on top of", "standing on")
GROUND_PHRASES = {
    "white": ("on a plain white background", "on a white background", "with a white background"),
    "plain": ("on a plain background", "with a plain background"),
    "grass": ("on the grass", "on grass", "in the grass", "on a lawn"),
    "snow": ("in the snow", "on snow", "on the snow"),
    "sand": ("on the sand", "on sand", "in the sand"),
    "wooden table": ("on a wooden table", "on a table"),
    "checkered floor": ("on a checkered floor", "on a checkerboard floor"),
    "mars": ("on mars", "on planet mars"),
    "moon": ("on the moon", "on the surface of the moon"),
}
# The same words for the lighting of an object and for the time of day of a landscape.
TIME_PHRASES = {
    "day": ("by day", "during the day", "in daylight"),
    "sunset": ("at sunset", "during sunset", "at sundown"),
    "night": ("at night", "by night", "during the night"),
    "dawn": ("at dawn", "at daybreak"),
}
WEATHER_ADJECTIVES = {"clear": ("clear",), "cloudy": ("cloudy", "overcast"), "foggy": ("foggy", "misty")}
WEATHER_SUFFIXES = {
    "clear": ("under a clear sky", "in clear weather"),
    "cloudy": ("under a cloudy sky", "with clouds", "in cloudy weather"),
    "foggy": ("in the fog", "in fog", "in foggy weather"),
}
LANDSCAPE_PHRASES = {
    "mountains": ("* mountains", "a * mountain landscape", "a * mountain range"),
    "beach": ("a * beach", "a * sandy beach"),
    "desert": ("a * desert", "a * desert landscape"),
    "forest": ("a * forest", "a * forest landscape", "* woods"),
    "city skyline": ("a * city skyline", "a * skyline of a city", "a * city"),
    "meadow": ("a * meadow with flowers", "a * flower meadow", "a * meadow"),
    "ocean": ("a * ocean with islands", "* islands in the ocean", "a * sea with islands"),
    "snowy hills": ("* snowy hills", "* hills covered in snow", "a * snowy landscape"),
    "canyon": ("a * canyon", "a * canyon landscape"),
    "mars": ("a * landscape on mars", "the * surface of mars", "a * martian landscape"),
}
STYLE_PREFIXES = {
    "photo": ("a photo of", "a photograph of"),
    "3d render": ("a 3d render of", "a 3d rendering of"),
    "pencil sketch": ("a pencil sketch of", "a sketch of", "a pencil drawing of"),
    "cartoon": ("a cartoon of", "a cartoon drawing of"),
}
STYLE_SUFFIXES = {
    "photo": ("photo",),
    "3d render": ("3d render",),
    "pencil sketch": ("pencil sketch", "pencil drawing"),
    "cartoon": ("cartoon", "cartoon style"),
}
NEUTRAL_PREFIXES = ("a picture of", "an image of")  # say nothing of the style
LANDSCAPE_PREFIXES = ("a panorama of", "a picture of", "an image of")
VIEW_SUFFIXES = {
    "front": ("front view", "seen from the front"),
    "side": ("side view", "seen from the side"),
    "back": ("back view", "seen from behind"),
    "overhead": ("overhead view", "seen from above"),
}
VIEW_PREFIXES = {view: f"a {view} view of" for view in v.VIEWS}

# How often a part is said. What is nearly always said, its absence has a meaning: a cat with no
# colour is a natural cat, a picture with no time of day a picture by day.
SAY_MARKED = 0.97  # colours, patterns, sunset and night, sketch and cartoon
SAY_GROUND = 0.75
SAY_DAY = 0.12
SAY_WEATHER = {"clear": 0.15, "cloudy": 0.95, "foggy": SAY_MARKED}
SAY_STYLE = {"photo": 0.3, "3d render": 0.4, "pencil sketch": SAY_MARKED, "cartoon": SAY_MARKED}
SAY_VIEW = 0.4
SAY_IDLE_VIEW = 0.1  # a view word on an object with no front, as text-to-3D appends it to any prompt


def caption(labels: np.void | np.ndarray, rng: np.random.Generator) -> tuple[str, frozenset[str]]:
    """Says one scene in words.

    Args:
        labels: one record of `vocabulary.LABELS`.
        rng: the source of synonyms and omissions; the same state gives the same caption.

    Returns:
        The caption, and the names of the labels that it names: fields of LABELS, plus "view" if
        it says from which side ("view" only where the view shows: the object has a front, or it
        is seen from overhead).

    Raises:
        ValueError: the record holds neither an object nor a landscape.

    Example:
        >>> scene = sample_scene(3)
        >>> caption(scene.labels, np.random.default_rng(0))
        ('a red striped cat on the grass at sunset, side view', frozenset({'object', 'color', ...}))
    """
    named: set[str] = set()
    if labels["landscape"] >= 0:
        body = _landscape(labels, rng, named)
        view = None
    elif labels["object"] >= 0:
        body = _object(labels, rng, named)
        view = _view(labels, rng, named)
    else:
        raise ValueError("a scene to caption needs an object or a landscape, but both labels are -1")
    text = _frame(body, view, labels, rng, named)
    if rng.random() < 0.15:
        text = text[0].upper() + text[1:]
    if rng.random() < 0.1:
        text += "."
    return text, frozenset(named)


def words() -> list[str]:
    """Every word the grammar can say, in lower case, sorted."""
    tables: list[Mapping[str, tuple[str, ...]]] = [
        OBJECT_PHRASES, COLOR_WORDS, PATTERN_ADJECTIVES, PATTERN_SUFFIXES, RELATION_PHRASES, GROUND_PHRASES,
        TIME_PHRASES, WEATHER_ADJECTIVES, WEATHER_SUFFIXES, LANDSCAPE_PHRASES, STYLE_PREFIXES, STYLE_SUFFIXES,
        VIEW_SUFFIXES,
    ]  # fmt: skip
    phrases = [phrase for table in tables for options in table.values() for phrase in options]
    phrases += [*ANIMATE_ON, *NEUTRAL_PREFIXES, *LANDSCAPE_PREFIXES, *VIEW_PREFIXES.values()]
    return sorted(set(" ".join(phrases).replace("*", " ").split()) | {"a", "an"})


def _object(labels: np.void | np.ndarray, rng: np.random.Generator, named: set[str]) -> str:
    """The main object, what it stands in relation to, ground and lighting."""
    named.add("object")
    name = v.OBJECTS[labels["object"]]
    adjectives, suffix = _color(labels, "color", rng, named), ""
    pattern = v.PATTERNS[labels["pattern"]] if labels["pattern"] > 0 else None
    if pattern and _says(rng, SAY_MARKED):
        named.add("pattern")
        if _says(rng, 0.2):
            suffix = _pick(rng, PATTERN_SUFFIXES[pattern])
        else:
            word = _pick(rng, PATTERN_ADJECTIVES[pattern])
            adjectives = f"{word} {adjectives}" if _says(rng, 0.3) else f"{adjectives} {word}"
    parts = [_noun(_pick(rng, OBJECT_PHRASES[name]), adjectives), suffix]

    if labels["relation"] > 0:
        named.update(("relation", "object2"))
        relation = v.RELATIONS[labels["relation"]]
        sits = relation == "on" and name in v.ANIMATE
        other = _pick(rng, OBJECT_PHRASES[v.OBJECTS[labels["object2"]]])
        parts.append(_pick(rng, ANIMATE_ON if sits else RELATION_PHRASES[relation]))
        parts.append(_noun(other, _color(labels, "color2", rng, named)))

    around = []
    if labels["ground"] >= 0 and _says(rng, SAY_GROUND):
        named.add("ground")
        around.append(_pick(rng, GROUND_PHRASES[v.GROUNDS[labels["ground"]]]))
    if labels["lighting"] >= 0:
        lighting = v.LIGHTINGS[labels["lighting"]]
        if _says(rng, SAY_DAY if lighting == "day" else SAY_MARKED):
            named.add("lighting")
            around.append(_pick(rng, TIME_PHRASES[lighting]))
    if _says(rng, 0.15):
        around.reverse()
    return " ".join(parts + around)


def _landscape(labels: np.void | np.ndarray, rng: np.random.Generator, named: set[str]) -> str:
    """The landscape, its weather and its time of day."""
    named.add("landscape")
    adjective, around = "", []
    weather = v.WEATHERS[labels["weather"]]
    if _says(rng, SAY_WEATHER[weather]):
        named.add("weather")
        if weather != "clear" and _says(rng, 0.6):
            adjective = _pick(rng, WEATHER_ADJECTIVES[weather])
        else:
            around.append(_pick(rng, WEATHER_SUFFIXES[weather]))
    time = v.TIMES[labels["time"]]
    if _says(rng, SAY_DAY if time == "day" else SAY_MARKED):
        named.add("time")
        around.append(_pick(rng, TIME_PHRASES[time]))
    if _says(rng, 0.5):
        around.reverse()
    return " ".join([_noun(_pick(rng, LANDSCAPE_PHRASES[v.LANDSCAPES[labels["landscape"]]]), adjective), *around])


def _view(labels: np.void | np.ndarray, rng: np.random.Generator, named: set[str]) -> str | None:
    """The view word to say, if any."""
    view = v.view_word(float(labels["azimuth"]), float(labels["elevation"]))
    shows = view == "overhead" or v.OBJECTS[labels["object"]] in v.WITH_FRONT
    if not _says(rng, SAY_VIEW if shows else SAY_IDLE_VIEW):
        return None
    if shows:
        named.add("view")
    return view


def _frame(body: str, view: str | None, labels: np.void | np.ndarray, rng: np.random.Generator, named: set[str]) -> str:
    """Puts style and view before or after the body, mends articles and spaces."""
    prefix, suffixes = "", []
    if labels["style"] >= 0 and _says(rng, SAY_STYLE[v.STYLES[labels["style"]]]):
        named.add("style")
        style = v.STYLES[labels["style"]]
        if _says(rng, 0.75):
            prefix = _pick(rng, STYLE_PREFIXES[style])
        else:
            suffixes.append(_pick(rng, STYLE_SUFFIXES[style]))
    elif _says(rng, 0.1):
        prefix = _pick(rng, LANDSCAPE_PREFIXES if labels["landscape"] >= 0 else NEUTRAL_PREFIXES)
    if view and not prefix and _says(rng, 0.15):
        prefix = VIEW_PREFIXES[view]
    elif view:
        suffixes.insert(0, _pick(rng, VIEW_SUFFIXES[view], usual=0.75))
    text = re.sub(r" +", " ", f"{prefix} {body}").strip()
    text = re.sub(r"\ba (?=[aeiou])", "an ", text)
    return ", ".join([text, *suffixes])


def _color(labels: np.void | np.ndarray, field: str, rng: np.random.Generator, named: set[str]) -> str:
    """The colour word of a field; nothing for natural colours, and now and then for others."""
    if labels[field] < 0 or not _says(rng, SAY_MARKED):
        return ""
    named.add(field)
    return _pick(rng, COLOR_WORDS[v.COLORS[labels[field]]], usual=0.8)


def _noun(phrase: str, adjectives: str) -> str:
    return phrase.replace("*", adjectives)


def _says(rng: np.random.Generator, chance: float) -> bool:
    return rng.random() < chance


def _pick(rng: np.random.Generator, options: tuple[str, ...], usual: float = 0.5) -> str:
    """The first option with chance `usual`, else any of the others."""
    if len(options) == 1 or rng.random() < usual:
        return options[0]
    return options[1 + int(rng.random() * (len(options) - 1))]

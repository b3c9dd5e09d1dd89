"""What is said of a scene: a small grammar with synonyms and left-out parts.

`caption` turns a record of labels into a sentence and says which labels the sentence names, so
that an image is only ever judged by what its caption asked for. Every word that the grammar can
say stands in the tables below; `words` lists them for the model card. `prompts.py` reads such
sentences back.
"""

import re
from collections.abc import Iterator, Mapping

import numpy as np

from . import vocabulary as v

Table = Mapping[str, tuple[str, ...]]

# In a noun phrase "*" marks the place of the adjectives. The first phrase of a tuple is the usual one.
OBJECT_PHRASES = {
    "hamburger": ("a * hamburger", "a * burger", "a * cheeseburger"),
    "squirrel": ("a * squirrel", "a * chipmunk"),
    "book": ("a * book",),
    "bunny": ("a * bunny", "a * rabbit", "a * hare"),
    "pancakes": ("a stack of * pancakes", "* pancakes", "a pile of * pancakes"),
    "astronaut": ("a * astronaut", "a * spaceman", "a * cosmonaut"),
    "horse": ("a * horse", "a * pony", "a * foal"),
    "snowman": ("a * snowman",),
    "duck": ("a * duck", "a * rubber duck", "a * duckling"),
    "cat": ("a * cat", "a * kitten", "a * kitty"),
    "robot": ("a * robot", "a * android"),
    "car": ("a * car", "a * automobile", "a * auto"),
    "rocket": ("a * rocket", "a * space rocket", "a * spaceship"),
    "house": ("a * house", "a * cottage", "a * home"),
    "tree": ("a * tree",),
    "mushroom": ("a * mushroom", "a * toadstool"),
    "cactus": ("a * cactus",),
    "teapot": ("a * teapot", "a * kettle", "a * pot"),
    "bear": ("a * bear", "a * teddy bear", "a * teddy"),
    "penguin": ("a * penguin",),
    "elephant": ("a * elephant",),
    "turtle": ("a * turtle", "a * tortoise"),
    "cake": ("a * cake", "a * birthday cake"),
    "chair": ("a * chair", "a * seat"),
    "sailboat": ("a * sailboat", "a * sailing boat", "a * boat"),
    "airplane": ("a * airplane", "a * plane", "a * aeroplane"),
    "pumpkin": ("a * pumpkin",),
    "mug": ("a * mug", "a * cup", "a * coffee mug"),
    "dog": ("a * dog", "a * puppy"),
    "bird": ("a * bird", "a * songbird"),
    "fish": ("a * fish", "a * goldfish"),
    "butterfly": ("a * butterfly",),
    "dinosaur": ("a * dinosaur", "a * dino"),
    "cow": ("a * cow",),
    "pig": ("a * pig", "a * piglet", "a * piggy"),
    "owl": ("a * owl",),
    "frog": ("a * frog", "a * toad"),
    "flower": ("a * flower", "a * blossom"),
    "apple": ("a * apple",),
    "banana": ("a * banana",),
    "donut": ("a * donut", "a * doughnut"),
    "ice cream": ("a * ice cream", "a * ice cream cone"),
    "cupcake": ("a * cupcake", "a * muffin"),
    "pizza": ("a * pizza",),
    "castle": ("a * castle", "a * fortress"),
    "lighthouse": ("a * lighthouse",),
    "truck": ("a * truck", "a * lorry"),
    "bicycle": ("a * bicycle", "a * bike"),
    "train": ("a * train", "a * steam locomotive", "a * steam train"),
    "sofa": ("a * sofa", "a * couch"),
    "bed": ("a * bed",),
    "lamp": ("a * lamp",),
    "umbrella": ("a * umbrella", "a * parasol"),
    "guitar": ("a * guitar",),
    "sword": ("a * sword",),
    "hat": ("a * hat", "a * cowboy hat"),
    "ball": ("a * ball", "a * soccer ball", "a * football"),
}
PLURALS = {  # of the last word of a noun; the others follow the rule
    "snowman": "snowmen", "spaceman": "spacemen", "cactus": "cacti", "fish": "fish", "goldfish": "goldfish",
}  # fmt: skip
ONE_WORDS = ("one", "a single")  # now and then in the place of the article
COUNT_WORDS = {"two": ("two", "2", "a pair of"), "three": ("three", "3", "a group of three")}
COLOR_WORDS = {name: (name,) for name in v.COLORS} | {
    "turquoise": ("turquoise", "teal", "cyan"),
    "purple": ("purple", "violet"),
    "gray": ("gray", "grey"),
}
PATTERN_ADJECTIVES = {
    "striped": ("striped", "stripy"),
    "checkered": ("checkered", "checked"),
    "spotted": ("spotted", "dotted"),
    "wooden": ("wooden", "wood"),
    "metallic": ("metallic", "metal", "shiny metal"),
}
PATTERN_SUFFIXES = {
    "striped": ("with stripes", "with a striped pattern"),
    "checkered": ("with a checkered pattern", "with checks"),
    "spotted": ("with spots", "with polka dots", "with dots"),
    "wooden": ("made of wood", "carved from wood"),
    "metallic": ("made of metal", "made of steel"),
}
SIZE_ADJECTIVES = {"small": ("small", "little", "tiny"), "big": ("big", "large", "huge", "giant")}
POSE_VERBS = {"sitting": ("sitting",), "standing": ("standing",)}
RELATION_PHRASES = {
    "on": ("on top of", "on", "placed on", "resting on"),
    "reading": ("reading",),
    "riding": ("riding", "riding on"),
    "next to": ("next to", "beside", "and", "to the left of", "near", "close to"),
    "holding": ("holding", "with", "carrying"),
}
FINITE = {  # verbs that make a sentence of a caption, in the place of those above
    "sitting": ("sits", "is sitting"), "standing": ("stands", "is standing"), "reading": ("reads", "is reading"),
    "riding": ("rides", "is riding", "rides on"), "holding": ("holds", "is holding", "carries"),
}  # fmt: skip
ON_PREPOSITIONS = ("on top of", "on")  # after a verb, and of people and animals without one
REVERSED_PHRASES = {"next to": ("to the right of",)}  # the other object first
GROUND_PHRASES = {
    "white": ("on a plain white background", "on a white background", "with a white background",
              "in front of a white wall"),
    "plain": ("on a plain background", "with a plain background", "in a studio", "in front of a plain wall"),
    "grass": ("on the grass", "on grass", "in the grass", "on a lawn", "in a meadow", "in a field"),
    "snow": ("in the snow", "on snow", "on the snow", "on snowy ground", "in winter"),
    "sand": ("on the sand", "on sand", "in the sand", "in the desert"),
    "wooden table": ("on a wooden table", "on a table", "on a wooden desk", "on a desk"),
    "checkered floor": ("on a checkered floor", "on a checkerboard floor", "on a tiled floor", "on tiles"),
    "mars": ("on mars", "on planet mars", "on the red planet"),
    "moon": ("on the moon", "on the surface of the moon", "on the lunar surface"),
}  # fmt: skip
# The same words for the lighting of an object and for the time of day of a landscape.
TIME_PHRASES = {
    "day": ("by day", "during the day", "in daylight", "at noon", "in the daytime"),
    "sunset": ("at sunset", "during sunset", "at sundown", "at dusk", "in the evening"),
    "night": (
        "at night",
        "by night",
        "during the night",
        "at midnight",
        "in the dark",
        "in the moonlight",
    ),
    "dawn": ("at dawn", "at daybreak", "at sunrise", "in the morning"),
}
WEATHER_ADJECTIVES = {
    "clear": ("clear", "sunny"), "cloudy": ("cloudy", "overcast"), "foggy": ("foggy", "misty", "hazy"),
    "rain": ("rainy", "wet"), "snow": ("snowy", "wintry"),
}  # fmt: skip
WEATHER_SUFFIXES = {
    "clear": ("under a clear sky", "in clear weather", "under a blue sky", "in sunny weather"),
    "cloudy": ("under a cloudy sky", "with clouds", "in cloudy weather"),
    "foggy": ("in the fog", "in fog", "in foggy weather", "in the mist"),
    "rain": ("in the rain", "in rain", "in rainy weather", "in a rainstorm"),
    "snow": ("in the snow", "in snowy weather", "in falling snow", "in winter", "in a snowstorm"),
}
LANDSCAPE_PHRASES = {
    "mountains": (
        "* mountains",
        "a * mountain landscape",
        "a * mountain range",
        "* mountain peaks",
    ),
    "beach": ("a * beach", "a * sandy beach", "a * seashore", "a * coast"),
    "desert": ("a * desert", "a * desert landscape", "* sand dunes", "* dunes"),
    "forest": ("a * forest", "a * forest landscape", "* woods", "a * woodland"),
    "city skyline": ("a * city skyline", "a * skyline of a city", "a * city", "* skyscrapers"),
    "meadow": (
        "a * meadow with flowers",
        "a * flower meadow",
        "a * meadow",
        "a * field of flowers",
    ),
    "ocean": (
        "a * ocean with islands",
        "* islands in the ocean",
        "a * sea with islands",
        "the * ocean",
        "the * sea",
    ),
    "snowy hills": (
        "* snowy hills",
        "* hills covered in snow",
        "a * snowy landscape",
        "a * winter landscape",
    ),
    "canyon": ("a * canyon", "a * canyon landscape", "a * gorge"),
    "mars": ("a * landscape on mars", "the * surface of mars", "a * martian landscape"),
    "village": ("a * village", "a * town", "a * hamlet"),
    "river": ("a * river", "a * river landscape", "a * stream"),
    "waterfall": ("a * waterfall", "a * cascade"),
    "park": ("a * park", "a * garden", "a * city park"),
    "volcano": ("a * volcano", "a * volcanic landscape"),
    "underwater": (
        "a * underwater scene",
        "a * coral reef",
        "the * bottom of the sea",
        "a * underwater landscape",
    ),
    "space": ("* outer space", "a * planet in space", "* space"),
}
WITHOUT_TIME = ("space",)
STYLE_PREFIXES = {
    "photo": ("a photo of", "a photograph of"),
    "3d render": ("a 3d render of", "a 3d rendering of", "a 3d model of"),
    "pencil sketch": ("a pencil sketch of", "a sketch of", "a pencil drawing of", "a drawing of"),
    "cartoon": ("a cartoon of", "a cartoon drawing of", "a cartoon illustration of", "an illustration of",
                "a comic of"),
}  # fmt: skip
STYLE_SUFFIXES = {
    "photo": ("photo", "realistic photo"),
    "3d render": ("3d render", "3d"),
    "pencil sketch": ("pencil sketch", "pencil drawing", "black and white sketch"),
    "cartoon": ("cartoon", "cartoon style", "comic style"),
}
NEUTRAL_PREFIXES = ("a picture of", "an image of", "a view of")  # say nothing of the style
LANDSCAPE_PREFIXES = ("a panorama of", "a picture of", "an image of", "a view of", "scenery of")
VIEW_SUFFIXES = {
    "front": ("front view", "seen from the front", "from the front", "facing the camera"),
    "side": ("side view", "seen from the side", "from the side", "in profile"),
    "back": ("back view", "seen from behind", "from behind", "rear view", "from the back"),
    "overhead": ("overhead view", "seen from above", "from above", "top view", "from the top"),
}
VIEW_PREFIXES = {view: f"a {view} view of" for view in v.VIEWS}

# How often a part is said. What is nearly always said, its absence has a meaning: a cat with no
# color is a natural cat, an image with no time of day an image by day, and "a cat" is one cat.
SAY_MARKED = 0.97  # colors, patterns, sizes, sunset and night, sketch and cartoon
SAY_ONE = 0.04
SAY_GROUND = 0.75
SAY_DAY = 0.12
SAY_WEATHER = {
    "clear": 0.15,
    "cloudy": 0.95,
    "foggy": SAY_MARKED,
    "rain": SAY_MARKED,
    "snow": SAY_MARKED,
}
SAY_STYLE = {"photo": 0.3, "3d render": 0.4, "pencil sketch": SAY_MARKED, "cartoon": SAY_MARKED}
SAY_VIEW = 0.4
SAY_IDLE_VIEW = (
    0.1  # a view word on an object with no front, as text-to-3D appends it to any prompt
)
SAY_POSE = 0.25  # of one that is on nothing but the ground
SAY_POSE_ON = 0.65
SAY_FINITE = 0.25  # where neither style nor view stand before
REVERSE = 0.12  # the other object first, where there is a phrase for it


def plural(noun: str) -> str:
    """Return a noun of one word in the plural.

    Example:
        >>> plural("cat"), plural("bunny"), plural("snowman")
        ('cats', 'bunnies', 'snowmen')
    """
    if noun in PLURALS:
        return PLURALS[noun]
    if re.search("[^aeiou]y$", noun):
        return noun[:-1] + "ies"
    return noun + ("es" if re.search("(s|x|ch|sh)$", noun) else "s")


def plural_phrase(phrase: str) -> str | None:
    """Return a noun phrase with an article in the plural, without one: "* hats" of "a * hat", "stacks of *
    pancakes" of "a stack of * pancakes". None if it has no article, and so no plural of its own."""
    if not phrase.startswith("a "):
        return None
    phrase = phrase.removeprefix("a ")
    head, of, rest = phrase.partition(" of ")
    *before, last = head.split()
    return " ".join([*before, plural(last)]) + of + rest


PLURAL_PHRASES = {
    name: tuple(many for phrase in phrases if (many := plural_phrase(phrase)))
    for name, phrases in OBJECT_PHRASES.items()
}


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
    if labels["landscape"] < 0 and labels["object"] < 0:
        raise ValueError(
            "a scene to caption needs an object or a landscape, but both labels are -1"
        )
    named: set[str] = set()
    prefix, suffixes = _frame(labels, rng, named)
    if labels["landscape"] >= 0:
        body = _landscape(labels, rng, named)
    else:
        body = _object(labels, rng, named, finite=not prefix)
    text = re.sub(r" +", " ", f"{prefix} {body}").strip()
    text = re.sub(r"\ba (?=[aeiou])", "an ", text)
    text = ", ".join([text, *suffixes])
    if rng.random() < 0.15:
        text = text[0].upper() + text[1:]
    if rng.random() < 0.1:
        text += "."
    return text, frozenset(named)


def _phrases() -> Iterator[str]:
    tables: list[Table] = [
        OBJECT_PHRASES, PLURAL_PHRASES, COUNT_WORDS, COLOR_WORDS, PATTERN_ADJECTIVES, PATTERN_SUFFIXES, SIZE_ADJECTIVES,
        POSE_VERBS, RELATION_PHRASES, FINITE, REVERSED_PHRASES, GROUND_PHRASES, TIME_PHRASES, WEATHER_ADJECTIVES,
        WEATHER_SUFFIXES, LANDSCAPE_PHRASES, STYLE_PREFIXES, STYLE_SUFFIXES, VIEW_SUFFIXES,
    ]  # fmt: skip
    for table in tables:
        for options in table.values():
            yield from options
    yield from (
        *ONE_WORDS,
        *ON_PREPOSITIONS,
        *NEUTRAL_PREFIXES,
        *LANDSCAPE_PREFIXES,
        *VIEW_PREFIXES.values(),
    )


def words() -> list[str]:
    """Every word the grammar can say, in lower case, sorted."""
    return sorted(set(" ".join(_phrases()).replace("*", " ").split()) | {"a", "an"})


def _object(
    labels: np.void | np.ndarray, rng: np.random.Generator, named: set[str], finite: bool
) -> str:
    """The main object, what it stands in relation to, ground and lighting; finite: whether it may be a sentence."""
    finite = finite and bool(labels["count"] <= 0) and _says(rng, SAY_FINITE)
    parts = [_thing(labels, "", rng, named)]
    sits = bool(labels["pose"] >= 0) and v.OBJECTS[labels["object"]] in v.ANIMATE
    if labels["relation"] > 0:
        named.update(("relation", "object2"))
        relation = v.RELATIONS[labels["relation"]]
        other = _thing(labels, "2", rng, named)
        if relation in REVERSED_PHRASES and _says(rng, REVERSE):
            parts = [other, _pick(rng, REVERSED_PHRASES[relation]), *parts]
        elif relation == "on" and v.OBJECTS[labels["object"]] in v.ANIMATE:
            if sits and _says(rng, SAY_POSE_ON):
                parts.append(_pose(labels, rng, named, finite))
            parts += [_pick(rng, ON_PREPOSITIONS), other]
        else:
            verbs = FINITE if finite and relation in FINITE else RELATION_PHRASES
            parts += [_pick(rng, verbs[relation]), other]

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
    if sits and labels["relation"] == 0 and _says(rng, SAY_POSE):
        parts.append(_pose(labels, rng, named, finite))
    return " ".join(parts + around)


def _thing(
    labels: np.void | np.ndarray, which: str, rng: np.random.Generator, named: set[str]
) -> str:
    """The object (`which` is "") or the other one ("2"), with its count, size, color and pattern."""
    named.add(f"object{which}")
    adjectives, suffix = _size(labels, f"size{which}", rng, named), ""
    color = _color(labels, f"color{which}", rng, named)
    if labels[f"pattern{which}"] > 0 and _says(rng, SAY_MARKED):
        named.add(f"pattern{which}")
        pattern = v.PATTERNS[labels[f"pattern{which}"]]
        if _says(rng, 0.2):
            suffix = _pick(rng, PATTERN_SUFFIXES[pattern])
        else:
            word = _pick(rng, PATTERN_ADJECTIVES[pattern])
            color = f"{word} {color}" if _says(rng, 0.3) else f"{color} {word}"
    name = v.OBJECTS[labels[f"object{which}"]]
    adjectives = f"{adjectives} {color}"
    count = 0 if which else max(int(labels["count"]), 0)
    if count > 0:  # always said: no noun leaves it open
        named.add("count")
        many = PLURAL_PHRASES[name]
        number = _pick(rng, COUNT_WORDS[v.COUNTS[count]], usual=0.8)
        noun = f"{number} {many[int(rng.random() * len(many))]}"
    else:
        noun = _pick(rng, OBJECT_PHRASES[name])
        if labels["count"] == 0 and not which and noun.startswith("a ") and _says(rng, SAY_ONE):
            named.add("count")
            noun = _pick(rng, ONE_WORDS) + noun.removeprefix("a")
    return f"{_noun(noun, adjectives)} {suffix}"


def _landscape(labels: np.void | np.ndarray, rng: np.random.Generator, named: set[str]) -> str:
    """The landscape, its weather and its time of day."""
    named.add("landscape")
    name, adjective, around = v.LANDSCAPES[labels["landscape"]], "", []
    weather = v.WEATHERS[labels["weather"]]
    if name not in v.NO_WEATHER and _says(rng, SAY_WEATHER[weather]):
        named.add("weather")
        if _says(rng, 0.6 if weather != "clear" else 0.3):
            adjective = _pick(rng, WEATHER_ADJECTIVES[weather])
        else:
            around.append(_pick(rng, WEATHER_SUFFIXES[weather]))
    time = v.TIMES[labels["time"]]
    if name not in WITHOUT_TIME and _says(rng, SAY_DAY if time == "day" else SAY_MARKED):
        named.add("time")
        around.append(_pick(rng, TIME_PHRASES[time]))
    if _says(rng, 0.5):
        around.reverse()
    return " ".join([_noun(_pick(rng, LANDSCAPE_PHRASES[name]), adjective), *around])


def _view(labels: np.void | np.ndarray, rng: np.random.Generator, named: set[str]) -> str | None:
    """The view word to say, if any."""
    view = v.view_word(float(labels["azimuth"]), float(labels["elevation"]))
    shows = view == "overhead" or v.OBJECTS[labels["object"]] in v.WITH_FRONT
    if not _says(rng, SAY_VIEW if shows else SAY_IDLE_VIEW):
        return None
    if shows:
        named.add("view")
    return view


def _frame(
    labels: np.void | np.ndarray, rng: np.random.Generator, named: set[str]
) -> tuple[str, list[str]]:
    """What stands before the body of a caption and what after it: style and view."""
    prefix, suffixes = "", []
    view = None if labels["landscape"] >= 0 else _view(labels, rng, named)
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
        suffixes.insert(0, _pick(rng, VIEW_SUFFIXES[view], usual=0.7))
    return prefix, suffixes


def _color(
    labels: np.void | np.ndarray, field: str, rng: np.random.Generator, named: set[str]
) -> str:
    """The color word of a field; nothing for natural colors, and now and then for others."""
    if labels[field] < 0 or not _says(rng, SAY_MARKED):
        return ""
    named.add(field)
    return _pick(rng, COLOR_WORDS[v.COLORS[labels[field]]], usual=0.8)


def _size(
    labels: np.void | np.ndarray, field: str, rng: np.random.Generator, named: set[str]
) -> str:
    """The size word of a field, if it has one."""
    if labels[field] < 0 or not _says(rng, SAY_MARKED):
        return ""
    named.add(field)
    return _pick(rng, SIZE_ADJECTIVES[v.SIZES[labels[field]]])


def _pose(
    labels: np.void | np.ndarray, rng: np.random.Generator, named: set[str], finite: bool
) -> str:
    """The verb of a pose."""
    named.add("pose")
    return _pick(rng, (FINITE if finite else POSE_VERBS)[v.POSES[labels["pose"]]])


def _noun(phrase: str, adjectives: str) -> str:
    return phrase.replace("*", adjectives)


def _says(rng: np.random.Generator, chance: float) -> bool:
    return rng.random() < chance


def _pick(rng: np.random.Generator, options: tuple[str, ...], usual: float = 0.5) -> str:
    """The first option with chance `usual`, else any of the others."""
    if len(options) == 1 or rng.random() < usual:
        return options[0]
    return options[1 + int(rng.random() * (len(options) - 1))]

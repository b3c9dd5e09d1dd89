"""The phrases of the captions, by the class that they name: what the grammar can say.

`captions.py` speaks in them and `prompts.py` reads them; `words` lists their words for the model
card. The first phrase of a tuple is the usual one.
"""

import re
from collections.abc import Mapping

from pocket.world import vocabulary as v

Table = Mapping[str, tuple[str, ...]]

# In a noun phrase "*" marks the place of the adjectives.
OBJECT_PHRASES = {name: (f"a * {name}",) for name in v.OBJECTS} | {
    "hamburger": ("a * hamburger", "a * burger", "a * cheeseburger"),
    "squirrel": ("a * squirrel", "a * chipmunk"),
    "bunny": ("a * bunny", "a * rabbit", "a * hare"),
    "pancakes": ("a stack of * pancakes", "* pancakes", "a pile of * pancakes"),
    "astronaut": ("a * astronaut", "a * spaceman", "a * cosmonaut"),
    "horse": ("a * horse", "a * pony", "a * foal"),
    "duck": ("a * duck", "a * rubber duck", "a * duckling"),
    "cat": ("a * cat", "a * kitten", "a * kitty"),
    "robot": ("a * robot", "a * android"),
    "car": ("a * car", "a * automobile", "a * auto"),
    "rocket": ("a * rocket", "a * space rocket", "a * spaceship"),
    "house": ("a * house", "a * cottage", "a * home"),
    "mushroom": ("a * mushroom", "a * toadstool"),
    "teapot": ("a * teapot", "a * kettle", "a * pot"),
    "bear": ("a * bear", "a * teddy bear", "a * teddy"),
    "turtle": ("a * turtle", "a * tortoise"),
    "cake": ("a * cake", "a * birthday cake"),
    "chair": ("a * chair", "a * seat"),
    "sailboat": ("a * sailboat", "a * sailing boat", "a * boat"),
    "airplane": ("a * airplane", "a * plane", "a * aeroplane"),
    "mug": ("a * mug", "a * cup", "a * coffee mug"),
    "dog": ("a * dog", "a * puppy"),
    "bird": ("a * bird", "a * songbird"),
    "fish": ("a * fish", "a * goldfish"),
    "dinosaur": ("a * dinosaur", "a * dino"),
    "pig": ("a * pig", "a * piglet", "a * piggy"),
    "frog": ("a * frog", "a * toad"),
    "flower": ("a * flower", "a * blossom"),
    "donut": ("a * donut", "a * doughnut"),
    "ice cream": ("a * ice cream", "a * ice cream cone"),
    "cupcake": ("a * cupcake", "a * muffin"),
    "castle": ("a * castle", "a * fortress"),
    "truck": ("a * truck", "a * lorry"),
    "bicycle": ("a * bicycle", "a * bike"),
    "train": ("a * train", "a * steam locomotive", "a * steam train"),
    "sofa": ("a * sofa", "a * couch"),
    "umbrella": ("a * umbrella", "a * parasol"),
    "hat": ("a * hat", "a * cowboy hat"),
    "ball": ("a * ball", "a * soccer ball", "a * football"),
}
PLURALS = {  # of the last word of a noun; the others follow the rule
    "snowman": "snowmen",
    "spaceman": "spacemen",
    "cactus": "cacti",
    "fish": "fish",
    "goldfish": "goldfish",
}
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
    "sitting": ("sits", "is sitting"),
    "standing": ("stands", "is standing"),
    "reading": ("reads", "is reading"),
    "riding": ("rides", "is riding", "rides on"),
    "holding": ("holds", "is holding", "carries"),
}
ON_PREPOSITIONS = ("on top of", "on")  # after a verb, and of people and animals without one
REVERSED_PHRASES = {"next to": ("to the right of",)}  # the other object first
GROUND_PHRASES = {
    "white": (
        "on a plain white background",
        "on a white background",
        "with a white background",
        "in front of a white wall",
    ),
    "plain": (
        "on a plain background",
        "with a plain background",
        "in a studio",
        "in front of a plain wall",
    ),
    "grass": ("on the grass", "on grass", "in the grass", "on a lawn", "in a meadow", "in a field"),
    "snow": ("in the snow", "on snow", "on the snow", "on snowy ground", "in winter"),
    "sand": ("on the sand", "on sand", "in the sand", "in the desert"),
    "wooden table": ("on a wooden table", "on a table", "on a wooden desk", "on a desk"),
    "checkered floor": (
        "on a checkered floor",
        "on a checkerboard floor",
        "on a tiled floor",
        "on tiles",
    ),
    "mars": ("on mars", "on planet mars", "on the red planet"),
    "moon": ("on the moon", "on the surface of the moon", "on the lunar surface"),
}
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
    "clear": ("clear", "sunny"),
    "cloudy": ("cloudy", "overcast"),
    "foggy": ("foggy", "misty", "hazy"),
    "rain": ("rainy", "wet"),
    "snow": ("snowy", "wintry"),
}
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
    "cartoon": (
        "a cartoon of",
        "a cartoon drawing of",
        "a cartoon illustration of",
        "an illustration of",
        "a comic of",
    ),
}
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
    """Return the plural of a noun phrase with an article, without one; None if it has no article.

    Example:
        >>> plural_phrase("a * hat"), plural_phrase("a stack of * pancakes")
        ('* hats', 'stacks of * pancakes')
    """
    if not phrase.startswith("a "):
        return None
    phrase = phrase.removeprefix("a ")
    head, of, rest = phrase.partition(" of ")
    *before, last = head.split()
    return " ".join([*before, plural(last)]) + of + rest


PLURAL_PHRASES = {
    name: tuple(filter(None, map(plural_phrase, phrases)))
    for name, phrases in OBJECT_PHRASES.items()
}


def words() -> list[str]:
    """Return every word that the grammar can say, in lower case, sorted."""
    tables: list[Table] = [
        *(OBJECT_PHRASES, PLURAL_PHRASES, COUNT_WORDS, COLOR_WORDS, SIZE_ADJECTIVES),
        *(PATTERN_ADJECTIVES, PATTERN_SUFFIXES, POSE_VERBS, RELATION_PHRASES, FINITE),
        *(REVERSED_PHRASES, GROUND_PHRASES, TIME_PHRASES, WEATHER_ADJECTIVES, WEATHER_SUFFIXES),
        *(LANDSCAPE_PHRASES, STYLE_PREFIXES, STYLE_SUFFIXES, VIEW_SUFFIXES),
    ]
    phrases = [phrase for table in tables for options in table.values() for phrase in options]
    phrases += [*ONE_WORDS, *ON_PREPOSITIONS, *NEUTRAL_PREFIXES, *LANDSCAPE_PREFIXES]
    phrases += VIEW_PREFIXES.values()
    return sorted(set(" ".join(phrases).replace("*", " ").split()) | {"a", "an"})

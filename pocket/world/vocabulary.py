"""The classes of the pocket world: what a scene can hold, by name.

A label stores the position of a name in its tuple, so the order is part of the data format:
append, never insert. `captions.py` says how each name is spoken of.
"""

import numpy as np

OBJECTS = (
    "hamburger", "squirrel", "book", "bunny", "pancakes", "astronaut", "horse", "snowman",
    "duck", "cat", "robot", "car", "rocket", "house", "tree", "mushroom", "cactus", "teapot",
    "bear", "penguin", "elephant", "turtle", "cake", "chair", "sailboat", "airplane", "pumpkin", "mug",
    "dog", "bird", "fish", "butterfly", "dinosaur", "cow", "pig", "owl", "frog",
    "flower", "apple", "banana", "donut", "ice cream", "cupcake", "pizza",
    "castle", "lighthouse", "truck", "bicycle", "train",
    "sofa", "bed", "lamp", "umbrella", "guitar", "sword", "hat", "ball",
)  # fmt: skip
# A front is the side at azimuth 0; the others look alike all around (or from both ends).
WITH_FRONT = frozenset(
    ("squirrel", "bunny", "astronaut", "horse", "snowman", "duck", "cat", "robot", "car", "house", "bear", "penguin",
     "elephant", "turtle", "chair", "airplane", "dog", "bird", "fish", "butterfly", "dinosaur", "cow", "pig", "owl",
     "frog", "flower", "castle", "truck", "bicycle", "train", "sofa", "bed", "guitar")
)  # fmt: skip
ANIMATE = frozenset(
    "squirrel bunny astronaut snowman duck cat robot bear penguin elephant turtle horse "
    "dog bird fish butterfly dinosaur cow pig owl frog".split()
)
# Who can ride or read, what can be ridden or sat on: see labels.py for the pairs.
COLORS = (
    "red", "orange", "yellow", "green", "turquoise", "blue", "purple", "pink", "brown", "black", "white", "gray",
)  # fmt: skip
PATTERNS = ("plain", "striped", "checkered", "spotted", "wooden", "metallic")
GROUNDS = (
    "white", "plain", "grass", "snow", "sand", "wooden table", "checkered floor", "mars", "moon",
)  # "white" and "plain" are studio backgrounds, "plain" in any soft colour  # fmt: skip
LIGHTINGS = ("day", "sunset", "night", "dawn")
STYLES = ("photo", "3d render", "pencil sketch", "cartoon")
RELATIONS = ("none", "on", "reading", "riding", "next to")  # "on": on top of; of animals and people also sitting on
LANDSCAPES = (
    "mountains", "beach", "desert", "forest", "city skyline", "meadow", "ocean", "snowy hills", "canyon", "mars",
    "village", "river", "waterfall", "park", "volcano", "underwater", "space",
)  # fmt: skip
NO_WEATHER = frozenset(("underwater", "space"))  # always "clear"
TIMES = ("day", "sunset", "night", "dawn")
WEATHERS = ("clear", "cloudy", "foggy", "rain", "snow")
VIEWS = ("front", "side", "back", "overhead")

# One record a scene. -1 means: this scene has none (a landscape has no object, an object in its
# natural colours has no color, ...). azimuth in [-180, 180) and elevation in degrees: azimuth 0
# faces the object's front and grows counter-clockwise seen from above.
LABELS = np.dtype(
    [
        ("seed", np.int64),
        ("heldout", np.bool_),  # holds a composition that training never sees
        ("object", np.int8), ("color", np.int8), ("pattern", np.int8),
        ("relation", np.int8), ("object2", np.int8), ("color2", np.int8),
        ("ground", np.int8), ("lighting", np.int8), ("style", np.int8),
        ("landscape", np.int8), ("time", np.int8), ("weather", np.int8),
        ("azimuth", np.float32), ("elevation", np.float32),
    ]
)  # fmt: skip


def view_word(azimuth: float, elevation: float) -> str:
    """The word for a view in degrees: overhead from elevation 60, else front within 45 of azimuth 0,
    back beyond 135, side between."""
    if elevation >= 60:
        return "overhead"
    turn = abs((azimuth + 180) % 360 - 180)
    return "front" if turn < 45 else "back" if turn > 135 else "side"

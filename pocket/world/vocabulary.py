"""The classes of the pocket world: what a scene can hold, by name.

A label stores the position of a name in its tuple, so the order is part of the data format:
append, never insert. `phrases.py` has the words for each name.
"""

import numpy as np

from course.views import VIEWS as VIEWS
from course.views import view_word as view_word


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(", "))


OBJECTS = _names(
    "hamburger, squirrel, book, bunny, pancakes, astronaut, horse, snowman, duck, cat, "
    "robot, car, rocket, house, tree, mushroom, cactus, teapot, bear, penguin, elephant, "
    "turtle, cake, chair, sailboat, airplane, pumpkin, mug, dog, bird, fish, butterfly, "
    "dinosaur, cow, pig, owl, frog, flower, apple, banana, donut, ice cream, cupcake, "
    "pizza, castle, lighthouse, truck, bicycle, train, sofa, bed, lamp, umbrella, guitar, "
    "sword, hat, ball"
)
# A front is the side at azimuth 0; the others look alike all around (or from both ends).
WITH_FRONT = frozenset(
    _names(
        "squirrel, bunny, astronaut, horse, snowman, duck, cat, robot, car, house, bear, "
        "penguin, elephant, turtle, chair, airplane, dog, bird, fish, butterfly, dinosaur, "
        "cow, pig, owl, frog, flower, castle, truck, bicycle, train, sofa, bed, guitar"
    )
)
ANIMATE = frozenset(
    _names(
        "squirrel, bunny, astronaut, horse, snowman, duck, cat, robot, bear, penguin, "
        "elephant, turtle, dog, bird, fish, butterfly, dinosaur, cow, pig, owl, frog"
    )
)
# What can be held in a hand.
HOLDABLE = frozenset(
    _names(
        "hamburger, book, pancakes, duck, mushroom, cactus, teapot, cake, pumpkin, mug, bird, "
        "fish, butterfly, frog, flower, apple, banana, donut, ice cream, cupcake, pizza, lamp, "
        "umbrella, guitar, sword, hat, ball"
    )
)
# The poses of those that cannot take both; what has no legs takes none.
POSES_OF: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("squirrel", "bunny", "cat", "frog"), ("sitting",)),
    **dict.fromkeys(
        ("snowman", "duck", "penguin", "elephant", "turtle", "horse", "bird", "owl"), ("standing",)
    ),
    **dict.fromkeys(("fish", "butterfly"), ()),
}
COLORS = tuple("red orange yellow green turquoise blue purple pink brown black white gray".split())
PATTERNS = ("plain", "striped", "checkered", "spotted", "wooden", "metallic")
# "white" and "plain" are studio backgrounds, "plain" in any soft color.
GROUNDS = _names("white, plain, grass, snow, sand, wooden table, checkered floor, mars, moon")
LIGHTINGS = ("day", "sunset", "night", "dawn")
STYLES = ("photo", "3d render", "pencil sketch", "cartoon")
RELATIONS = ("none", "on", "reading", "riding", "next to", "holding")  # "on": on top of
COUNTS = ("one", "two", "three")  # of the object, where it has no relation
SIZES = ("small", "big")  # of the image for one object, of the other object for one of a pair
POSES = ("standing", "sitting")  # of people and animals
LANDSCAPES = _names(
    "mountains, beach, desert, forest, city skyline, meadow, ocean, snowy hills, canyon, "
    "mars, village, river, waterfall, park, volcano, underwater, space"
)
NO_WEATHER = frozenset(("underwater", "space"))  # always "clear"
TIMES = ("day", "sunset", "night", "dawn")
WEATHERS = ("clear", "cloudy", "foggy", "rain", "snow")

# The names that a label chooses from, by field.
CLASSES: dict[str, tuple[str, ...]] = {
    "object": OBJECTS,
    "color": COLORS,
    "pattern": PATTERNS,
    "relation": RELATIONS,
    "object2": OBJECTS,
    "color2": COLORS,
    "ground": GROUNDS,
    "lighting": LIGHTINGS,
    "style": STYLES,
    "landscape": LANDSCAPES,
    "time": TIMES,
    "weather": WEATHERS,
    "pattern2": PATTERNS,
    "count": COUNTS,
    "size": SIZES,
    "size2": SIZES,
    "pose": POSES,
}

# One record a scene. -1 means: this scene has none (a landscape has no object, an object in its
# natural colors has no color, ...). azimuth in [-180, 180) and elevation in degrees: azimuth 0
# faces the object's front and grows counter-clockwise seen from above.
# The order of the fields may change: records are read by field (`labels.upgrade`).
LABELS = np.dtype(
    [
        ("seed", np.int64),
        ("heldout", np.bool_),  # holds a composition that training never sees
        *((name, np.int8) for name in CLASSES),
        ("azimuth", np.float32),
        ("elevation", np.float32),
    ]
)


def empty_labels() -> np.ndarray:
    """Return a record, 0-d of LABELS, in which nothing is chosen yet, seen from the front."""
    labels = np.full((), -1, LABELS)
    labels["seed"] = labels["azimuth"] = labels["elevation"] = 0
    labels["heldout"] = False
    return labels

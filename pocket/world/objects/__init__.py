"""The recipes of all objects: each function builds one, with random proportions.

A recipe gets the builder and a pose ("stand", "sit", "ride", or "base" for what carries another
object) and returns its anchors. y is up, the front is toward +z (azimuth 0), the object stands on
y = 0 and is about one unit tall.
"""

from __future__ import annotations

from collections.abc import Callable

from pocket.world.builder import Anchors, Builder
from pocket.world.objects import animals, buildings, figures, food, plants, things, vehicles
from pocket.world.objects.things import open_book
from pocket.world.vocabulary import OBJECTS

__all__ = ["RECIPES", "SIZES", "Recipe", "open_book"]

Recipe = Callable[[Builder, str], Anchors]

FAMILIES = (animals, buildings, figures, food, plants, things, vehicles)
FUNCTIONS = {name: f for family in FAMILIES for name, f in vars(family).items()}
RECIPES: dict[str, Recipe] = {name: FUNCTIONS[name.replace(" ", "_")] for name in OBJECTS}

# How large a thing is beside others: a small one can be held, a large one is larger than a person.
SMALL = (
    "hamburger, book, pancakes, mushroom, teapot, cake, mug, bird, fish, butterfly, frog, flower, "
    "apple, banana, donut, ice cream, cupcake, pizza, hat, ball"
).split(", ")
LARGE = (
    "horse car rocket house tree elephant sailboat airplane dinosaur cow castle lighthouse truck "
    "train bed sofa"
).split()
SIZES = (
    dict.fromkeys(OBJECTS, "medium") | dict.fromkeys(SMALL, "small") | dict.fromkeys(LARGE, "large")
)

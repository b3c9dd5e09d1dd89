"""The pocket world: captioned scenes that the project renders itself.

`sample_scene(seed)` samples a scene (labels and parameters), `render` renders it, `caption`
describes it, and `parse` reads such captions back.
"""

from pocket.world.captions import caption
from pocket.world.labels import heldout_compositions, is_heldout, sample_labels
from pocket.world.prompts import parse, prompt_labels
from pocket.world.renderer import Rendered, render
from pocket.world.scene import SCENE_FLOATS, Scene, sample_scene

__all__ = [
    "SCENE_FLOATS",
    "Rendered",
    "Scene",
    "caption",
    "heldout_compositions",
    "is_heldout",
    "parse",
    "prompt_labels",
    "render",
    "sample_labels",
    "sample_scene",
]

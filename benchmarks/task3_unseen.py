"""Text to 3D with prompts that no setting was chosen on: the group `unseen` of benchmarks.task3.

The texts are sampled from the grammar of the pocket world, held-out compositions included, and
`main.py --prompts` generates them with its defaults. What it wrote is measured here: does the judge
read what the text names, is there an object and not fog, how rough is its surface, is the mesh
whole? Renders of the same texts by the world are the reference.
"""

import json
import re
import statistics
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trimesh
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from course import notebooks
from course.figures import Row, make_rows
from course.images import image_grid, to_pil
from course.metrics import Judge, JudgeFeatures, PerceptualDistance, fid
from course.models import Model
from course.models.prompts import unknown_words
from pocket.prompts_read import correct_prompts
from pocket.world import parse, prompt_labels, render, sample_labels
from pocket.world import vocabulary as v
from pocket.world.phrases import OBJECT_PHRASES, PATTERN_ADJECTIVES, RELATION_PHRASES
from pocket.world.scene import build_scene
from task_3_DreamFusion.jobs import FAILED, FINISHED, folder_name
from task_3_DreamFusion.nerf import checkpoint
from task_3_DreamFusion.nerf.appraisal import fog_share
from task_3_DreamFusion.nerf.export import normal_map
from task_3_DreamFusion.nerf.guidance import StableDiffusion
from task_3_DreamFusion.nerf.provider import orbit
from task_3_DreamFusion.nerf.utils import Trainer

PROGRAM = notebooks.ROOT / "task_3_DreamFusion" / "main.py"
SIDES, FIRST, SIZE = 8, 22.5, 256  # views around; azimuth of the first, between two view words
ELEVATION = 15.0
EMPTY = 0.02  # mean opacity below which an image is empty
MAX_FOG = 0.35  # share of the visible pixels
LUMP = 0.5  # confidence of the judge that all views show one object, below which it is a lump
EXTENT = (0.55, 0.90)  # of the object's bounding circle, as a share of the frame
MAX_HOLE, MAIN_PART = 0.01, 0.98  # of the area of a mesh
RIGHT_VIEWS = 7  # of 8, in which everything that a text names has to be read right
SHEET = 25  # texts a contact sheet


# --- The texts


def describe(labels: np.ndarray) -> str:
    """Return the text of the objects of a scene, colors, patterns and relation included.

    labels: 0-d of `vocabulary.LABELS`. Ground, light, style and view are left out.
    """

    def noun(which: str) -> str:
        color, pattern = int(labels[f"color{which}"]), int(labels[f"pattern{which}"])
        words = [PATTERN_ADJECTIVES[v.PATTERNS[pattern]][0]] if pattern > 0 else []
        words += [v.COLORS[color]] if color >= 0 else []
        phrase = OBJECT_PHRASES[v.OBJECTS[labels[f"object{which}"]]][0]
        return " ".join(phrase.replace("*", " ".join(words)).split())

    words = [noun("")]
    if labels["relation"] > 0:
        words += [RELATION_PHRASES[v.RELATIONS[labels["relation"]]][0], noun("2")]
    return re.sub(r"\ba (?=[aeiou])", "an ", " ".join(words))


def sample_texts(count: int, seed: int, vocabulary: frozenset[str] | None = None) -> list[str]:
    """Return different texts whose words are all in a vocabulary (None: any words)."""
    rng = np.random.default_rng(seed)
    texts: dict[str, None] = {}
    while len(texts) < count:
        text = describe(sample_labels(rng, 0, "all", "object"))
        if vocabulary is None or not unknown_words(text, vocabulary):
            texts[text] = None
    return list(texts)


# --- The runs


def generate(texts: Sequence[str], folder: Path, processes: int, options: Sequence[str]) -> None:
    """Generate the texts by main.py in folders of `folder`, shared by processes on each GPU."""
    folder.mkdir(parents=True, exist_ok=True)
    prompts = folder / "texts.txt"
    prompts.write_text("\n".join(texts) + "\n", encoding="utf-8")
    command = [sys.executable, str(PROGRAM), "--prompts", str(prompts), "--workspace", str(folder)]
    command += ["--model", "pocket", *options]
    running = []
    for i in range(processes):
        with (folder / f"process_{i}.log").open("w") as log:
            each = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        running.append(each)
    if unexpected := [code for each in running if (code := each.wait()) not in (0, 1)]:
        raise RuntimeError(f"main.py ended with {unexpected}: see the logs in {folder}")


# --- What is measured


@dataclass
class Outcome:
    """What became of a text.

    failure: "gave up", "empty", "fog", "lump", or "" for an object. is_done: main.py reported it
    as done. right: which fields are read right, bool (SIDES,) by field. view: in which views the
    side is read right; None without a front. The lists are per view.
    """

    text: str
    failure: str
    is_done: bool
    seconds: float = 0.0
    right: dict[str, np.ndarray] = field(default_factory=dict)
    view: np.ndarray | None = None
    extent: float = 0.0
    roughness: tuple[float, float] = (0.0, 0.0)  # of the object, and of the world's renders
    mesh: bool = False  # without large holes, in one part
    images: list[Image.Image] = field(default_factory=list)
    pixels: Tensor | None = None  # (SIDES, 3, SIZE, SIZE) in [-1, 1]

    @property
    def views_right(self) -> int:
        """In how many views everything that the text names is read right."""
        return int(np.logical_and.reduce(list(self.right.values())).sum()) if self.right else 0


def bounding_share(opacity: Tensor) -> float:
    """Return the diameter of the object's bounding circle as a share of the frame.

    opacity: (N, H, W) of views around; the largest counts. The circle is that around the middle of
    the bounding box.
    """
    shares = [0.0]
    for mask in opacity > 0.5:
        points = mask.nonzero().float()
        if len(points):
            middle = (points.amax(0) + points.amin(0)) / 2
            shares.append(float(2 * (points - middle).norm(dim=1).max() / mask.shape[0]))
    return max(shares)


def surface_roughness(normals: Tensor, mask: Tensor) -> float:
    """Return the mean angle in degrees between each normal and the mean of its 5 x 5 neighbors.

    normals: (N, H, W, 3) unit vectors. mask: (N, H, W) bool; only whole neighborhoods in it count.
    """
    weights = mask.float()[:, None]
    masked = normals.permute(0, 3, 1, 2) * weights
    mean = F.normalize(F.avg_pool2d(masked, 5, 1, 2), dim=1)
    whole = F.avg_pool2d(weights, 5, 1, 2)[:, 0] > 0.999
    cosines = (mean * masked).sum(1).clamp(-1, 1)[whole]
    return float(torch.rad2deg(torch.acos(cosines)).mean()) if len(cosines) else 0.0


def is_mesh_whole(path: Path) -> bool:
    """Return whether a mesh has no hole of more than MAX_HOLE of its area, and is one part."""
    if not path.exists():
        return False
    mesh = trimesh.load_mesh(path, process=False)
    mesh.merge_vertices(merge_tex=True, merge_norm=True)  # the texture's seams are no holes
    parts = mesh.split(only_watertight=False)
    if max((part.area for part in parts), default=0.0) < MAIN_PART * mesh.area:
        return False
    if mesh.is_watertight:
        return True
    holes = []
    outline = mesh.outline()
    for loop in outline.discrete if len(outline.entities) else []:
        fan = loop - loop.mean(0)
        holes.append(np.linalg.norm(np.cross(fan[:-1], fan[1:]), axis=1).sum() / 2)
    return bool(max(holes, default=0.0) <= MAX_HOLE * mesh.area)


def render_reference(text: str, device: torch.device, seed: int = 0) -> tuple[Tensor, float]:
    """Return the world's renders of a text, uint8 (SIDES, SIZE, SIZE, 3), and their roughness."""
    params = []
    for azimuth in orbit(SIDES, start=FIRST).azimuth.tolist():
        rng = np.random.default_rng(seed)
        labels = prompt_labels(f"{text} on a plain background", rng)
        labels["azimuth"], labels["elevation"] = azimuth, ELEVATION
        params.append(build_scene(labels, rng))
    renders = render(np.stack(params), SIZE, SIZE, device=device)
    return renders.color.cpu(), surface_roughness(renders.normal, renders.mask.bool())


class Measurement:
    """Measures what main.py wrote, with the judge and the model of the course."""

    def __init__(self, guidance: StableDiffusion) -> None:
        self.guidance = guidance
        self.device = guidance.device
        self.judge = Judge(self.device)
        names = self.judge.names
        self.objects = [i for i, name in names.items() if name.startswith("object:")]

    def confidence(self, pixels: Tensor) -> float:
        """Return how sure the judge is that all images in [-1, 1] show one object, in [0, 1].

        It is the mean over images of the probability of the likeliest object. A single image says
        little: the judge is sure of what it sees in noise, too.
        """
        with torch.no_grad():
            logits = self.judge.logits(pixels.to(self.device))[:, self.objects]
        return float(logits.float().softmax(1).mean(0).max())

    def __call__(self, text: str, folder: Path) -> Outcome:
        is_done = (folder / FINISHED).exists() and not (folder / FAILED).exists()
        path = checkpoint.latest(folder / "checkpoints") if is_done else None
        if path is None:
            blank = [to_pil(torch.ones(3, SIZE, SIZE))] * SIDES
            return Outcome(text, "gave up", is_done, images=blank)
        saved = checkpoint.read_run(path)
        trainer = Trainer(saved.settings, self.guidance, folder)
        trainer.resume(saved)
        cameras = orbit(SIDES, ELEVATION, start=FIRST)
        views = torch.stack(trainer.images(cameras, SIZE)).float()  # (SIDES, 5, SIZE, SIZE)
        pixels = 2 * views[:, :3].clamp(0, 1) - 1
        images = [to_pil(image) for image in pixels]
        attributes = self.judge.classify(torch.from_numpy(np.stack([np.array(i) for i in images])))
        words = [v.view_word(azimuth, ELEVATION) for azimuth in cameras.azimuth.tolist()]
        named = parse(text)
        sides = np.array([v.view_word(float(azimuth), 0) for azimuth in attributes["azimuth"]])
        normals = torch.stack([normal_map(cameras[i : i + 1], views[i]) for i in range(SIDES)])
        vectors = F.normalize(2 * normals.permute(0, 2, 3, 1) - 1, dim=-1)
        return Outcome(
            text,
            self.failure(views[:, 3], pixels),
            is_done,
            json.loads((folder / FINISHED).read_text(encoding="utf-8"))["seconds"],
            correct_prompts([text] * SIDES, attributes),
            sides == np.array(words) if named["object"] in v.WITH_FRONT else None,
            bounding_share(views[:, 3]),
            (
                surface_roughness(vectors, views[:, 3] > 0.95),
                render_reference(text, self.device)[1],
            ),
            is_mesh_whole(folder / "mesh.glb"),
            images,
            pixels.cpu(),
        )

    def failure(self, opacity: Tensor, pixels: Tensor) -> str:
        """Return what is wrong with views: opacity (N, H, W), and pixels (N, 3, H, W)."""
        if float(opacity.mean()) < EMPTY:
            return "empty"
        if fog_share(opacity) > MAX_FOG:
            return "fog"
        return "lump" if self.confidence(pixels) < LUMP else ""


# --- The rows


def save_sheets(outcomes: Sequence[Outcome], folder: Path) -> None:
    """Write contact sheets of all texts, and one of what failed, a text in each row."""
    bad = [each for each in outcomes if each.failure or each.views_right < RIGHT_VIEWS]
    sheets = {f"{i // SHEET + 1}": outcomes[i : i + SHEET] for i in range(0, len(outcomes), SHEET)}
    for name, part in (sheets | {"failures": bad}).items():
        if part:
            images = [image for each in part for image in each.images]
            rows = [textwrap.fill(f"{each.text} {each.failure}".strip(), 24) for each in part]
            sheet = image_grid(images, columns=SIDES, rows=rows, side=128)
            sheet.save(folder / f"unseen_{name}.png")


def quality(outcomes: Sequence[Outcome], device: torch.device) -> tuple[float, float]:
    """Return FD on the judge's features, and the perceptual distance view by view, to renders."""
    references = [render_reference(each.text, device)[0] for each in outcomes]
    renders = torch.cat(references).permute(0, 3, 1, 2).float() / 127.5 - 1
    views = torch.cat([each.pixels for each in outcomes if each.pixels is not None])
    features = JudgeFeatures(device)
    distance = PerceptualDistance().to(device)
    with torch.no_grad():
        vectors = [
            torch.cat([features.pool(part.to(device)).cpu() for part in images.split(64)])
            for images in (views, renders)
        ]
        distances = [
            distance(a.to(device), b.to(device)).flatten().cpu()
            for a, b in zip(views.split(64), renders.split(64), strict=True)
        ]
    return fid(*vectors), float(torch.cat(distances).mean())


def share(hits: Sequence[Any]) -> float:
    return round(100 * sum(map(bool, hits)) / max(len(hits), 1), 2)


def summarize(outcomes: Sequence[Outcome], about: str, device: torch.device) -> list[Row]:
    """Return the rows of the texts' outcomes. about: which texts they are."""
    good = [each for each in outcomes if not each.failure]
    rough = [a / b for each in good for a, b in [each.roughness] if b]
    sides = [hit for each in outcomes if each.view is not None for hit in each.view]
    fields = sorted({name for each in outcomes for name in each.right})
    views = {name: [hit for e in outcomes for hit in e.right.get(name, ())] for name in fields}
    objects = [hit for e in outcomes for hit in e.right.get("object", [False] * SIDES)]
    silent = sum(each.is_done for each in outcomes if each.failure)
    extents = [EXTENT[0] <= each.extent <= EXTENT[1] for each in good]
    figures: list[tuple[Any, ...]] = [
        ("failed", "gave up, empty, fog or lump", share([e.failure for e in outcomes]), "%"),
        ("silent", "of these reported as done", silent, ""),
        ("object", "object read right, of all views", share(objects), "%", ">=", 95.0),
        (
            "all",
            f"everything named is right in {RIGHT_VIEWS} of {SIDES} views",
            share([each.views_right >= RIGHT_VIEWS for each in outcomes]),
            "%",
            ">=",
            85.0,
        ),
        ("side", "side read right, of things with a front", share(sides), "%", ">=", 93.0),
        ("extent", "bounding sphere 55 to 90 % of the frame", share(extents), "%", ">=", 95.0),
        ("mesh", "mesh without large holes, in one part", share([e.mesh for e in outcomes]), "%"),
    ]
    bars = {"failed": ("<=", 3.0), "silent": ("<=", 0.0), "mesh": (">=", 95.0)}
    figures = [(*each, *bars.get(each[0], ())) for each in figures]
    if good:
        seconds = statistics.median(each.seconds for each in good)
        distance, perceptual = quality(good, device)
        figures += [
            ("roughness", "roughness, median, renders = 1", statistics.median(rough), "x", "<=", 2),
            ("seconds", "a text, median, clip and mesh included", seconds, "s", "<="),
            ("distance", "FD of the judge's features to renders", distance, "", "<="),
            ("perceptual", "perceptual distance to renders, by view", perceptual, "", "<="),
        ]
    figures += [
        (name, f"{name} read right, of all views", share(views[name]), "%")
        for name in fields
        if name != "object"
    ]
    return make_rows("task3.unseen", about, *figures)


def unseen_rows(
    model: Model,
    seed: int,
    count: int,
    processes: int,
    folder: Path,
    options: Sequence[str] = (),
) -> list[Row]:
    """Generate and measure `count` texts of a seed; the runs and sheets stay in `folder`."""
    texts = sample_texts(count, seed, model.vocabulary)
    generate(texts, folder, processes, options)
    measure = Measurement(StableDiffusion(model))
    outcomes = [measure(text, folder / folder_name(text)) for text in texts]
    for each in outcomes:
        print(f"{each.text}: {each.failure or f'{each.views_right} of {SIDES} views right'}")
    save_sheets(outcomes, folder)
    return summarize(outcomes, f"{count} unseen texts of seed {seed}", measure.device)

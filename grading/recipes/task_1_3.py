"""The recipes of lesson 1.3, on small networks with random weights.

The exercises with images of the student's own, (i), (j) and the challenges, are graded from their
images.
"""

import copy
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import torch
from diffusers import ControlNetModel, DDIMScheduler, UNet2DConditionModel
from PIL import Image
from torch import Tensor

from course.models import pipelines
from course.models.controlnet import Control
from grading.recipe import Arrays, Recipes, Space, numbers, parts, run_cells
from grading.small_model import tiny_unet

LESSON = "task_1_3_ControlNet.ipynb"
GIVEN = ("cell-02", "cell-04", "cell-05", "cell-08", "cell-10", "cell-22")
EDGES = ("cell-14", "cell-19")
STEP = (*EDGES, "cell-28", "cell-31", "cell-34")
LOOP = (*STEP, "cell-37", "cell-39")
WIDTH = 6  # of the text embeddings


def set_up() -> Space:
    """Return the lesson's names; those of a cell that runs a ControlNet without running it."""
    space = run_cells(LESSON, GIVEN)
    names = ("decode_latents", "encode_prompts", "starting_noise")
    space |= {name: getattr(pipelines, name) for name in names}
    edges = torch.zeros((1, 3, space["model"].image_size, space["model"].image_size))
    return space | {"Control": Control, "by_edges": Control(space["networks"]["canny"], edges)}


RECIPES = Recipes(LESSON, set_up)


def tiny_controls(unet: UNet2DConditionModel, g: torch.Generator, sides: tuple[int, int]) -> Any:
    """Return three controls for latents of these sides, all different; no weight is zero."""
    controls = []
    for scale, start, end in ((1.0, 0.0, 1.0), (0.3, 0.25, 1.0), (-1.7, 0.0, 0.5)):
        network = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(4, 8)).eval()
        with torch.no_grad():
            for weight in network.parameters():
                weight.add_(0.25 * torch.randn(weight.shape, generator=g))
        condition = torch.rand((1, 3, *(2 * side for side in sides)), generator=g)
        controls.append(Control(network, condition, scale, start, end))
    return controls


def stand_in(model: Any, **changes: Any) -> Any:
    """Return a model with other properties, such as its dtype."""
    return type("StandInModel", (type(model),), changes)(model.name, model.folder)


def pipe_with(pipe: Any, **changes: Any) -> Any:
    """Return the components of a pipeline, with other ones in the place of some."""
    components = {**pipe.components, **changes}
    return SimpleNamespace(**components, components=components, device=pipe.device)


def random_image(g: np.random.Generator, height: int, width: int) -> Image.Image:
    """Return an image of a few bodies with edges of all strengths, and with noise."""
    page = np.full((height, width, 3), g.integers(60, 190, 3), np.uint8)
    for _ in range(9):
        center = (int(g.integers(width)), int(g.integers(height)))
        axes = (int(g.integers(6, width // 3)), int(g.integers(6, height // 3)))
        color = g.integers(0, 256, 3).tolist()
        cv2.ellipse(page, center, axes, float(g.uniform(0, 180)), 0, 360, color, -1)
    soft = cv2.GaussianBlur(page, (0, 0), 0.5) + g.normal(0, 12, page.shape)
    return Image.fromarray(soft.clip(0, 255).astype(np.uint8))


@RECIPES.add("1.3 (a)")
def edges(space: Space, seed: int) -> Arrays:
    g = np.random.default_rng(seed)

    def attempt(height: int, width: int, *thresholds: int) -> np.ndarray:
        return numbers(space["canny_edges"](random_image(g, height, width), *thresholds))

    return parts(
        {
            "with the usual thresholds": lambda: attempt(71, 94),
            "with other thresholds": lambda: attempt(83, 60, 20, 130),
            "with thresholds far from each other": lambda: attempt(64, 101, 60, 330),
        }
    )


@RECIPES.add("1.3 (b)", cells=("cell-14",))
def condition(space: Space, seed: int) -> Arrays:
    g, model = np.random.default_rng(seed), space["model"]

    def attempt(height: int, width: int, **changes: Any) -> np.ndarray:
        """Return the condition for a model with these properties, and its dtype."""
        space["model"] = stand_in(model, **{"device": torch.device("cpu"), **changes})
        result = space["to_condition"](g.random((height, width, 3)))
        values = torch.zeros(0) if result.is_meta else result
        dtype = torch.finfo(result.dtype).bits / 64
        return numbers(values, dtype, [0] * result.ndim, *([0] * n for n in result.shape))

    half, meta = torch.float16, torch.device("meta")
    return parts(
        {
            "in single precision": lambda: attempt(18, 26, dtype=torch.float32),
            "for a model in half precision": lambda: attempt(31, 14, dtype=half),
            "for a model on another device": lambda: attempt(
                9 + seed % 7, 13, dtype=half, device=meta
            ),
        }
    )


@RECIPES.add("1.3 (c)", cells=EDGES)
def residuals(space: Space, seed: int) -> Arrays:
    g = torch.Generator().manual_seed(seed)
    sides = (4, 10)
    controls = tiny_controls(tiny_unet(seed, WIDTH), g, sides)

    def attempt(number: int, chosen: list[Control], batch: int) -> list[Any]:
        """Return the residuals of the skips, as a list, and that of the middle."""
        own = torch.Generator().manual_seed(seed + number)
        latents = torch.randn((batch, 4, *sides), generator=own)
        embeddings = torch.randn((batch, 5, WIDTH), generator=own)
        t = int(torch.randint(1000, (1,), generator=own))
        with torch.no_grad():
            down, mid = space["control_residuals"](chosen, latents, t, embeddings)
        return [down, mid]

    def without_controls() -> np.ndarray:
        """Return the residuals without controls after those of a control."""
        return numbers(*attempt(4, controls[1:2], 1), attempt(5, [], 2))

    return parts(
        {
            "one control at scale 1": lambda: numbers(*attempt(1, controls[:1], 2)),
            "one control at another scale": lambda: numbers(*attempt(2, controls[1:2], 3)),
            "several controls, for the skips": lambda: numbers(attempt(3, controls, 3)[0]),
            "several controls, for the middle": lambda: numbers(attempt(3, controls, 3)[1]),
            "no controls": without_controls,
        }
    )


@RECIPES.add("1.3 (d)", cells=(*EDGES, "cell-28"))
def controlled(space: Space, seed: int) -> Arrays:
    g = torch.Generator().manual_seed(seed)
    sides = (6, 4)
    unet = tiny_unet(seed, WIDTH)
    controls = tiny_controls(unet, g, sides)
    space["pipe"] = pipe_with(space["pipe"], unet=unet)

    def attempt(chosen: list[Control], w: float, t: int, double: bool = False) -> np.ndarray:
        latents = torch.randn((1, 4, *sides), generator=g)
        embeddings = torch.randn((2, 5, WIDTH), generator=g)
        network = unet
        if double:
            network, embeddings = copy.deepcopy(unet).double(), embeddings.double()
            chosen = [
                c._replace(
                    network=copy.deepcopy(c.network).double(), condition=c.condition.double()
                )
                for c in chosen
            ]
        before = latents.clone()
        result = space["guided_output"](network, latents, t, embeddings, chosen, w)
        size = [0] * torch.finfo(result.dtype).bits
        return numbers(result, size if double else [], latents - before)

    return parts(
        {
            "one control": lambda: attempt(controls[:1], 2.6, 340),
            "several controls": lambda: attempt(controls, 4.2, 815),
            "the output without the prompt": lambda: attempt(controls[1:], 0.0, 120),
            "no controls": lambda: attempt([], 3.3, 505),
            "in another precision": lambda: attempt(controls[:2], 1.8, 660, double=True),
        }
    )


@RECIPES.add("1.3 (e)", cells=(*EDGES, "cell-28", "cell-31"))
def active(space: Space, seed: int) -> Arrays:
    g = np.random.default_rng(seed)

    def attempt(windows: list[tuple[float, float]], count: int) -> np.ndarray:
        """Return the numbers of the controls that are active in each step."""
        given = [
            Control(number, torch.zeros(1, 3, 8, 8), 0.5, *window)
            for number, window in enumerate(windows, 1)
        ]
        steps = [space["active_controls"](list(given), i, count) for i in range(count)]
        return numbers(*([each.network for each in step] for step in steps))

    def on_steps() -> np.ndarray:
        """Return those whose windows begin and end with a step; a power of 2 has no rounding."""
        ends = np.sort(g.integers(0, 17, (9, 2)), axis=1) / 16
        return attempt([*map(tuple, ends.tolist()), (0.0, 1.0)], 16)

    def between_steps() -> np.ndarray:
        ends = np.sort((g.integers(0, 11, (9, 2)) + g.uniform(0.1, 0.9, (9, 2))) / 11, axis=1)
        return attempt([*map(tuple, ends.tolist()), (0.0, 1.0)], 11)

    def of_few_steps() -> np.ndarray:
        ends = np.sort(g.uniform(0.02, 0.98, (20, 2)), axis=1)
        return attempt([*map(tuple, ends.tolist()), (0.0, 1.0)], 3)

    return parts(
        {
            "windows that end with a step": on_steps,
            "windows that end within a step": between_steps,
            "few steps": of_few_steps,
        }
    )


@RECIPES.add("1.3 (f)", cells=LOOP)
def edge_f1(space: Space, seed: int) -> Arrays:
    g = np.random.default_rng(seed)

    def dots(share: float) -> np.ndarray:
        return np.repeat(g.random((47, 62, 1)) < share, 3, axis=2).astype(np.float64)

    def attempt(share: float, other: float, *within: int) -> np.ndarray:
        first, second = dots(share), dots(other)
        before = first.copy(), second.copy()
        result = space["edge_f1"](first, second, *within)
        changes = [abs(first - before[0]).sum(), abs(second - before[1]).sum()]
        return numbers(float(result), changes)

    def without_edges() -> np.ndarray:
        """Return the results where one map is empty, both are, or no pixel is correct."""
        some, none = dots(0.02), dots(0.0)
        corner, opposite = none.copy(), none.copy()
        corner[:3, :3], opposite[-3:, -4:] = 1, 1
        pairs = [(some, none), (none, some), (none, none), (corner, opposite), (some, dots(0.05))]
        return numbers(*(float(space["edge_f1"](*pair)) for pair in pairs))

    return parts(
        {
            "more edges than expected": lambda: attempt(0.05, 0.01),
            "fewer edges than expected": lambda: attempt(0.01, 0.04),
            "other distances": lambda: numbers(*(attempt(0.01, 0.013, n) for n in (5, 1, 4, 3))),
            "maps without edges": without_edges,
        }
    )


@RECIPES.add("1.3 (g)", cells=(*LOOP, "cell-53"))
def zero_convolution(space: Space, seed: int) -> Arrays:
    g = torch.Generator().manual_seed(seed)
    channels = 9 + int(torch.randint(8, (1,), generator=g))
    u, target = torch.randn((2, 3, channels, 4, 7), generator=g)

    def at_the_start() -> np.ndarray:
        layer = space["zero_convolution"](channels)
        return numbers(layer(u) + u, layer.weight, layer.bias)

    def trained() -> np.ndarray:
        """Return weights and bias after two steps toward a target, and the inputs' gradient."""
        layer = space["zero_convolution"](channels)
        inputs = u.clone().requires_grad_()
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
        for _ in range(2):
            optimizer.zero_grad()
            (layer(inputs) - target).square().mean().backward()
            optimizer.step()
        return numbers(layer.weight, layer.bias, inputs.grad)

    return parts({"zero at the start": at_the_start, "two steps of training": trained})


@RECIPES.add("1.3 (h)", cells=(*LOOP, "cell-53", "cell-71"))
def control_loss(space: Space, seed: int) -> Arrays:
    g = torch.Generator().manual_seed(seed)
    sides = (6, 8)
    unet = tiny_unet(seed, WIDTH).requires_grad_(False)
    networks = [control.network for control in tiny_controls(unet, g, sides)]
    pipe, model = space["pipe"], space["model"]
    scheduler = DDIMScheduler(num_train_timesteps=400, beta_start=0.001, beta_end=0.03)

    def attempt(network: Any, kind: str, batch: int) -> Tensor:
        """Return the loss of a batch for a denoiser that predicts noise or v.

        It is NaN if the function changes the latents or the noise that it gets.
        """
        space["pipe"] = pipe_with(pipe, unet=unet, scheduler=scheduler)
        changes = {"prediction_type": kind, "dtype": torch.float32, "device": torch.device("cpu")}
        space["model"] = stand_in(model, **changes)
        latents, noise = torch.randn((2, batch, 4, *sides), generator=g)
        images = torch.rand((batch, 3, *(2 * side for side in sides)), generator=g)
        embeddings = torch.randn((batch, 5, WIDTH), generator=g)
        t = torch.randint(400, (batch,), generator=g)
        before = latents.clone(), noise.clone()
        loss: Tensor = space["control_loss"](network, latents, images, embeddings, t, noise)
        changed = not torch.equal(latents, before[0]) or not torch.equal(noise, before[1])
        return torch.full((), torch.nan) if changed else loss

    def losses(network: Any, kind: str) -> np.ndarray:
        with torch.no_grad():
            return numbers(*(attempt(network, kind, batch) for batch in (3, 1, 2)))

    def gradient(loss: Callable[[], Tensor], network: Any) -> np.ndarray:
        gradients = torch.autograd.grad(loss(), [*network.parameters()], allow_unused=True)
        return numbers(*gradients)

    return parts(
        {
            "a denoiser that predicts the noise": lambda: losses(networks[0], "epsilon"),
            "a denoiser that predicts v": lambda: losses(networks[1], "v_prediction"),
            "the gradient": lambda: gradient(
                lambda: attempt(networks[2], "epsilon", 2), networks[2]
            ),
        }
    )

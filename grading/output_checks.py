"""What images and clips are checked for, by exercise.

The judge and the estimators of pocket read what is shown where a prompt is known.
"""

import ast
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from course.checks import task_3_clips as turns
from course.images import conditions
from course.metrics.control import edge_f1, rank_correlation
from course.metrics.judge import Judge
from course.models import find_model
from course.models.estimators import estimate_depth
from course.views import view_word
from grading import answers, official
from grading.output_images import (
    Decoded,
    NoOutput,
    Part,
    Work,
    difference,
    expect_own,
    find_row,
    handed_out,
    is_flat,
    tiles,
)

Check = Callable[[Work], list[Part]]
LESSON_PROMPT = "a forest"  # of lesson 2
PANORAMA = 4.0  # width by height
MIN_HEIGHT = 96  # pixels of a panorama
MIN_CLIP = 8  # frames of a clip of the sampling process
MIN_TURN = turns.MIN_FRAMES
EDGES_KEPT = 0.85  # F1 of the edges in a reduced image, against those of the image itself
DEPTH_KEPT = 0.8  # rank correlation of depths
DIFFERENT = 8.0  # mean difference of two images that are not the same


@cache
def judge() -> Judge:
    """Return the judge of pocket."""
    return Judge()


# --- What an answer says


def texts(answer: str) -> dict[str, list[str]]:
    """Return the texts in an answer by the name that is assigned, or the function's that gets them.

    {"MY_PROMPT": ["mountains"], "generate": ["a blue teapot"]}
    """
    result: dict[str, list[str]] = {}
    for node in ast.walk(_tree(answer)):
        pairs: list[tuple[str, ast.expr]] = []
        if isinstance(node, ast.Assign):
            pairs = [pair for target in node.targets for pair in _pairs(target, node.value)]
        elif isinstance(node, ast.Call) and node.args:
            name = ast.unparse(node.func).rpartition(".")[2]
            pairs = [(name, node.args[0])]
        for name, value in pairs:
            result.setdefault(name, []).extend(_constants(value))
    return result


def _tree(answer: str) -> ast.Module:
    return answers.parse(answer) or ast.Module([], [])


def _pairs(target: ast.expr, value: ast.expr) -> list[tuple[str, ast.expr]]:
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        parts = zip(target.elts, value.elts, strict=False)
        return [pair for part, each in parts for pair in _pairs(part, each)]
    return [(target.id, value)] if isinstance(target, ast.Name) else []


def _constants(node: ast.AST) -> list[str]:
    nodes = ast.walk(node)
    return [n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)]


def _object_in(text: str) -> str | None:
    return turns.object_of(text, turns.known_objects(judge().names.values()))


def _reads(images: Sequence[np.ndarray], group: str) -> list[str]:
    return [str(attributes[group]) for attributes in judge()(images)]


def _shows(image: np.ndarray, prompts: Sequence[str]) -> Part:
    """Return whether the judge reads the object of the first prompt with one; true without any."""
    expected = next((name for text in prompts if (name := _object_in(text))), None)
    if expected is None:
        return Part(True, "")
    [read] = _reads([image], "object")
    return Part(read == expected, f"The judge reads {read!r} in it, and not {expected!r}.")


# --- Lesson 1.2


def own_clip(work: Work) -> list[Part]:
    """1.2 (k): a clip with x_t at the left and x_0 at the right."""
    clips = [clip for clip in work.clips if clip.count >= MIN_CLIP]
    if not clips:
        raise NoOutput(f"There is no clip with {MIN_CLIP} frames or more below the answer.")
    clip = clips[0]
    frames = clip.frames
    expect_own(work, [frames[-1]], handed_out(work.exercise))
    half = frames.shape[2] // 2
    left, right = frames[:, :, :half], frames[:, :, -half:]
    roughness = [_roughness(frame) for frame in (left[0], left[-1])]
    return [
        Part(1.2 < clip.ratio < 3, "The clip does not have two images side by side."),
        Part(difference(frames[0], frames[-1]) > DIFFERENT, "The clip does not move."),
        Part(
            roughness[0] > 1.5 * roughness[1] and difference(left[0], right[0]) > DIFFERENT,
            "At the left the noise does not become an image: is x_t there, and x_0 at the right?",
        ),
    ]


def _roughness(image: np.ndarray) -> float:
    """Return the mean difference of neighbors; noise has a large one."""
    return float(np.abs(np.diff(image.astype(np.float32), axis=1)).mean())


# --- Lesson 1.3


def own_image(work: Work) -> list[Part]:
    """1.3 (i): an image of one's own, its edges, its depth, and two images made of them."""
    row = find_row(work, 5)
    image, edges, depth, *results = row
    ours = [tile for each in handed_out(work.exercise) for tile in [each, *tiles(each, 5)]]
    expect_own(work, [image], ours)
    parts = [
        Part(_are_edges(edges, image), "The second image does not have the edges of the first."),
        Part(_is_depth(depth, image), "The third image is not the depth of the first."),
    ]
    prompts = texts(work.answer).get("generate", [])
    for kind, result in zip(("edges", "depth"), results, strict=True):
        is_new = not is_flat(result) and all(difference(result, each) > 4 for each in row[:3])
        parts.append(Part(is_new, f"The image from the {kind} is not a new one."))
    parts.append(_shows(results[1], prompts[::-1]))
    return parts


def _are_edges(edges: np.ndarray, image: np.ndarray) -> bool:
    lines = edges.max(axis=2) > 64
    if not 0.001 < lines.mean() < 0.6:
        return False
    expected = conditions.canny(image, 20, 60)[..., 0] > 0
    # Precision counts: own thresholds may leave edges out.
    return edge_f1(lines & expected, lines) > EDGES_KEPT


def _is_depth(depth: np.ndarray, image: np.ndarray) -> bool:
    model, unit = find_model("pocket"), 16
    scale = model.image_size / max(image.shape[:2])
    width, height = (max(1, round(side * scale / unit)) * unit for side in image.shape[1::-1])
    full = Image.fromarray(image).resize((width, height))
    estimated = estimate_depth(full, model)
    shown = Image.fromarray(depth).convert("L").resize(full.size)
    return rank_correlation(np.asarray(shown, np.float32), estimated) > DEPTH_KEPT


def own_kind(work: Work) -> list[Part]:
    """1.3 (j): a condition of one's own, and an image made of it."""
    condition, result = find_row(work, 2)
    ours = [tile for each in handed_out(work.exercise) for tile in [each, *tiles(each, 2)]]
    expect_own(work, [result], ours)
    prompts = texts(work.answer).get("generate", [])
    is_new = difference(condition, result) > DIFFERENT
    return [
        Part(not is_flat(condition), "The condition has one value everywhere."),
        Part(is_new, "The generated image is the condition."),
        _shows(result, prompts),
    ]


def keep_edges(work: Work) -> list[Part]:
    """1.3 challenge 1: two images of another object, closer to the edges than plain control."""
    edges, *images = find_row(work, 5)
    plain, mine = images[:2], images[2:]
    expect_own(work, mine, [])  # prompt and seeds are given: right images may be the lesson's
    is_new = all(difference(a, b) > 1 for a in mine for b in [*plain, edges])
    lines = edges.max(axis=2) > 96
    scores = [
        float(np.mean([edge_f1(conditions.canny(image)[..., 0], lines) for image in each]))
        for each in (plain, mine)
    ]
    [prompt, *_] = texts(official.answers()[work.exercise])["prompt"]
    thing, read = _object_in(prompt), _reads(mine, "object")
    return [
        Part(is_new, "An image is the plain one."),
        Part(read == [thing] * 2, f"The judge reads {' and '.join(read)}, not {thing} in both."),
        Part(
            scores[1] > scores[0],
            f"The edges are kept with an F1 of {scores[1]:.2f}, plain control has {scores[0]:.2f}.",
        ),
    ]


def from_depth(work: Work) -> list[Part]:
    """1.3 challenge 2: an image of a depth map by a formula."""
    depth, sculpture, _ = find_row(work, 3)
    ours = [tile for each in handed_out(work.exercise) for tile in tiles(each, 3)[1:2]]
    expect_own(work, [sculpture], ours)
    [thing, *_] = [*texts(work.answer).get("thing", []), ""]
    [read] = _reads([sculpture], "object")
    return [
        Part(read == thing, f"The judge reads {read!r}, and `thing` is {thing!r}."),
        Part(_is_depth(depth, sculpture), "The depth of the image is not the requested one."),
    ]


# --- Lesson 2


def own_panorama(work: Work) -> list[Part]:
    """2.1 (d): a panorama of one's own prompt."""
    images = [
        image
        for image in work.images
        if abs(image.shape[1] / image.shape[0] - PANORAMA) < 0.1 and image.shape[0] >= MIN_HEIGHT
    ]
    if not images:
        raise NoOutput("There is no image that is four times as wide as high.")
    panorama = images[0]
    expect_own(work, [panorama], handed_out(work.exercise))
    prompts = texts(work.answer).get("MY_PROMPT", [])
    is_own = prompts != [LESSON_PROMPT]
    side = panorama.shape[0]
    crops = [panorama[:, i * side : (i + 1) * side] for i in range(4)]
    return [
        Part(is_own, "The prompt is the lesson's: write one of your own."),
        _shows_landscape(crops, " ".join(prompts)),
    ]


def _shows_landscape(crops: Sequence[np.ndarray], prompt: str) -> Part:
    """Return whether the judge reads the prompt's landscape in a quarter; true without any."""
    names = {name.partition(":")[2] for name in judge().names.values() if "landscape:" in name}
    expected = [name for name in names - {"none"} if name in prompt]
    read = _reads(crops, "landscape")
    is_read = not expected or any(each in expected for each in read)
    message = f"The judge reads {', '.join(sorted(set(read)))} in it, and not {prompt!r}."
    return Part(is_read, message)


# --- Lesson 3


def turntables(work: Work) -> list[Part]:
    """3 (n): three turntables of three prompts; each clip is a part."""
    prompts = _turntable_prompts(work.answer)
    if not work.clips:
        raise NoOutput("No clip (.mp4) was handed in: add the three video.mp4 of your objects.")
    clips = _clips_of(prompts, work.clips)
    parts: list[Part] = []
    turns_before: list[np.ndarray] = []
    for prompt, clip in list(clips.items())[:3]:
        problem = _problem_of_turn(clip, turns_before)
        turns_before.append(turns.thumbnails(turns.color_part(clip.frames)))
        count = _sides_read(clip, prompt)
        if not problem and count is not None and count < 4:
            problem = f"the judge reads its object from {count} of 8 sides"
        parts.append(Part(not problem, f"The clip of {prompt!r}: {problem}."))
    missing = max(0, 3 - len(parts))
    return parts + [Part(False, "A clip is missing: three are asked for.")] * missing


def _turntable_prompts(answer: str) -> dict[str, list[str]]:
    """Return the texts of the path of each prompt."""
    for node in ast.walk(_tree(answer)):
        if isinstance(node, ast.Dict):
            return {
                key.value: _constants(value)
                for key, value in zip(node.keys, node.values, strict=True)
                if isinstance(key, ast.Constant) and isinstance(key.value, str)
            }
    return {}


def _clips_of(prompts: dict[str, list[str]], clips: Sequence[Decoded]) -> dict[str, Decoded]:
    """Return the clip of each prompt: by the names in its path, or else by what the judge reads.

    Some platforms keep the names of files and not those of their folders.
    """
    left = list(clips)
    result = {}
    for prompt, path in prompts.items():
        words = {re.sub(r"\W+", "_", prompt.lower()), *path} - {"video.mp4"}
        names = [Path(clip.name) for clip in left]
        matches = [i for i, name in enumerate(names) if words & {*name.parts, name.stem}]
        if left and not matches:
            counts = [_sides_read(clip, prompt) or 0 for clip in left]
            matches = [counts.index(max(counts))]
        if left:
            result[prompt] = left.pop(matches[0])
    return result | {clip.name: clip for clip in left[: 3 - len(result)]}


def _problem_of_turn(clip: Decoded, before: Sequence[np.ndarray]) -> str:
    """Return what is wrong with a turntable, "" if nothing is."""
    if clip.count < MIN_TURN:
        return f"it has {clip.count} frames, and a full turn at least {MIN_TURN}"
    small = turns.thumbnails(turns.color_part(clip.frames))
    if np.abs(small - small[:1]).max() <= 2:
        return "it does not move"
    if any(turns.same_clip(small, other) for other in _handed_out_turns()):
        return "it is one of the course's own"
    if any(turns.same_clip(small, other) for other in before):
        return "it is the same as another one"
    return ""


@cache
def _handed_out_turns() -> tuple[np.ndarray, ...]:
    clips = [turns.read_frames(path) for path in turns.HANDED_OUT]
    return tuple(turns.thumbnails(turns.color_part(clip)) for clip in clips)


def _sides_read(clip: Decoded, prompt: str) -> int | None:
    """Return from how many of 8 sides the judge reads the prompt's object, None without one."""
    expected = _object_in(prompt)
    if expected is None:
        return None
    frames = turns.directions(turns.color_part(clip.frames), 8)
    return _reads(frames, "object").count(expected)


def best_object(work: Work) -> list[Part]:
    """3 challenge 1: object and view are read from 12 of 16 directions."""
    [prompt, *path] = [*texts(work.answer).get("BEST", []), ""]
    if not work.clips:
        raise NoOutput("No clip (.mp4) was handed in: add the video.mp4 of your object.")
    clip = _clips_of({prompt: path}, work.clips)[prompt]
    if problem := _problem_of_turn(clip, []):
        raise NoOutput(f"The clip of {prompt!r}: {problem}.")
    expected = _object_in(prompt)
    count = 16
    frames = turns.directions(turns.color_part(clip.frames), count, 0.5)
    words = [view_word(360 * (i + 0.5) / count, 15.0) for i in range(count)]
    right = sum(
        attributes["object"] == expected and attributes["view"] == word
        for attributes, word in zip(judge()(frames), words, strict=True)
    )
    message = f"The judge reads object and view in {right} of 16 directions; 12 are needed."
    return [Part(right >= 12, message)]


CHECKS: dict[str, Check] = {
    "1.2 (k)": own_clip,
    "1.3 (i)": own_image,
    "1.3 (j)": own_kind,
    "1.3 challenge 1": keep_edges,
    "1.3 challenge 2": from_depth,
    "2.1 (d)": own_panorama,
    "3 (n)": turntables,
    "3 challenge 1": best_object,
}

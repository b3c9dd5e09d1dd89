"""Checks of the clips that students hand in for task 3."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
from PIL import Image

from course.checks.common import CheckFailed, check, expect
from course.figures import ROOT
from course.views import view_word

HANDED_OUT = [ROOT / "assets" / f"{name}.gif" for name in ("hamburger", "squirrel", "bunny")]
MIN_FRAMES = 48  # of a turntable


@check("3 (n)")
def turntables(clips: Any) -> str:
    """Three own clips of a full turn are there, and the judge reads their prompts in them."""
    expect.value(clips, "TURNTABLES")
    rule = "it has to be a dictionary of three prompts, each with the path of its clip."
    expect.is_a(clips, dict, "TURNTABLES", rule)
    expect(len(clips) >= 3, f"TURNTABLES has {len(clips)} prompts: three are to be handed in.")
    frames = {text: _read_turn(text, path) for text, path in clips.items()}
    seen = [(text, thumbnails(turn)) for text, turn in frames.items()]
    ours = {path.name: thumbnails(color_part(read_frames(path))) for path in HANDED_OUT}
    for i, (text, small) in enumerate(seen):
        for other, others in seen[:i]:
            expect(
                not same_clip(small, others),
                f"The clips of {other!r} and of {text!r} are the same.",
            )
        for name, own in ours.items():
            expect(not same_clip(small, own), f"The clip of {text!r} is the course's own {name}.")
    from course.metrics import Judge  # slow to import

    judge = Judge()
    known = known_objects(judge.names.values())
    notes = []
    for text, turn in frames.items():
        expected = object_of(text, known)
        if expected is None:
            notes.append(f"{text}: no word that the judge knows, left to a person")
            continue
        read = [str(a["object"]) for a in judge(directions(turn, 8))]
        count = read.count(expected)
        expect(
            count >= 4,
            f"In the clip of {text!r} the judge reads {expected!r} from {count} of 8 sides (it "
            f"reads {', '.join(sorted(set(read)))}): README.md has a table of what to try.",
        )
        notes.append(f"{text}: {count} of 8 sides")
    return f"turntables ({'; '.join(notes)})"


@check("3 challenge 1")
def best_object(best: Any) -> str:
    """The judge reads object and view of a clip from at least 12 of 16 directions."""
    expect.value(best, "BEST")
    rule = "it has to be a tuple (prompt, path of the clip)."
    expect.is_a(best, tuple, "BEST", rule)
    expect(len(best) == 2, f"BEST has {len(best)} entries; {rule}")
    text, path = best
    turn = _read_turn(text, path)
    from course.metrics import Judge  # slow to import

    judge = Judge()
    known = known_objects(judge.names.values())
    expected = object_of(text, known)
    expect(expected, f"The judge knows no object in {text!r}: {', '.join(sorted(known))}.")
    count = 16
    read = judge(directions(turn, count, 0.5))  # not at a border between views
    words = [view_word(360 * (i + 0.5) / count, 15.0) for i in range(count)]
    right = [
        attributes["object"] == expected and attributes["view"] == word
        for attributes, word in zip(read, words, strict=True)
    ]
    score = f"{text}: object and view right in {sum(right)} of 16 directions"
    expect(sum(right) >= 12, f"{score}; 12 are needed.")
    return f"challenge 1, {score}"


def _read_turn(text: Any, path: Any) -> np.ndarray:
    """Return the color images (n, H, W, 3) of a clip. Raises CheckFailed for what is no turn."""
    expect(isinstance(text, str) and text.strip(), f"A prompt has to be a text, got {text!r}.")
    expect.is_a(path, str | Path, f"The clip of {text!r}", "it has to be a path.")
    name = Path(path).name
    expect(Path(path).is_file(), f"There is no clip {name} of {text!r}: is the path right?")
    expect(Path(path).suffix == ".mp4", f"The clip of {text!r} has to be an .mp4, got {name}.")
    try:
        frames = read_frames(Path(path))
    except Exception as error:  # what a damaged file raises depends on where its reading stops
        raise CheckFailed(f"{name} of {text!r} cannot be read as a video.") from error
    expect(
        len(frames) >= MIN_FRAMES,
        f"The clip of {text!r} has {len(frames)} frames, and a full turn at least {MIN_FRAMES}: "
        "main.py --frames.",
    )
    turn = color_part(frames)
    small = thumbnails(turn)
    expect(
        np.abs(small - small[:1]).max() > 2,
        f"The clip of {text!r} does not move: a turntable shows all sides.",
    )
    return turn


def read_frames(path: Path) -> np.ndarray:
    """Return the frames (n, H, W, 3) of a clip."""
    frames = np.asarray(iio.imread(path))
    return frames[..., :3] if frames.ndim == 4 else frames[None]


def color_part(frames: np.ndarray) -> np.ndarray:
    """Return the color images of the program's clips, which have depth and normals beside them."""
    height, width = frames.shape[1:3]
    return frames[:, :, :height] if width == 3 * height else frames


def directions(turn: np.ndarray, count: int, offset: float = 0.0) -> list[np.ndarray]:
    """Return `count` frames, evenly from a full turn; the first is `offset` of them later."""
    return [turn[int((i + offset) * len(turn) / count)] for i in range(count)]


def thumbnails(frames: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """Return frames as small images (n, 24, 24, 3), float from 0 to 255."""
    images = [Image.fromarray(frame).resize((24, 24)).convert("RGB") for frame in frames]
    return np.stack([np.asarray(image, np.float32) for image in images])


def same_clip(a: np.ndarray, b: np.ndarray) -> bool:
    """Return whether eight directions of a clip are all among the frames of another one."""
    sampled = np.stack(directions(a, 8))
    differences = np.abs(sampled[:, None] - b[None]).mean((2, 3, 4))  # (8, n)
    return bool(differences.min(1).mean() < 3)


def known_objects(classes: Iterable[str]) -> set[str]:
    """Return the objects among the judge's classes, which are called "group:class"."""
    parts = [name.partition(":") for name in classes]
    return {label for group, _, label in parts if group == "object"} - {"none"}


def object_of(text: str, known: set[str]) -> str | None:
    """Return the first object of a prompt that the judge knows, or None."""
    words = text.lower()
    places = {name: words.find(name) for name in known if name in words}
    return min(places, key=lambda name: (places[name], -len(name))) if places else None

"""Checks of the clips that students hand in for task 3."""

from pathlib import Path
from typing import Any

import numpy as np

from course.checks.clips import (
    HANDED_OUT,
    MIN_FRAMES,
    color_part,
    directions,
    known_objects,
    object_of,
    read_frames,
    same_clip,
    thumbnails,
)
from course.checks.common import CheckFailed, check, expect
from course.views import view_word


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

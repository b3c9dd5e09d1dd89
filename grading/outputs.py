"""Grades the exercises with a free choice by what a submission shows: images and clips.

They are taken from the outputs of its notebooks and from its files, and decoded in the sandbox.
What is not the student's own, such as an image of the student copy, has no points.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from course.checks import exercises
from grading import answers, exhibits, official
from grading.media import FILES, Media
from grading.output_checks import CHECKS, Check
from grading.output_images import Decoded, NoOutput, Work
from grading.policy import violation
from grading.scores import Score
from grading.submissions import Submission

IMAGE_SIDE = 1280  # pixels; larger images are reduced
CLIP_SIDE = 480  # of a clip of the program three images, of the judge's size
MAX_FRAMES = 96  # of a clip; of longer ones every second frame is left out, and so on
BATCH = 3  # clips that are decoded in one sandbox


def grade(submission: Submission, sandbox_name: str = "") -> list[Score]:
    """Return the scores of all exercises with a free choice.

    The submission is one of `submissions.opened`. sandbox_name: where images are decoded, by
    default the first sandbox that works. Raises SandboxError.
    """
    scores = []
    for exercise in FILES:
        answer = submission.answers.get(exercise, "")
        if refusal := _refusal(exercise, answer):
            scores.append(refusal)
            continue
        items = decode_all(submission.media.get(exercise, []), sandbox_name)
        is_official = answers.is_same(answer, official.answers()[exercise])
        scores.append(score(CHECKS[exercise], Work(exercise, answer, items, is_official)))
    return scores


def _refusal(exercise: str, answer: str) -> Score | None:
    """Return the score of an answer whose output is not looked at, None if it is."""
    points = exercises()[exercise].points
    if not answer:
        return Score(exercise, 0, points, "empty", "There is no answer.")
    if answers.parse(answer) is None:
        return Score(exercise, 0, points, "error", "The answer is no valid Python.")
    if message := violation(exercise, answer):
        return Score(exercise, 0, points, "not allowed", message)
    return None


def score(check: Check, work: Work) -> Score:
    """Return the score that a check gives: each part has the same weight."""
    points = exercises()[work.exercise].points
    try:
        parts = check(work)
    except NoOutput as reason:
        return Score(work.exercise, 0, points, "wrong", f"{reason}{work.problems}")
    right = sum(part.ok for part in parts)
    status = {0: "wrong", len(parts): "right"}.get(right, "partly")
    messages = [part.message for part in parts if not part.ok]
    message = " ".join(messages) or "The output is what the exercise asks for."
    return Score(work.exercise, round(points * right / len(parts), 4), points, status, message)


def decode_all(media: Sequence[Media], sandbox_name: str = "") -> list[Decoded]:
    """Return the images and clips of an exercise, decoded in the sandbox. Raises SandboxError."""
    images = [item.path for item in media if item.path.suffix in exhibits.IMAGES]
    clips = [item.path for item in media if item.path.suffix not in exhibits.IMAGES]
    frames: dict[Path, np.ndarray] = {}
    if images:
        frames = exhibits.decode_batch(images, IMAGE_SIDE, 1, sandbox_name)
    for start in range(0, len(clips), BATCH):
        batch = clips[start : start + BATCH]
        frames |= exhibits.decode_batch(batch, CLIP_SIDE, MAX_FRAMES, sandbox_name)
    none = np.zeros((0, 1, 1, 3), np.uint8)
    return [Decoded(item.name, frames.get(item.path, none)) for item in media]

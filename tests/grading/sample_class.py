"""A small graded class for tests of the report."""

from dataclasses import replace
from pathlib import Path

import numpy as np

import course
from course.checks import exercises
from grading.exhibits import REFERENCE, exhibit_clip, exhibit_image, save_image
from grading.review import Graded
from grading.scores import STATUSES, ScoreSheet, folder_name, score
from grading.submissions import Submission

OWN = (
    "def answer(x, t):\n"
    "    noisy = torch.lerp(x, noise, t)\n"
    "    gap = network(noisy, t).sub(noise)\n"
    "    for step in range(3):\n"
    "        gap = gap.clamp(-9, 9) if step else gap.abs()\n"
    "    return torch.linalg.vector_norm(gap, dim=-1).pow(2).sum() / gap.numel()\n"
)
OFFICIAL = dict.fromkeys(exercises(), "def answer(x, t):\n    return x\n")


def graded(student: str, text: str, out: Path, number: int = 0, with_clip: bool = True) -> Graded:
    """Return a student with every status; `text` is what the student wrote everywhere.

    number: of the student; each has other statuses at the same exercise.
    """
    path = f"{text}/{number}.zip"
    folder = out / folder_name(student, path)
    scores = []
    for i, (id, exercise) in enumerate(exercises().items()):
        status = STATUSES[(i + number) % len(STATUSES)]
        if exercise.tier == "written":
            status = "not graded"
        share = {"right": 1.0, "partly": 0.5}.get(status, 0.0)
        scores.append(score(id, status, text, share, 0.2, 200 << 20))
    scores[0] = replace(scores[0], points=0.25, comment=text)
    written = {id: text for id, exercise in exercises().items() if exercise.tier == "written"}
    answers = {id: f"# {text!a}\n{OWN}" for id in exercises() if id not in written}
    random = np.random.default_rng(number)
    image = random.integers(0, 255, (48, 160, 3), np.uint8)
    reference = out / REFERENCE / "000.png"
    save_image(reference, image // 2)
    exhibits = [
        exhibit_image(folder, "2.1 (d)", "panorama", image),
        exhibit_image(folder, "1.1 (c)", "image", image, reference),
    ]
    if with_clip:
        exhibits.append(exhibit_clip(folder, "3 (n)", "clip", np.stack([image] * 3)))
    version = text if number % 2 else course.__version__
    sheet = ScoreSheet(student, path, version, "d", 1, [text], scores)
    return Graded(sheet, Submission(student, Path(path), version, answers, written), exhibits)

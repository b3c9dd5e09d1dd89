"""Exercises with a free choice: right images and clips, copies of the lesson's, damaged files."""

import base64
import io
import struct
import zlib
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
from PIL import Image

from course.images import conditions, image_grid
from course.images.video import write_video
from course.models import find_model
from course.models.estimators import estimate_depth
from course.notebooks import ROOT
from grading import media, output_images, outputs, sandbox
from grading.media import Media
from grading.output_checks import CHECKS
from grading.scores import Score
from grading.submissions import StudentFiles, Submission, opened
from tests.grading import class_of_30

pytestmark = pytest.mark.skipif(bool(sandbox.reason_against()), reason="there is no sandbox")
rng = np.random.default_rng(0)


def by_exercise(submission: Submission) -> dict[str, Score]:
    return {score.exercise: score for score in outputs.grade(submission)}


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """The scores of the official solutions, and of the untouched student copy."""
    folder = tmp_path_factory.mktemp("outputs")
    class_of_30.plain(folder, "right", class_of_30.everything())
    class_of_30.plain(folder, "empty", class_of_30.everything(frozenset()))
    scores = []
    for name in ("right", "empty"):
        with opened(StudentFiles(name, (folder / name,))) as submission:
            scores.append(by_exercise(submission))
    return scores


def test_the_official_outputs_have_all_points(official):
    right, _ = official
    assert set(right) == set(media.FILES)
    for score in right.values():
        assert (score.status, score.points) == ("right", score.max_points), score


def test_the_untouched_student_copy_has_none(official):
    _, empty = official
    assert {score.status for score in empty.values()} == {"empty"}
    assert sum(score.points for score in empty.values()) == 0


def png(image: np.ndarray | Image.Image) -> bytes:
    data = io.BytesIO()
    Image.fromarray(np.asarray(image)).save(data, "PNG")
    return data.getvalue()


def clip(path: Path, frames: np.ndarray) -> bytes:
    return write_video(path / "x.mp4", [Image.fromarray(f) for f in frames], 20, 0).read_bytes()


def handed_in(folder: Path, exercise: str, answer: str, *files: tuple[str, bytes]):
    """Return the score of an answer with images or clips, which have these names and bytes."""
    items = []
    for i, (name, data) in enumerate(files):
        path = folder / f"{i}{Path(name).suffix}"
        path.write_bytes(data)
        items.append(Media(name, path))
    submission = Submission("anna", folder, answers={exercise: answer}, media={exercise: items})
    return by_exercise(submission)[exercise]


PANORAMA = 'MY_PROMPT = "mountains"\nmy_panorama = sd.sample(MY_PROMPT, width=1024)'


def stored_panorama() -> np.ndarray:
    [image] = [
        image
        for image in output_images.handed_out("2.1 (d)")
        if image.shape == (192, 768, 3) and image.std() > 20
    ][:1]
    return image


def noise(*shape: int) -> np.ndarray:
    return rng.integers(0, 255, shape, np.uint8)


def bomb() -> bytes:
    """Return a small PNG of 60,000 x 60,000 pixels."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))]
    chunks += [(b"IDAT", zlib.compress(bytes(10_000_000))), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


NOT_RIGHT = {  # a part of the message for panoramas
    "copy": "one of the course's own",
    "mirrored copy": "one of the course's own",
    "reduced copy": "one of the course's own",
    "flat": "one color everywhere",
    "square": "four times as wide as high",
    "tiny": "four times as wide as high",
    "damaged": "cannot be read",
    "cut off": "cannot be read",
    "bomb": "cannot be read",
    "text": "cannot be read",
    "svg": "cannot be read",
    "noise": "The judge reads",
}


@pytest.fixture(scope="module")
def decoded(tmp_path_factory):
    """Panoramas that are not right, decoded in one sandbox."""
    own = stored_panorama()
    data = {
        "copy": png(own),
        "mirrored copy": png(own[:, ::-1]),
        "reduced copy": png(Image.fromarray(own).resize((512, 128))),
        "flat": png(np.full((192, 768, 3), 9, np.uint8)),
        "square": png(noise(200, 200, 3)),
        "tiny": png(noise(8, 32, 3)),
        "damaged": b"\x89PNG" + bytes(100),
        "cut off": png(own)[:5000],
        "bomb": bomb(),
        "text": b"<script>alert(1)</script>",
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="400" height="100"/>',
        "noise": png(noise(192, 768, 3)),
    }
    folder = tmp_path_factory.mktemp("panoramas")
    for name, content in data.items():
        (folder / f"{name}.png").write_bytes(content)
    items = [Media(path.name, path) for path in folder.iterdir()]
    return {Path(item.name).stem: item for item in outputs.decode_all(items)}


@pytest.mark.parametrize(("what", "message"), NOT_RIGHT.items())
def test_panoramas_that_are_not_right(decoded, what, message):
    work = output_images.Work("2.1 (d)", PANORAMA, [decoded[what]], is_official=False)
    score = outputs.score(CHECKS["2.1 (d)"], work)
    assert message in score.message
    assert score.status == ("partly" if what == "noise" else "wrong")
    assert score.points < score.max_points


def test_a_panorama_of_the_lessons_prompt_is_half_right(tmp_path):
    answer = PANORAMA.replace("mountains", "a forest")
    image = Image.fromarray(stored_panorama()).rotate(180)
    score = handed_in(tmp_path, "2.1 (d)", answer, ("my_panorama.png", png(image)))
    assert "write one of your own" in score.message and score.points < score.max_points


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ("MY_PROMPT = (", "error"),
        ("import subprocess", "not allowed"),
        ("", "empty"),
        (PANORAMA, "wrong"),
    ],
)
def test_answers_without_an_output(tmp_path, answer, status):
    score = handed_in(tmp_path, "2.1 (d)", answer)
    assert (score.status, score.points) == (status, 0) and score.message


TURNTABLES = 'TURNTABLES = {"a bunny": "x/a_bunny/video.mp4", "a duck": "x/a_duck/video.mp4"}'


def test_turntables_each_count_a_third(tmp_path):
    ours = dict(sorted(class_of_30.turntables().items()))
    bunny, hamburger, squirrel = ours.values()
    frames = np.concatenate([noise(1, 64, 64, 3)] * 60)
    still, short = clip(tmp_path, frames), clip(tmp_path, noise(10, 64, 64, 3))
    names = [f"turntables/{name}/video.mp4" for name in ("a_bunny", "a_duck", "other")]
    cases = {
        (bunny, hamburger, squirrel): (1.0, "its object from 0 of 8 sides"),  # that is no duck
        (bunny, bunny, squirrel): (1.0, "the same as another one"),
        (bunny, still, short): (0.5, "does not move"),
        (bunny, short, still): (0.5, "it has 10 frames"),
        (bunny, b"#EXTM3U\nfile:///etc/passwd", squirrel): (0.5, "is missing"),
        (b"", b"", b""): (0.0, "cannot be read"),
    }
    for clips, (points, message) in cases.items():
        files = zip(names, clips, strict=True)
        score = handed_in(tmp_path, "3 (n)", TURNTABLES, *files)
        assert message in score.message
        assert score.points == pytest.approx(points), score.message


def test_clips_without_the_names_of_their_folders_are_told_by_the_judge(tmp_path):
    """Canvas stores all files of a student side by side."""
    ours = [("video.mp4", data) for _, data in sorted(class_of_30.turntables().items())]
    best = handed_in(
        tmp_path, "3 challenge 1", 'BEST = "a squirrel", "a_squirrel/video.mp4"', *ours
    )
    assert best.status == "right", best
    answer = 'TURNTABLES = {"a squirrel": "x", "a bunny": "y", "a hamburger": "z"}'
    assert handed_in(tmp_path, "3 (n)", answer, *ours).status == "right"


def test_a_turntable_of_the_course_has_no_points(tmp_path):
    frames = iio.imread(ROOT / "assets" / "bunny.gif")[..., :3]
    turn = clip(tmp_path, frames[np.arange(60) * len(frames) // 60])
    score = handed_in(tmp_path, "3 challenge 1", 'BEST = "a bunny", "x.mp4"', ("x.mp4", turn))
    assert score.points == 0 and "one of the course's own" in score.message


def test_a_clip_of_the_sampling_process(tmp_path):
    answer = "own_clip = video.side_by_side(left, right)"
    y, x = np.mgrid[:80, :80]
    image = np.stack([x * 3, y * 3, 120 + 0 * x], -1).astype(np.float32)
    shares = np.linspace(0, 1, 12)[:, None, None, None]
    left = (shares * image + (1 - shares) * noise(80, 80, 3)).astype(np.uint8)
    right = (shares * image + (1 - shares) * 100).astype(np.uint8)
    for frames, points in [
        (np.concatenate([left, right], 2), 0.5),
        (np.concatenate([right, left], 2), 0.5 * 2 / 3),
        (right, 0.5 * 1 / 3),
    ]:
        data = clip(tmp_path, frames)
        score = handed_in(tmp_path, "1.2 (k)", answer, ("sampling.mp4", data))
        assert score.points == pytest.approx(points, abs=1e-3), score.message
    score = handed_in(tmp_path, "1.2 (k)", answer, ("sampling.mp4", clip(tmp_path, left[:3])))
    assert score.status == "wrong" and "8 frames or more" in score.message


def test_an_own_image_that_is_a_sample_has_no_points(tmp_path):
    sample = Image.open(ROOT / "assets" / "samples" / "house.png").convert("RGB")
    row = png(image_grid([sample] * 5, side=180, titles=list("abcde")))
    four = png(image_grid([sample] * 4, side=181))
    score = handed_in(tmp_path, "1.3 (i)", "my_image = 1", ("an output.png", four))
    assert score.points == 0 and "no output with 5 images" in score.message
    score = handed_in(tmp_path, "1.3 (i)", "my_image = 1", ("an output.png", row))
    assert score.points == 0 and "one of the course's own" in score.message


@pytest.mark.parametrize("size", [(256, 256), (256, 192), (192, 256)])
def test_an_own_image_of_any_shape_is_right(tmp_path, size):
    page = Image.fromarray(stored_panorama()).resize((1536, 384))
    image, *results = (page.crop((x, 64, x + size[0], 64 + size[1])) for x in (100, 500, 900))
    edges, depth = conditions.canny(image), estimate_depth(image, find_model("pocket"))
    shown = [image, edges, depth, *results]
    titles = ["my image", "canny", "depth", "from canny", "from depth"]
    row = png(image_grid(shown, titles=titles, side=180))
    answer = 'my_images = {"canny": generate("hills", control)}'
    score = handed_in(tmp_path, "1.3 (i)", answer, ("an output.png", row))
    assert (score.status, score.points) == ("right", 2), score.message
    shown[1:3] = depth, edges
    row = png(image_grid(shown, titles=titles, side=180))
    score = handed_in(tmp_path, "1.3 (i)", answer, ("an output.png", row))
    assert (score.status, score.points) == ("partly", 1.2), score.message


def test_media_in_outputs_has_limits():
    image = base64.b64encode(png(noise(4, 4, 3))).decode()
    html = f'<img src="data:image/png;base64,{image}"><img src="data:image/svg+xml;base64,AAAA">'
    odd = [None, 3, {"data": []}, {"data": {"image/png": 7}}, {"data": {"text/html": [html]}}]
    items = list(media.in_outputs([*odd, {"data": {"image/png": [image[:8], image[8:]]}}]))
    assert [suffix for suffix, data in items if len(data) > 20] == [".png", ".png"]
    large = "A" * (media.MAX_BYTES * 4 // 3 + 4)
    assert list(media.in_outputs([{"data": {"image/png": large}}])) == []

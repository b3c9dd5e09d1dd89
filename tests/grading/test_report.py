"""The pages of a graded class: complete, linked, readable on a phone, and harmless."""

import csv
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import numpy as np
import pytest
from PIL import Image

from course.checks import exercises
from course.images.video import write_video
from grading import exhibits, gradescope, report, review, sandbox, scores
from grading.media import Media
from grading.review import Graded
from tests.grading.sample_class import OFFICIAL, graded
from tests.task_3.browser import Browser

NAMES = [
    "Ada Lovelace",
    "<script>document.title = 'hacked'</script>",
    "=HYPERLINK(1)",
    "--help",
    "Nguyễn Thị Minh Khai, whose name is longer than a line of a phone can be",
]
PHONE = 390  # pixels


class Page(HTMLParser):
    """The addresses and ids of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.addresses, self.ids = list[str](), set[str]()
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.ids.add(values.get("id") or "")
        self.addresses += [value for key in ("href", "src", "poster") if (value := values.get(key))]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    report.write_report(folder, students(folder), OFFICIAL)
    return folder


def students(folder: Path) -> list[Graded]:
    return [graded(name, f"{name} wrote this", folder, i) for i, name in enumerate(NAMES)]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("profile"))
    try:
        browser.open("about:blank")
        yield browser
    finally:
        browser.close()


def show(browser: Browser, path: Path, width: int, scheme: str = "light") -> None:
    """Open a page in a window of that width, in pixels."""
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width == PHONE}
    browser.call("Emulation.setDeviceMetricsOverride", **size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.call("Emulation.setEmulatedMedia", features=features)
    browser.call("Page.navigate", url=path.as_uri())
    browser.until(f"location.href === '{path.as_uri()}' && document.readyState === 'complete'")
    browser.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")


def page_paths(out: Path) -> list[Path]:
    return [out / review.PAGE, out / review.PAIRS, *sorted(out.glob(f"*/{review.PAGE}"))]


def test_every_link_leads_somewhere(out: Path):
    pages = {path: Page(path) for path in page_paths(out)}
    assert len(pages) == 2 + len(NAMES)
    for path, page in pages.items():
        assert page.addresses
        for address in page.addresses:
            place, fragment = urldefrag(address)
            target = (path.parent / unquote(place)).resolve() if place else path
            assert target.is_file(), address
            assert not fragment or fragment in pages[target].ids, address


@pytest.mark.parametrize("width", [PHONE, 1200])
def test_pages_are_as_wide_as_the_window(out: Path, browser: Browser, width: int):
    for path in page_paths(out):
        show(browser, path, width)
        assert browser.evaluate("document.documentElement.scrollWidth") <= width, path


def test_texts_are_large_enough_on_a_phone(out: Path, browser: Browser):
    show(browser, out / review.PAGE, PHONE)
    smallest = browser.evaluate(
        "Math.min(...[...document.querySelectorAll('svg text')]"
        ".map(text => text.getBoundingClientRect().height))"
    )
    assert smallest >= 9


def test_both_color_schemes_have_contrast(out: Path, browser: Browser):
    colors = (
        "[...document.querySelectorAll('body, .message, .badge, td, pre')].map(each => {"
        "const style = getComputedStyle(each);"
        "return [style.color, style.backgroundColor, each.innerText.slice(0, 40)]})"
    )
    path = next(out.glob(f"Ada*/{review.PAGE}"))
    backgrounds = []
    for scheme in ("light", "dark"):
        show(browser, path, 1200, scheme)
        pairs = browser.evaluate(colors)
        background = pairs[0][1]
        backgrounds.append(luminance(background))
        for color, own, text in pairs:
            behind = background if own == "rgba(0, 0, 0, 0)" else own
            assert contrast(color, behind) >= 4.5, (scheme, color, behind, text)
    assert backgrounds[0] > 0.5 > backgrounds[1]


def luminance(color: str) -> float:
    """Return the relative luminance of a CSS color, as WCAG 2 defines it."""
    values = np.array([float(v) for v in re.findall(r"[\d.]+", color)[:3]]) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(first: str, second: str) -> float:
    dark, light = sorted([luminance(first), luminance(second)])
    return (light + 0.05) / (dark + 0.05)


def test_student_text_runs_nothing(out: Path, browser: Browser):
    for path in page_paths(out):
        show(browser, path, 1200)
        assert browser.evaluate("document.title") != "hacked"
        assert browser.evaluate("document.scripts.length") == 0


def test_a_student_sees_every_exercise_with_points_and_message(out: Path, browser: Browser):
    show(browser, next(out.glob(f"Ada*/{review.PAGE}")), 1200)
    rows = browser.evaluate(
        "[...document.querySelectorAll('[id^=e-]')].map(each => each.innerText)"
    )
    assert len(rows) == len(exercises())
    for row, exercise in zip(rows, exercises().values(), strict=True):
        assert exercise.title in row
        assert f"/ {exercise.points:g}" in row
    assert sum("Points by the teacher" in row for row in rows) == 1


def test_images_and_clips_load(out: Path, browser: Browser):
    show(browser, next(out.glob(f"Ada*/{review.PAGE}")), 1200)
    browser.evaluate("document.querySelectorAll('img').forEach(each => each.loading = 'eager')")
    browser.until("[...document.images].every(each => each.naturalWidth > 0)")
    browser.evaluate("document.querySelectorAll('video').forEach(each => each.preload = 'auto')")
    browser.until("[...document.querySelectorAll('video')].every(each => each.videoWidth > 0)")
    assert browser.evaluate("document.images.length") == 4  # one, and one with its reference
    assert browser.evaluate("document.querySelectorAll('video').length") == 1


def test_the_class_page_has_each_student_and_exercise(out: Path, browser: Browser):
    show(browser, out / review.PAGE, 1200)
    names = browser.evaluate("[...document.querySelectorAll('td a')].map(each => each.innerText)")
    assert names == NAMES
    bars = browser.evaluate("document.querySelectorAll('#exercises ~ .distribution svg').length")
    assert bars == len(exercises())
    figures = browser.evaluate("document.querySelectorAll('.sheet figure').length")
    assert figures == 2 * len(NAMES)  # panoramas and objects


def test_scores_are_the_points_and_no_formula(out: Path):
    with (out / report.SCORES).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["student"].lstrip("'") for row in rows] == NAMES
    for row, each in zip(rows, students(out), strict=True):
        assert float(row["points"]) == pytest.approx(each.sheet.points)
        assert sum(float(row[id]) for id in exercises()) == pytest.approx(each.sheet.points)
        assert not any(value.startswith(tuple(report.FORMULA)) for value in row.values())


def test_everything_to_look_at_is_listed_once(out: Path):
    tasks = {task.title: task for task in review.review_tasks(students(out), [], "1.0.0")}
    assert set(tasks) == set(review.REASONS) - {"Similar answers"}
    entries = [entry for task in tasks.values() for entry in task.entries]
    of_exercises = [(entry.name, entry.place) for entry in entries if entry.place]
    assert len(of_exercises) == len(set(of_exercises))


def test_a_written_answer_with_points_needs_no_look(out: Path):
    each = students(out)[0]
    decided = [replace(score, comment="yes") for score in each.sheet.scores]
    done = replace(each, sheet=replace(each.sheet, scores=decided, problems=[]))
    assert review.review_tasks([done], [], done.sheet.version) == []


def test_scores_that_a_later_run_changed_are_listed(tmp_path: Path):
    each = graded("<b>Ada", "x", tmp_path)
    after = [replace(s, points=s.max_points) for s in each.sheet.scores]
    changed = scores.log_regrade(tmp_path, each.sheet, replace(each.sheet, scores=after), "<i>seed")
    report.write_report(tmp_path, [each], OFFICIAL)
    page = (tmp_path / review.PAGE).read_text("utf-8")
    assert page.count("&lt;i&gt;seed") == len(changed) > 50


def test_an_empty_class_has_a_page(tmp_path: Path):
    report.write_report(tmp_path, [], OFFICIAL)
    assert "0 submissions" in (tmp_path / review.PAGE).read_text("utf-8")


@pytest.mark.parametrize("text", ["\0", "\ud800", "\u202eevil", "a\x1b[31m"])
def test_characters_that_no_program_shows(text: str, tmp_path: Path):
    report.write_report(tmp_path, [graded(f"x{text}y", text, tmp_path)], OFFICIAL)
    for path in [*page_paths(tmp_path), tmp_path / report.SCORES]:
        content = path.read_text("utf-8")
        assert not gradescope.UNPRINTABLE.search(content)


# --- Images


def test_a_difference_is_black_where_images_agree():
    image = np.full((4, 4, 3), 100, np.uint8)
    other = image.copy()
    other[0, 0] = (110, 90, 100)
    gap = exhibits.difference(image, other)
    assert gap[0, 0].tolist() == [40, 40, 0]
    assert gap[1:].max() == 0


def test_psnr_of_known_images():
    image = np.zeros((2, 2, 3), np.uint8)
    assert exhibits.psnr(image, image) == np.inf
    assert exhibits.psnr(image, image + 255) == pytest.approx(0)
    assert exhibits.psnr(image, image + np.uint8(16)) == pytest.approx(24.05, abs=0.01)


def test_an_image_of_another_size_has_no_difference(tmp_path: Path):
    image = np.zeros((8, 8, 3), np.uint8)
    exhibits.save_image(tmp_path / "r.png", np.zeros((9, 8, 3), np.uint8))
    exhibit = exhibits.exhibit_image(tmp_path, "1.1 (c)", "a", image, tmp_path / "r.png")
    assert [caption for _, caption in exhibit.files] == ["8 × 8", "reference"]


def test_an_image_that_agrees_with_its_reference_is_not_kept(tmp_path: Path):
    image = np.zeros((64, 64, 3), np.uint8)
    exhibits.save_image(tmp_path / "r.png", image)
    image[0, 0] = 3
    exhibit = exhibits.exhibit_image(tmp_path / "ada", "1.1 (c)", "a", image, tmp_path / "r.png")
    assert exhibit.files == [("../reference/r.png", "as the reference")]
    assert not (tmp_path / "ada").exists()


needs_sandbox = pytest.mark.skipif(bool(sandbox.reason_against()), reason="NO SANDBOX")


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Images and clips as students hand them in, some of them damaged."""
    folder = tmp_path / "files"
    folder.mkdir()
    frames = [Image.new("RGB", (64, 48), (i, 0, 0)) for i in range(0, 250, 2)]
    frames[0].save(folder / "image.png")
    Image.new("RGB", (5000, 40)).save(folder / "wide.jpg")
    frames[0].save(folder / "clip.gif", save_all=True, append_images=frames[1:9])
    write_video(folder / "clip.mp4", frames)
    data = (folder / "image.png").read_bytes()
    (folder / "cut.png").write_bytes(data[: len(data) // 2])
    (folder / "text.png").write_text("<svg onload=alert(1)>")
    (folder / "cut.mp4").write_bytes((folder / "clip.mp4").read_bytes()[:900])
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk
    (folder / "bomb.png").write_bytes(bomb + struct.pack(">I", zlib.crc32(chunk)))
    return {path.name: path for path in folder.iterdir()}


@needs_sandbox
def test_files_are_decoded_in_the_sandbox(files: dict[str, Path]):
    decoded = dict(zip(files, exhibits.decode(list(files.values())), strict=True))
    shapes = {name: None if array is None else array.shape for name, array in decoded.items()}
    assert shapes == {
        "image.png": (1, 48, 64, 3),
        "wide.jpg": (1, 10, exhibits.IMAGE_SIDE, 3),
        "clip.gif": (9, 48, 64, 3),
        "clip.mp4": shapes["clip.mp4"],
        "cut.png": None,
        "text.png": None,
        "cut.mp4": None,
        "bomb.png": None,
    }
    assert exhibits.MAX_FRAMES // 2 <= len(decoded["clip.mp4"]) <= exhibits.MAX_FRAMES


@needs_sandbox
def test_the_images_of_a_submission_are_compared_with_the_lesson(
    files: dict[str, Path], tmp_path: Path
):
    official = {
        "1.1 (c)": [Media("x", files["image.png"])],
        "2.1 (d)": [Media("x", files["wide.jpg"])],
    }
    references = exhibits.write_references(tmp_path, official)
    assert list(references) == ["1.1 (c)"]  # what students choose has no reference
    own = official | {"3 (n)": [Media("x", files["cut.mp4"]), Media("x", files["clip.gif"])]}
    own["1.1 (c)"] = [Media("x", files["image.png"]), Media("x", files["wide.jpg"])]
    folder = tmp_path / "ada"
    shown = exhibits.collect(folder, own, references)
    captions = [(each.exercise, [caption for _, caption in each.files]) for each in shown]
    assert captions == [
        ("1.1 (c)", ["as the reference"]),
        ("1.1 (c)", ["1280 × 10"]),
        ("2.1 (d)", ["1280 × 10"]),
        ("3 (n)", ["9 frames"]),
    ]
    assert all((folder / name).is_file() for each in shown for name, _ in each.files)
    assert exhibits.read_exhibits(folder) == shown
    assert exhibits.read_exhibits(tmp_path / "none") == []

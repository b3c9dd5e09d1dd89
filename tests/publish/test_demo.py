"""The demo writes a page with every image, and reports a lesson or object that failed."""

import io
import re
import shutil
import sys
from pathlib import Path

import imageio.v3 as iio
import nbformat
import pytest
from PIL import Image

from course import notebooks
from course.models import ModelError, find_model
from course.models import weights as course_weights
from course.models.prompts import unknown_words
from publish import demo, lessons, objects
from publish.page import Media, Section, media_entry, render_page

DRAW = "from PIL import Image; Image.new('RGB', (8, 8), 'red')"
SHORT = (
    "--iters 2 --size 16 --rays 64 --max_steps 24 --frames 3 --video_size 32 --preview_every 0 "
    "--no-check"
).split()


@pytest.fixture
def tiny_pocket(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny model in the place of the embedded one."""
    shutil.copytree(tiny_folder.parent, tmp_path / "pocket" / "weights")
    monkeypatch.setattr(course_weights, "WEIGHTS", tmp_path / "pocket" / "weights")


def lesson(path: Path, *sources: str) -> Path:
    cells = [
        nbformat.v4.new_markdown_cell("# 9.9 A lesson <b>"),
        nbformat.v4.new_markdown_cell("text\n## A & B\n"),
    ]
    cells += [nbformat.v4.new_code_cell(source) for source in sources]
    cells.append(
        nbformat.v4.new_markdown_cell("**What to see.** It is *red* at $w=1$,\nall of it.\n\nMore.")
    )
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


def test_demo_end_to_end(tiny_pocket, tmp_path, monkeypatch, capsys):
    good, bad = lesson(tmp_path / "a.ipynb", DRAW, DRAW), lesson(tmp_path / "b.ipynb", "1 / 0")
    monkeypatch.setattr(notebooks, "lesson_paths", lambda: [good, bad])
    monkeypatch.setattr(demo, "STEPS", 1)
    outputs = tmp_path / "outputs"
    assert demo.main(["--outputs", str(outputs), "--no-objects"]) == 1
    assert "ZeroDivisionError" in capsys.readouterr().err

    text = (outputs / "index.html").read_text()
    sources = re.findall(r'<img src="([^"]+)"', text)
    assert len(sources) == len(demo.PROMPTS) + 2
    for source in sources:
        Image.open(outputs / source).verify()
    for prompt in demo.PROMPTS:
        assert f"<figcaption>{prompt}</figcaption>" in text
    assert '<a href="lessons/a.ipynb">' in text
    assert (
        "9.9 A lesson &lt;b&gt;" in text
        and "A &amp; B" in text
        and "<pre>ZeroDivisionError" in text
    )
    assert text.count("<span>It is red at w=1, all of it.</span>") == 2
    assert not re.search(r"https?://", text)  # made and read without a network
    sheet, smallest = Image.open(outputs / "prompts.png"), io.BytesIO()
    sheet.save(smallest, "PNG", optimize=True)
    assert sheet.width > 6 * 160 and smallest.getvalue() == (outputs / "prompts.png").read_bytes()
    assert (outputs / "lessons" / "a.ipynb").exists()


def test_without_a_home_folder_the_demo_says_so(tiny_pocket, tmp_path, monkeypatch, capsys):
    """In the place of each lesson; the images above it need none."""
    monkeypatch.setattr(notebooks, "lesson_paths", lambda: [lesson(tmp_path / "a.ipynb", DRAW)])
    monkeypatch.setattr(demo, "STEPS", 1)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    assert demo.main(["--outputs", str(tmp_path / "outputs"), "--no-objects"]) == 1
    assert "9.9 A lesson <b> failed: There is no home folder: set HOME" in capsys.readouterr().err
    assert "There is no home folder" in (tmp_path / "outputs" / "index.html").read_text()


def test_demo_passes_when_every_lesson_does(tiny_pocket, tmp_path, monkeypatch):
    good = lesson(tmp_path / "a.ipynb", "import os; os.environ['COURSE_MODEL']", DRAW)
    monkeypatch.setattr(notebooks, "lesson_paths", lambda: [good])
    monkeypatch.setattr(demo, "PROMPTS", {"a duck": 0})
    monkeypatch.setattr(demo, "STEPS", 1)
    monkeypatch.setenv(
        "COURSE_MODEL", "sd-2.1"
    )  # the demo shows the embedded model whatever is chosen
    for _ in range(2):  # again, over what is there
        assert demo.main(["--outputs", str(tmp_path / "new" / "outputs"), "--no-objects"]) == 0
    assert not (tmp_path / "new" / "outputs" / objects.OBJECTS).exists()
    done = notebooks.read(tmp_path / "new" / "outputs" / "lessons" / "a.ipynb")
    assert done.cells[2].outputs[0].data["text/plain"] == "'pocket'"


def test_missing_weights_end_the_demo_with_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(course_weights, "WEIGHTS", tmp_path)
    assert demo.main(["--outputs", str(tmp_path / "outputs")]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    "obstacle", ["file", "below a file", "no name", "blanks", "link loop", "dangling link"]
)
def test_outputs_that_are_no_folder_end_the_demo_with_one_line(
    obstacle, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(demo, "generate_images", lambda *_: pytest.fail("began"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "link").symlink_to("nowhere")
    outputs = {
        "file": "file",
        "below a file": "file/x",
        "no name": "",
        "blanks": "  ",
        "link loop": "loop",
        "dangling link": "link",
    }[obstacle]
    try:
        status = demo.main(["--outputs", outputs])
    except SystemExit as error:
        status = error.code
    errors = capsys.readouterr().err
    assert status and re.search(
        r"must name a folder, got|file/x cannot be used: Not a directory\.", errors
    )
    assert "Traceback" not in errors and not (tmp_path / "index.html").exists()
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            OSError(28, "No space left on device", "a.png"),
            "a.png cannot be used: No space left on device.",
        ),
        (
            PermissionError(13, "Permission denied", "outputs"),
            "outputs cannot be used: Permission denied.",
        ),
        (OSError(30, "Read-only file system"), "Read-only file system."),
        (OSError("cannot write\nmode F"), "cannot write."),
        (ModelError("no such model"), "no such model"),
    ],
)
def test_a_demo_that_fails_says_why(error, expected, tmp_path, monkeypatch, capsys):
    def fail(*_):
        raise error

    monkeypatch.setattr(demo, "generate_images", fail)
    assert demo.main(["--outputs", str(tmp_path)]) == 1
    first, *others = capsys.readouterr().err.splitlines()
    assert first == f"demo: {expected}"
    assert ["another folder with --outputs" in line for line in others] == [True] * isinstance(
        error, OSError
    )


def test_the_prompts_that_people_try_first():
    first = {
        "a photo of an astronaut riding a horse on mars",
        "a hamburger",
        "a squirrel reading a book",
        "a bunny sitting on top of a stack of pancakes",
        "a city skyline at night",
    }
    assert first <= set(demo.PROMPTS)


def test_the_model_knows_every_word_of_the_prompts():
    vocabulary = find_model("pocket").vocabulary
    assert [word for prompt in demo.PROMPTS for word in unknown_words(prompt, vocabulary)] == []


def test_images_of_a_row_get_one_height_and_none_is_enlarged(tmp_path):
    Image.new("RGB", (800, 200)).save(tmp_path / "a b.png")
    item = Media(tmp_path / "a b.png", "x < y")
    text = render_page([Section("First"), Section("Second", media=[item])], tmp_path)
    assert 'src="a%20b.png"' in text and "x &lt; y" in text
    assert 'style="flex: 4.00 1 1000px; max-width: max(300px, 1040px)"' in text
    assert media_entry(item, tmp_path, justified=False)["style"] == ""


def test_a_page_that_a_lesson_leaves_is_linked(tmp_path):
    executed = tmp_path / "lessons" / "task_2_Joint_Diffusion.ipynb"
    assert lessons.lesson_links(executed, tmp_path) == [(executed, executed.name)]  # no page there
    (tmp_path / "task_2").mkdir()
    (tmp_path / "task_2" / "turn.html").write_text("")
    section = Section("Joint", links=lessons.lesson_links(executed, tmp_path))
    assert '<a href="task_2/turn.html">Rotate the closed panorama</a>' in render_page(
        [Section(""), section], tmp_path
    )


def test_what_the_texts_show_is_beside_the_executed_lesson(tmp_path):
    """Also for a lesson in a folder, which shows `../assets`."""
    source, target = tmp_path / "repository" / "task_3", tmp_path / "outputs" / "lessons"
    source.mkdir(parents=True)
    (source.parent / "assets").mkdir()
    (source.parent / "assets" / "ring.svg").write_text("<svg/>")
    text = "![a ring](../assets/ring.svg) ![gone](gone.svg) ![far](https://a.b/c.png)"
    cells = [nbformat.v4.new_markdown_cell(text), nbformat.v4.new_code_cell("![x](y)")]
    lessons.copy_shown_files(nbformat.v4.new_notebook(cells=cells), source, target)
    assert (target / "../assets/ring.svg").read_text() == "<svg/>"
    files = [path for path in tmp_path.joinpath("outputs").rglob("*") if path.is_file()]
    assert [path.name for path in files] == ["ring.svg"]


@pytest.mark.slow
def test_an_object_turns_on_the_page(tmp_path, capfd, monkeypatch):
    """By the program itself, on the embedded model whatever is chosen; an old object goes."""
    monkeypatch.setenv("COURSE_MODEL", "sd-2.1")
    (tmp_path / "objects" / "a_duck" / "checkpoints" / "000001").mkdir(parents=True)
    section = objects.generate_object(tmp_path, "a duck", SHORT)
    assert section.error == "" and "--text 'a duck'" in section.summary
    assert "2/2" in capfd.readouterr().err  # the progress was shown
    text = render_page([Section("First"), section], tmp_path)
    [source] = re.findall(r'<video src="([^"]+)" autoplay', text)
    assert iio.imread(tmp_path / source).shape == (3, 32, 96, 3)
    [page] = re.findall(r'<a href="([^"]+)">Rotate the mesh</a>', text)
    assert "a duck" in (tmp_path / page).read_text()


def test_a_failed_object_is_reported_on_the_page(tmp_path, monkeypatch, capsys):
    section = objects.generate_object(tmp_path, "a duck", ["--iters", "0"])
    assert (
        section.error == "error: --iters must be from 1 to 10,000,000, got 0." and not section.media
    )
    monkeypatch.setattr(notebooks, "lesson_paths", lambda: [])
    monkeypatch.setattr(demo, "generate_images", lambda *_: Section("First"))
    monkeypatch.setattr(demo, "generate_object", lambda *_: section)
    assert demo.main(["--outputs", str(tmp_path)]) == 1
    assert "<pre>error: --iters" in (tmp_path / "index.html").read_text()
    assert "3D objects from text failed: error: --iters" in capsys.readouterr().err


def test_stderr_is_shown_at_once_and_returned(capsys):
    """With carriage returns, and characters of several bytes."""
    program = r"import sys; sys.stderr.buffer.write('\rone é\rtwo █\n'.encode()); sys.exit(3)"
    assert objects.run_and_echo([sys.executable, "-c", program]) == (3, "\rone é\rtwo █\n")
    assert capsys.readouterr().err == "\rone é\rtwo █\n"


def test_each_part_is_named_before_it_starts(tiny_pocket, tmp_path, monkeypatch):
    """Also where the output goes through a pipe."""
    shown = io.BytesIO()
    outputs: list = []
    load = demo.load_pipeline
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BufferedWriter(shown), encoding="utf-8"))
    monkeypatch.setattr(
        demo, "load_pipeline", lambda model: outputs.append(shown.getvalue()) or load(model)
    )
    monkeypatch.setattr(
        demo, "folder_name", lambda prompt: outputs.append(shown.getvalue()) or prompt
    )
    monkeypatch.setattr(notebooks, "lesson_paths", lambda: [Path("a.ipynb")])
    monkeypatch.setattr(demo, "run_lesson", lambda *_: shown.getvalue().decode())
    monkeypatch.setattr(demo, "generate_object", lambda *_: shown.getvalue().decode())
    monkeypatch.setattr(demo, "PROMPTS", {"a duck": 0, "a car": 1})
    monkeypatch.setattr(demo, "STEPS", 1)
    outputs += list(demo.demo_sections(tmp_path, with_object=True))[1:]
    before, _, second, lesson, last = outputs
    assert before == b"First images with the embedded model:\n"
    assert second.endswith(b" s  a duck\n")
    assert re.search(r"\d s  a car\na\.ipynb:\n$", lesson)
    assert last.endswith("A 3D object:\n")


def test_a_bar_without_end_of_line_is_shown_at_once(monkeypatch):
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BufferedWriter(shown), encoding="utf-8"))
    objects.run_and_echo([sys.executable, "-c", "import sys; sys.stderr.write(' 1/9')"])
    assert shown.getvalue() == b" 1/9"  # before anybody flushed or closed it


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ("\r 1/2\r 2/2\nerror: the text is empty\n", "error: the text is empty"),
        ("bar\nerror: a check failed:\n\n  look there\n", "error: a check failed:\n\n  look there"),
        (
            "bar\nTraceback (most recent):\n  File\nValueError: x\n",
            "Traceback (most recent):\n  File\nValueError: x",
        ),
        ("bar\nKilled\n", "Killed"),
        ("", ""),
    ],
)
def test_failure_reason(errors, expected):
    assert objects.failure_reason(errors) == expected


def test_notes_show_their_formulas_as_unicode():
    note = r"**See** `x`: $\hat{\mathbf{x}}_0$ of $\mathbf{x}_t$, $\bar\alpha_t \le 1$, $\eta = 0$."
    assert lessons.plain_text(note) == "See x: x\u0302_0 of x_t, α\u0304_t ≤ 1, η = 0."

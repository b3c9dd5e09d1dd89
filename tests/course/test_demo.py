"""The demo leaves a page whose every picture is there, and tells of a lesson that failed."""

import re
import shutil
from pathlib import Path

import nbformat
import pytest
from PIL import Image

from course import demo, models, notebooks

DRAW = "from PIL import Image; Image.new('RGB', (8, 8), 'red')"


@pytest.fixture
def tiny_pocket(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny model in the place of the embedded one."""
    shutil.copytree(tiny_folder.parent, tmp_path / "pocket" / "weights")
    monkeypatch.setattr(models, "WEIGHTS", tmp_path / "pocket" / "weights")


def lesson(path: Path, *sources: str) -> Path:
    cells = [nbformat.v4.new_markdown_cell("# 9.9 A lesson <b>"), nbformat.v4.new_markdown_cell("text\n## A & B\n")]
    cells += [nbformat.v4.new_code_cell(source) for source in sources]
    cells.append(nbformat.v4.new_markdown_cell("**What to see.** It is *red* at $w=1$,\nall of it.\n\nMore."))
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


def test_demo_end_to_end(tiny_pocket, tmp_path, monkeypatch, capsys):
    good, bad = lesson(tmp_path / "a.ipynb", DRAW, DRAW), lesson(tmp_path / "b.ipynb", "1 / 0")
    monkeypatch.setattr(notebooks, "lessons", lambda: [good, bad])
    monkeypatch.setattr(demo, "STEPS", 1)
    outputs = tmp_path / "outputs"
    assert demo.main(["--outputs", str(outputs)]) == 1
    assert "ZeroDivisionError" in capsys.readouterr().err

    text = (outputs / "index.html").read_text()
    sources = re.findall(r'<img src="([^"]+)"', text)
    assert len(sources) == len(demo.PROMPTS) + 2
    for source in sources:
        Image.open(outputs / source).verify()
    for prompt in demo.PROMPTS:
        assert f"<figcaption>{prompt}</figcaption>" in text
    assert '<a href="lessons/a.ipynb">' in text
    assert "9.9 A lesson &lt;b&gt;" in text and "A &amp; B" in text and "<pre>ZeroDivisionError" in text
    assert text.count("<span>It is red at w=1, all of it.</span>") == 2
    assert not re.search(r"https?://", text)  # made and read without a network
    assert (outputs / "lessons" / "a.ipynb").exists()


def test_demo_passes_when_every_lesson_does(tiny_pocket, tmp_path, monkeypatch):
    good = lesson(tmp_path / "a.ipynb", "import os; os.environ['COURSE_MODEL']", DRAW)
    monkeypatch.setattr(notebooks, "lessons", lambda: [good])
    monkeypatch.setattr(demo, "PROMPTS", ("a duck",))
    monkeypatch.setattr(demo, "STEPS", 1)
    monkeypatch.setenv("COURSE_MODEL", "sd-2.1")  # the demo shows the embedded model whatever is chosen
    assert demo.main(["--outputs", str(tmp_path / "outputs")]) == 0
    done = notebooks.read(tmp_path / "outputs" / "lessons" / "a.ipynb")
    assert done.cells[2].outputs[0].data["text/plain"] == "'pocket'"


def test_missing_weights_end_the_demo_with_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(models, "WEIGHTS", tmp_path)
    assert demo.main(["--outputs", str(tmp_path / "outputs")]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_prompts_that_people_try_first():
    first = {
        "a photo of an astronaut riding a horse on mars",
        "a hamburger",
        "a squirrel reading a book",
        "a bunny sitting on top of a stack of pancakes",
        "a city skyline at night",
    }
    assert first <= set(demo.PROMPTS)
    assert demo.slug("A city skyline, at night!") == "a-city-skyline-at-night"


def test_the_model_knows_every_word_of_the_prompts():
    vocabulary = models.find_model("pocket").vocabulary
    assert [word for prompt in demo.PROMPTS for word in models.unknown_words(prompt, vocabulary)] == []


def test_neighbours_get_one_height_and_nothing_is_blown_up(tmp_path):
    Image.new("RGB", (800, 200)).save(tmp_path / "a b.png")
    text = demo.figure(demo.Shown(tmp_path / "a b.png", "x < y"), tmp_path, justified=True)
    assert 'src="a%20b.png"' in text and "x &lt; y" in text
    assert "flex: 4.00 1 1000px; max-width: max(300px, 1040px)" in text
    assert "flex" not in demo.figure(demo.Shown(tmp_path / "a b.png", ""), tmp_path, justified=False)


def test_a_page_that_a_lesson_leaves_is_linked(tmp_path):
    section = demo.Section("Joint", lesson=tmp_path / "lessons" / "task_2_Joint_Diffusion.ipynb")
    assert "turn.html" not in demo.page([demo.Section("First"), section], tmp_path)  # it is not there
    (tmp_path / "task_2").mkdir()
    (tmp_path / "task_2" / "turn.html").write_text("")
    assert '<a href="task_2/turn.html">Turn the closed panorama</a>' in demo.page([demo.Section(""), section], tmp_path)

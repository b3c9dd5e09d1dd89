"""The checklist of "What to see" asks for a person when an image or its text has changed."""

import base64
import io
import re

import nbformat
import numpy as np
import pytest
from PIL import Image

from course.errors import CourseError
from course.images import video
from tests.lessons import what_to_see
from tests.lessons.what_to_see import NOTE_MARK, Block, blocks, confirm, open_questions, read_rows

TEXT = f"{NOTE_MARK} The left one is red."


def image(seed: int = 0, width: int = 96, height: int = 64) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height))


def encoded(shown: Image.Image, kind: str = "png", **options: object) -> str:
    file = io.BytesIO()
    shown.save(file, kind, **options)
    return base64.b64encode(file.getvalue()).decode()


def cell_of(*outputs: dict[str, str]) -> nbformat.NotebookNode:
    return nbformat.v4.new_code_cell(
        "1", outputs=[nbformat.v4.new_output("display_data", data) for data in outputs]
    )


def block_of(*images: Image.Image, text: str = TEXT, cell: str = "a") -> Block:
    return Block("lesson", cell, text, list(images))


def questions_after(tmp_path, before: list[Block], after: list[Block]) -> dict[str, str]:
    """Return what asks after `before` was compared and the lesson became `after`."""
    path = tmp_path / "rows.json"
    confirm([block.name for block in before], before, path, "2026-01-31")
    return open_questions(after, read_rows(path))


def noisy(shown: Image.Image, levels: int) -> Image.Image:
    array = np.asarray(shown).astype(int)
    noise = np.random.default_rng(1).integers(-levels, levels + 1, array.shape)
    return Image.fromarray((array + noise).clip(0, 255).astype(np.uint8))


def with_patch(shown: Image.Image) -> Image.Image:
    """A small object that was not there, such as a door."""
    other = shown.copy()
    other.paste((0, 0, 0), (40, 30, 52, 46))
    return other


@pytest.mark.parametrize(
    "change",
    [
        lambda shown: shown,
        lambda shown: noisy(shown, 2),
        lambda shown: noisy(shown, 8),  # the mean of a part hardly changes
        lambda shown: shown.convert("RGBA"),
        lambda shown: shown.resize((192, 128), Image.Resampling.BOX),
        lambda shown: Image.open(io.BytesIO(base64.b64decode(encoded(shown, "jpeg", quality=95)))),
    ],
)
def test_tiny_differences_ask_nobody(tmp_path, change):
    assert questions_after(tmp_path, [block_of(image())], [block_of(change(image()))]) == {}


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([image(1)], r"has other images than on 2026-01-31 \(by \d+ levels\)"),
        ([with_patch(image())], "has other images"),
        ([image().transpose(Image.Transpose.FLIP_LEFT_RIGHT)], "has other images"),
        ([image().convert("L")], "has other images"),
        ([Image.eval(image(), lambda level: min(255, level + 8))], "has other images"),
        ([], "has 0 images, and had 1 on 2026-01-31"),
        ([image(), image()], "has 2 images, and had 1"),
    ],
)
def test_another_image_asks(tmp_path, images, message):
    questions = questions_after(tmp_path, [block_of(image())], [block_of(*images)])
    assert list(questions) == ["lesson:a"] and re.match(message, questions["lesson:a"])


def test_another_text_asks_but_not_another_line(tmp_path):
    before = [block_of(image())]
    same = block_of(image(), text=TEXT.replace(" red", "\nred"))
    other = block_of(image(), text=TEXT.replace("red", "blue"))
    assert questions_after(tmp_path, before, [same]) == {}
    assert "has another text than on 2026-01-31" in str(questions_after(tmp_path, before, [other]))


def test_new_and_removed_texts(tmp_path):
    questions = questions_after(tmp_path, [block_of(image())], [block_of(image(), cell="b")])
    assert questions == {"lesson:b": "was never compared", "lesson:a": "is in no lesson any more"}


def test_rows_of_texts_that_are_gone_are_removed_and_others_keep_their_day(tmp_path):
    path = tmp_path / "rows.json"
    a, b, c = (block_of(image(), cell=cell) for cell in "abc")
    confirm([a.name, b.name], [a, b], path, "2026-01-31")
    confirm([c.name], [c, b], path, "2026-02-01")
    days = {name: row.compared for name, row in read_rows(path).items()}
    assert list(days.items()) == [("lesson:c", "2026-02-01"), ("lesson:b", "2026-01-31")]


def test_a_name_that_no_lesson_has(tmp_path):
    with pytest.raises(CourseError, match=r"^No lesson has lesson:z: a name is LESSON:CELL"):
        confirm(["lesson:z"], [block_of(image())], tmp_path / "rows.json", "2026-01-31")
    assert not (tmp_path / "rows.json").exists()


def test_a_text_speaks_about_the_outputs_right_above_it(tmp_path):
    frames = [image(seed) for seed in range(7)]
    html = video.show_video(video.write_video(tmp_path / "a.mp4", frames, hold=0)).data
    gif = encoded(frames[0], "gif", save_all=True, append_images=frames[1:])
    notebook = nbformat.v4.new_notebook(
        cells=[
            cell_of({"image/png": encoded(image(8))}),
            nbformat.v4.new_markdown_cell("Something else."),
            cell_of({"image/png": encoded(image()), "text/plain": "x"}, {"text/plain": "y"}),
            cell_of({"image/jpeg": encoded(image(1), "jpeg")}),
            nbformat.v4.new_markdown_cell(TEXT, id="one"),
            cell_of({"text/html": html}),
            nbformat.v4.new_markdown_cell(f"## A heading\n\n{TEXT}", id="two"),
            cell_of({"image/gif": gif}, {"text/html": f'<img src="data:image/gif;base64,{gif}">'}),
            nbformat.v4.new_markdown_cell(f"{TEXT}\n\nMore.", id="three"),
            nbformat.v4.new_markdown_cell(TEXT.replace(" The", "\n\nThe") + "\nx\n\ny", id="four"),
        ]
    )
    assert [block.text for block in blocks(notebook, "lesson")] == [
        *[TEXT] * 3,
        f"{NOTE_MARK}\n\nThe left one is red.\nx",
    ]
    shown = {block.cell: block.images for block in blocks(notebook, "lesson")}
    assert {cell: len(images) for cell, images in shown.items()} == {
        "one": 2,
        "two": 4,
        "three": 8,
        "four": 0,
    }
    prints = {cell: [what_to_see.fingerprint(each) for each in shown[cell]] for cell in shown}
    expected = [what_to_see.fingerprint(frames[place]) for place in (0, 2, 4, 6)]
    for a, b in zip(prints["two"], expected, strict=True):
        assert what_to_see.difference(a, b) < 20  # a clip is not exact
    assert prints["three"][:4] == prints["three"][4:]


def test_the_command_shows_what_asks_and_records_what_was_compared(tmp_path, monkeypatch, capsys):
    current = [block_of(image(), cell="a"), block_of(image(1), cell="b")]
    monkeypatch.setattr(what_to_see, "all_blocks", lambda: current)
    monkeypatch.setattr(what_to_see, "CHECKLIST", tmp_path / "rows.json")
    monkeypatch.setattr(what_to_see, "SHEETS", tmp_path / "sheets")
    assert what_to_see.main([]) == 1
    printed = capsys.readouterr().out
    assert "lesson:a was never compared" in printed and TEXT in printed
    assert sorted(path.name for path in (tmp_path / "sheets").iterdir()) == [
        "lesson_a_0.png",
        "lesson_b_0.png",
    ]
    assert what_to_see.main(["lesson:z"]) == 1 and "No lesson has" in capsys.readouterr().err
    assert what_to_see.main(["lesson:b"]) == 1
    assert "1 of 2 texts agree with their images." in capsys.readouterr().out
    assert what_to_see.main(["lesson:a"]) == 0 and what_to_see.main([]) == 0


def test_every_text_agrees_with_its_images():
    """Or else a person has to compare them again, with the command of this module."""
    current = what_to_see.all_blocks()
    assert len(current) > 50
    assert open_questions(current, read_rows(what_to_see.CHECKLIST)) == {}

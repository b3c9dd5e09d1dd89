"""What the repository shows is replaced by what the demo made, and only if it may be."""

import shutil
import sys
from io import BufferedWriter, BytesIO, TextIOWrapper
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
from PIL import Image

from course import notebooks
from course.images import video
from publish import demo, regenerate
from publish.objects import object_folder
from publish.regenerate import RegenerateError

LESSON = "task_9_9_Test"
DRAW = "from PIL import Image; Image.new('RGB', (8, 8), 'red')"
CLIP = """
from PIL import Image

from course.images import video

frames = [Image.new("RGB", (16, 8), color) for color in ("red", "lime", "blue")]
video.show_video(video.write_video({path!r}, frames, fps=4, hold=0))
"""


@pytest.fixture(scope="module")
def finished_demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with one lesson, and outputs/ as a demo leaves them."""
    root = tmp_path_factory.mktemp("repository")
    clip = CLIP.format(path=str(root / "outputs" / "clip.mp4"))
    cells = [
        nbformat.v4.new_markdown_cell("# 9.9\n\n## A heading"),
        nbformat.v4.new_code_cell(DRAW),
    ]
    cells += [nbformat.v4.new_markdown_cell("### A clip"), nbformat.v4.new_code_cell(clip)]
    lesson = nbformat.v4.new_notebook(cells=cells)
    nbformat.write(lesson, root / f"{LESSON}.ipynb")
    (root / "outputs" / "lessons").mkdir(parents=True)
    nbformat.write(notebooks.execute(lesson), root / "outputs" / "lessons" / f"{LESSON}.ipynb")
    Image.new("RGB", (8, 8), "blue").save(root / "outputs" / "prompts.png")
    return root


@pytest.fixture
def root(finished_demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    assets = {
        "a.png": Path("prompts.png"),
        "b.png": (LESSON, "A heading"),
        "c.gif": (LESSON, "A clip"),
    }
    monkeypatch.setattr(regenerate, "ASSETS", assets)
    for name in ("sds", "objects"):  # have tests of their own
        monkeypatch.setitem(regenerate.STAGES, name, lambda outputs, root: None)
    monkeypatch.setattr(notebooks, "ROOT", tmp_path / "repository")
    return Path(shutil.copytree(finished_demo, tmp_path / "repository"))


def test_from_the_lessons_on(root):
    assert regenerate.main(["--from", "lessons"]) == 0
    assert notebooks.read(root / f"{LESSON}.ipynb").cells[1].execution_count == 1
    colors = [Image.open(root / "assets" / name).getpixel((0, 0)) for name in ("a.png", "b.png")]
    assert colors == [(0, 0, 255), (255, 0, 0)]
    smallest = BytesIO()
    Image.open(root / "outputs" / "prompts.png").save(smallest, "PNG", optimize=True)
    assert (root / "assets" / "a.png").read_bytes() == smallest.getvalue()
    gif = Image.open(root / "assets" / "c.gif")
    assert (gif.n_frames, gif.size, gif.info["duration"]) == (3, (16, 8), 250)


def test_a_stage_is_named_before_it_begins(root, monkeypatch):
    """Also where the output goes through a pipe."""
    shown = BytesIO()
    outputs = []
    monkeypatch.setattr(sys, "stdout", TextIOWrapper(BufferedWriter(shown), encoding="utf-8"))
    monkeypatch.setitem(regenerate.STAGES, "assets", lambda *_: outputs.append(shown.getvalue()))
    assert regenerate.main(["--from", "assets"]) == 0
    assert outputs == [b"assets:\n"]


def test_all_begins_with_the_demo(root, monkeypatch, capsys):
    monkeypatch.setattr(regenerate.demo, "main", lambda arguments: 1)
    assert regenerate.main([]) == 1
    assert "the demo failed" in capsys.readouterr().err
    assert not (root / "assets").exists()


def test_the_2d_image_comes_from_task_3(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(
        regenerate.subprocess, "run", lambda command, **_: calls.append(command) or Failed
    )
    with pytest.raises(RegenerateError, match="the 2D example of task 3 failed"):
        regenerate.generate_sds_image(tmp_path, notebooks.ROOT)
    [[_, _, module, *options]] = calls
    from task_3_DreamFusion import sds_2d

    assert module == sds_2d.__name__
    assert sds_2d.parser().parse_args(options).out == tmp_path / regenerate.ASSETS["sds_2d.png"]


def test_the_objects_come_from_task_3(tmp_path, monkeypatch):
    """Where assets looks for them, and where the demo has left the first."""
    from task_3_DreamFusion import command_line, main
    from task_3_DreamFusion.jobs import read_jobs
    from task_3_DreamFusion.nerf.export import VIDEO

    clips = []

    def run(command, cwd):
        [_, _, module, *options] = command
        run = command_line.parse(options).run
        [folder] = read_jobs(run.prompts, run.workspace).values()
        clips.append(folder / VIDEO)
        assert (module, run.model, cwd) == (main.__name__, "pocket", notebooks.ROOT)
        return SimpleNamespace(
            returncode=len(clips) == len(regenerate.README_OBJECTS)
        )  # the last one fails

    monkeypatch.setattr(regenerate.subprocess, "run", run)
    tmp_path /= "outputs"  # is not there yet
    with pytest.raises(
        RegenerateError, match="pancakes' is not finished: continue with --from objects"
    ):
        regenerate.generate_objects(tmp_path, notebooks.ROOT)
    regenerate.generate_objects(tmp_path, notebooks.ROOT)  # goes on over what is there
    clips = clips[: len(regenerate.README_OBJECTS)]
    assert clips == [tmp_path / regenerate.ASSETS[name] for name in regenerate.README_OBJECTS]
    assert clips[0].parent == tmp_path / object_folder(demo.OBJECT)


def test_an_object_clip_becomes_a_gif(root, monkeypatch):
    """The first of three squares side by side, with half the frames, as long as before."""
    monkeypatch.setattr(regenerate, "ASSETS", {"thing.gif": Path("objects/thing/video.mp4")})
    shades = range(0, 240, 20)
    frames = [
        np.repeat([[shade] * 16 + [90] * 16 + [250] * 16], 16, 0).astype(np.uint8)
        for shade in shades
    ]
    clip = root / "outputs" / "objects" / "thing" / "video.mp4"
    video.write_video(clip, [Image.fromarray(frame) for frame in frames], fps=30, hold=0)
    regenerate.update_assets(root / "outputs", root)
    clip = Image.open(root / "assets" / "thing.gif")
    assert clip.size == (16, 16) and clip.n_frames == 6
    colors = []
    milliseconds = 0
    for i in range(6):
        clip.seek(i)
        colors.append(clip.convert("L").getpixel((8, 8)))
        milliseconds += clip.info["duration"]
    assert np.abs(np.subtract(colors, shades[::2])).max() <= 8 and milliseconds == 400


class Failed:
    returncode = 1


def test_a_lesson_that_may_not_be_stored(root):
    lesson, executed = root / f"{LESSON}.ipynb", root / "outputs" / "lessons" / f"{LESSON}.ipynb"
    before, done = lesson.read_bytes(), notebooks.read(executed)

    done.cells[1].outputs.append(nbformat.v4.new_output("stream", text=f"{root}/secret"))
    nbformat.write(done, executed)
    with pytest.raises(RegenerateError, match="names .*secret"):
        regenerate.store_lessons(root / "outputs", root)

    done.cells[1].source = "2"
    nbformat.write(done, executed)
    with pytest.raises(RegenerateError, match="was changed"):
        regenerate.store_lessons(root / "outputs", root)

    executed.unlink()
    with pytest.raises(RegenerateError, match="was not executed"):
        regenerate.store_lessons(root / "outputs", root)
    assert lesson.read_bytes() == before


def test_images_that_readme_cannot_show(root, monkeypatch):
    outputs = root / "outputs"
    noise = np.random.default_rng(0).integers(0, 256, (500, 500, 3), dtype=np.uint8)
    Image.fromarray(noise).save(outputs / "prompts.png")
    with pytest.raises(RegenerateError, match="must have at most"):
        regenerate.update_assets(outputs, root)
    (outputs / "prompts.png").unlink()
    with pytest.raises(RegenerateError, match="is missing"):
        regenerate.update_assets(outputs, root)
    monkeypatch.setattr(regenerate, "ASSETS", {"b.png": (LESSON, "Another heading")})
    with pytest.raises(RegenerateError, match='no image under "Another heading"'):
        regenerate.update_assets(outputs, root)


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda root: (root / "assets").write_text(""), "assets cannot be used: File exists"),
        (
            lambda root: (root / "outputs" / "prompts.png").write_text("x"),
            "cannot identify image file",
        ),
        (
            lambda root: (root / "outputs" / "lessons" / f"{LESSON}.ipynb").write_text("{"),
            "cannot be read as a Jupyter notebook",
        ),
        (
            lambda root: (root / f"{LESSON}.ipynb").write_text(""),
            "cannot be read as a Jupyter notebook",
        ),
        (
            lambda root: (root / "assets" / "a.png").mkdir(parents=True),
            "a.png cannot be used: Is a directory",
        ),
        (
            lambda root: (root / "outputs" / "lessons" / LESSON).write_text(""),
            f"{LESSON} cannot be used: File exists",
        ),
    ],
)
def test_what_cannot_be_read_or_written_ends_in_one_line(root, capsys, spoil, expected):
    spoil(root)
    assert regenerate.main(["--from", "lessons"]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("regenerate: ") and expected in line


def test_a_file_that_is_not_a_clip_is_named(root, monkeypatch):
    monkeypatch.setattr(regenerate, "ASSETS", {"thing.gif": Path("video.mp4")})
    (root / "outputs" / "video.mp4").write_bytes(b"x" * 100)
    with pytest.raises(RegenerateError, match=r"video\.mp4 is not a video: .*--from objects"):
        regenerate.update_assets(root / "outputs", root)


def test_every_asset_of_readme_is_regenerated():
    """With the executed lessons as they are stored: a heading that was renamed is found here."""
    root = Path(regenerate.__file__).parent.parent
    names = {path.name for path in (root / "assets").iterdir() if path.is_file()}
    assert names == {*regenerate.ASSETS, "objects.png", "grading_tolerances.png"}
    for place in regenerate.ASSETS.values():
        if not isinstance(place, Path):
            lesson, heading = place
            cells = notebooks.read(root / f"{lesson}.ipynb").cells
            assert any(
                cell.cell_type == "markdown" and f"# {heading}\n" in cell.source for cell in cells
            )

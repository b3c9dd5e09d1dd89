"""Every page that the project writes shows any text as it is, even HTML or a template."""

import dataclasses
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from course.images.panorama import write_page
from grading.report import write_report
from publish.page import Media, Section, render_page
from task_3_DreamFusion.nerf.gui import panel
from task_3_DreamFusion.nerf.index_page import save_index
from task_3_DreamFusion.nerf.mesh import Mesh
from task_3_DreamFusion.nerf.settings import SETTINGS, Settings
from task_3_DreamFusion.nerf.viewer import page
from tests.grading.sample_class import OFFICIAL, graded

TEXTS = [
    'x <iframe srcdoc="<script>parent.hacked = 1</script>">',
    "</title></script><script>hacked = 1</script>",
    "<img src=x onerror='hacked = 1'> <!-- <svg onload=alert(1)>",
    '" onload="hacked = 1" \' onclick=\'hacked = 1',
    "{{data}} {{title}} {{azimuth}} {{nothing}}",
    "{title} {source} {0} {} %s ${data} \\1 \\g<0>",
    "[link](javascript:alert(1)) ![image](/etc/passwd) `code` **bold**",
    "&lt;b&gt; &amp; &quot;",
    "| a | table |",
]
ALLOWED = set(
    "a b body br button canvas code div figure figcaption footer h1 h2 head header html img main"
    " meta nav p pre script section small span style table td title tr video"
    " bdi details h3 li line rect summary svg text th ul".split()
)


class Parsed(HTMLParser):
    """The tags, their attributes, and the text of HTML; scripts apart."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags, self.names = set[str](), set[str]()
        self.values = list[str]()
        self.text, self.scripts = "", list[str]()
        self.feed(content)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.names |= {name for name, _ in attrs}
        self.values += [value or "" for _, value in attrs]

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script":
            self.scripts.append(data)
        else:
            self.text += data


def mesh_page(text: str, folder: Path) -> str:
    corners = np.eye(3, dtype=np.float32)
    texture = np.zeros((2, 2, 3), np.uint8)
    faces = np.array([[0, 1, 2]], np.int64)
    return page(Mesh(corners, corners, faces, corners[:, :2], texture), text)


def panorama_page(text: str, folder: Path) -> str:
    image = np.zeros((4, 8, 3), np.uint8)
    return write_page(folder / "turn.html", image, text).read_text(encoding="utf-8")


def demo_page(text: str, folder: Path) -> str:
    section = Section(text, text, error=text, links=[(folder / "a <b>.html", text)])
    section.media.append(Media(folder / "a 'b'.mp4", text, text))
    return render_page([Section(text), section], folder)


def index_page(text: str, folder: Path) -> str:
    run = folder / "a <b> 'run'"
    run.mkdir()
    for name in ("video.mp4", "mesh.glb"):
        (run / name).touch()
    settings = dataclasses.asdict(Settings(text, negative=text))
    settings |= {"guidance": {}, "model": "pocket", "half": False}
    (run / SETTINGS).write_text(json.dumps(settings))
    return save_index(folder).read_text(encoding="utf-8")


def view_panel(text: str, folder: Path) -> str:
    return panel(text, text, {text: 0.1234})


def class_page(text: str, folder: Path, name: str = "index.html") -> str:
    students = [graded(text, text, folder, number, with_clip=False) for number in range(3)]
    write_report(folder, students, OFFICIAL)
    (path,) = folder.glob(name)
    return path.read_text("utf-8")


def similar_page(text: str, folder: Path) -> str:
    return class_page(text, folder, "similar.html")


def student_page(text: str, folder: Path) -> str:
    write_report(folder, [graded(text, text, folder)], OFFICIAL)
    (path,) = folder.glob("*/index.html")
    return path.read_text("utf-8")


PAGES = [
    *(mesh_page, panorama_page, demo_page, index_page, view_panel),
    *(class_page, similar_page, student_page),
]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("write", PAGES)
def test_a_text_is_shown_as_it_is(write: Callable[[str, Path], str], text: str, tmp_path: Path):
    content = write(text, tmp_path)
    plain = Parsed(content)
    assert text in plain.text
    assert plain.tags <= ALLOWED
    assert not [name for name in plain.names if name.startswith("on")]
    assert not [value for value in plain.values if re.match(r"\s*javascript:", value)]


@pytest.mark.parametrize("write", PAGES)
def test_nothing_but_the_text_changes(write: Callable[[str, Path], str], tmp_path: Path):
    """Tags, attributes and scripts of a page are the same whatever the text is."""
    structures = []
    for number, text in enumerate(["a car", *TEXTS]):
        folder = tmp_path / str(number)
        folder.mkdir()
        parsed = Parsed(write(text, folder))
        structures.append((parsed.tags, parsed.names, parsed.scripts))
    assert all(each == structures[0] for each in structures)

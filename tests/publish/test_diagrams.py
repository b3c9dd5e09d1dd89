"""The diagrams of the lessons: complete, valid, readable, and written by their program."""

import base64
import io
import json
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from course import notebooks
from publish.diagrams import svg
from publish.diagrams.catalog import DIAGRAMS, FOLDER, diagram_files
from tests.task_3.browser import Browser

ROOT = notebooks.ROOT
SVG = "{http://www.w3.org/2000/svg}"
DATA = r"data:image/png;base64,([\w+/=]+)"
OVERLAPS = """
const texts = [...document.querySelectorAll('text')].map(t => [t.textContent, t.getBBox()]);
const size = document.documentElement.viewBox.baseVal;
const bad = [];
for (const [i, [name, a]] of texts.entries()) {
  if (a.x < 4 || a.x + a.width > size.width - 4 || a.y < 0 || a.y + a.height > size.height)
    bad.push(name + ' leaves the diagram');
  for (const [other, b] of texts.slice(i + 1))
    if (a.x < b.x + b.width && b.x < a.x + a.width &&
        a.y + 4 < b.y + b.height - 4 && b.y + 4 < a.y + a.height - 4)
      bad.push(name + ' lies on ' + other);
  for (const r of document.querySelectorAll('rect:not(.background):not(.note)')) {
    const b = r.getBBox(), x = a.x + a.width / 2, y = a.y + a.height / 2;
    const inside = b.x < x && x < b.x + b.width && b.y < y && y < b.y + b.height;
    if (inside && (a.x < b.x + 2 || a.x + a.width > b.x + b.width - 2))
      bad.push(name + ' is wider than its box');
  }
}
JSON.stringify(bad)
"""


def referenced_diagrams() -> set[str]:
    """Return the names of the diagrams that lessons and documents show."""
    paths = [*ROOT.glob("*.ipynb"), *ROOT.glob("task_3_DreamFusion/*.ipynb")]
    paths += [*ROOT.glob("*.md"), *ROOT.glob("*/*.md"), *ROOT.glob("docs/**/*.md")]
    texts = (path.read_text(encoding="utf-8") for path in paths)
    return {name for text in texts for name in re.findall(r"assets/diagrams/(\w+)\.svg", text)}


def pixels(data: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"), dtype=int)


def test_every_diagram_that_a_lesson_shows_exists():
    assert referenced_diagrams() <= set(DIAGRAMS)


def test_the_stored_diagrams_are_those_of_the_program():
    """But for the compression of images in them, which depends on zlib's version."""
    files = diagram_files()
    assert {path.name for path in FOLDER.iterdir()} == set(files)
    for name, text in files.items():
        stored = (FOLDER / name).read_text(encoding="utf-8")
        assert re.sub(DATA, "", stored) == re.sub(DATA, "", text), (
            f"{name}: python -m publish.diagrams writes it"
        )
        for old, new in zip(re.findall(DATA, stored), re.findall(DATA, text), strict=True):
            assert np.abs(pixels(old) - pixels(new)).max() <= 1, name


@pytest.mark.parametrize("name", DIAGRAMS)
def test_a_diagram_is_valid_and_describes_itself(name):
    root = ElementTree.fromstring((FOLDER / f"{name}.svg").read_text(encoding="utf-8"))
    assert root.tag == f"{SVG}svg" and root.get("width") == str(svg.WIDTH)
    title, description = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
    assert title is not None and description is not None
    assert title.text and len(description.text or "") > 80
    sizes = [element.get("font-size") for element in root.iter() if element.get("font-size")]
    assert sizes and min(map(float, filter(None, sizes))) >= 12
    style = root.findtext(f"{SVG}style") or ""
    assert "prefers-color-scheme:dark" in style and "sans-serif" in style
    assert (FOLDER / f"{name}.svg").stat().st_size < 150_000


def test_no_text_overlaps_or_is_cut(tmp_path):
    browser = Browser(tmp_path / "profile")
    faults = {}
    try:
        browser.open("about:blank")
        for name in DIAGRAMS:
            browser.call("Page.navigate", url=(FOLDER / f"{name}.svg").as_uri())
            browser.until(
                f"document.URL.endsWith('/{name}.svg') && !!document.querySelector('text')"
            )
            faults[name] = json.loads(str(browser.evaluate(OVERLAPS)))
    finally:
        browser.close()
    assert {name: bad for name, bad in faults.items() if bad} == {}


def test_labels_with_mathematics():
    assert svg.label_runs("$ᾱ_t$ falls") == [
        ("ᾱ", True, ""),
        ("t", True, "_"),
        (" falls", False, ""),
    ]
    assert svg.label_runs("$x_{prev}^2$") == [
        ("x", True, ""),
        ("prev", False, "_"),
        ("2", False, "^"),
    ]
    assert svg.label_runs("$ε̂$, sin $φ$") == [
        ("ε̂", True, ""),
        (", sin ", False, ""),
        ("φ", True, ""),
    ]


def test_coordinates_are_short_and_never_minus_zero():
    values = {12.0: "12", 12.34: "12.3", -0.01: "0", 0.05: "0.1", -3.25: "-3.2", 1e3: "1000"}
    assert {value: svg.number(value) for value in values} == values

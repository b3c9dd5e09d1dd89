"""Execute the lessons on the embedded model, and collect the images and clips of their outputs."""

import base64
import re
import shutil
import time
from pathlib import Path

import nbformat

from course import notebooks
from course.images.video import VIDEO_PREFIX
from publish.page import Media, Section

NOTE_MARK = "**What to see.**"  # starts the text below an image, which becomes its note
# Pages that lessons write below outputs/, and the labels of links to them.
PAGES = {"task_2_Joint_Diffusion": (Path("task_2/turn.html"), "Rotate the closed panorama")}
SUFFIXES = {"image/png": "png", "image/jpeg": "jpg", "image/gif": "gif", "video/mp4": "mp4"}

# Of the formulas in notes, by their names in LaTeX.
SYMBOLS = {"alpha": "α", "epsilon": "ε", "eta": "η", "lambda": "λ", "cdot": "·", "le": "≤"}
ACCENTS = {"hat": "\u0302", "bar": "\u0304"}


def run_lesson(path: Path, outputs: Path) -> Section:
    """Execute a lesson on the embedded model, store it in `outputs`/lessons and collect its images.

    A lesson that fails gives a section with its error.
    """
    notebook = notebooks.read(path)
    section = Section(lesson_title(notebook))
    start = time.perf_counter()
    try:
        executed = notebooks.execute(
            notebook, environment={"COURSE_MODEL": "pocket"}, progress=f"  {path.stem}"
        )
    except notebooks.LessonError as error:
        section.error = str(error)
        return section
    folder = outputs / "lessons"
    folder.mkdir(exist_ok=True)
    nbformat.write(executed, folder / path.name)
    copy_shown_files(notebook, path.parent, folder)
    section.links = lesson_links(folder / path.name, outputs)
    section.media = extract_media(executed, folder / path.stem)
    seconds = time.perf_counter() - start
    section.summary = f"Every cell ran and every check passed, in {seconds:.0f} seconds."
    return section


def copy_shown_files(notebook: nbformat.NotebookNode, source: Path, target: Path) -> None:
    """Copy the files that the texts of a lesson show, such as diagrams, from `source` to `target`.

    Their paths are those in the texts, relative to both folders.
    """
    texts = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    for name in set(re.findall(r"!\[[^]]*\]\(([^)#\s]+)", texts)):
        if "://" not in name and (source / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, target / name)


def lesson_links(executed: Path, outputs: Path) -> list[tuple[Path, str]]:
    """Return links to the executed lesson and to the page that it wrote, if there is one."""
    links = [(executed, executed.name)]
    if executed.stem in PAGES:
        page, label = PAGES[executed.stem]
        if (outputs / page).exists():
            links.append((outputs / page, label))
    return links


def lesson_title(notebook: nbformat.NotebookNode) -> str:
    """Return the first heading of a lesson."""
    first = next(cell for cell in notebook.cells if cell.cell_type == "markdown")
    return first.source.splitlines()[0].lstrip("# ")


def extract_media(notebook: nbformat.NotebookNode, folder: Path) -> list[Media]:
    """Write the images and clips of an executed notebook to `folder`, numbered in order.

    The caption of each is the heading above it; its note is the next text, if that starts with
    "What to see".
    """
    folder.mkdir(exist_ok=True)
    heading = ""
    media: list[Media] = []
    without_note: list[Media] = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            headings = re.findall(r"^#+ (.+)$", cell.source, flags=re.MULTILINE)
            heading = headings[-1] if headings else heading
            if cell.source.startswith(NOTE_MARK):
                for item in without_note:
                    paragraph = cell.source.removeprefix(NOTE_MARK).split("\n\n")[0]
                    item.note = plain_text(paragraph)
            without_note = []
        for output in cell.get("outputs", []):
            data = media_data(output.get("data", {}))
            kind = next((kind for kind in SUFFIXES if kind in data), None)
            if kind:
                path = folder / f"{len(media) + 1:02d}.{SUFFIXES[kind]}"
                path.write_bytes(base64.b64decode(data[kind]))
                media.append(Media(path, heading))
                without_note.append(media[-1])
    return media


def media_data(data: dict[str, str]) -> dict[str, str]:
    """Return the data of an output by type, with the clip that `show_video` put into its HTML."""
    clip = re.search(f'{VIDEO_PREFIX}([^"]+)', data.get("text/html", ""))
    return {**data, "video/mp4": clip[1]} if clip else data


def plain_text(markdown: str) -> str:
    """Return a paragraph of Markdown without emphasis and code marks, its formulas as Unicode."""
    text = re.sub(r"\\(mathbf|boldsymbol|text)\b", "", markdown)
    for name, symbol in SYMBOLS.items():
        text = re.sub(rf"\\{name}(?![a-zA-Z])", symbol, text)
    for name, accent in ACCENTS.items():
        text = re.sub(rf"\\{name}[{{ ]*(\w)", rf"\1{accent}", text)
    return " ".join(re.sub(r"[*`${}\\]", "", text).split())

"""The demo's page: sections with images and clips, each from a file beside the page."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from course import pages

TEMPLATE = Path(__file__).parent / "templates" / "demo.html"
TITLE = "Latent Diffusion Applications"


@dataclass
class Media:
    """An image or clip of the page: its file, its caption, and a longer note if there is one."""

    path: Path
    caption: str
    note: str = ""


@dataclass
class Section:
    """A part of the page: title, summary, media, links to files with their labels, and the error
    if the part failed."""

    title: str
    summary: str = ""
    media: list[Media] = field(default_factory=list)
    links: list[tuple[Path, str]] = field(default_factory=list)
    error: str = ""


def render_page(sections: list[Section], folder: Path) -> str:
    """Return the page as HTML; every file that it shows lies below `folder`, beside the page.

    The first section is a gallery of equal squares. In the others the images of a row get one
    height, as their shapes require.
    """
    entries = [
        {
            "title": section.title,
            "summary": section.summary,
            "error": section.error,
            "links": [(pages.link(path, folder), label) for path, label in section.links],
            "media": [
                media_entry(item, folder, justified=section is not sections[0])
                for item in section.media
            ],
        }
        for section in sections
    ]
    return pages.render(TEMPLATE, title=TITLE, sections=entries)


def media_entry(item: Media, folder: Path, justified: bool) -> dict[str, Any]:
    """Return what the template shows of an image or clip.

    justified: give images in one row the same height, and enlarge none by more than a third.
    """
    is_video = item.path.suffix == ".mp4"
    style = ""
    if justified and not is_video:
        with Image.open(item.path) as image:
            width, ratio = image.width, image.width / image.height
        style = (
            f"flex: {ratio:.2f} 1 {250 * ratio:.0f}px; max-width: max(300px, {1.3 * width:.0f}px)"
        )
    return {
        "address": pages.link(item.path, folder),
        "caption": item.caption,
        "note": item.note,
        "is_video": is_video,
        "style": style,
    }

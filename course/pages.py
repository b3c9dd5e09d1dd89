"""The HTML pages that the project writes: jinja2 templates with one style sheet, course/templates.

A page is one file that works offline, and every text in it is escaped. A template of another
package lies in a folder of that package and extends `base.html`.
"""

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).with_name("templates")


@functools.cache
def _environment(folder: Path) -> "Environment":
    import jinja2  # here, so that a command which writes no page starts faster

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, TEMPLATES]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def render(template: Path, **values: object) -> str:
    """Return the page of a template; each of `values` is escaped where the template shows it."""
    return _environment(template.parent).get_template(template.name).render(values)


def link(path: Path, folder: Path) -> str:
    """Return the address of a file below `folder` for a page in that folder."""
    return quote(os.fsencode(path.relative_to(folder).as_posix()))

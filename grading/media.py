"""Images and clips of a submission, as bytes that nobody has decoded yet."""

import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_BYTES = 50 << 20  # of one image or clip
MAX_ITEMS = 20  # of one exercise
SUFFIXES = {
    "image/png": ".png",
    "image/jpeg": ".jpg",
    "image/gif": ".gif",
    "video/mp4": ".mp4",
}
EMBEDDED = re.compile(r"data:((?:image|video)/\w+);base64,([A-Za-z0-9+/=\s]+)")
# Exercises that are graded by what they show, with the names of the files that they ask for.
# 1.2 (k) and the challenges show their results in the notebook.
FILES: dict[str, tuple[str, ...]] = {
    "1.2 (k)": ("sampling.mp4",),
    "1.3 (i)": ("mine_canny.png", "mine_depth.png"),
    "1.3 (j)": ("mine_other.png",),
    "1.3 challenge 1": (),
    "1.3 challenge 2": (),
    "2.1 (d)": ("my_panorama.png",),
    "3 (n)": ("*.mp4",),
    "3 challenge 1": ("*.mp4",),
}


@dataclass(frozen=True)
class Media:
    """An image or a clip: its name in the submission, and the file with its bytes."""

    name: str
    path: Path


def in_outputs(outputs: list[Any]) -> Iterator[tuple[str, bytes]]:
    """Yield suffix and bytes of the images and clips in the outputs of a cell."""
    for output in outputs:
        data = output.get("data") if isinstance(output, dict) else None
        for kind, value in data.items() if isinstance(data, dict) else ():
            text = "".join(map(str, value)) if isinstance(value, list) else str(value)
            if kind in SUFFIXES:
                yield from _decode(kind, text)
            elif kind == "text/html":
                for match in EMBEDDED.finditer(text):
                    yield from _decode(match[1], match[2])


def _decode(kind: str, text: str) -> Iterator[tuple[str, bytes]]:
    if kind not in SUFFIXES or len(text) > MAX_BYTES * 4 // 3:
        return
    try:
        yield SUFFIXES[kind], binascii.a2b_base64(text)
    except (binascii.Error, ValueError):
        return

"""The elements of the diagrams: boxes, arrows and labels with mathematics, written as SVG.

One style for all. A diagram has its own background, and its colors follow the reader's color
scheme, so it is readable on light and dark pages alike. Colors are those of Okabe and Ito, which
color-blind readers can distinguish, and shapes differ as well: see KINDS.
"""

import base64
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

WIDTH = 800
FONTS = "system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif"
SIZE = 15.0  # of labels, in pixels
SCRIPT = 0.82  # size of subscripts, relative to their label
SCRIPT_SHIFT = {"_": 0.26, "^": -0.42}  # of their base line, relative to their label's size
HEAD = 9.0  # length of an arrow's head
CORNER = 8.0  # radius where an arrow turns

# Colors by name: (light, dark).
BACKGROUND = ("#ffffff", "#0d1117")
COLORS = {
    "ink": ("#1f2328", "#e6edf3"),
    "muted": ("#59636e", "#9ea7b3"),
    "faint": ("#c8ced6", "#3a424d"),
    "blue": ("#0072b2", "#56b4e9"),
    "red": ("#c44f00", "#ff9350"),
    "green": ("#00795a", "#35c79d"),
    "purple": ("#a3457e", "#e8a0c8"),
    "yellow": ("#9a6a00", "#e6b84a"),
}
# Kinds of boxes: (color of the border, light fill, dark fill, radius of the corners, dashes).
KINDS = {
    "tensor": ("muted", "#f3f5f7", "#1a2129", 2, ""),  # values that flow through the diagram
    "network": ("blue", "#dceefa", "#0d2f49", 12, ""),  # a network whose weights do not change
    "trained": ("red", "#fdeada", "#44260c", 12, "7 3"),  # weights or parameters that are trained
    "operation": ("green", "#ddf3ea", "#07332a", 22, ""),  # a formula
    "note": ("faint", "none", "none", 8, "4 4"),  # a frame around parts that belong together
}
# A single letter with its accents: a variable. Longer words in mathematics are upright.
LETTERS = re.compile(
    r"(?<![A-Za-z])[A-Za-zÀ-ÿ\u0370-\u03ff\u1f00-\u1fff](?![A-Za-z])[\u0300-\u036f]*"
)
TOKENS = re.compile(r"([_^])(?:\{([^}]*)\}|(\S[\u0300-\u036f]*))|([^_^]+)")

Point = tuple[float, float]


@dataclass(frozen=True)
class Box:
    """A rectangle, and the points in the middle of its sides."""

    x: float
    y: float
    width: float
    height: float

    def point(self, across: float, down: float) -> Point:
        """Return a point of the box; both arguments are fractions of its sides."""
        return self.x + across * self.width, self.y + down * self.height

    @property
    def left(self) -> Point:
        return self.point(0, 0.5)

    @property
    def right(self) -> Point:
        return self.point(1, 0.5)

    @property
    def top(self) -> Point:
        return self.point(0.5, 0)

    @property
    def bottom(self) -> Point:
        return self.point(0.5, 1)

    @property
    def center(self) -> Point:
        return self.point(0.5, 0.5)


def number(value: float) -> str:
    """Return a coordinate with at most one decimal, the same on every machine."""
    text = f"{round(float(value), 1):.1f}"
    return "0" if text == "-0.0" else text.removesuffix(".0")


def style_sheet() -> str:
    """Return the CSS of a diagram, for light pages and below it for dark ones."""
    rules: list[list[str]] = []
    for scheme in (0, 1):
        lines = [f".background{{fill:{BACKGROUND[scheme]}}}"]
        for name, shades in COLORS.items():
            lines.append(f".{name}{{stroke:{shades[scheme]}}}.fill-{name}{{fill:{shades[scheme]}}}")
        for name, (border, *fills, _, _) in KINDS.items():
            border_color = COLORS[border][scheme]
            lines.append(f".{name}{{fill:{fills[scheme]};stroke:{border_color}}}")
        rules.append(lines)
    light, dark = ("\n".join(lines) for lines in rules)
    return (
        f"text{{font-family:{FONTS};white-space:pre}}\n{light}\n"
        f"@media (prefers-color-scheme:dark){{\n{dark}\n}}"
    )


def label_runs(markup: str) -> list[tuple[str, bool, str]]:
    """Return the runs of a label as (text, italic, "_" or "^" or "").

    Between dollar signs is mathematics: letters are italic, `_x` and `_{...}` are subscripts, `^`
    superscripts. "$ᾱ_t$ falls" gives ("ᾱ", True, ""), ("t", True, "_"), (" falls", False, "").
    """
    runs: list[tuple[str, bool, str]] = []
    for index, part in enumerate(markup.split("$")):
        if index % 2 == 0:
            runs.append((part, False, ""))
            continue
        for match in TOKENS.finditer(part):
            script = match[1] or ""
            text = match[2] or match[3] or match[4]
            end = 0
            for letter in LETTERS.finditer(text):
                runs.append((text[end : letter.start()], False, script))
                runs.append((letter[0], True, script))
                end = letter.end()
            runs.append((text[end:], False, script))
    return [run for run in runs if run[0]]


class Canvas:
    """A diagram, WIDTH pixels wide."""

    def __init__(self, height: float, title: str, description: str) -> None:
        size = {"width": str(WIDTH), "height": number(height)}
        self.height = height
        self.root = ElementTree.Element(
            "svg",
            {
                "xmlns": "http://www.w3.org/2000/svg",
                "viewBox": f"0 0 {WIDTH} {number(height)}",
                **size,
                "role": "img",
                "aria-labelledby": "title description",
            },
        )
        self.add("title", {"id": "title"}).text = title
        self.add("desc", {"id": "description"}).text = description
        self.add("style", {}).text = style_sheet()
        self.add("rect", {"class": "background", **size, "rx": "8"})

    def add(self, tag: str, attributes: dict[str, str]) -> ElementTree.Element:
        """Append an element."""
        return ElementTree.SubElement(self.root, tag, attributes)

    def to_svg(self) -> str:
        """Return the SVG file's text, one element a line."""
        head, _, _ = ElementTree.tostring(self.root, encoding="unicode").partition(">")
        lines = [ElementTree.tostring(child, encoding="unicode") for child in self.root]
        return "\n".join([f"{head}>", *lines, "</svg>\n"])

    # --- Text

    def legend(self, x: float, y: float, step: float, rows: Sequence[tuple[str, str, str]]) -> None:
        """Write formulas in their colors, each with its meaning below; rows are `step` high."""
        for index, (formula, color, meaning) in enumerate(rows):
            top = y + step * index
            self.text(x, top, formula, 17, anchor="start", color=color)
            self.text(x, top + 21, meaning, 13.5, anchor="start", color="muted")

    def text(
        self,
        x: float,
        y: float,
        markup: str,
        size: float = SIZE,
        anchor: str = "middle",
        color: str = "ink",
        bold: bool = False,
    ) -> None:
        """Write one line whose base line is at `y`; see `label_runs` for the mathematics."""
        attributes = {
            "x": number(x),
            "y": number(y),
            "class": f"fill-{color}",
            "font-size": number(size),
            "text-anchor": anchor,
        }
        if bold:
            attributes["font-weight"] = "600"
        element = self.add("text", attributes)
        shift = 0.0
        for text, italic, script in label_runs(markup):
            level = SCRIPT_SHIFT[script] * size if script else 0.0
            attributes = {"font-style": "italic"} if italic else {}
            if script:
                attributes["font-size"] = number(max(12.0, SCRIPT * size))
            if level != shift:
                attributes["dy"] = number(level - shift)
            shift = level
            ElementTree.SubElement(element, "tspan", attributes).text = text

    def lines(
        self, x: float, y: float, rows: Sequence[str], size: float = SIZE, **style: str
    ) -> None:
        """Write lines whose middle is at `y`. The first is in ink, the others are muted."""
        spacing = 1.3 * size
        first = y - (len(rows) - 1) * spacing / 2 + 0.35 * size
        for index, row in enumerate(rows):
            color = style.get("color", "ink" if index == 0 else "muted")
            small = size if index == 0 else size - 1.5
            anchor = style.get("anchor", "middle")
            self.text(x, first + index * spacing, row, small, anchor, color)

    # --- Shapes

    def box(
        self, x: float, y: float, width: float, height: float, *rows: str, kind: str = "tensor"
    ) -> Box:
        """Draw a box of one of KINDS with lines of text in its middle."""
        *_, radius, dashes = KINDS[kind]
        attributes = {
            "x": number(x),
            "y": number(y),
            "width": number(width),
            "height": number(height),
            "rx": number(min(radius, height / 2)),
            "class": kind,
            "stroke-width": "1.8",
        }
        if dashes:
            attributes["stroke-dasharray"] = dashes
        self.add("rect", attributes)
        if rows:
            self.lines(x + width / 2, y + height / 2, rows)
        return Box(x, y, width, height)

    def rectangle(
        self, x: float, y: float, width: float, height: float, color: str, opacity: float = 1.0
    ) -> Box:
        """Draw a filled rectangle without a border."""
        attributes = {"x": number(x), "y": number(y), "width": number(width)}
        attributes |= {"height": number(height), "class": f"fill-{color}"}
        self.add("rect", attributes | {"fill-opacity": f"{opacity:.2f}"})
        return Box(x, y, width, height)

    def circle(self, x: float, y: float, radius: float, color: str, filled: bool = True) -> None:
        """Draw a disk, or a circle if it is not filled."""
        attributes = {"cx": number(x), "cy": number(y), "r": number(radius)}
        style = {"class": f"fill-{color}"} if filled else {"class": color, "fill": "none"}
        self.add("circle", attributes | style | ({} if filled else {"stroke-width": "1.8"}))

    def operator(self, x: float, y: float, sign: str, radius: float = 15) -> Box:
        """Draw a sign such as + in a circle."""
        attributes = {"cx": number(x), "cy": number(y), "r": number(radius)}
        self.add("circle", attributes | {"class": "operation", "stroke-width": "1.8"})
        self.text(x, y + 6, sign, 18)
        return Box(x - radius, y - radius, 2 * radius, 2 * radius)

    def path(
        self, data: str, color: str = "ink", width: float = 1.8, dashes: str = "", **extra: str
    ) -> None:
        """Draw a line from SVG path data."""
        attributes = {"d": data, "class": color, "fill": "none", "stroke-width": number(width)}
        if dashes:
            attributes["stroke-dasharray"] = dashes
        self.add("path", attributes | extra)

    def curve(
        self, points: Sequence[Point], color: str = "ink", width: float = 2.2, dashes: str = ""
    ) -> None:
        """Draw a line through many points, as of a plot."""
        data = "M" + " L".join(f"{number(x)} {number(y)}" for x, y in points)
        self.path(data, color, width, dashes, **{"stroke-linejoin": "round"})

    def dots(self, points: Sequence[Sequence[float]], color: str, width: float = 3.6) -> None:
        """Draw many small dots as one path."""
        data = "".join(f"M{number(x)} {number(y)}h0" for x, y in points)
        self.path(data, color, width, **{"stroke-linecap": "round", "stroke-opacity": "0.75"})

    def polygon(self, points: Sequence[Point], color: str, opacity: float = 1.0) -> None:
        """Draw a filled polygon without a border."""
        text = " ".join(f"{number(x)},{number(y)}" for x, y in points)
        self.add(
            "polygon",
            {"points": text, "class": f"fill-{color}", "fill-opacity": f"{opacity:.2f}"},
        )

    def image(self, x: float, y: float, side: float, png: bytes) -> Box:
        """Show a square PNG, given as its bytes."""
        data = "data:image/png;base64," + base64.b64encode(png).decode()
        attributes = {"x": number(x), "y": number(y), "width": number(side)}
        attributes |= {"height": number(side), "href": data}
        self.add("image", attributes)
        return Box(x, y, side, side)

    # --- Arrows

    def head(self, tip: Point, angle: float, color: str, length: float = HEAD) -> None:
        """Draw the head of an arrow; `angle` in radians, 0 to the right, growing clockwise."""
        back = [angle + math.pi - 0.42, angle + math.pi + 0.42]
        corners = [(tip[0] + length * math.cos(a), tip[1] + length * math.sin(a)) for a in back]
        self.polygon([tip, *corners], color)

    def arrow(
        self,
        *points: Point,
        color: str = "ink",
        dashes: str = "",
        width: float = 1.8,
        head: float = HEAD,
    ) -> None:
        """Draw an arrow along straight segments with round corners; its tip is the last point."""
        (x0, y0), (x1, y1) = points[-2:]
        angle = math.atan2(y1 - y0, x1 - x0)
        end = (x1 - 0.8 * head * math.cos(angle), y1 - 0.8 * head * math.sin(angle))
        self.path(rounded_path([*points[:-1], end]), color, width, dashes)
        self.head((x1, y1), angle, color, head)

    def line(
        self, *points: Point, color: str = "ink", dashes: str = "", width: float = 1.8
    ) -> None:
        """Draw straight segments with round corners, without a head."""
        self.path(rounded_path(points), color, width, dashes)

    def arc_arrow(
        self, start: Point, control: Point, end: Point, color: str = "ink", dashes: str = ""
    ) -> None:
        """Draw an arrow along a quadratic Bezier curve."""
        angle = math.atan2(end[1] - control[1], end[0] - control[0])
        stop = (end[0] - 0.8 * HEAD * math.cos(angle), end[1] - 0.8 * HEAD * math.sin(angle))
        values = [number(value) for point in (start, control, stop) for value in point]
        self.path("M{} {} Q{} {} {} {}".format(*values), color, 1.8, dashes)
        self.head(end, angle, color)


def rounded_path(points: Sequence[Point]) -> str:
    """Return path data along straight segments whose corners are round."""
    data = f"M{number(points[0][0])} {number(points[0][1])}"
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        enter = toward(corner, before)
        leave = toward(corner, after)
        values = [number(value) for point in (enter, corner, leave) for value in point]
        data += " L{} {} Q{} {} {} {}".format(*values)
    return data + f" L{number(points[-1][0])} {number(points[-1][1])}"


def toward(start: Point, end: Point) -> Point:
    """Return the point CORNER pixels from `start` toward `end`, at most halfway."""
    distance = math.dist(start, end)
    share = min(CORNER, distance / 2) / distance
    return start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1])

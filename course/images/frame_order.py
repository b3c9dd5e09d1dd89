"""The order of a series of image files, by the number in their names that counts up.

    frame_numbers(["10-7.png", "9-8.png"])  # {"10-7.png": 10, "9-8.png": 9}

The one rule for `video.read_frames` and `make_video.ipynb`; an order that is not certain is an
error.
"""

import itertools
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from course.errors import CourseError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
TIMESTEP = re.compile(r"(?<=[0-9])_t([0-9]+)$")  # lesson 1.2: 012_t0481 is step 12 at timestep 481
DATE = r"(?<![0-9])((?:19|20)[0-9]{2})([-_.]?)(0[1-9]|1[0-2])\2(0[1-9]|[12][0-9]|3[01])"
TIME = (
    r"[^0-9]{0,5}([01]?[0-9]|2[0-3])([-_.:]?)([0-5][0-9])\6([0-5][0-9])"
    r"(?:[.,]?([0-9]{3}))?(?:\s?([AP])M)?"
)
MOMENTS = (re.compile(DATE + TIME + "(?![0-9])"), re.compile(DATE + "(?![0-9])"))


class VideoError(CourseError):
    """Frames cannot be ordered or read, or a clip cannot be written; the message says why."""


def frame_numbers(names: Iterable[str]) -> dict[str, int]:
    """Return the number of each file name of a series, by which it is ordered.

    The number is the one that counts up from name to name: 12 in `x_t_12.png`, `012_t0481.png`,
    `00012-SEED.png` and `000012.ID.png`. Names with a date, such as those of screenshots, go by
    date, time and what else counts; their numbers are their places, from 0.
    Raises VideoError, which shows the names, if the order is not certain: a name without a number,
    two of one number, none or several that count up.
    """
    names = list(names)
    stems = [TIMESTEP.sub("", _stem(name)) for name in names]
    blank = [name for name, stem in zip(names, stems, strict=True) if not re.search("[0-9]", stem)]
    if blank:
        raise VideoError(
            f"{_list(blank)} has no number in its name, so its place is not known. "
            "Move it away, or number it like the others."
        )
    if dates := _dates(stems):
        places = {date: place for place, date in enumerate(sorted(dates))}
        return {name: places[date] for name, date in zip(names, dates, strict=True)}
    numbers = _counter(names, stems)
    ordered = sorted(zip(numbers, names, strict=True))
    for (number, name), (other, twin) in itertools.pairwise(ordered):
        if number == other:
            raise VideoError(
                f"{name} and {twin} both are step {number}. If one was left by an earlier run, "
                "empty the folder and make the frames again."
            )
    return dict(zip(names, numbers, strict=True))


def parse_timestep(name: str) -> int | None:
    """Return 481 of `012_t0481.png`, None of other names."""
    match = TIMESTEP.search(_stem(name))
    return int(match[1]) if match else None


def _stem(name: str) -> str:
    path = Path(name)
    return path.stem if path.suffix.lower() in IMAGE_SUFFIXES else path.name


def _dates(stems: list[str]) -> list[tuple[int, ...]] | None:
    """Return date, time and what else counts in each name, or None if these do not order them."""
    for pattern in MOMENTS:
        matches = [match for stem in stems if (match := pattern.search(stem))]
        if len(matches) == len(stems):
            break
    else:
        return None
    moments = [_moment(match) for match in matches]
    different = len(set(moments))
    if different == len(stems):
        return moments
    columns, alike = _columns([pattern.sub("", stem) for stem in stems])
    if different == 1 or len(columns) != 1 or not alike:
        return None
    keys = [(*moment, int(number)) for moment, number in zip(moments, columns[0], strict=True)]
    return keys if len(set(keys)) == len(keys) else None


def _moment(match: re.Match[str]) -> tuple[int, ...]:
    """Return year, month, day and, if the name has a time, hour of 24, minute, second, ms."""
    year, _, month, day, *time = match.groups()
    date = int(year), int(month), int(day)
    if not time:
        return date
    hour, _, minute, second, milliseconds, half = time
    hours = int(hour) if half is None else int(hour) % 12 + 12 * (half == "P")
    return *date, hours, int(minute), int(second), int(milliseconds or 0)


def _counter(names: list[str], stems: list[str]) -> list[int]:
    """Return the number that counts up in each name."""
    columns, alike = _columns(stems)
    if len(stems) == 1 or (alike and not columns):  # one number in all names
        return [int(re.findall("[0-9]+", stem)[-1]) for stem in stems]
    if len(columns) > 1 or not alike:
        columns = _counting(columns, alike)
    orders = {tuple(sorted(range(len(stems)), key=lambda i: int(column[i]))) for column in columns}
    reason = ""
    if not orders:
        reason = "no number in their names counts up"
    elif len(orders) > 1:
        reason = "several numbers in their names count up, in different orders"
    elif _wraps(columns[0]):
        reason = "their counter seems to have begun again"
    elif _may_be_decimals(stems, columns[0]):
        reason = "their numbers may be decimals"
    if reason:
        raise VideoError(
            f"The order of {_list(names)} is not certain: {reason}. Name them by one number that "
            "counts up, such as 001.png, 002.png."
        )
    return [int(number) for number in columns[0]]


def _counting(columns: list[tuple[str, ...]], alike: bool) -> list[tuple[str, ...]]:
    """Return the columns that number the names."""
    different = [column for column in columns if len(set(map(int, column))) == len(column)]
    counting = [column for column in different if _counts_up(column)]
    if alike and different == columns and not counting:
        return columns  # which may go up together, as epoch and step
    return counting


def _columns(stems: list[str]) -> tuple[list[tuple[str, ...]], bool]:
    """Return the numbers at each place where all names have one and not all the same, and whether
    that is all in which the names differ. A place is counted from the left or from the right, as
    far as the text is the same."""
    parts = [re.split("([0-9]+)", stem) for stem in stems]  # text, number, text, ..., text
    alike = len({tuple(part[::2]) for part in parts}) == 1
    backwards = [[text[::-1] for text in part[::-1]] for part in parts]
    from_right = [tuple(number[::-1] for number in column) for column in _aligned(backwards)]
    columns = [*_aligned(parts), *from_right]
    if all(len(part) == 3 for part in parts):  # one number in each name, whatever is around it
        columns, alike = [tuple(part[1] for part in parts)], True
    varying = [column for column in dict.fromkeys(columns) if len(set(map(int, column))) > 1]
    return varying, alike


def _aligned(parts: list[list[str]]) -> list[tuple[str, ...]]:
    """Return the numbers from the left on, as far as the text between them is the same. The last
    one has to end there: `12-a` and `12.b` have a number, `12a3` and `12b4`, as of a hash, none."""
    columns: list[tuple[str, ...]] = []
    for i, column in enumerate(zip(*parts, strict=False)):
        if i % 2:
            columns.append(column)
        elif len(set(column)) > 1:
            return columns[:-1] if any(text[:1].isalpha() for text in column) else columns
    return columns


def _counts_up(column: tuple[str, ...]) -> bool:
    """Whether at least half of the numbers between the lowest and the highest are there; of three
    and more, in steps of their common divisor. Random seeds and times are far apart."""
    numbers = sorted(map(int, column))
    steps = [b - a for a, b in itertools.pairwise(numbers)]
    step = math.gcd(*steps) if len(steps) > 1 else 1
    return numbers[-1] - numbers[0] < 2 * step * len(numbers)


def _wraps(column: tuple[str, ...]) -> bool:
    """Whether a camera's counter went from 9999 to 0001: nothing in nine tenths of its range."""
    digits = len(column[0])
    numbers = sorted(map(int, column))
    widest = max((b - a for a, b in itertools.pairwise(numbers)), default=0)
    return digits >= 4 and {len(n) for n in column} == {digits} and widest > 0.9 * 10**digits


def _may_be_decimals(stems: list[str], column: tuple[str, ...]) -> bool:
    """Whether the numbers stand behind a point, as 0.5 and 0.25, and would then sort otherwise."""
    pairs = zip(stems, column, strict=True)
    behind_a_point = all(re.search(rf"[0-9]\.{n}(?![0-9])", stem) for stem, n in pairs)
    return behind_a_point and len({len(n) for n in column}) > 1


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(names[:4]) + more

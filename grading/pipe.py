"""Arrays over a pipe: what a sandboxed process sends, and how the grader reads it.

A message is a line of JSON (name, dtype, shape) and the raw bytes of the array. Nothing is
unpickled or executed; a message that is not of this form, or too long, is an error.
"""

import json
import math
import os
from collections.abc import Mapping

import numpy as np

from course.errors import CourseError

DTYPES = ("bool", "uint8", "int32", "int64", "float16", "float32", "float64")
HEADER = 1000  # bytes of a header line, at most
DIMENSIONS = 8
VALUES = 1 << 28  # in an array, at most; for one without values, of its other dimensions


class PipeError(CourseError):
    """The bytes are no messages of this form; the message says why."""


def send(descriptor: int, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays to a file descriptor. Raises PipeError for another dtype than `DTYPES`."""
    for name, array in arrays.items():
        dtype = array.dtype.name
        if dtype not in DTYPES:
            raise PipeError(
                f"{name} has the dtype {dtype}; it has to be one of {', '.join(DTYPES)}."
            )
        header = json.dumps({"name": name, "dtype": dtype, "shape": array.shape}) + "\n"
        if len(header.encode()) > HEADER:
            raise PipeError(f"The header of {name[:50]!r} is longer than {HEADER} bytes.")
        data = memoryview(header.encode() + np.ascontiguousarray(array).tobytes())
        while data:
            data = data[os.write(descriptor, data) :]


def receive(data: bytes) -> dict[str, np.ndarray]:
    """Return the arrays of all messages, by name; they are views of `data`. Raises PipeError."""
    arrays: dict[str, np.ndarray] = {}
    position = 0
    while position < len(data):
        end = data.find(b"\n", position, position + HEADER)
        if end < 0:
            raise PipeError("A message has no header.")
        name, dtype, shape = _header(data[position:end])
        size = math.prod(shape) * np.dtype(dtype).itemsize
        position = end + 1 + size
        if position > len(data):
            raise PipeError(f"The message {name!r} has fewer than {size} bytes.")
        if name in arrays:
            raise PipeError(f"There are two messages {name!r}.")
        # Not copied: of clips this is the larger part of the memory.
        arrays[name] = np.frombuffer(data, dtype, math.prod(shape), end + 1).reshape(shape)
    return arrays


def _header(line: bytes) -> tuple[str, str, tuple[int, ...]]:
    try:
        header = json.loads(line)
        name, dtype, shape = header["name"], header["dtype"], header["shape"]
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise PipeError("A header is no JSON with name, dtype and shape.") from error
    if not isinstance(name, str) or dtype not in DTYPES or not isinstance(shape, list):
        raise PipeError("A header has no name, another dtype, or no shape.")
    is_size = [isinstance(n, int) and not isinstance(n, bool) and 0 <= n <= VALUES for n in shape]
    is_shape = all(is_size) and len(shape) <= DIMENSIONS
    if not is_shape or math.prod(n or 1 for n in shape) > VALUES:
        raise PipeError(f"The message {name!r} has no valid shape.")
    return name, str(dtype), tuple(shape)

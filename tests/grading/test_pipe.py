"""What is sent arrives, bit for bit; anything else is an error with a reason."""

import contextlib
import os

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grading import pipe
from grading.pipe import PipeError

values = st.sampled_from(pipe.DTYPES).flatmap(
    lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, max_dims=4, max_side=5))
)


def sent(messages: dict[str, np.ndarray]) -> bytes:
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb") as file:
        pipe.send(write_end, messages)
        os.close(write_end)
        return file.read()


@given(st.dictionaries(st.text(max_size=20), values, max_size=4))
def test_arrays_arrive_as_they_were_sent(messages):
    received = pipe.receive(sent(messages))
    assert list(received) == list(messages)
    for name, array in messages.items():
        assert received[name].dtype == array.dtype and received[name].shape == array.shape
        assert received[name].tobytes() == array.tobytes()


@given(st.binary(max_size=200))
def test_any_other_bytes_are_messages_or_an_error(data):
    with contextlib.suppress(PipeError):
        pipe.receive(data)


GOOD = sent({"x": np.arange(3, dtype=np.float32)})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"x" * 2000, "no header"),
        (b"[]\n", "no JSON with name"),
        (b'{"name": 1, "dtype": "bool", "shape": []}\n', "no name"),
        (b'{"name": "x", "dtype": "object", "shape": []}\n', "another dtype"),
        (b'{"name": "x", "dtype": ["bool"], "shape": []}\n', "another dtype"),
        (b'{"name": "x", "dtype": "bool", "shape": 3}\n', "no shape"),
        (b'{"name": "x", "dtype": "bool", "shape": [-1]}\n', "valid shape"),
        (b'{"name": "x", "dtype": "bool", "shape": [true]}\n', "valid shape"),
        (b'{"name": "x", "dtype": "bool", "shape": [1.5]}\n', "valid shape"),
        (b'{"name": "x", "dtype": "bool", "shape": [1,1,1,1,1,1,1,1,1]}\n', "valid shape"),
        (b'{"name": "x", "dtype": "float64", "shape": [99999999]}\n', "fewer than"),
        (b'{"name": "x", "dtype": "float64", "shape": [0, 999999999999]}\n', "valid shape"),
        (b'{"name": "x", "dtype": "bool", "shape": [99999, 0, 99999]}\n', "valid shape"),
        (b'{"name": "x", "dtype": "bool", "shape": [1e400]}\n', "valid shape"),
        (GOOD[:-1], "fewer than 12 bytes"),
        (GOOD + GOOD, "two messages"),
        (b"[" * 900 + b"\n", "no JSON with name"),
    ],
)
def test_malformed_messages(data, message):
    with pytest.raises(PipeError, match=message):
        pipe.receive(data)


@pytest.mark.parametrize("array", [np.array(["a"]), np.array([None]), np.array([1j])])
def test_other_dtypes_are_not_sent(array):
    with pytest.raises(PipeError, match="has the dtype"):
        pipe.send(1, {"x": array})


def test_a_long_name_is_not_sent():
    with pytest.raises(PipeError, match="longer than 1000 bytes"):
        pipe.send(1, {"x" * 2000: np.zeros(1)})

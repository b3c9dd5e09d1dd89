"""Memory: what cannot fit is refused before, and an allocator's error becomes one line."""

import dataclasses
import errno

import numpy as np
import pytest
import torch

from task_3_DreamFusion.nerf import memory
from task_3_DreamFusion.nerf.memory import GIB, OutOfMemory, check, estimate, reported
from task_3_DreamFusion.nerf.settings import Settings

CPU = torch.device("cpu")
RUN = Settings(
    "a car", batch_size=1, size=64, rays=2048, keep=32, levels=8, max_steps=96, grid_size=32
)
DREAMFUSION = dataclasses.replace(RUN, space="latents", batch_size=4)


@pytest.fixture
def total(monkeypatch):
    monkeypatch.setattr(memory, "total", lambda device: 16 * GIB)


@pytest.mark.parametrize(
    "settings",
    [
        RUN,
        DREAMFUSION,
        Settings("a car"),
        dataclasses.replace(RUN, size=512),
        dataclasses.replace(RUN, rays=200_000, max_steps=400),
    ],
)
def test_runs_that_fit_are_let_through(total, settings):
    check(settings, 90, 256, CPU)
    check(settings, 360, 1024, CPU)


@pytest.mark.parametrize(
    ("changes", "frames", "video_size", "message"),
    [
        (
            {"batch_size": 1024, "size": 512},
            90,
            256,
            r"images of a step would .* lower --batch_size \(1,024\), --size \(512\)",
        ),
        ({"size": 2048, "max_steps": 10_000}, 90, 256, r"or --max_steps \(10,000\)"),
        (
            {"rays": 1_000_000, "reuse": 100},
            90,
            256,
            r"rays of a step .* --rays \(1,000,000\), --reuse \(100\)",
        ),
        (
            {"keep": 100_000, "size": 512},
            90,
            256,
            r"the targets .* --keep \(100,000\) or --size \(512\)",
        ),
        (
            {},
            90,
            5000,
            r"a frame of the clip .* this machine has 16 GiB: lower --video_size \(5,000\)\.",
        ),
        ({}, 10_000, 512, r"the frames of the clip .* --frames \(10,000\) or --video_size \(512\)"),
    ],
)
def test_what_cannot_fit_is_refused_and_names_the_options(
    total, changes, frames, video_size, message
):
    with pytest.raises(OutOfMemory, match=message):
        check(dataclasses.replace(RUN, **changes), frames, video_size, CPU)


def test_the_estimate_is_what_was_measured():
    """On a CPU, in MB: four images of 512 x 512, 100,000 rays, and a frame of 1024 x 1024."""
    sizes = {
        need.purpose: need.size / 2**20
        for need in estimate(dataclasses.replace(RUN, batch_size=4, size=512), 90, 1024)
    }
    assert sizes["the images of a step"] == pytest.approx(2650, rel=0.2)
    assert sizes["a frame of the clip"] == pytest.approx(6376, rel=0.2)
    sizes = {
        need.purpose: need.size / 2**20
        for need in estimate(dataclasses.replace(RUN, rays=100_000), 90, 256)
    }
    assert sizes["the rays of a step"] == pytest.approx(750, rel=0.2)
    assert sizes["the frames of the clip"] == 90 * 256**2 * 3 * 3 * 4 / 2**20
    [images, *_] = estimate(dataclasses.replace(RUN, max_steps=1), 90, 256)
    assert images.size == 64**2 * memory.SAMPLE  # a ray has at least one sample
    with_gradient = estimate(dataclasses.replace(DREAMFUSION, size=256), 90, 256)[0]
    assert with_gradient.size / 2**20 == pytest.approx(1386, rel=0.2)
    assert {need.purpose for need in estimate(DREAMFUSION, 90, 256)} == {
        "the images of a step",
        "a frame of the clip",
        "the frames of the clip",
    }


def test_a_container_has_less_than_its_machine(tmp_path, monkeypatch):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "LIMITS", (limit, tmp_path / "none"))
    whole = memory.total(CPU)
    for text, expected in (
        ("max\n", whole),
        ("1073741824\n", GIB),
        (str(2**62), whole),
        ("", whole),
    ):
        limit.write_text(text)
        assert memory.total(CPU) == expected


# --- On the way

ALLOCATORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB"),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried"
    ),
    RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("std::bad_alloc"),
    RuntimeError("march of raymarching failed on cuda:0: out of memory"),
    MemoryError(),
    np._core._exceptions._ArrayMemoryError((10**9, 10**9), np.dtype("f4")),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
]


@pytest.mark.parametrize(
    "error", ALLOCATORS, ids=[f"{type(error).__name__} {error}"[:40] for error in ALLOCATORS]
)
def test_errors_of_allocators_say_what_to_lower(error):
    with pytest.raises(OutOfMemory) as raised, reported("training", "lower --batch_size"):
        raise error
    assert str(raised.value) == "out of memory while training: lower --batch_size."


def test_an_allocation_that_really_fails():
    with pytest.raises(OutOfMemory), reported("training", "lower --batch_size"):
        torch.empty(2**48)
    with pytest.raises(OutOfMemory), reported("training", "lower --batch_size"):
        np.empty(2**58, np.uint8)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("shape mismatch"),
        ValueError("out of memory"),
        OSError(28, "full"),
        KeyboardInterrupt(),
        OutOfMemory("lower --rays"),
    ],
)
def test_other_errors_stay_what_they_are(error):
    with pytest.raises(type(error)) as raised, reported("training", "lower --batch_size"):
        raise error
    assert raised.value is error

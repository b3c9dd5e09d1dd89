"""The families of objects: each function builds one member, with proportions of its own.

A recipe gets the builder and a pose ("stand", "sit" or "ride"; only those with legs care) and returns its
anchors. y is up, the front is towards +z (azimuth 0), the object stands on y = 0 and is about one unit tall.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from pocket.world.builder import BLACK, DARK, WHITE, Anchors, Builder

Recipe = Callable[[Builder, str], Anchors]


def hamburger(b: Builder, pose: str) -> Anchors:
    wide, tall = b.vary(0.44, 0.52), b.vary(0.9, 1.15)
    bun = b.main((0.80, 0.52, 0.24), shine=0.25)
    patty, leaf = b.material(b.jitter((0.30, 0.16, 0.09))), b.material(b.jitter((0.35, 0.66, 0.20)))
    cheese, tomato = b.material((0.98, 0.74, 0.15)), b.material((0.82, 0.16, 0.12), shine=0.3)
    y = 0.09 * tall
    b.cylinder((0, y, 0), wide * 0.95, 0.09 * tall, bun, 0.07)
    b.group()
    b.cylinder((0, y + 0.15 * tall, 0), wide * 1.0, 0.07 * tall, patty, 0.05)
    b.group()
    b.box((0, y + 0.235 * tall, 0), (wide * 0.74, 0.016, wide * 0.74), cheese, 0.012, (0, b.vary(30, 60), 0))
    b.group()
    b.cylinder((0, y + 0.28 * tall, 0), wide * 0.93, 0.03, tomato, 0.02)
    b.group()
    b.frill((0, y + 0.33 * tall, 0), wide * 1.08, 0.012, 0.035, 9, leaf)
    b.group()
    dome, base = 0.36 * tall, y + 0.36 * tall
    b.dome((0, base, 0), (wide, dome, wide), 0.0, bun)
    b.group()
    seed = b.material((0.96, 0.90, 0.74))
    for i in range(10):
        turn, r = i * 2.4 + b.vary(0, 0.4), wide * (0.16 + 0.055 * i)
        x, z = r * math.cos(turn), r * math.sin(turn)
        h = dome * math.sqrt(max(1 - (r / wide) ** 2, 0.05))
        b.ellipsoid((x, base + h, z), (0.035, 0.02, 0.024), seed, (0, turn * 57, 0))
    return Anchors((0, base + dome - 0.02, 0), wide)


def squirrel(b: Builder, pose: str) -> Anchors:
    fur, plump = b.main((0.72, 0.38, 0.14)), b.vary(0.9, 1.15)
    belly, dark = b.material((0.95, 0.85, 0.70)), b.material(DARK)
    b.ellipsoid((0, 0.32, 0), (0.19 * plump, 0.28, 0.19 * plump), fur, k=0.05)
    b.capsule((0, 0.5, 0.03), (0, 0.72, 0.06), 0.13, 0.15, fur, 0.06)
    for s in (-1, 1):
        b.ellipsoid((s * 0.15 * plump, 0.17, 0.03), (0.10, 0.16, 0.17), fur, k=0.04)
        b.limb([(s * 0.13, 0.50, 0.08), (s * 0.14, 0.38, 0.20), (s * 0.06, 0.42, 0.28)], (0.06, 0.05, 0.045), fur)
        b.ellipsoid((s * 0.12, 0.04, 0.17), (0.06, 0.04, 0.13), fur, k=0.03)
        b.cone((s * 0.10, 0.90, 0.04), 0.055, 0.01, 0.085, fur, 0.008, (0, 0, -s * 12), 0.03)
    b.ellipsoid((0, 0.69, 0.19), (0.085, 0.075, 0.09), fur, k=0.05)
    size = b.vary(0.85, 1.15)
    b.limb(
        [(0, 0.12, -0.16), (0, 0.24, -0.40), (0, 0.62 * size, -0.46), (0, 0.92 * size, -0.38), (0, 0.98 * size, -0.58)],
        (0.07, 0.13 * size, 0.17 * size, 0.14 * size, 0.07), fur, 0.08,
    )  # fmt: skip
    b.group()
    b.ellipsoid((0, 0.34, 0.10), (0.12 * plump, 0.20, 0.115 * plump), belly)
    b.ball((0, 0.705, 0.275), 0.028, dark)
    b.eyes(0.77, 0.165, 0.09, 0.034)
    return Anchors((0, 0.95, 0), 0.34, lap=(0, 0.44, 0.34))


def open_book(b: Builder, width: float) -> None:
    """An open book in the plane of x and y, pages towards -z (its reader), spine at x = 0."""
    cover, paper = b.main((0.60, 0.14, 0.14)), b.material((0.95, 0.93, 0.86), shine=0.02)
    tall = width * 0.62
    for s in (-1, 1):
        b.box((s * width * 0.5, 0, -0.07 * width), (width * 0.52, tall, 0.022), cover, 0.01, (0, s * 14, 0))
        b.box((s * width * 0.48, 0, -0.07 * width - 0.035), (width * 0.46, tall * 0.92, 0.026), paper, 0.012, (0, s * 14, 0))  # fmt: skip
        b.group()


def book(b: Builder, pose: str) -> Anchors:
    cover, paper = b.main((0.16, 0.27, 0.55)), b.material((0.95, 0.93, 0.86), shine=0.02)
    label = b.material((0.93, 0.82, 0.50), shine=0.3)
    wide, deep, thick = b.vary(0.34, 0.42), b.vary(0.46, 0.54), b.vary(0.08, 0.13)
    standing = pose == "stand" and b.rng.random() < 0.35
    if standing:  # on its lower edge, a little opened so that it stays
        for s in (-1, 1):
            b.box((s * 0.10, deep, 0), (0.025, deep, wide), cover, 0.012, (0, s * 13, 0))
            b.group()
            b.box((s * 0.055, deep, 0), (0.05, deep * 0.94, wide * 0.93), paper, 0.01, (0, s * 13, 0))
            b.group()
        b.box((0.0, deep, -wide * 0.98), (0.085, deep, 0.03), cover, 0.02)
        b.box((0.125, deep * 1.3, 0.0), (0.012, deep * 0.22, wide * 0.55), label, 0.006, (0, 13, 0))
        return Anchors((0, 2 * deep, 0), wide)
    b.box((0, 0.02, 0), (wide, 0.02, deep), cover, 0.012)
    b.box((0, 2 * thick - 0.02, 0), (wide, 0.02, deep), cover, 0.012)
    b.box((-wide + 0.02, thick, 0), (0.028, thick, deep), cover, 0.02)
    b.group()
    b.box((0.01, thick, 0), (wide * 0.95, thick * 0.9, deep * 0.95), paper, 0.01)
    b.box((0.03, 2 * thick, deep * 0.25), (wide * 0.55, 0.008, deep * 0.25), label, 0.005)
    return Anchors((0, 2 * thick, 0), deep)


def bunny(b: Builder, pose: str) -> Anchors:
    fur, pink = b.main((0.88, 0.85, 0.80)), b.material((0.95, 0.68, 0.70))
    plump, ear = b.vary(0.9, 1.12), b.vary(0.85, 1.25)
    b.ellipsoid((0, 0.25, -0.06), (0.21 * plump, 0.24, 0.26 * plump), fur, k=0.05)
    b.ellipsoid((0, 0.54, 0.10), (0.165, 0.155, 0.165), fur, k=0.06)
    b.ellipsoid((0, 0.49, 0.23), (0.095, 0.075, 0.07), fur, k=0.04)
    lean = b.vary(6, 16)
    for s in (-1, 1):
        b.ellipsoid((s * 0.16 * plump, 0.16, -0.10), (0.10, 0.15, 0.17), fur, k=0.04)
        b.ellipsoid((s * 0.13, 0.04, 0.12), (0.065, 0.045, 0.15), fur, k=0.03)
        b.capsule((s * 0.09, 0.34, 0.13), (s * 0.07, 0.10, 0.20), 0.055, 0.045, fur, 0.03)
        b.ellipsoid((s * 0.085, 0.62 + 0.21 * ear, 0.04), (0.055, 0.21 * ear, 0.035), fur, (-6, 0, -s * lean), 0.03)
    b.ball((0, 0.22, -0.33 * plump), 0.085, fur, 0.02)
    b.group()
    for s in (-1, 1):
        b.ellipsoid((s * 0.085, 0.62 + 0.21 * ear, 0.068), (0.03, 0.15 * ear, 0.018), pink, (-6, 0, -s * lean))
    b.ellipsoid((0, 0.515, 0.298), (0.026, 0.02, 0.018), pink)
    b.eyes(0.585, 0.215, 0.095, 0.032)
    return Anchors((0, 0.68, 0), 0.32, lap=(0, 0.32, 0.36))


def pancakes(b: Builder, pose: str) -> Anchors:
    count, wide = int(b.rng.integers(4, 8)), b.vary(0.44, 0.54)
    cake, edge = b.main((0.83, 0.55, 0.24)), b.main((0.83, 0.55, 0.24), tint=0.35)
    y = 0.0
    for i in range(count):
        half = b.vary(0.045, 0.058)
        x, z, r = b.vary(-0.025, 0.025), b.vary(-0.025, 0.025), wide * b.vary(0.95, 1.04)
        b.cylinder((x, y + half, z), r, half, cake if i % 2 else edge, 0.045)
        b.group()
        y += 1.88 * half
    syrup, butter = b.material((0.45, 0.19, 0.05), shine=0.7, gloss=50), b.material((0.99, 0.87, 0.42))
    b.ellipsoid((0, y, 0), (wide * 0.78, 0.03, wide * 0.78), syrup, k=0.03)
    for i in range(4):
        a = i * 1.57 + b.vary(0, 0.9)
        x, z = math.cos(a), math.sin(a)
        b.limb([(x * wide * 0.6, y, z * wide * 0.6), (x * wide * 1.0, y - 0.02, z * wide * 1.0),
                (x * wide * 1.04, y - b.vary(0.1, 0.25), z * wide * 1.04)], (0.05, 0.05, 0.05), syrup, 0.05)  # fmt: skip
    b.group()
    b.box((b.vary(-0.06, 0.06), y + 0.06, b.vary(-0.06, 0.06)), (0.10, 0.045, 0.10), butter, 0.02, (0, b.vary(0, 90), 0))  # fmt: skip
    return Anchors((0, y + 0.03, 0), wide)


def _legs(b: Builder, pose: str, suit: int, boot: int, apart: float, r: float, high: float) -> float:
    """Two legs in a pose; returns the height of the hips."""
    hips = {"stand": high, "sit": r * 1.1, "ride": r * 1.2}[pose]
    for s in (-1, 1):
        if pose == "stand":
            knee, foot = (s * apart, hips * 0.5, 0.01), (s * apart, 0.08, 0.0)
        elif pose == "sit":
            knee, foot = (s * apart * 1.2, hips + 0.03, 0.20), (s * apart * 1.35, r, 0.36)
        else:  # astride
            knee, foot = (s * (apart + 0.15), hips - 0.07, 0.13), (s * (apart + 0.20), hips - 0.30, 0.06)
        b.limb([(s * apart, hips, 0.0), knee, foot], (r * 1.1, r, r * 0.9), suit, 0.03)
        toe = (0.0, 0.05, 0.02) if pose == "sit" else (0.0, -0.03, 0.05)
        b.ellipsoid((foot[0], foot[1] + toe[1], foot[2] + toe[2]), (r * 0.95, r * 0.8, r * 1.35), boot,
                    (-60, 0, 0) if pose == "sit" else (0, 0, 0))  # fmt: skip
    return hips


def astronaut(b: Builder, pose: str) -> Anchors:
    suit, gray = b.main((0.90, 0.90, 0.91)), b.material((0.45, 0.47, 0.51), shine=0.3)
    visor = b.material(b.jitter((0.12, 0.14, 0.24), 0.02), shine=1.0, gloss=60, metal=0.35)
    accent = b.material(((0.82, 0.22, 0.14), (0.16, 0.35, 0.75), (0.93, 0.55, 0.10))[int(b.rng.integers(3))])
    wide = b.vary(0.9, 1.1)
    hips = _legs(b, pose, suit, gray, 0.105 * wide, 0.078, 0.30)
    y = hips + 0.19
    b.ellipsoid((0, y, 0), (0.19 * wide, 0.24, 0.15), suit, k=0.05)
    hold = 0.14 if pose == "ride" else b.vary(-0.02, 0.12)
    for s in (-1, 1):
        elbow = (s * 0.29 * wide, y - 0.04, 0.05)
        hand = (s * 0.25 * wide, y - 0.14, 0.12 + hold)
        b.limb([(s * 0.18 * wide, y + 0.13, 0), elbow, hand], (0.075, 0.066, 0.06), suit, 0.03)
        b.ball(hand, 0.068, gray)
    b.group()
    b.ball((0, y + 0.37, 0.01), 0.205, suit)
    b.torus((0, y + 0.22, 0), 0.13, 0.035, gray)
    b.group()
    b.ellipsoid((0, y + 0.375, 0.075), (0.155, 0.135, 0.158), visor)
    b.box((0, y + 0.06, -0.20), (0.165 * wide, 0.20, 0.09), gray, 0.04)
    b.box((0, y + 0.04, 0.145), (0.085, 0.055, 0.025), gray, 0.015)
    b.ball((-0.035, y + 0.05, 0.168), 0.02, accent)
    b.box((0.035, y + 0.05, 0.166), (0.025, 0.018, 0.01), accent, 0.005)
    return Anchors((0, y + 0.57, 0), 0.3, lap=(0, y + 0.02, 0.36))


def horse(b: Builder, pose: str) -> Anchors:
    coat, mane = b.main((0.50, 0.28, 0.14)), b.material(b.jitter((0.16, 0.10, 0.07)))
    hoof, long_, stout = b.material((0.12, 0.10, 0.09)), b.vary(0.92, 1.12), b.vary(0.92, 1.1)
    z = 0.25 * long_
    b.capsule((0, 0.60, -z), (0, 0.60, z * 0.9), 0.185 * stout, 0.18 * stout, coat, 0.05)
    b.capsule((0, 0.66, z), (0, 0.97, z + 0.20), 0.14 * stout, 0.095, coat, 0.08)
    b.capsule((0, 1.00, z + 0.20), (0, 0.88, z + 0.45), 0.10, 0.062, coat, 0.04)
    step = b.vary(0.0, 0.06)
    for s in (-1, 1):
        b.limb([(s * 0.11, 0.52, z * 0.95), (s * 0.11, 0.28, z + s * step), (s * 0.11, 0.06, z + s * step)], (0.085, 0.055, 0.045), coat)  # fmt: skip
        b.limb([(s * 0.11, 0.54, -z), (s * 0.11, 0.28, -z - 0.05 - s * step), (s * 0.11, 0.06, -z - s * step)], (0.11, 0.06, 0.045), coat)  # fmt: skip
        b.cone((s * 0.055, 1.11, z + 0.17), 0.035, 0.008, 0.06, coat, 0.006, (-8, 0, -s * 10), 0.02)
    b.group()
    for s in (-1, 1):
        b.cone((s * 0.11, 0.035, z + s * step), 0.062, 0.048, 0.035, hoof)
        b.cone((s * 0.11, 0.035, -z - s * step), 0.062, 0.048, 0.035, hoof)
    b.group()
    b.limb([(0, 1.09, z + 0.17), (0, 0.98, z + 0.05), (0, 0.78, z - 0.09)], (0.05, 0.065, 0.05), mane, 0.04)
    b.limb([(0, 0.68, -z - 0.17), (0, 0.55, -z - 0.30), (0, 0.24, -z - 0.30)], (0.05, 0.07, 0.035), mane, 0.04)
    b.eyes(1.01, z + 0.27, 0.082, 0.024)
    return Anchors((0, 0.78, 0), 0.45, seat=(0, 0.755, -0.02), wide=0.19)


def snowman(b: Builder, pose: str) -> Anchors:
    snow, coal = b.main((0.93, 0.94, 0.97)), b.material(BLACK)
    carrot, wood = b.material((0.95, 0.47, 0.10)), b.material((0.36, 0.22, 0.12))
    felt = b.material((0.10, 0.10, 0.12))
    scarf = b.material(((0.80, 0.13, 0.13), (0.12, 0.45, 0.20), (0.15, 0.27, 0.68))[int(b.rng.integers(3))])
    fat = b.vary(0.92, 1.1)
    b.ball((0, 0.26 * fat, 0), 0.28 * fat, snow, 0.02)
    b.ball((0, 0.60 * fat, 0), 0.205 * fat, snow, 0.02)
    y = 0.60 * fat + 0.30
    b.ball((0, y, 0), 0.155, snow, 0.02)
    b.group()
    b.torus((0, y - 0.135, 0), 0.12, 0.042, scarf)
    b.capsule((0.07, y - 0.15, 0.13), (0.09, y - 0.33, 0.21), 0.04, 0.035, scarf, 0.03)
    b.group()
    b.cone((0, y - 0.01, 0.23), 0.036, 0.006, 0.10, carrot, 0.005, (90, 0, 0))
    for s in (-1, 1):
        b.capsule((s * 0.17 * fat, 0.64 * fat, 0), (s * 0.42, 0.64 * fat + b.vary(0.02, 0.16), 0.05), 0.022, 0.015, wood)  # fmt: skip
        b.ball((s * 0.055, y + 0.045, 0.14), 0.023, coal)
    for i in range(3):
        b.ball((0, (0.50 + 0.09 * i) * fat, (0.195 + 0.008 * (i == 1)) * fat), 0.024, coal)
    if b.rng.random() < 0.75:
        b.cylinder((0, y + 0.12, 0), 0.18, 0.014, felt)
        b.cylinder((0, y + 0.22, 0), 0.115, 0.10, felt)
        b.cylinder((0, y + 0.15, 0), 0.119, 0.022, scarf)
        y += 0.17
    return Anchors((0, y + 0.15, 0), 0.34, lap=(0, 0.62 * fat, 0.36))


def duck(b: Builder, pose: str) -> Anchors:
    down, bill = b.main((0.97, 0.80, 0.15)), b.material((0.95, 0.50, 0.08), shine=0.3)
    fat, neck = b.vary(0.92, 1.1), b.vary(0.0, 0.10)
    b.ellipsoid((0, 0.29, -0.02), (0.25 * fat, 0.22, 0.34), down, (-6, 0, 0), 0.06)
    b.capsule((0, 0.40, 0.18), (0, 0.62 + neck, 0.21), 0.13, 0.12, down, 0.08)
    b.ball((0, 0.66 + neck, 0.22), 0.165, down, 0.04)
    b.cone((0, 0.44, -0.37), 0.12, 0.02, 0.11, down, 0.015, (-52, 0, 0), 0.08)
    for s in (-1, 1):
        b.ellipsoid((s * 0.235 * fat, 0.33, -0.06), (0.055, 0.13, 0.22), down, (-10, s * 6, 0), 0.02)
    b.group()
    b.ellipsoid((0, 0.635 + neck, 0.40), (0.085, 0.028, 0.105), bill, (-4, 0, 0), 0.02)
    b.ellipsoid((0, 0.60 + neck, 0.385), (0.07, 0.022, 0.08), bill, (8, 0, 0), 0.01)
    b.group()
    for s in (-1, 1):
        b.ellipsoid((s * 0.11, 0.025, 0.10), (0.085, 0.025, 0.12), bill)
        b.capsule((s * 0.11, 0.13, 0.02), (s * 0.11, 0.03, 0.04), 0.03, 0.03, bill)
    b.eyes(0.71 + neck, 0.335, 0.10, 0.028)
    return Anchors((0, 0.82 + neck, 0.2), 0.36, lap=(0, 0.36, 0.46))


def cat(b: Builder, pose: str) -> Anchors:
    fur, light = b.main((0.86, 0.54, 0.24)), b.material((0.95, 0.90, 0.84))
    pink, plump = b.material((0.92, 0.58, 0.58)), b.vary(0.9, 1.12)
    b.ellipsoid((0, 0.30, -0.06), (0.19 * plump, 0.29, 0.21), fur, (-8, 0, 0), 0.05)
    b.ellipsoid((0, 0.68, 0.06), (0.195, 0.165, 0.165), fur, k=0.06)
    for s in (-1, 1):
        b.cone((s * 0.125, 0.845, 0.04), 0.072, 0.008, 0.085, fur, 0.006, (0, 0, -s * 16), 0.02)
        b.capsule((s * 0.085, 0.40, 0.10), (s * 0.085, 0.06, 0.16), 0.065, 0.05, fur, 0.03)
        b.ellipsoid((s * 0.085, 0.04, 0.20), (0.055, 0.04, 0.075), fur, k=0.02)
        b.ellipsoid((s * 0.17 * plump, 0.14, -0.04), (0.09, 0.14, 0.18), fur, k=0.04)
    side = 1 if b.rng.random() < 0.5 else -1
    b.limb([(0, 0.07, -0.24), (side * 0.25, 0.06, -0.25), (side * 0.38, 0.07, -0.04), (side * 0.30, 0.08, 0.16)],
           (0.06, 0.055, 0.05, 0.04), fur, 0.03)  # fmt: skip
    b.group()
    b.ellipsoid((0, 0.635, 0.19), (0.085, 0.06, 0.055), light)
    b.ellipsoid((0, 0.36, 0.105), (0.095, 0.16, 0.07), light)
    b.ellipsoid((0, 0.665, 0.245), (0.024, 0.017, 0.014), pink)
    iris, pupil = b.material((0.45, 0.72, 0.25), shine=0.8, gloss=60), b.material(BLACK, shine=0.8, gloss=60)
    for s in (-1, 1):
        b.ellipsoid((s * 0.08, 0.725, 0.195), (0.038, 0.038, 0.022), iris)
        b.ellipsoid((s * 0.08, 0.725, 0.212), (0.013, 0.031, 0.010), pupil)
        b.cone((s * 0.125, 0.835, 0.075), 0.042, 0.006, 0.055, pink, 0.005, (0, 0, -s * 16))
    return Anchors((0, 0.84, 0), 0.36, lap=(0, 0.36, 0.36))


def robot(b: Builder, pose: str) -> Anchors:
    shell = b.main((0.62, 0.66, 0.71), shine=0.5, gloss=30)
    joint, dark = b.material((0.30, 0.32, 0.35), shine=0.4), b.material((0.10, 0.12, 0.15), shine=0.4)
    light = b.material((0.30, 0.90, 0.98), glow=0.7)
    red = b.material((0.90, 0.16, 0.12), glow=0.2)
    wide = b.vary(0.9, 1.12)
    hips = {"stand": 0.28, "sit": 0.085, "ride": 0.09}[pose]
    for s in (-1, 1):
        if pose == "stand":
            b.capsule((s * 0.11, hips, 0), (s * 0.11, 0.10, 0), 0.052, 0.052, joint)
            b.box((s * 0.11, 0.05, 0.03), (0.08, 0.05, 0.12), shell, 0.03)
        elif pose == "sit":
            b.capsule((s * 0.11, hips, 0.05), (s * 0.13, 0.08, 0.30), 0.052, 0.052, joint)
            b.box((s * 0.13, 0.10, 0.36), (0.08, 0.10, 0.05), shell, 0.03)
        else:
            b.limb([(s * 0.12, hips, 0), (s * 0.26, hips - 0.05, 0.12), (s * 0.29, hips - 0.26, 0.06)], (0.052,) * 3, joint)  # fmt: skip
            b.box((s * 0.29, hips - 0.30, 0.09), (0.06, 0.045, 0.10), shell, 0.03)
    b.group()
    y = hips + 0.20
    b.box((0, y, 0), (0.20 * wide, 0.20, 0.14), shell, 0.045)
    b.cylinder((0, y + 0.22, 0), 0.06, 0.04, joint)
    b.group()
    b.box((0, y + 0.39, 0), (0.17 * wide, 0.13, 0.13), shell, 0.04)
    b.group()
    b.box((0, y + 0.40, 0.125), (0.14 * wide, 0.08, 0.012), dark, 0.01)
    for s in (-1, 1):
        b.cylinder((s * 0.068, y + 0.415, 0.135), 0.038, 0.014, light, 0.008, (90, 0, 0))
        b.limb([(s * 0.21 * wide, y + 0.12, 0), (s * 0.31 * wide, y - 0.02, 0.03), (s * 0.27 * wide, y - 0.12, 0.17)],
               (0.045, 0.042, 0.042), joint, 0.01)  # fmt: skip
        b.ball((s * 0.215 * wide, y + 0.125, 0), 0.07, shell)
        b.ball((s * 0.27 * wide, y - 0.12, 0.18), 0.062, shell)
        b.cylinder((s * 0.18 * wide, y + 0.39, 0), 0.045, 0.02, joint, 0.01, (0, 0, 90))
    b.box((0, y + 0.335, 0.137), (0.055, 0.010, 0.006), light, 0.004)
    b.capsule((0, y + 0.52, 0), (0, y + 0.62, 0), 0.014, 0.012, joint)
    b.ball((0, y + 0.64, 0), 0.036, red)
    b.box((0, y + 0.03, 0.138), (0.11, 0.08, 0.012), dark, 0.01)
    b.ball((-0.055, y + 0.04, 0.15), 0.024, red)
    b.ball((0.0, y + 0.04, 0.15), 0.024, light)
    return Anchors((0, y + 0.52, 0), 0.3, lap=(0, y, 0.38))


def car(b: Builder, pose: str) -> Anchors:
    natural = ((0.78, 0.12, 0.10), (0.12, 0.30, 0.68), (0.85, 0.86, 0.88), (0.92, 0.66, 0.10))[int(b.rng.integers(4))]
    paint = b.main(natural, shine=0.7, gloss=50)
    glass, rubber = b.material((0.13, 0.18, 0.24), shine=0.9, gloss=60), b.material((0.07, 0.07, 0.08))
    chrome = b.material((0.70, 0.71, 0.73), shine=0.6)
    lamp, tail = b.material((0.99, 0.95, 0.75), glow=0.5), b.material((0.80, 0.05, 0.05), glow=0.25)
    long_, tall = b.vary(0.50, 0.60), b.vary(0.10, 0.14)
    b.box((0, 0.25, 0), (0.27, 0.12, long_), paint, 0.07, k=0.04)
    b.box((0, 0.34, -0.05), (0.24, 0.08, long_ * 0.62), paint, 0.06, k=0.05)
    b.group()
    roof = 0.37 + 2 * tall
    b.box((0, 0.39 + tall, -0.07), (0.225, tall, long_ * 0.50), glass, 0.06)
    b.group()
    b.box((0, roof + 0.01, -0.07), (0.225, 0.03, long_ * 0.46), paint, 0.028)
    for s in (-1, 1):
        b.box((s * 0.20, 0.40 + tall, -0.07), (0.032, tall, 0.025), paint, 0.01)
        b.capsule((s * 0.20, 0.42, long_ * 0.42), (s * 0.19, roof, long_ * 0.26), 0.024, 0.024, paint)
        b.capsule((s * 0.20, 0.42, -long_ * 0.62), (s * 0.19, roof, -long_ * 0.48), 0.026, 0.026, paint)
    b.group()
    for s in (-1, 1):
        for z in (long_ * 0.60, -long_ * 0.60):
            b.cylinder((s * 0.25, 0.13, z), 0.13, 0.055, rubber, 0.03, (0, 0, 90))
            b.cylinder((s * 0.287, 0.13, z), 0.072, 0.025, chrome, 0.015, (0, 0, 90))
        b.ellipsoid((s * 0.18, 0.28, long_ - 0.01), (0.058, 0.05, 0.03), lamp)
        b.box((s * 0.19, 0.29, -long_), (0.05, 0.035, 0.018), tail, 0.01)
        b.group()
    b.box((0, 0.16, long_ - 0.01), (0.24, 0.035, 0.035), chrome, 0.02)
    b.box((0, 0.16, -long_ + 0.01), (0.24, 0.035, 0.035), chrome, 0.02)
    b.box((0, 0.265, long_ - 0.005), (0.09, 0.03, 0.015), rubber, 0.01)
    return Anchors((0, roof + 0.04, -0.07), 0.5, seat=(0, roof + 0.03, -0.05), wide=0.22)


def rocket(b: Builder, pose: str) -> Anchors:
    hull = b.main((0.90, 0.91, 0.93), shine=0.5, gloss=36)
    accent = b.material(((0.84, 0.16, 0.13), (0.14, 0.36, 0.78), (0.95, 0.52, 0.10))[int(b.rng.integers(3))], shine=0.4)
    metal, glass = b.material((0.42, 0.44, 0.48), shine=0.6), b.material((0.35, 0.68, 0.90), shine=0.9, gloss=60)
    fat, tall = b.vary(0.14, 0.19), b.vary(0.95, 1.15)
    b.ellipsoid((0, 0.52 * tall, 0), (fat, 0.46 * tall, fat), hull)
    b.group()
    b.cone((0, 0.11, 0), 0.13, 0.085, 0.06, metal)
    b.cone((0, 0.93 * tall, 0), fat * 0.58, 0.012, 0.115 * tall, accent, 0.01)
    b.torus((0, 0.30 * tall, 0), fat * 0.9, 0.018, accent)
    b.group()
    for i in range(4):
        turn = 45 + 90 * i
        x, z = math.sin(math.radians(turn)), math.cos(math.radians(turn))
        b.prism((x * fat * 0.75, 0.06, z * fat * 0.75), fat * 1.15, 0.36 * tall, 0.018, accent, (0, turn - 90, 0))
    b.group()
    for z in (-1, 1):
        b.torus((0, 0.64 * tall, z * fat * 0.93), 0.062, 0.017, metal, (90, 0, 0))
        b.ellipsoid((0, 0.64 * tall, z * fat * 0.93), (0.057, 0.057, 0.022), glass)
    return Anchors((0, 1.02 * tall, 0), 0.3)


def house(b: Builder, pose: str) -> Anchors:
    wall = b.main((0.90, 0.83, 0.68))
    roof = b.material(b.jitter(((0.62, 0.22, 0.16), (0.33, 0.34, 0.38), (0.45, 0.28, 0.18))[int(b.rng.integers(3))]))
    door, glass = b.material(b.jitter((0.42, 0.25, 0.14))), b.material((0.55, 0.78, 0.92), shine=0.6, gloss=50)
    frame, brick = b.material(WHITE), b.material((0.55, 0.26, 0.20))
    wide, deep, tall, pitch = b.vary(0.34, 0.40), b.vary(0.30, 0.42), b.vary(0.24, 0.30), b.vary(0.30, 0.42)
    b.box((0, tall, 0), (wide, tall, deep), wall, 0.01)
    b.prism((0, 2 * tall - 0.005, 0), wide * 0.98, pitch * 0.96, deep * 0.99, wall)
    b.group()
    slope = math.degrees(math.atan2(pitch, wide))
    half = math.hypot(wide, pitch) * 0.5 + 0.05
    for s in (-1, 1):
        middle = (s * (wide * 0.5 + 0.02), 2 * tall + pitch * 0.5 + 0.01, 0)
        b.box(middle, (half, 0.028, deep + 0.06), roof, 0.012, (0, 0, -s * slope))
    b.group()
    b.box((wide * 0.45, 2 * tall + pitch * 0.80, -deep * 0.35), (0.055, 0.17, 0.055), brick, 0.008)
    b.box((0, 0.155, deep), (0.085, 0.155, 0.02), door, 0.01)
    b.ball((0.055, 0.15, deep + 0.025), 0.016, b.material((0.9, 0.75, 0.3), shine=0.8))
    for s in (-1, 1):
        b.box((s * wide * 0.60, tall * 1.12, deep), (0.085, 0.085, 0.016), frame, 0.008)
        b.box((s * wide * 0.60, tall * 1.12, deep + 0.012), (0.066, 0.066, 0.012), glass, 0.006)
        b.box((s * wide, tall * 1.12, 0), (0.016, 0.095, 0.12), frame, 0.008)
        b.box((s * (wide + 0.012), tall * 1.12, 0), (0.012, 0.075, 0.10), glass, 0.006)
    b.cylinder((0, 2 * tall + pitch * 0.36, deep), 0.06, 0.02, glass, 0.008, (90, 0, 0))
    b.box((0, tall * 1.12, -deep), (0.12, 0.09, 0.016), glass, 0.008)
    return Anchors((0, 2 * tall + pitch, 0), 0.45)


def tree(b: Builder, pose: str) -> Anchors:
    bark = b.material(b.jitter((0.42, 0.27, 0.16)))
    if b.rng.random() < 0.5:  # a conifer
        leaf = b.main((0.13, 0.40, 0.20))
        b.cone((0, 0.12, 0), 0.075, 0.055, 0.13, bark)
        b.group()
        tiers, wide = int(b.rng.integers(3, 5)), b.vary(0.34, 0.42)
        for i in range(tiers):
            f = i / tiers
            half = 0.62 / tiers * 0.85
            b.cone((0, 0.24 + half + f * 0.80, 0), wide * (1 - 0.72 * f), wide * (0.50 - 0.50 * f) * 0.7 + 0.01, half, leaf, 0.03)  # fmt: skip
        return Anchors((0, 1.15, 0), wide)
    leaf = b.main((0.24, 0.52, 0.18))
    b.cone((0, 0.24, 0), 0.10, 0.065, 0.25, bark, 0.02)
    b.group()
    b.ball((0, 0.78, 0), b.vary(0.27, 0.32), leaf, 0.1)
    for i in range(5):
        a = i * 1.257 + b.vary(0, 0.6)
        b.ball((0.23 * math.cos(a), 0.68 + b.vary(-0.06, 0.12), 0.23 * math.sin(a)), b.vary(0.15, 0.20), leaf, 0.1)
    b.ball((b.vary(-0.06, 0.06), 1.00, b.vary(-0.06, 0.06)), 0.17, leaf, 0.1)
    return Anchors((0, 1.15, 0), 0.4)


def mushroom(b: Builder, pose: str) -> Anchors:
    cap, stem = b.main((0.80, 0.13, 0.10), shine=0.35), b.material((0.94, 0.90, 0.82))
    spot, wide, tall = b.material((0.96, 0.94, 0.90)), b.vary(0.34, 0.46), b.vary(0.40, 0.55)
    high = b.vary(0.24, 0.36)
    b.cone((0, tall * 0.5, 0), 0.14, 0.10, tall * 0.5 + 0.04, stem, 0.04)
    b.group()
    b.ellipsoid((0, tall + 0.01, 0), (wide * 0.86, 0.05, wide * 0.86), stem)
    b.group()
    b.dome((0, tall, 0), (wide, high, wide), 0.0, cap)
    if b.look.pattern == 0:
        b.group()
        for i in range(9):
            a, r = i * 2.4 + 0.5, wide * (0.12 + 0.092 * i)
            h = high * math.sqrt(max(1 - (r / wide) ** 2, 0.0))
            size = b.vary(0.045, 0.075)
            n = (r * math.cos(a) / wide**2, h / high**2, r * math.sin(a) / wide**2)
            tilt = math.degrees(math.atan2(math.hypot(n[0], n[2]), n[1]))
            b.ellipsoid((r * math.cos(a), tall + h, r * math.sin(a)), (size, 0.022, size), spot, (tilt, 90 - math.degrees(a), 0))  # fmt: skip
    return Anchors((0, tall + high - 0.01, 0), wide)


def cactus(b: Builder, pose: str) -> Anchors:
    skin, flower = b.main((0.20, 0.52, 0.24)), b.material((0.95, 0.42, 0.62))
    pot, soil = b.material(b.jitter((0.76, 0.40, 0.25))), b.material((0.25, 0.16, 0.10))
    base, tall = 0.0, b.vary(0.62, 0.80)
    if b.rng.random() < 0.6:
        b.cone((0, 0.12, 0), 0.15, 0.21, 0.12, pot, 0.02)
        b.cylinder((0, 0.235, 0), 0.225, 0.03, pot, 0.012)
        b.group()
        b.cylinder((0, 0.255, 0), 0.19, 0.02, soil)
        b.group()
        base = 0.22
    b.capsule((0, base, 0), (0, base + tall, 0), 0.125, 0.12, skin, 0.03)
    for s, high, up in ((1, b.vary(0.32, 0.45), b.vary(0.22, 0.32)), (-1, b.vary(0.22, 0.36), b.vary(0.20, 0.30))):
        b.limb([(0, base + high, 0), (s * 0.27, base + high, 0), (s * 0.29, base + high + up, 0)], (0.07, 0.075, 0.07), skin, 0.05)  # fmt: skip
    b.group()
    b.ellipsoid((0, base + tall + 0.12, 0), (0.065, 0.05, 0.065), flower)
    return Anchors((0, base + tall + 0.13, 0), 0.3)


def teapot(b: Builder, pose: str) -> Anchors:
    glaze = b.main((0.86, 0.88, 0.90), shine=0.8, gloss=50)
    wide, tall = b.vary(0.32, 0.38), b.vary(0.26, 0.34)
    y = tall + 0.02
    b.ellipsoid((0, y, 0), (wide, tall, wide), glaze, k=0.03)
    b.limb([(wide * 0.8, y - 0.06, 0), (wide + 0.14, y + 0.06, 0), (wide + 0.24, y + 0.24, 0)], (0.10, 0.065, 0.04), glaze, 0.05)  # fmt: skip
    b.torus((-wide - 0.04, y + 0.03, 0), 0.16, 0.036, glaze, (90, 0, 0), 0.03)
    b.cylinder((0, 0.03, 0), wide * 0.62, 0.03, glaze, 0.01)
    b.group()
    b.ellipsoid((0, y + tall * 0.94, 0), (wide * 0.52, 0.07, wide * 0.52), glaze, k=0.02)
    b.ball((0, y + tall + 0.09, 0), 0.052, glaze, 0.02)
    return Anchors((0, y + tall + 0.13, 0), 0.42)


def bear(b: Builder, pose: str) -> Anchors:
    fur, light = b.main((0.60, 0.38, 0.19)), b.main((0.60, 0.38, 0.19), tint=0.45)
    dark, plump = b.material((0.12, 0.08, 0.06), shine=0.5), b.vary(0.92, 1.12)
    hips = _legs(b, pose, fur, fur, 0.13 * plump, 0.088, 0.20)
    y = hips + 0.17
    b.ellipsoid((0, y, 0), (0.22 * plump, 0.25, 0.19 * plump), fur, k=0.05)
    b.ellipsoid((0, y + 0.36, 0.02), (0.19, 0.175, 0.17), fur, k=0.05)
    for s in (-1, 1):
        b.ellipsoid((s * 0.15, y + 0.50, 0.0), (0.072, 0.072, 0.042), fur, k=0.02)
        b.limb([(s * 0.18 * plump, y + 0.14, 0), (s * 0.30 * plump, y + 0.0, 0.08), (s * 0.27 * plump, y - 0.07, 0.17)],
               (0.08, 0.075, 0.07), fur)  # fmt: skip
    b.group()
    b.ellipsoid((0, y - 0.01, 0.075), (0.145 * plump, 0.17, 0.13 * plump), light)
    b.ellipsoid((0, y + 0.315, 0.155), (0.085, 0.068, 0.075), light)
    b.ellipsoid((0, y + 0.345, 0.222), (0.036, 0.026, 0.022), dark)
    for s in (-1, 1):
        b.ellipsoid((s * 0.15, y + 0.50, 0.03), (0.045, 0.045, 0.022), light)
    b.eyes(y + 0.41, 0.165, 0.072, 0.026)
    return Anchors((0, y + 0.53, 0), 0.33, lap=(0, y - 0.02, 0.38))


def penguin(b: Builder, pose: str) -> Anchors:
    coat, belly = b.main((0.10, 0.11, 0.15)), b.material((0.95, 0.95, 0.94))
    beak, fat = b.material((0.96, 0.58, 0.10)), b.vary(0.9, 1.12)
    b.ellipsoid((0, 0.38, 0), (0.24 * fat, 0.35, 0.22 * fat), coat, k=0.06)
    b.ellipsoid((0, 0.78, 0.02), (0.165, 0.155, 0.16), coat, k=0.08)
    for s in (-1, 1):
        b.ellipsoid((s * 0.26 * fat, 0.42, 0.0), (0.045, 0.20, 0.09), coat, (0, 0, s * b.vary(10, 26)), 0.03)
    b.cone((0, 0.12, -0.22 * fat), 0.08, 0.02, 0.08, coat, 0.015, (-65, 0, 0), 0.04)
    b.group()
    b.ellipsoid((0, 0.36, 0.075 * fat), (0.18 * fat, 0.29, 0.165 * fat), belly)
    for s in (-1, 1):
        b.ellipsoid((s * 0.062, 0.79, 0.115), (0.062, 0.075, 0.06), belly)
        b.ellipsoid((s * 0.10, 0.03, 0.13), (0.085, 0.032, 0.13), beak)
    b.cone((0, 0.745, 0.215), 0.045, 0.008, 0.065, beak, 0.006, (90, 0, 0))
    b.eyes(0.815, 0.165, 0.062, 0.025)
    return Anchors((0, 0.93, 0), 0.32, lap=(0, 0.42, 0.38))


def elephant(b: Builder, pose: str) -> Anchors:
    hide = b.main((0.52, 0.53, 0.57))
    tusk, nail = b.material((0.95, 0.92, 0.84)), b.material((0.85, 0.80, 0.74))
    long_, fat = b.vary(0.92, 1.1), b.vary(0.95, 1.1)
    z = 0.24 * long_
    b.ellipsoid((0, 0.58, -0.06), (0.28 * fat, 0.27, 0.40 * long_), hide, k=0.08)
    b.ellipsoid((0, 0.74, 0.40 * long_), (0.20, 0.21, 0.20), hide, k=0.08)
    t = 0.40 * long_
    b.limb([(0, 0.70, t + 0.14), (0, 0.46, t + 0.27), (0, 0.22, t + 0.28), (0, 0.12, t + 0.38)], (0.10, 0.075, 0.058, 0.045), hide, 0.05)  # fmt: skip
    for s in (-1, 1):
        b.ellipsoid((s * 0.31, 0.74, t - 0.06), (0.20, 0.24, 0.035), hide, (0, s * 28, 0), 0.03)
        b.capsule((s * 0.16, 0.48, z), (s * 0.16, 0.09, z), 0.115, 0.095, hide, 0.05)
        b.capsule((s * 0.16, 0.48, -z - 0.08), (s * 0.16, 0.09, -z - 0.08), 0.12, 0.095, hide, 0.05)
    b.limb([(0, 0.66, -0.44 * long_), (0, 0.42, -0.50 * long_ - 0.03)], (0.035, 0.022), hide, 0.03)
    b.group()
    for s in (-1, 1):
        b.limb([(s * 0.12, 0.58, t + 0.14), (s * 0.13, 0.46, t + 0.28), (s * 0.12, 0.48, t + 0.38)], (0.035, 0.03, 0.014), tusk, 0.02)  # fmt: skip
        for q in (z, -z - 0.08):
            b.ellipsoid((s * 0.16, 0.03, q + 0.045), (0.09, 0.032, 0.07), nail)
    b.eyes(0.80, t + 0.155, 0.135, 0.026)
    return Anchors((0, 0.84, -0.06), 0.5, seat=(0, 0.825, -0.06), wide=0.26)


def turtle(b: Builder, pose: str) -> Anchors:
    shell, skin = b.main((0.42, 0.34, 0.16)), b.main((0.40, 0.62, 0.28), tint=0.0)
    if b.look.color is not None:
        skin = b.main((0.40, 0.62, 0.28), tint=0.4)
    rim, wide, high = b.main((0.62, 0.52, 0.28), tint=-0.25), b.vary(0.38, 0.46), b.vary(0.28, 0.38)
    b.dome((0, 0.16, -0.04), (wide, high, wide * 1.12), 0.0, shell)
    b.group()
    b.ellipsoid((0, 0.17, -0.04), (wide * 1.04, 0.06, wide * 1.16), rim)
    b.group()
    b.capsule((0, 0.18, wide * 0.9), (0, 0.31, wide + 0.18), 0.085, 0.08, skin, 0.03)
    b.ellipsoid((0, 0.34, wide + 0.20), (0.115, 0.10, 0.13), skin, k=0.05)
    for s in (-1, 1):
        for z in (wide * 0.72, -wide * 0.80):
            b.capsule((s * wide * 0.62, 0.14, z * 0.9), (s * wide * 0.86, 0.06, z * 1.12), 0.10, 0.075, skin, 0.03)
    b.cone((0, 0.11, -wide * 1.28), 0.05, 0.01, 0.07, skin, 0.008, (-80, 0, 0))
    b.group()
    if b.look.pattern == 0:  # plates of the shell
        plate = b.main((0.42, 0.34, 0.16), tint=-0.35)
        for i in range(7):
            a = i * 1.047
            r = 0.0 if i == 6 else wide * 0.60
            h = high * math.sqrt(max(1 - (r / wide) ** 2, 0.0))
            tilt = math.degrees(math.atan2(r / wide**2, h / high**2)) if r else 0.0
            size = wide * 0.24
            b.ellipsoid((r * math.sin(a), 0.165 + h, -0.04 + r * 1.12 * math.cos(a)), (size, 0.02, size), plate, (tilt, math.degrees(a), 0))  # fmt: skip
    b.eyes(0.375, wide + 0.27, 0.085, 0.024)
    return Anchors((0, 0.16 + high, -0.04), 0.5, seat=(0, 0.14 + high, -0.04), wide=0.20)


def cake(b: Builder, pose: str) -> Anchors:
    icing = b.main(((0.96, 0.70, 0.78), (0.42, 0.24, 0.14), (0.95, 0.92, 0.86))[int(b.rng.integers(3))], shine=0.25)
    cream, plate = b.material((0.98, 0.96, 0.92)), b.material((0.88, 0.89, 0.92), shine=0.6)
    cherry, flame = b.material((0.80, 0.08, 0.12), shine=0.8, gloss=50), b.material((1.0, 0.72, 0.20), glow=1.0)
    wide, tall = b.vary(0.38, 0.46), b.vary(0.14, 0.20)
    b.cylinder((0, 0.02, 0), wide * 1.22, 0.02, plate, 0.012)
    b.group()
    b.cylinder((0, 0.04 + tall, 0), wide, tall, icing, 0.03)
    b.group()
    b.torus((0, 0.07, 0), wide, 0.035, cream)
    y, tiers = 0.04 + 2 * tall, b.rng.random() < 0.5
    top = wide
    if tiers:
        top = wide * 0.62
        b.cylinder((0, y + tall * 0.75, 0), top, tall * 0.75, icing, 0.03)
        b.group()
        b.torus((0, y + 0.02, 0), top, 0.03, cream)
        y += 1.5 * tall
    b.group()
    for i in range(6):
        a = i * 1.047
        x, z = top * 0.76 * math.cos(a), top * 0.76 * math.sin(a)
        b.ball((x, y + 0.02, z), 0.055, cream)
        b.ball((x, y + 0.07, z), 0.036, cherry)
    if pose == "stand" and b.rng.random() < 0.7:
        wax = b.material(((0.35, 0.62, 0.92), (0.95, 0.85, 0.35), (0.55, 0.80, 0.45))[int(b.rng.integers(3))])
        count = int(b.rng.integers(1, 4))
        for i in range(count):
            a = i * 6.283 / count
            x, z = (0.0, 0.0) if count == 1 else (top * 0.3 * math.cos(a), top * 0.3 * math.sin(a))
            b.cylinder((x, y + 0.10, z), 0.026, 0.10, wax)
            b.ellipsoid((x, y + 0.245, z), (0.026, 0.048, 0.026), flame)
    return Anchors((0, y + 0.01, 0), wide)


def chair(b: Builder, pose: str) -> Anchors:
    wood = b.main((0.55, 0.35, 0.19))
    wide, deep, seat, back = b.vary(0.27, 0.33), b.vary(0.26, 0.32), b.vary(0.38, 0.46), b.vary(0.50, 0.62)
    b.box((0, seat, 0), (wide, 0.035, deep), wood, 0.02)
    b.group()
    for s in (-1, 1):
        b.box((s * (wide - 0.035), seat / 2, deep - 0.04), (0.032, seat / 2, 0.032), wood, 0.012)
        b.box((s * (wide - 0.035), (seat + back) / 2, -deep + 0.035), (0.032, (seat + back) / 2, 0.032), wood, 0.012)
    b.group()
    if b.rng.random() < 0.5:
        b.box((0, seat + back * 0.66, -deep + 0.035), (wide - 0.04, back * 0.30, 0.02), wood, 0.015)
    else:
        for i in range(3):
            b.box((0, seat + back * (0.30 + 0.27 * i), -deep + 0.035), (wide - 0.04, 0.045, 0.02), wood, 0.012)
    return Anchors((0, seat + 0.035, 0.0), 0.4)


def sailboat(b: Builder, pose: str) -> Anchors:
    hull, sail = b.main((0.16, 0.34, 0.62), shine=0.4), b.material((0.95, 0.94, 0.90))
    deck, flag = b.material((0.72, 0.53, 0.33)), b.material((0.88, 0.18, 0.14))
    long_, tall = b.vary(0.46, 0.58), b.vary(0.85, 1.02)
    b.ellipsoid((0, 0.26, 0), (0.21, 0.25, long_), hull)
    b.box((0, 0.50, 0), (0.4, 0.24, long_ + 0.2), deck, 0.0, carve=True)
    b.group()
    b.box((0, 0.29, -long_ * 0.35), (0.10, 0.05, 0.13), b.material(WHITE), 0.03)
    b.capsule((0, 0.2, 0.04), (0, 0.3 + tall, 0.04), 0.022, 0.016, deck)
    b.capsule((0, 0.40, 0.04), (0, 0.38, -long_ * 0.85), 0.016, 0.014, deck)
    b.group()
    # a prism is a triangle drawn out along z: turned, it is a pair of sails fore and aft of the mast
    b.prism((0.0, 0.43, -long_ * 0.42), long_ * 0.40, tall * 0.80, 0.010, sail, (0, 90, 0))
    b.prism((0.0, 0.36, long_ * 0.50), long_ * 0.34, tall * 0.62, 0.010, sail, (0, 90, 0))
    b.box((0, 0.285 + tall, -0.05), (0.008, 0.035, 0.08), flag, 0.004)
    return Anchors((0, 0.3 + tall, 0), 0.5)


def airplane(b: Builder, pose: str) -> Anchors:
    body = b.main((0.90, 0.91, 0.93), shine=0.5, gloss=36)
    accent = b.material(((0.80, 0.16, 0.14), (0.13, 0.34, 0.72), (0.95, 0.60, 0.10))[int(b.rng.integers(3))], shine=0.4)
    glass, metal = b.material((0.15, 0.22, 0.32), shine=0.9, gloss=60), b.material((0.40, 0.42, 0.46), shine=0.5)
    rubber, long_, span = b.material((0.07, 0.07, 0.08)), b.vary(0.52, 0.62), b.vary(0.56, 0.70)
    y = 0.30
    b.ellipsoid((0, y, 0), (0.135, 0.135, long_), body, k=0.03)
    b.ellipsoid((0, y - 0.03, 0.04), (span, 0.026, 0.13), body, (0, 0, 0), 0.04)
    b.ellipsoid((0, y + 0.06, -long_ * 0.86), (0.26, 0.02, 0.075), body, k=0.02)
    b.group()
    b.prism((0, y + 0.06, -long_ * 0.84), 0.13, 0.27, 0.014, accent, (0, 90, 0))
    b.group()
    b.ellipsoid((0, y + 0.055, long_ * 0.58), (0.098, 0.085, 0.16), glass)
    b.cylinder((0, y, -long_ * 0.25), 0.128, 0.03, accent, 0.01, (90, 0, 0))
    for s in (-1, 1):
        b.capsule((s * span * 0.48, y - 0.075, 0.13), (s * span * 0.48, y - 0.075, -0.03), 0.055, 0.045, accent)
        b.ball((s * span * 0.48, y - 0.075, 0.165), 0.035, metal)
        b.capsule((s * 0.14, y - 0.08, -0.05), (s * 0.15, 0.07, -0.05), 0.014, 0.014, metal)
        b.cylinder((s * 0.15, 0.055, -0.05), 0.055, 0.025, rubber, 0.015, (0, 0, 90))
    b.group()
    b.capsule((0, y - 0.09, long_ * 0.62), (0, 0.06, long_ * 0.62), 0.014, 0.014, metal)
    b.cylinder((0, 0.045, long_ * 0.62), 0.045, 0.022, rubber, 0.012, (0, 0, 90))
    for s in (-1, 1):
        for i in range(4):
            b.ball((s * 0.118, y + 0.045, 0.20 - 0.13 * i), 0.026, glass)
    return Anchors((0, y + 0.13, 0), 0.55, seat=(0, y + 0.12, -0.02), wide=0.13)


def pumpkin(b: Builder, pose: str) -> Anchors:
    skin, stem = b.main((0.92, 0.47, 0.09), shine=0.25), b.material(b.jitter((0.36, 0.42, 0.17)))
    wide, high, ribs = b.vary(0.40, 0.50), b.vary(0.28, 0.40), int(b.rng.integers(8, 13))
    b.ribbed((0, high, 0), (wide, high, wide), ribs, skin)
    b.group()
    top = 2 * high - 0.10 * high
    b.limb([(0, top - 0.08, 0), (0, top + 0.06, 0), (b.vary(-0.08, 0.08), top + 0.15, b.vary(-0.08, 0.08))], (0.06, 0.042, 0.045), stem, 0.02)  # fmt: skip
    if b.rng.random() < 0.6:
        b.ellipsoid((0.15, top + 0.0, 0.04), (0.13, 0.014, 0.08), b.material((0.28, 0.52, 0.18)), (0, b.vary(0, 360), -14))  # fmt: skip
    return Anchors((0, 2 * high - 0.08 * high, 0), wide)


def mug(b: Builder, pose: str) -> Anchors:
    glaze = b.main((0.88, 0.88, 0.86), shine=0.7, gloss=50)
    drink = b.material(b.jitter((0.28, 0.15, 0.08)), shine=0.5)
    wide, half = b.vary(0.28, 0.36), b.vary(0.32, 0.42)
    b.cone((0, half, 0), wide * b.vary(0.86, 1.0), wide, half, glaze, 0.03, k=0.0)
    b.torus((-wide - 0.06, half, 0), half * 0.50, 0.045, glaze, (90, 0, 0), 0.03)
    b.cylinder((0, 1.25 * half, 0), wide - 0.055, half, glaze, 0.01, carve=True)
    b.group()
    b.cylinder((0, 1.35 * half, 0), wide - 0.05, 0.02, drink)
    return Anchors((0, 2 * half, 0), wide)


RECIPES: dict[str, Recipe] = {
    f.__name__: f
    for f in (
        hamburger, squirrel, book, bunny, pancakes, astronaut, horse, snowman, duck, cat, robot, car, rocket, house,
        tree, mushroom, cactus, teapot, bear, penguin, elephant, turtle, cake, chair, sailboat, airplane, pumpkin, mug,
    )
}  # fmt: skip

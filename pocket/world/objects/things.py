"""Furniture and other things of a household."""

import math

from pocket.world.builder import Anchors, Builder, Vec, apply, rotation
from pocket.world.objects.parts import natural


def open_book(b: Builder, width: float) -> None:
    """An open book in the plane of x and y, pages toward -z (its reader), spine at x = 0."""
    cover, paper = b.main((0.60, 0.14, 0.14)), b.material((0.95, 0.93, 0.86), shine=0.02)
    tall = width * 0.62
    for s in (-1, 1):
        center = (s * width * 0.5, 0, -0.07 * width)
        b.box(center, (width * 0.52, tall, 0.022), cover, 0.01, (0, s * 14, 0))
        center = (s * width * 0.48, 0, -0.07 * width - 0.035)
        b.box(center, (width * 0.46, tall * 0.92, 0.026), paper, 0.012, (0, s * 14, 0))
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
            half = (0.05, deep * 0.94, wide * 0.93)
            b.box((s * 0.055, deep, 0), half, paper, 0.01, (0, s * 13, 0))
            b.group()
        b.box((0.0, deep, -wide * 0.98), (0.085, deep, 0.03), cover, 0.02)
        b.box((0.125, deep * 1.3, 0.0), (0.012, deep * 0.22, wide * 0.55), label, 0.006, (0, 13, 0))
        return Anchors((0, 2 * deep, 0), wide, seat=(0, 2 * deep, 0), wide=0.13)
    b.box((0, 0.02, 0), (wide, 0.02, deep), cover, 0.012)
    b.box((0, 2 * thick - 0.02, 0), (wide, 0.02, deep), cover, 0.012)
    b.box((-wide + 0.02, thick, 0), (0.028, thick, deep), cover, 0.02)
    b.group()
    b.box((0.01, thick, 0), (wide * 0.95, thick * 0.9, deep * 0.95), paper, 0.01)
    b.box((0.03, 2 * thick, deep * 0.25), (wide * 0.55, 0.008, deep * 0.25), label, 0.005)
    return Anchors((0, 2 * thick, 0), deep, seat=(0, 2 * thick, 0), wide=wide)


def chair(b: Builder, pose: str) -> Anchors:
    wood = b.main((0.55, 0.35, 0.19))
    wide = b.vary(0.27, 0.33)
    deep = b.vary(0.26, 0.32)
    seat = b.vary(0.38, 0.46)
    back = b.vary(0.50, 0.62)
    b.box((0, seat, 0), (wide, 0.035, deep), wood, 0.02)
    b.group()
    for s in (-1, 1):
        b.box((s * (wide - 0.035), seat / 2, deep - 0.04), (0.032, seat / 2, 0.032), wood, 0.012)
        center = (s * (wide - 0.035), (seat + back) / 2, -deep + 0.035)
        b.box(center, (0.032, (seat + back) / 2, 0.032), wood, 0.012)
    b.group()
    if b.rng.random() < 0.5:
        b.box((0, seat + back * 0.66, -deep + 0.035), (wide - 0.04, back * 0.30, 0.02), wood, 0.015)
    else:
        for i in range(3):
            center = (0, seat + back * (0.30 + 0.27 * i), -deep + 0.035)
            b.box(center, (wide - 0.04, 0.045, 0.02), wood, 0.012)
    return Anchors((0, seat + 0.035, 0.0), 0.4, seat=(0, seat + 0.035, -0.04), wide=wide)


def sofa(b: Builder, pose: str) -> Anchors:
    colors = ((0.32, 0.46, 0.56), (0.60, 0.26, 0.22), (0.58, 0.52, 0.44), (0.28, 0.42, 0.30))
    color = natural(b, *colors)
    cloth = b.main(color)
    cushion = b.main(color, tint=0.22)
    pillow = b.material(natural(b, (0.95, 0.80, 0.30), (0.92, 0.90, 0.84), (0.86, 0.42, 0.30)))
    wood = b.material((0.34, 0.21, 0.12))
    wide = b.vary(0.50, 0.58)
    back = b.vary(0.24, 0.29)
    b.box((0, 0.19, 0), (wide, 0.10, 0.27), cloth, 0.03)
    b.box((0, 0.30 + back, -0.24), (wide, back, 0.085), cloth, 0.06, (-8, 0, 0), 0.03)
    b.group()
    for s in (-1, 1):
        b.box((s * (wide + 0.04), 0.31, 0.0), (0.085, 0.22, 0.30), cloth, 0.07)
    b.group()
    for s in (-1, 1):
        half = 0.5 * wide - 0.025
        b.box((s * (half + 0.005), 0.345, 0.06), (half, 0.065, 0.24), cushion, 0.045)
        b.group()
        b.box((s * (half + 0.005), 0.52, -0.155), (half, 0.14, 0.06), cushion, 0.05, (-12, 0, 0))
        b.group()
    b.box((wide - 0.13, 0.50, -0.04), (0.13, 0.12, 0.045), pillow, 0.04, (-22, -18, 0))
    for s in (-1, 1):
        for z in (-0.22, 0.22):
            b.cone((s * (wide - 0.03), 0.05, z), 0.022, 0.034, 0.05, wood)
    return Anchors((0, 0.41, 0.06), 0.6, seat=(0, 0.41, 0.06), wide=wide)


def bed(b: Builder, pose: str) -> Anchors:
    wood_color = natural(b, (0.50, 0.31, 0.17), (0.36, 0.22, 0.13), (0.86, 0.84, 0.80))
    wood = b.material(b.jitter(wood_color))
    colors = ((0.25, 0.42, 0.70), (0.72, 0.26, 0.28), (0.42, 0.60, 0.48), (0.82, 0.66, 0.40))
    color = natural(b, *colors)
    blanket = b.main(color)
    fold = b.main(color, tint=0.55)
    sheet = b.material((0.95, 0.95, 0.94))
    wide = b.vary(0.34, 0.44)
    head = b.vary(0.30, 0.38)
    double = wide > 0.385
    b.box((0, 0.17, 0), (wide + 0.02, 0.05, 0.56), wood, 0.015)
    b.group()
    b.box((0, head, -0.575), (wide + 0.03, head, 0.032), wood, 0.025)
    b.box((0, 0.17, 0.575), (wide + 0.03, 0.15, 0.028), wood, 0.025)
    for s in (-1, 1):
        x = s * (wide + 0.02)
        b.capsule((x, 0.03, -0.575), (x, 2 * head + 0.01, -0.575), 0.036, 0.036, wood)
        b.capsule((x, 0.03, 0.575), (x, 0.34, 0.575), 0.034, 0.034, wood)
    b.group()
    b.box((0, 0.28, 0), (wide - 0.01, 0.085, 0.545), sheet, 0.05)
    b.group()
    b.box((0, 0.295, 0.14), (wide + 0.012, 0.105, 0.405), blanket, 0.06)
    b.group()
    b.box((0, 0.345, -0.235), (wide + 0.017, 0.062, 0.07), fold, 0.045)
    b.group()
    for x in (-0.5 * wide, 0.5 * wide) if double else (0.0,):
        half = (0.42 if double else 0.66) * wide
        b.box((x, 0.40, -0.42), (half, 0.065, 0.12), sheet, 0.06, (-14, 0, 0))
    return Anchors((0, 0.395, 0.12), 0.6, seat=(0, 0.395, 0.12), wide=wide)


def lamp(b: Builder, pose: str) -> Anchors:
    color = natural(b, (0.96, 0.88, 0.68), (0.86, 0.36, 0.24), (0.50, 0.66, 0.62))
    shade = b.main(color, glow=0.30)
    color = natural(b, (0.42, 0.26, 0.15), (0.72, 0.58, 0.28), (0.28, 0.30, 0.34))
    base = b.material(color, shine=0.5, gloss=40)
    bulb = b.material((1.0, 0.93, 0.70), glow=1.0)
    low = b.vary(0.30, 0.35)
    high = b.vary(0.17, 0.22)
    tall = b.vary(0.50, 0.58)
    b.cylinder((0, 0.03, 0), 0.20, 0.03, base, 0.02, k=0.0)
    b.capsule((0, 0.03, 0), (0, tall + 0.12, 0), 0.03, 0.024, base, 0.03)
    b.ellipsoid((0, 0.20, 0), (0.105, 0.13, 0.105), base, k=0.04)
    b.group()
    b.cone((0, tall + 0.19, 0), low, high, 0.19, shade, 0.012)
    b.cone((0, tall + 0.19, 0), low - 0.02, high - 0.02, 0.20, bulb, 0.005, carve=True)
    b.group()
    b.ball((0, tall + 0.20, 0), 0.085, bulb)
    b.capsule((0, tall + 0.25, 0), (0, tall + 0.40, 0), 0.012, 0.012, base)
    b.ball((0, tall + 0.41, 0), 0.026, base)
    return Anchors((0, tall + 0.38, 0), 0.34, seat=(0, tall + 0.37, 0), wide=high)


def umbrella(b: Builder, pose: str) -> Anchors:
    color = natural(b, (0.85, 0.13, 0.14), (0.16, 0.36, 0.78), (0.96, 0.76, 0.14))
    cloth = b.main(color)
    other = cloth if b.look.pattern else b.main(color, tint=0.4 if b.look.color else 0.75)
    wood = b.material((0.42, 0.25, 0.13), shine=0.3)
    steel = b.material((0.66, 0.67, 0.70), shine=0.6)
    top = b.vary(0.92, 1.0)
    wide = b.vary(0.27, 0.30)
    lean = 27
    for i in range(8):  # panels whose round ends make the scalloped edge
        a = 45 * i
        x = math.cos(math.radians(a))
        z = -math.sin(math.radians(a))
        center = (0.92 * wide * x, top - 0.135, 0.92 * wide * z)
        b.lens(center, (1.05 * wide, 0.035, 0.215), other if i % 2 else cloth, (0, a, -lean))
    b.group()
    b.capsule((0, 0.10, 0), (0, top + (0.0 if pose == "base" else 0.09), 0), 0.017, 0.014, steel)
    b.group()
    hook = ((0, 0.26), (0, 0.10), (0.035, 0.045), (0.09, 0.035), (0.135, 0.075), (0.135, 0.12))
    b.limb([(x, y, 0) for x, y in hook], (0.03, 0.03, 0.03, 0.03, 0.03, 0.028), wood, 0.01)
    return Anchors((0, top + 0.02, 0), 0.5, seat=(0, top - 0.02, 0), wide=0.3)


def guitar(b: Builder, pose: str) -> Anchors:
    """It stands with its strings to the front; what something else sits on lies on its back."""
    color = natural(b, (0.88, 0.58, 0.27), (0.72, 0.32, 0.14), (0.93, 0.78, 0.52))
    face = b.main(color, shine=0.5, gloss=40)
    side = b.main(color, tint=-0.45, shine=0.4)
    dark = b.material((0.15, 0.09, 0.06), shine=0.3)
    steel = b.material((0.86, 0.86, 0.84), shine=0.7)
    wide = b.vary(0.94, 1.06)
    deep = 0.085
    lies = pose == "base"
    flat = (0, 0, 0) if lies else (90, 0, 0)  # of the cylinders

    def at(x: float, y: float, z: float) -> Vec:
        return (x, z + deep, y - 0.45) if lies else (x, y, z)

    def half(x: float, y: float, z: float) -> Vec:
        return (x, z, y) if lies else (x, y, z)

    for thick, grow, m in ((deep, 1.0, side), (deep + 0.006, 0.95, face)):
        b.cylinder(at(0, 0.255, 0), 0.255 * wide * grow, thick, m, 0.02, flat)
        b.cylinder(at(0, 0.53, 0), 0.185 * wide * grow, thick, m, 0.02, flat, 0.10)
        b.group()
    b.box(at(0, 0.88, deep - 0.01), half(0.034, 0.26, 0.024), dark, 0.012)
    tilt = (8 if lies else -8, 0, 0)
    b.box(at(0, 1.18, deep - 0.02), half(0.055, 0.085, 0.02), side, 0.015, tilt)
    b.group()
    b.cylinder(at(0, 0.43, deep + 0.006), 0.088, 0.004, side, 0.002, flat)
    b.cylinder(at(0, 0.43, deep + 0.008), 0.072, 0.006, dark, 0.003, flat)
    b.box(at(0, 0.20, deep + 0.012), half(0.10, 0.02, 0.016), dark, 0.01)
    for s in (-1, 0, 1):
        b.box(at(s * 0.017, 0.66, deep + 0.022), half(0.0035, 0.46, 0.004), steel, 0.002)
    for s in (-1, 1):
        for y in (1.13, 1.18, 1.23):
            b.ellipsoid(at(s * 0.078, y, deep - 0.03), half(0.026, 0.017, 0.017), steel)
    if lies:
        return Anchors((0, 2 * deep, -0.12), 0.5, seat=(0, 2 * deep, -0.12), wide=0.2)
    return Anchors((0, 1.26, deep - 0.03), 0.3, seat=(0, 0.70, 0), wide=0.19)


def sword(b: Builder, pose: str) -> Anchors:
    """It stands on its point, at any angle: its blade is flat."""
    blade = b.main((0.80, 0.83, 0.87), shine=0.9, gloss=60)
    groove = b.main((0.80, 0.83, 0.87), tint=-0.3, shine=0.6)
    gold = b.material((0.90, 0.70, 0.22), shine=0.8, gloss=50, metal=0.4)
    grip = b.material(natural(b, (0.34, 0.18, 0.10), (0.55, 0.10, 0.12), (0.12, 0.20, 0.42)))
    gem = b.material(natural(b, (0.85, 0.10, 0.16), (0.12, 0.42, 0.85)), shine=0.9, gloss=60)
    turn = b.vary(-180, 180)
    wide = b.vary(0.062, 0.08)
    c = math.cos(math.radians(turn))
    d = -math.sin(math.radians(turn))
    b.box((0, 0.44, 0), (wide, 0.31, 0.018), blade, 0.012, (0, turn, 0))
    b.prism((0, 0.14, 0), wide - 0.008, 0.125, 0.01, blade, (180, turn, 0), 0.008)
    b.group()
    b.box((0, 0.47, 0), (0.016, 0.27, 0.0215), groove, 0.01, (0, turn, 0))
    b.group()
    b.capsule((-0.20 * c, 0.77, -0.20 * d), (0.20 * c, 0.77, 0.20 * d), 0.035, 0.035, gold)
    for s in (-1, 1):
        b.ball((s * 0.22 * c, 0.77, s * 0.22 * d), 0.052, gold, 0.02)
    b.group()
    b.capsule((0, 0.79, 0), (0, 1.0, 0), 0.036, 0.032, grip)
    for y in (0.85, 0.90, 0.95):
        b.torus((0, y, 0), 0.031, 0.011, gold)
    b.ball((0, 1.05, 0), 0.062, gold)
    for s in (-1, 1):
        b.ball((s * 0.036 * -d, 0.77, s * 0.036 * c), 0.03, gem)
    return Anchors((0, 1.10, 0), 0.24, seat=(0, 0.80, 0), wide=0.06)


def hat(b: Builder, pose: str) -> Anchors:
    felt = b.main(natural(b, (0.58, 0.38, 0.20), (0.84, 0.72, 0.48), (0.30, 0.20, 0.14)))
    band = b.material(natural(b, (0.14, 0.10, 0.09), (0.74, 0.14, 0.13)))
    wide = b.vary(0.46, 0.52)
    tall = b.vary(0.15, 0.19)
    b.frill((0, 0.075, 0), wide, 0.018, 0.085, 2, felt, (0, 45, 0))
    b.group()
    b.cone((0, 0.07 + tall, 0), 0.27, 0.20, tall, felt, 0.09, k=0.0)
    b.ellipsoid((0, 0.10 + 2 * tall, 0), (0.055, 0.07, 0.30), felt, (0, 0, 0), carve=True)
    b.group()
    b.cone((0, 0.125, 0), 0.274, 0.262, 0.035, band, 0.01)
    top = 0.05 + 2 * tall
    return Anchors((0, top, 0), 0.45, seat=(0, top, 0), wide=0.2)


def ball(b: Builder, pose: str) -> Anchors:
    """A football: twelve dark spots, the corners of an icosahedron."""
    leather = b.main((0.95, 0.95, 0.94), shine=0.3)
    dark = b.material((0.09, 0.09, 0.10), shine=0.3)
    r = 0.42
    b.ball((0, r, 0), r, leather)
    if b.look.pattern == 0:
        b.group()
        turn = rotation(b.vary(-180, 180), b.vary(-180, 180), 0)
        g = 0.5257
        h = 0.8507
        corners = [(0.0, s * g, t * h) for s in (-1, 1) for t in (-1, 1)]
        for x, y, z in corners:
            for d in ((x, y, z), (y, z, x), (z, x, y)):
                n = apply(turn, d)
                at = (0.955 * r * n[0], r + 0.955 * r * n[1], 0.955 * r * n[2])
                b.disc(at, n, 0.145, 0.03, dark)
    return Anchors((0, 2 * r - 0.01, 0), r, seat=(0, 2 * r - 0.02, 0), wide=0.3)

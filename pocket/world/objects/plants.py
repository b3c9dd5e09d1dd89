"""Plants."""

import math

from pocket.world.builder import Anchors, Builder, Vec, apply, rotation
from pocket.world.objects.parts import natural


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
            above = wide * (0.50 - 0.50 * f) * 0.7 + 0.01
            b.cone((0, 0.24 + half + f * 0.80, 0), wide * (1 - 0.72 * f), above, half, leaf, 0.03)
        return Anchors((0, 1.15, 0), wide, seat=(0, 1.0, 0), wide=0.1)
    leaf = b.main((0.24, 0.52, 0.18))
    b.cone((0, 0.24, 0), 0.10, 0.065, 0.25, bark, 0.02)
    b.group()
    b.ball((0, 0.78, 0), b.vary(0.27, 0.32), leaf, 0.1)
    for i in range(5):
        a = i * 1.257 + b.vary(0, 0.6)
        center = (0.23 * math.cos(a), 0.68 + b.vary(-0.06, 0.12), 0.23 * math.sin(a))
        b.ball(center, b.vary(0.15, 0.20), leaf, 0.1)
    b.ball((b.vary(-0.06, 0.06), 1.00, b.vary(-0.06, 0.06)), 0.17, leaf, 0.1)
    return Anchors((0, 1.15, 0), 0.4, seat=(0, 1.12, 0), wide=0.2)


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
    for s, high, up in (
        (1, b.vary(0.32, 0.45), b.vary(0.22, 0.32)),
        (-1, b.vary(0.22, 0.36), b.vary(0.20, 0.30)),
    ):
        arm = [(0, base + high, 0), (s * 0.27, base + high, 0), (s * 0.29, base + high + up, 0)]
        b.limb(arm, (0.07, 0.075, 0.07), skin, 0.05)
    b.group()
    b.ellipsoid((0, base + tall + 0.12, 0), (0.065, 0.05, 0.065), flower)
    return Anchors((0, base + tall + 0.13, 0), 0.3, seat=(0, base + tall + 0.09, 0), wide=0.13)


def flower(b: Builder, pose: str) -> Anchors:
    """Its head leans toward +z, so that it shows from the front and from above."""
    colors = [(0.90, 0.16, 0.20), (0.98, 0.80, 0.12), (0.95, 0.50, 0.72)]
    colors += [(0.60, 0.36, 0.86), (0.96, 0.95, 0.93)]
    petal = b.main(natural(b, *colors))
    heart = b.material(natural(b, (0.97, 0.75, 0.10), (0.42, 0.24, 0.10)))
    green = b.material(b.jitter((0.25, 0.55, 0.18)))
    count = int(b.rng.integers(7, 10))
    lean = b.vary(38, 55)
    size = b.vary(0.92, 1.1)
    head = (0.0, 0.78, 0.10)

    def place(x: float, y: float, z: float) -> Vec:
        """From the plane of the petals, z off it, to the object's frame."""
        p = apply(rotation(lean - 90, 0, 0), (x, y, z))
        return (p[0] + head[0], p[1] + head[1], p[2] + head[2])

    b.limb([(0, 0, 0), (0.03, 0.40, -0.03), place(0, 0, -0.03)], (0.032, 0.027, 0.027), green, 0.02)
    for s in (-1, 1):
        middle = (s * 0.19, 0.24 + 0.05 * s, 0.02)
        b.lens(middle, (0.19, 0.02, 0.075), green, (0, 0, s * 36))
    b.group()
    for i in range(count):
        a = 2 * math.pi * i / count
        c = math.cos(a)
        d = math.sin(a)
        center = place(0.225 * size * c, 0.225 * size * d, 0.02)
        b.lens(center, (0.165 * size, 0.098 * size, 0.026), petal, (lean - 90, 0, math.degrees(a)))
    b.group()
    b.ellipsoid(place(0, 0, 0.03), (0.13, 0.13, 0.06), heart, (lean - 90, 0, 0))
    return Anchors(place(0, 0, 0.08), 0.36, seat=place(0, 0, 0.07), wide=0.2)

"""What drives, sails and flies."""

import math
from collections.abc import Sequence

from pocket.world.builder import WHITE, Anchors, Builder
from pocket.world.objects.parts import natural


def car(b: Builder, pose: str) -> Anchors:
    natural = ((0.78, 0.12, 0.10), (0.12, 0.30, 0.68), (0.85, 0.86, 0.88), (0.92, 0.66, 0.10))[
        int(b.rng.integers(4))
    ]
    paint = b.main(natural, shine=0.7, gloss=50)
    glass, rubber = (
        b.material((0.13, 0.18, 0.24), shine=0.9, gloss=60),
        b.material((0.07, 0.07, 0.08)),
    )
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
        b.capsule(
            (s * 0.20, 0.42, long_ * 0.42), (s * 0.19, roof, long_ * 0.26), 0.024, 0.024, paint
        )
        b.capsule(
            (s * 0.20, 0.42, -long_ * 0.62), (s * 0.19, roof, -long_ * 0.48), 0.026, 0.026, paint
        )
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
    accent = b.material(
        ((0.84, 0.16, 0.13), (0.14, 0.36, 0.78), (0.95, 0.52, 0.10))[int(b.rng.integers(3))],
        shine=0.4,
    )
    metal, glass = (
        b.material((0.42, 0.44, 0.48), shine=0.6),
        b.material((0.35, 0.68, 0.90), shine=0.9, gloss=60),
    )
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
        b.prism(
            (x * fat * 0.75, 0.06, z * fat * 0.75),
            fat * 1.15,
            0.36 * tall,
            0.018,
            accent,
            (0, turn - 90, 0),
        )
    b.group()
    for z in (-1, 1):
        b.torus((0, 0.64 * tall, z * fat * 0.93), 0.062, 0.017, metal, (90, 0, 0))
        b.ellipsoid((0, 0.64 * tall, z * fat * 0.93), (0.057, 0.057, 0.022), glass)
    return Anchors((0, 1.02 * tall, 0), 0.3, seat=(0, 0.92 * tall, 0), wide=0.1)


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
    # A prism is a triangle extended along z: turned, it is a sail fore and one aft of the mast.
    b.prism((0.0, 0.43, -long_ * 0.42), long_ * 0.40, tall * 0.80, 0.010, sail, (0, 90, 0))
    b.prism((0.0, 0.36, long_ * 0.50), long_ * 0.34, tall * 0.62, 0.010, sail, (0, 90, 0))
    b.box((0, 0.285 + tall, -0.05), (0.008, 0.035, 0.08), flag, 0.004)
    # on the deck beside the sails, not on the mast
    return Anchors((0.11, 0.27, -0.12), 0.5, seat=(0.11, 0.27, -0.12), wide=0.2)


def airplane(b: Builder, pose: str) -> Anchors:
    body = b.main((0.90, 0.91, 0.93), shine=0.5, gloss=36)
    accent = b.material(
        ((0.80, 0.16, 0.14), (0.13, 0.34, 0.72), (0.95, 0.60, 0.10))[int(b.rng.integers(3))],
        shine=0.4,
    )
    glass, metal = (
        b.material((0.15, 0.22, 0.32), shine=0.9, gloss=60),
        b.material((0.40, 0.42, 0.46), shine=0.5),
    )
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
        b.capsule(
            (s * span * 0.48, y - 0.075, 0.13),
            (s * span * 0.48, y - 0.075, -0.03),
            0.055,
            0.045,
            accent,
        )
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


def wheels(b: Builder, places: Sequence[tuple[float, float]], radius: float, half: float) -> None:
    """Pairs of wheels, each at (x, z): tires and hub caps."""
    rubber = b.material((0.07, 0.07, 0.08))
    chrome = b.material((0.70, 0.71, 0.73), shine=0.6)
    for x, z in places:
        for s in (-1, 1):
            b.cylinder((s * x, radius, z), radius, half, rubber, 0.6 * half, (0, 0, 90))
            b.cylinder(
                (s * (x + 0.6 * half), radius, z),
                0.55 * radius,
                0.45 * half,
                chrome,
                0.2 * half,
                (0, 0, 90),
            )


def truck(b: Builder, pose: str) -> Anchors:
    color = natural(b, (0.16, 0.38, 0.74), (0.84, 0.20, 0.14), (0.20, 0.55, 0.30))
    paint = b.main(color, shine=0.6, gloss=50)
    box = paint if b.look.color else b.main((0.93, 0.93, 0.92), shine=0.3)
    glass = b.material((0.13, 0.18, 0.24), shine=0.9, gloss=60)
    dark = b.material((0.14, 0.14, 0.16))
    lamp = b.material((0.99, 0.95, 0.75), glow=0.5)
    tail = b.material((0.80, 0.05, 0.05), glow=0.25)
    long = b.vary(0.36, 0.42)
    tall = b.vary(0.25, 0.30)
    back = -0.20
    b.box((0, 0.185, -0.02), (0.16, 0.045, long + 0.16), dark, 0.01)
    b.group()
    b.box((0, 0.22 + tall, back), (0.25, tall, long), box, 0.02)
    b.group()
    z = back + long + 0.18
    b.box((0, 0.31, z + 0.01), (0.235, 0.13, 0.15), paint, 0.05, k=0.02)
    b.box((0, 0.50, z - 0.02), (0.225, 0.14, 0.115), paint, 0.05, k=0.03)
    b.group()
    b.box((0, 0.515, z + 0.085), (0.19, 0.082, 0.02), glass, 0.015, (-8, 0, 0))
    b.box((0, 0.51, z - 0.01), (0.232, 0.075, 0.07), glass, 0.015)
    b.box((0, 0.27, z + 0.15), (0.12, 0.05, 0.018), dark, 0.012)
    b.box((0, 0.165, z + 0.14), (0.235, 0.035, 0.035), dark, 0.02)
    for s in (-1, 1):
        b.ellipsoid((s * 0.175, 0.275, z + 0.15), (0.045, 0.045, 0.025), lamp)
        b.box((s * 0.19, 0.20, back - long), (0.04, 0.03, 0.018), tail, 0.01)
        b.capsule((s * 0.245, 0.50, z + 0.08), (s * 0.29, 0.50, z + 0.07), 0.022, 0.03, dark)
    b.box((0, 0.22 + tall, back - long), (0.006, 0.9 * tall, 0.006), dark, 0.003)
    b.group()
    wheels(b, ((0.21, z - 0.01), (0.21, back - 0.10), (0.21, back - 0.36)), 0.125, 0.055)
    top = 0.22 + 2 * tall
    return Anchors((0, top, back), 0.55, seat=(0, top, back + 0.1), wide=0.25)


def bicycle(b: Builder, pose: str) -> Anchors:
    color = natural(b, (0.82, 0.14, 0.13), (0.15, 0.42, 0.78), (0.18, 0.58, 0.46))
    paint = b.main(color, shine=0.6, gloss=50)
    rubber = b.material((0.08, 0.08, 0.09))
    steel = b.material((0.74, 0.75, 0.77), shine=0.6)
    leather = b.material((0.30, 0.18, 0.11))
    r = b.vary(0.235, 0.26)
    front = 0.40
    for z in (front, -0.36):
        b.torus((0, r + 0.02, z), r, 0.028, rubber, (0, 0, 90))
        b.group()
        for i in range(3):
            a = math.radians(60 * i + 20)
            d = (0.0, r * math.sin(a), r * math.cos(a))
            b.capsule(
                (0, r + 0.02 - d[1], z - d[2]),
                (0, r + 0.02 + d[1], z + d[2]),
                0.0075,
                0.0075,
                steel,
            )
        b.cylinder((0, r + 0.02, z), 0.03, 0.05, steel, 0.01, (0, 0, 90))
        b.group()
    hub = r + 0.02
    crank = (0.0, 0.24, -0.02)
    saddle = (0.0, 0.58, -0.15)
    head = (0.0, 0.60, 0.25)
    neck = (0.0, 0.52, 0.285)
    for low, high in ((crank, saddle), (crank, neck), ((0, 0.54, -0.137), head)):
        b.capsule(low, high, 0.026, 0.026, paint, 0.02)
    for s in (-1, 1):
        b.capsule((s * 0.045, hub, -0.36), (s * 0.02, 0.25, -0.04), 0.017, 0.017, paint)
        b.capsule((s * 0.045, hub, -0.36), (s * 0.015, 0.54, -0.137), 0.017, 0.017, paint)
        b.capsule((s * 0.05, hub, front), (s * 0.02, 0.54, 0.28), 0.019, 0.019, paint)
    b.capsule((0, 0.50, 0.295), (0, 0.70, 0.215), 0.024, 0.022, paint)
    b.group()
    b.capsule(saddle, (0, 0.65, -0.175), 0.018, 0.018, steel)
    b.capsule((0, 0.69, 0.22), (0, 0.72, 0.235), 0.02, 0.02, steel)
    for s in (-1, 1):
        b.limb(
            [(0, 0.72, 0.235), (s * 0.13, 0.74, 0.235), (s * 0.20, 0.745, 0.15)],
            (0.016, 0.016, 0.016),
            steel,
            0.01,
        )
        b.capsule((s * 0.20, 0.745, 0.16), (s * 0.21, 0.742, 0.06), 0.025, 0.025, rubber)
        b.capsule(
            (s * 0.04, 0.24 + s * 0.11, -0.02),
            (s * 0.13, 0.24 + s * 0.11, -0.02),
            0.022,
            0.022,
            rubber,
        )
    b.capsule((0.04, 0.35, -0.02), (-0.04, 0.13, -0.02), 0.015, 0.015, steel)
    b.group()
    b.capsule((0, 0.675, -0.10), (0, 0.685, -0.24), 0.035, 0.075, leather)
    return Anchors((0, 0.72, -0.19), 0.5, seat=(0, 0.73, -0.19), wide=0.08)


def train(b: Builder, pose: str) -> Anchors:
    color = natural(b, (0.74, 0.14, 0.12), (0.12, 0.34, 0.24), (0.16, 0.24, 0.50))
    paint = b.main(color, shine=0.5, gloss=40)
    dark = b.material((0.12, 0.12, 0.14), shine=0.3)
    brass = b.material((0.88, 0.68, 0.24), shine=0.7, gloss=50, metal=0.3)
    red = b.material((0.70, 0.12, 0.10))
    lamp = b.material((1.0, 0.92, 0.62), glow=0.7)
    fat = b.vary(0.165, 0.185)
    y = 0.40
    b.cylinder((0, y, 0.14), fat, 0.34, paint, 0.02, (90, 0, 0))
    b.group()
    b.cylinder((0, y, 0.50), fat + 0.006, 0.07, dark, 0.02, (90, 0, 0))
    b.cylinder((0, y, 0.575), 0.10, 0.012, brass, 0.01, (90, 0, 0))
    for z in (0.30, 0.02):
        b.torus((0, y, z), fat, 0.012, brass, (90, 0, 0))
    b.group()
    b.cone((0, y + fat + 0.10, 0.44), 0.055, 0.095, 0.12, dark, 0.01)
    b.ellipsoid((0, y + fat, 0.16), (0.085, 0.10, 0.085), brass)
    b.ball((0, y + fat + 0.09, 0.585 - 0.09), 0.055, lamp)
    b.group()
    b.box((0, 0.24, 0.06), (0.20, 0.035, 0.52), dark, 0.01)
    b.group()
    b.box((0, 0.47, -0.33), (0.215, 0.22, 0.17), paint, 0.02)
    b.group()
    b.box((0, 0.56, -0.33), (0.222, 0.085, 0.10), dark, 0.01)
    b.box((0, 0.57, -0.33), (0.14, 0.08, 0.178), dark, 0.01)
    b.box((0, 0.71, -0.34), (0.25, 0.028, 0.22), dark, 0.026)
    b.group()
    b.prism((0, 0.03, 0.53), 0.17, 0.19, 0.18, red, (0, 90, 0))
    b.box((0, 0.22, 0.58), (0.2, 0.035, 0.025), red, 0.01)
    b.group()
    for s in (-1, 1):
        for z, r in ((-0.30, 0.155), (0.04, 0.155), (0.36, 0.11)):
            b.cylinder((s * 0.20, r, z), r, 0.032, dark, 0.012, (0, 0, 90))
            b.cylinder((s * 0.215, r, z), 0.62 * r, 0.025, red, 0.01, (0, 0, 90))
        b.box((s * 0.245, 0.13, -0.03), (0.012, 0.018, 0.33), brass, 0.008)
    return Anchors((0, 0.74, -0.33), 0.55, seat=(0, y + fat - 0.01, 0.02), wide=fat)

"""What is eaten and drunk, and what it is served in."""

import math

from pocket.world.builder import IDENTITY, Anchors, Builder, Vec, apply, rotation
from pocket.world.objects.parts import natural


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
    half = (wide * 0.74, 0.016, wide * 0.74)
    b.box((0, y + 0.235 * tall, 0), half, cheese, 0.012, (0, b.vary(30, 60), 0))
    b.group()
    b.cylinder((0, y + 0.28 * tall, 0), wide * 0.93, 0.03, tomato, 0.02)
    b.group()
    b.frill((0, y + 0.33 * tall, 0), wide * 1.08, 0.012, 0.035, 9, leaf)
    b.group()
    dome, base = 0.36 * tall, y + 0.36 * tall
    b.dome((0, base, 0), (wide, dome, wide), bun)
    b.group()
    seed = b.material((0.96, 0.90, 0.74))
    for i in range(10):
        turn, r = i * 2.4 + b.vary(0, 0.4), wide * (0.16 + 0.055 * i)
        x, z = r * math.cos(turn), r * math.sin(turn)
        h = dome * math.sqrt(max(1 - (r / wide) ** 2, 0.05))
        b.ellipsoid((x, base + h, z), (0.035, 0.02, 0.024), seed, (0, turn * 57, 0))
    top = base + dome
    return Anchors((0, top - 0.02, 0), wide, seat=(0, top - 0.03, 0), wide=0.8 * wide)


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
    syrup = b.material((0.45, 0.19, 0.05), shine=0.7, gloss=50)
    butter = b.material((0.99, 0.87, 0.42))
    b.ellipsoid((0, y, 0), (wide * 0.78, 0.03, wide * 0.78), syrup, k=0.03)
    for i in range(4):
        a = i * 1.57 + b.vary(0, 0.9)
        x, z = math.cos(a), math.sin(a)
        run = [(x * wide * 0.6, y, z * wide * 0.6), (x * wide, y - 0.02, z * wide)]
        run.append((x * wide * 1.04, y - b.vary(0.1, 0.25), z * wide * 1.04))
        b.limb(run, (0.05, 0.05, 0.05), syrup, 0.05)
    b.group()
    center = (b.vary(-0.06, 0.06), y + 0.06, b.vary(-0.06, 0.06))
    b.box(center, (0.10, 0.045, 0.10), butter, 0.02, (0, b.vary(0, 90), 0))
    return Anchors((0, y + 0.03, 0), wide, seat=(0, y + 0.03, 0), wide=wide)


def cake(b: Builder, pose: str) -> Anchors:
    color = natural(b, (0.96, 0.70, 0.78), (0.42, 0.24, 0.14), (0.95, 0.92, 0.86))
    icing = b.main(color, shine=0.25)
    cream, plate = b.material((0.98, 0.96, 0.92)), b.material((0.88, 0.89, 0.92), shine=0.6)
    cherry = b.material((0.80, 0.08, 0.12), shine=0.8, gloss=50)
    flame = b.material((1.0, 0.72, 0.20), glow=1.0)
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
        wax = b.material(natural(b, (0.35, 0.62, 0.92), (0.95, 0.85, 0.35), (0.55, 0.80, 0.45)))
        count = int(b.rng.integers(1, 4))
        for i in range(count):
            a = i * 6.283 / count
            x, z = (0.0, 0.0) if count == 1 else (top * 0.3 * math.cos(a), top * 0.3 * math.sin(a))
            b.cylinder((x, y + 0.10, z), 0.026, 0.10, wax)
            b.ellipsoid((x, y + 0.245, z), (0.026, 0.048, 0.026), flame)
    return Anchors((0, y + 0.01, 0), wide, seat=(0, y + 0.01, 0), wide=top)


def pumpkin(b: Builder, pose: str) -> Anchors:
    skin, stem = b.main((0.92, 0.47, 0.09), shine=0.25), b.material(b.jitter((0.36, 0.42, 0.17)))
    wide, high, ribs = b.vary(0.40, 0.50), b.vary(0.28, 0.40), int(b.rng.integers(8, 13))
    b.ribbed((0, high, 0), (wide, high, wide), ribs, skin)
    b.group()
    top = 2 * high - 0.10 * high
    end = (b.vary(-0.08, 0.08), top + 0.15, b.vary(-0.08, 0.08))
    b.limb([(0, top - 0.08, 0), (0, top + 0.06, 0), end], (0.06, 0.042, 0.045), stem, 0.02)
    if b.rng.random() < 0.6:
        leaf = b.material((0.28, 0.52, 0.18))
        b.ellipsoid((0.15, top + 0.0, 0.04), (0.13, 0.014, 0.08), leaf, (0, b.vary(0, 360), -14))
    hollow = (0, 2 * high - 0.08 * high, 0)
    return Anchors(hollow, wide, seat=hollow, wide=0.8 * wide)


def mushroom(b: Builder, pose: str) -> Anchors:
    cap, stem = b.main((0.80, 0.13, 0.10), shine=0.35), b.material((0.94, 0.90, 0.82))
    spot, wide, tall = b.material((0.96, 0.94, 0.90)), b.vary(0.34, 0.46), b.vary(0.40, 0.55)
    high = b.vary(0.24, 0.36)
    b.cone((0, tall * 0.5, 0), 0.14, 0.10, tall * 0.5 + 0.04, stem, 0.04)
    b.group()
    b.ellipsoid((0, tall + 0.01, 0), (wide * 0.86, 0.05, wide * 0.86), stem)
    b.group()
    b.dome((0, tall, 0), (wide, high, wide), cap)
    if b.look.pattern == 0:
        b.group()
        for i in range(9):
            a, r = i * 2.4 + 0.5, wide * (0.12 + 0.092 * i)
            h = high * math.sqrt(max(1 - (r / wide) ** 2, 0.0))
            size = b.vary(0.045, 0.075)
            n = (r * math.cos(a) / wide**2, h / high**2, r * math.sin(a) / wide**2)
            tilt = math.degrees(math.atan2(math.hypot(n[0], n[2]), n[1]))
            center = (r * math.cos(a), tall + h, r * math.sin(a))
            b.ellipsoid(center, (size, 0.022, size), spot, (tilt, 90 - math.degrees(a), 0))
    top = tall + high
    return Anchors((0, top - 0.01, 0), wide, seat=(0, top - 0.02, 0), wide=0.7 * wide)


def teapot(b: Builder, pose: str) -> Anchors:
    glaze = b.main((0.86, 0.88, 0.90), shine=0.8, gloss=50)
    wide, tall = b.vary(0.32, 0.38), b.vary(0.26, 0.34)
    y = tall + 0.02
    b.ellipsoid((0, y, 0), (wide, tall, wide), glaze, k=0.03)
    spout = [(wide * 0.8, y - 0.06, 0), (wide + 0.14, y + 0.06, 0), (wide + 0.24, y + 0.24, 0)]
    b.limb(spout, (0.10, 0.065, 0.04), glaze, 0.05)
    b.torus((-wide - 0.04, y + 0.03, 0), 0.16, 0.036, glaze, (90, 0, 0), 0.03)
    b.cylinder((0, 0.03, 0), wide * 0.62, 0.03, glaze, 0.01)
    b.group()
    b.ellipsoid((0, y + tall * 0.94, 0), (wide * 0.52, 0.07, wide * 0.52), glaze, k=0.02)
    b.ball((0, y + tall + 0.09, 0), 0.052, glaze, 0.02)
    return Anchors((0, y + tall + 0.13, 0), 0.42, seat=(0, y + tall + 0.05, 0), wide=0.2)


def mug(b: Builder, pose: str) -> Anchors:
    glaze = b.main((0.88, 0.88, 0.86), shine=0.7, gloss=50)
    drink = b.material(b.jitter((0.28, 0.15, 0.08)), shine=0.5)
    wide, half = b.vary(0.28, 0.36), b.vary(0.32, 0.42)
    b.cone((0, half, 0), wide * b.vary(0.86, 1.0), wide, half, glaze, 0.03, k=0.0)
    b.torus((-wide - 0.06, half, 0), half * 0.50, 0.045, glaze, (90, 0, 0), 0.03)
    b.cylinder((0, 1.25 * half, 0), wide - 0.055, half, glaze, 0.01, carve=True)
    b.group()
    b.cylinder((0, 1.35 * half, 0), wide - 0.05, 0.02, drink)
    return Anchors((0, 2 * half, 0), wide, seat=(0, 2 * half, 0), wide=wide)


def apple(b: Builder, pose: str) -> Anchors:
    skin = b.main(natural(b, (0.82, 0.10, 0.11), (0.50, 0.72, 0.16)), shine=0.5, gloss=40)
    stem = b.material((0.34, 0.22, 0.12))
    leaf = b.material(b.jitter((0.28, 0.58, 0.18)))
    wide = b.vary(0.92, 1.08)
    lean = b.vary(-0.06, 0.06)
    b.capsule((0, 0.28, 0), (0, 0.42, 0), 0.285 * wide, 0.39 * wide, skin)
    # no ribs: only a dent
    b.ribbed((0, 0.46, 0), (0.385 * wide, 0.31, 0.385 * wide), 0, skin, 0.06)
    b.ellipsoid((0, 0.86, 0), (0.24, 0.15, 0.24), skin, carve=True)
    b.group()
    b.limb([(0, 0.64, 0), (0.01, 0.80, 0), (lean, 0.92, 0.02)], (0.022, 0.022, 0.032), stem, 0.01)
    b.lens((0.16, 0.86, 0.02), (0.15, 0.02, 0.075), leaf, (0, b.vary(-40, 40), 24))
    return Anchors((0, 0.74, 0), 0.40, seat=(0, 0.74, 0), wide=0.3)


def banana(b: Builder, pose: str) -> Anchors:
    """It lies on its back, a little on one side, so that its bend shows from all around."""
    peel = b.main((0.98, 0.83, 0.18), shine=0.2)
    tip = b.material((0.30, 0.21, 0.10))
    green = b.material((0.62, 0.66, 0.22))
    fat = b.vary(0.105, 0.125)
    bend = b.vary(0.52, 0.60)
    turn = rotation(0, b.vary(-180, 180), 0)
    tilt = rotation(b.vary(48, 66), 0, 0)

    def place(angle: float, reach: float = 1.0) -> Vec:
        a = math.radians(angle)
        p = (bend * reach * math.sin(a), bend * (1 - reach * math.cos(a)), 0.0)
        p = apply(turn, apply(tilt, p))
        return (p[0], p[1] + fat, p[2])

    angles = (-64, -52, -38, -24, -8, 8, 24, 38, 52, 62)
    radii = [fat * f for f in (0.42, 0.70, 0.87, 0.97, 1.0, 1.0, 0.96, 0.84, 0.62, 0.40)]
    b.limb([place(a) for a in angles], radii, peel, 0.0)
    b.capsule(place(61), place(80), fat * 0.38, fat * 0.30, green, 0.03)
    b.group()
    b.ball(place(82), fat * 0.34, tip)
    b.ball(place(-67), fat * 0.38, tip)
    return Anchors((0, 2 * fat - 0.01, 0), 0.45, seat=(0, 2 * fat - 0.02, 0), wide=0.12)


def donut(b: Builder, pose: str) -> Anchors:
    color = natural(b, (0.96, 0.55, 0.72), (0.36, 0.19, 0.10), (0.96, 0.93, 0.88))
    icing = b.main(color, shine=0.4, gloss=40)
    dough = b.material(b.jitter((0.80, 0.54, 0.27)))
    colors = ((0.98, 0.86, 0.20), (0.25, 0.70, 0.95), (0.97, 0.97, 0.95))
    sprinkles = [b.material(color) for color in colors]
    small = b.vary(0.155, 0.175)
    big = 0.31
    upright = pose == "stand" and b.rng.random() < 0.4  # on its edge, leaning back
    turn = rotation(b.vary(58, 70), b.vary(-40, 40), 0) if upright else IDENTITY
    rise = big + small - 0.03 if upright else small

    def place(p: Vec) -> Vec:
        q = apply(turn, p)
        return (q[0], q[1] + rise, q[2])

    lift = 0.055 * small / 0.16
    thick = 0.93 * small
    for y, r, m in ((0.0, small, dough), (lift, thick, icing)):
        extent = (big + r, r, big + r)
        b.add("TORUS", place((0, y, 0)), (big, r), m, turn, 0.0, big + r, extent)
        b.group()
    for i in range(16):
        a = 2.4 * i + b.vary(-0.2, 0.2)
        across = (-0.9, 0.45, 0.0, 0.95, -0.5)[i % 5]
        r = big + thick * math.sin(across)
        y = lift + thick * math.cos(across)
        way = b.vary(0, 6.28)
        d = (0.028 * math.cos(way), 0.0, 0.028 * math.sin(way))
        x = r * math.cos(a)
        z = r * math.sin(a)
        start = place((x - d[0], y, z - d[2]))
        end = place((x + d[0], y, z + d[2]))
        b.capsule(start, end, 0.015, 0.015, sprinkles[i % 3])
    top = 2 * (big + small) * 0.93 if upright else 2 * small
    return Anchors((0, top, 0), 0.46, seat=(0, top - 0.01, 0), wide=0.3)


def ice_cream(b: Builder, pose: str) -> Anchors:
    flavors = ((0.97, 0.70, 0.76), (0.42, 0.25, 0.15), (0.97, 0.92, 0.76), (0.66, 0.88, 0.72))
    scoop = b.main(natural(b, *flavors), shine=0.2)
    other = scoop if b.look.color else b.main(natural(b, *flavors), shine=0.2)
    waffle = b.material((0.86, 0.62, 0.32), pattern=2, second=(0.66, 0.42, 0.18), scale=9.0)
    cherry = b.material((0.82, 0.07, 0.12), shine=0.8, gloss=50)
    size = b.vary(0.20, 0.225)
    count = 2 if b.rng.random() < 0.6 else 1
    b.cone((0, 0.27, 0), 0.03, 0.19, 0.27, waffle, 0.02)
    b.group()
    b.torus((0, 0.545, 0), 0.175, 0.035, waffle)
    b.group()
    y = 0.62
    b.ball((0, y, 0), size, scoop, 0.03)
    for i in range(6):
        a = 1.05 * i
        b.ball((0.185 * math.cos(a), y - 0.085, 0.185 * math.sin(a)), 0.062, scoop, 0.03)
    if count == 2:
        b.group()
        y += 0.25
        b.ball((b.vary(-0.02, 0.02), y, 0), 0.9 * size, other)
        for i in range(6):
            a = 1.05 * i + 0.5
            b.ball((0.15 * math.cos(a), y - 0.085, 0.15 * math.sin(a)), 0.055, other, 0.03)
    b.group()
    b.ball((0, y + 0.9 * size + 0.03, 0), 0.06, cherry)
    top = y + 0.9 * size
    stem = b.material((0.30, 0.42, 0.14))
    b.capsule((0, top + 0.08, 0), (0.05, top + 0.19, 0), 0.01, 0.01, stem)
    return Anchors((0, top + 0.07, 0), 0.3, seat=(0, y + 0.88 * size, 0), wide=0.2)


def cupcake(b: Builder, pose: str) -> Anchors:
    colors = ((0.97, 0.62, 0.76), (0.95, 0.92, 0.85), (0.48, 0.30, 0.19), (0.60, 0.84, 0.90))
    cream = b.main(natural(b, *colors), shine=0.2)
    paper = natural(b, (0.20, 0.62, 0.68), (0.86, 0.24, 0.28), (0.93, 0.78, 0.24))
    cup = b.material(paper)
    fold = b.material((0.72 * paper[0], 0.72 * paper[1], 0.72 * paper[2]))
    cherry = b.material((0.82, 0.07, 0.12), shine=0.8, gloss=50)
    wide = b.vary(0.94, 1.08)
    b.cone((0, 0.20, 0), 0.24 * wide, 0.34 * wide, 0.20, cup, 0.015)
    b.group()
    for i in range(12):
        a = 0.5236 * i
        c = wide * math.cos(a)
        d = wide * math.sin(a)
        b.capsule((0.24 * c, 0.02, 0.24 * d), (0.34 * c, 0.385, 0.34 * d), 0.022, 0.03, fold)
    b.group()
    b.torus((0, 0.45, 0), 0.22 * wide, 0.13, cream, k=0.03)
    b.torus((0, 0.58, 0), 0.13 * wide, 0.115, cream, k=0.03)
    b.ellipsoid((0, 0.70, 0), (0.135, 0.13, 0.135), cream, k=0.04)
    b.group()
    b.ball((0, 0.84, 0), 0.075, cherry)
    b.capsule((0, 0.90, 0), (0.04, 1.0, 0), 0.011, 0.011, b.material((0.30, 0.42, 0.14)))
    return Anchors((0, 0.90, 0), 0.4, seat=(0, 0.80, 0), wide=0.2)


def pizza(b: Builder, pose: str) -> Anchors:
    crust = b.main((0.82, 0.56, 0.28))
    cheese = b.main((0.98, 0.80, 0.36), tint=0.35 if b.look.color else 0.0, shine=0.2)
    sausage = b.material((0.74, 0.14, 0.10), shine=0.25)
    basil = b.material(b.jitter((0.20, 0.50, 0.16)))
    olive = b.material((0.14, 0.12, 0.14), shine=0.4)
    wide = b.vary(0.46, 0.52)
    start = b.vary(0, 360)
    b.cylinder((0, 0.045, 0), wide, 0.045, crust, 0.02)
    b.torus((0, 0.075, 0), 0.94 * wide, 0.055, crust, k=0.03)
    b.cylinder((0, 0.075, 0), 0.90 * wide, 0.028, cheese, 0.02)
    sliced = b.rng.random() < 0.7
    if sliced:  # a slice is gone: a wedge with its point in the middle
        reach = 1.3 * wide
        a = math.radians(start)
        at = (reach * math.sin(a), 0.1, reach * math.cos(a))
        b.prism(at, 0.48 * reach, reach, 0.2, crust, (-90, start, 0), carve=True)
    b.group()
    for i in range(9):
        a = math.radians(start + (38 if sliced else 0) + (284 if sliced else 340) * i / 8)
        r = wide * (0.62 if i % 2 else 0.36)
        at = (r * math.sin(a), 0.105, r * math.cos(a))
        if i % 2:
            b.lens(at, (0.105, 0.018, 0.105), sausage)
        else:
            b.lens(at, (0.085, 0.022, 0.05), basil if i % 4 else sausage, (0, b.vary(0, 360), 0))
            outer = (0.74 * wide * math.sin(a + 0.1), 0.105, 0.74 * wide * math.cos(a + 0.1))
            b.torus(outer, 0.032, 0.016, olive)
    return Anchors((0, 0.11, 0), wide, seat=(0, 0.11, 0), wide=wide)

"""Animals: their heads face +z. Each has a lap, where it holds things, and a seat."""

import math

from pocket.world.builder import BLACK, DARK, Anchors, Builder, Vec, apply, rotation
from pocket.world.objects.parts import eyes, eyes_with_whites, four_legs, legs, natural


def squirrel(b: Builder, pose: str) -> Anchors:
    fur, plump = b.main((0.72, 0.38, 0.14)), b.vary(0.9, 1.15)
    belly, dark = b.material((0.95, 0.85, 0.70)), b.material(DARK)
    b.ellipsoid((0, 0.32, 0), (0.19 * plump, 0.28, 0.19 * plump), fur, k=0.05)
    b.capsule((0, 0.5, 0.03), (0, 0.72, 0.06), 0.13, 0.15, fur, 0.06)
    for s in (-1, 1):
        b.ellipsoid((s * 0.15 * plump, 0.17, 0.03), (0.10, 0.16, 0.17), fur, k=0.04)
        arm = [(s * 0.13, 0.50, 0.08), (s * 0.14, 0.38, 0.20), (s * 0.06, 0.42, 0.28)]
        b.limb(arm, (0.06, 0.05, 0.045), fur)
        b.ellipsoid((s * 0.12, 0.04, 0.17), (0.06, 0.04, 0.13), fur, k=0.03)
        b.cone((s * 0.10, 0.90, 0.04), 0.055, 0.01, 0.085, fur, 0.008, (0, 0, -s * 12), 0.03)
    b.ellipsoid((0, 0.69, 0.19), (0.085, 0.075, 0.09), fur, k=0.05)
    size = b.vary(0.85, 1.15)
    tail = [(0, 0.12, -0.16), (0, 0.24, -0.40), (0, 0.62 * size, -0.46)]
    tail += [(0, 0.92 * size, -0.38), (0, 0.98 * size, -0.58)]
    b.limb(tail, (0.07, 0.13 * size, 0.17 * size, 0.14 * size, 0.07), fur, 0.08)
    b.group()
    b.ellipsoid((0, 0.34, 0.10), (0.12 * plump, 0.20, 0.115 * plump), belly)
    b.ball((0, 0.705, 0.275), 0.028, dark)
    eyes_with_whites(b, 0.77, 0.165, 0.09, 0.034)
    b.ellipsoid((0, 0.672, 0.215), (0.078, 0.056, 0.07), belly)
    for s in (-1, 1):
        b.cone((s * 0.10, 0.885, 0.075), 0.032, 0.006, 0.055, belly, 0.005, (0, 0, -s * 12))
    return Anchors((0, 0.95, 0), 0.34, seat=(0, 0.84, 0.05), lap=(0, 0.44, 0.34), wide=0.15)


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
        outside = (s * 0.085, 0.62 + 0.21 * ear, 0.04)
        b.ellipsoid(outside, (0.055, 0.21 * ear, 0.035), fur, (-6, 0, -s * lean), 0.03)
    b.ball((0, 0.22, -0.33 * plump), 0.085, fur, 0.02)
    b.group()
    for s in (-1, 1):
        inside = (s * 0.085, 0.62 + 0.21 * ear, 0.068)
        b.ellipsoid(inside, (0.03, 0.15 * ear, 0.018), pink, (-6, 0, -s * lean))
    b.ellipsoid((0, 0.515, 0.298), (0.026, 0.02, 0.018), pink)
    b.eyes(0.585, 0.215, 0.095, 0.032)
    return Anchors((0, 0.68, 0), 0.32, seat=(0, 0.46, -0.16), lap=(0, 0.32, 0.36), wide=0.2)


def horse(b: Builder, pose: str) -> Anchors:
    coat, mane = b.main((0.50, 0.28, 0.14)), b.material(b.jitter((0.16, 0.10, 0.07)))
    hoof, long_, stout = b.material((0.12, 0.10, 0.09)), b.vary(0.92, 1.12), b.vary(0.92, 1.1)
    z = 0.25 * long_
    b.capsule((0, 0.60, -z), (0, 0.60, z * 0.9), 0.185 * stout, 0.18 * stout, coat, 0.05)
    b.capsule((0, 0.66, z), (0, 0.97, z + 0.20), 0.14 * stout, 0.095, coat, 0.08)
    b.capsule((0, 1.00, z + 0.20), (0, 0.88, z + 0.45), 0.10, 0.062, coat, 0.04)
    step = b.vary(0.0, 0.06)
    for s in (-1, 1):
        x = s * 0.11
        leg = [(x, 0.52, z * 0.95), (x, 0.28, z + s * step), (x, 0.06, z + s * step)]
        b.limb(leg, (0.085, 0.055, 0.045), coat)
        leg = [(x, 0.54, -z), (x, 0.28, -z - 0.05 - s * step), (x, 0.06, -z - s * step)]
        b.limb(leg, (0.11, 0.06, 0.045), coat)
        b.cone((s * 0.055, 1.11, z + 0.17), 0.035, 0.008, 0.06, coat, 0.006, (-8, 0, -s * 10), 0.02)
    b.group()
    for s in (-1, 1):
        b.cone((s * 0.11, 0.035, z + s * step), 0.062, 0.048, 0.035, hoof)
        b.cone((s * 0.11, 0.035, -z - s * step), 0.062, 0.048, 0.035, hoof)
    b.group()
    crest = [(0, 1.09, z + 0.17), (0, 0.98, z + 0.05), (0, 0.78, z - 0.09)]
    b.limb(crest, (0.05, 0.065, 0.05), mane, 0.04)
    tail = [(0, 0.68, -z - 0.17), (0, 0.55, -z - 0.30), (0, 0.24, -z - 0.30)]
    b.limb(tail, (0.05, 0.07, 0.035), mane, 0.04)
    eyes_with_whites(b, 1.01, z + 0.27, 0.082, 0.024)
    muzzle = b.main((0.50, 0.28, 0.14), tint=0.4)
    b.ellipsoid((0, 0.875, z + 0.455), (0.07, 0.064, 0.068), muzzle)
    for s in (-1, 1):
        b.ball((s * 0.032, 0.888, z + 0.508), 0.016, hoof)
    return Anchors((0, 0.78, 0), 0.45, seat=(0, 0.755, -0.02), lap=(0, 0.80, z + 0.56), wide=0.19)


def duck(b: Builder, pose: str) -> Anchors:
    down, bill = b.main((0.97, 0.80, 0.15)), b.material((0.95, 0.50, 0.08), shine=0.3)
    fat, neck = b.vary(0.92, 1.1), b.vary(0.0, 0.10)
    b.ellipsoid((0, 0.29, -0.02), (0.25 * fat, 0.22, 0.34), down, (-6, 0, 0), 0.06)
    b.capsule((0, 0.40, 0.18), (0, 0.62 + neck, 0.21), 0.13, 0.12, down, 0.08)
    b.ball((0, 0.66 + neck, 0.22), 0.165, down, 0.04)
    b.cone((0, 0.44, -0.37), 0.12, 0.02, 0.11, down, 0.015, (-52, 0, 0), 0.08)
    for s in (-1, 1):
        wing = (s * 0.235 * fat, 0.33, -0.06)
        b.ellipsoid(wing, (0.055, 0.13, 0.22), down, (-10, s * 6, 0), 0.02)
    b.group()
    b.ellipsoid((0, 0.635 + neck, 0.40), (0.085, 0.028, 0.105), bill, (-4, 0, 0), 0.02)
    b.ellipsoid((0, 0.60 + neck, 0.385), (0.07, 0.022, 0.08), bill, (8, 0, 0), 0.01)
    b.group()
    for s in (-1, 1):
        b.ellipsoid((s * 0.11, 0.025, 0.10), (0.085, 0.025, 0.12), bill)
        b.capsule((s * 0.11, 0.13, 0.02), (s * 0.11, 0.03, 0.04), 0.03, 0.03, bill)
    b.eyes(0.71 + neck, 0.335, 0.10, 0.028)
    top = (0, 0.82 + neck, 0.2)
    return Anchors(top, 0.36, seat=(0, 0.49, -0.10), lap=(0, 0.36, 0.46), wide=0.22)


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
    tail = [(0, 0.07, -0.24), (side * 0.25, 0.06, -0.25)]
    tail += [(side * 0.38, 0.07, -0.04), (side * 0.30, 0.08, 0.16)]
    b.limb(tail, (0.06, 0.055, 0.05, 0.04), fur, 0.03)
    b.group()
    b.ellipsoid((0, 0.635, 0.19), (0.085, 0.06, 0.055), light)
    b.ellipsoid((0, 0.36, 0.105), (0.095, 0.16, 0.07), light)
    b.ellipsoid((0, 0.665, 0.245), (0.024, 0.017, 0.014), pink)
    iris = b.material((0.45, 0.72, 0.25), shine=0.8, gloss=60)
    pupil = b.material(BLACK, shine=0.8, gloss=60)
    for s in (-1, 1):
        b.ellipsoid((s * 0.08, 0.725, 0.195), (0.038, 0.038, 0.022), iris)
        b.ellipsoid((s * 0.08, 0.725, 0.212), (0.013, 0.031, 0.010), pupil)
        b.cone((s * 0.125, 0.835, 0.075), 0.042, 0.006, 0.055, pink, 0.005, (0, 0, -s * 16))
    return Anchors((0, 0.84, 0), 0.36, seat=(0, 0.50, -0.21), lap=(0, 0.36, 0.36), wide=0.17)


def bear(b: Builder, pose: str) -> Anchors:
    fur, light = b.main((0.60, 0.38, 0.19)), b.main((0.60, 0.38, 0.19), tint=0.45)
    dark, plump = b.material((0.12, 0.08, 0.06), shine=0.5), b.vary(0.92, 1.12)
    hips = legs(b, pose, fur, fur, 0.13 * plump, 0.088, 0.20)
    y = hips + 0.17
    b.ellipsoid((0, y, 0), (0.22 * plump, 0.25, 0.19 * plump), fur, k=0.05)
    b.ellipsoid((0, y + 0.36, 0.02), (0.19, 0.175, 0.17), fur, k=0.05)
    for s in (-1, 1):
        b.ellipsoid((s * 0.15, y + 0.50, 0.0), (0.072, 0.072, 0.042), fur, k=0.02)
        elbow = (s * 0.30 * plump, y, 0.08)
        hand = (s * 0.27 * plump, y - 0.07, 0.17)
        b.limb([(s * 0.18 * plump, y + 0.14, 0), elbow, hand], (0.08, 0.075, 0.07), fur)
    b.group()
    b.ellipsoid((0, y - 0.01, 0.075), (0.145 * plump, 0.17, 0.13 * plump), light)
    b.ellipsoid((0, y + 0.315, 0.155), (0.085, 0.068, 0.075), light)
    b.ellipsoid((0, y + 0.345, 0.222), (0.036, 0.026, 0.022), dark)
    for s in (-1, 1):
        b.ellipsoid((s * 0.15, y + 0.50, 0.03), (0.045, 0.045, 0.022), light)
    b.eyes(y + 0.41, 0.165, 0.072, 0.026)
    top = (0, y + 0.53, 0)
    return Anchors(top, 0.33, seat=(0, y + 0.52, 0.0), lap=(0, y - 0.02, 0.38), wide=0.18)


def penguin(b: Builder, pose: str) -> Anchors:
    coat, belly = b.main((0.10, 0.11, 0.15)), b.material((0.95, 0.95, 0.94))
    beak, fat = b.material((0.96, 0.58, 0.10)), b.vary(0.9, 1.12)
    b.ellipsoid((0, 0.38, 0), (0.24 * fat, 0.35, 0.22 * fat), coat, k=0.06)
    b.ellipsoid((0, 0.78, 0.02), (0.165, 0.155, 0.16), coat, k=0.08)
    for s in (-1, 1):
        lean = s * b.vary(10, 26)
        b.ellipsoid((s * 0.26 * fat, 0.42, 0.0), (0.045, 0.20, 0.09), coat, (0, 0, lean), 0.03)
    b.cone((0, 0.12, -0.22 * fat), 0.08, 0.02, 0.08, coat, 0.015, (-65, 0, 0), 0.04)
    b.group()
    b.ellipsoid((0, 0.36, 0.075 * fat), (0.18 * fat, 0.29, 0.165 * fat), belly)
    for s in (-1, 1):
        b.ellipsoid((s * 0.062, 0.79, 0.115), (0.062, 0.075, 0.06), belly)
        b.ellipsoid((s * 0.10, 0.03, 0.13), (0.085, 0.032, 0.13), beak)
    b.cone((0, 0.745, 0.215), 0.045, 0.008, 0.065, beak, 0.006, (90, 0, 0))
    b.eyes(0.815, 0.165, 0.062, 0.025)
    return Anchors((0, 0.93, 0), 0.32, seat=(0, 0.91, 0.01), lap=(0, 0.42, 0.38), wide=0.15)


def elephant(b: Builder, pose: str) -> Anchors:
    hide = b.main((0.52, 0.53, 0.57))
    tusk, nail = b.material((0.95, 0.92, 0.84)), b.material((0.85, 0.80, 0.74))
    long_, fat = b.vary(0.92, 1.1), b.vary(0.95, 1.1)
    z = 0.24 * long_
    b.ellipsoid((0, 0.58, -0.06), (0.28 * fat, 0.27, 0.40 * long_), hide, k=0.08)
    b.ellipsoid((0, 0.74, 0.40 * long_), (0.20, 0.21, 0.20), hide, k=0.08)
    t = 0.40 * long_
    trunk = [(0, 0.70, t + 0.14), (0, 0.46, t + 0.27), (0, 0.22, t + 0.28), (0, 0.12, t + 0.38)]
    b.limb(trunk, (0.10, 0.075, 0.058, 0.045), hide, 0.05)
    for s in (-1, 1):
        b.ellipsoid((s * 0.31, 0.74, t - 0.06), (0.20, 0.24, 0.035), hide, (0, s * 28, 0), 0.03)
        b.capsule((s * 0.16, 0.48, z), (s * 0.16, 0.09, z), 0.115, 0.095, hide, 0.05)
        b.capsule((s * 0.16, 0.48, -z - 0.08), (s * 0.16, 0.09, -z - 0.08), 0.12, 0.095, hide, 0.05)
    b.limb([(0, 0.66, -0.44 * long_), (0, 0.42, -0.50 * long_ - 0.03)], (0.035, 0.022), hide, 0.03)
    b.group()
    for s in (-1, 1):
        curve = [(s * 0.12, 0.58, t + 0.14), (s * 0.13, 0.46, t + 0.28), (s * 0.12, 0.48, t + 0.38)]
        b.limb(curve, (0.035, 0.03, 0.014), tusk, 0.02)
        for q in (z, -z - 0.08):
            b.ellipsoid((s * 0.16, 0.03, q + 0.045), (0.09, 0.032, 0.07), nail)
    eyes_with_whites(b, 0.80, t + 0.155, 0.135, 0.026)
    top = (0, 0.84, -0.06)
    return Anchors(top, 0.5, seat=(0, 0.825, -0.06), lap=(0, 0.24, t + 0.46), wide=0.26)


def turtle(b: Builder, pose: str) -> Anchors:
    shell, skin = b.main((0.42, 0.34, 0.16)), b.main((0.40, 0.62, 0.28), tint=0.0)
    if b.look.color is not None:
        skin = b.main((0.40, 0.62, 0.28), tint=0.4)
    rim, wide, high = b.main((0.62, 0.52, 0.28), tint=-0.25), b.vary(0.38, 0.46), b.vary(0.28, 0.38)
    b.dome((0, 0.16, -0.04), (wide, high, wide * 1.12), shell)
    b.group()
    b.ellipsoid((0, 0.17, -0.04), (wide * 1.04, 0.06, wide * 1.16), rim)
    b.group()
    b.capsule((0, 0.18, wide * 0.9), (0, 0.31, wide + 0.18), 0.085, 0.08, skin, 0.03)
    b.ellipsoid((0, 0.34, wide + 0.20), (0.115, 0.10, 0.13), skin, k=0.05)
    for s in (-1, 1):
        for z in (wide * 0.72, -wide * 0.80):
            hip = (s * wide * 0.62, 0.14, z * 0.9)
            foot = (s * wide * 0.86, 0.06, z * 1.12)
            b.capsule(hip, foot, 0.10, 0.075, skin, 0.03)
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
            center = (r * math.sin(a), 0.165 + h, -0.04 + r * 1.12 * math.cos(a))
            b.ellipsoid(center, (size, 0.02, size), plate, (tilt, math.degrees(a), 0))
    eyes_with_whites(b, 0.375, wide + 0.27, 0.085, 0.024)
    seat = (0, 0.14 + high, -0.04)
    return Anchors((0, 0.16 + high, -0.04), 0.5, seat, lap=(0, 0.24, wide + 0.38), wide=0.20)


def dog(b: Builder, pose: str) -> Anchors:
    color = natural(b, (0.80, 0.54, 0.26), (0.52, 0.32, 0.17), (0.90, 0.84, 0.74))
    fur = b.main(color)
    ear = b.main(color, tint=-0.45)
    light = b.material((0.96, 0.90, 0.80))
    dark = b.material((0.09, 0.07, 0.07), shine=0.6, gloss=40)
    band = b.material(natural(b, (0.84, 0.14, 0.12), (0.14, 0.34, 0.78), (0.16, 0.60, 0.26)))
    tongue = b.material((0.94, 0.45, 0.48))
    stout = b.vary(0.135, 0.165)
    rump = four_legs(b, pose, fur, light, (0.43, 0.14), 0.36, stout, 0.058, 0.095)
    wag = b.vary(-0.1, 0.1)
    tail = [(0, rump[1] + 0.08, rump[2] - 0.10), (wag, rump[1] + 0.20, rump[2] - 0.22)]
    tail.append((1.6 * wag, rump[1] + 0.34, rump[2] - 0.20))
    b.limb(tail, (0.055, 0.045, 0.03), fur, 0.03)
    b.capsule((0, 0.46, 0.17), (0, 0.66, 0.23), 0.115, 0.10, fur, 0.06)
    b.ellipsoid((0, 0.745, 0.24), (0.165, 0.155, 0.16), fur, k=0.05)
    b.capsule((0, 0.71, 0.34), (0, 0.685, 0.475), 0.088, 0.075, light, 0.04)
    b.group()
    for s in (-1, 1):
        b.lens((s * 0.175, 0.70, 0.215), (0.045, 0.15, 0.085), ear, (6, 0, s * 13))
    b.group()
    b.ellipsoid((0, 0.735, 0.545), (0.045, 0.034, 0.03), dark)
    b.ellipsoid((0, 0.615, 0.47), (0.034, 0.05, 0.014), tongue, (-25, 0, 0))
    b.torus((0, 0.57, 0.205), 0.105, 0.024, band, (18, 0, 0))
    eyes(b, (0.066, 0.80, 0.365), 0.036, (0.1, 0.0, 1.0))
    top = 0.43 + stout
    seat = (0, top - 0.02, -0.02)
    return Anchors((0, top, -0.03), 0.42, seat, lap=(0, 0.48, 0.50), wide=stout)


def bird(b: Builder, pose: str) -> Anchors:
    color = natural(b, (0.20, 0.48, 0.86), (0.80, 0.15, 0.12), (0.52, 0.36, 0.24))
    coat = b.main(color)
    wing = b.main(color, tint=-0.35)
    breast = b.material(natural(b, (0.96, 0.60, 0.28), (0.96, 0.93, 0.88)))
    horn = b.material((0.96, 0.68, 0.14), shine=0.3)
    plump = b.vary(0.92, 1.1)
    b.ellipsoid((0, 0.40, 0), (0.20 * plump, 0.20 * plump, 0.27), coat, (-28, 0, 0), 0.05)
    b.ball((0, 0.66, 0.14), 0.165, coat, 0.06)
    b.lens((0, 0.24, -0.42), (0.095, 0.035, 0.30), wing, (-19, 0, 0), 0.06)
    b.group()
    for s in (-1, 1):
        b.lens((s * 0.195 * plump, 0.40, -0.06), (0.045, 0.14, 0.26), wing, (-32, s * 5, s * 6))
    b.group()
    b.ellipsoid((0, 0.40, 0.075), (0.155 * plump, 0.20, 0.20), breast, (-28, 0, 0))
    b.group()
    b.cone((0, 0.645, 0.345), 0.055, 0.006, 0.075, horn, 0.005, (94, 0, 0))
    for s in (-1, 1):
        b.capsule((s * 0.08, 0.24, 0.03), (s * 0.08, 0.03, 0.06), 0.02, 0.017, horn)
        for turn in (-0.055, 0.0, 0.055):
            b.capsule((s * 0.08, 0.02, 0.05), (s * 0.08 + turn, 0.015, 0.14), 0.018, 0.012, horn)
        b.capsule((s * 0.08, 0.02, 0.05), (s * 0.08, 0.015, -0.02), 0.018, 0.012, horn)
    eyes(b, (0.105, 0.70, 0.255), 0.037, (0.55, 0.05, 0.8))
    return Anchors((0, 0.82, 0.14), 0.34, seat=(0, 0.55, -0.10), lap=(0, 0.42, 0.36), wide=0.18)


def fish(b: Builder, pose: str) -> Anchors:
    color = natural(b, (0.97, 0.46, 0.08), (0.95, 0.75, 0.12), (0.20, 0.50, 0.85))
    scales = b.main(color, shine=0.45, gloss=30)
    fin = b.main(color, tint=-0.22)
    white = b.material((0.96, 0.96, 0.95), shine=0.4)
    mouth = b.material((0.75, 0.30, 0.28))
    long = b.vary(0.40, 0.47)
    high = b.vary(0.25, 0.29)
    wide = b.vary(0.145, 0.175)
    y = high + 0.07
    b.lens((0, y, 0.06), (wide, high, long), scales, k=0.04)
    b.capsule((0, y, -0.25), (0, y, -long - 0.06), 0.10, 0.045, scales, 0.08)
    b.group()
    for s in (-1, 1):  # the two lobes of the tail
        b.lens((0, y + s * 0.135, -long - 0.20), (0.026, 0.085, 0.20), fin, (s * 48, 0, 0), 0.03)
    b.lens((0, y + high * 0.93, -0.04), (0.026, 0.12, 0.22), fin, (14, 0, 0), 0.03)
    b.lens((0, y - high * 0.92, -0.12), (0.024, 0.09, 0.12), fin, (-20, 0, 0), 0.03)
    for s in (-1, 1):
        center = (s * (wide + 0.045), y - 0.07, 0.09)
        b.lens(center, (0.12, 0.085, 0.022), fin, (0, s * 42, s * -24), 0.02)
    b.group()
    if b.look.pattern == 0:  # white bands
        for z in (0.19, -0.10):
            f = 1.04 * math.sqrt(1 - (z / long) ** 2)
            b.lens((0, y, 0.06 + z), (wide * f, high * f, 0.15), white)
    b.group()
    b.torus((0, y - 0.04, long + 0.045), 0.036, 0.018, mouth, (90, 0, 0))
    eyes(b, (wide * 0.68, y + 0.075, long * 0.70 + 0.06), 0.058, (0.85, 0.05, 0.5))
    top = (0, y + high + 0.03, -0.02)
    seat = (0, y + high - 0.02, 0.0)
    return Anchors(top, 0.44, seat, lap=(0, 0.16, long + 0.22), wide=wide)


def butterfly(b: Builder, pose: str) -> Anchors:
    """Its body is raised, so that the wings show from the front, from behind and from above."""
    colors = ((0.97, 0.52, 0.08), (0.22, 0.45, 0.92), (0.95, 0.78, 0.16), (0.72, 0.32, 0.80))
    wing = b.main(natural(b, *colors))
    rim = b.material((0.08, 0.07, 0.08))
    body = b.material((0.16, 0.11, 0.10))
    spot = b.material((0.97, 0.96, 0.92))
    rise = b.vary(48, 58)
    fold = b.vary(26, 38)
    size = b.vary(0.92, 1.08)
    base = (0.0, 0.34, 0.0)

    def place(x: float, y: float, z: float, yaw: float = 0.0) -> Vec:
        """From along the body (y), across it (x) and off the wings (z) to the object's frame."""
        p = apply(rotation(rise - 90, yaw, 0), (x, y, z))
        return (p[0] + base[0], p[1] + base[1], p[2] + base[2])

    for s in (-1, 1):
        yaw = -s * fold
        turn = (rise - 90, yaw, 0)
        upper = (s * 0.34 * size, 0.20, 0.0)
        lower = (s * 0.27 * size, -0.19, 0.0)
        for center, radii, roll in ((upper, (0.33, 0.225), 32), (lower, (0.25, 0.19), -34)):
            a, c = radii[0] * size, radii[1] * size
            tilt = (turn[0], turn[1], s * roll)
            b.lens(place(*center, yaw), (a, c, 0.022), rim, tilt)
            inner = (center[0] * 0.94, center[1], center[2])
            b.lens(place(*inner, yaw), (a * 0.86, c * 0.82, 0.031), wing, tilt)
        for x, y in ((0.585, 0.36), (0.615, 0.22), (0.44, -0.33)):
            b.lens(place(s * x * size, y, 0.0, yaw), (0.03, 0.03, 0.03), spot, turn)
    b.group()
    b.capsule(place(0, -0.27, 0), place(0, 0.22, 0.01), 0.045, 0.06, body, 0.03)
    b.ball(place(0, 0.33, 0.03), 0.085, body, 0.03)
    for s in (-1, 1):
        tip = place(s * 0.17, 0.60, 0.07)
        feeler = [place(s * 0.03, 0.38, 0.03), place(s * 0.11, 0.55, 0.05), tip]
        b.limb(feeler, (0.014, 0.012, 0.012), body, 0.01)
        b.ball(tip, 0.026, body)
    eyes(b, place(0.045, 0.36, 0.09), 0.032, (0.3, 0.2, 1.0))
    seat = place(0, 0.05, 0.07)
    return Anchors(place(0, 0.42, 0.0), 0.5, seat, lap=place(0, 0.16, 0.22), wide=0.08)


def dinosaur(b: Builder, pose: str) -> Anchors:
    color = natural(b, (0.36, 0.62, 0.22), (0.26, 0.56, 0.42), (0.52, 0.62, 0.24))
    skin = b.main(color)
    spike = b.main(color, tint=-0.45)
    belly = b.material((0.92, 0.86, 0.62))
    tooth = b.material((0.98, 0.97, 0.92))
    stout = b.vary(0.92, 1.08)
    sits = pose in ("sit", "ride")
    hips = 0.24 if sits else 0.40
    z = -0.06
    b.ellipsoid((0, hips + 0.08, z), (0.19 * stout, 0.24, 0.23), skin, (-20, 0, 0), 0.06)
    b.capsule((0, hips + 0.20, z + 0.08), (0, hips + 0.46, z + 0.18), 0.135, 0.11, skin, 0.08)
    b.ellipsoid((0, hips + 0.56, z + 0.22), (0.145, 0.135, 0.16), skin, k=0.05)
    b.box((0, hips + 0.535, z + 0.41), (0.095, 0.06, 0.13), skin, 0.055, k=0.06)
    b.box((0, hips + 0.435, z + 0.35), (0.08, 0.026, 0.14), skin, 0.025, (-9, 0, 0), k=0.02)
    tail = [(0, hips + 0.02, z - 0.18), (0, hips - 0.10, z - 0.42)]
    tail += [(0, 0.10, z - 0.66), (0, 0.16, z - 0.86)]
    b.limb(tail, (0.15, 0.105, 0.06, 0.02), skin, 0.06)
    for s in (-1, 1):
        x = s * 0.15 * stout
        if sits:
            leg = [(x, hips, z + 0.02), (s * 0.21, 0.14, z + 0.22), (s * 0.20, 0.06, z + 0.34)]
            b.limb(leg, (0.13, 0.09, 0.06), skin, 0.04)
            b.ellipsoid((s * 0.20, 0.05, z + 0.42), (0.075, 0.05, 0.11), skin, k=0.03)
        else:
            leg = [(x, hips + 0.02, z), (x, 0.22, z + 0.08), (x, 0.06, z - 0.02)]
            b.limb(leg, (0.13, 0.085, 0.06), skin, 0.04)
            b.ellipsoid((x, 0.045, z + 0.05), (0.08, 0.05, 0.13), skin, k=0.03)
        shoulder = (s * 0.13, hips + 0.30, z + 0.16)
        elbow = (s * 0.16, hips + 0.22, z + 0.28)
        hand = (s * 0.13, hips + 0.25, z + 0.34)
        b.limb([shoulder, elbow, hand], (0.042, 0.034, 0.028), skin, 0.02)
    b.group()
    b.ellipsoid((0, hips + 0.12, z + 0.085), (0.13 * stout, 0.21, 0.16), belly, (-20, 0, 0))
    b.group()
    back = [(hips + 0.67, z + 0.08, -30), (hips + 0.53, z + 0.03, -55)]
    back += [(hips + 0.36, z - 0.06, -60), (hips + 0.22, z - 0.22, -40)]
    back.append((hips + 0.07, z - 0.38, -35))
    for y, q, lean in back:
        b.cone((0, y, q), 0.055, 0.006, 0.06, spike, 0.005, (lean, 0, 0))
    for x in (-0.055, 0.0, 0.055):
        b.cone((x, hips + 0.475, z + 0.515), 0.004, 0.016, 0.026, tooth, 0.003)
    eyes(b, (0.105, hips + 0.645, z + 0.29), 0.05, (0.3, 0.05, 0.95))
    seat = (0, hips + 0.24, z - 0.15)
    return Anchors((0, hips + 0.69, z + 0.2), 0.5, seat, lap=(0, hips + 0.2, z + 0.48), wide=0.17)


def cow(b: Builder, pose: str) -> Anchors:
    coat = b.main((0.95, 0.94, 0.91))
    patch = b.material((0.11, 0.10, 0.10))
    pink = b.material((0.94, 0.67, 0.65))
    horn = b.material((0.88, 0.82, 0.68), shine=0.3)
    dark = b.material((0.20, 0.15, 0.14))
    stout = b.vary(0.20, 0.23)
    long = b.vary(0.46, 0.54)
    y = 0.52
    z = 0.22
    rump = four_legs(b, pose, coat, dark, (y, z), long, stout, 0.062, 0.125)
    b.capsule((0, y + 0.06, z + 0.08), (0, y + 0.20, z + 0.22), 0.135, 0.115, coat, 0.06)
    b.ellipsoid((0, y + 0.26, z + 0.27), (0.125, 0.145, 0.15), coat, (20, 0, 0), 0.05)
    for s in (-1, 1):
        ear = (s * 0.19, y + 0.29, z + 0.22)
        b.ellipsoid(ear, (0.10, 0.045, 0.035), coat, (0, s * 15, s * -14), 0.02)
    base = (0.0, rump[1] + 0.10, rump[2] - stout + 0.01)
    tip = (0.0, rump[1] - 0.08, rump[2] - stout - 0.07)
    b.capsule(base, tip, 0.025, 0.02, coat, 0.02)
    b.group()
    b.ellipsoid((0, y + 0.165, z + 0.385), (0.108, 0.085, 0.09), pink)
    b.group()
    for s in (-1, 1):
        base = (s * 0.09, y + 0.38, z + 0.22)
        tip = (s * 0.155, y + 0.51, z + 0.23)
        b.limb([base, (s * 0.15, y + 0.43, z + 0.22), tip], (0.034, 0.028, 0.01), horn, 0.02)
        b.ball((s * 0.045, y + 0.18, z + 0.462), 0.018, dark)
    b.ellipsoid((0, rump[1] - 0.14, rump[2] - stout - 0.075), (0.04, 0.075, 0.04), dark)
    b.ellipsoid((0, max(rump[1] - stout - 0.01, 0.06), rump[2] + 0.14), (0.09, 0.075, 0.09), pink)
    if b.look.pattern == 0:
        shade = patch if b.look.color is None else b.main((1, 1, 1), tint=-0.5)
        f = stout + 0.01
        b.group()
        half = (y + rump[1]) / 2
        b.ellipsoid((f * 0.62, half + 0.08, rump[2] + 0.22), (0.10, 0.13, 0.15), shade)
        b.ellipsoid((-f * 0.62, half + 0.05, rump[2] + 0.30), (0.10, 0.15, 0.12), shade)
        b.ellipsoid((-f * 0.30, rump[1] + f * 0.55, rump[2] - 0.06), (0.13, 0.11, 0.12), shade)
    eyes(b, (0.095, y + 0.32, z + 0.375), 0.034, (0.5, 0.0, 0.85))
    top = (0, y + stout, z - 0.55 * long)
    seat = (0, y + stout - 0.02, z - 0.6 * long)
    return Anchors(top, 0.5, seat, lap=(0, y, z + 0.40), wide=stout)


def pig(b: Builder, pose: str) -> Anchors:
    color = (0.95, 0.65, 0.66)
    skin = b.main(color)
    snout = b.main(color, tint=-0.2)
    dark = b.material((0.35, 0.16, 0.17))
    hoof = b.material((0.45, 0.30, 0.28))
    stout = b.vary(0.235, 0.27)
    y = 0.36
    z = 0.14
    rump = four_legs(b, pose, skin, hoof, (y, z), 0.34, stout, 0.06, 0.135)
    b.ellipsoid((0, y + 0.13, z + 0.26), (0.195, 0.18, 0.18), skin, k=0.06)
    b.cylinder((0, y + 0.10, z + 0.42), 0.095, 0.07, snout, 0.03, (90, 0, 0), 0.03)
    y0 = rump[1]
    z0 = rump[2] - stout
    coil = [(0, y0 + 0.10, z0), (0.05, y0 + 0.15, z0 - 0.06)]
    coil += [(-0.03, y0 + 0.20, z0 - 0.07), (0.03, y0 + 0.25, z0 - 0.05)]
    b.limb(coil, (0.026, 0.024, 0.021, 0.015), skin, 0.01)
    b.group()
    for s in (-1, 1):
        ear = (s * 0.135, y + 0.32, z + 0.25)
        b.cone(ear, 0.085, 0.01, 0.085, snout, 0.008, (38, 0, s * -16), 0.02)
        b.ellipsoid((s * 0.036, y + 0.105, z + 0.492), (0.02, 0.03, 0.012), dark)
    b.group()
    eyes(b, (0.088, y + 0.20, z + 0.405), 0.034, (0.15, 0.0, 1.0))
    top = (0, y + stout, z - 0.16)
    seat = (0, y + stout - 0.02, z - 0.2)
    return Anchors(top, 0.45, seat, lap=(0, y - 0.15, z + 0.56), wide=stout)


def owl(b: Builder, pose: str) -> Anchors:
    color = natural(b, (0.55, 0.37, 0.22), (0.62, 0.56, 0.50), (0.72, 0.50, 0.28))
    coat = b.main(color)
    wing = b.main(color, tint=-0.35)
    face = b.material((0.96, 0.90, 0.78))
    horn = b.material((0.95, 0.62, 0.14), shine=0.3)
    gold = b.material((0.98, 0.76, 0.10), shine=0.6, gloss=60)
    pupil = b.material(BLACK, shine=0.8, gloss=60)
    plump = b.vary(0.94, 1.1)
    b.ellipsoid((0, 0.40, 0), (0.26 * plump, 0.36, 0.24), coat, k=0.05)
    b.ellipsoid((0, 0.72, 0.02), (0.255, 0.20, 0.21), coat, k=0.06)
    for s in (-1, 1):
        b.cone((s * 0.175, 0.92, 0.03), 0.06, 0.008, 0.085, coat, 0.006, (0, 0, s * -26), 0.03)
    b.cone((0, 0.12, -0.20), 0.10, 0.06, 0.12, wing, 0.03, (-58, 0, 0), 0.04)
    b.group()
    for s in (-1, 1):
        b.lens((s * 0.245 * plump, 0.42, -0.02), (0.05, 0.25, 0.15), wing, (8, 0, s * 7))
    b.group()
    b.ellipsoid((0, 0.37, 0.09), (0.185 * plump, 0.26, 0.175), face)
    b.group()
    for s in (-1, 1):
        b.ellipsoid((s * 0.105, 0.735, 0.185), (0.125, 0.125, 0.055), face, (0, s * 16, 0))
        b.ellipsoid((s * 0.108, 0.735, 0.228), (0.076, 0.076, 0.028), gold, (0, s * 16, 0))
        b.ellipsoid((s * 0.109, 0.735, 0.246), (0.043, 0.043, 0.02), pupil, (0, s * 16, 0))
        for turn in (-0.05, 0.05):
            b.capsule((s * 0.11, 0.05, 0.12), (s * 0.11 + turn, 0.03, 0.25), 0.036, 0.024, horn)
    b.cone((0, 0.665, 0.255), 0.008, 0.04, 0.055, horn, 0.006, (-14, 0, 0))
    return Anchors((0, 0.90, 0.02), 0.33, seat=(0, 0.89, 0.0), lap=(0, 0.40, 0.42), wide=0.24)


def frog(b: Builder, pose: str) -> Anchors:
    color = natural(b, (0.34, 0.70, 0.18), (0.22, 0.58, 0.26), (0.52, 0.68, 0.14))
    skin = b.main(color)
    light = b.main(color, tint=0.5)
    mouth = b.material((0.30, 0.13, 0.12))
    wide = b.vary(0.30, 0.34)
    b.ellipsoid((0, 0.27, -0.06), (wide, 0.23, 0.33), skin, (-16, 0, 0), 0.05)
    b.ellipsoid((0, 0.44, 0.17), (wide * 0.92, 0.17, 0.20), skin, k=0.07)
    for s in (-1, 1):
        b.ball((s * 0.165, 0.585, 0.17), 0.105, skin, 0.04)
        thigh = [(s * 0.22, 0.16, -0.26), (s * 0.42, 0.24, 0.0)]
        b.limb(thigh, (0.115, 0.085), skin, 0.05)
        b.capsule((s * 0.42, 0.22, 0.0), (s * 0.36, 0.05, -0.22), 0.075, 0.05, skin, 0.03)
        b.ellipsoid((s * 0.42, 0.028, -0.09), (0.10, 0.028, 0.16), skin, (0, s * 18, 0), 0.03)
        b.capsule((s * 0.20, 0.26, 0.20), (s * 0.22, 0.05, 0.28), 0.075, 0.055, skin, 0.04)
        b.ellipsoid((s * 0.24, 0.028, 0.35), (0.095, 0.028, 0.10), skin, (0, s * 14, 0), 0.03)
    b.group()
    b.ellipsoid((0, 0.26, 0.145), (wide * 0.72, 0.17, 0.17), light)
    b.group()
    smile = [(-0.20, 0.445, 0.295), (-0.10, 0.40, 0.352), (0.0, 0.388, 0.372)]
    smile += [(0.10, 0.40, 0.352), (0.20, 0.445, 0.295)]
    b.limb(smile, (0.012, 0.014, 0.014, 0.014, 0.012), mouth, 0.01)
    b.group()
    eyes(b, (0.178, 0.60, 0.235), 0.078, (0.3, 0.05, 0.9))
    return Anchors((0, 0.50, -0.05), 0.45, seat=(0, 0.48, -0.10), lap=(0, 0.30, 0.56), wide=wide)

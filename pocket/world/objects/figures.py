"""Figures: what has a face and is no animal."""

from pocket.world.builder import BLACK, Anchors, Builder
from pocket.world.objects.parts import legs


def astronaut(b: Builder, pose: str) -> Anchors:
    suit, gray = b.main((0.90, 0.90, 0.91)), b.material((0.45, 0.47, 0.51), shine=0.3)
    visor = b.material(b.jitter((0.12, 0.14, 0.24), 0.02), shine=1.0, gloss=60, metal=0.35)
    accent = b.material(
        ((0.82, 0.22, 0.14), (0.16, 0.35, 0.75), (0.93, 0.55, 0.10))[int(b.rng.integers(3))]
    )
    wide = b.vary(0.9, 1.1)
    hips = legs(b, pose, suit, gray, 0.105 * wide, 0.078, 0.30)
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
    return Anchors(
        (0, y + 0.57, 0), 0.3, seat=(0, y + 0.56, 0.0), lap=(0, y + 0.02, 0.36), wide=0.2
    )


def snowman(b: Builder, pose: str) -> Anchors:
    snow, coal = b.main((0.93, 0.94, 0.97)), b.material(BLACK)
    carrot, wood = b.material((0.95, 0.47, 0.10)), b.material((0.36, 0.22, 0.12))
    felt = b.material((0.10, 0.10, 0.12))
    scarf = b.material(
        ((0.80, 0.13, 0.13), (0.12, 0.45, 0.20), (0.15, 0.27, 0.68))[int(b.rng.integers(3))]
    )
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
        b.capsule(
            (s * 0.17 * fat, 0.64 * fat, 0),
            (s * 0.42, 0.64 * fat + b.vary(0.02, 0.16), 0.05),
            0.022,
            0.015,
            wood,
        )
        b.ball((s * 0.055, y + 0.045, 0.14), 0.023, coal)
    for i in range(3):
        b.ball((0, (0.50 + 0.09 * i) * fat, (0.195 + 0.008 * (i == 1)) * fat), 0.024, coal)
    if b.rng.random() < 0.75:
        b.cylinder((0, y + 0.12, 0), 0.18, 0.014, felt)
        b.cylinder((0, y + 0.22, 0), 0.115, 0.10, felt)
        b.cylinder((0, y + 0.15, 0), 0.119, 0.022, scarf)
        y += 0.17
    return Anchors(
        (0, y + 0.15, 0), 0.34, seat=(0, y + 0.13, 0), lap=(0, 0.62 * fat, 0.36), wide=0.12
    )


def robot(b: Builder, pose: str) -> Anchors:
    shell = b.main((0.62, 0.66, 0.71), shine=0.5, gloss=30)
    joint, dark = (
        b.material((0.30, 0.32, 0.35), shine=0.4),
        b.material((0.10, 0.12, 0.15), shine=0.4),
    )
    light = b.material((0.30, 0.90, 0.98), glow=0.7)
    red = b.material((0.90, 0.16, 0.12), glow=0.2)
    wide = b.vary(0.9, 1.12)
    hips = {"sit": 0.085, "ride": 0.09}.get(pose, 0.28)
    for s in (-1, 1):
        if pose in ("stand", "base"):
            b.capsule((s * 0.11, hips, 0), (s * 0.11, 0.10, 0), 0.052, 0.052, joint)
            b.box((s * 0.11, 0.05, 0.03), (0.08, 0.05, 0.12), shell, 0.03)
        elif pose == "sit":
            b.capsule((s * 0.11, hips, 0.05), (s * 0.13, 0.08, 0.30), 0.052, 0.052, joint)
            b.box((s * 0.13, 0.10, 0.36), (0.08, 0.10, 0.05), shell, 0.03)
        else:
            b.limb(
                [(s * 0.12, hips, 0), (s * 0.26, hips - 0.05, 0.12), (s * 0.29, hips - 0.26, 0.06)],
                (0.052,) * 3,
                joint,
            )
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
        b.limb(
            [
                (s * 0.21 * wide, y + 0.12, 0),
                (s * 0.31 * wide, y - 0.02, 0.03),
                (s * 0.27 * wide, y - 0.12, 0.17),
            ],
            (0.045, 0.042, 0.042),
            joint,
            0.01,
        )
        b.ball((s * 0.215 * wide, y + 0.125, 0), 0.07, shell)
        b.ball((s * 0.27 * wide, y - 0.12, 0.18), 0.062, shell)
        b.cylinder((s * 0.18 * wide, y + 0.39, 0), 0.045, 0.02, joint, 0.01, (0, 0, 90))
    b.box((0, y + 0.335, 0.137), (0.055, 0.010, 0.006), light, 0.004)
    b.capsule((0, y + 0.52, 0), (0, y + 0.62, 0), 0.014, 0.012, joint)
    b.ball((0, y + 0.64, 0), 0.036, red)
    b.box((0, y + 0.03, 0.138), (0.11, 0.08, 0.012), dark, 0.01)
    b.ball((-0.055, y + 0.04, 0.15), 0.024, red)
    b.ball((0.0, y + 0.04, 0.15), 0.024, light)
    return Anchors((0, y + 0.52, 0), 0.3, seat=(0, y + 0.51, 0), lap=(0, y, 0.38), wide=0.17)

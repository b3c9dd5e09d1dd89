"""Buildings."""

import math

from pocket.world.builder import WHITE, Anchors, Builder
from pocket.world.objects.parts import natural


def house(b: Builder, pose: str) -> Anchors:
    wall = b.main((0.90, 0.83, 0.68))
    color = natural(b, (0.62, 0.22, 0.16), (0.33, 0.34, 0.38), (0.45, 0.28, 0.18))
    roof = b.material(b.jitter(color))
    door = b.material(b.jitter((0.42, 0.25, 0.14)))
    glass = b.material((0.55, 0.78, 0.92), shine=0.6, gloss=50)
    frame, brick = b.material(WHITE), b.material((0.55, 0.26, 0.20))
    wide = b.vary(0.34, 0.40)
    deep = b.vary(0.30, 0.42)
    tall = b.vary(0.24, 0.30)
    pitch = b.vary(0.30, 0.42)
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
    return Anchors((0, 2 * tall + pitch, 0), 0.45, seat=(0, 2 * tall + pitch - 0.02, 0), wide=0.15)


def castle(b: Builder, pose: str) -> Anchors:
    stone = b.main(natural(b, (0.70, 0.69, 0.67), (0.78, 0.70, 0.58)))
    color = natural(b, (0.66, 0.20, 0.16), (0.20, 0.32, 0.62), (0.42, 0.26, 0.50))
    roof = b.material(b.jitter(color))
    dark = b.material((0.16, 0.11, 0.09))
    flag = b.material(natural(b, (0.90, 0.14, 0.14), (0.97, 0.78, 0.14)))
    wide = b.vary(0.36, 0.41)
    wall = b.vary(0.19, 0.23)
    tall = b.vary(0.31, 0.36)
    for s in (-1, 1):
        b.box((0, wall, s * wide), (wide, wall, 0.045), stone, 0.008)
        b.box((s * wide, wall, 0), (0.045, wall, wide), stone, 0.008)
        for i in (-1, 1):
            b.box((s * 0.13, 2 * wall + 0.025, i * wide), (0.05, 0.045, 0.045), stone, 0.008)
            b.box((s * wide, 2 * wall + 0.025, i * 0.13), (0.045, 0.045, 0.05), stone, 0.008)
    b.box((0, tall + 0.06, -0.06), (0.17, tall + 0.06, 0.17), stone, 0.008)
    b.group()
    for s in (-1, 1):
        for i in (-1, 1):
            b.cylinder((s * wide, tall, i * wide), 0.115, tall, stone, 0.012)
            b.cone((s * wide, 2 * tall + 0.14, i * wide), 0.15, 0.008, 0.15, roof, 0.006)
    b.group()
    if pose != "base":
        b.cone((0, 2 * tall + 0.30, -0.06), 0.25, 0.008, 0.18, roof, 0.006)
    b.box((0, 0.11, wide + 0.025), (0.085, 0.12, 0.03), dark, 0.004)
    b.cylinder((0, 0.22, wide + 0.025), 0.085, 0.03, dark, 0.004, (90, 0, 0))
    for s in (-1, 1):
        b.box((s * wide, 1.45 * tall, wide + 0.108), (0.022, 0.05, 0.016), dark, 0.008)
        b.box((s * 0.07, 2 * tall - 0.04, 0.108), (0.024, 0.045, 0.012), dark, 0.008)
    if pose == "base":  # a flat roof to stand on
        y = 2 * tall + 0.12
        return Anchors((0, y, -0.06), 0.5, seat=(0, y, -0.06), wide=0.17)
    y = 2 * tall + 0.47
    b.capsule((0, y - 0.02, -0.06), (0, y + 0.16, -0.06), 0.011, 0.011, dark)
    b.box((0.075, y + 0.11, -0.06), (0.07, 0.045, 0.01), flag, 0.004)
    return Anchors((0, y - 0.01, -0.06), 0.5, seat=(0, y - 0.06, -0.06), wide=0.2)


def lighthouse(b: Builder, pose: str) -> Anchors:
    tower = b.main((0.95, 0.94, 0.92))
    red = b.material((0.80, 0.14, 0.12) if b.look.color is None else (0.95, 0.94, 0.92))
    top = b.material((0.76, 0.13, 0.12), shine=0.3)
    rock = b.material(b.jitter((0.42, 0.40, 0.38)))
    iron = b.material((0.18, 0.19, 0.21), shine=0.3)
    light = b.material((1.0, 0.88, 0.45), glow=0.9)
    low = b.vary(0.19, 0.22)
    high = 0.62 * low
    half = 0.36
    y = 0.10
    b.ellipsoid((0.02, 0.02, 0), (0.36, 0.13, 0.33), rock, k=0.03)
    b.ellipsoid((-0.17, 0.03, 0.14), (0.17, 0.11, 0.15), rock, (0, 30, 0), 0.03)
    b.group()
    b.cone((0, y + half, 0), low, high, half, tower, 0.008)
    if b.look.pattern == 0:
        b.group()
        for f in (0.17, 0.52, 0.84):
            r = low + (high - low) * f
            step = (low - high) * 0.09
            b.cone((0, y + 2 * half * f, 0), r + step + 0.005, r - step + 0.005, 0.065, red, 0.002)
    b.group()
    y += 2 * half
    b.cylinder((0, y, 0), high + 0.075, 0.018, iron, 0.008)
    b.torus((0, y + 0.075, 0), high + 0.062, 0.011, iron)
    for i in range(6):
        a = 1.047 * i
        x = (high + 0.062) * math.cos(a)
        z = (high + 0.062) * math.sin(a)
        b.capsule((x, y, z), (x, y + 0.07, z), 0.009, 0.009, iron)
    b.group()
    b.cylinder((0, y + 0.085, 0), 0.088, 0.085, light, 0.01)
    b.group()
    for i in range(4):
        a = 1.571 * i + 0.4
        x = 0.088 * math.cos(a)
        z = 0.088 * math.sin(a)
        b.capsule((x, y, z), (x, y + 0.17, z), 0.012, 0.012, iron)
    b.group()
    b.cone((0, y + 0.235, 0), 0.135, 0.02, 0.075, top, 0.012)
    b.ball((0, y + 0.32, 0), 0.03, top)
    b.box((0, 0.20, low * 0.93), (0.055, 0.09, 0.03), iron, 0.02)
    b.box((0, 0.53, high * 1.24), (0.032, 0.045, 0.03), iron, 0.012)
    return Anchors((0, y + 0.34, 0), 0.36, seat=(0, y + 0.33, 0), wide=0.12)

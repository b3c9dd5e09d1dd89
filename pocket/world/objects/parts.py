"""Parts that several recipes share."""

from pocket.world.builder import BLACK, RGB, Builder, Vec


def legs(
    b: Builder, pose: str, suit: int, boot: int, offset: float, r: float, high: float
) -> float:
    """Two legs in a pose; returns the height of the hips."""
    hips = {"sit": r * 1.1, "ride": r * 1.2}.get(pose, high)
    for s in (-1, 1):
        if pose in ("stand", "base"):
            knee, foot = (s * offset, hips * 0.5, 0.01), (s * offset, 0.08, 0.0)
        elif pose == "sit":
            knee, foot = (s * offset * 1.2, hips + 0.03, 0.20), (s * offset * 1.35, r, 0.36)
        else:  # astride
            knee = (s * (offset + 0.15), hips - 0.07, 0.13)
            foot = (s * (offset + 0.20), hips - 0.30, 0.06)
        b.limb([(s * offset, hips, 0.0), knee, foot], (r * 1.1, r, r * 0.9), suit, 0.03)
        toe = (0.0, 0.05, 0.02) if pose == "sit" else (0.0, -0.03, 0.05)
        size = (r * 0.95, r * 0.8, r * 1.35)
        center = (foot[0], foot[1] + toe[1], foot[2] + toe[2])
        b.ellipsoid(center, size, boot, (-60, 0, 0) if pose == "sit" else (0, 0, 0))
    return hips


def eyes(b: Builder, at: Vec, radius: float, facing: Vec) -> None:
    """Add white eyes with dark pupils: `at` is the one on +x, `facing` where that one looks."""
    white = b.material((0.97, 0.97, 0.95), shine=0.5, gloss=60)
    pupil = b.material(BLACK, shine=0.8, gloss=60)
    x, y, z = at
    dx, dy, dz = (0.52 * radius * d for d in facing)
    for s in (-1, 1):
        b.ball((s * x, y, z), radius, white)
        b.ball((s * (x + dx), y + dy, z + dz), 0.64 * radius, pupil)


def eyes_with_whites(b: Builder, y: float, z: float, offset: float, radius: float) -> None:
    """Add the dark eyes of `Builder.eyes`, with white rims behind them."""
    b.eyes(y, z, offset, radius)
    white = b.material((0.97, 0.97, 0.95), shine=0.5, gloss=60)
    for s in (-1, 1):
        b.ball((s * (offset - 0.3 * radius), y, z - 0.7 * radius), 1.35 * radius, white)


def natural(b: Builder, *colors: RGB) -> RGB:
    """One of the colors that a kind comes in."""
    return colors[int(b.rng.integers(len(colors)))]


def four_legs(
    b: Builder,
    pose: str,
    coat: int,
    hoof: int,
    chest: tuple[float, float],  # y and z
    long: float,
    stout: float,
    slim: float,
    offset: float,
) -> Vec:
    """Add body and legs of a four-legged animal; return the middle of its rump.

    The chest is at the same place in both poses, so that neck and head follow it.
    """
    y, z = chest
    sits = pose in ("sit", "ride")
    rump = (0.0, stout, z - 0.72 * long) if sits else (0.0, y, z - long)
    b.capsule((0, y, z), rump, stout, 1.04 * stout, coat, 0.05)
    for s in (-1, 1):
        x = s * offset
        foot = (x, 0.05, z + 0.05)
        b.capsule((x, y - 0.1, z + 0.02), foot, 1.25 * slim, 0.9 * slim, coat, 0.04)
        feet = [foot]
        if sits:
            x = s * (offset + 0.45 * stout)
            haunch = (0.55 * stout, 0.85 * stout, 1.05 * stout)
            b.ellipsoid((x, 0.85 * stout, rump[2] + 0.3 * stout), haunch, coat, k=0.04)
            feet.append((x, 0.045, rump[2] + 1.3 * stout))
        else:
            knee = (x, 0.5 * y, z - long - 0.035)
            foot = (x, 0.05, z - long + 0.01)
            hind_leg = [(x, y - 0.06, z - long + 0.02), knee, foot]
            b.limb(hind_leg, (1.6 * slim, slim, 0.85 * slim), coat, 0.04)
            feet.append(foot)
        for x, y0, z0 in feet:
            size = (1.15 * slim, 0.045, 1.5 * slim)
            b.ellipsoid((x, y0 - 0.01, z0 + 0.5 * slim), size, hoof, k=0.015)
    return rump

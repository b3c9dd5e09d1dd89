"""Words for views of an object. Angles in degrees: azimuth 0 is the front, elevation is upwards."""

VIEWS = ("front", "side", "back", "overhead")
FRONT_SIDE, SIDE_BACK = 45.0, 135.0  # borders between views, of |azimuth|
OVERHEAD = 60.0  # of elevation


def view_word(azimuth: float, elevation: float = 0.0) -> str:
    """Return the one of VIEWS that a camera has; at a border between azimuths it is "side"."""
    if elevation >= OVERHEAD:
        return "overhead"
    angle = abs((azimuth + 180) % 360 - 180)
    if angle < FRONT_SIDE:
        return "front"
    return "back" if angle > SIDE_BACK else "side"

"""Answers to the challenge of lesson 2."""

from tests.grading.mutants import changed, rewritten

EXERCISE = "2 challenge 1"
SETTING = "sd.recommended()._replace(every=3, scale=0.25)"

WRONG = [
    changed(EXERCISE, "no acceleration", SETTING, "sd.paper()"),
    changed(
        EXERCISE, "hardly any synchronization", SETTING, "Sync(weight=0.01, through='decoder')"
    ),
    rewritten(EXERCISE, "MultiDiffusion", "return sd.sample(**settings)"),
    rewritten(EXERCISE, "gray", "return 0.1 * sd.sample(**settings)"),
    rewritten(
        EXERCISE, "one color", "return sd.sample(**settings).mean((1, 2), True).expand(3, 16, 48)"
    ),
    rewritten(EXERCISE, "one window", "return sd.sample(**settings | dict(width=16))"),
]

HARMLESS = [
    changed(EXERCISE, "the recommended setting", SETTING, "sd.recommended()"),
    changed(EXERCISE, "every third step of the paper", SETTING, "sd.paper()._replace(every=3)"),
    changed(EXERCISE, "the paper's first third", SETTING, "sd.paper()._replace(until=1 / 3)"),
    rewritten(
        EXERCISE,
        "another anchor, in a copy",
        """
import copy
from types import MethodType

def synchronize_x0(self, windows, noise, alpha_bar, weight, scale):
    x_0 = predict_x0(windows, noise, alpha_bar)
    anchor = self.predict_anchor(windows[:1], noise[:1], alpha_bar, scale)
    move = self.descend(x_0, lambda x: self.decode_small(x, scale), anchor, 1e3) - x_0
    rms = move.square().mean(dim=(1, 2, 3), keepdim=True).sqrt().clamp_min(1e-12)
    return windows + alpha_bar.sqrt() * weight * move / rms

other = copy.copy(sd)
other.synchronize_x0 = MethodType(synchronize_x0, other)
sync = other.recommended()._replace(every=2, scale=0.5)
return other.sample(**settings, use_syncdiffusion=True, sync=sync)
""",
    ),
]

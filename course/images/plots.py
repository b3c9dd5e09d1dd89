"""The plots of lesson 1.2."""

import itertools
from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F


def plot_schedule(scheduler: Any, chosen: Sequence[int]) -> None:
    """Plot how much signal and how much noise each timestep has, and which ones are `chosen`."""
    import matplotlib.pyplot as plt

    alpha_bar = scheduler.alphas_cumprod
    _, axes = plt.subplots(figsize=(9, 2.6), layout="tight")
    axes.plot(alpha_bar.sqrt(), label=r"signal, $\sqrt{\bar\alpha_t}$")
    axes.plot((1 - alpha_bar).sqrt(), label=r"noise, $\sqrt{1-\bar\alpha_t}$")
    label = f"{len(chosen)} steps, {scheduler.config.timestep_spacing}"
    axes.plot(chosen, alpha_bar[list(chosen)].sqrt(), "k.", label=label)
    axes.set(xlabel="timestep t", ylim=(0, 1.05))
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    plt.show()


def plot_guidance(steps: Sequence[Any], strengths: Sequence[float]) -> None:
    """Plot the relative norm of cond - uncond at each step, and its cosine with the step before.

    `steps` are `course.diffusion.SamplingStep`s.
    """
    import matplotlib.pyplot as plt

    differences = [(step.cond - step.uncond).flatten().float() for step in steps]
    pairs = itertools.pairwise(differences)
    cosines = [F.cosine_similarity(a, b, dim=0).item() for a, b in pairs]
    times = [step.t for step in steps]
    _, (left, right) = plt.subplots(1, 2, figsize=(9, 2.6), layout="tight")
    left.plot(times, strengths, ".-")
    left.set(title="|cond - uncond| / |uncond|", ylim=(0, None))
    right.plot(times[1:], cosines, ".-")
    right.set(title="cosine with the step before", ylim=(-0.1, 1.05))
    for axes in (left, right):
        axes.set(xlabel="timestep t", xlim=(max(times) + 20, -20))
    plt.show()

"""Networks that keep the arguments of their calls, so that a check can say which one is wrong."""

from typing import Any

import torch

from course.checks.common import expect


class Recorder:
    """A network that keeps the arguments of its calls."""

    def __init__(self, network: Any) -> None:
        self.network = network
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.network, name)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        self.calls.append((arguments, options))
        return self.network(*arguments, **options)

    def expect_residuals(self) -> None:
        """Raise CheckFailed if a call got one kind of residuals and not the other."""
        names = ("down_block_additional_residuals", "mid_block_additional_residual")
        for _, options in self.calls:
            missing = [name for name in names if options.get(name) is None]
            expect(
                len(missing) != 1,
                f"The denoiser did not get {missing[0] if missing else ''}: it needs the residuals "
                "of the skips and that of the middle.",
            )

    def expect_condition(self, condition: torch.Tensor) -> None:
        """Raise CheckFailed if a ControlNet got another condition than its own."""
        for arguments, options in self.calls:
            value = options.get("controlnet_cond", arguments[3] if len(arguments) > 3 else None)
            expect(
                isinstance(value, torch.Tensor)
                and value.shape[1:] == condition.shape[1:]
                and torch.equal(value, condition.expand(len(value), -1, -1, -1)),
                "A ControlNet got another condition than that of its control: take the condition, "
                "the network and the scale of each control.",
            )

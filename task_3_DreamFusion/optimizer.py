"""Adan: Adaptive Nesterov Momentum (Xie et al. 2022, arXiv:2208.06677), the optimizer of the 3D fields."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer


class Adan(Optimizer):
    """Adan, algorithm 1 of the paper without restarts, with Adam's bias correction.

    params: parameters or groups of them. lr: step size. betas: how much of each average is kept in a step, of the
        gradient, of its change and of the squared look-ahead gradient (one minus the paper's beta). eps: added to
        the root. weight_decay: the paper's lambda, decoupled from the gradient.

    Raises ValueError for a value outside its range.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float, float] = (0.98, 0.92, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        if not lr >= 0:
            raise ValueError(f"lr is 0 or more, not {lr}")
        if len(betas) != 3 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas are three numbers in [0, 1), not {betas}")
        if not eps > 0:
            raise ValueError(f"eps is more than 0, not {eps}")
        if not weight_decay >= 0:
            raise ValueError(f"weight_decay is 0 or more, not {weight_decay}")
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One step for every parameter that has a gradient; returns what `closure` gives, called with gradients."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                self._update(group, params, [p.grad for p in params])
        return loss

    def _update(self, group: dict[str, Any], params: list[Tensor], gradients: list[Tensor]) -> None:
        states = [self.state[p] for p in params]
        for state, p, gradient in zip(states, params, gradients, strict=True):
            if not state:
                state |= {name: torch.zeros_like(p) for name in ("mean", "change", "square")}
                state |= {"before": gradient.clone(), "step": 0}  # the first change is nought
            state["step"] += 1
        means, changes, squares, before = (
            [state[name] for state in states] for name in ("mean", "change", "square", "before")
        )
        beta1, beta2, beta3 = group["betas"]
        change = torch._foreach_sub(gradients, before)
        ahead = torch._foreach_add(gradients, change, alpha=beta2)
        torch._foreach_lerp_(means, gradients, 1 - beta1)
        torch._foreach_lerp_(changes, change, 1 - beta2)
        torch._foreach_mul_(squares, beta3)
        torch._foreach_addcmul_(squares, ahead, ahead, 1 - beta3)
        torch._foreach_copy_(before, gradients)

        # Parameters may have joined at different times, so each has a correction of its own.
        fix1, fix2, fix3 = (
            [1 - beta ** state["step"] for state in states] for beta in group["betas"]
        )
        roots = torch._foreach_sqrt(squares)
        torch._foreach_div_(roots, [math.sqrt(fix) for fix in fix3])
        torch._foreach_add_(roots, group["eps"])
        steps = torch._foreach_div(means, fix1)
        torch._foreach_add_(steps, torch._foreach_mul(changes, [beta2 / fix for fix in fix2]))
        torch._foreach_addcdiv_(params, steps, roots, -group["lr"])
        torch._foreach_div_(params, 1 + group["lr"] * group["weight_decay"])

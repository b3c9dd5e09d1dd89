"""Adan: Adaptive Nesterov Momentum (Xie et al. 2022, arXiv:2208.06677), an optimizer for fields."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer


class Adan(Optimizer):
    """Adan, algorithm 1 of the paper without restarts, with Adam's bias correction.

    params: parameters or groups of them. lr: step size. betas: decay of the running averages of the
        gradient, of its change and of the squared look-ahead gradient (one minus the paper's beta).
        eps: added to the root. weight_decay: the paper's lambda, decoupled from the gradient.

    Raises ValueError for a value out of range.
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
            raise ValueError(f"lr must be at least 0, got {lr}")
        if len(betas) != 3 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas must be three numbers in [0, 1), got {betas}")
        if not eps > 0:
            raise ValueError(f"eps must be above 0, got {eps}")
        if not weight_decay >= 0:
            raise ValueError(f"weight_decay must be at least 0, got {weight_decay}")
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; return the result of `closure`, if given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                self._update(group, params, [p.grad for p in params])
        return loss

    def _update(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        states = [self.state[p] for p in params]
        for state, p, grad in zip(states, params, grads, strict=True):
            if not state:
                state |= {name: torch.zeros_like(p) for name in ("mean", "change", "square")}
                state |= {"before": grad.clone(), "step": 0}  # so that the first change is 0
            state["step"] += 1
        means, changes = ([state[name] for state in states] for name in ("mean", "change"))
        squares, before = ([state[name] for state in states] for name in ("square", "before"))
        beta1, beta2, beta3 = group["betas"]
        change = torch._foreach_sub(grads, before)
        look_ahead = torch._foreach_add(grads, change, alpha=beta2)
        torch._foreach_lerp_(means, grads, 1 - beta1)
        torch._foreach_lerp_(changes, change, 1 - beta2)
        torch._foreach_mul_(squares, beta3)
        torch._foreach_addcmul_(squares, look_ahead, look_ahead, 1 - beta3)
        torch._foreach_copy_(before, grads)

        # The number of steps may differ between parameters, and with it the bias correction.
        correction1, correction2, correction3 = (
            [1 - beta ** state["step"] for state in states] for beta in group["betas"]
        )
        roots = torch._foreach_sqrt(squares)
        torch._foreach_div_(roots, [math.sqrt(c) for c in correction3])
        torch._foreach_add_(roots, group["eps"])
        steps = torch._foreach_div(means, correction1)
        torch._foreach_add_(steps, torch._foreach_mul(changes, [beta2 / c for c in correction2]))
        torch._foreach_addcdiv_(params, steps, roots, -group["lr"])
        torch._foreach_div_(params, 1 + group["lr"] * group["weight_decay"])

"""Muon (Jordan et al. 2024): steps that are orthogonal matrices; AdamW for other parameters.

The momentum of each weight matrix is replaced by the nearest matrix with orthogonal rows or
columns, so that all directions of a layer learn at the same pace. With the scale of Liu et al.
(2025, equation 4) a step is about as long as one of AdamW, and both use one learning rate.
"""

import math

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic iteration, by Jordan et al.
ITERATIONS = 5
STEP_RMS = 0.2  # root mean square of a step at learning rate 1, about that of AdamW
# Left to AdamW: the first and last layer, as Jordan et al. advise, and the discriminator.
OUTER_LAYERS = {"conv_in", "conv_out", "critic"}


@torch.no_grad()
def orthogonalize(matrices: Tensor) -> Tensor:
    """Return matrices (N, R, C) in bfloat16 with singular values between about 0.7 and 1.2.

    By a Newton-Schulz iteration. matrices: (N, R, C), of any scale.
    """
    a, b, c = COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).bfloat16()
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT  # (N, R, R)
        x = a * x + torch.baddbmm(gram, gram, gram, beta=b, alpha=c) @ x
    return x.mT if tall else x


def as_matrix(weight: Tensor) -> Tensor:
    """View a kernel (O, I, h, w) or matrix (O, I) as a matrix with O rows, in memory order."""
    if weight.is_contiguous():
        return weight.flatten(1)
    return weight.permute(0, 2, 3, 1).flatten(1)  # channels last


def as_weight(matrix: Tensor, like: Tensor) -> Tensor:
    """Return the inverse of `as_matrix`, in the shape and memory order of `like`."""
    if like.is_contiguous():
        return matrix.view(like.shape)
    rows, inputs, height, width = like.shape
    return matrix.view(rows, height, width, inputs).permute(0, 3, 1, 2)


class Muon(torch.optim.AdamW):
    """Muon for the hidden weight matrices and kernels of a network, AdamW for its other parameters.

    Args:
        model: its parameters that require a gradient are optimized. Those in OUTER_LAYERS, norms,
            biases and embeddings are left to AdamW, without weight decay.
        lr: learning rate of both.
        weight_decay, momentum: of the matrices and kernels.
        betas: of AdamW.
    """

    def __init__(
        self,
        model: nn.Module,
        lr: float,
        weight_decay: float = 0.01,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.99),
    ) -> None:
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        inner = [p for name, p in named if p.ndim > 1 and not OUTER_LAYERS & set(name.split("."))]
        known = set(map(id, inner))
        groups = [
            {"params": inner, "muon": True, "momentum": momentum, "weight_decay": weight_decay},
            {
                "params": [p for _, p in named if id(p) not in known],
                "muon": False,
                "weight_decay": 0.0,
            },
        ]
        super().__init__([g for g in groups if g["params"]], lr=lr, betas=betas, foreach=True)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take one step along the gradients."""
        groups: list[dict] = self.param_groups
        for group in groups:
            if group["muon"]:
                self._muon_step(group)
        self.param_groups = [group for group in groups if not group["muon"]]
        try:
            super().step()
        finally:
            self.param_groups = groups

    def _muon_step(self, group: dict) -> None:
        weights = [p for p in group["params"] if p.grad is not None]
        grads = [p.grad for p in weights]
        for p in weights:
            if not self.state[p]:  # under AdamW's names, so that its state_dict fits
                self.state[p] = {"step": torch.zeros(()), "exp_avg": torch.zeros_like(p)}
        averages = [self.state[p]["exp_avg"] for p in weights]
        torch._foreach_lerp_(averages, grads, 1 - group["momentum"])
        directions = torch._foreach_lerp(grads, averages, group["momentum"])  # Nesterov's
        torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
        matrices = [as_matrix(direction) for direction in directions]
        by_shape: dict[torch.Size, list[int]] = {}
        for i, matrix in enumerate(matrices):
            by_shape.setdefault(matrix.shape, []).append(i)
        for shape, members in by_shape.items():
            steps = orthogonalize(torch.stack([matrices[i] for i in members]))
            steps = steps.to(weights[0].dtype).contiguous()
            updates = [as_weight(steps[k], directions[i]) for k, i in enumerate(members)]
            scale = group["lr"] * STEP_RMS * math.sqrt(max(shape))
            torch._foreach_add_([weights[i] for i in members], updates, alpha=-scale)

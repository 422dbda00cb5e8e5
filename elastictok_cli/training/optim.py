"""Muon for the hidden matrices, AdamW for everything else.

Muon (Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks") replaces each matrix's
momentum by the nearest orthogonal matrix, found by five Newton-Schulz steps. torch ships one from 2.9 on, for
2-D parameters only; ours are convolutions, and 2.6 must work.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from elastictok_cli.models.cell.networks import DefaultModel


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalized. Convolution weights (out, in, y, x) count as (out, in * y * x) matrices."""

    def __init__(
        self, params: list[nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.0
    ):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update from the gradients in place."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["momentum"] = torch.zeros_like(p)
                buffer = state["momentum"].lerp_(p.grad, 1 - group["momentum"])
                update = orthogonal(p.grad.lerp(buffer, group["momentum"]).flatten(1)).view_as(p)
                rows, cols = p.shape[0], p[0].numel()
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update, alpha=-group["lr"] * max(1.0, rows / cols) ** 0.5)


def orthogonal(matrix: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Approximately U V^T of the singular value decomposition U S V^T, by a quintic Newton-Schulz iteration."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix.t() if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        square = x @ x.t()
        x = a * x + (b * square + c * square @ square) @ x
    out: torch.Tensor = x.t() if matrix.shape[0] > matrix.shape[1] else x
    return out


def build(model: DefaultModel, *, lr: float) -> list[torch.optim.Optimizer]:
    """Optimizers for all parameters; every group's `base_lr` is what a schedule multiplies."""
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, p in model.named_parameters():
        starts_at_zero = name.endswith("_out.weight") or ".outof." in name
        (matrices if p.ndim == 4 and not starts_at_zero else rest).append(p)
    muon = Muon(matrices, lr=20 * lr)
    adam = torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.98), weight_decay=0.0)
    for optimizer in (muon, adam):
        for group in optimizer.param_groups:
            group["base_lr"] = group["lr"]
    return [muon, adam]

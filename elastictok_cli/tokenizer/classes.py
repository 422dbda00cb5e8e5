"""Choosing the class of a cell: with which token order would it need fewest tokens?

Classified transform coding: the encoder tries the fixed part of every class's quantizer (order and steps, networks
left aside) and counts the tokens until the error is small enough. Early tokens are tried with all classes
at once; of each cell's classes only the most promising are followed to the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import torch

_TINY = 1e-9
_EARLY = 8  # tokens tried with every class
_MISSED = 10.0  # tokens that a factor e above the goal after the last token counts for


class Orders(NamedTuple):
    """The fixed part of a nested quantizer, for C classes, R tokens and D digits."""

    coefficient: torch.Tensor  # (C, R, D) int64, which one each digit refines
    step: torch.Tensor  # (C, R, D)
    refining: torch.Tensor  # (R, D) 1, or 0 where a digit says something else
    levels: torch.Tensor  # (D,) int64
    stages: Sequence[int]  # tokens quantized together; they sum to R


def costs(
    orders: Orders,
    cells: torch.Tensor,
    energy: torch.Tensor,
    goals: torch.Tensor,
    *,
    shortlist: int | None = None,
) -> torch.Tensor:
    """Tokens that each cell needs with each class, (N, C) float.

    cells: (N, K) coefficients; energy: (N,) squared error with no token; goals: (N, T) squared errors to reach, over
    which counts are averaged. With a shortlist, only so many classes of a cell are followed to
    the end; the others cost infinity.
    """
    classes = len(orders.coefficient)
    count, size = cells.shape
    left = cells.t().repeat(classes, 1)  # (C * K, N): a coefficient is a row, which is quick to pick
    error = energy.clamp_min(_TINY).expand(classes, -1)  # (C, N)
    marks = goals.t().clamp_min(_TINY).log().unsqueeze(1)  # (T, 1, N)
    cost = torch.zeros_like(error)
    offset = size * torch.arange(classes, device=cells.device).view(-1, 1, 1)
    early = sum(end <= _EARLY for end in accumulate(orders.stages))
    first = 0
    for tokens in orders.stages[:early]:
        span = slice(first, first + tokens)
        removed = _code(left, orders.coefficient[:, span] + offset, orders.step[:, span], span, orders)
        cost, error = _advance(cost, error, removed.view(classes, count), marks, tokens)
        first += tokens
    going = error.log() > marks.amin(0)
    if shortlist is not None and shortlist < classes:
        least = error.kthvalue(shortlist, 0).values
        worse = going & (error > least)
        cost, going = cost.masked_fill(worse, float("inf")), going & ~worse
    if early < len(orders.stages):
        for c, who in enumerate(going.unbind()):
            columns = who.nonzero().squeeze(1)
            if len(columns):
                own = left[c * size : (c + 1) * size, columns]
                late = _finish(orders, c, early, first, own, error[c, columns], marks[:, 0, columns])
                cost[c].index_add_(0, columns, late)
    else:
        cost = cost + _missed(error, marks)
    return cost.t()


def _finish(
    orders: Orders,
    c: int,
    early: int,
    first: int,
    left: torch.Tensor,
    error: torch.Tensor,
    marks: torch.Tensor,
) -> torch.Tensor:
    """Further cost (N,) of the later stages with class c alone. left: (K, N), error: (N,), marks: (T, N)."""
    cost = torch.zeros_like(error)
    for tokens in orders.stages[early:]:
        span = slice(first, first + tokens)
        removed = _code(left, orders.coefficient[c : c + 1, span], orders.step[c : c + 1, span], span, orders)
        cost, error = _advance(cost, error, removed[0], marks, tokens)
        first += tokens
    return cost + _missed(error, marks)


def _code(
    left: torch.Tensor, rows: torch.Tensor, steps: torch.Tensor, span: slice, orders: Orders
) -> torch.Tensor:
    """Quantize rows (C, n, D) of `left` in place. Returns the squared error removed, (C, N)."""
    classes, tokens, _ = rows.shape
    flat = rows.flatten()
    step = steps.flatten().unsqueeze(1)
    low = -(orders.levels // 2).repeat(classes * tokens).unsqueeze(1)
    high = ((orders.levels - 1) // 2).repeat(classes * tokens).unsqueeze(1)
    refining = orders.refining[span].flatten().repeat(classes).unsqueeze(1)
    before = left.index_select(0, flat)
    value = (before / step).round_().clamp_(low, high)
    after = before.addcmul(value, step * refining, value=-1)
    left.index_copy_(0, flat, after)
    removed = before.square_() - after.square_()
    return removed.view(classes, rows.shape[1] * rows.shape[2], left.shape[1]).sum(1)


def _advance(
    cost: torch.Tensor, error: torch.Tensor, removed: torch.Tensor, marks: torch.Tensor, tokens: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Add the tokens spent until each goal, the logarithm of the error falling evenly over the stage."""
    later = (error - removed).clamp_min(_TINY)
    fall = (error / later).log().clamp_min(1e-6)
    return cost + tokens * ((error.log() - marks) / fall).clamp(0, 1).mean(0), later


def _missed(error: torch.Tensor, marks: torch.Tensor) -> torch.Tensor:
    return _MISSED * (error.log() - marks).clamp(0, 3).mean(0)

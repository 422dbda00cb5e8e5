"""Choosing the class of a cell: with which token order would it need fewest tokens?

Classified transform coding: the encoder tries the fixed part of every class's quantizer (order and steps, networks
left aside) and counts the tokens until the error is small enough. Early tokens are tried with all classes
at once; of each cell's classes only the most promising are followed to the end. What is left of a coefficient is kept
only where some digit refines it: with 40 classes, all the others would be most of the work.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import torch

_LEAST_ERROR = 1e-9
_TOKENS_OF_ALL_CLASSES = 8  # every class is tried up to here; after it only the best of a shortlist
_TOKENS_PER_MISSED_FACTOR = 10.0  # for each factor e that the error stays above the goal after the last token


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
    error = energy.clamp_min(_LEAST_ERROR).expand(classes, -1)  # (C, N)
    marks = goals.t().clamp_min(_LEAST_ERROR).log().unsqueeze(1)  # (T, 1, N)
    cost = torch.zeros_like(error)
    early = sum(end <= _TOKENS_OF_ALL_CLASSES for end in accumulate(orders.stages))
    first = 0
    slot, place = _slots(orders.coefficient[:, : sum(orders.stages[:early])].flatten(1))
    left = cells.t()[slot.flatten()]  # (C * U, N): a coefficient is a row, which is quick to pick
    place = place + len(slot[0]) * torch.arange(classes, device=cells.device).view(-1, 1)
    for tokens in orders.stages[:early]:
        span = slice(first, first + tokens)
        digits = slice(first * len(orders.levels), (first + tokens) * len(orders.levels))
        removed = _code(left, place[:, digits], orders.step[:, span].flatten(1), span, orders)
        cost, error = _advance(cost, error, removed, marks, tokens)
        first += tokens
    going = error.log() > marks.amin(0)
    if shortlist is not None and shortlist < classes:
        least = error.kthvalue(shortlist, 0).values
        worse = going & (error > least)
        cost, going = cost.masked_fill(worse, float("inf")), going & ~worse
    if early < len(orders.stages):
        c, n = going.nonzero(as_tuple=True)
        own = cells[n]  # (P, K): one row for each class of a cell that is followed
        if first:
            own.scatter_(1, slot[c], left[place[c], n[:, None]])
        late = _finish(orders, c, early, first, own, error[c, n], marks[:, 0, n])
        cost = cost.index_put((c, n), late, accumulate=True)
    else:
        cost = cost + _missed_goal(error, marks)
    return cost.t()


def _slots(coefficient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Slots for the coefficients that digits (C, U) of each class refine, one a digit: which coefficient each slot
    holds (C, U), and the slot of each digit (C, U), the first of those that hold its coefficient."""
    number = torch.arange(coefficient.shape[1], device=coefficient.device)
    same = coefficient.unsqueeze(2) == coefficient.unsqueeze(1)
    place = number.expand_as(same).masked_fill(~same, len(number)).amin(2) if len(number) else coefficient
    return coefficient, place


def _finish(
    orders: Orders,
    c: torch.Tensor,
    early: int,
    first: int,
    left: torch.Tensor,
    error: torch.Tensor,
    marks: torch.Tensor,
) -> torch.Tensor:
    """Further cost (P,) of the later stages, each row with its class c (P,).

    left: (P, K), error: (P,), marks: (T, P).
    """
    cost = torch.zeros_like(error)
    low, high = _range(orders.levels)
    for tokens in orders.stages[early:]:
        span = slice(first, first + tokens)
        where = orders.coefficient[:, span].flatten(1)[c]  # (P, n * D)
        step = orders.step[:, span].flatten(1)[c]
        before = left.gather(1, where)
        value = (before / step).round_().clamp_(low.repeat(tokens), high.repeat(tokens))
        after = before.addcmul(value, step.mul_(orders.refining[span].flatten()), value=-1)
        left.scatter_(1, where, after)
        removed = (before.square_() - after.square_()).sum(1)
        cost, error = _advance(cost, error, removed, marks, tokens)
        first += tokens
    return cost + _missed_goal(error, marks)


def _range(levels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Least and greatest digit, (D,) each."""
    return -(levels // 2), (levels - 1) // 2


def _code(
    left: torch.Tensor, rows: torch.Tensor, steps: torch.Tensor, span: slice, orders: Orders
) -> torch.Tensor:
    """Quantize rows (C, n * D) of `left` in place. Returns the squared error removed, (C, N)."""
    classes, digits = rows.shape
    low, high = (end.repeat(rows.numel() // len(end)).unsqueeze(1) for end in _range(orders.levels))
    refining = orders.refining[span].flatten().repeat(classes)
    flat, step = rows.flatten(), steps.flatten()
    before = left.index_select(0, flat)
    value = (before / step.unsqueeze(1)).round_().clamp_(low, high)
    after = before.addcmul(value, (step * refining).unsqueeze(1), value=-1)
    left.index_copy_(0, flat, after)
    removed = before.square_() - after.square_()
    return removed.view(classes, digits, left.shape[1]).sum(1)


def _advance(
    cost: torch.Tensor, error: torch.Tensor, removed: torch.Tensor, marks: torch.Tensor, tokens: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Add the tokens spent until each goal, the logarithm of the error falling evenly over the stage."""
    later = (error - removed).clamp_min(_LEAST_ERROR)
    fall = (error / later).log().clamp_min(1e-6)
    return cost + tokens * ((error.log() - marks) / fall).clamp(0, 1).mean(0), later


def _missed_goal(error: torch.Tensor, marks: torch.Tensor) -> torch.Tensor:
    """Tokens counted for errors (C, N) that stay above the goals (T, ...), the mean over goals."""
    return _TOKENS_PER_MISSED_FACTOR * (error.log() - marks).clamp(0, 3).mean(0)

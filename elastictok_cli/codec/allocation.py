"""Allocation: which cells keep how many tokens, from their error curves, before anything is decoded.

The keep maps minimize error + price * tokens, where the price is lambda of rate-distortion optimization: the squared
error that one token must save.
"""

from __future__ import annotations

import torch

from elastictok_cli.models.interface import Filled

PRICE_BISECTIONS = 24
MIN_PRICE = 1e-6  # squared error per token; below it every useful token is kept
MIN_HIGHEST_PRICE = 1e-5  # squared error per token, where no cell errs


def at_price(
    curve: torch.Tensor, length: torch.Tensor, price: torch.Tensor, weight: torch.Tensor | None = None
) -> torch.Tensor:
    """The keep map that minimizes weight * error + price * tokens in every cell.

    curve: (B, G + 1, h, w) squared error after k tokens; length: (B, h, w) most tokens a cell can keep; price: (B,)
    squared error one token must save; weight: (B, h, w), 1 everywhere if not given. Returns (B, h, w) int64. Ties go
    to fewer tokens.
    """
    number = torch.arange(curve.shape[1], device=curve.device).view(1, -1, 1, 1)
    cost = _weighted(curve, weight) + price.view(-1, 1, 1, 1) * number
    return cost.masked_fill(number > length.unsqueeze(1), float("inf")).argmin(1)


def to_target(
    curve: torch.Tensor, length: torch.Tensor, allowed: torch.Tensor, weight: torch.Tensor | None = None
) -> torch.Tensor:
    """The keep map at the highest price that leaves a summed error of at most `allowed`.

    allowed: (B,) squared error allowed over the whole block. Weights decide where errors are left; the sum is of plain
    errors. Where even all tokens leave more, every useful token is kept. Returns (B, h, w) int64.
    """
    return at_price(curve, length, price_of(curve, length, allowed, weight), weight)


def price_of(
    curve: torch.Tensor, length: torch.Tensor, allowed: torch.Tensor, weight: torch.Tensor | None = None
) -> torch.Tensor:
    """The highest price (B,) at which `at_price` leaves at most `allowed` (B,), MIN_PRICE where none does."""
    low = torch.full_like(
        allowed, MIN_PRICE
    )  # bisection of the logarithm: low keeps too much, high too little
    high = _weighted(curve[:, :1], weight).amax((1, 2, 3)).clamp_min(MIN_HIGHEST_PRICE).to(allowed.dtype)
    for _ in range(PRICE_BISECTIONS):
        price = (low * high).sqrt()
        fits = error_of(curve, at_price(curve, length, price, weight)) <= allowed
        low = torch.where(fits, price, low)
        high = torch.where(fits, high, price)
    return low


def error_of(curve: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """Summed error (B,) of a keep map (B, h, w) on its curve (B, G + 1, h, w)."""
    return curve.gather(1, keep.unsqueeze(1)).sum((1, 2, 3))


def filled_in(
    curve: torch.Tensor,
    length: torch.Tensor,
    allowed: torch.Tensor,
    filled: Filled,
    *,
    coded: torch.Tensor | None = None,
    weight: torch.Tensor | None = None,
    rounds: int = 2,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Curves of a block whose cells, without a token, are filled in from the cells that keep one.

    What a cell without a token errs by depends on which others keep one. So cells decide in four passes a round, one
    for each place in 2 x 2 cells: no two neighbours change in the same pass. The first round starts from `coded`
    (B, h, w) bool, the cells that keep a token, or from all cells. `allowed` is as in `to_target`. Returns the curves
    (B, G + 1, h, w), with the error of a cell without a token as its neighbours are at the end, and the cells that keep
    one.
    """
    rows, cols = curve.shape[-2:]
    turn = torch.arange(rows, device=curve.device).view(-1, 1) % 2 * 2
    turn = turn + torch.arange(cols, device=curve.device) % 2
    number = torch.arange(1, curve.shape[1], device=curve.device).view(1, -1, 1, 1)
    with_tokens = _weighted(curve[:, 1:], weight).masked_fill(number > length.unsqueeze(1), float("inf"))
    without = curve[:, 0].clone()
    if coded is None:
        coded = length > 0
        for n in range(4):
            without = torch.where(turn == n, filled(coded & (turn != n)), without)
    for _ in range(rounds):
        price = price_of(torch.cat([without.unsqueeze(1), curve[:, 1:]], 1), length, allowed, weight)
        cost = (with_tokens + price.view(-1, 1, 1, 1) * number).amin(1)  # (B, h, w), of the best length but 0
        for n in (0, 3, 1, 2):
            without = torch.where(turn == n, filled(coded & (turn != n)), without)
            better_with = cost < _weighted(without.unsqueeze(1), weight)[:, 0]
            coded = torch.where(turn == n, better_with, coded)
    without = torch.where(coded, without, filled(coded))
    return torch.cat([without.unsqueeze(1), curve[:, 1:]], 1), coded


def _weighted(curve: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
    return curve if weight is None else curve * weight.unsqueeze(1)

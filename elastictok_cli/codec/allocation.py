"""Which cells get how many tokens, from their error curves, before anything is decoded."""

from __future__ import annotations

import torch

from elastictok_cli.models.interface import Filled


def at_price(
    curve: torch.Tensor, length: torch.Tensor, price: torch.Tensor, weight: torch.Tensor | None = None
) -> torch.Tensor:
    """The keep map that minimizes weight * error + price * tokens in every cell.

    curve: (B, G + 1, h, w) error after k tokens; length: (B, h, w) most tokens a cell can keep; price: (B,)
    error one token must save; weight: (B, h, w), 1 everywhere if not given. Returns (B, h, w) int64. Ties go to
    fewer tokens.
    """
    number = torch.arange(curve.shape[1], device=curve.device).view(1, -1, 1, 1)
    cost = _weighted(curve, weight) + price.view(-1, 1, 1, 1) * number
    return cost.masked_fill(number > length.unsqueeze(1), float("inf")).argmin(1)


def to_target(
    curve: torch.Tensor, length: torch.Tensor, error: torch.Tensor, weight: torch.Tensor | None = None
) -> torch.Tensor:
    """The cheapest keep map of the Lagrangian family whose summed error is at most `error`.

    error: (B,) sum of squared errors allowed over the whole block; weights say where it matters, and do not count in
    the sum. Where even every token leaves more, every useful token is kept. Returns (B, h, w) int64.
    """
    return at_price(curve, length, price_of(curve, length, error, weight), weight)


def price_of(
    curve: torch.Tensor, length: torch.Tensor, error: torch.Tensor, weight: torch.Tensor | None = None
) -> torch.Tensor:
    """The price (B,) at which `at_price` leaves at most `error` (B,); next to nothing where no price does."""
    low = torch.full_like(error, 1e-6)  # log-price bisection: low keeps too much, high too little
    high = _weighted(curve[:, :1], weight).amax((1, 2, 3)).clamp_min(1e-5).to(error.dtype)
    for _ in range(24):
        price = (low * high).sqrt()
        fits = taken(curve, at_price(curve, length, price, weight)) <= error
        low = torch.where(fits, price, low)
        high = torch.where(fits, high, price)
    return low


def taken(curve: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """Summed error (B,) of a keep map (B, h, w) on its curve (B, G + 1, h, w)."""
    return curve.gather(1, keep.unsqueeze(1)).sum((1, 2, 3))


def filled_in(
    curve: torch.Tensor,
    length: torch.Tensor,
    error: torch.Tensor,
    filled: Filled,
    *,
    told: torch.Tensor | None = None,
    weight: torch.Tensor | None = None,
    rounds: int = 2,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Curves for cells that, without a token, are filled in from those that keep one: who keeps one decides what
    that costs the others.

    Starts with `told` (B, h, w) bool, or with every cell, and lets each decide anew, once a round, while its neighbours
    stand still. Returns the curves (B, G + 1, h, w), error without a token included, and who keeps
    a token. What a cell that does would cost without it is told for its neighbours as they are.
    """
    rows, cols = curve.shape[-2:]
    turn = torch.arange(rows, device=curve.device).view(-1, 1) % 2 * 2
    turn = turn + torch.arange(cols, device=curve.device) % 2
    number = torch.arange(1, curve.shape[1], device=curve.device).view(1, -1, 1, 1)
    some = _weighted(curve[:, 1:], weight).masked_fill(number > length.unsqueeze(1), float("inf"))
    without = curve[:, 0].clone()
    if told is None:
        told = length > 0
        for n in range(4):
            without = torch.where(turn == n, filled(told & (turn != n)), without)
    for _ in range(rounds):
        price = price_of(torch.cat([without.unsqueeze(1), curve[:, 1:]], 1), length, error, weight)
        least = (some + price.view(-1, 1, 1, 1) * number).amin(1)
        for n in (0, 3, 1, 2):
            without = torch.where(turn == n, filled(told & (turn != n)), without)
            wants = least < _weighted(without.unsqueeze(1), weight)[:, 0]
            told = torch.where(turn == n, wants, told)
    without = torch.where(told, without, filled(told))
    return torch.cat([without.unsqueeze(1), curve[:, 1:]], 1), told


def _weighted(curve: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
    return curve if weight is None else curve * weight.unsqueeze(1)

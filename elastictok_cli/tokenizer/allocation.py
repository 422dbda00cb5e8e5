"""Which cells get how many tokens, from their error curves, before anything is decoded."""

from __future__ import annotations

import torch


def at_price(curve: torch.Tensor, length: torch.Tensor, price: torch.Tensor) -> torch.Tensor:
    """The keep map that minimizes error + price * tokens in every cell.

    curve: (B, G + 1, h, w) error after k tokens; length: (B, h, w) most tokens a cell can keep; price: (B,)
    error one token must save. Returns (B, h, w) int64. Ties go to fewer tokens.
    """
    number = torch.arange(curve.shape[1], device=curve.device).view(1, -1, 1, 1)
    cost = curve + price.view(-1, 1, 1, 1) * number
    return cost.masked_fill(number > length.unsqueeze(1), float("inf")).argmin(1)


def to_target(curve: torch.Tensor, length: torch.Tensor, error: torch.Tensor) -> torch.Tensor:
    """The cheapest keep map of the Lagrangian family whose summed error is at most `error`.

    error: (B,) sum of squared errors allowed over the whole block. Where even every token leaves
    more, every useful token is kept. Returns (B, h, w) int64.
    """
    return at_price(curve, length, price_of(curve, length, error))


def price_of(curve: torch.Tensor, length: torch.Tensor, error: torch.Tensor) -> torch.Tensor:
    """The price (B,) at which `at_price` leaves at most `error` (B,); next to nothing where no price does."""
    low = torch.full_like(error, 1e-6)  # log-price bisection: low keeps too much, high too little
    high = curve[:, 0].amax((1, 2)).clamp_min(1e-5).to(error.dtype)
    for _ in range(24):
        price = (low * high).sqrt()
        fits = taken(curve, at_price(curve, length, price)) <= error
        low = torch.where(fits, price, low)
        high = torch.where(fits, high, price)
    return low


def taken(curve: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """Summed error (B,) of a keep map (B, h, w) on its curve (B, G + 1, h, w)."""
    return curve.gather(1, keep.unsqueeze(1)).sum((1, 2, 3))

"""Which cells a screen mode can pay for, from cheap estimates of what the modes cost, before any is searched.

The estimates lean to the cheap side: what they rule out would hardly ever be chosen. A DCT stream has at least a symbol
for each coefficient that it does not leave as it is. A palette has at least the symbols of the labels that the brighter
and the darker half of the pixels would have, or those of the pixels that are not copied.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from elastictok_cli.models.cell.screen import dct, palette, symbols
from elastictok_cli.models.cell.screen.palette_search import Cells

_ENDS = 2  # symbols of each stream: its first one and the last
_MODE_TOKENS = 1  # that name a mode
_FEWEST_COLOURS, _FEWEST_COPY_COLOURS = 2, 1
_MIN_SURPLUS = (
    1.1  # times the least that pulses and errors cost: what streams cost at least, runs and later pulses too
)
_USUAL_SURPLUS = 1.15  # times the least cost: what streams usually cost
_COPY_LIMIT = 0.5  # times the goal of a pixel: up to this squared error it counts as copied


class Outlook(NamedTuple):
    """What can pay for n cells."""

    stream: torch.Tensor  # (n,) bool
    palette: torch.Tensor  # (n,) bool
    stream_cost: torch.Tensor  # (n,) the usual cost of a DCT stream at the first price


def look_out(cells: Cells, prices: torch.Tensor, bars: torch.Tensor, *, inter: bool) -> Outlook:
    """prices: (K,) lambdas to look at; bars: (K, n) the cost that a mode has to stay below at each; inter: whether
    pixels of the reference can be worth a copy."""
    energy = dct.transform(cells.patches - cells.reference).square_()
    symbol = prices / symbols.PER_CODE
    least = torch.stack([energy.clamp_max(each).sum(1) for each in symbol])  # (K, n)
    surely = (_MODE_TOKENS + _ENDS / symbols.PER_CODE) * prices.unsqueeze(1)
    stream = (_MIN_SURPLUS * least + surely < bars).any(0)

    real, known = cells.patches[:, : cells.real_frames], cells.reference[:, : cells.real_frames]
    brightness = real.mean(2)
    labels = (brightness > brightness.mean((1, 2, 3), keepdim=True)).long()
    codes = _MODE_TOKENS + 1 + _FEWEST_COLOURS + _mispredicted(labels) / symbols.PER_CODE
    cost = prices.unsqueeze(1) * codes
    if inter:
        away = (real - known).square().sum(2)
        copied = away <= _COPY_LIMIT * 3 * cells.goal / cells.patches[0].numel()
        scale = cells.patches.shape[1] / cells.real_frames
        error = scale * (away * copied).sum((1, 2, 3))
        codes = _mispredicted((1 + labels).masked_fill(copied, 0)) / symbols.PER_CODE
        codes = codes + _MODE_TOKENS + 1 + _FEWEST_COPY_COLOURS
        cost = torch.minimum(cost, error + prices.unsqueeze(1) * codes)
    return Outlook(stream, (cost < bars).any(0), _USUAL_SURPLUS * least[0] + surely[0])


def _mispredicted(labels: torch.Tensor) -> torch.Tensor:
    """How many pixels of each cell have other labels (n, T, 16, 16) than are predicted, (n,)."""
    return (labels != palette.predict(labels)).sum((1, 2, 3))

"""Camera pans: the change of one cell's motion vector is also applied to cells that send no vector.

A cell's change is the motion vector that it sends, minus the one that it inherited from the block before. A cell that
sends a pan after its motion vector adds its change to the inherited vectors of other cells, which saves them a token
each where a camera pans or turns. Where several cells send a pan, near ones count more (inverse distance weighting,
Shepard, 1968), so that a few describe a zoom or a turn. A pan's scope is every cell, or those that move already (a
caption stays in its place).

Changes of up to 1 pixel per frame are treated as sway, which comes back: they apply to this block only. Larger ones are
also inherited by the next block.

Decoders on all devices have to agree, so all of this is in whole sixteenths of a pixel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F

CellErrors = Callable[
    [torch.Tensor], torch.Tensor
]  # motion vectors (N, 2, h, w) to errors of cells (N, h, w)

EVERYTHING, MOVING = 0, 1
SCOPES = (EVERYTHING, MOVING)
_UNITS_PER_PIXEL = 16
_MAX_SPEED = 24 * _UNITS_PER_PIXEL  # the largest of the table of motion vectors
_MAX_SWAY = 1 * _UNITS_PER_PIXEL  # changes of at most so much hold for one block
_WEIGHT_AT_DISTANCE_0 = 1 << 20
_VALUES_AT_ONCE = 1 << 20  # pans times cells worked on together: bounds memory where every cell sends a pan
_MAX_PANS = 4  # in a block
_CHANGES_TRIED = 3  # for each pan
_BINS_PER_PIXEL = 2  # of the histogram of changes
_MAX_BIN = 48  # on each side of zero; what changes by more, as only whole vectors do, counts as this
_MIN_CELLS = 3  # that would send a motion vector; with fewer no pan is tried
_PAN_TOKENS = 2.0  # a motion vector and the pan
_MAX_GAIN_TOKENS = 3.0  # in the histogram no cell counts for more, in prices of a token


class Panned(NamedTuple):
    """What pans make of inherited motion vectors, in pixels per frame."""

    vectors: torch.Tensor  # (B, 2, h, w) in force where a cell sends none
    lasting: torch.Tensor  # (B, 2, h, w) that these cells inherit in the next block


def follow(inherited: torch.Tensor, sent: torch.Tensor, pan: torch.Tensor) -> Panned:
    """Change inherited motion vectors by the pans of a block.

    inherited: (B, 2, h, w) multiples of 1/16; sent: (B, 2, h, w) motion vectors, read where a cell sends a pan; pan:
    (B, h, w) int64, 0 where a cell sends none, else 1 + its scope.
    """
    places = (pan > 0).nonzero(as_tuple=True)
    if not len(places[0]):
        return Panned(inherited, inherited)
    before = (inherited * _UNITS_PER_PIXEL).round().to(torch.int64)
    after = (sent * _UNITS_PER_PIXEL).round().to(torch.int64)
    moving = (before != 0).any(1)
    weights = torch.zeros_like(before[:, :1])
    change, lasting = torch.zeros_like(before), torch.zeros_like(before)
    rows = torch.arange(before.shape[2], device=before.device).view(-1, 1)
    columns = torch.arange(before.shape[3], device=before.device)
    at_once = max(1, _VALUES_AT_ONCE // pan[0].numel())
    for item, row, column in zip(*(torch.split(x, at_once) for x in places), strict=True):  # n pans each
        own = after[item, :, row, column] - before[item, :, row, column]  # (n, 2)
        y, x = row.view(-1, 1, 1), column.view(-1, 1, 1)
        weight = _WEIGHT_AT_DISTANCE_0 // (1 + (rows - y) ** 2 + (columns - x) ** 2)  # (n, h, w)
        in_scope = moving[item] | (pan[item, row, column] != 1 + MOVING).view(-1, 1, 1)
        weight = (weight.clamp_min(1) * in_scope).unsqueeze(1)
        by = weight * own[..., None, None]
        lasts = (own.abs().amax(1) > _MAX_SWAY).view(-1, 1, 1, 1)
        weights.index_add_(0, item, weight)
        change.index_add_(0, item, by)
        lasting.index_add_(0, item, by * lasts)
    total = weights.clamp_min(1)
    # whole vectors are faster than any of the table
    sent_ones = torch.where((pan > 0).unsqueeze(1), after, 0)
    most = torch.maximum(before.abs(), sent_ones.abs()).amax((1, 2, 3), keepdim=True).clamp_min(_MAX_SPEED)

    def changed(by: torch.Tensor) -> torch.Tensor:
        mean = (2 * by + total).div(2 * total, rounding_mode="floor")  # rounded
        return (before + mean).clamp(-most, most).to(inherited.dtype) / _UNITS_PER_PIXEL

    return Panned(changed(change), changed(lasting))


class Tried(NamedTuple):
    """Squared errors (h, w) of the cells of one picture."""

    inherited: torch.Tensor  # with the motion vectors they inherit
    found: torch.Tensor  # with the best ones that the search found


def choose(
    inherited: torch.Tensor,
    found: torch.Tensor,
    errors: Tried,
    token_price: float,
    max_error_left: float,
    estimate: CellErrors,
) -> torch.Tensor:
    """The pans of one picture, (h, w) int64 as `follow` reads them: one after the other, the one that lowers the
    cost of all cells most.

    inherited, found: (2, h, w) motion vectors, the latter from the table; token_price: squared error that a token
    must save; max_error_left: see `sends`; estimate: squared errors of cells with other motion vectors.
    """
    height, width = errors.found.shape
    pan = torch.zeros(height, width, dtype=torch.int64, device=found.device)
    error, vectors = errors.inherited, inherited
    cost = float(costs(error, errors.found, token_price, max_error_left).sum())
    moving = (inherited != 0).any(0)
    scopes_differ = bool(moving.any()) and not bool(moving.all())
    scopes = SCOPES if scopes_differ else (EVERYTHING,)
    codes = torch.tensor([1 + scope for scope in scopes], device=found.device).view(1, -1, 1, 1)
    for _ in range(_MAX_PANS):
        sending = sends(error, errors.found, token_price, max_error_left) & (pan == 0)
        gain = (error - errors.found).clamp_max(_MAX_GAIN_TOKENS * token_price)
        places = _candidates(found - vectors, sending, gain)
        if not len(places):
            break
        here = F.one_hot(places, height * width).view(-1, 1, height, width)
        tries = torch.where(here > 0, codes, pan).flatten(0, 1)  # a scope after the other for each place
        before, sent = (x.expand(len(tries), -1, -1, -1) for x in (inherited, found))
        panned = follow(before, sent, tries).vectors
        after = estimate(panned)
        each = costs(after, errors.found, token_price, max_error_left).sum((1, 2)) + _PAN_TOKENS * token_price
        best = int(each.argmin())
        if float(each[best]) >= cost:
            break
        cost, error = float(each[best]), after[best]
        pan, vectors = tries[best], panned[best]
    return pan


def sends(
    error: torch.Tensor, found: torch.Tensor, token_price: torch.Tensor | float, max_error_left: float
) -> torch.Tensor:
    """Whether cells send the motion vector that the search found for them.

    They do if it removes more than `token_price` of their squared error, and leaves less than the share
    `max_error_left` of it.
    """
    return (error - found > token_price) & (found < max_error_left * error)


def costs(
    error: torch.Tensor, found: torch.Tensor, token_price: float, max_error_left: float
) -> torch.Tensor:
    """What cells cost: the squared error that is left, and the price of a motion vector that is sent."""
    return torch.where(sends(error, found, token_price, max_error_left), found + token_price, error)


def _candidates(change: torch.Tensor, sending: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
    """Cells (n,) int64, numbered row by row, that stand for the commonest changes (2, h, w) among those that send,
    weighted by gain."""
    counted = sending & (change != 0).any(0)
    side = 2 * _MAX_BIN + 1
    at = (change * _BINS_PER_PIXEL).round().clamp(-_MAX_BIN, _MAX_BIN).to(torch.int64) + _MAX_BIN
    number = at[0] * side + at[1]
    histogram = torch.zeros(side * side, device=change.device)
    histogram.index_add_(0, number.flatten(), torch.where(counted, gain, 0).flatten())
    histogram = F.avg_pool2d(histogram.view(1, 1, side, side), 3, 1, 1)
    centres = histogram.flatten().topk(_CHANGES_TRIED).indices
    middle = torch.stack([centres // side, centres % side], 1)[..., None, None]  # (n, 2, 1, 1)
    near = counted & ((at - middle).abs() <= 1).all(1)  # (n, h, w)
    enough = (near.flatten(1).sum(1) >= _MIN_CELLS - 1) & (counted.sum() >= _MIN_CELLS)
    away = (change * _BINS_PER_PIXEL + _MAX_BIN - middle).abs().sum(1)
    return torch.where(near, away, torch.inf).flatten(1).argmin(1)[enough]


def estimator(
    mean_errors: CellErrors, inherited: torch.Tensor, error: torch.Tensor, cell_values: int
) -> CellErrors:
    """A function that estimates squared errors of cells with other motion vectors from luma alone.

    mean_errors: from `block_matching.luma_errors`; inherited: (2, h, w); error: (h, w) squared error of each cell
    with those; cell_values: how many values a cell has.
    """
    base = mean_errors(inherited[None])[0]
    return lambda vectors: (error + cell_values * (mean_errors(vectors) - base)).clamp_min(0)

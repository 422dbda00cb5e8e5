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
]  # motion vectors (B, N, 2, h, w) to errors of cells (B, N, h, w)

EVERYTHING, MOVING = 0, 1
SCOPES = (EVERYTHING, MOVING)
_UNITS_PER_PIXEL = 16
_MAX_SPEED = 24 * _UNITS_PER_PIXEL  # the largest of the table of motion vectors
_MAX_SWAY = 1 * _UNITS_PER_PIXEL  # changes of at most so much hold for one block
_WEIGHT_AT_DISTANCE_0 = 1 << 20
_VALUES_AT_ONCE = 1 << 20  # pans times cells worked on together: bounds memory where every cell sends a pan
MAX_PANS = 3  # in a block
_CHANGES_TRIED = 3  # for each pan
_BINS_PER_PIXEL = 2  # of the histogram of changes
_MAX_BIN = 96  # on each side of zero: the largest whole vector changes by 48 pixels
MIN_CELLS = 3  # that would send a motion vector; with fewer no pan is tried
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
    # whole vectors are faster than any of the table
    sent_ones = torch.where((pan > 0).unsqueeze(1), after, 0)
    most = torch.maximum(before.abs(), sent_ones.abs()).amax((1, 2, 3), keepdim=True).clamp_min(_MAX_SPEED)

    sums = _Sums(weights, change, lasting, most)
    return Panned(*(_changed(before, by, sums).to(inherited.dtype) for by in (change, lasting)))


class Tried(NamedTuple):
    """Squared errors (B, h, w) of cells."""

    inherited: torch.Tensor  # with the motion vectors they inherit
    found: torch.Tensor  # with the best ones that the search found


def choose(
    inherited: torch.Tensor,
    found: torch.Tensor,
    errors: Tried,
    token_price: torch.Tensor,
    max_error_left: float,
    estimate: CellErrors,
    allowed: torch.Tensor | None = None,
) -> tuple[torch.Tensor, Panned]:
    """The pans of each picture, (B, h, w) int64 as `follow` reads them, and what they make of the inherited vectors.

    One pan after the other is added, each time the one that lowers the cost of all cells of its picture most.
    inherited, found: (B, 2, h, w) motion vectors, the latter from the table; token_price: (B, 1, 1) squared error that
    a token must save; max_error_left: see `sends`; estimate: squared errors of cells with other motion vectors;
    allowed: (B,) bool pictures that may have pans, all if it is None. Nothing here waits for the device.
    """
    batch, height, width = errors.found.shape
    old, own = ((x * _UNITS_PER_PIXEL).round().to(torch.int64) for x in (inherited, found))
    sums = _Sums.of_none(old)
    pan = torch.zeros(batch, height, width, dtype=torch.int64, device=found.device)
    error, vectors = errors.inherited, inherited
    cost = costs(error, errors.found, token_price, max_error_left).sum((1, 2))
    codes = 1 + torch.tensor(SCOPES, device=found.device).repeat(_CHANGES_TRIED)
    cell_numbers = torch.arange(height * width, device=found.device).view(height, width)
    item = torch.arange(batch, device=found.device)
    for _ in range(MAX_PANS):
        sending = sends(error, errors.found, token_price, max_error_left) & (pan == 0)
        gain = (error - errors.found).minimum(_MAX_GAIN_TOKENS * token_price)
        places, enough = _candidates(found - vectors, sending, gain)
        if allowed is not None:
            enough = enough & allowed.unsqueeze(1)
        places, enough = (
            x.repeat_interleave(len(SCOPES), 1) for x in (places, enough)
        )  # (B, n), scopes side by side
        tries = sums.with_one_more(old, own, places, codes)
        panned = _changed(old.unsqueeze(1), tries.change, tries).to(inherited.dtype)  # (B, n, 2, h, w)
        after = estimate(panned)
        prices, founds = token_price.unsqueeze(1), errors.found.unsqueeze(1)
        each = costs(after, founds, prices, max_error_left).sum((2, 3)).masked_fill(~enough, torch.inf)
        least, best = (each + _PAN_TOKENS * token_price[:, 0]).min(1)
        better = least < cost
        cost = torch.where(better, least, cost)

        error, vectors, *new_sums = (
            torch.where(better.view(-1, *(1,) * (was.ndim - 1)), tried[item, best], was)
            for tried, was in zip((after, panned, *tries), (error, vectors, *sums), strict=True)
        )
        sums = _Sums(*new_sums)
        here = (cell_numbers == places[item, best].view(-1, 1, 1)) & better.view(-1, 1, 1)
        pan = torch.where(here, codes[best].view(-1, 1, 1), pan)
    return pan, Panned(vectors, _changed(old, sums.lasting, sums).to(inherited.dtype))


class _Sums(NamedTuple):
    """The sums that `follow` makes of the pans of a block, in sixteenths of a pixel; (B, n, ...) where several pans are
    tried."""

    weights: torch.Tensor  # (B, 1, h, w) int64
    change: torch.Tensor  # (B, 2, h, w) int64
    lasting: torch.Tensor  # (B, 2, h, w) int64
    most: torch.Tensor  # (B, 1, 1, 1) int64: no vector becomes faster

    @classmethod
    def of_none(cls, before: torch.Tensor) -> _Sums:
        """before: (B, 2, h, w) int64 inherited motion vectors."""
        nothing = torch.zeros_like(before)
        most = before.abs().amax((1, 2, 3), keepdim=True).clamp_min(_MAX_SPEED)
        return cls(nothing[:, :1], nothing, nothing, most)

    def with_one_more(
        self, before: torch.Tensor, after: torch.Tensor, places: torch.Tensor, codes: torch.Tensor
    ) -> _Sums:
        """The sums (B, n, ...) with one pan more, from cells (B, n), numbered row by row, with n codes.

        before, after: (B, 2, h, w) int64 motion vectors that cells inherit and send.
        """
        height, width = before.shape[-2:]
        rows = torch.arange(height, device=places.device).view(-1, 1)
        columns = torch.arange(width, device=places.device)
        y, x = (places // width)[..., None, None], (places % width)[..., None, None]
        weight = _WEIGHT_AT_DISTANCE_0 // (1 + (rows - y) ** 2 + (columns - x) ** 2)  # (B, n, h, w)
        in_scope = (before != 0).any(1).unsqueeze(1) | (codes != 1 + MOVING).view(-1, 1, 1)
        weight = (weight.clamp_min(1) * in_scope).unsqueeze(2)
        pairs = places.unsqueeze(1).expand(-1, 2, -1)
        old, sent = (v.flatten(2).gather(2, pairs).transpose(1, 2) for v in (before, after))  # (B, n, 2)
        own = sent - old
        by = weight * own[..., None, None]
        lasts = (own.abs().amax(2) > _MAX_SWAY)[..., None, None, None]
        weights, change, lasting, most = (x.unsqueeze(1) for x in self)
        fastest = sent.abs().amax(2)[..., None, None, None]
        return _Sums(weights + weight, change + by, lasting + by * lasts, most.maximum(fastest))


def _changed(before: torch.Tensor, by: torch.Tensor, sums: _Sums) -> torch.Tensor:
    """Motion vectors in pixels: those before and the weighted mean of changes, both of them in whole sixteenths."""
    total = sums.weights.clamp_min(1)
    mean = (2 * by + total).div(2 * total, rounding_mode="floor")
    return (before + mean).clamp(-sums.most, sums.most).to(torch.float32) / _UNITS_PER_PIXEL


def sends(
    error: torch.Tensor, found: torch.Tensor, token_price: torch.Tensor | float, max_error_left: float
) -> torch.Tensor:
    """Whether cells send the motion vector that the search found for them.

    They do if it removes more than `token_price` of their squared error, and leaves less than the share
    `max_error_left` of it.
    """
    return (error - found > token_price) & (found < max_error_left * error)


def costs(
    error: torch.Tensor, found: torch.Tensor, token_price: torch.Tensor, max_error_left: float
) -> torch.Tensor:
    """What cells cost: the squared error that is left, and the price of a motion vector that is sent."""
    return torch.where(sends(error, found, token_price, max_error_left), found + token_price, error)


def _candidates(
    change: torch.Tensor, sending: torch.Tensor, gain: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cells (B, n) int64, numbered row by row, that stand for the commonest changes (B, 2, h, w) among those that send,
    weighted by gain; and whether so many cells change alike that a pan may pay, (B, n) bool."""
    counted = sending & (change != 0).any(1)
    side = 2 * _MAX_BIN + 1
    scaled = change * _BINS_PER_PIXEL + _MAX_BIN
    at = scaled.round().clamp(0, 2 * _MAX_BIN)
    number = (at[:, 0] * side + at[:, 1]).flatten(1).to(torch.int64)
    histogram = change.new_zeros(len(change), side * side)
    histogram.scatter_add_(1, number, torch.where(counted, gain, 0).flatten(1))
    histogram = F.avg_pool2d(histogram.view(-1, 1, side, side), 3, 1, 1)
    centres = histogram.flatten(1).topk(_CHANGES_TRIED).indices
    middle = torch.stack([centres // side, centres % side], 2)[..., None, None]  # (B, n, 2, 1, 1)
    away = (at.unsqueeze(1) - middle).abs().amax(2)
    near = counted.unsqueeze(1) & (away <= 1)  # (B, n, h, w)
    enough = (near.flatten(2).sum(2) >= MIN_CELLS - 1) & (counted.flatten(1).sum(1) >= MIN_CELLS).unsqueeze(1)
    away = (scaled.unsqueeze(1) - middle).abs().sum(2)
    return torch.where(near, away, torch.inf).flatten(2).argmin(2), enough


def estimator(mean_errors: CellErrors, inherited: torch.Tensor, error: torch.Tensor) -> CellErrors:
    """A function that estimates errors of cells with other motion vectors, from rougher ones.

    mean_errors: from `block_matching.errors_by_vectors`; inherited: (B, 2, h, w); error: (B, h, w) of cells with those.
    """
    base = mean_errors(inherited.unsqueeze(1))
    return lambda vectors: (error.unsqueeze(1) + mean_errors(vectors) - base).clamp_min(0)

"""Allocation: which cells keep how many tokens, from their error curves, before anything is decoded.

The keep maps minimize error + price * tokens, where the price is lambda of rate-distortion optimization: the squared
error that one token must save. At every price a cell keeps a vertex of the lower convex hull of its curve. So all it
takes is what each token saves on its cell's hull, and the price is found by selection among these numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F

from elastictok_cli.models.interface import Filled

MIN_PRICE = 1e-6  # squared error per token; a token that saves less is not kept
MIN_HIGHEST_PRICE = 1e-5  # squared error per token, where no cell errs
_LONG = 128  # tokens; hulls of longer curves, as screen modes have, are found in two steps
_WINDOW = 48  # tokens on each side that the first of them compares
_VALUES_AT_ONCE = 1 << 20  # slopes worked out together: bounds memory
_JUST_BELOW = 1 - 1e-6  # times the price of a token: the cell that saves just this price by it keeps it
_BIN_BITS = 16  # of a price, in each of the two passes that select it
_BINS = 1 << _BIN_BITS
_LARGEST = 0x7F7FFFFF  # the bits of the largest float32
ROUNDS = 2  # in which all cells decide whether they are filled in, until few change


class Allocated(NamedTuple):
    """A keep map and its lambda."""

    keep: torch.Tensor  # (B, h, w) int64
    price: torch.Tensor  # (B,) squared error that the last token saves, by weight


class Hull(NamedTuple):
    """The lower convex hulls of the curves of cells."""

    saved: torch.Tensor  # (B, G, h, w) what each token saves, never more than the one before
    least: torch.Tensor  # (B, h, w) the error that all of them leave

    def scaled(self, ratio: torch.Tensor) -> Hull:
        """The hulls of curves that are so many times (B, h, w) as high."""
        return Hull(self.saved * ratio.unsqueeze(1), self.least * ratio)


def hull(curve: torch.Tensor, length: torch.Tensor) -> Hull:
    """The hulls of curves (B, G + 1, h, w), the squared error after k tokens.

    length: (B, h, w) most tokens a cell can keep. A token that no price makes a cell keep saves 0.
    """
    batch, points, rows, columns = curve.shape
    number = torch.arange(points, device=curve.device).view(1, -1, 1)
    errors = curve.flatten(2).masked_fill(number > length.flatten(1).unsqueeze(1), torch.inf)
    errors = errors.cummin(1).values  # more tokens never are worse: a cell can keep fewer
    place = number.to(errors.dtype)
    least = errors[:, -1].view(batch, rows, columns)
    if points <= _LONG + 1:
        return Hull(_slopes(errors, place).view(batch, -1, rows, columns), least)
    vertex = _near_hull(errors, place)
    rank = vertex.cumsum(1)
    most = int(rank[:, -1].max())
    # the lengths that are left, one after another; where a cell has fewer, its last one again
    order = torch.searchsorted(
        rank.transpose(1, 2).contiguous(),
        torch.arange(1, most + 1, device=curve.device).expand(batch, rank.shape[2], -1).contiguous(),
    )
    order = order.clamp_max(points - 1).transpose(1, 2)
    some = _slopes(errors.gather(1, order), place.expand_as(errors).gather(1, order))
    # the tokens between two lengths save the same
    saved = some.gather(1, (rank[:, :-1] - 1).clamp(0, most - 2))
    return Hull(saved.view(batch, -1, rows, columns), least)


def _slopes(errors: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """What a token saves between each two of P points of a curve, (B, P - 1, N), on their lower convex hull.

    errors: (B, P, N), never increasing; place: (B or 1, P, N or 1) tokens. The steepest way down from a point to any
    later one bounds what all later tokens save.
    """
    return _steepest(errors, place, errors.shape[1] - 1).cummin(1).values


def _near_hull(errors: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """The points (B, P, N) bool that may be on the hull: those above no chord of points near them, and both ends."""
    ahead = _steepest(errors, place, _WINDOW)[:, 1:]
    # the gentlest way down to a point is, from there back, the one that rises least
    behind = -_steepest(errors.flip(1), -place.flip(1), _WINDOW).flip(1)[:, :-1]
    return F.pad(ahead < behind, (0, 0, 1, 1), value=True)


def _steepest(errors: torch.Tensor, place: torch.Tensor, reach: int) -> torch.Tensor:
    """The most that a token saves from each of P points but the last to one of the `reach` after it, (B, P - 1, N)."""
    batch, points, cells = errors.shape
    steepest = errors.new_full((batch, points - 1, cells), -torch.inf)
    at_once = max(1, _VALUES_AT_ONCE // errors.numel())
    for first in range(1, min(reach, points - 1) + 1, at_once):
        # from each point to those `first` and more after it; what would be beyond the last point is the last one
        count, rows = min(at_once, reach + 1 - first), points - first
        ends, end_places = (_windows(x[:, first:], count) for x in (errors, place))
        apart = (end_places - place[:, None, :rows]).clamp_min(1)
        most = ((errors[:, None, :rows] - ends) / apart).amax(1)
        torch.maximum(steepest[:, :rows], most, out=steepest[:, :rows])
    return steepest


def _windows(x: torch.Tensor, count: int) -> torch.Tensor:
    """(B, P, N) to (B, count, P, N): moved up by 0, 1, ... `count` - 1 points, the last one repeated."""
    padded = torch.cat([x, x[:, -1:].expand(-1, count - 1, -1)], 1)
    return padded.unfold(1, x.shape[1], 1).transpose(2, 3)


def to_target(
    curve: torch.Tensor, length: torch.Tensor, allowed: torch.Tensor, weight: torch.Tensor | None = None
) -> torch.Tensor:
    """The keep map at the highest price that leaves a summed error of at most `allowed`.

    allowed: (B,) squared error allowed over the whole block; weight: (B, h, w), 1 everywhere if not given. Weights
    decide where errors are left; the sum is of plain errors. Where even all tokens leave more, every useful token is
    kept. Returns (B, h, w) int64.
    """
    return allocate(curve[:, 0], hull(curve, length), allowed, weight).keep


def allocate(
    without: torch.Tensor, hulls: Hull, allowed: torch.Tensor, weight: torch.Tensor | None = None
) -> Allocated:
    """The keep map at the highest price that leaves a summed error of at most `allowed`, as `to_target`.

    without: (B, h, w) squared error without a token. Where no token is needed, the price is the most that a cell errs.
    """
    saved = hulls.saved if weight is None else hulls.saved * weight.unsqueeze(1)
    # Floats that are not negative have the order of their bits. So the upper half of a price's bits is selected first,
    # then the lower half, each by what tokens save in all that are not worth a price: from the lowest on up, as a cell
    # that must keep a token errs by so much without it that others are lost in the sum.
    bits = saved.flatten(1).view(torch.int32)
    amount = hulls.saved.flatten(1).double()
    spare = (allowed - hulls.least.flatten(1).sum(1, dtype=torch.float64)).unsqueeze(1)
    upper, spare = _select(bits >> _BIN_BITS, amount, spare)
    lower, _ = _select(bits & (_BINS - 1), amount * ((bits >> _BIN_BITS) == upper), spare)
    price = ((upper << _BIN_BITS) | lower.clamp_max(_BINS - 1)).clamp_max(_LARGEST).to(torch.int32)
    price = price.view(torch.float32).squeeze(1).clamp_min(MIN_PRICE)
    needless = upper.squeeze(1) == _BINS
    highest = without if weight is None else without * weight
    keep = ((saved >= price.view(-1, 1, 1, 1)) & ~needless.view(-1, 1, 1, 1)).sum(1)
    return Allocated(keep, torch.where(needless, highest.amax((1, 2)).clamp_min(MIN_HIGHEST_PRICE), price))


def at_price(
    without: torch.Tensor, hulls: Hull, price: torch.Tensor, weight: torch.Tensor | None = None
) -> Allocated:
    """The keep map in which every token saves at least `price` (B,), by weight. The others are as in `allocate`."""
    saved = hulls.saved if weight is None else hulls.saved * weight.unsqueeze(1)
    return Allocated((saved >= price.clamp_min(MIN_PRICE).view(-1, 1, 1, 1)).sum(1), price)


def _select(
    number: torch.Tensor, amount: torch.Tensor, spare: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The least number (B, 1) with which, and with all smaller ones, amounts (B, N) sum up to more than `spare`
    (B, 1), and what the smaller ones leave of it. number: (B, N) int of 16 bits; 65,536 where they never do."""
    sums = amount.new_zeros(len(amount), _BINS).scatter_add_(1, number.long(), amount).cumsum(1)
    place = torch.searchsorted(sums, spare, right=True)
    smaller = F.pad(sums, (1, 0)).gather(1, place)
    return place, spare - smaller


def error_of(curve: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """Summed error (B,) of a keep map (B, h, w) on its curve (B, G + 1, h, w)."""
    return curve.gather(1, keep.unsqueeze(1)).sum((1, 2, 3))


# Which tokens are kept of the errors (B, h, w) without a token and the hulls: `allocate` or `at_price`, given its goal.
Allocate = Callable[[torch.Tensor, Hull], Allocated]


def within(allowed: torch.Tensor, weight: torch.Tensor | None = None) -> Allocate:
    """`allocate` for a summed error of at most `allowed` (B,)."""
    return lambda without, hulls: allocate(without, hulls, allowed, weight)


class FilledIn(NamedTuple):
    """What a block is allocated from if its cells, without a token, are filled in from the cells that keep one."""

    without: torch.Tensor  # (B, h, w) error of a cell without a token, as its neighbours are at the end
    hulls: Hull
    coded: torch.Tensor  # (B, h, w) bool: cells that keep a token


def filled_in(
    curve: torch.Tensor,
    length: torch.Tensor,
    allocated: Allocate,
    filled: Filled,
    *,
    later: Hull | None = None,
    weight: torch.Tensor | None = None,
    start: FilledIn | None = None,
    rounds: int = ROUNDS,
) -> FilledIn:
    """Find which cells of a block keep no token and are filled in from those that keep one.

    What a cell without a token errs by depends on which others keep one. So cells decide in four passes a round, one
    for each place in 2 x 2 cells: no two neighbours change in the same pass. The first round goes on from
    `start`, or else from a token in all cells.
    curve and length are as in `to_target`; what `curve` says of no token is not read. allocated: what the price of a
    round is found by. later: `hull_after_first(curve, length)`, if it is known. weight: as in `to_target`.
    """
    if later is None:
        later = hull_after_first(curve, length)
    place = _places(curve)
    number, with_tokens = _tokens(curve, length)
    weighted = with_tokens if weight is None else with_tokens * weight.unsqueeze(1)
    if start is not None:
        without, _, coded = start
    else:
        coded = length > 0
        # nothing changes from place to place: they are rows of one batch
        each = filled((coded & ~place.unsqueeze(1)).flatten(0, 1)).view(4, *coded.shape)
        without = (each * place.unsqueeze(1)).sum(0)
    for number_of_round in range(rounds):
        hulls = _with_first(without, with_tokens, later, number)
        price = _JUST_BELOW * allocated(without, hulls).price
        cost = (weighted + price.view(-1, 1, 1, 1) * number).amin(1)  # (B, h, w), of the best length but 0
        for turn, mine in enumerate(place):
            if turn or number_of_round or start is not None:  # else it is known already
                without = torch.where(mine, filled(coded & ~mine), without)
            better_with = cost < (without if weight is None else without * weight)
            coded = torch.where(mine, better_with, coded)
    without = torch.where(coded, without, filled(coded))
    return FilledIn(without, _with_first(without, with_tokens, later, number), coded)


def _places(curve: torch.Tensor) -> torch.Tensor:
    """Which cells (4, h, w) bool of curves (B, G + 1, h, w) have each place in 2 x 2 cells, diagonal ones in turn."""
    rows, columns = curve.shape[-2:]
    row = torch.arange(rows, device=curve.device).view(-1, 1) % 2
    place = row + 2 * ((row + torch.arange(columns, device=curve.device)) % 2)
    return place == torch.arange(4, device=curve.device).view(-1, 1, 1)


def _tokens(curve: torch.Tensor, length: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The numbers of tokens (1, G, 1, 1), 1 to G, and the errors (B, G, h, w) that they leave: infinite where a cell
    does not have them."""
    number = torch.arange(1, curve.shape[1], device=curve.device).view(1, -1, 1, 1)
    return number, curve[:, 1:].masked_fill(number > length.unsqueeze(1), torch.inf)


def hull_after_first(curve: torch.Tensor, length: torch.Tensor) -> Hull:
    """The hulls, saved (B, G - 1, h, w), of curves from the first token on, which every cell keeps."""
    return hull(curve[:, 1:], (length - 1).clamp_min(0))


def _with_first(without: torch.Tensor, with_tokens: torch.Tensor, later: Hull, number: torch.Tensor) -> Hull:
    """The hulls of whole curves, from the error (B, h, w) without a token and the hulls after the first.

    with_tokens: (B, G, h, w), infinite for tokens that a cell does not have; number: (1, G, 1, 1), 1 to G.
    """
    steepest = ((without.unsqueeze(1) - with_tokens) / number).amax(1, keepdim=True).clamp_min(0)
    # no later token saves more than the steepest way down from the beginning
    saved = torch.cat([steepest, torch.minimum(later.saved, steepest)], 1)
    return Hull(saved, torch.minimum(without, with_tokens.amin(1)))

"""Leaders: cells whose velocity says how that of others changes.

Where a camera pans or shakes, velocities change alike in many cells, and a token for each of them is dear. A cell that
sends its velocity may lead: by how much it differs from the velocity it inherited, those that send none change too.
Of several leaders, near ones count more, as in inverse distance weighting (Shepard, 1968), so that a few describe a
zoom or a turn. A leader's scope is every cell, or those that move already (a caption stays in its place).

Small changes are taken for sway, which comes back, and hold for one block; larger ones last.

Decoders on all devices have to agree, so all of this is in whole sixteenths of a pixel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F

Errors = Callable[[torch.Tensor], torch.Tensor]  # velocities (N, 2, h, w) to errors of cells (N, h, w)

EVERYTHING, MOVING = 0, 1
SCOPES = (EVERYTHING, MOVING)
_UNIT = 16  # parts of a pixel
_MOST = 24 * _UNIT  # no velocity grows beyond the table's
_SWAY = 1 * _UNIT  # changes of at most so much hold for one block
_NEAREST = 1 << 20  # weight of a leader in its own cell
_LEADERS = 4  # of a block at most
_CANDIDATES = 3  # changes considered for each
_PITCH = 2  # by which changes are sorted: half pixels
_REACH = 48  # in these: no two velocities differ by more
_FELLOWS = 3  # cells that would send a velocity, below which none leads
_EXTRA = 2.0  # tokens that a leader takes
_CLEAR = 3.0  # times what a velocity must gain: no cell's gain counts for more where changes are sorted


class Followed(NamedTuple):
    """What leaders make of inherited velocities, in pixels per frame."""

    velocity: torch.Tensor  # (B, 2, h, w) in force where none is sent
    lasting: torch.Tensor  # (B, 2, h, w) with which these cells go on in the next block


def follow(inherited: torch.Tensor, velocity: torch.Tensor, leading: torch.Tensor) -> Followed:
    """Change velocities as leaders say.

    inherited: (B, 2, h, w) multiples of 1/16; velocity: (B, 2, h, w) sent ones, read where cells lead; leading:
    (B, h, w) int64, 0 where a cell does not lead, else 1 + its scope.
    """
    if not bool((leading > 0).any()):
        return Followed(inherited, inherited)
    before = (inherited * _UNIT).round().to(torch.int64)
    sent = (velocity * _UNIT).round().to(torch.int64)
    moving = (before != 0).any(1)
    weights = torch.zeros_like(before[:, :1])
    change, lasting = torch.zeros_like(before), torch.zeros_like(before)
    rows = torch.arange(before.shape[2], device=before.device).view(-1, 1)
    columns = torch.arange(before.shape[3], device=before.device)
    for item, row, column in (leading > 0).nonzero().tolist():
        own = sent[item, :, row, column] - before[item, :, row, column]
        away = (rows - row) ** 2 + (columns - column) ** 2
        weight = (_NEAREST // (1 + away)).clamp_min(1)
        if int(leading[item, row, column]) - 1 == MOVING:
            weight = weight * moving[item]
        weights[item, 0] += weight
        change[item] += weight * own.view(2, 1, 1)
        if int(own.abs().max()) > _SWAY:
            lasting[item] += weight * own.view(2, 1, 1)
    total = weights.clamp_min(1)

    def changed(by: torch.Tensor) -> torch.Tensor:
        mean = (2 * by + total).div(2 * total, rounding_mode="floor")  # rounded
        return (before + mean).clamp(-_MOST, _MOST).to(inherited.dtype) / _UNIT

    return Followed(changed(change), changed(lasting))


class Tried(NamedTuple):
    """Errors (h, w) of one picture's cells: squared, and of whole cells."""

    inherited: torch.Tensor  # with the velocities they inherit
    found: torch.Tensor  # with the best ones found


def choose(
    inherited: torch.Tensor,  # (2, h, w)
    found: torch.Tensor,  # (2, h, w) table velocities
    errors: Tried,
    toll: float,  # squared error that a velocity must save to be sent
    least: float,  # share of its error that a cell may at most have left with a velocity, to send it
    estimate: Errors,
) -> torch.Tensor:
    """The leaders of one picture, (h, w) int64 as `follow` reads them: those by which, one after the other, the cost
    of all cells falls most. `estimate` says what cells err by."""
    height, width = errors.found.shape
    leading = torch.zeros(height, width, dtype=torch.int64, device=found.device)
    error, velocity = errors.inherited, inherited
    cost = float(costs(error, errors.found, toll, least).sum())
    moving = (inherited != 0).any(0)
    scopes = (
        SCOPES if bool(moving.any()) and not bool(moving.all()) else (EVERYTHING,)
    )  # else they are the same
    for _ in range(_LEADERS):
        sending = sends(error, errors.found, toll, least) & (leading == 0)
        places = _candidates(found - velocity, sending, (error - errors.found).clamp_max(_CLEAR * toll))
        if not places:
            break
        tries = []
        for row, column in places:
            for scope in scopes:
                more = leading.clone()
                more[row, column] = 1 + scope
                tries.append(more)
        before, sent = (x.expand(len(tries), -1, -1, -1) for x in (inherited, found))
        moved = follow(before, sent, torch.stack(tries)).velocity
        after = estimate(moved)
        each = costs(after, errors.found, toll, least).sum((1, 2)) + _EXTRA * toll
        best = int(each.argmin())
        if float(each[best]) >= cost:
            break
        cost, error = float(each[best]), after[best]
        leading, velocity = tries[best], moved[best]
    return leading


def sends(error: torch.Tensor, found: torch.Tensor, toll: torch.Tensor | float, least: float) -> torch.Tensor:
    """Whether cells send the velocity found for them: where it saves more than `toll` of their error, and leaves less
    than `least` times it."""
    return (error - found > toll) & (found < least * error)


def costs(error: torch.Tensor, found: torch.Tensor, toll: float, least: float) -> torch.Tensor:
    """What cells cost: the error that is left, and `toll` for a velocity that is sent."""
    return torch.where(sends(error, found, toll, least), found + toll, error)


def _candidates(change: torch.Tensor, sending: torch.Tensor, gain: torch.Tensor) -> list[tuple[int, int]]:
    """Cells (row, column) that stand for the commonest changes (2, h, w) of the cells that send, weighed by gains."""
    picked = sending & (change != 0).any(0)
    if int(picked.sum()) < _FELLOWS:
        return []
    side = 2 * _REACH + 1
    at = (change * _PITCH).round().clamp(-_REACH, _REACH).to(torch.int64) + _REACH
    number = at[0] * side + at[1]
    counts = torch.zeros(side * side, device=change.device).index_add_(0, number[picked], gain[picked])
    counts = F.avg_pool2d(counts.view(1, 1, side, side), 3, 1, 1)[0, 0]
    places = []
    for centre in counts.flatten().topk(_CANDIDATES).indices.tolist():
        middle = torch.tensor(divmod(centre, side), device=change.device).view(2, 1, 1)
        near = picked & ((at - middle).abs() <= 1).all(0)
        if int(near.sum()) < _FELLOWS - 1:
            continue
        away = (change * _PITCH + _REACH - middle).abs().sum(0)
        places.append(divmod(int(torch.where(near, away, torch.inf).argmin()), change.shape[2]))
    return places


def estimator(
    mean_errors: Errors,
    inherited: torch.Tensor,  # (2, h, w)
    error: torch.Tensor,  # (h, w) squared error of cells with these
    pixels: int,  # values of a cell
) -> Errors:
    """Squared errors of cells with other velocities, as far as luma shows them: `mean_errors` is what
    `motion.luma_errors` gives."""
    base = mean_errors(inherited[None])[0]
    return lambda velocity: (error + pixels * (mean_errors(velocity) - base)).clamp_min(0)

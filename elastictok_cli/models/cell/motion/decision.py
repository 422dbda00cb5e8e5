"""Motion decision: which cells send a motion vector, which of them a camera pan or the camera shake."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F

from elastictok_cli.models.cell.context import Context
from elastictok_cli.models.cell.motion import block_matching, vectors
from elastictok_cli.models.cell.motion import camera_pan as leaders
from elastictok_cli.models.cell.motion import camera_shake as global_motion
from elastictok_cli.models.cell.networks import DefaultModel
from elastictok_cli.models.cell.transform import cell_energy

_BIT = 0.08  # of what a velocity must gain to be sent: what one bit of it must save
_LESS = 0.9  # share of its error that a cell may at most have left with a velocity, to send it
_DOUBTFUL = 0.03  # bits by which global motion must lower errors of cells to be considered


class Motion(NamedTuple):
    """What `choose_motion` found."""

    velocity: torch.Tensor  # (B, 2, h, w) in force
    sent: torch.Tensor  # (B, h, w) bool
    leading: torch.Tensor  # (B, h, w) int64, as `leaders.follow` reads it: cells that send and lead
    lasting: torch.Tensor  # (B, 2, h, w) with which the next block begins
    moved: torch.Tensor  # (B, 4, 3, H, W)
    followed: torch.Tensor  # (B, h, w) squared error of cells if they send none
    cost: torch.Tensor  # (B,) what all of it is expected to cost, as squared error
    telling: torch.Tensor  # (B, h, w) bool: the cell that sends, and says global motion
    path: torch.Tensor | None = None  # (B, count, 2) global motion in pixels, None where there is none at all
    codes: torch.Tensor | None = None  # (B, count) int64 that say it

    @property
    def still(self) -> torch.Tensor:
        """(B, h, w) bool: cells that do not move."""
        return stands_still(self.velocity, self.path)


def stands_still(velocity: torch.Tensor, path: torch.Tensor | None) -> torch.Tensor:
    """(B, h, w) bool: cells whose velocity (B, 2, h, w) is zero, in pictures without global motion (B, T, 2)."""
    still = (velocity == 0).all(1)
    return still if path is None else still & (path == 0).all(2).all(1).view(-1, 1, 1)


def choose_motion(
    model: DefaultModel,
    frames: torch.Tensor,
    context: Context,
    threshold: torch.Tensor | float,
    count: int,
    lead: bool = True,
) -> Motion:
    """Search velocities and decide which cells send one; where `lead` and the model allow it, also which of them
    lead, and whether one says global motion.

    A cell sends its velocity when that lowers its prediction error by more than `threshold` (MSE, a float or (B, 1,
    1)) and by a tenth.
    """
    search = _MotionSearch(model, frames, context, threshold, count, lead)
    enough = search.wanting.flatten(1).sum(1) > count + 1  # that many tokens it takes
    if not (lead and model.config.global_motion and bool(enough.any())):
        return search.find()
    path, gain = global_motion.estimate(
        context.frame, frames[:, :count], context.velocity, model.config.cell, threshold
    )
    codes, path = global_motion.to_codes(path)
    gain = gain.masked_fill((path == 0).all(2).all(1) | ~enough, 0.0)
    if bool((gain < _DOUBTFUL).all()):
        return search.find()
    shaken = search.find(path, codes)
    plain = search.find()
    better = (gain >= _DOUBTFUL) & (shaken.cost < plain.cost)
    if not bool(better.any()):
        return plain
    if bool(better.all()):
        return shaken
    nowhere = torch.full_like(codes, global_motion.NOWHERE)
    other = plain._replace(path=torch.zeros_like(path), codes=nowhere)
    return Motion(*(_where(better, a, b) for a, b in zip(shaken, other, strict=True)))


def _where(pick: torch.Tensor, one: torch.Tensor | None, other: torch.Tensor | None) -> torch.Tensor:
    """Of each item of a batch one or the other; pick: (B,) bool."""
    assert one is not None
    assert other is not None
    return torch.where(pick.view(-1, *(1,) * (one.ndim - 1)), one, other)


class _MotionSearch:
    """How cells of some pictures may move, all of them along a path or not."""

    def __init__(
        self,
        model: DefaultModel,
        frames: torch.Tensor,  # (B, 4, 3, H, W)
        context: Context,
        threshold: torch.Tensor | float,  # MSE
        count: int,
        lead: bool,
    ) -> None:
        self.model, self.frames, self.context, self.count = model, frames, context, count
        self.threshold = torch.as_tensor(threshold, device=frames.device).view(-1, 1, 1)
        self.pixels = 3 * model.config.frames * model.config.cell**2
        self.lead = lead and model.config.leaders
        self.inherited = model.moved(context, context.velocity, count)
        self.error = self._errors(self.inherited)
        self.toll = (self.threshold * self.pixels).expand_as(self.error[:, :1, :1])  # (B, 1, 1)
        self.wanting = self.error > self.toll  # a velocity could gain nothing elsewhere

    def find(self, path: torch.Tensor | None = None, codes: torch.Tensor | None = None) -> Motion:
        """What is cheapest along a path (B, count, 2), which `codes` say."""
        model, context, count = self.model, self.context, self.count
        inherited, moved, error, wanting = context.velocity, self.inherited, self.error, self.wanting
        if path is not None:
            moved = model.moved(context, inherited, count, path)
            error = self._errors(moved)
            wanting = error > self.toll
        leading = torch.zeros_like(error, dtype=torch.int64)
        telling = torch.zeros_like(wanting)
        if path is None and not bool(wanting.any()):
            cost = _expected(error, self.toll).sum((1, 2))
            return Motion(inherited, telling, leading, inherited, moved, error, cost, telling)
        cell = model.config.cell
        if bool(wanting.any()):
            price = _BIT * self.threshold
            real = self.frames[:, :count]
            found = block_matching.search(context.frame, real, inherited, cell, wanting, price, path)
        else:
            found = vectors.in_table(inherited)
        found_moved = model.moved_again(moved, inherited, context, found, count, path)
        found_error = self._errors(found_moved)
        followed = leaders.Followed(inherited, inherited)
        if self.lead:
            leading = self._leading(found, error, found_error, path)
            followed = leaders.follow(inherited, found, leading)
            moved = model.moved_again(moved, inherited, context, followed.velocity, count, path)
            error = self._errors(moved)
        sent = leaders.sends(error, found_error, self.toll, _LESS) | (leading > 0)
        if path is not None:
            telling = _first_best(sent, leading == 0)
            sent = sent | telling
        wide = sent.repeat_interleave(cell, -2).repeat_interleave(cell, -1)[:, None, None]
        tokens = sent.sum((1, 2)) + (leading > 0).sum((1, 2)) + telling.sum((1, 2)) * (count + 1)
        cost = _expected(torch.where(sent, found_error, error), self.toll).sum((1, 2))
        cost = cost + self.toll.flatten() * tokens
        if path is not None:
            cost = cost.masked_fill(~telling.flatten(1).any(1), torch.inf)  # nobody can say it
        return Motion(
            torch.where(sent.unsqueeze(1), found, followed.velocity),
            sent,
            leading,
            torch.where((sent & (leading == 0)).unsqueeze(1), found, followed.lasting),
            torch.where(wide, found_moved, moved),
            error,
            cost,
            telling,
            path,
            codes,
        )

    def _leading(
        self, found: torch.Tensor, error: torch.Tensor, found_error: torch.Tensor, path: torch.Tensor | None
    ) -> torch.Tensor:
        """Who leads, (B, h, w) int64."""
        c, each = self.model.config, []
        for n, inherited in enumerate(self.context.velocity):
            one = slice(n, n + 1)
            along = None if path is None else path[one]
            errors = block_matching.luma_errors(
                self.context.frame[one], self.frames[one, : self.count], c.cell, c.interpolation, along
            )
            estimate = leaders.estimator(errors, inherited, error[n], self.pixels)
            tried = leaders.Tried(error[n], found_error[n])
            each.append(leaders.choose(inherited, found[n], tried, float(self.toll[n]), _LESS, estimate))
        return torch.stack(each)

    def _errors(self, moved: torch.Tensor) -> torch.Tensor:
        return cell_energy(self.frames - moved, self.model.config.cell)


def _expected(error: torch.Tensor, toll: torch.Tensor) -> torch.Tensor:
    """What cells' squared errors are expected to cost in the end: tokens, each worth `toll`, go with the logarithm of
    what is much."""
    return torch.where(error < toll, error, toll * (1 + torch.log((error / toll).clamp_min(1))))


def _first_best(good: torch.Tensor, possible: torch.Tensor) -> torch.Tensor:
    """In each picture (B, h, w) one cell, a good one if there is any, of those that are possible."""
    rank = (possible.int() + (possible & good).int()).flatten(1)
    best = F.one_hot(rank.argmax(1), rank.shape[1]).bool()
    return best.view_as(good) & possible

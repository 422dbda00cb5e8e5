"""Motion decision: which cells send a motion vector, which of them a camera pan, and whether one sends the shake."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F

from elastictok_cli.models.cell.config import DefaultConfig
from elastictok_cli.models.cell.context import Context
from elastictok_cli.models.cell.motion import block_matching, camera_pan, camera_shake, vectors, whole_search
from elastictok_cli.models.cell.motion.compensation import compensate
from elastictok_cli.models.cell.selection import Selection
from elastictok_cli.models.cell.transform import cell_energy

_BIT_PRICE = (
    0.08  # error that one bit of a motion vector must save, as a share of what a whole token must save
)
_MAX_ERROR_LEFT = 0.9  # a motion vector is sent only if it removes at least 10 % of the cell's error
_TOKENS_OF_WHOLE = 2  # of a whole vector
_MIN_SHAKE_GAIN_BITS = (
    0.03  # a shake is tried only if it lowers the log2 of cells' errors by as much on average
)


class Motion(NamedTuple):
    """What `choose_motion` decided."""

    vectors: torch.Tensor  # (B, 2, h, w) motion vectors in force
    sent: torch.Tensor  # (B, h, w) bool: cells that send theirs
    pan: torch.Tensor  # (B, h, w) int64: 0, or 1 + the scope of the camera pan that the cell sends
    lasting: torch.Tensor  # (B, 2, h, w) motion vectors with which the next block begins
    moved: torch.Tensor  # (B, 4, 3, H, W) the reference moved along all of it
    unsent_error: torch.Tensor  # (B, h, w) squared error of each cell if it sends no motion vector
    cost: torch.Tensor  # (B,) expected cost of the block: squared errors, and tokens at their price
    sends_shake: torch.Tensor  # (B, h, w) bool: the cell that sends the camera shake
    whole: torch.Tensor  # (B, h, w) bool: cells whose motion vector is a whole one, outside the table
    shake: torch.Tensor | None = None  # (B, count, 2) displacement of the whole picture in pixels; None: none
    shake_codes: torch.Tensor | None = None  # (B, count) int64 of it

    @property
    def still(self) -> torch.Tensor:
        """(B, h, w) bool: cells that do not move."""
        return stands_still(self.vectors, self.shake)


def stands_still(motion_vectors: torch.Tensor, shake: torch.Tensor | None) -> torch.Tensor:
    """Cells whose motion vector (B, 2, h, w) is zero, in pictures without a camera shake (B, T, 2): (B, h, w) bool."""
    still = (motion_vectors == 0).all(1)
    return still if shake is None else still & (shake == 0).all(2).all(1).view(-1, 1, 1)


def choose_motion(
    config: DefaultConfig,
    frames: torch.Tensor,
    context: Context,
    threshold: torch.Tensor | float,
    count: int,
    *,
    camera: bool = True,
    whole: bool = False,
) -> Motion:
    """Search motion vectors and decide which cells send one.

    A cell sends its motion vector if that lowers its prediction error by more than `threshold` (MSE, a float or
    (B, 1, 1)), which is the price of a token, and by at least 10 %. With `camera`, and if the model knows them,
    cells may also send camera pans and a camera shake. With `whole`, and in pictures that have screen cells,
    they may also send whole vectors. frames: (B, 4, 3, H, W), of which `count` are real.
    """
    decision = _Decision(config, frames, context, threshold, count, camera, whole)
    shake_tokens = count + 1
    worth_it = decision.improvable.flatten(1).sum(1) > shake_tokens
    if not (camera and config.camera_shake and bool(worth_it.any())):
        return decision.decide()
    shake, gain = camera_shake.estimate(
        context.frame, frames[:, :count], context.vectors, config.cell, threshold
    )
    codes, shake = camera_shake.to_codes(shake)
    gain = gain.masked_fill((shake == 0).all(2).all(1) | ~worth_it, 0.0)
    if bool((gain < _MIN_SHAKE_GAIN_BITS).all()):
        return decision.decide()
    with_shake = decision.decide(shake, codes)
    without = decision.decide()
    better = (gain >= _MIN_SHAKE_GAIN_BITS) & (with_shake.cost < without.cost)
    if not bool(better.any()):
        return without
    if bool(better.all()):
        return with_shake
    no_shake = torch.full_like(codes, camera_shake.NO_STEP)
    without = without._replace(shake=torch.zeros_like(shake), shake_codes=no_shake)
    return Motion(*(_where(better, a, b) for a, b in zip(with_shake, without, strict=True)))


def _where(pick: torch.Tensor, one: torch.Tensor | None, other: torch.Tensor | None) -> torch.Tensor:
    """Of each item of a batch one or the other; pick: (B,) bool."""
    assert one is not None
    assert other is not None
    return torch.where(pick.view(-1, *(1,) * (one.ndim - 1)), one, other)


class _Decision:
    """The motion decision of one block, with and without a camera shake."""

    def __init__(
        self,
        config: DefaultConfig,
        frames: torch.Tensor,  # (B, 4, 3, H, W)
        context: Context,
        threshold: torch.Tensor | float,  # MSE
        count: int,
        camera: bool,
        whole: bool,
    ) -> None:
        self.config, self.frames, self.context, self.count = config, frames, context, count
        self.whole = whole and context.screen is not None
        self.threshold = torch.as_tensor(threshold, device=frames.device).view(-1, 1, 1)
        self.cell_values = 3 * config.frames * config.cell**2
        self.pan = camera and config.camera_pan
        self.inherited = self._compensate(context.vectors)
        self.error = self._errors(self.inherited)
        # squared error that a token must save, (B, 1, 1)
        self.token_price = (self.threshold * self.cell_values).expand_as(self.error[:, :1, :1])
        self.improvable = self.error > self.token_price  # in other cells no motion vector could save enough

    def decide(self, shake: torch.Tensor | None = None, codes: torch.Tensor | None = None) -> Motion:
        """The cheapest motion vectors and pans under a camera shake (B, count, 2) with these codes, or under none."""
        context, count, price = self.context, self.count, self.token_price
        inherited, moved, error, improvable = context.vectors, self.inherited, self.error, self.improvable
        if shake is not None:
            moved = self._compensate(inherited, shake)
            error = self._errors(moved)
            improvable = error > price
        pan = torch.zeros_like(error, dtype=torch.int64)
        sends_shake = torch.zeros_like(improvable)
        if shake is None and not bool(improvable.any()):
            cost = _expected(error, price).sum((1, 2))
            none = sends_shake
            return Motion(inherited, none, pan, inherited, moved, error, cost, sends_shake, whole=none)
        cell = self.config.cell
        if bool(improvable.any()):
            bit_price = _BIT_PRICE * self.threshold
            real = self.frames[:, :count]
            found = block_matching.search(context.frame, real, inherited, cell, improvable, bit_price, shake)
        else:
            found = vectors.in_table(inherited)
        found_moved = self._compensate(found, shake, (moved, inherited))
        found_error = self._errors(found_moved)
        whole = torch.zeros_like(improvable)
        if self.whole and shake is None:
            found, found_moved, found_error, whole = self._try_whole(
                found, found_moved, found_error, improvable
            )
        panned = camera_pan.Panned(inherited, inherited)
        if self.pan:
            pan = self._choose_pans(found, error, found_error, shake)
            panned = camera_pan.follow(inherited, found, pan)
            moved = self._compensate(panned.vectors, shake, (moved, inherited))
            error = self._errors(moved)
        sent = camera_pan.sends(error, found_error, price, _MAX_ERROR_LEFT) | (pan > 0)
        saves_both_tokens = error - found_error > _TOKENS_OF_WHOLE * price
        sent = sent & (~whole | saves_both_tokens) | (pan > 0)
        if shake is not None:
            sends_shake = _first_best(sent, pan == 0)
            sent = sent | sends_shake
        wide = sent.repeat_interleave(cell, -2).repeat_interleave(cell, -1)[:, None, None]
        tokens = sent.sum((1, 2)) + (pan > 0).sum((1, 2)) + sends_shake.sum((1, 2)) * (count + 1)
        cost = _expected(torch.where(sent, found_error, error), price).sum((1, 2))
        cost = cost + price.flatten() * tokens
        if shake is not None:
            cost = cost.masked_fill(~sends_shake.flatten(1).any(1), torch.inf)  # no cell is free to send it
        return Motion(
            torch.where(sent.unsqueeze(1), found, panned.vectors),
            sent,
            pan,
            torch.where((sent & (pan == 0)).unsqueeze(1), found, panned.lasting),
            torch.where(wide, found_moved, moved),
            error,
            cost,
            sends_shake,
            whole & sent,
            shake,
            codes,
        )

    def _try_whole(
        self,
        found: torch.Tensor,
        found_moved: torch.Tensor,
        found_error: torch.Tensor,
        improvable: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Motion vectors, what they make of the reference, its errors, and which are whole: where these are better.

        A cell with a whole vector of the table sends it as one of the table. Others are taken only where they save the
        price of a token more than the best of the table.
        """
        whole = torch.zeros_like(improvable)
        assert self.context.screen is not None
        # of each picture by itself, whatever is coded beside it
        has_screen_cells = self.context.screen.flatten(1).any(1).view(-1, 1, 1)
        cells = Selection(improvable & has_screen_cells & (found_error > 0.5 * self.token_price))
        if not cells.count:
            return found, found_moved, found_error, whole
        real = self.frames[:, : self.count]
        best = whole_search.search(self.context.frame, real, found, cells, self.config.cell)
        tried = found.clone()
        tried[cells.picture, :, cells.row, cells.column] = best.to(found.dtype)
        moved = self._compensate(tried, None, (found_moved, found))
        error = self._errors(moved)
        known = (vectors.in_table(tried) == tried).all(1)
        better = error < torch.where(known, found_error, found_error - self.token_price)
        whole = better & ~known
        wide = better.repeat_interleave(self.config.cell, -2).repeat_interleave(self.config.cell, -1)
        return (
            torch.where(better.unsqueeze(1), tried, found),
            torch.where(wide[:, None, None], moved, found_moved),
            torch.where(better, error, found_error),
            whole,
        )

    def _choose_pans(
        self, found: torch.Tensor, error: torch.Tensor, found_error: torch.Tensor, shake: torch.Tensor | None
    ) -> torch.Tensor:
        """The camera pans of each picture, (B, h, w) int64."""
        c, each = self.config, []
        for n, inherited in enumerate(self.context.vectors):
            one = slice(n, n + 1)
            own_shake = None if shake is None else shake[one]
            errors = block_matching.luma_errors(
                self.context.frame[one], self.frames[one, : self.count], c.cell, c.interpolation, own_shake
            )
            estimate = camera_pan.estimator(errors, inherited, error[n], self.cell_values)
            tried = camera_pan.Tried(error[n], found_error[n])
            price = float(self.token_price[n])
            each.append(camera_pan.choose(inherited, found[n], tried, price, _MAX_ERROR_LEFT, estimate))
        return torch.stack(each)

    def _compensate(
        self,
        motion_vectors: torch.Tensor,
        shake: torch.Tensor | None = None,
        known: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        c = self.config
        return compensate(
            self.context.frame,
            motion_vectors,
            self.count,
            frames=c.frames,
            interpolation=c.interpolation,
            shake=shake,
            known=known,
        )

    def _errors(self, moved: torch.Tensor) -> torch.Tensor:
        return cell_energy(self.frames - moved, self.config.cell)


def _expected(error: torch.Tensor, token_price: torch.Tensor) -> torch.Tensor:
    """The cost, as squared error, that a cell with this prediction error will have once its residual is coded.

    Above the price of a token, the number of tokens grows with the logarithm of the error.
    """
    tokens = 1 + torch.log((error / token_price).clamp_min(1))
    return torch.where(error < token_price, error, token_price * tokens)


def _first_best(good: torch.Tensor, possible: torch.Tensor) -> torch.Tensor:
    """In each picture (B, h, w) one of the possible cells, a good one if there is any."""
    rank = (possible.int() + (possible & good).int()).flatten(1)
    best = F.one_hot(rank.argmax(1), rank.shape[1]).bool()
    return best.view_as(good) & possible

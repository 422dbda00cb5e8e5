"""Motion decision: which cells send a motion vector, which of them a camera pan, and whether one sends the shake."""

from __future__ import annotations

from typing import NamedTuple

import torch

from elastictok_cli.models.cell.config import DefaultConfig
from elastictok_cli.models.cell.context import Context
from elastictok_cli.models.cell.motion import block_matching, camera_pan, camera_shake, vectors, whole_search
from elastictok_cli.models.cell.motion.camera_pan import CellErrors
from elastictok_cli.models.cell.motion.compensation import compensate, squared_errors, warp_cells
from elastictok_cli.models.cell.motion.luma import Luma
from elastictok_cli.models.cell.selection import Selection

_BIT_PRICE = (
    0.08  # error that one bit of a motion vector must save, as a share of what a whole token must save
)
_MAX_ERROR_LEFT = 0.9  # a motion vector is sent only if it removes at least 10 % of the cell's error
_TOKENS_OF_WHOLE = 2  # of a whole vector
# A whole vector is sent only if it removes most of the cell's error: a cell that sends one can have neither FSQ codes
# nor a palette, which what comes into view needs.
_MAX_ERROR_LEFT_OF_WHOLE = 0.1
_PIXEL_STEP = 2  # errors of luma are estimated from every second row and column of pixels
_MANY_CELLS = 1024
_INTERPOLATION_OF_PANS = "bilinear"  # quicker, where many pans are compared
_MIN_LUMA_ERROR = 0.5  # of a cell, as a share of the price of a token: with less no motion vector is searched
_MIN_ESTIMATED_GAIN = (
    0.3  # of a motion vector, as a share of the price of a token: with less it is not looked at again
)
_MIN_SHAKE_GAIN_BITS = (
    0.03  # a shake is tried only if it lowers the log2 of cells' errors by as much on average
)
_CERTAIN_SHAKE_GAIN_BITS = 0.5  # above it a shake over several frames is used, and nothing else tried


class Motion(NamedTuple):
    """What `choose_motion` decided."""

    vectors: torch.Tensor  # (B, 2, h, w) motion vectors in force
    sent: torch.Tensor  # (B, h, w) bool: cells that send theirs
    pan: torch.Tensor  # (B, h, w) int64: 0, or 1 + the scope of the camera pan that the cell sends
    lasting: torch.Tensor  # (B, 2, h, w) motion vectors with which the next block begins
    moved: torch.Tensor  # (B, 4, 3, H, W) the reference moved along all of it
    unsent_error: torch.Tensor  # (B, h, w) squared error of each cell if it sends no motion vector
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

    Whether there is a shake, and which pans, is decided by errors of luma at a few pixels; which cells send a motion
    vector then by those of all pixels. There are at most two host reads, unless there may be whole vectors: how much
    there is to search, and what was found.
    """
    price = torch.as_tensor(threshold, dtype=frames.dtype, device=frames.device).view(-1, 1, 1)
    block = _Block(config, frames, context, price.expand(len(frames), -1, -1), count)
    shaken = block.estimate_shake() if camera and config.camera_shake else None
    work = _Work.read(block, shaken, pans=camera and config.camera_pan, whole=whole)
    if not work.to_search:
        return block.complete(block.as_before(), None, work.moving, 0)
    if not work.shake:
        shaken = None
    found = block.search(shaken, work)
    used = torch.zeros_like(found.cost, dtype=torch.bool)
    if shaken is not None and work.alone:
        cost = found.cost.view(2, -1)
        used = shaken.certain | (shaken.plausible & (cost[1] < cost[0]))
        item = torch.arange(len(frames), device=used.device) + len(frames) * used
        found = _Found(*(x[item] for x in found))
    elif shaken is not None:
        used = shaken.certain
    moves = (found.panned != 0).any(1)
    most = torch.stack([found.candidates, moves]).flatten(2).sum(2).amax(1)
    candidates, moving, shakes = torch.cat([most, used.any().long().view(1)]).tolist()
    shaken = shaken.where(used) if shaken is not None and shakes else None
    return block.complete(found, shaken, moving, candidates)


class _Shaken(NamedTuple):
    """The camera shake that each picture may send."""

    shake: torch.Tensor  # (B, T, 2) pixels
    codes: torch.Tensor  # (B, T) int64
    plausible: torch.Tensor  # (B,) bool: whether it may pay; in the end, whether it is used
    certain: torch.Tensor  # (B,) bool: whether it pays so much that nothing else is tried
    error: torch.Tensor  # (B, h, w) MSE of cells that go on with their motion vectors if it is sent
    improvable: torch.Tensor  # (B, h, w) bool: cells for which that is too much, in pictures where it may pay

    def where(self, used: torch.Tensor) -> _Shaken:
        """The shake where it is used, (B,) bool, and none elsewhere."""
        return self._replace(
            plausible=used,
            shake=self.shake * used.view(-1, 1, 1),
            codes=torch.where(used.view(-1, 1), self.codes, camera_shake.NO_STEP),
        )


class _Work(NamedTuple):
    """How much there is to do, read from the device at once."""

    to_search: int  # the most cells that any picture searches motion vectors for
    moving: int  # the most cells of any picture that inherit motion
    shake: bool  # whether a camera shake may pay in some picture
    alone: bool  # whether some picture may do better without a shake
    pans: bool  # whether camera pans may pay in some picture
    whole: bool  # whether cells of some picture may send whole vectors

    @classmethod
    def read(cls, block: _Block, shaken: _Shaken | None, *, pans: bool, whole: bool) -> _Work:
        """pans, whole: whether there may be such at all."""
        none = torch.zeros_like(block.improvable)
        screen = block.context.screen if whole and block.context.screen is not None else none
        improvable = none if shaken is None else shaken.improvable
        masks = torch.stack([block.improvable, improvable, (block.context.vectors != 0).any(1), screen])
        no_shake = none.flatten(1).any(1)
        plausible, certain = (no_shake, no_shake) if shaken is None else (shaken.plausible, shaken.certain)
        shakes = torch.stack([plausible.any(), ~certain.all()])
        facts = torch.cat([masks.flatten(2).sum(2).amax(1), shakes.long()]).tolist()
        without_shake, with_shake, moving, on_screen, shake, alone = facts
        most = max(without_shake if alone else 0, with_shake, shake)  # one cell has to send a shake
        enough = most >= camera_pan.MIN_CELLS
        return cls(most, moving, bool(shake), bool(alone), pans and enough, on_screen > 0)


class _Found(NamedTuple):
    """What a search found in each of B pictures."""

    vectors: torch.Tensor  # (B, 2, h, w) the best motion vector of each cell
    whole: torch.Tensor  # (B, h, w) bool: which of them are whole ones
    pan: torch.Tensor  # (B, h, w) int64 as in `Motion`
    panned: torch.Tensor  # (B, 2, h, w) motion vectors of cells that send none
    lasting: torch.Tensor  # (B, 2, h, w) and those that they inherit in the next block
    candidates: torch.Tensor  # (B, h, w) bool: cells that may send their motion vector
    cost: torch.Tensor  # (B,) MSE that is expected in the end, and tokens at their price


class _Block:
    """The motion decision of one block."""

    def __init__(
        self,
        config: DefaultConfig,
        frames: torch.Tensor,  # (B, 4, 3, H, W)
        context: Context,
        price: torch.Tensor,  # (B, 1, 1) MSE that a token must save
        count: int,
    ) -> None:
        self.config, self.frames, self.context = config, frames, context
        self.price, self.count = price, count
        self.grid = (context.vectors.shape[2], context.vectors.shape[3])
        self.luma = Luma.of(context.frame, frames[:, :count])
        self.half = self.luma.half()
        self.error = self._estimator(self.luma, None)(context.vectors.unsqueeze(1))[:, 0]
        # (B, h, w) bool: in other cells no motion vector could save enough
        self.improvable = self.error > _MIN_LUMA_ERROR * price

    def estimate_shake(self) -> _Shaken:
        """The camera shake, and what it makes of cells that go on with their motion vectors."""
        inherited = self.context.vectors
        found = camera_shake.estimate(self.half, inherited, self.config.cell, self.price)
        codes, shake = camera_shake.to_codes(found.shake)
        enough = self.improvable.flatten(1).sum(1) > self.count + 1  # as many cells as it takes tokens
        plausible = enough & (found.gain >= _MIN_SHAKE_GAIN_BITS) & (shake != 0).flatten(1).any(1)
        error = self._estimator(self.luma, shake)(inherited.unsqueeze(1))[:, 0]
        improvable = (error > _MIN_LUMA_ERROR * self.price) & plausible.view(-1, 1, 1)
        certain = plausible & (found.gain >= _CERTAIN_SHAKE_GAIN_BITS)
        if self.count == 1 or self.error[0].numel() <= camera_pan.MAX_PANS:
            certain = torch.zeros_like(certain)  # a pan may do as well, or no cell be left to send the shake
        elif self.context.screen is not None:
            certain = certain & ~self.context.screen.flatten(1).any(1)  # a page may scroll instead
        return _Shaken(shake, codes, plausible, certain, error, improvable)

    def as_before(self) -> _Found:
        """No cell sends anything."""
        inherited = self.context.vectors
        none = torch.zeros_like(self.improvable)
        return _Found(inherited, none, none.long(), inherited, inherited, none, self.price.flatten())

    def search(self, shaken: _Shaken | None, work: _Work) -> _Found:
        """The best motion vectors and pans of each picture without a camera shake (B of them), and, if one is given,
        behind those of each picture with it; only the latter if that is certain."""
        luma, half, inherited, price = self.luma, self.half, self.context.vectors, self.price
        error, improvable, shake = self.error, self.improvable, None
        coarse = block_matching.coarse_search(half, self.grid)
        if shaken is not None:
            seen = min(2, self.count)  # the frame that the full search looked at
            steady = coarse - shaken.shake[:, seen - 1, :, None, None] / seen
            if work.alone:
                luma, half, coarse = luma.twice(), half.twice(), torch.cat([coarse, steady])
                inherited, price = torch.cat([inherited] * 2), torch.cat([price] * 2)
                error = torch.cat([error, shaken.error])
                improvable = torch.cat([improvable, shaken.improvable])
                shake = torch.cat([torch.zeros_like(shaken.shake), shaken.shake])
            else:
                coarse, error, improvable, shake = steady, shaken.error, shaken.improvable, shaken.shake
        cells = Selection(improvable, work.to_search)
        found = block_matching.search(half, inherited, coarse, cells, _BIT_PRICE * price, shake)
        estimate = self._estimator(luma, shake)
        found_error = estimate(found.unsqueeze(1))[:, 0]
        whole = torch.zeros_like(improvable)
        if work.whole and work.alone:
            found, found_error, whole = self._try_whole(found, found_error, improvable, estimate)
        pan, panned = torch.zeros_like(whole, dtype=torch.int64), camera_pan.Panned(inherited, inherited)
        if work.pans:
            # where there are many cells, few pixels of each say enough
            step = _PIXEL_STEP if self.error[0].numel() < _MANY_CELLS else 2 * _PIXEL_STEP
            rough = block_matching.errors_by_vectors(
                luma, self.config.cell, step, _INTERPOLATION_OF_PANS, shake
            )
            pan, panned = camera_pan.choose(
                inherited,
                found,
                camera_pan.Tried(error, found_error),
                price,
                _MAX_ERROR_LEFT,
                camera_pan.estimator(rough, inherited, error),
                improvable.flatten(1).sum(1) >= camera_pan.MIN_CELLS,
            )
            error = estimate(panned.vectors.unsqueeze(1))[:, 0]
        sent = _sends(error, found_error, pan, whole, price)
        tokens = sent.sum((1, 2)) + (pan > 0).sum((1, 2))
        cost = _expected(torch.where(sent, found_error, error), price).sum((1, 2)) + price.flatten() * tokens
        candidates = (error - found_error > _MIN_ESTIMATED_GAIN * price) | (pan > 0)
        if shaken is not None:
            sender, with_shake = _first_best(sent, pan == 0), slice(-len(self.frames), None)
            candidates[with_shake] |= sender[with_shake]
            nobody = ~sender[with_shake].flatten(1).any(1)  # every cell sends a pan
            more = ((self.count + 1) * price[with_shake].flatten()).masked_fill(nobody, torch.inf)
            cost[with_shake] += more
        return _Found(found, whole, pan, panned.vectors, panned.lasting, candidates, cost)

    def complete(self, found: _Found, shaken: _Shaken | None, moving: int, candidates: int) -> Motion:
        """Decide by all pixels which cells send their motion vector.

        shaken: the shakes that are used, None: not any; moving: the most cells of any picture that move without a
        vector that is sent; candidates: the most that may send one.
        """
        c, cell, shake = self.config, self.config.cell, None if shaken is None else shaken.shake
        reference, count = self.context.frame, self.count
        moved = compensate(
            reference,
            found.panned,
            count,
            frames=count,
            interpolation=c.interpolation,
            shake=shake,
            most=moving,
        )
        error = squared_errors(self.frames, moved, cell)
        sent, sends_shake = torch.zeros_like(found.whole), torch.zeros_like(found.whole)
        if candidates:
            each = Selection(found.candidates, candidates).each._replace(padding=None)
            cells = Selection(found.candidates, each=each)
            pixels = warp_cells(
                reference,
                cells.take_each(found.vectors).unsqueeze(2),
                cells,
                cell,
                self.luma.times,
                c.interpolation,
                shake,
            )[:, :, 0]
            found_error = torch.full_like(error, torch.inf).unsqueeze(1)
            real = cells.take_pixels(self.frames[:, :count], cell)
            by_frame = (pixels - real).square_().flatten(3).sum(3)
            cells.write_each(found_error, (by_frame * self._weights).sum(2, keepdim=True))
            found_error = found_error.squeeze(1).masked_fill(~found.candidates, torch.inf)
            price = self.price * (3 * c.frames * cell**2)
            sent = _sends(error, found_error, found.pan, found.whole, price)
            if shaken is not None:
                sends_shake = _first_best(sent, found.candidates & (found.pan == 0)) & shaken.plausible.view(
                    -1, 1, 1
                )
                sent = sent | sends_shake
            send = cells.take_each(sent.unsqueeze(1))[..., None, None, None]
            cells.write_pixels(moved, torch.where(send, pixels, cells.take_pixels(moved, cell)))
        if count < c.frames:
            moved = torch.cat([moved, moved[:, -1:].expand(-1, c.frames - count, -1, -1, -1)], 1)
        return Motion(
            torch.where(sent.unsqueeze(1), found.vectors, found.panned),
            sent,
            found.pan,
            torch.where((sent & (found.pan == 0)).unsqueeze(1), found.vectors, found.lasting),
            moved,
            error,
            sends_shake,
            found.whole & sent,
            shake,
            None if shaken is None else shaken.codes,
        )

    def _estimator(self, luma: Luma, shake: torch.Tensor | None) -> CellErrors:
        """A function from motion vectors (B, N, 2, h, w) to MSE (B, N, h, w), of luma at some pixels of each cell."""
        c = self.config
        return block_matching.errors_by_vectors(luma, c.cell, _PIXEL_STEP, c.interpolation, shake)

    @property
    def _weights(self) -> torch.Tensor:
        """How often each real frame counts, (count,): the padding of a short block repeats the last one."""
        weights = torch.ones(self.count, device=self.frames.device)
        weights[-1] = self.config.frames - self.count + 1
        return weights

    def _try_whole(
        self,
        found: torch.Tensor,
        found_error: torch.Tensor,
        improvable: torch.Tensor,
        estimate: CellErrors,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Motion vectors, their errors, and which are whole: where these are better, in pictures without a shake.

        A cell with a whole vector of the table sends it as one of the table. Others are taken only where they save the
        price of a token more than the best of the table.
        """
        screen, unshaken = self.context.screen, slice(0, len(self.frames))
        assert screen is not None
        price = self.price
        # of each picture by itself, whatever is coded beside it
        has_screen_cells = screen.flatten(1).any(1).view(-1, 1, 1)
        cells = Selection(improvable[unshaken] & has_screen_cells & (found_error[unshaken] > 0.5 * price))
        if not cells.count:
            return found, found_error, torch.zeros_like(improvable)
        real = self.frames[:, : self.count]
        best = whole_search.search(self.context.frame, real, found[unshaken], cells, self.config.cell)
        tried = found.clone()
        tried[cells.picture, :, cells.row, cells.column] = best.to(found.dtype)
        error = estimate(tried.unsqueeze(1))[:, 0]
        known = (vectors.in_table(tried) == tried).all(1)
        bar = found_error - torch.where(known, 0, price.repeat(len(found) // len(price), 1, 1))
        better = error < bar
        return (
            torch.where(better.unsqueeze(1), tried, found),
            torch.where(better, error, found_error),
            better & ~known,
        )


def _sends(
    error: torch.Tensor,
    found_error: torch.Tensor,
    pan: torch.Tensor,
    whole: torch.Tensor,
    price: torch.Tensor,
) -> torch.Tensor:
    """Which cells (B, h, w) send their motion vector; errors, and the price of a token, in the same unit."""
    sends = camera_pan.sends(error, found_error, price, _MAX_ERROR_LEFT)
    copies = (error - found_error > _TOKENS_OF_WHOLE * price) & (
        found_error < _MAX_ERROR_LEFT_OF_WHOLE * error
    )
    return sends & (~whole | copies) | (pan > 0)


def _expected(error: torch.Tensor, token_price: torch.Tensor) -> torch.Tensor:
    """The cost, as squared error, that a cell with this prediction error will have once its residual is coded.

    Above the price of a token, the number of tokens grows with the logarithm of the error.
    """
    tokens = 1 + torch.log((error / token_price).clamp_min(1))
    return torch.where(error < token_price, error, token_price * tokens)


def _first_best(good: torch.Tensor, possible: torch.Tensor) -> torch.Tensor:
    """In each picture (B, h, w) one of the possible cells, a good one if there is any."""
    rank = (possible.int() + (possible & good).int()).flatten(1)
    best = torch.zeros_like(rank, dtype=torch.bool).scatter(1, rank.argmax(1, keepdim=True), True)
    return best.view_as(good) & possible

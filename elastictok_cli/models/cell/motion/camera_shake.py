"""Camera shake: what a hand-held camera does to a whole picture, frame by frame.

A motion vector moves a cell evenly over a block, while a camera that shakes moves everything, and never evenly. A
shake is, for each frame of a block, a displacement of the whole picture from where the motion vectors of its cells
put it. One code per frame says by how much the displacement differs from that of the frame before, in steps: eighths
of a pixel up to eight pixels, halves of one up to 38.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from elastictok_cli.models.cell.motion.block_matching import NEIGHBOURS
from elastictok_cli.models.cell.motion.compensation import CellSampler
from elastictok_cli.models.cell.motion.luma import Luma
from elastictok_cli.models.cell.selection import Selection

_FINE_STEPS, _STEPS = 64, 125  # steps on each side of zero: those of an eighth of a pixel, all
_SIDE = 2 * _STEPS + 1
CODES = _SIDE**2
NO_STEP = CODES // 2  # the code of a frame that is displaced as the frame before
_CELLS, _COARSE_CELLS = 256, 64  # of a picture that are looked at: at half resolution, and in the full search
_REACH = 12  # of the full search, at a quarter of the size: 48 pixels
_REFINEMENT_PIXELS = (2.0, 1.0, 0.5, 0.25, 0.125)  # distances tried around the best so far


def to_codes(shake: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes (B, T) int64 in [0, CODES) of a shake (B, T, 2) in pixels, and the shake that those codes say."""
    table = _step_table(shake.device)
    here = torch.zeros_like(shake[:, 0])
    codes, rounded = [], []
    for displacement in shake.unbind(1):
        number = ((displacement - here).unsqueeze(-1) - table).abs().argmin(-1)  # (B, 2)
        here = here + table[number]
        codes.append(number[:, 0] * _SIDE + number[:, 1])
        rounded.append(here)
    return torch.stack(codes, 1), torch.stack(rounded, 1)


def from_codes(codes: torch.Tensor) -> torch.Tensor:
    """The shake (B, T, 2) in pixels of codes (B, T) int64 in [0, CODES)."""
    table = _step_table(codes.device)
    return torch.stack([table[codes // _SIDE], table[codes % _SIDE]], -1).cumsum(1)


class Estimate(NamedTuple):
    """A shake, and how much it is worth."""

    shake: torch.Tensor  # (B, T, 2) pixels
    gain: torch.Tensor  # (B,) by how much it lowers the log2 of cells' MSE, mean over cells and frames


def estimate(half: Luma, inherited: torch.Tensor, cell: int, floor: torch.Tensor | float) -> Estimate:
    """The shake with which the frames of a block follow their reference best.

    inherited: (B, 2, h, w) motion vectors that move cells besides; cell: pixels of its side in full size. Best is the
    least sum of the logarithms of cells' errors, as the number of tokens grows with those; errors below `floor` (MSE, a
    float or (B, 1, 1)) hardly count. The search is on luma of some cells: a full search between each frame and the one
    before, and of each frame in the reference; then, at half resolution, finer and finer around the best of both.
    """
    cells = Selection.spread(
        len(inherited), (inherited.shape[2], inherited.shape[3]), _CELLS, inherited.device
    )
    vectors = cells.take_each(inherited)[:, :, None, None]  # (B, M, 1, 1, 2)
    least_error = torch.as_tensor(floor, device=inherited.device).view(-1, 1, 1)
    source_pixels = cells.take_pixels(half.after, cell // 2)[
        :, :, None, :, 0
    ]  # (B, M, 1, T, cell / 2, cell / 2)
    by_vectors = half.times.view(-1, 1) * vectors  # (B, M, 1, T, 2)

    sample = CellSampler(half.before, cells, cell // 2)

    def log_error(tries: torch.Tensor) -> torch.Tensor:
        """Displacements (B, N, T, 2) to the mean log2 error of cells (B, N, T)."""
        moved = sample((by_vectors + tries[:, None]) / 2)
        error = moved.sub_(source_pixels).square_().flatten(4).mean(4)  # (B, M, N, T)
        return torch.log2(error + least_error.unsqueeze(3)).mean(1)

    steps, jumps = _coarse_shifts(half.half(), inherited, cell // 4, least_error)
    tries = torch.stack([torch.zeros_like(steps), steps.cumsum(1), jumps], 1)  # (B, 3, T, 2)
    costs = log_error(tries)
    without = costs[:, 0]
    best, least = _cheapest(tries, costs)
    ring = torch.tensor(NEIGHBOURS, device=inherited.device, dtype=torch.float32).view(1, -1, 1, 2)
    for distance in _REFINEMENT_PIXELS:
        tries = best.unsqueeze(1) + distance * ring
        other, other_cost = _cheapest(tries, log_error(tries))
        better = other_cost < least
        best = torch.where(better.unsqueeze(2), other, best)
        least = torch.where(better, other_cost, least)
    return Estimate(best, (without - least).mean(1))


def _coarse_shifts(
    quarter: Luma, inherited: torch.Tensor, cell: int, floor: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The displacements (B, T, 2) of each frame from the one before and from the reference, of up to 48 pixels.

    quarter: a block at a quarter of its size, where cells have `cell` pixels; inherited: (B, 2, h, w) and floor: (B or
    1, 1, 1) as in `estimate`.
    """
    batch, count = quarter.after.shape[:2]
    one_before = torch.cat([quarter.before.unsqueeze(1), quarter.after[:, :-1]], 1)
    last = torch.stack([one_before, quarter.before.unsqueeze(1).expand_as(one_before)], 1)
    cells = Selection.spread(
        2 * batch * count, (inherited.shape[2], inherited.shape[3]), _COARSE_CELLS, last.device
    )
    frames = torch.stack([torch.ones_like(quarter.times), quarter.times])  # from `last` on
    shift = (frames[..., None, None, None] * inherited[:, None, None] / 4).flatten(0, 2)  # (B 2 T, 2, h, w)
    windows = CellSampler(last.flatten(0, 2), cells, cell, margin=_REACH)(cells.take_each(shift))
    after = quarter.after.unsqueeze(1).expand_as(last).flatten(0, 2)
    source_pixels = cells.take_pixels(after.unsqueeze(1), cell)[:, :, 0, 0]  # (B 2 T, M, cell, cell)
    # cells come last, so that values that lie together are worked out alike
    windows, source_pixels = (x.permute(0, 2, 3, 1).contiguous() for x in (windows, source_pixels))
    side = 2 * _REACH + 1
    error = windows.new_zeros(len(windows), side, side, cells.most)
    for row in range(cell):
        shifted = windows[:, row : row + side].unfold(2, side, 1).permute(0, 2, 1, 4, 3)
        error += (shifted - source_pixels[:, row, :, None, None]).square_().sum(1)
    error = (error / cell**2).unflatten(0, (batch, 2 * count))  # type: ignore[no-untyped-call]
    costs = torch.log2(error + floor[..., None, None]).mean(-1)  # (B, 2 T, side, side)
    found = 4 * _REACH - 4 * _lowest_point(costs)
    return found[:, :count], found[:, count:]


def _lowest_point(costs: torch.Tensor) -> torch.Tensor:
    """Where (B, T, 2) the least of costs (B, T, n, n) is, between places too: where parabolas through it have it."""
    side = costs.shape[-1]
    place = costs.flatten(2).argmin(2)
    place = torch.stack([place // side, place % side], -1)  # (B, T, 2)
    inner = place.clamp(1, side - 2)
    middle = (inner[..., 0] * side + inner[..., 1]).unsqueeze(-1)  # (B, T, 1)
    away = torch.tensor([-side, side, -1, 1, 0], device=costs.device)
    above, below, left, right, here = costs.flatten(2).gather(2, middle + away).unbind(2)
    before, after = torch.stack([above, left], -1), torch.stack([below, right], -1)
    bend = before + after - 2 * here.unsqueeze(-1)
    offset = (0.5 * (before - after) / bend.clamp_min(1e-9)).clamp(-0.5, 0.5)
    return torch.where(inner == place, inner + offset, place.to(offset.dtype))


def _cheapest(tries: torch.Tensor, costs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, N, T, 2), (B, N, T) -> the cheapest of each frame (B, T, 2) and its cost (B, T)."""
    least, which = costs.min(1)
    return tries.gather(1, which[:, None, :, None].expand(-1, 1, -1, 2)).squeeze(1), least


def _step_table(device: torch.device) -> torch.Tensor:
    """The steps that codes say, (_SIDE,) ascending, in pixels; all of them multiples of 1/8."""
    steps = torch.arange(-_STEPS, _STEPS + 1, device=device).to(torch.float32)
    fine = steps.clamp(-_FINE_STEPS, _FINE_STEPS)
    return fine / 8 + (steps - fine) / 2

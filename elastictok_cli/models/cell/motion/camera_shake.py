"""Camera shake: what a hand-held camera does to a whole picture, frame by frame.

A motion vector moves a cell evenly over a block, while a camera that shakes moves everything, and never evenly. A
shake is, for each frame of a block, a displacement of the whole picture from where the motion vectors of its cells
put it. One code per frame says by how much the displacement differs from that of the frame before, in steps: eighths
of a pixel up to eight pixels, halves of one up to 38.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F

from elastictok_cli.models.cell.motion.block_matching import NEIGHBOURS, full_search, luma
from elastictok_cli.models.cell.motion.compensation import warp_cells
from elastictok_cli.models.cell.selection import Selection

_FINE_STEPS, _STEPS = 64, 125  # steps on each side of zero: those of an eighth of a pixel, all
_SIDE = 2 * _STEPS + 1
CODES = _SIDE**2
NO_STEP = CODES // 2  # the code of a frame that is displaced as the frame before
_COMMON = 3  # displacements that are tried: those most cells agree on
_BINS = 18  # of the histogram of cells' displacements, on each side of zero
_BIN_PIXELS = 4
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


def estimate(
    reference: torch.Tensor,
    frames: torch.Tensor,
    inherited: torch.Tensor,
    cell: int,
    floor: torch.Tensor | float,
) -> Estimate:
    """The shake with which `frames` (B, T, 3, H, W), all of them real, follow `reference` (B, 3, H, W) best.

    inherited: (B, 2, h, w) motion vectors that move cells besides. Best is the least sum of the logarithms of cells'
    errors, as the number of tokens grows with those; errors below `floor` (MSE, a float or (B, 1, 1)) hardly count.
    The search is on luma at half resolution: frame by frame the displacements that most cells agree on, then finer
    and finer around the best.
    """
    batch, count = frames.shape[:2]
    grid = (inherited.shape[2], inherited.shape[3])
    before = F.avg_pool2d(luma(reference), 2)
    after = [F.avg_pool2d(luma(frame), 2) for frame in frames.unbind(1)]
    small = [F.avg_pool2d(picture, 2) for picture in (before, *after)]
    cells = Selection.everywhere(batch, grid, reference.device)
    vectors = cells.take_each(inherited).unsqueeze(2)  # (B, M, 1, 2)
    one_frame = torch.ones(1, device=reference.device)
    least_error = floor.view(-1, 1, 1) if isinstance(floor, torch.Tensor) else floor
    ring = torch.tensor(NEIGHBOURS, device=reference.device, dtype=torch.float32)
    nowhere = torch.zeros(batch, 1, 2, device=reference.device)
    here = step = nowhere
    shake, gain = [], torch.zeros(batch, device=reference.device)
    for number in range(count):
        source_pixels = cells.take_pixels(after[number].unsqueeze(1), cell // 2).unsqueeze(2)
        by_vectors = (number + 1) * vectors

        def log_error(
            tries: torch.Tensor, by_vectors: torch.Tensor, source_pixels: torch.Tensor
        ) -> torch.Tensor:
            """Displacements (B, N, 2) to the mean log2 error of cells (B, N)."""
            moved = warp_cells(before, (by_vectors + tries[:, None]) / 2, cells, cell // 2, one_frame)
            error = (moved - source_pixels).flatten(3).square().mean(3)  # (B, M, N)
            return torch.log2(error + least_error).mean(1)

        # a full search between two frames at a quarter of the size: 2 pixels per frame stand for 4
        jumps = 2 * full_search(small[number], small[number + 1], grid) - inherited
        tries = torch.cat([nowhere, here, here + step, here + _commonest(jumps)], 1)
        costs = log_error(tries, by_vectors, source_pixels)
        without = costs[:, 0]
        best, least = _cheapest(tries, costs)
        for distance in _REFINEMENT_PIXELS:
            tries = best + distance * ring
            other, other_cost = _cheapest(tries, log_error(tries, by_vectors, source_pixels))
            better = other_cost < least
            best = torch.where(better.view(-1, 1, 1), other, best)
            least = torch.where(better, other_cost, least)
        gain = gain + (without - least) / count
        step, here = best - here, best
        shake.append(best)
    return Estimate(torch.cat(shake, 1), gain)


def _commonest(jumps: torch.Tensor) -> torch.Tensor:
    """The displacements (B, _COMMON, 2) that most cells' (B, 2, h, w) are near."""
    side = 2 * _BINS + 1
    at = (jumps.flatten(2) / _BIN_PIXELS).round().clamp(-_BINS, _BINS).to(torch.int64) + _BINS
    number = at[:, 0] * side + at[:, 1]
    counts = jumps.new_zeros(len(jumps), side * side)
    counts.scatter_add_(1, number, torch.ones_like(number, dtype=counts.dtype))
    most = counts.topk(_COMMON, 1).indices
    return _BIN_PIXELS * (torch.stack([most // side, most % side], -1) - _BINS).to(jumps.dtype)


def _cheapest(tries: torch.Tensor, costs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, N, 2), (B, N) -> the cheapest (B, 1, 2) and its cost (B,)."""
    least, which = costs.min(1)
    return tries.gather(1, which.view(-1, 1, 1).expand(-1, 1, 2)), least


def _step_table(device: torch.device) -> torch.Tensor:
    """The steps that codes say, (_SIDE,) ascending, in pixels; all of them multiples of 1/8."""
    steps = torch.arange(-_STEPS, _STEPS + 1, device=device).to(torch.float32)
    fine = steps.clamp(-_FINE_STEPS, _FINE_STEPS)
    return fine / 8 + (steps - fine) / 2

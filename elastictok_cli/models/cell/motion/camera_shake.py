"""Global motion: what a hand-held camera does to a whole picture, frame by frame.

A velocity moves a cell evenly over a block, while a camera that shakes moves everything, and never evenly. A path says
for each frame of a block how far everything lies from where the velocities of cells put it. What it goes on by from
frame to frame is sent: eighths of a pixel up to eight pixels, halves of one up to 38.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F

from elastictok_cli.models.cell.motion import block_matching as motion
from elastictok_cli.models.cell.motion.compensation import warp_cells
from elastictok_cli.models.cell.selection import Selection

_FINE, _MOST = 64, 125  # steps on each side of zero: those of an eighth of a pixel, all
_SIDE = 2 * _MOST + 1
CODES = _SIDE**2
NOWHERE = CODES // 2  # the code of a frame that lies where the one before does
_COMMON = 3  # displacements that are tried: those most cells agree on
_BINS = 18  # on each side of zero, of 4 pixels, which cells' displacements are counted in
_BIN = 4
_RADII = (2.0, 1.0, 0.5, 0.25, 0.125)  # pixels around the best so far


def to_codes(path: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes (B, T) int64 in [0, CODES) of paths (B, T, 2) in pixels, and the paths that they say."""
    table = _table(path.device)
    here = torch.zeros_like(path[:, 0])
    codes, said = [], []
    for wanted in path.unbind(1):
        number = ((wanted - here).unsqueeze(-1) - table).abs().argmin(-1)  # (B, 2)
        here = here + table[number]
        codes.append(number[:, 0] * _SIDE + number[:, 1])
        said.append(here)
    return torch.stack(codes, 1), torch.stack(said, 1)


def from_codes(codes: torch.Tensor) -> torch.Tensor:
    """Paths (B, T, 2) in pixels of codes (B, T) int64 in [0, CODES)."""
    table = _table(codes.device)
    return torch.stack([table[codes // _SIDE], table[codes % _SIDE]], -1).cumsum(1)


class Estimate(NamedTuple):
    """A path, and how much it is worth."""

    path: torch.Tensor  # (B, T, 2) pixels
    gain: (
        torch.Tensor
    )  # (B,) bits of error a value of a cell loses by it: log2 of MSE, mean over cells and frames


def estimate(
    last: torch.Tensor,
    frames: torch.Tensor,
    inherited: torch.Tensor,
    cell: int,
    floor: torch.Tensor | float,
) -> Estimate:
    """The path along which `frames` (B, T, 3, H, W), all of them real, follow `last` (B, 3, H, W) best.

    Velocities `inherited` (B, 2, h, w) move cells besides. Best is where the logarithms of cells' errors have the least
    sum, as tokens go with those; what is below `floor` (MSE, a float or (B, 1, 1)) hardly counts. On luma at half
    resolution: frame by frame the displacements that most cells agree on, then finer and finer around the best.
    """
    batch, count = frames.shape[:2]
    grid = inherited.shape[-2:]
    before = F.avg_pool2d(motion.luma(last), 2)
    after = [F.avg_pool2d(motion.luma(frame), 2) for frame in frames.unbind(1)]
    small = [F.avg_pool2d(picture, 2) for picture in (before, *after)]
    cells = Selection.everywhere(batch, (grid[0], grid[1]), last.device)
    velocity = cells.take_each(inherited).unsqueeze(2)  # (B, M, 1, 2)
    once = torch.ones(1, device=last.device)
    least_error = floor.view(-1, 1, 1) if isinstance(floor, torch.Tensor) else floor
    ring = torch.tensor(motion.RING, device=last.device, dtype=torch.float32)
    nowhere = torch.zeros(batch, 1, 2, device=last.device)
    here = step = nowhere
    path, gain = [], torch.zeros(batch, device=last.device)
    for number in range(count):
        wanted = cells.take_pixels(after[number].unsqueeze(1), cell // 2).unsqueeze(2)
        still = (number + 1) * velocity

        def bits(tries: torch.Tensor, still: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
            """(B, N, 2) displacements to (B, N)."""
            moved = warp_cells(before, (still + tries[:, None]) / 2, cells, cell // 2, once)
            error = (moved - wanted).flatten(3).square().mean(3)  # (B, M, N)
            return torch.log2(error + least_error).mean(1)

        jumps = motion.steps(small[number], small[number + 1], grid) - inherited
        tries = torch.cat([nowhere, here, here + step, here + _commonest(jumps)], 1)
        costs = bits(tries, still, wanted)
        without = costs[:, 0]
        best, least = _pick(tries, costs)
        for radius in _RADII:
            tries = best + radius * ring
            other, cheapest = _pick(tries, bits(tries, still, wanted))
            better = cheapest < least
            best = torch.where(better.view(-1, 1, 1), other, best)
            least = torch.where(better, cheapest, least)
        gain = gain + (without - least) / count
        step, here = best - here, best
        path.append(best)
    return Estimate(torch.cat(path, 1), gain)


def _commonest(jumps: torch.Tensor) -> torch.Tensor:
    """The displacements (B, _COMMON, 2) that most cells' (B, 2, h, w) are near."""
    side = 2 * _BINS + 1
    at = (jumps.flatten(2) / _BIN).round().clamp(-_BINS, _BINS).to(torch.int64) + _BINS
    number = at[:, 0] * side + at[:, 1]
    counts = jumps.new_zeros(len(jumps), side * side)
    counts.scatter_add_(1, number, torch.ones_like(number, dtype=counts.dtype))
    most = counts.topk(_COMMON, 1).indices
    return _BIN * (torch.stack([most // side, most % side], -1) - _BINS).to(jumps.dtype)


def _pick(tries: torch.Tensor, costs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, N, 2), (B, N) -> the cheapest (B, 1, 2) and its cost (B,)."""
    least, which = costs.min(1)
    return tries.gather(1, which.view(-1, 1, 1).expand(-1, 1, 2)), least


def _table(device: torch.device) -> torch.Tensor:
    """What steps say, (_SIDE,) ascending, in pixels; all of them multiples of 1/8."""
    steps = torch.arange(-_MOST, _MOST + 1, device=device).to(torch.float32)
    fine = steps.clamp(-_FINE, _FINE)
    return fine / 8 + (steps - fine) / 2

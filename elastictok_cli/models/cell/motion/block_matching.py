"""Motion search: block matching on the reference, the last decoded frame."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from elastictok_cli.models.cell.motion.compensation import CellSampler, shifts_of
from elastictok_cli.models.cell.motion.luma import Luma, to_luma
from elastictok_cli.models.cell.motion.vectors import SPEEDS, in_table, nearest_entry, speeds
from elastictok_cli.models.cell.selection import Selection

_COARSE_REACH = 12  # pixels of the small picture: +-24 pixels per frame
_SLOWNESS = 1e-6  # MSE per pixel (or squared small pixel) of motion: of equal candidates the slowest wins
_REFINEMENT_STRIDES = (3, 1, 1)  # table entries between a vector and its eight neighbours, round by round
_CROSS = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))
NEIGHBOURS = tuple((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx)


def search(
    half: Luma,
    inherited: torch.Tensor,
    coarse: torch.Tensor,
    cells: Selection,
    bit_price: torch.Tensor | float = 0.0,
    shake: torch.Tensor | None = None,
) -> torch.Tensor:
    """The motion vector of the table, for each of some cells, that best moves the reference to the frames.

    inherited: (B, 2, h, w) motion vectors of the block before; other cells keep the table's nearest to those; coarse:
    (B, 2, h, w) from `coarse_search`; bit_price: MSE (a float or (B, 1, 1)) that one bit of a vector must save; shake:
    (B, T, 2) pixels by which everything is displaced besides. Returns (B, 2, h, w) float32.

    On luma at half resolution, against every frame: candidates (zero, inherited, the coarse vector and its
    neighbours'), then three rounds of refinement. Finally each cell may switch to a neighbour's vector, where the bits
    saved, at `bit_price`, outweigh the added error. Cells switch in checkerboard order.
    """
    grid = (inherited.shape[2], inherited.shape[3])
    cell = half.before.shape[-1] // grid[1]
    table = speeds(inherited.device)
    inherited = in_table(inherited)
    half_shake = None if shake is None else shake / 2
    source_pixels = cells.take_pixels(half.after, cell)[:, :, None, :, 0]  # (B, M, 1, T, cell, cell)

    sample = CellSampler(half.before, cells, cell)

    def cost(candidates: torch.Tensor) -> torch.Tensor:  # (B, M, N, 2) -> (B, M, N)
        moved = sample(shifts_of(candidates / 2, half.times, half_shake))
        error = moved.sub_(source_pixels).square_().flatten(3).mean(3)
        return error + _SLOWNESS * candidates.abs().sum(3)

    around = _around(table[nearest_entry(coarse, table)], _CROSS)
    first = torch.cat([torch.zeros_like(coarse), inherited, *around], 1)
    candidates = cells.take_each(first).unflatten(2, (-1, 2))  # type: ignore[no-untyped-call]
    best, least = _cheapest(candidates, cost(candidates))
    ring = torch.tensor(NEIGHBOURS, device=inherited.device)
    for stride in _REFINEMENT_STRIDES:
        nearby = nearest_entry(best, table).unsqueeze(2) + ring * stride  # (B, M, 8, 2)
        candidates = table[nearby.clamp(0, len(table) - 1)]
        other, other_cost = _cheapest(candidates, cost(candidates))
        better = other_cost < least
        best = torch.where(better.unsqueeze(2), other, best)
        least = torch.where(better, other_cost, least)

    found = inherited.clone()
    cells.write_each(found, best)
    candidates = cells.take_each(torch.cat(_around(found, _CROSS[1:]), 1))
    candidates = torch.cat([best.unsqueeze(2), candidates.unflatten(2, (-1, 2))], 2)  # type: ignore[no-untyped-call]
    costs = torch.cat([least.unsqueeze(2), cost(candidates[:, :, 1:])], 2)
    entries = nearest_entry(candidates, table)
    per_bit = bit_price.view(-1, 1, 1) if isinstance(bit_price, torch.Tensor) else bit_price
    odd = (cells.each.row + cells.each.column) % 2
    for parity in (0, 1):  # a cell decides while its neighbours keep theirs
        # the predicted motion vector: the component-wise (lower) median of the four neighbours
        near = cells.take_each(torch.cat(_around(found, _CROSS[1:]), 1)).unflatten(2, (-1, 2))  # type: ignore[no-untyped-call]
        expected = near.sort(2).values[:, :, 1:2]
        away = (entries - nearest_entry(expected, table)).abs()
        bits = 2 * torch.log2(1 + away.float()).sum(3)  # roughly what the file needs for the difference
        chosen = _cheapest(candidates, costs + per_bit * bits)[0]
        best = torch.where((odd == parity).unsqueeze(2), chosen, best)
        cells.write_each(found, best)
    return found


def coarse_search(half: Luma, grid: tuple[int, int]) -> torch.Tensor:
    """Motion vectors (B, 2, h, w) by a full search at a quarter of the size, against the second or only frame.

    They are even numbers of up to 24 pixels, or multiples of 4 where there is one frame.
    """
    seen = min(2, len(half.times))
    last, later = F.avg_pool2d(half.before, 2), F.avg_pool2d(half.after[:, seen - 1], 2)
    return (full_search(last, later, grid) * (2 / seen)).clamp(-SPEEDS[-1], SPEEDS[-1])


def errors_by_vectors(
    luma: Luma, cell: int, pixel_step: int, interpolation: str, shake: torch.Tensor | None
) -> Callable[[torch.Tensor], torch.Tensor]:
    """A function from motion vectors (B, N, 2, h, w) to the MSE (B, N, h, w) of luma in cells that move along them.

    cell: pixels of its side; pixel_step: only each n-th row and column of pixels is looked at; interpolation and shake
    as in `compensation.warp`.
    """
    grid = (luma.before.shape[2] // cell, luma.before.shape[3] // cell)
    cells = Selection.everywhere(len(luma.before), grid, luma.before.device)
    source_pixels = cells.take_pixels(luma.after[..., ::pixel_step, ::pixel_step], cell // pixel_step)
    source_pixels = source_pixels[:, :, None, :, 0]  # (B, M, 1, T, S, S)

    sample = CellSampler(luma.before, cells, cell, pixel_step=pixel_step, interpolation=interpolation)

    def errors(vectors: torch.Tensor) -> torch.Tensor:
        tries = vectors.flatten(3).permute(0, 3, 1, 2)  # (B, M, N, 2)
        moved = sample(shifts_of(tries, luma.times, shake))
        error = moved.sub_(source_pixels).square_().flatten(3).mean(3)
        return error.transpose(1, 2).unflatten(2, grid)  # type: ignore[no-untyped-call,no-any-return]

    return errors


def shifts(last: torch.Tensor, later: torch.Tensor, grid: tuple[int, int] | torch.Size) -> torch.Tensor:
    """Motion vectors (B, 2, h, w), in pixels of full size per frame, that a full search finds.

    last, later: (B, 3, H / 4, W / 4), two frames apart, at a quarter of the size. Even numbers of up to 24 pixels.
    """
    return full_search(to_luma(last), to_luma(later), (grid[0], grid[1]))


def full_search(last: torch.Tensor, later: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """The best shift of each cell, of all shifts of up to 12 pixels between two small luma pictures (B, 1, ., .).

    They are a quarter of the size and two frames apart: a shift of s is 2 s pixels per frame. Returns motion vectors
    (B, 2, h, w).
    """
    reach = _COARSE_REACH
    height, width = last.shape[-2:]
    side = 2 * reach + 1
    padded = F.pad(last, (reach, reach, reach, reach), mode="replicate")
    shifted = padded[:, 0].unfold(2, width, 1).transpose(1, 2)  # (B, side, H + 2 reach, W): along x
    pool = height // grid[0]
    away = torch.arange(-reach, reach + 1, device=last.device).square()
    costs = [
        F.avg_pool2d((shifted[:, :, number : number + height] - later).square_(), pool)
        for number in range(side)
    ]
    # a slight preference for slow motion keeps flat areas still
    fast = _SLOWNESS * (away.view(-1, 1) + away).view(1, -1, 1, 1)
    best = torch.cat(costs, 1).add_(fast).argmin(1)  # (B, h, w)
    return torch.stack([reach - best // side, reach - best % side], 1).float() * 2


def _around(vectors: torch.Tensor, steps: tuple[tuple[int, int], ...]) -> list[torch.Tensor]:
    """The vectors (B, 2, h, w) of the cells so many rows and columns away; beyond the edge, those at the edge."""
    height, width = vectors.shape[-2:]
    padded = F.pad(vectors, (1, 1, 1, 1), mode="replicate")
    return [padded[..., 1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width] for dy, dx in steps]


def _cheapest(candidates: torch.Tensor, cost: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, M, N, 2), (B, M, N) -> the cheapest (B, M, 2) and its cost (B, M)."""
    least, which = cost.min(2)
    return candidates.gather(2, which[..., None, None].expand(-1, -1, 1, 2)).squeeze(2), least

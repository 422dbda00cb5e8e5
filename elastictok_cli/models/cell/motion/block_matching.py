"""Motion search: block matching on the reference, the last decoded frame."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from elastictok_cli.models.cell.motion.compensation import warp_cells
from elastictok_cli.models.cell.motion.vectors import in_table, nearest_entry, speeds
from elastictok_cli.models.cell.selection import Selection

_PIXEL_STEP = 2  # where many motion vectors are compared, errors are of every second row and column of pixels
_COARSE_REACH = 12  # pixels of the small picture: +-24 pixels per frame
_SLOWNESS = 1e-6  # MSE per pixel (or squared small pixel) of motion: of equal candidates the slowest wins
_REFINEMENT_STRIDES = (3, 1, 1)  # table entries between a vector and its eight neighbours, round by round
_CROSS = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))
NEIGHBOURS = tuple((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx)


def search(
    reference: torch.Tensor,
    frames: torch.Tensor,
    inherited: torch.Tensor,
    cell: int,
    search_cells: torch.Tensor | None = None,
    bit_price: torch.Tensor | float = 0.0,
    shake: torch.Tensor | None = None,
) -> torch.Tensor:
    """The motion vector of the table, for each cell, that best predicts `frames` from the reference.

    reference: (B, 3, H, W); frames: (B, T, 3, H, W), real ones only, so T may be fewer than a block's; inherited:
    (B, 2, h, w) motion vectors of the block before; search_cells: (B, h, w) bool (other cells keep the table's nearest
    to what they inherited); bit_price: MSE (a float or (B, 1, 1)) that one bit of a vector must save; shake:
    (B, T, 2) pixels by which everything is displaced besides. Returns (B, 2, h, w) float32.

    Coarse to fine, on luma: a full search of +-24 pixels per frame against the second (or only) frame; then
    candidates (zero, inherited, the coarse winner and its neighbours') and three rounds of refinement, at half
    resolution against every frame. Finally each cell may switch to a neighbour's vector, where the
    bits saved, at `bit_price`, outweigh the added error. Cells switch in checkerboard order.
    """
    height, width = frames.shape[-2:]
    grid = (height // cell, width // cell)
    table = speeds(frames.device)
    times = torch.arange(1, frames.shape[1] + 1, device=frames.device)
    reference_half = F.avg_pool2d(luma(reference), 2)  # (B, 1, H/2, W/2)
    frames_half = F.avg_pool2d(luma(frames.flatten(0, 1)), 2)
    frames_half = frames_half.view(*frames.shape[:2], *frames_half.shape[1:])  # (B, T, 1, H/2, W/2)
    inherited = in_table(inherited)
    if frames.shape[1] > 1:
        coarse = full_search(F.avg_pool2d(reference_half, 2), F.avg_pool2d(frames_half[:, 1], 2), grid)
    else:
        coarse = full_search(reference_half, frames_half[:, 0], grid)
    half_shake = None
    if shake is not None:
        half_shake, seen = shake / 2, min(2, frames.shape[1])
        coarse = coarse - shake[:, seen - 1, :, None, None] / seen

    def cost(candidates: torch.Tensor, cells: Selection) -> torch.Tensor:  # (B, M, N, 2) -> (B, M, N)
        moved = warp_cells(reference_half, candidates / 2, cells, cell // 2, times, shake=half_shake)
        error = (moved - cells.take_pixels(frames_half, cell // 2)[:, :, None]).flatten(3).square().mean(3)
        return error + _SLOWNESS * candidates.abs().sum(3)

    found = inherited.clone()
    cells = Selection(
        torch.ones_like(found[:, 0], dtype=torch.bool) if search_cells is None else search_cells
    )
    padded = F.pad(table[nearest_entry(coarse, table)], (1, 1, 1, 1), mode="replicate")
    around = [padded[..., 1 + dy : 1 + dy + grid[0], 1 + dx : 1 + dx + grid[1]] for dy, dx in _CROSS]
    candidates = torch.stack([cells.take_each(c) for c in (torch.zeros_like(coarse), inherited, *around)], 2)
    best, least = _cheapest(candidates, cost(candidates, cells))
    cells.write_each(found, best)
    ring = torch.tensor(NEIGHBOURS, device=frames.device)
    for stride in _REFINEMENT_STRIDES:
        nearby = nearest_entry(best, table).unsqueeze(2) + ring * stride  # (B, M, 8, 2)
        candidates = table[nearby.clamp(0, len(table) - 1)]
        other, other_cost = _cheapest(candidates, cost(candidates, cells))
        better = other_cost < least
        best = torch.where(better.unsqueeze(2), other, best)
        least = torch.where(better, other_cost, least)
        cells.write_each(found, best)

    errors = torch.zeros_like(found[:, :1])
    cells.write_each(errors, least.unsqueeze(2))
    chessboard = torch.arange(grid[0]).view(-1, 1) + torch.arange(grid[1])
    for parity in (0, 1):  # a cell decides while its neighbours keep theirs
        here = (chessboard % 2 == parity).to(frames.device).expand_as(found[:, 0])
        some = Selection(here if search_cells is None else here & search_cells)
        if not some.count:
            continue
        padded = F.pad(found, (1, 1, 1, 1), mode="replicate")
        near = [padded[..., 1 + dy : 1 + dy + grid[0], 1 + dx : 1 + dx + grid[1]] for dy, dx in _CROSS[1:]]
        candidates = torch.stack([some.take_each(n) for n in (found, *near)], 2)  # (B, M, 5, 2)
        # the predicted motion vector: the component-wise (lower) median of the four neighbours
        expected = candidates[:, :, 1:].sort(2).values[:, :, 1:2]
        away = (nearest_entry(candidates, table) - nearest_entry(expected, table)).abs()
        bits = 2 * torch.log2(1 + away.float()).sum(3)  # roughly what the file needs for the difference
        costs = torch.cat([some.take_each(errors), cost(candidates[:, :, 1:], some)], 2)
        per_bit = bit_price.view(-1, 1, 1) if isinstance(bit_price, torch.Tensor) else bit_price
        some.write_each(found, _cheapest(candidates, costs + per_bit * bits)[0])
    return found


def luma_errors(
    reference: torch.Tensor,
    frames: torch.Tensor,
    cell: int,
    interpolation: str,
    shake: torch.Tensor | None = None,
) -> Callable[[torch.Tensor], torch.Tensor]:
    """A function from motion vectors (N, 2, h, w) to the MSE of luma in each cell (N, h, w) when moved along them.

    reference: (1, 3, H, W); frames: (1, T, 3, H, W) that follow; interpolation and shake as in `compensation.warp`. One
    pixel in four is looked at.
    """
    before = luma(reference)
    after = luma(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])  # type: ignore[no-untyped-call]
    times = torch.arange(1, frames.shape[1] + 1, device=frames.device)
    grid = (frames.shape[3] // cell, frames.shape[4] // cell)
    cells = Selection.everywhere(1, grid, frames.device)
    source_pixels = cells.take_pixels(after, cell)[:, :, None, ..., ::_PIXEL_STEP, ::_PIXEL_STEP]

    def errors(vectors: torch.Tensor) -> torch.Tensor:
        tries = vectors.flatten(2).permute(2, 0, 1)[None]  # (1, M, N, 2)
        moved = warp_cells(before, tries, cells, cell, times, interpolation, shake, _PIXEL_STEP)
        return (moved - source_pixels).flatten(3).square().mean(3)[0].t().reshape(-1, *grid)

    return errors


def shifts(last: torch.Tensor, later: torch.Tensor, grid: tuple[int, int] | torch.Size) -> torch.Tensor:
    """Motion vectors (B, 2, h, w), in pixels of full size per frame, that a full search finds.

    last, later: (B, 3, H / 4, W / 4), two frames apart, at a quarter of the size. Even numbers of up to 24 pixels.
    """
    return full_search(luma(last), luma(later), (grid[0], grid[1]))


def luma(rgb: torch.Tensor) -> torch.Tensor:
    """(B, 3, H, W) to (B, 1, H, W), by the weights of ITU-R BT.601."""
    weights = rgb.new_tensor((0.299, 0.587, 0.114)).view(1, 3, 1, 1)
    return (rgb * weights).sum(1, keepdim=True)


def _cheapest(candidates: torch.Tensor, cost: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, M, N, 2), (B, M, N) -> the cheapest (B, M, 2) and its cost (B, M)."""
    least, which = cost.min(2)
    return candidates.gather(2, which[..., None, None].expand(-1, -1, 1, 2)).squeeze(2), least


def full_search(last: torch.Tensor, later: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """The best shift of each cell, of all shifts of up to 12 pixels between two small luma pictures (B, 1, ., .).

    They are a quarter of the size and two frames apart, or half the size and one frame apart: a shift of s is 2 s
    pixels per frame. Returns motion vectors (B, 2, h, w).
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

"""Motion search: block matching on the last decoded frame."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from elastictok_cli.models.cell.motion.compensation import warp_cells
from elastictok_cli.models.cell.motion.vectors import in_table, nearest_entry, speeds
from elastictok_cli.models.cell.selection import Selection

_EVERY = 2  # rows and columns of which one is looked at where many errors are compared
_COARSE_REACH = 12  # small-picture pixels: +-24 pixels per frame
_CROSS = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))
RING = tuple((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx)


def search(
    last: torch.Tensor,
    frames: torch.Tensor,
    inherited: torch.Tensor,
    cell: int,
    wanted: torch.Tensor | None = None,
    price: torch.Tensor | float = 0.0,
    path: torch.Tensor | None = None,
) -> torch.Tensor:
    """The table velocity per cell that best predicts `frames` (B, T, 3, H, W) from `last` (B, 3, H, W).

    T may be fewer than a block's frames: only real ones count. Cells that are not `wanted` (B, h, w) need not be
    searched, and keep what they inherited, or what of the table is nearest to it. Coarse to fine on luma: a full
    search of +-24 pixels per frame against the second (or only) frame, then candidates (zero, `inherited`
    (B, 2, h, w), the coarse winner and its neighbours') and three rounds of refinement at half resolution against
    every frame.
    At last cells take over a neighbour's velocity where that costs them less than the bits that being like their
    neighbours saves, at `price` a bit (MSE, a float or (B, 1, 1)). Everything moves along `path` (B, T, 2) besides.
    Returns (B, 2, h, w) float32.
    """
    height, width = frames.shape[-2:]
    grid = (height // cell, width // cell)
    table = speeds(frames.device)
    times = torch.arange(1, frames.shape[1] + 1, device=frames.device)
    last_half = F.avg_pool2d(luma(last), 2)  # (B, 1, H/2, W/2)
    frames_half = F.avg_pool2d(luma(frames.flatten(0, 1)), 2)
    frames_half = frames_half.view(*frames.shape[:2], *frames_half.shape[1:])  # (B, T, 1, H/2, W/2)
    inherited = in_table(inherited)
    if frames.shape[1] > 1:
        coarse = _full_search(F.avg_pool2d(last_half, 2), F.avg_pool2d(frames_half[:, 1], 2), grid)
    else:
        coarse = _full_search(last_half, frames_half[:, 0], grid)
    half = None
    if path is not None:
        half, seen = path / 2, min(2, frames.shape[1])
        coarse = coarse - path[:, seen - 1, :, None, None] / seen

    def cost(candidates: torch.Tensor, cells: Selection) -> torch.Tensor:  # (B, M, N, 2) -> (B, M, N)
        moved = warp_cells(last_half, candidates / 2, cells, cell // 2, times, path=half)
        error = (moved - cells.take_pixels(frames_half, cell // 2)[:, :, None]).flatten(3).square().mean(3)
        return error + 1e-6 * candidates.abs().sum(3)  # the slowest where it makes no difference

    found = inherited.clone()
    cells = Selection(torch.ones_like(found[:, 0], dtype=torch.bool) if wanted is None else wanted)
    padded = F.pad(table[nearest_entry(coarse, table)], (1, 1, 1, 1), mode="replicate")
    around = [padded[..., 1 + dy : 1 + dy + grid[0], 1 + dx : 1 + dx + grid[1]] for dy, dx in _CROSS]
    candidates = torch.stack([cells.take_each(c) for c in (torch.zeros_like(coarse), inherited, *around)], 2)
    best, least = _pick(candidates, cost(candidates, cells))
    cells.write_each(found, best)
    ring = torch.tensor(RING, device=frames.device)
    for stride in (3, 1, 1):
        nearby = nearest_entry(best, table).unsqueeze(2) + ring * stride  # (B, M, 8, 2)
        candidates = table[nearby.clamp(0, len(table) - 1)]
        other, cheapest = _pick(candidates, cost(candidates, cells))
        better = cheapest < least
        best = torch.where(better.unsqueeze(2), other, best)
        least = torch.where(better, cheapest, least)
        cells.write_each(found, best)

    left = torch.zeros_like(found[:, :1])
    cells.write_each(left, least.unsqueeze(2))
    chess = torch.arange(grid[0]).view(-1, 1) + torch.arange(grid[1])
    for parity in (0, 1):  # neighbours stand still while a cell decides
        here = (chess % 2 == parity).to(frames.device).expand_as(found[:, 0])
        some = Selection(here if wanted is None else here & wanted)
        if not some.count:
            continue
        padded = F.pad(found, (1, 1, 1, 1), mode="replicate")
        near = [padded[..., 1 + dy : 1 + dy + grid[0], 1 + dx : 1 + dx + grid[1]] for dy, dx in _CROSS[1:]]
        candidates = torch.stack([some.take_each(n) for n in (found, *near)], 2)  # (B, M, 5, 2)
        expected = candidates[:, :, 1:].sort(2).values[:, :, 1:2]  # the lower median, part by part
        away = (nearest_entry(candidates, table) - nearest_entry(expected, table)).abs()
        bits = 2 * torch.log2(1 + away.float()).sum(3)  # roughly what `formats` needs for it
        errors = torch.cat([some.take_each(left), cost(candidates[:, :, 1:], some)], 2)
        rate = price.view(-1, 1, 1) if isinstance(price, torch.Tensor) else price
        some.write_each(found, _pick(candidates, errors + rate * bits)[0])
    return found


def luma_errors(
    last: torch.Tensor, frames: torch.Tensor, cell: int, mode: str, path: torch.Tensor | None = None
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Of one picture (1, 3, H, W) and frames (1, T, 3, H, W) after it: a function from velocities (N, 2, h, w) to
    mean squared errors (N, h, w) of luma moved along them, by a quarter of the pixels. `mode` and `path` as in
    `warp`."""
    before = luma(last)
    after = luma(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])  # type: ignore[no-untyped-call]
    times = torch.arange(1, frames.shape[1] + 1, device=frames.device)
    grid = (frames.shape[3] // cell, frames.shape[4] // cell)
    cells = Selection.everywhere(1, grid, frames.device)
    wanted = cells.take_pixels(after, cell)[:, :, None, ..., ::_EVERY, ::_EVERY]

    def errors(velocity: torch.Tensor) -> torch.Tensor:
        tries = velocity.flatten(2).permute(2, 0, 1)[None]  # (1, M, N, 2)
        moved = warp_cells(before, tries, cells, cell, times, mode, path, _EVERY)
        return (moved - wanted).flatten(3).square().mean(3)[0].t().reshape(-1, *grid)

    return errors


def shifts(last: torch.Tensor, later: torch.Tensor, grid: tuple[int, int] | torch.Size) -> torch.Tensor:
    """Velocities (B, 2, h, w), in pixels of full size per frame, of cells that a full search finds.

    last, later: (B, 3, H / 4, W / 4), two frames apart, at a quarter of the size. Even numbers of up to 24 pixels.
    """
    return _full_search(luma(last), luma(later), (grid[0], grid[1]))


def steps(last: torch.Tensor, later: torch.Tensor, grid: tuple[int, int] | torch.Size) -> torch.Tensor:
    """As `shifts`, of frames one apart and given as luma (B, 1, H / 4, W / 4): multiples of 4 up to 48 pixels."""
    return 2 * _full_search(last, later, (grid[0], grid[1]))


def luma(rgb: torch.Tensor) -> torch.Tensor:
    """(B, 3, H, W) to (B, 1, H, W), by the weights of ITU-R BT.601."""
    weights = rgb.new_tensor((0.299, 0.587, 0.114)).view(1, 3, 1, 1)
    return (rgb * weights).sum(1, keepdim=True)


def _pick(candidates: torch.Tensor, cost: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, M, N, 2), (B, M, N) -> the cheapest (B, M, 2) and its cost (B, M)."""
    least, which = cost.min(2)
    return candidates.gather(2, which[..., None, None].expand(-1, -1, 1, 2)).squeeze(2), least


def _full_search(last: torch.Tensor, later: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Every shift of up to 12 pixels between two small pictures (B, 1, ., .).

    They are a quarter of the size and two frames apart, or half the size and one frame apart: a shift of s is 2 s
    pixels per frame. Returns (B, 2, h, w) velocities.
    """
    reach = _COARSE_REACH
    height, width = last.shape[-2:]
    side = 2 * reach + 1
    padded = F.pad(last, (reach, reach, reach, reach), mode="replicate")
    shifted = padded[:, 0].unfold(2, width, 1).transpose(1, 2)  # (B, side, H + 2 reach, W): along x
    pool = height // grid[0]
    away = torch.arange(-reach, reach + 1, device=last.device).square()
    costs = []
    for number in range(side):
        moved = shifted[:, :, number : number + height]
        # a slight preference for slow motion keeps flat areas still
        slow = 1e-6 * (away + away[number]).view(1, -1, 1, 1)
        costs.append(F.avg_pool2d((moved - later).square_(), pool) + slow)
    best = torch.cat(costs, 1).argmin(1)  # (B, h, w)
    return torch.stack([reach - best // side, reach - best % side], 1).float() * 2

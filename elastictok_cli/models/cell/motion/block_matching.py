"""Block motion: one velocity per cell, found by block matching on the last decoded frame.

A velocity (vy, vx) in pixels per frame moves the last decoded frame under the whole block: frame t
(1..T) is predicted by sampling the last frame at `position - t * velocity`. Velocities come from a table of
39 speeds per axis, finer near zero, so one velocity is one of 39 * 39 = 1,521 motion tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F

_POSITIVE = (0.25, 0.5, 0.75, 1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 10, 12, 14, 17, 20, 24)
SPEEDS = (*(-s for s in reversed(_POSITIVE)), 0.0, *_POSITIVE)
VELOCITIES = len(SPEEDS) ** 2
_EVERY = 2  # rows and columns of which one is looked at where many errors are compared
_COARSE_REACH = 12  # small-picture pixels: +-24 pixels per frame


def speeds(device: torch.device | str) -> torch.Tensor:
    """The speed table, (39,) float32, pixels per frame, ascending."""
    return torch.tensor(SPEEDS, dtype=torch.float32, device=device)


def velocity_to_index(velocity: torch.Tensor) -> torch.Tensor:
    """Number of a velocity whose parts are table entries. velocity: (B, 2, h, w). Returns (B, h, w) int64."""
    nearest = _nearest(velocity, speeds(velocity.device))
    return nearest[:, 0] * len(SPEEDS) + nearest[:, 1]


def index_to_velocity(index: torch.Tensor) -> torch.Tensor:
    """Inverse of `velocity_to_index`. index: (B, h, w) in [0, 1521). Returns (B, 2, h, w) float32."""
    table = speeds(index.device)
    return torch.stack([table[index // len(SPEEDS)], table[index % len(SPEEDS)]], 1)


def in_table(velocity: torch.Tensor) -> torch.Tensor:
    """The table velocities nearest to others. velocity: (B, 2, h, w) pixels per frame, as is what it returns."""
    table = speeds(velocity.device)
    return table[_nearest(velocity, table)]


def warp(
    picture: torch.Tensor,
    velocity: torch.Tensor,
    times: torch.Tensor,
    mode: str = "bilinear",
    path: torch.Tensor | None = None,
) -> torch.Tensor:
    """Move a picture along per-cell velocities, edges repeated. `mode`: bilinear, or bicubic (sharper, may overshoot).

    picture: (B, C, H, W); velocity: (B, 2, h, w) in pixels of `picture` per frame, one per cell of
    (H / h) x (W / w) pixels; times: (T,) frames ahead; path: (B, T, 2) how far everything has moved besides, in
    pixels of `picture`. Returns (B, T, C, H, W).
    """
    batch, channels, height, width = picture.shape
    rows, cols = velocity.shape[-2:]
    shape = (batch, len(times), rows, height // rows, cols, width // cols)
    shift = times.view(1, -1, 1, 1, 1).float() * velocity[:, None]  # (B, T, 2, h, w)
    if path is not None:
        shift = shift + path[..., None, None]
    # rows move alike within a row of a cell, columns within a column: far fewer numbers than there are pixels
    at_y = _between(_pixels(height, picture).view(rows, -1, 1) - shift[:, :, 0, :, None], height)
    at_x = _between(_pixels(width, picture).view(cols, -1) - shift[:, :, 1, :, :, None], width)
    grid = picture.new_empty(*shape, 2)
    grid[..., 0] = at_x[:, :, :, None]
    grid[..., 1] = at_y[..., None]
    moved = _sample(picture, grid.view(batch, -1, width, 2), mode)
    return moved.view(batch, channels, -1, height, width).transpose(1, 2)


class Cells(NamedTuple):
    """Some cells of each picture of a batch, as a tensor: pictures with fewer of them than others are filled up."""

    row: torch.Tensor  # (B, M) int64
    col: torch.Tensor  # (B, M) int64
    fill: (
        torch.Tensor | None
    )  # (B, M) bool: what only fills a picture up, and is never written; None: nothing does

    @classmethod
    def of(cls, wanted: torch.Tensor) -> Cells:
        """Those of wanted (B, h, w) bool. M is the most there are in any picture."""
        flat = wanted.flatten(1)
        most = int(flat.sum(1).max())
        number = flat.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :most]
        fill = ~flat.gather(1, number) if len(flat) > 1 else None
        return cls(number // wanted.shape[2], number % wanted.shape[2], fill)

    def __len__(self) -> int:
        return self.row.shape[1]

    def take(self, x: torch.Tensor) -> torch.Tensor:
        """(B, N, h, w) to (B, M, N)."""
        each = torch.arange(len(x), device=x.device).view(-1, 1)
        return x[each, :, self.row, self.col]

    def put(self, into: torch.Tensor, x: torch.Tensor) -> None:
        """Write x (B, M, N) to these cells of (B, N, h, w)."""
        each = torch.arange(len(x), device=x.device).view(-1, 1)
        if self.fill is not None:
            x = torch.where(self.fill.unsqueeze(2), self.take(into), x)
        into[each, :, self.row, self.col] = x

    def patches(self, frames: torch.Tensor, cell: int) -> torch.Tensor:
        """The pixels of these cells of (B, T, C, H, W), (B, M, T, C, cell, cell)."""
        each = torch.arange(len(frames), device=frames.device).view(-1, 1)
        return _by_cell(frames, cell)[each, self.row, self.col]

    def put_patches(self, into: torch.Tensor, patches: torch.Tensor) -> None:
        """Write patches (B, M, T, C, cell, cell) to these cells of (B, T, C, H, W)."""
        each = torch.arange(len(into), device=into.device).view(-1, 1)
        if self.fill is not None:
            before = self.patches(into, patches.shape[-1])
            patches = torch.where(self.fill.view(*self.fill.shape, 1, 1, 1, 1), before, patches)
        _by_cell(into, patches.shape[-1])[each, self.row, self.col] = patches


def warp_cells(
    picture: torch.Tensor,
    velocity: torch.Tensor,
    cells: Cells,
    cell: int,
    times: torch.Tensor,
    mode: str = "bilinear",
    path: torch.Tensor | None = None,
    every: int = 1,
) -> torch.Tensor:
    """What `warp` gives for some cells.

    velocity: (B, M, N, 2), N tries for each; `every`: only each n-th row and column of pixels. Returns (B, M, N, T, C,
    cell, cell).
    """
    batch, channels, height, width = picture.shape
    shift = times.view(-1, 1).float() * velocity[..., None, :]  # (B, M, N, T, 2)
    if path is not None:
        shift = shift + path[:, None, None]
    inside = _pixels(cell, picture)[::every]
    y = (cells.row * cell).view(batch, -1, 1, 1, 1) + inside
    x = (cells.col * cell).view(batch, -1, 1, 1, 1) + inside
    at_y = _between(y - shift[..., :1], height)  # (B, M, N, T, cell)
    at_x = _between(x - shift[..., 1:], width)
    grid = picture.new_empty(*at_y.shape, len(inside), 2)
    grid[..., 0] = at_x[..., None, :]
    grid[..., 1] = at_y[..., None]
    moved = _sample(picture, grid.view(batch, -1, len(inside), 2), mode)
    return moved.view(batch, channels, *at_y.shape[1:], len(inside)).movedim(1, 4)


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

    def cost(candidates: torch.Tensor, cells: Cells) -> torch.Tensor:  # (B, M, N, 2) -> (B, M, N)
        moved = warp_cells(last_half, candidates / 2, cells, cell // 2, times, path=half)
        error = (moved - cells.patches(frames_half, cell // 2)[:, :, None]).flatten(3).square().mean(3)
        return error + 1e-6 * candidates.abs().sum(3)  # the slowest where it makes no difference

    found = inherited.clone()
    cells = Cells.of(torch.ones_like(found[:, 0], dtype=torch.bool) if wanted is None else wanted)
    padded = F.pad(table[_nearest(coarse, table)], (1, 1, 1, 1), mode="replicate")
    around = [padded[..., 1 + dy : 1 + dy + grid[0], 1 + dx : 1 + dx + grid[1]] for dy, dx in _CROSS]
    candidates = torch.stack([cells.take(c) for c in (torch.zeros_like(coarse), inherited, *around)], 2)
    best, least = _pick(candidates, cost(candidates, cells))
    cells.put(found, best)
    ring = torch.tensor(RING, device=frames.device)
    for stride in (3, 1, 1):
        nearby = _nearest(best, table).unsqueeze(2) + ring * stride  # (B, M, 8, 2)
        candidates = table[nearby.clamp(0, len(table) - 1)]
        other, cheapest = _pick(candidates, cost(candidates, cells))
        better = cheapest < least
        best = torch.where(better.unsqueeze(2), other, best)
        least = torch.where(better, cheapest, least)
        cells.put(found, best)

    left = torch.zeros_like(found[:, :1])
    cells.put(left, least.unsqueeze(2))
    chess = torch.arange(grid[0]).view(-1, 1) + torch.arange(grid[1])
    for parity in (0, 1):  # neighbours stand still while a cell decides
        here = (chess % 2 == parity).to(frames.device).expand_as(found[:, 0])
        some = Cells.of(here if wanted is None else here & wanted)
        if not len(some):
            continue
        padded = F.pad(found, (1, 1, 1, 1), mode="replicate")
        near = [padded[..., 1 + dy : 1 + dy + grid[0], 1 + dx : 1 + dx + grid[1]] for dy, dx in _CROSS[1:]]
        candidates = torch.stack([some.take(n) for n in (found, *near)], 2)  # (B, M, 5, 2)
        expected = candidates[:, :, 1:].sort(2).values[:, :, 1:2]  # the lower median, part by part
        away = (_nearest(candidates, table) - _nearest(expected, table)).abs()
        bits = 2 * torch.log2(1 + away.float()).sum(3)  # roughly what `formats` needs for it
        errors = torch.cat([some.take(left), cost(candidates[:, :, 1:], some)], 2)
        rate = price.view(-1, 1, 1) if isinstance(price, torch.Tensor) else price
        some.put(found, _pick(candidates, errors + rate * bits)[0])
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
    cells = Cells.of(torch.ones(1, *grid, dtype=torch.bool, device=frames.device))
    wanted = cells.patches(after, cell)[:, :, None, ..., ::_EVERY, ::_EVERY]

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


_CROSS = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))
RING = tuple((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx)


def _nearest(speed: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """The number of the table entry nearest to each speed."""
    return (speed.unsqueeze(-1) - table).abs().argmin(-1)


def _pixels(count: int, like: torch.Tensor) -> torch.Tensor:
    return torch.arange(count, device=like.device, dtype=torch.float32)


def _between(position: torch.Tensor, size: int) -> torch.Tensor:
    """Pixel positions on the scale that `grid_sample` wants."""
    return (position + 0.5) * (2 / size) - 1


def _sample(picture: torch.Tensor, grid: torch.Tensor, mode: str) -> torch.Tensor:
    out: torch.Tensor = F.grid_sample(picture, grid, mode=mode, padding_mode="border", align_corners=False)
    return out


def _by_cell(frames: torch.Tensor, cell: int) -> torch.Tensor:
    """A view of (B, T, C, H, W), (B, h, w, T, C, cell, cell)."""
    batch, count, channels, height, width = frames.shape
    split = frames.view(batch, count, channels, height // cell, cell, width // cell, cell)
    return split.permute(0, 3, 5, 1, 2, 4, 6)


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

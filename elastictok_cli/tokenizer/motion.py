"""Block motion: one velocity per cell, found by block matching on the last decoded frame.

A velocity (vy, vx) in pixels per frame moves the last decoded frame under the whole block: frame t
(1..T) is predicted by sampling the last frame at `position - t * velocity`. Velocities come from a table of
39 speeds per axis, finer near zero, so one velocity is one of 39 * 39 = 1,521 motion tokens.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

_POSITIVE = (0.25, 0.5, 0.75, 1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 10, 12, 14, 17, 20, 24)
SPEEDS = (*(-s for s in reversed(_POSITIVE)), 0.0, *_POSITIVE)
VELOCITIES = len(SPEEDS) ** 2
_COARSE_REACH = 12  # small-picture pixels: +-24 pixels per frame


def speeds(device: torch.device | str) -> torch.Tensor:
    """The speed table, (39,) float32, pixels per frame, ascending."""
    return torch.tensor(SPEEDS, dtype=torch.float32, device=device)


def velocity_to_index(velocity: torch.Tensor) -> torch.Tensor:
    """Number of a velocity whose parts are table entries. velocity: (B, 2, h, w). Returns (B, h, w) int64."""
    nearest = (velocity.unsqueeze(-1) - speeds(velocity.device)).abs().argmin(-1)
    return nearest[:, 0] * len(SPEEDS) + nearest[:, 1]


def index_to_velocity(index: torch.Tensor) -> torch.Tensor:
    """Inverse of `velocity_to_index`. index: (B, h, w) in [0, 1521). Returns (B, 2, h, w) float32."""
    table = speeds(index.device)
    return torch.stack([table[index // len(SPEEDS)], table[index % len(SPEEDS)]], 1)


def warp(
    picture: torch.Tensor, velocity: torch.Tensor, times: torch.Tensor, mode: str = "bilinear"
) -> torch.Tensor:
    """Move a picture along per-cell velocities, edges repeated. `mode`: bilinear, or bicubic (sharper, may overshoot).

    picture: (B, C, H, W); velocity: (B, 2, h, w) in pixels of `picture` per frame, one per cell of
    (H / h) x (W / w) pixels; times: (T,) frames ahead. Returns (B, T, C, H, W).
    """
    batch, channels, height, width = picture.shape
    rows, cols = velocity.shape[-2:]
    flow = velocity.repeat_interleave(height // rows, -2).repeat_interleave(width // cols, -1)  # (B, 2, H, W)
    y = torch.arange(height, device=picture.device, dtype=torch.float32).view(1, 1, -1, 1)
    x = torch.arange(width, device=picture.device, dtype=torch.float32).view(1, 1, 1, -1)
    steps = times.view(1, -1, 1, 1).float()
    at_y = (y - steps * flow[:, None, 0] + 0.5) * (2 / height) - 1  # (B, T, H, W)
    at_x = (x - steps * flow[:, None, 1] + 0.5) * (2 / width) - 1
    grid = torch.stack([at_x, at_y], -1).view(batch, -1, width, 2)  # (B, T*H, W, 2)
    moved = F.grid_sample(picture, grid, mode=mode, padding_mode="border", align_corners=False)
    return moved.view(batch, channels, -1, height, width).transpose(1, 2)


def search(last: torch.Tensor, frames: torch.Tensor, inherited: torch.Tensor, cell: int) -> torch.Tensor:
    """The table velocity per cell that best predicts `frames` (B, T, 3, H, W) from `last` (B, 3, H, W).

    T may be fewer than a block's frames: only real ones count. Coarse to fine on luma: a full search of +-24
    pixels per frame against the second (or only) frame, then candidates (zero, `inherited` (B, 2, h, w), the coarse
    winner and its neighbours') and three rounds of refinement at half resolution against every frame.
    Returns (B, 2, h, w) float32.
    """
    height, width = frames.shape[-2:]
    grid = (height // cell, width // cell)
    table = speeds(frames.device)
    times = torch.arange(1, frames.shape[1] + 1, device=frames.device)
    last_half = F.avg_pool2d(_luma(last), 2)  # (B, 1, H/2, W/2)
    frames_half = F.avg_pool2d(_luma(frames.flatten(0, 1)), 2)
    frames_half = frames_half.view(*frames.shape[:2], *frames_half.shape[1:])  # (B, T, 1, H/2, W/2)
    if frames.shape[1] > 1:
        coarse = _full_search(F.avg_pool2d(last_half, 2), F.avg_pool2d(frames_half[:, 1], 2), grid)
    else:
        coarse = _full_search(last_half, frames_half[:, 0], grid)

    def cost(candidates: torch.Tensor) -> torch.Tensor:  # (B, N, 2, h, w) -> (B, N, h, w)
        batch, count = candidates.shape[:2]
        moved = warp(last_half.repeat_interleave(count, 0), candidates.flatten(0, 1) / 2, times)
        moved = moved.reshape(batch, count, *moved.shape[1:])  # (B, N, T, 1, H/2, W/2)
        error = (moved - frames_half[:, None]).square().mean((2, 3))  # (B, N, H/2, W/2)
        return F.avg_pool2d(error, cell // 2)

    padded = F.pad(coarse, (1, 1, 1, 1), mode="replicate")
    around = [padded[..., 1 + dy : 1 + dy + grid[0], 1 + dx : 1 + dx + grid[1]] for dy, dx in _CROSS]
    candidates = torch.stack([torch.zeros_like(coarse), inherited, *around], 1)
    best = _pick(candidates, cost(candidates))
    ring = torch.tensor(_RING, device=frames.device, dtype=torch.int64).view(1, -1, 2, 1, 1)
    for stride in (3, 1, 1):
        nearest = (best.unsqueeze(-1) - table).abs().argmin(-1)  # (B, 2, h, w)
        candidates = table[(nearest.unsqueeze(1) + ring * stride).clamp(0, len(table) - 1)]
        best = _pick(candidates, cost(candidates))
    return best


_CROSS = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))
_RING = tuple((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1))


def _luma(rgb: torch.Tensor) -> torch.Tensor:
    weights = rgb.new_tensor((0.299, 0.587, 0.114)).view(1, 3, 1, 1)
    return (rgb * weights).sum(1, keepdim=True)


def _pick(candidates: torch.Tensor, cost: torch.Tensor) -> torch.Tensor:
    """(B, N, 2, h, w), (B, N, h, w) -> the cheapest, (B, 2, h, w); the slowest where it makes no difference."""
    best = (cost + 1e-6 * candidates.abs().sum(2)).argmin(1)[:, None, None].expand(-1, 1, 2, -1, -1)
    return candidates.gather(1, best).squeeze(1)


def _full_search(last: torch.Tensor, later: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Every shift of up to 12 pixels between two small pictures (B, 1, ., .).

    They are a quarter of the size and two frames apart, or half the size and one frame apart: a shift of s is 2 s
    pixels per frame. Returns (B, 2, h, w) velocities.
    """
    reach = _COARSE_REACH
    height, width = last.shape[-2:]
    padded = F.pad(last, (reach, reach, reach, reach), mode="replicate")
    pool = height // grid[0]
    best_cost = torch.full((last.shape[0], 1, *grid), float("inf"), device=last.device)
    best = torch.zeros(last.shape[0], 1, *grid, dtype=torch.int64, device=last.device)
    shifts = [(dy, dx) for dy in range(-reach, reach + 1) for dx in range(-reach, reach + 1)]
    for number, (dy, dx) in enumerate(shifts):
        moved = padded[..., reach - dy : reach - dy + height, reach - dx : reach - dx + width]
        # a slight preference for slow motion keeps flat areas still
        cost = F.avg_pool2d((moved - later).square(), pool) + 1e-6 * (dy * dy + dx * dx)
        better = cost < best_cost
        best_cost = torch.where(better, cost, best_cost)
        best = torch.where(better, number, best)
    side = 2 * reach + 1
    return torch.cat([best // side - reach, best % side - reach], 1).float() * 2

"""Motion compensation: a picture moved along the motion vectors of its cells."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from elastictok_cli.models.cell.selection import Selection


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


def warp_cells(
    picture: torch.Tensor,
    velocity: torch.Tensor,
    cells: Selection,
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
    y = (cells.each.row * cell).view(batch, -1, 1, 1, 1) + inside
    x = (cells.each.column * cell).view(batch, -1, 1, 1, 1) + inside
    at_y = _between(y - shift[..., :1], height)  # (B, M, N, T, cell)
    at_x = _between(x - shift[..., 1:], width)
    grid = picture.new_empty(*at_y.shape, len(inside), 2)
    grid[..., 0] = at_x[..., None, :]
    grid[..., 1] = at_y[..., None]
    moved = _sample(picture, grid.view(batch, -1, len(inside), 2), mode)
    return moved.view(batch, channels, *at_y.shape[1:], len(inside)).movedim(1, 4)


def _pixels(count: int, like: torch.Tensor) -> torch.Tensor:
    return torch.arange(count, device=like.device, dtype=torch.float32)


def _between(position: torch.Tensor, size: int) -> torch.Tensor:
    """Pixel positions on the scale that `grid_sample` wants."""
    return (position + 0.5) * (2 / size) - 1


def _sample(picture: torch.Tensor, grid: torch.Tensor, mode: str) -> torch.Tensor:
    out: torch.Tensor = F.grid_sample(picture, grid, mode=mode, padding_mode="border", align_corners=False)
    return out

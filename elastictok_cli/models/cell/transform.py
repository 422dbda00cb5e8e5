"""The transform: frames to the vectors of their cells, those to KLT coefficients, and back."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from elastictok_cli.models.precision import full_precision

PATCH = 8  # pixels; the networks work on patches of 8x8 pixels


def to_cells(frames: torch.Tensor, cell: int) -> torch.Tensor:
    """(B, T, 3, H, W) to the values of cells (B, h, w, 3 * T * cell * cell), a cell's patches of 8x8 after each other.

    Of a patch the order is frame, channel, row, column.
    """
    batch, count, _, height, width = frames.shape
    side = cell // PATCH
    split = frames.reshape(batch, count, 3, height // cell, side, PATCH, width // cell, side, PATCH)
    return split.permute(0, 3, 6, 4, 7, 1, 2, 5, 8).reshape(batch, height // cell, width // cell, -1)


def from_cells(cells: torch.Tensor, frames: int, cell: int) -> torch.Tensor:
    """Inverse of `to_cells`, with T = `frames`."""
    batch, rows, columns, _ = cells.shape
    side = cell // PATCH
    split = cells.reshape(batch, rows, columns, side, side, frames, 3, PATCH, PATCH)
    return split.permute(0, 5, 6, 1, 3, 7, 2, 4, 8).reshape(batch, frames, 3, rows * cell, columns * cell)


def first_frames(cells: torch.Tensor, frames: int, count: int, cell: int) -> torch.Tensor:
    """The first `count` of T = `frames` frames that `from_cells` gives: (B, count, 3, H, W)."""
    if count == frames:
        return from_cells(cells, frames, cell)
    return from_cells(_by_frame(cells, frames)[..., :count, :].flatten(3), count, cell)


def last_frame(cells: torch.Tensor, frames: int, cell: int) -> torch.Tensor:
    """The last of T = `frames` frames that `from_cells` gives: (B, 3, H, W)."""
    return from_cells(_by_frame(cells, frames)[..., -1, :].flatten(3), 1, cell)[:, 0]


def _by_frame(cells: torch.Tensor, frames: int) -> torch.Tensor:
    """Values of cells as (B, h, w, patches of a cell, T, 3 * 64)."""
    return cells.reshape(*cells.shape[:3], -1, frames, 3 * PATCH**2)


def from_stored(values: torch.Tensor, frames: int, cell: int) -> torch.Tensor:
    """Values of cells (..., 3 * T * cell * cell) in the order frame, channel, row, column, in that of `to_cells`.

    Checkpoints store bases in the first order. T is `frames`.
    """
    return to_cells(values.reshape(-1, frames, 3, cell, cell), cell).view(values.shape)


def to_stored(values: torch.Tensor, frames: int, cell: int) -> torch.Tensor:
    """Inverse of `from_stored`."""
    return from_cells(values.reshape(-1, 1, 1, values.shape[-1]), frames, cell).view(values.shape)


def to_map(positions: torch.Tensor) -> torch.Tensor:
    """Values of the patches of cells (B, h, w, s * s, C) as a map (B, C, H / 8, W / 8), channels last in memory."""
    batch, rows, columns, patches, channels = positions.shape
    side = math.isqrt(patches)
    split = positions.view(batch, rows, columns, side, side, channels).transpose(2, 3)
    return split.reshape(batch, rows * side, columns * side, channels).permute(0, 3, 1, 2)


def from_map(x: torch.Tensor, side: int) -> torch.Tensor:
    """Inverse of `to_map`, for cells of `side` x `side` patches."""
    batch, channels, height, width = x.shape
    split = x.permute(0, 2, 3, 1).reshape(batch, height // side, side, width // side, side, channels)
    return split.transpose(2, 3).reshape(batch, height // side, width // side, side**2, channels)


@full_precision
def project(x: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """A matrix (out, in) applied to rows (..., in): (..., out) float32."""
    return F.linear(x, matrix)


@full_precision
def cell_energy(residual: torch.Tensor, cell: int) -> torch.Tensor:
    """Sum of squares in each cell. residual: (B, T, 3, H, W). Returns (B, h, w)."""
    return F.avg_pool2d(residual.square().sum((1, 2)).unsqueeze(1), cell).squeeze(1) * cell**2


@full_precision
def energy_of(cells: torch.Tensor) -> torch.Tensor:
    """Sum of squares of values of cells (B, h, w, n): (B, h, w)."""
    return cells.square().sum(3)

"""The transform: frames to the vectors of their cells, those to KLT coefficients, and back."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from elastictok_cli.models.cell.config import DefaultConfig
from elastictok_cli.models.precision import full_precision


def to_cells(frames: torch.Tensor, cell: int) -> torch.Tensor:
    """(B, T, 3, H, W) -> (B, 3 * T * cell * cell, h, w), channels last in memory."""
    batch, count, _, height, width = frames.shape
    rows, cols = height // cell, width // cell
    split = frames.reshape(batch, 3 * count, rows, cell, cols, cell).permute(0, 2, 4, 1, 3, 5)
    return split.reshape(batch, rows, cols, -1).permute(0, 3, 1, 2)


def from_cells(cells: torch.Tensor, config: DefaultConfig) -> torch.Tensor:
    """Inverse of `to_cells`."""
    return _from_patches(cells, config.frames, config.cell)


def to_eighth(frames: torch.Tensor) -> torch.Tensor:
    """(B, T, 3, H, W) -> (B, 3 * T * 64, H/8, W/8), channels last in memory."""
    return to_cells(frames, 8)


def from_eighth(patches: torch.Tensor, frames: int) -> torch.Tensor:
    """Inverse of `to_eighth`."""
    return _from_patches(patches, frames, 8)


def _from_patches(x: torch.Tensor, frames: int, size: int) -> torch.Tensor:
    """(B, T * 3 * size * size, h, w) -> (B, T, 3, H, W)."""
    batch, _, rows, cols = x.shape
    split = x.permute(0, 2, 3, 1).reshape(batch, rows, cols, 3 * frames, size, size).permute(0, 3, 1, 4, 2, 5)
    return split.reshape(batch, frames, 3, rows * size, cols * size)


def project(x: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """A matrix (out, in) applied at every cell of x (B, in, h, w)."""
    return project_rows(x.permute(0, 2, 3, 1), matrix).permute(0, 3, 1, 2)


@full_precision
def project_rows(x: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """A matrix (out, in) applied to rows (..., in): (..., out) float32."""
    return F.linear(x, matrix)


@full_precision
def cell_energy(residual: torch.Tensor, cell: int) -> torch.Tensor:
    """Sum of squares in each cell. residual: (B, T, 3, H, W). Returns (B, h, w)."""
    return F.avg_pool2d(residual.square().sum((1, 2)).unsqueeze(1), cell).squeeze(1) * cell**2

"""The one place that turns frames into the model's input, the model's output into pixels, and pixels into errors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from elastictok_cli.models.interface import Tokenizer
from elastictok_cli.models.precision import from_bytes, to_bytes


@dataclass(frozen=True)
class Job:
    """What is to be coded: padded frames for the model, real pixels for the promise."""

    frames: torch.Tensor  # (1, T, 3, H, W) float32, padded to whole cells and whole blocks
    source: torch.Tensor  # (n, height, width, 3) uint8, n <= T real frames


def to_pixels(frames: torch.Tensor, height: int, width: int, count: int) -> torch.Tensor:
    """Model output (1, T, 3, H, W) in [-1, 1] to what is shown: (count, height, width, 3) uint8."""
    shown = frames[0, :count, :, :height, :width].permute(0, 2, 3, 1)
    return to_bytes(shown)


def frame_errors(source: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    """MSE of each frame on the [-1, 1] scale, (n,) float64, from uint8 pictures (n, H, W, 3)."""
    difference = source.to(torch.int32) - pixels.to(torch.int32)
    total = difference.square_().flatten(1).sum(1, dtype=torch.int64)
    return total.double() / (source[0].numel() * 127.5**2)


def make_job(rgb: np.ndarray, tokenizer: Tokenizer, device: torch.device) -> Job:
    """Pictures (n, H, W, 3) uint8 to a job: edges repeated to whole cells, the last frame to a whole block."""
    spec = tokenizer.spec
    source = torch.from_numpy(rgb).to(device)
    count, height, width, _ = source.shape
    x = from_bytes(source.permute(0, 3, 1, 2))
    x = F.pad(x, (0, -width % spec.cell[1], 0, -height % spec.cell[0]), mode="replicate")
    if count < spec.frames:
        x = torch.cat([x, x[-1:].expand(spec.frames - count, -1, -1, -1)])
    return Job(x[None], source)


def cell_errors(job: Job, pixels: torch.Tensor, cell: tuple[int, int]) -> torch.Tensor:
    """Measured squared error of each cell, (1, h, w), scaled up to whole blocks where frames are padding."""
    count = len(job.source)
    difference = (job.source.float() - pixels.float()).square().sum((0, 3)) / 127.5**2  # (H, W)
    return _sum_cells(difference, cell) * (job.frames.shape[1] / count)


def real_share(job: Job, cell: tuple[int, int]) -> torch.Tensor:
    """Share of each cell's area inside the picture, (1, h, w)."""
    _, height, width, _ = job.source.shape
    return _sum_cells(job.source.new_ones(height, width, dtype=torch.float32), cell) / (cell[0] * cell[1])


def _sum_cells(plane: torch.Tensor, cell: tuple[int, int]) -> torch.Tensor:
    height, width = plane.shape
    padded = F.pad(plane[None], (0, -width % cell[1], 0, -height % cell[0]))
    return F.avg_pool2d(padded, cell) * (cell[0] * cell[1])

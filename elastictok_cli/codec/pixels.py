"""The one place that turns frames into the model's input, the model's output into pixels, and pixels into errors.

Pixels are uint8, (n, H, W, 3). The model's frames are float32 in [-1, 1], (B, T, 3, H, W), with H and W multiples of
its cell. Errors are on the [-1, 1] scale, of the rounded pixels that a decoder outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from elastictok_cli.models.interface import Tokenizer
from elastictok_cli.video.records import Frame

HALF_RANGE = 127.5  # pixel values for 1 on the [-1, 1] scale
LUMA = np.array((0.299, 0.587, 0.114), np.float32)  # of red, green and blue (BT.601)


@dataclass(frozen=True)
class Job:
    """One block to code: the model's input, and the real pixels that its error is measured on.

    frames: (1, T, 3, H, W) float32 in [-1, 1]; T frames of a whole block, H and W of whole cells.
    source: (n, height, width, 3) uint8; the n <= T real frames.
    """

    frames: torch.Tensor
    source: torch.Tensor

    @cached_property
    def planes(self) -> torch.Tensor:
        """The source as (n, 3, height, width) uint8, as decoded frames are laid out."""
        return self.source.permute(0, 3, 1, 2).contiguous()


class Errors(NamedTuple):
    """What one decode of a job errs by.

    frames: (n,) MSE of each real frame. cells: (1, h, w) squared error of each cell, scaled up to a whole block where
    frames of it are padding. Both are float64.
    """

    frames: torch.Tensor
    cells: torch.Tensor


def make_job(rgb: npt.NDArray[np.uint8], tokenizer: Tokenizer, device: torch.device) -> Job:
    """The job of pixels (n, H, W, 3) uint8: edges are repeated to whole cells, the last frame to a whole block."""
    source = torch.from_numpy(rgb).to(device)
    frames = padded(source, tokenizer.spec.cell)
    if (missing := tokenizer.spec.frames - len(frames)) > 0:
        frames = torch.cat([frames, frames[-1:].expand(missing, -1, -1, -1)])
    return Job(frames[None], source)


def job_of(frames: Sequence[Frame], tokenizer: Tokenizer, device: torch.device) -> Job:
    """The job of one block's frames."""
    return make_job(np.stack([frame.rgb for frame in frames]), tokenizer, device)


def padded(pixels: torch.Tensor, cell: tuple[int, int]) -> torch.Tensor:
    """Pixels (n, height, width, 3) uint8 as (n, 3, H, W) float32 in [-1, 1], edges repeated to whole cells."""
    frames = from_uint8(pixels.permute(0, 3, 1, 2))
    height, width = frames.shape[-2:]
    return F.pad(frames, (0, -width % cell[1], 0, -height % cell[0]), mode="replicate")


def to_uint8(frames: torch.Tensor) -> torch.Tensor:
    """Frames in [-1, 1] as a decoder outputs them: rounded, uint8, of the same shape."""
    return ((frames + 1) * HALF_RANGE).round().clamp(0, 255).to(torch.uint8)


def from_uint8(pixels: torch.Tensor) -> torch.Tensor:
    """uint8 pixels as the model sees them: float32 in [-1, 1], of the same shape."""
    return pixels.float() / HALF_RANGE - 1


def to_pixels(frames: torch.Tensor, height: int, width: int, count: int) -> torch.Tensor:
    """The model's output (1, T, 3, H, W) in [-1, 1] as pixels (count, height, width, 3) uint8, padding cut off."""
    return to_uint8(frames[0, :count, :, :height, :width].permute(0, 2, 3, 1))


def frame_errors(source: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    """MSE of each frame, (n,) float64, between pixels (n, H, W, 3) uint8."""
    difference = source.to(torch.int32) - pixels.to(torch.int32)
    total = difference.square_().flatten(1).sum(1, dtype=torch.int64)
    return total.double() / (source[0].numel() * HALF_RANGE**2)


def picture_error(source: npt.NDArray[np.uint8], pixels: npt.NDArray[np.uint8]) -> float:
    """MSE between two pictures (H, W, 3) uint8 of one size."""
    both = torch.from_numpy(np.stack([source, pixels]))
    return float(frame_errors(both[:1], both[1:])[0])


def errors_of(job: Job, decoded: torch.Tensor, cell: tuple[int, int]) -> Errors:
    """The errors of the model's output (1, T, 3, H, W) in [-1, 1], T at least n, after rounding to 8 bits.

    They are exact: sums of whole numbers that float32, and behind the rows of a cell float64, can hold.
    """
    count, _, height, width = job.planes.shape
    shown = decoded[0, :count, :, :height, :width].add(1).mul_(HALF_RANGE).round_().clamp_(0, 255)
    squares = shown.sub_(job.planes).square_().sum(1)  # (n, height, width)
    squares = F.pad(squares, (0, -width % cell[1], 0, -height % cell[0]))
    rows, columns = squares.shape[1] // cell[0], squares.shape[2] // cell[1]
    in_rows = squares.view(count, rows, cell[0], columns, cell[1]).sum(4)
    sums = in_rows.sum(2, dtype=torch.float64) / HALF_RANGE**2  # (n, h, w)
    scale = job.frames.shape[1] / count
    return Errors(sums.sum((1, 2)) / job.source[0].numel(), sums.sum(0, keepdim=True) * scale)


def real_share(job: Job, cell: tuple[int, int]) -> torch.Tensor:
    """Share of each cell's area that is inside the picture, (1, h, w)."""
    _, height, width, _ = job.source.shape
    return _sum_cells(job.source.new_ones(height, width, dtype=torch.float32), cell) / (cell[0] * cell[1])


def thumbnail(rgb: npt.NDArray[np.uint8], side: int) -> npt.NDArray[np.float32]:
    """Luma of every n-th pixel of a picture (H, W, 3), 0 to 255; its shorter side has `side` to 2 * `side` pixels."""
    small: npt.NDArray[np.float32] = _every_nth_pixel(rgb, side) @ LUMA
    return small


def shrunk_luma(rgb: npt.NDArray[np.uint8], step: int) -> npt.NDArray[np.float32]:
    """Luma of a picture (H, W, 3), 0 to 255, each `step` x `step` pixels averaged; what is left at the edges is cut."""
    height, width = (max(1, side // step) for side in rgb.shape[:2])
    tiles = rgb[: height * step, : width * step] @ LUMA
    tiles = tiles.reshape(height, min(step, rgb.shape[0]), width, min(step, rgb.shape[1]))
    small: npt.NDArray[np.float32] = tiles.mean((1, 3), dtype=np.float32)
    return small


def rough_error(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8], side: int) -> float:
    """MSE between two pictures (H, W, 3) at every n-th pixel: cheap, to tell motion from stillness."""
    difference = _every_nth_pixel(a, side) - _every_nth_pixel(b, side)
    return float(np.square(difference).mean()) / HALF_RANGE**2


def _every_nth_pixel(rgb: npt.NDArray[np.uint8], side: int) -> npt.NDArray[np.float32]:
    step = max(1, min(rgb.shape[:2]) // side)
    return rgb[::step, ::step].astype(np.float32)


def _sum_cells(plane: torch.Tensor, cell: tuple[int, int]) -> torch.Tensor:
    """Sums over the cells of a plane (height, width), (1, h, w)."""
    height, width = plane.shape
    whole = F.pad(plane[None], (0, -width % cell[1], 0, -height % cell[0]))
    return F.avg_pool2d(whole, cell) * (cell[0] * cell[1])

"""3x3 convolutions with half the work, for inference on CPUs.

This is Winograd's F(4x4, 3x3) (Lavin and Gray, arXiv 1509.09308). A tile of 6x6 inputs makes 4x4 outputs: 36 products
for each pair of channels rather than 144. What differs from the plain sum is rounding, about 1e-5 of the values.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

_TILES = 128  # worked on together: they stay in the processor's cache, and memory is bounded

_WEIGHT = torch.tensor(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ],
    dtype=torch.float64,
)
_INPUT = torch.tensor(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
)
_OUTPUT = torch.tensor([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]])
_INPUT_2D = torch.kron(_INPUT, _INPUT).float()  # (36, 36), on flattened 6x6 tiles
_OUTPUT_2D = torch.kron(_OUTPUT, _OUTPUT).float()  # (16, 36)


def transform(weight: torch.Tensor) -> torch.Tensor:
    """What `conv3x3` takes, (36, in, out), of a layer's weight (out, in, 3, 3)."""
    wide = _WEIGHT @ weight.double() @ _WEIGHT.t()  # (out, in, 6, 6)
    return wide.permute(2, 3, 1, 0).reshape(36, *weight.shape[1::-1]).float().contiguous()


def conv3x3(x: torch.Tensor, transformed: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """The convolution of x (B, in, H, W) with zeros around it. Returns (B, out, H, W), channels last in memory."""
    batch, channels, height, width = x.shape
    rows, cols = -(-height // 4), -(-width // 4)
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 4 * cols - width + 1, 1, 4 * rows - height + 1))
    tiles = padded.unfold(1, 6, 4).unfold(2, 6, 4).permute(4, 5, 0, 1, 2, 3)  # (6, 6, B, rows, cols, in)
    out = x.new_empty(batch, rows, 4, cols, 4, len(bias))
    at_once = max(1, _TILES // cols)
    for first in range(0, rows, at_once):
        part = tiles[:, :, :, first : first + at_once]
        spread = _INPUT_2D @ part.reshape(36, -1)
        summed = torch.bmm(spread.view(36, -1, channels), transformed)  # (36, B * n * cols, out)
        done = _OUTPUT_2D @ summed.flatten(1)
        done = done.view(4, 4, batch, -1, cols, len(bias)).permute(2, 3, 0, 4, 1, 5)
        torch.add(done, bias, out=out[:, first : first + at_once])
    return out.view(batch, 4 * rows, 4 * cols, -1)[:, :height, :width].permute(0, 3, 1, 2)

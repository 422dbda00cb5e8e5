"""Finite scalar quantization (Mentzer et al., arXiv 2309.15505) with a plain clamp instead of a tanh.

The values that arrive here are linear transform coefficients divided by their step, so a uniform
quantizer is what is wanted; a tanh would spend its finest steps on the rarest values. Always float32 and
int64: half precision merges codes.
"""

from __future__ import annotations

import torch


def digit_range(levels: torch.Tensor) -> torch.Tensor:
    """The least and the greatest digit, (2, D, 1, 1)."""
    return torch.stack([-(levels // 2), (levels - 1) // 2]).view(2, -1, 1, 1)


def quantize(values: torch.Tensor, levels: torch.Tensor, within: torch.Tensor | None = None) -> torch.Tensor:
    """Round to the nearest level: integers in [-(L // 2), (L - 1) // 2], gradient straight through.

    values: (..., D, h, w) float32 in units of one step; levels: (D,) ints; within: their `digit_range`, where it is
    known, in any shape, for other orders of axes. Returns the same shape, float32. The gradient is 1 inside the range
    and 0 where the value is clipped.
    """
    low, high = digit_range(levels) if within is None else within
    if not values.requires_grad:
        return values.float().clamp(low, high).round_()
    clipped = torch.minimum(torch.maximum(values.float(), low), high)
    return clipped + (clipped.round() - clipped).detach()


def digits_to_index(digits: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """Mixed-radix number of one code, first digit fastest. digits: (..., D, h, w) as `quantize` gives them.

    Returns (..., h, w) int64 in [0, prod(levels)).
    """
    unsigned = digits.round().to(torch.int64) + (levels // 2).view(-1, 1, 1)
    return (unsigned * _radix(levels).view(-1, 1, 1)).sum(-3)


def index_to_digits(index: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """Inverse of `digits_to_index`. index: (..., h, w) int64 in [0, prod(levels)). Returns (..., D, h, w) float32."""
    unsigned = (index.unsqueeze(-3) // _radix(levels).view(-1, 1, 1)) % levels.view(-1, 1, 1)
    return (unsigned - (levels // 2).view(-1, 1, 1)).to(torch.float32)


def _radix(levels: torch.Tensor) -> torch.Tensor:
    return torch.cat([levels.new_ones(1), levels.cumprod(0)[:-1]])

"""The bottleneck's FSQ: encoder output to codes, and codes to token numbers."""

from __future__ import annotations

import math

import torch

KL_WEIGHT = 1e-8  # of the VAE's KL divergence in the loss, as published


def fsq(raw: torch.Tensor, levels: tuple[int, ...]) -> torch.Tensor:
    """Finite scalar quantization (arXiv 2309.15505): raw (..., d) to codes in [-1, 1], gradient of the rounding 1."""
    bound = fsq_bound(raw, levels)
    rounded = bound + (bound.round() - bound).detach()
    return rounded / _half_width(levels, raw)


def fsq_bound(raw: torch.Tensor, levels: tuple[int, ...]) -> torch.Tensor:
    """Squash (..., d) so that rounding gives each digit its number of levels."""
    count = raw.new_tensor(levels)  # (d,)
    half = (count - 1) * (1 - 1e-3) / 2
    offset = torch.where(count % 2 == 0, 0.5, 0.0)
    shift = (
        offset / half
    ).tan()  # the published code has tan where atanh was meant; the weights are made for it
    return (raw + shift).tanh() * half - offset


def codes_to_index(codes: torch.Tensor, levels: tuple[int, ...]) -> torch.Tensor:
    """FSQ codes (..., d) to token numbers (...) int64, first digit fastest."""
    half = _half_width(levels, codes)
    digits = (codes * half + half).round().to(torch.int64)  # (..., d)
    return (digits * _basis(levels, codes.device)).sum(-1)


def index_to_codes(index: torch.Tensor, levels: tuple[int, ...]) -> torch.Tensor:
    """Inverse of `codes_to_index`: (...) to (..., d) float32."""
    count = torch.tensor(levels, device=index.device)
    digits = index.unsqueeze(-1) // _basis(levels, index.device) % count  # (..., d)
    half = count // 2
    return (digits - half).float() / half.float()


def _half_width(levels: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
    return like.new_tensor([n // 2 for n in levels])


def _basis(levels: tuple[int, ...], device: torch.device) -> torch.Tensor:
    return torch.tensor([math.prod(levels[:i]) for i in range(len(levels))], device=device)

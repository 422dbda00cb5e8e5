"""Cells of keyframe blocks that keep no token, filled in smoothly from the others.

Pull-push interpolation (Gortler, Grzeszczuk, Szeliski, Cohen, "The Lumigraph", 1996) of a lattice of means: known ones
are averaged to ever coarser lattices, unknown ones taken from the next coarser, with a few rounds of averaging
neighbours on each, which takes the edges off. It reads no token, so whichever tokens are dropped, the picture holds.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F

from elastictok_cli.models.cell.transform import cell_energy
from elastictok_cli.models.interface import Filled
from elastictok_cli.models.precision import full_precision

PITCH = 8  # pixels between the points of the lattice
_SMOOTHING_ROUNDS = 4  # of averaging on each level
_FEW_POINTS = 256  # up to which a lattice is smoothed by matrix products
_TINY = 1e-6
_COARSE_PIXELS = 4  # side of the square averaged to one pixel where smooth pictures are compared


def means(picture: torch.Tensor) -> torch.Tensor:
    """What the lattice knows of a picture (B, C, H, W), whose sides are multiples of 8: (B, C, H / 8, W / 8)."""
    return F.avg_pool2d(picture, PITCH)


@full_precision
def smooth(lattice: torch.Tensor, coded: torch.Tensor, pitch: int = PITCH) -> torch.Tensor:
    """A smooth picture through the cells that are coded. Any number of channels.

    lattice: (B, C, H / 8, W / 8) from `means`, read only where coded; coded: (B, h, w) bool, one for each cell, whose
    sides are multiples of 8 pixels. Returns (B, C, H, W), or with a smaller pitch a smaller picture; zeros where a
    picture has no coded cell.
    """
    each = lattice.shape[-1] // coded.shape[-1]
    known = F.interpolate(coded.to(lattice.dtype).unsqueeze(1), scale_factor=each)
    filled = _spread(torch.cat([lattice * known, known], 1))
    return F.interpolate(filled, scale_factor=pitch, mode="bilinear", align_corners=False)


def _spread(given: torch.Tensor) -> torch.Tensor:
    """Values (B, C, h, w) as given where they are known, something smooth where they are not.

    given: (B, C + 1, h, w), the values, zero where unknown, and last 1 where they are known, 0 where they are not.
    """
    height, width = given.shape[-2:]
    value = given[:, :-1]
    if height == width == 1:
        return value
    # at an odd edge, windows with fewer points have the mean of fewer
    pooled = F.avg_pool2d(given, 2, ceil_mode=True)
    coarse = _spread(pooled / pooled[:, -1:].clamp_min(_TINY))
    finer = F.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)[..., :height, :width]
    unknown = 1 - given[:, -1:]
    out = torch.addcmul(value, unknown, finer)
    if height * width <= _FEW_POINTS:
        return _smooth_few(out, value, unknown)
    for _ in range(_SMOOTHING_ROUNDS):
        wide = F.pad(out, (1, 1, 1, 1), mode="replicate")
        out = torch.addcmul(value, unknown, _beside(wide), value=0.25)
    return out


def _smooth_few(out: torch.Tensor, value: torch.Tensor, unknown: torch.Tensor) -> torch.Tensor:
    """The rounds of averaging on a small lattice: one matrix product each, for fewer operations.

    out, value: (B, C, h, w); unknown: (B, 1, h, w).
    """
    shape = out.shape
    averaging = _averaging(*shape[-2:], out.device) * unknown.flatten(2)  # (B, N, N)
    out, value = out.flatten(2), value.flatten(2)
    for _ in range(_SMOOTHING_ROUNDS):
        out = torch.baddbmm(value, out, averaging)
    return out.view(shape)


@cache
def _averaging(height: int, width: int, device: torch.device) -> torch.Tensor:
    """The matrix (N, N) by which the N = height * width points of a lattice, as rows, become their neighbours' mean."""
    points = torch.eye(height * width, device=device).view(-1, 1, height, width)
    return _beside(F.pad(points, (1, 1, 1, 1), mode="replicate")).flatten(1) / 4


def _beside(wide: torch.Tensor) -> torch.Tensor:
    """The sum of the four neighbours of each inner point, (..., h + 2, w + 2) to (..., h, w)."""
    # one below left of a place between points and one above right of it: each such sum serves two points
    pairs = wide[..., :-1, 1:] + wide[..., 1:, :-1]
    return pairs[..., :-1, :-1] + pairs[..., 1:, 1:]


def filled_errors(frames: torch.Tensor, count: int, cell: int) -> Filled:
    """A function from the cells of a keyframe block that are coded, (B, h, w) bool, to the squared error (B, h, w) that
    each of the others has when it is filled in from them. Assumes that the coded cells equal the source. Several sets
    of cells can be asked for at once, (S * B, h, w), each for all B blocks.

    frames: (B, T, 3, H, W), of which the first `count` are real; the others are taken to err as much as those.
    """
    real = frames[:, :count].flatten(1, 2)
    known = means(real)
    small = F.avg_pool2d(real, _COARSE_PIXELS)
    # source values that one value of `small` counts for: the pixels it averages, and frames that repeat
    scale = _COARSE_PIXELS**2 * (frames.shape[1] / count)
    coarse_cell = cell // _COARSE_PIXELS
    # what no smooth picture has; what it does have shows at a quarter of the size
    detail = cell_energy(frames, cell) - scale * cell_energy(small.unsqueeze(1), coarse_cell)

    def filled(coded: torch.Tensor) -> torch.Tensor:
        sets = len(coded) // len(frames)
        guess = smooth(known.repeat(sets, 1, 1, 1), coded, PITCH // _COARSE_PIXELS)
        difference = small - guess.view(sets, *small.shape)
        error = cell_energy(difference.flatten(0, 1).unsqueeze(1), coarse_cell)
        return torch.add(detail, error.view(sets, *detail.shape), alpha=scale).flatten(0, 1)

    return filled

"""Cells of keyframe blocks that keep no token, filled in smoothly from the others.

Pull-push interpolation (Gortler, Grzeszczuk, Szeliski, Cohen, "The Lumigraph", 1996) of a lattice of means: known ones
are averaged to ever coarser lattices, unknown ones taken from the next coarser, with a few rounds of averaging
neighbours on each, which takes the edges off. It reads no token, so whichever tokens are dropped, the picture holds.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from elastictok_cli.models.cell.transform import cell_energy
from elastictok_cli.models.interface import Filled

PITCH = 8  # pixels between the points of the lattice
_SMOOTHING_ROUNDS = 4  # of averaging on each level
_TINY = 1e-6
_COARSE_PIXELS = 4  # side of the square averaged to one pixel where smooth pictures are compared


def means(picture: torch.Tensor) -> torch.Tensor:
    """What the lattice knows of a picture (B, C, H, W), whose sides are multiples of 8: (B, C, H / 8, W / 8)."""
    return F.avg_pool2d(picture, PITCH)


def smooth(lattice: torch.Tensor, coded: torch.Tensor, pitch: int = PITCH) -> torch.Tensor:
    """A smooth picture through the cells that are coded. Any number of channels.

    lattice: (B, C, H / 8, W / 8) from `means`, read only where coded; coded: (B, h, w) bool, one for each cell, whose
    sides are multiples of 8 pixels. Returns (B, C, H, W), or with a smaller pitch a smaller picture; zeros where a
    picture has no coded cell.
    """
    each = lattice.shape[-1] // coded.shape[-1]
    known = coded.to(lattice.dtype).unsqueeze(1)
    known = known.repeat_interleave(each, -2).repeat_interleave(each, -1)
    filled = _spread(lattice, known)
    return F.interpolate(filled, scale_factor=pitch, mode="bilinear", align_corners=False)


def _spread(value: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """value (B, C, h, w) where known (B, 1, h, w) is 1, something smooth where it is 0."""
    height, width = value.shape[-2:]
    if height == width == 1:
        return value * known
    edge = (0, width % 2, 0, height % 2)
    share = F.avg_pool2d(F.pad(known, edge), 2)
    mean = F.avg_pool2d(F.pad(value * known, edge), 2) / share.clamp_min(_TINY)
    coarse = _spread(mean, (share > 0).to(value.dtype))
    finer = F.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)[..., :height, :width]
    out = torch.lerp(finer, value, known)
    for _ in range(_SMOOTHING_ROUNDS):
        wide = F.pad(out, (1, 1, 1, 1), mode="replicate")
        near = wide[..., :-2, 1:-1] + wide[..., 2:, 1:-1] + wide[..., 1:-1, :-2] + wide[..., 1:-1, 2:]
        out = torch.lerp(near / 4, value, known)
    return out


def filled_errors(frames: torch.Tensor, count: int, cell: int) -> Filled:
    """A function from the cells of a keyframe block that are coded, (B, h, w) bool, to the squared error (B, h, w) that
    each of the others has when it is filled in from them. Assumes that the coded cells equal the source. Of one block,
    several sets of cells can be asked for at once.

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
        lattice = known if len(coded) == len(known) else known.expand(len(coded), -1, -1, -1)
        difference = small - smooth(lattice, coded, PITCH // _COARSE_PIXELS)
        return detail + scale * cell_energy(difference.unsqueeze(1), coarse_cell)

    return filled

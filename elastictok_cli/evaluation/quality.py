"""How near a reconstruction is to its source: MSE, PSNR, SSIM and MS-SSIM of one frame, and their means.

MSE is on RGB from -1 to 1, as everywhere in this program; PSNR is 10 log10(4 / MSE). SSIM (Wang, Bovik, Sheikh,
Simoncelli 2004) and MS-SSIM (Wang, Simoncelli, Bovik 2003, five scales) are those of pytorch-msssim, which papers on
learned compression report: an 11x11 Gaussian window of sigma 1.5, no padding, each colour channel on its own, then
their mean. Single precision is enough for them: the variances they divide are stabilised by constants of 6 and 58.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from elastictok_cli.codec.pixels import picture_error

Pixels = npt.NDArray[np.uint8]

_SSIM_WINDOW = 11
_MS_SSIM_SIDE = (_SSIM_WINDOW - 1) * 2**4 + 1  # the window must fit after four halvings


class Quality(NamedTuple):
    """Of one frame. NaN is unknown: SSIM needs 11 pixels on each side, MS-SSIM 161."""

    mse: float
    psnr: float  # dB; infinite for a perfect copy
    ssim: float
    ms_ssim: float


def measure(source: Pixels, shown: Pixels, *, structure: bool = True) -> Quality:
    """Compare two pictures (H, W, 3) of one size; `structure` includes SSIM and MS-SSIM, which take most of the time.

    Raises ValueError if the sizes differ, ImportError without pytorch-msssim (extra `compare`).
    """
    if source.shape != shown.shape:
        raise ValueError(f"pictures of {source.shape} and {shown.shape} cannot be compared")
    mse = picture_error(source, shown)
    if not structure:
        return Quality(mse, psnr(mse), math.nan, math.nan)

    from pytorch_msssim import ms_ssim, ssim

    first, second = (torch.from_numpy(p).permute(2, 0, 1)[None].float() for p in (source, shown))
    side = min(source.shape[:2])
    return Quality(
        mse,
        psnr(mse),
        float(ssim(first, second, data_range=255)) if side >= _SSIM_WINDOW else math.nan,
        float(ms_ssim(first, second, data_range=255)) if side >= _MS_SSIM_SIDE else math.nan,
    )


def psnr(mse: float) -> float:
    """In dB, of a mean square error on pixels from -1 to 1."""
    return math.inf if mse == 0 else 10 * math.log10(4 / mse)


@dataclass
class Means:
    """Running means over frames. The PSNR is that of the mean error, as in `stats`."""

    frames: int = 0
    _mse: float = 0.0
    _ssim: float = 0.0
    _ms_ssim: float = 0.0

    def add(self, quality: Quality) -> None:
        """Count a frame."""
        self.frames += 1
        self._mse += quality.mse
        self._ssim += quality.ssim
        self._ms_ssim += quality.ms_ssim

    def means(self) -> Quality:
        """NaN throughout if no frame was counted."""
        if not self.frames:
            return Quality(math.nan, math.nan, math.nan, math.nan)
        mse = self._mse / self.frames
        return Quality(mse, psnr(mse), self._ssim / self.frames, self._ms_ssim / self.frames)

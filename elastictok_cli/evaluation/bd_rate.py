"""Bjontegaard delta rate: how many percent more bytes one encoder needs than another at the same PSNR.

G. Bjontegaard, "Calculation of average PSNR differences between RD-curves", ITU-T VCEG-M33, Austin, 2001, fits a cubic
through all points. The common test conditions of JCT-VC (F. Bossen, JCTVC-L1100, 2013, whose spreadsheet this follows)
interpolate log rate over PSNR by monotone cubic pieces instead (PCHIP: Fritsch and Carlson 1980, Fritsch and Butland
1984), which cannot overshoot between points. The mean gap between both curves is taken where they overlap: a curve says
nothing beyond its points.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]


class NoCommonRange(ValueError):
    """The ranges of PSNR of two curves overlap too little."""


class OutsideRange(ValueError):
    """A curve says nothing at this PSNR: it lies beyond the curve's points."""


def bd_rate(
    rates: Sequence[float],
    psnrs: Sequence[float],
    anchor_rates: Sequence[float],
    anchor_psnrs: Sequence[float],
    *,
    least_range: float = 0.0,
) -> float:
    """Percent more rate than the anchor at the same PSNR, mean over the PSNRs that both reach; negative is less.

    rates: any unit, the same for both, (n,), positive; psnrs: dB, (n,), in any order. Two or more points each. A rate
    may stay the same while the PSNR rises (an encoder at its lowest setting), but not fall. Raises ValueError for
    anything else, and its NoCommonRange where the ranges of PSNR overlap by less than `least_range` dB, or not at all.
    """
    ours, theirs = _points(rates, psnrs), _points(anchor_rates, anchor_psnrs)
    low, high = common_range(psnrs, anchor_psnrs)
    if high <= low:
        raise NoCommonRange("the two curves have no range of PSNR in common")
    if high - low < least_range:
        raise NoCommonRange(f"the two curves have {high - low:.2f} dB in common, less than {least_range:g}")
    gap = (integral(*ours, low, high) - integral(*theirs, low, high)) / (high - low)
    return float(100 * np.expm1(gap))


def common_range(psnrs: Sequence[float], anchor_psnrs: Sequence[float]) -> tuple[float, float]:
    """The PSNRs, lowest and highest, that two curves of one or more points both reach; low > high is none."""
    return max(min(psnrs), min(anchor_psnrs)), min(max(psnrs), max(anchor_psnrs))


def rate_at(psnr: float, rates: Sequence[float], psnrs: Sequence[float]) -> float:
    """The rate of a curve (as in `bd_rate`) at a PSNR, between its points. Raises OutsideRange beyond them."""
    x, y = _points(rates, psnrs)
    if not x[0] <= psnr <= x[-1]:
        raise OutsideRange(f"{psnr:.2f} dB is outside the curve, {x[0]:.2f} to {x[-1]:.2f} dB")
    piece = min(int(np.searchsorted(x, psnr, side="right")) - 1, len(x) - 2)
    tangent, square, cube = (c[piece] for c in _pieces(x, y))
    t = psnr - x[piece]
    return float(np.exp(y[piece] + t * (tangent + t * (square + t * cube))))


def integral(x: Values, y: Values, low: float, high: float) -> float:
    """Area under the PCHIP curve through the points (x, y), both (n,), x rising, from `low` to `high` within them."""
    tangent, square, cube = _pieces(x, y)
    terms = np.stack([y[:-1], tangent / 2, square / 3, cube / 4])
    powers = np.arange(1, 5)[:, None]
    begin, end = (np.clip(edge - x[:-1], 0, np.diff(x)) for edge in (low, high))
    return float((terms * (end**powers - begin**powers)).sum())


def _pieces(x: Values, y: Values) -> tuple[Values, Values, Values]:
    """Each piece of the curve is y + tangent t + square t^2 + cube t^3, t counted from its left end; each (n - 1,)."""
    width = np.diff(x)
    slope = np.diff(y) / width
    tangent = _tangents(width, slope)
    square = (3 * slope - 2 * tangent[:-1] - tangent[1:]) / width
    cube = (tangent[:-1] + tangent[1:] - 2 * slope) / width**2
    return tangent[:-1], square, cube


def _points(rates: Sequence[float], psnrs: Sequence[float]) -> tuple[Values, Values]:
    """PSNR, rising, and log rate of a curve. Raises ValueError."""
    x, rate = np.asarray(psnrs, np.float64), np.asarray(rates, np.float64)
    if x.ndim != 1 or x.shape != rate.shape:
        raise ValueError("a curve needs as many rates as PSNRs")
    if len(x) < 2:
        raise ValueError("a curve needs at least 2 points")
    if not (np.isfinite(x).all() and np.isfinite(rate).all() and (rate > 0).all()):
        raise ValueError("rates must be positive, and all numbers finite")
    order = np.argsort(x)
    x, rate = x[order], rate[order]
    if (np.diff(x) <= 0).any():
        raise ValueError("the curve is not monotone: two of its points have the same PSNR")
    if (np.diff(rate) < 0).any():
        raise ValueError("the curve is not monotone: its rate falls while its PSNR rises")
    return x, np.log(rate)


def _tangents(width: Values, slope: Values) -> Values:
    """Slopes of the curve at its points, (n,), from widths and slopes of the lines between them, (n - 1,)."""
    if len(slope) == 1:
        return np.repeat(slope, 2)
    tangent = np.zeros(len(slope) + 1)
    left, right = slope[:-1], slope[1:]
    turning = left * right <= 0  # flat at a local extreme
    near, far = 2 * width[1:] + width[:-1], width[1:] + 2 * width[:-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        harmonic = (near + far) / (near / left + far / right)
    tangent[1:-1] = np.where(turning, 0.0, harmonic)
    tangent[0] = _end_tangent(width[0], width[1], slope[0], slope[1])
    tangent[-1] = _end_tangent(width[-1], width[-2], slope[-1], slope[-2])
    return tangent


def _end_tangent(width: float, next_width: float, slope: float, next_slope: float) -> float:
    """Of the parabola through the last three points, held back where the curve would turn."""
    tangent = ((2 * width + next_width) * slope - width * next_slope) / (width + next_width)
    if tangent * slope <= 0:
        return 0.0
    if slope * next_slope <= 0 and abs(tangent) > 3 * abs(slope):
        return 3 * slope
    return tangent

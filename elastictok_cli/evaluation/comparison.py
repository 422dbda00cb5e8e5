"""Our bytes beside other encoders' curves, only where both were measured.

Nothing is extrapolated: an encoder whose worst quality is far better than ours has bytes at that quality, none at ours.
Of our points those count too whose blocks missed the target: each stands at the error that was reached, not at the one
that was asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from elastictok_cli.evaluation.anchors import Anchor, Point
from elastictok_cli.evaluation.bd_rate import NoCommonRange, OutsideRange, bd_rate, common_range, rate_at
from elastictok_cli.evaluation.quality import psnr
from elastictok_cli.evaluation.tokens import Measured, geometric_mean

LEAST_COMMON_RANGE = 1.0  # dB
OURS = "ours"  # name of our encoder where it is compared with itself


@dataclass(frozen=True)
class Compared:
    """One clip of ours against one encoder."""

    clip: str
    ratio: float  # our bytes over theirs at the same PSNR, geometric mean over the common range
    low: float  # the common range, dB
    high: float


@dataclass(frozen=True)
class NotComparable:
    """A clip that says nothing about one encoder, and why."""

    clip: str
    reason: str


@dataclass(frozen=True)
class Summary:
    """All clips against one encoder."""

    encoder: str
    clips: tuple[Compared | NotComparable, ...]

    @property
    def compared(self) -> list[Compared]:
        """The clips that have a ratio, smallest first."""
        return sorted((c for c in self.clips if isinstance(c, Compared)), key=lambda c: c.ratio)

    @property
    def not_comparable(self) -> list[NotComparable]:
        """The clips that have none."""
        return [c for c in self.clips if isinstance(c, NotComparable)]

    @property
    def ratio(self) -> float | None:
        """Geometric mean over the clips that could be compared; None without any."""
        return geometric_mean([c.ratio for c in self.compared]) if self.compared else None


def compare(points: Sequence[Measured], anchor: Anchor | None, encoder: str) -> Compared | NotComparable:
    """One clip, measured at one or more targets, against its curve; `anchor` is None where the clip has none."""
    clip = points[0].clip
    curve = _curve(points[0], anchor, encoder)
    if isinstance(curve, NotComparable):
        return curve
    # two targets may give the very same file, where nothing is left to gain
    ours = sorted({(float(m.bytes), psnr(m.mse)) for m in points})
    rates, psnrs = [rate for rate, _ in ours], [p for _, p in ours]
    low, high = common_range(psnrs, _psnrs(curve))
    try:
        percent = bd_rate(rates, psnrs, _rates(curve), _psnrs(curve), least_range=LEAST_COMMON_RANGE)
    except NoCommonRange:
        return NotComparable(clip, f"{high - low:.1f} dB in common" if high > low else "no common range")
    except ValueError as error:  # no curve of ours: one point, or fewer bytes for a smaller error
        return NotComparable(clip, str(error))
    return Compared(clip, 1 + percent / 100, low, high)


def summarize(clips: Sequence[Sequence[Measured]], anchors: dict[str, Anchor], encoder: str) -> Summary:
    """Each item of `clips` holds one clip at all its targets."""
    return Summary(encoder, tuple(compare(points, anchors.get(points[0].clip), encoder) for points in clips))


def against_ours(clips: Sequence[Sequence[Measured]], others: Sequence[Sequence[Measured]]) -> Summary:
    """Encodes of ours against others of ours, such as those with another promise; both as in `summarize`."""
    return summarize(clips, {points[0].clip: _as_anchor(points) for points in others}, OURS)


def ratio_at_our_error(m: Measured, anchor: Anchor | None, encoder: str) -> float | None:
    """Our bytes over what their curve says at the error we reached; None where the curve does not reach."""
    curve = _curve(m, anchor, encoder)
    if isinstance(curve, NotComparable):
        return None
    try:
        return m.bytes / rate_at(psnr(m.mse), _rates(curve), _psnrs(curve))
    except OutsideRange:
        return None


def _as_anchor(points: Sequence[Measured]) -> Anchor:
    """Ours, one clip at all its targets, as if it were another encoder's curve."""
    distinct = sorted({(m.bytes, m.mse) for m in points}, reverse=True)
    curve = tuple(Point(0, size, mse) for size, mse in distinct)
    return Anchor(points[0].frames, points[0].height, points[0].width, {OURS: curve})


def _curve(m: Measured, anchor: Anchor | None, encoder: str) -> tuple[Point, ...] | NotComparable:
    """The encoder's curve of the very frames that were measured."""
    if anchor is None or encoder not in anchor.curves:
        return NotComparable(m.clip, "no curve")
    if (m.frames, m.height, m.width) != (anchor.frames, anchor.height, anchor.width):
        theirs = f"{anchor.frames} frames of {anchor.width}x{anchor.height}"
        return NotComparable(m.clip, f"the curve is of {theirs}, not {m.frames} of {m.width}x{m.height}")
    return anchor.curves[encoder]


def _rates(curve: Sequence[Point]) -> list[float]:
    return [float(p.bytes) for p in curve]


def _psnrs(curve: Sequence[Point]) -> list[float]:
    return [psnr(p.mse) for p in curve]

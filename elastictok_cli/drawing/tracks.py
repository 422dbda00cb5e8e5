"""The series of a chart, in memory that does not grow with the length of a video. Pure data."""

import math
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import NamedTuple

from elastictok_cli.analysis.usage import FrameUsage

MAX_POINTS = 4096  # more than the pixels of any chart


class Point(NamedTuple):
    """A value from `time` (seconds) on. In an `Envelope`, of everything until the next point."""

    time: float
    value: float
    cut: bool = False  # there is a scene cut at `time`, or before the next point
    missed: bool = False  # the target was missed, likewise


class Envelope:
    """Points in order of time, each the *largest* of the consecutive values it stands for: no peak is ever lost.

    As many points as were added, up to `most`; then neighbours are merged by twos, again and again. NaN means
    unknown and gives way to any number.
    """

    def __init__(self, most: int = MAX_POINTS) -> None:
        self._most = max(2, most // 2 * 2)
        self._points: list[Point] = []
        self._each = 1  # values a whole point stands for
        self._last = 0  # of which the last point has so many

    def add(self, point: Point) -> None:
        """Take the next one."""
        if self._last in (0, self._each):
            self._make_room()
            self._points.append(point)
            self._last = 1
        else:
            self._points[-1] = _merged(self._points[-1], point)
            self._last += 1

    @property
    def points(self) -> list[Point]:
        """What there is to draw."""
        return self._points

    @property
    def top(self) -> float:
        """The largest value; 0 if none is known."""
        return max((point.value for point in self._points if not math.isnan(point.value)), default=0.0)

    def at(self, time: float) -> float:
        """The value from the last point that is not later than `time`; NaN before the first."""
        count = self._begun(time)
        return self._points[count - 1].value if count else math.nan

    def after(self, time: float) -> float:
        """When the first point later than `time` is; infinity if there is none."""
        count = self._begun(time)
        return self._points[count].time if count < len(self._points) else math.inf

    def _begun(self, time: float) -> int:
        """How many points are not later than `time`."""
        return bisect_right(self._points, time, key=lambda point: point.time)

    def _make_room(self) -> None:
        if len(self._points) < self._most:
            return
        self._points = [_merged(*pair) for pair in zip(self._points[::2], self._points[1::2], strict=True)]
        self._each *= 2


def _merged(first: Point, second: Point) -> Point:
    if math.isnan(first.value) or second.value > first.value:
        value = second.value
    else:
        value = first.value
    return Point(first.time, value, first.cut or second.cut, first.missed or second.missed)


@dataclass
class Track:
    """What one file spends over time, and what error that leaves.

    usage: tokens of each block, from its first frame to the next block's. error: of each frame, mean square on
    [-1, 1] pixels. capacity: tokens of a full block. promise: what the target is one of, "block" or "video".
    begin, end: seconds.
    """

    label: str
    capacity: int
    target_mse: float | None
    promise: str = "block"
    usage: Envelope = field(default_factory=Envelope)
    error: Envelope = field(default_factory=Envelope)
    begin: float = math.nan
    end: float = math.nan
    _block: int = -1

    def add(
        self,
        time: float,
        duration: float,
        mse: float,
        *,
        block: int,
        block_tokens: int,
        scene_cut: bool = False,
        missed: bool = False,
    ) -> None:
        """The next frame, and the block it belongs to."""
        if block != self._block:
            self._block = block
            self.usage.add(Point(time, block_tokens, scene_cut, missed))
        self.error.add(Point(time, mse))
        if math.isnan(self.begin):
            self.begin = time
        self.end = time + duration


def put_on_track(track: Track, row: FrameUsage) -> None:
    """Add a frame to the series of a chart."""
    track.add(
        row.time,
        row.duration,
        row.mse,
        block=row.block,
        block_tokens=row.block_tokens,
        scene_cut=row.scene_cut,
        missed=row.missed,
    )

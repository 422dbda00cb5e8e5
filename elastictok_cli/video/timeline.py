"""Times of decoded frames, which a file may have left out or out of order."""

from collections import deque
from fractions import Fraction
from typing import Any

# Formats that store decode times only: pictures come out of the decoder with those of other pictures.
_WITHOUT_PTS = frozenset({"avi"})


class Timeline:
    """Gives each frame of a stream a time, in ticks, later than that of the frame before.

    Good times pass through untouched. A missing one is the last plus the last step. One that does not increase is put
    just after the last. `repaired` counts the times that were made up.
    """

    def __init__(self, step: int = 1) -> None:
        self.repaired = 0
        self._step = max(1, step)
        self._last: int | None = None

    def place(self, time: int | None) -> int:
        """Return the time to use for a frame that claims `time` (ticks)."""
        last = self._last
        if time is not None and (last is None or time > last):
            placed = time
            self._step = placed - last if last is not None else self._step
        else:
            self.repaired += 1
            placed = 0 if last is None else last + (self._step if time is None else 1)
        self._last = placed
        return placed


class FrameTimes:
    """Finds the best time of each decoded frame, in ticks of the stream's time base, as FFmpeg's best effort does.

    The presentation time is believed as long as it is not out of order more often than the decode time; else the decode
    time is (FFmpeg's guess_correct_pts). Where the format has no presentation times at all, frames come at the decode
    times of the packets, in their order.
    """

    def __init__(self, source_format: str, time_base: Fraction) -> None:
        self._time_base = time_base
        self._guesses_pts = source_format in _WITHOUT_PTS
        self._fed: deque[int] = deque()  # decode times of packets, later than the last frame's
        self._delay: int | None = (
            None  # ticks from a frame's own time to that of the packet that brings it out
        )
        self._last_pts: int | None = None
        self._last_dts: int | None = None
        self._bad_pts = self._bad_dts = 0

    def feed(self, packet: Any) -> None:
        """Note a packet that goes to the decoder."""
        if self._guesses_pts and packet.size and packet.dts is not None:
            self._fed.append(packet.dts)

    def best(self, frame: Any) -> int | None:
        """The time of a decoded frame, None where neither the frame nor its packets have one."""
        pts, dts = self._in_ticks(frame.pts, frame), self._in_ticks(frame.dts, frame)
        if self._guesses_pts:
            return self._by_decode_time(dts)
        if dts is not None:
            self._bad_dts += self._last_dts is not None and dts <= self._last_dts
            self._last_dts = dts
        if pts is not None:
            self._bad_pts += self._last_pts is not None and pts < self._last_pts
            self._last_pts = pts
        return pts if pts is not None and (dts is None or self._bad_pts <= self._bad_dts) else dts

    def _by_decode_time(self, dts: int | None) -> int | None:
        """The time of the packet that came in as many packets before as the decoder holds back."""
        if not self._fed:
            return None
        if self._delay is None:
            self._delay = 0 if dts is None else dts - self._fed[0]
        time = self._fed[0] if dts is None else dts - self._delay  # the last frames come out with no packet
        while self._fed and self._fed[0] <= time:
            self._fed.popleft()
        return time

    def _in_ticks(self, time: int | None, frame: Any) -> int | None:
        if time is None or not frame.time_base or frame.time_base == self._time_base:
            return time
        return round(Fraction(time * frame.time_base) / self._time_base)

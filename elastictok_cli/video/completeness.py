"""Whether a source reaches the end that it declares."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from elastictok_cli.video.muxing import codec_name

# Formats whose header says how long the file is. In others FFmpeg measures or guesses the length from the packets.
_DECLARES_LENGTH = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "flv", "asf"})
# How far before the declared end (seconds) a stream may end: encoders and muxers round.
_TOLERANCE_SECONDS = Fraction(1, 4)


@dataclass
class _Length:
    name: str
    declared: Fraction  # seconds on the source's clock
    last: Fraction | None = None  # start of the latest packet
    end: Fraction = Fraction(0)
    longest: Fraction = (
        _TOLERANCE_SECONDS  # between two packets: the last one may be that long, whatever it says
    )
    is_known: bool = False  # how long packets are: a single one may not say

    def see(self, start: Fraction, duration: Fraction) -> None:
        if self.last is not None:
            self.longest = max(self.longest, start - self.last)
            self.is_known = True
        self.is_known |= duration > 0
        self.last = start if self.last is None else max(self.last, start)
        self.end = max(self.end, start + duration)


class Completeness:
    """Compares where streams end with where the file says that they end.

    `see` takes every packet of `streams`, with times of the source's clock.
    """

    def __init__(self, container: Any, streams: Sequence[Any]) -> None:
        self._lengths: dict[int, _Length] = {}
        self._whole: _Length | None = None
        if container.format.name not in _DECLARES_LENGTH:
            return
        for stream in streams:
            if stream.type in ("audio", "video") and (end := _declared_end(stream)) is not None:
                self._lengths[stream.index] = _Length(f"the {codec_name(stream)} {stream.type}", end)
        read = {s.index for s in streams}
        unread = any(
            s.type in ("audio", "video", "subtitle") and s.index not in read for s in container.streams
        )
        if not self._lengths and not unread and container.duration:
            end = Fraction(container.duration + (container.start_time or 0), 1_000_000)
            self._whole = _Length("it", end)

    def see(self, packet: Any) -> None:
        """Note a packet."""
        time = packet.pts if packet.pts is not None else packet.dts
        if time is None or not packet.size:
            return
        start, duration = (
            Fraction(time * packet.time_base),
            Fraction((packet.duration or 0) * packet.time_base),
        )
        for length in (self._lengths.get(packet.stream.index), self._whole):
            if length is not None:
                length.see(start, duration)

    def shortfalls(self) -> list[str]:
        """What ends early, as "the h264 video ends at 1.68 s of 3.00 s"."""
        lengths = [*self._lengths.values(), *([self._whole] if self._whole is not None else [])]
        return [
            f"{length.name} ends at {float(length.end):.2f} s of {float(length.declared):.2f} s"
            for length in lengths
            if (length.is_known or length.last is None) and length.end + length.longest < length.declared
        ]


def _declared_end(stream: Any) -> Fraction | None:
    """Where a stream ends, in seconds, None where the file does not say."""
    if tag := stream.metadata.get("DURATION"):  # in Matroska, by FFmpeg and mkvmerge: 00:00:03.021000000
        with suppress(ValueError):
            hours, minutes, seconds = tag.split(":")
            return Fraction(hours) * 3600 + Fraction(minutes) * 60 + Fraction(seconds)
    if stream.duration:
        return Fraction(((stream.start_time or 0) + stream.duration) * stream.time_base)
    return None

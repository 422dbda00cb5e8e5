"""The clock of a program: one time line for all streams of a source, also where the source breaks its own.

In joined recordings, and in transport streams that lost their signal, the times of every stream jump back or far ahead
though the film goes on. Such a jump is what FFmpeg calls a timestamp discontinuity. Audio and pictures share one clock
(ISO/IEC 13818-1, 2.4.2.1: the program clock), so what mends a jump is one offset for all streams. An offset for each
stream would move sound and pictures apart.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

# A decode time that goes back by more than this many seconds (and more than its packet lasts) is a jump, not jitter.
MIN_JUMP_BACK_SECONDS = Fraction(1, 25)
# A gap longer than this many seconds is a jump in formats whose clock may jump (FFmpeg's dts_delta_threshold).
MIN_JUMP_AHEAD_SECONDS = 10
# Formats whose clock may jump ahead (FFmpeg's AVFMT_TS_DISCONT). In others a long gap is a picture that stays long.
JUMPING_FORMATS = frozenset({"mpegts", "mpeg"})
# A jump of one stream alone is mended from this many seconds on. Less is a stream that is late and catches up.
MIN_JUMP_ALONE_SECONDS = 1
# How much is held back after a jump, to see whether the other streams jump as well.
_MAX_HELD_SECONDS = 2
_MAX_HELD_PACKETS = 5000
_MAX_HELD_BYTES = 64 << 20

_Seconds = Fraction


@dataclass
class _Track:
    """What is known of one stream."""

    offset: _Seconds  # to add to its times
    source_dts: _Seconds | None = None  # latest decode time, as the source has it
    dts: _Seconds | None = None  # latest decode time, mended
    end: _Seconds | None = None  # latest end of a packet, mended


class ProgramClock:
    """Mends the times of packets, in the order of the source.

    Times that never jump pass untouched, equal ones too. After a jump all streams move by one offset: the smallest that
    lets no stream start before its own previous end. An audio packet without a time gets the end of the one before it.

    `jumps` counts the jumps; `first_jump` is the time of the first one, in seconds on the mended clock.
    """

    def __init__(self, source_format: str) -> None:
        self.jumps = 0
        self.first_jump: _Seconds | None = None
        self._may_jump_ahead = source_format in JUMPING_FORMATS
        self._offset = Fraction(0)  # of the program, after the last jump
        self._tracks: dict[int, _Track] = {}

    def mend(self, packets: Iterable[Any]) -> Iterator[Any]:
        """The packets of a source, in their order, with times changed where the clock jumps.

        After a jump packets are held back until it is known which streams jump: two seconds of them at most.
        """
        held: list[Any] = []
        for packet in packets:
            if not held and not self._jumps(packet):
                yield self._place(packet)
                continue
            held.append(packet)
            if self._is_settled(held):
                yield from self._release(held)
                held = []
        yield from self._release(held)

    def _jumps(self, packet: Any) -> bool:
        """Whether this packet's time breaks the clock that its stream had so far."""
        track = self._tracks.get(packet.stream.index)
        return track is not None and self._breaks(track.source_dts, packet)

    def _breaks(self, before: _Seconds | None, packet: Any) -> bool:
        time = _dts(packet)
        if time is None or before is None or packet.stream.type not in ("audio", "video"):
            return False
        if self._may_jump_ahead and time - before > MIN_JUMP_AHEAD_SECONDS:
            return True
        return before - time > max(MIN_JUMP_BACK_SECONDS, _duration(packet))

    def _is_settled(self, held: list[Any]) -> bool:
        """Whether the packets held (the first one jumps) tell which streams jump."""
        same = [p for p in held if p.stream.index == held[0].stream.index and _dts(p) is not None]
        if len(same) == 2 and not self._jumps(same[1]):
            return True  # only one packet was off
        if len(held) > _MAX_HELD_PACKETS or sum(p.size for p in held) > _MAX_HELD_BYTES:
            return True
        first, last = _dts(same[0]), _dts(same[-1])
        assert first is not None
        assert last is not None
        if last - first > _MAX_HELD_SECONDS:
            return True
        jumped = {p.stream.index for p in held if self._jumps(p)}
        return jumped >= {index for index, track in self._tracks.items() if track.source_dts is not None}

    def _release(self, held: list[Any]) -> Iterator[Any]:
        """Place the packets held, those after the jump of their stream with a new offset."""
        starts: dict[int, int] = {}  # where in `held` each stream's new clock begins
        for index in {p.stream.index for p in held}:
            mine = [n for n, p in enumerate(held) if p.stream.index == index and _dts(p) is not None]
            if (start := self._find_start(held, mine)) is not None:
                starts[index] = start
        others = {p.stream.index for p in held if p.stream.type in ("audio", "video")} - set(starts)
        # some streams jump, others do not, and by little: streams that were late and catch up, no discontinuity
        if starts and others and self._step(held, starts) < MIN_JUMP_ALONE_SECONDS:
            starts = {}
        offset = self._needed_offset(held, starts) if starts else self._offset
        if starts:
            self.jumps += 1
        for number, packet in enumerate(held):
            index = packet.stream.index
            if starts.get(index) == number:
                track = self._tracks[index]
                track.offset, track.source_dts = offset, None
                if not others:
                    self._offset = offset
                if self.first_jump is None:
                    self.first_jump = track.end
            yield self._place(packet)

    def _find_start(self, held: list[Any], mine: list[int]) -> int | None:
        """Where in `held` the new clock of a stream begins, whose packets are at `mine`. None: it goes on.

        A stray packet, after which the stream is back on its clock, gets the time of the one before it.
        """
        track = self._tracks.get(held[mine[0]].stream.index) if mine else None
        before = track.source_dts if track is not None else None
        for number, following in zip(mine, [*mine[1:], None], strict=True):
            packet = held[number]
            if self._breaks(before, packet):
                if following is None or self._breaks(before, held[following]):
                    return number
                assert before is not None
                packet.pts = packet.dts = round(before / packet.time_base)
            before = _dts(packet)
        return None

    def _step(self, held: list[Any], starts: dict[int, int]) -> _Seconds:
        """By how much the clock jumps, without its sign."""
        steps = []
        for index, start in starts.items():
            old = [t for p in held[:start] if p.stream.index == index and (t := _dts(p)) is not None]
            before = old[-1] if old else self._tracks[index].source_dts
            after = _dts(held[start])
            assert before is not None
            assert after is not None
            steps.append(abs(after - before))
        return max(steps)

    def _needed_offset(self, held: list[Any], starts: dict[int, int]) -> _Seconds:
        """The smallest offset that lets no stream start before its own previous end."""
        needed = []
        for index, start in starts.items():
            track = self._tracks[index]
            old = [
                e + track.offset
                for p in held[:start]
                if p.stream.index == index and (e := _end(p)) is not None
            ]
            end = max([*old, *([track.end] if track.end is not None else [])])
            begin = min(t for p in held[start:] if p.stream.index == index and (t := _pts(p)) is not None)
            needed.append(end - begin)
        return max(needed)

    def _place(self, packet: Any) -> Any:
        """The packet with its times on the mended clock."""
        track = self._tracks.setdefault(packet.stream.index, _Track(self._offset))
        if packet.stream.type not in ("audio", "video"):
            track.offset = self._offset
        base = packet.time_base
        if packet.pts is None and packet.dts is None:
            if packet.size and packet.stream.type == "audio" and track.end is not None:
                packet.pts = packet.dts = round(track.end / base)
                track.end += _duration(packet)
            return packet
        track.source_dts = _dts(packet) if _dts(packet) is not None else track.source_dts
        if track.offset:
            ticks = round(track.offset / base)
            packet.pts = None if packet.pts is None else packet.pts + ticks
            packet.dts = None if packet.dts is None else packet.dts + ticks
        if packet.dts is not None:
            if track.dts is not None and packet.dts * base < track.dts:  # jitter
                packet.dts = round(track.dts / base)
                packet.pts = None if packet.pts is None else max(packet.pts, packet.dts)
            track.dts = packet.dts * base
        end = _end(packet)
        assert end is not None
        track.end = end if track.end is None else max(track.end, end)
        return packet


def _dts(packet: Any) -> _Seconds | None:
    """When a packet is decoded. The presentation time of pictures is no guide: they are stored out of order."""
    ticks = packet.dts if packet.dts is not None else packet.pts if packet.stream.type != "video" else None
    return None if ticks is None else Fraction(ticks * packet.time_base)


def _pts(packet: Any) -> _Seconds | None:
    ticks = packet.pts if packet.pts is not None else packet.dts
    return None if ticks is None else Fraction(ticks * packet.time_base)


def _duration(packet: Any) -> _Seconds:
    return Fraction((packet.duration or 0) * packet.time_base)


def _end(packet: Any) -> _Seconds | None:
    start = _pts(packet)
    return None if start is None else start + _duration(packet)

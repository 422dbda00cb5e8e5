"""Side streams: audio and subtitle packets, copied from a source into a small container and from there into the result.

That container is what carries them through an .etk file, in its AUX units; arguments named `aux` are its bytes. Which
container depends on the source, so that times stay exact: fragmented MP4 or MOV keep the ticks of MP4-like sources,
Matroska those of Matroska and WebM (1 ms), and NUT takes what neither can describe, such as AAC straight from a
transport stream.
"""

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from typing import Any, Literal

import av

from elastictok_cli.video.muxing import (
    StreamCopy,
    can_mux_as_is,
    can_mux_or_convert,
    codec_name,
    movie_timescale,
)
from elastictok_cli.video.records import AuxStream

# `disabled`: times below zero (the priming samples of AAC and Opus) stay where they are.
_EXACT = {"avoid_negative_ts": "disabled"}
# Fragments of one second, headers once the first packets are known, no index: nothing grows with length.
_FRAGMENTED = {
    **_EXACT,
    "movflags": "empty_moov+delay_moov+default_base_moof+skip_trailer",
    "frag_duration": "1000000",
}
# What to name an output that holds all that the carrying container does.
_SUFFIXES = {"mp4": ".mp4", "mov": ".mov", "matroska": ".mkv", "nut": ".nut"}
_OPTIONS = {"mp4": _FRAGMENTED, "mov": _FRAGMENTED, "matroska": {**_EXACT, "live": "1"}, "nut": _EXACT}


class _ChunkSink:
    """A file to write to, emptied from time to time."""

    def __init__(self) -> None:
        self._data = bytearray()

    def write(self, data: bytes) -> int:
        self._data += data
        return len(data)

    def take(self) -> bytes:
        data = bytes(self._data)
        self._data.clear()
        return data


class ChunkReader:
    """A file to read from, fed by an iterator of chunks of any size."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = memoryview(b"")

    def read(self, size: int) -> bytes:
        """At most `size` bytes, b"" at the end."""
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._rest = memoryview(chunk)
        data, self._rest = self._rest[:size], self._rest[size:]
        return bytes(data)


def _can_carry(container: str, stream: Any) -> bool:
    codec = codec_name(stream)
    if codec == "aac" and not stream.codec_context.extradata and container != "nut":
        return False  # ADTS headers in the packets: the other containers would have to strip them
    if codec.startswith("pcm_") and container == "mp4":
        return False  # FFmpeg cannot read back all of the PCM it writes to fragmented MP4; MOV is fine
    return can_mux_as_is(container, stream, _OPTIONS[container])


def _choose_container(source_format: str, streams: Sequence[Any]) -> tuple[str, list[Any]]:
    """The carrying container that holds most of the streams, and the streams it holds."""
    order = ["mp4", "mov", "matroska", "nut"]
    if "matroska" in source_format:
        order = ["matroska", "mp4", "mov", "nut"]
    held = {name: [s for s in streams if _can_carry(name, s)] for name in order}
    best = max(order, key=lambda name: len(held[name]))
    return best, held[best]


def _is_filler(stream: Any, packet: Any) -> bool:
    """Whether this is the empty text that MP4 muxers put between two subtitles, and will put there again."""
    return bool(packet.size == 2 and codec_name(stream) == "mov_text")


def _start_seconds(packet: Any) -> Fraction:
    time = packet.pts if packet.pts is not None else packet.dts
    return Fraction(time * packet.time_base)


def _end_seconds(packet: Any) -> Fraction:
    return _start_seconds(packet) + Fraction((packet.duration or 0) * packet.time_base)


def _shift(packet: Any, seconds: Fraction) -> None:
    ticks = round(seconds / packet.time_base)
    if packet.pts is not None:
        packet.pts -= ticks
    if packet.dts is not None:
        packet.dts -= ticks


class PacketCollector:
    """Muxes the audio and subtitle packets of a source into the carrying container, as they are met.

    Packets come with times that `ProgramClock` has mended. They wait until `begin` has said which window of time is
    wanted. What is lost is named in `warnings` when the container is closed.
    """

    def __init__(self, source_format: str, streams: Sequence[Any], warnings: list[str]) -> None:
        self._warnings = warnings
        self.container, self.streams = _choose_container(source_format, streams)
        self.lost = [s for s in streams if s not in self.streams]
        self._waiting: list[Any] = []
        self._began = False
        self._closed = False
        self._shift = Fraction(0)
        self._carried = 0  # bytes of packets
        self._first: Fraction | None = None  # seconds in the source that they begin at
        self._last = Fraction(0)  # and end at
        self._low: Fraction | None = None
        self._high: Fraction | None = None
        self._unfinished = {s.index for s in self.streams if s.type == "audio"}
        self._outbox = _ChunkSink()
        options = dict(_OPTIONS[self.container])
        if self.container in ("mp4", "mov"):
            options |= movie_timescale(s.time_base for s in self.streams)
        self._muxer = av.open(self._outbox, "w", format=self.container, container_options=options)
        self._copies = {stream.index: StreamCopy(stream, self._muxer) for stream in self.streams}

    def describe(self) -> tuple[AuxStream, ...]:
        """The streams carried, in their order in the container."""
        return tuple(describe_stream(s) for s in self.streams)

    @property
    def past_window(self) -> bool:
        """Whether every audio stream has gone beyond the window's end."""
        return not self._unfinished

    @property
    def bytes_a_second(self) -> float:
        """Of the packets so far; 0 if there are none."""
        seconds = self._last - self._first if self._first is not None else 0
        return float(self._carried / seconds) if seconds > 0 else 0.0

    def begin(self, low: Fraction | None, high: Fraction | None, shift: Fraction) -> None:
        """Keep packets that overlap low..high (seconds in the source, None: no bound); subtract `shift`."""
        self._low, self._high, self._shift = low, high, shift
        self._began = True
        for packet in self._waiting:
            self._mux(packet)
        self._waiting.clear()

    def forget(self, before: Fraction | None = None, *, for_good: bool = False) -> None:
        """Drop waiting packets: all, or those that end by `before` (seconds). `for_good`: later ones as well."""
        self._low = before if for_good else self._low
        self._waiting = [p for p in self._waiting if before is not None and _end_seconds(p) > before]

    def add(self, packet: Any) -> None:
        """Take a packet of one of `streams`, as demuxed."""
        if packet.size == 0 or (packet.dts is None and packet.pts is None):
            return  # the marker of a stream's end, or damage
        if self._began:
            self._mux(packet)
        elif self._low is None or _end_seconds(packet) > self._low:
            self._waiting.append(packet)

    def take(self) -> bytes:
        """The container bytes produced since the last call."""
        return self._outbox.take()

    def close(self) -> None:
        """End the container; the last bytes are then there to take."""
        if not self._closed:
            self._closed = True
            try:
                self._muxer.close()
            except (av.FFmpegError, ValueError) as error:
                self._warnings.append(f"the copy of the audio and subtitles is incomplete: {error}")
            self._warnings.extend(text for copy in self._copies.values() for text in copy.warnings)

    def _mux(self, packet: Any) -> None:
        stream = packet.stream
        if self._high is not None and _start_seconds(packet) >= self._high:
            self._unfinished.discard(stream.index)
            return
        if self._low is not None and _end_seconds(packet) <= self._low:
            return
        if _is_filler(stream, packet):
            return
        self._carried += packet.size
        self._first = _start_seconds(packet) if self._first is None else self._first
        self._last = max(self._last, _end_seconds(packet))
        _shift(packet, self._shift)
        if self.container == "nut" and _start_seconds(packet) < 0:
            return  # NUT has no times below zero: at most the one packet that overlaps the window's start
        self._copies[stream.index].mux(packet)


def describe_stream(stream: Any) -> AuxStream:
    """The record of an audio or subtitle stream."""
    kind: Literal["audio", "subtitle"] = "audio" if stream.type == "audio" else "subtitle"
    language = stream.metadata.get("language")
    return AuxStream(kind, codec_name(stream), None if language == "und" else language)


class PacketCopier:
    """Moves the packets of a carrying container into an output container, in step with the video.

    Keeps packets that overlap `start` .. `start + duration` (seconds on the carried clock; None: no bound)
    and moves them so that `start` becomes 0. What cannot be copied is named in `warnings`.
    """

    def __init__(
        self,
        chunks: Iterable[bytes],
        container: str,
        *,
        start: Fraction | None,
        duration: Fraction | None,
        warnings: list[str],
    ) -> None:
        self._low = start
        self._high = None if duration is None else (start or Fraction(0)) + duration
        self._warnings = warnings
        self._copies: dict[int, StreamCopy] = {}
        self._container = container
        self._source: Any = None
        self._packets: Iterator[Any] = iter(())
        self._next: Any = None
        try:
            self._source = av.open(ChunkReader(chunks), format=container)
            self._packets = self._source.demux()
        except (av.FFmpegError, ValueError) as error:
            warnings.append(f"the audio and subtitles are lost: their copy cannot be read ({error})")

    @property
    def time_bases(self) -> list[Fraction]:
        """The time base of each stream carried."""
        return [s.time_base for s in self._source.streams] if self._source is not None else []

    def attach(self, output: Any) -> None:
        """Give `output` (nothing muxed yet) a stream for each one carried that it can hold."""
        name = output.format.name
        for stream in self._source.streams if self._source is not None else ():
            if can_mux_or_convert(name, stream):
                self._copies[stream.index] = StreamCopy(stream, output)
            else:
                self._warnings.append(
                    f"the {codec_name(stream)} {stream.type} stream is left out: {name} files cannot hold it"
                    f"; {_SUFFIXES[self._container]} files can"
                )
        self._next = self._advance()

    def copy_until(self, seconds: Fraction | None) -> None:
        """Mux every packet that starts by `seconds` (None: all that are left)."""
        while self._next is not None:
            packet = self._next
            time = _start_seconds(packet)
            if seconds is not None and time - (self._low or 0) > seconds:
                return
            _shift(packet, self._low or Fraction(0))
            self._copies[packet.stream.index].mux(packet)
            self._next = self._advance()
        if seconds is None:
            for copy in self._copies.values():
                copy.flush()

    def close(self) -> None:
        """Let go of the source of packets. Safe to call twice."""
        self._next = None
        if self._source is not None:
            self._source.close()
            self._source = None
            self._warnings.extend(text for copy in self._copies.values() for text in copy.warnings)

    def _advance(self) -> Any:
        """The next packet that is wanted, None at the end."""
        try:
            for packet in self._packets:
                if packet.size == 0 or packet.stream.index not in self._copies:
                    continue
                if self._low is not None and _end_seconds(packet) <= self._low:
                    continue
                if self._high is not None and _start_seconds(packet) >= self._high:
                    continue
                if not _is_filler(packet.stream, packet):
                    return packet
        except av.FFmpegError as error:
            self._warnings.append(f"the copy of the audio and subtitles ends early ({error})")
        return None

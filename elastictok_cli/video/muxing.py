"""Copying packets into a container: what it holds, which times it takes, which packets it refuses."""

import io
import math
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import av

from elastictok_cli.video.subtitles import SubtitleConverter, text_encoder

_PLAIN_NAMES = {"mp3float": "mp3", "srt": "subrip"}

# Muxers that take equal decode times in one stream (FFmpeg's AVFMT_TS_NONSTRICT). The others want them to increase.
_TAKE_EQUAL_TIMES = frozenset({"matroska", "webm"})

# How PyAV raises what FFmpeg finds wrong with a packet: EINVAL, invalid data, a bitstream filter that cannot work.
# What is wrong with the output (no space, no permission) comes as OSError and must end the work.
_REFUSALS = (ValueError, LookupError, NotImplementedError)


def codec_name(stream: Any) -> str:
    """FFmpeg's name of a stream's codec, whichever decoder PyAV picked for it."""
    context = stream.codec_context
    if context is None:
        return "unknown"
    name: str = getattr(context.codec, "canonical_name", None) or context.name
    return _PLAIN_NAMES.get(name, name)


def describe(stream: Any) -> str:
    """A stream in a sentence: "stream 6 (subrip subtitle)"."""
    named = stream.metadata.get("filename") or stream.metadata.get("title")
    kind = f"{codec_name(stream)} {stream.type}" if stream.codec_context is not None else stream.type
    return f"stream {stream.index} ({kind}{f' “{named}”' if named else ''})"


def movie_timescale(time_bases: Iterable[Fraction]) -> dict[str, str]:
    """The option that lets every stream of an MP4 file start at any of its ticks, not only at whole ms."""
    scale = math.lcm(*(time_base.denominator for time_base in time_bases))
    return {"movie_timescale": str(scale)} if 1000 <= scale < 1 << 31 else {}


def can_mux_as_is(container: str, stream: Any, options: dict[str, str] | None = None) -> bool:
    """Whether the container format takes the packets of this stream as they are. Tries it on a small file in memory."""
    file = io.BytesIO()
    try:
        with av.open(file, "w", format=container, container_options=options or {}) as scratch:
            target = scratch.add_stream_from_template(stream)
            scratch.start_encoding()
            if codec_name(stream).startswith("pcm_"):
                # MP4 describes only some kinds of PCM, and finds out when it has a packet to describe.
                silence = av.Packet(bytes(24 * stream.codec_context.channels))
                silence.pts = silence.dts = 0
                silence.time_base = stream.time_base
                silence.stream = target
                scratch.mux(silence)
            if container == "nut":
                _mux_two(scratch, target)
        return container != "nut" or _reads_back(file, stream)
    except (av.FFmpegError, ValueError):
        return False


def _mux_two(output: Any, target: Any) -> None:
    """Two packets of nothing: FFmpeg finds no stream in a NUT file without any."""
    for number in range(2):
        packet = av.Packet(bytes(64))
        packet.pts = packet.dts = number
        packet.time_base, packet.stream = Fraction(1), target
        output.mux(packet)


def _reads_back(file: io.BytesIO, stream: Any) -> bool:
    """Whether FFmpeg finds a stream again in the NUT file it wrote: of some codecs it forgets the channels."""
    file.seek(0)
    with av.open(file, format="nut") as written:
        found: Any = written.streams[0]
        if found.type == "audio":
            return bool(found.codec_context.channels == stream.codec_context.channels)
        return bool(found.type == stream.type)


def can_mux_or_convert(container: str, stream: Any) -> bool:
    """Whether the container format takes this stream, as it is or as text subtitles of its own form."""
    return text_encoder(container, codec_name(stream)) is not None or can_mux_as_is(container, stream)


class StreamCopy:
    """One stream of `source` on its way into `output`, a container that nothing was muxed into yet.

    A packet that the muxer refuses is left out and counted: `warnings` says so. Text subtitles are converted where the
    container has another form for them.
    """

    def __init__(self, source: Any, output: Any) -> None:
        container = output.format.name
        # Kept as text: neither stream can be asked any more once its container is closed.
        self._name, self._container = f"{codec_name(source)} {source.type} stream", container
        self._output = output
        self._step = _least_step(source)
        self._strict = container not in _TAKE_EQUAL_TIMES
        self._last: Fraction | None = None  # decode time of the last packet in seconds
        self._taken = self._refused = self._shortened = 0
        self._reason = ""
        self._converter: SubtitleConverter | None = None
        self._held: Any = None  # a converted subtitle, until it is known when the next one begins
        encoder = text_encoder(container, codec_name(source))
        if encoder is not None and not can_mux_as_is(container, source):
            self._converter = SubtitleConverter(source, output, encoder)
            self._target = self._converter.target
        else:
            self._target = output.add_stream_from_template(source)
        self._target.time_base = source.time_base
        for tag in ("language", "title"):
            if tag in source.metadata:
                self._target.metadata[tag] = source.metadata[tag]
        if hasattr(source, "disposition"):
            self._target.disposition = source.disposition.value

    @property
    def warnings(self) -> list[str]:
        """What was lost, in sentences."""
        lost = []
        if self._refused:
            verb = "is" if self._refused == 1 else "are"
            count = f"{self._refused} of {self._refused + self._taken} packets"
            lost.append(
                f"{count} of the {self._name} {verb} left out: {self._container} refuses them ({self._reason})"
            )
        if self._shortened:
            lost.append(
                f"of the {self._name}, {self._shortened} cut where the next subtitle begins: "
                f"{self._container} shows one at a time"
            )
        return lost

    def mux(self, packet: Any) -> None:
        """Write a packet of the source stream, which is changed. Raises OSError where the output cannot be written."""
        try:
            if self._converter is not None:
                packet = self._converter.convert(packet)
                packet = self._hold(packet) if packet is not None else None
        except _REFUSALS as error:
            self._refuse(error)
        else:
            self._write(packet)

    def flush(self) -> None:
        """Write the subtitle that was held back."""
        self._write(self._hold(None))

    def _hold(self, packet: Any) -> Any:
        """Exchange the subtitle held back, which ends when the next one begins: MP4 shows one at a time."""
        held, self._held = self._held, packet
        if held is not None and packet is not None and self._strict and held.pts + held.duration > packet.pts:
            held.duration = max(0, packet.pts - held.pts)
            self._shortened += 1
        return held

    def _write(self, packet: Any) -> None:
        if packet is None:
            return
        try:
            self._make_dts_increase(packet)
            packet.stream = self._target
            self._output.mux(packet)
        except _REFUSALS as error:
            self._refuse(error)
        else:
            self._taken += 1

    def _refuse(self, error: Exception) -> None:
        self._refused += 1
        self._reason = getattr(error, "strerror", None) or str(error)

    def _make_dts_increase(self, packet: Any) -> None:
        """Move a packet's decode time forward, where this muxer needs strictly increasing ones."""
        if packet.dts is None:
            packet.dts = packet.pts
        dts = Fraction(packet.dts * packet.time_base)
        if self._strict and self._last is not None and dts < self._last + self._step:
            finer = Fraction(1, math.lcm(packet.time_base.denominator, self._step.denominator))
            pts, duration = packet.pts, packet.duration
            scale = packet.time_base / finer
            dts = self._last + self._step
            packet.time_base = finer
            packet.dts = round(dts / finer)
            packet.pts = max(packet.dts, round(pts * scale)) if pts is not None else packet.dts
            packet.duration = round((duration or 0) * scale)
        self._last = dts


def _least_step(stream: Any) -> Fraction:
    """The least step of time that a muxer can tell, in seconds: MP4 counts sound in samples."""
    if stream.type == "audio" and (rate := stream.codec_context.sample_rate):
        return Fraction(1, rate)
    return Fraction(stream.time_base)

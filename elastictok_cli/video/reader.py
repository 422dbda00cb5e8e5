"""Reading a video file one frame at a time, with its side streams: the audio and subtitle packets."""

from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import numpy as np
from numpy.typing import NDArray

from elastictok_cli.video import chapters, orientation, selection
from elastictok_cli.video.aspect import pixel_aspect
from elastictok_cli.video.clock import JUMPING_FORMATS, ProgramClock
from elastictok_cli.video.colour import merged, tags_of, to_rgb
from elastictok_cli.video.completeness import Completeness
from elastictok_cli.video.errors import UnreadableVideo
from elastictok_cli.video.losses import TRANSPARENCY, lost_in_pixels
from elastictok_cli.video.muxing import codec_name, describe
from elastictok_cli.video.records import Frame, VideoInfo
from elastictok_cli.video.seeking import MIN_SKIP_SECONDS, skip_pictures
from elastictok_cli.video.sidestreams import PacketCollector
from elastictok_cli.video.source import Source, reason_of
from elastictok_cli.video.timeline import FrameTimes, Timeline

# A time asked for in decimal seconds means the frame it was read from: 0.066667 is the third frame at 30 fps.
_TIME_ROUNDING_SECONDS = Fraction(1, 1_000_000)

_HDR_TRANSFERS = {16: "PQ (HDR10)", 18: "HLG"}

# How far apart in a file (seconds) packets of the same time may lie.
_MAX_INTERLEAVING_SECONDS = 2

# Facts about the old file that would be untrue of a new one.
_FILE_TAGS = {"major_brand", "minor_version", "compatible_brands", "encoder"}


class VideoReader:
    """Frames of a video, upright and in order of time. A context manager, to be iterated once.

    `source` is a path, or "-" for standard input. `start` and `duration` (seconds, counted from the first
    frame) keep the frames with start <= t < start + duration. `max_height` (pixels) scales taller
    pictures down. With `aux`, audio and subtitle packets are copied into a container whose bytes `take_aux`
    gives piece by piece. `stream` is the number of the video stream in the file, by default the first that moves.
    `name` is what messages call the source, by default its path.

    Times begin at zero, as FFmpeg's do: with `start` the first frame kept, else the first stream of sound or pictures
    to begin. Audio and subtitles move with the frames; `info.clock_offset` keeps the source's clock. Where that clock
    jumps it is mended (`ProgramClock`).

    Pixels are those of PyAV's `to_ndarray(format="rgb24")` with the matrix and range that `colour` decides on,
    then turned upright. What RGB cannot hold (alpha, interlacing) is named in `warnings`.

    Raises UnreadableVideo, NoVideoStream when there is no picture in the source.
    """

    info: VideoInfo
    warnings: list[str]

    def __init__(
        self,
        source: str | Path,
        *,
        start: float | None = None,
        duration: float | None = None,
        max_height: int | None = None,
        aux: bool = True,
        stream: int | None = None,
        name: str | None = None,
    ) -> None:
        self.warnings = []
        self._source = Source(source, name)
        self._name = self._source.name
        self._number = stream
        self._start = None if start is None else Fraction(str(start))
        self._duration = None if duration is None else Fraction(str(duration))
        self._end: Fraction | None = None  # of the window, on the source's clock
        self._finished = False  # no more frames are wanted, only the packets beside them
        self._damaged = self._corrupt = 0
        self._resized = False
        self._side: PacketCollector | None = None
        self._aux = aux
        self._container = self._source.open()
        try:
            self._prepare()
            self._first, self._first_pts = self._find_first()
            self._orientation = self._find_orientation()
            self._stored_size = (self._first.width, self._first.height)
            self._scaled_size = self._scale(*self._stored_size, max_height)
            self.info = self._describe()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Frame]:
        decoded: Any = self._first
        self._first = None  # a frame held here would be held for the whole run
        pts = self._first_pts
        while decoded is not None and not self._is_past_end(pts):
            following, following_pts = self._next_frame()
            duration = int(getattr(decoded, "duration", 0) or 0)
            if following is None:
                duration = max(duration, self._repeated_until - pts)
            yield Frame(self._pixels(decoded), pts - self.info.clock_offset, duration)
            decoded, pts = following, following_pts
        self._finished = True
        deque(self._frames, maxlen=0)  # audio may be stored some way behind the pictures it belongs to
        if self._side is not None:
            self._side.close()
        self._warn_at_end()

    def _warn_at_end(self) -> None:
        """Say what was found damaged, missing or mended on the way."""
        if self._end is None and (short := self._completeness.shortfalls()):
            self.warnings.append(f"{self._name} is cut short: {', '.join(short)}")
        if self._damaged:
            self.warnings.append(f"{self._damaged} damaged video packets were skipped")
        if self._corrupt:
            self.warnings.append(f"{self._corrupt} frames are damaged in the source")
        if self._clock.jumps:
            where = float((self._clock.first_jump or 0) - self._source_begin)
            self.warnings.append(
                f"the clock of the source jumps, {where:.2f} s into the video"
                + (f" and {self._clock.jumps - 1} times more" if self._clock.jumps > 1 else "")
                + ": what follows was moved on, sound and pictures alike"
            )
        if self._timeline.repaired:
            self.warnings.append(f"{self._timeline.repaired} frames had no usable time and were given one")

    def take_aux(self) -> bytes:
        """The container bytes produced since the last call, b"" if none; the tail after iteration."""
        return self._side.take() if self._side is not None else b""

    @property
    def aux_rate(self) -> float:
        """Bytes a second of the copied streams, by what was read so far; 0 if there are none."""
        return self._side.bytes_a_second if self._side is not None else 0.0

    def close(self) -> None:
        """Close the source. Safe to call twice."""
        if self._side is not None:
            self._side.close()
        self._container.close()
        self._source.close()

    def _prepare(self) -> None:
        """Find the streams of the container just opened, and get ready to decode."""
        self._stream, self._peeked = selection.pick_video(self._container, self._name, self._number)
        self._stream.thread_type = "AUTO"
        self._container_tags = tags_of(self._stream)  # decoding overwrites them
        self._time_base = Fraction(self._stream.time_base)
        self._rate = _positive(self._stream.average_rate) or _positive(self._stream.guessed_rate)
        self._side = self._collect_side_streams()
        read = [self._stream, *(self._side.streams if self._side is not None else ())]
        self._read = {s.index: s for s in read}
        self._completeness = Completeness(self._container, read)
        self._restart()

    def _collect_side_streams(self) -> PacketCollector | None:
        if not self._aux:
            return None
        collector = PacketCollector(
            self._container.format.name, selection.side_streams(self._container), self.warnings
        )
        for stream in selection.unused_streams(self._container, [self._stream, *collector.streams]):
            self.warnings.append(f"{describe(stream)} is not carried")
            if stream.type == "video" and stream.metadata.get("title") == "Alpha":  # as AVIF calls it
                self.warnings.append(TRANSPARENCY)
        return collector if collector.streams else None

    def _restart(self) -> None:
        """Start decoding from wherever the container now stands."""
        step = round(1 / (self._rate * self._time_base)) if self._rate else 1
        self._clock = ProgramClock(self._container.format.name)
        self._times = FrameTimes(self._container.format.name, self._time_base)
        self._timeline = Timeline(step)
        self._repeated_until = 0  # ticks up to which the latest frame is repeated
        self._packets = self._clock.mend(self._demux())
        self._frames = self._decode(self._packets)
        if self._side is not None:
            self._side.forget()

    def _demux(self) -> Iterator[Any]:
        """The packets of the streams that are read, in the order of the file."""
        peeked, self._peeked = self._peeked, []
        at_end = bool(peeked) and peeked[-1].size == 0 and peeked[-1].dts is None
        rest = () if at_end else self._container.demux(*self._read.values())
        return (p for p in chain(peeked, rest) if p.stream.index in self._read)

    def _decode(self, packets: Iterator[Any]) -> Iterator[Any]:
        """Decoded frames in order of time; packets beside them go to the collector on the way."""
        side = self._side
        try:
            for packet in packets:
                self._completeness.see(packet)
                # not `packet.stream_index`, which is 0 for the packets that flush decoders
                if packet.stream.index != self._stream.index:
                    if side is not None:
                        side.add(packet)
                elif not self._finished:
                    yield from self._decode_packet(packet)
                if self._finished and (side is None or side.past_window or self._is_far_past_end(packet)):
                    return
        except (av.FFmpegError, OSError) as error:
            self.warnings.append(f"{self._name} is damaged or cut short: {reason_of(error)}")

    def _decode_packet(self, packet: Any) -> list[Any]:
        if packet.size == 0 and packet.pts is not None:  # repeats the frame before, as Theora and AVI do
            self._repeated_until = packet.pts + (packet.duration or 0)
            return []
        self._times.feed(packet)
        try:
            frames: list[Any] = packet.decode()
        except av.FFmpegError:
            self._damaged += 1
            return []
        return frames

    def _next_frame(self) -> tuple[Any, int]:
        """The next decoded frame with its pts; (None, 0) at the end."""
        decoded = next(self._frames, None)
        if decoded is None:
            return None, 0
        self._corrupt += decoded.is_corrupt
        return decoded, self._timeline.place(self._times.best(decoded))

    def _find_first(self) -> tuple[Any, int]:
        """The first frame of the window and its pts on the source's clock; tells the collector the window."""
        decoded, pts = self._next_frame()
        if decoded is None:
            reason = self.warnings[-1] if self.warnings else None
            raise UnreadableVideo(self._source.failure("holds no frame that can be decoded", reason))
        self._source_begin = pts * self._time_base
        wanted = self._source_begin + (self._start or 0)
        if self._duration is not None:
            self._end = wanted + self._duration
        if (self._start or 0) > MIN_SKIP_SECONDS and not self._source.reads_once and decoded.pts is not None:
            decoded, pts = self._seek(wanted)
        while decoded is not None and pts * self._time_base + _TIME_ROUNDING_SECONDS < wanted:
            if self._side is not None:
                self._side.forget(before=pts * self._time_base)
            decoded, pts = self._next_frame()
        if decoded is None or self._is_past_end(pts):
            raise UnreadableVideo(f"{self._name} has no frame in the time asked for")
        if self._side is not None:
            offset = self._clock_offset(pts) * self._time_base
            self._side.begin(offset if self._start is not None else None, self._end, offset)
        return decoded, pts

    def _seek(self, wanted: Fraction) -> tuple[Any, int]:
        """A decoded frame at or before `wanted` (seconds), the first one where the file cannot seek."""
        if self._container.format.name in JUMPING_FORMATS:
            if self._side is not None:
                self._side.forget(before=wanted, for_good=True)
            self._frames = self._decode(skip_pictures(self._packets, self._stream.index, wanted))
            return self._next_frame()
        with suppress(av.FFmpegError):
            self._container.seek(int(wanted / self._time_base), stream=self._stream)
            self._restart()
            decoded, pts = self._next_frame()
            if decoded is not None and pts * self._time_base <= wanted + _TIME_ROUNDING_SECONDS:
                return decoded, pts
        self.close()
        self.warnings.clear()
        self._container = self._source.open()
        self._prepare()
        return self._next_frame()

    def _clock_offset(self, first_pts: int) -> int:
        """Ticks to subtract from the source's clock, so that its streams, or the window, begin at zero."""
        if self._start is not None:
            return first_pts
        starts = [
            s.start_time * s.time_base
            for s in (self._stream, *self._container.streams.audio)
            if s.start_time is not None and s.time_base
        ]
        return round(min(starts, default=Fraction(0)) / self._time_base)

    def _is_past_end(self, pts: int) -> bool:
        return self._end is not None and pts * self._time_base + _TIME_ROUNDING_SECONDS >= self._end

    def _is_far_past_end(self, packet: Any) -> bool:
        """Whether demuxing has gone so far beyond the window that no packet of it can follow."""
        if self._end is None or packet.dts is None:
            return False
        return bool(packet.dts * packet.time_base > self._end + _MAX_INTERLEAVING_SECONDS)

    def _find_orientation(self) -> orientation.Orientation:
        found = orientation.of_bytes(self._source.head()) if _is_still(self._container) else None
        return found or orientation.of_frame(self._first)

    def _scale(self, width: int, height: int, max_height: int | None) -> tuple[int, int]:
        """The stored size to convert to, so that the upright picture is no taller than `max_height`."""
        upright = width if self._orientation.quarters % 2 else height
        if max_height is None or upright <= max_height:
            return width, height
        return max(1, round(width * max_height / upright)), max(1, round(height * max_height / upright))

    def _pixels(self, decoded: Any) -> NDArray[np.uint8]:
        """The upright picture of a decoded frame, (H, W, 3) uint8."""
        if (decoded.width, decoded.height) != self._stored_size and not self._resized:
            self._resized = True
            self.warnings.append("the picture size changes midway; frames are scaled to the first's size")
        for lost in lost_in_pixels(decoded, self._stream, self._container_tags):
            if lost not in self.warnings:
                self.warnings.append(lost)
        return self._orientation.apply(to_rgb(decoded, *self._scaled_size, self._container_tags))

    def _describe(self) -> VideoInfo:
        width, height = self._scaled_size
        aspect = pixel_aspect(self._stream)
        if self._orientation.quarters % 2:
            width, height, aspect = height, width, 1 / aspect
        color = merged(tags_of(self._stream), self._container_tags)
        if color["color_trc"] in _HDR_TRANSFERS:
            transfer = _HDR_TRANSFERS[color["color_trc"]]
            self.warnings.append(f"the source is HDR ({transfer}): taken as 8-bit RGB, not tone-mapped")
        offset = self._clock_offset(self._first_pts)
        windowed = self._start is not None or self._duration is not None
        return VideoInfo(
            width=width,
            height=height,
            time_base=self._time_base,
            average_rate=self._rate,
            frame_count=None if windowed else self._stream.frames or None,
            duration=self._declared_duration(),
            rotation=90 * self._orientation.quarters,
            pixel_format=self._first.format.name,
            color=color,
            size_bytes=None if self._source.reads_once else self._source.path.stat().st_size,
            codec=codec_name(self._stream),
            metadata={k: v for k, v in self._container.metadata.items() if k not in _FILE_TAGS},
            aux_streams=self._side.describe() if self._side is not None else (),
            aux_container=self._side.container if self._side is not None else None,
            start_pts=self._first_pts,
            clock_offset=offset,
            chapters=tuple(
                chapters.read(
                    self._container,
                    self._time_base,
                    self._first_pts * self._time_base if self._start is not None else None,
                    self._end,
                    offset,
                )
            ),
            is_still=_is_still(self._container),
            pixel_aspect=aspect,
        )

    def _declared_duration(self) -> float | None:
        seconds: Fraction | None = None
        if self._stream.duration:
            seconds = self._stream.duration * self._time_base
        elif self._container.duration:
            seconds = Fraction(self._container.duration, av.time_base)
        if seconds is not None and self._start is not None:
            seconds = max(Fraction(0), seconds - self._start)
        if self._duration is not None:
            seconds = self._duration if seconds is None else min(seconds, self._duration)
        return None if seconds is None else float(seconds)


def _is_still(container: Any) -> bool:
    name: str = container.format.name
    return name == "image2" or name.endswith("_pipe")


def _positive(ratio: Any) -> Fraction | None:
    return Fraction(ratio) if ratio else None

"""Reading a video file one frame at a time, with the audio and subtitle packets that run beside it."""

import sys
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import numpy as np
from numpy.typing import NDArray

from elastictok_cli.video import orientation
from elastictok_cli.video.errors import NoVideoStream, UnreadableVideo
from elastictok_cli.video.records import Frame, VideoInfo
from elastictok_cli.video.sidestreams import PacketCollector, codec_name
from elastictok_cli.video.streams import Stream, reads_once
from elastictok_cli.video.timeline import Timeline

# A time asked for in decimal seconds means the frame it was read from: 0.066667 is the third frame at 30 fps.
_TOLERANCE = Fraction(1, 1_000_000)

_HDR_TRANSFERS = {16: "PQ (HDR10)", 18: "HLG"}

_COLOR_FACTS = ("color_primaries", "color_trc", "colorspace", "color_range")

# How far apart in a file (seconds) packets of the same time may lie.
_INTERLEAVING = 2

# Facts about the old file that would be untrue of a new one.
_FILE_TAGS = {"major_brand", "minor_version", "compatible_brands", "encoder"}


class VideoReader:
    """Frames of a video, upright and in order of time. A context manager, to be iterated once.

    `source` is a path, or "-" for standard input. `start` and `duration` (seconds, counted from the first
    frame) keep the frames with start <= t < start + duration; with `start`, times are moved so that the
    first frame kept is at 0, and audio and subtitles move with it. `max_height` (pixels) scales taller
    pictures down. With `aux`, audio and subtitle packets are copied into a container whose bytes `take_aux`
    gives piece by piece.

    Pixels are those of PyAV's `to_ndarray(format="rgb24")`, then turned upright; alpha is dropped.

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
    ) -> None:
        self.warnings = []
        self._piped = reads_once(source)
        self._pipe: Stream | None = None  # a named one, or standard input without a way back
        self._path = Path(source)
        self._name = "standard input" if str(source) == "-" else str(source)
        self._start = None if start is None else Fraction(str(start))
        self._duration = None if duration is None else Fraction(str(duration))
        self._end: Fraction | None = None  # of the window, on the source's clock
        self._finished = False  # no more frames are wanted, only the packets beside them
        self._damaged = 0
        self._resized = False
        self._side: PacketCollector | None = None
        self._aux = aux
        self._container = self._open()
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
        shift = self._first_pts if self._start is not None else 0
        decoded: Any = self._first
        self._first = None  # a frame held here would be held for the whole run
        pts = self._first_pts
        while decoded is not None and not self._is_past_end(pts):
            yield Frame(self._pixels(decoded), pts - shift, int(getattr(decoded, "duration", 0) or 0))
            decoded, pts = self._next_frame()
        self._finished = True
        deque(self._frames, maxlen=0)  # audio may be stored some way behind the pictures it belongs to
        if self._side is not None:
            self._side.close()
        if self._damaged:
            self.warnings.append(f"{self._damaged} damaged video packets were skipped")
        if self._timeline.repaired:
            self.warnings.append(f"{self._timeline.repaired} frames had no usable time and were given one")

    @property
    def first_pts(self) -> int:
        """Of the first frame kept, on the source's own clock: before `start` moves times."""
        return self._first_pts

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
        if self._pipe is not None:
            self._pipe.close()

    def _open(self) -> Any:
        if not self._piped and not self._path.exists():
            raise UnreadableVideo(f"{self._name} does not exist")
        if not self._piped and self._path.is_dir():
            raise UnreadableVideo(f"{self._name} is a folder, not a video file")
        try:
            if self._piped:
                if str(self._path) != "-" or not sys.stdin.seekable():
                    self._pipe = Stream(self._path)
                return av.open(self._pipe or sys.stdin.buffer, "r", metadata_errors="replace")
            # `file:` and `pattern_type`, so that colons, % and [ in a name are only characters.
            return av.open(
                f"file:{self._path}", "r", options={"pattern_type": "none"}, metadata_errors="replace"
            )
        except (av.FFmpegError, OSError, ValueError) as error:
            raise UnreadableVideo(f"{self._name} cannot be read as a video: {_reason(error)}") from error

    def _prepare(self) -> None:
        """Find the streams of the container just opened, and get ready to decode."""
        self._stream = self._pick_stream()
        self._time_base = Fraction(self._stream.time_base)
        self._rate = _positive(self._stream.average_rate) or _positive(self._stream.guessed_rate)
        self._side = self._collect_side_streams()
        self._restart()

    def _pick_stream(self) -> Any:
        videos = [s for s in self._container.streams.video if not _is_cover(s)]
        if not videos:
            raise NoVideoStream(f"{self._name} has no video in it")
        if videos[0].codec_context is None:
            raise UnreadableVideo(f"{self._name} holds a kind of video that FFmpeg cannot decode")
        videos[0].thread_type = "AUTO"
        return videos[0]

    def _collect_side_streams(self) -> PacketCollector | None:
        if not self._aux:
            return None
        others = [s for s in self._container.streams if s is not self._stream]
        side = [s for s in others if s.type in ("audio", "subtitle") and s.codec_context is not None]
        lost = [s for s in others if s not in side]
        collector = PacketCollector(self._container.format.name, side, self.warnings)
        for stream in lost + collector.lost:
            self.warnings.append(f"stream {stream.index} ({codec_name(stream)} {stream.type}) is not carried")
        return collector if collector.streams else None

    def _restart(self) -> None:
        """Start decoding from wherever the container now stands."""
        step = round(1 / (self._rate * self._time_base)) if self._rate else 1
        self._timeline = Timeline(self._time_base, step)
        self._frames = self._decode()
        if self._side is not None:
            self._side.forget()

    def _decode(self) -> Iterator[Any]:
        """Decoded frames in order of time; packets beside them go to the collector on the way."""
        side = self._side
        try:
            for packet in self._container.demux(self._stream, *(side.streams if side is not None else ())):
                if packet.stream_index != self._stream.index:
                    if side is not None:
                        side.add(packet)
                elif not self._finished:
                    yield from self._decode_packet(packet)
                if self._finished and (side is None or side.past_window or self._is_far_past_end(packet)):
                    return
        except (av.FFmpegError, OSError) as error:
            self.warnings.append(f"{self._name} is damaged or cut short: {_reason(error)}")

    def _decode_packet(self, packet: Any) -> list[Any]:
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
        claimed = decoded.pts if decoded.pts is not None else decoded.dts
        if claimed is not None and decoded.time_base and decoded.time_base != self._time_base:
            claimed = round(claimed * decoded.time_base / self._time_base)
        return decoded, self._timeline.place(claimed)

    def _find_first(self) -> tuple[Any, int]:
        """The first frame of the window and its pts on the source's clock; tells the collector the window."""
        decoded, pts = self._next_frame()
        if decoded is None:
            reason = f" ({self.warnings[-1]})" if self.warnings else ""
            raise UnreadableVideo(f"{self._name}: not one frame can be decoded{reason}")
        wanted = pts * self._time_base + (self._start or 0)
        if self._duration is not None:
            self._end = wanted + self._duration
        if self._start and not self._piped and decoded.pts is not None:
            decoded, pts = self._jump(wanted)
        while decoded is not None and pts * self._time_base + _TOLERANCE < wanted:
            if self._side is not None:
                self._side.forget(before=pts * self._time_base)
            decoded, pts = self._next_frame()
        if decoded is None or self._is_past_end(pts):
            raise UnreadableVideo(f"{self._name} has no frame in the time asked for")
        if self._side is not None:
            first = pts * self._time_base if self._start is not None else None
            self._side.begin(first, self._end, first or Fraction(0))
        return decoded, pts

    def _jump(self, wanted: Fraction) -> tuple[Any, int]:
        """A decoded frame at or before `wanted` (seconds), the first one where the file cannot seek."""
        with suppress(av.FFmpegError):
            self._container.seek(int(wanted / self._time_base), stream=self._stream)
            self._restart()
            decoded, pts = self._next_frame()
            if decoded is not None and pts * self._time_base <= wanted + _TOLERANCE:
                return decoded, pts
        self.close()
        self.warnings.clear()
        self._container = self._open()
        self._prepare()
        return self._next_frame()

    def _is_past_end(self, pts: int) -> bool:
        return self._end is not None and pts * self._time_base + _TOLERANCE >= self._end

    def _is_far_past_end(self, packet: Any) -> bool:
        """Whether demuxing has gone so far beyond the window that no packet of it can follow."""
        if self._end is None or packet.dts is None:
            return False
        return bool(packet.dts * packet.time_base > self._end + _INTERLEAVING)

    def _find_orientation(self) -> orientation.Orientation:
        found = None
        if _is_still(self._container) and self._pipe is not None:
            found = orientation.of_bytes(self._pipe.head)
        elif _is_still(self._container) and not self._piped:
            found = orientation.of_still(self._path)
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
        if (decoded.width, decoded.height) != self._scaled_size:
            width, height = self._scaled_size
            decoded = decoded.reformat(width=width, height=height, format="rgb24", interpolation="BICUBIC")
        return self._orientation.apply(decoded.to_ndarray(format="rgb24"))

    def _describe(self) -> VideoInfo:
        context = self._stream.codec_context
        width, height = self._scaled_size
        aspect = _positive(context.sample_aspect_ratio) or Fraction(1)
        if self._orientation.quarters % 2:
            width, height, aspect = height, width, 1 / aspect
        color = {name: int(getattr(context, name)) for name in _COLOR_FACTS}
        if color["color_trc"] in _HDR_TRANSFERS:
            transfer = _HDR_TRANSFERS[color["color_trc"]]
            self.warnings.append(f"the source is HDR ({transfer}): taken as 8-bit RGB, not tone-mapped")
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
            size_bytes=None if self._piped else self._path.stat().st_size,
            codec=codec_name(self._stream),
            metadata={k: v for k, v in self._container.metadata.items() if k not in _FILE_TAGS},
            aux_streams=self._side.describe() if self._side is not None else (),
            aux_container=self._side.container if self._side is not None else None,
            start_pts=0 if self._start is not None else self._first_pts,
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


def _is_cover(stream: Any) -> bool:
    """Whether a video stream is the cover picture of an audio file."""
    disposition = getattr(stream, "disposition", None)
    return disposition is not None and bool(disposition & type(disposition).attached_pic)


def _is_still(container: Any) -> bool:
    name: str = container.format.name
    return name == "image2" or name.endswith("_pipe")


def _positive(ratio: Any) -> Fraction | None:
    return Fraction(ratio) if ratio else None


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)

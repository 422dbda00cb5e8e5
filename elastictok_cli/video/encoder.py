"""Writing frames and copied packets to MP4, MOV, Matroska and WebM."""

import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.video.frame import VideoFrame

from elastictok_cli.video import matroska
from elastictok_cli.video.aspect import display_size, limited
from elastictok_cli.video.chapters import write as write_chapters
from elastictok_cli.video.colour import FULL_RANGE, LIMITED_RANGE, RGB_MATRIX, from_rgb, matrix_for
from elastictok_cli.video.errors import UnwritableVideo
from elastictok_cli.video.muxing import movie_timescale
from elastictok_cli.video.records import Chapter, Frame
from elastictok_cli.video.sidestreams import PacketCopier

CONTAINERS = {
    ".mp4": "mp4",
    ".m4v": "mp4",
    ".mov": "mov",
    ".mkv": "matroska",
    ".webm": "webm",
    ".nut": "nut",
}

# What a user may ask for: FFmpeg's encoders in order of preference, with settings that look like the source.
_ENCODERS: dict[str, tuple[tuple[str, dict[str, str]], ...]] = {
    "h264": (("libx264", {"crf": "14", "preset": "fast"}),),
    "hevc": (("libx265", {"crf": "16", "preset": "fast", "x265-params": "log-level=error"}),),
    "av1": (
        ("libsvtav1", {"crf": "18", "preset": "8"}),
        ("libaom-av1", {"crf": "16", "cpu-used": "6", "row-mt": "1"}),
    ),
    "ffv1": (("ffv1", {"level": "3", "slicecrc": "1"}),),
}
CODECS = tuple(_ENCODERS)

# The numbers of ITU-T H.273 that mean something. Others, as damaged files have them, would stop an encoder.
_KNOWN_TAGS = {"color_primaries": (1, *range(4, 13), 22), "color_trc": (1, *range(4, 19))}
_UNKNOWN_TO_X265 = ("color_primaries", 22)  # EBU 3213

_MAX_ASPECT_TERM = (1 << 31) - 1  # FFmpeg holds ratios as two 32-bit integers


# SVT-AV1 (seen in version 4.1) never comes back from pictures flatter or narrower than this, unless they fit
# into one superblock.
_SVT_MIN_SIDE, _SVT_MAX_SIDE_OF_SMALL = 32, 64


# So few frames cannot be reordered. x265 gives their packets decoding times out of memory it never set.
_MAX_FRAMES_IN_ORDER = 2


class ContainerSink:
    """Encodes frames into one file.

    Even sizes are written as yuv420p, which everything plays, odd ones as yuv444p, which has no halved
    planes to round; FFV1 holds RGB as it is. Colours follow the rule of `colour`, and the file carries the
    tags of what was written, and the shape of its pixels where they are not square. MP4 and MOV keep every
    time exactly; Matroska and WebM round to 1 ms.
    """

    def __init__(
        self,
        path: Path,
        container: str,
        *,
        size: tuple[int, int],
        time_base: Fraction,
        average_rate: Fraction | None,
        codec: str,
        color: dict[str, int],
        metadata: dict[str, str],
        pixel_aspect: Fraction,
        copier: PacketCopier | None,
        crf: int | None = None,
        chapters: Sequence[Chapter] = (),
    ) -> None:
        self._crf = crf
        self._size = size
        self._time_base = time_base
        self._frames = 0
        self._duration = 0  # of the newest frame
        self._copier = copier
        self._is_rgb = codec == "ffv1"
        self._pixel_format = _pixel_format(codec, size)
        self._matrix = matrix_for(color, *size)
        self._path = path
        # Matroska says the shape of pixels by the size to show them at.
        self._shown_at = (
            display_size(*size, pixel_aspect)
            if container in ("matroska", "webm") and pixel_aspect != 1
            else None
        )
        # Disabled: audio that starts before 0 must not push the pictures back. NUT has no times below 0.
        options = {"avoid_negative_ts": "make_non_negative" if container == "nut" else "disabled"}
        if container in ("mp4", "mov") and time_base.denominator < 1 << 31:
            options["video_track_timescale"] = str(time_base.denominator)
            options |= movie_timescale([time_base, *(copier.time_bases if copier is not None else ())])
        try:
            self._output = av.open(f"file:{path}", "w", format=container, container_options=options)
            self._output.metadata.update(metadata)
            self._stream = self._add_stream(container, codec, average_rate)
            self._set_color(color, codec)
            if pixel_aspect != 1:
                self._stream.codec_context.sample_aspect_ratio = limited(pixel_aspect, _MAX_ASPECT_TERM)
            if self._shown_at is not None:
                self._stream.metadata["title"] = matroska.PLACEHOLDER_NAME
            self._stream.codec_context.open()
            if copier is not None:
                copier.attach(self._output)
            if chapters:
                write_chapters(self._output, chapters, time_base)
        except (av.FFmpegError, OSError, ValueError) as error:
            width, height = size
            hint = "" if self._is_rgb else "; --lossless in .mkv writes any size"
            raise UnwritableVideo(
                f"{codec} in {container} cannot hold {width}x{height} pictures ({error}){hint}"
            ) from error

    def write(self, frame: Frame) -> None:
        """Encode one frame."""
        if self._is_rgb:
            picture = VideoFrame.from_ndarray(frame.rgb, format="rgb24").reformat(format=self._pixel_format)
        else:
            picture = from_rgb(frame.rgb, self._pixel_format, self._matrix)
        picture.pts = frame.pts
        picture.time_base = self._time_base
        self._duration = frame.duration
        self._mux(picture)

    def finish(self) -> None:
        """Write all that is still held back, and the end of the file."""
        self._mux(None)
        if self._copier is not None:
            self._copier.copy_until(None)
        self._output.close()
        if self._shown_at is not None:
            matroska.write_display_size(self._path, *self._shown_at)

    def abort(self) -> None:
        """Let go of the file, whatever is in it."""
        self._output.close()

    def _add_stream(self, container: str, codec: str, average_rate: Fraction | None) -> Any:
        if (container, codec) == ("mov", "av1"):  # FFmpeg finds out only when it writes the file's head
            raise UnwritableVideo("mov files cannot hold av1; use .mp4 or .mkv")
        # Only a nominal rate, which encoders plan with: times come from the frames.
        rate = min(max(average_rate or Fraction(25), Fraction(1)), Fraction(240)).limit_denominator(1001)
        for name, defaults in _ENCODERS[codec]:
            options = dict(defaults)
            if self._crf is not None and "crf" in options:
                options["crf"] = str(self._crf)
            try:
                stream: Any = self._output.add_stream(name, rate=rate, options=options)
                break
            except av.codec.codec.UnknownCodecError:
                continue
            except ValueError as error:
                raise UnwritableVideo(f"{container} files cannot hold {codec}; use .mkv") from error
        else:
            raise UnwritableVideo(f"this build of FFmpeg has no {codec} encoder; use another --codec")
        if name == "libsvtav1":
            if min(self._size) < _SVT_MIN_SIDE and max(self._size) > _SVT_MAX_SIDE_OF_SMALL:
                raise UnwritableVideo(
                    f"the AV1 encoder cannot write {self._size[0]}x{self._size[1]} pictures: use another --codec"
                )
            os.environ.setdefault("SVT_LOG", "1")  # errors only: its banner goes to stderr otherwise
        stream.width, stream.height = self._size
        stream.pix_fmt = self._pixel_format
        stream.time_base = self._time_base
        stream.codec_context.time_base = self._time_base
        if container == "nut":  # decode times before the first picture would be times below 0
            stream.codec_context.max_b_frames = 0
        stream.codec_context.bit_rate = 0  # older PyAV sets one, and some encoders prefer it to the quality
        return stream

    def _set_color(self, color: dict[str, int], codec: str) -> None:
        context = self._stream.codec_context
        context.colorspace = RGB_MATRIX if self._is_rgb else self._matrix
        context.color_range = FULL_RANGE if self._is_rgb else LIMITED_RANGE
        for name, known in _KNOWN_TAGS.items():
            value = color.get(name)
            if value in known and not (codec == "hevc" and (name, value) == _UNKNOWN_TO_X265):
                setattr(context, name, value)

    def _mux(self, picture: VideoFrame | None) -> None:
        if picture is not None:
            self._frames += 1
        for packet in self._stream.encode(picture):
            if picture is None and self._frames <= _MAX_FRAMES_IN_ORDER:
                packet.dts = packet.pts
            if self._duration > 0:
                # Only the last packet's matters, which sets how long the last frame is shown.
                packet.duration = self._duration
            if self._copier is not None and packet.pts is not None:
                self._copier.copy_until(packet.pts * self._time_base)
            self._output.mux(packet)


def _pixel_format(codec: str, size: tuple[int, int]) -> str:
    if codec == "ffv1":
        return "bgr0"
    odd = size[0] % 2 or size[1] % 2
    # The AV1 encoder knows no other format, and rounds odd planes up by itself.
    return "yuv444p" if odd and codec != "av1" else "yuv420p"

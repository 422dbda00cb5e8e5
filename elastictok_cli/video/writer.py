"""Writing a video: the target is chosen by its name, and appears under that name only when it is complete."""

import io
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import av
import numpy as np

from elastictok_cli.files import Part, Unwritable, reason_of, take_over
from elastictok_cli.video.chapters import moved
from elastictok_cli.video.encoder import _ENCODERS, CODECS, CONTAINERS, ContainerSink
from elastictok_cli.video.errors import UnknownKind, UnwritableVideo
from elastictok_cli.video.pictures import PICTURE_SUFFIXES, FolderSink, PictureSink, StreamSink
from elastictok_cli.video.records import Chapter, Frame
from elastictok_cli.video.sidestreams import PacketCopier


class _Sink(Protocol):
    def write(self, frame: Frame) -> None: ...
    def finish(self) -> None: ...
    def abort(self) -> None: ...


def check_kind(path: Path) -> None:
    """Raise UnknownKind where the suffix of a file does not say how to write it."""
    known = [*CONTAINERS, ".y4m", *PICTURE_SUFFIXES]
    if path.suffix.lower() not in known:
        raise UnknownKind(
            f"{path}: its suffix names no kind of output; these do: {' '.join(known)} and folder/"
        )


def check_output(
    target: str,
    *,
    codec: str = "h264",
    lossless: bool = False,
    raw: bool = False,
    frames: int | None = None,
) -> None:
    """Raise UnknownKind, before any work, where the kind of `target` does not fit the rest.

    `frames` is the number of them, None where it is not known.
    """
    if codec not in CODECS:
        raise UnknownKind(f"unknown codec {codec}: it must be one of {', '.join(CODECS)}")
    if raw or (target != "-" and _names_folder(target)):
        return
    suffix = ".y4m" if target == "-" else Path(target).suffix.lower()
    if target != "-":
        check_kind(Path(target))
    if suffix == ".y4m":
        if lossless:
            raise UnknownKind("Y4M is not lossless; use .mkv, a folder of PNG files, or raw RGB")
    elif suffix in PICTURE_SUFFIXES:
        if lossless and suffix != ".png":
            raise UnknownKind(f"{suffix} is not lossless; use .png")
        if frames is not None and frames > 1:
            raise UnknownKind(
                f"a picture file holds one frame and there are {frames}; give a folder, ending in /, or a shorter "
                "--duration"
            )
    else:
        _check_codec(CONTAINERS[suffix], "ffv1" if lossless else codec)


def _check_codec(container: str, codec: str) -> None:
    if (container, codec) == ("mov", "av1"):  # FFmpeg finds out only when it writes the file's head
        raise UnknownKind("mov files cannot hold av1; use .mp4 or .mkv")
    with av.open(io.BytesIO(), "w", format=container) as scratch:
        for encoder, _ in _ENCODERS[codec]:
            try:
                scratch.add_stream(encoder, rate=25)
            except av.codec.codec.UnknownCodecError:
                continue
            except ValueError:
                raise UnknownKind(f"{container} files cannot hold {codec}; use .mkv") from None
            return
    raise UnknownKind(f"this build of FFmpeg has no {codec} encoder; use another --codec")


def _names_folder(target: str) -> bool:
    return target.endswith(("/", os.sep)) or Path(target).is_dir()


class VideoWriter:
    """Frames to a file. A context manager; leaving it by an exception leaves no file behind.

    `target` decides the kind: .mp4 .m4v .mov .mkv .webm; .y4m; .png or .jpg for a single frame; an
    existing folder, or a name ending in "/", for numbered PNG files; "-" for YUV4MPEG2 on standard output
    (bare rgb24 with `raw`). `width` and `height` are in pixels, pts in units of `time_base` seconds. `codec`
    is one of h264, hevc, av1, ffv1, `crf` its quality (0 best, by default one that looks like the source);
    `lossless` means FFV1 with RGB inside, or PNG. `color`, `metadata` and
    `pixel_aspect` are those of the source's VideoInfo.

    `aux` gives the bytes of the container `aux_container` that VideoReader.take_aux produced, in chunks; its
    packets are muxed as they are. `start` and `duration` (seconds on the carried clock) keep those that
    overlap the window and move them so that `start` is 0: `start` is the time of the first frame written,
    whose pts is then 0. `chapters` are on the carried clock too, and are cut to the window. What a target cannot hold
    is left out and named in `warnings`.

    Raises UnwritableVideo: the target exists and `overwrite` is false, or it cannot hold what is asked for.
    """

    warnings: list[str]

    def __init__(
        self,
        target: str | Path,
        *,
        width: int,
        height: int,
        time_base: Fraction,
        average_rate: Fraction | None,
        codec: str = "h264",
        lossless: bool = False,
        color: dict[str, int] | None = None,
        metadata: dict[str, str] | None = None,
        aux: Iterable[bytes] | None = None,
        aux_container: str | None = None,
        overwrite: bool = False,
        start: float | Fraction | None = None,
        duration: float | Fraction | None = None,
        raw: bool = False,
        pixel_aspect: Fraction = Fraction(1),
        crf: int | None = None,
        chapters: Iterable[Chapter] = (),
    ) -> None:
        self.warnings = []
        self._size = (width, height)
        self._time_base = time_base
        self._rate = average_rate
        self._codec = "ffv1" if lossless else codec
        self._lossless = lossless
        self._color = dict(color or {})
        self._metadata = dict(metadata or {})
        self._pixel_aspect = pixel_aspect
        self._raw = raw
        self._crf = crf
        self._chapters = moved(chapters, time_base, _exact(start), _exact(duration))
        self._copier: PacketCopier | None = None
        self._last_pts: int | None = None
        self._closed = False
        self._to_stdout = str(target) == "-"
        self._path = Path(target)
        self._as_folder = _names_folder(str(target))
        self._part: Part | None = None
        check_output(str(target), codec=codec, lossless=lossless, raw=raw)
        if not self._to_stdout:
            self._refuse_existing(overwrite)
        try:
            if not self._to_stdout:
                self._part = self._make_part()
            if aux is not None and aux_container is not None:
                self._copier = PacketCopier(
                    aux, aux_container, start=_exact(start), duration=_exact(duration), warnings=self.warnings
                )
            with self._plain_errors():
                self._sink = self._make_sink()
            if not isinstance(self._sink, ContainerSink):
                if self._copier is not None:
                    self.warnings.append(
                        "audio and subtitles are left out: this output has no place for them"
                    )
                if self._chapters:
                    self.warnings.append("chapters are left out: this output has no place for them")
        except BaseException:
            self.abort()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def write(self, frame: Frame) -> None:
        """Add a frame of the declared size, later than the one before.

        Raises ValueError for another shape or dtype, UnwritableVideo for a time that does not move on or a
        frame the target has no room for.
        """
        width, height = self._size
        if frame.rgb.shape != (height, width, 3) or frame.rgb.dtype != np.uint8:
            raise ValueError(
                f"expected ({height}, {width}, 3) uint8, got {frame.rgb.shape} {frame.rgb.dtype}"
            )
        if self._last_pts is not None and frame.pts <= self._last_pts:
            raise UnwritableVideo(f"frame times must increase: {frame.pts} follows {self._last_pts}")
        with self._plain_errors():
            self._sink.write(frame)
        self._last_pts = frame.pts

    def close(self) -> None:
        """Finish the file and put it under its name. Safe to call twice."""
        if self._closed:
            return
        try:
            if self._last_pts is None:
                raise UnwritableVideo(f"{self._path} was not written: there is no frame")
            with self._plain_errors():
                self._sink.finish()
                if self._copier is not None:
                    self._copier.close()
                self._publish()
        except BaseException:
            self.abort()
            raise
        self._closed = True

    def abort(self) -> None:
        """Give up: nothing stays behind, neither under the target's name nor under the temporary one."""
        if self._closed:
            return
        self._closed = True
        sink: _Sink | None = getattr(self, "_sink", None)
        if sink is not None:
            with suppress(av.FFmpegError, OSError, ValueError):
                sink.abort()
        if self._copier is not None:
            self._copier.close()
        if self._part is not None:
            self._part.discard()

    def _refuse_existing(self, overwrite: bool) -> None:
        if not self._path.parent.is_dir():
            raise UnwritableVideo(f"{self._path.parent} is not a folder")
        if self._as_folder:
            if self._path.exists() and not self._path.is_dir():
                raise UnwritableVideo(f"{self._path} is a file, not a folder")
            taken = self._path.is_dir() and any(self._path.iterdir())
        else:
            taken = self._path.exists()
        if taken and not overwrite:
            raise UnwritableVideo(f"{self._path} exists already; -y overwrites it")

    def _make_part(self) -> Part:
        """What is written until it is complete. Raises UnwritableVideo where the system refuses."""
        try:
            if self._as_folder:
                return Part(self._path, inside=self._path.is_dir())
            return Part(self._path, self._path.suffix)
        except Unwritable as error:
            raise UnwritableVideo(str(error)) from error

    def _make_sink(self) -> _Sink:
        if self._part is None:
            return self._stream_sink()
        if self._as_folder:
            return FolderSink(self._part.create_folder().path, self._size, self._pixel_aspect)
        self._part.create()
        suffix = self._path.suffix.lower()
        if suffix == ".y4m" or self._raw:
            return self._stream_sink()
        if suffix in PICTURE_SUFFIXES:
            return PictureSink(self._part.path, self._size, self._pixel_aspect)
        return ContainerSink(
            self._part.path,
            CONTAINERS[suffix],
            size=self._size,
            time_base=self._time_base,
            average_rate=self._rate,
            codec=self._codec,
            color=self._color,
            metadata=self._metadata,
            pixel_aspect=self._pixel_aspect,
            copier=self._copier,
            crf=self._crf,
            chapters=self._chapters,
        )

    def _stream_sink(self) -> StreamSink:
        self.warnings.append("this kind of output has no times: frames follow at a constant rate")
        return StreamSink(
            sys.stdout.buffer if self._part is None else self._part.path.open("wb"),
            self._size,
            rate=self._rate or Fraction(25),
            pixel_aspect=self._pixel_aspect,
            raw=self._raw,
            keep_open=self._part is None,
        )

    def _publish(self) -> None:
        """Move the finished work from its temporary name to its own."""
        if self._part is None:
            return
        if self._as_folder and self._path.is_dir():
            old = {picture.name: picture.stat() for picture in self._path.glob("frame-*.png")}
            for name in old:
                (self._path / name).unlink()
            for picture in sorted(self._part.path.iterdir()):
                if picture.name in old:
                    take_over(old[picture.name], picture)
                picture.replace(self._path / picture.name)
            self._part.discard()
        else:
            self._part.publish()

    @contextmanager
    def _plain_errors(self) -> Iterator[None]:
        """Turn what the system or FFmpeg says of the target into one sentence that names it as the user did."""
        try:
            yield
        except BrokenPipeError:
            raise  # whoever read standard output has gone: no fault of the target
        except Unwritable as error:
            raise UnwritableVideo(str(Unwritable(self._name, error))) from error
        except (av.FFmpegError, OSError) as error:
            raise UnwritableVideo(f"{self._name} cannot be written: {reason_of(error)}") from error

    @property
    def _name(self) -> str:
        return "standard output" if self._to_stdout else str(self._path)


def _exact(seconds: float | Fraction | None) -> Fraction | None:
    """A time as the decimal it was written as: 0.1 is a tenth."""
    return (
        Fraction(str(seconds))
        if isinstance(seconds, float)
        else None
        if seconds is None
        else Fraction(seconds)
    )

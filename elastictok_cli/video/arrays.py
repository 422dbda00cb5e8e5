"""Pictures in memory as a source of frames: what `VideoReader` is for a file."""

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import chain, pairwise
from typing import Self

import numpy as np
from numpy.typing import NDArray

from elastictok_cli.video.records import Frame, VideoInfo

_TICKS_PER_SECOND = 1_000_000  # of times that are given frame by frame
_MAX_DENOMINATOR = 1001  # of a frame rate: 29.97002997 is 30000/1001
_MAX_SIDE = 65535  # pixels, by the file format


class ArrayReader:
    """Pictures with times, to be iterated once.

    `pictures`: (H, W, 3) uint8 each, all of one size; an array (T, H, W, 3) or any iterable, which is read as the
    frames are asked for. `fps`: frames a second, above 0. `times`: seconds of each frame instead, rising by a
    microsecond or more. Exactly one of the two, but a single picture in an array needs neither.

    Raises ValueError and TypeError: here for what the first picture shows, later for the others.
    """

    info: VideoInfo
    warnings: Sequence[str] = ()
    aux_rate = 0.0  # bytes a second of sound and subtitles: there are none

    def __init__(
        self,
        pictures: Iterable[NDArray[np.uint8]],
        *,
        fps: float | Fraction | None = None,
        times: Iterable[float] | None = None,
    ) -> None:
        count = len(pictures) if isinstance(pictures, Sequence | np.ndarray) else None
        if fps is not None and times is not None:
            raise ValueError("give fps or times, not both")
        if fps is None and times is None and (count or 0) > 1:
            raise ValueError(f"{count} frames need fps or times")
        if fps is None and times is None and count is None:
            raise ValueError("an iterable of frames needs fps or times")
        rate = None if fps is None else _rate(fps)
        self._tick = 1 / rate if rate else Fraction(1, _TICKS_PER_SECOND)
        self._times = None if times is None else list(times)
        if self._times is not None and count is not None and len(self._times) != count:
            raise ValueError(f"{count} frames, but {len(self._times)} times")
        self._ticks = _ticks(self._times) if self._times is not None else None
        source = iter(pictures)
        first = next(source, None)
        if first is None:
            raise ValueError("there are no frames to encode")
        self._shape = _checked(first, None)
        self._pictures = chain([first], source)
        height, width = self._shape[:2]
        self.info = VideoInfo(
            width=width,
            height=height,
            time_base=self._tick,
            average_rate=rate,
            frame_count=count if self._ticks is None else len(self._ticks),
            duration=float(count * self._tick) if count is not None and rate is not None else None,
            rotation=0,
            pixel_format="rgb24",
            color={},
            size_bytes=None,
            codec="rawvideo",
            metadata={},
            aux_streams=(),
            aux_container=None,
            start_pts=self._ticks[0] if self._ticks else 0,
            is_still=count == 1,
        )

    def __iter__(self) -> Iterator[Frame]:
        if self._ticks is None:
            duration = 1 if self.info.average_rate is not None else 0  # unknown
            for number, picture in enumerate(self._pictures):
                yield Frame(self._same(picture), number, duration)
            return
        count = 0
        steps = [after - before for before, after in pairwise(self._ticks)]
        lasting = [*steps, steps[-1] if steps else 0]
        for pts, duration, picture in zip(self._ticks, lasting, self._pictures, strict=False):
            yield Frame(self._same(picture), pts, duration)
            count += 1
        if count < len(self._ticks):
            raise ValueError(f"{count} frames, but {len(self._ticks)} times")
        if next(self._pictures, None) is not None:
            raise ValueError(f"there are more frames than times: {count}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing is held open."""

    def take_aux(self) -> bytes:
        """No sound and no subtitles: b""."""
        return b""

    def _same(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        _checked(picture, self._shape)
        return np.ascontiguousarray(picture)


def _checked(picture: object, shape: tuple[int, ...] | None) -> tuple[int, ...]:
    """The shape of a picture; `shape` is that of the first one."""
    if not isinstance(picture, np.ndarray):
        raise TypeError(f"a frame must be a numpy array, not {type(picture).__name__}")
    if picture.dtype != np.uint8:
        raise TypeError(f"frames must be uint8, 0 to 255, not {picture.dtype}")
    if picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(f"a frame must be (height, width, 3), not {picture.shape}")
    if not all(1 <= side <= _MAX_SIDE for side in picture.shape[:2]):
        raise ValueError(f"a frame must have 1 to {_MAX_SIDE} pixels a side, not {picture.shape}")
    if shape is not None and picture.shape != shape:
        raise ValueError(f"all frames must have one size: {shape} and then {picture.shape}")
    return tuple(picture.shape)


def _rate(fps: float | Fraction) -> Fraction:
    if not 0 < fps < float("inf"):
        raise ValueError(f"fps must be a number above 0, not {fps}")
    rate = Fraction(fps).limit_denominator(_MAX_DENOMINATOR)
    if not 0 < rate <= _TICKS_PER_SECOND:
        raise ValueError(f"fps must be from 1/{_MAX_DENOMINATOR} to {_TICKS_PER_SECOND}, not {fps}")
    return rate


def _ticks(times: Sequence[float]) -> list[int]:
    if not np.isfinite(np.asarray(times, np.float64)).all():
        raise ValueError("times must be finite numbers of seconds")
    ticks = [round(Fraction(time) * _TICKS_PER_SECOND) for time in times]
    for number, (before, after) in enumerate(pairwise(ticks)):
        if after <= before:
            raise ValueError(
                f"times must rise: frame {number} is at {times[number]} s, the next at {times[number + 1]} s"
            )
    return ticks

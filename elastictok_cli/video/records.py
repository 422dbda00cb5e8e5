"""The facts that travel beside the pixels."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class AuxStream:
    """One audio or subtitle stream that is copied, not decoded.

    `codec` is FFmpeg's name (aac, opus, subrip); `language` is the three-letter tag of the source, if any.
    """

    kind: Literal["audio", "subtitle"]
    codec: str
    language: str | None


@dataclass(frozen=True)
class Chapter:
    """A named part of a video: `start` and `end` in units of its time base, `title` "" if it has none."""

    start: int
    end: int
    title: str


@dataclass(frozen=True)
class VideoInfo:
    """What is known of a source once its first frame has been decoded.

    `width` and `height` (pixels) are those of the frames delivered: after rotation and scaling. Every pts
    is an integer in units of `time_base` seconds. `frame_count` and `duration` (seconds) are what the file
    declares, cut to the window asked for, and only as right as the file; `frame_count` is None with a
    window. `rotation` is the number of degrees (0, 90, 180, 270) the stored pictures were turned clockwise
    to stand upright. `color` holds FFmpeg's numbers (ITU-T H.273) for color_primaries, color_trc,
    colorspace and color_range. `pixel_aspect` is the width of a delivered pixel over its height.
    `size_bytes` is None for a pipe. `start_pts` is the time of the first frame on the source's own clock, and
    `clock_offset` what was subtracted from that clock: times begin at or near zero.
    """

    width: int
    height: int
    time_base: Fraction
    average_rate: Fraction | None
    frame_count: int | None
    duration: float | None
    rotation: int
    pixel_format: str
    color: dict[str, int]
    size_bytes: int | None
    codec: str
    metadata: dict[str, str]
    aux_streams: tuple[AuxStream, ...]
    aux_container: str | None
    start_pts: int
    is_still: bool
    pixel_aspect: Fraction = Fraction(1)
    clock_offset: int = 0
    chapters: tuple[Chapter, ...] = ()


@dataclass(frozen=True)
class Frame:
    """One picture: `rgb` is (H, W, 3) uint8; `pts` and `duration` are in units of the time base.

    `duration` is what the file declares, 0 when it does not. With reordered frames and a variable rate files
    declare it in storage order: only that of the last frame is worth keeping, the rest follow from the pts.
    """

    rgb: NDArray[np.uint8]
    pts: int
    duration: int

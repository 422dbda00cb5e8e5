"""YUV to RGB on the way in, RGB to YUV on the way out, by one rule for both.

Reading. How a decoded frame becomes RGB:

1. RGB and palette formats are taken as they are.
2. Matrix: the one the frame is tagged with, else the one its container is tagged with. A picture without
   either is BT.709 if it is at least 1280 pixels wide or more than 576 lines high, else BT.601. Players use
   the same rule: mpv (`mp_csp_guess_colorspace`) and libplacebo (`pl_color_system_guess_ycbcr`). The size is
   the stored one, before rotation and scaling.
3. BT.2020 with constant luminance is read as BT.2020, a chromaticity-derived matrix as the one that belongs to
   the primaries. A matrix that is not linear or not known (YCgCo, ICtCp) is treated as missing, with a warning.
4. Range: the one the frame is tagged with, else its container's. FFmpeg's yuvj formats (JPEG) are always full.
   Without a tag YUV is limited, and gray is full, as swscale has it.
5. Transfer characteristics and primaries change nothing: RGB keeps those of the source.

Writing. RGB becomes limited-range YUV by the source's matrix, and the file is tagged with exactly what was
used: rules 2 and 3 again, with the size of the picture written. Where the output has no place for the tag
(YUV4MPEG2), only the rule for missing tags counts, because whoever reads the file will use it. JPEG is
BT.601 in full range, as JFIF demands. Primaries and transfer characteristics are copied from the source.

Matrices are ITU-T H.273 numbers, which are FFmpeg's too.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import av
import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

RGB_MATRIX = 0
BT709 = 1
BT601_625 = 5  # BT.470 BG; the same coefficients as BT.601 with 525 lines
BT601 = 6
LIMITED_RANGE, FULL_RANGE = 1, 2

# FFmpeg's numbers that name no YUV matrix: RGB, unspecified, reserved.
_UNSPECIFIED = 2
_UNTAGGED_MATRICES = (RGB_MATRIX, _UNSPECIFIED, 3)

# The names of VideoInfo.color, which are FFmpeg's.
TAGS = ("color_primaries", "color_trc", "colorspace", "color_range")

_VALUES_THAT_SAY_NOTHING = {
    "color_primaries": (0, _UNSPECIFIED, 3),
    "color_trc": (0, _UNSPECIFIED, 3),
    "colorspace": (_UNSPECIFIED, 3),
    "color_range": (0,),
}
_NO_TAGS: Mapping[str, int] = {}

# The matrices that swscale can compute with: BT.709, FCC, BT.601 (two numbers), SMPTE 240M, BT.2020 NCL.
_SWSCALE_MATRICES = (BT709, 4, BT601_625, BT601, 7, 9)

_BT2020_NCL, _BT2020_CL = 9, 10
_DERIVED_FROM_PRIMARIES = (12, 13)
_MATRIX_OF_PRIMARIES = {1: BT709, 4: 4, 5: BT601_625, 6: BT601, 7: 7, 9: _BT2020_NCL}

_MATRIX_NAMES = {8: "YCgCo", 11: "SMPTE 2085", 14: "ICtCp", 15: "IPT-PQ-C2", 16: "YCgCo-Re", 17: "YCgCo-Ro"}

_HD_WIDTH = 1280  # from here on untagged pictures are HD ...
_SD_MAX_HEIGHT = 576  # ... or with more lines than this


class Encoding(NamedTuple):
    """How the numbers of a YUV or gray picture are to be understood."""

    matrix: int
    full_range: bool


def untagged_matrix(width: int, height: int) -> int:
    """The matrix of a YUV picture of this size (pixels) that says nothing of its own."""
    return BT709 if width >= _HD_WIDTH or height > _SD_MAX_HEIGHT else BT601


def matrix_for(color: Mapping[str, int], width: int, height: int) -> int:
    """The matrix of a YUV picture with these tags (keys as in VideoInfo.color) and this size (pixels)."""
    declared = color.get("colorspace", _UNSPECIFIED)
    if declared in _SWSCALE_MATRICES:
        return declared
    if declared == _BT2020_CL:
        return _BT2020_NCL
    if declared in _DERIVED_FROM_PRIMARIES:
        of_primaries = _MATRIX_OF_PRIMARIES.get(color.get("color_primaries", _UNSPECIFIED))
        return untagged_matrix(width, height) if of_primaries is None else of_primaries
    return untagged_matrix(width, height)


def tags_of(stream_or_frame: Any) -> dict[str, int]:
    """The colour tags of a frame, or of a stream: its container's, as long as nothing has been decoded."""
    tagged = getattr(stream_or_frame, "codec_context", stream_or_frame)
    return {name: int(getattr(tagged, name)) for name in TAGS}


def merged(tags: Mapping[str, int], container: Mapping[str, int]) -> dict[str, int]:
    """`tags`, and the container's values where a tag is unspecified."""
    return {
        name: container.get(name, value) if value in _VALUES_THAT_SAY_NOTHING[name] else value
        for name, value in tags.items()
    }


def encoding_of(frame: VideoFrame, container: Mapping[str, int] = _NO_TAGS) -> Encoding | None:
    """How a decoded frame is to be understood; None for RGB and palette formats.

    `container` holds the container's tags, for what the frame does not say.
    """
    pixels = frame.format
    if pixels.is_rgb or pixels.has_palette or pixels.name.startswith("xyz"):
        return None
    tags = merged(tags_of(frame), container)
    matrix = matrix_for(tags, frame.width, frame.height)
    if pixels.name.startswith("yuvj"):
        return Encoding(matrix, full_range=True)
    if tags["color_range"] in (LIMITED_RANGE, FULL_RANGE):
        return Encoding(matrix, full_range=tags["color_range"] == FULL_RANGE)
    return Encoding(matrix, full_range=_is_gray(pixels))


def matrix_warning(frame: VideoFrame, container: Mapping[str, int] = _NO_TAGS) -> str | None:
    """What to tell the user where the colours of a frame can only be approximated, None where they are right."""
    tags = merged(tags_of(frame), container)
    declared = tags["colorspace"]
    encoding = encoding_of(frame, container)
    if encoding is None or _is_gray(frame.format):
        return None
    if declared in _SWSCALE_MATRICES or declared in _UNTAGGED_MATRICES:
        return None
    if declared == _BT2020_CL:
        return "the source's colours are BT.2020 with constant luminance: read as ordinary BT.2020"
    if declared in _DERIVED_FROM_PRIMARIES and tags["color_primaries"] in _MATRIX_OF_PRIMARIES:
        return None
    name = _MATRIX_NAMES.get(declared, f"number {declared}")
    used = "BT.709" if encoding.matrix == BT709 else "BT.601"
    return f"the source's colour matrix ({name}) is not supported: read as {used}, colours are wrong"


def to_rgb(
    frame: VideoFrame, width: int, height: int, container: Mapping[str, int] = _NO_TAGS
) -> NDArray[np.uint8]:
    """The RGB picture of a decoded frame, (height, width, 3) uint8 in 0..255; alpha is dropped.

    Other sizes than the frame's are scaled bicubically. `container` holds the container's tags, for what
    the frame does not say.
    """
    encoding = encoding_of(frame, container)
    settings: dict[str, Any] = {"format": "rgb24"}
    if (frame.width, frame.height) != (width, height):
        settings |= {"width": width, "height": height, "interpolation": "BICUBIC"}
    with _understood(frame, encoding):
        converted: Any = frame.reformat(**settings).to_ndarray()
    rgb: NDArray[np.uint8] = np.ascontiguousarray(converted, dtype=np.uint8)
    if encoding is not None and _is_gray(frame.format) and not encoding.full_range:
        rgb = _FULL_FROM_LIMITED[rgb]  # swscale takes every gray for full range, whatever its tag
    return rgb


def opacity(frame: VideoFrame) -> NDArray[np.uint8] | None:
    """The alpha channel of a decoded frame, (H, W) uint8 with 255 for opaque; None where there is none."""
    pixels = frame.format
    if not pixels.has_palette and not any(part.is_alpha for part in pixels.components):
        return None
    with _understood(frame, encoding_of(frame)):
        rgba: Any = frame.reformat(format="rgba").to_ndarray()
    return np.asarray(rgba[..., 3], dtype=np.uint8)


def from_rgb(
    rgb: NDArray[np.uint8],
    pixel_format: str,
    matrix: int,
    *,
    full_range: bool = False,
    interpolation: str = "BICUBIC",
) -> VideoFrame:
    """A frame in a YUV format from a picture (H, W, 3), tagged with the matrix and range it was made with."""
    picture = VideoFrame.from_ndarray(rgb, format="rgb24")
    picture.colorspace = matrix  # PyAV copies it to the result where it has no name for the number
    converted = picture.reformat(
        format=pixel_format,
        dst_colorspace=matrix,
        dst_color_range=FULL_RANGE if full_range else LIMITED_RANGE,
        interpolation=interpolation,
    )
    converted.colorspace = matrix
    return converted


def _is_gray(pixels: av.VideoFormat) -> bool:
    """Whether a format that is neither RGB nor palette has no colour: gray, or gray and alpha."""
    return len(pixels.components) <= 2


@contextmanager
def _understood(frame: VideoFrame, encoding: Encoding | None) -> Iterator[None]:
    """Tag a frame for swscale for a while.

    Tags on the frame and not arguments: those have no name for BT.2020 in PyAV 17.0, and swscale refuses a
    frame whose own tags it does not know, be it only for transfer or primaries.
    """
    tags = frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc
    if encoding is not None:
        frame.colorspace = encoding.matrix
        frame.color_range = FULL_RANGE if encoding.full_range else LIMITED_RANGE
    frame.color_primaries = frame.color_trc = _UNSPECIFIED
    try:
        yield
    finally:
        frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc = tags


_FULL_FROM_LIMITED: NDArray[np.uint8] = (
    ((np.arange(256) - 16) * (255 / 219)).round().clip(0, 255).astype(np.uint8)
)

"""Writing frames without a container: numbered PNG files, one picture, and raw streams for other programs."""

from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from elastictok_cli.video.aspect import limited
from elastictok_cli.video.colour import BT601, from_rgb, untagged_matrix
from elastictok_cli.video.errors import UnwritableVideo
from elastictok_cli.video.records import Frame

# JFIF holds densities in 16 bits.
_MAX_DENSITY = 0xFFFF

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")


class PictureEncoder:
    """Turns RGB pictures of one size into the bytes of PNG or (quality about 95) JPEG files.

    JPEG is BT.601 in full range, as JFIF demands. `pixel_aspect` becomes the ratio of the two densities.
    """

    def __init__(self, size: tuple[int, int], *, jpeg: bool, pixel_aspect: Fraction = Fraction(1)) -> None:
        context: Any = av.CodecContext.create("mjpeg" if jpeg else "png", "w")
        context.width, context.height = size
        context.pix_fmt = "yuvj444p" if jpeg else "rgb24"
        context.time_base = Fraction(1, 25)
        if pixel_aspect != 1:
            context.sample_aspect_ratio = limited(pixel_aspect, _MAX_DENSITY)
        if jpeg:
            # FFmpeg counts quality in units of 118; 2 is the best its JPEG encoder has.
            context.options = {"global_quality": str(2 * 118), "flags": "+qscale"}
        self._context = context
        self._jpeg = jpeg
        self._count = 0

    def encode(self, rgb: NDArray[np.uint8]) -> bytes:
        """The file of one picture (H, W, 3)."""
        if self._jpeg:
            picture = from_rgb(rgb, "yuvj444p", BT601, full_range=True, interpolation="BILINEAR")
        else:
            picture = VideoFrame.from_ndarray(rgb, format="rgb24")
        picture.pts = self._count
        self._count += 1
        return b"".join(bytes(packet) for packet in self._context.encode(picture))


class PictureSink:
    """One picture in one file."""

    def __init__(self, path: Path, size: tuple[int, int], pixel_aspect: Fraction) -> None:
        self._path = path
        self._encoder = PictureEncoder(size, jpeg=path.suffix.lower() != ".png", pixel_aspect=pixel_aspect)
        self._written = False

    def write(self, frame: Frame) -> None:
        """Write the only frame; a second one is an error."""
        if self._written:
            raise UnwritableVideo(
                "a picture file holds one frame and there are more; give a folder, ending in /, or a shorter --duration"
            )
        self._path.write_bytes(self._encoder.encode(frame.rgb))
        self._written = True

    def finish(self) -> None:
        """Nothing is held back."""

    def abort(self) -> None:
        """Nothing is held open."""


class FolderSink:
    """frame-000000.png, frame-000001.png, ... in a folder that exists."""

    def __init__(self, folder: Path, size: tuple[int, int], pixel_aspect: Fraction) -> None:
        self._folder = folder
        self._encoder = PictureEncoder(size, jpeg=False, pixel_aspect=pixel_aspect)
        self._count = 0

    def write(self, frame: Frame) -> None:
        """Write the next picture."""
        (self._folder / f"frame-{self._count:06d}.png").write_bytes(self._encoder.encode(frame.rgb))
        self._count += 1

    def finish(self) -> None:
        """Nothing is held back."""

    def abort(self) -> None:
        """Nothing is held open."""


class StreamSink:
    """YUV4MPEG2 (4:4:4, limited range) or bare rgb24, for a pipe or a file.

    YUV4MPEG2 has no tag for the matrix, so the size decides between BT.601 and BT.709, as it does for
    whoever reads it. Neither has times: frames follow each other at `rate`.
    """

    def __init__(
        self,
        file: BinaryIO,
        size: tuple[int, int],
        *,
        rate: Fraction,
        pixel_aspect: Fraction,
        raw: bool,
        keep_open: bool,
    ) -> None:
        self._file = file
        self._raw = raw
        self._matrix = untagged_matrix(*size)
        self._keep_open = keep_open
        if not raw:
            width, height = size
            aspect = limited(pixel_aspect, _MAX_DENSITY)
            header = (
                f"YUV4MPEG2 W{width} H{height} F{rate.numerator}:{rate.denominator} Ip"
                f" A{aspect.numerator}:{aspect.denominator} C444"
            )
            self._file.write(f"{header} XCOLORRANGE=LIMITED\n".encode())

    def write(self, frame: Frame) -> None:
        """Write the next picture."""
        if self._raw:
            self._file.write(np.ascontiguousarray(frame.rgb).tobytes())
            return
        picture = from_rgb(frame.rgb, "yuv444p", self._matrix, interpolation="BILINEAR")
        self._file.write(b"FRAME\n")
        self._file.write(picture.to_ndarray().tobytes())

    def finish(self) -> None:
        """Flush, and close what is not standard output."""
        self._file.flush()
        self.abort()

    def abort(self) -> None:
        """Close what is not standard output."""
        if not self._keep_open:
            self._file.close()

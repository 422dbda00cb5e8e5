"""Turning stored pictures upright: display matrices of videos, EXIF orientation of photographs."""

import math
import struct
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Orientation:
    """Mirror left to right if `mirrored`, then turn `quarters` times 90 degrees clockwise."""

    quarters: int = 0
    mirrored: bool = False

    def apply(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the upright picture of `rgb` (H, W, 3), contiguous; sides swap on odd quarters."""
        if self.mirrored:
            rgb = rgb[:, ::-1]
        return np.ascontiguousarray(np.rot90(rgb, -self.quarters))


# The eight values of EXIF tag 0x0112, in order.
_EXIF = {
    1: Orientation(0),
    2: Orientation(0, mirrored=True),
    3: Orientation(2),
    4: Orientation(2, mirrored=True),
    5: Orientation(3, mirrored=True),
    6: Orientation(1),
    7: Orientation(1, mirrored=True),
    8: Orientation(3),
}

# Where the TIFF block of EXIF starts: JPEG APP1, PNG chunk, WebP chunk (with and without JPEG's prefix).
_EXIF_MARKS = ((b"Exif\x00\x00", 6), (b"eXIf", 4), (b"EXIF", 8))
_EXIF_SEARCH_BYTES = 1 << 20


def of_frame(frame: av.VideoFrame) -> Orientation:
    """The orientation that the display matrix of a decoded frame asks for, to the nearest 90 degrees."""
    matrix = _display_matrix(frame)
    if matrix is None:
        # PyAV before 14.1 has no `rotation`; the angle is counterclockwise.
        return Orientation(round(-getattr(frame, "rotation", 0) / 90) % 4)
    a, b, c, d = (matrix[i] / 65536 for i in (0, 1, 3, 4))
    mirrored = a * d - b * c < 0
    angle = math.atan2(-b, -a) if mirrored else math.atan2(b, a)
    return Orientation(round(angle / (math.pi / 2)) % 4, mirrored)


def of_bytes(head: bytes) -> Orientation | None:
    """The EXIF orientation of a picture file by its first bytes, None when it has none that makes sense.

    PyAV gives only the angle of it, which turns a mirrored picture upside down.
    """
    for mark, skip in _EXIF_MARKS:
        at = head.find(mark)
        if at >= 0:
            tiff = head[at + skip :].removeprefix(b"Exif\x00\x00")
            return _EXIF.get(_orientation_tag(tiff))
    return None


def _display_matrix(frame: Any) -> tuple[int, ...] | None:
    try:
        data = frame.side_data.get("DISPLAYMATRIX")
    except (KeyError, ValueError):
        return None  # PyAV cannot list side data when one item is of a kind it does not know
    return None if data is None else struct.unpack("=9i", bytes(data)[:36])


def _orientation_tag(tiff: bytes) -> int:
    """Tag 0x0112 of the first directory of a TIFF block, 0 when it is not there."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return 0
    try:
        (directory,) = struct.unpack_from(order + "I", tiff, 4)
        (entries,) = struct.unpack_from(order + "H", tiff, directory)
        for i in range(entries):
            tag, _kind, _count, value = struct.unpack_from(order + "HHIH", tiff, directory + 2 + 12 * i)
            if tag == 0x0112:
                return int(value)
    except struct.error:
        return 0
    return 0

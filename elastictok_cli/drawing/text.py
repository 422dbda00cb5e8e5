"""Lines of text onto pixels, with Pillow and the fonts that come with matplotlib."""

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from elastictok_cli.drawing import style

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

Pixels = npt.NDArray[np.uint8]

_ELLIPSIS = "…"


@lru_cache(maxsize=16)
def font(size: int, *, bold: bool = False) -> "FreeTypeFont":
    """DejaVu Sans at this many pixels."""
    import matplotlib as mpl
    from PIL import ImageFont

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(mpl.get_data_path()) / "fonts" / "ttf" / name), size)


def width_of(text: str, size: int, *, bold: bool = False) -> float:
    """In pixels."""
    return float(font(size, bold=bold).getlength(text))


def fitted(text: str, size: int, room: float, *, bold: bool = False) -> str:
    """The text, cut short with an ellipsis if it is wider than `room` pixels."""
    if width_of(text, size, bold=bold) <= room:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        fits = width_of(text[:middle] + _ELLIPSIS, size, bold=bold) <= room
        low, high = (middle, high) if fits else (low, middle - 1)
    return text[:low].rstrip() + _ELLIPSIS


def write(
    target: Pixels,
    text: str,
    left: float,
    top: float,
    size: int,
    *,
    color: str = style.INK,
    bold: bool = False,
    centred: bool = False,
) -> None:
    """Draw one line onto `target` (H, W, 3), the top of its tallest letters at `top`, in place.

    centred: `left` is the middle of the line. What does not fit in `target` is cut off.
    """
    from PIL import Image, ImageDraw

    if not text:
        return
    face = font(size, bold=bold)
    wide = face.getlength(text)
    left = round(left - wide / 2 if centred else left)
    top = round(top)
    box = (slice(max(0, top), top + round(size * 1.4)), slice(max(0, left), left + int(wide) + 4))
    part = target[box]
    if not part.size:
        return
    canvas = Image.fromarray(part)
    ImageDraw.Draw(canvas).text((min(0, left), min(0, top)), text, fill=style.rgb(color), font=face)
    target[box] = np.asarray(canvas)

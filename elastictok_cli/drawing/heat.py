"""Keep maps as colours: which cells of a picture got how many tokens."""

import math

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]

# Nine points of matplotlib's "inferno" (CC0), dark to bright, as a user of it would know it.
_STOPS = np.array(
    [
        (0, 0, 4),
        (31, 12, 72),
        (85, 15, 109),
        (136, 34, 106),
        (186, 54, 85),
        (227, 89, 51),
        (249, 140, 10),
        (249, 201, 50),
        (252, 255, 164),
    ],
    np.float64,
)
_OPACITY = 0.62  # of a cell with tokens


def shares(keep: npt.ArrayLike, tokens_per_cell: int) -> npt.NDArray[np.float64]:
    """0 to 1 for 0 to `tokens_per_cell` tokens, by the logarithm of one more: 0, 1 and 4 tokens look different."""
    return np.asarray(np.log1p(np.asarray(keep, np.float64)) / math.log1p(tokens_per_cell))


def colors(share: npt.ArrayLike) -> Pixels:
    """RGB, (..., 3), of numbers from 0 (black) to 1 (pale yellow)."""
    share = np.clip(np.asarray(share, np.float64), 0, 1)
    places = np.linspace(0, 1, len(_STOPS))
    channels = [np.interp(share, places, _STOPS[:, channel]) for channel in range(3)]
    return np.stack(channels, -1).round().astype(np.uint8)


def overlay(picture: Pixels, keep: npt.ArrayLike, tokens_per_cell: int, cell: tuple[int, int]) -> Pixels:
    """The picture (H, W, 3) in grey under the colours of its keep map (rows, columns), cell by cell.

    cell: height and width in pixels. Cells without tokens show the grey picture as it is, so what was predicted
    for nothing can be told from what was paid for.
    """
    height, width = picture.shape[:2]
    keep = np.asarray(keep)
    tint = colors(shares(keep, tokens_per_cell)).astype(np.uint16)
    spread = tint.repeat(cell[0], 0).repeat(cell[1], 1)[:height, :width]
    paid = (keep > 0).repeat(cell[0], 0).repeat(cell[1], 1)[:height, :width, None]
    # BT.601 luma in whole 256ths; the same for all three channels.
    grey = ((picture @ np.array([77, 150, 29], np.uint32)) >> 8)[..., None].astype(np.uint16)
    part = round(_OPACITY * 256)
    mixed = (spread * part + grey * (256 - part)) >> 8
    return np.where(paid, mixed, grey).astype(np.uint8)


def scale_bar(width: int, height: int) -> Pixels:
    """All colours from left to right, (height, width, 3)."""
    return np.broadcast_to(colors(np.linspace(0, 1, width)), (height, width, 3)).copy()


def ticks(tokens_per_cell: int) -> list[int]:
    """Numbers of tokens to write under the bar: 1, 4, 16, ... and the most possible."""
    found = [1]
    while found[-1] * 4 < tokens_per_cell * 0.75:
        found.append(found[-1] * 4)
    return [0, *found, tokens_per_cell] if tokens_per_cell > 1 else [0, 1]

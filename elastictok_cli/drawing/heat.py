"""Keep maps as colours: which cells of a picture got how many tokens."""

import math

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]

# Six points of matplotlib's "inferno" (CC0) without its dark beginning, which would be lost on a dark picture.
_COLOR_STOPS = np.array(
    [(120, 28, 109), (165, 44, 96), (207, 68, 70), (237, 105, 37), (251, 155, 6), (252, 255, 164)], np.float64
)
_COLOR_WITHOUT_TOKENS = (110, 110, 110)  # in strips and legends, where there is no picture to show
# Opacity of the tint inside a cell with one token, and with all of them: the picture must stay legible.
_MIN_OPACITY, _MAX_OPACITY = 0.25, 0.5
_OUTLINE_OPACITY = 0.8  # along the edge of a cell, which has the colour of the legend
_MIN_OUTLINED_SIDE = 6  # pixels: the least side of a cell in which an outline leaves room for the picture


def shares(keep: npt.ArrayLike, tokens_per_cell: int) -> npt.NDArray[np.float64]:
    """0 to 1 for 1 to `tokens_per_cell` tokens or more, by the logarithm: 1, 4 and 16 tokens look different.

    NaN for none.
    """
    keep = np.clip(np.asarray(keep, np.float64), 0, tokens_per_cell)
    return np.where(keep > 0, np.log(np.maximum(keep, 1)) / max(math.log(tokens_per_cell), 1e-9), np.nan)


def colors(share: npt.ArrayLike) -> Pixels:
    """RGB, (..., 3), of numbers from 0 (purple) to 1 (pale yellow); grey for NaN."""
    share = np.asarray(share, np.float64)
    places = np.linspace(0, 1, len(_COLOR_STOPS))
    filled = np.clip(np.nan_to_num(share), 0, 1)
    tint = np.stack([np.interp(filled, places, _COLOR_STOPS[:, channel]) for channel in range(3)], -1)
    return np.where(np.isnan(share)[..., None], _COLOR_WITHOUT_TOKENS, tint.round()).astype(np.uint8)


def overlay(picture: Pixels, keep: npt.ArrayLike, tokens_per_cell: int, cell: tuple[int, int]) -> Pixels:
    """The picture (H, W, 3) in grey under a tint and outlines in the colours of its keep map (rows, columns).

    cell: height and width in pixels. Cells without tokens show the grey picture as it is, so what was predicted
    for nothing can be told from what was paid for.
    """
    share = shares(keep, tokens_per_cell)
    paid = ~np.isnan(share)
    inside = np.where(paid, _MIN_OPACITY + (_MAX_OPACITY - _MIN_OPACITY) * np.nan_to_num(share), 0.0)
    tint = _spread(colors(share).astype(np.float32), picture, cell)
    part = _spread(inside.astype(np.float32)[..., None], picture, cell)
    if min(cell) >= _MIN_OUTLINED_SIDE:
        edge = _spread(np.where(paid, _OUTLINE_OPACITY, 0.0).astype(np.float32)[..., None], picture, cell)
        part = np.where(_outline(picture.shape[:2], cell)[..., None], edge, part)
    grey = (picture @ np.array([0.299, 0.587, 0.114], np.float32))[..., None]  # BT.601 luma
    return np.asarray((grey + part * (tint - grey)).round(), np.uint8)


def _spread(
    cells: npt.NDArray[np.float32], picture: Pixels, cell: tuple[int, int]
) -> npt.NDArray[np.float32]:
    """A value for each pixel of the picture from those of its cells."""
    height, width = picture.shape[:2]
    return cells.repeat(cell[0], 0).repeat(cell[1], 1)[:height, :width]


def _outline(size: tuple[int, int], cell: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Which pixels, (height, width), are the first or last of their cell in either direction."""
    down, across = (np.arange(length) % side for length, side in zip(size, cell, strict=True))
    rows = (down == 0) | (down == cell[0] - 1)
    columns = (across == 0) | (across == cell[1] - 1)
    return np.asarray(rows[:, None] | columns)


def scale_bar(width: int, height: int) -> Pixels:
    """The colours of 1 to all tokens from left to right, (height, width, 3)."""
    return np.broadcast_to(colors(np.linspace(0, 1, width)), (height, width, 3)).copy()


def ticks(tokens_per_cell: int) -> list[int]:
    """Numbers of tokens to write under the bar: 1, 4, 16, ... and the most possible."""
    found = [1]
    while found[-1] * 4 < tokens_per_cell * 0.75:
        found.append(found[-1] * 4)
    return [*found, tokens_per_cell] if tokens_per_cell > 1 else [1]

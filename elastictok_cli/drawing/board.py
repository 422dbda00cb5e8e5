"""A whole comparison, frame by frame: pictures, captions, keep maps, differences, chart."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from elastictok_cli.drawing import heat, style, text
from elastictok_cli.drawing.layout import Layout, Rect
from elastictok_cli.drawing.panel import ChartPanel

Pixels = npt.NDArray[np.uint8]

_GREY_OF_LOST_FRAME = 232  # grey where a frame is missing


@dataclass(frozen=True)
class Heading:
    """What stands above a picture for the whole video. `color`: of its curve; None for the original."""

    title: str
    facts: str
    color: str | None = None


@dataclass(frozen=True)
class Moment:
    """One frame to draw.

    time, end: when it is shown, seconds on the clock of the chart. original: (H, W, 3). shown: each file's picture,
    with its keep map tinted over where that is wanted, or None where the file has lost the frame. differences:
    likewise, or empty.
    lines: a line for each caption: the original, the files, the differences.
    """

    time: float
    end: float
    original: Pixels
    shown: Sequence[Pixels | None]
    differences: Sequence[Pixels | None]
    lines: Sequence[str]


class Board:
    """Draws moments. What does not move is drawn once."""

    def __init__(
        self,
        layout: Layout,
        headings: Sequence[Heading],
        panel: ChartPanel | None,
        *,
        tokens_per_cell: int | None = None,
    ) -> None:
        """`headings`: one for each of the layout's captions. `tokens_per_cell`: for the legend of keep maps."""
        self._layout = layout
        self._panel = panel
        self._paper = np.full((layout.height, layout.width, 3), style.rgb(style.PAPER), np.uint8)
        for rect, heading in zip(layout.captions, headings, strict=True):
            _write_heading(self._paper, rect, heading, layout.font)
        if layout.legend is not None and tokens_per_cell is not None:
            _write_legend(self._paper, layout.legend, tokens_per_cell, layout.font)

    def draw(self, moment: Moment) -> Pixels:
        """The whole picture, (height, width, 3)."""
        layout = self._layout
        board = self._paper.copy()
        pictures = [moment.original, *moment.shown, *moment.differences]
        for rect, picture in zip([*layout.pictures, *layout.differences], pictures, strict=True):
            if picture is None:
                _write_lost(board, rect, layout.font)
            else:
                board[rect.slices] = scaled(picture, rect.width, rect.height)
        for rect, line in zip(layout.captions, moment.lines, strict=True):
            _write_line(board, rect, 2, line, layout.font)
        if layout.chart is not None and self._panel is not None:
            board[layout.chart.slices] = self._panel.at(moment.time, moment.end)
        return board


def scaled(picture: Pixels, width: int, height: int) -> Pixels:
    """The picture at another size: pixels repeated where it grows by whole numbers, Lanczos elsewhere."""
    rows, columns = picture.shape[:2]
    if (columns, rows) == (width, height):
        return picture
    if width % columns == 0 and height % rows == 0:
        return picture.repeat(height // rows, 0).repeat(width // columns, 1)
    from PIL import Image

    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS))


def amplified(original: Pixels, shown: Pixels, gain: float) -> Pixels:
    """What was added to the original, times `gain`, around middle grey: (H, W, 3)."""
    difference = shown.astype(np.float32) - original
    return np.asarray(np.clip(difference * gain + 128, 0, 255).round(), np.uint8)


def _write_heading(board: Pixels, rect: Rect, heading: Heading, size: int) -> None:
    area = board[rect.slices]
    left = 0
    if heading.color is not None:
        chip = round(size * 0.8)
        top = round(size * 0.15)
        area[top : top + chip, :chip] = style.rgb(heading.color)
        left = chip + size // 2
    big = round(size * 1.15)
    text.write(area, text.fitted(heading.title, big, rect.width - left, bold=True), left, 0, big, bold=True)
    _write_line(board, rect, 1, heading.facts, size, color=style.SOFT)


def _write_line(
    board: Pixels, rect: Rect, number: int, words: str, size: int, color: str = style.INK
) -> None:
    text.write(
        board[rect.slices],
        text.fitted(words, size, rect.width),
        0,
        round(number * size * 1.5),
        size,
        color=color,
    )


def _write_lost(board: Pixels, rect: Rect, size: int) -> None:
    area = board[rect.slices]
    area[:] = _GREY_OF_LOST_FRAME
    text.write(
        area, "lost: the file is damaged here", rect.width / 2, rect.height / 2 - size, size, centred=True
    )


def _write_legend(board: Pixels, rect: Rect, tokens_per_cell: int, size: int) -> None:
    """The colours of the keep map with numbers below them."""
    area = board[rect.slices]
    words = "tokens in a cell  "
    left = round(text.width_of(words, size))
    wide = min(rect.width - left - 2 * size, 28 * size)
    text.write(area, words, 0, 0, size, color=style.SOFT)
    area[: round(size * 1.1), left : left + wide] = heat.scale_bar(wide, round(size * 1.1))
    for count in heat.ticks(tokens_per_cell):
        place = left + float(heat.shares(count, tokens_per_cell)) * (wide - 1)
        text.write(area, str(count), place, round(size * 1.4), size - 2, color=style.SOFT, centred=True)

"""Where everything is in a comparison: pure arithmetic on pixels."""

from dataclasses import dataclass

_MAX_ENLARGED_SIDE = 512  # pixels: pictures are enlarged by whole numbers while they stay within this
_MIN_COLUMN_WIDTH = 320  # pixels: a caption needs as much
CAPTION_LINES = 3


@dataclass(frozen=True)
class Rect:
    """A part of a picture, in pixels from its upper left corner."""

    left: int
    top: int
    width: int
    height: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """To index an array (H, W, ...) with."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


@dataclass(frozen=True)
class Layout:
    """The original at the left, one column for each file, captions above, the chart below.

    width, height: even, as video wants them. pictures: the original, then the files in order. differences: one
    for each file, or none. captions: as pictures, then as differences. chart: None for a still.
    """

    width: int
    height: int
    font: int  # pixels
    pictures: tuple[Rect, ...]
    differences: tuple[Rect, ...]
    captions: tuple[Rect, ...]
    legend: Rect | None
    chart: Rect | None


def arrange(
    source: tuple[int, int],
    files: int,
    *,
    aspect: float = 1.0,
    difference: bool = False,
    legend: bool = False,
    chart: bool = True,
    most_width: int = 1920,
) -> Layout:
    """Lay out `files` files beside a source of (width, height) pixels that are `aspect` times as wide as high.

    One file's difference is a third column; those of several stand in a second row. Pictures are never larger
    than the whole may be wide, and small ones are enlarged by whole numbers.
    """
    beside = difference and files == 1
    columns = 1 + files + beside
    gap = 12
    room = max(16, (most_width - gap * (columns + 1)) // columns)
    width, height = _shown_size(source, aspect, room)
    column = min(max(width, _MIN_COLUMN_WIDTH), max(room, width))
    total = columns * column + (columns + 1) * gap
    font = min(20, max(12, round(total / 80)))
    line = round(font * 1.5)
    caption = CAPTION_LINES * line + font // 2

    def place(row: int, number: int) -> tuple[Rect, Rect]:
        left = gap + number * (column + gap)
        top = gap + row * (caption + height + gap)
        picture = Rect(left + (column - width) // 2, top + caption, width, height)
        return Rect(left, top, column, caption), picture

    first = [place(0, number) for number in range(1 + files)]
    second: list[tuple[Rect, Rect]] = []
    if difference:
        second = [place(0, 2)] if beside else [place(1, 1 + number) for number in range(files)]
    rows = 2 if second and not beside else 1
    bottom = gap + rows * (caption + height + gap)
    legend_rect = chart_rect = None
    if legend:
        legend_rect = Rect(gap, bottom, total - 2 * gap, round(2.2 * line))
        bottom += legend_rect.height + gap
    if chart:
        chart_rect = Rect(gap, bottom, total - 2 * gap, 19 * font)
        bottom += chart_rect.height + gap
    return Layout(
        width=_even(total),
        height=_even(bottom),
        font=font,
        pictures=tuple(picture for _, picture in first),
        differences=tuple(picture for _, picture in second),
        captions=tuple(text for text, _ in first + second),
        legend=legend_rect,
        chart=chart_rect,
    )


def _shown_size(source: tuple[int, int], aspect: float, room: int) -> tuple[int, int]:
    """The size to show a picture at, with square pixels."""
    width, height = source[0] * max(1.0, aspect), source[1] / min(1.0, aspect)
    if width > room:
        factor = room / width
    else:
        factor = max(1, int(min(_MAX_ENLARGED_SIDE, room) / width))
        factor = max(1, min(factor, int(_MAX_ENLARGED_SIDE / height)))
    return max(1, round(width * factor)), max(1, round(height * factor))


def _even(number: int) -> int:
    return number + number % 2

"""A spreadsheet: numbers in a grid, a frame that goes from cell to cell, values that are typed, ranges, scrolling."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice

from PIL import Image, ImageDraw

from . import motion
from .style import Style, mixed
from .words import number, word

_ROWS, _COLUMNS = 200, 40


def spreadsheet(rng: random.Random, style: Style) -> Iterator[Image.Image]:
    """Yields the pictures of the clip."""
    sheet = _Sheet(rng, style)
    for _ in islice(sheet.work(), style.frames):
        yield sheet.picture()


class _Sheet:
    """Values, the chosen cell, the marked range, and what can be seen."""

    def __init__(self, rng: random.Random, style: Style) -> None:
        self.rng, self.style = rng, style
        self.font = style.font(rng.choice((style.body, style.mono)), rng.choice((8, 9, 10, 11, 12, 14)))
        self.tall = round(sum(self.font.getmetrics()) * rng.uniform(1.15, 1.7))
        self.side = round(self.font.getlength("0000")) + style.px(4)
        self.bar = self.tall if rng.random() < 0.6 else 0  # for what is typed
        self.wide = [round(self.font.getlength("0") * rng.randint(6, 14)) for _ in range(_COLUMNS)]
        self.paper, self.ink, self.accent = style.paper(rng), style.ink(rng), style.accent(rng)
        self.striped = rng.random() < 0.4
        self.fills = {rng.randrange(_COLUMNS): style.accent(rng) for _ in range(rng.choice((0, 2, 5)))}
        named = rng.sample(range(_COLUMNS), 8)
        full = rng.uniform(0.4, 1)
        alphabet = style.alphabet if self.font.path == str(style.body) else "latin"
        self.values = {
            (row, column): word(rng, alphabet).capitalize() if column in named or row == 0 else number(rng)
            for row in range(_ROWS)
            for column in range(_COLUMNS)
            if rng.random() < full
        }
        self.row, self.column = rng.randint(1, 8), rng.randint(0, 3)
        self.top = self.left = 0
        self.end = (self.row, self.column)  # of the marked range

    def work(self) -> Iterator[None]:
        """What somebody does, frame by frame, without end."""
        while True:
            task = self.rng.choice(
                (self._type, self._type, self._walk, self._walk, self._mark, self._scroll, self._fill)
            )
            yield from task()

    def _go(self, row: int, column: int) -> None:
        self.row, self.column = min(_ROWS - 1, max(0, row)), min(_COLUMNS - 1, max(0, column))
        self.end = (self.row, self.column)
        shown = (self.style.height - self.bar) // self.tall - 2
        self.top = max(0, min(max(self.top, self.row - shown + 1), self.row))
        while (
            sum(self.wide[self.left : self.column + 1]) > self.style.width - self.side
            and self.left < self.column
        ):
            self.left += 1
        self.left = min(self.left, self.column)

    def _type(self) -> Iterator[None]:
        value, shown = number(self.rng), 0
        for letters in motion.typing(self.rng):
            shown += letters
            self.values[self.row, self.column] = value[:shown]
            yield
            if shown >= len(value):
                break
        self._go(self.row + 1, self.column)
        yield

    def _walk(self) -> Iterator[None]:
        down, right = self.rng.choice(((1, 0), (1, 0), (0, 1), (-1, 0), (0, -1)))
        every = self.rng.randint(1, 3)
        for _ in range(self.rng.randint(2, 12)):
            self._go(self.row + down, self.column + right)
            yield from [None] * every

    def _mark(self) -> Iterator[None]:
        for _ in range(self.rng.randint(3, 9)):
            row = min(_ROWS - 1, self.end[0] + self.rng.randint(0, 2))
            self.end = (row, min(_COLUMNS - 1, self.end[1] + (self.rng.random() < 0.3)))
            yield from [None] * self.rng.randint(1, 2)
        yield from [None] * self.rng.randint(1, 6)
        self.end = (self.row, self.column)

    def _fill(self) -> Iterator[None]:
        """New values in a column, all at once or one after another."""
        for row in range(self.top + 1, min(_ROWS, self.top + 40)):
            self.values[row, self.column] = number(self.rng)
            if row % 4 == 0:
                yield
        yield

    def _scroll(self) -> Iterator[None]:
        """By whole rows or columns; the letters and numbers at the edges stay."""
        step = self.rng.choice((1, 1, 3, -1, -3))
        across = self.rng.random() < 0.25
        for _ in range(self.rng.randint(3, 12)):
            if across:
                self.left = min(_COLUMNS - 8, max(0, self.left + (1 if step > 0 else -1)))
            else:
                self.top = min(_ROWS - 20, max(0, self.top + step))
            yield from [None] * self.rng.randint(1, 3)

    def picture(self) -> Image.Image:
        """As it is now."""
        style = self.style
        picture = Image.new("RGB", (style.width, style.height), self.paper)
        pen = ImageDraw.Draw(picture)
        lines, head = mixed(self.paper, self.ink, 0.2), mixed(self.paper, self.ink, 0.1)
        origin = self.bar + self.tall
        rows = range(self.top, min(_ROWS, self.top + (style.height - origin) // self.tall + 1))
        x = self.side
        for column in range(self.left, _COLUMNS):
            if x >= style.width:
                break
            right = x + self.wide[column]
            for row in rows:
                y = origin + (row - self.top) * self.tall
                self._cell(picture, pen, (x, y, right, y + self.tall), row, column)
            pen.rectangle((x, self.bar, right, origin), fill=head, outline=lines)
            name = chr(65 + column) if column < 26 else "A" + chr(65 + column - 26)
            style.write(
                picture, ((x + right) / 2, self.bar + self.tall / 2), name, self.font, self.ink, anchor="mm"
            )
            if column == self.column and self.row in rows:
                y = origin + (self.row - self.top) * self.tall
                pen.rectangle((x, y, right, y + self.tall), outline=self.accent, width=style.px(2))
            x = right
        for row in rows:
            y = origin + (row - self.top) * self.tall
            pen.rectangle((0, y, self.side, y + self.tall), fill=head, outline=lines)
            style.write(
                picture, (self.side / 2, y + self.tall / 2), str(row + 1), self.font, self.ink, anchor="mm"
            )
        if self.bar:
            pen.rectangle((0, 0, style.width, self.bar), fill=self.paper, outline=lines)
            typed = f"={self.values.get((self.row, self.column), '')}"
            style.write(picture, (style.px(6), self.bar / 2), typed, self.font, self.ink, anchor="lm")
        return picture

    def _cell(
        self,
        picture: Image.Image,
        pen: ImageDraw.ImageDraw,
        box: tuple[int, int, int, int],
        row: int,
        column: int,
    ) -> None:
        style, (left, top, right, bottom) = self.style, box
        marked = self.row <= row <= self.end[0] and self.column <= column <= self.end[1]
        fill = self.paper
        if self.striped and row % 2:
            fill = mixed(fill, self.ink, 0.06)
        if column in self.fills:
            fill = mixed(fill, self.fills[column], 0.3)
        if marked and self.end != (self.row, self.column):
            fill = mixed(fill, self.accent, 0.3)
        pen.rectangle(box, fill=fill, outline=mixed(self.paper, self.ink, 0.15))
        value = self.values.get((row, column), "")
        while value and self.font.getlength(value) > right - left - style.px(4):
            value = value[:-1]
        if value:
            numeric = value[0].isdigit() or value[0] in "-$"
            x, anchor = (right - style.px(3), "rm") if numeric else (left + style.px(3), "lm")
            style.write(picture, (x, (top + bottom) / 2), value, self.font, self.ink, anchor=anchor)

"""An editor: code in colours with line numbers, typing at a blinking cursor, a selection, scrolling."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice

from PIL import Image, ImageDraw

from . import motion
from .style import Colour, Style, mixed
from .words import Token, code, code_line, words

_BLINK_FRAMES = 15
_ROLES = ("keyword", "name", "call", "string", "number", "comment", "sign")
# Paper, then the colours of _ROLES.
_DARK = (
    ("#1e1e2e", "#cba6f7", "#cdd6f4", "#89b4fa", "#a6e3a1", "#fab387", "#6c7086", "#bac2de"),
    ("#272822", "#f92672", "#f8f8f2", "#a6e22e", "#e6db74", "#ae81ff", "#75715e", "#f8f8f2"),
    ("#1e1e1e", "#569cd6", "#9cdcfe", "#dcdcaa", "#ce9178", "#b5cea8", "#6a9955", "#d4d4d4"),
    ("#002b36", "#859900", "#839496", "#268bd2", "#2aa198", "#d33682", "#586e75", "#93a1a1"),
    ("#0d1117", "#ff7b72", "#c9d1d9", "#d2a8ff", "#a5d6ff", "#79c0ff", "#8b949e", "#c9d1d9"),
)
_LIGHT = (
    ("#ffffff", "#0000ff", "#001080", "#795e26", "#a31515", "#098658", "#008000", "#000000"),
    ("#fdf6e3", "#859900", "#657b83", "#268bd2", "#2aa198", "#d33682", "#93a1a1", "#586e75"),
    ("#fafafa", "#a626a4", "#383a42", "#4078f2", "#50a14f", "#986801", "#a0a1a7", "#383a42"),
    ("#f6f8fa", "#cf222e", "#24292f", "#8250df", "#0a3069", "#0550ae", "#6e7781", "#24292f"),
)


def editor(rng: random.Random, style: Style) -> Iterator[Image.Image]:
    """Yields the pictures of the clip."""
    window = _Window(rng, style)
    for _ in islice(window.work(), style.frames):
        yield window.picture()


class _Window:
    """The text, where the cursor is, and what can be seen of it."""

    def __init__(self, rng: random.Random, style: Style) -> None:
        self.rng, self.style = rng, style
        self.font = style.font(style.mono, rng.choice((8, 9, 9, 10, 10, 11, 12, 13, 14, 16, 20)))
        self.letter = self.font.getlength("0")
        self.line_height = round(sum(self.font.getmetrics()) * rng.uniform(1.05, 1.4))
        self.colours = _theme(rng, style)
        self.tabs = style.px(rng.choice((0, 22, 30)))
        self.side = rng.choice((0, 0, round(style.width * 0.22)))
        self.status = style.px(rng.choice((0, 16, 20)))
        self.left = self.side + round(self.letter * rng.choice((1, 4, 6)))
        self.numbered = self.left - self.side > 2 * self.letter
        self.shown = max(2, (style.height - self.tabs - self.status) // self.line_height)
        self.lines: list[list[Token]] = code(rng, 4 * self.shown)
        self.names = [words(rng, 1).lower() + rng.choice((".py", ".rs", ".ts", ".md")) for _ in range(40)]
        self.row = rng.randrange(self.shown)
        self.column = _length(self.lines[self.row])
        self.top = 0.0  # lines scrolled past; between lines where scrolling is smooth
        self.marked = range(0)  # rows of the selection
        self.frame = self.touched = 0

    def work(self) -> Iterator[None]:
        """What somebody does, frame by frame, without end."""
        while True:
            task = self.rng.choices(
                (self._type, self._select, self._scroll, self._wait, self._go_elsewhere), (5, 2, 2, 1, 1)
            )[0]
            for _ in task():
                self.frame += 1
                yield

    def _type(self) -> Iterator[None]:
        """A new line, letter by letter."""
        self._show_cursor()
        before = self.lines[self.row]
        indent = ("    " * self.rng.randint(0, 3), "sign") if not before else before[0]
        line = [indent, *code_line(self.rng)]
        self.row += 1
        self.lines.insert(self.row, [])
        self._show_cursor()
        for letters in islice(motion.typing(self.rng), self.rng.randint(10, 70)):
            self.column = max(self.column, len(indent[0]))
            if letters:
                self.touched = self.frame
            self.column = self.column + letters if self.lines[self.row] else len(indent[0])
            self.lines[self.row] = _cut(line, self.column)
            yield
            if self.column >= _length(line):
                break
        self.column = _length(self.lines[self.row])

    def _select(self) -> Iterator[None]:
        """More and more lines; sometimes they are then deleted."""
        self._show_cursor()
        first = self.row
        for _ in range(self.rng.randint(2, 8)):
            self.row = min(self.row + 1, len(self.lines) - 2)
            self.marked = range(first, self.row)
            self._show_cursor()
            yield from [None] * self.rng.randint(1, 3)
        if self.rng.random() < 0.5:
            del self.lines[first : self.row]
            self.lines += code(self.rng, self.row - first)
            self.row = first
        self.marked = range(0)
        self.column = _length(self.lines[self.row])
        yield

    def _scroll(self) -> Iterator[None]:
        """Smoothly or by whole lines, as one does to read."""
        reach = (len(self.lines) - self.shown) * self.line_height
        tops = motion.scrolled(self.rng, self.rng.randint(6, 20), reach)
        by_lines = self.rng.random() < 0.5
        before = self.top
        for top in tops:
            place = (before * self.line_height + top - tops[0]) / self.line_height
            self.top = min(max(0.0, place), len(self.lines) - self.shown)
            self.top = float(round(self.top)) if by_lines else self.top
            yield

    def _wait(self) -> Iterator[None]:
        yield from [None] * self.rng.randint(3, 18)

    def _go_elsewhere(self) -> Iterator[None]:
        self.row = self.rng.randrange(len(self.lines) - 1)
        self.column = _length(self.lines[self.row])
        self.touched = self.frame
        self._show_cursor()
        yield from [None] * self.rng.randint(1, 4)

    def _show_cursor(self) -> None:
        if not self.top <= self.row < self.top + self.shown - 1:
            step = 1 if self.row - self.top < self.shown + 2 else self.shown // 2
            self.top = float(max(0, min(self.row - self.shown + 1 + step, len(self.lines) - self.shown)))

    def picture(self) -> Image.Image:
        """As it is now."""
        style, colours = self.style, self.colours
        picture = Image.new("RGB", (style.width, style.height), colours["paper"])
        pen = ImageDraw.Draw(picture)
        for row in range(int(self.top), min(len(self.lines), int(self.top) + self.shown + 2)):
            y = self.tabs + round((row - self.top) * self.line_height)
            bottom = y + self.line_height
            if row == self.row and not self.marked:
                pen.rectangle((self.side, y, style.width, bottom - 1), fill=colours["line"])
            if row in self.marked:
                wide = self.left + (_length(self.lines[row]) + 1) * self.letter
                pen.rectangle((self.left, y, wide, bottom - 1), fill=colours["marked"])
            if self.numbered:
                tint = colours["name"] if row == self.row else colours["comment"]
                style.write(picture, (self.left - self.letter, y), str(row + 1), self.font, tint, anchor="ra")
            x = float(self.left)
            for text, role in self.lines[row]:
                if text.strip():
                    style.write(picture, (x, y), text, self.font, colours[role])
                x += len(text) * self.letter
        blinks = (self.frame - self.touched) // _BLINK_FRAMES % 2 == 0
        y = self.tabs + round((self.row - self.top) * self.line_height)
        if blinks:
            x = self.left + self.column * self.letter
            pen.rectangle((x, y, x + style.px(1.4) - 1, y + self.line_height - 1), fill=colours["cursor"])
        self._frame_of_window(picture)
        return picture

    def _frame_of_window(self, picture: Image.Image) -> None:
        """Tabs, list of files and status line."""
        style, colours = self.style, self.colours
        pen = ImageDraw.Draw(picture)
        small = style.font(style.body if style.alphabet == "latin" else style.mono, 10)
        if self.side:
            pen.rectangle((0, 0, self.side - 1, style.height), fill=colours["side"])
            for number, name in enumerate(self.names[: style.height // style.px(16)]):
                at = (style.px(6 + 8 * (number % 3 > 0)), self.tabs + style.px(4 + 16 * number))
                style.write(picture, at, name[: self.side // style.px(8)], small, colours["name"])
        if self.tabs:
            pen.rectangle((0, 0, style.width, self.tabs - 1), fill=colours["side"])
            pen.rectangle((self.side, 0, self.side + style.px(84), self.tabs - 1), fill=colours["paper"])
            for number, name in enumerate(self.names[:3]):
                x = self.side + number * style.px(84) + style.px(8)
                style.write(picture, (x, self.tabs / 2), name[:10], small, colours["name"], anchor="lm")
        if self.status:
            top = style.height - self.status
            pen.rectangle((0, top, style.width, style.height), fill=colours["bar"])
            place = f"Ln {self.row + 1}, Col {self.column + 1}"
            corner = (style.width - style.px(8), top + self.status / 2)
            style.write(picture, corner, place, small, colours["paper"], anchor="rm")


def _theme(rng: random.Random, style: Style) -> dict[str, Colour]:
    paper, *rest = (_colour(text) for text in rng.choice(_DARK if style.dark else _LIGHT))
    colours = dict(zip(_ROLES, rest, strict=True))
    if rng.random() < 0.25:
        paper = style.paper(rng)
        colours = {role: style.accent(rng) for role in _ROLES} | {"name": style.ink(rng)}
    name, accent = colours["name"], style.accent(rng)
    return {
        **colours,
        "paper": paper,
        "line": mixed(paper, name, 0.08),
        "marked": mixed(paper, accent, 0.35),
        "side": mixed(paper, name, 0.05),
        "cursor": rng.choice((name, accent)),
        "bar": accent,
    }


def _colour(text: str) -> Colour:
    """Of `#rrggbb`."""
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)


def _length(line: list[Token]) -> int:
    return sum(len(text) for text, _ in line)


def _cut(line: list[Token], letters: int) -> list[Token]:
    """The first letters of a line."""
    made = []
    for text, role in line:
        made.append((text[:letters], role))
        letters -= len(text)
        if letters <= 0:
            break
    return made

"""A terminal: commands are typed, output appears at the bottom, everything scrolls up by whole lines."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice

from PIL import Image, ImageDraw

from . import motion
from .style import Colour, Style, shade
from .words import number, sentence, word, words

_BLINK_FRAMES = 14
_BARS = (("#", "."), ("=", " "), ("█", "░"), ("━", " "))
Piece = tuple[str, Colour]


def terminal(rng: random.Random, style: Style) -> Iterator[Image.Image]:
    """Yields the pictures of the clip."""
    screen = _Screen(rng, style)
    for frame, _ in enumerate(islice(screen.work(), style.frames)):
        yield screen.picture(frame)


class _Screen:
    """Lines of coloured pieces; the last one is where the cursor stands."""

    def __init__(self, rng: random.Random, style: Style) -> None:
        self.rng, self.style = rng, style
        self.font = style.font(style.mono, rng.choice((8, 9, 10, 11, 12, 13, 14, 16, 20)))
        self.letter = self.font.getlength("0")
        self.line_height = round(sum(self.font.getmetrics()) * rng.uniform(1.0, 1.2))
        self.room = max(2, (style.height - style.px(8)) // self.line_height)
        self.columns = max(20, int(style.width / self.letter))
        self.paper = rng.choice(
            ((0, 0, 0), shade(rng, 10, 40), (48, 10, 36))
            if style.dark
            else ((255,) * 3, shade(rng, 235, 255))
        )
        self.ink = style.ink(rng)
        self.colours = [style.accent(rng) for _ in range(5)]
        self.blinks, self.block = rng.random() < 0.6, rng.random() < 0.6
        self.prompt: list[Piece] = [
            (rng.choice(("user@host:", "~/work ", "root ", "")), self.colours[0]),
            (rng.choice(("~/src", "main", "/usr/local", "")), self.colours[1]),
            (rng.choice(("$ ", "> ", "% ", "# ")), self.ink),
        ]
        self.kind = rng.randrange(5)  # of output
        self.lines: list[list[Piece]] = []
        for _ in range(rng.choice((0, self.room // 2, self.room, self.room))):
            self.lines.append(self._output())
        self.lines.append([])

    def work(self) -> Iterator[None]:
        """Command after command, frame by frame, without end."""
        while True:
            yield from self._command()
            yield from self.rng.choice((self._flood, self._flood, self._flood, self._progress, self._table))()

    def _command(self) -> Iterator[None]:
        line = " ".join(word(self.rng).lower() for _ in range(self.rng.randint(1, 5)))
        self.lines[-1] = list(self.prompt)
        shown = 0
        for letters in motion.typing(self.rng):
            shown += letters
            self.lines[-1] = [*self.prompt, (line[:shown], self.ink)]
            yield
            if shown >= len(line):
                break
        self.lines.append([])

    def _flood(self) -> Iterator[None]:
        """Lines of output: some in each frame, or one every few frames."""
        each, every = self.rng.choice(((1, 1), (1, 2), (1, 3), (2, 1), (4, 1), (self.room, 3)))
        self.kind = self.rng.randrange(5)
        for _ in range(self.rng.randint(3, 18)):
            for _ in range(each):
                self.lines[-1] = self._output()
                self.lines.append([])
            yield from [None] * every

    def _progress(self) -> Iterator[None]:
        """A bar that grows in its line."""
        full, empty = self.rng.choice(_BARS)
        wide, name = self.rng.randint(10, max(11, self.columns // 2)), word(self.rng)
        done = 0.0
        while done < 1:
            done = min(1.0, done + self.rng.uniform(0.01, 0.12))
            filled = round(done * wide)
            bar = full * filled + empty * (wide - filled)
            self.lines[-1] = [(f"{name} [", self.ink), (bar, self.colours[2]), (f"] {done:4.0%}", self.ink)]
            yield
        self.lines.append([])

    def _table(self) -> Iterator[None]:
        """Numbers that are written anew at the same place, as in `top`."""
        rows = min(self.room - 1, self.rng.randint(4, 14))
        names = [word(self.rng)[:8] for _ in range(rows)]
        self.lines += [[] for _ in range(rows)]
        for _ in range(self.rng.randint(2, 6)):
            for row, name in enumerate(names):
                figures = "".join(f"{number(self.rng):>11}" for _ in range(3))
                self.lines[row - rows - 1] = [(f"{name:<9}", self.colours[row % 5]), (figures, self.ink)]
            yield from [None] * self.rng.randint(2, 5)

    def _output(self) -> list[Piece]:
        rng, kind = self.rng, self.kind
        if kind == 0:
            return [
                (
                    f"{rng.randint(0, 23):02}:{rng.randint(0, 59):02}:{rng.randint(0, 59):02} ",
                    self.colours[3],
                ),
                (rng.choice(("INFO ", "WARN ", "DEBUG ")), self.colours[rng.randrange(3)]),
                (sentence(rng), self.ink),
            ]
        if kind == 1:
            return [
                (rng.choice(("drwxr-xr-x ", "-rw-r--r-- ")), self.ink),
                (f"{rng.randint(1, 99999):>7} ", self.colours[4]),
                (
                    words(rng, 1).lower() + rng.choice((".txt", ".c", "/", ".log")),
                    self.colours[rng.randrange(3)],
                ),
            ]
        if kind == 2:
            return [
                (f"[{rng.randint(1, 400):>3}/400] ", self.colours[1]),
                (f"Building {word(rng)}/{word(rng)}.o", self.ink),
            ]
        if kind == 3:
            return [
                (f"{word(rng)}/{word(rng)}.py", self.colours[0]),
                (f":{rng.randint(1, 900)}: ", self.ink),
                (sentence(rng), rng.choice((self.ink, self.colours[2]))),
            ]
        return [(" ".join(f"{rng.randrange(256):02x}" for _ in range(rng.randint(6, 24))), self.ink)]

    def picture(self, frame: int) -> Image.Image:
        """As it is now; lines that are too long go on in the next one."""
        style = self.style
        picture = Image.new("RGB", (style.width, style.height), self.paper)
        self.lines = self.lines[-self.room :]
        edge = style.px(4)
        for row, line in enumerate(self.lines):
            column = 0
            for text, colour in line:
                text = text[: self.columns - column]
                if text.strip():
                    at = (edge + column * self.letter, edge + row * self.line_height)
                    style.write(picture, at, text, self.font, colour)
                column += len(text)
        if not self.blinks or frame // _BLINK_FRAMES % 2 == 0:
            x, y = edge + column * self.letter, edge + (len(self.lines) - 1) * self.line_height
            wide = self.letter if self.block else style.px(1.5)
            ImageDraw.Draw(picture).rectangle((x, y, x + wide - 1, y + self.line_height - 1), fill=self.ink)
        return picture

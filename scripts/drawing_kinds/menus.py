"""An application: menus that open, a line that is lit as the pointer passes, tools, switches, sliders, dialogs."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice

from PIL import Image, ImageDraw

from . import motion
from .shapes import pointer, rounded, shadow, smooth_icon, stamp
from .style import Style, mixed
from .words import sentence, word, words

Place = tuple[int, int]


def menus(rng: random.Random, style: Style) -> Iterator[Image.Image]:
    """Yields the pictures of the clip."""
    window = _Window(rng, style)
    for _ in islice(window.work(), style.frames):
        yield window.picture()


class _Window:
    """What is open, lit and switched on, and where the pointer is."""

    def __init__(self, rng: random.Random, style: Style) -> None:
        self.rng, self.style = rng, style
        self.paper, self.ink, self.accent = style.paper(rng), style.ink(rng), style.accent(rng)
        self.font = style.font(style.body, rng.choice((8, 9, 10, 11, 12, 14)))
        self.line = round(sum(self.font.getmetrics()) * rng.uniform(1.2, 1.8))
        self.arrow = pointer(rng, style)
        self.at: tuple[float, float] = (rng.uniform(0, style.width), rng.uniform(0, style.height))
        self.heads = [word(rng, style.alphabet)[:7].capitalize() for _ in range(6)]
        self.items = [
            [words(rng, rng.randint(1, 3), style.alphabet)[:22] for _ in range(rng.randint(3, 10))]
            for _ in self.heads
        ]
        self.tools = [smooth_icon(rng, style, style.px(14), style.accent(rng)) for _ in range(12)]
        self.open: int | None = None
        self.lit: int | None = None
        self.on = [rng.random() < 0.5 for _ in range(5)]
        self.knobs = [float(on) for on in self.on]  # where the switch is drawn: it slides
        self.done = rng.random()
        self.dialog: tuple[str, str] | None = None
        self.labels = [words(rng, 2, style.alphabet)[:20] for _ in range(5)]
        self.files = [
            (smooth_icon(rng, style, style.px(22), style.accent(rng)), word(rng, style.alphabet)[:7])
            for _ in range(200)
        ]
        self.tiny = style.font(style.body, 8)
        self.pressed: int | None = None

    def work(self) -> Iterator[None]:
        """What somebody does with the pointer, frame by frame, without end."""
        while True:
            task = self.rng.choice(
                (self._use_menu, self._use_menu, self._switch, self._press_tool, self._choose, self._ask)
            )
            for _ in task():
                for n, on in enumerate(self.on):
                    self.knobs[n] += 0.35 * (on - self.knobs[n])
                self.done = (self.done + 0.01) % 1
                yield

    def _move(self, to: tuple[float, float]) -> Iterator[None]:
        start, takes = self.at, self.rng.randint(3, 10)
        for n in range(1, takes + 1):
            path = motion.ease(n / takes)
            self.at = (start[0] + (to[0] - start[0]) * path, start[1] + (to[1] - start[1]) * path)
            yield

    def _use_menu(self) -> Iterator[None]:
        head = self.rng.randrange(len(self.heads))
        yield from self._move((self._head_x(head) + self.style.px(10), self.line / 2))
        self.open = head
        yield from [None] * self.rng.randint(1, 3)
        for row in range(self.rng.randint(1, len(self.items[head]))):
            self.lit = row
            self.at = (self.at[0] + self.rng.uniform(-2, 4), self.line * (row + 1.6))
            yield from [None] * self.rng.choice((1, 1, 2, 4))
        self.open = self.lit = None

    def _switch(self) -> Iterator[None]:
        number = self.rng.randrange(len(self.on))
        yield from self._move((self._switch_x() + self.style.px(10), self._row_y(number) + self.style.px(6)))
        self.on[number] = not self.on[number]
        yield from [None] * self.rng.randint(3, 8)

    def _press_tool(self) -> Iterator[None]:
        number = self.rng.randrange(len(self.tools))
        yield from self._move((self.style.px(12 + 22 * number), self.line + self.style.px(12)))
        for state in (number, None):
            self.pressed = state
            yield from [None] * self.rng.randint(2, 5)

    def _choose(self) -> Iterator[None]:
        """The pointer goes over icons, which light up one after another."""
        for _ in range(self.rng.randint(1, 4)):
            reach = (self._files_y(), max(self._files_y() + 1, self.style.height))
            yield from self._move((self.rng.uniform(0.05, 0.95) * self.style.width, self.rng.uniform(*reach)))
            yield from [None] * self.rng.randint(0, 4)

    def _ask(self) -> Iterator[None]:
        """A dialog appears, and goes when its button is pressed."""
        self.dialog = words(self.rng, 2, self.style.alphabet), sentence(self.rng, self.style.alphabet)
        yield from [None] * self.rng.randint(2, 6)
        yield from self._move((self.style.width * 0.68, self.style.height * 0.66))
        self.dialog = None
        yield

    def _head_x(self, number: int) -> float:
        return self.style.px(8) + sum(self.font.getlength(h) + self.style.px(14) for h in self.heads[:number])

    def _switch_x(self) -> int:
        return round(self.style.width * 0.6)

    def _row_y(self, number: int) -> int:
        return self.line + self.style.px(40) + number * max(self.line, self.style.px(26))

    def picture(self) -> Image.Image:
        """As it is now."""
        style = self.style
        picture = Image.new("RGB", (style.width, style.height), self.paper)
        pen = ImageDraw.Draw(picture)
        faint = mixed(self.paper, self.ink, 0.08)
        pen.rectangle((0, 0, style.width, self.line), fill=faint)
        for number, head in enumerate(self.heads):
            x = self._head_x(number)
            if number == self.open:
                wide = self.font.getlength(head)
                pen.rectangle((x - style.px(5), 0, x + wide + style.px(5), self.line), fill=self.accent)
            style.write(picture, (x, self.line / 2), head, self.font, self.ink, anchor="lm")
        for number, tool in enumerate(self.tools):
            x, y = style.px(6 + 22 * number), self.line + style.px(5)
            if number == self.pressed:
                box = (x - style.px(3), y - style.px(3), x + style.px(18), y + style.px(18))
                rounded(picture, style, box, style.px(3), mixed(self.paper, self.accent, 0.5), self.accent)
            stamp(picture, tool, (x, y))
        self._settings(picture)
        self._draw_files(picture)
        if self.dialog is not None:
            self._draw_dialog(picture)
        if self.open is not None:
            self._draw_menu(picture, self.open)
        stamp(picture, self.arrow, self.at)
        return picture

    def _settings(self, picture: Image.Image) -> None:
        """Rows of a label and a switch, a bar of progress, and a slider."""
        style, left = self.style, self.style.px(16)
        for number, (label, knob) in enumerate(zip(self.labels, self.knobs, strict=True)):
            x, y = self._switch_x(), self._row_y(number)
            style.write(picture, (left, y), label, self.font, self.ink)
            tint = mixed(mixed(self.paper, self.ink, 0.25), self.accent, min(1.0, max(0.0, knob)))
            rounded(picture, style, (x, y, x + style.px(26), y + style.px(14)), style.px(7), tint)
            place = x + style.px(2) + round(style.px(12) * knob)
            rounded(
                picture,
                style,
                (place, y + style.px(2), place + style.px(10), y + style.px(12)),
                style.px(5),
                (255, 255, 255),
            )
        y, wide = self._row_y(5), style.width - 2 * left
        rounded(
            picture,
            style,
            (left, y, left + wide, y + style.px(8)),
            style.px(4),
            mixed(self.paper, self.ink, 0.15),
        )
        rounded(picture, style, (left, y, left + wide * self.done, y + style.px(8)), style.px(4), self.accent)
        label = f"{self.done:.0%}"
        style.write(picture, (left + wide / 2, y + style.px(12)), label, self.font, self.ink, anchor="ma")

    def _files_y(self) -> int:
        return self._row_y(5) + self.line + self.style.px(20)

    def _draw_files(self, picture: Image.Image) -> None:
        """Icons with names in rows; the one under the pointer is lit."""
        style, pitch = self.style, (self.style.px(52), self.style.px(44))
        columns = max(1, style.width // pitch[0])
        for number, (mark, name) in enumerate(self.files):
            x, y = number % columns * pitch[0], self._files_y() + number // columns * pitch[1]
            if y > style.height:
                break
            if x <= self.at[0] < x + pitch[0] and y <= self.at[1] < y + pitch[1]:
                box = (
                    x + style.px(2),
                    y - style.px(3),
                    x + pitch[0] - style.px(2),
                    y + pitch[1] - style.px(6),
                )
                rounded(picture, style, box, style.px(4), mixed(self.paper, self.accent, 0.3), self.accent)
            stamp(picture, mark, (x + style.px(15), y))
            style.write(picture, (x + pitch[0] / 2, y + style.px(25)), name, self.tiny, self.ink, anchor="ma")

    def _draw_menu(self, picture: Image.Image, number: int) -> None:
        style, items = self.style, self.items[number]
        x, y = round(self._head_x(number)) - style.px(5), self.line
        wide = round(max(self.font.getlength(item) for item in items)) + style.px(34)
        tall = len(items) * self.line + style.px(6)
        shadow(picture, (x, y, x + wide, y + tall), style.px(5))
        ground = mixed(self.paper, self.ink, 0.03)
        rounded(
            picture, style, (x, y, x + wide, y + tall), style.px(4), ground, mixed(self.paper, self.ink, 0.3)
        )
        for row, item in enumerate(items):
            top = y + style.px(3) + row * self.line
            if row == self.lit:
                box = (x + style.px(2), top, x + wide - style.px(2), top + self.line)
                rounded(picture, style, box, style.px(3), self.accent)
            stamp(
                picture,
                self.tools[(row + number) % len(self.tools)].resize((style.px(10),) * 2),
                (x + style.px(6), top + style.px(2)),
            )
            ink = self.paper if row == self.lit else self.ink
            style.write(picture, (x + style.px(22), top + self.line / 2), item, self.font, ink, anchor="lm")

    def _draw_dialog(self, picture: Image.Image) -> None:
        style = self.style
        assert self.dialog is not None
        title, text = self.dialog
        left, top = round(style.width * 0.15), round(style.height * 0.3)
        right, bottom = style.width - left, round(style.height * 0.72)
        shadow(picture, (left, top, right, bottom), style.px(8))
        rounded(
            picture,
            style,
            (left, top, right, bottom),
            style.px(6),
            self.paper,
            mixed(self.paper, self.ink, 0.3),
        )
        edge = style.px(10)
        style.write(picture, (left + edge, top + edge), title, style.font(style.heading, 14), self.ink)
        text = style.fit(text, self.font, right - left - 2 * edge)
        style.write(picture, (left + edge, top + edge + style.px(24)), text, self.font, self.ink)
        for number, fill in enumerate((mixed(self.paper, self.ink, 0.15), self.accent)):
            x = right - style.px(70) * (2 - number)
            rounded(
                picture,
                style,
                (x, bottom - style.px(28), x + style.px(60), bottom - style.px(8)),
                style.px(4),
                fill,
            )
            label, ink = ("Cancel", "OK")[number], (self.ink, self.paper)[number]
            style.write(
                picture, (x + style.px(30), bottom - style.px(18)), label, self.font, ink, anchor="mm"
            )

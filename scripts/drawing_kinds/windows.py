"""A desktop on which windows are dragged, resized, closed and brought to the front."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from PIL import Image, ImageDraw

from . import motion
from .shapes import photo, pointer, ramp, rounded, shadow, smooth_icon, stamp
from .style import Style, mixed, vivid
from .words import sentence, words

_SMALLEST = 60  # pixels of a window's sides


@dataclass
class _Window:
    """Its upper left corner and its content, which is cut at its lower right corner."""

    left: int
    top: int
    wide: int
    tall: int
    content: Image.Image


def windows(rng: random.Random, style: Style) -> Iterator[Image.Image]:
    """Yields the pictures of the clip."""
    desktop = _Desktop(rng, style)
    for _ in islice(desktop.work(), style.frames):
        yield desktop.picture()


class _Desktop:
    """Windows from the hindmost to the foremost, and a pointer."""

    def __init__(self, rng: random.Random, style: Style) -> None:
        self.rng, self.style = rng, style
        self.arrow = pointer(rng, style)
        self.bar = style.px(rng.choice((14, 18, 24)))
        self.radius = style.px(rng.choice((0, 3, 8)))
        self.back = self._wallpaper()
        self.windows = [self._new() for _ in range(rng.randint(2, 4))]
        self.at = (rng.randint(0, style.width), rng.randint(0, style.height))

    def _wallpaper(self) -> Image.Image:
        rng, style = self.rng, self.style
        if rng.random() < 0.4:
            back = photo(rng, style.width, style.height)
        else:
            first = vivid(rng)
            second = first if rng.random() < 0.3 else vivid(rng)
            back = Image.fromarray(ramp(rng, style.width, style.height, first, second).astype("uint8"))
        small = style.font(style.body, 9)
        for number in range(rng.randint(0, style.height // style.px(50))):
            y = style.px(8 + 48 * number)
            stamp(back, smooth_icon(rng, style, style.px(24)), (style.px(10), y))
            style.write(
                back,
                (style.px(6), y + style.px(26)),
                words(rng, 1, style.alphabet)[:8],
                small,
                (255, 255, 255),
            )
        return back

    def _new(self) -> _Window:
        rng, style = self.rng, self.style
        wide = round(style.width * rng.uniform(0.35, 0.7))
        tall = round(style.height * rng.uniform(0.3, 0.65))
        left, top = rng.randint(0, style.width - wide), rng.randint(0, style.height - tall)
        return _Window(left, top, wide, tall, self._content())

    def _content(self) -> Image.Image:
        """Title bar, and text or a picture below, large enough for every size of the window."""
        rng, style = self.rng, self.style
        paper, ink, bar = style.paper(rng), style.ink(rng), rng.choice((style.paper(rng), style.accent(rng)))
        content = Image.new("RGB", (style.width, style.height), paper)
        pen = ImageDraw.Draw(content)
        pen.rectangle((0, 0, style.width, self.bar - 1), fill=bar)
        title = style.font(style.heading, 10)
        letters: tuple[int, int, int] = (0, 0, 0) if sum(bar) > 382 else (255, 255, 255)
        dots = ((255, 95, 86), (255, 189, 46), (39, 201, 63))
        for number, dot in enumerate(dots):
            x, side = style.px(6 + 14 * number), style.px(8)
            rounded(
                content, style, (x, (self.bar - side) / 2, x + side, (self.bar + side) / 2), side / 2, dot
            )
        style.write(
            content, (style.px(52), self.bar / 2), words(rng, 2, style.alphabet), title, letters, anchor="lm"
        )
        kind = rng.random()
        if kind < 0.3:
            content.paste(photo(rng, style.width, style.height - self.bar), (0, self.bar))
        else:
            font = style.font(rng.choice((style.body, style.mono)), rng.choice((8, 9, 10, 12, 14)))
            step, y = round(sum(font.getmetrics()) * 1.3), self.bar + style.px(6)
            tints = [ink] if kind < 0.7 else [ink, *(style.accent(rng) for _ in range(3))]
            alphabet = style.alphabet if font.path == str(style.body) else "latin"
            while y < style.height:
                style.write(content, (style.px(8), y), sentence(rng, alphabet), font, rng.choice(tints))
                y += step
        return content

    def work(self) -> Iterator[None]:
        """What somebody does, frame by frame, without end."""
        while True:
            task = self.rng.choice((self._drag, self._drag, self._drag, self._resize, self._replace))
            yield from task()

    def _move(
        self, to: tuple[float, float], takes: int, window: _Window | None = None, resize: bool = False
    ) -> Iterator[None]:
        """The pointer, and the window it holds by the title or the corner."""
        start, held = self.at, (window.left, window.top, window.wide, window.tall) if window else (0, 0, 0, 0)
        for n in range(1, takes + 1):
            path = motion.ease(n / takes)
            self.at = (
                round(start[0] + (to[0] - start[0]) * path),
                round(start[1] + (to[1] - start[1]) * path),
            )
            dx, dy = self.at[0] - start[0], self.at[1] - start[1]
            if window is not None and resize:
                least = self.style.px(_SMALLEST)
                window.wide = min(self.style.width, max(least, held[2] + dx))
                window.tall = min(self.style.height, max(least, held[3] + dy))
            elif window is not None:
                window.left, window.top = held[0] + dx, held[1] + dy
            yield

    def _drag(self) -> Iterator[None]:
        window = self.rng.choice(self.windows)
        yield from self._move(
            (window.left + window.wide * 0.6, window.top + self.bar / 2), self.rng.randint(2, 6)
        )
        self.windows.remove(window)
        self.windows.append(window)
        for _ in range(self.rng.randint(1, 3)):
            to = (
                self.rng.uniform(0.1, 0.9) * self.style.width,
                self.rng.uniform(0.05, 0.7) * self.style.height,
            )
            yield from self._move(to, self.rng.randint(5, 18), window)

    def _resize(self) -> Iterator[None]:
        window = self.windows[-1]
        yield from self._move((window.left + window.wide, window.top + window.tall), self.rng.randint(2, 6))
        to = (self.at[0] + self.rng.uniform(-100, 100), self.at[1] + self.rng.uniform(-80, 80))
        yield from self._move(to, self.rng.randint(5, 14), window, resize=True)

    def _replace(self) -> Iterator[None]:
        """One window closes, another one opens."""
        yield from self._move((self.windows[-1].left, self.windows[-1].top), self.rng.randint(2, 6))
        self.windows.pop()
        yield from [None] * self.rng.randint(1, 4)
        self.windows.append(self._new())
        yield

    def picture(self) -> Image.Image:
        """As it is now."""
        picture, style = self.back.copy(), self.style
        for window in self.windows:
            box = (window.left, window.top, window.left + window.wide, window.top + window.tall)
            shadow(picture, box, style.px(6))
            mask = Image.new("RGB", (window.wide, window.tall))
            rounded(mask, style, (0, 0, window.wide, window.tall), self.radius, (255, 255, 255))
            picture.paste(window.content.crop((0, 0, window.wide, window.tall)), box[:2], mask.convert("L"))
            rounded(picture, style, box, self.radius, None, mixed((128, 128, 128), (0, 0, 0), 0.4))
        stamp(picture, self.arrow, self.at)
        return picture

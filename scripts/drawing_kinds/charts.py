"""Charts with axes and labels: bars, lines, areas, pies and points that grow or change."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator

from PIL import Image, ImageDraw

from . import motion
from .style import Colour, Style, mixed
from .words import word, words

# Of a share of growth (0..1) and a time in frames.
Chart = Callable[[float, int], Image.Image]


def charts(rng: random.Random, style: Style) -> Iterator[Image.Image]:
    """One chart, or several side by side; each grows at its own time and then changes."""
    across, down = rng.choice(((1, 1), (1, 1), (2, 1), (1, 2), (2, 2)))
    paper = style.paper(rng)
    gap = style.px(rng.choice((0, 4, 10)))
    size = ((style.width - gap * (across + 1)) // across, (style.height - gap * (down + 1)) // down)
    panels = []
    for number in range(across * down):
        at = (gap + number % across * (size[0] + gap), gap + number // across * (size[1] + gap))
        begin, takes = rng.uniform(-0.4, 0.6) * style.frames, rng.uniform(0.3, 1.2) * style.frames
        panels.append(
            (at, chart(rng, style, size, mixed(paper, style.ink(rng), rng.choice((0, 0.04)))), begin, takes)
        )
    for frame in range(style.frames):
        picture = Image.new("RGB", (style.width, style.height), paper)
        for at, draw, begin, takes in panels:
            picture.paste(draw(motion.ease_out((frame - begin) / takes), frame), at)
        yield picture


def chart(rng: random.Random, style: Style, size: tuple[int, int], paper: Colour) -> Chart:
    """Any chart of this size in pixels as drawn."""
    return rng.choice((_bars, _bars, _lines, _lines, _pie, _points))(rng, style, size, paper)


class _Axes:
    """The frame of a chart: title, axes, labels of ticks; and the box inside, where the data go."""

    def __init__(self, rng: random.Random, style: Style, size: tuple[int, int], paper: Colour) -> None:
        self.style, self.size, self.paper, self.ink = style, size, paper, style.ink(rng)
        self.small = style.font(style.body, rng.choice((8, 9, 10, 12)))
        self.large = style.font(style.heading, rng.choice((12, 14, 18, 22)))
        self.title = words(rng, rng.randint(1, 4), style.alphabet)
        self.colours = [style.accent(rng) for _ in range(8)]
        line = sum(self.small.getmetrics())
        top = sum(self.large.getmetrics()) + style.px(8)
        left = round(self.small.getlength("8888")) + style.px(8)
        self.box = (
            left,
            top,
            max(left + 16, size[0] - style.px(8)),
            max(top + 8, size[1] - line - style.px(8)),
        )
        self.ticks = rng.choice((2, 4, 5, 10))
        self.most = rng.choice((1, 10, 20, 50, 100, 800, 2000))
        self.grid = rng.random() < 0.7
        self.empty = self._empty()

    def _empty(self) -> Image.Image:
        style, (left, top, right, bottom) = self.style, self.box
        picture = Image.new("RGB", self.size, self.paper)
        self.title = style.fit(self.title, self.large, self.size[0] - style.px(8))
        style.write(picture, (self.size[0] / 2, style.px(4)), self.title, self.large, self.ink, anchor="ma")
        pen = ImageDraw.Draw(picture)
        for tick in range(self.ticks + 1):
            y = bottom - (bottom - top) * tick / self.ticks
            if self.grid:
                pen.line((left, y, right, y), fill=mixed(self.paper, self.ink, 0.15), width=style.px(0.7))
            label = f"{self.most * tick / self.ticks:.4g}"
            style.write(picture, (left - style.px(4), y), label, self.small, self.ink, anchor="rm")
        pen.line((left, top, left, bottom, right, bottom), fill=self.ink, width=style.px(1))
        return picture

    def sketch(self) -> tuple[Image.Image, ImageDraw.ImageDraw, int]:
        """The inside at a multiple of its size, to be drawn on and given to `finished`."""
        factor = self.style.smooth_factor()
        left, top, right, bottom = self.box
        inside = self.empty.crop(self.box).resize(
            ((right - left) * factor, (bottom - top) * factor), Image.Resampling.NEAREST
        )
        return inside, ImageDraw.Draw(inside), factor

    def finished(self, inside: Image.Image, factor: int) -> Image.Image:
        """The whole chart."""
        picture = self.empty.copy()
        picture.paste(inside.reduce(factor), self.box[:2])
        return picture

    def label_below(self, picture: Image.Image, x: float, text: str, room: float) -> None:
        """Centred at `x` under the axis, in a width of `room` pixels."""
        text = self.style.fit(text, self.small, room)
        self.style.write(
            picture, (x, self.box[3] + self.style.px(3)), text, self.small, self.ink, anchor="ma"
        )


def _bars(rng: random.Random, style: Style, size: tuple[int, int], paper: Colour) -> Chart:
    """Bars beside or upon one another; their heights change all the time in some charts."""
    axes = _Axes(rng, style, size, paper)
    count, series = rng.randint(3, 12), rng.choice((1, 1, 2, 3))
    stacked = rng.random() < 0.4
    heights = [
        [rng.uniform(0.1, 0.95) / (series if stacked else 1) for _ in range(series)] for _ in range(count)
    ]
    names = [word(rng, style.alphabet)[:6].capitalize() for _ in range(count)]
    sways = rng.choice((0.0, 0.1, 0.25))
    left, top, right, bottom = axes.box
    wide = (right - left) / count
    valued = rng.random() < 0.5 and not stacked and wide / series > axes.small.getlength("8888")

    def draw(grown: float, frame: int) -> Image.Image:
        inside, pen, factor = axes.sketch()
        tips = []
        for n, parts in enumerate(heights):
            base = 0.0
            for k, part in enumerate(parts):
                part *= grown * (1 + sways * math.sin(0.3 * frame + 2 * n + k))
                x0, x1 = (n + 0.15) * wide, (n + 0.85) * wide
                if not stacked:
                    x0, x1 = x0 + (x1 - x0) * k / series, x0 + (x1 - x0) * (k + 1) / series
                x1 = max(x0, x1 - 1)
                y0, y1 = (1 - base - part) * (bottom - top), (1 - base) * (bottom - top)
                tips.append((left + (x0 + x1) / 2, top + y0, part))
                pen.rectangle(tuple(round(v * factor) for v in (x0, y0, x1, y1)), fill=axes.colours[k])
                base += part if stacked else 0
        picture = axes.finished(inside, factor)
        for n, name in enumerate(names):
            axes.label_below(picture, left + (n + 0.5) * wide, name, wide * 0.95)
        if valued:
            for x, y, part in tips:
                line = y - sum(axes.small.getmetrics())
                style.write(
                    picture,
                    (x, line),
                    f"{axes.most * part:.{3 if axes.most == 1 else 0}f}"[:4],
                    axes.small,
                    axes.ink,
                    anchor="ma",
                )
        return picture

    return draw


def _lines(rng: random.Random, style: Style, size: tuple[int, int], paper: Colour) -> Chart:
    """Lines that are drawn from left to right, or run on like a heart monitor's."""
    axes = _Axes(rng, style, size, paper)
    count, points = rng.randint(1, 4), rng.choice((8, 20, 60))
    live, marked, filled = rng.random() < 0.4, points < 20, rng.random() < 0.3
    width = rng.choice((1, 1.5, 2, 3))
    curves = []
    for _ in range(count):
        value, curve = rng.uniform(0.2, 0.8), []
        for _ in range(points + style.frames):
            value = min(0.97, max(0.03, value + rng.gauss(0, 0.6 / points**0.5)))
            curve.append(value)
        curves.append(curve)
    left, _, right, _ = axes.box

    def draw(grown: float, frame: int) -> Image.Image:
        inside, pen, factor = axes.sketch()
        high = inside.height
        first = frame if live else 0
        shown = points if live else max(2, round(grown * points))
        for curve, colour in zip(curves, axes.colours, strict=False):
            line = [
                (n / (points - 1) * inside.width, (1 - value) * high)
                for n, value in enumerate(curve[first : first + shown])
            ]
            if filled:
                pen.polygon([(line[0][0], high), *line, (line[-1][0], high)], fill=mixed(paper, colour, 0.3))
            pen.line(line, fill=colour, width=max(1, style.px(width) * factor), joint="curve")
            if marked:
                r = style.px(3) * factor
                for x, y in line:
                    pen.ellipse((x - r, y - r, x + r, y + r), fill=colour)
        picture = axes.finished(inside, factor)
        for n in range(5):
            axes.label_below(
                picture, left + (right - left) * n / 4.2, str(n * points // 4 + first), (right - left) / 5
            )
        return picture

    return draw


def _pie(rng: random.Random, style: Style, size: tuple[int, int], paper: Colour) -> Chart:
    """A pie or ring that opens, with a legend."""
    axes = _Axes(rng, style, size, paper)
    shares = [rng.uniform(0.3, 2) for _ in range(rng.randint(2, 7))]
    names = [word(rng, style.alphabet).capitalize() for _ in shares]
    hole = rng.choice((0, 0, 0.5, 0.7))
    side = max(8, min(axes.box[2] - axes.box[0], axes.box[3] - axes.box[1]))
    begin = rng.uniform(0, 360)

    def draw(grown: float, frame: int) -> Image.Image:
        factor = style.smooth_factor()
        picture = Image.new("RGB", size, paper)
        disc = Image.new("RGB", (side * factor, side * factor), paper)
        pen, angle = ImageDraw.Draw(disc), begin
        for share, colour in zip(shares, axes.colours, strict=False):
            turn = 360 * grown * share / sum(shares)
            if turn > 0:
                pen.pieslice(
                    (0, 0, disc.width - 1, disc.height - 1), angle, angle + turn, fill=colour, outline=paper
                )
            angle += turn
        middle, inner = disc.width / 2, disc.width / 2 * hole
        pen.ellipse((middle - inner, middle - inner, middle + inner, middle + inner), fill=paper)
        picture.paste(disc.reduce(factor), (style.px(6), axes.box[1]))
        style.write(picture, (style.px(6), style.px(4)), axes.title, axes.large, axes.ink)
        line = sum(axes.small.getmetrics())
        for n, (name, share) in enumerate(zip(names, shares, strict=True)):
            x, y = side + style.px(18), axes.box[1] + n * round(line * 1.4)
            box = (x, y, x + line - style.px(4), y + line - style.px(4))
            ImageDraw.Draw(picture).rectangle(box, fill=axes.colours[n])
            label = f"{name} {100 * share / sum(shares) * grown:.0f}%"
            style.write(picture, (x + line, y - style.px(2)), label, axes.small, axes.ink)
        return picture

    return draw


def _points(rng: random.Random, style: Style, size: tuple[int, int], paper: Colour) -> Chart:
    """Points that appear one by one, some of which drift."""
    axes = _Axes(rng, style, size, paper)
    drift = rng.choice((0.0, 0.004))
    spread = rng.uniform(0.05, 0.4)
    points = []
    for _ in range(rng.choice((20, 60, 200))):
        x = rng.random()
        points.append(
            (
                x,
                min(0.97, max(0.03, rng.gauss(0.2 + 0.6 * x, spread))),
                rng.choice((1.5, 2, 3, 5)),
                rng.randrange(3),
            )
        )

    def draw(grown: float, frame: int) -> Image.Image:
        inside, pen, factor = axes.sketch()
        for n, (x, y, radius, group) in enumerate(points[: max(1, round(grown * len(points)))]):
            x += drift * frame * math.cos(n)
            y += drift * frame * math.sin(n)
            at, r = (x * inside.width, (1 - y) * inside.height), style.px(radius) * factor
            pen.ellipse((at[0] - r, at[1] - r, at[0] + r, at[1] + r), fill=axes.colours[group])
        picture = axes.finished(inside, factor)
        wide = axes.box[2] - axes.box[0]
        for n in range(5):
            axes.label_below(picture, axes.box[0] + wide * n / 4.2, f"{n * 0.25:g}", wide / 5)
        return picture

    return draw

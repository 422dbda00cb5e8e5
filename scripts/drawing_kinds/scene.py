"""Moving text, icons and panels on a plain or shaded ground, as in titles and logos; motion is finer than a pixel."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator

from PIL import Image, ImageDraw

from .shapes import icon, ramp
from .style import Colour, Font, Style, bright, load, shade, vivid
from .words import words

_FINER = 2  # drawn at this many times the size

# time 0..1 -> x, y, scale, degrees, opacity
Place = Callable[[float], tuple[float, float, float, float, float]]


def scene(rng: random.Random, style: Style) -> Iterator[Image.Image]:
    """A ground and a few layers that stand, glide, ease to a stop, grow, turn, fade in or pop up."""
    wide, tall = style.width * _FINER, style.height * _FINER
    back = _ground(rng, wide, tall)
    side = min(wide, tall)
    count = rng.randint(3, 8)
    layers = [(_layer(rng, style, side), _place(rng, wide, tall, moves=n == 0)) for n in range(count)]
    for frame in range(style.frames):
        picture = back.copy()
        for drawn, where in layers:
            x, y, scale, turn, opacity = where(frame / (style.frames - 1))
            size = (max(1, round(drawn.width * scale)), max(1, round(drawn.height * scale)))
            shown = drawn.resize(size) if size != drawn.size else drawn
            shown = shown.rotate(turn, Image.Resampling.BILINEAR, expand=True) if turn else shown
            mask = shown.getchannel("A").point([int(a * opacity) for a in range(256)])
            at = (round(x - shown.width / 2), round(y - shown.height / 2))
            picture.paste(shown.convert("RGB"), at, mask)
        yield picture.reduce(_FINER)


def _ground(rng: random.Random, wide: int, tall: int) -> Image.Image:
    """Plain, shaded from one colour to another, or with a faint pattern of icons."""
    first = rng.choice((vivid, lambda r: shade(r, 0, 40), lambda r: shade(r, 215, 255)))(rng)
    if rng.random() < 0.4:
        return Image.new("RGB", (wide, tall), first)
    red, green, blue = (min(255, max(0, c + rng.randint(-60, 60))) for c in first)
    picture = Image.fromarray(ramp(rng, wide, tall, first, (red, green, blue)).astype("uint8"))
    if rng.random() < 0.4:
        size, tint = rng.randint(15, 40) * _FINER, rng.uniform(0.04, 0.3)
        faint = [int(a * tint) for a in range(256)]
        for top in range(0, tall, int(size * 1.5)):
            for left in range(0, wide, int(size * 1.5)):
                mark = icon(rng, size)
                picture.paste(mark.convert("RGB"), (left, top), mark.getchannel("A").point(faint))
    return picture


def _layer(rng: random.Random, style: Style, side: int) -> Image.Image:
    """Text, an icon, or a panel with both, on transparent ground."""
    kind = rng.random()
    if kind < 0.5:
        size = int(side * rng.choice((0.03, 0.05, 0.08, 0.15, 0.3)))
        return _text(
            words(rng, rng.randint(1, 3), style.alphabet), load(style.heading, max(12, size)), bright(rng)
        )
    if kind < 0.85:
        return icon(rng, int(side * rng.uniform(0.05, 0.5)))
    size_x, size_y = int(side * rng.uniform(0.2, 0.8)), int(side * rng.uniform(0.1, 0.5))
    panel = Image.new("RGBA", (size_x, size_y), (0, 0, 0, 0))
    ImageDraw.Draw(panel).rounded_rectangle(
        (0, 0, size_x - 1, size_y - 1), rng.choice((0, 8, 24)), fill=(*bright(rng), 255)
    )
    inside = _text(words(rng, 2, style.alphabet), load(style.body, max(8, size_y // 4)), bright(rng))
    panel.paste(inside, (size_y // 6, size_y // 3), inside)
    return panel


def _text(line: str, font: Font, colour: Colour) -> Image.Image:
    left, top, right, bottom = font.getbbox(line)
    picture = Image.new("RGBA", (int(right - left) + 4, int(bottom - top) + 4), (0, 0, 0, 0))
    ImageDraw.Draw(picture).text((2 - left, 2 - top), line, font=font, fill=(*colour, 255))
    return picture


def _place(rng: random.Random, wide: int, tall: int, *, moves: bool) -> Place:
    """Where a layer is over time; with `moves` it does not stand."""
    x0, y0 = rng.uniform(0, wide), rng.uniform(0, tall)
    far = min(wide, tall) * rng.choice((0.1, 0.3) if moves else (0.0, 0.02, 0.1, 0.3, 1.0))
    angle = rng.uniform(0, 2 * math.pi) if rng.random() < 0.5 else rng.randrange(4) * math.pi / 2
    dx, dy = far * math.cos(angle), far * math.sin(angle)
    grows = rng.choice((0.0, 0.0, 0.0, 0.1, 0.6, -0.4))
    turns = rng.choice((0.0, 0.0, 0.0, 0.0, 20.0, 180.0))
    fades = rng.random() < 0.25
    begin = rng.choice((0.0, 0.0, rng.random() * 0.7))
    takes = rng.uniform(0.15, 1.0)
    eases = rng.random() < 0.6

    def at(time: float) -> tuple[float, float, float, float, float]:
        path = min(1.0, max(0.0, (time - begin) / takes))
        path = 1 - (1 - path) ** 3 if eases else path
        opacity = path if fades else float(time >= begin)
        return x0 + dx * path, y0 + dy * path, 1 + grows * path, turns * path, opacity

    return at

"""A talk: slides with titles, bullets, charts, pictures and formulas; cuts, fades and pushes between them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice

from PIL import Image, ImageDraw

from . import motion
from .charts import chart
from .shapes import photo, ramp, rounded, smooth_icon, stamp
from .style import Style, characters, load, mixed
from .words import words

_MAX_SYMBOL = 0x1D7FF  # code points that formulas are put together from


def slides(rng: random.Random, style: Style) -> Iterator[Image.Image]:
    """Slide after slide: each builds up, stands for a while, and gives way to the next."""
    yield from islice(_talk(rng, style), style.frames)


def _talk(rng: random.Random, style: Style) -> Iterator[Image.Image]:
    ground = _ground(rng, style)
    look = _Look(rng, style)
    last: Image.Image | None = None
    while True:
        slide = list(_slide(rng, style, look, ground))
        if last is not None:
            yield from _change(rng, last, slide[0])
        yield from slide
        last = slide[-1]


class _Look:
    """What all slides of a talk have in common."""

    def __init__(self, rng: random.Random, style: Style) -> None:
        self.title = style.font(style.heading, rng.choice((18, 22, 26, 32, 40)))
        self.text = style.font(style.body, rng.choice((10, 12, 14, 16, 20)))
        self.small = style.font(style.body, 9)
        self.ink, self.accent = style.ink(rng), style.accent(rng)
        self.bullet = rng.choice(("-", "*", "1.", ""))
        self.band = rng.random() < 0.4
        self.footer = words(rng, 3, style.alphabet)


def _ground(rng: random.Random, style: Style) -> Image.Image:
    """Plain, or shaded from one colour to another."""
    first = style.paper(rng)
    if rng.random() < 0.5:
        return Image.new("RGB", (style.width, style.height), first)
    second = mixed(first, style.accent(rng), rng.uniform(0.05, 0.35))
    return Image.fromarray(ramp(rng, style.width, style.height, first, second).astype("uint8"))


def _slide(rng: random.Random, style: Style, look: _Look, ground: Image.Image) -> Iterator[Image.Image]:
    """A slide while it builds up and stands."""
    base = ground.copy()
    edge = style.px(14)
    line = sum(look.title.getmetrics())
    if look.band:
        ImageDraw.Draw(base).rectangle((0, 0, style.width, line + style.px(12)), fill=look.accent)
    tint = look.accent if not look.band else style.paper(rng)
    style.write(base, (edge, style.px(6)), words(rng, rng.randint(2, 4), style.alphabet), look.title, tint)
    style.write(
        base, (edge, style.height - style.px(16)), look.footer, look.small, mixed(look.ink, look.accent, 0.5)
    )
    top = min(line + style.px(20), style.height // 2)
    size = (max(40, style.width - 2 * edge), max(40, style.height - top - style.px(22)))
    yield base
    content = rng.choice((_bullets, _bullets, _chart, _picture, _formula, _boxes))
    yield from content(rng, style, look, base, (edge, top), size)


def _stand(rng: random.Random, picture: Image.Image) -> Iterator[Image.Image]:
    yield from [picture] * rng.randint(2, 10)


def _bullets(
    rng: random.Random,
    style: Style,
    look: _Look,
    base: Image.Image,
    at: tuple[int, int],
    size: tuple[int, int],
) -> Iterator[Image.Image]:
    """Lines that appear one after another, at once or fading in."""
    step = round(sum(look.text.getmetrics()) * rng.uniform(1.2, 1.8))
    fades = rng.choice((1, 1, 4, 8))
    picture = base
    count = max(1, min(rng.randint(3, 12), size[1] // step))
    there = rng.randrange(count)  # lines that are there from the start
    for number in range(count):
        after = picture.copy()
        indent = style.px(rng.choice((0, 0, 0, 14)))
        line = f"{look.bullet} {words(rng, rng.randint(3, 9), style.alphabet)}"
        style.write(after, (at[0] + indent, at[1] + number * step), line, look.text, look.ink)
        for n in range(1, fades + 1 if number >= there else 1):
            yield Image.blend(picture, after, n / fades)
        picture = after
        if number >= there:
            yield from _stand(rng, picture)


def _chart(
    rng: random.Random,
    style: Style,
    look: _Look,
    base: Image.Image,
    at: tuple[int, int],
    size: tuple[int, int],
) -> Iterator[Image.Image]:
    draw, takes = chart(rng, style, size, base.getpixel((at[0], at[1]))), rng.randint(4, 16)  # type: ignore[arg-type]
    for frame in range(takes + rng.randint(2, 8)):
        picture = base.copy()
        picture.paste(draw(motion.ease_out((frame + 1) / takes), frame), at)
        yield picture


def _picture(
    rng: random.Random,
    style: Style,
    look: _Look,
    base: Image.Image,
    at: tuple[int, int],
    size: tuple[int, int],
) -> Iterator[Image.Image]:
    """A picture with a caption; some grow slowly."""
    size = (size[0], size[1] - style.px(12))
    shown = photo(rng, size[0], size[1])
    grows = rng.choice((0.0, 0.003, 0.008))
    caption = words(rng, 4, style.alphabet)
    for frame in range(rng.randint(8, 20)):
        picture = base.copy()
        cut_x, cut_y = (size[0] * grows * frame / 2, size[1] * grows * frame / 2)
        box = (cut_x, cut_y, size[0] - cut_x, size[1] - cut_y)
        picture.paste(shown.resize(size, Image.Resampling.BICUBIC, box=box) if grows else shown, at)
        style.write(
            picture,
            (at[0] + size[0] / 2, at[1] + size[1] + style.px(2)),
            caption,
            look.small,
            look.ink,
            anchor="ma",
        )
        yield picture


def _formula(
    rng: random.Random,
    style: Style,
    look: _Look,
    base: Image.Image,
    at: tuple[int, int],
    size: tuple[int, int],
) -> Iterator[Image.Image]:
    """Signs of fonts for mathematics, in lines that appear one by one."""
    picture, tall = base.copy(), style.px(rng.randint(14, 34))
    step = round(tall * 1.8)
    pen = ImageDraw.Draw(picture)
    pen.fontmode = "1" if style.smoothing == "none" else "L"
    for middle in range(at[1] + step // 2, at[1] + size[1] - step // 2, step):
        x = at[0] + style.px(rng.randint(0, 40))
        while x < at[0] + size[0] * rng.uniform(0.5, 1):
            path = rng.choice((*style.fonts.symbols, style.body, style.body))
            font = load(path, tall)
            sign = chr(rng.choice([c for c in sorted(characters(path)) if 32 < c < _MAX_SYMBOL]))
            left, top, right, bottom = font.getbbox(sign)
            if 0 < bottom - top < step:
                y = middle - (top + bottom) / 2
                pen.text((round(x - left), round(y)), sign, font=font, fill=look.ink)
                x += round(right - left) + style.px(3)
        yield from _stand(rng, picture.copy())


def _boxes(
    rng: random.Random,
    style: Style,
    look: _Look,
    base: Image.Image,
    at: tuple[int, int],
    size: tuple[int, int],
) -> Iterator[Image.Image]:
    """A diagram: boxes with words and icons, joined by lines, one after another."""
    picture, count = base.copy(), rng.randint(2, 4)
    wide, tall = size[0] // count - style.px(12), min(size[1], style.px(rng.randint(40, 100)))
    middle = at[1] + size[1] // 2
    for number in range(count):
        x = at[0] + number * (wide + style.px(12))
        fill = mixed(style.paper(rng), style.accent(rng), rng.uniform(0.1, 0.9))
        if number:
            ImageDraw.Draw(picture).line(
                (x - style.px(12), middle, x, middle), fill=look.ink, width=style.px(1.5)
            )
        rounded(
            picture,
            style,
            (x, middle - tall / 2, x + wide, middle + tall / 2),
            style.px(rng.choice((0, 4, 10))),
            fill,
            look.ink,
        )
        stamp(
            picture, smooth_icon(rng, style, style.px(18)), (x + style.px(6), middle - tall / 2 + style.px(6))
        )
        style.write(
            picture, (x + wide / 2, middle), words(rng, 1, style.alphabet), look.text, look.ink, anchor="ma"
        )
        yield from _stand(rng, picture.copy())


def _change(rng: random.Random, before: Image.Image, after: Image.Image) -> Iterator[Image.Image]:
    """Nothing (a cut), a fade, a fade through black, a push or a wipe."""
    kind, takes = (
        rng.choice(("cut", "cut", "cut", "fade", "fade", "black", "push", "wipe")),
        rng.randint(4, 14),
    )
    wide, tall = before.size
    for n in range(1, takes if kind != "cut" else 0):
        path = motion.ease(n / takes)
        if kind == "fade":
            yield Image.blend(before, after, path)
        elif kind == "black":
            black = Image.new("RGB", before.size)
            yield (
                Image.blend(before, black, 2 * path)
                if path < 0.5
                else Image.blend(black, after, 2 * path - 1)
            )
        else:
            picture, edge = before.copy(), round(wide * path)
            if kind == "push":
                picture.paste(before, (-edge, 0))
                picture.paste(after, (wide - edge, 0))
            else:
                picture.paste(after.crop((0, 0, edge, tall)), (0, 0))
            yield picture

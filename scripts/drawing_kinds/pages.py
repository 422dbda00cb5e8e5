"""Pages that scroll: an article under a fixed header, and a web page with pictures, cards and buttons."""

from __future__ import annotations

import random
from collections.abc import Iterator

from PIL import Image, ImageDraw

from . import motion
from .shapes import photo, rounded, smooth_icon, stamp
from .style import Colour, Font, Style, mixed
from .words import number, sentence, word, words

_PAGES = 3.2  # heights of the window that a page has


def scrolling(rng: random.Random, style: Style) -> Iterator[Image.Image]:
    """An article: headings, paragraphs, quotes, pictures, tables."""
    page = _article(rng, style)
    yield from _scroll(rng, style, page, _header(rng, style) if rng.random() < 0.7 else None)


def webpage(rng: random.Random, style: Style) -> Iterator[Image.Image]:
    """Cards with pictures, some of which load late; a menu that opens; buttons that light up; scrolled or not."""
    page, cards = _shop(rng, style)
    header = _header(rng, style)
    reach = page.height - style.height + header.height
    tops = (
        motion.scrolled(rng, style.frames, reach)
        if rng.random() < 0.6
        else [rng.randint(0, reach)] * style.frames
    )
    late = [(box, picture, rng.randint(-2 * style.frames, style.frames)) for box, picture in cards]
    lit = {frame: rng.randrange(len(cards)) for frame in range(0, style.frames, rng.randint(4, 10))}
    edge, now = style.accent(rng), 0
    for frame, top in enumerate(tops):
        for box, picture, begin in late:
            if begin == frame or (frame == 0 and begin < 0):
                page.paste(picture, box[:2])
        picture = page.crop((0, top - header.height, style.width, top - header.height + style.height))
        now = lit.get(frame, now)
        left, above, right, below = late[now][0]
        y = header.height - top
        ImageDraw.Draw(picture).rectangle(
            (left, above + y, right, below + y), outline=edge, width=style.px(2)
        )
        picture.paste(header, (0, 0))
        yield picture


def _scroll(
    rng: random.Random, style: Style, page: Image.Image, header: Image.Image | None
) -> Iterator[Image.Image]:
    """The page behind the window, with a bar at the right that shows how far it is scrolled."""
    reach = max(1, page.height - style.height)
    bar, tint = style.px(rng.choice((0, 4, 8))), mixed(style.paper(rng), style.ink(rng), 0.5)
    for top in motion.scrolled(rng, style.frames, reach):
        picture = page.crop((0, top, style.width, top + style.height))
        if header is not None:
            picture.paste(header, (0, 0))
        if bar:
            y, tall = top / page.height * style.height, style.height**2 / page.height
            rounded(picture, style, (style.width - bar, y, style.width, y + tall), bar / 2, tint)
        yield picture


def _header(rng: random.Random, style: Style) -> Image.Image:
    """A bar with a mark, a name, words to click on and a field."""
    tall = style.px(rng.choice((24, 32, 44)))
    ground = rng.choice((style.paper(rng), style.accent(rng)))
    picture = Image.new("RGB", (style.width, tall), ground)
    ink: Colour = (0, 0, 0) if sum(ground) > 382 else (255, 255, 255)
    side = tall // 2
    stamp(picture, smooth_icon(rng, style, side, mixed(ground, ink, 0.8)), (style.px(8), tall // 4))
    large, small = style.font(style.heading, 14), style.font(style.body, 10)
    x = style.px(14) + side
    name = words(rng, 1, style.alphabet)
    style.write(picture, (x, tall / 2), name, large, ink, anchor="lm")
    x += round(large.getlength(name)) + style.px(16)
    while True:
        link = word(rng, style.alphabet).capitalize()
        after = x + round(small.getlength(link)) + style.px(14)
        if after > style.width * 0.8:
            break
        style.write(picture, (x, tall / 2), link, small, ink, anchor="lm")
        x = after
    box = (style.width * 0.78, tall * 0.22, style.width - style.px(8), tall * 0.78)
    rounded(picture, style, box, style.px(6), mixed(ground, ink, 0.12), mixed(ground, ink, 0.4))
    ImageDraw.Draw(picture).line((0, tall - 1, style.width, tall - 1), fill=mixed(ground, ink, 0.2))
    return picture


def _article(rng: random.Random, style: Style) -> Image.Image:
    paper, ink, accent = style.paper(rng), style.ink(rng), style.accent(rng)
    page = Image.new("RGB", (style.width, round(style.height * _PAGES)), paper)
    text = style.font(style.body, rng.choice((8, 9, 9, 10, 10, 11, 12, 13, 14, 18)))
    large = style.font(style.heading, text.size / style.zoom * rng.uniform(1.3, 2))
    code = style.font(style.mono, text.size / style.zoom * 0.9)
    left = round(style.width * rng.choice((0.03, 0.08, 0.15)))
    wide = style.width - 2 * left
    step = round(sum(text.getmetrics()) * rng.uniform(1.05, 1.6))
    y = style.px(40)
    while y < page.height:
        kind = rng.random()
        if kind < 0.15:
            style.write(
                page,
                (left, y),
                words(rng, rng.randint(2, 5), style.alphabet),
                large,
                rng.choice((ink, accent)),
            )
            y += round(sum(large.getmetrics()) * 1.3)
        elif kind < 0.25:
            tall = min(style.px(rng.randint(60, 160)), page.height)
            page.paste(photo(rng, wide, tall), (left, y))
            y += tall + step // 2
        elif kind < 0.35:
            y = _table(rng, style, page, (left, y), wide, text, ink)
        elif kind < 0.45:
            lines = rng.randint(2, 6)
            box = (left, y, left + wide, y + (lines + 1) * step)
            rounded(page, style, box, style.px(4), mixed(paper, ink, 0.08))
            for number in range(lines):
                line = sentence(rng, style.alphabet if style.mono == style.body else "latin")
                line = line[: int(wide / code.getlength("0")) - 3]
                style.write(page, (left + style.px(6), y + step // 2 + number * step), line, code, accent)
            y += (lines + 2) * step
        else:
            bullets = rng.random() < 0.2
            y = (
                _paragraph(rng, style, page, (left, y), wide, text, step, ink, accent, bullets=bullets)
                + step // 2
            )
    return page


def _paragraph(
    rng: random.Random,
    style: Style,
    page: Image.Image,
    at: tuple[int, int],
    wide: int,
    font: Font,
    step: int,
    ink: Colour,
    link: Colour,
    *,
    bullets: bool,
) -> int:
    """Words in lines; some are links. Returns where it ends."""
    x, y = at
    for said in range(rng.randint(1, 5)):
        if bullets or not said:
            x, y = at[0], y + step * (said > 0)
            pieces = ["-"] if bullets else []
        else:
            pieces = []
        pieces += sentence(rng, style.alphabet).split()
        for piece in pieces:
            long = font.getlength(piece + " ")
            if x + long > at[0] + wide:
                x, y = at[0], y + step
            linked = rng.random() < 0.06
            style.write(page, (x, y), piece, font, link if linked else ink)
            if linked:
                under = y + sum(font.getmetrics())
                ImageDraw.Draw(page).line(
                    (x, under, x + font.getlength(piece), under), fill=link, width=style.px(0.8)
                )
            x += round(long)
    return y + step


def _table(
    rng: random.Random,
    style: Style,
    page: Image.Image,
    at: tuple[int, int],
    wide: int,
    font: Font,
    ink: Colour,
) -> int:
    """Numbers between lines. Returns where it ends."""
    columns, tall = rng.randint(2, 5), round(sum(font.getmetrics()) * 1.5)
    pen, faint = ImageDraw.Draw(page), mixed(style.paper(rng), ink, 0.3)
    rows = rng.randint(3, 7)
    for row in range(rows):
        y = at[1] + row * tall
        pen.line((at[0], y, at[0] + wide, y), fill=faint, width=style.px(0.7))
        for column in range(columns):
            text = word(rng, style.alphabet) if row == 0 or column == 0 else number(rng)
            text = style.fit(text, font, wide / columns - style.px(6))
            place = (at[0] + column * wide / columns + style.px(4), y + tall / 2)
            style.write(page, place, text, font, ink, anchor="lm")
    return at[1] + (rows + 1) * tall


def _shop(
    rng: random.Random, style: Style
) -> tuple[Image.Image, list[tuple[tuple[int, int, int, int], Image.Image]]]:
    """A page of cards whose pictures are still missing; and the boxes and pictures."""
    paper, ink, accent = style.paper(rng), style.ink(rng), style.accent(rng)
    page = Image.new("RGB", (style.width, round(style.height * 2.2)), paper)
    gap = style.px(rng.choice((4, 8, 14)))
    columns = min(rng.randint(1, 4), max(1, style.width // style.px(60)))
    wide = (style.width - gap * (columns + 1)) // columns
    tall = round(wide * rng.choice((0.6, 0.75, 1.0))) if columns > 1 else style.height // 2
    small, large = (
        style.font(style.body, rng.choice((8, 9, 10, 12))),
        style.font(style.heading, rng.choice((11, 13, 15))),
    )
    under = sum(small.getmetrics()) + sum(large.getmetrics()) + style.px(30)
    radius, grey = style.px(rng.choice((0, 4, 10))), mixed(paper, ink, 0.12)
    if rng.random() < 0.5:
        page.paste(photo(rng, style.width, style.height // 3), (0, 0))
        y = style.height // 3 + gap
    else:
        y = gap
    cards = []
    while y < page.height:
        for column in range(columns):
            x = gap + column * (wide + gap)
            rounded(page, style, (x, y, x + wide, y + tall + under), radius, mixed(paper, ink, 0.04), grey)
            page.paste(grey, (x, y, x + wide, y + tall))
            cards.append(((x, y, x + wide, y + tall), photo(rng, wide, tall)))
            below = y + tall + style.px(4)
            title = style.fit(words(rng, 2, style.alphabet), large, wide - style.px(8))
            style.write(page, (x + style.px(5), below), title, large, ink)
            below += sum(large.getmetrics()) + style.px(2)
            price = style.fit(number(rng), small, wide - style.px(8))
            style.write(page, (x + style.px(5), below), price, small, mixed(ink, paper, 0.3))
            below += sum(small.getmetrics()) + style.px(3)
            button = (x + style.px(5), below, x + min(wide - style.px(5), style.px(60)), below + style.px(16))
            rounded(page, style, button, style.px(4), accent)
            middle = ((button[0] + button[2]) / 2, below + style.px(8))
            label = style.fit(
                word(rng, style.alphabet).capitalize(), small, button[2] - button[0] - style.px(6)
            )
            style.write(page, middle, label, small, paper, anchor="mm")
        y += tall + under + gap
    return page, cards

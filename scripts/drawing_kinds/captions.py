"""Letters over video: captions, titles and tickers above a natural picture that moves on its own."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import islice

import av
import numpy as np
from PIL import Image, ImageDraw

from . import motion
from .shapes import clouds, photo
from .style import Colour, Font, Style, mixed, shade, vivid
from .words import sentence, word, words

_ROOM = 1.5  # the surface that moves is this many times as large as the picture
Layer = Callable[[Image.Image, int], None]  # draws on a frame, whose number is given


def captions(rng: random.Random, style: Style) -> Iterator[Image.Image]:
    """Yields the pictures of the clip."""
    below = _film(rng, style) if style.backgrounds else _surface(rng, style)
    layers = rng.sample((_subtitles, _lower_third, _ticker, _clock, _big_title), rng.choice((1, 1, 2, 3)))
    if rng.random() < 0.7 and _subtitles not in layers:
        layers[0] = _subtitles
    drawn = [layer(rng, style) for layer in layers]
    for frame, picture in enumerate(islice(below, style.frames)):
        for draw in drawn:
            draw(picture, frame)
        yield picture


def _film(rng: random.Random, style: Style) -> Iterator[Image.Image]:
    """A clip of the folder of backgrounds from some frame on, cut to the picture; it is repeated if it ends."""
    path = rng.choice(style.backgrounds)
    pictures: list[Image.Image] = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        first = rng.randint(0, max(0, (stream.frames or 0) - style.frames))
        for frame in islice(container.decode(stream), first, first + style.frames):
            scale = max(style.width / frame.width, style.height / frame.height)
            size = (
                max(style.width, round(frame.width * scale)),
                max(style.height, round(frame.height * scale)),
            )
            left, top = (size[0] - style.width) // 2, (size[1] - style.height) // 2
            whole = Image.fromarray(frame.to_ndarray(format="rgb24")).resize(size, Image.Resampling.BICUBIC)
            pictures.append(whole.crop((left, top, left + style.width, top + style.height)))
    if not pictures:
        raise ValueError(f"{path} has no frames")
    while True:
        yield from (picture.copy() for picture in pictures)


def _surface(rng: random.Random, style: Style) -> Iterator[Image.Image]:
    """Noise like a natural surface under a moving camera, with something that moves before it, and grain."""
    wide, tall = round(style.width * _ROOM), round(style.height * _ROOM)
    if rng.random() < 0.4:
        ground = np.asarray(photo(rng, wide, tall)).astype(float)
    else:
        ground = _coloured(rng, wide, tall)
    back = Image.fromarray(ground.astype(np.uint8))
    front = Image.fromarray(_coloured(rng, wide, tall).astype(np.uint8))
    shape = clouds(rng, wide, tall, 2.5)
    mask = Image.fromarray((np.clip((shape - 0.65) * 12, 0, 1) * 255).astype(np.uint8))
    moves_front = rng.random() < 0.6
    camera, other = _drift(rng, style), _drift(rng, style)
    grain, level = np.random.default_rng(rng.getrandbits(64)), rng.choice((0, 1.5, 3, 6))
    frame = 0
    while True:
        picture = _moved(back, camera(frame), style)
        if moves_front:
            picture.paste(_moved(front, other(frame), style), (0, 0), _moved(mask, other(frame), style))
        if level:
            noise = grain.normal(0, level, (style.height, style.width, 1))
            picture = Image.fromarray(np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8))
        yield picture
        frame += 1


def _coloured(rng: random.Random, wide: int, tall: int) -> np.ndarray:
    """(tall, wide, 3) 0..255: noise that is mostly brightness and a little colour."""
    light = clouds(rng, wide, tall, rng.uniform(0.9, 1.8))[..., None]
    tint = clouds(rng, wide, tall, rng.uniform(1.5, 2.5))[..., None]
    first, second = (
        np.array(mixed(vivid(rng), shade(rng, 30, 220), rng.uniform(0.3, 0.9))) for _ in range(2)
    )
    depth = rng.uniform(0.3, 0.9)
    return np.asarray((first * tint + second * (1 - tint)) * (1 - depth + depth * light))


def _drift(rng: random.Random, style: Style) -> Callable[[int], tuple[float, float, float]]:
    """Left, top (pixels) and scale of what is seen over time: still, steady, swaying, closing in."""
    free_x, free_y = style.width * (_ROOM - 1), style.height * (_ROOM - 1)
    x, y = rng.uniform(0.3, 0.7) * free_x, rng.uniform(0.3, 0.7) * free_y
    speed = rng.choice((0, 0.5, 1.5, 4, 8))
    dx, dy = rng.uniform(-speed, speed), rng.uniform(-speed, speed) / 2
    sway, pace = rng.choice((0, 0, 2.0, 5.0)), rng.uniform(0.1, 0.5)
    closer = rng.choice((0, 0, 0.002, -0.002))

    def at(frame: int) -> tuple[float, float, float]:
        scale = 1 - closer * frame
        left = x + dx * frame + sway * np.sin(pace * frame)
        top = y + dy * frame + sway * np.cos(1.3 * pace * frame)
        return (
            float(np.clip(left, 0, free_x)),
            float(np.clip(top, 0, free_y)),
            min(_ROOM - 0.01, max(0.5, scale)),
        )

    return at


def _moved(surface: Image.Image, place: tuple[float, float, float], style: Style) -> Image.Image:
    left, top, scale = place
    right, bottom = (
        min(surface.width, left + style.width * scale),
        min(surface.height, top + style.height * scale),
    )
    return surface.resize(
        (style.width, style.height), Image.Resampling.BICUBIC, box=(left, top, right, bottom)
    )


def _outlined(
    style: Style,
    picture: Image.Image,
    at: tuple[float, float],
    line: str,
    font: Font,
    colour: Colour,
    edge: int,
) -> None:
    """Text with a dark rim, centred."""
    pen = ImageDraw.Draw(picture)
    pen.fontmode = "1" if style.smoothing == "none" else "L"
    place = (round(at[0] - font.getlength(line) / 2), round(at[1]))
    pen.text(place, line, font=font, fill=colour, stroke_width=edge, stroke_fill=(0, 0, 0))


def _shade(
    picture: Image.Image, box: tuple[float, float, float, float], colour: Colour, opacity: float
) -> None:
    left, top, right, bottom = (round(side) for side in box)
    if right > left and bottom > top:
        mask = Image.new("L", (right - left, bottom - top), round(255 * opacity))
        picture.paste(colour, (left, top, right, bottom), mask)


def _subtitles(rng: random.Random, style: Style) -> Layer:
    """One or two lines at the bottom, boxed or with a rim; new words come at once, or one is lit up after another."""
    font = style.font(style.body, rng.choice((11, 13, 15, 18, 22, 28)))
    boxed, edge = rng.random() < 0.45, style.px(rng.choice((1, 1, 2)))
    colour = rng.choice(((255, 255, 255), (255, 255, 255), (255, 240, 60)))
    lit = vivid(rng) if rng.random() < 0.3 else None
    step = round(sum(font.getmetrics()) * 1.15)
    said: list[tuple[int, list[str]]] = []
    frame = -rng.randint(0, 12)
    while frame < style.frames:
        said.append((frame, _fitting(rng, style, font, rng.choice((1, 1, 2))) if rng.random() < 0.85 else []))
        frame += rng.randint(8, 26)
    bottom = style.height - style.px(rng.randint(8, 30))

    def draw(picture: Image.Image, frame: int) -> None:
        since, lines = [entry for entry in said if entry[0] <= frame][-1]
        for number, line in enumerate(lines):
            y, wide = bottom - (len(lines) - number) * step, font.getlength(line)
            middle = style.width / 2
            if boxed:
                box = (
                    middle - wide / 2 - style.px(5),
                    y - style.px(1),
                    middle + wide / 2 + style.px(5),
                    y + step,
                )
                _shade(picture, box, (0, 0, 0), 0.75)
            _outlined(style, picture, (middle, y), line, font, colour, 0 if boxed else edge)
            parts = line.split(" ")
            if lit is not None and number == 0:
                now = min((frame - since) // 4, len(parts) - 1)
                before = font.getlength(" ".join((*parts[:now], "")))
                at = (middle - wide / 2 + before + font.getlength(parts[now]) / 2, y)
                _outlined(style, picture, at, parts[now], font, lit, 0 if boxed else edge)

    return draw


def _fitting(rng: random.Random, style: Style, font: Font, lines: int) -> list[str]:
    """Lines of words that are not wider than the picture."""
    made = []
    for _ in range(lines):
        line = word(rng, style.alphabet).capitalize()
        for _ in range(rng.randint(2, 9)):
            longer = f"{line} {word(rng, style.alphabet)}"
            if font.getlength(longer) > style.width * 0.92:
                break
            line = longer
        made.append(line)
    return made


def _lower_third(rng: random.Random, style: Style) -> Layer:
    """A name in a box that slides in from the left."""
    large, small = style.font(style.heading, rng.choice((14, 18, 22))), style.font(style.body, 11)
    name, role = words(rng, 2, style.alphabet), words(rng, 4, style.alphabet)
    ground, ink = vivid(rng), rng.choice(((255, 255, 255), (0, 0, 0)))
    wide = round(max(large.getlength(name), small.getlength(role))) + style.px(20)
    tall = sum(large.getmetrics()) + sum(small.getmetrics()) + style.px(8)
    top = round(style.height * rng.uniform(0.5, 0.7))
    begin, takes = rng.randint(-6, style.frames // 3), rng.randint(5, 15)

    def draw(picture: Image.Image, frame: int) -> None:
        right = round(wide * motion.ease_out((frame - begin) / takes))
        _shade(picture, (0, top, right, top + tall), ground, 0.9)
        style.write(picture, (right - wide + style.px(10), top + style.px(3)), name, large, ink)
        style.write(
            picture,
            (right - wide + style.px(10), top + tall - sum(small.getmetrics()) - style.px(3)),
            role,
            small,
            ink,
        )

    return draw


def _ticker(rng: random.Random, style: Style) -> Layer:
    """News that run along the bottom at a constant speed."""
    font = style.font(style.body, rng.choice((10, 13, 16)))
    line = "   •   ".join(sentence(rng, style.alphabet) for _ in range(8)).replace("•", "-")
    tall, speed, begin = (
        sum(font.getmetrics()) + style.px(6),
        rng.choice((1, 1.5, 2, 3, 5)),
        rng.randint(0, 500),
    )
    ground = rng.choice((shade(rng, 0, 40), vivid(rng)))
    ink: Colour = (0, 0, 0) if sum(ground) > 400 else (255, 255, 255)

    def draw(picture: Image.Image, frame: int) -> None:
        _shade(picture, (0, style.height - tall, style.width, style.height), ground, 1.0)
        style.write(
            picture, (-begin - round(speed * frame), style.height - tall + style.px(2)), line, font, ink
        )

    return draw


def _clock(rng: random.Random, style: Style) -> Layer:
    """A time code that counts frames, and a mark in a corner, as cameras and players show."""
    font, at = style.font(style.mono, rng.choice((9, 12, 16))), rng.randint(0, 99_999)
    left, top = style.px(8), style.px(6)

    def draw(picture: Image.Image, frame: int) -> None:
        seconds, part = divmod(at + frame, 30)
        text = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}:{part:02}"
        _outlined(
            style, picture, (left + font.getlength(text) / 2, top), text, font, (255, 255, 255), style.px(1)
        )
        if frame // 15 % 2 == 0:
            x = style.width - style.px(20)
            ImageDraw.Draw(picture).ellipse(
                (x, top, x + style.px(10), top + style.px(10)), fill=(230, 20, 20)
            )

    return draw


def _big_title(rng: random.Random, style: Style) -> Layer:
    """Large words in the middle that come at once, fade in or rise."""
    font = style.font(style.heading, rng.choice((26, 32, 40, 56)))
    line, colour = words(rng, rng.randint(1, 2), style.alphabet), rng.choice(((255, 255, 255), vivid(rng)))
    begin, takes, rises = rng.randint(-4, style.frames // 2), rng.randint(1, 12), rng.choice((0, 0, 30))

    def draw(picture: Image.Image, frame: int) -> None:
        path = motion.ease_out((frame - begin + 1) / takes)
        if path > 0:
            above = picture.copy()
            y = style.height * 0.35 + style.px(rises) * (1 - path)
            _outlined(style, above, (style.width / 2, y), line, font, colour, style.px(1))
            picture.paste(Image.blend(picture, above, path))

    return draw

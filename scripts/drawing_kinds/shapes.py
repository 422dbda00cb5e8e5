"""Shapes and pictures that kinds are put together from: icons, pointers, clouds of noise, photo-like pictures."""

from __future__ import annotations

import math
import random

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .style import Colour, Style, bright, mixed, shade, vivid


def icon(rng: random.Random, size: int, colour: Colour | None = None) -> Image.Image:
    """A ring, disc, star, arrow, box or bars on transparent ground, (size, size)."""
    picture = Image.new("RGBA", (size, size), (0, 0, 0, 0))
    pen = ImageDraw.Draw(picture)
    fill = (*(colour or bright(rng)), 255)
    edge = max(1, int(size * rng.uniform(0.05, 0.25)))
    kind = rng.randrange(6)
    if kind == 0:
        pen.ellipse((1, 1, size - 2, size - 2), outline=fill, width=edge)
    elif kind == 1:
        pen.ellipse((1, 1, size - 2, size - 2), fill=fill)
    elif kind == 2:
        points, inner = rng.randint(3, 8), rng.uniform(0.3, 0.9)
        corners = [
            (size / 2 * (1 + r * math.sin(a)), size / 2 * (1 - r * math.cos(a)))
            for k in range(2 * points)
            for a, r in ((math.pi * k / points, 0.97 if k % 2 == 0 else inner),)
        ]
        pen.polygon(corners, fill=fill)
    elif kind == 3:
        pen.polygon([(0, 0), (size * 0.7, size * 0.7), (size * 0.35, size * 0.75), (0, size)], fill=fill)
    elif kind == 4:
        pen.rounded_rectangle(
            (1, size // 5, size - 2, size - size // 5), edge, outline=fill, width=max(1, edge // 2)
        )
    else:
        for k in range(rng.randint(2, 5)):
            pen.rectangle((0, 2 * k * edge, size, 2 * k * edge + edge), fill=fill)
    return picture


def smooth_icon(rng: random.Random, style: Style, size: int, colour: Colour | None = None) -> Image.Image:
    """An icon with the edges of the style."""
    factor = style.smooth_factor()
    return icon(rng, size * factor, colour).reduce(factor)


def stamp(picture: Image.Image, mark: Image.Image, at: tuple[float, float]) -> None:
    """Lay an RGBA picture over another, upper left corner at `at`."""
    picture.paste(mark.convert("RGB"), (round(at[0]), round(at[1])), mark.getchannel("A"))


def rounded(
    picture: Image.Image,
    style: Style,
    box: tuple[float, float, float, float],
    radius: float,
    fill: Colour | None,
    outline: Colour | None = None,
) -> None:
    """A rounded rectangle with the edges of the style; `box` as in Pillow, its right and bottom not included."""
    left, top, right, bottom = (round(side) for side in box)
    if right <= left or bottom <= top:
        return
    factor = style.smooth_factor()
    size = ((right - left) * factor, (bottom - top) * factor)
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, size[0] - 1, size[1] - 1), radius * factor, fill=255)
    if fill is not None:
        picture.paste(fill, (left, top, right, bottom), mask.reduce(factor))
    if outline is not None:
        edge = Image.new("L", size)
        ImageDraw.Draw(edge).rounded_rectangle(
            (0, 0, size[0] - 1, size[1] - 1), radius * factor, outline=255, width=style.px(1) * factor
        )
        picture.paste(outline, (left, top, right, bottom), edge.reduce(factor))


def shadow(picture: Image.Image, box: tuple[int, int, int, int], blur: int, depth: float = 0.4) -> None:
    """Darken what lies around and below a box."""
    left, top, right, bottom = box
    room = 2 * blur
    mask = Image.new("L", (right - left + 2 * room, bottom - top + 2 * room))
    ImageDraw.Draw(mask).rectangle(
        (room, room, room + right - left, room + bottom - top), fill=round(255 * depth)
    )
    picture.paste(
        (0, 0, 0), (left - room, top - room + blur // 2), mask.filter(ImageFilter.GaussianBlur(blur))
    )


def pointer(rng: random.Random, style: Style) -> Image.Image:
    """A mouse arrow or the bar of a text cursor, on transparent ground."""
    size, factor = style.px(rng.choice((12, 16, 20, 26))), style.smooth_factor()
    white, black = (255, 255, 255, 255), (0, 0, 0, 255)
    inner, outer = rng.choice(((white, black), (black, white), (black, white)))
    picture = Image.new("RGBA", (size * factor, size * factor), (0, 0, 0, 0))
    pen = ImageDraw.Draw(picture)
    unit = size * factor / 16
    arrow = ((1, 1), (1, 13), (4, 10), (6, 15), (8, 14), (6, 9.5), (10, 9.5))
    bar = ((5, 1), (7, 3), (9, 1), (9, 2), (7.6, 4), (7.6, 12), (9, 14), (5, 14), (6.4, 12), (6.4, 4))
    corners = [(x * unit, y * unit) for x, y in (arrow if rng.random() < 0.8 else bar)]
    pen.polygon(corners, fill=inner)
    pen.line([*corners, corners[0]], fill=outer, width=max(1, round(unit)))
    return picture.reduce(factor)


def clouds(rng: random.Random, width: int, height: int, roughness: float) -> np.ndarray:
    """(height, width) 0..1: noise with energy at all sizes, as surfaces in photos have. The edges fit together.

    `roughness`: 1 is fine and busy, 3 soft.
    """
    noise = np.random.default_rng(rng.getrandbits(64)).standard_normal((height, width))
    across, down = np.fft.rfftfreq(width) * width, np.fft.fftfreq(height) * height
    distance = np.hypot(across[None, :], down[:, None])
    distance[0, 0] = np.inf
    field = np.fft.irfft2(np.fft.rfft2(noise) / distance**roughness, (height, width))
    low, high = np.percentile(field, (1, 99))
    return np.asarray(np.clip((field - low) / (high - low + 1e-12), 0, 1))


def ramp(rng: random.Random, width: int, height: int, first: Colour, second: Colour) -> np.ndarray:
    """(height, width, 3) float 0..255, from one colour to another at some angle."""
    angle = rng.uniform(0, 2 * math.pi)
    y, x = np.mgrid[0:height, 0:width]
    path = (x / width - 0.5) * math.cos(angle) + (y / height - 0.5) * math.sin(angle) + 0.5
    path = np.clip(path, 0, 1)[..., None]
    return np.asarray(np.array(first) * (1 - path) + np.array(second) * path)


def photo(rng: random.Random, width: int, height: int) -> Image.Image:
    """What a photo might be, from gradients and noise: hills under a sky, lights out of focus, or a surface."""
    sky = shade(rng, 120, 250), mixed(vivid(rng), shade(rng, 60, 255), 0.5)
    picture = ramp(rng, width, height, *sky)
    kind = rng.randrange(3)
    y, x = np.mgrid[0:height, 0:width]
    if kind == 0:
        for depth in range(1, rng.randint(3, 6)):
            line = clouds(rng, width, 4, 1.2)[0] * height * 0.25 + height * (0.2 + 0.14 * depth)
            below = np.clip(y - line[None, :], 0, 1)[..., None]
            ground = np.array(mixed(vivid(rng), shade(rng, 20, 160), 0.6))
            surface = ground * (0.6 + 0.8 * clouds(rng, width, height, 1.1)[..., None])
            picture = picture * (1 - below) + surface * below
    elif kind == 1:
        for _ in range(rng.randint(4, 14)):
            middle, radius = (rng.uniform(0, width), rng.uniform(0, height)), rng.uniform(0.04, 0.3) * width
            cover = np.clip((radius - np.hypot(x - middle[0], y - middle[1])) / (0.3 * radius), 0, 1)
            cover = cover[..., None] * rng.uniform(0.2, 0.9)
            picture = picture * (1 - cover) + np.array(vivid(rng)) * cover
    else:
        tint = np.array(vivid(rng))
        grain = clouds(rng, width, height, rng.uniform(0.8, 1.8))[..., None]
        picture = picture * (1 - grain) + tint * grain
    dim = 1 - rng.uniform(0, 0.5) * ((x / width - 0.5) ** 2 + (y / height - 0.5) ** 2)[..., None] * 2
    grain_rng = np.random.default_rng(rng.getrandbits(64))
    picture = picture * dim + grain_rng.normal(0, rng.choice((0, 2, 5)), (height, width, 1))
    return Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))

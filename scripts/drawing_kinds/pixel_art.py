"""Pixel art: a small picture of few colours, tiles that scroll and sprites that walk, enlarged without smoothing."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
from PIL import Image

from .style import Style, shade, vivid

_TILE = 8  # small pixels
_FLOOR = 3  # tiles


def pixel_art(rng: random.Random, style: Style) -> Iterator[Image.Image]:
    """Yields the pictures of the clip."""
    scale = max(2, style.px(rng.choice((2, 3, 4, 5))))
    wide, tall = -(-style.width // scale), -(-style.height // scale)
    palette = np.array(
        [shade(rng, 0, 40), vivid(rng), *(vivid(rng) for _ in range(rng.randint(3, 12)))], np.uint8
    )
    world = _world(rng, len(palette), wide + 16 * _TILE, tall)
    far = _hills(rng, len(palette), wide + 16 * _TILE, tall)
    sprites = [_Sprite(rng, len(palette), wide, tall) for _ in range(rng.randint(1, 6))]
    sky = rng.randrange(len(palette))
    pace, begin = rng.choice((0, 1, 1, 2, 3)), rng.randint(0, 8 * _TILE)
    every = rng.choice((1, 1, 2, 3))  # frames for which a picture stands, as in old games
    score = rng.randint(0, 9000)
    for frame in range(style.frames):
        time = frame // every
        canvas = np.full((tall, wide), sky)
        for layer, speed in ((far, pace / 2), (world, pace)):
            seen = np.roll(layer, -int(begin + speed * time), axis=1)[:, :wide]
            canvas = np.where(seen >= 0, seen, canvas)
        for sprite in sprites:
            sprite.draw(canvas, time)
        _write_number(canvas, score + 10 * (time // 4), len(palette) - 1)
        picture = Image.fromarray(palette[canvas])
        picture = picture.resize((wide * scale, tall * scale), Image.Resampling.NEAREST)
        yield picture.crop((0, 0, style.width, style.height))


def _tile(rng: random.Random, colours: int) -> np.ndarray:
    """(8, 8) colours: bricks, dots, a rim, or noise of three colours."""
    ground, second, third = (rng.randrange(colours) for _ in range(3))
    tile = np.full((_TILE, _TILE), ground)
    kind = rng.randrange(4)
    if kind == 0:
        tile[3::4] = second
        tile[:4, 3] = tile[4:, 7] = second
    elif kind == 1:
        tile[1::4, 1::4] = second
        tile[3::4, 3::4] = third
    elif kind == 2:
        tile[0], tile[:, 0], tile[-1], tile[:, -1] = second, second, third, third
    else:
        noise = [rng.choice((ground, ground, second, third)) for _ in range(_TILE * _TILE)]
        tile = np.array(noise).reshape(_TILE, _TILE)
    return tile


def _world(rng: random.Random, colours: int, wide: int, tall: int) -> np.ndarray:
    """(tall, wide) colours, -1 where nothing is: a floor with steps, and platforms."""
    tiles = [_tile(rng, colours) for _ in range(5)]
    world = np.full((tall, wide), -1)
    columns, rows = wide // _TILE, tall // _TILE
    floor = _FLOOR
    for column in range(columns):
        floor = min(rows // 2, max(1, floor + rng.choice((0, 0, 0, 1, -1))))
        stands = set(range(rows - floor, rows + 1))
        if rng.random() < 0.3:
            stands.add(rng.randint(rows // 4, max(rows // 4, rows - floor - 2)))
        for row in stands:
            tile = tiles[0] if row == rows - floor else tiles[rng.randrange(1, 5)]
            y, x = row * _TILE, column * _TILE
            room = world[y : y + _TILE, x : x + _TILE]
            room[:] = tile[: room.shape[0], : room.shape[1]]
    return world


def _hills(rng: random.Random, colours: int, wide: int, tall: int) -> np.ndarray:
    """(tall, wide) colours, -1 above: steps of one colour, with a rim of another."""
    hills, high = np.full((tall, wide), -1), tall * 0.4
    colour, rim = rng.randrange(colours), rng.randrange(colours)
    for x in range(wide):
        high = min(tall * 0.7, max(tall * 0.2, high + rng.choice((-1, 0, 0, 0, 1)) * rng.choice((1, 1, 2))))
        top = tall - int(high)
        hills[top:, x], hills[top : top + 2, x] = colour, rim
    return hills


class _Sprite:
    """A figure that is the same on both sides, of two pictures that take turns, and its way."""

    def __init__(self, rng: random.Random, colours: int, wide: int, tall: int) -> None:
        half, high = rng.choice((4, 5, 8)), rng.choice((8, 12, 16))
        body = np.array([rng.choice((-1, -1, *rng.choices(range(colours), k=3))) for _ in range(half * high)])
        left = body.reshape(high, half)
        left[2:-2, -2:] = rng.randrange(colours)
        first = np.concatenate((left, left[:, ::-1]), axis=1)
        second = first.copy()
        second[-3:] = np.roll(second[-3:], 1, axis=1)
        self.pictures = first, second
        self.x, self.y = rng.uniform(0, wide), rng.uniform(0.2, 0.8) * tall
        self.dx, self.dy = rng.choice((-2, -1, 1, 2, 3)), rng.choice((0, 0, 1))
        self.jumps, self.phase = rng.choice((0, 0, 6, 12)), rng.randrange(20)
        self.turns = rng.choice((2, 4, 6))

    def draw(self, canvas: np.ndarray, time: int) -> None:
        picture = self.pictures[time // self.turns % 2]
        high, wide = picture.shape
        hop = self.jumps * abs(((time + self.phase) % 16) / 8 - 1)
        y = int(self.y + self.dy * time - hop) % canvas.shape[0]
        x = int(self.x + self.dx * time) % (canvas.shape[1] + wide) - wide
        below, right = min(canvas.shape[0], y + high), min(canvas.shape[1], x + wide)
        if below > y and right > max(0, x):
            part = picture[: below - y, max(0, -x) : right - x]
            room = canvas[y:below, max(0, x) : right]
            room[:] = np.where(part >= 0, part, room)


# Digits of 3 x 5 dots, a row of each in three bits.
_DIGITS = ("75557", "26227", "71747", "71717", "55711", "74717", "74757", "71222", "75757", "75717")


def _write_number(canvas: np.ndarray, value: int, colour: int) -> None:
    for place, digit in enumerate(f"{value:06}"):
        for row, bits in enumerate(_DIGITS[int(digit)]):
            for dot in range(3):
                if (
                    int(bits) >> (2 - dot) & 1
                    and 2 + row < canvas.shape[0]
                    and 2 + 4 * place + dot < canvas.shape[1]
                ):
                    canvas[2 + row, 2 + 4 * place + dot] = colour

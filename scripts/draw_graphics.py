"""Clips of moving text and shapes, for training: what screens, titles and logos show and cameras do not.

    python scripts/draw_graphics.py OUT_DIR [--count 160] [--seed 1] [--side 320] [--frames 32]

Each clip (lossless FFV1 in .mkv) has a plain or shaded background and a few layers: lines of text, icons, panels.
Layers stand, glide, ease to a stop, grow, turn, fade in, or pop up. Some clips scroll a page of text. Everything is
drawn at twice the size and reduced, so edges are smooth and motion is finer than a pixel. Needs matplotlib (for its
fonts) and pillow, both of the extra `plot`.
"""

from __future__ import annotations

import argparse
import math
import random
import string
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

FONTS = sorted((Path(matplotlib.get_data_path()) / "fonts" / "ttf").glob("DejaVuS*.ttf"))
FINER = 2  # drawn at this many times the size
RATE = 30

Colour = tuple[int, int, int]
Place = Callable[
    [float], tuple[float, float, float, float, float]
]  # time 0..1 -> x, y, scale, degrees, opacity


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=160)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--side", type=int, default=320, help="pixels, both ways")
    parser.add_argument("--frames", type=int, default=32)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for number in range(options.count):
        rng = random.Random(f"{options.seed} {number}")
        draw = rng.choice((scene, scene, scene, page))
        write(options.out / f"graphics-{number:03}.mkv", draw(rng, options.side, options.frames))


def scene(rng: random.Random, side: int, frames: int) -> list[np.ndarray]:
    """A background and a few moving layers. Returns (side, side, 3) uint8 pictures."""
    back = background(rng, side * FINER)
    layers = [(layer(rng, side * FINER), place(rng, side * FINER)) for _ in range(rng.randint(1, 7))]
    pictures = []
    for number in range(frames):
        picture = back.copy()
        for drawn, where in layers:
            x, y, scale, turn, opacity = where(number / (frames - 1))
            size = (max(1, round(drawn.width * scale)), max(1, round(drawn.height * scale)))
            shown = drawn.resize(size) if size != drawn.size else drawn
            shown = shown.rotate(turn, Image.Resampling.BILINEAR, expand=True) if turn else shown
            mask = shown.getchannel("A").point(lambda a, o=opacity: int(a * o))
            at = (round(x - shown.width / 2), round(y - shown.height / 2))
            picture.paste(shown.convert("RGB"), at, mask)
        pictures.append(reduced(picture, side))
    return pictures


def page(rng: random.Random, side: int, frames: int) -> list[np.ndarray]:
    """A page of text, or of code in colours, that stands or scrolls; a cursor may move over it."""
    width, height = side * FINER, side * FINER * 3
    dark = rng.random() < 0.4
    paper = shade(rng, 10, 50) if dark else shade(rng, 225, 255)
    tall = Image.new("RGB", (width, height), paper)
    pen = ImageDraw.Draw(tall)
    letters = font(rng, rng.randint(9, 20) * FINER)
    colours = [shade(rng, 160, 255) if dark else shade(rng, 0, 90)]
    if rng.random() < 0.5:
        colours += [vivid(rng) for _ in range(4)]
    y, step = 10, int(letters.size * rng.uniform(1.2, 1.8))
    while y < height:
        x = 10 + rng.choice((0, 0, 1, 2)) * letters.size * 2
        while x < width * rng.uniform(0.3, 1.1) and rng.random() > 0.06:
            word = words(rng, 1)
            pen.text((x, y), word, font=letters, fill=rng.choice(colours))
            x += int(pen.textlength(word + " ", font=letters))
        y += step
    speed = rng.choice((0, 0, 0.5, 1, 2, 4, 9)) * FINER
    begin, end = sorted((rng.randrange(frames), rng.randrange(frames)))
    pointer = icon(rng, 14 * FINER) if rng.random() < 0.5 else None
    moves = place(rng, width)
    pictures, top = [], 0.0
    for number in range(frames):
        top += speed * (begin <= number <= end)
        picture = tall.crop((0, round(top), width, round(top) + width))
        if pointer:
            x, y2, *_ = moves(number / (frames - 1))
            picture.paste(pointer.convert("RGB"), (round(x), round(y2)), pointer.getchannel("A"))
        pictures.append(reduced(picture, side))
    return pictures


def background(rng: random.Random, side: int) -> Image.Image:
    """Plain, shaded from one colour to another, or with a faint pattern of icons."""
    first = rng.choice((vivid, lambda r: shade(r, 0, 40), lambda r: shade(r, 215, 255)))(rng)
    if rng.random() < 0.4:
        return Image.new("RGB", (side, side), first)
    second = tuple(min(255, max(0, c + rng.randint(-60, 60))) for c in first)
    angle = rng.uniform(0, 2 * math.pi)
    y, x = np.mgrid[0:side, 0:side] / side - 0.5
    ramp = (np.clip(x * math.cos(angle) + y * math.sin(angle) + 0.5, 0, 1))[..., None]
    picture = Image.fromarray((np.array(first) * (1 - ramp) + np.array(second) * ramp).astype(np.uint8))
    if rng.random() < 0.4:
        size, tint = rng.randint(15, 40) * FINER, rng.uniform(0.04, 0.3)
        for top in range(0, side, int(size * 1.5)):
            for left in range(0, side, int(size * 1.5)):
                mark = icon(rng, size)
                picture.paste(
                    mark.convert("RGB"), (left, top), mark.getchannel("A").point(lambda a: int(a * tint))
                )
    return picture


def layer(rng: random.Random, side: int) -> Image.Image:
    """Text, an icon, or a panel with both, on transparent ground."""
    kind = rng.random()
    if kind < 0.5:
        letters = font(rng, int(side * rng.choice((0.03, 0.05, 0.08, 0.15, 0.3))))
        return text(words(rng, rng.randint(1, 3)), letters, bright(rng))
    if kind < 0.85:
        return icon(rng, int(side * rng.uniform(0.05, 0.5)))
    size = (int(side * rng.uniform(0.2, 0.8)), int(side * rng.uniform(0.1, 0.5)))
    panel = Image.new("RGBA", size, (0, 0, 0, 0))
    ImageDraw.Draw(panel).rounded_rectangle(
        (0, 0, size[0] - 1, size[1] - 1), rng.choice((0, 8, 24)), fill=(*bright(rng), 255)
    )
    inside = text(words(rng, 2), font(rng, max(8, size[1] // 4)), bright(rng))
    panel.paste(inside, (size[1] // 6, size[1] // 3), inside)
    return panel


def icon(rng: random.Random, size: int) -> Image.Image:
    """A ring, disc, star, arrow, box or bars."""
    picture = Image.new("RGBA", (size, size), (0, 0, 0, 0))
    pen = ImageDraw.Draw(picture)
    colour = (*bright(rng), 255)
    edge = max(1, int(size * rng.uniform(0.05, 0.25)))
    kind = rng.randrange(6)
    if kind == 0:
        pen.ellipse((1, 1, size - 2, size - 2), outline=colour, width=edge)
    elif kind == 1:
        pen.ellipse((1, 1, size - 2, size - 2), fill=colour)
    elif kind == 2:
        points, inner = rng.randint(3, 8), rng.uniform(0.3, 0.9)
        corners = [
            (size / 2 * (1 + r * math.sin(a)), size / 2 * (1 - r * math.cos(a)))
            for k in range(2 * points)
            for a, r in ((math.pi * k / points, 0.97 if k % 2 == 0 else inner),)
        ]
        pen.polygon(corners, fill=colour)
    elif kind == 3:
        pen.polygon([(0, 0), (size * 0.7, size * 0.7), (size * 0.35, size * 0.75), (0, size)], fill=colour)
    elif kind == 4:
        pen.rounded_rectangle(
            (1, size // 5, size - 2, size - size // 5), edge, outline=colour, width=max(1, edge // 2)
        )
    else:
        for k in range(rng.randint(2, 5)):
            pen.rectangle((0, 2 * k * edge, size, 2 * k * edge + edge), fill=colour)
    return picture


def place(rng: random.Random, side: int) -> Place:
    """Where a layer is over time."""
    x0, y0 = rng.uniform(0, side), rng.uniform(0, side)
    far = side * rng.choice((0.0, 0.02, 0.1, 0.3, 1.0))
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


def text(line: str, letters: ImageFont.FreeTypeFont, colour: Colour) -> Image.Image:
    left, top, right, bottom = letters.getbbox(line)
    picture = Image.new("RGBA", (int(right - left) + 4, int(bottom - top) + 4), (0, 0, 0, 0))
    ImageDraw.Draw(picture).text((2 - left, 2 - top), line, font=letters, fill=(*colour, 255))
    return picture


def words(rng: random.Random, count: int) -> str:
    letters = rng.choice(
        (string.ascii_lowercase, string.ascii_uppercase, string.ascii_letters + string.digits)
    )
    made = ["".join(rng.choice(letters) for _ in range(rng.randint(2, 9))) for _ in range(count)]
    return " ".join(word.capitalize() if rng.random() < 0.3 else word for word in made)


def font(rng: random.Random, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(rng.choice(FONTS)), max(6, size))


def vivid(rng: random.Random) -> Colour:
    return (rng.randint(0, 255), rng.randint(0, 255), rng.randint(0, 255))


def shade(rng: random.Random, low: int, high: int) -> Colour:
    grey = rng.randint(low, high)
    red, green, blue = (min(255, max(0, grey + rng.randint(-8, 8))) for _ in range(3))
    return red, green, blue


def bright(rng: random.Random) -> Colour:
    return rng.choice((vivid(rng), shade(rng, 235, 255), shade(rng, 0, 30)))


def reduced(picture: Image.Image, side: int) -> np.ndarray:
    return np.asarray(picture.resize((side, side), Image.Resampling.BOX))


def write(path: Path, pictures: list[np.ndarray]) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=Fraction(RATE))
        stream.width, stream.height = pictures[0].shape[1], pictures[0].shape[0]
        stream.pix_fmt = "bgr0"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


if __name__ == "__main__":
    main()

"""One clip: a kind is drawn, a pointer goes over it, a camera looks at it, and it may be worn."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from . import motion, wear
from .captions import captions
from .charts import charts
from .editor import editor
from .menus import menus
from .pages import scrolling, webpage
from .pixel_art import pixel_art
from .scene import scene
from .shapes import pointer, stamp
from .slides import slides
from .spreadsheet import spreadsheet
from .style import Fonts, Style
from .terminal import terminal
from .windows import windows


class Kind(NamedTuple):
    """How a kind is drawn, and what happens to it afterwards."""

    draw: Callable[[random.Random, Style], Iterator[Image.Image]]
    pointed: float = 0.0  # share of the clips over which a pointer moves
    filmed: float = 0.0  # share of the clips that are drawn larger and reduced, or closed in on


KINDS = {
    "captions": Kind(captions, filmed=0.1),
    "charts": Kind(charts, pointed=0.3, filmed=0.4),
    "editor": Kind(editor, pointed=0.4, filmed=0.4),
    "menus": Kind(menus, filmed=0.4),
    "pixel-art": Kind(pixel_art),
    "scene": Kind(scene),
    "scrolling": Kind(scrolling, pointed=0.5, filmed=0.4),
    "slides": Kind(slides, pointed=0.2, filmed=0.4),
    "spreadsheet": Kind(spreadsheet, pointed=0.4, filmed=0.4),
    "terminal": Kind(terminal, pointed=0.2, filmed=0.4),
    "webpage": Kind(webpage, pointed=0.6, filmed=0.4),
    "windows": Kind(windows, filmed=0.4),
}
# Never drawn to train with: what a model does on these shows what it does on screens it has not seen.
HELD_OUT = ("pixel-art", "spreadsheet", "windows")
TRAINED = tuple(name for name in KINDS if name not in HELD_OUT)

_FILTERS = (
    Image.Resampling.BOX,
    Image.Resampling.BILINEAR,
    Image.Resampling.BICUBIC,
    Image.Resampling.LANCZOS,
)
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class ClipOptions:
    """What clips are drawn; a clip follows from these and its number alone."""

    kinds: tuple[str, ...] = TRAINED
    seed: int = 1
    width: int = 320
    height: int = 320
    frames: int = 32
    worn: float = 0.4  # share of the clips
    fonts: Fonts = field(default_factory=lambda: Fonts.found(None))
    backgrounds: tuple[Path, ...] = ()


def kind_of(options: ClipOptions, number: int) -> str:
    """Every kind once in each round of as many clips as there are kinds, in an order drawn anew."""
    turn, place = divmod(number, len(options.kinds))
    order = list(options.kinds)
    random.Random(f"{options.seed} round {turn}").shuffle(order)
    return order[place]


def draw_clip(options: ClipOptions, number: int) -> list[np.ndarray]:
    """The pictures of a clip, (height, width, 3) uint8 each."""
    name = kind_of(options, number)
    kind = KINDS[name]
    rng = random.Random(f"{options.seed} {number} {name}")
    filmed = rng.random() < kind.filmed
    style = Style.drawn(
        rng,
        (options.width, options.height),
        options.frames,
        zoom=rng.uniform(1.1, 2.2) if filmed else 1.0,
        fonts=options.fonts,
        backgrounds=options.backgrounds,
    )
    pictures = kind.draw(rng, style)
    if rng.random() < kind.pointed:
        pictures = _with_pointer(rng, style, pictures)
    if filmed:
        pictures = _seen(rng, style, pictures, (options.width, options.height))
    made = [np.asarray(picture) for picture in pictures]
    return wear.worn(rng, made) if rng.random() < options.worn else made


def _with_pointer(rng: random.Random, style: Style, pictures: Iterator[Image.Image]) -> Iterator[Image.Image]:
    arrow = pointer(rng, style)
    places = motion.wander(rng, style.frames, style.width, style.height)
    for picture, at in zip(pictures, places, strict=True):
        shown = picture.copy()  # kinds yield a picture again where nothing changes
        stamp(shown, arrow, at)
        yield shown


def _seen(
    rng: random.Random, style: Style, pictures: Iterator[Image.Image], size: tuple[int, int]
) -> Iterator[Image.Image]:
    """Reduced to `size`: all of each picture, or what a camera sees that glides or closes in."""
    whole: Box = (0, 0, style.width, style.height)
    first, last = rng.choice(
        ((whole, whole), (whole, whole), (whole, _part(rng, style)), (_part(rng, style),) * 2)
    )
    if first == last != whole:  # a part that glides
        wide, tall = first[2] - first[0], first[3] - first[1]
        left, top = rng.uniform(0, style.width - wide), rng.uniform(0, style.height - tall)
        last = (left, top, left + wide, top + tall)
    if rng.random() < 0.5:
        first, last = last, first
    begin, takes = rng.uniform(-0.5, 0.5) * style.frames, rng.uniform(0.4, 1.5) * style.frames
    smooth = rng.choice(_FILTERS)
    for frame, picture in enumerate(pictures):
        path = motion.ease((frame - begin) / takes)
        left, top, right, bottom = (a + (b - a) * path for a, b in zip(first, last, strict=True))
        yield picture.resize(size, smooth, box=(left, top, right, bottom))


def _part(rng: random.Random, style: Style) -> Box:
    """A part of the picture, of the same shape; it is enlarged by a third at most."""
    share = rng.uniform(max(0.4, 0.75 / style.zoom), 0.9)
    wide, tall = style.width * share, style.height * share
    left, top = rng.uniform(0, style.width - wide), rng.uniform(0, style.height - tall)
    return left, top, left + wide, top + tall

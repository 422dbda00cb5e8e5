"""How a clip looks throughout: its size, its fonts, how letters are smoothed, light or dark; and colours."""

from __future__ import annotations

import random
import re
import string
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Literal

import matplotlib
import numpy as np
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont

from .words import ALPHABETS

Colour = tuple[int, int, int]
Smoothing = Literal["none", "grey", "colour"]
Font = ImageFont.FreeTypeFont

MATPLOTLIB_FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
# Fonts of symbols that stand at the places of letters, and a font of placeholders.
_SYMBOLS_ONLY = ("cmex10", "cmmi10", "cmsy10")
_NO_FONT = "LastResort"


@dataclass(frozen=True)
class Fonts:
    """Files of fonts, sorted by what can be written with them."""

    text: tuple[Path, ...]  # all of ASCII
    mono: tuple[Path, ...]  # of these, those whose letters are all equally wide
    symbols: tuple[Path, ...]  # for formulas

    @classmethod
    def found(cls, folder: Path | None) -> Fonts:
        """Matplotlib's fonts, and those below `folder` (.ttf, .otf). Raises ValueError if it holds none."""
        files = sorted(MATPLOTLIB_FONTS.glob("*.ttf"))
        if folder is not None:
            more = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".ttf", ".otf"))
            if not more:
                raise ValueError(f"no .ttf or .otf file below {folder}")
            files += more
        files = [path for path in files if not path.stem.startswith(_NO_FONT)]
        text = tuple(p for p in files if p.stem not in _SYMBOLS_ONLY and covers(p, string.printable[:94]))
        mono = tuple(p for p in text if load(p, 20).getlength("iiii") == load(p, 20).getlength("WWWW"))
        return cls(text, mono, tuple(p for p in files if p not in text))


@dataclass(frozen=True)
class Style:
    """One clip's. Sizes are of the pictures as drawn, `zoom` times as large as the finished ones."""

    width: int
    height: int
    frames: int
    zoom: float
    dark: bool
    smoothing: Smoothing
    alphabet: str  # a key of ALPHABETS
    fonts: Fonts
    body: Path
    heading: Path
    mono: Path
    backgrounds: tuple[Path, ...] = ()  # clips to lay captions over

    @classmethod
    def drawn(
        cls,
        rng: random.Random,
        size: tuple[int, int],
        frames: int,
        *,
        zoom: float,
        fonts: Fonts,
        backgrounds: tuple[Path, ...] = (),
    ) -> Style:
        """At random, for finished pictures of `size` (width, height)."""
        body = _choice(rng, fonts.text)
        alphabet = rng.choice(("latin",) * 6 + ("cyrillic", "greek"))
        if not covers(body, ALPHABETS[alphabet]):
            alphabet = "latin"
        bold = [path for path in fonts.text if "Bold" in path.stem or path.stem == "cmb10"] or [body]
        heading = rng.choice((body, rng.choice(bold), rng.choice(fonts.text)))
        return cls(
            width=round(size[0] * zoom),
            height=round(size[1] * zoom),
            frames=frames,
            zoom=zoom,
            dark=rng.random() < 0.45,
            smoothing=rng.choices(("none", "grey", "colour"), (0.2, 0.6, 0.2))[0],
            alphabet=alphabet,
            fonts=fonts,
            body=body,
            heading=heading if covers(heading, ALPHABETS[alphabet]) else body,
            mono=_choice(rng, fonts.mono or fonts.text),
            backgrounds=backgrounds,
        )

    def px(self, size: float) -> int:
        """Pixels as drawn of a length in finished pixels, at least 1."""
        return max(1, round(size * self.zoom))

    def font(self, path: Path, size: float) -> Font:
        """Of a size in finished pixels."""
        return load(path, max(6, self.px(size)))

    def paper(self, rng: random.Random) -> Colour:
        """A plain ground, dark or light."""
        return shade(rng, 8, 48) if self.dark else shade(rng, 228, 255)

    def ink(self, rng: random.Random) -> Colour:
        """A colour to write with on paper."""
        return shade(rng, 190, 255) if self.dark else shade(rng, 0, 70)

    def accent(self, rng: random.Random) -> Colour:
        """A strong colour that can be told from paper."""
        low, high = (110, 255) if self.dark else (0, 170)
        colour = [rng.randint(low, high), rng.randint(low, high), rng.randint(low, high)]
        colour[rng.randrange(3)] = high if self.dark else low
        return colour[0], colour[1], colour[2]

    def write(
        self,
        picture: Image.Image,
        at: tuple[float, float],
        line: str,
        font: Font,
        colour: Colour,
        *,
        anchor: str = "la",
    ) -> None:
        """A line of text with its upper left corner at `at`; anchor as in Pillow, vertically `a` or `m`."""
        x, y = round(at[0]), round(at[1])
        if anchor[0] != "l":
            x -= round(font.getlength(line) / (2 if anchor[0] == "m" else 1))
        if anchor[1] == "m":
            y -= round(sum(font.getmetrics()) / 2)
        if self.smoothing == "colour":
            _write_on_subpixels(picture, (x, y), line, font, colour)
            return
        pen = ImageDraw.Draw(picture)
        pen.fontmode = "1" if self.smoothing == "none" else "L"
        pen.text((x, y), line, font=font, fill=colour)

    def fit(self, line: str, font: Font, width: float) -> str:
        """As much of a line as fits into a width in pixels as drawn."""
        while line and font.getlength(line) > width:
            line = line[:-1]
        return line

    def smooth_factor(self) -> int:
        """Shapes are drawn at this many times the size and reduced."""
        return 1 if self.smoothing == "none" else 3


def _choice(rng: random.Random, paths: tuple[Path, ...]) -> Path:
    """Upright fonts of normal weight more often than others."""
    return rng.choices(
        paths, [1 if re.search("Bold|Bol|Obl|Ita|cmb|cmti", path.stem) else 3 for path in paths]
    )[0]


@cache
def load(path: Path, size: int) -> Font:
    """A font at a size in pixels."""
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)


@cache
def characters(path: Path) -> frozenset[int]:
    """The code points that a font has."""
    return frozenset(FT2Font(str(path)).get_charmap())


def covers(path: Path, letters: str) -> bool:
    """Whether a font has all these letters."""
    return all(ord(letter) in characters(path) for letter in letters)


@lru_cache(maxsize=20_000)
def _subpixel_mask(line: str, font_path: str, size: int) -> np.ndarray:
    """(height, width, 3) 0..1: how much of each third of each pixel the letters cover, lightly blurred sideways.
    Letters stand where the font at this size puts them; the mask is 2 pixels wider on both sides."""
    font, large = load(Path(font_path), size), load(Path(font_path), size * 3)
    width = int(font.getlength(line)) + 4 + size
    picture = Image.new("L", (width * 3, sum(font.getmetrics()) * 3))
    pen = ImageDraw.Draw(picture)
    for number, letter in enumerate(line):
        pen.text((round((font.getlength(line[:number]) + 2) * 3), 0), letter, font=large, fill=255)
    third = np.asarray(picture.resize((width * 3, picture.height // 3), Image.Resampling.BOX)) / 255
    wide = np.pad(third, ((0, 0), (2, 2)))
    blurred = sum(
        weight * wide[:, n : n + width * 3] for n, weight in enumerate((1 / 9, 2 / 9, 3 / 9, 2 / 9, 1 / 9))
    )
    return np.asarray(blurred).reshape(picture.height // 3, width, 3)


def _write_on_subpixels(
    picture: Image.Image, at: tuple[int, int], line: str, font: Font, colour: Colour
) -> None:
    if not line:
        return
    mask = _subpixel_mask(line, str(font.path), int(font.size))
    left, top = at[0] - 2, at[1]
    box = (
        max(0, left),
        max(0, top),
        min(picture.width, left + mask.shape[1]),
        min(picture.height, top + mask.shape[0]),
    )
    if box[0] >= box[2] or box[1] >= box[3]:
        return
    cover = mask[box[1] - top : box[3] - top, box[0] - left : box[2] - left]
    below = np.asarray(picture.crop(box).convert("RGB")).astype(float)
    mixed = below + (np.array(colour) - below) * cover
    picture.paste(Image.fromarray(mixed.round().astype(np.uint8)), box[:2])


def vivid(rng: random.Random) -> Colour:
    """Any colour."""
    return (rng.randint(0, 255), rng.randint(0, 255), rng.randint(0, 255))


def shade(rng: random.Random, low: int, high: int) -> Colour:
    """A grey in a range, with a touch of colour."""
    grey = rng.randint(low, high)
    red, green, blue = (min(255, max(0, grey + rng.randint(-8, 8))) for _ in range(3))
    return red, green, blue


def bright(rng: random.Random) -> Colour:
    """Any colour, or nearly white or black."""
    return rng.choice((vivid(rng), shade(rng, 235, 255), shade(rng, 0, 30)))


def mixed(first: Colour, second: Colour, share: float) -> Colour:
    """Between two colours; `share` (0..1) is the second's."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue

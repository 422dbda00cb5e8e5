"""Clips of what screens, titles and logos show and cameras do not, for training.

    python scripts/draw_graphics.py OUT_DIR [--count 160] [--seed 1] [--side 320] [--frames 32]
    python scripts/draw_graphics.py VAL_DIR --held-out --count 12    # kinds that training never sees

Each clip (lossless FFV1 in .mkv) is of one kind, and each kind has a function in `drawing_kinds/`. Every kind is drawn
once before one is drawn again. Fonts (matplotlib's and those of --fonts), sizes of letters (8 to 40 pixels), light or
dark, how letters are smoothed, and wear (YUV 4:2:0, JPEG, H.264) are drawn anew for each clip. A clip depends on the
options and its number alone. Needs matplotlib (for its fonts) and pillow, both of the extra `compare`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from drawing_kinds import HELD_OUT, TRAINED, ClipOptions, Fonts, draw_clip, kind_of, write

_MIN_SIDE, _MAX_SIDE, _MAX_FRAMES, _MAX_COUNT = 64, 4096, 10_000, 1_000_000
_VIDEOS = (".mp4", ".mkv", ".mov", ".webm", ".avi", ".m4v")


def main(arguments: list[str] | None = None) -> None:
    """Draw the clips that the command line asks for."""
    parser = _parser()
    given = parser.parse_args(arguments)
    try:
        options = ClipOptions(
            kinds=_kinds(given.kinds, given.exclude_kinds, held_out=given.held_out),
            seed=given.seed,
            width=given.width or given.side,
            height=given.height or given.side,
            frames=given.frames,
            worn=given.worn,
            fonts=Fonts.found(given.fonts),
            backgrounds=_clips(given.backgrounds),
        )
    except ValueError as error:
        parser.error(str(error))
    given.out.mkdir(parents=True, exist_ok=True)
    draw = partial(_draw, options, given.out)
    if given.jobs == 1:
        for number in range(given.count):
            draw(number)
        return
    with ProcessPoolExecutor(given.jobs) as pool:
        for _ in pool.map(draw, range(given.count)):
            pass


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    side, names = _whole(_MIN_SIDE, _MAX_SIDE), f"of {', '.join(TRAINED)}; held out: {', '.join(HELD_OUT)}"
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=_whole(0, _MAX_COUNT), default=160)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--side", type=side, default=320, help="pixels, both ways")
    parser.add_argument("--width", type=side, help="pixels, instead of --side")
    parser.add_argument("--height", type=side, help="pixels, instead of --side")
    parser.add_argument("--frames", type=_whole(2, _MAX_FRAMES), default=32)
    parser.add_argument("--kinds", help=f"separated by commas, {names}")
    parser.add_argument("--exclude-kinds", default="", help="separated by commas; not drawn")
    parser.add_argument(
        "--held-out", action="store_true", help="draw the kinds that are held out, for validation"
    )
    parser.add_argument("--worn", type=_share, default=0.4, help="share of the clips that are worn, 0 to 1")
    parser.add_argument("--fonts", type=Path, metavar="DIR", help="more fonts, .ttf and .otf")
    parser.add_argument("--backgrounds", type=Path, metavar="DIR", help="clips to lay captions over")
    parser.add_argument("--jobs", type=_whole(1, 1024), default=1, help="processes")
    return parser


def _draw(options: ClipOptions, out: Path, number: int) -> None:
    write(out / f"{kind_of(options, number)}-{options.seed}-{number:04}.mkv", draw_clip(options, number))


def _kinds(chosen: str | None, excluded: str, *, held_out: bool) -> tuple[str, ...]:
    """The kinds to draw. Raises ValueError where there are none, or one is unknown or held out."""
    offered = HELD_OUT if held_out else TRAINED
    asked = _names(chosen) if chosen is not None else offered
    without = _names(excluded)
    for name in (*asked, *without):
        if name not in (*TRAINED, *HELD_OUT):
            raise ValueError(f"there is no kind {name!r}; there are {', '.join((*TRAINED, *HELD_OUT))}")
    for name in asked:
        if name not in offered:
            other = "is held out: it needs --held-out" if name in HELD_OUT else "is not held out"
            raise ValueError(f"{name} {other}")
    kinds = tuple(name for name in asked if name not in without)
    if not kinds:
        raise ValueError("no kind is left to draw")
    return kinds


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def _clips(folder: Path | None) -> tuple[Path, ...]:
    """The videos below a folder. Raises ValueError if it holds none."""
    if folder is None:
        return ()
    found = tuple(sorted(path for path in folder.rglob("*") if path.suffix.lower() in _VIDEOS))
    if not found:
        raise ValueError(f"no videos below {folder}")
    return found


def _whole(least: int, most: int) -> Callable[[str], int]:
    """Reads whole numbers of a range."""

    def read(text: str) -> int:
        value = int(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{value} is not within {least} and {most}")
        return value

    return read


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not within 0 and 1")
    return value


if __name__ == "__main__":
    main()

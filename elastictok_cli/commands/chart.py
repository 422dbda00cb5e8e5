"""Token usage over time in the terminal, from characters."""

from collections.abc import Sequence
from itertools import pairwise

_EIGHTHS = " ▁▂▃▄▅▆▇█"
_WIDEST = 4  # characters of a bar, where there are few


def columns(values: Sequence[float], width: int) -> list[float]:
    """At most `width` numbers, each the largest of the consecutive values it stands for: no peak is lost."""
    width = min(width, len(values))
    edges = [number * len(values) // width for number in range(width + 1)] if width else [0]
    return [max(values[low:high]) for low, high in pairwise(edges)]


def bars(values: Sequence[float], top: float, height: int) -> list[str]:
    """Rows of text, top first, with a bar for each value from 0 to `top`. Anything above 0 can be seen."""
    steps = [_steps(value, top, height) for value in values]
    return [
        "".join(_EIGHTHS[min(8, max(0, step - 8 * row))] for step in steps) for row in reversed(range(height))
    ]


def _steps(value: float, top: float, height: int) -> int:
    """The height of a bar in eighths of a row."""
    return max(1, round(8 * height * value / top)) if value > 0 else 0


def chart(values: Sequence[int], marks: Sequence[int], *, width: int, height: int = 6) -> list[str]:
    """Lines of at most `width` characters: bars of the values (one a block), and `!` under those marked."""
    top = max(values, default=0)
    label = max(len(str(top)), 1)
    room = max(1, width - label - 2)
    wide = min(_WIDEST, max(1, room // max(1, len(values))))  # characters of one bar
    shown = [value for value in columns(values, room) for _ in range(wide)]
    rows = bars(shown, top, height)
    lines = []
    for number, row in enumerate(rows):
        name = str(top) if number == 0 else "0" if number == height - 1 else ""
        lines.append(f"{name:>{label}} ┤{row}".rstrip())
    if any(marks):
        below = [mark for mark in columns(marks, room) for _ in range(wide)]
        lines.append(f"{'':>{label}}  {''.join('!' if mark else ' ' for mark in below)}".rstrip())
    return lines

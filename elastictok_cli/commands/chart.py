"""A chart of token usage over time, drawn with characters for the terminal."""

from collections.abc import Sequence

_EIGHTHS = " ▁▂▃▄▅▆▇█"
_MAX_BAR_WIDTH = 4  # characters, where there are few bars
_MIN_CHART_WIDTH = 8  # characters: a narrower chart is drawn without the numbers at its side


def columns(values: Sequence[float], lengths: Sequence[float], width: int) -> list[float]:
    """`width` numbers, one for each equal part of the time: the largest of the values that it stands for.

    A value holds for its length of time (all of one length where they are unknown, 0). It stands in every column that
    is mostly its own, and in at least one: no peak is lost, and none is averaged with its neighbours.
    """
    if not values or width < 1:
        return []
    import numpy as np  # not needed for --help

    if not all(length > 0 for length in lengths):
        lengths = [1.0] * len(values)
    ends = np.cumsum(np.asarray(lengths, np.float64))
    high = ends * width / ends[-1]
    low = np.append(0.0, high[:-1])
    first, last = np.rint(low).astype(int), np.rint(high).astype(int)
    small = first >= last  # less than a column
    first = np.where(small, np.minimum(width - 1, ((low + high) / 2).astype(int)), first)
    found = np.zeros(width)
    np.maximum.at(found, first, np.asarray(values, np.float64))
    for place in np.flatnonzero(~small & (last > first + 1)):  # at most one for each column
        columns = slice(first[place], last[place])
        found[columns] = np.maximum(found[columns], values[int(place)])
    return [float(value) for value in found]


def bars(values: Sequence[float], top: float, height: int) -> list[str]:
    """Rows of text, top first, with a bar for each value from 0 to `top`. Anything above 0 can be seen."""
    steps = [_steps(value, top, height) for value in values]
    return [
        "".join(_EIGHTHS[min(8, max(0, step - 8 * row))] for step in steps) for row in reversed(range(height))
    ]


def _steps(value: float, top: float, height: int) -> int:
    """The height of a bar in eighths of a row."""
    return max(1, round(8 * height * value / top)) if value > 0 else 0


def chart(
    values: Sequence[int],
    lengths: Sequence[float],
    marks: Sequence[tuple[str, Sequence[int]]] = (),
    *,
    width: int,
    height: int = 6,
    ends: tuple[str, str] = ("", ""),
) -> list[str]:
    """Lines of at most `width` characters: bars of the values (one a block) over time.

    lengths: seconds each value holds. marks: a character and which values it marks, a line below the bars for each
    that marks any. ends: what is written under the two ends of the time axis.
    """
    top = max(values, default=0)
    label = len(str(top))
    margin = label + 2 if width >= label + 2 + _MIN_CHART_WIDTH else 0
    room = min(max(1, width - margin), _MAX_BAR_WIDTH * len(values))
    lines = []
    for number, row in enumerate(bars(columns(values, lengths, room), top, height)):
        name = str(top) if number == 0 else "0" if number == height - 1 else ""
        lines.append((f"{name:>{label}} ┤{row}" if margin else row).rstrip())
    for letter, marked in marks:
        if any(marked):
            below = columns([bool(mark) for mark in marked], lengths, room)
            lines.append((" " * margin + "".join(letter if mark else " " for mark in below)).rstrip())
    if any(ends) and len(ends[0]) + len(ends[1]) < room:
        lines.append((" " * margin + ends[0] + ends[1].rjust(room - len(ends[0]))).rstrip())
    return lines

"""Token usage over time above the error of each frame, with matplotlib (extra `plot`)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from elastictok_cli.analysis.promise import SCOPES
from elastictok_cli.drawing import style
from elastictok_cli.drawing.tracks import Track

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_HEADROOM = 1.1
_FILL_OPACITY = 0.16
# In heights of a letter: room at the edges for ticks and words, and between the axes.
_LEFT, _RIGHT, _TOP, _TITLE, _BETWEEN, _BOTTOM = 4.6, 3.4, 2.0, 2.2, 2.6, 3.4
_MINUTES_FROM_SECONDS = 120.0  # a longer video has its time axis in minutes
_TICK_STEPS_SECONDS = (
    15,
    30,
    60,
    120,
    300,
    600,
    900,
    1800,
    3600,
    7200,
    14400,
    36000,
)  # between the ticks of the time axis
# By promise: what is true of a block that is marked.
_MISSED = {"block": "missed the target", "video": "far above the target"}


@dataclass(frozen=True)
class UsageChart:
    """What was drawn: the two axes, and whatever belongs to a curve and not to its frame."""

    usage: "Axes"
    error: "Axes"
    curves: list[Any]


def draw(figure: "Figure", tracks: Sequence[Track], font: float, *, title: str = "") -> UsageChart:
    """Fill an empty figure, with text `font` pixels high. Names the files if there are several.

    Use inside `matplotlib.rc_context(style.chart_settings(...))`. Every track has at least one frame.
    """
    usage, error = _axes(figure, font, title)
    begin, end = min(track.begin for track in tracks), max(track.end for track in tracks)
    if end <= begin:
        end = begin + 1.0  # a single picture, or one whose duration nobody knows
    usage.set_xlim(begin, end)
    _label_time(error, end - begin)
    _draw_cuts((usage, error), tracks)
    curves: list[Any] = []
    for number, track in enumerate(tracks):
        curves += _draw_usage(usage, track, style.track_color(number))
        curves += _draw_error(error, track, style.track_color(number))
    usage.set_ylim(0, max(1.0, _HEADROOM * max(track.usage.top for track in tracks)))
    usage.set_title("tokens per block", loc="left")
    _share_axis(usage, tracks)
    if len(tracks) > 1:
        _name_curves(usage)
    highest = max([track.error.top for track in tracks] + [track.target_mse or 0.0 for track in tracks])
    error.set_ylim(0, _HEADROOM * highest if highest > 0 else 1.0)
    error.set_title("mean square error of each frame", loc="left")
    _draw_targets(error, tracks)
    return UsageChart(usage, error, curves)


def _name_curves(usage: "Axes") -> None:
    """A line above the axes that names the curves and then, once for all files, the marks of blocks."""
    named = {label: handle for handle, label in zip(*usage.get_legend_handles_labels(), strict=True)}
    labels = sorted(named, key=lambda label: label in _MISSED.values())
    usage.legend(
        [named[label] for label in labels],
        labels,
        loc="lower center",
        bbox_to_anchor=(0.5, 0.98),
        ncols=len(named),
        fontsize="medium",
        borderpad=0,
    )


def _axes(figure: "Figure", font: float, title: str) -> tuple["Axes", "Axes"]:
    """Two axes above each other, with room for words measured in letters: no layout engine moves them."""
    from matplotlib.ticker import MaxNLocator

    width, height = figure.bbox.width / font, figure.bbox.height / font
    usage, error = figure.subplots(
        2,
        1,
        sharex=True,
        gridspec_kw={
            "height_ratios": (3, 2),
            "left": _LEFT / width,
            "right": 1 - _RIGHT / width,
            "top": 1 - (_TOP + (_TITLE if title else 0)) / height,
            "bottom": _BOTTOM / height,
            # of the mean height of the two axes
            "hspace": 2 * _BETWEEN / max(1.0, height - _TOP - (_TITLE if title else 0) - _BOTTOM - _BETWEEN),
        },
    )
    usage.yaxis.set_major_locator(MaxNLocator(4, integer=True, min_n_ticks=2))
    error.yaxis.set_major_locator(MaxNLocator(3, min_n_ticks=2))
    usage.tick_params(axis="x", length=0)
    if title:
        figure.suptitle(title, x=_LEFT / width, ha="left", y=1 - 0.4 / height, va="top", weight="bold")
    return usage, error


def _label_time(axes: "Axes", length: float) -> None:
    """Seconds, or minutes where there are many."""
    from matplotlib.ticker import FuncFormatter, MultipleLocator

    if length < _MINUTES_FROM_SECONDS:
        axes.set_xlabel("seconds")
        return
    step = next((step for step in _TICK_STEPS_SECONDS if length / step <= 12), _TICK_STEPS_SECONDS[-1])
    hours = length >= 3600

    def words(seconds: float, _: Any) -> str:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"

    axes.xaxis.set_major_locator(MultipleLocator(step))
    axes.xaxis.set_major_formatter(FuncFormatter(words))
    axes.set_xlabel("hours:minutes:seconds" if hours else "minutes:seconds")


def _draw_usage(axes: "Axes", track: Track, color: str) -> list[Any]:
    """Steps: a block's tokens hold until the next block begins."""
    points = track.usage.points
    edges = [*(point.time for point in points), max(track.end, points[-1].time)]
    if edges[-1] == edges[-2]:
        edges[-1] += 1.0  # nobody knows for how long it is shown
    values = [point.value for point in points]
    area = axes.stairs(values, edges, fill=True, color=color, alpha=_FILL_OPACITY, linewidth=0)
    line = axes.stairs(values, edges, color=color, linewidth=1.4, baseline=None, label=track.label)
    missed = [point for point in points if point.missed]
    if not missed:
        return [area, line]
    marks = axes.plot(
        [point.time for point in missed],
        [point.value for point in missed],
        "v",
        color=style.ALARM,
        markersize=5,
        clip_on=False,
        label=_MISSED[track.promise],
    )
    return [area, line, *marks]


def _draw_error(axes: "Axes", track: Track, color: str) -> list[Any]:
    """A line through the frames, with gaps where nothing is known."""
    points = track.error.points
    times, values = [point.time for point in points], [point.value for point in points]
    known = [not math.isnan(value) for value in values]
    # Between two gaps, or on its own, a line has no length.
    alone = [
        here and not before and not after
        for before, here, after in zip([False, *known[:-1]], known, [*known[1:], False], strict=True)
    ]
    return list(
        axes.plot(times, values, color=color, linewidth=1.1, marker=".", markersize=4, markevery=alone)
    )


def _draw_targets(axes: "Axes", tracks: Sequence[Track]) -> None:
    """A broken line for each target, named at the upper right with what it is one of."""
    targets = {(track.promise, track.target_mse) for track in tracks if track.target_mse is not None}
    for target in {target for _, target in targets}:
        axes.axhline(target, color=style.ALARM, linewidth=1.0, linestyle=(0, (5, 3)))
    if targets:
        named = []
        for promise, scope in SCOPES.items():
            values = sorted(target for of, target in targets if of == promise)
            if values:
                named.append(f"{', '.join(f'{value:g}' for value in values)}, {scope}")
        noun = "target" if len(targets) == 1 else "targets"
        axes.set_title(f"- - {noun} {'; '.join(named)}", loc="right", color=style.ALARM)


def _draw_cuts(pair: tuple["Axes", "Axes"], tracks: Sequence[Track]) -> None:
    cuts = sorted({point.time for track in tracks for point in track.usage.points if point.cut})
    if len(cuts) > style.MAX_CUT_LINES:
        return
    for axes in pair:
        for time in cuts:
            axes.axvline(time, color=style.SOFT, linewidth=0.8, linestyle=(0, (1, 2)), zorder=0.5)


def _share_axis(axes: "Axes", tracks: Sequence[Track]) -> None:
    """Percent at the right, if it means the same for every file."""
    from matplotlib.ticker import MaxNLocator

    capacities = {track.capacity for track in tracks}
    if len(capacities) != 1:
        return
    (capacity,) = capacities

    def percent(count: Any) -> Any:
        return 100 * count / capacity

    def tokens(share: Any) -> Any:
        return share * capacity / 100

    right = axes.secondary_yaxis("right", functions=(percent, tokens))
    right.yaxis.set_major_locator(MaxNLocator(4, min_n_ticks=2))
    axes.set_title("% of a full block", loc="right")

"""Token usage over time above the error of each frame, with matplotlib (extra `plot`)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from elastictok_cli.drawing import style
from elastictok_cli.drawing.tracks import Track

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_HEADROOM = 1.12
_FILL = 0.16


@dataclass(frozen=True)
class UsageChart:
    """What was drawn: the two axes, and whatever belongs to a curve and not to its frame."""

    usage: "Axes"
    error: "Axes"
    curves: list[Any]


def draw(figure: "Figure", tracks: Sequence[Track], *, legend: bool) -> UsageChart:
    """Fill an empty figure. `legend` names the files; one file needs none.

    Use inside `matplotlib.rc_context(style.chart_settings(...))`. Every track has at least one frame.
    """
    usage, error = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    begin, end = min(track.begin for track in tracks), max(track.end for track in tracks)
    if end <= begin:
        end = begin + 1.0  # a single picture, or one whose duration nobody knows
    usage.set_xlim(begin, end)
    curves: list[Any] = []
    _draw_cuts((usage, error), tracks)
    for number, track in enumerate(tracks):
        curves += _draw_usage(usage, track, end, style.track_color(number))
    usage.set_ylim(0, max(1.0, _HEADROOM * max(track.usage.top for track in tracks)))
    usage.set_ylabel("tokens per block")
    _share_axis(usage, tracks)
    for number, track in enumerate(tracks):
        curves += _draw_error(error, track, style.track_color(number))
    _draw_targets(error, tracks)
    highest = max([track.error.top for track in tracks] + [track.target_mse or 0.0 for track in tracks])
    error.set_ylim(0, _HEADROOM * highest if highest > 0 else 1.0)
    error.set_ylabel("mse per frame")
    error.set_xlabel("seconds")
    if legend:
        usage.legend(loc="upper right", ncols=min(4, len(tracks)))
    figure.align_ylabels([usage, error])
    return UsageChart(usage, error, curves)


def _draw_usage(axes: "Axes", track: Track, end: float, color: str) -> list[Any]:
    """Steps: a block's tokens hold until the next block begins."""
    points = track.usage.points
    edges = [*(point.time for point in points), max(end if track.end >= end else track.end, points[-1].time)]
    values = [point.value for point in points]
    area = axes.stairs(values, edges, fill=True, color=color, alpha=_FILL, linewidth=0)
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
    )
    return [area, line, *marks]


def _draw_error(axes: "Axes", track: Track, color: str) -> list[Any]:
    known = track.error.points
    times, values = [point.time for point in known], [point.value for point in known]
    # A gap stays a gap; a frame that is known between two that are not would be invisible without a dot.
    alone = len(known) == 1 or all(math.isnan(value) for value in values)
    return list(axes.plot(times, values, "." if alone else "-", color=color, linewidth=1.1))


def _draw_targets(axes: "Axes", tracks: Sequence[Track]) -> None:
    targets = {track.target_mse for track in tracks if track.target_mse is not None}
    for target in sorted(targets):
        axes.axhline(target, color=style.ALARM, linewidth=1.0, linestyle=(0, (5, 3)))
        axes.annotate(
            f"target {target:g}",
            (1, target),
            xycoords=("axes fraction", "data"),
            xytext=(-3, 2),
            textcoords="offset points",
            ha="right",
            va="bottom",
            fontsize="small",
            color=style.ALARM,
        )


def _draw_cuts(pair: tuple["Axes", "Axes"], tracks: Sequence[Track]) -> None:
    cuts = sorted({point.time for track in tracks for point in track.usage.points if point.cut})
    if len(cuts) > style.MOST_CUTS:
        return
    for axes in pair:
        for time in cuts:
            axes.axvline(time, color=style.SOFT, linewidth=0.8, linestyle=(0, (1, 2)), zorder=0.5)


def _share_axis(axes: "Axes", tracks: Sequence[Track]) -> None:
    """Percent at the right, if it means the same for every file."""
    capacities = {track.capacity for track in tracks}
    if len(capacities) != 1:
        return
    (capacity,) = capacities

    def percent(count: Any) -> Any:
        return 100 * count / capacity

    def tokens(share: Any) -> Any:
        return share * capacity / 100

    right = axes.secondary_yaxis("right", functions=(percent, tokens))
    right.set_ylabel("% of the most possible")

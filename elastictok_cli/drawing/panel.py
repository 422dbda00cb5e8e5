"""The chart of a video that plays: drawn twice with matplotlib, then revealed column by column.

Drawing a chart takes a tenth of a second and copying a part of it none, so a frame costs a copy.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from elastictok_cli.drawing import style, usage_chart
from elastictok_cli.drawing.tracks import Track

Pixels = npt.NDArray[np.uint8]

_DPI = 100
_HALF_LINE = 1  # pixels: half the width of the curve, rounded
_DOT_RADIUS = 4.0  # radius of the dots on the cursor, for text of 12 pixels


class ChartPanel:
    """The usage chart of some files, `width` x `height` pixels, up to a moving point in time.

    `whole`: all of the curves at any time, for a picture that no other follows.
    """

    def __init__(
        self, tracks: Sequence[Track], width: int, height: int, font: int, *, whole: bool = False
    ) -> None:
        import matplotlib as mpl
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self._tracks = list(tracks)
        self._height = height
        settings: Any = style.chart_settings(font * 72 / _DPI)
        with mpl.rc_context(settings):
            figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
            canvas = FigureCanvasAgg(figure)
            self.chart = usage_chart.draw(figure, tracks, font)
            self._full = _pixels(canvas)
            for curve in self.chart.curves:
                curve.set_visible(whole)
            self._empty = _pixels(canvas)
        boxes = [axes.bbox for axes in (self.chart.usage, self.chart.error)]
        self._spans = [(round(height - box.y1), round(height - box.y0)) for box in boxes]
        self._stamps = [
            _disc(_DOT_RADIUS * font / 12, style.rgb(style.track_color(number)))
            for number in range(len(self._tracks))
        ]

    def x_of(self, time: float) -> float:
        """Where a time (seconds) is, in pixels from the left."""
        return float(self.chart.usage.transData.transform((time, 0))[0])

    def y_of_tokens(self, tokens: float) -> float:
        """Where a number of tokens is, in pixels from the top."""
        return self._height - float(self.chart.usage.transData.transform((0, tokens))[1])

    def y_of_error(self, mse: float) -> float:
        """Where an error is, in pixels from the top."""
        return self._height - float(self.chart.error.transData.transform((0, mse))[1])

    def at(self, time: float, end: float | None = None) -> Pixels:
        """The chart, (height, width, 3), with a cursor at `time` and dots on it.

        The curves reach to there; the step of usage goes on to `end`, where the frame that is shown from `time` on
        ends, so that it is seen from a block's first frame. It goes to the chart's edge where no frame follows.
        """
        x = self.x_of(time)
        shown = self._empty.copy()
        column = min(max(int(x), 0), shown.shape[1] - 1)
        shown[:, : column + 1] = self._full[:, : column + 1]
        (top, bottom), _ = self._spans
        reach = self._reach(time, time if end is None else end)
        shown[top:bottom, column + 1 : reach] = self._full[top:bottom, column + 1 : reach]
        for top, bottom in self._spans:
            shown[top:bottom, column] = style.rgb(style.CURSOR)
        for track, stamp in zip(self._tracks, self._stamps, strict=True):
            if time > track.end:
                continue
            for value, place in (
                (track.usage.at(time), self.y_of_tokens),
                (track.error.at(time), self.y_of_error),
            ):
                if np.isfinite(value):
                    _stamp(shown, stamp, x, place(value))
        return shown

    def _reach(self, time: float, end: float) -> int:
        """Columns whose usage is known from `time` to `end`, and never those of a step that begins later.

        That is seen to, as sources with a variable frame rate may declare longer frames than they show.
        """
        end = min([end, *(track.usage.after(time) for track in self._tracks)])
        if end >= max(track.end for track in self._tracks):
            return int(self._full.shape[1])
        return max(0, round(self.x_of(end)) - _HALF_LINE)


def _pixels(canvas: Any) -> Pixels:
    canvas.draw()
    rgba = np.asarray(canvas.buffer_rgba())
    return np.ascontiguousarray(rgba[..., :3])


def _disc(radius: float, color: tuple[int, int, int]) -> tuple[npt.NDArray[np.float64], Pixels]:
    """How much of each pixel of a small square a disc with a white rim covers, and its colours."""
    reach = int(np.ceil(radius + 1.5))
    steps = np.arange(-reach, reach + 1)
    distance = np.hypot(*np.meshgrid(steps, steps))
    cover = np.clip(radius + 1.5 - distance, 0, 1)[..., None]
    inner = np.clip(radius - distance, 0, 1)[..., None]
    colors = inner * np.array(color) + (1 - inner) * np.array(style.rgb(style.PAPER))
    return cover, colors.round().astype(np.uint8)


def _stamp(picture: Pixels, disc: tuple[npt.NDArray[np.float64], Pixels], x: float, y: float) -> None:
    """Blend a disc into the picture around (x, y); what falls outside is left away."""
    cover, colors = disc
    reach = cover.shape[0] // 2
    top, left = round(y - 0.5) - reach, round(x - 0.5) - reach
    rows = slice(max(0, -top), min(cover.shape[0], picture.shape[0] - top))
    columns = slice(max(0, -left), min(cover.shape[1], picture.shape[1] - left))
    target = picture[top + rows.start : top + rows.stop, left + columns.start : left + columns.stop]
    part = cover[rows, columns]
    target[...] = (part * colors[rows, columns] + (1 - part) * target).round()

"""The work of `compare`, one moment at a time: align, measure, find the words, draw."""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from elastictok_cli.analysis import units
from elastictok_cli.analysis.usage import FrameUsage
from elastictok_cli.commands import captions
from elastictok_cli.commands.failures import ExitCode, Failure
from elastictok_cli.commands.sides import Original, Shown, Side
from elastictok_cli.drawing import heat, style
from elastictok_cli.drawing.board import Board, Heading, Moment, amplified
from elastictok_cli.drawing.layout import Layout, arrange
from elastictok_cli.drawing.panel import ChartPanel
from elastictok_cli.drawing.tracks import Envelope, Point, Track
from elastictok_cli.evaluation.pairs import NotTheSource, align
from elastictok_cli.evaluation.quality import Means, Quality, measure

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from elastictok_cli.video import Frame

# Times the recorded error (and 0.002 more): from there on these are not the pictures that were encoded.
_DOUBTFUL_ERROR_RATIO = 4.0


class ComparedFrame(NamedTuple):
    """A frame of the source, and what each file made of it; None where a file has lost it."""

    frame: "Frame"
    shown: list[Shown | None]

    @property
    def usages(self) -> list[FrameUsage | None]:
        """What it cost, and its quality."""
        return [None if one is None else one.usage for one in self.shown]


def measured(
    original: Original,
    sides: Sequence[Side],
    *,
    start: float | None = None,
    duration: float | None = None,
    structure: bool = True,
) -> Iterator[ComparedFrame]:
    """Every frame of the source that the files cover, decoded and measured against it.

    Raises Failure where a file has frames that the source has not. One frame is in memory at a time.
    """
    streams = [side.frames(*side.window(start, duration)) for side in sides]
    try:
        last = max((side.reader.index[-1].last_pts for side in sides if side.reader.index), default=None)
        for frame, shown in align(original.frames(), streams, shift=original.shift, last=last):
            yield ComparedFrame(
                frame,
                [None if one is None else _measure(frame.rgb, one, structure=structure) for one in shown],
            )
    except NotTheSource as error:
        place = units.clock(float(error.pts * original.time_base), 2)
        raise Failure(
            f"{sides[error.number].path} has a frame at {place} and {original.path} has none there: "
            "it was not made from this source",
            ExitCode.BAD_INPUT,
        ) from None


def _measure(source: "npt.NDArray[np.uint8]", shown: Shown, *, structure: bool) -> Shown:
    quality = measure(source, shown.rgb, structure=structure)
    usage = shown.usage._replace(
        measured_mse=quality.mse, measured_psnr=quality.psnr, ssim=quality.ssim, ms_ssim=quality.ms_ssim
    )
    return shown._replace(usage=usage)


class Comparison:
    """Some files beside their source. `survey` first, then `board`, then `moments`, each once."""

    def __init__(
        self,
        original: Original,
        sides: Sequence[Side],
        *,
        tint: bool = False,
        gain: float | None = None,
        structure: bool = True,
    ) -> None:
        """tint: show keep maps over the pictures. gain: of the differences, None without. structure: measure SSIM."""
        self.original, self.sides = original, list(sides)
        self.tint, self.gain, self.structure = tint, gain, structure
        self.means = [Means() for _ in sides]
        self.lost = [0 for _ in sides]
        self.doubtful: set[Path] = set()  # files whose pictures are far from what they record
        self.tracks: list[Track] = []
        self._mean_mse: list[float] = []
        self._window: tuple[float | None, float | None] = (None, None)

    def survey(
        self,
        start: float | None,
        duration: float | None,
        *,
        whole: bool = False,
        on_measured: Callable[[float], None] = lambda _: None,
    ) -> None:
        """Read what the files say of the window (of all their frames if `whole`) for captions and chart.

        Where a file does not know its errors they are measured, which takes as long as decoding; `on_measured` is
        called with the time of each frame then. Raises Failure if a file has no frame there.
        """
        self._window = (start, duration)
        names = captions.titles([s.path for s in self.sides], [s.reader.header for s in self.sides])
        for side, name in zip(self.sides, names, strict=True):
            window = (None, None) if whole else side.window(start, duration)
            track = side.survey(name, *window)
            if not side.totals.frames:
                raise side.nothing()
            self.tracks.append(track)
            self._mean_mse.append(side.totals.mse)
        if any(side.totals.known < side.totals.frames for side in self.sides) and not whole:
            self._measure_errors(on_measured)

    def _measure_errors(self, on_measured: Callable[[float], None]) -> None:
        fresh = [Envelope() for _ in self.tracks]
        sums = [Means() for _ in self.tracks]
        for _, shown in measured(
            self.original, self.sides, start=self._window[0], duration=self._window[1], structure=False
        ):
            for one, error, total in zip(shown, fresh, sums, strict=True):
                if one is not None:
                    on_measured(one.usage.time)
                    error.add(Point(one.usage.time, _error_of(one.usage)))
                    total.add(Quality(one.usage.measured_mse, math.nan, math.nan, math.nan))
        for number, side in enumerate(self.sides):
            if side.totals.known < side.totals.frames:
                self.tracks[number].error = fresh[number]
                self._mean_mse[number] = sums[number].means().mse

    @property
    def begin(self) -> float:
        """Seconds, on the clock of the files."""
        return min(track.begin for track in self.tracks)

    @property
    def end(self) -> float:
        """Likewise, the end of the last frame."""
        return max(track.end for track in self.tracks)

    @property
    def still(self) -> bool:
        """Whether there is but one picture."""
        return all(side.totals.frames == 1 for side in self.sides)

    def layout(self, most_width: int) -> Layout:
        """Where everything goes."""
        info = self.original.info
        return arrange(
            (info.width, info.height),
            len(self.sides),
            aspect=float(info.pixel_aspect),
            difference=self.gain is not None,
            legend=self.tint,
            chart=not self.still,
            most_width=most_width,
        )

    def headings(self) -> list[Heading]:
        """One for each caption of the layout."""
        info = self.original.info
        colors = [None if self.still else style.track_color(number) for number in range(len(self.sides))]
        found = [Heading("original", captions.source_facts(self.original.path, info))]
        files = zip(self.sides, self.tracks, self._mean_mse, colors, strict=True)
        for side, track, mse, color in files:
            found.append(Heading(track.label, captions.file_facts(side.totals, mse), color))
        if self.gain is not None:
            for track, color in zip(self.tracks, colors, strict=True):
                facts = "reconstruction less original, around grey"
                title = f"difference × {self.gain:g}"  # noqa: RUF001
                if len(self.tracks) > 1:
                    title, facts = f"{title}, {track.label}", facts
                found.append(Heading(title, facts, color))
        return found

    def board(self, most_width: int, *, whole: bool = False) -> Board:
        """What to draw the moments with. `whole`: the curves are shown to their ends at any time."""
        layout = self.layout(most_width)
        panel = None
        if layout.chart is not None:
            chart = layout.chart
            panel = ChartPanel(self.tracks, chart.width, chart.height, layout.font, whole=whole)
        most = max(side.reader.header.model.full_cell for side in self.sides)
        return Board(layout, self.headings(), panel, tokens_per_cell=most if self.tint else None)

    def moments(self) -> Iterator[tuple[ComparedFrame, Moment]]:
        """Each frame of the source, measured, and what is to be drawn of it."""
        start, duration = self._window
        found = measured(self.original, self.sides, start=start, duration=duration, structure=self.structure)
        for item in found:
            self._count(item)
            yield item, self._moment(item)

    def _count(self, item: ComparedFrame) -> None:
        for number, (side, usage) in enumerate(zip(self.sides, item.usages, strict=True)):
            if usage is None:
                self.lost[number] += 1
                continue
            self.means[number].add(
                Quality(usage.measured_mse, usage.measured_psnr, usage.ssim, usage.ms_ssim)
            )
            if usage.measured_mse > _DOUBTFUL_ERROR_RATIO * usage.mse + 0.002:
                self.doubtful.add(side.path)

    def _moment(self, item: ComparedFrame) -> Moment:
        frame = item.frame
        seconds = float((frame.pts + self.original.shift) * self.original.time_base)
        length = frame.duration * self.original.time_base or _length_of(item.usages)
        differences: list[npt.NDArray[np.uint8] | None] = []
        lines = [
            captions.source_line(item.usages, seconds, still=self.still),
            *map(captions.file_line, item.usages),
        ]
        if self.gain is not None:
            differences = [
                None if one is None else amplified(frame.rgb, one.rgb, self.gain) for one in item.shown
            ]
            lines += map(captions.difference_line, item.usages)
        return Moment(
            time=seconds,
            end=seconds + float(length),
            original=frame.rgb,
            shown=[self._picture(side, one) for side, one in zip(self.sides, item.shown, strict=True)],
            differences=differences,
            lines=lines,
        )

    def _picture(self, side: Side, shown: Shown | None) -> "npt.NDArray[np.uint8] | None":
        if shown is None or not self.tint:
            return None if shown is None else shown.rgb
        model = side.reader.header.model
        return heat.overlay(shown.rgb, shown.keep, model.full_cell, model.cell)


def _length_of(usages: Sequence[FrameUsage | None]) -> float:
    """Seconds for which the files show a frame; 0 where none of them knows."""
    return next((usage.duration for usage in usages if usage is not None), 0.0)


def _error_of(usage: FrameUsage) -> float:
    return usage.measured_mse if math.isnan(usage.mse) else usage.mse

"""What an .etk file spends on each frame. Needs no model."""

import math
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from elastictok_cli.analysis import units

if TYPE_CHECKING:
    from formats import Block, EtkReader, Header
    from formats.facts import SegmentFacts


class FrameUsage(NamedTuple):
    """One frame. Tokens of a block are shared evenly by its frames, bytes of a segment by tokens."""

    frame: int
    time: float  # seconds
    duration: float  # seconds, 0 if unknown
    block: int
    segment: int
    keyframe: bool  # the first frame of a segment's first block
    scene_cut: bool
    missed: bool  # its block did not meet the target
    tokens: float
    block_tokens: int
    share: float  # of the most tokens the block could keep
    bytes: float
    mse: float  # as the file records it; NaN if unknown
    psnr: float  # of that
    measured_mse: float = math.nan  # against the source, where it was given
    measured_psnr: float = math.nan
    ssim: float = math.nan
    ms_ssim: float = math.nan


MEASURED = ("measured_mse", "ssim", "ms_ssim")  # fields of FrameUsage that are averaged over a file


class CodedFrame(NamedTuple):
    """One frame, when it is shown, and the block it is coded in (without tokens; its keep map is there)."""

    usage: FrameUsage
    pts: int  # in the file's time base
    block: "Block"


@dataclass(frozen=True, slots=True)
class SegmentUsage:
    """The frames of one segment, as columns; `rows` makes FrameUsage of them, which takes most of the time.

    first_frame, first_block: how many of the file come before. capacity: tokens of a full block.
    time_base: seconds in a tick, as numerator and denominator. times: of its frames, in seconds.
    """

    facts: "SegmentFacts"
    first_frame: int
    first_block: int
    capacity: int
    time_base: tuple[int, int]
    times: list[float]

    @property
    def block_times(self) -> list[float]:
        """When each block begins, in seconds."""
        return [self.times[start] for start in self.facts.starts[:-1]]

    @property
    def end(self) -> float:
        """When the last frame ends, in seconds."""
        return self.times[-1] + self._seconds(self.facts.durations[-1])

    def rows(self) -> Iterator[FrameUsage]:
        """All frames."""
        return (row for block in range(len(self.facts.tokens)) for row in self.block(block))

    def block(self, number: int) -> Iterator[FrameUsage]:
        """The frames of one block, counted in the segment."""
        facts = self.facts
        first, end = facts.starts[number], facts.starts[number + 1]
        count, length = facts.tokens[number], end - first
        total = sum(facts.tokens)
        if total:
            cost = facts.size_bytes / total * count / length
        else:
            cost = facts.size_bytes / len(facts.pts)
        for place in range(first, end):
            yield FrameUsage(
                frame=self.first_frame + place,
                time=self.times[place],
                duration=self._seconds(facts.durations[place]),
                block=self.first_block + number,
                segment=facts.number,
                keyframe=place == 0,
                scene_cut=facts.scene_cuts[number] and place == first,
                missed=facts.missed[number],
                tokens=count / length,
                block_tokens=count,
                share=count / self.capacity,
                bytes=cost,
                mse=facts.errors[place],
                psnr=units.psnr(facts.errors[place]),
            )

    def _seconds(self, ticks: int) -> float:
        tick, second = self.time_base
        return ticks * tick / second


class _Counter:
    """Numbers the frames and blocks of segments, which it is given in the order of the file."""

    def __init__(self, header: "Header") -> None:
        self._time_base = header.time_base
        self._capacity = header.grid[0] * header.grid[1] * header.model.full_cell
        self._frames = self._blocks = 0

    def count(self, facts: "SegmentFacts") -> SegmentUsage:
        """Number the next segment."""
        tick, second = self._time_base
        times = [pts * tick / second for pts in facts.pts]
        usage = SegmentUsage(facts, self._frames, self._blocks, self._capacity, self._time_base, times)
        self._frames += len(facts.pts)
        self._blocks += len(facts.tokens)
        return usage


def segments(reader: "EtkReader") -> Iterator[SegmentUsage]:
    """Every segment that can be read, in order of time."""
    return map(_Counter(reader.header).count, reader.facts())


def frames(reader: "EtkReader") -> Iterator[FrameUsage]:
    """Every frame that can be read, in order of time."""
    return (row for segment in segments(reader) for row in segment.rows())


def coded_frames(
    reader: "EtkReader", *, first_pts: int | None = None, end_pts: int | None = None
) -> Iterator[CodedFrame]:
    """Every frame with first_pts <= pts < end_pts that can be read, numbered as in the whole file."""
    from formats.facts import facts_of

    counter = _Counter(reader.header)
    for segment in reader.segments(tokens=False):
        usage = counter.count(facts_of(segment))
        for number, block in enumerate(segment.blocks):
            for pts, row in zip(block.pts, usage.block(number), strict=True):
                if end_pts is not None and pts >= end_pts:
                    return
                if first_pts is None or pts >= first_pts:
                    yield CodedFrame(row, pts, block)


def _doubles() -> "array[float]":
    return array("d")


@dataclass
class Totals:
    """Sums over frames, and the series of a chart."""

    segments: int = 0
    bytes: float = 0.0
    measured: dict[str, float] = field(default_factory=lambda: dict.fromkeys(MEASURED, 0.0))  # sums
    end: float = 0.0  # seconds
    frame_times: "array[float]" = field(default_factory=_doubles)
    frame_mse: "array[float]" = field(default_factory=_doubles)
    block_times: "array[float]" = field(default_factory=_doubles)
    block_tokens: "array[int]" = field(default_factory=lambda: array("q"))
    block_missed: bytearray = field(default_factory=bytearray)
    block_cut: bytearray = field(default_factory=bytearray)

    def add(self, row: FrameUsage) -> None:
        """Count a frame."""
        if row.block == len(self.block_tokens):
            self.block_tokens.append(row.block_tokens)
            self.block_missed.append(row.missed)
            self.block_cut.append(row.scene_cut)
            self.block_times.append(row.time)
        self.frame_times.append(row.time)
        self.frame_mse.append(row.mse)
        self.segments += row.keyframe
        self.bytes += row.bytes
        self.measured["measured_mse"] += row.measured_mse
        self.measured["ssim"] += row.ssim
        self.measured["ms_ssim"] += row.ms_ssim
        self.end = row.time + row.duration

    def add_segment(self, usage: SegmentUsage) -> None:
        """Count all frames of a segment, whose errors were not measured against a source."""
        facts = usage.facts
        self.block_tokens.extend(facts.tokens)
        self.block_missed.extend(facts.missed)
        self.block_cut.extend(facts.scene_cuts)
        self.block_times.extend(usage.block_times)
        self.frame_times.extend(usage.times)
        self.frame_mse.extend(facts.errors)
        self.segments += 1
        self.bytes += facts.size_bytes
        self.measured = dict.fromkeys(MEASURED, math.nan)
        self.end = usage.end

    @property
    def frames(self) -> int:
        """Frames that could be read."""
        return len(self.frame_mse)

    @property
    def duration(self) -> float:
        """Seconds from the first frame to the end of the last."""
        return self.end - self.frame_times[0] if self.frame_times else 0.0

    def block_lengths(self) -> list[float]:
        """Seconds from the beginning of each block to that of the next, or to the end."""
        return [b - a for a, b in pairwise([*self.block_times, self.end])]

    @property
    def mean_error(self) -> float:
        """Mean over all frames; NaN where that of a frame is unknown, or there is no frame."""
        return math.fsum(self.frame_mse) / self.frames if self.frames else math.nan

    def errors(self) -> tuple[float, float]:
        """Mean and largest error of the frames where it is known; NaN when none is."""
        known = [mse for mse in self.frame_mse if not math.isnan(mse)]
        return (math.fsum(known) / len(known), max(known)) if known else (math.nan, math.nan)

"""What an .etk file spends on each frame. Needs no model."""

import math
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from elastictok_cli.commands import units

if TYPE_CHECKING:
    from elastictok_cli.drawing.tracks import Track
    from formats import Block, EtkReader, Segment


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


MEASURED = ("measured_mse", "ssim", "ms_ssim")  # fields whose means say something


class CodedFrame(NamedTuple):
    """One frame, when it is shown, and the block it is coded in (without tokens; its keep map is there)."""

    usage: FrameUsage
    pts: int  # in the file's time base
    block: "Block"


def frames(reader: "EtkReader") -> Iterator[FrameUsage]:
    """Every frame that can be read, in order of time."""
    return (coded.usage for coded in coded_frames(reader))


def coded_frames(
    reader: "EtkReader", *, first_pts: int | None = None, end_pts: int | None = None
) -> Iterator[CodedFrame]:
    """Every frame with first_pts <= pts < end_pts that can be read, numbered as in the whole file."""
    header = reader.header
    tick, second = header.time_base
    capacity = header.grid[0] * header.grid[1] * header.model.tokens_per_cell
    number = block_number = 0
    for segment in reader.segments(tokens=False):
        counts = [block.token_count for block in segment.blocks]
        costs = _bytes_per_frame(segment, counts)
        for position, (block, count, cost) in enumerate(zip(segment.blocks, counts, costs, strict=True)):
            facts = zip(block.pts, block.durations, block.frame_mse, strict=True)
            for place, (pts, duration, mse) in enumerate(facts):
                if end_pts is not None and pts >= end_pts:
                    return
                usage = FrameUsage(
                    frame=number,
                    time=pts * tick / second,
                    duration=duration * tick / second,
                    block=block_number,
                    segment=segment.number,
                    keyframe=position == 0 and place == 0,
                    scene_cut=block.scene_cut and place == 0,
                    missed=block.missed,
                    tokens=count / len(block.pts),
                    block_tokens=count,
                    share=count / capacity,
                    bytes=cost,
                    mse=mse,
                    psnr=units.psnr(mse),
                )
                number += 1
                if first_pts is None or pts >= first_pts:
                    yield CodedFrame(usage, pts, block)
            block_number += 1


def put_on_track(track: "Track", row: FrameUsage) -> None:
    """Add a frame to the series of a chart."""
    track.add(
        row.time,
        row.duration,
        row.mse,
        block=row.block,
        block_tokens=row.block_tokens,
        scene_cut=row.scene_cut,
        missed=row.missed,
    )


def _bytes_per_frame(segment: "Segment", counts: list[int]) -> list[float]:
    """For each block (with so many tokens), the bytes of one of its frames."""
    lengths = [len(block.pts) for block in segment.blocks]
    if not sum(counts):
        return [segment.size_bytes / sum(lengths)] * len(lengths)
    each = segment.size_bytes / sum(counts)
    return [each * count / length for count, length in zip(counts, lengths, strict=True)]


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

    def errors(self) -> tuple[float, float]:
        """Mean and largest error of the frames where it is known; NaN when none is."""
        known = [mse for mse in self.frame_mse if not math.isnan(mse)]
        return (math.fsum(known) / len(known), max(known)) if known else (math.nan, math.nan)

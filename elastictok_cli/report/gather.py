"""What the page shows, as plain values for JSON. Memory does not grow with the length of the video."""

import heapq
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from elastictok_cli.analysis import units
from elastictok_cli.analysis.kinds import count_kinds
from elastictok_cli.analysis.usage import FrameUsage, frames
from elastictok_cli.report.series import Chosen, Series, Strip, numbers, pack
from formats import EtkReader, KindCounts, Segment

MAX_BLOCK_POINTS, MAX_FRAME_POINTS, MAX_STEP_POINTS = (
    4096,
    8192,
    1024,
)  # of the charts; longer series are merged
_STRIP_ROWS = 24
_MAX_MOMENTS = 12  # lines of the table of the costliest blocks
DEFAULT_CARDS = 48  # segments shown where no number is asked for
_MIN_SECONDS_BETWEEN_MOMENTS = 0.5  # of the blocks within such a span, the table names only the costliest
_MAX_MAP_SIDE = 96  # cells of a heat map along one side; more are pooled

Picture = Callable[[Segment], tuple[str, int, int]]  # data URI, width, height of a segment's first frame


@dataclass
class Gathered:
    """Sums, charts and tables over all frames that can be read."""

    blocks: Series = field(
        default_factory=lambda: Series(
            MAX_BLOCK_POINTS,
            {
                "start": "first",
                "end": "last",
                "block": "first",
                "frame": "first",
                "tokens": "max",  # of a block
                "each": "max",  # of one of its frames
                "sum": "sum",
                "bytes": "sum",
                "key": "max",
                "cut": "max",
                "missed": "max",
            },
        )
    )
    frames: Series = field(
        default_factory=lambda: Series(
            MAX_FRAME_POINTS, {"start": "first", "end": "last", "worst": "max", "best": "min"}
        )
    )
    segments: Chosen = field(default_factory=lambda: Chosen(2))
    count: int = 0
    blocks_count: int = 0
    segments_count: int = 0
    tokens: int = 0
    kinds: KindCounts = field(default_factory=KindCounts)
    most: int = 0
    fewest: int = 0
    bytes: float = 0.0
    missed: int = 0
    cuts: int = 0
    start: float = 0.0  # seconds
    end: float = 0.0
    known: int = 0  # frames whose error is known
    error: float = 0.0  # their sum
    worst: float = math.nan
    worst_at: float = 0.0
    moments: list[dict[str, Any]] = field(default_factory=list)

    @property
    def mse(self) -> float:
        """Mean over the frames where it is known; NaN if none is."""
        return self.error / self.known if self.known else math.nan

    @property
    def mean_error(self) -> float:
        """Mean over all frames; NaN unless it is known of each."""
        return self.mse if self.known == self.count else math.nan


@dataclass
class _Block:
    """One block, while its frames are read."""

    first: FrameUsage
    end: float
    bytes: float
    errors: list[float]


def gather(
    reader: EtkReader, measured: Iterator[float] | None, cards: int, tick: Callable[[int], None]
) -> Gathered:
    """Read all frames; `measured` are their errors where the recorded ones are not to be used."""
    found = Gathered(segments=Chosen(max(2, cards + cards % 2)))
    moments = _Moments()
    block: _Block | None = None
    segment = _SegmentSum()
    for row in frames(reader):
        mse = row.mse if measured is None else next(measured)
        if row.keyframe:
            segment.hand_over(found)
            segment = _SegmentSum(row)
        if block is None or block.first.block != row.block:
            if block is not None:
                _add_block(found, moments, block)
            block = _Block(row, row.time, 0.0, [])
        end = row.time + row.duration
        block.end = max(block.end, end)
        block.bytes += row.bytes
        block.errors.append(mse)
        segment.add(row, mse)
        if not found.count:
            found.start = row.time
        found.end = max(found.end, end)
        found.count += 1
        if not math.isnan(mse):
            found.known += 1
            found.error += mse
            if not found.worst >= mse:
                found.worst, found.worst_at = mse, row.time
        found.frames.add(start=row.time, end=end, worst=mse, best=mse)
        tick(found.count)
    if block is not None:
        _add_block(found, moments, block)
    segment.hand_over(found)
    found.moments = moments.sorted()
    found.kinds = count_kinds(reader, tick)
    return found


def _add_block(found: Gathered, moments: "_Moments", block: _Block) -> None:
    row = block.first
    found.fewest = min(found.fewest, row.block_tokens) if found.blocks_count else row.block_tokens
    found.most = max(found.most, row.block_tokens)
    found.blocks_count += 1
    found.tokens += row.block_tokens
    found.bytes += block.bytes
    found.missed += row.missed
    found.cuts += row.scene_cut
    found.blocks.add(
        start=row.time,
        end=block.end,
        block=row.block,
        frame=row.frame,
        tokens=row.block_tokens,
        each=row.tokens,
        sum=row.block_tokens,
        bytes=block.bytes,
        key=row.keyframe,
        cut=row.scene_cut,
        missed=row.missed,
    )
    moments.add(block)


class _Moments:
    """The costliest blocks, one in each short span of time."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, _Block]] = []
        self._span: int | None = None
        self._best: _Block | None = None

    def add(self, block: _Block) -> None:
        span = math.floor(block.first.time / _MIN_SECONDS_BETWEEN_MOMENTS)
        if span != self._span:
            self._push()
            self._span, self._best = span, block
        elif self._best is None or block.first.block_tokens > self._best.first.block_tokens:
            self._best = block

    def sorted(self) -> list[dict[str, Any]]:
        """Most tokens first."""
        self._push()
        self._best = None
        return [_moment(block) for _, _, block in sorted(self._heap, key=lambda item: (-item[0], -item[1]))]

    def _push(self) -> None:
        if self._best is not None:
            # of blocks with equally many tokens, the earlier one stays
            heapq.heappush(self._heap, (self._best.first.block_tokens, -self._best.first.block, self._best))
            if len(self._heap) > _MAX_MOMENTS:
                heapq.heappop(self._heap)


def _moment(block: _Block) -> dict[str, Any]:
    row = block.first
    mse = float(np.mean(block.errors))
    return {
        "start": row.time,
        "end": block.end,
        "block": row.block,
        "frame": row.frame,
        "frames": len(block.errors),
        "tokens": row.block_tokens,
        "share": row.share,
        "bytes": block.bytes,
        "mse": mse,
        "psnr": units.psnr(mse),
        "key": row.keyframe,
        "cut": row.scene_cut,
        "missed": row.missed,
    }


@dataclass
class _SegmentSum:
    """What a card says about its segment."""

    first: FrameUsage | None = None
    end: float = 0.0
    frames: int = 0
    tokens: float = 0.0
    bytes: float = 0.0
    error: float = 0.0

    def add(self, row: FrameUsage, mse: float) -> None:
        self.frames += 1
        self.tokens += row.tokens
        self.bytes += row.bytes
        self.error += mse
        self.end = max(self.end, row.time + row.duration)

    def hand_over(self, found: Gathered) -> None:
        if self.first is None:
            return
        found.segments_count += 1
        found.segments.add(
            self.tokens / self.frames,
            {
                "number": self.first.segment,
                "start": self.first.time,
                "end": self.end,
                "frames": self.frames,
                "cut": self.first.scene_cut,
                "tokens": round(self.tokens),
                "bytes": round(self.bytes),
                "psnr": units.psnr(self.error / self.frames),
            },
        )


def charts(found: Gathered) -> dict[str, Any]:
    """The two series as columns, rounded."""
    blocks, errors = found.blocks, found.frames
    return {
        "blocks": {
            "step": blocks.step,
            "start": numbers(blocks.column("start"), 4),
            "end": numbers(blocks.column("end"), 4),
            "block": numbers(blocks.column("block"), 0),
            "frame": numbers(blocks.column("frame"), 0),
            "tokens": numbers(blocks.column("tokens"), 0),
            "each": numbers(blocks.column("each"), 1),
            "sum": numbers(blocks.column("sum"), 0),
            "bytes": numbers(blocks.column("bytes"), 1),
            "flags": [
                int(key) + 2 * int(cut) + 4 * int(missed)
                for key, cut, missed in zip(*map(blocks.column, ("key", "cut", "missed")), strict=True)
            ],
        },
        "frames": {
            "step": errors.step,
            "start": numbers(errors.column("start"), 4),
            "end": numbers(errors.column("end"), 4),
            "worst": numbers(errors.column("worst"), 4),
            "best": numbers(errors.column("best"), 4),
        },
    }


def strip(reader: EtkReader) -> dict[str, Any]:
    """The keep maps of all blocks over time."""
    tick, second = reader.header.time_base
    found = Strip(MAX_STEP_POINTS, reader.header.grid, _STRIP_ROWS)
    for block in reader.blocks(tokens=False):
        start, end = block.pts[0] * tick / second, (block.pts[-1] + block.durations[-1]) * tick / second
        found.add(start, end, block.keep)
    return found.facts()


def cards(
    reader: EtkReader, found: Gathered, picture: Picture | None, tick: Callable[[int], None]
) -> list[Any]:
    """What is shown of the chosen segments: facts, mean keep map, first frame."""
    chosen = {facts["number"]: facts for facts in found.segments.things()}
    made = []
    for segment in _segments(reader, chosen, tokens=picture is not None):
        card = chosen[segment.number] | {"map": _heat_map([block.keep for block in segment.blocks])}
        if picture is not None:
            card["picture"], card["width"], card["height"] = picture(segment)
        made.append(card)
        tick(len(made))
    return made


def _segments(reader: EtkReader, chosen: dict[int, dict[str, Any]], *, tokens: bool) -> Iterator[Segment]:
    """The segments of these numbers: by the index where there is one, else in one walk over the file."""
    if reader.index is None:
        yield from (segment for segment in reader.segments(tokens=tokens) if segment.number in chosen)
        return
    second = 1 / Fraction(*reader.header.time_base)
    for number, facts in chosen.items():
        pts = round(Fraction(facts["start"]) * second)
        yield from (s for s in reader.segments(pts, pts + 1, tokens=tokens) if s.number == number)


def _heat_map(keeps: list[npt.NDArray[np.uint16]]) -> dict[str, Any]:
    """Mean tokens of each cell over a segment's blocks; of neighbours pooled into one, the most."""
    mean = np.zeros((len(keeps[0]), len(keeps[0][0])))
    for keep in keeps:
        mean += keep
    mean /= len(keeps)
    by = -(-max(mean.shape) // _MAX_MAP_SIDE)
    rows, columns = -(-mean.shape[0] // by), -(-mean.shape[1] // by)
    padded = np.zeros((rows * by, columns * by))
    padded[: mean.shape[0], : mean.shape[1]] = mean
    pooled = padded.reshape(rows, by, columns, by).max((1, 3))
    return {"rows": rows, "columns": columns, **pack(pooled)}

"""A file to a thinner one, segment by segment: how many tokens there are, which go, and what is written.

Two passes: the first counts tokens by level (`thinning.Levels`), the second writes. For a budget in bytes, levels are
tried between them. Nothing grows with the length of the
video but a line for each segment.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from elastictok_cli.codec import events
from elastictok_cli.codec.thinning import MAX_LEVEL, Cap, IntArray, Level, Levels, level_for, thinned
from elastictok_cli.version import __version__
from formats import Block, EtkReader, EtkWriter, Header, Segment

if TYPE_CHECKING:
    from typing_extensions import Buffer

# Shares of a budget in bytes: what the search aims at, and what is close enough to stop.
_AIMED_SHARE = 0.996
_CLOSE_ENOUGH_ESTIMATE = 0.992
_CLOSE_ENOUGH_FILE = 0.985
_MAX_ATTEMPTS = 6  # levels tried
# A size is estimated from a few segments: this many, and one more for every 32 that the file has.
_MIN_SAMPLED_SEGMENTS = 4
_SEGMENTS_PER_SAMPLED_ONE = 32

_OF_THE_PROMISE = ("worst", "bound")  # options that say nothing without a target

Measure = Callable[[Sequence[Block]], list[Block]]


class BudgetTooSmall(Exception):
    """The file is larger than asked even without a single token. bytes: its size then."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.bytes = size


class Span(NamedTuple):
    """Where a segment is: pts of its first and last frame; bytes of its unit."""

    first_pts: int
    last_pts: int
    bytes: int


@dataclass
class Survey:
    """What a file holds. Times in ticks of its time base."""

    frames: int = 0
    blocks: int = 0
    segments: int = 0
    tokens: int = 0
    bytes: int = 0  # of its segments
    first_pts: int | None = None
    end_pts: int = 0
    longest_sequence: int = 0  # tokens of the cell that keeps most
    spans: list[Span] = field(default_factory=list)
    by_level: IntArray = field(default_factory=lambda: np.zeros(MAX_LEVEL + 1, np.int64))

    @property
    def ticks(self) -> int:
        """From the first frame to the end of the last."""
        return self.end_pts - (self.first_pts or 0)


def survey(reader: EtkReader, *, levels: bool) -> Iterator[Survey]:
    """Read a file once; the same object is given after every segment, complete at the end."""
    found = Survey()
    order = Levels(reader.header)
    yield found
    for segment in reader.segments(tokens=levels):
        blocks = segment.blocks
        found.segments += 1
        found.blocks += len(blocks)
        found.frames += sum(len(block.pts) for block in blocks)
        found.tokens += sum(block.token_count for block in blocks)
        found.bytes += segment.size_bytes
        found.spans.append(Span(blocks[0].pts[0], blocks[-1].pts[-1], segment.size_bytes))
        found.longest_sequence = max(found.longest_sequence, *(int(block.keep.max()) for block in blocks))
        if found.first_pts is None:
            found.first_pts = blocks[0].pts[0]
        found.end_pts = blocks[-1].pts[-1] + blocks[-1].durations[-1]
        if levels:
            found.by_level += order.count(blocks)
        yield found


def by_share(found: Survey, share: float) -> Level:
    """Keep at most this share of the tokens, 0 to 1."""
    return Level(level_for(found.by_level, math.floor(share * found.tokens)))


def by_bytes(
    reader: EtkReader,
    header: Header,
    found: Survey,
    budget: int,
    tick: Callable[[], None],
) -> Level:
    """Keep what fits into a file of so many bytes, audio and everything included. Raises BudgetTooSmall.

    Levels are tried on a few segments, spread over the file, and the best of them by packing all of it (mostly once).
    `tick` is called after each segment packed.
    """
    fixed = size_as_it_is(reader, header, found) - found.bytes
    count = min(found.segments, _MIN_SAMPLED_SEGMENTS + found.segments // _SEGMENTS_PER_SAMPLED_ONE)
    sample = [found.spans[(2 * n + 1) * found.segments // (2 * count)] for n in range(count)]
    scale = found.bytes / sum(span.bytes for span in sample)

    def estimate(level: int) -> int:
        size = 0
        for span in sample:
            for segment in reader.segments(span.first_pts, span.last_pts + 1):
                writer = EtkWriter(_Discard(), header)
                size += writer.write_segment(thinned(header, segment.blocks, Level(level)))
                tick()
        return fixed + round(size * scale)

    def pack(level: int) -> int:
        writer = EtkWriter(_Discard(), header)
        for _ in rewrite(reader, writer, Level(level)):
            tick()
        return writer.bytes_written

    low, high = (-1, fixed), (MAX_LEVEL, fixed + found.bytes)
    near = _level_for_bytes(estimate, budget, found.by_level, low, high, close=_CLOSE_ENOUGH_ESTIMATE)
    level = _level_for_bytes(pack, budget, found.by_level, low, high, close=_CLOSE_ENOUGH_FILE, first=near)
    if level < 0 and (size := pack(level)) > budget:
        raise BudgetTooSmall(size)
    return Level(level)


def _level_for_bytes(
    size_of: Callable[[int], int],
    budget: int,
    by_level: IntArray,
    low: tuple[int, int],
    high: tuple[int, int],
    *,
    close: float,
    first: int | None = None,
) -> int:
    """The highest level tried whose size is in the budget, by interpolation in tokens.

    low, high: a level that fits and one that does not, with their sizes. Stops where a size reaches `close` of the
    budget, or after some tries.
    """
    kept = np.append(by_level.cumsum(), 0)  # at -1: none
    aim = _AIMED_SHARE * budget
    for _ in range(_MAX_ATTEMPTS):
        if high[0] - low[0] <= 1 or (low[0] >= 0 and low[1] >= close * budget):
            break
        part = (aim - low[1]) / max(1, high[1] - low[1])
        wanted = math.floor(kept[low[0]] + (kept[high[0]] - kept[low[0]]) * part)
        level = level_for(by_level, wanted) if first is None else first
        first = None
        level = min(max(level, low[0] + 1), high[0] - 1)
        size = size_of(level)
        if size <= budget:
            low = level, size
        else:
            high = level, size
            aim = max(low[1], aim - 0.003 * budget)  # bytes do not fall quite as fast as tokens
    return low[0]


def side_bytes(reader: EtkReader) -> int:
    """Bytes of the copied audio and subtitles."""
    return sum(map(len, reader.aux()))


def size_as_it_is(reader: EtkReader, header: Header, found: Survey) -> int:
    """Bytes of the file with nothing dropped, the index estimated generously."""
    writer = EtkWriter(_Discard(), header)
    for part in reader.aux():
        writer.write_aux(part)
    return writer.close() + found.bytes + 32 * found.segments


def error_bytes(found: Survey) -> int:
    """The most bytes that known errors take more than unknown ones."""
    return 2 * found.frames + 12 * found.segments


def drops(found: Survey, rule: Cap | Level) -> bool:
    """Whether the rule drops anything at all."""
    if isinstance(rule, Cap):
        return found.longest_sequence > rule.tokens
    return bool(found.by_level[rule.level + 1 :].any())


def thinned_header(header: Header, how: str, rule: Cap | Level, frames: int) -> Header:
    """What the thinned file says of itself: no promise any more, and what became of the old one.

    A fixed length is still one after a cap; a target error is not, and moves to the options. A budget stays there, as
    fewer tokens fit it as well.
    """
    options = {name: value for name, value in header.options.items() if name not in _OF_THE_PROMISE}
    options["thinned"] = f"{options['thinned']}, {how}" if "thinned" in options else how
    if header.target_mse is not None:
        options["thinned_from_mse"] = header.target_mse
    target_tokens = None
    if header.target_tokens is not None:
        if isinstance(rule, Cap):
            target_tokens = min(header.target_tokens, rule.tokens)
        else:
            options["thinned_from_tokens"] = header.target_tokens
    return replace(
        header,
        target_mse=None,
        target_tokens=target_tokens,
        promise="block",
        frame_count=frames,
        program=__version__,
        options=options,
    )


def rewrite(
    reader: EtkReader, writer: EtkWriter, rule: Cap | Level | None, measure: Measure | None = None
) -> Iterator[events.SegmentWritten]:
    """Write every segment, thinner by `rule` (None: as it is), and every part of the side streams in its place.

    `measure` puts errors into the blocks of a thinned segment. The writer is closed at the end.
    """
    number = 0
    for part in reader.parts():
        if isinstance(part, bytes):
            writer.write_aux(part)
            continue
        blocks = _thin(reader.header, part, rule)
        if measure is not None:
            blocks = measure(blocks)
        size = writer.write_segment(blocks)
        frames = sum(len(block.pts) for block in blocks)
        yield events.SegmentWritten(number, len(blocks), frames, size, writer.bytes_written)
        number += 1
    writer.close()


def _thin(header: Header, segment: Segment, rule: Cap | Level | None) -> list[Block]:
    return segment.blocks if rule is None else thinned(header, segment.blocks, rule)


class _Discard(io.BytesIO):
    """Takes bytes and forgets them."""

    def write(self, data: Buffer, /) -> int:
        return memoryview(data).nbytes

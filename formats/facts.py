"""What a segment says about its frames and blocks, as columns: all that `stats` asks for, without a Block for each."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np

from formats.coding.keep_maps import unpack_totals
from formats.errors import InvalidRecord
from formats.records import MAX_TIME_TICKS, Header, Segment
from formats.segment import MISSED, SCENE_CUT, begin_segment


@dataclass(frozen=True, eq=False, slots=True)
class SegmentFacts:
    """A segment without its tokens and keep maps.

    offset, size_bytes: of its unit in the file. Per block: starts (its first frame, counted in the segment; and the
    end of the last block), tokens (how many it keeps), missed, scene_cuts. Per frame: pts and durations in ticks,
    errors (NaN: unknown).
    """

    number: int
    offset: int
    size_bytes: int
    starts: list[int]
    tokens: list[int]
    missed: list[bool]
    scene_cuts: list[bool]
    pts: list[int]
    durations: list[int]
    errors: list[float]


def unpack_facts(header: Header, payload: bytes, offset: int, size_bytes: int) -> SegmentFacts:
    """Decode the facts of a segment. Raises EtkError where unpack_segment does, tokens left aside."""
    cursor, number, facts = begin_segment(header, payload)
    count = len(facts.flags)
    frames = np.diff(facts.starts).tolist()
    totals = unpack_totals(cursor, (count, *header.grid), frames, header.model)
    _check_range("pts", facts.pts, -MAX_TIME_TICKS)
    if not all(a < b for a, b in pairwise(facts.pts)):
        raise InvalidRecord("presentation times must increase strictly")
    _check_range("duration", facts.durations, 0)
    return SegmentFacts(
        number,
        offset,
        size_bytes,
        starts=facts.starts,
        tokens=totals,
        missed=[bool(flags & MISSED) for flags in facts.flags],
        scene_cuts=[bool(flags & SCENE_CUT) for flags in facts.flags],
        pts=facts.pts,
        durations=facts.durations,
        errors=facts.errors,
    )


def facts_of(segment: Segment) -> SegmentFacts:
    """The facts of a segment that was read with its blocks."""
    blocks = segment.blocks
    return SegmentFacts(
        segment.number,
        segment.offset,
        segment.size_bytes,
        starts=[0, *accumulate(len(block.pts) for block in blocks)],
        tokens=[block.token_count for block in blocks],
        missed=[block.missed for block in blocks],
        scene_cuts=[block.scene_cut for block in blocks],
        pts=[time for block in blocks for time in block.pts],
        durations=[duration for block in blocks for duration in block.durations],
        errors=[mse for block in blocks for mse in block.frame_mse],
    )


def _check_range(name: str, values: Sequence[int], low: int) -> None:
    if min(values) < low or max(values) > MAX_TIME_TICKS:
        wrong = next(value for value in values if not low <= value <= MAX_TIME_TICKS)
        raise InvalidRecord(f"{name} must be an integer from {low} to {MAX_TIME_TICKS}, not {wrong}")

"""The columns of a segment are those of its blocks, and what is wrong with one is wrong with the other."""

import io
import math
from dataclasses import asdict, replace

import pytest
from etk_samples import HEADER_RECORD, make_segments, raw_header, same_error, write
from hypothesis import given, settings
from hypothesis import strategies as st

from formats import EtkReader
from formats.facts import facts_of
from formats.wire import SEGMENT, pack_blob, pack_unit, pack_uvarint

FILE = write(make_segments(4, 3), aux=b"sound")


def check(data: bytes) -> int:
    """Read a file both ways; gives the number of sound segments."""
    by_blocks, by_facts = EtkReader(io.BytesIO(data)), EtkReader(io.BytesIO(data))
    facts = list(by_facts.facts())
    expected = [facts_of(segment) for segment in by_blocks.segments(tokens=False)]
    for one, other in zip(facts, expected, strict=True):
        assert all(map(same_error, one.errors, other.errors))
        assert asdict(replace(one, errors=[])) == asdict(replace(other, errors=[]))
    assert by_facts.damage == by_blocks.damage
    assert by_facts.complete == by_blocks.complete
    return len(facts)


def test_columns_are_those_of_the_blocks() -> None:
    assert check(FILE) == 4
    unknown = make_segments(2, 2)
    object.__setattr__(unknown[0][1], "frame_mse", (math.nan,) * 4)
    object.__setattr__(unknown[1][0], "missed", True)
    assert check(write(unknown)) == 2


@pytest.mark.parametrize("cut", range(0, 400, 7))
def test_cut_files(cut: int) -> None:
    with EtkReader(io.BytesIO(FILE)) as reader:
        assert reader.index is not None
        first = reader.index[0].offset
    check(FILE[: first + cut])


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=40), st.binary(max_size=12), st.integers(0, 15), st.integers(1, 3))
def test_what_is_wrong_is_wrong_both_ways(facts: bytes, keep: bytes, coding: int, blocks: int) -> None:
    for some_facts in (facts, bytes([4] * blocks) + b"\0\1" + facts):
        start = pack_uvarint(0) + pack_uvarint(blocks) + pack_blob(some_facts)
        check(raw_header() + pack_unit(SEGMENT, start + bytes([coding]) + pack_blob(keep)))


def test_sums_are_those_of_the_index() -> None:
    with EtkReader(io.BytesIO(FILE)) as reader:
        assert reader.index is not None
        for info, facts in zip(reader.index, reader.facts(), strict=True):
            assert (info.frames, info.blocks) == (len(facts.pts), len(facts.tokens))
            assert info.tokens == sum(facts.tokens) > 0
    assert reader.header == HEADER_RECORD

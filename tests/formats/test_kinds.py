"""What tokens are spent on: exact counts, whatever the file holds."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import reduce
from operator import add
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elastictok_cli.models.cell.token_layout import TokenLayout
from formats import (
    PALETTE_SIZES,
    Block,
    ControlRange,
    EtkReader,
    Header,
    KindCounter,
    KindCounts,
    ModelRef,
    control_ranges,
    kinds,
)

GOLDEN = Path(__file__).parent.parent / "golden"
LAYOUT = TokenLayout(codes=64_000, codes_per_cell=58, frames=4, pan=True, shake=True)
MODEL = ModelRef(
    name="m", sha256=bytes(32), levels=(8, 8, 8, 5, 5, 5), vocabulary=65_536, tokens_per_cell=4096
)
HEADER = Header(
    model=MODEL,
    width=48,
    height=32,
    grid=(2, 3),
    time_base=(1, 25),
    control_tokens=tuple(
        ControlRange(r.kind, r.first, r.count, r.followed_by) for r in LAYOUT.control_tokens
    ),
)

Sequence_ = list[tuple[int, str]]  # token and its kind
codes = st.integers(0, LAYOUT.codes - 1)
table_vector = st.integers(LAYOUT.first_vector, LAYOUT.first_gain - 1)


def spent_on(
    kind: str, values: st.SearchStrategy[int], least: int, most: int
) -> st.SearchStrategy[Sequence_]:
    return st.lists(values.map(lambda value: (value, kind)), min_size=least, max_size=most)


@st.composite
def sequences(draw: st.DrawFn, frames: int) -> Sequence_:
    """One of the orders that `token_layout.py` lists, cut off anywhere."""
    vector = draw(spent_on("motion_vector", table_vector, 0, 1))
    gain = draw(spent_on("gain", st.integers(LAYOUT.first_gain, LAYOUT.first_pan - 1), 0, 1))
    pan = draw(spent_on("pan", st.integers(LAYOUT.first_pan, LAYOUT.shake_mark - 1), 1, 1))
    shake = [(LAYOUT.shake_mark, "shake"), *draw(spent_on("shake", codes, frames, frames))]
    whole = [(LAYOUT.whole_mark, "whole_vector"), *draw(spent_on("whole_vector", codes, 1, 1))]
    place = draw(st.integers(0, len(PALETTE_SIZES) - 1))
    fsq = draw(spent_on("fsq", codes, 0, 6))
    dct = draw(spent_on("dct", codes, 0, 9))
    palette = [
        (LAYOUT.first_mode + 1 + place, "palette"),
        *draw(spent_on("palette", codes, 0, PALETTE_SIZES[place] + 5)),
    ]
    moved = vector or draw(spent_on("motion_vector", table_vector, 1, 1))
    orders: tuple[Sequence_, ...] = (
        vector + gain + fsq,
        moved + pan + fsq,
        moved + shake + fsq,
        whole + dct,
        [*vector, (LAYOUT.first_mode, "dct"), *dct],
        vector + palette,
    )
    whole_sequence = draw(st.sampled_from(orders))
    return whole_sequence[: draw(st.integers(0, len(whole_sequence)))]


@st.composite
def blocks_with_kinds(draw: st.DrawFn) -> list[tuple[Block, list[Sequence_]]]:
    found = []
    for number in range(draw(st.integers(1, 4))):
        frames = draw(st.integers(1, 4))
        cells = [draw(sequences(frames)) for _ in range(6)]
        found.append((_block([[value for value, _ in cell] for cell in cells], frames, 4 * number), cells))
    return found


def _block(
    cells: Sequence[Sequence[int]], frames: int = 4, start: int = 0, grid: tuple[int, int] = (2, 3)
) -> Block:
    keep = np.array([len(cell) for cell in cells], np.uint16).reshape(grid)
    tokens = [cell[i] for i in range(int(keep.max())) for cell in cells if len(cell) > i]
    times = tuple(range(start, start + frames))
    return Block(times, (1,) * frames, keep, np.array(tokens, np.uint16), (0.0,) * frames)


@settings(max_examples=60, deadline=None)
@given(blocks_with_kinds())
def test_every_token_and_cell_of_a_valid_file_is_counted_once(
    found: list[tuple[Block, list[Sequence_]]],
) -> None:
    counts = KindCounter(HEADER).count([block for block, _ in found])
    cells = [cell for _, cells in found for cell in cells]
    tokens = Counter(kind for cell in cells for _, kind in cell)
    assert counts.tokens == {kind: tokens[kind] for kind in kinds.TOKEN_KINDS}
    codings = Counter(_coding({kind for _, kind in cell}) for cell in cells)
    having = Counter(kind for cell in cells for kind in {kind for _, kind in cell})
    assert counts.cells == {
        **{kind: codings[kind] for kind in kinds.CELL_KINDS},
        **{kind: having[kind] for kind in kinds.CONTROLS},
    }


def _coding(spent: set[str]) -> str:
    (coding,) = (spent & set(kinds.CODINGS)) or {"control_alone" if spent else "none"}
    return coding


# Ranges that no file of this program has: a later kind, palettes without a size, codes after any kind.
ODD_RANGES = (
    ControlRange("kind 9", 64_000, 500, 2),
    ControlRange("palette", 64_500, 9, 1),
    ControlRange("pan", 64_509, 300, 8192),
    ControlRange("whole_vector", 64_809, 100),
    ControlRange("dct", 64_909, 100),
    ControlRange("motion_vector", 65_009, 300),
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(
            st.lists(st.one_of(codes, st.integers(64_000, 65_535)), max_size=12), min_size=6, max_size=6
        ),
        min_size=1,
        max_size=3,
    ),
    st.sampled_from(["of this program", "of old files", "odd"]),
)
def test_sums_are_exact_whatever_the_tokens_are(found: list[list[list[int]]], ranges: str) -> None:
    """Also where control tokens stand in no order that a model writes; held against a count cell by cell."""
    header = {
        "of this program": HEADER,
        "of old files": replace(HEADER, control_tokens=(), model=replace(MODEL, vocabulary=65_527)),
        "odd": replace(HEADER, control_tokens=ODD_RANGES),
    }[ranges]
    blocks = [_block(cells, 1 + number) for number, cells in enumerate(found)]
    counts = KindCounter(header).count(blocks)
    check_sums(counts, blocks)
    assert counts == one_by_one(header, blocks)
    with patch("formats.kinds._MAX_CELLS_AT_ONCE", 7):
        assert KindCounter(header).count(blocks) == counts
    assert reduce(add, (KindCounter(header).count([block]) for block in blocks)) == counts


def check_sums(counts: KindCounts, blocks: Sequence[Block]) -> None:
    assert sum(counts.tokens.values()) == sum(block.token_count for block in blocks)
    assert sum(counts.cells[kind] for kind in kinds.CELL_KINDS) == sum(block.keep.size for block in blocks)
    assert all(
        type(count) is int and count >= 0 for part in (counts.cells, counts.tokens) for count in part.values()
    )
    assert counts.cells["none"] == sum(int((block.keep == 0).sum()) for block in blocks)


def one_by_one(header: Header, blocks: Sequence[Block]) -> KindCounts:
    """The same counts, read off sequence by sequence as SPEC.md says it."""
    counts = KindCounts()
    for block in blocks:
        for cell in _cells(block):
            _count_cell(header, cell, len(block.pts), counts)
    return counts


def _cells(block: Block) -> Iterator[list[int]]:
    """The sequences of a block's cells."""
    cells: list[list[int]] = [[] for _ in range(block.keep.size)]
    stream = iter(block.tokens.tolist())
    for index in range(int(block.keep.max())):
        for cell, keep in zip(cells, block.keep.ravel().tolist(), strict=True):
            if keep > index:
                cell.append(next(stream))
    assert next(stream, None) is None
    yield from cells


def _kind_of(header: Header, value: int) -> tuple[str, int]:
    """The kind of a control token and how many codes for each frame belong to it."""
    for part in control_ranges(header):
        if part.first <= value < part.first + part.count:
            sized = part.kind != "palette" or value - part.first < len(PALETTE_SIZES)
            return (part.kind if sized and part.kind in kinds.TOKEN_KINDS else "other"), part.followed_by
    return "other", 0


def _count_cell(header: Header, cell: list[int], frames: int, counts: KindCounts) -> None:
    if not cell:
        counts.cells["none"] += 1
        return
    first_control = math.prod(header.model.levels)
    head = next((i for i, value in enumerate(cell) if value < first_control), len(cell))
    said = [_kind_of(header, value) for value in cell[:head]]
    left = len(cell) - head
    for kind in kinds.TOKEN_KINDS:
        owed = sum(each * frames + (kind == "whole_vector") for own, each in said if own == kind)
        counts.tokens[kind] += sum(own == kind for own, _ in said) + min(owed, left)
        left -= min(owed, left)
    for kind in {own for own, _ in said} & set(kinds.CONTROLS):
        counts.cells[kind] += 1
    last = said[-1][0] if said else "fsq"
    mode = last if last in ("dct", "palette", "other") else "dct" if last == "whole_vector" else "fsq"
    counts.tokens[mode] += left
    counts.cells[mode if left or mode == last != "fsq" else "control_alone"] += 1


@pytest.mark.parametrize("name", ["v1", "v1-predicted", "v1-screen", "v1-vectors"])
def test_golden_files(name: str) -> None:
    with EtkReader(GOLDEN / f"{name}.etk", tolerate=False) as reader:
        header, blocks = reader.header, list(reader.blocks())
    counts = KindCounter(header).count(blocks)
    check_sums(counts, blocks)
    spent = {kind for kind, count in counts.tokens.items() if count}
    if name == "v1-vectors":
        assert spent == {"vector"}
        assert counts.cells["vector"] + counts.cells["none"] == sum(block.keep.size for block in blocks)
        return
    assert counts == one_by_one(header, blocks)
    if name == "v1-predicted":  # its header has no ranges
        assert header.control_tokens == ()
        assert spent == {"fsq", "motion_vector", "gain"}
    elif name == "v1-screen":
        assert {"dct", "palette", "motion_vector", "whole_vector"} <= spent


def test_a_file_of_the_papers_model_has_one_kind() -> None:
    header = replace(HEADER, control_tokens=(), model=replace(MODEL, vocabulary=64_000))
    block = _block([[1, 2, 3], [], [63_999], [0] * 5, [], [7]])
    counts = KindCounter(header).count([block])
    assert {kind: count for kind, count in counts.tokens.items() if count} == {"fsq": 10}
    assert {kind: count for kind, count in counts.cells.items() if count} == {"fsq": 4, "none": 2}


def test_no_blocks() -> None:
    assert KindCounter(HEADER).count([]) == KindCounts()


def test_one_sequence_of_each_order() -> None:
    """By hand: what the table of `token_layout.py` says of them."""
    cells = [
        [64_100, 65_526, 9, 9, 9, 5],  # motion vector, camera shake of three frames, a code
        [65_527, 1234, 7, 7],  # whole vector, its code, a DCT stream
        [64_000, 65_531, 1, 2, 3, 4, 5],  # motion vector, a palette
        [65_520, 65_523],  # motion vector and gain, their codes cut off
        [65_528],  # DCT, its codes cut off
        [],
    ]
    counts = KindCounter(HEADER).count([_block(cells, frames=3)])
    assert {kind: count for kind, count in counts.tokens.items() if count} == {
        "motion_vector": 3,
        "shake": 4,
        "fsq": 1,
        "whole_vector": 2,
        "dct": 3,
        "palette": 6,
        "gain": 1,
    }
    assert {kind: count for kind, count in counts.cells.items() if count} == {
        "fsq": 1,
        "dct": 2,
        "palette": 1,
        "control_alone": 1,
        "none": 1,
        "motion_vector": 3,
        "shake": 1,
        "whole_vector": 1,
        "gain": 1,
    }

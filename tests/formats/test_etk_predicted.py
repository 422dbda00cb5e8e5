"""Keep coding 16, token coding 4, error coding 2 (SPEC.md, 5.1, 5.2, 6.2, 6.3): what is written is read.

By our reader, and by one that follows the page literally.
"""

import hashlib
import io
import json
import math
import re
from dataclasses import replace
from importlib import resources
from operator import mul

import numpy as np
import pytest
import zstandard
from etk_by_the_page import Contexts, Lanes, frequencies, lanes_for
from etk_samples import HEADER_RECORD, MODEL, make_block, read, same_blocks, write
from hypothesis import given, settings
from hypothesis import strategies as st
from test_etk_spec import GENERATE, GOLDEN, drop_later_keys, facts

from formats import Block, Corrupt, EtkReader, ModelRef, Segment, segment
from formats.coding import control_tokens, keep_maps, networks, rice, tokens
from formats.coding import range_coding as ranged
from formats.wire import HEAD_SIZE, Cursor

SPEC = resources.files("formats").joinpath("SPEC.md").read_text(encoding="utf-8")
TABLES = resources.files("formats").joinpath("tables.npz").read_bytes()
SHIPPED = replace(MODEL, levels=(8, 8, 8, 5, 5, 5), vocabulary=65524, tokens_per_cell=58)
PAGE = {name: table.tolist() for name, table in np.load(io.BytesIO(TABLES), allow_pickle=False).items()}

COLUMNS = {name: list(zip(*PAGE[name], strict=True)) for name in PAGE if name.endswith(("_in", "_out"))}

# fmt: off
BINS = [
    0, 1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257,
    385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145, 8193,
]
NEIGHBOURS = [
    (0, 0, -1), (0, -1, 0), (0, -1, 1), (0, -1, -1), (-1, 0, 0), (-1, 0, 1), (-1, 1, 0),
    (0, 0, -2), (0, -2, 0), (-1, 0, -1), (-1, -1, 0), (-2, 0, 0),
]
# fmt: on

Cell = tuple[int, int, int]
Case = tuple[np.ndarray, np.ndarray, list[int], ModelRef]  # tokens in file order, keep maps, frames, model


# Readers by the page


def steps(shape: tuple[int, int, int]) -> list[list[Cell]]:
    """The cells of each step, in order block, row, column."""
    cells = [(b, r, c) for b in range(shape[0]) for r in range(shape[1]) for c in range(shape[2])]
    found: dict[int, list[Cell]] = {}
    for b, r, c in cells:
        found.setdefault(c + 2 * r + 4 * b, []).append((b, r, c))
    return [found[step] for step in sorted(found)]


def away(cell: Cell, neighbour: Cell) -> Cell:
    return (cell[0] + neighbour[0], cell[1] + neighbour[1], cell[2] + neighbour[2])


def one_of(value: int, count: int) -> list[int]:
    return [int(i == value) for i in range(count)]


def from_logits(logits: list[int]) -> list[int]:
    below = [min(767, max(logits) - logit) for logit in logits]
    return frequencies([round(65536 * math.exp(-m / 64)) for m in below])


def network(name: str, inputs: list[int]) -> list[int]:
    """Frequencies that a network gives for these inputs."""
    into, out = COLUMNS[f"{name}_in"], COLUMNS[f"{name}_out"]
    assert len(into[0]) == len(inputs) + 1
    hidden = [max(0, sum(map(mul, [*inputs, 1], column)) // 64) for column in into]
    return from_logits([sum(map(mul, [*hidden, 1], column)) // 256 for column in out])


def of_block(cell: Cell, frames: list[int]) -> list[int]:
    """5.2, inputs 3 and 4."""
    return one_of(min(cell[0], 2), 3) + one_of(min(frames[cell[0]], 4) - 1, 4)


def uvarint(data: bytes) -> tuple[int, bytes]:
    size = next(i for i, byte in enumerate(data) if byte < 128) + 1
    return sum((byte & 127) << 7 * i for i, byte in enumerate(data[:size])), data[size:]


def keeps_by_the_page(
    data: bytes, shape: tuple[int, int, int], frames: list[int], lanes: int | None = None
) -> tuple[dict[Cell, int], bytes]:
    """Coding 16 of 5.2, without the byte that says so. Gives what every cell keeps, and the bytes after."""

    def of(n: int) -> int:
        return round(16 * math.log2(1 + n))

    totals = []
    for _ in range(shape[0]):
        total, data = uvarint(data)
        totals.append(total)
    size, data = uvarint(data)
    assert size % 2 == 0
    coded, rest = data[: size // 2], data[size // 2 :]
    cells = shape[1] * shape[2]
    coder = Lanes(coded, lanes or lanes_for(cells * sum(total > 0 for total in totals), 4096))

    keep: dict[Cell, int] = {}
    told = [0] * shape[0]
    visited = [0] * shape[0]
    for step in steps(shape):
        coded_cells = [cell for cell in step if told[cell[0]] < totals[cell[0]]]
        tables = []
        for cell in coded_cells:
            block = cell[0]
            near = []
            for b, r, c in (away(cell, neighbour) for neighbour in NEIGHBOURS):
                exists = b >= 0 and 0 <= r < shape[1] and 0 <= c < shape[2]
                near.append(of(keep[b, r, c]) if exists else -8)
            average = 32 * (totals[block] - told[block]) // (cells - visited[block])
            tables.append(network("keep", [*near, of(min(8192, average)), *of_block(cell, frames)]))
        bins = coder.chunk(tables)
        sizes = [BINS[i + 1] - BINS[i] for i in bins]
        wide = [i for i, size in enumerate(sizes) if size > 1]
        places = coder.chunk([[65536 // sizes[i]] * sizes[i] for i in wide])
        keep |= dict.fromkeys(step, 0)
        keep |= {cell: BINS[i] for cell, i in zip(coded_cells, bins, strict=True)}
        for i, place in zip(wide, places, strict=True):
            keep[coded_cells[i]] += place
        for cell in step:
            told[cell[0]] += keep[cell]
            visited[cell[0]] += 1
        assert all(a <= b for a, b in zip(told, totals, strict=True))
    coder.finish()
    assert told == totals
    return keep, rest


def specials_by_the_page(
    coder: Lanes, keeps: np.ndarray, frames: list[int], model: ModelRef, contexts: Contexts | None = None
) -> dict[Cell, list[int]]:
    """The control tokens of each cell. contexts: those of coding 5, where other ones than vectors adapt."""
    product = math.prod(model.levels)
    radix = math.isqrt(model.vocabulary - product)
    others = model.vocabulary - product - radix * radix
    least = 1
    while least < others:
        least *= 2
    shape = keeps.shape
    found: dict[Cell, list[int]] = {}
    kind: dict[Cell, int] = {}  # pattern, or 4: keeps nothing
    own: set[Cell] = set()
    force: dict[Cell, tuple[int, int]] = {}
    centre = (radix // 2, radix // 2)

    def logits(cell: Cell, place: int, row: int | None) -> list[int]:
        near = [away(cell, neighbour) for neighbour in NEIGHBOURS[:7]]
        seen = [(0, (0, 0)) if n not in force else (2 if n in own else 1, force[n]) for n in near]
        sums = []
        for value in range(radix):
            total = 0
            for i, (status, vector) in enumerate([*seen, (1, centre)]):
                e = max(-38, min(38, value - vector[place])) + 38
                if row is None:
                    total += PAGE["rows"][i][status][e]
                else:
                    off = abs(vector[0] - row)
                    total += PAGE["columns"][i][status][0 if off == 0 else 1 if off <= 2 else 2][e]
            sums.append(total)
        return sums

    for step in steps(shape):
        for cell in step:
            force[cell] = force.get(away(cell, (-1, 0, 0)), centre)
            kind[cell] = 4
        some = [cell for cell in step if keeps[cell]]
        tables = []
        for cell in some:
            near = [x for n in NEIGHBOURS[:7] for x in one_of(kind.get(away(cell, n), 5), 6)]
            which = min(12, max(i for i, edge in enumerate(BINS) if edge <= keeps[cell]))
            tables.append(network("pattern", [*near, *one_of(which, 13), *of_block(cell, frames)]))
        kind |= zip(some, coder.chunk(tables), strict=True)
        moving = [cell for cell in some if kind[cell] in (1, 3)]
        rows = coder.chunk([from_logits(logits(cell, 0, None)) for cell in moving])
        columns = coder.chunk(
            [from_logits(logits(cell, 1, row)) for cell, row in zip(moving, rows, strict=True)]
        )
        for cell, row, column in zip(moving, rows, columns, strict=True):
            found[cell] = [product + row * radix + column]
            force[cell] = (row, column)
            own.add(cell)
        for pattern in (2, 3):
            those = [cell for cell in some if kind[cell] == pattern]
            if contexts is None:
                values = coder.chunk([[65536 // least] * least] * len(those))
            else:
                values = contexts.sequence(("other", pattern), [2] * others, len(those))
            for cell, value in zip(those, values, strict=True):
                assert value < others
                found[cell] = [*found.get(cell, []), product + radix * radix + value]
    return found


def tokens_by_the_page(
    data: bytes, keeps: np.ndarray, frames: list[int], model: ModelRef, lanes: int | None = None
) -> list[int]:
    """Token coding 4, without the byte that says so: the tokens in file order."""
    coder = Lanes(data, lanes or lanes_for(int(keeps.sum()), 1024))
    special: dict[Cell, list[int]] = {}
    if model.vocabulary > math.prod(model.levels):
        special = specials_by_the_page(coder, keeps, frames, model)
    cells = list(np.ndindex(keeps.shape))
    starts = {}
    if model.levels == (8, 8, 8, 5, 5, 5):
        starts = {
            (d, c): PAGE["digits"][d][c][:level] for d, level in enumerate(model.levels) for c in range(8)
        }
    contexts = Contexts(coder)
    told = [0] * len(cells)
    result: list[int] = []
    for index in range(int(keeps.max())):
        run = [number for number, cell in enumerate(cells) if keeps[cell] > index]
        first = {number: cells[number][0] == 0 for number in run}
        usual = [number for number in run if len(special.get(cells[number], [])) <= index]
        value = contexts.digits(model.levels, usual, first, told, starts)
        result += [value[n] if n in value else special[cells[n]][index] for n in run]
    coder.finish()
    return result


def errors_by_the_page(data: bytes, count: int) -> list[int]:
    """Error coding 2, without the byte that says so: the patterns."""
    dropped, (reference, k) = data[0], divmod(data[1], 16)
    assert dropped < 16
    assert reference < 2
    base, rest = uvarint(data[2:])
    bits = [byte >> 7 - i & 1 for byte in rest for i in range(8)]
    patterns: list[int] = []
    before = base
    for _ in range(count):
        q = 0
        while bits.pop(0) == 0:
            q += 1
        r = 0
        for _ in range(k):
            r = 2 * r + bits.pop(0)
        z = (q << k) + r
        before = (base if reference else before) + ((z >> 1) ^ -(z & 1))
        assert 0 <= before << dropped <= 0x7BFF
        patterns.append(before << dropped)
    assert len(bits) < 8
    assert not any(bits)
    return patterns


# Cases


@st.composite
def shapes(draw: st.DrawFn) -> tuple[int, int, int]:
    rows, columns = draw(
        st.sampled_from([(1, 1), (1, 6), (6, 1), (2, 2), (3, 5), (5, 3)])
        | st.tuples(*2 * [st.integers(1, 6)])
    )
    return draw(st.integers(1, 5)), rows, columns


@st.composite
def drawn_keep_maps(draw: st.DrawFn, most: tuple[int, ...]) -> tuple[np.ndarray, list[int]]:
    """Keep maps, wild or much alike, some blocks without any token; and real frames of the blocks."""
    shape = draw(shapes())
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    limit = draw(st.sampled_from(most))
    keeps = rng.integers(0, limit + 1, shape)
    if draw(st.booleans()):
        keeps = np.clip(rng.integers(0, limit + 1) + rng.integers(-2, 3, shape), 0, limit)
    keeps[rng.random(shape) < draw(st.sampled_from([0, 0.5, 0.95]))] = 0
    keeps[rng.random(shape[0]) < draw(st.sampled_from([0, 0.4]))] = 0
    frames = draw(st.lists(st.integers(1, 4) | st.just(32), min_size=shape[0], max_size=shape[0]))
    return keeps.astype(np.uint16), frames


MODELS = [
    SHIPPED,
    replace(SHIPPED, vocabulary=64000),  # V = P: no control tokens
    replace(SHIPPED, vocabulary=64000 + 39 * 39),  # K = 0: vectors only
    replace(SHIPPED, vocabulary=64001),  # one vector
    replace(SHIPPED, vocabulary=65536),
    replace(SHIPPED, levels=(3,), vocabulary=5),  # R = 1, K = 1
    replace(SHIPPED, levels=(5, 8), vocabulary=40 + 81 * 81 + 7),  # differences over 38
    replace(SHIPPED, levels=(256, 2), vocabulary=512 + 65025 - 1),  # the widest that is allowed
]


def leading_tokens(
    rng: np.random.Generator, keeps: np.ndarray, model: ModelRef, share: float
) -> dict[Cell, list[int]]:
    """Tokens of every cell: one of the four patterns, as far as the cell and the model allow it, then regular ones."""
    product = math.prod(model.levels)
    radix = math.isqrt(model.vocabulary - product)
    others = model.vocabulary - product - radix * radix
    middle = sum(math.prod(model.levels[:i]) * (n // 2) for i, n in enumerate(model.levels))
    wild = rng.random() < 0.5
    found = {}
    for cell in np.ndindex(keeps.shape):
        size = int(keeps[cell])
        pattern = int(rng.integers(0, 4)) if rng.random() < share else 0
        own = rng.integers(0, product, size) if wild else rng.choice([middle, 0, 1, product - 1], size)
        values = [int(v) for v in own]
        other = product + radix * radix + int(rng.integers(0, max(others, 1)))
        if size and pattern & 1 and radix:
            near = int(rng.integers(0, radix * radix)) if wild else radix * radix // 2
            values[0] = product + near
        elif size and pattern == 2 and others:
            values[0] = other
        if size > 1 and pattern == 3 and others:
            values[1] = other
        found[cell] = values
    return found


def in_file_order(found: dict[Cell, list[int]]) -> np.ndarray:
    longest = max(map(len, found.values()))
    order = [values[i] for i in range(longest) for values in found.values() if len(values) > i]
    return np.array(order, np.uint16)


@st.composite
def segments(draw: st.DrawFn) -> Case:
    keeps, frames = draw(drawn_keep_maps((1, 2, 5, 58)))
    model = draw(st.sampled_from(MODELS))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    found = leading_tokens(rng, keeps, model, draw(st.sampled_from([0, 0.2, 1])))
    return in_file_order(found), keeps, frames, model


def smooth_video(blocks: int, rows: int, columns: int) -> list[Block]:
    """Keep maps and vectors as videos have them: alike from cell to cell and from block to block."""
    rng = np.random.default_rng(7)
    level = 6 + 5 * np.sin(np.arange(rows)[:, None] / 2 + np.arange(columns) / 3)
    found = []
    for number in range(blocks):
        wild = 2 * level * np.exp(rng.normal(0, 0.5, level.shape))
        keep = np.clip(np.round(wild), 0, 58).astype(np.uint16)
        own = leading_tokens(rng, keep[None], SHIPPED, 0.1)
        for cell, values in own.items():
            digits = np.clip(np.round(rng.normal(MIDDLE, 0.7, (len(values), 6))), 0, HIGHEST) @ WEIGHTS
            values[:] = [int(d) if v < 64000 else v for v, d in zip(values, digits, strict=True)]
            if number and values and rng.random() < 0.8:
                values[0] = 64000 + 39 * 19 + 17 + cell[1] // 4
        errors = tuple(0.006 + 0.0002 * i for i in range(4))
        found.append(
            make_block(
                0, 4 * number, keep=keep, tokens=in_file_order(own), frame_mse=errors, durations=(1,) * 4
            )
        )
    return found


WEIGHTS, MIDDLE, HIGHEST = np.array([[1, 8, 64, 512, 2560, 12800], [4, 4, 4, 2, 2, 2], [7, 7, 7, 4, 4, 4]])
VIDEO = smooth_video(3, 9, 14)
VIDEO_LATER = [replace(block, pts=tuple(range(12 + 4 * i, 16 + 4 * i))) for i, block in enumerate(VIDEO[::2])]
VIDEO_HEADER = replace(HEADER_RECORD, model=SHIPPED, grid=(9, 14), width=14 * 16, height=9 * 16)


# Keep coding 16


def keep_round_trip(keeps: np.ndarray, frames: list[int], tokens_per_cell: int = 8192) -> None:
    coded = keep_maps._pack_keep_predicted(keeps, frames)
    cursor = Cursor(coded + b"rest")
    model = replace(SHIPPED, tokens_per_cell=tokens_per_cell)
    assert np.array_equal(keep_maps.unpack_keep(cursor, keeps.shape, frames, model), keeps)
    assert bytes(cursor.rest()) == b"rest"
    assert coded[0] == 16
    found, rest = keeps_by_the_page(coded[1:] + b"rest", keeps.shape, frames)
    assert rest == b"rest"
    assert found == {cell: keeps[cell] for cell in np.ndindex(keeps.shape)}


@given(drawn_keep_maps((1, 3, 12, 58, 4096, 8192)))
@settings(max_examples=80, deadline=None)
def test_both_readers_give_back_keep_maps(case: tuple[np.ndarray, list[int]]) -> None:
    keep_round_trip(*case)


@pytest.mark.parametrize("value", [0, 1, 5, 6, 7, 8, 9, 58, 4096, 6144, 6145, 8192])
def test_edges_of_bins(value: int) -> None:
    keep_round_trip(np.full((2, 2, 3), value, np.uint16), [4, 1])
    one = np.zeros((1, 3, 3), np.uint16)
    one[0, 2, 2] = value
    keep_round_trip(one, [2])


def test_long_sequences_through_a_file() -> None:
    """4096 tokens in a cell: more than any model has, and still a file."""
    model = replace(SHIPPED, tokens_per_cell=4096)
    header = replace(HEADER_RECORD, model=model, grid=(1, 3), width=48, height=16)
    keep = np.array([[4096, 0, 3999]], np.uint16)
    block = make_block(0, 0, keep=keep, tokens=np.arange(8095, dtype=np.uint16) % 7)
    _, (found,) = read(write([[block]], header))
    assert same_blocks(found.blocks, [block])


def test_empty_blocks_need_no_lanes() -> None:
    keeps = np.zeros((5, 10, 100), np.uint16)
    keeps[[0, 2, 3, 4], 9, 99] = 1  # the last cell: all are coded
    keep_round_trip(keeps, [1, 2, 3, 4, 4])  # 4000 cells: one lane
    keeps[1, 0, 0] = 1
    keep_round_trip(keeps, [1, 2, 3, 4, 4])  # 5000: two


@pytest.mark.parametrize("lanes", [2, 16, 32, 64, 1024])
def test_keep_maps_in_many_lanes(lanes: int) -> None:
    """As a map of a hundred thousand cells would be coded, only smaller."""
    rng = np.random.default_rng(lanes)
    keeps = rng.integers(0, 20, (3, 9, 14)).astype(np.uint16)
    totals = keeps.reshape(3, -1).sum(1, dtype=np.int64)
    frames = np.array([4, 4, 2])
    writer = ranged.Writer(lanes)
    keep_maps.code_keep_maps(keeps, totals, frames, writer)
    reader = ranged.Reader(writer.bytes(), lanes)
    blank = np.zeros_like(keeps)
    assert np.array_equal(keep_maps.code_keep_maps(blank, totals, frames, reader), keeps)
    reader.finish()
    start = b"".join(segment.pack_uvarint(int(n)) for n in totals)
    coded = start + segment.pack_uvarint(2 * len(writer.bytes())) + writer.bytes()
    found, _ = keeps_by_the_page(coded, keeps.shape, [4, 4, 2], lanes)
    assert found == {cell: keeps[cell] for cell in np.ndindex(keeps.shape)}


# Token coding 4


def token_round_trip(case: Case, lanes: int | None = None) -> None:
    ordered, keeps, frames, model = case
    data = ranged.encode_predicted(ordered, keeps, np.array(frames), model)
    assert data is not None
    assert ranged.decode_predicted(data, keeps, np.array(frames), model).tolist() == ordered.tolist()
    assert tokens_by_the_page(data, keeps, frames, model, lanes) == ordered.tolist()


@given(segments())
@settings(max_examples=80, deadline=None)
def test_both_readers_give_back_tokens(case: Case) -> None:
    token_round_trip(case)


@pytest.mark.parametrize("lanes", [1, 4, 32, 128])
@pytest.mark.parametrize("model", MODELS)
def test_tokens_in_any_number_of_lanes(model: ModelRef, lanes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many tokens would be coded, only fewer."""
    monkeypatch.setattr(ranged, "lanes_for", lambda tokens: lanes)
    rng = np.random.default_rng(lanes)
    keeps = rng.integers(0, 6, (3, 9, 11)).astype(np.uint16)
    keeps[1] = 1
    ordered = in_file_order(leading_tokens(rng, keeps, model, 0.7))
    token_round_trip((ordered, keeps, [4, 4, 3], model), lanes)


def test_many_tokens() -> None:
    rng = np.random.default_rng(3)
    keeps = rng.integers(0, 90, (3, 13, 11)).astype(np.uint16)
    ordered = in_file_order(leading_tokens(rng, keeps, SHIPPED, 0.7))
    assert ranged.lanes_for(len(ordered)) == 32
    token_round_trip((ordered, keeps, [4, 4, 3], SHIPPED))


def test_all_patterns_are_met() -> None:
    """The cases above would prove little if they lacked one."""
    rng = np.random.default_rng(0)
    keeps = np.full((2, 6, 6), 3, np.uint16)
    found = leading_tokens(rng, keeps, SHIPPED, 1)
    first, second = (np.array([values[i] for values in found.values()]) for i in (0, 1))
    pattern = control_tokens.patterns_of(first, second, 64000, 65524)
    assert set(pattern.tolist()) == {0, 1, 2, 3}
    token_round_trip((in_file_order(found), keeps, [4, 4], SHIPPED))


@pytest.mark.parametrize(
    "values",
    [
        [5, 64000],  # regular, then special
        [64000, 64000],  # two vectors
        [65522, 65523],  # two others
        [65522, 64000],  # the wrong way round
        [64000, 65523, 64000],
        [64000, 65523, 65523],
        [64000, 5, 64000],
    ],
)
def test_special_tokens_elsewhere(values: list[int]) -> None:
    """Then coding 4 cannot tell them, and another one does."""
    header = replace(VIDEO_HEADER, grid=(2, 2), width=32, height=32)
    keep = np.array([[len(values), 2], [1, 0]], np.uint16)
    own = dict(zip(np.ndindex((1, 2, 2)), [values, [1, 2], [65523], []], strict=True))
    ordered = in_file_order(own)
    assert ranged.encode_predicted(ordered, keep[None], np.array([4]), SHIPPED) is None
    assert tokens.encode_tokens([ordered], keep[None], [4], SHIPPED)[0] != tokens.PREDICTED_RANGE_CODED
    block = make_block(0, 0, keep=keep, tokens=ordered)
    _, (found,) = read(write([[block]], header))
    assert same_blocks(found.blocks, [block])


@given(segments(), st.data())
@settings(max_examples=60, deadline=None)
def test_any_place_of_special_tokens(case: Case, data: st.DataObject) -> None:
    """Coding 4 gives back what was written, or says that it cannot."""
    ordered, keeps, frames, model = case
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    moved = rng.permutation(ordered)
    coded = ranged.encode_predicted(moved, keeps, np.array(frames), model)
    if coded is None:
        assert model.vocabulary > math.prod(model.levels)
    else:
        assert ranged.decode_predicted(coded, keeps, np.array(frames), model).tolist() == moved.tolist()


def test_wide_grids_and_alphabets_are_left_to_other_codings() -> None:
    large = np.broadcast_to(np.uint16(0), (1, 1024, 1025))
    assert not ranged.allows_predicted(large, SHIPPED)
    assert ranged.allows_predicted(large[:, :, 1:], SHIPPED)
    assert not ranged.allows_predicted(large[:, :, 1:], replace(SHIPPED, levels=(300, 4)))
    assert keep_maps.pack_keep(large, [4], 58)[0] < 16


# Error coding 2

patterns_of_errors = st.lists(st.integers(0, 0x7BFF), min_size=1, max_size=40)


@given(
    patterns_of_errors | patterns_of_errors.map(lambda values: [0x1F00 + v % 50 for v in values]),
    st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_both_readers_give_back_errors(values: list[int], sort: bool) -> None:
    values = sorted(values) if sort else values
    coded = rice.pack(np.array(values, np.uint16))
    found = rice.unpack(Cursor(coded), len(values)).tolist()
    assert errors_by_the_page(coded, len(values)) == found
    assert found == [min(v + 2, 0x7BFF) // 4 * 4 for v in values]


@given(
    st.sampled_from([0, 1]), st.integers(0, 15), st.integers(0, 15), st.lists(st.integers(0, 60), min_size=1)
)
@settings(max_examples=60, deadline=None)
def test_errors_of_other_writers(reference: int, k: int, dropped: int, codes: list[int]) -> None:
    """Any d, m and k: the reader and the page agree, also on what is out of range."""
    bits = "".join("0" * (z >> k) + "1" + (f"{z % (1 << k):0{k}b}" if k else "") for z in codes)
    bits += "0" * (-len(bits) % 8)
    body = bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))
    coded = bytes([dropped, 16 * reference + k, 100]) + body
    try:
        wanted = errors_by_the_page(coded, len(codes))
    except AssertionError:
        with pytest.raises(Corrupt):
            rice.unpack(Cursor(coded), len(codes))
        return
    assert rice.unpack(Cursor(coded), len(codes)).tolist() == wanted


@given(st.lists(st.floats(2**-14, 65000), min_size=1, max_size=20))
@settings(max_examples=60, deadline=None)
def test_errors_keep_their_precision(errors: list[float]) -> None:
    """0.2 % of what float16 makes of them, a quarter percent of what they were."""
    patterns = segment.pack_errors(np.array(errors))
    found = segment.unpack_errors(rice.unpack(Cursor(rice.pack(patterns)), len(errors)))
    assert np.allclose(found, segment.unpack_errors(patterns), rtol=0.00196, atol=0)
    assert np.allclose(found, errors, rtol=0.0025, atol=0)


def test_wild_errors_cost_a_writer_little() -> None:
    """Half a gigabyte, were each candidate spelled out."""
    patterns = np.tile(np.array([0, 0x7BFF], np.uint16), 16384)
    coded = rice.pack(patterns)
    assert rice.unpack(Cursor(coded), len(patterns)).tolist() == 16384 * [0, 0x7BFC]


# The whole, and the page


def test_a_segment_of_a_file_by_the_page() -> None:
    """The writer takes the new codings where they are smallest, and the page tells how to read them."""
    data = write([VIDEO], VIDEO_HEADER)
    _, (found,) = read(data)
    assert same_blocks(found.blocks, VIDEO)
    payload = data[found.offset + HEAD_SIZE : found.offset + found.size_bytes]
    assert payload[:2] == bytes([0, 3])
    size, payload = uvarint(payload[2:])
    facts, payload = payload[: size // 2], payload[size // 2 :]
    assert size % 2 == 0
    assert facts[:3] == bytes([4, 4, 4])
    # pts 0, step 1, no changes, durations as the steps, error coding 2
    assert facts[3:9] == bytes([0, 1, 0, 1, 0, 2])
    errors = errors_by_the_page(facts[9:], 12)
    assert np.array(errors, np.uint16).view(np.float16).tolist() == [
        mse for block in found.blocks for mse in block.frame_mse
    ]
    assert payload[0] == 16
    keep, payload = keeps_by_the_page(payload[1:], (3, 9, 14), [4, 4, 4])
    keeps = np.stack([block.keep for block in VIDEO])
    assert keep == {cell: keeps[cell] for cell in np.ndindex(keeps.shape)}
    assert payload[0] == 4
    ordered = tokens_by_the_page(payload[1:], keeps, [4, 4, 4], SHIPPED)
    slots = tokens.segment_slots(keeps)
    assert all(
        np.array(ordered)[own].tolist() == block.tokens.tolist()
        for own, block in zip(slots, VIDEO, strict=True)
    )


def test_golden_file_of_predicted_codings() -> None:
    """GENERATE_EXPECTED=1 writes the file anew, as new tables need (which no release may bring)."""
    path, expected = GOLDEN / "v1-predicted.etk", GOLDEN / "v1-predicted.json"
    if GENERATE:
        path.write_bytes(write([VIDEO, VIDEO_LATER], VIDEO_HEADER))
        expected.write_text(json.dumps(facts(*read(path.read_bytes()))) + "\n", encoding="utf-8")
    reader, segments = read(path.read_bytes())
    found = facts(reader, segments)
    stored = json.loads(expected.read_text(encoding="utf-8"))
    drop_later_keys(found, stored)
    zstd = stored.pop("zstd")
    assert stored == {key: value for key, value in found.items() if key != "zstd"}
    assert all(codings(path.read_bytes(), segment) == (16, 4) for segment in segments)
    if zstd == list(zstandard.ZSTD_VERSION):
        assert write([segment.blocks for segment in segments], reader.header) == path.read_bytes()


def codings(data: bytes, found: Segment) -> tuple[int, int]:
    """Keep and token coding of a segment whose keep map is predicted."""
    payload = data[found.offset + HEAD_SIZE : found.offset + found.size_bytes]
    size, payload = uvarint(payload[2:])
    payload = payload[size // 2 :]
    keep = payload[0]
    payload = payload[1:]
    for _ in found.blocks:
        _, payload = uvarint(payload)
    size, payload = uvarint(payload)
    return keep, payload[size // 2]


def test_tokens_can_be_left_out() -> None:
    reader = EtkReader(io.BytesIO(write([VIDEO], VIDEO_HEADER)))
    for block, full in zip(reader.blocks(tokens=False), VIDEO, strict=True):
        assert block.token_count == full.token_count
        assert np.array_equal(block.keep, full.keep)


def test_the_page_names_the_tables() -> None:
    stands = re.search(r"`formats/tables\.npz`[^`]*sha256\s+`([0-9a-f]{64})`", SPEC)
    assert stands is not None
    assert stands[1] == hashlib.sha256(TABLES).hexdigest()


def test_the_page_tells_the_shapes_of_the_tables() -> None:
    shapes_ = {name: np.shape(table) for name, table in PAGE.items()}
    hidden, pattern_hidden = shapes_["keep_in"][1], shapes_["pattern_in"][1]
    assert shapes_ == {
        "keep_in": (13 + 3 + 4 + 1, hidden),
        "keep_out": (hidden + 1, 27),
        "pattern_in": (7 * 6 + 13 + 3 + 4 + 1, pattern_hidden),
        "pattern_out": (pattern_hidden + 1, 4),
        "rows": (8, 3, 77),
        "columns": (8, 3, 3, 77),
        "digits": (6, 8, 8),
    }
    assert all(np.array(PAGE["digits"])[d, :, :level].min() >= 1 for d, level in enumerate(SHIPPED.levels))


def test_sums_of_networks_stay_exact() -> None:
    """They are computed in float64: below 2^53 for any input, whatever the tables."""
    into, out = (np.abs(np.array(PAGE[name], object)) for name in ("keep_in", "keep_out"))
    largest = (208 * into[:13].sum(0) + into[13:].sum(0)).max() // 64 + 1
    assert largest * out.sum() < 2**53
    into, out = (np.abs(np.array(PAGE[name], object)) for name in ("pattern_in", "pattern_out"))
    assert (into.sum(0).max() // 64 + 1) * out.sum() < 2**53


def test_no_rounding_is_close() -> None:
    """So that logarithms and exponentials of any machine round the same way."""
    used = [16 * math.log2(1 + n) for n in range(8193)] + [65536 * math.exp(-m / 64) for m in range(768)]
    assert min(abs(value % 1 - 0.5) for value in used) > 1e-6
    assert networks.LOG_FEATURE.tolist() == [round(value) for value in used[:8193]]
    assert networks._EXP_OF_LOGIT.tolist() == [round(value) for value in used[8193:]]


@pytest.mark.parametrize("repeats", [True, False])
def test_large_segments_try_zstd_where_it_may_win(repeats: bool) -> None:
    model = replace(MODEL, levels=(8, 8, 8, 5, 5, 5), vocabulary=65524, tokens_per_cell=58)
    rng = np.random.default_rng(5)
    keeps = np.full((4, 60, 80), 2, np.uint16)
    row = rng.integers(0, 64000, 400)
    levels = np.array(model.levels)
    digits = rng.binomial(levels - 1, 0.5, (38400, 6))  # peaked, as those of a quantizer are
    values = np.tile(row, 96) if repeats else digits @ np.cumprod([1, *levels[:-1]])
    blocks = [v.astype(np.uint16) for v in np.split(values, 4)]
    coded = tokens.encode_tokens(blocks, keeps, [4] * 4, model)
    assert (coded[0] in (0, 1, 2)) == repeats  # else range coding
    back = tokens.decode_tokens(Cursor(coded), keeps, [4] * 4, model)
    assert all(np.array_equal(a, b) for a, b in zip(back, blocks, strict=True))

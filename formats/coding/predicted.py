"""Keep maps and leading special tokens, coded with what small fixed networks expect of them (SPEC.md, 5.2 and 6.2).

All arithmetic is on integers. What a cell is expected to hold follows from cells known before it: cells are visited in
*steps*, all those of equal `column + 2 * row + 4 * block` at once, so that left, upper and earlier ones are known.
"""

import math
from collections.abc import Iterator
from functools import cache
from importlib import resources
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from formats.coding.rans import Coder, Symbols, cumulative
from formats.errors import Corrupt
from formats.records import MAX_BLOCK_FRAMES, UInt16Array

MOST_CELLS = 1 << 20  # of a segment that is coded so: bounds the memory that steps take

# Neighbours as (blocks, rows, columns) away. Keep maps look at all of them, special tokens at the first seven.
NEIGHBOURS = (
    (0, 0, -1),
    (0, -1, 0),
    (0, -1, 1),
    (0, -1, -1),
    (-1, 0, 0),
    (-1, 0, 1),
    (-1, 1, 0),
    (0, 0, -2),
    (0, -2, 0),
    (-1, 0, -1),
    (-1, -1, 0),
    (-2, 0, 0),
)
NEAREST = 7
_BEFORE, _AROUND = 2, 2  # cells of padding: blocks before, rows and columns on each side
LEVELS = (8, 8, 8, 5, 5, 5)  # of digits whose first counts are known
OUTSIDE = -8  # feature of a cell that does not exist

# Numbers of tokens fall in bins, with plain bits for the place inside the bin.
# fmt: off
EDGES = np.array([
    0, 1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257,
    385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145,
])
# fmt: on
SIZES = np.diff(np.append(EDGES, 8193))  # powers of two
_LOG = np.rint(16 * np.log2(1 + np.arange(8193))).astype(np.int64)  # feature of a number of tokens

NOTHING_KEPT, NO_CELL = 4, 5  # besides the four patterns of leading special tokens
PATTERNS = 4  # 0 none; 1 a vector; 2 another value; 3 a vector, then another value
_MOST_BIN = 12  # of a keep length, as an input of patterns
_CELLS = PATTERNS + 2  # what a neighbour may be: a pattern, NOTHING_KEPT, NO_CELL
_REACH = 38  # differences of vectors beyond this count as this

_HIDDEN_SHIFT, _LOGIT_SHIFT = 6, 8
_EXP = np.rint(65536 * np.exp(-np.arange(768) / 64)).astype(np.int64)  # of logits in 64ths, below the largest


_FEW_FRAMES = (
    np.minimum(np.maximum(np.arange(MAX_BLOCK_FRAMES + 1), 1), 4) - 1
)  # as an input: 1, 2, 3, 4 or more

Numbers = npt.NDArray[np.float64] | Symbols


class Tables(NamedTuple):
    """The numbers of the networks: integers of few bits, those that are multiplied best as float64, which is faster."""

    keep_in: Numbers  # (13 + 3 + 4 + 1, hidden): features, block number, frames, bias
    keep_out: Numbers  # (hidden + 1, bins)
    pattern_in: Numbers  # (7 * 6 + 13 + 3 + 4 + 1, hidden)
    pattern_out: Numbers  # (hidden + 1, 4)
    rows: Symbols  # (8, 3, 77): neighbour, its status, difference
    columns: Symbols  # (8, 3, 3, 77): and how far off its row was
    digits: Symbols  # (6, 8, 8): counts that digits of levels (8, 8, 8, 5, 5, 5) begin with, by context

    def keep(self, near: Symbols, block: Symbols, frames: Symbols) -> Symbols:
        """Frequencies of bins (n, bins + 1). near: (n, 13) features; block: its number; frames: its real frames."""
        weights, number = self.keep_in, near.shape[1]
        hidden = near.astype(np.float64) @ weights[:number]
        hidden += weights[np.minimum(block, 2) + number]
        hidden += weights[_FEW_FRAMES[frames] + (number + 3)]
        return _network(hidden, weights[-1], self.keep_out)

    def pattern(self, near: Symbols, keep: Symbols, block: Symbols, frames: Symbols) -> Symbols:
        """Frequencies of patterns (n, 5). near: (n, 7) patterns, NOTHING_KEPT or NO_CELL; keep: (n,) lengths."""
        chosen = np.empty((len(near), NEAREST + 3), np.int64)
        chosen[:, :NEAREST] = near
        chosen[:, NEAREST] = np.minimum(bins(keep), _MOST_BIN)
        chosen[:, NEAREST + 1] = np.minimum(block, 2)
        chosen[:, NEAREST + 2] = _FEW_FRAMES[frames]
        chosen += _PATTERN_INPUTS
        return _network(self.pattern_in[chosen].sum(1), self.pattern_in[-1], self.pattern_out)

    def row(self, status: Symbols, rows: Symbols, radix: int) -> Symbols:
        """Frequencies of the first part of vectors (n, radix + 1). status, rows: (n, 8) of the neighbours."""
        return _frequencies(_summed(self.rows, _ROW_TABLES + status, rows, radix))

    def column(self, status: Symbols, rows: Symbols, columns: Symbols, row: Symbols, radix: int) -> Symbols:
        """Frequencies of the second part (n, radix + 1), the first being `row` (n,)."""
        off = np.abs(rows - row[:, None])
        distance = (off > 0).astype(np.int64) + (off > 2)
        return _frequencies(_summed(self.columns, 3 * (_ROW_TABLES + status) + distance, columns, radix))


_PATTERN_INPUTS = np.array(
    [*range(0, _CELLS * NEAREST, _CELLS), *(_CELLS * NEAREST + n for n in (0, _MOST_BIN + 1, _MOST_BIN + 4))]
)
_ROW_TABLES = 3 * np.arange(NEAREST + 1)  # three statuses of each neighbour
_MULTIPLIED = ("keep_in", "keep_out", "pattern_in", "pattern_out")


@cache
def tables() -> Tables:
    """The tables of this version of the format; they never change."""
    with resources.files("formats").joinpath("tables.npz").open("rb") as file:
        stored = np.load(file, allow_pickle=False)
        types = {name: np.float64 if name in _MULTIPLIED else np.int64 for name in Tables._fields}
        return Tables(*(stored[name].astype(kind) for name, kind in types.items()))


def bins(lengths: Symbols) -> Symbols:
    """The bin of each number of tokens."""
    return np.asarray(np.searchsorted(EDGES, lengths, side="right") - 1, np.int64)


def code_keeps(
    keeps: UInt16Array, totals: Symbols, frames: Symbols, coder: Coder, known: Tables | None = None
) -> Symbols:
    """Keep maps (blocks, h, w) of blocks with `totals` tokens and `frames` real frames; a reader gives zeros.

    Returns them as int64. Raises Corrupt where they do not add up.
    """
    known = known or tables()
    grid = _Grid(keeps.shape)
    field = grid.padded(OUTSIDE, 0)
    result = np.zeros(keeps.size, np.int64)
    given = keeps.ravel().astype(np.int64)
    left = totals.copy()
    cells_left = np.full(len(keeps), keeps[0].size)
    for cells, blocks, at in grid.steps():
        open_ = left[blocks] > 0
        if open_.any():
            some, of, where = (cells, blocks, at) if open_.all() else (cells[open_], blocks[open_], at[open_])
            near = np.empty((len(some), len(NEIGHBOURS) + 1), np.int64)
            near[:, :-1] = field[where[:, None] + grid.offsets]
            near[:, -1] = _LOG[np.minimum(8192, 32 * left[of] // cells_left[of])]
            bin_ = coder.code(known.keep(near, of, frames[of]), bins(given[some]))
            kept, sizes = EDGES[bin_], SIZES[bin_]
            wide = np.flatnonzero(sizes > 1)
            if len(wide):
                kept[wide] += coder.code_uniform(sizes[wide], given[some[wide]] - kept[wide])
            result[some] = kept
            field[where] = _LOG[kept]
            np.subtract.at(left, of, kept)
            if left.min() < 0:
                raise Corrupt("a block keeps more tokens than it says")
        cells_left -= np.bincount(blocks, minlength=len(cells_left))
    if left.any():
        raise Corrupt("a block keeps fewer tokens than it says")
    return result.reshape(keeps.shape)


def leading(first: Symbols, second: Symbols, regular: int, vocabulary: int) -> Symbols:
    """The pattern of each cell's special tokens; first, second: its tokens, -1 where there is none."""
    vectors = range(regular, regular + math.isqrt(vocabulary - regular) ** 2)
    moving = (first >= regular) & (first < vectors.stop)
    after = moving & (second >= vectors.stop)
    return np.where(first >= vectors.stop, 2, moving + 2 * after)


def code_leading(
    first: Symbols,  # (cells,) the first token of each cell; a reader gives zeros
    second: Symbols,  # (cells,) and the second
    pattern: Symbols,  # (cells,); a reader gives zeros
    keeps: UInt16Array,  # (blocks, h, w)
    frames: Symbols,  # (blocks,)
    regular: int,  # token values below this are regular
    vocabulary: int,
    coder: Coder,
    known: Tables | None = None,
) -> tuple[Symbols, Symbols]:
    """Patterns (cells,) and first and second tokens (2, cells), where they are special; the rest as given.

    Raises Corrupt where a cell keeps fewer tokens than its pattern has.
    """
    known = known or tables()
    radix = math.isqrt(vocabulary - regular)
    others = vocabulary - regular - radix**2
    shape = _Grid(keeps.shape)
    near_pattern = shape.padded(NO_CELL, NOTHING_KEPT)
    # the vector in force in each cell: its own, or the one it had in the block before; last, one that stands still
    status, rows, columns = (np.append(shape.padded(0, n), n) for n in (1, radix // 2, radix // 2))
    nearest = shape.offsets[:NEAREST]
    keep = keeps.ravel().astype(np.int64)
    result, tokens = np.zeros_like(pattern), np.stack([first, second])
    for all_cells, all_blocks, all_at in shape.steps():
        inherited = all_at - shape.block
        later = all_blocks > 0
        rows[all_at[later]] = rows[inherited[later]]
        columns[all_at[later]] = columns[inherited[later]]
        some = keep[all_cells] > 0
        cells, blocks, at = all_cells[some], all_blocks[some], all_at[some]
        if not len(cells):
            continue
        starts = known.pattern(near_pattern[at[:, None] + nearest], keep[cells], blocks, frames[blocks])
        found = coder.code(starts, pattern[cells])
        if ((found == 3) & (keep[cells] < 2)).any():
            raise Corrupt("a cell has more special tokens than it keeps")
        result[cells] = near_pattern[at] = found
        moving = (found & 1) > 0
        if moving.any():
            cell, where = cells[moving], at[moving]
            near = np.full((len(cell), NEAREST + 1), len(status) - 1)
            near[:, :-1] = where[:, None] + nearest
            from_, near_rows = status[near], rows[near]
            row, column = np.divmod(np.maximum(first[cell] - regular, 0), radix)
            row = coder.code(known.row(from_, near_rows, radix), row)
            column = coder.code(known.column(from_, near_rows, columns[near], row, radix), column)
            tokens[0, cell] = regular + radix * row + column
            status[where], rows[where], columns[where] = 2, row, column
        if (found >> 1).any():
            if not others:
                raise Corrupt("a token is outside the vocabulary")
            for place, own in ((0, cells[found == 2]), (1, cells[found == 3])):
                if len(own):
                    size = 1 << (others - 1).bit_length()
                    value = (first, second)[place][own] - regular - radix**2
                    value = coder.code_uniform(np.full(len(own), size), value)
                    if (value >= others).any():
                        raise Corrupt("a token is outside the vocabulary")
                    tokens[place, own] = regular + radix**2 + value
    return result, tokens


class _Grid:
    """Cells of a segment in the order they are visited, and arrays with room around them."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        padded = (shape[0] + _BEFORE, shape[1] + 2 * _AROUND, shape[2] + 2 * _AROUND)
        self.padded_shape = padded
        self.block, self.row = padded[1] * padded[2], padded[2]
        self.offsets = np.array([b * self.block + r * self.row + c for b, r, c in NEIGHBOURS])

    def padded(self, outside: int, inside: int) -> Symbols:
        """A flat array: `inside` where there are cells, `outside` around them."""
        field = np.full(self.padded_shape, outside, np.int64)
        field[_BEFORE:, _AROUND:-_AROUND, _AROUND:-_AROUND] = inside
        return field.ravel()

    def steps(self) -> Iterator[tuple[Symbols, Symbols, Symbols]]:
        """For each step its cells' numbers, in file order, their blocks, and their places in padded arrays."""
        block, row, column = (x.ravel() for x in np.indices(self.shape))
        step = column + 2 * row + 4 * block
        order = np.argsort(step, kind="stable")
        at = (block + _BEFORE) * self.block + (row + _AROUND) * self.row + column + _AROUND
        ends = np.bincount(step).cumsum()
        block, at = block[order], at[order]
        for start, end in zip(np.append(0, ends[:-1]).tolist(), ends.tolist(), strict=True):
            if start == end:  # one column: every other step is empty
                continue
            yield order[start:end], block[start:end], at[start:end]


def _summed(table: Symbols, which: Symbols, near: Symbols, radix: int) -> Symbols:
    """Sums over neighbours (n, radix) of what rows `which` (n, 8) of a table say of each distance to theirs (n, 8)."""
    away = np.arange(radix) - near[..., None]  # (n, 8, radix)
    if radix > _REACH + 1:
        away = np.minimum(np.maximum(away, -_REACH), _REACH)
    away += (which * table.shape[-1] + _REACH)[..., None]
    sums: Symbols = table.ravel().take(away).sum(1)
    return sums


def _network(hidden: Numbers, bias: Numbers, outof: Numbers) -> Symbols:
    """What follows the first sums (n, hidden) of two layers with a ReLU between, as frequencies (n, k + 1).

    In float64 all of this is exact: the sums are integers far below 2^53, the shifts are by powers of two.
    """
    hidden = np.maximum(np.floor((hidden + bias) * 2.0**-_HIDDEN_SHIFT), 0)
    logits = np.floor((hidden @ outof[:-1] + outof[-1]) * 2.0**-_LOGIT_SHIFT)
    return _frequencies(logits.astype(np.int64))


def _frequencies(logits: Symbols) -> Symbols:
    """Logits (n, k) in 64ths to cumulative frequencies (n, k + 1)."""
    below = logits.max(1)[:, None] - logits
    return cumulative(_EXP[np.minimum(below, len(_EXP) - 1)])

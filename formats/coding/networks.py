"""The small fixed networks that predict keep maps and control tokens (SPEC.md, 6.3). All arithmetic is on integers."""

from functools import cache, reduce
from importlib import resources
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from formats.coding.rans import FREQUENCY_SUM, Symbols
from formats.coding.wavefront import NEAREST
from formats.records import MAX_BLOCK_FRAMES

FITTED_LEVELS = (8, 8, 8, 5, 5, 5)  # of digits whose first counts are known

# A number of tokens is coded as a bin, and as plain bits for the place inside the bin.
# fmt: off
BIN_EDGES = np.array([
    0, 1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257,
    385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145,
])
# fmt: on
BIN_SIZES = np.diff(np.append(BIN_EDGES, 8193))  # powers of two
LOG_FEATURE = np.rint(16 * np.log2(1 + np.arange(8193))).astype(np.int64)  # feature of a number of tokens

NOTHING_KEPT, NO_CELL = 4, 5  # what a neighbour may be besides its pattern
PATTERNS = (
    4  # of control tokens: 0 none; 1 a motion vector; 2 another one; 3 a motion vector, then another one
)
_LAST_LENGTH_BIN = 12  # all longer sequences count as in this bin, as an input of patterns
_NEIGHBOUR_STATES = PATTERNS + 2  # what a neighbour may be: a pattern, NOTHING_KEPT, NO_CELL
_MAX_DIFFERENCE = 38  # larger differences of motion vectors, in table rows or columns, count as this

_HIDDEN_SHIFT, _LOGIT_SHIFT = 6, 8
# The count of a symbol whose logit is so far, in 64ths, below the largest one.
_EXP_OF_LOGIT = np.rint(65536 * np.exp(-np.arange(768) / 64)).astype(np.int64)

# The input for a block's number of real frames: 1, 2, 3, 4 or more.
_FRAME_COUNT_CLASS = np.minimum(np.maximum(np.arange(MAX_BLOCK_FRAMES + 1), 1), 4) - 1

Numbers = npt.NDArray[np.float64] | Symbols


class Tables(NamedTuple):
    """The weights of the networks, all integers."""

    keep_in: Symbols  # (13 + 3 + 4 + 1, hidden): features, block number, frames, bias
    keep_out: Symbols  # (hidden + 1, bins)
    pattern_in: Symbols  # (7 * 6 + 13 + 3 + 4 + 1, hidden)
    pattern_out: Symbols  # (hidden + 1, 4)
    rows: Symbols  # (8, 3, 77): neighbour, its status, difference
    columns: Symbols  # (8, 3, 3, 77): and how far off its row was
    digits: Symbols  # (6, 8, 8): counts that digits of levels (8, 8, 8, 5, 5, 5) begin with, by context


class Networks:
    """The networks of some tables.

    They work in float64, which is fast and exact here: all sums are integers far below 2^53, and divisors are powers
    of two.
    """

    def __init__(self, tables: Tables) -> None:
        self._keep_near, of_block, of_frames, bias = np.split(
            tables.keep_in * 2.0**-_HIDDEN_SHIFT, np.cumsum([len(tables.keep_in) - 8, 3, 4])
        )
        self._keep_block = _sums(of_block, of_frames) + bias  # (3 * 4, hidden)
        near, keep, of_block, of_frames, bias = np.split(
            tables.pattern_in * 2.0**-_HIDDEN_SHIFT,
            np.cumsum([_NEIGHBOUR_STATES * NEAREST, _LAST_LENGTH_BIN + 1, 3, 4]),
        )
        # neighbours three and four at a time: a number in base 6 says what they are
        each = near.reshape(NEAREST, _NEIGHBOUR_STATES, -1)
        self._pattern_near = tuple(reduce(_sums, some) for some in (each[:3], each[3:]))
        self._pattern_block = _sums(keep, _sums(of_block, of_frames)) + bias  # (13 * 3 * 4, hidden)
        self._keep_out, self._pattern_out = map(_with_offset, (tables.keep_out, tables.pattern_out))
        self._rows, self._columns = (
            part.reshape(-1, part.shape[-1]) for part in (tables.rows, tables.columns)
        )
        self._windows: dict[tuple[int, int], npt.NDArray[np.int32]] = {}
        self.digits = tables.digits

    def keep(self, near: Numbers, block: Symbols, frames: Symbols) -> Symbols:
        """Frequencies of bins (n, bins + 1). near: (n, 13) features; block: its number; frames: its real frames."""
        hidden = np.asarray(near, np.float64) @ self._keep_near
        hidden += self._keep_block.take(_block_class(block, frames), 0)
        return _frequencies(hidden, self._keep_out)

    def pattern(self, near: Symbols, keep: Symbols, block: Symbols, frames: Symbols) -> Symbols:
        """Frequencies of patterns (n, 5). near: (n, 7) patterns, NOTHING_KEPT or NO_CELL; keep: (n,) lengths."""
        numbers = near @ _BASE_6
        kept = np.minimum(bin_of(keep), _LAST_LENGTH_BIN)
        hidden = self._pattern_block.take(12 * kept + _block_class(block, frames), 0)
        for number, sums in zip(numbers.T, self._pattern_near, strict=True):
            hidden += sums.take(number, 0)
        return _frequencies(hidden, self._pattern_out)

    def row(self, status: Symbols, rows: Symbols, radix: int) -> Symbols:
        """Frequencies of the rows of motion vectors (n, radix + 1). status, rows: (n, 8) of the neighbours."""
        return _to_cumulative(self._summed(0, _ROW_TABLES + status, rows, radix))

    def column(self, status: Symbols, rows: Symbols, columns: Symbols, row: Symbols, radix: int) -> Symbols:
        """Frequencies of their columns (n, radix + 1), when `row` (n,) is known."""
        off = np.abs(rows - row[:, None])
        distance = (off > 0).astype(np.int64) + (off > 2)
        which = 3 * (_ROW_TABLES + status)
        which += distance
        return _to_cumulative(self._summed(1, which, columns, radix))

    def _summed(self, part: int, which: Symbols, near: Symbols, radix: int) -> Symbols:
        """Logits (n, radix): sums over neighbours of what rows `which` (n, 8) of a table say of distances to theirs.

        part: 0 for the table of rows, 1 for that of columns. near: (n, 8) rows or columns of the neighbours.
        """
        if (part, radix) not in self._windows:
            if len(self._windows) > 1:  # of another radix: a file has one
                self._windows.clear()
            table = (self._rows, self._columns)[part]
            away = np.arange(radix) - np.arange(radix)[:, None]
            away = np.clip(away, -_MAX_DIFFERENCE, _MAX_DIFFERENCE) + _MAX_DIFFERENCE
            self._windows[part, radix] = table[:, away].reshape(-1, radix).astype(np.int32)
        said = self._windows[part, radix]  # (table rows * radix, radix)
        at = which * radix
        at += near
        total = said.take(at[:, 0], 0)
        for neighbour in range(1, at.shape[1]):
            total += said.take(at[:, neighbour], 0)
        return total.astype(np.int64)


_BASE_6 = np.zeros((NEAREST, 2), np.int64)  # to number what three neighbours are, and what the other four are
_BASE_6[:3, 0] = 36, 6, 1
_BASE_6[3:, 1] = 216, 36, 6, 1
_ROW_TABLES = 3 * np.arange(NEAREST + 1)  # three statuses of each neighbour
_OFFSET = 1 << 30  # of logits, larger than any of them: rounding to zero is then rounding down


def _sums(first: Numbers, second: Numbers) -> Numbers:
    """Every row of `first` (n, hidden) plus every row of `second` (m, hidden), (n * m, hidden)."""
    sums: Numbers = (first[:, None] + second).reshape(-1, first.shape[1])
    return sums


def _with_offset(outof: Symbols) -> Numbers:
    scaled = np.asarray(outof * 2.0**-_LOGIT_SHIFT, np.float64)
    scaled[-1] += _OFFSET
    return scaled


def _block_class(block: Symbols, frames: Symbols) -> Symbols:
    classes: Symbols = 4 * np.minimum(block, 2) + _FRAME_COUNT_CLASS[frames]
    return classes


@cache
def tables() -> Networks:
    """The networks of this version of the format; their tables never change."""
    with resources.files("formats").joinpath("tables.npz").open("rb") as file:
        stored = np.load(file, allow_pickle=False)
        return Networks(Tables(*(stored[name].astype(np.int64) for name in Tables._fields)))


def bin_of(lengths: Symbols) -> Symbols:
    """The bin of each number of tokens."""
    return _BIN_OF[lengths]


_BIN_OF = np.repeat(np.arange(len(BIN_SIZES)), BIN_SIZES)  # (8193,)


def _frequencies(hidden: Numbers, outof: Numbers) -> Symbols:
    """What follows the first sums (n, hidden) of two layers with a ReLU between, as frequencies (n, k + 1).

    outof: (hidden + 1, k), the last row being the bias and _OFFSET.
    """
    np.floor(hidden, out=hidden)
    np.maximum(hidden, 0, out=hidden)
    logits = hidden @ outof[:-1]
    logits += outof[-1]
    return _to_cumulative(logits.astype(np.int64))


def _to_cumulative(logits: Symbols) -> Symbols:
    """Logits (n, k) in 64ths to cumulative frequencies (n, k + 1), as `cumulative` of what _EXP_OF_LOGIT says."""
    count, width = logits.shape
    largest = logits.argmax(1)  # the first one, which has the first of the largest weights
    at_largest = np.arange(0, count * width, width)
    at_largest += largest
    below = np.subtract(logits.ravel()[at_largest][:, None], logits)
    np.minimum(below, len(_EXP_OF_LOGIT) - 1, out=below)
    frequency = _WEIGHTS.take(below)
    before, ones = _sums_before(width)
    total = frequency @ ones
    frequency *= FREQUENCY_SUM - width
    frequency /= total[:, None]  # quotients are exact enough to be rounded down: all is below 2^32
    np.floor(frequency, out=frequency)
    frequency += 1
    frequency.ravel()[at_largest] += FREQUENCY_SUM - frequency @ ones
    starts: Symbols = (frequency @ before).astype(np.int64)
    return starts


_WEIGHTS = _EXP_OF_LOGIT.astype(np.float64)


@cache
def _sums_before(width: int) -> tuple[Numbers, Numbers]:
    """Matrices (width, width + 1) and (width,) that sum what is before each place, and all."""
    return np.triu(np.ones((width, width + 1)), 1), np.ones(width)

"""The small fixed networks that predict keep maps and control tokens (SPEC.md, 6.3). All arithmetic is on integers."""

from functools import cache
from importlib import resources
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from formats.coding.rans import Symbols, cumulative
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
    """The weights of the networks, all integers. Those that are multiplied are stored as float64, which is faster."""

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
        hidden += weights[_FRAME_COUNT_CLASS[frames] + (number + 3)]
        return _network(hidden, weights[-1], self.keep_out)

    def pattern(self, near: Symbols, keep: Symbols, block: Symbols, frames: Symbols) -> Symbols:
        """Frequencies of patterns (n, 5). near: (n, 7) patterns, NOTHING_KEPT or NO_CELL; keep: (n,) lengths."""
        chosen = np.empty((len(near), NEAREST + 3), np.int64)
        chosen[:, :NEAREST] = near
        chosen[:, NEAREST] = np.minimum(bin_of(keep), _LAST_LENGTH_BIN)
        chosen[:, NEAREST + 1] = np.minimum(block, 2)
        chosen[:, NEAREST + 2] = _FRAME_COUNT_CLASS[frames]
        chosen += _PATTERN_INPUTS
        return _network(self.pattern_in[chosen].sum(1), self.pattern_in[-1], self.pattern_out)

    def row(self, status: Symbols, rows: Symbols, radix: int) -> Symbols:
        """Frequencies of the rows of motion vectors (n, radix + 1). status, rows: (n, 8) of the neighbours."""
        return _frequencies(_summed(self.rows, _ROW_TABLES + status, rows, radix))

    def column(self, status: Symbols, rows: Symbols, columns: Symbols, row: Symbols, radix: int) -> Symbols:
        """Frequencies of their columns (n, radix + 1), when `row` (n,) is known."""
        off = np.abs(rows - row[:, None])
        distance = (off > 0).astype(np.int64) + (off > 2)
        return _frequencies(_summed(self.columns, 3 * (_ROW_TABLES + status) + distance, columns, radix))


_PATTERN_INPUTS = np.array(
    [
        *range(0, _NEIGHBOUR_STATES * NEAREST, _NEIGHBOUR_STATES),
        *(_NEIGHBOUR_STATES * NEAREST + n for n in (0, _LAST_LENGTH_BIN + 1, _LAST_LENGTH_BIN + 4)),
    ]
)
_ROW_TABLES = 3 * np.arange(NEAREST + 1)  # three statuses of each neighbour
_FLOAT_TABLES = ("keep_in", "keep_out", "pattern_in", "pattern_out")


@cache
def tables() -> Tables:
    """The tables of this version of the format; they never change."""
    with resources.files("formats").joinpath("tables.npz").open("rb") as file:
        stored = np.load(file, allow_pickle=False)
        types = {name: np.float64 if name in _FLOAT_TABLES else np.int64 for name in Tables._fields}
        return Tables(*(stored[name].astype(kind) for name, kind in types.items()))


def bin_of(lengths: Symbols) -> Symbols:
    """The bin of each number of tokens."""
    return np.asarray(np.searchsorted(BIN_EDGES, lengths, side="right") - 1, np.int64)


def _summed(table: Symbols, which: Symbols, near: Symbols, radix: int) -> Symbols:
    """Sums over neighbours (n, radix) of what rows `which` (n, 8) of a table say of each distance to theirs (n, 8)."""
    away = np.arange(radix) - near[..., None]  # (n, 8, radix)
    if radix > _MAX_DIFFERENCE + 1:
        away = np.minimum(np.maximum(away, -_MAX_DIFFERENCE), _MAX_DIFFERENCE)
    away += (which * table.shape[-1] + _MAX_DIFFERENCE)[..., None]
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
    return cumulative(_EXP_OF_LOGIT[np.minimum(below, len(_EXP_OF_LOGIT) - 1)])

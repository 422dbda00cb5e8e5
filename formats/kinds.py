"""What the tokens of a block are spent on: how many cells and tokens each way of coding has (SPEC.md, 4.1 and 6.4).

A cell's sequence begins with its control tokens. Codes that belong to one of them follow (those of a camera shake, that
of a whole vector), then the stream: FSQ codes, or what a screen mode says. A control token behind codes counts as one
of the codes, because no model reads it as anything else.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from formats.records import (
    MAX_TOKENS_PER_CELL,
    PALETTE_SIZES,
    Block,
    ControlRange,
    Header,
    ModelRef,
    UInt16Array,
)

CODINGS = ("fsq", "vector", "dct", "palette")  # of a cell's stream
CONTROLS = ("motion_vector", "whole_vector", "pan", "shake", "gain")
OTHER = "other"  # control tokens of kinds that this program does not know, and what follows them
TOKEN_KINDS = (*CODINGS, *CONTROLS, OTHER)
CONTROL_ALONE, NO_TOKENS = "control_alone", "none"
# Every cell is of exactly one of these; of CONTROLS it can have several, or none.
CELL_KINDS = (*CODINGS, OTHER, CONTROL_ALONE, NO_TOKENS)

# What the values from the first control token on meant in the default model when headers did not say it: kind, count,
# codes that follow for each frame. Older models have a smaller vocabulary, which ends earlier in this list.
_OLD_LAYOUT = (("motion_vector", 1521, 0), ("gain", 3, 0), ("pan", 2, 0), ("shake", 1, 1))

_VALUES = 1 << 16  # a token has 16 bits
_MAX_CELLS_AT_ONCE = 1 << 17  # blocks are counted together up to so many; bounds the memory
_NUMBER = {kind: number for number, kind in enumerate(TOKEN_KINDS)}
_FSQ, _DCT, _PALETTE, _WHOLE = (_NUMBER[kind] for kind in ("fsq", "dct", "palette", "whole_vector"))
_OTHER = _NUMBER[OTHER]

IntArray = npt.NDArray[np.int64]
Int32Array = npt.NDArray[np.int32]
BoolArray = npt.NDArray[np.bool_]


def _no_cells() -> dict[str, int]:
    return dict.fromkeys((*CELL_KINDS, *CONTROLS), 0)


def _no_tokens() -> dict[str, int]:
    return dict.fromkeys(TOKEN_KINDS, 0)


@dataclass(frozen=True)
class KindCounts:
    """Counts by kind, 0 or more.

    tokens: by TOKEN_KINDS; their sum is all tokens. cells: by CELL_KINDS, whose sum is all cells; and by CONTROLS, how
    many cells have such a token.
    """

    cells: dict[str, int] = field(default_factory=_no_cells)
    tokens: dict[str, int] = field(default_factory=_no_tokens)

    def __add__(self, other: "KindCounts") -> "KindCounts":
        return KindCounts(
            {kind: count + other.cells[kind] for kind, count in self.cells.items()},
            {kind: count + other.tokens[kind] for kind, count in self.tokens.items()},
        )


def control_ranges(header: Header) -> tuple[ControlRange, ...]:
    """The ranges of control tokens of a file: the header's, or those of the vocabulary in files that have none."""
    return header.control_tokens or _ranges_by_vocabulary(header.model)


def _ranges_by_vocabulary(model: ModelRef) -> tuple[ControlRange, ...]:
    """For old files only, whose headers do not say it: the layout of the default model, up to the vocabulary."""
    if model.vector:
        return ()
    ranges = []
    first = math.prod(model.levels)
    for kind, count, followed_by in _OLD_LAYOUT:
        count = min(count, model.vocabulary - first)
        if count > 0:
            ranges.append(ControlRange(kind, first, count, followed_by))
            first += count
    return tuple(ranges)


class KindCounter:
    """Counts the tokens and cells of a file's blocks by kind."""

    def __init__(self, header: Header) -> None:
        self._vectors = header.model.vector > 0
        self._kind = np.full(_VALUES, _OTHER, np.uint8)
        self._kind[: math.prod(header.model.levels)] = _FSQ
        self._each_frame = np.zeros(_VALUES, np.int64)  # codes that belong to a control token, for each frame
        for part in control_ranges(header):
            count = min(part.count, len(PALETTE_SIZES)) if part.kind == "palette" else part.count
            self._kind[part.first : part.first + count] = _NUMBER.get(part.kind, _OTHER)
            self._each_frame[part.first : part.first + part.count] = part.followed_by

    def count(self, blocks: Sequence[Block]) -> KindCounts:
        """The counts of some blocks, which come with their tokens."""
        total = KindCounts()
        for group in _groups(blocks):
            total += self._count(group)
        return total

    def _count(self, blocks: Sequence[Block]) -> KindCounts:
        keep = np.stack([block.keep.ravel() for block in blocks]).astype(np.int32)  # (blocks, cells)
        counts = KindCounts()
        counts.cells[NO_TOKENS] = int((keep == 0).sum())
        if self._vectors:
            counts.cells["vector"] = int((keep > 0).sum())
            counts.tokens["vector"] = int(keep.sum(dtype=np.int64))
            return counts
        block, cell = np.nonzero(keep)  # (n,) each: the cells that have tokens
        frames = np.array([len(block.pts) for block in blocks])[block]
        rest = keep[block, cell].astype(np.int64)  # tokens of each that are in no kind yet
        last = np.full(len(rest), _FSQ, np.uint8)  # kind of its last control token
        has = np.zeros((len(TOKEN_KINDS), len(rest)), np.bool_)
        owed = np.zeros((len(TOKEN_KINDS), len(rest)), np.int32)  # codes that belong to its control tokens
        for cells, values in _heads(blocks, keep, block, cell, self._kind != _FSQ):
            kinds = self._kind[values]
            rest[cells] -= 1
            last[cells] = kinds
            has[kinds, cells] = True
            more = self._each_frame[values] * frames[cells] + (kinds == _WHOLE)
            owed[kinds, cells] = np.minimum(owed[kinds, cells] + more, MAX_TOKENS_PER_CELL)
            for kind, tokens in enumerate(np.bincount(kinds, minlength=len(TOKEN_KINDS)).tolist()):
                counts.tokens[TOKEN_KINDS[kind]] += tokens
        for number, kind_name in enumerate(TOKEN_KINDS):
            taken = np.minimum(owed[number], rest)
            rest -= taken
            counts.tokens[kind_name] += int(taken.sum())
            if kind_name in CONTROLS:
                counts.cells[kind_name] = int(has[number].sum())
        _add_streams(counts, last, rest)
        return counts


def _heads(
    blocks: Sequence[Block], keep: Int32Array, block: IntArray, cell: IntArray, is_control: BoolArray
) -> Iterator[tuple[IntArray, UInt16Array]]:
    """The control tokens that cells begin with: all first ones, all second ones, ...

    keep: (blocks, cells). block, cell: (n,), where the cells are that have tokens. is_control: (65536,), by value.
    Gives which of the n cells have such a token, ascending, and its value.
    """
    flat = np.concatenate([block.tokens for block in blocks])
    size = keep.sum(1, dtype=np.int64)
    run = np.cumsum(size) - size  # where in `flat` the tokens of each block with this index begin
    cells = np.arange(len(block))
    for index in range(int(keep.max())):
        more = keep > index
        cells = cells[more[block[cells], cell[cells]]]
        before = (
            np.cumsum(more, 1, dtype=np.int32) - 1
        )  # cells of the block with such a token before this one
        values = flat[run[block[cells]] + before[block[cells], cell[cells]]]
        control = is_control[values]
        cells = cells[control]
        if not len(cells):
            return
        yield cells, values[control]
        run += more.sum(1)


def _add_streams(counts: KindCounts, last: npt.NDArray[np.uint8], rest: IntArray) -> None:
    """Add the cells that have tokens, and their streams.

    last: (n,) the kind of each cell's last control token, fsq without any. rest: (n,) the tokens of its stream.
    """
    mode = np.isin(last, (_DCT, _PALETTE, _OTHER))  # these code a cell even where all codes are cut off
    coding = np.where(mode, last, np.where(last == _WHOLE, _DCT, _FSQ))
    coded = mode | (rest > 0)
    counts.cells[CONTROL_ALONE] += int((~coded).sum())
    for number in (_FSQ, _DCT, _PALETTE, _OTHER):
        here = coded & (coding == number)
        counts.cells[TOKEN_KINDS[number]] += int(here.sum())
        counts.tokens[TOKEN_KINDS[number]] += int(rest[here].sum())


def _groups(blocks: Sequence[Block]) -> Iterator[Sequence[Block]]:
    """The same blocks, as many together as bound the memory; one at least."""
    if blocks:
        size = max(1, _MAX_CELLS_AT_ONCE // blocks[0].keep.size)
        yield from (blocks[first : first + size] for first in range(0, len(blocks), size))

"""Entropy coding of the control tokens at the head of cells' sequences, motion vectors among them (SPEC.md, 6.2)."""

import math

import numpy as np

from formats.coding.networks import NO_CELL, NOTHING_KEPT, Tables, tables
from formats.coding.rans import Coder, Symbols
from formats.coding.wavefront import NEAREST, Grid
from formats.errors import Corrupt
from formats.records import UInt16Array


def patterns_of(first: Symbols, second: Symbols, regular: int, vocabulary: int) -> Symbols:
    """The pattern of each cell's special tokens; first, second: its tokens, -1 where there is none."""
    vectors = range(regular, regular + math.isqrt(vocabulary - regular) ** 2)
    moving = (first >= regular) & (first < vectors.stop)
    after = moving & (second >= vectors.stop)
    return np.where(first >= vectors.stop, 2, moving + 2 * after)


def code_control_tokens(
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
    shape = Grid(keeps.shape)
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

"""Entropy coding of control tokens, motion vectors above all, predicted from those of neighbours (SPEC.md, 6.2).

The control tokens of a cell are its first tokens: none, a motion vector, another one, or a motion vector and another
one. Which of these four *patterns* a cell has is coded first. Then its motion vector is coded, as row and column in
the model's table of vectors, predicted from the vectors of neighbouring cells. Other control tokens are coded as they
are.
"""

import math

import numpy as np

from formats.coding.adaptive import COUNT_INCREMENT, Table
from formats.coding.networks import NO_CELL, NOTHING_KEPT, Networks, tables
from formats.coding.rans import Coder, Symbols
from formats.coding.wavefront import NEAREST, Grid
from formats.errors import Corrupt
from formats.records import UInt16Array


def patterns_of(first: Symbols, second: Symbols, first_control: int, vocabulary: int) -> Symbols:
    """The pattern (cells,) of cells' control tokens; first, second (cells,): their tokens, -1 where there is none."""
    vectors = range(first_control, first_control + math.isqrt(vocabulary - first_control) ** 2)
    has_vector = (first >= first_control) & (first < vectors.stop)
    after = has_vector & (second >= vectors.stop)
    return np.where(first >= vectors.stop, 2, has_vector + 2 * after)


def other_values(first_control: int, vocabulary: int) -> int:
    """How many values are control tokens and no motion vectors."""
    return vocabulary - first_control - math.isqrt(vocabulary - first_control) ** 2


def code_control_tokens(
    first: Symbols,  # (cells,) the first token of each cell; a reader gives zeros
    second: Symbols,  # (cells,) and the second
    pattern: Symbols,  # (cells,); a reader gives zeros
    keeps: UInt16Array,  # (blocks, h, w)
    frames: Symbols,  # (blocks,)
    first_control: int,  # the first value that is a control token
    vocabulary: int,
    coder: Coder,
    known: Networks | None = None,
    *,
    adaptive: bool = False,  # other control tokens have frequencies that adapt (coding 5)
) -> tuple[Symbols, Symbols]:
    """Patterns (cells,) and first and second tokens (2, cells), where they are control tokens; the rest as given.

    Raises Corrupt where a cell keeps fewer tokens than its pattern has.
    """
    known = known or tables()
    radix = math.isqrt(vocabulary - first_control)
    others = other_values(first_control, vocabulary)
    counts = [Table(np.full(others, COUNT_INCREMENT)) for _ in range(2)] if adaptive and others else None
    shape = Grid(keeps.shape)
    near_pattern = shape.padded(NO_CELL, NOTHING_KEPT)
    # each cell's motion vector in force: its own, else that of the block before; the last entry stands still
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
            raise Corrupt("a cell has more control tokens than it keeps")
        result[cells] = near_pattern[at] = found
        has_vector = (found & 1) > 0
        if has_vector.any():
            cell, where = cells[has_vector], at[has_vector]
            near = np.full((len(cell), NEAREST + 1), len(status) - 1)
            near[:, :-1] = where[:, None] + nearest
            near_status, near_rows = status[near], rows[near]
            row, column = np.divmod(np.maximum(first[cell] - first_control, 0), radix)
            row = coder.code(known.row(near_status, near_rows, radix), row)
            column = coder.code(known.column(near_status, near_rows, columns[near], row, radix), column)
            tokens[0, cell] = first_control + radix * row + column
            status[where], rows[where], columns[where] = 2, row, column
        if (found >> 1).any():
            if not others:
                raise Corrupt("a token is outside the vocabulary")
            for place, own in ((0, cells[found == 2]), (1, cells[found == 3])):
                if len(own):
                    value = (first, second)[place][own] - first_control - radix**2
                    if counts is not None:
                        value = counts[place].code(value, coder)
                    else:
                        size = 1 << (others - 1).bit_length()
                        value = coder.code_uniform(np.full(len(own), size), value)
                    if (value >= others).any():
                        raise Corrupt("a token is outside the vocabulary")
                    tokens[place, own] = first_control + radix**2 + value
    return result, tokens

"""Entropy coding of control tokens, motion vectors above all, predicted from those of neighbours (SPEC.md, 6.2).

The control tokens of a cell are its first tokens: none, a motion vector, another one, or a motion vector and another
one. Which of these four *patterns* a cell has is coded first. Then its motion vector is coded, as row and column in
the model's table of vectors, predicted from the vectors of neighbouring cells. Other control tokens are coded as they
are.
"""

import math

import numpy as np
import numpy.typing as npt

from formats.coding.adaptive import COUNT_INCREMENT, Table
from formats.coding.networks import NO_CELL, NOTHING_KEPT, Networks, tables
from formats.coding.rans import FREQUENCY_SUM, Coder, Symbols, Writer, in_order
from formats.coding.wavefront import NEAREST, Grid, predicted
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


class ControlTokens:
    """The control tokens of a segment as a writer knows them: all steps at once, for codings 4 and 5."""

    def __init__(
        self,
        first: Symbols,  # (cells,) the first token of each cell, -1 where there is none
        second: Symbols,  # (cells,) and the second
        pattern: Symbols,  # (cells,)
        keeps: UInt16Array,  # (blocks, h, w)
        frames: Symbols,  # (blocks,)
        first_control: int,
        vocabulary: int,
    ) -> None:
        radix = math.isqrt(vocabulary - first_control)
        self._others = other_values(first_control, vocabulary)
        grid = Grid(keeps.shape)
        step, cells, blocks, at = grid.visits()
        some = keeps.ravel()[cells] > 0
        step, cells, blocks, at = (each[some] for each in (step, cells, blocks, at))
        # parts of the stream: the keys of their symbols' chunks, frequencies, starts
        self._parts: list[tuple[Symbols, Symbols, Symbols]] = [
            (_keys(step, 0), *_written_patterns(grid, cells, blocks, at, pattern, keeps, frames))
        ]
        moving = (pattern[cells] & 1) > 0
        if moving.any():
            row, column = np.divmod(first - first_control, radix)
            own = (pattern & 1).reshape(keeps.shape) > 0
            vectors = _Vectors(grid, own, row.reshape(keeps.shape), column.reshape(keeps.shape), radix)
            cell = cells[moving]
            rows, columns = vectors.written(at[moving], row[cell], column[cell])
            self._parts += [(_keys(step[moving], 1), *rows), (_keys(step[moving], 2), *columns)]
        # of other control tokens: steps and values, of pattern 2, then of pattern 3
        self._other_values = [
            (step[found], tokens[cells[found]] - first_control - radix**2)
            for tokens, found in ((first, pattern[cells] == 2), (second, pattern[cells] == 3))
        ]

    def write(self, writer: Writer, *, adaptive: bool) -> None:
        """Write what `code_control_tokens` would."""
        parts = list(self._parts)
        for place, (steps, values) in enumerate(self._other_values):
            if not len(steps):
                continue
            keys = _keys(steps, 3 + place)
            if adaptive:
                table = Table(np.full(self._others, COUNT_INCREMENT))
                sequences = np.split(values, np.flatnonzero(np.diff(steps)) + 1)
                frequencies, starts, chunks = table.intervals(sequences)
                keys += np.repeat(np.arange(len(chunks)), chunks)
            else:
                size = 1 << (self._others - 1).bit_length()
                frequencies = np.full(len(values), FREQUENCY_SUM // size)
                starts = frequencies * values
            parts.append((keys, frequencies.astype(np.int64), starts.astype(np.int64)))
        writer.put(in_order(parts))


def _keys(step: Symbols, part: int) -> Symbols:
    """The key of a step's chunk: patterns, rows, columns, values of pattern 2 and of 3.

    There is room between keys for the numbers of the chunks of values, which are fewer than cells.
    """
    keys: Symbols = (5 * step + part) << 21
    return keys


def _written_patterns(
    grid: Grid,
    cells: Symbols,
    blocks: Symbols,
    at: Symbols,
    pattern: Symbols,
    keeps: UInt16Array,
    frames: Symbols,
) -> tuple[Symbols, Symbols]:
    """Frequencies and starts of the patterns of cells."""
    known, nearest = tables(), grid.offsets[:NEAREST]
    field = grid.padded(NO_CELL, np.where(keeps > 0, pattern.reshape(keeps.shape), NOTHING_KEPT))
    keep = keeps.ravel()[cells].astype(np.int64)

    def frequencies(span: slice) -> Symbols:
        near = field[at[span, None] + nearest]
        return known.pattern(near, keep[span], blocks[span], frames[blocks[span]])

    return predicted(len(cells), frequencies, pattern[cells])


class _Vectors:
    """The motion vectors in force in all cells, in padded arrays whose last entry is a cell that stands still."""

    def __init__(
        self, grid: Grid, own: npt.NDArray[np.bool_], row: Symbols, column: Symbols, radix: int
    ) -> None:
        """own: (blocks, h, w) whether a cell has a motion vector; row, column: (blocks, h, w) which, if it has one."""
        still = radix // 2
        rows, columns = np.full((2, *own.shape), still)
        for block in range(len(own)):
            for field, found in ((rows, row), (columns, column)):
                if block:
                    field[block] = field[block - 1]
                np.copyto(field[block], found[block], where=own[block])
        self._radix = radix
        self._nearest = grid.offsets[:NEAREST]
        self._status, self._rows, self._columns = (
            np.append(grid.padded(0, inside), last)
            for inside, last in ((1 + own.astype(np.int64), 1), (rows, still), (columns, still))
        )

    def written(
        self, at: Symbols, row: Symbols, column: Symbols
    ) -> tuple[tuple[Symbols, Symbols], tuple[Symbols, Symbols]]:
        """Frequencies and starts of the rows and of the columns of cells' motion vectors."""
        known = tables()

        def near(span: slice) -> Symbols:
            found = np.full((len(at[span]), NEAREST + 1), len(self._status) - 1)
            found[:, :-1] = at[span, None] + self._nearest
            return found

        def of_rows(span: slice) -> Symbols:
            places = near(span)
            return known.row(self._status[places], self._rows[places], self._radix)

        def of_columns(span: slice) -> Symbols:
            places = near(span)
            status, rows, columns = (field[places] for field in (self._status, self._rows, self._columns))
            return known.column(status, rows, columns, row[span], self._radix)

        return predicted(len(at), of_rows, row), predicted(len(at), of_columns, column)


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

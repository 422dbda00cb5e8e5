"""The order in which cells are visited where each is predicted from those around it (SPEC.md, 5.2).

Cells are visited in *steps*, all those of equal `column + 2 * row + 4 * block` at once, so that the left, the upper and
the earlier neighbours of a cell are known when it is coded.
"""

from collections.abc import Callable, Iterator

import numpy as np

from formats.coding.rans import Symbols, intervals_of

MAX_PREDICTED_CELLS = 1 << 20  # of a segment: bounds the memory that steps take
CELLS_AT_ONCE = 1 << 11  # that a writer, who knows them all, predicts: few enough for a processor's cache

# Neighbours as (blocks, rows, columns) away. Keep maps are predicted from all of them, control tokens from the
# first seven.
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
_PADDING_BLOCKS, _PADDING_CELLS = 2, 2  # around a grid: blocks before it; rows and columns on each side


class Grid:
    """Cells of a segment in the order they are visited, and arrays with room around them."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        padded = (shape[0] + _PADDING_BLOCKS, shape[1] + 2 * _PADDING_CELLS, shape[2] + 2 * _PADDING_CELLS)
        self.padded_shape = padded
        self.block, self.row = padded[1] * padded[2], padded[2]
        self.offsets = np.array([b * self.block + r * self.row + c for b, r, c in NEIGHBOURS])

    def padded(self, outside: int, inside: int | Symbols) -> Symbols:
        """A flat array: `inside` where there are cells, one number or one each; `outside` around them."""
        field = np.full(self.padded_shape, outside, np.int64)
        field[_PADDING_BLOCKS:, _PADDING_CELLS:-_PADDING_CELLS, _PADDING_CELLS:-_PADDING_CELLS] = inside
        return field.ravel()

    def steps(self) -> Iterator[tuple[Symbols, Symbols, Symbols]]:
        """For each step its cells' numbers, in file order, their blocks, and their places in padded arrays."""
        step, cells, block, at = self.visits()
        ends = np.bincount(step).cumsum()
        for start, end in zip(np.append(0, ends[:-1]).tolist(), ends.tolist(), strict=True):
            if start == end:  # one column: every other step is empty
                continue
            yield cells[start:end], block[start:end], at[start:end]

    def visits(self) -> tuple[Symbols, Symbols, Symbols, Symbols]:
        """All cells as they are visited: their steps and, as of `steps`, numbers, blocks and places."""
        block, row, column = (x.ravel() for x in np.indices(self.shape))
        step = column + 2 * row + 4 * block
        order = np.argsort(step, kind="stable")
        at = (
            (block + _PADDING_BLOCKS) * self.block
            + (row + _PADDING_CELLS) * self.row
            + column
            + _PADDING_CELLS
        )
        return step[order], order, block[order], at[order]


def predicted(count: int, starts_of: Callable[[slice], Symbols], symbols: Symbols) -> tuple[Symbols, Symbols]:
    """Frequencies and starts of symbols (count,); starts_of: the cumulative frequencies of some of them."""
    frequencies, starts = np.empty((2, count), np.int64)
    for first in range(0, count, CELLS_AT_ONCE):
        span = slice(first, first + CELLS_AT_ONCE)
        frequencies[span], starts[span] = intervals_of(starts_of(span), symbols[span])
    return frequencies, starts

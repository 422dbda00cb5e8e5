"""The order in which cells are visited where each is predicted from those around it (SPEC.md, 5.2).

Cells are visited in *steps*, all those of equal `column + 2 * row + 4 * block` at once, so that the left, the upper and
the earlier neighbours of a cell are known when it is coded.
"""

from collections.abc import Iterator

import numpy as np

from formats.coding.rans import Symbols

MAX_PREDICTED_CELLS = 1 << 20  # of a segment: bounds the memory that steps take

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

    def padded(self, outside: int, inside: int) -> Symbols:
        """A flat array: `inside` where there are cells, `outside` around them."""
        field = np.full(self.padded_shape, outside, np.int64)
        field[_PADDING_BLOCKS:, _PADDING_CELLS:-_PADDING_CELLS, _PADDING_CELLS:-_PADDING_CELLS] = inside
        return field.ravel()

    def steps(self) -> Iterator[tuple[Symbols, Symbols, Symbols]]:
        """For each step its cells' numbers, in file order, their blocks, and their places in padded arrays."""
        block, row, column = (x.ravel() for x in np.indices(self.shape))
        step = column + 2 * row + 4 * block
        order = np.argsort(step, kind="stable")
        at = (
            (block + _PADDING_BLOCKS) * self.block
            + (row + _PADDING_CELLS) * self.row
            + column
            + _PADDING_CELLS
        )
        ends = np.bincount(step).cumsum()
        block, at = block[order], at[order]
        for start, end in zip(np.append(0, ends[:-1]).tolist(), ends.tolist(), strict=True):
            if start == end:  # one column: every other step is empty
                continue
            yield order[start:end], block[start:end], at[start:end]

"""Some cells of a grid: what the codec does to a cell often concerns few of them."""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import torch


class Selection:
    """Some cells of the grids of B pictures. Where they are is looked up once, not at every use.

    `take`, `put`, `take_patches` and `write_patches` see all of them as one row of `count` cells, whichever picture
    they belong to. `take_each`, `write_each`, `take_pixels` and `write_pixels` see a batch of pictures with M cells
    each, M being the most that any picture has; pictures with fewer are filled up with cells that are never written.
    """

    def __init__(self, where: torch.Tensor, most: int | None = None, each: Places | None = None) -> None:
        """where: (B, h, w) bool, the cells that are selected; most: M or more, or each: where they are, if it is known.
        Then `take_each`, `write_each`, `take_pixels` and `write_pixels` need no host read."""
        self.where = where
        self._most, self._each = most, each

    @cached_property
    def _places(self) -> tuple[torch.Tensor, ...]:
        return self.where.nonzero(as_tuple=True)

    @property
    def picture(self) -> torch.Tensor:
        """The picture of each cell, (count,) int64."""
        return self._places[0]

    @property
    def row(self) -> torch.Tensor:
        """The row of each cell, (count,) int64."""
        return self._places[1]

    @property
    def column(self) -> torch.Tensor:
        """The column of each cell, (count,) int64."""
        return self._places[2]

    @classmethod
    def spread(cls, batch: int, grid: tuple[int, int], most: int, device: torch.device) -> Selection:
        """At most so many cells of each picture, spread evenly over it; the same ones in all of them."""
        rows, columns = grid
        cells = rows * columns
        count = min(most, cells)
        number = (2 * torch.arange(count, device=device) + 1) * cells // (2 * count)
        number = number.expand(batch, -1)
        where = torch.zeros(batch, cells, dtype=torch.bool, device=device).scatter(1, number, True)
        picture = torch.arange(batch, device=device).view(-1, 1)
        each = Places(picture, number // columns, number % columns, None)
        return cls(where.view(batch, *grid), each=each)

    @classmethod
    def everywhere(cls, batch: int, grid: tuple[int, int], device: torch.device) -> Selection:
        """All cells of `batch` pictures."""
        number = torch.arange(grid[0] * grid[1], device=device).expand(batch, -1)
        picture = torch.arange(batch, device=device).view(-1, 1)
        each = Places(picture, number // grid[1], number % grid[1], None)
        return cls(torch.ones(batch, *grid, dtype=torch.bool, device=device), each=each)

    @property
    def count(self) -> int:
        """How many cells are selected, of all pictures together."""
        return len(self.picture)

    def take(self, x: torch.Tensor) -> torch.Tensor:
        """Values of the selected cells: (B, C, h, w) to (1, C, 1, count)."""
        rows = x.permute(0, 2, 3, 1)
        if self.count == self.where.numel():
            rows = rows.flatten(0, 2)
        else:
            rows = rows[self.picture, self.row, self.column]
        return rows.t()[None, :, None]

    def put(self, into: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """A copy of `into` (B, C, h, w) with the values x (1, C, 1, count) in the selected cells."""
        out = into.permute(0, 2, 3, 1).clone()
        out[self.picture, self.row, self.column] = x[0, :, 0].t()
        return out.permute(0, 3, 1, 2)

    def rows(self, x: torch.Tensor) -> torch.Tensor:
        """Values of the selected cells: (B, h, w, ...) to (count, ...)."""
        return x[self.picture, self.row, self.column]

    def put_rows(self, into: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """A copy of `into` (B, h, w, ...) with rows (count, ...) in the selected cells."""
        return into.index_put((self.picture, self.row, self.column), rows.to(into.dtype))

    @cached_property
    def each(self) -> Places:
        """The selected cells picture by picture."""
        if self._each is not None:
            return self._each
        batch, _, columns = self.where.shape
        if batch == 1 and self._most is None:
            return Places(self.picture[None], self.row[None], self.column[None], None)
        flat = self.where.flatten(1)
        most = int(flat.sum(1).max()) if self._most is None else self._most
        number = flat.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :most]
        picture = torch.arange(batch, device=flat.device).view(-1, 1)
        return Places(picture, number // columns, number % columns, ~flat.gather(1, number))

    @property
    def most(self) -> int:
        """M: the most cells that are selected in any picture."""
        return self.each.row.shape[1]

    def take_each(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) to (B, M, C)."""
        picture, row, column, _ = self.each
        return x[picture, :, row, column]

    def write_each(self, into: torch.Tensor, x: torch.Tensor) -> None:
        """Write x (B, M, C) to the selected cells of (B, C, h, w), in place."""
        picture, row, column, padding = self.each
        if padding is not None:
            x = torch.where(padding.unsqueeze(2), self.take_each(into), x)
        into[picture, :, row, column] = x

    def take_patches(self, frames: torch.Tensor, cell: int) -> torch.Tensor:
        """The patches of the selected cells of frames (B, T, C, H, W), as one row: (count, T, C, cell, cell)."""
        return _by_cell(frames, cell)[self.picture, self.row, self.column]

    def write_patches(self, into: torch.Tensor, patches: torch.Tensor) -> None:
        """Write patches (count, T, C, cell, cell) to the selected cells of frames (B, T, C, H, W), in place."""
        _by_cell(into, patches.shape[-1])[self.picture, self.row, self.column] = patches

    def take_pixels(self, frames: torch.Tensor, cell: int) -> torch.Tensor:
        """The pixels of the selected cells of frames (B, T, C, H, W): (B, M, T, C, cell, cell)."""
        picture, row, column, _ = self.each
        return _by_cell(frames, cell)[picture, row, column]

    def write_pixels(self, into: torch.Tensor, pixels: torch.Tensor) -> None:
        """Write pixels (B, M, T, C, cell, cell) to the selected cells of frames (B, T, C, H, W), in place."""
        picture, row, column, padding = self.each
        if padding is not None:
            before = self.take_pixels(into, pixels.shape[-1])
            pixels = torch.where(padding.view(*padding.shape, 1, 1, 1, 1), before, pixels)
        _by_cell(into, pixels.shape[-1])[picture, row, column] = pixels


class Places(NamedTuple):
    """Where the cells of a selection are, M in each picture."""

    picture: torch.Tensor  # (B, M) or (B, 1) int64
    row: torch.Tensor  # (B, M) int64
    column: torch.Tensor  # (B, M) int64
    padding: torch.Tensor | None  # (B, M) bool: cells that only fill a picture up to M; None: there are none


def _by_cell(frames: torch.Tensor, cell: int) -> torch.Tensor:
    """A view of (B, T, C, H, W), (B, h, w, T, C, cell, cell)."""
    batch, count, channels, height, width = frames.shape
    split = frames.view(batch, count, channels, height // cell, cell, width // cell, cell)
    return split.permute(0, 3, 5, 1, 2, 4, 6)

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

    def __init__(self, where: torch.Tensor) -> None:
        """where: (B, h, w) bool, the cells that are selected."""
        self.where = where
        self.picture, self.row, self.column = where.nonzero(as_tuple=True)  # (count,) int64 each

    @classmethod
    def everywhere(cls, batch: int, grid: tuple[int, int], device: torch.device) -> Selection:
        """All cells of `batch` pictures."""
        return cls(torch.ones(batch, *grid, dtype=torch.bool, device=device))

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
        batch, _, columns = self.where.shape
        if batch == 1:
            return Places(self.picture[None], self.row[None], self.column[None], None)
        flat = self.where.flatten(1)
        most = int(flat.sum(1).max())
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

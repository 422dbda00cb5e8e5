"""Patches: the pixels of some cells, (n, T, 3, 16, 16), one after another whatever picture they belong to."""

from __future__ import annotations

from typing import NamedTuple

import torch

from elastictok_cli.models.cell.motion.compensation import copy_whole, warp_cells
from elastictok_cli.models.cell.selection import Selection


class ScreenCells(NamedTuple):
    """The cells of a block that no network touches, and their decoded pixels."""

    cells: Selection
    pixels: torch.Tensor  # (n, T, 3, 16, 16) in [-1, 1]


def compensate(
    reference: torch.Tensor,
    vectors: torch.Tensor,
    cells: Selection,
    cell: int,
    *,
    count: int,
    frames: int,
    interpolation: str,
    shake: torch.Tensor | None = None,
) -> torch.Tensor:
    """The patches (n, frames, 3, cell, cell) that `motion.compensation.compensate` gives for the selected cells.

    Where a cell moves by whole pixels, and there is no camera shake, it is an exact copy of pixels of the reference.
    reference: (B, 3, H, W); vectors: (B, 2, h, w) pixels per frame; shake: (B, count, 2).
    """
    own = vectors[cells.picture, :, cells.row, cells.column]  # (n, 2)
    times = torch.arange(1, count + 1, device=own.device)
    whole = (own == own.round()).all(1)
    if shake is not None:
        whole = torch.zeros_like(whole)
    moved = copy_whole(reference, own.round().long(), cells, cell, times)
    if not bool(whole.all()):
        chosen = torch.zeros_like(cells.where)
        chosen[cells.picture, cells.row, cells.column] = ~whole
        part = Selection(chosen)
        each = part.take_each(vectors).unsqueeze(2)
        pixels = warp_cells(reference, each, part, cell, times, interpolation, shake)
        pixels = pixels[:, :, 0]  # (B, M, T, 3, cell, cell)
        padding = part.each.padding
        # pictures with fewer cells are filled up at their end, so what is left is in the order of the selection
        moved[~whole] = pixels.flatten(0, 1) if padding is None else pixels[~padding]
    return torch.cat([moved, moved[:, -1:].expand(-1, frames - count, -1, -1, -1)], 1)

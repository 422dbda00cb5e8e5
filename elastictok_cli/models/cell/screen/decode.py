"""Decoding the screen cells of one block: a copy of the reference, and what screen modes change in it."""

from __future__ import annotations

import torch

from elastictok_cli.models.cell.config import DefaultConfig
from elastictok_cli.models.cell.context import Context
from elastictok_cli.models.cell.screen import dct, palette, patches
from elastictok_cli.models.cell.screen.patches import ScreenCells
from elastictok_cli.models.cell.selection import Selection
from elastictok_cli.models.cell.token_layout import DCT_MODE, FIRST_PALETTE_MODE, Contents, ScreenContents


def reconstruct(
    config: DefaultConfig,
    key_mean: torch.Tensor,
    contents: Contents,
    context: Context | None,
    vectors: torch.Tensor,
    count: int,
) -> ScreenCells | None:
    """The screen cells of a block and their pixels, None where no cell is one.

    A cell is a screen cell if it has a screen mode or a whole vector. It stays one in the blocks after, until it keeps
    an FSQ code. key_mean: (3,) the prediction in keyframe blocks; vectors: (B, 2, h, w) motion vectors in force.
    """
    screen = contents.screen
    before = None if context is None else context.screen
    if screen is None and before is None:
        return None
    where = torch.zeros_like(contents.sent)
    if before is not None:
        where = where | (before & (contents.codes_kept == 0))
    if screen is not None:
        where = where | screen.whole | screen.cells.where
    cells = Selection(where)
    if not cells.count:
        return None
    if context is None:
        pixels = key_mean.view(1, 1, 3, 1, 1).expand(cells.count, config.frames, 3, config.cell, config.cell)
    else:
        pixels = patches.compensate(
            context.frame,
            vectors,
            cells,
            config.cell,
            count=count,
            frames=config.frames,
            interpolation=config.interpolation,
            shake=contents.shake,
        )
    if screen is not None and screen.cells.count:
        pixels = _change(pixels.clone(), screen, cells, count)
    return ScreenCells(cells, pixels.clamp(-1, 1))


def _change(pixels: torch.Tensor, screen: ScreenContents, cells: Selection, count: int) -> torch.Tensor:
    """Pixels (n, 4, 3, 16, 16) of screen cells with what modes say, in place."""
    number = torch.zeros_like(cells.where, dtype=torch.int64)
    number[cells.picture, cells.row, cells.column] = torch.arange(cells.count, device=pixels.device)
    own = number[screen.cells.picture, screen.cells.row, screen.cells.column]  # of each cell with a mode
    is_dct = screen.mode == DCT_MODE
    some = is_dct.nonzero().squeeze(1)
    if len(some):
        pixels[own[some]] += dct.decode(screen.codes[some], screen.kept[some])
    some = (~is_dct).nonzero().squeeze(1)
    if len(some):
        table = torch.tensor(palette.SIZES, device=pixels.device)
        sizes = table[screen.mode[some] - FIRST_PALETTE_MODE]
        known = pixels[own[some], :count]
        painted = palette.decode(screen.codes[some], screen.kept[some], sizes, known)
        repeated = painted[:, -1:].expand(-1, pixels.shape[1] - count, -1, -1, -1)
        pixels[own[some]] = torch.cat([painted, repeated], 1)
    return pixels

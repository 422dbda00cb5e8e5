"""Motion compensation: the reference moved along the motion vectors of its cells."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from elastictok_cli.models.cell.selection import Selection

_MOSTLY_CHANGED = (
    0.7  # share of cells with a new motion vector from which on the whole picture is moved at once
)


def compensate(
    reference: torch.Tensor,
    vectors: torch.Tensor,
    count: int,
    *,
    frames: int,
    interpolation: str,
    shake: torch.Tensor | None = None,
    known: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> torch.Tensor:
    """`reference` (B, 3, H, W) moved along motion vectors (B, 2, h, w), as a block (B, frames, 3, H, W).

    Of a short block only `count` frames are real; motion stops there, as its padding repeats the last one. shake:
    (B, count, 2) pixels by which the whole picture is displaced besides. interpolation: bilinear or bicubic. known: a
    block that this function returned for other vectors and the same shake, and those vectors; cells with equal
    vectors are copied from it.
    """
    if known is None:
        still = reference[:, None].expand(-1, frames, -1, -1, -1)
        # a vector of zeros changes nothing; under a shake no cell stays where it was
        known = still, torch.zeros_like(vectors) if shake is None else torch.full_like(vectors, torch.nan)
    moved, before = known
    times = torch.arange(1, count + 1, device=vectors.device)
    changed = Selection((vectors != before).any(1))
    if changed.most > _MOSTLY_CHANGED * vectors[0, 0].numel():
        out = warp(reference, vectors, times, interpolation, shake)
    else:
        out = moved[:, :count].clone(memory_format=torch.contiguous_format)
        if changed.count:
            own_vectors = changed.take_each(vectors).unsqueeze(2)
            cell = reference.shape[-1] // vectors.shape[-1]
            pixels = warp_cells(reference, own_vectors, changed, cell, times, interpolation, shake)
            changed.write_pixels(out, pixels[:, :, 0])
    return torch.cat([out, out[:, -1:].expand(-1, frames - count, -1, -1, -1)], 1)


def warp(
    picture: torch.Tensor,
    vectors: torch.Tensor,
    times: torch.Tensor,
    interpolation: str = "bilinear",
    shake: torch.Tensor | None = None,
) -> torch.Tensor:
    """Move a picture along per-cell motion vectors; what comes from outside repeats its edges.

    picture: (B, C, H, W); vectors: (B, 2, h, w) in pixels of `picture` per frame, one per cell of (H / h) x (W / w)
    pixels; times: (T,) frames ahead; interpolation: bilinear or bicubic (sharper); shake: (B, T, 2) how far
    everything is displaced besides, in pixels of `picture`. Returns (B, T, C, H, W).
    """
    batch, channels, height, width = picture.shape
    rows, columns = vectors.shape[-2:]
    shape = (batch, len(times), rows, height // rows, columns, width // columns)
    shift = times.view(1, -1, 1, 1, 1).float() * vectors[:, None]  # (B, T, 2, h, w)
    if shake is not None:
        shift = shift + shake[..., None, None]
    # rows move alike within a row of a cell, columns within a column: far fewer numbers than there are pixels
    at_y = _sampling_scale(_pixels(height, picture).view(rows, -1, 1) - shift[:, :, 0, :, None], height)
    at_x = _sampling_scale(_pixels(width, picture).view(columns, -1) - shift[:, :, 1, :, :, None], width)
    grid = picture.new_empty(*shape, 2)
    grid[..., 0] = at_x[:, :, :, None]
    grid[..., 1] = at_y[..., None]
    moved = _sample(picture, grid.view(batch, -1, width, 2), interpolation)
    return moved.view(batch, channels, -1, height, width).transpose(1, 2)


def warp_cells(
    picture: torch.Tensor,
    vectors: torch.Tensor,
    cells: Selection,
    cell: int,
    times: torch.Tensor,
    interpolation: str = "bilinear",
    shake: torch.Tensor | None = None,
    pixel_step: int = 1,
) -> torch.Tensor:
    """What `warp` gives for some cells, M in each picture, each with N motion vectors to try.

    vectors: (B, M, N, 2); pixel_step: only each n-th row and column of pixels is worked out. Returns
    (B, M, N, T, C, cell, cell), with a smaller last two sizes where `pixel_step` is above 1.
    """
    batch, channels, height, width = picture.shape
    shift = times.view(-1, 1).float() * vectors[..., None, :]  # (B, M, N, T, 2)
    if shake is not None:
        shift = shift + shake[:, None, None]
    inside = _pixels(cell, picture)[::pixel_step]
    y = (cells.each.row * cell).view(batch, -1, 1, 1, 1) + inside
    x = (cells.each.column * cell).view(batch, -1, 1, 1, 1) + inside
    at_y = _sampling_scale(y - shift[..., :1], height)  # (B, M, N, T, cell)
    at_x = _sampling_scale(x - shift[..., 1:], width)
    grid = picture.new_empty(*at_y.shape, len(inside), 2)
    grid[..., 0] = at_x[..., None, :]
    grid[..., 1] = at_y[..., None]
    moved = _sample(picture, grid.view(batch, -1, len(inside), 2), interpolation)
    return moved.view(batch, channels, *at_y.shape[1:], len(inside)).movedim(1, 4)


def copy_whole(
    reference: torch.Tensor, vectors: torch.Tensor, cells: Selection, cell: int, times: torch.Tensor
) -> torch.Tensor:
    """Pixels of the reference (B, 3, H, W) copied along whole motion vectors (n, 2) int64: (n, T, 3, cell, cell).

    What comes from outside repeats the picture's edges.
    """
    height, width = reference.shape[-2:]
    inside = torch.arange(cell, device=vectors.device)
    shift = times.view(1, -1, 1) * vectors[:, None]  # (n, T, 2)
    y = (cells.row * cell).view(-1, 1, 1) + inside - shift[..., :1]
    x = (cells.column * cell).view(-1, 1, 1) + inside - shift[..., 1:]
    y, x = y.clamp(0, height - 1), x.clamp(0, width - 1)
    found = reference[cells.picture.view(-1, 1, 1, 1), :, y[..., None], x[..., None, :]]
    return found.movedim(-1, 2)


def _pixels(count: int, like: torch.Tensor) -> torch.Tensor:
    return torch.arange(count, device=like.device, dtype=torch.float32)


def _sampling_scale(position: torch.Tensor, size: int) -> torch.Tensor:
    """Pixel positions on the scale that `grid_sample` wants: -1 and 1 are the picture's edges."""
    return (position + 0.5) * (2 / size) - 1


def _sample(picture: torch.Tensor, grid: torch.Tensor, interpolation: str) -> torch.Tensor:
    out: torch.Tensor = F.grid_sample(
        picture, grid, mode=interpolation, padding_mode="border", align_corners=False
    )
    return out

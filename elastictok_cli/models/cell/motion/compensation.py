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
    most: int | None = None,
) -> torch.Tensor:
    """`reference` (B, 3, H, W) moved along motion vectors (B, 2, h, w), as a block (B, frames, 3, H, W).

    Of a short block only `count` frames are real; motion stops there, as its padding repeats the last one. shake:
    (B, count, 2) pixels by which the whole picture is displaced besides. interpolation: bilinear or bicubic. Without a
    shake, cells whose vector is zero are copies. most: of how many cells of a picture the vector is not zero, or more,
    if that is known; then there is no host read.
    """
    times = torch.arange(1, count + 1, device=vectors.device)
    if shake is not None:
        out = warp(reference, vectors, times, interpolation, shake)
    else:
        out = _move_some(reference, vectors, times, interpolation, most)
    if count == frames:
        return out
    return torch.cat([out, out[:, -1:].expand(-1, frames - count, -1, -1, -1)], 1)


def _move_some(
    reference: torch.Tensor, vectors: torch.Tensor, times: torch.Tensor, interpolation: str, most: int | None
) -> torch.Tensor:
    """The reference at `times` (T,), (B, T, 3, H, W), where cells with a vector of zero stay as they are."""
    cell = reference.shape[-1] // vectors.shape[-1]
    moves = (vectors != 0).any(1)
    still = reference[:, None].expand(-1, len(times), -1, -1, -1)
    changed = Selection(moves, most)
    if (changed.most if most is None else most) > _MOSTLY_CHANGED * moves[0].numel():
        pixels = moves.repeat_interleave(cell, -2).repeat_interleave(cell, -1)[:, None, None]
        return torch.where(pixels, warp(reference, vectors, times, interpolation), still)
    out = still.clone(memory_format=torch.contiguous_format)
    if changed.most:
        own_vectors = changed.take_each(vectors).unsqueeze(2)
        moved = warp_cells(reference, own_vectors, changed, cell, times, interpolation)
        changed.write_pixels(out, moved[:, :, 0])
    return out


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
) -> torch.Tensor:
    """What `warp` gives for some cells, M in each picture, each with N motion vectors to try.

    vectors: (B, M, N, 2). Returns (B, M, N, T, C, cell, cell).
    """
    batch, channels, height, width = picture.shape
    shift = shifts_of(vectors, times, shake)
    inside = _pixels(cell, picture)
    y = (cells.each.row * cell).view(batch, -1, 1, 1, 1) + inside
    x = (cells.each.column * cell).view(batch, -1, 1, 1, 1) + inside
    at_y = _sampling_scale(y - shift[..., :1], height)  # (B, M, N, T, cell)
    at_x = _sampling_scale(x - shift[..., 1:], width)
    grid = picture.new_empty(*at_y.shape, cell, 2)
    grid[..., 0] = at_x[..., None, :]
    grid[..., 1] = at_y[..., None]
    moved = _sample(picture, grid.view(batch, -1, cell, 2), interpolation)
    return moved.view(batch, channels, *at_y.shape[1:], cell).movedim(1, 4)


def shifts_of(vectors: torch.Tensor, times: torch.Tensor, shake: torch.Tensor | None) -> torch.Tensor:
    """How far motion vectors (B, M, N, 2) and a shake (B, T, 2) move cells at `times` (T,): (B, M, N, T, 2)."""
    shift = times.view(-1, 1).float() * vectors[..., None, :]
    return shift if shake is None else shift + shake[:, None, None]


class CellSampler:
    """Luma of some cells, M in each picture, moved by many shifts: to compare these, quicker than `warp_cells`."""

    def __init__(
        self,
        picture: torch.Tensor,
        cells: Selection,
        cell: int,
        *,
        margin: int = 0,
        pixel_step: int = 1,
        interpolation: str = "bilinear",
    ) -> None:
        """picture: (B, 1, H, W); margin: how many pixels around each cell come with it; pixel_step: only each n-th row
        and column of pixels is worked out."""
        height, width = picture.shape[-2:]
        self.picture, self.interpolation = picture, interpolation
        inside = torch.arange(-margin, cell + margin, pixel_step, device=picture.device, dtype=torch.float32)
        self.side = len(inside)
        # On the scale that `grid_sample` wants. x and y are added as one complex number, which takes half the time of
        # writing one beside the other.
        self.pixels = (1j * (2 / height)) * inside.view(-1, 1) + inside * (2 / width)
        self.scale = torch.tensor([2 / width, 2 / height], device=picture.device)
        origin = torch.stack([cells.each.column, cells.each.row], -1)
        self.origin = (origin * cell + 0.5) * self.scale - 1  # (B, M, 2)

    def __call__(self, shift: torch.Tensor) -> torch.Tensor:
        """shift: (B, M, ..., 2) pixels. Returns (B, M, ..., S, S)."""
        origin = self.origin.view(*shift.shape[:2], *(1,) * (shift.ndim - 3), 2)
        corner = torch.view_as_complex(origin - shift.contiguous().flip(-1) * self.scale)
        grid = torch.view_as_real(corner[..., None, None] + self.pixels)
        moved = _sample(self.picture, grid.view(len(grid), -1, self.side**2, 2), self.interpolation)
        return moved.view(*shift.shape[:-1], self.side, self.side)


def squared_errors(frames: torch.Tensor, moved: torch.Tensor, cell: int) -> torch.Tensor:
    """Squared error of each cell, (B, h, w). frames: (B, 4, 3, H, W), of which `moved` has the real ones."""
    total = torch.zeros_like(moved[:, 0])
    count = moved.shape[1]
    for number in range(count):  # frame by frame, as large temporaries cost more than sums
        difference = frames[:, number] - moved[:, number]
        times = 1 if number < count - 1 else frames.shape[1] - number  # the last one is repeated
        total.addcmul_(difference, difference, value=times)
    return F.avg_pool2d(total.sum(1, keepdim=True), cell).squeeze(1) * cell**2


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

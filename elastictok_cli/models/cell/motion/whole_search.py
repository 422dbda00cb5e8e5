"""Search for whole vectors: how a page scrolls, how a window moves."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from elastictok_cli.models.cell.motion.compensation import copy_whole
from elastictok_cli.models.cell.motion.luma import to_luma
from elastictok_cli.models.cell.motion.whole_vectors import REACH
from elastictok_cli.models.cell.selection import Selection

_OWN, _COMMON = 2, 3  # candidates along each axis: a cell's own best, those of most cells
_FINALISTS = 3  # candidates of a cell that are compared on all frames
_SLOWNESS = 1e-6  # MSE per squared pixel of motion: of equal candidates the slowest wins


def search(
    reference: torch.Tensor, frames: torch.Tensor, start: torch.Tensor, cells: Selection, cell: int
) -> torch.Tensor:
    """The best whole vectors (n, 2) int64 that are found for the selected cells, in pixels per frame.

    reference: (B, 3, H, W); frames: (B, T, 3, H, W) real ones; start: (B, 2, h, w) the best motion vectors so far.

    Pages scroll along one axis. So the candidates are shifts of up to 48 pixels along each axis, those that fit the
    profile of a cell best (the means of its rows or columns), those that most cells agree on, and what is near `start`.
    """
    before, after = to_luma(reference), to_luma(frames)
    first = after[:, 0]
    candidates = [_around(start, cells)]
    for axis in (0, 1):
        shifts = _profile_shifts(before, first, cells, cell, axis)  # (n, _OWN)
        common = _commonest(shifts[:, 0], cells)  # (n, _COMMON)
        along = torch.cat([shifts, common], 1)
        zero = torch.zeros_like(along)
        candidates.append(torch.stack((along, zero) if axis == 0 else (zero, along), 2))
    tries = torch.cat(candidates, 1)  # (n, m, 2)
    times = torch.arange(1, frames.shape[1] + 1, device=frames.device)
    best = (
        _errors(before, after[:, :1], tries, cells, cell, times[:1])
        .topk(_FINALISTS, 1, largest=False)
        .indices
    )
    tries = tries.gather(1, best[..., None].expand(-1, -1, 2))
    if len(times) == 1:
        return tries[:, 0]
    winner = _errors(before, after, tries, cells, cell, times).argmin(1)
    return tries[torch.arange(len(tries), device=tries.device), winner]


def _around(start: torch.Tensor, cells: Selection) -> torch.Tensor:
    """The nine whole vectors (n, 9, 2) around each cell's best so far."""
    middle = start[cells.picture, :, cells.row, cells.column].round().long()
    step = torch.arange(-1, 2, device=start.device)
    ring = torch.stack(torch.meshgrid(step, step, indexing="ij"), 2).view(1, 9, 2)
    return (middle[:, None] + ring).clamp(-REACH, REACH)


def _profile_shifts(
    before: torch.Tensor, after: torch.Tensor, cells: Selection, cell: int, axis: int
) -> torch.Tensor:
    """The shifts (n, 2) along an axis (0 vertical, 1 horizontal) that fit the profiles of the selected cells best.

    before, after: (B, 1, H, W) luma.
    """
    if axis == 1:
        before, after = before.transpose(2, 3), after.transpose(2, 3)
    old = F.avg_pool2d(before, (1, cell))[:, 0]  # (B, H, w) mean of each row of a cell
    new = F.avg_pool2d(after, (1, cell))[:, 0]
    padded = F.pad(old[:, None], (0, 0, REACH, REACH), mode="replicate")[:, 0]
    shifted = padded.unfold(1, new.shape[1], 1).transpose(
        2, 3
    )  # (B, 97, H, w); the first one is a shift of +48
    away = torch.arange(REACH, -REACH - 1, -1, device=old.device)
    cost = F.avg_pool2d((shifted - new[:, None]).square(), (cell, 1)) + _SLOWNESS * away.square().view(
        1, -1, 1, 1
    )
    row, column = (cells.row, cells.column) if axis == 0 else (cells.column, cells.row)
    own = cost[cells.picture, :, row, column]  # (n, 97)
    return away[own.topk(_OWN, 1, largest=False).indices]


def _commonest(shift: torch.Tensor, cells: Selection) -> torch.Tensor:
    """The shifts (n, 3) other than 0 that most of the selected cells of a picture have, by their own best (n,)."""
    side = 2 * REACH + 1
    votes = torch.zeros(len(cells.where), side, device=shift.device)
    votes.index_put_(
        (cells.picture, shift + REACH), torch.ones_like(shift, dtype=votes.dtype), accumulate=True
    )
    votes[:, REACH] = 0
    return (votes.topk(_COMMON, 1).indices - REACH)[cells.picture]


def _errors(
    before: torch.Tensor,
    after: torch.Tensor,
    tries: torch.Tensor,
    cells: Selection,
    cell: int,
    times: torch.Tensor,
) -> torch.Tensor:
    """MSE (n, m) of luma with each of the whole vectors (n, m, 2). after: (B, T, 1, H, W) at `times` (T,)."""
    source_pixels = cells.take_patches(after, cell)  # (n, T, 1, cell, cell)
    found = []
    for number in range(tries.shape[1]):
        moved = copy_whole(before, tries[:, number], cells, cell, times)
        slow = _SLOWNESS * tries[:, number].square().sum(1)
        found.append((moved - source_pixels).square().mean((1, 2, 3, 4)) + slow)
    return torch.stack(found, 1)

"""Some cells of a grid, as what is done to a cell often concerns few of them."""

from __future__ import annotations

from typing import NamedTuple

import torch


class Picked:
    """Some cells of a grid as a row of their own, as what is done to a cell often concerns few of them."""

    def __init__(self, where: torch.Tensor) -> None:
        self.where = where  # (B, h, w) bool
        self.count = int(where.sum())

    def take(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) to (1, C, 1, count)."""
        rows = x.permute(0, 2, 3, 1)
        rows = rows.flatten(0, 2) if self.count == self.where.numel() else rows[self.where]
        return rows.t()[None, :, None]

    def put(self, into: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """`into` (B, C, h, w) with the picked cells' values x (1, C, 1, count)."""
        out = into.permute(0, 2, 3, 1).clone()
        out[self.where] = x[0, :, 0].t()
        return out.permute(0, 3, 1, 2)


class Cells(NamedTuple):
    """Some cells of each picture of a batch, as a tensor: pictures with fewer of them than others are filled up."""

    row: torch.Tensor  # (B, M) int64
    col: torch.Tensor  # (B, M) int64
    fill: (
        torch.Tensor | None
    )  # (B, M) bool: what only fills a picture up, and is never written; None: nothing does

    @classmethod
    def of(cls, wanted: torch.Tensor) -> Cells:
        """Those of wanted (B, h, w) bool. M is the most there are in any picture."""
        flat = wanted.flatten(1)
        most = int(flat.sum(1).max())
        number = flat.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :most]
        fill = ~flat.gather(1, number) if len(flat) > 1 else None
        return cls(number // wanted.shape[2], number % wanted.shape[2], fill)

    def __len__(self) -> int:
        return self.row.shape[1]

    def take(self, x: torch.Tensor) -> torch.Tensor:
        """(B, N, h, w) to (B, M, N)."""
        each = torch.arange(len(x), device=x.device).view(-1, 1)
        return x[each, :, self.row, self.col]

    def put(self, into: torch.Tensor, x: torch.Tensor) -> None:
        """Write x (B, M, N) to these cells of (B, N, h, w)."""
        each = torch.arange(len(x), device=x.device).view(-1, 1)
        if self.fill is not None:
            x = torch.where(self.fill.unsqueeze(2), self.take(into), x)
        into[each, :, self.row, self.col] = x

    def patches(self, frames: torch.Tensor, cell: int) -> torch.Tensor:
        """The pixels of these cells of (B, T, C, H, W), (B, M, T, C, cell, cell)."""
        each = torch.arange(len(frames), device=frames.device).view(-1, 1)
        return _by_cell(frames, cell)[each, self.row, self.col]

    def put_patches(self, into: torch.Tensor, patches: torch.Tensor) -> None:
        """Write patches (B, M, T, C, cell, cell) to these cells of (B, T, C, H, W)."""
        each = torch.arange(len(into), device=into.device).view(-1, 1)
        if self.fill is not None:
            before = self.patches(into, patches.shape[-1])
            patches = torch.where(self.fill.view(*self.fill.shape, 1, 1, 1, 1), before, patches)
        _by_cell(into, patches.shape[-1])[each, self.row, self.col] = patches


def _by_cell(frames: torch.Tensor, cell: int) -> torch.Tensor:
    """A view of (B, T, C, H, W), (B, h, w, T, C, cell, cell)."""
    batch, count, channels, height, width = frames.shape
    split = frames.view(batch, count, channels, height // cell, cell, width // cell, cell)
    return split.permute(0, 3, 5, 1, 2, 4, 6)

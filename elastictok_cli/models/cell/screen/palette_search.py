"""Search for the palette of a cell: how many colours, and whether pixels of the reference are copied."""

from __future__ import annotations

from typing import NamedTuple

import torch

from elastictok_cli.models.cell.screen import palette

_FIRST_SIZES, _SIZE_BETWEEN = (8, 4, 2), {(8, 4): 6, (4, 2): 3}
_FIRST_COPY_SIZE, _OTHER_COPY_SIZES = 2, (1, 4)
_MAX_ERROR = 3.0  # times the goal: where eight colours leave more, no palette is tried
_MAX_COST = 1.5  # times the best cost so far: where the first palette costs more, no others like it are tried
_COPY_BIAS = 0.1  # times the goal of a pixel: error that a copied pixel may have more


class Palettes(NamedTuple):
    """The best palette of each of n cells."""

    error: torch.Tensor  # (n,) squared error; infinite where none was tried
    codes: torch.Tensor  # (n,) int64: how many it needs
    place: torch.Tensor  # (n,) int64: of its size in palette.SIZES
    copies: torch.Tensor  # (n,) bool: whether it can copy pixels of the reference


class Cells(NamedTuple):
    """The cells that palettes are made for."""

    patches: torch.Tensor  # (n, 4, 3, 16, 16)
    reference: torch.Tensor  # (n, 4, 3, 16, 16)
    real_frames: int
    goal: float  # squared error of a cell at the target

    def fit(self, which: torch.Tensor, size: int, copies: bool, *, refine: bool) -> palette.Fit:
        """Palettes of a size for some (m,) cells. Errors are scaled up to a whole block."""
        bias = _COPY_BIAS * self.goal / (self.patches[0].numel() / 3)
        real, known = self.patches[which, : self.real_frames], self.reference[which, : self.real_frames]
        copying = torch.ones_like(which, dtype=torch.bool) if copies else None
        fitted = palette.fit(real, known, size, copying, bias, refine=refine)
        scale = self.patches.shape[1] / self.real_frames
        return fitted._replace(error=scale * fitted.error, finer_error=scale * fitted.finer_error)


def search(
    cells: Cells, allowed: torch.Tensor, rival: torch.Tensor, price: float, *, inter: bool
) -> Palettes:
    """The palettes of the least cost error + price * codes.

    allowed: (n,) bool, cells that may have one; rival: (n,) cost of the best other mode; inter: whether pixels of the
    reference can be worth a copy.
    """
    found = _Search(cells, price)
    some = allowed.nonzero().squeeze(1)
    error, cost = found.attempt(some, _FIRST_SIZES[0], copies=False)
    some = some[(error <= _MAX_ERROR * cells.goal) & (cost <= _MAX_COST * rival[some])]
    for size in _FIRST_SIZES[1:]:
        found.attempt(some, size, copies=False)
    first_best = torch.tensor(palette.SIZES, device=some.device)[found.best.place[some]]
    for (larger, smaller), between in _SIZE_BETWEEN.items():
        found.attempt(some[(first_best == larger) | (first_best == smaller)], between, copies=False)
    found.attempt(some[first_best == _FIRST_SIZES[-1]], 1, copies=False)
    if inter:
        some = allowed.nonzero().squeeze(1)
        bar = _MAX_COST * torch.minimum(rival, found.cost)[some]
        _, cost = found.attempt(some, _FIRST_COPY_SIZE, copies=True)
        for size in _OTHER_COPY_SIZES:
            found.attempt(some[cost <= bar], size, copies=True)
    return found.best


class _Search:
    """The best palettes so far."""

    def __init__(self, cells: Cells, price: float) -> None:
        self._cells, self._price = cells, price
        count, device = len(cells.patches), cells.patches.device
        zero = torch.zeros(count, dtype=torch.int64, device=device)
        self.best = Palettes(torch.full((count,), torch.inf, device=device), zero, zero, zero > 0)

    @property
    def cost(self) -> torch.Tensor:
        """(n,) of the best palettes."""
        return self.best.error + self._price * self.best.codes

    def attempt(self, which: torch.Tensor, size: int, copies: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Try palettes of a size for some cells (m,). Returns their errors and costs (m,)."""
        if not len(which):
            return self.best.error[which], self.best.error[which]
        fitted = self._cells.fit(which, size, copies, refine=False)
        codes = palette.count_codes(fitted)
        cost = fitted.error + self._price * codes
        new = (fitted.error, codes, torch.full_like(codes, palette.SIZES.index(size)), fitted.copies)
        better = cost < self.cost[which]
        self.best = Palettes(
            *(
                every.index_put((which,), torch.where(better, mine, every[which]))
                for mine, every in zip(new, self.best, strict=True)
            )
        )
        return fitted.error, cost


def write(
    fitted: palette.Fit, price: torch.Tensor, before: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The codes (n, k) of palettes, the error after each, and their number (n,).

    price: (n,) lambda; before: (n,) error without any code. The refinement of the colours comes last, where it saves
    more than its codes cost.
    """
    written = palette.encode(fitted)
    size = fitted.colours.shape[1]
    refined = fitted.error - fitted.finer_error > price * (size + written.length - written.needed)
    length = torch.where(refined, written.length + size, written.needed)
    codes = torch.cat([written.codes, torch.zeros_like(written.finer)], 1)
    at = written.length[:, None] + torch.arange(size, device=codes.device)
    codes = torch.where(refined[:, None], codes.scatter(1, at, written.finer), codes)
    number = torch.arange(1, codes.shape[1] + 1, device=codes.device)
    share_refined = ((number - written.length[:, None]) / size).clamp(0, 1) * refined[:, None]
    left = fitted.error[:, None] + share_refined * (fitted.finer_error - fitted.error)[:, None]
    left = torch.where(number < written.needed[:, None], before[:, None], left)
    return codes.masked_fill(number > length[:, None], -1), left, length

"""The error that each cell of a block is expected to have at every length, corrected by what probes measure."""

from __future__ import annotations

import copy

import torch

from elastictok_cli.codec import allocation
from elastictok_cli.models.interface import Encoding

ERROR_FLOOR = (
    1e-3  # squared error added to both sides of a ratio, so that cells with almost no error do not decide it
)
MIN_RATIO, MAX_RATIO = 0.1, 100.0  # of measured / predicted error of a cell; what is beyond counts as these
TOLERANCE_OF_REACH = 1.02  # times the allowed error: sums are rounded, and probes correct more than that

# Where cells are filled in, curves over lambda are worked out at so many lambdas on each side, so far apart.
_NEAR_PRICES, _PRICES_APART = 5, 2


class ErrorModel:
    """Error curves of one block (B is 1) and the keep maps that follow from them.

    A copy (`copy.copy`) goes its own way: the methods replace tensors and change none.
    """

    def __init__(
        self, encoding: Encoding, share: torch.Tensor, weight: torch.Tensor | None = None, bias: float = 1.0
    ) -> None:
        """share: (1, h, w) of each cell's area inside the picture, as errors of padding do not count.

        weight: (1, h, w), how much the error of each cell matters. bias: measured / predicted error to expect.
        """
        self._curve = encoding.curve * share
        self._length = encoding.length
        # of the curves before `_ratio`; where cells without a token are filled in, from the first token on
        hull = allocation.hull if encoding.filled is None else allocation.hull_after_first
        self._hulls = hull(self._curve, encoding.length)
        self._encoding = encoding
        self._share = share
        self._weight = weight
        # which cells are filled in from the others, where cells without a token are
        self._filled_in: allocation.FilledIn | None = None
        self._ratio = torch.full_like(
            self._curve[:, 0], bias
        )  # measured / predicted error of cells with tokens
        self._extra = torch.zeros_like(self._ratio)  # measured - predicted error of filled-in cells
        self._used = self._curve  # the curves that the last keep map was allocated from
        self._last_hulls = self._hulls  # and their hulls

    def expect(self, bias: float) -> None:
        """Expect this measured / predicted error of all cells."""
        self._ratio = torch.full_like(self._ratio, bias)

    def allocate(self, allowed: torch.Tensor) -> tuple[torch.Tensor, float]:
        """The cheapest keep map (1, h, w) that should leave a squared error of at most `allowed` (1,), and its lambda:
        the squared error that the last token saves."""
        keep, price = self._allocate(allocation.within(allowed, self._weight))
        return keep, float(price)

    def begin_again(self) -> None:
        """Forget which cells were filled in."""
        self._filled_in = None

    def allocate_at(self, price: float) -> torch.Tensor:
        """The keep map (1, h, w) in which every token saves at least `price` of squared error."""
        self.begin_again()  # what is best at another lambda is no good start
        lowest = torch.full((1,), price, device=self._curve.device)
        return self._allocate(
            lambda without, hulls: allocation.at_price(without, hulls, lowest, self._weight)
        ).keep

    def error_of(self, keep: torch.Tensor) -> float:
        """The squared error expected of the keep map that was allocated last."""
        return float(allocation.error_of(self._used, keep).sum())

    def at_prices(self, prices: torch.Tensor, near: float) -> tuple[torch.Tensor, torch.Tensor]:
        """The squared error and the tokens, (P,) float64 each, of the keep maps at these lambdas (P,), ascending.

        Where cells are filled in, most is worked out `near` a lambda: beyond, the same cells are filled in.
        """
        error, tokens = self._at_prices(prices)
        if self._encoding.filled is None:
            return error, tokens
        place = int(torch.searchsorted(prices, near))
        first = max(0, place - _NEAR_PRICES * _PRICES_APART)
        rows = range(first, min(len(prices), place + _NEAR_PRICES * _PRICES_APART + 1), _PRICES_APART)
        for row, until in zip(rows, (*rows[1:], len(prices)), strict=True):
            model = copy.copy(self)
            model.allocate_at(float(prices[row]))
            there = slice(0 if row == first else row, until)
            error[there], tokens[there] = (x[there] for x in model._at_prices(prices))
        return error, tokens

    def _at_prices(self, prices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The same, with the cells filled in that are so in the keep map that was allocated last."""
        saved = self._last_hulls.saved
        weighted = saved if self._weight is None else saved * self._weight.unsqueeze(1)
        rank = torch.bucketize(
            weighted.flatten(), prices.to(saved.dtype), right=True
        )  # how many lambdas it is worth
        count = len(prices) + 1
        number = torch.bincount(rank.cpu(), minlength=count).double()
        amount = torch.bincount(rank.cpu(), saved.flatten().double().cpu(), minlength=count)
        tokens = number.flip(0).cumsum(0).flip(0)[1:]
        # From the least error on up: a cell that must keep a token errs by so much without it that others are lost in
        # the sum.
        least = self._last_hulls.least.sum(dtype=torch.float64).cpu()
        return least + amount.cumsum(0)[:-1], tokens

    def _allocate(self, allocated: allocation.Allocate) -> allocation.Allocated:
        curve, hulls = self._curve * self._ratio.unsqueeze(1), self._hulls.scaled(self._ratio)
        without = curve[:, 0]
        if self._encoding.filled is not None:
            without, hulls = self._fill_in(curve, hulls, allocated)
            curve[:, 0] = without
        self._used, self._last_hulls = curve, hulls
        return allocated(without, hulls)

    def _fill_in(
        self, curve: torch.Tensor, later: allocation.Hull, allocated: allocation.Allocate
    ) -> tuple[torch.Tensor, allocation.Hull]:
        """The errors (1, h, w) of cells without a token, filled in from the others, and the hulls with those.

        Which cells are filled in is decided in several rounds before anything is decoded, then in one for each probe.
        """
        self._filled_in = allocation.filled_in(
            curve,
            self._length,
            allocated,
            self._filled,
            later=later,
            weight=self._weight,
            start=self._filled_in,
            rounds=allocation.ROUNDS if self._filled_in is None else 1,
        )
        return self._filled_in.without, self._filled_in.hulls

    def one_length(self, allowed: torch.Tensor) -> tuple[torch.Tensor, bool]:
        """The keep map (1, h, w) of the smallest length for all cells that should leave at most `allowed` (1,).

        Also whether there is such a length: where there is none, all tokens are kept.
        """
        lengths = torch.arange(self._curve.shape[1], device=self._curve.device).view(1, -1, 1, 1)
        kept = torch.minimum(lengths, self._length.unsqueeze(1))  # (1, G + 1, h, w)
        fits = self._curve.gather(1, kept).sum((0, 2, 3)) <= TOLERANCE_OF_REACH * allowed
        if not bool(fits.any()):
            return self._length, False
        return kept[:, int(fits.int().argmax())], True

    def reaches(self, keep: torch.Tensor, allowed: torch.Tensor) -> bool:
        """Whether the keep map that was allocated last should leave at most the allowed error."""
        return self.error_of(keep) <= TOLERANCE_OF_REACH * float(allowed)

    def learn(self, keep: torch.Tensor, measured: torch.Tensor) -> float:
        """Correct the model by the errors (1, h, w) that the last keep map was measured to leave.

        Returns measured / predicted error; where cells without tokens are filled in, that of the other cells.
        """
        expected = self._used.gather(1, keep.unsqueeze(1)).squeeze(1)
        predicted = expected / self._ratio
        ratio = ((measured + ERROR_FLOOR) / (predicted + ERROR_FLOOR)).clamp(MIN_RATIO, MAX_RATIO)
        if self._encoding.filled is None:
            self._ratio = ratio
            return float(_ratio_of_sums(measured, predicted))
        kept = keep > 0
        filled = (~kept).float()
        # what the networks add to or remove from a filled-in cell does not grow with the error predicted for it
        extra = measured - expected + self._extra
        usual = (extra * filled).sum() / filled.sum().clamp_min(1)
        self._change_extra(torch.where(kept, usual, extra))
        mean_ratio = _ratio_of_sums(measured * kept, predicted * kept)
        self._ratio = torch.where(kept, ratio, torch.where(kept.any(), mean_ratio, self._ratio))
        return float(mean_ratio)

    def _change_extra(self, extra: torch.Tensor) -> None:
        """Expect filled-in cells to err (1, h, w) more than predicted."""
        assert self._filled_in is not None
        without = (self._filled_in.without + (extra - self._extra)).clamp_min(0)
        self._filled_in = self._filled_in._replace(without=without)
        self._extra = extra

    def _filled(self, coded: torch.Tensor) -> torch.Tensor:
        """The error (1, h, w) expected of each cell without a token, if the cells in `coded` (1, h, w) keep one."""
        assert self._encoding.filled is not None
        return (self._encoding.filled(coded) * self._share + self._extra).clamp_min(0)


def _ratio_of_sums(measured: torch.Tensor, predicted: torch.Tensor) -> torch.Tensor:
    return (measured.sum() + ERROR_FLOOR) / (predicted.sum() + ERROR_FLOOR)

"""What a block's cells will err by at every length, as far as is known before it is decoded, and corrected by
what decodes of it have shown."""

from __future__ import annotations

import torch

from elastictok_cli.codec import allocation
from elastictok_cli.models.interface import Encoding

_FLOOR = 1e-3  # squared error of a cell below which ratios mean nothing
_CREDIBLE = (0.1, 100.0)  # range of ratios of measured errors over promised ones
_SURE = 1.02  # a hair over the target is the rounding of sums, and probes correct more than that


class Forecast:
    """Error curves of one block (B is 1), and the keep maps that follow from them."""

    def __init__(
        self, encoding: Encoding, share: torch.Tensor, weight: torch.Tensor | None = None, bias: float = 1.0
    ) -> None:
        """share: (1, h, w) of each cell inside the picture, as padding costs nothing; weight: (1, h, w), how much
        the error of each matters; bias: measured error over what curves promise, as far as known."""
        self._curve = encoding.curve * share
        self._length = encoding.length
        self._encoding = encoding
        self._share = share
        self._weight = weight
        self._told: torch.Tensor | None = None  # cells that keep a token where others are filled in
        self._ratio = torch.full_like(self._curve[:, 0], bias)  # measured over promised, with tokens
        self._extra = torch.zeros_like(self._ratio)  # error that filled in cells show beyond what is promised
        self._used = self._curve

    def expect(self, bias: float) -> None:
        """Begin with this ratio of measured errors over promised ones."""
        self._ratio = torch.full_like(self._ratio, bias)

    def allocate(self, allowed: torch.Tensor) -> tuple[torch.Tensor, float]:
        """The keep map (1, h, w) with fewest tokens that should leave a squared error of at most `allowed` (1,), and
        its price: the squared error that the last token saves."""
        curve = self._curve * self._ratio.unsqueeze(1)
        if self._encoding.filled is not None:
            curve, self._told = allocation.filled_in(
                curve,
                self._length,
                allowed,
                self._filled,
                told=self._told,
                weight=self._weight,
                rounds=2 if self._told is None else 1,
            )
        self._used = curve
        price = allocation.price_of(curve, self._length, allowed, self._weight)
        return allocation.at_price(curve, self._length, price, self._weight), float(price)

    def reaches(self, keep: torch.Tensor, allowed: torch.Tensor) -> bool:
        """Whether the keep map that was allocated last should do."""
        return float(allocation.taken(self._used, keep).sum()) <= _SURE * float(allowed)

    def learn(self, keep: torch.Tensor, measured: torch.Tensor) -> float:
        """Correct what is expected by the errors (1, h, w) that the last keep map was measured to leave. Returns
        measured over promised error, of the cells with tokens where the others are filled in."""
        expected = self._used.gather(1, keep.unsqueeze(1)).squeeze(1)
        promised = expected / self._ratio
        ratio = ((measured + _FLOOR) / (promised + _FLOOR)).clamp(*_CREDIBLE)
        if self._encoding.filled is None:
            self._ratio = ratio
            return _over(measured, promised)
        kept = keep > 0
        bare = ~kept
        if bool(bare.any()):
            # what networks make of a smooth picture, for better or worse, is no share of the little it errs by
            extra = measured - expected + self._extra
            self._extra = torch.where(kept, extra[bare].mean(), extra)
        if not bool(kept.any()):
            return 1.0
        usual = _over(measured[kept], promised[kept])
        self._ratio = torch.where(kept, ratio, usual)
        return usual

    def _filled(self, told: torch.Tensor) -> torch.Tensor:
        assert self._encoding.filled is not None
        return (self._encoding.filled(told) * self._share + self._extra).clamp_min(0)


def _over(measured: torch.Tensor, promised: torch.Tensor) -> float:
    return float((measured.sum() + _FLOOR) / (promised.sum() + _FLOOR))

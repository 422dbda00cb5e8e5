"""What error and how many tokens a scene has at every lambda, by the error curves of its blocks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from elastictok_cli.models.interface import TokenizerSpec

Unit = Literal["error", "tokens", "bytes"]  # bytes go with the tokens
Floats = npt.NDArray[np.float64]

# Lambdas that curves are known at, as the MSE (base 2 logarithm) that one token would have to take from its cell.
LOWEST_OCTAVE, HIGHEST_OCTAVE = -22, 3
PRICES_PER_OCTAVE = 3


def prices(spec: TokenizerSpec) -> Floats:
    """The lambdas of all curves of a model, ascending: squared error of a whole block per token."""
    octaves = np.arange(LOWEST_OCTAVE * PRICES_PER_OCTAVE, HIGHEST_OCTAVE * PRICES_PER_OCTAVE + 1)
    return values_of_cell(spec) * np.exp2(octaves / PRICES_PER_OCTAVE)


def values_of_cell(spec: TokenizerSpec) -> int:
    """How many values of pixels one cell has."""
    return spec.frames * 3 * spec.cell[0] * spec.cell[1]


@dataclass(frozen=True)
class RateCurve:
    """Sums over blocks at each of P lambdas.

    prices: (P,) ascending. error: (P,) MSE summed over frames, which rises with lambda. tokens: (P,), which fall.
    """

    prices: Floats
    error: Floats
    tokens: Floats

    @classmethod
    def zero(cls, of: Floats) -> RateCurve:
        """The curve of no block at these lambdas."""
        return cls(of, np.zeros_like(of), np.zeros_like(of))

    def __add__(self, other: RateCurve) -> RateCurve:
        return RateCurve(self.prices, self.error + other.error, self.tokens + other.tokens)

    def at(self, unit: Unit, price: float) -> float:
        """The error or the tokens at a lambda."""
        return float(np.interp(math.log(price), np.log(self.prices), self.values(unit)))

    def price_for(self, unit: Unit, most: float) -> float:
        """The lambda at which there is `most` of the unit; the lowest or highest one where there never is."""
        return price_for(self.values(unit), self.prices, most)

    def values(self, unit: Unit) -> Floats:
        """The errors, or the tokens, (P,)."""
        return self.error if unit == "error" else self.tokens


def price_for(values: Floats, prices: Floats, most: float) -> float:
    """The lambda at which values (P,), which rise or fall with the prices, are `most`; else the nearest one."""
    log_prices = np.log(prices)
    # where cells are filled in, a higher lambda can leave a lower error: what counts is the worst up to there
    values = np.maximum.accumulate(values) if values[0] <= values[-1] else np.minimum.accumulate(values)
    if values[0] > values[-1]:  # np.interp wants values that rise
        values, log_prices = values[::-1], log_prices[::-1]
    return float(np.exp(np.interp(most, values, log_prices)))

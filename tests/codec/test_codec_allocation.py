"""Curves over lambda: at each lambda they say what the allocation at that lambda has."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elastictok_cli.codec import allocation
from elastictok_cli.codec.error_model import ErrorModel
from elastictok_cli.models.interface import Encoding

PRICES = torch.from_numpy(np.exp2(np.arange(-24, 25) / 3))
MUST_KEEP_ONE = 1e9  # the error without a token of a cell that has to keep one
SLOTS = st.sampled_from([1, 2, 5, 17, 60])


def encoding_of(seed: int, slots: int, *, filled: bool = False, must: bool = False) -> Encoding:
    """A block of 3 x 4 cells whose curves fall, stay and now and then rise."""
    g = torch.Generator().manual_seed(seed)
    drops = torch.rand(1, slots, 3, 4, generator=g) * torch.randint(-1, 4, (1, slots, 3, 4), generator=g)
    first = drops.clamp_min(0).sum(1, keepdim=True) + 0.1
    curve = torch.cat([first, first - drops.cumsum(1)], 1).clamp_min(0.01)
    length = torch.randint(0, slots + 1, (1, 3, 4), generator=g)
    if must:
        curve[:, 0, 1, 2] = MUST_KEEP_ONE
        length[:, 1, 2] = slots
    tokens = torch.zeros(1, slots, 3, 4, dtype=torch.int64)
    without = torch.rand(1, 3, 4, generator=g) * first[:, 0]

    def from_others(coded: torch.Tensor) -> torch.Tensor:
        """Fewer cells to fill in from make it worse."""
        return without.expand(len(coded), -1, -1) * (2 - coded.float().mean((1, 2), keepdim=True))

    return Encoding(tokens, length, curve, from_others if filled else None)


def weights(seed: int) -> torch.Tensor:
    return 1 + 3 * torch.rand(1, 3, 4, generator=torch.Generator().manual_seed(seed))


def check(model: ErrorModel, row: int, error: torch.Tensor, tokens: torch.Tensor) -> None:
    """That the curve says what there is at the lambda of this row."""
    found = copy.copy(model)
    keep = found.allocate_at(float(PRICES[row]))
    assert int(tokens[row]) == int(keep.sum())
    # cells that must keep a token do so: their error with it is small
    assert float(error[row]) == pytest.approx(found.error_of(keep), rel=1e-4, abs=1e-3)


@given(st.integers(0, 10_000), SLOTS, st.booleans(), st.booleans(), st.sampled_from([0.3, 1.0, 7.0]))
@settings(max_examples=80, deadline=None)
def test_a_curve_over_lambda_says_what_there_is_at_each(
    seed: int, slots: int, weighted: bool, must: bool, bias: float
) -> None:
    encoding = encoding_of(seed, slots, must=must)
    model = ErrorModel(encoding, torch.ones(1, 3, 4), weights(seed) if weighted else None)
    model.expect(bias)
    model.allocate_at(1.0)
    error, tokens = model.at_prices(PRICES, 1.0)
    assert error.dtype == tokens.dtype == torch.float64
    for row in range(len(PRICES)):
        check(model, row, error, tokens)
    assert bool((error[1:] >= error[:-1] - 1e-6).all() | weighted)
    assert bool((tokens[1:] <= tokens[:-1]).all())
    assert bool((error >= 0).all())


def test_a_cell_that_must_keep_a_token_does_not_hide_the_others() -> None:
    """Without a token it errs by so much that float32 has no room for the other cells in the sum."""
    curve = torch.full((1, 2, 3, 4), 0.7)
    curve[:, 1] = 0.2
    curve[:, :, 1, 2] = torch.tensor([MUST_KEEP_ONE, 0.2])
    length = torch.ones(1, 3, 4, dtype=torch.int64)
    model = ErrorModel(Encoding(torch.zeros(1, 1, 3, 4), length, curve), torch.ones(1, 3, 4))
    model.allocate_at(1.0)
    error, tokens = model.at_prices(torch.tensor([0.1, 1.0], dtype=torch.float64), 1.0)
    assert tokens.tolist() == [12, 1]
    np.testing.assert_allclose(error.numpy(), [12 * 0.2, 11 * 0.7 + 0.2], rtol=1e-6)


@given(st.integers(0, 10_000), SLOTS, st.booleans(), st.integers(0, len(PRICES) - 1))
@settings(max_examples=60, deadline=None)
def test_where_cells_are_filled_in_it_is_exact_near_a_lambda(
    seed: int, slots: int, weighted: bool, place: int
) -> None:
    encoding = encoding_of(seed, slots, filled=True)
    model = ErrorModel(encoding, torch.ones(1, 3, 4), weights(seed) if weighted else None)
    near = float(PRICES[place])
    model.allocate_at(near)
    error, tokens = model.at_prices(PRICES, near)
    check(model, place, error, tokens)
    assert bool((error >= 0).all())


@given(st.integers(0, 10_000), SLOTS, st.booleans(), st.floats(0.01, 10))
@settings(max_examples=60, deadline=None)
def test_every_token_that_is_kept_saves_the_price_and_no_other_does(
    seed: int, slots: int, weighted: bool, price: float
) -> None:
    encoding = encoding_of(seed, slots)
    weight = weights(seed) if weighted else None
    hulls = allocation.hull(encoding.curve, encoding.length)
    limit = torch.tensor([price])
    keep, found = allocation.at_price(encoding.curve[:, 0], hulls, limit, weight)
    assert float(found) == float(limit)
    saved = hulls.saved if weight is None else hulls.saved * weight.unsqueeze(1)
    number = torch.arange(1, slots + 1).view(1, -1, 1, 1)
    kept = number <= keep.unsqueeze(1)
    assert bool((saved[kept] >= limit).all())
    assert bool((saved[~kept] < limit).all())
    assert bool((keep <= encoding.length).all())
    # no other length of a cell has less error and price of tokens together
    cost = encoding.curve * (1 if weight is None else weight.unsqueeze(1))
    cost = cost + limit * torch.arange(slots + 1).view(1, -1, 1, 1)
    cost = cost.masked_fill(
        torch.arange(slots + 1).view(1, -1, 1, 1) > encoding.length.unsqueeze(1), torch.inf
    )
    assert torch.allclose(cost.gather(1, keep.unsqueeze(1)).squeeze(1), cost.amin(1), rtol=1e-4, atol=1e-4)


def test_a_token_that_saves_nothing_is_not_kept_at_any_price() -> None:
    curve = torch.ones(1, 4, 2, 2)
    hulls = allocation.hull(curve, torch.full((1, 2, 2), 3))
    assert int(allocation.at_price(curve[:, 0], hulls, torch.zeros(1)).keep.sum()) == 0

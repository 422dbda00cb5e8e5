import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elastictok_cli.codec import allocation


def curves(seed: int, slots: int, rows: int, cols: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    drops = torch.rand(1, slots, rows, cols, generator=g)
    return torch.cat(
        [drops.sum(1, keepdim=True) + 0.1, drops.sum(1, keepdim=True) + 0.1 - drops.cumsum(1)], 1
    )


@given(st.integers(0, 1000), st.floats(0.01, 2))
@settings(max_examples=40, deadline=None)
def test_price_gives_each_cell_its_cheapest_length(seed: int, price: float) -> None:
    curve = curves(seed, 5, 2, 3)
    length = torch.randint(0, 6, (1, 2, 3), generator=torch.Generator().manual_seed(seed))
    keep = allocation.at_price(curve, length, torch.tensor([price]))
    for y, x in itertools.product(range(2), range(3)):
        costs = [float(curve[0, k, y, x]) + price * k for k in range(int(length[0, y, x]) + 1)]
        assert abs(costs[int(keep[0, y, x])] - min(costs)) < 1e-5


@given(st.integers(0, 1000), st.floats(0.05, 1.1))
@settings(max_examples=40, deadline=None)
def test_target_is_met_wherever_all_tokens_meet_it(seed: int, share: float) -> None:
    curve = curves(seed, 4, 2, 2)
    length = torch.full((1, 2, 2), 4)
    error = curve[:, 0].sum().view(1) * share
    keep = allocation.to_target(curve, length, error)
    if float(curve[:, -1].sum()) <= float(error):
        assert float(allocation.error_of(curve, keep)) <= float(error) + 1e-5
    else:
        assert int(keep.sum()) == 16


@given(st.integers(0, 1000), st.floats(0.2, 0.9))
@settings(max_examples=25, deadline=None)
def test_few_more_tokens_than_the_best_map_found_by_force(seed: int, share: float) -> None:
    curve = curves(seed, 3, 2, 2)
    length = torch.full((1, 2, 2), 3)
    error = curve[:, 0].sum().view(1) * share
    keep = allocation.to_target(curve, length, error)
    best = min(
        (
            sum(map_)
            for map_ in itertools.product(range(4), repeat=4)
            if sum(float(curve[0, k, n // 2, n % 2]) for n, k in enumerate(map_)) <= float(error)
        ),
        default=12,
    )
    assert int(keep.sum()) <= best + 3  # at most one cell's convexity gap from the optimum


def test_nothing_is_kept_where_nothing_is_needed() -> None:
    keep = allocation.to_target(torch.zeros(1, 4, 2, 2), torch.full((1, 2, 2), 3), torch.tensor([1.0]))
    assert not keep.any()


@given(st.integers(0, 1000), st.floats(0.1, 0.9))
@settings(max_examples=30, deadline=None)
def test_errors_go_where_they_weigh_little_and_their_plain_sum_is_met(seed: int, share: float) -> None:
    curve = curves(seed, 6, 4, 4)[:, :, :2].repeat(1, 1, 2, 1)  # the lower half is like the upper one
    length = torch.full((1, 4, 4), 6)
    weight = torch.ones(1, 4, 4)
    weight[:, 2:] = 4.0
    error = curve[:, 0].sum().view(1) * share
    keep = allocation.to_target(curve, length, error, weight)
    left = curve.gather(1, keep.unsqueeze(1))[0, 0]
    assert float(left[2:].sum()) <= float(left[:2].sum()) + 1e-5
    if float(curve[:, -1].sum()) <= float(error):
        assert float(left.sum()) <= float(error) + 1e-5


def near(told: torch.Tensor, without: float) -> torch.Tensor:
    """A cell without a token is right if one beside it has one, and else errs by `without`."""
    wide = torch.nn.functional.max_pool2d(told.float(), 3, 1, 1)
    return torch.where(wide > 0, 0.0, without)


@pytest.mark.parametrize(("rows", "cols"), [(6, 6), (1, 9), (5, 8)])
def test_of_cells_that_can_be_filled_in_few_keep_a_token(rows: int, cols: int) -> None:
    curve = torch.full((1, 3, rows, cols), 1.0)
    curve[:, 1:] = 0.01
    length = torch.full((1, rows, cols), 2)
    error = torch.tensor([0.1 * rows * cols])
    found, told = allocation.filled_in(curve, length, error, lambda t: near(t, 1.0))
    keep = allocation.to_target(found, length, error)
    assert torch.equal(keep > 0, told)
    assert int(keep.sum()) <= 0.5 * rows * cols
    left = torch.where(told, curve.gather(1, keep.unsqueeze(1))[:, 0], near(told, 1.0))
    assert float(left.sum()) <= float(error)


def test_cells_that_cannot_be_filled_in_keep_their_tokens() -> None:
    curve = torch.full((1, 3, 4, 4), 1.0)
    curve[:, 1:] = 0.01
    length = torch.full((1, 4, 4), 2)
    _, told = allocation.filled_in(
        curve, length, torch.tensor([0.5]), lambda t: torch.ones_like(t, dtype=torch.float32)
    )
    assert told.all()


def test_cells_without_tokens_to_offer_tell_nothing() -> None:
    curve = torch.full((1, 3, 4, 4), 1.0)
    length = torch.zeros(1, 4, 4, dtype=torch.int64)
    _, told = allocation.filled_in(curve, length, torch.tensor([0.5]), lambda t: near(t, 1.0))
    assert not told.any()

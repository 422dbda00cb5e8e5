import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elastictok_cli.codec import allocation
from elastictok_cli.codec.error_model import ErrorModel
from elastictok_cli.models.interface import Encoding


def curves(seed: int, slots: int, rows: int, cols: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    drops = torch.rand(1, slots, rows, cols, generator=g)
    return torch.cat(
        [drops.sum(1, keepdim=True) + 0.1, drops.sum(1, keepdim=True) + 0.1 - drops.cumsum(1)], 1
    )


def at_price(curve: torch.Tensor, length: torch.Tensor, price: float, weight: torch.Tensor) -> torch.Tensor:
    """The cheapest length of each cell, by trying all; of equal ones the shortest."""
    number = torch.arange(curve.shape[1]).view(1, -1, 1, 1)
    cost = curve * weight.unsqueeze(1) + price * number
    return cost.masked_fill(number > length.unsqueeze(1), torch.inf).argmin(1)


def rough_curves(seed: int, slots: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Curves (1, slots + 1, 2, 3) in whole numbers that also rise, lengths and weights (1, 2, 3)."""
    g = torch.Generator().manual_seed(seed)
    drops = (
        torch.randint(-3, 9, (1, slots, 2, 3), generator=g) * torch.rand(1, slots, 2, 3, generator=g).round()
    )
    first = drops.clamp_min(0).sum(1, keepdim=True)
    length = torch.randint(0, slots + 1, (1, 2, 3), generator=g)
    weight = torch.randint(1, 4, (1, 2, 3), generator=g).float()
    return torch.cat([first, first - drops.cumsum(1)], 1), length, weight


LENGTHS = st.sampled_from([1, 2, 5, 17, 60, 130, 200])


@given(st.integers(0, 10_000), LENGTHS)
@settings(max_examples=60, deadline=None)
def test_tokens_that_save_more_than_a_price_are_the_cheapest_length_at_it(seed: int, slots: int) -> None:
    curve, length, weight = rough_curves(seed, slots)
    saved, least = allocation.hull(curve, length)
    assert bool((saved[:, 1:] <= saved[:, :-1]).all())
    assert torch.allclose(curve[:, 0] - saved.sum(1), least, atol=1e-3)
    for price in (0.013, 0.31, 0.77, 2.003, 7.9):
        by_weight = saved * weight.unsqueeze(1)
        assert torch.equal((by_weight > price).sum(1), at_price(curve, length, price, weight))


@given(st.integers(0, 10_000), LENGTHS, st.floats(0, 1.1))
@settings(max_examples=60, deadline=None)
def test_no_higher_price_would_meet_the_target(seed: int, slots: int, share: float) -> None:
    curve, length, weight = rough_curves(seed, slots)
    # errors are whole numbers: no sum of them is too near
    allowed = (curve[:, 0].sum().view(1) * share).floor() + 0.37
    keep, price = allocation.allocate(curve[:, 0], allocation.hull(curve, length), allowed, weight)
    just_below, just_above = float(price) * (1 - 1e-5), float(price) * (1 + 1e-5)
    needless = float(curve[:, 0].sum()) <= float(allowed)
    assert torch.equal(keep, at_price(curve, length, just_above if needless else just_below, weight))
    if float(price) > allocation.MIN_PRICE:
        assert float(allocation.error_of(curve, keep)) <= float(allowed) + 1e-3
    if not needless:
        fewer = at_price(curve, length, just_above, weight)
        assert float(allocation.error_of(curve, fewer)) > float(allowed) - 1e-3


@given(st.integers(0, 10_000), LENGTHS, st.floats(0, 300))
@settings(max_examples=60, deadline=None)
def test_hulls_of_later_tokens_serve_any_error_without_a_token(seed: int, slots: int, without: float) -> None:
    curve, length, _ = rough_curves(seed, slots)
    curve[:, 0] = round(without)
    number = torch.arange(1, slots + 1).view(1, -1, 1, 1)
    with_tokens = curve[:, 1:].masked_fill(number > length.unsqueeze(1), torch.inf)
    if slots > 1:
        later = allocation.hull_after_first(curve, length)
        found = allocation._with_first(curve[:, 0], with_tokens, later, number)
        wanted = allocation.hull(curve, length)
        assert torch.allclose(found.saved, wanted.saved, atol=1e-4)
        assert torch.equal(found.least, wanted.least)


def test_a_cell_that_must_keep_its_tokens_takes_none_of_the_others() -> None:
    curve, length, _ = rough_curves(3, 60)
    length = torch.full_like(length, 60)
    allowed = 0.4 * curve[:, 0].sum().view(1)
    alone = allocation.to_target(curve, length, allowed)
    forced = curve.clone()
    forced[:, :5, 0, 0] = 1e9  # as a motion vector that has to be sent
    keep = allocation.to_target(forced, length, allowed)
    assert int(keep[0, 0, 0]) >= 5
    assert float(allocation.error_of(forced, keep)) <= float(allowed) + 1e-3
    assert int((keep - alone).abs().sum()) <= 10


def test_a_cell_that_tokens_make_perfect_keeps_none_where_none_is_needed() -> None:
    curve = torch.tensor([4.0, 0.0]).view(1, 2, 1, 1)
    keep, price = allocation.allocate(
        curve[:, 0], allocation.hull(curve, torch.ones(1, 1, 1)), torch.tensor([4.0])
    )
    assert (int(keep), float(price)) == (0, 4.0)


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
    without, hulls, told = allocation.filled_in(
        curve, length, allocation.within(error), lambda t: near(t, 1.0)
    )
    keep = allocation.allocate(without, hulls, error).keep
    assert torch.equal(keep > 0, told)
    assert int(keep.sum()) <= 0.5 * rows * cols
    left = torch.where(told, curve.gather(1, keep.unsqueeze(1))[:, 0], near(told, 1.0))
    assert float(left.sum()) <= float(error)


def test_cells_that_cannot_be_filled_in_keep_their_tokens() -> None:
    curve = torch.full((1, 3, 4, 4), 1.0)
    curve[:, 1:] = 0.01
    length = torch.full((1, 4, 4), 2)
    told = allocation.filled_in(
        curve,
        length,
        allocation.within(torch.tensor([0.5])),
        lambda t: torch.ones_like(t, dtype=torch.float32),
    ).coded
    assert told.all()


def test_cells_without_tokens_to_offer_tell_nothing() -> None:
    curve = torch.full((1, 3, 4, 4), 1.0)
    length = torch.zeros(1, 4, 4, dtype=torch.int64)
    told = allocation.filled_in(
        curve, length, allocation.within(torch.tensor([0.5])), lambda t: near(t, 1.0)
    ).coded
    assert not told.any()


def test_which_cells_are_filled_in_is_decided_when_drafted_and_in_one_round_more_for_each_probe() -> None:
    curve = torch.full((1, 3, 6, 6), 1.0)
    curve[:, 1:] = 0.01
    asked: list[int] = []

    def filled(coded: torch.Tensor) -> torch.Tensor:
        asked.append(len(coded))
        return near(coded, 1.0)

    encoding = Encoding(torch.zeros(1, 2, 6, 6), torch.full((1, 6, 6), 2), curve, filled)
    model = ErrorModel(encoding, torch.ones(1, 6, 6))
    counts = []
    for _ in range(4):
        asked.clear()
        keep, _ = model.allocate(torch.tensor([4.0]))
        counts.append(len(asked))
        model.learn(keep, torch.where(keep > 0, 0.01, 0.05).expand(1, 6, 6))
    rounds, passes, end = allocation.ROUNDS, 4, 1
    # what the first of all passes asks is asked for all four places at once
    assert counts == [rounds * passes + end] + 3 * [passes + end]
    assert int((keep > 0).sum()) <= 18


def test_what_filled_in_cells_err_more_than_predicted_is_expected_of_the_others() -> None:
    curve = torch.full((1, 2, 4, 4), 1.0)
    curve[:, 1] = 0.01
    encoding = Encoding(
        torch.zeros(1, 1, 4, 4), torch.ones(1, 4, 4, dtype=torch.int64), curve, lambda t: near(t, 1.0)
    )
    model = ErrorModel(encoding, torch.ones(1, 4, 4))
    keep, _ = model.allocate(torch.tensor([2.0]))
    some = keep > 0
    assert 0 < int(some.sum()) < 16
    ratio = model.learn(keep, torch.where(some, 0.02, 0.3))
    assert ratio == pytest.approx(2.0, rel=0.1)
    again, _ = model.allocate(torch.tensor([2.0]))
    assert int((again > 0).sum()) > int(some.sum())


def test_a_keep_map_without_tokens_teaches_only_about_filled_in_cells() -> None:
    curve = torch.full((1, 2, 4, 4), 1.0)
    curve[:, 1] = 0.01
    encoding = Encoding(
        torch.zeros(1, 1, 4, 4), torch.ones(1, 4, 4, dtype=torch.int64), curve, lambda t: near(t, 1.0)
    )
    model = ErrorModel(encoding, torch.ones(1, 4, 4))
    model.allocate(torch.tensor([2.0]))
    assert model.learn(torch.zeros(1, 4, 4, dtype=torch.int64), torch.ones(1, 4, 4)) == 1.0

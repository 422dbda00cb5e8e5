"""Following a plan: a scene spends what it may, also where its survey was wrong, and lambda stays near the plan's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import BYTES_PER_TOKEN, FIXED_BYTES, PRICES, curve_of, survey_of

from elastictok_cli.codec import scene_plan
from elastictok_cli.codec.rate_curve import RateCurve
from elastictok_cli.codec.scene_plan import AIM, Controller, Limit, ScenePlan, progress

FRAMES, BLOCK = 200, 4
LIMITS: list[Limit] = ["error", "tokens", "bytes"]


def plan_for(limit: Limit, price: float = 1.0) -> ScenePlan:
    survey = survey_of(FRAMES)
    return ScenePlan(survey, price, limit, survey.at(limit, price))


def follow(plan: ScenePlan, factor: float, *, known: bool = False) -> tuple[float, list[float]]:
    """Code the whole scene where every block spends so many times what was expected: what is spent, and the lambdas.

    known: the curve of each block is known before it is coded, as it is in truth.
    """
    controller, used = Controller(plan), []
    spent = 0.0
    for _ in range(FRAMES // BLOCK):
        true = curve_of(BLOCK)
        true = RateCurve(PRICES, factor * true.error, factor * true.tokens)
        price = controller.price_with(true, BLOCK) if known else controller.price()
        each = {"error": 1.0, "tokens": 1.0, "bytes": BYTES_PER_TOKEN}[plan.limit]
        fixed = factor * FIXED_BYTES * BLOCK / FRAMES if plan.limit == "bytes" else 0.0
        spent += fixed + each * true.at(plan.limit, price)
        controller.note(BLOCK, price, spent)
        used.append(price)
    assert controller.frames == FRAMES
    assert controller.left == pytest.approx(plan.most - spent)
    return spent, used


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("factor", [0.87, 1.0, 1.15])
def test_a_scene_uses_up_its_limit_where_the_survey_is_off(factor: float, limit: Limit, known: bool) -> None:
    plan = plan_for(limit)
    spent, _ = follow(plan, factor, known=known)
    assert 0.96 * plan.most <= spent <= 1.01 * plan.most


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("factor", [0.5, 0.7, 1.4, 2.0])
def test_where_lambda_may_not_change_enough_it_makes_up_for_a_part(factor: float, limit: Limit) -> None:
    plan = plan_for(limit)
    spent, _ = follow(plan, factor, known=True)
    assert abs(spent / plan.most - 1) < 0.85 * abs(factor - 1)


@pytest.mark.parametrize("limit", LIMITS)
def test_where_the_survey_is_right_lambda_is_the_plans(limit: Limit) -> None:
    plan = plan_for(limit)
    spent, used = follow(plan, 1.0, known=True)
    np.testing.assert_allclose(used[: len(used) // 2], plan.price, rtol=0.03)
    assert spent == pytest.approx(AIM * plan.most, rel=0.005)


@given(st.sampled_from(LIMITS), st.floats(0.05, 20), st.booleans(), st.floats(0.05, 20))
@settings(max_examples=40, deadline=None)
def test_lambda_stays_near_the_plans_whatever_comes(
    limit: Limit, factor: float, known: bool, price: float
) -> None:
    _, used = follow(plan_for(limit, price), factor, known=known)
    half = len(used) // 2
    for bounds, lambdas in (
        (scene_plan.MAX_EARLY_CHANGE, used[:half]),
        (scene_plan.MAX_CHANGE_OF_PRICE, used),
    ):
        assert max(lambdas) <= price * bounds * (1 + 1e-9)
        assert min(lambdas) >= price / bounds * (1 - 1e-9)


def test_a_scene_without_a_limit_left_takes_the_highest_lambda_or_the_lowest_error() -> None:
    plan = plan_for("tokens")
    controller = Controller(plan)
    controller.note(FRAMES - BLOCK, plan.price, 2 * plan.most)
    assert controller.left < 0
    assert controller.price() > 2.5 * plan.price
    assert controller.price_with(curve_of(BLOCK), BLOCK) > 2.5 * plan.price


def test_surveys_add_up() -> None:
    one, other = survey_of(10), survey_of(30, scale=2)
    both = one + other
    assert both.frames == 40
    for limit in LIMITS:
        assert both.at(limit, 1.0) == pytest.approx(one.at(limit, 1.0) + other.at(limit, 1.0))
        assert both.at(limit, both.price_for(limit, both.at(limit, 2.0))) == pytest.approx(
            both.at(limit, 2.0)
        )


def test_what_frames_are_expected_to_spend_adds_up_to_the_scene() -> None:
    survey = survey_of(10)
    for limit in LIMITS:
        parts = [survey.expected(limit, first, 2, 1.5) for first in range(0, 10, 2)]
        assert sum(parts) == pytest.approx(survey.at(limit, 1.5))
    assert survey.share_after("error", 99) == 0


def test_a_corrected_survey_has_other_errors_tokens_and_bytes() -> None:
    survey = survey_of(10)
    corrected = survey.corrected(2.0, 3.0, 0.5)
    assert corrected.at("error", 1.0) == 2 * survey.at("error", 1.0)
    assert corrected.at("tokens", 1.0) == 3 * survey.at("tokens", 1.0)
    assert corrected.at("bytes", 1.0) == pytest.approx(FIXED_BYTES + 0.5 * corrected.at("tokens", 1.0))
    assert survey.corrected(1.0, 1.0, None).bytes_per_token == BYTES_PER_TOKEN


@given(st.lists(st.tuples(st.floats(0, 1e6), st.integers(1, 4)), max_size=20))
def test_progress_rises_from_0_to_1(blocks: list[tuple[float, int]]) -> None:
    found = progress([value for value, _ in blocks], [count for _, count in blocks])
    assert len(found) == sum(count for _, count in blocks) + 1
    assert found[0] == 0
    assert (np.diff(found) >= 0).all()
    if blocks:
        assert found[-1] == pytest.approx(1)

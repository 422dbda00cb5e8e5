"""Planning: which limit binds, what each scene gets of the whole, and that a pipe never plans more than is left."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from plans import BYTES_PER_TOKEN, FIXED_BYTES, PRICES, RATE, survey_of

from elastictok_cli.codec import events
from elastictok_cli.codec.attempts import MAX_ATTEMPTS, Attempts
from elastictok_cli.codec.budget import Budget
from elastictok_cli.codec.options import EncodeOptions
from elastictok_cli.codec.planner import (
    Allowed,
    Choice,
    RunningPlanner,
    allowed_for,
    choose,
    expected_error,
    plan_at,
)
from elastictok_cli.codec.scene_outcome import SceneOutcome
from elastictok_cli.codec.scene_plan import Limit, SceneSurvey
from formats import KindCounts

LIMITS: list[Limit] = ["error", "tokens", "bytes"]
SCENES = st.lists(
    st.tuples(st.integers(1, 60), st.floats(0.1, 10)).map(lambda scene: survey_of(*scene)),
    min_size=1,
    max_size=6,
)


def total_of(scenes: list[SceneSurvey]) -> SceneSurvey:
    return sum(scenes[1:], start=scenes[0])


def allowed(**limits: float) -> Allowed:
    return Allowed(**limits)


def test_what_a_video_may_spend() -> None:
    options = EncodeOptions(mse=0.01, promise="video", budget=Budget(kbps=8, max_tokens=70))
    assert allowed_for(options, 50, Fraction(2), 300) == Allowed(0.5, 70, 1700)
    assert allowed_for(EncodeOptions(mse=0.01), 50, Fraction(2), 300) == Allowed(0.5)
    options = EncodeOptions(mse=None, promise="video", budget=Budget(max_bytes=200))
    assert allowed_for(options, 50, Fraction(2), 300) == Allowed(None, None, -100)
    assert allowed(error=1.0, bytes=5.0).limits == ["error", "bytes"]
    assert allowed(error=1.0, bytes=5.0).scaled(0.5) == allowed(error=0.5, bytes=2.5)


@pytest.mark.parametrize("limit", LIMITS)
@given(scenes=SCENES, price=st.floats(0.01, 100))
@settings(max_examples=30, deadline=None)
def test_one_limit_is_used_up(limit: Limit, scenes: list[SceneSurvey], price: float) -> None:
    total = total_of(scenes)
    chosen = choose(total, allowed(**{limit: total.at(limit, price)}))
    assert chosen.limit == limit
    assert chosen.bound == ("target" if limit == "error" else "budget")
    assert total.at(limit, chosen.price) == pytest.approx(total.at(limit, price), rel=1e-6)


@given(scenes=SCENES, error=st.floats(0.1, 10), tokens=st.floats(0.1, 10), size=st.floats(0.1, 10))
@settings(max_examples=60, deadline=None)
def test_of_several_limits_the_one_with_the_highest_lambda_binds(
    scenes: list[SceneSurvey], error: float, tokens: float, size: float
) -> None:
    """Each is what the video would spend at the lambda that is drawn for it."""
    total = total_of(scenes)
    drawn = {"error": error, "tokens": tokens, "bytes": size}
    highest = max(drawn.values())
    assume(sum(price > 0.99 * highest for price in drawn.values()) == 1)
    chosen = choose(total, Allowed(*(total.at(limit, drawn[limit]) for limit in LIMITS)))
    assert drawn[chosen.limit] == highest
    assert chosen.price == pytest.approx(highest, rel=1e-5)
    for limit in ("tokens", "bytes"):
        assert total.at(limit, chosen.price) <= total.at(limit, drawn[limit]) * (1 + 1e-6)


def test_a_target_that_needs_few_tokens_binds_before_a_large_budget() -> None:
    survey = survey_of(10)
    error = survey.at("error", 1.0)
    assert choose(survey, allowed(error=error, bytes=10**9)).bound == "target"
    assert choose(survey, allowed(error=error, bytes=survey.at("bytes", 2.0))).bound == "budget"
    assert choose(survey, allowed(error=error, tokens=0)).bound == "budget"
    assert choose(survey, allowed(bytes=FIXED_BYTES - 1)).price == pytest.approx(PRICES[-1])


@given(scenes=SCENES, limit=st.sampled_from(LIMITS), price=st.floats(0.01, 100), other=st.floats(0.5, 2))
@settings(max_examples=60, deadline=None)
def test_the_parts_of_the_scenes_are_what_is_allowed(
    scenes: list[SceneSurvey], limit: Limit, price: float, other: float
) -> None:
    """Also where lambda is not the one that the surveys would choose."""
    most = other * total_of(scenes).at(limit, price)
    plans = plan_at(Choice(price, limit), scenes, allowed(**{limit: most}), worst=0.5)
    assert sum(plan.most for plan in plans) == pytest.approx(most)
    for plan, scene in zip(plans, scenes, strict=True):
        assert (plan.survey, plan.price, plan.limit) == (scene, price, limit)
        assert plan.most == pytest.approx(other * scene.at(limit, price))
        assert plan.worst == (0.5 if limit == "error" else None)
        assert plan.usual_error == pytest.approx(scene.at("error", price) / scene.frames)


def test_an_attempt_that_changes_nothing_is_the_last() -> None:
    """As of a black video, whose few tokens cannot use up a budget."""
    survey = survey_of(8)
    tried = Attempts([survey], allowed(tokens=100.0), None)
    assert not tried.take(Allowed(0.0, 45, 0), [survey], empty=False)
    assert tried.take(Allowed(0.0, 45, 0), [survey], empty=False)
    assert tried.used == 0.45


def spending(limit: Limit, amount: float) -> Allowed:
    """A file that has spent so much of one limit and nothing of the others."""
    return replace(Allowed(0.0, 0.0, 0.0), **{limit: amount})


@pytest.mark.parametrize("budget", ["tokens", "bytes"])
def test_a_budget_holds_where_the_target_seemed_to_bind(budget: Limit) -> None:
    survey = survey_of(8)
    room = 2 * survey.at(budget, 1.0)
    tried = Attempts([survey], allowed(error=survey.at("error", 1.0), **{budget: room}), None)
    assert tried.bound == "target"
    met = replace(spending(budget, 1.1 * room), error=survey.at("error", 1.0))
    assert not tried.take(met, [survey], empty=False)
    assert (tried.bound, tried.limit, tried.decided_by) == ("budget", budget, budget)
    assert tried.used == pytest.approx(1.1)
    assert tried.take(spending(budget, room), [survey], empty=False)


def test_from_a_pipe_a_target_gives_way_to_what_is_left_of_a_budget() -> None:
    """Over all scenes so far the target binds, but the ones before have used up the tokens."""
    survey = survey_of(8)
    tokens = survey.at("tokens", 1.0)
    options = EncodeOptions(mse=survey.at("error", 1.0) / 8, budget=Budget(tokens_per_second=1.2 * tokens))
    planner = RunningPlanner(options)
    first = planner.plan(survey, Fraction(1), 0)
    assert (first.limit, planner.bound) == ("error", "target")
    outcome = SceneOutcome(survey)
    outcome.see(block_done(8, first.price, survey.at("error", 1.0), int(tokens)))
    planner.coded(outcome, Allowed(survey.at("error", 1.0), 2.0 * tokens, 0))
    second = planner.plan(survey, Fraction(2), 0)
    assert (second.limit, planner.bound) == ("tokens", "budget")
    assert second.most == pytest.approx(0.4 * tokens)


@pytest.mark.parametrize("limit", LIMITS)
def test_an_attempt_is_good_that_uses_what_it_may(limit: Limit) -> None:
    survey = survey_of(8)
    most = survey.at(limit, 1.0)
    for share, good in ((0.99, True), (1.0, True), (1.001, False), (0.9, False)):
        tried = Attempts([survey], allowed(**{limit: most}), 0.5)
        assert tried.limit == limit
        assert tried.take(spending(limit, share * most), [survey], empty=False) == good
    assert Attempts([survey], allowed(**{limit: most}), 0.5).take(spending(limit, 0), [survey], empty=True)


@given(st.floats(0.3, 3), st.sampled_from(LIMITS))
@settings(max_examples=30, deadline=None)
def test_attempts_end_and_the_file_keeps_to_the_limit_if_any_did(factor: float, limit: Limit) -> None:
    """Each attempt spends so many times what its plan says, and the surveys learn nothing from it."""
    survey = survey_of(8)
    tried = Attempts([survey], allowed(**{limit: survey.at(limit, 1.0)}), None)
    used = []
    for _ in range(MAX_ATTEMPTS + 1):
        used.append(factor * survey.at(limit, tried.plans[0].price))
        if tried.take(spending(limit, used[-1]), [survey], empty=False):
            break
    else:
        raise AssertionError("it goes on")
    most = survey.at(limit, 1.0)
    assert used[-1] <= most or min(used) > most


def test_the_error_that_a_budget_leads_to() -> None:
    survey = survey_of(20)
    found = expected_error(survey, allowed(tokens=survey.at("tokens", 3.0)))
    assert found == pytest.approx(0.01 * 3**0.5, rel=0.01)


def block_done(frames: int, price: float, error: float, tokens: int) -> events.BlockDone:
    return events.BlockDone(
        index=0,
        first_frame=0,
        frames=frames,
        time=0.0,
        keyframe=True,
        scene_cut=True,
        tokens=tokens,
        kinds=KindCounts(),
        mse=error / frames,
        frame_mse=(error / frames,) * frames,
        missed=False,
        price=price,
    )


OPTIONS = {
    "error": EncodeOptions(mse=0.01, promise="video"),
    "tokens": EncodeOptions(mse=None, promise="video", budget=Budget(tokens_per_second=250.0)),
    "bytes": EncodeOptions(mse=None, promise="video", budget=Budget(kbps=4.0)),
    "both": EncodeOptions(mse=0.008, promise="video", budget=Budget(tokens_per_second=250.0)),
}
HEADER_BYTES = 100


@given(
    st.sampled_from(sorted(OPTIONS)),
    st.lists(st.tuples(st.integers(1, 60), st.floats(0.1, 10), st.floats(0.3, 1.0)), min_size=1, max_size=8),
)
@settings(max_examples=120, deadline=None)
def test_a_pipe_never_plans_more_than_is_left(asked: str, scenes: list[tuple[int, float, float]]) -> None:
    """Scenes: frames, how many tokens they need, and the share of their part that they then spend."""
    planner = RunningPlanner(OPTIONS[asked])
    frames = 0
    spent = dict.fromkeys(LIMITS, 0.0)
    for count, scale, share in scenes:
        frames += count
        survey = survey_of(count, scale)
        seconds = Fraction(frames) / RATE
        plan = planner.plan(survey, seconds, HEADER_BYTES)
        may = allowed_for(OPTIONS[asked], frames, seconds, HEADER_BYTES)
        assert planner.bound == ("target" if plan.limit == "error" else "budget")
        assert plan.most >= 0
        assert plan.most <= max(0.0, may.of(plan.limit) - spent[plan.limit]) + 1e-9
        assert (plan.worst is None) == (plan.limit != "error")
        assert PRICES[0] * (1 - 1e-9) <= plan.price <= PRICES[-1] * (1 + 1e-9)
        error = share * plan.most if plan.limit == "error" else 0.01 * count * plan.price**0.5
        tokens = 10 * count * scale * plan.price**-0.5
        if plan.limit == "tokens":
            tokens = share * plan.most
        elif plan.limit == "bytes":
            tokens = max(0.0, share * plan.most - FIXED_BYTES) / BYTES_PER_TOKEN
        size = FIXED_BYTES + BYTES_PER_TOKEN * int(tokens)
        outcome = SceneOutcome(survey)
        outcome.see(block_done(count, plan.price, error, int(tokens)))
        outcome.bytes = int(size)
        planner.coded(outcome, Allowed(error, int(tokens), size))
        for limit, amount in zip(LIMITS, (error, int(tokens), size), strict=True):
            spent[limit] += amount


def test_what_a_scene_leaves_over_the_next_one_may_use() -> None:
    planner = RunningPlanner(OPTIONS["tokens"])
    survey = survey_of(25)
    first = planner.plan(survey, Fraction(1), 0)
    assert first.most == 250
    outcome = SceneOutcome(survey)
    outcome.see(block_done(25, first.price, 1.0, 50))
    planner.coded(outcome, Allowed(1.0, 50, 100))
    assert planner.plan(survey, Fraction(2), 0).most == 450


def test_an_outcome_corrects_the_survey_to_what_it_was() -> None:
    survey = survey_of(8)
    outcome = SceneOutcome(survey)
    assert not outcome.is_coded
    price = 2.0
    for part in (0, 1):
        error, tokens = 2 * survey.at("error", price) / 2, int(3 * survey.at("tokens", price) / 2)
        outcome.see(block_done(4, price, error, tokens + part))
    assert outcome.is_coded
    outcome.bytes = 4 * int(survey.at("tokens", price))
    corrected = outcome.corrected()
    assert corrected.at("error", price) == pytest.approx(2 * survey.at("error", price))
    assert corrected.at("tokens", price) == pytest.approx(3 * survey.at("tokens", price), rel=0.01)
    assert corrected.at("bytes", price) == pytest.approx(outcome.bytes, rel=0.02)
    assert corrected.progress_error is not None
    np.testing.assert_allclose(corrected.progress_error, np.linspace(0, 1, 9))

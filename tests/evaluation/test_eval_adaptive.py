import math
from pathlib import Path

import numpy as np
import pytest
import torch

from elastictok_cli.evaluation import clips
from elastictok_cli.evaluation.adaptive import (
    Curve,
    Spent,
    adaptive_curve,
    code_adaptive,
    code_fixed,
    fixed_curve,
    gain,
    tokens_for,
    uncapped_gain,
)
from elastictok_cli.models import checkpoint

TARGET = 0.01
CPU = torch.device("cpu")
EXAMPLE = Path(__file__).parents[2] / "examples" / "flower.mp4"


def _curve(*points: tuple[float, float]) -> Curve:
    tokens, met = np.array(points).T
    return Curve(tokens, met)


def test_a_cap_pays_for_every_block_and_passes_those_under_it() -> None:
    # two cheap blocks, a dear one, and one that misses with all its tokens
    blocks = [Spent(0.4, 0.009), Spent(0.1, 0.01), Spent(1.0, 0.02), Spent(0.1, 0.004)]
    curve = adaptive_curve(blocks, TARGET)
    np.testing.assert_allclose(curve.tokens, [0, 0.1, (0.4 + 0.1 + 0.4 + 0.1) / 4, 1.6 / 4])
    np.testing.assert_allclose(curve.met, [0, 0.5, 0.75, 0.75])


def test_blocks_that_need_nothing_pass_at_no_cost() -> None:
    curve = adaptive_curve([Spent(0.0, 0.001), Spent(0.2, 0.009)], TARGET)
    np.testing.assert_allclose(curve.tokens, [0, 0.1])
    np.testing.assert_allclose(curve.met, [0.5, 1])


def test_a_block_that_misses_with_few_tokens_never_passes() -> None:
    curve = adaptive_curve([Spent(0.05, 0.02), Spent(0.2, 0.009)], TARGET)
    np.testing.assert_allclose(curve.met, [0, 0, 0.5])


def test_fixed_lengths_are_sorted_and_count_blocks_at_the_target() -> None:
    long = [Spent(0.5, 0.002), Spent(0.4, 0.01)]
    short = [Spent(0.1, 0.01), Spent(0.1, 0.0101)]
    curve = fixed_curve([long, short], TARGET)
    np.testing.assert_allclose(curve.tokens, [0.1, 0.45])
    np.testing.assert_allclose(curve.met, [0.5, 1.0])


def test_tokens_for_a_share_lie_on_the_line_between_points() -> None:
    curve = _curve((0.1, 0.2), (0.3, 0.6), (0.5, 0.5), (0.9, 0.9))
    assert tokens_for(curve, 0.1) == 0.1  # nothing is known before the first point
    assert tokens_for(curve, 0.4) == pytest.approx(0.2)
    assert tokens_for(curve, 0.6) == pytest.approx(0.3)  # the first time, although it falls again
    assert tokens_for(curve, 0.7) == pytest.approx(0.7)
    assert tokens_for(curve, 0.95) is None


def test_a_share_is_reached_in_spite_of_rounding() -> None:
    assert tokens_for(_curve((0.0, 0.0), (1.0, 0.3)), 0.1 + 0.2) == pytest.approx(1)  # 0.30000000000000004


def test_gain_is_baseline_over_adaptive() -> None:
    adaptive = _curve((0.0, 0.0), (0.1, 0.5), (0.2, 0.9))
    fixed = _curve((0.1, 0.0), (0.5, 0.5), (0.8, 0.8))
    assert gain(adaptive, fixed, 0.5) == (pytest.approx(5), False)
    assert gain(adaptive, fixed, 0.9) == (pytest.approx(4), True)  # all 0.8 do not get there
    assert gain(adaptive, fixed, 0.95) is None
    free = gain(_curve((0.0, 0.6), (0.2, 1.0)), fixed, 0.5)
    assert free is not None
    assert math.isinf(free.times)


def test_without_a_cap_blocks_that_miss_are_paid_in_full() -> None:
    adaptive = adaptive_curve([Spent(0.1, 0.009), Spent(0.7, 0.02)], TARGET)
    fixed = _curve((0.1, 0.0), (0.2, 0.5), (1.0, 1.0))
    assert gain(adaptive, fixed, 0.5) == (pytest.approx(2), False)
    assert uncapped_gain(adaptive, fixed) == (pytest.approx(0.5), False)
    assert uncapped_gain(adaptive, _curve((0.1, 0.0), (0.8, 0.4))) == (pytest.approx(2), True)
    assert uncapped_gain(adaptive_curve([Spent(0.7, 0.02)], TARGET), fixed) is None


def test_curves_of_no_blocks_are_refused() -> None:
    with pytest.raises(ValueError, match="no blocks"):
        adaptive_curve([], TARGET)
    with pytest.raises(ValueError, match="no blocks"):
        fixed_curve([[Spent(0.1, 0.1)], []], TARGET)


def test_both_code_the_same_blocks_of_a_clip() -> None:
    tokenizer = checkpoint.load().tokenizer
    clip = clips.load(EXAMPLE, side=48, frames=6)
    adaptive = code_adaptive(tokenizer, clip, TARGET, CPU)
    few, all_ = (code_fixed(tokenizer, clip, k, CPU) for k in (2, tokenizer.spec.tokens_per_cell))
    assert len(adaptive) == len(few) == len(all_) >= 2
    assert [block.tokens for block in few] == [2 / 64] * len(few)  # of a full cell
    assert all(block.mse <= TARGET for block in adaptive)
    assert all(a.tokens < b.tokens and a.mse > b.mse for a, b in zip(adaptive, all_, strict=True))
    one_length = code_adaptive(tokenizer, clip, TARGET, CPU, allocation="block")
    assert one_length[0].tokens > adaptive[0].tokens

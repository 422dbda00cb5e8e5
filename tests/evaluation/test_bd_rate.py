import numpy as np
import pytest

from elastictok_cli.evaluation.bd_rate import NoCommonRange, OutsideRange, bd_rate, integral, rate_at

PSNRS = [24.26, 27.57, 31.25, 36.02]
OURS = [2388.0, 3614.0, 6524.0, 17245.0]
THEIRS = [1731.0, 2390.0, 4409.0, 12800.0]
OTHER_PSNRS = [25.0, 28.0, 30.0, 33.0, 35.5]


def test_a_curve_against_itself_is_nothing() -> None:
    assert bd_rate(OURS, PSNRS, OURS, PSNRS) == 0


def test_a_constant_factor_is_found_whatever_the_curve() -> None:
    assert bd_rate([1.2 * r for r in OURS], PSNRS, OURS, PSNRS) == pytest.approx(20, abs=1e-9)
    assert bd_rate([0.5 * r for r in OURS], PSNRS, OURS, PSNRS) == pytest.approx(-50, abs=1e-9)


def test_swapped_curves_give_the_inverse_ratio() -> None:
    there = 1 + bd_rate(OURS, PSNRS, THEIRS, PSNRS) / 100
    back = 1 + bd_rate(THEIRS, PSNRS, OURS, PSNRS) / 100
    assert there > 1.1
    assert there * back == pytest.approx(1, abs=1e-12)


def test_agrees_with_another_implementation_of_pchip() -> None:
    # by scipy 1.17.1's PchipInterpolator(psnr, log(rate)).integrate over the common range
    assert bd_rate(OURS, PSNRS, THEIRS, PSNRS) == pytest.approx(45.76626773830543, rel=1e-9)
    flat_ends = [2000.0, 2000.0, 3100.0, 7000.0, 7000.0]
    assert bd_rate(OURS, PSNRS, flat_ends, OTHER_PSNRS) == pytest.approx(59.016298629356626, rel=1e-9)
    steep_end = [2000.0, 2000.0, 3100.0, 7000.0, 90000.0]
    found = bd_rate(THEIRS[1:], PSNRS[1:], steep_end, OTHER_PSNRS)
    assert found == pytest.approx(-18.32534568552363, rel=1e-9)


def test_order_of_points_does_not_matter() -> None:
    turned = bd_rate(OURS[::-1], PSNRS[::-1], THEIRS, PSNRS)
    assert turned == bd_rate(OURS, PSNRS, THEIRS, PSNRS)


def test_only_the_common_range_counts() -> None:
    # straight lines in log rate: twice the rate from 30 dB on, the same below
    anchor = [100.0, 1000.0]
    assert bd_rate([200.0, 400.0], [30.0, 30.5], anchor, [20.0, 40.0]) == pytest.approx(
        100 * (np.sqrt(200 * 400) / np.sqrt(10 ** (2 + 10 / 20) * 10 ** (2 + 10.5 / 20)) - 1)
    )


def test_what_lies_outside_the_common_range_changes_nothing() -> None:
    # a third point beyond theirs would count if either curve were continued; lines, so that no tangent changes either
    line, longer = [30.0, 34.0], [30.0, 34.0, 38.0]
    ours = bd_rate([100.0, 400.0, 1600.0], longer, [50.0, 800.0], line)
    assert ours == pytest.approx(bd_rate([100.0, 400.0], line, [50.0, 800.0], line), abs=1e-9)
    assert ours == pytest.approx(0, abs=1e-9)  # 2 at 30 dB, 1/2 at 34


def test_too_small_a_common_range_is_refused() -> None:
    anchor = [100.0, 1000.0], [30.0, 36.0]
    ours = [200.0, 400.0]
    with pytest.raises(NoCommonRange, match=r"0\.90 dB"):
        bd_rate(ours, [26.0, 30.9], *anchor, least_range=1)
    assert bd_rate(ours, [26.0, 31.0], *anchor, least_range=1) > 0
    with pytest.raises(NoCommonRange, match="no range"):
        bd_rate(ours, [26.0, 30.0], *anchor, least_range=0)


def test_a_rate_between_points_is_on_the_curve() -> None:
    # by scipy 1.17.1's PchipInterpolator(psnr, log(rate))
    found = [rate_at(x, OURS, PSNRS) for x in (25.0, 30.0, 34.0)]
    assert found == pytest.approx([2595.245524199827, 5255.668292906283, 11101.686327384503], rel=1e-9)
    assert [rate_at(x, OURS[::-1], PSNRS[::-1]) for x in PSNRS] == pytest.approx(OURS, rel=1e-12)
    assert rate_at(31.0, [100.0, 400.0], [30.0, 32.0]) == pytest.approx(200)


@pytest.mark.parametrize("psnr", [24.25, 36.03, float("inf"), float("nan")])
def test_a_rate_beyond_the_points_is_refused(psnr: float) -> None:
    with pytest.raises(OutsideRange):
        rate_at(psnr, OURS, PSNRS)


def test_the_curve_stays_within_its_points() -> None:
    x, y = np.array([0.0, 1.0, 2.0, 3.0]), np.array([0.0, 0.0, 1.0, 1.0])
    assert integral(x, y, 0, 1) == 0  # a cubic through all points would dip below
    assert integral(x, y, 2, 3) == pytest.approx(1, abs=1e-12)
    assert integral(x, y, 1, 2) == pytest.approx(0.5, abs=1e-12)


@pytest.mark.parametrize(
    ("rates", "psnrs", "words"),
    [
        ([100.0, 200.0], [40.0, 45.0], "no range of PSNR in common"),
        ([100.0, 200.0], [20.0, 24.26], "no range of PSNR in common"),
        ([100.0], [30.0], "at least 2 points"),
        ([], [], "at least 2 points"),
        ([100.0, 200.0, 300.0], [30.0, 31.0], "as many rates"),
        ([300.0, 200.0], [30.0, 31.0], "not monotone: its rate falls"),
        ([200.0, 300.0], [30.0, 30.0], "not monotone: two of its points"),
        ([0.0, 300.0], [30.0, 31.0], "positive"),
        ([100.0, 300.0], [30.0, float("inf")], "finite"),
    ],
)
def test_what_is_no_curve_is_refused(rates: list[float], psnrs: list[float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        bd_rate(rates, psnrs, OURS, PSNRS)
    with pytest.raises(ValueError, match=words):
        bd_rate(OURS, PSNRS, rates, psnrs)

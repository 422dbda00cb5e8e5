import numpy as np
import pytest

from elastictok_cli.evaluation.bd_rate import bd_rate, integral

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

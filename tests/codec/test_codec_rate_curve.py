"""Rate curves: what is between their points, what is beyond them, and the way back from an error to its lambda."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plans import PRICES, curve_of

from elastictok_cli.codec import rate_curve
from elastictok_cli.codec.rate_curve import RateCurve, price_for, prices
from elastictok_cli.models import checkpoint

CURVE = curve_of(10)
UNITS = st.sampled_from(["error", "tokens"])


@given(UNITS, st.floats(PRICES[0], PRICES[-1]))
def test_a_lambda_is_found_again_by_what_it_leads_to(unit: rate_curve.Unit, price: float) -> None:
    assert CURVE.price_for(unit, CURVE.at(unit, price)) == pytest.approx(price, rel=1e-6)


@given(st.floats(0, 1000), UNITS)
def test_where_a_curve_never_is_the_nearest_lambda_is_given(most: float, unit: rate_curve.Unit) -> None:
    price = CURVE.price_for(unit, most)
    assert PRICES[0] <= price * (1 + 1e-9)
    assert price <= PRICES[-1] * (1 + 1e-9)
    values = CURVE.values(unit)
    assert CURVE.at(unit, price) == pytest.approx(np.clip(most, values.min(), values.max()), rel=1e-6)


def test_beyond_its_ends_a_curve_stays_as_it_is() -> None:
    assert CURVE.at("error", PRICES[-1] * 100) == CURVE.error[-1]
    assert CURVE.at("tokens", PRICES[0] / 100) == CURVE.tokens[0]


def test_of_tokens_bytes_are_made() -> None:
    assert np.array_equal(CURVE.values("bytes"), CURVE.tokens)
    assert CURVE.at("bytes", 1.0) == CURVE.at("tokens", 1.0)


def test_sums() -> None:
    both = CURVE + curve_of(5, scale=3)
    np.testing.assert_allclose(both.error, 1.5 * CURVE.error)
    np.testing.assert_allclose(both.tokens, 2.5 * CURVE.tokens)
    nothing = RateCurve.zero(PRICES)
    assert np.array_equal((nothing + CURVE).tokens, CURVE.tokens)
    assert nothing.price_for("error", 1.0) in (pytest.approx(PRICES[0]), pytest.approx(PRICES[-1]))


def test_a_curve_that_is_flat_in_places_has_a_lambda_on_it() -> None:
    tokens = np.array([9.0, 5.0, 5.0, 5.0, 0.0])
    lambdas = np.array([1.0, 2.0, 4.0, 8.0, 16.0])
    assert 2 * (1 - 1e-9) <= price_for(tokens, lambdas, 5.0) <= 8 * (1 + 1e-9)
    assert price_for(tokens, lambdas, 7.0) == pytest.approx(2**0.5)


def test_the_lambdas_of_a_model_rise_by_equal_factors() -> None:
    spec = checkpoint.load().tokenizer.spec
    found = prices(spec)
    np.testing.assert_allclose(found[1:] / found[:-1], 2 ** (1 / rate_curve.PRICES_PER_OCTAVE))
    assert rate_curve.values_of_cell(spec) == spec.frames * 3 * spec.cell[0] * spec.cell[1]
    assert found[0] == rate_curve.values_of_cell(spec) * 2.0**rate_curve.LOWEST_OCTAVE

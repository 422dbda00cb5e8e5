"""Budgets: what they allow in so many seconds, and what is none."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elastictok_cli.codec.budget import Budget


@pytest.mark.parametrize(
    ("budget", "seconds", "size", "tokens"),
    [
        (Budget(kbps=8), Fraction(2), 2000, None),
        (Budget(kbps=8), Fraction(0), 0, None),
        (Budget(kbps=0.1), Fraction(1, 3), 4, None),  # never rounded up
        (Budget(max_bytes=500), Fraction(7), 500, None),
        (Budget(kbps=8, max_bytes=1500), Fraction(1), 1000, None),
        (Budget(kbps=8, max_bytes=1500), Fraction(2), 1500, None),
        (Budget(max_tokens=0), Fraction(7), None, 0),
        (Budget(max_tokens=300), Fraction(7), None, 300),
        (Budget(tokens_per_second=100.5), Fraction(3, 2), None, 150),
        (Budget(tokens_per_second=0), Fraction(3, 2), None, 0),
        (Budget(max_tokens=300, tokens_per_second=100), Fraction(2), None, 200),
        (Budget(max_tokens=300, tokens_per_second=100), Fraction(4), None, 300),
        (Budget(kbps=8, tokens_per_second=100), Fraction(2), 2000, 200),
    ],
)
def test_what_is_allowed(budget: Budget, seconds: Fraction, size: int | None, tokens: int | None) -> None:
    assert (budget.bytes_for(seconds), budget.tokens_for(seconds)) == (size, tokens)


@given(st.floats(0.001, 10**9), st.fractions(0, 10**6))
def test_a_rate_is_never_exceeded_by_a_bit(kbps: float, seconds: Fraction) -> None:
    size = Budget(kbps=kbps).bytes_for(seconds)
    assert size is not None
    assert size * 8 <= Fraction(kbps) * 1000 * seconds < (size + 1) * 8


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({}, "a budget needs"),
        ({"kbps": 0}, "kbps"),
        ({"kbps": -1}, "kbps"),
        ({"kbps": float("nan")}, "kbps"),
        ({"kbps": float("inf")}, "kbps"),
        ({"max_bytes": 0}, "max_bytes"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"tokens_per_second": -0.5}, "tokens_per_second"),
        ({"tokens_per_second": float("nan")}, "tokens_per_second"),
        ({"tokens_per_second": float("inf")}, "tokens_per_second"),
        ({"kbps": 5, "max_bytes": -5}, "max_bytes"),
    ],
)
def test_what_is_no_budget(limits: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Budget(**limits)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("budget", "size", "tokens", "rate", "length"),
    [
        (Budget(kbps=5), True, False, True, False),
        (Budget(max_bytes=5), True, False, False, True),
        (Budget(max_tokens=0), False, True, False, True),
        (Budget(tokens_per_second=0), False, True, True, False),
        (Budget(max_bytes=5, tokens_per_second=5), True, True, True, True),
    ],
)
def test_what_a_budget_is_of(budget: Budget, size: bool, tokens: bool, rate: bool, length: bool) -> None:
    assert budget.limits_bytes == size
    assert budget.limits_tokens == tokens
    assert budget.is_rate == rate
    assert budget.needs_length == length


def test_the_header_records_what_is_set() -> None:
    assert Budget(kbps=300.0, max_tokens=0).recorded() == {"kbps": 300.0, "max_tokens": 0}

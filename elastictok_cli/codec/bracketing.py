"""Strategies that say which lengths to probe: the paper's (section 3.3), as generators.

A strategy yields lengths, is sent the error (MSE) of each, and ends when it has seen enough. Its caller keeps the
shortest length that met the target, so no strategy can give up a pass for a failure.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence

Strategy = Generator[list[int], list[float], None]

LINEAR_STEPS = 100  # lengths of the linear strategy, as in the paper
PREDICTED_PROBES = 4  # lengths that `predicted` tries around a guess
STEPS_OVER_BISECTION = 2  # steps that `binary` may take more than plain bisection
UNKNOWN_SLOPE = 0.7  # fall of log error with log length where only one error is known
MIN_SLOPE = 0.1  # smaller ones, which noise can give, would send the next length far off
MAX_LOG_STEP = 3.0  # of the logarithm of a length, from the nearest known length to the next one tried
CLOSE_PASS = 0.97  # share of the target: `predicted` ends at a pass with at least this error
MIN_ERROR = 1e-12  # MSE, so that it has a logarithm


def binary(low: int, high: int, target: float, *, guess: int | None = None, batch: int = 1) -> Strategy:
    """The shortest length from `low` to `high` that meets `target`, exactly where errors fall with length.

    Each step narrows the bracket between a failing and a passing length. Where to cut it is read off the errors
    seen, which lie near a straight line in logarithms; a cut so far off the middle that more than two steps
    over bisection might be needed is moved inwards (as in the ITP method of Oliveira and Takahashi, 2020). So it takes
    4 to 6 steps on smooth curves and never more than ceil(log2(lengths + 1)) + 2. With `batch` > 1, each step tries
    further lengths around the cut.
    """
    errors: dict[int, float] = {}
    failing, passing = low - 1, high + 1  # not tried: beyond the ends
    steps_left = math.ceil(math.log2(passing - failing)) + STEPS_OVER_BISECTION
    cut = round(math.sqrt(max(low, 1) * high)) if guess is None else guess
    while passing - failing > 1:
        steps_left -= 1
        reach = 1 << max(0, steps_left)  # widest bracket that bisection can still close in time
        cut = min(max(cut, passing - reach, failing + 1), failing + reach, passing - 1)
        asked = _around(cut, failing, passing, batch)
        results = yield asked
        errors.update(zip(asked, results, strict=True))
        # the shortest pass bounds from above, the longest failure below it from below
        passing = min((k for k in asked if errors[k] <= target), default=passing)
        failing = max((k for k in asked if errors[k] > target and k < passing), default=failing)
        root = _root(errors, failing, passing, target)
        # a pass may be one token too long: aim just below the root; after a failure aim at it
        cut = math.ceil(root) - 1 if errors[cut] <= target else math.ceil(root)


def linear(low: int, high: int, target: float, *, batch: int = 1) -> Strategy:
    """Up to 100 lengths from `low` to `high`, evenly spaced in logarithms, shortest first until one passes."""
    start, end = math.log(max(low, 1)), math.log(max(high, 1))
    steps = LINEAR_STEPS - 1
    lengths = sorted({round(math.exp(start + (end - start) * n / steps)) for n in range(LINEAR_STEPS)})
    for first in range(0, len(lengths), batch):
        if min((yield lengths[first : first + batch])) <= target:
            return


def predicted(low: int, high: int, target: float, *, guess: int, batch: int = 1) -> Strategy:
    """Try a predicted length, correct it by the errors seen, and stop at a pass close to the target.

    After PREDICTED_PROBES tries any pass will do; where none has passed by then, longer lengths are tried, each time
    half-way (in logarithms) to all tokens, and all of them last.
    """
    bisection = binary(low, high, target, guess=guess, batch=batch)
    tried: dict[int, float] = {}
    asked = next(bisection, None)
    while asked is not None and not _settled(tried, target):
        results = yield asked
        tried.update(zip(asked, results, strict=True))
        try:
            asked = bisection.send(results)
        except StopIteration:
            return
    longest = max(tried)
    while min(tried.values()) > target and longest < high:
        longest = min(high, max(longest + 1, math.ceil(math.sqrt(longest * high))))
        if high < 1.05 * longest:
            longest = high
        (tried[longest],) = yield [longest]


def fixed(length: int) -> Strategy:
    """One length, whatever it gives."""
    yield [length]


def _settled(tried: dict[int, float], target: float) -> bool:
    shortest = min((k for k, error in tried.items() if error <= target), default=None)
    if len(tried) >= PREDICTED_PROBES:
        return True
    return shortest is not None and tried[shortest] >= CLOSE_PASS * target


def _around(cut: int, failing: int, passing: int, batch: int) -> list[int]:
    """The cut, and up to `batch` - 1 lengths ever farther from it on both sides, within the bracket."""
    chosen = [cut]
    step = 1
    while len(chosen) < batch and step < passing - failing:
        chosen += [k for k in (cut - step, cut + step) if failing < k < passing][: batch - len(chosen)]
        step *= 8
    return sorted(chosen)


def _root(errors: dict[int, float], failing: int, passing: int, target: float) -> float:
    """Where log error over log length crosses the target, by the nearest errors on both sides, or on one."""

    def height(length: int) -> float:
        return math.log(max(errors[length], MIN_ERROR) / target)

    def place(length: int) -> float:
        return math.log(max(length, 0.5))

    if failing in errors and passing in errors:
        above, below = height(failing), height(passing)
        if above <= below:  # both at the target
            return (failing + passing) / 2
        share = above / (above - below)
        return math.exp(place(failing) + (place(passing) - place(failing)) * share)
    nearest = failing if failing in errors else passing
    slope = _slope([(place(k), height(k)) for k in errors], (place(nearest), height(nearest)))
    return math.exp(place(nearest) + min(max(height(nearest) / slope, -MAX_LOG_STEP), MAX_LOG_STEP))


def _slope(points: Sequence[tuple[float, float]], here: tuple[float, float]) -> float:
    """How fast log error falls with log length, from `here` and the point nearest to it."""
    others = [point for point in points if point[0] != here[0]]
    if not others:
        return UNKNOWN_SLOPE
    x, y = min(others, key=lambda point: abs(point[0] - here[0]))
    return max((y - here[1]) / (here[0] - x), MIN_SLOPE)

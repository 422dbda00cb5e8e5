"""Which lengths to try: the paper's searches as conversations.

A search is a generator. It yields lengths to try, is sent the error of each, and ends when it has seen enough. Whoever
drives it keeps the shortest length that met the target, so no search can give up a pass for a failure.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence

Search = Generator[list[int], list[float], None]

LINEAR_STEPS = 100  # lengths of the linear search, as in the paper
PREDICTED_PROBES = 4  # lengths tried around a prediction
_SPARE = 2  # steps that a search may take more than bisection
_SLOPE = 0.7  # of log error over log length where nothing better is known
_CLOSE = 0.97  # a pass this near the target is not improved further by `predicted`
_TINY = 1e-12


def binary(low: int, high: int, target: float, *, guess: int | None = None, batch: int = 1) -> Search:
    """The shortest length from `low` to `high` that meets `target`, exactly where errors fall with length.

    Each step narrows the bracket between a failing and a passing length. Where to cut it is read off the errors
    seen, which lie near a straight line in logarithms; a cut so far off the middle that more than two steps
    over bisection might be needed is moved inwards (as in the ITP method of Oliveira and Takahashi, 2020). So it takes
    4 to 6 steps on smooth curves and never more than ceil(log2(lengths + 1)) + 2. With `batch` > 1, each step tries
    further lengths around the cut.
    """
    errors: dict[int, float] = {}
    failing, passing = low - 1, high + 1  # not tried: beyond the ends
    steps_left = math.ceil(math.log2(passing - failing)) + _SPARE
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


def linear(low: int, high: int, target: float, *, batch: int = 1) -> Search:
    """Up to 100 lengths from `low` to `high`, evenly spaced in logarithms, shortest first until one passes."""
    start, end = math.log(max(low, 1)), math.log(max(high, 1))
    steps = LINEAR_STEPS - 1
    lengths = sorted({round(math.exp(start + (end - start) * n / steps)) for n in range(LINEAR_STEPS)})
    for first in range(0, len(lengths), batch):
        if min((yield lengths[first : first + batch])) <= target:
            return


def predicted(low: int, high: int, target: float, *, guess: int, batch: int = 1) -> Search:
    """Try a predicted length, correct it by the errors seen, and stop at a pass close to the target.

    After PREDICTED_PROBES tries any pass will do; where none has passed by then, longer lengths are tried, each time
    half-way (in logarithms) to all tokens, and all of them last.
    """
    search = binary(low, high, target, guess=guess, batch=batch)
    tried: dict[int, float] = {}
    asked = next(search, None)
    while asked is not None and not _settled(tried, target):
        results = yield asked
        tried.update(zip(asked, results, strict=True))
        try:
            asked = search.send(results)
        except StopIteration:
            return
    longest = max(tried)
    while min(tried.values()) > target and longest < high:
        longest = min(high, max(longest + 1, math.ceil(math.sqrt(longest * high))))
        if high < 1.05 * longest:
            longest = high
        (tried[longest],) = yield [longest]


def fixed(length: int) -> Search:
    """One length, whatever it gives."""
    yield [length]


def _settled(tried: dict[int, float], target: float) -> bool:
    shortest = min((k for k, error in tried.items() if error <= target), default=None)
    if len(tried) >= PREDICTED_PROBES:
        return True
    return shortest is not None and tried[shortest] >= _CLOSE * target


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
        return math.log(max(errors[length], _TINY) / target)

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
    return math.exp(place(nearest) + min(max(height(nearest) / slope, -3.0), 3.0))


def _slope(points: Sequence[tuple[float, float]], here: tuple[float, float]) -> float:
    """How fast log error falls with log length, from `here` and the point nearest to it."""
    others = [point for point in points if point[0] != here[0]]
    if not others:
        return _SLOPE
    x, y = min(others, key=lambda point: abs(point[0] - here[0]))
    return max((y - here[1]) / (here[0] - x), 0.1)

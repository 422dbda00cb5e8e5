"""Planning the scenes of a video: one lambda, and each scene's part of what the promise or the budget allows.

`plan_all` knows the surveys of all scenes. `RunningPlanner` sees one scene after another, as a pipe brings them: its
lambda is that of all scenes so far, and a scene may use what the ones before have left over, never more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, NamedTuple

from elastictok_cli.codec.options import EncodeOptions
from elastictok_cli.codec.scene_plan import Limit, ScenePlan, SceneSurvey

Bound = Literal[
    "target", "budget"
]  # what decides the error: it is no lower than the target, and the budget holds


@dataclass(frozen=True)
class Allowed:
    """What some frames may spend in all; None: any amount.

    error: MSE summed over the frames. tokens. bytes: of segments, with their entries in the index.
    """

    error: float | None = None
    tokens: float | None = None
    bytes: float | None = None

    @property
    def limits(self) -> list[Limit]:
        """Those that are set."""
        names: tuple[Limit, ...] = ("error", "tokens", "bytes")
        return [name for name in names if getattr(self, name) is not None]

    def of(self, limit: Limit) -> float:
        """What is allowed of one of those that are set."""
        value: float = getattr(self, limit)
        return value


def allowed_for(options: EncodeOptions, frames: int, seconds: Fraction, other_bytes: int) -> Allowed:
    """What a video may spend that lasts so long, beside `other_bytes` of header and copied streams."""
    budget = options.budget
    error = None if options.mse is None else options.mse * frames
    if budget is None:
        return Allowed(error)
    size, tokens = budget.bytes_for(seconds), budget.tokens_for(seconds)
    return Allowed(error, tokens, None if size is None else size - other_bytes)


class Choice(NamedTuple):
    """A lambda, and the limit that asks for it."""

    price: float
    limit: Limit

    @property
    def bound(self) -> Bound:
        """What decides the error."""
        return "target" if self.limit == "error" else "budget"


def choose(total: SceneSurvey, allowed: Allowed) -> Choice:
    """The lambda at which frames spend what is allowed of them, by their survey.

    Where several limits are set it is the highest: a budget holds only from its lambda on, and below the target's no
    token is needed.
    """
    return max(Choice(total.price_for(limit, allowed.of(limit)), limit) for limit in allowed.limits)


def plan_all(
    surveys: Sequence[SceneSurvey], allowed: Allowed, worst: float | None
) -> tuple[Bound, list[ScenePlan]]:
    """What decides the error of a video, and the plan of each of its scenes.

    worst: MSE that no block may exceed where the target decides.
    """
    price, limit = chosen = choose(sum(surveys[1:], start=surveys[0]), allowed)
    shares = [survey.at(limit, price) for survey in surveys]
    factor = allowed.of(limit) / max(sum(shares), 1e-12)
    return chosen.bound, [
        ScenePlan(survey, price, limit, factor * share, worst if limit == "error" else None)
        for survey, share in zip(surveys, shares, strict=True)
    ]


class RunningPlanner:
    """Plans one scene after another, each when those before it are coded."""

    def __init__(self, options: EncodeOptions) -> None:
        self._options = options
        self._before: SceneSurvey | None = None  # all scenes that are coded, as they turned out
        self._planned: SceneSurvey | None = None  # the one that is not, yet
        self._spent = Allowed(0.0, 0.0, 0.0)
        self.bound: Bound | None = None

    def plan(self, survey: SceneSurvey, seconds: Fraction, other_bytes: int) -> ScenePlan:
        """The plan of the next scene.

        seconds: from the beginning of the video to the end of the scene. other_bytes: of header and copied streams.
        """
        total = survey if self._before is None else self._before + survey
        allowed = allowed_for(self._options, total.frames, seconds, other_bytes)
        price, limit = chosen = choose(total, allowed)
        self.bound, self._planned = chosen.bound, survey
        left = max(allowed.of(limit) - self._spent.of(limit), 0.0)
        if limit == "error":
            price = min(price, survey.price_for(limit, left))
            most = min(left, survey.at(limit, price))
        else:
            price, most = max(price, survey.price_for(limit, left)), left
        worst = self._options.worst_error if limit == "error" else None
        return ScenePlan(survey, price, limit, most, worst)

    def coded(self, error: float, tokens: int, size: int, price: float) -> None:
        """The planned scene is coded: its summed MSE, its tokens and bytes. Its survey is corrected by them."""
        assert self._planned is not None
        turned_out = self._planned.corrected(price, error, tokens, size)
        self._before = turned_out if self._before is None else self._before + turned_out
        spent = self._spent
        self._spent = Allowed(
            spent.of("error") + error, spent.of("tokens") + tokens, spent.of("bytes") + size
        )

"""Planning the scenes of a video: one lambda, and each scene's part of what the promise or the budget allows.

`plan_at` makes the plans of all scenes at once; `attempts.py` chooses the lambda. `RunningPlanner` sees one scene after
another, as a pipe brings them: its lambda is that of all scenes so far, and a scene may use what the ones before have
left over, never more.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, NamedTuple

from elastictok_cli.codec.options import EncodeOptions
from elastictok_cli.codec.scene_outcome import SceneOutcome
from elastictok_cli.codec.scene_plan import Limit, ScenePlan, SceneSurvey
from formats import EtkWriter, Header

# What decides the error: it is no lower than the target, and the budget holds.
Bound = Literal["target", "budget"]

END_BYTES = 64  # trailer, and the frame of the index


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

    def scaled(self, factor: float) -> Allowed:
        """So many times as much of everything."""
        return Allowed(*(None if x is None else x * factor for x in (self.error, self.tokens, self.bytes)))

    def of(self, limit: Limit) -> float:
        """What is allowed of one of those that are set."""
        value: float = getattr(self, limit)
        return value


def header_bytes(header: Header) -> int:
    """What a file takes beside its segments and copied streams."""
    return EtkWriter(io.BytesIO(), header).bytes_written + END_BYTES


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


def plan_at(
    choice: Choice, surveys: Sequence[SceneSurvey], allowed: Allowed, worst: float | None
) -> list[ScenePlan]:
    """The plan of each scene of a video at one lambda; in all they spend what is allowed.

    worst: MSE that no block may exceed where the target decides.
    """
    price, limit = choice
    shares = [survey.at(limit, price) for survey in surveys]
    factor = allowed.of(limit) / max(sum(shares), 1e-12)
    return [
        ScenePlan(survey, price, limit, factor * share, worst if limit == "error" else None)
        for survey, share in zip(surveys, shares, strict=True)
    ]


def expected_error(total: SceneSurvey, allowed: Allowed) -> float:
    """The MSE that frames should have with what is allowed of them."""
    return total.at("error", choose(total, allowed).price) / total.frames


class RunningPlanner:
    """Plans one scene after another, each when those before it are coded."""

    def __init__(self, options: EncodeOptions) -> None:
        self._options = options
        self._before: SceneSurvey | None = None  # all scenes that are coded, as they turned out
        self._spent = Allowed(0.0, 0.0, 0.0)
        self.bound: Bound | None = None

    def plan(self, survey: SceneSurvey, seconds: Fraction, other_bytes: int) -> ScenePlan:
        """The plan of the next scene.

        seconds: from the beginning of the video to the end of the scene. other_bytes: of header and copied streams.
        """
        total = survey if self._before is None else self._before + survey
        allowed = allowed_for(self._options, total.frames, seconds, other_bytes)
        price, limit = chosen = choose(total, allowed)
        self.bound = chosen.bound
        left = self._left(allowed, limit)
        for budget in (
            "tokens",
            "bytes",
        ):  # a target that asks for more than is left of a budget gives way to it
            if limit == "error" and budget in allowed.limits:
                most = self._left(allowed, budget)
                if survey.at(budget, min(price, survey.price_for("error", left))) > most:
                    limit, left, self.bound = budget, most, "budget"
        if limit == "error":
            price = min(price, survey.price_for(limit, left))
            most = min(left, survey.at(limit, price))
        else:
            price, most = max(price, survey.price_for(limit, left)), left
        worst = self._options.worst_error if limit == "error" else None
        return ScenePlan(survey, price, limit, most, worst)

    def _left(self, allowed: Allowed, limit: Limit) -> float:
        return max(allowed.of(limit) - self._spent.of(limit), 0.0)

    def coded(self, outcome: SceneOutcome, spent: Allowed) -> None:
        """The planned scene is coded. spent: its summed MSE, its tokens and bytes."""
        turned_out = outcome.corrected()
        self._before = turned_out if self._before is None else self._before + turned_out
        before = self._spent
        self._spent = Allowed(*(before.of(limit) + spent.of(limit) for limit in before.limits))

"""Encoding a video again until it keeps its promise or its budget and uses what it may."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from elastictok_cli.codec.planner import Allowed, Bound, Choice, choose, plan_at
from elastictok_cli.codec.scene_plan import Limit, ScenePlan, SceneSurvey

# Share of what is allowed that a file should use; one that uses less, or too much, is encoded again.
LEAST_USE: dict[Limit, float] = {"error": 0.95, "tokens": 0.97, "bytes": 0.97}
# So is a file that turns out to need a lambda so many times higher or lower: it had to be made up for at scenes' ends.
MAX_CHANGE_OF_LAMBDA = 1.4
MAX_ATTEMPTS = 5
AIMED_USE = 0.985  # between two attempts, of which one used too much and one too little
MARGIN_OF_ATTEMPT = 0.995  # what each further attempt aims below what is allowed


@dataclass(frozen=True)
class _Attempt:
    plans: list[ScenePlan]
    bound: Bound
    used: float  # share of what is allowed

    @property
    def price(self) -> float:
        return self.plans[0].price


class Attempts:
    """Plans one attempt after another, each by what the ones before turned out to be.

    plans, bound: of the attempt to make. used: share of what is allowed that the last file used, of `decided_by`.
    """

    def __init__(self, surveys: Sequence[SceneSurvey], allowed: Allowed, worst: float | None) -> None:
        """worst: MSE that no block may exceed where the target decides."""
        self._surveys, self._allowed, self._worst = surveys, allowed, worst
        self._tried: list[_Attempt] = []
        self.used = 0.0
        self.bound, self.plans = self._planned(choose(_total(surveys), allowed))
        self.decided_by = self.limit
        self.is_last = False

    @property
    def limit(self) -> Limit:
        """The limit that decides."""
        return self.plans[0].limit

    def take(self, spent: Allowed, surveys: Sequence[SceneSurvey], *, empty: bool) -> bool:
        """Whether the file of the last plans is good enough; else there are new ones.

        spent: by the file, of everything. surveys: as the scenes turned out. empty: there is not a token in the file.
        """
        if self.is_last:
            return True
        self._surveys = surveys
        used = self._share_of(self.limit, spent)
        budgets: dict[Limit, float] = {
            limit: self._share_of(limit, spent) for limit in self._allowed.limits if limit != "error"
        }
        fullest = max(budgets, key=lambda limit: budgets[limit], default=self.limit)
        over_budget = budgets.get(fullest, 0.0)
        if self.limit == "error" and over_budget > 1:
            # the target would need more than the budget has, so the budget decides from here on
            self.decided_by, self.used, self._tried = fullest, over_budget, []
            self._allowed = replace(self._allowed, error=None)
            self.bound, self.plans = self._planned(choose(_total(surveys), self._allowed))
            return False
        if self.limit != "error":
            used = max(used, over_budget)
        self.decided_by, self.used = self.limit, used
        self._tried.append(_Attempt(self.plans, self.bound, used))
        if used <= 1 and (empty or self._is_used(used)):
            return True
        if used <= 1 and len(self._tried) > 1 and used == self._tried[-2].used:
            return True  # another lambda changes nothing: there is no more to be had from this video
        best = max((a for a in self._tried if a.used <= 1), key=lambda a: a.used, default=None)
        if len(self._tried) >= MAX_ATTEMPTS:
            if best is None or best is self._tried[-1]:
                return True
            self.plans, self.bound, self.is_last = best.plans, best.bound, True
            return False
        self.bound, self.plans = self._planned(self._next_choice())
        return False

    def _share_of(self, limit: Limit, spent: Allowed) -> float:
        return spent.of(limit) / max(self._allowed.of(limit), 1e-12)

    def _is_used(self, used: float) -> bool:
        if used < LEAST_USE[self.limit]:
            return False
        if len(self._tried) > 1:
            return True
        # the same use at one lambda may take fewer tokens
        change = choose(_total(self._surveys), self._allowed).price / self._tried[0].price
        return 1 / MAX_CHANGE_OF_LAMBDA <= change <= MAX_CHANGE_OF_LAMBDA

    def _next_choice(self) -> Choice:
        """By interpolation between the nearest attempts that used too much and too little; else by the surveys."""
        same = [a for a in self._tried if a.plans[0].limit == self.limit]
        over = [a for a in same if a.used > 1]
        under = [a for a in same if a.used <= 1]
        if over and under and len(self._tried) > 1:
            high, low = min(over, key=lambda a: a.used), max(under, key=lambda a: a.used)
            span = math.log(high.used / max(low.used, 1e-6))
            part = math.log(AIMED_USE / max(low.used, 1e-6)) / span
            price = low.price * (high.price / low.price) ** min(max(part, 0.05), 0.95)
            return Choice(price, self.limit)
        return choose(_total(self._surveys), self._aimed_at)

    @property
    def _aimed_at(self) -> Allowed:
        """What is allowed, less a margin that grows with each attempt."""
        return self._allowed.scaled(MARGIN_OF_ATTEMPT ** len(self._tried))

    def _planned(self, choice: Choice) -> tuple[Bound, list[ScenePlan]]:
        return choice.bound, plan_at(choice, self._surveys, self._aimed_at, self._worst)


def _total(surveys: Sequence[SceneSurvey]) -> SceneSurvey:
    return sum(surveys[1:], start=surveys[0])

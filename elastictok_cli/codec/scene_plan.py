"""What one scene of a video may spend, and the lambda of each of its blocks that uses it up exactly.

The scenes of a video share one lambda, found in a first pass. The encoder of a scene follows it, but the pass has only
estimated what that lambda leads to. So each scene also gets its part of the whole: an error, a number of tokens or of
bytes. After each block the lambda is set anew, to what the rest of the scene is expected to need, and the last block
gets what is left. Scenes know nothing of each other: they can be encoded in any order, with the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from elastictok_cli.codec.rate_curve import Floats, RateCurve, price_for

Limit = Literal["error", "tokens", "bytes"]

AIM = 0.997  # share of the limit that blocks before the last aim at
# What the first pass said counts as so much of a scene that is measured already, when the two are compared.
TRUST_IN_SURVEY = 0.2
# How far the lambda of a block may be from the plan's, as a factor: in the first half of a scene, and at its end. It
# should be the same everywhere, but the end has to make up for what was expected wrongly.
MAX_EARLY_CHANGE, MAX_CHANGE_OF_PRICE = 1.2, 3.0


@dataclass(frozen=True)
class SceneSurvey:
    """What the first pass found out about a scene, or about several.

    frames: how many there are. curve: of all blocks. fixed_bytes: of segments without a token, bytes_per_token: what
    each adds. progress_error, progress_tokens: (F + 1,) share of the scene's error and of its tokens before each frame;
    None for several scenes.
    """

    frames: int
    curve: RateCurve
    fixed_bytes: float
    bytes_per_token: float
    progress_error: Floats | None = None
    progress_tokens: Floats | None = None

    def __add__(self, other: SceneSurvey) -> SceneSurvey:
        ours, theirs = float(self.curve.tokens.sum()), float(other.curve.tokens.sum())
        each = self.bytes_per_token * ours + other.bytes_per_token * theirs
        return SceneSurvey(
            frames=self.frames + other.frames,
            curve=self.curve + other.curve,
            fixed_bytes=self.fixed_bytes + other.fixed_bytes,
            bytes_per_token=each / (ours + theirs) if ours + theirs else self.bytes_per_token,
        )

    def at(self, limit: Limit, price: float) -> float:
        """What the scene is expected to spend at a lambda."""
        if limit != "bytes":
            return self.curve.at(limit, price)
        return self.fixed_bytes + self.bytes_per_token * self.curve.at("tokens", price)

    def price_for(self, limit: Limit, most: float) -> float:
        """The lambda at which it is expected to spend this much."""
        if limit != "bytes":
            return self.curve.price_for(limit, most)
        return self.curve.price_for("tokens", max(most - self.fixed_bytes, 0.0) / self.bytes_per_token)

    def share_after(self, limit: Limit, frames: int) -> float:
        """The part of its spending that is expected after the first frames."""
        found = self.progress_error if limit == "error" else self.progress_tokens
        assert found is not None
        return 1 - float(found[min(frames, len(found) - 1)])

    def expected(self, limit: Limit, first: int, count: int, price: float) -> float:
        """What `count` frames from the `first` on are expected to spend at a lambda."""
        share = self.share_after(limit, first) - self.share_after(limit, first + count)
        return share * self.at(limit, price)

    def corrected(self, error: float, tokens: float, size: float | None) -> SceneSurvey:
        """With so many times the error and the tokens, and `size` bytes per token; None: as before."""
        curve = RateCurve(self.curve.prices, error * self.curve.error, tokens * self.curve.tokens)
        return replace(self, curve=curve, bytes_per_token=size or self.bytes_per_token)


@dataclass(frozen=True)
class ScenePlan:
    """How a scene is to be encoded.

    price: lambda, squared error per token. limit: what `most` is of: MSE summed over frames, tokens, or bytes of its
    segments. worst: highest MSE of a block; None: any.
    """

    survey: SceneSurvey
    price: float
    limit: Limit
    most: float
    worst: float | None = None

    @property
    def usual_error(self) -> float:
        """The MSE that the scene should have in the mean."""
        return self.survey.at("error", self.price) / self.survey.frames


class Controller:
    """Follows a plan block by block. `spent` of the limit counts after each of them."""

    def __init__(self, plan: ScenePlan) -> None:
        self.plan = plan
        self._expected = 0.0  # what the blocks so far were expected to spend at their lambdas
        self.spent = 0.0
        self.frames = 0

    @property
    def left(self) -> float:
        """What is not spent yet."""
        return self.plan.most - self.spent

    def price(self) -> float:
        """The lambda for the next block, at which the rest of the scene should use up what is left."""
        survey, limit = self.plan.survey, self.plan.limit
        return self._clamped(
            survey.price_for(limit, self._wanted() / max(self._ratio() * self._rest(0), 1e-9))
        )

    def price_with(self, block: RateCurve, frames: int) -> float:
        """The same when the curve of the next block is known, which has so many frames."""
        survey, limit = self.plan.survey, self.plan.limit
        each = survey.bytes_per_token if limit == "bytes" else 1.0
        rest = self._ratio() * self._rest(frames)
        of_block, of_rest = block.values(limit), survey.curve.values(limit)
        both = each * (of_block + rest * of_rest)
        fixed = rest * survey.fixed_bytes if limit == "bytes" else 0.0
        return self._clamped(price_for(both, block.prices, self._wanted() - fixed))

    def _wanted(self) -> float:
        """What the rest of the scene should spend."""
        return max(AIM * self.plan.most - self.spent, 0.0)

    def _ratio(self) -> float:
        """Measured / expected spending so far."""
        trusted = TRUST_IN_SURVEY * self.plan.survey.at(self.plan.limit, self.plan.price)
        return (self.spent + trusted + 1e-9) / (self._expected + trusted + 1e-9)

    def _rest(self, frames: int) -> float:
        """The part of the scene's spending that is expected after the next `frames`."""
        return self.plan.survey.share_after(self.plan.limit, self.frames + frames)

    def _clamped(self, price: float) -> float:
        usual = self.plan.price
        late = max(0.0, 2 * self.frames / self.plan.survey.frames - 1)  # 0 up to the middle, 1 at the end
        change = MAX_EARLY_CHANGE * (MAX_CHANGE_OF_PRICE / MAX_EARLY_CHANGE) ** late
        return float(min(max(price, usual / change), usual * change))

    def note(self, frames: int, price: float, spent: float) -> None:
        """A block of so many frames was coded at this lambda; spent: by all blocks so far."""
        self._expected += self.plan.survey.expected(self.plan.limit, self.frames, frames, price)
        self.frames += frames
        self.spent = spent


def progress(values: list[float], frames: list[int]) -> Floats:
    """Shares (F + 1,) of blocks' values before each frame, where the frames of a block have the same each."""
    each = np.repeat(np.array(values) / np.array(frames), frames) if frames else np.zeros(0)
    total = each.sum()
    if total <= 0:
        return np.linspace(0, 1, len(each) + 1)
    return np.concatenate([[0.0], each.cumsum() / total])

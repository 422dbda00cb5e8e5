"""The options of an encode."""

from __future__ import annotations

from dataclasses import dataclass

from elastictok_cli.codec.budget import DEFAULT_WORST, Budget, Promise
from elastictok_cli.codec.length_search import Guess, Method
from elastictok_cli.codec.rate_control import DEFAULT_EFFORT, Allocation

KEYFRAME_INTERVAL = 5.0  # seconds, by default


@dataclass(frozen=True)
class EncodeOptions:
    """The options of an encode; `mse`, `budget` or both are set, or `tokens` alone.

    mse: the target on [-1, 1] pixels: the highest MSE of a block, or the mean of the video, as `promise` says.
    tokens: the same number of tokens for every cell instead.
    allocation: "cell" gives each cell a length of its own, "block" one length to all cells of a block.
    keyframe_interval: seconds from the start of a scene to the first frame that may start another; 0: only cuts do.
    effort: 0 to 9, for nested models.
    search: how lengths are searched for, for models whose encoder sees the length.
    guess: the length that the search "predict" begins with.
    promise: what the target is promised for. worst: times the target, the highest MSE of a block where it is promised
        for the video.
    budget: the most that the file may hold. The error is as low as the budget allows, but no lower than the target.
    """

    mse: float | None = 0.007
    tokens: int | None = None
    allocation: Allocation = "cell"
    keyframe_interval: float = KEYFRAME_INTERVAL
    effort: int = DEFAULT_EFFORT
    search: Method = "binary"
    guess: Guess | None = None
    promise: Promise = "block"
    worst: float = DEFAULT_WORST
    budget: Budget | None = None

    @property
    def planned(self) -> bool:
        """Whether scenes are planned: where the whole video has a promise or a budget, not each block."""
        return self.promise == "video" or self.budget is not None

    @property
    def worst_error(self) -> float | None:
        """The highest MSE of a block where the target is promised for the video; None: any."""
        return None if self.mse is None else self.worst * self.mse

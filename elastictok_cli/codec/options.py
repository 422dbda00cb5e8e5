"""What is asked of an encode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from elastictok_cli.codec import length_search as lengths
from elastictok_cli.codec.rate_control import DEFAULT_EFFORT

KEYFRAME_INTERVAL = 5.0  # seconds, where nothing is said


@dataclass(frozen=True)
class EncodeOptions:
    """What is asked of an encode; exactly one of `mse` and `tokens` is set."""

    mse: float | None = 0.007  # target per block, on [-1, 1] pixels
    tokens: int | None = None  # or: this many tokens in every cell
    allocation: Literal["cell", "block"] = "cell"
    keyframe_interval: float = KEYFRAME_INTERVAL  # seconds between seek points
    effort: int = DEFAULT_EFFORT  # 0 to 9, for models whose encoder does not see the length
    search: lengths.Method = "binary"  # for models whose encoder sees the length
    guess: lengths.Guess | None = None  # what the search "predict" begins with

"""What an encode may spend in all, and what it promises."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

# What the target is promised for: the error of every block, or the mean error of all frames of the video.
Promise = Literal["block", "video"]

DEFAULT_WORST = 4.0  # times the target: the highest error of a block where the mean of the video is promised
MAX_WORST = 10**6
MAX_KBPS = 10**9  # a terabit a second
_BYTES_PER_KILOBIT = 125


@dataclass(frozen=True)
class Budget:
    """The most that a file may hold; one or more are set, and the tightest counts. Raises ValueError otherwise.

    kbps: kilobits a second, and max_bytes: of the whole file, audio and all. max_tokens: in all.
    tokens_per_second: in the mean over the video.
    """

    kbps: float | None = None
    max_bytes: int | None = None
    max_tokens: int | None = None
    tokens_per_second: float | None = None

    def __post_init__(self) -> None:
        if self.kbps is not None and not 0 < self.kbps <= MAX_KBPS:
            raise ValueError(f"kbps must be more than 0 and at most {MAX_KBPS}, not {self.kbps}")
        if self.max_bytes is not None and self.max_bytes <= 0:
            raise ValueError(f"max_bytes must be more than 0, not {self.max_bytes}")
        if self.max_tokens is not None and self.max_tokens < 0:
            raise ValueError(f"max_tokens must be 0 or more, not {self.max_tokens}")
        if self.tokens_per_second is not None and not 0 <= self.tokens_per_second < math.inf:
            raise ValueError(f"tokens_per_second must be 0 or more, not {self.tokens_per_second}")
        if not (self.limits_bytes or self.limits_tokens):
            raise ValueError("a budget needs kbps, max_bytes, max_tokens or tokens_per_second")

    @property
    def limits_bytes(self) -> bool:
        """Whether the size of the file is limited."""
        return self.kbps is not None or self.max_bytes is not None

    @property
    def limits_tokens(self) -> bool:
        """Whether the number of tokens is limited."""
        return self.max_tokens is not None or self.tokens_per_second is not None

    @property
    def is_rate(self) -> bool:
        """Whether a limit is one of each second, which a still picture does not have."""
        return self.kbps is not None or self.tokens_per_second is not None

    @property
    def needs_length(self) -> bool:
        """Whether the whole length has to be known before anything is coded."""
        return self.max_bytes is not None or self.max_tokens is not None

    def bytes_for(self, seconds: Fraction) -> int | None:
        """The most bytes of a file that lasts so long; None where bytes are not limited."""
        limits = [] if self.max_bytes is None else [self.max_bytes]
        if self.kbps is not None:
            limits.append(int(Fraction(self.kbps) * _BYTES_PER_KILOBIT * seconds))
        return min(limits, default=None)

    def tokens_for(self, seconds: Fraction) -> int | None:
        """The most tokens of a file that lasts so long; None where tokens are not limited."""
        limits = [] if self.max_tokens is None else [self.max_tokens]
        if self.tokens_per_second is not None:
            limits.append(int(Fraction(self.tokens_per_second) * seconds))
        return min(limits, default=None)

    def recorded(self) -> dict[str, int | float]:
        """What is set, by name, as the header records it."""
        names = ("kbps", "max_bytes", "max_tokens", "tokens_per_second")
        return {name: value for name in names if (value := getattr(self, name)) is not None}

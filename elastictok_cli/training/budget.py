"""The budget of a training run: seconds, steps, or both, whichever is spent first."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Budget:
    """Limits of a run; None where there is none."""

    seconds: float | None
    steps: int | None

    def spent(self, elapsed: float, step: int) -> float:
        """Share of the budget spent after `elapsed` seconds and `step` steps, 0 .. 1."""
        shares = [0.0]
        if self.seconds is not None:
            shares.append(elapsed / self.seconds)
        if self.steps is not None:
            shares.append(step / self.steps if self.steps else 1.0)
        return min(1.0, max(shares))

    def seconds_left(self, elapsed: float, step: int) -> float | None:
        """Seconds until the end, estimated where only steps are limited; `step` is at least 1."""
        if self.seconds is not None:
            return max(0.0, self.seconds - elapsed)
        if self.steps is not None:
            return (self.steps - step) * elapsed / step
        return None

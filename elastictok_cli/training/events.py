"""What a training run tells whoever watches: events, and the error that ends it. All models share them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Stop = Callable[[], bool]  # asked between steps; once true, the run is saved and ends


class TrainingError(Exception):
    """A run that cannot start or go on; the message is one sentence for the user."""


@dataclass(frozen=True)
class Tick:
    """After every step: what a progress bar shows."""

    step: int
    loss: float
    errors: dict[str, float]  # mean MSE of keyframe and inter blocks; at_N: were N tokens kept in every cell
    tokens: float  # mean residual tokens per cell
    examples_per_second: float
    progress: float  # 0 .. 1 of the budget
    seconds_left: float | None


@dataclass(frozen=True)
class Saved:
    """A checkpoint and the resumable state were written."""

    path: Path
    step: int


@dataclass(frozen=True)
class Validated:
    """Figures on the validation clips, also appended to the JSONL beside the checkpoint."""

    figures: dict[str, Any]


@dataclass(frozen=True)
class Loading:
    """Clips decoded so far."""

    clips: int
    gigabytes: float


@dataclass(frozen=True)
class Fitting:
    """The KLT start of a new model is being computed; takes a minute or so."""

    clips: int


Event = Tick | Saved | Validated | Loading | Fitting

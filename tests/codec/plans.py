"""Surveys of scenes whose error and tokens follow a law at every lambda."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from elastictok_cli.codec.rate_curve import RateCurve
from elastictok_cli.codec.scene_plan import SceneSurvey

PRICES = np.exp2(np.arange(-30, 31) / 3)
FIXED_BYTES, BYTES_PER_TOKEN = 40.0, 1.5
RATE = Fraction(25)  # frames a second


def curve_of(frames: int, scale: float = 1.0) -> RateCurve:
    """Frames whose error rises with the root of lambda, and whose tokens fall with it. scale: of their tokens."""
    return RateCurve(PRICES, 0.01 * frames * PRICES**0.5, 10 * frames * scale * PRICES**-0.5)


def survey_of(frames: int, scale: float = 1.0) -> SceneSurvey:
    """A scene that spends the same in every frame."""
    even = np.linspace(0, 1, frames + 1)
    return SceneSurvey(frames, curve_of(frames, scale), FIXED_BYTES, BYTES_PER_TOKEN, even, even)

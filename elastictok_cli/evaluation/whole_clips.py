"""Tokens against the mean error of whole clips: both promises beside fixed lengths, through the real encoder.

The paper's figure counts blocks that meet a target, which only the promise `block` is about. What both promises and
fixed lengths have in common is the mean error, and what it costs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from elastictok_cli.codec.options import EncodeOptions
from elastictok_cli.evaluation.clips import Clip
from elastictok_cli.evaluation.tokens import PIXELS_OF_BLOCK, Measured, measure_options
from elastictok_cli.models.interface import Loaded

FIXED = "fixed"  # the same number of tokens in every cell
WAYS = ("video", "block", FIXED)  # the promises, and none


@dataclass(frozen=True)
class Whole:
    """One clip or several, encoded in one way with one setting."""

    tokens: float  # per 256x256x4 pixels
    mse: float  # mean over all frames
    worst: float  # highest MSE of a block


def measure_fixed(loaded: Loaded, clip: Clip, tokens: int, device: torch.device) -> Measured:
    """A clip with `tokens` tokens in every cell."""
    return measure_options(loaded, clip, EncodeOptions(mse=None, tokens=tokens), device)


def pooled(measured: Sequence[Measured]) -> Whole:
    """All clips as one video. Raises ValueError without any."""
    if not measured:
        raise ValueError("no clips")
    pixels = [m.frames * m.height * m.width for m in measured]
    return Whole(
        tokens=sum(m.tokens for m in measured) * PIXELS_OF_BLOCK / sum(pixels),
        mse=sum(m.mse * count for m, count in zip(measured, pixels, strict=True)) / sum(pixels),
        worst=max(math.inf if m.worst_mse is None else m.worst_mse for m in measured),
    )


def tokens_at(curve: Sequence[Whole], mse: float) -> float | None:
    """Tokens of a curve (any order) at a mean error; None outside of it.

    Straight lines between points on logarithmic axes; points without tokens or without error have no place there.
    """
    points = sorted((math.log(p.mse), math.log(p.tokens)) for p in curve if p.mse > 0 and p.tokens > 0)
    if not points or not points[0][0] <= math.log(mse) <= points[-1][0]:
        return None
    errors, tokens = zip(*points, strict=True)
    return float(np.exp(np.interp(math.log(mse), errors, tokens)))


def times_the_tokens(curve: Sequence[Whole], point: Whole) -> float | None:
    """How many times as many tokens a curve needs at the mean error of a point; None where it does not reach."""
    theirs = tokens_at(curve, point.mse) if point.mse > 0 else None
    return None if theirs is None or not point.tokens else theirs / point.tokens

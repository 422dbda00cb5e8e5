"""Share of blocks that meet a target against share of tokens used: figure 4 of the ElasticTok paper.

Adaptive means that each block uses the fewest tokens that meet the target; the fixed-length baseline keeps the same
number of tokens in every cell of every block. Both are the same model, and code the same blocks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from elastictok_cli.codec import rate_control as search
from elastictok_cli.codec.block_splitting import BlockSplitter
from elastictok_cli.codec.pixels import Job, job_of
from elastictok_cli.codec.probing import Coded
from elastictok_cli.codec.scenes import split_scenes
from elastictok_cli.evaluation.clips import Clip
from elastictok_cli.models.interface import NestedTokenizer
from formats import full_cell

Shares = npt.NDArray[np.float64]

_STILL_MSE = 0.007  # above it a keyframe block is one frame; the same for all targets, so that all have the same blocks
_ROUNDING_OF_SHARES = 1e-9  # rounding of sums of shares


@dataclass(frozen=True)
class Spent:
    """One coded block."""

    tokens: float  # share of the most that it can keep
    mse: float  # on [-1, 1] pixels


@dataclass(frozen=True)
class Curve:
    """Shares of blocks that meet a target at mean shares of all tokens."""

    tokens: Shares  # (n,), rising
    met: Shares  # (n,)


class Gain(NamedTuple):
    """How many times as many tokens the baseline needs."""

    times: float  # infinite where the adaptive model needs none
    at_least: bool  # the baseline does not get there with all the tokens it was given


def adaptive_curve(blocks: Sequence[Spent], target: float) -> Curve:
    """Of blocks that each have the fewest tokens that meet `target`, or miss it: a cap on tokens is swept from 0 up.

    A block whose cost is over the cap fails, and so does one that missed; both use what the cap allows. In videos only
    the last point, where nothing is capped, was coded as it stands: before it, blocks count with the costs that they
    had after uncapped ones, which is kind to them. Single pictures know nothing of each other. Raises ValueError
    without blocks.
    """
    if not blocks:
        raise ValueError("no blocks")
    cost = np.array([block.tokens for block in blocks])
    meets = np.array([block.mse <= target for block in blocks])
    caps = np.unique([0.0, *cost])
    tokens = [np.minimum(cost, cap).mean() for cap in caps]
    return Curve(np.array(tokens), np.array([(meets & (cost <= cap)).mean() for cap in caps]))


def fixed_curve(sweep: Sequence[Sequence[Spent]], target: float) -> Curve:
    """Of the same blocks coded at several fixed lengths, in any order. Raises ValueError without blocks."""
    if not sweep or not all(sweep):
        raise ValueError("no blocks")
    points = [
        (np.mean([b.tokens for b in blocks]), np.mean([b.mse <= target for b in blocks])) for blocks in sweep
    ]
    tokens, met = np.array(sorted(points), np.float64).T
    return Curve(tokens, met)


def tokens_for(curve: Curve, share: float) -> float | None:
    """The least share of tokens with which this share of blocks meets the target; None if it never does.

    Linear between points; nothing is known before the first, so a share it exceeds costs what it costs.
    """
    enough = np.flatnonzero(curve.met >= share - _ROUNDING_OF_SHARES)
    if not len(enough):
        return None
    n = int(enough[0])
    if n == 0:
        return float(curve.tokens[0])
    return float(np.interp(share, curve.met[n - 1 : n + 1], curve.tokens[n - 1 : n + 1]))


def gain(adaptive: Curve, fixed: Curve, share: float) -> Gain | None:
    """Tokens of the baseline over those of the adaptive model where this share of blocks meets the target.

    None where the adaptive model does not get there.
    """
    ours = tokens_for(adaptive, share)
    return None if ours is None else _gain(ours, fixed, share)


def uncapped_gain(adaptive: Curve, fixed: Curve) -> Gain | None:
    """The same at the last point of the adaptive curve: what blocks that miss have spent is counted in full.

    None where no block meets the target.
    """
    share = float(adaptive.met[-1])
    return _gain(float(adaptive.tokens[-1]), fixed, share) if share > 0 else None


def _gain(ours: float, fixed: Curve, share: float) -> Gain:
    theirs = tokens_for(fixed, share)
    most = float(fixed.tokens[-1]) if theirs is None else theirs
    return Gain(most / ours if ours > 0 else math.inf, theirs is None)


def code_adaptive(
    tokenizer: NestedTokenizer,
    clip: Clip,
    target: float,
    device: torch.device,
    *,
    allocation: Literal["cell", "block"] = "cell",
) -> list[Spent]:
    """The blocks of a clip with the fewest tokens that meet `target` (MSE), each after those before it as coded.

    `allocation`: a length for each cell, or one for all cells of a block. Blocks are not cut shorter where that is
    cheaper, as the encoder would.
    """

    def least(job: Job, context: Any) -> Coded:
        drafted = search.draft(tokenizer, job, context, target, allocation=allocation)
        return search.meet_target(tokenizer, drafted, target, allocation=allocation)

    return _code(tokenizer, clip, device, least)


def code_fixed(tokenizer: NestedTokenizer, clip: Clip, tokens: int, device: torch.device) -> list[Spent]:
    """The same blocks with `tokens` tokens in every cell (all it has, where it has fewer)."""
    return _code(
        tokenizer, clip, device, lambda job, context: search.fixed_length(tokenizer, job, context, tokens)
    )


def _code(
    tokenizer: NestedTokenizer,
    clip: Clip,
    device: torch.device,
    code: Callable[[Job, Any], Coded],
) -> list[Spent]:
    context = None
    spent = []
    for scene in split_scenes(clip.frames, None):
        splitter = BlockSplitter(scene, block_frames=tokenizer.spec.frames, still_mse=_STILL_MSE)
        while (block := splitter.propose()) is not None:
            job = job_of(block.frames, tokenizer, device)
            if block.keyframe:
                context = tokenizer.start(*job.frames.shape[-2:])
            coded = code(job, context)
            splitter.take(len(block.frames))
            context = coded.context
            spec = tokenizer.spec
            most = coded.keep.numel() * full_cell(spec.tokens_per_cell, spec.frames, spec.cell)
            spent.append(Spent(int(coded.keep.sum()) / most, coded.mse))
    return spent

"""Coding one block at one keep map: what mode decision and rate control are made of.

A draft is a block before any decode: all its tokens and what its error curves predict. A probe is one decode of one
keep map, with the error that it measures.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from elastictok_cli.codec.error_model import ErrorModel
from elastictok_cli.codec.pixels import Job, errors_of, real_share
from elastictok_cli.models.interface import Encoding, NestedTokenizer
from formats import max_segment_tokens


@dataclass(frozen=True)
class Coded:
    """One block with its tokens decided.

    tokens: (1, G, h, w) int64, or (1, G, h, w, D) float16 vectors; all of each cell, kept or not.
    keep: (1, h, w) int64, how many tokens each cell keeps.
    frame_mse: of each real frame, on the [-1, 1] scale. mse: their mean.
    missed: whether the block does not meet the target.
    context: what the model needs of it for the next block.
    cell_errors: (1, h, w) squared error of each cell, scaled up to a whole block; None where it was not measured.
    bias: measured / predicted error, the prediction being that of the curves.
    price: lambda that a plan gave the block, squared error per token; None without a plan.
    """

    tokens: torch.Tensor
    keep: torch.Tensor
    frame_mse: tuple[float, ...]
    mse: float
    missed: bool
    context: Any
    cell_errors: torch.Tensor | None = None
    bias: float = 1.0
    price: float | None = None


@dataclass(frozen=True)
class Draft:
    """One block before any decode: what its error curves predict.

    job, context, encoding: the block, what the model knows of the one before, and all tokens of the block.
    model: the error model at its start. Rate control works on copies of it.
    keep: (1, h, w) int64, the cheapest keep map that should meet the target.
    tokens: how many it keeps in all. reaches: whether it should meet the target at all.
    price: lambda of the keep map, the squared error that its last token saves, within `price_range`.
    weight: (1, h, w), how much the error of each cell matters; None: the same everywhere.
    """

    job: Job
    context: Any
    encoding: Encoding
    model: ErrorModel
    keep: torch.Tensor
    tokens: int
    reaches: bool
    price: float
    weight: torch.Tensor | None = None

    @property
    def per_frame(self) -> float:
        """Tokens per real frame."""
        return self.tokens / len(self.job.source)


def probe(
    tokenizer: NestedTokenizer,
    job: Job,
    encoding: Encoding,
    keep: torch.Tensor,
    context: Any,
    target: float | None,
) -> Coded:
    """Decode the block with a keep map (1, h, w) and measure its error. Without a target nothing is missed."""
    decoded, next_context = tokenizer.decode(
        encoding.tokens, keep, context, count=len(job.source), reuse=encoding.reuse
    )
    errors = errors_of(job, decoded, tokenizer.spec.cell)
    frame_mse = tuple(errors.frames.tolist())
    mse = sum(frame_mse) / len(frame_mse)
    missed = target is not None and mse > target
    return Coded(
        encoding.tokens, keep, frame_mse, mse, missed, next_context, errors.cells.to(keep.device).float()
    )


def all_tokens(tokenizer: NestedTokenizer, job: Job, context: Any, **goal: Any) -> Encoding:
    """All tokens of a block, but no more in a cell than a segment of the file can hold in each of them."""
    encoding = tokenizer.encode(job.frames, context, count=len(job.source), **goal)
    most = max_segment_tokens(tokenizer.spec.vector) // encoding.length.numel()
    if encoding.tokens.shape[1] <= most:
        return encoding
    return replace(encoding, length=encoding.length.clamp_max(most))


def error_model(
    tokenizer: NestedTokenizer, job: Job, encoding: Encoding, weight: torch.Tensor | None
) -> ErrorModel:
    """What the curves of an encoding say of a block. weight: (1, h, w), how much the error of each cell matters."""
    return ErrorModel(encoding, real_share(job, tokenizer.spec.cell).to(encoding.curve.device), weight)


def allowed_error(job: Job, target: float, device: torch.device) -> torch.Tensor:
    """The squared error a block may keep, (1,), scaled up to a whole block where frames of it are padding."""
    frames = job.frames.shape[1] / len(job.source)
    return torch.full((1,), target * job.source.numel() * frames, device=device)

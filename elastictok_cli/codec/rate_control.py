"""The fewest tokens whose decoded, rounded frames meet the target.

Cheap first, exact last: the encoder's error curves say what to try, a few true decodes correct them, and the
tokens of the best passing probe are what is kept. A probe that passed is never given up for one that failed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F

from elastictok_cli.codec.error_model import Forecast
from elastictok_cli.models.interface import Encoding, NestedTokenizer
from elastictok_cli.models.precision import to_bytes


@dataclass(frozen=True)
class Effort:
    """How much work goes into a block."""

    probes: int  # true decodes it usually gets at most
    close: float  # share of the target from which on a pass is not improved further
    costly: float  # expected tokens per cell above which shorter blocks are considered


EFFORTS = (
    Effort(2, 0.9, math.inf),
    Effort(2, 0.95, math.inf),
    Effort(3, 0.97, 8),
    Effort(3, 0.98, 4),
    Effort(4, 0.985, 2),
    Effort(4, 0.985, 1),
    Effort(5, 0.99, 1),
    Effort(6, 0.993, 0.5),
    Effort(8, 0.996, 0.5),
    Effort(12, 0.998, 0.5),
)
DEFAULT_EFFORT = 5
_FAR = 0.85  # share of the target below which a pass is worth a probe more
_LEAP = 1.5  # times the tokens promised: a first probe with more tries those instead
# Where probes aim, as shares of the target: they land around it, and one that misses by a hair is a probe lost.
# The first sees curves alone, the second what each cell made of them, the third does so from close by.
_AIMS = (0.99, 0.994, 0.996)


@dataclass(frozen=True)
class Coded:
    """One block, decided."""

    tokens: torch.Tensor  # (1, G, h, w) int64
    keep: torch.Tensor  # (1, h, w) int64
    pixels: torch.Tensor  # (n, H, W, 3) uint8, what a decoder will output
    frame_mse: tuple[float, ...]  # of each real frame, [-1, 1] scale
    mse: float  # of the block
    missed: bool
    context: Any
    bias: float = 1.0  # measured error over what the curves promised


@dataclass(frozen=True)
class Job:
    """What is to be coded: padded frames for the model, real pixels for the promise."""

    frames: torch.Tensor  # (1, T, 3, H, W) float32, padded to whole cells and whole blocks
    source: torch.Tensor  # (n, height, width, 3) uint8, n <= T real frames


def to_pixels(frames: torch.Tensor, height: int, width: int, count: int) -> torch.Tensor:
    """Model output (1, T, 3, H, W) in [-1, 1] to what is shown: (count, height, width, 3) uint8."""
    shown = frames[0, :count, :, :height, :width].permute(0, 2, 3, 1)
    return to_bytes(shown)


def frame_errors(source: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    """MSE of each frame on the [-1, 1] scale, (n,) float64, from uint8 pictures (n, H, W, 3)."""
    difference = source.to(torch.int32) - pixels.to(torch.int32)
    total = difference.square_().flatten(1).sum(1, dtype=torch.int64)
    return total.double() / (source[0].numel() * 127.5**2)


@dataclass(frozen=True)
class Draft:
    """One block before any decode: what its error curves promise."""

    job: Job
    context: Any
    encoding: Encoding
    forecast: Forecast
    keep: torch.Tensor  # (1, h, w) with which the curves meet the target
    tokens: int  # of it in all
    reaches: bool  # whether they do
    price: float  # squared error that the last token saves
    weight: torch.Tensor | None = None  # (1, h, w) how much each cell's error matters

    @property
    def per_frame(self) -> float:
        """Tokens per real frame."""
        return self.tokens / len(self.job.source)


def draft(
    tokenizer: NestedTokenizer,
    job: Job,
    context: Any,
    target: float,
    *,
    price: float | None = None,
    weight: torch.Tensor | None = None,
) -> Draft:
    """Encode one block for `target` (MSE) and see what its curves promise.

    `price`: what is expected of its own. `weight`: (1, h, w) how much each cell's error matters; 1 if not given.
    """
    encoding = tokenizer.encode(job.frames, context, count=len(job.source), target=target, price=price)
    forecast = _forecast(tokenizer, job, encoding, weight)
    allowed = _allowed(job, target, encoding.curve.device)
    keep, found = forecast.allocate(allowed)
    reaches = forecast.reaches(keep, allowed)
    return Draft(job, context, encoding, forecast, keep, int(keep.sum()), reaches, found, weight)


def _forecast(
    tokenizer: NestedTokenizer, job: Job, encoding: Encoding, weight: torch.Tensor | None
) -> Forecast:
    share = _real_share(job, tokenizer.spec.cell).to(encoding.curve.device)
    return Forecast(encoding, share, weight)


def meet_target(
    tokenizer: NestedTokenizer,
    drafted: Draft,
    target: float,
    *,
    mode: str = "cell",
    effort: Effort = EFFORTS[DEFAULT_EFFORT],
    bias: float = 1.0,
) -> Coded:
    """Code one block with as few tokens as meet `target` (MSE). `mode`: cell, or block (one length for all).

    `bias` is that of a block like this one: what the first probe expects.
    """
    job, context = drafted.job, drafted.context
    if mode == "cell":
        coded = _per_cell(
            tokenizer, job, drafted.encoding, drafted.forecast, context, target, effort, bias, drafted.keep
        )
        if not coded.missed:
            return coded
    # every cell has to be able to help
    encoding = tokenizer.encode(job.frames, context, count=len(job.source), target=target, complete=True)
    if mode == "block":
        return _one_length(tokenizer, job, encoding, context, target)
    everything = _probe(tokenizer, job, encoding, encoding.length, context, target)
    if everything.missed:  # out of reach: no search is worth its time
        return everything
    forecast = _forecast(tokenizer, job, encoding, drafted.weight)
    return _per_cell(tokenizer, job, encoding, forecast, context, target, effort, bias)


def fixed_length(tokenizer: NestedTokenizer, job: Job, context: Any, tokens: int) -> Coded:
    """Code one block with `tokens` tokens in every cell (all it has, where it has fewer)."""
    encoding = tokenizer.encode(job.frames, context, count=len(job.source), complete=True)
    return _probe(tokenizer, job, encoding, encoding.length.clamp_max(tokens), context, None)


def _per_cell(
    tokenizer: NestedTokenizer,
    job: Job,
    encoding: Encoding,
    forecast: Forecast,
    context: Any,
    target: float,
    effort: Effort,
    bias: float,
    promised: torch.Tensor | None = None,
) -> Coded:
    device = encoding.curve.device
    allowed = _allowed(job, target, device)
    forecast.expect(bias)
    slack = 1.0
    best: Coded | None = None
    tried: set[bytes] = set()
    for attempt in range(effort.probes + 6):
        aim = _AIMS[min(attempt, len(_AIMS) - 1)]
        keep, _ = forecast.allocate(allowed * aim * slack)
        if attempt == 0 and promised is not None and int(keep.sum()) > _LEAP * int(promised.sum()):
            keep = promised  # where cells are alike, a hair's breadth decides for all of them at once
        fingerprint = keep.cpu().numpy().tobytes()
        if fingerprint in tried:
            if best is not None:
                break
            slack *= 0.9
            continue
        tried.add(fingerprint)
        coded = _probe(tokenizer, job, encoding, keep, context, target)
        measured = _cell_errors(job, coded.pixels, tokenizer.spec.cell).to(device)
        coded = replace(coded, bias=forecast.learn(keep, measured))
        settled = False
        if not coded.missed:
            settled = best is not None and int(keep.sum()) > 0.98 * int(best.keep.sum())
            if best is None or int(keep.sum()) < int(best.keep.sum()):
                best = coded
        if best is not None:
            enough = effort.probes if best.mse >= _FAR * target else effort.probes + 1
            done = settled or attempt + 1 >= enough or int(best.keep.sum()) == 0
            if done or best.mse >= effort.close * target:
                break
        if coded.missed and attempt >= 1:
            by_a_hair = 0.995 if coded.mse < 1.01 * target else 0.985
            slack *= by_a_hair if attempt < effort.probes else 0.9
    if best is not None:
        return best
    return _probe(tokenizer, job, encoding, encoding.length, context, target)


def _one_length(
    tokenizer: NestedTokenizer, job: Job, encoding: Encoding, context: Any, target: float
) -> Coded:
    """The smallest passing length by bisection (the paper, section 3.3); keeps the best passing probe."""
    longest = int(encoding.length.max())
    low, high = 0, longest
    best: Coded | None = None
    while low <= high:
        middle = (low + high) // 2
        coded = _probe(tokenizer, job, encoding, encoding.length.clamp_max(middle), context, target)
        if coded.missed:
            low = middle + 1
        else:
            best, high = coded, middle - 1
    return best or _probe(tokenizer, job, encoding, encoding.length, context, target)


def _probe(
    tokenizer: NestedTokenizer,
    job: Job,
    encoding: Encoding,
    keep: torch.Tensor,
    context: Any,
    target: float | None,
) -> Coded:
    count, height, width, _ = job.source.shape
    decoded, left = tokenizer.decode(encoding.tokens, keep, context, count=count, reuse=encoding.reuse)
    pixels = to_pixels(decoded, height, width, count)
    errors = frame_errors(job.source, pixels)
    mse = float(errors.mean())
    missed = target is not None and mse > target
    return Coded(encoding.tokens, keep, pixels, tuple(errors.tolist()), mse, missed, left)


def _allowed(job: Job, target: float, device: torch.device) -> torch.Tensor:
    """The squared error a block may keep, (1,), scaled up to a whole block where frames are padding."""
    frames = job.frames.shape[1] / len(job.source)
    return torch.full((1,), target * job.source.numel() * frames, device=device)


def _cell_errors(job: Job, pixels: torch.Tensor, cell: tuple[int, int]) -> torch.Tensor:
    """Measured squared error of each cell, (1, h, w), scaled up to whole blocks where frames are padding."""
    count = len(job.source)
    difference = (job.source.float() - pixels.float()).square().sum((0, 3)) / 127.5**2  # (H, W)
    return _sum_cells(difference, cell) * (job.frames.shape[1] / count)


def _real_share(job: Job, cell: tuple[int, int]) -> torch.Tensor:
    """Share of each cell's area inside the picture, (1, h, w)."""
    _, height, width, _ = job.source.shape
    return _sum_cells(job.source.new_ones(height, width, dtype=torch.float32), cell) / (cell[0] * cell[1])


def _sum_cells(plane: torch.Tensor, cell: tuple[int, int]) -> torch.Tensor:
    height, width = plane.shape
    padded = F.pad(plane[None], (0, -width % cell[1], 0, -height % cell[0]))
    return F.avg_pool2d(padded, cell) * (cell[0] * cell[1])

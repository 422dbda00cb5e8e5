"""Training the predictor of lengths: error curves of real blocks, then a regression."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from elastictok_cli.codec.pixels import frame_errors, make_job, to_pixels
from elastictok_cli.models.interface import LengthTokenizer
from elastictok_cli.models.paper.length_predictor import Predictor, PredictorConfig, features
from elastictok_cli.training import data

_LENGTHS = 12  # of an error curve
_HELD_OUT = 0.15  # of the clips
_STEPS = 800
_RATE = 5e-3


@dataclass(frozen=True)
class PredictorOptions:
    """What to learn from."""

    data: tuple[Path, ...]
    targets: tuple[float, ...] = (0.015, 0.007, 0.003, 0.001)  # MSE
    clips: int = 200
    blocks: int = 4  # of a clip
    seed: int = 0


@dataclass(frozen=True)
class Example:
    """One block at one target."""

    clip: int
    statistics: torch.Tensor  # (FEATURES,)
    length: int


@dataclass(frozen=True)
class Collected:
    """Progress: one more clip has been tried at all lengths."""

    clips: int
    examples: list[Example]


@dataclass(frozen=True)
class Fitted:
    """The result. The factors are how far a typical (median) guess is off on clips that were held out."""

    predictor: Predictor
    examples: int
    held_out: int
    factor: float
    constant_factor: float  # of guessing the same length always


def train(
    tokenizer: LengthTokenizer, options: PredictorOptions, device: torch.device
) -> Iterator[Collected | Fitted]:
    """Collect error curves clip by clip, then fit; the last event is `Fitted`.

    Raises ValueError where there are no clips, or too few to hold some out.
    """
    examples: list[Example] = []
    count = 0
    frames = options.blocks * tokenizer.spec.frames
    paths = data.find_media(list(options.data))
    side = max(tokenizer.spec.cell)
    clips = data.load_clips(
        paths, most_frames=frames, short_side=side, seed=options.seed, limit_bytes=1 << 62
    )
    for clip in clips:
        new = list(_examples(tokenizer, clip.frames, count, options, device))
        examples += new
        count += 1
        yield Collected(count, new)
        if count == options.clips:
            break
    if count < 2:
        raise ValueError("at least two videos or photos are needed")
    yield fit(tokenizer, examples, seed=options.seed)


def _examples(
    tokenizer: LengthTokenizer,
    pictures: np.ndarray,
    clip: int,
    options: PredictorOptions,
    device: torch.device,
) -> Iterator[Example]:
    """Consecutive blocks of one cell of a clip, (T, H, W, 3) uint8."""
    spec = tokenizer.spec
    rng = random.Random(f"{options.seed}-{clip}")
    top, left = (
        rng.randrange(max(1, size - side + 1))
        for size, side in zip(pictures.shape[1:3], spec.cell, strict=True)
    )
    cropped = pictures[:, top : top + spec.cell[0], left : left + spec.cell[1]]
    lengths = np.unique(
        np.geomspace(max(spec.shortest, 1), spec.tokens_per_cell, _LENGTHS).round().astype(int)
    )
    context = tokenizer.start(*cropped.shape[1:3])
    lasts: dict[float, int | None] = dict.fromkeys(options.targets)
    for first in range(0, len(cropped), spec.frames):
        job = make_job(cropped[first : first + spec.frames], tokenizer, device)
        goal = rng.choice(options.targets)  # what the next block sees of this one
        errors, kept = [], None
        for length in lengths.tolist():
            (trial,) = tokenizer.trials(job.frames, context, [(0, length)])
            count, height, width, _ = job.source.shape
            shown = to_pixels(trial.frames[None], height, width, count)
            errors.append(float(frame_errors(job.source, shown).mean()))
            if kept is None and (errors[-1] <= goal or length == lengths[-1]):
                kept = trial
        for target in options.targets:
            needed = crossing(lengths.tolist(), errors, target)
            yield Example(
                clip, features(job.source.cpu(), target, lasts[target], spec.tokens_per_cell), needed
            )
            lasts[target] = needed
        context = tokenizer.commit(context, [kept] if kept is not None else [])


def crossing(lengths: Sequence[int], errors: Sequence[float], target: float) -> int:
    """The length where errors first meet the target, by a line in logarithms between those tried; else the longest."""
    for n, error in enumerate(errors):
        if error <= target:
            if n == 0:
                return lengths[0]
            above, below = math.log(errors[n - 1] / target), math.log(max(error, 1e-12) / target)
            start, end = math.log(lengths[n - 1]), math.log(lengths[n])
            return math.ceil(math.exp(start + (end - start) * above / (above - below)) - 1e-9)
    return lengths[-1]


def fit(tokenizer: LengthTokenizer, examples: list[Example], *, seed: int = 0) -> Fitted:
    """Fit the network to the logarithm of lengths; every seventh clip is held out to measure on."""
    spec = tokenizer.spec
    every = max(2, round(1 / _HELD_OUT))
    x = torch.stack([e.statistics for e in examples])
    y = torch.tensor([math.log(max(e.length, 1) / spec.tokens_per_cell) for e in examples])
    held = torch.tensor(
        [e.clip % every == every - 1 or (e.clip == 1 and examples[-1].clip < every) for e in examples]
    )
    torch.manual_seed(seed)
    predictor = Predictor(PredictorConfig(spec.name, spec.shortest, spec.tokens_per_cell))
    predictor.mean.copy_(x[~held].mean(0))
    predictor.scale.copy_(x[~held].std(0, unbiased=False).clamp_min(1e-3))
    optimizer = torch.optim.AdamW(predictor.parameters(), lr=_RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _STEPS)
    for _ in range(_STEPS):
        optimizer.zero_grad()
        F.smooth_l1_loss(predictor(x[~held]), y[~held], beta=0.1).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    predictor.requires_grad_(False)
    off = (predictor(x[held]).clamp_max(0) - y[held]).abs()
    constant = (y[~held].median() - y[held]).abs()
    return Fitted(
        predictor,
        examples=len(examples),
        held_out=int(held.sum()),
        factor=math.exp(float(off.median())),
        constant_factor=math.exp(float(constant.median())),
    )

"""Length search: the fewest tokens that meet the target, for models whose encoder sees the length (the paper's).

Every length is an encode and a decode of its own: from the first layer on, all tokens of a block see which of them are
kept (section 3.3). Two things are computed once: the caches of earlier blocks, and the cache that the chosen length
leaves behind, which is that of its probe. The search begins at the length that the block before needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from elastictok_cli.codec import bracketing
from elastictok_cli.codec.pixels import Job, frame_errors, to_pixels
from elastictok_cli.codec.probing import Coded
from elastictok_cli.models.interface import LengthTokenizer, Trial

Method = Literal["binary", "linear", "predict"]
# a cell's real pixels (n, h, w, 3) uint8, target, length of the block before if known: the length to begin with
Guess = Callable[[torch.Tensor, float, int | None], int]


@dataclass
class _SharedLength:
    """Cells that share a length, and how far the search for it has come."""

    cells: list[int]
    strategy: bracketing.Strategy
    asked: list[int] = field(default_factory=list)
    best: int | None = None  # shortest length that passed
    trials: list[Trial] = field(
        default_factory=list
    )  # of that length, or of the longest tried while none has passed
    longest: int = -1  # tried while none has passed

    def advance(self, results: list[float] | None) -> bool:
        """Send the errors of the lengths asked for, and ask which to try next. False when the strategy has ended."""
        try:
            self.asked = next(self.strategy) if results is None else self.strategy.send(results)
        except StopIteration:
            self.asked = []
        return bool(self.asked)


class LengthSearch:
    """Codes the blocks of one segment, one after another. It remembers what lengths the last block needed."""

    def __init__(
        self,
        tokenizer: LengthTokenizer,
        *,
        method: Method = "binary",
        allocation: Literal["cell", "block"] = "cell",
        guess: Guess | None = None,
    ) -> None:
        """`allocation`: a length for each cell, or one for all. `guess`: needed by the method "predict"."""
        if method == "predict" and guess is None:
            raise ValueError("the method predict needs a guess")
        self.tokenizer, self.method, self.allocation, self.guess = tokenizer, method, allocation, guess
        self.probes = 0  # trials of single cells so far
        self._lengths: list[int] | None = None  # of the last block's groups

    def code(
        self, job: Job, context: Any, *, target: float | None = None, tokens: int | None = None
    ) -> Coded:
        """Code a block with as few tokens as meet `target` (MSE), or with `tokens` in every cell."""
        cells = len(self._places(job))
        groups = [[n] for n in range(cells)] if self.allocation == "cell" else [list(range(cells))]
        remembered = self._lengths if self._lengths and len(self._lengths) == len(groups) else None
        running = []
        for number, members in enumerate(groups):
            last = remembered[number] if remembered else None
            running.append(_SharedLength(members, self._strategy(job, members, target, tokens, last)))
        self._run(running, job, context, target)
        lengths = [group.longest if group.best is None else group.best for group in running]
        if target is not None:
            self._lengths = lengths
        chosen: list[tuple[int, Trial, int]] = []
        for group, length in zip(running, lengths, strict=True):
            chosen += [(cell, trial, length) for cell, trial in zip(group.cells, group.trials, strict=True)]
        chosen.sort(key=lambda item: item[0])
        return self._coded(job, context, [c[1] for c in chosen], [c[2] for c in chosen], target)

    def _strategy(
        self, job: Job, cells: list[int], target: float | None, tokens: int | None, last: int | None
    ) -> bracketing.Strategy:
        low, high = self.tokenizer.spec.shortest, self.tokenizer.spec.tokens_per_cell
        if target is None:
            assert tokens is not None
            return bracketing.fixed(min(tokens, high))
        batch = max(1, self.tokenizer.batch // len(self._places(job)))
        if self.method == "linear":
            return bracketing.linear(low, high, target, batch=batch)
        if self.method == "predict":
            assert self.guess is not None
            places = self._places(job)
            guess = max(self.guess(job.source[:, *places[cell]], target, last) for cell in cells)
            return bracketing.predicted(low, high, target, guess=min(max(guess, low), high), batch=batch)
        return bracketing.binary(low, high, target, guess=last, batch=batch)

    def _run(self, groups: list[_SharedLength], job: Job, context: Any, target: float | None) -> None:
        """Run all strategies in step, so that their trials share batches."""
        live = [group for group in groups if group.advance(None)]
        while live:
            results = self._round(live, job, context, target)
            live = [group for group, found in zip(live, results, strict=True) if group.advance(found)]
        # where nothing passed, all tokens are kept
        full = self.tokenizer.spec.tokens_per_cell
        failed = [g for g in groups if g.best is None and g.longest < full and target is not None]
        for group in failed:
            group.asked = [full]
        if failed:
            self._round(failed, job, context, target)

    def _round(
        self, groups: list[_SharedLength], job: Job, context: Any, target: float | None
    ) -> list[list[float]]:
        """Try the lengths that the strategies ask for; their errors in the same order."""
        wanted = [(cell, length) for g in groups for length in g.asked for cell in g.cells]
        trials = self.tokenizer.trials(job.frames, context, wanted)
        places = self._places(job)
        self.probes += len(wanted)
        results = []
        for group in groups:
            found = []
            for length in group.asked:
                tried = [next(trials) for _ in group.cells]
                sums = [_squared(job, places[n], t) for n, t in zip(group.cells, tried, strict=True)]
                error = sum(total for total, _ in sums) / sum(count for _, count in sums)
                _remember(group, length, tried, passed=target is None or error <= target)
                found.append(error)
            results.append(found)
        return results

    def _places(self, job: Job) -> list[tuple[slice, slice]]:
        """The real pixels of each cell."""
        (height, width), (tall, wide) = job.source.shape[1:3], self.tokenizer.spec.cell
        return [
            (slice(top, min(height, top + tall)), slice(left, min(width, left + wide)))
            for top in range(0, height, tall)
            for left in range(0, width, wide)
        ]

    def _coded(
        self, job: Job, context: Any, trials: Sequence[Trial], lengths: list[int], target: float | None
    ) -> Coded:
        grid = self.tokenizer.spec.grid(*job.source.shape[1:3])
        pixels = torch.empty_like(job.source)
        for place, trial in zip(self._places(job), trials, strict=True):
            pixels[:, *place] = _pixels(job, place, trial)
        errors = frame_errors(job.source, pixels)
        mse = float(errors.mean())
        tokens = torch.stack([trial.tokens for trial in trials], 1)  # (G, h * w) or (G, h * w, D)
        return Coded(
            tokens=tokens.unflatten(1, grid)[None],  # type: ignore[no-untyped-call]
            keep=torch.tensor(lengths, device=tokens.device).view(1, *grid),
            frame_mse=tuple(errors.tolist()),
            mse=mse,
            missed=target is not None and mse > target,
            context=self.tokenizer.commit(context, trials),
        )


def _remember(group: _SharedLength, length: int, trials: list[Trial], *, passed: bool) -> None:
    """Keep the shortest trial that passed; before any has, the longest."""
    if passed and (group.best is None or length < group.best):
        group.best, group.trials = length, trials
    elif group.best is None and length > group.longest:
        group.longest, group.trials = length, trials


def _pixels(job: Job, place: tuple[slice, slice], trial: Trial) -> torch.Tensor:
    """What a decoder will show of a cell, (n, height, width, 3) uint8."""
    height, width = (part.stop - part.start for part in place)
    return to_pixels(trial.frames[None], height, width, len(job.source))


def _squared(job: Job, place: tuple[slice, slice], trial: Trial) -> tuple[float, int]:
    """Sum of squared errors of a cell's real pixels on the [-1, 1] scale, and their number."""
    source = job.source[:, *place]
    errors = frame_errors(source, _pixels(job, place, trial))
    return float(errors.sum()) * source[0].numel(), source.numel()

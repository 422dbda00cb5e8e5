"""Training the paper's model, on one device or many; the recipe itself is in `recipe.py`.

Everything random (clip, crop, lengths, noise) follows from the seed, the step and the clip's place in the batch. So
a run goes on exactly where it stopped, and N processes do what one would do with the same batch.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from elastictok_cli.evaluation.tokens import summary_at
from elastictok_cli.files import writing
from elastictok_cli.models import checkpoint
from elastictok_cli.models.paper.config import PaperConfig
from elastictok_cli.models.paper.patches import patchify
from elastictok_cli.models.paper.tiles import PaperTokenizer
from elastictok_cli.models.paper.transformer import PaperModel
from elastictok_cli.training.budget import Budget
from elastictok_cli.training.events import Event, Loading, Saved, Stop, Tick, TrainingError, Validated
from elastictok_cli.training.paper import distributed, lpips, recipe
from elastictok_cli.training.paper.distributed import Parallel, World
from elastictok_cli.training.paper.shards import Batch, Shards
from elastictok_cli.training.state import log_validation, state_path


@dataclass(frozen=True)
class PaperOptions:
    """One run. Times in seconds."""

    data: tuple[Path, ...]
    out: Path
    graphics: tuple[Path, ...] = ()  # folders that a share of the samples comes from
    graphics_share: float = 0.2  # 0 to 1
    config: PaperConfig | None = None  # of a new model; with `init`, only to be checked
    time: float | None = None
    steps: int | None = None
    batch: int = 8  # clips of a step, over all processes
    micro_batch: int | None = None  # clips that a process works on at once; None: its whole share
    blocks: int | None = None  # of the longest clips, and the window of the model; None: the config's window
    recipe: recipe.Recipe = field(default_factory=recipe.Recipe)
    lpips: Path | None = None
    parallel: Parallel = "ddp"
    shards: int | None = (
        None  # parts of the data, each seen by its own part of the batch; None: one a process
    )
    recompute: bool = False  # activation checkpointing
    compile: bool = False
    cache_bytes: int = 6 << 30  # of each process
    clip_frames: int = 60
    seed: int = 0
    save_every: float = 300.0
    validation: tuple[Path, ...] = ()
    validate_every: float = 1200.0
    init: Path | None = None


def train(options: PaperOptions, device: torch.device, stop: Stop = lambda: False) -> Iterator[Event]:
    """Run until the time or step budget is spent, yielding events. Resumes from `out`'s state file if there is one.

    In many processes, each must run this; only the first writes files. `stop` is asked between steps, and heard by
    all; the run is then saved and ends, to be resumed later. Raises TrainingError, in every process.
    """
    torch.set_flush_denormal(True)
    try:
        with distributed.started(device) as world:
            yield from _train(options, world, stop)
    finally:
        torch.set_flush_denormal(False)


def _train(options: PaperOptions, world: World, stop: Stop) -> Iterator[Event]:
    if options.batch % world.size:
        raise TrainingError(f"a batch of {options.batch} clips cannot be shared by {world.size} processes")
    state, problem = None, None
    config, start = _config(options)
    try:
        state = _read_state(state_path(options.out), config) if world.leads else None
    except TrainingError as error:
        problem = str(error)
    _raise_everywhere(world, problem)
    shards = world.broadcast(state["shards"] if state else options.shards or world.size)

    share = options.batch // world.size
    own = range(world.rank * share, (world.rank + 1) * share)
    graphics_share = options.graphics_share if options.graphics else 0.0
    parts = Shards(config, options.batch, own, shards, options.seed, graphics_share=graphics_share)
    try:
        most_frames = max(options.clip_frames, config.window * config.frames)
        for clips, held in parts.load(options.data, most_frames, options.cache_bytes, options.graphics):
            if stop():
                break
            if clips % 50 == 0:
                yield Loading(clips, held / 2**30)
    except ValueError as error:
        problem = str(error)
    if world.any(stop()):
        return
    _raise_everywhere(world, problem)
    run = _Run(options, config, world, parts, start, state)
    del start, state
    yield from run.steps(stop)


def _raise_everywhere(world: World, problem: str | None) -> None:
    """Raise TrainingError everywhere if there is a problem anywhere: nobody must wait for one who has gone."""
    for found in world.gather(problem):
        if found is not None:
            raise TrainingError(found)


def _config(o: PaperOptions) -> tuple[PaperConfig, dict[str, torch.Tensor] | None]:
    """Of the model to train, and the weights to start from. Its window is the longest clip it gets to see."""
    config, start = o.config, None
    if o.init is not None:
        tokenizer = checkpoint.load(o.init).tokenizer
        if not isinstance(tokenizer, PaperTokenizer):
            raise TrainingError(f"{o.init} holds another kind of model")
        found = tokenizer.model.config
        if config is not None and replace(config, name=found.name, window=found.window) != found:
            raise TrainingError(f"{o.init} has another config than {config.name}")
        config, start = found, tokenizer.model.state_dict()
    if config is None:
        raise TrainingError("a new model needs a config")
    if o.lpips is not None and config.size < lpips.SMALLEST:
        raise TrainingError(f"tiles of {config.size} pixels are too small for LPIPS")
    return replace(config, window=o.blocks or config.window), start


def _read_state(path: Path, config: PaperConfig) -> dict[str, Any] | None:
    """The state of an earlier run, if there is one. Raises TrainingError if it is of another model."""
    if not path.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError):
        raise TrainingError(f"{path} cannot be read; remove it to begin anew") from None
    try:
        found = replace(PaperConfig.from_dict(state["config"]), window=config.window)
    except (KeyError, TypeError, ValueError):
        raise TrainingError(f"{path} belongs to another kind of model; name another --out") from None
    if found != config:
        raise TrainingError(f"{path} belongs to a model of another shape; name another --out")
    return state


class _Run:
    """Everything that changes from step to step, and how it is saved and restored."""

    def __init__(
        self,
        options: PaperOptions,
        config: PaperConfig,
        world: World,
        data: Shards,
        start: dict[str, torch.Tensor] | None,
        state: dict[str, Any] | None,  # in the first process
    ) -> None:
        self.options, self.config, self.world, self.data = options, config, world, data
        try:
            self.lpips = lpips.load(options.lpips, world.device) if options.lpips else None
        except lpips.LPIPSError as error:
            raise TrainingError(str(error)) from None
        torch.manual_seed(options.seed)
        self.model = PaperModel(config)
        if start is not None:
            self.model.load_state_dict(start)
        self.model.to(world.device)
        layers = []
        for transformer in (self.model.encoder.blocks, self.model.decoder.blocks):
            transformer.recompute = options.recompute
            layers += list(transformer.layers)
        if options.compile:
            for layer in layers:
                layer.compile()
        self.called = distributed.parallelize(self.model, layers, world, options.parallel)
        self.optimizer = options.recipe.optimizer(self.model)
        self.budget = Budget(options.time, options.steps)
        self.step, self.elapsed, self.longest = 0, 0.0, 1
        self.saved: int | None = None  # the step of the last save
        self._restore(state)

    def steps(self, stop: Stop) -> Iterator[Event]:
        o = self.options
        saved_at = validated_at = self.elapsed
        if self.step == 0:
            yield self._save()
        stopped = self.world.any(stop())
        with ThreadPoolExecutor(1) as helper:
            ahead: tuple[tuple[int, int], Future[Batch]] | None = None
            while self.progress() < 1 and not stopped:
                began = time.monotonic()
                blocks = recipe.blocks_at(self.progress(), self.config.window)
                self.longest = max(self.longest, blocks)
                here = (self.step, blocks)
                batch = ahead[1].result() if ahead and ahead[0] == here else self.data.batch(*here)
                after = (self.step + 1, blocks)
                ahead = after, helper.submit(self.data.batch, *after)
                tick = self._one_step(batch)
                self.step += 1
                spent = time.monotonic() - began
                asked, self.elapsed = self.world.maximum([float(stop()), self.elapsed + spent])
                stopped = asked > 0
                yield Tick(
                    self.step,
                    *tick,
                    o.batch / spent,
                    self.progress(),
                    self.budget.seconds_left(self.elapsed, self.step),
                )
                if self.elapsed - saved_at > o.save_every:
                    saved_at = self.elapsed
                    yield self._save()
                if o.validation and self.elapsed - validated_at > o.validate_every:
                    validated_at = self.elapsed
                    yield from self._validate()
        if self.saved != self.step:
            yield self._save()
        if o.validation and not stopped:
            yield from self._validate()

    def progress(self) -> float:
        """Share of the budget spent, 0 .. 1."""
        return self.budget.spent(self.elapsed, self.step)

    def _one_step(self, batch: Batch) -> tuple[float, dict[str, float], float]:
        """Loss, errors and kept tokens, over all processes."""
        o, c, device = self.options, self.config, self.world.device
        for group in self.optimizer.param_groups:
            group["lr"] = o.recipe.rate(self.step)
        size = len(batch.frames)
        at_once = min(o.micro_batch or size, size)
        sums: dict[str, float] = {}
        for first in range(0, size, at_once):
            part = slice(first, first + at_once)
            frames = batch.frames[part]
            patches = patchify(batch.pictures[part].to(device), c)  # (B, L, P)
            keep = torch.stack([recipe.keep_mask(c, n) for n in batch.lengths[part]]).to(device)  # (B, L)
            noise = batch.noise[part].to(device) if batch.noise is not None else None
            with distributed.sync_only_last(self.called, first + at_once >= size):
                with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                    output = self.called(patches, keep, noise=noise)
                terms = recipe.judge(o.recipe, c, patches, output, self.lpips, frames)
                share = len(frames) / size
                (terms.loss * share).backward()  # type: ignore[no-untyped-call]
            figures = {
                "loss": terms.loss.detach(),
                "key": terms.first,
                "inter": terms.later,
                "lpips": terms.lpips,
            }
            for name, value in figures.items():
                if value is not None:
                    sums[name] = sums.get(name, 0.0) + float(value) * share
        if distributed.clip(self.model, o.recipe.clip) < float("inf"):  # and not NaN
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        sums["tokens"] = float(batch.lengths.float().mean())
        means = dict(zip(sums, self.world.mean(list(sums.values())), strict=True))
        return means.pop("loss"), {n: v for n, v in means.items() if n != "tokens"}, means["tokens"]

    def _save(self) -> Saved:
        o = self.options
        model = distributed.model_state(self.model)
        optimizer = distributed.optimizer_state(self.model, self.optimizer) if self.step else None
        if self.world.leads:
            facts = {
                "steps": self.step,
                "seconds": round(self.elapsed),
                "device": self.world.device.type,
                "processes": self.world.size,
                "batch": o.batch,
                "blocks": self.longest,
                "lpips": o.recipe.lpips if self.lpips is not None else 0,
            }
            if self.data.graphics_share:
                facts["graphics_share"] = self.data.graphics_share
            with torch.device("meta"):  # its window: the longest it has seen so far
                plain = PaperModel(replace(self.config, window=self.longest))
            plain.load_state_dict(model, assign=True)
            checkpoint.save(plain, o.out, facts)
            state = {
                "step": self.step,
                "elapsed": self.elapsed,
                "longest": self.longest,
                "shards": self.data.shards,
                "config": self.config.to_dict(),
                "model": model,
                "optimizer": optimizer,
            }
            with writing(state_path(o.out)) as stream:
                torch.save(state, stream)
        self.world.wait()
        self.saved = self.step
        return Saved(o.out, self.step)

    def _restore(self, state: dict[str, Any] | None) -> None:
        kept = ("step", "elapsed", "longest")
        facts = self.world.broadcast(
            [*(state[k] for k in kept), state["optimizer"] is not None] if state else None
        )
        if facts is None:
            return
        self.step, self.elapsed, self.longest, stepped = facts
        state = state or {"model": {}, "optimizer": {}}
        distributed.restore(
            self.model, self.optimizer, self.world, state["model"], state["optimizer"] if stepped else None
        )

    def _validate(self) -> Iterator[Validated]:
        """Figures of the file, as users will load it; the first process measures, the others wait."""
        if self.saved != self.step:
            self._save()
        figures: dict[str, Any] | None = None
        if self.world.leads:
            loaded = checkpoint.load(self.options.out, self.world.device)
            figures = {
                "step": self.step,
                "seconds": round(self.elapsed),
                **summary_at(loaded, list(self.options.validation), self.world.device),
            }
            log_validation(self.options.out, figures)
        yield Validated(self.world.broadcast(figures))

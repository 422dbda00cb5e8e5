"""The training loop: closed loop over several blocks, time budget, exact resume, events for whoever watches.

Loss: log of each block's MSE, so that every target counts alike; the codec's own allocation at a random
target per clip decides which tokens the decoder gets (`rollout.random_keep`).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from elastictok_cli.evaluation.tokens import summary_at
from elastictok_cli.files import writing
from elastictok_cli.models import checkpoint
from elastictok_cli.models.cell.config import DefaultConfig
from elastictok_cli.models.cell.networks import DefaultModel
from elastictok_cli.models.cell.tokenizer import DefaultTokenizer
from elastictok_cli.training import data, optim
from elastictok_cli.training.budget import Budget
from elastictok_cli.training.cell import klt
from elastictok_cli.training.cell.rollout import Step, random_keep, rollout
from elastictok_cli.training.events import (
    Event,
    Fitting,
    Loading,
    Saved,
    Stop,
    Tick,
    TrainingError,
    Validated,
)
from elastictok_cli.training.state import log_validation, split, state_path

_TARGET_MSE_RANGE = (0.001, 0.02)  # of a clip, drawn log-uniformly
_LINEAR_WEIGHT = 0.3  # of the error before the synthesis network in the loss
_MAX_LOSS_RISE = 1.0  # of its running mean above the lowest; a run that exceeds it is given up
_STEPS_BEFORE_JUDGED = 100  # for divergence
_COMPILED_VERSIONS = 16  # of one function, for its kinds of arguments
_MSE_FLOOR = 5e-4  # added to the MSE inside the logarithm, so that errors below it hardly count


@dataclass(frozen=True)
class TrainOptions:
    """One run. Times in seconds."""

    data: tuple[Path, ...]
    out: Path
    graphics: tuple[Path, ...] = ()  # folders that a share of the samples comes from
    graphics_share: float = 0.2  # 0 to 1
    time: float | None = None
    steps: int | None = None
    batch: int = 8
    blocks: int = 3
    crop: int = 128
    lr: float = (
        3e-4  # AdamW's; Muon takes 20 times that. More makes unnormalized convolutions grow without end
    )
    warmup: int = 50  # steps
    cooldown: float = 1.0  # last share of the budget in which the rate falls to zero
    cache_bytes: int = 6 << 30
    clip_frames: int = 60
    short_side: int = 288
    seed: int = 0
    save_every: float = 300.0
    validation: tuple[Path, ...] = ()
    validate_every: float = 1200.0
    compile: bool = False
    init: Path | None = None  # start from this checkpoint instead of the KLT
    # of a new model. The defaults of DefaultConfig differ: they hold for old checkpoints that lack a setting
    config: DefaultConfig = field(
        default_factory=lambda: DefaultConfig(
            interpolation="bicubic",
            fill_in=True,
            camera_pan=True,
            camera_shake=True,
            copy_still=True,
        )
    )
    shard_bytes: int | None = None  # also write the state in pieces of this size


def train(options: TrainOptions, device: torch.device, stop: Stop = lambda: False) -> Iterator[Event]:
    """Run until the time or step budget is spent, yielding events. Resumes from `out`'s state file if there is one.

    `stop` is asked between steps; once true, the run is saved and ends, to be resumed later.
    Raises TrainingError when there is nothing to train on, or when the state belongs to another run.
    """
    torch.set_flush_denormal(True)  # zero-initialised branches make denormals, which are slow on CPUs
    try:
        yield from _train(options, device, stop)
    finally:
        torch.set_flush_denormal(False)  # it is a setting of the whole thread, others may count on denormals


def _train(options: TrainOptions, device: torch.device, stop: Stop) -> Iterator[Event]:
    o = options
    clips: list[data.Clip] = []
    graphics: list[data.Clip] = []
    held = 0
    # graphics first: what they leave of the memory is for the data
    if o.graphics and o.graphics_share:
        parts = [(graphics, o.graphics, None, o.graphics_share), (clips, o.data, o.short_side, 1.0)]
    else:
        parts = [(clips, o.data, o.short_side, 1.0)]
    for loaded, folders, short_side, share in parts:
        paths = data.find_media(list(folders))
        if not paths:
            raise TrainingError(f"no videos or photos in {', '.join(map(str, folders))}")
        limit = round(o.cache_bytes * share) - held
        for clip in data.load_clips(
            paths, most_frames=o.clip_frames, short_side=short_side, seed=o.seed, limit_bytes=limit
        ):
            if stop():
                return
            loaded.append(clip)
            held += clip.frames.nbytes
            if (len(clips) + len(graphics)) % 50 == 0:
                yield Loading(len(clips) + len(graphics), held / 2**30)
    if o.init is None and not state_path(o.out).is_file():
        yield Fitting(len(clips) + len(graphics))
    run = _Run(o, clips, graphics, device)
    yield from run.steps(stop)


def _loss(step: Step) -> torch.Tensor:
    """Log error of one block. A share for the error before the synthesis network keeps the tokens an honest codec of
    their own: allocation predicts from them, and pictures unlike the training data rest on them.
    """
    final = torch.log(step.mse.float() + _MSE_FLOOR).mean()
    return final + _LINEAR_WEIGHT * torch.log(step.linear_mse.float() + _MSE_FLOOR).mean()


def _compile(model: DefaultModel) -> None:
    """Compile what `rollout` calls of a model, in place. Names and values of its parameters stay as they are."""
    # blocks of one to four frames, with global motion or without: a version for each
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _COMPILED_VERSIONS)
    model.predict = torch.compile(model.predict, dynamic=False)  # type: ignore[method-assign]
    model.synthesize = torch.compile(model.synthesize, dynamic=False)  # type: ignore[method-assign]
    model.quantizer.compile(dynamic=False)
    model.prior.compile(dynamic=False)


class _Run:
    """Everything that changes from step to step, and how it is saved and restored."""

    def __init__(
        self,
        options: TrainOptions,
        clips: list[data.Clip],
        graphics: list[data.Clip],
        device: torch.device,
    ) -> None:
        self.options, self.device = options, device
        self.state_path = state_path(options.out)
        self.budget = Budget(options.time, options.steps)
        torch.manual_seed(options.seed)
        if options.init is not None:
            tokenizer = checkpoint.load(options.init).tokenizer
            if not isinstance(tokenizer, DefaultTokenizer):
                raise TrainingError(f"{options.init} holds another kind of model")
            self.model = tokenizer.model.requires_grad_(True).train()
        else:
            self.model = DefaultModel(options.config)
        try:
            self.sampler = data.Sampler(
                clips,
                crop=options.crop,
                frames=options.blocks * self.model.config.frames,
                seed=options.seed,
                graphics=graphics,
                graphics_share=options.graphics_share if options.graphics else 0.0,
            )
        except ValueError as error:
            raise TrainingError(str(error)) from None
        resumed = self.state_path.is_file()
        if not resumed and options.init is None:
            klt.fit(self.model, self.sampler, seed=options.seed)
        self.model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizers = optim.build(self.model, lr=options.lr)
        self.average = {n: p.detach().clone() for n, p in self.model.named_parameters()}
        self.generator = torch.Generator().manual_seed(options.seed)
        self.step, self.elapsed = 0, 0.0
        self.trend, self.lowest = math.inf, math.inf  # running mean of the loss, and the least it has been
        if resumed:
            self._restore()

    def steps(self, stop: Stop) -> Iterator[Event]:
        o = self.options
        if o.compile:
            _compile(self.model)
        saved_at = validated_at = self.elapsed
        if self.step == 0:
            yield self._save()
        while self.progress() < 1 and not stop():
            began = time.monotonic()
            rate = self._rate()
            batch = self.sampler.batch(o.batch).to(self.device)
            tick = self._one_step(batch, rate)
            self.step += 1
            spent = time.monotonic() - began
            self.elapsed += spent
            self._check_divergence(tick[0])
            left = self.budget.seconds_left(self.elapsed, self.step)
            yield Tick(self.step, *tick, o.batch / spent, self.progress(), left)
            if self.elapsed - saved_at > o.save_every and self._steady():
                saved_at = self.elapsed
                yield self._save()
            if o.validation and self.elapsed - validated_at > o.validate_every and self._steady():
                validated_at = self.elapsed
                yield self._validate()
        yield self._save()
        if o.validation and not stop():
            yield self._validate()

    def _steady(self) -> bool:
        """Whether the loss is not on its way up, so that what is saved is worth it."""
        return self.step < _STEPS_BEFORE_JUDGED or self.trend <= self.lowest + _MAX_LOSS_RISE / 4

    def _check_divergence(self, loss: float) -> None:
        """Raises TrainingError when the loss runs away; what was saved last stays."""
        self.trend = loss if math.isinf(self.trend) else 0.98 * self.trend + 0.02 * loss
        if self.step < _STEPS_BEFORE_JUDGED:
            return
        self.lowest = min(self.lowest, self.trend)
        if not self.trend <= self.lowest + _MAX_LOSS_RISE:
            raise TrainingError(
                f"the run diverged at step {self.step} (loss {self.trend:.2f}, {self.lowest:.2f} at best): "
                f"{self.options.out} holds what was saved before; go on from it, under another name, with a lower --lr"
            )

    def progress(self) -> float:
        """Share of the budget spent, 0 .. 1."""
        return self.budget.spent(self.elapsed, self.step)

    def _rate(self) -> float:
        """Learning-rate factor: linear warm-up, constant, linear cool-down to zero."""
        warm = min(1.0, (self.step + 1) / self.options.warmup)
        return warm * min(1.0, (1 - self.progress()) / self.options.cooldown)

    def _one_step(self, batch: torch.Tensor, rate: float) -> tuple[float, dict[str, float], float]:
        model = self.model
        low, high = (math.log(t) for t in _TARGET_MSE_RANGE)
        target = (
            torch.rand(len(batch), generator=self.generator).mul_(high - low).add_(low).exp().to(self.device)
        )
        rule = random_keep(target, batch[0, : model.config.frames].numel(), self.generator)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            steps = list(rollout(model, batch, self._block_lengths(), target, rule))
            loss = torch.stack([_loss(s) for s in steps]).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), 2.0)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * rate
            if torch.isfinite(norm):
                optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        decay = min(0.998, (self.step + 1) / (self.step + 10))
        with torch.no_grad():
            for name, p in self.model.named_parameters():
                self.average[name].lerp_(p.detach(), 1 - decay)
        errors = {"key": float(steps[0].mse.detach().mean())}
        if steps[1:]:
            errors["inter"] = float(torch.stack([s.mse.detach() for s in steps[1:]]).mean())
        cell_pixels = batch[0, : model.config.frames].numel() / steps[0].curve[0, 0].numel()
        for length in (1, 2, 4, 8, 16, 32):
            if length <= model.config.residual_tokens:
                at = torch.stack([s.curve[:, length].mean() for s in steps]).mean()
                errors[f"at_{length}"] = float(at) / cell_pixels
        tokens = float(torch.stack([s.keep.float().mean() for s in steps]).mean())
        return float(loss.detach()), errors, tokens

    def _block_lengths(self) -> list[int]:
        """Frames of each block: keyframe blocks hold one or all, others are sometimes cut short."""
        draw = torch.rand(self.options.blocks, generator=self.generator).tolist()
        size = self.model.config.frames
        return [
            1 if draw[0] < 0.5 else size,
            *((1 + int(d * 20) % size) if d < 0.2 else size for d in draw[1:]),
        ]

    def averaged(self) -> DefaultModel:
        """A copy of the model with the moving average of the parameters."""
        model = DefaultModel(self.model.config)
        model.load_state_dict({**self.model.state_dict(), **self.average})
        return model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    def _save(self) -> Saved:
        o = self.options
        facts = {
            "steps": self.step,
            "seconds": round(self.elapsed),
            "device": self.device.type,
            "batch": o.batch,
            "blocks": o.blocks,
            "crop": o.crop,
            "clips": len(self.sampler.clips.videos),
            "photos": len(self.sampler.clips.photos),
        }
        if self.sampler.graphics is not None:
            facts |= {"graphics": len(self.sampler.graphics), "graphics_share": o.graphics_share}
        checkpoint.save(self.averaged(), o.out, facts)
        state = {
            "step": self.step,
            "elapsed": self.elapsed,
            "trend": (self.trend, self.lowest),
            "config": self.model.config.to_dict(),
            "model": self.model.state_dict(),
            "average": self.average,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "generator": self.generator.get_state(),
            "sampler": json.dumps(self.sampler.rng.getstate()),
        }
        with writing(self.state_path) as stream:
            torch.save(state, stream)
        if o.shard_bytes:
            split(self.state_path, o.shard_bytes)
        return Saved(o.out, self.step)

    def _restore(self) -> None:
        state = torch.load(self.state_path, map_location="cpu", weights_only=True)
        try:
            config = DefaultConfig.from_dict(state["config"])
        except TypeError:
            raise TrainingError(
                f"{self.state_path} belongs to another kind of model; name another --out"
            ) from None
        if config != self.model.config:
            raise TrainingError(f"{self.state_path} belongs to a model of another shape; name another --out")
        self.model.load_state_dict(state["model"])
        for name, value in state["average"].items():
            self.average[name].copy_(value)
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            rates = [group["base_lr"] for group in optimizer.param_groups]
            optimizer.load_state_dict(saved)
            for group, base in zip(optimizer.param_groups, rates, strict=True):
                group["base_lr"] = base
        self.generator.set_state(state["generator"])
        version, words, gauss = json.loads(state["sampler"])
        self.sampler.rng.setstate((version, tuple(words), gauss))
        self.step, self.elapsed = state["step"], state["elapsed"]
        self.trend, self.lowest = state.get("trend", (math.inf, math.inf))

    def _validate(self) -> Validated:
        self._save()  # what is measured is the file, as users will load it
        loaded = checkpoint.load(self.options.out, self.device)
        figures = {
            "step": self.step,
            "seconds": round(self.elapsed),
            **summary_at(loaded, list(self.options.validation), self.device),
        }
        log_validation(self.options.out, figures)
        return Validated(figures)

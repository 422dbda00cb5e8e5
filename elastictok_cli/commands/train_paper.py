"""`elastictok train --arch paper`: what it takes besides the options of every training."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from elastictok_cli.commands.failures import ExitCode, Failure

if TYPE_CHECKING:
    import torch

    from elastictok_cli.training.cell.loop import TrainOptions
    from elastictok_cli.training.events import Event


class Arch(StrEnum):
    """The model to train."""

    default = "default"
    paper = "paper"


class Parallel(StrEnum):
    """How processes share the work."""

    ddp = "ddp"
    fsdp = "fsdp"


@dataclass(frozen=True)
class PaperArguments:
    """As given by the user; None and False are what was not."""

    config: str | None
    parallel: Parallel | None
    micro_batch: int | None
    recompute: bool
    warmup: int | None
    lpips: Path | None
    lr: float | None

    def run(
        self, common: "TrainOptions", blocks: int | None, device: "torch.device"
    ) -> "Callable[[Callable[[], bool]], Iterator[Event]]":
        """What trains, when it is given the question whether to stop."""
        from elastictok_cli.models.paper.config import PaperConfig
        from elastictok_cli.training.paper import loop as paper
        from elastictok_cli.training.paper.recipe import Recipe

        try:
            config = PaperConfig.named(self.config) if self.config is not None else None
        except ValueError as error:
            raise Failure(f"--config: {error}", ExitCode.USAGE) from None
        recipe = Recipe()
        if self.lr is not None:
            recipe = replace(recipe, lr=self.lr)
        if self.warmup is not None:
            recipe = replace(recipe, warmup=self.warmup)
        options = paper.PaperOptions(
            data=common.data,
            out=common.out,
            graphics=common.graphics,
            graphics_share=common.graphics_share,
            config=config,
            time=common.time,
            steps=common.steps,
            batch=common.batch,
            micro_batch=self.micro_batch,
            blocks=blocks,
            recipe=recipe,
            lpips=self.lpips,
            parallel=(self.parallel or Parallel.ddp).value,
            recompute=self.recompute,
            compile=common.compile,
            cache_bytes=common.cache_bytes,
            seed=common.seed,
            validation=common.validation,
            init=common.init,
        )
        return partial(paper.train, options, device)


def follows(arch: Arch) -> bool:
    """Whether this is a process that works along and says nothing: another one leads."""
    return arch is Arch.paper and os.environ.get("RANK", "0") != "0"


def check(
    arch: Arch, paper: PaperArguments, *, init: Path | None, crop: int | None, shard_mb: int | None
) -> None:
    """Refuse arguments that do not go together."""
    if arch is Arch.default:
        for field in fields(paper):
            if field.name != "lr" and getattr(paper, field.name) not in (None, False):
                raise Failure(f"--{field.name.replace('_', '-')} is for --arch paper", ExitCode.USAGE)
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise Failure("only --arch paper trains in several processes", ExitCode.USAGE)
        return
    if paper.config is None and init is None:
        raise Failure("--arch paper needs --config (fsq-200m, vae-200m or a file) or --init", ExitCode.USAGE)
    for name, value in (("crop", crop), ("shard-mb", shard_mb)):
        if value is not None:
            raise Failure(f"--{name} is not for --arch paper", ExitCode.USAGE)
    if paper.lpips is not None and not paper.lpips.is_file():
        raise Failure(f"no file at {paper.lpips}", ExitCode.BAD_INPUT)

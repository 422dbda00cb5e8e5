"""`elastictok train`: a model from folders of videos and photos."""

import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from elastictok_cli.analysis import units
from elastictok_cli.commands.arguments import (
    MAX_SEED,
    Device,
    DeviceName,
    Force,
    Json,
    Quiet,
    Span,
    Threads,
    find_device,
)
from elastictok_cli.commands.console import Display, JsonLines
from elastictok_cli.commands.failures import ExitCode, Failure, guarded, stopped_code
from elastictok_cli.commands.signals import stop_flag
from elastictok_cli.commands.targets import check_writable
from elastictok_cli.commands.train_paper import Arch, PaperArguments, Parallel, check, follows

if TYPE_CHECKING:
    from elastictok_cli.training.events import Event, Tick

# Far beyond what any machine can do: what is larger is a slip, and would fail in some less clear way.
_MAX_STEPS, _MAX_CLIPS, _MAX_BLOCKS, _MAX_SIDE = 10**9, 1 << 16, 1 << 10, 1 << 14
_MAX_LR, _MAX_CACHE_GB, _MAX_SHARD_MB = 100.0, 1e6, 10**6
_MAX_GRAPHICS_SHARE = 0.9  # what should be all of the samples is given as --data


@guarded
def train(
    data: Annotated[
        list[Path], typer.Option(metavar="DIR", help="Videos and photos; may be given several times.")
    ],
    out: Annotated[Path, typer.Option(metavar="CKPT", help="The .safetensors file to write.")],
    span: Span = None,
    steps: Annotated[
        int | None,
        typer.Option(min=0, max=_MAX_STEPS, help="Stop after this many steps; 0 writes the initial weights."),
    ] = None,
    val: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", help="Videos to measure on from time to time.")
    ] = None,
    graphics: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR", help="Clips of screens for a share of the samples; see scripts/draw_graphics.py."
        ),
    ] = None,
    graphics_share: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=_MAX_GRAPHICS_SHARE,
            help="Share of the samples that come from --graphics.",
            show_default="0.2",
        ),
    ] = None,
    init: Annotated[
        Path | None,
        typer.Option(metavar="CKPT", help="Weights to start from.", show_default="the KLT of the data"),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, max=_MAX_CLIPS, help="Clips in a step.")] = 8,
    blocks: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=_MAX_BLOCKS,
            help="Blocks in a clip; paper: in the longest.",
            show_default="3; paper: 4",
        ),
    ] = None,
    crop: Annotated[
        int | None,
        typer.Option(
            min=32, max=_MAX_SIDE, help="Side of a clip in pixels.", show_default="128; paper: a tile"
        ),
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(min=0, max=_MAX_LR, help="Learning rate.", show_default="3e-4; paper: 1e-4"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Seed of all random numbers.")] = 0,
    cache_gb: Annotated[
        float, typer.Option(min=0, max=_MAX_CACHE_GB, help="Memory for decoded pictures.")
    ] = 6.0,
    compile_: Annotated[bool, typer.Option("--compile", help="Use torch.compile.")] = False,
    shard_mb: Annotated[
        int | None,
        typer.Option(min=1, max=_MAX_SHARD_MB, help="Also save the state in pieces of this size."),
    ] = None,
    arch: Annotated[
        Arch, typer.Option(help="default: the model that ships. paper: ElasticTok's, see docs/paper.md.")
    ] = Arch.default,
    config: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE", help="paper: fsq-200m, vae-200m, or a JSON file of settings; or use --init."
        ),
    ] = None,
    parallel: Annotated[
        Parallel | None,
        typer.Option(
            help="paper: how processes started by torchrun share the work: copies of the model, or parts of it.",
            show_default="ddp",
        ),
    ] = None,
    micro_batch: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=_MAX_CLIPS,
            help="paper: clips that a process works on at once.",
            show_default="all of its share",
        ),
    ] = None,
    recompute: Annotated[
        bool, typer.Option("--recompute", help="paper: checkpoint activations; slower, far less memory.")
    ] = False,
    warmup: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=_MAX_STEPS,
            help="paper: steps in which the learning rate grows to its value.",
            show_default="2000",
        ),
    ] = None,
    lpips: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="paper: LPIPS weights, to add LPIPS to the loss; see docs/paper.md."
        ),
    ] = None,
    device: Device = DeviceName.auto,
    threads: Threads = None,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a model on videos and photos.

    The state is saved beside it every few minutes; the same command again goes on from there.
    With --arch paper also on many devices: torchrun --nproc-per-node N -m elastictok_cli train ...
    """
    if span is None and steps is None:
        raise Failure("say when to stop: --time, --steps or both", ExitCode.USAGE)
    if graphics_share is not None and not graphics:
        raise Failure("--graphics-share needs --graphics", ExitCode.USAGE)
    for folder in [*data, *(val or []), *(graphics or [])]:
        if not folder.is_dir():
            raise Failure(f"{folder} is not a folder", ExitCode.BAD_INPUT)
    if out.suffix != ".safetensors":
        raise Failure("--out must end in .safetensors", ExitCode.USAGE)
    check_writable(out)
    state = out.with_suffix(".state.pt")
    if out.exists() and not state.exists() and not force:
        raise Failure(
            f"{out} exists already, without {state.name} to go on from; -y overwrites it", ExitCode.USAGE
        )

    paper = PaperArguments(config, parallel, micro_batch, recompute, warmup, lpips, lr)
    check(arch, paper, init=init, crop=crop, shard_mb=shard_mb)
    where = find_device(device, threads)
    from elastictok_cli.models.checkpoint import CheckpointError
    from elastictok_cli.training import events
    from elastictok_cli.training.cell import loop

    options = loop.TrainOptions(
        data=tuple(data),
        out=out,
        graphics=tuple(graphics or ()),
        graphics_share=0.2 if graphics_share is None else graphics_share,
        time=span,
        steps=steps,
        batch=batch,
        blocks=blocks or 3,
        crop=crop or 128,
        lr=3e-4 if lr is None else lr,
        cache_bytes=int(cache_gb * 2**30),
        seed=seed,
        validation=tuple(val or ()),
        compile=compile_,
        init=init,
        shard_bytes=shard_mb * 10**6 if shard_mb else None,
    )
    if arch is Arch.paper:
        run = paper.run(options, blocks, where)
    else:
        run = partial(loop.train, options, where)
    quiet, as_json = quiet or follows(arch), as_json and not follows(arch)
    lines = JsonLines(enabled=as_json)
    began = time.monotonic()
    progress: TrainProgress | None = None
    try:
        with Display(quiet=quiet) as display:
            progress = TrainProgress(display)
            with stop_flag() as stopped:
                for event in run(stopped):
                    progress.see(event)
                    lines.write(*_as_json(event))
                    if isinstance(event, events.Loading | events.Fitting):  # there is nothing to save
                        stopped.check()
                stopped.check()
    except KeyboardInterrupt as error:
        if follows(arch):
            raise typer.Exit(stopped_code(error)) from None
        raise Failure(_interrupted(progress, out), stopped_code(error)) from None
    except (events.TrainingError, CheckpointError) as error:
        if follows(arch):
            raise typer.Exit(ExitCode.BAD_INPUT) from None
        raise Failure(str(error), ExitCode.BAD_INPUT) from None
    seconds = time.monotonic() - began
    display.note(f"{out}: step {progress.step} after {units.clock(seconds)}")
    lines.write("summary", {"output": str(out), "steps": progress.step, "seconds": seconds})


def _interrupted(progress: "TrainProgress | None", out: Path) -> str:
    if progress is None or progress.saved is None:
        return f"interrupted before the first save of {out}"
    if progress.step == progress.saved:
        return f"interrupted and saved at step {progress.saved}; run the same command again to go on"
    return (
        f"interrupted at step {progress.step}; run the same command again to go on from step {progress.saved}, the "
        f"last that was saved"
    )


class TrainProgress:
    """Shows the events of a training run on the progress display."""

    def __init__(self, display: Display) -> None:
        self.step = 0
        self.saved: int | None = None
        self._display = display
        display.show(None, "loading clips", "")

    def see(self, event: "Event") -> None:
        """Show what happened."""
        from elastictok_cli.training import events

        match event:
            case events.Loading():
                self._display.show(None, f"loading: {event.clips} clips", f"{event.gigabytes:.1f} GB")
            case events.Fitting():
                self._display.show(None, "fitting the KLT start", f"{event.clips} clips")
            case events.Tick():
                self.step = event.step
                self._tick(event)
            case events.Saved():
                self.step = self.saved = event.step
            case events.Validated():
                figures = ", ".join(f"{name} {_short(value)}" for name, value in event.figures.items())
                self._display.note(f"validation: {figures}")

    def _tick(self, tick: "Tick") -> None:
        head = f"step {tick.step}  {tick.progress:.0%}"
        if tick.seconds_left is not None:
            head += f"  eta {units.clock(tick.seconds_left)}"
        errors = " ".join(f"{kind.replace('_', ' ')} {mse:.4f}" for kind, mse in tick.errors.items())
        facts = (
            f"loss {tick.loss:.3f}  mse {errors}  {tick.tokens:.1f} tok/cell  "
            f"{tick.examples_per_second:.1f} examples/s"
        )
        self._display.show(tick.progress, head, facts)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _as_json(event: "Event") -> tuple[str, dict[str, Any]]:
    from elastictok_cli.training import events

    names = {
        events.Loading: "loading",
        events.Fitting: "fitting",
        events.Tick: "step",
        events.Saved: "saved",
        events.Validated: "validated",
    }
    facts = asdict(event)
    if isinstance(event, events.Validated):
        facts = event.figures
    elif isinstance(event, events.Saved):
        facts["path"] = str(event.path)
    return names[type(event)], facts

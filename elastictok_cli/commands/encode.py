"""`elastictok encode`: a video to an .etk file."""

import os
import stat
from contextlib import ExitStack, closing
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from elastictok_cli.analysis import promise as promises
from elastictok_cli.analysis import units
from elastictok_cli.commands.arguments import (
    MAX_TOKENS,
    Device,
    DeviceName,
    Duration,
    Force,
    Jobs,
    Json,
    Model,
    NoAudio,
    Quiet,
    Start,
    Threads,
    check_jobs,
    check_window,
    find_device,
    load_model,
)
from elastictok_cli.commands.console import Display, JsonLines
from elastictok_cli.commands.encode_progress import (
    EncodeProgress,
    broken_promise,
    event_line,
    summary_lines,
    summary_of,
)
from elastictok_cli.commands.encode_run import EncodeRun
from elastictok_cli.commands.failures import ExitCode, Failure, guarded
from elastictok_cli.commands.goals import (
    DEFAULT_MSE,
    Goal,
    KbpsOption,
    MaxSizeOption,
    MaxTokensOption,
    PromiseOption,
    PsnrOption,
    QualityOption,
    WorstOption,
    goal_of,
)
from elastictok_cli.commands.targets import (
    PIPE,
    check_etk_name,
    check_source,
    check_target,
    name_beside,
    publish,
)

if TYPE_CHECKING:
    from elastictok_cli.codec.budget import Budget
    from elastictok_cli.codec.length_search import Guess
    from elastictok_cli.models.interface import TokenizerSpec

_MAX_SIDE = 65535  # pixels, by the file format


class Allocation(StrEnum):
    """Whether each cell gets a length of its own, or one length serves all cells of a block."""

    cell = "cell"
    block = "block"


class Search(StrEnum):
    """How the paper's model finds lengths."""

    binary = "binary"
    linear = "linear"
    predict = "predict"


@guarded
def encode(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A video or picture; - is standard input.")],
    target: Annotated[
        Path | None,
        typer.Argument(metavar="OUT", help="- is standard output.", show_default="IN with .etk"),
    ] = None,
    mse: Annotated[
        float | None,
        typer.Option(
            help="Target: largest mean square error of a block (or of the video, see --promise), on pixels from -1 to "
            "1. 0.015 (24.3 dB) is rough, 0.007 (27.6 dB) fair, 0.003 (31.2 dB) good, 0.001 (36.0 dB) fine.",
            show_default=str(DEFAULT_MSE),
        ),
    ] = None,
    psnr: PsnrOption = None,
    quality: QualityOption = None,
    promise: PromiseOption = None,
    worst: WorstOption = None,
    kbps: KbpsOption = None,
    max_size: MaxSizeOption = None,
    max_tokens: MaxTokensOption = None,
    tokens: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, max=MAX_TOKENS, help="Keep N tokens of every cell."),
    ] = None,
    allocation: Annotated[
        Allocation, typer.Option(help="Choose a length for each cell, or one for all cells of a block.")
    ] = Allocation.cell,
    search: Annotated[
        Search | None,
        typer.Option(
            help="How lengths are searched with a model whose encoder sees the length (the paper's): exactly, over 100 "
            "lengths, or from a predicted length that is checked.",
            show_default="binary",
        ),
    ] = None,
    predictor: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="For --search predict; train-predictor makes it."),
    ] = None,
    effort: Annotated[
        int | None,
        typer.Option(
            metavar="0-9",
            min=0,
            max=9,
            help="Work spent on each block: 0 is quick, 9 finds the fewest tokens.",
            show_default="5",
        ),
    ] = None,
    keyframe_interval: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            min=0,
            max=units.MAX_SECONDS,
            help="Longest time between keyframe blocks (seek points); 0: only at scene cuts.",
        ),
    ] = 5.0,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Exit with 5 when a block missed the target, or a promise was broken."),
    ] = False,
    start: Start = None,
    duration: Duration = None,
    stream: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            max=_MAX_SIDE,
            help="Which stream of IN holds the pictures, counted from 0.",
            show_default="the first video that moves",
        ),
    ] = None,
    max_height: Annotated[
        int | None,
        typer.Option(metavar="PIXELS", min=1, max=_MAX_SIDE, help="Scale taller pictures down."),
    ] = None,
    no_audio: NoAudio = False,
    model: Model = None,
    device: Device = DeviceName.auto,
    threads: Threads = None,
    jobs: Jobs = None,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compress a video into an .etk file.

    Every block of frames keeps as many tokens as it needs to stay under the target, and no more. With --promise video
    or a budget, tokens go where in the video they buy most. That takes two passes; from a pipe, some seconds of delay.
    """
    goal = goal_of(
        mse=mse,
        psnr=psnr,
        quality=quality,
        tokens=tokens,
        promise=promise,
        worst=worst,
        kbps=kbps,
        max_size=max_size,
        max_tokens=max_tokens,
        allocation=allocation.value,
    )
    _check_search(search, predictor, tokens)
    if effort is not None and tokens is not None:
        raise Failure("--effort needs a target: --mse or --psnr, not --tokens", ExitCode.USAGE)
    check_window(start, duration)
    target = target or name_beside(source, ".etk")
    if as_json and str(target) == PIPE:
        raise Failure("--json and OUT - both want standard output", ExitCode.USAGE)
    check_source(source)
    check_target(target, force=force, source=source)
    check_etk_name(target)

    from elastictok_cli.codec.options import EncodeOptions
    from elastictok_cli.codec.passes import BudgetTooSmall, NoDuration
    from elastictok_cli.video import VideoReader
    from elastictok_cli.video.spool import spooled
    from elastictok_cli.video.streams import reads_once

    lines = JsonLines(enabled=as_json)
    with ExitStack() as stack:
        readable = source
        if goal.budget is not None and goal.budget.needs_length:
            readable = stack.enter_context(spooled(source))
        file = stack.enter_context(publish(target))
        open_reader = partial(
            VideoReader,
            readable,
            start=start,
            duration=duration,
            max_height=max_height,
            aux=not no_audio,
            stream=stream,
            name="standard input" if str(source) == PIPE else str(source),
        )
        where = find_device(device, threads)
        loaded = load_model(model, where)
        spec = loaded.tokenizer.spec
        _check_model(goal, spec)
        options = EncodeOptions(
            mse=goal.mse,
            tokens=goal.tokens,
            allocation=allocation.value,
            keyframe_interval=keyframe_interval,
            effort=_effort_for(effort, spec),
            search=_search_for(search, spec).value,
            guess=_load_guess(predictor, spec) if predictor else None,
            promise=goal.promise,
            worst=goal.worst,
            budget=goal.budget,
        )
        check_jobs(jobs, loaded, where)
        named = {"start": start, "duration": duration, "stream": stream}
        run = EncodeRun(
            open_reader,
            rereadable=not reads_once(readable),
            file=file,
            rewritable=str(target) != PIPE and stat.S_ISREG(os.fstat(file.fileno()).st_mode),
            loaded=loaded,
            options=options,
            device=where,
            jobs=jobs,
            recorded={name: value for name, value in named.items() if value is not None},
        )
        display = stack.enter_context(Display(quiet=quiet))
        progress = EncodeProgress(display, run.aux_rate)
        encoding = stack.enter_context(closing(run.events()))
        try:
            for event in encoding:
                for text in run.new_warnings():
                    display.warn(text)
                    lines.write("warning", {"message": text})
                progress.see(event)
                if progress.finished is None:
                    lines.write(*event_line(event))
        except BudgetTooSmall as error:
            raise _too_small(goal.budget, error.bytes) from None
        except NoDuration:
            raise Failure(
                "a still picture has no tokens or kilobits a second; --max-size and --max-tokens N limit it",
                ExitCode.USAGE,
            ) from None
    assert progress.finished is not None
    whole = start is None and duration is None
    facts = summary_of(progress.finished, progress.missed, whole=whole, options=options)
    if quiet and not facts["kept"]:  # the summary would have said it
        display.warn(broken_promise(progress.finished, options))
    for line in summary_lines(str(target), facts, options):
        display.note(line)
    lines.write("summary", {"output": str(target), **facts})
    if strict and not facts["kept"]:
        raise typer.Exit(ExitCode.MISSED)


def _check_search(search: Search | None, predictor: Path | None, tokens: int | None) -> None:
    if search is not None and tokens is not None:
        raise Failure("--search needs a target: --mse or --psnr, not --tokens", ExitCode.USAGE)
    if (search is Search.predict) != (predictor is not None):
        raise Failure("--search predict and --predictor FILE need each other", ExitCode.USAGE)


def _check_model(goal: Goal, spec: "TokenizerSpec") -> None:
    if goal.tokens is not None and goal.tokens > spec.tokens_per_cell:
        raise Failure(
            f"--tokens: a cell of this model has {spec.tokens_per_cell} tokens at most", ExitCode.USAGE
        )
    if goal.promise == "video" and not spec.nested:
        raise Failure(
            f"--promise video and budgets need a model whose tokens are nested; those of {spec.name} are found block "
            "by block",
            ExitCode.USAGE,
        )


def _too_small(budget: "Budget | None", smallest: int) -> Failure:
    """The message for a budget that nothing fits into. smallest: bytes of the file without a token."""
    asked = "the budget" if budget is None else promises.budget_words(budget.recorded())
    return Failure(
        f"{asked} cannot be met: without a single token the file still has {units.size(smallest)} (audio, times, "
        "structure)",
        ExitCode.USAGE,
    )


def _search_for(search: Search | None, spec: "TokenizerSpec") -> Search:
    if search is not None and spec.nested:
        raise Failure(
            f"--search: the encoder of {spec.name} does not see the length, one encode serves all",
            ExitCode.USAGE,
        )
    return search or Search.binary


def _effort_for(effort: int | None, spec: "TokenizerSpec") -> int:
    from elastictok_cli.codec.rate_control import DEFAULT_EFFORT

    if effort is not None and not spec.nested:
        raise Failure(f"--effort: for {spec.name} there is --search", ExitCode.USAGE)
    return DEFAULT_EFFORT if effort is None else effort


def _load_guess(path: Path, spec: "TokenizerSpec") -> "Guess":
    from elastictok_cli.models.checkpoint import CheckpointError
    from elastictok_cli.models.paper.length_predictor import load

    try:
        predictor = load(path)
    except CheckpointError as error:
        raise Failure(str(error), ExitCode.BAD_INPUT) from None
    if predictor.config.longest != spec.tokens_per_cell:
        raise Failure(
            f"{path} was trained for {predictor.config.name}, not for {spec.name}", ExitCode.BAD_INPUT
        )
    return predictor.guess

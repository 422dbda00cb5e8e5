"""`elastictok encode`: a video to an .etk file."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from elastictok_cli.analysis import units
from elastictok_cli.commands.arguments import (
    MAX_TOKENS,
    Device,
    DeviceName,
    Duration,
    Force,
    Json,
    Model,
    NoAudio,
    Quiet,
    Start,
    Threads,
    check_window,
    find_device,
    load_model,
)
from elastictok_cli.commands.console import Display, JsonLines
from elastictok_cli.commands.encode_progress import (
    EncodeProgress,
    event_line,
    missed_sentence,
    summary_lines,
    summary_of,
)
from elastictok_cli.commands.failures import ExitCode, Failure, guarded
from elastictok_cli.commands.targets import (
    PIPE,
    check_etk_name,
    check_source,
    check_target,
    name_beside,
    publish,
)

if TYPE_CHECKING:
<<<<<<< HEAD
    from elastictok_cli.codec.encoder import EncodeOptions
    from elastictok_cli.codec.length_search import Guess
    from elastictok_cli.models.interface import TokenizerSpec
=======
    from elastictok_cli.codec.events import BlockDone, Event, Finished, Started
    from elastictok_cli.codec.lengths import Guess
    from elastictok_cli.tokenizer.base import TokenizerSpec
>>>>>>> h-commands

DEFAULT_MSE = 0.007
_MAX_SIDE = 65535  # pixels, by the file format


class Allocation(StrEnum):
    """Who gets a length of its own."""

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
            help="Largest mean square error of a block, on pixels from -1 to 1. 0.015 (24.3 dB) is rough, "
            "0.007 (27.6 dB) fair, 0.003 (31.2 dB) good, 0.001 (36.0 dB) fine.",
            show_default=str(DEFAULT_MSE),
        ),
    ] = None,
    psnr: Annotated[
        float | None,
        typer.Option(metavar="DB", help="The same knob in decibels: mse = 4 / 10^(DB/10)."),
    ] = None,
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
            help="How lengths are found with a model that codes every length anew (the paper's): exactly, from 100 "
            "lengths, or from a guess that is checked.",
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
            help="Most time between seek points; 0: only scene cuts.",
        ),
    ] = 5.0,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 5 when a block missed the target.")
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
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compress a video into an .etk file.

    Every block of frames keeps as many tokens as it needs to stay under the target, and no more.
    """
    error = _target_error(mse, psnr, tokens)
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

    from elastictok_cli.video import VideoReader

    lines = JsonLines(enabled=as_json)
    with (
        publish(target) as file,
        VideoReader(
            source, start=start, duration=duration, max_height=max_height, aux=not no_audio, stream=stream
        ) as reader,
        Display(quiet=quiet) as display,
    ):
        from elastictok_cli.codec.encoder import EncodeOptions, make_header
        from elastictok_cli.codec.encoder import encode as encode_frames
        from formats import EtkWriter

        where = find_device(device, threads)
        loaded = load_model(model, where)
        options = EncodeOptions(
            mse=error,
            tokens=tokens,
            allocation=allocation.value,
            keyframe_interval=keyframe_interval,
            effort=_effort_for(effort, loaded.tokenizer.spec),
            search=_search_for(search, loaded.tokenizer.spec).value,
            guess=_load_guess(predictor, loaded.tokenizer.spec) if predictor else None,
        )
        if tokens is not None and tokens > (most := loaded.tokenizer.spec.tokens_per_cell):
            raise Failure(f"--tokens: a cell of this model has {most} tokens at most", ExitCode.USAGE)
        header = make_header(reader.info, loaded, options)
        for name, value in (("start", start), ("duration", duration), ("stream", stream)):
            if value is not None:
                header.options[name] = value
        writer = EtkWriter(file, header)
        watch = EncodeProgress(display, lambda: reader.aux_rate)
        warned = 0
        for event in encode_frames(reader.info, reader, reader.take_aux, loaded, writer, options, where):
            for text in reader.warnings[warned:]:
                display.warn(text)
                lines.write("warning", {"message": text})
            warned = len(reader.warnings)
            watch.see(event)
            if watch.finished is None:
                lines.write(*event_line(event))
    assert watch.finished is not None
    whole = start is None and duration is None
    facts = summary_of(watch.finished, watch.missed, whole=whole)
    if quiet and facts["missed_blocks"]:  # the summary would have said it
        display.warn(missed_sentence(facts["missed_blocks"], error, facts["worst_mse"]))
    for line in summary_lines(str(target), facts, error):
        display.note(line)
    lines.write("summary", {"output": str(target), **facts})
    if strict and facts["missed_blocks"]:
        raise typer.Exit(ExitCode.MISSED)


def _target_error(mse: float | None, psnr: float | None, tokens: int | None) -> float | None:
    """The error asked for; None when it is a number of tokens."""
    if sum(value is not None for value in (mse, psnr, tokens)) > 1:
        raise Failure("--mse, --psnr and --tokens exclude each other", ExitCode.USAGE)
    if tokens is not None:
        return None
    if psnr is not None and not 0 < psnr < 100:
        raise Failure("--psnr must be between 0 and 100 dB", ExitCode.USAGE)
    error = units.mse_of(psnr) if psnr is not None else DEFAULT_MSE if mse is None else mse
    if not 0 < error <= 4:
        raise Failure("--mse must be more than 0 and at most 4", ExitCode.USAGE)
    return error


def _check_search(search: Search | None, predictor: Path | None, tokens: int | None) -> None:
    if search is not None and tokens is not None:
        raise Failure("--search needs a target: --mse or --psnr, not --tokens", ExitCode.USAGE)
    if (search is Search.predict) != (predictor is not None):
        raise Failure("--search predict and --predictor FILE need each other", ExitCode.USAGE)


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


<<<<<<< HEAD
def _default_target(source: Path) -> Path:
    if source.is_dir():
        raise Failure(f"{source} is a folder, not a video file", ExitCode.BAD_INPUT)
    return name_beside(source, ".etk")


def _check_tokens(options: "EncodeOptions", most: int) -> None:
    if options.tokens is not None and options.tokens > most:
        raise Failure(f"--tokens: a cell of this model has {most} tokens at most", ExitCode.USAGE)
=======
class _Watch:
    """Turns events into the state of the progress display. side_rate: bytes a second of audio and subtitles."""

    def __init__(self, display: Display, side_rate: Callable[[], float]) -> None:
        self.finished: Finished | None = None
        self.missed: list[BlockDone] = []
        self._display, self._side_rate = display, side_rate
        self._began = time.monotonic()
        self._blocks = self._frames = self._tokens = 0
        self._error = 0.0
        self._seconds = 0.0  # of the video so far
        self._first: float | None = None  # time of the first block
        self._written = 0  # bytes of segments
        self._written_tokens = 0  # of the segments in them

    def see(self, event: "Event") -> None:
        from elastictok_cli.codec import events

        match event:
            case events.Started():
                self._started = event
                self._total = _expected_frames(event)
                self._rate = event.average_rate
            case events.BlockDone():
                self._blocks += 1
                self._frames += event.frames
                self._tokens += event.tokens
                self._error += sum(event.frame_mse)
                self._first = event.time if self._first is None else self._first
                self._seconds = event.time - self._first + (event.frames / self._rate if self._rate else 0)
                if event.missed:
                    self.missed.append(event)
                self._show()
            case events.SegmentWritten():
                self._written += event.bytes
                self._written_tokens = self._tokens
            case events.Finished():
                self.finished = event
                self._frames = self._total = event.frames
                self._seconds = event.duration
                self._show(event.bytes)

    def _show(self, whole: int | None = None) -> None:
        """`whole`: bytes of the file, once it is complete."""
        total = max(self._total, self._frames) if self._total else None
        spent = max(time.monotonic() - self._began, 1e-6)
        fraction = self._frames / total if total else None
        head = f"block {self._blocks}" + (
            f"/{max(self._blocks, round(self._blocks / fraction))}" if fraction else ""
        )
        if fraction:
            head += f"  {fraction:.0%}  eta {units.clock(spent / fraction - spent)}"
        size = self._size() if whole is None else whole
        facts = [units.speed(self._frames, spent)]
        if self._rate and total != 1:
            facts.append(f"{size * 8 / 1000 * self._rate / self._frames:.0f} kbps")
        facts.append(f"est {units.size(size / fraction)}" if fraction else units.size(size))
        facts.append(units.quality(self._error / self._frames))
        facts.append(f"{self._tokens / self._blocks:.0f}/{self._started.tokens_per_block} tok")
        if self.missed:
            facts.append(f"{len(self.missed)} missed")
        self._display.show(fraction, head, "  ".join(facts), last=whole is not None)

    def _size(self) -> float:
        """Bytes so far; tokens that wait for their segment count as those written did, or 2 bytes each.

        Audio and subtitles count as they go with the pictures: how far ahead of these they were read differs.
        """
        each = self._written / self._written_tokens if self._written_tokens else 2.0
        video = self._written + each * (self._tokens - self._written_tokens)
        return video + self._side_rate() * self._seconds


def _expected_frames(started: "Started") -> int | None:
    if started.frames:
        return started.frames
    if started.duration and started.average_rate:
        return max(1, round(started.duration * started.average_rate))
    return None


def _as_json(event: "Event") -> tuple[str, dict[str, Any]]:
    from elastictok_cli.codec import events

    names = {events.Started: "started", events.BlockDone: "block", events.SegmentWritten: "segment"}
    return names[type(event)], asdict(event)


def _summary(finished: "Finished", missed: "list[BlockDone]", *, whole: bool) -> dict[str, Any]:
    """The facts of the summary. `whole`: all of the source was encoded, so that its size can be compared."""
    facts = asdict(finished)
    blocks = max(1, finished.blocks)
    source_bytes = finished.source_bytes if whole else None
    return {
        **facts,
        "mean_block_tokens": finished.tokens / blocks,
        "share": finished.tokens / blocks / finished.tokens_per_block,
        "psnr": units.psnr(finished.mse),
        "kbps": units.kbps(finished.bytes, finished.duration, finished.frames),
        "source_ratio": finished.bytes / source_bytes if source_bytes else None,
        "fps": finished.frames / finished.seconds if finished.seconds else None,
        "missed": [{"index": block.index, "time": block.time, "mse": block.mse} for block in missed],
    }


def _missed(blocks: list[dict[str, Any]], target: float | None) -> str:
    return f"{units.count(len(blocks), 'block')} did not reach {units.quality(target or 0)}"


def _report(name: str, facts: dict[str, Any], target: float | None) -> list[str]:
    """The summary for people."""
    size = units.size(facts["bytes"])
    if facts["kbps"] is not None:
        size += f", {facts['kbps']:.0f} kbps"
    if facts["source_ratio"] is not None:
        size += f", {facts['source_ratio']:.2f} of the source ({units.size(facts['source_bytes'])})"
    lines = [
        f"{name}: {units.count(facts['frames'], 'frame')}, {units.clock(facts['duration'], 2)}, "
        f"{units.count(facts['blocks'], 'block')}, {units.count(facts['segments'], 'segment')}",
        f"  size     {size}",
        f"  tokens   {facts['mean_block_tokens']:.0f} a block on average ({facts['min_block_tokens']} to "
        f"{facts['max_block_tokens']}), {facts['share']:.1%} of the most possible ({facts['tokens_per_block']})",
        f"  quality  {units.quality(facts['mse'])} on average; worst block {units.quality(facts['worst_mse'])}",
        f"  speed    {facts['seconds']:.1f} s, {units.speed(facts['frames'], facts['seconds'])}",
    ]
    missed = facts["missed"]
    if missed:
        lines.append(f"  missed   {_missed(missed, target)}:")
        for block in missed[:_MOST_NAMED]:
            lines.append(
                f"           block {block['index']} at {units.clock(block['time'], 2)}, {units.quality(block['mse'])}"
            )
        if len(missed) > _MOST_NAMED:
            lines.append(f"           and {len(missed) - _MOST_NAMED} more; elastictok stats lists them all")
    return lines
>>>>>>> h-commands

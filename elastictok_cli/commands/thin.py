"""`elastictok thin`: an .etk file with fewer tokens, without its source and without running the model."""

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from elastictok_cli.analysis import units
from elastictok_cli.commands.arguments import (
    MAX_TOKENS,
    Device,
    DeviceName,
    Force,
    Json,
    Model,
    Quiet,
    Threads,
    find_device,
    load_model,
)
from elastictok_cli.commands.console import Display, JsonLines
from elastictok_cli.commands.damage import describe_damage
from elastictok_cli.commands.failures import ExitCode, Failure, guarded
from elastictok_cli.commands.targets import (
    PIPE,
    check_etk_name,
    check_files,
    publish,
)

if TYPE_CHECKING:
    from elastictok_cli.codec.rewrite import Survey
    from elastictok_cli.codec.thin_request import ThinRequest
    from elastictok_cli.codec.thinning import Cap, Level
    from formats import Block, EtkReader, Header

_MAX_KBPS = 10**9  # a terabit a second


@guarded
def thin(
    source: Annotated[Path, typer.Argument(metavar="IN.etk", help="- is standard input.")],
    target: Annotated[Path, typer.Argument(metavar="OUT.etk", help="- is standard output.")],
    tokens: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            max=MAX_TOKENS,
            help="Keep at most N tokens of every cell.",
        ),
    ] = None,
    keep: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="Keep at most this share of all tokens: 0.5 is half of them."),
    ] = None,
    kbps: Annotated[
        float | None,
        typer.Option(
            metavar="K", help="Make the whole file, audio included, no larger than K kilobits a second."
        ),
    ] = None,
    original: Annotated[
        Path | None,
        typer.Option(
            "--source",
            metavar="VIDEO",
            help="The video IN.etk was made from: decode, and record the error. Slow; runs the model.",
            show_default="the error is recorded as unknown",
        ),
    ] = None,
    model: Model = None,
    device: Device = DeviceName.auto,
    threads: Threads = None,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Drop the least useful tokens of an .etk file: a smaller file of the same video, in seconds.

    Tokens are nested, so this needs neither the source nor the model. Text suffers most: encode screens again
    instead. What is damaged is left out and named; the exit code is then 4.
    """
    _check_amount(tokens, keep, kbps)
    check_files(source, target, original, force=force, as_json=as_json)
    check_etk_name(target)

    from elastictok_cli.codec import rewrite
    from elastictok_cli.codec.thin_request import ThinRequest
    from formats import EtkReader, EtkWriter

    request = ThinRequest(tokens, keep, kbps)
    lines = JsonLines(enabled=as_json)
    began = time.monotonic()
    with ExitStack() as stack:
        reader = stack.enter_context(EtkReader(sys.stdin.buffer if str(source) == PIPE else source))
        measure = _measure(stack, original, reader, model, device, threads) if original is not None else None
        stream = stack.enter_context(publish(target))
        display = stack.enter_context(Display(quiet=quiet))
        found = _survey(reader, display, levels=tokens is None)
        if not found.frames:
            raise _nothing(reader)
        lines.write("started", _started(reader.header, found, target))
        rule, header = _choose(request, reader, found, display, measured=measure is not None)
        writer = EtkWriter(stream, header)
        progress = ThinProgress()
        for event in rewrite.rewrite(reader, writer, rule, progress.watched(measure, found, display, began)):
            lines.write("segment", asdict(event))
        progress.bytes, progress.side_bytes = writer.bytes_written, rewrite.side_bytes(reader)
    damage = describe_damage(reader)
    for text in damage:
        display.warn(text)
        lines.write("damage", {"message": text})
    if rule is None:
        display.note(
            f"nothing to drop: {units.printable(str(source))} is no larger than that; OUT is the same video"
        )
    facts = _summary(str(target), reader, found, progress, thinned=rule is not None, damage=damage)
    facts["seconds"] = time.monotonic() - began
    for line in _report(facts):
        display.note(line)
    lines.write("summary", facts)
    if damage:
        raise typer.Exit(ExitCode.CORRUPT)


def _check_amount(tokens: int | None, share: float | None, kbps: float | None) -> None:
    """Raise Failure unless exactly one is given, in its range."""
    if sum(value is not None for value in (tokens, share, kbps)) != 1:
        raise Failure("say how much to keep: one of --tokens, --keep and --kbps", ExitCode.USAGE)
    if share is not None and not 0 <= share <= 1:
        raise Failure("--keep must be from 0 to 1", ExitCode.USAGE)
    if kbps is not None and not (0 < kbps <= _MAX_KBPS):
        raise Failure(f"--kbps must be more than 0 and at most {_MAX_KBPS}", ExitCode.USAGE)


def _survey(reader: "EtkReader", display: Display, *, levels: bool) -> "Survey":
    from elastictok_cli.codec.rewrite import survey

    total = len(reader.index) if reader.index else None
    for found in survey(reader, levels=levels):
        display.show(found.segments / total / 4 if total else None, f"segment {found.segments}", "counting")
    return found


def _choose(
    request: "ThinRequest", reader: "EtkReader", found: "Survey", display: Display, *, measured: bool
) -> "tuple[Cap | Level | None, Header]":
    """What to drop (None: nothing) and the header that says so."""
    from elastictok_cli.codec import thin_request
    from elastictok_cli.codec.rewrite import BudgetTooSmall

    def tick() -> None:
        display.show(None, "kbps", "trying what fits")

    try:
        return thin_request.choose(request, reader, found, tick, measured=measured)
    except thin_request.NoDuration:
        raise Failure("a still picture has no --kbps; use --keep or --tokens", ExitCode.USAGE) from None
    except BudgetTooSmall as error:
        smallest = thin_request.kbps_of(error.bytes, reader.header, found)
        raise Failure(
            f"--kbps {request.kbps:g} cannot be reached: without a single token the file still has "
            f"{smallest:.4g} kbps ({units.size(error.bytes)}: audio, times, structure)",
            ExitCode.USAGE,
        ) from None


def _measure(
    stack: ExitStack,
    original: Path,
    reader: "EtkReader",
    model: Path | None,
    device: DeviceName,
    threads: int | None,
) -> "Callable[[Sequence[Block]], list[Block]]":
    """A function that measures the blocks of a segment against the source and records their errors."""
    from elastictok_cli.codec import decoder
    from elastictok_cli.codec import measurement as measure

    where = find_device(device, threads)
    loaded = load_model(model, where)
    try:
        decoder.check_model(reader.header, loaded)
        frames = stack.enter_context(measure.Source(original, reader.header))
    except (decoder.ModelMismatch, measure.SourceMismatch) as error:
        raise Failure(str(error), ExitCode.BAD_INPUT) from None

    def with_errors(blocks: "Sequence[Block]") -> "Iterator[Block]":
        shown = decoder.pictures(blocks, reader.header, loaded, where)
        try:
            for block, pixels in zip(blocks, shown, strict=True):
                yield replace(block, frame_mse=frames.errors(block, pixels))
        except measure.SourceMismatch as error:
            raise Failure(str(error), ExitCode.BAD_INPUT) from None

    return lambda blocks: list(with_errors(blocks))


class ThinProgress:
    """Counts the blocks as they are written, and shows how far the work is."""

    def __init__(self) -> None:
        self.bytes = self.side_bytes = self.frames = self.tokens = 0
        self.error = 0.0

    def watched(
        self,
        measure: "Callable[[Sequence[Block]], list[Block]] | None",
        found: "Survey",
        display: Display,
        began: float,
    ) -> "Callable[[Sequence[Block]], list[Block]]":
        """A function that measures the blocks of a segment, counts them and shows the progress."""

        def count(blocks: "Sequence[Block]") -> "list[Block]":
            blocks = measure(blocks) if measure is not None else list(blocks)
            self.frames += sum(len(block.pts) for block in blocks)
            self.tokens += sum(block.token_count for block in blocks)
            self.error += sum(sum(block.frame_mse) for block in blocks)
            spent = max(time.monotonic() - began, 1e-6)
            display.show(self.frames / found.frames, f"frame {self.frames}", f"{self.frames / spent:.0f} fps")
            return blocks

        return count


def _nothing(reader: "EtkReader") -> Failure:
    if damage := describe_damage(reader):
        return Failure(f"nothing can be read: {'; '.join(damage)}", ExitCode.CORRUPT)
    return Failure("the file has no frames", ExitCode.BAD_INPUT)


def _started(header: "Header", found: "Survey", target: Path) -> dict[str, Any]:
    return {
        "output": str(target),
        "frames": found.frames,
        "blocks": found.blocks,
        "segments": found.segments,
        "tokens": found.tokens,
        "model": header.model.name,
    }


def _summary(
    name: str,
    reader: "EtkReader",
    found: "Survey",
    progress: ThinProgress,
    *,
    thinned: bool,
    damage: list[str],
) -> dict[str, Any]:
    duration = float(found.ticks * Fraction(*reader.header.time_base))
    mse = progress.error / progress.frames
    return {
        "output": name,
        "thinned": thinned,
        "frames": progress.frames,
        "blocks": found.blocks,
        "segments": found.segments,
        "duration": duration,
        "tokens": progress.tokens,
        "tokens_before": found.tokens,
        "kept": progress.tokens / found.tokens if found.tokens else 1.0,
        "bytes": progress.bytes,
        "side_bytes": progress.side_bytes,
        "video_bytes_before": found.bytes,
        "kbps": units.kbps(progress.bytes, duration, progress.frames),
        "mse": mse,
        "psnr": units.psnr(mse),
        "damaged": bool(damage),
    }


def _report(facts: dict[str, Any]) -> list[str]:
    """The summary for people."""
    size = units.size(facts["bytes"])
    if facts["kbps"] is not None:
        size += f", {facts['kbps']:.1f} kbps"
    if facts["side_bytes"]:
        size += f", of it audio and subtitles {units.size(facts['side_bytes'])}"
    error = "unknown: --source measures it" if math.isnan(facts["mse"]) else units.quality(facts["mse"])
    return [
        f"{facts['output']}: {units.count(facts['frames'], 'frame')}, {units.clock(facts['duration'], 2)}",
        f"  tokens   {facts['tokens']} of {facts['tokens_before']} ({facts['kept']:.1%})",
        f"  size     {size}; the video took {units.size(facts['video_bytes_before'])} before",
        f"  quality  {error}",
        f"  speed    {facts['seconds']:.1f} s",
    ]

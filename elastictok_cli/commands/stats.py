"""`elastictok stats`: what an .etk file holds and where its tokens went.

Needs neither model nor torch, unless a source is given to measure against.
"""

import csv
import io
import math
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from elastictok_cli.analysis import kinds, promise, units
from elastictok_cli.analysis.usage import MEASURED, FrameUsage, Totals, segments
from elastictok_cli.commands import plot
from elastictok_cli.commands.arguments import Device, DeviceName, Force, Json, Model, Threads, find_device
from elastictok_cli.commands.console import Display, JsonLines
from elastictok_cli.commands.damage import describe_damage
from elastictok_cli.commands.extras import STRUCTURE, need
from elastictok_cli.commands.failures import ExitCode, Failure, guarded
from elastictok_cli.commands.stats_text import Table, report
from elastictok_cli.commands.targets import (
    PIPE,
    check_read_twice,
    check_source,
    check_table_name,
    check_target,
    publish,
)
from elastictok_cli.drawing.tracks import Track, put_on_track

if TYPE_CHECKING:
    import torch

    from formats import EtkReader, KindCounts


@guarded
def stats(
    source: Annotated[Path, typer.Argument(metavar="IN.etk", help="- is standard input.")],
    show_all: Annotated[bool, typer.Option("--all", help="Show every frame and every missed block.")] = False,
    csv_target: Annotated[
        Path | None,
        typer.Option("--csv", metavar="FILE", help="Write a row for each frame; - is standard output."),
    ] = None,
    plot_target: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE", help="Draw the usage: .png, .svg, .pdf (extra 'plot')."),
    ] = None,
    show_kinds: Annotated[
        bool,
        typer.Option(
            "--kinds",
            help="Count tokens and cells by kind: FSQ codes, DCT, palettes, motion vectors, ... Reads every token.",
        ),
    ] = False,
    original: Annotated[
        Path | None,
        typer.Option(
            "--source",
            metavar="FILE",
            help="Decode, and measure PSNR, SSIM and MS-SSIM against this (extra 'compare').",
        ),
    ] = None,
    model: Model = None,
    device: Device = DeviceName.auto,
    threads: Threads = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Show what an .etk file holds and where its tokens went.

    Of a damaged file, the intact part is shown; the exit code is then 4.
    """
    check_source(source)
    to_stdout = csv_target is not None and str(csv_target) == PIPE
    if as_json and to_stdout:
        raise Failure("--json and --csv - both want standard output", ExitCode.USAGE)
    for target in (csv_target, plot_target):
        if target is not None and str(target) != PIPE:
            check_target(target, force=force, source=source)
            if original is not None:
                check_target(target, force=True, source=original)
    if csv_target is not None:
        check_table_name(csv_target)
    if plot_target is not None:
        plot.check_plot(plot_target.suffix)
    if original is not None:
        check_read_twice(original, "stats --source")
        need("--source", STRUCTURE)

    from formats import EtkReader

    name = "standard input" if str(source) == PIPE else units.printable(str(source))
    lines = JsonLines(enabled=as_json)
    totals = Totals()
    with ExitStack() as stack:
        reader = stack.enter_context(EtkReader(sys.stdin.buffer if str(source) == PIPE else source))
        table = Table(show_all=show_all, measured=original is not None)
        sheet = _Sheet(stack, csv_target)
        lines.write("file", _file_facts(reader, source))
        track = Track(name, _capacity(reader), reader.header.target_mse, reader.header.promise)
        wanted = as_json or csv_target is not None or plot_target is not None

        def see(row: FrameUsage) -> None:
            if plot_target is not None:
                put_on_track(track, row)
            sheet.add(row)
            if as_json:
                lines.write("frame", row._asdict())

        if original is None:
            for usage in segments(reader):
                totals.add_segment(usage)
                table.add_segment(usage)
                for row in usage.rows() if wanted else ():  # making them takes most of the time
                    see(row)
        else:
            for row in _measured(stack, reader, source, original, model, find_device(device, threads)):
                totals.add(row)
                table.add(row)
                see(row)
        if plot_target is not None:
            _draw(plot_target, name, track)
        counts = kinds.count_kinds(reader) if show_kinds else None
        damage = describe_damage(reader)
        summary = _summary(reader, totals, counts, damage, _size(source))
        lines.write("summary", summary)
        if not as_json and not to_stdout:
            width = shutil.get_terminal_size().columns
            for line in report(name, reader, totals, summary, table, width, counts=counts, show_all=show_all):
                typer.echo(line)
    for text in damage:
        typer.echo(f"warning: {text}", err=True)
    if damage:
        raise typer.Exit(ExitCode.CORRUPT)


def _measured(
    stack: ExitStack,
    reader: "EtkReader",
    path: Path,
    original: Path,
    model: Path | None,
    device: "torch.device",
) -> Iterator[FrameUsage]:
    """The same rows, with what decoding and looking at the source adds to them."""
    from elastictok_cli.commands.comparison import measured
    from elastictok_cli.commands.sides import LoadedModels, open_original

    display = stack.enter_context(Display(quiet=False))
    side = LoadedModels([] if model is None else [model], device).side(path, reader)
    count = reader.frame_count
    for item in measured(open_original(original, [side]), [side]):
        for usage in item.usages:
            if usage is not None:
                yield usage
                done = usage.frame + 1
                display.show(done / count if count else None, f"measuring frame {done}", "")


def _file_facts(reader: "EtkReader", source: Path) -> dict[str, Any]:
    """The header, with numbers worked out where people want them so."""
    header = reader.header
    model = header.model
    return {
        "name": str(source),
        "bytes": _size(source),
        "program": header.program,
        "model": model.name,
        "model_sha256": model.sha256.hex(),
        "width": header.width,
        "height": header.height,
        "grid": header.grid,
        "cell": model.cell,
        "block_frames": model.block_frames,
        "tokens_per_cell": model.tokens_per_cell,
        "tokens_per_block": _capacity(reader),
        "vocabulary": model.vocabulary or None,
        "vector": model.vector or None,
        "target_mse": header.target_mse,
        "target_tokens": header.target_tokens,
        "promise": header.promise,
        "worst": promise.worst(header),
        "budget": promise.budget(header),
        "bound": promise.bound(header),
        "allocation": header.allocation,
        "time_base": header.time_base,
        "average_rate": header.average_rate,
        "pixel_aspect": header.pixel_aspect,
        "rotation": header.rotation,
        "pixel_format": header.pixel_format,
        "color": header.color,
        "source_bytes": header.source_bytes,
        "audio_container": header.aux["container"] if header.aux else None,
        "metadata": header.metadata,
        "options": header.options,
    }


def _size(source: Path) -> int | None:
    """Bytes of the file; None of a pipe."""
    return source.stat().st_size if source.is_file() else None


def _capacity(reader: "EtkReader") -> int:
    rows, columns = reader.header.grid
    return rows * columns * reader.header.model.full_cell


def _measured_means(totals: Totals) -> dict[str, float]:
    """Means over frames, NaN where nothing was measured; the PSNR is that of the mean error."""
    means = {name: totals.measured[name] / totals.frames if totals.frames else math.nan for name in MEASURED}
    return {**means, "measured_psnr": units.psnr(means["measured_mse"])}


def _summary(
    reader: "EtkReader",
    totals: Totals,
    kind_counts: "KindCounts | None",
    damage: list[str],
    size: int | None,
) -> dict[str, Any]:
    """The facts of the summary. size: bytes of the file, None if unknown."""
    counts = totals.block_tokens
    mse, worst = totals.errors()
    mean = sum(counts) / len(counts) if counts else 0.0
    missed = [number for number, flag in enumerate(totals.block_missed) if flag]
    whole = reader.complete and totals.frames > 0
    return {
        "frames": totals.frames,
        "blocks": len(counts),
        "segments": totals.segments,
        "duration": totals.duration,
        "tokens": sum(counts),
        "kinds": None if kind_counts is None else asdict(kind_counts),
        "mean_block_tokens": mean,
        "min_block_tokens": min(counts, default=0),
        "max_block_tokens": max(counts, default=0),
        "share": mean / _capacity(reader),
        "video_bytes": round(totals.bytes),
        "kbps": units.kbps(totals.bytes, totals.duration, totals.frames),
        "mse": mse,
        "psnr": units.psnr(mse),
        "worst_frame_mse": worst,
        **_measured_means(totals),
        "tokens_per_block": _capacity(reader),
        "missed": missed,
        "promise_kept": promise.kept(reader.header, totals.mean_error, len(missed), whole=whole),
        "budget_used": promise.used(
            reader.header, size=size, tokens=sum(counts), seconds=totals.duration, frames=totals.frames
        ),
        "complete": reader.complete,
        "damage": damage,
    }


class _Sheet:
    """The CSV file; nothing without a target."""

    def __init__(self, stack: ExitStack, target: Path | None) -> None:
        self._writer: Any = None
        if target is None:
            return
        text: TextIO
        if str(target) == PIPE:
            text = sys.stdout
        else:
            stream = stack.enter_context(publish(target))
            text = stack.enter_context(
                io.TextIOWrapper(stream, encoding="utf-8", newline="", write_through=True)
            )
        self._writer = csv.writer(text, lineterminator="\n")
        self._writer.writerow(FrameUsage._fields)

    def add(self, row: FrameUsage) -> None:
        if self._writer is not None:
            self._writer.writerow([int(value) if isinstance(value, bool) else value for value in row])


def _draw(target: Path, name: str, track: Track) -> None:
    if not track.error.points:
        raise Failure("there is no frame to draw", ExitCode.BAD_INPUT)
    with publish(target) as file:
        plot.draw(track, name, file, target.suffix)
    typer.echo(f"wrote {target}", err=True)

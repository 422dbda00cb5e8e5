"""`elastictok stats`: what an .etk file holds and where its tokens went. Needs neither model nor torch."""

import csv
import io
import math
import shutil
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from elastictok_cli.commands import chart, plot, units
from elastictok_cli.commands.arguments import Force, Json
from elastictok_cli.commands.console import JsonLines
from elastictok_cli.commands.damage import describe_damage
from elastictok_cli.commands.failures import ExitCode, Failure, guarded
from elastictok_cli.commands.targets import PIPE, check_source, check_target, publish
from elastictok_cli.commands.usage import FrameUsage, Totals, frames

if TYPE_CHECKING:
    from formats import EtkReader

_HEAD, _TAIL = 16, 8  # frames shown of a long file
_MOST_NAMED = 10  # missed blocks


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
    if plot_target is not None:
        plot.check_plot(plot_target.suffix)

    from formats import EtkReader

    name = "standard input" if str(source) == PIPE else units.printable(str(source))
    lines = JsonLines(enabled=as_json)
    totals = Totals()
    with ExitStack() as stack:
        reader = stack.enter_context(EtkReader(sys.stdin.buffer if str(source) == PIPE else source))
        table = _Table(show_all=show_all)
        sheet = _Sheet(stack, csv_target)
        lines.write("file", _file_facts(reader, source))
        for row in frames(reader):
            totals.add(row)
            table.add(row)
            sheet.add(row)
            if as_json:
                lines.write("frame", row._asdict())
        if plot_target is not None:
            _draw(plot_target, name, reader, totals)
        damage = describe_damage(reader)
        summary = _summary(reader, totals, damage)
        lines.write("summary", summary)
        if not as_json and not to_stdout:
            width = shutil.get_terminal_size().columns
            for line in _report(name, reader, totals, summary, table, width, show_all=show_all):
                typer.echo(line)
    for text in damage:
        typer.echo(f"warning: {text}", err=True)
    if damage:
        raise typer.Exit(ExitCode.CORRUPT)


def _file_facts(reader: "EtkReader", source: Path) -> dict[str, Any]:
    """The header, with numbers worked out where people want them so."""
    header = reader.header
    model = header.model
    return {
        "name": str(source),
        "bytes": source.stat().st_size if source.is_file() else None,
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


def _capacity(reader: "EtkReader") -> int:
    rows, columns = reader.header.grid
    return rows * columns * reader.header.model.tokens_per_cell


def _summary(reader: "EtkReader", totals: Totals, damage: list[str]) -> dict[str, Any]:
    counts = totals.block_tokens
    mse, worst = totals.errors()
    mean = sum(counts) / len(counts) if counts else 0.0
    return {
        "frames": totals.frames,
        "blocks": len(counts),
        "segments": totals.segments,
        "duration": totals.duration,
        "tokens": sum(counts),
        "mean_block_tokens": mean,
        "min_block_tokens": min(counts, default=0),
        "max_block_tokens": max(counts, default=0),
        "share": mean / _capacity(reader),
        "video_bytes": round(totals.bytes),
        "kbps": units.kbps(totals.bytes, totals.duration),
        "mse": mse,
        "psnr": units.psnr(mse),
        "worst_frame_mse": worst,
        "missed": [number for number, missed in enumerate(totals.block_missed) if missed],
        "complete": reader.complete,
        "damage": damage,
    }


def _report(
    name: str,
    reader: "EtkReader",
    totals: Totals,
    summary: dict[str, Any],
    table: "_Table",
    width: int,
    *,
    show_all: bool,
) -> Iterator[str]:
    """The report for people."""
    yield from _header_lines(name, reader)
    yield from _summary_lines(reader, totals, summary, show_all=show_all)
    if not totals.frames:
        return
    yield ""
    yield (
        f"tokens per block, from {units.clock(totals.frame_times[0], 2)} to {units.clock(totals.end, 2)}"
        + (" (!: missed the target)" if summary["missed"] else "")
    )
    yield from chart.chart(totals.block_tokens, totals.block_missed, width=width)
    yield ""
    yield from table.lines()


def _header_lines(name: str, reader: "EtkReader") -> Iterator[str]:
    header = reader.header
    model = header.model
    rows, columns = header.grid
    rate = (
        f", {float(Fraction(*header.average_rate)):.5g} fps"
        if header.average_rate and header.average_rate[1]
        else ""
    )
    turned = f", turned by {header.rotation}°" if header.rotation else ""
    yield f"{name}: {header.width}x{header.height}{rate}{turned}"
    yield f"  model    {units.printable(model.name)}, sha256 {model.sha256.hex()[:12]}…"
    yield (
        f"  grid     {columns} x {rows} cells of {model.cell[1]}x{model.cell[0]} pixels x {model.block_frames} frames, "
        f"{units.count(model.tokens_per_cell, 'token')} each at most"
    )
    if header.target_mse is not None:
        each = "cell" if header.allocation == "cell" else "block"
        yield f"  target   {units.quality(header.target_mse)}, a length for each {each}"
    elif header.target_tokens is not None:
        yield f"  target   {units.count(header.target_tokens, 'token')} in every cell"
    if "thinned" in header.options:
        was = header.options.get("thinned_from_mse")
        yield f"  thinned  {units.printable(str(header.options['thinned']))}" + (
            f"; made for {units.quality(was)}" if isinstance(was, float) else ""
        )


def _summary_lines(
    reader: "EtkReader", totals: Totals, summary: dict[str, Any], *, show_all: bool
) -> Iterator[str]:
    yield (
        f"  length   {units.count(totals.frames, 'frame')}, {units.clock(totals.duration, 2)}, "
        f"{units.count(summary['blocks'], 'block')}, {units.count(totals.segments, 'segment')}"
    )
    rate = f", {summary['kbps']:.0f} kbps" if summary["kbps"] is not None else ""
    audio = "; audio and subtitles are carried too" if reader.header.aux else ""
    yield f"  video    {units.size(totals.bytes)}{rate}{audio}"
    yield (
        f"  tokens   {summary['mean_block_tokens']:.0f} a block on average ({summary['min_block_tokens']} to "
        f"{summary['max_block_tokens']}), {summary['share']:.1%} of the most possible ({_capacity(reader)})"
    )
    if math.isnan(summary["mse"]):
        yield "  quality  not known: the file does not record its error"
    else:
        mean, worst = units.quality(summary["mse"]), units.quality(summary["worst_frame_mse"])
        yield f"  quality  {mean} on average; worst frame {worst}"
    missed = summary["missed"]
    if missed:
        named = missed if show_all else missed[:_MOST_NAMED]
        places = ", ".join(f"{number} ({units.clock(totals.block_times[number], 2)})" for number in named)
        more = f" and {len(missed) - len(named)} more (--all names them)" if len(named) < len(missed) else ""
        yield f"  missed   {units.count(len(missed), 'block')}: {places}{more}"


class _Table:
    """The first and last rows of a long file, or all of them."""

    def __init__(self, *, show_all: bool) -> None:
        self._head: list[FrameUsage] = []
        self._tail: deque[FrameUsage] = deque(maxlen=_TAIL)
        self._limit = None if show_all else _HEAD
        self._count = 0

    def add(self, row: FrameUsage) -> None:
        self._count += 1
        if self._limit is None or len(self._head) < self._limit:
            self._head.append(row)
        else:
            self._tail.append(row)

    def lines(self) -> Iterator[str]:
        yield f"{'frame':>7} {'time':>11} {'block':>6} {'tokens':>8} {'share':>6} {'bytes':>8} {'mse':>9} {'psnr':>6}"
        yield from map(_table_row, self._head)
        hidden = self._count - len(self._head) - len(self._tail)
        if hidden:
            yield f"    ... {units.count(hidden, 'frame')} not shown: --all shows them, --csv FILE writes them"
        yield from map(_table_row, self._tail)


def _table_row(row: FrameUsage) -> str:
    notes = [
        word for word, said in (("key", row.keyframe), ("cut", row.scene_cut), ("missed", row.missed)) if said
    ]
    line = (
        f"{row.frame:>7} {units.clock(row.time, 3):>11} {row.block:>6} {row.tokens:>8.1f} {row.share:>6.1%} "
        f"{row.bytes:>8.1f} {row.mse:>9.3g} {row.psnr:>6.2f}  {' '.join(notes)}"
    )
    return line.rstrip()


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


def _draw(target: Path, name: str, reader: "EtkReader", totals: Totals) -> None:
    if not totals.frames:
        raise Failure("there is no frame to draw", ExitCode.BAD_INPUT)
    with publish(target) as file:
        plot.draw(totals, _capacity(reader), reader.header.target_mse, name, file, target.suffix)
    typer.echo(f"wrote {target}", err=True)

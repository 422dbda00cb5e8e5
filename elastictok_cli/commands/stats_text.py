"""What `stats` tells people: facts, a chart, a table."""

import math
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from elastictok_cli.commands import chart, units
from elastictok_cli.commands.usage import FrameUsage, Totals

if TYPE_CHECKING:
    from formats import EtkReader

_HEAD, _TAIL = 16, 8  # frames shown of a long file
_MOST_NAMED = 10  # missed blocks


def report(
    name: str,
    reader: "EtkReader",
    totals: Totals,
    summary: dict[str, Any],
    table: "Table",
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
    told = [("^", "scene cut", totals.block_cut), ("!", "missed the target", totals.block_missed)]
    named = ", ".join(f"{letter} {word}" for letter, word, marked in told if any(marked))
    yield "tokens per block over time" + (f"   ({named})" if named else "")
    yield from chart.chart(
        totals.block_tokens,
        totals.block_lengths(),
        [(letter, marked) for letter, _, marked in told],
        width=width,
        ends=(units.clock(totals.frame_times[0], 2), units.clock(totals.end, 2)),
    )
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
        f"{summary['max_block_tokens']}), {summary['share']:.1%} of the most possible ({summary['tokens_per_block']})"
    )
    if math.isnan(summary["mse"]):
        yield "  quality  not known: the file does not record its error"
    else:
        mean, worst = units.quality(summary["mse"]), units.quality(summary["worst_frame_mse"])
        yield f"  quality  {mean} on average; worst frame {worst}"
    if not math.isnan(summary["measured_mse"]):
        yield f"  measured {_measured(summary)}"
    missed = summary["missed"]
    if missed:
        named = missed if show_all else missed[:_MOST_NAMED]
        places = ", ".join(f"{number} ({units.clock(totals.block_times[number], 2)})" for number in named)
        more = f" and {len(missed) - len(named)} more (--all names them)" if len(named) < len(missed) else ""
        yield f"  missed   {units.count(len(missed), 'block')}: {places}{more}"


def _measured(summary: dict[str, Any]) -> str:
    """Means against the source."""
    parts = [units.quality(summary["measured_mse"])]
    for name, key in (("SSIM", "ssim"), ("MS-SSIM", "ms_ssim")):
        if not math.isnan(summary[key]):
            parts.append(f"{name} {summary[key]:.4f}")
    return ", ".join(parts) + " on average against the source"


class Table:
    """The first and last rows of a long file, or all of them."""

    def __init__(self, *, show_all: bool, measured: bool = False) -> None:
        self._measured = measured
        self._head: list[FrameUsage] = []
        self._tail: deque[FrameUsage] = deque(maxlen=_TAIL)
        self._limit = None if show_all else _HEAD
        self._count = 0

    def add(self, row: FrameUsage) -> None:
        """The next frame."""
        self._count += 1
        if self._limit is None or len(self._head) < self._limit:
            self._head.append(row)
        else:
            self._tail.append(row)

    def lines(self) -> Iterator[str]:
        """A heading, and a line for each frame that is shown."""
        yield (
            f"{'frame':>7} {'time':>11} {'block':>6} {'tokens':>8} {'share':>6} {'bytes':>8} {'mse':>9} {'psnr':>6}"
            + (f" {'measured':>8} {'ssim':>6} {'ms-ssim':>7}" if self._measured else "")
        )
        yield from map(self._row, self._head)
        hidden = self._count - len(self._head) - len(self._tail)
        if hidden:
            yield f"    ... {units.count(hidden, 'frame')} not shown: --all shows them, --csv FILE writes them"
        yield from map(self._row, self._tail)

    def _row(self, row: FrameUsage) -> str:
        notes = [
            word
            for word, said in (("key", row.keyframe), ("cut", row.scene_cut), ("missed", row.missed))
            if said
        ]
        line = (
            f"{row.frame:>7} {units.clock(row.time, 3):>11} {row.block:>6} {row.tokens:>8.1f} {row.share:>6.1%} "
            f"{row.bytes:>8.1f} {_known(row.mse, '9.3g')} {_known(row.psnr, '6.2f')}"
        )
        if self._measured:
            line += f" {_known(row.measured_psnr, '8.2f')} {_known(row.ssim, '6.4f')} {_known(row.ms_ssim, '7.4f')}"
        return f"{line}  {' '.join(notes)}".rstrip()


def _known(value: float, form: str) -> str:
    """A number in a column, a dash where it is unknown: thinned files, and MS-SSIM of pictures too small for it."""
    return f"{'-':>{form.partition('.')[0]}}" if math.isnan(value) else f"{value:>{form}}"

"""What `stats` tells people: facts, a chart, a table."""

import heapq
import math
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from typing import TYPE_CHECKING, Any

from elastictok_cli.analysis import kinds, promise, units
from elastictok_cli.analysis.usage import FrameUsage, SegmentUsage, Totals
from elastictok_cli.commands import chart

if TYPE_CHECKING:
    from formats import EtkReader, KindCounts

# Rows of the table for a long file: frames at its beginning and end, and the first frame of some blocks.
_FIRST_FRAMES, _LAST_FRAMES = 12, 6
_MAX_COSTLY_BLOCKS, _MAX_CUT_BLOCKS = 8, 8
_MAX_NAMED_BLOCKS = (
    10  # block numbers in a line of the summary: those at scene cuts, those that missed the target
)


def report(
    name: str,
    reader: "EtkReader",
    totals: Totals,
    summary: dict[str, Any],
    table: "Table",
    width: int,
    *,
    counts: "KindCounts | None",
    show_all: bool,
) -> Iterator[str]:
    """The report for people. counts: by kind, where they are asked for."""
    yield from _header_lines(name, reader)
    yield from _promise_lines(reader, totals, summary)
    yield from _summary_lines(reader, totals, summary, show_all=show_all)
    if counts is not None:
        yield ""
        yield from kinds.table(counts)
    if not totals.frames:
        return
    yield ""
    missed_words = promise.missed_words(reader.header)
    marks = [("^", "scene cut", totals.block_cut), ("!", missed_words, totals.block_missed)]
    named = ", ".join(f"{letter} {word}" for letter, word, marked in marks if any(marked))
    yield "tokens per block over time" + (f"   ({named})" if named else "")
    yield from chart.chart(
        totals.block_tokens,
        totals.block_lengths(),
        [(letter, marked) for letter, _, marked in marks],
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
    lengths = f", a length for each {header.allocation}" if header.target_tokens is None else ""
    turned = f", turned by {header.rotation}°" if header.rotation else ""
    yield f"{name}: {header.width}x{header.height}{rate}{turned}"
    yield f"  model    {units.printable(model.name)}, sha256 {model.sha256.hex()[:12]}…"
    yield (
        f"  grid     {columns} x {rows} cells of {model.cell[1]}x{model.cell[0]} pixels x {model.block_frames} frames, "
        f"{units.count(model.tokens_per_cell, 'token')} each at most" + lengths
    )


def _promise_lines(reader: "EtkReader", totals: Totals, summary: dict[str, Any]) -> Iterator[str]:
    """What was asked for, and what became of it."""
    header = reader.header
    if header.target_mse is not None:
        whole = reader.complete and totals.frames > 0
        found = promise.outcome(header, totals.mean_error, len(summary["missed"]), whole=whole)
        scope = "mean over the video" if header.promise == "video" else "mean of every block"
        yield f"  target   {units.quality(header.target_mse)}, {scope}: {found}"
    elif header.target_tokens is not None:
        yield f"  target   {units.count(header.target_tokens, 'token')} in every cell"
    if limits := promise.budget(header):
        bound = promise.bound(header)
        decided = f"; the {bound} decided the error" if bound else ""
        yield f"  budget   {promise.budget_words(limits, summary['budget_used'])}{decided}"
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
        f"{summary['max_block_tokens']}), {summary['share']:.1%} of a full block ({summary['tokens_per_block']})"
    )
    if not totals.frames:
        yield "  quality  not known: no frame can be read"
    elif math.isnan(summary["mse"]):
        yield "  quality  not known: the file does not record its error"
    else:
        mean, worst = units.quality(summary["mse"]), units.quality(summary["worst_frame_mse"])
        yield f"  quality  {mean} on average; worst frame {worst}"
    if not math.isnan(summary["measured_mse"]):
        yield f"  measured {_measured(summary)}"
    cuts = [number for number, cut in enumerate(totals.block_cut) if cut]
    for name, numbers in (("cuts", cuts), ("missed", summary["missed"])):
        if numbers:
            yield f"  {name:8} {_places(numbers, totals, show_all=show_all)}"


def _places(numbers: list[int], totals: Totals, *, show_all: bool) -> str:
    """Blocks and when they begin."""
    named = numbers if show_all else numbers[:_MAX_NAMED_BLOCKS]
    places = ", ".join(f"{number} ({units.clock(totals.block_times[number], 2)})" for number in named)
    more = f" and {len(numbers) - len(named)} more (--all names them)" if len(named) < len(numbers) else ""
    return f"{units.count(len(numbers), 'block')}: {places}{more}"


def _measured(summary: dict[str, Any]) -> str:
    """Means against the source."""
    parts = [units.quality(summary["measured_mse"])]
    for name, key in (("SSIM", "ssim"), ("MS-SSIM", "ms_ssim")):
        if not math.isnan(summary[key]):
            parts.append(f"{name} {summary[key]:.4f}")
    return ", ".join(parts) + " on average against the source"


class Table:
    """Of a long file the first and last rows, and where tokens went: scene cuts and the costliest blocks. Or all."""

    def __init__(self, *, show_all: bool, measured: bool = False) -> None:
        self._measured = measured
        self._head: list[FrameUsage] = []
        self._tail: deque[FrameUsage] = deque(maxlen=_LAST_FRAMES)
        self._recent: deque[SegmentUsage] = deque()  # whose rows are made if they turn out to be the last
        self._limit = math.inf if show_all else _FIRST_FRAMES
        self._costly, self._cuts = _Costliest(_MAX_COSTLY_BLOCKS), _Costliest(_MAX_CUT_BLOCKS)
        self._block = -1

    def add(self, row: FrameUsage) -> None:
        """The next frame."""
        self._add(row)
        if row.block != self._block:
            self._block = row.block
            self._costly.offer(row)
            if row.scene_cut:
                self._cuts.offer(row)

    def add_segment(self, usage: SegmentUsage) -> None:
        """The next frames. Rows are made only of those that may be shown."""
        facts = usage.facts
        if len(self._head) < self._limit:
            for row in usage.rows():
                self._add(row)
        else:
            self._recent.append(usage)
            while sum(len(later.facts.pts) for later in islice(self._recent, 1, None)) >= _LAST_FRAMES:
                self._recent.popleft()
        if max(facts.tokens) > self._costly.least:
            for number, tokens in enumerate(facts.tokens):
                if tokens > self._costly.least:
                    self._costly.offer(next(usage.block(number)))
        if any(facts.scene_cuts):
            for number, cut in enumerate(facts.scene_cuts):
                if cut and facts.tokens[number] > self._cuts.least:
                    self._cuts.offer(next(usage.block(number)))

    def _add(self, row: FrameUsage) -> None:
        if len(self._head) < self._limit:
            self._head.append(row)
        else:
            self._tail.append(row)

    def lines(self) -> Iterator[str]:
        """A heading, and a line for each frame that is shown."""
        yield (
            f"{'frame':>7} {'time':>11} {'block':>6} {'tokens':>8} {'share':>6} {'bytes':>8} {'mse':>9} {'psnr':>6}"
            + (f" {'measured':>8} {'ssim':>6} {'ms-ssim':>7}" if self._measured else "")
        )
        for usage in self._recent:
            self._tail.extend(usage.rows())
        costly = {row.frame for row in self._costly.rows}
        rows = {row.frame: row for row in (*self._head, *self._tail, *self._costly.rows, *self._cuts.rows)}
        hidden, expected = 0, min(rows, default=0)
        for frame in sorted(rows):
            if gap := frame - expected:
                yield f"    ... {units.count(gap, 'frame')}"
            hidden, expected = hidden + gap, frame + 1
            yield self._row(rows[frame], costly=frame in costly and len(rows) > _MAX_COSTLY_BLOCKS)
        if hidden:
            yield f"{units.count(hidden, 'frame')} not shown: --all shows them, --csv FILE writes them"

    def _row(self, row: FrameUsage, *, costly: bool) -> str:
        marks = (("key", row.keyframe), ("cut", row.scene_cut), ("missed", row.missed), ("costly", costly))
        notes = [word for word, said in marks if said]
        line = (
            f"{row.frame:>7} {units.clock(row.time, 3):>11} {row.block:>6} {row.tokens:>8.1f} {row.share:>6.1%} "
            f"{row.bytes:>8.1f} {_known(row.mse, '9.3g')} {_known(row.psnr, '6.2f')}"
        )
        if self._measured:
            line += f" {_known(row.measured_psnr, '8.2f')} {_known(row.ssim, '6.4f')} {_known(row.ms_ssim, '7.4f')}"
        return f"{line}  {' '.join(notes)}".rstrip()


class _Costliest:
    """The first frames of at most `count` blocks: those with most tokens, of equals the earlier ones."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._heap: list[tuple[int, int, FrameUsage]] = []

    @property
    def least(self) -> int:
        """A block needs more tokens than this to get in."""
        return self._heap[0][0] if len(self._heap) == self._count else -1

    @property
    def rows(self) -> list[FrameUsage]:
        """In no order."""
        return [row for _, _, row in self._heap]

    def offer(self, row: FrameUsage) -> None:
        """Take part, with the first frame of a block."""
        if row.block_tokens > self.least:
            entry = (row.block_tokens, -row.frame, row)
            if len(self._heap) < self._count:
                heapq.heappush(self._heap, entry)
            else:
                heapq.heapreplace(self._heap, entry)


def _known(value: float, form: str) -> str:
    """A number in a column, a dash where it is unknown: thinned files, and MS-SSIM of pictures too small for it."""
    return f"{'-':>{form.partition('.')[0]}}" if math.isnan(value) else f"{value:>{form}}"

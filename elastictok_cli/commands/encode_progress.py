"""What `encode` shows while it works and when it is done, from the events of the encoder."""

import time
from collections.abc import Callable
from dataclasses import asdict
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from elastictok_cli.analysis import promise, units
from elastictok_cli.commands.console import Display

if TYPE_CHECKING:
    from elastictok_cli.codec.events import BlockDone, Event, Finished, Restarted, Started, Surveyed
    from elastictok_cli.codec.options import EncodeOptions

_MAX_NAMED_BLOCKS = 10  # missed blocks in the summary


class EncodeProgress:
    """Turns events into the state of the progress display. side_rate: bytes a second of audio and subtitles."""

    def __init__(self, display: Display, side_rate: Callable[[], float]) -> None:
        self.finished: Finished | None = None
        self._display, self._side_rate = display, side_rate
        self._start_over()

    def _start_over(self) -> None:
        """Nothing is encoded yet."""
        self.missed_blocks = 0
        self.missed: list[BlockDone] = []  # the first of them
        self._began = time.monotonic()
        self._blocks = self._frames = self._tokens = 0
        self._error = 0.0
        self._seconds = 0.0  # of the video so far
        self._first: float | None = None  # time of the first block
        self._written = 0  # bytes of segments
        self._written_tokens = 0  # of the segments in them

    def see(self, event: "Event") -> None:
        """Take the next event of the encoder, and show where the work stands."""
        from elastictok_cli.codec import events

        match event:
            case events.Surveyed():
                self._survey(event)
            case events.Restarted():
                self._display.note(restarted_sentence(event))
                self._start_over()
            case events.Started():
                self._began = time.monotonic()
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
                    self.missed_blocks += 1
                    if len(self.missed) < events.MOST_MISSED:
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

    def _survey(self, event: "Surveyed") -> None:
        spent = max(time.monotonic() - self._began, 1e-6)
        fraction = min(1.0, event.frames / event.total) if event.total else None
        head = "first pass" + (f"  {fraction:.0%}" if fraction else "")
        self._display.show(fraction, head, units.speed(event.frames, spent))

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
        if self.missed_blocks:
            facts.append(f"{self.missed_blocks} missed")
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


def restarted_sentence(event: "Restarted") -> str:
    """Why the file is encoded again."""
    names = {"error": "error", "tokens": "tokens", "bytes": "size"}
    return f"encoding again: {names[event.limit]} at {event.used:.1%} of what is allowed"


def event_line(event: "Event") -> tuple[str, dict[str, Any]]:
    """The type and facts of the JSON line for an event."""
    from elastictok_cli.codec import events

    names = {
        events.Surveyed: "surveyed",
        events.Restarted: "restarted",
        events.Started: "started",
        events.BlockDone: "block",
        events.SegmentWritten: "segment",
    }
    return names[type(event)], asdict(event)


def summary_of(
    finished: "Finished", missed: "list[BlockDone]", *, whole: bool, options: "EncodeOptions"
) -> dict[str, Any]:
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
        "promise": options.promise,
        "kept": not _broken(finished, options),
        "budget": options.budget.recorded() if options.budget else None,
        "missed": [{"index": block.index, "time": block.time, "mse": block.mse} for block in missed],
    }


def _broken(finished: "Finished", options: "EncodeOptions") -> list[str]:
    """What was not kept of target, promise and budget, as sentences."""
    broken = []
    if finished.missed_blocks:
        limit = options.worst_error if options.planned else options.mse
        broken.append(missed_sentence(finished.missed_blocks, limit, finished.worst_mse))
    promised = options.mse if options.promise == "video" and finished.bound != "budget" else None
    if promised is not None and finished.mse > promised:
        broken.append(f"the video has {units.quality(finished.mse)}, not {units.quality(promised)}")
    if options.budget is not None:
        seconds = Fraction(finished.duration)
        size, tokens = options.budget.bytes_for(seconds), options.budget.tokens_for(seconds)
        if size is not None and finished.bytes > size:
            broken.append(f"the file has {units.size(finished.bytes)}, not {units.size(size)}")
        if tokens is not None and finished.tokens > tokens:
            broken.append(f"the file has {finished.tokens} tokens, not {tokens}")
    return broken


def broken_promise(finished: "Finished", options: "EncodeOptions") -> str:
    """What was not kept, as one sentence."""
    return "; ".join(_broken(finished, options))


def missed_sentence(blocks: int, target: float | None, worst: float) -> str:
    """How many blocks missed the target (MSE), and by how much at worst."""
    return (
        f"{units.count(blocks, 'block')} did not reach {units.quality(target or 0)}; "
        f"the worst has {units.quality(worst)}"
    )


def summary_lines(name: str, facts: dict[str, Any], options: "EncodeOptions") -> list[str]:
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
        f"{facts['max_block_tokens']}), {facts['share']:.1%} of a full block ({facts['tokens_per_block']})",
        f"  quality  {units.quality(facts['mse'])} on average; worst block {units.quality(facts['worst_mse'])}",
        f"  speed    {facts['seconds']:.1f} s, {units.speed(facts['frames'], facts['seconds'])}",
    ]
    if options.planned:
        lines += _promise_lines(facts, options)
    missed = facts["missed_blocks"]
    if missed:
        limit = options.worst_error if options.planned else options.mse
        lines.append(f"  missed   {missed_sentence(missed, limit, facts['worst_mse'])}:")
        named = facts["missed"][:_MAX_NAMED_BLOCKS]
        for block in named:
            lines.append(
                f"           block {block['index']} at {units.clock(block['time'], 2)}, {units.quality(block['mse'])}"
            )
        if missed > len(named):
            lines.append(f"           and {missed - len(named)} more; elastictok stats lists them all")
    return lines


def _promise_lines(facts: dict[str, Any], options: "EncodeOptions") -> list[str]:
    lines = []
    if options.mse is not None:
        kept = "the budget does not reach it" if facts["bound"] == "budget" else "kept"
        if facts["bound"] != "budget" and facts["mse"] > options.mse:
            kept = "missed"
        lines.append(f"  target   {units.quality(options.mse)}, mean over the video: {kept}")
    if options.budget is not None:
        seconds = facts["duration"]
        spent = {
            "kbps": facts["kbps"],
            "max_bytes": facts["bytes"],
            "max_tokens": facts["tokens"],
            "tokens_per_second": facts["tokens"] / seconds if seconds else None,
        }
        lines.append(f"  budget   {promise.budget_words(options.budget.recorded(), spent)}")
    return lines

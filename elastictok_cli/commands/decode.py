"""`elastictok decode`: an .etk file to a video."""

import sys
import time
from contextlib import ExitStack
from enum import StrEnum
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from elastictok_cli.analysis import units
from elastictok_cli.commands import signals
from elastictok_cli.commands.arguments import (
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
from elastictok_cli.commands.damage import describe_damage
from elastictok_cli.commands.failures import ExitCode, Failure, guarded
from elastictok_cli.commands.targets import PIPE, check_source, check_target, name_beside

if TYPE_CHECKING:
    from elastictok_cli.video import Frame, VideoWriter
    from formats import EtkReader

_SECONDS_BETWEEN_REPORTS = 1.0  # seconds between progress objects


class Codec(StrEnum):
    """Video codec of the output."""

    h264 = "h264"
    hevc = "hevc"
    av1 = "av1"
    ffv1 = "ffv1"


@guarded
def decode(
    source: Annotated[Path, typer.Argument(metavar="IN.etk", help="- is standard input.")],
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="OUT",
            help=".mp4 .mkv .mov .webm .y4m, .png or .jpg for one frame, a folder/ for PNG files, - for Y4M on "
            "standard output. A file that may be the video IN.etk was made from is not overwritten, -y or not: one of "
            "that size, and without OUT also where the size is not known.",
            show_default="IN with .mp4; .png if it is one frame without sound; .mkv if lossless, or if .mp4 cannot "
            "hold all sound and subtitles",
        ),
    ] = None,
    codec: Annotated[
        Codec | None,
        typer.Option(
            help="Written visually lossless; ffv1 exactly.", show_default="h264; av1 in a .webm file"
        ),
    ] = None,
    lossless: Annotated[
        bool, typer.Option("--lossless", help="Every pixel as decoded: FFV1 (.mkv) or PNG.")
    ] = False,
    raw: Annotated[bool, typer.Option("--raw", help="With OUT -: bare RGB24 bytes instead of Y4M.")] = False,
    start: Start = None,
    duration: Duration = None,
    no_audio: NoAudio = False,
    model: Model = None,
    device: Device = DeviceName.auto,
    threads: Threads = None,
    jobs: Jobs = None,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Turn an .etk file back into a video.

    What is damaged is left out and named; the exit code is then 4.
    """
    check_window(start, duration)
    if target == PIPE and as_json:
        raise Failure("--json and OUT - both want standard output", ExitCode.USAGE)
    if raw and target != PIPE:
        raise Failure("--raw needs - as OUT", ExitCode.USAGE)
    check_source(source)

    from elastictok_cli.video.writer import check_output
    from formats import EtkReader

    lines = JsonLines(enabled=as_json)
    with ExitStack() as stack:
        reader = stack.enter_context(EtkReader(sys.stdin.buffer if str(source) == PIPE else source))
        named = target is not None
        target = target or _default_target(
            source, reader, lossless=lossless or codec is Codec.ffv1, audio=not no_audio
        )
        windowed = start is not None or duration is not None
        codec = codec or (Codec.av1 if target.lower().endswith(".webm") else Codec.h264)
        _spare_source(Path(target), source, reader, named=named)
        check_target(Path(target), force=force, source=source)
        _refuse_device(Path(target))
        check_output(
            target,
            codec=codec.value,
            lossless=lossless,
            raw=raw,
            frames=None if windowed else reader.frame_count,
        )
        display = stack.enter_context(Display(quiet=quiet))
        where = find_device(device, threads)
        loaded = load_model(model, where)
        began = time.monotonic()

        from elastictok_cli.codec.decoder import ModelMismatch, window
        from elastictok_cli.codec.decoder import decode as decode_frames

        first_pts, end_pts = window(reader.header, reader, start, duration)
        header = reader.header
        lines.write(
            "started",
            {
                "width": header.width,
                "height": header.height,
                "frames": None if windowed else reader.frame_count,
                "model": header.model.name,
                "output": target,
            },
        )
        check_jobs(jobs, loaded, where)
        frames = decode_frames(
            reader, loaded, where, first_pts=first_pts if windowed else None, end_pts=end_pts, jobs=jobs
        )
        stack.callback(frames.close)
        try:
            first = next(frames, None)
        except ModelMismatch as error:
            raise Failure(str(error), ExitCode.BAD_INPUT) from None
        if first is None:
            raise _nothing(reader, windowed=windowed)
        with _writer(
            target,
            reader,
            first,
            end_pts,
            codec=codec,
            lossless=lossless,
            raw=raw,
            audio=not no_audio,
            rebase=start is not None,
            force=force,
        ) as writer:
            progress = DecodeProgress(display, lines, reader, first, end_pts)
            shift = first.pts if start is not None else 0
            for frame in chain([first], frames):
                writer.write(_moved(frame, shift))
                progress.see(frame)
            signals.check()
    damage = describe_damage(reader)
    for text in damage:
        display.warn(text)
        lines.write("damage", {"message": text})
    for text in writer.warnings:
        display.warn(text)
        lines.write("warning", {"message": text})
    seconds = time.monotonic() - began
    display.note(
        f"{target}: {units.count(progress.frames, 'frame')} in {seconds:.1f} s, {units.speed(progress.frames, seconds)}"
    )
    lines.write(
        "summary",
        {
            "output": target,
            "frames": progress.frames,
            "seconds": seconds,
            "fps": progress.frames / seconds,
            "damaged": bool(damage),
        },
    )
    if damage:
        raise typer.Exit(ExitCode.CORRUPT)


def _default_target(source: Path, reader: "EtkReader", *, lossless: bool, audio: bool) -> str:
    """The source's name with the first suffix that takes all that the file carries."""
    carried = reader.header.aux if audio else None
    if carried is None and reader.index is not None and reader.frame_count == 1:
        return str(name_beside(source, ".png"))
    homes = (".mkv", ".nut") if lossless else (".mp4", ".mkv", ".mov", ".nut")
    if carried is None:
        return str(name_beside(source, homes[0]))

    from elastictok_cli.video.holding import streams_not_held

    lost = {suffix: len(streams_not_held(reader.aux(), carried["container"], suffix)) for suffix in homes}
    return str(name_beside(source, min(homes, key=lambda suffix: lost[suffix])))


def _spare_source(target: Path, source: Path, reader: "EtkReader", *, named: bool) -> None:
    """Raise Failure where `target` may be the video that the file was made from: it would be gone for good.

    All that is known of that video is its size, and not even that where it came from a pipe.
    """
    if not target.is_file():
        return
    size = reader.header.source_bytes
    if size is not None and size == target.stat().st_size:
        raise Failure(
            f"{target} is as large as the video that {source} was made from, and may be it: "
            f"name {'another OUT, or remove it first' if named else 'OUT'}",
            ExitCode.USAGE,
        )
    if size is None and not named:
        raise Failure(
            f"{target} exists, and may be the video that {source} was made from: name OUT", ExitCode.USAGE
        )


def _refuse_device(target: Path) -> None:
    """The writer renames a finished file to `target`, which must not replace /dev/null."""
    if str(target) != PIPE and target.exists() and not (target.is_file() or target.is_dir()):
        raise Failure(f"{target} is no regular file; write to - and pipe that", ExitCode.USAGE)


def _nothing(reader: "EtkReader", *, windowed: bool) -> Failure:
    if damage := describe_damage(reader):
        return Failure(f"nothing can be decoded: {'; '.join(damage)}", ExitCode.CORRUPT)
    what = "has no frame in the time asked for" if windowed else "has no frames"
    return Failure(f"the file {what}", ExitCode.BAD_INPUT)


def _writer(
    target: str,
    reader: "EtkReader",
    first: "Frame",
    end_pts: int | None,
    *,
    codec: Codec,
    lossless: bool,
    raw: bool,
    audio: bool,
    rebase: bool,
    force: bool,
) -> "VideoWriter":
    """A writer for the frames from `first` on, which becomes time 0 if `rebase`."""
    from elastictok_cli.video import Chapter, VideoWriter

    header = reader.header
    time_base = Fraction(*header.time_base)
    start = first.pts * time_base if rebase else None
    # Counted by the writer from `start`, or from time 0.
    duration = None if end_pts is None else end_pts * time_base - (start or 0)
    return VideoWriter(
        target,
        width=header.width,
        height=header.height,
        time_base=time_base,
        average_rate=Fraction(*header.average_rate)
        if header.average_rate and all(header.average_rate)
        else None,
        codec=codec.value,
        lossless=lossless,
        color={tag: value for tag, value in header.color.items() if isinstance(value, int)},
        metadata=header.metadata,
        aux=reader.aux() if audio and header.aux else None,
        aux_container=header.aux["container"] if audio and header.aux else None,
        overwrite=force,
        start=start,
        duration=duration,
        raw=raw,
        pixel_aspect=Fraction(*header.pixel_aspect),
        chapters=[Chapter(*chapter) for chapter in header.chapters],
    )


def _moved(frame: "Frame", ticks: int) -> "Frame":
    from elastictok_cli.video import Frame

    return Frame(frame.rgb, frame.pts - ticks, frame.duration)


class DecodeProgress:
    """Counts the frames written and shows how far the work is, by their times."""

    def __init__(
        self, display: Display, lines: JsonLines, reader: "EtkReader", first: "Frame", end_pts: int | None
    ) -> None:
        self.frames = 0
        self._display, self._lines = display, lines
        self._began = self._reported = time.monotonic()
        self._first = first.pts
        ends = [info.last_pts + 1 for info in reader.index[-1:]] if reader.index else []
        self._end = min(ends + ([end_pts] if end_pts is not None else []), default=None)

    def see(self, frame: "Frame") -> None:
        """A frame was written."""
        self.frames += 1
        now = time.monotonic()
        spent = max(now - self._began, 1e-6)
        fraction = None
        if self._end is not None and self._end > self._first:
            fraction = min(1.0, (frame.pts + 1 - self._first) / (self._end - self._first))
        head = f"frame {self.frames}"
        if fraction:
            head += f"  {fraction:.0%}  eta {units.clock(spent / fraction - spent)}"
        self._display.show(fraction, head, units.speed(self.frames, spent))
        if now - self._reported >= _SECONDS_BETWEEN_REPORTS:
            self._reported = now
            self._lines.write("progress", {"frames": self.frames, "fraction": fraction})

"""`elastictok compare`: a source beside what .etk files made of it, and where their tokens went."""

import math
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from elastictok_cli.analysis import promise, units
from elastictok_cli.commands import signals
from elastictok_cli.commands.arguments import (
    Device,
    DeviceName,
    Duration,
    Force,
    Json,
    NoAudio,
    Quiet,
    Start,
    Threads,
    check_window,
    find_device,
)
from elastictok_cli.commands.console import Display, JsonLines
from elastictok_cli.commands.damage import describe_damage
from elastictok_cli.commands.extras import DRAWING, STRUCTURE, need
from elastictok_cli.commands.failures import ExitCode, Failure, guarded
from elastictok_cli.commands.targets import PIPE, check_read_twice, check_target

if TYPE_CHECKING:
    from elastictok_cli.commands.comparison import ComparedFrame, Comparison
    from elastictok_cli.drawing.layout import Layout

_PICTURES = (".png", ".jpg", ".jpeg")


@guarded
def compare(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help="The video or picture that the files were made from.")
    ],
    files: Annotated[list[Path], typer.Argument(metavar="OUT.etk...", help="One file, or several.")],
    target: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help=".mp4 .mkv .mov .webm .y4m, .png or .jpg for one frame, a folder/ for PNG files.",
        ),
    ],
    heat: Annotated[
        bool, typer.Option("--heat", help="Tint each cell by the number of tokens it keeps.")
    ] = False,
    diff: Annotated[
        bool, typer.Option("--diff", help="Add the difference to the source, amplified.")
    ] = False,
    gain: Annotated[
        float, typer.Option(metavar="N", min=1, max=255, help="With --diff: multiply the difference by N.")
    ] = 4.0,
    width: Annotated[
        int,
        typer.Option(metavar="PIXELS", min=320, max=16384, help="Shrink pictures until all fits into this."),
    ] = 1920,
    crf: Annotated[
        int, typer.Option(metavar="N", min=0, max=51, help="Quality of the H.264 video; 0 is best.")
    ] = 16,
    no_ssim: Annotated[bool, typer.Option("--no-ssim", help="Measure only PSNR, which is faster.")] = False,
    start: Start = None,
    duration: Duration = None,
    no_audio: NoAudio = False,
    models: Annotated[
        list[Path] | None,
        typer.Option(
            "--model",
            metavar="FILE",
            help="Weights the files were made with; may be repeated.",
            show_default="the shipped ones",
        ),
    ] = None,
    device: Device = DeviceName.auto,
    threads: Threads = None,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show a source beside its reconstructions, with the tokens they use over time below.

    Sound is kept. Needs matplotlib, pillow and pytorch-msssim (the extra 'compare').
    """
    one = Path(target).suffix.lower() in _PICTURES and not Path(target).is_dir()
    _check(source, files, target, force=force)
    check_window(start, duration)
    need("compare", DRAWING if no_ssim else DRAWING | STRUCTURE)
    lines = JsonLines(enabled=as_json)
    with ExitStack() as stack:
        display = stack.enter_context(Display(quiet=quiet))
        where = find_device(device, threads)

        from elastictok_cli.commands.comparison import Comparison
        from elastictok_cli.commands.result import open_writer
        from elastictok_cli.commands.sides import open_original, open_sides

        sides = open_sides(stack, files, models or [], where)
        original = open_original(source, sides, start, duration)
        job = Comparison(original, sides, tint=heat, gain=gain if diff else None, structure=not no_ssim)
        progress = CompareProgress(display, lines, job)
        job.survey(start, duration, whole=one, on_measured=progress.measuring)
        board, layout = job.board(width, whole=one), job.layout(width)
        lines.write("started", _started(job, layout, target))
        progress.begin()
        with open_writer(
            target,
            layout,
            job,
            audio=not no_audio and not one,
            start=start,
            duration=duration,
            crf=crf,
            force=force,
        ) as writer:
            for item, moment in job.moments():
                writer.write(_drawn(item, board.draw(moment)))
                progress.see(item)
                if one:
                    break
            signals.check()
        for text in [*original.warnings, *writer.warnings, *_doubts(job)]:
            display.warn(text)
            lines.write("warning", {"message": text})
        damage = [f"{side.path}: {text}" for side in sides for text in describe_damage(side.reader)]
        for text in damage:
            display.warn(text)
            lines.write("damage", {"message": text})
        for text in _report(job, target, progress):
            display.note(text)
        lines.write("summary", _summary(job, target, progress, damaged=bool(damage)))
    if damage:
        raise typer.Exit(ExitCode.CORRUPT)


def _check(source: Path, files: list[Path], target: str, *, force: bool) -> None:
    if PIPE in (str(source), *map(str, files)):
        raise Failure("compare reads files, not standard input", ExitCode.USAGE)
    if target == PIPE:
        raise Failure("compare writes a file, not standard output", ExitCode.USAGE)
    check_read_twice(source, "compare")
    for read in (source, *files):
        check_target(Path(target), force=force, source=read)

    from elastictok_cli.commands.result import codec_for
    from elastictok_cli.video.writer import check_output

    check_output(target, codec=codec_for(target))


class CompareProgress:
    """Counts the frames drawn and shows how far the work is, by their times."""

    def __init__(self, display: Display, lines: JsonLines, job: "Comparison") -> None:
        self.frames = 0
        self._display, self._lines, self._job = display, lines, job
        self.begin()

    def begin(self) -> None:
        """Start the clock."""
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since then."""
        return max(time.monotonic() - self._began, 1e-6)

    def measuring(self, at: float) -> None:
        """A frame whose error the file does not know was decoded."""
        self._display.show(self._fraction(at), "measuring errors that the files do not know", "")

    def see(self, item: "ComparedFrame") -> None:
        """A frame was drawn."""
        self.frames += 1
        original = self._job.original
        at = float((item.frame.pts + original.shift) * original.time_base)
        fraction = self._fraction(at)
        eta = f"  eta {units.clock(self.seconds / fraction - self.seconds)}" if fraction > 0 else ""
        self._display.show(
            fraction, f"frame {self.frames}  {fraction:.0%}{eta}", units.speed(self.frames, self.seconds)
        )
        files = [None if usage is None else usage._asdict() for usage in item.usages]
        self._lines.write("frame", {"frame": self.frames - 1, "time": at, "files": files})

    def _fraction(self, at: float) -> float:
        length = self._job.end - self._job.begin
        return min(1.0, max(0.0, (at - self._job.begin) / length)) if length > 0 else 1.0


def _drawn(item: "ComparedFrame", picture: Any) -> Any:
    from elastictok_cli.video import Frame

    return Frame(picture, item.frame.pts, item.frame.duration)


def _doubts(job: "Comparison") -> list[str]:
    return [
        f"{path} differs from {job.original.path} far more than it records: is that its source?"
        for path in sorted(job.doubtful)
    ]


def _started(job: "Comparison", layout: "Layout", target: str) -> dict[str, Any]:
    return {
        "width": layout.width,
        "height": layout.height,
        "source": str(job.original.path),
        "files": [str(side.path) for side in job.sides],
        "output": target,
    }


def _summary(job: "Comparison", target: str, progress: CompareProgress, *, damaged: bool) -> dict[str, Any]:
    files = []
    for side, track, means, lost in zip(job.sides, job.tracks, job.means, job.lost, strict=True):
        mean, header = means.means(), side.reader.header
        files.append(
            {
                "name": str(side.path),
                "target_mse": header.target_mse,
                "target_tokens": header.target_tokens,
                "promise": header.promise,
                "promise_kept": promise.kept_by_index(side.reader),
                "worst": promise.worst(header),
                "budget": promise.budget(header),
                "bound": promise.bound(header),
                "tokens": side.totals.tokens,
                "tokens_per_block": track.capacity,
                "share": side.totals.tokens / side.totals.blocks / track.capacity,
                "bytes": side.totals.bytes,
                "kbps": units.kbps(
                    side.totals.bytes, side.totals.end - side.totals.begin, side.totals.frames
                ),
                "mse": mean.mse,
                "psnr": mean.psnr,
                "ssim": mean.ssim,
                "ms_ssim": mean.ms_ssim,
                "lost": lost,
            }
        )
    return {
        "output": target,
        "frames": progress.frames,
        "files": files,
        "damaged": damaged,
        "seconds": progress.seconds,
        "fps": progress.frames / progress.seconds,
    }


def _report(job: "Comparison", target: str, progress: CompareProgress) -> list[str]:
    lines = []
    for side, track, means in zip(job.sides, job.tracks, job.means, strict=True):
        mean = means.means()
        parts = [
            f"{units.count(side.totals.tokens, 'token')}",
            units.size(side.totals.bytes),
            units.quality(mean.mse),
        ]
        if not math.isnan(mean.ssim):
            parts.append(f"SSIM {mean.ssim:.4f}")
        if not math.isnan(mean.ms_ssim):
            parts.append(f"MS-SSIM {mean.ms_ssim:.4f}")
        shown = " (of the frame shown)" if progress.frames < side.totals.frames else ""
        if (kept := promise.kept_by_index(side.reader)) is not None:
            shown += "; target kept" if kept else "; target not kept"
        lines.append(f"{side.path} ({track.label}): {', '.join(parts)}{shown}")
    speed = units.speed(progress.frames, progress.seconds)
    lines.append(f"{target}: {units.count(progress.frames, 'frame')} in {progress.seconds:.1f} s, {speed}")
    return lines

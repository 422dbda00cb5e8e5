"""The video that `compare` writes: where its sound comes from."""

from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from elastictok_cli.commands.comparison import Comparison
    from elastictok_cli.commands.sides import Original, Side
    from elastictok_cli.drawing.layout import Layout
    from elastictok_cli.video import VideoWriter


def codec_for(target: str) -> str:
    """The codec of the video: H.264 wherever it goes."""
    return "av1" if target.lower().endswith(".webm") else "h264"


def open_writer(
    target: str,
    layout: "Layout",
    job: "Comparison",
    *,
    audio: bool,
    start: float | None,
    duration: float | None,
    crf: int,
    force: bool,
) -> "VideoWriter":
    """A writer for the drawn frames, with the sound of the first file that has some, else of the source."""
    from elastictok_cli.video import VideoWriter

    original = job.original
    info = original.info
    carried: dict[str, Any] = {}
    side = next((side for side in job.sides if side.reader.header.aux), None)
    if audio and side is not None:
        carried = _from_file(side, original, start, duration)
    elif audio:
        carried = _from_source(original, job.sides, duration)
    return VideoWriter(
        target,
        width=layout.width,
        height=layout.height,
        time_base=info.time_base,
        average_rate=info.average_rate,
        codec=codec_for(target),
        color=info.color,
        overwrite=force,
        crf=crf,
        **carried,
    )


def _from_file(
    side: "Side", original: "Original", start: float | None, duration: float | None
) -> dict[str, Any]:
    """Arguments of VideoWriter for the streams that a file carries, which are on the clock of its frames."""
    header = side.reader.header
    assert header.aux is not None
    first = Fraction(0) if start is None else original.shift * original.time_base
    _, end_pts = side.window(start, duration)
    return {
        "aux": side.reader.aux(),
        "aux_container": header.aux["container"],
        "start": None if start is None else first,
        "duration": None if end_pts is None else end_pts * original.time_base - first,
    }


def _from_source(original: "Original", sides: Sequence["Side"], duration: float | None) -> dict[str, Any]:
    """Arguments of VideoWriter for the streams of the source itself."""
    from elastictok_cli.video.source_streams import SourceSideStreams

    lengths = [duration, *(side.reader.header.options.get("duration") for side in sides)]
    known = [Fraction(str(length)) for length in lengths if isinstance(length, int | float)]
    streams = SourceSideStreams(
        original.path,
        start=original.first if original.windowed else None,
        end=original.first + min(known) if known else None,
        clock_offset=original.clock_offset,
        warnings=original.warnings,
    )
    if streams.container is None:
        return {}
    return {"aux": streams.chunks(), "aux_container": streams.container}

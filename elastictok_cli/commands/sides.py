"""A source and the .etk files made from it, opened to be looked at side by side."""

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from elastictok_cli.analysis import units
from elastictok_cli.analysis.usage import FrameUsage, coded_frames
from elastictok_cli.commands.arguments import load_model
from elastictok_cli.commands.damage import describe_damage
from elastictok_cli.commands.failures import ExitCode, Failure
from elastictok_cli.drawing.tracks import Track, put_on_track

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

    from elastictok_cli.models.checkpoint import Loaded
    from elastictok_cli.video import Frame, VideoInfo
    from formats import EtkReader


class Shown(NamedTuple):
    """A frame of a file: its pixels, what they cost, and the keep map of its block."""

    pts: int
    rgb: "npt.NDArray[np.uint8]"  # (H, W, 3)
    usage: FrameUsage
    keep: "npt.NDArray[np.uint16]"  # (rows, columns)


@dataclass
class SideTotals:
    """Sums over the frames of a file that are compared."""

    frames: int = 0
    blocks: int = 0
    tokens: int = 0
    bytes: float = 0.0
    known: int = 0  # frames whose error the file records
    error: float = 0.0  # sum over those
    begin: float = math.nan  # seconds
    end: float = math.nan
    _block: int = -1

    def add(self, row: FrameUsage) -> None:
        """Count a frame."""
        self.frames += 1
        self.bytes += row.bytes
        if row.block != self._block:
            self._block = row.block
            self.blocks += 1
            self.tokens += row.block_tokens
        if not math.isnan(row.mse):
            self.known += 1
            self.error += row.mse
        self.begin = row.time if math.isnan(self.begin) else self.begin
        self.end = row.time + row.duration

    @property
    def mse(self) -> float:
        """Mean recorded error; NaN unless it is known of every frame."""
        return self.error / self.frames if self.frames and self.known == self.frames else math.nan


@dataclass
class Side:
    """One file, and the model that decodes it."""

    path: Path
    reader: "EtkReader"
    loaded: "Loaded"
    device: "torch.device"
    totals: SideTotals = field(default_factory=SideTotals)

    def window(self, start: float | None, duration: float | None) -> tuple[int | None, int | None]:
        """The times (pts) to begin at and to end before; None: no bound."""
        from elastictok_cli.codec.decoder import window

        first, end = window(self.reader.header, self.reader, start, duration)
        return (None if start is None else first), end

    def survey(self, label: str, first_pts: int | None, end_pts: int | None) -> Track:
        """What these frames cost, by the file alone: sums into `totals`, series into the track."""
        self.totals = SideTotals()
        header = self.reader.header
        track = Track(label, self.capacity, header.target_mse, header.promise)
        for row, _, _ in coded_frames(self.reader, first_pts=first_pts, end_pts=end_pts):
            self.totals.add(row)
            put_on_track(track, row)
        return track

    def frames(self, first_pts: int | None, end_pts: int | None) -> Iterator[Shown]:
        """Decoded frames with what they cost."""
        from elastictok_cli.codec.decoder import decode

        coded = coded_frames(self.reader, first_pts=first_pts, end_pts=end_pts)
        for frame in decode(self.reader, self.loaded, self.device, first_pts=first_pts, end_pts=end_pts):
            found = next((one for one in coded if one.pts == frame.pts), None)
            if found is None:
                return
            yield Shown(frame.pts, frame.rgb, found.usage, found.block.keep)

    @property
    def capacity(self) -> int:
        """The most tokens a block can keep."""
        rows, columns = self.reader.header.grid
        return rows * columns * self.reader.header.model.full_cell

    def nothing(self) -> Failure:
        """Why there is no frame."""
        if damage := describe_damage(self.reader):
            return Failure(f"{self.path}: nothing can be decoded: {'; '.join(damage)}", ExitCode.CORRUPT)
        return Failure(f"{self.path} has no frame in the time asked for", ExitCode.BAD_INPUT)


class LoadedModels:
    """The loaded models, one of which made each file: those named, and the shipped one.

    Raises Failure where one cannot be loaded.
    """

    def __init__(self, named: Sequence[Path], device: "torch.device") -> None:
        self._device = device
        self._loaded = [load_model(path, device) for path in named]
        self._has_shipped = False

    def side(self, path: Path, reader: "EtkReader") -> Side:
        """Pair the file with the model that made it. Raises Failure if none of them did."""
        from elastictok_cli.codec.decoder import ModelMismatch, check_model

        wanted = reader.header.model.sha256
        fitting = next((model for model in self._loaded if model.sha256 == wanted), None)
        if fitting is None and not self._has_shipped:
            self._has_shipped = True
            self._loaded.append(load_model(None, self._device))
            fitting = next((model for model in self._loaded if model.sha256 == wanted), self._loaded[0])
        fitting = fitting or self._loaded[0]
        try:
            check_model(reader.header, fitting)
        except ModelMismatch as error:
            raise Failure(f"{path}: {error}", ExitCode.BAD_INPUT) from None
        return Side(path, reader, fitting, self._device)


def open_sides(
    stack: ExitStack, paths: Sequence[Path], models: Sequence[Path], device: "torch.device"
) -> list[Side]:
    """Open the files, each with the one of `models` (and the shipped model) that made it. Raises Failure."""
    from formats import EtkReader

    loaded = LoadedModels(models, device)
    return [loaded.side(path, stack.enter_context(EtkReader(path))) for path in paths]


@dataclass(frozen=True)
class Original:
    """The part of the source that the files are compared with.

    info: of that part. shift: to be added to a pts of its frames to have that of the files'. windowed: it begins later
    than the source, at its first frame.
    """

    path: Path
    info: "VideoInfo"
    shift: int
    windowed: bool
    options: dict[str, Any]  # for VideoReader
    warnings: list[str]

    def frames(self) -> Iterator["Frame"]:
        """Its frames, from the beginning at every call."""
        from elastictok_cli.video import VideoReader

        with VideoReader(self.path, **self.options) as reader:
            yield from reader
            self.warnings[:] = reader.warnings

    @property
    def time_base(self) -> Fraction:
        """Seconds in a tick."""
        return self.info.time_base

    @property
    def first(self) -> Fraction:
        """When its first frame is shown, seconds on the source's own clock."""
        return self.info.start_pts * self.time_base

    @property
    def clock_offset(self) -> Fraction:
        """What its times are less than those on the source's own clock, in seconds."""
        return self.info.clock_offset * self.time_base


def open_original(
    path: Path, sides: Sequence[Side], start: float | None = None, duration: float | None = None
) -> Original:
    """Find the source where the files begin, or `start` seconds later.

    `encode` records in a file which part of the source it took. Raises Failure if the files took different parts,
    or cannot be of this source because their pictures have another size; VideoError if it is no video.
    """
    from elastictok_cli.codec.measurement import source_stream
    from elastictok_cli.video import VideoReader

    base = _base(sides)
    begin = start if base is None else base + (start or 0.0)
    options: dict[str, Any] = {
        "start": begin,
        "duration": duration,
        "max_height": sides[0].reader.header.height,
        "aux": False,
        "stream": source_stream(sides[0].reader.header),
    }
    with VideoReader(path, **options) as reader:
        info = reader.info
    if base is None:
        shift = info.clock_offset - sides[0].reader.header.clock_offset
    elif start is None:
        shift = 0
    else:
        with VideoReader(path, start=base, aux=False, stream=options["stream"]) as whole:
            shift = info.clock_offset - whole.info.clock_offset
    for side in sides:
        _check_source(side, path, info)
    return Original(
        path=path,
        info=info,
        shift=shift,
        windowed=begin is not None,
        options=options,
        warnings=[],
    )


def _check_source(side: Side, path: Path, info: "VideoInfo") -> None:
    """Raise Failure if the file cannot have been made from this source."""
    header = side.reader.header
    if (header.width, header.height) != (info.width, info.height):
        raise Failure(
            f"{side.path} holds pictures of {header.width}x{header.height} pixels, {path}, "
            f"scaled to that height where it is taller, {info.width}x{info.height}: it was not made from this source",
            ExitCode.BAD_INPUT,
        )
    if Fraction(*header.time_base) != info.time_base:
        raise Failure(
            f"{side.path} and {path} do not count time alike: it was not made from this source",
            ExitCode.BAD_INPUT,
        )


def _base(sides: Sequence[Side]) -> float | None:
    """Where in the source all files begin."""
    starts = {side.path: side.reader.header.options.get("start") for side in sides}
    if len(set(starts.values())) > 1:
        named = ", ".join(f"{path} at {units.clock(float(at or 0), 2)}" for path, at in starts.items())
        raise Failure(f"the files begin at different times of the source: {named}", ExitCode.BAD_INPUT)
    (base,) = set(starts.values())
    return float(base) if isinstance(base, int | float) else None

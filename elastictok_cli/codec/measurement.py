"""The error of decoded pictures against the video they were made from."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
import torch

from elastictok_cli.codec.pixels import frame_errors
from elastictok_cli.video import Frame, VideoReader
from formats import Block, Header


def source_stream(header: Header) -> int | None:
    """Which stream of its source a file was made from, None for the one that VideoReader takes by itself."""
    number = header.options.get("stream")
    return number if type(number) is int and number >= 0 else None


class SourceMismatch(Exception):
    """The video is not what the file was made from; the message is one sentence for the user."""


class Source:
    """The frames of a video, found by their times as the blocks of an `.etk` file ask for them in order.

    Raises SourceMismatch where picture size or times differ, VideoError where the video cannot be read.
    """

    def __init__(self, path: Path, header: Header) -> None:
        self._path = path
        self._tick = Fraction(*header.time_base)
        self._reader = VideoReader(path, max_height=header.height, aux=False, stream=source_stream(header))
        info = self._reader.info
        if (info.width, info.height) != (header.width, header.height):
            self._reader.close()
            raise SourceMismatch(
                f"{path}, scaled to the file's height where it is taller, is {info.width}x{info.height}, and the file "
                f"{header.width}x{header.height}: not its source"
            )
        self._scale = info.time_base
        # both times on the source's own clock
        self._file_offset, self._source_offset = header.clock_offset, info.clock_offset
        self._frames: Iterator[Frame] = iter(self._reader)

    def errors(self, block: Block, pixels: npt.NDArray[np.uint8]) -> tuple[float, ...]:
        """The MSE ([-1, 1] scale) of each frame of a block that decodes to `pixels` (n, H, W, 3)."""
        wanted = np.stack([self._at(pts) for pts in block.pts])
        return tuple(frame_errors(torch.from_numpy(wanted), torch.from_numpy(pixels)).tolist())

    def _at(self, pts: int) -> npt.NDArray[np.uint8]:
        time = (pts + self._file_offset) * self._tick
        for frame in self._frames:
            at = (frame.pts + self._source_offset) * self._scale
            if at == time:
                return frame.rgb
            if at > time:
                break
        raise SourceMismatch(
            f"{self._path} has no frame at {float(time):.3f} s, where the file has one: not its source, or the file "
            "was made with --start (then name the part that it holds)"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reader.close()

"""The frames everything is measured on: the first frames of each clip, most often cropped at the centre."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from elastictok_cli.video import Frame, VideoInfo, VideoReader

SUFFIXES = {".mp4", ".mkv", ".mov", ".webm", ".avi", ".m4v", ".ts", ".gif"}


@dataclass(frozen=True)
class Clip:
    """A short video in memory; `info` speaks of the crop."""

    name: str
    info: VideoInfo
    frames: list[Frame]

    def open(self) -> AbstractContextManager[ClipReader]:
        """A reader at the beginning: an encode in several passes reads the clip several times."""
        return nullcontext(ClipReader(self))


class ClipReader:
    """Reads a clip once, as a `VideoReader` reads a file."""

    aux_rate = 0.0  # bytes a second of sound and subtitles: there are none

    def __init__(self, clip: Clip) -> None:
        self.info = clip.info
        self._frames = clip.frames

    def __iter__(self) -> Iterator[Frame]:
        yield from self._frames

    def take_aux(self) -> bytes:
        """No sound and no subtitles: b""."""
        return b""


def find(folders: list[Path]) -> list[Path]:
    """Videos directly in the folders, sorted by name."""
    return sorted(p for folder in folders for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)


def load(path: Path, *, side: int | None = 256, frames: int | None = 48) -> Clip:
    """The first `frames` frames, cropped to at most `side` x `side` pixels at the centre; None is all of them."""
    with VideoReader(path, aux=False) as reader:
        taken = [replace(frame, rgb=_crop(frame.rgb, side)) for frame in islice(reader, frames)]
        height, width = taken[0].rgb.shape[:2]
        info = replace(reader.info, width=width, height=height, frame_count=len(taken), size_bytes=None)
    return Clip(path.stem, info, taken)


def _crop(rgb: np.ndarray, side: int | None) -> np.ndarray:
    if side is None:
        return rgb
    top, left = max(0, (rgb.shape[0] - side) // 2), max(0, (rgb.shape[1] - side) // 2)
    return np.ascontiguousarray(rgb[top : top + side, left : left + side])

"""Video files in and out, through PyAV: exact times, upright pixels, audio and subtitle packets untouched.

The names below are loaded on first use, so that importing only the errors does not load FFmpeg.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from elastictok_cli.video.errors import (
    NoVideoStream,
    UnknownKind,
    UnreadableVideo,
    UnwritableVideo,
    VideoError,
)

if TYPE_CHECKING:
    from elastictok_cli.video.reader import VideoReader
    from elastictok_cli.video.records import AuxStream, Chapter, Frame, VideoInfo
    from elastictok_cli.video.writer import VideoWriter

__all__ = [
    "AuxStream",
    "Chapter",
    "Frame",
    "NoVideoStream",
    "UnknownKind",
    "UnreadableVideo",
    "UnwritableVideo",
    "VideoError",
    "VideoInfo",
    "VideoReader",
    "VideoWriter",
]

_MODULE_OF = {
    "AuxStream": "records",
    "Chapter": "records",
    "Frame": "records",
    "VideoInfo": "records",
    "VideoReader": "reader",
    "VideoWriter": "writer",
}


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)

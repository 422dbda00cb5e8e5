"""What an output file can hold of the streams that a container carries."""

from collections.abc import Iterable
from typing import Any

import av

from elastictok_cli.video.encoder import CONTAINERS
from elastictok_cli.video.records import AuxStream
from elastictok_cli.video.sidestreams import _can_hold, _Inbox, codec_name, describe_stream

# Kinds of plain text with times. The writer turns each into the one that these outputs have.
_PLAIN_TEXT = ("subrip", "mov_text", "text")
_TAKE_PLAIN_TEXT = ("mp4", "mov", "matroska")


def streams_not_held(chunks: Iterable[bytes], container: str, suffix: str) -> list[AuxStream]:
    """The audio and subtitle streams that an output file with this suffix (.mp4, .mkv) cannot hold.

    `chunks` are the bytes of the carrying `container`; no more of them are read than its streams need to be known. A
    container that cannot be read holds nothing. A suffix that is not of a container holds no stream at all.
    """
    try:
        with av.open(_Inbox(chunks), format=container) as source:
            output = CONTAINERS.get(suffix.lower())
            return [describe_stream(s) for s in source.streams if output is None or not _is_held(output, s)]
    except (av.FFmpegError, ValueError):
        return []


def _is_held(output: str, stream: Any) -> bool:
    if codec_name(stream) in _PLAIN_TEXT and output in _TAKE_PLAIN_TEXT:
        return True
    return _can_hold(output, stream, {})

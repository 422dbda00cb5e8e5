"""What an output file can hold of the streams that a container carries."""

from collections.abc import Iterable

import av

from elastictok_cli.video.encoder import CONTAINERS
from elastictok_cli.video.muxing import can_mux_or_convert
from elastictok_cli.video.records import AuxStream
from elastictok_cli.video.sidestreams import ChunkReader, describe_stream


def streams_not_held(chunks: Iterable[bytes], container: str, suffix: str) -> list[AuxStream]:
    """The audio and subtitle streams that an output file with this suffix (.mp4, .mkv) cannot hold.

    `chunks` are the bytes of the carrying `container`; no more of them are read than its streams need to be known. A
    container that cannot be read holds nothing. A suffix that is not of a container holds no stream at all.
    """
    try:
        with av.open(ChunkReader(chunks), format=container) as source:
            output = CONTAINERS.get(suffix.lower())
            return [
                describe_stream(s)
                for s in source.streams
                if output is None or not can_mux_or_convert(output, s)
            ]
    except (av.FFmpegError, ValueError):
        return []

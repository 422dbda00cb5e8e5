"""Writing the display size into a finished Matroska or WebM file.

FFmpeg's muxer writes it only from a field of the stream that PyAV cannot set. So the track is muxed with a
name that nobody needs, and the size takes its place afterwards: no other byte of the file moves.
"""

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

# A track of this name is the one to change. It is longer than what takes its place.
PLACEHOLDER_NAME = "display size goes here........"

_SEGMENT, _TRACKS, _CRC32, _VOID = 0x18538067, 0x1654AE6B, 0xBF, 0xEC
_TRACK_ENTRY, _NAME, _VIDEO = 0xAE, 0x536E, 0xE0
_DISPLAY_WIDTH, _DISPLAY_HEIGHT, _DISPLAY_UNIT = 0x54B0, 0x54BA, 0x54B2
_DISPLAY_FIELDS = (_DISPLAY_WIDTH, _DISPLAY_HEIGHT, _DISPLAY_UNIT)

# Tracks come before the first cluster, within the head of the file.
_MAX_TRACKS_BYTES = 1 << 20


class _Element(NamedTuple):
    id: int
    begin: int  # of its id
    data: int  # of its content
    end: int


def write_display_size(path: Path, width: int, height: int) -> None:
    """Set the display size (pixels) of the track named PLACEHOLDER_NAME, and take its name away.

    Raises ValueError where the file has no such track.
    """
    with path.open("r+b") as file:
        head = bytearray(file.read(_MAX_TRACKS_BYTES))
        tracks = _find(_find(_Element(0, 0, 0, len(head)), head, _SEGMENT), head, _TRACKS)
        for entry in _children(head, tracks):
            if entry.id == _TRACK_ENTRY and _name(head, entry) == PLACEHOLDER_NAME:
                head[entry.data : entry.end] = _with_display_size(head, entry, width, height)
                break
        else:
            raise ValueError(f"{path} has no track that waits for a display size")
        _renew_checksum(head, tracks)
        file.seek(tracks.begin)
        file.write(head[tracks.begin : tracks.end])


def _with_display_size(head: bytearray, entry: _Element, width: int, height: int) -> bytes:
    """The content of a track entry, as long as before, with the display size instead of the name."""
    parts = []
    for child in _children(head, entry):
        if child.id == _VIDEO:
            kept = [c for c in _children(head, child) if c.id not in _DISPLAY_FIELDS]
            video = b"".join(bytes(head[c.begin : c.end]) for c in kept)
            video += _element(_DISPLAY_WIDTH, _number(width)) + _element(_DISPLAY_HEIGHT, _number(height))
            parts.append(_element(_VIDEO, video))
        elif child.id != _NAME:
            parts.append(bytes(head[child.begin : child.end]))
    content = b"".join(parts)
    spare = entry.end - entry.data - len(content) - 2
    return content + _element(_VOID, bytes(spare))


def _renew_checksum(head: bytearray, parent: _Element) -> None:
    first = next(_children(head, parent))
    if first.id == _CRC32:
        head[first.data : first.end] = zlib.crc32(head[first.end : parent.end]).to_bytes(4, "little")


def _find(parent: _Element, head: bytearray, wanted: int) -> _Element:
    for child in _children(head, parent):
        if child.id == wanted:
            return child
    raise ValueError("this is no Matroska file with its tracks in front")


def _name(head: bytearray, entry: _Element) -> str | None:
    for child in _children(head, entry):
        if child.id == _NAME:
            return head[child.data : child.end].decode(errors="replace")
    return None


def _children(head: bytearray, parent: _Element) -> Iterator[_Element]:
    at = parent.data
    while at < parent.end:
        length = 9 - head[at].bit_length()
        kind = int.from_bytes(head[at : at + length], "big")
        after = at + length
        size_length = 9 - head[after].bit_length()
        data = after + size_length
        size = int.from_bytes(head[after:data], "big") & ((1 << 7 * size_length) - 1)
        unknown = size == (1 << 7 * size_length) - 1
        child = _Element(kind, at, data, parent.end if unknown else min(data + size, parent.end))
        yield child
        at = child.end


def _element(kind: int, data: bytes) -> bytes:
    """An element with a size field of one byte, or of two for content of 127 bytes and more."""
    size_length = 1 if len(data) < 0x7F else 2
    size = (len(data) | 1 << 7 * size_length).to_bytes(size_length, "big")
    return kind.to_bytes((kind.bit_length() + 7) // 8, "big") + size + data


def _number(value: int) -> bytes:
    return value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big")

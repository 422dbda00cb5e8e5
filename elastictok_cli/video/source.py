"""Opening a source, and what to say where that fails."""

import struct
import sys
from pathlib import Path
from typing import Any

import av

from elastictok_cli.video.errors import UnreadableVideo
from elastictok_cli.video.streams import Stream, reads_once

_HEAD_BYTES = 1 << 20
_WEBP_ANIMATED = 2  # flag in the VP8X chunk (RFC 9649, 2.7.1)


class Source:
    """A file, or a stream that is read once: standard input ("-"), a named pipe, a device."""

    def __init__(self, source: str | Path, name: str | None = None) -> None:
        """name: what messages call it, by default the path."""
        self.path = Path(source)
        self.is_stdin = str(source) == "-"
        self.name = name or ("standard input" if self.is_stdin else str(source))
        self.reads_once = reads_once(source)
        self._stream: Stream | None = None

    def open(self) -> Any:
        """The opened container, anew each time for a file. Raises UnreadableVideo."""
        if not self.reads_once and not self.path.exists():
            raise UnreadableVideo(f"{self.name} does not exist")
        if self.path.is_dir():
            raise UnreadableVideo(f"{self.name} is a folder, not a video file")
        try:
            if self.reads_once:
                if not self.is_stdin or not sys.stdin.seekable():
                    self._stream = Stream(self.path)
                return av.open(self._stream or sys.stdin.buffer, "r", metadata_errors="replace")
            # `file:` and `pattern_type`, so that colons, % and [ in a name are only characters.
            return av.open(
                f"file:{self.path}", "r", options={"pattern_type": "none"}, metadata_errors="replace"
            )
        except (av.FFmpegError, OSError, ValueError) as error:
            raise UnreadableVideo(self.failure("cannot be read as a video", reason_of(error))) from error

    def close(self) -> None:
        """Close a stream. Safe to call twice."""
        if self._stream is not None:
            self._stream.close()

    def head(self) -> bytes:
        """The first bytes, as far as they are known of a stream: one megabyte at most."""
        if self._stream is not None:
            return self._stream.head
        if self.reads_once:
            return b""
        with self.path.open("rb") as file:
            return file.read(_HEAD_BYTES)

    def failure(self, what: str, reason: str | None = None) -> str:
        """A sentence that says why nothing can be read: the real cause where the first bytes tell it."""
        head = self.head()
        if _is_animated_webp(head):
            return (
                f"{self.name} is an animated WebP, which FFmpeg cannot decode; convert it to a GIF or a video"
            )
        if self._stream is not None and _has_index_last(head):
            return (
                f"{self.name} is an MP4 with its index at the end, which a pipe cannot go back from: "
                "name the file, or move its index to the front (ffmpeg -movflags +faststart)"
            )
        return f"{self.name} {what}" + (f": {reason}" if reason else "")


def reason_of(error: Exception) -> str:
    """What FFmpeg or the system says of an error, without its number."""
    return getattr(error, "strerror", None) or str(error)


def _is_animated_webp(head: bytes) -> bool:
    return (
        head[:4] == b"RIFF"
        and head[8:16] == b"WEBPVP8X"
        and len(head) > 20
        and bool(head[20] & _WEBP_ANIMATED)
    )


def _has_index_last(head: bytes) -> bool:
    """Whether the boxes of an MP4 (ISO/IEC 14496-12, 4.2) begin with its media data, before the index (moov)."""
    at = 0
    while len(head) >= at + 16:
        size, kind = struct.unpack_from(">I4s", head, at)
        if kind in (b"moov", b"mdat"):
            return bool(kind == b"mdat")
        if at == 0 and kind != b"ftyp":
            return False
        if size == 1:
            (size,) = struct.unpack_from(">Q", head, at + 8)
        if size < 8:
            return False
        at += size
    return False

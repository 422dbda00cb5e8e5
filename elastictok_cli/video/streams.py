"""Sources that can be read only once, from the beginning to the end: pipes, sockets, devices such as a terminal."""

import stat
import sys
from pathlib import Path
from typing import BinaryIO

_HEAD_BYTES = 1 << 20  # kept of the beginning, where picture files have their EXIF and format marks


def reads_once(source: str | Path) -> bool:
    """Whether a source ("-" is standard input) is to be read as a stream: its name gives the bytes only once."""
    if str(source) == "-":
        return True
    try:
        mode = Path(source).stat().st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISCHR(mode)


class ReadStopped(Exception):
    """Ctrl-C, or another signal, has ended the wait for more of a stream.

    FFmpeg's caller passes on exceptions of this kind only; a KeyboardInterrupt it drops, and then reads again.
    """


class Stream:
    """An open stream without a way back; `head` is what has been read of its first megabyte.

    Raises OSError, ReadStopped.
    """

    def __init__(self, source: str | Path) -> None:
        self._is_stdin = str(source) == "-"
        self._file: BinaryIO = sys.stdin.buffer if self._is_stdin else Path(source).open("rb")  # noqa: SIM115
        self.head = b""

    def read(self, size: int) -> bytes:
        """At most `size` bytes, b"" at the end."""
        try:
            data = self._file.read(size)
        except KeyboardInterrupt as error:
            raise ReadStopped from error
        if len(self.head) < _HEAD_BYTES:
            self.head += data[: _HEAD_BYTES - len(self.head)]
        return data

    def close(self) -> None:
        """Close what is not standard input."""
        if not self._is_stdin:
            self._file.close()

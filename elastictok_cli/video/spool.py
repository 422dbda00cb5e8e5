"""Reading a source twice that gives its bytes only once: a pipe is copied into a temporary file first."""

import sys
import tempfile
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from io import BufferedReader
from pathlib import Path
from typing import cast

from elastictok_cli.files import reason_of, temporary
from elastictok_cli.video.errors import NoTemporaryFile, UnreadableVideo
from elastictok_cli.video.streams import reads_once

_PIECE_BYTES = 1 << 20  # at most


@contextmanager
def spooled(source: str | Path) -> Iterator[Path]:
    """A file with the bytes of `source` ("-" is standard input), which can be read again.

    A source that can be read again is given as it is. Any other is copied, as its bytes come, into a file that only
    this user may read. The file lies in the system's folder for temporary files, or the one that TMPDIR names, and is
    removed at the end, whatever happens. Raises UnreadableVideo, and NoTemporaryFile where the copy has no room.
    """
    if not reads_once(source):
        yield Path(source)
        return
    with temporary(_folder(source)) as path:
        _copy(source, path)
        yield path


def _folder(source: str | Path) -> Path:
    """The folder for temporary files."""
    try:
        return Path(tempfile.gettempdir())
    except OSError as error:  # it tries to write there
        raise NoTemporaryFile(f"{_name(source)} cannot be copied to a file: {reason_of(error)}") from error


def _copy(source: str | Path, path: Path) -> None:
    """Make the file and fill it. Raises UnreadableVideo, NoTemporaryFile."""
    try:
        path.touch(mode=0o600, exist_ok=False)
        with closing(_pieces(source)) as pieces, path.open("wb") as file:
            for piece in pieces:
                file.write(piece)
    except OSError as error:
        raise NoTemporaryFile(
            f"{_name(source)} cannot be copied to {path.parent}: {reason_of(error)}; "
            "the environment variable TMPDIR names another folder"
        ) from error


def _pieces(source: str | Path) -> Generator[bytes, None, None]:
    """The bytes of a source. Raises UnreadableVideo, so that an OSError is one of the file that is written."""
    try:
        with _opened(source) as stream:
            # As much as there is, by one read of the system: `read` would go on until a piece is full, and not notice
            # a signal that comes between two of its reads.
            while piece := stream.read1(_PIECE_BYTES):
                yield piece
    except OSError as error:
        raise UnreadableVideo(f"{_name(source)} cannot be read as a video: {reason_of(error)}") from error


def _opened(source: str | Path) -> AbstractContextManager[BufferedReader]:
    if str(source) == "-":
        return nullcontext(cast(BufferedReader, sys.stdin.buffer))  # is not to be closed
    return Path(source).open("rb")


def _name(source: str | Path) -> str:
    return "standard input" if str(source) == "-" else str(source)

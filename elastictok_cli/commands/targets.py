"""Where output goes: under its name only when it is complete, and never over something by accident."""

import errno
import mimetypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from elastictok_cli.commands import signals
from elastictok_cli.commands.failures import ExitCode, Failure
from elastictok_cli.files import Part, Unwritable, real_path, writing
from elastictok_cli.video.streams import reads_once

PIPE = "-"

# Of files that the program reads or writes, and that Python's list of kinds lacks on some systems.
_OWN_SUFFIXES = (".etk", ".csv", ".html", ".json", ".m4v", ".mkv", ".safetensors", ".webm", ".y4m")


def check_source(source: Path) -> None:
    """Refuse to wait for a video to be typed in."""
    if (str(source) == PIPE or _is_stdin(source)) and sys.stdin.isatty():
        raise Failure("standard input is a terminal: pipe a file into it, or name one", ExitCode.USAGE)


def check_read_twice(source: Path, reader: str) -> None:
    """Raise Failure where `reader`, which reads a source more than once, is given one that can be read only once."""
    if reads_once(source):
        raise Failure(f"{reader} reads {source} more than once: name a file, not a pipe", ExitCode.USAGE)


def check_one_pipe(source: Path, original: Path | None) -> None:
    """Refuse to read two inputs from standard input."""
    if str(source) == PIPE == str(original):
        raise Failure("IN and --source both want standard input", ExitCode.USAGE)


def name_beside(source: Path, suffix: str) -> Path:
    """The default name of an output: the source's with another suffix. Raises Failure where the source has no name."""
    if str(source) == PIPE:
        raise Failure("name OUT when IN is standard input", ExitCode.USAGE)
    if str(source).startswith(("/dev/", "/proc/")):  # /dev/stdin, and what a shell gives for <(...)
        raise Failure(f"name OUT when IN is {source}", ExitCode.USAGE)
    if source.is_dir():
        raise Failure(f"{source} is a folder, not a file", ExitCode.BAD_INPUT)
    return source.with_suffix(suffix)


def check_target(target: Path, *, force: bool, source: Path | None = None) -> None:
    """Raise Failure, before any work is done, where output may not or cannot go."""
    if str(target) == PIPE:
        if sys.stdout.isatty():
            raise Failure("standard output is a terminal: pipe it somewhere, or name a file", ExitCode.USAGE)
        return
    if not target.parent.is_dir():
        raise Failure(f"the folder {target.parent} does not exist", ExitCode.USAGE)
    if not target.exists():
        check_writable(target)
        return
    if source is not None and source.exists() and target.samefile(source):
        both = (
            f"IN and OUT are both {source}"
            if source == target
            else f"{source} and {target} are the same file"
        )
        raise Failure(f"{both}: name another OUT", ExitCode.USAGE)
    taken = any(target.iterdir()) if target.is_dir() else target.is_file()
    if taken and not force:
        raise Failure(f"{target} exists already; -y overwrites it", ExitCode.USAGE)
    check_writable(target)


def check_files(source: Path, target: Path, original: Path | None, *, force: bool, as_json: bool) -> None:
    """Raise Failure, before any work is done, where a command cannot make `target` of an .etk file.

    `original` is the video that the file was made from, where it is to be read too.
    """
    if as_json and str(target) == PIPE:
        raise Failure("--json and OUT - both want standard output", ExitCode.USAGE)
    check_source(source)
    check_one_pipe(source, original)
    check_target(target, force=force, source=source)
    if original is not None and str(target) != PIPE:
        check_target(target, force=True, source=original)


def check_etk_name(target: Path) -> None:
    """Refuse to put an .etk file under a name of another kind of file: a slip, or a file nobody can open."""
    _check_name(target, "an .etk file", (".etk",))


def check_page_name(target: Path) -> None:
    """Likewise a web page."""
    _check_name(target, "a web page (.html)", (".html", ".htm", ".xhtml"))


def check_table_name(target: Path) -> None:
    """Likewise comma-separated values."""
    _check_name(target, "comma-separated values (.csv)", (".csv", ".txt"))


def _check_name(target: Path, written: str, suffixes: tuple[str, ...]) -> None:
    suffix = target.suffix.lower()
    if str(target) == PIPE or suffix in suffixes:
        return
    kind = mimetypes.guess_type(f"name{suffix}")[0] or ""
    if suffix in _OWN_SUFFIXES or kind not in ("", "application/octet-stream"):
        raise Failure(f"{target}: what is written is {written}, name it so", ExitCode.USAGE)


def _is_stdin(source: Path) -> bool:
    """Whether a path such as /dev/stdin leads to standard input."""
    try:
        return os.path.samestat(source.stat(), os.fstat(sys.stdin.fileno()))
    except (OSError, ValueError):
        return False


def check_writable(target: Path) -> None:
    """Raise Failure where the system will not let a file or folder be written: tried out, with an empty file."""
    try:
        real = real_path(target)
        if not real.parent.is_dir():
            raise Failure(f"the folder {real.parent} does not exist", ExitCode.USAGE)
        if real.exists() and not os.access(real, os.W_OK):
            raise Unwritable(target, os.strerror(errno.EACCES))
        if real.is_dir() or real.is_file() or not real.exists():
            part = Part(target, inside=real.is_dir())
            try:
                part.create()
            finally:
                part.discard()
    except Unwritable as error:
        raise Failure(str(error), ExitCode.BAD_INPUT) from None


@contextmanager
def publish(target: Path) -> Iterator[BinaryIO]:
    """A stream to write `target` with: it gets that name on success, and nothing stays behind otherwise.

    "-" is standard output. Devices and named pipes are written to as they are. Raises Unwritable.
    """
    if str(target) == PIPE:
        yield sys.stdout.buffer
        signals.check()
        sys.stdout.buffer.flush()
        return
    if target.is_dir():
        raise Failure(f"{target} is a folder; name a file", ExitCode.USAGE)
    with writing(target) as stream:
        yield stream
        signals.check()

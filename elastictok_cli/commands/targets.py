"""Where output goes: under its name only when it is complete, and never over something by accident."""

import mimetypes
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from elastictok_cli.commands.failures import ExitCode, Failure

PIPE = "-"


def check_source(source: Path) -> None:
    """Refuse to wait for a video to be typed in."""
    if str(source) == PIPE and sys.stdin.isatty():
        raise Failure("standard input is a terminal: pipe a file into it, or name one", ExitCode.USAGE)


def check_target(target: Path, *, force: bool, source: Path | None = None) -> None:
    """Raise Failure, before any work is done, where output may not or cannot go."""
    if str(target) == PIPE:
        if sys.stdout.isatty():
            raise Failure("standard output is a terminal: pipe it somewhere, or name a file", ExitCode.USAGE)
        return
    if not target.parent.is_dir():
        raise Failure(f"the folder {target.parent} does not exist", ExitCode.USAGE)
    if not target.exists():
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


def check_etk_name(target: Path) -> None:
    """Refuse to put an .etk file under the name of a video, a picture or sound: a slip, or a file nobody can open."""
    kind = mimetypes.guess_type(target.name)[0] or ""
    if str(target) != PIPE and kind.partition("/")[0] in ("video", "image", "audio"):
        raise Failure(f"{target}: what is written is an .etk file, name it so", ExitCode.USAGE)


@contextmanager
def publish(target: Path) -> Iterator[BinaryIO]:
    """A stream to write `target` with: it gets that name on success, and nothing stays behind otherwise.

    "-" is standard output. Devices and named pipes are written to as they are.
    """
    if str(target) == PIPE:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    if target.is_dir():
        raise Failure(f"{target} is a folder; name a file", ExitCode.USAGE)
    if target.exists() and not target.is_file():
        with target.open("wb") as stream:
            yield stream
        return
    part = target.with_name(f".{secrets.token_hex(6)}.part")
    try:
        stream = part.open("xb")
    except OSError as error:
        raise Failure(f"{target} cannot be written: {error.strerror}", ExitCode.BAD_INPUT) from None
    try:
        with stream:
            yield stream
        part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise

"""Output files: each appears under its name only when it is complete, and stays what it was until then.

A link is followed: the file it leads to is replaced, not the link. Permissions of a file that is replaced are kept.
Temporary files, which never get another name, are here too.
"""

import atexit
import errno
import io
import os
import secrets
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self, TextIO, cast

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class Unwritable(OSError):
    """The system refuses to write a file. `str(error)` names it as the user did, and gives the system's reason."""

    def __init__(self, target: Path | str, reason: BaseException | str) -> None:
        self._sentence = f"{target} cannot be written: {reason_of(reason)}"
        code = getattr(reason, "errno", None) or errno.EIO
        super().__init__(code, reason_of(reason), str(target))

    def __str__(self) -> str:
        return self._sentence


def reason_of(error: BaseException | str) -> str:
    """What the system says of an error, without number and name of a file."""
    return getattr(error, "strerror", None) or str(error)


def real_path(target: Path) -> Path:
    """Where the bytes of `target` go: the end of a chain of links, also of one that leads to no file yet.

    Raises Unwritable where links lead in a circle.
    """
    if not target.is_symlink():
        return target
    real = Path(os.path.realpath(target))
    if real.is_symlink():
        raise Unwritable(target, os.strerror(errno.ELOOP))
    return real


class Part:
    """A file or folder of a temporary name beside the real target, to be put in its place when complete.

    `create` makes it, with owner and permissions of the file to be replaced, or what the umask leaves for a new one.
    Exactly one of `publish` and `discard` ends it; what neither has ended is removed when the program ends.
    `suffix` ends the temporary name. With `inside`, the target is a folder that exists, and the temporary name is in
    it: it may be the only place on its file system that can be written. All raise Unwritable, which names the target.
    """

    def __init__(self, target: Path, suffix: str = "", *, inside: bool = False) -> None:
        self.target = target
        self.real = real_path(target)
        self.path = (self.real if inside else self.real.parent) / f".{secrets.token_hex(6)}.part{suffix}"
        self._made: os.stat_result | None = None

    def create(self) -> Self:
        """Make the empty file."""
        _unfinished[self.path] = os.getpid()
        try:
            old = self.real.stat() if self.real.is_file() else None
            mode = 0o666 if old is None else stat.S_IMODE(old.st_mode)
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode & 0o666))
            if old is not None:
                take_over(old, self.path)
            self._made = self.path.stat()
        except OSError as error:
            self.discard()
            raise Unwritable(self.target, error) from error
        return self

    def create_folder(self) -> Self:
        """Make an empty folder instead."""
        _unfinished[self.path] = os.getpid()
        try:
            self.path.mkdir()
        except OSError as error:
            raise Unwritable(self.target, error) from error
        return self

    def publish(self) -> None:
        """Give the file its name."""
        try:
            if self._made is not None:
                take_over(
                    self._made, self.path
                )  # safetensors puts a file of its own in the place of this one
            self.path.replace(self.real)
        except OSError as error:
            raise Unwritable(self.target, error) from error
        _unfinished.pop(self.path, None)

    def discard(self) -> None:
        """Remove the file, or the folder that was made under its name."""
        _remove(self.path)
        _unfinished.pop(self.path, None)


def take_over(old: os.stat_result, path: Path) -> None:
    """Give a file the permissions that another had, and its owner where this process may."""
    with suppress(OSError, AttributeError):  # Windows has no owners
        os.chown(path, old.st_uid, old.st_gid)  # first: it takes some permissions away
    with suppress(OSError):  # some file systems have no permissions
        path.chmod(stat.S_IMODE(old.st_mode))


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A file to write by its path, which becomes `target` on success; nothing stays behind otherwise."""
    part = Part(target)
    try:
        yield part.create().path
        part.publish()
    except BaseException:
        part.discard()
        raise


@contextmanager
def writing(target: Path) -> Iterator[BinaryIO]:
    """A stream whose bytes become `target` on success; nothing stays behind otherwise.

    What is no regular file, such as a device or a named pipe, is written to as it is. Raises Unwritable where the
    system refuses, whatever has become of its error on the way.
    """
    part = None if target.exists() and not target.is_file() else Part(target)
    raw: _NamedFile | None = None
    try:
        path = target if part is None else part.create().path
        raw = _NamedFile(target, path)
        with io.BufferedWriter(raw) as stream:
            yield cast(BinaryIO, stream)
        if part is not None:
            part.publish()
    except BaseException as error:
        if part is not None:
            part.discard()
        if raw is not None and raw.failure is not None and not isinstance(error, KeyboardInterrupt):
            raise raw.failure from error
        raise


class _NamedFile(io.FileIO):
    """A file to write that remembers its first error, and names in it what the user named."""

    failure: OSError | None = None

    def __init__(self, target: Path | str, file: Path | int) -> None:
        self._target = target
        try:
            super().__init__(file, "wb", closefd=not isinstance(file, int))
        except OSError as error:
            raise Unwritable(target, error) from error

    def write(self, data: "ReadableBuffer", /) -> int:
        if self.failure is not None:
            return memoryview(data).nbytes  # what is still buffered when the file is closed has nowhere to go
        try:
            return super().write(data)
        except BrokenPipeError as error:
            self.failure = error
            raise
        except OSError as error:
            self.failure = Unwritable(self._target, error)
            raise self.failure from error

    def close(self) -> None:
        try:
            super().close()
        except OSError as error:  # a file system on the network may say only now that it is full
            self.failure = self.failure or Unwritable(self._target, error)
            raise self.failure from error


def named_stdout() -> TextIO:
    """Standard output, with errors that name it and are raised once: not again when the program ends."""
    if sys.stdout.isatty():
        return sys.stdout
    raw = _NamedFile("standard output", sys.stdout.fileno())
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding=sys.stdout.encoding, errors=sys.stdout.errors)


@contextmanager
def temporary(folder: Path) -> Iterator[Path]:
    """A new name in a folder. What is made under it is removed at the end, or at the latest when the program ends."""
    path = folder / f"elastictok-{secrets.token_hex(12)}"
    _unfinished[path] = os.getpid()
    try:
        yield path
    finally:
        _remove(path)
        _unfinished.pop(path, None)


_unfinished: dict[Path, int] = {}  # temporary names, and the process that has made each


def _remove(path: Path) -> None:
    with suppress(OSError):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@atexit.register
def _remove_unfinished() -> None:
    for path, process in list(_unfinished.items()):
        if process == os.getpid():  # not in a process that was forked since
            _remove(path)

"""How the program fails: one sentence on standard error and an exit code, never a traceback."""

import functools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import IntEnum
from typing import ParamSpec

import typer

from elastictok_cli.commands import units
from elastictok_cli.video import UnknownKind, VideoError

P = ParamSpec("P")


class ExitCode(IntEnum):
    """What the shell gets to see."""

    DONE = 0
    UNEXPECTED = 1
    USAGE = 2
    BAD_INPUT = 3
    CORRUPT = 4
    MISSED = 5
    INTERRUPTED = 130
    BROKEN_PIPE = 141  # as the shell says of any program whose reader went away


class Failure(Exception):
    """The reason to stop, as one sentence for the user."""

    def __init__(self, message: str, code: ExitCode) -> None:
        super().__init__(message)
        self.code = code


def guarded(command: Callable[P, None]) -> Callable[P, None]:
    """A command whose exceptions become a sentence and an exit code."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
            sys.stdout.flush()
        except typer.Exit:
            raise
        except BrokenPipeError:
            _drop_stdout()
            raise typer.Exit(ExitCode.BROKEN_PIPE) from None
        except (Exception, KeyboardInterrupt) as error:
            message, code = _explain(error)
            if code is ExitCode.UNEXPECTED and os.environ.get("ELASTICTOK_TRACEBACK"):
                raise
            typer.echo(f"elastictok: {units.printable(message)}", err=True)
            if isinstance(error, OSError):
                _drop_stdout()
            raise typer.Exit(code) from None

    return run


@contextmanager
def interrupt_flag() -> Iterator[Callable[[], bool]]:
    """Inside, the first Ctrl-C only turns the returned question true; a second one interrupts at once."""
    pressed = False

    def press(*_: object) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
        yield lambda: pressed
        return
    before = signal.signal(signal.SIGINT, press)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)


def _explain(error: BaseException) -> tuple[str, ExitCode]:
    from formats import EtkError, NotAnEtkFile  # numpy comes with it

    if isinstance(error, Failure):
        return str(error), error.code
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", ExitCode.INTERRUPTED
    if isinstance(error, UnknownKind):
        return str(error), ExitCode.USAGE
    if isinstance(error, VideoError):
        return str(error), ExitCode.BAD_INPUT
    if isinstance(error, NotAnEtkFile):
        return str(error), ExitCode.BAD_INPUT
    if isinstance(error, EtkError):
        return str(error), ExitCode.CORRUPT
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}", ExitCode.BAD_INPUT
    if isinstance(error, MemoryError):
        return "out of memory", ExitCode.BAD_INPUT
    first_line = str(error).partition("\n")[0]
    hint = "ELASTICTOK_TRACEBACK=1 in the environment shows where"
    return f"unexpected {type(error).__name__}: {first_line} ({hint})", ExitCode.UNEXPECTED


def _drop_stdout() -> None:
    """Let what is still buffered for standard output go nowhere, or Python complains about it at exit."""
    with suppress(OSError, ValueError):  # in tests it is no real file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

"""How the program fails: one sentence on standard error and an exit code, never a traceback."""

import functools
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from enum import IntEnum
from typing import NoReturn, ParamSpec

import typer

from elastictok_cli.analysis import units
from elastictok_cli.commands import signals
from elastictok_cli.commands.numbers import OutOfRange, check_finite
from elastictok_cli.files import Unwritable, reason_of
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
    # 128 and a signal's number, as the shell says of any program that a signal has ended
    HUNG_UP = 129
    INTERRUPTED = 130
    BROKEN_PIPE = 141
    TERMINATED = 143


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
            check_finite(command, kwargs)
            command(*args, **kwargs)
            signals.check()
            sys.stdout.flush()
        except typer.Exit:
            raise
        except BrokenPipeError:
            _drop_stdout()
            raise typer.Exit(ExitCode.BROKEN_PIPE) from None
        except (Exception, KeyboardInterrupt) as error:
            message, code = _explain(_first_cause(error))
            if code is ExitCode.UNEXPECTED and os.environ.get("ELASTICTOK_TRACEBACK"):
                raise
            with suppress(OSError):  # standard error may be a terminal that was closed
                typer.echo(f"elastictok: {units.printable(message)}", err=True)
            if isinstance(error, OSError):
                _drop_stdout()
            raise typer.Exit(code) from None

    return run


def run_to_exit(program: Callable[[], object]) -> NoReturn:
    """Run the program and end the process, also where no command was reached: a signal while arguments are parsed,
    help that standard output has no room for.
    """
    try:
        program()
        sys.stdout.flush()
    except SystemExit as stop:
        cause = getattr(stop.__context__, "__cause__", None)
        if isinstance(cause, KeyboardInterrupt):  # Typer has made 130 of it, whichever signal it was
            _end(cause)
        try:
            sys.stdout.flush()
        except OSError as error:
            _end(error)
        raise
    except (Exception, KeyboardInterrupt) as error:
        if os.environ.get("ELASTICTOK_TRACEBACK") and not isinstance(error, OSError | KeyboardInterrupt):
            raise
        _end(error)
    sys.exit(ExitCode.DONE)


def _end(error: BaseException) -> NoReturn:
    """Say why, and exit with the code that fits."""
    if isinstance(error, BrokenPipeError):
        _drop_stdout()
        sys.exit(ExitCode.BROKEN_PIPE)
    message, code = _explain(_first_cause(error))
    with suppress(OSError):
        sys.stderr.write(f"elastictok: {units.printable(message)}\n")
    if isinstance(error, OSError):
        _drop_stdout()
    sys.exit(code)


def _explain(error: BaseException) -> tuple[str, ExitCode]:
    if isinstance(error, Failure):
        return str(error), error.code
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", stopped_code(error)

    # Not before: a signal may have come while numpy, which comes with it, was half loaded.
    from elastictok_cli.codec.workers import WorkerDied
    from formats import EtkError, NotAnEtkFile

    if isinstance(error, UnknownKind | OutOfRange):
        return str(error), ExitCode.USAGE
    if isinstance(error, VideoError | Unwritable):
        return str(error), ExitCode.BAD_INPUT
    if isinstance(error, NotAnEtkFile):
        return str(error), ExitCode.BAD_INPUT
    if isinstance(error, EtkError):
        return str(error), ExitCode.CORRUPT
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{reason_of(error)}", ExitCode.BAD_INPUT
    if isinstance(error, WorkerDied):
        return str(error), ExitCode.UNEXPECTED
    if isinstance(error, MemoryError):
        return "out of memory", ExitCode.BAD_INPUT
    first_line = str(error).partition("\n")[0]
    hint = "ELASTICTOK_TRACEBACK=1 in the environment shows where"
    return f"unexpected {type(error).__name__}: {first_line} ({hint})", ExitCode.UNEXPECTED


def _first_cause(error: BaseException) -> BaseException:
    """The signal that ends the program, where it has dropped an exception and the error follows from that."""
    if isinstance(error, KeyboardInterrupt) or (isinstance(error, Failure) and error.code > 128):
        return error
    try:
        signals.check()
    except KeyboardInterrupt as stopped:
        return stopped
    return error


def stopped_code(error: KeyboardInterrupt) -> ExitCode:
    """The exit code of a program that a signal has ended."""
    return ExitCode(128 + signals.signal_of(error))


def _drop_stdout() -> None:
    """Let what is still buffered for standard output go nowhere, or Python complains about it at exit."""
    with suppress(OSError, ValueError):  # in tests it is no real file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

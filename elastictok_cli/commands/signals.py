"""What stops the program from outside: Ctrl-C, a closed terminal (SIGHUP), and `kill` (SIGTERM).

Such a signal raises Stopped, so that unfinished files are removed on the way out. Code that C calls, such as what
FFmpeg reads carried packets with, may not pass it on: Python drops it there, and FFmpeg sees the end of the data. That
a signal has come is therefore remembered, and asked before a file is given its name.
"""

import atexit
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]

# A closed terminal sends SIGHUP more than once, and a service manager SIGTERM and SIGHUP together: what follows so
# closely (seconds) must not disturb the removal of unfinished files.
_SAME_STOP_SECONDS = 1.0
# How long to wait for a module to be loaded before a signal is looked at again.
_RETRY_SECONDS = 0.02


class Stopped(KeyboardInterrupt):
    """A signal ends the program. `number` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class _State:
    """Of this process."""

    number: int | None = None  # of the signal that came last
    at = 0.0  # when


def handle() -> None:
    """From now on these signals raise Stopped in the main thread, except those that the parent has set to ignore."""

    def stop(number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if _is_importing(frame) and _ask_again(lambda _, later: stop(number, later)):
            return
        if _State.number is not None and now - _State.at < _SAME_STOP_SECONDS:
            return
        _State.number, _State.at = number, now
        raise Stopped(number)

    def ignored(unraisable: "sys.UnraisableHookArgs") -> None:
        if not isinstance(unraisable.exc_value, Stopped):
            sys.__unraisablehook__(unraisable)

    sys.unraisablehook = ignored
    if hasattr(signal, "setitimer"):  # a timer left over (see `_ask_again`) would kill the program at its end
        atexit.register(signal.setitimer, signal.ITIMER_REAL, 0)
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as after nohup
            signal.signal(number, stop)


def _is_importing(frame: FrameType | None) -> bool:
    """Whether a module is being loaded. Those written in C++ may not bear an exception then: torch aborts."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _ask_again(handler: Callable[[int, FrameType | None], None]) -> bool:
    """Call a signal handler in a moment. False where the system has no timer for it."""
    if not hasattr(signal, "setitimer"):
        return False
    atexit.register(
        signal.setitimer, signal.ITIMER_REAL, 0
    )  # a timer left over would kill the program at its end
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, _RETRY_SECONDS)
    return True


def check() -> None:
    """Raise Stopped where a signal has come whose exception was dropped."""
    if _State.number is not None:
        raise Stopped(_State.number)


def signal_of(error: KeyboardInterrupt) -> int:
    """The number of the signal that raised this."""
    return error.number if isinstance(error, Stopped) else signal.SIGINT


class StopFlag:
    """False until a signal comes. `number` is then the signal's."""

    def __init__(self) -> None:
        self.number: int | None = None

    def __call__(self) -> bool:
        """Whether a signal has come."""
        return self.number is not None

    def check(self) -> None:
        """Raise Stopped where a signal has come."""
        if self.number is not None:
            raise Stopped(self.number)


@contextmanager
def stop_flag() -> Iterator[StopFlag]:
    """Inside, the first signal only turns the flag true; a later one raises Stopped at once."""
    flag = StopFlag()
    came_at = 0.0

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal came_at
        now = time.monotonic()
        if flag.number is None:
            flag.number, came_at = number, now
        elif now - came_at >= _SAME_STOP_SECONDS:
            raise Stopped(number)

    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
        yield flag
        return
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    before = {n: handler for n, handler in handlers.items() if handler not in (None, signal.SIG_IGN)}
    for number in before:
        signal.signal(number, stop)
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

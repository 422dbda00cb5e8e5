"""Worker processes: each holds a model of its own, runs on one thread and does one task at a time.

A task is a function of a module, called as `function(loaded, items, *arguments)`, that yields results. The worker asks
for the items when it needs them, so the parent decides how many it sends ahead. Messages are pickles in the pipes of
the worker's standard input and output; both ends are this program.

The processes are started afresh, not forked: torch and FFmpeg have threads, which a fork would lose. They are no
`multiprocessing` ones, because those run the caller's script again, and would need a guard in it.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, Self

from elastictok_cli.machine import reuse_memory

if TYPE_CHECKING:  # torch is only loaded in the worker, when it is told to
    from elastictok_cli.models.interface import Loaded

Load = Callable[[], "Loaded"]  # can be pickled
Function = Callable[..., Iterator[Any]]  # of (loaded, items, *arguments); of a module

_ENTRY = "from elastictok_cli.codec.workers import serve; serve()"
_SECONDS_TO_END = 10.0  # in which a process whose pipe is closed has an exit code


class WorkerDied(Exception):
    """A worker process ended by itself; the message is one sentence for the user."""


class Task(NamedTuple):
    """To a worker: call the function."""

    function: Function
    arguments: tuple[Any, ...]


class Items(NamedTuple):
    """To a worker: what it asked for. last: no more follow."""

    items: Sequence[Any]
    last: bool


class Ask(NamedTuple):
    """From a worker: it waits for items."""


class Result(NamedTuple):
    """From a worker: what the function has yielded."""

    value: Any


class Done(NamedTuple):
    """From a worker: the function has returned, and another task may come."""


class Failed(NamedTuple):
    """From a worker: loading the model or the function has raised this."""

    error: BaseException


class Ended(NamedTuple):
    """The worker's pipe is closed."""


Message = Ask | Result | Done | Failed | Ended


@dataclass(eq=False)
class Worker:
    """A process, as its parent sees it.

    room: messages of it that may wait here. Beyond, it is not listened to, and it stands still once its pipe is full.
    """

    process: subprocess.Popen[bytes]
    room: threading.Semaphore

    def send(self, message: Task | Items) -> None:
        """Give it a task when it has none, or the items it asked for: it reads then, so this does not wait long."""
        _send(self._input, message)

    def start(self, load: Load) -> None:
        """Let it load its model."""
        _send(self._input, load)

    def stop(self) -> None:
        """End the process, whatever it does. Safe to call twice."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with suppress(OSError):  # what is still buffered for it goes nowhere
                pipe.close()  # type: ignore[union-attr]

    @property
    def _input(self) -> BinaryIO:
        assert self.process.stdin is not None
        return self.process.stdin  # type: ignore[return-value]


class Workers:
    """The worker processes of one encode or decode, none at first. A context manager: at its exit all are gone."""

    def __init__(self, load: Load, room: int = 1 << 16) -> None:
        """load: gives each worker its model. room: messages of one worker that may wait, until `Worker.room` is
        released for each that is dealt with.
        """
        self._load, self._room = load, room
        self._messages: SimpleQueue[tuple[Worker, Message]] = SimpleQueue()
        self._listeners: list[threading.Thread] = []
        self.started: list[Worker] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for worker in self.started:
            worker.process.kill()  # all at once, so that none is waited for while others go on
            worker.room.release(1 << 16)  # for what is left in its pipe
        for listener in self._listeners:
            listener.join()
        for worker in self.started:
            worker.stop()

    def start(self) -> Worker:
        """One more worker. It loads its model while this goes on."""
        worker = Worker(
            subprocess.Popen(
                [sys.executable, "-c", _ENTRY],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=_environment(),
                start_new_session=True,  # a terminal's Ctrl-C is the parent's alone, which ends its workers
            ),
            threading.Semaphore(self._room),
        )
        self.started.append(worker)
        listener = threading.Thread(target=_listen, args=(worker, self._messages), daemon=True)
        listener.start()
        self._listeners.append(listener)
        with suppress(BrokenPipeError):  # `receive` will say what happened to it
            worker.start(self._load)
        return worker

    def receive(self, *, wait: bool) -> tuple[Worker, Ask | Result | Done] | None:
        """The next message of any worker; None where there is none yet, unless `wait`.

        Raises what a worker has raised, and WorkerDied.
        """
        try:
            worker, message = self._messages.get(block=wait)
        except Empty:
            return None
        if isinstance(message, Failed):
            raise message.error
        if isinstance(message, Ended):
            raise WorkerDied(_how_it_ended(worker.process))
        return worker, message


def _environment() -> dict[str, str]:
    """Of a worker: it finds the modules that its parent finds, and torch starts no threads."""
    path = os.pathsep.join(part or str(Path.cwd()) for part in sys.path)
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def _listen(worker: Worker, messages: SimpleQueue[tuple[Worker, Message]]) -> None:
    """Pass on what a worker says until its end."""
    pipe = worker.process.stdout
    assert pipe is not None
    with suppress(EOFError, OSError, pickle.UnpicklingError):  # its end, also in the middle of a message
        while worker.room.acquire():
            messages.put((worker, pickle.load(pipe)))
    messages.put((worker, Ended()))


def _how_it_ended(process: subprocess.Popen[bytes]) -> str:
    """A sentence for the user."""
    try:
        code = process.wait(_SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        return "a worker process does not answer any more"
    if code >= 0:
        return f"a worker process ended with exit code {code}"
    number = -code
    name = signal.Signals(number).name if number in signal.valid_signals() else f"signal {number}"
    reason = ", perhaps because memory is short: fewer jobs need less" if name == "SIGKILL" else ""
    return f"a worker process was ended by {name}{reason}"


def _send(pipe: BinaryIO, message: object) -> None:
    """Raises BrokenPipeError where nobody reads any more."""
    pickle.dump(message, pipe, protocol=pickle.HIGHEST_PROTOCOL)
    pipe.flush()


# The worker's side


def serve() -> None:
    """The whole life of a worker process. It ends when its parent does, in the midst of a task too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    reuse_memory()
    # What anything prints must not get among the messages.
    inbound, outbound = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    inbox: SimpleQueue[Any] = SimpleQueue()
    threading.Thread(target=_receive, args=(inbound, inbox), daemon=True).start()
    try:
        loaded = _load_model(inbox)
        while True:
            task: Task = inbox.get()
            items = _asked_for(inbox, outbound)
            for value in task.function(loaded, items, *task.arguments):
                _send(outbound, Result(value))
            deque(items, maxlen=0)  # those that the function has left
            _send(outbound, Done())
    except BrokenPipeError:  # the parent is gone
        pass
    except BaseException as error:
        with suppress(BrokenPipeError):
            _send(outbound, Failed(_portable(error)))
    os._exit(1)  # without waiting for the thread, which still reads


def _load_model(inbox: SimpleQueue[Any]) -> Loaded:
    load: Load = inbox.get()
    import torch

    torch.set_num_threads(1)
    return load()


def _receive(inbound: BinaryIO, inbox: SimpleQueue[Any]) -> None:
    """Pass on what the parent says; end the process with it."""
    with suppress(EOFError, OSError, pickle.UnpicklingError):
        while True:
            inbox.put(pickle.load(inbound))
    os._exit(1)


def _asked_for(inbox: SimpleQueue[Any], outbound: BinaryIO) -> Iterator[Any]:
    """The items of a task, asked for a few at a time."""
    last = False
    while not last:
        _send(outbound, Ask())
        items, last = inbox.get()
        waiting = deque(items)
        while waiting:
            yield waiting.popleft()  # the worker keeps none that the function has let go


def _portable(error: BaseException) -> BaseException:
    """The exception as the parent will raise it, with the worker's traceback as a note."""
    note = "".join(traceback.format_exception(error))
    try:
        copy: BaseException = pickle.loads(pickle.dumps(error))
    except Exception:  # of a class that cannot be pickled
        copy = RuntimeError(f"{type(error).__name__}: {error}")
    copy.add_note(f"In a worker process:\n{note}")
    return copy

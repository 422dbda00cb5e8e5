"""Runs tasks side by side in worker processes, and gives their results in order, whichever is done first.

One reader feeds them all: the items of the tasks (the frames of scenes) come one after another, so later tasks can
start only once all items of the earlier ones are read. What is read and not yet asked for by a worker waits here, up to
`Limits.ahead` bytes. That is less than a long task may have: with two workers in step, half a task apart, half a task
waits. The memory depends neither on the length of the video nor on that of a scene.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from elastictok_cli.codec.workers import Ask, Done, Function, Items, Load, Result, Task, Worker, Workers
from elastictok_cli.models.interface import Loaded

ITEMS_A_MESSAGE = 4  # frames of a block: more would only wait in the worker
# Tasks that are begun, for each worker: those that are done wait for the results of an earlier one to be taken.
MAX_TASKS_A_JOB = 4


class Limits(NamedTuple):
    """jobs: most workers, so many tasks run at once. ahead: bytes of items that may wait here, unless a single one has
    more. least: bytes of items below which workers are not worth their start. results: of each worker, that may wait.
    """

    jobs: int
    ahead: int
    least: int = 0
    results: int = 1 << 16


class Group(NamedTuple):
    """A task to come: the arguments of the function after its items, and the items, read as they are asked for."""

    arguments: tuple[Any, ...]
    items: Iterable[Any]


@dataclass(eq=False)
class _Running:
    """A task. complete: all its items are read."""

    arguments: tuple[Any, ...]
    items: deque[Any] = field(default_factory=deque)  # read and not sent
    complete: bool = False
    worker: Worker | None = None
    asked: bool = False  # its worker waits for items
    results: deque[Any] = field(default_factory=deque)  # not yielded yet
    done: bool = False


def run_in_order(
    groups: Iterable[Group],
    function: Function,
    loaded: Loaded,
    load: Load,
    limits: Limits,
    size_of: Callable[[Any], int],
) -> Iterator[Any]:
    """The results of `function(loaded, items, *arguments)` for each group, in order.

    It runs in this process, with `loaded`, where there is one group only or less than `limits.least` to do; then no
    worker is started. Else in worker processes, each with a model from `load`. size_of: bytes of an item.

    Raises WorkerDied, and what the function or the reading of a group raises.
    """
    with Workers(load, limits.results) as workers:
        yield from _Scheduler(groups, function, loaded, limits, size_of, workers).results()


class _Scheduler:
    """Reads items, hands them out, and puts the results in order, all in one thread."""

    def __init__(
        self,
        groups: Iterable[Group],
        function: Function,
        loaded: Loaded,
        limits: Limits,
        size_of: Callable[[Any], int],
        workers: Workers,
    ) -> None:
        self._incoming = _numbered(groups)
        self._function, self._loaded, self._limits = function, loaded, limits
        self._size_of, self._workers = size_of, workers
        self._tasks: deque[_Running] = deque()  # begun, and not all results yielded
        self._by_worker: dict[Worker, _Running] = {}
        self._idle: list[Worker] = []
        self._waiting = self._read = 0  # bytes of items: not sent yet; of all
        self._number = -1  # of the group that is being read
        self._ended = False

    def results(self) -> Iterator[Any]:
        """All results, in order."""
        while not self._ended and self._waiting < self._limits.ahead and not self._is_worth_workers():
            self._read_item()
        if self._ended and not self._is_worth_workers():
            for task in self._tasks:
                yield from self._function(self._loaded, _emptied(task.items), *task.arguments)
            return
        self._hand_out()
        while self._tasks:
            received = self._workers.receive(wait=not self._may_read())
            if received is not None:
                self._take(*received)
            else:
                self._read_item()
            self._hand_out()
            yield from self._ready()

    def _ready(self) -> Iterator[Any]:
        """The results that no earlier task has to come before."""
        while self._tasks:
            for result in _emptied(self._tasks[0].results):
                self._worker_of(self._tasks[0]).room.release()
                yield result
            if not self._tasks[0].done:
                return
            self._tasks.popleft()

    def _is_worth_workers(self) -> bool:
        return len(self._tasks) > 1 and self._read >= self._limits.least

    def _may_read(self) -> bool:
        """Whether there is room for an item, be it the first of another task."""
        jobs = self._limits.jobs
        return (
            not self._ended
            and self._waiting < self._limits.ahead
            and sum(not task.done for task in self._tasks) <= jobs
            and len(self._tasks) <= MAX_TASKS_A_JOB * jobs
        )

    def _read_item(self) -> None:
        """Read one item of the current task, or the first one of the next."""
        found = next(self._incoming, None)
        if found is None or found[0] != self._number:
            if self._tasks:
                self._tasks[-1].complete = True
            if found is None:
                self._ended = True
                return
        number, arguments, item = found
        if number != self._number:
            self._number = number
            self._tasks.append(_Running(arguments))
        self._tasks[-1].items.append(item)
        self._waiting += self._size_of(item)
        self._read += self._size_of(item)

    def _take(self, worker: Worker, message: Ask | Result | Done) -> None:
        """A worker has said something."""
        task = self._by_worker[worker]
        if not isinstance(message, Result):  # results wait
            worker.room.release()
        match message:
            case Ask():
                task.asked = True
            case Result(value):
                task.results.append(value)
            case Done():
                task.done = True
                del self._by_worker[worker]
                self._idle.append(worker)

    def _hand_out(self) -> None:
        """Give tasks to workers, and items to those that have asked."""
        for task in self._tasks:
            if task.done:
                continue
            if task.worker is None:
                if (worker := self._free_worker()) is None:
                    return
                task.worker = worker
                self._by_worker[worker] = task
                self._send(worker, Task(self._function, task.arguments))
            if task.asked and (task.items or task.complete):
                count = min(ITEMS_A_MESSAGE, len(task.items))
                items = [task.items.popleft() for _ in range(count)]
                self._waiting -= sum(map(self._size_of, items))
                task.asked = False
                self._send(task.worker, Items(items, task.complete and not task.items))

    def _worker_of(self, task: _Running) -> Worker:
        assert task.worker is not None
        return task.worker

    def _free_worker(self) -> Worker | None:
        if self._idle:
            return self._idle.pop()
        if len(self._workers.started) < self._limits.jobs:
            return self._workers.start()
        return None

    def _send(self, worker: Worker, message: Task | Items) -> None:
        try:
            worker.send(message)
        except BrokenPipeError:  # not that of standard output, which ends the program in silence
            while True:
                self._workers.receive(wait=True)  # raises what the worker said last


def _numbered(groups: Iterable[Group]) -> Iterator[tuple[int, tuple[Any, ...], Any]]:
    """Each item with the number of its group and the group's arguments."""
    for number, group in enumerate(groups):
        for item in group.items:
            yield number, group.arguments, item


def _emptied(queue: deque[Any]) -> Iterator[Any]:
    """What a queue holds, taken from it as it is asked for."""
    while queue:
        yield queue.popleft()

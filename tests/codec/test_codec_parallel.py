"""Tasks in worker processes: results in order, what fails says so, no process stays, and bounded memory."""

import os
import signal
import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from elastictok_cli.codec import parallel, workers
from elastictok_cli.codec.parallel import Group, Limits, run_in_order
from elastictok_cli.codec.workers import WorkerDied, Workers
from elastictok_cli.models import checkpoint
from elastictok_cli.models.interface import Loaded

_SECONDS = 120  # in which what must happen has happened, on a slow machine too


def load() -> Any:
    """A model for tasks that need none."""
    return "a model"


def load_nothing() -> Any:
    raise checkpoint.CheckpointError("no model file at x")


def doubled(loaded: Any, items: Iterable[int], name: str) -> Iterator[tuple[str, int]]:
    for item in items:
        yield name, 2 * item


def with_process(loaded: Any, items: Iterable[int]) -> Iterator[tuple[int, int]]:
    for item in items:
        yield os.getpid(), item


def first_waits_for_second(loaded: Any, items: Iterable[int], name: str, folder: Path) -> Iterator[str]:
    """The first task goes on only once the second one is done."""
    if name == "first":
        until = time.monotonic() + _SECONDS
        while not (folder / "second").exists() and time.monotonic() < until:
            time.sleep(0.01)
    for _ in items:
        pass
    yield name
    (folder / name).touch()


def leaves_items(loaded: Any, items: Iterable[int]) -> Iterator[int]:
    yield next(iter(items))


def fails_at(loaded: Any, items: Iterable[int], last: int) -> Iterator[int]:
    for item in items:
        if item == last:
            raise ValueError(f"item {item} is bad")
        yield item


class Odd(Exception):
    """It cannot be pickled and made again."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__(f"{one} and {other}")


def fails_oddly(loaded: Any, items: Iterable[int]) -> Iterator[int]:
    yield from items
    raise Odd("this", "that")


def prints(loaded: Any, items: Iterable[int]) -> Iterator[int]:
    for item in items:
        print("among the messages?", flush=True)
        yield item


def killed_at(loaded: Any, items: Iterable[int], last: int, number: int) -> Iterator[int]:
    for item in items:
        if item == last:
            os.kill(os.getpid(), number)
        yield item


def groups_of(counts: list[int], *arguments: Any) -> Iterator[Group]:
    """Groups of so many items, numbered throughout."""
    first = 0
    for count in counts:
        yield Group(arguments, range(first, first + count))
        first += count


def run(groups: Iterable[Group], function: Any, jobs: int, ahead: int = 1000, least: int = 0) -> list[Any]:
    return list(
        run_in_order(groups, function, cast_model(), load, Limits(jobs, ahead, least), lambda item: 1)
    )


def cast_model() -> Loaded:
    model: Any = "a model"
    found: Loaded = model
    return found


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> list[workers.Worker]:
    """All workers that the test starts."""
    started: list[workers.Worker] = []
    real = Workers.start

    def start(self: Workers) -> workers.Worker:
        worker = real(self)
        started.append(worker)
        return worker

    monkeypatch.setattr(Workers, "start", start)
    return started


@pytest.mark.parametrize(("jobs", "ahead"), [(1, 5), (2, 1), (2, 5), (3, 1000)])
def test_results_come_in_order(jobs: int, ahead: int, processes: list[workers.Worker]) -> None:
    """Also where a task has more items than may wait."""
    counts = [3, 1, 9, 2, 30, 1, 1]
    names = [str(n) for n in range(len(counts))]
    groups = (Group((name,), range(count)) for name, count in zip(names, counts, strict=True))
    wanted = [(n, 2 * i) for n, count in zip(names, counts, strict=True) for i in range(count)]
    assert run(groups, doubled, jobs, ahead) == wanted
    assert 1 <= len(processes) <= jobs
    assert all(worker.process.returncode is not None for worker in processes)


def test_a_later_task_that_is_done_first_waits(tmp_path: Path) -> None:
    groups = [Group((name, tmp_path), range(3)) for name in ("first", "second", "third")]
    assert run(groups, first_waits_for_second, 2) == ["first", "second", "third"]


def test_tasks_run_in_processes_of_their_own(processes: list[workers.Worker]) -> None:
    found = run(groups_of([2, 2, 2]), with_process, 2)
    assert [item for _, item in found] == list(range(6))
    assert {pid for pid, _ in found} <= {worker.process.pid for worker in processes}


@pytest.mark.parametrize(
    ("counts", "ahead", "least"),
    [([], 10, 0), ([6], 10, 0), ([3, 3], 10, 7)],
    ids=["nothing", "one task", "little to do"],
)
def test_no_worker_is_started_where_none_is_worth_it(
    counts: list[int], ahead: int, least: int, processes: list[workers.Worker]
) -> None:
    found = run(groups_of(counts), with_process, 2, ahead, least)
    assert [item for _, item in found] == list(range(sum(counts)))
    assert {pid for pid, _ in found} <= {os.getpid()}
    assert processes == []


def test_workers_start_one_by_one_with_the_tasks(processes: list[workers.Worker]) -> None:
    run(groups_of([2, 2]), with_process, 8)
    assert len(processes) == 2


def test_a_task_may_leave_items() -> None:
    assert run(groups_of([20, 30, 10]), leaves_items, 2, 4) == [0, 20, 50]


def test_what_is_read_ahead_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Items wait up to the limit, of as many tasks as there are jobs and the first item of one more."""
    most = []
    real = parallel._Scheduler._read_item

    def read_item(self: parallel._Scheduler) -> None:
        real(self)
        most.append(sum(len(task.items) for task in self._tasks))
        unfinished = [task for task in self._tasks if not task.done]
        assert len(unfinished) <= 3
        assert len(unfinished) < 3 or len(unfinished[-1].items) == 1  # the one that shows where a task ends

    monkeypatch.setattr(parallel._Scheduler, "_read_item", read_item)
    run(groups_of([50] * 6), with_process, 2, 20)
    assert max(most) == 20


def counts_in_a_file(loaded: Any, items: Iterable[int], path: Path) -> Iterator[int]:
    """Says in a file how many results it has given."""
    for item in items:
        path.write_text(str(item + 1))
        yield item


def goes_on_when_the_other_stands_still(loaded: Any, items: Iterable[int], other: Path) -> Iterator[int]:
    """Until the other task has given some results; it gives as many as there may be then."""
    until = time.monotonic() + _SECONDS
    while not other.exists() and time.monotonic() < until:
        time.sleep(0.01)
    yield from items


def either(loaded: Any, items: Iterable[int], first: bool, path: Path) -> Iterator[int]:
    yield from (goes_on_when_the_other_stands_still if first else counts_in_a_file)(loaded, items, path)


def test_results_that_wait_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second task is not listened to while the first one's results are not all taken."""
    most = []
    real = parallel._Scheduler._take

    def take(self: parallel._Scheduler, *arguments: Any) -> None:
        real(self, *arguments)
        most.append(max(len(task.results) for task in self._tasks))

    monkeypatch.setattr(parallel._Scheduler, "_take", take)
    groups = [Group((first, tmp_path / "count"), range(60)) for first in (True, False)]
    limits = Limits(2, 1000, results=7)
    found = list(run_in_order(groups, either, cast_model(), load, limits, lambda item: 1))
    assert found == 2 * list(range(60))
    assert max(most) <= 7


def test_an_exception_in_a_worker_is_raised_here(processes: list[workers.Worker]) -> None:
    with pytest.raises(ValueError, match="item 12 is bad") as caught:
        run(groups_of([5, 5, 5], 12), fails_at, 2)
    assert str(caught.value) == "item 12 is bad"
    assert "in fails_at" in caught.value.__notes__[0]
    assert all(worker.process.returncode is not None for worker in processes)


def test_an_exception_that_cannot_be_sent_keeps_its_words() -> None:
    with pytest.raises(RuntimeError, match="Odd: this and that"):
        run(groups_of([1, 1]), fails_oddly, 2)


def test_a_model_that_cannot_be_loaded_says_so() -> None:
    with pytest.raises(checkpoint.CheckpointError, match="no model file at x"):
        list(
            run_in_order(
                groups_of([1, 1]), with_process, cast_model(), load_nothing, Limits(2, 9), lambda item: 1
            )
        )


def test_what_a_task_prints_is_no_message(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(groups_of([2, 2]), prints, 2) == [0, 1, 2, 3]
    assert capfd.readouterr().err.count("among the messages?") == 4


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGKILL, "a worker process was ended by SIGKILL, perhaps because memory is short"),
        (signal.SIGTERM, "a worker process was ended by SIGTERM"),
    ],
)
def test_a_worker_that_is_killed_ends_it_all(
    number: int, words: str, processes: list[workers.Worker]
) -> None:
    with pytest.raises(WorkerDied, match=words):
        run(groups_of([3, 3, 30], 4, number), killed_at, 2, 2)
    assert all(worker.process.returncode is not None for worker in processes)


def test_a_worker_that_is_dead_when_it_gets_a_task_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Workers.start

    def start(self: Workers) -> workers.Worker:
        worker = real(self)
        worker.process.kill()
        worker.process.wait()
        return worker

    monkeypatch.setattr(Workers, "start", start)
    with pytest.raises(WorkerDied, match="SIGKILL"):
        run(groups_of([1, 1]), with_process, 2)


def test_a_source_that_fails_ends_the_workers(processes: list[workers.Worker]) -> None:
    def groups() -> Iterator[Group]:
        yield from groups_of([2, 2])
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        run(groups(), with_process, 2, ahead=2)
    assert all(worker.process.returncode is not None for worker in processes)


def test_leaving_early_ends_the_workers(processes: list[workers.Worker]) -> None:
    results = run_in_order(
        groups_of([50] * 9), with_process, cast_model(), load, Limits(2, 9), lambda item: 1
    )
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert len(processes) in (1, 2)
    assert all(worker.process.returncode is not None for worker in processes)


def test_a_worker_ends_with_its_parent(tmp_path: Path) -> None:
    """Its pipe is closed when the parent is gone, however that came; the worker is in the midst of a task then."""
    with Workers(load) as some:
        worker = some.start()
        worker.send(workers.Task(first_waits_for_second, ("first", tmp_path)))
        assert worker.process.stdin is not None
        worker.process.stdin.close()
        assert worker.process.wait(_SECONDS) == 1


def test_a_worker_runs_on_one_thread() -> None:
    assert set(run(groups_of([1, 1]), threads, 2)) == {1}


def threads(loaded: Any, items: Iterable[int]) -> Iterator[int]:
    import torch

    for _ in items:
        yield torch.get_num_threads()


def test_a_model_file_that_has_changed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(checkpoint.shipped().read_bytes())
    loaded = checkpoint.load(path)
    assert isinstance(loaded.load, partial)
    assert loaded.load().sha256 == loaded.sha256
    checkpoint.save(loaded.tokenizer.model, path, {"other": 1})  # type: ignore[union-attr]
    with pytest.raises(checkpoint.CheckpointError, match="has changed"):
        loaded.load()

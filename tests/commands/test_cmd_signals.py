"""Ctrl-C, SIGTERM and SIGHUP: nothing unfinished stays, and the exit code says what it was."""

import os
import pty
import select
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_samples import make_clip, run, start

from elastictok_cli.commands.signals import Stopped, stop_flag
from elastictok_cli.models import checkpoint
from elastictok_cli.training.cell import loop

_SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
_LONG = 60  # frames

_WRITERS: dict[str, Callable[[Path, Path, Path], tuple[object, ...]]] = {
    "encode": lambda clip, etk, out: ("encode", clip, out / "a.etk"),
    "decode": lambda clip, etk, out: ("decode", etk, out / "a.mp4"),
    "decode to a folder": lambda clip, etk, out: ("decode", etk, f"{out / 'a'}/"),
    "compare": lambda clip, etk, out: ("compare", clip, etk, "-o", out / "a.mp4"),
    "thin": lambda clip, etk, out: ("thin", etk, out / "a.etk", "--keep", 0.5, "--source", clip),
    "stats": lambda clip, etk, out: ("stats", etk, "--csv", out / "a.csv", "--source", clip),
}
_CASES = [
    *((name, number) for name in ("encode", "decode") for number in _SIGNALS),
    *((name, signal.SIGHUP) for name in ("decode to a folder", "compare", "thin", "stats")),
]


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("film")
    clip = make_clip(folder / "film.mp4", count=_LONG, audio=False)
    assert run("encode", clip, folder / "film.etk", "--tokens", 1, "-q").exit_code == 0
    return clip, folder / "film.etk"


def _wait_for(folder: Path, process: "subprocess.Popen[bytes]") -> None:
    """Until something is being written there."""
    until = time.monotonic() + 120
    while not any(".part" in path.name for path in folder.iterdir()):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.parametrize(("name", "number"), _CASES)
def test_stopped_midway_leaves_nothing(
    name: str, number: signal.Signals, film: tuple[Path, Path], tmp_path: Path
) -> None:
    process = start(*_WRITERS[name](*film, tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _wait_for(tmp_path, process)
    process.send_signal(number)
    _, said = process.communicate()
    assert list(tmp_path.iterdir()) == []
    assert process.returncode == 128 + number
    assert said.endswith(b"elastictok: interrupted\n")  # a slow machine shows progress first
    assert b"Traceback" not in said


def test_a_kill_leaves_nothing_under_the_final_name(film: tuple[Path, Path], tmp_path: Path) -> None:
    process = start(
        "encode", film[0], tmp_path / "a.etk", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _wait_for(tmp_path, process)
    process.kill()
    process.communicate()
    assert not (tmp_path / "a.etk").exists()


def test_several_signals_at_once_are_one(film: tuple[Path, Path], tmp_path: Path) -> None:
    """As a closed terminal and service managers send them."""
    process = start("encode", film[0], tmp_path / "a.etk", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _wait_for(tmp_path, process)
    process.send_signal(signal.SIGSTOP)
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGCONT):
        process.send_signal(number)
    for _ in range(20):
        time.sleep(0.01)
        if process.poll() is None:
            process.send_signal(signal.SIGHUP)
    _, said = process.communicate()
    assert list(tmp_path.iterdir()) == []
    assert process.returncode in (129, 130, 143, -1)  # -1: one more came after Python had tidied up
    assert b"Traceback" not in said


def test_a_signal_that_the_parent_ignores_is_ignored(clip: Path, tmp_path: Path) -> None:
    process = start(
        *("encode", clip, tmp_path / "a.etk", "--tokens", 1, "-q"),
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),  # as nohup does
    )
    _wait_for(tmp_path, process)
    process.send_signal(signal.SIGHUP)
    assert process.wait() == 0
    assert [path.name for path in tmp_path.iterdir()] == ["a.etk"]


def test_a_terminal_that_is_closed_is_tidied_up_after(film: tuple[Path, Path], tmp_path: Path) -> None:
    """Progress bar, warnings and the last words have nowhere to go then."""
    process, terminal = pty.fork()
    if process == 0:
        script = "from elastictok_cli.main import run; run()"
        os.environ["TERM"] = "xterm"
        os.execv(
            os.sys.executable,  # type: ignore[attr-defined]
            [os.sys.executable, "-c", script, "encode", str(film[0]), str(tmp_path / "a.etk")],  # type: ignore[attr-defined]
        )
    until = time.monotonic() + 120
    seen = b""
    while b"tok" not in seen:
        assert time.monotonic() < until
        if select.select([terminal], [], [], 1)[0]:
            seen += os.read(terminal, 1 << 16)
    assert any(tmp_path.iterdir())
    os.close(terminal)
    _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) == 129
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", _SIGNALS)
def test_a_signal_while_a_pipe_is_read_makes_no_file_of_what_came(
    number: signal.Signals, tmp_path: Path
) -> None:
    """FFmpeg reads through Python there, and drops its exceptions: the end of the pipe is all that it sees."""
    clip = make_clip(tmp_path / "clip.mkv", count=90, audio=False)
    data = clip.read_bytes()
    out = tmp_path / "out"
    out.mkdir()
    process = start(
        *("encode", "-", out / "a.etk", "--tokens", 1),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write(data[: len(data) * 3 // 4])
    process.stdin.flush()
    _wait_for(out, process)
    time.sleep(1)  # it decodes what there is, and waits
    process.send_signal(number)
    process.wait()
    assert process.stderr is not None
    said = process.stderr.read()
    process.stdin.close()
    process.stderr.close()
    assert process.returncode == 128 + number
    assert said.endswith(b"elastictok: interrupted\n")
    assert b"Traceback" not in said
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM])  # test_cmd_train_models has SIGINT
def test_training_saves_before_it_gives_way(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    make_clip(data / "clip.mp4", audio=False)
    one_step = loop._Run._one_step

    def stopping(self: loop._Run, *arguments: object) -> object:
        signal.raise_signal(number)
        return one_step(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(loop._Run, "_one_step", stopping)
    out = tmp_path / "my.safetensors"
    before = [signal.getsignal(number) for number in _SIGNALS]
    result = run(
        *("train", "--data", data, "--out", out, "--steps", 99, "--init", checkpoint.shipped()),
        *("--batch", 1, "--blocks", 2, "--crop", 32, "--cache-gb", 0.1),
    )
    assert result.exit_code == 128 + number
    assert "interrupted and saved at step 1; run the same command again to go on" in result.stderr
    assert checkpoint.load(out).training["steps"] == 1
    assert [signal.getsignal(number) for number in _SIGNALS] == before
    assert {path.name for path in tmp_path.iterdir()} == {"data", "my.safetensors", "my.state.pt"}


def test_a_later_signal_does_not_wait_for_the_flag() -> None:
    with stop_flag() as stopped:
        assert not stopped()
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)  # the same stop
        assert (stopped(), stopped.number) == (True, signal.SIGTERM)
        time.sleep(1.1)
        with pytest.raises(Stopped):
            signal.raise_signal(signal.SIGINT)
    with pytest.raises(Stopped):
        stopped.check()

"""Sources that can be read once, copied into a file that can be read again and that does not stay."""

import io
import os
import resource
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from video_clips import make_clip, read_all

from elastictok_cli import files
from elastictok_cli.video import UnreadableVideo, VideoError
from elastictok_cli.video.errors import NoTemporaryFile
from elastictok_cli.video.spool import spooled

_ODD = Path(__file__).parent.parent / "fixtures" / "odd"
_BYTES = bytes(range(256)) * 10_000 + b"end"  # over two pieces, and no whole number of them
_LIMIT_SECONDS = 60  # of what hung for ever


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files."""
    path = tmp_path / "temporary"
    path.mkdir()
    monkeypatch.setenv("TMPDIR", str(path))
    monkeypatch.setattr(tempfile, "tempdir", None)  # what tempfile has found out before
    assert tempfile.gettempdir() == str(path)
    return path


def _give(monkeypatch: pytest.MonkeyPatch, stream: io.RawIOBase) -> None:
    """Let standard input be this."""
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BufferedReader(stream)))


class _Broken(io.RawIOBase):
    """Bytes, then an exception."""

    def __init__(self, error: BaseException) -> None:
        self._error = error
        self._left = 2

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]
        if not self._left:
            raise self._error
        self._left -= 1
        return len(buffer)


@contextmanager
def _pipe(path: Path, data: bytes) -> Iterator[Path]:
    """A named pipe that gives these bytes once."""
    os.mkfifo(path)

    def feed() -> None:
        with path.open("wb") as stream:
            stream.write(data)

    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    yield path
    feeder.join(_LIMIT_SECONDS)
    assert not feeder.is_alive()


def _fail(error: BaseException) -> None:
    raise error


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").is_dir() else 0


def test_standard_input_becomes_a_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _give(monkeypatch, io.BytesIO(_BYTES))  # type: ignore[arg-type]
    for source, left in (("-", _BYTES), (Path("-"), b"")):
        with spooled(source) as path:
            assert path.parent == folder
            assert path.read_bytes() == path.read_bytes() == left
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert list(folder.iterdir()) == []
    assert not sys.stdin.buffer.closed
    assert not files._unfinished


@pytest.mark.parametrize("size", [0, 1, 1 << 20, len(_BYTES)])
def test_a_named_pipe_becomes_a_file(size: int, folder: Path, tmp_path: Path) -> None:
    before = _open_files()
    with _pipe(tmp_path / "pipe.mp4", _BYTES[:size]) as pipe, spooled(pipe) as path:
        assert path != pipe
        assert path.read_bytes() == _BYTES[:size]
    assert list(folder.iterdir()) == []
    assert _open_files() == before


def test_a_file_is_given_as_it_is(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.mp4"
    file.write_bytes(b"bytes")
    for source in (file, str(file), tmp_path / "missing.mp4", tmp_path):
        with spooled(source) as path:
            assert path == Path(source)
            assert list(folder.iterdir()) == []
    assert file.read_bytes() == b"bytes"


@pytest.mark.parametrize("error", [ValueError("wrong"), KeyboardInterrupt(), OSError(5, "broken")])
def test_nothing_stays_after_an_error_inside(
    error: BaseException, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _give(monkeypatch, io.BytesIO(_BYTES))  # type: ignore[arg-type]
    with pytest.raises(type(error)) as raised, spooled("-"):
        _fail(error if len(list(folder.iterdir())) == 1 else AssertionError("there is no file"))
    assert raised.value is error
    assert list(folder.iterdir()) == []


def test_nothing_stays_where_the_file_was_removed_already(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _give(monkeypatch, io.BytesIO(_BYTES))  # type: ignore[arg-type]
    with spooled("-") as path:
        path.unlink()
    assert list(folder.iterdir()) == []


def test_nothing_stays_after_an_interrupt_while_it_is_copied(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _give(monkeypatch, _Broken(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt), spooled("-"):
        raise AssertionError("it was not copied whole")
    assert list(folder.iterdir()) == []


def test_a_source_that_breaks_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _give(monkeypatch, _Broken(OSError(5, "Input/output error")))
    with pytest.raises(UnreadableVideo) as raised, spooled("-"):
        raise AssertionError("it was not copied whole")
    assert str(raised.value) == "standard input cannot be read as a video: Input/output error"
    assert list(folder.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open everything")
def test_a_pipe_that_may_not_be_opened_is_named(folder: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0)
    with pytest.raises(UnreadableVideo, match="pipe cannot be read as a video: Permission denied"):
        spooled(pipe).__enter__()
    assert list(folder.iterdir()) == []


@contextmanager
def _largest_file(size: int) -> Iterator[None]:
    """The system refuses to make files larger than this (bytes)."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


@pytest.mark.parametrize(
    ("size", "room"), [(len(_BYTES), 1 << 20), (len(_BYTES), (1 << 20) + 5), (100, 0)]
)  # in the last case it is known only when the file is closed
def test_a_copy_without_room_is_one_sentence(
    size: int, room: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _give(monkeypatch, io.BytesIO(_BYTES[:size]))  # type: ignore[arg-type]
    with _largest_file(room), pytest.raises(NoTemporaryFile) as raised, spooled("-"):
        pass
    assert isinstance(raised.value, VideoError)
    assert str(raised.value) == (
        f"standard input cannot be copied to {folder}: File too large; "
        "the environment variable TMPDIR names another folder"
    )
    assert list(folder.iterdir()) == []


def test_no_folder_for_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    with pytest.raises(NoTemporaryFile, match="cannot be copied to a file: No usable temporary directory"):
        spooled("-").__enter__()


def test_the_program_removes_at_its_end_what_a_signal_has_left(folder: Path) -> None:
    code = (
        "from pathlib import Path; import sys; from elastictok_cli import files\n"
        "def fail(path): raise KeyboardInterrupt\n"
        "remove, files._remove = files._remove, fail\n"
        "try:\n"
        "    with files.temporary(Path(sys.argv[1])) as path: path.touch()\n"
        "except KeyboardInterrupt: assert path.exists()\n"
        "files._remove = remove\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(folder)], check=False).returncode == 0
    assert list(folder.iterdir()) == []


_PROGRAM = """
import sys
from elastictok_cli.commands import signals
from elastictok_cli.video.spool import spooled
signals.handle()
try:
    with spooled(sys.argv[1]) as path:
        raise AssertionError("the source has not ended")
except signals.Stopped as stopped:
    sys.exit(128 + stopped.number)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_wait_for_more(number: signal.Signals, folder: Path) -> None:
    start = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    process = subprocess.Popen([sys.executable, "-c", start + _PROGRAM, "-"], stdin=subprocess.PIPE)
    assert process.stdin is not None
    with process.stdin:
        process.stdin.write(_BYTES)
        process.stdin.flush()
        _wait_until(lambda: any(path.stat().st_size for path in folder.iterdir()), process)
        process.send_signal(number)
        assert process.wait(_LIMIT_SECONDS) == 128 + number
    assert list(folder.iterdir()) == []


def test_a_signal_ends_the_wait_for_a_writer(folder: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    process = subprocess.Popen([sys.executable, "-c", _PROGRAM, str(pipe)])
    _wait_until(lambda: any(folder.iterdir()), process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(_LIMIT_SECONDS) == 128 + signal.SIGTERM
    assert list(folder.iterdir()) == []


def _wait_until(condition: "object", process: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + _LIMIT_SECONDS
    while not condition():  # type: ignore[operator]
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.02)


_MADE = {
    "index last.mp4": {"audio": "aac"},
    "sound.mkv": {"audio": "libopus"},
    "broadcast.ts": {"audio": "aac"},
    "old.avi": {"audio": "mp3", "video": "mpeg4"},
    "pictures.webm": {"video": "libvpx-vp9"},
    "moving.gif": {"video": "gif", "pixel_format": "rgb8"},
    "raw.y4m": {"video": "wrapped_avframe"},
}
_FOUND = ["one.png", "anim.avif", "theora_dup.ogv", "sar_prores.mov", "start_12h.ts", "cut_fast.mp4"]


def _sound(data: bytes) -> list[tuple[int, int | None, bytes]]:
    """Stream, time and bytes of the packets of a carrying container; Matroska has random numbers beside them."""
    if not data:
        return []
    with av.open(io.BytesIO(data)) as container:
        return [(p.stream_index, p.pts, bytes(p)) for p in container.demux()]


@pytest.mark.parametrize("name", [*_MADE, *_FOUND])
def test_a_copy_without_a_suffix_gives_what_the_file_gives(
    name: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = make_clip(tmp_path / name, **_MADE[name]) if name in _MADE else _ODD / name  # type: ignore[arg-type]
    data = file.read_bytes()
    _give(monkeypatch, io.BytesIO(data))  # type: ignore[arg-type]
    info, frames, chunks, warnings = read_all(file)
    sound = _sound(b"".join(chunks))
    assert frames
    assert bool(sound) == (info.aux_container is not None)
    with spooled("-") as path:
        assert path.suffix == ""
        for _ in range(2):  # it can be read again
            again = read_all(path)
            assert again[0] == info
            assert [(f.pts, f.duration) for f in again[1]] == [(f.pts, f.duration) for f in frames]
            assert all(np.array_equal(a.rgb, b.rgb) for a, b in zip(again[1], frames, strict=True))
            assert _sound(b"".join(again[2])) == sound
            assert again[3] == [text.replace(str(file), str(path)) for text in warnings]

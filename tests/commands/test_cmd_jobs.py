"""`encode --jobs`: the same file as with one job; signals, killed workers and pipes."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_samples import make_clip, run, start

from elastictok_cli.models.paper.config import PaperConfig
from elastictok_cli.models.paper.transformer import PaperModel

_SECONDS = 120  # in which what must happen has happened, on a slow machine too
_SCENES = ("--keyframe-interval", 0.2, "--tokens", 2)
needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="workers are found in /proc")


def _events(output: str) -> list[dict[str, Any]]:
    """The JSON lines without what depends on the time it took, and on names."""
    lines = [json.loads(line) for line in output.splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds", "fps", "output")} for line in lines]


@pytest.mark.parametrize(
    "more",
    [(), ("--start", 0.1, "--duration", 0.3), ("--tokens", 12, "--allocation", "block"), ("--mse", 0.01)],
    ids=["whole", "a part", "block", "target"],
)
def test_two_jobs_write_the_same_file_and_say_the_same(
    more: tuple[object, ...], clip: Path, tmp_path: Path
) -> None:
    """The clip has sound."""
    common = ("--keyframe-interval", 0.2, "--json", *(more or ("--tokens", 12)))
    found = {}
    for jobs in (1, 2):
        target = tmp_path / f"{jobs}.etk"
        result = run("encode", clip, target, "--jobs", jobs, *common)
        assert result.exit_code == 0, result.stderr
        found[jobs] = (target.read_bytes(), _events(result.stdout))
    assert found[1] == found[2]
    assert sum(line["type"] == "segment" for line in found[1][1]) > 1


def test_from_a_pipe_and_to_a_pipe(tmp_path: Path) -> None:
    stream = make_clip(tmp_path / "clip.mkv", audio=False)  # Matroska's muxer numbers sound at random
    files = []
    for jobs in (1, 2):
        done = subprocess.run(
            [sys.executable, "-m", "elastictok_cli", "encode", "-", "-", "--jobs", str(jobs)]
            + [str(word) for word in _SCENES],
            input=stream.read_bytes(),
            capture_output=True,
            check=True,
            timeout=_SECONDS,
        )
        files.append(done.stdout)
    assert files[0] == files[1]
    assert files[0].startswith(b"\x89ETK")


def test_the_papers_model_takes_one_job(clip: Path, tmp_path: Path) -> None:
    from elastictok_cli.models import checkpoint

    config = PaperConfig.from_dict(
        {"name": "tiny", "bottleneck": "fsq", "theta": 5e7, "patch": [2, 8, 8], "size": 32, "min_tokens": 4}
        | {"hidden": 64, "mlp": 96, "heads": 2, "encoder_layers": 1, "decoder_layers": 1}
    )
    path = tmp_path / "paper.safetensors"
    checkpoint.save(PaperModel(config), path, {})
    target = tmp_path / "a.etk"
    result = run("encode", clip, target, "--model", path, "--jobs", 2)
    assert result.exit_code == 2
    assert "--jobs: tiny takes one job: it uses all cores already" in result.stderr
    assert not target.exists()


def _children(pid: int) -> list[int]:
    """The processes whose parent this is."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                facts = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it ended meanwhile
                continue
            if int(facts[1]) == pid and facts[0] != "Z":
                found.append(int(entry.name))
    return found


def _wait_for(condition: Callable[[], object], process: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + _SECONDS
    while not condition():
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.fixture
def endless(tmp_path: Path) -> "tuple[subprocess.Popen[bytes], Path]":
    """An encode with two workers of a source that never ends, and the folder it writes to."""
    process = start(
        *("encode", "-", tmp_path / "a.etk", "--jobs", 2, *_SCENES),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    source = process.stdin
    assert source is not None

    def feed() -> None:
        picture = b"FRAME\n" + bytes(range(256)) * 18  # 64 x 48, and half of that for colours
        try:
            source.write(b"YUV4MPEG2 W64 H48 F30:1 C420jpeg\n")
            while True:
                source.write(picture)
        except (OSError, ValueError):
            pass  # it has ended

    threading.Thread(target=feed, daemon=True).start()
    return process, tmp_path


def _end_of(process: "subprocess.Popen[bytes]") -> bytes:
    """What it has said, once it has ended by itself."""
    process.wait(_SECONDS)
    assert process.stderr is not None
    said = process.stderr.read()
    process.stderr.close()
    with contextlib.suppress(OSError):  # what is still buffered goes nowhere
        process.stdin.close()  # type: ignore[union-attr]
    return said


@needs_proc
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("whole_group", [False, True], ids=["the program", "its group"])
def test_a_signal_ends_the_workers_too(
    number: signal.Signals, whole_group: bool, endless: "tuple[subprocess.Popen[bytes], Path]"
) -> None:
    process, out = endless
    _wait_for(lambda: len(_children(process.pid)) == 2, process)
    workers = _children(process.pid)
    if whole_group:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    said = _end_of(process)
    assert process.returncode == 128 + number
    assert said.endswith(b"elastictok: interrupted\n")
    assert b"Traceback" not in said
    assert list(out.iterdir()) == []
    _wait_until_ended(workers)  # one that was just being started ends by itself, soon after its parent


@needs_proc
def test_a_killed_worker_is_one_sentence(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", count=60, audio=False)
    out = tmp_path / "out"
    out.mkdir()
    process = start(
        *("encode", clip, out / "a.etk", "--jobs", 2, *_SCENES),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    _wait_for(lambda: _children(process.pid), process)
    os.kill(_children(process.pid)[0], signal.SIGKILL)  # it still loads torch
    said = _end_of(process)
    assert process.returncode == 1
    sentence = "a worker process was ended by SIGKILL, perhaps because memory is short: fewer jobs need less"
    assert said.endswith(f"elastictok: {sentence}\n".encode())
    assert b"Traceback" not in said
    assert list(out.iterdir()) == []


@needs_proc
def test_workers_end_with_a_program_that_is_killed(
    endless: "tuple[subprocess.Popen[bytes], Path]",
) -> None:
    process, out = endless
    _wait_for(lambda: len(_children(process.pid)) == 2, process)
    workers = _children(process.pid)
    process.kill()
    _end_of(process)
    _wait_until_ended(workers)
    assert not (out / "a.etk").exists()


def _wait_until_ended(pids: list[int]) -> None:
    until = time.monotonic() + _SECONDS
    while any(_is_running(pid) for pid in pids):
        assert time.monotonic() < until
        time.sleep(0.02)


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("more", [(), ("--start", 0.15, "--duration", 0.2)], ids=["whole", "a part"])
def test_two_jobs_decode_the_same_pixels(more: tuple[object, ...], etk: Path, tmp_path: Path) -> None:
    found = []
    for jobs in (1, 2):
        target = tmp_path / f"{jobs}.y4m"
        result = run("decode", etk, target, "--jobs", jobs, *more)
        assert result.exit_code == 0, result.stderr
        found.append(target.read_bytes())
    assert found[0] == found[1]


def test_two_jobs_name_the_same_damage(etk: Path, tmp_path: Path) -> None:
    """Of the segment in the middle."""
    from formats import EtkReader

    with EtkReader(etk) as reader:
        assert reader.index is not None
        middle = reader.index[1].offset + reader.index[1].length // 2
    data = bytearray(etk.read_bytes())
    data[middle] ^= 0xFF
    broken = tmp_path / "broken.etk"
    broken.write_bytes(data)
    found = []
    for jobs in (1, 2):
        target = tmp_path / f"{jobs}.y4m"
        result = run("decode", broken, target, "--jobs", jobs, "-q")
        assert result.exit_code == 4
        found.append((target.read_bytes(), result.stderr))
    assert found[0] == found[1]
    assert found[0][1]

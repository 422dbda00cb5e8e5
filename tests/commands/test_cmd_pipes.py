"""Sources that can be read only once: named pipes, /dev/stdin, what a shell gives for <(...)."""

import os
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
import pytest
from cli_samples import COUNT, frame_count, pictures, run

from elastictok_cli.video.pictures import PictureEncoder
from formats import EtkReader

_LIMIT_SECONDS = 120  # of what hung for ever


@contextmanager
def _pipe(path: Path, data: bytes) -> Iterator[Path]:
    """A named pipe that gives these bytes once."""
    os.mkfifo(path)

    def feed() -> None:
        try:
            with path.open("wb") as stream:
                stream.write(data)
        except BrokenPipeError:
            pass  # the reader had enough

    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    yield path
    with path.open("rb+", buffering=0):  # lets go of a feeder that nobody has read from
        pass
    path.unlink()


def _program(*arguments: object, **options: object) -> "subprocess.CompletedProcess[bytes]":
    """In a process of its own, which is ended if it waits for ever."""
    return subprocess.run(
        [sys.executable, "-m", "elastictok_cli", *map(str, arguments)],
        capture_output=True,
        timeout=_LIMIT_SECONDS,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
        **options,  # type: ignore[call-overload]
    )


@pytest.fixture(scope="module")
def stream(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clip in a container that needs no way back."""
    path = tmp_path_factory.mktemp("stream") / "clip.mkv"
    with av.open(str(clip)) as source, av.open(str(path), "w") as target:
        copies = {s.index: target.add_stream_from_template(s) for s in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = copies[packet.stream.index]
                target.mux(packet)
    return path


def _still(suffix: str) -> tuple[bytes, np.ndarray]:
    """A picture file that says: turn me a quarter clockwise and mirror me; and the picture as it is stored."""
    rng = np.random.default_rng(3)
    rgb = rng.integers(0, 256, (6, 4, 3)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
    data = PictureEncoder((32, 48), jpeg=suffix == ".jpg").encode(rgb)
    # EXIF: one entry, tag 0x0112 (orientation), a short, once: 5
    tiff = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x05\0\0\0\0\0\0\0"
    if suffix == ".jpg":
        exif = b"Exif\0\0" + tiff
        return data[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + data[2:], rgb
    chunk = b"eXIf" + tiff
    end = data.index(b"IDAT") - 4
    crc = zlib.crc32(chunk).to_bytes(4, "big")
    return data[:end] + len(tiff).to_bytes(4, "big") + chunk + crc + data[end:], rgb


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_picture_from_a_pipe_is_the_picture_of_the_file(suffix: str, tmp_path: Path) -> None:
    data, stored = _still(suffix)
    file = tmp_path / f"file{suffix}"
    file.write_bytes(data)
    assert run("encode", file, tmp_path / "file.etk", "--tokens", 20).exit_code == 0
    with _pipe(tmp_path / f"pipe{suffix}", data) as pipe:
        done = _program("encode", pipe, tmp_path / "named.etk", "--tokens", 20)
    assert done.returncode == 0, done.stderr
    done = _program("encode", "-", tmp_path / "stdin.etk", "--tokens", 20, input=data)
    assert done.returncode == 0, done.stderr
    found = {}
    for name in ("file", "named", "stdin"):
        assert run("decode", tmp_path / f"{name}.etk", tmp_path / f"{name}-out.png").exit_code == 0
        ((_, found[name]),) = pictures(tmp_path / f"{name}-out.png")
    assert found["file"].shape == (32, 48, 3)
    assert np.abs(found["file"].astype(int) - stored.transpose(1, 0, 2)).mean() < 60
    assert np.array_equal(found["file"], found["named"])
    assert np.array_equal(found["file"], found["stdin"])


@pytest.mark.parametrize("how", ["named", "/dev/stdin", "/dev/fd", "redirected /dev/stdin", "redirected -"])
def test_a_video_that_can_be_read_once(how: str, stream: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.etk"
    options = ("--tokens", 1, "-q", "--start", 0.1)
    if how == "named":
        with _pipe(tmp_path / "pipe.mkv", stream.read_bytes()) as pipe:
            done = _program("encode", pipe, target, *options)
    elif how == "/dev/fd":
        read, write = os.pipe()
        feeder = threading.Thread(target=_feed, args=(write, stream.read_bytes()))
        feeder.start()
        done = _program("encode", f"/dev/fd/{read}", target, *options, pass_fds=(read,))
        os.close(read)
        feeder.join()
    elif how == "/dev/stdin":
        done = _program("encode", how, target, *options, input=stream.read_bytes())
    else:
        with stream.open("rb") as file:
            done = _program("encode", how.split()[-1], target, *options, stdin=file)
    assert (done.returncode, done.stderr) == (0, b"")
    assert frame_count(target) == COUNT - 3
    with EtkReader(target) as reader:
        assert reader.header.aux is not None
        sizes = {"redirected /dev/stdin": stream.stat().st_size}
        assert reader.header.source_bytes == sizes.get(how)


def _feed(write: int, data: bytes) -> None:
    with os.fdopen(write, "wb") as stream:
        stream.write(data)


@pytest.mark.parametrize(
    "arguments",
    [
        ("decode", "PIPE", "OUT.mkv", "--start", 0.1),
        ("stats", "PIPE"),
        ("thin", "PIPE", "OUT.etk", "--keep", 0.5),
        ("report", "PIPE", "OUT.html", "--pictures", 2),
        ("compare", "CLIP", "PIPE", "-o", "OUT.png", "--no-ssim"),
    ],
)
def test_an_etk_file_that_can_be_read_once(
    arguments: tuple[object, ...], clip: Path, etk: Path, tmp_path: Path
) -> None:
    with _pipe(tmp_path / "pipe.etk", etk.read_bytes()) as pipe:
        named = {"PIPE": pipe, "CLIP": clip}
        outs = {f"OUT{suffix}": tmp_path / f"out{suffix}" for suffix in (".mkv", ".etk", ".html", ".png")}
        done = _program(*((named | outs).get(str(word), word) for word in arguments))
    assert done.returncode == 0, done.stderr
    assert b"warning" not in done.stderr


def test_a_source_to_measure_against_that_can_be_read_once(stream: Path, tmp_path: Path) -> None:
    etk = tmp_path / "clip.etk"
    assert run("encode", stream, etk, "--tokens", 4, "-q").exit_code == 0
    for verb, *rest in (("thin", tmp_path / "out.etk", "--keep", 0.5), ("report", tmp_path / "out.html")):
        with _pipe(tmp_path / "pipe.mkv", stream.read_bytes()) as pipe:
            done = _program(verb, etk, *rest, "--source", pipe)
        assert done.returncode == 0, done.stderr
        done = _program(verb, etk, *rest, "-y", "--source", "-", input=stream.read_bytes())
        assert done.returncode == 0, done.stderr


def test_what_reads_twice_says_so(etk: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.mkv"
    os.mkfifo(pipe)
    for arguments, who in (
        (("compare", pipe, etk, "-o", tmp_path / "out.mp4"), "compare"),
        (("stats", etk, "--source", pipe), "stats --source"),
        (("stats", etk, "--source", "-"), "stats --source"),
    ):
        done = _program(*arguments, stdin=subprocess.DEVNULL)
        source = "-" if "-" in arguments else pipe
        sentence = f"elastictok: {who} reads {source} more than once: name a file, not a pipe\n"
        assert (done.returncode, done.stderr.decode()) == (2, sentence)
    for verb, out in (("thin", "out.etk"), ("report", "out.html")):
        keep = ("--keep", 0.5) if verb == "thin" else ()
        done = _program(verb, "-", tmp_path / out, *keep, "--source", "-", stdin=subprocess.DEVNULL)
        assert done.returncode == 2
        assert done.stderr.decode() == "elastictok: IN and --source both want standard input\n"
    assert [path.name for path in tmp_path.iterdir()] == ["pipe.mkv"]


@pytest.mark.parametrize("source", ["/dev/stdin", "/dev/fd/0", "-"])
def test_a_pipe_without_a_name_gives_none_to_the_output(source: str, etk: Path) -> None:
    for verb in ("encode", "decode", "report"):
        done = _program(verb, source, input=etk.read_bytes())
        name = "standard input" if source == "-" else source
        assert (done.returncode, done.stderr.decode()) == (2, f"elastictok: name OUT when IN is {name}\n")


@pytest.mark.parametrize("verb", ["encode", "decode", "stats"])
def test_an_empty_device_is_one_sentence(verb: str, tmp_path: Path) -> None:
    done = _program(verb, "/dev/null", *([] if verb == "stats" else [tmp_path / "out.etk"]))
    assert done.returncode in (2, 3, 4)
    assert done.stderr.count(b"\n") == 1
    assert list(tmp_path.iterdir()) == []

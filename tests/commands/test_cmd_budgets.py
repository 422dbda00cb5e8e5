"""`encode --promise video` and budgets, end to end: what is asked for is kept, by the decoded frames and the file."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from cli_samples import json_lines, make_film, pictures, run, start

from elastictok_cli.codec import attempts
from formats import EtkReader

COUNT = 24
SECONDS = COUNT / 25
TARGET = 0.004
LEAST_USE = 0.97
LIMIT_SECONDS = 120  # of what hung for ever
SCENES = ("--keyframe-interval", 0.2)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture that glides, another one from frame 10 on, and a tone."""
    return make_film(tmp_path_factory.mktemp("film") / "film.mp4", COUNT, moves=True, cut=10)


@pytest.fixture(scope="module")
def stream(film: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The same, in a container that needs no way back."""
    path = tmp_path_factory.mktemp("stream") / "film.mkv"
    with av.open(str(film)) as source, av.open(str(path), "w") as target:
        copies = {s.index: target.add_stream_from_template(s) for s in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = copies[packet.stream.index]
                target.mux(packet)
    return path.read_bytes()


def lossless(path: Path, frames: Iterator[np.ndarray] | list[np.ndarray]) -> Path:
    """A video of these pictures (H, W, 3) uint8, 25 a second, without sound."""
    with av.open(str(path), "w") as out:
        coder: Any = None
        for number, picture in enumerate(frames):
            if coder is None:
                coder = out.add_stream("ffv1", rate=25)
                coder.height, coder.width, coder.pix_fmt = *picture.shape[:2], "bgr0"
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="bgr0")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            out.mux(coder.encode(frame))
        out.mux(coder.encode(None))
    return path


def encoded(source: Path, target: Path, *options: object) -> dict[str, Any]:
    """The summary of an encode that succeeds."""
    result = run("encode", source, target, "--json", "-q", *options)
    assert result.exit_code == 0, result.stderr
    summary = json_lines(result.stdout)[-1]
    assert summary["type"] == "summary"
    assert summary["bytes"] == target.stat().st_size
    return summary


def program(*arguments: object, data: bytes) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        [sys.executable, "-m", "elastictok_cli", *map(str, arguments)],
        input=data,
        capture_output=True,
        timeout=LIMIT_SECONDS,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )


def block_errors(source: Path, etk: Path, folder: Path) -> tuple[float, list[float]]:
    """The mean MSE of the decoded frames, and that of each block, on pixels from -1 to 1."""
    shown = folder / "shown.mkv"
    assert run("decode", etk, shown, "--lossless", "-y", "-q").exit_code == 0
    pairs = zip(pictures(source), pictures(shown), strict=True)
    errors = [np.square((a.astype(float) - b) / 127.5).mean() for (_, a), (_, b) in pairs]
    blocks, first = [], 0
    with EtkReader(etk) as reader:
        for segment in reader.segments():
            for block in segment.blocks:
                blocks.append(float(np.mean(errors[first : first + len(block.pts)])))
                first += len(block.pts)
    assert first == len(errors)
    return float(np.mean(errors)), blocks


@pytest.mark.parametrize("worst", [None, 1.1])
def test_the_mean_of_the_decoded_frames_is_within_the_target(
    worst: float | None, film: Path, tmp_path: Path
) -> None:
    options = () if worst is None else ("--worst", worst)
    summary = encoded(film, tmp_path / "a.etk", "--mse", TARGET, "--promise", "video", *options)
    mean, blocks = block_errors(film, tmp_path / "a.etk", tmp_path)
    assert 0.9 * TARGET < mean <= TARGET
    assert max(blocks) <= (worst or 4) * TARGET
    assert summary["mse"] == pytest.approx(mean, rel=1e-3)
    assert summary["worst_mse"] == pytest.approx(max(blocks), rel=1e-3)
    assert (summary["promise"], summary["kept"], summary["bound"]) == ("video", True, "target")


def test_a_mean_takes_fewer_tokens_than_every_block(film: Path, tmp_path: Path) -> None:
    """Of blocks that need very different amounts."""
    y, x = np.mgrid[:48, :64]
    rng = np.random.default_rng(0)
    calm = np.stack([128 + 60 * np.sin(x / 25) * np.cos(y / 31)] * 3, -1).astype(np.uint8)
    busy = rng.integers(0, 256, (12, 16, 3)).repeat(4, 0).repeat(4, 1).astype(np.uint8)
    clip = lossless(tmp_path / "both.mkv", [*[calm] * 12, *(np.roll(busy, n, 1) for n in range(6))])
    video = encoded(clip, tmp_path / "video.etk", "--mse", TARGET, "--promise", "video")
    block = encoded(clip, tmp_path / "block.etk", "--mse", TARGET)
    assert video["tokens"] < 0.9 * block["tokens"]
    assert video["mse"] <= TARGET


BUDGETS: dict[str, tuple[tuple[object, ...], Callable[[dict[str, Any]], float]]] = {
    "kbps": (("--kbps", 110), lambda s: s["bytes"] / (110 * 125 * SECONDS)),
    "max-size": (("--max-size", "13k"), lambda s: s["bytes"] / 13000),
    "max-tokens": (("--max-tokens", 700), lambda s: s["tokens"] / 700),
    "tokens a second": (("--max-tokens", "700/s"), lambda s: s["tokens"] / int(700 * SECONDS)),
}


@pytest.mark.parametrize("name", ["kbps", "max-tokens", "tokens a second"])
def test_a_budget_is_used_and_never_exceeded(name: str, film: Path, tmp_path: Path) -> None:
    """The film has sound, which counts."""
    options, used = BUDGETS[name]
    summary = encoded(film, tmp_path / "a.etk", *options)
    assert LEAST_USE <= used(summary) <= 1
    assert (summary["kept"], summary["bound"]) == (True, "budget")
    with EtkReader(tmp_path / "a.etk") as reader:
        assert reader.header.aux is not None
        assert reader.header.options["bound"] == "budget"
        assert reader.header.promise == "video"


@pytest.mark.parametrize("name", ["kbps", "max-size", "tokens a second"])
def test_a_budget_holds_from_a_pipe(name: str, stream: bytes, tmp_path: Path) -> None:
    options, used = BUDGETS[name]
    target = tmp_path / "a.etk"
    done = program("encode", "-", target, "--json", "-q", *options, data=stream)
    assert done.returncode == 0, done.stderr
    summary = json_lines(done.stdout.decode())[-1]
    assert 0.8 <= used(summary) <= 1
    assert summary["bytes"] == target.stat().st_size
    assert (summary["kept"], summary["bound"]) == (True, "budget")
    assert [path.name for path in tmp_path.iterdir()] == ["a.etk"]


def test_two_jobs_write_the_same_file(film: Path, tmp_path: Path) -> None:
    options = ("--max-tokens", 300)
    for jobs in (1, 2):
        summary = encoded(
            film, tmp_path / f"{jobs}.etk", "--jobs", jobs, "--duration", 0.44, *SCENES, *options
        )
        assert summary["segments"] > 2
    assert (tmp_path / "1.etk").read_bytes() == (tmp_path / "2.etk").read_bytes()


def test_to_a_pipe_goes_what_goes_to_a_file(film: Path, tmp_path: Path) -> None:
    """Also where the file is written more than once."""
    options = ("--max-tokens", 300)
    done = program("encode", film, "-", *options, "-q", data=b"")
    assert (done.returncode, done.stderr) == (0, b"")
    encoded(film, tmp_path / "a.etk", *options)
    assert done.stdout == (tmp_path / "a.etk").read_bytes()


def test_of_a_target_and_a_budget_the_tighter_one_binds(film: Path, tmp_path: Path) -> None:
    for most, bound in ((400, "budget"), (10**6, "target")):
        target = tmp_path / f"{bound}.etk"
        result = run("encode", film, target, "--mse", TARGET, "--max-tokens", most, "--json")
        summary = json_lines(result.stdout)[-1]
        assert (summary["bound"], summary["kept"]) == (bound, True)
        assert summary["tokens"] <= most
        assert (summary["mse"] <= TARGET) == (bound == "target")
        words = "the budget does not reach it" if bound == "budget" else "mean over the video: kept"
        assert words in result.stderr
        stats = json_lines(run("stats", target, "--json").stdout)
        assert stats[0]["bound"] == bound


def test_a_budget_of_very_few_tokens_is_not_exceeded(film: Path, tmp_path: Path) -> None:
    options = ("--max-tokens", 150, "--mse", TARGET)
    assert encoded(film, tmp_path / "a.etk", *options)["tokens"] <= 150


def test_a_budget_too_small_for_the_sound(film: Path, stream: bytes, tmp_path: Path) -> None:
    for option in (("--max-size", "2k"), ("--kbps", 20)):
        result = run("encode", film, tmp_path / "a.etk", *option, "-q")
        assert result.exit_code == 2
        assert "cannot be met: without a single token the file still has" in result.stderr
        assert result.stderr.count("\n") == 1
    done = program("encode", "-", tmp_path / "a.etk", "--kbps", 20, "-q", data=stream)
    assert done.returncode == 2
    assert b"cannot be met: without a single token the file still has" in done.stderr
    assert done.stderr.count(b"\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_one_frame(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (12, 16, 3)).repeat(4, 0).repeat(4, 1).astype(np.uint8)
    clip = lossless(tmp_path / "one.mkv", [picture])
    summary = encoded(clip, tmp_path / "a.etk", "--mse", 0.02, "--promise", "video")
    assert 0.01 < summary["mse"] <= 0.02
    summary = encoded(clip, tmp_path / "b.etk", "--max-tokens", 50)
    assert 0.9 * 50 <= summary["tokens"] <= 50
    summary = encoded(clip, tmp_path / "c.etk", "--max-size", 1500)
    assert 0.9 * 1500 <= summary["bytes"] <= 1500
    before = sorted(tmp_path.iterdir())
    for option in (("--kbps", 100), ("--max-tokens", "90/s")):
        result = run("encode", clip, tmp_path / "d.etk", *option)
        assert result.exit_code == 2
        assert "a still picture has no tokens or kilobits a second" in result.stderr
    done = program("encode", "-", tmp_path / "d.etk", "--kbps", 100, data=clip.read_bytes())
    assert done.returncode == 2
    assert b"a still picture has no tokens or kilobits a second" in done.stderr
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("options", [("--promise", "video"), ("--max-size", "2k")])
def test_all_black(options: tuple[object, ...], tmp_path: Path) -> None:
    clip = lossless(tmp_path / "black.mkv", [np.zeros((48, 64, 3), np.uint8)] * 6)
    summary = encoded(clip, tmp_path / "a.etk", *options)
    assert summary["kept"]
    assert summary["mse"] < 1e-3
    done = program("encode", "-", tmp_path / "b.etk", *options, "-q", data=clip.read_bytes())
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.usefixtures("few_tokens")
def test_a_promise_that_cannot_be_kept_is_said_and_strict_exits_with_5(clip: Path, tmp_path: Path) -> None:
    options = ("--promise", "video", "--mse", 1e-5, "--duration", 0.2)
    result = run("encode", clip, tmp_path / "a.etk", *options, "--json", "--strict")
    assert result.exit_code == 5
    assert (tmp_path / "a.etk").exists()
    assert not json_lines(result.stdout)[-1]["kept"]
    assert "mean over the video: missed" in result.stderr
    result = run("encode", clip, tmp_path / "b.etk", *options, "-q")
    assert result.exit_code == 0
    assert "the video has" in result.stderr
    easy = ("--promise", "video", "--mse", 0.5, "--duration", 0.2)
    assert run("encode", clip, tmp_path / "c.etk", *easy, "--strict", "-q").exit_code == 0


@pytest.mark.parametrize("options", [("--promise", "video", "--mse", TARGET), ("--max-tokens", 300)])
def test_a_source_that_ends_early(options: tuple[object, ...], stream: bytes, tmp_path: Path) -> None:
    """What is there is encoded, promises and all, and what is missing is said once, not in every pass."""
    source = tmp_path / "cut.mkv"
    source.write_bytes(stream[: len(stream) * 7 // 10])
    result = run("encode", source, tmp_path / "a.etk", "--json", *options)
    assert result.exit_code == 0
    lines = json_lines(result.stdout)
    warnings = [line["message"] for line in lines if line["type"] == "warning"]
    assert len(warnings) == len(set(warnings)) > 0
    summary = lines[-1]
    assert 2 < summary["frames"] < COUNT
    assert summary["kept"]


@pytest.mark.parametrize("phase", ["surveyed", "block"])
def test_stopped_in_either_pass_leaves_nothing(phase: str, tmp_path: Path) -> None:
    film = make_film(tmp_path / "film.mp4", 120, moves=True)
    out = tmp_path / "out"
    out.mkdir()
    process = start(
        *("encode", film, out / "a.etk", "--promise", "video", "--json", "-q", *SCENES, "--jobs", 1),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    seen = b""
    while f'"type": "{phase}"'.encode() not in seen and f'"type":"{phase}"'.encode() not in seen:
        seen = process.stdout.readline()
        assert seen, "it has ended"
    process.send_signal(signal.SIGINT)
    rest, said = process.communicate(timeout=LIMIT_SECONDS)
    assert process.returncode == 130
    assert said.endswith(b"elastictok: interrupted\n")
    assert b"summary" not in rest
    assert list(out.iterdir()) == []


def test_the_events_of_two_passes(film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "MAX_CHANGE_OF_LAMBDA", 1.0)  # the first attempt is never good enough
    result = run("encode", film, tmp_path / "a.etk", "--promise", "video", "--json", *SCENES)
    assert result.exit_code == 0
    lines = json_lines(result.stdout)
    kinds = [line["type"] for line in lines]
    surveyed = [line for line in lines if line["type"] == "surveyed"]
    assert set(kinds[: len(surveyed)]) == {"surveyed"}
    assert set(surveyed[0]) == {"type", "frames", "total"}
    assert [line["frames"] for line in surveyed] == sorted(line["frames"] for line in surveyed)
    assert (surveyed[-1]["frames"], surveyed[-1]["total"]) == (COUNT, COUNT)
    assert kinds[len(surveyed)] == "started"
    assert kinds.count("started") == kinds.count("summary") == 1
    assert kinds.count("restarted") >= 1
    first = kinds.index("restarted")
    assert set(lines[first]) == {"type", "limit", "used"}
    assert lines[first]["limit"] == "error"
    last = len(kinds) - 1 - kinds[::-1].index("restarted")
    blocks = [line for line in lines[last:] if line["type"] == "block"]
    summary = lines[-1]
    assert [block["index"] for block in blocks] == list(range(summary["blocks"]))
    assert sum(block["tokens"] for block in blocks) == summary["tokens"]
    assert sum(sum(block["frame_mse"]) for block in blocks) / COUNT == pytest.approx(summary["mse"])
    assert summary["bytes"] == (tmp_path / "a.etk").stat().st_size
    assert "encoding again: error at" in result.stderr

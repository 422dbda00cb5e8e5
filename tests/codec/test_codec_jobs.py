"""Scenes encoded side by side give the file that one after another gives, byte for byte."""

import io
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_codec_scenes import CPU, HEIGHT, INTERVAL, WIDTH, glide, video_info

import elastictok
from elastictok_cli.codec import events, jobs
from elastictok_cli.codec.encoder import EncodeOptions, encode, make_header
from elastictok_cli.codec.workers import Worker, Workers
from elastictok_cli.models import checkpoint
from elastictok_cli.models.interface import Loaded
from elastictok_cli.video.records import Frame
from formats import EtkReader, EtkWriter


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return checkpoint.load()


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    """Four scenes: two by a cut, two more by the interval; the last one has a single frame."""
    pictures = [*glide(12, seed=1), *(p // 4 for p in glide(12, seed=2, speed=4))]
    return [Frame(picture, n, 1) for n, picture in enumerate(pictures)]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Worker]:
    """The workers that a test starts."""
    found: list[Worker] = []
    real = Workers.start

    def start(self: Workers) -> Worker:
        found.append(real(self))
        return found[-1]

    monkeypatch.setattr(Workers, "start", start)
    return found


class _Source:
    """Frames, and beside each third one some bytes of a copied stream."""

    def __init__(self, frames: list[Frame]) -> None:
        self._frames, self._aux = frames, b""

    def __iter__(self) -> Iterator[Frame]:
        for number, frame in enumerate(self._frames):
            if number % 3 == 0:
                self._aux += b"sound of %d." % number
            yield frame
        self._aux += b"end"

    def take_aux(self) -> bytes:
        data, self._aux = self._aux, b""
        return data


def coded(
    loaded: Loaded, frames: list[Frame], options: EncodeOptions, count: int | None
) -> tuple[bytes, list[events.Event]]:
    """The file, and what the encoder has said."""
    info, file, source = video_info(frames), io.BytesIO(), _Source(frames)
    header = replace(make_header(info, loaded, options), aux={"container": "matroska"})
    writer = EtkWriter(file, header)
    said = list(encode(info, source, source.take_aux, loaded, writer, options, CPU, count))
    assert isinstance(said[-1], events.Finished)
    return file.getvalue(), [*said[:-1], replace(said[-1], seconds=0)]


@pytest.mark.parametrize(
    "options",
    [
        EncodeOptions(mse=0.004, keyframe_interval=INTERVAL),
        EncodeOptions(mse=0.007, keyframe_interval=0),
        EncodeOptions(mse=0.007, keyframe_interval=INTERVAL, allocation="block"),
        EncodeOptions(mse=None, tokens=3, keyframe_interval=INTERVAL),
    ],
    ids=["cell", "cuts only", "block", "tokens"],
)
def test_any_number_of_jobs_gives_the_same_file_and_events(
    loaded: Loaded, frames: list[Frame], options: EncodeOptions, started: list[Worker]
) -> None:
    one = coded(loaded, frames, options, 1)
    assert started == []
    scenes = 2 if options.keyframe_interval == 0 else 4
    for count in (2, 3):
        assert coded(loaded, frames, options, count) == one
        assert len(started) == min(count, scenes)
        started.clear()
    reader = EtkReader(io.BytesIO(one[0]))
    assert reader.frame_count == len(frames)
    sound = b"".join(b"sound of %d." % n for n in range(0, len(frames), 3)) + b"end"
    assert b"".join(reader.aux()) == sound


def test_copied_streams_follow_the_frames_they_came_with(loaded: Loaded, frames: list[Frame]) -> None:
    """Not those that were read ahead."""
    file, _ = coded(loaded, frames, EncodeOptions(mse=None, tokens=1, keyframe_interval=INTERVAL), 2)
    # A segment of frames 0 to 10, one of 11, one of 12 to 22 and one of 23.
    assert list(EtkReader(io.BytesIO(file)).aux()) == [
        b"sound of 0.sound of 3.sound of 6.sound of 9.",
        b"sound of 12.sound of 15.sound of 18.sound of 21.",
        b"end",
    ]


def test_threads_change_no_byte(loaded: Loaded, frames: list[Frame]) -> None:
    """One job uses as many as it gets, a worker one."""
    options = EncodeOptions(mse=0.004, keyframe_interval=INTERVAL)
    before = torch.get_num_threads()
    files = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            files.append(coded(loaded, frames, options, 1))
    finally:
        torch.set_num_threads(before)
    assert files[0] == files[1]


def test_one_scene_starts_no_worker(loaded: Loaded, frames: list[Frame], started: list[Worker]) -> None:
    coded(loaded, frames[:12], EncodeOptions(mse=None, tokens=1, keyframe_interval=0), 3)
    assert started == []


def test_little_video_starts_no_worker_unless_asked(
    loaded: Loaded, frames: list[Frame], started: list[Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = EncodeOptions(mse=None, tokens=1, keyframe_interval=INTERVAL)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    one = coded(loaded, frames, options, None)
    assert started == []
    monkeypatch.setattr(jobs, "LEAST_BYTES", len(frames) * HEIGHT * WIDTH * 3)
    assert coded(loaded, frames, options, None) == one
    assert len(started) == 2


@pytest.mark.parametrize(
    ("threads", "free", "wanted"),
    [(8, None, 8), (8, 1 << 40, 8), (1, 1 << 40, 1), (64, 20 << 30, 3), (8, 100 << 20, 1)],
)
def test_jobs_are_chosen_by_threads_and_memory(
    threads: int, free: int | None, wanted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 1080p."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(jobs, "free_memory", lambda: free)
    chosen = jobs.limits(None, 1080, 1920)
    assert chosen.jobs == wanted
    assert chosen.ahead == jobs.FRAMES_AHEAD * 1080 * 1920 * 3 * max(1, wanted - 1)
    assert jobs.limits(5, 1080, 1920).jobs == 5


def test_in_python(frames: list[Frame], started: list[Worker]) -> None:
    model = elastictok.load_model(device="cpu")
    pictures = [frame.rgb for frame in frames]
    one = elastictok.encode(pictures, model, tokens=2, fps=25, keyframe_interval=INTERVAL)
    assert started == []
    two = elastictok.encode(pictures, model, tokens=2, fps=25, keyframe_interval=INTERVAL, jobs=2)
    assert len(started) == 2
    assert all(worker.process.returncode is not None for worker in started)
    assert two.to_bytes() == one.to_bytes()
    decoded = elastictok.decode(two, model, jobs=2)
    assert len(started) == 4
    assert np.array_equal(decoded, elastictok.decode(one, model))
    with pytest.raises(ValueError, match="jobs must be 1 or more, not 0"):
        elastictok.encode(pictures, model, fps=25, jobs=0)
    elsewhere = elastictok.Model(model.loaded, torch.device("cuda"))
    with pytest.raises(ValueError, match=r"^jobs must be 1: several jobs run on the CPU only, not on cuda$"):
        elastictok.encode(pictures, elsewhere, fps=25, jobs=2)


def test_bad_frames_midway_end_the_workers(frames: list[Frame], started: list[Worker]) -> None:
    model = elastictok.load_model(device="cpu")
    pictures = [*(frame.rgb for frame in frames[:20]), frames[0].rgb[:-2]]
    with pytest.raises(ValueError, match="all frames must have one size"):
        elastictok.encode(pictures, model, tokens=2, fps=25, keyframe_interval=INTERVAL, jobs=2)
    assert all(worker.process.returncode is not None for worker in started)

"""`import elastictok`: what goes in comes out, as the commands have it, and bad input is refused in words."""

import io
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import elastictok
import elastictok_cli
from elastictok_cli.main import app
from formats import EtkReader, EtkWriter, pack_tokens

TARGET = 0.004
HEIGHT, WIDTH, COUNT = 40, 56, 10


def command(*arguments: object) -> None:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.stderr


@pytest.fixture(scope="module")
def model() -> elastictok.Model:
    return elastictok.load_model(device="cpu")


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    """Soft waves that glide, and others from frame 6 on."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    pictures = []
    for n in range(COUNT):
        period = 30 if n < 6 else 17
        waves = [np.sin((x + 2 * n) / period * (1 + c / 3)) * np.cos(y / period) for c in range(3)]
        pictures.append(128 + 90 * np.stack(waves, -1) + 40 * (n >= 6))
    return np.stack(pictures).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def video(frames: np.ndarray, model: elastictok.Model) -> elastictok.TokenVideo:
    return elastictok.encode(frames, model, mse=TARGET, fps=25)


@pytest.fixture(scope="module")
def clip(frames: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a file, with a tone."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"crf": "8"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        tone = out.add_stream("aac", rate=48000, layout="mono")
        for number, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            out.mux(stream.encode(frame))
            wave = (np.sin(np.arange(1920) / 9) * 0.3).astype(np.float32)[None]
            sound = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
            sound.sample_rate, sound.pts, sound.time_base = 48000, 1920 * number, Fraction(1, 48000)
            out.mux(tone.encode(sound))
        out.mux(stream.encode(None))
        out.mux(tone.encode(None))
    return path


def errors(frames: np.ndarray, decoded: np.ndarray) -> np.ndarray:
    """MSE of each frame on [-1, 1] pixels, (T,)."""
    return np.square((frames.astype(np.float64) - decoded) / 127.5).mean((1, 2, 3))


def test_both_modules_offer_the_same_names() -> None:
    assert elastictok.__all__ == elastictok_cli.__all__ == sorted(elastictok.__all__)
    assert set(dir(elastictok)) == set(elastictok.__all__)
    for name in elastictok.__all__:
        assert getattr(elastictok, name) is getattr(elastictok_cli, name)
    assert not hasattr(elastictok, "nothing")
    assert not hasattr(elastictok_cli, "nothing")


def test_every_public_function_and_class_says_what_it_does() -> None:
    for name in set(elastictok.__all__) - {"__version__"}:
        assert len(getattr(elastictok, name).__doc__) > 30, name


@pytest.mark.parametrize("use", ["", "elastictok.open(sys.argv[1]).thin(keep=0.5).times"])
def test_importing_and_reading_load_neither_torch_nor_ffmpeg(
    use: str, video: elastictok.TokenVideo, tmp_path: Path
) -> None:
    video.save(tmp_path / "a.etk")
    code = f"import sys, elastictok\n{use}\nprint([m for m in ('torch', 'av') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "a.etk"], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_arrays_come_back_within_the_target(
    frames: np.ndarray, video: elastictok.TokenVideo, model: elastictok.Model
) -> None:
    decoded = elastictok.decode(video, model)
    assert (decoded.shape, decoded.dtype) == (frames.shape, np.uint8)
    found = errors(frames, decoded)
    np.testing.assert_allclose(video.frame_mse, found, rtol=0.0025)
    assert not video.missed.any()
    first = 0
    for count in video.frames_per_block:
        assert found[first : first + count].mean() <= TARGET
        first += count
    assert first == COUNT
    assert found.mean() > 0.5 * TARGET


def test_what_a_video_says(video: elastictok.TokenVideo, model: elastictok.Model) -> None:
    assert (video.width, video.height, video.grid) == (WIDTH, HEIGHT, (3, 4))
    assert (video.target_mse, video.model_name, video.has_audio) == (TARGET, model.name, False)
    assert video.header.model.sha256.hex() == model.sha256
    np.testing.assert_allclose(video.times, np.arange(COUNT) / 25, atol=1e-12)
    np.testing.assert_allclose(video.durations, np.full(COUNT, 1 / 25))
    blocks = list(video)
    assert len(video) == len(blocks) == len(video.keyframes)
    assert video.frame_count == COUNT == sum(len(block.pts) for block in blocks)
    assert video.keyframes[0]
    assert 1 < video.keyframes.sum() == len(list(video.segments()))
    assert video.tokens_per_block.tolist() == [int(block.keep.sum()) for block in blocks]
    assert video.token_count == sum(len(block.tokens) for block in blocks)
    assert video.tokens_per_frame == video.token_count / COUNT
    assert video.size_bytes == len(video.to_bytes())
    assert not video.find_damage()
    for block in blocks:
        padded = video.padded(block)
        assert padded.shape == (model.tokens_per_cell, *video.grid)
        assert np.array_equal(pack_tokens(padded, block.keep), block.tokens)
        longest = int(block.keep.max())
        assert np.array_equal(video.padded(block, longest), padded[:longest])
        with pytest.raises(ValueError, match="more than"):
            video.padded(block, longest - 1)
    with pytest.raises(ValueError, match="read-only"):
        video.times[0] = 1


@pytest.mark.parametrize(
    ("promise", "mean", "missed", "kept"),
    [
        ("block", 0.5, False, True),
        ("block", 1.5, True, False),
        ("block", float("nan"), False, True),  # a block that missed would be marked
        ("video", 1.0, False, True),
        ("video", 1.01, False, False),
        ("video", 0.5, True, False),
        ("video", float("nan"), False, None),
        ("video", float("nan"), True, False),
    ],
)
def test_whether_a_promise_was_kept(
    promise: str, mean: float, missed: bool, kept: bool | None, video: elastictok.TokenVideo
) -> None:
    """mean: error of each frame, in times the target. missed: the last block is marked."""
    found = elastictok.TokenVideo(rewritten(video, promise, mean, missed=missed))
    assert (found.promise, found.kept) == (promise, kept)
    assert found.missed.tolist() == [False] * (len(video) - 1) + [missed]
    assert found.thin(keep=0.5).kept is None
    assert found.thin(keep=0.5).promise == "block"


def rewritten(video: elastictok.TokenVideo, promise: str, mean: float, *, missed: bool) -> bytes:
    file = io.BytesIO()
    last = video.frame_count - len(list(video)[-1].pts)
    with EtkWriter(file, replace(video.header, promise=promise)) as writer:
        for segment in video.segments():
            writer.write_segment(
                [
                    replace(b, frame_mse=(mean * TARGET,) * len(b.pts), missed=missed and b.pts[0] == last)
                    for b in segment.blocks
                ]
            )
    return file.getvalue()


def test_a_promise_is_not_known_to_be_kept_without_a_target_or_all_frames(
    frames: np.ndarray, video: elastictok.TokenVideo, model: elastictok.Model
) -> None:
    assert video.kept is True
    assert elastictok.encode(frames[:2], model, tokens=1, fps=25).kept is None
    assert elastictok.TokenVideo(video.to_bytes()[:-30], tolerate=True).kept is None


def test_tensors_and_iterables_give_the_same_file_as_arrays(
    frames: np.ndarray, video: elastictok.TokenVideo, model: elastictok.Model
) -> None:
    tensor = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 127.5 - 1
    for same in (tensor, tensor.double(), list(frames), (frame for frame in frames)):
        assert elastictok.encode(same, model, mse=TARGET, fps=25).to_bytes() == video.to_bytes()


def test_times_of_its_own(frames: np.ndarray, model: elastictok.Model) -> None:
    times = [0.5, 0.54, 0.75]
    video = elastictok.encode(frames[:3], model, mse=0.02, times=times)
    np.testing.assert_allclose(video.times, times, atol=1e-9)
    np.testing.assert_allclose(video.durations, [0.04, 0.21, 0.21], atol=1e-9)
    assert len(elastictok.decode(video, model, start=0.02, duration=0.1)) == 1


def test_a_single_picture_needs_no_times(frames: np.ndarray, model: elastictok.Model) -> None:
    video = elastictok.encode(frames[:1], model)
    assert errors(frames[:1], elastictok.decode(video, model))[0] <= 0.007


def test_a_rate_of_ntsc_is_exact(frames: np.ndarray, model: elastictok.Model) -> None:
    video = elastictok.encode(frames[:2], model, tokens=1, fps=30000 / 1001)
    assert video.header.time_base == (1001, 30000)


def test_a_path_gives_the_very_file_of_the_command(
    clip: Path, tmp_path: Path, model: elastictok.Model
) -> None:
    for options, arguments in (
        ({}, []),
        ({"mse": TARGET, "effort": 2, "audio": False}, ["--mse", TARGET, "--effort", 2, "--no-audio"]),
        ({"tokens": 3, "allocation": "block"}, ["--tokens", 3, "--allocation", "block"]),
        (
            {"start": 0.08, "duration": 0.2, "max_height": 20, "keyframe_interval": 0.1},
            ["--start", 0.08, "--duration", 0.2, "--max-height", 20, "--keyframe-interval", 0.1],
        ),
    ):
        command("encode", clip, tmp_path / "command.etk", *arguments, "-y", "--device", "cpu")
        video = elastictok.encode(clip, model, **options)
        video.save(tmp_path / "python.etk")
        assert (tmp_path / "python.etk").read_bytes() == (tmp_path / "command.etk").read_bytes()
        assert video.has_audio == options.get("audio", True)
        assert elastictok.open(tmp_path / "command.etk").to_bytes() == video.to_bytes()


def test_a_planned_path_gives_the_very_file_of_the_command(
    clip: Path, tmp_path: Path, model: elastictok.Model
) -> None:
    for options, arguments in (
        (
            {"mse": TARGET, "promise": "video", "worst": 2},
            ["--mse", TARGET, "--promise", "video", "--worst", 2],
        ),
        ({"max_tokens": 300, "start": 0.08}, ["--max-tokens", 300, "--start", 0.08]),
        ({"kbps": 150, "mse": 0.001}, ["--kbps", 150, "--mse", 0.001]),
    ):
        command("encode", clip, tmp_path / "command.etk", *arguments, "-y", "--device", "cpu")
        video = elastictok.encode(clip, model, **options)
        assert video.to_bytes() == (tmp_path / "command.etk").read_bytes()
        assert video.promise == "video"


def test_the_mean_of_the_video_is_within_the_target(frames: np.ndarray, model: elastictok.Model) -> None:
    video = elastictok.encode(frames, model, TARGET, promise="video", worst=3, fps=25)
    found = errors(frames, elastictok.decode(video, model))
    assert 0.9 * TARGET < found.mean() <= TARGET
    first = 0
    for count in video.frames_per_block:
        assert found[first : first + count].mean() <= 3 * TARGET
        first += count
    assert video.kept
    assert (video.target_mse, video.header.options["worst"]) == (TARGET, 3.0)


def test_what_can_be_read_again_gives_one_file_within_the_budget(
    frames: np.ndarray, model: elastictok.Model
) -> None:
    tensor = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 127.5 - 1
    times = np.arange(COUNT) / 25
    video = elastictok.encode(frames, model, max_tokens=400, fps=25)
    assert 0.95 * 400 < video.token_count <= 400
    assert video.target_mse is None  # none was asked for
    assert video.header.options["bound"] == "budget"
    for same in (tensor, list(frames)):
        assert elastictok.encode(same, model, max_tokens=400, fps=25).to_bytes() == video.to_bytes()
    by_times = elastictok.encode(frames, model, max_tokens=400, times=iter(times))
    assert by_times.token_count == video.token_count


def test_frames_that_come_once_are_planned_as_they_come(frames: np.ndarray, model: elastictok.Model) -> None:
    seconds = COUNT / 25
    for options in ({"kbps": 60}, {"tokens_per_second": 1000}):
        video = elastictok.encode((frame for frame in frames), model, fps=25, **options)
        assert video.size_bytes <= 60 * 125 * seconds or "kbps" not in options
        assert video.token_count <= 1000 * seconds or "kbps" in options
        assert video.token_count > 0
        assert len(elastictok.decode(video, model)) == COUNT


def test_of_a_budget_and_a_target_the_tighter_one_binds(frames: np.ndarray, model: elastictok.Model) -> None:
    for most, bound in ((20, "budget"), (10**6, "target")):
        video = elastictok.encode(frames, model, TARGET, max_tokens=most, fps=25)
        assert video.header.options["bound"] == bound
        assert video.target_mse == TARGET
        assert video.token_count <= most
        assert (video.frame_mse.mean() <= TARGET) == (bound == "target")


def test_a_named_pipe_can_have_a_size(clip: Path, model: elastictok.Model, tmp_path: Path) -> None:
    file = elastictok.encode(clip, model, max_tokens=300)
    pipe = tmp_path / "pipe.mp4"
    os.mkfifo(pipe)
    feeder = threading.Thread(target=lambda: pipe.write_bytes(clip.read_bytes()), daemon=True)
    feeder.start()
    piped = elastictok.encode(pipe, model, max_tokens=300)
    feeder.join(60)
    assert [block.tokens.tobytes() for block in piped] == [block.tokens.tobytes() for block in file]


def test_the_command_decodes_what_was_saved(
    video: elastictok.TokenVideo, model: elastictok.Model, tmp_path: Path
) -> None:
    video.save(tmp_path / "a.etk")
    command("decode", tmp_path / "a.etk", tmp_path / "a.mkv", "--lossless")
    with av.open(str(tmp_path / "a.mkv")) as container:
        shown = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    assert np.array_equal(shown, elastictok.decode(tmp_path / "a.etk", model))


def test_saving_replaces_and_a_video_may_be_saved_over_itself(
    video: elastictok.TokenVideo, tmp_path: Path
) -> None:
    path = tmp_path / "a.etk"
    path.write_bytes(b"old")
    video.save(path)
    elastictok.open(path).save(path)
    assert path.read_bytes() == video.to_bytes()
    assert [p.name for p in tmp_path.iterdir()] == ["a.etk"]


@pytest.mark.parametrize("option", ["keep", "tokens", "kbps"])
def test_thin_gives_the_very_file_of_the_command(
    option: str, clip: Path, model: elastictok.Model, tmp_path: Path
) -> None:
    whole = elastictok.encode(clip, model, tokens=12)
    whole.save(tmp_path / "whole.etk")
    least = whole.thin(tokens=0).size_bytes
    budget = (least + whole.size_bytes) / 2 * 8 / 1000 / whole.durations.sum()
    amount = {"keep": 0.5, "tokens": 2, "kbps": budget}[option]
    command("thin", tmp_path / "whole.etk", tmp_path / "thin.etk", f"--{option}", amount)
    thinned = whole.thin(**{option: amount})
    assert thinned.to_bytes() == (tmp_path / "thin.etk").read_bytes()
    assert 0 < thinned.token_count < whole.token_count
    assert np.isnan(thinned.frame_mse).all()
    assert thinned.has_audio


def test_thin_measures_against_the_source(clip: Path, model: elastictok.Model, tmp_path: Path) -> None:
    whole = elastictok.encode(clip, model, mse=TARGET)
    whole.save(tmp_path / "whole.etk")
    command("thin", tmp_path / "whole.etk", tmp_path / "thin.etk", "--keep", 0.5, "--source", clip)
    thinned = whole.thin(keep=0.5, source=clip, model=model)
    assert thinned.to_bytes() == (tmp_path / "thin.etk").read_bytes()
    assert thinned.frame_mse.mean() > whole.frame_mse.mean()


def test_a_part_of_the_frames(video: elastictok.TokenVideo, model: elastictok.Model) -> None:
    whole = elastictok.decode(video, model)
    assert np.array_equal(elastictok.decode(video, model, start=0.08), whole[2:])
    assert np.array_equal(elastictok.decode(video, model, start=0.28, duration=0.08), whole[7:9])
    assert elastictok.decode(video, model, start=100).shape == (0, HEIGHT, WIDTH, 3)


def test_a_video_can_be_sent_to_another_process(video: elastictok.TokenVideo, tmp_path: Path) -> None:
    video.save(tmp_path / "a.etk")
    for one in (video, elastictok.open(tmp_path / "a.etk")):
        sent = pickle.loads(pickle.dumps(one))
        assert [block.tokens.tobytes() for block in sent] == [block.tokens.tobytes() for block in video]


def test_two_readers_at_once_do_not_disturb_each_other(video: elastictok.TokenVideo) -> None:
    for one, other in zip(video, video, strict=True):
        assert np.array_equal(one.tokens, other.tokens)


def test_damage_raises_or_is_left_out(
    video: elastictok.TokenVideo, model: elastictok.Model, tmp_path: Path
) -> None:
    data = bytearray(video.to_bytes())
    with EtkReader(io.BytesIO(video.to_bytes())) as reader:
        assert reader.index is not None
        lost = reader.index[0]
    data[lost.offset + lost.length - 3] ^= 0xFF
    path = tmp_path / "damaged.etk"
    path.write_bytes(data)
    strict = elastictok.open(path)
    with pytest.raises(elastictok.EtkError):
        list(strict)
    with pytest.raises(elastictok.EtkError):
        elastictok.decode(path, model)
    assert [damage.offset for damage in strict.find_damage()] == [lost.offset]
    rest = elastictok.open(path, tolerate=True)
    assert rest.frame_count == COUNT - lost.frames == len(elastictok.decode(rest, model))
    assert len(rest) == len(list(rest)) == len(video) - lost.blocks


def test_a_file_cut_short_is_not_taken_for_a_whole_one(
    video: elastictok.TokenVideo, model: elastictok.Model
) -> None:
    cut = elastictok.TokenVideo(video.to_bytes()[:-30])
    with pytest.raises(elastictok.EtkError):
        elastictok.decode(cut, model)
    assert (
        len(elastictok.decode(elastictok.TokenVideo(video.to_bytes()[:-30], tolerate=True), model)) == COUNT
    )


def _tensor(*shape: int) -> torch.Tensor:
    return torch.zeros(shape)


_PICTURE = np.zeros((16, 16, 3), np.uint8)
_TWO = np.zeros((2, 16, 16, 3), np.uint8)


@pytest.mark.parametrize(
    ("source", "options", "kind", "words"),
    [
        (_TWO.astype(np.float32), {"fps": 1}, TypeError, "uint8"),
        (_TWO.astype(np.int64), {"fps": 1}, TypeError, "uint8"),
        (_PICTURE, {}, ValueError, r"\(T, height, width, 3\)"),
        (np.zeros((2, 3, 16, 16), np.uint8), {"fps": 1}, ValueError, r"\(T, height, width, 3\)"),
        (_TWO[:0], {"fps": 1}, ValueError, "no frames"),
        ([], {"fps": 1}, ValueError, "no frames"),
        (iter(()), {"fps": 1}, ValueError, "no frames"),
        ([_PICTURE, _PICTURE[:8]], {"fps": 1}, ValueError, "one size"),
        ([_PICTURE, "frame"], {"fps": 1}, TypeError, "numpy array"),
        ([_PICTURE[..., :1]], {"fps": 1}, ValueError, r"\(height, width, 3\)"),
        (_TWO[:, :0], {"fps": 1}, ValueError, "pixels a side"),
        (17, {"fps": 1}, TypeError, "a path, an array or a tensor"),
        (_TWO, {}, ValueError, "2 frames need fps or times"),
        (iter(_TWO), {}, ValueError, "needs fps or times"),
        (_TWO, {"fps": 1, "times": [0, 1]}, ValueError, "not both"),
        (_TWO, {"fps": 0}, ValueError, "above 0"),
        (_TWO, {"fps": float("nan")}, ValueError, "above 0"),
        (_TWO, {"fps": 1e-9}, ValueError, "fps must be from"),
        (_TWO, {"times": [0, 0]}, ValueError, "times must rise: frame 0 is at 0 s"),
        (_TWO, {"times": [0, float("inf")]}, ValueError, "finite"),
        (_TWO, {"times": [0, 1, 2]}, ValueError, "2 frames, but 3 times"),
        (iter(_TWO), {"times": [0, 1, 2]}, ValueError, "2 frames, but 3 times"),
        (iter(_TWO), {"times": [0]}, ValueError, "more frames than times: 1"),
        (_TWO, {"fps": 1, "start": 1}, ValueError, "for paths"),
        (_TWO, {"fps": 1, "max_height": 8}, ValueError, "for paths"),
        (_tensor(2, 16, 16, 3), {"fps": 1}, ValueError, r"\(T, 3, height, width\)"),
        (_tensor(2, 3, 16, 16) + 255, {"fps": 1}, ValueError, r"in \[-1, 1\]"),
        (_tensor(2, 3, 16, 16) * torch.nan, {"fps": 1}, ValueError, r"in \[-1, 1\]"),
        (_tensor(2, 3, 16, 16).to(torch.uint8), {"fps": 1}, TypeError, "floating point"),
        (_tensor(0, 3, 16, 16), {"fps": 1}, ValueError, "no frames"),
        (_TWO, {"fps": 1, "mse": 0}, ValueError, "mse"),
        (_TWO, {"fps": 1, "mse": float("nan")}, ValueError, "mse"),
        (_TWO, {"fps": 1, "tokens": -1}, ValueError, "tokens"),
        (_TWO, {"fps": 1, "tokens": 9999}, ValueError, "tokens"),
        (_TWO, {"fps": 1, "effort": 10}, ValueError, "effort"),
        (_TWO, {"fps": 1, "search": "binary"}, ValueError, "search"),
        (_TWO, {"fps": 1, "allocation": "frame"}, ValueError, "allocation"),
        (_TWO, {"fps": 1, "keyframe_interval": -1}, ValueError, "keyframe_interval"),
        (_TWO, {"fps": 1, "promise": "frame"}, ValueError, "promise must be block or video"),
        (_TWO, {"fps": 1, "promise": "video", "worst": 0.5}, ValueError, "worst must be from 1"),
        (_TWO, {"fps": 1, "promise": "video", "worst": float("nan")}, ValueError, "worst must be from 1"),
        (_TWO, {"fps": 1, "promise": "video", "tokens": 3}, ValueError, "exclude each other"),
        (_TWO, {"fps": 1, "kbps": 9, "tokens": 3}, ValueError, "exclude each other"),
        (_TWO, {"fps": 1, "kbps": 9, "allocation": "block"}, ValueError, "allocation cell"),
        (_TWO, {"fps": 1, "kbps": 9, "promise": "block"}, ValueError, "needs the promise video"),
        (_TWO, {"fps": 1, "kbps": 0}, ValueError, "kbps must be more than 0"),
        (_TWO, {"fps": 1, "kbps": 9, "mse": 5}, ValueError, "mse must be"),
        (_TWO, {"fps": 1, "max_bytes": 0}, ValueError, "max_bytes must be more than 0"),
        (_TWO, {"fps": 1, "max_bytes": 50}, ValueError, "without a single token the file still has [0-9]+"),
        (_TWO, {"fps": 1, "max_tokens": -1}, ValueError, "max_tokens must be 0 or more"),
        (_TWO, {"fps": 1, "tokens_per_second": float("nan")}, ValueError, "tokens_per_second must be 0"),
        (iter(_TWO), {"fps": 1, "max_bytes": 9999}, ValueError, "can be read twice"),
        (iter(_TWO), {"fps": 1, "max_tokens": 9}, ValueError, "can be read twice"),
        (iter(_TWO), {"fps": 1, "kbps": 0.1}, ValueError, "without a single token the file still has [0-9]+"),
        (_TWO[:1], {"kbps": 9}, ValueError, "a still picture has no"),
        (iter(_TWO[:1]), {"fps": 1, "tokens_per_second": 9}, ValueError, "a still picture has no"),
        ("no.mp4", {}, elastictok.VideoError, "does not exist"),
        ("no.mp4", {"kbps": 9}, elastictok.VideoError, "no.mp4 does not exist"),
        ("no.mp4", {"max_tokens": 9}, elastictok.VideoError, "no.mp4 does not exist"),
        ("no.mp4", {"fps": 25}, ValueError, "times of its own"),
        ("no.mp4", {"duration": 0}, ValueError, "duration"),
        ("no.mp4", {"start": -1}, ValueError, "start"),
    ],
)
def test_bad_input_is_refused_in_words(
    source: Any, options: dict[str, Any], kind: type[Exception], words: str, model: elastictok.Model
) -> None:
    with pytest.raises(kind, match=words):
        elastictok.encode(source, model, **options)


def test_bad_requests_of_a_video(
    video: elastictok.TokenVideo, model: elastictok.Model, frames: np.ndarray
) -> None:
    refused: list[Callable[[], object]] = [
        lambda: video.thin(),
        lambda: video.thin(keep=0.5, tokens=3),
        lambda: video.thin(keep=1.5),
        lambda: video.thin(tokens=-1),
        lambda: video.thin(kbps=0),
        lambda: video.thin(kbps=0.1),
        lambda: video.thin(keep=0.5, source="clip.mp4"),
        lambda: elastictok.encode(frames[:1], model).thin(kbps=5),
        lambda: elastictok.decode(video, model, start=-1),
        lambda: elastictok.load_model(device="abacus"),
    ]
    for refuse in refused:
        with pytest.raises(ValueError, match=r"\w+ \w+"):
            refuse()


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "a.etk").write_bytes(b"something else")
    with pytest.raises(elastictok.EtkError):
        elastictok.open(tmp_path / "a.etk")
    with pytest.raises(FileNotFoundError):
        elastictok.open(tmp_path / "b.etk")
    with pytest.raises(elastictok.CheckpointError):
        elastictok.load_model(tmp_path / "a.etk")


def test_other_weights_do_not_decode(video: elastictok.TokenVideo, model: elastictok.Model) -> None:
    other = replace(video.header, model=replace(video.header.model, sha256=bytes(32)))
    file = io.BytesIO()
    with EtkWriter(file, other) as writer:
        for segment in video.segments():
            writer.write_segment(segment.blocks)
    with pytest.raises(elastictok.ModelMismatch):
        elastictok.decode(elastictok.TokenVideo(file.getvalue()), model)


def test_what_a_source_loses_is_a_warning(model: elastictok.Model, tmp_path: Path) -> None:
    picture = np.full((16, 16, 4), 99, np.uint8)
    with av.open(str(tmp_path / "glass.png"), "w") as out:
        stream = out.add_stream("png", rate=1)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "rgba"
        out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgba")))
        out.mux(stream.encode(None))
    with pytest.warns(UserWarning, match="transparen|alpha"):
        video = elastictok.encode(tmp_path / "glass.png", model, tokens=1)
    assert video.frame_count == 1


def test_the_page_runs(tmp_path: Path) -> None:
    """Every block of Python in docs/python.md, one after another, beside a video called clip.mp4."""
    page = (Path(__file__).parent.parent / "docs" / "python.md").read_text()
    blocks = [part.split("```")[0] for part in page.split("```python\n")[1:]]
    assert len(blocks) >= 3
    (tmp_path / "run.py").write_text("\n".join(blocks))
    source = Path(__file__).parent.parent / "examples" / "cuts.mp4"
    command("encode", source, tmp_path / "small.etk", "--duration", 0.3, "--max-height", 64)
    command("decode", tmp_path / "small.etk", tmp_path / "clip.mp4")
    root = str(Path(__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "run.py"],
        cwd=tmp_path,
        env={"PYTHONPATH": root, "OMP_NUM_THREADS": "1", "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr

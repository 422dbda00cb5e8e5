"""The real model through the real file: what is promised is what comes back."""

import inspect
import io
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

from elastictok_cli.codec import decoder, events
from elastictok_cli.codec.budget import Budget
from elastictok_cli.codec.encoder import EncodeOptions, encode, make_header
from elastictok_cli.codec.options import KEYFRAME_INTERVAL
from elastictok_cli.codec.rate_control import DEFAULT_EFFORT, EFFORTS
from elastictok_cli.commands import encode as encode_command
from elastictok_cli.models import checkpoint
from elastictok_cli.models.checkpoint import Loaded
from elastictok_cli.video.records import Frame, VideoInfo
from formats import EtkReader, EtkWriter, Header

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return checkpoint.load()


def scene(
    count: int, height: int, width: int, seed: int = 0, first_pts: int = 0, step: int = 1
) -> list[Frame]:
    """A blurred random picture that glides, with a square that moves over it."""
    rng = np.random.default_rng(seed)
    grey, tint = rng.random((1, 1, height // 8 + 8, width // 8 + 8)), rng.random((1, 3, 1, 1))
    noise = torch.from_numpy(0.2 + 0.5 * grey + 0.2 * tint).float()
    picture = torch.nn.functional.interpolate(noise, (height + 64, width + 64), mode="bicubic").clamp(0, 1)
    frames = []
    for n in range(count):
        rgb = picture[0, :, n : n + height, 2 * n : 2 * n + width].permute(1, 2, 0).numpy() * 255
        rgb[height // 3 : height // 3 + 9, 3 * n : 3 * n + 9] = 255
        frames.append(Frame(rgb.astype(np.uint8), first_pts + n * step, step))
    return frames


def info_of(frames: list[Frame], base: Fraction = Fraction(1, 25)) -> VideoInfo:
    height, width = frames[0].rgb.shape[:2]
    return VideoInfo(
        width=width,
        height=height,
        time_base=base,
        average_rate=Fraction(25),
        frame_count=len(frames),
        duration=None,
        rotation=0,
        pixel_format="rgb24",
        color={},
        size_bytes=1000,
        codec="rawvideo",
        metadata={},
        aux_streams=(),
        aux_container=None,
        start_pts=frames[0].pts,
        is_still=False,
    )


def run(
    loaded: Loaded, frames: list[Frame], options: EncodeOptions | None = None
) -> tuple[list[events.Event], bytes]:
    options = options or EncodeOptions()
    info = info_of(frames)
    file = io.BytesIO()
    writer = EtkWriter(file, make_header(info, loaded, options))
    seen = list(encode(info, iter(frames), lambda: b"", loaded, writer, options, CPU))
    return seen, file.getvalue()


def read(data: bytes, loaded: Loaded, **window: int) -> list[Frame]:
    with EtkReader(io.BytesIO(data)) as reader:
        return list(decoder.decode(reader, loaded, CPU, **window))


def errors(frames: list[Frame], decoded: list[Frame]) -> list[float]:
    return [
        float(np.square(a.rgb.astype(float) - b.rgb.astype(float)).mean()) / 127.5**2
        for a, b in zip(frames, decoded, strict=True)
    ]


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (17, 31), (31, 17), (64, 96)])
def test_any_size_comes_back_with_its_times_and_under_its_target(
    loaded: Loaded, size: tuple[int, int]
) -> None:
    frames = scene(7, *size, first_pts=90)
    seen, data = run(loaded, frames)
    decoded = read(data, loaded)
    assert [(f.pts, f.duration) for f in decoded] == [(f.pts, f.duration) for f in frames]
    assert all(f.rgb.shape == (*size, 3) for f in decoded)
    measured = errors(frames, decoded)
    for done in (e for e in seen if isinstance(e, events.BlockDone)):
        part = measured[done.first_frame : done.first_frame + done.frames]
        assert part == pytest.approx(done.frame_mse, abs=1e-6)
        assert done.missed == (float(np.mean(done.frame_mse)) > 0.007)
        if not done.missed:
            assert np.mean(part) <= 0.007 + 1e-6


def test_variable_frame_times_are_kept(loaded: Loaded) -> None:
    times = [0, 1, 5, 6, 20, 21, 22, 50, 51]
    frames = [replace(f, pts=t, duration=0) for f, t in zip(scene(9, 32, 32), times, strict=True)]
    _, data = run(loaded, frames)
    assert [f.pts for f in read(data, loaded)] == times


def test_events_keep_their_guarantees(loaded: Loaded) -> None:
    frames = scene(9, 32, 48) + scene(6, 32, 48, seed=9, first_pts=9)
    seen, data = run(loaded, frames)
    blocks = [e for e in seen if isinstance(e, events.BlockDone)]
    segments = [e for e in seen if isinstance(e, events.SegmentWritten)]
    assert isinstance(seen[0], events.Started)
    assert isinstance(seen[-1], events.Finished)
    assert sum(isinstance(e, events.Started | events.Finished) for e in seen) == 2
    assert [b.index for b in blocks] == list(range(len(blocks)))
    assert [b.first_frame for b in blocks] == list(np.cumsum([0] + [b.frames for b in blocks])[:-1])
    last = seen[-1]
    assert last.frames == 15 == sum(b.frames for b in blocks)
    assert last.tokens == sum(b.tokens for b in blocks)
    assert last.bytes == len(data)
    assert sum(s.blocks for s in segments) == len(blocks)
    assert segments[-1].bytes_so_far <= last.bytes


def test_a_cut_starts_a_segment(loaded: Loaded) -> None:
    dark = [replace(f, rgb=f.rgb // 4) for f in scene(6, 32, 32)]
    frames = dark + [replace(f, rgb=255 - f.rgb // 4) for f in scene(5, 32, 32, seed=5, first_pts=6)]
    _, data = run(loaded, frames)
    with EtkReader(io.BytesIO(data)) as reader:
        segments = list(reader.segments())
    assert [s.blocks[0].pts[0] for s in segments] == [0, 6]
    assert segments[1].blocks[0].scene_cut


def test_fewer_tokens_for_a_looser_target(loaded: Loaded) -> None:
    frames = scene(8, 64, 64)
    totals = []
    for mse in (0.015, 0.007, 0.003, 0.001):
        seen, _ = run(loaded, frames, EncodeOptions(mse=mse))
        assert isinstance(seen[-1], events.Finished)
        totals.append(seen[-1].tokens)
    assert totals == sorted(totals)
    assert totals[0] < totals[-1]


def test_allocation_per_cell_needs_fewer_tokens_than_one_length(loaded: Loaded) -> None:
    frames = scene(8, 64, 96)
    cell, _ = run(loaded, frames)
    block, _ = run(loaded, frames, EncodeOptions(allocation="block"))
    assert isinstance(cell[-1], events.Finished)
    assert isinstance(block[-1], events.Finished)
    assert not block[-1].missed
    assert cell[-1].tokens < 0.8 * block[-1].tokens


def test_a_fixed_number_of_tokens_is_kept_in_every_cell(loaded: Loaded) -> None:
    _, data = run(loaded, scene(5, 32, 48), EncodeOptions(mse=None, tokens=3))
    with EtkReader(io.BytesIO(data)) as reader:
        assert reader.header.target_tokens == 3
        assert all((block.keep == 3).all() for block in reader.blocks())


def test_the_header_leaves_out_what_is_usual(loaded: Loaded) -> None:
    """The interval of keyframes only where it was asked for; colour tags only where the source has them."""
    unsaid = {"color_primaries": 2, "color_trc": 2, "colorspace": 2, "color_range": 0}
    info = info_of(scene(1, 32, 32))
    header = make_header(replace(info, color=unsaid), loaded, EncodeOptions())
    assert header.color == {}
    assert header.options == {}
    said = {"color_primaries": 1, "color_trc": 2, "colorspace": 5, "color_range": 2}
    header = make_header(replace(info, color=said), loaded, EncodeOptions(keyframe_interval=0.4))
    assert header.color == {"color_primaries": 1, "colorspace": 5, "color_range": 2}
    assert header.options == {"keyframe_interval": 0.4}


def test_the_header_says_what_was_promised_and_the_budget(loaded: Loaded) -> None:
    info = info_of(scene(1, 32, 32))
    assert make_header(info, loaded, EncodeOptions()).promise == "block"
    header = make_header(info, loaded, EncodeOptions(mse=0.003, promise="video"))
    assert (header.target_mse, header.promise, header.options) == (0.003, "video", {"worst": 4.0})
    budget = Budget(kbps=300, max_tokens=9)
    header = make_header(info, loaded, EncodeOptions(promise="video", worst=2, budget=budget))
    assert header.options == {"worst": 2.0, "kbps": 300, "max_tokens": 9}
    assert isinstance(header.options["worst"], float)
    header = make_header(info, loaded, EncodeOptions(mse=None, worst=2, budget=Budget(max_bytes=5000)))
    assert (header.target_mse, header.promise, header.options) == (None, "block", {"max_bytes": 5000})
    assert EtkReader(io.BytesIO(written(header))).header == header


def written(header: Header) -> bytes:
    """A file without a frame."""
    file = io.BytesIO()
    EtkWriter(file, header).close()
    return file.getvalue()


def test_a_window_decodes_the_same_frames(loaded: Loaded) -> None:
    frames = scene(30, 32, 32)
    _, data = run(loaded, frames, EncodeOptions(keyframe_interval=0.4))
    whole = read(data, loaded)
    part = read(data, loaded, first_pts=13, end_pts=22)
    assert [f.pts for f in part] == list(range(13, 22))
    for f in part:
        assert np.array_equal(f.rgb, whole[f.pts].rgb)


def test_one_lost_segment_leaves_the_others(loaded: Loaded) -> None:
    frames = scene(30, 32, 32)
    _, data = run(loaded, frames, EncodeOptions(keyframe_interval=0.4))
    whole = read(data, loaded)
    with EtkReader(io.BytesIO(data)) as reader:
        segments = list(reader.segments())
    hurt = segments[1]
    spoiled = bytearray(data)
    spoiled[hurt.offset + hurt.size_bytes // 2] ^= 0x10
    with EtkReader(io.BytesIO(bytes(spoiled))) as reader:
        rest = list(decoder.decode(reader, loaded, CPU))
        assert reader.damage
    lost = {p for b in hurt.blocks for p in b.pts}
    assert [f.pts for f in rest] == [f.pts for f in whole if f.pts not in lost]
    for f in rest:
        assert np.array_equal(f.rgb, whole[f.pts].rgb)


def test_other_weights_are_refused(loaded: Loaded) -> None:
    _, data = run(loaded, scene(2, 16, 16))
    with pytest.raises(decoder.ModelMismatch, match="made with the weights elastictok-default"):
        read(data, replace(loaded, sha256=bytes(32)))


def test_one_and_two_threads_agree(loaded: Loaded) -> None:
    """The same file gives the same tokens; pictures differ by rounding at most."""
    _, data = run(loaded, scene(9, 64, 64))
    threads = torch.get_num_threads()
    pictures = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            pictures.append(read(data, loaded))
    finally:
        torch.set_num_threads(threads)
    for a, b in zip(*pictures, strict=True):
        assert np.abs(a.rgb.astype(int) - b.rgb.astype(int)).max() <= 1


def test_wide_pictures_have_no_seams(loaded: Loaded) -> None:
    """Cell borders show no more error than cell insides, by a wide margin."""
    frames = scene(5, 96, 160)
    _, data = run(loaded, frames)
    error = np.mean(
        [np.square(a.rgb.astype(float) - b.rgb) for a, b in zip(frames, read(data, loaded), strict=True)],
        axis=(0, 3),
    )
    columns = error.mean(0)
    at_border = np.mean([columns[x - 1 : x + 1].mean() for x in range(16, 160, 16)])
    inside = np.mean([columns[x + 4 : x + 12].mean() for x in range(0, 160, 16)])
    assert at_border < 3 * inside


def test_what_the_header_leaves_out_is_what_the_command_does_by_itself() -> None:
    usual = inspect.signature(encode_command.encode).parameters["keyframe_interval"].default
    assert usual == EncodeOptions().keyframe_interval == KEYFRAME_INTERVAL


def test_motion_that_turns_within_a_block_is_coded_in_shorter_ones(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(5)
    small = torch.from_numpy(0.3 + 0.4 * rng.random((1, 3, 20, 20))).float()
    picture = torch.nn.functional.interpolate(small, (160, 160), mode="bicubic").clamp(0, 1)[0] * 255
    path = [0, 0, 0, 0, 2, 6, 9, 5, 1, 0, 4, 8, 6]
    shaken = []
    for n, x in enumerate(path):  # the halves go opposite ways, so that no motion of all does for both
        upper, lower = picture[:, 20:68, 20 + x : 116 + x], picture[:, 68:116, 20 - x : 116 - x]
        both = torch.cat([upper, lower], 1).permute(1, 2, 0)
        shaken.append(Frame(both.numpy().astype(np.uint8), n, 1))

    def blocks() -> list[events.BlockDone]:
        return [e for e in run(loaded, shaken)[0] if isinstance(e, events.BlockDone)]

    chosen = blocks()
    never = replace(EFFORTS[DEFAULT_EFFORT], costly=1e9)
    monkeypatch.setattr("elastictok_cli.codec.rate_control.EFFORTS", (never,) * 10)
    whole = blocks()
    assert sum(b.frames for b in chosen) == sum(b.frames for b in whole) == len(shaken)
    assert len(chosen) > len(whole)
    assert sum(b.tokens for b in chosen) < 0.85 * sum(b.tokens for b in whole)
    assert not any(b.missed for b in chosen)


def test_more_effort_finds_fewer_tokens_and_is_recorded(loaded: Loaded) -> None:
    frames = scene(9, 64, 96, seed=4)
    tokens = {}
    for effort in (0, 5, 9):
        options = EncodeOptions(mse=0.002, effort=effort)
        seen, data = run(loaded, frames, options)
        tokens[effort] = sum(e.tokens for e in seen if isinstance(e, events.BlockDone))
        assert not any(e.missed for e in seen if isinstance(e, events.BlockDone))
        with EtkReader(io.BytesIO(data)) as reader:
            assert reader.header.options.get("effort", 5) == effort
    assert tokens[9] <= tokens[5] <= tokens[0]
    assert tokens[9] < tokens[0]

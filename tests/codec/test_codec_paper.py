"""The paper's model (tiny, official random weights) through the real encoder, file and decoder."""

import io
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from elastictok_cli.codec import decoder, events
from elastictok_cli.codec.encoded import to_record
from elastictok_cli.codec.encoder import EncodeOptions, encode, make_header
from elastictok_cli.codec.pixels import frame_errors, make_job, to_pixels
from elastictok_cli.codec.scene_encoder import encode_scene
from elastictok_cli.codec.scenes import Scene, split_scenes
from elastictok_cli.models import checkpoint
from elastictok_cli.models.checkpoint import Loaded
from elastictok_cli.models.paper.config import PaperConfig
from elastictok_cli.models.paper.conversion import from_official, read_stream
from elastictok_cli.models.paper.tiles import PaperTokenizer
from elastictok_cli.video.records import Frame, VideoInfo
from formats import EtkReader, EtkWriter

CPU = torch.device("cpu")
GOLDEN = Path(__file__).parents[1] / "golden" / "official"
CONFIGS = {
    name: PaperConfig(
        name=name, bottleneck=name, patch=(2, 8, 8), size=32, min_tokens=4, hidden=64, mlp=96, heads=2,
        encoder_layers=2, decoder_layers=2, theta=theta,
    )
    for name, theta in (("fsq", 5e7), ("vae", 5e6))
}  # fmt: skip


@pytest.fixture(scope="module", params=CONFIGS)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    config = CONFIGS[request.param]
    arrays = from_official(read_stream(GOLDEN / f"{request.param}_params.stream"), config)
    path = tmp_path_factory.mktemp("paper") / "m.safetensors"
    tensors = {name: array.as_tensor() for name, array in arrays.items()}
    checkpoint.write(tensors, path, checkpoint.PAPER, config.to_dict(), {})
    return checkpoint.load(path)


def video(count: int, height: int, width: int) -> list[Frame]:
    """The golden frames, repeated to any size."""
    with np.load(GOLDEN / "fsq.npz") as file:
        frames = file["frames"]
    tall, wide = -(-height // 32), -(-width // 32)
    return [
        Frame(np.ascontiguousarray(np.tile(frames[n % 12], (tall, wide, 1))[:height, :width]), n, 1)
        for n in range(count)
    ]


def info_of(frames: list[Frame]) -> VideoInfo:
    height, width = frames[0].rgb.shape[:2]
    return VideoInfo(
        width, height, Fraction(1, 25), Fraction(25), len(frames), None, 0, "rgb24", {}, 1000, "rawvideo", {}, (),
        None, 0, False,
    )  # fmt: skip


def run(loaded: Loaded, frames: list[Frame], options: EncodeOptions) -> tuple[list[events.BlockDone], bytes]:
    info = info_of(frames)
    file = io.BytesIO()
    writer = EtkWriter(file, make_header(info, loaded, options))
    seen = list(encode(info, iter(frames), lambda: b"", loaded, writer, options, CPU))
    return [e for e in seen if isinstance(e, events.BlockDone)], file.getvalue()


def check(loaded: Loaded, frames: list[Frame], blocks: list[events.BlockDone], data: bytes) -> None:
    """What was promised of each frame is what the file gives."""
    with EtkReader(io.BytesIO(data)) as reader:
        decoded = list(decoder.decode(reader, loaded, CPU))
        assert reader.complete
    assert [f.pts for f in decoded] == [f.pts for f in frames]
    promised = [mse for block in blocks for mse in block.frame_mse]
    source, shown = (torch.from_numpy(np.stack([f.rgb for f in fs])) for fs in (frames, decoded))
    assert shown.shape == source.shape
    torch.testing.assert_close(
        frame_errors(source, shown), torch.tensor(promised).double(), atol=2e-5, rtol=0
    )


@pytest.mark.parametrize("search", ["binary", "linear", "predict"])
def test_any_size_comes_back_as_promised(loaded: Loaded, search: str) -> None:
    frames = video(14, 50, 41)  # four tiles, all but one with padding; the last block is short
    options = EncodeOptions(mse=0.39, search=search, guess=lambda *_: 12)
    blocks, data = run(loaded, frames, options)
    assert [b.frames for b in blocks] == [4, 4, 4, 2]
    check(loaded, frames, blocks, data)
    with EtkReader(io.BytesIO(data)) as reader:
        header = reader.header
        assert header.model.vector == (8 if loaded.tokenizer.spec.name == "vae" else 0)
        assert header.grid == (2, 2)
        assert header.options["search"] == search


def test_the_search_finds_the_shortest_passing_length_of_the_model(loaded: Loaded) -> None:
    """Against every length tried by hand, through three blocks that build on each other."""
    frames = video(12, 32, 32)
    tokenizer = loaded.tokenizer
    target = float(np.median(_all_errors(tokenizer, frames[:4], tokenizer.start(32, 32))))
    blocks, _ = run(loaded, frames, EncodeOptions(mse=target))
    context = tokenizer.start(32, 32)
    for number, block in enumerate(blocks):
        part = frames[4 * number : 4 * number + 4]
        errors = _all_errors(tokenizer, part, context)
        passing = [k for k in range(4, 33) if errors[k - 4] <= target]
        assert block.missed == (not passing)
        kept = block.tokens
        if passing:
            assert errors[kept - 4] <= target
            assert kept == 4 or errors[kept - 5] > target
            assert kept == passing[0] or any(errors[k - 4] > target for k in range(passing[0], kept))
        job = make_job(np.stack([f.rgb for f in part]), tokenizer, CPU)
        (trial,) = tokenizer.trials(job.frames, context, [(0, kept)])
        context = tokenizer.commit(context, [trial])


def _all_errors(tokenizer: PaperTokenizer, frames: list[Frame], context: object) -> list[float]:
    job = make_job(np.stack([f.rgb for f in frames]), tokenizer, CPU)
    found = tokenizer.trials(job.frames, context, [(0, k) for k in range(4, 33)])
    return [
        float(frame_errors(job.source, to_pixels(t.frames[None], 32, 32, len(frames))).mean()) for t in found
    ]


def test_batches_give_the_same_tokens(loaded: Loaded) -> None:
    """What a GPU does at once and a CPU one by one."""
    frames = video(8, 40, 64)
    one, data = run(loaded, frames, EncodeOptions(mse=0.39))
    many = replace(loaded, tokenizer=PaperTokenizer(loaded.tokenizer.model, batch=5))
    several, _ = run(many, frames, EncodeOptions(mse=0.39))
    assert [b.tokens for b in one] == [b.tokens for b in several]
    check(many, frames, one, data)


def test_caches_put_away_give_the_same_file(loaded: Loaded) -> None:
    """A picture of many tiles: what is remembered of them lies in files mapped into memory."""
    frames = video(20, 40, 64)
    options = EncodeOptions(mse=None, tokens=20)
    _, data = run(loaded, frames, options)
    small = PaperTokenizer(loaded.tokenizer.model, room=0)
    away = replace(loaded, tokenizer=small)
    blocks, same = run(away, frames, options)
    assert same == data
    check(away, frames, blocks, data)
    assert small.caches._folder is not None
    assert not list(small.caches._folder.iterdir())  # no file is left for others to clean up


def test_tokens_past_the_length_are_not_read(loaded: Loaded) -> None:
    tokenizer = loaded.tokenizer
    job = make_job(np.stack([f.rgb for f in video(4, 32, 32)]), tokenizer, CPU)
    (trial,) = tokenizer.trials(job.frames, tokenizer.start(32, 32), [(0, 9)])
    tokens = trial.tokens[None, :, None, None]
    other = tokens.clone()
    other[:, 9:] = 7
    keep = torch.full((1, 1, 1), 9)
    shown = [tokenizer.decode(t, keep, tokenizer.start(32, 32), count=4)[0] for t in (tokens, other)]
    assert torch.equal(*shown)
    torch.testing.assert_close(shown[0][0], trial.frames, atol=1e-5, rtol=0)


def test_memory_of_a_context_is_bounded(loaded: Loaded) -> None:
    tokenizer = loaded.tokenizer
    context = tokenizer.start(32, 32)
    for block in range(7):
        job = make_job(np.stack([f.rgb for f in video(4, 32, 32)]), tokenizer, CPU)
        (trial,) = tokenizer.trials(job.frames, context, [(0, 8)])
        context = tokenizer.commit(context, [trial])
        for past in context[0]:
            assert len(past) == min(block + 1, 3)
            assert all(kv.k.shape[2] == 32 for cache in past for kv in cache)


def test_a_window_decodes_alone(loaded: Loaded) -> None:
    """Blocks after a keyframe do not depend on what came before."""
    frames = video(12, 32, 32)
    _, data = run(loaded, frames, EncodeOptions(mse=None, tokens=20, keyframe_interval=0.3))
    with EtkReader(io.BytesIO(data)) as reader:
        assert [len(segment.blocks) for segment in reader.segments()] == [2, 1]
        part = list(decoder.decode(reader, loaded, CPU, first_pts=8))
        whole = list(decoder.decode(reader, loaded, CPU))
    assert [f.pts for f in part] == list(range(8, 12))
    for a, b in zip(part, whole[8:], strict=True):
        assert np.abs(a.rgb.astype(int) - b.rgb).max() <= 1


@pytest.mark.parametrize("tokens", [0, 1, 5, 32])
def test_fixed_lengths(loaded: Loaded, tokens: int) -> None:
    frames = video(8, 40, 32)
    blocks, data = run(loaded, frames, EncodeOptions(mse=None, tokens=tokens))
    assert [b.tokens for b in blocks] == [2 * tokens] * 2
    assert not blocks[0].missed
    check(loaded, frames, blocks, data)


@pytest.mark.parametrize("allocation", ["cell", "block"])
def test_allocation(loaded: Loaded, allocation: str) -> None:
    frames = video(4, 60, 64)
    blocks, data = run(loaded, frames, EncodeOptions(mse=0.39, allocation=allocation))
    with EtkReader(io.BytesIO(data)) as reader:
        keeps = [block.keep for block in reader.blocks()]
    if allocation == "block":
        assert all(len(set(keep.flatten().tolist())) == 1 for keep in keeps)
    check(loaded, frames, blocks, data)


@pytest.mark.parametrize("search", ["binary", "predict"])
def test_scenes_encoded_in_reverse_order_give_the_same_blocks(loaded: Loaded, search: str) -> None:
    frames = video(20, 32, 32)
    options = EncodeOptions(
        mse=0.39, search=search, keyframe_interval=0.3, guess=lambda source, target, last: last or 12
    )
    _, data = run(loaded, frames, options)
    with EtkReader(io.BytesIO(data)) as reader:
        wanted = [segment.blocks for segment in reader.segments()]
    scenes = [tuple(scene.frames) for scene in split_scenes(frames, Fraction(15, 2))]
    assert len(scenes) == len(wanted) == 3
    for n in reversed(range(3)):
        coded = list(encode_scene(Scene(scenes[n], False), loaded.tokenizer, options, CPU, (1, 1)))
        assert len(coded) == len(wanted[n])
        for (block, found), stored in zip(coded, wanted[n], strict=True):
            record = to_record(block, found)
            assert record.pts == stored.pts
            assert np.array_equal(record.keep, stored.keep)
            assert np.array_equal(record.tokens, stored.tokens)

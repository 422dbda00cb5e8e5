"""`elastictok thin`: the same tokens, fewer of them, and an honest file."""

import io
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_samples import COUNT, flip, json_lines, make_clip, packets, promised, run, start

from elastictok_cli.codec import decoder
from elastictok_cli.codec.measurement import Source
from elastictok_cli.codec.pixels import make_job
from elastictok_cli.models import checkpoint
from elastictok_cli.video import VideoReader
from formats import Block, EtkReader, EtkWriter, pack_tokens

Thin = Callable[..., Path]


@pytest.fixture
def thin(tmp_path: Path) -> Thin:
    def make(source: Path, *options: object, name: str = "thin.etk") -> Path:
        target = tmp_path / name
        result = run("thin", source, target, *options, "-y")
        assert result.exit_code == 0, result.stderr
        return target

    return make


def _blocks(path: Path) -> list[Block]:
    with EtkReader(path, tolerate=False) as reader:
        return list(reader.blocks())


def _tokens(path: Path) -> int:
    return sum(block.token_count for block in _blocks(path))


@pytest.mark.parametrize(
    "options", [["--tokens", 5], ["--keep", 0.6], ["--kbps", 120]], ids=["tokens", "keep", "kbps"]
)
def test_tokens_are_those_the_encoder_stores_for_this_keep_map(
    clip: Path, etk: Path, thin: Thin, options: list[object]
) -> None:
    """Every block is encoded again with the real model, in the context that the encoder had."""
    loaded, cpu = checkpoint.load(), torch.device("cpu")
    with EtkReader(etk) as reader, VideoReader(clip, aux=False) as video:
        header, segments = reader.header, [segment.blocks for segment in reader.segments()]
        pictures = iter([frame.rgb for frame in video])
    thinned = iter(_blocks(thin(etk, *options)))
    seen = 0
    for blocks in segments:
        context = loaded.tokenizer.start(48, 64)
        for block in blocks:
            rgb = np.stack([next(pictures) for _ in block.pts])
            job = make_job(rgb, loaded.tokenizer, cpu)
            coded = loaded.tokenizer.encode(job.frames, context, count=len(rgb), complete=True)
            after = next(thinned)
            assert (after.keep <= block.keep).all()
            stored = pack_tokens(coded.tokens[0].clamp_min(0).numpy(), after.keep)
            assert stored.tobytes() == after.tokens.tobytes()
            seen += len(stored)
            _, context = decoder._decode_block(block, header, loaded, context, cpu)
    assert next(thinned, None) is None
    assert seen > 100


def test_a_cap_gives_the_very_segments_of_a_shorter_encode(clip: Path, tmp_path: Path, thin: Thin) -> None:
    """With keyframe blocks only, where no block sees another, all bytes but the errors are the same."""
    for tokens in (12, 5):
        options = ["--tokens", tokens, "--keyframe-interval", 0.001, "--no-audio"]
        assert run("encode", clip, tmp_path / f"{tokens}.etk", *options).exit_code == 0
    shorter = tmp_path / "5.etk"
    unknown = io.BytesIO()
    with EtkReader(shorter) as reader, EtkWriter(unknown, reader.header) as writer:
        target = reader.header.target_tokens
        for segment in reader.segments():
            blocks = [replace(b, frame_mse=(math.nan,) * len(b.pts)) for b in segment.blocks]
            writer.write_segment(blocks)
    thinned = thin(tmp_path / "12.etk", "--tokens", 5)
    with EtkReader(io.BytesIO(unknown.getvalue())) as a, EtkReader(thinned) as b:
        assert a.index is not None
        assert b.index is not None
        assert len(a.index) == len(b.index) > 3
        for one, other in zip(a.index, b.index, strict=True):
            begin, end = one.offset, one.offset + one.length
            assert (
                unknown.getvalue()[begin:end]
                == thinned.read_bytes()[other.offset : other.offset + other.length]
            )
        assert b.header.target_tokens == target == 5
    by_source = thin(tmp_path / "12.etk", "--tokens", 5, "--source", clip)
    assert [b.frame_mse for b in _blocks(by_source)] == [b.frame_mse for b in _blocks(shorter)]


def test_keep_hits_its_share_and_everything_else_stays(etk: Path, thin: Thin, tmp_path: Path) -> None:
    half = thin(etk, "--keep", 0.5)
    before, after = _blocks(etk), _blocks(half)
    assert 0.48 <= _tokens(half) / _tokens(etk) <= 0.5
    for old, new in zip(before, after, strict=True):
        assert (old.pts, old.durations, old.scene_cut) == (new.pts, new.durations, new.scene_cut)
    with EtkReader(etk) as a, EtkReader(half) as b:
        assert b.complete
        assert b.frame_count == b.header.frame_count == COUNT
        assert list(a.aux()) == list(b.aux())
        assert [type(part) for part in a.parts()] == [type(part) for part in b.parts()]
        assert {type(part) for part in b.parts()} != {bytes}
    back = tmp_path / "back.mkv"
    assert run("decode", half, back).exit_code == 0
    full = tmp_path / "full.mkv"
    assert run("decode", etk, full).exit_code == 0
    assert packets(back) == packets(full)


def test_the_file_says_what_became_of_it(clip: Path, tmp_path: Path, thin: Thin) -> None:
    full = tmp_path / "full.etk"
    assert run("encode", clip, full, "--mse", 0.02).exit_code == 0
    twice = thin(thin(full, "--keep", 0.8, name="once.etk"), "--tokens", 6)
    with EtkReader(twice) as reader:
        header = reader.header
        assert reader.index is not None
        assert all(math.isnan(info.mse) and info.missed == 0 for info in reader.index)
    assert (header.target_mse, header.target_tokens) == (None, None)
    assert header.options["thinned"] == "keep 0.8, tokens 6"
    assert header.options["thinned_from_mse"] == 0.02
    assert all(math.isnan(mse) for block in _blocks(twice) for mse in block.frame_mse)
    text = run("stats", twice).stdout
    assert "thinned  keep 0.8, tokens 6; made for mse 0.02" in text
    assert "not known" in text
    assert "target" not in text
    frames = json_lines(run("stats", twice, "--json").stdout)
    assert all(line["mse"] is None for line in frames if line["type"] in ("frame", "summary"))


def test_a_thinned_file_promises_nothing_and_keeps_its_budget(clip: Path, tmp_path: Path, thin: Thin) -> None:
    """Fewer tokens fit a budget as well; how far a block may be from the target says nothing without one."""
    encoded = tmp_path / "encoded.etk"
    assert run("encode", clip, encoded, "--mse", 0.02, "--no-audio").exit_code == 0
    budget = {"kbps": 5000, "max_tokens": 10**6}
    options = {"start": 0.5, "worst": 4.0, "bound": "target", **budget}
    full = promised(encoded, tmp_path / "full.etk", target_mse=0.02, promise="video", options=options)
    with EtkReader(thin(full, "--keep", 1)) as reader:  # nothing to drop
        assert (reader.header.promise, reader.header.options) == ("video", options)
    with EtkReader(thin(full, "--keep", 0.5)) as reader:
        header = reader.header
    assert (header.target_mse, header.promise) == (None, "block")
    assert header.options == {"start": 0.5, "thinned": "keep 0.5", "thinned_from_mse": 0.02, **budget}
    first, *_, last = json_lines(run("stats", tmp_path / "thin.etk", "--json").stdout)
    assert (first["promise"], first["worst"], first["budget"], first["bound"]) == (
        *("block", None),
        *(budget, None),
    )
    assert last["promise_kept"] is None
    text = run("stats", tmp_path / "thin.etk").stdout
    assert "  target" not in text
    assert "  budget   5000 kbps: " in text


def test_kbps_is_met_in_real_bytes(etk: Path, thin: Thin) -> None:
    seconds = COUNT / 30
    now = etk.stat().st_size * 8 / 1000 / seconds
    for part in (0.97, 0.93, 0.87):
        out = thin(etk, "--kbps", part * now)
        size = out.stat().st_size * 8 / 1000 / seconds
        assert 0.97 * part * now <= size <= part * now
        with EtkReader(out) as reader:
            assert reader.complete


def test_kbps_with_errors_is_met_too(clip: Path, etk: Path, thin: Thin) -> None:
    now = etk.stat().st_size * 8 / 1000 / (COUNT / 30)
    out = thin(etk, "--kbps", 0.9 * now, "--source", clip)
    assert 0.95 * 0.9 <= out.stat().st_size / etk.stat().st_size <= 0.9
    assert all(mse > 0 for block in _blocks(out) for mse in block.frame_mse)


def test_kbps_below_what_the_rest_takes_is_2(etk: Path, tmp_path: Path) -> None:
    result = run("thin", etk, tmp_path / "out.etk", "--kbps", 1)
    assert result.exit_code == 2
    assert "cannot be reached" in result.stderr
    assert "audio" in result.stderr
    assert not list(tmp_path.iterdir())


def test_error_is_measured_by_decoding(clip: Path, etk: Path, thin: Thin) -> None:
    out = thin(etk, "--keep", 0.4, "--source", clip)
    with EtkReader(out) as reader, VideoReader(clip, aux=False) as video:
        shown = list(decoder.decode(reader, checkpoint.load(), torch.device("cpu")))
        wanted = [
            np.square((a.rgb.astype(float) - b.rgb) / 127.5).mean() for a, b in zip(shown, video, strict=True)
        ]
        stored = [mse for block in reader.blocks() for mse in block.frame_mse]
    assert stored == pytest.approx(wanted, rel=2.5e-3)  # as near as a file keeps them


def test_error_grows_smoothly(clip: Path, etk: Path, thin: Thin) -> None:
    errors = []
    for share in (0.9, 0.75, 0.6, 0.45, 0.3, 0.15, 0.0):
        out = thin(etk, "--keep", share, "--source", clip)
        errors.append(float(np.mean([mse for block in _blocks(out) for mse in block.frame_mse])))
    full = float(np.mean([mse for block in _blocks(etk) for mse in block.frame_mse]))
    steps = [b / a for a, b in zip([full, *errors], errors, strict=False)]
    *gradual, last = steps
    assert all(0.999 < step < 2 for step in gradual), steps
    assert last > 0.95  # from hardly anything to nothing: as bad


def test_nothing_to_drop_leaves_the_promise(clip: Path, tmp_path: Path, thin: Thin) -> None:
    full = tmp_path / "full.etk"
    assert run("encode", clip, full, "--mse", 0.02).exit_code == 0
    for options in (["--keep", 1], ["--tokens", 4096], ["--kbps", 1e6]):
        same = thin(full, *options)
        with EtkReader(full) as a, EtkReader(same) as b:
            assert replace(a.header, frame_count=COUNT) == b.header
        assert [(x.tokens.tobytes(), x.frame_mse) for x in _blocks(full)] == [
            (x.tokens.tobytes(), x.frame_mse) for x in _blocks(same)
        ]
    assert "nothing to drop" in run("thin", full, tmp_path / "o.etk", "--keep", 1).stderr


def test_pipes(etk: Path, thin: Thin) -> None:
    process = start("thin", "-", "-", "--keep", 0.5, "--quiet", stdin=-1, stdout=-1, stderr=-1)
    out, err = process.communicate(etk.read_bytes(), timeout=60)
    assert (process.returncode, err) == (0, b"")
    assert out == thin(etk, "--keep", 0.5).read_bytes()


def test_wrong_use(etk: Path, clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.etk"
    for options in (
        [],
        ["--keep", 0.5, "--tokens", 3],
        ["--keep", 1.5],
        ["--keep", "nan"],
        ["--kbps", 0],
        ["--kbps", "inf"],
    ):
        assert run("thin", etk, out, *options).exit_code == 2, options
    same = run("thin", etk, etk, "--keep", 0.5, "-y")
    assert (same.exit_code, "IN and OUT are both" in same.stderr) == (2, True)
    assert run("thin", etk, clip, "--keep", 0.5, "-y", "--source", clip).exit_code == 2
    assert run("thin", clip, out, "--keep", 0.5).exit_code == 3
    assert run("thin", tmp_path / "none.etk", out, "--keep", 0.5).exit_code == 3
    out.write_text("mine")
    assert run("thin", etk, out, "--keep", 0.5).exit_code == 2
    assert out.read_text() == "mine"


def test_a_source_that_is_not_it_is_3(etk: Path, tmp_path: Path) -> None:
    longer = make_clip(tmp_path / "short.mp4", count=COUNT - 3)
    result = run("thin", etk, tmp_path / "out.etk", "--keep", 0.5, "--source", longer)
    assert result.exit_code == 3
    assert "no frame at" in result.stderr
    picture = tmp_path / "small.png"
    assert run("decode", etk, picture, "--duration", 0.01).exit_code == 0
    with EtkReader(etk) as reader:
        header = replace(reader.header, width=60)
    with pytest.raises(Exception, match="64x48"):
        Source(picture, header)
    assert not (tmp_path / "out.etk").exists()


def test_damage_is_left_out_and_named(etk: Path, tmp_path: Path) -> None:
    with EtkReader(etk) as reader:
        assert reader.index is not None
        damaged = flip(etk, tmp_path / "damaged.etk", reader.index[1].offset + 40)
        left = COUNT - reader.index[1].frames
    out = tmp_path / "out.etk"
    result = run("thin", damaged, out, "--keep", 0.5, "--json")
    assert result.exit_code == 4
    assert "segment 1 is lost" in result.stderr
    *_, summary = json_lines(result.stdout)
    assert (summary["frames"], summary["damaged"]) == (left, True)
    with EtkReader(out) as reader:
        assert reader.complete
        assert reader.frame_count == left

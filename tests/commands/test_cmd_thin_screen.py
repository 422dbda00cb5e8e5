"""`elastictok thin` of a file whose cells are in screen modes: all its ways, and what it says of the result."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli_samples import json_lines, run

from elastictok_cli.codec import decoder
from elastictok_cli.codec.control_tokens import codes_after, length_of_head
from elastictok_cli.models import checkpoint
from elastictok_cli.video import VideoReader
from formats import Block, EtkReader, KindCounter, KindCounts, pack_tokens, unpack_tokens
from formats.kinds import CELL_KINDS

WAYS = {
    "keep": ["--keep", 0.5],
    "nearly nothing": ["--keep", 0.05],
    "nothing": ["--keep", 0],
    "tokens": ["--tokens", 20],
    "cut heads": ["--tokens", 2],
    "kbps": ["--kbps", 100],
}


def _thin(source: Path, target: Path, *options: object) -> dict[str, Any]:
    """The summary."""
    result = run("thin", source, target, *options, "--json", "-y")
    assert result.exit_code == 0, result.stderr
    return json_lines(result.stdout)[-1]


def _read(path: Path) -> tuple[list[Block], KindCounts]:
    with EtkReader(path, tolerate=False) as reader:
        blocks = list(reader.blocks())
        return blocks, KindCounter(reader.header).count(blocks)


def _measured(path: Path, source: Path) -> list[float]:
    """The error of each frame, decoded here."""
    with EtkReader(path) as reader, VideoReader(source, aux=False) as video:
        shown = decoder.decode(reader, checkpoint.load(), torch.device("cpu"))
        return [
            float(np.square((a.rgb.astype(float) - b.rgb) / 127.5).mean())
            for a, b in zip(shown, video, strict=True)
        ]


@pytest.mark.parametrize("way", WAYS)
def test_every_way_keeps_heads_of_sequences_and_says_how_many(
    page_etk: Path, tmp_path: Path, way: str
) -> None:
    target = tmp_path / "thin.etk"
    summary = _thin(page_etk, target, *WAYS[way])
    before, counts_before = _read(page_etk)
    after, counts = _read(target)
    for old, new in zip(before, after, strict=True):
        assert (new.keep <= old.keep).all()
        full = unpack_tokens(old.tokens, old.keep, max(1, int(old.keep.max())))
        assert np.array_equal(new.tokens, pack_tokens(full, new.keep))
    assert sum(counts.tokens.values()) == summary["tokens"] == sum(block.token_count for block in after)
    assert summary["tokens_before"] == sum(counts_before.tokens.values())
    assert summary["kept"] == summary["tokens"] / summary["tokens_before"] < 1
    assert all(count <= counts_before.tokens[kind] for kind, count in counts.tokens.items())
    assert counts.cells["none"] >= counts_before.cells["none"]
    assert sum(counts.cells[kind] for kind in CELL_KINDS) == sum(block.keep.size for block in before)
    option, amount = WAYS[way]
    if option == "--keep":
        assert summary["kept"] <= amount
    elif option == "--tokens":
        assert max(int(block.keep.max()) for block in after) == amount
        for kind in ("fsq", "palette", "motion_vector", "whole_vector", "none"):
            assert counts.cells[kind] == counts_before.cells[kind]  # every cell keeps its first two tokens
        lost = counts_before.cells["dct"] - counts.cells["dct"]  # whole vectors whose stream is gone
        assert lost == counts.cells["control_alone"] - counts_before.cells["control_alone"]
        assert (lost > 0) == (amount == 2)
    else:
        assert 0.95 * amount <= target.stat().st_size * 8 / 1000 / summary["duration"] <= amount
    assert all(math.isnan(mse) for block in after for mse in block.frame_mse)
    assert summary["mse"] is None


@pytest.mark.parametrize("way", WAYS)
def test_the_error_that_a_source_gives_is_what_a_decoder_shows(
    page: Path, page_etk: Path, tmp_path: Path, way: str
) -> None:
    """Sequences are cut anywhere: colours without labels, a mode without codes, a whole vector without its code."""
    target, unmeasured = tmp_path / "thin.etk", tmp_path / "unmeasured.etk"
    summary = _thin(page_etk, target, *WAYS[way], "--source", page)
    blocks, _ = _read(target)
    errors = _measured(target, page)
    assert [mse for block in blocks for mse in block.frame_mse] == pytest.approx(errors, rel=2.5e-3)
    assert summary["mse"] == pytest.approx(np.mean(errors), rel=1e-6)
    if way != "kbps":  # there, errors take some of the bytes
        _thin(page_etk, unmeasured, *WAYS[way])
        assert [b.tokens.tobytes() for b in _read(unmeasured)[0]] == [b.tokens.tobytes() for b in blocks]
    with EtkReader(target) as reader:
        header = reader.header
    assert (header.target_mse, header.options["thinned_from_mse"]) == (None, 0.02)
    text = run("stats", target, "--kinds").stdout
    assert "thinned  " in text
    assert "target   " not in text


def test_what_a_mode_cannot_do_without_goes_last(page_etk: Path, tmp_path: Path) -> None:
    """With half of the tokens, every cell that had a mode still has its colours and a code behind them."""
    _thin(page_etk, tmp_path / "thin.etk", "--keep", 0.5)
    before, counts_before = _read(page_etk)
    after, counts = _read(tmp_path / "thin.etk")
    with EtkReader(page_etk) as reader:
        needed = codes_after(reader.header)
    for old, new in zip(before, after, strict=True):
        assert (new.keep >= length_of_head(old, needed)).all()
    for kind in ("palette", "dct"):
        assert counts.cells[kind] == counts_before.cells[kind] > 5
        assert 0 < counts.tokens[kind] < counts_before.tokens[kind]
    assert counts.tokens["whole_vector"] == counts_before.tokens["whole_vector"] > 0


def test_compare_measures_what_thin_recorded(page: Path, page_etk: Path, tmp_path: Path) -> None:
    target = tmp_path / "thin.etk"
    summary = _thin(page_etk, target, "--keep", 0.7, "--source", page)
    result = run("compare", page, page_etk, target, "-o", tmp_path / "side.y4m", "--json")
    assert result.exit_code == 0, result.stderr
    full, thinned = json_lines(result.stdout)[-1]["files"]
    assert thinned["tokens"] == pytest.approx(summary["tokens"])
    assert thinned["mse"] == pytest.approx(summary["mse"], rel=1e-4)
    assert (full["target_mse"], thinned["target_mse"]) == (0.02, None)
    assert thinned["mse"] > full["mse"]


def test_one_length_for_all_cells_stays_one_length(page: Path, tmp_path: Path) -> None:
    full, target = tmp_path / "full.etk", tmp_path / "thin.etk"
    assert run("encode", page, full, "--mse", 0.02, "--allocation", "block").exit_code == 0
    before, counts_before = _read(full)
    assert counts_before.tokens["palette"] > 0
    _thin(full, target, "--keep", 0.5)
    for old, new in zip(before, _read(target)[0], strict=True):
        assert np.array_equal(new.keep, np.minimum(old.keep, new.keep.max()))

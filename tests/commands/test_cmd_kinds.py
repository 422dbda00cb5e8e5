"""`stats --kinds`, `encode --json` and `report`: what the tokens of a file are spent on."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_samples import COUNT, flip, json_lines, run, start

from elastictok_cli.analysis import kinds
from formats import EtkReader, KindCounts
from formats.kinds import CELL_KINDS, TOKEN_KINDS

GOLDEN = Path(__file__).parents[1] / "golden"


def _counts(path: Path) -> dict[str, Any]:
    *_, summary = json_lines(run("stats", path, "--kinds", "--json").stdout)
    assert sum(summary["kinds"]["tokens"].values()) == summary["tokens"]
    counts: dict[str, Any] = summary["kinds"]
    return counts


def _rows(text: str) -> dict[str, list[str]]:
    """The words of each line of the table, by kind."""
    lines = text.split("\nkind ")[1].split("\n\n")[0].splitlines()[1:]
    return {line[:20].strip(): line[20:].split() for line in lines}


def test_a_page_of_text_has_palettes(page_etk: Path) -> None:
    counts = _counts(page_etk)
    for kind in ("fsq", "dct", "palette", "motion_vector", "whole_vector"):
        assert counts["tokens"][kind] > 0, kind
        assert 0 < counts["cells"][kind] <= counts["tokens"][kind], kind
    with EtkReader(page_etk) as reader:
        blocks = list(reader.blocks())
    first = Counter(
        "palette" if value >= 65_529 else "dct" if value == 65_528 else None
        for block in blocks
        for value in block.tokens[: np.count_nonzero(block.keep)].tolist()
    )
    assert counts["cells"]["palette"] >= first["palette"] > 20  # others have a motion vector before
    assert counts["cells"]["dct"] >= first["dct"] > 0
    assert sum(counts["cells"][kind] for kind in CELL_KINDS) == sum(block.keep.size for block in blocks)


def test_the_table_says_the_same_numbers(page_etk: Path) -> None:
    counts = _counts(page_etk)
    result = run("stats", page_etk, "--kinds")
    assert (result.exit_code, result.stderr) == (0, "")
    rows = _rows(result.stdout)
    shown = [kind for kind in kinds.NAMES if counts["cells"][kind] or counts["tokens"].get(kind)]
    assert list(rows) == [kinds.NAMES[kind] for kind in shown]
    for kind in shown:
        tokens, _, cells, share = rows[kinds.NAMES[kind]]
        assert cells == f"{counts['cells'][kind]:,}"
        assert share.endswith("%")
        assert tokens == (f"{counts['tokens'][kind]:,}" if kind in TOKEN_KINDS else "-")


def test_plain_stats_reads_no_tokens(page_etk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run("stats", page_etk, "--json")
    assert json_lines(result.stdout)[-1]["kinds"] is None
    assert "\nkind " not in run("stats", page_etk).stdout
    monkeypatch.setattr("formats.segment.decode_tokens", lambda *_: pytest.fail("tokens were read"))
    assert run("stats", page_etk, "--json").stdout == result.stdout


def test_encode_says_what_stats_says(page: Path, page_etk: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.etk"
    lines = json_lines(run("encode", page, target, "--mse", 0.02, "--json").stdout)
    assert target.read_bytes() == page_etk.read_bytes()
    blocks, summary = [line for line in lines if line["type"] == "block"], lines[-1]
    assert summary["kinds"] == _counts(target)
    for part in ("tokens", "cells"):
        sums = Counter[str]()
        for block in blocks:
            sums.update(block["kinds"][part])
        assert dict(sums) == summary["kinds"][part]
    assert all(sum(block["kinds"]["tokens"].values()) == block["tokens"] for block in blocks)
    assert all(sum(block["kinds"]["cells"][kind] for kind in CELL_KINDS) == 4 * 8 for block in blocks)


def test_the_report_has_a_line(page_etk: Path, etk: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.html"
    assert run("report", page_etk, out, "--pictures", 0).exit_code == 0
    counts = _counts(page_etk)["tokens"]
    share = counts["palette"] / sum(counts.values())
    text = out.read_text(encoding="utf-8")
    assert "<dt>coded as</dt>" in text
    assert f"{share:.1%} palettes" in text.replace(" of tokens", "")
    assert run("report", etk, out, "--pictures", 0, "-y").exit_code == 0
    assert "palettes" not in out.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["v1", "v1-predicted", "v1-screen", "v1-vectors"])
def test_golden_files(name: str) -> None:
    counts = _counts(GOLDEN / f"{name}.etk")
    assert (counts["tokens"]["vector"] > 0) == (name == "v1-vectors")
    assert (counts["cells"]["palette"] > 0) == (name == "v1-screen")


def test_from_a_pipe_without_torch(page_etk: Path) -> None:
    process = start("stats", "-", "--kinds", stdin=-1, stdout=-1, stderr=-1)
    out, err = process.communicate(page_etk.read_bytes(), timeout=60)
    assert (process.returncode, err) == (0, b"")
    assert _rows(out.decode()) == _rows(run("stats", page_etk, "--kinds").stdout)


def test_with_a_source(clip: Path, etk: Path) -> None:
    *_, measured = json_lines(run("stats", etk, "--kinds", "--source", clip, "--json").stdout)
    assert measured["kinds"] == _counts(etk)
    assert measured["frames"] == COUNT


def test_of_a_damaged_file_what_is_intact_is_counted(etk: Path, tmp_path: Path) -> None:
    with EtkReader(etk) as reader:
        assert reader.index is not None
        infos = reader.index
    damaged = flip(etk, tmp_path / "damaged.etk", infos[1].offset + 40)
    result = run("stats", damaged, "--kinds", "--json")
    assert result.exit_code == 4
    *_, summary = json_lines(result.stdout)
    assert sum(summary["kinds"]["tokens"].values()) == infos[0].tokens + infos[2].tokens
    assert len(summary["damage"]) == 1


def test_a_sentence_never_rounds_to_nothing_or_all() -> None:
    counts = KindCounts()
    assert kinds.sentence(counts) == "no token"
    counts.tokens.update(palette=1_999_998, fsq=1, gain=1)
    assert kinds.sentence(counts) == ">99.9% of tokens palettes, <0.1% FSQ codes, <0.1% gains"
    counts.tokens.update(palette=0, fsq=5, gain=0)
    assert kinds.sentence(counts) == "100.0% of tokens FSQ codes"

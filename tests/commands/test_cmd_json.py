"""docs/json-output.md, held against what the program prints."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
from cli_samples import COUNT, json_lines, run

_PAGE = Path(__file__).parents[2] / "docs" / "json-output.md"


def _documented() -> dict[str, dict[str, list[str]]]:
    """Keys of each type of each command, in order."""
    found: dict[str, dict[str, list[str]]] = {}
    for part in re.split(r"^## ", _PAGE.read_text(encoding="utf-8"), flags=re.M)[1:]:
        command, *types = re.split(r"^### ", part, flags=re.M)
        keys = {}
        for section in types:
            rows = re.findall(r"^\| (`.*?) \|", section, flags=re.M)
            name = section.split("`")[1]
            keys[name] = [key for row in rows for key in re.findall(r"`(\w+)`", row)]
        found[command.split()[0]] = keys
    return found


def _check(command: str, lines: list[dict[str, Any]]) -> None:
    page = _documented()[command]
    for line in lines:
        if line["type"] != "validated":
            assert set(line) - {"type"} == set(page[line["type"]]), line["type"]


def _of(lines: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [line for line in lines if line["type"] == kind]


@pytest.mark.usefixtures("few_tokens")
def test_encode(clip: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.etk"
    result = run("encode", clip, target, "--json", "--mse", 1e-9, "--keyframe-interval", 0.12)
    assert result.exit_code == 0
    lines = json_lines(result.stdout)
    _check("encode", lines)
    kinds = [line["type"] for line in lines]
    assert kinds[0] == "started"
    assert kinds[-1] == "summary"
    assert kinds.count("started") == kinds.count("summary") == 1
    blocks, segments, summary = _of(lines, "block"), _of(lines, "segment"), lines[-1]
    assert [b["index"] for b in blocks] == list(range(summary["blocks"]))
    assert [s["index"] for s in segments] == list(range(summary["segments"]))
    assert sum(b["frames"] for b in blocks) == summary["frames"] == COUNT
    assert sum(b["tokens"] for b in blocks) == summary["tokens"]
    assert sum(s["blocks"] for s in segments) == summary["blocks"]
    assert [s["bytes_so_far"] for s in segments] == sorted(s["bytes_so_far"] for s in segments)
    assert summary["bytes"] == target.stat().st_size
    assert summary["source_ratio"] == target.stat().st_size / clip.stat().st_size
    assert [m["index"] for m in summary["missed"]] == [b["index"] for b in blocks if b["missed"]]
    assert all(len(b["frame_mse"]) == b["frames"] for b in blocks)
    assert summary["psnr"] == pytest.approx(10 * math.log10(4 / summary["mse"]))
    waiting = 0
    for line in lines:
        if line["type"] == "block":
            waiting += 1
        elif line["type"] == "segment":
            assert waiting == line["blocks"]
            waiting = 0


def test_decode(etk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("elastictok_cli.commands.decode._SECONDS_BETWEEN_REPORTS", 0)
    result = run("decode", etk, tmp_path / "out.y4m", "--json")
    lines = json_lines(result.stdout)
    _check("decode", lines)
    kinds = [line["type"] for line in lines]
    assert (kinds[0], kinds[-1], kinds.count("summary")) == ("started", "summary", 1)
    assert lines[0]["frames"] == lines[-1]["frames"] == COUNT
    assert _of(lines, "warning")
    assert [p["frames"] for p in _of(lines, "progress")] == list(range(1, COUNT + 1))
    assert _of(lines, "progress")[-1]["fraction"] == 1


def test_stats(etk: Path) -> None:
    lines = json_lines(run("stats", etk, "--json").stdout)
    _check("stats", lines)
    assert [line["type"] for line in lines] == ["file", *["frame"] * COUNT, "summary"]
    assert [key for key in lines[1] if key != "type"] == _documented()["stats"]["frame"]
    assert lines[-1]["complete"] is True
    assert lines[0]["bytes"] == etk.stat().st_size


def test_thin(etk: Path, tmp_path: Path) -> None:
    lines = json_lines(run("thin", etk, tmp_path / "thin.etk", "--keep", 0.5, "--json").stdout)
    _check("thin", lines)
    assert [line["type"] for line in lines] == ["started", *["segment"] * 3, "summary"]
    summary = lines[-1]
    assert summary["bytes"] == (tmp_path / "thin.etk").stat().st_size
    assert summary["tokens"] / summary["tokens_before"] == summary["kept"] <= 0.5
    assert summary["side_bytes"] > 0
    assert summary["mse"] is summary["psnr"] is None


def test_report(etk: Path, tmp_path: Path) -> None:
    lines = json_lines(run("report", etk, tmp_path / "out.html", "--pictures", 0, "--json").stdout)
    _check("report", lines)
    (summary,) = lines
    assert summary["bytes"] == (tmp_path / "out.html").stat().st_size
    assert (summary["frames"], summary["segments"], summary["pictures"]) == (COUNT, 3, 0)
    stats = json_lines(run("stats", etk, "--json").stdout)[-1]
    assert summary["tokens"] == stats["tokens"]
    assert math.isclose(summary["mse"], stats["mse"])


def test_stats_with_a_source(clip: Path, etk: Path) -> None:
    lines = json_lines(run("stats", etk, "--source", clip, "--json").stdout)
    _check("stats", lines)
    assert [line["type"] for line in lines] == ["file", *["frame"] * COUNT, "summary"]


def test_compare(clip: Path, etk: Path, tmp_path: Path) -> None:
    lines = json_lines(run("compare", clip, etk, etk, "-o", tmp_path / "side.y4m", "--json").stdout)
    _check("compare", lines)
    kinds = [line["type"] for line in lines]
    assert (kinds[0], kinds[-1], kinds.count("frame")) == ("started", "summary", COUNT)
    assert _of(lines, "warning")  # no sound in that kind of file
    usage = set(_documented()["stats"]["frame"])
    assert all(set(file) == usage for line in _of(lines, "frame") for file in line["files"])
    said = re.search(r"### `summary`.*?\| `files` \|(.*?)\n", _PAGE.read_text().split("## compare")[1], re.S)
    assert said is not None
    assert all(set(file) == set(re.findall(r"`(\w+)`", said[1])) for file in lines[-1]["files"])


def test_models() -> None:
    _check("models", json_lines(run("models", "--json").stdout))


def test_a_failure_has_no_summary(clip: Path, tmp_path: Path) -> None:
    result = run("encode", clip, tmp_path / "out.etk", "--json", "--tokens", 9999)
    assert result.exit_code == 2
    assert "summary" not in result.stdout


def test_numbers_that_json_lacks_are_null(etk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("elastictok_cli.analysis.units.psnr", lambda _: math.inf)
    assert all(line["psnr"] is None for line in _of(json_lines(run("stats", etk, "--json").stdout), "frame"))

"""`elastictok report` as a program."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from cli_samples import COUNT, flip, json_lines, make_clip, promised, run, start

from elastictok_cli.commands.report import _jpeg
from formats import EtkReader


def test_a_page_beside_the_file(etk: Path, tmp_path: Path) -> None:
    copy = tmp_path / "clip.etk"
    copy.write_bytes(etk.read_bytes())
    result = run("report", copy)
    assert result.exit_code == 0, result.stderr
    text = (tmp_path / "clip.html").read_text(encoding="utf-8")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.etk", "clip.html"]
    assert text.count("data:image/jpeg;base64,") == 3
    assert "http:" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "https:" not in text
    assert "12 tokens" in text
    assert "<dt>keyframe interval</dt><dd>0.2 s</dd>" in text.replace("\n", "").replace("  ", "")
    assert run("report", copy).exit_code == 2
    assert run("report", copy, "-y", "--quiet").stderr == ""


def test_pictures_are_limited_and_need_the_model(etk: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.html"
    assert run("report", etk, out, "--pictures", 2).exit_code == 0
    assert 1 <= out.read_text().count("data:image/jpeg") <= 2
    process = start("report", "-", "-", "--pictures", 0, "-q", stdin=-1, stdout=-1, stderr=-1)
    page, err = process.communicate(etk.read_bytes(), timeout=100)
    assert (process.returncode, err) == (0, b"")
    assert page.startswith(b"<!doctype html>")
    assert b"data:image/jpeg" not in page
    assert b'"cards":[{' in page


def test_wrong_use(etk: Path, clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.html"
    assert run("report", etk, etk, "-y").exit_code == 2
    assert run("report", etk, "-", "--json").exit_code == 2
    assert run("report", clip, out).exit_code == 3
    other = make_clip(tmp_path / "other.mp4", count=COUNT - 4)
    result = run("report", etk, out, "--source", other)
    assert (result.exit_code, "no frame at" in result.stderr) == (3, True)
    assert not out.exists()


def test_damage_is_shown_on_the_page(etk: Path, tmp_path: Path) -> None:
    with EtkReader(etk) as reader:
        assert reader.index is not None
        damaged = flip(etk, tmp_path / "damaged.etk", reader.index[1].offset + 40)
    out = tmp_path / "out.html"
    result = run("report", damaged, out, "--json", "--pictures", 0)
    assert result.exit_code == 4
    damage, summary = json_lines(result.stdout)
    assert (damage["type"], summary["damaged"], summary["segments"]) == ("damage", True, 2)
    assert "segment 1 is lost" in out.read_text()


@pytest.mark.parametrize(
    ("header", "errors", "missed", "kept", "note", "label"),
    [
        ({}, 0.006, set(), True, "mean of a block: kept", ["target"]),
        ({}, 0.009, {0}, False, "mean of a block: not kept: 1 block missed it", ["target"]),
        (
            {"promise": "video"},
            0.006,
            set(),
            True,
            "mean of the video: kept (28.2 dB)",
            ["target", "(mean)"],
        ),
        (
            {"promise": "video", "options": {"worst": 2.5}},
            *(0.009, {0, 1}, False),
            "mean of the video: not kept: mse 0.009 (26.5 dB), 2 blocks above 2.5 times the target",
            ["target", "(mean)"],
        ),
        (
            {"promise": "video", "options": {"bound": "budget"}},
            *(0.009, set(), False),
            "mean of the video: not reached within the budget: mse 0.009 (26.5 dB)",
            ["target", "(mean)"],
        ),
        (
            {"promise": "video"},
            float("nan"),
            set(),
            None,
            "not known whether kept",
            ["target", "(mean)"],
        ),
    ],
)
def test_the_page_says_what_was_promised(
    etk: Path,
    tmp_path: Path,
    header: dict[str, Any],
    errors: float,
    missed: set[int],
    kept: bool | None,
    note: str,
    label: list[str],
) -> None:
    file = promised(etk, tmp_path / "promised.etk", errors=errors, missed=missed, target_mse=0.007, **header)
    result = run("report", file, "--pictures", 0, "--json")
    (summary,) = json_lines(result.stdout)
    assert (summary["promise"], summary["promise_kept"]) == (header.get("promise", "block"), kept)
    text = (tmp_path / "promised.html").read_text(encoding="utf-8")
    data = _data(text)
    assert (data["target"], data["target_label"]) == (0.007, label)
    words = "missed the target"
    if "promise" in header:
        worst = header.get("options", {}).get("worst")
        words = f"above {worst} times the target" if worst else "far above the target"
    assert data["missed_label"] == words
    (tile,) = [part for part in text.split('<div class="tile">') if 'class="label">target<' in part]
    assert note in tile
    assert ("note bad" in tile) == (kept is False and "budget" not in note)


def _data(text: str) -> dict[str, Any]:
    found = re.search(r'id="data">(.*?)</script>', text)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


@pytest.mark.parametrize(("limit", "over"), [(10**6, False), (1000, True)])
def test_the_page_says_what_was_spent_of_a_budget(etk: Path, tmp_path: Path, limit: int, over: bool) -> None:
    file = promised(etk, tmp_path / "b.etk", target_mse=None, options={"max_bytes": limit})
    assert run("report", file, "--pictures", 0).exit_code == 0
    text = (tmp_path / "b.html").read_text(encoding="utf-8")
    (tile,) = [part for part in text.split('<div class="tile">') if 'class="label">size<' in part]
    size = file.stat().st_size
    assert f"budget {limit / 1e6 if limit == 10**6 else limit / 1e3:.1f} " in tile
    assert f": {size / 1000:.1f} kB ({size / limit:.1%})" in tile
    assert ("note bad" in tile) == over


def test_a_picture_keeps_its_shape() -> None:
    import numpy as np

    uri, width, height = _jpeg(np.zeros((1080, 607, 3), np.uint8))
    assert uri.startswith("data:image/jpeg;base64,/9j/")
    assert (width, height) == (180, 320)

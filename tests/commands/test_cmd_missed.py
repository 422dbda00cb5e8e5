"""What `encode` says of a video with more missed blocks than it remembers."""

from pathlib import Path

import pytest
from cli_samples import COUNT, json_lines, run

from elastictok_cli.codec import events


@pytest.mark.usefixtures("few_tokens")
def test_a_summary_counts_all_missed_blocks_and_names_the_first(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "MOST_MISSED", 2)
    arguments = ("encode", clip, tmp_path / "out.etk", "-y", "--mse", 1e-9, "--keyframe-interval", 0.01)
    result = run(*arguments, "--json")
    assert result.exit_code == 0
    *_, summary = json_lines(result.stdout)
    assert summary["missed_blocks"] == summary["blocks"] == COUNT
    assert [block["index"] for block in summary["missed"]] == [0, 1]
    assert all(block["mse"] > 1e-9 for block in summary["missed"])
    assert f"{COUNT} blocks did not reach" in result.stderr
    assert result.stderr.count("           block ") == 2
    assert f"and {COUNT - 2} more; elastictok stats lists them all" in result.stderr


@pytest.mark.usefixtures("few_tokens")
def test_the_text_counts_what_it_does_not_name(clip: Path, tmp_path: Path) -> None:
    result = run("encode", clip, tmp_path / "out.etk", "--mse", 1e-9, "--keyframe-interval", 0.01)
    assert f"{COUNT} blocks did not reach" in result.stderr
    assert result.stderr.count("           block ") == 10
    assert f"and {COUNT - 10} more; elastictok stats lists them all" in result.stderr

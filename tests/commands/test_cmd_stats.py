import csv
import sys
from pathlib import Path

import pytest
from cli_samples import COUNT, flip, json_lines, run

from elastictok_cli.commands.chart import chart
from formats import EtkReader


def test_report_says_what_is_in_the_file(etk: Path) -> None:
    result = run("stats", etk)
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    for word in (
        "64x48",
        "sha256",
        "12 tokens in every cell",
        f"{COUNT} frames",
        "3 segments",
        "of the most possible",
        "█",
    ):
        assert word in result.stdout
    rows = [line for line in result.stdout.splitlines() if line.strip()[:1].isdigit() and "%" in line]
    assert len(rows) == COUNT
    assert sum("key" in row for row in rows) == 3


def test_a_long_file_is_shortened_with_a_hint(etk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("elastictok_cli.commands.stats_text._HEAD", 3)
    monkeypatch.setattr("elastictok_cli.commands.stats_text._TAIL", 2)
    short = run("stats", etk).stdout
    assert f"... {COUNT - 5} frames not shown: --all shows them, --csv FILE writes them" in short
    assert "not shown" not in run("stats", etk, "--all").stdout


def test_frames_add_up_to_the_file(etk: Path) -> None:
    rows = [line for line in json_lines(run("stats", etk, "--json").stdout) if line["type"] == "frame"]
    with EtkReader(etk) as reader:
        assert reader.index is not None
        assert sum(r["bytes"] for r in rows) == pytest.approx(sum(info.length for info in reader.index))
        assert sum(r["tokens"] for r in rows) == pytest.approx(sum(info.tokens for info in reader.index))
        blocks = list(reader.blocks())
    assert [r["block_tokens"] for r in rows] == [b.token_count for b in blocks for _ in b.pts]
    assert [r["mse"] for r in rows] == [mse for b in blocks for mse in b.frame_mse]


def test_csv_and_json_give_the_same_numbers(etk: Path, tmp_path: Path) -> None:
    frames = [line for line in json_lines(run("stats", etk, "--json").stdout) if line.pop("type") == "frame"]
    frames = [{key: "nan" if value is None else value for key, value in frame.items()} for frame in frames]
    target = tmp_path / "usage.csv"
    assert run("stats", etk, "--csv", target).exit_code == 0
    piped = run("stats", etk, "--csv", "-")
    assert piped.stdout == target.read_text()
    rows = list(csv.DictReader(piped.stdout.splitlines()))
    assert [list(row) for row in rows] == [list(frame) for frame in frames]
    for row, frame in zip(rows, frames, strict=True):
        assert {k: float(v) for k, v in row.items()} == pytest.approx(
            {k: float(v) for k, v in frame.items()}, rel=0, abs=0, nan_ok=True
        )
    assert [p.name for p in tmp_path.iterdir()] == ["usage.csv"]


def test_json_and_csv_cannot_share_standard_output(etk: Path) -> None:
    assert run("stats", etk, "--json", "--csv", "-").exit_code == 2


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_plot_is_made(etk: Path, tmp_path: Path, kind: str) -> None:
    target = tmp_path / f"usage.{kind}"
    result = run("stats", etk, "--plot", target)
    assert result.exit_code == 0, result.stderr
    assert target.read_bytes().startswith({"png": b"\x89PNG", "svg": b"<?xml"}[kind])
    assert [p.name for p in tmp_path.iterdir()] == [target.name]


def test_plot_of_an_unknown_kind_is_2(etk: Path, tmp_path: Path) -> None:
    result = run("stats", etk, "--plot", tmp_path / "usage.doc")
    assert result.exit_code == 2
    assert ".png" in result.stderr


def test_plot_without_matplotlib_says_what_to_install(
    etk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    result = run("stats", etk, "--plot", tmp_path / "usage.png")
    assert result.exit_code == 2
    assert "pip install matplotlib" in result.stderr


def test_a_cut_file_shows_what_is_intact(etk: Path, tmp_path: Path) -> None:
    with EtkReader(etk) as reader:
        assert reader.index is not None
        second = reader.index[1]
    cut = tmp_path / "cut.etk"
    cut.write_bytes(etk.read_bytes()[: second.offset + second.length + 5])
    result = run("stats", cut)
    assert result.exit_code == 4
    assert "2 segments" in result.stdout
    assert result.stderr.startswith("warning: ")
    *_, summary = json_lines(run("stats", cut, "--json").stdout)
    assert summary["complete"] is False
    assert len(summary["damage"]) == 1


def test_a_lost_segment_leaves_a_gap_in_the_numbers(etk: Path, tmp_path: Path) -> None:
    with EtkReader(etk) as reader:
        assert reader.index is not None
        damaged = flip(etk, tmp_path / "damaged.etk", reader.index[1].offset + 20)
    result = run("stats", damaged, "--json")
    assert result.exit_code == 4
    assert {line["segment"] for line in json_lines(result.stdout) if line["type"] == "frame"} == {0, 2}


def test_no_file_and_no_etk_file(tmp_path: Path) -> None:
    assert run("stats", tmp_path / "none.etk").exit_code == 3
    (tmp_path / "text.etk").write_text("hello")
    result = run("stats", tmp_path / "text.etk")
    assert (result.exit_code, result.stderr) == (
        3,
        f"elastictok: {tmp_path / 'text.etk'} is not an .etk file: the first bytes are wrong\n",
    )


@pytest.mark.parametrize("width", [*range(1, 20), *range(20, 201, 9)])
def test_chart_keeps_every_peak_at_any_width(width: int) -> None:
    values = [10] * 500
    lengths = [0.1] * 500
    peaks = {0: 1000, 137: 900, 138: 20, 333: 1000, 499: 800}
    for place, value in peaks.items():
        values[place] = value
    lengths[333] = 0.001  # a block of one short frame, as at cuts
    lines = chart(values, lengths, [("!", [place == 333 for place in range(500)])], width=width)
    assert max(map(len, lines)) <= width
    margin = 6 if width >= 14 else 0
    *rows, below = [line.ljust(width)[margin:] for line in lines]
    room = width - margin
    assert below.count("!") == 1
    for place, value in peaks.items():
        middle = (sum(lengths[:place]) + lengths[place] / 2) * room / sum(lengths)
        near = {
            min(room - 1, max(0, column)) for column in (int(middle - 0.5), int(middle), int(middle + 0.5))
        }
        if value > 830:
            assert any(rows[0][column] != " " for column in near), place
        if place == 333:
            assert below.index("!") in near
    assert " " not in rows[-1]
    full = [column for column in range(room) if rows[0][column] == "█"]
    assert len(full) <= 2  # neighbours of a peak do not rise with it


def test_chart_follows_time_and_not_the_number_of_blocks() -> None:
    bars, axis = chart([5, 10, 5], [1.0, 1.0, 8.0], width=14, ends=("0:00", "0:10"), height=1)
    assert bars == "10 ┤▄█▄▄▄▄▄▄▄▄"
    assert axis == "    0:00  0:10"


def test_chart_of_nothing_and_of_zeros() -> None:
    assert chart([], [], width=40, height=2) == ["0 ┤", "0 ┤"]
    assert chart([0, 0], [1.0, 1.0], width=40, height=2) == ["0 ┤", "0 ┤"]

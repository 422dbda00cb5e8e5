import csv
import sys
from collections.abc import Set
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_samples import COUNT, flip, json_lines, promised, run, start

from elastictok_cli.analysis.usage import SegmentUsage, Totals, frames, segments
from elastictok_cli.commands.chart import chart
from elastictok_cli.commands.stats_text import Table
from formats import Block, EtkReader, EtkWriter


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
        "of a full block",
        "█",
    ):
        assert word in result.stdout
    rows = [line for line in result.stdout.splitlines() if line.strip()[:1].isdigit() and "%" in line]
    assert len(rows) == COUNT
    assert sum("key" in row for row in rows) == 3


def shown_rows(text: str) -> list[list[str]]:
    """The words of each row of the table."""
    rows = [line.split() for line in text.splitlines() if line.strip()[:1].isdigit()]
    return [row for row in rows if len(row) > 5 and row[4].endswith("%")]


def make_long(target: Path, like: Path, *, cuts: Set[int], costly: Set[int]) -> Path:
    """100 blocks of two frames, ten a segment; all keep 3 tokens but those that are named."""
    with EtkReader(like) as reader:
        header = replace(reader.header, aux=None, target_mse=0.01, target_tokens=None)
    with EtkWriter(target, header) as writer:
        for segment in range(10):
            blocks = []
            for number in range(10 * segment, 10 * segment + 10):
                keep = np.zeros(header.grid, np.uint16)
                keep.flat[: 9 if number in costly else 5 if number in cuts else 3] = 1
                tokens = np.full(int(keep.sum()), 7, np.uint16)
                pts = (2 * number * 512, (2 * number + 1) * 512)
                errors = (0.01, 0.002)
                blocks.append(Block(pts, (512, 512), keep, tokens, errors, scene_cut=number in cuts))
            writer.write_segment(blocks)
    return target


def test_a_long_file_is_shortened_to_its_ends_its_cuts_and_what_costs_most(etk: Path, tmp_path: Path) -> None:
    file = make_long(tmp_path / "long.etk", etk, cuts={23, 47, 81}, costly={35, 60})
    text = run("stats", file).stdout
    rows = shown_rows(text)
    frames = [int(row[0]) for row in rows]
    assert frames == sorted(frames)
    assert set(range(12)) | set(range(194, 200)) <= set(frames)
    notes = {int(row[0]): row[8:] for row in rows}
    assert all("cut" in notes[2 * number] for number in (23, 47, 81))
    assert all("costly" in notes[2 * number] for number in (35, 60))
    assert len(rows) < 35
    assert f"{200 - len(rows)} frames not shown: --all shows them, --csv FILE writes them" in text
    gaps = [int(line.split()[1]) for line in text.splitlines() if line.startswith("    ... ")]
    assert sum(gaps) == 200 - len(rows)
    assert "cuts     3 blocks: 23 (" in text
    assert "not shown" not in (whole := run("stats", file, "--all").stdout)
    assert len(shown_rows(whole)) == 200


def test_of_many_cuts_the_costliest_are_shown_and_all_can_be_named(etk: Path, tmp_path: Path) -> None:
    cuts = set(range(11, 90, 3))
    file = make_long(tmp_path / "long.etk", etk, cuts=cuts, costly={14, 50, 80})
    text = run("stats", file).stdout
    rows = shown_rows(text)
    assert {28, 100, 160} <= {int(row[0]) for row in rows if "cut" in row and "costly" in row}
    assert f"cuts     {len(cuts)} blocks: 11 (" in text
    assert f"and {len(cuts) - 10} more (--all names them)" in text
    assert "more (--all" not in run("stats", file, "--all").stdout


def test_sums_by_segment_are_those_of_its_frames(etk: Path, tmp_path: Path) -> None:
    """What is shown without making every row, and what is made row by row, agree."""
    file = make_long(tmp_path / "long.etk", etk, cuts={23}, costly={35, 60})
    for path in (file, etk):
        by_segment, by_frame = Totals(), Totals()
        short, same = Table(show_all=False), Table(show_all=False)
        with EtkReader(path) as reader:
            for usage in segments(reader):
                by_segment.add_segment(usage)
                short.add_segment(usage)
            for row in frames(reader):
                by_frame.add(row)
                same.add(row)
        assert list(short.lines()) == list(same.lines())
        assert by_segment.bytes == pytest.approx(by_frame.bytes)
        for name in ("frame_times", "frame_mse", "block_times", "block_tokens", "block_missed", "block_cut"):
            assert list(getattr(by_segment, name)) == list(getattr(by_frame, name)), name
        assert (by_segment.end, by_segment.segments) == (by_frame.end, by_frame.segments)


def test_a_long_file_is_shown_without_making_a_row_of_every_frame(
    etk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is what an hour-long file would spend its time on."""
    made = []
    block = SegmentUsage.block
    monkeypatch.setattr(
        SegmentUsage, "block", lambda self, number: made.append(number) or block(self, number)
    )
    file = make_long(tmp_path / "long.etk", etk, cuts={23, 47, 81}, costly={35, 60})
    assert run("stats", file).exit_code == 0
    assert len(made) <= 60
    made.clear()
    assert run("stats", file, "--json").exit_code == 0
    assert len(made) >= 100


VIDEO = {"target_mse": 0.007, "promise": "video", "options": {"worst": 4.0}}
BLOCK = {"target_mse": 0.007}
NAN = float("nan")


@pytest.mark.parametrize(
    ("header", "errors", "missed", "kept", "words"),
    [
        (BLOCK, 0.006, set(), True, "mean of every block: kept"),
        (BLOCK, 0.008, {1, 2}, False, "mean of every block: not kept: 2 blocks missed it"),
        (BLOCK, NAN, set(), True, "mean of every block: kept"),
        (VIDEO, 0.0068, set(), True, "mean over the video: kept (27.7 dB)"),
        # of which the file makes 0.007004
        (VIDEO, 0.007, set(), True, "video: kept (27.6 dB)"),
        (VIDEO, 0.0072, set(), False, "video: not kept: mse 0.0072 (27.4 dB)"),
        (VIDEO, 0.003, {1}, False, "video: not kept: 1 block above 4 times the target"),
        (VIDEO, 0.0072, {1, 2}, False, "mse 0.0072 (27.4 dB), 2 blocks above 4 times the target"),
        (VIDEO, NAN, {1}, False, "not kept: mse unknown, 1 block above 4 times the target"),
        (VIDEO, NAN, set(), None, "video: not known whether kept"),
        (VIDEO | {"options": {}}, 0.003, set(), True, "mean over the video: kept (31.3 dB)"),
        (VIDEO | {"options": {"worst": "far"}}, 0.003, set(), True, "mean over the video: kept (31.3 dB)"),
        (
            VIDEO | {"options": {"worst": 4.0, "kbps": 300, "bound": "budget"}},
            *(0.009, set(), False),
            "video: not reached within the budget: mse 0.009 (26.5 dB)",
        ),
        ({"target_mse": None, "promise": "video"}, 0.003, set(), None, None),
    ],
)
def test_the_promise_and_whether_it_was_kept(
    etk: Path,
    tmp_path: Path,
    header: dict[str, Any],
    errors: float,
    missed: set[int],
    kept: bool | None,
    words: str | None,
) -> None:
    file = promised(etk, tmp_path / "promised.etk", errors=errors, missed=missed, **header)
    result = run("stats", file, "--json")
    first, *_, last = json_lines(result.stdout)
    assert first["promise"] == header.get("promise", "block")
    worst = header.get("options", {}).get("worst") if header.get("promise") == "video" else None
    assert first["worst"] == (worst if isinstance(worst, float) else None)
    assert first["bound"] == header.get("options", {}).get("bound")
    assert last["promise_kept"] is kept
    lines = [line for line in run("stats", file).stdout.splitlines() if line.startswith("  target ")]
    if words is None:
        assert lines == []
    else:
        (line,) = lines
        assert line.startswith("  target   mse 0.007 (27.6 dB), ")
        assert line.endswith(words)


def test_a_mean_is_one_over_frames_and_not_over_blocks(etk: Path, tmp_path: Path) -> None:
    """Long blocks have 0.008 and the short ones 0.001: their frames have more than the target, the blocks less."""
    file = tmp_path / "uneven.etk"
    with EtkReader(etk) as reader:
        header = replace(reader.header, aux=None, target_tokens=None, **VIDEO)
        long, short = next(b for b in reader.blocks() if len(b.pts) == 4), next(iter(reader.blocks()))
    blocks = [replace(long, frame_mse=(0.008,) * 4, pts=(0, 1, 2, 3), durations=(1,) * 4)]
    for pts in (4, 5):
        blocks.append(replace(short, frame_mse=(0.001,), pts=(pts,), durations=(1,)))
    mean = (4 * 0.008 + 2 * 0.001) / 6
    for target in (mean * 0.99, mean * 1.01):
        with EtkWriter(file, replace(header, target_mse=target)) as writer:
            writer.write_segment(blocks)
        *_, last = json_lines(run("stats", file, "--json").stdout)
        assert last["promise_kept"] is (target > mean)


def test_a_promise_is_not_known_to_be_kept_where_frames_are_lost(etk: Path, tmp_path: Path) -> None:
    for number, header in enumerate((BLOCK, VIDEO)):
        file = promised(etk, tmp_path / f"{number}.etk", errors=0.001, **header)
        with EtkReader(file) as reader:
            assert reader.index is not None
            damaged = flip(file, tmp_path / "damaged.etk", reader.index[1].offset + 20)
        result = run("stats", damaged, "--json")
        assert result.exit_code == 4
        assert json_lines(result.stdout)[-1]["promise_kept"] is None
        assert "not known whether kept" in run("stats", damaged).stdout


def test_missed_blocks_are_called_what_the_promise_says_of_them(etk: Path, tmp_path: Path) -> None:
    for number, (header, words) in enumerate(
        ((BLOCK, "! missed the target"), (VIDEO, "! above 4 times the target"))
    ):
        file = promised(etk, tmp_path / f"{number}.etk", errors=0.009, missed={1}, **header)
        assert f"({words})" in run("stats", file).stdout


def test_a_budget_and_what_was_spent_of_it(etk: Path, tmp_path: Path) -> None:
    """Of the whole file, over the time from its first frame to the end of its last."""
    limits = {"kbps": 1000, "max_bytes": 2_000_000, "max_tokens": 9000, "tokens_per_second": 20000.5}
    file = promised(etk, tmp_path / "b.etk", target_mse=None, options={**limits, "bound": "budget"})
    first, *_, last = json_lines(run("stats", file, "--json").stdout)
    seconds = COUNT / 30
    size, tokens = file.stat().st_size, last["tokens"]
    assert (first["target_mse"], first["budget"], first["bound"]) == (None, limits, "budget")
    assert last["promise_kept"] is None
    assert last["budget_used"] == {
        "kbps": pytest.approx(size * 8 / 1000 / seconds),
        "max_bytes": size,
        "max_tokens": tokens,
        "tokens_per_second": pytest.approx(tokens / seconds),
    }
    (line,) = [text for text in run("stats", file).stdout.splitlines() if text.startswith("  budget ")]
    rate = size * 8 / 1000 / seconds
    assert line == (
        f"  budget   1000 kbps: {rate:.0f} kbps ({rate / 1000:.1%}); "
        f"2.0 MB: {size / 1000:.1f} kB ({size / 2e6:.1%}); "
        f"9000 tokens: {tokens} tokens ({tokens / 9000:.1%}); "
        f"20000.5 tokens a second: {tokens / seconds:.0f} tokens a second ({tokens / seconds / 20000.5:.1%}); "
        "the budget decided the error"
    )


def test_without_a_budget_there_is_nothing_to_say_of_one(etk: Path) -> None:
    first, *_, last = json_lines(run("stats", etk, "--json").stdout)
    assert (first["budget"], first["bound"], last["budget_used"]) == ({}, None, {})
    assert "budget" not in run("stats", etk).stdout


def test_options_of_another_type_are_no_budget(etk: Path, tmp_path: Path) -> None:
    strange = {"kbps": "many", "max_bytes": True, "max_tokens": -1, "bound": 3, "worst": True}
    file = promised(etk, tmp_path / "strange.etk", **(VIDEO | {"options": strange}))
    first, *_, last = json_lines(run("stats", file, "--json").stdout)
    assert (first["budget"], first["bound"], first["worst"], last["budget_used"]) == ({}, None, None, {})
    assert first["options"] == strange
    assert "  budget" not in run("stats", file).stdout


def test_a_budget_of_nothing_and_of_a_pipe(etk: Path, tmp_path: Path) -> None:
    options = {"kbps": 300, "max_tokens": 0}
    file = promised(etk, tmp_path / "b.etk", errors=0.001, target_mse=0.007, promise="video", options=options)
    process = start("stats", "-", "--json", stdin=-1, stdout=-1, stderr=-1)
    out, _ = process.communicate(file.read_bytes(), timeout=60)
    last = json_lines(out.decode())[-1]
    assert last["budget_used"] == {"kbps": None, "max_tokens": last["tokens"]}
    assert last["promise_kept"] is True
    process = start("stats", "-", stdin=-1, stdout=-1, stderr=-1)
    out, _ = process.communicate(file.read_bytes(), timeout=60)
    assert f"  budget   300 kbps; 0 tokens: {last['tokens']} tokens\n" in out.decode()


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

"""`compare`, frame for frame: pictures, words, cursor and curve of what it draws, sound and times of what it writes."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_samples import SIZE, flip, json_lines, make_film, packets, pictures, promised, run

from elastictok_cli.analysis import units
from elastictok_cli.drawing import board, layout, panel, style
from formats import EtkReader, EtkWriter

KINDS = ("still", "moving", "cut")
LENGTH = 12
PLAIN = ("--no-ssim", "--width", 640)
CUT = 7
_STORED = 2.5e-3  # relative precision of a stored error: a half float, rounded to 9 significant bits


@dataclass
class Case:
    clip: Path
    etk: Path
    source: list[tuple[Fraction, np.ndarray]]
    decoded: list[np.ndarray]
    rows: list[dict[str, Any]]  # of stats


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    return {kind: make_case(kind, tmp_path_factory.mktemp(kind)) for kind in KINDS}


@pytest.fixture(params=KINDS)
def case(request: pytest.FixtureRequest, cases: dict[str, Case]) -> Case:
    return cases[request.param]


@pytest.fixture
def cut(cases: dict[str, Case]) -> Case:
    return cases["cut"]


def make_case(kind: str, folder: Path) -> Case:
    clip = make_film(
        folder / f"{kind}.mp4", LENGTH, moves=kind == "moving", cut=CUT if kind == "cut" else None
    )
    etk = folder / f"{kind}.etk"
    assert run("encode", clip, etk, "--mse", 0.004).exit_code == 0
    assert run("decode", etk, folder / "back.mkv", "--lossless").exit_code == 0
    rows = [line for line in json_lines(run("stats", etk, "--json").stdout) if line["type"] == "frame"]
    return Case(clip, etk, pictures(clip), [rgb for _, rgb in pictures(folder / "back.mkv")], rows)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What passes through the drawing layer."""
    found: dict[str, Any] = {"moments": [], "headings": [], "layouts": [], "panels": []}
    start_board, draw, start_panel = board.Board.__init__, board.Board.draw, panel.ChartPanel.__init__

    def watch_start(self: board.Board, where: layout.Layout, headings: Any, *rest: Any, **named: Any) -> None:
        found["layouts"].append(where)
        found["headings"].append(headings)
        start_board(self, where, headings, *rest, **named)

    def watch_draw(self: board.Board, moment: board.Moment) -> np.ndarray:
        found["moments"].append(moment)
        return draw(self, moment)

    def watch_panel(self: panel.ChartPanel, *arguments: Any, **named: Any) -> None:
        start_panel(self, *arguments, **named)
        found["panels"].append(self)

    monkeypatch.setattr(board.Board, "__init__", watch_start)
    monkeypatch.setattr(board.Board, "draw", watch_draw)
    monkeypatch.setattr(panel.ChartPanel, "__init__", watch_panel)
    return found


def frames_of(folder: Path) -> Iterator[np.ndarray]:
    for path in sorted(folder.iterdir()):
        yield pictures(path)[0][1]


def test_video_has_the_frames_times_and_sound_of_the_source(case: Case, tmp_path: Path) -> None:
    target = tmp_path / "side.mp4"
    result = run("compare", case.clip, case.etk, "-o", target, *PLAIN)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == ""
    assert f"{LENGTH} frames" in result.stderr
    assert [time for time, _ in pictures(target)] == [time for time, _ in case.source]
    assert packets(target) == packets(case.clip)
    assert [path.name for path in tmp_path.iterdir()] == ["side.mp4"]


def test_every_frame_shows_what_it_should(case: Case, tmp_path: Path, seen: dict[str, Any]) -> None:
    folder = tmp_path / "frames"
    result = run("compare", case.clip, case.etk, "-o", f"{folder}/", "--diff", "--gain", 6, *PLAIN)
    assert result.exit_code == 0, result.stderr
    (where,), (chart,) = seen["layouts"], seen["panels"]
    drawn = list(frames_of(folder))
    assert len(drawn) == len(seen["moments"]) == LENGTH
    factor = where.pictures[0].width // SIZE[0]
    empty, full = chart.at(-1.0), chart.at(1e9)
    for number, (shown, moment, row) in enumerate(zip(drawn, seen["moments"], case.rows, strict=True)):
        time, original = case.source[number]
        # pictures
        left, right, difference = (shown[rect.slices] for rect in (*where.pictures, *where.differences))
        decoded = case.decoded[number]
        assert np.array_equal(left, original.repeat(factor, 0).repeat(factor, 1))
        assert np.array_equal(right, decoded.repeat(factor, 0).repeat(factor, 1))
        gained = np.clip(6.0 * (decoded.astype(int) - original) + 128, 0, 255)
        assert np.array_equal(difference[::factor, ::factor], gained)
        # words, from the numbers of stats
        assert moment.lines[0] == f"0:{float(time):05.2f} · frame {number}"
        tokens = f"{row['block_tokens']} token{'s' if row['block_tokens'] != 1 else ''} ({row['share']:.1%})"
        assert moment.lines[1] == f"{tokens} · mse {row['mse']:.2g} · {row['psnr']:.1f} dB"
        # the chart: the curve behind, the cursor, the step of this frame, and then nothing but the empty one
        assert moment.time == pytest.approx(row["time"])
        assert moment.end == pytest.approx(row["time"] + row["duration"])
        x, ahead = int(chart.x_of(row["time"])), round(chart.x_of(moment.end))
        part = shown[where.chart.slices]
        dot = where.font
        if number + 1 < LENGTH:
            assert np.array_equal(part[:, max(x + dot, ahead) :], empty[:, max(x + dot, ahead) :])
        step = round(chart.y_of_tokens(row["block_tokens"]) - 0.5)
        seen_there = np.abs(part[step, x + dot : ahead - 2].astype(int) - style.rgb(style.track_color(0)))
        assert ahead - 2 > x + dot
        assert (seen_there.max(-1) < 60).all()
        if x > dot:
            assert np.array_equal(part[:, : x - dot], full[:, : x - dot])
        low, high = (round(chart.y_of_tokens(value)) for value in chart.chart.usage.get_ylim())
        dark = (part[high:low].astype(int).sum(-1) < 200).mean(0)
        assert dark[x] > 0.5
        y = round(chart.y_of_tokens(row["block_tokens"]) - 0.5)
        if high + 6 < y < low - 6:
            assert np.abs(part[y, x].astype(int) - style.rgb(style.track_color(0))).max() < 60
    (headings,) = seen["headings"]
    assert [heading.title for heading in headings] == ["original", "mse ≤ 0.004", "difference × 6"]  # noqa: RUF001
    spent = sum(
        r["block_tokens"]
        for r, before in zip(case.rows, [None, *case.rows], strict=False)
        if before is None or r["block"] != before["block"]
    )
    assert f"{spent:,} token" in headings[1].facts
    assert headings[0].facts.endswith(case.clip.name)


def test_usage_spikes_at_the_cut_and_falls_everywhere_from_the_same_numbers(
    cut: Case, tmp_path: Path, seen: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = [row["block_tokens"] for row in cut.rows]
    assert cut.rows[CUT]["scene_cut"]
    assert tokens[CUT] > 4 * max(tokens[CUT - 1], tokens[CUT + 4], 1)
    steps = [
        (row["time"], row["block_tokens"])
        for row, last in zip(cut.rows, [None, *cut.rows], strict=False)
        if last is None or last["block"] != row["block"]
    ]
    # compare
    result = run("compare", cut.clip, cut.etk, "-o", tmp_path / "side.mp4", "--json", *PLAIN)
    shown = [line["files"][0] for line in json_lines(result.stdout) if line["type"] == "frame"]
    assert [file["block_tokens"] for file in shown] == tokens
    (chart,) = seen["panels"]
    track = chart._tracks[0]
    assert [(point.time, point.value) for point in track.usage.points] == steps
    assert [point.time for point in track.usage.points if point.cut] == [cut.rows[CUT]["time"]]
    # stats --plot
    plotted = []
    monkeypatch.setattr("elastictok_cli.commands.plot.draw", lambda track, *_: plotted.append(track))
    assert run("stats", cut.etk, "--plot", tmp_path / "plot.png").exit_code == 0
    assert plotted[0].usage.points == track.usage.points
    assert plotted[0].error.points == track.error.points
    # report
    page = tmp_path / "page.html"
    assert run("report", cut.etk, page, "--pictures", 0).exit_code == 0
    found = re.search(r'id="data">(.*?)</script>', page.read_text(encoding="utf-8"))
    assert found is not None
    data = json.loads(found[1])
    assert list(zip(data["blocks"]["start"], data["blocks"]["tokens"], strict=True)) == [
        (pytest.approx(time, abs=1e-4), count) for time, count in steps
    ]
    at_cut = data["blocks"]["frame"].index(CUT)
    assert data["blocks"]["flags"][at_cut] & 2
    assert data["frames"]["worst"] == pytest.approx([row["mse"] for row in cut.rows], rel=2e-3)
    # stats, as rows for people
    rows = [line.split() for line in run("stats", cut.etk, "--all").stdout.splitlines()]
    table = [row for row in rows if len(row) > 5 and row[0].isdigit() and row[4].endswith("%")]
    lengths = [sum(other["block"] == row["block"] for other in cut.rows) for row in cut.rows]
    assert [float(row[3]) for row in table] == pytest.approx(
        [count / length for count, length in zip(tokens, lengths, strict=True)], abs=0.06
    )
    assert [number for number, row in enumerate(table) if "cut" in row] == [CUT]
    # stats, in letters, at several widths
    for width in (24, 40, 100):
        text = run("stats", cut.etk, env={"COLUMNS": str(width)}).stdout.splitlines()
        top = next(line for line in text if "┤" in line)
        marks = next(line for line in text if set(line.strip()) == {"^"})
        assert int(top.split("┤")[0]) == max(tokens)
        column = marks.index("^")
        rows = [line.ljust(column + 1) for line in text if "┤" in line]
        filled = sum(row[column] != " " for row in rows)
        assert filled >= len(rows) * tokens[CUT] / max(tokens) - 0.5
        ends = [len(row.rstrip()) for row in rows]
        # lower after the cut, or nothing at all beyond its own bar
        assert ends.count(max(ends)) < filled or max(ends) <= column + 6


def test_two_thresholds_side_by_side(cut: Case, tmp_path: Path, seen: dict[str, Any]) -> None:
    fine = tmp_path / "fine.etk"
    assert run("encode", cut.clip, fine, "--mse", 0.001).exit_code == 0
    target = tmp_path / "both.mkv"
    result = run("compare", cut.clip, fine, cut.etk, "-o", target, "--heat", "--diff", "--json")
    assert result.exit_code == 0, result.stderr
    (where,), (headings,), (chart,) = seen["layouts"], seen["headings"], seen["panels"]
    assert [h.title for h in headings[:3]] == ["original", "mse ≤ 0.001", "mse ≤ 0.004"]
    assert (len(where.pictures), len(where.differences)) == (3, 2)
    assert where.legend is not None
    summary = json_lines(result.stdout)[-1]
    better, worse = summary["files"]
    assert better["psnr"] > worse["psnr"] + 3
    assert better["tokens"] > worse["tokens"]
    assert better["ssim"] > worse["ssim"]
    assert better["ms_ssim"] is None  # the pictures are too small for it
    for file, heading in zip(summary["files"], headings[1:], strict=False):
        assert f"{file['tokens']:,} tokens" in heading.facts
        assert f"{file['psnr']:.1f} dB" in heading.facts
        assert units.size(file["bytes"]) in heading.facts
    assert chart.chart.usage.get_ylim()[1] > max(p.value for t in chart._tracks for p in t.usage.points)
    assert len({heading.color for heading in headings[1:3]}) == 2
    # the keep map over the picture
    with EtkReader(fine) as reader:
        keep = next(reader.blocks()).keep
    moment = seen["moments"][0]
    tinted = np.ptp(moment.shown[0].astype(int), axis=-1)  # grey is flat
    for row in range(keep.shape[0]):
        for column in range(keep.shape[1]):
            cell = tinted[row * 16 : row * 16 + 16, column * 16 : column * 16 + 16]
            assert (cell.mean() > 5) == (keep[row, column] > 0)


def test_promises_and_budgets_side_by_side(cut: Case, tmp_path: Path, seen: dict[str, Any]) -> None:
    """In titles, in the title of the chart, in the words for people and as JSON; of the whole file, not of the part."""
    video = {"target_mse": 0.004, "promise": "video", "options": {"worst": 4.0}}
    options = {"kbps": 300, "bound": "budget"}
    files = [
        cut.etk,
        promised(cut.etk, tmp_path / "mean.etk", **video),
        promised(cut.etk, tmp_path / "missed.etk", **(video | {"target_mse": 0.002}), missed={0}),
        promised(cut.etk, tmp_path / "budget.etk", **(video | {"options": options})),
    ]
    result = run("compare", cut.clip, *files, "-o", tmp_path / "a.mp4", "--json", "--start", 0.3, *PLAIN)
    assert result.exit_code == 0, result.stderr
    (headings,), (chart,) = seen["headings"], seen["panels"]
    titles = ["mse ≤ 0.004", "mean mse ≤ 0.004", "mean mse ≤ 0.002", "budget 300 kbps"]
    assert [heading.title for heading in headings[1:]] == titles
    right = chart.chart.error.get_title("right")
    assert right == "- - targets 0.004, mean of a block; 0.002, 0.004, mean of the video"
    summary = json_lines(result.stdout)[-1]
    keys = ("promise", "promise_kept", "worst", "budget", "bound")
    assert [[file[key] for key in keys] for file in summary["files"]] == [
        ["block", True, None, {}, None],
        ["video", True, 4.0, {}, None],
        ["video", False, 4.0, {}, None],
        ["video", True, None, {"kbps": 300}, "budget"],
    ]
    said = [line for line in result.stderr.splitlines() if ".etk (" in line]
    assert ["not kept" in line for line in said] == [False, False, True, False]
    assert all("target kept" in line or "target not kept" in line for line in said)


def test_a_part_of_the_source_is_compared_with_its_part(
    cut: Case, tmp_path: Path, seen: dict[str, Any]
) -> None:
    part = tmp_path / "part.etk"
    start, last = float(cut.source[3][0]), LENGTH - 1
    assert run("encode", cut.clip, part, "--tokens", 3, "--start", start).exit_code == 0
    target = tmp_path / "part.mp4"
    result = run("compare", cut.clip, part, "-o", target, *PLAIN)
    assert result.exit_code == 0, result.stderr
    assert len(pictures(target)) == LENGTH - 3
    assert np.array_equal(seen["moments"][0].original, cut.source[3][1])
    assert np.array_equal(seen["moments"][-1].original, cut.source[last][1])
    assert packets(target)[0][0] <= Fraction(1024, 48000)
    # and a part of that part, by the clock of the file
    seen["moments"].clear()
    again = tmp_path / "again.mp4"
    result = run("compare", cut.clip, part, "-o", again, *PLAIN, "--start", 0.16, "--duration", 0.12)
    assert result.exit_code == 0, result.stderr
    assert [np.array_equal(m.original, cut.source[3 + 4 + n][1]) for n, m in enumerate(seen["moments"])] == [
        True
    ] * 3
    assert [m.time for m in seen["moments"]] == pytest.approx([0.16, 0.20, 0.24])
    assert [time for time, _ in pictures(again)] == [Fraction(n, 25) for n in range(3)]


def test_the_sound_of_the_source_is_taken_where_the_file_has_none(cut: Case, tmp_path: Path) -> None:
    silent, target = tmp_path / "silent.etk", tmp_path / "side.mp4"
    assert run("encode", cut.clip, silent, "--tokens", 2, "--no-audio").exit_code == 0
    assert run("compare", cut.clip, silent, "-o", target, *PLAIN).exit_code == 0
    assert packets(target) == packets(cut.clip)
    assert run("compare", cut.clip, silent, "-o", target, "-y", *PLAIN, "--start", 0.2).exit_code == 0
    hashes = [name for _, name in packets(cut.clip)]
    kept = packets(target)
    assert [name for _, name in kept] == hashes[-len(kept) :]
    assert kept[0][0] <= 0
    assert run("compare", cut.clip, cut.etk, "-o", target, "-y", *PLAIN, "--no-audio").exit_code == 0
    with pytest.raises(IndexError):
        packets(target)


def test_a_still_has_no_chart(cut: Case, tmp_path: Path, seen: dict[str, Any]) -> None:
    still, etk, target = tmp_path / "still.png", tmp_path / "still.etk", tmp_path / "side.png"
    assert run("decode", cut.etk, still, "--duration", 0.01).exit_code == 0
    assert run("encode", still, etk, "--tokens", 4).exit_code == 0
    result = run("compare", still, etk, "-o", target, "--heat")
    assert result.exit_code == 0, result.stderr
    (where,) = seen["layouts"]
    assert where.chart is None
    assert pictures(target)[0][1].shape == (where.height, where.width, 3)
    assert seen["headings"][0][1].title == "4 tokens a cell"


def test_one_picture_of_a_video_has_the_chart_of_all_of_it(
    cut: Case, tmp_path: Path, seen: dict[str, Any]
) -> None:
    target = tmp_path / "at.png"
    result = run("compare", cut.clip, cut.etk, "-o", target, "--start", 0.4, *PLAIN)
    assert result.exit_code == 0, result.stderr
    (moment,), (chart,) = seen["moments"], seen["panels"]
    assert moment.time == pytest.approx(0.4)
    assert np.array_equal(moment.original, cut.source[10][1])
    assert chart._tracks[0].begin == 0.0
    assert "1 frame" in result.stderr


def test_errors_that_a_file_does_not_know_are_measured(
    cut: Case, tmp_path: Path, seen: dict[str, Any]
) -> None:
    unknown = tmp_path / "unknown.etk"
    with EtkReader(cut.etk) as reader, unknown.open("wb") as stream:
        writer = EtkWriter(stream, replace(reader.header, aux=None))
        for segment in reader.segments():
            nan = float("nan")
            writer.write_segment([replace(b, frame_mse=(nan,) * len(b.pts)) for b in segment.blocks])
        writer.close()
    assert run("compare", cut.clip, unknown, "-o", tmp_path / "side.mp4", *PLAIN).exit_code == 0
    errors = [point.value for point in seen["panels"][0]._tracks[0].error.points]
    assert errors == pytest.approx([row["mse"] for row in cut.rows], rel=_STORED)
    assert "dB" in seen["headings"][0][1].facts
    assert all("dB" in moment.lines[1] for moment in seen["moments"])


def test_a_lost_segment_is_a_grey_panel_and_exit_code_4(
    cut: Case, tmp_path: Path, seen: dict[str, Any]
) -> None:
    many = tmp_path / "many.etk"
    assert run("encode", cut.clip, many, "--tokens", 2, "--keyframe-interval", 0.16).exit_code == 0
    with EtkReader(many) as reader:
        assert reader.index is not None
        lost = reader.index[1]
        damaged = flip(many, tmp_path / "damaged.etk", lost.offset + 20)
    result = run("compare", cut.clip, damaged, "-o", tmp_path / "side.mp4", "--json", *PLAIN)
    assert result.exit_code == 4
    lines = json_lines(result.stdout)
    assert lines[-1]["frames"] == LENGTH
    assert lines[-1]["files"][0]["lost"] == lost.frames == sum(m.shown[0] is None for m in seen["moments"])
    assert lines[-1]["damaged"] is True
    assert "lost" in result.stderr


def test_another_source_is_refused_or_doubted(cut: Case, tmp_path: Path) -> None:
    target = tmp_path / "side.mp4"
    longer = make_film(tmp_path / "short.mp4", LENGTH - 4, moves=True)
    result = run("compare", longer, cut.etk, "-o", target)
    assert result.exit_code == 3
    assert "it was not made from this source" in result.stderr
    big = make_film(tmp_path / "big.mp4", 2, size=(128, 80))
    result = run("compare", big, cut.etk, "-o", target)
    assert result.exit_code == 3
    assert "64x48" in result.stderr
    assert not target.exists()
    other = make_film(tmp_path / "other.mp4", LENGTH, seed=9)
    result = run("compare", other, cut.etk, "-o", target, *PLAIN)
    assert result.exit_code == 0
    assert "is that its source?" in result.stderr


def test_bad_use_says_what_is_wrong(cut: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("compare", cut.clip, cut.etk).exit_code == 2
    assert run("compare", cut.clip, "-o", tmp_path / "a.mp4").exit_code == 2
    assert run("compare", "-", cut.etk, "-o", tmp_path / "a.mp4").exit_code == 2
    assert run("compare", cut.clip, cut.etk, "-o", "-").exit_code == 2
    assert run("compare", cut.clip, cut.etk, "-o", cut.clip, "-y").exit_code == 2
    assert run("compare", cut.clip, tmp_path / "none.etk", "-o", tmp_path / "a.mp4").exit_code == 3
    assert run("compare", cut.clip, cut.clip, "-o", tmp_path / "a.mp4").exit_code == 3
    for name in ("a.doc", "a", "a.etk", "a.webp"):
        result = run("compare", cut.clip, cut.etk, "-o", tmp_path / name)
        assert result.exit_code == 2, name
        assert "its suffix names no kind of output" in result.stderr
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    result = run("compare", cut.clip, cut.etk, "-o", tmp_path / "a.mp4")
    assert result.exit_code == 2
    assert "pip install matplotlib pillow pytorch-msssim" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_stats_measures_against_a_source(cut: Case, tmp_path: Path) -> None:
    result = run("stats", cut.etk, "--source", cut.clip, "--json")
    assert result.exit_code == 0, result.stderr
    *rows, summary = json_lines(result.stdout)[1:]
    assert len(rows) == LENGTH
    for row, plain, (_, original), decoded in zip(rows, cut.rows, cut.source, cut.decoded, strict=True):
        assert {key: row[key] for key in ("tokens", "bytes", "mse")} == {
            key: plain[key] for key in ("tokens", "bytes", "mse")
        }
        error = np.mean((original.astype(np.float64) - decoded) ** 2) / 127.5**2
        assert row["measured_mse"] == pytest.approx(error)
        assert row["measured_mse"] == pytest.approx(row["mse"], rel=_STORED)
        assert 0 < row["ssim"] < 1
    assert summary["ssim"] == pytest.approx(np.mean([row["ssim"] for row in rows]))
    assert summary["measured_mse"] == pytest.approx(np.mean([row["measured_mse"] for row in rows]))
    assert cut.rows[0]["measured_mse"] is None
    text = run("stats", cut.etk, "--source", cut.clip).stdout
    assert f"SSIM {summary['ssim']:.4f} on average against the source" in text
    assert "measured   ssim ms-ssim" in text
    assert run("stats", cut.etk, "--source", tmp_path / "none.mp4").exit_code == 3

"""What benchmarks/quality.py measures, keeps and prints."""

import importlib.util
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from elastictok_cli.codec import events
from elastictok_cli.evaluation import anchors, clips, measurements, tokens
from elastictok_cli.evaluation.anchors import Anchor, Point
from elastictok_cli.evaluation.markdown import table
from elastictok_cli.evaluation.measurements import Run
from elastictok_cli.evaluation.quality_tables import speed_table, tables
from elastictok_cli.evaluation.tokens import Measured, measure
from elastictok_cli.models import checkpoint
from elastictok_cli.video import Frame

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "flower.mp4"
CPU = torch.device("cpu")
README = "before\n<!-- quality: begin -->\nold\n<!-- quality: end -->\nafter\n"


@pytest.fixture(scope="module")
def loaded() -> checkpoint.Loaded:
    return checkpoint.load(None, CPU)


def _measured(clip: str, target: float, mse: float, count: int, missed: int = 0, frames: int = 8) -> Measured:
    return Measured(clip, target, mse, frames, 256, 256, 3, missed, 4 * count, 2 * count, 1.25, 1 / 3)


def _curve(*points: tuple[int, float]) -> Anchor:
    return Anchor(8, 256, 256, {"x264": tuple(Point(51, b, mse) for b, mse in points)})


def _run() -> Run:
    return Run(
        model="ab" * 32,
        effort=5,
        device="1 CPU threads",
        peak_memory_mb=611.1875,
        val=(
            _measured("near", 0.007, 0.00691, 400),
            _measured("far", 0.007, 0.0069, 100),
            _measured("near", 0.003, 0.00401, 800, missed=2),
            _measured("far", 0.003, 0.0029, 200),
        ),
        hard=(_measured("text", 0.007, 0.02, 5000, missed=3), _measured("page", 0.007, 0.006, 4000)),
        baseline=(_measured("near", 0.007, 0.0069, 800), _measured("far", 0.007, 0.0069, 800, missed=1)),
    )


VAL = {"near": _curve((1600, 0.001), (200, 0.05)), "far": _curve((1600, 0.0001), (200, 0.001))}
HARD = {"text": _curve((9000, 0.001), (5000, 0.02)), "page": _curve((9000, 0.0001), (5000, 0.001))}


def _rows(text: str) -> list[list[str]]:
    return [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]


def test_the_error_is_that_of_the_decoded_pixels(
    loaded: checkpoint.Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = clips.load(EXAMPLE, side=64, frames=3)

    def off_by_51_and_102(*_: object) -> Iterator[Frame]:
        for n, frame in enumerate(clip.frames):
            up = frame.rgb.astype(int) + 51 * (0, 1, 2)[n]
            yield replace(frame, rgb=np.where(up > 255, up - 2 * 51 * (0, 1, 2)[n], up).astype(np.uint8))

    real = measure(loaded, clip, 0.01, CPU, effort=0)
    assert 0 < real.mse <= 0.01
    monkeypatch.setattr(tokens, "decode", off_by_51_and_102)
    found = measure(loaded, clip, 0.01, CPU, effort=0)
    assert found.mse == pytest.approx((0 + (51 / 127.5) ** 2 + (102 / 127.5) ** 2) / 3)
    assert (found.tokens, found.bytes, found.frames) == (real.tokens, real.bytes, 3)
    assert (found.height, found.width) == (64, 64)


def test_the_promise_decides_how_a_clip_is_encoded(loaded: checkpoint.Loaded) -> None:
    """Two scenes: grey, which costs nothing, and a flower. Blocks stay under the target, or only their mean does."""
    flower = clips.load(EXAMPLE, side=64, frames=8)
    step = flower.frames[1].pts - flower.frames[0].pts
    grey = [
        replace(frame, rgb=np.full_like(frame.rgb, 128), pts=frame.pts + 8 * step) for frame in flower.frames
    ]
    both = replace(
        flower, frames=[*flower.frames, *grey], info=replace(flower.info, frame_count=16, duration=None)
    )
    target = 0.02
    block, video = (measure(loaded, both, target, CPU, effort=0, promise=p) for p in ("block", "video"))
    assert (block.promise, video.promise) == ("block", "video")
    assert (block.missed, video.missed) == (0, 0)
    assert block.worst_mse is not None
    assert video.worst_mse is not None
    assert block.mse < block.worst_mse <= target
    assert video.mse <= target < video.worst_mse <= 4 * target
    assert video.tokens < block.tokens


def test_the_worst_block_is_found_in_the_decoded_pixels(
    loaded: checkpoint.Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of five still frames the fourth is shown wrong; each block is one still or up to four frames."""
    clip = clips.load(EXAMPLE, side=64, frames=5)
    lengths: list[int] = []

    def shown(*_: object) -> Iterator[Frame]:
        for n, frame in enumerate(clip.frames):
            yield (
                replace(frame, rgb=np.where(frame.rgb > 127, frame.rgb - 51, frame.rgb + 51))
                if n == 3
                else frame
            )

    def encode(*arguments: object, **more: object) -> Iterator[events.Event]:
        for event in real(*arguments, **more):
            if isinstance(event, events.BlockDone):
                lengths.append(event.frames)
            yield event

    real = tokens.encode
    monkeypatch.setattr(tokens, "encode", encode)
    monkeypatch.setattr(tokens, "decode", shown)
    found = measure(loaded, clip, 0.01, CPU, effort=0)
    ends = np.cumsum(lengths)
    wrong = lengths[int(np.searchsorted(ends, 3, side="right"))]
    assert sum(lengths) == 5
    assert found.mse == pytest.approx((51 / 127.5) ** 2 / 5)
    assert found.worst_mse == pytest.approx((51 / 127.5) ** 2 / wrong)


@pytest.mark.parametrize("change", ["a frame less", "another time"])
def test_other_frames_out_than_in_are_an_error(
    loaded: checkpoint.Loaded, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    clip = clips.load(EXAMPLE, side=64, frames=2)
    first, last = clip.frames
    decoded = [first] if change == "a frame less" else [first, replace(last, pts=last.pts + 1)]
    monkeypatch.setattr(tokens, "decode", lambda *_: iter(decoded))
    with pytest.raises(ValueError, match="2 frames in"):
        measure(loaded, clip, 0.01, CPU, effort=0)


def test_a_block_is_256_by_256_by_4_pixels() -> None:
    small = replace(
        _measured("a", 0.007, 0.007, 100), height=128, width=128
    )  # 400 tokens, 200 bytes, 8 frames
    assert (small.tokens_per_block, small.bytes_per_block) == (800, 400)
    whole = replace(small, height=512, width=512, frames=4)
    assert (whole.tokens_per_block, whole.bytes_per_block) == (100, 50)


def test_whole_clips_are_neither_cropped_nor_cut() -> None:
    whole, cut = clips.load(EXAMPLE, side=None, frames=None), clips.load(EXAMPLE, side=64, frames=5)
    assert len(whole.frames) > 5 == len(cut.frames) == cut.info.frame_count
    height, width = whole.frames[0].rgb.shape[:2]
    assert (whole.info.height, whole.info.width) == (height, width)
    assert cut.frames[0].rgb.shape == (64, 64, 3)
    top, left = (height - 64) // 2, (width - 64) // 2
    np.testing.assert_array_equal(cut.frames[4].rgb, whole.frames[4].rgb[top : top + 64, left : left + 64])


def test_measurements_come_back_to_the_last_digit(tmp_path: Path) -> None:
    run = _run()
    measurements.save(run, tmp_path / "run.json")
    again = measurements.load(tmp_path / "run.json")
    assert again == run
    assert again.val[0].decode_seconds == 1 / 3
    assert tables(again, VAL, HARD) == tables(run, VAL, HARD)


def test_measurements_from_before_promises_are_of_blocks(tmp_path: Path) -> None:
    entry = measurements.asdict(_run())
    entry["version"] = 1
    for m in (*entry["val"], *entry["hard"], *entry["baseline"]):
        del m["promise"], m["worst_mse"]
    (tmp_path / "run.json").write_text(json.dumps(entry))
    found = measurements.load(tmp_path / "run.json")
    assert found == _run()
    assert {m.promise for m in found.val} == {"block"}
    assert "video" not in tables(found, VAL, HARD)


def _broken(change: str) -> dict[str, object]:
    entry = json.loads(json.dumps(measurements.asdict(_run())))
    match change:
        case "version":
            entry["version"] = 3
        case "key less":
            del entry["val"][1]["mse"]
        case "key more":
            entry["hard"][0]["psnr"] = 30.0
        case "text":
            entry["val"][0]["bytes"] = "many"
        case "fraction":
            entry["val"][0]["missed"] = 0.5
        case "promise":
            entry["val"][0]["promise"] = "scene"
        case "list":
            del entry["baseline"]
    return entry


@pytest.mark.parametrize("change", ["version", "key less", "key more", "text", "fraction", "promise", "list"])
def test_measurements_that_are_none_are_refused(tmp_path: Path, change: str) -> None:
    (tmp_path / "run.json").write_text(json.dumps(_broken(change)))
    with pytest.raises(ValueError, match="holds no measurements"):
        measurements.load(tmp_path / "run.json")


def test_blocks_that_miss_stay_visible_in_every_table() -> None:
    run = replace(_run(), baseline=())
    rows = _rows(tables(run, VAL, HARD))
    # at 0.003 two of "near" and none of "far"
    assert ["0.003", "0.00345", "800", "400", "2 of 6"] in rows
    assert ["0.007", "0.00690", "400", "200", "0 of 6"] in rows
    assert ["text", "3 of 3"] in [[row[1], row[5]] for row in rows if len(row) == 7]
    assert ["geometric mean", "3 of 6"] in [[row[1], row[5]] for row in rows if len(row) == 7]
    only = replace(run, val=tuple(m for m in run.val if m.target == 0.003), hard=())
    assert ["near", "0.00401", "1600", "800", "2 of 3"] in [row[:5] for row in _rows(tables(only, VAL, HARD))]
    assert "1 of 6 blocks missed" in tables(_run(), VAL, HARD)


def test_no_ratio_where_the_other_encoder_was_not_run() -> None:
    rows = _rows(tables(_run(), VAL, HARD))
    (against,) = [row for row in rows if row[0] == "x264"]
    assert against[1] == "block"
    assert against[3:5] == ["1", "1"]  # compared, not comparable
    assert against[5] == against[6] == f"{against[2]} (near)"
    assert ["far", "- (no common range)"] in rows
    by_clip = {row[0]: row[5] for row in rows if len(row) == 6 and row[1].startswith("0.006")}
    assert by_clip["far"] == "-"
    assert float(by_clip["near"]) > 0
    hard = {row[1]: row[6] for row in rows if len(row) == 7}
    assert hard["page"] == "-"
    assert hard["text"] == "2.00"  # 10000 bytes, theirs 5000 at that very MSE
    assert hard["geometric mean"] == "2.00 (1 of 2)"


def _video(m: Measured, factor: float, error: float, worst: float, missed: int = 0) -> Measured:
    """`m` with the promise `video`: factor of tokens and bytes, mean and worst error in targets."""
    return replace(
        m,
        promise="video",
        tokens=round(m.tokens * factor),
        bytes=round(m.bytes * factor),
        mse=m.target * error,
        worst_mse=m.target * worst,
        missed=missed,
    )


def _both() -> Run:
    """ "near" at 0.003 breaks both parts of its promise."""
    run = _run()
    near, far, near_fine, far_fine = run.val
    video = (
        _video(near, 0.5, 0.999, 2.5),
        _video(far, 0.98, 0.99, 1.5),
        _video(near_fine, 0.9, 1.0004, 4.25, missed=1),
        _video(far_fine, 0.9, 0.99, 1.0),
    )
    return replace(run, val=(*run.val, *video), hard=(*run.hard, _video(run.hard[0], 0.5, 1, 2)))


def test_the_video_promise_stands_beside_that_of_blocks() -> None:
    text = tables(_both(), VAL, HARD)
    rows = _rows(text)
    # 0.5 and 0.98 times as many: a geometric mean of 0.70
    assert ["0.007", "0.994", "0 of 2", "2.50", "0 of 6", "280", "0.70", "140", "0.70"] in rows
    assert ["0.003", "0.995", "1 of 2", "4.25", "1 of 6", "720", "0.90", "360", "0.90"] in rows
    assert ["0.007", "0.00690", "400", "200", "0 of 6"] in rows  # those of blocks are as they were
    assert ["near", "0.00699", "2.50", "0 of 3", "400", "0.50", "200", "0.50"] in [row[:8] for row in rows]
    assert [row[3:6] for row in rows if row[:2] == ["0.007", "text"]] == [
        ["10000", "5000", "3 of 3"],
        ["5000", "2500", "0 of 3"],
    ]


def test_bd_rates_of_both_promises_stand_side_by_side() -> None:
    rows = _rows(tables(_both(), VAL, HARD))
    block, video = ([row for row in rows if row[:2] == ["x264", p]] for p in ("block", "video"))
    alone = [row for row in _rows(tables(_run(), VAL, HARD)) if row[:2] == ["x264", "block"]]
    assert block == alone
    assert 0.4 < float(video[0][2]) / float(block[0][2]) < 0.9
    (ours,) = [row for row in rows if row[0] == "ours, `block`"]
    assert ours[1] == "video"
    assert 0.5 < float(ours[2]) < 1
    each = [row[1] for row in rows if row[0] == "near" and len(row) == 2]
    assert len(each) == 2
    assert each[0] != each[1]


def test_one_promise_alone_has_tables_too() -> None:
    video = replace(_both(), val=tuple(m for m in _both().val if m.promise == "video"), baseline=())
    rows = _rows(tables(video, VAL, HARD))
    assert ["0.007", "0.994", "0 of 2", "2.50", "0 of 6", "280", "-", "140", "-"] in rows
    assert not [row for row in rows if row[0] == "ours, `block`"]


def test_speeds_of_both_promises_are_told_apart() -> None:
    rows = _rows(speed_table(_both()))
    assert [row[:2] for row in rows[2:]] == [
        ["0.007", "block"],
        ["0.003", "block"],
        ["0.007", "video"],
        ["0.003", "video"],
    ]


def test_a_table_has_no_ragged_rows() -> None:
    with pytest.raises(ValueError, match="cells"):
        table(["a", "b"], [["1"]])


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    """benchmarks/quality.py as a module."""
    spec = importlib.util.spec_from_file_location("quality_benchmark", ROOT / "benchmarks" / "quality.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _call(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["quality.py", *map(str, arguments)])
    benchmark.main()


def test_readme_gets_the_tables_of_kept_measurements(
    tmp_path: Path, benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept, curves, hard, readme = (
        tmp_path / name for name in ("run.json", "val.json", "hard.json", "README.md")
    )
    measurements.save(_run(), kept)
    anchors.save(VAL, curves)
    anchors.save(HARD, hard)
    readme.write_text(README)
    sources = ["--from-json", kept, "--anchors", curves, "--hard-anchors", hard]
    _call(benchmark, monkeypatch, *sources, "--readme", readme)
    text = tables(_run(), VAL, HARD)
    assert readme.read_text() == README.replace("old", text)
    assert capsys.readouterr().out.startswith(text)


def test_measuring_again_is_what_the_kept_file_says(
    tmp_path: Path, benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One short clip through the whole script, as `--data` and as `--hard`."""
    clip = clips.load(EXAMPLE, side=64, frames=2)
    asked: list[dict[str, object]] = []

    def load(path: Path, **how: object) -> clips.Clip:
        asked.append(how)
        return replace(clip, name=path.stem)

    monkeypatch.setattr(clips, "load", load)
    (tmp_path / "text.mp4").touch()
    hard = tmp_path / "hard.json"
    anchors.save(HARD, hard)
    kept = tmp_path / "run.json"
    folders = ["--data", tmp_path, "--hard", tmp_path, "--hard-anchors", hard]
    _call(
        benchmark,
        monkeypatch,
        *folders,
        "--targets",
        0.05,
        0.02,
        "--hard-targets",
        0.05,
        "--effort",
        0,
        "--json",
        kept,
    )
    run = measurements.load(kept)
    assert [(m.clip, m.target, m.promise) for m in run.val] == [
        ("text", 0.05, "block"),
        ("text", 0.02, "block"),
        ("text", 0.05, "video"),
        ("text", 0.02, "video"),
    ]
    assert [(m.clip, m.target, m.promise) for m in run.hard] == [("text", 0.05, "block")]
    assert asked == [{}, {"side": None, "frames": 8}]  # as many frames as the curve is of
    assert run.effort == 0
    assert run.val[0].mse > run.val[1].mse > 0
    _call(
        benchmark,
        monkeypatch,
        *folders,
        "--targets",
        0.05,
        "--promise",
        "video",
        "--effort",
        0,
        "--json",
        kept,
    )
    run = measurements.load(kept)
    assert [m.promise for m in (*run.val, *run.hard)] == ["video", "video"]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--data", "x", "--from-json", "y"],
        ["--hard", "x", "--baseline", "y"],
        ["--data", "x", "--baseline", "y", "--promise", "video"],
        ["--data", "x", "--promise", "scene"],
    ],
)
def test_what_to_measure_must_be_said(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        _call(benchmark, monkeypatch, *arguments)

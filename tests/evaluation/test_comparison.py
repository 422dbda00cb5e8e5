import math
from dataclasses import replace
from pathlib import Path

import pytest

from elastictok_cli.evaluation import anchors
from elastictok_cli.evaluation.anchors import Anchor, Point
from elastictok_cli.evaluation.bd_rate import bd_rate
from elastictok_cli.evaluation.comparison import (
    Compared,
    NotComparable,
    compare,
    ratio_at_our_error,
    summarize,
)
from elastictok_cli.evaluation.quality import psnr
from elastictok_cli.evaluation.tokens import Measured

BUNDLED = Path(__file__).parents[2] / "benchmarks" / "anchors"


def _mse(decibels: float) -> float:
    return 4 / 10 ** (decibels / 10)


def _points(*points: tuple[float, int], clip: str = "a", missed: int = 0) -> list[Measured]:
    """Ours: PSNR reached and bytes. Targets are far from what was reached, and must not matter."""
    return [Measured(clip, 0.5, _mse(p), 8, 256, 256, 2, missed, 10, count, 1.0, 1.0) for p, count in points]


def _anchor(*points: tuple[float, int], encoder: str = "x") -> Anchor:
    curve = tuple(Point(51 - n, count, _mse(p)) for n, (p, count) in enumerate(points))
    return Anchor(8, 256, 256, {encoder: curve})


def test_twice_the_bytes_are_a_ratio_of_two_over_the_common_range() -> None:
    found = compare(_points((28, 2000), (34, 8000)), _anchor((26, 630), (28, 1000), (34, 4000)), "x")
    assert isinstance(found, Compared)
    # nearly: their third point bends the curve between 28 and 34 dB a little
    assert found.ratio == pytest.approx(2, rel=0.01)
    assert (found.low, found.high) == pytest.approx((28, 34))


def test_the_error_that_was_reached_counts_and_not_the_target() -> None:
    ours, theirs = [(28.0, 2000), (34.0, 8000)], [(26.0, 700), (30.0, 1000), (36.0, 5000)]
    found = compare(_points(*ours), _anchor(*theirs), "x")
    assert isinstance(found, Compared)
    percent = bd_rate([2000, 8000], [28, 34], [700, 1000, 5000], [26, 30, 36])
    assert found.ratio == pytest.approx(1 + percent / 100)


def test_an_encoder_that_was_never_so_bad_is_not_compared() -> None:
    ours = _points((24, 500), (27, 1000), (31, 2000))
    far = compare(ours, _anchor((32, 3000), (40, 9000)), "x")
    assert far == NotComparable("a", "no common range")
    near = compare(ours, _anchor((30.1, 3000), (40, 9000)), "x")
    assert near == NotComparable("a", "0.9 dB in common")
    enough = compare(ours, _anchor((29.9, 3000), (40, 9000)), "x")
    assert isinstance(enough, Compared)
    assert enough.low == pytest.approx(29.9)


def test_blocks_that_missed_do_not_take_a_point_away() -> None:
    points = [(28, 2000), (34, 8000)]
    anchor = _anchor((28, 1000), (34, 4000))
    assert compare(_points(*points, missed=2), anchor, "x") == compare(_points(*points), anchor, "x")


def test_targets_that_give_the_same_file_are_one_point() -> None:
    anchor = _anchor((28, 1000), (34, 4000))
    twice = compare(_points((28, 2000), (34, 8000), (34, 8000)), anchor, "x")
    assert twice == compare(_points((28, 2000), (34, 8000)), anchor, "x")


@pytest.mark.parametrize(
    ("points", "words"),
    [([(28, 2000)], "at least 2 points"), ([(28, 2000), (34, 1000)], "its rate falls")],
)
def test_what_is_no_curve_of_ours_is_not_compared(points: list[tuple[float, int]], words: str) -> None:
    found = compare(_points(*points), _anchor((20, 1000), (40, 4000)), "x")
    assert isinstance(found, NotComparable)
    assert words in found.reason


def test_a_curve_of_other_frames_is_not_compared_with() -> None:
    ours, anchor = _points((28, 2000), (34, 8000)), _anchor((20, 1000), (40, 9000))
    assert ratio_at_our_error(ours[0], anchor, "x") is not None
    for other in (replace(anchor, frames=48), replace(anchor, height=128), replace(anchor, width=128)):
        found = compare(ours, other, "x")
        assert isinstance(found, NotComparable)
        assert "the curve is of" in found.reason
        assert ratio_at_our_error(ours[0], other, "x") is None


def test_without_a_curve_nothing_is_compared() -> None:
    ours = _points((28, 2000), (34, 8000))
    assert compare(ours, None, "x") == NotComparable("a", "no curve")
    assert compare(ours, _anchor((28, 1000), (34, 4000)), "y") == NotComparable("a", "no curve")


def test_a_ratio_at_our_error_is_refused_outside_the_curve() -> None:
    anchor = _anchor((28, 1000), (30, 4000))
    (inside, at_end, below, above) = _points((29, 4000), (28, 3000), (27.9, 500), (30.1, 5000))
    assert ratio_at_our_error(inside, anchor, "x") == pytest.approx(
        2
    )  # 2000 lies halfway between 1000 and 4000
    assert ratio_at_our_error(replace(at_end, mse=anchor.curves["x"][0].mse), anchor, "x") == pytest.approx(3)
    assert ratio_at_our_error(below, anchor, "x") is None
    assert ratio_at_our_error(above, anchor, "x") is None
    assert ratio_at_our_error(replace(inside, mse=0.0), anchor, "x") is None


def test_the_mean_is_over_the_clips_that_can_be_compared_and_says_how_many_cannot() -> None:
    clips = [
        _points((28, 2000), (34, 8000), clip="a"),
        _points((28, 500), (34, 2000), clip="b"),
        _points((20, 500), (24, 2000), clip="far"),
        _points((20, 500), (24, 2000), clip="unknown"),
    ]
    anchor = _anchor((28, 1000), (34, 4000))
    found = summarize(clips, {"a": anchor, "b": anchor, "far": anchor}, "x")
    assert [(c.clip, round(c.ratio, 6)) for c in found.compared] == [("b", 0.5), ("a", 2)]
    assert [(c.clip, c.reason) for c in found.not_comparable] == [
        ("far", "no common range"),
        ("unknown", "no curve"),
    ]
    assert found.ratio == pytest.approx(1)  # the arithmetic mean is 1.25
    assert [c.clip for c in found.clips] == ["a", "b", "far", "unknown"]
    assert summarize(clips[2:], {}, "x").ratio is None


@pytest.mark.parametrize("name", ["val", "hard"])
def test_bundled_curves_are_curves(name: str) -> None:
    found = anchors.load(BUNDLED / f"{name}.json")
    assert anchors.encoders(found) == ["x264-medium", "x265-medium", "svtav1-p6"]
    for anchor in found.values():
        for curve in anchor.curves.values():
            rates, psnrs = [p.bytes for p in curve], [psnr(p.mse) for p in curve]
            assert bd_rate(rates, psnrs, rates, psnrs) == 0  # it would refuse what is not monotone
            assert [p.crf for p in curve] == sorted(p.crf for p in curve)
            assert psnrs == sorted(psnrs, reverse=True)


def test_curves_come_back_as_they_were_written(tmp_path: Path) -> None:
    curves = {"x": (Point(14, 300, 1 / 3), Point(51, 100, 0.7)), "y": (Point(20, 1, 0.1),)}
    found = {"a clip": Anchor(8, 256, 128, curves), 'b"': Anchor(1, 2, 3, {})}
    anchors.save(found, tmp_path / "curves.json")
    assert anchors.load(tmp_path / "curves.json") == found


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        '{"a": []}',
        '{"a": {"frames": 8, "height": 1, "width": 1}}',
        '{"a": {"frames": 8, "height": 1, "width": 1, "curves": {"x": [[14, 100]]}}}',
        '{"a": {"frames": 8, "height": 1, "width": 1, "curves": {"x": [[14, 0, 0.1]]}}}',
        '{"a": {"frames": 8, "height": 1, "width": 1, "curves": {"x": [[14, 100, 0]]}}}',
        '{"a": {"frames": 8, "height": 1, "width": 1, "curves": {"x": [[14, 100, NaN]]}}}',
        "{",
    ],
)
def test_what_are_no_curves_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "curves.json").write_text(text)
    with pytest.raises(ValueError, match=r"."):
        anchors.load(tmp_path / "curves.json")


def test_a_small_error_is_a_high_psnr() -> None:
    assert psnr(_mse(30)) == pytest.approx(30)
    assert math.isinf(psnr(0))

"""Tokens against the mean error of whole clips, and what benchmarks/adaptive.py --promises makes of them."""

import importlib.util
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from elastictok_cli.evaluation import clips
from elastictok_cli.evaluation.tokens import Measured
from elastictok_cli.evaluation.whole_clips import Whole, measure_fixed, pooled, times_the_tokens, tokens_at
from elastictok_cli.models import checkpoint

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "flower.mp4"
CPU = torch.device("cpu")


def _measured(clip: str, tokens: int, mse: float, worst: float, frames: int = 4, side: int = 256) -> Measured:
    return Measured(clip, 0.01, mse, frames, side, side, 1, 0, tokens, 9, 1.0, 1.0, "video", worst)


def test_clips_are_pooled_as_one_video() -> None:
    # the first has three times the frames of the second, the third a quarter of its pixels
    found = pooled(
        [
            _measured("a", 300, 0.01, 0.02, frames=12),
            _measured("b", 900, 0.002, 0.005),
            _measured("c", 50, 0.04, 0.05, side=128),
        ]
    )
    assert found.tokens == pytest.approx((300 + 900 + 50) / 4.25)
    assert found.mse == pytest.approx((3 * 0.01 + 0.002 + 0.25 * 0.04) / 4.25)
    assert found.worst == 0.05
    with pytest.raises(ValueError, match="no clips"):
        pooled([])


def test_curves_are_read_between_their_points_on_logarithmic_axes() -> None:
    curve = [Whole(400, 0.001, 0), Whole(100, 0.004, 0), Whole(10, 0.02, 0), Whole(0, 0.3, 0)]
    assert tokens_at(curve, 0.002) == pytest.approx(200)
    assert tokens_at(curve, 0.02) == pytest.approx(10)
    assert tokens_at(curve, 0.0009) is None
    assert tokens_at(curve, 0.1) is None  # no tokens have no logarithm
    assert tokens_at([], 0.1) is None
    assert times_the_tokens(curve, Whole(50, 0.002, 0)) == pytest.approx(4)
    assert times_the_tokens(curve, Whole(50, 0.5, 0)) is None
    assert times_the_tokens(curve, Whole(50, 0, 0)) is None


def test_fixed_lengths_promise_nothing() -> None:
    loaded = checkpoint.load(None, CPU)
    clip = clips.load(EXAMPLE, side=32, frames=2)
    few, many = (measure_fixed(loaded, clip, k, CPU) for k in (1, 8))
    assert few.tokens < many.tokens
    assert few.mse > many.mse
    assert math.isinf(few.target)
    assert few.missed == 0


@pytest.fixture(scope="module")
def benchmark() -> Iterator[ModuleType]:
    """benchmarks/adaptive.py as a module; where its dataclass looks for it too."""
    spec = importlib.util.spec_from_file_location("adaptive_benchmark", ROOT / "benchmarks" / "adaptive.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_both_promises_are_coded_and_drawn(
    tmp_path: Path,
    benchmark: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Two short clips through the whole script."""
    clip = clips.load(EXAMPLE, side=48, frames=3)
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / f"{name}.mp4").touch()
    monkeypatch.setattr(clips, "load", lambda path, **_: clips.Clip(path.stem, clip.info, clip.frames))
    plot, kept = tmp_path / "plot.png", tmp_path / "kept.json"
    arguments = ["--data", folder, "--promises", "--targets", 0.03, 0.01, "--lengths", 1, 4, 16]
    monkeypatch.setattr(
        sys, "argv", ["adaptive.py", *map(str, arguments), "--plot", str(plot), "--json", str(kept)]
    )
    benchmark.main()
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if "0.0" in line]
    assert [row[:2] for row in rows] == [
        ["0.03", "block"],
        ["0.03", "video"],
        ["0.01", "block"],
        ["0.01", "video"],
    ]
    assert all(float(row[2]) <= float(row[0]) for row in rows)
    assert all(row[5] == "-" for row in rows if row[1] == "video")  # what video needs where video is
    assert plot.stat().st_size > 1000
    entry = json.loads(kept.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    ways = {way: [(m["clip"], m["promise"], m["target"]) for m in of] for way, of in entry["clips"].items()}
    assert ways == {
        "video": [(name, "video", target) for name in ("a", "b") for target in (0.03, 0.01)],
        "block": [(name, "block", target) for name in ("a", "b") for target in (0.03, 0.01)],
        "fixed": [(name, "block", None) for name in ("a", "b") for _ in range(3)],
    }


@pytest.mark.parametrize("more", [["--photos", "x"], []])
def test_promises_are_of_videos(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, more: list[str]
) -> None:
    data = ["--data", "y"] if more else ["--photos", "x"]
    monkeypatch.setattr(sys, "argv", ["adaptive.py", "--promises", *data, *more])
    with pytest.raises(SystemExit, match="2"):
        benchmark.main()

"""What benchmarks/promise.py calls a broken promise."""

import importlib.util
import json
import sys
from argparse import Namespace
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
SOURCE = Path("source.mp4")


@pytest.fixture(scope="module")
def benchmark() -> Iterator[ModuleType]:
    """benchmarks/promise.py as a module; where its dataclass looks for it too."""
    spec = importlib.util.spec_from_file_location("promise_benchmark", ROOT / "benchmarks" / "promise.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def _check(
    benchmark: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    off: list[int],
    *,
    kept: bool,
    promise: str = "video",
    missed: bool = False,
) -> tuple[list[str], str]:
    """What is broken, and the options of the encode. Blocks of two frames, `off` grey levels wrong; target 0.01."""
    grey = np.full((2, 2, 3), 100, np.uint8)
    blocks = [
        {"type": "block", "index": n, "first_frame": 2 * n, "frames": 2, "missed": missed and n == 0}
        for n in range(len(off) // 2)
    ]
    first = {**blocks[0], "frames": 1}
    lines = [
        {"type": "started"},
        first,
        {"type": "restarted"},
        *blocks,
        {"type": "summary", "kept": kept},
    ]
    asked: list[str] = []

    def run(*arguments: str) -> str:
        asked.append(" ".join(arguments))
        return "\n".join(json.dumps(line) for line in lines)

    def frames(path: Path) -> Iterator[tuple[Fraction, np.ndarray]]:
        for n, levels in enumerate(off):
            yield Fraction(n), grey if path == SOURCE else grey + np.uint8(levels)

    monkeypatch.setattr(benchmark, "run", run)
    monkeypatch.setattr(benchmark, "frames", frames)
    options = Namespace(promise=promise, worst=4.0, duration=None)
    return benchmark.check(SOURCE, 0.01, options).broken, asked[0]


# 12 levels are an MSE of 0.0089, 16 one of 0.0157, 26 one of 0.0416
def test_a_mean_under_the_target_keeps_the_promise_of_a_video(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, asked = _check(benchmark, monkeypatch, [16, 16, 0, 0], kept=True)
    assert broken == []
    assert "--promise video --worst 4.0" in asked


def test_the_same_video_breaks_the_promise_of_blocks(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, asked = _check(benchmark, monkeypatch, [16, 16, 0, 0], kept=True, promise="block")
    assert [text.split()[:2] for text in broken] == [["block", "0"], ["the", "program"]]
    assert "--promise" not in asked


def test_a_mean_above_the_target_must_be_confessed(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    (lie,), _ = _check(benchmark, monkeypatch, [16, 16, 12, 12], kept=True)
    assert "promise is kept" in lie
    assert _check(benchmark, monkeypatch, [16, 16, 12, 12], kept=False)[0] == []


def test_a_block_above_the_worst_must_be_confessed(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    off = [26, 26, *[0] * 8]  # the mean is 0.0083
    broken, _ = _check(benchmark, monkeypatch, off, kept=True)
    assert [text.split()[:2] for text in broken] == [["block", "0"], ["the", "program"]]
    assert _check(benchmark, monkeypatch, off, kept=False, missed=True)[0] == []


def test_a_kept_promise_is_not_called_broken(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    (wrong,), _ = _check(benchmark, monkeypatch, [0, 0, 0, 0], kept=False)
    assert "promise is broken" in wrong

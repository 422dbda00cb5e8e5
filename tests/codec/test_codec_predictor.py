"""The predictor: its statistics, its file, and that it learns what can be learnt."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from elastictok_cli.models.checkpoint import CheckpointError
from elastictok_cli.models.interface import TokenizerSpec, Trial
from elastictok_cli.models.paper import length_predictor as predictor
from elastictok_cli.models.paper.length_predictor import FEATURES, Predictor, PredictorConfig, features
from elastictok_cli.training import data
from elastictok_cli.training import length_predictor as training


def picture(seed: int, contrast: float, count: int = 4, side: int = 32) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    grey = 128 + contrast * rng.normal(size=(count, side, side, 3))
    return torch.from_numpy(grey.clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("shape", [(1, 32, 32, 3), (4, 1, 1, 3), (3, 7, 2, 3)])
def test_any_cell_has_finite_statistics(shape: tuple[int, ...]) -> None:
    for last in (None, 0, 99):
        x = features(torch.zeros(shape, dtype=torch.uint8), 0.003, last, 2048)
        assert x.shape == (FEATURES,)
        assert torch.isfinite(x).all()


def test_guesses_stay_within_the_lengths() -> None:
    model = Predictor(PredictorConfig("m", 128, 2048))
    for bias, wanted in ((-50.0, 128), (50.0, 2048)):
        torch.nn.init.zeros_(model.layers[-1].weight)
        torch.nn.init.constant_(model.layers[-1].bias, bias)
        assert model.guess(picture(0, 9), 0.003, None) == wanted


def test_round_trip(tmp_path: Path) -> None:
    model = Predictor(PredictorConfig("m", 4, 32))
    predictor.save(model, tmp_path / "p.safetensors", {"a": 1})
    again = predictor.load(tmp_path / "p.safetensors")
    assert again.config == model.config
    assert again.guess(picture(1, 30), 0.1, 7) == model.guess(picture(1, 30), 0.1, 7)


def test_broken_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    path.write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="not a safetensors"):
        predictor.load(path)
    small = Predictor(PredictorConfig("m", 4, 32, hidden=8))
    object.__setattr__(small.config, "hidden", 9)
    predictor.save(small, path, {})
    with pytest.raises(CheckpointError, match="does not fit"):
        predictor.load(path)


@pytest.mark.parametrize(
    ("target", "wanted"), [(1.0, 4), (0.5, 4), (0.25, 8), (0.125, 16), (0.1767767, 12), (0.01, 32)]
)
def test_crossing(target: float, wanted: int) -> None:
    assert training.crossing([4, 8, 16, 32], [0.5, 0.25, 0.125, 0.0625], target) == wanted


class Model:
    """Needs tokens in proportion to the spread of the picture: error = variance / tokens."""

    spec = TokenizerSpec("made-up", 4, (32, 32), 512, (), 0, False, shortest=2)
    batch = 1

    def start(self, height: int, width: int) -> tuple[()]:
        return ()

    def trials(
        self, frames: torch.Tensor, context: Any, wanted: Sequence[tuple[int, int]]
    ) -> Iterator[Trial]:
        for _, length in wanted:
            error = float(frames.var()) / length
            yield Trial(torch.zeros(1), frames[0] - torch.sign(frames[0]) * math.sqrt(error), None)

    def commit(self, context: Any, chosen: Sequence[Trial]) -> tuple[()]:
        return ()


def test_it_learns_what_the_statistics_say(monkeypatch: pytest.MonkeyPatch) -> None:
    def clips(*_: Any, **__: Any) -> Iterator[data.Clip]:
        for n in range(40):
            contrast = 10 * 6 ** np.random.default_rng(n).random()
            yield data.Clip(str(n), torch.cat([picture(n, contrast), picture(n + 99, contrast)]).numpy())

    monkeypatch.setattr(data, "find_media", lambda folders: [])
    monkeypatch.setattr(data, "load_clips", clips)
    options = training.PredictorOptions((), targets=(0.003, 0.001))
    *collected, fitted = training.train(Model(), options, torch.device("cpu"))
    assert [c.clips for c in collected] == list(range(1, 41))
    assert isinstance(fitted, training.Fitted)
    assert fitted.examples == 40 * 2 * 2
    assert 0 < fitted.held_out < 40
    assert fitted.factor < 1.2 < fitted.constant_factor
    calm, busy = (fitted.predictor.guess(picture(7, c), 0.003, None) for c in (12, 50))
    assert calm * 3 < busy

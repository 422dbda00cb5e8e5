"""The searches over lengths: against brute force, against the official logic, and through a made-up model."""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elastictok_cli.codec import bracketing as bracket
from elastictok_cli.codec.length_search import LengthSearch
from elastictok_cli.codec.pixels import Job
from elastictok_cli.models.interface import TokenizerSpec, Trial

GOLDEN = Path(__file__).parents[1] / "golden" / "official"


def drive(
    asking: bracket.Strategy, error: Callable[[int], float], target: float
) -> tuple[int | None, list[list[int]]]:
    """Run a search: the shortest length seen to pass, and what was tried in each step."""
    steps: list[list[int]] = []
    best = None
    try:
        asked = next(asking)
        while True:
            steps.append(asked)
            errors = [error(k) for k in asked]
            best = min([k for k, e in zip(asked, errors, strict=True) if e <= target], default=best)
            asked = asking.send(errors)
    except StopIteration:
        return best, steps


def curves(seed: int, low: int, high: int, kind: str) -> np.ndarray:
    """An error for each length (index: the length)."""
    rng = np.random.default_rng(seed)
    k = np.arange(high + 1) + rng.uniform(1, 200)
    error = rng.uniform(0.001, 0.05) * (k / k[low]) ** -rng.uniform(0.1, 2) + rng.choice([0, 0.001, 0.003])
    if kind == "steps":
        error = np.round(error, 4)
    elif kind == "flat":
        error[:] = rng.choice([0.0, 0.003, 0.1])
    elif kind == "cliff":
        error = np.where(np.arange(high + 1) < rng.integers(low, high + 2), 0.2, 1e-5)
    elif kind == "noisy":
        error = error * np.exp(rng.normal(0, rng.choice([1e-3, 0.1, 1]), high + 1))
    elif kind == "rising":
        error = error[::-1].copy()
    return error


MONOTONE = ("smooth", "steps", "flat", "cliff")
RANGES = ((128, 2048), (256, 4096), (4, 32), (0, 7), (5, 5))


@settings(max_examples=300, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from(MONOTONE),
    st.sampled_from(RANGES),
    st.integers(1, 9),
    st.floats(-0.2, 1.2),
)
def test_binary_is_exact_on_falling_errors(
    seed: int, kind: str, ends: tuple[int, int], batch: int, place: float
) -> None:
    """The brute-force answer, whatever the guess, in at most two steps more than bisection."""
    low, high = ends
    errors = curves(seed, low, high, kind)
    target = 0.003
    guess = None if place < 0 else round(low + place * (high - low))
    best, steps = drive(
        bracket.binary(low, high, target, guess=guess, batch=batch), lambda k: errors[k], target
    )
    assert best == next((k for k in range(low, high + 1) if errors[k] <= target), None)
    assert len(steps) <= math.ceil(math.log2(high - low + 2)) + 2
    tried = [k for step in steps for k in step]
    assert len(set(tried)) == len(tried)
    assert all(low <= k <= high for k in tried)
    assert max(map(len, steps)) <= batch


@settings(max_examples=300, deadline=None)
@given(
    st.integers(0, 10**6), st.sampled_from(("noisy", "rising")), st.sampled_from(RANGES), st.integers(1, 9)
)
def test_binary_on_errors_that_rise_and_fall(seed: int, kind: str, ends: tuple[int, int], batch: int) -> None:
    """Among all lengths its answer passes while the next shorter fails; it is the shortest pass that was tried."""
    low, high = ends
    errors = curves(seed, low, high, kind)
    best, steps = drive(bracket.binary(low, high, 0.003, batch=batch), lambda k: errors[k], 0.003)
    tried = [k for step in steps for k in step]
    assert best == min((k for k in tried if errors[k] <= 0.003), default=None)
    assert len(steps) <= math.ceil(math.log2(high - low + 2)) + 2
    if best is None:
        assert errors[high] > 0.003
        assert high in tried
    elif best > low:
        assert errors[best - 1] > 0.003


@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from((*MONOTONE, "noisy", "rising")),
    st.sampled_from(RANGES),
    st.integers(1, 9),
)
def test_linear_is_the_shortest_of_its_lengths(
    seed: int, kind: str, ends: tuple[int, int], batch: int
) -> None:
    low, high = ends
    errors = curves(seed, low, high, kind)
    best, steps = drive(bracket.linear(low, high, 0.003, batch=batch), lambda k: errors[k], 0.003)
    grid = sorted(
        set(np.exp(np.linspace(math.log(max(low, 1)), math.log(high), 100)).round().astype(int).tolist())
    )
    assert best == next((k for k in grid if errors[k] <= 0.003), None)
    assert [k for step in steps for k in step] == grid[: sum(map(len, steps))]


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from((*MONOTONE, "noisy")), st.sampled_from(RANGES), st.floats(0, 1))
def test_predicted_passes_whenever_all_tokens_do(
    seed: int, kind: str, ends: tuple[int, int], place: float
) -> None:
    low, high = ends
    errors = curves(seed, low, high, kind)
    guess = round(low + place * (high - low))
    best, steps = drive(bracket.predicted(low, high, 0.003, guess=guess), lambda k: errors[k], 0.003)
    if errors[high] <= 0.003:
        assert best is not None
    if kind in MONOTONE and best is None:
        assert errors[high] > 0.003
    assert len(steps) <= bracket.PREDICTED_PROBES + math.ceil(math.log2(high + 1)) + 2


def test_few_probes_are_enough() -> None:
    """What the saving over bisection (11 or 12 probes, and one to commit) rests on."""
    cold, warm, near = [], [], []
    for seed in range(200):
        errors = curves(seed, 128, 2048, "smooth")
        answer = next((k for k in range(128, 2049) if errors[k] <= 0.003), 2048)
        guess = min(max(128, round(answer * math.exp(np.random.default_rng(seed).normal(0, 0.1)))), 2048)
        cold.append(len(drive(bracket.binary(128, 2048, 0.003), lambda k, e=errors: e[k], 0.003)[1]))
        warm.append(
            len(drive(bracket.binary(128, 2048, 0.003, guess=guess), lambda k, e=errors: e[k], 0.003)[1])
        )
        near.append(
            len(drive(bracket.predicted(128, 2048, 0.003, guess=guess), lambda k, e=errors: e[k], 0.003)[1])
        )
    assert np.mean(cold) < 6
    assert np.mean(warm) < 5
    assert np.mean(near) < 3.5


def test_never_more_tokens_than_the_official_search() -> None:
    """search_logic.npz: the official binary search on loss = 1 / kept, at the published token counts."""
    with np.load(GOLDEN / "search_logic.npz") as file:
        names = str(file["columns"]).split(",")
        table, thresholds = file["table"], file["threshold"]
    worse = 0
    for row, threshold in zip(table, thresholds, strict=True):
        facts = dict(zip(names, row.tolist(), strict=True))
        low, high = facts["min_toks"], facts["max_toks"]
        best, steps = drive(bracket.binary(low, high, float(threshold)), lambda k: 1 / k, float(threshold))
        brute = next((k for k in range(low, high + 1) if 1 / k <= threshold), None)
        assert best == brute
        assert len(steps) <= facts["binary_probes"] + 3
        official = facts["binary_kept"]
        if best is not None and 1 / official <= threshold:
            assert best <= official
            worse += best < official
    assert worse > 0  # the official one keeps more than it needs in some of these


class Fake:
    """Cells of 16x16; k tokens leave a grey error of known size in each. Tokens are the length, over and over."""

    def __init__(self, errors: np.ndarray, batch: int = 1, vector: int = 0) -> None:
        self.errors = errors  # (cells, longest + 1) MSE
        self.batch = batch
        longest = errors.shape[1] - 1
        self.spec = TokenizerSpec("fake", 4, (16, 16), longest, (), 0, False, vector=vector, shortest=1)
        self.tried: list[tuple[int, int]] = []
        self.committed: list[Any] = []

    def start(self, height: int, width: int) -> tuple[int, ...]:
        return ()

    def trials(
        self, frames: torch.Tensor, context: Any, wanted: Sequence[tuple[int, int]]
    ) -> Iterator[Trial]:
        for cell, length in wanted:
            self.tried.append((cell, length))
            shown = torch.full((4, 3, 16, 16), float(self.shown(cell, length)))
            yield Trial(torch.full((self.spec.tokens_per_cell,), length), shown, (cell, length))

    def shown(self, cell: int, length: int) -> float:
        return math.sqrt(self.errors[cell, length])

    def truth(self, cell: int, length: int) -> float:
        """After rounding to 8 bits, on a source of 127 (-1 / 255 on the way to 127.5)."""
        return ((round((self.shown(cell, length) + 1) * 127.5) - 127) / 127.5) ** 2

    def commit(self, context: Any, chosen: Sequence[Trial]) -> tuple[Any, ...]:
        return tuple(trial.state for trial in chosen)

    def decode(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("the search has the pictures of its trials")


def job(rows: int, cols: int, height: int, width: int) -> Job:
    source = torch.full((4, height, width, 3), 127, dtype=torch.uint8)
    return Job(torch.zeros(1, 4, 3, rows * 16, cols * 16), source)


def falling(seed: int, cells: int, longest: int = 40) -> np.ndarray:
    rng = np.random.default_rng(seed)
    start = rng.uniform(0.005, 0.2, (cells, 1))
    return start * np.arange(1, longest + 2)[None] ** -rng.uniform(0.5, 2, (cells, 1))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**5), st.sampled_from(["binary", "linear", "predict"]), st.integers(1, 12))
def test_each_cell_gets_its_own_length(seed: int, method: str, batch: int) -> None:
    fake = Fake(falling(seed, 6), batch)
    coder = LengthSearch(fake, method=method, guess=lambda *_: 9)
    coded = coder.code(job(2, 3, 32, 40), (), target=0.007)
    keep = coded.keep[0].flatten().tolist()
    assert coded.context == tuple(enumerate(keep))  # the trials that were chosen, not the last ones
    assert coded.tokens.shape == (1, 40, 2, 3)
    assert coded.tokens[0, 0].flatten().tolist() == keep
    for cell, length in enumerate(keep):
        passing = [k for k in range(1, 41) if fake.truth(cell, k) <= 0.007]
        tried = [k for n, k in fake.tried if n == cell and fake.truth(cell, k) <= 0.007]
        if not passing:
            assert length == 40
            continue
        assert length == min(tried)
        if method == "binary":
            assert length == min(passing)
    assert coder.probes == len(fake.tried)
    assert coded.missed == (coded.mse > 0.007)
    shown = torch.tensor([fake.truth(n, k) for n, k in enumerate(keep)]).view(2, 3)
    # the last column of cells is half padding, which does not count
    weights = torch.tensor([16.0, 16.0, 8.0]) / 40 / 2
    assert coded.mse == pytest.approx(float((shown * weights).sum()), rel=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**5))
def test_one_length_for_all_cells(seed: int) -> None:
    fake = Fake(falling(seed, 4))
    coded = LengthSearch(fake, allocation="block").code(job(2, 2, 32, 32), (), target=0.007)
    lengths = set(coded.keep.flatten().tolist())
    assert len(lengths) == 1
    passing = [k for k in range(1, 41) if np.mean([fake.truth(n, k) for n in range(4)]) <= 0.007]
    assert lengths == {min(passing, default=40)}


def test_the_next_block_begins_where_the_last_one_ended() -> None:
    fake = Fake(falling(3, 1, 400))
    coder = LengthSearch(fake)
    first = coder.code(job(1, 1, 16, 16), (), target=0.001)
    before = len(fake.tried)
    again = coder.code(job(1, 1, 16, 16), (), target=0.001)
    assert torch.equal(first.keep, again.keep)
    assert len(fake.tried) - before <= 2 < before


def test_unreachable_targets_keep_everything_and_say_so() -> None:
    fake = Fake(np.full((2, 41), 0.1))
    for method in ("binary", "linear", "predict"):
        coded = LengthSearch(fake, method=method, guess=lambda *_: 3).code(
            job(1, 2, 16, 32), (), target=0.007
        )
        assert coded.missed
        assert coded.keep.flatten().tolist() == [40, 40]


def test_a_fixed_number_of_tokens_is_one_probe() -> None:
    fake = Fake(falling(0, 2))
    coded = LengthSearch(fake).code(job(1, 2, 16, 32), (), tokens=7)
    assert coded.keep.flatten().tolist() == [7, 7]
    assert not coded.missed
    assert fake.tried == [(0, 7), (1, 7)]


def test_predict_needs_a_guess() -> None:
    with pytest.raises(ValueError, match="guess"):
        LengthSearch(Fake(falling(0, 1)), method="predict")


def test_lengths_are_where_the_tokens_are() -> None:
    """On a device of their own: one without any memory will do."""

    class Elsewhere(Fake):
        def trials(self, *asked: Any) -> Iterator[Trial]:
            for trial in super().trials(*asked):
                yield trial._replace(tokens=trial.tokens.to("meta"))

    coded = LengthSearch(Elsewhere(falling(0, 2))).code(job(1, 2, 16, 32), (), target=0.007)
    assert coded.tokens.device == torch.device("meta")
    assert coded.keep.device == coded.tokens.device

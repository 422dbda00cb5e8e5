"""Rate control against a made-up tokenizer whose true errors are known for every keep map."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elastictok_cli.codec import probing, rate_control
from elastictok_cli.codec.error_model import ErrorModel
from elastictok_cli.codec.pixels import Job, frame_errors, to_pixels
from elastictok_cli.models.interface import Encoding, TokenizerSpec

LENGTH = 6


class Fake:
    """Cells of 16x16 whose k tokens leave a noise of known size; what `encode` predicts is off by `bias`."""

    spec = TokenizerSpec("fake", 4, (16, 16), LENGTH, (8,), 64, True)

    def __init__(self, amplitude: torch.Tensor, bias: float | torch.Tensor) -> None:
        self.amplitude, self.bias = amplitude, bias  # (LENGTH + 1, h, w) error of every pixel, [-1, 1] scale
        self.decodes = 0

    def start(self, height: int, width: int) -> None:
        return None

    def encode(
        self,
        frames: torch.Tensor,
        context: Any,
        *,
        count: int,
        target: float = 0.007,
        complete: bool = False,
        price: float | None = None,
    ) -> Encoding:
        rows, cols = self.amplitude.shape[1:]
        curve = self.amplitude.square()[None] * 4 * 3 * 256 * self.bias
        return Encoding(
            torch.zeros(1, LENGTH, rows, cols, dtype=torch.int64),
            torch.full((1, rows, cols), LENGTH),
            curve,
        )

    def decode(
        self, tokens: torch.Tensor, keep: torch.Tensor, context: Any, *, count: int, reuse: object = None
    ) -> tuple[torch.Tensor, Any]:
        self.decodes += 1
        error = self.amplitude.gather(0, keep).repeat_interleave(16, -2).repeat_interleave(16, -1)
        return error[:, None, None].expand(1, 4, 3, *error.shape[-2:]), None

    def truth(self, keep: torch.Tensor) -> float:
        """MSE after rounding to 8 bits."""
        return float(
            (self.amplitude.gather(0, keep[0, None][0][None])[0] * 127.5).round().div(127.5).square().mean()
        )


def meet(fake: Fake, job: Job, target: float, allocation: str = "cell") -> probing.Coded:
    return rate_control.meet_target(
        fake,
        rate_control.draft(fake, job, None, target, allocation=allocation),
        target,
        allocation=allocation,
    )


def grey(rows: int, cols: int, count: int = 4) -> Job:
    """A picture of value 0 (128 rounds to +0.004)."""
    source = torch.full((count, rows * 16, cols * 16, 3), 127, dtype=torch.uint8)
    return Job(torch.zeros(1, 4, 3, rows * 16, cols * 16), source)


def amplitudes(seed: int, monotone: bool) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    start = torch.rand(1, 2, 3, generator=g) * 0.4
    factors = torch.rand(LENGTH, 2, 3, generator=g) * 0.5 + (0.4 if monotone else 0.7)
    return torch.cat([start, start * factors.cumprod(0)])


@given(st.integers(0, 500), st.sampled_from([0.015, 0.007, 0.003]), st.floats(0.3, 3), st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_passing_result_is_returned_whenever_all_tokens_pass(
    seed: int, target: float, bias: float, monotone: bool
) -> None:
    fake = Fake(amplitudes(seed, monotone), bias)
    for allocation in ("cell", "block"):
        coded = meet(fake, grey(2, 3), target, allocation=allocation)
        full = rate_control.fixed_length(fake, grey(2, 3), None, LENGTH)
        assert coded.missed == (coded.mse > target)
        if full.mse <= target:
            assert not coded.missed


@given(st.integers(0, 500), st.sampled_from([0.015, 0.007, 0.003]))
@settings(max_examples=40, deadline=None)
def test_one_length_is_the_smallest_that_passes_on_monotone_errors(seed: int, target: float) -> None:
    fake = Fake(amplitudes(seed, True).cummin(0).values, 1)
    coded = meet(fake, grey(2, 3), target, allocation="block")
    passing = [
        k for k in range(LENGTH + 1) if rate_control.fixed_length(fake, grey(2, 3), None, k).mse <= target
    ]
    assert int(coded.keep.max()) == (min(passing) if passing else LENGTH)


def test_wrong_predictions_are_corrected() -> None:
    """Predictions four times too high would waste tokens, were they not checked by decoding."""
    amplitude = 0.3 * 0.7 ** torch.arange(LENGTH + 1).view(-1, 1, 1).expand(-1, 4, 4)
    right = meet(Fake(amplitude, 1), grey(4, 4), 0.007)
    wrong = meet(Fake(amplitude, 4), grey(4, 4), 0.007)
    assert not right.missed
    assert not wrong.missed
    assert int(wrong.keep.sum()) <= 1.15 * int(right.keep.sum())


def test_few_decodes_are_enough() -> None:
    fake = Fake(amplitudes(1, True), 1.3)
    meet(fake, grey(2, 3), 0.007)
    assert fake.decodes <= rate_control.EFFORTS[rate_control.DEFAULT_EFFORT].probes + 2


def test_unreachable_targets_keep_everything_and_say_so() -> None:
    fake = Fake(torch.full((LENGTH + 1, 2, 2), 0.5), 1)
    coded = meet(fake, grey(2, 2), 0.007)
    assert coded.missed
    assert int(coded.keep.sum()) == 4 * LENGTH
    assert (
        fake.decodes <= rate_control.EFFORTS[rate_control.DEFAULT_EFFORT].probes + 2
    )  # once all tokens have missed, nothing more is tried


def test_errors_are_measured_on_rounded_pixels() -> None:
    source = torch.zeros(2, 1, 1, 3, dtype=torch.uint8)
    shown = torch.tensor([[[[3, 0, 0]]], [[[0, 0, 6]]]], dtype=torch.uint8)
    wanted = torch.tensor([9 / 3, 36 / 3], dtype=torch.float64) / 127.5**2
    torch.testing.assert_close(frame_errors(source, shown), wanted)


@pytest.mark.parametrize("value", [-1.2, -1.0, 0.0, 0.999, 1.3])
def test_pixels_are_clamped_and_rounded(value: float) -> None:
    pixels = to_pixels(torch.full((1, 4, 3, 16, 16), value), 5, 7, 3)
    assert pixels.shape == (3, 5, 7, 3)
    assert int(pixels.max()) == min(255, max(0, round((value + 1) * 127.5)))


@given(st.integers(0, 500), st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_a_draft_of_honest_curves_foresees_the_tokens(seed: int, count: int) -> None:
    fake = Fake(amplitudes(seed, monotone=True), 1.0)
    draft = rate_control.draft(fake, grey(2, 3, count), None, 0.007)
    coded = rate_control.meet_target(fake, draft, 0.007)
    assert fake.decodes >= 1  # that of the search; the draft needed none
    assert draft.reaches != coded.missed
    assert abs(draft.tokens - int(coded.keep.sum())) <= 3  # rounding to 8 bits, and the last cell's choice
    assert draft.per_frame == draft.tokens / count


def test_a_probe_that_fails_by_a_hair_does_not_end_the_search() -> None:
    """The longer a cell, the more error its curve wrongly promises: after a pass far below comes a near miss."""
    found = []
    for seed in range(12):
        g = torch.Generator().manual_seed(seed)
        start = 0.2 + 0.2 * torch.rand(1, 4, 4, generator=g)
        factors = 0.5 + 0.3 * torch.rand(LENGTH, 4, 4, generator=g)
        amplitude = torch.cat([start, start * factors.cumprod(0)])
        coded = meet(Fake(amplitude, torch.linspace(1, 4, LENGTH + 1).view(-1, 1, 1)), grey(4, 4), 0.007)
        honest = meet(Fake(amplitude, 1.0), grey(4, 4), 0.007)
        assert not coded.missed
        found.append(int(coded.keep.sum()) / int(honest.keep.sum()))
    assert max(found) < 1.2  # 1.45 when that ended it


class Filling(Fake):
    """Cells without a token err by little if a neighbour keeps one; by how much is promised wrongly."""

    def __init__(self, rows: int, cols: int, truth: float, promise: float) -> None:
        amplitude = torch.full((LENGTH + 1, rows, cols), 0.05)
        amplitude[0] = 0.5
        super().__init__(amplitude, 1.0)
        self.without, self.promise = truth, promise

    def encode(self, *args: Any, **options: Any) -> Encoding:
        plain = super().encode(*args, **options)

        def filled(told: torch.Tensor) -> torch.Tensor:
            return self.bare(told, self.promise).square() * 4 * 3 * 256

        return Encoding(plain.tokens, plain.length, plain.curve, filled)

    def decode(
        self, tokens: torch.Tensor, keep: torch.Tensor, context: Any, *, count: int, reuse: object = None
    ) -> tuple[torch.Tensor, Any]:
        self.decodes += 1
        error = torch.where(keep > 0, 0.05, self.bare(keep > 0, self.without))
        wide = error.repeat_interleave(16, -2).repeat_interleave(16, -1)
        return wide[:, None, None].expand(1, 4, 3, *wide.shape[-2:]), None

    def bare(self, told: torch.Tensor, error: float) -> torch.Tensor:
        near = torch.nn.functional.max_pool2d(told.float(), 3, 1, 1) > 0
        return torch.where(near, error, 0.5)


@pytest.mark.parametrize("promise", [0.03, 0.06, 0.08])
def test_cells_that_can_be_filled_in_keep_no_token(promise: float) -> None:
    fake = Filling(8, 8, 0.06, promise)
    coded = meet(fake, grey(8, 8), 0.007)
    assert not coded.missed
    assert int(coded.keep.sum()) < 0.4 * 64
    assert fake.decodes <= rate_control.EFFORTS[rate_control.DEFAULT_EFFORT].probes + 2


def test_cells_that_only_seem_to_be_filled_in_well_get_their_token() -> None:
    coded = meet(Filling(6, 6, 0.3, 0.03), grey(6, 6), 0.007)
    assert not coded.missed
    assert int((coded.keep > 0).sum()) > 0.85 * 36


def test_a_first_probe_is_not_far_dearer_than_what_was_promised() -> None:
    """What the last block was like may be wrong for this one: then all cells of a plain page ask for a token."""
    fake = Fake(0.3 * 0.7 ** torch.arange(LENGTH + 1).view(-1, 1, 1).expand(-1, 4, 4), 1)
    draft = rate_control.draft(fake, grey(4, 4), None, 0.04)
    probes = []
    decode = fake.decode

    def noting(
        tokens: torch.Tensor, keep: torch.Tensor, context: Any, *, count: int, reuse: object = None
    ) -> tuple[torch.Tensor, Any]:
        probes.append(int(keep.sum()))
        return decode(tokens, keep, context, count=count)

    fake.decode = noting  # type: ignore[method-assign]
    coded = rate_control.meet_target(fake, draft, 0.04, bias=4.0)
    assert probes[0] == draft.tokens
    assert not coded.missed
    assert int(coded.keep.sum()) <= draft.tokens


@pytest.mark.parametrize("truth", [0.06, 0.1])
def test_what_filled_in_cells_err_by_is_learnt_either_way(truth: float) -> None:
    encoding = Filling(8, 8, truth, 0.08).encode(grey(8, 8).frames, None, count=4)
    model = ErrorModel(encoding, torch.ones(1, 8, 8))
    pixels = 4 * 3 * 256
    allowed = torch.tensor([0.007 * 64 * pixels])
    keep, _ = model.allocate(allowed)
    measured = torch.where(keep > 0, 0.05**2, truth**2) * pixels
    model.learn(keep, measured)
    again, _ = model.allocate(allowed if truth < 0.08 else 2 * allowed)
    total = torch.where(again > 0, 0.05**2, truth**2).sum() * pixels
    assert model.reaches(again, total)
    assert not model.reaches(again, 0.9 * total)


def test_weights_say_which_cells_err_less() -> None:
    fake = Fake(0.3 * 0.7 ** torch.arange(LENGTH + 1).view(-1, 1, 1).expand(-1, 4, 4), 1)
    weight = torch.ones(1, 4, 4)
    weight[:, :, :2] = 3.0
    draft = rate_control.draft(fake, grey(4, 4), None, 0.007, weight=weight)
    coded = rate_control.meet_target(fake, draft, 0.007)
    assert not coded.missed
    assert int(coded.keep[..., :2].min()) > int(coded.keep[..., 2:].max())

"""The DCT mode: complete, nested, and as exact as is wanted."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elastictok_cli.models.cell.screen import dct, symbols
from elastictok_cli.models.cell.token_layout import MAX_SCREEN_CODES

VALUES = dct.COEFFICIENTS


def patches(count: int, seed: int = 0) -> torch.Tensor:
    """Uniform noise in [-1, 1], (count, 4, 3, 16, 16)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 4, 3, 16, 16, generator=generator) * 2 - 1


def squared(difference: torch.Tensor) -> torch.Tensor:
    return difference.square().flatten(1).sum(1)


def test_the_transform_is_orthonormal_and_has_an_inverse() -> None:
    pixels = patches(3)
    coefficients = dct.transform(pixels)
    torch.testing.assert_close(coefficients.square().sum(1), squared(pixels))
    torch.testing.assert_close(dct.inverse(coefficients), pixels, atol=1e-5, rtol=0)


def test_each_scan_visits_every_coefficient_once() -> None:
    for scan in dct._scans(torch.device("cpu")):
        assert torch.equal(scan.sort().values, torch.arange(VALUES))


def test_the_mean_comes_first_and_still_cells_take_all_frames_together_first() -> None:
    moving, still = dct._scans(torch.device("cpu"))
    assert {*moving[:4].tolist()} == {*still[:4].tolist()} == {0, 1, 2, 3}  # of the four blocks of 8x8 pixels
    assert bool((still[: VALUES // 4] < VALUES // 4).all())
    assert not bool((moving[: VALUES // 4] < VALUES // 4).all())


@pytest.mark.parametrize("scale", [1.0, 0.1, 0.004])
def test_the_promised_error_is_the_error_at_every_length(scale: float) -> None:
    pixels = patches(3) * scale
    pixels[1] = pixels[1, :1]  # a still one
    streams = dct.encode(pixels, 0.003 * scale**2 * VALUES, MAX_SCREEN_CODES)
    for codes in {1, 2, 5, 17, *range(3, int(streams.length.min()), 41)}:
        kept = torch.full((3,), codes)
        shown = dct.decode(streams.codes, kept)
        torch.testing.assert_close(squared(shown - pixels), streams.error[:, codes - 1], rtol=1e-3, atol=1e-4)


def test_noise_comes_as_near_as_is_wanted_within_the_codes_of_a_cell() -> None:
    pixels = patches(4)
    streams = dct.encode(pixels, 0.0001 * VALUES, MAX_SCREEN_CODES)
    assert bool((streams.length < MAX_SCREEN_CODES).all())
    shown = dct.decode(streams.codes, streams.length)
    assert float((squared(shown - pixels) / VALUES).max()) <= 0.0001


def test_codes_of_a_longer_stream_begin_with_those_of_a_shorter_one() -> None:
    pixels = patches(3)
    short, long = (dct.encode(pixels, error * VALUES, MAX_SCREEN_CODES) for error in (0.01, 0.0005))
    for cell in range(3):
        same = int(short.length[cell]) - 1  # the last code of a stream is filled up
        assert torch.equal(short.codes[cell, :same], long.codes[cell, :same])


def test_no_more_codes_than_asked_for() -> None:
    streams = dct.encode(patches(2), 0.0, 20)
    assert streams.codes.shape == streams.error.shape == (2, 20)
    assert streams.length.tolist() == [20, 20]


def test_a_cell_without_error_and_no_cell_at_all() -> None:
    streams = dct.encode(torch.zeros(2, 4, 3, 16, 16), 0.1, 10)
    assert bool((dct.decode(streams.codes, streams.length) == 0).all())
    assert dct.encode(torch.zeros(0, 4, 3, 16, 16), 0.1, 10).codes.shape[0] == 0


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, symbols.CODES - 1), min_size=1, max_size=30), st.integers(1, 30))
def test_any_codes_can_be_decoded(codes: list[int], kept: int) -> None:
    shown = dct.decode(torch.tensor([codes]), torch.tensor([min(kept, len(codes))]))
    assert shown.shape == (1, 4, 3, 16, 16)
    assert bool(shown.isfinite().all())


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, symbols.SYMBOLS - 1), min_size=3, max_size=30))
def test_symbols_and_codes_are_one_to_one(stream: list[int]) -> None:
    whole = torch.tensor([stream[: len(stream) // 3 * 3]])
    codes = symbols.to_codes(whole)
    assert bool(((codes >= 0) & (codes < symbols.CODES)).all())
    assert torch.equal(symbols.from_codes(codes), whole)


def test_long_runs_are_written_as_skips() -> None:
    """Two cells; a run of 1377 + 153 + 2 takes three symbols, one of 0 takes one."""
    out = symbols.Writer(2, torch.device("cpu"))
    out.put_runs(
        torch.tensor([0, 1, 1]),
        torch.tensor([1532, 0, 17]),
        torch.tensor([1, 0, 1]),
        torch.tensor([4.0, 2.0, 1.0]),
        scale=2,
        skips=dct._SKIPS,
    )
    out.put(torch.tensor([0, 1]), torch.tensor([39, 39]))
    assert out.length.tolist() == [4, 4]
    assert out.symbols()[:, :4].tolist() == [[38, 36, 5, 39], [0, 34, 1, 39]]
    assert out.gains()[:, :4].tolist() == [[0, 0, 4, 0], [2, 0, 1, 0]]

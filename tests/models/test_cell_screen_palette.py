"""The palette mode: labels and colours come back, wherever a sequence is cut."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elastictok_cli.models.cell.screen import palette, palette_search, symbols


def painted(count: int, frames: int, colours: int, seed: int = 0) -> torch.Tensor:
    """Cells of few colours in strokes, (count, frames, 3, 16, 16) in [-1, 1]; the colours are levels of a palette."""
    generator = torch.Generator().manual_seed(seed)
    levels = torch.randint(0, 40, (count, colours, 3), generator=generator).float()
    levels[:, :, 0] = (torch.arange(colours) * 39 / max(1, colours - 1)).round()  # well apart
    label = (
        torch.randint(0, colours, (count, frames, 16, 1), generator=generator).expand(-1, -1, -1, 16).clone()
    )
    spots = torch.rand(label.shape, generator=generator) < 0.1
    label[spots] = torch.randint(0, colours, (int(spots.sum()),), generator=generator)
    rgb = palette.to_rgb(levels).gather(1, label.view(count, -1, 1).expand(-1, -1, 3))
    return rgb.view(count, frames, 16, 16, 3).permute(0, 1, 4, 2, 3).contiguous()


def shown(fitted: palette.Fit, reference: torch.Tensor, *, refined: bool = False) -> torch.Tensor:
    streams = palette.encode(fitted)
    codes, kept = streams.codes, streams.length
    if refined:
        size = fitted.colours.shape[1]
        codes = torch.cat([codes, torch.zeros_like(streams.finer)], 1)
        codes = codes.scatter(1, kept[:, None] + torch.arange(size), streams.finer)
        kept = kept + size
    sizes = torch.full_like(kept, fitted.colours.shape[1])
    return palette.decode(codes, kept, sizes, reference)


def squared(difference: torch.Tensor) -> torch.Tensor:
    return difference.square().flatten(1).sum(1)


@pytest.mark.parametrize("frames", [1, 2, 4])
@pytest.mark.parametrize("size", palette.SIZES)
def test_pictures_of_as_many_colours_come_back(size: int, frames: int) -> None:
    pixels = painted(5, frames, size)
    none = torch.zeros(5, dtype=torch.bool)
    fitted = palette.fit(pixels, torch.zeros_like(pixels), size, none, 0.0)
    same = ((shown(fitted, torch.zeros_like(pixels)) - pixels).abs() < 1e-5).all(2).float().mean((1, 2, 3))
    # of several frames, colours are fitted to a part of the pixels, which may lack a rare one
    assert float(same.min()) >= (1.0 if frames == 1 else 0.98)


@pytest.mark.parametrize("copies", [False, True])
@pytest.mark.parametrize("size", palette.SIZES)
def test_the_promised_errors_are_the_errors(size: int, copies: bool) -> None:
    generator = torch.Generator().manual_seed(size)
    pixels = torch.rand(6, 3, 3, 16, 16, generator=generator) * 2 - 1
    reference = pixels + 0.2 * torch.randn(pixels.shape, generator=generator)
    fitted = palette.fit(pixels, reference, size, torch.full((6,), copies), 0.01)
    for refined, promised in ((False, fitted.error), (True, fitted.finer_error)):
        error = squared(shown(fitted, reference, refined=refined) - pixels)
        torch.testing.assert_close(error, promised, rtol=1e-3, atol=1e-3)


def test_pixels_that_the_reference_has_are_copied_bit_for_bit() -> None:
    reference = painted(4, 2, 6, seed=1) + 0.001234
    pixels = reference.clone()
    pixels[:, :, :, 3:9, 4:6] = 1.0
    fitted = palette.fit(pixels, reference, 1, torch.ones(4, dtype=torch.bool), 1e-4)
    out = shown(fitted, reference)
    assert torch.equal(out[:, :, :, 9:], reference[:, :, :, 9:])
    torch.testing.assert_close(out, pixels, atol=1e-5, rtol=0)


def test_a_refined_colour_is_within_a_level_of_255() -> None:
    pixels = torch.full((1, 4, 3, 16, 16), 30 / 127.5 - 1)
    fitted = palette.fit(pixels, pixels, 1, torch.zeros(1, dtype=torch.bool), 0.0)
    assert float((shown(fitted, pixels) - pixels).abs().max()) > 1 / 127.5
    assert float((shown(fitted, pixels, refined=True) - pixels).abs().max()) <= 0.51 / 127.5


def test_one_colour_needs_one_code() -> None:
    pixels = torch.ones(2, 4, 3, 16, 16)
    fitted = palette.fit(pixels, pixels, 1, torch.zeros(2, dtype=torch.bool), 0.0)
    streams = palette.encode(fitted)
    assert streams.needed.tolist() == [1, 1]
    assert torch.equal(palette.decode(streams.codes, streams.needed, torch.tensor([1, 1]), pixels), pixels)


def test_a_sequence_cut_anywhere_shows_what_it_says() -> None:
    """Labels told are right; the rest is as predicted from them, so the first rows are right first."""
    pixels, size = painted(1, 4, 4), 4
    fitted = palette.fit(pixels, pixels, size, torch.zeros(1, dtype=torch.bool), 0.0)
    streams = palette.encode(fitted)
    right = []
    for kept in range(size, int(streams.length) + 1):
        out = palette.decode(streams.codes, torch.tensor([kept]), torch.tensor([size]), pixels)
        same = ((out - pixels).abs().amax(2) < 1e-4).flatten()
        right.append(int(same.logical_not().nonzero()[0]) if not bool(same.all()) else same.numel())
    assert right == sorted(right)
    assert right[-1] == pixels[0, :, 0].numel() > right[0]


def test_the_prediction_of_labels_is_the_same_on_both_sides() -> None:
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(0, 3, (7, 2, 16, 16), generator=generator)
    predicted = palette.predict(labels)
    change = torch.where(labels == predicted, 0, 1 + labels - (labels > predicted).long())
    first = palette._read_first_frame(change[:, 0])
    assert torch.equal(first, labels[:, 0])
    assert torch.equal(palette._apply(first, change[:, 1]), labels[:, 1])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, symbols.CODES - 1), min_size=8, max_size=30),
    st.integers(8, 30),
    st.sampled_from(palette.SIZES),
    st.integers(1, 4),
)
def test_any_codes_can_be_decoded(codes: list[int], kept: int, size: int, frames: int) -> None:
    reference = torch.zeros(1, frames, 3, 16, 16)
    count = torch.tensor([min(kept, len(codes))])
    out = palette.decode(torch.tensor([codes]), count, torch.tensor([size]), reference)
    assert out.shape == reference.shape
    assert float(out.abs().max()) <= 1.0


def test_the_search_finds_how_many_colours_there_are() -> None:
    for colours in (1, 2, 4, 6):
        pixels = painted(3, 4, colours, seed=colours)
        cells = palette_search.Cells(pixels, torch.zeros_like(pixels), 4, 0.007 * 3072)
        found = palette_search.search(
            cells, torch.ones(3, dtype=torch.bool), torch.full((3,), 1e9), 0.1, inter=False
        )
        sizes = [palette.SIZES[place] for place in found.place.tolist()]
        assert all(size >= colours for size in sizes)
        assert float(found.error.max()) < 0.1
        if colours in (1, 2, 4):
            assert sizes == [colours] * 3


def test_curves_promise_what_a_cut_palette_shows() -> None:
    pixels = painted(2, 4, 3) * 0.97
    reference = torch.zeros_like(pixels)
    fitted = palette.fit(pixels, reference, 2, torch.zeros(2, dtype=torch.bool), 0.0)
    before = squared(pixels)
    codes, error, length = palette_search.write(fitted, torch.full((2,), 1e-6), before)
    sizes = torch.tensor([2, 2])
    needed = palette.encode(fitted).needed
    for cell in range(2):
        one = slice(cell, cell + 1)
        for kept in (int(needed[cell]), int(length[cell])):
            told = codes[one].clamp_min(0)
            out = palette.decode(told, torch.tensor([kept]), sizes[one], reference[one])
            torch.testing.assert_close(
                squared(out - pixels[one])[0], error[cell, kept - 1], rtol=1e-3, atol=1e-2
            )
        assert float(error[cell, int(needed[cell]) - 2]) == pytest.approx(float(before[cell]))

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elastictok_cli.models.cell import fill


def ramp(height: int, width: int) -> torch.Tensor:
    """Brightness that grows evenly from corner to corner, (1, 1, height, width) in [-1, 1]."""
    y = torch.linspace(-1, 1, height).view(-1, 1)
    x = torch.linspace(-1, 1, width)
    return ((y + x) / 2).view(1, 1, height, width)


def some(rows: int, cols: int, share: float, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.rand(1, rows, cols, generator=g) < share


def filled(picture: torch.Tensor, told: torch.Tensor) -> torch.Tensor:
    return fill.smooth(fill.means(picture), told)


@given(st.integers(1, 9), st.integers(1, 9), st.floats(-1, 1), st.integers(0, 50))
@settings(max_examples=40, deadline=None)
def test_one_colour_is_the_same_everywhere_however_little_is_told(
    rows: int, cols: int, level: float, seed: int
) -> None:
    told = torch.zeros(1, rows, cols, dtype=torch.bool)
    told.view(-1)[seed % (rows * cols)] = True
    picture = torch.full((1, 3, 16 * rows, 16 * cols), level)
    torch.testing.assert_close(filled(picture, told), picture)


def test_a_slow_ramp_is_told_by_a_quarter_of_its_cells() -> None:
    picture = ramp(192, 256)
    error = (filled(picture, some(12, 16, 0.25)) - picture).square().mean()
    assert float(error) < 0.02 * float(picture.square().mean())


def test_what_is_untold_is_not_read() -> None:
    picture, told = ramp(96, 112), some(6, 7, 0.4)
    wide = told.repeat_interleave(16, -2).repeat_interleave(16, -1).unsqueeze(1)
    spoiled = torch.where(wide, picture, 7.0)
    assert torch.equal(filled(picture, told), filled(spoiled, told))


def test_pictures_of_a_batch_know_nothing_of_each_other() -> None:
    told = torch.cat([some(4, 5, 0.5), torch.zeros(1, 4, 5, dtype=torch.bool)])
    out = filled(ramp(64, 80).expand(2, -1, -1, -1) + 1, told)
    assert out[0].abs().sum() > 0
    assert not out[1].any()


def test_a_smaller_picture_is_the_same_one_at_a_glance() -> None:
    picture, told = ramp(96, 96), some(6, 6, 0.5)
    small = fill.smooth(fill.means(picture), told, 2)
    large = torch.nn.functional.avg_pool2d(filled(picture, told), 4)
    torch.testing.assert_close(small, large, atol=0.02, rtol=0)


@pytest.mark.parametrize("side", [(16, 16), (16, 48), (1088, 16)])
def test_thin_pictures(side: tuple[int, int]) -> None:
    picture = ramp(*side)
    told = torch.ones(1, side[0] // 16, side[1] // 16, dtype=torch.bool)
    assert filled(picture, told).shape == picture.shape


@pytest.mark.parametrize("grid", [(3, 5), (8, 8), (9, 17), (1, 20)])
def test_small_lattices_are_smoothed_as_large_ones(
    grid: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = torch.rand(2, 3, 16 * grid[0], 16 * grid[1], generator=torch.Generator().manual_seed(0))
    told = torch.cat([some(*grid, 0.3), some(*grid, 0.6, seed=1)])
    usual = filled(picture, told)
    monkeypatch.setattr(fill, "_FEW_POINTS", 0)
    torch.testing.assert_close(filled(picture, told), usual, atol=2e-6, rtol=0)


def test_errors_of_several_sets_of_cells_are_those_of_each_alone() -> None:
    frames = torch.rand(2, 4, 3, 64, 80, generator=torch.Generator().manual_seed(0))
    sets = [torch.cat([some(4, 5, 0.5, seed=n), some(4, 5, 0.7, seed=n + 9)]) for n in range(3)]
    errors = fill.filled_errors(frames, 3, 16)
    torch.testing.assert_close(errors(torch.cat(sets)), torch.cat([errors(one) for one in sets]))

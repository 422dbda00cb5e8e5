import pytest
import torch
import torch.nn.functional as F

from elastictok_cli.models.cell import winograd


@pytest.mark.parametrize("size", [(1, 1), (4, 4), (6, 8), (13, 7), (20, 130)])
@pytest.mark.parametrize("batch", [1, 2])
def test_it_is_the_convolution(size: tuple[int, int], batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "_TILES", 64)  # so that the largest picture takes several turns
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, 24, *size, generator=generator)
    weight = torch.randn(16, 24, 3, 3, generator=generator) / 15
    bias = torch.randn(16, generator=generator)
    found = winograd.conv3x3(x, winograd.transform(weight), bias)
    torch.testing.assert_close(found, F.conv2d(x, weight, bias, padding=1), atol=5e-5, rtol=0)

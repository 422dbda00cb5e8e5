"""A decoder on another device adds in another order. What it shows has to stay what the encoder measured, however
long the segment: differences may not grow from block to block."""

import pytest
import torch
import torch.nn.functional as F

from elastictok_cli.codec.pixels import from_uint8, to_pixels, to_uint8
from elastictok_cli.models import checkpoint
from elastictok_cli.models.cell.context import Context
from elastictok_cli.models.cell.layers import ResBlock
from elastictok_cli.models.cell.tokenizer import DefaultTokenizer

_BLOCKS = 8


def gliding() -> torch.Tensor:
    """(1, 32, 3, 96, 128): a texture that goes by, half a pixel a frame, and noise that never repeats."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(1, 3, 12, 24, generator=generator) * 2 - 1
    picture = F.interpolate(noise, scale_factor=16, mode="bilinear")
    frames = [
        F.interpolate(picture[..., t : t + 256], scale_factor=0.5, mode="area") for t in range(4 * _BLOCKS)
    ]
    clip = torch.stack(frames, 1)
    return (0.8 * clip + 0.02 * torch.randn(clip.shape, generator=generator)).clamp(-1, 1)


def other_order(block: ResBlock, layer: torch.nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    """The same convolution, as another library would sum it."""
    out: torch.Tensor = layer(x)
    return out


def differing(monkeypatch: pytest.MonkeyPatch, *, rounded: bool) -> list[float]:
    """The share of 8-bit values in which two devices differ, block by block; `rounded`: the reference is, to 8 bits."""
    tokenizer = checkpoint.load().tokenizer
    assert isinstance(tokenizer, DefaultTokenizer)
    here: Context | None = None
    there: Context | None = None
    shares = []
    for frames in gliding().split(4, 1):
        encoding = tokenizer.encode(frames, here, count=4, target=0.03)
        keep = encoding.length.clamp_max(4)
        shown, here = tokenizer.decode(encoding.tokens, keep, here, count=4)
        with monkeypatch.context() as patch:
            patch.setattr(ResBlock, "_convolve", other_order)
            elsewhere, there = tokenizer.decode(encoding.tokens, keep, there, count=4)
        assert here is not None
        assert there is not None
        if rounded:
            here, there = (c._replace(frame=from_uint8(to_uint8(c.frame))) for c in (here, there))
        one, other = (to_pixels(x, 96, 128, 4).int() for x in (shown, elsewhere))
        assert rounded or int((one - other).abs().max()) <= 1
        shares.append(float((one != other).float().mean()))
    return shares


def test_devices_do_not_drift_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = differing(monkeypatch, rounded=False)
    assert 0 < max(shares) < 2e-4  # there is a difference, and it stays where it was


def test_with_a_rounded_reference_they_would(monkeypatch: pytest.MonkeyPatch) -> None:
    """Why the reference is not rounded: what differs by a whole level is copied by the next block, and spreads."""
    shares = differing(monkeypatch, rounded=True)
    assert shares[-1] > 10 * shares[2]
    assert shares[-1] > 2e-3

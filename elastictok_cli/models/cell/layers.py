"""The pieces that the networks are made of."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from elastictok_cli.models.cell import winograd


class ResBlock(nn.Module):
    """x + conv(silu(conv(silu(x)))), the second convolution starting small."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        with torch.no_grad():
            self.second.weight.mul_(0.2)
        self._derived = Derived()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, width, H, W) to the same."""
        return x + self._convolve(self.second, F.silu(self._convolve(self.first, F.silu(x))))

    def _convolve(self, layer: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
        """A 3x3 convolution; by Winograd's algorithm on a CPU, where the weights are not being trained."""
        out: torch.Tensor
        if layer.weight.requires_grad or layer.bias is None or x.device.type != "cpu":
            out = layer(x)
            return out
        transformed = self._derived.get(layer, (layer.weight,), lambda: winograd.transform(layer.weight))
        return winograd.conv3x3(x, transformed, layer.bias)


class Derived:
    """What follows from weights that are not being trained. It is worked out once, and again where they change."""

    def __init__(self) -> None:
        self._made: dict[Hashable, tuple[object, torch.Tensor]] = {}

    def get(
        self, name: Hashable, weights: Sequence[torch.Tensor], make: Callable[[], torch.Tensor]
    ) -> torch.Tensor:
        """What `make` gives, which depends on these weights only; the same tensor until one of them changes."""
        if torch.is_grad_enabled() and any(weight.requires_grad for weight in weights):
            return make()
        # a version counts changes in place, as an optimizer makes them
        now = tuple((weight.data_ptr(), weight.device, weight._version) for weight in weights)
        made, value = self._made.get(name, (None, None))
        if value is None or made != now:
            with torch.inference_mode(False), torch.no_grad():  # training may use it too
                value = make()
            self._made[name] = now, value
        return value


def pointwise(layer: nn.Conv2d, *inputs: torch.Tensor) -> torch.Tensor:
    """A 1x1 convolution of `inputs` (B, ., h, w) side by side, without the copy of them all that `torch.cat` makes.

    As a matrix product, which on few pixels is quicker than what serves convolutions of any size.
    """
    out: torch.Tensor | None = None
    weights = layer.weight.flatten(1).split([x.shape[1] for x in inputs], 1)  # type: ignore[no-untyped-call]
    for x, weight in zip(inputs, weights, strict=True):
        part = F.linear(x.permute(0, 2, 3, 1), weight, layer.bias if out is None else None)
        out = part if out is None else out + part
    assert out is not None
    return out.permute(0, 3, 1, 2)


def zero(layer: nn.Conv2d) -> nn.Conv2d:
    """The same layer with all parameters zero: a branch that starts by doing nothing."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer

"""LPIPS (arXiv 1801.03924) with VGG-16: how different two pictures look.

The network is small, fixed, and needed with gradients and without a download; the packages that have it either
fetch weights by themselves or have had no release since 2021. So it stands here, and the weights are the user's:
the state of the authors' own module, `lpips.LPIPS(net="vgg").state_dict()`, saved by torch or safetensors.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

# channels of each convolution, slice by slice; every slice but the first begins with a 2x2 maximum
_SLICES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
SMALLEST = 1 << (len(_SLICES) - 1)  # side of a picture in pixels


class LPIPSError(Exception):
    """Weights that cannot be used; the message is one sentence for the user."""


class LPIPS(nn.Module):
    """Distance of pictures. Not trained, but gradients go through."""

    shift: torch.Tensor
    scale: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.slices = nn.ModuleList()
        before = 3
        for channels in _SLICES:
            convolutions = nn.ModuleList()
            for after in channels:
                convolutions.append(nn.Conv2d(before, after, 3, padding=1))
                before = after
            self.slices.append(convolutions)
        self.weights = nn.ParameterList(torch.zeros(channels[-1]) for channels in _SLICES)
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(3, 1, 1))
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(3, 1, 1))
        self.requires_grad_(False)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) in [-1, 1], twice, to (B,)."""
        x = (torch.cat([a, b]) - self.shift) / self.scale  # (2B, 3, H, W)
        total = x.new_zeros(len(a))
        for number, (convolutions, weight) in enumerate(zip(self.slices, self.weights, strict=True)):
            if number:
                x = F.max_pool2d(x, 2)
            assert isinstance(convolutions, nn.ModuleList)
            for convolution in convolutions:
                x = F.relu(convolution(x))  # (2B, C, h, w)
            unit = x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10)  # (2B, C, h, w)
            one, other = unit.chunk(2)
            total = total + torch.einsum("bchw,c->bhw", (one - other).square(), weight).mean((1, 2))
        return total


def load(path: Path, device: torch.device | str = "cpu") -> LPIPS:
    """Read the weights; see the top of this file. Raises LPIPSError."""
    try:
        if path.suffix == ".safetensors":
            tensors = load_file(path)
        else:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise LPIPSError(f"{path} cannot be read ({str(error).partition(chr(10))[0]})") from None
    model = LPIPS()
    own = model.state_dict()
    try:
        for theirs, ours in _names().items():
            own[ours] = tensors[theirs].float().reshape(own[ours].shape)
    except (KeyError, RuntimeError, TypeError, AttributeError):
        raise LPIPSError(f'{path} is not the state of lpips.LPIPS(net="vgg")') from None
    model.load_state_dict(own)
    return model.eval().to(device)


def _names() -> dict[str, str]:
    """Names in the file and here. There, convolutions are numbered as layers of torchvision's VGG-16."""
    names = {}
    layer = 0
    for number, channels in enumerate(_SLICES):
        layer += 1 if number else 0  # the maximum
        for index in range(len(channels)):
            for kind in ("weight", "bias"):
                names[f"net.slice{number + 1}.{layer}.{kind}"] = f"slices.{number}.{index}.{kind}"
            layer += 2  # convolution and ReLU
        names[f"lin{number}.model.1.weight"] = f"weights.{number}"
    return names

"""A cheap guess of the length a block needs, from statistics of its pixels (the paper's regression, section 3.3).

A small network over a dozen statistics: spread, edges at three scales, change between frames, colour, the target, and
what the block before needed. It only says where a search begins, so a bad guess costs time and never quality.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import nn

from elastictok_cli.models import checkpoint

ARCHITECTURE = "elastictok-predictor-1"
FEATURES = 15
_FLOOR = 1e-6  # of an energy, before its logarithm


@dataclass(frozen=True)
class PredictorConfig:
    """Of what model a predictor speaks; stored in its file."""

    name: str
    shortest: int
    longest: int
    hidden: int = 32


class Predictor(nn.Module):
    """Statistics to a length. `mean` and `scale` are those of the training blocks."""

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, config: PredictorConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.zeros(FEATURES))
        self.register_buffer("scale", torch.ones(FEATURES))
        h = config.hidden
        self.layers = nn.Sequential(
            nn.Linear(FEATURES, h), nn.SiLU(), nn.Linear(h, h), nn.SiLU(), nn.Linear(h, 1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(M, FEATURES) to (M,): logarithm of the share of all tokens that is needed."""
        out: torch.Tensor = self.layers((x - self.mean) / self.scale).squeeze(-1)
        return out

    @torch.inference_mode()
    def guess(self, source: torch.Tensor, target: float, last: int | None) -> int:
        """The length to begin with, for a cell's real pixels (n, h, w, 3) uint8; see `lengths.Guess`."""
        c = self.config
        share = math.exp(min(float(self(features(source.cpu(), target, last, c.longest)[None])[0]), 0.0))
        return min(max(round(share * c.longest), c.shortest), c.longest)


def features(source: torch.Tensor, target: float, last: int | None, longest: int) -> torch.Tensor:
    """Statistics of a cell's real pixels (n, h, w, 3) uint8, (FEATURES,) float32.

    last: tokens that the block before needed, None if unknown.
    """
    x = source.permute(0, 3, 1, 2).float() / 127.5 - 1  # (n, 3, h, w)
    luma = (x * x.new_tensor((0.299, 0.587, 0.114)).view(1, 3, 1, 1)).sum(1, keepdim=True)  # (n, 1, h, w)
    energies = [luma.var(unbiased=False), (x - luma).square().mean()]
    moved = (luma[1:] - luma[:-1]).square().mean() if len(luma) > 1 else luma.new_zeros(())
    energies.append(moved)
    for _ in range(3):  # edges, and change between frames, at three scales
        energies += [
            _mean_square(luma[..., 1:] - luma[..., :-1]),
            _mean_square(luma[:, :, 1:] - luma[:, :, :-1]),
        ]
        luma = F.avg_pool2d(luma, 2, ceil_mode=True)
        energies.append(_mean_square(luma[1:] - luma[:-1]))
    known = [
        math.log(target),
        0.0 if last is None else 1.0,
        0.0 if last is None else math.log(max(last, 1) / longest),
    ]
    return torch.cat([torch.log(torch.stack(energies) + _FLOOR), torch.tensor(known)])


def _mean_square(x: torch.Tensor) -> torch.Tensor:
    return x.square().mean() if x.numel() else x.new_zeros(())


def save(predictor: Predictor, path: Path, training: dict[str, Any]) -> None:
    """Write a predictor's file."""
    tensors = {name: value.contiguous() for name, value in predictor.state_dict().items()}
    checkpoint.write(tensors, path, ARCHITECTURE, asdict(predictor.config), training)


def load(path: Path) -> Predictor:
    """Read a predictor's file. Raises CheckpointError."""
    if not path.is_file():
        raise checkpoint.CheckpointError(f"no predictor file at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise checkpoint.CheckpointError(f"{path} is not a safetensors file ({error})") from None
    if metadata.get("architecture") != ARCHITECTURE:
        raise checkpoint.CheckpointError(f"{path} holds no predictor; elastictok train-predictor makes one")
    try:
        predictor = Predictor(PredictorConfig(**json.loads(metadata["config"])))
        predictor.load_state_dict(tensors)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise checkpoint.CheckpointError(
            f"{path} does not fit its own configuration ({str(error).splitlines()[0]})"
        ) from None
    return predictor.requires_grad_(False)

"""What a block leaves behind for the next one."""

from __future__ import annotations

from typing import NamedTuple

import torch


class Context(NamedTuple):
    """What one block leaves behind for the next. `None` in its place means: a keyframe block comes."""

    frame: torch.Tensor  # (B, 3, H, W) last decoded frame, as `DefaultModel.reference` gives it
    features: torch.Tensor  # (B, width, H/8, W/8)
    velocity: torch.Tensor  # (B, 2, h, w) pixels per frame

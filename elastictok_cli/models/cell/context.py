"""What a block leaves behind for the next one."""

from __future__ import annotations

from typing import NamedTuple

import torch


class Context(NamedTuple):
    """The state of the decoder between two blocks. `None` in its place means that a keyframe block comes."""

    frame: torch.Tensor  # (B, 3, H, W) the reference: the last decoded frame, in [-1, 1]
    features: torch.Tensor  # (B, width, H/8, W/8) of the synthesis network
    vectors: torch.Tensor  # (B, 2, h, w) motion vectors that cells go on with, in pixels per frame
    screen: torch.Tensor | None = (
        None  # (B, h, w) bool: screen cells, which no network touches; None: there are none
    )

"""Frames to patches, one token each, and back."""

from __future__ import annotations

import torch

from elastictok_cli.models.paper.config import PaperConfig


def patchify(frames: torch.Tensor, c: PaperConfig) -> torch.Tensor:
    """(B, T, 3, size, size) to (B, L, P): tokens ordered time, row, column; values time, row, column, channel."""
    b, t, _, h, w = frames.shape
    pt, ph, pw = c.patch
    x = frames.reshape(b, t // pt, pt, 3, h // ph, ph, w // pw, pw)
    return x.permute(0, 1, 4, 6, 2, 5, 7, 3).reshape(b, -1, c.patch_values)


def unpatchify(patches: torch.Tensor, c: PaperConfig) -> torch.Tensor:
    """Inverse of `patchify`."""
    b = patches.shape[0]
    pt, ph, pw = c.patch
    x = patches.reshape(b, -1, c.size // ph, c.size // pw, pt, ph, pw, 3)  # (B, T/pt, h, w, pt, ph, pw, 3)
    return x.permute(0, 1, 4, 7, 2, 5, 3, 6).reshape(b, -1, 3, c.size, c.size)

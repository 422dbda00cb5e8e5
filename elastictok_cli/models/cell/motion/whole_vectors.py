"""Whole vectors: motion of whole pixels, as pages scroll and windows move, beyond the table of motion vectors.

A whole vector is up to 48 pixels per frame down or up, and left or right. Its code also says whether it is a camera pan
(`camera_pan.py`), so that one cell can speak for a page.
"""

from __future__ import annotations

import torch

from elastictok_cli.models.cell.motion import camera_pan

REACH = 48  # pixels per frame
_SIDE = 2 * REACH + 1
_PANS = 1 + len(camera_pan.SCOPES)  # none, or one of each scope
CODES = _SIDE**2 * _PANS


def to_codes(vectors: torch.Tensor, pan: torch.Tensor) -> torch.Tensor:
    """Codes (B, h, w) int64 of whole vectors (B, 2, h, w), up to 48, and pans (B, h, w): 0, or 1 + the scope."""
    place = vectors.round().long().clamp(-REACH, REACH) + REACH
    return (place[:, 0] * _SIDE + place[:, 1]) * _PANS + pan


def from_codes(codes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Inverse of `to_codes`: vectors (B, 2, h, w) float32 and pans (B, h, w). Any code is taken modulo CODES."""
    pan = codes % _PANS
    place = torch.div(codes, _PANS, rounding_mode="floor") % _SIDE**2
    row = torch.div(place, _SIDE, rounding_mode="floor")
    return torch.stack([row, place % _SIDE], 1).float() - REACH, pan

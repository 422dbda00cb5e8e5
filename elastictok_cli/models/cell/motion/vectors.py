"""Motion vectors: one (vertical, horizontal) pair of speeds for each cell.

A velocity (vy, vx) in pixels per frame moves the last decoded frame under the whole block: frame t
(1..T) is predicted by sampling the last frame at `position - t * velocity`. Velocities come from a table of
39 speeds per axis, finer near zero, so one velocity is one of 39 * 39 = 1,521 motion tokens.
"""

from __future__ import annotations

import torch

_POSITIVE = (0.25, 0.5, 0.75, 1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 10, 12, 14, 17, 20, 24)
SPEEDS = (*(-s for s in reversed(_POSITIVE)), 0.0, *_POSITIVE)
VELOCITIES = len(SPEEDS) ** 2


def speeds(device: torch.device | str) -> torch.Tensor:
    """The speed table, (39,) float32, pixels per frame, ascending."""
    return torch.tensor(SPEEDS, dtype=torch.float32, device=device)


def velocity_to_index(velocity: torch.Tensor) -> torch.Tensor:
    """Number of a velocity whose parts are table entries. velocity: (B, 2, h, w). Returns (B, h, w) int64."""
    nearest = nearest_entry(velocity, speeds(velocity.device))
    return nearest[:, 0] * len(SPEEDS) + nearest[:, 1]


def index_to_velocity(index: torch.Tensor) -> torch.Tensor:
    """Inverse of `velocity_to_index`. index: (B, h, w) in [0, 1521). Returns (B, 2, h, w) float32."""
    table = speeds(index.device)
    return torch.stack([table[index // len(SPEEDS)], table[index % len(SPEEDS)]], 1)


def in_table(velocity: torch.Tensor) -> torch.Tensor:
    """The table velocities nearest to others. velocity: (B, 2, h, w) pixels per frame, as is what it returns."""
    table = speeds(velocity.device)
    return table[nearest_entry(velocity, table)]


def nearest_entry(speed: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """The number of the table entry nearest to each speed."""
    return (speed.unsqueeze(-1) - table).abs().argmin(-1)

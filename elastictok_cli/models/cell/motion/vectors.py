"""Motion vectors: one (vertical, horizontal) pair of speeds for each cell.

A motion vector (vy, vx) in pixels per frame moves the reference under the whole block: frame t (1..T) is predicted by
sampling the reference at `position - t * vector`. Cells send vectors of a table of 39 speeds per axis, finer near
zero: one of 39 * 39 = 1,521.
"""

from __future__ import annotations

import torch

_POSITIVE = (0.25, 0.5, 0.75, 1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 10, 12, 14, 17, 20, 24)
SPEEDS = (*(-s for s in reversed(_POSITIVE)), 0.0, *_POSITIVE)  # pixels per frame
VECTORS = len(SPEEDS) ** 2  # how many a cell can send


def speeds(device: torch.device | str) -> torch.Tensor:
    """The speed table, (39,) float32, pixels per frame, ascending."""
    return torch.tensor(SPEEDS, dtype=torch.float32, device=device)


def vector_to_index(vectors: torch.Tensor) -> torch.Tensor:
    """Number of a motion vector of the table. vectors: (B, 2, h, w). Returns (B, h, w) int64 in [0, 1521)."""
    nearest = nearest_entry(vectors, speeds(vectors.device))
    return nearest[:, 0] * len(SPEEDS) + nearest[:, 1]


def index_to_vector(index: torch.Tensor) -> torch.Tensor:
    """Inverse of `vector_to_index`. index: (B, h, w) in [0, 1521). Returns (B, 2, h, w) float32."""
    table = speeds(index.device)
    return torch.stack([table[index // len(SPEEDS)], table[index % len(SPEEDS)]], 1)


def in_table(vectors: torch.Tensor) -> torch.Tensor:
    """The nearest motion vectors of the table. vectors: (B, 2, h, w) pixels per frame. Returns the same shape."""
    table = speeds(vectors.device)
    return table[nearest_entry(vectors, table)]


def nearest_entry(speed: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """The number of the table entry nearest to each speed, int64 of the same shape."""
    return (speed.unsqueeze(-1) - table).abs().argmin(-1)

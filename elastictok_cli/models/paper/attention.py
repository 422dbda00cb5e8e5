"""Block-causal attention with rotary positions, and the keys and values that it keeps of earlier blocks.

Shapes as in `transformer`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from elastictok_cli.models.paper.config import PaperConfig


class KV(NamedTuple):
    """Keys and values of one block in one layer. Keys are not rotated: positions change as blocks leave the window."""

    k: torch.Tensor  # (B, H, N, D)
    v: torch.Tensor  # (B, H, N, D)


Cache = tuple[KV, ...]  # of one block, one for each layer


Past = tuple[Cache, ...]  # the earlier blocks that a block attends to, oldest first


class Window(NamedTuple):
    """The earlier blocks that one layer attends to, and the memory where their keys and values are laid out."""

    blocks: tuple[KV, ...]  # oldest first
    room: KV  # (B, H, S, D), shared by all layers: allocating it anew takes time

    def lay_out(self, own: KV, angles: torch.Tensor) -> KV:
        """Keys and values (B, H, S, D) of all blocks, `own` last; keys turned by angles (S, D/2)."""
        end = 0
        for block in (*self.blocks, own):
            start, end = end, end + block.k.shape[2]
            k = block.k.to(angles.device, non_blocking=True)  # earlier blocks may be kept in other memory
            self.room.k[:, :, start:end] = rotate(k, angles[start:end])  # (B, H, N, D)
            self.room.v[:, :, start:end] = block.v  # (B, H, N, D)
        return self.room


class Attention(nn.Module):
    """Block-causal attention with rotary positions."""

    def __init__(self, c: PaperConfig) -> None:
        super().__init__()
        self.heads, self.block = c.heads, c.block_tokens
        self.wq = nn.Linear(c.hidden, c.hidden, bias=False)
        self.wk = nn.Linear(c.hidden, c.hidden, bias=False)
        self.wv = nn.Linear(c.hidden, c.hidden, bias=False)
        self.wo = nn.Linear(c.hidden, c.hidden, bias=False)

    def forward(
        self,
        x: torch.Tensor,  # (B, L, C)
        angles: torch.Tensor,  # (S, D/2), of the window and these tokens
        past: Window | None,
        mask: torch.Tensor | None,
        alike: int = 0,
        rows: int | None = None,
    ) -> tuple[torch.Tensor, KV]:
        """(B, L, C) to the same, and the keys and values of these tokens. `alike` and `rows` as in `Layer`."""
        q = self.split(self.wq(x[:, :rows]))  # (B, H, L, D)
        k = self.split(self.wk(x))  # (B, H, L, D)
        v = self.split(self.wv(x))  # (B, H, L, D)
        if alike:  # a zero's key and value are zeros
            k, v = F.pad(k, (0, 0, 0, alike)), F.pad(v, (0, 0, 0, alike))
        new = KV(k, v)
        before = len(angles) - k.shape[2]
        q = rotate(q, angles[before:])  # (B, H, L, D)
        k, v = past.lay_out(new, angles) if past else KV(rotate(k, angles), v)  # (B, H, S, D)
        if mask is not None:
            out = F.scaled_dot_product_attention(q, k, v, mask)  # (B, H, L, D)
        else:
            out = self.block_by_block(q, k, v, before)  # (B, H, L, D)
        return self.wo(out.transpose(1, 2).flatten(2)), new  # (B, L, C)

    def split(self, x: torch.Tensor) -> torch.Tensor:
        """(B, L, C) to (B, H, L, D)."""
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)

    def block_by_block(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, before: int) -> torch.Tensor:
        """Each block's queries over its own keys and all before: no mask, and nothing computed to be masked.

        `before`: how many of the keys belong to earlier blocks than the first query.
        """
        parts = []
        for start in range(0, q.shape[2], self.block):
            queries, end = q[:, :, start : start + self.block], before + start + self.block
            parts.append(
                F.scaled_dot_product_attention(queries, k[:, :, :end], v[:, :, :end])
            )  # (B, H, N, D)
        return torch.cat(parts, 2) if len(parts) > 1 else parts[0]


def rotations(length: int, c: PaperConfig, device: torch.device | str = "cpu") -> torch.Tensor:
    """Rotary angles of positions 0 on, (length, D/2) complex64: position * theta^(-2i/D)."""
    half = c.hidden // c.heads // 2
    speed = c.theta ** (-torch.arange(half, dtype=torch.float32, device=device) / half)  # (D/2,)
    position = torch.arange(length, dtype=torch.float32, device=device)  # (length,)
    angle = position[:, None] * speed  # (length, D/2)
    return torch.polar(torch.ones_like(angle), angle)


def rotate(x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """Rotary positions: values 2i and 2i + 1 are one complex number, turned.

    x: (B, H, L, D); angles (L or more, D/2).
    """
    pairs = torch.view_as_complex(x.float().reshape(*x.shape[:-1], x.shape[-1] // 2, 2))  # (B, H, L, D/2)
    return torch.view_as_real(pairs * angles[: x.shape[2]]).flatten(-2).to(x.dtype)  # (B, H, L, D)


def block_mask(segments: torch.Tensor, block: int) -> torch.Tensor:
    """(B, 1, L, L) bool: query's block at or after the key's, and the same segment. segments: (B, L)."""
    number = torch.arange(segments.shape[1], device=segments.device) // block  # (L,)
    causal = number[:, None] >= number  # (L, L)
    return (causal & (segments[:, :, None] == segments[:, None])).unsqueeze(1)

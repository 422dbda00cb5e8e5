"""The codec's view of the default model: its facts, and one method each to encode and to decode a block."""

from __future__ import annotations

import math

import torch

from elastictok_cli.models.cell import decode, encode
from elastictok_cli.models.cell.context import Context
from elastictok_cli.models.cell.motion import block_matching, compensation
from elastictok_cli.models.cell.networks import DefaultModel
from elastictok_cli.models.cell.prediction import Reuse
from elastictok_cli.models.cell.token_layout import TokenLayout
from elastictok_cli.models.interface import Encoding, TokenizerSpec


class DefaultTokenizer:
    """A `DefaultModel` as an `interface.NestedTokenizer`. It holds no state between two calls."""

    def __init__(self, model: DefaultModel) -> None:
        self.model = model.eval()
        c = model.config
        self.layout = TokenLayout(
            math.prod(c.levels), c.residual_tokens, c.frames, c.camera_pan, c.camera_shake
        )
        self.spec = TokenizerSpec(
            name=c.name,
            frames=c.frames,
            cell=(c.cell, c.cell),
            tokens_per_cell=self.layout.tokens_per_cell,
            levels=c.levels,
            vocabulary=self.layout.vocabulary,
            nested=True,
            control_tokens=self.layout.control_tokens,
        )

    def start(self, height: int, width: int) -> Context | None:
        """A keyframe block has no context, whatever the size."""
        return None

    @torch.inference_mode()
    def encode(
        self,
        frames: torch.Tensor,
        context: Context | None,
        *,
        count: int,
        target: float = 0.007,
        complete: bool = False,
        price: float | None = None,
    ) -> Encoding:
        """See `interface.NestedTokenizer.encode`."""
        return encode.encode(
            self.model,
            self.layout,
            frames,
            context,
            count=count,
            target=target,
            complete=complete,
            price=price,
        )

    @torch.inference_mode()
    def decode(
        self,
        tokens: torch.Tensor,
        keep: torch.Tensor,
        context: Context | None,
        *,
        count: int,
        reuse: Reuse | None = None,
    ) -> tuple[torch.Tensor, Context]:
        """See `interface.NestedTokenizer.decode`. Frames come clamped to [-1, 1]."""
        return decode.decode(self.model, self.layout, tokens, keep, context, count=count, reuse=reuse)

    def estimate_motion(self, last: torch.Tensor, later: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """See `interface.NestedTokenizer.estimate_motion`: a full search, in even numbers of up to 24 pixels."""
        return block_matching.shifts(last, later, grid)

    def compensate_motion(self, picture: torch.Tensor, vectors: torch.Tensor, frames: int) -> torch.Tensor:
        """See `interface.NestedTokenizer.compensate_motion`."""
        return compensation.warp(picture, vectors, torch.tensor([frames], device=picture.device))[:, 0]

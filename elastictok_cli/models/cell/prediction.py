"""Prediction: what a block is expected to look like before any token of its residual."""

from __future__ import annotations

from typing import NamedTuple

import torch

from elastictok_cli.models.cell.config import INTER, KEY
from elastictok_cli.models.cell.context import Context
from elastictok_cli.models.cell.motion.compensation import compensate
from elastictok_cli.models.cell.motion.decision import stands_still
from elastictok_cli.models.cell.networks import DefaultModel
from elastictok_cli.models.cell.transform import PATCH

_REUSE_VALUES = (
    3_200_000  # values of predicted frames kept: four blocks of 256x256 pixels, one of a large picture
)


class Prediction(NamedTuple):
    """The prediction of one block, and what decoding needs besides."""

    kind: int  # KEY or INTER
    cells: torch.Tensor  # (B, h, w, 3072)
    entered: torch.Tensor  # (B, width, H/8, W/8) what it puts into the synthesis network
    still: torch.Tensor | None  # (B, h, w) bool: cells that do not move; None in a keyframe block
    lasting: torch.Tensor  # (B, 2, h, w) motion vectors that the next block inherits


class _Known(NamedTuple):
    vectors: torch.Tensor  # (B, 2, h, w)
    shake: torch.Tensor | None  # (B, count, 2)
    output: tuple[torch.Tensor, torch.Tensor]  # predicted cells, and what they put into the synthesis network


class Reuse:
    """What the prediction network made of one block, so that decodes of the same block need not run it again.

    `encode` returns one with its tokens; `decode` reads it, and adds what dropped motion vectors make it predict anew.
    """

    def __init__(self, context: Context, count: int) -> None:
        self.context, self.count = context, count
        self._known: list[_Known] = []

    def find(
        self, vectors: torch.Tensor, shake: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """What is known of the prediction for these motion vectors and this shake, if they are known."""
        for known in self._known:
            if torch.equal(known.vectors, vectors) and _equal(known.shake, shake):
                return known.output
        return None

    def add(
        self, vectors: torch.Tensor, shake: torch.Tensor | None, output: tuple[torch.Tensor, torch.Tensor]
    ) -> None:
        """Keep what the network gave, the newest first; old ones go where pictures are large."""
        del self._known[max(1, _REUSE_VALUES // output[0].numel()) - 1 :]
        self._known.insert(0, _Known(vectors, shake, output))


def predict_keyframe(
    model: DefaultModel, batch: int, grid: tuple[int, int], device: torch.device
) -> Prediction:
    """The prediction of keyframe blocks: the mean colour everywhere. grid: rows and columns of cells."""
    cells = model.grey(batch, grid)
    entered = model.enter_synthesis(cells[:1, :1, :1], None, KEY)  # the same everywhere
    side = model.config.cell // PATCH
    entered = entered[..., :1, :1].expand(batch, -1, grid[0] * side, grid[1] * side)
    return Prediction(KEY, cells, entered, None, torch.zeros(batch, 2, *grid, device=device))


def predict_inter(
    model: DefaultModel,
    context: Context,
    vectors: torch.Tensor,
    lasting: torch.Tensor,
    count: int,
    shake: torch.Tensor | None = None,
    *,
    moved: torch.Tensor | None = None,
    reuse: Reuse | None = None,
) -> Prediction:
    """The prediction of a block from the one before: motion compensation, refined by the prediction network.

    vectors, lasting: (B, 2, h, w) motion vectors of this block and for the next; shake: (B, count, 2) displacement of
    the whole picture; moved: (B, 4, 3, H, W) the motion-compensated reference, if it is known. Raises ValueError if
    `reuse` belongs to another block.
    """
    c = model.config
    if reuse is not None and (reuse.context is not context or reuse.count != count):
        raise ValueError("what is to be reused belongs to another block")
    output = None if reuse is None else reuse.find(vectors, shake)
    if output is None:
        if moved is None:
            moved = compensate(
                context.frame, vectors, count, frames=c.frames, interpolation=c.interpolation, shake=shake
            )
        cells, features = model.predict(moved, context, vectors, count, shake)
        output = cells, model.enter_synthesis(cells, features, INTER)
        if reuse is not None:
            reuse.add(vectors, shake, output)
    return Prediction(INTER, *output, stands_still(vectors, shake), lasting)


def _equal(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return torch.equal(one, other)

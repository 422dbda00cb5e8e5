"""How much the error of each cell matters, by how long what it shows will stay.

A cell whose picture lasts passes its error on to the blocks after it, which then cost fewer tokens if it is small; one
that changes at once does not. So errors are weighted by what the frames ahead still show of each cell, in place or
along a motion, as in the macroblock tree of x264 (Garrett-Glaser, "A novel macroblock-tree algorithm for
high-performance optimization of dependent video coding in H.264/AVC", 2009). The promise is of the plain error all the
same.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from elastictok_cli.codec.scenes import Group
from elastictok_cli.models.cell.motion.block_matching import shifts
from elastictok_cli.models.cell.motion.compensation import warp
from elastictok_cli.video.records import Frame

FRAMES = 12  # that are looked at beyond a block
_SPAN = 4  # frames that are judged together
_PASSED_ON = 0.5  # weight of a block's worth of frames to which a cell passes its error on ...
_BY_PICTURE = 1.0  # ... and from keyframe blocks: their tokens are cheaper than those that mend them later
_SMALL = 4  # pixels in one of the pictures that are compared


class Lookahead:
    """Weighs the cells of one video's blocks. It remembers the frames it has prepared."""

    def __init__(self, cell: int, device: torch.device) -> None:
        self._cell, self._device = cell, device
        self._seen: list[
            tuple[Frame, torch.Tensor]
        ] = []  # with the picture at a quarter of its size, whole cells

    @torch.inference_mode()
    def weights(self, block: Group, target: float) -> torch.Tensor | None:
        """How much the error of each cell matters, (1, h, w), 1 for what is gone at once; None where nothing is ahead.

        target: the MSE asked for, beside which changes are small or large.
        """
        if not block.ahead:
            return None
        last, *ahead = self._pictures([block.frames[-1], *block.ahead])
        staying = torch.ones_like(F.avg_pool2d(last[:, :1], self._cell // _SMALL)[:, 0])
        weight = staying.clone()
        each = (_BY_PICTURE if block.keyframe else _PASSED_ON) / _SPAN
        still = torch.zeros_like(staying.unsqueeze(1)).expand(-1, 2, -1, -1)
        ways = [still]
        if len(ahead) > 1:
            ways.append(-shifts(ahead[1], last, still.shape[-2:]))
        for first in range(0, len(ahead), _SPAN):
            some = ahead[first : first + _SPAN]
            change = torch.stack([self._change(last, some, first, way) for way in ways]).amin(0)
            staying = torch.minimum(staying, target / (target + change))
            weight = weight + each * len(some) * staying
        return weight

    def _change(
        self, last: torch.Tensor, later: Sequence[torch.Tensor], first: int, velocity: torch.Tensor
    ) -> torch.Tensor:
        """MSE (1, h, w) between a cell and where a velocity takes it in frames `first` + 1, ... after it."""
        total = torch.zeros_like(velocity[:, 0])
        for number, picture in enumerate(later, first + 1):
            if bool(velocity.any()):
                there = torch.tensor([number], device=last.device)
                picture = warp(picture, -velocity / _SMALL, there)[:, 0]
            difference = (picture - last).square().mean(1, keepdim=True)
            total += F.avg_pool2d(difference, self._cell // _SMALL)[:, 0]
        return total / len(later)

    def _pictures(self, frames: Sequence[Frame]) -> list[torch.Tensor]:
        known = {id(frame): picture for frame, picture in self._seen}
        pictures = [known[id(f)] if id(f) in known else self._small(f) for f in frames]
        asked = {id(f) for f in frames}
        # blocks cut short end at earlier frames: those are asked for again
        old = [item for item in self._seen if id(item[0]) not in asked][-_SPAN:]
        self._seen = [*old, *zip(frames, pictures, strict=True)]
        return pictures

    def _small(self, frame: Frame) -> torch.Tensor:
        """(1, 3, H / 4, W / 4) in [-1, 1], H and W cell multiples."""
        rgb = torch.from_numpy(frame.rgb).to(self._device).permute(2, 0, 1)[None].float() / 127.5 - 1
        padding = (0, -rgb.shape[-1] % self._cell, 0, -rgb.shape[-2] % self._cell)
        return F.avg_pool2d(F.pad(rgb, padding, mode="replicate"), _SMALL)

"""Macroblock tree: weights the error of each cell by how long later frames are predicted from it.

A block predicts its cells from the last decoded frame. So a cell that stays in view passes its error on to the blocks
after it, and they need fewer tokens if that error is small. The error of a cell that changes at once matters to its own
block alone. The encoder therefore weights errors as the macroblock tree of x264 does (Garrett-Glaser, "A novel
macroblock-tree algorithm for high-performance optimization of dependent video coding in H.264/AVC", 2009): by how
well each cell predicts the frames ahead, in place or along its motion vector.

The weights steer allocation only: the target is checked on unweighted errors. Where keyframes go is decided elsewhere
(`scenes.py`, `mode_decision.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from elastictok_cli.codec.block_splitting import SourceBlock
from elastictok_cli.codec.pixels import padded
from elastictok_cli.models.interface import NestedTokenizer
from elastictok_cli.video.records import Frame

LOOKAHEAD_FRAMES = 12  # frames compared beyond a block
SPAN_FRAMES = 4  # frames ahead whose changes are averaged
DOWNSCALE = 4  # frames are compared at this fraction of their height and width
# What one span ahead adds to the weight of a cell that does not change. A keyframe block adds more, because its tokens
# are cheaper than those which mend its errors later.
WEIGHT_OF_SPAN_INTER = 0.5
WEIGHT_OF_SPAN_KEYFRAME = 1.0


class Lookahead:
    """Weights the cells of the blocks of one video.

    It keeps the downscaled frames of the last call, only to save their computation: the weights depend on the
    arguments alone.
    """

    def __init__(self, tokenizer: NestedTokenizer, device: torch.device) -> None:
        """`tokenizer` estimates the motion. Its cells are square."""
        self._tokenizer, self._device = tokenizer, device
        self._cell = tokenizer.spec.cell[0]
        self._known: list[tuple[Frame, torch.Tensor]] = []  # frames and the same downscaled

    @torch.inference_mode()
    def weights(self, block: SourceBlock, target: float, scale: float = 1.0) -> torch.Tensor | None:
        """The weight of each cell's error, (1, h, w), at least 1; None where no frame is ahead in the scene.

        target: MSE of the encode. A cell whose change ahead is far below it counts as unchanged. scale: of what is
        ahead, beside the block's own error.
        """
        if not block.ahead:
            return None
        last, *ahead = self._downscaled_frames([block.frames[-1], *block.ahead])
        remaining = torch.ones_like(
            self._by_cell(last[:, :1])
        )  # share of a cell that the frames so far still show
        weight = remaining.clone()
        per_span = WEIGHT_OF_SPAN_KEYFRAME if block.keyframe else WEIGHT_OF_SPAN_INTER
        per_frame = scale * per_span / SPAN_FRAMES
        candidates: list[torch.Tensor | None] = [None]  # in place
        if len(ahead) > 1:
            # vectors from the frame two ahead back to the last one, so they are those of the last frame's cells
            grid = (int(remaining.shape[-2]), int(remaining.shape[-1]))
            candidates.append(-self._tokenizer.estimate_motion(ahead[1], last, grid))
        for first in range(0, len(ahead), SPAN_FRAMES):
            span = ahead[first : first + SPAN_FRAMES]
            changes = [self._change(last, span, first, vectors) for vectors in candidates]
            change = torch.stack(changes).amin(0)
            remaining = torch.minimum(remaining, target / (target + change))
            weight = weight + per_frame * len(span) * remaining
        return weight

    def _change(
        self, last: torch.Tensor, span: Sequence[torch.Tensor], first: int, vectors: torch.Tensor | None
    ) -> torch.Tensor:
        """MSE (1, h, w) between each cell of the last frame and the places it has moved to in the frames of `span`.

        These are numbers `first` + 1 and on after the last frame; vectors: (1, 2, h, w) pixels per frame, None where
        nothing moves.
        """
        moved = torch.cat(
            [
                later
                if vectors is None
                else self._tokenizer.compensate_motion(later, -vectors / DOWNSCALE, number)
                for number, later in enumerate(span, first + 1)
            ]
        )
        each = self._by_cell((moved - last).square().mean(1, keepdim=True))
        return each.sum(0, keepdim=True) / len(span)

    def _by_cell(self, plane: torch.Tensor) -> torch.Tensor:
        """Means over the cells of a downscaled plane (1, 1, H / 4, W / 4), (1, h, w)."""
        return F.avg_pool2d(plane, self._cell // DOWNSCALE)[:, 0]

    def _downscaled_frames(self, frames: Sequence[Frame]) -> list[torch.Tensor]:
        known = {id(frame): small for frame, small in self._known}
        downscaled = [known[id(f)] if id(f) in known else self._downscaled(f) for f in frames]
        wanted = {id(f) for f in frames}
        # mode decision also asks for shorter blocks, which end at one of the frames before
        older = [item for item in self._known if id(item[0]) not in wanted][-SPAN_FRAMES:]
        self._known = [*older, *zip(frames, downscaled, strict=True)]
        return downscaled

    def _downscaled(self, frame: Frame) -> torch.Tensor:
        """(1, 3, H / 4, W / 4) in [-1, 1], where H and W are padded to whole cells."""
        whole = padded(torch.from_numpy(frame.rgb).to(self._device)[None], self._tokenizer.spec.cell)
        return F.avg_pool2d(whole, DOWNSCALE)

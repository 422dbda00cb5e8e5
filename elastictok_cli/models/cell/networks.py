"""The default model: a residual around a classical codec, trainable end to end.

One block of 4 frames is coded in four steps, every one of which starts, untrained, as the textbook codec:

1. motion: cells sample the last decoded frame along one velocity each (`motion.py`). A velocity is one token,
   sent only where it pays; other cells go on with the velocity they had in the block before, changed as some
   that send one lead them to (`leaders.py`).
2. prediction: a network refines the moved frames, seeing what the last block left behind (starts at zero).
3. transform: the 16x16x4 residual of each cell is projected on its KLT basis, and the coefficients are
   quantized by residual FSQ in the order of reverse water-filling: each token refines the 6 coefficients with most
   variance left. Which these are differs from cell to cell (flat, striped, busy, moving), so two digits of the
   first token name one of 40 classes, each with an order and steps of its own (classified transform coding).
   Means and steps of later tokens depend on what the cell has told so far (start fixed).
4. synthesis: the transposed projection, then a network that sees neighbours, kept lengths and the prediction,
   and removes what quantization and dropped tails did (starts at zero).

In keyframe blocks, cells that keep no token are filled in from the others between 3 and 4 (`fill.py`). In predicted
ones, cells that keep none and do not move are copied from the last frame, as networks asked again and again would
drift.

The encoder never sees how many tokens will be kept, so tokens are nested: one encode serves every length.
Keyframe blocks have no prediction and a basis of their own.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from elastictok_cli.models.cell import fill
from elastictok_cli.models.cell.config import KEY, DefaultConfig
from elastictok_cli.models.cell.context import Context
from elastictok_cli.models.cell.layers import ResBlock, pointwise, zero
from elastictok_cli.models.cell.motion import compensation
from elastictok_cli.models.cell.quantizer import NestedQuantizer
from elastictok_cli.models.cell.selection import Selection
from elastictok_cli.models.cell.transform import (
    from_cells,
    from_eighth,
    project,
    project_rows,
    to_cells,
    to_eighth,
)

_MOST = 0.7  # share of cells above which all are worked on, as one picture


class DefaultModel(nn.Module):
    """The networks and bases. `DefaultTokenizer` wraps them in the codec's interface."""

    basis: torch.Tensor

    def __init__(self, config: DefaultConfig) -> None:
        super().__init__()
        self.config = config
        c = config
        patch = 3 * c.frames * c.cell**2  # 3,072 values in a cell
        eighth = 3 * c.frames * 64  # 768 values in an 8x8 patch
        # orthonormal rows, not trained: errors of coefficients stay errors of pixels, which allocation relies on
        self.register_buffer("basis", torch.zeros(2, c.coefficients, patch))
        self.key_mean = nn.Parameter(torch.zeros(3))
        self.quantizer = NestedQuantizer(c)
        self.prior = Prior(c)
        self.predict_in = nn.Conv2d(eighth + c.width, c.width, 1)
        self.predict_trunk = nn.Sequential(*(ResBlock(c.width) for _ in range(c.predict_blocks)))
        self.predict_out = zero(nn.Conv2d(c.width, eighth, 1))
        self.rough_in = nn.Conv2d(2 * eighth, c.width, 1)
        self.latent_in = nn.Conv2d(c.coefficients + 3, 4 * c.width, 1)
        self.kind_bias = nn.Parameter(torch.zeros(2, c.width))
        self.synthesis_trunk = nn.Sequential(*(ResBlock(c.width) for _ in range(c.synthesis_blocks)))
        self.synthesis_out = zero(nn.Conv2d(c.width, eighth, 1))

    # Each step below is a plain function of tensors, so that training, encoding and decoding share it.

    def moved(
        self, context: Context, velocity: torch.Tensor, count: int, path: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Step 1: the last frame along the velocities, and along a path (B, count, 2) in pixels that everything takes
        besides. Returns (B, 4, 3, H, W).

        Of a short block only `count` frames are real; motion stops there, as its padding repeats the last one.
        """
        still = context.frame[:, None].expand(-1, self.config.frames, -1, -1, -1)
        if path is None:
            return self.moved_again(still, torch.zeros_like(velocity), context, velocity, count)
        nothing = torch.full_like(velocity, torch.nan)  # no cell stays where it was
        return self.moved_again(still, nothing, context, velocity, count, path)

    def moved_again(
        self,
        moved: torch.Tensor,  # (B, 4, 3, H, W)
        before: torch.Tensor,  # (B, 2, h, w)
        context: Context,
        velocity: torch.Tensor,  # (B, 2, h, w)
        count: int,
        path: torch.Tensor | None = None,  # (B, count, 2), the same
    ) -> torch.Tensor:
        """What `moved` gives, knowing what it gave for the velocities `before`: cells that keep theirs are copied."""
        c = self.config
        times = torch.arange(1, count + 1, device=velocity.device)
        cells = Selection((velocity != before).any(1))
        if cells.most > _MOST * velocity[0, 0].numel():
            out = compensation.warp(context.frame, velocity, times, c.interpolation, path)
        else:
            out = moved[:, :count].clone(memory_format=torch.contiguous_format)
            if cells.count:
                wanted = cells.take_each(velocity).unsqueeze(2)
                patches = compensation.warp_cells(
                    context.frame, wanted, cells, c.cell, times, c.interpolation, path
                )
                cells.write_pixels(out, patches[:, :, 0])
        return torch.cat([out, out[:, -1:].expand(-1, c.frames - count, -1, -1, -1)], 1)

    def predict(
        self,
        moved: torch.Tensor,
        context: Context,
        velocity: torch.Tensor,
        count: int,
        path: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Step 2: refined prediction (B, 4, 3, H, W) and its features (B, width, H/8, W/8)."""
        # features are about the block before: carry them to the middle of this one
        middle = (count + 1) // 2
        times = torch.tensor([middle], device=velocity.device)
        there = None if path is None else path[:, middle - 1 : middle] / 8
        carried = compensation.warp(context.features, velocity / 8, times, path=there)[:, 0]
        x = pointwise(self.predict_in, to_eighth(moved), carried)
        x = self.predict_trunk(x)
        return moved + from_eighth(pointwise(self.predict_out, x), self.config.frames), x

    def refine(
        self,
        prediction: torch.Tensor,  # (B, 4, 3, H, W)
        features: torch.Tensor | None,  # (B, width, H/8, W/8) from `predict`, None for keyframe blocks
        coefficients: torch.Tensor,  # (B, K, h, w)
        keep: torch.Tensor,  # (B, h, w) residual tokens kept
        kind: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Step 4: decoded frames (B, 4, 3, H, W), not clamped, and features for the next block."""
        c = self.config
        residual = self._residual(coefficients, keep, kind)
        if kind == KEY and c.fill:
            residual, coefficients, keep = self._fill_in(prediction, residual, coefficients, keep)
        rough = prediction + residual
        kept = keep.float().unsqueeze(1)
        told = torch.cat(
            [
                coefficients / self.quantizer.scale[kind].view(1, -1, 1, 1),
                (kept == 0).float(),
                torch.log1p(kept),
                kept / c.residual_tokens,
            ],
            1,
        )
        x = pointwise(self.rough_in, to_eighth(rough), to_eighth(residual))
        x = x + F.pixel_shuffle(pointwise(self.latent_in, told), 2) + self.kind_bias[kind].view(1, -1, 1, 1)
        if features is not None:
            x = x + features
        x = self.synthesis_trunk(x)
        return rough + from_eighth(pointwise(self.synthesis_out, x), c.frames), x

    def reference(self, decoded: torch.Tensor) -> torch.Tensor:
        """The last of decoded frames (B, 4, 3, H, W) as the next block sees it: (B, 3, H, W) in [-1, 1], no gradient.

        It is not rounded to 8 bits. Where devices differ by little next to the edge of a level, they would then
        differ by all of it, and that grows from block to block (tests/codec/test_codec_devices.py).
        """
        return decoded[:, -1].detach().clamp(-1, 1)

    def stand_still(
        self,
        decoded: torch.Tensor,  # (B, 4, 3, H, W)
        last: torch.Tensor,  # (B, 3, H, W)
        still: torch.Tensor,  # (B, h, w) bool: cells that do not move
        keep: torch.Tensor,  # (B, h, w) tokens kept, a velocity among them
    ) -> torch.Tensor:
        """Decoded frames in which cells that keep no token and do not move show what they showed before."""
        if not self.config.still:
            return decoded
        side = self.config.cell
        copied = (keep == 0) & still
        wide = copied.repeat_interleave(side, -2).repeat_interleave(side, -1)[:, None, None]
        return torch.where(wide, last[:, None], decoded)

    def _fill_in(
        self, prediction: torch.Tensor, residual: torch.Tensor, coefficients: torch.Tensor, keep: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Residual, coefficients and keep map as if cells without a token had told, with one, what fills them in.
        Pictures without any token have nothing to fill them in from, and stay as they are."""
        told = keep > 0
        filled = ~told & told.flatten(1).any(1).view(-1, 1, 1)
        if not bool(filled.any()):
            return residual, coefficients, keep
        side = self.config.cell
        rough = prediction + residual
        smooth = fill.smooth(fill.means(rough.flatten(1, 2)), told).view_as(rough)
        wide = filled.repeat_interleave(side, -2).repeat_interleave(side, -1)[:, None, None]
        residual = torch.where(wide, smooth - prediction, residual)
        rows = coefficients.permute(0, 2, 3, 1).clone()  # (B, h, w, K)
        patches = to_cells(residual, side).permute(0, 2, 3, 1)
        rows[filled] = project_rows(patches[filled], self.basis[KEY])
        return residual, rows.permute(0, 3, 1, 2), torch.where(filled, 1, keep)

    def _residual(self, coefficients: torch.Tensor, keep: torch.Tensor, kind: int) -> torch.Tensor:
        """Frames (B, 4, 3, H, W) of coefficients (B, K, h, w), which are zero where `keep` (B, h, w) is."""
        told = keep > 0
        if coefficients.requires_grad or int(told.sum()) > _MOST * told.numel():
            return from_cells(project(coefficients, self.basis[kind].t()), self.config)
        rows = coefficients.permute(0, 2, 3, 1)  # (B, h, w, K)
        patches = rows.new_zeros(*told.shape, self.basis.shape[2])
        patches[told] = project_rows(rows[told], self.basis[kind].t())
        return from_cells(patches.permute(0, 3, 1, 2), self.config)


class Prior(nn.Module):
    """What a cell knows about its own statistics before its first token: the last block's features."""

    def __init__(self, config: DefaultConfig) -> None:
        super().__init__()
        self.down = nn.Conv2d(config.width, config.prior_width, 4, stride=2, padding=1)
        self.mix = nn.Conv2d(config.prior_width, config.prior_width, 3, padding=1)
        self.key = nn.Parameter(torch.zeros(config.prior_width))

    def forward(self, context: Context | None, grid: tuple[int, int], batch: int) -> torch.Tensor:
        """(B, prior_width, h, w); one learned vector everywhere where there is no context."""
        if context is None:
            return self.key.view(1, -1, 1, 1).expand(batch, -1, *grid)
        x = F.silu(self.down(context.features))
        out: torch.Tensor = x + self.mix(x)
        return out

"""The networks of the default model, and its transform bases.

Each method of `DefaultModel` is a plain function of tensors, so that training, encoding and decoding share it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from elastictok_cli.models.cell import fill
from elastictok_cli.models.cell.config import KEY, DefaultConfig
from elastictok_cli.models.cell.context import Context
from elastictok_cli.models.cell.layers import ResBlock, pointwise, zero
from elastictok_cli.models.cell.motion.compensation import warp
from elastictok_cli.models.cell.quantizer import NestedQuantizer
from elastictok_cli.models.cell.screen.patches import ScreenCells
from elastictok_cli.models.cell.selection import Selection
from elastictok_cli.models.cell.transform import (
    from_cells,
    from_eighth,
    project,
    project_rows,
    to_cells,
    to_eighth,
)

_MOSTLY_CODED = 0.7  # share of cells with a code from which on all are transformed back at once


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

    def predict(
        self,
        moved: torch.Tensor,  # (B, 4, 3, H, W) the motion-compensated reference
        context: Context,
        vectors: torch.Tensor,  # (B, 2, h, w) motion vectors
        count: int,
        shake: torch.Tensor | None = None,  # (B, count, 2) displacement of the whole picture in pixels
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The refined prediction (B, 4, 3, H, W) and its features (B, width, H/8, W/8)."""
        # features are about the block before: carry them to the middle of this one
        middle = (count + 1) // 2
        times = torch.tensor([middle], device=vectors.device)
        middle_shake = None if shake is None else shake[:, middle - 1 : middle] / 8
        carried = warp(context.features, vectors / 8, times, shake=middle_shake)[:, 0]
        x = pointwise(self.predict_in, to_eighth(moved), carried)
        x = self.predict_trunk(x)
        return moved + from_eighth(pointwise(self.predict_out, x), self.config.frames), x

    def synthesize(
        self,
        prediction: torch.Tensor,  # (B, 4, 3, H, W)
        features: torch.Tensor | None,  # (B, width, H/8, W/8) from `predict`, None for keyframe blocks
        coefficients: torch.Tensor,  # (B, K, h, w)
        keep: torch.Tensor,  # (B, h, w) FSQ codes kept
        kind: int,
        screen: ScreenCells | None = None,  # cells that are decoded already
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Synthesis: decoded frames (B, 4, 3, H, W), not clamped, and features for the next block.

        Screen cells come out as they are. To the cells around them they look like cells that keep one FSQ code.
        """
        c = self.config
        residual = self._residual(coefficients, keep, kind)
        if screen is not None:
            residual = residual.clone()
            difference = screen.pixels - screen.cells.take_patches(prediction, c.cell)
            screen.cells.write_patches(residual, difference)
            told = project_rows(difference.flatten(1), self.basis[kind])
            coefficients = screen.cells.put(coefficients, told.t()[None, :, None])
            keep = torch.where(screen.cells.where, 1, keep)
        if kind == KEY and c.fill_in:
            residual, coefficients, keep = self._fill_in(prediction, residual, coefficients, keep)
        rough = prediction + residual
        kept = keep.float().unsqueeze(1)
        latent = torch.cat(
            [
                coefficients / self.quantizer.scale[kind].view(1, -1, 1, 1),
                (kept == 0).float(),
                torch.log1p(kept),
                kept / c.residual_tokens,
            ],
            1,
        )
        x = pointwise(self.rough_in, to_eighth(rough), to_eighth(residual))
        x = x + F.pixel_shuffle(pointwise(self.latent_in, latent), 2) + self.kind_bias[kind].view(1, -1, 1, 1)
        if features is not None:
            x = x + features
        x = self.synthesis_trunk(x)
        decoded = rough + from_eighth(pointwise(self.synthesis_out, x), c.frames)
        if screen is not None:
            screen.cells.write_patches(decoded, screen.pixels)
        return decoded, x

    def reference(self, decoded: torch.Tensor) -> torch.Tensor:
        """The last of decoded frames (B, 4, 3, H, W) as the next block sees it: (B, 3, H, W) in [-1, 1], no gradient.

        It is not rounded to 8 bits. Two devices that differ by little would then sometimes differ by a whole level, and
        such differences grow from block to block (tests/codec/test_codec_devices.py).
        """
        return decoded[:, -1].detach().clamp(-1, 1)

    def copy_still(self, decoded: torch.Tensor, last: torch.Tensor, copied: torch.Tensor) -> torch.Tensor:
        """Decoded frames (B, 4, 3, H, W) in which some cells show what they showed in `last` (B, 3, H, W).

        copied: (B, h, w) bool, the cells that do not move and keep no token. Networks asked again and again would
        make them drift.
        """
        return torch.where(self._to_pixels(copied), last[:, None], decoded)

    def _fill_in(
        self, prediction: torch.Tensor, residual: torch.Tensor, coefficients: torch.Tensor, keep: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Fill in the cells of keyframe blocks that keep no code, from the others.

        Returns residual (B, 4, 3, H, W), coefficients (B, K, h, w) and keep map (B, h, w) as if those cells had
        kept one code that says what fills them in. A picture without any code stays as it is.
        """
        coded = keep > 0
        empty = Selection(~coded & coded.flatten(1).any(1).view(-1, 1, 1))
        if not empty.count:
            return residual, coefficients, keep
        rough = prediction + residual
        smooth = fill.smooth(fill.means(rough.flatten(1, 2)), coded).view_as(rough)
        residual = torch.where(self._to_pixels(empty.where), smooth - prediction, residual)
        patches = empty.take(to_cells(residual, self.config.cell))
        coefficients = empty.put(coefficients, project(patches, self.basis[KEY]))
        return residual, coefficients, torch.where(empty.where, 1, keep)

    def _residual(self, coefficients: torch.Tensor, keep: torch.Tensor, kind: int) -> torch.Tensor:
        """Frames (B, 4, 3, H, W) of coefficients (B, K, h, w), which are zero where `keep` (B, h, w) is."""
        back = self.basis[kind].t()
        if coefficients.requires_grad or (coded := Selection(keep > 0)).count > _MOSTLY_CODED * keep.numel():
            return from_cells(project(coefficients, back), self.config)
        batch, _, rows, columns = coefficients.shape
        patches = coefficients.new_zeros(batch, rows, columns, len(back)).permute(0, 3, 1, 2)
        return from_cells(coded.put(patches, project(coded.take(coefficients), back)), self.config)

    def _to_pixels(self, cells: torch.Tensor) -> torch.Tensor:
        """A map of cells (B, h, w) as one of pixels, (B, 1, 1, H, W)."""
        side = self.config.cell
        return cells.repeat_interleave(side, -2).repeat_interleave(side, -1)[:, None, None]


class Prior(nn.Module):
    """What is known about the statistics of a cell before its first token, from the last block's features."""

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

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
from elastictok_cli.models.cell.layers import Derived, ResBlock, zero
from elastictok_cli.models.cell.motion.compensation import warp
from elastictok_cli.models.cell.quantizer import NestedQuantizer
from elastictok_cli.models.cell.screen.patches import ScreenCells
from elastictok_cli.models.cell.selection import Selection
from elastictok_cli.models.cell.transform import PATCH, from_map, from_stored, project, to_cells, to_map

_MOSTLY_CODED = 0.7  # share of cells with a code from which on all are transformed back at once


class DefaultModel(nn.Module):
    """The networks and bases. `DefaultTokenizer` wraps them in the codec's interface."""

    basis: torch.Tensor

    def __init__(self, config: DefaultConfig) -> None:
        super().__init__()
        self.config = config
        c = config
        patch = 3 * c.frames * c.cell**2  # 3,072 values in a cell
        eighth = 3 * c.frames * PATCH**2  # 768 values in an 8x8 patch
        self._patch_values = eighth
        self._derived = Derived()
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

    def transform(self, kind: int) -> torch.Tensor:
        """The basis of a kind of blocks (KEY or INTER) for values in the order of `to_cells`, (K, 3072)."""
        c = self.config
        return self._derived.get(
            ("basis", kind), (self.basis,), lambda: from_stored(self.basis[kind], c.frames, c.cell)
        )

    def grey(self, batch: int, grid: tuple[int, int]) -> torch.Tensor:
        """The prediction of keyframe blocks, the mean colour everywhere: (B, h, w, 3072)."""
        c = self.config
        colour = self.key_mean.view(1, 1, 3, 1).expand((c.cell // PATCH) ** 2, c.frames, 3, PATCH**2)
        return colour.reshape(1, 1, 1, -1).expand(batch, *grid, -1)

    def predict(
        self,
        moved: torch.Tensor,  # (B, 4, 3, H, W) the motion-compensated reference
        context: Context,
        vectors: torch.Tensor,  # (B, 2, h, w) motion vectors
        count: int,
        shake: torch.Tensor | None = None,  # (B, count, 2) displacement of the whole picture in pixels
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The refined prediction (B, h, w, 3072) and its features (B, width, H/8, W/8)."""
        # features are about the block before: carry them to the middle of this one
        middle = (count + 1) // 2
        times = torch.tensor([middle], device=vectors.device)
        middle_shake = None if shake is None else shake[:, middle - 1 : middle] / 8
        carried = warp(context.features, vectors / 8, times, shake=middle_shake)[:, 0]
        cells = to_cells(moved, self.config.cell)
        weight = self.predict_in.weight.flatten(1)
        of_moved, of_carried = weight[:, : self._patch_values], weight[:, self._patch_values :]
        x = to_map(F.linear(self._patches(cells), of_moved, self.predict_in.bias))
        x = self.predict_trunk(x + F.linear(carried.permute(0, 2, 3, 1), of_carried).permute(0, 3, 1, 2))
        return self._add_layer(cells, self.predict_out, x), x

    def enter_synthesis(
        self, prediction: torch.Tensor, features: torch.Tensor | None, kind: int
    ) -> torch.Tensor:
        """What a prediction puts into the synthesis network: (B, width, H/8, W/8). All decodes of a block share it.

        prediction: (B, h, w, 3072); features: (B, width, H/8, W/8) from `predict`, None for keyframe blocks.
        """
        of_rough, _ = self._rough_weights()
        assert self.rough_in.bias is not None
        x = to_map(F.linear(self._patches(prediction), of_rough, self.rough_in.bias + self.kind_bias[kind]))
        return x if features is None else x + features

    def synthesize(
        self,
        prediction: torch.Tensor,  # (B, h, w, 3072)
        entered: torch.Tensor,  # (B, width, H/8, W/8) from `enter_synthesis`
        coefficients: torch.Tensor,  # (B, K, h, w), zero where nothing is kept
        keep: torch.Tensor,  # (B, h, w) FSQ codes kept
        kind: int,
        screen: ScreenCells | None = None,  # cells that are decoded already
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Synthesis: decoded cells (B, h, w, 3072), not clamped, and features (B, width, H/8, W/8) for the next block.

        Screen cells come out as they are. To the cells around them they look like cells that keep one FSQ code.
        """
        cell = self.config.cell
        coefficients = coefficients.permute(0, 2, 3, 1)
        rough = self._add_residual(prediction, coefficients, keep, kind)
        shown = None  # cells whose residual is not what the coefficients say
        if screen is not None:
            pixels = to_cells(screen.pixels, cell)[:, 0, 0]
            rough = screen.cells.put_rows(rough, pixels)
            shown = screen.cells
        if kind == KEY and self.config.fill_in:
            filled = self._fill_in(rough, keep > 0 if shown is None else (keep > 0) | shown.where)
            if filled is not None:
                rough, empty = filled
                shown = empty if shown is None else Selection(shown.where | empty.where)
        beyond = None
        if shown is not None:
            difference = shown.rows(rough) - shown.rows(prediction)
            basis = self.transform(kind)
            told = project(difference, basis)
            coefficients, keep = shown.put_rows(coefficients, told), torch.where(shown.where, 1, keep)
            beyond = shown, difference - project(told, basis.t())
        x = self.synthesis_trunk(entered + to_map(self._enter_residual(coefficients, keep, kind, beyond)))
        decoded = self._add_layer(rough, self.synthesis_out, x)
        if screen is not None:
            decoded = screen.cells.put_rows(decoded, pixels)
        return decoded, x

    def _enter_residual(
        self,
        coefficients: torch.Tensor,
        keep: torch.Tensor,
        kind: int,
        beyond: tuple[Selection, torch.Tensor] | None,
    ) -> torch.Tensor:
        """What a residual puts into the synthesis network, for the patches of each cell: (B, h, w, 4, width).

        coefficients: (B, h, w, K); keep: (B, h, w); beyond: cells whose residual is not only that of the coefficients,
        and what it is besides (n, 3072).
        """
        c = self.config
        kept = keep.float().unsqueeze(3)
        facts = torch.cat([(kept == 0).float(), torch.log1p(kept), kept / c.residual_tokens], 3)
        sources = (self.latent_in.weight, self.rough_in.weight, self.basis, self.quantizer.scale)
        of_coefficients = self._derived.get(("residual", kind), sources, lambda: self._residual_weight(kind))
        patches = (c.cell // PATCH) ** 2
        weight, bias = self.latent_in.weight.view(c.width, patches, -1), self.latent_in.bias
        assert bias is not None
        of_facts = weight[:, :, c.coefficients :].transpose(0, 1).flatten(0, 1)
        x = F.linear(facts, of_facts, bias.view(c.width, patches).t().flatten())
        x = (x + F.linear(coefficients, of_coefficients)).view(*keep.shape, patches, c.width)
        if beyond is not None:
            cells, rest = beyond
            more = F.linear(rest.view(len(rest), patches, -1), self._rough_weights()[1])
            x = cells.put_rows(x, cells.rows(x) + more)
        return x

    def _residual_weight(self, kind: int) -> torch.Tensor:
        """What the synthesis network makes of the coefficients of a cell, (4 * width, K).

        It sees them twice: as numbers, and as the residual that they are the transform of. Both are linear.
        """
        c = self.config
        patches = (c.cell // PATCH) ** 2
        of_numbers = self.latent_in.weight.view(c.width, patches, -1)[:, :, : c.coefficients].transpose(0, 1)
        basis = self.transform(kind).view(c.coefficients, patches, -1)
        of_residual = torch.einsum("wv,kpv->pwk", self._rough_weights()[1], basis)
        return (of_numbers / self.quantizer.scale[kind] + of_residual).flatten(0, 1)

    def _rough_weights(self) -> tuple[torch.Tensor, torch.Tensor]:
        """What the synthesis network makes of the prediction and of the residual of a patch, (width, 768) each.

        It sees their sum, and the residual.
        """
        of_sum, of_residual = self.rough_in.weight.flatten(1).chunk(2, 1)
        return of_sum, of_sum + of_residual

    def _patches(self, cells: torch.Tensor) -> torch.Tensor:
        """Values of cells (B, h, w, 3072) by patches of 8x8 pixels, (B, h, w, 4, 768)."""
        return cells.reshape(*cells.shape[:3], -1, self._patch_values)

    def _add_layer(self, cells: torch.Tensor, layer: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
        """Values of cells (B, h, w, 3072) and what a pointwise layer makes of features (B, width, H/8, W/8)."""
        patches = from_map(x, self.config.cell // PATCH)
        change = F.linear(patches, layer.weight.flatten(1), layer.bias).flatten(3)
        return change.add_(cells) if change.dtype == cells.dtype else change + cells

    def _add_residual(
        self, prediction: torch.Tensor, coefficients: torch.Tensor, keep: torch.Tensor, kind: int
    ) -> torch.Tensor:
        """A prediction (B, h, w, 3072) and the residual of coefficients (B, h, w, K), zero where `keep` is."""
        back = self.transform(kind).t()
        if coefficients.requires_grad or (coded := Selection(keep > 0)).count > _MOSTLY_CODED * keep.numel():
            return prediction + project(coefficients, back)
        return coded.put_rows(prediction, coded.rows(prediction) + project(coded.rows(coefficients), back))

    def _fill_in(self, rough: torch.Tensor, coded: torch.Tensor) -> tuple[torch.Tensor, Selection] | None:
        """Fill in the cells of keyframe blocks that are not coded from the others: rough (B, h, w, 3072) with them
        filled in, and which they are. None where there are none. A picture without any coded cell stays as it is.
        """
        c = self.config
        empty = Selection(~coded & coded.flatten(1).any(1).view(-1, 1, 1))
        if not empty.count:
            return None
        means = self._patches(rough).unflatten(4, (-1, PATCH**2)).mean(5)  # type: ignore[no-untyped-call]
        smooth = fill.smooth(to_map(means), coded).unflatten(1, (c.frames, 3))  # type: ignore[no-untyped-call]
        return empty.put_rows(rough, empty.rows(to_cells(smooth, c.cell))), empty

    def reference(self, decoded: torch.Tensor) -> torch.Tensor:
        """The last of decoded frames (B, T, 3, H, W) as the next block sees it: (B, 3, H, W) in [-1, 1], no gradient.

        It is not rounded to 8 bits. Two devices that differ by little would then sometimes differ by a whole level, and
        such differences grow from block to block (tests/codec/test_codec_devices.py).
        """
        return decoded[:, -1].detach().clamp(-1, 1)

    def copy_still(self, decoded: torch.Tensor, last: torch.Tensor, copied: torch.Tensor) -> torch.Tensor:
        """Decoded frames (B, T, 3, H, W) in which some cells show what they showed in `last` (B, 3, H, W).

        copied: (B, h, w) bool, the cells that do not move and keep no token. Networks asked again and again would
        make them drift.
        """
        return torch.where(self._to_pixels(copied), last[:, None], decoded)

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

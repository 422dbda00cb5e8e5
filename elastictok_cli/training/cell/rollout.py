"""Running the model over consecutive blocks as the codec does, for the KLT start and training.

It calls the codec's own `analyze`, `quantize` and `reconstruct`, with gradients on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from elastictok_cli.codec import allocation
from elastictok_cli.models.cell.config import KEY
from elastictok_cli.models.cell.context import Context
from elastictok_cli.models.cell.decode import reconstruct
from elastictok_cli.models.cell.encode import analyze, quantize
from elastictok_cli.models.cell.fill import filled_errors
from elastictok_cli.models.cell.networks import DefaultModel
from elastictok_cli.models.cell.transform import project
from elastictok_cli.models.precision import full_precision


@dataclass(frozen=True)
class Step:
    """One block of a rollout."""

    kind: int
    residual: torch.Tensor  # (B, h, w, 3072) what the transform was given, in the order of `to_cells`
    decoded: torch.Tensor  # (B, 4, 3, H, W) not clamped
    keep: torch.Tensor  # (B, h, w) FSQ codes kept
    sent: torch.Tensor  # (B, h, w) bool: cells that send a motion vector
    mse: torch.Tensor  # (B,)
    linear_mse: torch.Tensor  # (B,) before the synthesis network
    curve: (
        torch.Tensor
    )  # (B, R + 1, h, w) squared error of each cell after k codes, before the synthesis network


KeepRule = Callable[[torch.Tensor], torch.Tensor]  # curve (B, R + 1, h, w) -> keep (B, h, w)


def rollout(
    model: DefaultModel, clip: torch.Tensor, counts: Sequence[int], target: torch.Tensor, rule: KeepRule
) -> Iterator[Step]:
    """Closed loop over clip (B, T, 3, H, W), cut in blocks of `counts` frames; the first is a keyframe block.

    target: (B,) MSE that steers which motion vectors are sent; `rule` says how many tokens stay. Gradients flow
    through features from block to block, not through the decoded frame.
    """
    c = model.config
    context: Context | None = None
    first = 0
    for count in counts:
        block = short_block(clip[:, first : first + count], c.frames)
        first += count
        seen = analyze(model, block, context, count=count, threshold=0.5 * target.view(-1, 1, 1))
        kind, energy = seen.prediction.kind, seen.energy.detach()
        wanted = project(seen.residual, model.transform(kind)).permute(0, 3, 1, 2)
        allowed = target.view(-1, 1, 1).expand(energy[:, 0].shape) * model.basis.shape[-1]
        cell_class = model.quantizer.classify(wanted, energy[:, 0], allowed, kind)
        coded, error = quantize(model, kind, wanted, energy, seen.prior, cell_class)
        fills = kind == KEY and c.fill_in
        with torch.no_grad():
            curve = torch.cat([energy, error], 1)
            if fills:
                length = torch.full_like(cell_class, c.residual_tokens)
                filled = filled_errors(block, count, c.cell)
                found = allocation.filled_in(
                    curve, length, allocation.within(target * block[0].numel()), filled
                )
                curve = torch.cat([found.without.unsqueeze(1), curve[:, 1:]], 1)
            keep = rule(curve)
        sent = torch.zeros_like(keep, dtype=torch.bool) if seen.motion is None else seen.motion.sent
        coefficients = model.quantizer.assemble(coded.changes, keep, kind, cell_class)
        decoded, context = reconstruct(model, seen.prediction, coefficients, keep, keep + sent, context)
        # the basis is orthonormal: what the coefficients miss, and what lies outside them
        linear = seen.energy[:, 0] - _squares(wanted) + _squares(wanted - coefficients)  # (B, h, w)
        if fills:
            linear = torch.where(keep > 0, linear, curve[:, 0])
        linear_mse = (linear.sum((1, 2)) / block[0].numel()).clamp_min(0)
        yield Step(kind, seen.residual, decoded, keep, sent, _mse(decoded, block), linear_mse, curve)


@full_precision
def _mse(decoded: torch.Tensor, block: torch.Tensor) -> torch.Tensor:
    """(B,) of frames (B, 4, 3, H, W)."""
    return (decoded - block).square().mean((1, 2, 3, 4))


@full_precision
def _squares(coefficients: torch.Tensor) -> torch.Tensor:
    """(B, K, h, w) to the sum of squares of each cell, (B, h, w)."""
    return coefficients.square().sum(1)


def short_block(frames: torch.Tensor, size: int) -> torch.Tensor:
    """(B, n, 3, H, W), n <= size, to (B, size, 3, H, W): the last frame is repeated."""
    return torch.cat([frames, frames[:, -1:].expand(-1, size - frames.shape[1], -1, -1, -1)], 1)


def random_keep(target: torch.Tensor, pixels: int, generator: torch.Generator) -> KeepRule:
    """Training's tail drop. Most items get the allocation the codec would choose for their target, jittered; the
    rest get one random length for the whole block, as in the paper (section 3.2). target: (B,) MSE.
    """

    def rule(curve: torch.Tensor) -> torch.Tensor:
        batch, slots, height, width = curve.shape
        length = torch.full((batch, height, width), slots - 1, device=curve.device)
        chosen = allocation.to_target(curve, length, target * pixels)
        noise = torch.rand(batch, height, width, generator=generator).to(curve.device)
        chosen = chosen + (noise < 0.1).long() - (noise > 0.9).long()
        flat = torch.rand(batch, 1, 1, generator=generator).to(curve.device).pow(2) * slots
        is_flat = torch.rand(batch, 1, 1, generator=generator).to(curve.device) < 0.15
        return torch.where(is_flat, flat.long(), chosen).clamp(0, slots - 1)

    return rule

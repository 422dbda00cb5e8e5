"""Running the model over consecutive blocks the way the codec will, for the KLT start, training and validation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from elastictok_cli.codec import allocation
from elastictok_cli.models.cell.config import INTER, KEY
from elastictok_cli.models.cell.context import Context
from elastictok_cli.models.cell.fill import filling
from elastictok_cli.models.cell.motion.decision import choose_motion
from elastictok_cli.models.cell.networks import DefaultModel
from elastictok_cli.models.cell.transform import cell_energy, project, to_cells
from elastictok_cli.models.precision import full_precision


@dataclass(frozen=True)
class Step:
    """One block of a rollout."""

    kind: int
    residual: torch.Tensor  # (B, 4, 3, H, W) what the transform was given
    decoded: torch.Tensor  # (B, 4, 3, H, W) not clamped
    keep: torch.Tensor  # (B, h, w) residual tokens
    sent: torch.Tensor  # (B, h, w) bool, velocities
    mse: torch.Tensor  # (B,)
    linear_mse: torch.Tensor  # (B,) before the last network
    curve: torch.Tensor  # (B, R + 1, h, w) squared error of each cell after k tokens, before the last network


KeepRule = Callable[[torch.Tensor], torch.Tensor]  # curve (B, R + 1, h, w) -> keep (B, h, w)


def rollout(
    model: DefaultModel, clip: torch.Tensor, counts: Sequence[int], target: torch.Tensor, rule: KeepRule
) -> Iterator[Step]:
    """Closed loop over clip (B, T, 3, H, W), cut in blocks of `counts` frames; the first is a keyframe block.

    target: (B,) MSE that steers which velocities are sent; `rule` says how many tokens stay. Gradients flow
    through features from block to block, not through the decoded frame.
    """
    c = model.config
    context: Context | None = None
    first = 0
    for count in counts:
        block = short_block(clip[:, first : first + count], c.frames)
        first += count
        grid = (block.shape[-2] // c.cell, block.shape[-1] // c.cell)
        features = None
        if context is None:
            kind = KEY
            prediction = model.key_mean.view(1, 1, 3, 1, 1).expand_as(block)
            lasting = block.new_zeros(block.shape[0], 2, *grid)
            sent = torch.zeros(block.shape[0], *grid, dtype=torch.bool, device=block.device)
        else:
            kind = INTER
            with torch.no_grad():
                threshold = 0.5 * target.view(-1, 1, 1)
                found = choose_motion(model, block, context, threshold, count)
            sent, lasting = found.sent, found.lasting
            prediction, features = model.predict(found.moved, context, found.velocity, count, found.path)
        residual = block - prediction
        prior = model.prior(context, grid, block.shape[0])
        wanted = project(to_cells(residual, c.cell), model.basis[kind])
        with torch.no_grad():
            energy = cell_energy(residual, c.cell).unsqueeze(1)
            allowed = target.view(-1, 1, 1).expand(energy[:, 0].shape) * model.basis.shape[-1]
            cell_class = model.quantizer.classify(wanted, energy[:, 0], allowed, kind)
        coded = model.quantizer(prior, kind, cell_class, target=wanted)
        with torch.no_grad():
            curve = torch.cat([energy, (energy - coded.gains.cumsum(1)).clamp_min(0)], 1)
            if kind == KEY and c.fill:
                error = target * block[0].numel()
                length = torch.full_like(cell_class, c.residual_tokens)
                curve, _ = allocation.filled_in(curve, length, error, filling(block, count, c.cell))
            keep = rule(curve)
        coefficients = model.quantizer.assemble(coded.changes, keep, kind, cell_class)
        decoded, left = model.refine(prediction, features, coefficients, keep, kind)
        if context is not None:
            decoded = model.stand_still(decoded, context.frame, found.still, keep + sent)
        mse = _mse(decoded, block)
        # the basis is orthonormal: what the coefficients miss, and what lies outside them
        linear = cell_energy(residual, c.cell) - _squares(wanted)  # with a gradient, unlike `energy`
        linear = linear + _squares(wanted - coefficients)  # (B, h, w)
        if kind == KEY and c.fill:
            linear = torch.where(keep > 0, linear, curve[:, 0])
        linear = linear.sum((1, 2)) / block[0].numel()
        yield Step(kind, residual, decoded, keep, sent, mse, linear.clamp_min(0), curve)
        context = Context(model.reference(decoded), left, lasting)


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

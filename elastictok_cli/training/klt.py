"""The start every training run begins from: a KLT codec fitted to the data, no gradient involved.

The basis is the principal components of 16x16x4 residuals (weighted so that busy cells do not decide alone).
Tokens are assigned by reverse water-filling: each stage's digits go to the coefficients with most variance
left among cells that still need tokens, and each digit's step is the one that leaves least error.
"""

from __future__ import annotations

import torch

from elastictok_cli.tokenizer.default import INTER, KEY, DefaultConfig, DefaultModel, cell_energy, to_cells
from elastictok_cli.training.data import Sampler
from elastictok_cli.training.rollout import random_keep, rollout, short_block

_NEEDY = 0.002  # MSE above which a cell still wants tokens


def fit(model: DefaultModel, sampler: Sampler, *, clips: int = 384, seed: int = 0) -> None:
    """Set mean, bases, steps and token order from `clips` random crops; networks are left as they are."""
    generator = torch.Generator().manual_seed(seed)
    batches = [sampler.batch(16, photo_share=0.3) for _ in range(max(1, clips // 16))]
    with torch.no_grad():
        model.key_mean.copy_(torch.stack([b.mean((0, 1, 3, 4)) for b in batches]).mean(0))
        size = model.config.frames
        mean = model.key_mean.view(1, 1, 3, 1, 1)
        # the codec starts moving shots with a block of one frame, calm ones with a full block
        keys = [short_block(b[:, : (1, size)[n % 2]], size) - mean for n, b in enumerate(batches)]
        _fit_kind(model, KEY, keys)
        residuals = []
        for n, batch in enumerate(batches):
            target = torch.exp(torch.empty(len(batch)).uniform_(-6.5, -4.0, generator=generator))
            rule = random_keep(target, batch[0, :size].numel(), generator)
            # two blocks: the second one's residual, after motion, is what the inter basis is for
            steps = list(rollout(model, batch, ((1, size)[n % 2], size), target, rule))
            residuals.append(steps[1].residual)
        _fit_kind(model, INTER, residuals)


def _fit_kind(model: DefaultModel, kind: int, residuals: list[torch.Tensor]) -> None:
    cell = model.config.cell
    patch = model.basis.shape[-1]
    cells = []
    for residual in residuals:
        rows = to_cells(residual, cell).permute(0, 2, 3, 1).reshape(-1, patch)
        energy = cell_energy(residual, cell).flatten() / patch
        cells.append(rows[energy > _NEEDY / 2])
    x = torch.cat(cells)
    weight = 1 / (x.square().mean(1) + 0.01)
    covariance = (x * weight.unsqueeze(1)).t() @ x / weight.sum()
    covariance += _still_luma(model.config, covariance)
    vectors = torch.linalg.eigh(covariance)[1].flip(1)[:, : model.config.coefficients].t().contiguous()
    model.basis[kind] = vectors
    coefficients = x @ vectors.t()  # (N, K)
    tail = (x.square().sum(1) - coefficients.square().sum(1)).clamp_min(0)
    model.quantizer.scale[kind] = coefficients.square().mean(0).sqrt().clamp_min(1e-3)
    _water_fill(model, kind, coefficients, tail, patch)


def _still_luma(config: DefaultConfig, covariance: torch.Tensor) -> torch.Tensor:
    """A floor under the variance of every still grey pattern, (3072, 3072).

    Natural data has almost no energy in the finest patterns, text and graphics live there. The floor is just
    high enough to bring all 256 of them into the basis; water-filling still puts them last.
    """
    grey = torch.tensor((0.299, 0.587, 0.114)).repeat(config.frames)  # one weight per (frame, channel)
    grey = grey / grey.norm()
    pixels = torch.eye(config.cell**2)
    patterns = torch.einsum("c,pq->cpq", grey, pixels).reshape(-1, config.cell**2)  # (3072, 256), orthonormal
    spectrum = torch.linalg.eigvalsh(covariance)
    floor: torch.Tensor = spectrum[-config.coefficients // 3] * (patterns @ patterns.t())
    return floor


def _water_fill(model: DefaultModel, kind: int, left: torch.Tensor, tail: torch.Tensor, patch: int) -> None:
    """Assign coefficients to digits and set steps; `left` (N, K) shrinks as tokens are spent."""
    quantizer = model.quantizer
    levels = quantizer.levels.tolist()
    factors = torch.linspace(0.25, 2.0, 15)
    first = 0
    for count in quantizer.stages:
        needy = (left.square().sum(1) + tail) / patch > _NEEDY
        if int(needy.sum()) < 1000:
            needy = (left.square().sum(1) + tail).argsort(descending=True)[:1000]
        part = left[needy]
        weight = 1 / (part.square().sum(1) + tail[needy]).sqrt()
        variance = (part.square() * weight.unsqueeze(1)).mean(0) / weight.mean()
        order = variance.argsort(descending=True)[: count * len(levels)]
        for n, coefficient in enumerate(order.tolist()):
            token, digit = first + n // len(levels), n % len(levels)
            low, high = -(levels[digit] // 2), (levels[digit] - 1) // 2
            values = part[:, coefficient]
            steps = variance[coefficient].sqrt() * factors
            codes = (values / steps.unsqueeze(1)).round().clamp(low, high)  # (15, N)
            error = ((values - codes * steps.unsqueeze(1)).square() * weight).sum(1)
            step = steps[error.argmin()]
            quantizer.index[kind, token, digit] = coefficient
            quantizer.log_step[kind, token, digit] = step.log()
            left[:, coefficient] -= (left[:, coefficient] / step).round().clamp(low, high) * step
        first += count

"""The start every training run begins from: a KLT codec fitted to the data, no gradient involved.

The basis is the principal components of 16x16x4 residuals (weighted so that busy cells do not decide alone).
Cells fall into classes, found by Lloyd's algorithm, each with a token order of its own by reverse water-filling:
each stage's digits go to the coefficients with most variance left among cells that still need tokens, and
each digit's step is the one that leaves least error.
"""

from __future__ import annotations

import torch

from elastictok_cli.models.cell import classes
from elastictok_cli.models.cell.config import INTER, KEY, DefaultConfig
from elastictok_cli.models.cell.networks import DefaultModel
from elastictok_cli.models.cell.quantizer import NestedQuantizer
from elastictok_cli.models.cell.transform import to_cells, to_stored
from elastictok_cli.training.cell.rollout import random_keep, rollout, short_block
from elastictok_cli.training.data import Sampler

_MIN_MSE_TO_CODE = 0.002  # a cell with a smaller error wants no further token
_CLASS_GOALS_MSE = (0.0015, 0.003, 0.006, 0.012)  # classes are chosen for the mean over these
_MAX_CELLS = 36_000  # of each kind of block, to fit classes on
_MIN_CELLS_OF_CLASS = 100
_LLOYD_ROUNDS = 6


def fit(model: DefaultModel, sampler: Sampler, *, clips: int = 768, seed: int = 0) -> None:
    """Set mean, bases, steps and token order from `clips` random crops; networks are left as they are."""
    generator = torch.Generator().manual_seed(seed)
    batches = [sampler.batch(16, photo_share=0.3) for _ in range(max(1, clips // 16))]
    with torch.no_grad():
        model.key_mean.copy_(torch.stack([b.mean((0, 1, 3, 4)) for b in batches]).mean(0))
        size = model.config.frames
        mean = model.key_mean.view(1, 1, 3, 1, 1)
        # the codec starts moving shots with a block of one frame, calm ones with a full block
        first = [short_block(b[:, : (1, size)[n % 2]], size) - mean for n, b in enumerate(batches)]
        keys = [to_cells(block, model.config.cell) for block in first]
        _fit_kind(model, KEY, keys, generator)
        residuals = []
        for n, batch in enumerate(batches):
            target = torch.exp(torch.empty(len(batch)).uniform_(-6.5, -4.0, generator=generator))
            rule = random_keep(target, batch[0, :size].numel(), generator)
            # two blocks: the second one's residual, after motion, is what the inter basis is for
            steps = list(rollout(model, batch, ((1, size)[n % 2], size), target, rule))
            residuals.append(steps[1].residual)
        _fit_kind(model, INTER, residuals, generator)


def _fit_kind(
    model: DefaultModel, kind: int, residuals: list[torch.Tensor], generator: torch.Generator
) -> None:
    """residuals: (B, h, w, 3072) each, in the order of `to_cells`."""
    cells = []
    for residual in residuals:
        rows = to_stored(residual.flatten(0, 2), model.config.frames, model.config.cell)
        energy = rows.square().mean(1)
        cells.append(rows[energy > _MIN_MSE_TO_CODE / 2])
    x = torch.cat(cells)
    weight = 1 / (x.square().mean(1) + 0.01)
    covariance = (x * weight.unsqueeze(1)).t() @ x / weight.sum()
    covariance += _still_luma(model.config, covariance)
    vectors = torch.linalg.eigh(covariance)[1].flip(1)[:, : model.config.coefficients].t().contiguous()
    model.basis[kind] = vectors
    coefficients = x @ vectors.t()  # (N, K)
    energy = x.square().sum(1)
    model.quantizer.scale[kind] = coefficients.square().mean(0).sqrt().clamp_min(1e-3)
    pick = torch.randperm(len(x), generator=generator)[:_MAX_CELLS]
    _fit_classes(model.quantizer, kind, coefficients[pick], energy[pick], generator)


def _fit_classes(
    quantizer: NestedQuantizer,
    kind: int,
    cells: torch.Tensor,
    energy: torch.Tensor,
    generator: torch.Generator,
) -> None:
    """Lloyd's algorithm: each class gets the token order that suits its cells (N, K), each cell the class with which
    it needs fewest tokens. Starts from clusters of log energies."""
    number_of_classes = quantizer.index.shape[1]
    patch = quantizer.patch
    tail = (energy - cells.square().sum(1)).clamp_min(0)
    goals = (torch.tensor(_CLASS_GOALS_MSE) * patch).expand(len(cells), -1)
    label = _cluster(
        torch.log(cells.square() + 0.01 * cells.square().mean(1, keepdim=True) + 1e-5),
        number_of_classes,
        generator,
    )
    for _ in range(_LLOYD_ROUNDS):
        for number in range(number_of_classes):
            own = label == number
            if int(own.sum()) < _MIN_CELLS_OF_CLASS:  # an empty class starts again from cells anywhere
                own = torch.randperm(len(cells), generator=generator)[:_MIN_CELLS_OF_CLASS]
            _water_fill(quantizer, kind, number, cells[own].clone(), tail[own], patch)
        costs = [
            classes.costs(quantizer.orders(kind), c, e, g)
            for c, e, g in zip(*(torch.split(x, 256) for x in (cells, energy, goals)), strict=True)
        ]
        label = torch.cat(costs).argmin(1)


def _cluster(features: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    """k-means labels (N,) of features (N, F)."""
    centres = features[torch.randperm(len(features), generator=generator)[:count]]
    for _ in range(12):
        label = torch.cdist(features, centres).argmin(1)
        counts = label.bincount(minlength=len(centres)).clamp_min(1)
        centres = torch.zeros_like(centres).index_add(0, label, features) / counts.unsqueeze(1)
    return label


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


def _water_fill(
    quantizer: NestedQuantizer, kind: int, number: int, left: torch.Tensor, tail: torch.Tensor, patch: int
) -> None:
    """Assign coefficients to the digits of one class and set steps; `left` (N, K) shrinks as tokens are spent."""
    levels = quantizer.levels.tolist()
    factors = torch.linspace(0.25, 2.0, 15)
    first = 0
    for count in quantizer.stages:
        rest = (left.square().sum(1) + tail) / patch
        needy = rest > _MIN_MSE_TO_CODE
        least = min(len(left), max(_MIN_CELLS_OF_CLASS, len(left) // 10))
        if int(needy.sum()) < least:
            needy = rest.argsort(descending=True)[:least]
        part = left[needy]
        weight = 1 / (part.square().sum(1) + tail[needy]).sqrt()
        variance = (part.square() * weight.unsqueeze(1)).mean(0) / weight.mean()
        slots = [(first + t, d) for t in range(count) for d in range(len(levels))]
        # every slot of a stage has a coefficient of its own, those that name the class refine nothing: last
        slots.sort(key=lambda slot: (not quantizer.refining[slot], slot))
        order = variance.argsort(descending=True)[: len(slots)].tolist()
        for (token, digit), coefficient in zip(slots, order, strict=True):
            low, high = -(levels[digit] // 2), (levels[digit] - 1) // 2
            values = part[:, coefficient]
            steps = variance[coefficient].sqrt().clamp_min(1e-3) * factors
            codes = (values / steps.unsqueeze(1)).round().clamp(low, high)  # (15, N)
            error = ((values - codes * steps.unsqueeze(1)).square() * weight).sum(1)
            step = steps[error.argmin()]
            quantizer.index[kind, number, token, digit] = coefficient
            quantizer.log_step[kind, number, token, digit] = step.log()
            if quantizer.refining[token, digit]:
                left[:, coefficient] -= (left[:, coefficient] / step).round().clamp(low, high) * step
        first += count

"""The quantizer: KLT coefficients to nested residual FSQ codes and back."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from elastictok_cli.models import fsq
from elastictok_cli.models.cell import classes
from elastictok_cli.models.cell.config import CLASS_DIGITS, DefaultConfig
from elastictok_cli.models.cell.layers import pointwise, zero
from elastictok_cli.models.precision import full_precision

CELLS_AT_ONCE = 4096  # quantized together: bounds memory at any picture size


class Quantized(NamedTuple):
    """What the quantizer makes of one block's coefficients, all tokens kept."""

    changes: torch.Tensor  # (B, R, D, h, w) what each digit adds to its coefficient
    digits: torch.Tensor  # (B, R, D, h, w) signed digits
    removed: (
        torch.Tensor
    )  # (B, R, h, w) squared error each token removes (may be negative); zeros when decoding
    decoded: torch.Tensor  # (B, K, h, w) coefficients as decoded from all of it


class NestedQuantizer(nn.Module):
    """Residual FSQ over KLT coefficients. Their order follows the cell's class, their means and steps what its
    tokens say so far.

    `index[kind, class, r, d]` says which coefficient digit d of residual token r refines, `log_step` its step. Tokens
    are grouped in stages; at the start of a stage a small network, seeing the cell's prior, its class and the
    coefficients decoded so far, shifts means and scales steps. Its last layer starts at zero.
    """

    index: torch.Tensor
    scale: torch.Tensor
    levels: torch.Tensor
    range: torch.Tensor
    refining: torch.Tensor

    def __init__(self, config: DefaultConfig) -> None:
        super().__init__()
        self.stages = config.stages
        self.patch = 3 * config.frames * config.cell**2
        tokens, digits, classes = config.residual_tokens, len(config.levels), config.classes
        k, z, hidden = config.coefficients, config.prior_width, config.hidden
        self.log_step = nn.Parameter(torch.zeros(2, classes, tokens, digits))
        self.register_buffer("index", torch.zeros(2, classes, tokens, digits, dtype=torch.int64))
        self.register_buffer("scale", torch.ones(2, k))
        self.register_buffer("levels", torch.tensor(config.levels), persistent=False)
        self.register_buffer("range", fsq.digit_range(self.levels).flatten(1), persistent=False)
        self.sizes = config.levels  # the same as plain numbers, which no device has to be asked for
        refining = torch.ones(tokens, digits)  # 0 where a digit names the class instead
        refining[0, list(CLASS_DIGITS)] = 0
        self.register_buffer("refining", refining, persistent=False)
        self.into = nn.ModuleList(nn.Conv2d(2 * k + z, hidden, 1) for _ in self.stages)
        self.class_bias = nn.Parameter(torch.zeros(2, classes, len(self.stages) * hidden))
        self.outof = nn.ModuleList(zero(nn.Conv2d(hidden, 2 * k, 1)) for _ in self.stages)

    @full_precision
    def forward(
        self,
        prior: torch.Tensor,  # (B, prior_width, h, w)
        kind: int,
        cell_class: torch.Tensor,  # (B, h, w) int64
        *,
        target: torch.Tensor | None = None,  # (B, K, h, w) coefficients to code, or ...
        digits: torch.Tensor | None = None,  # (B, R, D, h, w) ... digits to decode
        gain: torch.Tensor | None = None,  # (B, 1, h, w) factor on the steps
        most: int | None = None,  # tokens after which no further stage is begun
        done: int = 0,  # tokens to go on after: the end of a stage
        decoded: torch.Tensor | None = None,  # (B, K, h, w) what those say
    ) -> Quantized:
        """Quantize `target`, or decode `digits`; exactly one of them is given.

        `digits` are those of all R tokens, whatever `most` and `done` are. The answer has only the tokens of the stages
        that were worked out.
        """
        # everything has the channels last, in memory too: what a gather makes has, and other orders would be slow
        prior = _rows(prior)
        scale = self.scale[kind]
        wanted = None if target is None else _rows(target)
        known = prior.new_zeros(*prior.shape[:3], len(scale)) if decoded is None else _rows(decoded)
        index = self.index[kind].flatten(1)[cell_class]  # (B, h, w, R * D)
        log_step = F.embedding(cell_class, self.log_step[kind].flatten(1))
        biases = F.embedding(cell_class, self.class_bias[kind]).chunk(len(self.stages), -1)
        all_changes, all_digits, removed = [], [], []
        first = 0
        for count, into, outof, bias in zip(self.stages, self.into, self.outof, biases, strict=True):
            if most is not None and first >= most:
                break
            if first < done:
                first += count
                continue
            flat = slice(first * len(self.sizes), (first + count) * len(self.sizes))
            where = index[..., flat]
            shape = (*prior.shape[:3], count, len(self.sizes))
            normal = known / scale
            state = (normal, torch.log(normal.abs() + 0.05), prior)
            assert isinstance(into, nn.Conv2d)
            assert isinstance(outof, nn.Conv2d)
            hidden = F.silu(_rows(pointwise(into, *map(_planes, state))) + bias)
            shift, stretch = (
                _rows(pointwise(outof, _planes(hidden))).float().chunk(2, -1)
            )  # (B, h, w, K) each
            stretched = torch.tanh(stretch.gather(-1, where) / 3)
            step = torch.add(log_step[..., flat], stretched, alpha=3).exp()
            if gain is not None:
                step = step * _rows(gain)
            mean = (shift * scale).gather(-1, where)
            if wanted is not None:
                before = (wanted - known).gather(-1, where)
                value = fsq.quantize(((before - mean) / step).view(shape), self.levels, self.range)
            else:
                assert digits is not None
                value = digits[:, first : first + count].permute(0, 3, 4, 1, 2)
            change = torch.addcmul(mean, value.flatten(-2), step)
            if first == 0:  # only digits of the first token say something else
                change = change * self.refining[:count].flatten()
            if wanted is not None:
                both = (before + (before - change)).detach()  # change * both: one square minus another
                removed.append((change.detach() * both).view(shape).sum(-1))
            known = known.scatter_add(-1, where, change)
            all_changes.append(change.view(shape))
            all_digits.append(value)
            first += count
        coded = torch.cat(all_digits, 3).permute(0, 3, 4, 1, 2)
        if target is not None and not done:
            coded = torch.cat([self._name_class(coded[:, :1], cell_class), coded[:, 1:]], 1)
        removed_ = torch.zeros_like(coded[:, :, 0]) if target is None else _planes(torch.cat(removed, -1))
        changes = torch.cat(all_changes, 3).permute(0, 3, 4, 1, 2)
        return Quantized(changes, coded, removed_, _planes(known))

    def order(self, kind: int, cell_class: torch.Tensor) -> torch.Tensor:
        """Which coefficient each digit refines: classes (B, h, w) to (B, R * D, h, w)."""
        return self.index[kind].flatten(1)[cell_class].permute(0, 3, 1, 2)

    @full_precision
    def assemble(
        self, changes: torch.Tensor, keep: torch.Tensor, kind: int, cell_class: torch.Tensor
    ) -> torch.Tensor:
        """Coefficients (B, K, h, w) as decoded from the first `keep` (B, h, w) residual tokens of each cell."""
        number = torch.arange(changes.shape[1], device=changes.device).view(1, -1, 1, 1, 1)
        kept = (changes * (keep[:, None, None] > number)).flatten(1, 2)
        zeros = kept.new_zeros(kept.shape[0], self.scale.shape[1], *kept.shape[2:])
        return zeros.scatter_add(1, self.order(kind, cell_class)[:, : kept.shape[1]], kept)

    def read_class(self, digits: torch.Tensor) -> torch.Tensor:
        """The class (B, h, w) that digits (B, R, D, h, w) name."""
        number = torch.zeros_like(digits[:, 0, 0], dtype=torch.int64)
        radix = 1
        for d in CLASS_DIGITS:
            levels = self.sizes[d]
            number += radix * (digits[:, 0, d].round().to(torch.int64) + levels // 2)
            radix *= levels
        return number

    def _name_class(self, first: torch.Tensor, cell_class: torch.Tensor) -> torch.Tensor:
        """The first token's digits (B, 1, D, h, w) with the class written in."""
        first, rest = first.clone(), cell_class
        for d in CLASS_DIGITS:
            levels = self.sizes[d]
            first[:, 0, d] = (rest % levels - levels // 2).to(first.dtype)
            rest = rest // levels
        return first

    @torch.no_grad()
    def classify(
        self,
        coefficients: torch.Tensor,  # (B, K, h, w)
        energy: torch.Tensor,  # (B, h, w) squared error with no token at all
        allowed: torch.Tensor,  # (B, h, w) squared error a cell may keep
        kind: int,
    ) -> torch.Tensor:
        """The class (B, h, w) int64 with which each cell needs fewest tokens, networks left aside.

        Counts at half, once and twice `allowed` are averaged, as allocation moves errors between cells.
        """
        shape = energy.shape
        cells = coefficients.permute(0, 2, 3, 1).flatten(0, 2).float()  # (N, K)
        energy, allowed = energy.flatten(), allowed.flatten()
        out = torch.zeros_like(energy, dtype=torch.int64)
        with_error = (energy > 0.5 * allowed).nonzero().squeeze(1)  # the others get no token, or just one
        around = torch.tensor([0.5, 1.0, 2.0], device=energy.device)
        for part in torch.split(with_error, CELLS_AT_ONCE):
            goals = allowed[part, None] * around
            cost = classes.costs(self.orders(kind), cells[part], energy[part], goals, shortlist=8)
            out[part] = cost.argmin(1)
        return out.view(shape)

    def orders(self, kind: int) -> classes.Orders:
        """The fixed part of this quantizer, for choosing classes."""
        step = self.log_step[kind].detach().exp()
        return classes.Orders(self.index[kind], step, self.refining, self.levels, self.stages)


def _rows(x: torch.Tensor) -> torch.Tensor:
    """(B, C, h, w) to (B, h, w, C), a view."""
    return x.permute(0, 2, 3, 1)


def _planes(x: torch.Tensor) -> torch.Tensor:
    """Inverse of `_rows`."""
    return x.permute(0, 3, 1, 2)

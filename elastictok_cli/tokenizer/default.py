"""The default model: a residual around a classical codec, trainable end to end.

One block of 4 frames is coded in four steps, every one of which starts, untrained, as the textbook codec:

1. motion: cells sample the last decoded frame along one velocity each (`motion.py`). A velocity is one token,
   sent only where it pays; other cells go on with the velocity they had in the block before.
2. prediction: a network refines the moved frames, seeing what the last block left behind (starts at zero).
3. transform: the 16x16x4 residual of each cell is projected on its KLT basis, and the coefficients are
   quantized by residual FSQ in the order of reverse water-filling: each token refines the 6 coefficients with most
   variance left. Means and steps of later tokens depend on what the cell has told so far (start fixed).
4. synthesis: the transposed projection, then a network that sees neighbours, kept lengths and the prediction,
   and removes what quantization and dropped tails did (starts at zero).

The encoder never sees how many tokens will be kept, so tokens are nested: one encode serves every length.
Keyframe blocks have no prediction and a basis of their own.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from elastictok_cli.tokenizer import fsq, motion
from elastictok_cli.tokenizer.base import Encoding, TokenizerSpec

KEY, INTER = 0, 1  # which basis: keyframe blocks, predicted blocks
GAINS = (2.0, 4.0, 8.0)  # factors on all steps of a cell, for contrasts beyond the reach of its quantizers


@dataclass(frozen=True)
class DefaultConfig:
    """Sizes of the default model; stored in the checkpoint."""

    name: str = "elastictok-default"
    cell: int = 16  # pixels
    frames: int = 4
    levels: tuple[int, ...] = (8, 8, 8, 5, 5, 5)
    stages: tuple[int, ...] = (1, 1, 2, 4, 8, 16, 24)  # residual tokens whose steps are set together
    coefficients: int = 384  # kept of the 3,072 of a cell
    width: int = 128  # channels at 1/8 resolution
    predict_blocks: int = 2
    synthesis_blocks: int = 3
    prior_width: int = 64  # channels of what a cell knows about its own statistics
    hidden: int = 96  # of the networks that set means and steps

    @property
    def residual_tokens(self) -> int:
        """FSQ tokens of one cell; a velocity may stand before them."""
        return sum(self.stages)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DefaultConfig:
        """Inverse of `asdict`; unknown keys raise TypeError, lists become tuples."""
        known = {f.name for f in fields(cls)}
        if unknown := set(values) - known:
            raise TypeError(f"unknown settings {sorted(unknown)}")
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**plain)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


class Context(NamedTuple):
    """What one block leaves behind for the next. `None` in its place means: a keyframe block comes."""

    frame: torch.Tensor  # (B, 3, H, W) last decoded frame, clamped
    features: torch.Tensor  # (B, width, H/8, W/8)
    velocity: torch.Tensor  # (B, 2, h, w) pixels per frame


class Quantized(NamedTuple):
    """What the quantizer makes of one block's coefficients, all tokens kept."""

    changes: torch.Tensor  # (B, R, D, h, w) what each digit adds to its coefficient
    digits: torch.Tensor  # (B, R, D, h, w) signed digits
    gains: (
        torch.Tensor
    )  # (B, R, h, w) squared error each token removes (may be negative); zeros when decoding


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

    def moved(self, context: Context, velocity: torch.Tensor, count: int) -> torch.Tensor:
        """Step 1: the last frame along the velocities. Returns (B, 4, 3, H, W).

        Of a short block only `count` frames are real; motion stops there, as its padding repeats the last one.
        """
        times = torch.arange(1, self.config.frames + 1, device=velocity.device).clamp_max(count)
        return motion.warp(context.frame, velocity, times)

    def predict(
        self, moved: torch.Tensor, context: Context, velocity: torch.Tensor, count: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Step 2: refined prediction (B, 4, 3, H, W) and its features (B, width, H/8, W/8)."""
        # features are about the block before: carry them to the middle of this one
        middle = torch.tensor([(count + 1) // 2], device=velocity.device)
        carried = motion.warp(context.features, velocity / 8, middle)[:, 0]
        x = self.predict_in(torch.cat([to_eighth(moved), carried], 1))
        x = self.predict_trunk(x)
        return moved + from_eighth(self.predict_out(x), self.config.frames), x

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
        residual = from_cells(project(coefficients, self.basis[kind].t()), c)
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
        x = self.rough_in(torch.cat([to_eighth(rough), to_eighth(residual)], 1))
        x = x + F.pixel_shuffle(self.latent_in(told), 2) + self.kind_bias[kind].view(1, -1, 1, 1)
        if features is not None:
            x = x + features
        x = self.synthesis_trunk(x)
        return rough + from_eighth(self.synthesis_out(x), c.frames), x


class NestedQuantizer(nn.Module):
    """Residual FSQ over KLT coefficients whose means and steps follow what has been told so far.

    `index[kind, r, d]` says which coefficient digit d of residual token r refines, `log_step` its step. Tokens are
    grouped in stages; at the start of a stage a small network, seeing the cell's prior and the coefficients
    decoded so far, shifts means and scales steps. Its last layer starts at zero.
    """

    index: torch.Tensor
    scale: torch.Tensor
    levels: torch.Tensor

    def __init__(self, config: DefaultConfig) -> None:
        super().__init__()
        self.stages = config.stages
        tokens, digits = config.residual_tokens, len(config.levels)
        k, z, hidden = config.coefficients, config.prior_width, config.hidden
        self.log_step = nn.Parameter(torch.zeros(2, tokens, digits))
        self.register_buffer("index", torch.zeros(2, tokens, digits, dtype=torch.int64))
        self.register_buffer("scale", torch.ones(2, k))
        self.register_buffer("levels", torch.tensor(config.levels), persistent=False)
        self.into = nn.ModuleList(nn.Conv2d(2 * k + z, hidden, 1) for _ in self.stages)
        self.outof = nn.ModuleList(zero(nn.Conv2d(hidden, 2 * n * digits, 1)) for n in self.stages)

    def forward(
        self,
        prior: torch.Tensor,  # (B, prior_width, h, w)
        kind: int,
        *,
        target: torch.Tensor | None = None,  # (B, K, h, w) coefficients to code, or ...
        digits: torch.Tensor | None = None,  # (B, R, D, h, w) ... digits to decode
        gain: torch.Tensor | float = 1.0,  # (B, 1, h, w) factor on the steps
    ) -> Quantized:
        """Quantize `target`, or decode `digits`; exactly one of them is given."""
        batch, _, height, width = prior.shape
        scale = self.scale[kind].view(1, -1, 1, 1)
        told = prior.new_zeros(batch, scale.shape[1], height, width)
        all_changes, all_digits, gains = [], [], []
        first = 0
        for count, into, outof in zip(self.stages, self.into, self.outof, strict=True):
            span = slice(first, first + count)
            first += count
            where = self.index[kind, span].flatten()
            shape = (batch, count, len(self.levels), height, width)
            normal = told / scale
            state = torch.cat([normal, torch.log(normal.abs() + 0.05), prior], 1)
            shift, stretch = outof(F.silu(into(state))).float().chunk(2, 1)
            step = (self.log_step[kind, span].flatten().view(1, -1, 1, 1) + 3 * torch.tanh(stretch / 3)).exp()
            step = step * gain
            mean = shift * scale[:, where]
            if target is not None:
                before = target[:, where] - told[:, where]
                value = fsq.quantize(((before - mean) / step).view(shape), self.levels)
                change = mean + value.flatten(1, 2) * step
                gains.append((before.square() - (before - change).square()).detach().view(shape).sum(2))
            else:
                assert digits is not None
                value = digits[:, span]
                change = mean + value.flatten(1, 2) * step
                gains.append(torch.zeros_like(value[:, :, 0]))
            told = told.index_add(1, where, change)
            all_changes.append(change.view(shape))
            all_digits.append(value)
        return Quantized(torch.cat(all_changes, 1), torch.cat(all_digits, 1), torch.cat(gains, 1))

    def assemble(self, changes: torch.Tensor, keep: torch.Tensor, kind: int) -> torch.Tensor:
        """Coefficients (B, K, h, w) as decoded from the first `keep` (B, h, w) residual tokens of each cell."""
        number = torch.arange(changes.shape[1], device=changes.device).view(1, -1, 1, 1, 1)
        kept = (changes * (keep[:, None, None] > number)).flatten(1, 2)
        zeros = kept.new_zeros(kept.shape[0], self.scale.shape[1], *kept.shape[2:])
        return zeros.index_add(1, self.index[kind].flatten(), kept)


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


class ResBlock(nn.Module):
    """x + conv(silu(conv(silu(x)))), the second convolution starting small."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        with torch.no_grad():
            self.second.weight.mul_(0.2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, width, H, W) to the same."""
        out: torch.Tensor = x + self.second(F.silu(self.first(F.silu(x))))
        return out


def zero(layer: nn.Conv2d) -> nn.Conv2d:
    """The same layer with all parameters zero: a branch that starts by doing nothing."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def to_cells(frames: torch.Tensor, cell: int) -> torch.Tensor:
    """(B, T, 3, H, W) -> (B, 3 * T * cell * cell, h, w)."""
    return F.pixel_unshuffle(frames.flatten(1, 2), cell)


def from_cells(cells: torch.Tensor, config: DefaultConfig) -> torch.Tensor:
    """Inverse of `to_cells`."""
    return _split_channels(F.pixel_shuffle(cells, config.cell), config.frames)


def to_eighth(frames: torch.Tensor) -> torch.Tensor:
    """(B, T, 3, H, W) -> (B, 3 * T * 64, H/8, W/8)."""
    return F.pixel_unshuffle(frames.flatten(1, 2), 8)


def from_eighth(patches: torch.Tensor, frames: int) -> torch.Tensor:
    """Inverse of `to_eighth`."""
    return _split_channels(F.pixel_shuffle(patches, 8), frames)


def _split_channels(x: torch.Tensor, frames: int) -> torch.Tensor:
    """(B, T * 3, H, W) -> (B, T, 3, H, W)."""
    return x.reshape(x.shape[0], frames, 3, *x.shape[2:])


def project(x: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """A matrix (out, in) applied at every cell of x (B, in, h, w)."""
    return F.conv2d(x, matrix[:, :, None, None])


def cell_energy(residual: torch.Tensor, cell: int) -> torch.Tensor:
    """Sum of squares in each cell. residual: (B, T, 3, H, W). Returns (B, h, w)."""
    return F.avg_pool2d(residual.square().sum((1, 2)).unsqueeze(1), cell).squeeze(1) * cell**2


def choose_motion(
    model: DefaultModel,
    frames: torch.Tensor,
    context: Context,
    threshold: torch.Tensor | float,
    count: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Search velocities and decide which cells send one.

    A cell sends its velocity when that lowers its prediction error by more than `threshold` (MSE, a float or (B, 1,
    1)) and by a fifth. Returns velocity (B, 2, h, w) in force, sent (B, h, w) bool, moved frames (B, 4, 3, H, W).
    """
    cell = model.config.cell
    kept_moved = model.moved(context, context.velocity, count)
    kept_error = cell_energy(frames - kept_moved, cell)
    pixels = 3 * model.config.frames * cell**2
    if bool((kept_error <= threshold * pixels).all()):  # nothing a velocity could gain
        return context.velocity, torch.zeros_like(kept_error, dtype=torch.bool), kept_moved
    found = motion.search(context.frame, frames[:, :count], context.velocity, cell)
    found_moved = model.moved(context, found, count)
    found_error = cell_energy(frames - found_moved, cell)
    sent = (kept_error - found_error > threshold * pixels) & (found_error < 0.8 * kept_error)
    velocity = torch.where(sent.unsqueeze(1), found, context.velocity)
    wide = sent.repeat_interleave(cell, -2).repeat_interleave(cell, -1)[:, None, None]
    return velocity, sent, torch.where(wide, found_moved, kept_moved)


class Residual(NamedTuple):
    """The coded residual of one block, and which cells needed a gain."""

    codes: torch.Tensor  # (B, R, h, w) int64
    after: torch.Tensor  # (B, R, h, w) squared error left after each token
    gain: torch.Tensor  # (B, h, w) int64: 0 none, else 1 + its place in GAINS


class DefaultTokenizer:
    """The codec's view of a `DefaultModel` (see `base.Tokenizer`).

    A cell's sequence is: its velocity, where one is sent (values from 64,000 on); its gain, where one is needed
    (values behind the velocities); then FSQ codes.
    """

    def __init__(self, model: DefaultModel) -> None:
        self.model = model.eval()
        c = model.config
        self.codes = math.prod(c.levels)
        self.first_gain = self.codes + motion.VELOCITIES
        self.spec = TokenizerSpec(
            name=c.name,
            frames=c.frames,
            cell=(c.cell, c.cell),
            tokens_per_cell=c.residual_tokens + 2,
            levels=c.levels,
            vocabulary=self.first_gain + len(GAINS),
            nested=True,
        )

    def start(self, height: int, width: int) -> Context | None:
        """A keyframe block has no context, whatever the size."""
        return None

    @torch.inference_mode()
    def encode(
        self, frames: torch.Tensor, context: Context | None, *, count: int, target: float = 0.007
    ) -> Encoding:
        """See `base.Tokenizer.encode`. A velocity is sent where it gains more than half of `target`."""
        m, c = self.model, self.model.config
        batch, _, _, height, width = frames.shape
        grid = (height // c.cell, width // c.cell)
        if context is None:
            prediction = m.key_mean.view(1, 1, 3, 1, 1).expand_as(frames)
        else:
            velocity, sent, moved = choose_motion(m, frames, context, 0.5 * target, count)
            prediction, _ = m.predict(moved, context, velocity, count)
        residual = frames - prediction
        energy = cell_energy(residual, c.cell).unsqueeze(1)  # (B, 1, h, w)
        kind = KEY if context is None else INTER
        coded = self._code(residual, energy, m.prior(context, grid, batch), kind, target)
        tokens, curve = coded.codes, torch.cat([energy, coded.after], 1)
        length = torch.full((batch, *grid), c.residual_tokens, device=frames.device)
        tokens, curve, length = _put_first(
            coded.gain > 0, self.first_gain + coded.gain - 1, energy, (tokens, curve, length)
        )
        if context is None:
            sent, vector, before = torch.zeros_like(coded.gain, dtype=torch.bool), coded.gain, energy
        else:
            vector = self.codes + motion.velocity_to_index(velocity)
            inherited = m.moved(context, context.velocity, count) if bool(sent.any()) else moved
            before = cell_energy(frames - inherited, c.cell).unsqueeze(1)
        tokens, curve, length = _put_first(sent, vector, before, (tokens, curve, length))
        return Encoding(tokens, length, curve)

    def _code(
        self, residual: torch.Tensor, energy: torch.Tensor, prior: torch.Tensor, kind: int, target: float
    ) -> Residual:
        """Quantize; cells that even all tokens leave over half the target are tried with every gain."""
        m, c = self.model, self.model.config
        wanted = project(to_cells(residual, c.cell), m.basis[kind])
        allowed = 0.5 * target * m.basis.shape[-1]

        def code(gain: float) -> tuple[torch.Tensor, torch.Tensor]:
            coded = m.quantizer(prior, kind, target=wanted, gain=gain)
            after = (energy - coded.gains.cumsum(1)).clamp_min(0)
            return fsq.digits_to_index(coded.digits, m.quantizer.levels), after

        codes, after = code(1.0)
        gain = torch.zeros_like(codes[:, 0])
        short = after[:, -1] > allowed  # (B, h, w)
        if bool(short.any()):
            for number, factor in enumerate(GAINS, 1):
                other, other_after = code(factor)
                # fewer tokens to get there, or less error at the end
                better = short & (_cost(other_after, allowed) < 0.95 * _cost(after, allowed))
                codes = torch.where(better.unsqueeze(1), other, codes)
                after = torch.where(better.unsqueeze(1), other_after, after)
                gain = torch.where(better, number, gain)
        return Residual(codes, after, gain)

    @torch.inference_mode()
    def decode(
        self, tokens: torch.Tensor, keep: torch.Tensor, context: Context | None, *, count: int
    ) -> tuple[torch.Tensor, Context]:
        """See `base.Tokenizer.decode`. Tokens beyond `keep` are not read. Frames come clamped to [-1, 1]."""
        m, c = self.model, self.model.config
        batch, _, rows, cols = tokens.shape
        moving = (tokens[:, 0] >= self.codes) & (tokens[:, 0] < self.first_gain) & (keep > 0)
        vector = (tokens[:, 0] - self.codes).clamp(0, motion.VELOCITIES - 1)
        tokens, kept = _drop_first(moving, tokens, keep)
        gained = (tokens[:, 0] >= self.first_gain) & (kept > 0)
        factor = tokens.new_tensor(GAINS, dtype=torch.float32)[
            (tokens[:, 0] - self.first_gain).clamp(0, len(GAINS) - 1)
        ]
        gain = torch.where(gained, factor, 1.0).unsqueeze(1)
        tokens, kept = _drop_first(gained, tokens, kept)
        codes = tokens[:, : c.residual_tokens].clamp(0, self.codes - 1)
        digits = fsq.index_to_digits(codes, m.quantizer.levels)  # (B, R, D, h, w)
        features = None
        if context is None:
            kind = KEY
            velocity = torch.zeros(batch, 2, rows, cols, device=tokens.device)
            prediction = m.key_mean.view(1, 1, 3, 1, 1).expand(
                batch, c.frames, 3, rows * c.cell, cols * c.cell
            )
        else:
            kind = INTER
            velocity = torch.where(moving.unsqueeze(1), motion.index_to_velocity(vector), context.velocity)
            prediction, features = m.predict(m.moved(context, velocity, count), context, velocity, count)
        prior = m.prior(context, (rows, cols), batch)
        changes = m.quantizer(prior, kind, digits=digits, gain=gain).changes
        coefficients = m.quantizer.assemble(changes, kept, kind)
        decoded, left = m.refine(prediction, features, coefficients, kept, kind)
        decoded = decoded.clamp(-1, 1)
        return decoded, Context(decoded[:, -1], left, velocity)


def _cost(after: torch.Tensor, allowed: float) -> torch.Tensor:
    """Tokens until the error is at most `allowed` (B, h, w), more for those that never get there."""
    short = (after > allowed).float().sum(1)
    return short + 10 * (after[:, -1] / allowed - 1).clamp_min(0)


def _put_first(
    where: torch.Tensor,  # (B, h, w) bool
    token: torch.Tensor,  # (B, h, w)
    before: torch.Tensor,  # (B, 1, h, w) error with no token at all
    sequence: tuple[torch.Tensor, torch.Tensor, torch.Tensor],  # tokens, curve, length
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Put a token in front of some cells' sequences; the others get an unused slot at the end."""
    tokens, curve, length = sequence
    pick = where.unsqueeze(1)
    longer = torch.cat([token.unsqueeze(1), tokens], 1)
    padded = torch.cat([tokens, torch.full_like(tokens[:, :1], -1)], 1)
    later = torch.cat([before, curve], 1)
    same = torch.cat([curve, curve[:, -1:]], 1)
    return torch.where(pick, longer, padded), torch.where(pick, later, same), length + where


def _drop_first(
    where: torch.Tensor, tokens: torch.Tensor, keep: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Undo `_put_first` for tokens (B, G, h, w) and keep (B, h, w)."""
    moved = torch.cat([tokens[:, 1:], torch.full_like(tokens[:, :1], -1)], 1)
    return torch.where(where.unsqueeze(1), moved, tokens), keep - where.to(keep.dtype)

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

import math
from dataclasses import asdict, dataclass, fields
from itertools import accumulate
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from elastictok_cli.models import fsq
from elastictok_cli.models.cell import classes, fill, winograd
from elastictok_cli.models.cell.motion import block_matching as motion
from elastictok_cli.models.cell.motion import camera_pan as leaders
from elastictok_cli.models.cell.motion import camera_shake as global_motion
from elastictok_cli.models.interface import Encoding, Filled, TokenizerSpec
from elastictok_cli.models.precision import full_precision

KEY, INTER = 0, 1  # which basis: keyframe blocks, predicted blocks
CLASS_DIGITS = (0, 3)  # the digits of a cell's first FSQ token that name its class
_MOST = 0.7  # share of cells above which all are worked on, as one picture
_AT_ONCE = 2048  # cells quantized together: bounds memory at any picture size
_REMEMBERED = 3_200_000  # values of predictions kept: four of 256x256 pixels, one of a large picture
_FEW = 8  # tokens with which most cells get near their goal
_BIT = 0.08  # of what a velocity must gain to be sent: what one bit of it must save
_NEGLIGIBLE = 0.15  # share of the target below which a cell's error is left alone
_COARSE = 4  # pixels in one where smooth pictures are compared
_LESS = 0.9  # share of its error that a cell may at most have left with a velocity, to send it
_FAR = 2.0  # times the target: cells that all tokens leave above it may need a gain
_NEVER = 1e9  # squared error of a cell that speaks for others, were it not to: more than any can have
_DOUBTFUL = 0.03  # bits by which global motion must lower errors of cells to be considered
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
    interpolation: str = (
        "bilinear"  # of the last frame between pixels; bicubic keeps fine texture that moves slowly
    )

    leaders: bool = False  # cells that send a velocity may say how it changes in others
    global_motion: bool = False  # one of them may say how everything moves, frame by frame; wants leaders
    still: bool = (
        False  # cells that stand still and keep no token are copied, whatever the networks make of them
    )
    fill: bool = False  # in keyframe blocks, cells without a token from the others rather than grey

    def __post_init__(self) -> None:
        if self.interpolation not in ("bilinear", "bicubic"):
            raise ValueError(f"unknown interpolation {self.interpolation!r}")
        if self.global_motion and not (self.leaders and math.prod(self.levels) >= global_motion.CODES):
            raise ValueError(f"global motion wants leaders, and {global_motion.CODES:,} codes")

    @property
    def classes(self) -> int:
        """Cell classes that the first token can name."""
        return math.prod(self.levels[d] for d in CLASS_DIGITS)

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

    frame: torch.Tensor  # (B, 3, H, W) last decoded frame, as `DefaultModel.reference` gives it
    features: torch.Tensor  # (B, width, H/8, W/8)
    velocity: torch.Tensor  # (B, 2, h, w) pixels per frame


class Quantized(NamedTuple):
    """What the quantizer makes of one block's coefficients, all tokens kept."""

    changes: torch.Tensor  # (B, R, D, h, w) what each digit adds to its coefficient
    digits: torch.Tensor  # (B, R, D, h, w) signed digits
    gains: (
        torch.Tensor
    )  # (B, R, h, w) squared error each token removes (may be negative); zeros when decoding
    told: torch.Tensor  # (B, K, h, w) coefficients as decoded from all of it


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
        cells = motion.Cells.of((velocity != before).any(1))
        if len(cells) > _MOST * velocity[0, 0].numel():
            out = motion.warp(context.frame, velocity, times, c.interpolation, path)
        else:
            out = moved[:, :count].clone(memory_format=torch.contiguous_format)
            if len(cells):
                wanted = cells.take(velocity).unsqueeze(2)
                patches = motion.warp_cells(
                    context.frame, wanted, cells, c.cell, times, c.interpolation, path
                )
                cells.put_patches(out, patches[:, :, 0])
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
        carried = motion.warp(context.features, velocity / 8, times, path=there)[:, 0]
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


class NestedQuantizer(nn.Module):
    """Residual FSQ over KLT coefficients whose order follows the cell's class, and whose means and steps follow
    what has been told so far.

    `index[kind, class, r, d]` says which coefficient digit d of residual token r refines, `log_step` its step. Tokens
    are grouped in stages; at the start of a stage a small network, seeing the cell's prior, its class and the
    coefficients decoded so far, shifts means and scales steps. Its last layer starts at zero.
    """

    index: torch.Tensor
    scale: torch.Tensor
    levels: torch.Tensor
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
        gain: torch.Tensor | float = 1.0,  # (B, 1, h, w) factor on the steps
        most: int | None = None,  # tokens after which no further stage is begun
        done: int = 0,  # tokens to go on after: a stage's end
        told: torch.Tensor | None = None,  # (B, K, h, w) what those tell
    ) -> Quantized:
        """Quantize `target`, or decode `digits`; exactly one of them is given.

        `digits` are all of them, whatever `most` and `done` are; the answer has those of the stages worked out."""
        batch, _, height, width = prior.shape
        scale = self.scale[kind].view(1, -1, 1, 1)
        if told is None:
            told = prior.new_zeros(batch, scale.shape[1], height, width)
        index = self.order(kind, cell_class)  # (B, R * D, h, w)
        log_step = F.embedding(cell_class, self.log_step[kind].flatten(1)).permute(0, 3, 1, 2)
        biases = F.embedding(cell_class, self.class_bias[kind]).permute(0, 3, 1, 2).chunk(len(self.stages), 1)
        all_changes, all_digits, gains = [], [], []
        first = 0
        for count, into, outof, bias in zip(self.stages, self.into, self.outof, biases, strict=True):
            if most is not None and first >= most:
                break
            if first < done:
                first += count
                continue
            span = slice(first, first + count)
            flat = slice(first * len(self.levels), (first + count) * len(self.levels))
            first += count
            where = index[:, flat]
            shape = (batch, count, len(self.levels), height, width)
            normal = told / scale
            state = (normal, torch.log(normal.abs() + 0.05), prior)
            assert isinstance(into, nn.Conv2d)
            assert isinstance(outof, nn.Conv2d)
            hidden = F.silu(pointwise(into, *state) + bias)
            shift, stretch = pointwise(outof, hidden).float().chunk(2, 1)  # (B, K, h, w) each
            step = (log_step[:, flat] + 3 * torch.tanh(stretch.gather(1, where) / 3)).exp() * gain
            mean = (shift * scale).gather(1, where)
            refining = self.refining[span].view(1, -1, 1, 1)
            if target is not None:
                before = (target - told).gather(1, where)
                value = fsq.quantize(((before - mean) / step).view(shape), self.levels)
                change = (mean + value.flatten(1, 2) * step) * refining
                gains.append((before.square() - (before - change).square()).detach().view(shape).sum(2))
            else:
                assert digits is not None
                value = digits[:, span]
                change = (mean + value.flatten(1, 2) * step) * refining
                gains.append(torch.zeros_like(value[:, :, 0]))
            told = told.scatter_add(1, where, change)
            all_changes.append(change.view(shape))
            all_digits.append(value)
        coded = torch.cat(all_digits, 1)
        if target is not None and not done:
            coded = torch.cat([self._name_class(coded[:, :1], cell_class), coded[:, 1:]], 1)
        return Quantized(torch.cat(all_changes, 1), coded, torch.cat(gains, 1), told)

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
        target: torch.Tensor,  # (B, K, h, w) coefficients
        energy: torch.Tensor,  # (B, h, w) squared error with no token at all
        allowed: torch.Tensor,  # (B, h, w) squared error a cell may keep
        kind: int,
    ) -> torch.Tensor:
        """The class (B, h, w) int64 with which each cell needs fewest tokens, networks left aside.

        Counts at half, once and twice `allowed` are averaged, as allocation moves errors between cells.
        """
        shape = energy.shape
        cells = target.permute(0, 2, 3, 1).flatten(0, 2).float()  # (N, K)
        energy, allowed = energy.flatten(), allowed.flatten()
        out = torch.zeros_like(energy, dtype=torch.int64)
        needy = (energy > 0.5 * allowed).nonzero().squeeze(1)  # the others get no token, or just one
        around = torch.tensor([0.5, 1.0, 2.0], device=energy.device)
        for part in torch.split(needy, 256):
            goals = allowed[part, None] * around
            cost = classes.costs(self.orders(kind), cells[part], energy[part], goals, shortlist=8)
            out[part] = cost.argmin(1)
        return out.view(shape)

    def orders(self, kind: int) -> classes.Orders:
        """The fixed part of this quantizer, for choosing classes."""
        step = self.log_step[kind].detach().exp()
        return classes.Orders(self.index[kind], step, self.refining, self.levels, self.stages)


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
        self._transformed: dict[nn.Conv2d, tuple[int, torch.Tensor]] = {}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, width, H, W) to the same."""
        return x + self._convolve(self.second, F.silu(self._convolve(self.first, F.silu(x))))

    def _convolve(self, layer: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
        """The quicker way where weights are settled."""
        out: torch.Tensor
        if layer.weight.requires_grad or layer.bias is None or x.device.type != "cpu":
            out = layer(x)
            return out
        version = layer.weight._version  # counts changes in place
        made, transformed = self._transformed.get(layer, (None, None))
        if transformed is None or made != version:
            transformed = winograd.transform(layer.weight)
            self._transformed[layer] = version, transformed
        return winograd.conv3x3(x, transformed, layer.bias)


def pointwise(layer: nn.Conv2d, *inputs: torch.Tensor) -> torch.Tensor:
    """A 1x1 convolution of `inputs` (B, ., h, w) side by side, without the copy of them all that `torch.cat` makes.

    As a matrix product, which on few pixels is quicker than what serves convolutions of any size.
    """
    out: torch.Tensor | None = None
    weights = layer.weight.flatten(1).split([x.shape[1] for x in inputs], 1)  # type: ignore[no-untyped-call]
    for x, weight in zip(inputs, weights, strict=True):
        part = F.linear(x.permute(0, 2, 3, 1), weight, layer.bias if out is None else None)
        out = part if out is None else out + part
    assert out is not None
    return out.permute(0, 3, 1, 2)


def zero(layer: nn.Conv2d) -> nn.Conv2d:
    """The same layer with all parameters zero: a branch that starts by doing nothing."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def to_cells(frames: torch.Tensor, cell: int) -> torch.Tensor:
    """(B, T, 3, H, W) -> (B, 3 * T * cell * cell, h, w), channels last in memory."""
    batch, count, _, height, width = frames.shape
    rows, cols = height // cell, width // cell
    split = frames.reshape(batch, 3 * count, rows, cell, cols, cell).permute(0, 2, 4, 1, 3, 5)
    return split.reshape(batch, rows, cols, -1).permute(0, 3, 1, 2)


def from_cells(cells: torch.Tensor, config: DefaultConfig) -> torch.Tensor:
    """Inverse of `to_cells`."""
    return _from_patches(cells, config.frames, config.cell)


def to_eighth(frames: torch.Tensor) -> torch.Tensor:
    """(B, T, 3, H, W) -> (B, 3 * T * 64, H/8, W/8), channels last in memory."""
    return to_cells(frames, 8)


def from_eighth(patches: torch.Tensor, frames: int) -> torch.Tensor:
    """Inverse of `to_eighth`."""
    return _from_patches(patches, frames, 8)


def _from_patches(x: torch.Tensor, frames: int, size: int) -> torch.Tensor:
    """(B, T * 3 * size * size, h, w) -> (B, T, 3, H, W)."""
    batch, _, rows, cols = x.shape
    split = x.permute(0, 2, 3, 1).reshape(batch, rows, cols, 3 * frames, size, size).permute(0, 3, 1, 4, 2, 5)
    return split.reshape(batch, frames, 3, rows * size, cols * size)


def project(x: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """A matrix (out, in) applied at every cell of x (B, in, h, w)."""
    return project_rows(x.permute(0, 2, 3, 1), matrix).permute(0, 3, 1, 2)


@full_precision
def project_rows(x: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """A matrix (out, in) applied to rows (..., in): (..., out) float32."""
    return F.linear(x, matrix)


@full_precision
def cell_energy(residual: torch.Tensor, cell: int) -> torch.Tensor:
    """Sum of squares in each cell. residual: (B, T, 3, H, W). Returns (B, h, w)."""
    return F.avg_pool2d(residual.square().sum((1, 2)).unsqueeze(1), cell).squeeze(1) * cell**2


def filling(frames: torch.Tensor, count: int, cell: int) -> Filled:
    """What the cells of a keyframe block would err by if filled in from others, those told as in the source.

    frames: (B, T, 3, H, W), of which the first `count` are real and the others count as much as they do.
    """
    real = frames[:, :count].flatten(1, 2)
    known = fill.means(real)
    small = F.avg_pool2d(real, _COARSE)
    scale = frames.shape[1] / count
    # detail that no smooth picture has; what it does have shows at a quarter of the size
    detail = cell_energy(frames, cell) - scale * _COARSE**2 * cell_energy(small.unsqueeze(1), cell // _COARSE)

    def filled(told: torch.Tensor) -> torch.Tensor:
        away = small - fill.smooth(known, told, fill.PITCH // _COARSE)
        return detail + scale * _COARSE**2 * cell_energy(away.unsqueeze(1), cell // _COARSE)

    return filled


class Motion(NamedTuple):
    """What `choose_motion` found."""

    velocity: torch.Tensor  # (B, 2, h, w) in force
    sent: torch.Tensor  # (B, h, w) bool
    leading: torch.Tensor  # (B, h, w) int64, as `leaders.follow` reads it: cells that send and lead
    lasting: torch.Tensor  # (B, 2, h, w) with which the next block begins
    moved: torch.Tensor  # (B, 4, 3, H, W)
    followed: torch.Tensor  # (B, h, w) squared error of cells if they send none
    cost: torch.Tensor  # (B,) what all of it is expected to cost, as squared error
    telling: torch.Tensor  # (B, h, w) bool: the cell that sends, and says global motion
    path: torch.Tensor | None = None  # (B, count, 2) global motion in pixels, None where there is none at all
    codes: torch.Tensor | None = None  # (B, count) int64 that say it

    @property
    def still(self) -> torch.Tensor:
        """(B, h, w) bool: cells that do not move."""
        return stands_still(self.velocity, self.path)


def stands_still(velocity: torch.Tensor, path: torch.Tensor | None) -> torch.Tensor:
    """(B, h, w) bool: cells whose velocity (B, 2, h, w) is zero, in pictures without global motion (B, T, 2)."""
    still = (velocity == 0).all(1)
    return still if path is None else still & (path == 0).all(2).all(1).view(-1, 1, 1)


def choose_motion(
    model: DefaultModel,
    frames: torch.Tensor,
    context: Context,
    threshold: torch.Tensor | float,
    count: int,
    lead: bool = True,
) -> Motion:
    """Search velocities and decide which cells send one; where `lead` and the model allow it, also which of them
    lead, and whether one says global motion.

    A cell sends its velocity when that lowers its prediction error by more than `threshold` (MSE, a float or (B, 1,
    1)) and by a tenth.
    """
    search = _MotionSearch(model, frames, context, threshold, count, lead)
    enough = search.wanting.flatten(1).sum(1) > count + 1  # that many tokens it takes
    if not (lead and model.config.global_motion and bool(enough.any())):
        return search.find()
    path, gain = global_motion.estimate(
        context.frame, frames[:, :count], context.velocity, model.config.cell, threshold
    )
    codes, path = global_motion.to_codes(path)
    gain = gain.masked_fill((path == 0).all(2).all(1) | ~enough, 0.0)
    if bool((gain < _DOUBTFUL).all()):
        return search.find()
    shaken = search.find(path, codes)
    plain = search.find()
    better = (gain >= _DOUBTFUL) & (shaken.cost < plain.cost)
    if not bool(better.any()):
        return plain
    if bool(better.all()):
        return shaken
    nowhere = torch.full_like(codes, global_motion.NOWHERE)
    other = plain._replace(path=torch.zeros_like(path), codes=nowhere)
    return Motion(*(_where(better, a, b) for a, b in zip(shaken, other, strict=True)))


def _where(pick: torch.Tensor, one: torch.Tensor | None, other: torch.Tensor | None) -> torch.Tensor:
    """Of each item of a batch one or the other; pick: (B,) bool."""
    assert one is not None
    assert other is not None
    return torch.where(pick.view(-1, *(1,) * (one.ndim - 1)), one, other)


class _MotionSearch:
    """How cells of some pictures may move, all of them along a path or not."""

    def __init__(
        self,
        model: DefaultModel,
        frames: torch.Tensor,  # (B, 4, 3, H, W)
        context: Context,
        threshold: torch.Tensor | float,  # MSE
        count: int,
        lead: bool,
    ) -> None:
        self.model, self.frames, self.context, self.count = model, frames, context, count
        self.threshold = torch.as_tensor(threshold, device=frames.device).view(-1, 1, 1)
        self.pixels = 3 * model.config.frames * model.config.cell**2
        self.lead = lead and model.config.leaders
        self.inherited = model.moved(context, context.velocity, count)
        self.error = self._errors(self.inherited)
        self.toll = (self.threshold * self.pixels).expand_as(self.error[:, :1, :1])  # (B, 1, 1)
        self.wanting = self.error > self.toll  # a velocity could gain nothing elsewhere

    def find(self, path: torch.Tensor | None = None, codes: torch.Tensor | None = None) -> Motion:
        """What is cheapest along a path (B, count, 2), which `codes` say."""
        model, context, count = self.model, self.context, self.count
        inherited, moved, error, wanting = context.velocity, self.inherited, self.error, self.wanting
        if path is not None:
            moved = model.moved(context, inherited, count, path)
            error = self._errors(moved)
            wanting = error > self.toll
        leading = torch.zeros_like(error, dtype=torch.int64)
        telling = torch.zeros_like(wanting)
        if path is None and not bool(wanting.any()):
            cost = _expected(error, self.toll).sum((1, 2))
            return Motion(inherited, telling, leading, inherited, moved, error, cost, telling)
        cell = model.config.cell
        if bool(wanting.any()):
            price = _BIT * self.threshold
            real = self.frames[:, :count]
            found = motion.search(context.frame, real, inherited, cell, wanting, price, path)
        else:
            found = motion.in_table(inherited)
        found_moved = model.moved_again(moved, inherited, context, found, count, path)
        found_error = self._errors(found_moved)
        followed = leaders.Followed(inherited, inherited)
        if self.lead:
            leading = self._leading(found, error, found_error, path)
            followed = leaders.follow(inherited, found, leading)
            moved = model.moved_again(moved, inherited, context, followed.velocity, count, path)
            error = self._errors(moved)
        sent = leaders.sends(error, found_error, self.toll, _LESS) | (leading > 0)
        if path is not None:
            telling = _first_best(sent, leading == 0)
            sent = sent | telling
        wide = sent.repeat_interleave(cell, -2).repeat_interleave(cell, -1)[:, None, None]
        tokens = sent.sum((1, 2)) + (leading > 0).sum((1, 2)) + telling.sum((1, 2)) * (count + 1)
        cost = _expected(torch.where(sent, found_error, error), self.toll).sum((1, 2))
        cost = cost + self.toll.flatten() * tokens
        if path is not None:
            cost = cost.masked_fill(~telling.flatten(1).any(1), torch.inf)  # nobody can say it
        return Motion(
            torch.where(sent.unsqueeze(1), found, followed.velocity),
            sent,
            leading,
            torch.where((sent & (leading == 0)).unsqueeze(1), found, followed.lasting),
            torch.where(wide, found_moved, moved),
            error,
            cost,
            telling,
            path,
            codes,
        )

    def _leading(
        self, found: torch.Tensor, error: torch.Tensor, found_error: torch.Tensor, path: torch.Tensor | None
    ) -> torch.Tensor:
        """Who leads, (B, h, w) int64."""
        c, each = self.model.config, []
        for n, inherited in enumerate(self.context.velocity):
            one = slice(n, n + 1)
            along = None if path is None else path[one]
            errors = motion.luma_errors(
                self.context.frame[one], self.frames[one, : self.count], c.cell, c.interpolation, along
            )
            estimate = leaders.estimator(errors, inherited, error[n], self.pixels)
            tried = leaders.Tried(error[n], found_error[n])
            each.append(leaders.choose(inherited, found[n], tried, float(self.toll[n]), _LESS, estimate))
        return torch.stack(each)

    def _errors(self, moved: torch.Tensor) -> torch.Tensor:
        return cell_energy(self.frames - moved, self.model.config.cell)


def _expected(error: torch.Tensor, toll: torch.Tensor) -> torch.Tensor:
    """What cells' squared errors are expected to cost in the end: tokens, each worth `toll`, go with the logarithm of
    what is much."""
    return torch.where(error < toll, error, toll * (1 + torch.log((error / toll).clamp_min(1))))


def _first_best(good: torch.Tensor, possible: torch.Tensor) -> torch.Tensor:
    """In each picture (B, h, w) one cell, a good one if there is any, of those that are possible."""
    rank = (possible.int() + (possible & good).int()).flatten(1)
    best = F.one_hot(rank.argmax(1), rank.shape[1]).bool()
    return best.view_as(good) & possible


class Predicted(NamedTuple):
    """An answer of `DefaultModel.predict`, and what had been asked."""

    context: Context
    frames: int
    velocity: torch.Tensor
    path: torch.Tensor | None
    answer: tuple[torch.Tensor, torch.Tensor]


class Residual(NamedTuple):
    """The coded residual of some cells, and which of them needed a gain."""

    codes: torch.Tensor  # (B, R, h, w) int64
    after: torch.Tensor  # (B, R, h, w) squared error left after each token
    gain: torch.Tensor  # (B, 1, h, w) int64: 0 none, else 1 + its place in GAINS
    length: torch.Tensor  # (B, 1, h, w) int64: how many codes there are


class Picked:
    """Some cells of a grid as a row of their own, as what is done to a cell often concerns few of them."""

    def __init__(self, where: torch.Tensor) -> None:
        self.where = where  # (B, h, w) bool
        self.count = int(where.sum())

    def take(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) to (1, C, 1, count)."""
        rows = x.permute(0, 2, 3, 1)
        rows = rows.flatten(0, 2) if self.count == self.where.numel() else rows[self.where]
        return rows.t()[None, :, None]

    def put(self, into: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """`into` (B, C, h, w) with the picked cells' values x (1, C, 1, count)."""
        out = into.permute(0, 2, 3, 1).clone()
        out[self.where] = x[0, :, 0].t()
        return out.permute(0, 3, 1, 2)


class DefaultTokenizer:
    """The codec's view of a `DefaultModel` (see `base.Tokenizer`).

    A cell's sequence is: its velocity, where one is sent (values from 64,000 on), and the scope in which that leads,
    where it does (values behind the gains); else its gain, where one is needed (values behind the velocities); then
    FSQ codes. The cell that says global motion sends a velocity and a mark (behind the scopes), then for
    each frame of the block a code of `global_motion`, then FSQ codes.
    """

    def __init__(self, model: DefaultModel) -> None:
        self.model = model.eval()
        c = model.config
        self.codes = math.prod(c.levels)
        self.first_gain = self.codes + motion.VELOCITIES
        self.first_scope = self.first_gain + len(GAINS)
        # at the end of a stage, where the others can go on
        self._few = next((n for n in accumulate(c.stages) if n >= _FEW), c.residual_tokens)
        self._predictions: list[Predicted] = []
        self.spec = TokenizerSpec(
            name=c.name,
            frames=c.frames,
            cell=(c.cell, c.cell),
            tokens_per_cell=c.residual_tokens + 2 + c.leaders + c.frames * c.global_motion,
            levels=c.levels,
            vocabulary=self.first_scope + len(leaders.SCOPES) * c.leaders + c.global_motion,
            nested=True,
        )

    def start(self, height: int, width: int) -> Context | None:
        """A keyframe block has no context, whatever the size."""
        return None

    @torch.inference_mode()
    def encode(
        self,
        frames: torch.Tensor,
        context: Context | None,
        *,
        count: int,
        target: float = 0.007,
        complete: bool = False,
        price: float | None = None,
    ) -> Encoding:
        """See `base.Tokenizer.encode`. A velocity is sent where it gains more than `price`, or half of `target`."""
        m, c = self.model, self.model.config
        batch, _, _, height, width = frames.shape
        grid = (height // c.cell, width // c.cell)
        if context is None:
            prediction = m.key_mean.view(1, 1, 3, 1, 1).expand_as(frames)
        else:
            threshold = 0.5 * target if price is None else price / m.basis.shape[-1]
            # one that leads must keep two tokens, one that says global motion more: only lengths of their own let them
            found = choose_motion(m, frames, context, threshold, count, lead=not complete)
            prediction, _ = self._predict(context, found.velocity, count, found.moved, found.path)
        residual = frames - prediction
        energy = cell_energy(residual, c.cell).unsqueeze(1)  # (B, 1, h, w)
        kind = KEY if context is None else INTER
        # a sequence begins with two values that are no codes at most
        steady = torch.zeros_like(energy) > 0
        if context is not None:
            steady = ((found.leading > 0) | found.telling).unsqueeze(1)
        coded = self._code(residual, energy, m.prior(context, grid, batch), steady, kind, target, complete)
        tokens, curve = coded.codes, torch.cat([energy, coded.after], 1)
        length, gain = coded.length[:, 0], coded.gain[:, 0]
        tokens, curve, length = _put_first(
            gain > 0, self.first_gain + gain - 1, energy, (tokens, curve, length)
        )
        if context is None:
            filled = filling(frames, count, c.cell) if c.fill else None
            nothing = torch.zeros_like(gain, dtype=torch.bool)
            tokens, curve, length = _put_first(nothing, gain, energy, (tokens, curve, length))
            return Encoding(tokens, length, curve, filled)
        if c.still:
            copied = ~found.sent & found.still
            curve[:, 0] = torch.where(copied, found.followed, curve[:, 0])
        before = found.followed.unsqueeze(1)
        if c.leaders:
            before = before.masked_fill(steady, _NEVER)
            if c.global_motion:
                for at in reversed(range(c.frames)):
                    here, code = found.telling & (at < count), torch.zeros_like(gain)
                    if found.codes is not None and at < count:
                        code = found.codes[:, at].view(-1, 1, 1).expand_as(gain)
                    tokens, curve, length = _put_first(here, code, before, (tokens, curve, length))
            mark = self.first_scope + torch.where(found.telling, len(leaders.SCOPES), found.leading - 1)
            tokens, curve, length = _put_first(steady[:, 0], mark, before, (tokens, curve, length))
        vector = self.codes + motion.velocity_to_index(found.velocity)
        tokens, curve, length = _put_first(found.sent, vector, before, (tokens, curve, length))
        return Encoding(tokens, length, curve)

    def _code(
        self,
        residual: torch.Tensor,  # (B, 4, 3, H, W)
        energy: torch.Tensor,  # (B, 1, h, w)
        prior: torch.Tensor,  # (B, prior_width, h, w)
        steady: torch.Tensor,  # (B, 1, h, w) bool: cells that may have no gain
        kind: int,
        target: float,
        complete: bool,
    ) -> Residual:
        """Quantize the cells that the target asks anything of; `complete` means all, with all tokens."""
        m, c = self.model, self.model.config
        goal = target * m.basis.shape[-1]
        none = torch.zeros_like(energy, dtype=torch.int64)
        slots = (-1, c.residual_tokens, -1, -1)
        out = Residual(none.expand(slots) - 1, energy.expand(slots), none, none)
        picked = Picked((energy > (0.0 if complete else _NEGLIGIBLE * goal))[:, 0])
        if picked.count:
            patches = picked.take(to_cells(residual, c.cell))
            known = (picked.take(x) for x in (energy, prior, steady))
            w, e, p, s = (torch.split(x, _AT_ONCE, -1) for x in (project(patches, m.basis[kind]), *known))
            done = [
                self._code_cells(*part, kind=kind, goal=goal, complete=complete)
                for part in zip(w, e, p, s, strict=True)
            ]
            coded = (torch.cat(column, -1) for column in zip(*done, strict=True))
            out = Residual(*(picked.put(all_, some) for all_, some in zip(out, coded, strict=True)))
        return out

    def _code_cells(
        self,
        wanted: torch.Tensor,  # (1, K, 1, n)
        energy: torch.Tensor,  # (1, 1, 1, n)
        prior: torch.Tensor,  # (1, prior_width, 1, n)
        steady: torch.Tensor,  # (1, 1, 1, n)
        kind: int,
        goal: float,
        complete: bool,
    ) -> Residual:
        """Quantize: each cell until little error is left. Where all tokens leave far more than the goal, every gain
        is tried."""
        m, c = self.model, self.model.config
        cell_class = m.quantizer.classify(wanted, energy[:, 0], torch.full_like(energy[:, 0], goal), kind)
        total = c.residual_tokens

        def code(
            cells: Picked, gain: float, most: int, done: int = 0, told: torch.Tensor | None = None
        ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            """Codes from the token after `done` on, the error each leaves, and the coefficients all of them tell."""
            own_class = cells.take(cell_class[:, None])[:, 0]
            coded = m.quantizer(
                cells.take(prior),
                kind,
                own_class,
                target=cells.take(wanted),
                gain=gain,
                most=most,
                done=done,
                told=told,
            )
            before = after[:, -1:] if done else energy
            left = (cells.take(before) - coded.gains.cumsum(1)).clamp_min(0)
            return fsq.digits_to_index(coded.digits, m.quantizer.levels), left, coded.told

        everyone = Picked(torch.ones_like(cell_class, dtype=torch.bool))
        codes, after, told = code(everyone, 1.0, total if complete else self._few)
        length = torch.full_like(energy, codes.shape[1], dtype=torch.int64)
        gain = torch.zeros_like(length)
        for end in accumulate(c.stages):
            if end <= codes.shape[1]:
                continue
            # each stage only for cells that are not done
            more = codes.new_full((1, end - codes.shape[1], *codes.shape[2:]), -1)
            more_after = after[:, -1:].expand_as(more)
            if bool((deep := after[:, -1] > _NEGLIGIBLE * goal).any()):
                cells = Picked(deep)
                *late, late_told = code(cells, 1.0, end, codes.shape[1], cells.take(told))
                more, more_after = cells.put(more, late[0]), cells.put(more_after, late[1])
                told = cells.put(told, late_told)
                length = length.masked_fill(deep[:, None], end)
            codes, after = torch.cat([codes, more], 1), torch.cat([after, more_after], 1)
        allowed = 0.5 * goal
        if bool((short := (after[:, -1] > _FAR * goal) & ~steady[:, 0]).any()):
            cells = Picked(short)
            best = cells.take(codes), cells.take(after), cells.take(gain)
            for number, factor in enumerate(GAINS, 1):
                other, other_after, _ = code(cells, factor, total)
                # fewer tokens to get there, or less error at the end
                better = (_cost(other_after, allowed) < 0.95 * _cost(best[1], allowed)).unsqueeze(1)
                best = (
                    torch.where(better, other, best[0]),
                    torch.where(better, other_after, best[1]),
                    torch.where(better, number, best[2]),
                )
            codes, after, gain = (
                cells.put(all_, some) for all_, some in zip((codes, after, gain), best, strict=True)
            )
        return Residual(codes, after, gain, length)

    def _predict(
        self,
        context: Context,
        velocity: torch.Tensor,
        count: int,
        moved: torch.Tensor | None = None,
        path: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`DefaultModel.predict`, remembering the last answers: an encoder asks the same several times."""
        known = self._predictions = [p for p in self._predictions if p.context is context]
        for p in known:
            if p.frames == count and torch.equal(p.velocity, velocity) and _same(p.path, path):
                return p.answer
        if moved is None:
            moved = self.model.moved(context, velocity, count, path)
        answer = self.model.predict(moved, context, velocity, count, path)
        del known[max(1, _REMEMBERED // answer[0].numel()) - 1 :]
        known.insert(0, Predicted(context, count, velocity, path, answer))
        return answer

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
        marked = moving & (tokens[:, 0] >= self.first_scope) & (kept > 0) & c.leaders
        telling = marked & (tokens[:, 0] == self.first_scope + len(leaders.SCOPES)) & c.global_motion
        leads = marked & ~telling
        leading = torch.where(leads, 1 + tokens[:, 0] - self.first_scope, 0)
        tokens, kept = _drop_first(marked, tokens, kept)
        path = None
        if bool(telling.any()):
            whole, path_codes = telling & (kept >= count), []  # what is cut short says nothing
            for _ in range(count):
                here = torch.where(whole, tokens[:, 0].clamp(0, global_motion.CODES - 1), -1)
                path_codes.append(here.flatten(1).amax(1))
                tokens, kept = _drop_first(telling, tokens, kept)
            kept = kept.clamp_min(0)
            if bool(whole.any()):
                said = torch.stack(path_codes, 1)
                path = global_motion.from_codes(torch.where(said < 0, global_motion.NOWHERE, said))
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
            lasting = torch.zeros(batch, 2, rows, cols, device=tokens.device)
            prediction = m.key_mean.view(1, 1, 3, 1, 1).expand(
                batch, c.frames, 3, rows * c.cell, cols * c.cell
            )
        else:
            kind = INTER
            own = motion.index_to_velocity(vector)
            followed = leaders.follow(context.velocity, own, leading)
            velocity = torch.where(moving.unsqueeze(1), own, followed.velocity)
            lasting = torch.where((moving & ~leads).unsqueeze(1), own, followed.lasting)
            prediction, features = self._predict(context, velocity, count, path=path)
        coefficients = prediction.new_zeros(batch, c.coefficients, rows, cols)
        told = Picked(kept > 0)
        if told.count:
            prior = told.take(m.prior(context, (rows, cols), batch))
            own = told.take(digits.flatten(1, 2)).view(1, *digits.shape[1:3], 1, -1)
            length = told.take(kept.unsqueeze(1))
            p, d, g, n = (torch.split(x, _AT_ONCE, -1) for x in (prior, own, told.take(gain), length))
            some = [self._tell(*part, kind=kind) for part in zip(p, d, g, n, strict=True)]
            coefficients = told.put(coefficients, torch.cat(some, -1))
        decoded, left = m.refine(prediction, features, coefficients, kept, kind)
        if context is not None:
            decoded = m.stand_still(decoded, context.frame, stands_still(velocity, path), keep)
        decoded = decoded.clamp(-1, 1)
        return decoded, Context(m.reference(decoded), left, lasting)

    def _tell(
        self,
        prior: torch.Tensor,  # (1, prior_width, 1, n)
        digits: torch.Tensor,  # (1, R, D, 1, n)
        gain: torch.Tensor,  # (1, 1, 1, n)
        length: torch.Tensor,  # (1, 1, 1, n) codes kept, at least 1
        kind: int,
    ) -> torch.Tensor:
        """Decoded coefficients (1, K, 1, n) of some cells."""
        quantizer = self.model.quantizer
        cell_class = quantizer.read_class(digits)
        most = int(length.max())
        changes = quantizer(prior, kind, cell_class, digits=digits, gain=gain, most=most).changes
        return quantizer.assemble(changes, length[:, 0], kind, cell_class)

    def estimate_motion(self, last: torch.Tensor, later: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """See `NestedTokenizer.estimate_motion`: a full search, in even numbers of up to 24 pixels."""
        return motion.shifts(last, later, grid)

    def compensate_motion(self, picture: torch.Tensor, vectors: torch.Tensor, frames: int) -> torch.Tensor:
        """See `NestedTokenizer.compensate_motion`."""
        return motion.warp(picture, vectors, torch.tensor([frames], device=picture.device))[:, 0]


def _same(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    return (one is None and other is None) or (
        one is not None and other is not None and torch.equal(one, other)
    )


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

"""Encoding: a block of frames to nested tokens and what each of them is worth.

1. `analyze` decides motion and predicts the block. Training calls it too.
2. `_code_residual` quantizes the residual of every cell that the target asks anything of.
3. `encode` lays the tokens out in their order: control tokens first, FSQ codes behind.
"""

from __future__ import annotations

from itertools import accumulate
from typing import NamedTuple

import torch

from elastictok_cli.models import fsq
from elastictok_cli.models.cell.context import Context
from elastictok_cli.models.cell.fill import filled_errors
from elastictok_cli.models.cell.motion.decision import Motion, choose_motion
from elastictok_cli.models.cell.networks import DefaultModel
from elastictok_cli.models.cell.prediction import Prediction, Reuse, predict_inter, predict_keyframe
from elastictok_cli.models.cell.quantizer import CELLS_AT_ONCE, Quantized
from elastictok_cli.models.cell.selection import Selection
from elastictok_cli.models.cell.token_layout import GAINS, MotionTokens, Sequences, TokenLayout
from elastictok_cli.models.cell.transform import cell_energy, project, to_cells
from elastictok_cli.models.interface import Encoding

_FIRST_PASS_CODES = 8  # with which most cells get near their goal; the others go on stage by stage
_NEGLIGIBLE_ERROR = 0.15  # share of the target below which a cell's error is left alone
_GAIN_ERROR = 2.0  # times the target: only cells that all codes leave above it may get a gain
_GAIN_BENEFIT = 0.95  # a gain is used only if it makes a cell's cost smaller than this share of it


class Analysis(NamedTuple):
    """One block before its residual is quantized."""

    prediction: Prediction
    motion: Motion | None  # None in a keyframe block
    residual: torch.Tensor  # (B, 4, 3, H, W) the frames minus their prediction
    energy: torch.Tensor  # (B, 1, h, w) squared error of each cell without any code
    prior: torch.Tensor  # (B, prior_width, h, w) what cells know about their statistics


def analyze(
    model: DefaultModel,
    frames: torch.Tensor,
    context: Context | None,
    *,
    count: int,
    threshold: torch.Tensor | float,
    camera: bool = True,
    reuse: Reuse | None = None,
) -> Analysis:
    """Decide motion, predict, subtract. Differentiable, except for the motion decision.

    frames: (B, 4, 3, H, W) in [-1, 1], of which `count` are real; context: None for keyframe blocks; threshold: MSE (a
    float or (B, 1, 1)) that a token must save; camera: whether there may be camera pans and shakes.
    """
    c = model.config
    batch, (height, width) = len(frames), frames.shape[-2:]
    grid = (height // c.cell, width // c.cell)
    motion = None
    if context is None:
        prediction = predict_keyframe(model, batch, grid, frames.device)
    else:
        with torch.no_grad():
            motion = choose_motion(c, frames, context, threshold, count, camera=camera)
        prediction = predict_inter(
            model,
            context,
            motion.vectors,
            motion.lasting,
            count,
            motion.shake,
            moved=motion.moved,
            reuse=reuse,
        )
    residual = frames - prediction.frames
    energy = cell_energy(residual, c.cell).unsqueeze(1)
    return Analysis(prediction, motion, residual, energy, model.prior(context, grid, batch))


def encode(
    model: DefaultModel,
    layout: TokenLayout,
    frames: torch.Tensor,
    context: Context | None,
    *,
    count: int,
    target: float,
    complete: bool,
    price: float | None,
) -> Encoding:
    """All tokens of one block; see `interface.NestedTokenizer.encode`.

    A motion vector is sent where it saves more than `price`, or than half of `target` if no price is given.
    """
    c = model.config
    threshold = 0.5 * target if price is None else price / model.basis.shape[-1]
    reuse = None if context is None else Reuse(context, count)
    # A pan needs two tokens in its cell, a shake more. Where all cells keep as many tokens, neither can be counted on.
    seen = analyze(model, frames, context, count=count, threshold=threshold, camera=not complete, reuse=reuse)
    motion = seen.motion
    no_gain = torch.zeros_like(seen.energy) > 0
    if motion is not None:  # a cell starts with at most two control tokens
        no_gain = ((motion.pan > 0) | motion.sends_shake).unsqueeze(1)
    coded = _code_residual(model, seen, no_gain, target, complete)
    sequences = Sequences(coded.codes, torch.cat([seen.energy, coded.error], 1), coded.length[:, 0])
    sequences = layout.put_gain(sequences, coded.gain[:, 0])
    if motion is None:
        filled = filled_errors(frames, count, c.cell) if c.fill_in else None
        sequences = sequences.with_unused_slot()  # where other blocks have motion vectors
    else:
        filled = None
        if c.copy_still:
            copied = ~motion.sent & motion.still
            without_token = sequences.curve[:, 0]
            sequences.curve[:, 0] = torch.where(copied, motion.unsent_error, without_token)
        tokens = MotionTokens(motion.sent, motion.vectors, motion.pan, motion.sends_shake, motion.shake_codes)
        sequences = layout.put_motion(sequences, tokens, motion.unsent_error, count)
    return Encoding(sequences.tokens, sequences.length, sequences.curve, filled, reuse)


def quantize(
    model: DefaultModel,
    kind: int,
    wanted: torch.Tensor,
    error: torch.Tensor,
    prior: torch.Tensor,
    cell_class: torch.Tensor,
    *,
    gain: float = 1.0,
    most: int | None = None,
    done: int = 0,
    decoded: torch.Tensor | None = None,
) -> tuple[Quantized, torch.Tensor]:
    """Quantize coefficients, and the squared error (B, R, h, w) that is left after each token. Differentiable.

    wanted: (B, K, h, w) coefficients; error: (B, 1, h, w) squared error before; the others as in `NestedQuantizer`.
    """
    coded = model.quantizer(
        prior, kind, cell_class, target=wanted, gain=gain, most=most, done=done, decoded=decoded
    )
    return coded, (error.detach() - coded.removed.cumsum(1)).clamp_min(0)


class _Residual(NamedTuple):
    """The coded residual of some cells."""

    codes: torch.Tensor  # (B, R, h, w) int64
    error: torch.Tensor  # (B, R, h, w) squared error left after each code
    gain: torch.Tensor  # (B, 1, h, w) int64: 0 none, else 1 + its place in GAINS
    length: torch.Tensor  # (B, 1, h, w) int64: how many codes there are


def _code_residual(
    model: DefaultModel, seen: Analysis, no_gain: torch.Tensor, target: float, complete: bool
) -> _Residual:
    """Quantize the cells that the target (MSE) asks anything of; `complete` means all, with all codes.

    no_gain: (B, 1, h, w) bool, cells that may have no gain.
    """
    goal = target * model.basis.shape[-1]
    kind, energy = seen.prediction.kind, seen.energy
    none = torch.zeros_like(energy, dtype=torch.int64)
    slots = (-1, model.config.residual_tokens, -1, -1)
    out = _Residual(none.expand(slots) - 1, energy.expand(slots), none, none)
    cells = Selection((energy > (0.0 if complete else _NEGLIGIBLE_ERROR * goal))[:, 0])
    if cells.count:
        patches = cells.take(to_cells(seen.residual, model.config.cell))
        columns = (project(patches, model.basis[kind]), *map(cells.take, (energy, seen.prior, no_gain)))
        parts = zip(*(torch.split(x, CELLS_AT_ONCE, -1) for x in columns), strict=True)
        coded = [_code_cells(model, *part, kind=kind, goal=goal, complete=complete) for part in parts]
        joined = (torch.cat(column, -1) for column in zip(*coded, strict=True))
        out = _Residual(*(cells.put(all_, some) for all_, some in zip(out, joined, strict=True)))
    return out


def _code_cells(
    model: DefaultModel,
    wanted: torch.Tensor,  # (1, K, 1, n) coefficients
    energy: torch.Tensor,  # (1, 1, 1, n)
    prior: torch.Tensor,  # (1, prior_width, 1, n)
    no_gain: torch.Tensor,  # (1, 1, 1, n) bool
    *,
    kind: int,
    goal: float,
    complete: bool,
) -> _Residual:
    """Quantize n cells until little error is left in each; where all codes leave far too much, try every gain."""
    stages, total = model.config.stages, model.config.residual_tokens
    # the end of a stage, where the quantizer can go on
    first_pass = next((end for end in accumulate(stages) if end >= _FIRST_PASS_CODES), total)
    cell_class = model.quantizer.classify(wanted, energy[:, 0], torch.full_like(energy[:, 0], goal), kind)

    def code(
        cells: Selection, gain: float, most: int, done: int = 0, decoded: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Codes behind the first `done`, the error each leaves, and the coefficients decoded from all of them."""
        coded, left = quantize(
            model,
            kind,
            cells.take(wanted),
            cells.take(error[:, -1:] if done else energy),
            cells.take(prior),
            cells.take(cell_class[:, None])[:, 0],
            gain=gain,
            most=most,
            done=done,
            decoded=decoded,
        )
        return fsq.digits_to_index(coded.digits, model.quantizer.levels), left, coded.decoded

    everyone = Selection(torch.ones_like(cell_class, dtype=torch.bool))
    codes, error, decoded = code(everyone, 1.0, total if complete else first_pass)
    length = torch.full_like(energy, codes.shape[1], dtype=torch.int64)
    for end in accumulate(stages):
        if end <= codes.shape[1]:
            continue
        # each further stage only for cells whose error is not negligible yet
        more = codes.new_full((1, end - codes.shape[1], *codes.shape[2:]), -1)
        more_error = error[:, -1:].expand_as(more)
        unfinished = Selection(error[:, -1] > _NEGLIGIBLE_ERROR * goal)
        if unfinished.count:
            late, late_error, late_decoded = code(
                unfinished, 1.0, end, codes.shape[1], unfinished.take(decoded)
            )
            more, more_error = unfinished.put(more, late), unfinished.put(more_error, late_error)
            decoded = unfinished.put(decoded, late_decoded)
            length = length.masked_fill(unfinished.where[:, None], end)
        codes, error = torch.cat([codes, more], 1), torch.cat([error, more_error], 1)
    gain = torch.zeros_like(length)
    allowed = 0.5 * goal
    out_of_reach = Selection((error[:, -1] > _GAIN_ERROR * goal) & ~no_gain[:, 0])
    if out_of_reach.count:
        best = tuple(map(out_of_reach.take, (codes, error, gain)))
        for number, factor in enumerate(GAINS, 1):
            other, other_error, _ = code(out_of_reach, factor, total)
            better = _cost(other_error, allowed) < _GAIN_BENEFIT * _cost(best[1], allowed)
            tried = (other, other_error, torch.full_like(best[2], number))
            best = tuple(torch.where(better.unsqueeze(1), a, b) for a, b in zip(tried, best, strict=True))
        codes, error, gain = (
            out_of_reach.put(all_, some) for all_, some in zip((codes, error, gain), best, strict=True)
        )
    return _Residual(codes, error, gain, length)


def _cost(error: torch.Tensor, allowed: float) -> torch.Tensor:
    """Tokens (B, h, w) until the error (B, R, h, w) is at most `allowed`, more for cells that never get there."""
    tokens = (error > allowed).float().sum(1)
    return tokens + 10 * (error[:, -1] / allowed - 1).clamp_min(0)

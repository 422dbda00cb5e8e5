"""Encoding: a block of frames to nested tokens and what each of them is worth.

1. `analyze` decides motion and predicts the block. Training calls it too.
2. `_code_residual` quantizes the residual of every cell that the target asks anything of.
3. `screen.mode_decision.choose` finds the cells for which a screen mode is cheaper.
4. `encode` lays the tokens out in their order: control tokens first, then codes.
"""

from __future__ import annotations

from itertools import accumulate
from typing import NamedTuple

import torch
import torch.nn.functional as F

from elastictok_cli.models import fsq
from elastictok_cli.models.cell.context import Context
from elastictok_cli.models.cell.fill import filled_errors
from elastictok_cli.models.cell.motion.decision import Motion, choose_motion
from elastictok_cli.models.cell.networks import DefaultModel
from elastictok_cli.models.cell.prediction import Prediction, Reuse, predict_inter, predict_keyframe
from elastictok_cli.models.cell.quantizer import CELLS_AT_ONCE, Quantized
from elastictok_cli.models.cell.screen.mode_decision import Modes, NaturalCosts, choose
from elastictok_cli.models.cell.selection import Selection
from elastictok_cli.models.cell.token_layout import GAINS, MotionTokens, Sequences, TokenLayout
from elastictok_cli.models.cell.transform import cell_energy, energy_of, project, to_cells
from elastictok_cli.models.interface import Encoding

_FIRST_PASS_CODES = 8  # with which most cells get near their goal; the others go on stage by stage
_NEGLIGIBLE_ERROR = 0.15  # share of the target below which a cell's error is left alone
_GAIN_ERROR = 2.0  # times the target: only cells that all codes leave above it may get a gain
_GAIN_BENEFIT = 0.95  # a gain is used only if it makes a cell's cost smaller than this share of it


class Analysis(NamedTuple):
    """One block before its residual is quantized."""

    prediction: Prediction
    motion: Motion | None  # None in a keyframe block
    residual: torch.Tensor  # (B, h, w, 3072) the values of cells minus their prediction
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
    whole: bool = False,
) -> Analysis:
    """Decide motion, predict, subtract. Differentiable, except for the motion decision.

    frames: (B, 4, 3, H, W) in [-1, 1], of which `count` are real; context: None for keyframe blocks; threshold: MSE (a
    float or (B, 1, 1)) that a token must save; camera: whether there may be camera pans and shakes; whole: whether
    there may be whole vectors.
    """
    c = model.config
    batch, (height, width) = len(frames), frames.shape[-2:]
    grid = (height // c.cell, width // c.cell)
    motion = None
    if context is None:
        prediction = predict_keyframe(model, batch, grid, frames.device)
    else:
        with torch.no_grad():
            motion = choose_motion(c, frames, context, threshold, count, camera=camera, whole=whole)
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
    residual = to_cells(frames, c.cell) - prediction.cells
    energy = energy_of(residual).unsqueeze(1)
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

    A motion vector is sent where it saves more than `price`, or than half of `target` if no price is given, or if all
    cells are to be `complete`. Without a price, a complete encoding has no screen modes: a palette that is cut is
    nothing.
    """
    c = model.config
    threshold = 0.5 * target if price is None or complete else price / model.basis.shape[-1]
    reuse = None if context is None else Reuse(context, count)
    screen = layout.screen and not (complete and price is None)

    # A pan needs two tokens in its cell, a shake more. Where all cells keep as many tokens, neither can be counted on.
    camera = not complete
    seen = analyze(
        model,
        frames,
        context,
        count=count,
        threshold=threshold,
        camera=camera,
        reuse=reuse,
        whole=screen and camera,
    )
    motion = seen.motion
    no_more_control = _speaks_for_others(seen)
    coded = _code_residual(model, seen, no_more_control.unsqueeze(1), target, complete)
    sequences = Sequences(coded.codes, torch.cat([seen.energy, coded.error], 1), coded.length[:, 0])
    goal = target * model.basis.shape[-1]
    gain, mode = coded.gain[:, 0], torch.zeros_like(sequences.length)
    wanted = torch.zeros_like(no_more_control)
    if context is not None and motion is not None:
        stays = motion.whole if context.screen is None else motion.whole | context.screen
        error = cell_energy(frames - motion.moved, c.cell)
        sequences = _keep_screen_cells(sequences, stays, error, motion.whole)
        wanted = stays & (error > _NEGLIGIBLE_ERROR * goal)
    if screen:
        modes = choose(
            frames,
            model.key_mean.view(1, 1, 3, 1, 1).expand_as(frames) if motion is None else motion.moved,
            NaturalCosts(sequences.curve, sequences.length),
            count=count,
            goal=goal,
            price=price,
            possible=~no_more_control,
            palettes=~no_more_control if motion is None else ~(no_more_control | motion.whole),
            wanted=wanted,
            inter=motion is not None,
        )
        if modes is not None:
            sequences, gain, mode = _with_modes(sequences, gain, mode, modes)
            if motion is not None:
                mode = mode.masked_fill(motion.whole, 0)  # a DCT stream follows without its name
        sequences = layout.put_mode(sequences, mode)
    sequences = layout.put_gain(sequences, gain)
    if motion is None:
        filled = filled_errors(frames, count, c.cell) if c.fill_in else None
        sequences = sequences.with_unused_slot()  # where other blocks have motion vectors
    else:
        filled = None
        if c.copy_still:
            copied = ~motion.sent & motion.still
            without_token = sequences.curve[:, 0]
            sequences.curve[:, 0] = torch.where(copied, motion.unsent_error, without_token)
        tokens = MotionTokens(
            motion.sent, motion.vectors, motion.whole, motion.pan, motion.sends_shake, motion.shake_codes
        )
        sequences = layout.put_motion(sequences, tokens, motion.unsent_error, count)
    return Encoding(sequences.tokens, sequences.length, sequences.curve, filled, reuse)


def _speaks_for_others(seen: Analysis) -> torch.Tensor:
    """Cells (B, h, w) bool whose control tokens leave no room for another one: a cell starts with at most two."""
    if seen.motion is None:
        return torch.zeros_like(seen.energy[:, 0], dtype=torch.bool)
    return (seen.motion.pan > 0) & ~seen.motion.whole | seen.motion.sends_shake


def _keep_screen_cells(
    sequences: Sequences, stays: torch.Tensor, error: torch.Tensor, whole: torch.Tensor
) -> Sequences:
    """The sequences where some cells, without a code, are a plain copy of the reference.

    stays: (B, h, w) bool, those cells; error: (B, h, w) squared error of such a copy; whole: cells with a whole vector,
    which have no FSQ codes.
    """
    curve = sequences.curve.clone()
    curve[:, 0] = torch.where(stays, error, curve[:, 0])
    return Sequences(sequences.tokens, curve, sequences.length.masked_fill(whole, 0))


def _with_modes(
    sequences: Sequences, gain: torch.Tensor, mode: torch.Tensor, modes: Modes
) -> tuple[Sequences, torch.Tensor, torch.Tensor]:
    """The sequences with the codes of screen modes in their cells, and the gains and modes (B, h, w) of all cells."""
    cells = modes.cells
    at = (cells.picture, cells.row, cells.column)
    tokens, curve, length = sequences
    missing = modes.codes.shape[1] - tokens.shape[1]
    if missing > 0:
        tokens = torch.cat([tokens, torch.full_like(tokens[:, :1], -1).expand(-1, missing, -1, -1)], 1)
        curve = torch.cat([curve, curve[:, -1:].expand(-1, missing, -1, -1)], 1)
    more = tokens.shape[1] - modes.codes.shape[1]
    codes = F.pad(modes.codes, (0, more), value=-1)
    error = torch.cat([modes.error, modes.error[:, -1:].expand(-1, more)], 1)
    tokens, curve, length, gain, mode = (x.clone() for x in (tokens, curve, length, gain, mode))
    tokens.permute(0, 2, 3, 1)[at] = codes
    curve[:, 1:].permute(0, 2, 3, 1)[at] = error
    length[at], gain[at], mode[at] = modes.length, 0, modes.mode
    return Sequences(tokens, curve, length), gain, mode


def quantize(
    model: DefaultModel,
    kind: int,
    wanted: torch.Tensor,
    error: torch.Tensor,
    prior: torch.Tensor,
    cell_class: torch.Tensor,
    *,
    gain: torch.Tensor | None = None,
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
        wanted = project(cells.rows(seen.residual), model.transform(kind)).t()[None, :, None]
        columns = (wanted, *map(cells.take, (energy, seen.prior, no_gain)))
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
        cells: Selection,
        gains: torch.Tensor | None,
        most: int,
        done: int = 0,
        decoded: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Codes behind the first `done`, the error each leaves, and the coefficients decoded from all of them.

        gains: (g,) factors on the steps; all cells with the first come before all cells with the second.
        """
        given: tuple[torch.Tensor, ...] = (
            wanted,
            error[:, -1:] if done else energy,
            prior,
            cell_class[:, None],
        )
        if cells is not everyone:
            given = tuple(map(cells.take, given))
        gain = None
        if gains is not None:
            given = tuple(x.repeat(1, 1, 1, len(gains)) for x in given)
            gain = gains.repeat_interleave(cells.count).view(1, 1, 1, -1)
        some, before, known, classes = given
        coded, left = quantize(
            model,
            kind,
            some,
            before,
            known,
            classes[:, 0],
            gain=gain,
            most=most,
            done=done,
            decoded=decoded,
        )
        return fsq.digits_to_index(coded.digits, model.quantizer.levels), left, coded.decoded

    everyone = Selection(torch.ones_like(cell_class, dtype=torch.bool))
    codes, error, decoded = code(everyone, None, total if complete else first_pass)
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
                unfinished, None, end, codes.shape[1], unfinished.take(decoded)
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
        tries = code(out_of_reach, torch.tensor(GAINS, device=energy.device), total)[:2]
        each = zip(*(x.chunk(len(GAINS), -1) for x in tries), strict=True)
        for number, (other, other_error) in enumerate(each, 1):
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

"""The codec's view of the default model: encode and decode blocks of frames."""

from __future__ import annotations

import math
from itertools import accumulate
from typing import NamedTuple

import torch

from elastictok_cli.models import fsq
from elastictok_cli.models.cell.config import INTER, KEY
from elastictok_cli.models.cell.context import Context
from elastictok_cli.models.cell.fill import filling
from elastictok_cli.models.cell.motion import camera_pan as leaders
from elastictok_cli.models.cell.motion import camera_shake as global_motion
from elastictok_cli.models.cell.motion import vectors as motion
from elastictok_cli.models.cell.motion.decision import choose_motion, stands_still
from elastictok_cli.models.cell.networks import DefaultModel
from elastictok_cli.models.cell.selection import Selection
from elastictok_cli.models.cell.token_layout import GAINS, TokenLayout
from elastictok_cli.models.cell.transform import cell_energy, project, to_cells
from elastictok_cli.models.interface import Encoding, TokenizerSpec

_AT_ONCE = 2048  # cells quantized together: bounds memory at any picture size
_REMEMBERED = 3_200_000  # values of predictions kept: four of 256x256 pixels, one of a large picture
_FEW = 8  # tokens with which most cells get near their goal
_NEGLIGIBLE = 0.15  # share of the target below which a cell's error is left alone
_FAR = 2.0  # times the target: cells that all tokens leave above it may need a gain
_NEVER = 1e9  # squared error of a cell that speaks for others, were it not to: more than any can have


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
        layout = TokenLayout(math.prod(c.levels), c.leaders, c.global_motion)
        self.codes, self.first_gain, self.first_scope = layout.codes, layout.first_gain, layout.first_pan
        # at the end of a stage, where the others can go on
        self._few = next((n for n in accumulate(c.stages) if n >= _FEW), c.residual_tokens)
        self._predictions: list[Predicted] = []
        self.spec = TokenizerSpec(
            name=c.name,
            frames=c.frames,
            cell=(c.cell, c.cell),
            tokens_per_cell=c.residual_tokens + 2 + c.leaders + c.frames * c.global_motion,
            levels=c.levels,
            vocabulary=layout.vocabulary,
            nested=True,
            control_tokens=layout.control_tokens,
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
        picked = Selection((energy > (0.0 if complete else _NEGLIGIBLE * goal))[:, 0])
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
            cells: Selection, gain: float, most: int, done: int = 0, told: torch.Tensor | None = None
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

        everyone = Selection(torch.ones_like(cell_class, dtype=torch.bool))
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
                cells = Selection(deep)
                *late, late_told = code(cells, 1.0, end, codes.shape[1], cells.take(told))
                more, more_after = cells.put(more, late[0]), cells.put(more_after, late[1])
                told = cells.put(told, late_told)
                length = length.masked_fill(deep[:, None], end)
            codes, after = torch.cat([codes, more], 1), torch.cat([after, more_after], 1)
        allowed = 0.5 * goal
        if bool((short := (after[:, -1] > _FAR * goal) & ~steady[:, 0]).any()):
            cells = Selection(short)
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
        told = Selection(kept > 0)
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

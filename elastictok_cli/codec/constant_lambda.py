"""Coding blocks at a given lambda instead of a given error: every token has to save that much squared error.

Where all blocks have one lambda, no exchange of tokens between them makes their summed error smaller. That holds for
the choice of blocks too: mode decision takes the candidate with the least error + lambda * tokens per frame. All drafts
are made at the lambda, and the chosen one is decoded once.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import torch

from elastictok_cli.codec import rate_control
from elastictok_cli.codec.block_splitting import SourceBlock
from elastictok_cli.codec.lookahead import Lookahead
from elastictok_cli.codec.options import EncodeOptions
from elastictok_cli.codec.pixels import job_of
from elastictok_cli.codec.probing import Coded, Draft, all_tokens, allowed_error, error_model, probe
from elastictok_cli.codec.rate_curve import RateCurve, prices, values_of_cell
from elastictok_cli.codec.scene_state import MAX_CURVE_BIAS, MIN_CURVE_BIAS
from elastictok_cli.models.interface import NestedTokenizer

# The squared error that a target leaves a cell, over the lambda that it usually leads to: where a survey begins.
ERROR_OF_CELL_PER_PRICE = 2.0
# Weight of the frames ahead of a keyframe block, relative to `lookahead.WEIGHT_OF_SPAN_KEYFRAME`. That was found for
# targets of blocks; at a lambda half of it takes fewer tokens.
WEIGHT_AHEAD_OF_KEYFRAME = 0.5
MAX_COST_OF_CHALLENGER = 0.97  # relative to the best so far: a candidate wins only below this
# Tokens of a cell above which shorter blocks are drafted too, as a share of those of `rate_control.Effort.costly`. They
# need no decode here, and pay more often than with a target for each block.
COSTLY_SHARE = 0.25
MAX_RATIO_TO_SKIP_KEYFRAME = (
    0.5  # tokens per frame, relative to the last keyframe block: below it none is drafted
)


@dataclass(frozen=True)
class Candidate:
    """A way to code the next frames. cost: tokens per frame, and its error in tokens at the lambda."""

    block: SourceBlock
    draft: Draft
    cost: float


class ConstantLambdaCoder:
    """Codes the blocks of a scene at the lambdas it is given.

    curve_bias: measured / predicted error of the last block by kind (keyframe or not) and number of frames.
    keyframe_tokens: of the last keyframe block.
    """

    def __init__(
        self,
        tokenizer: NestedTokenizer,
        options: EncodeOptions,
        device: torch.device,
        grid: tuple[int, int],
        *,
        usual: float,
        worst: float | None,
    ) -> None:
        """usual: MSE that the video should have in the mean. worst: MSE that no block may exceed; None: any may."""
        self.tokenizer, self.device, self.usual, self.worst = tokenizer, device, usual, worst
        self.effort = rate_control.EFFORTS[options.effort]
        self.costly_tokens = COSTLY_SHARE * self.effort.costly * grid[0] * grid[1]
        cell = tokenizer.spec.cell
        self._size = (grid[0] * cell[0], grid[1] * cell[1])
        self._lookahead = Lookahead(tokenizer, device)
        self._curve_bias: dict[tuple[bool, int], float] = {}
        self._keyframe_tokens = 0.0

    def begin(self, block: SourceBlock) -> None:
        """Forget all that was before a keyframe block."""
        if block.keyframe:
            self._curve_bias, self._keyframe_tokens = {}, 0.0

    def whole(self, block: SourceBlock, context: Any, price: float) -> Candidate:
        """The proposed block as the one candidate."""
        return self._candidate(block, context, price)

    def choose(self, block: SourceBlock, context: Any, price: float) -> Candidate:
        """The candidate that costs least per frame: the proposed block, its first one or two frames, or a keyframe.

        price: lambda, squared error per token; where a block has fewer frames than T, its tokens have to save it in
        those. The others are compared only where the block is costly, and no keyframe block.
        """
        best = self._candidate(block, context, price)
        if block.keyframe:
            self._keyframe_tokens = best.draft.tokens
        count = len(block.frames)
        if block.keyframe or best.draft.tokens <= self.costly_tokens:
            return best
        for shorter in (1, 2):
            if shorter < count:
                best = _better_of(best, self._candidate(block.first(shorter), context, price))
        if best.draft.per_frame > MAX_RATIO_TO_SKIP_KEYFRAME * self._keyframe_tokens:
            best = _better_of(best, self._candidate(block.first(1).as_keyframe(), context, price))
        return best

    def code(self, chosen: Candidate, price: float) -> Coded:
        """The candidate at this lambda, or below the worst error where it would exceed that."""
        block, draft = chosen.block, chosen.draft
        model = copy.copy(draft.model)
        keep = model.allocate_at(self._scaled(block, price))
        coded = probe(self.tokenizer, draft.job, draft.encoding, keep, draft.context, self.worst)
        assert coded.cell_errors is not None
        coded = replace(coded, bias=model.learn(keep, coded.cell_errors))
        if coded.missed and self.worst is not None:
            coded = self.meet(chosen, self.worst)
        return coded

    def code_to(self, chosen: Candidate, mse: float) -> tuple[Coded, float, float]:
        """The candidate with the tokens that its curves say leave this error, by one decode.

        Also the error that they predict, and the lambda, as in `price_range` for this error.
        """
        block, draft = chosen.block, chosen.draft
        model = copy.copy(draft.model)
        model.begin_again()
        keep, scaled = model.allocate(allowed_error(draft.job, mse, draft.keep.device))
        coded = probe(self.tokenizer, draft.job, draft.encoding, keep, draft.context, None)
        assert coded.cell_errors is not None
        predicted = model.error_of(keep) / self.values(draft)
        coded = replace(coded, bias=copy.copy(model).learn(keep, coded.cell_errors))
        lowest, highest = rate_control.price_range(self.tokenizer, mse)
        price = scaled * len(block.frames) / self.tokenizer.spec.frames
        return coded, predicted, min(max(price, lowest), highest)

    def meet(self, chosen: Candidate, mse: float) -> Coded:
        """The candidate with as few tokens as leave this error."""
        bias = self._bias_of(chosen.block)
        return rate_control.meet_target(self.tokenizer, chosen.draft, mse, effort=self.effort, bias=bias)

    def commit(self, block: SourceBlock, coded: Coded) -> None:
        """Learn from a block that was coded."""
        bias = min(max(coded.bias, MIN_CURVE_BIAS), MAX_CURVE_BIAS)
        self._curve_bias[block.keyframe, len(block.frames)] = bias
        if block.keyframe:
            self._keyframe_tokens = int(coded.keep.sum())

    def curve(self, chosen: Candidate) -> RateCurve:
        """What the block is expected to be at other lambdas."""
        draft, spec = chosen.draft, self.tokenizer.spec
        count = len(draft.job.source)
        found = prices(spec)
        scaled = torch.from_numpy(found * (spec.frames / count)).float().to(draft.keep.device)
        error, tokens = (x.numpy() for x in draft.model.at_prices(scaled, draft.price))
        return RateCurve(found, error * (count / self.values(draft)), tokens)

    def values(self, draft: Draft) -> float:
        """How many values of pixels the errors of a block's curves are summed over."""
        return draft.job.source.numel() * self.tokenizer.spec.frames / len(draft.job.source)

    def _candidate(self, block: SourceBlock, context: Any, price: float) -> Candidate:
        spec = self.tokenizer.spec
        count, scaled = len(block.frames), self._scaled(block, price)
        job = job_of(block.frames, self.tokenizer, self.device)
        if block.keyframe:
            context = self.tokenizer.start(*self._size)
        # errors of fewer frames are scaled up to a whole block, so the frames ahead have to be, too
        ahead = spec.frames / count * (WEIGHT_AHEAD_OF_KEYFRAME if block.keyframe else 1.0)
        weight = self._lookahead.weights(block, self.usual, scale=ahead)
        encoding = all_tokens(self.tokenizer, job, context, target=self.usual, price=scaled)
        model = error_model(self.tokenizer, job, encoding, weight)
        model.expect(self._bias_of(block))
        keep = model.allocate_at(scaled)
        tokens = int(keep.sum())
        draft = Draft(job, context, encoding, model, keep, tokens, True, scaled, weight)
        return Candidate(block, draft, tokens / count + model.error_of(keep) / spec.frames / price)

    def _scaled(self, block: SourceBlock, price: float) -> float:
        """Lambda of a block, whose errors count as those of a whole one."""
        return price * self.tokenizer.spec.frames / len(block.frames)

    def _bias_of(self, block: SourceBlock) -> float:
        count = len(block.frames)
        known = [length for keyframe, length in self._curve_bias if keyframe == block.keyframe]
        if not known:
            return 1.0
        return self._curve_bias[block.keyframe, min(known, key=lambda length: abs(length - count))]


def price_of(tokenizer: NestedTokenizer, target: float) -> float:
    """The lambda that a target (MSE) usually leads to."""
    return target * values_of_cell(tokenizer.spec) / ERROR_OF_CELL_PER_PRICE


def _better_of(best: Candidate, challenger: Candidate) -> Candidate:
    return challenger if challenger.cost < MAX_COST_OF_CHALLENGER * best.cost else best

"""The blocks of a scene, each coded by what the ones before it have shown."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import torch

from elastictok_cli.codec import length_search as lengths
from elastictok_cli.codec import lookahead
from elastictok_cli.codec import rate_control as search
from elastictok_cli.codec.block_splitting import SourceBlock
from elastictok_cli.codec.options import EncodeOptions
from elastictok_cli.codec.pixels import Job, job_of
from elastictok_cli.models.interface import LengthTokenizer, NestedTokenizer, TokenizerSpec

_CLEAR_GAIN = 0.92  # how much cheaper per frame a shorter block must be
_FAR_CHEAPER = 0.6  # the same ratio from which on a single frame needs no comparison with two
_SINGLES = 2  # so many frames may follow a far cheaper single one without a look at longer blocks ...
_AS_BEFORE = 1.3  # ... unless they cost so much more than it
_SUDDEN = 2.0  # times the tokens of the block before: from there on its frames may be cheaper one by one ...
_APART = 0.9  # ... which they must be by so much
_PRICES = (0.1, 3.0)  # range of foreseen prices, as shares of the squared error that a cell may keep
_NEAR_PICTURE = 0.75  # share of the last picture's tokens above which another one is considered


def make_coder(
    tokenizer: NestedTokenizer | LengthTokenizer,
    options: EncodeOptions,
    device: torch.device,
    grid: tuple[int, int],
) -> NestedCoder | LengthCoder:
    """What this kind of model is coded with. `spec.nested` says which kind it is."""
    if tokenizer.spec.nested:
        return NestedCoder(cast(NestedTokenizer, tokenizer), options, device, grid)
    return LengthCoder(cast(LengthTokenizer, tokenizer), options, device, grid)


def weighs_cells(spec: TokenizerSpec, options: EncodeOptions) -> bool:
    """Whether cells have errors of their own to choose, and a target to meet by them."""
    return spec.nested and options.mse is not None and options.allocation == "cell"


class LengthCoder:
    """Codes proposed blocks as they are, by searching for lengths."""

    def __init__(
        self, tokenizer: LengthTokenizer, options: EncodeOptions, device: torch.device, grid: tuple[int, int]
    ) -> None:
        self.tokenizer, self.options, self.device = tokenizer, options, device
        cell = tokenizer.spec.cell
        self.size = (grid[0] * cell[0], grid[1] * cell[1])
        self.search = lengths.LengthSearch(
            tokenizer, method=options.search, mode=options.allocation, guess=options.guess
        )

    def code(self, block: SourceBlock, context: Any) -> tuple[SourceBlock, search.Coded]:
        """The block and its tokens."""
        job = job_of(block.frames, self.tokenizer, self.device)
        if block.keyframe:
            context = self.tokenizer.start(*self.size)
        return block, self.search.code(job, context, target=self.options.mse, tokens=self.options.tokens)


class NestedCoder:
    """Codes proposed blocks, and cuts costly ones short where that is cheaper per frame.

    Motion that one velocity per cell cannot follow over four frames often can over two or one; and where even that
    fails (a flash, a dissolve) a picture of its own is cheaper than any prediction. What a block would cost is told
    by its error curves, without decoding; only the one chosen is searched in full.
    """

    def __init__(
        self, tokenizer: NestedTokenizer, options: EncodeOptions, device: torch.device, grid: tuple[int, int]
    ) -> None:
        self.tokenizer, self.options, self.device = tokenizer, options, device
        self.effort = search.EFFORTS[options.effort]
        self.costly = self.effort.costly * grid[0] * grid[1]
        cell = tokenizer.spec.cell
        self.size = (grid[0] * cell[0], grid[1] * cell[1])
        self.lookahead = (
            lookahead.Lookahead(tokenizer, device) if weighs_cells(tokenizer.spec, options) else None
        )
        self.bias: dict[tuple[bool, int], float] = {}  # of the last block of the same kind and length
        self.price: dict[int, float] = {}  # of the last predicted block of the same length
        self.singles: tuple[int, ...] = ()  # tokens of a single frame like which the next few may be
        self.usual = 0.0  # tokens per frame of the last predicted block
        self.picture = 0.0  # tokens of the last keyframe block, or of a picture that might have become one

    def code(self, block: SourceBlock, context: Any) -> tuple[SourceBlock, search.Coded]:
        """The block as coded (perhaps its first frames only, perhaps as a keyframe block) and its tokens."""
        target = self.options.mse
        if target is None:
            assert self.options.tokens is not None
            job, context = self._job(block, context)
            return block, search.fixed_length(self.tokenizer, job, context, self.options.tokens)
        chosen, draft = self._cheapest(block, context, target)
        if self._sudden(chosen, draft) and (apart := self._one_by_one(chosen, draft, context, target)):
            return apart
        coded = self._finish(chosen, draft, target)
        if not chosen.keyframe:
            self.usual = draft.per_frame
        if coded.missed:  # the curves promised too much, or nothing helps
            single = block.first(1)
            for other in (single, replace(single, keyframe=True)):
                if other in (block, chosen):
                    continue
                tried = self._finish(other, self._draft(other, context, target), target)
                if not tried.missed:
                    return other, tried
        return chosen, coded

    def _sudden(self, block: SourceBlock, draft: search.Draft) -> bool:
        """Whether a block costs far more than those before it: something new comes into view."""
        return (
            draft.reaches
            and len(block.frames) > 1
            and not block.keyframe
            and draft.tokens > self.costly
            and draft.per_frame > _SUDDEN * self.usual
        )

    def _one_by_one(
        self, block: SourceBlock, draft: search.Draft, context: Any, target: float
    ) -> tuple[SourceBlock, search.Coded] | None:
        """The first frame of a block on its own, where it and the rest, which then knows it, are cheaper."""
        single = block.first(1)
        alone = self._draft(single, context, target)
        if not alone.reaches or alone.tokens >= draft.tokens:
            return None
        coded = self._finish(single, alone, target)
        if coded.missed:
            return None
        rest = replace(block, frames=block.frames[1:])
        after = self._draft(rest, coded.context, target)
        tokens = int(coded.keep.sum()) + after.tokens
        return (single, coded) if after.reaches and tokens < _APART * draft.tokens else None

    def _cheapest(self, block: SourceBlock, context: Any, target: float) -> tuple[SourceBlock, search.Draft]:
        """Longer blocks first choice, shorter ones where they are clearly cheaper per frame. What is tried ends with
        what settles it: mostly the whole block, else its first frame."""
        drafts: dict[int, search.Draft] = {}
        single = block.first(1)
        if self.singles and len(block.frames) > 1 and not block.keyframe:
            # motion that only single frames followed seldom ends at once
            drafts[1] = self._draft(single, context, target)
            if drafts[1].reaches and drafts[1].tokens <= _AS_BEFORE * self.singles[0]:
                self.singles = self.singles[1:]
                return single, drafts[1]
        best, draft = block, self._draft(block, context, target)
        self.singles = ()
        if draft.reaches and (block.keyframe or draft.tokens <= self.costly):
            return best, draft
        if len(block.frames) > 1:
            alone = drafts[1] if 1 in drafts else self._draft(single, context, target)
            if alone.reaches and alone.per_frame < _FAR_CHEAPER * draft.per_frame:
                self.singles = (alone.tokens,) * _SINGLES
            elif len(block.frames) > 2:
                best, draft = self._better((best, draft), block.first(2), context, target)
            best, draft = _cheaper_of((best, draft), (single, alone))
            if not block.keyframe and not (draft.reaches and self._cheaper(draft)):
                best, draft = self._better((best, draft), replace(single, keyframe=True), context, target)
        return best, draft

    def _better(
        self, best: tuple[SourceBlock, search.Draft], other: SourceBlock, context: Any, target: float
    ) -> tuple[SourceBlock, search.Draft]:
        """The best so far, or the other where that is clearly cheaper per frame."""
        return _cheaper_of(best, (other, self._draft(other, context, target)))

    def _cheaper(self, draft: search.Draft) -> bool:
        """Whether a block of predicted frames is clearly cheaper than a picture of its own would be."""
        return draft.per_frame < _NEAR_PICTURE * self.picture

    def _draft(self, block: SourceBlock, context: Any, target: float) -> search.Draft:
        job, context = self._job(block, context)
        length = len(block.frames)
        weight = self.lookahead.weights(block, target) if self.lookahead else None
        draft = search.draft(
            self.tokenizer, job, context, target, price=self.price.get(length), weight=weight
        )
        if block.keyframe:
            self.picture = draft.tokens
        elif draft.reaches:
            usual = target * job.frames[0].numel() / draft.encoding.length[0].numel()
            self.price[length] = min(max(draft.price, _PRICES[0] * usual), _PRICES[1] * usual)
        return draft

    def _finish(self, block: SourceBlock, draft: search.Draft, target: float) -> search.Coded:
        """Search in full, from what the last block like this one has shown of the curves."""
        kind = block.keyframe, len(block.frames)
        coded = search.meet_target(
            self.tokenizer,
            draft,
            target,
            mode=self.options.allocation,
            effort=self.effort,
            bias=self.bias.get(kind, 1.0),
        )
        self.bias[kind] = min(max(coded.bias, 0.8), 1.25)
        return coded

    def _job(self, block: SourceBlock, context: Any) -> tuple[Job, Any]:
        job = job_of(block.frames, self.tokenizer, self.device)
        return job, self.tokenizer.start(*self.size) if block.keyframe else context


def _cheaper_of(
    best: tuple[SourceBlock, search.Draft], other: tuple[SourceBlock, search.Draft]
) -> tuple[SourceBlock, search.Draft]:
    """The other, which is shorter, where it alone reaches the target or is clearly cheaper per frame."""
    if other[1].reaches != best[1].reaches:
        return other if other[1].reaches else best
    return other if other[1].per_frame < _CLEAR_GAIN * best[1].per_frame else best

"""Encoding one scene: the loop over its blocks, from its frames alone, whatever other scenes the video has.

Each turn proposes a block (`block_splitting`), drafts its candidates, chooses one (`mode_decision`), finds its tokens
(`rate_control`), tries a shorter block where that misses the target, and commits the result (`scene_state`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch

from elastictok_cli.codec import mode_decision, rate_control
from elastictok_cli.codec.block_splitting import BlockSplitter, SourceBlock
from elastictok_cli.codec.length_search import LengthSearch
from elastictok_cli.codec.lookahead import LOOKAHEAD_FRAMES, Lookahead
from elastictok_cli.codec.mode_decision import Candidates
from elastictok_cli.codec.options import EncodeOptions
from elastictok_cli.codec.pixels import job_of
from elastictok_cli.codec.planned_coder import PlannedCoder
from elastictok_cli.codec.probing import Coded, Draft
from elastictok_cli.codec.scene_plan import ScenePlan
from elastictok_cli.codec.scene_state import Decision, SceneState
from elastictok_cli.codec.scenes import Scene
from elastictok_cli.models.interface import LengthTokenizer, NestedTokenizer, TokenizerSpec
from formats import MAX_CELLS, MAX_SEGMENT_BLOCKS, Header, max_segment_tokens

# MSE above which frames count as moving where an encode asks for a number of tokens instead of an error
STILL_MSE_WITHOUT_TARGET = 0.007


@dataclass(frozen=True)
class SegmentLimits:
    """What the file format lets one segment hold.

    blocks: most blocks. tokens: most tokens.
    """

    blocks: int
    tokens: int

    @classmethod
    def of(cls, spec: TokenizerSpec, grid: tuple[int, int]) -> SegmentLimits:
        """The limits for a model and a grid of (rows, columns) cells."""
        cells = grid[0] * grid[1]
        return cls(min(MAX_SEGMENT_BLOCKS, MAX_CELLS // cells), max_segment_tokens(spec.vector))


def encode_scene(
    scene: Scene,
    tokenizer: NestedTokenizer | LengthTokenizer,
    options: EncodeOptions,
    device: torch.device,
    grid: tuple[int, int],
    plan: ScenePlan | None = None,
    header: Header | None = None,
) -> Iterator[tuple[SourceBlock, Coded]]:
    """The blocks of a scene, in order, coded. The first is a keyframe block; each keyframe block starts a segment.

    grid: (rows, columns) of cells. plan: what the scene may spend, for nested models; None: each block has the target
    of the options. header: of the file, which a plan needs. A segment that is full ends, so a scene can be more than
    one. What is coded depends on the arguments alone: scenes can be encoded in any order, or at the same time.
    """
    spec = tokenizer.spec
    coder = _coder(tokenizer, options, device, grid, plan, header)
    splitter = BlockSplitter(
        scene,
        block_frames=spec.frames,
        still_mse=_still_mse(tokenizer, options, plan),
        ahead=LOOKAHEAD_FRAMES if plan is not None or _has_lookahead(spec, options) else 0,
    )
    limits = SegmentLimits.of(spec, grid)
    blocks = tokens = 0  # of the segment so far
    context: Any = None
    while (proposed := splitter.propose()) is not None:
        if blocks >= limits.blocks:
            proposed = proposed.as_keyframe()
        block, coded = coder.code(proposed, context)
        if not block.keyframe and tokens + int(coded.keep.sum()) > limits.tokens:
            block, coded = coder.code(proposed.as_keyframe(), context)  # the segment has no room for it
        splitter.take(len(block.frames))
        if block.keyframe:
            blocks = tokens = 0
        blocks, tokens = blocks + 1, tokens + int(coded.keep.sum())
        context = coded.context
        yield block, coded


def _still_mse(
    tokenizer: NestedTokenizer | LengthTokenizer, options: EncodeOptions, plan: ScenePlan | None
) -> float:
    """See `BlockSplitter`. Only nested models have keyframe blocks of one frame."""
    if not tokenizer.spec.nested:
        return math.inf
    if plan is not None:
        return plan.usual_error
    return options.mse or STILL_MSE_WITHOUT_TARGET


class _BlockCoder(Protocol):
    """Codes the blocks of one scene, one after another."""

    def code(self, block: SourceBlock, context: Any) -> tuple[SourceBlock, Coded]:
        """The block as it is coded, perhaps shorter or as a keyframe block, and its tokens.

        context: what the model keeps of the block before; of no effect for a keyframe block.
        """


def _coder(
    tokenizer: NestedTokenizer | LengthTokenizer,
    options: EncodeOptions,
    device: torch.device,
    grid: tuple[int, int],
    plan: ScenePlan | None,
    header: Header | None,
) -> _BlockCoder:
    """A new coder for this kind of model; `spec.nested` says which kind it is."""
    if plan is not None:
        assert header is not None
        return PlannedCoder(cast(NestedTokenizer, tokenizer), options, device, grid, plan, header)
    if tokenizer.spec.nested:
        return NestedCoder(cast(NestedTokenizer, tokenizer), options, device, grid)
    return LengthCoder(cast(LengthTokenizer, tokenizer), options, device, grid)


def _has_lookahead(spec: TokenizerSpec, options: EncodeOptions) -> bool:
    """Whether lookahead weights have any effect: only with a target and a length for each cell."""
    return spec.nested and options.mse is not None and options.allocation == "cell"


class LengthCoder:
    """Codes blocks with a model whose encoder sees the length: each as proposed, by searching for lengths."""

    def __init__(
        self, tokenizer: LengthTokenizer, options: EncodeOptions, device: torch.device, grid: tuple[int, int]
    ) -> None:
        self.tokenizer, self.options, self.device = tokenizer, options, device
        cell = tokenizer.spec.cell
        self.size = (grid[0] * cell[0], grid[1] * cell[1])
        self.search = self._fresh_search()

    def code(self, block: SourceBlock, context: Any) -> tuple[SourceBlock, Coded]:
        """See `_BlockCoder.code`."""
        job = job_of(block.frames, self.tokenizer, self.device)
        if block.keyframe:
            context = self.tokenizer.start(*self.size)
            self.search = self._fresh_search()
        return block, self.search.code(job, context, target=self.options.mse, tokens=self.options.tokens)

    def _fresh_search(self) -> LengthSearch:
        """One that remembers no lengths."""
        options = self.options
        return LengthSearch(
            self.tokenizer, method=options.search, allocation=options.allocation, guess=options.guess
        )


class NestedCoder:
    """Codes blocks with a nested model: mode decision by drafts, then rate control for the block that won.

    state: what the blocks so far have shown. It is replaced when a block is committed, at the end of `code`, and at no
    other time.
    """

    def __init__(
        self, tokenizer: NestedTokenizer, options: EncodeOptions, device: torch.device, grid: tuple[int, int]
    ) -> None:
        self.tokenizer, self.options, self.device = tokenizer, options, device
        self.effort = rate_control.EFFORTS[options.effort]
        self.costly_tokens = self.effort.costly * grid[0] * grid[1]
        cell = tokenizer.spec.cell
        self.size = (grid[0] * cell[0], grid[1] * cell[1])
        self.lookahead = Lookahead(tokenizer, device) if _has_lookahead(tokenizer.spec, options) else None
        self.state = SceneState()

    def code(self, block: SourceBlock, context: Any) -> tuple[SourceBlock, Coded]:
        """See `_BlockCoder.code`."""
        target = self.options.mse
        if target is None:
            assert self.options.tokens is not None
            job = job_of(block.frames, self.tokenizer, self.device)
            context = self.tokenizer.start(*self.size) if block.keyframe else context
            return block, rate_control.fixed_length(self.tokenizer, job, context, self.options.tokens)
        state = SceneState() if block.keyframe else self.state
        decision, coded = self._decide_and_code(block, context, target, state)
        self.state = state.after(decision, coded)
        return decision.block, coded

    def _decide_and_code(
        self, block: SourceBlock, context: Any, target: float, state: SceneState
    ) -> tuple[Decision, Coded]:
        """The block that mode decision chooses, coded, or a shorter one where that misses the target."""

        def draft(part: SourceBlock, known: Any = context) -> Draft:
            return self._draft(part, known, target, state)

        def code(part: SourceBlock, drafted: Draft) -> Coded:
            return self._meet_target(part, drafted, target, state)

        def draft_after(rest: SourceBlock, coded: Coded) -> Draft:
            return draft(rest, coded.context)

        candidates = Candidates(block, draft)
        decision = mode_decision.choose(candidates, state, self.costly_tokens)
        if mode_decision.is_sudden(decision, state, self.costly_tokens):
            split = mode_decision.split_first_frame(decision, candidates, code, draft_after)
            if split is not None:
                return split
        coded = code(decision.block, decision.draft)
        if coded.missed:  # the curves predicted too little error, or no tokens suffice
            for shorter in (candidates.single, candidates.keyframe):
                if shorter in (block, decision.block):
                    continue
                retried = code(shorter, candidates.draft(shorter))
                if not retried.missed:
                    return candidates.decide(shorter, "target missed"), retried
        return decision, coded

    def _draft(self, block: SourceBlock, context: Any, target: float, state: SceneState) -> Draft:
        """What the curves of a block predict. It reads the state and changes nothing."""
        job = job_of(block.frames, self.tokenizer, self.device)
        if block.keyframe:
            context = self.tokenizer.start(*self.size)
        weight = self.lookahead.weights(block, target) if self.lookahead else None

        def draft(price: float | None) -> Draft:
            return rate_control.draft(
                self.tokenizer,
                job,
                context,
                target,
                allocation=self.options.allocation,
                price=price,
                weight=weight,
                bias=state.bias_of(block.keyframe, len(block.frames)),
            )

        price = state.price_of(len(block.frames))
        one_length = self.options.allocation == "block"  # which needs no lambda
        if block.keyframe or one_length or price is not None:
            return draft(None if block.keyframe else price)
        # No inter block of the scene is coded yet: lambda is unknown, and motion vectors depend on it. So the block is
        # drafted at two lambdas, the model's own and the highest.
        drafts = draft(None), draft(rate_control.price_range(self.tokenizer, target)[1])
        return min(drafts, key=lambda d: (not d.reaches, d.tokens))

    def _meet_target(self, block: SourceBlock, draft: Draft, target: float, state: SceneState) -> Coded:
        """The block with the fewest tokens that meet the target. It reads the state and changes nothing."""
        return rate_control.meet_target(
            self.tokenizer,
            draft,
            target,
            allocation=self.options.allocation,
            effort=self.effort,
            bias=state.bias_of(block.keyframe, len(block.frames)),
        )

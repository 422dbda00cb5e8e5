"""Mode decision: how many of the next frames become one block, and whether it is an inter or a keyframe block.

| candidate | frames | kind | tried |
| --- | --- | --- | --- |
| whole | all proposed, up to T | as proposed | always, unless single frames win again |
| pair | the first two | as proposed | where whole is costly or misses the target, and single is not far cheaper |
| single | the first | as proposed | where whole is costly or misses the target |
| keyframe | the first | keyframe | where the best so far misses the target or costs over half as much as one |
| split | the first, then the rest | as proposed | where the chosen block costs over twice the last inter one a frame |

One motion vector per cell cannot follow every motion over four frames; it often can over two, or one. Where even that
fails (a flash, a dissolve), a keyframe is cheaper than any prediction. Each candidate is judged by its draft: the
tokens that its error curves predict to meet the target, without a decode. A draft misses the target where the curves
say that no tokens meet it. Costly means more tokens than the effort allows a block before others are tried. Only the
split is judged by a decode, that of the first frame.

Everything here decides and changes nothing else: the scene's state is read only, and only the caller commits a block.
"""

from __future__ import annotations

from collections.abc import Callable

from elastictok_cli.codec.block_splitting import SourceBlock
from elastictok_cli.codec.probing import Coded, Draft
from elastictok_cli.codec.scene_state import Decision, Reason, SceneState

# All ratios are of tokens per frame, unless a comment says otherwise.
MAX_RATIO_OF_CHALLENGER = 0.92  # relative to the best so far: a challenger wins only below this
MAX_RATIO_OF_FAR_CHEAPER_SINGLE = (
    0.6  # relative to whole: below it no pair is tried, and the next frames are coded singly
)
MAX_RATIO_OF_NEXT_SINGLE = (
    0.45  # relative to the whole block last compared: at or above it whole is tried again
)
MAX_RATIO_TO_SKIP_KEYFRAME = 0.5  # relative to the last keyframe: below it no keyframe is tried
MIN_RATIO_OF_SUDDEN_COST = (
    2.0  # relative to the last inter block: above it the first frame may be coded before the rest
)
MAX_RATIO_OF_SPLIT = 0.9  # of tokens, of the first frame and the rest together, relative to the chosen block


class Candidates:
    """The ways to code the frames of a proposed block. Each is drafted once, when it is first asked for."""

    def __init__(self, whole: SourceBlock, draft: Callable[[SourceBlock], Draft]) -> None:
        """`draft` has no effect but its result."""
        self.whole, self.pair, self.single = whole, whole.first(2), whole.first(1)
        self.keyframe = self.single.as_keyframe()
        self._draft = draft
        self._drafts: list[tuple[SourceBlock, Draft]] = []

    def draft(self, block: SourceBlock) -> Draft:
        """The draft of one of the candidates."""
        for known, draft in self._drafts:
            if len(known.frames) == len(block.frames) and known.keyframe == block.keyframe:
                return draft
        draft = self._draft(block)
        self._drafts.append((block, draft))
        return draft

    def decide(self, block: SourceBlock, reason: Reason) -> Decision:
        """The decision for one of the candidates."""
        return Decision(block, self.draft(block), reason, tuple(self._drafts))

    def better_of(self, best: SourceBlock, challenger: SourceBlock) -> SourceBlock:
        """The challenger if it alone reaches the target, or costs below 0.92 of the best per frame; else `best`."""
        old, new = self.draft(best), self.draft(challenger)
        if old.reaches != new.reaches:
            return challenger if new.reaches else best
        return challenger if new.per_frame < MAX_RATIO_OF_CHALLENGER * old.per_frame else best


def choose(candidates: Candidates, state: SceneState, costly_tokens: float) -> Decision:
    """The block that is expected to be cheapest.

    A block that reaches the target is not compared with others if it is a keyframe block or no more than costly.
    """
    c = candidates
    several, inter = len(c.whole.frames) > 1, not c.whole.keyframe
    if state.singles_left and several and inter:
        single = c.draft(c.single)
        if single.reaches and single.per_frame < MAX_RATIO_OF_NEXT_SINGLE * state.whole_tokens_per_frame:
            return c.decide(c.single, "single again")

    whole = c.draft(c.whole)
    cheap = not inter or whole.tokens <= costly_tokens
    if not several or (whole.reaches and cheap):
        return c.decide(c.whole, "whole")

    single = c.draft(c.single)
    far_cheaper = single.reaches and single.per_frame < MAX_RATIO_OF_FAR_CHEAPER_SINGLE * whole.per_frame
    best = c.whole
    if len(c.whole.frames) > 2 and not far_cheaper:
        best = c.better_of(best, c.pair)
    best = c.better_of(best, c.single)
    if inter:
        draft = c.draft(best)
        if not draft.reaches or draft.per_frame >= MAX_RATIO_TO_SKIP_KEYFRAME * state.keyframe_tokens:
            best = c.better_of(best, c.keyframe)

    if best is c.whole:
        return c.decide(best, "whole")
    if best is c.keyframe:
        return c.decide(best, "keyframe")
    return c.decide(best, "single far cheaper" if best is c.single and far_cheaper else "shorter")


def is_sudden(decision: Decision, state: SceneState, costly_tokens: float) -> bool:
    """Whether the chosen block costs far more than the last inter block: something new has come into view."""
    block, draft = decision.block, decision.draft
    return (
        len(block.frames) > 1
        and not block.keyframe
        and draft.reaches
        and draft.tokens > costly_tokens
        and draft.per_frame > MIN_RATIO_OF_SUDDEN_COST * state.inter_tokens_per_frame
    )


def split_first_frame(
    chosen: Decision,
    candidates: Candidates,
    code: Callable[[SourceBlock, Draft], Coded],
    draft_after: Callable[[SourceBlock, Coded], Draft],
) -> tuple[Decision, Coded] | None:
    """The first frame of the chosen block, coded, where it and the rest predicted from it are cheaper together.

    Only a decode of the first frame can tell: the rest is drafted from it. None where the chosen block stays. `code`
    codes a block from its draft; `draft_after` drafts a block that follows a coded one. Both have no other effect.
    """
    single = candidates.draft(candidates.single)
    if not single.reaches or single.tokens >= chosen.draft.tokens:
        return None
    coded = code(candidates.single, single)
    if coded.missed:
        return None
    rest = draft_after(chosen.block.after(1), coded)
    tokens = int(coded.keep.sum()) + rest.tokens
    if not rest.reaches or tokens >= MAX_RATIO_OF_SPLIT * chosen.draft.tokens:
        return None
    return candidates.decide(candidates.single, "single before the rest"), coded

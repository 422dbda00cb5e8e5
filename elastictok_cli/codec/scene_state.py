"""What the encoder remembers from block to block of a scene, and what a committed block adds to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from elastictok_cli.codec.block_splitting import SourceBlock
from elastictok_cli.codec.probing import Coded, Draft

# A single frame that was far cheaper than a whole block is followed by so many more single frames before longer blocks
# are tried again: by the first number, and twice as many each time that longer blocks turn out far dearer again.
FIRST_SINGLES_IN_A_ROW, MAX_SINGLES_IN_A_ROW = 2, 8
MIN_CURVE_BIAS, MAX_CURVE_BIAS = 0.8, 1.25  # measured / predicted error


Reason = Literal[
    "whole",  # cheap enough, or nothing else is clearly cheaper
    "shorter",  # a pair or a single is clearly cheaper
    "single far cheaper",  # and the next frames are expected to be so too
    "single again",  # as expected
    "single before the rest",  # something new comes into view: the rest is cheaper once its first frame is coded
    "keyframe",  # cheaper than any prediction
    "target missed",  # the chosen block missed the target, and this shorter one meets it
]


@dataclass(frozen=True)
class Decision:
    """The block to code, why, and all drafts that were compared (each a block and its draft)."""

    block: SourceBlock
    draft: Draft
    reason: Reason
    drafts: tuple[tuple[SourceBlock, Draft], ...]


@dataclass(frozen=True)
class SceneState:
    """What earlier blocks of a scene say about the next one.

    It is reset at every keyframe block: the first of a scene, or a later one. It never changes: `after` gives the state
    that follows when a block is committed. Drafts read it and nothing else.

    curve_bias: measured / predicted error of the last block of the same kind (keyframe or not) and number of frames.
    price: lambda of the last draft of an inter block by its number of frames: the squared error its last token saves.
    singles_left: how many more single frames are expected to be cheaper than longer blocks.
    singles_in_a_row: how many they were at first; 0 where the last comparison said something else.
    whole_tokens_per_frame: of the whole block that they were found to be far cheaper than.
    inter_tokens_per_frame: of the last inter block; 0 before the first.
    keyframe_tokens: of the last keyframe block drafted for this scene, chosen or not; 0 before the first. These are
        tokens of the block, not per frame, and mode decision takes them for those of one frame: several frames become
        a keyframe block only where they are still, and such a block costs about as much as its first frame alone.
    """

    curve_bias: Mapping[tuple[bool, int], float] = field(default_factory=dict)
    price: Mapping[int, float] = field(default_factory=dict)
    singles_left: int = 0
    singles_in_a_row: int = 0
    whole_tokens_per_frame: float = 0.0
    inter_tokens_per_frame: float = 0.0
    keyframe_tokens: float = 0.0

    def bias_of(self, keyframe: bool, frames: int) -> float:
        """The curve bias to expect of a block: of the nearest number of frames, 1 where none of its kind is coded."""
        known = [length for kind, length in self.curve_bias if kind == keyframe]
        if not known:
            return 1.0
        return self.curve_bias[keyframe, min(known, key=lambda length: abs(length - frames))]

    def price_of(self, frames: int) -> float | None:
        """The lambda to expect of an inter block of so many frames; None before the first one.

        Errors of shorter blocks are scaled up to a whole one, so the fewer frames, the more a token saves.
        """
        if not self.price:
            return None
        nearest = min(self.price, key=lambda known: abs(known - frames))
        return self.price[nearest] * nearest / frames

    def after(self, decision: Decision, coded: Coded) -> SceneState:
        """The state once the decided block is committed."""
        block, draft = decision.block, decision.draft
        kind = block.keyframe, len(block.frames)
        bias = min(max(coded.bias, MIN_CURVE_BIAS), MAX_CURVE_BIAS)
        if block.keyframe:  # what came before belongs to the segment that it ends
            fresh = SceneState()
            return replace(fresh, curve_bias={kind: bias}, keyframe_tokens=draft.tokens)
        price, keyframe_tokens = dict(self.price), self.keyframe_tokens
        for tried, tried_draft in decision.drafts:
            if tried.keyframe:
                keyframe_tokens = tried_draft.tokens
            elif tried_draft.reaches:
                price[len(tried.frames)] = tried_draft.price
        if decision.reason == "single again":
            singles = self.singles_left - 1, self.singles_in_a_row, self.whole_tokens_per_frame
        elif decision.reason == "single far cheaper":
            count = min(max(FIRST_SINGLES_IN_A_ROW, 2 * self.singles_in_a_row), MAX_SINGLES_IN_A_ROW)
            _, whole = max(decision.drafts, key=lambda tried: len(tried[0].frames))
            singles = count, count, whole.per_frame
        else:
            singles = 0, 0, 0.0
        tokens_per_frame = self.inter_tokens_per_frame
        if (
            decision.reason != "single before the rest"
        ):  # which says what is new, not what the scene usually costs
            tokens_per_frame = draft.per_frame
        return SceneState(
            curve_bias={**self.curve_bias, kind: bias},
            price=price,
            singles_left=singles[0],
            singles_in_a_row=singles[1],
            whole_tokens_per_frame=singles[2],
            inter_tokens_per_frame=tokens_per_frame,
            keyframe_tokens=keyframe_tokens,
        )

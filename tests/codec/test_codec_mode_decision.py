"""Mode decision against made-up drafts."""

from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch

from elastictok_cli.codec.block_splitting import SourceBlock
from elastictok_cli.codec.mode_decision import Candidates, choose, is_sudden, split_first_frame
from elastictok_cli.codec.probing import Coded, Draft
from elastictok_cli.codec.scene_state import Decision, SceneState
from elastictok_cli.video.records import Frame

FRAMES = tuple(Frame(np.zeros((16, 16, 3), np.uint8), n, 1) for n in range(8))
USUAL = SceneState(inter_tokens_per_frame=25.0, keyframe_tokens=1000.0)
COSTLY = 40.0


def a_draft(tokens: int, frames: int, reaches: bool = True) -> Draft:
    return cast(Draft, SimpleNamespace(tokens=tokens, reaches=reaches, per_frame=tokens / frames, price=1.0))


def candidates(frames: int = 4, starts: bool = False, **tokens: int) -> tuple[Candidates, list[str]]:
    """Candidates with these tokens (negative: the target is out of reach), and a list of those drafted so far.

    starts: the proposed block is a keyframe block.
    """
    drafted: list[str] = []

    def draft(block: SourceBlock) -> Draft:
        names = {frames: "whole", 2: "pair", 1: "single"} if frames != 2 else {2: "whole", 1: "single"}
        name = "keyframe" if block.keyframe and not starts else names[len(block.frames)]
        drafted.append(name)
        return a_draft(abs(tokens[name]), len(block.frames), tokens[name] > 0)

    return Candidates(SourceBlock(FRAMES[:frames], starts, False, FRAMES[frames:]), draft), drafted


@pytest.mark.parametrize(
    ("tokens", "reason", "frames", "tried"),
    [
        ({"whole": 40}, "whole", 4, ["whole"]),  # not costly
        ({"whole": 100, "pair": 48, "single": 25}, "whole", 4, ["whole", "single", "pair"]),
        ({"whole": 100, "pair": 45, "single": 25}, "shorter", 2, ["whole", "single", "pair"]),
        ({"whole": 100, "pair": 45, "single": 20}, "shorter", 1, ["whole", "single", "pair"]),
        ({"whole": 100, "single": 14}, "single far cheaper", 1, ["whole", "single"]),
        ({"whole": -30, "pair": 60, "single": -20}, "shorter", 2, ["whole", "single", "pair"]),
        (
            {"whole": -30, "pair": -60, "single": -20, "keyframe": 500},
            "keyframe",
            1,
            ["whole", "single", "pair", "keyframe"],
        ),
        (  # 500 tokens per frame: as many as half of a keyframe
            {"whole": 2000, "pair": 1000, "single": 500, "keyframe": 400},
            "keyframe",
            1,
            ["whole", "single", "pair", "keyframe"],
        ),
        (
            {"whole": 2000, "pair": 1000, "single": 500, "keyframe": 470},
            "whole",
            4,
            ["whole", "single", "pair", "keyframe"],
        ),
        ({"whole": 1996, "pair": 998, "single": 499}, "whole", 4, ["whole", "single", "pair"]),
    ],
)
def test_what_is_tried_and_what_wins(
    tokens: dict[str, int], reason: str, frames: int, tried: list[str]
) -> None:
    made, drafted = candidates(**tokens)
    decision = choose(made, USUAL, COSTLY)
    assert (decision.reason, len(decision.block.frames)) == (reason, frames)
    assert decision.block.keyframe == (reason == "keyframe")
    assert drafted == tried  # each once
    assert len(decision.drafts) == len(tried)


@pytest.mark.parametrize(("single", "reason"), [(26, "single again"), (27, "whole")])
def test_single_frames_go_on_while_they_are_far_cheaper_than_whole_blocks_were(
    single: int, reason: str
) -> None:
    state = SceneState(singles_left=1, whole_tokens_per_frame=60)
    made, _ = candidates(single=single, whole=30)
    assert choose(made, state, COSTLY).reason == reason


def test_keyframe_blocks_that_reach_the_target_are_not_compared() -> None:
    made, drafted = candidates(starts=True, whole=5000)
    assert choose(made, USUAL, COSTLY).reason == "whole"
    assert drafted == ["whole"]


def test_the_last_frame_of_a_scene_is_not_compared() -> None:
    made, drafted = candidates(frames=1, single=5000)
    assert choose(made, USUAL, COSTLY).reason == "whole"
    assert drafted == ["single"]


@pytest.mark.parametrize(("alone", "rest", "apart"), [(30, 20, True), (30, 60, False), (100, 0, False)])
def test_what_comes_into_view_at_once_is_coded_first_where_that_is_cheaper(
    alone: int, rest: int, apart: bool
) -> None:
    """The whole block has 100 tokens, its first frame `alone`, the frames after it `rest`."""
    made, _ = candidates(whole=100, single=alone)
    chosen = made.decide(made.whole, "whole")
    state = SceneState(inter_tokens_per_frame=12.0)
    assert is_sudden(chosen, state, COSTLY)
    assert not is_sudden(chosen, USUAL, COSTLY)  # a scene that always costs as much

    def code(block: SourceBlock, draft: Draft) -> Coded:
        assert block.frames == FRAMES[:1]
        return cast(Coded, SimpleNamespace(keep=torch.full((1, 1, 1), draft.tokens), missed=False))

    def draft_after(block: SourceBlock, coded: Coded) -> Draft:
        assert block.frames == FRAMES[1:4]
        assert not block.keyframe
        return a_draft(rest, 3)

    found = split_first_frame(chosen, made, code, draft_after)
    assert (found is not None) == apart
    if found is not None:
        assert found[0].reason == "single before the rest"
        assert found[0].block.frames == FRAMES[:1]
        assert found[0].block.ahead == FRAMES[1:]


def decided(reason: str, frames: int, tokens: int, keyframe: bool = False) -> Decision:
    block = SourceBlock(FRAMES[:frames], keyframe, False)
    tried = (
        (SourceBlock(FRAMES[:4], False, False), a_draft(90, 4)),
        (SourceBlock(FRAMES[:1], True, False), a_draft(70, 1)),
    )
    return Decision(block, a_draft(tokens, frames), reason, tried)  # type: ignore[arg-type]


CODED = cast(Coded, SimpleNamespace(bias=1.1))


def test_a_committed_block_gives_the_next_state_and_leaves_the_old_one() -> None:
    state = SceneState(price={1: 5.0}, singles_left=2, whole_tokens_per_frame=9)
    after = state.after(decided("whole", 4, 80), CODED)
    assert state == SceneState(price={1: 5.0}, singles_left=2, whole_tokens_per_frame=9)
    assert after.price == {1: 5.0, 4: 1.0}
    assert after.bias_of(False, 4) == 1.1
    assert after.bias_of(False, 1) == 1.1  # of the nearest length
    assert after.bias_of(True, 1) == 1.0
    assert (after.singles_left, after.whole_tokens_per_frame) == (0, 0)
    assert after.inter_tokens_per_frame == 20
    assert after.keyframe_tokens == 70  # drafted, and not chosen


def test_rows_of_single_frames_are_counted() -> None:
    """They get longer where longer blocks turn out far dearer again and again."""
    state = SceneState()
    for row in (2, 4, 8, 8):
        state = state.after(decided("single far cheaper", 1, 30), CODED)
        assert (state.singles_left, state.whole_tokens_per_frame) == (
            row,
            22.5,
        )  # of the whole block, 90 for 4
        for left in reversed(range(row)):
            state = state.after(decided("single again", 1, 33), CODED)
            assert (state.singles_left, state.whole_tokens_per_frame) == (left, 22.5)
    assert state.after(decided("whole", 4, 80), CODED).singles_in_a_row == 0


def test_what_comes_into_view_is_not_what_a_scene_usually_costs() -> None:
    state = SceneState(inter_tokens_per_frame=3.0)
    assert state.after(decided("single before the rest", 1, 30), CODED).inter_tokens_per_frame == 3.0


def test_a_keyframe_forgets_what_came_before_it() -> None:
    state = SceneState({(False, 4): 1.2}, {4: 3.0}, 2, 9, 12.0, 100.0)
    after = state.after(decided("keyframe", 1, 60, keyframe=True), CODED)
    assert after == SceneState(curve_bias={(True, 1): 1.1}, keyframe_tokens=60)


def test_lambda_of_a_length_that_was_not_drafted_follows_from_the_nearest() -> None:
    assert SceneState().price_of(4) is None
    state = SceneState(price={1: 12.0, 4: 2.5})
    assert [state.price_of(frames) for frames in (1, 2, 3, 4)] == [12, 6, 10 / 3, 2.5]

from fractions import Fraction

import numpy as np
import pytest

from elastictok_cli.codec.block_splitting import SourceBlock
from elastictok_cli.codec.scenes import Planner
from elastictok_cli.video.records import Frame


def still(level: int, pts: int) -> Frame:
    return Frame(np.full((48, 64, 3), level, np.uint8), pts, 1)


def moving(pts: int, seed: int = 0) -> Frame:
    picture = np.random.default_rng(seed).integers(0, 60, (48, 64, 3), dtype=np.uint8)
    return Frame(np.roll(picture, 5 * pts, 1), pts, 1)


def plan(frames: list[Frame], interval: int | None = None) -> list[SourceBlock]:
    planner = Planner(
        iter(frames), size=4, interval=None if interval is None else Fraction(interval), still_mse=0.007
    )
    groups = []
    while (group := planner.propose()) is not None:
        planner.take(group)
        groups.append(group)
    return groups


@pytest.mark.parametrize("count", [1, 3, 4, 5, 11])
def test_every_frame_is_in_one_block_in_order(count: int) -> None:
    groups = plan([still(100, n) for n in range(count)])
    assert [f.pts for g in groups for f in g.frames] == list(range(count))
    assert all(1 <= len(g.frames) <= 4 for g in groups)
    assert [g.keyframe for g in groups] == [True] + [False] * (len(groups) - 1)


def test_a_block_ends_at_a_scene_cut_and_a_keyframe_starts_there() -> None:
    frames = [still(30, n) for n in range(6)] + [still(200, n) for n in range(6, 12)]
    groups = plan(frames)
    assert [len(g.frames) for g in groups] == [4, 2, 4, 2]
    assert [(g.keyframe, g.scene_cut) for g in groups] == [
        (True, False),
        (False, False),
        (True, True),
        (False, False),
    ]


def test_fast_motion_is_no_cut() -> None:
    groups = plan([moving(n) for n in range(16)])
    assert sum(g.keyframe for g in groups) == 1


def test_a_moving_shot_starts_with_one_frame() -> None:
    assert [len(g.frames) for g in plan([moving(n) for n in range(9)])] == [1, 4, 4]


def test_keyframes_come_at_the_interval() -> None:
    groups = plan([still(100, n) for n in range(40)], interval=10)
    starts = [g.frames[0].pts for g in groups if g.keyframe]
    assert starts == [0, 12, 24, 36]  # the first block that begins 10 ticks or more later


def test_frames_not_taken_are_proposed_again() -> None:
    planner = Planner(iter([still(100, n) for n in range(6)]), size=4, interval=None, still_mse=0.007)
    first = planner.propose()
    assert first is not None
    planner.take(SourceBlock(first.frames[:1], True, False))
    second = planner.propose()
    assert second is not None
    assert [f.pts for f in second.frames] == [1, 2, 3, 4]
    assert not second.keyframe


def test_the_frames_ahead_are_those_of_the_same_scene() -> None:
    frames = [still(30, n) for n in range(9)] + [still(200, n) for n in range(9, 12)]
    planner = Planner(iter(frames), size=4, interval=None, still_mse=0.007, ahead=12)
    seen = []
    while (group := planner.propose()) is not None:
        planner.take(group)
        seen.append(([f.pts for f in group.frames], [f.pts for f in group.ahead]))
    assert seen == [
        ([0, 1, 2, 3], [4, 5, 6, 7, 8]),
        ([4, 5, 6, 7], [8]),
        ([8], []),
        ([9, 10, 11], []),
    ]


def test_looking_ahead_changes_no_block() -> None:
    frames = [moving(n) for n in range(7)] + [still(200, n) for n in range(7, 20)]
    planner = Planner(iter(frames), size=4, interval=Fraction(9), still_mse=0.007, ahead=5)
    groups = []
    while (group := planner.propose()) is not None:
        planner.take(group)
        groups.append(group)
    assert [[f.pts for f in g.frames] for g in groups] == [[f.pts for f in g.frames] for g in plan(frames, 9)]
    assert [g.keyframe for g in groups] == [g.keyframe for g in plan(frames, 9)]


def test_a_block_cut_short_has_the_rest_ahead() -> None:
    frames = tuple(still(10, n) for n in range(6))
    cut = SourceBlock(frames[:4], True, True, frames[4:]).first(1)
    assert [f.pts for f in cut.frames] == [0]
    assert [f.pts for f in cut.ahead] == [1, 2, 3, 4, 5]
    assert cut.keyframe
    assert cut.scene_cut

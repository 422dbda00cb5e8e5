from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest

from elastictok_cli.codec.block_splitting import BlockSplitter, SourceBlock
from elastictok_cli.codec.scenes import Scene, split_scenes
from elastictok_cli.video.records import Frame


def still(level: int, pts: int) -> Frame:
    return Frame(np.full((48, 64, 3), level, np.uint8), pts, 1)


def moving(pts: int, seed: int = 0) -> Frame:
    picture = np.random.default_rng(seed).integers(0, 60, (48, 64, 3), dtype=np.uint8)
    return Frame(np.roll(picture, 5 * pts, 1), pts, 1)


def blocks_of(scene: Scene, ahead: int = 0) -> list[SourceBlock]:
    splitter = BlockSplitter(scene, block_frames=4, still_mse=0.007, ahead=ahead)
    blocks = []
    while (block := splitter.propose()) is not None:
        splitter.take(len(block.frames))
        blocks.append(block)
    return blocks


def plan(frames: list[Frame], interval: int | None = None, ahead: int = 0) -> list[SourceBlock]:
    scenes = split_scenes(iter(frames), None if interval is None else Fraction(interval))
    return [block for scene in scenes for block in blocks_of(scene, ahead)]


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


def test_a_scene_starts_at_the_first_frame_that_the_interval_allows() -> None:
    groups = plan([still(100, n) for n in range(40)], interval=10)
    assert [g.frames[0].pts for g in groups if g.keyframe] == [0, 10, 20, 30]
    assert not any(g.scene_cut for g in groups)
    assert [len(g.frames) for g in groups] == [4, 4, 2] * 4


def test_the_interval_is_counted_from_the_start_of_the_scene_in_ticks() -> None:
    times = [0, 3, 9, 11, 12, 13, 21, 22, 40]
    frames = [still(30 if pts < 12 else 200, pts) for pts in times]  # a cut at 12
    scenes = [
        ([f.pts for f in scene.frames], scene.starts_at_cut) for scene in split_scenes(frames, Fraction(10))
    ]
    assert scenes == [([0, 3, 9], False), ([11], False), ([12, 13, 21], True), ([22], False), ([40], False)]


def test_scenes_are_read_as_they_are_asked_for() -> None:
    read: list[int] = []

    def source() -> Iterator[Frame]:
        for n in range(1000):
            read.append(n)
            yield still(100, n)

    scene = next(split_scenes(source(), None))
    splitter = BlockSplitter(scene, block_frames=4, still_mse=0.007, ahead=5)
    splitter.propose()
    assert len(read) == 9


def test_frames_not_taken_are_proposed_again() -> None:
    scene = Scene([still(100, n) for n in range(6)], starts_at_cut=False)
    splitter = BlockSplitter(scene, block_frames=4, still_mse=0.007)
    first = splitter.propose()
    assert first is not None
    assert [f.pts for f in first.frames] == [0, 1, 2, 3]
    splitter.take(1)
    second = splitter.propose()
    assert second is not None
    assert [f.pts for f in second.frames] == [1, 2, 3, 4]
    assert not second.keyframe


def test_the_frames_ahead_are_those_of_the_same_scene() -> None:
    frames = [still(30, n) for n in range(9)] + [still(200, n) for n in range(9, 12)]
    seen = [([f.pts for f in b.frames], [f.pts for f in b.ahead]) for b in plan(frames, ahead=12)]
    assert seen == [
        ([0, 1, 2, 3], [4, 5, 6, 7, 8]),
        ([4, 5, 6, 7], [8]),
        ([8], []),
        ([9, 10, 11], []),
    ]


def test_looking_ahead_changes_no_block() -> None:
    frames = [moving(n) for n in range(7)] + [still(200, n) for n in range(7, 20)]
    with_ahead, without = plan(frames, 9, ahead=5), plan(frames, 9)
    assert [[f.pts for f in b.frames] for b in with_ahead] == [[f.pts for f in b.frames] for b in without]
    assert [b.keyframe for b in with_ahead] == [b.keyframe for b in without]


def test_a_block_cut_short_has_the_rest_ahead() -> None:
    frames = tuple(still(10, n) for n in range(6))
    cut = SourceBlock(frames[:4], True, True, frames[4:]).first(1)
    assert [f.pts for f in cut.frames] == [0]
    assert [f.pts for f in cut.ahead] == [1, 2, 3, 4, 5]
    assert cut.keyframe
    assert cut.scene_cut
    rest = SourceBlock(frames[:4], True, True, frames[4:]).after(1)
    assert [f.pts for f in rest.frames] == [1, 2, 3]
    assert [f.pts for f in rest.ahead] == [4, 5]
    assert not rest.keyframe
    assert not rest.scene_cut

"""Splitting the frames of a scene into blocks."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

from elastictok_cli.codec.pixels import rough_error
from elastictok_cli.codec.scenes import Scene
from elastictok_cli.video.records import Frame

COMPARED_SIDE = 256  # pixels of the shorter side, at least, at which frames are compared for motion


@dataclass(frozen=True)
class SourceBlock:
    """Frames of one scene to be coded as one block.

    frames: 1 to T consecutive frames, T being the model's block length.
    keyframe: whether the block is coded with empty context.
    scene_cut: whether a cut is what starts it.
    ahead: the frames that follow in the same scene, as far as they have been read.
    """

    frames: tuple[Frame, ...]
    keyframe: bool
    scene_cut: bool
    ahead: tuple[Frame, ...] = ()

    def first(self, count: int) -> SourceBlock:
        """The same block cut to its first `count` frames."""
        return replace(self, frames=self.frames[:count], ahead=(*self.frames[count:], *self.ahead))

    def after(self, count: int) -> SourceBlock:
        """The frames after the first `count`, as an inter block."""
        return SourceBlock(self.frames[count:], keyframe=False, scene_cut=False, ahead=self.ahead)

    def as_keyframe(self) -> SourceBlock:
        """The same frames as a keyframe block."""
        return replace(self, keyframe=True)


class BlockSplitter:
    """Proposes the next block of a scene. The encoder says how many of its frames it has coded.

    The first block of a scene is a keyframe block. It holds one frame only if the frames after it differ from it by
    more than `still_mse`: an inter block codes their motion better than a keyframe block does.
    """

    def __init__(self, scene: Scene, *, block_frames: int, still_mse: float, ahead: int = 0) -> None:
        """block_frames: most frames of a block; still_mse: on the [-1, 1] scale; ahead: frames read beyond a block."""
        self._unread = iter(scene.frames)
        self._queue: deque[Frame] = deque()
        self._starts_at_cut = scene.starts_at_cut
        self._block_frames, self._still_mse, self._ahead = block_frames, still_mse, ahead
        self._at_start = True

    def propose(self) -> SourceBlock | None:
        """The next block, None at the end of the scene. It is the same until `take` is called."""
        while len(self._queue) < self._block_frames + self._ahead:
            if (frame := next(self._unread, None)) is None:
                break
            self._queue.append(frame)
        if not self._queue:
            return None
        frames = tuple(self._queue)
        count = min(len(frames), self._block_frames)
        if self._at_start and self._moves(frames[:count]):
            count = 1
        scene_cut = self._at_start and self._starts_at_cut
        return SourceBlock(frames[:count], self._at_start, scene_cut, frames[count:])

    def take(self, count: int) -> None:
        """The first `count` frames of the proposed block are coded."""
        for _ in range(count):
            self._queue.popleft()
        self._at_start = False

    def _moves(self, frames: tuple[Frame, ...]) -> bool:
        first = frames[0].rgb
        return any(rough_error(first, frame.rgb, COMPARED_SIDE) > self._still_mse for frame in frames[1:])

"""Cutting a stream of frames into blocks: at most four frames, never across a scene cut."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from fractions import Fraction

import numpy as np

from elastictok_cli.codec.block_splitting import SourceBlock
from elastictok_cli.codec.pixels import rough_error, thumbnail
from elastictok_cli.video.records import Frame

# Scene cut: the mean difference (0..255 luma, thumbnails) is this large and stands out of the recent ones
_CUT_LEVEL = 18.0
_CUT_RATIO = 3.0
_THUMBNAIL = 64  # pixels, about


class Planner:
    """Proposes the next block and takes back frames that the encoder would rather code on their own.

    A keyframe block starts the video, every scene cut, and the first block that begins `interval` ticks or more
    after the last keyframe. Where the frames of a keyframe block differ by more than `still_mse` ([-1, 1] scale) it
    holds its first frame only: motion is then coded as motion by the next block, rather than as a blur by this one.
    """

    def __init__(
        self,
        frames: Iterable[Frame],
        *,
        size: int,
        interval: Fraction | None,
        still_mse: float,
        ahead: int = 0,
    ) -> None:
        """`ahead`: frames that are read beyond a block."""
        self._marked = _mark_cuts(frames)
        self._queue: deque[tuple[Frame, bool]] = deque()
        self._size, self._interval, self._still_mse = size, interval, still_mse
        self._ahead = ahead
        self._last_key: int | None = None

    def propose(self) -> SourceBlock | None:
        """The next block, None at the end of the video. `take` says what became of it."""
        queue = self._queue
        while len(queue) < self._size + self._ahead and (item := next(self._marked, None)) is not None:
            queue.append(item)
        if not queue:
            return None
        first, cut = queue[0]
        scene = next((n for n, item in enumerate(queue) if n and item[1]), len(queue))
        until_cut = min(scene, self._size)
        due = (
            self._interval is not None
            and self._last_key is not None
            and first.pts - self._last_key >= self._interval
        )
        keyframe = self._last_key is None or cut or due
        moves = any(
            rough_error(first.rgb, queue[n][0].rgb, 256) > self._still_mse for n in range(1, until_cut)
        )
        count = 1 if keyframe and moves else until_cut
        frames = tuple(queue[n][0] for n in range(scene))
        return SourceBlock(frames[:count], keyframe, cut, frames[count:])

    def take(self, group: SourceBlock) -> None:
        """The first len(group.frames) frames are coded, as a keyframe block or not."""
        for _ in group.frames:
            self._queue.popleft()
        if group.keyframe:
            self._last_key = group.frames[0].pts


def _mark_cuts(frames: Iterable[Frame]) -> Iterator[tuple[Frame, bool]]:
    """Each frame with whether a new scene starts at it."""
    last: np.ndarray | None = None
    usual = 0.0  # running mean of differences
    for frame in frames:
        small = thumbnail(frame.rgb, _THUMBNAIL)
        cut = False
        if last is not None:
            change = float(np.abs(small - last).mean())
            cut = change > _CUT_LEVEL and change > _CUT_RATIO * usual
            usual = 0.0 if cut else 0.7 * usual + 0.3 * change
        last = small
        yield frame, cut

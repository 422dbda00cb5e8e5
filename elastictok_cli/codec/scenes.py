"""Scenes: where they start is decided by pixels and times alone, before anything is coded.

A scene is a run of frames whose blocks depend on no frame outside it, so scenes can be encoded in any order. Its first
frame is the first of the video, the first after a cut, or the first that the keyframe interval allows. Its first block
is a keyframe block. Further ones may follow in it: where mode decision finds a keyframe cheaper, where an inter block
misses the target, and where a segment of the file is full.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby
from operator import itemgetter

import numpy as np
import numpy.typing as npt

from elastictok_cli.codec.pixels import shrunk_luma, thumbnail
from elastictok_cli.video.records import Frame

# A cut is where the mean difference between thumbnails of two frames (luma, 0 to 255) is more than MIN_CHANGE_OF_CUT
# and more than MIN_RATIO_OF_CUT times the running mean of the differences before it, and where motion does not explain
# it: text that scrolls or grows changes as much as a cut.
MIN_CHANGE_OF_CUT = 18.0
MIN_RATIO_OF_CUT = 3.0
THUMBNAIL_SIDE = 64  # pixels of the shorter side, at least, where the frame has them
RUNNING_MEAN_DECAY = 0.7  # weight of the running mean beside the newest difference
# Motion explains a change if block matching leaves less than this share of the variance inside the blocks.
MAX_SHARE_OF_MOTION = 0.5
MATCHED_SHRINK = 4  # frames are matched at a quarter of the size, or smaller where they are large
MATCHED_SIDE = 272  # pixels of the shorter side, at most, of the small pictures that are matched
MATCHED_BLOCK = 16  # pixels of the small pictures; in smaller blocks anything finds a match
MATCHED_REACH = 12  # pixels of the small pictures in each direction: 48 of the frame


@dataclass(frozen=True)
class Scene:
    """A run of frames that starts at a cut or at the keyframe interval. Its blocks depend on no other scene.

    frames: all frames of the scene in order. `split_scenes` reads them as they are asked for.
    starts_at_cut: whether a cut starts the scene; else the video or the keyframe interval does.
    """

    frames: Iterable[Frame]
    starts_at_cut: bool


def split_scenes(frames: Iterable[Frame], interval: Fraction | None) -> Iterator[Scene]:
    """The scenes of a video, in order.

    interval: ticks (of `Frame.pts`). A frame that is so far or farther from the first frame of its scene starts a new
    one. None: only cuts do. A scene's frames have to be read before the next scene is asked for, which skips the rest
    of them.
    """
    for (_, starts_at_cut), members in groupby(_numbered(frames, interval), key=itemgetter(0)):
        yield Scene((frame for _, frame in members), starts_at_cut)


def _numbered(frames: Iterable[Frame], interval: Fraction | None) -> Iterator[tuple[tuple[int, bool], Frame]]:
    """Each frame with its scene: the scene's number, and whether it starts at a cut."""
    scene = (0, False)
    first_pts: int | None = None
    for frame, cut in _mark_cuts(frames):
        if first_pts is None:
            first_pts = frame.pts
        elif cut or (interval is not None and frame.pts - first_pts >= interval):
            scene, first_pts = (scene[0] + 1, cut), frame.pts
        yield scene, frame


def _mark_cuts(frames: Iterable[Frame]) -> Iterator[tuple[Frame, bool]]:
    """Each frame with whether there is a cut just before it."""
    last: np.ndarray | None = None
    last_frame: Frame | None = None
    running_mean = 0.0  # of the differences since the last cut
    for frame in frames:
        small = thumbnail(frame.rgb, THUMBNAIL_SIDE)
        cut = False
        if last is not None and last_frame is not None:
            change = float(np.abs(small - last).mean())
            cut = change > MIN_CHANGE_OF_CUT and change > MIN_RATIO_OF_CUT * running_mean
            cut = cut and share_left_by_motion(last_frame.rgb, frame.rgb) > MAX_SHARE_OF_MOTION
            decayed = RUNNING_MEAN_DECAY * running_mean + (1 - RUNNING_MEAN_DECAY) * change
            running_mean = 0.0 if cut else decayed
        last, last_frame = small, frame
        yield frame, cut


def share_left_by_motion(before: npt.NDArray[np.uint8], after: npt.NDArray[np.uint8]) -> float:
    """What block matching from one frame (H, W, 3) to the next leaves, as a share of the variance inside the blocks.

    About 1 or more where the frames have nothing in common, near 0 where everything has moved.
    """
    step = max(MATCHED_SHRINK, -(-min(before.shape[:2]) // MATCHED_SIDE))
    new = shrunk_luma(after, step)
    height, width = new.shape
    reach, side = MATCHED_REACH, MATCHED_BLOCK
    rows, columns = np.arange(0, height, side), np.arange(0, width, side)
    steps = range(-reach, reach + 1)

    def sums(plane: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return np.add.reduceat(np.add.reduceat(plane, rows, 0), columns, 1)

    def old(down: int, right: int) -> npt.NDArray[np.float32]:
        """The frame before from this pixel on, shrunk, with its edges repeated: (height + 24, width + 24)."""
        small = shrunk_luma(before[down:, right:], step)
        missing = ((0, height - small.shape[0]), (0, width - small.shape[1]))
        return np.pad(np.pad(small, missing, mode="edge"), reach, mode="edge")

    whole = old(0, 0)
    candidates = [(whole, y, x) for y in steps for x in steps]
    # Fine print shrunk from half a pixel farther on is another picture. So what scrolls, along one axis, is matched at
    # every pixel of the frame.
    for part in range(1, min(step, *before.shape[:2])):
        down, right = old(part, 0), old(0, part)
        candidates += [shift for n in steps for shift in ((down, n, 0), (right, 0, n))]
    least = np.full((len(rows), len(columns)), np.inf, np.float32)
    for picture, y, x in candidates:
        shifted = picture[reach + y : reach + y + height, reach + x : reach + x + width]
        np.minimum(least, sums(np.square(shifted - new)), out=least)
    pixels = sums(np.ones_like(new))
    variance = sums(np.square(new)) - np.square(sums(new)) / pixels
    return float(least.sum() / max(float(variance.sum()), 1e-9))

"""Scenes: where they start is decided by pixels and times alone, before anything is coded.

A scene starts with a keyframe block, and no block of it depends on another scene. So scenes can be encoded in any
order. Its first frame is the first of the video, the first after a cut, or the first that the keyframe interval allows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby
from operator import itemgetter

import numpy as np

from elastictok_cli.codec.pixels import thumbnail
from elastictok_cli.video.records import Frame

# A cut is where the mean difference between thumbnails of two frames (luma, 0 to 255) is more than MIN_CHANGE_OF_CUT
# and more than MIN_RATIO_OF_CUT times the running mean of the differences before it.
MIN_CHANGE_OF_CUT = 18.0
MIN_RATIO_OF_CUT = 3.0
THUMBNAIL_SIDE = 64  # pixels of the shorter side, at least, where the frame has them
RUNNING_MEAN_DECAY = 0.7  # weight of the running mean beside the newest difference


@dataclass(frozen=True)
class Scene:
    """Frames whose first block is a keyframe block and whose blocks depend on no other scene.

    frames: all frames of the scene in order. `split_scenes` reads them as they are asked for.
    starts_at_cut: whether a cut starts the scene; else the video or the keyframe interval does.
    """

    frames: Iterable[Frame]
    starts_at_cut: bool


def split_scenes(frames: Iterable[Frame], interval: Fraction | None) -> Iterator[Scene]:
    """The scenes of a video, in order.

    interval: a scene ends before the first frame that is so many ticks (of `Frame.pts`) or more after its first one;
    None: only cuts end scenes. A scene's frames have to be read before the next scene is asked for, which skips the
    rest of them.
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
    running_mean = 0.0  # of the differences since the last cut
    for frame in frames:
        small = thumbnail(frame.rgb, THUMBNAIL_SIDE)
        cut = False
        if last is not None:
            change = float(np.abs(small - last).mean())
            cut = change > MIN_CHANGE_OF_CUT and change > MIN_RATIO_OF_CUT * running_mean
            decayed = RUNNING_MEAN_DECAY * running_mean + (1 - RUNNING_MEAN_DECAY) * change
            running_mean = 0.0 if cut else decayed
        last = small
        yield frame, cut

"""Which frames become a block."""

from __future__ import annotations

from dataclasses import dataclass, replace

from elastictok_cli.video.records import Frame


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

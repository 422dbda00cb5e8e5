"""Luma of the reference and of the frames of a block: what every search for motion looks at."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F


class Luma(NamedTuple):
    """Luma of a block and its reference, at full size or a smaller one."""

    before: torch.Tensor  # (B, 1, H, W) the reference
    after: torch.Tensor  # (B, T, 1, H, W) frames, real ones only
    times: torch.Tensor  # (T,) int64: how many frames after the reference

    @classmethod
    def of(cls, reference: torch.Tensor, frames: torch.Tensor) -> Luma:
        """reference: (B, 3, H, W); frames: (B, T, 3, H, W), real ones only."""
        times = torch.arange(1, frames.shape[1] + 1, device=frames.device)
        return cls(to_luma(reference), to_luma(frames), times)

    def half(self) -> Luma:
        """The same at half of this size."""
        after = F.avg_pool2d(self.after.flatten(0, 1), 2)
        return self._replace(
            before=F.avg_pool2d(self.before, 2), after=after.view(*self.after.shape[:2], *after.shape[1:])
        )

    def twice(self) -> Luma:
        """All pictures, and all of them once more."""
        return self._replace(before=torch.cat([self.before] * 2), after=torch.cat([self.after] * 2))

    def middle_and_last(self) -> Luma:
        """Two of the frames, or the only one."""
        kept = kept_frames(len(self.times))
        return self._replace(after=self.after[:, kept], times=self.times[kept])


def kept_frames(count: int) -> slice:
    """Which of `count` frames `Luma.middle_and_last` keeps."""
    step = max(1, count // 2)
    return slice((count - 1) % step, None, step)


def to_luma(rgb: torch.Tensor) -> torch.Tensor:
    """(..., 3, H, W) to (..., 1, H, W), by the weights of ITU-R BT.601."""
    red, green, blue = (rgb.narrow(-3, channel, 1) for channel in range(3))
    return (red * 0.299).add_(green, alpha=0.587).add_(blue, alpha=0.114)

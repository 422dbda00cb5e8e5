"""Sizes and settings of the default model, as its checkpoint stores them."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

from elastictok_cli.models.cell.motion import camera_shake

KEY, INTER = 0, 1  # kinds of blocks, each with a basis of its own: keyframe blocks, predicted blocks
CLASS_DIGITS = (0, 3)  # the digits of a cell's first FSQ token that name its class

# Checkpoints keep the names that these settings had when the first of them was written.
_STORED_AS = {
    "camera_pan": "leaders",
    "camera_shake": "global_motion",
    "copy_still": "still",
    "fill_in": "fill",
}


@dataclass(frozen=True)
class DefaultConfig:
    """Sizes of the default model; stored in the checkpoint."""

    name: str = "elastictok-default"
    cell: int = 16  # pixels
    frames: int = 4
    levels: tuple[int, ...] = (8, 8, 8, 5, 5, 5)
    stages: tuple[int, ...] = (1, 1, 2, 4, 8, 16, 24)  # residual tokens whose steps are set together
    coefficients: int = 384  # kept of the 3,072 of a cell
    width: int = 128  # channels at 1/8 resolution
    predict_blocks: int = 2
    synthesis_blocks: int = 3
    prior_width: int = 64  # channels of what a cell knows about its own statistics
    hidden: int = 96  # of the networks that set means and steps
    interpolation: str = (
        "bilinear"  # of the reference between pixels; bicubic keeps fine texture that moves slowly
    )
    camera_pan: bool = False  # cells may send camera pans (motion/camera_pan.py)
    camera_shake: bool = (
        False  # a cell may send the camera shake (motion/camera_shake.py); only with camera pans
    )
    copy_still: bool = False  # cells that do not move and keep no token are copied from the reference
    fill_in: bool = (
        False  # cells of keyframe blocks that keep no token are filled in from the others, else grey
    )

    def __post_init__(self) -> None:
        if self.interpolation not in ("bilinear", "bicubic"):
            raise ValueError(f"unknown interpolation {self.interpolation!r}")
        if self.camera_shake and not (self.camera_pan and math.prod(self.levels) >= camera_shake.CODES):
            raise ValueError(f"camera shake wants camera pans, and {camera_shake.CODES:,} codes")

    @property
    def classes(self) -> int:
        """Cell classes that the first token can name."""
        return math.prod(self.levels[d] for d in CLASS_DIGITS)

    @property
    def residual_tokens(self) -> int:
        """FSQ codes of one cell at most; control tokens come before them."""
        return sum(self.stages)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DefaultConfig:
        """Inverse of `to_dict`; unknown keys raise TypeError, lists become tuples."""
        names = {_STORED_AS.get(f.name, f.name): f.name for f in fields(cls)}
        if unknown := set(values) - set(names):
            raise TypeError(f"unknown settings {sorted(unknown)}")
        plain: dict[str, Any] = {names[k]: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**plain)

    def to_dict(self) -> dict[str, Any]:
        """Plain values under the names that checkpoints have for them, for JSON."""
        return {_STORED_AS.get(name, name): value for name, value in asdict(self).items()}

"""Sizes and settings of the default model, as its checkpoint stores them."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

from elastictok_cli.models.cell.motion import camera_shake

KEY, INTER = 0, 1  # which basis: keyframe blocks, predicted blocks
CLASS_DIGITS = (0, 3)  # the digits of a cell's first FSQ token that name its class


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
        "bilinear"  # of the last frame between pixels; bicubic keeps fine texture that moves slowly
    )

    leaders: bool = False  # cells that send a velocity may say how it changes in others
    global_motion: bool = False  # one of them may say how everything moves, frame by frame; wants leaders
    still: bool = (
        False  # cells that stand still and keep no token are copied, whatever the networks make of them
    )
    fill: bool = False  # in keyframe blocks, cells without a token from the others rather than grey

    def __post_init__(self) -> None:
        if self.interpolation not in ("bilinear", "bicubic"):
            raise ValueError(f"unknown interpolation {self.interpolation!r}")
        if self.global_motion and not (self.leaders and math.prod(self.levels) >= camera_shake.CODES):
            raise ValueError(f"global motion wants leaders, and {camera_shake.CODES:,} codes")

    @property
    def classes(self) -> int:
        """Cell classes that the first token can name."""
        return math.prod(self.levels[d] for d in CLASS_DIGITS)

    @property
    def residual_tokens(self) -> int:
        """FSQ tokens of one cell; a velocity may stand before them."""
        return sum(self.stages)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DefaultConfig:
        """Inverse of `asdict`; unknown keys raise TypeError, lists become tuples."""
        known = {f.name for f in fields(cls)}
        if unknown := set(values) - known:
            raise TypeError(f"unknown settings {sorted(unknown)}")
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**plain)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

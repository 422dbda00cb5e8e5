"""The values of tokens, and the order of the tokens in a cell's sequence. No other file knows either.

Values of a model with 64,000 FSQ codes (8 x 8 x 8 x 5 x 5 x 5):

| values           | kind          | what the token says |
| ---------------- | ------------- | --- |
| 0 to 63,999      | FSQ code      | digits of the residual; behind 65,526 the camera shake of one frame |
| 64,000 to 65,520 | motion vector | 39 x 39 vertical and horizontal speeds (`motion/vectors.py`) |
| 65,521 to 65,523 | gain          | the quantizer's steps of this cell are 2, 4 or 8 times as large |
| 65,524           | camera pan    | cells without a motion vector change theirs as this cell changes its own |
| 65,525           | camera pan    | the same, but only cells that already move |
| 65,526           | camera shake  | the next codes, one for each real frame, say how the whole picture is displaced |

A model without camera pan has no values above 65,523, one without camera shake none above 65,525.

The control tokens (all that are no FSQ codes) come first in a cell's sequence, in one of these orders:

    FSQ codes ...
    gain, FSQ codes ...
    motion vector, FSQ codes ...
    motion vector, gain, FSQ codes ...
    motion vector, camera pan, FSQ codes ...
    motion vector, camera shake, one code for each real frame, FSQ codes ...
"""

from __future__ import annotations

from dataclasses import dataclass

from elastictok_cli.models.cell.motion import camera_pan, vectors
from elastictok_cli.models.interface import ControlRange

GAINS = (2.0, 4.0, 8.0)  # factors on all steps of a cell, for contrasts beyond the reach of its quantizers


@dataclass(frozen=True)
class TokenLayout:
    """Which values mean what, for one model."""

    codes: int  # FSQ codes; they have the values 0 to codes - 1
    pan: bool  # whether there are camera pans
    shake: bool  # whether there is camera shake

    @property
    def first_vector(self) -> int:
        """The motion vector with index 0."""
        return self.codes

    @property
    def first_gain(self) -> int:
        """The smallest gain."""
        return self.first_vector + vectors.VELOCITIES

    @property
    def first_pan(self) -> int:
        """The camera pan of all cells."""
        return self.first_gain + len(GAINS)

    @property
    def shake_mark(self) -> int:
        """The value behind which the camera shake of a block stands."""
        return self.first_pan + len(camera_pan.SCOPES)

    @property
    def vocabulary(self) -> int:
        """Tokens have values below this."""
        return max(end.first + end.count for end in self.control_tokens)

    @property
    def control_tokens(self) -> tuple[ControlRange, ...]:
        """All values that are no FSQ codes."""
        ranges = [
            ControlRange("motion_vector", self.first_vector, vectors.VELOCITIES),
            ControlRange("gain", self.first_gain, len(GAINS)),
        ]
        if self.pan:
            ranges.append(ControlRange("pan", self.first_pan, len(camera_pan.SCOPES)))
        if self.shake:
            ranges.append(ControlRange("shake", self.shake_mark, 1, followed_by=1))
        return tuple(ranges)

"""What a file holds, as plain dataclasses, and its limits. `rules` has what their values must keep."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

UInt16Array = npt.NDArray[np.uint16]
TokenArray = npt.NDArray[np.uint16] | npt.NDArray[np.float16]

MAX_SIDE_PIXELS = 65535  # pixels
MAX_CELLS = 1 << 24  # of one grid, and of all blocks of a segment together
MAX_SEGMENT_TOKENS = 1 << 24
MAX_SEGMENT_NUMBERS = 1 << 25  # of all vectors of a segment
MAX_VECTOR_NUMBERS = 64  # numbers
MAX_SEGMENT_BLOCKS = 1024
MAX_SEGMENTS = 1 << 18
MAX_BLOCK_FRAMES = 32
MAX_TOKENS_PER_CELL = 8192
MAX_STRING_BYTES = 65535  # bytes of UTF-8
MAX_MAP_ENTRIES = 1024  # entries
MAX_CHAPTERS = 1024
MAX_CONTROL_RANGES = 16
MAX_TIME_TICKS = 1 << 60  # ticks of the time base; leaves room to add a few without overflow

_VALUES_OF_A_TOKEN = 48  # of a cell that counts as full
CONTROL_KINDS = ("motion_vector", "gain", "pan", "shake", "whole_vector", "dct", "palette")
KIND_NAMES = [*CONTROL_KINDS, *(f"kind {number}" for number in range(len(CONTROL_KINDS), 256))]
PALETTE_SIZES = (1, 2, 3, 4, 5, 6, 8)  # colours that palettes have, by place in their range of control tokens
KIND_NUMBERS = {name: number for number, name in enumerate(KIND_NAMES)}
PROMISES = ("block", "video")  # what the target holds for: every block, or the mean of the video
COLOR_TAGS = ("color_primaries", "color_trc", "colorspace", "color_range")


def max_segment_tokens(vector: int) -> int:
    """Most tokens of a segment: integers (vector 0), or vectors of so many numbers."""
    return MAX_SEGMENT_NUMBERS // vector if vector > 2 else MAX_SEGMENT_TOKENS


@dataclass(frozen=True)
class ModelRef:
    """The weights that made the tokens, and what they demand of a file.

    levels: number of values of each digit of a token, first digit fastest. vocabulary: token values are
    below it; at most 65536. tokens_per_cell: length of a full sequence. cell: (height, width) in pixels.
    vector: if not 0, tokens are vectors of so many float16 numbers; levels are then () and vocabulary is 0.
    """

    name: str
    sha256: bytes
    levels: tuple[int, ...]
    vocabulary: int
    tokens_per_cell: int
    block_frames: int = 4
    cell: tuple[int, int] = (16, 16)
    vector: int = 0

    @property
    def full_cell(self) -> int:
        """Tokens with which a cell counts as full where shares are shown: see `full_cell`."""
        return full_cell(self.tokens_per_cell, self.block_frames, self.cell)


def full_cell(tokens_per_cell: int, frames: int, cell: tuple[int, int]) -> int:
    """All tokens of a cell, or one for every 48 of its values where that is less.

    Longer sequences are what noise and dense text need; beside them every other cell would look empty.
    """
    values = 3 * frames * cell[0] * cell[1]
    return max(1, min(tokens_per_cell, values // _VALUES_OF_A_TOKEN))


@dataclass(frozen=True)
class ControlRange:
    """Token values that are no codes: they tell the model how to read the rest of a cell's sequence.

    kind: one of CONTROL_KINDS, or "kind N" for a number N, 7 to 255, of a later program. The values are `first` to
    `first + count - 1`. followed_by: how many codes after such a token belong to it, for each real frame of the block.
    """

    kind: str
    first: int
    count: int
    followed_by: int = 0


@dataclass(frozen=True)
class Header:
    """Facts about the whole video.

    width, height: of the decoded pictures, after rotation and crop. grid: (rows, columns) of cells.
    target_mse: on pixels in [-1, 1]. target_tokens: per cell, when a fixed count was asked for instead.
    promise: one of PROMISES: "block", each block has at most the target, or "video", the mean over all frames has.
    allocation: "cell" or "block". time_base, average_rate, pixel_aspect (width over height of one pixel):
    (numerator, denominator).
    frame_count: None when not known before encoding; EtkReader.frame_count has the true one.
    rotation: degrees that were applied to the source. color: any of COLOR_TAGS to int or str.
    start_time: of the first frame on the source's own clock, clock_offset: what was subtracted from that clock, so that
    times begin at zero; both in time_base. chapters: (start, end, title) of each, times as those of frames.
    aux: {"container": name} when audio or subtitles are carried.
    control_tokens: what the token values from the product of the levels on mean, range after range without gaps, as
    far as the writer said it.
    """

    model: ModelRef
    width: int
    height: int
    grid: tuple[int, int]
    time_base: tuple[int, int]
    target_mse: float | None = None
    target_tokens: int | None = None
    promise: str = "block"
    allocation: str = "cell"
    frame_count: int | None = None
    rotation: int = 0
    pixel_format: str = ""
    color: dict[str, int | str] = field(default_factory=dict)
    average_rate: tuple[int, int] | None = None
    pixel_aspect: tuple[int, int] = (1, 1)
    source_bytes: int | None = None
    start_time: int = 0
    clock_offset: int = 0
    chapters: tuple[tuple[int, int, str], ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)
    aux: dict[str, str] | None = None
    program: str = ""
    options: dict[str, str | int | float | bool] = field(default_factory=dict)
    control_tokens: tuple[ControlRange, ...] = ()


@dataclass(frozen=True, eq=False)
class Block:
    """Some frames coded together.

    pts: presentation time of each real frame, in the header's time_base. durations: ticks, 0 = unknown.
    keep: (rows, columns) uint16, tokens kept per cell. tokens: (keep.sum(),) uint16, or (keep.sum(), vector) float16,
    ordered by index in the sequence, then row, then column (see pack_tokens); empty when read with tokens=False.
    frame_mse: of each real frame, on pixels in [-1, 1]; NaN = unknown. A file keeps float16, and of that 9 significant
    bits where all errors of a segment are known: within 0.25 % of the measured one (1.5e-7 for those below 6e-5).
    missed: the target was not met; where the target is one of the mean, the error is above the option `worst` times it.
    scene_cut: the block begins at one.
    """

    pts: tuple[int, ...]
    durations: tuple[int, ...]
    keep: UInt16Array
    tokens: TokenArray
    frame_mse: tuple[float, ...]
    missed: bool = False
    scene_cut: bool = False

    @property
    def token_count(self) -> int:
        """How many tokens the block keeps, also when they were not read."""
        return int(self.keep.sum(dtype=np.int64))


@dataclass(frozen=True, eq=False)
class Segment:
    """A keyframe block and those that depend on it. offset, size_bytes: of its unit in the file."""

    number: int
    blocks: list[Block]
    offset: int
    size_bytes: int


class SegmentInfo(NamedTuple):
    """One line of the index. offset, length: bytes of the unit. mse: mean over frames, NaN if unknown."""

    offset: int
    length: int
    first_pts: int
    last_pts: int
    frames: int
    blocks: int
    tokens: int
    missed: int
    mse: float


class Damage(NamedTuple):
    """Something that could not be read: where (bytes from the start of the file) and why."""

    offset: int
    reason: str

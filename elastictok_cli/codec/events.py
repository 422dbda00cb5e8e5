"""The events of an encode. Progress bar, `--json` and tests are three readers of the same events.

For every encode: exactly one `Started` first; one `BlockDone` per block in order of time; one `SegmentWritten` per
segment, after its last block; exactly one `Finished` last. With a promise or a budget for the whole video, `Surveyed`
comes any number of times before `Started`, and a `Restarted` begins all that follows `Started` anew.
"""

from __future__ import annotations

from dataclasses import dataclass

from formats import KindCounts

MOST_MISSED = 100  # blocks that `Finished.missed` names at most, so that memory does not grow with the video


@dataclass(frozen=True)
class Started:
    """Before the first block. Sizes in pixels, times in seconds; None where the source does not say."""

    width: int
    height: int
    grid: tuple[int, int]  # rows and columns of cells
    frames: int | None
    duration: float | None
    average_rate: float | None
    tokens_per_block: int  # of a full block of this size (formats.full_cell)
    target_mse: float | None
    model: str


@dataclass(frozen=True)
class Surveyed:
    """The first pass has come so far. total: frames of the source; None where it does not say."""

    frames: int
    total: int | None


@dataclass(frozen=True)
class Restarted:
    """The file is encoded again: what came since `Started` counts for nothing.

    limit: what it was off by: "error", "tokens" or "bytes". used: share of what is allowed.
    """

    limit: str
    used: float


@dataclass(frozen=True)
class BlockDone:
    """One block is decided."""

    index: int
    first_frame: int
    frames: int
    time: float  # seconds of its first frame
    keyframe: bool
    scene_cut: bool
    tokens: int
    kinds: KindCounts  # of its cells and tokens
    mse: float  # of the block on [-1, 1] pixels, as a decoder will show it
    frame_mse: tuple[float, ...]
    missed: bool
    price: float | None = None  # lambda, squared error per token: where there is a plan for the video


@dataclass(frozen=True)
class SegmentWritten:
    """A segment reached the file."""

    index: int
    blocks: int
    frames: int
    bytes: int
    bytes_so_far: int  # of the whole file


@dataclass(frozen=True)
class Finished:
    """The file is complete."""

    frames: int
    blocks: int
    segments: int
    bytes: int
    duration: float  # seconds of video
    seconds: float  # spent encoding
    tokens: int
    kinds: KindCounts  # sums over blocks
    tokens_per_block: int  # of a full block
    min_block_tokens: int
    max_block_tokens: int
    mse: float  # mean over frames
    worst_mse: float  # of a block
    missed_blocks: int  # how many did not meet the target
    missed: tuple[int, ...]  # indices of those, of the first MOST_MISSED at most
    source_bytes: int | None
    bound: str | None = None  # "target" or "budget": what decided the error, where there is a plan


Event = Started | Surveyed | Restarted | BlockDone | SegmentWritten | Finished

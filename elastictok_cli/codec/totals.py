"""Sums over the blocks of an encode, for its last event."""

from __future__ import annotations

from elastictok_cli.codec import events
from elastictok_cli.video.records import VideoInfo
from formats import Block, KindCounts


class Totals:
    """Sums over the coded blocks."""

    def __init__(self) -> None:
        self.frames = self.blocks = self.segments = self.tokens = self.most = 0
        self.kinds = KindCounts()
        self.fewest: int | None = None
        self.error = self.worst = 0.0
        self.missed_blocks = 0
        self.missed: list[int] = []  # indices, MOST_MISSED of them at most
        self.first_pts: int | None = None
        self.end_pts = 0

    def add(self, done: events.BlockDone, block: Block) -> None:
        """Count a coded block."""
        self.frames += done.frames
        self.blocks += 1
        self.tokens += done.tokens
        self.kinds += done.kinds
        self.most = max(self.most, done.tokens)
        self.fewest = done.tokens if self.fewest is None else min(self.fewest, done.tokens)
        self.error += sum(done.frame_mse)
        self.worst = max(self.worst, done.mse)
        if done.missed:
            self.missed_blocks += 1
            if len(self.missed) < events.MOST_MISSED:
                self.missed.append(done.index)
        if self.first_pts is None:
            self.first_pts = block.pts[0]
        self.end_pts = block.pts[-1] + block.durations[-1]

    def finished(self, info: VideoInfo, size: int, tokens_per_block: int, seconds: float) -> events.Finished:
        """The last event. `tokens_per_block`: of a full block; `seconds`: since the encode began."""
        shown = float((self.end_pts - (self.first_pts or 0)) * info.time_base)
        return events.Finished(
            frames=self.frames,
            blocks=self.blocks,
            segments=self.segments,
            bytes=size,
            duration=shown,
            seconds=seconds,
            tokens=self.tokens,
            kinds=self.kinds,
            tokens_per_block=tokens_per_block,
            min_block_tokens=self.fewest or 0,
            max_block_tokens=self.most,
            mse=self.error / max(1, self.frames),
            worst_mse=self.worst,
            missed_blocks=self.missed_blocks,
            missed=tuple(self.missed),
            source_bytes=info.size_bytes,
        )

"""Video to `.etk`: a generator of events.

With one job it holds one segment of tokens, one block of frames and the frames that the lookahead reads beyond it. With
more, scenes are encoded side by side in worker processes (`parallel`), which changes no byte of the file.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from fractions import Fraction

import torch

from elastictok_cli.codec import events
from elastictok_cli.codec.encoded import EncodedBlock, encode_blocks
from elastictok_cli.codec.header import make_header
from elastictok_cli.codec.jobs import limits_for
from elastictok_cli.codec.options import EncodeOptions
from elastictok_cli.codec.parallel import Group, Limits, run_in_order
from elastictok_cli.codec.scene_plan import ScenePlan
from elastictok_cli.codec.scenes import Scene, split_scenes
from elastictok_cli.codec.totals import Totals
from elastictok_cli.models.interface import Loaded
from elastictok_cli.video.records import Frame, VideoInfo
from formats import Block, EtkWriter, Header, KindCounter, full_cell

# Gives each scene of a video its plan. A scene's blocks are coded before the next one is asked for, with one job.
Plans = Callable[[Iterable[Scene]], Iterable[tuple[Scene, ScenePlan | None]]]

__all__ = ["EncodeOptions", "encode", "make_header"]  # all that an encode needs of this package


def encode(
    info: VideoInfo,
    frames: Iterable[Frame],
    take_aux: Callable[[], bytes],
    loaded: Loaded,
    writer: EtkWriter,
    options: EncodeOptions,
    device: torch.device,
    jobs: int | None = 1,
    plans: Plans | None = None,
    note: Callable[[events.BlockDone, Block], None] | None = None,
) -> Generator[events.Event, None, None]:
    """Encode `frames` into `writer` (which is closed at the end), yielding events as they happen.

    `take_aux` gives the container bytes of copied streams produced since it was last asked. `jobs`: most scenes that
    are encoded at the same time, each in a process of its own; None chooses by cores and memory. The file is the same.
    `plans`: what each scene may spend, for nested models. `note` is told every block.
    Close the generator where it is left before its end: that ends the processes.
    """
    began = time.monotonic()
    spec = loaded.tokenizer.spec
    rows, cols = spec.grid(info.height, info.width)
    tokens_per_block = rows * cols * full_cell(spec.tokens_per_cell, spec.frames, spec.cell)
    yield events.Started(
        width=info.width,
        height=info.height,
        grid=(rows, cols),
        frames=info.frame_count,
        duration=info.duration,
        average_rate=float(info.average_rate) if info.average_rate else None,
        tokens_per_block=tokens_per_block,
        target_mse=options.mse,
        model=spec.name,
    )
    totals, counter = Totals(), KindCounter(writer.header)
    segment: list[Block] = []
    source = _Source(frames, take_aux)
    scenes = split_scenes(source, interval_ticks(options, info))
    limit = limits_for(loaded, device, jobs, info.height, info.width)
    planned = ((scene, None) for scene in scenes) if plans is None else plans(scenes)
    for block in _encode_scenes(planned, loaded, options, device, (rows, cols), limit, writer.header):
        if block.keyframe and segment:
            yield _write(segment, writer, totals, source.aux_until(totals.frames))
            segment = []
        record = block.record
        segment.append(record)
        done = events.BlockDone(
            index=totals.blocks,
            first_frame=totals.frames,
            frames=len(record.pts),
            time=float(record.pts[0] * info.time_base),
            keyframe=block.keyframe,
            scene_cut=record.scene_cut,
            tokens=record.token_count,
            kinds=counter.count([record]),
            mse=block.mse,
            frame_mse=record.frame_mse,
            missed=record.missed,
            price=block.price,
        )
        totals.add(done, record)
        if note is not None:
            note(done, record)
        yield done
    if segment:
        yield _write(segment, writer, totals, source.aux_until(totals.frames))
    if rest := source.aux_until(None) + take_aux():
        writer.write_aux(rest)
    size = writer.close()
    yield totals.finished(info, size, tokens_per_block, time.monotonic() - began)


def _encode_scenes(
    scenes: Iterable[tuple[Scene, ScenePlan | None]],
    loaded: Loaded,
    options: EncodeOptions,
    device: torch.device,
    grid: tuple[int, int],
    limit: Limits,
    header: Header,
) -> Iterator[EncodedBlock]:
    """The coded blocks of all scenes, in order."""
    coding = (options, device, grid)
    if limit.jobs == 1 or loaded.load is None:
        for scene, plan in scenes:
            yield from encode_blocks(loaded, scene.frames, scene.starts_at_cut, *coding, plan, header)
        return
    groups = (Group((scene.starts_at_cut, *coding, plan, header), scene.frames) for scene, plan in scenes)
    yield from run_in_order(groups, encode_blocks, loaded, loaded.load, limit, lambda frame: frame.rgb.nbytes)


class _Source:
    """The frames of a source, with the bytes of copied streams that came before each of them.

    How far ahead frames are read differs, but the bytes that follow a segment may not: they are those that came with
    its frames.
    """

    def __init__(self, frames: Iterable[Frame], take_aux: Callable[[], bytes]) -> None:
        self._frames, self._take_aux = frames, take_aux
        self._aux: deque[tuple[int, bytes]] = (
            deque()
        )  # how many frames were read, and the bytes that came with the last

    def __iter__(self) -> Iterator[Frame]:
        for count, frame in enumerate(self._frames, 1):
            if data := self._take_aux():
                self._aux.append((count, data))
            yield frame

    def aux_until(self, count: int | None) -> bytes:
        """The bytes that came with the first `count` frames (None: all) and were not given yet."""
        data = []
        while self._aux and (count is None or self._aux[0][0] <= count):
            data.append(self._aux.popleft()[1])
        return b"".join(data)


def interval_ticks(options: EncodeOptions, info: VideoInfo) -> Fraction | None:
    """The keyframe interval in ticks of the source's time base; None where only cuts start scenes."""
    if options.keyframe_interval <= 0:
        return None
    return (
        Fraction(str(options.keyframe_interval)) / info.time_base
    )  # 0.4 seconds are ten frames of 0.04, no more


def _write(segment: list[Block], writer: EtkWriter, totals: Totals, aux: bytes) -> events.SegmentWritten:
    """Write a segment, and after it the bytes of copied streams that came with its frames."""
    size = writer.write_segment(segment)
    if aux:
        writer.write_aux(aux)
    totals.segments += 1
    frames = sum(len(block.pts) for block in segment)
    return events.SegmentWritten(totals.segments - 1, len(segment), frames, size, writer.bytes_written)

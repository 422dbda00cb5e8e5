"""Video to `.etk`: a generator of events.

It holds one segment of tokens, one block of frames and the frames that the lookahead reads beyond it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction

import numpy as np
import torch

from elastictok_cli.codec import events
from elastictok_cli.codec.block_splitting import SourceBlock
from elastictok_cli.codec.header import make_header
from elastictok_cli.codec.options import EncodeOptions
from elastictok_cli.codec.rate_control import Coded
from elastictok_cli.codec.scene_encoder import encode_scene
from elastictok_cli.codec.scenes import split_scenes
from elastictok_cli.codec.totals import Totals
from elastictok_cli.models.interface import Loaded
from elastictok_cli.video.records import Frame, VideoInfo
from formats import Block, EtkWriter, full_cell, pack_tokens

__all__ = ["EncodeOptions", "encode", "make_header"]  # all that an encode needs of this package


def encode(
    info: VideoInfo,
    frames: Iterable[Frame],
    take_aux: Callable[[], bytes],
    loaded: Loaded,
    writer: EtkWriter,
    options: EncodeOptions,
    device: torch.device,
) -> Iterator[events.Event]:
    """Encode `frames` into `writer` (which is closed at the end), yielding events as they happen.

    `take_aux` gives the container bytes of copied streams produced since it was last asked.
    """
    began = time.monotonic()
    tokenizer = loaded.tokenizer
    spec = tokenizer.spec
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
    totals = Totals()
    segment: list[Block] = []
    for scene in split_scenes(frames, _interval_ticks(options, info)):
        for block, coded in encode_scene(scene, tokenizer, options, device, (rows, cols)):
            if block.keyframe and segment:
                yield _write(segment, writer, totals, take_aux)
                segment = []
            segment.append(to_record(block, coded))
            done = events.BlockDone(
                index=totals.blocks,
                first_frame=totals.frames,
                frames=len(block.frames),
                time=float(block.frames[0].pts * info.time_base),
                keyframe=block.keyframe,
                scene_cut=block.scene_cut,
                tokens=segment[-1].token_count,
                mse=coded.mse,
                frame_mse=coded.frame_mse,
                missed=coded.missed,
            )
            totals.add(done, block)
            yield done
    if segment:
        yield _write(segment, writer, totals, take_aux)
    if rest := take_aux():
        writer.write_aux(rest)
    size = writer.close()
    yield totals.finished(info, size, tokens_per_block, time.monotonic() - began)


def to_record(block: SourceBlock, coded: Coded) -> Block:
    """The block as the file format stores it."""
    keep = coded.keep[0].cpu().numpy().astype(np.uint16)
    tokens = coded.tokens[0].cpu()
    if not tokens.is_floating_point():
        tokens = tokens.clamp_min(0)
    return Block(
        pts=tuple(f.pts for f in block.frames),
        durations=tuple(f.duration for f in block.frames),
        keep=keep,
        tokens=pack_tokens(tokens.numpy(), keep),
        frame_mse=coded.frame_mse,
        missed=coded.missed,
        scene_cut=block.scene_cut,
    )


def _interval_ticks(options: EncodeOptions, info: VideoInfo) -> Fraction | None:
    """The keyframe interval in ticks of the source's time base; None where only cuts start scenes."""
    if options.keyframe_interval <= 0:
        return None
    return (
        Fraction(str(options.keyframe_interval)) / info.time_base
    )  # 0.4 seconds are ten frames of 0.04, no more


def _write(
    segment: list[Block], writer: EtkWriter, totals: Totals, take_aux: Callable[[], bytes]
) -> events.SegmentWritten:
    """Write a segment, and after it the bytes of copied streams that have come meanwhile."""
    size = writer.write_segment(segment)
    if data := take_aux():
        writer.write_aux(data)
    totals.segments += 1
    frames = sum(len(block.pts) for block in segment)
    return events.SegmentWritten(totals.segments - 1, len(segment), frames, size, writer.bytes_written)

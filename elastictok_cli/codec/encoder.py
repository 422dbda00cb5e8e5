"""Video to `.etk`: a generator of events that holds one segment of tokens, a block of frames and those ahead of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from fractions import Fraction

import numpy as np
import torch

from elastictok_cli.codec import events, lookahead
from elastictok_cli.codec import rate_control as search
from elastictok_cli.codec.block_splitting import SourceBlock
from elastictok_cli.codec.header import make_header
from elastictok_cli.codec.options import EncodeOptions
from elastictok_cli.codec.scene_encoder import make_coder, weighs_cells
from elastictok_cli.codec.scenes import Planner
from elastictok_cli.codec.totals import Totals
from elastictok_cli.models.interface import Loaded
from elastictok_cli.video.records import Frame, VideoInfo
from formats import MAX_CELLS, MAX_SEGMENT_BLOCKS, Block, EtkWriter, max_segment_tokens, pack_tokens

__all__ = ["EncodeOptions", "encode", "make_header"]  # all that an encode needs of this package

_STILL_MSE = 0.007  # what counts as motion when only a token count is asked for


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
    capacity = rows * cols * spec.tokens_per_cell
    yield events.Started(
        width=info.width,
        height=info.height,
        grid=(rows, cols),
        frames=info.frame_count,
        duration=info.duration,
        average_rate=float(info.average_rate) if info.average_rate else None,
        tokens_per_block=capacity,
        target_mse=options.mse,
        model=spec.name,
    )
    totals = Totals()
    pending: list[Block] = []
    pending_tokens = 0
    context = None
    longest = min(MAX_SEGMENT_BLOCKS, MAX_CELLS // (rows * cols))
    most_tokens = max_segment_tokens(spec.vector)
    planner = Planner(
        frames,
        size=spec.frames,
        interval=Fraction(options.keyframe_interval) / info.time_base
        if options.keyframe_interval > 0
        else None,
        # blocks of one frame are an idea of the default model
        still_mse=(options.mse or _STILL_MSE) if spec.nested else math.inf,
        ahead=lookahead.LOOKAHEAD_FRAMES if weighs_cells(spec, options) else 0,
    )
    coder = make_coder(tokenizer, options, device, (rows, cols))
    index = 0
    while (proposed := planner.propose()) is not None:
        if pending_tokens + capacity > most_tokens or len(pending) >= longest:
            proposed = replace(proposed, keyframe=True)
        block, coded = coder.code(proposed, context)
        planner.take(block)
        if block.keyframe and pending:
            yield _flush(writer, pending, totals, take_aux)
            pending, pending_tokens = [], 0
        context = coded.context
        record = _record(coded, block)
        pending.append(record)
        pending_tokens += record.token_count
        done = events.BlockDone(
            index=index,
            first_frame=totals.frames,
            frames=len(block.frames),
            time=float(block.frames[0].pts * info.time_base),
            keyframe=block.keyframe,
            scene_cut=block.scene_cut,
            tokens=record.token_count,
            mse=coded.mse,
            frame_mse=coded.frame_mse,
            missed=coded.missed,
        )
        totals.add(done, block)
        index += 1
        yield done
    if pending:
        yield _flush(writer, pending, totals, take_aux)
    if rest := take_aux():
        writer.write_aux(rest)
    size = writer.close()
    yield totals.finished(info, size, capacity, time.monotonic() - began)


def _record(coded: search.Coded, block: SourceBlock) -> Block:
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


def _flush(
    writer: EtkWriter, blocks: list[Block], totals: Totals, take_aux: Callable[[], bytes]
) -> events.SegmentWritten:
    size = writer.write_segment(blocks)
    if data := take_aux():
        writer.write_aux(data)
    totals.segments += 1
    frames = sum(len(b.pts) for b in blocks)
    return events.SegmentWritten(totals.segments - 1, len(blocks), frames, size, writer.bytes_written)

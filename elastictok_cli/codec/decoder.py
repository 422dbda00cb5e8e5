"""`.etk` to frames: only the segments a time window needs, one block in memory at a time."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from elastictok_cli.codec.jobs import decode_limits
from elastictok_cli.codec.parallel import Group, run_in_order
from elastictok_cli.codec.pixels import to_pixels
from elastictok_cli.models.interface import Loaded, where_to_get
from elastictok_cli.video.records import Frame
from formats import Block, EtkReader, Header, unpack_tokens

TIME_TOLERANCE = Fraction(1, 1_000_000)  # seconds; the same as in VideoReader
_MIN_TOKEN_ROWS = 256  # of a cell, that are given to a model: more FSQ codes than it has


class ModelMismatch(Exception):
    """The file was made with other weights; the message is one sentence for the user."""


def check_model(header: Header, loaded: Loaded) -> None:
    """Raise ModelMismatch unless these are the weights the file names."""
    wanted = header.model
    if wanted.sha256 != loaded.sha256:
        advice = where_to_get(wanted.sha256) or "name the right file with --model"
        raise ModelMismatch(
            f"this file was made with the weights {wanted.name} (sha256 {wanted.sha256.hex()[:12]}…), but "
            f"{loaded.path.name} is {loaded.sha256.hex()[:12]}…; {advice}"
        )


def window(
    header: Header, reader: EtkReader, start: float | None, duration: float | None
) -> tuple[int, int | None]:
    """First pts of the window and the pts it ends before (None: the end).

    `start` and `duration` are seconds, counted from the first frame; decimals that were rounded mean the frame
    they were read from.
    """
    base = Fraction(*header.time_base)
    origin = _first_pts(reader)

    def ticks(seconds: Fraction) -> int:
        return origin + max(0, math.ceil((seconds - TIME_TOLERANCE) / base))

    begin = _exact(start)
    return ticks(begin), None if duration is None else ticks(begin + _exact(duration))


def decode(
    reader: EtkReader,
    loaded: Loaded,
    device: torch.device,
    *,
    first_pts: int | None = None,
    end_pts: int | None = None,
    jobs: int | None = 1,
) -> Generator[Frame, None, None]:
    """Frames with first_pts <= pts < end_pts, in order, with the times the file recorded.

    `jobs`: most segments that are decoded at the same time, each in a process of its own; None chooses by cores and
    memory. The frames are the same. Close the generator where it is left before its end: that ends the processes.

    Damaged segments are left out; `reader.damage` lists them. Raises formats.EtkError, ModelMismatch, WorkerDied.
    """
    header = reader.header
    check_model(header, loaded)
    segments = reader.segments(first_pts, end_pts)
    rest = (header, device, first_pts, end_pts)
    limits = decode_limits(jobs, header.height, header.width, loaded, device)
    if limits.jobs == 1 or loaded.load is None:
        for segment in segments:
            yield from decode_blocks(loaded, segment.blocks, *rest)
        return

    def decoded_bytes(block: Block) -> int:
        return len(block.pts) * header.height * header.width * 3

    groups = (Group(rest, segment.blocks) for segment in segments)
    yield from run_in_order(groups, decode_blocks, loaded, loaded.load, limits, decoded_bytes)


def decode_blocks(
    loaded: Loaded,
    blocks: Iterable[Block],
    header: Header,
    device: torch.device,
    first_pts: int | None,
    end_pts: int | None,
) -> Iterator[Frame]:
    """The frames of a segment's blocks that are in the window. See `decode`."""
    context = loaded.tokenizer.start(*_padded(header))
    for block in blocks:
        if end_pts is not None and block.pts[0] >= end_pts:
            break
        pixels, context = _decode_block(block, header, loaded, context, device)
        for n, (pts, duration) in enumerate(zip(block.pts, block.durations, strict=True)):
            if (first_pts is None or pts >= first_pts) and (end_pts is None or pts < end_pts):
                yield Frame(pixels[n], pts, duration)


def pictures(
    blocks: Iterable[Block], header: Header, loaded: Loaded, device: torch.device
) -> Iterator[npt.NDArray[np.uint8]]:
    """The pixels of a segment's blocks in order, (n, H, W, 3) for each block of n frames."""
    context = loaded.tokenizer.start(*_padded(header))
    for block in blocks:
        pixels, context = _decode_block(block, header, loaded, context, device)
        yield pixels


def _decode_block(
    block: Block, header: Header, loaded: Loaded, context: Any, device: torch.device
) -> tuple[npt.NDArray[np.uint8], Any]:
    """The pixels (n, H, W, 3) of a block of n frames, and the context of the next block."""
    length = header.model.tokens_per_cell
    if (
        loaded.tokenizer.spec.nested
    ):  # the kept tokens are enough for it, if there are as many rows as FSQ codes
        length = min(length, max(_MIN_TOKEN_ROWS, int(block.keep.max())))
    grid = unpack_tokens(block.tokens, block.keep, length)
    integers_or_vectors = grid if header.model.vector else grid.astype("int64")
    tokens = torch.from_numpy(integers_or_vectors)[None].to(device)
    keep = torch.from_numpy(block.keep.astype("int64"))[None].to(device)
    decoded, next_context = loaded.tokenizer.decode(tokens, keep, context, count=len(block.pts))
    return to_pixels(decoded, header.height, header.width, len(block.pts)).cpu().numpy(), next_context


def _padded(header: Header) -> tuple[int, int]:
    return header.grid[0] * header.model.cell[0], header.grid[1] * header.model.cell[1]


def _first_pts(reader: EtkReader) -> int:
    if reader.index:
        return reader.index[0].first_pts
    return next((block.pts[0] for block in reader.blocks(tokens=False)), 0)


def _exact(seconds: float | None) -> Fraction:
    return Fraction(str(seconds)) if seconds is not None else Fraction(0)

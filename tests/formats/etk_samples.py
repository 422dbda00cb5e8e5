"""Small files for the tests of the format, always the same."""

import io
import math
from collections.abc import Sequence
from dataclasses import replace

import msgpack
import numpy as np

from formats import Block, EtkReader, EtkWriter, Header, ModelRef, Segment, pack_tokens
from formats.wire import HEADER, MAGIC, VERSION, pack_blob, pack_unit

MODEL = ModelRef(
    name="tiny", sha256=bytes(range(32)), levels=(8, 8, 8, 5, 5, 5), vocabulary=65536, tokens_per_cell=6
)
HEADER_RECORD = Header(
    model=MODEL,
    width=30,
    height=17,
    grid=(2, 2),
    time_base=(1, 25),
    target_mse=0.007,
    rotation=90,
    pixel_format="yuv420p",
    color={"color_primaries": 1, "color_range": "tv"},
    average_rate=(25, 1),
    pixel_aspect=(4, 3),
    source_bytes=12345,
    metadata={"title": "Länge"},
    aux={"container": "nut"},
    program="test 1",
    options={"speed": 2, "strict": True, "kbps": 1.5, "mode": "auto"},
)


def make_block(seed: int, start: int, header: Header = HEADER_RECORD, **changes: object) -> Block:
    rng = np.random.default_rng(seed)
    model = header.model
    keep = rng.integers(0, model.tokens_per_cell + 1, header.grid).astype(np.uint16)
    grid = rng.integers(0, model.vocabulary, (model.tokens_per_cell, *header.grid))
    block = Block(
        pts=tuple(range(start, start + 4)),
        durations=(1, 1, 1, 1),
        keep=keep,
        tokens=pack_tokens(grid, keep),
        frame_mse=tuple(float(x) for x in np.float16(rng.random(4) / 100)),
    )
    return replace(block, **changes)


def make_segments(count: int = 3, blocks: int = 2, header: Header = HEADER_RECORD) -> list[list[Block]]:
    return [
        [make_block(100 * s + b, 4 * (s * blocks + b), header, scene_cut=b == 0) for b in range(blocks)]
        for s in range(count)
    ]


def write(segments: Sequence[Sequence[Block]], header: Header = HEADER_RECORD, aux: bytes = b"") -> bytes:
    """Write a file in memory: AUX after the first segment."""
    stream = io.BytesIO()
    with EtkWriter(stream, header) as writer:
        for number, blocks in enumerate(segments):
            writer.write_segment(blocks)
            if number == 0 and aux:
                writer.write_aux(aux)
    return stream.getvalue()


def read(data: bytes, **options: bool) -> tuple[EtkReader, list[Segment]]:
    reader = EtkReader(io.BytesIO(data), **options)
    return reader, list(reader.segments())


def same_block(a: Block, b: Block) -> bool:
    return (
        a.pts == b.pts
        and a.durations == b.durations
        and np.array_equal(a.keep, b.keep)
        and np.array_equal(a.tokens, b.tokens)
        and a.keep.dtype == b.keep.dtype == a.tokens.dtype == b.tokens.dtype == np.uint16
        and all(same_error(x, y) for x, y in zip(a.frame_mse, b.frame_mse, strict=True))
        and a.missed == b.missed
        and a.scene_cut == b.scene_cut
    )


def same_error(a: float, b: float) -> bool:
    """Whether an error is as near as a file keeps it: 9 significant bits (`formats.Block`)."""
    if math.isnan(a) or math.isnan(b):
        return math.isnan(a) and math.isnan(b)
    return math.isclose(float(np.float16(a)), float(np.float16(b)), rel_tol=2**-9, abs_tol=2**-23)


def same_blocks(a: Sequence[Block], b: Sequence[Block]) -> bool:
    return len(a) == len(b) and all(map(same_block, a, b))


def raw_header(**changes: object) -> bytes:
    """A file of only a header, its msgpack map changed at will."""
    fields: dict[str, object] = {
        "m": ["tiny", bytes(32), [8, 8, 8, 5, 5, 5], 65536, 6, 4, 16, 16],
        "s": [30, 17],
        "g": [2, 2],
        "t": [1, 25],
    }
    return header_file(msgpack.packb(fields | changes))


def header_file(data: bytes) -> bytes:
    return MAGIC + bytes([VERSION]) + pack_unit(HEADER, pack_blob(data))

"""The INDEX payload: where each segment is and what it holds (SPEC.md, 8)."""

from collections.abc import Sequence

import numpy as np

from formats.errors import Corrupt, LimitExceeded
from formats.records import MAX_SEGMENTS, SegmentInfo
from formats.segment import pack_errors, unpack_errors
from formats.wire import HEAD_SIZE, Cursor, pack_blob, pack_column, pack_uvarint


def pack_index(infos: Sequence[SegmentInfo], start: int) -> bytes:
    """Encode the index. start: first byte after the HEADER unit."""
    table = np.array([info[:-1] for info in infos], np.int64).reshape(len(infos), 8)
    offsets, lengths, first_pts, last_pts, frames, blocks, tokens, missed = table.T
    errors = np.array([info.mse for info in infos], np.float64)
    columns = [
        offsets - np.append(start, (offsets + lengths)[:-1])[: len(infos)],
        lengths,
        first_pts - np.append(0, last_pts[:-1])[: len(infos)],
        last_pts - first_pts,
        frames,
        blocks,
        tokens,
        missed,
    ]
    data = b"".join(map(pack_column, columns)) + pack_errors(errors).astype("<u2").tobytes()
    return pack_uvarint(len(infos)) + pack_blob(data)


def unpack_index(payload: bytes, start: int, end: int) -> list[SegmentInfo]:
    """Decode the index of a file whose units may lie from start to end. Raises Corrupt or LimitExceeded."""
    cursor = Cursor(payload)
    count = cursor.uvarint()
    if count > MAX_SEGMENTS:
        raise LimitExceeded(f"index of {count} segments, the limit is {MAX_SEGMENTS}")
    columns = Cursor(cursor.blob(64 + 66 * count))
    cursor.finish()
    gaps, lengths, pts_gaps, pts_spans, *counts = (columns.column(count) for _ in range(8))
    errors = unpack_errors(np.frombuffer(columns.take(2 * count), "<u2").astype(np.uint16))
    columns.finish()

    # each number first, so that the sums below cannot wrap around
    size = end - start
    if ((gaps < 0) | (gaps > size) | (lengths < HEAD_SIZE) | (lengths > size)).any():
        raise Corrupt("index points outside the file")
    ends = start + (gaps + lengths).cumsum()
    if count and int(ends[-1]) > end:
        raise Corrupt("index points outside the file")
    if (pts_spans < 0).any() or any((column < 0).any() for column in counts):
        raise Corrupt("index has negative counts")
    last_pts = (pts_gaps + pts_spans).cumsum()
    table = [ends - lengths, lengths, last_pts - pts_spans, last_pts, *counts]
    return [
        SegmentInfo(*row) for row in zip(*(column.tolist() for column in table), errors.tolist(), strict=True)
    ]

"""The SEGMENT payload: blocks to bytes and back (SPEC.md, 5)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from formats.coding import rice
from formats.coding.keep_maps import pack_keep, unpack_keep
from formats.coding.tokens import decode_tokens, encode_tokens
from formats.coding.vector_tokens import decode_vectors, encode_vectors
from formats.errors import Corrupt, InvalidRecord, LimitExceeded
from formats.records import (
    MAX_CELLS,
    MAX_SEGMENT_BLOCKS,
    MAX_TIME_TICKS,
    Block,
    Header,
    TokenArray,
    UInt16Array,
)
from formats.rules import check_segment
from formats.wire import (
    Cursor,
    from_byte_planes,
    pack_blob,
    pack_column,
    pack_svarint,
    pack_uvarint,
    to_byte_planes,
)

_NAN_PATTERN = 0x7E00  # the one float16 pattern for "unknown"
MISSED, SCENE_CUT, _FRAMES_MASK = 64, 128, 63


def pack_segment(header: Header, number: int, blocks: Sequence[Block]) -> bytes:
    """Encode blocks. Raises InvalidRecord or LimitExceeded if they cannot be a segment of this file."""
    check_segment(header, blocks)
    keeps = np.stack([block.keep for block in blocks])
    frames = [len(block.pts) for block in blocks]
    return b"".join(
        [
            pack_uvarint(number),
            pack_uvarint(len(blocks)),
            pack_blob(_pack_facts(blocks)),
            pack_keep(keeps, frames, header.model.tokens_per_cell),
            _pack_tokens([block.tokens for block in blocks], keeps, frames, header),
        ]
    )


def begin_segment(header: Header, payload: bytes) -> tuple[Cursor, int, "Facts"]:
    """Read a segment's number and facts; the cursor stands before its keep map. Raises EtkError."""
    cursor = Cursor(payload)
    number = cursor.uvarint()
    count = cursor.uvarint()
    rows, columns = header.grid
    if not 1 <= count <= MAX_SEGMENT_BLOCKS:
        raise LimitExceeded(f"segment of {count} blocks, the limit is {MAX_SEGMENT_BLOCKS}")
    if count * rows * columns > MAX_CELLS:
        raise LimitExceeded(f"segment of {count * rows * columns} cells, the limit is {MAX_CELLS}")
    facts = Facts(cursor.blob(count * (1 + 18 * header.model.block_frames) + 64), count, header)
    return cursor, number, facts


def unpack_segment(header: Header, payload: bytes, *, tokens: bool = True) -> tuple[int, list[Block]]:
    """Decode the segment's number and its blocks; without their tokens if not asked for. Raises EtkError."""
    cursor, number, facts = begin_segment(header, payload)
    count = len(facts.flags)
    rows, columns = header.grid
    frames = np.diff(facts.starts).tolist()
    keeps = unpack_keep(cursor, (count, rows, columns), frames, header.model)
    kept: Sequence[TokenArray]
    if tokens:
        kept = _unpack_tokens(cursor, keeps, frames, header)
        cursor.finish()
    else:
        kept = [np.empty(0, np.uint16)] * count
    blocks = []
    for index in range(count):
        own = slice(facts.starts[index], facts.starts[index + 1])
        block = Block(
            pts=tuple(facts.pts[own]),
            durations=tuple(facts.durations[own]),
            keep=keeps[index],
            tokens=kept[index],
            frame_mse=tuple(facts.errors[own]),
            missed=bool(facts.flags[index] & MISSED),
            scene_cut=bool(facts.flags[index] & SCENE_CUT),
        )
        blocks.append(block)
    check_segment(header, blocks, tokens=tokens)
    return number, blocks


def _pack_tokens(blocks: Sequence[Any], keeps: UInt16Array, frames: Sequence[int], header: Header) -> bytes:
    if header.model.vector:
        return encode_vectors(blocks, keeps, header.model.vector)
    return encode_tokens(blocks, keeps, frames, header.model, header.control_tokens)


def _unpack_tokens(
    cursor: Cursor, keeps: UInt16Array, frames: Sequence[int], header: Header
) -> Sequence[TokenArray]:
    if header.model.vector:
        return decode_vectors(cursor, keeps, header.model.vector)
    return decode_tokens(cursor, keeps, frames, header.model, header.control_tokens)


def pack_errors(errors: npt.NDArray[np.float64]) -> npt.NDArray[np.uint16]:
    """Round errors to float16 and give the bit patterns, with one pattern for NaN."""
    patterns = errors.astype("<f2").view("<u2").astype(np.uint16)
    patterns[np.isnan(errors)] = _NAN_PATTERN
    return patterns


def unpack_errors(patterns: npt.NDArray[np.uint16]) -> npt.NDArray[np.float64]:
    """Undo pack_errors. Raises Corrupt for negative or infinite errors and other patterns of NaN."""
    # finite and not negative: below the pattern of infinity
    if ((patterns >= 0x7C00) & (patterns != _NAN_PATTERN)).any():
        raise Corrupt("an error is negative or not finite")
    return patterns.astype("<u2").view("<f2").astype(np.float64)


def _pack_facts(blocks: Sequence[Block]) -> bytes:
    flags = [len(b.pts) | MISSED * b.missed | SCENE_CUT * b.scene_cut for b in blocks]
    pts = np.array([time for block in blocks for time in block.pts], np.int64)
    durations = np.array([duration for block in blocks for duration in block.durations], np.int64)
    errors = np.array([mse for block in blocks for mse in block.frame_mse], np.float64)
    steps = np.diff(pts)

    parts = [bytes(flags), pack_svarint(int(pts[0]))]
    if len(steps) > 0:
        parts.append(pack_uvarint(int(steps[0])))
    if len(steps) > 1:
        parts.append(pack_column(np.diff(steps)))

    constant = b"\0" + pack_svarint(int(durations[0])) + pack_column(np.diff(durations))
    gapless = b"\1" + pack_column(durations - _expected_durations(steps))
    parts.append(min(gapless, constant, key=len))

    if np.isnan(errors).all():
        parts.append(b"\0")
    else:
        patterns = pack_errors(errors)
        changes = patterns - np.concatenate([[np.uint16(0)], patterns[:-1]])  # modulo 2^16
        plain = b"\1" + to_byte_planes(changes)
        parts.append(plain if np.isnan(errors).any() else min(b"\2" + rice.pack(patterns), plain, key=len))
    return b"".join(parts)


class Facts:
    """The facts of a segment.

    flags: per block. starts: first frame of each block, then the end. The other lists are per frame.
    """

    def __init__(self, data: bytes, blocks: int, header: Header) -> None:
        cursor = Cursor(data)
        self.flags = list(cursor.take(blocks))
        frames = np.array(self.flags) & _FRAMES_MASK
        if not ((frames >= 1) & (frames <= header.model.block_frames)).all():
            raise Corrupt("a block has no frames or too many")
        self.starts = [0, *frames.cumsum().tolist()]
        total = self.starts[-1]

        first = cursor.svarint()
        steps = np.zeros(total - 1, np.int64)
        if total > 1:
            step = cursor.uvarint()
            if abs(first) > MAX_TIME_TICKS or step > 2 * MAX_TIME_TICKS:
                raise InvalidRecord("a presentation time is out of range")
            steps[0] = step
        if total > 2:
            steps[1:] = cursor.column(total - 2)
            steps = steps.cumsum()
        pts = np.concatenate([[first], first + steps.cumsum()])
        self.pts: list[int] = pts.tolist()

        coding = cursor.byte()
        if coding == 0:
            durations = np.concatenate([[cursor.svarint()], cursor.column(total - 1)]).cumsum()
        elif coding == 1:
            durations = cursor.column(total) + _expected_durations(steps)
        else:
            raise Corrupt(f"duration coding {coding}")
        self.durations: list[int] = durations.tolist()

        coding = cursor.byte()
        if coding == 0:
            self.errors = [float("nan")] * total
        elif coding == 1:
            changes = from_byte_planes(cursor.take(2 * total))
            self.errors = unpack_errors(changes.cumsum(dtype=np.uint16)).tolist()
        elif coding == 2:
            self.errors = unpack_errors(rice.unpack(cursor, total)).tolist()
        else:
            raise Corrupt(f"error coding {coding}")
        cursor.finish()


def _expected_durations(steps: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """(F - 1,) steps between frames to (F,) durations without gaps; the last frame's is that before it."""
    return np.concatenate([steps, steps[-1:]]) if len(steps) else np.zeros(1, np.int64)

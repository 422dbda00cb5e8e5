"""The SEGMENT payload: blocks to bytes and back (SPEC.md, 5)."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from formats.coding import predicted, rice
from formats.coding.rans import Reader, Writer, lanes_for
from formats.coding.tokens import decode_tokens, encode_tokens
from formats.coding.vectors import decode_vectors, encode_vectors
from formats.errors import Corrupt, InvalidRecord, LimitExceeded, UnsupportedVersion
from formats.records import (
    MAX_CELLS,
    MAX_SEGMENT_BLOCKS,
    MAX_SEGMENT_TOKENS,
    MAX_TIME,
    Block,
    Header,
    ModelRef,
    TokenArray,
    UInt16Array,
    check_segment,
    check_token_count,
)
from formats.wire import Cursor, pack_blob, pack_column, pack_svarint, pack_uvarint

_NAN = 0x7E00  # the one float16 pattern for "unknown"
MISSED, SCENE_CUT, _FRAMES = 64, 128, 63
_PACKED = 8
_PREDICTED = 16
_CELLS_PER_LANE = 4096
_MOST_KEEP_BYTES = 8 << 20  # of predicted keep maps: 2^20 cells of 28 bits and their lanes are far less
_AXES = 3  # blocks, rows, columns: bits 1, 2, 4 of the keep coding
_TRIES = 4  # keep codings that are really compressed; the estimate picks them


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
            _pack_keep(keeps, frames, header.model.tokens_per_cell),
            _pack_tokens([block.tokens for block in blocks], keeps, frames, header.model),
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
    keeps = _unpack_keep(cursor, (count, rows, columns), frames, header.model)
    kept: Sequence[TokenArray]
    if tokens:
        kept = _unpack_tokens(cursor, keeps, frames, header.model)
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


def _pack_tokens(blocks: Sequence[Any], keeps: UInt16Array, frames: Sequence[int], model: ModelRef) -> bytes:
    if model.vector:
        return encode_vectors(blocks, keeps, model.vector)
    return encode_tokens(blocks, keeps, frames, model)


def _unpack_tokens(
    cursor: Cursor, keeps: UInt16Array, frames: Sequence[int], model: ModelRef
) -> Sequence[TokenArray]:
    if model.vector:
        return decode_vectors(cursor, keeps, model.vector)
    return decode_tokens(cursor, keeps, frames, model)


def pack_errors(errors: npt.NDArray[np.float64]) -> npt.NDArray[np.uint16]:
    """Round errors to float16 and give the bit patterns, with one pattern for NaN."""
    patterns = errors.astype("<f2").view("<u2").astype(np.uint16)
    patterns[np.isnan(errors)] = _NAN
    return patterns


def unpack_errors(patterns: npt.NDArray[np.uint16]) -> npt.NDArray[np.float64]:
    """Undo pack_errors. Raises Corrupt for negative or infinite errors and other patterns of NaN."""
    # finite and not negative: below the pattern of infinity
    if ((patterns >= 0x7C00) & (patterns != _NAN)).any():
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
        plain = b"\1" + _byte_planes(changes)
        parts.append(plain if np.isnan(errors).any() else min(b"\2" + rice.pack(patterns), plain, key=len))
    return b"".join(parts)


class Facts:
    """The facts of a segment.

    flags: per block. starts: first frame of each block, then the end. The other lists are per frame.
    """

    def __init__(self, data: bytes, blocks: int, header: Header) -> None:
        cursor = Cursor(data)
        self.flags = list(cursor.take(blocks))
        frames = np.array(self.flags) & _FRAMES
        if not ((frames >= 1) & (frames <= header.model.block_frames)).all():
            raise Corrupt("a block has no frames or too many")
        self.starts = [0, *frames.cumsum().tolist()]
        total = self.starts[-1]

        first = cursor.svarint()
        steps = np.zeros(total - 1, np.int64)
        if total > 1:
            step = cursor.uvarint()
            if abs(first) > MAX_TIME or step > 2 * MAX_TIME:
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
            changes = _from_byte_planes(cursor.take(2 * total))
            self.errors = unpack_errors(changes.cumsum(dtype=np.uint16)).tolist()
        elif coding == 2:
            self.errors = unpack_errors(rice.unpack(cursor, total)).tolist()
        else:
            raise Corrupt(f"error coding {coding}")
        cursor.finish()


def _expected_durations(steps: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """(F - 1,) steps between frames to (F,) durations without gaps; the last frame's is that before it."""
    return np.concatenate([steps, steps[-1:]]) if len(steps) else np.zeros(1, np.int64)


def _pack_keep(keeps: UInt16Array, frames: Sequence[int], tokens_per_cell: int) -> bytes:
    plain = _pack_keep_plainly(keeps, tokens_per_cell)
    if keeps.size > predicted.MOST_CELLS:
        return plain
    return min(plain, _pack_keep_predicted(keeps, frames), key=len)


def _pack_keep_predicted(keeps: UInt16Array, frames: Sequence[int]) -> bytes:
    totals = keeps.reshape(len(keeps), -1).sum(1, dtype=np.int64)
    writer = Writer(_keep_lanes(totals, keeps[0].size))
    predicted.code_keeps(keeps, totals, np.array(frames, np.int64), writer)
    data = writer.bytes()
    return b"".join(
        [bytes([_PREDICTED]), *map(pack_uvarint, totals.tolist()), pack_uvarint(2 * len(data)), data]
    )


def _unpack_keep_predicted(cursor: Cursor, shape: tuple[int, int, int], frames: Sequence[int]) -> UInt16Array:
    totals = _read_totals(cursor, shape)
    data = cursor.blob(_MOST_KEEP_BYTES)
    reader = Reader(data, _keep_lanes(totals, shape[1] * shape[2]))
    blank = np.zeros(shape, np.uint16)
    keeps = predicted.code_keeps(blank, totals, np.array(frames, np.int64), reader)
    reader.finish()
    return keeps.astype(np.uint16)


def _keep_lanes(totals: npt.NDArray[np.int64], cells: int) -> int:
    """Lanes for the keep maps of blocks with so many tokens and cells; empty blocks are not coded."""
    return lanes_for(int((totals > 0).sum()) * cells, _CELLS_PER_LANE)


def _pack_keep_plainly(keeps: UInt16Array, tokens_per_cell: int) -> bytes:
    values = keeps.astype(_keep_type(tokens_per_cell))
    candidates = []
    for axes in range(1 << _AXES):
        residuals = values.copy()
        for axis in range(_AXES):
            if axes >> axis & 1:
                _difference(residuals, axis)
        flat = residuals.ravel()
        candidates.append((axes, _byte_planes(flat)))
        nibbles = _pack_nibbles(flat)
        if nibbles is not None:
            candidates.append((axes | _PACKED, nibbles))
    candidates.sort(key=lambda candidate: _entropy(candidate[1]))
    return min((bytes([coding]) + pack_blob(data) for coding, data in candidates[:_TRIES]), key=len)


def _unpack_keep(
    cursor: Cursor, shape: tuple[int, int, int], frames: Sequence[int], model: ModelRef
) -> UInt16Array:
    coding = cursor.byte()
    if coding == _PREDICTED:
        keeps = _unpack_keep_predicted(cursor, shape, frames)
    elif coding < 1 << _AXES + 1:
        keeps = _unpack_keep_plainly(cursor, coding, shape, model)
    else:
        raise UnsupportedVersion(f"keep coding {coding} is unknown: a newer program is needed")
    if int(keeps.max()) > model.tokens_per_cell:
        raise Corrupt("a cell keeps more tokens than its sequence has")
    check_token_count(int(keeps.sum(dtype=np.int64)), model)
    return keeps


def unpack_totals(
    cursor: Cursor, shape: tuple[int, int, int], frames: Sequence[int], model: ModelRef
) -> list[int]:
    """How many tokens each block keeps, without its keep map where the file says so. Raises EtkError."""
    if cursor.peek() != _PREDICTED:
        keeps = _unpack_keep(cursor, shape, frames, model)
        totals = keeps.reshape(shape[0], -1).sum(1, dtype=np.int64)
    else:
        cursor.byte()
        totals = _read_totals(cursor, shape)
        cursor.skip_blob()
    check_token_count(int(totals.sum()), model)
    return [int(total) for total in totals]


def _read_totals(cursor: Cursor, shape: tuple[int, int, int]) -> npt.NDArray[np.int64]:
    """The tokens of each block that stand before a predicted keep map."""
    if math.prod(shape) > predicted.MOST_CELLS:
        raise LimitExceeded(f"a predicted keep map of {math.prod(shape)} cells")
    numbers = [cursor.uvarint() for _ in range(shape[0])]
    if max(numbers) > MAX_SEGMENT_TOKENS:
        raise LimitExceeded(f"block of {max(numbers)} tokens")
    return np.array(numbers, np.int64)


def _unpack_keep_plainly(
    cursor: Cursor, coding: int, shape: tuple[int, int, int], model: ModelRef
) -> UInt16Array:
    kind = _keep_type(model.tokens_per_cell)
    cells = math.prod(shape)
    flat: npt.NDArray[Any]
    if coding & _PACKED:
        packed = np.frombuffer(cursor.blob_of((cells + 1) // 2), np.uint8)
        zigzag = np.stack([packed & 15, packed >> 4], axis=-1).ravel()[:cells].astype(kind)
        flat = (zigzag >> 1) ^ -(zigzag & 1)
    elif kind is np.uint8:
        flat = np.frombuffer(cursor.blob_of(cells), np.uint8)
    else:
        flat = _from_byte_planes(cursor.blob_of(2 * cells))
    values = flat.reshape(shape)
    for axis in range(_AXES):
        if coding >> axis & 1:
            values = values.cumsum(axis=axis, dtype=kind)
    return values.astype(np.uint16)


def _keep_type(tokens_per_cell: int) -> type[Any]:
    return np.uint8 if tokens_per_cell <= 255 else np.uint16


def _difference(values: npt.NDArray[Any], axis: int) -> None:
    """Replace all but the first value along an axis by the difference to the one before, in place."""
    along = np.moveaxis(values, axis, 0)
    along[1:] -= along[:-1].copy()


def _pack_nibbles(residuals: npt.NDArray[Any]) -> bytes | None:
    """Pack residuals two in a byte, or give None if one is not in -8 to 7."""
    signed: npt.NDArray[Any] = residuals.view(np.int8 if residuals.dtype == np.uint8 else np.int16)
    if signed.min() < -8 or signed.max() > 7:
        return None
    zigzag = np.where(signed >= 0, 2 * signed, -2 * signed - 1).astype(np.uint8)
    if len(zigzag) % 2:
        zigzag = np.append(zigzag, np.uint8(0))
    return (zigzag[0::2] | zigzag[1::2] << 4).astype(np.uint8).tobytes()


def _byte_planes(values: npt.NDArray[Any]) -> bytes:
    """8-bit values as they are; 16-bit ones as all low bytes, then all high bytes."""
    planes = values.astype(values.dtype.newbyteorder("<")).view(np.uint8)
    return planes.reshape(len(values), -1).T.tobytes()


def _from_byte_planes(data: bytes | memoryview) -> UInt16Array:
    low, high = np.frombuffer(data, np.uint8).reshape(2, -1).astype(np.uint16)
    return np.asarray(low | high << 8, np.uint16)


def _entropy(data: bytes) -> float:
    """Estimate the bits that these bytes need, each on its own."""
    counts = np.bincount(np.frombuffer(data, np.uint8))
    counts = counts[counts > 0]
    return float((counts * np.log2(len(data) / counts)).sum())

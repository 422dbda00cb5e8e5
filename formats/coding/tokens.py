"""Token order and token coding (SPEC.md, 6). All integers, all exact."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from formats.coding import range_coding, screen_codes
from formats.errors import UnsupportedVersion
from formats.records import ControlRange, ModelRef, UInt16Array
from formats.wire import Cursor, pack_blob, quick_size

RANGE_CODED, PREDICTED_RANGE_CODED, SCREEN_RANGE_CODED = 3, 4, 5
# zstd tries longer planes at its fastest level first, and at its best one only where that promises to be smallest. On
# 150 segments of all kinds the best level made planes at most 1.08 times smaller; and, unless tokens came again far
# apart, as much smaller, within 1 %, as it made a sample of them.
_QUICK_TRIAL_BYTES = 1 << 12
_MAX_QUICK_SIZE_RATIO = 1.1  # to the bytes of the other codings
_SAMPLE_BYTES = 1 << 15
_MAX_SAMPLED_SIZE_RATIO = 1.015
# Of codings 4 and 5, the one whose symbols need more bits, by more than the last states of 1024 lanes and rounding can
# make up for, is not made.
_MAX_BITS_RATIO, _MAX_BITS_DIFFERENCE = 1.01, 1 << 14


def pack_tokens(grid: npt.NDArray[Any], keep: npt.NDArray[np.integer]) -> npt.NDArray[Any]:
    """Pick the kept tokens of a block in file order: by index in the sequence, then row, then column.

    grid: (G, h, w) ints, values 0 to 65535, or (G, h, w, D) float16. keep: (h, w), values 0 to G. Returns
    (keep.sum(),) uint16, or (keep.sum(), D) float16.
    """
    return grid[_kept(keep, grid.shape[0])].astype(np.uint16 if grid.ndim == 3 else np.float16)


def unpack_tokens(
    flat: npt.NDArray[Any], keep: npt.NDArray[np.integer], tokens_per_cell: int
) -> npt.NDArray[Any]:
    """Undo pack_tokens: (keep.sum(), ...) to (G, h, w, ...), with 0 where a token was dropped.

    tokens_per_cell: G. What the block's longest sequence has, keep.max(), is enough, and takes less memory than what a
    model's longest sequence could have.
    """
    grid = np.zeros((tokens_per_cell, *keep.shape, *flat.shape[1:]), flat.dtype)
    grid[_kept(keep, tokens_per_cell)] = flat
    return grid


def _kept(keep: npt.NDArray[np.integer], tokens_per_cell: int) -> npt.NDArray[np.bool_]:
    return np.arange(tokens_per_cell)[:, None, None] < keep  # (G, h, w)


def segment_slots(keeps: UInt16Array) -> Iterator[npt.NDArray[np.int32]]:
    """Find where each block's tokens go in the order of the segment: equal sequence indices together.

    keeps: (blocks, h, w). Yields for each block the positions of its tokens, (keep.sum(),).
    """
    longest = int(keeps.max())
    # counts[b, g]: tokens of index g in block b = cells that keep more than g
    histograms = (np.bincount(keep.ravel(), minlength=longest + 1) for keep in keeps)
    counts = np.array([histogram[::-1].cumsum(dtype=np.int32)[::-1][1:] for histogram in histograms])
    # ends[b, g]: where this run ends in the order of the segment, which is by g, then block
    ends = counts.T.cumsum(dtype=np.int32).reshape(longest, len(keeps)).T
    for count, end in zip(counts, ends, strict=True):
        # position in the block + how far the run of index g has to move
        shift = end - count.cumsum(dtype=np.int32)
        slot = np.repeat(shift, count)
        slot += np.arange(len(slot), dtype=np.int32)
        yield slot


def in_segment_order(blocks: Sequence[UInt16Array], keeps: UInt16Array) -> UInt16Array:
    """The tokens of a segment's blocks in its order, (N,); keeps: (blocks, h, w)."""
    ordered = np.empty(sum(map(len, blocks)), np.uint16)
    for tokens, slots in zip(blocks, segment_slots(keeps), strict=True):
        ordered[slots] = tokens
    return ordered


def encode_tokens(
    blocks: Sequence[UInt16Array],
    keeps: UInt16Array,
    frames: Sequence[int],
    model: ModelRef,
    control_tokens: Sequence[ControlRange] = (),
) -> bytes:
    """Encode the tokens of a segment by the smallest of the codings that are worth trying.

    keeps: (blocks, h, w). frames: how many real ones each block has. control_tokens: those of the header.
    """
    ordered = in_segment_order(blocks, keeps)
    candidates = []
    if range_coding.allows(model):
        candidates += _encode_predicted(
            ordered, keeps, frames, model, _predicted(keeps, model, control_tokens)
        )
        if not candidates:
            candidates.append(bytes([RANGE_CODED]) + range_coding.encode(ordered, keeps, model))
    best = min(map(len, candidates), default=2 * len(ordered) + 1)
    for coding, planes in _plain(ordered, model):
        if _is_worth_packing(planes, best):
            candidates.append(bytes([coding]) + b"".join(map(pack_blob, planes)))
    return min(candidates, key=len)


def _encode_predicted(
    ordered: UInt16Array,
    keeps: UInt16Array,
    frames: Sequence[int],
    model: ModelRef,
    codings: dict[int, screen_codes.Modes | None],
) -> list[bytes]:
    """What those of codings 4 and 5 make of the tokens that can code them and may be the smaller one."""
    if not codings:
        return []
    writers = range_coding.PredictedWriters(ordered, keeps, np.array(frames, np.int64), model)
    found = {coding: writers.writer(modes) for coding, modes in codings.items()}
    ready = {coding: writer for coding, writer in found.items() if writer is not None}
    if len(ready) > 1:
        bits = {coding: writer.bits() for coding, writer in ready.items()}
        limit = _MAX_BITS_RATIO * min(bits.values()) + _MAX_BITS_DIFFERENCE
        ready = {coding: writer for coding, writer in ready.items() if bits[coding] <= limit}
    return [bytes([coding]) + writer.bytes() for coding, writer in ready.items()]


def _is_worth_packing(planes: Sequence[bytes], best: int) -> bool:
    """Whether zstd's best level may make these planes smaller than `best` bytes."""
    longest = max(map(len, planes))
    if longest <= _QUICK_TRIAL_BYTES:
        return True
    size = sum(map(quick_size, planes))
    if size >= _MAX_QUICK_SIZE_RATIO * best:
        return False
    if size < best or longest <= _SAMPLE_BYTES:
        return True
    starts = [max(0, len(plane) - _SAMPLE_BYTES) // 2 for plane in planes]
    samples = [plane[start : start + _SAMPLE_BYTES] for plane, start in zip(planes, starts, strict=True)]
    gain = sum(map(quick_size, samples)) / sum(len(pack_blob(sample)) for sample in samples)
    return size < _MAX_SAMPLED_SIZE_RATIO * gain * best


def _plain(ordered: UInt16Array, model: ModelRef) -> Iterator[tuple[int, list[bytes]]]:
    """The codings that zstd packs, and the bytes that it is given."""
    yield 0, [ordered.astype("<u2").tobytes()]
    for coding, radices in _planes(model).items():
        yield coding, [plane.tobytes() for plane in _split(ordered, radices)]


def _predicted(
    keeps: UInt16Array, model: ModelRef, control_tokens: Sequence[ControlRange]
) -> dict[int, screen_codes.Modes | None]:
    """The codings that predict control tokens, as far as they are allowed, and the screen modes they know."""
    codings: dict[int, screen_codes.Modes | None] = {}
    if range_coding.allows_predicted(keeps, model):
        codings[PREDICTED_RANGE_CODED] = None
    modes = screen_codes.modes_of(control_tokens)
    if modes is not None and range_coding.allows_screen(keeps, model):
        codings[SCREEN_RANGE_CODED] = modes
    return codings


def decode_tokens(
    cursor: Cursor,
    keeps: UInt16Array,
    frames: Sequence[int],
    model: ModelRef,
    control_tokens: Sequence[ControlRange] = (),
) -> list[UInt16Array]:
    """Decode the tokens of a segment, for each block (keep.sum(),). Raises EtkError."""
    total = int(keeps.sum(dtype=np.int64))
    ordered = _decode_values(cursor, total, keeps, frames, model, control_tokens)
    return [ordered[slots] for slots in segment_slots(keeps)]


def _decode_values(
    cursor: Cursor,
    total: int,
    keeps: UInt16Array,
    frames: Sequence[int],
    model: ModelRef,
    control_tokens: Sequence[ControlRange],
) -> UInt16Array:
    coding = cursor.byte()
    if coding == 0:
        return np.frombuffer(cursor.blob_of(2 * total), "<u2").astype(np.uint16)
    if coding == RANGE_CODED and range_coding.allows(model):
        return range_coding.decode(cursor.rest(), keeps, model)
    predicted = _predicted(keeps, model, control_tokens)
    if coding in predicted:
        return range_coding.decode_predicted(
            cursor.rest(), keeps, np.array(frames, np.int64), model, predicted[coding]
        )
    radices = _planes(model).get(coding)
    if radices is None:
        raise UnsupportedVersion(f"token coding {coding} is unknown: a newer program is needed")
    ordered = np.zeros(total, np.uint16)
    weight = 1
    for radix in [*radices, 1]:
        # modulo 2^16 by design: planes of hostile files may add up to more, the vocabulary check comes after
        ordered += np.frombuffer(cursor.blob_of(total), np.uint8).astype(np.uint16) * np.uint16(weight)
        weight = weight * radix & 0xFFFF
    return ordered


def _planes(model: ModelRef) -> dict[int, list[int]]:
    """Give the codings by planes that this model allows: the radix of each plane but the last."""
    pairs = [math.prod(model.levels[i : i + 2]) for i in range(0, len(model.levels), 2)]
    closed = pairs[:-1]
    codings = {1: [256]}
    if max(closed, default=0) <= 256 and (model.vocabulary - 1) // math.prod(closed) <= 255:
        codings[2] = closed
    return codings


def _split(values: UInt16Array, radices: list[int]) -> list[npt.NDArray[np.uint8]]:
    planes = []
    for radix in radices:
        values, digit = np.divmod(values, np.uint16(radix))
        planes.append(digit.astype(np.uint8))
    return [*planes, values.astype(np.uint8)]

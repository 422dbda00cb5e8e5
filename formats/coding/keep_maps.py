"""Entropy coding of keep maps: how many tokens each cell keeps (SPEC.md, 5.2).

Codings 0 to 15 compress differences along blocks, rows and columns by zstd. Coding 16 predicts each cell from those
around it with a small network and entropy-codes what it keeps by rANS (`rans.py`). A writer takes the smallest.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from formats.coding.networks import BIN_EDGES, BIN_SIZES, LOG_FEATURE, Networks, bin_of, tables
from formats.coding.rans import FREQUENCY_SUM, Coder, Reader, Symbols, Writer, in_order, lanes_for
from formats.coding.wavefront import MAX_PREDICTED_CELLS, NEIGHBOURS, Grid, predicted
from formats.errors import Corrupt, LimitExceeded, UnsupportedVersion
from formats.records import MAX_SEGMENT_TOKENS, ModelRef, UInt16Array
from formats.rules import check_token_count
from formats.wire import Cursor, from_byte_planes, pack_blob, pack_uvarint, quick_size, to_byte_planes

_OUTSIDE_FEATURE = -8  # network input for a cell that does not exist
_PACKED_BIT = 8  # of the keep coding: two residuals in a byte
_PREDICTED_CODING = 16
_CELLS_PER_LANE = 4096
_MAX_PREDICTED_BYTES = 8 << 20  # 2^20 cells of 28 bits and their lanes are far less
_AXES = 3  # blocks, rows, columns: bits 1, 2, 4 of the keep coding
_CODINGS_TRIED = 4  # codings 0 to 15 that are compressed to see their size: those of the least entropy
# zstd tries longer maps at its fastest level first, and at its best one those that gave at most 1.6 times the bytes of
# the predicted coding and at most 1.02 times those of the smallest. The best level makes maps up to 1.5 times smaller.
_QUICK_TRIAL_BYTES = 1 << 13
_MAX_QUICK_SIZE_RATIO, _MAX_RATIO_TO_SMALLEST = 1.6, 1.02


def pack_keep(keeps: UInt16Array, frames: Sequence[int], tokens_per_cell: int) -> bytes:
    """Encode keep maps (blocks, h, w) of blocks with `frames` real frames, by the smallest of the codings."""
    predicted = [] if keeps.size > MAX_PREDICTED_CELLS else [_pack_keep_predicted(keeps, frames)]
    plain = _plain_codings(keeps, tokens_per_cell)
    if max(len(data) for _, data in plain) > _QUICK_TRIAL_BYTES:
        sizes = [quick_size(data) for _, data in plain]
        limit = _MAX_RATIO_TO_SMALLEST * min(sizes)
        if predicted:
            limit = min(limit, _MAX_QUICK_SIZE_RATIO * len(predicted[0]))
        plain = [each for each, size in zip(plain, sizes, strict=True) if size <= limit]
    # at equal size, that of the least entropy
    return min([*(bytes([coding]) + pack_blob(data) for coding, data in plain), *predicted], key=len)


def _pack_keep_predicted(keeps: UInt16Array, frames: Sequence[int]) -> bytes:
    totals = keeps.reshape(len(keeps), -1).sum(1, dtype=np.int64)
    writer = Writer(_keep_lanes(totals, keeps[0].size))
    write_keep_maps(keeps, totals, np.array(frames, np.int64), writer)
    data = writer.bytes()
    return b"".join(
        [bytes([_PREDICTED_CODING]), *map(pack_uvarint, totals.tolist()), pack_uvarint(2 * len(data)), data]
    )


def _unpack_keep_predicted(cursor: Cursor, shape: tuple[int, int, int], frames: Sequence[int]) -> UInt16Array:
    totals = _read_totals(cursor, shape)
    data = cursor.blob(_MAX_PREDICTED_BYTES)
    reader = Reader(data, _keep_lanes(totals, shape[1] * shape[2]))
    blank = np.zeros(shape, np.uint16)
    keeps = code_keep_maps(blank, totals, np.array(frames, np.int64), reader)
    reader.finish()
    return keeps.astype(np.uint16)


def _keep_lanes(totals: npt.NDArray[np.int64], cells: int) -> int:
    """Lanes for the keep maps of blocks with so many tokens and cells; empty blocks are not coded."""
    return lanes_for(int((totals > 0).sum()) * cells, _CELLS_PER_LANE)


def _plain_codings(keeps: UInt16Array, tokens_per_cell: int) -> list[tuple[int, bytes]]:
    """Those of codings 0 to 15 that are worth compressing, and the bytes to compress; least entropy first."""
    values = keeps.astype(_keep_type(tokens_per_cell))
    candidates = []
    for axes in range(1 << _AXES):
        residuals = values.copy()
        for axis in range(_AXES):
            if axes >> axis & 1:
                _difference(residuals, axis)
        flat = residuals.ravel()
        candidates.append((axes, to_byte_planes(flat)))
        nibbles = _pack_nibbles(flat)
        if nibbles is not None:
            candidates.append((axes | _PACKED_BIT, nibbles))
    candidates.sort(key=lambda candidate: _entropy(candidate[1]))
    return candidates[:_CODINGS_TRIED]


def unpack_keep(
    cursor: Cursor, shape: tuple[int, int, int], frames: Sequence[int], model: ModelRef
) -> UInt16Array:
    """Decode keep maps (blocks, h, w); frames: how many real ones each block has. Raises EtkError."""
    coding = cursor.byte()
    if coding == _PREDICTED_CODING:
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
    if cursor.peek() != _PREDICTED_CODING:
        keeps = unpack_keep(cursor, shape, frames, model)
        totals = keeps.reshape(shape[0], -1).sum(1, dtype=np.int64)
    else:
        cursor.byte()
        totals = _read_totals(cursor, shape)
        cursor.skip_blob()
    check_token_count(int(totals.sum()), model)
    return [int(total) for total in totals]


def _read_totals(cursor: Cursor, shape: tuple[int, int, int]) -> npt.NDArray[np.int64]:
    """The tokens of each block that stand before a predicted keep map."""
    if math.prod(shape) > MAX_PREDICTED_CELLS:
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
    if coding & _PACKED_BIT:
        packed = np.frombuffer(cursor.blob_of((cells + 1) // 2), np.uint8)
        zigzag = np.stack([packed & 15, packed >> 4], axis=-1).ravel()[:cells].astype(kind)
        flat = (zigzag >> 1) ^ -(zigzag & 1)
    elif kind is np.uint8:
        flat = np.frombuffer(cursor.blob_of(cells), np.uint8)
    else:
        flat = from_byte_planes(cursor.blob_of(2 * cells))
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


def write_keep_maps(keeps: UInt16Array, totals: Symbols, frames: Symbols, writer: Writer) -> None:
    """Write what `code_keep_maps` would, all steps at once, since everything is known."""
    known = tables()
    grid = Grid(keeps.shape)
    kept = keeps.ravel().astype(np.int64)
    field = grid.padded(_OUTSIDE_FEATURE, LOG_FEATURE[kept].reshape(keeps.shape))
    step, cells, blocks, at = grid.visits()
    kept = kept[cells]
    # before each step, of each block: the tokens and the cells that are left
    tokens_left = totals - _sums_before(step, blocks, len(keeps), kept)
    cells_left = keeps[0].size - _sums_before(step, blocks, len(keeps), np.ones_like(kept))
    left = tokens_left[step, blocks]
    coded = left > 0
    step, blocks, at, kept, left = (each[coded] for each in (step, blocks, at, kept, left))
    share = LOG_FEATURE[np.minimum(8192, 32 * left // cells_left[step, blocks])]

    def frequencies(span: slice) -> Symbols:
        near = np.empty((len(at[span]), len(NEIGHBOURS) + 1))
        near[:, :-1] = field[at[span, None] + grid.offsets]
        near[:, -1] = share[span]
        return known.keep(near, blocks[span], frames[blocks[span]])

    bins = bin_of(kept)
    wide = np.flatnonzero(BIN_SIZES[bins] > 1)
    uniform = FREQUENCY_SUM // BIN_SIZES[bins[wide]]
    inside = uniform * (kept[wide] - BIN_EDGES[bins[wide]])
    writer.put(
        in_order(
            [
                (2 * step, *predicted(len(at), frequencies, bins)),
                (2 * step[wide] + 1, uniform, inside),
            ]
        )
    )


def _sums_before(step: Symbols, blocks: Symbols, count: int, values: Symbols) -> Symbols:
    """Sums of cells' values before each step, for each block, (steps, count)."""
    steps = int(step[-1]) + 1
    sums = np.bincount(step * count + blocks, values, steps * count).astype(np.int64).reshape(steps, count)
    before: Symbols = sums.cumsum(0) - sums
    return before


def code_keep_maps(
    keeps: UInt16Array, totals: Symbols, frames: Symbols, coder: Coder, known: Networks | None = None
) -> Symbols:
    """Keep maps (blocks, h, w) of blocks with `totals` tokens and `frames` real frames, coded or decoded.

    When decoding, pass zeros for `keeps`: the coder ignores them. Returns keep maps as int64. Raises Corrupt where they
    do not add up.
    """
    known = known or tables()
    grid = Grid(keeps.shape)
    field = grid.padded(_OUTSIDE_FEATURE, 0)
    result = np.zeros(keeps.size, np.int64)
    flat_keeps = keeps.ravel().astype(np.int64)
    tokens_left = totals.copy()
    cells_left = np.full(len(keeps), keeps[0].size)
    for cells, blocks, positions in grid.steps():
        has_tokens_left = tokens_left[blocks] > 0
        if has_tokens_left.any():
            coded_cells, block_of, where = cells, blocks, positions
            if not has_tokens_left.all():
                coded_cells, block_of, where = (x[has_tokens_left] for x in (cells, blocks, positions))
            near = np.empty((len(coded_cells), len(NEIGHBOURS) + 1), np.int64)
            near[:, :-1] = field[where[:, None] + grid.offsets]
            near[:, -1] = LOG_FEATURE[np.minimum(8192, 32 * tokens_left[block_of] // cells_left[block_of])]
            bin_ = coder.code(known.keep(near, block_of, frames[block_of]), bin_of(flat_keeps[coded_cells]))
            kept, sizes = BIN_EDGES[bin_], BIN_SIZES[bin_]
            wide = np.flatnonzero(sizes > 1)
            if len(wide):
                kept[wide] += coder.code_uniform(sizes[wide], flat_keeps[coded_cells[wide]] - kept[wide])
            result[coded_cells] = kept
            field[where] = LOG_FEATURE[kept]
            np.subtract.at(tokens_left, block_of, kept)
            if tokens_left.min() < 0:
                raise Corrupt("a block keeps more tokens than it says")
        cells_left -= np.bincount(blocks, minlength=len(cells_left))
    if tokens_left.any():
        raise Corrupt("a block keeps fewer tokens than it says")
    return result.reshape(keeps.shape)


def _entropy(data: bytes) -> float:
    """Estimate the bits that these bytes need, each on its own."""
    counts = np.bincount(np.frombuffer(data, np.uint8))
    counts = counts[counts > 0]
    return float((counts * np.log2(len(data) / counts)).sum())

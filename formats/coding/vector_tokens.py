"""Token coding of float16 vectors (SPEC.md, 6, kind 1). Bits are kept as they are."""

from collections.abc import Sequence

import numpy as np

from formats.coding.tokens import segment_slots
from formats.errors import InvalidRecord, UnsupportedVersion
from formats.records import TokenArray, UInt16Array
from formats.wire import Cursor, pack_blob

CODING = 16
_EXPONENT_BITS = 0x7C00  # all ones: infinite or NaN


def encode_vectors(blocks: Sequence[TokenArray], keeps: UInt16Array, size: int) -> bytes:
    """Encode the tokens of a segment, for each block (keep.sum(), size) float16. keeps: (blocks, h, w)."""
    ordered = np.empty((sum(map(len, blocks)), size), np.uint16)
    for tokens, slots in zip(blocks, segment_slots(keeps), strict=True):
        ordered[slots] = tokens.view(np.uint16)
    numbers = ordered.T  # equal places of the vectors together: they are alike
    low, high = (numbers & 255).astype(np.uint8), (numbers >> 8).astype(np.uint8)
    return bytes([CODING]) + pack_blob(low.tobytes()) + pack_blob(high.tobytes())


def decode_vectors(cursor: Cursor, keeps: UInt16Array, size: int) -> list[TokenArray]:
    """Decode the tokens of a segment, for each block (keep.sum(), size) float16. Raises EtkError."""
    coding = cursor.byte()
    if coding != CODING:
        raise UnsupportedVersion(f"token coding {coding} is unknown for vectors: a newer program is needed")
    total = int(keeps.sum(dtype=np.int64))
    numbers = np.frombuffer(cursor.blob_of(total * size), np.uint8).astype(np.uint16)
    numbers |= np.frombuffer(cursor.blob_of(total * size), np.uint8).astype(np.uint16) << 8
    if ((numbers & _EXPONENT_BITS) == _EXPONENT_BITS).any():
        raise InvalidRecord("a number of a vector is not finite")
    ordered = numbers.reshape(size, total).T
    return [np.ascontiguousarray(ordered[slots]).view(np.float16) for slots in segment_slots(keeps)]

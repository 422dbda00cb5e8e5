"""Error coding 2: patterns of float16 errors as Rice codes of differences (SPEC.md, 5.1)."""

from itertools import accumulate

import numpy as np

from formats.errors import Corrupt
from formats.records import UInt16Array
from formats.wire import Cursor, pack_uvarint

_DROPPED_BITS = 2  # low bits of patterns that a writer leaves out: errors stay within 0.2 %
_TO_FRAME_BEFORE, _TO_BASE = 0, 1  # what differences are to: the frame before, or one number for all
_MAX_RICE_PARAMETER = 15
_PATTERN_BITS = 16
_LARGEST_FINITE_PATTERN = 0x7BFF  # pattern of the largest finite float16


def pack(patterns: UInt16Array) -> bytes:
    """Encode patterns (F,) of finite errors, rounded to multiples of 4."""
    half = 1 << _DROPPED_BITS >> 1
    values = (np.minimum(patterns.astype(np.int64) + half, _LARGEST_FINITE_PATTERN) >> _DROPPED_BITS).tolist()
    middle = sorted(values)[len(values) // 2]
    before = [b - a for a, b in zip([values[0], *values], values, strict=False)]
    candidates = [
        (_TO_FRAME_BEFORE, values[0], _zigzag(before)),
        (_TO_BASE, middle, _zigzag([value - middle for value in values])),
    ]
    sizes = [
        (sum(code >> parameter for code in codes) + (parameter + 1) * len(codes), number, parameter)
        for number, (_, _, codes) in enumerate(candidates)
        for parameter in range(_MAX_RICE_PARAMETER + 1)
    ]
    _, number, parameter = min(sizes)
    reference, base, codes = candidates[number]
    bits = _rice_codes(codes, parameter)
    bits += "0" * (-len(bits) % 8)
    body = int("1" + bits, 2).to_bytes(len(bits) // 8 + 1, "big")[1:]
    return bytes([_DROPPED_BITS, reference << 4 | parameter]) + pack_uvarint(base) + body


def unpack(cursor: Cursor, count: int) -> UInt16Array:
    """Undo pack: `count` patterns, from all that is left. Raises Corrupt."""
    dropped, how = cursor.byte(), cursor.byte()
    reference, parameter = how >> 4, how & _MAX_RICE_PARAMETER
    if dropped >= _PATTERN_BITS or reference > _TO_BASE:
        raise Corrupt("errors in a coding that is unknown")
    base = cursor.uvarint()
    data = cursor.rest()
    bits = bin(int.from_bytes(b"\1" + data, "big"))[3:]
    codes, position = [], 0
    for _ in range(count):
        one = bits.find("1", position)
        end = one + 1 + parameter
        if one < 0 or end > len(bits):
            raise Corrupt("errors end early")
        codes.append((one - position) << parameter | int(bits[one:end], 2) & (1 << parameter) - 1)
        position = end
    if len(bits) - position >= 8 or "1" in bits[position:]:
        raise Corrupt("errors do not end as they must")
    differences = [code >> 1 if code % 2 == 0 else -(code + 1 >> 1) for code in codes]
    values = [base + d for d in differences]
    if reference == _TO_FRAME_BEFORE:
        values = list(accumulate(differences, initial=base))[1:]
    if min(values) < 0 or max(values) << dropped > _LARGEST_FINITE_PATTERN:
        raise Corrupt("an error is out of range")
    return np.array(values, np.uint16) << np.uint16(dropped)


def _zigzag(differences: list[int]) -> list[int]:
    return [2 * difference if difference >= 0 else -2 * difference - 1 for difference in differences]


def _rice_codes(codes: list[int], parameter: int) -> str:
    """Rice codes: the high part as zeros and a one, then `parameter` low bits."""
    parts = []
    for code in codes:
        low = code & (1 << parameter) - 1
        parts.append("0" * (code >> parameter) + "1" + (f"{low:0{parameter}b}" if parameter else ""))
    return "".join(parts)

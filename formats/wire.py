"""The small parts that everything else is made of: unit heads, varints, compressed blobs, integer columns."""

import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import zstandard

from formats.errors import Corrupt, LimitExceeded

MAGIC = b"\x89ETK\r\n\x1a\n"
VERSION = 1

HEADER, SEGMENT, AUX, INDEX, TRAILER = b"H", b"S", b"A", b"I", b"T"
MIB = 1 << 20
MAX_PAYLOAD = {HEADER: MIB, SEGMENT: 80 * MIB, AUX: 16 * MIB, INDEX: 32 * MIB, TRAILER: 4}
MAX_UNKNOWN_PAYLOAD = 128 * MIB
_NAMES = {HEADER: "HEADER", SEGMENT: "SEGMENT", AUX: "AUX", INDEX: "INDEX", TRAILER: "TRAILER"}

# a known type, then a length below 128 MiB, with room for the rest of a head
_MAYBE_HEAD = re.compile(rb"[HSAIT](?=...[\x00-\x07].{6})", re.DOTALL)
_HEAD_FACTS = struct.Struct("<cII")  # type, payload length, payload CRC-32
HEAD_SIZE = _HEAD_FACTS.size + 2
TRAILER_SIZE = HEAD_SIZE + 4

ZSTD_LEVEL = 19
_ZSTD_WINDOW_LOG = 23  # 8 MiB: what a reader must be ready to hold


class Head(NamedTuple):
    """The head of a unit. length and crc are the payload's."""

    type: bytes
    length: int
    crc: int

    @property
    def size(self) -> int:
        """Bytes of the whole unit."""
        return HEAD_SIZE + self.length

    @property
    def name(self) -> str:
        """What messages call the unit."""
        return f"{_NAMES.get(self.type, 'unknown')} unit"


def pack_unit(unit_type: bytes, payload: bytes) -> bytes:
    """Put a head before a payload."""
    if len(payload) > MAX_PAYLOAD[unit_type]:
        raise LimitExceeded(
            f"{_NAMES[unit_type]} unit of {len(payload)} bytes, the limit is {MAX_PAYLOAD[unit_type]}"
        )
    facts = _HEAD_FACTS.pack(unit_type, len(payload), zlib.crc32(payload))
    return facts + _head_check(facts) + payload


def parse_head(data: bytes) -> Head:
    """Read HEAD_SIZE bytes. Raises Corrupt if the check fails, LimitExceeded if they declare too much."""
    facts = data[: _HEAD_FACTS.size]
    if data[_HEAD_FACTS.size : HEAD_SIZE] != _head_check(facts):
        raise Corrupt("the head of a unit is damaged")
    head = Head(*_HEAD_FACTS.unpack(facts))
    limit = MAX_PAYLOAD.get(head.type, MAX_UNKNOWN_PAYLOAD)
    if head.length > limit:
        raise LimitExceeded(f"{head.name} declares {head.length} bytes, the limit is {limit}")
    return head


def find_heads(data: bytes) -> Iterator[tuple[int, Head]]:
    """Find all positions where a sound head of a known type stands."""
    for match in _MAYBE_HEAD.finditer(data):
        start = match.start()
        facts_end = start + _HEAD_FACTS.size
        if data[facts_end : start + HEAD_SIZE] == _head_check(data[start:facts_end]):
            with suppress(LimitExceeded):
                yield start, parse_head(data[start : start + HEAD_SIZE])


def check_payload(head: Head, payload: bytes) -> None:
    """Raise Corrupt unless the payload has the CRC that its head declares."""
    if zlib.crc32(payload) != head.crc:
        raise Corrupt(f"{head.name} is damaged: its checksum differs")


def _head_check(facts: bytes) -> bytes:
    return (zlib.crc32(facts) & 0xFFFF).to_bytes(2, "little")


def pack_uvarint(value: int) -> bytes:
    """Encode a number from 0 to 2^64 - 1, 7 bits a byte."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def pack_svarint(value: int) -> bytes:
    """Encode a number from -2^63 to 2^63 - 1, small magnitudes in few bytes."""
    return pack_uvarint(value << 1 if value >= 0 else -value * 2 - 1)


def pack_column(values: npt.NDArray[np.int64]) -> bytes:
    """Encode integers with the smallest width that holds them all; nothing but the width if all are zero."""
    if not values.any():
        return b"\0"
    low, high = int(values.min()), int(values.max())
    width = next(w for w in (1, 2, 4, 8) if -(1 << 8 * w - 1) <= low and high < 1 << 8 * w - 1)
    return bytes([width]) + values.astype(f"<i{width}").tobytes()


def pack_blob(data: bytes) -> bytes:
    """Encode bytes with their length, by zstd where that is smaller."""
    # The parameters follow the size: with those of a large source, zstd would clear 80 MB each time.
    parameters = zstandard.ZstdCompressionParameters.from_level(
        ZSTD_LEVEL,
        source_size=max(len(data), 1),
        format=zstandard.FORMAT_ZSTD1_MAGICLESS,
        write_content_size=False,
        write_checksum=False,
        write_dict_id=False,
    )
    packed = zstandard.ZstdCompressor(compression_params=parameters).compress(data)
    if len(packed) < len(data):
        return pack_uvarint(2 * len(packed) + 1) + packed
    return pack_uvarint(2 * len(data)) + data


def quick_size(data: bytes) -> int:
    """About how many bytes `pack_blob` makes of these, found out fast."""
    return len(zstandard.ZstdCompressor(level=1).compress(data))


class Cursor:
    """Reads the small parts in turn. Raises Corrupt where bytes are missing, LimitExceeded on bombs."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self._position = 0

    def take(self, size: int) -> memoryview:
        """Return the next bytes, not copied."""
        part = self._data[self._position : self._position + size]
        if len(part) < size:
            raise Corrupt(f"payload ends {size - len(part)} bytes early")
        self._position += size
        return part

    def rest(self) -> memoryview:
        """Return all bytes that are left, not copied."""
        return self.take(len(self._data) - self._position)

    def peek(self) -> int:
        """Return the next byte and stay before it."""
        byte = self.byte()
        self._position -= 1
        return byte

    def byte(self) -> int:
        """Read one byte."""
        return self.take(1)[0]

    def uvarint(self) -> int:
        """Read a number from 0 to 2^64 - 1."""
        value = 0
        for shift in range(0, 70, 7):
            byte = self.byte()
            value |= (byte & 127) << shift
            if byte < 128:
                if value >= 1 << 64:
                    break
                return value
        raise Corrupt("number does not fit 64 bits")

    def svarint(self) -> int:
        """Read a number from -2^63 to 2^63 - 1."""
        value = self.uvarint()
        return (value >> 1) ^ -(value & 1)

    def column(self, count: int) -> npt.NDArray[np.int64]:
        """Read so many integers, shape (count,)."""
        width = self.byte()
        if width == 0:
            return np.zeros(count, np.int64)
        if width not in (1, 2, 4, 8):
            raise Corrupt(f"column of width {width}")
        return np.frombuffer(self.take(count * width), f"<i{width}").astype(np.int64)

    def blob(self, limit: int) -> bytes:
        """Read bytes that unpack to at most this size."""
        size, compressed = divmod(self.uvarint(), 2)
        data = self.take(size)
        if compressed:
            return _unpack_zstd(data, limit)
        if size > limit:
            raise LimitExceeded(f"{size} bytes where at most {limit} may be")
        return bytes(data)

    def blob_of(self, size: int) -> bytes:
        """Read bytes that unpack to exactly this size."""
        data = self.blob(size)
        if len(data) != size:
            raise Corrupt(f"{len(data)} bytes where {size} must be")
        return data

    def skip_blob(self) -> None:
        """Pass over bytes without unpacking them."""
        self.take(self.uvarint() // 2)

    def finish(self) -> None:
        """Raise Corrupt if bytes are left."""
        if self._position != len(self._data):
            raise Corrupt(f"{len(self._data) - self._position} bytes left over")


def _unpack_zstd(data: memoryview, limit: int) -> bytes:
    # Not ZstdDecompressor.decompress: it believes the size that the frame itself declares.
    decompressor = zstandard.ZstdDecompressor(
        format=zstandard.FORMAT_ZSTD1_MAGICLESS, max_window_size=1 << _ZSTD_WINDOW_LOG
    )
    parts: list[bytes] = []
    room = limit + 1
    try:
        with decompressor.stream_reader(data) as stream:
            while room > 0 and (part := stream.read(min(room, MIB))):
                parts.append(part)
                room -= len(part)
    except zstandard.ZstdError as error:
        raise Corrupt(f"zstd: {error}") from error
    if room == 0:
        raise LimitExceeded(f"unpacks to more than {limit} bytes")
    return b"".join(parts)


def to_byte_planes(values: npt.NDArray[Any]) -> bytes:
    """8-bit values as they are; 16-bit ones as all low bytes, then all high bytes."""
    planes = values.astype(values.dtype.newbyteorder("<")).view(np.uint8)
    return planes.reshape(len(values), -1).T.tobytes()


def from_byte_planes(data: bytes | memoryview) -> npt.NDArray[np.uint16]:
    """Undo to_byte_planes for 16-bit values."""
    low, high = np.frombuffer(data, np.uint8).reshape(2, -1).astype(np.uint16)
    return np.asarray(low | high << 8, np.uint16)

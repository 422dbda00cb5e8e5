"""Files made to hurt: each attack by name, and what becomes of it."""

import io
import math
import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import msgpack
import numpy as np
import pytest
import zstandard
from etk_samples import header_file, raw_header
from etk_samples import read as samples_read
from hypothesis import given, settings
from hypothesis import strategies as st

import formats
from formats import (
    Corrupt,
    EtkError,
    EtkReader,
    InvalidRecord,
    LimitExceeded,
    NotAnEtkFile,
    Segment,
    UnsupportedVersion,
)
from formats.index import pack_index
from formats.wire import (
    AUX,
    HEADER,
    INDEX,
    MAGIC,
    SEGMENT,
    TRAILER,
    VERSION,
    pack_blob,
    pack_column,
    pack_uvarint,
)

HEAD = raw_header()  # grid 2 x 2, 6 tokens per cell, 4 frames per block
FACTS = bytes([4]) + b"\0" + b"\1" + pack_column(np.zeros(2, np.int64)) + b"\1" + b"\0" + b"\0"


def read(data: bytes, **options: bool) -> tuple[EtkReader, list[Segment]]:
    """`etk_samples.read`, which stays far below the memory that an attack asks for.

    Only the reader is traced: what hypothesis takes for its own tables is none of its business.
    """
    tracemalloc.start()
    try:
        return samples_read(data, **options)
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 100e6


def unit(kind: bytes, payload: bytes) -> bytes:
    """A unit with sound checks, whatever its payload."""
    facts = struct.pack("<cII", kind, len(payload), zlib.crc32(payload))
    return facts + (zlib.crc32(facts) & 0xFFFF).to_bytes(2, "little") + payload


def bomb(size: int, byte: bytes = b"\0") -> bytes:
    """A blob of a few bytes that unpacks to so many equal bytes."""
    parameters = zstandard.ZstdCompressionParameters(format=zstandard.FORMAT_ZSTD1_MAGICLESS)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    packed = b"".join(stream.compress(byte * (1 << 20)) for _ in range(size >> 20)) + stream.flush()
    return pack_uvarint(2 * len(packed) + 1) + packed


def segment(
    facts: bytes = FACTS,
    keep: bytes = bytes(4),
    coding: int = 0,
    tokens: bytes | None = None,
    blocks: int = 1,
) -> bytes:
    """A SEGMENT unit built by hand."""
    if tokens is None:
        tokens = b"\0" + pack_blob(bytes(2 * sum(keep)))
    start = pack_uvarint(0) + pack_uvarint(blocks) + pack_blob(facts)
    return unit(SEGMENT, start + bytes([coding]) + pack_blob(keep) + tokens)


def damage(unit_bytes: bytes) -> str:
    """Read a file with this unit, which must be dropped; give the reason."""
    reader, found = read(HEAD + unit_bytes)
    assert found == []
    with pytest.raises(EtkError):
        read(HEAD + unit_bytes, tolerate=False)
    return reader.damage[0].reason


def test_the_hand_made_segment_is_sound() -> None:
    reader, found = read(HEAD + segment(keep=bytes([1, 0, 2, 6])))
    assert found[0].blocks[0].token_count == 9
    assert [damage.reason for damage in reader.damage] == ["the file ends without a trailer"]


@pytest.mark.parametrize("data", [b"RIFF1234", b"\x89PNG\r\n\x1a\n....", b"x", b"\0" * 100])
def test_other_files(data: bytes) -> None:
    with pytest.raises(NotAnEtkFile):
        read(data)


@pytest.mark.parametrize("version", [0, 2, 255])
def test_wrong_version(version: int) -> None:
    with pytest.raises(UnsupportedVersion, match=str(version)):
        read(MAGIC + bytes([version]) + HEAD[9:])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"q": math.nan}, "target"),
        ({"q": math.inf}, "target"),
        ({"q": -0.1}, "target"),
        ({"q": "small"}, "target"),
        ({"n": 7}, "target tokens"),
        ({"s": [65536, 1]}, "width"),
        ({"s": [0, 1]}, "width"),
        ({"s": [1.5, 1]}, "width"),
        ({"s": [2**63, 1]}, "width"),
        ({"s": [1]}, "wrong type"),
        ({"s": 5}, "wrong type"),
        ({"g": [1, 1]}, "cover"),
        ({"g": [-1, -1]}, "grid"),
        ({"t": [0, 1]}, "time base"),
        ({"t": [1, 0]}, "time base"),
        ({"m": []}, "wrong type"),
        ({"m": "abcdefgh"}, "sha256"),
        ({"m": ["", bytes(32), [8], 64, 6, 4, 16, 16]}, "name"),
        ({"m": ["x", bytes(31), [8], 64, 6, 4, 16, 16]}, "sha256"),
        ({"m": ["x", bytes(32), [8], 64, 6, 0, 16, 16]}, "frames per block"),
        ({"m": ["x", bytes(32), [8], 64, 10**6, 4, 16, 16]}, "tokens per cell"),
        ({"m": ["x", bytes(32), [8], 65537, 6, 4, 16, 16]}, "vocabulary"),
        ({"m": ["x", bytes(32), [65, 65], 64, 6, 4, 16, 16]}, "vocabulary"),
        ({"m": ["x", bytes(32), [0, 8], 64, 6, 4, 16, 16]}, "level"),
        ({"a": 2}, "allocation 2"),
        ({"a": -1}, "allocation -1"),
        ({"a": True}, "allocation True"),
        ({"u": 2}, "promise 2"),
        ({"u": -1}, "promise -1"),
        ({"u": 2**64 - 1}, "promise 18446744073709551615"),
        ({"u": True}, "promise True"),
        ({"u": 1.0}, "promise 1.0"),
        ({"u": "video"}, "promise 'video'"),
        ({"u": [1]}, "promise"),
        ({"u": None}, "promise None"),
        ({"c": [1]}, "wrong type"),
        ({"c": {"p": []}}, "colour"),
        ({"d": [1]}, "metadata"),
        ({"d": {b"x": "y"}}, "metadata"),
        ({"e": {"x": math.nan}}, "finite"),
        ({"e": {"x": None}}, "options"),
        ({"f": -1}, "frame count"),
        ({"r": 360}, "rotation"),
        ({"x": 1}, "aux"),
        ({"w": "x" * 65536}, "longer"),
        ({"z": 1.5}, "clock offset"),
        ({"h": 5}, "wrong type"),
        ({"h": [[0, 1]]}, "wrong type"),
        ({"h": [[1, 0, ""]]}, "chapter"),
        ({"h": [[0, 1, b"title"]]}, "chapter"),
        ({"i": 5}, "wrong type"),
        ({"i": [[0]]}, "wrong type"),
        ({"i": [[0, "1521"]]}, "wrong type"),
        ({"i": [[0, 1, 0, 0]]}, "wrong type"),
        ({"i": [["gain", 1]]}, "kind of control token"),
        ({"i": [[256, 1]]}, "kind of control token"),
        ({"i": [[0, 0]]}, "number of control tokens"),
        ({"i": [[0, 1 << 63]]}, "number of control tokens"),
        ({"i": [[0, 1537]]}, "vocabulary"),
        ({"i": [[0, 1, True]]}, "codes after"),
        ({"i": [[0, 1, 7]]}, "codes after"),
        ({"i": 17 * [[0, 1]]}, "16 ranges"),
    ],
)
def test_absurd_header(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidRecord, match=message):
        read(raw_header(**changes))


def test_grid_of_too_many_cells() -> None:
    with pytest.raises(LimitExceeded, match="cells"):
        read(raw_header(g=[65535, 65535]))


def test_unknown_header_keys_are_ignored() -> None:
    model = ["tiny", bytes(32), [8, 8, 8, 5, 5, 5], 65536, 6, 4, 16, 16, "later"]
    assert read(raw_header(zzz=[1, {"a": None}], m=model))[0].header.model.name == "tiny"


def test_token_kind_of_the_future() -> None:
    with pytest.raises(UnsupportedVersion, match="token kind 2"):
        read(raw_header(k=2))


def test_token_coding_of_the_future() -> None:
    with pytest.raises(UnsupportedVersion, match="token coding 9"):
        read(HEAD + segment(tokens=b"\x09"))


def test_unknown_units_are_skipped() -> None:
    data = HEAD + unit(b"Z", b"from the future") + segment()
    assert len(read(data)[1]) == 1


def test_duplicate_keys() -> None:
    pair = msgpack.packb("s") + msgpack.packb([30, 17])
    with pytest.raises(Corrupt, match="twice"):
        read(header_file(b"\x82" + pair + pair))


@pytest.mark.parametrize(
    "data",
    [
        b"\x91" * 100_000,  # depth
        b"\x81\xa1x" * 100_000,
        b"\xdf\xff\xff\xff\xff",  # a map of 2^32 entries
        b"\xdd\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\x81\xa1x\xc7\x08\x01" + bytes(8),  # extension types
        b"\x81\xa1x\xd7\xff" + bytes(8),
        b"\x81\xa1\xff\x00",  # not UTF-8
        b"\x81\x01\x02",  # keys that are no strings
        b"\x90",
        b"\xc1",
        b"",
        b"\x80\x80",
        b"\x80",
    ],
)
def test_malformed_msgpack(data: bytes) -> None:
    with pytest.raises((Corrupt, InvalidRecord)):
        read(header_file(data))


def test_header_bomb() -> None:
    with pytest.raises(LimitExceeded, match="unpacks"):
        read(MAGIC + bytes([VERSION]) + unit(HEADER, bomb(300 << 20)))


def test_zstd_that_declares_its_size_wrongly() -> None:
    parameters = zstandard.ZstdCompressionParameters(format=zstandard.FORMAT_ZSTD1_MAGICLESS)
    packed = bytearray(zstandard.ZstdCompressor(compression_params=parameters).compress(bytes(1 << 20)))
    packed[1:5] = b"\xff\xff\xff\x7f"
    with pytest.raises(EtkError):
        read(MAGIC + bytes([VERSION]) + unit(HEADER, pack_uvarint(2 * len(packed) + 1) + bytes(packed)))


@pytest.mark.parametrize("kind", [SEGMENT, AUX, INDEX, TRAILER, b"Z"])
@pytest.mark.parametrize("length", [1000, 70 << 20, 2**32 - 1])
def test_huge_declared_length(kind: bytes, length: int) -> None:
    facts = struct.pack("<cII", kind, length, 0)
    head = facts + (zlib.crc32(facts) & 0xFFFF).to_bytes(2, "little")
    assert damage(head + b"short")


def test_huge_header_length() -> None:
    facts = struct.pack("<cII", HEADER, 2**32 - 1, 0)
    with pytest.raises(LimitExceeded, match="declares"):
        read(MAGIC + bytes([VERSION]) + facts + (zlib.crc32(facts) & 0xFFFF).to_bytes(2, "little"))


@pytest.mark.parametrize("blocks", [0, 1025, 2**63, 2**64 - 1])
def test_huge_block_count(blocks: int) -> None:
    assert "blocks" in damage(segment(blocks=blocks))


def test_endless_number() -> None:
    assert "64 bits" in damage(unit(SEGMENT, b"\xff" * 100))


def test_keep_map_bomb() -> None:
    payload = pack_uvarint(0) + pack_uvarint(1) + pack_blob(FACTS) + b"\0" + bomb(300 << 20)
    assert "unpacks" in damage(unit(SEGMENT, payload))


def test_facts_bomb() -> None:
    assert "unpacks" in damage(unit(SEGMENT, b"\0\1" + bomb(300 << 20)))


def test_token_bomb() -> None:
    assert "unpacks" in damage(segment(keep=bytes([1, 1, 1, 1]), tokens=b"\0" + bomb(300 << 20)))


def test_keep_over_tokens_per_cell() -> None:
    assert "sequence" in damage(segment(keep=bytes([0, 0, 0, 7])))


def test_keep_map_that_wraps_around() -> None:
    assert "sequence" in damage(segment(keep=bytes([0, 255, 0, 0]), coding=4))


@pytest.mark.parametrize("count", [0, 3, 5])
def test_token_count_mismatch(count: int) -> None:
    tokens = b"\0" + pack_uvarint(2 * 2 * count) + bytes(2 * count)
    assert " where " in damage(segment(keep=bytes([1, 1, 1, 1]), tokens=tokens))


@pytest.mark.parametrize("coding", [17, 32, 255])
def test_unknown_keep_coding(coding: int) -> None:
    with pytest.raises(UnsupportedVersion, match=f"keep coding {coding}"):
        read(HEAD + segment(coding=coding))


def test_bytes_left_over() -> None:
    assert "left over" in damage(segment(tokens=b"\0\0x"))


def test_token_outside_the_vocabulary() -> None:
    small = raw_header(m=["x", bytes(32), [8, 8], 64, 6, 4, 16, 16])
    reader, found = read(small + segment(keep=bytes([1, 0, 0, 0]), tokens=b"\0" + pack_blob(b"\x40\0")))
    assert found == []
    assert "vocabulary" in reader.damage[0].reason


@pytest.mark.parametrize(
    "facts",
    [
        b"",
        b"\0",  # a block without frames
        b"\5",  # too many frames
        bytes([4]) + b"\0" + b"\0" + FACTS[3:],  # step 0: times do not increase
        bytes([4]) + b"\0" + pack_uvarint(2**64 - 1) + FACTS[3:],
        bytes([4]) + pack_uvarint(2**64 - 1) + FACTS[2:],
        bytes([4]) + b"\0\1" + b"\x08" + struct.pack("<qq", 2**63 - 1, 2**63 - 1) + b"\1\0\0",
        bytes([4]) + b"\0\1" + b"\3" + bytes(100),  # column of width 3
        FACTS[:-3] + b"\2\0\0",  # duration coding
        FACTS[:-3] + b"\0\1\0\0",  # negative duration
        FACTS[:-1] + b"\2",  # error coding
        FACTS[:-1] + b"\1" + bytes(7),
        FACTS[:-1] + b"\1" + bytes(4) + b"\x7c\0\0\0",  # infinite error
        FACTS[:-1] + b"\1" + bytes(4) + b"\x80\0\0\0",  # negative error
        FACTS + b"x",
    ],
)
def test_absurd_facts(facts: bytes) -> None:
    assert damage(segment(facts=facts))


def with_index(payload: bytes, distance: int | None = None) -> bytes:
    """A file of one segment with this index."""
    index = unit(INDEX, payload)
    return (
        HEAD
        + segment()
        + index
        + unit(TRAILER, struct.pack("<I", len(index) if distance is None else distance))
    )


def index_payload(offset: int, length: int, count: int = 1, **changes: int) -> bytes:
    facts = {"first_pts": 0, "last_pts": 3, "frames": 4, "blocks": 1, "tokens": 0, "missed": 0} | changes
    infos = [formats.SegmentInfo(offset, length, mse=0.0, **facts)] * count
    return pack_index(infos, len(HEAD))


def test_the_hand_made_index_is_sound() -> None:
    reader, found = read(with_index(index_payload(len(HEAD), len(segment()))))
    assert reader.complete
    assert len(found) == 1
    assert reader.index is not None


@pytest.mark.parametrize(
    "payload",
    [
        index_payload(len(HEAD), 10_000),
        index_payload(len(HEAD) + 10_000, len(segment())),
        index_payload(len(HEAD) - 1, len(segment())),
        index_payload(0, 11),
        index_payload(len(HEAD), 0),
        index_payload(len(HEAD), -5),
        index_payload(len(HEAD), 2**62, 4),  # sums that wrap around
        index_payload(len(HEAD), len(segment()), 2),  # overlap
        index_payload(len(HEAD), len(segment()), frames=-1),
        index_payload(len(HEAD), len(segment()), last_pts=-1),
        pack_uvarint(2**18 + 1) + b"\0",
        pack_uvarint(2**64 - 1) + b"\0",
        pack_uvarint(2**18) + bomb(300 << 20),
        pack_uvarint(1) + pack_blob(b""),
        b"",
    ],
)
def test_lying_index_is_ignored(payload: bytes) -> None:
    reader, found = read(with_index(payload))
    assert reader.index is None
    assert reader.damage
    assert len(found) == 1


@pytest.mark.parametrize("distance", [0, 1, 15, 60, 2**32 - 1])
def test_trailer_pointing_elsewhere(distance: int) -> None:
    reader, found = read(with_index(index_payload(len(HEAD), len(segment())), distance))
    assert reader.index is None
    assert reader.damage
    assert len(found) == 1


def test_index_to_the_wrong_unit() -> None:
    """An index within the bounds that does not point to segments: found out when it is used."""
    aux = unit(AUX, b"x")
    index = unit(INDEX, index_payload(len(HEAD), len(aux)))
    data = HEAD + aux + segment() + index + unit(TRAILER, struct.pack("<I", len(index)))
    reader = EtkReader(io.BytesIO(data))
    assert list(reader.segments(0, 99)) == []
    assert "does not point" in reader.damage[0].reason
    assert len(list(reader.segments())) == 1


def test_millions_of_false_heads_end_soon() -> None:
    reader, found = read(HEAD + b"S\0\0\0\0" * 100_000 + segment())
    assert len(found) == 1
    assert len(reader.damage) == 2


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([SEGMENT, INDEX, TRAILER, AUX, HEADER]), st.binary(max_size=100))
def test_any_payload_with_sound_checks(kind: bytes, payload: bytes) -> None:
    reader, _ = read(HEAD + unit(kind, payload) + unit(TRAILER, struct.pack("<I", 11 + len(payload))))
    list(reader.blocks(0, 100))
    list(reader.aux())


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60), st.binary(max_size=60), st.integers(0, 16), st.integers(0, 4))
def test_any_segment_parts(facts: bytes, keep: bytes, coding: int, token_coding: int) -> None:
    tokens = bytes([token_coding]) + pack_blob(keep) * 3
    try:
        read(HEAD + segment(facts, keep, coding, tokens))
        read(HEAD + segment(FACTS, keep[:4], coding, tokens))
    except UnsupportedVersion:
        assert token_coding in (3, 4)


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from("msgtqnuafrpcvybozhdxwekli"),
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers(-(2**63), 2**64 - 1)
            | st.floats()
            | st.text()
            | st.binary(),
            lambda inner: (
                st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=2), inner, max_size=3)
            ),
            max_leaves=8,
        ),
    )
)
def test_any_header_values(changes: dict[str, object]) -> None:
    try:
        read(raw_header(**changes))
    except EtkError:
        return


def test_largest_segment_takes_less_than_500_mb() -> None:
    """The most that the limits allow, from a few bytes: 2^24 cells and 2^24 tokens."""
    code = """
import io, sys
sys.path.insert(0, "tests/formats")
import test_etk_attacks as attacks
from formats.wire import pack_uvarint
header = attacks.raw_header(s=[65535, 65535], g=[4096, 4096])
facts = attacks.pack_blob(attacks.FACTS)
keep = attacks.bomb(1 << 24, b"\\1")
payload = pack_uvarint(0) + pack_uvarint(1) + facts + b"\\0" + keep + b"\\2" + 3 * attacks.bomb(1 << 24)
_, found = attacks.samples_read(header + attacks.unit(attacks.SEGMENT, payload))
assert found[0].blocks[0].token_count == 1 << 24
from pathlib import Path
status = Path("/proc/self/status")
if status.exists():  # getrusage would count what the parent process had before exec
    print(next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM")))
else:
    import resource
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""
    root = Path(formats.__file__).parents[1]
    result = subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=root, capture_output=True, text=True
    )
    assert int(result.stdout) < 500_000  # kB

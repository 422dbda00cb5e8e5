"""Files that were cut or changed: what is whole comes back exactly, what is not is reported."""

import io
import tracemalloc

import pytest
from etk_samples import make_block, make_segments, read, same_blocks, write
from hypothesis import given, settings
from hypothesis import strategies as st

from formats import Block, Corrupt, EtkError, EtkReader, Truncated
from formats.wire import HEAD_SIZE

SMALL = make_segments(3, 1)
SMALL_FILE = write(SMALL, aux=b"sound")
BIG = make_segments(30, 3)
BIG_FILE = write(BIG, aux=b"sound" * 100)


class Pipe(io.BytesIO):
    def seekable(self) -> bool:
        return False

    def seek(self, offset: int, whence: int = 0, /) -> int:
        raise AssertionError("seek on a pipe")


def ends(data: bytes) -> list[int]:
    """Where each segment of an undamaged file ends."""
    return [segment.offset + segment.size_bytes for segment in read(data)[1]]


def check_cut(data: bytes, segments: list[list[Block]], cut: int, pipe: bool = False) -> None:
    stream = Pipe(data[:cut]) if pipe else io.BytesIO(data[:cut])
    try:
        reader = EtkReader(stream)
    except EtkError:
        assert cut < ends(data)[0]
        return
    with reader:
        found = list(reader.segments())
    assert len(found) == sum(end <= cut for end in ends(data))
    assert all(same_blocks(a, b.blocks) for a, b in zip(segments, found, strict=False))
    assert reader.damage
    assert not reader.complete
    with pytest.raises(EtkError):
        list(EtkReader(io.BytesIO(data[:cut]), tolerate=False).segments())


def test_cut_at_every_byte() -> None:
    for cut in range(len(SMALL_FILE)):
        check_cut(SMALL_FILE, SMALL, cut, pipe=cut % 2 == 0)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(BIG_FILE) - 1), st.booleans())
def test_cut_anywhere(cut: int, pipe: bool) -> None:
    check_cut(BIG_FILE, BIG, cut, pipe)


def test_cut_message() -> None:
    reader, _ = read(SMALL_FILE[:-1])
    assert [damage.reason for damage in reader.damage] == ["the file ends inside the TRAILER unit"]
    reader, _ = read(SMALL_FILE[: ends(SMALL_FILE)[-1]])
    assert [damage.reason for damage in reader.damage] == ["the file ends without a trailer"]
    with pytest.raises(Truncated):
        read(b"")


@pytest.mark.parametrize("flip", [0x01, 0x80, 0xFF])
def test_flip_every_byte(flip: int) -> None:
    segments = read(SMALL_FILE)[1]
    for position in range(len(SMALL_FILE)):
        data = bytearray(SMALL_FILE)
        data[position] ^= flip
        try:
            reader, found = read(bytes(data))
        except EtkError:
            assert position < segments[0].offset
            continue
        assert len(b"".join(reader.aux())) in (0, 5)
        assert reader.damage, position
        hit = [s.number for s in segments if s.offset <= position < s.offset + s.size_bytes]
        assert [s.number for s in found] == [s.number for s in segments if s.number not in hit], position
        assert all(same_blocks(SMALL[segment.number], segment.blocks) for segment in found)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_random_damage(data: st.DataObject) -> None:
    """Bytes changed, removed and put in: only EtkError, and what comes back is as it was written."""
    damaged = bytearray(BIG_FILE)
    for _ in range(data.draw(st.integers(1, 5))):
        position = data.draw(st.integers(0, len(damaged) - 1))
        size = data.draw(st.integers(0, 50))
        damaged[position : position + size] = data.draw(st.binary(max_size=50))
    if damaged == BIG_FILE:
        return
    try:
        reader, found = read(bytes(damaged))
        list(reader.aux())
        list(reader.segments(0, 50))
    except EtkError:
        return
    assert not reader.complete
    for segment in found:
        assert same_blocks(BIG[segment.number], segment.blocks)


def test_damaged_segment_is_named_once() -> None:
    segments = read(SMALL_FILE)[1]
    data = bytearray(SMALL_FILE)
    data[segments[1].offset + HEAD_SIZE] ^= 1
    reader = EtkReader(io.BytesIO(bytes(data)))
    for _ in range(2):
        assert [segment.number for segment in reader.segments()] == [0, 2]
    assert [damage.offset for damage in reader.damage] == [segments[1].offset]
    assert [segment.number for segment in reader.segments(0, 99)] == [0, 2]
    with pytest.raises(Corrupt):
        list(EtkReader(io.BytesIO(bytes(data)), tolerate=False).segments())


def test_damaged_index_costs_only_seeking() -> None:
    segments = read(SMALL_FILE)[1]
    data = bytearray(SMALL_FILE)
    data[segments[-1].offset + segments[-1].size_bytes + HEAD_SIZE] ^= 1
    reader, found = read(bytes(data))
    assert reader.index is None
    assert len(found) == 3
    assert not reader.complete


def test_bytes_after_the_end_are_reported() -> None:
    reader, found = read(SMALL_FILE + b"x")
    assert len(found) == 3
    assert "after the trailer" in reader.damage[0].reason


def test_memory_does_not_grow_with_length() -> None:
    def peak(count: int) -> int:
        stream = io.BytesIO(write([[make_block(n, 4 * n)] for n in range(count)]))
        tracemalloc.start()
        for _ in EtkReader(stream).segments():
            pass
        _, top = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return top

    # what remains is the index: a few hundred bytes per segment
    assert peak(200) < peak(10) + 190 * 1000

"""Attacks on keep coding 16, token coding 4 and error coding 2, by name."""

import math
import tracemalloc
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
import test_etk_attacks as attacks
from etk_samples import MODEL, raw_header
from etk_samples import read as samples_read
from hypothesis import given, settings
from hypothesis import strategies as st

from formats import Corrupt, EtkError, LimitExceeded, ModelRef, UnsupportedVersion
from formats.coding import keep_maps, networks
from formats.coding import range_coding as ranged
from formats.coding.keep_maps import _pack_keep_predicted
from formats.coding.rans import FREQUENCY_SUM, Reader, Writer, lanes_for
from formats.wire import pack_blob, pack_uvarint

HEAD = raw_header(m=["x", bytes(32), [8, 8, 8, 5, 5, 5], 65524, 6, 4, 16, 16])  # grid 2 x 2
SHIPPED = replace(MODEL, vocabulary=65524)
KEEPS = np.array([[[6, 0], [3, 5]]], np.uint16)


def coded_map(keeps: np.ndarray = KEEPS) -> bytes:
    """Numbers of tokens and blob of a keep map."""
    return _pack_keep_predicted(keeps, [4] * len(keeps))[1:]


def stream_of(keeps: np.ndarray = KEEPS) -> bytes:
    """What is in the blob."""
    totals = keeps.reshape(len(keeps), -1).sum(1, dtype=np.int64)
    writer = Writer(lanes_for(keeps[0].size * int((totals > 0).sum()), 4096))
    keep_maps.code_keep_maps(keeps, totals, np.full(len(keeps), 4), writer)
    return writer.bytes()


def map_of(totals: list[int], stream: bytes) -> bytes:
    return b"".join(map(pack_uvarint, totals)) + pack_uvarint(2 * len(stream)) + stream


def segment(
    keep: bytes | None = None, tokens: bytes | None = None, facts: bytes = attacks.FACTS, blocks: int = 1
) -> bytes:
    """A SEGMENT unit with a keep map of coding 16 and, if not told otherwise, tokens that are all 0."""
    keep = coded_map() if keep is None else keep
    tokens = b"\0" + pack_blob(bytes(2 * int(KEEPS.sum()))) if tokens is None else tokens
    start = pack_uvarint(0) + pack_uvarint(blocks) + pack_blob(facts)
    return attacks.unit(attacks.SEGMENT, start + b"\x10" + keep + tokens)


def refused(unit: bytes, kind: type[EtkError], message: str, head: bytes = HEAD) -> None:
    """The unit is dropped, for this reason; a strict reader says so."""
    reader, found = attacks.read(head + unit)
    assert found == []
    assert message in reader.damage[0].reason
    with pytest.raises(kind, match=message):
        attacks.read(head + unit, tolerate=False)


def test_the_hand_made_segment_is_sound() -> None:
    reader, (found,) = attacks.read(HEAD + segment())
    assert np.array_equal(found.blocks[0].keep, KEEPS[0])
    assert map_of([14], stream_of()) == coded_map()
    assert [damage.reason for damage in reader.damage] == ["the file ends without a trailer"]


# Keep coding 16


@pytest.mark.parametrize("total", [0, 1, 13, 15, 24, 1000, 1 << 24])
def test_another_number_of_tokens_than_kept(total: int) -> None:
    unit = segment(map_of([total], stream_of()))
    with pytest.raises(Corrupt):
        attacks.read(HEAD + unit, tolerate=False)


@pytest.mark.parametrize("numbers", [[1 << 24, 1], [1, 1], [0, 0], [13, 1]])
def test_numbers_that_stand_for_other_blocks(numbers: list[int]) -> None:
    facts = bytes([2, 2]) + attacks.FACTS[1:]
    with pytest.raises(EtkError):
        attacks.read(HEAD + segment(map_of(numbers, stream_of()), facts=facts, blocks=2), tolerate=False)


def test_sums_that_are_never_reached_or_passed() -> None:
    """Streams that are sound for other numbers of tokens, seen at the walk itself."""
    for keeps, message in ((KEEPS, "fewer"), (KEEPS + np.uint16(1), "more")):
        totals = np.array([15 if message == "fewer" else 17])
        with pytest.raises(Corrupt, match=message):
            keep_maps.code_keep_maps(keeps, totals, np.array([4]), Writer(1))


@pytest.mark.parametrize("total", [(1 << 24) + 1, 1 << 40, (1 << 64) - 1])
def test_more_tokens_than_a_segment_may_have(total: int) -> None:
    refused(segment(map_of([total], stream_of())), LimitExceeded, "block of")


def test_number_of_tokens_that_never_ends() -> None:
    refused(segment(b"\xff" * 20), Corrupt, "64 bits")


def test_keep_map_cut_anywhere() -> None:
    stream = stream_of()
    for size in range(len(stream)):
        with pytest.raises(Corrupt):
            attacks.read(HEAD + segment(map_of([14], stream[:size])), tolerate=False)
    refused(segment(map_of([14], stream + b"\0\0")), Corrupt, "do not end")
    refused(segment(map_of([14], stream + b"\0")), Corrupt, "impossible length")
    refused(segment(map_of([14], b"\0\0\0\0" + stream[4:])), Corrupt, "impossible state")
    whole = map_of([14], stream)
    for size in range(len(whole)):
        with pytest.raises(EtkError):
            attacks.read(HEAD + segment(whole[:size], tokens=b""), tolerate=False)


@given(st.integers(0, 2**32), st.integers(0, 7), st.booleans())
@settings(max_examples=60, deadline=None)
def test_keep_map_with_a_flipped_bit(place: int, bit: int, large: bool) -> None:
    """Another map, perhaps, but never one that breaks a rule, and no other failure."""
    keeps = np.random.default_rng(0).integers(0, 7, (1, 2, 2) if not large else (3, 9, 9)).astype(np.uint16)
    totals = keeps.reshape(len(keeps), -1).sum(1, dtype=np.int64)
    frames = np.full(len(keeps), 4)
    for lanes in (1, 64):
        writer = Writer(lanes)
        keep_maps.code_keep_maps(keeps, totals, frames, writer)
        data = bytearray(writer.bytes())
        data[place % len(data)] ^= 1 << bit
        with suppress(Corrupt):
            reader = Reader(bytes(data), lanes)
            found = keep_maps.code_keep_maps(np.zeros_like(keeps), totals, frames, reader)
            reader.finish()
            assert np.array_equal(found.reshape(len(keeps), -1).sum(1), totals)


def test_cells_that_keep_more_than_a_sequence_has() -> None:
    for keep in (7, 8, 8192):
        keeps = np.array([[[keep, 0], [1, 0]]], np.uint16)
        refused(segment(coded_map(keeps)), Corrupt, "sequence")


def test_keep_map_bomb() -> None:
    refused(segment(pack_uvarint(14) + attacks.bomb(300 << 20)), LimitExceeded, "unpacks")
    refused(segment(pack_uvarint(14) + pack_uvarint(20 << 20) + bytes(10 << 20)), LimitExceeded, "at most")


@pytest.mark.parametrize(("grid", "blocks"), [((1024, 1025), 1), ((4096, 4096), 1), ((1025, 1), 1024)])
def test_too_many_cells(grid: tuple[int, int], blocks: int) -> None:
    """Refused before any of them is looked at; as are their tokens in coding 4, where the keep map is plain."""
    head = raw_header(s=[grid[1] * 16, min(65535, grid[0] * 16)], g=list(grid))
    if grid[0] * 16 > 65535:
        head = raw_header(s=[16, 16], g=list(grid))
    facts = bytes([1] * blocks) + b"\0" + (b"\1\0\1\0\0" if blocks > 1 else b"\1\0\0")
    totals = [1] + [0] * (blocks - 1)
    unit = segment(map_of(totals, stream_of()), facts=facts, blocks=blocks)
    refused(unit, LimitExceeded, "predicted keep map", head)
    plain = pack_uvarint(0) + pack_uvarint(blocks) + pack_blob(facts) + b"\0"
    size = math.prod(grid) * blocks
    plain += pack_blob(bytes(size)) + b"\4" + FREQUENCY_SUM.to_bytes(4, "little")
    with pytest.raises(UnsupportedVersion, match="token coding 4"):
        samples_read(head + attacks.unit(attacks.SEGMENT, plain))


@given(st.lists(st.integers(0, 24), min_size=1, max_size=1), st.binary(max_size=80))
@settings(max_examples=100, deadline=None)
def test_any_keep_map(totals: list[int], stream: bytes) -> None:
    reader, found = attacks.read(HEAD + segment(map_of(totals, stream), tokens=b"\0\0"))
    assert found == [] or totals == [0]
    assert reader.damage


# Token coding 4


def coded(ordered: list[int], keeps: np.ndarray, model: ModelRef = SHIPPED) -> bytes:
    data = ranged.encode_predicted(np.array(ordered, np.uint16), keeps, np.full(len(keeps), 4), model)
    assert data is not None
    return b"\4" + data


def plain_segment(keep: list[int], tokens: bytes) -> bytes:
    return attacks.segment(keep=bytes(keep), tokens=tokens)


ONE_EACH = np.ones((1, 2, 2), np.uint16)


def test_the_hand_made_tokens_are_sound() -> None:
    tokens = [64000, 65523, 5, 64000 + 39 * 39 - 1]
    _, (found,) = attacks.read(HEAD + plain_segment([1, 1, 1, 1], coded(tokens, ONE_EACH)))
    assert found.blocks[0].tokens.tolist() == tokens


def test_values_outside_the_vocabulary() -> None:
    """3 to 7, of 8 values that fit the bits, where the header has fewer; and any, where there can be none."""
    for vocabulary, larger, value in ((65524, 65525, 65524), (65526, 65529, 65528), (65521, 65522, 65521)):
        head = raw_header(m=["x", bytes(32), [8, 8, 8, 5, 5, 5], vocabulary, 6, 4, 16, 16])
        for ordered, keep in (([value], [1, 0, 0, 0]), ([64000, value], [2, 0, 0, 0])):
            keeps = np.array(keep, np.uint16).reshape(1, 2, 2)
            data = coded(ordered, keeps, replace(SHIPPED, vocabulary=larger))
            refused(plain_segment(keep, data), Corrupt, "vocabulary", head)


def test_more_special_tokens_than_kept() -> None:
    writer = Writer(1)
    one = np.array([1])
    starts = networks.tables().pattern(np.full((1, 7), networks.NO_CELL), one, 0 * one, 4 * one)
    writer.code(starts, np.array([3]))
    refused(plain_segment([1, 0, 0, 0], b"\4" + writer.bytes()), Corrupt, "control tokens")


def test_tokens_cut_anywhere() -> None:
    data = coded([64000, 65523, 5, 64000, 1, 2], np.array([[[2, 2], [1, 1]]], np.uint16))
    for size in range(len(data)):
        with pytest.raises(EtkError):
            attacks.read(HEAD + plain_segment([2, 2, 1, 1], data[:size]), tolerate=False)
    refused(plain_segment([2, 2, 1, 1], data + b"\0\0"), Corrupt, "do not end")
    refused(plain_segment([2, 2, 1, 1], data + b"\0"), Corrupt, "impossible length")


@given(st.integers(0, 2**32), st.integers(0, 7), st.sampled_from([65524, 65521, 64000, 64001]))
@settings(max_examples=60, deadline=None)
def test_tokens_with_a_flipped_bit(place: int, bit: int, vocabulary: int) -> None:
    keeps = np.array([[[2, 3], [1, 1]], [[2, 0], [6, 1]]], np.uint16)
    frames = np.array([4, 4])
    rng = np.random.default_rng(place)
    ordered = rng.integers(0, 64000, 16)
    ordered[:4] = np.where(rng.random(4) < 0.7, vocabulary - 1, ordered[:4])
    model = replace(SHIPPED, vocabulary=vocabulary)
    data = bytearray(coded(ordered.tolist(), keeps, model)[1:])
    data[place % len(data)] ^= 1 << bit
    with suppress(Corrupt):
        found = ranged.decode_predicted(bytes(data), keeps, frames, model)
        assert found.max() < vocabulary


@given(st.lists(st.integers(0, 6), min_size=4, max_size=4), st.binary(max_size=80))
@settings(max_examples=100, deadline=None)
def test_any_tokens(keep: list[int], data: bytes) -> None:
    attacks.read(HEAD + plain_segment(keep, b"\4" + data))


# Error coding 2


def facts(errors: bytes) -> bytes:
    return attacks.FACTS[:-1] + b"\2" + errors


def test_the_hand_made_errors_are_sound() -> None:
    unit = attacks.segment(facts=facts(bytes([2, 0, 100, 0b1_01_001_1_0])))
    _, (found,) = attacks.read(HEAD + unit)
    wanted = np.array([400, 396, 400, 400], np.uint16).view(np.float16)  # differences 0, -1, 1, 0
    assert found.blocks[0].frame_mse == tuple(wanted.astype(float))


@pytest.mark.parametrize(
    ("errors", "message"),
    [
        (b"", "early"),
        (b"\2", "early"),
        (b"\2\0", "early"),
        (b"\2\0\x64", "errors end early"),
        (b"\2\0\x64\xe0", "errors end early"),  # three codes of four
        (b"\2\x0f\x64\xff\xff\xff\xff\xff\xff\xff", "errors end early"),  # the last lacks some of its bits
        (b"\2\0\x64" + bytes(100), "errors end early"),  # zeros and no one
        (b"\2\0\x64\xf1", "do not end"),  # a one after the last code
        (b"\2\0\x64\xf0\0", "do not end"),
        (b"\2\0\x64\xf0x", "do not end"),
        (b"\x10\0\x64\xf0", "coding that is unknown"),  # d = 16
        (b"\xff\0\x64\xf0", "coding that is unknown"),
        (b"\2\x20\x64\xf0", "coding that is unknown"),  # m = 2
        (b"\2\xf0\x64\xf0", "coding that is unknown"),
        (b"\2\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\xf0", "out of range"),  # base 2^64 - 1
        (b"\2\0" + b"\xff" * 10 + b"\x01\xf0", "64 bits"),
        (b"\2\0\x80\x80\x01\xf0", "out of range"),  # 2^14 * 2^2
        (b"\2\0\x80\x3f\xf0", "out of range"),  # NaN
        (b"\x0f\0\2\xf0", "out of range"),
        (b"\2\0\0\x78", "out of range"),  # -1
        (b"\2\x10\0\x78", "out of range"),
        (b"\2\0\x64" + bytes(70) + b"\x1e", "out of range"),  # a number of 560 zeros
        (b"\2\x0f\x64" + bytes(70) + b"\xff" * 8, "out of range"),
        (b"\0\0\x80\xf8\x01\xf0", "out of range"),  # 7C00
        (b"\0\0\x80\x80\x02\xf0", "out of range"),  # 8000: negative
        (b"\0\0\x81\xfc\x01\xf0", "out of range"),  # 7E01
    ],
)
def test_absurd_errors(errors: bytes, message: str) -> None:
    refused(attacks.segment(facts=facts(errors)), Corrupt, message)


def test_error_coding_of_the_future() -> None:
    refused(attacks.segment(facts=attacks.FACTS[:-1] + b"\3"), Corrupt, "error coding 3")


def test_endless_zeros() -> None:
    """The most that facts may have, in a few bytes: a number of four million bits is no trouble."""
    model = ["x", bytes(32), [8, 8, 8, 5, 5, 5], 65524, 6, 32, 16, 16]
    head = raw_header(m=model)
    count = 32 * 1024
    start = bytes([32] * 1024) + b"\0\1\0\1\0\2" + b"\2\x0f\0"
    for end in (b"", b"\1", b"\1" + b"\xff" * count):
        room = 1024 * (1 + 18 * 32) + 64 - len(start) - len(end)
        data = pack_uvarint(0) + pack_uvarint(1024) + pack_blob(start + bytes(room) + end)
        refused(attacks.unit(attacks.SEGMENT, data + b"\0"), Corrupt, "error", head)


@given(st.binary(max_size=40))
@settings(max_examples=100, deadline=None)
def test_any_errors(errors: bytes) -> None:
    attacks.read(HEAD + attacks.segment(facts=facts(errors)))


# Memory


def test_largest_predicted_segment_takes_less_than_500_mb() -> None:
    """2^20 cells, and sixty megabytes of words that nobody asked for."""
    keeps = np.zeros((1, 1024, 1024), np.uint16)
    keeps[0, 0, 0] = 6
    keep = coded_map(keeps)
    head = raw_header(s=[16384, 16384], g=[1024, 1024])
    tokens = b"\4" + FREQUENCY_SUM.to_bytes(4, "little") + bytes(60 << 20)
    tracemalloc.start()
    try:
        reader, found = samples_read(head + segment(keep, tokens))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == []
    assert reader.damage
    assert peak < 500e6

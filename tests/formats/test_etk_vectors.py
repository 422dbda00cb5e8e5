"""Tokens that are float16 vectors (SPEC.md, 6, kind 1): round trip, the golden file, and attacks by name."""

import os
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import test_etk_attacks as attacks
from etk_samples import HEADER_RECORD, make_block, raw_header, read, write
from hypothesis import given, settings
from hypothesis import strategies as st
from test_etk_spec import check_golden

import formats
from formats import Block, Header, InvalidRecord, LimitExceeded, ModelRef, pack_tokens, unpack_tokens
from formats.wire import pack_blob

MODEL = ModelRef("tiny-vae", bytes(range(32)), (), 0, tokens_per_cell=6, vector=3)
HEADER = replace(HEADER_RECORD, model=MODEL)
RAW = {"m": ["x", bytes(32), [], 0, 6, 4, 16, 16], "k": 1, "l": 3}


def vector_block(seed: int, start: int, header: Header = HEADER) -> Block:
    rng = np.random.default_rng(seed)
    keep = rng.integers(0, header.model.tokens_per_cell + 1, header.grid).astype(np.uint16)
    # all patterns: subnormal, negative zero, largest; but what is not finite
    bits = rng.integers(0, 1 << 16, (int(keep.sum()), header.model.vector)).astype(np.uint16)
    bits[(bits & 0x7C00) == 0x7C00] ^= 0x4000
    changes = {"keep": keep, "tokens": bits.view(np.float16)}
    return make_block(seed, start, replace(header, model=HEADER_RECORD.model), **changes)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 64), st.integers(1, 4), st.integers(1, 4), st.integers(0, 99))
def test_every_bit_comes_back(size: int, rows: int, columns: int, seed: int) -> None:
    model = replace(MODEL, vector=size)
    header = replace(HEADER, model=model, grid=(rows, columns), width=columns * 16, height=rows * 16)
    blocks = [vector_block(seed + n, 4 * n, header) for n in range(3)]
    reader, (segment,) = read(write([blocks], header))
    assert reader.header == header
    for written, found in zip(blocks, segment.blocks, strict=True):
        assert found.tokens.dtype == np.float16
        assert np.array_equal(found.tokens.view(np.uint16), written.tokens.view(np.uint16))
        assert np.array_equal(found.keep, written.keep)


def test_vectors_are_picked_and_put_back_like_integers() -> None:
    rng = np.random.default_rng(0)
    keep = rng.integers(0, 7, (2, 3))
    grid = rng.normal(size=(6, 2, 3, 5)).astype(np.float16)
    flat = pack_tokens(grid, keep)
    assert flat.dtype == np.float16
    assert flat.shape == (keep.sum(), 5)
    numbers = np.arange(6 * 2 * 3).reshape(6, 2, 3)
    assert np.array_equal(flat, grid.reshape(-1, 5)[pack_tokens(numbers, keep)])
    kept = np.arange(6)[:, None, None, None] < keep[..., None]
    assert np.array_equal(unpack_tokens(flat, keep, 6), np.where(kept, grid, 0))


def test_tokens_can_be_left_out() -> None:
    reader, _ = read(write([[vector_block(0, 0)]], HEADER))
    (segment,) = reader.segments(tokens=False)
    assert segment.blocks[0].tokens.size == 0
    assert segment.blocks[0].token_count == vector_block(0, 0).token_count


def test_alike_numbers_are_squeezed() -> None:
    """Values of one place of the vectors stand together."""
    block = vector_block(1, 0)
    same = np.tile(np.array([0.5, -3.25, 1e-3], np.float16), (len(block.tokens), 1))
    assert len(write([[replace(block, tokens=same)]], HEADER)) < len(write([[block]], HEADER))


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (np.zeros((3, 3), np.float16), "asks for"),
        (None, "float16"),
        (np.inf, "finite"),
        (np.nan, "finite"),
    ],
)
def test_writer_refuses_bad_vectors(tokens: object, message: str) -> None:
    block = vector_block(1, 0)
    if tokens is None:
        tokens = block.tokens.astype(np.float32)
    elif isinstance(tokens, float):
        changed = block.tokens.copy()
        changed[-1, -1] = tokens
        tokens = changed
    with pytest.raises(InvalidRecord, match=message):
        write([[replace(block, tokens=tokens)]], HEADER)


@pytest.mark.parametrize(
    "model",
    [
        replace(MODEL, levels=(8,)),
        replace(MODEL, vocabulary=64000),
        replace(MODEL, vector=65),
        replace(MODEL, vector=-1),
        replace(MODEL, vector=0),
    ],
)
def test_writer_refuses_models_that_are_neither(model: ModelRef) -> None:
    with pytest.raises(InvalidRecord):
        write([], replace(HEADER, model=model))


def test_golden_file_with_vectors() -> None:
    check_golden("v1-vectors", [[vector_block(n, 4 * n) for n in range(3)], [vector_block(9, 40)]])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"l": None}, "vector"),
        ({"l": 0}, "wrong type"),
        ({"l": -1}, "vector"),
        ({"l": 65}, "vector"),
        ({"l": 2**40}, "vector"),
        ({"l": True}, "vector"),
        ({"l": 3.0}, "vector"),
        ({"m": ["x", bytes(32), [8], 0, 6, 4, 16, 16]}, "no levels"),
        ({"m": ["x", bytes(32), [], 8, 6, 4, 16, 16]}, "no levels"),
        ({"k": 0}, "levels"),
    ],
)
def test_absurd_header(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidRecord, match=message):
        read(raw_header(**(RAW | changes)))


def test_header_without_the_size() -> None:
    with pytest.raises(InvalidRecord, match="lacks"):
        read(raw_header(m=RAW["m"], k=1))


def segment(tokens: bytes, keep: bytes = bytes([1, 0, 1, 0])) -> bytes:
    return attacks.segment(keep=keep, tokens=tokens)


def damage(unit: bytes, **changes: object) -> str:
    reader, found = read(raw_header(**(RAW | changes)) + unit)
    assert found == []
    return reader.damage[0].reason


def test_the_hand_made_segment_is_sound() -> None:
    low, high = bytes([1, 2, 3, 4, 5, 6]), bytes([0x3C] * 6)
    _, (found,) = read(raw_header(**RAW) + segment(b"\x10" + pack_blob(low) + pack_blob(high)))
    wanted = [[0x3C01, 0x3C03, 0x3C05], [0x3C02, 0x3C04, 0x3C06]]  # places first, then tokens
    assert found.blocks[0].tokens.view(np.uint16).tolist() == wanted


@pytest.mark.parametrize("coding", [0, 1, 2, 17])
def test_codings_of_integers_are_refused(coding: int) -> None:
    with pytest.raises(formats.UnsupportedVersion, match="for vectors"):
        read(raw_header(**RAW) + segment(bytes([coding]) + 3 * pack_blob(bytes(6))))


def test_the_coding_of_vectors_is_refused_for_integers() -> None:
    with pytest.raises(formats.UnsupportedVersion, match="token coding 16"):
        read(attacks.HEAD + segment(b"\x10" + 2 * pack_blob(bytes(6))))


@pytest.mark.parametrize("high", [0x7C, 0xFC, 0x7E, 0xFF])
def test_numbers_that_are_not_finite(high: int) -> None:
    unit = segment(b"\x10" + pack_blob(bytes(6)) + pack_blob(bytes([0] * 5 + [high])))
    assert "not finite" in damage(unit)


@pytest.mark.parametrize("count", [0, 5, 7])
def test_wrong_count(count: int) -> None:
    assert " where " in damage(segment(b"\x10" + pack_blob(bytes(count)) + pack_blob(bytes(6))))
    assert " where " in damage(segment(b"\x10" + pack_blob(bytes(6)) + pack_blob(bytes(count))))


def test_vector_bomb() -> None:
    assert "unpacks" in damage(segment(b"\x10" + attacks.bomb(300 << 20)))


def test_more_numbers_than_a_segment_may_have() -> None:
    """Few tokens as integers, too many as vectors: refused before memory is taken."""
    keep = attacks.bomb(1 << 20, b"\1")
    payload = struct.pack("<BB", 0, 1) + pack_blob(attacks.FACTS) + b"\0" + keep + b"\x10"
    unit = attacks.unit(attacks.SEGMENT, payload)
    reason = damage(unit, l=64, s=[1024 * 16, 1024 * 16], g=[1024, 1024])
    assert "limit is 524288" in reason
    assert (
        formats.max_segment_tokens(0)
        == formats.max_segment_tokens(1)
        == formats.max_segment_tokens(2)
        == 1 << 24
    )
    large = replace(HEADER, model=replace(MODEL, vector=64), grid=(1024, 1024), width=16384, height=16384)
    keeps = np.ones((1024, 1024), np.uint16)
    tokens = np.broadcast_to(np.float16(0), (1 << 20, 64))
    block = replace(vector_block(0, 0), keep=keeps, tokens=tokens)
    with pytest.raises(LimitExceeded):
        write([[block]], large)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=60), st.binary(max_size=60), st.binary(max_size=4))
def test_any_vectors(low: bytes, high: bytes, keep: bytes) -> None:
    read(raw_header(**RAW) + segment(b"\x10" + pack_blob(low) + pack_blob(high), keep.ljust(4, b"\0")))


def test_largest_segment_takes_less_than_500_mb() -> None:
    code = """
import sys
sys.path.insert(0, "tests/formats")
import test_etk_attacks as attacks
from formats.wire import pack_uvarint
header = attacks.raw_header(s=[32768, 32768], g=[2048, 2048], k=1, l=8, m=["x", bytes(32), [], 0, 6, 4, 16, 16])
keep = attacks.bomb(1 << 22, b"\\1")
payload = pack_uvarint(0) + pack_uvarint(1) + attacks.pack_blob(attacks.FACTS) + b"\\0" + keep + b"\\x10"
_, found = attacks.samples_read(header + attacks.unit(attacks.SEGMENT, payload + 2 * attacks.bomb(1 << 25)))
assert found[0].blocks[0].tokens.shape == (1 << 22, 8)
from pathlib import Path
status = Path("/proc/self/status")
if status.exists():
    print(next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM")))
else:
    import resource
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""
    root = Path(formats.__file__).parents[1]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=root, capture_output=True, text=True, env=environment
    )
    assert int(result.stdout) < 500_000  # kB

import io
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import msgpack
import numpy as np
import pytest
from etk_samples import HEADER_RECORD, MODEL, make_block, make_segments, read, same_blocks, write
from hypothesis import given, settings
from hypothesis import strategies as st

import formats
from formats import (
    Block,
    ControlRange,
    EtkReader,
    EtkWriter,
    Header,
    InvalidRecord,
    ModelRef,
    pack_tokens,
    unpack_tokens,
)
from formats.header import pack_header
from formats.wire import Cursor

ROOT = Path(formats.__file__).parents[1]


@st.composite
def videos(draw: st.DrawFn) -> tuple[Header, list[list[Block]]]:
    """A header and segments of any shape: odd grids, keep maps of all sorts, uneven times, short blocks."""
    rows, columns = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    model = ModelRef(
        name=draw(st.text(min_size=1, max_size=5)),
        sha256=draw(st.binary(min_size=32, max_size=32)),
        levels=draw(st.sampled_from([(8, 8, 8, 5, 5, 5), (7, 5), (5,), (300, 4), (2, 3, 4)])),
        vocabulary=draw(st.sampled_from([64000, 65536])),
        tokens_per_cell=draw(st.sampled_from([1, 6, 20, 255, 300])),
        block_frames=draw(st.integers(1, 5)),
    )
    header = replace(
        HEADER_RECORD,
        model=model,
        grid=(rows, columns),
        width=columns * 16,
        height=rows * 16 - 3,
        target_mse=draw(st.none() | st.floats(0, 4)),
        promise=draw(st.sampled_from(["block", "video"])),
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    spread = draw(st.sampled_from([0, 1, 3, 300]))
    time = draw(st.integers(-(2**60), 2**60 - 2**45))
    steps = draw(st.sampled_from([(1, 2), (40, 41), (33, 35), (1, 2**40)]))
    known = draw(st.booleans())
    segments = []
    for _ in range(draw(st.integers(0, 3))):
        blocks = []
        for _ in range(draw(st.integers(1, 3))):
            pts, durations, errors = [], [], []
            for _ in range(draw(st.integers(1, model.block_frames))):
                step = int(rng.integers(*steps))
                pts.append(time)
                durations.append(step if rng.random() < 0.8 else 0)
                errors.append(float(rng.random()) if known and rng.random() < 0.8 else float("nan"))
                time += step
            keep = rng.integers(0, min(spread, model.tokens_per_cell) + 1, (rows, columns)).astype(np.uint16)
            tokens = rng.integers(0, model.vocabulary, int(keep.sum())).astype(np.uint16)
            flags = rng.random(2) < 0.3
            block = Block(
                tuple(pts), tuple(durations), keep, tokens, tuple(errors), bool(flags[0]), bool(flags[1])
            )
            blocks.append(block)
        segments.append(blocks)
    return header, segments


@settings(max_examples=60, deadline=None)
@given(videos())
def test_what_is_written_is_read(video: tuple[Header, list[list[Block]]]) -> None:
    header, segments = video
    reader, found = read(write(segments, header))
    assert reader.complete
    assert reader.header == header
    assert [segment.number for segment in found] == list(range(len(segments)))
    assert all(same_blocks(a, b.blocks) for a, b in zip(segments, found, strict=True))
    assert reader.frame_count == sum(len(block.pts) for blocks in segments for block in blocks)
    assert reader.index is not None
    for info, segment, blocks in zip(reader.index, found, segments, strict=True):
        assert (info.offset, info.length) == (segment.offset, segment.size_bytes)
        assert (info.first_pts, info.last_pts) == (blocks[0].pts[0], blocks[-1].pts[-1])
        assert (info.blocks, info.tokens) == (len(blocks), sum(block.token_count for block in blocks))
        assert info.missed == sum(block.missed for block in blocks)


@given(st.integers(1, 9), st.integers(1, 4), st.integers(1, 4), st.integers(0, 99))
def test_token_order(tokens_per_cell: int, rows: int, columns: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    keep = rng.integers(0, tokens_per_cell + 1, (rows, columns))
    grid = rng.integers(1, 65536, (tokens_per_cell, rows, columns))
    expected = [
        grid[g, y, x]
        for g in range(tokens_per_cell)
        for y in range(rows)
        for x in range(columns)
        if keep[y, x] > g
    ]
    flat = pack_tokens(grid, keep)
    assert flat.tolist() == expected
    dropped = np.arange(tokens_per_cell)[:, None, None] >= keep
    assert np.array_equal(unpack_tokens(flat, keep, tokens_per_cell), np.where(dropped, 0, grid))


CONTROL_TOKENS = (
    ControlRange("motion_vector", 64000, 1521),
    ControlRange("gain", 65521, 3),
    ControlRange("pan", 65524, 2),
    ControlRange("shake", 65526, 1, 1),
    ControlRange("whole_vector", 65527, 1),
    ControlRange("dct", 65528, 1),
    ControlRange("palette", 65529, 7),
)


def test_control_tokens_take_27_bytes() -> None:
    plain = replace(HEADER_RECORD, metadata={})  # a map of more than 15 keys would take two bytes more
    header = replace(plain, control_tokens=CONTROL_TOKENS)
    assert len(unpacked_header(header)) == len(unpacked_header(plain)) + 27
    assert msgpack.unpackb(unpacked_header(header))["i"] == [
        *([0, 1521], [1, 3], [2, 2], [3, 1, 1]),
        *([4, 1], [5, 1], [6, 7]),
    ]


def unpacked_header(header: Header) -> bytes:
    return Cursor(pack_header(header)).blob(1 << 20)


def test_kinds_of_control_tokens_of_later_programs_survive() -> None:
    ranges = (ControlRange("kind 7", 64000, 5, 3), ControlRange("kind 255", 64005, 1, 6))
    header = replace(HEADER_RECORD, control_tokens=ranges)
    assert read(write([], header))[0].header == header


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ([ControlRange("zoom", 64000, 1)], "kind"),
        ([ControlRange("kind 3", 64000, 1)], "kind"),  # 3 has a name
        ([ControlRange("kind 6", 64000, 1)], "kind"),
        ([ControlRange("gain", 64001, 1)], "begin at 64000"),
        ([ControlRange("gain", 64000, 1), ControlRange("pan", 64002, 1)], "begin at 64001"),
        ([ControlRange("gain", 64000, 0)], "number of control tokens"),
        ([ControlRange("gain", 64000, 1537)], "vocabulary"),
        ([ControlRange("gain", 64000, 1, -1)], "codes after"),
        ([ControlRange("gain", 64000, 1, 7)], "codes after"),
        ([ControlRange("gain", 64000 + n, 1) for n in range(17)], "16 ranges"),
    ],
)
def test_control_tokens_that_no_file_can_have(ranges: list[ControlRange], message: str) -> None:
    with pytest.raises(InvalidRecord, match=message):
        write([], replace(HEADER_RECORD, control_tokens=tuple(ranges)))


def test_vectors_have_no_control_tokens() -> None:
    model = replace(MODEL, levels=(), vocabulary=0, vector=4)
    with pytest.raises(InvalidRecord, match="vectors"):
        write([], replace(HEADER_RECORD, model=model, control_tokens=(ControlRange("gain", 1, 1),)))


def test_every_header_field_survives() -> None:
    header = replace(
        HEADER_RECORD,
        target_mse=None,
        target_tokens=3,
        allocation="block",
        frame_count=7,
        start_time=-5,
        clock_offset=-7,
        chapters=((0, 100, "one"), (100, 100, "")),
        control_tokens=CONTROL_TOKENS,
    )
    assert read(write([], header))[0].header == header
    promised = replace(header, target_mse=0.01, promise="video", options={"worst": 4.0, "bound": "budget"})
    assert read(write([], promised))[0].header == promised
    plain = Header(model=MODEL, width=1, height=1, grid=(1, 1), time_base=(1, 1))
    assert read(write([], plain))[0].header == plain


def test_a_promise_of_every_block_takes_no_bytes_and_one_of_the_mean_takes_three() -> None:
    plain = replace(HEADER_RECORD, metadata={})  # as above
    assert "u" not in msgpack.unpackb(unpacked_header(plain))
    header = replace(plain, promise="video")
    assert msgpack.unpackb(unpacked_header(header))["u"] == 1
    assert len(unpacked_header(header)) == len(unpacked_header(plain)) + 3


@pytest.mark.parametrize("promise", ["", "mean", "Video", None, 1])
def test_promises_that_no_file_can_have(promise: object) -> None:
    with pytest.raises(InvalidRecord, match="promise must be"):
        write([], replace(HEADER_RECORD, promise=promise))


@pytest.mark.parametrize(
    "chapters",
    [
        ((1, 0, "ends before it starts"),),
        ((0, 1 << 61, "too late"),),
        ((0.5, 1, "no ticks"),),
        ((0, 1, 7),),
        ((0, 1, ""),) * 1025,
    ],
)
def test_chapters_that_break_a_rule(chapters: tuple[tuple[int, int, str], ...]) -> None:
    with pytest.raises(InvalidRecord, match="chapter"):
        write([], replace(HEADER_RECORD, chapters=chapters))


def test_frame_count_comes_from_the_index() -> None:
    data = write(make_segments(2, 1), replace(HEADER_RECORD, frame_count=999))
    assert read(data)[0].frame_count == 8
    assert read(data[:-1])[0].frame_count == 999


def test_sizes_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "a.etk"
    writer = EtkWriter(path, HEADER_RECORD)
    before = writer.bytes_written
    size = writer.write_segment([make_block(0, 0)])
    assert writer.bytes_written == before + size
    assert writer.write_aux(b"") == 0
    assert writer.close() == path.stat().st_size == writer.close()
    with pytest.raises(ValueError, match="closed"):
        writer.write_aux(b"x")


def test_a_constant_rate_costs_nothing_per_frame() -> None:
    def size(pts_step: int) -> int:
        blocks = [make_block(b, 0) for b in range(100)]
        times = iter(range(0, 400 * pts_step, pts_step))
        blocks = [
            replace(b, pts=tuple(next(times) for _ in b.pts), durations=(pts_step,) * 4) for b in blocks
        ]
        return len(write([blocks]))

    assert abs(size(1) - size(1001)) < 8


def test_tokens_can_be_left_out() -> None:
    segments = make_segments()
    reader = EtkReader(io.BytesIO(write(segments)))
    written = [block for blocks in segments for block in blocks]
    for block, full in zip(reader.blocks(tokens=False), written, strict=True):
        assert len(block.tokens) == 0
        assert block.token_count == full.token_count
        assert block.pts == full.pts


def test_aux_comes_back() -> None:
    aux = bytes(range(256)) * 10_000  # three units
    reader = EtkReader(io.BytesIO(write(make_segments(), aux=aux)))
    chunks = list(reader.aux())
    assert len(chunks) == 3
    assert b"".join(chunks) == aux
    assert reader.complete


def test_aux_needs_a_container() -> None:
    with pytest.raises(InvalidRecord, match="announces"):
        write(make_segments(), replace(HEADER_RECORD, aux=None), aux=b"x")


@pytest.mark.parametrize("early", [True, False])
def test_pipe(early: bool) -> None:
    """Through a real pipe, unbuffered on both sides; audio before or after the segments."""
    segments, aux = make_segments(4), os.urandom(200_000)
    read_end, write_end = os.pipe()

    def produce() -> None:
        with os.fdopen(write_end, "wb", buffering=0) as stream, EtkWriter(stream, HEADER_RECORD) as writer:
            writer.write_aux(aux)
            for blocks in segments:
                writer.write_segment(blocks)

    thread = threading.Thread(target=produce)
    thread.start()
    with os.fdopen(read_end, "rb", buffering=0) as stream, EtkReader(stream) as reader:
        assert reader.index is None
        chunks = list(reader.aux()) if early else []
        found = list(reader.segments())
        chunks = chunks or list(reader.aux())
        assert reader.complete
        assert reader.index is not None
        assert reader.frame_count == 32
    thread.join()
    assert b"".join(chunks) == aux
    assert all(same_blocks(a, b.blocks) for a, b in zip(segments, found, strict=True))


def test_pipe_gives_segments_as_they_come() -> None:
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb") as source, os.fdopen(write_end, "wb") as target:
        writer = EtkWriter(target, HEADER_RECORD)
        writer.write_segment([make_block(0, 0)])
        target.flush()
        reader = EtkReader(source)
        assert next(iter(reader.segments())).number == 0  # the file is not finished yet
        reader.close()
        writer.close()


class CountingFile(io.BytesIO):
    bytes_read = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.bytes_read += len(data)
        return data


def test_seeking_reads_only_what_is_needed() -> None:
    segments = make_segments(50)
    data = write(segments)
    stream = CountingFile(data)
    reader = EtkReader(stream)
    assert reader.index is not None
    stream.bytes_read = 0
    found = list(reader.segments(8 * 20, 8 * 21 + 1))
    assert [segment.number for segment in found] == [20, 21]
    assert stream.bytes_read == reader.index[20].length + reader.index[21].length


@pytest.mark.parametrize("cut", [0, 1])
@pytest.mark.parametrize(
    ("start", "end", "numbers"),
    [
        (None, None, [0, 1, 2, 3]),
        (7, 9, [0, 1]),
        (8, None, [1, 2, 3]),
        (None, 8, [0]),
        (99, None, []),
        (5, 5, [0]),
    ],
)
def test_times_with_and_without_index(
    cut: int, start: int | None, end: int | None, numbers: list[int]
) -> None:
    data = write(make_segments(4))
    reader = EtkReader(io.BytesIO(data[: len(data) - cut]))
    assert (reader.index is None) == bool(cut)
    assert [segment.number for segment in reader.segments(start, end)] == numbers


def test_file_inside_a_stream() -> None:
    stream = io.BytesIO(b"before" + write(make_segments()))
    stream.seek(6)
    reader = EtkReader(stream)
    assert len(list(reader.segments())) == 3
    assert reader.complete


def test_exception_leaves_an_unfinished_file(tmp_path: Path) -> None:
    path = tmp_path / "a.etk"

    def interrupted() -> None:
        with EtkWriter(path, HEADER_RECORD) as writer:
            writer.write_segment([make_block(0, 0)])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with EtkReader(path) as reader:
        assert len(list(reader.segments())) == 1
        assert not reader.complete


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pts": (0, 1, 1, 2)}, "increase"),
        ({"pts": ()}, "frames"),
        ({"pts": (0, 1, 2, 2**61)}, "pts"),
        ({"durations": (1,)}, "duration"),
        ({"durations": (1, 1, 1, -1)}, "duration"),
        ({"frame_mse": (0.1, 0.1, 0.1, -0.1)}, "error"),
        ({"frame_mse": (0.1, 0.1, 0.1, float("inf"))}, "error"),
        ({"keep": np.full((2, 2), 7, np.uint16)}, "sequence"),
        ({"keep": np.zeros((2, 3), np.uint16)}, "grid"),
        ({"keep": np.zeros((2, 2), np.int64)}, "uint16"),
        ({"tokens": np.zeros(1, np.uint16)}, "asks for"),
    ],
)
def test_writer_refuses_bad_blocks(changes: dict[str, object], message: str) -> None:
    stream = io.BytesIO()
    writer = EtkWriter(stream, HEADER_RECORD)
    size = stream.tell()
    with pytest.raises(InvalidRecord, match=message):
        writer.write_segment([make_block(1, 0, **changes)])
    assert stream.tell() == size


def test_writer_refuses_tokens_outside_the_vocabulary() -> None:
    header = replace(HEADER_RECORD, model=replace(MODEL, vocabulary=64000))
    tokens = np.full(make_block(1, 0).token_count, 64000, np.uint16)
    with pytest.raises(InvalidRecord, match="vocabulary"):
        write([[make_block(1, 0, tokens=tokens)]], header)


def test_writer_refuses_to_go_back_in_time() -> None:
    with pytest.raises(InvalidRecord, match="increase"):
        write([[make_block(0, 4)], [make_block(0, 0)]])


def test_no_torch() -> None:
    code = "import sys, formats; sys.exit(bool({'torch', 'av', 'typer'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_exported_names() -> None:
    modules = {
        "coding",
        "errors",
        "facts",
        "header",
        "index",
        "kinds",
        "reader",
        "records",
        "rules",
        "segment",
        "wire",
        "writer",
    }
    public = {name for name in vars(formats) if not name.startswith("_")} - modules
    assert public == set(formats.__all__)

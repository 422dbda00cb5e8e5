"""The rules that the values of a file must keep."""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from formats.errors import InvalidRecord, LimitExceeded
from formats.records import (
    COLOR_TAGS,
    KIND_NAMES,
    KIND_NUMBERS,
    MAX_BLOCK_FRAMES,
    MAX_CELLS,
    MAX_CHAPTERS,
    MAX_CONTROL_RANGES,
    MAX_MAP_ENTRIES,
    MAX_SEGMENT_BLOCKS,
    MAX_SIDE_PIXELS,
    MAX_STRING_BYTES,
    MAX_TIME_TICKS,
    MAX_TOKENS_PER_CELL,
    MAX_VECTOR_NUMBERS,
    PROMISES,
    Block,
    ControlRange,
    Header,
    ModelRef,
    max_segment_tokens,
)


def require(condition: bool, message: str) -> None:
    """Raise InvalidRecord with this message unless the condition holds."""
    if not condition:
        raise InvalidRecord(message)


def check_header(header: Header) -> None:
    """Raise InvalidRecord or LimitExceeded if a value is of the wrong type or out of range."""
    model = header.model
    _check_text("model name", model.name)
    require(1 <= len(model.name.encode()) <= 256, "model name must have 1 to 256 bytes")
    require(isinstance(model.sha256, bytes) and len(model.sha256) == 32, "sha256 must be 32 bytes")
    _check_int("vector", model.vector, 0, MAX_VECTOR_NUMBERS)
    if model.vector:
        require(model.levels == () and model.vocabulary == 0, "vectors have no levels and no vocabulary")
    else:
        _check_levels(model)
    _check_int("tokens per cell", model.tokens_per_cell, 1, MAX_TOKENS_PER_CELL)
    _check_int("frames per block", model.block_frames, 1, MAX_BLOCK_FRAMES)
    _check_pair("cell", model.cell, 1, MAX_SIDE_PIXELS)

    _check_int("width", header.width, 1, MAX_SIDE_PIXELS)
    _check_int("height", header.height, 1, MAX_SIDE_PIXELS)
    _check_pair("grid", header.grid, 1, MAX_SIDE_PIXELS)
    rows, columns = header.grid
    if rows * columns > MAX_CELLS:
        raise LimitExceeded(f"grid has {rows * columns} cells, the limit is {MAX_CELLS}")
    covers = rows * model.cell[0] >= header.height and columns * model.cell[1] >= header.width
    require(
        covers, f"a grid of {rows} x {columns} cells does not cover {header.width} x {header.height} pixels"
    )
    _check_pair("time base", header.time_base, 1, 2**31 - 1)

    if header.target_mse is not None:
        valid = (
            type(header.target_mse) is float and math.isfinite(header.target_mse) and header.target_mse >= 0
        )
        require(valid, f"target error must be a finite float >= 0, not {header.target_mse!r}")
    if header.target_tokens is not None:
        _check_int("target tokens", header.target_tokens, 0, model.tokens_per_cell)
    require(header.promise in PROMISES, f'promise must be "block" or "video", not {header.promise!r:.80}')
    require(header.allocation in ("cell", "block"), 'allocation must be "cell" or "block"')
    if header.frame_count is not None:
        _check_int("frame count", header.frame_count, 0, 2**63 - 1)
    _check_int("rotation", header.rotation, -359, 359)
    _check_text("pixel format", header.pixel_format)
    for key, tag in header.color.items():
        require(key in COLOR_TAGS, f"unknown colour tag {key!r}")
        _check_scalar("colour tag", tag, (int, str))
    if header.average_rate is not None:
        _check_pair("average rate", header.average_rate, 0, 2**31 - 1)
    _check_pair("pixel aspect", header.pixel_aspect, 1, 2**31 - 1)
    if header.source_bytes is not None:
        _check_int("source size", header.source_bytes, 0, 2**63 - 1)
    _check_int("start time", header.start_time, -(2**63), 2**63 - 1)
    _check_int("clock offset", header.clock_offset, -(2**63), 2**63 - 1)
    _check_chapters(header.chapters)
    _check_map("metadata", header.metadata, (str,))
    if header.aux is not None:
        require(set(header.aux) == {"container"}, 'aux must be {"container": name}')
        _check_text("aux container", header.aux["container"])
        require(header.aux["container"] != "", "aux container must have a name")
    _check_text("program", header.program)
    _check_map("options", header.options, (str, int, float, bool))
    _check_control_tokens(header.control_tokens, model)


def kind_name(number: int) -> str:
    """The name of a kind of control token, of which a file has the number. Raises InvalidRecord if there is none."""
    _check_int("kind of control token", number, 0, len(KIND_NAMES) - 1)
    return KIND_NAMES[number]


def _check_control_tokens(ranges: tuple[ControlRange, ...], model: ModelRef) -> None:
    require(not (ranges and model.vector), "vectors have no control tokens")
    require(len(ranges) <= MAX_CONTROL_RANGES, f"more than {MAX_CONTROL_RANGES} ranges of control tokens")
    first = math.prod(model.levels)
    for part in ranges:
        require(part.kind in KIND_NUMBERS, f"unknown kind of control token {part.kind!r:.80}")
        require(part.first == first, f"control tokens must begin at {first}, not {part.first!r:.80}")
        _check_int("number of control tokens", part.count, 1, model.vocabulary)
        _check_int("codes after a control token", part.followed_by, 0, model.tokens_per_cell)
        first += part.count
    require(not ranges or first <= model.vocabulary, "control tokens are outside the vocabulary")


def _check_chapters(chapters: tuple[tuple[int, int, str], ...]) -> None:
    require(len(chapters) <= MAX_CHAPTERS, f"more than {MAX_CHAPTERS} chapters")
    for start, end, title in chapters:
        _check_int("start of a chapter", start, -MAX_TIME_TICKS, MAX_TIME_TICKS)
        _check_int("end of a chapter", end, start, MAX_TIME_TICKS)
        _check_text("title of a chapter", title)


def _check_levels(model: ModelRef) -> None:
    require(isinstance(model.levels, tuple) and 1 <= len(model.levels) <= 16, "there must be 1 to 16 levels")
    for level in model.levels:
        _check_int("level", level, 2, 65536)
    _check_int("vocabulary", model.vocabulary, 2, 65536)
    require(
        math.prod(model.levels) <= model.vocabulary, "vocabulary is smaller than the product of the levels"
    )


def check_token_count(total: int, model: ModelRef) -> None:
    """Raise LimitExceeded if a segment cannot have so many tokens."""
    limit = max_segment_tokens(model.vector)
    if total > limit:
        raise LimitExceeded(f"segment of {total} tokens, the limit is {limit}")


def check_segment(header: Header, blocks: Sequence[Block], *, tokens: bool = True) -> None:
    """Raise InvalidRecord or LimitExceeded if these blocks cannot be one segment of the file.

    tokens: False if they were not read.
    """
    model = header.model
    rows, columns = header.grid
    require(len(blocks) > 0, "a segment needs at least one block")
    if len(blocks) > MAX_SEGMENT_BLOCKS:
        raise LimitExceeded(f"segment has {len(blocks)} blocks, the limit is {MAX_SEGMENT_BLOCKS}")
    if len(blocks) * rows * columns > MAX_CELLS:
        raise LimitExceeded(f"segment has {len(blocks) * rows * columns} cells, the limit is {MAX_CELLS}")
    total = 0
    for block in blocks:
        frames = len(block.pts)
        require(
            1 <= frames <= model.block_frames, f"a block has 1 to {model.block_frames} frames, not {frames}"
        )
        require(len(block.durations) == frames, "a block needs one duration per frame")
        require(len(block.frame_mse) == frames, "a block needs one error per frame")
        for mse in block.frame_mse:  # 65519 is the largest that float16 does not round to infinity
            if not (0 <= mse <= 65519 or math.isnan(mse)):
                raise InvalidRecord(f"frame error must be >= 0 or NaN, not {mse!r}")
        require(block.keep.shape == header.grid, f"keep map is {block.keep.shape}, the grid is {header.grid}")
        require(block.keep.dtype == np.uint16, "keep map must be uint16")
        require(
            int(block.keep.max()) <= model.tokens_per_cell, "a cell keeps more tokens than its sequence has"
        )
        count = block.token_count
        total += count
        if not tokens:
            continue
        shape = (count, model.vector) if model.vector else (count,)
        require(block.tokens.shape == shape, f"keep map asks for {count} tokens, got {block.tokens.shape}")
        if model.vector:
            require(block.tokens.dtype == np.float16, "tokens must be float16")
            require(bool(np.isfinite(block.tokens).all()), "a number of a vector is not finite")
        else:
            require(block.tokens.dtype == np.uint16, "tokens must be uint16")
            require(
                count == 0 or int(block.tokens.max()) < model.vocabulary, "a token is not in the vocabulary"
            )
    check_token_count(total, model)
    times = [time for block in blocks for time in block.pts]
    _check_ints("pts", times, -MAX_TIME_TICKS, MAX_TIME_TICKS)
    require(
        all(a < b for a, b in pairwise(times)),
        "presentation times must increase strictly",
    )
    _check_ints("duration", [d for block in blocks for d in block.durations], 0, MAX_TIME_TICKS)


def _check_ints(name: str, values: Sequence[object], low: int, high: int) -> None:
    if set(map(type, values)) == {int} and low <= min(values) and max(values) <= high:  # type: ignore[type-var, operator]
        return  # an hour has hundreds of thousands of them
    for value in values:
        _check_int(name, value, low, high)


def _check_int(name: str, value: object, low: int, high: int) -> None:
    # bool is an int to isinstance, but not in a file
    valid = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
    require(valid, f"{name} must be an integer from {low} to {high}, not {value!r:.80}")


def _check_pair(name: str, value: object, low: int, high: int) -> None:
    require(isinstance(value, tuple) and len(value) == 2, f"{name} must be two integers, not {value!r:.80}")
    assert isinstance(value, tuple)
    for part in value:
        _check_int(name, part, low, high)


def _check_text(name: str, value: object) -> None:
    require(isinstance(value, str), f"{name} must be a string")
    assert isinstance(value, str)
    try:
        size = len(value.encode())
    except UnicodeEncodeError as error:
        raise InvalidRecord(f"{name} is not valid Unicode") from error
    require(size <= MAX_STRING_BYTES, f"{name} is longer than {MAX_STRING_BYTES} bytes")


def _check_scalar(name: str, value: object, types: tuple[type, ...]) -> None:
    require(type(value) in types, f"a value of {name} has the wrong type")
    if isinstance(value, str):
        _check_text(name, value)
    elif type(value) is int:
        _check_int(name, value, -(2**63), 2**63 - 1)
    elif isinstance(value, float):
        require(math.isfinite(value), f"a value of {name} is not finite")


def _check_map(name: str, value: object, types: tuple[type, ...]) -> None:
    require(isinstance(value, dict), f"{name} must be a map")
    assert isinstance(value, dict)
    require(len(value) <= MAX_MAP_ENTRIES, f"{name} has more than {MAX_MAP_ENTRIES} entries")
    for key, entry in value.items():
        _check_text(f"a key of {name}", key)
        _check_scalar(name, entry, types)

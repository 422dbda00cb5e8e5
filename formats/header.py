"""The HEADER payload: a Header to bytes and back (SPEC.md, 4)."""

import math
from collections.abc import Sequence
from typing import Any, cast

import msgpack

from formats.errors import Corrupt, InvalidRecord, LimitExceeded, UnsupportedVersion
from formats.records import (
    COLOR_TAGS,
    KIND_NUMBERS,
    MAX_MAP_ENTRIES,
    PROMISES,
    ControlRange,
    Header,
    ModelRef,
)
from formats.rules import check_header, kind_name
from formats.wire import MIB, Cursor, pack_blob

INTEGERS, VECTORS = 0, 1  # token kinds
_MAX_HEADER_BYTES = MIB
_ALLOCATIONS = ("cell", "block")
_COLOR_KEYS = dict(zip(COLOR_TAGS, "ptsr", strict=True))


def pack_header(header: Header) -> bytes:
    """Encode a header. Raises InvalidRecord or LimitExceeded if the format cannot hold it."""
    check_header(header)
    model = header.model
    required = {
        "m": [
            model.name,
            model.sha256,
            list(model.levels),
            model.vocabulary,
            model.tokens_per_cell,
            model.block_frames,
            *model.cell,
        ],
        "s": [header.width, header.height],
        "g": list(header.grid),
        "t": list(header.time_base),
    }
    optional = {
        "k": VECTORS if model.vector else None,
        "l": model.vector or None,
        "q": header.target_mse,
        "n": header.target_tokens,
        "u": PROMISES.index(header.promise) or None,
        "a": _ALLOCATIONS.index(header.allocation) or None,
        "f": header.frame_count,
        "r": header.rotation or None,
        "p": header.pixel_format or None,
        "c": {_COLOR_KEYS[key]: tag for key, tag in header.color.items()} or None,
        "v": list(header.average_rate) if header.average_rate else None,
        "y": list(header.pixel_aspect) if header.pixel_aspect != (1, 1) else None,
        "b": header.source_bytes,
        "o": header.start_time or None,
        "z": header.clock_offset or None,
        "h": [list(chapter) for chapter in header.chapters] or None,
        "d": header.metadata or None,
        "x": header.aux["container"] if header.aux else None,
        "w": header.program or None,
        "e": header.options or None,
        "i": [_pack_range(part) for part in header.control_tokens] or None,
    }
    values = required | {key: value for key, value in optional.items() if value is not None}
    data: bytes = msgpack.packb(values)
    if len(data) > _MAX_HEADER_BYTES:
        raise LimitExceeded(f"header of {len(data)} bytes, the limit is {_MAX_HEADER_BYTES}")
    return pack_blob(data)


def unpack_header(payload: bytes) -> Header:
    """Decode a header. Raises EtkError: UnsupportedVersion for a token kind of later programs."""
    cursor = Cursor(payload)
    values = _unpack_map(cursor.blob(_MAX_HEADER_BYTES))
    cursor.finish()
    kind = values.get("k", INTEGERS)
    if type(kind) is not int or kind not in (INTEGERS, VECTORS):
        raise UnsupportedVersion(f"token kind {kind!r:.80} is unknown: a newer program is needed")
    try:
        header = _build_header(values)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise InvalidRecord(f"header lacks a field or has one of the wrong type: {error!r:.200}") from error
    check_header(header)
    return header


def _build_header(values: dict[str, Any]) -> Header:
    name, sha256, levels, vocabulary, tokens_per_cell, block_frames, cell_height, cell_width = values["m"][:8]
    width, height = values["s"]
    color = values.get("c", {})
    if not isinstance(color, dict):
        raise TypeError("colour tags")
    return Header(
        model=ModelRef(
            name=name,
            sha256=sha256,
            levels=tuple(levels),
            vocabulary=vocabulary,
            tokens_per_cell=tokens_per_cell,
            block_frames=block_frames,
            cell=(cell_height, cell_width),
            vector=_vector_size(values),
        ),
        width=width,
        height=height,
        grid=cast(tuple[int, int], tuple(values["g"])),
        time_base=cast(tuple[int, int], tuple(values["t"])),
        target_mse=values.get("q"),
        target_tokens=values.get("n"),
        promise=_named("promise", values.get("u", 0), PROMISES),
        allocation=_named("allocation", values.get("a", 0), _ALLOCATIONS),
        frame_count=values.get("f"),
        rotation=values.get("r", 0),
        pixel_format=values.get("p", ""),
        color={tag: color[key] for tag, key in _COLOR_KEYS.items() if key in color},
        average_rate=cast(tuple[int, int], tuple(values["v"])) if "v" in values else None,
        pixel_aspect=cast(tuple[int, int], tuple(values.get("y", (1, 1)))),
        source_bytes=values.get("b"),
        start_time=values.get("o", 0),
        clock_offset=values.get("z", 0),
        chapters=tuple((start, end, title) for start, end, title in values.get("h", ())),
        metadata=values.get("d", {}),
        aux={"container": values["x"]} if "x" in values else None,
        program=values.get("w", ""),
        options=values.get("e", {}),
        control_tokens=_control_tokens(values.get("i", ()), math.prod(levels)),
    )


def _named(field: str, number: Any, names: Sequence[str]) -> str:
    """What a number stands for. Raises ValueError, which names the field, for any other."""
    if type(number) is not int or not 0 <= number < len(names):
        raise ValueError(f"{field} {number!r:.80}")
    return names[number]


def _pack_range(part: ControlRange) -> list[int]:
    """[kind, count, codes for each frame], the last left out if 0. A range begins where the one before ends."""
    packed = [KIND_NUMBERS[part.kind], part.count]
    return [*packed, part.followed_by] if part.followed_by else packed


def _control_tokens(packed: Any, first: int) -> tuple[ControlRange, ...]:
    """Undo _pack_range for all ranges; `first`: the value that the first one begins at."""
    ranges = []
    for kind, count, *followed_by in packed:
        if type(count) is not int or len(followed_by) > 1:
            raise TypeError("control tokens")
        ranges.append(ControlRange(kind_name(kind), first, count, *followed_by))
        first += count
    return tuple(ranges)


def _vector_size(values: dict[str, Any]) -> int:
    if values.get("k", INTEGERS) == INTEGERS:
        return 0
    size: int = values["l"]
    if size == 0:
        raise ValueError("vectors of no numbers")
    return size


def _unpack_map(data: bytes) -> dict[str, Any]:
    try:
        values = msgpack.unpackb(
            data,
            strict_map_key=True,
            object_pairs_hook=_unique,
            max_str_len=len(data),
            max_bin_len=len(data),
            max_array_len=MAX_MAP_ENTRIES,
            max_map_len=MAX_MAP_ENTRIES,
            max_ext_len=0,
        )
    except Corrupt:
        raise
    # Everything that msgpack documents for bad input is one of these.
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError) as error:
        raise Corrupt(f"header is not valid msgpack: {error!r:.200}") from error
    if not isinstance(values, dict):
        raise Corrupt("header is not a map")
    return values


def _unique(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise Corrupt("a key appears twice in the header")
    return values

"""The .etk file: reading and writing. Bytes only; needs no model and no torch. SPEC.md is the format."""

from formats.coding.tokens import pack_tokens, unpack_tokens
from formats.errors import (
    Corrupt,
    EtkError,
    InvalidRecord,
    LimitExceeded,
    NotAnEtkFile,
    Truncated,
    UnsupportedVersion,
)
from formats.kinds import KindCounter, KindCounts, control_ranges
from formats.reader import EtkReader
from formats.records import (
    COLOR_TAGS,
    CONTROL_KINDS,
    MAX_CELLS,
    MAX_SEGMENT_BLOCKS,
    MAX_SEGMENT_TOKENS,
    PALETTE_SIZES,
    Block,
    ControlRange,
    Damage,
    Header,
    ModelRef,
    Segment,
    SegmentInfo,
    full_cell,
    max_segment_tokens,
)
from formats.writer import EtkWriter, segment_bytes

__all__ = [
    "COLOR_TAGS",
    "CONTROL_KINDS",
    "MAX_CELLS",
    "MAX_SEGMENT_BLOCKS",
    "MAX_SEGMENT_TOKENS",
    "PALETTE_SIZES",
    "Block",
    "ControlRange",
    "Corrupt",
    "Damage",
    "EtkError",
    "EtkReader",
    "EtkWriter",
    "Header",
    "InvalidRecord",
    "KindCounter",
    "KindCounts",
    "LimitExceeded",
    "ModelRef",
    "NotAnEtkFile",
    "Segment",
    "SegmentInfo",
    "Truncated",
    "UnsupportedVersion",
    "control_ranges",
    "full_cell",
    "max_segment_tokens",
    "pack_tokens",
    "segment_bytes",
    "unpack_tokens",
]

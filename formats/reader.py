"""Reading .etk files: whole or damaged, from a file or a pipe, in order or by time."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple, Protocol, Self

from formats.errors import Corrupt, EtkError, NotAnEtkFile, Truncated, UnsupportedVersion
from formats.facts import SegmentFacts, unpack_facts
from formats.header import unpack_header
from formats.index import unpack_index
from formats.records import Block, Damage, Header, Segment, SegmentInfo
from formats.segment import unpack_segment
from formats.wire import (
    AUX,
    HEAD_SIZE,
    HEADER,
    INDEX,
    MAGIC,
    SEGMENT,
    TRAILER,
    TRAILER_SIZE,
    VERSION,
    Head,
    check_payload,
    find_heads,
    parse_head,
)

_SEARCH_WINDOW_BYTES = 1 << 16  # bytes looked at in one go while searching for a unit
_SPOOL_MEMORY_BYTES = 1 << 23
MAX_DAMAGE_REPORTS = 10_000  # reports kept


class _Unit(NamedTuple):
    offset: int
    head: Head

    @property
    def end(self) -> int:
        return self.offset + self.head.size


class EtkReader:
    """Reads one file.

    Opening raises EtkError if the header cannot be read. After that, with tolerate, damaged parts are passed
    over and reported in `damage`; without it the first one raises. UnsupportedVersion always raises.

    A pipe is kept in a temporary file as it is read, so that everything works on it as on a file, except that
    the index comes last. A source given as an open stream stays open and is read from where it stands.
    """

    def __init__(self, source: str | Path | BinaryIO, *, tolerate: bool = True) -> None:
        self.damage: list[Damage] = []
        self._tolerate = tolerate
        self._index: list[SegmentInfo] | None = None
        self._trailer: _Unit | None = None
        self._reported: set[Damage] = set()
        self._owned = isinstance(source, str | Path)
        self._name = str(source) if isinstance(source, str | Path) else "the input"
        self._stream: BinaryIO = _open(source)
        self._bytes: _Bytes = _File(self._stream) if self._stream.seekable() else _Pipe(self._stream)
        try:
            self._header, self._start = self._read_header()
            if self._bytes.size is not None:
                self._find_index(self._bytes.size)
        except BaseException:
            self.close()
            raise

    @property
    def header(self) -> Header:
        """Facts about the whole video."""
        return self._header

    @property
    def index(self) -> list[SegmentInfo] | None:
        """Where the segments are; None if the file has no sound index or, on a pipe, it has not come yet."""
        return self._index

    @property
    def frame_count(self) -> int | None:
        """Number of frames by the index, else by the header, else None."""
        if self._index is not None:
            return sum(info.frames for info in self._index)
        return self._header.frame_count

    @property
    def complete(self) -> bool:
        """Whether the file ends as it must and nothing damaged has been met so far."""
        return self._trailer is not None and not self.damage

    def segments(
        self, start_pts: int | None = None, end_pts: int | None = None, *, tokens: bool = True
    ) -> Iterator[Segment]:
        """Give the segments in order, one at a time in memory. Leaving out the tokens takes half the time.

        With times (in ticks of the header's time_base): only those with frames from start_pts on and before
        end_pts. The index, where there is one, spares reading the others.
        """
        return self._segments(start_pts, end_pts, tokens=tokens)

    def blocks(
        self, start_pts: int | None = None, end_pts: int | None = None, *, tokens: bool = True
    ) -> Iterator[Block]:
        """Give the blocks of the same segments."""
        for segment in self.segments(start_pts, end_pts, tokens=tokens):
            yield from segment.blocks

    def facts(self) -> Iterator[SegmentFacts]:
        """Give what the segments say about frames and blocks, without tokens and keep maps: in a third of the time."""
        for unit in self._walk():
            if unit.head.type == SEGMENT and (found := self._try_facts(unit)) is not None:
                yield found

    def parts(self) -> Iterator[Segment | bytes]:
        """Give segments and parts of the container stream with audio and subtitles, as they follow in the file."""
        for unit in self._walk():
            part: Segment | bytes | None = None  # so that the last one is gone before the next is decoded
            if unit.head.type == SEGMENT:
                part = self._try_segment(unit, tokens=True)
            elif unit.head.type == AUX:
                part = self._try_payload(unit)
            if part is not None:
                yield part

    def aux(self) -> Iterator[bytes]:
        """Give the parts of the container stream with audio and subtitles, in order."""
        for unit in self._walk():
            if unit.head.type == AUX and (payload := self._try_payload(unit)) is not None:
                yield payload

    def close(self) -> None:
        """Close what the reader has opened."""
        self._bytes.close()
        if self._owned:
            self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _segments(self, start_pts: int | None, end_pts: int | None, *, tokens: bool) -> Iterator[Segment]:
        start = float("-inf") if start_pts is None else start_pts
        end = float("inf") if end_pts is None else end_pts
        limited = start_pts is not None or end_pts is not None
        units = (
            self._indexed(self._index, start, end) if limited and self._index is not None else self._walk()
        )
        for unit in units:
            if unit.head.type != SEGMENT:
                continue
            segment = None  # so that the last one is gone before the next is decoded
            segment = self._try_segment(unit, tokens=tokens)
            if segment is None:
                continue
            if segment.blocks[0].pts[0] >= end:
                return
            if segment.blocks[-1].pts[-1] >= start:
                yield segment

    def _read_header(self) -> tuple[Header, int]:
        magic = self._bytes.read_at(0, len(MAGIC) + 1)
        if not magic:
            raise Truncated("the file is empty")
        if magic[: len(MAGIC)] != MAGIC[: len(magic)]:
            raise NotAnEtkFile(f"{self._name} is not an .etk file: the first bytes are wrong")
        if len(magic) <= len(MAGIC):
            raise Truncated("the file ends before or inside its header")
        if magic[-1] != VERSION:
            raise UnsupportedVersion(f"file version {magic[-1]}, this program reads version {VERSION}")
        try:
            unit = self._read_unit(len(magic))
            if unit.head.type != HEADER:
                raise Corrupt("the first unit is no header")
            return unpack_header(self._read_payload(unit)), unit.end
        except Truncated as error:
            raise Truncated("the file ends before or inside its header") from error
        except Corrupt as error:
            raise Corrupt(f"header: {error}") from error

    def _find_index(self, size: int) -> None:
        """Load the index of a seekable file, if it ends in a trailer. If not, the walk will find out why."""
        with suppress(EtkError):
            last = self._read_unit(max(size - TRAILER_SIZE, self._start))
            if last.head.type == TRAILER:
                self._trailer = last
        if self._trailer is not None:
            self._load_index(self._trailer)

    def _load_index(self, trailer: _Unit) -> None:
        try:
            offset = trailer.offset - int.from_bytes(self._read_payload(trailer), "little")
            unit = self._read_unit(max(offset, self._start))
            if unit.head.type != INDEX or unit.end != trailer.offset:
                raise Corrupt("the trailer does not point to an index")
            self._index = unpack_index(self._read_payload(unit), self._start, unit.offset)
        except EtkError as error:
            self._report(trailer.offset, error)

    def _walk(self) -> Iterator[_Unit]:
        """Give the whole units from the header to the trailer, searching for the next one after damage."""
        offset: int | None = self._start
        while offset is not None:
            try:
                unit = self._read_unit(offset)
            except Truncated as error:
                self._report(offset, error)
                return
            except EtkError as error:
                self._report(offset, error)
                offset = self._search(offset + 1)
                continue
            if not self._bytes.reaches(unit.end):
                self._report(offset, Truncated(f"the file ends inside the {unit.head.name}"))
                return
            if unit.head.type == TRAILER:
                if self._bytes.reaches(unit.end + 1):
                    self._report(unit.end, Corrupt("there are bytes after the trailer"))
                if self._trailer is None:
                    self._trailer = unit
                    self._load_index(unit)
                return
            yield unit
            offset = unit.end

    def _search(self, offset: int) -> int | None:
        """Find the next bytes that are the head of a unit inside the file."""
        while len(window := self._bytes.read_at(offset, _SEARCH_WINDOW_BYTES)) >= HEAD_SIZE:
            for position, head in find_heads(window):
                if self._bytes.reaches(offset + position + head.size):
                    return offset + position
            offset += len(window) - HEAD_SIZE + 1
        return None

    def _indexed(self, infos: list[SegmentInfo], start: float, end: float) -> Iterator[_Unit]:
        """Give the units of the segments between two times, by the index."""
        for info in infos:
            if info.last_pts < start or info.first_pts >= end:
                continue
            try:
                unit = self._read_unit(info.offset)
                if unit.head.type != SEGMENT or unit.head.size != info.length:
                    raise Corrupt("the index does not point to a segment")
            except EtkError as error:
                self._report(info.offset, error)
                continue
            yield unit

    def _read_unit(self, offset: int) -> _Unit:
        data = self._bytes.read_at(offset, HEAD_SIZE)
        if len(data) < HEAD_SIZE:
            raise Truncated("the file ends without a trailer")
        return _Unit(offset, parse_head(data))

    def _read_payload(self, unit: _Unit) -> bytes:
        payload = self._bytes.read_at(unit.offset + HEAD_SIZE, unit.head.length)
        if len(payload) < unit.head.length:
            raise Truncated(f"the file ends inside the {unit.head.name}")
        check_payload(unit.head, payload)
        return payload

    def _try_segment(self, unit: _Unit, *, tokens: bool) -> Segment | None:
        payload = self._try_payload(unit)
        if payload is None:
            return None
        try:
            number, blocks = unpack_segment(self._header, payload, tokens=tokens)
        except UnsupportedVersion:
            raise
        except EtkError as error:
            self._report(unit.offset, error)
            return None
        return Segment(number, blocks, unit.offset, unit.head.size)

    def _try_facts(self, unit: _Unit) -> SegmentFacts | None:
        payload = self._try_payload(unit)
        if payload is None:
            return None
        try:
            return unpack_facts(self._header, payload, unit.offset, unit.head.size)
        except EtkError as error:
            self._report(unit.offset, error)
            return None

    def _try_payload(self, unit: _Unit) -> bytes | None:
        try:
            return self._read_payload(unit)
        except EtkError as error:
            self._report(unit.offset, error)
            return None

    def _report(self, offset: int, error: EtkError) -> None:
        if not self._tolerate:
            raise error
        damage = Damage(offset, str(error))
        # reading twice meets the same damage twice; a hostile file may hold millions
        if damage not in self._reported and len(self.damage) < MAX_DAMAGE_REPORTS:
            self._reported.add(damage)
            self.damage.append(damage)


def _open(source: str | Path | BinaryIO) -> BinaryIO:
    return Path(source).open("rb") if isinstance(source, str | Path) else source


class _Bytes(Protocol):
    """Bytes by position, whatever they come from."""

    @property
    def size(self) -> int | None: ...

    def read_at(self, offset: int, size: int) -> bytes:
        """Read so many bytes, fewer only where the file ends."""

    def reaches(self, end: int) -> bool:
        """Tell whether the file has at least so many bytes."""

    def close(self) -> None: ...


class _File:
    """A seekable stream, from where it stands."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._base = stream.tell()
        self.size = stream.seek(0, os.SEEK_END) - self._base

    def read_at(self, offset: int, size: int) -> bytes:
        size = min(size, self.size - offset)  # a declared size may be anything: take no memory for it
        if size <= 0:
            return b""
        self._stream.seek(self._base + offset)
        return _read(self._stream, size)

    def reaches(self, end: int) -> bool:
        return end <= self.size

    def close(self) -> None:
        """The reader closes the stream if it is its own."""


class _Pipe:
    """A stream that cannot seek. What was read is kept, so that it can be read again."""

    size = None

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._kept = tempfile.SpooledTemporaryFile(_SPOOL_MEMORY_BYTES)  # noqa: SIM115
        self._filled = 0

    def read_at(self, offset: int, size: int) -> bytes:
        self.reaches(offset + size)
        self._kept.seek(offset)
        return self._kept.read(min(size, max(self._filled - offset, 0)))

    def reaches(self, end: int) -> bool:
        while self._filled < end:
            part = _read(self._stream, min(_SEARCH_WINDOW_BYTES, end - self._filled))
            if not part:
                return False
            self._kept.seek(self._filled)
            self._kept.write(part)
            self._filled += len(part)
        return True

    def close(self) -> None:
        self._kept.close()


def _read(stream: BinaryIO, size: int) -> bytes:
    """Read so many bytes, fewer only at the end; unbuffered streams give fewer anywhere."""
    data = stream.read(size)
    if len(data) == size or not data:
        return data
    parts = [data]
    while size > sum(map(len, parts)) and (part := stream.read(size - sum(map(len, parts)))):
        parts.append(part)
    return b"".join(parts)

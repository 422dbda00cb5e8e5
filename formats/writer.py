"""Writing .etk files, front to back: to a file or into a pipe."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np

from formats.errors import InvalidRecord, LimitExceeded
from formats.header import pack_header
from formats.index import pack_index
from formats.records import MAX_SEGMENTS, Block, Header, SegmentInfo
from formats.segment import pack_segment
from formats.wire import AUX, HEADER, INDEX, MAGIC, MIB, SEGMENT, TRAILER, VERSION, pack_unit

MAX_INDEX_ENTRY = 40  # bytes of a segment in the index, and more than enough


class EtkWriter:
    """Writes one file, append-only; never seeks.

    As a context manager it finishes the file on success. After an exception it leaves the file unfinished:
    readable up to its last segment. A target given as an open stream is flushed at the end but stays open.
    """

    def __init__(self, target: str | Path | BinaryIO, header: Header) -> None:
        payload = pack_header(header)  # before the target is touched
        self._owned = isinstance(target, str | Path)
        self._stream = _open(target)
        self._header = header
        self._infos: list[SegmentInfo] = []
        self._written = 0
        self._closed = False
        self._write(MAGIC + bytes([VERSION]) + pack_unit(HEADER, payload))
        self._start = self._written

    @property
    def bytes_written(self) -> int:
        """Size of the file so far."""
        return self._written

    def write_segment(self, blocks: Sequence[Block]) -> int:
        """Write a keyframe block and those that depend on it; return the bytes this took.

        Raises InvalidRecord or LimitExceeded, with nothing written, if the blocks break a rule of the format.
        """
        if len(self._infos) == MAX_SEGMENTS:
            raise LimitExceeded(f"a file has at most {MAX_SEGMENTS} segments")
        payload = pack_segment(self._header, len(self._infos), blocks)
        first_pts, last_pts = blocks[0].pts[0], blocks[-1].pts[-1]
        if self._infos and first_pts <= self._infos[-1].last_pts:
            raise InvalidRecord("presentation times must increase strictly")
        offset = self._written
        length = self._write(pack_unit(SEGMENT, payload))
        info = SegmentInfo(
            offset=offset,
            length=length,
            first_pts=first_pts,
            last_pts=last_pts,
            frames=sum(len(block.pts) for block in blocks),
            blocks=len(blocks),
            tokens=sum(block.token_count for block in blocks),
            missed=sum(block.missed for block in blocks),
            mse=float(np.mean([mse for block in blocks for mse in block.frame_mse])),
        )
        self._infos.append(info)
        return length

    def write_aux(self, data: bytes) -> int:
        """Write a part of the stream with audio and subtitles; return the bytes this took."""
        if self._header.aux is None:
            raise InvalidRecord("the header announces no aux container")
        parts = (data[start : start + MIB] for start in range(0, len(data), MIB))
        return sum(self._write(pack_unit(AUX, bytes(part))) for part in parts)

    def close(self) -> int:
        """Write index and trailer; return the size of the file. Closing twice does nothing more."""
        if not self._closed:
            index_size = self._write(pack_unit(INDEX, pack_index(self._infos, self._start)))
            self._write(pack_unit(TRAILER, index_size.to_bytes(4, "little")))
            self._release()
        return self._written

    @property
    def header(self) -> Header:
        """Facts about the whole video, as they were written."""
        return self._header

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        elif not self._closed:
            self._release()

    def _release(self) -> None:
        self._closed = True
        if self._owned:
            self._stream.close()
        else:
            self._stream.flush()

    def _write(self, data: bytes) -> int:
        if self._closed:
            raise ValueError("write to a closed EtkWriter")
        rest = memoryview(data)
        while rest:  # an unbuffered pipe may take less than all
            rest = rest[self._stream.write(rest) or 0 :]
        self._written += len(data)
        return len(data)


def segment_bytes(header: Header, blocks: Sequence[Block]) -> int:
    """How many bytes a segment of these blocks takes in a file, with its entry in the index.

    Raises InvalidRecord or LimitExceeded as `EtkWriter.write_segment`.
    """
    return len(pack_unit(SEGMENT, pack_segment(header, MAX_SEGMENTS - 1, blocks))) + MAX_INDEX_ENTRY


def _open(target: str | Path | BinaryIO) -> BinaryIO:
    return Path(target).open("wb") if isinstance(target, str | Path) else target

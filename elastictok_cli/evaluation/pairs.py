"""Frames of a source beside what files made of it, one moment at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

from elastictok_cli.video.records import Frame


class Timed(Protocol):
    """Anything shown at a time."""

    @property
    def pts(self) -> int:
        """In ticks of the source."""


T = TypeVar("T", bound=Timed)


class NotTheSource(Exception):
    """A file has a frame at a time where the source has none."""

    def __init__(self, number: int, pts: int) -> None:
        super().__init__(f"nothing in the source is shown at {pts}, but a frame of file {number} is")
        self.number = number  # which of the streams, from 0
        self.pts = pts


def align(
    source: Iterable[Frame], streams: Sequence[Iterator[T]], *, shift: int = 0, last: int | None = None
) -> Iterator[tuple[Frame, list[T | None]]]:
    """Each frame of the source with the item of each stream that has its pts (plus `shift`), or None.

    Ends with the last item of all streams, so that a file made from the beginning of a source is compared with that;
    not before `last` (a pts) where it is known that items up to there were lost. Holds one item of each stream. Raises
    NotTheSource.
    """
    waiting: list[T | None] = [next(stream, None) for stream in streams]
    for frame in source:
        pts = frame.pts + shift
        found: list[T | None] = []
        for number, (item, stream) in enumerate(zip(waiting, streams, strict=True)):
            if item is not None and item.pts < pts:
                raise NotTheSource(number, item.pts)
            if item is None or item.pts > pts:
                found.append(None)
                continue
            found.append(item)
            waiting[number] = next(stream, None)
        yield frame, found
        if all(item is None for item in waiting) and (last is None or pts >= last):
            return
    for number, item in enumerate(waiting):
        if item is not None:
            raise NotTheSource(number, item.pts)

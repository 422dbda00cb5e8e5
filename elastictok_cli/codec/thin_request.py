"""What to drop from a file so that it becomes as small as asked for. Needs neither the model nor torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction

from elastictok_cli.codec import rewrite
from elastictok_cli.codec.rewrite import BudgetTooSmall, Survey
from elastictok_cli.codec.thinning import Cap, Level
from formats import EtkReader, Header

MAX_KBPS = 10**9  # a terabit a second
_BYTES_PER_KILOBIT = 125


class NoDuration(ValueError):
    """A bit rate was asked for of a file that lasts no time: a still picture."""


@dataclass(frozen=True)
class ThinRequest:
    """How much to keep; exactly one is set. Raises ValueError where none or several are."""

    tokens: int | None = None  # at most so many in every cell, 0 or more
    share: float | None = None  # of all tokens, 0 to 1
    kbps: float | None = None  # kilobits a second of the whole file, above 0

    def __post_init__(self) -> None:
        if sum(value is not None for value in (self.tokens, self.share, self.kbps)) != 1:
            raise ValueError("say how much to keep: exactly one of tokens, keep and kbps")
        if self.tokens is not None and self.tokens < 0:
            raise ValueError(f"tokens must be 0 or more, not {self.tokens}")
        if self.share is not None and not 0 <= self.share <= 1:
            raise ValueError(f"keep must be from 0 to 1, not {self.share}")
        if self.kbps is not None and not 0 < self.kbps <= MAX_KBPS:
            raise ValueError(f"kbps must be more than 0 and at most {MAX_KBPS}, not {self.kbps}")

    def __str__(self) -> str:
        if self.tokens is not None:
            return f"tokens {self.tokens}"
        return f"keep {self.share:g}" if self.share is not None else f"kbps {self.kbps:g}"


def choose(
    request: ThinRequest,
    reader: EtkReader,
    found: Survey,
    tick: Callable[[], None],
    *,
    measured: bool,
) -> tuple[Cap | Level | None, Header]:
    """What to drop (None: nothing) and the header that says so.

    `found` has levels unless the request is a number of tokens. `measured`: errors will be recorded, which takes
    room. `tick` is called now and then while a bit rate is tried. Raises NoDuration, and BudgetTooSmall with the
    bytes of the file that has not a single token.
    """
    old = replace(reader.header, frame_count=found.frames)

    def header(rule: Cap | Level) -> Header:
        return rewrite.thinned_header(reader.header, str(request), rule, found.frames)

    rule: Cap | Level
    if request.tokens is not None:
        rule = Cap(request.tokens)
    elif request.share is not None:
        rule = rewrite.by_share(found, request.share)
    else:
        budget = _budget(reader.header, found, request.kbps or 0)
        if rewrite.size_as_it_is(reader, old, found) <= budget:
            return None, old
        # errors take two bytes a frame, and are not there yet while the budget is tried
        room = budget - (rewrite.error_bytes(found) if measured else 0)
        try:
            rule = rewrite.by_bytes(reader, header(Level(0)), found, room, tick)
        except BudgetTooSmall as error:
            raise BudgetTooSmall(error.bytes + budget - room) from None
    return (rule, header(rule)) if rewrite.drops(found, rule) else (None, old)


def kbps_of(size: int, header: Header, found: Survey) -> float:
    """Kilobits a second of a file of `size` bytes that shows what was found."""
    return float(Fraction(size, _BYTES_PER_KILOBIT) / _seconds(header, found))


def _budget(header: Header, found: Survey, kbps: float) -> int:
    """Bytes of the whole file at this bit rate."""
    seconds = _seconds(header, found)
    if seconds <= 0 or found.frames == 1:
        raise NoDuration("a still picture has no bit rate")
    return math.floor(Fraction(kbps) * _BYTES_PER_KILOBIT * seconds)


def _seconds(header: Header, found: Survey) -> Fraction:
    return found.ticks * Fraction(*header.time_base)

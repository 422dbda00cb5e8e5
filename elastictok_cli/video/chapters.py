"""Chapters of a source and of a result."""

from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import av

from elastictok_cli.video.records import Chapter


def read(
    container: Any, time_base: Fraction, low: Fraction | None, high: Fraction | None, shift: int
) -> list[Chapter]:
    """The chapters of an opened source that overlap low..high (seconds on its clock, None: no bound).

    They are cut to that, and moved by `shift` ticks of `time_base` towards zero.
    """
    found = []
    for chapter in container.chapters():
        base = Fraction(chapter["time_base"] or Fraction(1, av.time_base))
        start, end = chapter["start"] * base, chapter["end"] * base
        start, end = (
            max(start, low if low is not None else start),
            min(end, high if high is not None else end),
        )
        if end > start:
            title = chapter["metadata"].get("title", "")
            found.append(Chapter(round(start / time_base) - shift, round(end / time_base) - shift, title))
    return found


def write(container: Any, chapters: Iterable[Chapter], time_base: Fraction) -> None:
    """Give an output that nothing was muxed into yet its chapters. Those that end before 0 are left out."""
    container.set_chapters(
        [
            {
                "id": number,
                "start": max(0, chapter.start),
                "end": chapter.end,
                "time_base": time_base,
                "metadata": {"title": chapter.title} if chapter.title else {},
            }
            for number, chapter in enumerate(chapters)
            if chapter.end > 0
        ]
    )


def moved(
    chapters: Iterable[Chapter], time_base: Fraction, start: Fraction | None, duration: Fraction | None
) -> list[Chapter]:
    """The chapters of a window of `duration` seconds from `start` on (seconds; None: no bound), which becomes 0."""
    low = round((start or Fraction(0)) / time_base)
    high = None if duration is None else low + round(duration / time_base)
    cut = [
        Chapter(
            c.start if start is None else max(c.start, low),
            c.end if high is None else min(c.end, high),
            c.title,
        )
        for c in chapters
    ]
    return [Chapter(c.start - low, c.end - low, c.title) for c in cut if c.end > c.start]

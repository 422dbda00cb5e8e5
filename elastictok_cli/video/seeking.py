"""Reaching a later time in a source whose clock jumps, where FFmpeg's seeking by time would land elsewhere."""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

# A start this close to the first frame (seconds) is reached by decoding all before it.
MIN_SKIP_SECONDS = 2


def skip_pictures(packets: Iterable[Any], stream: int, until: Fraction) -> Iterator[Any]:
    """The packets without those of `stream` that decoding from `until` (seconds) on does not need.

    What is needed begins two keyframes before: pictures may refer to what stands before the last one (open GOP).
    """
    held: list[list[Any]] = [[], []]  # from the last keyframe but one on, and from the last one on
    reached = False
    for packet in packets:
        if reached or packet.stream.index != stream:
            yield packet
            continue
        if packet.is_keyframe:
            held = [held[1], []]
        held[1].append(packet)
        at_end = packet.dts is None and packet.pts is None and packet.size == 0
        if at_end or (packet.dts is not None and packet.dts * packet.time_base >= until):
            reached = True
            yield from held[0]
            yield from held[1]
            held = [[], []]

"""Which tokens of a block are control tokens, by what its file's header says, without the model.

Control tokens (motion vectors, gains, camera pans, camera shake, screen modes) stand at the head of a cell's sequence.
They tell the model how to read the codes after them. Some codes belong to them: without these, the control token says
nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from formats import PALETTE_SIZES, Block, ControlRange, Header, control_ranges

NOT_CONTROL = -1  # in `CodesAfter.each_frame`, besides counts
_VALUES = 1 << 16  # a token has 16 bits

IntArray = npt.NDArray[np.int64]


class CodesAfter(NamedTuple):
    """How many codes belong to each token value: so many for each real frame of the block, and so many besides."""

    each_frame: IntArray  # (65536,) NOT_CONTROL for codes
    besides: IntArray  # (65536,)


def codes_after(header: Header) -> CodesAfter:
    """For every token value: how many codes belong to it."""
    found = CodesAfter(np.full(_VALUES, NOT_CONTROL, np.int64), np.zeros(_VALUES, np.int64))
    for part in control_ranges(header):
        values = slice(part.first, part.first + part.count)
        found.each_frame[values] = part.followed_by
        found.besides[values] = _codes_of_mode(part)
    return found


def _codes_of_mode(part: ControlRange) -> IntArray:
    """The codes (count,) without which a screen mode says nothing; none for other kinds of control tokens."""
    codes = np.zeros(part.count, np.int64)
    if part.kind in ("whole_vector", "dct"):  # the vector; the first code of the stream
        codes[:] = 1
    elif part.kind == "palette":  # the colours, and the first code of the stream
        sizes = PALETTE_SIZES[: part.count]
        codes[: len(sizes)] = np.array(sizes) + 1
    return codes


def length_of_head(block: Block, after: CodesAfter) -> IntArray:
    """How many tokens at the head of each cell's sequence are control tokens or belong to one, (rows, columns).

    block: with its tokens. after: what `codes_after` gives for the file.
    """
    count, codes = np.zeros((2, *block.keep.shape), np.int64)
    start = 0
    for place in range(int(block.keep.max())):
        has = block.keep > place
        end = start + int(has.sum())
        values = np.zeros(block.keep.shape, np.uint16)
        values[has] = block.tokens[start:end]  # the file's order: all first tokens, all second ones
        start = end
        each_frame = after.each_frame[values]
        control = has & (count == place) & (each_frame != NOT_CONTROL)
        if not control.any():
            break
        count += control
        codes += np.where(control, each_frame * len(block.pts) + after.besides[values], 0)
    return np.asarray(np.minimum(count + codes, block.keep), np.int64)

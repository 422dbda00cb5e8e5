"""Which tokens of a block are control tokens, by what its file's header says, without the model.

Control tokens (motion vectors, gains, camera pans, camera shake) stand at the head of a cell's sequence. They tell the
model how to read the codes after them.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from formats import Block, ControlRange, Header, ModelRef

NOT_CONTROL = -1  # in what `codes_after` gives, besides counts
_VALUES = 1 << 16  # a token has 16 bits

# What the values from the first control token on meant in the default model when headers did not say it: kind, count,
# codes that follow for each frame. Older models have a smaller vocabulary, which ends earlier in this list.
_OLD_LAYOUT = (("motion_vector", 1521, 0), ("gain", 3, 0), ("pan", 2, 0), ("shake", 1, 1))

IntArray = npt.NDArray[np.int64]


def control_ranges(header: Header) -> tuple[ControlRange, ...]:
    """The ranges of control tokens of a file: the header's, or those of the vocabulary in files that have none."""
    return header.control_tokens or _ranges_by_vocabulary(header.model)


def _ranges_by_vocabulary(model: ModelRef) -> tuple[ControlRange, ...]:
    """For old files only, whose headers do not say it: the layout of the default model, up to the vocabulary."""
    if model.vector:
        return ()
    ranges = []
    first = math.prod(model.levels)
    for kind, count, followed_by in _OLD_LAYOUT:
        count = min(count, model.vocabulary - first)
        if count > 0:
            ranges.append(ControlRange(kind, first, count, followed_by))
            first += count
    return tuple(ranges)


def codes_after(header: Header) -> IntArray:
    """For every token value (65536,): how many codes belong to it for each real frame; NOT_CONTROL for codes."""
    found = np.full(_VALUES, NOT_CONTROL, np.int64)
    for part in control_ranges(header):
        found[part.first : part.first + part.count] = part.followed_by
    return found


def length_of_head(block: Block, after: IntArray) -> IntArray:
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
        own = after[values]
        control = has & (count == place) & (own != NOT_CONTROL)
        if not control.any():
            break
        count += control
        codes += np.where(control, own * len(block.pts), 0)
    return np.asarray(np.minimum(count + codes, block.keep), np.int64)

"""Which tokens to drop from a finished file, without its model and without its source.

A cell's tokens are nested: the first k of them are a coarser version of the cell. So thinning cuts the tails of
sequences, and has to decide how much to cut from which cell. A file does not say what a token is worth. Two facts
tell enough to put all tokens of a file in an order. `Levels` gives each token its place in that order, a whole number,
and thinning drops every token above one level.

- **Within a block**, the encoder kept tokens until none was worth its price. In a cell with K codes the K-th code was
  still worth it, so cells with more codes have more to lose. Cutting the same share of every cell, or every cell to
  the same length, is worse than a length that grows with a power of K below 1.
- **Along a segment**, blocks are predicted from the blocks before them. What a block loses is missing in all later ones
  up to the next keyframe block. So a token's worth grows with a power of the number of frames from its block to the end
  of the segment.

Three kinds of tokens go last: control tokens, because all codes behind them depend on them; the codes that belong to a
control token (camera shake; a whole vector; the first code of a DCT stream; the colours and the first code behind them
of a palette); and the first token of a cell in a keyframe block, because cells without tokens are filled in from it.
An ordered dither over the grid decides between cells that are alike. So any number of tokens can be kept, and no corner
of the picture loses its tokens first. `benchmarks/thin.py` compares the two powers with others.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from elastictok_cli.codec.control_tokens import codes_after, length_of_head
from formats import Block, Header, pack_tokens, unpack_tokens

CELL_POWER = 0.75  # how the length left of a cell grows with its codes: 0 the same for all, 1 in proportion
FRAME_POWER = 1.25  # how the worth of a block's tokens grows with the frames that depend on it
_CONTROL_TOKEN_DEPTH = (
    1 / 64
)  # depth of a control token: less than that of any first code (1/32 to 1 by dither)
_DITHER_VALUES = 16
_LEVELS_PER_OCTAVE = 1024  # one level is 0.07 % of a token's depth
_OCTAVES = 48  # of depth that have levels of their own: 2^-32 to 2^16
_MIN_DEPTH_LOG2 = -32
MAX_LEVEL = _LEVELS_PER_OCTAVE * _OCTAVES - 1  # the level that keeps everything

IntArray = npt.NDArray[np.int64]
UInt16Array = npt.NDArray[np.uint16]


@dataclass(frozen=True)
class Cap:
    """Keep at most so many tokens in every cell. Encoding with this length stores as much, but no screen modes."""

    tokens: int


@dataclass(frozen=True)
class Level:
    """Keep the tokens up to this level, 0 to MAX_LEVEL (see `Levels`); less than 0 keeps none."""

    level: int


class Levels:
    """The order in which the tokens of a file go: the highest level first."""

    def __init__(self, header: Header) -> None:
        self._codes_after = codes_after(header)
        self._vectors = header.model.vector > 0
        self._dither = _dither(*header.grid)
        self._one_length = header.allocation == "block"

    def count(self, blocks: Sequence[Block]) -> IntArray:
        """How many tokens of a segment stand at each level, (MAX_LEVEL + 1,). The blocks come with their tokens."""
        total = np.zeros(MAX_LEVEL + 1)  # float64 is exact: a segment has 2^24 tokens at most
        for number, (block, shift) in enumerate(zip(blocks, _shifts(blocks), strict=True)):
            groups = self._groups(block, keyframe=number == 0)
            owner, levels = groups.levels(shift)
            total += np.bincount(levels, groups.cells[owner], minlength=MAX_LEVEL + 1)
        return total.astype(np.int64)

    def keep(self, blocks: Sequence[Block], level: int) -> Iterator[UInt16Array]:
        """The keep maps that remain of a segment's blocks, (rows, columns) each."""
        for number, (block, shift) in enumerate(zip(blocks, _shifts(blocks), strict=True)):
            groups = self._groups(block, keyframe=number == 0)
            owner, levels = groups.levels(shift)
            left = np.bincount(owner[levels <= level], minlength=len(groups.cells))
            yield left[groups.of_cell].reshape(block.keep.shape).astype(np.uint16)

    def _groups(self, block: Block, keyframe: bool) -> _CellGroups:
        keep = block.keep.astype(np.int64)
        if self._one_length:  # all cells as the longest, so that what remains is one length again
            longest = np.full_like(keep, keep.max())
            head = np.zeros_like(keep)
            dither = np.full_like(keep, _DITHER_VALUES // 2)
        else:
            longest = keep
            head = np.zeros_like(keep) if self._vectors else length_of_head(block, self._codes_after)
            if keyframe:
                head = np.maximum(head, keep > 0)
            dither = self._dither
        sides = (int(longest.max()) + 1, int(head.max()) + 1, _DITHER_VALUES, int(keep.max()) + 1)
        key = np.ravel_multi_index((longest, head, dither, keep), sides).ravel()
        groups, of_cell, cells = np.unique(key, return_inverse=True, return_counts=True)
        longest, head, dither, keep = np.unravel_index(groups, sides)
        return _CellGroups(keep, longest, head, dither, cells, of_cell)


@dataclass(frozen=True)
class _CellGroups:
    """The cells of a block, those that are alike taken together: n groups."""

    tokens: IntArray  # (n,) kept in each of these cells
    longest: IntArray  # (n,) the length that tokens are judged by: that of the cell, or of its block
    head: IntArray  # (n,) of them control tokens, and codes that belong to one
    dither: IntArray  # (n,) 0 to 15
    cells: IntArray  # (n,) how many
    of_cell: IntArray  # (rows * columns,) the group of each cell

    def levels(self, shift: int) -> tuple[IntArray, IntArray]:
        """For each token of each group: its group and its level, which does not fall along a sequence."""
        owner = np.repeat(np.arange(len(self.tokens)), self.tokens)
        begins = np.cumsum(self.tokens) - self.tokens
        place = np.arange(len(owner)) - begins[owner] - self.head[owner]
        depth = np.maximum(place, 0) + 1 - (self.dither[owner] + 0.5) / _DITHER_VALUES
        depth = np.where(place < 0, depth * _CONTROL_TOKEN_DEPTH, depth)
        codes = np.maximum(self.longest - self.head, 1)
        worth = np.rint(CELL_POWER * np.log2(codes) * _LEVELS_PER_OCTAVE).astype(np.int64) + shift
        level = (
            np.floor((np.log2(depth) - _MIN_DEPTH_LOG2) * _LEVELS_PER_OCTAVE).astype(np.int64) - worth[owner]
        )
        return owner, np.clip(level, 0, MAX_LEVEL)


def thinned(header: Header, blocks: Sequence[Block], rule: Cap | Level) -> list[Block]:
    """The blocks of a segment with fewer tokens. Errors become unknown, as nothing was decoded."""
    if isinstance(rule, Cap):
        keeps: Iterator[UInt16Array] = (np.minimum(b.keep, rule.tokens).astype(np.uint16) for b in blocks)
    else:
        keeps = Levels(header).keep(blocks, rule.level)
    return [cut(block, keep, header.model.tokens_per_cell) for block, keep in zip(blocks, keeps, strict=True)]


def cut(block: Block, keep: UInt16Array, tokens_per_cell: int) -> Block:
    """The block with the first `keep` (rows, columns) tokens of each cell, its error unknown."""
    tokens = block.tokens
    if not np.array_equal(keep, block.keep):
        longest = max(int(block.keep.max()), 1)
        tokens = pack_tokens(unpack_tokens(tokens, block.keep, min(longest, tokens_per_cell)), keep)
    unknown = (math.nan,) * len(block.pts)
    return replace(block, keep=keep, tokens=tokens, frame_mse=unknown, missed=False)


def level_for(counts: IntArray, tokens: int) -> int:
    """The highest level that keeps at most `tokens`; -1 where even level 0 is too much. counts: (MAX_LEVEL + 1,)."""
    return int(np.searchsorted(counts.cumsum(), tokens, side="right")) - 1


def _shifts(blocks: Sequence[Block]) -> list[int]:
    """For each block, how many levels its tokens are below those of the segment's last frame alone."""
    frames = [len(block.pts) for block in blocks]
    left = np.cumsum(frames[::-1])[::-1] / sum(frames)  # share of the segment that sees the block
    return [round(FRAME_POWER * math.log2(share) * _LEVELS_PER_OCTAVE) for share in left]


def _dither(rows: int, columns: int) -> IntArray:
    """An ordered dither, 4 x 4 cells: 0 to 15."""
    two = np.array([[0, 2], [3, 1]])
    four = np.block([[4 * two, 4 * two + 2], [4 * two + 3, 4 * two + 1]])
    return np.tile(four, (-(-rows // 4), -(-columns // 4)))[:rows, :columns].astype(np.int64)

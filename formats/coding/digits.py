"""The codes of codings 4 and 5, where control tokens are known before (SPEC.md, 6.1 step 3, and 6.4 "Order").

What context a digit has then follows from the keep map and from how many control tokens its cell has. So the order of
digits is found for many tokens at once, for writer and reader alike.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from formats.coding.adaptive import Tables, digits_of, runs
from formats.coding.rans import Coder, Symbols
from formats.coding.screen_codes import ScreenCodes
from formats.records import UInt16Array

CONTEXTS = 8
_GROUPS = np.array(
    [0, 1, 2, 2, 2, 2, 3], np.uint16
)  # of contexts, by how many codes the cell has had, 6 standing for more
_TOKENS_AT_ONCE = 1 << 17  # bounds the memory; but all those of one index at least

FirstCounts = Callable[[int, int], Symbols]  # of a digit's number and its context


class Cells(NamedTuple):
    """The cells of a segment, n in all."""

    keep: npt.NDArray[np.integer]  # (n,)
    later: npt.NDArray[np.bool_]  # (n,) not of the first block
    controls: Symbols  # (n,) control tokens, which come first
    screen_number: Symbols | None  # (n,) of each screen cell among them, -1 for other cells


class _Part(NamedTuple):
    """The tokens of some indices of the sequences, m in all: which are coded as digits, and in which order."""

    places: npt.NDArray[np.integer]  # (k,) of the digits' tokens among the m, sorted by index and context
    runs: list[list[tuple[int, int, int]]]  # for each index: context, start, end of runs of equal contexts
    screen_places: list[Symbols]  # for each index: places of the codes of screen cells
    screen_cells: list[Symbols]  # and their cells' numbers


def code(
    ordered: UInt16Array,
    cells: Cells,
    levels: tuple[int, ...],
    coder: Coder,
    first_counts: FirstCounts,
    screen: ScreenCodes | None,
) -> Iterator[tuple[slice, UInt16Array]]:
    """Code all codes of a segment; `ordered` (N,): its tokens, of which a reader knows the control tokens only.

    Yields parts of the tokens: where they are in `ordered`, and what they are.
    """
    tables = Tables()
    of_values = digits_of(levels)
    weights = [math.prod(levels[:number]) for number in range(len(levels))]
    place = 0
    for first_index, lists in _indices(cells.keep):
        part = _part(first_index, lists, cells)
        span = slice(place, place + sum(map(len, lists)))
        place = span.stop
        values = ordered[span].copy()
        # what a reader has in place of codes is 0
        digits = of_values[:, values[part.places]]
        for number, own_runs in enumerate(part.runs):
            for digit, row in enumerate(digits):
                for context, start, end in own_runs:
                    table = tables.table((digit, context), partial(first_counts, digit, context))
                    row[start:end] = table.code(row[start:end], coder)
            own = part.screen_places[number] if screen is not None else ()
            if screen is not None and len(own):
                index = first_index + number
                known = values[own].astype(np.int64)
                values[own] = screen.code(index, part.screen_cells[number], known, coder)
        codes = np.zeros(len(part.places), np.uint16)
        for weight, row in zip(weights, digits, strict=True):
            codes += row * np.uint16(weight)
        values[part.places] = codes
        yield span, values


def _indices(keep: npt.NDArray[np.integer]) -> Iterator[tuple[int, list[Symbols]]]:
    """For some indices of the sequences at a time: the first one, and for each the cells that have it."""
    cells = keep.nonzero()[0]
    lengths = keep[cells]
    index, first, total = 0, 0, 0
    lists: list[Symbols] = []
    while len(cells):
        if lists and total + len(cells) > _TOKENS_AT_ONCE:
            yield first, lists
            first, lists, total = index, [], 0
        lists.append(cells)
        total += len(cells)
        index += 1
        left = lengths > index
        if not left.all():
            cells, lengths = cells[left], lengths[left]
    if lists:
        yield first, lists


def _part(first_index: int, lists: list[Symbols], cells: Cells) -> _Part:
    cell = np.concatenate(lists)
    number = np.repeat(np.arange(len(lists)), [len(each) for each in lists])
    had = number + first_index
    had -= cells.controls[cell]  # codes before this one
    is_code = had >= 0
    screen_places: list[Symbols] = []
    screen_cells: list[Symbols] = []
    if cells.screen_number is not None:
        in_screen = cells.screen_number[cell] >= 0
        own = (is_code & in_screen).nonzero()[0]
        ends = np.bincount(number[own], minlength=len(lists)).cumsum()[:-1]
        screen_places = np.split(own, ends)
        screen_cells = np.split(cells.screen_number[cell[own]], ends)
        is_code &= ~in_screen
    places = is_code.nonzero()[0]
    context = _GROUPS[np.minimum(had[places], len(_GROUPS) - 1)]
    context *= 2
    context += cells.later[cell[places]]
    # at most 8192 indices of 8 contexts
    key = number[places].astype(np.uint16)
    key *= CONTEXTS
    key += context
    order = key.argsort(kind="stable")
    key = key[order]
    by_index: list[list[tuple[int, int, int]]] = [[] for _ in lists]
    for which, start, end in runs(key):
        by_index[which // CONTEXTS].append((which % CONTEXTS, start, end))
    return _Part(places[order], by_index, screen_places, screen_cells)

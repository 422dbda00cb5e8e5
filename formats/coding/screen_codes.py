"""Entropy coding of the codes of screen modes: whole vectors, DCT streams, palettes (SPEC.md, 6.4).

Such a code holds three symbols of 40 values each. A symbol's frequencies adapt, by context: what the code is for, the
symbol before in the same stream, and, of palettes, where pixels of the row above were wrongly predicted.
"""

from collections.abc import Sequence
from functools import cache, partial
from importlib import resources
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from formats.coding.adaptive import Tables, digits_of, runs
from formats.coding.rans import Coder, Symbols
from formats.errors import Corrupt
from formats.records import PALETTE_SIZES, ControlRange

SYMBOLS = 40  # values of a symbol
CODES = SYMBOLS**3  # of three of them
_WEIGHTS = (1, SYMBOLS, SYMBOLS**2)
_END = SYMBOLS - 1  # of a pass of a DCT stream, and of a palette's stream

NOT_SCREEN, WHOLE_VECTOR, DCT, PALETTE = range(4)
_MODES = {"whole_vector": WHOLE_VECTOR, "dct": DCT, "palette": PALETTE}

Small = npt.NDArray[np.int16]

# Contexts, by number. Each has a table of its own.
_VECTOR = 0  # + number of the symbol
_COLOUR = (
    3  # + place class, + 3 times the number of the symbol; the last symbol: + 3 * how far off the second was
)
_PLACES, _DIFFERENCES = 3, 3
_FIRST = (
    _COLOUR + 2 * _PLACES + _PLACES * _DIFFERENCES
)  # + 2 * whether of a palette + whether of a later block
_PULSES = _FIRST + 4  # + class of the symbol before
_PULSE_CLASSES = 11
_LABELS = (
    _PULSES + _PULSE_CLASSES
)  # + distance class + 9 * (whether it may be the last code + 2 * (labels - 2))
_LABEL_COUNTS, _DISTANCES = 8, 9
_FINER = _LABELS + _LABEL_COUNTS * 2 * _DISTANCES
_PADDING = _FINER + 1
CONTEXTS = _PADDING + 1
FITTED = slice(_FIRST, _FINER)  # those whose first counts are in a file
# Of these, groups in which all symbols mean the same: the first ones of DCT streams and of palettes, pulses, and labels
# of which there are equally many.
ALIKE = (
    slice(_FIRST, _FIRST + 2),
    slice(_FIRST + 2, _PULSES),
    slice(_PULSES, _LABELS),
    *(slice(start, start + 2 * _DISTANCES) for start in range(_LABELS, _FINER, 2 * _DISTANCES)),
)

_RUN_SYMBOLS = 36  # of a palette's stream; the next three skip 1, 4, 16 times as many pixels as they can say
_ROW = 16  # pixels
_AT_END, _BEHIND_END = 1, 2  # of a palette's stream: inside the code in which it ends, and after it

# Class of the symbol before in a DCT stream: 0 none, 1 end of a pass, 2 to 6 skips, 7 to 10 pulses behind longer runs.
_CLASS_OF_PULSE = np.array([7] * 2 + [8] * 4 + [9] * 8 + [10] * 20 + [2, 3, 4, 5, 6] + [1], np.int16)
# Class of the distance, 0 to 16, to the first pixel below one that was wrongly predicted.
_CLASS_OF_DISTANCE = np.array([0, 1, 2, 3, 4, 4, 5, 5, 6, 6, 6, 6, 7, 7, 7, 7, 8], np.int16)


class Modes(NamedTuple):
    """What token values say about the codes after them, as far as it is a screen mode."""

    mode: npt.NDArray[np.int64]  # (65536,) one of NOT_SCREEN, WHOLE_VECTOR, DCT, PALETTE
    colours: npt.NDArray[np.int64]  # (65536,) of a palette, else 0


def modes_of(ranges: Sequence[ControlRange]) -> Modes | None:
    """The screen modes among control tokens; None where there is none."""
    mode, colours = np.zeros((2, 1 << 16), np.int64)
    for part in ranges:
        which = _MODES.get(part.kind, NOT_SCREEN)
        count = min(part.count, len(PALETTE_SIZES)) if which == PALETTE else part.count
        mode[part.first : part.first + count] = which
        if which == PALETTE:
            colours[part.first : part.first + count] = PALETTE_SIZES[:count]
    return Modes(mode, colours) if mode.any() else None


class ScreenCodes:
    """The codes of the n cells of a segment that have a screen mode, index by index."""

    def __init__(
        self,
        mode: Symbols,  # (n,)
        colours: Symbols,  # (n,) of a palette, else 0
        begin: Symbols,  # (n,) index of the first code: how many control tokens are before it
        keep: Symbols,  # (n,)
        later: Symbols,  # (n,) 1 if not of the segment's first block, else 0
        code_values: int,  # codes are below it
    ) -> None:
        self._code_values = code_values
        self._tables = Tables()
        # small numbers in small types: a segment has up to a million cells
        self._of_palette = mode == PALETTE
        self._begin, self._keep, self._colours, self._later = (
            x.astype(np.int16) for x in (begin, keep, colours, later)
        )
        # index of the first code of the stream
        self._stream = self._begin + np.where(mode == WHOLE_VECTOR, np.int16(1), self._colours)
        # where each stream stands: DCT streams use `before`, the class of the last symbol; those of palettes the rest
        self._before, self._labels, self._end = np.zeros((3, len(mode)), np.int16)
        # bit k: the pixel k + 1 before the next one was wrongly predicted
        self._missed = np.zeros(len(mode), np.int32)

    def code(self, index: int, cells: Symbols, values: Symbols, coder: Coder) -> Symbols:
        """Code the values (m,) of the codes at an index; cells: (m,) the numbers of their cells, ascending.

        Raises Corrupt where a value is no code of the model.
        """
        of_palette = self._of_palette[cells]
        where = of_palette.nonzero()[0]
        palettes = _Palettes(self, index, cells[where]) if len(where) else None
        elsewhere = slice(None) if palettes is None else (~of_palette).nonzero()[0]
        pulses = None if len(where) == len(cells) else _Pulses(self, index, cells[elsewhere])
        symbols = digits_of((SYMBOLS,) * len(_WEIGHTS))[:, values]
        contexts = np.empty(len(cells), np.int16)
        result = np.zeros(len(values), np.int64)
        for number, weight in enumerate(_WEIGHTS):
            own = symbols[number]
            if pulses is not None:
                contexts[elsewhere] = pulses.contexts(number)
            if palettes is not None:
                contexts[where] = palettes.contexts(number)
                own[where] = palettes.coded(own[where])
            coded = self._code_by_context(contexts, own, coder)
            if palettes is not None:
                coded[where] = palettes.advance(number, coded[where])
            if pulses is not None:
                pulses.advance(number, coded[elsewhere])
            result += weight * coded
        for part in (pulses, palettes):
            if part is not None:
                part.store()
        if int(result.max(initial=0)) >= self._code_values:
            raise Corrupt("a code is outside the codes of the model")
        return result

    def _code_by_context(self, contexts: Small, symbols: npt.NDArray[np.uint8], coder: Coder) -> Symbols:
        """Code symbols (m,), those of the lowest context first."""
        order = contexts.argsort(kind="stable")
        symbols = symbols[order]
        coded = np.empty(len(symbols), np.int64)
        for context, start, end in runs(contexts[order]):
            table = self._tables.table((context,), partial(_first_counts_of, context))
            coded[start:end] = table.code(symbols[start:end], coder)
        result = np.empty_like(coded)
        result[order] = coded
        return result


class _Pulses:
    """The codes of m cells at one index that are a whole vector or of a DCT stream, and where the streams stand."""

    def __init__(self, codes: ScreenCodes, index: int, cells: Symbols) -> None:
        self._codes, self._cells = codes, cells
        stream = codes._stream[cells]
        self._in_stream, self._begins = index >= stream, index == stream
        self._some_vectors, self._some_begin = not np.all(self._in_stream), bool(np.any(self._begins))
        self._first_context = _FIRST + codes._later[cells]
        self._before: Small = codes._before[cells]

    def contexts(self, number: int) -> Small:
        """The contexts (m,) of the symbols with this number in their code."""
        found: Small = self._before + np.int16(_PULSES)
        if self._some_vectors:
            found = np.where(self._in_stream, found, np.int16(_VECTOR + number))
        if self._some_begin and number == 0:
            found = np.where(self._begins, self._first_context, found)
        return found

    def advance(self, number: int, symbols: Symbols) -> None:
        """Note the symbols (m,) with this number."""
        before = _CLASS_OF_PULSE[symbols]
        if self._some_vectors or self._some_begin:
            in_pulses = self._in_stream & ~self._begins if number == 0 else self._in_stream
            before = np.where(in_pulses, before, self._before)
        self._before = before

    def store(self) -> None:
        """Keep where the streams stand."""
        self._codes._before[self._cells] = self._before


class _Palettes:
    """The codes of m cells at one index that are of a palette, a colour or of the stream of labels."""

    def __init__(self, codes: ScreenCodes, index: int, cells: Symbols) -> None:
        self._codes, self._cells = codes, cells
        stream = codes._stream[cells]
        self._place = np.minimum(index - codes._begin[cells], _PLACES - 1)
        self._in_colour, self._begins = index < stream, index == stream
        self._first_context = _FIRST + 2 + codes._later[cells]
        self._colours = codes._colours[cells]
        left = codes._keep[cells] - 1 - index
        self._may_close = (left == 0) | (left == self._colours)
        self._labels: Small = codes._labels[cells]
        self._missed: npt.NDArray[np.int32] = codes._missed[cells]
        self._end: Small = np.where(codes._end[cells] > 0, np.int16(_BEHIND_END), np.int16(0))
        # the symbols before in the same code, and what was coded for them
        self._before, self._coded = np.zeros((2, len(cells)), np.int64)

    def contexts(self, number: int) -> Small:
        """The contexts (m,) of the symbols with this number in their code."""
        colour = _COLOUR + _PLACES * number + self._place
        if number == 2:
            off = np.minimum(self._coded, SYMBOLS - self._coded)
            colour += _PLACES * ((off > 0).astype(np.int16) + (off > 2))
        labels = 2 * (np.maximum(self._labels, 2) - 2) + self._may_close
        labels = _LABELS + _DISTANCES * labels + _class_of_missed()[self._missed]
        labels[self._end == _AT_END], labels[self._end == _BEHIND_END] = _PADDING, _FINER
        if number == 0:
            labels = np.where(self._begins, self._first_context, labels)
        return np.where(self._in_colour, colour, labels)

    def coded(self, symbols: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
        """What is coded for symbols (m,): of a colour, but its first one, the difference to the one before."""
        coded: npt.NDArray[np.integer] = (symbols - np.where(self._in_colour, self._before, 0)) % SYMBOLS
        return coded

    def advance(self, number: int, coded: Symbols) -> Symbols:
        """The symbols (m,) with this number, from what was coded for them; they are noted."""
        before: Symbols = (coded + np.where(self._in_colour, self._before, 0)) % SYMBOLS
        self._before, self._coded = before, coded
        symbols = before.astype(np.int16)
        in_labels = ~self._in_colour & (self._end == 0)
        if number == 0:  # the first symbol of a stream
            labels = self._colours + (symbols & 1)
            self._labels = np.where(in_labels & self._begins, labels, self._labels)
            in_labels &= ~self._begins
        others = np.maximum(self._labels - 1, 1)
        says_label = symbols < _RUN_SYMBOLS
        skipped = _RUN_SYMBOLS // others << 2 * np.clip(symbols - _RUN_SYMBOLS, 0, 2)
        passed = np.minimum(np.where(says_label, symbols // others + 1, skipped), _ROW)  # pixels
        missed = (self._missed << passed | says_label) & (1 << _ROW) - 1
        self._missed = np.where(in_labels, missed, self._missed)
        self._end[in_labels & (symbols == _END)] = _AT_END
        return before

    def store(self) -> None:
        """Keep where the streams stand."""
        codes, cells = self._codes, self._cells
        codes._labels[cells], codes._missed[cells], codes._end[cells] = self._labels, self._missed, self._end


@cache
def _class_of_missed() -> Small:
    """The distance class for every set of pixels (65536,) that were wrongly predicted among the last 16."""
    missed = np.arange(1 << _ROW)
    distance = np.full(1 << _ROW, _ROW)
    for bit in range(_ROW):
        distance[missed >> bit > 0] = _ROW - 1 - bit
    classes: Small = _CLASS_OF_DISTANCE[distance]
    return classes


@cache
def first_counts() -> Symbols:
    """What the counts of each context begin as, (CONTEXTS, 40)."""
    counts = np.ones((CONTEXTS, SYMBOLS), np.int64)
    # how a channel of a colour differs from the one before: mostly not at all, or by little
    counts[_COLOUR + _PLACES : _FIRST, [0, 1, -1, 2, -2]] = 16, 4, 4, 2, 2
    with resources.files("formats").joinpath("screen_tables.npz").open("rb") as file:
        stored = np.load(file, allow_pickle=False)
        counts[FITTED] = stored["counts"]
    counts[_FINER] = np.where(np.arange(SYMBOLS) < 7, 8, 0)  # steps in a level of a colour's channel
    counts[_PADDING] = np.arange(SYMBOLS) == _END
    return counts


def _first_counts_of(context: int) -> Symbols:
    counts: Symbols = first_counts()[context]
    return counts

"""Token codings 3 and 4: adaptive range coding of digits (SPEC.md, 6.1 and 6.2)."""

import math
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from formats.coding import control_tokens, networks, wavefront
from formats.coding.rans import Coder, Reader, Symbols, Writer, cumulative_of
from formats.coding.rans import lanes_for as _lanes_for
from formats.errors import Corrupt
from formats.records import ModelRef, UInt16Array

_MIN_CHUNK_SYMBOLS = 16  # symbols coded with one state of a table
_COUNT_INCREMENT = 2  # what a symbol adds to its count
_TOKENS_PER_LANE = 1024
_MAX_ALPHABET_SYMBOLS = 256  # of an alphabet: bounds what a file can make a reader do


def lanes_for(tokens: int) -> int:
    """How many lanes a segment of so many tokens is coded in: a power of two, 1 to 1024."""
    return _lanes_for(tokens, _TOKENS_PER_LANE)


def allows(model: ModelRef) -> bool:
    """Whether a model's tokens may be coded so: no alphabet has more than 256 symbols."""
    special_values = model.vocabulary - math.prod(model.levels)
    return max(model.levels) <= _MAX_ALPHABET_SYMBOLS and special_values <= (_MAX_ALPHABET_SYMBOLS - 1) ** 2


def encode(ordered: UInt16Array, keeps: UInt16Array, model: ModelRef) -> bytes:
    """Code the tokens of a segment, (N,) in file order; keeps: (blocks, h, w)."""
    writer = Writer(lanes_for(len(ordered)))
    for _ in _walk(ordered, keeps, model, writer):
        pass
    return writer.bytes()


def decode(data: bytes | memoryview, keeps: UInt16Array, model: ModelRef) -> UInt16Array:
    """Undo encode. Raises Corrupt when the bytes are too few, too many, or do not end as they must."""
    ordered = np.zeros(int(keeps.sum(dtype=np.int64)), np.uint16)
    reader = Reader(data, lanes_for(len(ordered)))
    for span, values in _walk(ordered, keeps, model, reader):
        ordered[span] = values
    reader.finish()
    return ordered


def allows_predicted(keeps: UInt16Array, model: ModelRef) -> bool:
    """Whether tokens may be coded by coding 4."""
    return allows(model) and keeps.size <= wavefront.MAX_PREDICTED_CELLS


def encode_predicted(
    ordered: UInt16Array, keeps: UInt16Array, frames: Symbols, model: ModelRef
) -> bytes | None:
    """Coding 4, or None where special tokens stand in other places than it can tell. frames: (blocks,) real frames."""
    regular = math.prod(model.levels)
    flat = keeps.ravel()
    counts = [int((flat > index).sum()) for index in (0, 1)]
    first, second = np.full((2, len(flat)), -1, np.int64)
    first[flat > 0] = ordered[: counts[0]]
    second[flat > 1] = ordered[counts[0] : sum(counts)]
    pattern = control_tokens.patterns_of(first, second, regular, model.vocabulary)
    lead = _CONTROL_TOKENS_IN[pattern]
    if (ordered >= regular).sum() != lead.sum():
        return None
    writer = Writer(lanes_for(len(ordered)))
    if model.vocabulary > regular:
        control_tokens.code_control_tokens(
            first, second, pattern, keeps, frames, regular, model.vocabulary, writer
        )
    for _ in _walk(ordered, keeps, model, writer, lead):
        pass
    return writer.bytes()


def decode_predicted(
    data: bytes | memoryview, keeps: UInt16Array, frames: Symbols, model: ModelRef
) -> UInt16Array:
    """Undo encode_predicted. Raises Corrupt as decode does."""
    regular = math.prod(model.levels)
    flat = keeps.ravel()
    ordered = np.zeros(int(flat.sum(dtype=np.int64)), np.uint16)
    reader = Reader(data, lanes_for(len(ordered)))
    lead = np.zeros(len(flat), np.int64)
    if model.vocabulary > regular:
        blank = np.zeros(len(flat), np.int64)
        pattern, (first, second) = control_tokens.code_control_tokens(
            blank, blank, blank, keeps, frames, regular, model.vocabulary, reader
        )
        lead = _CONTROL_TOKENS_IN[pattern]
        count = int((flat > 0).sum())
        ordered[:count] = first[flat > 0]
        ordered[count : count + int((flat > 1).sum())] = second[flat > 1]
    for span, values in _walk(ordered, keeps, model, reader, lead):
        ordered[span] = values
    reader.finish()
    return ordered


_CONTROL_TOKENS_IN = np.array([0, 1, 1, 2])  # special tokens of each pattern


class _Table:
    """Adaptive frequencies of one context. Counts change only between chunks, which grow with experience."""

    def __init__(self, counts: Symbols) -> None:
        self._counts: list[int] = counts.tolist()
        self._seen = 0

    def _chunk(self) -> int:
        """How many symbols may be coded before the next update."""
        return max(_MIN_CHUNK_SYMBOLS, self._seen // 4)

    def _update(self, symbols: Symbols) -> None:
        counts = self._counts
        self._seen += len(symbols)
        if len(symbols) <= 4 * len(counts):
            for symbol in symbols.tolist():
                counts[symbol] += _COUNT_INCREMENT
        else:
            for symbol, times in enumerate(np.bincount(symbols).tolist()):
                counts[symbol] += _COUNT_INCREMENT * times

    def code(self, symbols: Symbols, coder: Coder) -> Symbols:
        """Code symbols (n,) one chunk after the other, learning from each."""
        parts = []
        done = 0
        while done < len(symbols):
            chunk = symbols[done : done + self._chunk()]
            part = coder.code_alike(cumulative_of(self._counts), chunk)
            self._update(part)
            parts.append(part)
            done += len(chunk)
        return parts[0] if len(parts) == 1 else np.concatenate([*parts, symbols[:0]])


def _walk(
    ordered: UInt16Array, keeps: UInt16Array, model: ModelRef, coder: Coder, lead: Symbols | None = None
) -> Iterator[tuple[slice, Symbols]]:
    """The order of symbols and their contexts, for writer and reader alike.

    `ordered` is read where the writer runs; of the reader's results only what was yielded (and by then
    stored there) is used. Yields each run of equal sequence indices with its values. `lead` (cells,) says how many
    special tokens each cell begins with, where these are known (and stored in `ordered`) already and all there are.
    """
    levels = model.levels
    regular_values = math.prod(levels)
    special_values = model.vocabulary - regular_values
    radix = math.isqrt(special_values)
    tables: dict[tuple[object, ...], _Table] = {}
    flat = keeps.ravel()
    first_block = keeps[0].size
    told = np.zeros(len(flat), np.int64)  # regular tokens each cell has told so far
    first = 0
    for index in range(int(flat.max(initial=0))):
        cells = np.flatnonzero(flat > index)
        span = slice(first, first + len(cells))
        first += len(cells)
        values = ordered[span].astype(np.int64)
        later = (cells >= first_block).astype(np.int64)  # not of the keyframe block
        special = np.zeros(len(cells), bool)
        if lead is not None:
            special = lead[cells] > index
        elif special_values:
            for kind, where in _groups(later):
                table = _table(tables, ("special", min(index, 2), kind), lambda: np.array([16, 2], np.int64))
                special[where] = table.code((values[where] >= regular_values).astype(np.int64), coder) > 0
        if lead is None and special.any():
            values[special] = regular_values + _special(
                values[special] - regular_values, special_values, radix, tables, coder
            )
        places = np.flatnonzero(~special)
        rest = values[places]
        context = 2 * _group_of(told[cells[places]]) + later[places]
        groups = list(_groups(context))
        result = np.zeros_like(rest)
        weight = 1
        for number, level in enumerate(levels):
            rest, digit = np.divmod(rest, level)
            coded = np.zeros_like(digit)
            for name, where in groups:
                start = partial(_peaked, level) if lead is None else partial(_learned, levels, number, name)
                table = _table(tables, (number, name), start)
                coded[where] = table.code(digit[where], coder)
            result += weight * coded
            weight *= level
        values[places] = result
        told[cells[places]] += 1
        yield span, values


def _special(
    values: Symbols, count: int, radix: int, tables: dict[tuple[object, ...], _Table], coder: Coder
) -> Symbols:
    """Values (n,) 0 to count - 1 in two parts, each with frequencies of its own."""
    high, low = np.divmod(values, radix)
    result = np.zeros_like(values)
    for number, (part, size) in enumerate(((high, -(-count // radix)), (low, radix))):
        table = _table(tables, ("part", number), partial(np.full, size, _COUNT_INCREMENT, np.int64))
        coded = table.code(part, coder)
        result += coded * (radix if number == 0 else 1)
    if (result >= count).any():
        raise Corrupt("a token is outside the vocabulary")
    return result


def _group_of(told: Symbols) -> Symbols:
    """0, 1, 2 to 5, more: groups 0 to 3."""
    return np.asarray(np.searchsorted(np.array([1, 2, 6]), told, side="right"), np.int64)


def _groups(labels: Symbols) -> Iterator[tuple[int, Symbols]]:
    """Each label, ascending, with the places that bear it, in order."""
    for label in np.unique(labels):
        yield int(label), np.flatnonzero(labels == label)


def _table(
    tables: dict[tuple[object, ...], _Table], key: tuple[object, ...], start: Callable[[], Symbols]
) -> _Table:
    if key not in tables:
        tables[key] = _Table(start())
    return tables[key]


def _peaked(levels: int) -> Symbols:
    """Digits near the middle are likelier: that is where a quantizer puts 0."""
    return np.asarray(_COUNT_INCREMENT * np.maximum(1, 4 - np.abs(np.arange(levels) - levels // 2)), np.int64)


def _learned(levels: tuple[int, ...], number: int, context: int) -> Symbols:
    """What a digit's counts begin as in coding 4."""
    known = networks.tables().digits
    if levels != networks.FITTED_LEVELS:
        return _peaked(levels[number])
    return known[number, context, : levels[number]]

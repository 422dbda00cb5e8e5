"""Token coding 3: adaptive range coding, asymmetric numeral systems in interleaved lanes (SPEC.md, 6.1)."""

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol

import numpy as np
import numpy.typing as npt

from formats.errors import Corrupt
from formats.records import ModelRef, UInt16Array

_BITS = 16  # of frequencies, and of the words of the stream
_ONE = 1 << _BITS
_LEAST_CHUNK = 16  # symbols coded with one state of a table
_STEP = 2  # what a symbol adds to its count
_TOKENS_PER_LANE = 1024
_MOST_LANES = 1024
_FEW_LANES = 32  # below, arrays of a number a lane cost more than they save
_TOO_SHORT = "range-coded tokens end early"
_MOST_SYMBOLS = 256  # of an alphabet: bounds what a file can make a reader do

Symbols = npt.NDArray[np.int64]


def lanes_for(tokens: int) -> int:
    """How many lanes a segment of so many tokens is coded in: a power of two, 1 to 1024."""
    lanes = 1
    while lanes < _MOST_LANES and lanes * _TOKENS_PER_LANE < tokens:
        lanes *= 2
    return lanes


def allows(model: ModelRef) -> bool:
    """Whether a model's tokens may be coded so: no alphabet has more than 256 symbols."""
    special_values = model.vocabulary - math.prod(model.levels)
    return max(model.levels) <= _MOST_SYMBOLS and special_values <= (_MOST_SYMBOLS - 1) ** 2


def encode(ordered: UInt16Array, keeps: UInt16Array, model: ModelRef) -> bytes:
    """Code the tokens of a segment, (N,) in file order; keeps: (blocks, h, w)."""
    writer = _Writer(lanes_for(len(ordered)))
    for _ in _walk(ordered, keeps, model, writer):
        pass
    return writer.bytes()


def decode(data: bytes | memoryview, keeps: UInt16Array, model: ModelRef) -> UInt16Array:
    """Undo encode. Raises Corrupt when the bytes are too few, too many, or do not end as they must."""
    ordered = np.zeros(int(keeps.sum(dtype=np.int64)), np.uint16)
    reader = _Reader(data, lanes_for(len(ordered)))
    for span, values in _walk(ordered, keeps, model, reader):
        ordered[span] = values
    reader.finish()
    return ordered


class _Table:
    """Adaptive frequencies of one context. Counts change only between chunks, which grow with experience."""

    def __init__(self, counts: Symbols) -> None:
        self._counts = counts
        self._seen = 0

    def chunk(self) -> int:
        """How many symbols may be coded before the next update."""
        return max(_LEAST_CHUNK, self._seen // 4)

    def update(self, symbols: Symbols) -> None:
        self._counts = self._counts + _STEP * np.bincount(symbols, minlength=len(self._counts))
        self._seen += len(symbols)

    def starts(self) -> Symbols:
        """Cumulative frequencies, (n + 1,): from 0 to 2^16, every symbol's at least 1."""
        frequency = 1 + self._counts * (_ONE - len(self._counts)) // self._counts.sum()
        frequency[self._counts.argmax()] += _ONE - frequency.sum()
        return np.concatenate([[0], frequency.cumsum()])


class _Coder(Protocol):
    def run(self, table: _Table, symbols: Symbols) -> Symbols:
        """Code len(symbols) symbols: write these, or return those that are read."""
        ...


def _walk(
    ordered: UInt16Array, keeps: UInt16Array, model: ModelRef, coder: _Coder
) -> Iterator[tuple[slice, Symbols]]:
    """The order of symbols and their contexts, for writer and reader alike.

    `ordered` is read where the writer runs; of the reader's results only what was yielded (and by then
    stored there) is used. Yields each run of equal sequence indices with its values.
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
        if special_values:
            for kind, where in _groups(later):
                table = _table(tables, ("special", min(index, 2), kind), lambda: np.array([16, 2], np.int64))
                special[where] = coder.run(table, (values[where] >= regular_values).astype(np.int64)) > 0
        if special.any():
            values[special] = regular_values + _special(
                values[special] - regular_values, special_values, radix, tables, coder
            )
        places = np.flatnonzero(~special)
        rest = values[places]
        context = 2 * _group_of(told[cells[places]]) + later[places]
        result = np.zeros_like(rest)
        weight = 1
        for number, level in enumerate(levels):
            rest, digit = np.divmod(rest, level)
            coded = np.zeros_like(digit)
            for name, where in _groups(context):
                table = _table(tables, (number, name), partial(_peaked, level))
                coded[where] = coder.run(table, digit[where])
            result += weight * coded
            weight *= level
        values[places] = result
        told[cells[places]] += 1
        yield span, values


def _special(
    values: Symbols, count: int, radix: int, tables: dict[tuple[object, ...], _Table], coder: _Coder
) -> Symbols:
    """Values (n,) 0 to count - 1 in two parts, each with frequencies of its own."""
    high, low = np.divmod(values, radix)
    result = np.zeros_like(values)
    for number, (part, size) in enumerate(((high, -(-count // radix)), (low, radix))):
        table = _table(tables, ("part", number), partial(np.full, size, _STEP, np.int64))
        coded = coder.run(table, part)
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
    return np.asarray(_STEP * np.maximum(1, 4 - np.abs(np.arange(levels) - levels // 2)), np.int64)


class _Writer:
    """Notes what is to be coded; the coding itself goes backwards."""

    def __init__(self, lanes: int) -> None:
        self._lanes = lanes
        self._chunks: list[tuple[Symbols, Symbols]] = []  # frequencies and starts of the symbols of a chunk

    def run(self, table: _Table, symbols: Symbols) -> Symbols:
        done = 0
        while done < len(symbols):
            part = symbols[done : done + table.chunk()]
            starts = table.starts()
            self._chunks.append((np.diff(starts)[part], starts[part]))
            table.update(part)
            done += len(part)
        return symbols

    def bytes(self) -> bytes:
        """The coded bytes."""
        state = np.full(self._lanes, _ONE, np.int64)
        words: list[Symbols] = []  # last first
        for frequencies, starts in reversed(self._chunks):
            put = self._put_few if self._lanes < _FEW_LANES else self._put_many
            put(state, frequencies, starts, words)
        stream = np.concatenate(words[::-1]) if words else np.zeros(0, np.int64)
        return state.astype("<u4").tobytes() + stream.astype("<u2").tobytes()

    def _put_many(self, state: Symbols, frequencies: Symbols, starts: Symbols, words: list[Symbols]) -> None:
        last = (len(starts) - 1) // self._lanes * self._lanes
        for at in range(last, -1, -self._lanes):
            frequency, start = frequencies[at : at + self._lanes], starts[at : at + self._lanes]
            own = state[: len(start)]
            full = own >= frequency << _BITS
            words.append(own[full] & _ONE - 1)
            own = np.where(full, own >> _BITS, own)
            high, low = np.divmod(own, frequency)
            state[: len(start)] = (high << _BITS) + low + start

    def _put_few(self, state: Symbols, frequencies: Symbols, starts: Symbols, words: list[Symbols]) -> None:
        """The same, one lane after the other."""
        states, out = state.tolist(), []
        pairs = list(zip(frequencies.tolist(), starts.tolist(), strict=True))
        for number in range(len(pairs) - 1, -1, -1):
            frequency, start = pairs[number]
            own = states[number % self._lanes]
            if own >= frequency << _BITS:
                out.append(own & _ONE - 1)
                own >>= _BITS
            states[number % self._lanes] = (own // frequency << _BITS) + own % frequency + start
        state[:] = states
        words.append(np.array(out[::-1], np.int64))


class _Reader:
    def __init__(self, data: bytes | memoryview, lanes: int) -> None:
        if len(data) < 4 * lanes or len(data) % 2:
            raise Corrupt("range-coded tokens of an impossible length")
        self._lanes = lanes
        self._state = np.frombuffer(data[: 4 * lanes], "<u4").astype(np.int64)
        self._words = np.frombuffer(data[4 * lanes :], "<u2").astype(np.int64)
        self._next = 0
        if (self._state < _ONE).any():
            raise Corrupt("range-coded tokens begin with an impossible state")

    def run(self, table: _Table, symbols: Symbols) -> Symbols:
        result = np.zeros(len(symbols), np.int64)
        done = 0
        while done < len(result):
            part = result[done : done + table.chunk()]
            read = self._read_few if self._lanes < _FEW_LANES else self._read_many
            read(table.starts(), part)
            table.update(part)
            done += len(part)
        return result

    def _read_many(self, starts: Symbols, out: Symbols) -> None:
        for at in range(0, len(out), self._lanes):
            symbols = out[at : at + self._lanes]
            state = self._state[: len(symbols)]
            slot = state & _ONE - 1
            symbols[:] = np.searchsorted(starts, slot, side="right") - 1
            start = starts[symbols]
            state = (starts[symbols + 1] - start) * (state >> _BITS) + slot - start
            empty = np.flatnonzero(state < _ONE)
            words = self._words[self._next : self._next + len(empty)]
            if len(words) < len(empty):
                raise Corrupt(_TOO_SHORT)
            self._next += len(empty)
            state[empty] = state[empty] << _BITS | words
            self._state[: len(symbols)] = state

    def _read_few(self, starts: Symbols, out: Symbols) -> None:
        """The same, one lane after the other."""
        states, edges, next_word = self._state.tolist(), starts.tolist(), 0
        words = self._words[self._next : self._next + len(out)].tolist()  # a symbol takes one at most
        symbols = []
        for number in range(len(out)):
            state = states[number % self._lanes]
            slot = state & _ONE - 1
            symbol = bisect_right(edges, slot) - 1
            state = (edges[symbol + 1] - edges[symbol]) * (state >> _BITS) + slot - edges[symbol]
            if state < _ONE:
                if next_word == len(words):
                    raise Corrupt(_TOO_SHORT)
                state = state << _BITS | words[next_word]
                next_word += 1
            states[number % self._lanes] = state
            symbols.append(symbol)
        out[:] = symbols
        self._state[:] = states
        self._next += next_word

    def finish(self) -> None:
        """Raises Corrupt unless all words are used and every lane is back where the writer began."""
        if self._next != len(self._words) or (self._state != _ONE).any():
            raise Corrupt("range-coded tokens do not end as they must")

"""Asymmetric numeral systems in interleaved lanes: symbols to bytes and back (SPEC.md, 6.1 "Coding").

A *chunk* is some symbols that are coded together. Every symbol comes with frequencies that sum to 2^16, its own or
those of the whole chunk.
"""

from bisect import bisect_right
from typing import Protocol

import numpy as np
import numpy.typing as npt

from formats.errors import Corrupt

BITS = 16  # of frequencies, and of the words of the stream
ONE = 1 << BITS
MOST_LANES = 1024
_FEW_LANES = 32  # below, arrays of a number a lane cost more than they save
_TOO_SHORT = "range-coded data end early"

Symbols = npt.NDArray[np.int64]


def lanes_for(symbols: int, per_lane: int) -> int:
    """The least power of two of lanes, 1 to 1024, with which no lane has more than `per_lane` symbols."""
    lanes = 1
    while lanes < MOST_LANES and lanes * per_lane < symbols:
        lanes *= 2
    return lanes


def cumulative(weights: Symbols) -> Symbols:
    """Weights (..., k) >= 0, no row all 0, to cumulative frequencies (..., k + 1) from 0 to 2^16.

    Every symbol gets at least 1.
    """
    table = weights.reshape(-1, weights.shape[-1])
    rows, count = table.shape
    starts = np.zeros((rows, count + 1), np.int64)
    frequency = 1 + table * (ONE - count) // table.sum(1, keepdims=True)
    frequency[np.arange(rows), table.argmax(1)] += ONE - frequency.sum(1)
    frequency.cumsum(1, out=starts[:, 1:])
    return starts.reshape(*weights.shape[:-1], count + 1)


class Coder(Protocol):
    """What a walk over symbols drives: a writer, which is given them, or a reader, which finds them."""

    def code(self, starts: Symbols, symbols: Symbols) -> Symbols:
        """Code a chunk of n symbols: write them, or return those that are read.

        starts: cumulative frequencies (k + 1,) of all, or (n, k + 1) of each.
        """
        ...

    def code_uniform(self, sizes: Symbols, symbols: Symbols) -> Symbols:
        """The same where each of the n symbols has `sizes` (n,) equally likely values, a power of two up to 2^16."""
        ...


class Writer:
    """Notes what is to be coded; the coding itself goes backwards."""

    def __init__(self, lanes: int) -> None:
        self._lanes = lanes
        self._chunks: list[tuple[Symbols, Symbols]] = []  # frequencies and starts of the symbols of a chunk

    def code(self, starts: Symbols, symbols: Symbols) -> Symbols:
        """See `Coder`."""
        if starts.ndim == 1:
            start, end = starts[symbols], starts[symbols + 1]
        else:
            rows = np.arange(len(symbols))
            start, end = starts[rows, symbols], starts[rows, symbols + 1]
        self._chunks.append((end - start, start))
        return symbols

    def code_uniform(self, sizes: Symbols, symbols: Symbols) -> Symbols:
        """See `Coder`."""
        frequency = ONE // sizes
        self._chunks.append((frequency, frequency * symbols))
        return symbols

    def bytes(self) -> bytes:
        """The coded bytes."""
        state = np.full(self._lanes, ONE, np.int64)
        words: list[Symbols] = []  # last first
        put = self._put_few if self._lanes < _FEW_LANES else self._put_many
        for frequencies, starts in reversed(self._chunks):
            put(state, frequencies, starts, words)
        stream = np.concatenate(words[::-1]) if words else np.zeros(0, np.int64)
        return state.astype("<u4").tobytes() + stream.astype("<u2").tobytes()

    def _put_many(self, state: Symbols, frequencies: Symbols, starts: Symbols, words: list[Symbols]) -> None:
        last = (len(starts) - 1) // self._lanes * self._lanes
        for at in range(last, -1, -self._lanes):
            frequency, start = frequencies[at : at + self._lanes], starts[at : at + self._lanes]
            own = state[: len(start)]
            full = own >= frequency << BITS
            words.append(own[full] & ONE - 1)
            own = np.where(full, own >> BITS, own)
            high, low = np.divmod(own, frequency)
            state[: len(start)] = (high << BITS) + low + start

    def _put_few(self, state: Symbols, frequencies: Symbols, starts: Symbols, words: list[Symbols]) -> None:
        """The same, one lane after the other."""
        states, out = state.tolist(), []
        pairs = list(zip(frequencies.tolist(), starts.tolist(), strict=True))
        for number in range(len(pairs) - 1, -1, -1):
            frequency, start = pairs[number]
            own = states[number % self._lanes]
            if own >= frequency << BITS:
                out.append(own & ONE - 1)
                own >>= BITS
            states[number % self._lanes] = (own // frequency << BITS) + own % frequency + start
        state[:] = states
        words.append(np.array(out[::-1], np.int64))


class Reader:
    """Undoes a Writer of as many lanes. Raises Corrupt where the bytes cannot be one's."""

    def __init__(self, data: bytes | memoryview, lanes: int) -> None:
        if len(data) < 4 * lanes or len(data) % 2:
            raise Corrupt("range-coded data of an impossible length")
        self._lanes = lanes
        self._state = np.frombuffer(data[: 4 * lanes], "<u4").astype(np.int64)
        self._words = np.frombuffer(data[4 * lanes :], "<u2").astype(np.int64)
        self._next = 0
        if (self._state < ONE).any():
            raise Corrupt("range-coded data begin with an impossible state")

    def code(self, starts: Symbols, symbols: Symbols) -> Symbols:
        """See `Coder`."""
        result = np.zeros(len(symbols), np.int64)
        if self._lanes < _FEW_LANES:
            self._read_few(starts, result)
        else:
            self._read_many(starts, result)
        return result

    def code_uniform(self, sizes: Symbols, symbols: Symbols) -> Symbols:
        """See `Coder`."""
        result = np.zeros(len(symbols), np.int64)
        for at in range(0, len(result), self._lanes):
            frequency = ONE // sizes[at : at + self._lanes]
            slot = self._state[: len(frequency)] & ONE - 1
            result[at : at + self._lanes] = slot // frequency
            self._advance(frequency, slot // frequency * frequency)
        return result

    def _read_many(self, starts: Symbols, out: Symbols) -> None:
        for at in range(0, len(out), self._lanes):
            symbols = out[at : at + self._lanes]
            slot = self._state[: len(symbols)] & ONE - 1
            if starts.ndim == 1:
                symbols[:] = np.searchsorted(starts, slot, side="right") - 1
                start, end = starts[symbols], starts[symbols + 1]
            else:
                rows = starts[at : at + self._lanes]
                symbols[:] = (rows <= slot[:, None]).sum(1) - 1
                number = np.arange(len(rows))
                start, end = rows[number, symbols], rows[number, symbols + 1]
            self._advance(end - start, start)

    def _advance(self, frequency: Symbols, start: Symbols) -> None:
        """Take one symbol each, of these frequencies and starts, from the first lanes."""
        state = self._state[: len(start)]
        state = frequency * (state >> BITS) + (state & ONE - 1) - start
        empty = np.flatnonzero(state < ONE)
        words = self._words[self._next : self._next + len(empty)]
        if len(words) < len(empty):
            raise Corrupt(_TOO_SHORT)
        self._next += len(empty)
        state[empty] = state[empty] << BITS | words
        self._state[: len(state)] = state

    def _read_few(self, starts: Symbols, out: Symbols) -> None:
        """The same, one lane after the other."""
        states, next_word = self._state.tolist(), 0
        words = self._words[self._next : self._next + len(out)].tolist()  # a symbol takes one at most
        shared = starts.ndim == 1
        edges = starts.tolist()
        row: list[int] = edges
        symbols = []
        for number in range(len(out)):
            if not shared:
                row = edges[number]
            state = states[number % self._lanes]
            slot = state & ONE - 1
            symbol = bisect_right(row, slot) - 1
            state = (row[symbol + 1] - row[symbol]) * (state >> BITS) + slot - row[symbol]
            if state < ONE:
                if next_word == len(words):
                    raise Corrupt(_TOO_SHORT)
                state = state << BITS | words[next_word]
                next_word += 1
            states[number % self._lanes] = state
            symbols.append(symbol)
        out[:] = symbols
        self._state[:] = states
        self._next += next_word

    def finish(self) -> None:
        """Raises Corrupt unless all words are used and every lane is back where the writer began."""
        if self._next != len(self._words) or (self._state != ONE).any():
            raise Corrupt("range-coded data do not end as they must")

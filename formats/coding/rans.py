"""Asymmetric numeral systems in interleaved lanes: symbols to bytes and back (SPEC.md, 6.1 "Coding").

A *chunk* is some symbols that are coded together. Every symbol comes with frequencies that sum to 2^16, its own or
those of the whole chunk.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate, repeat
from typing import Protocol

import numpy as np
import numpy.typing as npt

from formats.errors import Corrupt

FREQUENCY_BITS = 16  # frequencies sum to 2^16; words of the stream have as many bits
FREQUENCY_SUM = 1 << FREQUENCY_BITS
MAX_LANES = 1024
_MIN_LANES_FOR_ARRAYS = 32  # with fewer lanes, plain numbers are faster than arrays of a number a lane
_TOO_SHORT = "range-coded data end early"

Symbols = npt.NDArray[np.int64]


def lanes_for(symbols: int, per_lane: int) -> int:
    """The least power of two of lanes, 1 to 1024, with which no lane has more than `per_lane` symbols."""
    lanes = 1
    while lanes < MAX_LANES and lanes * per_lane < symbols:
        lanes *= 2
    return lanes


def cumulative(weights: Symbols) -> Symbols:
    """Weights (n, k) >= 0, no row all 0, to cumulative frequencies (n, k + 1) from 0 to 2^16.

    Every symbol gets at least 1.
    """
    rows, count = weights.shape
    starts = np.zeros((rows, count + 1), np.int64)
    frequency = weights * (FREQUENCY_SUM - count)
    frequency //= weights.sum(1)[:, None]
    frequency += 1
    frequency[np.arange(rows), weights.argmax(1)] += FREQUENCY_SUM - frequency.sum(1)
    frequency.cumsum(1, out=starts[:, 1:])
    return starts


def cumulative_of(counts: list[int]) -> list[int]:
    """The same for one row, which costs less so."""
    room, total = FREQUENCY_SUM - len(counts), sum(counts)
    frequency = [1 + count * room // total for count in counts]
    frequency[counts.index(max(counts))] += FREQUENCY_SUM - sum(frequency)
    return [0, *accumulate(frequency)]


class Coder(Protocol):
    """What a walk over symbols drives: a writer, which is given them, or a reader, which finds them."""

    def code(self, starts: Symbols, symbols: Symbols) -> Symbols:
        """Code a chunk of n symbols: write them, or return those that are read.

        starts: cumulative frequencies (n, k + 1) of each.
        """
        ...

    def code_alike(self, starts: list[int], symbols: Symbols) -> Symbols:
        """The same where all n symbols have the same cumulative frequencies."""
        ...

    def code_uniform(self, sizes: Symbols, symbols: Symbols) -> Symbols:
        """The same where each of the n symbols has `sizes` (n,) equally likely values, a power of two up to 2^16."""
        ...


class Writer:
    """Collects symbols; `bytes` codes them, the last one first."""

    def __init__(self, lanes: int) -> None:
        self._lanes = lanes
        self._chunks: list[tuple[Symbols, Symbols]] = []  # frequencies and starts of the symbols of a chunk

    def code(self, starts: Symbols, symbols: Symbols) -> Symbols:
        """See `Coder`."""
        rows = np.arange(len(symbols))
        start = starts[rows, symbols]
        self._chunks.append((starts[rows, symbols + 1] - start, start))
        return symbols

    def code_alike(self, starts: list[int], symbols: Symbols) -> Symbols:
        """See `Coder`."""
        edges = np.array(starts, np.int64)
        start = edges[symbols]
        self._chunks.append((edges[symbols + 1] - start, start))
        return symbols

    def code_uniform(self, sizes: Symbols, symbols: Symbols) -> Symbols:
        """See `Coder`."""
        frequency = FREQUENCY_SUM // sizes
        self._chunks.append((frequency, frequency * symbols))
        return symbols

    def bytes(self) -> bytes:
        """The coded bytes."""
        state = np.full(self._lanes, FREQUENCY_SUM, np.int64)
        words: list[Symbols] = []  # last first
        put = self._put_one_by_one if self._lanes < _MIN_LANES_FOR_ARRAYS else self._put_as_arrays
        for frequencies, starts in reversed(self._chunks):
            put(state, frequencies, starts, words)
        stream = np.concatenate(words[::-1]) if words else np.zeros(0, np.int64)
        return state.astype("<u4").tobytes() + stream.astype("<u2").tobytes()

    def _put_as_arrays(
        self, state: Symbols, frequencies: Symbols, starts: Symbols, words: list[Symbols]
    ) -> None:
        last = (len(starts) - 1) // self._lanes * self._lanes
        for at in range(last, -1, -self._lanes):
            frequency, start = frequencies[at : at + self._lanes], starts[at : at + self._lanes]
            own = state[: len(start)]
            full = own >= frequency << FREQUENCY_BITS
            words.append(own[full] & FREQUENCY_SUM - 1)
            own = np.where(full, own >> FREQUENCY_BITS, own)
            high, low = np.divmod(own, frequency)
            state[: len(start)] = (high << FREQUENCY_BITS) + low + start

    def _put_one_by_one(
        self, state: Symbols, frequencies: Symbols, starts: Symbols, words: list[Symbols]
    ) -> None:
        """The same, one lane after the other."""
        states, out = state.tolist(), []
        pairs = list(zip(frequencies.tolist(), starts.tolist(), strict=True))
        for number in range(len(pairs) - 1, -1, -1):
            frequency, start = pairs[number]
            own = states[number % self._lanes]
            if own >= frequency << FREQUENCY_BITS:
                out.append(own & FREQUENCY_SUM - 1)
                own >>= FREQUENCY_BITS
            states[number % self._lanes] = (own // frequency << FREQUENCY_BITS) + own % frequency + start
        state[:] = states
        words.append(np.array(out[::-1], np.int64))


class Reader:
    """Undoes a Writer of as many lanes. Raises Corrupt where the bytes cannot be one's."""

    def __init__(self, data: bytes | memoryview, lanes: int) -> None:
        if len(data) < 4 * lanes or len(data) % 2:
            raise Corrupt("range-coded data of an impossible length")
        self._lanes = lanes
        self._state = np.frombuffer(data[: 4 * lanes], "<u4").astype(np.int64)
        self._words = np.frombuffer(data[4 * lanes :], "<u2").astype(np.uint16)
        self._next = 0
        if (self._state < FREQUENCY_SUM).any():
            raise Corrupt("range-coded data begin with an impossible state")
        self._one_by_one = lanes < _MIN_LANES_FOR_ARRAYS
        self._states: list[int] = self._state.tolist()
        self._plain_words = memoryview(self._words.data)

    def code(self, starts: Symbols, symbols: Symbols) -> Symbols:
        """See `Coder`."""
        if self._one_by_one:
            return self._read_one_by_one(starts.tolist())
        result = np.zeros(len(symbols), np.int64)
        for at in range(0, len(result), self._lanes):
            rows = starts[at : at + self._lanes]
            number, slot = np.arange(len(rows)), self._state[: len(rows)] & FREQUENCY_SUM - 1
            found = (rows <= slot[:, None]).sum(1) - 1
            start = rows[number, found]
            self._advance(rows[number, found + 1] - start, start)
            result[at : at + self._lanes] = found
        return result

    def code_alike(self, starts: list[int], symbols: Symbols) -> Symbols:
        """See `Coder`."""
        if self._one_by_one:
            return self._read_one_by_one(repeat(starts, len(symbols)))
        result, edges = np.zeros(len(symbols), np.int64), np.array(starts, np.int64)
        for at in range(0, len(result), self._lanes):
            slot = self._state[: len(result) - at] & FREQUENCY_SUM - 1
            found = np.searchsorted(edges, slot, side="right") - 1
            start = edges[found]
            self._advance(edges[found + 1] - start, start)
            result[at : at + self._lanes] = found
        return result

    def code_uniform(self, sizes: Symbols, symbols: Symbols) -> Symbols:
        """See `Coder`."""
        if self._one_by_one:
            return self._read_one_by_one(
                range(0, FREQUENCY_SUM + 1, FREQUENCY_SUM // size) for size in sizes.tolist()
            )
        result = np.zeros(len(symbols), np.int64)
        for at in range(0, len(result), self._lanes):
            frequency = FREQUENCY_SUM // sizes[at : at + self._lanes]
            found = (self._state[: len(frequency)] & FREQUENCY_SUM - 1) // frequency
            self._advance(frequency, found * frequency)
            result[at : at + self._lanes] = found
        return result

    def _advance(self, frequency: Symbols, start: Symbols) -> None:
        """Take one symbol each, of these frequencies and starts, from the first lanes."""
        state = self._state[: len(start)]
        state = frequency * (state >> FREQUENCY_BITS) + (state & FREQUENCY_SUM - 1) - start
        empty = np.flatnonzero(state < FREQUENCY_SUM)
        words = self._words[self._next : self._next + len(empty)]
        if len(words) < len(empty):
            raise Corrupt(_TOO_SHORT)
        self._next += len(empty)
        state[empty] = state[empty] << FREQUENCY_BITS | words
        self._state[: len(state)] = state

    def _read_one_by_one(self, rows: Iterable[Sequence[int]]) -> Symbols:
        """Read a symbol by each row of cumulative frequencies, one lane after the other."""
        states, words, place = self._states, self._plain_words, self._next
        lane, last_lane = 0, self._lanes - 1
        symbols: list[int] = []
        try:
            for row in rows:
                state = states[lane]
                slot = state & 65535
                after = bisect_right(row, slot)
                start = row[after - 1]
                state = (row[after] - start) * (state >> 16) + slot - start
                if state < 65536:
                    state = state << 16 | words[place]
                    place += 1
                states[lane] = state
                symbols.append(after - 1)
                lane = 0 if lane == last_lane else lane + 1
        except IndexError:  # no word is left
            raise Corrupt(_TOO_SHORT) from None
        self._next = place
        return np.array(symbols, np.int64)

    def finish(self) -> None:
        """Raises Corrupt unless all words are used and every lane is back where the writer began."""
        states = self._states if self._one_by_one else self._state.tolist()
        if self._next != len(self._words) or any(state != FREQUENCY_SUM for state in states):
            raise Corrupt("range-coded data do not end as they must")

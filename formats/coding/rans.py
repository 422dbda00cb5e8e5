"""Asymmetric numeral systems in interleaved lanes: symbols to bytes and back (SPEC.md, 6.1 "Coding").

A *chunk* is some symbols that are coded together. Every symbol comes with frequencies that sum to 2^16, its own or
those of the whole chunk.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import chain, repeat
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from formats.errors import Corrupt

FREQUENCY_BITS = 16  # frequencies sum to 2^16; words of the stream have as many bits
FREQUENCY_SUM = 1 << FREQUENCY_BITS
MAX_LANES = 1024
_MIN_LANES_FOR_ARRAYS = 32  # with fewer lanes, plain numbers are faster than arrays of a number a lane
# As arrays: these cost less than numbers, call by call.
_SLOT_MASK, _BITS, _SUM = np.array(FREQUENCY_SUM - 1), np.array(FREQUENCY_BITS), np.array(FREQUENCY_SUM)
_FEW_SYMBOLS = 8  # and so are they for such short chunks
_SYMBOLS_AT_ONCE = 1 << 18  # that a writer prepares; bounds its memory
_TOO_SHORT = "range-coded data end early"

Symbols = npt.NDArray[np.int64]
AnySymbols = npt.NDArray[np.integer]  # of a type that holds them


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
    # weights are below 2^37 / k, so these quotients are exact: float64 is faster than division of integers
    scaled = weights * float(FREQUENCY_SUM - count)
    scaled /= np.add.reduce(weights, 1)[:, None]
    starts = np.zeros((rows, count + 1), np.int64)
    frequency = scaled.astype(np.int64)
    frequency += 1
    frequency[np.arange(rows), weights.argmax(1)] += FREQUENCY_SUM - np.add.reduce(frequency, 1)
    frequency.cumsum(1, out=starts[:, 1:])
    return starts


class Adaptive(Protocol):
    """Frequencies that a coder uses for one sequence after the other, and that change with what was coded."""

    def chunk_size(self) -> int:
        """How many symbols may be coded before the frequencies change."""
        ...

    def edges(self) -> list[int]:
        """Cumulative frequencies (k + 1) of the next chunk."""
        ...

    def learn(self, symbols: Symbols) -> None:
        """Note the symbols of a chunk."""
        ...

    def intervals(self, sequences: Sequence[AnySymbols]) -> "Intervals":
        """Where the symbols of sequences lie; all chunks at once."""
        ...


class Intervals(NamedTuple):
    """Symbols of some chunks, as a writer needs them."""

    frequencies: npt.NDArray[np.integer]  # (n,)
    starts: npt.NDArray[np.integer]  # (n,) sums of the frequencies before
    chunks: list[int]  # their sizes


def intervals_of(starts: Symbols, symbols: Symbols) -> tuple[Symbols, Symbols]:
    """Frequencies and starts (n,) of symbols (n,) that have these cumulative frequencies (n, k + 1)."""
    rows = np.arange(len(symbols))
    start = starts[rows, symbols]
    return starts[rows, symbols + 1] - start, start


def in_order(parts: Sequence[tuple[Symbols, Symbols, Symbols]]) -> Intervals:
    """Symbols in ascending order of their keys; those with equal keys, which are of the same part, are a chunk.

    parts: keys, frequencies and starts (n,) each.
    """
    keys, frequencies, starts = (np.concatenate(each) for each in zip(*parts, strict=True))
    order = keys.argsort(kind="stable")
    keys = keys[order]
    ends = np.append(np.flatnonzero(keys[1:] != keys[:-1]) + 1, len(keys))
    chunks = np.diff(ends, prepend=0).tolist() if len(keys) else []
    return Intervals(frequencies[order], starts[order], chunks)


class Coder(Protocol):
    """What a walk over symbols drives: a writer, which is given them, or a reader, which finds them."""

    def code(self, starts: Symbols, symbols: Symbols) -> Symbols:
        """Code a chunk of n symbols: write them, or return those that are read.

        starts: cumulative frequencies (n, k + 1) of each.
        """
        ...

    def code_adaptive(self, table: Adaptive, symbols: AnySymbols) -> AnySymbols:
        """Code a sequence of n symbols, chunk by chunk, with frequencies that learn from each chunk."""
        ...

    def code_uniform(self, sizes: Symbols, symbols: Symbols) -> Symbols:
        """Code a chunk of n symbols with `sizes` (n,) equally likely values, powers of two up to 2^16."""
        ...


class Writer:
    """Collects symbols; `bytes` codes them, the last one first."""

    def __init__(self, lanes: int) -> None:
        self._lanes = lanes
        self._parts: list[Intervals] = []  # empty ones: of adaptive tables, known in the end
        # sequences of each adaptive table, and which parts they are
        self._waiting: dict[Adaptive, tuple[list[int], list[AnySymbols]]] = {}

    def code(self, starts: Symbols, symbols: Symbols) -> Symbols:
        """See `Coder`."""
        frequencies, start = intervals_of(starts, symbols)
        self.put(Intervals(frequencies, start, [len(symbols)] if len(symbols) else []))
        return symbols

    def code_adaptive(self, table: Adaptive, symbols: AnySymbols) -> AnySymbols:
        """See `Coder`."""
        if len(symbols):
            numbers, sequences = self._waiting.setdefault(table, ([], []))
            numbers.append(len(self._parts))
            sequences.append(symbols)
            self._parts.append(_UNKNOWN)
        return symbols

    def code_uniform(self, sizes: Symbols, symbols: Symbols) -> Symbols:
        """See `Coder`."""
        frequency = FREQUENCY_SUM // sizes
        self.put(Intervals(frequency, frequency * symbols, [len(symbols)] if len(symbols) else []))
        return symbols

    def put(self, part: Intervals) -> None:
        """Add chunks of symbols whose intervals are known."""
        if part.chunks:
            self._parts.append(part)

    def bits(self) -> float:
        """About how many bits the symbols take."""
        self._settle()
        frequencies = self._joined(0, len(self._parts)).frequencies
        return float(FREQUENCY_BITS * len(frequencies) - np.log2(frequencies).sum())

    def bytes(self) -> bytes:
        """The coded bytes."""
        self._settle()
        state = np.full(self._lanes, FREQUENCY_SUM, np.int64)
        words: list[Symbols] = []  # last first
        put = _put_one_by_one if self._lanes < _MIN_LANES_FOR_ARRAYS else _put_as_arrays
        end = len(self._parts)
        while end:
            start, symbols = end, 0
            while start and symbols < _SYMBOLS_AT_ONCE:
                start -= 1
                symbols += len(self._parts[start].starts)
            put(state, self._joined(start, end), words)
            end = start
        stream = np.concatenate(words[::-1]) if words else np.zeros(0, np.int64)
        return state.astype("<u4").tobytes() + (stream & FREQUENCY_SUM - 1).astype("<u2").tobytes()

    def _settle(self) -> None:
        """Find the intervals of the sequences of adaptive tables."""
        for table, (numbers, sequences) in self._waiting.items():
            frequencies, starts, chunks = table.intervals(sequences)
            place, chunk = 0, 0
            for number, symbols in zip(numbers, sequences, strict=True):
                end, first_chunk, left = place + len(symbols), chunk, len(symbols)
                while left:
                    left -= chunks[chunk]
                    chunk += 1
                self._parts[number] = Intervals(
                    frequencies[place:end], starts[place:end], chunks[first_chunk:chunk]
                )
                place = end
        self._waiting.clear()

    def _joined(self, start: int, end: int) -> Intervals:
        """Parts from `start` to before `end` as one, in int64."""
        parts = self._parts[start:end]
        return Intervals(
            np.concatenate([_NONE, *(part.frequencies for part in parts)]),
            np.concatenate([_NONE, *(part.starts for part in parts)]),
            list(chain.from_iterable(part.chunks for part in parts)),
        )


_NONE = np.zeros(0, np.int64)
_UNKNOWN = Intervals(_NONE, _NONE, [])


def _put_as_arrays(state: Symbols, part: Intervals, words: list[Symbols]) -> None:
    """Code the symbols of a part, all lanes at a time, from the last chunk to the first."""
    lanes = len(state)
    frequencies, starts = part.frequencies, part.starts
    limits, spaces = frequencies << FREQUENCY_BITS, FREQUENCY_SUM - frequencies
    end = len(starts)
    for size in reversed(part.chunks):
        first = end - size
        for at in range(first + (size - 1) // lanes * lanes, first - 1, -lanes):
            own = state[: end - at]
            full = (own >= limits[at:end]).nonzero()[0]
            if len(full):
                word = own[full]
                words.append(word)
                own[full] = word >> _BITS
            high = own // frequencies[at:end]
            # high * 2^16 + (own - high * frequency) + start
            high *= spaces[at:end]
            own += high
            own += starts[at:end]
            end = at


def _put_one_by_one(state: Symbols, part: Intervals, words: list[Symbols]) -> None:
    """The same, one lane after the other: each lane's states depend on its own symbols only."""
    lane_of = np.concatenate([np.arange(size) for size in part.chunks]) % len(state)
    order = np.argsort(lane_of, kind="stable")[::-1]
    ends = np.bincount(lane_of, minlength=len(state))[::-1].cumsum().tolist()
    frequencies, starts, places = (
        part.frequencies[order].tolist(),
        part.starts[order].tolist(),
        order.tolist(),
    )
    found: list[tuple[int, int]] = []  # place of a symbol, and a word that is put before it
    begin = 0
    for lane, end in zip(range(len(state) - 1, -1, -1), ends, strict=True):
        own = int(state[lane])
        span = slice(begin, end)
        for frequency, start, place in zip(frequencies[span], starts[span], places[span], strict=True):
            if own >= frequency << 16:
                found.append((place, own))
                own >>= 16
            own += own // frequency * (65536 - frequency) + start
        state[lane] = own
        begin = end
    found.sort()
    words.append(np.array([word for _, word in found], np.int64))


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
            return np.array(self._read_one_by_one(starts.tolist(), self._states), np.int64)
        count, width = starts.shape
        flat = starts.ravel()
        rows = np.arange(0, count * width, width)
        result = np.empty(count, np.int64)
        for at in range(0, count, self._lanes):
            end = min(at + self._lanes, count)
            slot = self._state[: end - at] & _SLOT_MASK
            # the first edge above the slot; the last edge, 2^16, always is
            after = (starts[at:end] > slot[:, None]).argmax(1)
            result[at:end] = after
            after += rows[at:end]
            start = flat[after - 1]
            self._advance(flat[after] - start, slot - start)
        result -= 1
        return result

    def code_adaptive(self, table: Adaptive, symbols: AnySymbols) -> AnySymbols:
        """See `Coder`."""
        parts: list[Symbols] = []
        left = len(symbols)
        while left:
            size = min(left, table.chunk_size())
            part = self._read_alike(table.edges(), size)
            table.learn(part)
            parts.append(part)
            left -= size
        return parts[0] if len(parts) == 1 else np.concatenate([_NONE, *parts])

    def code_uniform(self, sizes: Symbols, symbols: Symbols) -> Symbols:
        """See `Coder`."""
        if self._one_by_one:
            found = self._read_one_by_one(
                (range(0, FREQUENCY_SUM + 1, FREQUENCY_SUM // size) for size in sizes.tolist()), self._states
            )
            return np.array(found, np.int64)
        result = np.empty(len(symbols), np.int64)
        frequencies = FREQUENCY_SUM // sizes
        for at in range(0, len(result), self._lanes):
            frequency = frequencies[at : at + self._lanes]
            slot = self._state[: len(frequency)] & _SLOT_MASK
            found = slot // frequency
            self._advance(frequency, slot - found * frequency)
            result[at : at + self._lanes] = found
        return result

    def _read_alike(self, edges: list[int], count: int) -> Symbols:
        """Read a chunk of symbols that have the same cumulative frequencies."""
        if self._one_by_one:
            return np.array(self._read_one_by_one(repeat(edges, count), self._states), np.int64)
        if count <= _FEW_SYMBOLS:
            states = self._state[:count].tolist()
            found = self._read_one_by_one(repeat(edges, count), states)
            self._state[:count] = states
            return np.array(found, np.int64)
        starts = np.array(edges, np.int64)
        frequencies, inner = starts[1:] - starts[:-1], starts[1:-1]
        if count <= self._lanes:
            return self._read_batch(frequencies, starts, inner, count)
        return np.concatenate(
            [
                self._read_batch(frequencies, starts, inner, min(self._lanes, count - at))
                for at in range(0, count, self._lanes)
            ]
        )

    def _read_batch(self, frequencies: Symbols, starts: Symbols, inner: Symbols, count: int) -> Symbols:
        slot = self._state[:count] & _SLOT_MASK
        found: Symbols = inner.searchsorted(slot, "right")
        slot -= starts[found]
        self._advance(frequencies[found], slot)
        return found

    def _advance(self, frequency: Symbols, inside: Symbols) -> None:
        """Take one symbol each from the first lanes: its frequency, and how far inside its interval the slot is."""
        state = self._state[: len(inside)]
        state >>= _BITS
        state *= frequency
        state += inside
        empty = (state < _SUM).nonzero()[0]
        if len(empty):
            words = self._words[self._next : self._next + len(empty)]
            if len(words) < len(empty):
                raise Corrupt(_TOO_SHORT)
            self._next += len(empty)
            state[empty] = state[empty] << _BITS | words

    def _read_one_by_one(self, rows: Iterable[Sequence[int]], states: list[int]) -> list[int]:
        """Read a symbol by each row of cumulative frequencies, one lane after the other; changes `states`."""
        words, place = self._plain_words, self._next
        lane, last_lane = 0, len(states) - 1
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
        return symbols

    def finish(self) -> None:
        """Raises Corrupt unless all words are used and every lane is back where the writer began."""
        states = self._states if self._one_by_one else self._state.tolist()
        if self._next != len(self._words) or any(state != FREQUENCY_SUM for state in states):
            raise Corrupt("range-coded data do not end as they must")

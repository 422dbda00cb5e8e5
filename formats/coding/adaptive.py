"""Frequencies that adapt to the symbols coded before, one table of counts a context (SPEC.md, 6.1)."""

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from formats.coding.rans import FREQUENCY_SUM, AnySymbols, Coder, Intervals, Symbols, cumulative

COUNT_INCREMENT = 2  # what a symbol adds to its count
_MIN_CHUNK_SYMBOLS = 16  # of the first chunk, which is coded with the first counts
_MAX_COUNTS_AT_ONCE = 1 << 20  # that `intervals` holds; bounds its memory


class Table:
    """Adaptive frequencies of one context. Counts change only between chunks; later chunks are longer."""

    def __init__(self, counts: Symbols) -> None:
        self._counts: list[int] = counts.tolist()
        self._total = sum(self._counts)
        self._seen = 0

    def code(self, symbols: AnySymbols, coder: Coder) -> AnySymbols:
        """Code a sequence of symbols (n,), learning from them."""
        return coder.code_adaptive(self, symbols)

    def chunk_size(self) -> int:
        """How many symbols may be coded before the next update."""
        return max(_MIN_CHUNK_SYMBOLS, self._seen // 4)

    def edges(self) -> list[int]:
        """Cumulative frequencies of the next chunk: as `cumulative` for one row, which costs less so."""
        counts, total = self._counts, self._total
        room = FREQUENCY_SUM - len(counts)
        frequency = [1 + count * room // total for count in counts]
        frequency[counts.index(max(counts))] += FREQUENCY_SUM - sum(frequency)
        return [0, *accumulate(frequency)]

    def learn(self, symbols: Symbols) -> None:
        """Note the symbols of a chunk."""
        counts = self._counts
        self._seen += len(symbols)
        self._total += COUNT_INCREMENT * len(symbols)
        if len(symbols) <= 2 * _MIN_CHUNK_SYMBOLS:
            for symbol in symbols.tolist():
                counts[symbol] += COUNT_INCREMENT
        else:
            times = np.bincount(symbols, minlength=len(counts)).tolist()
            self._counts = [count + COUNT_INCREMENT * more for count, more in zip(counts, times, strict=True)]

    def intervals(self, sequences: Sequence[AnySymbols]) -> Intervals:
        """Where the symbols of sequences lie: what `edges` and `learn` would say chunk by chunk, all at once."""
        sizes = [size for symbols in sequences for size in self._chunks(len(symbols))]
        symbols = np.concatenate(sequences)
        result = Intervals(np.empty(len(symbols), np.int32), np.empty(len(symbols), np.int32), sizes)
        chunks_at_once = max(1, _MAX_COUNTS_AT_ONCE // len(self._counts))
        place = 0
        for first in range(0, len(sizes), chunks_at_once):
            some = np.array(sizes[first : first + chunks_at_once])
            span = slice(place, place + int(some.sum()))
            result.frequencies[span], result.starts[span] = self._intervals(symbols[span], some)
            place = span.stop
        return result

    def _chunks(self, count: int) -> Iterator[int]:
        """The sizes of the chunks of a sequence of `count` symbols, noted as seen."""
        while count:
            size = min(count, self.chunk_size())
            self._seen += size
            count -= size
            yield size

    def _intervals(self, symbols: AnySymbols, sizes: Symbols) -> tuple[Symbols, Symbols]:
        """Frequencies and starts of the symbols of chunks of these sizes; their counts are noted."""
        width = len(self._counts)
        chunk = np.repeat(np.arange(len(sizes)), sizes)
        times = np.bincount(chunk * width + symbols, minlength=width * len(sizes)).reshape(-1, width)
        after = np.array(self._counts) + COUNT_INCREMENT * times.cumsum(0)
        edges = cumulative(after - COUNT_INCREMENT * times).ravel()
        self._counts = after[-1].tolist()
        self._total += COUNT_INCREMENT * len(symbols)
        chunk *= width + 1
        chunk += symbols
        starts = edges[chunk]
        return edges[chunk + 1] - starts, starts


Key = tuple[object, ...]


class Tables:
    """The tables of a segment, each made when its context is first met."""

    def __init__(self) -> None:
        self._tables: dict[Key, Table] = {}

    def table(self, context: Key, start: Callable[[], Symbols]) -> Table:
        """The table of a context, with the counts that `start` gives if it is new."""
        if context not in self._tables:
            self._tables[context] = Table(start())
        return self._tables[context]


def runs(labels: npt.NDArray[np.integer]) -> list[tuple[int, int, int]]:
    """Each label of sorted ones, with the places where it begins and ends."""
    if not len(labels):
        return []
    starts = [0, *((labels[1:] != labels[:-1]).nonzero()[0] + 1).tolist()]
    return list(zip(labels[starts].tolist(), starts, [*starts[1:], len(labels)], strict=True))


def groups(labels: npt.NDArray[np.integer]) -> Iterator[tuple[int, Symbols]]:
    """Each label, ascending, with the places that bear it, in order."""
    order = labels.argsort(kind="stable")
    for label, start, end in runs(labels[order]):
        yield label, order[start:end]


@cache
def digits_of(levels: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """The digits of each value of a token, (levels, 65536), first digit fastest."""
    values = np.arange(1 << 16)
    digits = np.empty((len(levels), len(values)), np.uint8)
    for row, level in zip(digits, levels, strict=True):
        values, row[:] = np.divmod(values, level)
    return digits

"""Frequencies that adapt to the symbols coded before, one table of counts a context (SPEC.md, 6.1)."""

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from formats.coding.rans import Coder, Symbols, cumulative_of

COUNT_INCREMENT = 2  # what a symbol adds to its count
_MIN_CHUNK_SYMBOLS = 16  # of the first chunk, which is coded with the first counts


class Table:
    """Adaptive frequencies of one context. Counts change only between chunks; later chunks are longer."""

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
                counts[symbol] += COUNT_INCREMENT
        else:
            for symbol, times in enumerate(np.bincount(symbols).tolist()):
                counts[symbol] += COUNT_INCREMENT * times

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


def groups(labels: npt.NDArray[np.integer]) -> Iterator[tuple[int, Symbols]]:
    """Each label, ascending, with the places that bear it, in order."""
    order = np.argsort(labels, kind="stable")
    ends = np.flatnonzero(np.diff(labels[order], append=-1)) + 1
    start = 0
    for end in ends.tolist():
        where = order[start:end]
        yield int(labels[where[0]]), where
        start = end

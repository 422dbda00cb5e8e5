"""Readers of coded symbols in the words of SPEC.md, 6.1: plain Python, one symbol at a time, nothing of the package."""

import struct
from collections.abc import Iterator, Sequence


def lanes_for(symbols: int, per_lane: int) -> int:
    """The least power of two from 1 to 1024 with `per_lane` times it >= symbols; 1024 if there is none."""
    lanes = 1
    while lanes < 1024 and per_lane * lanes < symbols:
        lanes *= 2
    return lanes


def frequencies(counts: Sequence[int]) -> list[int]:
    """Counts to frequencies that sum to 65536."""
    found = [1 + c * (65536 - len(counts)) // sum(counts) for c in counts]
    found[counts.index(max(counts))] += 65536 - sum(found)
    return found


class Lanes:
    """States and words."""

    def __init__(self, data: bytes, lanes: int) -> None:
        self.states = list(struct.unpack(f"<{lanes}I", data[: 4 * lanes]))
        self.words: Iterator[int] = iter(
            struct.unpack(f"<{(len(data) - 4 * lanes) // 2}H", data[4 * lanes :])
        )
        assert min(self.states) >= 65536

    def chunk(self, tables: Sequence[Sequence[int]]) -> list[int]:
        """Read a chunk; the frequencies of each of its symbols."""
        lanes = len(self.states)
        symbols: list[int] = []
        while len(symbols) < len(tables):
            together = min(lanes, len(tables) - len(symbols))
            for lane in range(together):
                table = tables[len(symbols)]
                slot, below, symbol = self.states[lane] % 65536, 0, 0
                while below + table[symbol] <= slot:
                    below += table[symbol]
                    symbol += 1
                self.states[lane] = table[symbol] * (self.states[lane] // 65536) + slot - below
                symbols.append(symbol)
            for lane in range(together):
                if self.states[lane] < 65536:
                    self.states[lane] = 65536 * self.states[lane] + next(self.words)
        return symbols

    def finish(self) -> None:
        """Every state must be 65536 again and no word left."""
        assert self.states == [65536] * len(self.states)
        assert next(self.words, None) is None


class Contexts:
    """Counts that adapt, by context."""

    def __init__(self, lanes: Lanes) -> None:
        self.lanes = lanes
        self.counts: dict[tuple, list[int]] = {}
        self.seen: dict[tuple, int] = {}

    def sequence(self, context: tuple, start: Sequence[int], length: int) -> list[int]:
        """Read a sequence of so many symbols; `start` is what the counts of this context begin as."""
        table = self.counts.setdefault(context, list(start))
        seen = self.seen.setdefault(context, 0)
        out: list[int] = []
        while len(out) < length:
            size = min(length - len(out), max(16, seen // 4))
            chunk = self.lanes.chunk([frequencies(table)] * size)
            for symbol in chunk:
                table[symbol] += 2
            seen += size
            out += chunk
        self.seen[context] = seen
        return out

    def digits(
        self, levels: Sequence[int], usual: list[int], first: dict[int, bool], told: list[int], start: dict
    ) -> dict[int, int]:
        """Step 3 of 6.1: the values of the tokens that are not special, by cell; counts what cells have told.

        `start`: for (digit, context) what the counts begin as, where that is not as in 6.1.
        """
        value = dict.fromkeys(usual, 0)
        context = {c: 2 * sum(told[c] >= edge for edge in (1, 2, 6)) + (not first[c]) for c in usual}
        weight = 1
        for number, level in enumerate(levels):
            peaked = [2 * max(1, 4 - abs(i - level // 2)) for i in range(level)]
            for which in range(8):
                own = [cell for cell in usual if context[cell] == which]
                counts = start.get((number, which), peaked)
                coded = self.sequence((number, which), counts, len(own))
                for cell, digit in zip(own, coded, strict=True):
                    value[cell] += weight * digit
            weight *= level
        for cell in usual:
            told[cell] += 1
        return value

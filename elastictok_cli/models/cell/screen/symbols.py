"""Streams of symbols: a code of a screen mode holds three symbols of 40 values each."""

from __future__ import annotations

from collections.abc import Sequence

import torch

SYMBOLS = 40  # values of a symbol
PER_CODE = 3  # symbols of a code
CODES = SYMBOLS**PER_CODE  # 64,000: the codes of screen modes are 0 to 63,999
END = SYMBOLS - 1  # of a pass or of a stream; also what fills up the last code


def to_codes(symbols: torch.Tensor) -> torch.Tensor:
    """Symbols (n, 3 * k), 0 to 39, as codes (n, k), 0 to 63,999. The first symbol is the lowest digit."""
    first, second, third = symbols.unflatten(1, (-1, PER_CODE)).unbind(2)  # type: ignore[no-untyped-call]
    codes: torch.Tensor = first + SYMBOLS * second + SYMBOLS**2 * third
    return codes


def from_codes(codes: torch.Tensor) -> torch.Tensor:
    """Inverse of `to_codes`: codes (n, k), 0 to 63,999, as symbols (n, 3 * k)."""
    digits = (codes, codes // SYMBOLS, codes // SYMBOLS**2)
    return torch.stack([digit % SYMBOLS for digit in digits], 2).flatten(1)


def codes_of(count: torch.Tensor) -> torch.Tensor:
    """How many codes hold so many symbols, at least one."""
    return torch.div(count - 1, PER_CODE, rounding_mode="floor") + 1


def split_runs(
    run: torch.Tensor, distances: Sequence[torch.Tensor | int]
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """How many skips of each distance, the longest first, runs (m,) begin with, and what is left of the runs."""
    counts = []
    for distance in distances:
        counts.append(torch.div(run, distance, rounding_mode="floor"))
        run = run - counts[-1] * distance
    return counts, run


class Writer:
    """The streams of n cells, written a set of runs at a time.

    Runs longer than a symbol can say begin with skips: as many of the longest as fit, then of the next, and so on.
    """

    def __init__(self, count: int, device: torch.device) -> None:
        self.length = torch.zeros(count, dtype=torch.int64, device=device)  # symbols of each stream so far
        self._parts: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []  # cell, place, symbol
        self._gains: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []  # cell, place, error removed

    def put(self, cell: torch.Tensor, symbol: torch.Tensor) -> None:
        """One symbol more for each of some cells, which are all different. cell, symbol: (m,) int64."""
        self._parts.append((cell, self.length[cell], symbol))
        self.length[cell] += 1

    def put_runs(
        self,
        cell: torch.Tensor,  # (m,) int64, ascending; a cell has several runs
        run: torch.Tensor,  # (m,) int64 places skipped before each event
        symbol: torch.Tensor,  # (m,) int64 symbol of the event, without the run that is left
        gain: torch.Tensor,  # (m,) float32 squared error that the event removes
        *,
        scale: torch.Tensor | int,  # (m,) or an int: what the rest of a run adds to the symbol for each place
        skips: tuple[tuple[torch.Tensor | int, int], ...],
    ) -> None:
        """A skip symbol for each longer part of a run, then the symbol of the event, for all events in order."""
        counts, rest = split_runs(run, [distance for distance, _ in skips])
        skipped = torch.stack(counts).sum(0)  # skip symbols before each event
        needed = skipped + 1
        added = torch.zeros_like(self.length).index_add_(0, cell, needed)  # of each cell: its new symbols
        # what to add to a symbol's place in the row of all new ones, for its place in the stream of its cell
        shift = self.length - (added.cumsum(0) - added)
        place = shift[cell] + needed.cumsum(0) - 1
        self._parts.append((cell, place, symbol + rest * scale))
        self._gains.append((cell, place, gain))
        self.length += added
        some = (skipped > 0).nonzero().squeeze(1)  # few events
        if len(some):
            skipped = skipped[some]
            times = torch.stack([count[some] for count in counts], 1)
            values = torch.tensor([skip for _, skip in skips], device=cell.device).expand(times.shape)
            written = values.flatten().repeat_interleave(times.flatten())
            # each event's skips begin so far before it
            first = place[some] - skipped - (skipped.cumsum(0) - skipped)
            first, own = (x.repeat_interleave(skipped, output_size=len(written)) for x in (first, cell[some]))
            self._parts.append((own, first + torch.arange(len(written), device=cell.device), written))

    def symbols(self) -> torch.Tensor:
        """All streams, (n, 3 * k) int64, filled up with END."""
        return self._table(self._parts, END, torch.int64)

    def gains(self) -> torch.Tensor:
        """The squared error that each symbol removes, (n, 3 * k) float32."""
        return self._table(self._gains, 0.0, torch.float32)

    def _table(
        self,
        parts: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]],
        fill: float,
        dtype: torch.dtype,
    ) -> torch.Tensor:
        longest = int(self.length.max()) if len(self.length) else 0
        width = -(-longest // PER_CODE) * PER_CODE
        table = torch.full((len(self.length), width), fill, dtype=dtype, device=self.length.device)
        for cell, place, value in parts:
            table[cell, place] = value.to(dtype)
        return table

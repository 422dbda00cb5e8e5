"""Data of any length in bounded memory: neighbours are merged whenever there are too many, peaks kept."""

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Op = Literal["first", "last", "max", "min", "sum"]
Array = npt.NDArray[np.float64]

_MERGE: dict[Op, Callable[[Array, Array], Array]] = {
    "last": lambda a, b: b,
    "max": np.fmax,  # NaN (unknown) only where both are
    "min": np.fmin,
    "sum": lambda a, b: a + b,
}


class Series:
    """Rows of numbers in order of time, at most `capacity` of them (even).

    ops: for each column how two neighbouring rows become one. Each row stands for `step` rows that were added (the
    last one perhaps for fewer); `step` is 1 until there are too many, then doubles.
    """

    def __init__(self, capacity: int, ops: Mapping[str, Op]) -> None:
        self._places = {name: place for place, name in enumerate(ops)}
        # columns that are merged alike are merged together; "first" needs nothing
        self._alike = [
            ([place for place, op in enumerate(ops.values()) if op == kind], merge)
            for kind, merge in _MERGE.items()
            if kind in ops.values()
        ]
        self._rows = np.empty((capacity, len(ops)))
        self._count = 0  # rows in use
        self._filled = 0  # added rows in the last of them
        self.step = 1

    def __len__(self) -> int:
        return self._count

    def add(self, **row: float) -> None:
        """Append a row with exactly these columns."""
        values = np.array([row[name] for name in self._places], np.float64)
        if len(row) != len(values):
            raise KeyError(f"columns are {list(self._places)}")
        if self._count and self._filled < self.step:
            last = self._count - 1
            self._rows[last] = self._merge(self._rows[last], values)
            self._filled += 1
            return
        if self._count == len(self._rows):
            self._rows[: self._count // 2] = self._merge(self._rows[0::2], self._rows[1::2])
            self._count //= 2
            self.step *= 2
        self._rows[self._count] = values
        self._count += 1
        self._filled = 1

    def column(self, name: str) -> list[float]:
        """All values of a column."""
        values: list[float] = self._rows[: self._count, self._places[name]].tolist()
        return values

    def _merge(self, earlier: Array, later: Array) -> Array:
        merged = earlier.copy()
        for places, merge in self._alike:
            merged[..., places] = merge(earlier[..., places], later[..., places])
        return merged


class Chosen:
    """At most `capacity` (even) of many things, spread evenly in order: of two neighbours the one that weighs more."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._slots: list[tuple[float, Any]] = []
        self._filled = 0
        self.step = 1  # how many things each one stands for

    def add(self, weight: float, thing: Any) -> None:
        """Take part."""
        if self._slots and self._filled < self.step:
            self._slots[-1] = max(self._slots[-1], (weight, thing), key=lambda slot: slot[0])
            self._filled += 1
            return
        if len(self._slots) == self._capacity:
            pairs = zip(self._slots[0::2], self._slots[1::2], strict=True)
            self._slots = [max(pair, key=lambda slot: slot[0]) for pair in pairs]
            self.step *= 2
        self._slots.append((weight, thing))
        self._filled = 1

    def things(self) -> list[Any]:
        """Those left, in order."""
        return [thing for _, thing in self._slots]


class Strip:
    """The keep maps over time: for each row of cells its mean number of tokens, in at most `capacity` steps of time."""

    def __init__(self, capacity: int, grid: tuple[int, int], most_rows: int) -> None:
        self._group = -(-grid[0] // most_rows)  # rows of cells taken together
        self.rows = -(-grid[0] // self._group)
        ops: dict[str, Op] = {"start": "first", "end": "last"}
        for number in range(self.rows):
            ops[f"r{number}"] = "max"
        self._series = Series(capacity, ops)

    def add(self, start: float, end: float, keep: npt.NDArray[np.uint16]) -> None:
        """A block and its keep map (rows, columns)."""
        means = keep.mean(1)
        pooled = [means[n * self._group : (n + 1) * self._group].max() for n in range(self.rows)]
        self._series.add(start=start, end=end, **{f"r{n}": mean for n, mean in enumerate(pooled)})

    def facts(self) -> dict[str, Any]:
        """Times of the steps, and their values as bytes (see `pack`), step by step from top to bottom."""
        columns = [self._series.column(f"r{n}") for n in range(self.rows)]
        values = np.array(columns).T.ravel()
        return {
            "rows": self.rows,
            "start": numbers(self._series.column("start"), 3),
            "end": numbers(self._series.column("end"), 3),
            **pack(values),
        }


def pack(values: npt.NDArray[np.floating]) -> dict[str, Any]:
    """Numbers from 0 as base64 of bytes: 255 is `top`."""
    top = float(values.max()) if values.size else 0.0
    scaled = np.rint(values * (255 / top)) if top else np.zeros(values.shape)
    return {"top": round(top, 3), "data": base64.b64encode(scaled.astype(np.uint8).tobytes()).decode()}


def numbers(values: Sequence[float], digits: int) -> list[float | None]:
    """Rounded to so many significant (below 1) or decimal digits; None for NaN and infinity. JSON without noise."""
    return [_short(value, digits) for value in values]


def _short(value: float, digits: int) -> float | None:
    if not np.isfinite(value):
        return None
    return (
        int(value)
        if value == int(value)
        else float(f"{value:.{digits}f}" if abs(value) >= 1 else f"{value:.{digits}g}")
    )

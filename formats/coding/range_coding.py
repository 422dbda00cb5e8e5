"""Token codings 3, 4 and 5: adaptive range coding of the digits of codes (SPEC.md, 6.1, 6.2, 6.4).

Coding 3 codes control tokens here as well; codings 4 and 5 leave them to `control_tokens`. Coding 5 leaves the codes of
cells with a screen mode to `screen_codes`.
"""

import math
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import numpy as np

from formats.coding import control_tokens, digits, networks, screen_codes, wavefront
from formats.coding.adaptive import COUNT_INCREMENT, Tables, groups
from formats.coding.rans import Coder, Reader, Symbols, Writer
from formats.coding.rans import lanes_for as _lanes_for
from formats.errors import Corrupt
from formats.records import ModelRef, UInt16Array

_TOKENS_PER_LANE = 1024
_MAX_ALPHABET_SYMBOLS = 256  # bounds the work that a file can ask of a reader


def lanes_for(tokens: int) -> int:
    """How many lanes a segment of so many tokens is coded in: a power of two, 1 to 1024."""
    return _lanes_for(tokens, _TOKENS_PER_LANE)


def allows(model: ModelRef) -> bool:
    """Whether codings 3 and 4 can code a model's tokens: no alphabet has more than 256 symbols."""
    control_values = model.vocabulary - math.prod(model.levels)
    return max(model.levels) <= _MAX_ALPHABET_SYMBOLS and control_values <= (_MAX_ALPHABET_SYMBOLS - 1) ** 2


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
    """Whether coding 4 can code the tokens of a segment with these keep maps."""
    return allows(model) and keeps.size <= wavefront.MAX_PREDICTED_CELLS


def allows_screen(keeps: UInt16Array, model: ModelRef) -> bool:
    """Whether coding 5 can code the tokens of a segment with these keep maps, if there are screen modes."""
    code_values = math.prod(model.levels)
    return (
        allows_predicted(keeps, model)
        and code_values <= screen_codes.CODES
        and control_tokens.other_values(code_values, model.vocabulary) <= _MAX_ALPHABET_SYMBOLS
    )


class PredictedWriters:
    """Writers of codings 4 and 5 for the same tokens.

    ordered: (N,) in file order. keeps: (blocks, h, w). frames: (blocks,) real frames.
    """

    def __init__(self, ordered: UInt16Array, keeps: UInt16Array, frames: Symbols, model: ModelRef) -> None:
        self._ordered, self._keeps, self._model = ordered, keeps, model
        first_control = math.prod(model.levels)
        flat = keeps.ravel()
        counts = [int((flat > index).sum()) for index in (0, 1)]
        first, second = np.full((2, len(flat)), -1, np.int64)
        first[flat > 0] = ordered[: counts[0]]
        second[flat > 1] = ordered[counts[0] : sum(counts)]
        pattern = control_tokens.patterns_of(first, second, first_control, model.vocabulary)
        self._first, self._second, self._pattern = first, second, pattern
        self._control_counts = _CONTROL_TOKENS_IN[pattern]
        self._describable = (ordered >= first_control).sum() == self._control_counts.sum()
        self._controls: control_tokens.ControlTokens | None = None
        if self._describable and model.vocabulary > first_control:
            self._controls = control_tokens.ControlTokens(
                first, second, pattern, keeps, frames, first_control, model.vocabulary
            )

    def writer(self, modes: screen_codes.Modes | None = None) -> Writer | None:
        """A writer of coding 4, or 5 with `modes`, to which all has been written.

        None where control tokens stand where it cannot describe them, and, of coding 5, where no cell has a screen
        mode.
        """
        if not self._describable:
            return None
        first_control = math.prod(self._model.levels)
        screen = _Screen.of(self._first, self._second, self._pattern, self._keeps, modes, first_control)
        if modes is not None and screen is None:
            return None
        writer = Writer(lanes_for(len(self._ordered)))
        if self._controls is not None:
            self._controls.write(writer, adaptive=modes is not None)
        for _ in _code_digits(self._ordered, self._keeps, self._model, writer, self._control_counts, screen):
            pass
        return writer


def encode_predicted(
    ordered: UInt16Array,
    keeps: UInt16Array,
    frames: Symbols,
    model: ModelRef,
    modes: screen_codes.Modes | None = None,
) -> bytes | None:
    """Coding 4, or 5 with `modes`; None where it cannot describe the tokens (see `PredictedWriters`)."""
    writer = PredictedWriters(ordered, keeps, frames, model).writer(modes)
    return None if writer is None else writer.bytes()


def decode_predicted(
    data: bytes | memoryview,
    keeps: UInt16Array,
    frames: Symbols,
    model: ModelRef,
    modes: screen_codes.Modes | None = None,
) -> UInt16Array:
    """Undo encode_predicted. Raises Corrupt as decode does."""
    first_control = math.prod(model.levels)
    flat = keeps.ravel()
    ordered = np.zeros(int(flat.sum(dtype=np.int64)), np.uint16)
    reader = Reader(data, lanes_for(len(ordered)))
    control_counts, screen = np.zeros(len(flat), np.int64), None
    if model.vocabulary > first_control:
        blank = np.zeros(len(flat), np.int64)
        pattern, (first, second) = control_tokens.code_control_tokens(
            blank,
            blank,
            blank,
            keeps,
            frames,
            first_control,
            model.vocabulary,
            reader,
            adaptive=modes is not None,
        )
        control_counts = _CONTROL_TOKENS_IN[pattern]
        count = int((flat > 0).sum())
        ordered[:count] = first[flat > 0]
        ordered[count : count + int((flat > 1).sum())] = second[flat > 1]
        screen = _Screen.of(first, second, pattern, keeps, modes, first_control)
    for span, values in _code_digits(ordered, keeps, model, reader, control_counts, screen):
        ordered[span] = values
    reader.finish()
    return ordered


_CONTROL_TOKENS_IN = np.array([0, 1, 1, 2])  # how many each pattern has


class _Screen(NamedTuple):
    """The cells of a segment that have a screen mode, and their codes."""

    number: Symbols  # (cells,) of each such cell among them, -1 for other cells
    codes: screen_codes.ScreenCodes

    @classmethod
    def of(
        cls,
        first: Symbols,  # (cells,) the first token of each cell
        second: Symbols,
        pattern: Symbols,  # (cells,) of their control tokens
        keeps: UInt16Array,
        modes: screen_codes.Modes | None,
        code_values: int,
    ) -> "_Screen | None":
        """None where no cell has one."""
        if modes is None:
            return None
        token = np.where(pattern == 2, first, np.where(pattern == 3, second, 0))
        cells = np.flatnonzero(modes.mode[token])
        if not len(cells):
            return None
        number = np.full(len(token), -1, np.int64)
        number[cells] = np.arange(len(cells))
        token = token[cells]
        codes = screen_codes.ScreenCodes(
            modes.mode[token],
            modes.colours[token],
            _CONTROL_TOKENS_IN[pattern[cells]],
            keeps.ravel()[cells].astype(np.int64),
            (cells >= keeps[0].size).astype(np.int64),
            code_values,
        )
        return cls(number, codes)


def _code_digits(
    ordered: UInt16Array,
    keeps: UInt16Array,
    model: ModelRef,
    coder: Coder,
    control_counts: Symbols,
    screen: _Screen | None,
) -> Iterator[tuple[slice, UInt16Array]]:
    flat = keeps.ravel()
    later = np.arange(len(flat)) >= keeps[0].size
    cells = digits.Cells(flat, later, control_counts, None if screen is None else screen.number)
    codes = None if screen is None else screen.codes
    return digits.code(ordered, cells, model.levels, coder, partial(_fitted_counts, model.levels), codes)


def _walk(
    ordered: UInt16Array, keeps: UInt16Array, model: ModelRef, coder: Coder
) -> Iterator[tuple[slice, Symbols]]:
    """The order of symbols of coding 3 and their contexts, the same for writer and reader.

    Yields the tokens of each sequence index: their place in `ordered` (N,) and their values. A writer gives all
    tokens in `ordered`; a reader zeros.
    """
    levels = model.levels
    code_values = math.prod(levels)
    control_values = model.vocabulary - code_values
    radix = math.isqrt(control_values)
    tables = Tables()
    flat = keeps.ravel()
    first_block = keeps[0].size
    codes_before = np.zeros(len(flat), np.int64)  # in each cell
    first = 0
    cells = np.arange(len(flat))
    for index in range(int(flat.max(initial=0))):
        cells = cells[flat[cells] > index]
        span = slice(first, first + len(cells))
        first += len(cells)
        values = ordered[span].astype(np.int64)
        later = (cells >= first_block).astype(np.int64)  # not of the keyframe block
        control = np.zeros(len(cells), bool)
        if control_values:
            for kind, where in groups(later):
                table = tables.table(("is control", min(index, 2), kind), lambda: np.array([16, 2], np.int64))
                control[where] = table.code((values[where] >= code_values).astype(np.int64), coder) > 0
        if control.any():
            values[control] = code_values + _code_control_values(
                values[control] - code_values, control_values, radix, tables, coder
            )
        places = np.flatnonzero(~control)
        rest = values[places]
        context = 2 * _experience_group(codes_before[cells[places]]) + later[places]
        by_context = list(groups(context))
        result = np.zeros_like(rest)
        weight = 1
        for number, level in enumerate(levels):
            rest, digit = np.divmod(rest, level)
            coded = np.zeros_like(digit)
            for name, where in by_context:
                table = tables.table((number, name), partial(_middle_peaked_counts, level))
                coded[where] = table.code(digit[where], coder)
            result += weight * coded
            weight *= level
        values[places] = result
        codes_before[cells[places]] += 1
        yield span, values


def _code_control_values(values: Symbols, count: int, radix: int, tables: Tables, coder: Coder) -> Symbols:
    """Code control values (n,), 0 to count - 1, in two parts, each with frequencies of its own."""
    high, low = np.divmod(values, radix)
    result = np.zeros_like(values)
    for number, (part, size) in enumerate(((high, -(-count // radix)), (low, radix))):
        table = tables.table(("control part", number), partial(np.full, size, COUNT_INCREMENT, np.int64))
        coded = table.code(part, coder)
        result += coded * (radix if number == 0 else 1)
    if (result >= count).any():
        raise Corrupt("a token is outside the vocabulary")
    return result


def _experience_group(codes_before: Symbols) -> Symbols:
    """Which group of contexts a number of codes belongs to: 0, 1, 2 to 5, more are groups 0 to 3."""
    return np.asarray(np.searchsorted(np.array([1, 2, 6]), codes_before, side="right"), np.int64)


def _middle_peaked_counts(levels: int) -> Symbols:
    """First counts of a digit, largest in the middle, which is where a quantizer puts 0."""
    return np.asarray(COUNT_INCREMENT * np.maximum(1, 4 - np.abs(np.arange(levels) - levels // 2)), np.int64)


def _fitted_counts(levels: tuple[int, ...], number: int, context: int) -> Symbols:
    """First counts of a digit in coding 4: fitted ones, where the levels are those they were fitted for."""
    known = networks.tables().digits
    if levels != networks.FITTED_LEVELS:
        return _middle_peaked_counts(levels[number])
    return known[number, context, : levels[number]]

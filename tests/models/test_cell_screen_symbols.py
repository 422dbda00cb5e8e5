"""Streams of symbols: what is written comes out in its order, cell by cell, however long the runs are."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elastictok_cli.models.cell.screen import symbols

CPU = torch.device("cpu")
SKIPS = ((27, 38), (9, 37), (3, 36))  # the longest first; an event's symbol holds a run of 0 to 2
SCALE = 4


@given(st.lists(st.lists(st.integers(0, 39), min_size=6, max_size=6), min_size=1, max_size=4))
def test_symbols_and_codes_are_the_same_numbers(table: list[list[int]]) -> None:
    stream = torch.tensor(table)
    codes = symbols.to_codes(stream)
    assert codes.tolist() == [
        [a + 40 * b + 1600 * c for a, b, c in (row[:3], row[3:])] for row in table
    ]  # the lowest digit first
    assert torch.equal(symbols.from_codes(codes), stream)


def test_every_code_is_three_symbols_and_no_other_code_has_the_same() -> None:
    codes = torch.arange(symbols.CODES)[None]
    digits = symbols.from_codes(codes)
    assert int(digits.min()) == 0
    assert int(digits.max()) == 39
    assert torch.equal(symbols.to_codes(digits), codes)


def written(run: int, symbol: int) -> list[int]:
    """The symbols of one event, as `Writer.put_runs` is to write it."""
    out = []
    for distance, skip in SKIPS:
        out += [skip] * (run // distance)
        run %= distance
    return [*out, symbol + SCALE * run]


Event = tuple[int, int]  # run, symbol
EVENTS = st.lists(st.tuples(st.integers(0, 300), st.integers(0, 3)), max_size=5)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 4).flatmap(
        lambda cells: st.lists(
            st.tuples(
                st.lists(EVENTS, min_size=cells, max_size=cells),
                st.lists(st.none() | st.integers(0, 39), min_size=cells, max_size=cells),
            ),
            min_size=1,
            max_size=4,
        )
    )
)
def test_a_writer_writes_what_a_loop_over_cells_writes(
    rounds: list[tuple[list[list[Event]], list[int | None]]],
) -> None:
    """Rounds of runs and of single symbols, of which some cells get none."""
    cells = len(rounds[0][0])
    out = symbols.Writer(cells, CPU)
    streams: list[list[int]] = [[] for _ in range(cells)]
    gains: list[dict[int, float]] = [{} for _ in range(cells)]
    number = 0.0
    for events, single in rounds:
        flat = [(cell, run, symbol) for cell in range(cells) for run, symbol in events[cell]]
        cell, run, symbol = torch.tensor(flat, dtype=torch.int64).view(-1, 3).unbind(1)
        gain = number + torch.arange(len(flat), dtype=torch.float32) + 1
        out.put_runs(cell, run, symbol, gain, scale=SCALE, skips=SKIPS)
        for own, distance, value in flat:
            number += 1
            streams[own] += written(distance, value)
            gains[own][len(streams[own]) - 1] = number  # an event's gain is that of its last symbol
        some = [n for n in range(cells) if single[n] is not None]
        out.put(torch.tensor(some, dtype=torch.int64), torch.tensor([single[n] for n in some]).long())
        for n in some:
            streams[n].append(int(single[n] or 0))
    assert out.length.tolist() == [len(stream) for stream in streams]
    width = -(-max(map(len, streams)) // symbols.PER_CODE) * symbols.PER_CODE
    full = [stream + [symbols.END] * (width - len(stream)) for stream in streams]
    assert out.symbols().tolist() == full
    assert out.gains().tolist() == [[own.get(n, 0.0) for n in range(width)] for own in gains]


def test_runs_with_distances_of_each_cell_s_own() -> None:
    """As palettes of several sizes have them."""
    out = symbols.Writer(2, CPU)
    cell = torch.tensor([0, 1, 1])
    reach = torch.tensor([36, 4, 4])
    skips = ((4 * reach, 37), (reach, 36))
    run = torch.tensor([35 + 2 * 144, 3, 4 + 16])
    out.put_runs(
        cell, run, torch.tensor([0, 5, 2]), torch.zeros(3), scale=torch.tensor([1, 9, 9]), skips=skips
    )
    assert out.length.tolist() == [3, 4]
    assert out.symbols().tolist() == [[37, 37, 35, 39, 39, 39], [5 + 27, 37, 36, 2, 39, 39]]


def test_a_writer_of_no_cells() -> None:
    out = symbols.Writer(0, CPU)
    assert out.symbols().shape == (0, 0)
    assert out.gains().shape == (0, 0)

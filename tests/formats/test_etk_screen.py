"""Token coding 5 (SPEC.md, 6.4): what is written is read, by our reader and by one that follows the page literally."""

import hashlib
import io
import json
import math
import tracemalloc
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from importlib import resources

import numpy as np
import pytest
import test_etk_attacks as attacks
import zstandard
from etk_by_the_page import Contexts, Lanes, lanes_for
from etk_samples import HEADER_RECORD, MODEL, make_block, raw_header, read, same_blocks, write
from hypothesis import given, settings
from hypothesis import strategies as st
from test_etk_predicted import (
    PAGE,
    Cell,
    codings,
    drawn_keep_maps,
    in_file_order,
    leading_tokens,
    specials_by_the_page,
)
from test_etk_spec import GENERATE, GOLDEN, drop_later_keys, facts

from formats import (
    PALETTE_SIZES,
    Block,
    ControlRange,
    Corrupt,
    EtkError,
    Header,
    ModelRef,
    UnsupportedVersion,
)
from formats.coding import range_coding as ranged
from formats.coding import screen_codes, tokens

SPEC = resources.files("formats").joinpath("SPEC.md").read_text(encoding="utf-8")
TABLES = resources.files("formats").joinpath("screen_tables.npz").read_bytes()
T = np.load(io.BytesIO(TABLES), allow_pickle=False)["counts"].tolist()

SHIPPED = replace(MODEL, vocabulary=65536, tokens_per_cell=4096)
RANGES = (
    ControlRange("motion_vector", 64000, 1521),
    ControlRange("gain", 65521, 3),
    ControlRange("pan", 65524, 2),
    ControlRange("shake", 65526, 1, 1),
    ControlRange("whole_vector", 65527, 1),
    ControlRange("dct", 65528, 1),
    ControlRange("palette", 65529, 7),
)
# levels of 40 values, few of which are symbols; 3 vectors' room in each axis; more palettes than there are sizes
SMALL = replace(SHIPPED, levels=(5, 8), vocabulary=40 + 9 + 6)
SMALL_RANGES = (ControlRange("gain", 40, 9), ControlRange("dct", 49, 1), ControlRange("whole_vector", 50, 4))
MANY_PALETTES = (*RANGES[:1], ControlRange("palette", 65521, 15))

Layout = tuple[ModelRef, Sequence[ControlRange]]
LAYOUTS: list[Layout] = [(SHIPPED, RANGES), (SMALL, SMALL_RANGES), (SHIPPED, MANY_PALETTES)]


# A reader by the page


def mode_of(token: int, ranges: Sequence[ControlRange]) -> tuple[str, int]:
    """The mode that a control token names, "" if none, and the colours of a palette."""
    for part in ranges:
        if part.first <= token < part.first + part.count:
            place = token - part.first
            if part.kind in ("whole_vector", "dct"):
                return part.kind, 0
            if part.kind == "palette" and place < 7:
                return part.kind, [1, 2, 3, 4, 5, 6, 8][place]
    return "", 0


A = [16, 4, 2, *[1] * 35, 2, 4]


class Stream:
    """What is known of the codes of a cell."""

    def __init__(self, mode: str, colours: int, heads: int, keep: int, later: bool) -> None:
        self.mode, self.colours, self.heads, self.keep, self.later = mode, colours, heads, keep, later
        self.stream: list[int] = []  # symbols so far
        self.labels = 0
        self.place = 0
        self.marked: set[int] = set()
        self.ended_at = -1  # index of the code in which the label stream ended
        self.coded: list[int] = []  # of this code

    def head(self, index: int) -> bool:
        return index - self.heads < (1 if self.mode == "whole_vector" else self.colours)

    def context(self, index: int, n: int) -> tuple[int, list[int]]:
        """The context of symbol n of the code at this index, and what its counts begin as."""
        place = min(2, index - self.heads)
        if self.head(index) and self.mode == "whole_vector":
            return n, [1] * 40
        if self.head(index) and n < 2:
            return 3 + 3 * n + place, A if n else [1] * 40
        if self.head(index):
            m = 0 if self.coded[1] == 0 else 1 if self.coded[1] in (1, 2, 38, 39) else 2
            return 9 + 3 * m + place, A
        if not self.stream:
            number = 2 * (self.mode == "palette") + self.later
            return 18 + number, T[number]
        if self.mode != "palette":
            c = 0
            if len(self.stream) > 1:
                s = self.stream[-1]
                c = s - 32 if 34 <= s < 39 else 1 if s == 39 else 7 + (s > 1) + (s > 5) + (s > 13)
            return 22 + c, T[4 + c]
        if self.ended_at == index:
            return 178, [0] * 39 + [1]
        if self.ended_at >= 0:
            return 177, [8] * 7 + [0] * 33
        e = next((e for e in range(16) if self.place + e - 16 in self.marked), 16)
        d = e if e < 4 else [4, 4, 5, 5, 6, 6, 6, 6, 7, 7, 7, 7, 8][e - 4]
        behind = self.keep - index - 1
        row = 18 * (self.labels - 2) + 9 * (behind in (0, self.colours)) + d
        return 33 + row, T[15 + row]

    def note(self, index: int, n: int, coded: int) -> int:
        """Take what was coded for symbol n; returns the symbol."""
        self.coded = [*self.coded[:n], coded]
        if self.head(index):
            # of a colour, the sum of what was coded; of a vector, the symbol itself
            return sum(self.coded) % 40 if self.mode == "palette" else coded
        self.stream.append(coded)
        if self.mode == "palette" and len(self.stream) == 1:
            self.labels = max(2, self.colours + coded % 2)
        elif self.mode == "palette" and self.ended_at < 0:
            r = 36 // (self.labels - 1)
            if coded < 36:
                self.place += coded // (self.labels - 1)
                self.marked.add(self.place)
                self.place += 1
            elif coded < 39:
                self.place += {36: r, 37: 4 * r, 38: 16 * r}[coded]
            else:
                self.ended_at = index
        return coded


def by_the_page(
    data: bytes,
    keeps: np.ndarray,
    frames: list[int],
    model: ModelRef,
    ranges: Sequence[ControlRange],
    lanes: int | None = None,
) -> list[int]:
    """Token coding 5, without the byte that says so: the tokens in file order."""
    coder = Lanes(data, lanes or lanes_for(int(keeps.sum()), 1024))
    contexts = Contexts(coder)
    special = specials_by_the_page(coder, keeps, frames, model, contexts)
    cells = list(np.ndindex(keeps.shape))
    product = math.prod(model.levels)
    radix = math.isqrt(model.vocabulary - product)
    streams: dict[int, Stream] = {}
    for number, cell in enumerate(cells):
        own = special.get(cell, [])
        # the last control token of patterns 2 and 3
        if own and own[-1] >= product + radix * radix:
            mode, colours = mode_of(own[-1], ranges)
            if mode:
                streams[number] = Stream(mode, colours, len(own), int(keeps[cell]), cell[0] > 0)
    starts = {}
    if model.levels == (8, 8, 8, 5, 5, 5):
        starts = {
            (d, c): PAGE["digits"][d][c][:level] for d, level in enumerate(model.levels) for c in range(8)
        }
    told = [0] * len(cells)
    result: list[int] = []
    for index in range(int(keeps.max())):
        run = [number for number, cell in enumerate(cells) if keeps[cell] > index]
        codes = [number for number in run if len(special.get(cells[number], [])) <= index]
        first = {number: cells[number][0] == 0 for number in run}
        value = contexts.digits(model.levels, [n for n in codes if n not in streams], first, told, starts)
        screen = [number for number in codes if number in streams]
        value |= dict.fromkeys(screen, 0)
        for n in range(3):
            known = {number: streams[number].context(index, n) for number in screen}
            for which in range(179):
                those = [number for number in screen if known[number][0] == which]
                if not those:
                    continue
                coded = contexts.sequence(("screen", which), known[those[0]][1], len(those))
                for number, symbol in zip(those, coded, strict=True):
                    value[number] += 40**n * streams[number].note(index, n, symbol)
        result += [value[n] if n in value else special[cells[n]][index] for n in run]
    coder.finish()
    return result


# Cases


def screen_symbols(rng: np.random.Generator, mode: str, colours: int, codes: int, wild: bool) -> list[int]:
    """Symbols of so many codes: any at all, or such as encoders write."""
    if wild:
        return [int(s) for s in rng.integers(0, 40, 3 * codes)]
    if mode != "palette":
        usual = rng.choice([0, 1, 2, 3, 8, 20, 33, 34, 36, 38, 39], 3 * codes)
        return [int(s) for s in usual]
    found: list[int] = []
    for _ in range(colours):
        grey = int(rng.integers(0, 40))
        found += [grey, grey, min(39, grey + int(rng.integers(0, 2)))]
    found.append(int(rng.integers(0, 2)))
    end = int(rng.integers(1, 3 * codes + 3))
    found += [int(s) for s in rng.choice([0, 1, 2, 5, 7, 35, 36, 37, 38], end)] + [39]
    found += [39] * (-len(found) % 3)
    found += [int(s) for s in rng.integers(0, 7, 3 * colours)]
    return (found + [39] * 3 * codes)[: 3 * codes]


def with_screen_cells(
    rng: np.random.Generator, keeps: np.ndarray, layout: Layout, share: float, wild: bool
) -> dict[Cell, list[int]]:
    """Tokens of every cell, of which a share has a screen mode if it keeps any."""
    model, ranges = layout
    product = math.prod(model.levels)
    radix = math.isqrt(model.vocabulary - product)
    found = leading_tokens(rng, keeps, model, 0.3)
    others = range(product + radix * radix, model.vocabulary)
    modes = [value for value in others if mode_of(value, ranges)[0]]
    for values in found.values():
        heads = 1 + int(rng.random() < 0.3)
        if len(values) < heads or rng.random() >= share:
            continue
        token = int(rng.choice(modes))
        mode, colours = mode_of(token, ranges)
        symbols = screen_symbols(rng, mode, colours, len(values) - heads, wild)
        own = [a + 40 * b + 1600 * c for a, b, c in zip(*(symbols[n::3] for n in range(3)), strict=True)]
        vector = [product + int(rng.integers(0, radix * radix))] * (heads - 1)
        values[:] = [*vector, token, *(value % product for value in own)]
    return found


Case = tuple[np.ndarray, np.ndarray, list[int], Layout]


@st.composite
def segments(draw: st.DrawFn) -> Case:
    keeps, frames = draw(drawn_keep_maps((2, 5, 30, 120)))
    keeps[0, 0, 0] = max(1, keeps[0, 0, 0])
    layout = draw(st.sampled_from(LAYOUTS))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    found = with_screen_cells(rng, keeps, layout, draw(st.sampled_from([0.3, 1])), draw(st.booleans()))
    model, ranges = layout
    if not any(mode_of(token, ranges)[0] for values in found.values() for token in values):
        found[0, 0, 0][0] = next(v for v in range(model.vocabulary) if mode_of(v, ranges)[0])
        found[0, 0, 0][1:] = [0] * (len(found[0, 0, 0]) - 1)
    return in_file_order(found), keeps, frames, layout


def encoded(case: Case) -> bytes:
    ordered, keeps, frames, (model, ranges) = case
    assert ranged.allows_screen(keeps, model)
    data = ranged.encode_predicted(ordered, keeps, np.array(frames), model, screen_codes.modes_of(ranges))
    assert data is not None
    return data


def decoded(data: bytes, case: Case) -> np.ndarray:
    _, keeps, frames, (model, ranges) = case
    return ranged.decode_predicted(data, keeps, np.array(frames), model, screen_codes.modes_of(ranges))


def round_trip(case: Case, lanes: int | None = None) -> None:
    ordered, keeps, frames, (model, ranges) = case
    data = encoded(case)
    assert decoded(data, case).tolist() == ordered.tolist()
    assert by_the_page(data, keeps, frames, model, ranges, lanes) == ordered.tolist()


def grid_of(seed: int, shape: tuple[int, int, int], longest: int, layout: Layout, wild: bool = False) -> Case:
    rng = np.random.default_rng(seed)
    keeps = rng.integers(0, longest + 1, shape).astype(np.uint16)
    return in_file_order(with_screen_cells(rng, keeps, layout, 0.7, wild)), keeps, [4] * shape[0], layout


# Round trips


@given(segments())
@settings(max_examples=120, deadline=None)
def test_both_readers_give_back_tokens(case: Case) -> None:
    round_trip(case)


@pytest.mark.parametrize("lanes", [1, 4, 32, 128])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_tokens_in_any_number_of_lanes(layout: Layout, lanes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranged, "lanes_for", lambda tokens: lanes)
    round_trip(grid_of(lanes, (3, 5, 6), 40, layout), lanes)


def test_many_tokens_meet_all_contexts() -> None:
    """The cases above would prove little if a context was missing."""
    case = grid_of(1, (2, 16, 24), 60, LAYOUTS[0])
    wild = grid_of(2, (2, 16, 24), 60, LAYOUTS[0], wild=True)
    met: set[int] = set()

    class Noting(screen_codes.Tables):
        def table(self, context, start):  # type: ignore[no-untyped-def]
            met.add(context[0])
            return super().table(context, start)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(screen_codes, "Tables", Noting)
        encoded(case)
        encoded(wild)
    # two of them need eight colours and a copy, or five and a copy, in the last code of a long stream
    assert len(met) > 0.97 * screen_codes.CONTEXTS
    round_trip(case)
    round_trip(wild)


@given(segments(), st.data())
@settings(max_examples=40, deadline=None)
def test_sequences_can_be_cut_anywhere(case: Case, data: st.DataObject) -> None:
    ordered, keeps, frames, layout = case
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    grid = np.zeros((int(keeps.max()), *keeps.shape), np.int64)
    grid[np.arange(len(grid))[:, None, None, None] < keeps] = ordered
    shorter = np.minimum(keeps, rng.integers(0, keeps.max() + 1, keeps.shape)).astype(np.uint16)
    shorter[0, 0, 0] = keeps[0, 0, 0]
    left = grid[np.arange(len(grid))[:, None, None, None] < shorter].astype(np.uint16)
    modes = screen_codes.modes_of(layout[1])
    coded = ranged.encode_predicted(left, shorter, np.array(frames), layout[0], modes)
    if coded is not None:  # else no screen cell is left
        assert decoded(coded, (left, shorter, frames, layout)).tolist() == left.tolist()


def test_cells_without_a_mode_are_left_to_coding_4() -> None:
    keeps = np.full((1, 2, 2), 2, np.uint16)
    ordered = np.array([64000, 65524, 7, 8, 5, 6, 7, 8], np.uint16)
    modes = screen_codes.modes_of(RANGES)
    assert modes is not None
    assert ranged.encode_predicted(ordered, keeps, np.array([4]), SHIPPED, modes) is None
    assert screen_codes.modes_of(RANGES[:4]) is None
    assert tokens.encode_tokens([ordered], keeps, [4], SHIPPED, RANGES)[0] != tokens.SCREEN_RANGE_CODED


def test_models_whose_codes_or_control_tokens_do_not_fit() -> None:
    keeps = np.full((1, 2, 2), 2, np.uint16)
    assert ranged.allows_screen(keeps, SHIPPED)
    assert not ranged.allows_screen(keeps, replace(SHIPPED, levels=(250, 257)))
    assert not ranged.allows_screen(keeps, replace(SHIPPED, levels=(251, 255)))  # 64,005 codes
    assert ranged.allows_screen(keeps, replace(SHIPPED, levels=(100,), vocabulary=100 + 200 * 200 + 256))
    assert not ranged.allows_screen(keeps, replace(SHIPPED, levels=(100,), vocabulary=100 + 200 * 200 + 257))
    large = np.broadcast_to(np.uint16(0), (1, 1024, 1025))
    assert not ranged.allows_screen(large, SHIPPED)


def test_streams_take_fewer_bytes_than_in_coding_4() -> None:
    """Runs as encoders write them: three quarters of the bytes, also where there are few."""
    rng = np.random.default_rng(4)
    for cells in (8, 200):
        own = {}
        for n in range(cells):
            runs = np.minimum(rng.geometric(0.3, 60) - 1, 16)
            dct = [10, *(2 * runs + rng.integers(0, 2, 60)).tolist(), 39]
            misses = [0, *np.minimum(rng.geometric(0.4, 40) - 1, 35).tolist(), 39]
            stream = [(30, 30, 30), (3, 3, 4)]
            symbols = dct if n % 2 else [s for colour in stream for s in colour] + misses
            symbols += [39] * (-len(symbols) % 3)
            codes = [
                a + 40 * b + 1600 * c for a, b, c in zip(*(symbols[i::3] for i in range(3)), strict=True)
            ]
            own[0, 0, n] = [65528 if n % 2 else 65530, *codes]
        keeps = np.array([[[len(values) for values in own.values()]]], np.uint16)
        case = in_file_order(own), keeps, [4], LAYOUTS[0]
        old = ranged.encode_predicted(case[0], keeps, np.array([4]), SHIPPED)
        assert old is not None
        assert len(encoded(case)) < 0.75 * len(old)


# Files


HEADER = replace(
    HEADER_RECORD, model=SHIPPED, grid=(6, 7), width=7 * 16, height=6 * 16, control_tokens=RANGES
)


def screen_video(seed: int, blocks: int, start: int = 0) -> list[Block]:
    ordered, keeps, _, _ = grid_of(seed, (blocks, 6, 7), 40, LAYOUTS[0])
    return [
        make_block(0, start + 4 * n, keep=keeps[n], tokens=ordered[slots], durations=(1,) * 4)
        for n, slots in enumerate(tokens.segment_slots(keeps))
    ]


def test_a_file_takes_coding_5_only_where_its_header_names_modes() -> None:
    video = screen_video(1, 2)
    for header, screen in ((HEADER, True), (replace(HEADER, control_tokens=()), False)):
        data = write([video], header)
        _, (found,) = read(data)
        assert same_blocks(found.blocks, video)
        assert (codings(data, found)[1] == tokens.SCREEN_RANGE_CODED) == screen


def test_golden_file_of_screen_modes() -> None:
    """GENERATE_EXPECTED=1 writes the file anew, as new tables need (which no release may bring)."""
    path, expected = GOLDEN / "v1-screen.etk", GOLDEN / "v1-screen.json"
    if GENERATE:
        path.write_bytes(write([screen_video(5, 3), screen_video(6, 1, 12)], HEADER))
        expected.write_text(json.dumps(facts(*read(path.read_bytes()))) + "\n", encoding="utf-8")
    reader, found = read(path.read_bytes())
    known, stored = facts(reader, found), json.loads(expected.read_text(encoding="utf-8"))
    drop_later_keys(known, stored)
    zstd = stored.pop("zstd")
    assert stored == {key: value for key, value in known.items() if key != "zstd"}
    assert all(codings(path.read_bytes(), segment) == (16, 5) for segment in found)
    if zstd == list(zstandard.ZSTD_VERSION):
        assert write([segment.blocks for segment in found], reader.header) == path.read_bytes()


def test_the_page_names_the_tables() -> None:
    assert hashlib.sha256(TABLES).hexdigest() in SPEC
    assert np.array(T).shape == (159, 40)
    assert PALETTE_SIZES == (1, 2, 3, 4, 5, 6, 8)
    counts = screen_codes.first_counts()
    assert counts[3 + 3 : 18].tolist() == [A] * 12
    assert len(counts) == 179


# Attacks

KEEPS = np.array([[[6, 0], [3, 5]]], np.uint16)
ORDERED = [65528, 65531, 64000, 1, 2, 65529, 3, 4, 5, 6, 7, 8, 9, 10]


def head(ranges: Sequence[ControlRange] = RANGES, vocabulary: int = 65536) -> bytes:
    numbers = {"motion_vector": 0, "gain": 1, "pan": 2, "shake": 3, "whole_vector": 4, "dct": 5, "palette": 6}
    entries = [[numbers[part.kind], part.count] for part in ranges]
    return raw_header(m=["x", bytes(32), [8, 8, 8, 5, 5, 5], vocabulary, 6, 4, 16, 16], i=entries)


def segment(data: bytes, keep: Sequence[int] = (6, 0, 3, 5)) -> bytes:
    return attacks.segment(keep=bytes(keep), tokens=b"\5" + data)


def hand_made() -> bytes:
    return encoded((np.array(ORDERED, np.uint16), KEEPS, [4], LAYOUTS[0]))


def test_the_hand_made_tokens_are_sound() -> None:
    _, (found,) = attacks.read(head() + segment(hand_made()))
    assert found.blocks[0].tokens.tolist() == ORDERED


@pytest.mark.parametrize(
    ("ranges", "vocabulary"),
    [((), 65536), (RANGES[:4], 65536), (RANGES[:4], 65527), ((ControlRange("gain", 64000, 1),), 64001)],
)
def test_coding_5_where_no_mode_is_named(ranges: Sequence[ControlRange], vocabulary: int) -> None:
    with pytest.raises(UnsupportedVersion, match="token coding 5"):
        attacks.read(head(ranges, vocabulary) + segment(hand_made()), tolerate=False)


def test_tokens_cut_anywhere() -> None:
    data = hand_made()
    for size in range(len(data)):
        with pytest.raises(EtkError):
            attacks.read(head() + segment(data[:size]), tolerate=False)
    for more, message in ((b"\0\0", "do not end"), (b"\0", "impossible length")):
        with pytest.raises(Corrupt, match=message):
            attacks.read(head() + segment(data + more), tolerate=False)


def test_codes_outside_those_of_the_model() -> None:
    """40 symbols of three digits, where a model has fewer codes."""
    keeps = np.array([[[3, 1]]], np.uint16)
    ordered = np.array([49, 49, 39, 40], np.uint16)
    modes = screen_codes.modes_of(SMALL_RANGES)
    # 40 is a control token there, so a writer does not code it; one that thinks that all values are codes does
    assert ranged.encode_predicted(ordered, keeps, np.array([4]), SMALL, modes) is None
    codes = screen_codes.ScreenCodes(*(np.array([n]) for n in (screen_codes.DCT, 0, 1, 3, 0)), code_values=40)
    writer = ranged.Writer(1)
    assert codes.code(1, np.array([0]), np.array([39]), writer).tolist() == [39]
    with pytest.raises(Corrupt, match="codes of the model"):
        codes.code(2, np.array([0]), np.array([40]), writer)


@given(st.integers(0, 2**32), st.integers(0, 7), st.sampled_from(LAYOUTS), st.booleans())
@settings(max_examples=80, deadline=None)
def test_tokens_with_a_flipped_bit(place: int, bit: int, layout: Layout, wild: bool) -> None:
    """Other tokens, perhaps, but none outside the vocabulary, and no other failure."""
    case = grid_of(place % 7, (2, 3, 4), 20, layout, wild)
    data = bytearray(encoded(case))
    data[place % len(data)] ^= 1 << bit
    with suppress(Corrupt):
        found = decoded(bytes(data), case)
        assert found.max() < layout[0].vocabulary


@given(st.lists(st.integers(0, 6), min_size=4, max_size=4), st.binary(max_size=80))
@settings(max_examples=100, deadline=None)
def test_any_tokens(keep: list[int], data: bytes) -> None:
    attacks.read(head() + segment(data, keep))


def test_largest_segment_of_screen_cells_takes_less_than_500_mb() -> None:
    """2^20 cells, each with a palette of its own."""
    keeps = np.full((1, 1024, 1024), 2, np.uint16)
    ordered = np.zeros(2 << 20, np.uint16)
    ordered[: 1 << 20] = np.random.default_rng(0).integers(65529, 65536, 1 << 20)
    case = ordered, keeps, [4], LAYOUTS[0]
    data = encoded(case)
    tracemalloc.start()
    try:
        found = decoded(data, case)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert np.array_equal(found, ordered)
    assert peak < 400e6  # what the rest of the file takes comes on top


def test_headers_of_files_keep_their_modes() -> None:
    reader, _ = read(write([], HEADER))
    assert isinstance(reader.header, Header)
    assert reader.header.control_tokens == RANGES

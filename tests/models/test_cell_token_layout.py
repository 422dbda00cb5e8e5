from collections.abc import Sequence
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import formats
from elastictok_cli.models import checkpoint
from elastictok_cli.models.cell.motion import camera_shake, vectors, whole_vectors
from elastictok_cli.models.cell.screen import palette
from elastictok_cli.models.cell.token_layout import (
    DCT_MODE,
    FIRST_PALETTE_MODE,
    GAINS,
    Contents,
    MotionTokens,
    Sequences,
    TokenLayout,
)


def test_the_shipped_model_s_control_tokens_fill_its_vocabulary() -> None:
    spec = checkpoint.load().tokenizer.spec
    ranges = [(r.kind, r.first, r.count, r.followed_by) for r in spec.control_tokens]
    assert ranges == [
        ("motion_vector", 64_000, 1_521, 0),
        ("gain", 65_521, 3, 0),
        ("pan", 65_524, 2, 0),
        ("shake", 65_526, 1, 1),
        ("whole_vector", 65_527, 1, 0),
        ("dct", 65_528, 1, 0),
        ("palette", 65_529, 7, 0),
    ]
    assert spec.vocabulary == 65_536
    assert spec.tokens_per_cell == 4_096


def layout(*, pan: bool = True, shake: bool = True) -> TokenLayout:
    return TokenLayout(64_000, codes_per_cell=6, frames=4, pan=pan, shake=shake)


def test_a_model_without_camera_motion_has_fewer_values() -> None:
    assert layout(pan=False, shake=False).vocabulary == 65_524
    assert layout(shake=False).vocabulary == 65_526
    assert [r.kind for r in layout(shake=False).control_tokens] == ["motion_vector", "gain", "pan"]
    assert layout(pan=False, shake=False).tokens_per_cell == 8
    assert layout(shake=False).tokens_per_cell == 9
    assert layout().tokens_per_cell == 4096


def test_screen_modes_want_pans_shakes_and_enough_codes() -> None:
    """Else nothing is read as one, whatever its value."""
    few_codes = TokenLayout(63_999, codes_per_cell=6, frames=4, pan=True, shake=True)
    assert layout().screen
    for laid in (few_codes, layout(shake=False), layout(pan=False, shake=False)):
        assert not laid.screen
        assert {"whole_vector", "dct", "palette"}.isdisjoint(r.kind for r in laid.control_tokens)
        tokens = torch.full((1, laid.tokens_per_cell, 1, 9), 5)
        tokens[0, 0, 0] = torch.arange(laid.whole_mark, laid.whole_mark + 9)
        assert laid.read(tokens, torch.full((1, 1, 9), 6), 4).screen is None
    assert few_codes.tokens_per_cell == 13


def test_what_is_put_in_front_is_read_again() -> None:
    """Cells with each order of control tokens: none, a gain, a vector, both, a pan, a shake of three real frames."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 64_000, (1, 6, 2, 3), generator=generator)
    full = torch.full((1, 2, 3), 6)
    coded = Sequences(codes, torch.rand(1, 7, 2, 3, generator=generator), full)
    sent = torch.tensor([[[0, 0, 1], [1, 1, 1]]]).bool()
    gain = torch.tensor([[[0, 3, 0], [1, 0, 0]]])
    pan = torch.tensor([[[0, 0, 0], [0, 2, 0]]])
    sends_shake = torch.tensor([[[0, 0, 0], [0, 0, 1]]]).bool()
    motion = vectors.index_to_vector(torch.randint(0, vectors.VECTORS, (1, 2, 3), generator=generator))
    shake_codes, shake = camera_shake.to_codes(torch.tensor([[[1.0, 2.0], [-3.5, 0.25], [0.0, 40.0]]]))
    tokens = MotionTokens(sent, motion, torch.zeros_like(sent), pan, sends_shake, shake_codes)
    laid = layout()
    coded = laid.put_motion(laid.put_gain(coded, gain), tokens, torch.full((1, 2, 3), 5.0), count=3)
    assert coded.tokens.shape[1] == 6 + 8  # slots, one for each token that may be in front
    assert coded.curve.shape[1] == 6 + 8 + 1
    assert (coded.length - 6).tolist() == [[[0, 1, 1], [2, 2, 5]]]

    read = laid.read(coded.tokens, coded.length, count=3)
    assert torch.equal(read.sent, sent)
    assert torch.equal(torch.where(sent, read.vectors, 0), torch.where(sent, motion, 0))
    assert torch.equal(read.pan, pan)
    assert read.shake is not None
    assert torch.equal(read.shake, shake)
    assert torch.equal(read.gain[:, 0], torch.tensor((1.0, *GAINS))[gain])
    assert torch.equal(read.codes, codes)
    assert torch.equal(read.codes_kept, full)

    # an allocator never drops a pan or a shake; a vector alone it may
    dear = coded.curve[0, :, :, :] > 1e6
    assert dear.sum(0).tolist() == [[0, 0, 0], [0, 2, 5]]


def test_a_cell_without_tokens_says_nothing() -> None:
    laid = layout()
    tokens = torch.full((1, laid.tokens_per_cell, 2, 3), laid.shake_mark)
    read = laid.read(tokens, torch.zeros(1, 2, 3, dtype=torch.int64), count=4)
    assert not read.sent.any()
    assert not read.pan.any()
    assert read.shake is None
    assert torch.equal(read.gain, torch.ones(1, 1, 2, 3))
    assert not read.codes_kept.any()


def random_codes(seed: int, count: int, below: int = 64_000) -> list[int]:
    return torch.randint(0, below, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


VECTOR, WHOLE = 64_000 + 39 * 21 + 4, 65_527
SHAKE_CODES = random_codes(5, 3, camera_shake.CODES)
ORDERS = (  # all that the page of the module has, for three real frames
    random_codes(0, 6),
    [65_523, *random_codes(1, 6)],
    [VECTOR, *random_codes(2, 6)],
    [VECTOR, 65_521, *random_codes(3, 6)],
    [VECTOR, 65_525, *random_codes(4, 6)],
    [VECTOR, 65_526, *SHAKE_CODES, *random_codes(6, 6)],
    [WHOLE, 12_345, *random_codes(7, 4)],
    [WHOLE, whole_vectors.CODES - 1, *random_codes(8, 11)],
    [65_528, *random_codes(9, 14)],
    [VECTOR, 65_528, *random_codes(10, 3)],
    [65_529, *random_codes(11, 1)],
    [65_531, *random_codes(12, 7)],
    [VECTOR, 65_535, *random_codes(13, 12)],
    [VECTOR, 65_535, *random_codes(14, 8)],
)


class Said(NamedTuple):
    """What the tokens of one cell say."""

    vector: tuple[float, float] | None = None
    pan: int = 0
    shake: bool = False
    gain: float = 1.0
    codes: tuple[int, ...] = ()
    whole: bool = False
    mode: int | None = None
    mode_codes: tuple[int, ...] = ()


def by_the_page(tokens: Sequence[int]) -> Said:
    """What a cell's sequence says, token by token, as the page of the module has it. Three frames are real."""
    rest, said = list(tokens), Said()
    if rest and rest[0] == WHOLE:
        if len(rest) == 1:
            return said
        place, pan = divmod(rest[1] % (97 * 97 * 3), 3)
        said = Said(vector=(place // 97 - 48.0, place % 97 - 48.0), pan=pan, whole=True)
        return said._replace(mode=DCT_MODE, mode_codes=tuple(rest[2:])) if rest[2:] else said
    if rest and 64_000 <= rest[0] < 65_521:
        number = rest.pop(0) - 64_000
        said = said._replace(vector=(vectors.SPEEDS[number // 39], vectors.SPEEDS[number % 39]))
    if rest and rest[0] >= 65_528:
        mode = rest.pop(0) - 65_528
        least = 1 if mode == 0 else (1, 2, 3, 4, 5, 6, 8)[mode - 1]
        return said._replace(mode=1 + mode, mode_codes=tuple(rest)) if len(rest) >= least else said
    if rest and said.vector is not None and 65_524 <= rest[0] < 65_526:
        said = said._replace(pan=rest.pop(0) - 65_523)
    elif rest and said.vector is not None and rest[0] == 65_526:
        said = said._replace(shake=len(rest) > 3)
        rest = rest[4:]
    if rest and 65_521 <= rest[0] < 65_524:
        said = said._replace(gain=(2.0, 4.0, 8.0)[rest.pop(0) - 65_521])
    return said._replace(codes=tuple(rest))


def table(sequences: Sequence[Sequence[int]], width: int) -> torch.Tensor:
    """Sequences as tokens (1, width, 1, n), what is unused at random."""
    out = torch.randint(0, 65_536, (1, width, 1, len(sequences)), generator=torch.Generator().manual_seed(9))
    for n, tokens in enumerate(sequences):
        out[0, : len(tokens), 0, n] = torch.tensor(tokens, dtype=torch.int64)
    return out


def check_cells(read: Contents, expected: Sequence[Said]) -> None:
    """What was read of cells (1, 1, n) is what their sequences say."""
    modes: dict[int, tuple[int, tuple[int, ...]]] = {}
    if read.screen is not None:
        assert bool((read.screen.used | ~read.screen.cells.where).all())
        for n, cell in enumerate(read.screen.cells.column.tolist()):
            kept = int(read.screen.kept[n])
            modes[cell] = int(read.screen.mode[n]), tuple(read.screen.codes[n, :kept].tolist())
    for n, said in enumerate(expected):
        assert bool(read.sent[0, 0, n]) == (said.vector is not None)
        if said.vector is not None:
            assert tuple(read.vectors[0, :, 0, n].tolist()) == said.vector
        assert int(read.pan[0, 0, n]) == said.pan
        assert float(read.gain[0, 0, 0, n]) == said.gain
        kept = int(read.codes_kept[0, 0, n])
        assert tuple(read.codes[0, :kept, 0, n].tolist()) == said.codes
        assert read.screen is not None or not (said.whole or said.mode)
        if read.screen is not None:
            assert bool(read.screen.whole[0, 0, n]) == said.whole
        assert modes.get(n) == (None if said.mode is None else (said.mode, said.mode_codes))
    shakes = any(said.shake for said in expected)
    assert (read.shake is not None) == shakes
    if read.shake is not None:
        assert torch.equal(read.shake, camera_shake.from_codes(torch.tensor([SHAKE_CODES])))


def test_each_order_is_read_as_the_page_says_wherever_it_is_cut() -> None:
    laid = layout()
    longest = max(map(len, ORDERS))
    tokens = table(ORDERS, longest)
    for most in range(longest + 1):
        keep = torch.tensor([[[min(most, len(tokens)) for tokens in ORDERS]]])
        check_cells(laid.read(tokens, keep, 3), [by_the_page(order[:most]) for order in ORDERS])


@pytest.mark.parametrize("front", [[], [VECTOR]])
def test_a_mode_needs_what_it_cannot_do_without(front: list[int]) -> None:
    for mode, least in enumerate((1, 1, 2, 3, 4, 5, 6, 8)):
        order = [*front, 65_528 + mode, *random_codes(mode, least + 1)]
        for most in range(len(order) + 1):
            read = layout().read(table([order], 12), torch.tensor([[[most]]]), 3)
            check_cells(read, [by_the_page(order[:most])])
            complete = most > len(front) + least
            assert complete == (read.screen is not None and read.screen.cells.count == 1)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(ORDERS), st.integers(0, 16)),
        min_size=1,
        max_size=8,
        unique_by=lambda x: x[0][0],
    ),
    st.integers(16, 70),
)
def test_cells_are_read_as_if_they_were_alone(cells: list[tuple[list[int], int]], width: int) -> None:
    """Tables may be wider than any sequence is long."""
    keep = torch.tensor([[[min(most, len(order)) for order, most in cells]]])
    expected = [by_the_page(order[:most]) for order, most in cells]
    check_cells(layout().read(table([order for order, _ in cells], width), keep, 3), expected)


def test_the_values_at_the_ends() -> None:
    """65,527 is the first value that older models have not, 65,535 the last there is."""
    sequences = (
        [65_523, 63_999],
        [64_000, 65_526],
        [65_527],
        [65_527, 63_999],
        [65_528],
        [65_528, 63_999],
        [65_535, *[63_999] * 7],
        [65_535, *[63_999] * 8],
        [65_529],
        [65_529, 0],
    )
    keep = torch.tensor([[[len(tokens) for tokens in sequences]]])
    read = layout().read(table(sequences, 9), keep, 3)
    check_cells(read, [by_the_page(tokens) for tokens in sequences])
    assert read.screen is not None
    assert read.screen.used[0, 0].tolist() == [False] * 2 + [True] * 8
    assert read.screen.whole[0, 0].nonzero().tolist() == [[3]]
    assert read.screen.cells.column.tolist() == [5, 7, 9]
    assert read.screen.mode.tolist() == [DCT_MODE, FIRST_PALETTE_MODE + 6, FIRST_PALETTE_MODE]
    assert read.screen.kept.tolist() == [1, 8, 1]
    assert read.sent[0, 0].nonzero().flatten().tolist() == [1, 3]
    assert read.codes_kept[0, 0].tolist() == [1] + [0] * 9


def test_screen_modes_that_are_put_in_front_are_read_again() -> None:
    """Each order with a whole vector or a mode, from what the encoder has of them."""
    laid, rng = layout(), torch.Generator().manual_seed(2)
    length = torch.tensor([[[4, 0, 5, 9, 2, 9, 6]]])
    codes = torch.randint(0, 64_000, (1, 9, 1, 7), generator=rng)
    codes = torch.where(torch.arange(9).view(1, 9, 1, 1) < length.unsqueeze(1), codes, -1)
    curve = 100 - 10 * torch.arange(10.0).view(1, 10, 1, 1).minimum(length.unsqueeze(1))
    # whole vector with a stream; one alone that is a pan; modes alone; a vector and a mode; FSQ codes and a vector
    mode = torch.tensor([[[0, 0, DCT_MODE, 8, FIRST_PALETTE_MODE, 8, 0]]])
    whole = torch.tensor([[[1, 1, 0, 0, 0, 0, 0]]]).bool()
    sent = torch.tensor([[[1, 1, 0, 0, 0, 1, 1]]]).bool()
    pan = torch.tensor([[[0, 2, 0, 0, 0, 0, 0]]])
    motion = vectors.index_to_vector(torch.randint(0, vectors.VECTORS, (1, 1, 7), generator=rng))
    motion[0, :, 0, 0], motion[0, :, 0, 1] = torch.tensor([-48.0, 0]), torch.tensor([37.0, 48])
    tokens = MotionTokens(sent, motion, whole, pan, torch.zeros_like(sent), None)
    unsent = torch.full((1, 1, 7), 300.0)
    coded = laid.put_motion(laid.put_mode(Sequences(codes, curve, length), mode), tokens, unsent, 4)
    assert (coded.length - length).tolist() == [[[2, 2, 1, 1, 1, 2, 1]]]
    assert coded.tokens[0, :2, 0].tolist()[0][:5] == [65_527, 65_527, 65_528, 65_535, 65_529]
    read = laid.read(coded.tokens, coded.length, 4)
    expected = [by_the_page(coded.tokens[0, : int(coded.length[0, 0, n]), 0, n].tolist()) for n in range(7)]
    check_cells(read, expected)
    for n, said in enumerate(expected):
        assert (said.vector is not None) == bool(sent[0, 0, n])
        assert said.vector is None or said.vector == tuple(motion[0, :, 0, n].tolist())
        assert (said.whole, said.pan) == (bool(whole[0, 0, n]), int(pan[0, 0, n]))
        own = tuple(codes[0, : int(length[0, 0, n]), 0, n].tolist())
        assert (said.codes or said.mode_codes) == own
        assert said.mode == (DCT_MODE if n == 0 else int(mode[0, 0, n]) or None)

    # curves: a mode alone says nothing, nor does half a whole vector; a pan is kept whatever it costs
    assert coded.curve[0, :4, 0, 0].tolist() == [300, 300, 100, 90]
    assert coded.curve[0, :3, 0, 2].tolist() == [100, 100, 90]
    assert coded.curve[0, :4, 0, 5].tolist() == [300, 100, 100, 90]
    assert bool((coded.curve[0, :2, 0, 1] > 1e6).all())
    assert float(coded.curve[0, 2, 0, 1]) == 100


def test_a_pan_of_a_whole_vector_is_no_token_of_its_own() -> None:
    for own in range(3):
        pan = torch.full((1, 1, 1), own)
        yes = torch.ones(1, 1, 1, dtype=torch.bool)
        nothing = Sequences(torch.full((1, 1, 1, 1), -1), torch.ones(1, 2, 1, 1), torch.zeros_like(pan))
        motion = torch.tensor([[[[-30.0]], [[11.0]]]])
        said = MotionTokens(yes, motion, yes, pan, ~yes, None)
        coded = layout().put_motion(nothing, said, torch.ones(1, 1, 1), 4)
        assert coded.tokens[0, :, 0, 0].tolist()[:3] == [65_527, (18 * 97 + 59) * 3 + own, -1]
        assert int(coded.length) == 2


class Old(TokenLayout):
    """The layout before there were screen modes."""

    screen = False  # type: ignore[assignment]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([order for order in ORDERS if max(order) <= 65_526]), st.integers(0, 11)),
        min_size=1,
        max_size=6,
    )
)
def test_old_sequences_are_read_as_before(cells: list[tuple[list[int], int]]) -> None:
    old = Old(64_000, codes_per_cell=6, frames=4, pan=True, shake=True)
    assert old.vocabulary == 65_527
    keep = torch.tensor([[[min(most, len(order)) for order, most in cells]]])
    tokens = table([order for order, _ in cells], old.tokens_per_cell)
    for read, before in zip(layout().read(tokens, keep, 3), old.read(tokens, keep, 3), strict=True):
        if before is None:
            assert read is None
        else:
            assert isinstance(read, torch.Tensor)
            assert torch.equal(read, before)


def test_a_picture_s_sequences_are_read_alike_beside_others() -> None:
    first = table(ORDERS, 20)
    other = table([random_codes(n, 6) for n in range(len(ORDERS))], 20)
    keep = torch.tensor([[[len(order) for order in ORDERS]], [[6] * len(ORDERS)]])
    both = layout().read(torch.cat([first, other]), keep, 3)
    assert both.screen is not None
    assert not both.screen.used[1].any()
    alone = layout().read(first, keep[:1], 3)
    assert alone.screen is not None
    for name in ("sent", "vectors", "pan", "gain", "codes", "codes_kept"):
        assert torch.equal(getattr(both, name)[:1], getattr(alone, name)), name
    for name in ("mode", "codes", "kept"):
        assert torch.equal(getattr(both.screen, name), getattr(alone.screen, name)), name
    assert layout().read(other, keep[1:], 3).screen is None


def test_the_format_and_the_model_agree_on_palettes() -> None:
    """Neither may know the other, so each has the sizes of its own."""
    assert formats.PALETTE_SIZES == palette.SIZES

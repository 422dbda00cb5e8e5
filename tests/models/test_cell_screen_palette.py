"""The palette mode: colours and labels come back exactly, and a sequence that is cut tells what it can."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elastictok_cli.models.cell.screen import palette, palette_search, symbols
from elastictok_cli.models.cell.screen.palette import Fit

SIDE = 16


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_labels(seed: int, cells: int, frames: int, labels: int, busy: float) -> torch.Tensor:
    """Labels (n, T, 16, 16): of the first frame a rectangle and some noise, later ones change some pixels."""
    rng = generator(seed)
    out = torch.zeros(cells, frames, SIDE, SIDE, dtype=torch.int64)
    for n in range(cells):
        top, left, label = (int(torch.randint(0, most, (), generator=rng)) for most in (12, 12, labels))
        out[n, :, top : top + 7, left:] = label
    for frame in range(frames):
        if frame:
            out[:, frame] = out[:, frame - 1]
        noisy = torch.rand(cells, SIDE, SIDE, generator=rng) < busy
        noise = torch.randint(0, labels, (cells, SIDE, SIDE), generator=rng)
        out[:, frame] = torch.where(noisy, noise, out[:, frame])
    return out


def random_fit(seed: int, size: int, copies: Sequence[bool], frames: int, busy: float) -> Fit:
    rng = generator(seed + 1)
    cells = len(copies)
    copying = torch.tensor(copies)
    labels = torch.stack(
        [random_labels(seed + 7 * n, 1, frames, size + own, busy)[0] for n, own in enumerate(copies)]
    )
    colours = torch.randint(0, 40, (cells, size, 3), generator=rng)
    finer = torch.randint(0, 7, (cells, size, 3), generator=rng)
    nothing = torch.zeros(cells)
    return Fit(colours, finer, labels, copying, nothing, nothing)


def reference(seed: int, cells: int, frames: int) -> torch.Tensor:
    return torch.rand(cells, frames, 3, SIDE, SIDE, generator=generator(seed)) * 2 - 1


def painted(fitted: Fit, known: torch.Tensor, *, refined: bool) -> torch.Tensor:
    """What a fit shows, pixel by pixel."""
    out = known.clone()
    levels = fitted.colours.float()
    if refined:
        levels = levels + (fitted.finer.float() - 3) / 7
    rgb = levels * (2 / 39) - 1
    for n, own in enumerate(fitted.copies.long().tolist()):
        colour = fitted.labels[n] - own
        own_rgb = rgb[n][colour.clamp_min(0)].permute(0, 3, 1, 2)
        out[n] = torch.where((colour < 0)[:, None], known[n], own_rgb)
    return out.clamp(-1, 1)


def by_the_page(codes: list[int], size: int, known: torch.Tensor) -> tuple[torch.Tensor, int]:
    """The pixels (T, 3, 16, 16) of a cell read as the page of the module says, and how many are told, not predicted."""
    frames = len(known)
    digits = [[code // 40**n % 40 for n in range(3)] for code in codes]
    levels, stream, finer = digits[:size], [s for code in digits[size:] for s in code], []
    copies = bool(stream) and stream[0] == 1
    if symbols.END in stream[1:]:
        end = stream.index(symbols.END, 1)
        finer = digits[size + end // 3 + 1 :]
        stream = stream[:end]
        told = frames * SIDE**2
    else:
        told = 0
    others = max(1, size + copies - 1)
    reach = 36 // others
    event: dict[int, int] = {}
    place = 0
    for symbol in stream[1:]:
        if symbol >= 36:
            place += reach * 4 ** (symbol - 36)
        else:
            place += symbol // others
            event[place] = symbol % others
            place += 1
        told = max(told, min(place, frames * SIDE**2))
    labels: list[list[list[int]]] = []
    place = 0
    for frame in range(frames):
        labels.append([[0] * SIDE for _ in range(SIDE)])
        for row in range(SIDE):
            for column in range(SIDE):
                if frame:
                    guess = labels[frame - 1][row][column]
                else:
                    guess = predicted(labels[0], row, column) if place < told else 0
                if place in event:
                    other = event[place]
                    guess = other + (other >= guess)
                labels[frame][row][column] = guess
                place += 1
    out = known.clone()
    for frame in range(frames):
        for row in range(SIDE):
            for column in range(SIDE):
                colour = labels[frame][row][column] - copies
                if colour < 0:
                    continue
                colour = min(colour, size - 1)
                level = [float(x) for x in levels[colour]]
                if colour < len(finer):
                    level = [x + (min(y, 6) - 3) / 7 for x, y in zip(level, finer[colour], strict=True)]
                out[frame, :, row, column] = (torch.tensor(level) * (2 / 39) - 1).clamp(-1, 1)
    return out, told


def predicted(labels: list[list[int]], row: int, column: int) -> int:
    """From the labels to the left, above and above left; outside the cell they are what is inside."""
    if row == column == 0:
        return 0
    if row == 0:
        return labels[0][column - 1]
    above = labels[row - 1][column]
    if column == 0:
        return above
    return labels[row][column - 1] if labels[row - 1][column - 1] == above else above


CASES = {
    "seed": st.integers(0, 10_000),
    "size": st.sampled_from(palette.SIZES),
    "copies": st.lists(st.booleans(), min_size=1, max_size=3),
    "frames": st.integers(1, 4),
    "busy": st.sampled_from((0.0, 0.004, 0.1, 0.9)),
}


@settings(max_examples=30, deadline=None)
@given(**CASES)
def test_labels_and_colours_come_back(
    seed: int, size: int, copies: list[bool], frames: int, busy: float
) -> None:
    fitted = random_fit(seed, size, copies, frames, busy)
    written = palette.encode(fitted)
    assert int(written.codes.max()) < symbols.CODES
    assert int(written.codes.min()) >= 0
    assert bool((written.needed <= written.length).all())
    sizes = torch.full((len(copies),), size)
    known = reference(seed, len(copies), frames)
    shown = palette.decode(written.codes, written.needed, sizes, known)
    torch.testing.assert_close(shown, painted(fitted, known, refined=False), rtol=0, atol=1e-6)
    assert torch.equal(shown, palette.decode(written.codes, written.length, sizes, known))
    finer = torch.zeros(len(copies), size, dtype=torch.int64)
    codes = torch.cat([written.codes, finer], 1)
    codes = codes.scatter(1, written.length[:, None] + torch.arange(size), written.finer)
    shown = palette.decode(codes, written.length + size, sizes, known)
    torch.testing.assert_close(shown, painted(fitted, known, refined=True), rtol=0, atol=1e-6)


@pytest.mark.parametrize("copies", [False, True])
@pytest.mark.parametrize("size", palette.SIZES)
def test_every_size_with_all_labels_in_use(size: int, copies: bool) -> None:
    fitted = random_fit(size, size, [copies] * 2, 4, 0.95)
    assert fitted.labels.flatten().unique().tolist() == list(range(size + copies))
    written = palette.encode(fitted)
    known = reference(size, 2, 4)
    shown = palette.decode(written.codes, written.length, torch.full((2,), size), known)
    torch.testing.assert_close(shown, painted(fitted, known, refined=False), rtol=0, atol=1e-6)


def test_runs_of_every_length() -> None:
    """One pixel of another colour at each place of a cell of two frames: skips of one, four and sixteen reaches."""
    for size, own in ((2, False), (8, True)):
        labels = torch.zeros(512, 2, 256, dtype=torch.int64)
        labels.view(512, 512)[torch.arange(512), torch.arange(512)] = size + own - 1
        colours = torch.randint(0, 40, (512, size, 3), generator=generator(size))
        copying = torch.full((512,), own)
        nothing = torch.zeros(512)
        fitted = Fit(colours, colours % 7, labels.view(512, 2, 16, 16), copying, nothing, nothing)
        written = palette.encode(fitted)
        known = reference(0, 512, 2)
        shown = palette.decode(written.codes, written.length, torch.full((512,), size), known)
        torch.testing.assert_close(shown, painted(fitted, known, refined=False), rtol=0, atol=1e-6)


def test_cells_with_palettes_of_several_sizes_are_decoded_as_each_alone() -> None:
    fits = [random_fit(n, size, [n % 2 == 1], 3, 0.3) for n, size in enumerate(palette.SIZES)]
    streams = [palette.encode(fitted) for fitted in fits]
    width = max(s.codes.shape[1] for s in streams)
    codes = torch.cat([torch.nn.functional.pad(s.codes, (0, width - s.codes.shape[1])) for s in streams])
    kept = torch.cat([s.length for s in streams])
    known = reference(3, len(fits), 3)
    shown = palette.decode(codes, kept, torch.tensor(palette.SIZES), known)
    for n, fitted in enumerate(fits):
        expected = painted(fitted, known[n : n + 1], refined=False)
        torch.testing.assert_close(shown[n : n + 1], expected, rtol=0, atol=1e-6)


def test_labels_are_predicted_from_those_before_them() -> None:
    labels = random_labels(4, 3, 2, 3, 0.4)
    guessed = palette.predict(labels)
    assert torch.equal(guessed[:, 1], labels[:, 0])
    for n in range(3):
        first = labels[n, 0].tolist()
        for row in range(SIDE):
            expected = [predicted(first, row, column) for column in range(SIDE)]
            assert guessed[n, 0, row].tolist() == expected


@pytest.mark.parametrize("copies", [False, True])
@pytest.mark.parametrize(("size", "frames"), [(1, 1), (2, 4), (3, 2), (8, 1)])
def test_every_prefix_tells_what_it_can(size: int, frames: int, copies: bool) -> None:
    """The pixels told so far are right, the others have the commonest label, or that of the frame before, and refined
    colours are right one by one."""
    fitted = random_fit(40 + size, size, [copies], frames, 0.04)
    written = palette.encode(fitted)
    length = int(written.length)
    codes = torch.cat([written.codes[:, :length], written.finer], 1)
    known = reference(9, 1, frames)
    coarse = painted(fitted, known, refined=False)[0].permute(0, 2, 3, 1).flatten(0, 2)  # (N, 3)
    told_before = 0
    for kept in range(size, length + size + 1):
        shown = palette.decode(codes[:, :kept], torch.tensor([kept]), torch.tensor([size]), known)[0]
        expected, told = by_the_page(codes[0, :kept].tolist(), size, known[0])
        torch.testing.assert_close(shown, expected, rtol=0, atol=1e-6)
        if kept <= length:
            flat = shown.permute(0, 2, 3, 1).flatten(0, 2)
            torch.testing.assert_close(flat[:told], coarse[:told], rtol=0, atol=1e-6)
            assert told >= told_before
            told_before = told
        # what is not kept is not read
        wild = codes.clone()
        wild[:, kept:] = 63_999
        again = palette.decode(wild, torch.tensor([kept]), torch.tensor([size]), known)[0]
        assert torch.equal(shown, again)
    assert told_before == frames * SIDE**2


@settings(max_examples=20, deadline=None)
@given(
    codes=st.lists(st.integers(0, symbols.CODES - 1), min_size=8, max_size=24)
    | st.lists(st.sampled_from((36 * 1641, 38 * 1641, 39, 1, 40, 39 * 1600)), min_size=8, max_size=20),
    size=st.sampled_from(palette.SIZES[1:]),  # with one colour there is no other label to name
    frames=st.integers(1, 3),
    data=st.data(),
)
def test_any_codes_are_read_as_the_page_says(
    codes: list[int], size: int, frames: int, data: st.DataObject
) -> None:
    kept = data.draw(st.integers(size, len(codes)))
    known = reference(1, 1, frames)
    shown = palette.decode(torch.tensor([codes]), torch.tensor([kept]), torch.tensor([size]), known)
    expected, _ = by_the_page(codes[:kept], size, known[0])
    torch.testing.assert_close(shown[0], expected, rtol=0, atol=1e-6)


def test_one_colour_needs_no_stream() -> None:
    fitted = Fit(
        torch.tensor([[[3, 20, 39]], [[3, 20, 39]]]),
        torch.zeros(2, 1, 3, dtype=torch.int64),
        torch.zeros(2, 4, SIDE, SIDE, dtype=torch.int64),
        torch.tensor([False, True]),
        torch.zeros(2),
        torch.zeros(2),
    )
    written = palette.encode(fitted)
    assert written.length.tolist() == [2, 2]
    assert written.needed.tolist() == [1, 2]  # that pixels are copied has to be said
    known = reference(2, 2, 4)
    shown = palette.decode(written.codes, written.needed, torch.tensor([1, 1]), known)
    colour = torch.tensor([3.0, 20, 39]).view(1, 3, 1, 1) * (2 / 39) - 1
    torch.testing.assert_close(shown[0], colour.expand(4, -1, SIDE, SIDE), rtol=0, atol=1e-6)
    assert torch.equal(shown[1], known[1])


def drawn(seed: int, frames: int, colours: int, spread: float = 0.0) -> torch.Tensor:
    """Cells (3, T, 3, 16, 16) of a few colours far from each other, the labels random, with some noise on top."""
    rng = generator(seed)
    rgb = torch.tensor(
        [[0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 1, 1], [1, 0, 1]]
    )[:colours].float()
    rgb = rgb * 1.7 - 0.85 + 0.03 * torch.rand(colours, 3, generator=rng)
    labels = torch.randint(0, colours, (3, frames, SIDE, SIDE), generator=rng)
    picture = rgb[labels].permute(0, 1, 4, 2, 3)
    return picture + spread * (torch.rand(picture.shape, generator=rng) - 0.5)


@pytest.mark.parametrize("frames", [1, 4])
@pytest.mark.parametrize("size", palette.SIZES)
def test_a_fit_finds_the_colours_and_promises_the_error_that_is_left(size: int, frames: int) -> None:
    patches, known = drawn(size, frames, size, 0.05), reference(7, 3, frames)
    fitted = palette.fit(patches, known, size, torch.zeros(3, dtype=torch.bool), 0.0)
    check_errors(fitted, patches, known)
    level = (2 / 39) ** 2 / 12 * 3 * frames * SIDE**2  # uniform rounding to a level
    assert float(fitted.error.max()) < 3 * level + 0.05**2 / 12 * patches[0].numel()
    assert float(fitted.finer_error.max()) < float(fitted.error.min())
    number = torch.arange(size)
    counts = (fitted.labels.flatten(1)[..., None] == number).sum(1)
    assert bool((counts > 0).all())  # each colour is used


def check_errors(fitted: Fit, patches: torch.Tensor, known: torch.Tensor) -> None:
    """The promised errors are those of what is decoded."""
    for refined, promised in ((False, fitted.error), (True, fitted.finer_error)):
        left = (patches - painted(fitted, known, refined=refined)).square().flatten(1).sum(1)
        torch.testing.assert_close(left, promised, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_pixels_are_copied_where_the_reference_is_right(size: int) -> None:
    """A photograph (noise) that stays, with a drawn rectangle of other colours on it."""
    known = reference(8, 3, 1).expand(-1, 4, -1, -1, -1)
    patches = known.clone()
    patches[:, 1:, :, 3:9, 4:14] = drawn(5, 3, size)[..., 3:9, 4:14]
    copying = torch.tensor([True, True, False])
    bias = 1e-4
    fitted = palette.fit(patches, known, size, copying, bias)
    check_errors(fitted, patches, known)
    inside = torch.zeros(4, SIDE, SIDE, dtype=torch.bool)
    inside[1:, 3:9, 4:14] = True
    assert bool((fitted.labels[:2][:, ~inside] == 0).all())  # copied exactly
    assert float((fitted.labels[:2][:, inside] > 0).float().mean()) > 0.99
    assert float(fitted.error[2]) > 100 * float(fitted.error[:2].max())
    assert fitted.copies.tolist() == [True, True, False]


@pytest.mark.parametrize("copies", [False, True])
@pytest.mark.parametrize("size", palette.SIZES)
def test_errors_are_promised_of_noise_too(size: int, copies: bool) -> None:
    patches = reference(size, 6, 3)
    known = (patches + 0.2 * torch.randn(patches.shape, generator=generator(size))).clamp(-1, 1)
    check_errors(palette.fit(patches, known, size, torch.full((6,), copies), 0.01), patches, known)


@pytest.mark.parametrize("size", palette.SIZES)
def test_cells_none_of_which_may_copy_are_as_if_each_were_asked(size: int) -> None:
    patches, known = reference(3, 4, 2), reference(4, 4, 2)
    asked = palette.fit(patches, known, size, torch.zeros(4, dtype=torch.bool), 0.1)
    for one, other in zip(palette.fit(patches, known, size, None, 0.1), asked, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("busy", [0.0, 0.02, 0.5])
@pytest.mark.parametrize("size", palette.SIZES)
def test_codes_are_counted_without_writing_them(size: int, busy: float) -> None:
    fitted = random_fit(size, size, [False, True, False, True], 3, busy)
    assert torch.equal(palette.count_codes(fitted), palette.encode(fitted).needed)
    none = Fit(*(x[:0] for x in fitted))
    assert palette.count_codes(none).shape == (0,)


def test_a_refined_colour_is_within_a_level_of_255() -> None:
    patches = torch.full((1, 4, 3, SIDE, SIDE), 30 / 127.5 - 1)
    fitted = palette.fit(patches, patches, 1, torch.tensor([False]), 0.0)
    assert float((painted(fitted, patches, refined=False) - patches).abs().max()) > 1 / 127.5
    assert float((painted(fitted, patches, refined=True) - patches).abs().max()) <= 0.51 / 127.5


def test_the_commonest_colour_comes_first() -> None:
    patches = torch.full((1, 1, 3, SIDE, SIDE), 0.9)
    patches[..., :6, :] = -0.9
    patches[..., :2] = 0.0
    fitted = palette.fit(patches, patches, 3, torch.tensor([False]), 0.0)
    counts = [int((fitted.labels == n).sum()) for n in range(3)]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] == 10 * 14
    assert int(fitted.colours[0, 0, 0]) == 37  # 0.9 in 40 levels


def test_what_is_written_promises_the_error_of_what_is_decoded() -> None:
    """At a low price colours are refined, at a high one they are not; only then codes behind the stream are kept."""
    patches = drawn(3, 4, 4, 0.02) + 0.02
    known = reference(7, 3, 4)
    fitted = palette.fit(patches, known, 4, torch.zeros(3, dtype=torch.bool), 0.0)
    written = palette.encode(fitted)
    gain = float((fitted.error - fitted.finer_error).min())
    before = torch.full((3,), 1234.5)
    for price, refined in ((gain / 10, True), (gain * 10, False)):
        codes, error, length = palette_search.write(fitted, torch.full((3,), price), before)
        assert torch.equal(length, written.length + (4 if refined else 0))
        assert torch.equal(error[:, 0], before)
        for n, own in enumerate(length.tolist()):
            assert bool((codes[n, own:] == -1).all())
            assert bool((codes[n, :own] >= 0).all())
        for kept, promised in (
            (written.needed, fitted.error),
            (length, fitted.finer_error if refined else fitted.error),
        ):
            found = error.gather(1, kept[:, None] - 1)[:, 0]
            torch.testing.assert_close(found, promised)
            shown = palette.decode(codes.clamp_min(0), kept, torch.full((3,), 4), known)
            left = (patches - shown).square().flatten(1).sum(1)
            torch.testing.assert_close(left, promised, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("colours", [1, 2, 4, 6])
def test_the_search_finds_how_many_colours_there_are(colours: int) -> None:
    cells = palette_search.Cells(
        drawn(colours, 4, colours), torch.zeros(3, 4, 3, SIDE, SIDE), 4, 0.007 * 3072
    )
    everyone = torch.ones(3, dtype=torch.bool)
    found = palette_search.search(cells, everyone, torch.full((3,), 1e9), 0.02, inter=False)
    assert [palette.SIZES[place] for place in found.place.tolist()] == [colours] * 3
    assert not found.copies.any()
    rounding = (2 / 39) ** 2 / 12 * 3072  # of colours to 40 levels
    assert float(found.error.max()) < 3 * rounding


def test_the_search_copies_where_the_reference_is_right_and_leaves_out_what_may_have_none() -> None:
    known = reference(8, 3, 1).expand(-1, 4, -1, -1, -1)
    patches = known.clone()
    patches[..., 3:9, 4:14] = 0.9
    cells = palette_search.Cells(patches, known, 4, 0.007 * 3072)
    allowed = torch.tensor([True, False, True])
    found = palette_search.search(cells, allowed, torch.full((3,), 1e9), 0.02, inter=True)
    assert found.copies.tolist() == [True, False, True]
    assert found.error.isinf().tolist() == [False, True, False]
    without = palette_search.search(cells, allowed, torch.full((3,), 1e9), 0.02, inter=False)
    assert not without.copies.any()

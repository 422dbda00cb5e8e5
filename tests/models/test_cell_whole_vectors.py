"""Whole vectors: pages scroll and windows move by whole pixels, and what moves so is copied exactly, ever again."""

import pytest
import torch

from elastictok_cli.models.cell.config import DefaultConfig
from elastictok_cli.models.cell.context import Context
from elastictok_cli.models.cell.motion import camera_pan, compensation, vectors, whole_search, whole_vectors
from elastictok_cli.models.cell.motion.decision import Motion, _sends, choose_motion
from elastictok_cli.models.cell.screen import patches
from elastictok_cli.models.cell.selection import Selection
from elastictok_cli.models.cell.transform import cell_energy

CPU = torch.device("cpu")


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=generator(seed)) * 2 - 1


def text(seed: int, height: int, width: int) -> torch.Tensor:
    """Lines of black specks on white, (3, height, width)."""
    specks = torch.rand(height, width, generator=generator(seed)) < 0.35
    lines = torch.arange(height)[:, None] % 12 < 8
    return torch.where(specks & lines, -0.9, 0.9).expand(3, -1, -1)


def shifted(picture: torch.Tensor, down: int, right: int) -> torch.Tensor:
    """A picture (..., H, W) moved by whole pixels, its edges repeated."""
    height, width = picture.shape[-2:]
    rows = (torch.arange(height) - down).clamp(0, height - 1)
    columns = (torch.arange(width) - right).clamp(0, width - 1)
    return picture[..., rows[:, None], columns]


def test_every_vector_with_every_pan_has_a_code_of_its_own() -> None:
    codes = torch.arange(whole_vectors.CODES).view(1, 3, -1)
    vector, pan = whole_vectors.from_codes(codes)
    assert whole_vectors.CODES == 97 * 97 * 3 <= 64_000
    assert torch.equal(whole_vectors.to_codes(vector, pan), codes)
    found = torch.cat([vector.flatten(2)[0], pan.flatten(1).float()]).t()
    assert len(found.unique(dim=0)) == whole_vectors.CODES
    assert vector.amin((0, 2, 3)).tolist() == [-48, -48]
    assert vector.amax((0, 2, 3)).tolist() == [48, 48]
    assert pan.unique().tolist() == [0, 1, 2]


def test_codes_that_there_are_not_are_read_as_some_vector() -> None:
    vector, pan = whole_vectors.from_codes(torch.tensor([[[63_999, whole_vectors.CODES]]]))
    assert float(vector.abs().max()) <= 48
    assert int(pan.max()) <= 2
    assert vector[0, :, 0, 1].tolist() == [-48, -48]


def test_fifty_copies_are_equal_to_a_shift_bit_by_bit() -> None:
    picture = noise(0, 1, 3, 176, 384)
    cells = Selection.everywhere(1, (11, 24), CPU)
    motion = torch.tensor([3.0, -7.0]).view(1, 2, 1, 1).expand(-1, -1, 11, 24)
    last = picture
    for _ in range(50):
        copied = patches.compensate(last, motion, cells, 16, count=1, frames=4, interpolation="bicubic")
        frames = torch.zeros(1, 4, 3, 176, 384)
        cells.write_patches(frames, copied)
        assert torch.equal(frames[:, 1:], frames[:, :1].expand(-1, 3, -1, -1, -1))
        last = frames[:, 0]
    assert torch.equal(last, shifted(picture, 150, -350))


@pytest.mark.parametrize("count", [1, 3, 4])
@pytest.mark.parametrize("shaken", [False, True])
def test_selected_cells_move_as_whole_pictures_do(count: int, shaken: bool) -> None:
    """In two pictures with other numbers of cells; some vectors are whole, some are not."""
    picture = noise(1, 2, 3, 64, 80)
    motion = torch.randint(-40, 40, (2, 2, 4, 5), generator=generator(2)) / 4
    motion[:, :, ::2] = motion[:, :, ::2].round()
    motion[0, :, 1, 1] = 0
    where = torch.rand(2, 4, 5, generator=generator(3)) < torch.tensor([0.3, 0.9]).view(2, 1, 1)
    where[0, 1, 1] = True
    cells = Selection(where)
    shake = torch.randint(-30, 30, (2, count, 2), generator=generator(4)) / 8 if shaken else None
    known = compensation.compensate(picture, motion, count, frames=4, interpolation="bilinear", shake=shake)
    found = patches.compensate(
        picture, motion, cells, 16, count=count, frames=4, interpolation="bilinear", shake=shake
    )
    torch.testing.assert_close(found, cells.take_patches(known, 16), rtol=0, atol=2e-5)
    for n in range(cells.count) if not shaken else ():
        own = motion[cells.picture[n], :, cells.row[n], cells.column[n]]
        if bool((own == own.round()).all()):
            for t in range(4):
                moved = shifted(picture[cells.picture[n]], *(min(t + 1, count) * own).long().tolist())
                top, left = 16 * cells.row[n], 16 * cells.column[n]
                assert torch.equal(found[n, t], moved[:, top : top + 16, left : left + 16])


def test_no_cell_is_no_patch() -> None:
    nothing = Selection(torch.zeros(2, 2, 2, dtype=torch.bool))
    found = patches.compensate(
        noise(1, 2, 3, 32, 32),
        torch.zeros(2, 2, 2, 2),
        nothing,
        16,
        count=2,
        frames=4,
        interpolation="bilinear",
    )
    assert found.shape == (0, 4, 3, 16, 16)


def moved(canvas: torch.Tensor, motion: tuple[int, int], count: int, height: int, width: int) -> torch.Tensor:
    """A window of a canvas, before and as its content moves for so many frames: (count + 1, 3, height, width)."""
    top, left = (canvas.shape[-2] - height) // 2, (canvas.shape[-1] - width) // 2
    frames = []
    for t in range(count + 1):
        y, x = top - t * motion[0], left - t * motion[1]
        frames.append(canvas[:, y : y + height, x : x + width])
    return torch.stack(frames)


def known_before(motion: tuple[int, int], count: int, rows: int, columns: int) -> torch.Tensor:
    """The cells (1, h, w) whose content was all inside the picture before."""

    def inside(speed: int, cells: int) -> torch.Tensor:
        first = 16 * torch.arange(cells)
        good = torch.ones(cells, dtype=torch.bool)
        for t in range(1, count + 1):
            good &= (first - t * speed >= 0) & (first + 15 - t * speed < 16 * cells)
        return good

    return (inside(motion[0], rows)[:, None] & inside(motion[1], columns))[None]


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(("speed", "count"), [(1, 4), (-7, 4), (25, 2), (37, 1), (48, 1), (-48, 1)])
def test_the_search_finds_shifts_along_an_axis(speed: int, count: int, axis: int) -> None:
    motion = (speed, 0) if axis == 0 else (0, speed)
    rows, columns = (9, 4) if axis == 0 else (4, 9)
    canvas = text(1, 400, 400) if axis == 0 else text(1, 400, 400).transpose(1, 2)
    frames = moved(canvas, motion, count, 16 * rows, 16 * columns)
    cells = Selection(known_before(motion, count, rows, columns))
    assert cells.count >= 12
    start = torch.zeros(1, 2, rows, columns)
    found = whole_search.search(frames[:1], frames[None, 1:], start, cells, 16)
    assert found.dtype == torch.int64
    assert torch.equal(found, torch.tensor(motion).expand_as(found))


@pytest.mark.parametrize("start", [(9.0, -30.0), (8.5, -29.0), (10.0, -31.25)])
def test_the_search_finds_moves_along_both_axes_near_the_start(start: tuple[float, float]) -> None:
    frames = moved(text(2, 400, 400), (9, -30), 2, 96, 128)
    cells = Selection(known_before((9, -30), 2, 6, 8))
    assert cells.count
    starts = torch.tensor(start).view(1, 2, 1, 1).expand(-1, -1, 6, 8)
    found = whole_search.search(frames[:1], frames[None, 1:], starts, cells, 16)
    assert torch.equal(found, torch.tensor([9, -30]).expand_as(found))


def test_the_search_reaches_48_pixels_along_both_axes_at_once() -> None:
    for motion in ((48, -20), (-48, 48)):
        frames = moved(text(2, 400, 400), motion, 1, 96, 128)
        cells = Selection(known_before(motion, 1, 6, 8))
        starts = torch.tensor([0.98, 0.98]).view(1, 2, 1, 1) * torch.tensor(motion).view(1, 2, 1, 1)
        found = whole_search.search(frames[:1], frames[None, 1:], starts.expand(-1, -1, 6, 8), cells, 16)
        assert torch.equal(found, torch.tensor(motion).expand_as(found))


def test_what_does_not_move_is_not_moved_and_pictures_are_searched_apart() -> None:
    still = text(3, 96, 96).expand(2, -1, -1, -1)
    frames = moved(text(4, 300, 300), (-31, 0), 1, 96, 96)
    before = torch.stack([still[0], frames[0]])
    after = torch.stack([still[1:], frames[1:]])
    cells = Selection(torch.cat([torch.ones(1, 6, 6).bool(), known_before((-31, 0), 1, 6, 6)]))
    start = torch.full((2, 2, 6, 6), 2.0)
    found = whole_search.search(before, after, start, cells, 16)
    assert not found[cells.picture == 0].any()
    assert found[cells.picture == 1].unique(dim=0).tolist() == [[-31, 0]]
    for n in range(2):
        one = slice(n, n + 1)
        alone = whole_search.search(before[one], after[one], start[one], Selection(cells.where[one]), 16)
        assert torch.equal(alone, found[cells.picture == n])


def scrolled(motion: tuple[int, int], *, screen: bool = True, whole: bool = True, pan: bool = True) -> Motion:
    config = DefaultConfig(camera_pan=pan, camera_shake=pan, interpolation="bicubic")
    frames = moved(text(5, 700, 300), motion, 4, 256, 128)
    context = Context(
        frames[:1],
        torch.zeros(1, 128, 32, 16),
        torch.zeros(1, 2, 16, 8),
        torch.ones(1, 16, 8, dtype=torch.bool) if screen else None,
    )
    return choose_motion(config, frames[None, 1:], context, 0.0035, 4, whole=whole)


def test_a_page_that_scrolls_is_a_whole_vector_that_speaks_for_all() -> None:
    found = scrolled((-37, 0))
    known = known_before((-37, 0), 4, 16, 8)
    assert known.any()
    right = (found.vectors == torch.tensor([-37.0, 0]).view(1, 2, 1, 1)).all(1)
    assert bool(right[known].all())
    assert int((found.sent & known).sum()) == 1
    assert bool((found.pan > 0)[found.whole & known].all())
    frames = moved(text(5, 700, 300), (-37, 0), 4, 256, 128)
    same = (found.moved - frames[None, 1:]).abs().amax((1, 2)).unflatten(1, (16, 16)).unflatten(3, (8, 16))
    assert float(same.amax((2, 4))[known].max()) < 1e-4
    # the next block goes on
    lasting = (found.lasting == torch.tensor([-37.0, 0]).view(1, 2, 1, 1)).all(1)
    assert int((lasting & known).sum()) >= int(known.sum()) - 1


def test_a_whole_vector_is_sent_where_it_leaves_little() -> None:
    """What comes into view would be somewhat nearer to other text, and then have no palette."""
    error, left = torch.ones(4), torch.tensor([0.05, 0.2, 0.2, 0.2])
    whole = torch.tensor([True, True, False, True])
    pan = torch.tensor([0, 0, 0, 1])
    assert _sends(error, left, pan, whole, torch.tensor(0.01)).tolist() == [True, False, True, True]


def test_whole_vectors_of_the_table_are_sent_as_such() -> None:
    found = scrolled((-20, 0))
    assert not found.whole.any()
    known = known_before((-20, 0), 4, 16, 8)
    assert bool((found.vectors[:, 0][known] == -20).all())
    own = found.vectors * found.sent
    assert torch.equal(vectors.in_table(own), own)


@pytest.mark.parametrize("more", [{"screen": False}, {"whole": False}])
def test_whole_vectors_want_screen_cells_and_leave(more: dict[str, bool]) -> None:
    found = scrolled((-37, 0), **more)
    assert not found.whole.any()
    assert float(found.vectors.abs().max()) <= 24


def test_without_pans_each_cell_sends_its_own() -> None:
    found = scrolled((-37, 0), pan=False)
    known = known_before((-37, 0), 4, 16, 8)
    assert bool(found.whole[known].all())
    assert not found.pan.any()


def test_a_whole_vector_is_worth_two_tokens() -> None:
    """Cells send theirs where it saves more than the price of both; half of the cells do."""
    config = DefaultConfig(camera_pan=False, camera_shake=False, interpolation="bicubic")
    frames = moved(text(5, 700, 300), (-37, 0), 4, 256, 128)
    known = known_before((-37, 0), 4, 16, 8)
    saved = cell_energy(frames[None, 1:] - frames[None, :1], 16)  # all of it
    price = float(saved[known].quantile(0.5)) / 2
    context = Context(
        frames[:1], torch.zeros(1, 128, 32, 16), torch.zeros(1, 2, 16, 8), torch.ones(1, 16, 8).bool()
    )
    found = choose_motion(config, frames[None, 1:], context, price / 3072, 4, whole=True)
    much, little = known & (saved > 2.01 * price), known & (saved < 1.99 * price)
    assert much.any()
    assert little.any()
    assert bool(found.whole[much].all())
    assert not found.whole[little].any()


def test_pans_of_whole_vectors_are_faster_than_those_of_the_table() -> None:
    """A change of 40 pixels holds for all; beside it no other picture moves faster than the table."""
    inherited = torch.zeros(2, 2, 3, 4)
    inherited[:, 0, 2, 3] = 20.0
    sent, pan = torch.zeros_like(inherited), torch.zeros(2, 3, 4, dtype=torch.int64)
    sent[0, 0, 1, 1], pan[0, 1, 1] = -40.0, 1
    sent[1, 0, 1, 1], pan[1, 1, 1] = 16.0, 1
    panned = camera_pan.follow(inherited, sent, pan)
    expected = torch.zeros_like(inherited)
    expected[0, 0], expected[1, 0] = -40.0, 16.0
    expected[0, 0, 2, 3], expected[1, 0, 2, 3] = -20.0, 24.0
    assert torch.equal(panned.vectors, expected)
    assert torch.equal(panned.lasting, expected)


def test_a_fast_cell_stays_fast_where_others_pan() -> None:
    inherited = torch.zeros(1, 2, 3, 4)
    inherited[0, 1, 0] = 45.0
    sent, pan = torch.zeros_like(inherited), torch.zeros(1, 3, 4, dtype=torch.int64)
    sent[0, 1, 2, 2], pan[0, 2, 2] = -3.0, 1
    panned = camera_pan.follow(inherited, sent, pan)
    assert panned.vectors[0, 1, :, 0].tolist() == [42.0, -3.0, -3.0]
    sent[0, 1, 2, 2] = 3.0  # the fastest there is sets the limit
    assert camera_pan.follow(inherited, sent, pan).vectors[0, 1, :, 0].tolist() == [45.0, 3.0, 3.0]

"""Screen cells: no network touches them, they move exactly, and modes are chosen by cost."""

from __future__ import annotations

import torch

from elastictok_cli.codec import scenes
from elastictok_cli.models import checkpoint
from elastictok_cli.models.cell.context import Context
from elastictok_cli.models.cell.motion import whole_search
from elastictok_cli.models.cell.motion.compensation import copy_whole
from elastictok_cli.models.cell.screen import patches
from elastictok_cli.models.cell.screen.mode_decision import Modes, NaturalCosts, choose
from elastictok_cli.models.cell.selection import Selection
from elastictok_cli.models.cell.tokenizer import DefaultTokenizer

ROWS, COLUMNS = 5, 6
GOAL = 0.007 * 3072


def tokenizer() -> DefaultTokenizer:
    """The shipped model with a synthesis network that changes everything it may."""
    shipped = checkpoint.load().tokenizer
    assert isinstance(shipped, DefaultTokenizer)
    torch.manual_seed(0)
    for layer in (shipped.model.synthesis_out, shipped.model.predict_out):
        torch.nn.init.normal_(layer.weight, std=0.05)
    return shipped


def glyphs(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """Black strokes on white, (3, height, width) in [-1, 1]."""
    generator = torch.Generator().manual_seed(seed)
    small = torch.rand(1, 1, height // 2 + 1, width // 3 + 1, generator=generator) < 0.3
    large = small.float().repeat_interleave(2, 2).repeat_interleave(3, 3)[0, :, :height, :width]
    return (1 - 2 * large).expand(3, -1, -1).contiguous()


def everywhere() -> Selection:
    return Selection.everywhere(1, (ROWS, COLUMNS), torch.device("cpu"))


def encoded(
    model: DefaultTokenizer, frames: torch.Tensor, context: Context | None
) -> tuple[torch.Tensor, Context]:
    coding = model.encode(frames, context, count=4, target=0.007)
    return model.decode(coding.tokens, coding.length, context, count=4, reuse=coding.reuse)


def test_no_network_touches_a_screen_cell() -> None:
    model = tokenizer()
    page = glyphs(16 * ROWS, 16 * COLUMNS)
    still = page.expand(1, 4, -1, -1, -1)
    shown, context = encoded(model, still, None)
    assert context.screen is not None
    cells = Selection(context.screen)
    assert cells.count >= 0.8 * ROWS * COLUMNS
    pixels = cells.take_patches(shown, 16)
    assert float((pixels - cells.take_patches(still, 16)).square().mean()) < 0.007
    assert all(len(cell.unique()) <= 8 for cell in pixels)  # the colours of a palette, and nothing added
    # nothing is sent, and a decoder shows the last frame again, bit for bit, for as long as you like
    nothing = torch.zeros(1, ROWS, COLUMNS, dtype=torch.int64)
    for _ in range(50):
        again, context = model.decode(nothing[:, None], nothing, context, count=4)
        assert torch.equal(again, shown[:, -1:].expand_as(again))
        assert context.screen is not None


def test_a_screen_cell_that_keeps_an_fsq_code_is_one_no_more() -> None:
    model = tokenizer()
    shown, context = encoded(model, glyphs(16 * ROWS, 16 * COLUMNS).expand(1, 4, -1, -1, -1), None)
    tokens = torch.full((1, 1, ROWS, COLUMNS), 12_345)
    keep = torch.zeros(1, ROWS, COLUMNS, dtype=torch.int64)
    keep[0, 2, 3] = 1
    before = context.screen
    assert before is not None
    assert bool(before[0, 2, 3])
    after, context = model.decode(tokens, keep, context, count=4)
    assert context.screen is not None
    assert torch.equal(context.screen, before & (keep == 0))
    others = Selection(context.screen)
    last = shown[:, -1:].expand_as(after)
    assert torch.equal(others.take_patches(after, 16), others.take_patches(last, 16))


def test_whole_vectors_copy_exactly_block_after_block() -> None:
    generator = torch.Generator().manual_seed(1)
    start = torch.rand(1, 3, 16 * ROWS, 16 * COLUMNS, generator=generator)
    vectors = torch.tensor([3.0, -7.0]).view(1, 2, 1, 1).expand(1, 2, ROWS, COLUMNS)
    picture = start
    for _ in range(20):
        moved = patches.compensate(
            picture, vectors, everywhere(), 16, count=4, frames=4, interpolation="bicubic"
        )
        block = torch.empty(1, 4, *picture.shape[1:])
        everywhere().write_patches(block, moved)
        for frame in range(4):
            y = (torch.arange(16 * ROWS) - 3 * (frame + 1)).clamp(0, 16 * ROWS - 1)
            x = (torch.arange(16 * COLUMNS) + 7 * (frame + 1)).clamp(0, 16 * COLUMNS - 1)
            assert torch.equal(block[0, frame], picture[0][:, y][:, :, x])
        picture = block[:, -1]


def test_vectors_that_are_not_whole_are_interpolated() -> None:
    model = checkpoint.load().tokenizer
    assert isinstance(model, DefaultTokenizer)
    picture = glyphs(16 * ROWS, 16 * COLUMNS)[None]
    vectors = torch.zeros(1, 2, ROWS, COLUMNS)
    vectors[:, :, 1, 2] = torch.tensor([0.5, -0.25])
    moved = patches.compensate(picture, vectors, everywhere(), 16, count=2, frames=4, interpolation="bicubic")
    wanted = patches.compensate(
        picture, vectors, Selection(torch.ones(1, ROWS, COLUMNS).bool() & (vectors != 0).any(1)), 16,
        count=2, frames=4, interpolation="bicubic",
    )  # fmt: skip
    assert torch.equal(moved[COLUMNS + 2], wanted[0])
    assert not torch.equal(
        moved[COLUMNS + 2][0], everywhere().take_patches(picture[:, None], 16)[COLUMNS + 2][0]
    )


def test_scrolling_is_found_up_to_48_pixels_along_each_axis() -> None:
    large = glyphs(400, 400, seed=2)
    height, width = 16 * ROWS, 16 * COLUMNS
    before = large[None, :, 150 : 150 + height, 150 : 150 + width]
    for step in ((48, 0), (-37, 0), (0, -48), (0, 11), (1, 0)):
        after = torch.stack(
            [large[:, 150 - step[0] * n : 150 - step[0] * n + height,
                   150 - step[1] * n : 150 - step[1] * n + width] for n in (1, 2)]
        )[None]  # fmt: skip
        inner = torch.zeros(1, ROWS, COLUMNS, dtype=torch.bool)
        inner[:, 2, 2:4] = True
        if abs(step[0] + step[1]) * 2 > 32:
            after = after[:, :1]
        if abs(step[0] + step[1]) > 32:  # nothing inside has been in sight before: look at the far side
            inner = torch.zeros_like(inner)
            row = 4 if step[0] > 0 else 0 if step[0] < 0 else 2
            column = 5 if step[1] > 0 else 0 if step[1] < 0 else 2
            inner[:, row, column] = True
        cells = Selection(inner)
        found = whole_search.search(before, after, torch.zeros(1, 2, ROWS, COLUMNS), cells, 16)
        assert found.tolist() == [list(step)] * cells.count


def test_a_window_that_moves_both_ways_is_found_near_the_best_vector_so_far() -> None:
    large = glyphs(300, 300, seed=3)
    height, width = 16 * ROWS, 16 * COLUMNS
    before = large[None, :, 100 : 100 + height, 100 : 100 + width]
    after = large[None, None, :, 95 : 95 + height, 113 : 113 + width]
    inner = torch.zeros(1, ROWS, COLUMNS, dtype=torch.bool)
    inner[:, 2, 2:4] = True
    start = torch.tensor([6.0, -12.0]).view(1, 2, 1, 1).expand(1, 2, ROWS, COLUMNS)
    assert whole_search.search(before, after, start, Selection(inner), 16).tolist() == [[5, -13]] * 2


def test_copies_repeat_the_edges() -> None:
    picture = torch.arange(16 * 16).view(1, 1, 16, 16).float()
    cells = Selection.everywhere(1, (1, 1), torch.device("cpu"))
    moved = copy_whole(picture, torch.tensor([[20, 0]]), cells, 16, torch.tensor([1]))
    assert torch.equal(moved[0, 0, 0], picture[0, 0, :1].expand(16, 16))


def chosen(frames: torch.Tensor, curve: torch.Tensor) -> Modes | None:
    """The modes of a keyframe block (B, 4, 3, 16, 32) beside FSQ codes with these errors (B, k + 1, 1, 2)."""
    shape = torch.Size((len(frames), 1, 2))
    every = torch.ones(shape, dtype=torch.bool)
    natural = NaturalCosts(curve, torch.full(shape, curve.shape[1] - 1))
    return choose(
        frames, torch.zeros_like(frames), natural, count=4, goal=GOAL, price=None, possible=every, palettes=every,
        wanted=~every, inter=False,
    )  # fmt: skip


def falling(first: float, last: float, codes: int = 20) -> torch.Tensor:
    """Errors that fall evenly over so many codes, (codes + 1,)."""
    return torch.linspace(first, last, codes + 1)


def test_each_content_gets_the_mode_that_suits_it() -> None:
    """Text, noise, and what a few FSQ codes describe."""
    generator = torch.Generator().manual_seed(4)
    noise = torch.rand(4, 3, 16, 16, generator=generator) * 2 - 1
    text = glyphs(16, 16, seed=5).expand(4, -1, -1, -1)
    hard = falling(900, 300)
    for first, second, modes in ((text, noise, [3, 1]), (noise, text, [1, 3])):
        found = chosen(torch.cat([first, second], -1)[None], torch.stack([hard, hard], 1)[None, :, None])
        assert found is not None
        assert found.mode.tolist() == modes  # 3: a palette of two colours
    easy = falling(900, 0.1 * GOAL, 4)
    assert chosen(torch.cat([text, text], -1)[None], torch.stack([easy, easy], 1)[None, :, None]) is None


def test_a_picture_s_modes_do_not_depend_on_its_batch_mates() -> None:
    generator = torch.Generator().manual_seed(6)
    busy = torch.rand(1, 4, 3, 16, 32, generator=generator) * 2 - 1
    page = glyphs(16, 32, seed=7).expand(1, 4, -1, -1, -1)
    hard = torch.stack([falling(900, 300)] * 2, 1)[None, :, None]
    alone, together = chosen(page, hard), chosen(torch.cat([page, busy]), hard.expand(2, -1, -1, -1))
    assert alone is not None
    assert together is not None
    mine = together.cells.picture == 0
    assert torch.equal(together.mode[mine], alone.mode)
    assert torch.equal(together.length[mine], alone.length)
    width = alone.codes.shape[1]
    assert torch.equal(together.codes[mine][:, :width], alone.codes)


def test_text_that_scrolls_or_grows_is_no_scene_cut() -> None:
    def rgb(picture: torch.Tensor) -> torch.Tensor:
        return ((picture + 1) * 127.5).byte().permute(1, 2, 0)

    page, other = glyphs(600, 480, seed=8), glyphs(600, 480, seed=9)
    limit = scenes.MAX_SHARE_OF_MOTION
    before = rgb(page[:, :400]).numpy()
    assert scenes.share_left_by_motion(before, rgb(page[:, 37:437]).numpy()) < limit
    assert scenes.share_left_by_motion(before, rgb(page[:, :400].roll(13, 2)).numpy()) < limit
    assert scenes.share_left_by_motion(before, rgb(other[:, :400]).numpy()) > limit
    black, white = (torch.full((400, 480, 3), level, dtype=torch.uint8).numpy() for level in (0, 255))
    assert scenes.share_left_by_motion(black, white) > limit

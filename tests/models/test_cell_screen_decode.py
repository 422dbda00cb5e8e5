"""Screen cells come out as their modes say, whatever the networks are, and stay so until they keep an FSQ code."""

import copy

import pytest
import torch

from elastictok_cli.models import checkpoint
from elastictok_cli.models.cell.context import Context
from elastictok_cli.models.cell.decode import reconstruct
from elastictok_cli.models.cell.motion import vectors, whole_vectors
from elastictok_cli.models.cell.prediction import predict_keyframe
from elastictok_cli.models.cell.screen import dct, palette
from elastictok_cli.models.cell.screen.palette import Fit
from elastictok_cli.models.cell.tokenizer import DefaultTokenizer

ROWS, COLUMNS = 3, 4  # of cells
HEIGHT, WIDTH = 16 * ROWS, 16 * COLUMNS
SLOTS = 60
DCT, WHOLE = 65_528, 65_527
PALETTES = {size: 65_529 + n for n, size in enumerate(palette.SIZES)}


@pytest.fixture(scope="module")
def tokenizer() -> DefaultTokenizer:
    tokenizer = checkpoint.load().tokenizer
    assert isinstance(tokenizer, DefaultTokenizer)
    return tokenizer


def randomised(tokenizer: DefaultTokenizer) -> DefaultTokenizer:
    """Networks that say anything. The mean of keyframe blocks, which is no network, stays."""
    model = copy.deepcopy(tokenizer.model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name != "key_mean":
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return DefaultTokenizer(model)


def noise(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def codes(seed: int, count: int) -> list[int]:
    return torch.randint(0, 64_000, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def dct_codes(seed: int, count: int) -> list[int]:
    streams = dct.encode(0.4 * noise(seed, 1, 4, 3, 16, 16), 0.0, count)
    return streams.codes[0].tolist()


def palette_codes(seed: int, size: int, frames: int, *, copies: bool) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, size + copies, (1, 1, 16, 16), generator=generator).expand(-1, frames, -1, -1)
    labels = labels * (torch.rand(1, 1, 16, 16, generator=generator) < 0.1)
    colours = torch.randint(0, 40, (1, size, 3), generator=generator)
    nothing = torch.zeros(1)
    written = palette.encode(Fit(colours, colours % 7, labels, torch.tensor([copies]), nothing, nothing))
    return written.codes[0, : int(written.length)].tolist()


Cells = dict[tuple[int, int], list[int]]


def sequences(cells: Cells) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens (1, G, 3, 4), what is unused at random, and how many each cell keeps (1, 3, 4)."""
    width = max(SLOTS, *(len(tokens) for tokens in cells.values())) if cells else SLOTS
    tokens = torch.randint(0, 65_536, (1, width, ROWS, COLUMNS), generator=torch.Generator().manual_seed(1))
    keep = torch.zeros(1, ROWS, COLUMNS, dtype=torch.int64)
    for (row, column), own in cells.items():
        tokens[0, : len(own), row, column] = torch.tensor(own)
        keep[0, row, column] = len(own)
    return tokens, keep


def patch(frames: torch.Tensor, at: tuple[int, int]) -> torch.Tensor:
    """The pixels (..., 16, 16) of a cell."""
    row, column = at
    return frames[..., 16 * row : 16 * row + 16, 16 * column : 16 * column + 16]


def expected(tokens: list[int], known: torch.Tensor, count: int) -> torch.Tensor:
    """The pixels (4, 3, 16, 16) of a mode's tokens, from those that it starts from."""
    mode, own = tokens[0], torch.tensor([tokens[1:]])
    kept = torch.tensor([own.shape[1]])
    if mode == DCT:
        return (known + dct.decode(own, kept)[0]).clamp(-1, 1)
    size = torch.tensor([palette.SIZES[mode - PALETTES[1]]])
    painted = palette.decode(own, kept, size, known[None, :count])[0]
    return torch.cat([painted, painted[-1:].expand(4 - count, -1, -1, -1)]).clamp(-1, 1)


KEYFRAME: Cells = {
    (0, 0): [DCT, *dct_codes(1, 40)],
    (0, 1): [DCT, *dct_codes(2, 500)],
    (0, 2): [PALETTES[2], *palette_codes(3, 2, 4, copies=False)],
    (1, 1): [PALETTES[8], *palette_codes(4, 8, 4, copies=False)],
    (1, 2): [PALETTES[3], *palette_codes(5, 3, 4, copies=True)[:9]],  # cut short
    (1, 3): [PALETTES[1], *codes(6, 1)],
    (2, 0): codes(7, 9),
    (2, 1): codes(8, 2),
}
SCREEN = [at for at, tokens in KEYFRAME.items() if tokens[0] >= 64_000]


@pytest.mark.parametrize("count", [1, 3, 4])
def test_a_keyframe_block_s_screen_cells_are_what_their_modes_say(
    tokenizer: DefaultTokenizer, count: int
) -> None:
    cells = dict(KEYFRAME)
    if count < 4:
        cells[0, 2] = [PALETTES[2], *palette_codes(3, 2, count, copies=False)]
    tokens, keep = sequences(cells)
    grey = tokenizer.model.key_mean.view(1, 3, 1, 1).expand(4, -1, 16, 16)
    for shown in (tokenizer, randomised(tokenizer)):
        frames, after = shown.decode(tokens, keep, None, count=count)
        for at in SCREEN:
            wanted = expected(cells[at], grey, count)
            assert torch.equal(patch(frames[0], at), wanted[:count]), at
            assert torch.equal(patch(after.frame, at)[0], wanted[3]), at  # of a whole block
        assert after.screen is not None
        assert sorted(map(tuple, after.screen[0].nonzero().tolist())) == sorted(SCREEN)


def after_keyframe(tokenizer: DefaultTokenizer) -> tuple[torch.Tensor, Context]:
    tokens, keep = sequences(KEYFRAME)
    return tokenizer.decode(tokens, keep, None, count=4)


def table_vector(down: float, right: float) -> int:
    vector = torch.tensor([down, right]).view(1, 2, 1, 1)
    return 64_000 + int(vectors.vector_to_index(vector))


def whole_vector(down: int, right: int, pan: int = 0) -> list[int]:
    motion, own = torch.tensor([down, right]).view(1, 2, 1, 1), torch.full((1, 1, 1), pan)
    return [WHOLE, int(whole_vectors.to_codes(motion.float(), own))]


def shifted(
    picture: torch.Tensor, at: tuple[int, int], down: float, right: float, count: int
) -> torch.Tensor:
    """The pixels (4, 3, 16, 16) of a cell, copied from (3, H, W) along whole pixels per frame."""
    out = []
    for t in range(1, 5):
        rows = 16 * at[0] + torch.arange(16) - int(min(t, count) * down)
        columns = 16 * at[1] + torch.arange(16) - int(min(t, count) * right)
        rows, columns = rows.clamp(0, HEIGHT - 1), columns.clamp(0, WIDTH - 1)
        out.append(picture[:, rows[:, None], columns])
    return torch.stack(out)


@pytest.mark.parametrize("count", [2, 4])
def test_an_inter_block_s_screen_cells_start_from_the_reference(
    tokenizer: DefaultTokenizer, count: int
) -> None:
    _, context = after_keyframe(tokenizer)
    picture = context.frame[0]
    inter: Cells = {
        (0, 0): [DCT, *dct_codes(11, 30)],  # still
        (0, 1): [table_vector(3, -5), DCT, *dct_codes(12, 30)],
        (0, 3): [PALETTES[4], *palette_codes(13, 4, count, copies=True)],
        (1, 0): [table_vector(-2, 8), PALETTES[2], *palette_codes(14, 2, count, copies=True)],
        (1, 1): whole_vector(-11, 9),
        (1, 3): [*whole_vector(13, 0), *dct_codes(15, 20)],
        (2, 0): whole_vector(0, 48),  # a cell that the networks had before
    }
    motion = {(0, 1): (3, -5), (1, 0): (-2, 8), (1, 1): (-11, 9), (1, 3): (13, 0), (2, 0): (0, 48)}
    tokens, keep = sequences(inter)
    for shown in (tokenizer, randomised(tokenizer)):
        frames, after = shown.decode(tokens, keep, context, count=count)
        for at, own in inter.items():
            known = shifted(picture, at, *motion.get(at, (0, 0)), count)
            rest = own[2:] if own[0] == WHOLE else own[own[0] < DCT :]
            if own[0] == WHOLE and rest:
                rest = [DCT, *rest]
            told = expected(rest, known, count) if rest else known
            assert torch.equal(patch(frames[0], at), told[:count]), at
        # cells that were screen cells and keep nothing stay what they were
        for at in ((0, 2), (1, 2)):
            assert torch.equal(patch(frames[0], at), patch(picture, at).expand(count, -1, -1, -1)), at
        assert after.screen is not None
        assert not (set(SCREEN) | set(inter)) ^ set(map(tuple, after.screen[0].nonzero().tolist()))
        assert after.vectors[0, :, 1, 1].tolist() == [-11, 9]


def test_a_screen_cell_that_keeps_an_fsq_code_is_one_no_more(tokenizer: DefaultTokenizer) -> None:
    _, context = after_keyframe(tokenizer)
    inter: Cells = {
        (0, 0): codes(21, 1),
        (0, 1): [65_522, *codes(22, 3)],
        (0, 2): [table_vector(1, 0)],  # motion alone, and motion by parts of a pixel
        (1, 1): [table_vector(0.25, 0.5)],
        (1, 2): [65_523],  # a gain alone
        (1, 3): [table_vector(0, 2), *codes(23, 2)],
    }
    tokens, keep = sequences(inter)
    _, after = tokenizer.decode(tokens, keep, context, count=4)
    assert after.screen is not None
    left = {(0, 0), (0, 1), (1, 3)}
    assert set(map(tuple, after.screen[0].nonzero().tolist())) == set(SCREEN) - left
    frames, _ = randomised(tokenizer).decode(tokens, keep, context, count=4)
    for at in ((0, 2), (1, 1), (1, 2)):
        again, _ = tokenizer.decode(tokens, keep, context, count=4)
        assert torch.equal(patch(frames, at), patch(again, at)), at
    for at in left:
        assert not torch.equal(patch(frames, at), patch(again, at)), at
    everywhere = {(row, column): codes(row, 1) for row in range(ROWS) for column in range(COLUMNS)}
    _, after = tokenizer.decode(*sequences(everywhere), context, count=4)
    assert after.screen is None


@pytest.mark.parametrize("count", [1, 4])
def test_modes_that_are_cut_short_say_nothing(tokenizer: DefaultTokenizer, count: int) -> None:
    """A mode without codes, a palette without all colours and a whole vector without its code: the cell is decoded as
    one whose only token is a gain, which says nothing alone either."""
    _, context = after_keyframe(tokenizer)
    moves = table_vector(2, 2)
    cut: Cells = {
        (0, 0): [DCT],  # screen cells
        (0, 1): [PALETTES[8], *codes(1, 7)],
        (0, 3): [WHOLE],  # others
        (1, 0): [PALETTES[2], *codes(2, 1)],
        (2, 0): [DCT],
        (2, 1): [moves, PALETTES[1]],
        (2, 3): [moves, DCT],
    }
    silent: Cells = {at: [moves, 65_521] if tokens[0] == moves else [65_521] for at, tokens in cut.items()}
    for known in (context, None):
        here = {at: tokens for at, tokens in cut.items() if known is not None or tokens[0] != moves}
        same = {at: silent[at] for at in here}
        frames, after = tokenizer.decode(*sequences(here), known, count=count)
        without, then = tokenizer.decode(*sequences(same), known, count=count)
        assert torch.equal(frames, without)
        assert torch.equal(after.vectors, then.vectors)
        assert (after.screen is None) == (then.screen is None) == (known is None)
        if after.screen is not None and then.screen is not None:
            assert torch.equal(after.screen, then.screen)


def test_a_window_that_moves_goes_on_without_tokens_and_does_not_drift(tokenizer: DefaultTokenizer) -> None:
    """Fifty-two frames, of which the first four say how it moves; at the end it is a shift, bit by bit."""
    picture = noise(5, 1, 3, HEIGHT, WIDTH)
    context = Context(picture, torch.zeros(1, 128, HEIGHT // 8, WIDTH // 8), torch.zeros(1, 2, ROWS, COLUMNS))
    told: Cells = {(row, column): whole_vector(1, -1) for row in range(ROWS) for column in range(COLUMNS)}
    for block in range(13):
        tokens, keep = sequences(told if block == 0 else {})
        frames, context = tokenizer.decode(tokens, keep, context, count=4)
    rows, columns = (torch.arange(HEIGHT) - 52).clamp(0), (torch.arange(WIDTH) + 52).clamp(max=WIDTH - 1)
    assert torch.equal(frames[0, -1], picture[0][:, rows[:, None], columns])


def test_what_stands_still_stays_bit_by_bit(tokenizer: DefaultTokenizer) -> None:
    """Fifty blocks without a token, whatever networks say of the cells between."""
    shown = randomised(tokenizer)
    frames, context = shown.decode(*sequences(KEYFRAME), None, count=4)
    last = frames[0, -1]
    for _ in range(50):
        frames, context = shown.decode(*sequences({}), context, count=4)
    assert context.screen is not None
    for at in SCREEN:
        assert torch.equal(patch(frames[0], at), patch(last, at).expand(4, -1, -1, -1)), at


def test_one_cell_s_whole_vector_is_a_pan_for_all(tokenizer: DefaultTokenizer) -> None:
    _, context = after_keyframe(tokenizer)
    picture = context.frame[0]
    frames, after = tokenizer.decode(*sequences({(2, 2): whole_vector(0, -16, pan=1)}), context, count=1)
    assert bool((after.vectors == torch.tensor([0.0, -16]).view(1, 2, 1, 1)).all())
    for at in [*SCREEN, (2, 2)]:
        assert torch.equal(patch(frames[0], at), shifted(picture, at, 0, -16, 1)[:1]), at


def test_cells_without_tokens_are_filled_in_from_screen_cells(tokenizer: DefaultTokenizer) -> None:
    assert tokenizer.model.config.fill_in
    levels = (0, 39)
    for level in levels:
        white = level * (1 + 40 + 1600)
        all_round: Cells = {
            (row, column): [PALETTES[1], white] for row in range(ROWS) for column in range(COLUMNS)
        }
        del all_round[1, 1]
        frames, after = tokenizer.decode(*sequences(all_round), None, count=4)
        assert after.screen is not None
        assert not after.screen[0, 1, 1]
        here = patch(frames[0], (1, 1))
        assert float((here - (level / 19.5 - 1)).abs().mean()) < 0.1
    # a picture without any token stays as networks have it
    nothing, _ = tokenizer.decode(*sequences({}), None, count=4)
    grey = predict_keyframe(tokenizer.model, 1, (ROWS, COLUMNS), torch.device("cpu"))
    none = torch.zeros(1, tokenizer.model.config.coefficients, ROWS, COLUMNS)
    keep = torch.zeros(1, ROWS, COLUMNS, dtype=torch.int64)
    assert torch.equal(nothing, reconstruct(tokenizer.model, grey, none, keep, keep, None)[0].clamp(-1, 1))


def test_pictures_of_a_batch_are_decoded_as_each_alone(tokenizer: DefaultTokenizer) -> None:
    """Three pictures over three blocks: with modes, with FSQ codes alone, with other modes."""
    fsq: Cells = {(row, column): codes(row, 3) for row in range(ROWS) for column in range(COLUMNS)}
    clips: list[list[Cells]] = [
        [KEYFRAME, {(0, 0): whole_vector(-30, 2), (2, 2): [DCT, *dct_codes(1, 70)]}, {}],
        [fsq, {(1, 1): [table_vector(2, 1), *codes(5, 3)]}, {}],
        [
            {(2, 2): KEYFRAME[0, 1]},
            fsq,
            {(1, 1): KEYFRAME[1, 3], (0, 3): [*whole_vector(7, 7), *dct_codes(2, 5)]},
        ],
    ]
    contexts: list[Context | None] = [None] * 3
    both: Context | None = None
    for block in range(3):
        each = [sequences(clip[block]) for clip in clips]
        width = max(tokens.shape[1] for tokens, _ in each)
        wide = [
            torch.cat([tokens, torch.full((1, width - tokens.shape[1], ROWS, COLUMNS), -1)], 1)
            for tokens, _ in each
        ]
        together, both = tokenizer.decode(
            torch.cat(wide), torch.cat([keep for _, keep in each]), both, count=3
        )
        for n, (tokens, keep) in enumerate(each):
            alone, context = tokenizer.decode(tokens, keep, contexts[n], count=3)
            torch.testing.assert_close(together[n : n + 1], alone, rtol=0, atol=2e-5)
            assert torch.equal(both.vectors[n : n + 1], context.vectors)
            own = torch.zeros(1, ROWS, COLUMNS).bool() if context.screen is None else context.screen
            assert both.screen is not None or not own.any()
            assert both.screen is None or torch.equal(both.screen[n : n + 1], own)
            contexts[n] = context

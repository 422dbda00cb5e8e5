"""Which cells get a screen mode, at which price, and that the curves of those cells promise what a decoder shows."""

from typing import Any, cast

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from elastictok_cli.codec import rate_control
from elastictok_cli.codec.pixels import make_job, to_pixels
from elastictok_cli.models import checkpoint
from elastictok_cli.models.cell.context import Context
from elastictok_cli.models.cell.screen import mode_decision
from elastictok_cli.models.cell.screen.mode_decision import Modes, NaturalCosts, choose
from elastictok_cli.models.cell.screen.outlook import Outlook
from elastictok_cli.models.cell.token_layout import DCT_MODE, FIRST_PALETTE_MODE
from elastictok_cli.models.cell.tokenizer import DefaultTokenizer
from elastictok_cli.models.cell.transform import cell_energy
from elastictok_cli.models.interface import Encoding

ROWS, COLUMNS = 3, 4  # of cells
HEIGHT, WIDTH = 16 * ROWS, 16 * COLUMNS
VALUES = 3072  # of a cell
DCT, WHOLE = 65_528, 65_527


@pytest.fixture(scope="module")
def tokenizer() -> DefaultTokenizer:
    tokenizer = checkpoint.load().tokenizer
    assert isinstance(tokenizer, DefaultTokenizer)
    return tokenizer


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def text(height: int = HEIGHT, width: int = WIDTH, seed: int = 0) -> torch.Tensor:
    """Lines of dark specks on white, (3, height, width)."""
    specks = torch.rand(height, width, generator=generator(seed)) < 0.35
    lines = torch.arange(height)[:, None] % 12 < 8
    return torch.where(specks & lines, -0.9, 0.9).expand(3, -1, -1)


def noise(seed: int = 1) -> torch.Tensor:
    return torch.rand(3, HEIGHT, WIDTH, generator=generator(seed)) * 2 - 1


def sixteen_colours(seed: int = 2) -> torch.Tensor:
    rgb = torch.rand(16, 3, generator=generator(seed)) * 2 - 1
    return rgb[torch.randint(0, 16, (HEIGHT, WIDTH), generator=generator(seed + 1))].permute(2, 0, 1)


def smooth() -> torch.Tensor:
    y, x = torch.arange(HEIGHT)[:, None] / 25, torch.arange(WIDTH) / 20
    return (0.7 * torch.sin(x) * torch.cos(y)).expand(3, -1, -1)


def still(*pictures: torch.Tensor) -> torch.Tensor:
    """A block of each picture, (B, 4, 3, H, W)."""
    return torch.stack(pictures)[:, None].expand(-1, 4, -1, -1, -1).contiguous()


def modes_of(encoding: Encoding, n: int = 0) -> list[int]:
    """The first value of each cell's sequence, -1 where it has none."""
    return encoding.tokens[n, 0].flatten().tolist()


@pytest.mark.parametrize("target", [0.007, 0.001])
def test_text_gets_palettes_noise_the_dct_and_smooth_pictures_fsq_codes(
    tokenizer: DefaultTokenizer, target: float
) -> None:
    together = tokenizer.encode(still(text(), noise(), smooth()), None, count=4, target=target)
    assert all(mode > DCT for mode in modes_of(together, 0))
    assert set(modes_of(together, 1)) == {DCT}
    assert all(mode < 64_000 for mode in modes_of(together, 2))


def test_a_mixed_picture_has_each_where_it_belongs(tokenizer: DefaultTokenizer) -> None:
    """In one picture: above text, in the middle a gradient, below noise."""
    picture = text().clone()
    picture[:, 16:32] = smooth()[:, 16:32]
    picture[:, 32:] = noise()[:, 32:]
    first = tokenizer.encode(still(picture), None, count=4, target=0.003).tokens[0, 0]
    assert bool((first[0] > DCT).all())
    assert bool((first[1] < 64_000).all())
    assert bool((first[2] == DCT).all())


def test_without_a_price_a_complete_encoding_has_no_modes_and_with_one_it_has(
    tokenizer: DefaultTokenizer,
) -> None:
    frames = still(text())
    encoding = tokenizer.encode(frames, None, count=4, complete=True)
    assert int(encoding.tokens.max()) < WHOLE
    encoding = tokenizer.encode(frames, None, count=4, complete=True, price=2.0)
    assert all(mode > DCT for mode in modes_of(encoding))


@pytest.mark.parametrize("target", [0.007, 0.001])
def test_sixteen_random_colours_reach_the_target(tokenizer: DefaultTokenizer, target: float) -> None:
    """Too many colours for a palette. The draft knows it, and not all of the tokens are needed."""
    pixels = to_pixels(still(sixteen_colours()), HEIGHT, WIDTH, 4).numpy()
    job = make_job(pixels, tokenizer, torch.device("cpu"))
    draft = rate_control.draft(tokenizer, job, None, target)
    assert draft.reaches
    coded = rate_control.meet_target(tokenizer, draft, target)
    assert not coded.missed
    assert 0.85 * target < coded.mse <= target
    assert coded.mse == pytest.approx(0.99 * target, rel=0.1)  # as the curves promise
    assert int(coded.keep.sum()) < int(draft.encoding.length.sum())


class Operations(TorchDispatchMode):
    """Counts the operations inside a `with` statement, views too."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.number += 1
        return func(*args, **(kwargs or {}))


def flat_costs(frames: torch.Tensor, reference: torch.Tensor) -> NaturalCosts:
    """FSQ codes that can do nothing for any cell."""
    energy = cell_energy(frames - reference, 16)
    return NaturalCosts(torch.stack([energy, energy], 1), torch.ones_like(energy, dtype=torch.int64))


def decide(frames: torch.Tensor, reference: torch.Tensor, natural: NaturalCosts, **more: Any) -> Modes | None:
    everywhere = torch.ones(len(frames), ROWS, COLUMNS, dtype=torch.bool)
    usual: dict[str, Any] = {
        "count": 4,
        "goal": 0.003 * VALUES,
        "price": None,
        "possible": everywhere,
        "palettes": everywhere,
        "wanted": ~everywhere,
        "inter": False,
    }
    return choose(frames, reference, natural, **(usual | more))


def test_the_price_of_a_picture_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = still(text(), noise(), sixteen_colours(), smooth())
    reference = torch.zeros_like(frames)
    natural = flat_costs(frames, reference)
    prices: list[torch.Tensor] = []
    original = mode_decision._price

    def noting(*args: Any) -> torch.Tensor:
        prices.append(original(*args))
        return prices[-1]

    monkeypatch.setattr(mode_decision, "_price", noting)
    together = decide(frames, reference, natural)
    assert together is not None
    for n in range(len(frames)):
        one = slice(n, n + 1)
        own = NaturalCosts(natural.curve[one], natural.length[one])
        alone = decide(frames[one], reference[one], own)
        assert alone is not None
        mine = together.cells.picture == n
        assert torch.equal(together.mode[mine], alone.mode)
        assert torch.equal(together.length[mine], alone.length)
        width = alone.codes.shape[1]
        assert torch.equal(together.codes[mine, :width], alone.codes)
    assert torch.equal(torch.cat(prices[1:]), prices[0])
    assert len(prices[0].unique()) >= 3


def test_the_price_is_the_highest_at_which_the_modes_leave_no_more_than_the_target() -> None:
    """Noise in every cell, so all get the DCT: the cheapest prefixes at that price just meet it."""
    frames = still(noise(), sixteen_colours())
    reference = torch.zeros_like(frames)
    goal = 0.003 * VALUES
    found: list[torch.Tensor] = []
    original = mode_decision._price
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mode_decision, "_price", lambda *args: found.append(original(*args)) or found[-1])
        modes = decide(frames, reference, flat_costs(frames, reference))
    assert modes is not None
    assert bool((modes.mode == DCT_MODE).all())
    number = torch.arange(1, modes.error.shape[1] + 1)
    for scale, fits in ((1.0, True), (1.01, False)):
        price = scale * found[0][modes.cells.picture]
        cost = modes.error + price[:, None] * number
        best = cost.masked_fill(number > modes.length[:, None], torch.inf).argmin(1)
        error = modes.error.gather(1, best[:, None])[:, 0]
        left = torch.zeros(2).index_add_(0, modes.cells.picture, error) / (ROWS * COLUMNS)
        assert ((left <= 1.0001 * goal).tolist() == [True, True]) == fits
        assert bool((left > 0.9 * goal).all())


def test_a_mode_has_to_save_eight_tokens_and_a_quarter_of_the_cost() -> None:
    """Cells whose FSQ codes are as good as their palette but for some tokens keep the FSQ codes."""
    frames = still(text())
    reference = torch.zeros_like(frames)
    free = decide(frames, reference, flat_costs(frames, reference))
    assert free is not None
    assert free.cells.count == ROWS * COLUMNS
    needed = int(free.length.max()) + 1
    energy = cell_energy(frames, 16)
    for more, chosen in ((4, False), (4 * needed, True)):
        slots = needed + more
        curve = torch.cat([energy.unsqueeze(1).expand(-1, slots, -1, -1), 0 * energy.unsqueeze(1)], 1)
        length = torch.full((1, ROWS, COLUMNS), slots)
        found = decide(frames, reference, NaturalCosts(curve, length))
        assert (found is not None and found.cells.count == ROWS * COLUMNS) == chosen
        assert found is not None or not chosen


def test_only_cells_that_may_have_a_mode_or_a_palette_get_one() -> None:
    frames = still(text())
    reference = torch.zeros_like(frames)
    possible = torch.ones(1, ROWS, COLUMNS, dtype=torch.bool)
    possible[0, 0] = False
    palettes = possible.clone()
    palettes[0, 2] = False
    found = decide(frames, reference, flat_costs(frames, reference), possible=possible, palettes=palettes)
    assert found is not None
    assert torch.equal(found.cells.where, possible)
    assert bool((found.mode[found.cells.row == 1] >= FIRST_PALETTE_MODE).all())
    assert bool((found.mode[found.cells.row == 2] == DCT_MODE).all())
    nothing = torch.zeros_like(possible)
    assert decide(frames, reference, flat_costs(frames, reference), possible=nothing) is None


def test_wanted_cells_are_looked_at_whatever_fsq_codes_promise() -> None:
    """Curves that promise nearly nothing keep cells out, if nobody wants them in."""
    frames = still(text())
    reference = torch.zeros_like(frames)
    energy = cell_energy(frames, 16).unsqueeze(1)
    low = NaturalCosts(torch.cat([energy, 0 * energy], 1), torch.ones(1, ROWS, COLUMNS, dtype=torch.int64))
    seen: list[int] = []
    original = mode_decision.look_out
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            mode_decision,
            "look_out",
            lambda *args, **more: seen.append(len(args[0].patches)) or original(*args, **more),
        )
        assert decide(frames, reference, low) is None
        assert not seen
        wanted = torch.zeros(1, ROWS, COLUMNS, dtype=torch.bool)
        wanted[0, 1] = True
        decide(frames, reference, low, wanted=wanted)
        assert seen == [COLUMNS]


def test_smooth_cells_are_looked_at_and_nothing_is_searched() -> None:
    """No palette and no stream can pay, and few operations find it out."""
    frames = still(noise() * 0.02 + smooth())
    reference = torch.zeros_like(frames)
    energy = cell_energy(frames, 16)
    curve = torch.stack([energy * 0.5**n for n in range(30)], 1)
    natural = NaturalCosts(curve, torch.full((1, ROWS, COLUMNS), 29))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mode_decision, "_try", lambda *args, **more: pytest.fail("searched"))
        with Operations() as counted:
            wanted = torch.ones(1, ROWS, COLUMNS, dtype=torch.bool)
            assert decide(frames, reference, natural, inter=True, wanted=wanted) is None
    assert 0 < counted.number < 300


@pytest.mark.parametrize("target", [0.007, 0.003, 0.001])
def test_what_is_ruled_out_without_a_search_would_not_have_been_chosen(
    target: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = still(text(), noise(), sixteen_colours(), smooth(), text(seed=5) * 0.3 + smooth())
    reference = torch.zeros_like(frames)
    energy = cell_energy(frames, 16)
    curve = torch.stack([energy * 0.9**n for n in range(60)], 1)
    natural = NaturalCosts(curve, torch.full((len(frames), ROWS, COLUMNS), 59))
    goal = {"goal": target * VALUES}
    usual = decide(frames, reference, natural, **goal)
    original = mode_decision.look_out

    def hopeful(*args: Any, **more: Any) -> Outlook:
        seen = original(*args, **more)
        return seen._replace(stream=seen.stream | True, palette=seen.palette | True)

    monkeypatch.setattr(mode_decision, "look_out", hopeful)
    whole = decide(frames, reference, natural, **goal)
    assert usual is not None
    assert whole is not None
    assert torch.equal(usual.cells.where, whole.cells.where)
    assert torch.equal(usual.mode, whole.mode)


def test_groups_of_cells_decide_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells are tried so many at once for memory's sake alone."""
    frames = still(text(), noise())
    reference = torch.zeros_like(frames)
    usual = decide(frames, reference, flat_costs(frames, reference))
    monkeypatch.setattr(mode_decision, "_CELLS_AT_ONCE", 5)
    few = decide(frames, reference, flat_costs(frames, reference))
    assert usual is not None
    assert few is not None
    for a, b in zip(usual[1:], few[1:], strict=True):
        torch.testing.assert_close(a, b)


def cursor(picture: torch.Tensor) -> torch.Tensor:
    """A block in which a small box of two colours comes and goes on a still picture."""
    frames = still(picture)
    box = torch.full((3, 10, 6), -0.8)
    box[1, 2:8] = 0.7
    frames[0, 1:3, :, 19:29, 21:27] = box
    return frames


def test_a_box_on_a_photograph_is_a_palette_that_copies(tokenizer: DefaultTokenizer) -> None:
    """Noise stands for the photograph; only the cell with the box sends anything, and the rest of it is copied."""
    picture = noise()
    context = Context(
        picture[None],
        torch.zeros(1, 128, HEIGHT // 8, WIDTH // 8),
        torch.zeros(1, 2, ROWS, COLUMNS),
        torch.ones(1, ROWS, COLUMNS, dtype=torch.bool),
    )
    frames = cursor(picture)
    encoding = tokenizer.encode(frames, context, count=4, target=0.003)
    used = (encoding.tokens[0, 0] > DCT).nonzero().tolist()
    assert used == [[1, 1]]
    keep = encoding.length * (encoding.tokens[:, 0] > DCT)
    assert int(keep.sum()) < 60
    shown, _ = tokenizer.decode(encoding.tokens, keep, context, count=4)
    assert torch.equal(shown[0, 0], picture)
    assert torch.equal(shown[0, 3], picture)
    assert float((shown - frames).abs().max()) < 0.05
    assert (
        float(encoding.curve[0, 0].sum() - encoding.curve[0, 0, 1, 1]) == 0
    )  # without a token all others are right


def measured(frames: torch.Tensor, shown: torch.Tensor) -> torch.Tensor:
    return cell_energy(frames - shown, 16)


@pytest.mark.parametrize("target", [0.007, 0.001])
def test_curves_promise_what_a_decoder_shows(tokenizer: DefaultTokenizer, target: float) -> None:
    """Of screen cells, in a keyframe block and in one after it: with all tokens, with a part of a stream, with none."""
    page = text(HEIGHT + 200, WIDTH, 5)
    photograph = noise(3)
    clip = torch.stack(
        [
            torch.cat([still(text()), cursor(text())], 1)[0],
            torch.cat([still(noise()), still(noise(7))], 1)[0],
            torch.stack([page[:, 37 * max(0, t - 3) :][:, :HEIGHT] for t in range(8)]),
            torch.cat([still(photograph), cursor(photograph)], 1)[0],
        ]
    )
    clip = 0.5 * clip  # so that hardly any value is clamped
    context: Context | None = None
    kinds = set()
    for frames in clip.split(4, 1):
        encoding = tokenizer.encode(frames, context, count=4, target=target)
        tokens, length = encoding.tokens, encoding.length
        screen = (tokens[:, :2] >= DCT).any(1) | (tokens[:, 0] == WHOLE)
        kinds |= set(tokens[:, 0][screen].tolist())
        shown, after = tokenizer.decode(tokens, length, context, count=4)
        assert after.screen is not None
        assert bool(after.screen[screen].all())
        promised = encoding.curve.gather(1, length.unsqueeze(1))[:, 0]
        check(measured(frames, shown)[screen], promised[screen])

        # with a share of each DCT stream
        stream = (tokens[:, 0] == DCT) | (tokens[:, 0] == WHOLE)
        for share in (0.2, 0.6):
            keep = torch.where(stream, (share * length).long().clamp_min(2).minimum(length), length)
            part, _ = tokenizer.decode(tokens, keep, context, count=4)
            promised = encoding.curve.gather(1, keep.unsqueeze(1))[:, 0]
            check(measured(frames, part)[stream], promised[stream])

        if context is not None:  # screen cells that keep nothing, while those that pan speak for them
            assert context.screen is not None
            pans = (encoding.curve > 1e6).sum(1)
            part, _ = tokenizer.decode(tokens, pans, context, count=4)
            moves = (tokens[:, 0] == WHOLE) | ((tokens[:, 0] >= 64_000) & (tokens[:, 0] < 65_521))
            assert pans.any()
            silent = context.screen & ~moves
            assert silent.flatten(1).any(1).tolist() == [True] * len(clip)
            check(measured(frames, part)[silent], encoding.curve[:, 0][silent])
        context = after
    assert {WHOLE, DCT} <= kinds
    assert max(kinds) > DCT


def check(found: torch.Tensor, promised: torch.Tensor) -> None:
    """Clamping to the range of pixels may leave less error than promised."""
    torch.testing.assert_close(found, promised, rtol=0.02, atol=0.05)
    assert bool((found <= 1.002 * promised + 0.05).all())


def test_batches_of_screens_are_coded_as_each_alone(tokenizer: DefaultTokenizer) -> None:
    clip = torch.stack([torch.cat([still(p), still(q)], 1)[0] for p, q in BATCH])
    together: Context | None = None
    contexts: list[Context | None] = [None] * len(clip)
    for frames in clip.split(4, 1):
        encoding = tokenizer.encode(frames, together, count=4, target=0.003)
        _, after = tokenizer.decode(encoding.tokens, encoding.length, together, count=4)
        for n in range(len(clip)):
            one = slice(n, n + 1)
            alone = tokenizer.encode(frames[one], contexts[n], count=4, target=0.003)
            slots = alone.tokens.shape[1]
            assert torch.equal(alone.length, encoding.length[one])
            assert torch.equal(alone.tokens, encoding.tokens[one, :slots])
            _, contexts[n] = tokenizer.decode(alone.tokens, alone.length, contexts[n], count=4)
            own = cast(Context, contexts[n]).screen
            assert after.screen is not None
            assert torch.equal(after.screen[n], torch.zeros(ROWS, COLUMNS).bool() if own is None else own[0])
        together = after


BATCH = (
    (text(), text(seed=8)),
    (smooth(), smooth().flip(1)),
    (noise(), text()),
    (sixteen_colours(), sixteen_colours()),
)

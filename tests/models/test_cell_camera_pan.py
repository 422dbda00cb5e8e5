from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from elastictok_cli.codec import rate_control as search
from elastictok_cli.codec.pixels import errors_of, make_job, to_pixels
from elastictok_cli.models import checkpoint
from elastictok_cli.models.cell.context import Context
from elastictok_cli.models.cell.motion import camera_pan
from elastictok_cli.models.cell.motion.camera_pan import EVERYTHING, MOVING, Tried, choose, follow
from elastictok_cli.models.cell.motion.compensation import warp
from elastictok_cli.models.cell.tokenizer import DefaultTokenizer


def field(height: int = 6, width: int = 8) -> torch.Tensor:
    """Motion vectors (1, 2, h, w): the left half stands still, the right one moves by (1, -2.25)."""
    inherited = torch.zeros(1, 2, height, width)
    inherited[0, :, :, width // 2 :] = torch.tensor([1.0, -2.25]).view(2, 1, 1)
    return inherited


def panned(inherited: torch.Tensor, *cells: tuple[int, int, float, float, int]) -> camera_pan.Panned:
    """Cells (row, column) send what they inherited, changed by so much, and a pan with a scope."""
    vectors, pan = inherited.clone(), torch.zeros_like(inherited[:, 0], dtype=torch.int64)
    for row, column, down, right, scope in cells:
        vectors[0, :, row, column] += torch.tensor([down, right])
        pan[0, row, column] = 1 + scope
    return follow(inherited, vectors, pan)


def test_without_a_pan_vectors_go_on() -> None:
    inherited = field()
    followed = panned(inherited)
    assert torch.equal(followed.vectors, inherited)
    assert torch.equal(followed.lasting, inherited)


def test_one_pan_changes_every_cell_alike() -> None:
    inherited = field()
    followed = panned(inherited, (1, 6, -3.0, 0.5, EVERYTHING))
    assert torch.equal(
        followed.vectors - inherited, torch.tensor([-3.0, 0.5]).view(1, 2, 1, 1).expand(1, 2, 6, 8)
    )
    assert torch.equal(followed.lasting, followed.vectors)


def test_what_stands_still_can_be_left_out() -> None:
    inherited = field()
    followed = panned(inherited, (1, 6, -3.0, 0.5, MOVING))
    assert torch.equal(followed.vectors[..., :4], inherited[..., :4])
    assert torch.equal((followed.vectors - inherited)[0, 0, :, 4:], torch.full((6, 4), -3.0))


def test_sway_does_not_last() -> None:
    inherited = field()
    followed = panned(inherited, (0, 0, 0.25, -1.0, EVERYTHING))
    assert bool((followed.vectors[:, 1] == inherited[:, 1] - 1).all())
    assert torch.equal(followed.lasting, inherited)


def test_near_pans_count_more() -> None:
    inherited = torch.zeros(1, 2, 1, 5)
    followed = panned(inherited, (0, 0, 0.0, 8.0, EVERYTHING), (0, 4, 0.0, 4.0, EVERYTHING)).vectors[0, 1, 0]
    assert followed[2] == 6
    assert bool((followed.diff() < 0).all())
    assert float(followed[0]) > 7.5
    assert torch.equal(followed * 16, (followed * 16).round())


def test_no_vector_leaves_the_table() -> None:
    followed = panned(field(), (0, 0, 24.0, -24.0, EVERYTHING))
    assert float(followed.vectors.abs().max()) == 24


def test_pictures_of_a_batch_follow_their_own_pans() -> None:
    inherited = torch.cat([field(), field() + 0.5])
    vectors, pan = inherited + 2, torch.zeros(2, 6, 8, dtype=torch.int64)
    pan[1, 3, 3] = 1 + EVERYTHING
    followed = follow(inherited, vectors, pan).vectors
    assert torch.equal(followed[0], inherited[0])
    assert torch.equal(followed[1], inherited[1] + 2)


def chosen(
    inherited: torch.Tensor, wanted: torch.Tensor, price: float | torch.Tensor = 1.0
) -> tuple[torch.Tensor, camera_pan.Panned]:
    """The pans where errors are how far vectors (B, 2, h, w) are from those that are wanted."""

    def estimate(vectors: torch.Tensor) -> torch.Tensor:
        return (vectors - wanted.unsqueeze(1)).abs().sum(2)

    errors = Tried(estimate(inherited.unsqueeze(1))[:, 0], torch.zeros_like(wanted[:, 0]))
    return choose(inherited, wanted, errors, torch.ones(len(wanted), 1, 1) * price, 0.9, estimate)


@pytest.mark.parametrize("still", [0, 3])
def test_which_cell_sends_a_pan(still: int) -> None:
    """Cells whose change is alike get one pan; a caption that stands still is left out of its scope."""
    inherited = torch.full((1, 2, 6, 8), 2.0)
    inherited[:, :, :still] = 0
    change = torch.tensor([0.0, 4.0]).view(1, 2, 1, 1)
    wanted = torch.where((inherited != 0).any(1, keepdim=True), inherited + change, inherited)
    pan, panned = chosen(inherited, wanted)
    assert int((pan > 0).sum()) == 1
    assert torch.equal(panned.vectors, wanted)
    if still:
        assert int(pan.max()) == 1 + MOVING


def test_a_pan_of_whole_vectors_is_that_of_most_cells() -> None:
    """Also where a cell has the fastest vector of the table, which is nearer to others."""
    inherited = torch.zeros(1, 2, 6, 8)
    wanted = torch.zeros(1, 2, 6, 8)
    wanted[:, 0] = -37
    wanted[:, 0, 0, 0] = -24
    pan, panned = chosen(inherited, wanted)
    assert int((pan > 0).sum()) == 1
    assert bool((panned.vectors[:, 0] == -37).all())


def test_no_pan_is_sent_where_changes_differ() -> None:
    generator = torch.Generator().manual_seed(0)
    inherited = torch.zeros(1, 2, 6, 8)
    wanted = torch.randint(-20, 21, (1, 2, 6, 8), generator=generator).float()
    pan, panned = chosen(inherited, wanted)
    assert not pan.any()
    assert torch.equal(panned.vectors, inherited)


def test_chosen_pans_are_those_that_a_decoder_follows_and_batches_have_their_own() -> None:
    """Two speeds want two pans, noise none; what `choose` says of them is what `follow` makes of them."""
    inherited = torch.randint(-32, 33, (3, 2, 6, 8), generator=torch.Generator().manual_seed(1)) / 16
    inherited[0] = 0
    price = torch.tensor([6.0, 1.0, 1.0]).view(3, 1, 1)
    wanted = inherited.clone()
    wanted[0, 0] = torch.where(torch.arange(8) < 4, 16.0, 8.0)
    wanted[1] += torch.tensor([0.5, -0.75]).view(2, 1, 1)
    wanted[2] = torch.randint(-20, 21, (2, 6, 8), generator=torch.Generator().manual_seed(2)).float()
    pan, panned = chosen(inherited, wanted, price)
    assert (pan > 0).flatten(1).sum(1).tolist() == [2, 1, 0]
    followed = follow(inherited, wanted, pan)
    assert torch.equal(panned.vectors, followed.vectors)
    assert torch.equal(panned.lasting, followed.lasting)
    assert torch.equal(panned.lasting[1], inherited[1])  # sway
    for n in range(3):
        alone, _ = chosen(inherited[n : n + 1], wanted[n : n + 1], price[n])
        assert torch.equal(alone[0], pan[n])


def texture(height: int, width: int) -> torch.Tensor:
    """(1, 3, height, width): smooth grey noise with detail in every cell."""
    small = torch.rand(1, 1, height // 4, width // 4, generator=torch.Generator().manual_seed(3)) * 1.6 - 0.8
    return F.interpolate(small, (height, width), mode="bicubic").clamp(-1, 1).expand(-1, 3, -1, -1)


def shaken() -> tuple[Context, torch.Tensor]:
    """What came before, and a block (1, 4, 3, 96, 128) whose cells go on with their motion vectors, save that a camera
    has begun to move."""
    last = texture(96, 128)
    inherited = torch.zeros(1, 2, 6, 8)
    inherited[:, 1, :, 4:] = 2.0
    times = torch.arange(1, 5)
    moved = warp(last, inherited + torch.tensor([-2.0, 3.0]).view(1, 2, 1, 1), times, "bicubic")
    return Context(last, torch.zeros(1, 128, 12, 16), inherited), moved.clamp(-1, 1)


def tokenizer(pans: bool) -> DefaultTokenizer:
    model = checkpoint.load().tokenizer.model
    assert model.config.interpolation == "bicubic"
    model.config = replace(model.config, camera_pan=pans, camera_shake=False)
    return DefaultTokenizer(model)


def coded(pans: bool) -> tuple[DefaultTokenizer, Context, torch.Tensor, search.Coded]:
    shown = tokenizer(pans)
    context, block = shaken()
    pixels = to_pixels(block, 96, 128, 4).numpy()
    job = make_job(pixels, shown, torch.device("cpu"))
    draft = search.draft(shown, job, context, 0.007)
    return shown, context, block, search.meet_target(shown, draft, 0.007)


def test_a_camera_that_moves_is_sent_once() -> None:
    (alone, *_, each), (shown, context, block, one) = coded(False), coded(True)
    assert not each.missed
    assert not one.missed

    def vectors_sent(tokens: search.Coded) -> int:
        first = tokens.tokens[:, 0]
        return int(
            ((first >= alone.layout.codes) & (first < alone.layout.first_gain) & (tokens.keep > 0)).sum()
        )

    assert vectors_sent(each) > 20
    assert vectors_sent(one) < 8
    assert int(one.keep.sum()) < int(each.keep.sum()) / 2
    sends_pan = (one.tokens[:, 1] >= shown.layout.first_pan) & (one.keep > 1)
    assert bool(sends_pan.any())
    assert int(one.tokens.max()) < shown.spec.vocabulary <= 65536

    # the next block goes on with what lasts of it, which a decoder knows as well
    decoded, after = shown.decode(one.tokens, one.keep, context, count=4)
    change = (after.vectors - context.vectors)[0].flatten(1)
    assert change.median(1).values.tolist() == [-2.0, 3.0]
    job = make_job(to_pixels(block, 96, 128, 4).numpy(), shown, torch.device("cpu"))
    assert errors_of(job, decoded, (16, 16)).frames.tolist() == list(one.frame_mse)


def test_a_pan_comes_with_no_third_control_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never three, with a gain: the range coder's patterns have no place for that."""
    shown = tokenizer(True)
    context, _ = shaken()
    stripes = torch.where(torch.arange(128) % 6 < 3, 1.0, -1.0).expand(1, 4, 3, 96, 128)
    pan = torch.zeros(1, 6, 8, dtype=torch.int64)
    pan[0, 2, 3] = 1 + EVERYTHING
    monkeypatch.setattr(
        camera_pan, "choose", lambda inherited, found, *_: (pan, follow(inherited, found, pan))
    )
    encoding = shown.encode(stripes, context, count=4)
    special = (encoding.tokens >= shown.layout.codes).sum(1)[0]
    gains = (encoding.tokens >= shown.layout.first_gain) & (encoding.tokens < shown.layout.first_pan)
    assert int(gains.sum()) > 24  # most others need one
    assert int(encoding.tokens[0, 1, 2, 3]) == shown.layout.first_pan + EVERYTHING
    assert int(special[2, 3]) == 2
    assert int(special.max()) == 2


def test_models_without_pans_send_none() -> None:
    shown, *_, found = coded(False)
    assert shown.spec.vocabulary == shown.layout.first_pan
    assert int(found.tokens.max()) < shown.layout.first_pan


def test_lengths_that_are_all_alike_have_no_pans() -> None:
    shown = tokenizer(True)
    context, block = shaken()
    encoding = shown.encode(block, context, count=4, complete=True)
    assert not bool((encoding.tokens >= shown.layout.first_pan).any())

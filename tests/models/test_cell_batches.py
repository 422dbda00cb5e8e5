"""What becomes of a picture does not depend on those that are coded beside it."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from elastictok_cli.models import checkpoint
from elastictok_cli.models.cell.context import Context
from elastictok_cli.models.cell.decode import reconstruct
from elastictok_cli.models.cell.motion import block_matching, vectors
from elastictok_cli.models.cell.motion.decision import choose_motion
from elastictok_cli.models.cell.motion.luma import Luma
from elastictok_cli.models.cell.prediction import predict_keyframe
from elastictok_cli.models.cell.selection import Selection
from elastictok_cli.models.cell.tokenizer import DefaultTokenizer

_ROWS, _COLUMNS = 6, 8  # of cells
_HEIGHT, _WIDTH = 16 * _ROWS, 16 * _COLUMNS
_SHAKE = ((0, 0), (2, 5), (5, 1), (1, 8), (7, 2), (3, 9), (9, 4), (0, 6))  # pixels
# Matrix products of other sizes add in another order. On pixels that makes about 2e-6; one of 255 levels is 8e-3.
_ROUNDING = 2e-5


@pytest.fixture(scope="module")
def tokenizer() -> DefaultTokenizer:
    tokenizer = checkpoint.load().tokenizer
    assert isinstance(tokenizer, DefaultTokenizer)
    assert tokenizer.model.config.camera_shake
    assert tokenizer.model.config.fill_in
    return tokenizer


def texture(seed: int) -> torch.Tensor:
    """(3, 128, 192) in [-1, 1]."""
    noise = torch.rand(1, 3, 16, 24, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return F.interpolate(noise, scale_factor=8, mode="bilinear")[0]


def along(picture: torch.Tensor, path: tuple[tuple[int, int], ...]) -> torch.Tensor:
    """A window that goes along a path, (8, 3, height, width)."""
    return torch.stack([picture[:, y : y + _HEIGHT, x : x + _WIDTH] for y, x in path])


def still() -> torch.Tensor:
    return along(texture(1), ((0, 0),) * 8)


def moving() -> torch.Tensor:
    return along(texture(2), tuple((0, 3 * t) for t in range(8)))


def shaken() -> torch.Tensor:
    return along(texture(3), _SHAKE)


def partly_moving() -> torch.Tensor:
    frames, other = along(texture(4), ((0, 0),) * 8), along(texture(5), tuple((0, 4 * t) for t in range(8)))
    frames[:, :, 32:64, 32:80] = other[:, :, 32:64, 32:80]
    return frames


def few_shaken() -> torch.Tensor:
    """A stroke that shakes within five cells: too few for the six tokens that a shake takes."""
    picture = torch.full((3, 128, 192), 0.25)
    picture[:, 41:48, 41:112] = texture(6)[:, 41:48, 41:112]
    return along(picture, _SHAKE)


def flat() -> torch.Tensor:
    return torch.full((8, 3, _HEIGHT, _WIDTH), 0.25)


def noisy() -> torch.Tensor:
    return torch.rand(8, 3, _HEIGHT, _WIDTH, generator=torch.Generator().manual_seed(7)) * 2 - 1


def untold() -> torch.Tensor:
    """Of which no cell keeps a token."""
    return along(texture(8), tuple((t, t) for t in range(8)))


CONTENT = (still, moving, shaken, partly_moving, few_shaken, flat, noisy, untold)


def kept(number: int, block: int) -> torch.Tensor:
    """Tokens to keep of each cell, (h, w): none of many."""
    if CONTENT[number] is untold:
        return torch.zeros(_ROWS, _COLUMNS, dtype=torch.int64)
    generator = torch.Generator().manual_seed(10 * number + block)
    keep = torch.randint(1, 40, (_ROWS, _COLUMNS), generator=generator)
    return keep.masked_fill(torch.rand(_ROWS, _COLUMNS, generator=generator) < 0.4, 0)


def of_one(context: Context | None, n: int) -> Context | None:
    return None if context is None else Context(*(None if x is None else x[n : n + 1] for x in context))


@settings(max_examples=6, deadline=None, derandomize=True)
@given(
    numbers=st.lists(st.sampled_from(range(len(CONTENT))), min_size=2, max_size=8, unique=True),
    count=st.integers(1, 4),
    target=st.sampled_from((0.001, 0.003, 0.007, 0.015)),
    complete=st.booleans(),
)
def test_a_batch_is_coded_as_its_items_one_by_one(
    tokenizer: DefaultTokenizer, numbers: list[int], count: int, target: float, complete: bool
) -> None:
    check(tokenizer, numbers, count, target, complete)


@pytest.mark.parametrize("complete", [False, True])
def test_everything_in_one_batch(tokenizer: DefaultTokenizer, complete: bool) -> None:
    check(tokenizer, list(range(len(CONTENT))), 4, 0.003, complete)


def check(tokenizer: DefaultTokenizer, numbers: list[int], count: int, target: float, complete: bool) -> None:
    clips = torch.stack([CONTENT[n]() for n in numbers])
    context: Context | None = None
    for block, frames in enumerate(clips.split(4, 1)):
        frames = torch.cat(
            [frames[:, :count], frames[:, count - 1 : count].expand(-1, 4 - count, -1, -1, -1)], 1
        )
        asked = {"count": count, "target": target, "complete": complete}
        together = tokenizer.encode(frames, context, **asked)  # type: ignore[arg-type]
        keep = torch.stack([kept(n, block) for n in numbers]).minimum(together.length)
        decoded, after = tokenizer.decode(together.tokens, keep, context, count=count)
        for n in range(len(numbers)):
            one = slice(n, n + 1)
            alone = tokenizer.encode(frames[one], of_one(context, n), **asked)  # type: ignore[arg-type]
            slots = alone.tokens.shape[1]  # of the longest sequence, which another item may have
            assert torch.equal(alone.tokens, together.tokens[one, :slots])
            assert bool((together.tokens[one, slots:] == -1).all())
            assert torch.equal(alone.length, together.length[one])
            promised = together.curve[one, : slots + 1]
            torch.testing.assert_close(alone.curve, promised, rtol=1e-4, atol=1e-2)
            if alone.filled is not None and together.filled is not None:
                foreseen = together.filled(keep > 0)[one]
                torch.testing.assert_close(alone.filled(keep[one] > 0), foreseen, rtol=1e-4, atol=1e-2)
            shown, left = tokenizer.decode(alone.tokens, keep[one], of_one(context, n), count=count)
            torch.testing.assert_close(shown, decoded[one], rtol=0, atol=_ROUNDING)
            assert torch.equal(left.vectors, after.vectors[one])
            torch.testing.assert_close(left.features, after.features[one], rtol=1e-4, atol=1e-3)
        context = after


def test_cells_without_a_token_are_filled_in_picture_by_picture(tokenizer: DefaultTokenizer) -> None:
    """One has all of its tokens, one has some, one has none and stays grey."""
    model = tokenizer.model
    frames = torch.stack([still()[:4], moving()[:4], shaken()[:4]])
    encoding = tokenizer.encode(frames, None, count=4)
    keep = torch.ones(3, _ROWS, _COLUMNS, dtype=torch.int64)
    keep[1, ::2] = 0
    keep[2] = 0
    together, _ = tokenizer.decode(encoding.tokens, keep, None, count=4)
    for n in range(3):
        one = slice(n, n + 1)
        alone, _ = tokenizer.decode(encoding.tokens[one], keep[one], None, count=4)
        torch.testing.assert_close(together[one], alone, rtol=0, atol=_ROUNDING)
    grey = predict_keyframe(model, 1, (_ROWS, _COLUMNS), frames.device)
    nothing = torch.zeros(1, model.config.coefficients, _ROWS, _COLUMNS)
    assert torch.equal(
        together[2:], reconstruct(model, grey, nothing, keep[2:], keep[2:], None)[0].clamp(-1, 1)
    )


def test_vectors_are_searched_in_each_picture_for_its_own_cells_only() -> None:
    generator = torch.Generator().manual_seed(0)
    last = torch.stack([texture(n)[:, :_HEIGHT, :_WIDTH] for n in range(3)])
    frames = torch.stack([last.roll(2 * t, -1) for t in range(1, 5)], 1)
    frames = frames + 0.1 * torch.randn(frames.shape, generator=generator)
    inherited = torch.randint(-8, 8, (3, 2, _ROWS, _COLUMNS), generator=generator) / 4
    share = torch.tensor([0.1, 0.5, 0.95]).view(3, 1, 1)
    wanted = torch.rand(3, _ROWS, _COLUMNS, generator=generator) < share

    def search(some: slice) -> torch.Tensor:
        half = Luma.of(last[some], frames[some]).half()
        coarse = block_matching.coarse_search(half, (_ROWS, _COLUMNS))
        return block_matching.search(half, inherited[some], coarse, Selection(wanted[some]), 0.01)

    together = search(slice(None))
    for n in range(3):
        one = slice(n, n + 1)
        assert torch.equal(together[one], search(one))
    assert torch.equal(together[0, :, ~wanted[0]], vectors.in_table(inherited)[0, :, ~wanted[0]])


def test_few_cells_do_not_send_a_shake_because_others_do(tokenizer: DefaultTokenizer) -> None:
    model = tokenizer.model
    clips = torch.stack([few_shaken(), shaken()])
    context = Context(
        clips[:, 0], torch.zeros(2, 128, 2 * _ROWS, 2 * _COLUMNS), torch.zeros(2, 2, _ROWS, _COLUMNS)
    )
    frames = clips[:, 1:5]
    found = choose_motion(model.config, frames, context, 0.0035, 4)
    assert found.sends_shake.flatten(1).sum(1).tolist() == [0, 1]
    alone = choose_motion(model.config, frames[:1], of_one(context, 0), 0.0035, 4)
    assert not alone.sends_shake.any()
    assert torch.equal(alone.vectors, found.vectors[:1])
    assert torch.equal(alone.sent, found.sent[:1])
    assert torch.equal(alone.lasting, found.lasting[:1])
    torch.testing.assert_close(alone.moved, found.moved[:1])

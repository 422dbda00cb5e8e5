from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from elastictok_cli.codec import rate_control as search
from elastictok_cli.codec.pixels import errors_of, make_job, to_pixels
from elastictok_cli.models import checkpoint
from elastictok_cli.models.cell.config import DefaultConfig
from elastictok_cli.models.cell.context import Context
from elastictok_cli.models.cell.motion import camera_shake
from elastictok_cli.models.cell.motion.compensation import warp
from elastictok_cli.models.cell.motion.decision import choose_motion
from elastictok_cli.models.cell.motion.luma import Luma
from elastictok_cli.models.cell.tokenizer import DefaultTokenizer

_SHAKE = ((3.125, -8.5), (-6.25, -2.0), (12.0, 30.5), (11.0, 31.125))  # pixels, not even over the block


def test_codes_say_shakes_to_a_sixteenth_of_a_pixel_where_steps_are_small() -> None:
    shake = torch.rand(5, 4, 2, generator=torch.Generator().manual_seed(0)).mul(16).sub(8).cumsum(1) / 2
    codes, said = camera_shake.to_codes(shake)
    assert int(codes.min()) >= 0
    assert int(codes.max()) < camera_shake.CODES <= 64000
    assert float((said - shake).abs().max()) <= 1 / 16
    assert torch.equal(camera_shake.from_codes(codes), said)
    assert torch.equal(said * 8, (said * 8).round())


def test_large_steps_are_rough_but_errors_do_not_add_up() -> None:
    shake = torch.tensor([[[20.3, -35.2], [55.1, -70.9], [90.7, -71.4], [90.7, -71.4]]])
    _, said = camera_shake.to_codes(shake)
    assert float((said - shake).abs().max()) <= 0.25
    assert float((said - shake)[:, 3].abs().max()) <= 1 / 16


def test_the_code_of_no_motion() -> None:
    assert not camera_shake.from_codes(torch.full((1, 4), camera_shake.NO_STEP)).any()


def texture(height: int, width: int) -> torch.Tensor:
    """(1, 3, height, width): smooth grey noise with detail in every cell."""
    small = torch.rand(1, 1, height // 4, width // 4, generator=torch.Generator().manual_seed(3)) * 1.6 - 0.8
    return F.interpolate(small, (height, width), mode="bicubic").clamp(-1, 1).expand(-1, 3, -1, -1)


def shaken(count: int = 4) -> tuple[Context, torch.Tensor]:
    """What came before, and frames (1, count, 3, 160, 192) of a shaken camera; the right half also goes its way."""
    last = texture(160, 192)
    inherited = torch.zeros(1, 2, 10, 12)
    inherited[:, 1, :, 6:] = 2.0
    shake = torch.tensor([_SHAKE[:count]])
    moved = warp(last, inherited, torch.arange(1, count + 1), "bicubic", shake)
    return Context(last, torch.zeros(1, 128, 20, 24), inherited), moved.clamp(-1, 1)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_shake_is_found_to_an_eighth_of_a_pixel(count: int) -> None:
    context, frames = shaken(count)
    shake, gain = camera_shake.estimate(Luma.of(context.frame, frames).half(), context.vectors, 16, 0.0035)
    assert shake.shape == (1, count, 2)
    assert float((shake[0] - torch.tensor(_SHAKE[:count])).abs().max()) <= 0.125
    assert float(gain) > 1


def test_pictures_of_a_batch_have_shakes_of_their_own() -> None:
    context, frames = shaken()
    still = context.frame[:, None].expand(-1, 4, -1, -1, -1)
    both = torch.cat([still, frames])
    shake, gain = camera_shake.estimate(
        Luma.of(context.frame.expand(2, -1, -1, -1), both).half(),
        torch.cat([torch.zeros_like(context.vectors), context.vectors]),
        16,
        torch.tensor([0.0035, 0.0035]).view(2, 1, 1),
    )
    assert not shake[0].any()
    assert float(gain[0]) == 0
    assert float((shake[1] - torch.tensor(_SHAKE)).abs().max()) <= 0.125


def tokenizer(known: bool) -> DefaultTokenizer:
    model = checkpoint.load().tokenizer.model
    model.config = replace(model.config, camera_pan=True, camera_shake=known)
    return DefaultTokenizer(model)


def coded(known: bool, count: int = 4) -> tuple[DefaultTokenizer, Context, search.Draft, search.Coded]:
    shown = tokenizer(known)
    context, frames = shaken(count)
    pixels = to_pixels(frames, 160, 192, count).numpy()
    job = make_job(pixels, shown, torch.device("cpu"))
    draft = search.draft(shown, job, context, 0.007)
    return shown, context, draft, search.meet_target(shown, draft, 0.007)


def sends_shake(shown: DefaultTokenizer, coded: search.Coded) -> torch.Tensor:
    return (coded.tokens[:, 1] == shown.layout.shake_mark) & (coded.keep > 1)


@pytest.mark.parametrize("count", [2, 4])
def test_a_shake_costs_a_few_tokens(count: int) -> None:
    (plain, *_, each), (shown, context, draft, one) = coded(False, count), coded(True, count)
    assert not one.missed
    assert (
        int(one.keep.sum()) < int(each.keep.sum()) / 10
    )  # and even all tokens may not do, where none says it
    assert int(sends_shake(shown, one).sum()) == 1
    assert int(one.keep[sends_shake(shown, one)]) >= 2 + count
    assert plain.spec.vocabulary == shown.layout.shake_mark
    assert int(one.tokens.max()) < shown.spec.vocabulary <= 65536
    assert one.tokens.shape[1] <= shown.spec.tokens_per_cell

    # a decoder that starts afresh sees the same, and goes on with motion vectors that know nothing of the shake
    decoded, after = tokenizer(True).decode(one.tokens, one.keep, context, count=count)
    assert errors_of(draft.job, decoded, (16, 16)).frames.tolist() == list(one.frame_mse)
    assert after.vectors[0, 1, 5, 3] == 0
    assert after.vectors[0, 1, 5, 9] == 2


def test_a_shake_cut_short_says_nothing() -> None:
    shown, context, _, one = coded(True)
    here = sends_shake(shown, one)
    cut = torch.where(here, 4, one.keep)
    decoded, _ = shown.decode(one.tokens, cut, context, count=4)
    without = torch.where(here.unsqueeze(1), torch.tensor(-1), one.tokens)
    without[:, 0] = torch.where(here, one.tokens[:, 0], without[:, 0])
    expected, _ = shown.decode(without, torch.where(here, 1, one.keep), context, count=4)
    assert torch.equal(decoded, expected)


def test_what_a_camera_moves_is_not_copied() -> None:
    shown, context, _, one = coded(True)
    nothing = torch.where(sends_shake(shown, one), one.keep, 0)
    decoded, _ = shown.decode(one.tokens, nothing, context, count=4)
    assert float((decoded[:, 0] - context.frame).square().mean()) > 0.1  # by eight pixels and more


def test_a_batch_takes_of_each_what_is_cheaper() -> None:
    model = tokenizer(True).model
    context, frames = shaken()
    own = torch.cat([warp(context.frame, context.vectors, torch.arange(1, 5), "bicubic"), frames])
    both = Context(*(None if x is None else x.expand(2, *x.shape[1:]) for x in context))
    found = choose_motion(model.config, own.clamp(-1, 1), both, torch.full((2, 1, 1), 0.0035), 4)
    assert found.sends_shake.flatten(1).sum(1).tolist() == [0, 1]
    assert found.shake is not None
    assert not found.shake[0].any()
    assert float((found.shake[1] - torch.tensor(_SHAKE)).abs().max()) <= 0.25
    error = (own.clamp(-1, 1) - found.moved).square().mean((1, 2, 3, 4))
    assert float(error.max()) < 0.0035


class Counted(TorchDispatchMode):
    """Counts operations, and those of them that wait for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def test_a_motion_decision_takes_few_operations_and_waits_for_few() -> None:
    """What was found is read at two places, as lists; no cell or frame or pan is asked for by itself."""
    model = tokenizer(True).model
    context, frames = shaken()
    with Counted() as counted:
        choose_motion(model.config, frames, context, 0.0035, 4)
    assert sum(counted.names.values()) < 1600  # views too
    assert not any(
        counted.names[name] for name in ("nonzero", "_local_scalar_dense", "equal", "masked_select")
    )


def test_lengths_that_are_all_alike_and_older_models_know_none() -> None:
    context, frames = shaken()
    shown = tokenizer(True)
    encoding = shown.encode(frames, context, count=4, complete=True)
    assert not bool((encoding.tokens >= shown.layout.first_pan).any())
    older = tokenizer(False)
    encoding = older.encode(frames, context, count=4)
    assert int(encoding.tokens.max()) < older.spec.vocabulary == shown.layout.shake_mark


def test_settings_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="camera pans"):
        DefaultConfig(camera_shake=True)
    with pytest.raises(ValueError, match="codes"):
        DefaultConfig(camera_shake=True, camera_pan=True, levels=(8, 8, 8))

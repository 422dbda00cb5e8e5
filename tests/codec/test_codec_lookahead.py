from typing import cast

import numpy as np
import pytest
import torch

from elastictok_cli.codec.block_splitting import SourceBlock
from elastictok_cli.codec.lookahead import LOOKAHEAD_FRAMES, Lookahead
from elastictok_cli.models import checkpoint
from elastictok_cli.models.interface import NestedTokenizer
from elastictok_cli.video.records import Frame

CPU = torch.device("cpu")
TOKENIZER = cast(NestedTokenizer, checkpoint.load().tokenizer)


def picture(seed: int = 0, side: int = 128) -> np.ndarray:
    """Soft blobs, (side, side, 3) uint8."""
    g = torch.Generator().manual_seed(seed)
    noise = torch.rand(1, 3, side // 16, side // 16, generator=g)
    soft = torch.nn.functional.interpolate(noise, scale_factor=16, mode="bilinear")
    return (soft[0].permute(1, 2, 0) * 255).to(torch.uint8).numpy()


def block(pictures: list[np.ndarray], keyframe: bool = False) -> SourceBlock:
    frames = tuple(Frame(rgb, n, 1) for n, rgb in enumerate(pictures))
    return SourceBlock(frames[:4], keyframe, False, frames[4:])


def weights(group: SourceBlock) -> torch.Tensor:
    found = Lookahead(TOKENIZER, CPU).weights(group, 0.007)
    assert found is not None
    return found[0]


def test_what_stays_weighs_more_than_what_changes() -> None:
    still = picture()
    half = [still.copy() for _ in range(4 + LOOKAHEAD_FRAMES)]
    for n in range(4, len(half)):
        half[n][:, 64:] = picture(n)[:, 64:]
    found = weights(block(half))
    assert float(found[:, :4].min()) == pytest.approx(1 + 0.5 * LOOKAHEAD_FRAMES / 4)
    assert float(found[:, 4:].mean()) < 1.4


def test_pictures_pass_on_more_than_predicted_blocks() -> None:
    still = [picture()] * (4 + LOOKAHEAD_FRAMES)
    assert float(weights(block(still, keyframe=True)).min()) > float(weights(block(still)).max())


def test_what_moves_along_stays() -> None:
    glide = [np.roll(picture(side=192), 4 * n, 1) for n in range(12)]
    torn = [picture(n, side=192) for n in range(12)]
    assert float(weights(block(glide))[1:-1, 2:6].mean()) > 1.5 * float(weights(block(torn)).mean())


def test_nothing_is_said_where_nothing_is_ahead() -> None:
    assert Lookahead(TOKENIZER, CPU).weights(block([picture()] * 4), 0.007) is None


def test_frames_seen_before_change_nothing() -> None:
    pictures = [np.roll(picture(), 3 * n, 0) for n in range(20)]
    frames = tuple(Frame(rgb, n, 1) for n, rgb in enumerate(pictures))
    one = Lookahead(TOKENIZER, CPU)
    for first, count in ((0, 1), (1, 4), (1, 2), (3, 4)):
        group = SourceBlock(
            frames[first : first + count], False, False, frames[first + count :][:LOOKAHEAD_FRAMES]
        )
        remembered, fresh = one.weights(group, 0.007), Lookahead(TOKENIZER, CPU).weights(group, 0.007)
        assert remembered is not None
        assert fresh is not None
        assert torch.equal(remembered, fresh)


def test_a_picture_of_any_size_gets_a_weight_for_each_cell() -> None:
    odd = [picture()[:37, :75]] * 9
    assert weights(block(odd)).shape == (3, 5)

"""What screens show, coded from end to end with the shipped weights; and lengths that a segment can hold."""

from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
import torch

import elastictok_cli
from elastictok_cli import Model, TokenVideo
from elastictok_cli.codec import probing, rate_control, scene_encoder
from elastictok_cli.codec.pixels import make_job
from elastictok_cli.models import checkpoint
from elastictok_cli.models.interface import NestedTokenizer

Clip = npt.NDArray[np.uint8]
FRAMES = 8


@pytest.fixture(scope="module")
def model() -> Model:
    return elastictok_cli.load_model()


def text(height: int, width: int) -> Clip:
    """Lines of dark specks on white, (height, width, 3)."""
    ink = (np.random.default_rng(0).random((height, width)) < 0.35) & (np.arange(height)[:, None] % 12 < 8)
    return np.where(ink, 20, 240).astype(np.uint8)[..., None].repeat(3, 2)


def checkerboard() -> Clip:
    """Black and white pixels in turn, (48, 48, 3)."""
    return (np.indices((48, 48)).sum(0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, 2)


def still(picture: Clip) -> Clip:
    return picture[None].repeat(FRAMES, 0)


def noise() -> Clip:
    return np.random.default_rng(1).integers(0, 256, (4, 48, 48, 3), dtype=np.uint8)


def sixteen_colours() -> Clip:
    rng = np.random.default_rng(2)
    return rng.integers(0, 256, (16, 3), dtype=np.uint8)[rng.integers(0, 16, (48, 48))]


def encoded(clip: Clip, model: Model, mse: float) -> TokenVideo:
    """The video, after a look at what a decoder makes of it."""
    video = elastictok_cli.encode(clip, model, mse=mse, fps=25)
    shown = elastictok_cli.decode(video, model)
    assert shown.shape == clip.shape
    errors = np.square((shown.astype(np.float64) - clip) / 127.5).mean((1, 2, 3))
    np.testing.assert_allclose(errors, video.frame_mse, rtol=2e-3, atol=0)  # stored with 9 bits
    first = 0
    for count, missed in zip(video.frames_per_block.tolist(), video.missed.tolist(), strict=True):
        assert missed == (float(errors[first : first + count].mean()) > mse)
        first += count
    return video


@pytest.mark.parametrize("mse", [0.007, 0.001])
@pytest.mark.parametrize(
    "clip",
    [
        noise(),
        still(noise()[0]),
        still(checkerboard()),
        np.stack([checkerboard() if n % 2 else 255 - checkerboard() for n in range(FRAMES)]),
        still(sixteen_colours()),
        still(text(64, 96)),
    ],
    ids=["noise", "still noise", "checkerboard", "flipping checkerboard", "16 colours", "text"],
)
def test_no_block_misses(model: Model, clip: Clip, mse: float) -> None:
    video = encoded(clip, model, mse)
    assert not video.missed.any()
    if np.array_equal(clip[0], clip[-1]):
        assert video.tokens_per_block.tolist()[1:] == [0]
        assert video.keyframes.tolist() == [True, False]


@pytest.mark.parametrize("mse", [0.007, 0.001])
def test_a_flipping_checkerboard_takes_few_tokens_once_it_is_known(model: Model, mse: float) -> None:
    """Each pixel has the other one's colour: motion by a pixel in one cell, as a pan, or a stream of few codes."""
    clip = np.stack([checkerboard() if n % 2 else 255 - checkerboard() for n in range(2 * FRAMES)])
    video = encoded(clip, model, mse)
    assert not video.missed.any()
    first, *rest = video.tokens_per_block.tolist()
    # at half size, where motion is searched, the board is all grey: some vectors are luck
    assert sum(rest) < first / 8


@pytest.mark.parametrize("mse", [0.007, 0.001])
def test_a_page_with_a_cursor_that_blinks_takes_a_few_tokens_a_block(model: Model, mse: float) -> None:
    """A second of it: whatever the networks are, what stands still stays as it was at first, and needs nothing."""
    clip = text(64, 96)[None].repeat(24, 0)
    for n in range(24):
        if n // 6 % 2:
            clip[n, 24:34, 40:43] = 200, 30, 30
    video = encoded(clip, model, mse)
    assert not video.missed.any()
    assert video.keyframes.tolist() == [True] + [False] * (len(video) - 1)
    first, *rest = video.tokens_per_block.tolist()
    assert max(rest) <= 24
    assert sum(rest) < first / 10
    shown = elastictok_cli.decode(video, model)
    still_cells = np.ones((64, 96), bool)
    still_cells[16:48, 32:48] = False
    assert (shown[:, still_cells] == shown[0, still_cells]).all()


def test_a_page_that_scrolls_is_not_told_again(model: Model) -> None:
    """By 26 pixels a frame, which no vector of the table says. Seven eighths of the page are new after eight frames."""
    tall, step, height = text(500, 48), 26, 256
    clip = np.stack([tall[step * max(0, n - 3) :][:height] for n in range(12)])
    video = encoded(clip, model, 0.003)
    assert not video.missed.any()
    assert video.keyframes.tolist() == [True] + [False] * (len(video) - 1)
    assert (np.concatenate([block.tokens for block in video]) == 65_527).any()
    first, *rest = video.tokens_per_block.tolist()
    assert sum(rest) < 2 * first


def cap(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """So many tokens are the most of a segment."""
    for module in (probing, scene_encoder):
        monkeypatch.setattr(module, "max_segment_tokens", lambda vector: most)


def test_lengths_are_such_that_a_block_fits_into_a_segment(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = cast(NestedTokenizer, checkpoint.load().tokenizer)
    job = make_job(noise(), tokenizer, torch.device("cpu"))

    def longest(**more: Any) -> int:
        drafted = rate_control.draft(tokenizer, job, None, 0.001, **more)
        return int(drafted.encoding.length.max())

    free = longest()
    assert free > 200
    cap(monkeypatch, 9 * free + 8)  # nine cells
    assert longest() == free
    cap(monkeypatch, 9 * 50 + 8)
    assert longest() == 50
    assert longest(allocation="block") <= 50
    assert int(rate_control.fixed_length(tokenizer, job, None, 4000).keep.max()) <= 50
    drafted = rate_control.draft(tokenizer, job, None, 0.001)
    assert not drafted.reaches
    coded = rate_control.meet_target(tokenizer, drafted, 0.001)
    assert coded.missed
    assert coded.keep.tolist() == [[[50] * 3] * 3]


def test_a_file_of_capped_segments_is_whole(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """More tokens than a segment holds are left out, and the blocks named; every segment keeps to its limit."""
    most = 9 * 60 + 5
    cap(monkeypatch, most)
    clip = np.concatenate([noise(), still(sixteen_colours())])
    video = encoded(clip, model, 0.001)
    assert video.missed.any()
    for segment in video.segments():
        assert sum(block.token_count for block in segment.blocks) <= most

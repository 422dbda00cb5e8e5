"""Cuts: where a picture is replaced, and not where text scrolls or grows, which changes as many pixels."""

from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest

from elastictok_cli.codec import scenes
from elastictok_cli.codec.pixels import shrunk_luma
from elastictok_cli.video.records import Frame

Picture = npt.NDArray[np.uint8]
HEIGHT, WIDTH = 360, 480


def page(seed: int, height: int = HEIGHT, width: int = WIDTH, *, line: int = 12) -> Picture:
    """Paragraphs of words of dark specks on white, with a grey picture here and there, (height, width, 3)."""
    rng = np.random.default_rng(seed)
    out = np.full((height, width), 240, np.uint8)
    y = 6
    while y + line < height:
        x = 8
        while x < width - 10 and rng.random() > 0.15:
            word = rng.random((line - 4, min(int(rng.integers(10, 60)), width - 10 - x))) < 0.4
            out[y : y + line - 4, x : x + word.shape[1]][word] = 20
            x += word.shape[1] + 6
        y += line if rng.random() < 0.85 else 2 * line
        if rng.random() < 0.06:
            tall = int(rng.integers(24, 64))
            out[y : y + tall, 20 : width // 2] = rng.integers(40, 200)
            y += tall
    return out[..., None].repeat(3, 2)


def natural(seed: int, height: int = HEIGHT, width: int = WIDTH) -> Picture:
    """Noise with the spectrum of a photograph."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None] * height, np.fft.rfftfreq(width) * width)
    frequency[0, 0] = np.inf
    shape = frequency.shape
    spectrum = (rng.normal(size=shape) + 1j * rng.normal(size=shape)) / frequency**1.2
    values = np.fft.irfft2(spectrum, (height, width))
    values = (values - values.min()) / (values.max() - values.min())
    return (255 * values).astype(np.uint8)[..., None].repeat(3, 2)


def flat(level: int, height: int = HEIGHT, width: int = WIDTH) -> Picture:
    return np.full((height, width, 3), level, np.uint8)


def zoomed(picture: Picture, factor: float) -> Picture:
    """About the middle, by the nearest pixel."""
    places = [
        ((np.arange(side) - side / 2) / factor + side / 2).astype(int).clip(0, side - 1)
        for side in picture.shape[:2]
    ]
    return picture[places[0]][:, places[1]]


def cuts(pictures: list[Picture]) -> list[int]:
    """Where scenes start at a cut, in frames."""
    frames = [Frame(picture, n, 1) for n, picture in enumerate(pictures)]
    found = []
    for scene in scenes.split_scenes(frames, None):
        first = next(iter(scene.frames)).pts
        assert scene.starts_at_cut == (first > 0)
        if scene.starts_at_cut:
            found.append(first)
    return found


def change(before: Picture, after: Picture) -> float:
    """What the first two conditions of a cut look at."""
    return float(np.abs(scenes.thumbnail(before, 64) - scenes.thumbnail(after, 64)).mean())


@pytest.mark.parametrize(
    ("step", "height", "width", "seed"),
    [(37, 360, 480, 0), (26, 360, 480, 0), (37, 720, 1280, 3), (5, 48, 64, 0)],
)
def test_a_page_that_begins_to_scroll_is_no_cut(step: int, height: int, width: int, seed: int) -> None:
    tall = page(seed, height + 5 * step, width)
    still = [tall[:height]] * 3
    moving = [tall[step * n : step * n + height] for n in range(1, 5)]
    assert change(still[-1], moving[0]) > scenes.MIN_CHANGE_OF_CUT  # motion alone explains it
    assert cuts([*still, *moving]) == []
    assert cuts([np.ascontiguousarray(f.swapaxes(0, 1)) for f in (*still, *moving)]) == []


def test_a_page_that_zooms_is_no_cut() -> None:
    first = page(1)
    pictures = [first, first, *(zoomed(first, 1.04**n) for n in range(1, 6))]
    assert change(pictures[1], pictures[2]) > scenes.MIN_CHANGE_OF_CUT
    assert cuts(pictures) == []


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("line", [12, 17])
def test_another_page_is_a_cut(seed: int, line: int) -> None:
    """Also one with lines at the same places."""
    first, second = page(seed), page(seed + 10, line=line)
    assert cuts([first, first, second, second]) == [2]
    assert cuts([second, first]) == [1]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (flat(0), flat(255)),
        (flat(255), flat(0)),
        (flat(60), flat(90)),
        (flat(0), page(0)),
        (page(0), flat(255)),
        (natural(0), natural(10)),
        (natural(1), natural(11)),
        (natural(2), page(2)),
        (page(3), natural(3)),
        (flat(0, 8, 8), flat(255, 8, 8)),
        (flat(0, 2, 2), flat(255, 2, 2)),
        (natural(4, 48, 48), natural(15, 48, 48)),
    ],
)
def test_what_was_a_cut_before_motion_was_looked_at_still_is_one(before: Picture, after: Picture) -> None:
    assert change(before, after) > scenes.MIN_CHANGE_OF_CUT
    assert cuts([before, before, after, after]) == [2]


def test_flicker_is_one_cut_at_most_and_a_cut_between_scrolls_is_found() -> None:
    tall, other = page(5, 1000), page(6, 1000)
    first = [tall[37 * n : 37 * n + HEIGHT] for n in range(4)]
    second = [other[37 * n : 37 * n + HEIGHT] for n in range(4)]
    assert cuts([first[0], first[0], second[0], *second]) == [2]
    assert scenes.share_left_by_motion(first[0], first[1]) < 0.3
    assert scenes.share_left_by_motion(first[3], second[0]) > 0.7


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("step", [0, 1, 2, 3, 6, 10, -26, 30, 37, -47, 48])
def test_scrolls_by_any_number_of_pixels_within_reach_leave_little(step: int, axis: int) -> None:
    """Also of specks of a pixel, which look like others once shrunk from half a shrunk pixel farther on."""
    rng = np.random.default_rng(1)
    specks = np.where(rng.random((500, 500)) < 0.3, 20, 240).astype(np.uint8)[..., None].repeat(3, 2)
    for picture in (page(7, 500, 500), specks):
        large = picture if axis == 0 else np.ascontiguousarray(picture.swapaxes(0, 1))
        at = (60 - step, 60) if axis == 0 else (60, 60 - step)
        before, after = (large[y : y + HEIGHT, x : x + HEIGHT] for y, x in ((60, 60), at))
        left = scenes.share_left_by_motion(before, after)
        assert left == 0 if step == 0 else 0 <= left < 0.3
        if picture is specks:
            assert scenes.share_left_by_motion(before, specks[::-1][:HEIGHT, :HEIGHT]) > 1


@pytest.mark.parametrize(("down", "right"), [(-48, 44), (8, -20), (12, 4)])
def test_shifts_both_ways_leave_little_where_they_are_whole_once_shrunk(down: int, right: int) -> None:
    large = page(7, 700, 800)
    before = large[150 : 150 + HEIGHT, 150 : 150 + WIDTH]
    after = large[150 - down : 150 - down + HEIGHT, 150 - right : 150 - right + WIDTH]
    assert scenes.share_left_by_motion(before, after) < 0.3


def test_shifts_out_of_reach_leave_as_much_as_another_page() -> None:
    large = page(8, 900, 480)
    assert scenes.share_left_by_motion(large[:HEIGHT], large[90 : 90 + HEIGHT]) > scenes.MAX_SHARE_OF_MOTION
    assert scenes.share_left_by_motion(large[:HEIGHT], page(9)) > scenes.MAX_SHARE_OF_MOTION


def test_motion_is_compared_to_what_a_plain_search_finds() -> None:
    """Block by block, with loops."""
    before, after = natural(5, 150, 220), natural(6, 150, 220)
    after[:90] = before[24:114]
    old, new = (shrunk_luma(x, scenes.MATCHED_SHRINK).astype(np.float64) for x in (before, after))
    reach, side = scenes.MATCHED_REACH, scenes.MATCHED_BLOCK
    padded = np.pad(old, reach, mode="edge")
    left = variance = 0.0
    for top in range(0, new.shape[0], side):
        for start in range(0, new.shape[1], side):
            block = new[top : top + side, start : start + side]
            high, wide = block.shape
            left += min(
                float(np.square(padded[top + y : top + y + high, start + x : start + x + wide] - block).sum())
                for y in range(2 * reach + 1)
                for x in range(2 * reach + 1)
            )
            variance += float(np.square(block - block.mean()).sum())
    assert scenes.share_left_by_motion(before, after) == pytest.approx(left / variance, rel=1e-3)


def test_the_interval_goes_on_from_cuts() -> None:
    pictures = [page(0)] * 3 + [page(1)] * 6
    frames = [Frame(picture, n, 1) for n, picture in enumerate(pictures)]
    found = [(next(iter(s.frames)).pts, s.starts_at_cut) for s in scenes.split_scenes(frames, Fraction(4))]
    assert found == [(0, False), (3, True), (7, False)]

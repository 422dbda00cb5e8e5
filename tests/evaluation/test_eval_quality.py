import math

import numpy as np
import pytest

from elastictok_cli.evaluation.pairs import NotTheSource, align
from elastictok_cli.evaluation.quality import Means, Quality, measure
from elastictok_cli.video import Frame


def _pictures(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    smooth = np.add.outer(np.arange(height), np.arange(width))[..., None] * np.array([1, 2, 3]) % 200
    source = smooth.astype(np.uint8)
    noise = rng.normal(0, 12, source.shape)
    return source, np.clip(source + noise, 0, 255).astype(np.uint8)


def _gauss() -> np.ndarray:
    line = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    line /= line.sum()
    return np.outer(line, line)


def _by_hand(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """SSIM and its contrast-structure part of each channel, by the formula, window by window, in double precision."""
    views = [np.lib.stride_tricks.sliding_window_view(p.astype(np.float64), (11, 11), (0, 1)) for p in (x, y)]
    weights = _gauss()

    def mean(values: np.ndarray) -> np.ndarray:
        return np.einsum("ijcab,ab->ijc", values, weights)

    a, b = views
    ma, mb = mean(a), mean(b)
    va, vb, cov = mean(a * a) - ma**2, mean(b * b) - mb**2, mean(a * b) - ma * mb
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    cs = (2 * cov + c2) / (va + vb + c2)
    return ((2 * ma * mb + c1) / (ma**2 + mb**2 + c1) * cs).mean((0, 1)), cs.mean((0, 1))


def test_mse_psnr_and_ssim_are_those_of_the_formulas() -> None:
    source, shown = _pictures(20, 32)
    quality = measure(source, shown)
    mse = ((source / 127.5 - shown / 127.5) ** 2).mean()
    assert quality.mse == pytest.approx(mse, rel=1e-12)
    assert quality.psnr == pytest.approx(10 * math.log10(4 / mse), abs=1e-9)
    assert quality.ssim == pytest.approx(_by_hand(source, shown)[0].mean(), abs=1e-5)
    assert math.isnan(quality.ms_ssim)


def test_ms_ssim_is_that_of_the_formula() -> None:
    source, shown = _pictures(176, 192)
    x, y = source.astype(np.float64), shown.astype(np.float64)
    product = np.ones(3)
    weights = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
    for level, weight in enumerate(weights):
        ssim, cs = _by_hand(x, y)
        product *= (ssim if level == 4 else cs) ** weight
        x, y = (
            p.reshape(p.shape[0] // 2, 2, p.shape[1] // 2, 2, 3).mean((1, 3)) if level < 4 else p
            for p in (x, y)
        )
    assert measure(source, shown).ms_ssim == pytest.approx(product.mean(), abs=1e-4)


def test_a_perfect_copy() -> None:
    source, _ = _pictures(161, 161)
    quality = measure(source, source.copy())
    assert quality.mse == 0
    assert quality.psnr == math.inf
    assert quality.ssim == pytest.approx(1)
    assert quality.ms_ssim == pytest.approx(1)


def test_what_cannot_be_measured_is_nan_and_sizes_must_agree() -> None:
    source, shown = _pictures(10, 300)
    assert math.isnan(measure(source, shown).ssim)
    assert math.isnan(measure(*_pictures(64, 64), structure=False).ssim)
    with pytest.raises(ValueError, match="cannot be compared"):
        measure(source, shown[:, 1:])


def test_black_against_white_is_the_largest_error() -> None:
    black, white = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)
    assert measure(black, white, structure=False).mse == measure(white, black, structure=False).mse == 4


def test_the_mean_psnr_is_that_of_the_mean_error() -> None:
    means = Means()
    assert math.isnan(means.means().mse)
    means.add(Quality(0.001, 36.0, 0.9, 1.0))
    means.add(Quality(0.003, 31.2, 0.7, 0.8))
    assert means.means() == pytest.approx(Quality(0.002, 10 * math.log10(2000), 0.8, 0.9))


def _frames(*times: int) -> list[Frame]:
    return [Frame(np.zeros((1, 1, 3), np.uint8), pts, 0) for pts in times]


def _aligned(source: list[Frame], *streams: list[Frame], shift: int = 0) -> list[list[int | None]]:
    pairs = align(source, [iter(stream) for stream in streams], shift=shift)
    return [[f.pts, *(None if s is None else s.pts for s in shown)] for f, shown in pairs]


def test_frames_meet_by_time() -> None:
    assert _aligned(_frames(0, 3, 7), _frames(0, 3, 7)) == [[0, 0], [3, 3], [7, 7]]
    assert _aligned(_frames(0, 3), _frames(10, 13), shift=10) == [[0, 10], [3, 13]]


def test_a_lost_frame_leaves_a_gap_and_the_longest_file_decides_the_end() -> None:
    assert _aligned(_frames(0, 1, 2, 3, 4), _frames(0, 2), _frames(1, 2, 3)) == [
        [0, 0, None],
        [1, None, 1],
        [2, 2, 2],
        [3, None, 3],
    ]


def test_a_lost_end_is_shown_where_it_is_known() -> None:
    pairs = list(align(_frames(0, 1, 2, 3, 4), [iter(_frames(0, 1))], last=3))
    assert [(frame.pts, shown[0] is None) for frame, shown in pairs] == [
        (0, False),
        (1, False),
        (2, True),
        (3, True),
    ]


@pytest.mark.parametrize("other", [(0, 2), (0, 1, 9)])
def test_a_frame_that_the_source_lacks_is_refused(other: tuple[int, ...]) -> None:
    with pytest.raises(NotTheSource):
        _aligned(_frames(0, 1, 3), _frames(*other))

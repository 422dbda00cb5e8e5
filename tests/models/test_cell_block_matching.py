import pytest
import torch
import torch.nn.functional as F

from elastictok_cli.models.cell.motion import block_matching
from elastictok_cli.models.cell.motion.compensation import warp
from elastictok_cli.models.cell.motion.luma import Luma
from elastictok_cli.models.cell.motion.vectors import VECTORS, index_to_vector, vector_to_index
from elastictok_cli.models.cell.selection import Selection


def search(
    last: torch.Tensor, frames: torch.Tensor, inherited: torch.Tensor, price: float = 0.0
) -> torch.Tensor:
    """The motion vectors that are found for all cells."""
    grid = (inherited.shape[2], inherited.shape[3])
    half = Luma.of(last, frames).half()
    cells = Selection.everywhere(len(last), grid, last.device)
    return block_matching.search(half, inherited, block_matching.coarse_search(half, grid), cells, price)


def texture(height: int, width: int) -> torch.Tensor:
    noise = torch.randn(1, 3, height // 4, width // 4, generator=torch.Generator().manual_seed(3))
    return F.interpolate(noise, (height, width), mode="bicubic").clamp(-1, 1)


def test_every_vector_has_a_number() -> None:
    index = torch.arange(VECTORS).view(1, 39, 39)
    vectors = index_to_vector(index)
    assert torch.equal(vector_to_index(vectors), index)
    assert vectors.abs().max() == 24


def test_warp_moves_a_picture_by_whole_pixels_exactly() -> None:
    picture = texture(32, 48)
    vectors = torch.tensor([2.0, -3.0]).view(1, 2, 1, 1).expand(1, 2, 2, 3)
    moved = warp(picture, vectors, torch.tensor([1, 2]))
    assert moved.shape == (1, 2, 3, 32, 48)
    for n, t in enumerate((1, 2)):
        wanted = picture.roll((2 * t, -3 * t), (2, 3))
        inner = (slice(None), slice(None), slice(8, -8), slice(8, -8))
        torch.testing.assert_close(moved[:, n][inner], wanted[inner], atol=1e-4, rtol=0)


@pytest.mark.parametrize(("vy", "vx"), [(0, 0), (1, -2), (6, 4), (-10, 0.5), (0.25, 17)])
@pytest.mark.parametrize("count", [1, 4])
def test_search_finds_a_known_vector(vy: float, vx: float, count: int) -> None:
    wide = texture(256, 256)
    vectors = torch.tensor([vy, vx]).view(1, 2, 1, 1).expand(1, 2, 16, 16)
    frames = warp(wide, vectors, torch.arange(1, count + 1))
    found = search(wide, frames, torch.zeros(1, 2, 16, 16))
    inner = found[:, :, 6:-6, 6:-6]
    wanted = vectors[:, :, 6:-6, 6:-6]
    assert (inner - wanted).abs().amax(1).le(0.5).float().mean() > 0.9


def test_flat_pictures_stay_still() -> None:
    flat = torch.full((1, 3, 64, 64), 0.3)
    assert not search(flat, flat[:, None].expand(1, 4, 3, 64, 64), torch.zeros(1, 2, 4, 4)).any()


def test_a_price_makes_vectors_alike_and_only_that() -> None:
    last = texture(128, 128)
    noise = torch.randn(1, 4, 3, 128, 128, generator=torch.Generator().manual_seed(4))
    frames = warp(last, torch.full((1, 2, 8, 8), 2.0), torch.arange(1, 5)) * 0.1 + 0.2 * noise
    still = torch.zeros(1, 2, 8, 8)

    def roughness(price: float) -> float:
        found = search(last * 0.1, frames, still, price)
        return float(found.diff(dim=2).ne(0).sum() + found.diff(dim=3).ne(0).sum())

    assert roughness(1e-3) < 0.7 * roughness(0.0)

    # a cell that moves unlike its neighbours keeps its vector where that is worth it
    vectors = still.clone()
    vectors[:, :, 3:5, 3:5] = 3.0
    alone = warp(last, vectors, torch.arange(1, 5))
    for price in (0.0, 1e-5):
        assert search(last, alone, still, price)[0, :, 3, 3].tolist() == [3.0, 3.0]

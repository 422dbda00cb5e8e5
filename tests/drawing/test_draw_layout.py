import numpy as np
import pytest

from elastictok_cli.drawing import heat, text
from elastictok_cli.drawing.board import amplified, scaled
from elastictok_cli.drawing.layout import Layout, Rect, arrange


def _all(layout: Layout) -> list[Rect]:
    others = [rect for rect in (layout.legend, layout.chart) if rect is not None]
    return [*layout.pictures, *layout.differences, *layout.captions, *others]


@pytest.mark.parametrize(
    "size", [(1, 1), (64, 48), (256, 256), (288, 512), (641, 361), (1920, 1080), (4096, 300)]
)
@pytest.mark.parametrize("files", [1, 2, 4])
@pytest.mark.parametrize("difference", [False, True])
@pytest.mark.parametrize("most_width", [640, 1920])
def test_nothing_overlaps_and_all_is_inside(
    size: tuple[int, int], files: int, difference: bool, most_width: int
) -> None:
    layout = arrange(size, files, difference=difference, legend=True, most_width=most_width)
    assert layout.width % 2 == layout.height % 2 == 0
    assert layout.width <= most_width
    assert len(layout.pictures) == 1 + files
    assert len(layout.differences) == (files if difference else 0)
    taken = np.zeros((layout.height, layout.width), np.uint8)
    for rect in _all(layout):
        assert rect.left >= 0
        assert rect.top >= 0
        area = taken[rect.slices]
        assert area.shape == (rect.height, rect.width)
        area += 1
    assert taken.max() == 1
    assert len({(rect.width, rect.height) for rect in (*layout.pictures, *layout.differences)}) == 1


def test_pictures_keep_their_shape() -> None:
    for size in [(64, 48), (256, 256), (1920, 1080), (288, 512)]:
        picture = arrange(size, 2).pictures[0]
        assert picture.width / picture.height == pytest.approx(size[0] / size[1], rel=0.01)
    wide = arrange((720, 576), 1, aspect=64 / 45).pictures[0]
    assert wide.width / wide.height == pytest.approx(16 / 9, rel=0.01)


def test_small_pictures_grow_by_whole_numbers_and_pixels_stay_squares() -> None:
    assert (arrange((64, 48), 1).pictures[0].width, arrange((256, 256), 1).pictures[0].width) == (512, 512)
    assert arrange((640, 480), 1).pictures[0].width == 640
    picture = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert np.array_equal(scaled(picture, 12, 6)[::3, ::3], picture)
    assert np.array_equal(scaled(picture, 12, 6)[2::3, 2::3], picture)
    assert scaled(picture, 3, 1).shape == (1, 3, 3)


def test_differences_are_amplified_around_grey() -> None:
    original = np.full((1, 3, 3), 100, np.uint8)
    shown = np.array([[[100] * 3, [110] * 3, [0] * 3]], np.uint8)
    assert amplified(original, shown, 4)[0, :, 0].tolist() == [128, 168, 0]


def test_cells_are_tinted_by_their_tokens() -> None:
    picture = np.full((40, 24, 3), (200, 100, 50), np.uint8)
    keep = np.array([[0, 1], [4, 58], [0, 58]])
    tinted = heat.overlay(picture, keep, 58, (16, 16))
    grey = round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)
    assert (tinted[:16, :16] == grey).all()
    assert (tinted[32:, :16] == grey).all()
    for row, column in ((0, 1), (1, 0), (1, 1)):
        cell = tinted[row * 16 : row * 16 + 16, column * 16 : column * 16 + 16]
        inside = cell[1:7, 1:7]
        assert (inside == inside[0, 0]).all()
        assert (inside[0, 0] != grey).any()
        # the outline is nearer to the colour of the legend
        color = heat.colors(heat.shares(keep[row, column], 58)).astype(int)
        assert np.abs(cell[0, :7] - color).max() < np.abs(inside[0, 0] - color).max()
        assert (cell[0, :7] == cell[0, 0]).all()
        assert (cell[:7, 0] == cell[0, 0]).all()
    assert np.array_equal(tinted[17, 17], tinted[38, 22])
    brightness = [int(heat.colors(heat.shares(count, 58)).sum()) for count in (1, 2, 4, 8, 16, 32, 58)]
    assert brightness == sorted(brightness)
    assert len(set(brightness)) == len(brightness)
    assert heat.ticks(58) == [1, 4, 16, 58]
    assert heat.ticks(1) == [1]


@pytest.mark.parametrize("tokens", [1, 8, 58])
def test_the_picture_can_be_seen_under_its_keep_map(tokens: int) -> None:
    """At least half of its contrast is left inside every cell, however many tokens it has."""
    stripes = np.zeros((16, 16, 3), np.uint8)
    stripes[:, 4:8] = 200
    tinted = heat.overlay(stripes, np.full((1, 1), tokens), 58, (16, 16)).astype(int)
    assert (tinted[8, 5] - tinted[8, 2] >= 100).all()


def test_small_cells_have_no_outlines() -> None:
    tinted = heat.overlay(np.full((4, 4, 3), 90, np.uint8), np.full((1, 1), 3), 58, (4, 4))
    assert (tinted == tinted[0, 0]).all()


def test_text_is_cut_to_its_room() -> None:
    assert text.fitted("short", 12, 200) == "short"
    cut = text.fitted("a name that is much too long for its column", 12, 120)
    assert cut.endswith("…")
    assert text.width_of(cut, 12) <= 120
    canvas = np.full((20, 60, 3), 255, np.uint8)
    text.write(canvas, "wide enough to be cut off", 30, 2, 12)
    assert (canvas[:, :30] == 255).all()
    assert (canvas[:, 30:] < 128).any()
    text.write(canvas, "outside", 10, 50, 12)

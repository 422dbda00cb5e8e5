import torch

from elastictok_cli.models.cell.selection import Selection


def some() -> Selection:
    """Of two pictures of 3 x 4 cells: three cells of one, one of the other."""
    where = torch.zeros(2, 3, 4, dtype=torch.bool)
    where[0, 0, 1] = where[0, 2, 0] = where[0, 2, 3] = where[1, 1, 2] = True
    return Selection(where)


def test_a_row_of_cells_goes_back_where_it_came_from() -> None:
    cells, grid = some(), torch.arange(2 * 5 * 3 * 4).view(2, 5, 3, 4)
    assert cells.take(grid).shape == (1, 5, 1, cells.count) == (1, 5, 1, 4)
    assert cells.take(grid)[0, 0, 0].tolist() == [1, 8, 11, 66]
    assert torch.equal(cells.put(grid, cells.take(grid)), grid)
    changed = cells.put(grid, -1 - cells.take(grid))
    assert torch.equal(changed < 0, cells.where.unsqueeze(1).expand_as(grid))


def test_cells_of_each_picture_are_filled_up_and_padding_is_not_written() -> None:
    cells, grid = some(), torch.rand(2, 5, 3, 4)
    assert cells.most == 3
    before = grid.clone()
    cells.write_each(grid, torch.full((2, 3, 5), 7.0))
    assert torch.equal(grid == 7, cells.where.unsqueeze(1).expand_as(grid))
    assert torch.equal(grid[grid != 7], before[grid != 7])
    assert torch.equal(cells.take_each(grid)[0], torch.full((3, 5), 7.0))


def test_pixels_of_cells() -> None:
    cells, frames = some(), torch.rand(2, 4, 3, 24, 32)
    pixels = cells.take_pixels(frames, 8)
    assert torch.equal(pixels[0, 1], frames[0, :, :, 16:24, 0:8])
    cells.write_pixels(frames, torch.full_like(pixels, 2.0))
    wide = cells.where.repeat_interleave(8, 1).repeat_interleave(8, 2)
    assert torch.equal(frames == 2, wide[:, None, None].expand_as(frames))


def test_one_picture_and_all_cells() -> None:
    cells, grid = Selection.everywhere(1, (2, 3), torch.device("cpu")), torch.rand(1, 4, 2, 3)
    assert torch.equal(cells.take(grid)[0, :, 0], grid.flatten(2)[0])
    assert torch.equal(cells.take_each(grid)[0].t(), grid.flatten(2)[0])
    assert cells.each.padding is None
    assert not Selection(torch.zeros(1, 2, 3, dtype=torch.bool)).count

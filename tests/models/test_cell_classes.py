import torch

from elastictok_cli.models.cell import classes
from elastictok_cli.models.cell.config import CLASS_DIGITS, KEY, DefaultConfig
from elastictok_cli.models.cell.networks import DefaultModel

LEVELS = torch.tensor((8, 8, 8, 5, 5, 5))


def orders(count: int = 3, tokens: int = 6) -> classes.Orders:
    """Class c begins with the coefficients from 6 c on; later tokens go on from there, around the end."""
    first = 6 * torch.arange(count).view(-1, 1, 1)
    index = (first + torch.arange(6 * tokens).view(1, tokens, 6)) % 36
    return classes.Orders(
        index, torch.full((count, tokens, 6), 0.5), torch.ones(tokens, 6), LEVELS, (1, 1, 2, 2)
    )


def by_hand(table: classes.Orders, cell: torch.Tensor, goal: float, number: int) -> int:
    """Tokens until the error is at most `goal`, one after the other."""
    left = cell.clone()
    for token in range(table.coefficient.shape[1]):
        if float(left.square().sum()) <= goal:
            return token
        for digit, where in enumerate(table.coefficient[number, token].tolist()):
            step, levels = float(table.step[number, token, digit]), int(LEVELS[digit])
            code = (left[where] / step).round().clamp(-(levels // 2), (levels - 1) // 2)
            left[where] -= code * step
    return table.coefficient.shape[1]


def test_a_cell_gets_the_class_that_begins_where_its_energy_is() -> None:
    cells = torch.zeros(3, 36)
    for n in range(3):
        cells[n, 6 * n : 6 * n + 6] = torch.tensor([1.5, -1.0, 0.9, 0.6, -0.7, 1.0])
    energy = cells.square().sum(1)
    cost = classes.costs(orders(), cells, energy, torch.full((3, 1), 0.2))
    assert cost.argmin(1).tolist() == [0, 1, 2]


def test_costs_agree_with_counting_tokens() -> None:
    generator = torch.Generator().manual_seed(0)
    cells = torch.randn(40, 36, generator=generator) * torch.linspace(1.2, 0.2, 36)
    goal = 2.0
    table = orders()._replace(stages=(1,) * 6)
    cost = classes.costs(table, cells, cells.square().sum(1), torch.full((40, 1), goal))
    for n in range(40):
        for number in range(3):
            count = by_hand(table, cells[n], goal, number)
            if count < 6:  # the last token counts in part
                assert count - 1 <= float(cost[n, number]) <= count + 1e-3


def test_a_shortlist_keeps_the_best_classes_of_hard_cells() -> None:
    generator = torch.Generator().manual_seed(1)
    table = orders(tokens=12)._replace(stages=(1, 1, 2, 4, 4))
    cells = torch.randn(30, 36, generator=generator)
    energy, goals = cells.square().sum(1), torch.full((30, 2), 0.5)
    whole = classes.costs(table, cells, energy, goals)
    short = classes.costs(table, cells, energy, goals, shortlist=2)
    finite = torch.isfinite(short)
    assert torch.equal(finite.sum(1) >= 2, torch.ones(30, dtype=torch.bool))
    torch.testing.assert_close(short[finite], whole[finite])


def test_no_cell_is_no_trouble() -> None:
    assert classes.costs(orders(), torch.zeros(0, 36), torch.zeros(0), torch.zeros(0, 1)).shape == (0, 3)


def test_the_first_token_names_the_class() -> None:
    torch.manual_seed(0)
    model = DefaultModel(DefaultConfig(width=16, coefficients=12, stages=(1, 1)))
    model.quantizer.index[:] = torch.arange(12).view(2, 6)
    cell_class = torch.arange(model.config.classes).view(1, 5, 8)
    prior = torch.zeros(1, model.config.prior_width, 5, 8)
    wanted = torch.randn(1, 12, 5, 8)
    coded = model.quantizer(prior, KEY, cell_class, target=wanted)
    assert torch.equal(model.quantizer.read_class(coded.digits), cell_class)
    again = model.quantizer(prior, KEY, cell_class, digits=coded.digits)
    torch.testing.assert_close(again.changes, coded.changes)
    assert not coded.changes[:, 0, list(CLASS_DIGITS)].any()

"""Mode decision of a cell: KLT, DCT or a palette, by the cost error + lambda * tokens."""

from __future__ import annotations

from typing import NamedTuple

import torch

from elastictok_cli.models.cell.screen import dct, palette, palette_search
from elastictok_cli.models.cell.screen.outlook import Outlook, look_out
from elastictok_cli.models.cell.screen.palette_search import Cells, Palettes
from elastictok_cli.models.cell.selection import Selection
from elastictok_cli.models.cell.token_layout import DCT_MODE, FIRST_PALETTE_MODE, MAX_SCREEN_CODES

_CELLS_AT_ONCE = 1024  # bounds memory at any picture size
_MIN_TOKENS = 8.0  # cost, in tokens, from which on a cell without a mode tries the others
_KLT_FLOOR = 0.5  # times the goal: a cell tries the others too if all its FSQ codes leave a larger error
_STREAM_FLOOR = 0.15  # times the goal: the error at which a DCT stream ends
_USUAL_PRICE = 0.3  # times the goal of a cell: a token's price, while it is unknown
# Times the expected lambda: where modes are looked for, as a picture that misses the target ends with a lower one.
_LOOKED_AT = (1.0, 1 / 5, 1 / 25, 1 / 125)
_PRICES = (1e-4, 4.0)  # times the goal: between them lambda is searched
_SPLITS, _PARTS = 6, 4  # so often the range is split into so many parts: to 0.3 %
# What a mode has to save of the cost without one, as no network will touch the cell, in this block and those after.
_MAX_SHARE, _MIN_TOKENS_SAVED = 0.75, 8.0
_MODE_TOKENS = 1  # that name a mode


class NaturalCosts(NamedTuple):
    """What FSQ codes can do for the cells of a block."""

    curve: torch.Tensor  # (B, R + 1, h, w) squared error after k codes
    length: torch.Tensor  # (B, h, w) int64 codes there are


class Modes(NamedTuple):
    """The n cells that get a screen mode."""

    cells: Selection
    mode: torch.Tensor  # (n,) int64
    codes: torch.Tensor  # (n, k) int64, -1 where a cell has no more
    error: torch.Tensor  # (n, k) float32 squared error left after each code
    length: torch.Tensor  # (n,) int64 codes of each


def choose(
    frames: torch.Tensor,
    reference: torch.Tensor,
    natural: NaturalCosts,
    *,
    count: int,
    goal: float,
    price: float | None,
    possible: torch.Tensor,
    palettes: torch.Tensor,
    wanted: torch.Tensor,
    inter: bool,
) -> Modes | None:
    """The cells for which a screen mode is cheapest, None where there is none.

    frames, reference: (B, 4, 3, H, W), of which `count` are real, and what screen modes start from; goal: squared error
    of a cell at the target; price: lambda that is expected, None if unknown; possible: (B, h, w) bool, cells that may
    have a mode; palettes: of these, cells that may have a palette; wanted: cells that try one whatever FSQ codes
    promise; inter: whether pixels of the reference can be worth a copy.
    """
    guess = price if price is not None else _USUAL_PRICE * goal
    prices = guess * torch.tensor(_LOOKED_AT, device=frames.device)
    plain, left = _natural(natural, prices.unsqueeze(1).expand(-1, len(frames)))
    last = natural.curve.gather(1, natural.length.unsqueeze(1))[:, 0]
    cells = Selection(possible & (wanted | (plain[0] > _MIN_TOKENS * guess) | (last > _KLT_FLOOR * goal)))
    if not cells.count:
        return None
    met = left.mean((2, 3)) <= goal  # (K, B)
    bars = _bar(plain, prices.view(-1, 1, 1, 1))
    # no price is looked at below one at which FSQ codes alone meet the target
    bars[1:].masked_fill_(met.cummax(0).values[:-1, :, None, None], 0)
    cells, own, outlook = _hopeful(cells, frames, reference, prices, bars, palettes, count, goal, inter=inter)
    if not cells.count:
        return None
    parts = zip(*(torch.split(x, _CELLS_AT_ONCE) for x in (*own, *outlook)), strict=True)
    tried = [_try(Cells(x, y, count, goal), Outlook(*may), guess, inter=inter) for x, y, *may in parts]
    streams = dct.Streams(*(_join([t[0][n] for t in tried]) for n in range(3)))
    points = Palettes(*(torch.cat([t[1][n] for t in tried]) for n in range(4)))
    found = _price(natural, cells, streams, points, goal)
    each = found[cells.picture]
    plain = _natural(natural, found)[0][cells.picture, cells.row, cells.column]
    stream_cost, _ = _stream(streams, each)
    palette_cost = points.error + each * (points.codes + _MODE_TOKENS)
    best = torch.minimum(stream_cost, palette_cost)
    chosen = best < _bar(plain, each)
    mode = torch.where(palette_cost < stream_cost, FIRST_PALETTE_MODE + points.place, DCT_MODE)
    return _write(cells, chosen, mode, streams, points, Cells(*own, count, goal), each, natural.curve[:, 0])


def _hopeful(
    cells: Selection,
    frames: torch.Tensor,
    reference: torch.Tensor,
    prices: torch.Tensor,
    bars: torch.Tensor,
    palettes: torch.Tensor,
    count: int,
    goal: float,
    *,
    inter: bool,
) -> tuple[Selection, tuple[torch.Tensor, torch.Tensor], Outlook]:
    """Of some cells, those for which a mode can pay, their pixels and those of the reference, and which mode can.

    prices: (K,) looked at; bars: (K, B, h, w) what a mode has to stay below at each; the others are as in `choose`.
    """
    cell = frames.shape[-1] // cells.where.shape[-1]
    index = (cells.picture, cells.row, cells.column)
    own = cells.take_patches(frames, cell), cells.take_patches(reference, cell)
    parts = zip(
        *(torch.split(x, _CELLS_AT_ONCE) for x in own),
        torch.split(bars[:, *index], _CELLS_AT_ONCE, 1),
        strict=True,
    )
    seen = [look_out(Cells(x, y, count, goal), prices, bar, inter=inter) for x, y, bar in parts]
    outlook = Outlook(*map(torch.cat, zip(*seen, strict=True)))
    outlook = outlook._replace(palette=outlook.palette & palettes[index])
    some = (outlook.stream | outlook.palette).nonzero().squeeze(1)
    where = torch.zeros_like(cells.where)
    where[cells.picture[some], cells.row[some], cells.column[some]] = True
    return Selection(where), (own[0][some], own[1][some]), Outlook(*(x[some] for x in outlook))


def _natural(natural: NaturalCosts, price: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The least cost (..., B, h, w) of each cell with FSQ codes at prices (..., B), and the error that it leaves."""
    number = torch.arange(natural.curve.shape[1], device=price.device).view(-1, 1, 1)
    cost = natural.curve + price[..., None, None, None] * number
    least, where = cost.masked_fill_(number > natural.length.unsqueeze(1), torch.inf).min(-3)
    return least, natural.curve.expand(cost.shape).gather(-3, where.unsqueeze(-3)).squeeze(-3)


def _bar(plain: torch.Tensor, price: torch.Tensor) -> torch.Tensor:
    """The cost (...) that a screen mode has to stay below, where that without one is `plain` (...)."""
    return torch.minimum(_MAX_SHARE * plain, plain - _MIN_TOKENS_SAVED * price)


def _stream(streams: dct.Streams, price: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The least cost (..., n) of DCT streams at prices (..., n), and the error that it leaves."""
    number = torch.arange(1, streams.error.shape[1] + 1, device=price.device)
    cost = streams.error + price.unsqueeze(-1) * (number + _MODE_TOKENS)
    least, where = cost.masked_fill_(number > streams.length[:, None], torch.inf).min(-1)
    return least, streams.error.expand(cost.shape).gather(-1, where.unsqueeze(-1)).squeeze(-1)


def _price(
    natural: NaturalCosts, cells: Selection, streams: dct.Streams, points: Palettes, goal: float
) -> torch.Tensor:
    """The highest price (B,) at which the cheapest modes of all cells leave no more than the target in a picture."""
    batch, _, rows, columns = natural.curve.shape
    allowed = goal * rows * columns
    low, high = (torch.full((batch,), goal * end, device=natural.curve.device) for end in _PRICES)
    number = torch.arange(1, _PARTS, device=low.device).view(-1, 1)
    index = (cells.picture, cells.row, cells.column)
    for _ in range(_SPLITS):
        step = (high / low) ** (1 / _PARTS)
        price = low * step**number  # (_PARTS - 1, B)
        cost, left = _natural(natural, price)
        own = price[:, cells.picture]
        best, error = _bar(cost[:, *index], own), left[:, *index]
        for other, other_error in (
            _stream(streams, own),
            (points.error + own * (points.codes + _MODE_TOKENS), points.error),
        ):
            error = torch.where(other < best, other_error, error)
            best = torch.minimum(other, best)
        left[:, *index] = error
        fits = (left.sum((2, 3)) <= allowed).cumprod(0).sum(0)  # prices of a picture that are low enough
        low, high = low * step**fits, low * step ** (fits + 1)
    return low


def _try(cells: Cells, outlook: Outlook, price: float, *, inter: bool) -> tuple[dct.Streams, Palettes]:
    """The DCT streams and the best palettes of n cells, where each can pay."""
    streams = _streams(cells, outlook.stream.nonzero().squeeze(1))
    cost, _ = _stream(streams, torch.full_like(outlook.stream_cost, price))
    rival = torch.where(outlook.stream, cost, outlook.stream_cost)
    return streams, palette_search.search(cells, outlook.palette, rival, price, inter=inter)


def _streams(cells: Cells, some: torch.Tensor) -> dct.Streams:
    """The DCT streams of n cells; those that are not among some (m,) have none, and endless costs."""
    count, device = len(cells.patches), some.device
    length = torch.zeros(count, dtype=torch.int64, device=device)
    if not len(some):
        none = torch.zeros(count, 1, device=device)
        return dct.Streams(none.long(), none, length)
    residual = cells.patches[some] - cells.reference[some]
    found = dct.encode(residual, _STREAM_FLOOR * cells.goal, MAX_SCREEN_CODES)
    codes, error = (x.new_zeros(count, x.shape[1]) for x in (found.codes, found.error))
    return dct.Streams(
        codes.index_copy_(0, some, found.codes),
        error.index_copy_(0, some, found.error),
        length.index_copy_(0, some, found.length),
    )


def _write(
    cells: Selection,
    chosen: torch.Tensor,
    mode: torch.Tensor,
    streams: dct.Streams,
    points: Palettes,
    own: Cells,
    price: torch.Tensor,
    before: torch.Tensor,
) -> Modes | None:
    """The codes of the chosen (n,) cells in their modes (n,).

    own: their pixels; price: (n,) lambda; before: (B, h, w) error of each cell without any code.
    """
    some = chosen.nonzero().squeeze(1)
    if not len(some):
        return None
    where = torch.zeros_like(cells.where)
    where[cells.picture[some], cells.row[some], cells.column[some]] = True
    before = before[cells.picture, cells.row, cells.column]
    number = torch.arange(streams.codes.shape[1], device=mode.device)
    codes = streams.codes.masked_fill(number >= streams.length[:, None], -1)
    error, length = streams.error, streams.length.clone()
    longest = max(1, int(length[some].max()))
    codes, error = codes[:, :longest], error[:, :longest]
    for place, size in enumerate(palette.SIZES):
        for copies in (False, True):
            which = chosen & (mode == FIRST_PALETTE_MODE + place) & (points.copies == copies)
            for part in torch.split(which.nonzero().squeeze(1), _CELLS_AT_ONCE):
                if len(part):
                    fitted = own.fit(part, size, copies, refine=True)
                    mine, left, length[part] = palette_search.write(fitted, price[part], before[part])
                    codes, mine = _pad_alike(codes, mine, -1)
                    error, left = _pad_alike(error, left, 0.0)
                    codes, error = codes.index_put((part,), mine), error.index_put((part,), left)
    return Modes(Selection(where), mode[some], codes[some], error[some], length[some])


def _pad_alike(one: torch.Tensor, other: torch.Tensor, fill: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Two tables (n, k) and (m, j) filled up to the wider one's width; errors repeat where `fill` is 0."""
    width = max(one.shape[1], other.shape[1])

    def widened(x: torch.Tensor) -> torch.Tensor:
        missing = width - x.shape[1]
        if not missing:
            return x
        more = x[:, -1:].expand(-1, missing) if fill == 0 else x.new_full((len(x), missing), fill)
        return torch.cat([x, more], 1)

    return widened(one), widened(other)


def _join(parts: list[torch.Tensor]) -> torch.Tensor:
    """Tables of several groups of cells as one, (n,) or (n, k) with the last column repeated."""
    if parts[0].ndim == 1:
        return torch.cat(parts)
    width = max(part.shape[1] for part in parts)
    return torch.cat([torch.cat([p, p[:, -1:].expand(-1, width - p.shape[1])], 1) for p in parts])

"""Mode decision of a cell: KLT, DCT or a palette, by the cost error + lambda * tokens."""

from __future__ import annotations

from typing import NamedTuple

import torch

from elastictok_cli.models.cell.screen import dct, palette
from elastictok_cli.models.cell.selection import Selection
from elastictok_cli.models.cell.token_layout import DCT_MODE, FIRST_PALETTE_MODE, MAX_SCREEN_CODES

_CELLS_AT_ONCE = 1024  # bounds memory at any picture size
_MIN_TOKENS = 8.0  # cost, in tokens, from which on a cell without a mode tries the others
_KLT_FLOOR = 0.5  # times the goal: a cell tries the others too if all its FSQ codes leave a larger error
_STREAM_FLOOR = 0.15  # times the goal: the error at which a DCT stream ends
_USUAL_PRICE = 0.3  # times the goal of a cell: a token's price, while it is unknown
_PRICES = (1e-4, 4.0)  # times the goal: between them lambda is searched
_BISECTIONS = 14
# What a mode has to save of the cost without one, as no network will touch the cell, in this block and those after.
_MAX_SHARE, _MIN_TOKENS_SAVED = 0.9, 5.0
_MODE_TOKENS = 1  # that name a mode
_FIRST_SIZES, _SIZE_BETWEEN = (8, 4, 2), {(8, 4): 6, (4, 2): 3}
_COPY_SIZES = (1, 2, 4)
_MAX_PALETTE_ERROR = 3.0  # times the goal: where eight colours leave more, no palette is tried
_COPY_BIAS = 0.1  # times the goal of a pixel: error that a copied pixel may have more


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


class _Points(NamedTuple):
    """The best palette of each of n cells."""

    error: torch.Tensor  # (n,) squared error; infinite where no palette will do
    codes: torch.Tensor  # (n,) how many it needs
    place: torch.Tensor  # (n,) int64 in palette.SIZES
    copies: torch.Tensor  # (n,) bool


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
    cell = frames.shape[-1] // possible.shape[-1]
    guess = price if price is not None else _USUAL_PRICE * goal
    costly = _natural(natural, torch.as_tensor(guess, device=frames.device))[0] > _MIN_TOKENS * guess
    last = natural.curve.gather(1, natural.length.unsqueeze(1))[:, 0]
    cells = Selection(possible & (wanted | costly | (last > _KLT_FLOOR * goal)))
    if not cells.count:
        return None
    own = cells.take_patches(frames, cell), cells.take_patches(reference, cell)
    allowed = palettes[cells.picture, cells.row, cells.column]
    parts = zip(*(torch.split(x, _CELLS_AT_ONCE) for x in (*own, allowed)), strict=True)
    tried = [_try(*part, count=count, goal=goal, price=guess, inter=inter) for part in parts]
    streams = dct.Streams(*(_join([t[0][n] for t in tried]) for n in range(3)))
    points = _Points(*(torch.cat([t[1][n] for t in tried]) for n in range(4)))
    found = _price(natural, cells, streams, points, goal)
    each = found[cells.picture]
    plain = _natural(natural, found.view(-1, 1, 1))[0][cells.picture, cells.row, cells.column]
    stream_cost, _ = _stream(streams, each)
    palette_cost = points.error + each * (points.codes + _MODE_TOKENS)
    best = torch.minimum(stream_cost, palette_cost)
    chosen = best < _bar(plain, each)
    mode = torch.where(palette_cost < stream_cost, FIRST_PALETTE_MODE + points.place, DCT_MODE)
    return _write(
        cells, chosen, mode, streams, points, own, count=count, goal=goal, price=each, natural=natural
    )


def _natural(natural: NaturalCosts, price: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The least cost of each cell with FSQ codes, (B, h, w), and the error that it leaves. price: broadcasts to it."""
    number = torch.arange(natural.curve.shape[1], device=price.device).view(1, -1, 1, 1)
    cost = natural.curve + price.unsqueeze(-3) * number if price.ndim else natural.curve + price * number
    least, where = cost.masked_fill(number > natural.length.unsqueeze(1), torch.inf).min(1)
    return least, natural.curve.gather(1, where.unsqueeze(1))[:, 0]


def _bar(plain: torch.Tensor, price: torch.Tensor) -> torch.Tensor:
    """The cost (n,) that a screen mode has to stay below, where that without one is `plain` (n,)."""
    return torch.minimum(_MAX_SHARE * plain, plain - _MIN_TOKENS_SAVED * price)


def _stream(streams: dct.Streams, price: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The least cost (n,) of DCT streams at a price (n,), and the error that it leaves."""
    number = torch.arange(1, streams.error.shape[1] + 1, device=price.device)
    cost = streams.error + price[:, None] * (number + _MODE_TOKENS)
    least, where = cost.masked_fill(number > streams.length[:, None], torch.inf).min(1)
    return least, streams.error.gather(1, where[:, None])[:, 0]


def _price(
    natural: NaturalCosts, cells: Selection, streams: dct.Streams, points: _Points, goal: float
) -> torch.Tensor:
    """The highest price (B,) at which the cheapest modes of all cells leave no more than the target in a picture."""
    batch, _, rows, columns = natural.curve.shape
    allowed = goal * rows * columns
    low, high = (torch.full((batch,), goal * end, device=natural.curve.device) for end in _PRICES)
    for _ in range(_BISECTIONS):
        price = (low * high).sqrt()
        cost, left = _natural(natural, price.view(-1, 1, 1))
        own = price[cells.picture]
        index = (cells.picture, cells.row, cells.column)
        best, error = _bar(cost[index], own), left[index]
        for other, other_error in (
            _stream(streams, own),
            (points.error + own * (points.codes + _MODE_TOKENS), points.error),
        ):
            error = torch.where(other < best, other_error, error)
            best = torch.minimum(other, best)
        left = left.index_put(index, error)
        fits = left.sum((1, 2)) <= allowed
        low, high = torch.where(fits, price, low), torch.where(fits, high, price)
    return low


def _try(
    patches: torch.Tensor,
    reference: torch.Tensor,
    allowed: torch.Tensor,
    *,
    count: int,
    goal: float,
    price: float,
    inter: bool,
) -> tuple[dct.Streams, _Points]:
    """The DCT streams and the best palettes of n cells. patches, reference: (n, 4, 3, 16, 16); allowed: (n,) bool."""
    streams = dct.encode(patches - reference, _STREAM_FLOOR * goal, MAX_SCREEN_CODES)
    best = _Points(
        torch.full((len(patches),), torch.inf, device=patches.device),
        torch.zeros(len(patches), dtype=torch.int64, device=patches.device),
        torch.zeros(len(patches), dtype=torch.int64, device=patches.device),
        torch.zeros_like(allowed),
    )
    real, known = patches[:, :count], reference[:, :count]
    scale = patches.shape[1] / count
    bias = _COPY_BIAS * goal / (patches[0].numel() / 3)

    def attempt(which: torch.Tensor, size: int, copies: bool) -> torch.Tensor:
        """Try palettes of a size for some cells (m,). Returns the error of all cells, infinite where not tried."""
        nonlocal best
        out = torch.full_like(best.error, torch.inf)
        if not len(which):
            return out
        copying = torch.full((len(which),), copies, device=which.device)
        fitted = palette.fit(real[which], known[which], size, copying, bias)
        codes = palette.encode(fitted).needed
        error = scale * fitted.error
        old = _Points(*(x[which] for x in best))
        better = error + price * codes < old.error + price * old.codes
        new = (error, codes, torch.full_like(codes, palette.SIZES.index(size)), copying)
        best = _Points(
            *(
                all_.index_put((which,), torch.where(better, x, y))
                for all_, x, y in zip(best, new, old, strict=True)
            )
        )
        out[which] = error
        return out

    some = allowed.nonzero().squeeze(1)
    hopeless = attempt(some, _FIRST_SIZES[0], copies=False) > _MAX_PALETTE_ERROR * goal
    some = (allowed & ~hopeless).nonzero().squeeze(1)
    for size in _FIRST_SIZES[1:]:
        attempt(some, size, copies=False)
    size_of = torch.tensor(palette.SIZES, device=some.device)
    first_best = size_of[best.place[some]]
    for (larger, smaller), between in _SIZE_BETWEEN.items():
        attempt(some[(first_best == larger) | (first_best == smaller)], between, copies=False)
    attempt(some[first_best == _FIRST_SIZES[-1]], 1, copies=False)
    if inter:
        for size in _COPY_SIZES:
            attempt(allowed.nonzero().squeeze(1), size, copies=True)
    return streams, best


def _write(
    cells: Selection,
    chosen: torch.Tensor,
    mode: torch.Tensor,
    streams: dct.Streams,
    points: _Points,
    own: tuple[torch.Tensor, torch.Tensor],
    *,
    count: int,
    goal: float,
    price: torch.Tensor,
    natural: NaturalCosts,
) -> Modes | None:
    """The codes of the chosen (n,) cells in their modes (n,). own: their patches and what they start from."""
    some = chosen.nonzero().squeeze(1)
    if not len(some):
        return None
    where = torch.zeros_like(cells.where)
    where[cells.picture[some], cells.row[some], cells.column[some]] = True
    before = natural.curve[cells.picture, 0, cells.row, cells.column]
    codes = streams.codes.masked_fill(
        torch.arange(streams.codes.shape[1], device=mode.device) >= streams.length[:, None], -1
    )
    error, length = streams.error, streams.length.clone()
    longest = int(length[some].max())
    codes, error = codes[:, :longest], error[:, :longest]
    bias = _COPY_BIAS * goal / (own[0][0].numel() / 3)
    scale = own[0].shape[1] / count
    for place, size in enumerate(palette.SIZES):
        for copies in (False, True):
            which = chosen & (mode == FIRST_PALETTE_MODE + place) & (points.copies == copies)
            for part in torch.split(which.nonzero().squeeze(1), _CELLS_AT_ONCE):
                if not len(part):
                    continue
                copying = torch.full((len(part),), copies, device=part.device)
                fitted = palette.fit(own[0][part, :count], own[1][part, :count], size, copying, bias)
                part_codes, part_error, part_length = _palette_codes(fitted, scale, price[part], before[part])
                codes, part_codes = _pad_alike(codes, part_codes, -1)
                error, part_error = _pad_alike(error, part_error, 0.0)
                codes, error = codes.index_put((part,), part_codes), error.index_put((part,), part_error)
                length[part] = part_length
    return Modes(Selection(where), mode[some], codes[some], error[some], length[some])


def _palette_codes(
    fitted: palette.Fit, scale: float, price: torch.Tensor, before: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The codes (n, k) of palettes, the error after each, and their number (n,). before: (n,) error without them.

    The refinement of the colours comes last, where it saves more than its tokens cost.
    """
    written = palette.encode(fitted)
    size = fitted.colours.shape[1]
    error, finer_error = scale * fitted.error, scale * fitted.finer_error
    refined = error - finer_error > price * (size + written.length - written.needed)
    length = torch.where(refined, written.length + size, written.needed)
    codes = torch.cat([written.codes, torch.zeros_like(written.finer)], 1)
    at = written.length[:, None] + torch.arange(size, device=codes.device)
    codes = torch.where(refined[:, None], codes.scatter(1, at, written.finer), codes)
    number = torch.arange(1, codes.shape[1] + 1, device=codes.device)
    told = ((number - written.length[:, None]) / size).clamp(0, 1) * refined[
        :, None
    ]  # share of the refinement
    left = error[:, None] + told * (finer_error - error)[:, None]
    left = torch.where(number < written.needed[:, None], before[:, None], left)
    return codes.masked_fill(number > length[:, None], -1), left, length


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

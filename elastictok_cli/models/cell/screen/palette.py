"""The palette mode: a few colours, and for each pixel a label that names one of them.

A cell of 16x16 pixels x T real frames has P colours, each one code of three channels in 40 levels. Label p is colour p.
In a palette with a *copy* label, label 0 means the prediction's own pixel, and label p is colour p - 1. Each pixel's
label is predicted: in the first frame from the labels to its left, above, and above left; in later frames from the same
pixel one frame before. The stream says where the prediction is wrong, in raster order, frame after frame. Where a
sequence is cut, the pixels of the first frame that it does not reach have label 0, the commonest one.

With L labels, L - 1 of them can be right where the predicted one is wrong. A run has fewer than R = 36 // (L - 1)
pixels; longer ones begin with skips.

| symbol | what it says |
| --- | --- |
| first | 1 if there is a copy label, else 0 |
| up to R * (L - 1) - 1 | run * (L - 1) + which of the other labels, ascending, the pixel after the run has |
| 36, 37, 38 | R, 4 R, 16 R pixels are skipped |
| 39 | all other pixels are as predicted |

Codes after the one with a 39 refine the colours, one each: three channels of 0 to 6 sevenths of a level, less 3.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F

from elastictok_cli.models.cell.screen import symbols
from elastictok_cli.models.precision import full_precision

SIZES = (1, 2, 3, 4, 5, 6, 8)  # colours of a palette
_LEVELS = symbols.SYMBOLS  # of a channel
_FINER = 7  # steps in a level, once colours are refined
_RUN_SYMBOLS = 36
_SKIPS = (1, 4, 16)  # times the longest run of a symbol: what each of the three other symbols skips
_SIDE = 16  # pixels of a cell
_ROUNDS = 2  # of Lloyd's algorithm


class Fit(NamedTuple):
    """A palette for each of n cells."""

    colours: torch.Tensor  # (n, P, 3) int64, 0 to 39 each
    finer: torch.Tensor  # (n, P, 3) int64, 0 to 6 each: their refinement
    labels: torch.Tensor  # (n, T, 16, 16) int64
    copies: torch.Tensor  # (n,) bool: cells whose label 0 copies the prediction
    error: torch.Tensor  # (n,) float32 squared error, over T frames
    finer_error: torch.Tensor  # (n,) with the refinement, where it was asked for


class Streams(NamedTuple):
    """The codes of n cells' palettes, colours first."""

    codes: torch.Tensor  # (n, k) int64
    length: torch.Tensor  # (n,) int64 codes until the stream ends; as many as there are colours may follow
    needed: torch.Tensor  # (n,) int64 of them, after which all labels are known
    finer: torch.Tensor  # (n, P) int64 the codes that refine the colours


@full_precision
def fit(
    patches: torch.Tensor,
    predicted: torch.Tensor,
    size: int,
    copies: torch.Tensor | None,
    bias: float,
    *,
    refine: bool = True,
) -> Fit:
    """Choose `size` colours for each of n cells, and the labels of their pixels.

    patches, predicted: (n, T, 3, 16, 16), the real frames and their prediction; copies: (n,) bool, cells that may
    copy pixels of the prediction, None: no cell may; bias: squared error that a pixel may have more if it is copied;
    refine: whether the error with refined colours is wanted.
    """
    count, frames = patches.shape[:2]
    pixels = patches.transpose(2, 1).flatten(2)  # (n, 3, N)
    some = _sample(frames, patches.device)
    seen = pixels[..., some]
    copied = None
    share = torch.ones_like(seen[:, 0])  # of the pixels, those that want a colour
    if copies is not None:
        copied = (pixels - predicted.transpose(2, 1).flatten(2)).square().sum(1)  # (n, N)
        copied = torch.where(copies[:, None], copied - bias, torch.inf)
        share = (copied[:, some] > 0).float()
    centres = _first_centres(seen, share, size)
    for _ in range(_ROUNDS):
        nearest = _nearest(seen, centres) * share[:, None]
        total = nearest.sum(2)[..., None]
        mean = nearest @ seen.transpose(1, 2) / total.clamp_min(1)
        centres = torch.where(total > 0, mean, centres)
    colours = ((centres + 1) * ((_LEVELS - 1) / 2)).round().clamp(0, _LEVELS - 1)
    # the commonest colour first: it is what pixels are predicted to have where nothing is known
    order = (_nearest(seen, to_rgb(colours)) * share[:, None]).sum(2)
    order = order.argsort(dim=1, descending=True, stable=True)[..., None].expand(-1, -1, 3)
    colours, centres = colours.gather(1, order), centres.gather(1, order)
    finer = ((centres + 1) * ((_LEVELS - 1) / 2) - colours).mul(_FINER).round().add(_FINER // 2)
    finer = finer.clamp(0, _FINER - 1)
    distances = _distances(pixels, to_rgb(colours))
    finer_distances = _distances(pixels, to_rgb(colours, finer)) if refine else distances
    if copied is not None:
        distances, finer_distances = (
            torch.cat([copied[:, None], x], 1) for x in (distances, finer_distances)
        )
    labels, least = _first_least(distances)
    finest = finer_distances.gather(1, labels[:, None]) if refine else least
    exact = torch.zeros_like(least)
    if copies is None:
        copies = torch.zeros(count, dtype=torch.bool, device=labels.device)
    else:
        exact = torch.where(copies[:, None] & (labels == 0), bias, 0.0)[:, None]
        labels = torch.where(copies[:, None], labels, labels - 1)
    error, finer_error = ((x + exact).sum((1, 2)) for x in (least, finest))
    shape = (count, frames, _SIDE, _SIDE)
    return Fit(colours.long(), finer.long(), labels.view(shape), copies, error, finer_error)


class _Events(NamedTuple):
    """Where the labels of n cells are not as predicted, m times in all, in the order of the streams."""

    cell: torch.Tensor  # (m,) int64
    run: torch.Tensor  # (m,) pixels as predicted before each
    symbol: torch.Tensor  # (m,) which of the other labels the pixel has
    others: torch.Tensor  # (m,) how many other labels there are
    skips: list[torch.Tensor]  # (m,) each: pixels that a symbol can skip, most first


def _events(fitted: Fit) -> _Events:
    labels = fitted.labels
    predicted, flat = predict(labels).flatten(1), labels.flatten(1)
    own, place = (flat != predicted).nonzero(as_tuple=True)
    same = F.pad(own[1:] == own[:-1], (1, 0))[: len(own)]
    run = place - torch.where(same, place.roll(1), -1) - 1
    label, wrong = flat[own, place], predicted[own, place]
    others = (fitted.colours.shape[1] + fitted.copies.long() - 1).clamp_min(1)  # labels that can be right
    others = others[own]
    reach = torch.div(_RUN_SYMBOLS, others, rounding_mode="floor")
    skips = [reach * times for times in reversed(_SKIPS)]
    return _Events(own, run, label - (label > wrong).long(), others, skips)


def count_codes(fitted: Fit) -> torch.Tensor:
    """How many codes (n,) of each palette are needed, as `encode` has it, without writing them."""
    events = _events(fitted)
    counts, _ = symbols.split_runs(events.run, events.skips)
    written = torch.zeros_like(fitted.copies, dtype=torch.int64)  # symbols but the first and the last
    written.index_add_(0, events.cell, 1 + counts[0] + counts[1] + counts[2])
    return _needed(fitted, written)


def _needed(fitted: Fit, written: torch.Tensor) -> torch.Tensor:
    """Codes (n,) that palettes need, from the symbols (n,) between the first and the last of their streams."""
    size = fitted.colours.shape[1]
    silent = ~fitted.copies & (written == 0)  # all labels are as predicted, so nothing has to be said
    return torch.where(silent, size, size + symbols.codes_of(written + 2))


def encode(fitted: Fit) -> Streams:
    """The codes of palettes."""
    copies = fitted.copies
    count, size = fitted.colours.shape[:2]
    everyone = torch.arange(count, device=copies.device)
    out = symbols.Writer(count, copies.device)
    out.put(everyone, copies.long())
    events = _events(fitted)
    out.put_runs(
        events.cell,
        events.run,
        events.symbol,
        torch.zeros_like(events.run, dtype=torch.float32),
        scale=events.others,
        skips=tuple(
            (reach, _RUN_SYMBOLS + n)
            for reach, n in zip(events.skips, reversed(range(len(_SKIPS))), strict=True)
        ),
    )
    out.put(everyone, torch.full_like(everyone, symbols.END))
    colours = symbols.to_codes(fitted.colours.flatten(1))
    codes = torch.cat([colours, symbols.to_codes(out.symbols())], 1)
    finer = symbols.to_codes(fitted.finer.flatten(1))
    return Streams(codes, size + symbols.codes_of(out.length), _needed(fitted, out.length - 2), finer)


def decode(
    codes: torch.Tensor, kept: torch.Tensor, sizes: torch.Tensor, predicted: torch.Tensor
) -> torch.Tensor:
    """The pixels (n, T, 3, 16, 16) of n cells.

    codes: (n, k) int64; kept: (n,) of them, at least as many as colours; sizes: (n,) colours of each palette;
    predicted: (n, T, 3, 16, 16) the prediction of the T real frames.
    """
    count, frames = predicted.shape[:2]
    stream, told = _stream(codes, kept, sizes)
    copies = (stream[:, 0] == 1) & told[:, 0]
    labels = _read_labels(stream[:, 1:], told[:, 1:], sizes + copies, frames)
    most = max(SIZES)
    number = torch.arange(most, device=codes.device)
    level = _digits(codes, number.expand(count, -1))
    # the refinement begins with the code after the end of the stream
    ended = ((stream == symbols.END) & told).long()
    ended[:, 0] = 0
    end = torch.div(ended.argmax(1), symbols.PER_CODE, rounding_mode="floor") + sizes
    at = end[:, None] + 1 + number
    refined = (ended.amax(1, keepdim=True) > 0) & (at < kept[:, None]) & (number < sizes[:, None])
    finer = torch.where(refined[..., None], _digits(codes, at).clamp_max(_FINER - 1), _FINER // 2)
    rgb = to_rgb(level.float(), finer.float()).clamp(-1, 1)  # (n, 8, 3)
    colour = (labels - copies.view(-1, 1, 1, 1).long()).clamp(0, most - 1)
    painted = rgb.gather(1, colour.view(count, -1, 1).expand(-1, -1, 3))
    painted = painted.view(count, frames, _SIDE, _SIDE, 3).permute(0, 1, 4, 2, 3)
    copied = copies.view(-1, 1, 1, 1) & (labels == 0)
    return torch.where(copied[:, :, None], predicted, painted)


def to_rgb(levels: torch.Tensor, finer: torch.Tensor | None = None) -> torch.Tensor:
    """Channels (..., 3) in levels, 0 to 39, and their refinement, 0 to 6, in [-1, 1]."""
    if finer is not None:
        levels = levels + (finer - _FINER // 2) / _FINER
    return levels * (2 / (_LEVELS - 1)) - 1


def predict(labels: torch.Tensor) -> torch.Tensor:
    """The predicted labels of all pixels (n, T, 16, 16), from labels before them in raster order."""
    first = labels[:, 0]
    above = F.pad(first, (0, 0, 1, 0))[:, :-1]
    left = F.pad(first, (1, 0))[:, :, :-1]
    left[:, 1:, 0] = first[:, :-1, 0]
    above[:, 0] = left[:, 0]
    corner = F.pad(above, (1, 0))[:, :, :-1]
    corner[:, 1:, 0] = first[:, :-1, 0]
    corner[:, 0] = left[:, 0]
    return torch.cat([_predict(left, above, corner)[:, None], labels[:, :-1]], 1)


def _predict(left: torch.Tensor, above: torch.Tensor, corner: torch.Tensor) -> torch.Tensor:
    """An edge that runs along the row above goes on; else the label above."""
    return torch.where(corner == above, left, above)


def _stream(
    codes: torch.Tensor, kept: torch.Tensor, sizes: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The symbols (n, 3 * m) after the colours, and which of them are kept (n, 3 * m) bool."""
    place = torch.arange(codes.shape[1], device=codes.device)
    after = (place + sizes[:, None]).clamp_max(codes.shape[1] - 1)
    stream = symbols.from_codes(codes.gather(1, after))
    told = (place + sizes[:, None] < kept[:, None]).repeat_interleave(symbols.PER_CODE, 1)
    return stream, told


def _read_labels(stream: torch.Tensor, told: torch.Tensor, labels: torch.Tensor, frames: int) -> torch.Tensor:
    """The labels (n, T, 16, 16) that streams (n, m) say, of `labels` (n,) different ones."""
    count = len(stream)
    others = (labels - 1).clamp_min(1)[:, None]
    reach = torch.div(_RUN_SYMBOLS, others, rounding_mode="floor")
    ends = (stream == symbols.END) & told
    told = told & (ends.long().cumsum(1) == 0)  # up to the end of the stream
    event = told & (stream < _RUN_SYMBOLS)
    skip = reach * 4 ** (stream - _RUN_SYMBOLS).clamp(0, 2)
    advance = torch.where(event, torch.div(stream, others, rounding_mode="floor") + 1, skip) * told
    position = advance.cumsum(1) - 1
    pixels = frames * _SIDE**2
    event &= position < pixels
    # 0: as predicted; else 1 + which of the other labels
    change = torch.zeros(count, pixels + 1, dtype=torch.int64, device=stream.device)
    change.scatter_(1, torch.where(event, position, pixels), 1 + stream % others)
    change = change[:, :-1].view(count, frames, _SIDE, _SIDE)
    first = _read_first_frame(change[:, 0])
    # what a stream that is cut does not reach has the commonest label: an edge would else go on to the lower end
    beyond = torch.arange(_SIDE**2, device=stream.device) >= advance.sum(1, keepdim=True)
    beyond = (beyond & ~ends.any(1, keepdim=True)).view_as(first)
    out = [first.masked_fill(beyond, 0)]
    for frame in range(1, frames):
        out.append(_apply(out[-1], change[:, frame]))
    return torch.stack(out, 1)


def _read_first_frame(change: torch.Tensor) -> torch.Tensor:
    """Labels (n, 16, 16) of the first frame, one diagonal after the other, as all it is predicted from is known."""
    known = torch.zeros(len(change), _SIDE + 1, _SIDE + 1, dtype=torch.int64, device=change.device)
    for diagonal in range(2 * _SIDE - 1):
        rows = torch.arange(max(0, diagonal - _SIDE + 1), min(_SIDE, diagonal + 1), device=change.device)
        columns = diagonal - rows
        upper = known[:, rows, columns + 1]
        left = torch.where(columns == 0, upper, known[:, rows + 1, columns])
        above = torch.where(rows == 0, left, upper)
        corner = torch.where(
            (rows == 0) | (columns == 0), torch.where(rows == 0, left, upper), known[:, rows, columns]
        )
        known[:, rows + 1, columns + 1] = _apply(_predict(left, above, corner), change[:, rows, columns])
    return known[:, 1:, 1:]


def _apply(predicted: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
    """The labels of pixels from their predicted ones; change: 0, or 1 + which of the other labels it is."""
    other = change - 1
    return torch.where(change == 0, predicted, other + (other >= predicted).long())


def _digits(codes: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """The three symbols (n, m, 3) of the codes (n, k) at places (n, m)."""
    found = codes.gather(1, at.clamp_max(codes.shape[1] - 1))
    return symbols.from_codes(found.reshape(-1, 1)).view(*at.shape, symbols.PER_CODE)


def _nearest(pixels: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """Which colour (n, P, 3) is nearest to each pixel (n, 3, N): (n, P, N) float, 1 for the nearest, else 0."""
    closeness = _closeness(pixels, centres)
    nearest = (closeness == closeness.amin(1, keepdim=True)).float()
    return nearest * (nearest.cumsum(1) == 1)  # of colours that are the same, the first


def _first_least(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The first place (n, N) of the least of values (n, P, N), and that least (n, 1, N). Quicker than `min`."""
    least = x.amin(1, keepdim=True)
    backwards = torch.arange(x.shape[1], 0, -1, dtype=x.dtype, device=x.device)[:, None]
    return x.shape[1] - ((x == least) * backwards).amax(1).long(), least


def _distances(pixels: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """Squared distances (n, P, N) between pixels (n, 3, N) and colours (n, P, 3)."""
    return _closeness(pixels, centres).add_(pixels.square().sum(1, keepdim=True)).clamp_min_(0)


def _closeness(pixels: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """Squared distances (n, P, N), less the squares of the pixels, between pixels (n, 3, N) and colours (n, P, 3)."""
    return torch.baddbmm(centres.square().sum(2, keepdim=True), centres, pixels, alpha=-2)


def _sample(frames: int, device: torch.device) -> torch.Tensor:
    """The numbers of the pixels that colours are fitted to: one in as many as there are frames."""
    place = torch.arange(frames * _SIDE**2, device=device)
    spread = place % _SIDE + 2 * torch.div(place, _SIDE, rounding_mode="floor")
    spread = spread + torch.div(place, _SIDE**2, rounding_mode="floor")
    return (spread % frames == 0).nonzero().squeeze(1)


def _first_centres(pixels: torch.Tensor, weight: torch.Tensor, size: int) -> torch.Tensor:
    """Colours (n, P, 3) to start from: each the pixel that is farthest from those before it, first from the mean.

    pixels: (n, 3, N); weight: (n, N).
    """
    mean = (pixels * weight[:, None]).sum(2, keepdim=True) / weight.sum(1).clamp_min(1).view(-1, 1, 1)
    if size == 1:
        return mean.transpose(1, 2)
    far = (pixels - mean).square().sum(1) * weight
    found = []
    for number in range(size):
        where = far.argmax(1).view(-1, 1, 1).expand(-1, 3, 1)
        found.append(pixels.gather(2, where))
        away = (pixels - found[-1]).square_().sum(1) * weight
        far = away if number == 0 else torch.minimum(far, away)
    return torch.cat(found, 2).transpose(1, 2)

"""The DCT mode: a complete transform of a cell, coded in passes of halving threshold.

A cell of 16x16x4 pixels is four blocks of 8x8 pixels. Each has a DCT over 8 rows, 8 columns and 4 frames, of each of
three colour channels: 3,072 coefficients, as many as values. A pass visits the coefficients in the order of a scan and
sends a pulse, plus or minus 1.5 thresholds, where what is left of a coefficient is above the threshold. The next pass
has half the threshold. So a stream can be cut anywhere (embedded coding, as in Shapiro, "Embedded image coding using
zerotrees of wavelet coefficients", 1993, with runs in place of trees), and a long one leaves as little error as is
wanted.

| symbol | what it says |
| --- | --- |
| first | 2 * n + s: the first threshold is 32 / 2^n; s is 1 if the scan takes all frames' mean first |
| 0 to 33 | 2 * run + sign: so many coefficients (0 to 16) are skipped, then a pulse; sign 1 is minus |
| 34 to 38 | 17, 51, 153, 459, 1377 coefficients are skipped |
| 39 | the pass ends |
"""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F

from elastictok_cli.models.cell.screen import symbols
from elastictok_cli.models.precision import full_precision

COEFFICIENTS = 3072
_LARGEST_THRESHOLD = 32.0  # residuals are within 2, so coefficients within 2 * sqrt(768) = 55.4
_THRESHOLDS = 20
_PULSE = 1.5  # thresholds: of a coefficient below two thresholds, at most half of one is then left
_RUNS = 17  # that a pulse's symbol can say
_SKIPS = tuple((_RUNS * 3**n, 2 * _RUNS + n) for n in reversed(range(5)))
_SIGNED = 2 * _RUNS  # symbols below are pulses
_STILL_SHARE = 0.02  # of the energy: cells with no more outside the mean of their frames are scanned as still
# Cost of a step away from the lowest frequency, along an axis, in the order of the scan.
_CHROMA_STEP, _FRAME_STEP, _STILL_FRAME_STEP = 3, 1, 1000


class Streams(NamedTuple):
    """The streams of n cells."""

    codes: torch.Tensor  # (n, k) int64, filled up with END
    error: torch.Tensor  # (n, k) float32 squared error left after each code
    length: torch.Tensor  # (n,) int64 codes of each cell


@full_precision
def transform(patches: torch.Tensor) -> torch.Tensor:
    """Patches (n, 4, 3, 16, 16) to coefficients (n, 3072), orthonormal, in the order (t, c, v, h, by, bx)."""
    time, colour, space = _bases(patches.device)
    blocks = patches.reshape(-1, 4, 3, 2, 8, 2, 8)
    x = torch.einsum("at,ntcpyqx->nacpyqx", time, blocks)
    x = torch.einsum("bc,nacpyqx->nabpyqx", colour, x)
    x = torch.einsum("uy,nabpyqx->nabupqx", space, x)
    return torch.einsum("vx,nabupqx->nabuvpq", space, x).flatten(1)


@full_precision
def inverse(coefficients: torch.Tensor) -> torch.Tensor:
    """Inverse of `transform`."""
    time, colour, space = _bases(coefficients.device)
    x = coefficients.view(-1, 4, 3, 8, 8, 2, 2)
    x = torch.einsum("vx,nabuvpq->nabupqx", space, x)
    x = torch.einsum("uy,nabupqx->nabpyqx", space, x)
    x = torch.einsum("bc,nabpyqx->nacpyqx", colour, x)
    return torch.einsum("at,nacpyqx->ntcpyqx", time, x).reshape(-1, 4, 3, 16, 16)


def encode(patches: torch.Tensor, floor: torch.Tensor | float, most: int) -> Streams:
    """The streams of residual patches (n, 4, 3, 16, 16), each until its squared error is at most `floor`.

    most: codes of a stream at most.
    """
    coefficients = transform(patches)
    energy = coefficients.square()
    total = energy.sum(1)
    still = energy[:, COEFFICIENTS // 4 :].sum(1) <= _STILL_SHARE * total
    left = coefficients.gather(1, _scans(patches.device)[still.long()])
    largest = left.abs().amax(1).clamp_min(_LARGEST_THRESHOLD / 2**_THRESHOLDS)
    number = torch.floor(torch.log2(_LARGEST_THRESHOLD / largest)).add(1).clamp(0, _THRESHOLDS - 1)
    threshold = _LARGEST_THRESHOLD * torch.exp2(-number)
    count = len(patches)
    out = symbols.Writer(count, patches.device)
    everyone = torch.arange(count, device=patches.device)
    out.put(everyone, 2 * number.long() + still.long())
    events = _events(left, threshold, total, floor, symbols.PER_CODE * most)
    is_end = events.place == COEFFICIENTS
    before = F.pad(events.round, (1, 0), value=-1)[:-1]
    ahead = events.round == before  # another pulse of the same pass of the same cell
    run = events.place - torch.where(ahead, events.place.roll(1), -1) - 1
    cell = torch.div(events.round, _THRESHOLDS, rounding_mode="floor")
    symbol = torch.where(is_end, symbols.END, events.sign)
    out.put_runs(cell, run.masked_fill(is_end, 0), symbol, events.gain, scale=2, skips=_SKIPS)
    error = (total[:, None] - out.gains().cumsum(1)).clamp_min(0)[:, symbols.PER_CODE - 1 :: symbols.PER_CODE]
    length = symbols.codes_of(out.length)
    codes = symbols.to_codes(out.symbols())
    return Streams(codes[:, :most], error[:, :most], length.clamp_max(most))


class _Events(NamedTuple):
    """The m pulses and ends of passes of all cells, in the order of the streams."""

    round: torch.Tensor  # (m,) int64: _THRESHOLDS times the cell, plus the number of its pass
    place: torch.Tensor  # (m,) int64 in the scan; COEFFICIENTS for an end
    sign: torch.Tensor  # (m,) int64: 1 is minus
    gain: torch.Tensor  # (m,) squared error removed


def _events(
    left: torch.Tensor, threshold: torch.Tensor, error: torch.Tensor, floor: torch.Tensor | float, most: int
) -> _Events:
    """The pulses of all passes, until the error of a cell is at most `floor`, or it has `most` pulses.

    left: (n, 3072) coefficients, of which what the pulses leave will remain; threshold: (n,) the first ones; error:
    (n,) squared error without any pulse.
    """
    pulses = torch.zeros_like(error)  # of each cell
    passes: list[_Events] = []
    for number in range(_THRESHOLDS):
        cells = ((error > floor) & (pulses < most)).nonzero().squeeze(1)
        if not len(cells):
            break
        rest, step = left[cells], threshold[cells] * 0.5**number
        own, place = (rest.abs() > step[:, None]).nonzero(as_tuple=True)
        value, cell = rest[own, place], cells[own]
        after = value - torch.copysign(_PULSE * step[own], value)
        gain = value.square() - after.square()
        left[cell, place] = after
        error = error.index_add(0, cell, gain, alpha=-1)
        pulses = pulses.index_add(0, cell, torch.ones_like(gain))
        end, nothing = torch.full_like(cells, COEFFICIENTS), torch.zeros_like(cells)
        passes.append(_Events(cell * _THRESHOLDS + number, place, (value < 0).long(), gain))
        passes.append(_Events(cells * _THRESHOLDS + number, end, nothing, nothing.to(gain.dtype)))
    if not passes:
        none = torch.zeros(0, dtype=torch.int64, device=left.device)
        return _Events(none, none, none, left.new_zeros(0))
    joined = _Events(*map(torch.cat, zip(*passes, strict=True)))
    order = joined.round.argsort(stable=True)  # the end of a pass behind its pulses
    return _Events(*(x[order] for x in joined))


def decode(codes: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """Residual patches (n, 4, 3, 16, 16) of the first `kept` (n,), at least one, codes (n, k) of each cell."""
    stream = symbols.from_codes(codes)
    place = torch.arange(stream.shape[1], device=codes.device)
    told = place < symbols.PER_CODE * kept[:, None]
    first, stream, told = stream[:, 0], stream[:, 1:], told[:, 1:]
    end = (stream == symbols.END) & told
    pulse = (stream < _SIGNED) & told
    distances = torch.zeros(symbols.SYMBOLS, dtype=torch.int64, device=codes.device)
    for distance, symbol in _SKIPS:
        distances[symbol] = distance
    advance = torch.where(pulse, stream // 2 + 1, distances[stream]) * told
    reached = advance.cumsum(1)
    start = torch.where(end, reached, 0).cummax(1).values  # where the pass begins that follows an end
    position = reached - start - 1
    number = end.long().cumsum(1)
    valid = pulse & (position < COEFFICIENTS)
    # powers of two times 1.5 add up exactly, in whatever order a device adds them
    value = torch.where(stream % 2 == 1, -_PULSE, _PULSE) * torch.exp2(-number.float()) * valid
    total = value.new_zeros(len(codes), COEFFICIENTS)
    total.scatter_add_(1, position.clamp(0, COEFFICIENTS - 1), value)
    scan = _scans(codes.device)[first % 2]
    largest = _LARGEST_THRESHOLD * torch.exp2(-(first // 2).float())
    return inverse(torch.zeros_like(total).scatter_(1, scan, total * largest[:, None]))


def _matrix(size: int) -> torch.Tensor:
    """The orthonormal DCT-II, (size, size), a row for each frequency."""
    place = torch.arange(size, dtype=torch.float64)
    rows = torch.cos(math.pi * (place[None] + 0.5) * place[:, None] / size) * math.sqrt(2 / size)
    rows[0] /= math.sqrt(2)
    return rows


@cache
def _bases(device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The orthonormal bases of frames (4, 4), colour channels (3, 3) and rows or columns (8, 8)."""
    luma, difference, rest = [1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [0.5, -1.0, 0.5]
    colour = torch.tensor([luma, difference, rest], dtype=torch.float64)
    colour = colour / colour.norm(dim=1, keepdim=True)
    time, space = _matrix(4), _matrix(8)
    return time.float().to(device), colour.float().to(device), space.float().to(device)


@cache
def _scans(device: torch.device) -> torch.Tensor:
    """Two scans, (2, 3072) int64: the coefficients in their order, of cells that move and of still ones."""
    frame, chroma, row, column = (torch.arange(n) for n in (4, 3, 8, 8))
    scans = []
    for step in (_FRAME_STEP, _STILL_FRAME_STEP):
        cost = frame.view(4, 1, 1, 1) * step + (chroma.view(3, 1, 1) > 0) * _CHROMA_STEP
        cost = cost + row.view(8, 1) + column  # (4, 3, 8, 8)
        scans.append(cost[..., None].expand(-1, -1, -1, -1, 4).flatten().argsort(stable=True))
    return torch.stack(scans).to(device)

"""Decoding: the kept tokens of a block to frames.

1. `TokenLayout.read` takes the control tokens off the sequences.
2. `_predict` moves the reference along the motion vectors and refines it.
3. `screen.decode.reconstruct` decodes the screen cells, which no network touches.
4. `_coefficients` decodes the residual of each other cell that keeps a code.
5. `reconstruct` adds it to the prediction and cleans up. Training calls it too.
"""

from __future__ import annotations

import torch

from elastictok_cli.models import fsq
from elastictok_cli.models.cell.context import Context
from elastictok_cli.models.cell.motion import camera_pan
from elastictok_cli.models.cell.networks import DefaultModel
from elastictok_cli.models.cell.prediction import Prediction, Reuse, predict_inter, predict_keyframe
from elastictok_cli.models.cell.quantizer import CELLS_AT_ONCE
from elastictok_cli.models.cell.screen import decode as screen_decode
from elastictok_cli.models.cell.screen.patches import ScreenCells
from elastictok_cli.models.cell.selection import Selection
from elastictok_cli.models.cell.token_layout import Contents, TokenLayout
from elastictok_cli.models.cell.transform import first_frames, last_frame


def decode(
    model: DefaultModel,
    layout: TokenLayout,
    tokens: torch.Tensor,
    keep: torch.Tensor,
    context: Context | None,
    *,
    count: int,
    reuse: Reuse | None = None,
) -> tuple[torch.Tensor, Context]:
    """Real frames (B, count, 3, H, W) in [-1, 1], the next block's context; see `interface.NestedTokenizer.decode`.

    tokens: (B, G, h, w) int64; keep: (B, h, w) int64. Tokens beyond `keep` are not read.
    """
    contents = layout.read(tokens, keep, count)
    prediction, vectors = _predict(model, contents, context, count, reuse)
    screen = screen_decode.reconstruct(model.config, model.key_mean, contents, context, vectors, count)
    coefficients = _coefficients(model, contents, context, prediction.kind)
    decoded, after = reconstruct(
        model, prediction, coefficients, contents.codes_kept, keep, context, screen, count=count
    )
    return decoded.clamp_(-1, 1), after


def reconstruct(
    model: DefaultModel,
    prediction: Prediction,
    coefficients: torch.Tensor,
    codes_kept: torch.Tensor,
    tokens_kept: torch.Tensor,
    context: Context | None,
    screen: ScreenCells | None = None,
    *,
    count: int | None = None,
) -> tuple[torch.Tensor, Context]:
    """Decoded frames (B, count, 3, H, W), not clamped, and the context of the next block. Differentiable.

    coefficients: (B, K, h, w), zero where nothing is kept; codes_kept: (B, h, w) FSQ codes of each cell; tokens_kept:
    (B, h, w) control tokens too; screen: the cells that no network may touch, None where there are none; count: how
    many of the four frames are wanted, None for all.
    """
    c = model.config
    cells, features = model.synthesize(
        prediction.cells, prediction.entered, coefficients, codes_kept, prediction.kind, screen
    )
    count = c.frames if count is None else count
    decoded = first_frames(cells, c.frames, count, c.cell)
    last = None if count == c.frames else last_frame(cells, c.frames, c.cell).unsqueeze(1)
    if context is not None and c.copy_still:
        assert prediction.still is not None
        copied = prediction.still & (tokens_kept == 0)
        decoded = model.copy_still(decoded, context.frame, copied)
        last = None if last is None else model.copy_still(last, context.frame, copied)
    where = None if screen is None else screen.cells.where
    reference = model.reference(decoded if last is None else last)
    return decoded, Context(reference, features, prediction.lasting, where)


def _predict(
    model: DefaultModel, contents: Contents, context: Context | None, count: int, reuse: Reuse | None
) -> tuple[Prediction, torch.Tensor]:
    """The prediction, and the motion vectors (B, 2, h, w) in force."""
    if context is None:
        batch, rows, columns = contents.codes_kept.shape
        prediction = predict_keyframe(model, batch, (rows, columns), contents.codes_kept.device)
        return prediction, prediction.lasting
    panned = camera_pan.follow(context.vectors, contents.vectors, contents.pan)
    vectors = torch.where(contents.sent.unsqueeze(1), contents.vectors, panned.vectors)
    own_lasts = (contents.sent & (contents.pan == 0)).unsqueeze(1)
    lasting = torch.where(own_lasts, contents.vectors, panned.lasting)
    return predict_inter(model, context, vectors, lasting, count, contents.shake, reuse=reuse), vectors


def _coefficients(
    model: DefaultModel, contents: Contents, context: Context | None, kind: int
) -> torch.Tensor:
    """The coefficients (B, K, h, w) that the kept codes say, zero in cells that keep none."""
    batch, rows, columns = contents.codes_kept.shape
    out = contents.gain.new_zeros(batch, model.config.coefficients, rows, columns)
    cells = Selection(contents.codes_kept > 0)
    if cells.count:
        digits = fsq.index_to_digits(contents.codes, model.quantizer.levels)  # (B, R, D, h, w)
        own_digits = cells.take(digits.flatten(1, 2)).view(1, *digits.shape[1:3], 1, -1)
        prior = cells.take(model.prior(context, (rows, columns), batch))
        kept = cells.take(contents.codes_kept.unsqueeze(1))
        parts = (
            torch.split(x, CELLS_AT_ONCE, -1) for x in (prior, own_digits, cells.take(contents.gain), kept)
        )
        some = [_decode_cells(model, *part, kind=kind) for part in zip(*parts, strict=True)]
        out = cells.put(out, torch.cat(some, -1))
    return out


def _decode_cells(
    model: DefaultModel,
    prior: torch.Tensor,  # (1, prior_width, 1, n)
    digits: torch.Tensor,  # (1, R, D, 1, n)
    gain: torch.Tensor,  # (1, 1, 1, n)
    kept: torch.Tensor,  # (1, 1, 1, n) codes, at least 1
    *,
    kind: int,
) -> torch.Tensor:
    """Decoded coefficients (1, K, 1, n) of n cells."""
    quantizer = model.quantizer
    cell_class = quantizer.read_class(digits)
    most = int(kept.max())
    changes = quantizer(prior, kind, cell_class, digits=digits, gain=gain, most=most).changes
    return quantizer.assemble(changes, kept[:, 0], kind, cell_class)

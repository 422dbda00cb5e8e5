from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from elastictok_cli.models import checkpoint
from elastictok_cli.models.cell.config import KEY, DefaultConfig
from elastictok_cli.models.cell.networks import DefaultModel
from elastictok_cli.models.cell.tokenizer import DefaultTokenizer
from elastictok_cli.models.cell.transform import (
    cell_energy,
    energy_of,
    first_frames,
    from_cells,
    from_map,
    from_stored,
    last_frame,
    project,
    to_cells,
    to_map,
    to_stored,
)
from elastictok_cli.models.checkpoint import Loaded


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return checkpoint.load()


def video(frames: int = 8, height: int = 48, width: int = 64) -> torch.Tensor:
    """Smooth moving waves, (1, frames, 3, height, width)."""
    y = torch.arange(height).view(1, 1, 1, -1, 1) / 9
    x = torch.arange(width).view(1, 1, 1, 1, -1) / 7
    t = torch.arange(frames).view(1, -1, 1, 1, 1) / 3
    c = torch.arange(3).view(1, 1, -1, 1, 1)
    return 0.8 * torch.sin(x + t + c) * torch.cos(y - t / 2)


def test_cells_and_patches_are_only_rearranged() -> None:
    clip = video(4)
    cells = to_cells(clip, 16)
    assert torch.equal(from_cells(cells, 4, 16), clip)
    assert torch.equal(first_frames(cells, 4, 3, 16), clip[:, :3])
    assert torch.equal(last_frame(cells, 4, 16), clip[:, 3])
    # a cell's patches come one after the other, each by frame, channel, row, column
    assert torch.equal(cells[0, 1, 2].view(4, -1)[2], clip[0, :, :, 24:32, 32:40].flatten())
    stored = clip[0, :, :, 16:32, 32:48].flatten()  # as bases are in checkpoints
    assert torch.equal(from_stored(stored, 4, 16), cells[0, 1, 2])
    assert torch.equal(to_stored(cells[0, 1, 2], 4, 16), stored)
    positions = torch.arange(96.0).view(1, 2, 3, 4, 4)
    assert to_map(positions)[0, :, 3, 2].tolist() == positions[0, 1, 1, 2].tolist()
    assert torch.equal(from_map(to_map(positions), 2), positions)


def test_untrained_networks_do_nothing() -> None:
    torch.manual_seed(0)
    model = DefaultModel(DefaultConfig(width=16, coefficients=12, stages=(1, 1)))
    clip = video(4)
    keep = torch.ones(1, 3, 4, dtype=torch.int64)
    cells = to_cells(clip, 16)
    entered = model.enter_synthesis(cells, None, KEY)
    decoded, _ = model.synthesize(cells, entered, torch.zeros(1, 12, 3, 4), keep, KEY)
    torch.testing.assert_close(decoded, cells)


def test_tokens_beyond_keep_are_not_read(loaded: Loaded) -> None:
    tokenizer = loaded.tokenizer
    clip = video()
    context = None
    for part in clip.split(4, 1):
        encoding = tokenizer.encode(part, context, count=4)
        keep = torch.randint(0, 6, (1, 3, 4), generator=torch.Generator().manual_seed(1))
        beyond = torch.arange(encoding.tokens.shape[1]).view(1, -1, 1, 1) >= keep.unsqueeze(1)
        spoiled = torch.where(beyond, torch.randint(0, 64_000, beyond.shape), encoding.tokens)
        first, next_context = tokenizer.decode(encoding.tokens, keep, context, count=4)
        second, _ = tokenizer.decode(spoiled, keep, context, count=4)
        assert torch.equal(first, second)
        context = next_context


def test_error_falls_with_tokens(loaded: Loaded) -> None:
    tokenizer = loaded.tokenizer
    clip = video(4)
    encoding = tokenizer.encode(clip, None, count=4)
    errors = []
    for k in (0, 1, 2, 4, 8, 16, 32):
        decoded, _ = tokenizer.decode(encoding.tokens, encoding.length.clamp_max(k), None, count=4)
        errors.append(float((decoded - clip).square().mean()))
    assert all(b < a for a, b in pairwise(errors))
    assert errors[-1] < 0.08 * errors[0]


def test_values_are_within_the_vocabulary_and_motion_vectors_come_first(loaded: Loaded) -> None:
    tokenizer = loaded.tokenizer
    generator = torch.Generator().manual_seed(0)
    still = torch.nn.functional.interpolate(
        torch.rand(1, 3, 24, 32, generator=generator) * 2 - 1, scale_factor=4
    )
    clip = torch.stack([still.roll(3 * t, -1) for t in range(8)], 1)
    _, context = tokenizer.decode(
        (first := tokenizer.encode(clip[:, :4], None, count=4)).tokens, first.length, None, count=4
    )
    encoding = tokenizer.encode(clip[:, 4:], context, count=4, target=0.001)
    assert ((first.tokens < 64_000) | (first.tokens >= 65_521)).all()  # no motion vector in a keyframe block
    heads = (encoding.tokens >= 64_000).sum(1)
    assert (encoding.tokens[:, 0] >= 64_000).any()
    assert heads.max() <= 2  # a motion vector, a gain
    assert encoding.tokens.max() < tokenizer.spec.vocabulary <= 65_536
    assert (encoding.tokens[:, 2:] < 64_000).all()
    shakes = encoding.tokens[:, 1] == tokenizer.layout.shake_mark
    pans = (encoding.tokens[:, 1] >= tokenizer.layout.first_pan) & ~shakes
    assert int((shakes | pans).sum()) == 1  # the whole picture moves alike: one cell says so
    natural = ~(encoding.tokens >= tokenizer.layout.first_mode).any(1)
    # a cell is coded to the end of a stage where little error is left
    sizes = (encoding.length - heads - 4 * shakes)[natural]
    assert set(sizes.unique().tolist()) <= {0, 8, 16, 32, 56}
    complete = tokenizer.encode(clip[:, 4:], context, count=4, target=0.001, complete=True)
    assert torch.equal(complete.length, 56 + (complete.tokens >= 64_000).sum(1))
    assert encoding.curve.shape[1] == encoding.tokens.shape[1] + 1 <= tokenizer.spec.tokens_per_cell + 1


def test_motion_is_followed(loaded: Loaded) -> None:
    """A picture that glides costs far less to predict than one that is replaced, each cell by its own vector."""
    tokenizer = configured(loaded, camera_pan=False, camera_shake=False)  # test_cell_camera_pan.py has those
    noise = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    picture = torch.nn.functional.interpolate(noise, scale_factor=8, mode="bilinear")
    glide = torch.stack([picture.roll(4 * t, -1) for t in range(1, 5)], 1)
    first = tokenizer.encode(picture[:, None].expand(-1, 4, -1, -1, -1), None, count=4)
    _, context = tokenizer.decode(first.tokens, first.length, None, count=4)
    moving = tokenizer.encode(glide, context, count=4, target=0.001)
    inner = (slice(None), slice(1, -1), slice(2, -2))
    assert moving.curve[:, 1][inner].sum() < 0.3 * moving.curve[:, 0][inner].sum()


def test_contrast_beyond_the_steps_is_reached_with_a_gain(loaded: Loaded) -> None:
    """Hard black and white stripes saturate quantizers made for natural pictures."""
    tokenizer = loaded.tokenizer
    x = torch.arange(64)
    stripes = torch.where(x % 6 < 3, 1.0, -1.0).view(1, 1, 1, 1, -1).expand(1, 4, 3, 64, 64)
    encoding = tokenizer.encode(stripes, None, count=4)
    gained = encoding.tokens[:, 0] >= 65_521
    assert gained.any()
    decoded, _ = tokenizer.decode(encoding.tokens, encoding.length, None, count=4)
    without = torch.where(
        gained.unsqueeze(1), torch.cat([encoding.tokens[:, 1:], encoding.tokens[:, :1]], 1), encoding.tokens
    )
    flat, _ = tokenizer.decode(without, encoding.length - gained.long(), None, count=4)
    assert (decoded - stripes).square().mean() < 0.5 * (flat - stripes).square().mean()


def configured(loaded: Loaded, **settings: bool) -> DefaultTokenizer:
    """The shipped networks with other settings."""
    shipped = loaded.tokenizer
    assert isinstance(shipped, DefaultTokenizer)
    model = DefaultModel(replace(shipped.model.config, **settings)).requires_grad_(False)
    model.load_state_dict(shipped.model.state_dict())
    return DefaultTokenizer(model)


def filling(loaded: Loaded, fill: bool) -> DefaultTokenizer:
    """The shipped networks, with and without filling cells in."""
    return configured(loaded, fill_in=fill)


def test_cells_without_a_token_are_filled_in_from_the_others(loaded: Loaded) -> None:
    y, x = torch.meshgrid(torch.linspace(-0.9, 0.9, 96), torch.linspace(-0.5, 0.8, 128), indexing="ij")
    clip = torch.stack([y, (x + y) / 2, x]).view(1, 1, 3, 96, 128).expand(1, 4, -1, -1, -1)
    few = (torch.arange(6).view(-1, 1) % 5 == 0) & (torch.arange(8) % 3 == 1)
    errors = []
    for fill in (False, True):
        tokenizer = filling(loaded, fill)
        encoding = tokenizer.encode(clip, None, count=4)
        decoded, _ = tokenizer.decode(encoding.tokens, 3 * few[None].long(), None, count=4)
        errors.append(float((decoded - clip).square().mean()))
    assert errors[1] < 0.25 * errors[0]


def test_what_filled_in_cells_err_by_is_foreseen(loaded: Loaded) -> None:
    """The networks, which improve on it, left aside."""
    shipped = loaded.tokenizer
    assert isinstance(shipped, DefaultTokenizer)
    model = DefaultModel(replace(shipped.model.config, fill_in=True)).requires_grad_(False)
    model.basis.copy_(shipped.model.basis)
    clip = video(4, 96, 128)
    told = torch.rand(1, 6, 8, generator=torch.Generator().manual_seed(2)) < 0.5
    for count in (1, 4):
        real = clip[:, :count]
        padded = torch.cat([real, real[:, -1:].expand(-1, 4 - count, -1, -1, -1)], 1)
        encoding = DefaultTokenizer(model).encode(padded, None, count=count)
        assert encoding.filled is not None
        cells = to_cells(padded, 16)
        residual = torch.where(told.unsqueeze(3), project(cells, model.transform(KEY)), 0.0).permute(
            0, 3, 1, 2
        )
        grey = torch.zeros_like(cells)
        entered = model.enter_synthesis(grey, None, KEY)
        decoded, _ = model.synthesize(grey, entered, residual, told.long(), KEY)
        truth, foreseen = energy_of(decoded - cells)[~told], encoding.filled(told)[~told]
        torch.testing.assert_close(foreseen, truth, rtol=0.25, atol=1.0)
        torch.testing.assert_close(foreseen.sum(), truth.sum(), rtol=0.05, atol=0)


def test_predicted_blocks_and_older_models_fill_nothing_in(loaded: Loaded) -> None:
    clip = video(8)
    older = filling(loaded, False)
    assert older.encode(clip[:, :4], None, count=4).filled is None
    newer = filling(loaded, True)
    first = newer.encode(clip[:, :4], None, count=4)
    assert first.filled is not None
    _, context = newer.decode(first.tokens, first.length, None, count=4)
    assert newer.encode(clip[:, 4:], context, count=4).filled is None
    assert not DefaultConfig.from_dict({}).fill_in  # a checkpoint that says nothing of it


def test_a_keyframe_block_without_any_token_is_grey(loaded: Loaded) -> None:
    tokenizer = filling(loaded, True)
    encoding = tokenizer.encode(video(4), None, count=4)
    decoded, _ = tokenizer.decode(encoding.tokens, torch.zeros_like(encoding.length), None, count=4)
    assert float(decoded.std()) < 0.2


def test_what_stands_still_and_keeps_no_token_is_copied(loaded: Loaded) -> None:
    """However many blocks go by: networks drift, if only a little, where nothing tells them better."""
    shown, drifting = configured(loaded, copy_still=True), configured(loaded, copy_still=False)
    first = shown.encode(video(4), None, count=4)
    decoded, context = shown.decode(first.tokens, first.length.clamp_max(6), None, count=4)
    nothing = torch.zeros_like(first.length)
    after = context
    for _ in range(3):
        again, after = shown.decode(first.tokens, nothing, after, count=4)
    assert torch.equal(again, decoded[:, -1:].expand_as(again))
    assert not torch.equal(drifting.decode(first.tokens, nothing, context, count=4)[0], again)

    # a cell that keeps a token, and one that moves, are not copied; the others are
    moving = context._replace(vectors=context.vectors.clone())
    moving.vectors[:, 1, 0, 0] = 2.0
    nothing[:, 2, 3] = 1
    changed = (
        (shown.decode(first.tokens, nothing, moving, count=4)[0] != context.frame[:, None]).any(2).any(1)
    )
    cells = changed[0].unflatten(0, (3, 16)).unflatten(2, (4, 16)).any(3).any(1)
    assert cells.nonzero().tolist() == [[0, 0], [2, 3]]


def test_curves_know_what_is_copied(loaded: Loaded) -> None:
    shown = configured(loaded, copy_still=True)
    first = shown.encode(video(4), None, count=4)
    decoded, context = shown.decode(first.tokens, first.length, None, count=4)
    block = (decoded[:, -1:] + 0.02 * video(4)).clamp(-1, 1)
    encoding = shown.encode(block, context, count=4, price=1e9)  # no motion vector is worth that
    torch.testing.assert_close(encoding.curve[:, 0], cell_energy(block - decoded[:, -1:], 16))


def test_autocast_leaves_projection_quantizer_and_energies_in_float32(loaded: Loaded) -> None:
    """Half precision would move coefficients by more than fine targets allow in all."""
    tokenizer = loaded.tokenizer
    assert isinstance(tokenizer, DefaultTokenizer)
    model = tokenizer.model
    clip = video(4)

    def made() -> list[torch.Tensor]:
        cells = to_cells(clip, 16)
        wanted = project(cells, model.transform(KEY)).permute(0, 3, 1, 2)
        energy = cell_energy(clip, 16)
        prior = model.prior(None, (3, 4), 1)
        cell_class = model.quantizer.classify(wanted, energy, torch.full_like(energy, 20.0), KEY)
        coded = model.quantizer(prior, KEY, cell_class, target=wanted)
        told = model.quantizer.assemble(coded.changes, torch.full((1, 3, 4), 30), KEY, cell_class)
        again = model.quantizer(prior, KEY, cell_class, digits=coded.digits)
        few = torch.zeros(1, 3, 4, dtype=torch.int64)
        few[:, ::2] = 30
        # the networks after them may be narrow: what is put into them is looked at
        rows = told.permute(0, 2, 3, 1)
        residual = [model._add_residual(cells, rows, keep, KEY) for keep in (few, torch.full_like(few, 30))]
        filled = model._fill_in(residual[0], few > 0)
        assert filled is not None
        return [wanted, energy, cell_class, *coded, told, again.changes, filled[0], *residual]

    plain = made()
    with torch.autocast("cpu", torch.bfloat16):
        narrow = made()
    for one, other in zip(plain, narrow, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    prior = torch.randn(1, model.config.prior_width, 3, 4).bfloat16()  # as convolutions leave it there
    with torch.autocast("cpu", torch.bfloat16):
        coded = model.quantizer(prior, KEY, plain[2], target=plain[0])
    expected = model.quantizer(prior.float(), KEY, plain[2], target=plain[0])
    assert torch.equal(coded.digits, expected.digits)
    assert torch.equal(coded.decoded, expected.decoded)

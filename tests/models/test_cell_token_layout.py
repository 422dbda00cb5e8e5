import torch

from elastictok_cli.models import checkpoint
from elastictok_cli.models.cell.motion import camera_shake, vectors
from elastictok_cli.models.cell.token_layout import GAINS, MotionTokens, Sequences, TokenLayout


def test_the_shipped_model_s_control_tokens_fill_its_vocabulary() -> None:
    spec = checkpoint.load().tokenizer.spec
    ranges = [(r.kind, r.first, r.count, r.followed_by) for r in spec.control_tokens]
    assert ranges == [
        ("motion_vector", 64_000, 1_521, 0),
        ("gain", 65_521, 3, 0),
        ("pan", 65_524, 2, 0),
        ("shake", 65_526, 1, 1),
    ]
    assert spec.vocabulary == 65_527


def layout(*, pan: bool = True, shake: bool = True) -> TokenLayout:
    return TokenLayout(64_000, codes_per_cell=6, frames=4, pan=pan, shake=shake)


def test_a_model_without_camera_motion_has_fewer_values() -> None:
    assert layout(pan=False, shake=False).vocabulary == 65_524
    assert layout(shake=False).vocabulary == 65_526
    assert [r.kind for r in layout(shake=False).control_tokens] == ["motion_vector", "gain", "pan"]
    assert layout(pan=False, shake=False).tokens_per_cell == 8
    assert layout().tokens_per_cell == 13


def test_what_is_put_in_front_is_read_again() -> None:
    """Cells with each order of control tokens: none, a gain, a vector, both, a pan, a shake of three real frames."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 64_000, (1, 6, 2, 3), generator=generator)
    full = torch.full((1, 2, 3), 6)
    coded = Sequences(codes, torch.rand(1, 7, 2, 3, generator=generator), full)
    sent = torch.tensor([[[0, 0, 1], [1, 1, 1]]]).bool()
    gain = torch.tensor([[[0, 3, 0], [1, 0, 0]]])
    pan = torch.tensor([[[0, 0, 0], [0, 2, 0]]])
    sends_shake = torch.tensor([[[0, 0, 0], [0, 0, 1]]]).bool()
    motion = vectors.index_to_vector(torch.randint(0, vectors.VECTORS, (1, 2, 3), generator=generator))
    shake_codes, shake = camera_shake.to_codes(torch.tensor([[[1.0, 2.0], [-3.5, 0.25], [0.0, 40.0]]]))
    tokens = MotionTokens(sent, motion, pan, sends_shake, shake_codes)
    laid = layout()
    coded = laid.put_motion(laid.put_gain(coded, gain), tokens, torch.full((1, 2, 3), 5.0), count=3)
    assert coded.tokens.shape[1] == laid.tokens_per_cell
    assert coded.curve.shape[1] == laid.tokens_per_cell + 1
    assert (coded.length - 6).tolist() == [[[0, 1, 1], [2, 2, 5]]]

    read = laid.read(coded.tokens, coded.length, count=3)
    assert torch.equal(read.sent, sent)
    assert torch.equal(torch.where(sent, read.vectors, 0), torch.where(sent, motion, 0))
    assert torch.equal(read.pan, pan)
    assert read.shake is not None
    assert torch.equal(read.shake, shake)
    assert torch.equal(read.gain[:, 0], torch.tensor((1.0, *GAINS))[gain])
    assert torch.equal(read.codes, codes)
    assert torch.equal(read.codes_kept, full)

    # an allocator never drops a pan or a shake; a vector alone it may
    dear = coded.curve[0, :, :, :] > 1e6
    assert dear.sum(0).tolist() == [[0, 0, 0], [0, 2, 5]]


def test_a_cell_without_tokens_says_nothing() -> None:
    laid = layout()
    tokens = torch.full((1, laid.tokens_per_cell, 2, 3), laid.shake_mark)
    read = laid.read(tokens, torch.zeros(1, 2, 3, dtype=torch.int64), count=4)
    assert not read.sent.any()
    assert not read.pan.any()
    assert read.shake is None
    assert torch.equal(read.gain, torch.ones(1, 1, 2, 3))
    assert not read.codes_kept.any()

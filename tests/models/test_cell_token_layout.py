import pytest
import torch

from elastictok_cli.models import checkpoint
from elastictok_cli.models.cell.motion import camera_shake, vectors, whole_vectors
from elastictok_cli.models.cell.screen import palette
from elastictok_cli.models.cell.token_layout import GAINS, Contents, MotionTokens, Sequences, TokenLayout


def test_the_shipped_model_s_control_tokens_fill_its_vocabulary() -> None:
    spec = checkpoint.load().tokenizer.spec
    ranges = [(r.kind, r.first, r.count, r.followed_by) for r in spec.control_tokens]
    assert ranges == [
        ("motion_vector", 64_000, 1_521, 0),
        ("gain", 65_521, 3, 0),
        ("pan", 65_524, 2, 0),
        ("shake", 65_526, 1, 1),
        ("whole_vector", 65_527, 1, 0),
        ("dct", 65_528, 1, 0),
        ("palette", 65_529, 7, 0),
    ]
    assert spec.vocabulary == 65_536
    assert spec.tokens_per_cell == 4_096


def layout(*, pan: bool = True, shake: bool = True) -> TokenLayout:
    return TokenLayout(64_000, codes_per_cell=6, frames=4, pan=pan, shake=shake)


def test_a_model_without_camera_motion_has_fewer_values() -> None:
    assert layout(pan=False, shake=False).vocabulary == 65_524
    assert layout(shake=False).vocabulary == 65_526
    assert [r.kind for r in layout(shake=False).control_tokens] == ["motion_vector", "gain", "pan"]
    assert layout(pan=False, shake=False).tokens_per_cell == 8
    assert layout().tokens_per_cell == 4_096
    assert layout(shake=False).tokens_per_cell == 9
    assert not layout(shake=False).screen


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
    tokens = MotionTokens(sent, motion, torch.zeros_like(sent), pan, sends_shake, shake_codes)
    laid = layout()
    coded = laid.put_motion(laid.put_gain(coded, gain), tokens, torch.full((1, 2, 3), 5.0), count=3)
    assert coded.tokens.shape[1] == coded.curve.shape[1] - 1
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


def cut_at_every_length(row: list[int], count: int = 4) -> list[Contents]:
    """What the first 0, 1, 2 ... tokens of a cell's sequence say."""
    tokens = torch.tensor(row).view(1, -1, 1, 1)
    return [layout().read(tokens, torch.tensor([[[kept]]]), count) for kept in range(len(row) + 1)]


def modes_of(read: list[Contents]) -> list[int]:
    """The mode that each of these says, 0 where none."""
    return [int(r.screen.mode[0]) if r.screen is not None and len(r.screen.mode) else 0 for r in read]


VECTOR = 64_000 + 100


@pytest.mark.parametrize("front", [[], [VECTOR]])
def test_a_mode_needs_what_it_cannot_do_without(front: list[int]) -> None:
    before = [0] * len(front)
    assert modes_of(cut_at_every_length([*front, 65_528, 1, 2])) == [*before, 0, 0, 1, 1]
    for place, size in enumerate(palette.SIZES):
        row = [*front, 65_529 + place, *range(size), 7]
        read = cut_at_every_length(row)
        assert modes_of(read) == [*before, 0, *[0] * size, 2 + place, 2 + place]
        last = read[-1].screen
        assert last is not None
        assert last.codes.tolist() == [[*range(size), 7]]
        assert last.kept.tolist() == [size + 1]
        assert all(int(r.codes_kept) == 0 for r in read)
        assert all(bool(r.sent) == (kept >= len(front) > 0) for kept, r in enumerate(read))


def test_a_whole_vector_is_two_tokens_and_a_stream_may_follow() -> None:
    wanted = torch.tensor([-37.0, 48.0]).view(1, 2, 1, 1)
    code = int(whole_vectors.to_codes(wanted, torch.tensor([[[2]]])))
    read = cut_at_every_length([65_527, code, 5, 6])
    assert [bool(r.sent) for r in read] == [False, False, True, True, True]
    assert all(torch.equal(r.vectors, wanted) and int(r.pan) == 2 for r in read[2:])
    assert modes_of(read) == [0, 0, 0, 1, 1]
    assert all(int(r.codes_kept) == 0 and r.shake is None for r in read)


def test_whole_vectors_and_codes_are_one_to_one() -> None:
    steps = torch.arange(-48, 49)
    vertical, horizontal, pan = torch.meshgrid(steps, steps, torch.arange(3), indexing="ij")
    wanted = torch.stack([vertical, horizontal]).flatten(1)[None, :, None].float()
    codes = whole_vectors.to_codes(wanted, pan.flatten()[None, None])
    assert len(codes.unique()) == whole_vectors.CODES <= 64_000
    back, back_pan = whole_vectors.from_codes(codes)
    assert torch.equal(back, wanted)
    assert torch.equal(back_pan.flatten(), pan.flatten())


def test_screen_modes_that_are_put_in_front_are_read_again() -> None:
    """Cells: FSQ codes; DCT; a palette of three colours behind a vector; a whole vector that is a pan, and a stream."""
    codes = torch.arange(24).view(1, 6, 1, 4)
    length = torch.tensor([[[6, 5, 4, 3]]])
    coded = Sequences(codes, torch.rand(1, 7, 1, 4), length)
    laid, mode = layout(), torch.tensor([[[0, 1, 4, 0]]])
    motion = torch.zeros(1, 2, 1, 4)
    motion[0, :, 0, 3] = torch.tensor([37.0, 0.0])
    sent, whole = torch.tensor([[[0, 0, 1, 1]]]).bool(), torch.tensor([[[0, 0, 0, 1]]]).bool()
    pan, none = torch.tensor([[[0, 0, 0, 1]]]), torch.zeros(1, 1, 4, dtype=torch.bool)
    tokens = MotionTokens(sent, motion, whole, pan, none, None)
    coded = laid.put_mode(coded, mode)
    coded = laid.put_motion(coded, tokens, torch.full((1, 1, 4), 5.0), count=4)
    assert coded.length.tolist() == [[[6, 6, 6, 5]]]
    read = laid.read(coded.tokens, coded.length, count=4)
    assert read.codes_kept.tolist() == [[[6, 0, 0, 0]]]
    assert torch.equal(read.sent, sent)
    assert torch.equal(
        read.vectors[sent[:, None].expand(-1, 2, -1, -1)], motion[sent[:, None].expand(-1, 2, -1, -1)]
    )
    assert torch.equal(read.pan, pan)
    screen = read.screen
    assert screen is not None
    assert screen.cells.column.tolist() == [1, 2, 3]
    assert screen.mode.tolist() == [1, 4, 1]
    assert screen.kept.tolist() == [5, 4, 3]
    for cell in range(3):
        kept = int(screen.kept[cell])
        assert torch.equal(screen.codes[cell, :kept], codes[0, :kept, 0, cell + 1])

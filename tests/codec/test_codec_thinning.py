"""Which tokens go first, on keep maps made up here."""

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

from elastictok_cli.codec.control_tokens import codes_after, length_of_head
from elastictok_cli.codec.encoder import EncodeOptions, make_header
from elastictok_cli.codec.thinning import MAX_LEVEL, Cap, Level, Levels, level_for, thinned
from elastictok_cli.models import checkpoint, interface
from elastictok_cli.video.records import VideoInfo
from formats import Block, ControlRange, Header, ModelRef, control_ranges, pack_tokens, unpack_tokens

_MODEL = ModelRef(
    name="m",
    sha256=bytes(32),
    levels=(8, 8, 8, 5, 5, 5),
    vocabulary=65524,
    tokens_per_cell=20,
    block_frames=4,
    cell=(16, 16),
)
_HEADER = Header(
    model=_MODEL, width=160, height=96, grid=(6, 10), time_base=(1, 25), target_mse=0.007, allocation="cell"
)


def _block(keep: np.ndarray, tokens: np.ndarray, start: int = 0) -> Block:
    keep = keep.astype(np.uint16)
    return Block(
        tuple(range(start, start + 4)), (1,) * 4, keep, pack_tokens(tokens, keep), (0.01,) * 4, missed=True
    )


@pytest.fixture
def segment() -> list[Block]:
    rng = np.random.default_rng(1)
    blocks = []
    for number in range(5):
        keep = rng.integers(0, 21, _HEADER.grid)
        blocks.append(_block(keep, rng.integers(0, 64000, (20, *_HEADER.grid)), 4 * number))
    return blocks


def _total(blocks: list[Block]) -> int:
    return sum(block.token_count for block in blocks)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.37, 0.5, 0.9, 1.0])
def test_a_level_keeps_what_was_counted_and_hits_the_share(segment: list[Block], share: float) -> None:
    counts = Levels(_HEADER).count(segment)
    assert counts.sum() == _total(segment)
    wanted = int(share * _total(segment))
    level = level_for(counts, wanted)
    left = _total(thinned(_HEADER, segment, Level(level)))
    assert left == counts[: level + 1].sum()
    assert wanted - 0.02 * _total(segment) <= left <= wanted


def test_more_is_never_less(segment: list[Block]) -> None:
    keeps = [
        np.stack([block.keep for block in thinned(_HEADER, segment, Level(level))])
        for level in (-1, *range(20_000, MAX_LEVEL, 997), MAX_LEVEL)
    ]
    assert not keeps[0].any()
    assert np.array_equal(keeps[-1], [block.keep for block in segment])
    assert len({keep.tobytes() for keep in keeps}) > 10
    assert all((low <= high).all() for low, high in pairwise(keeps))


def _prefixes(before: list[Block], after: list[Block]) -> Iterator[bool]:
    for old, new in zip(before, after, strict=True):
        full = unpack_tokens(old.tokens, old.keep, 20)
        yield np.array_equal(new.tokens, pack_tokens(full, new.keep))


@pytest.mark.parametrize("rule", [Cap(0), Cap(5), Cap(99), Level(30_000), Level(-1)])
def test_what_is_left_is_the_head_of_each_sequence(segment: list[Block], rule: Cap | Level) -> None:
    after = thinned(_HEADER, segment, rule)
    assert all(_prefixes(segment, after))
    assert all(np.isnan(block.frame_mse).all() and not block.missed for block in after)
    assert [b.pts for b in after] == [b.pts for b in segment]
    if isinstance(rule, Cap):
        assert all(
            np.array_equal(b.keep, np.minimum(a.keep, rule.tokens))
            for a, b in zip(segment, after, strict=True)
        )


def test_the_start_of_a_segment_keeps_more() -> None:
    tokens = np.ones((20, *_HEADER.grid))
    blocks = [_block(np.full(_HEADER.grid, 12), tokens, 4 * n) for n in range(6)]
    level = level_for(Levels(_HEADER).count(blocks), _total(blocks) // 2)
    kept = [block.token_count for block in thinned(_HEADER, blocks, Level(level))]
    assert kept == sorted(kept, reverse=True)
    assert kept[0] > 2 * kept[-1] > 0


def test_velocity_and_gain_go_last_of_a_cell() -> None:
    tokens = np.full((20, *_HEADER.grid), 5)
    tokens[0, :, :5] = 64_010
    tokens[1, :, :5] = 65_521
    keep = np.full(_HEADER.grid, 8)
    keep[:, :5] += 2
    key = _block(np.zeros(_HEADER.grid), tokens)  # in keyframe blocks first codes stay as well
    blocks = [key, _block(keep, tokens, 4)]
    order = Levels(_HEADER)
    counts = order.count(blocks)
    _, half = order.keep(blocks, level_for(counts, blocks[1].token_count // 2))
    # the same codes stay in both halves of the picture, up to one by dither; those that steer come on top
    assert abs((half[:, :5] - 2).mean() - half[:, 5:].mean()) < 0.3
    _, few = order.keep(blocks, level_for(counts, 60))
    assert few[:, :5].min() >= 1
    assert not few[:, 5:].any()


def test_dropped_tokens_spread_over_the_picture() -> None:
    blocks = [_block(np.full(_HEADER.grid, 1), np.ones((20, *_HEADER.grid)))]
    counts = Levels(_HEADER).count(blocks)
    kept = next(Levels(_HEADER).keep(blocks, level_for(counts, 32)))
    assert 20 <= kept.sum() <= 32
    assert (kept.reshape(3, 2, 5, 2).sum((1, 3)) <= 3).all()
    assert (kept.reshape(3, 2, 5, 2).sum((1, 3)) >= 1).all()


def test_one_length_stays_one_length() -> None:
    header = replace(_HEADER, allocation="block")
    rng = np.random.default_rng(0)
    blocks = [
        _block(np.minimum(rng.integers(5, 30, header.grid), 14 - n), np.ones((20, *header.grid)), 4 * n)
        for n in range(4)
    ]
    level = level_for(Levels(header).count(blocks), _total(blocks) // 2)
    for before, after in zip(blocks, thinned(header, blocks, Level(level)), strict=True):
        assert 0 < after.keep.max() < before.keep.max()
        assert np.array_equal(after.keep, np.minimum(before.keep, after.keep.max()))


def test_what_says_how_everything_moves_goes_last(segment: list[Block]) -> None:
    """A velocity, a mark and a code for each of four frames: cut short, they say nothing."""
    keep = np.full(_HEADER.grid, 12)
    tokens = np.zeros((20, *_HEADER.grid), np.int64)
    tokens[:2, 2, 3] = 64000, 65526
    header = replace(_HEADER, model=replace(_MODEL, vocabulary=65527))
    counts = Levels(header).count([_block(keep, tokens)])
    level = level_for(counts, int(0.2 * keep.sum()))
    left = thinned(header, [_block(keep, tokens)], Level(level))[0].keep
    assert left[2, 3] >= 6
    assert left.sum() <= 0.2 * keep.sum()
    tokens[1, 2, 3] = 65525  # the mark of one that leads, behind which codes follow as usual
    assert thinned(header, [_block(keep, tokens)], Level(level))[0].keep[2, 3] < 6


def test_cells_of_a_keyframe_block_that_have_a_token_keep_it() -> None:
    """Those around are filled in from them; tokens of later blocks go first, many as those of a cell may be."""
    sparse = np.zeros(_HEADER.grid)
    sparse[::2, ::2] = 1
    nothing = np.zeros((20, *_HEADER.grid), np.int64)
    blocks = [_block(sparse, nothing), _block(np.full(_HEADER.grid, 20), nothing, 4)]
    counts = Levels(_HEADER).count(blocks)
    left = thinned(_HEADER, blocks, Level(level_for(counts, int(0.1 * _total(blocks)))))
    assert np.array_equal(left[0].keep, sparse)
    assert 0.05 * _total(blocks) < _total(left) <= 0.1 * _total(blocks)


OLD_RANGES = (
    ControlRange("motion_vector", 64_000, 1521),
    ControlRange("gain", 65_521, 3),
    ControlRange("pan", 65_524, 2),
    ControlRange("shake", 65_526, 1, 1),
)


@pytest.mark.parametrize(
    ("vocabulary", "ranges"), [(65_527, 4), (65_526, 3), (65_524, 2), (65_521, 1), (64_000, 0)]
)
def test_files_that_do_not_say_it_have_the_layout_of_their_vocabulary(vocabulary: int, ranges: int) -> None:
    header = replace(_HEADER, model=replace(_MODEL, vocabulary=vocabulary))
    assert control_ranges(header) == OLD_RANGES[:ranges]


def test_the_header_says_what_the_model_says() -> None:
    ranges = (
        interface.ControlRange("gain", 64_000, 10),
        interface.ControlRange("shake", 64_010, 2, followed_by=1),
    )
    loaded = checkpoint.load()
    spec = replace(loaded.tokenizer.spec, control_tokens=ranges)
    tokenizer = SimpleNamespace(spec=spec)
    info = VideoInfo(160, 96, Fraction(1, 25), None, None, None, 0, "", {}, None, "", {}, (), None, 0, False)
    header = make_header(info, replace(loaded, tokenizer=tokenizer), EncodeOptions())
    assert header.control_tokens == (ControlRange("gain", 64_000, 10), ControlRange("shake", 64_010, 2, 1))


SCREEN_RANGES = (
    *OLD_RANGES,
    ControlRange("whole_vector", 65_527, 1),
    ControlRange("dct", 65_528, 1),
    ControlRange("palette", 65_529, 7),
)
SCREEN_HEADER = replace(_HEADER, model=replace(_MODEL, vocabulary=65_536), control_tokens=SCREEN_RANGES)


def test_the_shipped_model_has_the_ranges_of_these_tests() -> None:
    """The old ones first: so old files, whose headers have none, are read alike."""
    spec = checkpoint.load().tokenizer.spec
    ranges = tuple(ControlRange(r.kind, r.first, r.count, r.followed_by) for r in spec.control_tokens)
    assert ranges == SCREEN_RANGES
    assert spec.vocabulary == SCREEN_HEADER.model.vocabulary


def test_codes_that_belong_to_screen_modes() -> None:
    """A whole vector, the first code of a DCT stream, a palette's colours and the first code behind them."""
    tokens = np.zeros((20, *_HEADER.grid), np.int64)
    tokens[0, 0, :4] = 65_527, 65_528, 64_000, 64_000
    tokens[1, 0, 2:4] = 65_528, 65_531
    tokens[0, 1, :7] = range(65_529, 65_536)
    keep = np.full(_HEADER.grid, 12)
    keep[0, 0] = 1  # cut short
    keep[1, 5] = 3
    block = _block(keep, tokens)
    head = length_of_head(block, codes_after(SCREEN_HEADER))
    assert head[0, :4].tolist() == [1, 2, 3, 6]
    assert head[1, :7].tolist() == [3, 4, 5, 6, 7, 3, 10]
    assert not head[2:].any()
    # the same values in a file of an older layout are codes of no kind that has a name
    old = replace(_HEADER, model=replace(_MODEL, vocabulary=65_527))
    assert length_of_head(block, codes_after(old))[1].sum() == 0


def test_the_head_of_a_screen_mode_goes_last() -> None:
    keep = np.full(_HEADER.grid, 12)
    tokens = np.zeros((20, *_HEADER.grid), np.int64)
    tokens[0, 2, 3], tokens[0, 4, 6] = 65_535, 65_528
    blocks = [_block(np.zeros(_HEADER.grid), tokens), _block(keep, tokens, 4)]
    counts = Levels(SCREEN_HEADER).count(blocks)
    level = level_for(counts, int(0.1 * keep.sum()))
    left = thinned(SCREEN_HEADER, blocks, Level(level))[1].keep
    assert left[2, 3] >= 1 + 8 + 1
    assert left[4, 6] >= 1 + 1
    assert left.sum() <= 0.1 * keep.sum()


def test_palettes_without_a_size_have_no_colours() -> None:
    ranges = (ControlRange("palette", 64_000, 9),)
    after = codes_after(replace(_HEADER, control_tokens=ranges))
    assert after.besides[64_000:64_009].tolist() == [2, 3, 4, 5, 6, 7, 9, 0, 0]
    assert not after.each_frame[64_000:64_009].any()


def test_what_the_header_says_goes_before_the_vocabulary() -> None:
    ranges = (ControlRange("gain", 64_000, 10), ControlRange("pan", 64_010, 5, 1))
    header = replace(_HEADER, control_tokens=ranges)
    tokens = np.zeros((20, *_HEADER.grid), np.int64)
    tokens[0, 0, :5] = 64_009, 64_010, 64_014, 64_015, 63_999
    tokens[1, 0, 0] = 64_012
    tokens[1, 0, 3] = 64_000  # behind a code: no control token, wherever it came from
    keep = np.full(_HEADER.grid, 8)
    keep[0, 2] = 2
    head = length_of_head(_block(keep, tokens), codes_after(header))
    assert head[0, :5].tolist() == [1 + 1 + 4, 1 + 4, 2, 0, 0]
    assert not head[1:].any()


def test_vectors_thin_as_well() -> None:
    model = replace(_MODEL, levels=(), vocabulary=0, vector=3)
    header = replace(_HEADER, model=model)
    rng = np.random.default_rng(2)
    keep = rng.integers(0, 21, header.grid).astype(np.uint16)
    vectors = pack_tokens(rng.normal(size=(20, *header.grid, 3)).astype(np.float16), keep)
    block = Block((0, 1, 2, 3), (1,) * 4, keep, vectors, (0.01,) * 4)
    counts = Levels(header).count([block])
    wanted = block.token_count // 2
    left = thinned(header, [block], Level(level_for(counts, wanted)))[0]
    assert 0.95 * wanted < left.token_count <= wanted
    assert left.tokens.shape == (left.token_count, 3)

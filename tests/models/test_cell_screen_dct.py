"""The DCT mode: a transform that loses nothing, and streams that say what their curves promise wherever they end."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elastictok_cli.models.cell.screen import dct, symbols
from elastictok_cli.models.cell.token_layout import MAX_SCREEN_CODES

VALUES = 3072  # of a cell
SKIPS = {34: 17, 35: 51, 36: 153, 37: 459, 38: 1377}


def random(seed: int, *shape: int) -> torch.Tensor:
    """Uniform in [-1, 1]."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def residuals() -> torch.Tensor:
    """Residuals of six cells, (6, 4, 3, 16, 16): noise, text that stays, text that changes, a ramp, specks, nothing."""
    out = torch.zeros(6, 4, 3, 16, 16)
    out[0] = random(0, 4, 3, 16, 16)
    out[1] = (random(1, 1, 1, 16, 16) > 0.3).float() * 1.5
    out[2] = (random(2, 4, 1, 16, 16) > 0.6).float() - 0.5
    out[3] = torch.linspace(-0.3, 0.4, 16).view(1, 1, 1, 16)
    out[4, 2, 1, 5, 9] = 2.0  # the largest residual there is, at one place
    out[4, 0, 0, 15, 0] = -2.0
    return out


def by_the_page(codes: list[int], kept: int) -> torch.Tensor:
    """The pixels (1, 4, 3, 16, 16) of a stream, read symbol by symbol as the page of the module says.

    The pulses of a coefficient are added last to first, unlike anywhere else.
    """
    stream = [code // 40**n % 40 for code in codes[:kept] for n in range(3)]
    first, still = divmod(stream[0], 2)
    threshold = 32.0 / 2**first
    pulses: list[tuple[int, float]] = []
    place = 0
    for symbol in stream[1:]:
        if symbol == 39:
            place, threshold = 0, threshold / 2
        elif symbol >= 34:
            place += SKIPS[symbol]
        else:
            place += symbol // 2
            if place < VALUES:
                pulses.append((place, (-1.5 if symbol % 2 else 1.5) * threshold))
            place += 1
    total = torch.zeros(1, VALUES)
    scan = dct._scans(total.device)[still]
    for at, value in reversed(pulses):
        total[0, scan[at]] += value
    return dct.inverse(total)


def test_the_transform_is_orthonormal_and_its_inverse_undoes_it() -> None:
    unit = torch.eye(VALUES)[::13]  # 13 divides no side of a cell, so all frequencies are met
    rows = dct.transform(unit.view(-1, 4, 3, 16, 16))
    torch.testing.assert_close(rows @ rows.t(), torch.eye(len(unit)), rtol=0, atol=2e-6)
    torch.testing.assert_close(dct.inverse(rows).flatten(1), unit, rtol=0, atol=2e-6)
    noise = random(3, 8, 4, 3, 16, 16)
    coefficients = dct.transform(noise)
    torch.testing.assert_close(coefficients.square().sum(1), noise.square().sum((1, 2, 3, 4)))
    torch.testing.assert_close(dct.inverse(coefficients), noise, rtol=0, atol=1e-5)


def test_the_first_four_coefficients_are_the_means_of_the_four_blocks() -> None:
    patches = torch.zeros(4, 4, 3, 2, 8, 2, 8)
    for n, (by, bx) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
        patches[n, :, :, by, :, bx] = 1.0
    coefficients = dct.transform(patches.view(4, 4, 3, 16, 16))
    expected = torch.zeros(4, VALUES)
    expected[:, :4] = torch.eye(4) * 768**0.5
    torch.testing.assert_close(coefficients, expected, rtol=0, atol=1e-5)


def test_scans_visit_each_coefficient_once_the_lowest_frequencies_first() -> None:
    places = torch.arange(VALUES)
    for scan, frame_step in zip(dct._scans(torch.device("cpu")), (1, 1000), strict=True):
        assert torch.equal(scan.sort().values, places)
        # a coefficient's place is ((((t * 3 + c) * 8 + v) * 8 + h) * 2 + by) * 2 + bx
        t, c, v, h = scan // 768, scan // 256 % 3, scan // 32 % 8, scan // 4 % 8
        cost = frame_step * t + 3 * (c > 0) + v + h
        assert bool((cost.diff() >= 0).all())
    assert bool((dct._scans(torch.device("cpu"))[1, :768] < 768).all())  # all frames' mean first


@pytest.mark.parametrize("scale", [1.0, 0.1, 0.004])
def test_decoding_leaves_the_error_that_was_promised_after_every_code(scale: float) -> None:
    patches = scale * residuals()
    streams = dct.encode(patches, 0.003 * scale**2 * VALUES, 150)
    assert streams.codes.shape == streams.error.shape == (len(patches), int(streams.length.max()))
    number = torch.arange(1, streams.codes.shape[1] + 1)
    for n, length in enumerate(streams.length.tolist()):
        decoded = dct.decode(streams.codes[n : n + 1].expand(length, -1), number[:length])
        left = (patches[n] - decoded).square().flatten(1).sum(1)
        torch.testing.assert_close(left, streams.error[n, :length], rtol=1e-3, atol=2e-3 * scale**2)
        assert bool((streams.error[n, length:] == streams.error[n, length - 1]).all())


def test_cells_that_keep_other_numbers_of_codes_are_decoded_as_each_alone() -> None:
    patches = residuals()
    streams = dct.encode(patches, 0.001 * VALUES, 300)
    kept = torch.tensor([300, 1, 17, 2, 5, 1]).minimum(streams.length)
    together = dct.decode(streams.codes, kept)
    for n, count in enumerate(kept.tolist()):
        alone = dct.decode(streams.codes[n : n + 1, :count], kept[n : n + 1])
        torch.testing.assert_close(together[n : n + 1], alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("most", [1, 7, 50])
def test_a_longer_stream_begins_with_the_shorter_one(most: int) -> None:
    long = dct.encode(residuals(), 0.001 * VALUES, 400)
    short = dct.encode(residuals(), 0.001 * VALUES, most)
    assert torch.equal(short.codes, long.codes[:, :most])
    assert torch.equal(short.error, long.error[:, :most])
    assert torch.equal(short.length, long.length.clamp_max(most))
    coarse = dct.encode(residuals(), 0.01 * VALUES, 400)
    for n, length in enumerate(coarse.length.tolist()):
        whole = length - 1  # the last code may be filled up with ends
        assert torch.equal(coarse.codes[n, :whole], long.codes[n, :whole])


def test_streams_end_where_the_error_is_small_enough_and_not_a_pass_later() -> None:
    patches = residuals()
    floor = torch.tensor([0.1, 0.01, 0.001, 0.0001, 0.01, 0.01]) * VALUES
    streams = dct.encode(patches, floor, MAX_SCREEN_CODES)
    last = streams.error.gather(1, streams.length[:, None] - 1)[:, 0]
    assert bool((last <= floor).all())
    for n, length in enumerate(streams.length.tolist()):
        stream = symbols.from_codes(streams.codes[n : n + 1, :length])[0].tolist()
        while stream and stream[-1] == symbols.END:
            stream.pop()
        before = max((at for at, symbol in enumerate(stream) if symbol == symbols.END), default=None)
        if before is not None and before >= 3:  # where the last pass begins
            assert float(streams.error[n, before // 3 - 1]) > float(floor[n])


@pytest.mark.parametrize("still", [False, True])
@pytest.mark.parametrize("extreme", [False, True])
def test_noise_is_reached_within_the_longest_stream(still: bool, extreme: bool) -> None:
    """MSE 0.0001, 40 dB PSNR: on uniform noise, and on noise of black and white seen from white."""
    noise = random(5, 2, 1 if still else 4, 3, 16, 16).expand(-1, 4, -1, -1, -1)
    if extreme:
        noise = noise.sign() - 1
    streams = dct.encode(noise, 0.0001 * VALUES, MAX_SCREEN_CODES)
    assert int(streams.length.max()) < MAX_SCREEN_CODES
    left = (noise - dct.decode(streams.codes, streams.length)).square().flatten(1).mean(1)
    assert float(left.max()) <= 0.0001 * 1.001


def test_a_still_cell_has_the_scan_of_still_cells_and_a_quarter_of_the_codes() -> None:
    noise = random(6, 1, 4, 3, 16, 16)
    patches = torch.cat([noise, noise[:, :1].expand(-1, 4, -1, -1, -1)])
    streams = dct.encode(patches, 0.001 * VALUES, MAX_SCREEN_CODES)
    assert (streams.codes[:, 0] % 2).tolist() == [0, 1]
    assert int(streams.length[1]) < 0.4 * int(streams.length[0])
    shown = dct.decode(streams.codes[1:], streams.length[1:])
    torch.testing.assert_close(shown, shown[:, :1].expand(-1, 4, -1, -1, -1), rtol=0, atol=1e-6)


def test_nothing_to_say_is_one_code_that_changes_nothing() -> None:
    streams = dct.encode(torch.zeros(2, 4, 3, 16, 16), 0.1, 10)
    assert streams.length.tolist() == [1, 1]
    assert not dct.decode(streams.codes, streams.length).any()


def test_pulses_after_the_last_coefficient_are_ignored() -> None:
    """Skips of 1,377 and of 17 lead to the last coefficient, and past it."""
    for last, heard in ((318 - 17 * 18 - 1, True), (318 - 17 * 18, False)):
        stream = [0, 38, 38, *[34] * 18, 2 * last, 39, 39]
        stream += [39] * (-len(stream) % 3)
        codes = symbols.to_codes(torch.tensor([stream]))
        decoded = dct.decode(codes, torch.tensor([codes.shape[1]]))
        assert bool(decoded.any()) == heard
        assert torch.equal(decoded, by_the_page(codes[0].tolist(), codes.shape[1]))


def test_no_cell_is_no_stream() -> None:
    streams = dct.encode(torch.zeros(0, 4, 3, 16, 16), 0.1, 10)
    assert len(streams.codes) == len(streams.length) == 0


def test_pulses_add_up_exactly_in_any_order() -> None:
    """The largest and the smallest pulses there are, on one coefficient, and all that noise needs to the last bit."""
    patches = residuals()[[0, 3]]
    streams = dct.encode(patches, 0.0, MAX_SCREEN_CODES)
    for n, length in enumerate(streams.length.tolist()):
        decoded = dct.decode(streams.codes[n : n + 1], torch.tensor([length]))
        assert torch.equal(decoded, by_the_page(streams.codes[n].tolist(), length))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, symbols.CODES - 1), min_size=1, max_size=30)
    | st.lists(st.sampled_from((38, 34 * 1601 + 5, 39 * 1641, 7, 33)), min_size=1, max_size=30),
    st.data(),
)
def test_any_codes_are_read_as_the_page_says(codes: list[int], data: st.DataObject) -> None:
    """Hostile ones too: pulses behind the last coefficient are ignored."""
    kept = data.draw(st.integers(1, len(codes)))
    decoded = dct.decode(torch.tensor([codes]), torch.tensor([kept]))
    assert bool(decoded.isfinite().all())
    torch.testing.assert_close(decoded, by_the_page(codes, kept), rtol=1e-5, atol=1e-5)

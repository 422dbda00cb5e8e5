import math

import torch

from elastictok_cli.models import fsq

LEVELS = torch.tensor([8, 8, 8, 5, 5, 5])


def test_every_code_goes_to_digits_and_back() -> None:
    index = torch.arange(64_000).view(1, 250, 256)
    digits = fsq.index_to_digits(index, LEVELS)
    assert digits.shape == (1, 6, 250, 256)
    assert torch.equal(fsq.digits_to_index(digits, LEVELS), index)
    assert math.prod(LEVELS.tolist()) == 64_000
    low, high = -(LEVELS // 2), (LEVELS - 1) // 2
    assert torch.equal(digits.amin((0, 2, 3)), low.float())
    assert torch.equal(digits.amax((0, 2, 3)), high.float())


def test_mixed_radix_puts_the_first_digit_fastest() -> None:
    digits = torch.tensor([-4, -4, -3, 2, -2, -1]).float().view(1, 6, 1, 1)  # unsigned 0 0 1 4 0 1
    assert fsq.digits_to_index(digits, LEVELS).item() == 64 + 4 * 512 + 12_800


def test_quantize_rounds_to_the_nearest_level_and_clips() -> None:
    values = torch.tensor([-9.0, -0.4, 0.6, 9.0]).view(1, 1, 4).expand(6, 1, 4)
    rounded = fsq.quantize(values, LEVELS)
    assert rounded[0, 0].tolist() == [-4, 0, 1, 3]
    assert rounded[5, 0].tolist() == [-2, 0, 1, 2]


def test_gradient_passes_inside_the_range_only() -> None:
    values = torch.tensor([-9.0, 0.4, 9.0]).view(1, 1, 3).expand(6, 1, 3).clone().requires_grad_(True)
    fsq.quantize(values, LEVELS).sum().backward()
    assert values.grad is not None
    assert values.grad[0, 0].tolist() == [0, 1, 0]


def test_half_precision_does_not_merge_codes() -> None:
    values = torch.arange(-4, 4).half().view(8, 1, 1, 1).expand(8, 6, 1, 1)
    assert fsq.quantize(values, LEVELS).dtype is torch.float32

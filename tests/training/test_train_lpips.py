from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from test_train_paper import CPU, folder, options, ticks

from elastictok_cli.training import events
from elastictok_cli.training.paper import loop as paper
from elastictok_cli.training.paper import lpips

__all__ = ["folder"]


def numbers(shape: tuple[int, ...], salt: float) -> torch.Tensor:
    """From 0 to 1, the same everywhere."""
    count = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return (count * (1.618 + salt)).remainder(1.0).reshape(shape)


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    """As in a file of the `lpips` package."""
    own = lpips.LPIPS().state_dict()
    found = {}
    for n, (theirs, ours) in enumerate(lpips._names().items()):
        shape = tuple(own[ours].shape)
        if theirs.startswith("lin"):
            value = numbers((1, *shape, 1, 1), n * 0.01) * 0.2
        elif theirs.endswith("bias"):
            value = (numbers(shape, n * 0.01) - 0.5) * 0.1
        else:
            value = (numbers(shape, n * 0.01) - 0.5) * 2 * (6 / (shape[1] * 9)) ** 0.5
        found[theirs] = value.float()
    return found


def test_distances_are_those_of_the_authors(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    names = set(weights)  # some of those that `lpips.LPIPS(net="vgg").state_dict()` has
    assert len(names) == 31
    assert {"net.slice1.0.weight", "net.slice2.5.bias", "net.slice5.28.weight", "lin4.model.1.weight"} < names
    torch.save(weights, tmp_path / "vgg.pth")
    save_file(weights, tmp_path / "vgg.safetensors")
    a, b = ((numbers((2, 3, 32, 48), salt) * 2 - 1).float() for salt in (0.3, 0.7))
    for file in ("vgg.pth", "vgg.safetensors"):
        model = lpips.load(tmp_path / file)
        # by lpips 0.1.4 with these very weights
        torch.testing.assert_close(model(a, b), torch.tensor([0.41406280, 0.41268718]), rtol=1e-5, atol=0)
        assert model(a, a).tolist() == [0, 0]
    a.requires_grad_()
    model(a, b).sum().backward()
    assert a.grad is not None
    assert a.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in model.parameters())


def test_lpips_takes_part_in_training(weights: dict[str, torch.Tensor], folder: Path, tmp_path: Path) -> None:
    save_file(weights, tmp_path / "vgg.safetensors")
    run = options(folder, tmp_path / "m.safetensors", steps=2, batch=2)
    seen = ticks(paper.train(replace(run, lpips=tmp_path / "vgg.safetensors"), CPU))
    plain = ticks(paper.train(replace(run, out=tmp_path / "n.safetensors"), CPU))
    assert seen[0].errors["key"] == plain[0].errors["key"]
    assert seen[0].errors["lpips"] > 0
    assert seen[0].loss == pytest.approx(plain[0].loss + 0.1 * seen[0].errors["lpips"])
    assert seen[1].errors["key"] != plain[1].errors["key"]  # the gradient is another


def test_other_weights_are_refused(weights: dict[str, torch.Tensor], folder: Path, tmp_path: Path) -> None:
    run = options(folder, tmp_path / "m.safetensors", steps=1)
    some = tmp_path / "some.pth"
    torch.save({name: value for name, value in weights.items() if name != "lin2.model.1.weight"}, some)
    rubbish = tmp_path / "x.safetensors"
    rubbish.write_bytes(b"rubbish")
    for file, message in ((some, "is not the state of"), (rubbish, "cannot be read")):
        with pytest.raises(events.TrainingError, match=message):
            list(paper.train(replace(run, lpips=file), CPU))

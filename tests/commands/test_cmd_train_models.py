import shutil
import signal
from pathlib import Path

import pytest
import torch
from cli_samples import json_lines, make_clip, run
from test_cmd_json import _check

from elastictok_cli.models import checkpoint

_SMALL = ("--batch", 1, "--blocks", 2, "--crop", 32, "--cache-gb", 0.1)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    make_clip(folder / "clip.mp4", audio=False)
    return folder


def test_train_then_go_on_then_use(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "my.safetensors"
    arguments = ("train", "--data", data, "--out", out, "--init", checkpoint.shipped(), *_SMALL)
    first = run(*arguments, "--steps", 1, "--json")
    assert first.exit_code == 0, first.stderr
    lines = json_lines(first.stdout)
    _check("train", lines)
    assert [line["type"] for line in lines] == ["saved", "step", "saved", "summary"]
    second = run(*arguments, "--steps", 2, "--json")
    assert [line["step"] for line in json_lines(second.stdout) if line["type"] == "step"] == [2]
    assert "training  steps 2" in run("models", out).stdout
    assert run("encode", data / "clip.mp4", tmp_path / "a.etk", "--model", out, "--tokens", 2).exit_code == 0
    assert run("decode", tmp_path / "a.etk", tmp_path / "a.mp4", "--model", out).exit_code == 0


def test_train_draws_a_share_from_the_graphics(data: Path, tmp_path: Path) -> None:
    screens = tmp_path / "screens"
    screens.mkdir()
    make_clip(screens / "clip.mp4", audio=False)
    out = tmp_path / "my.safetensors"
    arguments = ("train", "--data", data, "--out", out, "--init", checkpoint.shipped(), *_SMALL)
    for number, share in enumerate((("--graphics-share", 0.5), ()), start=1):
        done = run(*arguments, "--graphics", screens, *share, "--steps", number)
        assert done.exit_code == 0, done.stderr
        facts = checkpoint.load(out).training
        assert (facts["graphics"], facts["graphics_share"]) == (1, share[1] if share else 0.2)
    assert "graphics share 0.2" in run("models", out).stdout


def test_train_interrupted_says_where_it_goes_on(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from elastictok_cli.training import events
    from elastictok_cli.training.cell import loop

    def interrupted(*_: object) -> object:
        yield events.Saved(tmp_path / "my.safetensors", 40)
        yield events.Tick(41, 0.5, {"key": 0.1}, 3.0, 9.0, 0.1, 60.0)
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "train", interrupted)
    result = run("train", "--data", data, "--out", tmp_path / "my.safetensors", "--steps", 99)
    assert result.exit_code == 130
    assert "interrupted at step 41; run the same command again to go on from step 40" in result.stderr


def test_train_saves_before_it_gives_way_to_an_interrupt(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from elastictok_cli.training.cell import loop
    from elastictok_cli.training.state import state_path

    one_step = loop._Run._one_step

    def interrupting(self: loop._Run, *arguments: object) -> object:
        signal.raise_signal(signal.SIGINT)
        return one_step(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(loop._Run, "_one_step", interrupting)
    out = tmp_path / "my.safetensors"
    before = signal.getsignal(signal.SIGINT)
    result = run(
        "train", "--data", data, "--out", out, "--steps", 99, *_SMALL, "--init", checkpoint.shipped()
    )
    assert result.exit_code == 130
    assert "interrupted and saved at step 1; run the same command again to go on" in result.stderr
    assert checkpoint.load(out).training["steps"] == 1
    assert torch.load(state_path(out), weights_only=True)["step"] == 1
    assert signal.getsignal(signal.SIGINT) is before


def test_train_refuses_what_cannot_work(data: Path, tmp_path: Path) -> None:
    out, empty = tmp_path / "my.safetensors", tmp_path / "empty"
    empty.mkdir()
    for arguments, code in (
        (("--data", data, "--out", out), 2),
        (("--data", data, "--out", tmp_path / "my.ckpt", "--steps", 1), 2),
        (("--data", data, "--out", tmp_path / "none" / "my.safetensors", "--steps", 1), 2),
        (("--data", tmp_path / "none", "--out", out, "--steps", 1), 3),
        (("--data", empty, "--out", out, "--steps", 1), 3),
        (("--data", data, "--out", out, "--steps", 1, "--graphics-share", 0.2), 2),
        (("--data", data, "--out", out, "--steps", 1, "--graphics", tmp_path / "none"), 3),
        (("--data", data, "--out", out, "--steps", 1, "--graphics", empty), 3),
        (("--data", data, "--out", out, "--steps", 1, "--crop", 4096), 3),
        (("--data", data, "--out", out, "--steps", 1, "--crop", 32, "--init", data / "clip.mp4"), 3),
    ):
        result = run("train", *arguments)
        assert result.exit_code == code, arguments
        assert result.stderr.startswith("elastictok: ")
    shutil.copy(checkpoint.shipped(), out)
    assert run("train", "--data", data, "--out", out, "--steps", 1).exit_code == 2
    assert out.read_bytes() == checkpoint.shipped().read_bytes()


def test_models_tells_what_ships() -> None:
    result = run("models")
    assert result.exit_code == 0
    assert checkpoint.digest(checkpoint.shipped()).hex() in result.stdout
    (facts,) = json_lines(run("models", "--json").stdout)
    loaded = checkpoint.load()
    assert facts["parameters"] == sum(value.numel() for value in loaded.tokenizer.model.state_dict().values())
    assert facts["config"]["name"] == facts["name"] == loaded.tokenizer.spec.name
    assert facts["training"] == loaded.training


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 40, (2).to_bytes(8, "little") + b"{}", (1).to_bytes(8, "little") + b"3"]
)
def test_models_refuses_other_files(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "x.safetensors"
    file.write_bytes(content)
    result = run("models", file)
    assert (result.exit_code, result.stderr) == (3, f"elastictok: {file} is not an elastictok checkpoint\n")
    assert run("models", tmp_path / "none").exit_code == 3

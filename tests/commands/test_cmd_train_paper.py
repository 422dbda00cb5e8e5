import json
from pathlib import Path

import pytest
from cli_samples import json_lines, make_clip, run
from test_cmd_json import _check

SETTINGS = {
    "name": "tiny",
    "patch": [1, 8, 8],
    "size": 16,
    "min_tokens": 2,
    "hidden": 32,
    "mlp": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "heads": 2,
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    make_clip(folder / "clip.mp4", audio=False)
    (tmp_path / "tiny.json").write_text(json.dumps(SETTINGS))
    return folder


def test_train_the_papers_model_then_use_it(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "my.safetensors"
    arguments = ("train", "--arch", "paper", "--config", tmp_path / "tiny.json", "--data", data, "--out", out)
    few = ("--batch", 2, "--blocks", 2, "--cache-gb", 0.1)
    first = run(*arguments, *few, "--steps", 2, "--json")
    assert first.exit_code == 0, first.stderr
    lines = json_lines(first.stdout)
    _check("train", lines)
    assert [line["type"] for line in lines] == ["saved", "step", "step", "saved", "summary"]
    second = run(*arguments, *few, "--steps", 3, "--val", data, "--json")
    lines = json_lines(second.stdout)
    assert [line["step"] for line in lines if line["type"] == "step"] == [3]
    assert [line["step"] for line in lines if line["type"] == "validated"] == [3]
    assert "training  steps 3" in run("models", out).stdout
    etk = tmp_path / "a.etk"
    assert run("encode", data / "clip.mp4", etk, "--model", out, "--mse", 1).exit_code == 0
    assert run("decode", etk, tmp_path / "a.mp4", "--model", out).exit_code == 0
    # a start for another run, and nothing for the other kind of training
    again = tmp_path / "again.safetensors"
    begin = ("train", "--data", data, "--init", out, "--steps", 0)
    assert run(*begin, "--out", again, "--arch", "paper", "--batch", 2).exit_code == 0
    refused = run(*begin, "--out", tmp_path / "other.safetensors", "--crop", 32)
    assert (refused.exit_code, "another kind of model" in refused.stderr) == (3, True)
    mixed = run("train", "--data", data, "--out", out, "--steps", 9, "--crop", 32)
    assert (mixed.exit_code, "another kind of model" in mixed.stderr) == (3, True)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--arch", "paper"], 2, "needs --config"),
        (["--arch", "paper", "--config", "none"], 2, "neither a config (fsq-200m, vae-200m) nor a file"),
        (["--arch", "paper", "--config", "fsq-200m", "--crop", "64"], 2, "--crop is not for"),
        (["--arch", "paper", "--config", "fsq-200m", "--lpips", "none"], 3, "no file at none"),
        (["--arch", "paper", "--config", "fsq-200m"], 3, "at least 256 x 256"),
        (["--micro-batch", "2"], 2, "--micro-batch is for --arch paper"),
        (["--parallel", "fsdp"], 2, "--parallel is for --arch paper"),
    ],
)
def test_train_says_what_does_not_go_together(
    data: Path, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    result = run("train", "--data", data, "--out", tmp_path / "m.safetensors", "--steps", 1, *arguments)
    assert (result.exit_code, message in result.stderr) == (code, True), result.stderr
    assert not (tmp_path / "m.safetensors").exists()


def test_only_the_papers_model_trains_in_processes(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = run("train", "--data", data, "--out", tmp_path / "m.safetensors", "--steps", 1)
    assert (result.exit_code, "in several processes" in result.stderr) == (2, True)

"""The paper's model on the command line: convert, encode, decode, stats."""

import json
from pathlib import Path

import pytest
import torch
from cli_samples import json_lines, pictures, run
from test_cmd_json import _check as documented

from elastictok_cli.models import checkpoint
from elastictok_cli.models.paper.config import PaperConfig
from elastictok_cli.models.paper.transformer import PaperModel

GOLDEN = Path(__file__).parents[1] / "golden" / "official"
SETTINGS = {
    "fsq": {"name": "tiny-fsq", "bottleneck": "fsq", "theta": 5e7},
    "vae": {"name": "tiny-vae", "bottleneck": "vae", "theta": 5e6},
}
COMMON = {
    "patch": [2, 8, 8], "size": 32, "min_tokens": 4, "hidden": 64, "mlp": 96, "heads": 2,
    "encoder_layers": 2, "decoder_layers": 2,
}  # fmt: skip


@pytest.fixture(scope="module", params=["fsq", "vae"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A converted checkpoint of each kind."""
    folder = tmp_path_factory.mktemp(request.param)
    settings = folder / "config.json"
    settings.write_text(json.dumps(COMMON | SETTINGS[request.param]))
    out = folder / f"{request.param}.safetensors"
    result = run("convert", GOLDEN / f"{request.param}_params.stream", out, "--config", settings)
    assert result.exit_code == 0, result.stderr
    assert f"tiny-{request.param} ({request.param})" in result.stderr
    assert "bfloat16" in result.stderr
    assert ("stacked" if request.param == "fsq" else "one by one") in result.stderr
    return out


def test_conversion_keeps_every_bit(model: Path) -> None:
    loaded = checkpoint.load(model)
    again = PaperModel(loaded.tokenizer.model.config)
    again.load_state_dict(loaded.tokenizer.model.state_dict())
    checkpoint.save(again, model.with_name("again.safetensors"), {})
    other = checkpoint.load(model.with_name("again.safetensors"))
    for name, value in loaded.tokenizer.model.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, other.tokenizer.model.state_dict()[name])


def test_models_shows_a_converted_one(model: Path) -> None:
    (facts,) = json_lines(run("models", model, "--json").stdout)
    assert facts["name"] == f"tiny-{model.stem}"
    assert facts["architecture"] == checkpoint.PAPER
    assert "converted from" in facts["training"]
    assert facts["parameters"] == sum(
        p.numel() for p in PaperModel(PaperConfig.from_dict(facts["config"])).parameters()
    )


def test_convert_as_json(tmp_path: Path) -> None:
    settings = tmp_path / "c.json"
    settings.write_text(json.dumps(COMMON | SETTINGS["vae"]))
    out = tmp_path / "o.safetensors"
    result = run("convert", GOLDEN / "vae_params_fp32.stream", out, "--config", settings, "--json")
    (summary,) = lines = json_lines(result.stdout)
    documented("convert", lines)
    assert summary["bytes"] == out.stat().st_size
    assert summary["dtype"] == "float32"
    assert summary["sha256"] == checkpoint.digest(out).hex()
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["vae_params.stream", "o.safetensors"], 3, "none of the published configs"),
        (
            ["vae_params.stream", "o.safetensors", "--config", "vae-200m"],
            3,
            "not those of elastictok-vae-200m",
        ),
        (["vae_params.stream", "o.safetensors", "--config", "nothing"], 2, "neither a config"),
        (["vae_params.stream", "o.safetensors", "--config", "README.md"], 2, "is no config"),
        (["README.md", "o.safetensors"], 3, "not an official"),
        (["missing", "o.safetensors"], 3, "no file at"),
        (["vae_params.stream", "o.bin"], 2, "must end in .safetensors"),
    ],
)
def test_convert_says_what_is_wrong(
    arguments: list[str], code: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(GOLDEN)
    arguments[1] = str(tmp_path / arguments[1])
    result = run("convert", *arguments)
    assert result.exit_code == code
    assert message in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_every_command_takes_the_model(model: Path, clip: Path, tmp_path: Path) -> None:
    """48 x 64 pixels: four tiles, half of them padded."""
    etk, back = tmp_path / "o.etk", tmp_path / "o.mkv"
    result = run("encode", clip, etk, "--model", model, "--mse", 0.3, "--duration", 0.3, "--json")
    assert result.exit_code == 0, result.stderr
    summary = json_lines(result.stdout)[-1]
    assert summary["frames"] == 9
    result = run("decode", etk, back, "--model", model, "--lossless")
    assert result.exit_code == 0, result.stderr
    assert len(pictures(back)) == 9
    facts, *frames, totals = lines = json_lines(run("stats", etk, "--json").stdout)
    documented("stats", lines)
    assert facts["vector"] == (8 if model.stem == "vae" else None)
    assert facts["vocabulary"] == (None if model.stem == "vae" else 64000)
    assert facts["cell"] == [32, 32]
    assert facts["options"]["search"] == "binary"
    assert totals["tokens"] == summary["tokens"]
    assert len(frames) == 9
    assert "32x32 pixels" in run("stats", etk).stdout


def test_other_weights_are_refused(model: Path, clip: Path, tmp_path: Path) -> None:
    etk = tmp_path / "o.etk"
    assert run("encode", clip, etk, "--model", model, "--tokens", 5, "--duration", 0.1).exit_code == 0
    result = run("decode", etk, tmp_path / "o.mp4")
    assert result.exit_code == 3
    assert "other weights" in result.stderr or "made with the weights" in result.stderr


@pytest.fixture(scope="module")
def predictor(model: Path, clip: Path) -> Path:
    out = model.with_name("guess.safetensors")
    data = model.parent / "data"
    data.mkdir()
    for name in ("a", "b", "c"):
        (data / f"{name}.mp4").write_bytes(clip.read_bytes())
    result = run("train-predictor", "--model", model, "--data", data, "--out", out, "--mse", 0.3, "--mse", 0.35,
                 "--blocks", 3, "--json")  # fmt: skip
    assert result.exit_code == 0, result.stderr
    lines = json_lines(result.stdout)
    documented("train-predictor", lines)
    assert [line["type"] for line in lines] == ["collected"] * 3 + ["summary"]
    assert lines[-1]["examples"] == 3 * 3 * 2
    assert lines[-1]["held_out"] > 0
    assert lines[-1]["factor"] >= 1
    return out


def test_predict(model: Path, predictor: Path, clip: Path, tmp_path: Path) -> None:
    """Fewer probes than the exact search, on the same blocks; the promise is kept all the same."""
    for search, extra in (("linear", []), ("predict", ["--predictor", predictor])):
        etk = tmp_path / f"{search}.etk"
        result = run("encode", clip, etk, "--model", model, "--mse", 0.3, "--duration", 0.2, "--search", search,
                     "--json", *extra)  # fmt: skip
        assert result.exit_code == 0, result.stderr
        blocks = [line for line in json_lines(result.stdout) if line["type"] == "block"]
        assert all(block["missed"] == (block["mse"] > 0.3) for block in blocks)
        facts = json_lines(run("stats", etk, "--json").stdout)[0]
        assert facts["options"]["search"] == search


def test_models_shows_a_predictor(predictor: Path) -> None:
    (facts,) = json_lines(run("models", predictor, "--json").stdout)
    assert facts["architecture"] == "elastictok-predictor-1"
    assert facts["training"]["held_out"] > 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--search", "predict"], 2, "need each other"),
        (["--predictor", "x", "--search", "linear"], 2, "need each other"),
        (["--search", "linear", "--tokens", "4"], 2, "needs a target"),
        (["--search", "linear"], 2, "does not see the length"),
    ],
)
def test_search_options_that_make_no_sense(
    clip: Path, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    result = run("encode", clip, tmp_path / "o.etk", *arguments)
    assert result.exit_code == code
    assert message in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_predictors_of_other_models_are_refused(model: Path, clip: Path, tmp_path: Path) -> None:
    from elastictok_cli.models.paper import length_predictor as predictors

    other = tmp_path / "p.safetensors"
    predictors.save(predictors.Predictor(predictors.PredictorConfig("other", 4, 99)), other, {})
    arguments = ["encode", clip, tmp_path / "o.etk", "--model", model, "--search", "predict", "--predictor"]
    for file, message in (
        (other, "was trained for other"),
        (model, "holds no predictor"),
        ("none", "no predictor"),
    ):
        result = run(*arguments, file)
        assert result.exit_code == 3
        assert message in result.stderr


def test_train_predictor_says_what_is_wrong(model: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    out = tmp_path / "p.safetensors"
    for arguments, code, message in (
        (["--model", model, "--data", empty, "--out", out], 3, "at least two"),
        (["--model", checkpoint.shipped(), "--data", empty, "--out", out], 3, "does not see the length"),
        (["--model", model, "--data", tmp_path / "x", "--out", out], 3, "not a folder"),
        (["--model", model, "--data", empty, "--out", tmp_path / "p.bin"], 2, ".safetensors"),
        (["--model", model, "--data", empty, "--out", out, "--mse", 9], 2, "--mse"),
    ):
        result = run("train-predictor", *arguments)
        assert result.exit_code == code, result.stderr
        assert message in result.stderr
    assert not out.exists()

"""The paper's model on the command line: convert, encode, decode, stats."""

import json
from pathlib import Path

import pytest
import torch
from cli_samples import json_lines, run

from elastictok_cli.tokenizer import checkpoint
from elastictok_cli.tokenizer.paper import PaperConfig, PaperModel

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
    assert facts["name"] == model.stem.replace(model.stem, f"tiny-{model.stem}")
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
    (summary,) = json_lines(result.stdout)
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

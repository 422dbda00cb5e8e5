import hashlib
import json
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from elastictok_cli.codec.decoder import ModelMismatch, check_model
from elastictok_cli.models import checkpoint
from elastictok_cli.models.cell.config import DefaultConfig
from elastictok_cli.models.cell.networks import DefaultModel
from formats import Header, ModelRef

SMALL = DefaultConfig(name="small", width=16, coefficients=12, stages=(1, 1), prior_width=8, hidden=8)


def test_round_trip_keeps_config_facts_and_values(tmp_path: Path) -> None:
    model = DefaultModel(SMALL)
    path = tmp_path / "m.safetensors"
    checkpoint.save(model, path, {"steps": 3})
    loaded = checkpoint.load(path)
    assert loaded.tokenizer.model.config == SMALL
    assert loaded.training == {"steps": 3}
    assert loaded.sha256 == checkpoint.digest(path)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(loaded.tokenizer.model.state_dict()[name], value, atol=1e-3, rtol=1e-3)
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


def test_the_shipped_one_is_small_enough_and_says_how_it_was_trained() -> None:
    assert checkpoint.shipped().stat().st_size <= 16 * 2**20
    loaded = checkpoint.load()
    assert loaded.tokenizer.spec.name == "elastictok-default"
    assert loaded.training["steps"] > 0


def test_whoever_loads_weights_codes_without_tf32() -> None:
    backends = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [backend.allow_tf32 for backend in backends]
    try:
        for backend in backends:
            backend.allow_tf32 = True
        checkpoint.load()
        assert [backend.allow_tf32 for backend in backends] == [False, False]
    finally:
        for backend, value in zip(backends, before, strict=True):
            backend.allow_tf32 = value


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"\xff" * 8 + b"{}", b"not a model"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(checkpoint.CheckpointError, match="not a safetensors file"):
        checkpoint.load(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(checkpoint.CheckpointError, match=r"no model file at .*nothing"):
        checkpoint.load(tmp_path / "nothing")


def test_foreign_models_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(checkpoint.CheckpointError, match="holds no elastictok model"):
        checkpoint.load(path)


@pytest.mark.parametrize("config", ["{}", '{"width": 32}', '{"nonsense": 1}', "[", '{"width": "x"}'])
def test_a_configuration_that_does_not_fit_is_refused(tmp_path: Path, config: str) -> None:
    path = tmp_path / "x.safetensors"
    tensors = {n: t.contiguous() for n, t in DefaultModel(SMALL).state_dict().items()}
    save_file(tensors, path, {"architecture": checkpoint.ARCHITECTURE, "config": config})
    with pytest.raises(checkpoint.CheckpointError, match="does not fit its own configuration"):
        checkpoint.load(path)


def test_config_is_plain_json() -> None:
    config = DefaultConfig()
    assert DefaultConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_earlier_weights_can_be_found() -> None:
    entries = json.loads((checkpoint.shipped().parent / "earlier.json").read_text())
    assert checkpoint.digest(checkpoint.shipped()).hex() not in {e["sha256"] for e in entries}
    assert checkpoint.where_to_get(bytes(32)) is None
    for entry in entries:
        told = checkpoint.where_to_get(bytes.fromhex(entry["sha256"]))
        assert told is not None
        assert entry["revision"][:12] in told
        assert ("--model FILE" in told) == (entry["architecture"] == checkpoint.ARCHITECTURE)
        # in a clone with its history, what it says is checked
        shown = subprocess.run(
            ["git", "show", f"{entry['revision']}:elastictok_cli/weights/default.safetensors"],
            cwd=Path(__file__).parent,
            capture_output=True,
            check=False,
        )
        assert shown.returncode or hashlib.sha256(shown.stdout).hexdigest() == entry["sha256"]


def test_a_file_of_earlier_weights_says_what_to_get() -> None:
    entries = json.loads((checkpoint.shipped().parent / "earlier.json").read_text())
    loaded = checkpoint.load()
    model = ModelRef("old", bytes.fromhex(entries[0]["sha256"]), (8,), 8, 1, 4, (16, 16))
    header = Header(model, 16, 16, (1, 1), (1, 25))
    with pytest.raises(ModelMismatch, match=f"git checkout {entries[0]['revision'][:12]}"):
        check_model(header, loaded)

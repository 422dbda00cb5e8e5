"""Reading the official checkpoint format, sound and broken."""

from pathlib import Path

import msgpack
import numpy as np
import pytest
import torch

from elastictok_cli.models.paper import conversion as official
from elastictok_cli.models.paper.config import PRESETS, PaperConfig
from elastictok_cli.models.paper.conversion import OfficialError, from_official, read_stream
from elastictok_cli.models.paper.transformer import PaperModel

GOLDEN = Path(__file__).parents[1] / "golden" / "official"
TINY = PaperConfig(
    bottleneck="vae", patch=(2, 8, 8), size=32, min_tokens=4, hidden=64, mlp=96, heads=2,
    encoder_layers=2, decoder_layers=2,
)  # fmt: skip


def record(name: str, values: np.ndarray, dtype: str = "float32") -> bytes:
    raw = msgpack.packb([list(values.shape), dtype, values.tobytes()])
    return msgpack.packb([name.split("/"), msgpack.packb(msgpack.ExtType(1, raw))])


def stream(path: Path, *records: bytes) -> Path:
    path.write_bytes(b"".join(records))
    return path


def test_both_precisions_hold_the_same_numbers() -> None:
    narrow = from_official(read_stream(GOLDEN / "vae_params.stream"), TINY)
    wide = from_official(read_stream(GOLDEN / "vae_params_fp32.stream"), TINY)
    assert set(narrow) == set(wide) == set(PaperModel(TINY).state_dict())
    for name in narrow:
        assert narrow[name].as_tensor().dtype == torch.bfloat16
        assert torch.equal(narrow[name].as_tensor().float(), wide[name].as_tensor())


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("stacked", [True, False])
def test_published_shapes_cover_the_model(name: str, stacked: bool) -> None:
    """Every parameter of the model has an official counterpart of the same size."""
    config = PRESETS[name]
    shapes = official.official_shapes(config, stacked=stacked)
    # as views of nothing: 800 MB need not be filled
    empty = {
        key: official.Array(np.broadcast_to(np.float32(0), shape), "float32") for key, shape in shapes.items()
    }
    assert official.find_config(empty) == config
    with torch.device("meta"):
        wanted = {key: tuple(value.shape) for key, value in PaperModel(config).state_dict().items()}
    assert sum(int(np.prod(s)) for s in shapes.values()) == sum(int(np.prod(s)) for s in wanted.values())
    if stacked:
        assert len(shapes) == 26
    assert official.find_config({}) is None


def test_a_training_state_gives_its_weights(tmp_path: Path) -> None:
    records = []
    for key, array in read_stream(GOLDEN / "vae_params.stream").items():
        records.append(record(f"params/params/{key}", array.values, "bfloat16"))
        records.append(record(f"opt_state/1/0/mu/params/{key}", array.values, "bfloat16"))
    records.append(msgpack.packb([["step"], msgpack.packb(7)]))
    found = read_stream(stream(tmp_path / "state", *records))
    assert set(found) == set(read_stream(GOLDEN / "vae_params.stream"))


ONES = np.ones((2, 3), np.float32)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"PK\x03\x04 not this", "not an official"),
        (b"\x80\x04\x95pickle", "not an official"),
        (record("a/b", ONES) + record("a/b", ONES), "a/b is there twice"),
        (record("a/b", ONES)[:-3], "cut short"),
        (record("a/b", ONES, "float64"), "type 'float64'"),
        (msgpack.packb([["a"], msgpack.packb([1, 2])]), "is not an array"),
        (msgpack.packb([["a"], msgpack.packb(msgpack.ExtType(5, b"x"))]), "is not an array"),
        (msgpack.packb([["a"], b"\xc1"]), "cannot be read"),
        (msgpack.packb([["a"], msgpack.packb(msgpack.ExtType(1, b"\x93"))]), "cannot be read"),
        (
            msgpack.packb([["a"], msgpack.packb(msgpack.ExtType(1, msgpack.packb([[9, 9], "float32", bytes(8)])))]),
            "needs another count",
        ),
        (
            msgpack.packb([["a"], msgpack.packb(msgpack.ExtType(1, msgpack.packb([[-1], "float32", bytes(4)])))]),
            "shape",
        ),
        (msgpack.packb([["step"], msgpack.packb(7)]), "without weights"),
    ],
)  # fmt: skip
def test_broken_files_are_refused_in_a_sentence(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(OfficialError, match=message):
        read_stream(stream(tmp_path / "x", data))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("encoder/in_proj/kernel"), "encoder/in_proj/kernel is missing"),
        (lambda a: a.update({"extra": official.Array(ONES, "float32")}), "extra is not part of it"),
        (lambda a: a.update({"decoder/ln_f/kernel": official.Array(ONES, "float32")}), r"\(2, 3\), not \(64,\)"),
    ],
)  # fmt: skip
def test_every_name_and_shape_is_checked(change: object, message: str) -> None:
    arrays = read_stream(GOLDEN / "vae_params.stream")
    change(arrays)
    with pytest.raises(OfficialError, match=message):
        from_official(arrays, TINY)

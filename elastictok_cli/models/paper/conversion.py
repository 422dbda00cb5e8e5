"""The official checkpoint format: a stream of MessagePack records, one a parameter. numpy and msgpack, nothing else.

A record is [key path, blob]; the blob is an extension object of type 1 that holds [shape, dtype, raw bytes],
little-endian, in C order. Layers come stacked (one record with a leading layer axis, under `scan_decoder`) or one by
one. Written by the `tux` library of the ElasticTok authors (`streaming_params`, `streaming_train_state`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import numpy.typing as npt
import torch

from elastictok_cli.models.paper.config import PRESETS, PaperConfig

_MAX_RECORD = 1 << 31  # bytes; the largest published parameter has 42 million numbers
_DTYPES = {"float32": "<f4", "bfloat16": "<u2"}  # numpy has no bfloat16: its bits are carried as they are
_STATE = ("params", "params")  # before the weights' own path in a full training state
_LAYER = {  # official name in a layer, our name, transposed
    "attention/wq/kernel": ("attention.wq.weight", True),
    "attention/wk/kernel": ("attention.wk.weight", True),
    "attention/wv/kernel": ("attention.wv.weight", True),
    "attention/wo/kernel": ("attention.wo.weight", True),
    "feed_forward/w1/kernel": ("mlp.w1.weight", True),
    "feed_forward/w2/kernel": ("mlp.w2.weight", True),
    "feed_forward/w3/kernel": ("mlp.w3.weight", True),
    "attention_norm/kernel": ("attention_norm.weight", False),
    "ffn_norm/kernel": ("mlp_norm.weight", False),
}
_OUTER = {
    "encoder/in_proj/kernel": ("encoder.in_proj.weight", True),
    "encoder/is_kept_embed": ("encoder.is_kept_embed", False),
    "encoder/is_masked_embed": ("encoder.is_masked_embed", False),
    "encoder/ln_f/kernel": ("encoder.blocks.norm.weight", False),
    "encoder/pre_quant/kernel": ("encoder.pre_quant.weight", True),
    "decoder/post_quant/kernel": ("decoder.post_quant.weight", True),
    "decoder/ln_f/kernel": ("decoder.blocks.norm.weight", False),
    "decoder/out_proj/kernel": ("decoder.out_proj.weight", True),
}


class OfficialError(Exception):
    """A file that is no official checkpoint, or not of the config; the message is one sentence for the user."""


@dataclass(frozen=True, eq=False)
class Array:
    """A parameter: values float32, or the bits of bfloat16 numbers as uint16."""

    values: npt.NDArray[Any]
    dtype: str  # float32 or bfloat16

    def as_tensor(self) -> torch.Tensor:
        """The numbers, exactly, in their own type."""
        if self.dtype == "bfloat16":
            return torch.from_numpy(np.array(self.values).view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(np.array(self.values, np.float32))


def read_stream(path: Path) -> dict[str, Array]:
    """All weights by official name ("encoder/in_proj/kernel", ...); what else a training state has is passed over.

    Raises OfficialError.
    """
    arrays: dict[str, Array] = {}
    whole_state = False
    for key, blob in _records(path):
        if key[:1] == ("opt_state",) or key == ("step",):
            whole_state = True
            continue
        if key[:2] == _STATE:
            whole_state, key = True, key[2:]
        elif key[:1] == ("params",):
            key = key[1:]
        name = "/".join(key)
        if name in arrays:
            raise OfficialError(f"{path}: {name} is there twice")
        arrays[name] = _array(blob, f"{path}: {name}")
    if not arrays:
        what = "a training state without weights" if whole_state else "empty"
        raise OfficialError(f"{path} is {what}")
    return arrays


def _records(path: Path) -> Iterator[tuple[tuple[str, ...], bytes]]:
    with path.open("rb") as file:
        unpacker = msgpack.Unpacker(file, max_buffer_size=_MAX_RECORD, max_ext_len=0, max_map_len=0)
        try:
            for record in unpacker:
                if not (isinstance(record, list) and len(record) == 2 and isinstance(record[0], list)):
                    raise OfficialError(f"{path} is not an official ElasticTok checkpoint")
                key, blob = record
                if not all(isinstance(part, str) for part in key) or not isinstance(blob, bytes):
                    raise OfficialError(f"{path} is not an official ElasticTok checkpoint")
                yield tuple(key), blob
            if unpacker.tell() != file.seek(0, 2):  # the iterator ends silently inside a record
                raise OfficialError(f"{path} is cut short")
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            raise OfficialError(
                f"{path} is not an official ElasticTok checkpoint ({str(error)[:80] or type(error).__name__})"
            ) from None


def _array(blob: bytes, name: str) -> Array:
    try:
        outer = msgpack.unpackb(blob, max_ext_len=_MAX_RECORD)
        if not isinstance(outer, msgpack.ExtType) or outer.code != 1:
            raise OfficialError(f"{name} is not an array")
        shape, dtype, raw = msgpack.unpackb(outer.data, max_bin_len=_MAX_RECORD)
        if dtype not in _DTYPES:
            raise OfficialError(f"{name} has numbers of type {dtype!r:.40}, not float32 or bfloat16")
        if len(shape) > 3 or not all(type(side) is int and side > 0 for side in shape):
            raise OfficialError(f"{name} has the shape {shape!r:.80}")
        values = np.frombuffer(raw, _DTYPES[dtype])
        if values.size != math.prod(shape):
            raise OfficialError(
                f"{name} has {values.size} numbers, its shape {tuple(shape)} needs another count"
            )
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise OfficialError(f"{name} cannot be read ({str(error)[:80] or type(error).__name__})") from None
    return Array(values.reshape(shape), dtype)


def official_shapes(config: PaperConfig, *, stacked: bool) -> dict[str, tuple[int, ...]]:
    """Every parameter's official name and shape."""
    c = config
    out = c.code_dim * (2 if c.bottleneck == "vae" else 1)
    shapes: dict[str, tuple[int, ...]] = {
        "encoder/in_proj/kernel": (c.patch_values, c.hidden),
        "encoder/is_kept_embed": (1, c.hidden),
        "encoder/is_masked_embed": (1, c.hidden),
        "encoder/ln_f/kernel": (c.hidden,),
        "encoder/pre_quant/kernel": (c.hidden, out),
        "decoder/post_quant/kernel": (c.code_dim, c.hidden),
        "decoder/ln_f/kernel": (c.hidden,),
        "decoder/out_proj/kernel": (c.hidden, c.patch_values),
    }
    wide: dict[str, tuple[int, ...]] = {
        "w1": (c.hidden, c.mlp),
        "w3": (c.hidden, c.mlp),
        "w2": (c.mlp, c.hidden),
    }
    for half, layers in (("encoder", c.encoder_layers), ("decoder", c.decoder_layers)):
        for name in _LAYER:
            part = name.split("/")[-2]
            shape = wide.get(part, (c.hidden,) if "norm" in part else (c.hidden, c.hidden))
            if stacked:
                shapes[f"{half}/{half}_blocks/scan_decoder/{name}"] = (layers, *shape)
            else:
                shapes.update({f"{half}/{half}_blocks/{i}/{name}": shape for i in range(layers)})
    return shapes


def find_config(arrays: dict[str, Array]) -> PaperConfig | None:
    """The published config that these weights have, None if none."""
    return next((config for config in PRESETS.values() if not mismatches(arrays, config)), None)


def mismatches(arrays: dict[str, Array], config: PaperConfig) -> list[str]:
    """What of the weights does not fit a config, in words; empty if all does."""
    wanted = official_shapes(config, stacked=is_stacked(arrays))
    found = {name: array.values.shape for name, array in arrays.items()}
    lines = [f"{name} is missing" for name in wanted if name not in found]
    lines += [f"{name} is not part of it" for name in found if name not in wanted]
    lines += [
        f"{name} has the shape {found[name]}, not {shape}"
        for name, shape in wanted.items()
        if name in found and found[name] != shape
    ]
    return lines


def is_stacked(arrays: dict[str, Array]) -> bool:
    """Whether layers share a record."""
    return any("/scan_decoder/" in name for name in arrays)


def from_official(arrays: dict[str, Array], config: PaperConfig) -> dict[str, Array]:
    """The same weights as `PaperModel` names and lays them out. Raises OfficialError if one does not fit."""
    if wrong := mismatches(arrays, config):
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise OfficialError(f"the weights are not those of {config.name}: {wrong[0]}{more}")
    own: dict[str, Array] = {}
    for name, array in arrays.items():
        if name in _OUTER:
            target, turned = _OUTER[name]
            own[target] = _turn(array, turned)
            continue
        half, _, layer, rest = name.split("/", 3)
        target, turned = _LAYER[rest]
        members = enumerate(array.values) if layer == "scan_decoder" else [(int(layer), array.values)]
        for number, values in members:
            own[f"{half}.blocks.layers.{number}.{target}"] = _turn(Array(values, array.dtype), turned)
    return own


def _turn(array: Array, turned: bool) -> Array:
    """Official kernels are (in, out), torch's (out, in)."""
    return Array(np.ascontiguousarray(array.values.T), array.dtype) if turned else array

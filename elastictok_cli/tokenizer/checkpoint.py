"""Checkpoints: safetensors with the configuration as JSON in the metadata. Never a pickle.

The sha256 of the file is the model's identity: `.etk` files record it and the decoder compares it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from elastictok_cli.tokenizer.default import DefaultConfig, DefaultModel, DefaultTokenizer

ARCHITECTURE = "elastictok-default-2"


class CheckpointError(Exception):
    """A checkpoint that cannot be used; the message is one sentence for the user."""


@dataclass(frozen=True)
class Loaded:
    """A model ready for the codec, and the facts of the file it came from."""

    tokenizer: DefaultTokenizer
    path: Path
    sha256: bytes
    training: dict[str, Any]  # how it was trained, as `elastictok train` wrote it


def shipped() -> Path:
    """The checkpoint inside the package."""
    return Path(str(resources.files("elastictok_cli") / "weights" / "default.safetensors"))


def digest(path: Path) -> bytes:
    """sha256 of a file's bytes, 32 bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def save(model: DefaultModel, path: Path, training: dict[str, Any], *, half: bool = True) -> None:
    """Write a checkpoint; `half` stores matrices as float16 (they are used as float32)."""
    tensors = {}
    for name, value in model.state_dict().items():
        shrink = half and value.is_floating_point() and value.ndim > 1 and "log_step" not in name
        tensors[name] = value.detach().cpu().to(torch.float16 if shrink else value.dtype).contiguous()
    metadata = {
        "architecture": ARCHITECTURE,
        "config": json.dumps(model.config.to_dict()),
        "training": json.dumps(training),
    }
    partial = path.with_name(path.name + ".part")
    save_file(tensors, partial, metadata)
    partial.replace(path)


def load(path: Path | None = None, device: torch.device | str = "cpu") -> Loaded:
    """Read a checkpoint (the shipped one by default) and build its tokenizer. Raises CheckpointError."""
    path = path or shipped()
    if not path.is_file():
        raise CheckpointError(f"no model file at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a safetensors file ({error})") from None
    if metadata.get("architecture") != ARCHITECTURE:
        raise CheckpointError(
            f"{path} holds {metadata.get('architecture', 'no elastictok model')}; "
            f"this version reads {ARCHITECTURE}"
        )
    try:
        config = DefaultConfig.from_dict(json.loads(metadata["config"]))
        model = DefaultModel(config)
        own = model.state_dict()
        model.load_state_dict({n: t.to(own[n].dtype) if n in own else t for n, t in tensors.items()})
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{path} does not fit its own configuration ({str(error).splitlines()[0]})"
        ) from None
    model.requires_grad_(False).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    training = json.loads(metadata.get("training", "{}"))
    return Loaded(DefaultTokenizer(model), path, digest(path), training)

"""Checkpoints: safetensors with the configuration as JSON in the metadata. Never a pickle.

The sha256 of the file is the model's identity: `.etk` files record it and the decoder compares it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from elastictok_cli.files import Unwritable, replacing
from elastictok_cli.models import precision
from elastictok_cli.models.cell.config import DefaultConfig
from elastictok_cli.models.cell.networks import DefaultModel
from elastictok_cli.models.cell.tokenizer import DefaultTokenizer
from elastictok_cli.models.interface import (
    DEFAULT_ARCHITECTURE,
    LengthTokenizer,
    NestedTokenizer,
)
from elastictok_cli.models.interface import Loaded as Loaded
from elastictok_cli.models.interface import where_to_get as where_to_get
from elastictok_cli.models.paper.config import PaperConfig
from elastictok_cli.models.paper.tiles import PaperTokenizer
from elastictok_cli.models.paper.transformer import PaperModel

ARCHITECTURE = DEFAULT_ARCHITECTURE
PAPER = "elastictok-paper-1"


class CheckpointError(Exception):
    """A checkpoint that cannot be used; the message is one sentence for the user."""


def shipped() -> Path:
    """The checkpoint inside the package."""
    return Path(str(resources.files("elastictok_cli") / "weights" / "default.safetensors"))


def digest(path: Path) -> bytes:
    """sha256 of a file's bytes, 32 bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def save(
    model: DefaultModel | PaperModel, path: Path, training: dict[str, Any], *, half: bool = True
) -> None:
    """Write a checkpoint. `half` stores matrices in 16 bits (they are used as float32).

    Those are float16 for the default model and bfloat16, as published, for the paper's.
    """
    narrow = torch.bfloat16 if isinstance(model, PaperModel) else torch.float16
    tensors = {}
    for name, value in model.state_dict().items():
        shrink = half and value.is_floating_point() and value.ndim > 1 and "log_step" not in name
        tensors[name] = value.detach().cpu().to(narrow if shrink else value.dtype).contiguous()
    architecture = PAPER if isinstance(model, PaperModel) else ARCHITECTURE
    write(tensors, path, architecture, model.config.to_dict(), training)


def write(
    tensors: dict[str, torch.Tensor],
    path: Path,
    architecture: str,
    config: dict[str, Any],
    training: dict[str, Any],
) -> None:
    """Write a checkpoint of these very tensors; under its name only when it is complete. Raises Unwritable."""
    metadata = {
        "architecture": architecture,
        "config": json.dumps(config),
        "training": json.dumps(training),
    }
    with replacing(path) as part:
        try:
            save_file(tensors, part, metadata)
        except SafetensorError as error:  # of the system too: a full disk
            raise Unwritable(path, str(error)) from error


def load(path: Path | None = None, device: torch.device | str = "cpu") -> Loaded:
    """Read a checkpoint (the shipped one by default) and build its tokenizer. Raises CheckpointError.

    Whoever loads one means to code with it, so TF32 is off from here on, and sums do not depend on threads: see
    `precision`.
    """
    precision.forbid_tf32()
    precision.forbid_sums_by_threads()
    path = path or shipped()
    if not path.is_file():
        raise CheckpointError(f"no model file at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a safetensors file ({error})") from None
    architecture = metadata.get("architecture")
    builders: dict[str, Callable[..., NestedTokenizer | LengthTokenizer]]
    builders = {ARCHITECTURE: _default_tokenizer, PAPER: _paper_tokenizer}
    if architecture not in builders:
        raise CheckpointError(
            f"{path} holds {architecture or 'no elastictok model'}; this version reads {' and '.join(builders)}"
        )
    try:
        config = json.loads(metadata["config"])
        training = json.loads(metadata.get("training", "{}"))
        tokenizer = builders[architecture](config, tensors, device)
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise CheckpointError(
            f"{path} does not fit its own configuration ({str(error).splitlines()[0]})"
        ) from None
    sha256 = digest(path)
    return Loaded(
        tokenizer, path, sha256, training, partial(_load_again, path.absolute(), sha256, str(device))
    )


def _load_again(path: Path, sha256: bytes, device: str) -> Loaded:
    """The same model from the same file. Raises CheckpointError where it is another one now."""
    loaded = load(path, device)
    if loaded.sha256 != sha256:
        raise CheckpointError(f"{path} has changed since it was read")
    return loaded


def _default_tokenizer(
    config: dict[str, Any], tensors: dict[str, torch.Tensor], device: torch.device | str
) -> DefaultTokenizer:
    model = DefaultModel(DefaultConfig.from_dict(config))
    own = model.state_dict()
    model.load_state_dict({n: t.to(own[n].dtype) if n in own else t for n, t in tensors.items()})
    model.requires_grad_(False).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return DefaultTokenizer(model)


def _paper_tokenizer(
    config: dict[str, Any], tensors: dict[str, torch.Tensor], device: torch.device | str
) -> PaperTokenizer:
    with torch.device("meta"):  # hundreds of millions of numbers need not be drawn first
        model = PaperModel(PaperConfig.from_dict(config))
    model.load_state_dict(
        {name: tensors[name].to(device, torch.float32) for name in list(tensors)}, assign=True
    )
    return PaperTokenizer(model.requires_grad_(False))

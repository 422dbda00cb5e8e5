"""Weights on a device, as Python sees them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from elastictok_cli.models.checkpoint import Loaded


@dataclass(frozen=True, eq=False)
class Model:
    """Weights on a device, ready to encode and decode. `load_model` makes it."""

    loaded: Loaded
    device: torch.device

    @property
    def name(self) -> str:
        """As files record it."""
        return self.loaded.tokenizer.spec.name

    @property
    def sha256(self) -> str:
        """Of the weights file, 64 hexadecimal digits: the identity of the model. A file decodes with no other."""
        return self.loaded.sha256.hex()

    @property
    def block_frames(self) -> int:
        """Frames of a whole block."""
        return self.loaded.tokenizer.spec.frames

    @property
    def cell(self) -> tuple[int, int]:
        """Height and width in pixels of the area that owns one sequence of tokens."""
        return self.loaded.tokenizer.spec.cell

    @property
    def tokens_per_cell(self) -> int:
        """The most tokens that a cell of a block can keep."""
        return self.loaded.tokenizer.spec.tokens_per_cell

    @property
    def vocabulary(self) -> int:
        """Token values are 0 to this, exclusive; 0 where tokens are vectors."""
        return self.loaded.tokenizer.spec.vocabulary

    def __repr__(self) -> str:
        return f"<Model {self.name} on {self.device}>"


def load_model(path: str | Path | None = None, device: str | torch.device = "auto") -> Model:
    """Load weights.

    `path`: a .safetensors file that `elastictok train` or `convert` made; the weights of the package by default.
    `device`: auto (cuda, else mps, else cpu) or any of these names. Turns TF32 off in this process, because tokens
    depend on whole float32.

    Raises CheckpointError where the file holds no model, ValueError where torch cannot use the device.
    """
    from elastictok_cli.devices import find_device
    from elastictok_cli.models import checkpoint

    where = find_device(str(device))
    return Model(checkpoint.load(None if path is None else Path(path), where), where)

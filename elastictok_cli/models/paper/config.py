"""Sizes of the paper's model, and the two published configurations."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class PaperConfig:
    """Sizes of a model; stored in the checkpoint."""

    name: str = "elastictok-fsq-200m"
    bottleneck: Literal["fsq", "vae"] = "fsq"
    patch: tuple[int, int, int] = (1, 8, 8)  # frames, height, width
    frames: int = 4  # of a block
    size: int = 256  # side of a tile in pixels
    min_tokens: int = 256  # shortest length seen in training; the longest is all of them
    hidden: int = 1024
    mlp: int = 2048
    encoder_layers: int = 10
    decoder_layers: int = 10
    heads: int = 8
    eps: float = 1e-5
    theta: float = 5e7
    levels: tuple[int, ...] = (8, 8, 8, 5, 5, 5)  # FSQ
    latent: int = 8  # VAE
    window: int = 4  # blocks that attention spans, the current one included: those of a chunk in training

    def __post_init__(self) -> None:
        sizes = [getattr(self, f.name) for f in fields(self) if type(f.default) is int]
        if not all(type(n) is int and n > 0 for n in [*sizes, *self.patch, *self.levels]):
            raise ValueError("sizes must be whole numbers above 0")
        if len(self.patch) != 3 or self.bottleneck not in ("fsq", "vae"):
            raise ValueError("patch has three sides, bottleneck is fsq or vae")
        if self.frames % self.patch[0] or self.size % self.patch[1] or self.size % self.patch[2]:
            raise ValueError("patches do not fill a tile")
        if self.hidden % (2 * self.heads):
            raise ValueError("hidden must be heads times an even number")
        if self.min_tokens > self.block_tokens:
            raise ValueError("min_tokens is more than a block has")
        if self.block_tokens > 8192 or math.prod(self.levels) > 65536 or self.latent > 64 or self.frames > 32:
            raise ValueError(
                "sizes are beyond what a file holds: 8192 tokens, 65536 codes, 64 numbers, 32 frames"
            )

    @property
    def block_tokens(self) -> int:
        """N, tokens of a block: the longest length."""
        return self.frames // self.patch[0] * (self.size // self.patch[1]) * (self.size // self.patch[2])

    @property
    def patch_values(self) -> int:
        """P, numbers in a patch."""
        return 3 * math.prod(self.patch)

    @property
    def code_dim(self) -> int:
        """d, numbers in a token as the decoder gets it."""
        return len(self.levels) if self.bottleneck == "fsq" else self.latent

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> PaperConfig:
        """Inverse of `to_dict`. Raises TypeError for unknown keys, ValueError for sizes that do not fit."""
        if unknown := set(values) - {f.name for f in fields(cls)}:
            raise TypeError(f"unknown settings {sorted(unknown)}")
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**plain)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def named(cls, name: str) -> PaperConfig:
        """A published config ("fsq-200m", "vae-200m"), or that of a JSON file of settings.

        Raises ValueError with one sentence for the user.
        """
        if name in PRESETS:
            return PRESETS[name]
        path = Path(name)
        if not path.is_file():
            raise ValueError(f"{name} is neither a config ({', '.join(PRESETS)}) nor a file")
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(values, dict):
                raise TypeError("it must be an object")
            return cls.from_dict(values)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{name} is no config: {error}") from None


PRESETS = {
    "fsq-200m": PaperConfig(),
    "vae-200m": PaperConfig(
        name="elastictok-vae-200m", bottleneck="vae", patch=(2, 8, 8), min_tokens=128, theta=5e6
    ),
}

"""Tokens and bytes our codec needs on a clip at a target, through the real encoder, file and decoder."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch

from elastictok_cli.codec import events
from elastictok_cli.codec.decoder import decode
from elastictok_cli.codec.encoder import EncodeOptions, encode, make_header
from elastictok_cli.codec.rate_control import DEFAULT_EFFORT
from elastictok_cli.evaluation import clips
from elastictok_cli.models.checkpoint import Loaded
from formats import EtkReader, EtkWriter


@dataclass(frozen=True)
class Measured:
    """One clip at one target. A block is 4 frames here, whatever lengths the encoder chose."""

    clip: str
    target: float  # MSE on [-1, 1] pixels
    frames: int
    blocks: int  # as the encoder cut them
    missed: int  # of those
    tokens: int
    bytes: int  # of the whole file
    encode_seconds: float
    decode_seconds: float

    @property
    def tokens_per_block(self) -> float:
        """Per 4 frames."""
        return 4 * self.tokens / self.frames

    @property
    def bytes_per_block(self) -> float:
        """Per 4 frames."""
        return 4 * self.bytes / self.frames


def measure(
    loaded: Loaded, clip: clips.Clip, target: float, device: torch.device, *, effort: int = DEFAULT_EFFORT
) -> Measured:
    """Encode to memory, decode again. Raises ValueError if the decoder gives another number of frames."""
    options = EncodeOptions(mse=target, effort=effort)
    file = io.BytesIO()
    writer = EtkWriter(file, make_header(clip.info, loaded, options))
    *_, last = encode(clip.info, clip.frames, lambda: b"", loaded, writer, options, device)
    assert isinstance(last, events.Finished)
    file.seek(0)
    began = time.monotonic()
    with EtkReader(file) as reader:
        decoded = sum(1 for _ in decode(reader, loaded, device))
    if decoded != len(clip.frames):
        raise ValueError(f"{clip.name}: {len(clip.frames)} frames in, {decoded} out")
    return Measured(
        clip=clip.name,
        target=target,
        frames=last.frames,
        blocks=last.blocks,
        missed=last.missed_blocks,
        tokens=last.tokens,
        bytes=last.bytes,
        encode_seconds=last.seconds,
        decode_seconds=time.monotonic() - began,
    )


def geometric_mean(values: Sequence[float]) -> float:
    """Of positive values."""
    return math.exp(fmean(math.log(v) for v in values))


def summary_at(
    loaded: Loaded, folders: list[Path], device: torch.device, *, target: float = 0.007, frames: int = 24
) -> dict[str, float]:
    """What training reports now and then: geometric means per 256x256x4 block, and the share of blocks missed."""
    found = [measure(loaded, clips.load(path, frames=frames), target, device) for path in clips.find(folders)]
    return {
        "target": target,
        "tokens_per_block": geometric_mean([m.tokens_per_block + 1 for m in found]) - 1,
        "bytes_per_block": geometric_mean([m.bytes_per_block for m in found]),
        "missed": sum(m.missed for m in found) / sum(m.blocks for m in found),
    }

"""Tokens and bytes our codec needs on a clip at a target, and its error, through the real encoder, file and decoder."""

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
from elastictok_cli.codec.pixels import picture_error
from elastictok_cli.codec.rate_control import DEFAULT_EFFORT
from elastictok_cli.evaluation import clips
from elastictok_cli.models.checkpoint import Loaded
from formats import EtkReader, EtkWriter

PIXELS_OF_BLOCK = 4 * 256 * 256


@dataclass(frozen=True)
class Measured:
    """One clip at one target. "Per block" is per 256x256 pixels x 4 frames, whatever blocks the encoder chose."""

    clip: str
    target: float  # MSE on [-1, 1] pixels
    mse: float  # what the decoder's pixels have, mean over frames
    frames: int
    height: int
    width: int
    blocks: int  # as the encoder cut them
    missed: int  # of those
    tokens: int
    bytes: int  # of the whole file
    encode_seconds: float
    decode_seconds: float

    @property
    def tokens_per_block(self) -> float:
        """Per 256x256x4 pixels."""
        return self.tokens / self._blocks_of_pixels

    @property
    def bytes_per_block(self) -> float:
        """Per 256x256x4 pixels."""
        return self.bytes / self._blocks_of_pixels

    @property
    def _blocks_of_pixels(self) -> float:
        return self.frames * self.height * self.width / PIXELS_OF_BLOCK


def measure(
    loaded: Loaded, clip: clips.Clip, target: float, device: torch.device, *, effort: int = DEFAULT_EFFORT
) -> Measured:
    """Encode to memory, decode again, compare with the source.

    Raises ValueError if the decoder gives other frames, by number or time.
    """
    options = EncodeOptions(mse=target, effort=effort)
    file = io.BytesIO()
    writer = EtkWriter(file, make_header(clip.info, loaded, options))
    *_, last = encode(clip.info, clip.frames, lambda: b"", loaded, writer, options, device)
    assert isinstance(last, events.Finished)
    file.seek(0)
    began = time.monotonic()
    with EtkReader(file) as reader:
        decoded = list(decode(reader, loaded, device))
    decode_seconds = time.monotonic() - began
    if [frame.pts for frame in decoded] != [frame.pts for frame in clip.frames]:
        raise ValueError(f"{clip.name}: {len(clip.frames)} frames in, {len(decoded)} out, or at other times")
    height, width = clip.frames[0].rgb.shape[:2]
    return Measured(
        clip=clip.name,
        target=target,
        mse=fmean(
            picture_error(source.rgb, shown.rgb) for source, shown in zip(clip.frames, decoded, strict=True)
        ),
        frames=last.frames,
        height=height,
        width=width,
        blocks=last.blocks,
        missed=last.missed_blocks,
        tokens=last.tokens,
        bytes=last.bytes,
        encode_seconds=last.seconds,
        decode_seconds=decode_seconds,
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

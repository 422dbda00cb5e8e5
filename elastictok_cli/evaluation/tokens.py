"""Tokens and bytes our codec needs on a clip at a target, and its error, through the real encoder, file and decoder."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from statistics import fmean

import torch

from elastictok_cli.codec import events
from elastictok_cli.codec.budget import Promise
from elastictok_cli.codec.decoder import decode
from elastictok_cli.codec.encoder import EncodeOptions, encode, make_header
from elastictok_cli.codec.passes import encode_in_passes
from elastictok_cli.codec.pixels import picture_error
from elastictok_cli.codec.rate_control import DEFAULT_EFFORT
from elastictok_cli.evaluation import clips
from elastictok_cli.models.checkpoint import Loaded
from elastictok_cli.video import VideoInfo
from formats import EtkReader, EtkWriter

PIXELS_OF_BLOCK = 4 * 256 * 256


@dataclass(frozen=True)
class Measured:
    """One clip at one target. "Per block" is per 256x256 pixels x 4 frames, whatever blocks the encoder chose."""

    clip: str
    target: float  # MSE on [-1, 1] pixels; infinite where there was none
    mse: float  # what the decoder's pixels have, mean over frames
    frames: int
    height: int
    width: int
    blocks: int  # as the encoder cut them
    missed: int  # of those: above the target, or where that is promised for the video, above DEFAULT_WORST times it
    tokens: int
    bytes: int  # of the whole file
    encode_seconds: float  # of all passes
    decode_seconds: float
    promise: Promise = "block"
    worst_mse: float | None = None  # the highest of a block, of the decoder's pixels; None: it was not kept

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
    loaded: Loaded,
    clip: clips.Clip,
    target: float,
    device: torch.device,
    *,
    effort: int = DEFAULT_EFFORT,
    promise: Promise = "block",
) -> Measured:
    """Encode to memory, decode again, compare with the source.

    promise: what the target is promised for, every block or the mean of the video. Raises ValueError if the decoder
    gives other frames, by number or time.
    """
    return measure_options(loaded, clip, EncodeOptions(mse=target, effort=effort, promise=promise), device)


def measure_options(
    loaded: Loaded, clip: clips.Clip, options: EncodeOptions, device: torch.device
) -> Measured:
    """The same with any options of an encode."""
    file = io.BytesIO()
    last, lengths = _encoded(_events(loaded, clip, options, device, file))
    file.seek(0)
    began = time.monotonic()
    with EtkReader(file) as reader:
        decoded = list(decode(reader, loaded, device))
    decode_seconds = time.monotonic() - began
    if [frame.pts for frame in decoded] != [frame.pts for frame in clip.frames]:
        raise ValueError(f"{clip.name}: {len(clip.frames)} frames in, {len(decoded)} out, or at other times")
    errors = [
        picture_error(source.rgb, shown.rgb) for source, shown in zip(clip.frames, decoded, strict=True)
    ]
    height, width = clip.frames[0].rgb.shape[:2]
    return Measured(
        clip=clip.name,
        target=math.inf if options.mse is None else options.mse,
        mse=fmean(errors),
        frames=last.frames,
        height=height,
        width=width,
        blocks=last.blocks,
        missed=last.missed_blocks,
        tokens=last.tokens,
        bytes=last.bytes,
        encode_seconds=last.seconds,
        decode_seconds=decode_seconds,
        promise=options.promise,
        worst_mse=_worst(errors, lengths),
    )


def _events(
    loaded: Loaded, clip: clips.Clip, options: EncodeOptions, device: torch.device, file: io.BytesIO
) -> Generator[events.Event, None, None]:
    """Encode into `file`: in passes where the options need them."""
    header = make_header(clip.info, loaded, options)
    if not options.planned:
        return encode(clip.info, clip.frames, lambda: b"", loaded, EtkWriter(file, header), options, device)

    def start(info: VideoInfo, _: object) -> EtkWriter:
        file.seek(0)
        file.truncate()
        return EtkWriter(file, make_header(info, loaded, options))

    return encode_in_passes(clip.open, start, header, loaded, options, device)


def _encoded(encoding: Generator[events.Event, None, None]) -> tuple[events.Finished, list[int]]:
    """The end of an encode, and how many frames each block of the finished file has."""
    lengths: list[int] = []
    for event in encoding:
        if isinstance(event, events.BlockDone):
            lengths.append(event.frames)
        elif isinstance(event, events.Restarted):
            lengths = []
    assert isinstance(event, events.Finished)
    return event, lengths


def _worst(errors: Sequence[float], lengths: Sequence[int]) -> float:
    """The highest mean error of a block. errors: MSE of each frame; lengths: frames of each block."""
    ends = list(accumulate(lengths))
    return max(fmean(errors[end - length : end]) for end, length in zip(ends, lengths, strict=True))


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

"""Coded blocks without their frames: what the encoder writes and tells, and what a worker process sends."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from elastictok_cli.codec.block_splitting import SourceBlock
from elastictok_cli.codec.options import EncodeOptions
from elastictok_cli.codec.probing import Coded
from elastictok_cli.codec.scene_encoder import encode_scene
from elastictok_cli.codec.scenes import Scene
from elastictok_cli.models.interface import Loaded
from elastictok_cli.video.records import Frame
from formats import Block, pack_tokens


@dataclass(frozen=True)
class EncodedBlock:
    """One coded block.

    record: as the file format stores it. keyframe: whether it starts a segment. mse: on [-1, 1] pixels, as decoded.
    """

    record: Block
    keyframe: bool
    mse: float


def encode_blocks(
    loaded: Loaded,
    frames: Iterable[Frame],
    starts_at_cut: bool,
    options: EncodeOptions,
    device: torch.device,
    grid: tuple[int, int],
) -> Iterator[EncodedBlock]:
    """The coded blocks of the scene that these frames are, in order. See `encode_scene`."""
    scene = Scene(frames, starts_at_cut)
    for block, coded in encode_scene(scene, loaded.tokenizer, options, device, grid):
        yield EncodedBlock(to_record(block, coded), block.keyframe, coded.mse)


def to_record(block: SourceBlock, coded: Coded) -> Block:
    """The block as the file format stores it."""
    keep = coded.keep[0].cpu().numpy().astype(np.uint16)
    tokens = coded.tokens[0].cpu()
    if not tokens.is_floating_point():
        tokens = tokens.clamp_min(0)
    return Block(
        pts=tuple(f.pts for f in block.frames),
        durations=tuple(f.duration for f in block.frames),
        keep=keep,
        tokens=pack_tokens(tokens.numpy(), keep),
        frame_mse=coded.frame_mse,
        missed=coded.missed,
        scene_cut=block.scene_cut,
    )

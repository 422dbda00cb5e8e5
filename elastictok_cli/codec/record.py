"""A coded block as the file format stores it."""

from __future__ import annotations

import numpy as np

from elastictok_cli.codec.block_splitting import SourceBlock
from elastictok_cli.codec.probing import Coded
from formats import Block, pack_tokens


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

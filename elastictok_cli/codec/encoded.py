"""Coded blocks without their frames: what the encoder writes and tells, and what a worker process sends."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch

from elastictok_cli.codec.options import EncodeOptions
from elastictok_cli.codec.record import to_record
from elastictok_cli.codec.scene_encoder import encode_scene
from elastictok_cli.codec.scene_plan import ScenePlan
from elastictok_cli.codec.scenes import Scene
from elastictok_cli.models.interface import Loaded
from elastictok_cli.video.records import Frame
from formats import Block, Header


@dataclass(frozen=True)
class EncodedBlock:
    """One coded block.

    record: as the file format stores it. keyframe: whether it starts a segment. mse: on [-1, 1] pixels, as decoded.
    price: lambda, where there is a plan.
    """

    record: Block
    keyframe: bool
    mse: float
    price: float | None = None


def encode_blocks(
    loaded: Loaded,
    frames: Iterable[Frame],
    starts_at_cut: bool,
    options: EncodeOptions,
    device: torch.device,
    grid: tuple[int, int],
    plan: ScenePlan | None = None,
    header: Header | None = None,
) -> Iterator[EncodedBlock]:
    """The coded blocks of the scene that these frames are, in order. See `encode_scene`."""
    scene = Scene(frames, starts_at_cut)
    for block, coded in encode_scene(scene, loaded.tokenizer, options, device, grid, plan, header):
        yield EncodedBlock(to_record(block, coded), block.keyframe, coded.mse, coded.price)

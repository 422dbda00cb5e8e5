"""Blocks that miss the target are counted, and the first of them named: a long video may have any number."""

import io
from fractions import Fraction

import numpy as np
import pytest
import torch

from elastictok_cli.codec import events, probing
from elastictok_cli.codec.encoder import EncodeOptions, encode, make_header
from elastictok_cli.models import checkpoint
from elastictok_cli.video.records import Frame, VideoInfo
from formats import EtkWriter


def encoded(blocks: int) -> list[events.Event]:
    """Noise of which every block misses a target of next to nothing, with the few tokens that fit into a segment."""
    rng = np.random.default_rng(0)
    frames = [Frame(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8), n, 1) for n in range(blocks)]
    info = VideoInfo(
        width=16,
        height=16,
        time_base=Fraction(1, 25),
        average_rate=Fraction(25),
        frame_count=blocks,
        duration=blocks / 25,
        rotation=0,
        pixel_aspect=Fraction(1),
        pixel_format="yuv420p",
        color={},
        size_bytes=1000,
        codec="rawvideo",
        metadata={},
        aux_streams=(),
        aux_container=None,
        start_pts=0,
        is_still=False,
    )
    loaded, cpu = checkpoint.load(), torch.device("cpu")
    options = EncodeOptions(mse=1e-9, keyframe_interval=0.01)  # every frame a block
    writer = EtkWriter(io.BytesIO(), make_header(info, loaded, options))
    return list(encode(info, iter(frames), lambda: b"", loaded, writer, options, cpu))


def test_all_are_counted_and_the_first_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert events.MOST_MISSED == 100  # as docs/json-output.md has it
    monkeypatch.setattr(events, "MOST_MISSED", 3)
    monkeypatch.setattr(probing, "max_segment_tokens", lambda vector: 100)
    for blocks, named in ((2, (0, 1)), (5, (0, 1, 2))):
        seen = encoded(blocks)
        assert sum(e.missed for e in seen if isinstance(e, events.BlockDone)) == blocks
        last = seen[-1]
        assert isinstance(last, events.Finished)
        assert last.missed_blocks == last.blocks == blocks
        assert last.missed == named

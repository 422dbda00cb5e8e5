"""The first of two passes: the rate curve of a scene, by encoding it quickly.

Blocks are coded as they are proposed, with one decode each, to an error that the video should have in the mean. So
each is predicted from about what it will be predicted from later, and its curve says what any lambda would lead to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from elastictok_cli.codec.block_splitting import BlockSplitter
from elastictok_cli.codec.constant_lambda import ConstantLambdaCoder, price_of
from elastictok_cli.codec.lookahead import LOOKAHEAD_FRAMES
from elastictok_cli.codec.options import EncodeOptions
from elastictok_cli.codec.rate_curve import RateCurve, prices
from elastictok_cli.codec.record import to_record
from elastictok_cli.codec.scene_plan import SceneSurvey, progress
from elastictok_cli.codec.scenes import Scene
from elastictok_cli.models.interface import Loaded
from elastictok_cli.video.records import Frame
from formats import Block, Header, segment_bytes

MAX_PACKED_BLOCKS = 16  # of a scene, to see how many bytes its tokens take
USUAL_BYTES_PER_TOKEN = 2.0
USUAL_TARGET = 0.007  # MSE that is assumed of a budget at first
# A survey to an error that is more than so many times too high or too low is made again, but no more than so often.
MAX_DISTANCE_OF_SURVEY = 2.5
MAX_SURVEYS = 3


def survey_scene(
    loaded: Loaded,
    frames: Iterable[Frame],
    starts_at_cut: bool,
    options: EncodeOptions,
    device: torch.device,
    grid: tuple[int, int],
    target: float,
    header: Header,
) -> Iterator[SceneSurvey]:
    """One survey: that of the scene that these frames are, coded to about this MSE in every block."""
    tokenizer: Any = loaded.tokenizer
    spec = tokenizer.spec
    coder = ConstantLambdaCoder(tokenizer, options, device, grid, usual=target, worst=None)
    splitter = BlockSplitter(
        Scene(frames, starts_at_cut),
        block_frames=spec.frames,
        still_mse=target,
        ahead=LOOKAHEAD_FRAMES,
    )
    total = RateCurve.zero(prices(spec))
    counts: list[int] = []
    errors: list[float] = []
    tokens: list[float] = []
    packed: list[Block] = []
    context: Any = None
    price = price_of(tokenizer, target)
    while (block := splitter.propose()) is not None:
        coder.begin(block)
        candidate = coder.whole(block, context, price)
        coded, predicted, price = coder.code_to(candidate, target)
        curve = coder.curve(candidate)
        measured = coded.mse / max(predicted, 1e-12)
        coder.commit(block, coded)
        total = total + RateCurve(curve.prices, measured * curve.error, curve.tokens)
        counts.append(len(block.frames))
        errors.append(sum(coded.frame_mse))
        tokens.append(float(coded.keep.sum()))
        if len(packed) < MAX_PACKED_BLOCKS:
            packed.append(to_record(block, coded))
        context = coded.context
        splitter.take(len(block.frames))
    fixed, each = _bytes_of(packed, header)
    yield SceneSurvey(
        frames=sum(counts),
        curve=total,
        fixed_bytes=fixed * len(counts) / max(1, len(packed)),
        bytes_per_token=each,
        progress_error=progress(errors, counts),
        progress_tokens=progress(tokens, counts),
    )


def _bytes_of(blocks: list[Block], header: Header) -> tuple[float, float]:
    """The bytes of a segment of these blocks without any token, and those that a token adds."""
    size = segment_bytes(header, blocks)
    without = [replace(b, keep=np.zeros_like(b.keep), tokens=b.tokens[:0]) for b in blocks]
    fixed = segment_bytes(header, without)
    kept = sum(block.token_count for block in blocks)
    return fixed, (size - fixed) / kept if kept else USUAL_BYTES_PER_TOKEN


def first_target(options: EncodeOptions) -> float:
    """The error (MSE) of the first survey."""
    return USUAL_TARGET if options.mse is None else options.mse


def is_near(wanted: float, target: float) -> bool:
    """Whether a survey to `target` says enough about the wanted error."""
    return 1 / MAX_DISTANCE_OF_SURVEY <= wanted / target <= MAX_DISTANCE_OF_SURVEY

"""Coding the blocks of a scene by its plan: at the lambda that uses up what the scene may spend."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from elastictok_cli.codec.block_splitting import SourceBlock
from elastictok_cli.codec.constant_lambda import Candidate, ConstantLambdaCoder
from elastictok_cli.codec.options import EncodeOptions
from elastictok_cli.codec.probing import Coded, probe
from elastictok_cli.codec.record import to_record
from elastictok_cli.codec.scene_plan import MAX_CHANGE_OF_PRICE, Controller, ScenePlan
from elastictok_cli.models.interface import NestedTokenizer
from elastictok_cli.video.records import Frame
from formats import Block, Header, segment_bytes

BLOCKS_PER_MEASURED_SIZE = 8  # blocks after which the bytes of a segment are measured again
MAX_SURPRISE = 2.25  # times or parts of the error that is expected of a keyframe block
_HIGHEST_PRICE = 1e12  # squared error per token: no token saves that much
_STEPS_TO_FIT = 12  # of the bisection for the lambda of the last block, in which that fits
_MAX_PACKS = 6  # of the last segment, until its bytes fit


class PlannedCoder:
    """Codes the blocks of one scene, one after another: the next lambda by what those before have spent."""

    def __init__(
        self,
        tokenizer: NestedTokenizer,
        options: EncodeOptions,
        device: torch.device,
        grid: tuple[int, int],
        plan: ScenePlan,
        header: Header,
    ) -> None:
        self._coder = ConstantLambdaCoder(
            tokenizer, options, device, grid, usual=plan.usual_error, worst=plan.worst
        )
        self._plan = plan
        self._before = _Progress(Controller(plan), _Sizes(header, plan.survey.bytes_per_token))
        self._after = self._before
        self._first: Frame | None = None  # of the block coded last

    def code(self, block: SourceBlock, context: Any) -> tuple[SourceBlock, Coded]:
        """See `scene_encoder.BlockCoder.code`."""
        if block.frames[0] is not self._first:  # else the block before was not taken, and counts for nothing
            self._before = self._after
        controller, sizes = copy.copy(self._before.controller), self._before.sizes.copy()
        self._coder.begin(block)
        price = controller.price()
        chosen = self._coder.choose(block, context, price)
        price = controller.price_with(self._coder.curve(chosen), len(chosen.block.frames))
        last = not block.ahead and len(chosen.block.frames) == len(block.frames)
        if last:
            coded = self._code_last(chosen, price, controller, sizes)
        else:
            coded = self._code(chosen, price, controller)
        coded = replace(coded, price=price)
        self._coder.commit(chosen.block, coded)
        sizes.add(to_record(chosen.block, coded), chosen.block.keyframe)
        controller.note(len(chosen.block.frames), price, self._spent(controller, coded, sizes))
        self._after, self._first = _Progress(controller, sizes), block.frames[0]
        return chosen.block, coded

    def _code(self, chosen: Candidate, price: float, controller: Controller) -> Coded:
        """A block at a lambda. Where that leads far from what is expected of a keyframe block, at the expected error:
        cells are filled in from others, so there can be nothing between too few tokens and too many at any lambda."""
        coded = self._coder.code(chosen, price)
        if not chosen.block.keyframe or self._plan.limit != "error":
            return coded
        count = len(chosen.block.frames)
        expected = self._plan.survey.expected("error", controller.frames, count, price) / count
        if expected and not 1 / MAX_SURPRISE <= coded.mse / expected <= MAX_SURPRISE:
            coded, _, _ = self._coder.code_to(chosen, expected)
        return coded

    def _spent(self, controller: Controller, coded: Coded, sizes: _Sizes) -> float:
        match self._plan.limit:
            case "error":
                return controller.spent + sum(coded.frame_mse)
            case "tokens":
                return controller.spent + int(coded.keep.sum())
            case "bytes":
                return sizes.total()

    def _code_last(self, chosen: Candidate, price: float, controller: Controller, sizes: _Sizes) -> Coded:
        """The last block of the scene, which gets what is left."""
        if self._plan.limit != "error":
            return self._within(chosen, controller, sizes)
        model = copy.copy(chosen.draft.model)
        expected = [
            model.error_of(model.allocate_at(chosen.draft.price * change)) / self._coder.values(chosen.draft)
            for change in (1 / MAX_CHANGE_OF_PRICE, MAX_CHANGE_OF_PRICE)
        ]
        left = controller.left / len(chosen.block.frames)
        goal = min(max(left, expected[0]), max(expected[1], expected[0]))
        worst = self._plan.worst
        if worst is not None:
            goal = min(goal, worst)
        coded = self._coder.meet(chosen, goal)
        return replace(coded, missed=worst is not None and coded.mse > worst)

    def _within(self, chosen: Candidate, controller: Controller, sizes: _Sizes) -> Coded:
        """The block with as many tokens as fit."""
        in_bytes = self._plan.limit == "bytes"
        if in_bytes:
            sizes.measure()
        most = controller.left if not in_bytes else (self._plan.most - sizes.total()) / sizes.each
        keep = self._fitting(chosen, most)
        draft = chosen.draft
        coded = probe(self._coder.tokenizer, draft.job, draft.encoding, keep, draft.context, self._plan.worst)
        for _ in range(_MAX_PACKS if in_bytes else 0):
            trial = sizes.copy()
            trial.add(to_record(chosen.block, coded), chosen.block.keyframe)
            trial.measure()
            kept = int(keep.sum())
            if trial.total() <= self._plan.most or not kept:
                break
            over = (trial.total() - self._plan.most) / sizes.each
            keep = self._fitting(chosen, min(kept - over, 0.98 * kept))
            coded = probe(
                self._coder.tokenizer, draft.job, draft.encoding, keep, draft.context, self._plan.worst
            )
        return coded

    def _fitting(self, chosen: Candidate, most: float) -> torch.Tensor:
        """The keep map (1, h, w) at the lowest lambda whose tokens are no more than `most`.

        The lambda is at least a ninth of the planned one: more tokens than that asks for do little good in one block.
        """
        model = copy.copy(chosen.draft.model)
        low, high = chosen.draft.price / MAX_CHANGE_OF_PRICE**2, _HIGHEST_PRICE
        keep = model.allocate_at(low)
        if int(keep.sum()) <= most:
            return keep
        best = model.allocate_at(high)
        high = chosen.draft.price * 1e3
        for _ in range(_STEPS_TO_FIT):
            middle = (low * high) ** 0.5
            keep = model.allocate_at(middle)
            if int(keep.sum()) <= most:
                best, high = keep, middle
            else:
                low = middle
        return best


class _Progress(NamedTuple):
    controller: Controller
    sizes: _Sizes


class _Sizes:
    """Bytes of the segments of a scene; those of the open one are estimated between measurements.

    each: bytes that a token takes.
    """

    def __init__(self, header: Header, each: float) -> None:
        self._header, self.each = header, each
        self._closed = 0  # bytes of the segments that are complete
        self._open: list[Block] = []
        self._measured = 0  # bytes of the open segment when it was measured last
        self._tokens_since = 0  # and its tokens since then
        self._blocks_since = 0

    def copy(self) -> _Sizes:
        """The same sizes, which go their own way."""
        other = copy.copy(self)
        other._open = list(self._open)
        return other

    def add(self, block: Block, keyframe: bool) -> None:
        """A block is coded; a keyframe block starts a segment."""
        if keyframe and self._open:
            self.measure()
            self._closed += self._measured
            self._open, self._measured = [], 0
        self._open.append(block)
        self._tokens_since += block.token_count
        self._blocks_since += 1
        if self._blocks_since >= BLOCKS_PER_MEASURED_SIZE:
            self.measure()

    def measure(self) -> None:
        """Pack the open segment to see its bytes."""
        if not self._open or not self._blocks_since:
            return
        self._measured = segment_bytes(self._header, self._open)
        self._tokens_since = self._blocks_since = 0
        if tokens := sum(block.token_count for block in self._open):
            self.each = self._measured / tokens

    def total(self) -> float:
        """Bytes of all segments so far."""
        return self._closed + self._measured + self.each * self._tokens_since

"""Video to `.etk`: a generator of events that holds one segment of tokens, a block of frames and those ahead of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Literal, cast

import numpy as np
import torch
import torch.nn.functional as F

from elastictok_cli.codec import events, lookahead
from elastictok_cli.codec import length_search as lengths
from elastictok_cli.codec import rate_control as search
from elastictok_cli.codec.scenes import Group, Planner
from elastictok_cli.models.checkpoint import Loaded
from elastictok_cli.models.interface import LengthTokenizer, NestedTokenizer, Tokenizer, TokenizerSpec
from elastictok_cli.models.precision import from_bytes
from elastictok_cli.version import __version__
from elastictok_cli.video.records import Frame, VideoInfo
from formats import (
    MAX_CELLS,
    MAX_SEGMENT_BLOCKS,
    Block,
    ControlRange,
    EtkWriter,
    Header,
    ModelRef,
    max_segment_tokens,
    pack_tokens,
)

KEYFRAME_INTERVAL = 5.0  # seconds, where nothing is said
# FFmpeg's numbers for "not said", which a file need not repeat
_UNSAID = {"color_primaries": 2, "color_trc": 2, "colorspace": 2, "color_range": 0}
_STILL_MSE = 0.007  # what counts as motion when only a token count is asked for
_CLEAR_GAIN = 0.92  # how much cheaper per frame a shorter block must be
_FAR_CHEAPER = 0.6  # the same ratio from which on a single frame needs no comparison with two
_SINGLES = 2  # so many frames may follow a far cheaper single one without a look at longer blocks ...
_AS_BEFORE = 1.3  # ... unless they cost so much more than it
_SUDDEN = 2.0  # times the tokens of the block before: from there on its frames may be cheaper one by one ...
_APART = 0.9  # ... which they must be by so much
_PRICES = (0.1, 3.0)  # range of foreseen prices, as shares of the squared error that a cell may keep
_NEAR_PICTURE = 0.75  # share of the last picture's tokens above which another one is considered


@dataclass(frozen=True)
class EncodeOptions:
    """What is asked of an encode; exactly one of `mse` and `tokens` is set."""

    mse: float | None = 0.007  # target per block, on [-1, 1] pixels
    tokens: int | None = None  # or: this many tokens in every cell
    allocation: Literal["cell", "block"] = "cell"
    keyframe_interval: float = KEYFRAME_INTERVAL  # seconds between seek points
    effort: int = search.DEFAULT_EFFORT  # 0 to 9, for models whose encoder does not see the length
    search: lengths.Method = "binary"  # for models whose encoder sees the length
    guess: lengths.Guess | None = None  # what the search "predict" begins with


def make_header(info: VideoInfo, loaded: Loaded, options: EncodeOptions) -> Header:
    """The file's header for this source, model and request."""
    spec = loaded.tokenizer.spec
    rate = info.average_rate
    return Header(
        model=ModelRef(
            name=spec.name,
            sha256=loaded.sha256,
            levels=spec.levels,
            vocabulary=spec.vocabulary,
            tokens_per_cell=spec.tokens_per_cell,
            block_frames=spec.frames,
            cell=spec.cell,
            vector=spec.vector,
        ),
        width=info.width,
        height=info.height,
        grid=spec.grid(info.height, info.width),
        time_base=(info.time_base.numerator, info.time_base.denominator),
        target_mse=options.mse,
        target_tokens=options.tokens,
        allocation=options.allocation,
        rotation=info.rotation,
        pixel_format=info.pixel_format,
        color={tag: value for tag, value in info.color.items() if value != _UNSAID.get(tag)},
        average_rate=(rate.numerator, rate.denominator) if rate else None,
        pixel_aspect=(info.pixel_aspect.numerator, info.pixel_aspect.denominator),
        source_bytes=info.size_bytes,
        start_time=info.start_pts,
        clock_offset=info.clock_offset,
        chapters=tuple((c.start, c.end, c.title) for c in info.chapters),
        metadata=info.metadata,
        aux={"container": info.aux_container} if info.aux_container else None,
        program=__version__,
        options=_recorded(spec, options),
        control_tokens=tuple(
            ControlRange(r.kind, r.first, r.count, r.followed_by) for r in spec.control_tokens
        ),
    )


def _recorded(spec: TokenizerSpec, options: EncodeOptions) -> dict[str, str | int | float | bool]:
    """The options that the header keeps: those that differ from what is usual."""
    recorded: dict[str, str | int | float | bool] = {}
    if options.keyframe_interval != KEYFRAME_INTERVAL:
        recorded["keyframe_interval"] = options.keyframe_interval
    if not spec.nested:
        recorded["search"] = options.search
    elif options.effort != search.DEFAULT_EFFORT:
        recorded["effort"] = options.effort
    return recorded


def encode(
    info: VideoInfo,
    frames: Iterable[Frame],
    take_aux: Callable[[], bytes],
    loaded: Loaded,
    writer: EtkWriter,
    options: EncodeOptions,
    device: torch.device,
) -> Iterator[events.Event]:
    """Encode `frames` into `writer` (which is closed at the end), yielding events as they happen.

    `take_aux` gives the container bytes of copied streams produced since it was last asked.
    """
    began = time.monotonic()
    tokenizer = loaded.tokenizer
    spec = tokenizer.spec
    rows, cols = spec.grid(info.height, info.width)
    capacity = rows * cols * spec.tokens_per_cell
    yield events.Started(
        width=info.width,
        height=info.height,
        grid=(rows, cols),
        frames=info.frame_count,
        duration=info.duration,
        average_rate=float(info.average_rate) if info.average_rate else None,
        tokens_per_block=capacity,
        target_mse=options.mse,
        model=spec.name,
    )
    totals = _Totals()
    pending: list[Block] = []
    pending_tokens = 0
    context = None
    longest = min(MAX_SEGMENT_BLOCKS, MAX_CELLS // (rows * cols))
    most_tokens = max_segment_tokens(spec.vector)
    planner = Planner(
        frames,
        size=spec.frames,
        interval=Fraction(options.keyframe_interval) / info.time_base
        if options.keyframe_interval > 0
        else None,
        # blocks of one frame are an idea of the default model
        still_mse=(options.mse or _STILL_MSE) if spec.nested else math.inf,
        ahead=lookahead.FRAMES if _weighs(spec, options) else 0,
    )
    coder = _coder(tokenizer, options, device, (rows, cols))
    index = 0
    while (proposed := planner.propose()) is not None:
        if pending_tokens + capacity > most_tokens or len(pending) >= longest:
            proposed = replace(proposed, keyframe=True)
        block, coded = coder.code(proposed, context)
        planner.take(block)
        if block.keyframe and pending:
            yield _flush(writer, pending, totals, take_aux)
            pending, pending_tokens = [], 0
        context = coded.context
        record = _record(coded, block)
        pending.append(record)
        pending_tokens += record.token_count
        done = events.BlockDone(
            index=index,
            first_frame=totals.frames,
            frames=len(block.frames),
            time=float(block.frames[0].pts * info.time_base),
            keyframe=block.keyframe,
            scene_cut=block.scene_cut,
            tokens=record.token_count,
            mse=coded.mse,
            frame_mse=coded.frame_mse,
            missed=coded.missed,
        )
        totals.add(done, block)
        index += 1
        yield done
    if pending:
        yield _flush(writer, pending, totals, take_aux)
    if rest := take_aux():
        writer.write_aux(rest)
    size = writer.close()
    yield totals.finished(info, size, capacity, time.monotonic() - began)


def _coder(
    tokenizer: NestedTokenizer | LengthTokenizer,
    options: EncodeOptions,
    device: torch.device,
    grid: tuple[int, int],
) -> _NestedCoder | _LengthCoder:
    """What this kind of model is coded with. `spec.nested` says which kind it is."""
    if tokenizer.spec.nested:
        return _NestedCoder(cast(NestedTokenizer, tokenizer), options, device, grid)
    return _LengthCoder(cast(LengthTokenizer, tokenizer), options, device, grid)


def _weighs(spec: TokenizerSpec, options: EncodeOptions) -> bool:
    """Whether cells have errors of their own to choose, and a target to meet by them."""
    return spec.nested and options.mse is not None and options.allocation == "cell"


class _LengthCoder:
    """Codes proposed blocks as they are, by searching for lengths."""

    def __init__(
        self, tokenizer: LengthTokenizer, options: EncodeOptions, device: torch.device, grid: tuple[int, int]
    ) -> None:
        self.tokenizer, self.options, self.device = tokenizer, options, device
        cell = tokenizer.spec.cell
        self.size = (grid[0] * cell[0], grid[1] * cell[1])
        self.search = lengths.LengthSearch(
            tokenizer, method=options.search, mode=options.allocation, guess=options.guess
        )

    def code(self, block: Group, context: Any) -> tuple[Group, search.Coded]:
        """The block and its tokens."""
        job = make_job(np.stack([f.rgb for f in block.frames]), self.tokenizer, self.device)
        if block.keyframe:
            context = self.tokenizer.start(*self.size)
        return block, self.search.code(job, context, target=self.options.mse, tokens=self.options.tokens)


class _NestedCoder:
    """Codes proposed blocks, and cuts costly ones short where that is cheaper per frame.

    Motion that one velocity per cell cannot follow over four frames often can over two or one; and where even that
    fails (a flash, a dissolve) a picture of its own is cheaper than any prediction. What a block would cost is told
    by its error curves, without decoding; only the one chosen is searched in full.
    """

    def __init__(
        self, tokenizer: NestedTokenizer, options: EncodeOptions, device: torch.device, grid: tuple[int, int]
    ) -> None:
        self.tokenizer, self.options, self.device = tokenizer, options, device
        self.effort = search.EFFORTS[options.effort]
        self.costly = self.effort.costly * grid[0] * grid[1]
        cell = tokenizer.spec.cell
        self.size = (grid[0] * cell[0], grid[1] * cell[1])
        self.lookahead = lookahead.Lookahead(cell[0], device) if _weighs(tokenizer.spec, options) else None
        self.bias: dict[tuple[bool, int], float] = {}  # of the last block of the same kind and length
        self.price: dict[int, float] = {}  # of the last predicted block of the same length
        self.singles: tuple[int, ...] = ()  # tokens of a single frame like which the next few may be
        self.usual = 0.0  # tokens per frame of the last predicted block
        self.picture = 0.0  # tokens of the last keyframe block, or of a picture that might have become one

    def code(self, block: Group, context: Any) -> tuple[Group, search.Coded]:
        """The block as coded (perhaps its first frames only, perhaps as a keyframe block) and its tokens."""
        target = self.options.mse
        if target is None:
            assert self.options.tokens is not None
            job, context = self._job(block, context)
            return block, search.fixed_length(self.tokenizer, job, context, self.options.tokens)
        chosen, draft = self._cheapest(block, context, target)
        if self._sudden(chosen, draft) and (apart := self._one_by_one(chosen, draft, context, target)):
            return apart
        coded = self._finish(chosen, draft, target)
        if not chosen.keyframe:
            self.usual = draft.per_frame
        if coded.missed:  # the curves promised too much, or nothing helps
            single = block.first(1)
            for other in (single, replace(single, keyframe=True)):
                if other in (block, chosen):
                    continue
                tried = self._finish(other, self._draft(other, context, target), target)
                if not tried.missed:
                    return other, tried
        return chosen, coded

    def _sudden(self, block: Group, draft: search.Draft) -> bool:
        """Whether a block costs far more than those before it: something new comes into view."""
        return (
            draft.reaches
            and len(block.frames) > 1
            and not block.keyframe
            and draft.tokens > self.costly
            and draft.per_frame > _SUDDEN * self.usual
        )

    def _one_by_one(
        self, block: Group, draft: search.Draft, context: Any, target: float
    ) -> tuple[Group, search.Coded] | None:
        """The first frame of a block on its own, where it and the rest, which then knows it, are cheaper."""
        single = block.first(1)
        alone = self._draft(single, context, target)
        if not alone.reaches or alone.tokens >= draft.tokens:
            return None
        coded = self._finish(single, alone, target)
        if coded.missed:
            return None
        rest = replace(block, frames=block.frames[1:])
        after = self._draft(rest, coded.context, target)
        tokens = int(coded.keep.sum()) + after.tokens
        return (single, coded) if after.reaches and tokens < _APART * draft.tokens else None

    def _cheapest(self, block: Group, context: Any, target: float) -> tuple[Group, search.Draft]:
        """Longer blocks first choice, shorter ones where they are clearly cheaper per frame. What is tried ends with
        what settles it: mostly the whole block, else its first frame."""
        drafts: dict[int, search.Draft] = {}
        single = block.first(1)
        if self.singles and len(block.frames) > 1 and not block.keyframe:
            # motion that only single frames followed seldom ends at once
            drafts[1] = self._draft(single, context, target)
            if drafts[1].reaches and drafts[1].tokens <= _AS_BEFORE * self.singles[0]:
                self.singles = self.singles[1:]
                return single, drafts[1]
        best, draft = block, self._draft(block, context, target)
        self.singles = ()
        if draft.reaches and (block.keyframe or draft.tokens <= self.costly):
            return best, draft
        if len(block.frames) > 1:
            alone = drafts[1] if 1 in drafts else self._draft(single, context, target)
            if alone.reaches and alone.per_frame < _FAR_CHEAPER * draft.per_frame:
                self.singles = (alone.tokens,) * _SINGLES
            elif len(block.frames) > 2:
                best, draft = self._better((best, draft), block.first(2), context, target)
            best, draft = _cheaper_of((best, draft), (single, alone))
            if not block.keyframe and not (draft.reaches and self._cheaper(draft)):
                best, draft = self._better((best, draft), replace(single, keyframe=True), context, target)
        return best, draft

    def _better(
        self, best: tuple[Group, search.Draft], other: Group, context: Any, target: float
    ) -> tuple[Group, search.Draft]:
        """The best so far, or the other where that is clearly cheaper per frame."""
        return _cheaper_of(best, (other, self._draft(other, context, target)))

    def _cheaper(self, draft: search.Draft) -> bool:
        """Whether a block of predicted frames is clearly cheaper than a picture of its own would be."""
        return draft.per_frame < _NEAR_PICTURE * self.picture

    def _draft(self, block: Group, context: Any, target: float) -> search.Draft:
        job, context = self._job(block, context)
        length = len(block.frames)
        weight = self.lookahead.weights(block, target) if self.lookahead else None
        draft = search.draft(
            self.tokenizer, job, context, target, price=self.price.get(length), weight=weight
        )
        if block.keyframe:
            self.picture = draft.tokens
        elif draft.reaches:
            usual = target * job.frames[0].numel() / draft.encoding.length[0].numel()
            self.price[length] = min(max(draft.price, _PRICES[0] * usual), _PRICES[1] * usual)
        return draft

    def _finish(self, block: Group, draft: search.Draft, target: float) -> search.Coded:
        """Search in full, from what the last block like this one has shown of the curves."""
        kind = block.keyframe, len(block.frames)
        coded = search.meet_target(
            self.tokenizer,
            draft,
            target,
            mode=self.options.allocation,
            effort=self.effort,
            bias=self.bias.get(kind, 1.0),
        )
        self.bias[kind] = min(max(coded.bias, 0.8), 1.25)
        return coded

    def _job(self, block: Group, context: Any) -> tuple[search.Job, Any]:
        job = make_job(np.stack([f.rgb for f in block.frames]), self.tokenizer, self.device)
        return job, self.tokenizer.start(*self.size) if block.keyframe else context


def _cheaper_of(
    best: tuple[Group, search.Draft], other: tuple[Group, search.Draft]
) -> tuple[Group, search.Draft]:
    """The other, which is shorter, where it alone reaches the target or is clearly cheaper per frame."""
    if other[1].reaches != best[1].reaches:
        return other if other[1].reaches else best
    return other if other[1].per_frame < _CLEAR_GAIN * best[1].per_frame else best


def make_job(rgb: np.ndarray, tokenizer: Tokenizer, device: torch.device) -> search.Job:
    """Pictures (n, H, W, 3) uint8 to a job: edges repeated to whole cells, the last frame to a whole block."""
    spec = tokenizer.spec
    source = torch.from_numpy(rgb).to(device)
    count, height, width, _ = source.shape
    x = from_bytes(source.permute(0, 3, 1, 2))
    x = F.pad(x, (0, -width % spec.cell[1], 0, -height % spec.cell[0]), mode="replicate")
    if count < spec.frames:
        x = torch.cat([x, x[-1:].expand(spec.frames - count, -1, -1, -1)])
    return search.Job(x[None], source)


def _record(coded: search.Coded, block: Group) -> Block:
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


def _flush(
    writer: EtkWriter, blocks: list[Block], totals: _Totals, take_aux: Callable[[], bytes]
) -> events.SegmentWritten:
    size = writer.write_segment(blocks)
    if data := take_aux():
        writer.write_aux(data)
    totals.segments += 1
    frames = sum(len(b.pts) for b in blocks)
    return events.SegmentWritten(totals.segments - 1, len(blocks), frames, size, writer.bytes_written)


class _Totals:
    """Sums for the summary."""

    def __init__(self) -> None:
        self.frames = self.blocks = self.segments = self.tokens = self.most = 0
        self.fewest: int | None = None
        self.error = self.worst = 0.0
        self.missed_blocks = 0
        self.missed: list[int] = []  # the first of them
        self.first_pts: int | None = None
        self.end_pts = 0

    def add(self, done: events.BlockDone, block: Group) -> None:
        self.frames += done.frames
        self.blocks += 1
        self.tokens += done.tokens
        self.most = max(self.most, done.tokens)
        self.fewest = done.tokens if self.fewest is None else min(self.fewest, done.tokens)
        self.error += sum(done.frame_mse)
        self.worst = max(self.worst, done.mse)
        if done.missed:
            self.missed_blocks += 1
            if len(self.missed) < events.MOST_MISSED:
                self.missed.append(done.index)
        if self.first_pts is None:
            self.first_pts = block.frames[0].pts
        last = block.frames[-1]
        self.end_pts = last.pts + last.duration

    def finished(self, info: VideoInfo, size: int, capacity: int, seconds: float) -> events.Finished:
        shown = float((self.end_pts - (self.first_pts or 0)) * info.time_base)
        return events.Finished(
            frames=self.frames,
            blocks=self.blocks,
            segments=self.segments,
            bytes=size,
            duration=shown,
            seconds=seconds,
            tokens=self.tokens,
            tokens_per_block=capacity,
            min_block_tokens=self.fewest or 0,
            max_block_tokens=self.most,
            mse=self.error / max(1, self.frames),
            worst_mse=self.worst,
            missed_blocks=self.missed_blocks,
            missed=tuple(self.missed),
            source_bytes=info.size_bytes,
        )

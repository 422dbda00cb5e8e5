"""Encoding with a plan: in two passes where the source can be read again, else with one scene in view at a time."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from elastictok_cli.codec import events
from elastictok_cli.codec.encoder import Plans, encode, interval_ticks
from elastictok_cli.codec.jobs import limits_for
from elastictok_cli.codec.options import EncodeOptions
from elastictok_cli.codec.parallel import Group, run_in_order
from elastictok_cli.codec.planner import Allowed, Bound, RunningPlanner, allowed_for, choose, plan_all
from elastictok_cli.codec.scene_plan import Limit, ScenePlan, SceneSurvey, progress
from elastictok_cli.codec.scenes import Scene, split_scenes
from elastictok_cli.codec.survey import survey_scene
from elastictok_cli.models.interface import Loaded
from elastictok_cli.video.records import Frame, VideoInfo
from formats import Block, EtkWriter, Header, segment_bytes

if TYPE_CHECKING:
    from typing_extensions import Buffer

USUAL_TARGET = 0.007  # MSE that is assumed of a budget at first
# A survey to an error that is more than so many times too high or too low is made again, but no more than so often.
MAX_DISTANCE_OF_SURVEY = 2.5
MAX_SURVEYS = 3
LEAST_USE = (
    0.97  # share of what is allowed that a file should use; one that uses less, or too much, is encoded again
)
MARGIN_OF_ATTEMPT = 0.995  # what each further attempt aims below what is allowed
MAX_ATTEMPTS = 5
ATTEMPTS_FOR_USE = 3  # after which a file that uses too little is taken
END_BYTES = 64  # trailer, and the frame of the index
MAX_WAITING_BYTES = 512 << 20  # of the frames of a scene that wait for its survey


class BudgetTooSmall(Exception):
    """The file is larger than asked even without a token. bytes: its size then."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.bytes = size


class NoDuration(Exception):
    """A rate was asked for of a still picture."""


class VideoSource(Protocol):
    """A video to be read once from its beginning: see `VideoReader`."""

    info: VideoInfo

    def __iter__(self) -> Iterator[Frame]: ...

    def take_aux(self) -> bytes:
        """The bytes of copied streams since it was last asked."""


# Opens the source anew.
Open = Callable[[], AbstractContextManager[VideoSource]]
# Starts the file anew, for a source, with what decides its error if that is known.
Start = Callable[[VideoInfo, Bound | None], EtkWriter]


@dataclass(frozen=True)
class VideoSurvey:
    """What the first pass found out about a video. aux_bytes: of its copied streams."""

    scenes: list[SceneSurvey]
    seconds: Fraction
    aux_bytes: int

    @property
    def frames(self) -> int:
        """How many frames there are."""
        return sum(scene.frames for scene in self.scenes)


def encode_in_passes(
    open_source: Open,
    start: Start,
    header: Header,
    loaded: Loaded,
    options: EncodeOptions,
    device: torch.device,
    jobs: int | None = 1,
) -> Generator[events.Event, None, None]:
    """Encode a source that can be read again, with a promise or a budget for the whole video.

    The first pass surveys all scenes, the second encodes them by their plans. Where the file then breaks the promise
    or the budget, or uses far too little of it, it is encoded again (`events.Restarted`). header: as `start` will make
    it, to measure sizes. Raises BudgetTooSmall.
    """
    began = time.monotonic()
    survey = yield from _survey(open_source, header, loaded, options, device, jobs)
    other_bytes = EtkWriter(_Nowhere(), header).bytes_written + survey.aux_bytes + END_BYTES
    allowed = allowed_for(options, survey.frames, survey.seconds, other_bytes)
    least = other_bytes + sum(scene.fixed_bytes for scene in survey.scenes)
    if allowed.bytes is not None and allowed.bytes < least - other_bytes:
        raise BudgetTooSmall(int(least))
    asked, margin = allowed, MARGIN_OF_ATTEMPT
    for attempt in range(1, MAX_ATTEMPTS + 1):
        bound, plans = plan_all(survey.scenes, allowed, options.worst_error)
        seen = _Outcome(survey.scenes)
        with open_source() as source:
            writer = start(source.info, bound)
            encoding = encode(
                source.info, source, source.take_aux, loaded, writer, options, device, jobs,
                plans=_with(plans),
            )  # fmt: skip
            with closing(encoding):
                for event in encoding:
                    seen.see(event)
                    if isinstance(event, events.Finished):
                        finished = event
                    elif attempt == 1 or not isinstance(event, events.Started):
                        yield event
        limit = plans[0].limit
        used = _used(finished, limit, other_bytes) / max(asked.of(limit), 1e-12)
        enough = used >= LEAST_USE or attempt >= ATTEMPTS_FOR_USE or not finished.tokens
        if attempt == MAX_ATTEMPTS or (used <= 1 and enough):
            yield replace(finished, seconds=time.monotonic() - began, bound=bound)
            return
        yield events.Restarted(limit, used)
        survey = replace(survey, scenes=seen.corrected(plans))
        allowed = replace(asked, **{limit: asked.of(limit) * margin})
        margin *= MARGIN_OF_ATTEMPT


class _Outcome:
    """What the scenes of an encode turned out to be."""

    def __init__(self, scenes: list[SceneSurvey]) -> None:
        self._surveys = scenes
        self._ends = np.cumsum([scene.frames for scene in scenes])  # frames at which scenes end
        self._errors: list[float] = []  # by frame
        self._tokens: list[float] = []
        self._bytes = np.zeros(len(scenes))
        self._written = 0  # frames in segments

    def see(self, event: events.Event) -> None:
        """Take the next event of the encode."""
        match event:
            case events.BlockDone():
                self._errors += event.frame_mse
                self._tokens += [event.tokens / event.frames] * event.frames
            case events.SegmentWritten():
                self._bytes[np.searchsorted(self._ends, self._written, side="right")] += event.bytes
                self._written += event.frames

    def corrected(self, plans: list[ScenePlan]) -> list[SceneSurvey]:
        """The surveys of the scenes, as these plans led to it."""
        found = []
        for number, (survey, plan) in enumerate(zip(self._surveys, plans, strict=True)):
            part = slice(self._ends[number] - survey.frames, self._ends[number])
            errors, tokens = self._errors[part], self._tokens[part]
            turned_out = survey.corrected(plan.price, sum(errors), sum(tokens), float(self._bytes[number]))
            each = [1] * survey.frames
            found.append(
                replace(
                    turned_out,
                    progress_error=progress(errors, each),
                    progress_tokens=progress(tokens, each),
                )
            )
        return found


def _with(plans: list[ScenePlan]) -> Plans:
    """Gives each scene of a second pass the plan of its survey."""
    return lambda scenes: zip(scenes, plans, strict=True)


def _used(finished: events.Finished, limit: Limit, other_bytes: int) -> float:
    """What a finished file has spent of a limit."""
    match limit:
        case "error":
            return finished.mse * finished.frames
        case "tokens":
            return finished.tokens
        case "bytes":
            return finished.bytes - other_bytes


def _survey(
    open_source: Open,
    header: Header,
    loaded: Loaded,
    options: EncodeOptions,
    device: torch.device,
    jobs: int | None,
) -> Generator[events.Event, None, VideoSurvey]:
    """Survey all scenes, again where the error was far from the one that a budget leads to."""
    target = first_target(options)
    for attempt in range(1, MAX_SURVEYS + 1):
        with open_source() as source:
            found = yield from _survey_once(source, header, loaded, options, device, jobs, target)
        _check_duration(options, found.frames)
        allowed = allowed_for(options, found.frames, found.seconds, found.aux_bytes)
        wanted = expected_error(sum(found.scenes[1:], start=found.scenes[0]), allowed)
        if attempt == MAX_SURVEYS or is_near(wanted, target):
            break
        target = wanted
    return found


def _survey_once(
    source: VideoSource,
    header: Header,
    loaded: Loaded,
    options: EncodeOptions,
    device: torch.device,
    jobs: int | None,
    target: float,
) -> Generator[events.Event, None, VideoSurvey]:
    info = source.info
    grid = loaded.tokenizer.spec.grid(info.height, info.width)
    seen = _Length(source)
    groups = (
        Group((scene.starts_at_cut, options, device, grid, target, header), scene.frames)
        for scene in split_scenes(seen, interval_ticks(options, info))
    )
    limit = limits_for(loaded, device, jobs, info.height, info.width)
    scenes: list[SceneSurvey] = []
    frames = aux = 0
    if limit.jobs == 1 or loaded.load is None:
        surveys: Iterator[SceneSurvey] = (
            found for group in groups for found in survey_scene(loaded, group.items, *group.arguments)
        )
    else:
        surveys = run_in_order(
            groups, survey_scene, loaded, loaded.load, limit, lambda frame: frame.rgb.nbytes
        )
    for found in surveys:
        scenes.append(found)
        frames += found.frames
        aux += len(source.take_aux())
        yield events.Surveyed(frames, info.frame_count)
    aux += len(source.take_aux())
    return VideoSurvey(scenes, seen.ticks * info.time_base, aux)


def _check_duration(options: EncodeOptions, frames: int) -> None:
    budget = options.budget
    if (
        frames == 1
        and budget is not None
        and (budget.kbps is not None or budget.tokens_per_second is not None)
    ):
        raise NoDuration


def first_target(options: EncodeOptions) -> float:
    """The error (MSE) of the first survey."""
    return USUAL_TARGET if options.mse is None else options.mse


def expected_error(total: SceneSurvey, allowed: Allowed) -> float:
    """The MSE that frames should have with what is allowed of them."""
    return total.at("error", choose(total, allowed).price) / total.frames


def is_near(wanted: float, target: float) -> bool:
    """Whether a survey to `target` says enough about the wanted error."""
    return 1 / MAX_DISTANCE_OF_SURVEY <= wanted / target <= MAX_DISTANCE_OF_SURVEY


class _Length:
    """Frames, and the time from the first to the end of the last in ticks."""

    def __init__(self, frames: Iterable[Frame]) -> None:
        self._frames = frames
        self.ticks = 0

    def __iter__(self) -> Iterator[Frame]:
        first: int | None = None
        for frame in self._frames:
            first = frame.pts if first is None else first
            self.ticks = frame.pts + frame.duration - first
            yield frame


class RunningScenes:
    """Plans the scenes of a source that can be read only once: the frames of one scene at a time wait for its survey.

    `encode` calls it with the scenes, and `note` with each block that is coded.
    """

    def __init__(
        self,
        info: VideoInfo,
        header: Header,
        loaded: Loaded,
        options: EncodeOptions,
        device: torch.device,
    ) -> None:
        self._info, self._header, self._loaded = info, header, loaded
        self._options, self._device = options, device
        self._planner = RunningPlanner(options)
        self._blocks: list[Block] = []  # of the scene that is being coded
        self._error, self._tokens, self._sizes = 0.0, 0, 0  # of it, as far as it is coded
        self.aux_bytes = 0  # of copied streams so far

    @property
    def bound(self) -> Bound | None:
        """What decided the error of the last scene."""
        return self._planner.bound

    def __call__(self, scenes: Iterable[Scene]) -> Iterator[tuple[Scene, ScenePlan]]:
        """The scenes with their plans. A scene whose frames would take too much memory is cut."""
        grid = self._loaded.tokenizer.spec.grid(self._info.height, self._info.width)
        target = first_target(self._options)
        most = max(1, MAX_WAITING_BYTES // (self._info.height * self._info.width * 3))
        first_pts: int | None = None
        other_bytes = EtkWriter(_Nowhere(), self._header).bytes_written + END_BYTES
        for scene in scenes:
            for number, frames in enumerate(_batches(scene.frames, most)):
                first_pts = frames[0].pts if first_pts is None else first_pts
                seconds = (frames[-1].pts + frames[-1].duration - first_pts) * self._info.time_base
                cut = scene.starts_at_cut and not number
                for _ in range(MAX_SURVEYS):
                    (survey,) = survey_scene(
                        self._loaded, frames, cut, self._options, self._device, grid, target, self._header
                    )
                    plan = self._planner.plan(survey, seconds, other_bytes + self.aux_bytes)
                    wanted = survey.at("error", plan.price) / survey.frames
                    if is_near(wanted, target):
                        break
                    target = wanted
                yield Scene(frames, cut), plan
                self._close(plan)

    def note(self, block: Block, keyframe: bool) -> None:
        """A block of the scene that was planned last is coded."""
        if keyframe:
            self._close_segment()
        self._blocks.append(block)
        self._error += sum(block.frame_mse)
        self._tokens += block.token_count

    def _close_segment(self) -> None:
        if self._blocks:
            self._sizes += segment_bytes(self._header, self._blocks)
        self._blocks = []

    def _close(self, plan: ScenePlan) -> None:
        self._close_segment()
        self._planner.coded(self._error, self._tokens, self._sizes, plan.price)
        self._error, self._tokens, self._sizes = 0.0, 0, 0


class _Nowhere(io.BytesIO):
    """Takes bytes and forgets them."""

    def write(self, data: Buffer, /) -> int:
        return memoryview(data).nbytes


def _batches(frames: Iterable[Frame], most: int) -> Iterator[list[Frame]]:
    batch: list[Frame] = []
    for frame in frames:
        batch.append(frame)
        if len(batch) == most:
            yield batch
            batch = []
    if batch:
        yield batch

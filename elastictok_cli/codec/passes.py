"""Encoding a source in two passes, with a promise or a budget for the whole video."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Protocol

import torch

from elastictok_cli.codec import events
from elastictok_cli.codec.attempts import Attempts
from elastictok_cli.codec.encoder import Plans, encode, interval_ticks
from elastictok_cli.codec.jobs import limits_for
from elastictok_cli.codec.options import EncodeOptions
from elastictok_cli.codec.parallel import Group, run_in_order
from elastictok_cli.codec.planner import Allowed, Bound, allowed_for, expected_error, header_bytes
from elastictok_cli.codec.scene_outcome import SceneOutcome
from elastictok_cli.codec.scene_plan import ScenePlan, SceneSurvey
from elastictok_cli.codec.scenes import split_scenes
from elastictok_cli.codec.survey import MAX_SURVEYS, first_target, is_near, survey_scene
from elastictok_cli.models.interface import Loaded
from elastictok_cli.video.records import Frame, VideoInfo
from formats import EtkWriter, Header


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

    @property
    def aux_rate(self) -> float:
        """Bytes a second of the packets of copied streams so far."""


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
    other_bytes = header_bytes(header) + survey.aux_bytes
    allowed = allowed_for(options, survey.frames, survey.seconds, other_bytes)
    least = other_bytes + sum(scene.fixed_bytes for scene in survey.scenes)
    if allowed.bytes is not None and allowed.bytes < least - other_bytes:
        raise BudgetTooSmall(int(least))
    attempts = Attempts(survey.scenes, allowed, options.worst_error)
    scenes, is_first = survey.scenes, True
    while True:
        bound, outcome = attempts.bound, _Outcome(scenes)
        with open_source() as source:
            encoding = encode(
                source.info,
                source,
                source.take_aux,
                loaded,
                start(source.info, bound),
                options,
                device,
                jobs,
                plans=_with(attempts.plans),
            )
            with closing(encoding):
                for event in encoding:
                    outcome.see(event)
                    if isinstance(event, events.Finished):
                        finished = event
                    elif is_first or not isinstance(event, events.Started):
                        yield event
        limit, is_first = attempts.limit, False
        scenes = outcome.corrected()
        if attempts.take(_spent(finished, other_bytes), scenes, empty=not finished.tokens):
            if limit == "bytes" and attempts.used > 1 and not finished.tokens:
                raise BudgetTooSmall(finished.bytes)
            yield replace(finished, seconds=time.monotonic() - began, bound=bound)
            return
        yield events.Restarted(attempts.decided_by, attempts.used)


class _Outcome:
    """What the scenes of an encode turned out to be."""

    def __init__(self, surveys: list[SceneSurvey]) -> None:
        self._scenes = [SceneOutcome(survey) for survey in surveys]
        self._coding = self._writing = 0  # numbers of scenes

    def see(self, event: events.Event) -> None:
        """Take the next event of the encode."""
        match event:
            case events.BlockDone():
                if self._scenes[self._coding].is_coded:
                    self._coding += 1
                self._scenes[self._coding].see(event)
            case events.SegmentWritten():
                if self._scenes[self._writing].is_written:
                    self._writing += 1
                self._scenes[self._writing].written(event)

    def corrected(self) -> list[SceneSurvey]:
        """The surveys, as they turned out."""
        return [scene.corrected() for scene in self._scenes]


def _with(plans: list[ScenePlan]) -> Plans:
    """Gives each scene of a second pass the plan of its survey."""
    return lambda scenes: zip(scenes, plans, strict=True)


def _spent(finished: events.Finished, other_bytes: int) -> Allowed:
    """What a finished file has spent, beside `other_bytes` of header and copied streams."""
    return Allowed(finished.mse * finished.frames, finished.tokens, finished.bytes - other_bytes)


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
    if frames == 1 and options.budget is not None and options.budget.is_rate:
        raise NoDuration


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

"""Planning a source that can be read only once, with the frames of one scene in view."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction

import torch

from elastictok_cli.codec import events
from elastictok_cli.codec.options import EncodeOptions
from elastictok_cli.codec.planner import Allowed, Bound, RunningPlanner, header_bytes
from elastictok_cli.codec.scene_outcome import SceneOutcome
from elastictok_cli.codec.scene_plan import ScenePlan
from elastictok_cli.codec.scenes import Scene
from elastictok_cli.codec.survey import MAX_SURVEYS, first_target, is_near, survey_scene
from elastictok_cli.models.interface import Loaded
from elastictok_cli.video.records import Frame, VideoInfo
from formats import Block, Header, segment_bytes

# What copied streams take beside their packets, as these are counted: in all, and as a factor.
SIDE_BYTES, SIDE_FACTOR = 1500, 1.04
MAX_WAITING_BYTES = 512 << 20  # of the frames of a scene that wait for its survey


class RunningScenes:
    """Plans one scene after another: its frames wait until it is surveyed, and those before it are coded.

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
        self._outcome: SceneOutcome | None = None  # of the scene that is being coded
        self._segment: list[Block] = []  # its open one
        self._error, self._tokens, self._bytes = 0.0, 0, 0  # of it, as far as it is coded
        self._target = first_target(options)
        self.aux_bytes = 0  # of copied streams so far
        self.aux_rate: Callable[[], float] = lambda: 0.0  # bytes a second of their packets

    @property
    def bound(self) -> Bound | None:
        """What decided the error of the last scene."""
        return self._planner.bound

    def __call__(self, scenes: Iterable[Scene]) -> Iterator[tuple[Scene, ScenePlan]]:
        """The scenes with their plans. A scene whose frames would take too much memory is cut."""
        most = max(1, MAX_WAITING_BYTES // (self._info.height * self._info.width * 3))
        first_pts: int | None = None
        for scene in scenes:
            for number, frames in enumerate(_batches(scene.frames, most)):
                first_pts = frames[0].pts if first_pts is None else first_pts
                end = frames[-1].pts + frames[-1].duration
                part = Scene(frames, scene.starts_at_cut and not number)
                yield part, self._plan(part, frames, (end - first_pts) * self._info.time_base)
                self._close_scene()

    def _plan(self, scene: Scene, frames: list[Frame], seconds: Fraction) -> ScenePlan:
        """seconds: from the beginning of the video to the end of the scene."""
        grid = self._loaded.tokenizer.spec.grid(self._info.height, self._info.width)
        other_bytes = header_bytes(self._header) + self._aux_until(seconds)
        arguments = (self._loaded, frames, scene.starts_at_cut, self._options, self._device, grid)
        for _ in range(MAX_SURVEYS):
            (survey,) = survey_scene(*arguments, self._target, self._header)
            plan = self._planner.plan(survey, seconds, other_bytes)
            wanted = survey.at("error", plan.price) / survey.frames
            if is_near(wanted, self._target):
                break
            self._target = wanted
        self._outcome = SceneOutcome(plan.survey)
        return plan

    def _aux_until(self, seconds: Fraction) -> int:
        """The bytes of copied streams until then. They come in large pieces, the last one after all frames."""
        rate = self.aux_rate()
        expected = SIDE_BYTES + int(SIDE_FACTOR * rate * float(seconds)) if rate else 0
        return max(self.aux_bytes, expected)

    def note(self, done: events.BlockDone, block: Block) -> None:
        """A block of the scene that was planned last is coded."""
        assert self._outcome is not None
        if done.keyframe:
            self._close_segment()
        self._outcome.see(done)
        self._segment.append(block)
        self._error += sum(done.frame_mse)
        self._tokens += done.tokens

    def _close_segment(self) -> None:
        if self._segment:
            self._bytes += segment_bytes(self._header, self._segment)
        self._segment = []

    def _close_scene(self) -> None:
        assert self._outcome is not None
        self._close_segment()
        self._outcome.bytes = self._bytes
        self._planner.coded(self._outcome, Allowed(self._error, self._tokens, self._bytes))
        self._error, self._tokens, self._bytes = 0.0, 0, 0


def _batches(frames: Iterable[Frame], most: int) -> Iterator[list[Frame]]:
    batch: list[Frame] = []
    for frame in frames:
        batch.append(frame)
        if len(batch) == most:
            yield batch
            batch = []
    if batch:
        yield batch

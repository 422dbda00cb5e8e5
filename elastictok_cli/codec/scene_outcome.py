"""What a planned scene turned out to be, and what that says of its survey."""

from __future__ import annotations

from dataclasses import replace

from elastictok_cli.codec import events
from elastictok_cli.codec.scene_plan import SceneSurvey, progress


class SceneOutcome:
    """Sums over the blocks of a scene as they are coded, and what its survey expected of them at their lambdas.

    bytes: of its segments.
    """

    def __init__(self, survey: SceneSurvey) -> None:
        self._survey = survey
        self._errors: list[float] = []  # of frames, MSE
        self._tokens: list[float] = []  # of frames
        self._expected_error = self._expected_tokens = 0.0
        self.bytes = 0
        self._frames_written = 0

    @property
    def is_coded(self) -> bool:
        """Whether all blocks of the scene are coded."""
        return len(self._errors) >= self._survey.frames

    @property
    def is_written(self) -> bool:
        """Whether all its segments are written."""
        return self._frames_written >= self._survey.frames

    def see(self, block: events.BlockDone) -> None:
        """The next block of the scene is coded."""
        assert block.price is not None
        first = len(self._errors)
        self._expected_error += self._survey.expected("error", first, block.frames, block.price)
        self._expected_tokens += self._survey.expected("tokens", first, block.frames, block.price)
        self._errors += block.frame_mse
        self._tokens += [block.tokens / block.frames] * block.frames

    def written(self, segment: events.SegmentWritten) -> None:
        """The next segment of the scene is written."""
        self._frames_written += segment.frames
        self.bytes += segment.bytes

    def corrected(self) -> SceneSurvey:
        """The survey as it should have been."""
        survey, tokens = self._survey, sum(self._tokens)
        of_error = sum(self._errors) / self._expected_error if self._expected_error else 1.0
        of_tokens = tokens / self._expected_tokens if self._expected_tokens else 1.0
        each = max(self.bytes - survey.fixed_bytes, 0.1 * tokens) / tokens if tokens else None
        one_each = [1] * survey.frames
        return replace(
            survey.corrected(of_error, of_tokens, each),
            progress_error=progress(self._errors, one_each),
            progress_tokens=progress(self._tokens, one_each),
        )

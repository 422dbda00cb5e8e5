"""The side streams (audio and subtitles) of a source, for a result whose pictures come from elsewhere."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from elastictok_cli.video.clock import ProgramClock
from elastictok_cli.video.errors import UnreadableVideo
from elastictok_cli.video.selection import side_streams
from elastictok_cli.video.sidestreams import PacketCollector


class SourceSideStreams:
    """Copies the audio and subtitle packets of a file, as VideoReader does beside its frames.

    `start` and `end` (seconds on the source's clock, None: no bound) keep the packets that overlap; `clock_offset`
    (seconds) is subtracted from their times. `container` names the format of `chunks`; it is None if there is
    nothing to copy. What is not carried is named in `warnings`. Raises UnreadableVideo.
    """

    container: str | None

    def __init__(
        self,
        path: Path,
        *,
        start: Fraction | None = None,
        end: Fraction | None = None,
        clock_offset: Fraction = Fraction(0),
        warnings: list[str],
    ) -> None:
        try:
            self._source: Any = av.open(
                f"file:{path}", "r", options={"pattern_type": "none"}, metadata_errors="replace"
            )
        except (av.FFmpegError, OSError, ValueError) as error:
            raise UnreadableVideo(f"{path} cannot be read: {error}") from error
        streams = side_streams(self._source)
        self._warnings = warnings
        self._collector = PacketCollector(self._source.format.name, streams, warnings) if streams else None
        self.container = None
        if self._collector is not None and self._collector.streams:
            self._collector.begin(start, end, clock_offset)
            self.container = self._collector.container

    def chunks(self) -> Iterator[bytes]:
        """The bytes of the container, as they come; the file is closed at the end."""
        collector = self._collector
        if collector is not None and self.container is not None:
            try:
                clock = ProgramClock(self._source.format.name)
                carried = {s.index for s in collector.streams}
                # with the pictures, whose clock jumps when that of the sound does
                for packet in clock.mend(self._source.demux(*self._source.streams.video, *collector.streams)):
                    if packet.stream.index in carried:
                        collector.add(packet)
                    if data := collector.take():
                        yield data
                    if collector.past_window:
                        break
            except (av.FFmpegError, OSError) as error:
                self._warnings.append(f"the audio and subtitles end early: {error}")
            collector.close()
            yield collector.take()
        self._source.close()

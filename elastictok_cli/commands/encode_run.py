"""Running one encode, with the reader that is at work and what it warns of."""

import shutil
import tempfile
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    import torch

    from elastictok_cli.codec.events import Event
    from elastictok_cli.codec.options import EncodeOptions
    from elastictok_cli.models.interface import Loaded
    from elastictok_cli.video import VideoReader


@dataclass
class EncodeRun:
    """An encode that is about to run.

    open_reader: opens the source at its beginning; more than once only if `rereadable`. file: where the output goes.
    rewritable: whether what is in `file` can be dropped and written anew. recorded: further options for the header.
    """

    open_reader: "Callable[[], VideoReader]"
    rereadable: bool
    file: BinaryIO
    rewritable: bool
    loaded: "Loaded"
    options: "EncodeOptions"
    device: "torch.device"
    jobs: int | None
    recorded: dict[str, Any] = field(default_factory=dict)
    reader: "VideoReader | None" = None
    warnings: list[str] = field(default_factory=list)  # of all readers so far, each once

    def events(self) -> "Generator[Event, None, None]":
        """Encode, yielding events as they happen. Raises codec.passes.BudgetTooSmall and NoDuration."""
        if self.rewritable or not (self.options.planned and self.rereadable):
            yield from self._into(self.file)
            return
        with tempfile.TemporaryFile() as stream:  # may be written more than once
            yield from self._into(stream)
            stream.seek(0)
            shutil.copyfileobj(stream, self.file)

    def aux_rate(self) -> float:
        """Bytes a second of audio and subtitles."""
        return 0.0 if self.reader is None else self.reader.aux_rate

    def new_warnings(self) -> list[str]:
        """What readers have warned of since it was last asked."""
        found = [] if self.reader is None else self.reader.warnings
        new = [text for text in found if text not in self.warnings]
        self.warnings += new
        return new

    def _into(self, file: BinaryIO) -> "Generator[Event, None, None]":
        from elastictok_cli.codec.encode_source import encode_source

        yield from encode_source(
            self._open,
            file,
            self.loaded,
            self.options,
            self.device,
            self.jobs,
            rereadable=self.rereadable,
            recorded=self.recorded,
        )

    def _open(self) -> "VideoReader":
        self.reader = self.open_reader()
        return self.reader

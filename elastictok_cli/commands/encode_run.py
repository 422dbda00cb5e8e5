"""Running one encode: in one pass, in two, or with one scene in view, as the goal and the source ask for."""

import shutil
import tempfile
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    import torch

    from elastictok_cli.codec.events import Event
    from elastictok_cli.codec.options import EncodeOptions
    from elastictok_cli.codec.planner import Bound
    from elastictok_cli.models.interface import Loaded
    from elastictok_cli.video import VideoReader
    from elastictok_cli.video.records import VideoInfo
    from formats import EtkWriter, Header


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
        """Encode, yielding events as they happen. Raises codec.passes.BudgetTooSmall."""
        if not self.options.planned:
            yield from self._one_pass()
        elif self.rereadable:
            yield from self._passes()
        else:
            yield from self._running()

    def aux_rate(self) -> float:
        """Bytes a second of audio and subtitles."""
        return 0.0 if self.reader is None else self.reader.aux_rate

    def new_warnings(self) -> list[str]:
        """What readers have warned of since it was last asked."""
        found = [] if self.reader is None else self.reader.warnings
        new = [text for text in found if text not in self.warnings]
        self.warnings += new
        return new

    def _open(self) -> "VideoReader":
        self.reader = self.open_reader()
        return self.reader

    def _one_pass(self) -> "Generator[Event, None, None]":
        from elastictok_cli.codec.encoder import encode
        from formats import EtkWriter

        with self._open() as reader:
            writer = EtkWriter(self.file, self._header(reader.info))
            yield from encode(
                reader.info,
                reader,
                reader.take_aux,
                self.loaded,
                writer,
                self.options,
                self.device,
                self.jobs,
            )

    def _passes(self) -> "Generator[Event, None, None]":
        from elastictok_cli.codec.passes import encode_in_passes

        with self.open_reader() as reader:
            header = self._header(reader.info)
        if self.rewritable:
            yield from encode_in_passes(
                self._open,
                self._starting(self.file),
                header,
                self.loaded,
                self.options,
                self.device,
                self.jobs,
            )
            return
        with tempfile.TemporaryFile() as stream:
            yield from encode_in_passes(
                self._open, self._starting(stream), header, self.loaded, self.options, self.device, self.jobs
            )
            stream.seek(0)
            shutil.copyfileobj(stream, self.file)

    def _running(self) -> "Generator[Event, None, None]":
        from elastictok_cli.codec.encoder import encode
        from elastictok_cli.codec.running_scenes import RunningScenes
        from formats import EtkWriter

        with self._open() as reader:
            header = self._header(reader.info)
            scenes = RunningScenes(reader.info, header, self.loaded, self.options, self.device)

            def take_aux() -> bytes:
                data = reader.take_aux()
                scenes.aux_bytes += len(data)
                return data

            encoding = encode(
                reader.info,
                reader,
                take_aux,
                self.loaded,
                EtkWriter(self.file, header),
                self.options,
                self.device,
                1,
                plans=scenes,
                note=scenes.note,
            )
            with closing(encoding):
                yield from encoding

    def _starting(self, stream: BinaryIO) -> "Callable[[VideoInfo, Bound | None], EtkWriter]":
        from formats import EtkWriter

        def start(info: "VideoInfo", bound: "Bound | None") -> EtkWriter:
            stream.seek(0)
            stream.truncate()
            header = self._header(info)
            if bound is not None and self.options.budget is not None:
                header.options["bound"] = bound
            return EtkWriter(stream, header)

        return start

    def _header(self, info: "VideoInfo") -> "Header":
        from elastictok_cli.codec.header import make_header

        header = make_header(info, self.loaded, self.options)
        header.options.update(self.recorded)
        return header

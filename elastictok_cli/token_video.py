"""An encoded video in Python: the bytes of an `.etk` file, and what they say, as arrays."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from elastictok_cli.analysis import promise
from elastictok_cli.files import writing
from elastictok_cli.model import Model
from formats import Block, Damage, EtkReader, EtkWriter, Header, Segment, unpack_tokens

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


class _Columns(NamedTuple):
    """What a file says of its frames (F) and blocks (B), without their tokens."""

    pts: Ints  # (F,) ticks
    durations: Ints  # (F,) ticks, 0: unknown
    frame_mse: Floats  # (F,)
    frames_per_block: Ints  # (B,)
    tokens_per_block: Ints  # (B,)
    missed: Bools  # (B,)
    keyframes: Bools  # (B,)
    complete: bool  # nothing of the file is missing or damaged


class TokenVideo:
    """A video as tokens. Iterating gives its blocks in order; `len` is their number.

    Each block is a `Block`: `pts` and `durations` of its 1 to 4 frames, in ticks of `header.time_base`; `keep`, (rows,
    columns) uint16, how many tokens each cell keeps; `tokens`, (keep.sum(),) uint16, first all first tokens of the
    cells row by row, then all second ones, ... (`padded` makes a regular array of them; the paper's VAE model has
    float16 vectors); `frame_mse`, the error of each frame; `missed` and `scene_cut`.

    It is immutable. It holds either the bytes of an `.etk` file or its path, and reads from there only what is asked
    for, so it can be pickled, sent to workers, and be of any length. A file must not change while it is in use.

        video = elastictok.open("clip.etk")
        for block in video:
            print(block.keep.mean(), video.padded(block).shape)
    """

    def __init__(self, source: bytes | str | Path, *, tolerate: bool = False) -> None:
        """`source`: the content of an `.etk` file, or its path. `tolerate`: leave out what is damaged.

        Raises EtkError where the header cannot be read, OSError where there is no such file.
        """
        self._source = bytes(source) if isinstance(source, bytes | bytearray | memoryview) else Path(source)
        self._tolerate = tolerate
        with self.reader() as reader:
            self._header = reader.header

    def reader(self) -> EtkReader:
        """The file opened anew, for what is not offered here. Close it, or use it in a `with` statement."""
        return self._open(tolerate=self._tolerate)

    @property
    def header(self) -> Header:
        """All that the file says of the whole video: model, grid, colour, metadata, options."""
        return self._header

    @property
    def width(self) -> int:
        """Of the frames, in pixels."""
        return self._header.width

    @property
    def height(self) -> int:
        """Of the frames, in pixels."""
        return self._header.height

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of cells: the shape of every keep map."""
        return self._header.grid

    @property
    def target_mse(self) -> float | None:
        """The target that was asked for: MSE on pixels in [-1, 1]; None: a number of tokens or a budget, or thinned."""
        return self._header.target_mse

    @property
    def promise(self) -> str:
        """What the target is promised for: "block", the MSE of each block, or "video", the mean over all frames."""
        return self._header.promise

    @property
    def kept(self) -> bool | None:
        """Whether the promise was kept; None where there is no target, or errors are unknown or missing (damage).

        "block": no block is `missed`. "video": the mean of `frame_mse` is at most the target, as exactly as a file
        keeps it (0.25 %), and no block is `missed`, which then means above `header.options["worst"]` times the target.
        """
        columns = self._columns
        mse = float(columns.frame_mse.mean()) if len(columns.frame_mse) else float("nan")
        whole = columns.complete and len(columns.frame_mse) > 0
        return promise.kept(self._header, mse, int(columns.missed.sum()), whole=whole)

    @property
    def model_name(self) -> str:
        """Of the weights that made the tokens; `header.model` has their sha256, vocabulary and cell size."""
        return self._header.model.name

    @property
    def has_audio(self) -> bool:
        """Whether audio or subtitles of the source are carried."""
        return self._header.aux is not None

    @property
    def size_bytes(self) -> int:
        """Of the whole file, audio included."""
        return len(self._source) if isinstance(self._source, bytes) else self._source.stat().st_size

    def __len__(self) -> int:
        """Number of blocks."""
        return len(self._columns.frames_per_block)

    def __iter__(self) -> Iterator[Block]:
        """The blocks in order. Raises EtkError at damage, unless it is tolerated."""
        for segment in self.segments():
            yield from segment.blocks

    def segments(self) -> Iterator[Segment]:
        """The blocks by segments: a keyframe block and those that depend on it. Raises EtkError as iteration does."""
        with self.reader() as reader:
            yield from reader.segments()

    def padded(
        self, block: Block, length: int | None = None
    ) -> npt.NDArray[np.uint16] | npt.NDArray[np.float16]:
        """The tokens of a block of this video as (length, rows, columns), 0 where none is kept.

        Of vectors, (length, rows, columns, numbers). length: the model's tokens per cell if not given, at least
        `block.keep.max()`, which takes the least memory.
        """
        if length is None:
            length = self._header.model.tokens_per_cell
        elif length < block.keep.max():
            raise ValueError(f"a cell keeps {block.keep.max()} tokens, more than {length}")
        return unpack_tokens(block.tokens, block.keep, length)

    @property
    def frame_count(self) -> int:
        """Number of frames, F."""
        return len(self._columns.pts)

    @cached_property
    def times(self) -> Floats:
        """When each frame is shown, in seconds, (F,)."""
        return self._seconds(self._columns.pts)

    @cached_property
    def durations(self) -> Floats:
        """How long each frame is shown, in seconds, (F,); 0 where the source does not say."""
        return self._seconds(self._columns.durations)

    @property
    def frame_mse(self) -> Floats:
        """Error of each frame on pixels in [-1, 1], (F,), within 0.25 % of that measured; NaN where it is unknown."""
        return self._columns.frame_mse

    @property
    def frames_per_block(self) -> Ints:
        """How many frames each block has, (B,), 1 to 4."""
        return self._columns.frames_per_block

    @property
    def tokens_per_block(self) -> Ints:
        """How many tokens each block keeps, (B,)."""
        return self._columns.tokens_per_block

    @property
    def missed(self) -> Bools:
        """Which blocks did not meet the target, (B,); `promise` "video": are above the limit of a block."""
        return self._columns.missed

    @property
    def keyframes(self) -> Bools:
        """Which blocks are keyframe blocks and can be decoded without those before, (B,)."""
        return self._columns.keyframes

    @property
    def token_count(self) -> int:
        """Tokens of the whole video."""
        return int(self._columns.tokens_per_block.sum())

    @property
    def tokens_per_frame(self) -> float:
        """Mean over all frames."""
        return self.token_count / max(1, self.frame_count)

    def find_damage(self) -> list[Damage]:
        """Read the whole file and give what of it is damaged, each with its place in bytes and the reason."""
        with self._open(tolerate=True) as reader:
            for _ in reader.parts():
                pass
            return reader.damage

    def save(self, path: str | Path) -> None:
        """Write the `.etk` file, in the place of one that is there; it appears under its name once it is complete.

        Raises OSError.
        """
        with writing(Path(path)) as file:
            if isinstance(self._source, bytes):
                file.write(self._source)
            else:
                with self._source.open("rb") as source:
                    shutil.copyfileobj(source, file)

    def to_bytes(self) -> bytes:
        """The content of the `.etk` file. `TokenVideo(data)` takes it back."""
        return self._source if isinstance(self._source, bytes) else self._source.read_bytes()

    def thin(
        self,
        *,
        keep: float | None = None,
        tokens: int | None = None,
        kbps: float | None = None,
        source: str | Path | None = None,
        model: Model | None = None,
    ) -> TokenVideo:
        """The same video with fewer tokens, as `elastictok thin` makes it: no pixel is coded again.

        Exactly one of `keep` (at most this share of all tokens, 0 to 1, the least useful dropped first), `tokens` (at
        most so many in every cell, 0 or more) and `kbps` (kilobits a second of the whole file, audio included).
        Frame errors are then unknown (NaN), unless `source` (the path of the video it was made from) and `model` are
        given: then the result is decoded and measured, which is slow.

        Raises ValueError for anything else, and where `kbps` cannot be reached; EtkError at damage; with a source
        ModelMismatch, SourceMismatch and VideoError.

            small = elastictok.open("clip.etk").thin(keep=0.5)
        """
        from elastictok_cli.codec import rewrite, thin_request

        if (source is None) != (model is None):
            raise ValueError("source and model need each other")
        request = thin_request.ThinRequest(tokens, keep, kbps)
        result = io.BytesIO()
        with self.reader() as reader:
            *_, found = rewrite.survey(reader, levels=tokens is None)
            if not found.frames:
                raise ValueError("the video has no frames")
            try:
                rule, header = thin_request.choose(
                    request, reader, found, lambda: None, measured=source is not None
                )
            except rewrite.BudgetTooSmall as error:
                least = thin_request.kbps_of(error.bytes, reader.header, found)
                raise ValueError(
                    f"kbps {kbps:g} cannot be reached: without a single token the file has {least:.4g}"
                ) from None
            writer = EtkWriter(result, header)
            with (
                _measure(Path(source), model, self._header) if source and model else nullcontext() as measure
            ):
                for _ in rewrite.rewrite(reader, writer, rule, measure):
                    pass
        return TokenVideo(result.getvalue())

    def __repr__(self) -> str:
        where = "" if isinstance(self._source, bytes) else f" {self._source}"
        return f"<TokenVideo{where}: {self.width}x{self.height}, {self.size_bytes} bytes, {self.model_name}>"

    def _open(self, *, tolerate: bool) -> EtkReader:
        source = io.BytesIO(self._source) if isinstance(self._source, bytes) else self._source
        return EtkReader(source, tolerate=tolerate)

    def _seconds(self, ticks: Ints) -> Floats:
        numerator, denominator = self._header.time_base
        return _fixed(ticks.astype(np.float64) * numerator / denominator)

    @cached_property
    def _columns(self) -> _Columns:
        with self.reader() as reader:
            found = list(reader.facts())
            complete = reader.complete
        sizes = [np.diff(segment.starts) for segment in found]
        return _Columns(
            pts=_joined([segment.pts for segment in found], np.int64),
            durations=_joined([segment.durations for segment in found], np.int64),
            frame_mse=_joined([segment.errors for segment in found], np.float64),
            frames_per_block=_joined(sizes, np.int64),
            tokens_per_block=_joined([segment.tokens for segment in found], np.int64),
            missed=_joined([segment.missed for segment in found], np.bool_),
            keyframes=_joined([np.arange(len(size)) == 0 for size in sizes], np.bool_),
            complete=complete,
        )


def _joined(parts: Sequence[Any], kind: type[np.generic]) -> npt.NDArray[Any]:
    """One array of this type that cannot be written to, from those of the segments."""
    return _fixed(np.concatenate([np.empty(0, kind), *(np.asarray(part, kind) for part in parts)]))


def _fixed(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    array.flags.writeable = False
    return array


@contextmanager
def _measure(
    source: Path, model: Model, header: Header
) -> Iterator[Callable[[Sequence[Block]], list[Block]]]:
    """What decodes the blocks of a segment and puts their errors against the source into them."""
    from elastictok_cli.codec import decoder, measurement

    decoder.check_model(header, model.loaded)
    with measurement.Source(source, header) as frames:

        def measured(blocks: Sequence[Block]) -> list[Block]:
            shown = decoder.pictures(blocks, header, model.loaded, model.device)
            pairs = zip(blocks, shown, strict=True)
            return [replace(block, frame_mse=frames.errors(block, pixels)) for block, pixels in pairs]

        yield measured

"""elastictok in Python: what the commands do, on arrays. `import elastictok` offers it; docs/python.md shows it.

    import elastictok

    model = elastictok.load_model()
    video = elastictok.encode("clip.mp4", model, mse=0.007)
    video.save("clip.etk")
    frames = elastictok.decode(video, model)  # (T, H, W, 3) uint8

Everything goes through the same encoder, file format and decoder as the commands: what is saved here is what
`elastictok encode` would have written, and either side reads the other's files.
"""

from __future__ import annotations

import io
import operator
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from elastictok_cli.analysis import units
from elastictok_cli.codec.budget import DEFAULT_WORST, MAX_WORST, Budget, Promise
from elastictok_cli.model import Model, load_model
from elastictok_cli.token_video import TokenVideo

if TYPE_CHECKING:
    import torch

    from elastictok_cli.codec.encoder import EncodeOptions
    from elastictok_cli.video import VideoReader
    from elastictok_cli.video.arrays import ArrayReader

__all__ = ["Model", "TokenVideo", "decode", "encode", "load_model", "open"]

DEFAULT_MSE = 0.007
_TOLERANCE = 1e-3  # by how much a float32 frame may leave [-1, 1]

Frames = npt.NDArray[np.uint8]


def encode(
    source: Any,
    model: Model,
    mse: float | None = None,
    *,
    tokens: int | None = None,
    promise: Promise | None = None,
    worst: float = DEFAULT_WORST,
    kbps: float | None = None,
    max_bytes: int | None = None,
    max_tokens: int | None = None,
    tokens_per_second: float | None = None,
    fps: float | Fraction | None = None,
    times: Iterable[float] | None = None,
    allocation: Literal["cell", "block"] = "cell",
    effort: int | None = None,
    search: Literal["binary", "linear"] | None = None,
    keyframe_interval: float = 5.0,
    start: float | None = None,
    duration: float | None = None,
    max_height: int | None = None,
    stream: int | None = None,
    audio: bool = True,
    jobs: int | None = 1,
) -> TokenVideo:
    """Compress a video. Every block of up to 4 frames keeps as many tokens as it needs to meet the target. With the
    promise "video" or a budget, tokens go where in the video they buy most.

    `source`, one of
      - a path: a video or picture that FFmpeg reads. Times, rotation, colour tags, chapters, and with `audio` the
        audio and subtitle packets are kept, as by `elastictok encode`.
      - a numpy array (T, H, W, 3) uint8, RGB, 0 to 255; or any iterable of (H, W, 3) uint8 arrays of one size, which
        is read as encoding goes on.
      - a torch tensor (T, 3, H, W), floating point, RGB in [-1, 1], on any device; rounded to 8 bits.
    `mse`: largest mean square error of a block on pixels in [-1, 1], above 0 and up to 4, measured on decoded frames
    after rounding to 8 bits. PSNR is 10 log10(4 / mse): 0.007 is 27.6 dB, 0.003 31.2, 0.001 36.0. A block that cannot
    meet it gets all its tokens and is marked in `TokenVideo.missed`. None: 0.007, or no target where there is a budget.
    `promise`: "block" (the default), or "video": `mse` is the largest mean over all frames. `worst`: the error that no
    block exceeds then, in times `mse`; one that cannot is marked as above.
    `kbps` and `max_bytes` (of the whole file, audio and all), `max_tokens` (in all), `tokens_per_second`: budgets. The
    error is as low as they allow, but no lower than `mse` if that is given too; the promise is "video" then.
    The promise "video" and budgets need a model whose tokens are nested. They take two passes over a path, array, list
    or tensor. Any other iterable is read once, and planned with the frames of one scene in memory: it cannot have
    `max_bytes` and `max_tokens`, as its length is not known.
    `tokens`: keep this many tokens of every cell instead, 0 to `model.tokens_per_cell`; there is no target then.
    `fps` (frames a second) or `times` (seconds of each frame, rising): arrays and tensors of more than one frame need
    one of them; paths have neither.
    `allocation`: a length for each cell, or one for all cells of a block.
    `effort`: 0 (quick) to 9 (fewest tokens), 5 by default, for models whose tokens are nested, as the default one's.
    `search`: how lengths are found ("binary" by default), for models whose encoder sees the length, as the paper's.
    `keyframe_interval`: most seconds between seek points; 0: scene cuts only.
    `start`, `duration` (seconds, from the first frame), `max_height` (pixels; taller pictures are scaled down),
    `stream` (number of the video stream), `audio`: for paths only.
    `jobs`: encode up to so many scenes at the same time, each on one CPU thread in a process of its own; the tokens are
    the same. None: as many as cores and memory allow. On cuda and mps, and with the paper's model, it is 1.

    Raises ValueError and TypeError for arguments and frames that are none of this, and ValueError for a budget that a
    file without a token exceeds; VideoError where a path cannot be read, WorkerDied where one of these processes was
    killed. What a source loses on the way (a stream that cannot be carried, damaged packets) is a UserWarning each.

        video = elastictok.encode(frames, elastictok.load_model(), mse=0.003, fps=30)
    """
    from elastictok_cli.codec.encode_source import encode_source
    from elastictok_cli.codec.passes import BudgetTooSmall, NoDuration

    options = _options(model, mse, tokens, allocation, effort, search, keyframe_interval)
    budget = _budget(kbps, max_bytes, max_tokens, tokens_per_second)
    options = _with_promise(options, model, promise, worst, budget, named=mse is not None)
    _check_jobs(model, jobs)
    window = {"start": start, "duration": duration, "stream": stream}
    given = {name: value for name, value in window.items() if value is not None}
    readers: list[VideoReader | ArrayReader] = []
    file = io.BytesIO()
    with ExitStack() as stack:
        if isinstance(source, str | Path):
            if fps is not None or times is not None:
                raise ValueError("a video file has times of its own: fps and times are for arrays")
            _check_window(start, duration)
            path = stack.enter_context(_readable(source, options.budget))
            found = _of_path(path, source, window, max_height=max_height, audio=audio)
        else:
            if given or max_height is not None:
                raise ValueError(
                    "start, duration, stream and max_height are for paths: cut or scale the array"
                )
            found = _of_pictures(source, fps, times, options.budget)

        def opened() -> VideoReader | ArrayReader:
            readers.append(found.open())
            return readers[-1]

        encoding = encode_source(
            opened,
            file,
            model.loaded,
            options,
            model.device,
            jobs,
            rereadable=found.rereadable,
            recorded=given,
        )
        stack.enter_context(closing(encoding))
        try:
            for _ in encoding:
                pass
        except BudgetTooSmall as error:
            raise ValueError(
                f"the budget cannot be met: without a single token the file still has {error.bytes} bytes (audio, "
                "times, structure)"
            ) from None
        except NoDuration:
            raise ValueError(
                "a still picture has no tokens or kilobits a second: max_bytes and max_tokens limit it"
            ) from None
    for text in dict.fromkeys(text for reader in readers for text in reader.warnings):
        warnings.warn(text, UserWarning, stacklevel=2)
    return TokenVideo(file.getvalue())


def decode(
    source: TokenVideo | str | Path,
    model: Model,
    *,
    start: float | None = None,
    duration: float | None = None,
    jobs: int | None = 1,
) -> Frames:
    """Frames of an encoded video, as (T, H, W, 3) uint8, RGB; `TokenVideo.times` has their times.

    `source`: a `TokenVideo`, or the path of an `.etk` file. `start`, `duration` (seconds, from the first frame): only
    the frames with start <= t < start + duration; segments outside are not read. No frame in that time: T is 0.
    `jobs`: decode up to so many segments at the same time, as `encode` does scenes; the frames are the same.

    Raises ModelMismatch where other weights made the file, EtkError where it is damaged (unless `open(path,
    tolerate=True)` made the `TokenVideo`: then the frames of damaged segments are missing), OSError.

        frames = elastictok.decode("clip.etk", model, start=10, duration=2)
    """
    from elastictok_cli.codec import decoder

    _check_window(start, duration)
    _check_jobs(model, jobs)
    video = source if isinstance(source, TokenVideo) else open(source)
    with video.reader() as reader:
        decoder.check_model(reader.header, model.loaded)
        first_pts = end_pts = None
        if start is not None or duration is not None:
            first_pts, end_pts = decoder.window(reader.header, reader, start, duration)
        times = (pts for block in reader.blocks(first_pts, end_pts, tokens=False) for pts in block.pts)
        count = sum(
            (first_pts is None or pts >= first_pts) and (end_pts is None or pts < end_pts) for pts in times
        )
        frames = np.empty((count, video.height, video.width, 3), np.uint8)
        decoded = decoder.decode(
            reader, model.loaded, model.device, first_pts=first_pts, end_pts=end_pts, jobs=jobs
        )
        count = 0
        with closing(decoded):
            for count, frame in enumerate(decoded, 1):
                frames[count - 1] = frame.rgb
    return frames[:count]


def open(path: str | Path, *, tolerate: bool = False) -> TokenVideo:
    """An `.etk` file, read as it is asked for: only its header now.

    `tolerate`: leave out what is damaged, instead of raising where it is met.
    Raises EtkError where `path` is no `.etk` file or its header is damaged, OSError where it cannot be read.

        video = elastictok.open("clip.etk")
        print(video.frame_count, video.tokens_per_frame, video.times[-1])
    """
    return TokenVideo(Path(path), tolerate=tolerate)


def _budget(
    kbps: float | None,
    max_bytes: int | None,
    max_tokens: int | None,
    tokens_per_second: float | None,
) -> Budget | None:
    """The budget of those that are set. Raises ValueError, and TypeError for parts of bytes and tokens."""
    if all(limit is None for limit in (kbps, max_bytes, max_tokens, tokens_per_second)):
        return None
    return Budget(
        kbps=None if kbps is None else float(kbps),
        max_bytes=None if max_bytes is None else operator.index(max_bytes),
        max_tokens=None if max_tokens is None else operator.index(max_tokens),
        tokens_per_second=None if tokens_per_second is None else float(tokens_per_second),
    )


def _with_promise(
    options: EncodeOptions,
    model: Model,
    promise: Promise | None,
    worst: float,
    budget: Budget | None,
    *,
    named: bool,
) -> EncodeOptions:
    """The options with their promise and budget. named: the target was given. Raises ValueError."""
    if promise not in (None, "block", "video"):
        raise ValueError(f"promise must be block or video, not {promise}")
    if not 1 <= worst <= MAX_WORST:
        raise ValueError(f"worst must be from 1 to {MAX_WORST}, not {worst}")
    if budget is not None and promise == "block":
        raise ValueError("a budget is one of the whole video: it needs the promise video, not block")
    if budget is None and promise != "video":
        return options
    spec = model.loaded.tokenizer.spec
    cause = "the promise video" if budget is None else "a budget"
    if options.tokens is not None:
        raise ValueError(f"{cause} and tokens exclude each other")
    if options.allocation != "cell":
        raise ValueError(f"{cause} needs the allocation cell, not {options.allocation}")
    if not spec.nested:
        raise ValueError(f"{cause} needs a model whose tokens are nested; those of {spec.name} are not")
    mse = options.mse if named or budget is None else None
    return replace(options, mse=mse, promise="video", worst=float(worst), budget=budget)


class _Source(NamedTuple):
    """How a source is opened at its beginning, and whether that can be done more than once."""

    open: Callable[[], VideoReader | ArrayReader]
    rereadable: bool


def _readable(source: str | Path, budget: Budget | None) -> AbstractContextManager[str | Path]:
    """The source itself, or a copy in a file of a pipe whose length has to be known."""
    from elastictok_cli.video.spool import spooled

    return spooled(source) if budget is not None and budget.needs_length else nullcontext(source)


def _of_path(
    path: str | Path, source: str | Path, window: dict[str, Any], *, max_height: int | None, audio: bool
) -> _Source:
    """path: of the source or its copy. window: start, duration and stream."""
    from elastictok_cli.video import VideoReader
    from elastictok_cli.video.streams import reads_once

    name = "standard input" if str(source) == "-" else str(source)
    return _Source(
        partial(VideoReader, path, max_height=max_height, aux=audio, name=name, **window),
        rereadable=not reads_once(path),
    )


def _of_pictures(
    source: Any, fps: float | Fraction | None, times: Iterable[float] | None, budget: Budget | None
) -> _Source:
    from elastictok_cli.video.arrays import ArrayReader

    pictures = _pictures(source)
    rereadable = isinstance(pictures, Sequence | np.ndarray)
    if budget is not None and budget.needs_length and not rereadable:
        raise ValueError(
            "max_bytes and max_tokens need frames that can be read twice, to share them out: give a list or an array, "
            "or kbps or tokens_per_second"
        )
    times = None if times is None else list(times)
    return _Source(partial(ArrayReader, pictures, fps=fps, times=times), rereadable)


def _options(
    model: Model,
    mse: float | None,
    tokens: int | None,
    allocation: Literal["cell", "block"],
    effort: int | None,
    search: Literal["binary", "linear"] | None,
    keyframe_interval: float,
) -> EncodeOptions:
    """What the encoder is asked for. Raises ValueError."""
    from elastictok_cli.codec import rate_control
    from elastictok_cli.codec.encoder import EncodeOptions

    spec = model.loaded.tokenizer.spec
    mse = DEFAULT_MSE if mse is None else mse
    if tokens is None and not 0 < mse <= 4:
        raise ValueError(f"mse must be more than 0 and at most 4, not {mse}")
    if tokens is not None and not 0 <= tokens <= spec.tokens_per_cell:
        raise ValueError(f"tokens must be from 0 to {spec.tokens_per_cell} with this model, not {tokens}")
    if allocation not in ("cell", "block"):
        raise ValueError(f"allocation must be cell or block, not {allocation}")
    if effort is not None and not spec.nested:
        raise ValueError(f"effort is for models whose tokens are nested; {spec.name} has search")
    if effort is not None and effort not in range(len(rate_control.EFFORTS)):
        raise ValueError(f"effort must be from 0 to {len(rate_control.EFFORTS) - 1}, not {effort}")
    if search is not None and spec.nested:
        raise ValueError(f"search is for models whose encoder sees the length; {spec.name} has effort")
    if search not in (None, "binary", "linear"):
        raise ValueError(f"search must be binary or linear, not {search}")
    if not 0 <= keyframe_interval <= units.MAX_SECONDS:
        raise ValueError(f"keyframe_interval must be 0 or more seconds, not {keyframe_interval}")
    return EncodeOptions(
        mse=float(mse) if tokens is None else None,
        tokens=tokens,
        allocation=allocation,
        keyframe_interval=float(keyframe_interval),
        effort=rate_control.DEFAULT_EFFORT if effort is None else effort,
        search=search or "binary",
    )


def _check_jobs(model: Model, jobs: int | None) -> None:
    from elastictok_cli.codec.jobs import why_one_job

    if jobs is not None and jobs < 1:
        raise ValueError(f"jobs must be 1 or more, not {jobs}")
    if jobs is not None and jobs > 1 and (reason := why_one_job(model.loaded, model.device)):
        raise ValueError(f"jobs must be 1: {reason}")


def _check_window(start: float | None, duration: float | None) -> None:
    if start is not None and not 0 <= start <= units.MAX_SECONDS:
        raise ValueError(f"start must be 0 or more seconds, not {start}")
    if duration is not None and not 0 < duration <= units.MAX_SECONDS:
        raise ValueError(f"duration must be more than 0 seconds, not {duration}")


def _pictures(source: Any) -> Iterable[Frames]:
    """Pictures (H, W, 3) uint8 of what `encode` takes beside a path. Raises ValueError and TypeError."""
    import torch

    if isinstance(source, torch.Tensor):
        return _pictures_of_tensor(source)
    if isinstance(source, np.ndarray):
        if source.ndim != 4 or source.shape[3] != 3:
            raise ValueError(f"frames must be (T, height, width, 3), not {source.shape}")
        return source
    if not isinstance(source, Iterable):
        raise TypeError(f"frames must be a path, an array or a tensor, not {type(source).__name__}")
    return source


def _pictures_of_tensor(frames: torch.Tensor) -> Frames:
    if not frames.is_floating_point():
        raise TypeError(
            f"a tensor must be floating point, in [-1, 1], not {frames.dtype}; uint8 frames come as a numpy array"
        )
    if frames.ndim != 4 or frames.shape[1] != 3:
        raise ValueError(f"a tensor must be (T, 3, height, width), not {tuple(frames.shape)}")
    frames = frames.detach().cpu().float()
    if frames.numel() and not bool((frames.abs() <= 1 + _TOLERANCE).all()):  # so that NaN fails too
        raise ValueError("a tensor must be in [-1, 1]: uint8 / 127.5 - 1")
    return np.rint((frames.permute(0, 2, 3, 1).numpy() + 1) * 127.5).clip(0, 255).astype(np.uint8)

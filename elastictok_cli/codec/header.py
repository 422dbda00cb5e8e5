"""The header of a file: its source, its model and the options of its encode."""

from __future__ import annotations

from elastictok_cli.codec.options import KEYFRAME_INTERVAL, EncodeOptions
from elastictok_cli.codec.rate_control import DEFAULT_EFFORT
from elastictok_cli.models.interface import Loaded, TokenizerSpec
from elastictok_cli.version import __version__
from elastictok_cli.video.records import VideoInfo
from formats import ControlRange, Header, ModelRef

# FFmpeg's numbers for "unspecified"; a tag with this value is left out
UNSPECIFIED_COLOR = {"color_primaries": 2, "color_trc": 2, "colorspace": 2, "color_range": 0}


def make_header(info: VideoInfo, loaded: Loaded, options: EncodeOptions) -> Header:
    """The header of a file made from this source with this model and these options."""
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
        promise=options.promise,
        allocation=options.allocation,
        rotation=info.rotation,
        pixel_format=info.pixel_format,
        color={tag: value for tag, value in info.color.items() if value != UNSPECIFIED_COLOR.get(tag)},
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
    """The options that the header records: those that differ from their defaults, and what qualifies the promise."""
    recorded: dict[str, str | int | float | bool] = {}
    if options.keyframe_interval != KEYFRAME_INTERVAL:
        recorded["keyframe_interval"] = options.keyframe_interval
    if not spec.nested:
        recorded["search"] = options.search
    elif options.effort != DEFAULT_EFFORT:
        recorded["effort"] = options.effort
    if options.promise == "video":
        recorded["worst"] = float(options.worst)
    if options.budget is not None:
        recorded |= options.budget.recorded()
    return recorded

"""What a source's pictures have that RGB frames cannot carry."""

from collections.abc import Mapping
from typing import Any

from av.video.frame import VideoFrame

from elastictok_cli.video.colour import matrix_warning, opacity

TRANSPARENCY = "transparency is dropped: pixels keep the colour they have underneath"

_OPAQUE = 255

# FFmpeg's AVFieldOrder: which field is shown first.
_SHOWN_FIRST = {2: "top", 3: "bottom", 4: "bottom", 5: "top"}


def lost_in_pixels(frame: VideoFrame, stream: Any, container_tags: Mapping[str, int]) -> list[str]:
    """Warnings, each of which names something that a decoded frame of a stream loses as an RGB picture.

    `container_tags` are the colour tags of the container (`colour.tags_of`). To be asked of every frame, since
    any of them may be the first interlaced or transparent one.
    """
    lost = []
    if frame.interlaced_frame:
        first = _SHOWN_FIRST.get(int(getattr(stream.codec_context, "field_order", 0)))
        order = f" ({first} field first)" if first else ""
        lost.append(
            f"the source is interlaced{order}: its frames are kept as they are and marked progressive"
        )
    if _is_transparent(frame, stream):
        lost.append(TRANSPARENCY)
    if (approximated := matrix_warning(frame, container_tags)) is not None:
        lost.append(approximated)
    return lost


def _is_transparent(frame: VideoFrame, stream: Any) -> bool:
    """Whether a frame has an alpha channel with anything but full opacity in it.

    Many opaque pictures have the channel: every GIF, most PNG files of design programs.
    """
    alpha = opacity(frame)
    if alpha is not None:
        return bool(alpha.min() < _OPAQUE)
    # The alpha of VP8 and VP9 lies beside the pictures, where FFmpeg's own decoders do not look.
    return any(key.lower() == "alpha_mode" and value == "1" for key, value in stream.metadata.items())

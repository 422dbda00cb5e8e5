"""What pictures lose as RGB is said, once, and only where it is lost."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from video_clips import make_clip, pattern, read_all

from elastictok_cli.video.losses import TRANSPARENCY


def interlaced_clip(path: Path, *, top_first: bool | None, video: str = "libx264") -> None:
    """Six frames of moving bars; `top_first` None is progressive."""
    options = {}
    if top_first is not None and video == "libx264":
        options = {"x264-params": "tff=1" if top_first else "bff=1"}
    with av.open(str(path), "w") as out:
        stream = out.add_stream(video, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        if top_first is not None:
            stream.codec_context.flags |= 0x20040000  # interlaced motion estimation and transform
            if hasattr(stream.codec_context, "field_order"):  # PyAV 18
                stream.codec_context.field_order = 2 if top_first else 3
        for i in range(6):
            frame = av.VideoFrame.from_ndarray(np.roll(pattern(i, 64, 64), 8 * i, axis=1), format="rgb24")
            frame = frame.reformat(format="yuv420p")
            frame.pts = i
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
@pytest.mark.parametrize("top_first", [True, False])
def test_interlaced(tmp_path: Path, suffix: str, top_first: bool) -> None:
    interlaced_clip(tmp_path / f"a{suffix}", top_first=top_first)
    _, frames, _, warnings = read_all(tmp_path / f"a{suffix}")
    assert len(frames) == 6
    assert len(warnings) == 1
    assert warnings[0].startswith("the source is interlaced")
    assert warnings[0].endswith("its frames are kept as they are and marked progressive")
    assert ("bottom field first" if top_first else "top field first") not in warnings[0]


def test_progressive(tmp_path: Path) -> None:
    interlaced_clip(tmp_path / "a.mp4", top_first=None)
    assert read_all(tmp_path / "a.mp4")[3] == []


def alpha_clip(path: Path, video: str, pixel_format: str, first_transparent: int | None) -> None:
    """Three frames; from number `first_transparent` on a quarter of each is half transparent."""
    rgba = np.dstack([pattern(0, 16, 32), np.full((16, 32), 255, np.uint8)])
    with av.open(str(path), "w") as out:
        options = {"auto-alt-ref": "0"} if video == "libvpx" else {}  # VP8 has no alpha with it
        stream = out.add_stream(video, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 32, 16, pixel_format
        for i in range(3):
            if i == first_transparent:
                rgba[:8, :16, 3] = 128
            frame = av.VideoFrame.from_ndarray(rgba, format="rgba").reformat(format=pixel_format)
            frame.pts = i
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


@pytest.mark.parametrize(
    ("suffix", "video", "pixel_format"),
    [
        (".mov", "png", "rgba"),
        (".mkv", "ffv1", "bgra"),
        (".mkv", "ffv1", "yuva420p"),
        (".mov", "prores_ks", "yuva444p10le"),
        (".mkv", "ffv1", "ya8"),
    ],
)
@pytest.mark.parametrize("first", [0, 2, None])
def test_transparency(tmp_path: Path, suffix: str, video: str, pixel_format: str, first: int | None) -> None:
    if pixel_format == "ya8" and "ya8" not in {f.name for f in av.Codec("ffv1", "w").video_formats}:
        pytest.skip("this FFV1 has no gray with alpha")
    alpha_clip(tmp_path / f"a{suffix}", video, pixel_format, first)
    warnings = read_all(tmp_path / f"a{suffix}")[3]
    assert warnings == ([] if first is None else [TRANSPARENCY])


@pytest.mark.parametrize(("alpha", "lost"), [(255, []), (0, [TRANSPARENCY])])
def test_transparent_palettes(tmp_path: Path, alpha: int, lost: list[str]) -> None:
    encoder = av.CodecContext.create("png", "w")
    encoder.width, encoder.height, encoder.pix_fmt = 16, 8, "pal8"
    encoder.time_base = Fraction(1, 25)
    palette = np.full((256, 4), 255, np.uint8)
    palette[7, 0] = alpha
    frame = av.VideoFrame.from_ndarray(
        (np.arange(128, dtype=np.uint8).reshape(8, 16), palette), format="pal8"
    )
    frame.pts = 0
    (tmp_path / "a.png").write_bytes(b"".join(bytes(p) for p in encoder.encode(frame)))
    assert read_all(tmp_path / "a.png")[3] == lost


def test_opaque_gif_is_no_loss(tmp_path: Path) -> None:
    make_clip(tmp_path / "a.gif", video="gif", pixel_format="rgb8", count=3)
    assert read_all(tmp_path / "a.gif")[3] == []


@pytest.mark.parametrize("video", ["libvpx", "libvpx-vp9"])
def test_alpha_beside_the_pictures(tmp_path: Path, video: str) -> None:
    alpha_clip(tmp_path / "a.webm", video, "yuva420p", 0)
    info, frames, _, warnings = read_all(tmp_path / "a.webm")
    assert (info.pixel_format, len(frames)) == ("yuv420p", 3)
    assert warnings == [TRANSPARENCY]
    make_clip(tmp_path / "b.webm", video=video, size=(32, 16), count=3)
    assert read_all(tmp_path / "b.webm")[3] == []

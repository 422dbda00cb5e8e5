"""Colours by arithmetic of our own: flat patches of known YUV numbers in, RGB within rounding out, and back."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from video_clips import copy_clip, make_clip, read_all

from elastictok_cli.video import Frame, VideoReader, VideoWriter
from elastictok_cli.video.colour import matrix_for, untagged_matrix
from elastictok_cli.video.pictures import PictureEncoder

# Weights of red and blue in luma, by ITU-T H.273 number.
LUMA = {
    1: (0.2126, 0.0722),
    4: (0.3, 0.11),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
}
MATRICES = sorted(LUMA)

# swscale halves the precision of 4:2:0 on its quick way to RGB; a wrong matrix is 15 and more away.
ROUNDING = {"yuv444p": 1, "yuv420p": 2.5, "yuv420p10le": 3.5}

COLOURS = np.array(
    [[200, 60, 40], [40, 180, 60], [50, 70, 200], [128, 128, 128], [220, 210, 60], [60, 200, 210]], np.float64
)
PATCH = 16


def to_yuv(rgb: np.ndarray, matrix: int, full: bool, bits: int = 8) -> np.ndarray:
    """Rounded YUV numbers of RGB colours in 0..255, (..., 3)."""
    red, blue = LUMA[matrix]
    y = rgb @ [red, 1 - red - blue, blue]
    u, v = (rgb[..., 2] - y) / (2 - 2 * blue), (rgb[..., 0] - y) / (2 - 2 * red)
    top, middle = 2**bits - 1, 2 ** (bits - 1)
    if full:
        numbers = [y * top / 255, u * top / 255 + middle, v * top / 255 + middle]
    else:
        scale = 2 ** (bits - 8) / 255
        numbers = [(y * 219 + 16 * 255) * scale, u * 224 * scale + middle, v * 224 * scale + middle]
    return np.round(np.stack(numbers, axis=-1))


def to_rgb(yuv: np.ndarray, matrix: int, full: bool, bits: int = 8) -> np.ndarray:
    """RGB in 0..255, not rounded, of YUV numbers (..., 3)."""
    red, blue = LUMA[matrix]
    top, middle = 2**bits - 1, 2 ** (bits - 1)
    scale = 2 ** (bits - 8)
    y = yuv[..., 0] / top if full else (yuv[..., 0] / scale - 16) / 219
    u, v = ((yuv[..., i] - middle) / top if full else (yuv[..., i] - middle) / scale / 224 for i in (1, 2))
    r, b = y + (2 - 2 * red) * v, y + (2 - 2 * blue) * u
    g = (y - red * r - blue * b) / (1 - red - blue)
    return np.clip(255 * np.stack([r, g, b], axis=-1), 0, 255)


def patches_clip(
    path: Path,
    matrix: int,
    full: bool,
    *,
    pixel_format: str = "yuv444p",
    size: tuple[int, int] = (6 * PATCH, PATCH),
    tags: dict[str, int] | None = None,
    video: str = "libx264",
    options: dict[str, str] | None = None,
) -> np.ndarray:
    """A lossless clip of COLOURS side by side in the given matrix; the RGB that must come out, (6, 3).

    `tags` are what the file says of it, by default the truth.
    """
    width, height = size
    bits = 10 if "10" in pixel_format else 8
    yuv = to_yuv(COLOURS, matrix, full, bits)
    truth = {"colorspace": matrix, "color_range": 2 if full else 1}
    with av.open(str(path), "w") as out:
        options = {"qp": "0"} if options is None else options
        stream = out.add_stream(video, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        for name, value in (truth if tags is None else tags).items():
            setattr(stream.codec_context, name, value)
        frame = av.VideoFrame(width, height, pixel_format)
        for part, plane in enumerate(frame.planes):
            row = np.repeat(yuv[:, part], plane.width // 6 + 1)[: plane.width]
            columns = np.minimum(np.arange(plane.width) * 6 // plane.width, 5)
            row = yuv[columns, part].astype("<u2" if bits > 8 else "u1")
            line = np.zeros(plane.line_size // row.itemsize, row.dtype)
            line[: plane.width] = row
            plane.update(np.tile(line, plane.height).tobytes())
        for pts in range(2):
            frame.pts = pts
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return to_rgb(yuv, matrix, full, bits)


def middles(rgb: np.ndarray) -> np.ndarray:
    """The colour in the middle of each of the six patches of a picture, (6, 3)."""
    height, width = rgb.shape[:2]
    return rgb[height // 2, [width * (2 * i + 1) // 12 for i in range(6)]].astype(np.float64)


def planes_of(path: Path) -> np.ndarray:
    """The YUV numbers in the middle of each patch of the first frame of a 4:4:4 or 4:2:0 file, (6, 3)."""
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        found = []
        for plane in frame.planes:
            numbers = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
            found.append(numbers[plane.height // 2, [plane.width * (2 * i + 1) // 12 for i in range(6)]])
    return np.stack(found, axis=-1).astype(np.float64)


@pytest.mark.parametrize("pixel_format", ["yuv444p", "yuv420p", "yuv420p10le"])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", MATRICES)
def test_tagged_pictures_are_read_as_tagged(
    tmp_path: Path, matrix: int, full: bool, pixel_format: str
) -> None:
    expected = patches_clip(tmp_path / "a.mp4", matrix, full, pixel_format=pixel_format)
    _, frames, _, warnings = read_all(tmp_path / "a.mp4")
    assert np.abs(middles(frames[0].rgb) - expected).max() <= ROUNDING[pixel_format]
    assert warnings == []


@pytest.mark.parametrize(
    ("size", "matrix"), [((96, 576), 6), ((96, 578), 1), ((1278, 48), 6), ((1280, 48), 1), ((96, 720), 1)]
)
def test_untagged_pictures_go_by_size(tmp_path: Path, size: tuple[int, int], matrix: int) -> None:
    expected = patches_clip(tmp_path / "a.mp4", matrix, False, size=size, tags={})
    info, frames, _, _ = read_all(tmp_path / "a.mp4")
    assert info.color["colorspace"] == 2
    assert np.abs(middles(frames[0].rgb) - expected).max() <= 1
    # and the way out does not change what a player shows: same numbers, now with a tag
    copy_clip(tmp_path / "a.mp4", tmp_path / "b.mp4", crf=1)
    info, _, _, _ = read_all(tmp_path / "b.mp4")
    assert (info.color["colorspace"], info.color["color_range"]) == (matrix, 1)
    assert np.abs(planes_of(tmp_path / "b.mp4") - planes_of(tmp_path / "a.mp4")).max() <= 3


def test_the_stored_size_decides_for_untagged_pictures(tmp_path: Path) -> None:
    expected = patches_clip(tmp_path / "a.mp4", 1, False, size=(1280, 720), tags={})
    info, frames, _, _ = read_all(tmp_path / "a.mp4", max_height=360)
    assert (info.width, info.height) == (640, 360)
    assert np.abs(middles(frames[0].rgb) - expected).max() <= 1
    copy_clip(tmp_path / "a.mp4", tmp_path / "b.mkv", lossless=True)
    assert np.abs(middles(read_all(tmp_path / "b.mkv")[1][0].rgb) - expected).max() <= 1


@pytest.mark.parametrize(("suffix", "codec"), [(".mp4", "h264"), (".mov", "hevc"), (".mkv", "h264")])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", MATRICES)
def test_a_round_trip_keeps_colours_and_their_tags(
    tmp_path: Path, matrix: int, full: bool, suffix: str, codec: str
) -> None:
    tags = {"colorspace": matrix, "color_range": 1 + full, "color_primaries": 9, "color_trc": 14}
    expected = patches_clip(tmp_path / "a.mp4", matrix, full, tags=tags)
    copy_clip(tmp_path / "a.mp4", tmp_path / f"b{suffix}", codec=codec, crf=1)
    info, frames, _, _ = read_all(tmp_path / f"b{suffix}")
    assert info.color == {**tags, "color_range": 1}
    assert np.abs(middles(frames[0].rgb) - expected).max() <= 5  # 4:2:0, twice rounded, and nearly lossless
    # what a player computes from the numbers and the tags of the file
    seen = to_rgb(planes_of(tmp_path / f"b{suffix}"), info.color["colorspace"], False)
    assert np.abs(seen - expected).max() <= 4


@pytest.mark.parametrize("name", ["b.webm", "b.mkv", "b.mp4"])
@pytest.mark.parametrize("matrix", [1, 9])
def test_av1_is_tagged_as_it_is_written(tmp_path: Path, name: str, matrix: int) -> None:
    tags = {"colorspace": matrix, "color_range": 1, "color_primaries": matrix, "color_trc": 1}
    expected = patches_clip(tmp_path / "a.mp4", matrix, False, tags=tags, size=(96, 64))
    copy_clip(tmp_path / "a.mp4", tmp_path / name, codec="av1", crf=2)
    info, frames, _, _ = read_all(tmp_path / name)
    assert info.color == tags
    assert np.abs(middles(frames[0].rgb) - expected).max() <= 5


def test_lossless_output_is_rgb_and_says_so(tmp_path: Path) -> None:
    tags = {"colorspace": 9, "color_range": 1, "color_primaries": 9, "color_trc": 14}
    expected = patches_clip(tmp_path / "a.mp4", 9, False, tags=tags)
    copy_clip(tmp_path / "a.mp4", tmp_path / "b.mkv", lossless=True)
    info, frames, _, _ = read_all(tmp_path / "b.mkv")
    assert info.color == {"colorspace": 0, "color_range": 2, "color_primaries": 9, "color_trc": 14}
    assert np.abs(middles(frames[0].rgb) - expected).max() <= 1


@pytest.mark.parametrize(
    ("size", "tagged", "written"), [((96, 48), 1, 6), ((96, 48), 9, 6), ((96, 720), 6, 1), ((96, 48), 2, 6)]
)
def test_y4m_goes_by_size_for_it_has_no_tag(
    tmp_path: Path, size: tuple[int, int], tagged: int, written: int
) -> None:
    width, height = size
    picture = np.repeat(np.repeat(COLOURS[None], PATCH, axis=1), height, axis=0).astype(np.uint8)
    with VideoWriter(
        tmp_path / "a.y4m",
        width=width,
        height=height,
        time_base=Fraction(1, 25),
        average_rate=Fraction(25),
        color={"colorspace": tagged},
    ) as writer:
        writer.write(Frame(picture, 0, 1))
    head, _, pixels = (tmp_path / "a.y4m").read_bytes().partition(b"\nFRAME\n")
    assert b" XCOLORRANGE=LIMITED" in head
    planes = np.frombuffer(pixels, np.uint8).reshape(3, height, width)
    numbers = middles(planes.transpose(1, 2, 0))
    assert np.abs(numbers - to_yuv(COLOURS, written, False)).max() <= 1
    assert np.abs(middles(read_all(tmp_path / "a.y4m")[1][0].rgb) - COLOURS).max() <= 2


@pytest.mark.parametrize("height", [48, 720])
def test_jpeg_is_bt601_in_full_range_at_any_size(tmp_path: Path, height: int) -> None:
    picture = np.repeat(np.repeat(COLOURS[None], PATCH, axis=1), height, axis=0).astype(np.uint8)
    source = tmp_path / "a.jpg"
    source.write_bytes(PictureEncoder((96, height), jpeg=True).encode(picture))
    assert np.abs(planes_of(source) - to_yuv(COLOURS, 6, True)).max() <= 2
    assert np.abs(middles(read_all(source)[1][0].rgb) - COLOURS).max() <= 4


@pytest.mark.parametrize(("tag", "first", "last"), [(1, 16, 235), (2, 0, 255)])
@pytest.mark.parametrize("pixel_format", ["gray", "gray10le"])
def test_gray_in_limited_range(tmp_path: Path, pixel_format: str, tag: int, first: int, last: int) -> None:
    ramp = np.round(np.linspace(first, last, 64)).astype(np.uint8)
    scale, dtype = (4, "<u2") if "10" in pixel_format else (1, "u1")
    with av.open(str(tmp_path / "a.mkv"), "w") as out:
        stream = out.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 32, pixel_format
        stream.codec_context.color_range = tag
        frame = av.VideoFrame(64, 32, pixel_format)
        line = np.zeros(frame.planes[0].line_size // np.dtype(dtype).itemsize, dtype)
        line[:64] = ramp.astype(dtype) * scale
        frame.planes[0].update(np.tile(line, 32).tobytes())
        frame.pts = 0
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    _, frames, _, _ = read_all(tmp_path / "a.mkv")
    expected = np.linspace(0, 255, 64)[:, None]
    assert np.abs(frames[0].rgb[16].astype(float) - expected).max() <= 1.5


@pytest.mark.parametrize("pixel_format", ["yuvj420p", "yuvj444p"])
def test_formats_in_full_range_need_no_tag(tmp_path: Path, pixel_format: str) -> None:
    expected = patches_clip(
        tmp_path / "a.avi", 6, True, pixel_format=pixel_format, video="mjpeg", tags={}, options={}
    )
    info, frames, _, _ = read_all(tmp_path / "a.avi")
    assert info.pixel_format == pixel_format
    assert np.abs(middles(frames[0].rgb) - expected).max() <= 4


def test_rgb_ignores_tags_of_yuv(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "a.mkv", video="ffv1", pixel_format="bgr0", size=(32, 16), count=2)
    plain = read_all(source)[1][0].rgb
    with av.open(str(tmp_path / "b.mkv"), "w") as out:
        stream = out.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 16, "bgr0"
        stream.codec_context.colorspace, stream.codec_context.color_range = 1, 1
        out.mux(stream.encode(av.VideoFrame.from_ndarray(plain, format="rgb24").reformat(format="bgr0")))
        out.mux(stream.encode(None))
    np.testing.assert_array_equal(read_all(tmp_path / "b.mkv")[1][0].rgb, plain)


@pytest.mark.parametrize(
    ("tag", "primaries", "read_as", "warning"),
    [
        (8, 2, 6, "YCgCo"),
        (10, 9, 9, "constant luminance"),
        (14, 9, 6, "ICtCp"),
        (12, 9, 9, None),
        (12, 2, 6, "number 12"),
    ],
)
def test_a_matrix_out_of_reach_is_named(
    tmp_path: Path, tag: int, primaries: int, read_as: int, warning: str | None
) -> None:
    tags = {"colorspace": tag, "color_primaries": primaries, "color_range": 1}
    expected = patches_clip(tmp_path / "a.mp4", read_as, False, tags=tags)
    info, frames, _, warnings = read_all(tmp_path / "a.mp4")
    assert info.color["colorspace"] == tag
    assert np.abs(middles(frames[0].rgb) - expected).max() <= 1
    assert [warning is not None and warning in w for w in warnings] == [True] * (warning is not None)
    # what is written is tagged as what it now is
    copy_clip(tmp_path / "a.mp4", tmp_path / "b.mp4", crf=1)
    assert read_all(tmp_path / "b.mp4")[0].color["colorspace"] == read_as


def test_transfer_characteristics_are_named_not_converted(tmp_path: Path) -> None:
    tags = {"colorspace": 9, "color_range": 1, "color_primaries": 9, "color_trc": 16}
    expected = patches_clip(tmp_path / "a.mp4", 9, False, tags=tags)
    _, frames, _, warnings = read_all(tmp_path / "a.mp4")
    assert len(warnings) == 1
    assert "HDR (PQ" in warnings[0]
    assert np.abs(middles(frames[0].rgb) - expected).max() <= 1
    with VideoReader(tmp_path / "a.mp4") as reader:
        assert reader.info.color["color_trc"] == 16


def test_the_rule_in_numbers() -> None:
    assert [untagged_matrix(*size) for size in ((1279, 576), (1280, 2), (2, 577))] == [6, 1, 1]
    for tag in MATRICES:
        assert matrix_for({"colorspace": tag}, 64, 48) == matrix_for({"colorspace": tag}, 1920, 1080) == tag
    for nothing in ({}, {"colorspace": 0}, {"colorspace": 2}, {"colorspace": 3}):
        assert matrix_for(nothing, 64, 48) == 6
        assert matrix_for(nothing, 1920, 1080) == 1


def test_tags_of_the_container_count_where_the_codec_is_silent(tmp_path: Path) -> None:
    """ProRes frames that say "unspecified" in a MOV file that says BT.2020."""
    expected = patches_clip(
        tmp_path / "a.mov",
        9,
        False,
        pixel_format="yuv444p10le",
        video="prores_ks",
        tags={"colorspace": 9, "color_primaries": 9, "color_trc": 14},
        options={"qscale": "1"},
    )
    with av.open(str(tmp_path / "a.mov")) as container:
        assert next(container.decode(video=0)).colorspace == 2
    info, frames, _, _ = read_all(tmp_path / "a.mov")
    assert [info.color[name] for name in ("colorspace", "color_primaries", "color_trc")] == [9, 9, 14]
    assert np.abs(middles(frames[0].rgb) - expected).max() <= 2
    copy_clip(tmp_path / "a.mov", tmp_path / "b.mkv", crf=1)
    assert read_all(tmp_path / "b.mkv")[0].color == {**info.color, "color_range": 1}

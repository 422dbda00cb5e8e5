"""The shape of pixels: read where a source says it, written by every output, and read back with PyAV alone."""

import struct
import zlib
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from test_video_reader import rotate_by_header
from video_clips import copy_clip, make_clip, packets, pattern, read_all

from elastictok_cli.video import Frame, VideoWriter
from elastictok_cli.video.aspect import display_size, limited, pixel_aspect
from elastictok_cli.video.matroska import PLACEHOLDER_NAME, write_display_size

WIDE, TALL = Fraction(64, 45), Fraction(8, 9)
SIZE = (72, 58)


def write(target: Path, aspect: Fraction, size: tuple[int, int] = SIZE, **options: object) -> None:
    width, height = size
    with VideoWriter(
        target,
        width=width,
        height=height,
        time_base=Fraction(1, 30),
        average_rate=Fraction(30),
        pixel_aspect=aspect,
        **options,
    ) as writer:
        for i in range(1 if target.suffix in (".png", ".jpg") else 4):
            writer.write(Frame(pattern(i, height, width), i, 1))


def pyav_aspect(path: Path) -> Fraction:
    """What FFmpeg makes of a file: the container's word before the codec's."""
    with av.open(str(path)) as container:
        next(container.decode(video=0))
        return container.streams.video[0].sample_aspect_ratio or Fraction(1)


def set_pasp(path: Path, aspect: Fraction) -> None:
    """Change what an MP4 file says, without a word to its codec."""
    data = bytearray(path.read_bytes())
    at = data.index(b"pasp") + 4
    data[at : at + 8] = struct.pack(">II", aspect.numerator, aspect.denominator)
    path.write_bytes(data)


@pytest.mark.parametrize("aspect", [Fraction(116, 81), WIDE, TALL, Fraction(1)])
@pytest.mark.parametrize("codec", ["libx264", "libx265", "prores_ks"])
def test_the_container_is_believed(tmp_path: Path, codec: str, aspect: Fraction) -> None:
    source = tmp_path / "a.mov"
    with av.open(str(source), "w") as out:
        options = {"x265-params": "log-level=error"} if codec == "libx265" else {}
        stream = out.add_stream(codec, rate=25, options=options)
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuv422p10le" if codec == "prores_ks" else "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        for i in range(3):
            frame = av.VideoFrame.from_ndarray(pattern(i, SIZE[1], SIZE[0]), format="rgb24")
            frame.pts = i
            out.mux(stream.encode(frame.reformat(format=stream.pix_fmt)))
        out.mux(stream.encode(None))
    assert read_all(source)[0].pixel_aspect == Fraction(4, 3)
    set_pasp(source, aspect)
    assert read_all(source)[0].pixel_aspect == aspect


def test_the_codec_is_believed_where_the_container_is_silent(tmp_path: Path) -> None:
    source = tmp_path / "a.h264"
    with av.open(str(source), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height = SIZE
        stream.codec_context.sample_aspect_ratio = WIDE
        for i in range(3):
            frame = av.VideoFrame.from_ndarray(pattern(i, SIZE[1], SIZE[0]), format="rgb24")
            out.mux(stream.encode(frame.reformat(format="yuv420p")))
        out.mux(stream.encode(None))
    assert read_all(source)[0].pixel_aspect == WIDE


def test_silence_means_square(tmp_path: Path) -> None:
    def says(container: Fraction | None, codec: Fraction | None) -> SimpleNamespace:
        return SimpleNamespace(
            sample_aspect_ratio=container, codec_context=SimpleNamespace(sample_aspect_ratio=codec)
        )

    assert pixel_aspect(says(None, WIDE)) == pixel_aspect(says(Fraction(0), WIDE)) == WIDE
    assert pixel_aspect(says(None, None)) == pixel_aspect(says(Fraction(-1), Fraction(0))) == 1
    make_clip(tmp_path / "a.mkv", video="ffv1", pixel_format="bgr0", count=2)
    assert read_all(tmp_path / "a.mkv")[0].pixel_aspect == 1


@pytest.mark.parametrize("aspect", [WIDE, TALL, Fraction(116, 81), Fraction(1)])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp4", {"codec": "h264"}),
        ("a.mp4", {"codec": "hevc"}),
        ("a.mp4", {"codec": "av1"}),
        ("a.m4v", {"codec": "h264"}),
        ("a.mov", {"codec": "h264"}),
        ("a.mov", {"codec": "hevc"}),
        ("a.mkv", {"codec": "h264"}),
        ("a.mkv", {"codec": "hevc"}),
        ("a.mkv", {"codec": "av1"}),
        ("a.mkv", {"lossless": True}),
        ("a.webm", {"codec": "av1"}),
        ("a.y4m", {}),
        ("a.png", {}),
        ("a.jpg", {}),
    ],
)
def test_every_output_says_it(
    tmp_path: Path, name: str, options: dict[str, object], aspect: Fraction
) -> None:
    write(tmp_path / name, aspect, **options)
    assert pyav_aspect(tmp_path / name) == aspect
    info, frames, _, _ = read_all(tmp_path / name)
    assert info.pixel_aspect == aspect
    assert (info.width, info.height) == SIZE
    assert len(frames) == (1 if name in ("a.png", "a.jpg") else 4)


def test_a_folder_of_pictures_says_it(tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    write(tmp_path / "frames", WIDE)
    assert {pyav_aspect(p) for p in (tmp_path / "frames").iterdir()} == {WIDE}


def test_y4m_header(tmp_path: Path) -> None:
    write(tmp_path / "a.y4m", WIDE)
    assert (
        (tmp_path / "a.y4m")
        .read_bytes()
        .startswith(b"YUV4MPEG2 W72 H58 F30:1 Ip A64:45 C444 XCOLORRANGE=LIMITED\n")
    )
    write(tmp_path / "b.y4m", Fraction(1))
    assert b" A1:1 " in (tmp_path / "b.y4m").read_bytes()[:80]


def test_a_quarter_turn_inverts_it(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", WIDE)
    rotate_by_header(tmp_path / "a.mp4", 1)
    info = read_all(tmp_path / "a.mp4")[0]
    assert (info.width, info.height, info.pixel_aspect) == (58, 72, Fraction(45, 64))


def test_matroska_keeps_all_else(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "a.mkv", audio="libopus", size=SIZE)
    copy_clip(source, tmp_path / "square.mkv", lossless=True)
    copy_clip(source, tmp_path / "wide.mkv", lossless=True, pixel_aspect=WIDE)
    _, square, _, _ = read_all(tmp_path / "square.mkv")
    info, wide, _, warnings = read_all(tmp_path / "wide.mkv")
    assert (info.pixel_aspect, warnings) == (WIDE, [])
    assert [f.pts for f in wide] == [f.pts for f in square]
    assert all(np.array_equal(a.rgb, b.rgb) for a, b in zip(wide, square, strict=True))
    assert packets(tmp_path / "wide.mkv") == packets(source)
    with av.open(str(tmp_path / "wide.mkv")) as container:
        assert "title" not in container.streams.video[0].metadata
    data = (tmp_path / "wide.mkv").read_bytes()
    assert PLACEHOLDER_NAME.encode() not in data
    mark = bytes.fromhex("1654ae6b")
    tracks = data.index(mark, data.index(mark) + 1)  # the seek head names it first
    size = struct.unpack(">H", data[tracks + 4 : tracks + 6])[0] & 0x3FFF
    content = data[tracks + 6 : tracks + 6 + size]
    assert content[:2] == b"\xbf\x84"  # the checksum of the rest
    assert int.from_bytes(content[2:6], "little") == zlib.crc32(content[6:])


def test_matroska_without_the_mark_is_left_alone(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "a.mkv", count=2)
    before = source.read_bytes()
    with pytest.raises(ValueError, match="no track"):
        write_display_size(source, 16, 9)
    assert source.read_bytes() == before
    (tmp_path / "b.mkv").write_bytes(b"no Matroska file at all")
    with pytest.raises(ValueError, match="Matroska"):
        write_display_size(tmp_path / "b.mkv", 16, 9)


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (72, 58), (720, 576), (1440, 1080), (3840, 2160)])
@pytest.mark.parametrize("aspect", [WIDE, TALL, Fraction(4, 3), Fraction(1001, 1000), Fraction(1, 200)])
def test_display_size_is_exact(size: tuple[int, int], aspect: Fraction) -> None:
    width, height = display_size(*size, aspect)
    assert Fraction(width, height) / Fraction(*size) == aspect
    assert max(width, height) <= 0xFFFF
    assert display_size(720, 576, WIDE) == (1024, 576)


@pytest.mark.parametrize("aspect", [Fraction(10**9 + 7, 10**9), Fraction(1, 10**6), Fraction(10**6)])
def test_aspects_that_do_not_fit_are_rounded(tmp_path: Path, aspect: Fraction) -> None:
    near = limited(aspect, 0xFFFF)
    assert 0 < near.numerator <= 0xFFFF
    assert near.denominator <= 0xFFFF
    assert max(display_size(72, 58, aspect)) <= 0xFFFF
    assert min(display_size(72, 58, aspect)) >= 1
    for name in ("a.mkv", "a.mp4", "a.png", "a.jpg", "a.y4m"):
        write(tmp_path / name, aspect)
        assert len(read_all(tmp_path / name)[1]) >= 1

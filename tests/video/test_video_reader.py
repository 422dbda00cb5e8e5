import struct
import tracemalloc
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from video_clips import TICKS, VFR, make_clip, pattern, read_all, seconds

from elastictok_cli.video import NoVideoStream, UnreadableVideo, VideoReader
from elastictok_cli.video.pictures import PictureEncoder
from elastictok_cli.video.timeline import Timeline


def pyav_rgb(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


@pytest.mark.parametrize(
    ("video", "pixel_format", "suffix"),
    [
        ("libx264", "yuv420p", ".mp4"),
        ("libx264", "yuv444p10le", ".mp4"),
        ("ffv1", "gray", ".mkv"),
        ("ffv1", "bgra", ".mkv"),
        ("ffv1", "yuv422p10le", ".mkv"),
        ("png", "rgba", ".mov"),
        ("png", "rgb48be", ".mov"),
        ("gif", "rgb8", ".gif"),
        ("mpeg4", "yuv420p", ".avi"),
    ],
)
def test_pixels_are_those_of_pyav(tmp_path: Path, video: str, pixel_format: str, suffix: str) -> None:
    source = make_clip(
        tmp_path / f"a{suffix}", video=video, pixel_format=pixel_format, size=(50, 38), count=5
    )
    info, frames, _, _ = read_all(source)
    expected = pyav_rgb(source)
    assert (info.width, info.height) == (50, 38)
    assert len(frames) == len(expected) == 5
    for frame, rgb in zip(frames, expected, strict=True):
        assert frame.rgb.dtype == np.uint8
        assert frame.rgb.flags.c_contiguous
        np.testing.assert_array_equal(frame.rgb, rgb)


def test_palette_pictures(tmp_path: Path) -> None:
    encoder = av.CodecContext.create("png", "w")
    encoder.width, encoder.height, encoder.pix_fmt = 16, 8, "pal8"
    encoder.time_base = Fraction(1, 25)
    indices = np.arange(128, dtype=np.uint8).reshape(8, 16)
    palette = np.random.default_rng(0).integers(0, 256, (256, 4)).astype(np.uint8)
    palette[:, 0] = 255  # alpha
    frame = av.VideoFrame.from_ndarray((indices, palette), format="pal8")
    frame.pts = 0
    source = tmp_path / "a.png"
    source.write_bytes(b"".join(bytes(p) for p in encoder.encode(frame)))
    info, frames, _, _ = read_all(source)
    assert info.pixel_format == "pal8"
    np.testing.assert_array_equal(frames[0].rgb, palette[indices][..., 1:])


def test_variable_frame_rate_is_exact(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "a.mp4", times=VFR, time_base=TICKS)
    info, frames, _, warnings = read_all(source)
    assert info.time_base == TICKS
    assert [f.pts for f in frames] == list(VFR)
    assert info.start_pts == 0
    assert warnings == []


def test_info(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "a.mp4", audio="aac", count=15)
    info, frames, chunks, _ = read_all(source)
    assert info.frame_count == len(frames) == 15
    assert info.duration == pytest.approx(0.5)
    assert info.average_rate == 30
    assert info.codec == "h264"
    assert info.pixel_format == "yuv420p"
    assert info.size_bytes == source.stat().st_size
    assert set(info.color) == {"color_primaries", "color_trc", "colorspace", "color_range"}
    assert [(s.kind, s.codec) for s in info.aux_streams] == [("audio", "aac")]
    assert info.aux_container == "mp4"
    assert not info.is_still
    assert b"".join(chunks)


def test_without_aux(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "a.mp4", audio="aac")
    info, _, chunks, warnings = read_all(source, aux=False)
    assert info.aux_streams == ()
    assert info.aux_container is None
    assert b"".join(chunks) == b""
    assert warnings == []


def rotate_by_header(path: Path, quarters: int) -> None:
    """Write a display matrix into the track header of an MP4 file."""
    cos, sin = [(1, 0), (0, 1), (-1, 0), (0, -1)][quarters]
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 4 + 20 + 8 + 8  # version 0: ids and times, reserved, layer and volume
    data[at : at + 36] = struct.pack(">9i", cos << 16, sin << 16, 0, -sin << 16, cos << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_rotation_is_applied(tmp_path: Path, quarters: int) -> None:
    source = make_clip(tmp_path / "a.mp4", size=(64, 48), count=3)
    upright = pyav_rgb(source)
    rotate_by_header(source, quarters)
    info, frames, _, _ = read_all(source)
    assert info.rotation == 90 * quarters
    assert (info.width, info.height) == ((48, 64) if quarters % 2 else (64, 48))
    for frame, rgb in zip(frames, upright, strict=True):
        np.testing.assert_array_equal(frame.rgb, np.rot90(rgb, -quarters))


def exif_jpeg(path: Path, orientation: int, rgb: np.ndarray) -> None:
    height, width = rgb.shape[:2]
    plain = PictureEncoder((width, height), jpeg=True).encode(rgb)
    tiff = b"MM\x00*" + struct.pack(">IHHHIHH", 8, 1, 0x0112, 3, 1, orientation, 0) + bytes(4)
    segment = b"Exif\x00\x00" + tiff
    path.write_bytes(plain[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + plain[2:])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, orientation: int) -> None:
    rgb = np.zeros((32, 48, 3), np.uint8)
    rgb[:16, :24] = (255, 0, 0)
    rgb[:16, 24:] = (0, 255, 0)
    exif_jpeg(tmp_path / "a.jpg", orientation, rgb)
    expected = {
        1: rgb,
        2: rgb[:, ::-1],
        3: rgb[::-1, ::-1],
        4: rgb[::-1],
        5: rgb.transpose(1, 0, 2),
        6: np.rot90(rgb, -1),
        7: rgb[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(rgb, 1),
    }[orientation]
    info, frames, _, _ = read_all(tmp_path / "a.jpg")
    assert info.is_still
    assert frames[0].rgb.shape == expected.shape == (info.height, info.width, 3)
    assert np.abs(frames[0].rgb.astype(int) - expected).max() < 12


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_stills(tmp_path: Path, suffix: str) -> None:
    rgb = pattern(3, 31, 17)
    source = tmp_path / f"50%[a]:01d{suffix}"
    source.write_bytes(PictureEncoder((17, 31), jpeg=suffix == ".jpg").encode(rgb))
    info, frames, _, _ = read_all(source)
    assert info.is_still
    assert len(frames) == 1
    assert np.abs(frames[0].rgb.astype(int) - rgb).mean() < 2


def test_one_frame(tmp_path: Path) -> None:
    info, frames, _, _ = read_all(make_clip(tmp_path / "a.mp4", count=1))
    assert len(frames) == info.frame_count == 1


@pytest.mark.parametrize("video", ["libx264", "mpeg4"])
@pytest.mark.parametrize(
    ("start", "duration"), [(0.4, 0.3), (0.5, None), (None, 0.25), (0.0, 0.1), (2 / 30, 0.1)]
)
def test_window(tmp_path: Path, video: str, start: float | None, duration: float | None) -> None:
    source = make_clip(tmp_path / "a.mp4", count=30, video=video, audio="aac", g="8")
    info, everything, _, _ = read_all(source)
    low = start or 0
    high = 10 if duration is None else low + duration
    wanted = [
        f for f, t in zip(everything, seconds(info, everything), strict=True) if low - 1e-6 <= t < high - 1e-6
    ]
    cut, frames, chunks, _ = read_all(source, start=start, duration=duration)
    moved = wanted[0].pts if start is not None else 0
    assert [f.pts for f in frames] == [f.pts - moved for f in wanted]
    assert cut.start_pts - cut.clock_offset == frames[0].pts
    assert cut.frame_count is None
    for frame, expected in zip(frames, wanted, strict=True):
        np.testing.assert_array_equal(frame.rgb, expected.rgb)
    carried = tmp_path / "aux.mp4"
    carried.write_bytes(b"".join(chunks))
    with av.open(str(carried)) as container:
        times = [float(p.pts * p.time_base) for p in container.demux() if p.size]
    assert -0.03 < times[0] <= 0.001
    assert high - low - 0.03 < times[-1] < high - low or duration is None


def test_window_beyond_the_end(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "a.mp4")
    with pytest.raises(UnreadableVideo, match="no frame in the time asked for"):
        VideoReader(source, start=100)


def test_max_height(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "a.mp4", size=(64, 48), count=2)
    info, frames, _, _ = read_all(source, max_height=24)
    assert (info.width, info.height) == (32, 24)
    assert frames[0].rgb.shape == (24, 32, 3)
    info, _, _, _ = read_all(source, max_height=480)
    assert (info.width, info.height) == (64, 48)
    rotate_by_header(source, 1)
    info, frames, _, _ = read_all(source, max_height=32)
    assert (info.width, info.height) == (24, 32)
    assert frames[0].rgb.shape == (32, 24, 3)


def test_picture_size_changes(tmp_path: Path) -> None:
    joined = tmp_path / "a.m2v"
    parts = [
        make_clip(tmp_path / f"{w}.m2v", size=(w, 48), count=3, video="mpeg2video", time_base=Fraction(1, 25))
        for w in (64, 96)
    ]
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    _, frames, _, warnings = read_all(joined)
    assert len(frames) == len(pyav_rgb(joined)) > 4
    assert {f.rgb.shape for f in frames} == {(48, 64, 3)}
    assert any("size changes" in w for w in warnings)
    times = [f.pts for f in frames]
    assert times == sorted(set(times))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UnreadableVideo, match="does not exist"):
        VideoReader(tmp_path / "no.mp4")


def test_folder(tmp_path: Path) -> None:
    with pytest.raises(UnreadableVideo, match="is a folder"):
        VideoReader(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not a video at all" * 100, bytes(5000)])
def test_not_a_video(tmp_path: Path, content: bytes) -> None:
    source = tmp_path / "a.mp4"
    source.write_bytes(content)
    with pytest.raises(UnreadableVideo):
        VideoReader(source)


def test_sound_only(tmp_path: Path) -> None:
    source = tmp_path / "a.wav"
    with av.open(str(source), "w") as out:
        stream = out.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        out.mux(stream.encode(frame))
    with pytest.raises(NoVideoStream, match="no video"):
        VideoReader(source)


def test_a_cover_picture_is_not_a_video(tmp_path: Path) -> None:
    source = tmp_path / "a.mp3"
    with av.open(str(source), "w") as out:
        sound = out.add_stream("libmp3lame", rate=44100, layout="mono")
        cover = out.add_stream("png")
        cover.width, cover.height, cover.pix_fmt = 8, 8, "rgb24"
        cover.disposition = 1024  # attached picture
        out.mux(cover.encode(av.VideoFrame.from_ndarray(pattern(0, 8, 8), format="rgb24")))
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1152), np.int16), format="s16p", layout="mono")
        frame.sample_rate = 44100
        out.mux(sound.encode(frame))
        out.mux(sound.encode(None))
    with pytest.raises(NoVideoStream, match="no video"):
        VideoReader(source)


def test_cut_short(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "a.mkv", count=30, size=(160, 120), g="5")
    data = source.read_bytes()
    source.write_bytes(data[: len(data) * 2 // 3])
    _, frames, _, _ = read_all(source)
    assert 3 < len(frames) < 30


def test_bytes_overwritten(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "a.mp4", count=30, size=(160, 120), g="5")
    with av.open(str(source)) as container:
        middle = [p for p in container.demux(video=0) if p.size][15]
    data = bytearray(source.read_bytes())
    data[middle.pos : middle.pos + middle.size] = b"\xff" * middle.size
    source.write_bytes(data)
    _, frames, _, warnings = read_all(source)
    assert 25 <= len(frames) < 30
    assert any("damaged" in w for w in warnings)


def test_no_frame_can_be_decoded(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "a.mp4", count=3)
    with av.open(str(source)) as container:
        spans = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray(source.read_bytes())
    for at, size in spans:
        data[at : at + size] = b"\xff" * size
    source.write_bytes(data)
    with pytest.raises(UnreadableVideo, match="no frame that can be decoded"):
        VideoReader(source)


def test_memory_does_not_grow(tmp_path: Path) -> None:
    short = make_clip(tmp_path / "a.mp4", count=60, preset="ultrafast", audio="aac")
    long = make_clip(tmp_path / "b.mp4", count=360, preset="ultrafast", audio="aac")
    peaks = []
    for source in (short, short, long):
        tracemalloc.start()
        with VideoReader(source) as reader:
            for _ in reader:
                reader.take_aux()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < peaks[1] + 100_000


def test_timeline_repairs() -> None:
    line = Timeline(step=4)
    claimed = [10, None, 18, 18, 30, 25, 5000]
    assert [line.place(t) for t in claimed] == [10, 14, 18, 19, 30, 31, 5000]
    assert line.repaired == 3

import io
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from video_clips import TICKS, VFR, copy_clip, make_clip, packets, pattern, psnr, read_all, seconds

from elastictok_cli.video import Frame, UnwritableVideo, VideoWriter

SRT = "1\n00:00:00,100 --> 00:00:00,300\nHello <i>there</i>\n\n2\n00:00:00,300 --> 00:00:00,390\nJó napot\n\n"


def new_writer(target: Path | str, size: tuple[int, int] = (64, 48), **options: object) -> VideoWriter:
    settings = {"time_base": Fraction(1, 30), "average_rate": Fraction(30), **options}
    return VideoWriter(target, width=size[0], height=size[1], **settings)


def write(
    target: Path | str, size: tuple[int, int] = (64, 48), count: int = 4, **options: object
) -> VideoWriter:
    width, height = size
    with new_writer(target, size, **options) as writer:
        for i in range(count):
            writer.write(Frame(pattern(i, height, width), i, 1))
    return writer


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".m4v"])
@pytest.mark.parametrize("offset", [0, 4321])
def test_times_are_exact(tmp_path: Path, suffix: str, offset: int) -> None:
    source = make_clip(tmp_path / "a.mp4", times=[t + offset for t in VFR], time_base=TICKS)
    info, frames, _, _ = read_all(source)
    copy_clip(source, tmp_path / f"b{suffix}")
    copied_info, copied, _, _ = read_all(tmp_path / f"b{suffix}")
    assert copied_info.time_base == info.time_base
    assert [f.pts for f in copied] == [f.pts for f in frames]
    assert copied_info.duration == pytest.approx(info.duration)


@pytest.mark.parametrize("lossless", [False, True])
def test_matroska_times_are_exact_to_a_millisecond(tmp_path: Path, lossless: bool) -> None:
    apart = [t for t in VFR if t not in (6007, 90001)]  # Matroska cannot tell times within 1 ms
    source = make_clip(tmp_path / "a.mp4", times=apart, time_base=TICKS)
    info, frames, _, _ = read_all(source)
    copy_clip(source, tmp_path / "b.mkv", lossless=lossless)
    copied_info, copied, _, _ = read_all(tmp_path / "b.mkv")
    pairs = zip(seconds(info, frames), seconds(copied_info, copied), strict=True)
    assert all(abs(a - b) <= Fraction(1, 2000) for a, b in pairs)
    # and what came from Matroska goes back exactly
    copy_clip(tmp_path / "b.mkv", tmp_path / "c.mkv", lossless=lossless)
    again_info, again, _, _ = read_all(tmp_path / "c.mkv")
    assert seconds(again_info, again) == seconds(copied_info, copied)


@pytest.mark.parametrize(
    "time_base", [Fraction(1001, 30000), Fraction(1, 25), Fraction(1, 1000), Fraction(1, 10**6)]
)
def test_time_bases(tmp_path: Path, time_base: Fraction) -> None:
    write(tmp_path / "a.mp4", time_base=time_base)
    info, frames, _, _ = read_all(tmp_path / "a.mp4")
    assert seconds(info, frames) == [i * time_base for i in range(4)]


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (17, 31), (64, 48), (97, 40)])
@pytest.mark.parametrize("lossless", [False, True])
def test_sizes(tmp_path: Path, size: tuple[int, int], lossless: bool) -> None:
    write(tmp_path / "a.mkv", size, lossless=lossless)
    info, frames, _, _ = read_all(tmp_path / "a.mkv")
    assert (info.width, info.height) == size
    for i, frame in enumerate(frames):
        quality = psnr(frame.rgb, pattern(i, size[1], size[0]))
        # 2x2 is the worst case of yuv420p: one colour for four pixels
        assert quality == float("inf") if lossless else quality > (5 if size == (2, 2) else 30)


def test_large_frame(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", (3840, 2160), count=1)
    info, frames, _, _ = read_all(tmp_path / "a.mp4")
    assert (info.width, info.height) == (3840, 2160)
    assert psnr(frames[0].rgb, pattern(0, 2160, 3840)) > 40


@pytest.mark.parametrize(
    ("colorspace", "height", "written"),
    [(2, 48, 6), (2, 720, 1), (1, 48, 1), (6, 720, 6), (5, 48, 5), (0, 48, 6), (9, 48, 9)],
)
def test_colours_survive(tmp_path: Path, colorspace: int, height: int, written: int) -> None:
    color = {"colorspace": colorspace, "color_primaries": 1, "color_trc": 13, "color_range": 2}
    write(tmp_path / "a.mp4", (96, height), color=color)
    info, frames, _, _ = read_all(tmp_path / "a.mp4")
    assert info.color == {"colorspace": written, "color_primaries": 1, "color_trc": 13, "color_range": 1}
    assert all(psnr(f.rgb, pattern(i, height, 96)) > 38 for i, f in enumerate(frames))


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1", "ffv1"])
def test_tags_that_mean_nothing_are_left_out(tmp_path: Path, codec: str) -> None:
    for number, color in enumerate(
        [
            {"color_primaries": 3, "color_trc": 3, "colorspace": 3},
            {"color_primaries": 99, "color_trc": 99, "colorspace": 99, "color_range": 99},
            {"color_primaries": -1, "color_trc": -1, "colorspace": -1, "color_range": -1},
            {"color_primaries": 1 << 40, "color_trc": 1 << 40, "colorspace": 1 << 40},
        ]
    ):
        write(tmp_path / f"{number}.mkv", count=3, codec=codec, color=color)
        written = read_all(tmp_path / f"{number}.mkv")[0].color
        assert (written["color_primaries"], written["color_trc"]) == (2, 2)
        assert written["colorspace"] == (0 if codec == "ffv1" else 6)
    write(tmp_path / "ebu.mkv", count=3, codec=codec, color={"color_primaries": 22})
    assert read_all(tmp_path / "ebu.mkv")[0].color["color_primaries"] == (2 if codec == "hevc" else 22)


@pytest.mark.parametrize("codec", ["h264", "hevc", "ffv1"])
def test_codecs(tmp_path: Path, codec: str) -> None:
    write(tmp_path / "a.mkv", codec=codec)
    info, frames, _, _ = read_all(tmp_path / "a.mkv")
    assert info.codec == codec
    assert len(frames) == 4


@pytest.mark.parametrize("codec", ["h264", "hevc"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_few_frames(tmp_path: Path, codec: str, count: int) -> None:
    for attempt in range(8):  # x265 gets it wrong most of the time, not always
        target = tmp_path / f"{attempt}.mov"
        write(target, count=count, codec=codec)
        with av.open(str(target)) as container:
            found = [p for p in container.demux(video=0) if p.size]
        assert all(-3 * 512 <= p.dts <= p.pts for p in found)
        info, frames, _, _ = read_all(target)
        assert seconds(info, frames) == [Fraction(i, 30) for i in range(count)]


def test_av1_of_flat_pictures_is_refused_for_its_encoder_hangs(tmp_path: Path) -> None:
    for size in ((96, 16), (30, 66)):
        with pytest.raises(UnwritableVideo, match="AV1 encoder cannot write"):
            new_writer(tmp_path / "a.mkv", size, codec="av1")
    write(tmp_path / "a.mkv", (64, 16), codec="av1")
    write(tmp_path / "b.mkv", (96, 32), codec="av1")


def test_av1_in_webm(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "a.mkv", audio="libopus")
    copy_clip(source, tmp_path / "b.webm", codec="av1")
    info, frames, _, _ = read_all(tmp_path / "b.webm")
    assert (info.codec, len(frames)) == ("av1", 12)
    assert packets(tmp_path / "b.webm") == packets(source)


def test_metadata_and_pixel_aspect(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", metadata={"title": "A title"}, pixel_aspect=Fraction(4, 3))
    info, _, _, _ = read_all(tmp_path / "a.mp4")
    assert info.metadata["title"] == "A title"
    assert info.pixel_aspect == Fraction(4, 3)


@pytest.mark.parametrize(
    ("source_suffix", "audio", "rate", "target_suffix"),
    [
        (".mp4", "aac", 44100, ".mp4"),
        (".mp4", "aac", 48000, ".mov"),
        (".mp4", "libmp3lame", 44100, ".mp4"),
        (".mp4", "ac3", 48000, ".mp4"),
        (".mp4", "flac", 44100, ".mp4"),
        (".mp4", "libopus", 48000, ".mp4"),
        (".mov", "pcm_s16le", 44100, ".mov"),
        (".mov", "pcm_s16le", 44100, ".mkv"),
        (".mkv", "libopus", 48000, ".mkv"),
        (".mkv", "flac", 44100, ".mkv"),
        (".mkv", "pcm_s24le", 48000, ".mkv"),
        (".mkv", "libmp3lame", 44100, ".mkv"),
        (".mkv", "libopus", 48000, ".mp4"),
        (".mp4", "aac", 44100, ".mkv"),
    ],
)
def test_sound_comes_back(
    tmp_path: Path, source_suffix: str, audio: str, rate: int, target_suffix: str
) -> None:
    source = make_clip(tmp_path / f"a{source_suffix}", audio=audio, rate=rate, count=45)
    target = tmp_path / f"b{target_suffix}"
    assert copy_clip(source, target).warnings == []
    (before,), (after,) = packets(source), packets(target)
    assert len(before) > 5
    assert [data for _, data in after] == [data for _, data in before]
    drift = max(abs(a - b) for (a, _), (b, _) in zip(before, after, strict=True))
    in_matroska = ".mkv" in (source_suffix, target_suffix) and source_suffix != target_suffix
    assert drift <= (Fraction(1, 2000) if in_matroska else 0)


def test_sound_of_a_transport_stream(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "a.ts", audio="aac", rate=44100)
    info, frames, _, _ = read_all(source)
    assert info.aux_container == "nut"
    copy_clip(source, tmp_path / "b.mp4")
    copied_info, copied, _, _ = read_all(tmp_path / "b.mp4")
    assert seconds(copied_info, copied) == seconds(info, frames)
    (before,), (after,) = packets(source), packets(tmp_path / "b.mp4")
    origin = info.clock_offset * info.time_base
    assert origin > 0
    drift = max(abs(a - origin - b) for (a, _), (b, _) in zip(before, after, strict=True))
    assert drift < Fraction(1, 44100)


def test_subtitles_come_back(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "a.mkv", audio="libopus", subtitles=SRT)
    assert copy_clip(source, tmp_path / "b.mkv").warnings == []
    assert packets(tmp_path / "b.mkv") == packets(source)
    writer = copy_clip(source, tmp_path / "b.mp4")
    assert writer.warnings == []
    with av.open(str(tmp_path / "b.mp4")) as copied:
        texts = [bytes(p)[2:] for p in copied.demux(subtitles=0) if p.size > 2]
    assert copied.streams == () or texts


def test_sound_is_cut_to_a_window(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "a.mp4", audio="aac", rate=44100, count=60)
    info, frames, chunks, _ = read_all(source)
    kept = frames[15:45]
    with new_writer(
        tmp_path / "b.mp4",
        time_base=info.time_base,
        aux=iter(chunks),
        aux_container=info.aux_container,
        start=0.5,
        duration=1.0,
    ) as writer:
        for frame in kept:
            writer.write(Frame(frame.rgb, frame.pts - kept[0].pts, frame.duration))
    ((first, _), *_, (last, _)) = packets(tmp_path / "b.mp4")[0]
    assert -0.03 < first <= 0
    assert 0.95 < last < 1.0
    original = {data: time for time, data in packets(source)[0]}
    assert all(original[data] - time == Fraction(1, 2) for time, data in packets(tmp_path / "b.mp4")[0])


def test_unreadable_packets_are_a_warning(tmp_path: Path) -> None:
    writer = write(tmp_path / "a.mp4", aux=iter([b"junk" * 10]), aux_container="mp4")
    assert any("cannot be read" in w for w in writer.warnings)
    assert (tmp_path / "a.mp4").exists()


def test_folder_of_pictures(tmp_path: Path) -> None:
    write(f"{tmp_path}/new/", (17, 31), count=3)
    names = sorted(p.name for p in (tmp_path / "new").iterdir())
    assert names == ["frame-000000.png", "frame-000001.png", "frame-000002.png"]
    for i, name in enumerate(names):
        _, frames, _, _ = read_all(tmp_path / "new" / name)
        np.testing.assert_array_equal(frames[0].rgb, pattern(i, 31, 17))
    with pytest.raises(UnwritableVideo, match="exists already"):
        write(tmp_path / "new", (17, 31))
    (tmp_path / "new" / "notes.txt").write_text("mine")
    write(tmp_path / "new", (17, 31), count=2, overwrite=True)
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == [*names[:2], "notes.txt"]
    assert [p.name for p in tmp_path.iterdir()] == ["new"]


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_single_picture(tmp_path: Path, suffix: str) -> None:
    write(tmp_path / f"a{suffix}", (17, 31), count=1)
    _, frames, _, _ = read_all(tmp_path / f"a{suffix}")
    assert psnr(frames[0].rgb, pattern(0, 31, 17)) > 35
    with pytest.raises(UnwritableVideo, match="one frame"):
        write(tmp_path / f"b{suffix}", (17, 31), count=2)
    assert [p.name for p in tmp_path.iterdir()] == [f"a{suffix}"]


def test_y4m(tmp_path: Path) -> None:
    write(tmp_path / "a.y4m", (17, 31), count=3)
    info, frames, _, _ = read_all(tmp_path / "a.y4m")
    assert (info.width, info.height, info.average_rate) == (17, 31, 30)
    assert all(psnr(f.rgb, pattern(i, 31, 17)) > 40 for i, f in enumerate(frames))
    assert len(frames) == 3


def test_names_with_special_characters(tmp_path: Path) -> None:
    folder = tmp_path / "a:b 50%d"
    folder.mkdir()
    write(folder / "http:[c]%03d.mp4")
    assert len(read_all(folder / "http:[c]%03d.mp4")[1]) == 4


@pytest.mark.parametrize("raw", [False, True])
def test_standard_output(monkeypatch: pytest.MonkeyPatch, raw: bool) -> None:
    pipe = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(pipe))
    write("-", (6, 4), count=2, raw=raw)
    if raw:
        assert pipe.getvalue() == pattern(0, 4, 6).tobytes() + pattern(1, 4, 6).tobytes()
    else:
        assert pipe.getvalue().startswith(b"YUV4MPEG2 W6 H4 F30:1 Ip")
        assert len(pipe.getvalue()) == pipe.getvalue().index(b"\n") + 1 + 2 * (6 + 3 * 24)


def test_standard_input(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "a.mkv", count=5)
    code = (
        "from elastictok_cli.video import VideoReader\n"
        "with VideoReader('-') as reader: print(len(list(reader)), reader.info.size_bytes)"
    )
    with source.open("rb") as file:
        content = file.read()
    done = subprocess.run([sys.executable, "-c", code], input=content, capture_output=True, check=True)
    assert done.stdout.split() == [b"5", b"None"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.png", "a.y4m", "a/"])
def test_interruption_leaves_nothing(tmp_path: Path, error: type[BaseException], name: str) -> None:
    def interrupted() -> None:
        with new_writer(f"{tmp_path}/{name}") as writer:
            writer.write(Frame(pattern(0, 48, 64), 0, 1))
            raise error

    with pytest.raises(error):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_there_before_the_end(tmp_path: Path) -> None:
    target = tmp_path / "a.mp4"
    with new_writer(target) as writer:
        writer.write(Frame(pattern(0, 48, 64), 0, 1))
        assert not target.exists()
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_overwriting(tmp_path: Path) -> None:
    target = tmp_path / "a.mp4"
    target.write_bytes(b"precious")
    with pytest.raises(UnwritableVideo, match="exists already"):
        new_writer(target)
    with pytest.raises(KeyboardInterrupt), new_writer(target, overwrite=True):
        raise KeyboardInterrupt
    assert target.read_bytes() == b"precious"
    write(target, overwrite=True)
    assert len(read_all(target)[1]) == 4
    assert os.listdir(tmp_path) == ["a.mp4"]  # noqa: PTH208


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("a.xyz", {}, "its suffix names no kind"),
        ("no/a.mp4", {}, "is not a folder"),
        ("a.webm", {}, "cannot hold h264"),
        ("a.mov", {"codec": "av1"}, "mov files cannot hold av1; use .mp4 or .mkv"),
        ("a.mov", {"lossless": True}, r"use \.mkv"),
        ("a.jpg", {"lossless": True}, r"use \.png"),
        ("a.y4m", {"lossless": True}, "not lossless"),
        ("a.mp4", {"codec": "h263"}, "unknown codec"),
    ],
)
def test_refusals(tmp_path: Path, name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(UnwritableVideo, match=message):
        new_writer(tmp_path / name, **options)
    assert list(tmp_path.iterdir()) == []


def test_no_frames(tmp_path: Path) -> None:
    with pytest.raises(UnwritableVideo, match="no frame"), new_writer(tmp_path / "a.mp4"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_bad_frames(tmp_path: Path) -> None:
    with new_writer(tmp_path / "a.mp4") as writer:
        writer.write(Frame(pattern(0, 48, 64), 5, 1))
        with pytest.raises(UnwritableVideo, match="must increase"):
            writer.write(Frame(pattern(0, 48, 64), 5, 1))
        with pytest.raises(ValueError, match="expected"):
            writer.write(Frame(pattern(0, 48, 65), 6, 1))


def test_encoder_that_cannot(tmp_path: Path) -> None:
    with pytest.raises(UnwritableVideo, match=r"1x1.*--lossless"):
        new_writer(tmp_path / "a.mkv", (1, 1), codec="hevc")
    assert list(tmp_path.iterdir()) == []


def test_lossless_mp4_is_exact_in_time_too(tmp_path: Path) -> None:
    if "ffv1" not in _codecs_of("mp4"):
        with pytest.raises(UnwritableVideo, match=r"use \.mkv"):
            new_writer(tmp_path / "a.mp4", lossless=True)
        return
    with new_writer(tmp_path / "a.mp4", time_base=TICKS, lossless=True) as writer:
        for i, pts in enumerate(VFR):
            writer.write(Frame(pattern(i, 48, 64), pts, 0))
    _, frames, _, _ = read_all(tmp_path / "a.mp4")
    assert [f.pts for f in frames] == list(VFR)
    assert all((f.rgb == pattern(i, 48, 64)).all() for i, f in enumerate(frames))


def _codecs_of(container: str) -> set[str]:
    with av.open(io.BytesIO(), "w", format=container) as scratch:
        return set(scratch.supported_codecs)

"""What sources of odd shapes give: streams in another order, chapters, early ends, pipes, formats without times."""

import io
import sys
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from video_clips import copy_clip, make_clip, packets, pattern, read_all, seconds

from elastictok_cli.video import Chapter, NoVideoStream, UnreadableVideo, VideoReader, VideoWriter
from elastictok_cli.video.muxing import StreamCopy
from elastictok_cli.video.timeline import FrameTimes

CHAPTERS = (("Beginning", 0, 500), ("Middle", 500, 700), ("End", 700, 1000))


def still_first(path: Path, *, count: int = 12) -> Path:
    """A film behind a JPEG that is not marked as a cover, as some tools write them."""
    with av.open(str(path), "w") as out:
        cover = out.add_stream("mjpeg", rate=30)
        cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
        film = out.add_stream("libx264", rate=30)
        film.width, film.height, film.pix_fmt = 64, 48, "yuv420p"
        for index in range(count):
            for stream, wanted in ((cover, index == 0), (film, True)):
                if wanted:
                    frame = av.VideoFrame.from_ndarray(
                        pattern(index, stream.height, stream.width), format="rgb24"
                    )
                    frame.pts, frame.time_base = index, Fraction(1, 30)
                    out.mux(stream.encode(frame))
        out.mux(cover.encode(None))
        out.mux(film.encode(None))
    return path


def with_chapters(path: Path, **options: object) -> Path:
    """A clip of one second with CHAPTERS, in ms."""
    plain = make_clip(path.with_name(f"plain{path.suffix}"), count=30, **options)
    with av.open(str(plain)) as source, av.open(str(path), "w") as out:
        copies = {s.index: out.add_stream_from_template(s) for s in source.streams}
        out.set_chapters(
            [
                {
                    "id": n,
                    "start": a,
                    "end": b,
                    "time_base": Fraction(1, 1000),
                    "metadata": {"title": title},
                }
                for n, (title, a, b) in enumerate(CHAPTERS)
            ]
        )
        for packet in source.demux():
            if packet.size:
                packet.stream = copies[packet.stream.index]
                out.mux(packet)
    return path


def chapters_of(path: Path) -> list[tuple[str, Fraction, Fraction]]:
    with av.open(str(path)) as container:
        return [
            (c["metadata"].get("title", ""), c["start"] * c["time_base"], c["end"] * c["time_base"])
            for c in container.chapters()
        ]


def test_the_stream_that_moves_is_the_film(tmp_path: Path) -> None:
    source = still_first(tmp_path / "a.mkv")
    info, frames, _, warnings = read_all(source)
    assert (info.width, info.height, len(frames)) == (64, 48, 12)
    assert warnings == ["stream 0 (mjpeg video) is not carried"]


def test_a_long_film_behind_a_still(tmp_path: Path) -> None:
    """More packets than are looked at to find it: those seen are not lost, nor is the sound among them."""
    source = make_clip(tmp_path / "a.mkv", count=700, size=(16, 16), audio="aac", preset="ultrafast")
    with av.open(str(source)) as film, av.open(str(tmp_path / "b.mkv"), "w") as out:
        cover = out.add_stream("mjpeg", rate=30)
        cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
        copies = {s.index: out.add_stream_from_template(s) for s in film.streams}
        picture = av.VideoFrame.from_ndarray(pattern(0, 32, 32), format="rgb24")
        picture.pts, picture.time_base = 0, Fraction(1, 30)
        out.mux(cover.encode(picture))
        out.mux(cover.encode(None))
        for packet in film.demux():
            if packet.size:
                packet.stream = copies[packet.stream.index]
                out.mux(packet)
    info, frames, _, _ = read_all(tmp_path / "b.mkv")
    assert (info.width, len(frames)) == (16, 700)
    copy_clip(tmp_path / "b.mkv", tmp_path / "c.mkv")
    assert [d for _, d in packets(tmp_path / "c.mkv")[0]] == [d for _, d in packets(source)[0]]


def test_a_stream_can_be_chosen(tmp_path: Path) -> None:
    source = still_first(tmp_path / "a.mkv")
    info, frames, _, _ = read_all(source, stream=0)
    assert (info.width, info.height, len(frames)) == (32, 32, 1)
    with pytest.raises(NoVideoStream, match="has no stream 2: it has 2"):
        VideoReader(source, stream=2)
    sounding = make_clip(tmp_path / "b.mp4", audio="aac")
    with pytest.raises(NoVideoStream, match=r"stream 1 of .* is audio; video streams: 0"):
        VideoReader(sounding, stream=1)


@pytest.mark.parametrize("source_suffix", [".mkv", ".mp4"])
@pytest.mark.parametrize("target_suffix", [".mkv", ".mp4", ".mov", ".webm"])
def test_chapters_come_back(tmp_path: Path, source_suffix: str, target_suffix: str) -> None:
    source = with_chapters(tmp_path / f"a{source_suffix}", audio="libopus")
    info, frames, _, warnings = read_all(source)
    assert [c.title for c in info.chapters] == [title for title, _, _ in CHAPTERS]
    assert warnings == []  # the text track in which MP4 repeats them is no loss
    target = tmp_path / f"b{target_suffix}"
    codec = "av1" if target_suffix == ".webm" else "h264"
    with VideoWriter(
        target,
        width=64,
        height=48,
        time_base=info.time_base,
        average_rate=None,
        codec=codec,
        chapters=info.chapters,
    ) as writer:
        for frame in frames:
            writer.write(frame)
    found = chapters_of(target)
    assert [title for title, _, _ in found] == [title for title, _, _ in CHAPTERS]
    for (_, start, end), (_, a, b) in zip(found, CHAPTERS, strict=True):
        assert abs(start - Fraction(a, 1000)) <= Fraction(1, 1000)
        assert abs(end - Fraction(b, 1000)) <= Fraction(1, 1000)


def test_chapters_of_a_window(tmp_path: Path) -> None:
    source = with_chapters(tmp_path / "a.mkv")
    info, frames, _, _ = read_all(source, start=0.6, duration=0.2)
    assert frames[0].pts == 0
    # the first frame at or after 0.6 s is at 0.6, the window ends at 0.8
    assert info.chapters == (Chapter(0, 100, "Middle"), Chapter(100, 200, "End"))
    info, frames, _, _ = read_all(source)
    with VideoWriter(
        tmp_path / "b.mkv",
        width=64,
        height=48,
        time_base=info.time_base,
        average_rate=None,
        chapters=info.chapters,
        start=Fraction(3, 5),
        duration=Fraction(1, 5),
    ) as writer:
        for frame in frames[18:24]:
            writer.write(type(frame)(frame.rgb, frame.pts - frames[18].pts, frame.duration))
    assert [(title, float(a), float(b)) for title, a, b in chapters_of(tmp_path / "b.mkv")] == [
        ("Middle", 0, 0.1),
        ("End", 0.1, 0.2),
    ]


def test_no_place_for_chapters_is_a_warning(tmp_path: Path) -> None:
    info, frames, _, _ = read_all(with_chapters(tmp_path / "a.mkv"))
    with VideoWriter(
        tmp_path / "b.y4m",
        width=64,
        height=48,
        time_base=info.time_base,
        average_rate=None,
        chapters=info.chapters,
    ) as writer:
        writer.write(frames[0])
    assert "chapters are left out: this output has no place for them" in writer.warnings


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_a_source_that_is_cut_says_where(tmp_path: Path, suffix: str) -> None:
    options = {"movflags": "faststart"} if suffix == ".mp4" else {}
    whole = tmp_path / f"a{suffix}"
    with av.open(str(whole), "w", options=options) as out:
        stream = out.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(40):
            frame = av.VideoFrame.from_ndarray(
                np.random.default_rng(index).integers(0, 256, (48, 64, 3)).astype(np.uint8), format="rgb24"
            )
            frame.pts, frame.time_base = index, Fraction(1, 10)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    assert read_all(whole)[3] == []
    data = whole.read_bytes()
    cut = tmp_path / f"b{suffix}"
    cut.write_bytes(data[: len(data) * 6 // 10])
    _, frames, _, warnings = read_all(cut)
    assert 10 < len(frames) < 30
    end = float(seconds(read_all(cut)[0], frames)[-1]) + 0.1
    said = next(w for w in warnings if "is cut short" in w)
    assert said.startswith(f"{cut} is cut short: the mpeg4 video ends at ")
    assert (
        said.endswith(" s of 4.00 s") or suffix == ".avi"
    )  # whose length FFmpeg guesses by the size of the file
    assert abs(float(said.split(" ends at ")[1].split()[0]) - end) < 0.25
    assert not any("is cut short" in w for w in read_all(cut, duration=1)[3])  # the end was not asked for


def test_sound_that_ends_early_is_named(tmp_path: Path) -> None:
    """The pictures are all there; the sound, stored behind them, is cut."""
    clip = make_clip(tmp_path / "a.mkv", count=60, audio="aac")
    out_path = tmp_path / "b.mp4"
    with av.open(str(clip)) as source, av.open(str(out_path), "w", options={"movflags": "faststart"}) as out:
        copies = {s.index: out.add_stream_from_template(s) for s in source.streams}
        for packet in source.demux():
            if packet.size:
                packet.stream = copies[packet.stream.index]
                out.mux(packet)
    with av.open(str(out_path)) as container:
        sound = [p.pos for p in container.demux(audio=0) if p.size and p.pos]
    data = out_path.read_bytes()
    out_path.write_bytes(data[: sound[len(sound) // 3]])
    _, _, _, warnings = read_all(out_path)
    assert any("the aac audio ends at" in w and "of 2.0" in w for w in warnings)


@pytest.mark.parametrize("suffix", [".avi", ".mkv", ".mp4"])
def test_steady_times_with_b_frames(tmp_path: Path, suffix: str) -> None:
    """AVI stores no presentation times: frames come in steps of one all the same, from the first to the last."""
    source = make_clip(tmp_path / f"a{suffix}", count=40, video="libx264", bf="3", size=(64, 64))
    info, frames, _, warnings = read_all(source)
    times = seconds(info, frames)
    steps = {round((b - a) * 30, 1) for a, b in pairwise(times)}
    assert (len(frames), steps, warnings) == (40, {1.0}, [])
    assert times[0] == 0


def test_frames_of_a_bad_presentation_clock_take_the_decode_time() -> None:
    times = FrameTimes("asf", Fraction(1, 1000))
    base = Fraction(1, 1000)
    claimed = [(40, 0), (160, 40), (80, 80), (120, 120), (200, 160), (300, 200)]
    found = [times.best(SimpleNamespace(pts=pts, dts=dts, time_base=base)) for pts, dts in claimed]
    assert found == [40, 160, 80, 120, 160, 200]  # after the first step back, at the third frame


class _Pipe:
    """Standard input without a way back."""

    def __init__(self, data: bytes) -> None:
        self.buffer = io.BytesIO(data)
        self.buffer.seekable = lambda: False  # type: ignore[method-assign]
        self.buffer.isatty = lambda: False  # type: ignore[method-assign]

    def seekable(self) -> bool:
        return False


def test_an_mp4_with_its_index_last_in_a_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_clip(tmp_path / "a.mov", audio="pcm_s16le")  # more than FFmpeg keeps of a pipe
    monkeypatch.setattr(sys, "stdin", _Pipe(source.read_bytes()))
    with pytest.raises(
        UnreadableVideo, match=r"index at the end.*name the file, or move its index to the front"
    ):
        VideoReader("-")
    assert len(read_all(source)[1]) == 12


def test_a_broken_mp4_in_a_pipe_is_not_blamed_on_its_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_clip(tmp_path / "a.mp4").read_bytes()
    index = data.index(b"moov") - 4
    front = data[:32] + b"\x00\x00\x00\x10moov" + bytes(8) + data[32:index]
    monkeypatch.setattr(sys, "stdin", _Pipe(front))
    with pytest.raises(UnreadableVideo) as error:
        VideoReader("-")
    assert "index" not in str(error.value)


def test_animated_webp_says_why_not(tmp_path: Path) -> None:
    chunk = b"VP8X" + (10).to_bytes(4, "little") + bytes([2, 0, 0, 0]) + bytes(6)
    frames = b"ANIM" + (6).to_bytes(4, "little") + bytes(6)
    body = b"WEBP" + chunk + frames
    path = tmp_path / "a.webp"
    path.write_bytes(b"RIFF" + len(body).to_bytes(4, "little") + body)
    with pytest.raises(UnreadableVideo, match="is an animated WebP, which FFmpeg cannot decode"):
        VideoReader(path)


def test_a_late_start_is_moved_to_zero(tmp_path: Path) -> None:
    """Twelve hours into a broadcast: times begin at zero, sound and pictures stay together, the clock is remembered."""
    source = make_clip(tmp_path / "a.mp4", audio="aac", count=30)
    late = tmp_path / "b.mkv"
    hours = Fraction(12 * 3600)
    with av.open(str(source)) as clip, av.open(str(late), "w") as out:
        copies = {s.index: out.add_stream_from_template(s) for s in clip.streams}
        for packet in clip.demux():
            if packet.size:
                ticks = int(hours / packet.time_base)
                packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks
                packet.stream = copies[packet.stream.index]
                out.mux(packet)
    info, frames, _, _ = read_all(late)
    assert abs(info.clock_offset * info.time_base - hours) < 0.1
    assert abs(info.start_pts - info.clock_offset - frames[0].pts) == 0
    copy_clip(late, tmp_path / "c.mp4")
    with av.open(str(tmp_path / "c.mp4")) as result:
        assert result.duration / av.time_base < 1.2
    (before,), (after,) = packets(late), packets(tmp_path / "c.mp4")
    moved = {round((a - b) * 1000) for (a, _), (b, _) in zip(before, after, strict=True)}
    offset = round(info.clock_offset * info.time_base * 1000)
    assert all(abs(m - offset) <= 1 for m in moved)


@pytest.mark.parametrize("route", [[".mp4"], [".mp4", ".mkv"], [".webm"], [".mov", ".webm"]])
def test_text_subtitles_take_the_form_of_the_container(tmp_path: Path, route: list[str]) -> None:
    text = "1\n00:00:00,100 --> 00:00:00,300\n<i>Jó</i> napot\n\n"
    at = make_clip(tmp_path / "a.mkv", subtitles=text)
    for number, suffix in enumerate(route):
        target = tmp_path / f"b{number}{suffix}"
        assert copy_clip(at, target, codec="av1" if suffix == ".webm" else "h264").warnings == []
        at = target
    form = {".mp4": "mov_text", ".mkv": "srt", ".webm": "webvtt", ".mov": "mov_text"}[route[-1]]
    with av.open(str(at)) as container:
        stream = container.streams.subtitles[0]
        assert stream.codec_context.name == form
        shown = [p for p in container.demux(stream) if p.size > 2]
        assert [
            (round(float(p.pts * p.time_base), 3), round(float(p.duration * p.time_base), 3)) for p in shown
        ] == [(0.1, 0.2)]
        (subtitle,) = shown[0].decode()
        text = subtitle.ass.decode().partition(",,")[2].rpartition(",")[2]
        assert text in ("{\\i1}Jó{\\i0} napot", "{\\i1}Jó{\\r} napot")  # the style came along


class _Refusing:
    """An output that refuses some packets and has no space for others."""

    def __init__(
        self, real: av.container.OutputContainer, refused: set[int], full_at: int | None = None
    ) -> None:
        self._real, self._refused, self._full_at = real, refused, full_at
        self.format = real.format
        self.count = 0
        self.taken: list[int] = []

    def add_stream_from_template(self, stream: object) -> object:
        return self._real.add_stream_from_template(stream)

    def mux(self, packet: av.Packet) -> None:
        self.count += 1
        if self.count == self._full_at:
            raise OSError(28, "No space left on device")
        if self.count in self._refused:
            raise av.error.InvalidDataError(1094995529, "Invalid data found when processing input")
        self.taken.append(packet.dts)


def test_a_refused_packet_costs_only_itself(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "a.mp4", audio="aac", count=30)
    with av.open(str(source)) as clip, av.open(io.BytesIO(), "w", format="mp4") as real:
        output = _Refusing(real, {3, 4, 9})
        copy = StreamCopy(clip.streams.audio[0], output)
        total = 0
        for packet in clip.demux(audio=0):
            if packet.size:
                total += 1
                copy.mux(packet)
    assert len(output.taken) == total - 3
    (said,) = copy.warnings
    assert said.startswith(f"3 of {total} packets of the aac audio stream are left out: mp4 refuses them")
    assert "Invalid data" in said


def test_a_full_disk_is_no_refusal(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "a.mp4", audio="aac", count=30)
    with av.open(str(source)) as clip, av.open(io.BytesIO(), "w", format="mp4") as real:
        copy = StreamCopy(clip.streams.audio[0], _Refusing(real, set(), full_at=2))
        first, second = (packet for packet, _ in zip(clip.demux(audio=0), range(2), strict=False))
        copy.mux(first)
        with pytest.raises(OSError, match="No space"):
            copy.mux(second)


def test_equal_times_in_a_container_that_wants_them_to_grow(tmp_path: Path) -> None:
    """Two packets in one ms of Matroska: MP4 gets them a sample apart, and nothing after them is late."""
    source = make_clip(tmp_path / "a.mp4", audio="aac", count=30)
    with av.open(str(source)) as clip, av.open(io.BytesIO(), "w", format="mp4") as real:
        output = _Refusing(real, set())
        copy = StreamCopy(clip.streams.audio[0], output)
        for packet, time in zip(
            (p for p in clip.demux(audio=0) if p.size), (0, 0, 0, 21, 21, 42), strict=False
        ):
            packet.time_base, packet.pts, packet.dts = Fraction(1, 1000), time, time
            copy.mux(packet)
    # ticks of 1/48000 s where a time had to be moved, else of 1 ms
    assert output.taken == [0, 1, 2, 21, 21 * 48 + 1, 42]


def test_a_window_behind_a_jump_of_the_clock(tmp_path: Path) -> None:
    """Seeking by time would land elsewhere: times before and after the jump are the same."""
    part = make_clip(tmp_path / "a.ts", count=90, g="15", audio="aac")
    joined = tmp_path / "b.ts"
    joined.write_bytes(part.read_bytes() + part.read_bytes())
    info, frames, _, warnings = read_all(joined)
    assert any("the clock of the source jumps" in w for w in warnings)
    times = seconds(info, frames)
    assert len(frames) == 180
    assert max(b - a for a, b in pairwise(times)) < 0.2
    for start in (2.5, 3.5, 4.5):
        begin = next(n for n, t in enumerate(times) if t - times[0] >= start)
        cut, some, chunks, _ = read_all(joined, start=start, duration=0.5)
        assert np.array_equal(some[0].rgb, frames[begin].rgb)
        assert len(some) in (14, 15, 16)
        assert cut.aux_container is not None
        assert sum(map(len, chunks)) > 0


def test_transparency_in_a_stream_of_its_own_is_named() -> None:
    """AVIF keeps it beside the pictures."""
    source = Path(__file__).parents[1] / "fixtures" / "odd" / "anim.avif"
    assert "transparency is dropped: pixels keep the colour they have underneath" in read_all(source)[3]

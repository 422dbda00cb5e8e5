"""The name that an output gets by itself, what is never overwritten, and names that do not fit."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from cli_samples import COUNT, json_lines, make_clip, packets, pictures, run
from cli_samples import start as start_program

from elastictok_cli.video.holding import streams_not_held
from formats import EtkReader

_ASS = b"[Script Info]\nScriptType: v4.00+\n\n[Events]\nFormat: Start, End, Text\n"
_HEADERS = {"ass": _ASS, "subrip": b"", "webvtt": b"", "mov_text": b""}


def _with_streams(path: Path, *kinds: str, count: int = 4) -> Path:
    """A film with these audio and subtitle streams beside it."""
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        streams = {}
        for kind in kinds:
            if kind in _HEADERS:
                context = av.CodecContext.create(kind, "w")
                context.time_base = Fraction(1, 1000)
                context.subtitle_header = _HEADERS[kind] or _ASS
                context.open()
                streams[kind] = out.add_stream(kind)
                streams[kind].codec_context.subtitle_header = _HEADERS[kind] or _ASS
            else:
                streams[kind] = out.add_stream(kind, rate=48000, layout="mono")
        for index in range(count):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 40 * index, np.uint8), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            out.mux(video.encode(frame.reformat(format="yuv420p")))
        out.mux(video.encode(None))
        for kind, stream in streams.items():
            if kind in _HEADERS:
                packet = av.Packet(b"0,0,Default,,0,0,0,,Hello" if kind == "ass" else b"Hello")
                packet.pts = packet.dts = 0
                packet.duration, packet.time_base, packet.stream = 100, Fraction(1, 1000), stream
                out.mux(packet)
                continue
            for first in range(0, 1920 * count, stream.codec_context.frame_size or 1024):
                sound = av.AudioFrame.from_ndarray(
                    np.zeros((1, stream.codec_context.frame_size or 1024), np.int16),
                    format="s16",
                    layout="mono",
                )
                sound.sample_rate, sound.pts, sound.time_base = 48000, first, Fraction(1, 48000)
                out.mux(stream.encode(sound))
            out.mux(stream.encode(None))
    return path


def _encoded(source: Path, *options: object) -> Path:
    assert run("encode", source, "--tokens", 1, "-q", *options).exit_code == 0
    return source.with_suffix(".etk")


@pytest.mark.parametrize(
    ("kinds", "options", "suffix"),
    [
        ((), (), ".mp4"),
        (("aac",), (), ".mp4"),
        (("ass",), (), ".mkv"),
        (("aac", "ass"), (), ".mkv"),
        (("pcm_u8",), (), ".mkv"),
        (("ass",), ("--no-audio",), ".mp4"),
        (("aac",), ("--lossless",), ".mkv"),
    ],
)
def test_the_default_name_holds_all_that_is_carried(
    kinds: tuple[str, ...], options: tuple[str, ...], suffix: str, tmp_path: Path
) -> None:
    etk = _encoded(_with_streams(tmp_path / "in.mkv", *kinds))
    (tmp_path / "in.mkv").unlink()
    done = run("decode", etk, "--json", *options)
    assert done.exit_code == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"in.etk", f"in{suffix}"}
    assert json_lines(done.stdout)[-1]["output"] == str(tmp_path / f"in{suffix}")
    assert "left out" not in done.stderr
    with av.open(str(tmp_path / f"in{suffix}")) as video:
        assert len(video.streams) == 1 + (0 if "--no-audio" in options else len(kinds))


def test_a_picture_with_sound_is_no_picture_file(tmp_path: Path) -> None:
    etk = _encoded(_with_streams(tmp_path / "in.mov", "aac", count=1))
    assert run("decode", etk, "-q").exit_code == 0
    assert packets(tmp_path / "in.mp4")
    assert len(pictures(tmp_path / "in.mp4")) == 1
    assert run("decode", etk, "-q", "--no-audio").exit_code == 0
    assert {path.name for path in tmp_path.iterdir()} == {"in.mov", "in.etk", "in.mp4", "in.png"}


@pytest.mark.parametrize(
    ("kind", "lost_in"),
    [
        ("aac", {".webm"}),
        ("libopus", {".mov"}),
        ("pcm_u8", {".webm", ".mp4"}),
        ("subrip", set()),
        ("ass", {".webm", ".mp4", ".mov"}),
        ("webvtt", set()),
    ],
)
def test_what_a_container_holds(kind: str, lost_in: set[str], tmp_path: Path) -> None:
    etk = _encoded(_with_streams(tmp_path / "in.mkv", kind))
    with EtkReader(etk) as reader:
        assert reader.header.aux is not None
        container = reader.header.aux["container"]
        found = {
            suffix: streams_not_held(reader.aux(), container, suffix)
            for suffix in (".mp4", ".mov", ".mkv", ".webm", ".y4m")
        }
    assert {suffix for suffix, lost in found.items() if lost} == lost_in | {".y4m"}
    assert [stream.codec for stream in found[".y4m"]] == [kind.removeprefix("lib")]
    assert streams_not_held([b"nothing"], "mp4", ".mp4") == []


def test_the_source_is_not_overwritten(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "clip.mp4")
    before = source.read_bytes()
    etk = _encoded(source)
    for named, out in ((), "name OUT"), ((source,), "name another OUT, or remove it first"):
        for force in ((), ("-y",)):
            done = run("decode", etk, *named, *force)
            assert (done.exit_code, done.stderr) == (
                2,
                f"elastictok: {source} is as large as the video that {etk} was made from, and may be it: {out}\n",
            )
    link = tmp_path / "link.mp4"
    link.symlink_to(source)
    assert run("decode", etk, link, "-y").exit_code == 2
    assert run("decode", etk, tmp_path / "other.mp4", "-q").exit_code == 0
    assert source.read_bytes() == before
    source.unlink()
    for _ in range(2):  # what was decoded may be overwritten
        assert run("decode", etk, "-y", "-q").exit_code == 0
    assert run("decode", etk, "-q").exit_code == 2


def test_a_file_made_of_a_thinned_one_spares_the_source_too(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "clip.mp4")
    etk = _encoded(source)
    assert run("thin", etk, etk, "--keep", 0.5).exit_code == 2
    assert run("thin", etk, tmp_path / "thin.etk", "--keep", 0.5, "-q").exit_code == 0
    (tmp_path / "thin.etk").replace(etk)
    assert run("decode", etk, "-y").exit_code == 2


def test_where_the_size_of_the_source_is_unknown_only_a_named_file_is_overwritten(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "clip.mp4")
    with source.open("rb") as stream:
        process = start_program("encode", "-", tmp_path / "clip.etk", "--tokens", 1, "-q", stdin=stream)
        assert process.wait() == 0
    done = run("decode", tmp_path / "clip.etk", "-y")
    assert done.exit_code == 2
    assert "may be the video that" in done.stderr
    assert len(pictures(source)) == COUNT
    assert run("decode", tmp_path / "clip.etk", source, "-y", "-q").exit_code == 0


_ANY = ["out.etk", "out.csv", "out.safetensors", "out"]


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (
            ("encode", "CLIP", "OUT"),
            ["out.mp4", "out.html", "out.png", "out.safetensors", "out.csv", "out.json"],
        ),
        (("thin", "ETK", "OUT", "--keep", 0.5), ["out.mp4", "out.html", "out.webm"]),
        (("decode", "ETK", "OUT"), [*_ANY, "out.html", "out.png", "out.jpg"]),
        (("decode", "ETK", "OUT", "--lossless"), ["out.webm", "out.y4m", "out.jpg"]),
        (("decode", "ETK", "OUT", "--lossless"), ["-"]),
        (("decode", "ETK", "OUT", "--codec", "h264"), ["out.webm"]),
        (("decode", "ETK", "OUT", "--codec", "av1"), ["out.mov"]),
        (("compare", "CLIP", "ETK", "-o", "OUT"), [*_ANY, "out.html"]),
        (("report", "ETK", "OUT"), ["out.mp4", "out.etk", "out.png", "out.json", "out.csv"]),
        (("stats", "ETK", "--csv", "OUT"), ["out.mp4", "out.etk", "out.png", "out.html"]),
        (("stats", "ETK", "--plot", "OUT"), ["out.mp4", "out.etk", "out.html", "out"]),
        (("train", "--data", "FOLDER", "--steps", 1, "--out", "OUT"), ["out.etk", "out.pt", "out"]),
        (("convert", "CLIP", "OUT"), ["out.etk", "out.pt"]),
        (("train-predictor", "--model", "CLIP", "--data", "FOLDER", "--out", "OUT"), ["out.etk", "out"]),
    ],
)
def test_a_name_that_does_not_fit_is_refused_before_any_work(
    arguments: tuple[object, ...],
    names: list[str],
    clip: Path,
    etk: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def work(*_: object, **__: object) -> None:
        raise AssertionError("work was begun")

    for what in (
        "elastictok_cli.models.checkpoint.load",
        "elastictok_cli.video.reader.VideoReader.__init__",
        "elastictok_cli.commands.arguments.find_device",
        "formats.EtkReader.segments",
    ):
        monkeypatch.setattr(what, work)
    given = {"CLIP": clip, "ETK": etk, "FOLDER": clip.parent}
    for name in names:
        out = name if name == "-" else tmp_path / name
        done = run(*(out if word == "OUT" else given.get(str(word), word) for word in arguments))
        assert done.exit_code == 2, (name, done.stderr)
        assert done.stderr.startswith("elastictok: ")
        assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_comparison_goes_into_webm_too(clip: Path, etk: Path, tmp_path: Path) -> None:
    done = run("compare", clip, etk, "-o", tmp_path / "a.webm", "--no-ssim", "--no-audio", "--duration", 0.1)
    assert done.exit_code == 0, done.stderr
    assert len(pictures(tmp_path / "a.webm")) == 3

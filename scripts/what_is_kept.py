"""Write docs/what-is-kept.md: what of a source each kind of output keeps, found by trying it.

    .venv/bin/python scripts/what_is_kept.py            # writes the page
    .venv/bin/python scripts/what_is_kept.py --check    # only says whether it is right

Every row of the page is a small file made here, every column an output. Each file goes through VideoReader and
VideoWriter, as in `encode` and `decode`, and what comes out is measured with PyAV alone, by the tests' own ruler.
"""

import argparse
import os
import re
import shutil
import struct
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "video")]

from odd_files import (  # noqa: E402
    FIXTURES,
    Film,
    Track,
    frame_errors,
    make_film,
    match_tracks,
    measure,
    pass_through,
    plain_text,
    same_sound,
    sound_errors,
)

from elastictok_cli.video import VideoError  # noqa: E402

PAGE = ROOT / "docs" / "what-is-kept.md"
OUTPUTS = {
    ".mp4": "out.mp4",
    ".mov": "out.mov",
    ".mkv": "out.mkv",
    ".webm": "out.webm",
    ".nut": "out.nut",
    ".y4m": "out.y4m",
    ".png": "out.png",
    ".jpg": "out.jpg",
    "folder/": "out/",
}
_PICTURES = (".png", ".jpg")
BARE = (".y4m", ".png", ".jpg", "folder/")  # hold pictures and next to nothing else
_IN_SYNC = Fraction(40, 1000)  # seconds
_FRAMES, _RATE = 6, 10  # of the files made here
SILENT = "**lost, not a word**"
_NO_PLACE = "no place"


@dataclass(frozen=True)
class Row:
    """One fact or stream to try: `make` writes a file into a folder, `look` says what became of it.

    `look` gives "" where nothing is left. `always` rows list every warning; the others leave out those that the
    same output gives for a plain film. `everywhere`: outputs that hold bare pictures keep or name it, too.
    """

    name: str
    make: Callable[[Path], Path]
    look: Callable[[Film, Film], str]
    always: bool = False
    everywhere: bool = False


@dataclass
class Group:
    """One table of the page."""

    title: str
    text: str
    rows: list[Row]
    cells: dict[tuple[str, str], str] = field(default_factory=dict)


# ---- sound ------------------------------------------------------------------------------------------------------


def _look_at_sound(source: Film, result: Film) -> str:
    [(track, copy)] = match_tracks(source.sound, result.sound)
    if copy is None:
        return f"as {result.sound[0].codec}" if result.sound else ""
    if not same_sound(track, copy):
        return f"{len(copy.payloads)} of {len(track.payloads)} packets"
    worst = max(sound_errors(source, result, track, copy))
    kept = "kept" if copy.codec == track.codec else f"kept, tagged {copy.codec}"
    return kept if worst <= _IN_SYNC else f"{kept}, {float(worst):.2f} s off"


def _with_sound(
    name: str,
    codec: str,
    container: str,
    *,
    rate: int = 48000,
    layout: str = "mono",
    bit_rate: int | None = None,
) -> Row:
    # AAC of transport streams has headers of its own, LATM a different way of packing.
    muxer = {"mpegts_flags": "latm"} if "LATM" in name else None
    video = {".webm": "libvpx-vp9", ".avi": "mpeg4", ".wmv": "mpeg4"}.get(container, "libx264")

    def make(folder: Path) -> Path:
        return make_film(
            folder / f"source{container}",
            video=video,
            frames=_FRAMES,
            rate=_RATE,
            sounds_after=1,
            sound=codec,
            sound_rate=rate,
            sound_layout=layout,
            sound_bit_rate=bit_rate,
            muxer=muxer,
        )

    return Row(f"{name} ({container})", make, _look_at_sound)


def _make_true_hd(folder: Path) -> Path:
    # PyAV offers no encoder: the packets are those of the tests' sample.
    with av.open(str(FIXTURES / "truehd.mkv")) as sample:
        sound = sample.streams.audio[0]

        def also(output: Any) -> list[Any]:
            stream = output.add_stream_from_template(sound)
            packets = []
            for packet in sample.demux(sound):
                if packet.size and packet.pts * packet.time_base < Fraction(_FRAMES, _RATE):
                    packet.stream = stream
                    packets.append(packet)
            return packets

        return make_film(folder / "source.mkv", frames=_FRAMES, rate=_RATE, also=also)


SOUND = Group(
    "Sound",
    "Packets are copied, bit for bit, and stay in step with the pictures within 40 ms.",
    [
        _with_sound("AAC", "aac", ".mp4"),
        _with_sound("AAC", "aac", ".ts"),
        _with_sound("AAC in LATM", "aac", ".ts"),
        _with_sound("MP3", "libmp3lame", ".mkv"),
        _with_sound("MP2", "mp2", ".ts"),
        _with_sound("Opus", "libopus", ".webm"),
        _with_sound("Vorbis", "vorbis", ".webm", layout="stereo"),
        _with_sound("FLAC", "flac", ".mkv"),
        _with_sound("ALAC", "alac", ".mp4"),
        _with_sound("AC-3", "ac3", ".mkv"),
        _with_sound("E-AC-3", "eac3", ".mkv"),
        Row("TrueHD (.mkv)", _make_true_hd, _look_at_sound),
        _with_sound("PCM, 16 bits", "pcm_s16le", ".mkv"),
        _with_sound("PCM, 24 bits", "pcm_s24le", ".mov"),
        _with_sound("PCM, float", "pcm_f32le", ".mkv"),
        _with_sound("PCM, 8 bits", "pcm_u8", ".avi"),
        _with_sound("μ-law", "pcm_mulaw", ".mov", rate=8000),
        _with_sound("MS ADPCM", "adpcm_ms", ".avi"),
        _with_sound("IMA ADPCM", "adpcm_ima_wav", ".avi"),
        _with_sound("AMR", "libopencore_amrnb", ".3gp", rate=8000),
        _with_sound("WMA", "wmav2", ".wmv", rate=44100, layout="stereo", bit_rate=128000),
        _with_sound("WavPack", "wavpack", ".mkv"),
        _with_sound("TTA", "tta", ".mkv"),
    ],
)

# ---- subtitles --------------------------------------------------------------------------------------------------

_SRT = "1\n00:00:00,100 --> 00:00:00,300\nOne <i>line</i>\n\n2\n00:00:00,300 --> 00:00:00,500\nand two\n"
_ASS = """[Script Info]
ScriptType: v4.00+

[V4+ Styles]
Format: Name, Fontname, Fontsize
Style: Default,Arial,20

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
Dialogue: 0,0:00:00.10,0:00:00.30,Default,,0,0,0,,One {\\i1}line{\\i0}
Dialogue: 0,0:00:00.30,0:00:00.50,Default,,0,0,0,,and two
"""
_VTT = "WEBVTT\n\n00:00.100 --> 00:00.300\nOne <i>line</i>\n\n00:00.300 --> 00:00.500\nand two\n"


def _look_at_subtitles(source: Film, result: Film) -> str:
    track = source.subtitles[0]
    for copy in result.subtitles:
        same_text = plain_text(copy) == plain_text(track)
        if copy.codec != track.codec and same_text:
            return f"as {copy.codec}"
        if copy.codec == track.codec and (copy.payloads == track.payloads or same_text):
            return "kept" if _in_step(source, result, track, copy) else "kept, out of step"
    return ""


def _in_step(source: Film, result: Film, track: Track, copy: Track) -> bool:
    pairs = zip(track.spans, copy.spans, strict=False)
    return all(
        abs((b[0] - result.frames[0]) - (a[0] - source.frames[0])) <= _IN_SYNC
        for a, b in pairs
        if result.frames
    )


def _with_text(name: str, container: str, suffix: str, text: str) -> Row:
    def make(folder: Path) -> Path:
        script = folder / f"text{suffix}"
        script.write_text(text)

        def also(output: Any) -> list[Any]:
            with av.open(str(script)) as read:
                stream = output.add_stream_from_template(read.streams[0])
                packets = [packet for packet in read.demux() if packet.size]
            for packet in packets:
                packet.stream = stream
            return packets

        return _plain_film(folder, container, also=also)

    return Row(f"{name} ({container})", make, _look_at_subtitles)


def _with_packets(name: str, container: str, codec: str, *data: bytes) -> Row:
    """Subtitles that no encoder here makes: what the packets say is no matter, they are only copied."""

    def make(folder: Path) -> Path:
        def also(output: Any) -> list[Any]:
            stream = output.add_mux_stream(codec)
            stream.time_base = Fraction(1, 1000)
            return [_packet(stream, each, 100 + 200 * k, 200) for k, each in enumerate(data)]

        return _plain_film(folder, container, also=also)

    return Row(f"{name} ({container})", make, _look_at_subtitles)


def _packet(stream: Any, data: bytes, time: int, duration: int) -> Any:
    packet = av.Packet(data)
    packet.stream, packet.time_base = stream, stream.time_base
    packet.pts = packet.dts = time
    packet.duration = duration
    return packet


def _mov_text(text: str) -> bytes:
    return struct.pack(">H", len(text)) + text.encode()


SUBTITLES = Group(
    "Subtitles",
    "",
    [
        _with_text("SubRip", ".mkv", ".srt", _SRT),
        _with_text("ASS", ".mkv", ".ass", _ASS),
        _with_packets("mov_text", ".mp4", "mov_text", _mov_text("One line"), _mov_text("and two")),
        _with_text("WebVTT", ".webm", ".vtt", _VTT),
        _with_packets("DVD, bitmaps", ".mkv", "dvd_subtitle", b"\0\x08\0\x04" + b"\xff" * 4),
        _with_packets("Blu-ray PGS, bitmaps", ".mkv", "hdmv_pgs_subtitle", b"\x80\0\0"),
    ],
)

# ---- what else a file holds -------------------------------------------------------------------------------------


def _plain_film(folder: Path, container: str = ".mkv", **options: Any) -> Path:
    video = options.pop("video", "libvpx-vp9" if container == ".webm" else "libx264")
    options = {"frames": _FRAMES, "rate": _RATE, **options}
    return make_film(folder / f"source{container}", video=video, **options)


def _chapters(output: Any) -> list[Any]:
    second = Fraction(1, 1000)
    output.set_chapters(
        [
            {
                "id": k,
                "start": 300 * k,
                "end": 300 * k + 300,
                "time_base": second,
                "metadata": {"title": name},
            }
            for k, name in enumerate(("One", "Two"))
        ]
    )
    return []


def _look_at_chapters(source: Film, result: Film) -> str:
    if not result.chapters:
        return ""
    right = len(result.chapters) == len(source.chapters) and all(
        a[2] == b[2] and abs(a[0] - b[0]) < 0.002
        for a, b in zip(source.chapters, result.chapters, strict=False)
    )
    return "kept" if right else "changed"


def _font(output: Any) -> list[Any]:
    output.add_attachment("font.ttf", "font/ttf", b"\0\1\0\0" + bytes(60))
    return []


def _cover(output: Any) -> list[Any]:
    """A cover as Matroska has it: a picture among the attachments, which PyAV shows as a video stream."""
    context: Any = av.CodecContext.create("mjpeg", "w")
    context.width, context.height, context.pix_fmt, context.time_base = 16, 16, "yuvj444p", Fraction(1, 1)
    picture = av.VideoFrame(16, 16, "yuvj444p")
    data = b"".join(bytes(packet) for packet in [*context.encode(picture), *context.encode(None)])
    output.add_attachment("cover.jpg", "image/jpeg", data)
    return []


def _data(output: Any) -> list[Any]:
    stream = output.add_data_stream("klv")
    stream.time_base = Fraction(1, 90000)
    return [_packet(stream, b"\x06\x0e\x2b\x34" + bytes(12), 9000, 0)]


def _timecode(output: Any) -> list[Any]:
    output.metadata["timecode"] = "01:00:00:00"
    return []


def _titles(output: Any) -> list[Any]:
    output.metadata.update({"title": "A film", "artist": "Somebody", "comment": "No more to say"})
    return []


def _look_at_titles(source: Film, result: Film) -> str:
    names = ("title", "artist", "comment")
    kept = [name for name in names if result.metadata.get(name) == source.metadata[name]]
    return "kept" if len(kept) == len(names) else ", ".join(kept)


def _named_sound(output: Any) -> list[Any]:
    stream = output.streams[-1]
    stream.metadata.update({"language": "fra", "title": "Commentary"})
    return []


def _look_at_names(source: Film, result: Film) -> str:
    if not result.sound:
        return ""
    sound = result.sound[0]
    kept = [
        name
        for name, there in (
            ("language", sound.language == "fra"),
            ("title", sound.title == source.sound[0].title),
        )
        if there
    ]
    return "kept" if len(kept) == 2 else " only".join([*kept, ""])


def _look_for(list_name: str) -> Callable[[Film, Film], str]:
    def look(source: Film, result: Film) -> str:
        return "kept" if getattr(result, list_name) == getattr(source, list_name) != [] else ""

    return look


def _film_with(also: Callable[[Any], list[Any]], container: str, **options: Any) -> Callable[[Path], Path]:
    return lambda folder: _plain_film(folder, container, also=also, **options)


BESIDE = Group(
    "Chapters, attachments, names",
    "",
    [
        Row("chapters (.mkv)", _film_with(_chapters, ".mkv"), _look_at_chapters),
        Row("chapters (.mp4)", _film_with(_chapters, ".mp4"), _look_at_chapters),
        Row("a font (.mkv)", _film_with(_font, ".mkv"), _look_for("attachments")),
        Row("a cover (.mkv)", _film_with(_cover, ".mkv"), _look_for("other_streams")),
        Row("data: KLV (.ts)", _film_with(_data, ".ts"), _look_for("other_streams")),
        Row("data: timecode (.mov)", _film_with(_timecode, ".mov"), _look_for("other_streams")),
        Row("title, artist, comment (.mkv)", _film_with(_titles, ".mkv"), _look_at_titles),
        Row("title, artist, comment (.mp4)", _film_with(_titles, ".mp4"), _look_at_titles),
        Row(
            "language and title of the sound (.mkv)",
            _film_with(_named_sound, ".mkv", sounds_after=1),
            _look_at_names,
        ),
    ],
)

# ---- the pictures' own facts ------------------------------------------------------------------------------------


def _look_at_times(source: Film, result: Film) -> str:
    if len(result.frames) < 2:
        return "one frame, no time" if len(result.thumbnails) == 1 else "no times"
    worst = max(frame_errors(source.frames, result.frames))
    if len(result.frames) != len(source.frames):
        return f"{len(result.frames)} of {len(source.frames)} frames"
    if worst <= Fraction(1, 10_000_000):
        return "exact"
    return "to 1 ms" if worst <= Fraction(1, 1000) else "constant rate"


def _look_at_start(source: Film, result: Film) -> str:
    return f"{float(result.frames[0]):g} s" if result.frames else "no times"


def _look_at_end(source: Film, result: Film) -> str:
    if not result.frames:
        return "no times"
    if result.format == "nut":
        return _NO_PLACE  # times of packets, but not how long they last
    return "kept" if abs(result.last_duration - source.last_duration) <= Fraction(1, 1000) else ""


def _look_at_aspect(source: Film, result: Film) -> str:
    return "kept" if result.aspect == source.aspect else ""


def _look_at_colour(source: Film, result: Film) -> str:
    names = {"color_primaries": "primaries", "color_trc": "transfer", "colorspace": "matrix"}
    kept = [short for name, short in names.items() if result.color[name] == source.color[name]]
    return "kept" if len(kept) == 3 else f"{' and '.join(kept)} only" if kept else ""


def _look_at_range(source: Film, result: Film) -> str:
    return {1: "as limited range", 2: "kept"}.get(result.color["color_range"], "range not tagged")


def _look_at_rotation(source: Film, result: Film) -> str:
    turned = result.size == source.size[::-1]
    return "turned upright" if turned and not result.rotation else "kept" if result.rotation else ""


def _look_at_interlacing(source: Film, result: Film) -> str:
    return "kept" if result.interlaced else ""


def _look_at_alpha(source: Film, result: Film) -> str:
    return "kept" if re.search("a", result.pixel_format.removeprefix("gray")) else ""


def _look_at_depth(source: Film, result: Film) -> str:
    return "kept" if re.search("10|12|16", result.pixel_format) else "8 bits"


def _look_at_hdr(source: Film, result: Film) -> str:
    depth = "" if re.search("10|12|16", result.pixel_format) else "8 bits"
    tagged = "tagged PQ" if result.color["color_trc"] == 16 else "no tag"
    return ", ".join(filter(None, (depth, tagged)))


def _set(**facts: Any) -> Callable[[Any], None]:
    def prepare(stream: Any) -> None:
        for name, value in facts.items():
            setattr(stream.codec_context, name, value)

    return prepare


def _make_rotated(folder: Path) -> Path:
    path = _plain_film(folder, ".mp4", size=(64, 96))
    data = bytearray(path.read_bytes())
    # The matrix in the header of an MP4 track, version 0: ids and times, reserved, layer and volume before it.
    at = data.index(b"tkhd") + 4 + 4 + 20 + 8 + 8
    data[at : at + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def _film_of(container: str, **options: Any) -> Callable[[Path], Path]:
    return lambda folder: _plain_film(folder, container, **options)


_HD = {"color_primaries": 1, "color_trc": 1, "colorspace": 1}
_HDR = {"color_primaries": 9, "color_trc": 16, "colorspace": 9}
_QUIET = {"x265-params": "log-level=none"}

PICTURES = Group(
    "The pictures",
    "Every output but a single picture holds every frame. Pixels are 8-bit RGB inside an .etk file.",
    [
        Row(
            "times, variable rate (.mp4)",
            _film_of(".mp4", rate=12800, times=[0, 1000, 1501, 1777, 6400, 8000]),
            _look_at_times,
            always=True,
        ),
        Row("start at 12 h (.mkv)", _film_of(".mkv", muxer={"output_ts_offset": "43200"}), _look_at_start),
        Row("how long the last frame stays (.mp4)", _film_of(".mp4", last_duration=7, bf="0"), _look_at_end),
        Row(
            "sample aspect 64:45, in codec and container (.mp4)",
            _film_of(".mp4", prepare=_set(sample_aspect_ratio=Fraction(64, 45))),
            _look_at_aspect,
            everywhere=True,
        ),
        Row(
            "sample aspect 64:45, in the container only (.mov)",
            _film_of(
                ".mov",
                video="prores_ks",
                pixel_format="yuv422p10le",
                prepare=_set(sample_aspect_ratio=Fraction(64, 45)),
            ),
            _look_at_aspect,
            everywhere=True,
        ),
        Row("BT.709 tags, small picture (.mp4)", _film_of(".mp4", prepare=_set(**_HD)), _look_at_colour),
        Row("full range (.mp4)", _film_of(".mp4", prepare=_set(color_range=2)), _look_at_range),
        Row("turned by 90° (.mp4)", _make_rotated, _look_at_rotation),
        Row(
            "interlacing (.mkv)",
            _film_of(".mkv", **{"x264-params": "tff=1"}),
            _look_at_interlacing,
            everywhere=True,
        ),
        Row(
            "transparency, VP9 (.webm)",
            _film_of(".webm", pixel_format="yuva420p"),
            _look_at_alpha,
            everywhere=True,
        ),
        Row(
            "transparency, QuickTime (.mov)",
            _film_of(".mov", video="qtrle", pixel_format="argb"),
            _look_at_alpha,
            everywhere=True,
        ),
        Row(
            "10 bits (.mp4)",
            _film_of(".mp4", video="libx265", pixel_format="yuv420p10le", **_QUIET),
            _look_at_depth,
        ),
        Row(
            "HDR10 (.mp4)",
            _film_of(".mp4", video="libx265", pixel_format="yuv420p10le", prepare=_set(**_HDR), **_QUIET),
            _look_at_hdr,
        ),
    ],
)

GROUPS = (PICTURES, SOUND, SUBTITLES, BESIDE)

# ---- trying it --------------------------------------------------------------------------------------------------


def _try(source: Path, target: str, folder: Path, codecs: Iterable[str]) -> tuple[Film | None, list[str]]:
    """What one output makes of a file, None if it refuses, and what was said."""
    path = folder / target
    named = f"{path}/" if target.endswith("/") else path
    try:
        _, said = pass_through(source, named, first_only=path.suffix in _PICTURES)
    except VideoError as error:
        return None, [_general(str(error), source, path, codecs)]
    if target.endswith("/"):
        pictures = sorted(path.iterdir())
        result = measure(pictures[0])
        result.thumbnails = np.stack([measure(picture).thumbnails[0] for picture in pictures])
        shutil.rmtree(path)
    else:
        result = measure(path)
        path.unlink()
    if target.endswith("/") or path.suffix in _PICTURES:
        result.frames = []  # times of a picture are FFmpeg's invention
    return result, [_general(text, source, path, codecs) for text in said]


def _general(text: str, source: Path, target: Path, codecs: Iterable[str]) -> str:
    """A warning without what differs from row to row: names of files, codecs and containers, stream numbers."""
    text = text.replace(str(source), "IN").replace(str(target), "OUT")
    text = re.sub(r"\b(matroska|webm|mp4|mov|avi) files\b", "FORMAT files", text)
    text = re.sub(r"\bstream \d+\b", "stream N", text)
    for codec in codecs:
        text = re.sub(rf"\b{codec}\b", "CODEC", text)
    return text


def survey(groups: Iterable[Group] = GROUPS) -> list[str]:
    """Fill the groups' cells; the warnings that they point to, in order."""
    os.environ.setdefault("SVT_LOG", "1")  # errors only: its banner goes to stderr otherwise
    warnings: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plain = _plain_film(folder, ".mp4")
        usual = {output: _try(plain, target, folder, ())[1] for output, target in OUTPUTS.items()}
        for group in groups:
            for row in group.rows:
                path = row.make(folder)
                source = measure(path)
                codecs = {track.codec for track in source.tracks}
                codecs |= {name.split()[1] for name in source.other_streams}
                for output, target in OUTPUTS.items():
                    result, said = _try(path, target, folder, codecs)
                    if not row.always:
                        said = [text for text in said if text not in usual[output]]
                    numbers = [_number(text, warnings) for text in dict.fromkeys(said)]
                    cell = "refused" if result is None else row.look(source, result)
                    if not cell and not numbers:
                        cell = _NO_PLACE if output in BARE and not row.everywhere else SILENT
                    cell = cell or "dropped"
                    if numbers:
                        cell += f" [{', '.join(map(str, numbers))}]"
                    group.cells[row.name, output] = cell
                path.unlink()
    return warnings


def _number(text: str, warnings: list[str]) -> int:
    if text not in warnings:
        warnings.append(text)
    return warnings.index(text) + 1


def page() -> str:
    """The text of docs/what-is-kept.md, as of the code in this tree."""
    warnings = survey()
    parts = [
        "# What is kept",
        "What each kind of output keeps of a source, converts or drops. `scripts/what_is_kept.py` makes this page "
        "by trying: every row is a small file, every cell what came of it. A test makes it again and compares.",
        "- **kept**: bit for bit for sound and subtitles, the same value for the rest.",
        "- **as X**, or a value: converted.",
        "- **dropped**: not in the output. The number in brackets is that of the warning below that says so.",
        f"- **{_NO_PLACE}**: this output holds bare pictures and cannot say it; no warning says so.",
        f"- {SILENT}: a fault.",
    ]
    text = "\n\n".join(parts[:2]) + "\n\n" + "\n".join(parts[2:]) + "\n"
    for group in GROUPS:
        text += f"\n## {group.title}\n\n" + (f"{group.text}\n\n" if group.text else "")
        text += "| | " + " | ".join(OUTPUTS) + " |\n" + "| --- " * (len(OUTPUTS) + 1) + "|\n"
        for row in group.rows:
            cells = [group.cells[row.name, output] for output in OUTPUTS]
            text += f"| {row.name} | " + " | ".join(cells) + " |\n"
    text += (
        "\n## Warnings\n\nCODEC, FORMAT and N stand for what is there, IN and OUT for the files' names.\n\n"
    )
    return text + "".join(f"{k}. `{warning}`\n" for k, warning in enumerate(warnings, 1))


def main() -> int:
    """Write the page, or only compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with 1 if the page is wrong"
    )
    if parser.parse_args().check:
        right = PAGE.read_text(encoding="utf-8") == page()
        print(f"{PAGE.relative_to(ROOT)} is {'right' if right else 'out of date'}")
        return 0 if right else 1
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What a file holds, measured with PyAV alone, and the way of a file through the product.

`measure` shares no code with the product: it is the ruler that the product's results are held against.
`pass_through` is what `encode` and `decode` do around the model.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from difflib import SequenceMatcher
from fractions import Fraction
from inspect import signature
from pathlib import Path
from typing import Any

import av
import numpy as np

from elastictok_cli.video import Frame, VideoInfo, VideoReader, VideoWriter

FIXTURES = Path(__file__).parents[1] / "fixtures" / "odd"

_THUMBNAIL = 16  # pixels a side: enough to tell one frame from the next
_ALIKE = 3.0  # of 255: mean difference of two thumbnails below which nothing tells them apart


@dataclass(repr=False)
class Track:
    """The packets of one audio or subtitle stream.

    `times` and `durations` are in seconds, None where the file has none. `payloads` are MD5 sums of the packets
    without their framing: AAC loses its ADTS header, which MP4 and Matroska never store. `whole` is the MD5 sum of
    all of them in a row, which is the same however a container cuts PCM into packets. `data` holds the packets of
    subtitles only.
    """

    index: int
    kind: str
    codec: str
    language: str | None
    title: str | None
    times: list[Fraction | None] = field(default_factory=list)
    durations: list[Fraction] = field(default_factory=list)
    payloads: list[str] = field(default_factory=list)
    whole: str = ""
    data: list[bytes] = field(default_factory=list)

    @property
    def spans(self) -> list[tuple[Fraction, Fraction]]:
        """Begin and end of each packet that has a time (seconds)."""
        pairs = zip(self.times, self.durations, strict=True)
        return [(time, time + length) for time, length in pairs if time is not None]


@dataclass(repr=False)
class Film:
    """One file: `frames` are display times in seconds, `thumbnails` (N, 16, 16) grey, `tick` the video's unit."""

    format: str
    frames: list[Fraction]
    thumbnails: np.ndarray
    tick: Fraction
    size: tuple[int, int]
    aspect: Fraction
    codec: str
    pixel_format: str
    color: dict[str, int]
    interlaced: bool
    rotation: int
    last_duration: Fraction
    undecodable: int
    tracks: list[Track]
    other_streams: list[str]
    attachments: list[str]
    chapters: list[tuple[float, float, str]]
    metadata: dict[str, str]

    @property
    def sound(self) -> list[Track]:
        return [track for track in self.tracks if track.kind == "audio"]

    @property
    def subtitles(self) -> list[Track]:
        return [track for track in self.tracks if track.kind == "subtitle"]

    @property
    def steps(self) -> list[Fraction]:
        """Seconds from each frame to the next."""
        return [b - a for a, b in zip(self.frames, self.frames[1:], strict=False)]

    @property
    def first_time(self) -> Fraction:
        """When the first of all streams begins (seconds); subtitles may begin when they like."""
        return min([*self.frames[:1], *(t for track in self.sound for t in track.times if t is not None)])


def measure(path: Path, video: int | None = None) -> Film:
    """State what there is in a file. `video` is the index of the film's stream, None: the first one."""
    with _open(path) as container:
        film = _empty_film(container, _video_of(container, video))
        film.tracks = list(_read_tracks(container))
    with _open(path) as container:
        _read_frames(container, _video_of(container, video), film)
    return film


def planes(path: Path) -> list[np.ndarray]:
    """The samples of a file's first frame as they are stored: Y (H, W), U and V (H/2, W/2), int16."""
    with _open(path) as container:
        frame = next(container.decode(video=0)).reformat(format="yuv420p")
        width, height = frame.width, frame.height
        stored = frame.to_ndarray().astype(np.int16)
    u, v = stored[height:].reshape(2, height // 2, width // 2)
    return [stored[:height], u, v]


def flat_parts(plane: np.ndarray, reach: int = 4) -> np.ndarray:
    """Where a plane (H, W) does not change within `reach` samples, (H, W) bool."""
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(plane, reach, "edge"), (2 * reach + 1,) * 2)
    return windows.max((2, 3)) - windows.min((2, 3)) <= 1


def same_sound(source: Track, result: Track) -> bool:
    """Whether every bit of the sound is there, however it is cut into packets."""
    if source.codec.startswith("pcm_"):
        return source.whole == result.whole
    return source.payloads == result.payloads


def match_tracks(source: Sequence[Track], result: Sequence[Track]) -> list[tuple[Track, Track | None]]:
    """Each track of the source with the one of the result that holds most of its packets, None where none does."""
    left = list(result)
    pairs: list[tuple[Track, Track | None]] = []
    for track in source:

        def common(other: Track, track: Track = track) -> int:
            shared = (Counter(track.payloads) & Counter(other.payloads)).total()
            return shared + 10_000_000 * (track.whole == other.whole)

        best = max(left, key=common, default=None)
        if best is not None and common(best):
            left.remove(best)
            pairs.append((track, best))
        else:
            pairs.append((track, None))
    return pairs


def match_packets(source: Track, result: Track) -> list[tuple[int, int]]:
    """Places of the same packet in the source and in the result, in order."""
    if source.payloads == result.payloads:
        return [(k, k) for k in range(len(source.payloads))]
    matcher = SequenceMatcher(None, source.payloads, result.payloads, autojunk=False)
    return [(block.a + k, block.b + k) for block in matcher.get_matching_blocks() for k in range(block.size)]


def plain_text(track: Track) -> tuple[str, ...]:
    """The text of each subtitle, without what SRT, ASS and mov_text put around it; bitmaps give nonsense."""
    texts = []
    for data in track.data:
        if track.codec == "mov_text":
            data = data[2 : 2 + int.from_bytes(data[:2], "big")]
        text = data.decode(errors="replace")
        if track.codec == "ass":
            text = text.split(",", 8)[-1]
        text = re.sub(r"<[^>]*>|\{[^}]*\}", "", text).replace("\\N", "\n").replace("\r", "")
        texts.append(text.strip())
    return tuple(texts)


def frame_errors(source: Sequence[Fraction], result: Sequence[Fraction]) -> list[Fraction]:
    """How far each frame's time, counted from the first frame, is from the source's (seconds)."""
    return [
        abs((b - result[0]) - (a - source[0])) for a, b in zip(source, result, strict=False)
    ]  # a count that differs is for another test to find


def sound_errors(source: Film, result: Film, track: Track, copy: Track) -> list[Fraction]:
    """How far each packet's time, counted from the first frame, is from the source's (seconds).

    Of PCM that was cut anew, begin and end only.
    """
    if track.payloads != copy.payloads and track.whole == copy.whole:
        ends = []
        for film, sound in ((source, track), (result, copy)):
            ends.append([time - film.frames[0] for time in (sound.spans[0][0], sound.spans[-1][1])])
        return [abs(b - a) for a, b in zip(*ends, strict=True)]
    errors = []
    for a, b in match_packets(track, copy):
        before, after = track.times[a], copy.times[b]
        if before is not None and after is not None:
            errors.append(abs((after - result.frames[0]) - (before - source.frames[0])))
    return errors


def part_errors(source: Film, result: Film, frames: slice, packets: slice) -> list[Fraction]:
    """As `sound_errors`, within one part of a joined recording with one sound stream.

    `frames` and `packets` are the part's. Both files' times count from the part's first frame.
    """
    [track], [copy] = source.sound, result.sound
    before, after = source.frames[frames][0], result.frames[frames][0]
    wanted = range(*packets.indices(len(track.payloads)))
    errors = []
    for a, b in match_packets(track, copy):
        asked, given = track.times[a], copy.times[b]
        if a in wanted and asked is not None and given is not None:
            errors.append(abs((given - after) - (asked - before)))
    return errors


def misplaced(source: Film, result: Film) -> list[int]:
    """Numbers of the result's frames that look more like another frame of the source than like their own.

    Frames that nothing tells apart are not counted.
    """
    a = source.thumbnails.reshape(len(source.frames), -1).astype(np.float32)
    b = result.thumbnails.reshape(len(result.frames), -1).astype(np.float32)
    wrong = []
    for k in range(min(len(a), len(b))):
        distances = np.abs(a - b[k]).mean(axis=1)
        if distances[k] > distances.min() + _ALIKE:
            wrong.append(k)
    return wrong


def pass_through(
    source: Path | str,
    target: Path | str,
    *,
    first_only: bool = False,
    codec: str | None = None,
    lossless: bool = False,
    decode_window: tuple[Fraction, Fraction] | None = None,
    **options: Any,
) -> tuple[VideoInfo, list[str]]:
    """Read a file and write it again, with all that travels beside the pictures; what was said on the way.

    `options` are the reader's: with `start` and `duration` they are those of `encode`. `decode_window` is what
    `decode --start --duration` keeps (seconds from the first frame, and seconds). `first_only` writes one frame,
    for pictures.

    Between reader and writer stands what an .etk file keeps: frames with their times and durations, the facts
    of VideoInfo that the writer asks for by the same name, and the bytes of the carried streams.
    """
    with VideoReader(source, **options) as reader:
        frames: list[Frame] = []
        chunks: list[bytes] = []
        for frame in reader:
            frames.append(frame)
            chunks.append(reader.take_aux())
        chunks.append(reader.take_aux())
        info = reader.info
        said = list(reader.warnings)
    asked = set(signature(VideoWriter).parameters)
    facts = {f.name: getattr(info, f.name) for f in fields(info) if f.name in asked - {"duration"}}
    # As `decode` does: a .webm holds no H.264.
    facts["codec"] = codec or ("av1" if Path(target).suffix.lower() == ".webm" else "h264")
    facts["aux"] = iter(chunks) if info.aux_container else None
    if decode_window is not None:
        low = frames[0].pts + decode_window[0] / info.time_base
        high = low + decode_window[1] / info.time_base
        frames = [frame for frame in frames if low <= frame.pts < high]
        first = frames[0].pts
        facts["start"] = first * info.time_base
        facts["duration"] = (high - first) * info.time_base
        frames = [Frame(frame.rgb, frame.pts - first, frame.duration) for frame in frames]
    with VideoWriter(target, lossless=lossless, **facts) as writer:
        for frame in frames[: 1 if first_only else None]:
            writer.write(frame)
    return info, said + list(writer.warnings)


def _open(path: Path) -> Any:
    return av.open(str(path), metadata_errors="replace")


def _video_of(container: Any, index: int | None) -> Any:
    return container.streams.video[0] if index is None else container.streams[index]


def _empty_film(container: Any, stream: Any) -> Film:
    return Film(
        format=container.format.name,
        frames=[],
        thumbnails=np.zeros((0, _THUMBNAIL, _THUMBNAIL), np.uint8),
        tick=Fraction(stream.time_base),
        size=(stream.codec_context.width, stream.codec_context.height),
        # The container's word goes before the codec's, as it does in players.
        aspect=Fraction(stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or 1),
        codec=_codec_of(stream),
        pixel_format=stream.codec_context.pix_fmt or "",
        color={},
        interlaced=False,
        rotation=0,
        last_duration=Fraction(0),
        undecodable=0,
        tracks=[],
        other_streams=[
            f"{s.type} {_codec_of(s)}"
            for s in container.streams
            if s is not stream and s.type not in ("audio", "subtitle", "attachment")
        ],
        attachments=[s.metadata.get("filename", "") for s in container.streams if s.type == "attachment"],
        chapters=[
            (
                float(c["start"] * c["time_base"]),
                float(c["end"] * c["time_base"]),
                _title(c["metadata"]) or "",
            )
            for c in container.chapters()
        ],
        metadata={key.lower(): value for key, value in container.metadata.items()},
    )


def _read_tracks(container: Any) -> Iterator[Track]:
    tracks = {
        s.index: Track(s.index, s.type, _codec_of(s), _language(s), _title(s.metadata))
        for s in container.streams
        if s.type in ("audio", "subtitle")
    }
    sums: dict[int, Any] = {index: hashlib.md5() for index in tracks}
    try:
        for packet in container.demux():
            track = tracks.get(packet.stream_index)
            if track is None or not packet.size:
                continue
            data = _unframed(track.codec, bytes(packet))
            if track.codec == "mov_text" and len(data) == 2:
                continue  # an empty text: how MP4 fills the time between two
            time = packet.pts if packet.pts is not None else packet.dts
            track.times.append(None if time is None else Fraction(time * packet.time_base))
            track.durations.append(Fraction((packet.duration or 0) * packet.time_base))
            track.payloads.append(hashlib.md5(data).hexdigest())
            sums[track.index].update(data)
            if track.kind == "subtitle":
                track.data.append(data)
    except av.FFmpegError:
        pass  # the file ends here, for every reader
    for index, track in tracks.items():
        track.whole = sums[index].hexdigest()
        yield track


def _unframed(codec: str, data: bytes) -> bytes:
    """An AAC packet without its ADTS header: 12 bits of ones, and 7 bytes, or 9 with a checksum."""
    if codec == "aac" and len(data) > 9 and data[0] == 0xFF and data[1] & 0xF0 == 0xF0:
        return data[7 if data[1] & 1 else 9 :]
    return data


def _read_frames(container: Any, stream: Any, film: Film) -> None:
    pictures = []
    frame = None
    for frame in _decode(container, stream, film):
        if frame.pts is not None:
            film.frames.append(Fraction(frame.pts * frame.time_base))
        film.interlaced |= bool(frame.interlaced_frame)
        small = frame.reformat(width=_THUMBNAIL, height=_THUMBNAIL, format="gray", interpolation="AREA")
        pictures.append(small.to_ndarray())
    if frame is not None:
        film.thumbnails = np.stack(pictures)
        film.rotation = frame.rotation
        film.last_duration = Fraction((frame.duration or 0) * frame.time_base)
        if "mp4" in film.format and stream.duration:
            # MP4 keeps lengths in order of decoding: only their sum tells how long the last frame shown stays.
            film.last_duration = (stream.start_time + stream.duration) * film.tick - film.frames[-1]
        names = ("color_primaries", "color_trc", "colorspace", "color_range")
        film.color = {name: int(getattr(frame, name)) for name in names}


def _decode(container: Any, stream: Any, film: Film) -> Iterator[Any]:
    try:
        for packet in container.demux(stream):
            if packet.size == 0 and packet.pts is not None:
                continue  # Theora's word for "the same picture again", which no decoder wants to see
            try:
                yield from packet.decode()
            except av.FFmpegError:
                film.undecodable += 1
    except av.FFmpegError:
        return  # the file ends here


def _codec_of(stream: Any) -> str:
    if stream.codec_context is None:
        return "unknown"
    name = stream.codec_context.codec.canonical_name
    return {"srt": "subrip"}.get(name, name)


def _language(stream: Any) -> str | None:
    language = stream.metadata.get("language")
    return None if language == "und" else language


def _title(metadata: dict[str, str]) -> str | None:
    # MP4 calls the title of a track its name.
    return metadata.get("title") or metadata.get("name") or None


# ---- files made on the spot -------------------------------------------------------------------------------------


def picture(index: int, size: tuple[int, int] = (64, 64)) -> np.ndarray:
    """A picture, (H, W, 3) uint8, that differs from those before and after it in a bar's place and in shade."""
    width, height = size
    rgb = np.full((height, width, 3), 60 + 37 * index % 120, np.uint8)
    at = (5 * index) % (width - 12)
    rgb[:, at : at + 12] = (220, 200, 180)
    rgb[(7 * index) % (height - 8) :][:8] = (30, 60, 90)
    return rgb


def make_film(
    path: Path,
    *,
    video: str = "libx264",
    frames: int = 25,
    rate: int = 25,
    times: Sequence[int] | None = None,
    sounds_before: int = 0,
    sounds_after: int = 0,
    sound: str = "aac",
    sound_rate: int = 48000,
    sound_layout: str = "mono",
    sound_bit_rate: int | None = None,
    sound_samples: int | None = None,
    size: tuple[int, int] = (64, 64),
    pixel_format: str = "yuv420p",
    last_duration: int | None = None,
    muxer: dict[str, str] | None = None,
    prepare: Callable[[Any], None] = lambda stream: None,
    also: Callable[[Any], list[Any]] = lambda output: [],
    **options: str,
) -> Path:
    """A clean film with sound streams before or behind the video in the list of streams.

    `sound_samples` is the length of a packet of PCM. `times` are those of the frames in units of a frame, None:
    0, 1, 2... `last_duration` is how many of these units the last frame stays (for encoders that reorder nothing),
    None: as the encoder says. `prepare` gets the video stream before it is opened; `also` gets the container before
    anything is written, adds what it likes to it and gives the packets. `muxer` and `options` are FFmpeg's, of the
    container and the video encoder.

    All packets are encoded first and stored in order of decoding time, so that whatever the encoder holds back
    changes nothing.
    """
    times = range(frames) if times is None else times

    def add_sound(output: Any) -> Any:
        # FFmpeg's own Vorbis encoder wants to be asked.
        stream = output.add_stream(sound, rate=sound_rate, layout=sound_layout, options={"strict": "-2"})
        if sound_bit_rate is not None:
            stream.codec_context.bit_rate = sound_bit_rate
        return stream

    with av.open(str(path), "w", container_options=muxer or {}) as out:
        sounds = [add_sound(out) for _ in range(sounds_before)]
        film: Any = out.add_stream(video, rate=rate, options=options)
        film.width, film.height, film.pix_fmt = (*size, pixel_format)
        film.time_base = film.codec_context.time_base = Fraction(1, rate)
        prepare(film)
        sounds += [add_sound(out) for _ in range(sounds_after)]
        packets = also(out)
        pictures = list(_encode_pictures(film, times, rate, size))
        if last_duration is not None:
            max(pictures, key=lambda p: p.pts).duration = last_duration
        packets += pictures
        for k, stream in enumerate(sounds):
            packets += _encode_tone(stream, Fraction(times[-1] + 1, rate), 300 + 200 * k, sound_samples)
        for packet in sorted(packets, key=lambda p: p.dts * p.time_base):
            out.mux(packet)
    return path


def _encode_pictures(stream: Any, times: Sequence[int], rate: int, size: tuple[int, int]) -> Iterator[Any]:
    for index, time in enumerate(times):
        pixels = picture(index, size)
        alpha = np.full((*pixels.shape[:2], 1), 255, np.uint8)
        alpha[: size[1] // 2] = 100  # of what can be seen through, where the format says so
        frame = av.VideoFrame.from_ndarray(np.concatenate([pixels, alpha], 2), format="rgba").reformat(
            format=stream.pix_fmt
        )
        frame.pts, frame.time_base = time, Fraction(1, rate)
        yield from stream.encode(frame)
    yield from stream.encode(None)


def _encode_tone(stream: Any, seconds: Fraction, pitch: int, samples: int | None) -> Iterator[Any]:
    context = stream.codec_context
    rate = context.sample_rate
    wave = np.sin(np.arange(int(rate * seconds)) * (2 * np.pi * pitch / rate)) * 9000
    # A slow swell, so that no two packets are alike.
    wave *= np.linspace(0.2, 1, len(wave))
    whole = av.AudioFrame.from_ndarray(wave.astype(np.int16)[None], format="s16", layout="mono")
    whole.sample_rate, whole.pts = rate, 0
    size = context.frame_size or samples or 1024
    resampler = av.AudioResampler(
        format=context.format.name, layout=context.layout, rate=rate, frame_size=size
    )
    for piece in [*resampler.resample(whole), *resampler.resample(None)]:
        yield from stream.encode(piece)
    yield from stream.encode(None)


def make_patches(path: Path, height: int, width: int = 64) -> Path:
    """Two frames of strong colours in four flat patches, with no word on how their samples become RGB."""
    stored = np.zeros((height * 3 // 2, width), np.uint8)
    stored[:height] = np.repeat([90, 140, 110, 60], height // 4)[:, None]
    chroma = stored[height:].reshape(2, height // 2, width // 2)
    chroma[0] = np.repeat([90, 120, 170, 150], height // 8)[:, None]
    chroma[1] = np.repeat([170, 80, 110, 150], height // 8)[:, None]
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("libx264", rate=10, options={"crf": "4"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for _ in range(2):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(stored, format="yuv420p")))
        out.mux(stream.encode(None))
    return path

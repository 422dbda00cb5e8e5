"""Small clips made on the spot, and ways to look into the files that come out."""

import hashlib
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from elastictok_cli.video import Frame, VideoInfo, VideoReader, VideoWriter

TICKS = Fraction(1, 90000)
VFR = (0, 3000, 6001, 6007, 15000, 90000, 90001, 120000, 123003, 180000)


def pattern(index: int, height: int, width: int) -> np.ndarray:
    """A picture with smooth colours and an unmistakable orientation, (H, W, 3) uint8."""
    y, x = np.mgrid[0:height, 0:width]
    red = 255 * x / max(1, width - 1)
    green = 255 * y / max(1, height - 1)
    blue = np.full((height, width), (37 * index) % 256)
    return np.stack([red, green, blue], axis=-1).astype(np.uint8)


def make_clip(
    path: Path,
    *,
    size: tuple[int, int] = (64, 48),
    times: Sequence[int] | None = None,
    time_base: Fraction = Fraction(1, 30),
    count: int = 12,
    video: str = "libx264",
    pixel_format: str = "yuv420p",
    audio: str | None = None,
    rate: int = 48000,
    subtitles: str | None = None,
    **options: str,
) -> Path:
    """A clip with `times` (ticks of `time_base`; None: 0, 1, 2...), a tone, and the text of an SRT file."""
    width, height = size
    times = range(count) if times is None else times
    exact = {} if path.suffix == ".ts" else {"avoid_negative_ts": "disabled"}
    with av.open(str(path), "w", container_options=exact) as out:
        stream = out.add_stream(video, rate=30, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        stream.time_base = stream.codec_context.time_base = time_base
        tone = out.add_stream(audio, rate=rate, layout="stereo") if audio else None
        if subtitles is not None:
            srt = path.with_suffix(".srt")
            srt.write_text(subtitles, encoding="utf-8")
            with av.open(str(srt)) as text:
                copy = out.add_stream_from_template(text.streams[0])
                for packet in text.demux():
                    if packet.size:
                        packet.stream = copy
                        out.mux(packet)
        for index, pts in enumerate(times):
            frame = av.VideoFrame.from_ndarray(pattern(index, height, width), format="rgb24")
            frame = frame.reformat(format=pixel_format)
            frame.pts, frame.time_base = pts, time_base
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        if tone is not None:
            samples = int(rate * (float(times[-1] * time_base) + 1 / 30))
            wave = (np.sin(np.arange(samples) / 20) * 8000).astype(np.int16).repeat(2)[None]
            sound = av.AudioFrame.from_ndarray(wave, format="s16", layout="stereo")
            sound.sample_rate = rate
            sound.pts = 0
            resampler = av.AudioResampler(
                format=tone.codec_context.format.name,
                layout="stereo",
                rate=rate,
                frame_size=tone.codec_context.frame_size or 1024,
            )
            for piece in [*resampler.resample(sound), *resampler.resample(None)]:
                out.mux(tone.encode(piece))
            out.mux(tone.encode(None))
    return path


def packets(path: Path) -> list[list[tuple[Fraction, str]]]:
    """Start time (seconds) and hash of each audio and subtitle packet, by stream."""
    with av.open(str(path)) as container:
        found: dict[int, list[tuple[Fraction, str]]] = {
            s.index: [] for s in container.streams if s.type in ("audio", "subtitle")
        }
        for packet in container.demux():
            if packet.stream_index in found and packet.size:
                entry = (packet.pts * packet.time_base, hashlib.md5(bytes(packet)).hexdigest())
                found[packet.stream_index].append(entry)
    return list(found.values())


def read_all(path: Path, **options: object) -> tuple[VideoInfo, list[Frame], list[bytes], list[str]]:
    """Everything a reader gives."""
    with VideoReader(path, **options) as reader:
        frames, chunks = [], []
        for frame in reader:
            frames.append(frame)
            chunks.append(reader.take_aux())
        chunks.append(reader.take_aux())
        return reader.info, frames, chunks, reader.warnings


def copy_clip(source: Path, target: Path | str, **options: object) -> VideoWriter:
    """Read a clip and write it again, with all that travels beside the pictures."""
    info, frames, chunks, _ = read_all(source)
    with VideoWriter(
        target,
        width=info.width,
        height=info.height,
        time_base=info.time_base,
        average_rate=info.average_rate,
        color=info.color,
        metadata=info.metadata,
        aux=iter(chunks) if info.aux_container else None,
        aux_container=info.aux_container,
        **options,
    ) as writer:
        for frame in frames:
            writer.write(frame)
    return writer


def seconds(info: VideoInfo, frames: list[Frame]) -> list[Fraction]:
    """The frames' times."""
    return [frame.pts * info.time_base for frame in frames]


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal to noise ratio (dB) of two uint8 arrays."""
    error = np.mean((a.astype(np.float64) - b) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))

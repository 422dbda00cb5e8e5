"""A small clip with sound, and ways to run the program."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Set
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from typer.testing import CliRunner, Result

from elastictok_cli.main import app
from formats import EtkReader, EtkWriter

SIZE = (64, 48)
COUNT = 15

# Ctrl-C is ignored by what a shell starts in the background, and so would be its tests.
_PROGRAM = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from elastictok_cli.main import run
run()
"""


def run(*arguments: object, **options: Any) -> Result:
    """The program in this process."""
    return CliRunner().invoke(
        app, [str(argument) for argument in arguments], prog_name="elastictok", **options
    )


def start(*arguments: object, **options: Any) -> subprocess.Popen[bytes]:
    """The program in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        **options,
    )


def make_clip(path: Path, *, count: int = COUNT, audio: bool = True) -> Path:
    """Frames of a texture that glides, 30 a second, with a tone beside them."""
    width, height = SIZE
    rng = np.random.default_rng(0)
    texture = rng.integers(0, 256, (height // 4 + 1, width // 4 + count + 1, 3)).astype(np.uint8)
    texture = texture.repeat(4, 0).repeat(4, 1)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=30, options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        tone = out.add_stream("aac", rate=48000, layout="mono") if audio else None
        for index in range(count):
            picture = np.ascontiguousarray(texture[:height, index : index + width])
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, 30)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        if tone is not None:
            wave = (np.sin(np.arange(1600 * count) / 20) * 0.3).astype(np.float32)[None]
            for first in range(0, wave.shape[1], 1024):
                sound = av.AudioFrame.from_ndarray(
                    np.ascontiguousarray(wave[:, first : first + 1024]), format="fltp", layout="mono"
                )
                sound.sample_rate, sound.pts, sound.time_base = 48000, first, Fraction(1, 48000)
                out.mux(tone.encode(sound))
            out.mux(tone.encode(None))
    return path


def pictures(path: Path) -> list[tuple[Fraction, np.ndarray]]:
    """Time and (H, W, 3) pixels of each frame."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return [
            (frame.pts * frame.time_base, frame.to_ndarray(format="rgb24"))
            for frame in container.decode(stream)
        ]


def packets(path: Path) -> list[tuple[Fraction, str]]:
    """Time and hash of each audio packet."""
    with av.open(str(path)) as container:
        return [
            (packet.pts * packet.time_base, hashlib.md5(bytes(packet)).hexdigest())
            for packet in container.demux(container.streams.audio[0])
            if packet.size
        ]


def json_lines(text: str) -> list[dict[str, Any]]:
    """Parsed strictly: NaN and Infinity are no JSON."""

    def refuse(name: str) -> None:
        raise AssertionError(name)

    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def frame_count(etk: Path) -> int | None:
    """By the index."""
    with EtkReader(etk) as reader:
        return reader.frame_count


def flip(source: Path, target: Path, offset: int) -> Path:
    """A copy with one byte changed."""
    data = bytearray(source.read_bytes())
    data[offset] ^= 0xFF
    target.write_bytes(data)
    return target


def promised(
    source: Path, target: Path, *, errors: float | None = None, missed: Set[int] = frozenset(), **header: Any
) -> Path:
    """A copy without sound, with another header, this error of every frame, and these blocks marked as missed."""
    number = 0
    with EtkReader(source) as reader:
        header = {"aux": None, "target_tokens": None, **header}
        with EtkWriter(target, replace(reader.header, **header)) as writer:
            for segment in reader.segments():
                blocks = []
                for block in segment.blocks:
                    known = block.frame_mse if errors is None else (errors,) * len(block.pts)
                    blocks.append(replace(block, frame_mse=known, missed=number in missed))
                    number += 1
                writer.write_segment(blocks)
    return target


def make_film(
    path: Path,
    count: int,
    *,
    size: tuple[int, int] = SIZE,
    moves: bool = False,
    cut: int | None = None,
    seed: int = 1,
) -> Path:
    """25 frames a second of a smooth picture that rests or glides, and of another from frame `cut` on; with a tone."""
    width, height = size
    rng = np.random.default_rng(seed)
    scenes = [_smooth(rng, height, width + 3 * count) for _ in range(2)]
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"crf": "12"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        tone = out.add_stream("aac", rate=48000, layout="mono")
        for index in range(count):
            scene = scenes[cut is not None and index >= cut]
            shift = 3 * index if moves else 0
            picture = np.ascontiguousarray(scene[:, shift : shift + width])
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        wave = (np.sin(np.arange(1920 * count) / 20) * 0.3).astype(np.float32)[None]
        for first in range(0, wave.shape[1], 1024):
            sound = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(wave[:, first : first + 1024]), format="fltp", layout="mono"
            )
            sound.sample_rate, sound.pts, sound.time_base = 48000, first, Fraction(1, 48000)
            out.mux(tone.encode(sound))
        out.mux(tone.encode(None))
    return path


def _smooth(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Colours that change over a dozen pixels, (height, width, 3)."""
    coarse = rng.uniform(20, 235, (height // 12 + 2, width // 12 + 2, 3))
    rows, columns = np.arange(height) / 12, np.arange(width) / 12
    across = np.stack(
        [[np.interp(columns, np.arange(line.shape[0]), line[:, c]) for c in range(3)] for line in coarse]
    )
    down = np.array(
        [
            [np.interp(rows, np.arange(across.shape[0]), across[:, c, x]) for c in range(3)]
            for x in range(width)
        ]
    )
    return down.transpose(2, 0, 1).round().astype(np.uint8)


def make_page(path: Path, *, count: int = 4) -> Path:
    """Lossless frames: text that scrolls, half of it getting darker, a smooth picture that moves, noise that rests."""
    width, height, step = 128, 64, 13
    rng = np.random.default_rng(0)
    ink = (rng.random(((height + step * count) // 2 + 1, width // 6 + 1)) < 0.3).repeat(2, 0).repeat(3, 1)
    text = np.where(ink[..., None], [20, 30, 60], [255, 250, 240]).astype(np.uint8)
    noise = rng.integers(0, 256, (height, width // 4, 3)).astype(np.uint8)
    y, x = np.mgrid[:height, :width]
    with av.open(str(path), "w") as out:
        stream = out.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "bgr0"
        for index in range(count):
            red = 128 + 100 * np.sin((x + 2 * index) / 17) * np.cos(y / 23)
            green, blue = 128 + 90 * np.sin(y / 19 + index / 9), 128 + 80 * np.cos((x + y) / 31)
            picture = np.stack([red, green, blue], -1).astype(np.uint8)
            page = text[step * index : step * index + height, : width // 2].astype(float)
            page[:, width // 4 :] -= 40 * index
            picture[:, : width // 2] = page.clip(0, 255)
            picture[:, 3 * width // 4 :] = noise
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="bgr0")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path

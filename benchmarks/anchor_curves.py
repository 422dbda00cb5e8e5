"""Rate-distortion curves of other encoders on the frames that benchmarks/quality.py measures.

    python benchmarks/anchor_curves.py OUT.json CLIP...            first 48 frames, 256x256 at the centre
    python benchmarks/anchor_curves.py OUT.json --whole CLIP...    whole pictures, first 24 frames
    python benchmarks/anchor_curves.py --subsampling CLIP...       what 4:2:0 costs before anything is coded

Each clip goes through each encoder at ten CRFs, up to the highest that the encoder has, and is decoded again. A point
is the CRF, the bytes and the mean square error over all frames, on RGB from -1 to 1. Bytes are those of the coded
packets, without a container, without the parameter sets and without the text in which x264 names itself. All encode
8-bit 4:2:0 at 25 frames a second. benchmarks/anchors/README.md says what the file looks like.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import sys
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from elastictok_cli.evaluation import anchors, clips
from elastictok_cli.evaluation.anchors import Anchor, Point

Pixels = npt.NDArray[np.uint8]

X26_CRFS = (14, 18, 22, 26, 30, 34, 38, 42, 46, 51)
SVT_CRFS = (14, 20, 26, 32, 38, 44, 50, 56, 60, 63)
ENCODERS: dict[str, tuple[str, dict[str, str], tuple[int, ...]]] = {
    # PyAV asks for threads by slices, unlike ffmpeg: 80 % more bytes of x264 on small pictures at CRF 51
    "x264-medium": ("libx264", {"preset": "medium", "threads": "1"}, X26_CRFS),
    "x265-medium": ("libx265", {"preset": "medium", "x265-params": "log-level=none:info=0"}, X26_CRFS),
    "svtav1-p6": ("libsvtav1", {"preset": "6"}, SVT_CRFS),
}
RATE = 25
START_CODE = re.compile(rb"\x00\x00\x00?\x01")
SEI = 6  # H.264: the type of a unit of supplemental information


def main() -> None:
    options = parse()
    os.environ.setdefault("SVT_LOG", "1")  # errors only: its banner goes to stderr otherwise
    side, frames = (None, options.frames or 24) if options.whole else (256, options.frames or 48)
    if options.subsampling:
        for path in options.paths:
            pictures = load(path, side, frames)
            print(f"{path.stem}: MSE {error(pictures, subsampled(pictures)):.5f} by 4:2:0 alone")
        return
    out, *paths = options.paths
    if not paths:
        sys.exit("name a file to write and the clips")
    found: dict[str, Anchor] = {}
    for path in paths:
        pictures = load(path, side, frames)
        count, height, width = pictures.shape[:3]
        curves = {name: curve(pictures, *ENCODERS[name]) for name in options.encoders}
        found[path.stem] = Anchor(count, height, width, curves)
        for name, points in curves.items():
            first, last = points[0], points[-1]
            print(
                f"{path.stem} {name}: MSE {first.mse:.5f} to {last.mse:.5f}, {first.bytes} to {last.bytes} bytes",
                file=sys.stderr,
                flush=True,
            )
        anchors.save(found, out)  # after every clip: an interrupted run loses one


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("paths", type=Path, nargs="+", help="the file to write, then the clips")
    parser.add_argument("--whole", action="store_true", help="whole pictures instead of 256x256")
    parser.add_argument("--frames", type=int, help="of each clip at most (default: 48, or 24 with --whole)")
    parser.add_argument("--encoders", nargs="+", choices=ENCODERS, default=list(ENCODERS))
    parser.add_argument("--subsampling", action="store_true", help="only the error of 4:2:0 of the clips")
    return parser.parse_intermixed_args()


def load(path: Path, side: int | None, frames: int) -> Pixels:
    """The frames that quality.py codes, (T, H, W, 3)."""
    return np.stack([frame.rgb for frame in clips.load(path, side=side, frames=frames).frames])


def curve(pictures: Pixels, codec: str, settings: dict[str, str], crfs: tuple[int, ...]) -> tuple[Point, ...]:
    return tuple(Point(crf, *encode(pictures, codec, {**settings, "crf": str(crf)})) for crf in crfs)


def encode(pictures: Pixels, codec: str, settings: dict[str, str]) -> tuple[int, float]:
    """Bytes of the packets, and the mean square error of what is decoded from them."""
    file = io.BytesIO()
    size = 0
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream(codec, rate=RATE, options=settings)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = pictures.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for picture in [*pictures, None]:
            frame = None if picture is None else av.VideoFrame.from_ndarray(picture, format="rgb24")
            for packet in stream.encode(frame):
                size += without_text(bytes(packet)) if codec == "libx264" else packet.size
                container.mux(packet)
    file.seek(0)
    with av.open(file) as container:
        shown = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    return size, error(pictures, shown)


def without_text(packet: bytes) -> int:
    """Size of an H.264 packet (units after start codes) without its units of supplemental information."""
    begins = [match.start() for match in START_CODE.finditer(packet)]
    units = [packet[begin:end] for begin, end in zip(begins, [*begins[1:], len(packet)], strict=True)]
    return sum(len(unit) for unit in units if unit[unit.index(1) + 1] & 31 != SEI)


def subsampled(pictures: Pixels) -> Pixels:
    """The pictures in 8-bit 4:2:0 and back."""
    frames = [av.VideoFrame.from_ndarray(picture, format="rgb24") for picture in pictures]
    return np.stack([f.reformat(format="yuv420p").to_ndarray(format="rgb24") for f in frames])


def error(source: Pixels, shown: Pixels) -> float:
    """Mean square error on RGB from -1 to 1. Raises ValueError if the shapes differ."""
    if source.shape != shown.shape:
        raise ValueError(f"{source.shape} in, {shown.shape} out")
    return float((((source.astype(np.float64) - shown) / 127.5) ** 2).mean())


if __name__ == "__main__":
    main()

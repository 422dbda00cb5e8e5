"""Peak memory of encoding and decoding 1080p, for two lengths: it must not grow.

    python benchmarks/memory.py [--seconds 1 4] [--height 1080]

A moving test picture is generated, then the command-line program runs on it in processes of its own.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import av
import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--height", type=int, default=1080)
    options = parser.parse_args()
    print("| video | encode, peak MB | decode, peak MB |\n| --- | --- | --- |")
    for seconds in options.seconds:
        with tempfile.TemporaryDirectory() as folder:
            source, coded, back = (Path(folder) / name for name in ("in.mp4", "out.etk", "out.mp4"))
            generate(source, options.height, seconds)
            encode = peak("encode", source, coded)
            decode = peak("decode", coded, back)
        print(f"| {options.height}p, {seconds} s | {encode:.0f} | {decode:.0f} |", flush=True)


def generate(path: Path, height: int, seconds: int, rate: int = 24) -> None:
    """A large smooth picture that glides."""
    width = height * 16 // 9 // 2 * 2
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 255, (height // 40 + 2, width // 40 + 8, 3), dtype=np.uint8)
    picture = blocks.repeat(40, 0).repeat(40, 1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for n in range(seconds * rate):
            shift = 2 * n % 240
            frame = np.ascontiguousarray(picture[:height, shift : shift + width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def peak(verb: str, source: Path, target: Path) -> float:
    """Peak resident memory (MB) of one run, measured by a process that runs nothing else."""
    program = (
        "import resource, subprocess, sys;"
        "subprocess.run(sys.argv[1:], check=True);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    command = [sys.executable, "-m", "elastictok_cli", verb, str(source), str(target), "-y", "--quiet"]
    done = subprocess.run(
        [sys.executable, "-c", program, *command], check=True, stdout=subprocess.PIPE, text=True
    )
    scale = 1 if sys.platform == "darwin" else 1024
    return int(done.stdout.split()[-1]) * scale / 2**20


if __name__ == "__main__":
    main()

"""Peak memory of looking at where the tokens went, for 10 s and 5 min: it must not grow.

    python benchmarks/compare_memory.py [--seconds 10 300] [--height 32]

A moving test picture with a tone is generated and encoded with a fixed number of tokens; then `compare`, `report
--source`, `thin`, `stats --source` and `stats --plot` run on it in processes of their own.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

RATE = 5


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, nargs="+", default=[10, 300])
    parser.add_argument("--height", type=int, default=32)
    options = parser.parse_args()
    names = ["compare", "report", "thin", "stats --source", "stats --plot"]
    print("| video | " + ", peak MB | ".join(names) + ", peak MB |\n| --- |" + " --- |" * len(names))
    for seconds in options.seconds:
        with tempfile.TemporaryDirectory() as name:
            peaks = [f"{megabytes:.0f}" for megabytes in measure(Path(name), options.height, seconds)]
        video = f"{options.height}p, {seconds} s, {seconds * RATE} frames"
        print(f"| {video} | {' | '.join(peaks)} |", flush=True)


def measure(folder: Path, height: int, seconds: int) -> Iterator[float]:
    """The peaks, in the order of the columns."""
    source, coded = folder / "in.mp4", folder / "out.etk"
    generate(source, height, seconds)
    peak("encode", source, coded, "--tokens", 2, "--quiet")
    side = ("-o", folder / "side.mp4", "--heat", "--diff", "--quiet", "--width", 640)
    yield peak("compare", source, coded, *side)
    yield peak("report", coded, folder / "out.html", "--source", source, "--quiet")
    yield peak("thin", coded, folder / "thin.etk", "--keep", 0.5, "--quiet")
    yield peak("stats", coded, "--source", source)
    yield peak("stats", coded, "--plot", folder / "usage.png")


def generate(path: Path, height: int, seconds: int) -> None:
    """A large smooth picture that glides, and a tone."""
    width = height * 16 // 9 // 2 * 2
    rng = np.random.default_rng(0)
    picture = (
        rng.integers(0, 255, (height // 8 + 2, width // 8 + 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    )
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        tone = container.add_stream("aac", rate=48000, layout="mono")
        samples = 48000 // RATE
        for n in range(seconds * RATE):
            shift = 2 * n % 48
            frame = np.ascontiguousarray(picture[:height, shift : shift + width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            wave = (0.2 * np.sin(np.arange(n * samples, (n + 1) * samples) / 20)).astype(np.float32)[None]
            sound = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
            sound.sample_rate, sound.pts, sound.time_base = 48000, n * samples, Fraction(1, 48000)
            container.mux(tone.encode(sound))
        container.mux(stream.encode())
        container.mux(tone.encode())


def peak(*arguments: object) -> float:
    """Peak resident memory (MB) of one run, measured by a process that runs nothing else."""
    program = (
        "import resource, subprocess, sys;"
        "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    command = [sys.executable, "-m", "elastictok_cli", *map(str, arguments), "-y"]
    done = subprocess.run(
        [sys.executable, "-c", program, *command], check=True, stdout=subprocess.PIPE, text=True
    )
    scale = 1 if sys.platform == "darwin" else 1024
    return int(done.stdout.split()[-1]) * scale / 2**20


if __name__ == "__main__":
    main()

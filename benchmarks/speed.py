"""How much faster one checkout encodes and decodes than another: both in one run, by turns.

    python benchmarks/speed.py ../old . examples/toys-long.mp4 [--frames 16] [--side 256] [--mse 0.007 0.001]

Every measurement is a process of its own, on one thread, in seconds of CPU time, without the start of the program. The
ratio is old / new of the medians, so above 1 the new checkout is faster. `same` says whether both wrote the same bytes.
A machine that others use gives seconds that mean little; the ratio holds, since the checkouts take turns.

The last line is JSON: for each target the ratios, the medians in seconds, and whether the bytes are the same.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import NamedTuple

# Runs in the checkout that it measures. Arguments: clip, frames, side, mse.
_MEASURED = """
import hashlib, sys, time
from itertools import islice
import elastictok, numpy as np, torch
from elastictok_cli.video import VideoReader
torch.set_num_threads(1)
clip, frames, side, mse = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
with VideoReader(clip, aux=False) as reader:
    taken = list(islice(reader, frames))
    times = [float(frame.pts * reader.info.time_base) for frame in taken]
pictures = np.stack([frame.rgb for frame in taken])
if side:
    top, left = (max(0, (size - side) // 2) for size in pictures.shape[1:3])
    pictures = pictures[:, top : top + side, left : left + side]
model = elastictok.load_model(device="cpu")
start = time.process_time()
video = elastictok.encode(pictures, model, mse, times=times)
encoded = time.process_time()
elastictok.decode(video, model)
decoded = time.process_time()
print(encoded - start, decoded - encoded, hashlib.sha256(video.to_bytes()).hexdigest())
"""


class Measured(NamedTuple):
    """One run of one checkout."""

    encode: float  # seconds of CPU time
    decode: float  # seconds of CPU time
    digest: str  # of the bytes written


def measure(checkout: Path, clip: Path, frames: int, side: int, mse: float) -> Measured:
    """One encode and one decode by a checkout, in a process of its own."""
    answer = subprocess.run(
        [sys.executable, "-c", _MEASURED, str(clip.resolve()), str(frames), str(side), str(mse)],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout.resolve()), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    return Measured(float(answer[-3]), float(answer[-2]), answer[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old", type=Path, help="a checkout")
    parser.add_argument("new", type=Path, help="a checkout")
    parser.add_argument("clip", type=Path)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--side", type=int, default=256, metavar="PIXELS", help="0: whole frames")
    parser.add_argument("--mse", type=float, nargs="+", default=[0.007, 0.001])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()

    result = {}
    for mse in options.mse:
        runs: dict[Path, list[Measured]] = {options.old: [], options.new: []}
        for _ in range(options.rounds):
            for checkout, measured in runs.items():
                measured.append(measure(checkout, options.clip, options.frames, options.side, mse))
        old, new = runs.values()
        found: dict[str, float | bool] = {"same": len({run.digest for run in (*old, *new)}) == 1}
        for number, name in enumerate(("encode", "decode")):
            before, after = (median(float(run[number]) for run in each) for each in (old, new))
            found |= {name: before / after, f"{name}_old_s": before, f"{name}_new_s": after}
        print(
            f"{options.clip.name}, {mse}: encode {found['encode']:.2f}, decode {found['decode']:.2f} times as fast, "
            f"{'the same bytes' if found['same'] else 'OTHER BYTES'}",
            flush=True,
        )
        result[str(mse)] = found
    print(
        json.dumps({"clip": options.clip.name, "frames": options.frames, "side": options.side, "mse": result})
    )


if __name__ == "__main__":
    main()

"""How much faster one checkout encodes and decodes than another: both in one run, by turns.

    python benchmarks/speed.py ../old . examples/toys-long.mp4 [--frames 16] [--side 256] [--mse 0.007 0.001]

Every measurement is a process of its own, without the start of the program: on one thread in seconds of CPU time, on
more (`--threads`) in seconds that pass. The ratio is old / new of the medians, so above 1 the new checkout is faster.
A machine that others use gives seconds that mean little; ratios of CPU time hold, since the checkouts take turns.

The last line is JSON: for each target the ratios, the medians in seconds, tokens and bytes new / old, and the peak
memory of each checkout in MB.
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

# Runs in the checkout that it measures. Arguments: clip, frames, side, mse, threads.
_MEASURED = """
import resource, sys, time
from itertools import islice
import elastictok, numpy as np, torch
from elastictok_cli.machine import reuse_memory
from elastictok_cli.video import VideoReader
clip, (frames, side), mse, threads = sys.argv[1], map(int, sys.argv[2:4]), float(sys.argv[4]), int(sys.argv[5])
torch.set_num_threads(threads)
reuse_memory()  # as the command does
clock = time.process_time if threads == 1 else time.perf_counter
with VideoReader(clip, aux=False) as reader:
    taken = list(islice(reader, frames))
    times = [float(frame.pts * reader.info.time_base) for frame in taken]
pictures = np.stack([frame.rgb for frame in taken])
if side:
    top, left = (max(0, (size - side) // 2) for size in pictures.shape[1:3])
    pictures = pictures[:, top : top + side, left : left + side]
model = elastictok.load_model(device="cpu")
start = clock()
video = elastictok.encode(pictures, model, mse, times=times)
encoded = clock()
elastictok.decode(video, model)
decoded = clock()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
print(encoded - start, decoded - encoded, video.token_count, len(video.to_bytes()), peak)
"""


class Measured(NamedTuple):
    """One run of one checkout."""

    encode: float  # seconds
    decode: float  # seconds
    tokens: float
    bytes: float
    peak: float  # MB


def measure(checkout: Path, clip: Path, frames: int, side: int, mse: float, threads: int) -> Measured:
    """One encode and one decode by a checkout, in a process of its own."""
    answer = subprocess.run(
        [sys.executable, "-c", _MEASURED, *map(str, (clip.resolve(), frames, side, mse, threads))],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout.resolve()), "OMP_NUM_THREADS": str(threads)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    return Measured(*map(float, answer[-5:]))


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
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()

    result: dict[str, object] = {}
    for mse in options.mse:
        runs: dict[Path, list[Measured]] = {options.old: [], options.new: []}
        for _ in range(options.rounds):
            for checkout, measured in runs.items():
                run = measure(checkout, options.clip, options.frames, options.side, mse, options.threads)
                measured.append(run)
        old, new = (Measured(*map(median, zip(*each, strict=True))) for each in runs.values())
        found = {
            "encode": old.encode / new.encode,
            "decode": old.decode / new.decode,
            "encode_s": [old.encode, new.encode],
            "decode_s": [old.decode, new.decode],
            "tokens": new.tokens / old.tokens,
            "bytes": new.bytes / old.bytes,
            "peak_mb": [old.peak, new.peak],
        }
        print(
            f"{options.clip.name}, {mse}: encode {found['encode']:.2f}, decode {found['decode']:.2f} times as fast, "
            f"tokens {found['tokens']:.4f}, bytes {found['bytes']:.4f}, peak {new.peak:.0f} MB ({old.peak:.0f})",
            flush=True,
        )
        result[str(mse)] = found
    print(
        json.dumps({"clip": options.clip.name, "frames": options.frames, "side": options.side, "mse": result})
    )


if __name__ == "__main__":
    main()

"""Is the promise kept? Encode, decode losslessly, and measure every block against the source, independently.

    python benchmarks/promise.py --data DIR [--targets 0.015 0.007 0.003] [--duration SECONDS]

Runs the command-line program as a user would and reads both videos with PyAV (rgb24). For every clip and target:
frame count, size and times must be the source's, and the error of every block not reported as missed must be
at or under the target. Exits with 1 if anything is broken.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from elastictok_cli.video.colour import tags_of, to_rgb

PROGRAM = [sys.executable, "-m", "elastictok_cli"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--targets", type=float, nargs="+", default=[0.015, 0.007, 0.003])
    parser.add_argument("--duration", type=float, help="seconds of each clip (default: all of it)")
    options = parser.parse_args()
    broken = 0
    print("| clip | MSE | frames | blocks | missed | worst kept block | broken |\n" + "| --- " * 7 + "|")
    totals = dict.fromkeys(options.targets, (0, 0))
    for source in sorted(options.data.glob("*.mp4")):
        for target in options.targets:
            facts = check(source, target, options.duration)
            broken += len(facts["broken"])
            totals[target] = (totals[target][0] + facts["missed"], totals[target][1] + facts["blocks"])
            print(
                f"| {source.stem} | {target:g} | {facts['frames']} | {facts['blocks']} | {facts['missed']} "
                f"| {facts['worst']:.6f} | {'; '.join(facts['broken']) or 'nothing'} |",
                flush=True,
            )
    for target, (missed, blocks) in totals.items():
        print(f"\n{target:g}: {missed} of {blocks} blocks missed ({missed / blocks:.2%})")
    sys.exit(1 if broken else 0)


def check(source: Path, target: float, duration: float | None) -> dict:
    """One clip at one target."""
    with tempfile.TemporaryDirectory() as folder:
        coded, back = Path(folder) / "a.etk", Path(folder) / "a.mp4"
        cut = ["--duration", str(duration)] if duration else []
        done = run("encode", str(source), str(coded), "--mse", str(target), "--json", "--quiet", *cut)
        run("decode", str(coded), str(back), "--lossless", "--quiet")
        lines = [json.loads(line) for line in done.splitlines()]
        blocks = [line for line in lines if line["type"] == "block"]
        errors, broken = [], []
        ours, theirs = frames(back), frames(source)
        for number, ((time, rgb), (wanted_time, wanted)) in enumerate(zip(ours, theirs, strict=False)):
            if time != wanted_time:
                broken.append(f"frame {number} is at {time} s, not {wanted_time} s")
            if rgb.shape != wanted.shape:
                broken.append(f"frame {number} is {rgb.shape}, not {wanted.shape}")
                break
            errors.append(float(np.square(rgb.astype(np.float64) - wanted).mean()) / 127.5**2)
        expected = sum(block["frames"] for block in blocks)
        if len(errors) != expected or (duration is None and next(theirs, None) is not None):
            broken.append(f"{len(errors)} frames came back, {expected} were coded")
    worst = 0.0
    for block in blocks:
        mse = float(np.mean(errors[block["first_frame"] : block["first_frame"] + block["frames"]]))
        if not block["missed"]:
            worst = max(worst, mse)
            if mse > target:
                broken.append(f"block {block['index']} has {mse:.6f}")
    missed = sum(block["missed"] for block in blocks)
    return {"frames": len(errors), "blocks": len(blocks), "missed": missed, "worst": worst, "broken": broken}


def run(*arguments: str) -> str:
    return subprocess.run([*PROGRAM, *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


def frames(path: Path) -> Iterator[tuple[Fraction, np.ndarray]]:
    """Time in seconds, counted from the first frame, and pixels of each frame."""
    with av.open(str(path)) as container:
        first, tags = None, tags_of(container.streams.video[0])
        for frame in container.decode(video=0):
            first = frame.pts if first is None else first
            yield (frame.pts - first) * frame.time_base, to_rgb(frame, frame.width, frame.height, tags)


if __name__ == "__main__":
    main()

"""Is the promise kept? Encode, decode losslessly, and measure every block against the source, independently.

    python benchmarks/promise.py --data DIR [--promise video [--worst 4]] [--targets 0.015 0.007 0.003]
        [--duration SECONDS]

Runs the command-line program as a user would and reads both videos with PyAV (rgb24). For every clip and target:
frame count, size and times must be the source's, and the error of every block not reported as missed must be at or
under the limit of a block: the target, or with `--promise video` that times `--worst`. The program must say that the
promise was kept where no block is over its limit and, with `--promise video`, the mean error of all frames is at or
under the target, and nowhere else. Exits with 1 if anything of this is broken.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from elastictok_cli.video.colour import tags_of, to_rgb

PROGRAM = [sys.executable, "-m", "elastictok_cli"]


@dataclass
class Checked:
    """One clip at one target. kept: whether the measured errors keep the promise. worst: of the blocks not missed."""

    frames: int
    blocks: int
    missed: int
    mean: float
    worst: float
    kept: bool
    broken: list[str]


def main() -> None:
    options = parse()
    broken = 0
    head = ["clip", "MSE", "frames", "blocks", "missed", "mean", "worst kept block", "promise kept", "broken"]
    print(f"| {' | '.join(head)} |\n" + "| --- " * len(head) + "|")
    found: dict[float, list[Checked]] = {target: [] for target in options.targets}
    for source in sorted(options.data.glob("*.mp4")):
        for target in options.targets:
            facts = check(source, target, options)
            broken += len(facts.broken)
            found[target].append(facts)
            print(
                f"| {source.stem} | {target:g} | {facts.frames} | {facts.blocks} | {facts.missed} | {facts.mean:.6f} "
                f"| {facts.worst:.6f} | {'yes' if facts.kept else 'no'} | {'; '.join(facts.broken) or 'nothing'} |",
                flush=True,
            )
    for target, clips in found.items():
        missed, blocks = sum(c.missed for c in clips), sum(c.blocks for c in clips)
        kept = f"kept on {sum(c.kept for c in clips)} of {len(clips)} clips"
        print(f"\n{target:g}: {kept}, {missed} of {blocks} blocks missed ({missed / max(1, blocks):.2%})")
    sys.exit(1 if broken else 0)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--promise", choices=("block", "video"), default="block", help="as of encode")
    parser.add_argument("--worst", type=float, default=4.0, help="as of encode, with --promise video")
    parser.add_argument("--targets", type=float, nargs="+", default=[0.015, 0.007, 0.003])
    parser.add_argument("--duration", type=float, help="seconds of each clip (default: all of it)")
    return parser.parse_args()


def check(source: Path, target: float, options: argparse.Namespace) -> Checked:
    """One clip at one target."""
    with tempfile.TemporaryDirectory() as folder:
        coded, back = Path(folder) / "a.etk", Path(folder) / "a.mp4"
        more = ["--duration", str(options.duration)] if options.duration else []
        if options.promise == "video":
            more += ["--promise", "video", "--worst", str(options.worst)]
        done = run("encode", str(source), str(coded), "--mse", str(target), "--json", "--quiet", *more)
        run("decode", str(coded), str(back), "--lossless", "--quiet")
        blocks, summary = read_events(done)
        errors, broken = compare(frames(back), frames(source), whole=not options.duration)
    expected = sum(block["frames"] for block in blocks)
    if len(errors) != expected:
        broken.append(f"{len(errors)} frames came back, {expected} were coded")
    limit = target if options.promise == "block" else options.worst * target
    of_blocks = [
        float(np.mean(errors[block["first_frame"] : block["first_frame"] + block["frames"]]))
        for block in blocks
    ]
    for block, mse in zip(blocks, of_blocks, strict=True):
        if mse > limit and not block["missed"]:
            broken.append(f"block {block['index']} has {mse:.6f}")
    mean = float(np.mean(errors))
    kept = max(of_blocks) <= limit and (options.promise == "block" or mean <= target)
    if kept != summary["kept"]:
        said = "kept" if summary["kept"] else "broken"
        broken.append(f"the program says that the promise is {said}: mean {mean:.6f}")
    unmissed = [mse for block, mse in zip(blocks, of_blocks, strict=True) if not block["missed"]]
    missed = len(blocks) - len(unmissed)
    return Checked(len(errors), len(blocks), missed, mean, max(unmissed, default=0.0), kept, broken)


def read_events(lines: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The blocks of the finished file, and the summary. A video that is encoded again tells of its blocks again."""
    blocks: list[dict[str, Any]] = []
    for line in lines.splitlines():
        event = json.loads(line)
        if event["type"] == "block":
            blocks.append(event)
        elif event["type"] == "restarted":
            blocks = []
    return blocks, event


def compare(
    ours: Iterator[tuple[Fraction, np.ndarray]], theirs: Iterator[tuple[Fraction, np.ndarray]], *, whole: bool
) -> tuple[list[float], list[str]]:
    """MSE of each frame on pixels from -1 to 1, and what is broken. whole: theirs must end where ours do."""
    errors, broken = [], []
    for number, ((time, rgb), (wanted_time, wanted)) in enumerate(zip(ours, theirs, strict=False)):
        if time != wanted_time:
            broken.append(f"frame {number} is at {time} s, not {wanted_time} s")
        if rgb.shape != wanted.shape:
            broken.append(f"frame {number} is {rgb.shape}, not {wanted.shape}")
            break
        errors.append(float(np.square(rgb.astype(np.float64) - wanted).mean()) / 127.5**2)
    if whole and next(theirs, None) is not None:
        broken.append("frames of the source are missing")
    return errors, broken


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

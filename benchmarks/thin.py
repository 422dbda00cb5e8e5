"""How fast thinning is, and how good its choice of tokens: python benchmarks/thin.py [--quality] [--speed]

Speed: a second of the bundled clip is encoded, and a minute of 1080p put together from its cells; the command is timed
on that file. Quality: clips are encoded at MSE 0.003, thinned by several rules
to the same number of tokens, and decoded; beside them stands what the encoder itself needs for that many tokens.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from elastictok_cli.codec import decoder, rewrite, thinning
from elastictok_cli.codec import measurement as measure
from elastictok_cli.models import checkpoint
from formats import Block, EtkReader, EtkWriter, Header, pack_tokens, unpack_tokens

ROOT = Path(__file__).parents[1]
CLIP = ROOT / "examples" / "flower.mp4"
RULES = {  # CELL_POWER, FRAME_POWER
    "same share of every cell": (1.0, 0.0),
    "same cap for every cell": (0.0, 0.0),
    "share, by dependent frames": (1.0, 1.0),
    "square root, by dependent frames": (0.5, 1.0),
    "3/4 power, by dependent frames": (0.75, 1.0),
    "3/4 power, by their 5/4 power": (0.75, 1.25),
    "3/4 power, by their 3/2 power": (0.75, 1.5),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--quality", action="store_true")
    parser.add_argument("--clips", type=Path, nargs="*", default=[CLIP])
    parser.add_argument("--frames", type=int, default=120)
    parser.add_argument("--keep", type=float, nargs="*", default=[0.75, 0.5, 0.25])
    options = parser.parse_args()
    both = options.speed == options.quality
    with tempfile.TemporaryDirectory() as folder:
        if options.speed or both:
            speed(Path(folder))
        if options.quality or both:
            for clip in options.clips:
                quality(Path(folder), clip, options.frames, options.keep)


def speed(folder: Path) -> None:
    small, second, minute = folder / "small.etk", folder / "second.etk", folder / "minute.etk"
    elastictok("encode", CLIP, small, "--mse", "0.007", "--duration", "1", "--effort", "0", "--no-audio")
    mosaic(small, second)
    repeat(second, minute, 60)
    with EtkReader(minute) as reader:
        tokens = sum(info.tokens for info in reader.index or [])
    print(f"1920x1080, 1,440 frames, {tokens / 1e6:.1f} million tokens, {minute.stat().st_size / 1e6:.1f} MB")
    kbps = minute.stat().st_size * 8 / 60 / 1000 / 2
    for how in (["--tokens", "4"], ["--keep", "0.5"], ["--kbps", f"{kbps:.0f}"]):
        began, used = time.monotonic(), os.times()
        elastictok("thin", minute, folder / "out.etk", *how, "-y")
        spent = time.monotonic() - began
        cpu = sum(os.times()[2:4]) - sum(used[2:4])  # of the command alone, whatever else the machine does
        size = (folder / "out.etk").stat().st_size
        print(f"thin {' '.join(how)}: {spent:.1f} s, {cpu:.1f} s of CPU, {size / 1e6:.1f} MB", flush=True)


def mosaic(source: Path, target: Path) -> None:
    """A second of 1080p made of the cells of a small file."""
    with EtkReader(source) as reader:
        small, blocks = reader.header, [block for block in reader.blocks() if len(block.pts) > 1]
    length = max(1, *(int(block.keep.max()) for block in blocks))
    # (cells, length) of each block, and how many tokens each cell keeps
    grids = [unpack_tokens(b.tokens, b.keep, length).reshape(length, -1).T for b in blocks]
    keeps = [block.keep.ravel() for block in blocks]
    rows, columns = 68, 120
    header = replace(small, width=1920, height=1080, grid=(rows, columns), time_base=(1, 24), aux=None)
    rng = np.random.default_rng(0)
    made = []
    for n in range(6):
        # Cells of all blocks at random: a picture made of equal tiles would be squeezed to nothing.
        which = rng.integers(0, len(blocks), rows * columns)
        cell = rng.integers(0, len(keeps[0]), rows * columns)
        pairs = list(zip(which, cell, strict=True))
        keep = np.array([keeps[w][c] for w, c in pairs], np.uint16).reshape(rows, columns)
        grid = np.array([grids[w][c] for w, c in pairs]).T.reshape(length, rows, columns)
        pts = tuple(range(4 * n, 4 * n + 4))
        made.append(Block(pts, (1,) * 4, keep, pack_tokens(grid, keep), (0.007,) * 4))
    with EtkWriter(target, header) as writer:
        writer.write_segment(made)


def repeat(source: Path, target: Path, times: int) -> None:
    """The segments of a file again and again, one after the other in time."""
    with EtkReader(source) as reader, EtkWriter(target, reader.header) as writer:
        segments = [segment.blocks for segment in reader.segments()]
        last = segments[-1][-1]
        length = last.pts[-1] + last.durations[-1] - segments[0][0].pts[0]
        for number in range(times):
            for blocks in segments:
                later = [replace(b, pts=tuple(t + number * length for t in b.pts)) for b in blocks]
                writer.write_segment(later)


def quality(folder: Path, clip: Path, frames: int, keeps: list[float]) -> None:
    full = folder / "full.etk"
    size = ["--max-height", "256", "--duration", str(frames / 30), "-y"]
    elastictok("encode", clip, full, "--mse", "0.003", *size)
    loaded = checkpoint.load()
    with EtkReader(full) as reader:
        header = reader.header
        segments = [segment.blocks for segment in reader.segments()]
    total = count(segments)
    print(f"\n{clip.stem}: {total} tokens, MSE {error(segments, header, clip, loaded):.5f}\n")
    print(
        "| rule | "
        + " | ".join(f"MSE at {keep:.0%}" for keep in keeps)
        + " |\n| --- |"
        + " --- |" * len(keeps)
    )
    chosen = thinning.CELL_POWER, thinning.FRAME_POWER
    for name, powers in RULES.items():
        thinning.CELL_POWER, thinning.FRAME_POWER = powers
        errors = [error(thin(segments, header, keep), header, clip, loaded) for keep in keeps]
        mark = " (ours)" if powers == chosen else ""
        print(f"| {name}{mark} | " + " | ".join(f"{e:.5f}" for e in errors) + " |", flush=True)
    thinning.CELL_POWER, thinning.FRAME_POWER = chosen
    points = []
    for target in (0.004, 0.006, 0.01, 0.02):
        elastictok("encode", clip, folder / "again.etk", "--mse", str(target), *size)
        with EtkReader(folder / "again.etk") as reader:
            known = [mse for block in reader.blocks(tokens=False) for mse in block.frame_mse]
            points.append((sum(i.tokens for i in reader.index or []), float(np.mean(known))))
    again = [np.interp(keep * total, *zip(*sorted(points), strict=True)) for keep in keeps]
    print("| encoding again | " + " | ".join(f"{e:.5f}" for e in again) + " |", flush=True)


def thin(segments: list[list[Block]], header: Header, keep: float) -> list[list[Block]]:
    found = rewrite.Survey(tokens=count(segments))
    order = thinning.Levels(header)
    for blocks in segments:
        found.by_level += order.count(blocks)
    rule = rewrite.by_share(found, keep)
    return [thinning.thinned(header, blocks, rule) for blocks in segments]


def count(segments: list[list[Block]]) -> int:
    return sum(block.token_count for blocks in segments for block in blocks)


def error(segments: list[list[Block]], header: Header, clip: Path, loaded: Any) -> float:
    def errors() -> Iterator[float]:
        with measure.Source(clip, header) as source:
            for blocks in segments:
                shown = decoder.pictures(blocks, header, loaded, torch.device("cpu"))
                for block, pixels in zip(blocks, shown, strict=True):
                    yield from source.errors(block, pixels)

    return float(np.mean(list(errors())))


def elastictok(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "elastictok_cli", *map(str, arguments), "--quiet"], check=True)


if __name__ == "__main__":
    main()

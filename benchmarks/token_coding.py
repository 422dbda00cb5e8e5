"""How fast segments are written and read: tokens per second of CPU time, and the same of another checkout.

    python benchmarks/token_coding.py                           # a synthetic segment of 0.9 million tokens
    python benchmarks/token_coding.py clip.etk other.etk        # the segments of files that are there already
    python benchmarks/token_coding.py clip.etk --old ../old     # paired with another checkout

Only `formats` is measured, never a model: what `EtkWriter.write_segment` takes for blocks in memory, and what
`EtkReader.segments` takes to give them again. Every measurement is a process of its own, and with `--old` the checkouts
take turns. Ratios are old / new of the medians of CPU time, so above 1 this checkout is faster; "same bytes" says
whether both write the same segments.

The last line is JSON: for each input its tokens and bytes, and for each checkout the medians in seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np

HERE = Path(__file__).resolve().parents[1]
SYNTHETIC = "synthetic"

# Runs in the checkout that it measures. Arguments: an .etk file, how many of its segments (0: all).
_MEASURED = """
import hashlib, io, sys, time
from itertools import islice
import formats
from formats import EtkReader, EtkWriter
data = open(sys.argv[1], "rb").read()
with EtkReader(io.BytesIO(data)) as reader:
    segments = list(islice(reader.segments(), int(sys.argv[2]) or None))
    header = reader.header
def write():
    target = io.BytesIO()
    with EtkWriter(target, header) as writer:
        head = writer.bytes_written
        for segment in segments:
            writer.write_segment(segment.blocks)
    return target, head
def read(source):
    source.seek(0)
    with EtkReader(source) as reader:
        for segment in reader.segments():
            pass
def timed(action, *arguments):
    start = time.process_time()
    return action(*arguments), time.process_time() - start
written, head = write()  # once before, so that nothing is loaded while the clock runs
read(written)
(written, head), write_s = timed(write)
_, read_s = timed(read, written)
tokens = sum(block.token_count for segment in segments for block in segment.blocks)
payload = written.getvalue()[head:]
print(write_s, read_s, tokens, len(payload), hashlib.sha256(payload).hexdigest())
"""


class Measured(NamedTuple):
    """One run of one checkout."""

    write: float  # seconds of CPU time
    read: float
    tokens: int
    bytes: int
    sha256: str


def measure(checkout: Path, file: Path, segments: int) -> Measured:
    """Read a file's segments and write them again, in a process of its own."""
    write, read, tokens, size, digest = subprocess.run(
        [sys.executable, "-c", _MEASURED, str(file.resolve()), str(segments)],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout.resolve()), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    return Measured(float(write), float(read), int(tokens), int(size), digest)


def write_synthetic(
    path: Path, blocks: int = 16, grid: tuple[int, int] = (68, 120), length: float = 8.2
) -> None:
    """A file of one segment, like natural video of 1920 x 1080: smooth keep maps, moving areas, FSQ codes near zero.

    length: tokens that a cell of a block keeps on average.
    """
    from formats import Block, ControlRange, EtkWriter, Header, ModelRef

    levels, vectors, radix = (8, 8, 8, 5, 5, 5), 1521, 39
    model = ModelRef("synthetic", bytes(32), levels, vocabulary=65521, tokens_per_cell=256, block_frames=8)
    ranges = (ControlRange("motion_vector", 64000, vectors),)
    height, width = (16 * side for side in grid)
    header = Header(model, width, height, grid, time_base=(1, 60), control_tokens=ranges)
    rng = np.random.default_rng(15)
    weights = np.cumprod([1, *levels[:-1]])
    made = []
    for number in range(blocks):
        share = 4 if number == 0 else 0.94  # of tokens; keyframe blocks have more
        keep = np.minimum(np.floor(share * length / 2 * np.exp(_smooth(rng, grid))), 256).astype(np.uint16)
        # index of each token in its sequence: the later ones vary less
        index = np.repeat(np.arange(256), (keep.ravel() > np.arange(256)[:, None]).sum(1))
        spread = np.where(index < 2, 0.35, 0.14) * (1.3 if number == 0 else 1)
        digits = [np.clip(np.rint(rng.normal(n // 2, n * spread)), 0, n - 1) for n in levels]
        tokens = sum(d.astype(np.int64) * w for d, w in zip(digits, weights, strict=True))
        moves = (_smooth(rng, grid)[keep > 0] > 0.5) & (
            number > 0
        )  # first tokens of a block are in order of cells
        row, column = (np.clip(radix // 2 + np.rint(4 * _smooth(rng, grid)), 0, radix - 1) for _ in range(2))
        tokens[: len(moves)][moves] = (64000 + radix * row + column)[keep > 0][moves]
        pts = tuple(range(8 * number, 8 * number + 8))
        made.append(Block(pts, (1,) * 8, keep, tokens.astype(np.uint16), (0.003,) * 8))
    with EtkWriter(path, header) as writer:
        writer.write_segment(made)


def _smooth(rng: np.random.Generator, grid: tuple[int, int]) -> np.ndarray:
    """Numbers (rows, columns) of standard deviation 1 that change slowly from cell to cell."""
    field = rng.normal(size=grid)
    for axis in (0, 1):
        for _ in range(3):
            field = sum(np.roll(field, shift, axis) for shift in range(-2, 3))
    return (field - field.mean()) / field.std()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", type=Path, nargs="*", help=".etk files; none: a synthetic segment")
    parser.add_argument("--old", type=Path, help="a checkout to compare with")
    parser.add_argument("--segments", type=int, default=0, help="of each file; 0: all")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    checkouts = {"new": HERE, **({"old": options.old} if options.old else {})}
    result = {}
    with TemporaryDirectory() as folder:
        files = options.files
        if not files:
            files = [Path(folder) / f"{SYNTHETIC}.etk"]
            write_synthetic(files[0])
        for file in files:
            result[file.stem] = compare(checkouts, file, options.segments, options.rounds)
    print(json.dumps(result))


def compare(checkouts: dict[str, Path], file: Path, segments: int, rounds: int) -> dict[str, object]:
    """Measure all checkouts by turns and print what one file takes."""
    runs: dict[str, list[Measured]] = {name: [] for name in checkouts}
    for _ in range(rounds):
        for name, checkout in checkouts.items():
            runs[name].append(measure(checkout, file, segments))
    one = runs["new"][0]
    found: dict[str, object] = {"tokens": one.tokens, "bytes": one.bytes}
    line = f"{file.stem}, {one.tokens} tokens:"
    for verb in ("write", "read"):
        seconds = {name: median(getattr(run, verb) for run in each) for name, each in runs.items()}
        found[f"{verb}_s"] = seconds
        line += f" {verb} {seconds['new']:.3f} s ({one.tokens / seconds['new']:,.0f} tokens/s"
        line += f", {seconds['old'] / seconds['new']:.2f} times as fast)," if "old" in seconds else "),"
    if "old" in runs:
        found["same_bytes"] = one.sha256 == runs["old"][0].sha256
        line += " same bytes" if found["same_bytes"] else f" OTHER BYTES ({runs['old'][0].bytes})"
    print(f"{line} {one.bytes} bytes", flush=True)
    return found


if __name__ == "__main__":
    main()

"""How much faster several jobs encode a file of several scenes than one: paired runs, one after the other.

    python benchmarks/jobs.py [--clip examples/cuts.mp4] [--jobs 2] [--repeat 3] [--keyframe-interval 5]

Each round encodes with one job on all cores, with one job on one thread, and with so many jobs of one thread each. All
must write the same bytes. The table has the seconds of each round, wall-clock with the start of the program, and the
ratios of the medians. What else the machine does in the meantime counts: on a busy one the ratios say little.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clip", type=Path, default=Path(__file__).parent.parent / "examples" / "cuts.mp4")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--mse", type=float, default=0.007)
    parser.add_argument("--keyframe-interval", type=float, default=5.0)
    options = parser.parse_args()
    ways = {
        "1 job, all cores": ["--jobs", "1"],
        "1 job, 1 thread": ["--jobs", "1", "--threads", "1"],
        f"{options.jobs} jobs": ["--jobs", str(options.jobs)],
    }
    same = ["--mse", str(options.mse), "--keyframe-interval", str(options.keyframe_interval)]
    taken: dict[str, list[float]] = {name: [] for name in ways}
    files = set()
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.repeat):
            for name, words in ways.items():
                coded = Path(folder) / "coded.etk"
                taken[name].append(seconds(options.clip, coded, [*same, *words]))
                files.add(coded.read_bytes())
    assert len(files) == 1, "the files differ"
    medians = {name: statistics.median(rounds) for name, rounds in taken.items()}
    print(f"Load of the machine (1 minute): {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(f"| | seconds | {options.jobs} jobs are faster by |\n| --- | --- | --- |")
    for name, rounds in taken.items():
        ratio = medians[name] / medians[f"{options.jobs} jobs"]
        print(f"| {name} | {', '.join(f'{s:.1f}' for s in rounds)} | {ratio:.2f} |")


def seconds(clip: Path, coded: Path, words: list[str]) -> float:
    """How long one encode takes."""
    command = [sys.executable, "-m", "elastictok_cli", "encode", str(clip), str(coded), "--quiet", "-y"]
    began = time.perf_counter()
    subprocess.run([*command, *words], check=True)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()

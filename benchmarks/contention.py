"""What other programs that want the cores cost, for several lengths of OpenMP's waiting (GOMP_SPINCOUNT, Linux).

    python benchmarks/contention.py [--clip examples/flower.mp4] [--spins 300000 30000 1000 0]

One process keeps one core busy; an encode on all cores runs beside it. Each row's times are relative to the best of the
same run without the busy process.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_BUSY = "while True: pass"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clip", type=Path, default=Path(__file__).parent.parent / "examples" / "flower.mp4")
    parser.add_argument("--spins", type=int, nargs="+", default=[300_000, 30_000, 1000, 0])
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    alone = {spins: seconds(options.clip, spins, options.repeat) for spins in options.spins}
    busy = subprocess.Popen([sys.executable, "-c", _BUSY])
    try:
        beside = {spins: seconds(options.clip, spins, options.repeat) for spins in options.spins}
    finally:
        busy.kill()
    best = min(alone.values())
    print("| GOMP_SPINCOUNT | alone | one core busy |\n| --- | --- | --- |")
    for spins in options.spins:
        print(f"| {spins:,} | {alone[spins] / best:.2f} | {beside[spins] / best:.2f} |", flush=True)


def seconds(clip: Path, spins: int, repeat: int) -> float:
    """The shortest of some encodes, wall-clock."""
    taken = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(repeat):
            coded = Path(folder) / f"{number}.etk"
            command = [sys.executable, "-m", "elastictok_cli", "encode", str(clip), str(coded), "--quiet"]
            began = time.perf_counter()
            subprocess.run(command, check=True, env={**os.environ, "GOMP_SPINCOUNT": str(spins)})
            taken.append(time.perf_counter() - began)
    return min(taken)


if __name__ == "__main__":
    main()

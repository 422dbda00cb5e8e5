"""`python -m elastictok_cli`, and the console script: an interrupt while modules load is one line too."""

import os
import sys

# How long threads of torch on the CPU (GNU OpenMP) wait for work before they sleep. Its own 300,000 rounds make the
# program several times slower where other programs want the cores (benchmarks/contention.py). It takes 1,000 itself
# where there are more threads than cores.
_SPINS = "1000"


def run() -> None:
    """Load the program and run it."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)  # read when torch is loaded
    try:
        from elastictok_cli.machine import reuse_memory, use_large_pages

        reuse_memory()
        use_large_pages()
        from elastictok_cli.main import run
    except KeyboardInterrupt:
        sys.stderr.write("elastictok: interrupted\n")
        sys.exit(130)
    run()


if __name__ == "__main__":
    run()

"""`python -m elastictok_cli`, and the console script: an interrupt while modules load is one line too."""

import ctypes
import os
import sys

# How long threads of torch on the CPU (GNU OpenMP) wait for work before they sleep. Its own 300,000 rounds make the
# program several times slower where other programs want the cores (benchmarks/contention.py). It takes 1,000 itself
# where there are more threads than cores.
_SPINS = "1000"

# Arrays below the first size are taken from memory that was used before, not mapped anew each time; up to the second
# is kept for that (mallopt(3) of GNU's C library).
_MAPPED, _KEPT = 32 << 20, 256 << 20
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def _reuse_memory() -> None:
    if (
        sys.platform != "linux"
        or "GLIBC_TUNABLES" in os.environ
        or any(k.startswith("MALLOC_") for k in os.environ)
    ):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return  # another C library
    mallopt(_M_MMAP_THRESHOLD, _MAPPED)
    mallopt(_M_TRIM_THRESHOLD, _KEPT)


def run() -> None:
    """Load the program and run it."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)  # read when torch is loaded
    _reuse_memory()
    try:
        from elastictok_cli.main import run
    except KeyboardInterrupt:
        sys.stderr.write("elastictok: interrupted\n")
        sys.exit(130)
    run()


if __name__ == "__main__":
    run()

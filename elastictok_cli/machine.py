"""What the machine offers a process: memory that is free, and how the C library reuses it."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress
from pathlib import Path

# Arrays below the first size are taken from memory that was used before, not mapped anew each time; up to the second
# is kept for that (mallopt(3) of GNU's C library).
_MAPPED, _KEPT = 32 << 20, 256 << 20
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3

_CGROUPS = Path("/sys/fs/cgroup")


def reuse_memory() -> None:
    """Make the C library keep freed memory for the next arrays, unless the environment says how it should do."""
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


def use_large_pages() -> None:
    """Have torch ask for pages of 2 MB for tensors of at least that size, unless the environment says otherwise.

    A block of 720p is 44 MB, and an encode makes and frees hundreds of such tensors: each costs a fault a page. Of
    effect only before torch makes its first tensor, and on Linux, where the system allows large pages.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def free_memory() -> int | None:
    """Bytes that this process and its children can still take without swapping; None where the system does not say.

    On Linux the least of what the machine and its control group have left; elsewhere half of the machine's memory.
    """
    found = [free for free in (_free_of_machine(), _free_of_group()) if free is not None]
    if found:
        return min(found)
    with suppress(AttributeError, ValueError, OSError):  # no such call, no such name
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    return None


def _free_of_machine() -> int | None:
    with suppress(OSError, ValueError, StopIteration, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]) << 10
    return None


def _free_of_group() -> int | None:
    """Of version 2 of control groups, as containers see their own. Caches of files count as free."""
    with suppress(OSError, ValueError, StopIteration, IndexError):
        limit = int((_CGROUPS / "memory.max").read_text())  # "max", no number, where there is none
        used = int((_CGROUPS / "memory.current").read_text())
        lines = (_CGROUPS / "memory.stat").read_text().splitlines()
        cached = int(next(line for line in lines if line.startswith("inactive_file ")).split()[1])
        return max(0, limit - used + cached)
    return None

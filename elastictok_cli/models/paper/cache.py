"""Where the KV caches of a large picture are kept between blocks. One tile's is small, those of forty fill a memory."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import tempfile
import weakref
from pathlib import Path

import torch

from elastictok_cli.models.paper.attention import KV, Cache
from elastictok_cli.models.paper.config import PaperConfig


class CacheStore:
    """Moves caches to slower memory, bit for bit, when those of all tiles would take more than half of the memory.

    From a GPU they go to the computer's memory; where that is too small as well, to a file in the folder for temporary
    files that is mapped into memory, so that the system decides what stays in memory.
    """

    def __init__(self, device: torch.device, room: int | None = None) -> None:
        """`room`: bytes that caches may take, in the device's memory and in the computer's. None: half of it."""
        host_bytes = _memory() // 2 if room is None else room
        device_bytes = (
            torch.cuda.mem_get_info(device)[1] // 2 if device.type == "cuda" and room is None else host_bytes
        )
        self.host_bytes, self.device_bytes = host_bytes, device_bytes
        self._folder: Path | None = None
        self._numbers = itertools.count()

    def put(self, cache: Cache, needed: int) -> Cache:
        """The same cache where there is room for `needed` bytes, which is what all tiles take."""
        if needed <= self.device_bytes:
            return cache
        if needed <= self.host_bytes and cache[0].k.device.type != "cpu":
            return tuple(KV(kv.k.cpu(), kv.v.cpu()) for kv in cache)
        sizes = [x.numel() for kv in cache for x in kv]
        pieces = iter(torch.split(self._file(sum(sizes), cache[0].k.dtype), sizes))
        return tuple(KV(*(next(pieces).view(x.shape).copy_(x) for x in kv)) for kv in cache)

    def _file(self, size: int, dtype: torch.dtype) -> torch.Tensor:
        """Memory (size,) that a file stands behind. The file has no name, so that it ends with the tensor."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="elastictok-"))
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        path = self._folder / str(next(self._numbers))
        with path.open("wb") as file:
            if hasattr(os, "posix_fallocate"):  # a full disk shall be an error here, not a crash later
                os.posix_fallocate(file.fileno(), 0, size * dtype.itemsize)
            else:
                file.truncate(size * dtype.itemsize)
        mapped = torch.from_file(str(path), shared=True, size=size, dtype=dtype)
        with contextlib.suppress(OSError):  # Windows: it goes with the folder
            path.unlink()
        return mapped


def cache_bytes(c: PaperConfig, *, encoding: bool) -> int:
    """What the caches of one block of one tile take: keys and values (N, C) float32 of each layer."""
    layers = c.decoder_layers + (c.encoder_layers if encoding else 0)
    return 2 * layers * c.block_tokens * c.hidden * 4


def _memory() -> int:
    """Bytes of memory the computer has; 8 GiB where it does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 8 << 30

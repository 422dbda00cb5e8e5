"""How the memory of tensors is taken from the system.

A block of 720p is 44 MB, and an encode makes and frees hundreds of tensors of that size. Each gets new memory, in
zeroed pages of 4 KB, and each page costs a fault.
"""

from __future__ import annotations

import os


def use_large_pages() -> None:
    """Have torch ask for pages of 2 MB for tensors of at least that size, unless the environment says otherwise.

    Of effect only before torch makes its first tensor, and on Linux, where the system allows large pages.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

"""Keep the C library from giving freed memory back to the kernel between the layers of a network.

Every layer frees some megabytes and allocates some. With glibc's defaults large blocks go back to
the kernel at once, and the next layer waits while the kernel clears new pages one by one.
"""

from __future__ import annotations

from functools import cache

import torch

LARGEST_BLOCK = 32 << 20
"""glibc's bound for blocks that it may keep (DEFAULT_MMAP_THRESHOLD_MAX of 64-bit systems)."""
FOR_HEADERS = 1 << 19


@cache
def keep_freed_memory() -> None:
    """Make glibc keep up to 64 MB of freed memory in this process, for the next layers.

    glibc adapts: once a block of up to 32 MB is freed, it keeps blocks of that size, and twice as
    much in all. The block is not written to, so it takes no memory. Other C libraries are not
    affected, nor is a process whose limits are set by `MALLOC_MMAP_THRESHOLD_` and the like.
    """
    torch.empty(LARGEST_BLOCK - FOR_HEADERS, dtype=torch.uint8, device="cpu")

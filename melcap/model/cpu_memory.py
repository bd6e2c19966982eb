"""Keep the C library from giving freed memory back to the kernel between the layers of a network.

Every layer frees some megabytes and allocates some. With glibc's defaults large blocks go back to
the kernel at once, and the next layer waits while the kernel clears new pages one by one.
"""

from __future__ import annotations

from functools import cache

import torch

BLOCK = 8 << 20
"""The bytes of a block that is kept: a little more than the largest result of a layer, 5.8 MB for a
chunk of lite. Each thread keeps twice as much, so a larger bound would cost memory."""


@cache
def keep_freed_memory() -> None:
    """Make glibc keep up to 16 MB of freed memory in each thread, for the next layers.

    glibc adapts: once a block of up to 32 MB is freed, it keeps blocks of that size, and twice as
    much in all. The block is not written to, so it takes no memory. Other C libraries are not
    affected, nor is a process whose limits are set by `MALLOC_MMAP_THRESHOLD_` and the like.
    """
    torch.empty(BLOCK, dtype=torch.uint8, device="cpu")

"""What a worker does with memory it has freed: it keeps some of it, for the arrays of the next batch are as large as those of the last."""

from __future__ import annotations

import ctypes
from functools import lru_cache

import pyarrow as pa

KEPT_BYTES = 256 * 1024 * 1024
"""Free memory at the heap's end that stays with the process."""
LARGE_BYTES = 32 * 1024 * 1024
"""From this size on (glibc takes no more) an array has pages of its own, which go back when it is freed."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's malloc.h


@lru_cache(maxsize=1)
def keep_freed_memory() -> bool:
    """Let this process keep what it frees, where its C library can be told so (glibc); whether it could.

    Left alone, glibc and Arrow's own allocator hand megabytes back after every batch, and the kernel clears every page of them again when
    they are asked for: an eighth of the processor time of a `cip` build. Arrow takes its memory from the C library from then on.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    done = mallopt(_TRIM_THRESHOLD, KEPT_BYTES) and mallopt(_MMAP_THRESHOLD, LARGE_BYTES)
    if done:
        pa.set_memory_pool(pa.system_memory_pool())
    return bool(done)

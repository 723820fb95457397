"""One setting of glibc's allocator that decides what an idle TLS connection costs."""

from __future__ import annotations

import ctypes
from typing import Final

__all__ = ["return_large_blocks"]

# mallopt(3). uvloop gives every TLS connection a buffer of 256 KiB of which an idle one touches a
# few pages. As a mapping of its own the rest costs nothing; but glibc raises its threshold for
# mappings when a large block is freed, and the next buffers come from the heap, used pages and all:
# 45 KB per idle connection instead of 26. A fixed threshold is never raised.
_M_MMAP_THRESHOLD: Final = -3
_THRESHOLD_BYTES: Final = 256 * 1024


def return_large_blocks() -> bool:
    """Keep blocks of 256 KiB and more out of the heap; False where there is no mallopt (musl)."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _THRESHOLD_BYTES))

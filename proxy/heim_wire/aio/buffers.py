"""What connections read into: one buffer per event loop, shared by all.

A read is taken at once, so one buffer is enough for ten thousand connections. Reading into fresh
bytes instead makes 256 KiB of them for every read, and the kernel fault in every page again: twice
the CPU per byte (performance.md, 3.3).
"""

from __future__ import annotations

import asyncio
from weakref import WeakKeyDictionary

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = ["READ_BYTES", "read_buffer"]

# Four TLS records. Copies of it come from the allocator's heap, and stay in the second-level cache.
READ_BYTES: Final = 64 * 1024

# By loop and not by process: two loops are two threads.
_BUFFERS: WeakKeyDictionary[asyncio.AbstractEventLoop, memoryview] = WeakKeyDictionary()


def read_buffer() -> memoryview:
    """The buffer of the running loop; whoever reads into it takes the bytes before returning."""
    loop = asyncio.get_running_loop()
    buffer = _BUFFERS.get(loop)
    if buffer is None:
        buffer = _BUFFERS[loop] = memoryview(bytearray(READ_BYTES))
    return buffer

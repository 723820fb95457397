from __future__ import annotations

import platform
import subprocess
import sys

import pytest


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_large_blocks_stay_out_of_the_heap_even_after_one_was_freed() -> None:
    """In a process of its own: the setting cannot be taken back."""
    script = """
from heim_runtime.allocator import return_large_blocks
assert return_large_blocks()
def heap():
    for line in open("/proc/self/maps"):
        if "[heap]" in line:
            low, high = line.split()[0].split("-")
            return int(high, 16) - int(low, 16)
del [bytearray(1 << 20)][0:]          # freeing a mapping is what raises glibc's own threshold
before = heap()
held = [bytearray(300 * 1024) for _ in range(50)]
print(heap() - before)
"""
    grown = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=20
    ).stdout
    assert int(grown) < 2 * 1024 * 1024

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heim_wire.mask import mask, use_fast_mask

KEYS = st.binary(min_size=4, max_size=4)


def byte_by_byte(data: bytes, key: bytes, offset: int) -> bytes:
    """RFC 6455, 5.3, word for word."""
    return bytes(byte ^ key[(offset + index) % 4] for index, byte in enumerate(data))


def fresh(code: str) -> str:
    """What `code` prints in an interpreter that has masked nothing yet."""
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    ).stdout.strip()


@given(st.binary(max_size=300), KEYS, st.integers(0, 1 << 62))
def test_it_is_the_masking_of_the_rfc(data: bytes, key: bytes, offset: int) -> None:
    assert mask(data, key, offset) == byte_by_byte(data, key, offset)


@given(st.binary(max_size=100), KEYS, st.integers(0, 100))
def test_a_payload_may_come_in_two_pieces(data: bytes, key: bytes, cut: int) -> None:
    first, second = memoryview(data)[:cut], memoryview(data)[cut:]
    assert mask(first, key) + mask(second, key, len(first)) == mask(data, key)


@pytest.mark.parametrize("size", [0, 1, 3, 4, 4095, 4096, 4097, 8192, 65537])
@pytest.mark.parametrize("offset", range(4))
def test_both_ways_of_masking_agree(size: int, offset: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    assert use_fast_mask()
    fast = mask(data[:size], b"\x01\x80\xff\x5a", offset)
    slow = fresh(
        "from heim_wire.mask import mask\n"
        f"print(mask((bytes(range(256)) * {size // 256 + 1})[:{size}],"
        f" {bytes((1, 0x80, 0xFF, 0x5A))!r}, {offset}).hex())"
    )
    assert slow == fast.hex()


def test_the_helper_comes_alone() -> None:
    """`import websockets.speedups` would bring 90 modules along (33 ms)."""
    told = fresh(
        "import sys, heim_wire.mask as m\n"
        "before = set(sys.modules)\n"
        "assert m.use_fast_mask()\n"
        "print(sorted(set(sys.modules) - before))"
    )
    assert set(eval(told)) <= {
        "importlib", "importlib._bootstrap", "importlib._bootstrap_external", "importlib.machinery",
        "warnings", "_warnings", "websockets.speedups",
    }  # fmt: skip


def test_a_client_looks_for_the_helper_after_a_megabyte() -> None:
    told = fresh(
        "import sys, heim_wire.mask as m\n"
        "half = bytes(m.SLOW_BYTES // 2)\n"
        "for _ in range(2): m.mask(half, b'abcd')\n"
        "early = 'importlib.machinery' in sys.modules or m._fast is not None\n"
        "m.mask(b'x', b'abcd')\n"
        "print(early, m._fast is not None)"
    )
    assert told == "False True"


def test_the_library_itself_still_imports_afterwards() -> None:
    told = fresh(
        "import heim_wire.mask as m\n"
        "m.use_fast_mask()\n"
        "from websockets.frames import apply_mask\n"
        "from websockets.speedups import apply_mask as helper\n"
        "print(apply_mask is helper)"
    )
    assert told == "True"


HIDDEN = """
import sys
sys.path[:] = [path for path in sys.path if "site-packages" not in path]
sys.path.append({wire!r})
import heim_wire.mask as m
data = bytes(range(256)) * 8192
print(m.use_fast_mask(), m.mask(m.mask(data, b"abcd"), b"abcd") == data)
"""


def test_without_the_library_it_is_slower_and_right() -> None:
    from heim_wire import mask as module

    wire = module.__file__.rpartition("/heim_wire/")[0]
    assert fresh(HIDDEN.format(wire=wire)) == "False True"

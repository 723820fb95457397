"""Mask WebSocket payloads (RFC 6455, 5.3), quickly where a C helper is installed.

Masking is XOR with a repeated four byte key; what it protects from is a proxy on the way that takes
our bytes for a request (RFC 6455, 10.3). One big integer XOR does 64 KiB in a hundred microseconds,
the C helper of the `websockets` library in one. The helper is loaded late: a server asks for it at
start-up, and a client that never moves a megabyte never pays for finding it.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Final

    Mask = Callable[[bytes | memoryview, bytes], bytes]

__all__ = ["SLOW_BYTES", "mask", "use_fast_mask"]

# What is masked in pure Python before the helper is looked for: by then finding it (1 ms) costs
# less than going on without.
SLOW_BYTES: Final = 1024 * 1024
_BLOCK: Final = 4096
_HELPER: Final = "websockets.speedups"

_fast: Mask | None = None
_patience = SLOW_BYTES


def mask(data: bytes | memoryview, key: bytes, offset: int = 0) -> bytes:
    """`data` masked, or unmasked, with the four byte `key`.

    Args:
        data: Any number of bytes.
        key: Four bytes.
        offset: Number of the frame's payload bytes that came before `data`.
    """
    global _patience
    turned = offset & 3
    if turned:
        key = key[turned:] + key[:turned]
    if _fast is not None:
        return _fast(data, key)
    size = len(data)
    _patience -= size
    if _patience < 0:
        use_fast_mask()
        # Asked once: where it is not installed it will not be by the next frame.
        _patience = 1 << 62
    return _xor(data, key)


def use_fast_mask() -> bool:
    """Mask with the C helper from now on, if it is installed; returns whether it is used."""
    global _fast
    if _fast is None:
        helper = _load(_HELPER)
        found: Mask | None = getattr(helper, "apply_mask", None)
        # A helper that answers differently would corrupt every byte: believe it when it has shown.
        if found is not None and _agrees(found):
            _fast = found
    return _fast is not None


def _agrees(helper: Mask) -> bool:
    sample, key = bytes(range(67)), b"\x01\x80\xff\x5a"
    return helper(memoryview(sample)[1:], key) == _xor(sample[1:], key)


def _load(name: str) -> ModuleType | None:
    """The extension module called `name`, without running the package around it.

    `import websockets.speedups` runs `websockets/__init__`, which asks importlib.metadata for its
    own version: 33 ms and 90 modules, `socket` and `email` among them, for one C function. The
    extension itself needs none of that.
    """
    from importlib.machinery import ExtensionFileLoader, PathFinder

    package, _, _ = name.rpartition(".")
    around = PathFinder.find_spec(package)
    if around is None or around.submodule_search_locations is None:
        return None
    spec = PathFinder.find_spec(name, around.submodule_search_locations)
    if spec is None or not isinstance(spec.loader, ExtensionFileLoader):
        return None
    try:
        module = spec.loader.create_module(spec)
        spec.loader.exec_module(module)
    except ImportError:
        # Made for another interpreter: the slow way works on all of them.
        return None
    return module


def _xor(data: bytes | memoryview, key: bytes) -> bytes:
    """XOR by big integers, in blocks that stay in the cache: twice as fast as in one."""
    size = len(data)
    whole = size - size % _BLOCK
    if not whole:
        return _xor_block(data, key)
    wide = int.from_bytes(key * (_BLOCK // 4), "little")
    blocks = [
        (int.from_bytes(data[at : at + _BLOCK], "little") ^ wide).to_bytes(_BLOCK, "little")
        for at in range(0, whole, _BLOCK)
    ]
    blocks.append(_xor_block(data[whole:], key))
    return b"".join(blocks)


def _xor_block(data: bytes | memoryview, key: bytes) -> bytes:
    size = len(data)
    wide = (key * (size // 4 + 1))[:size]
    number = int.from_bytes(data, "little") ^ int.from_bytes(wide, "little")
    return number.to_bytes(size, "little")

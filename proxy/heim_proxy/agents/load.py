"""How much a lane carries: whether something large is on its way, so that others go elsewhere."""

from __future__ import annotations

from typing import Final

__all__ = ["HEAVY_BYTES", "Load"]

HEAVY_BYTES: Final = 8 * 1024 * 1024
"""In some 10 s: more than that is a transfer and not somebody at a keyboard."""

# With two samples a second, the sum forgets what is 10 s old: 1 / (1 - 0.95) samples.
_KEPT: Final = 0.95


class Load:
    """Bytes of late, older ones counting less and less.

    Attributes:
        heavy: Whether they were more than `HEAVY_BYTES` when it was last looked.
    """

    __slots__ = ("_recent", "_total", "heavy")

    def __init__(self) -> None:
        self.heavy = False
        self._total = 0
        self._recent = 0.0

    def sample(self, total: int) -> None:
        """Look; to be called twice a second while there is anything to see.

        Args:
            total: Bytes since the connection began, both ways.
        """
        self._recent = self._recent * _KEPT + (total - self._total)
        self._total = total
        self.heavy = self._recent > HEAVY_BYTES

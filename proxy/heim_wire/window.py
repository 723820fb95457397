"""Credit windows."""

from __future__ import annotations

__all__ = ["WindowBudget"]


class WindowBudget:
    """How much all windows of a process may promise together; shared by its sessions.

    Attributes:
        limit: Bytes; 512 MiB unless told.
        used: Bytes promised just now.
    """

    __slots__ = ("limit", "used")

    def __init__(self, limit: int = 536_870_912) -> None:
        self.limit = limit
        self.used = 0

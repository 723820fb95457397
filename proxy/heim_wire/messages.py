"""JSON messages and lines for people: strict to read, bounded to write."""

from __future__ import annotations

__all__ = ["Message"]

Message = dict[str, object]
